//! Services of compose files, told apart by their image.

use std::collections::BTreeMap;

use super::Look;
use crate::config::environment::Environment;
use crate::config::tree::{self, Data, Node};

/// What a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    /// Of a later version.
    Later(&'static str),
    Unknown,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// The compose file's name.
    pub file: String,
    pub name: String,
    pub image: String,
    pub kind: Kind,
    /// The port of the host that leads to PostgreSQL's.
    pub published: Option<u16>,
    environment: BTreeMap<String, String>,
}

impl Service {
    /// A variable of the service, when its value is known.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).filter(|v| !v.is_empty() && !v.contains("${")).cloned()
    }
}

/// `compose.yaml`, `docker-compose.prod.yml` …
pub fn is_file_name(name: &str) -> bool {
    let stem = name.strip_suffix(".yml").or_else(|| name.strip_suffix(".yaml"));
    stem.is_some_and(|s| {
        ["compose", "docker-compose"].iter().any(|c| s.strip_prefix(c).is_some_and(|r| r.is_empty() || r.starts_with('.')))
    })
}

/// Whether a service can be named in `reach: { docker: … }`.
pub fn is_service_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// What an image holds, by its name without registry, folder, tag and digest.
pub fn kind_of(image: &str) -> Kind {
    let name = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default().to_ascii_lowercase();
    match name.as_str() {
        "postgres" | "postgresql" | "timescaledb" | "timescaledb-ha" | "postgis" | "pgvector" => Kind::Postgres,
        "redis" | "redis-stack" | "redis-stack-server" | "valkey" => Kind::Later("redis"),
        "mongo" | "mongodb" | "percona-server-mongodb" => Kind::Later("mongodb"),
        _ => Kind::Unknown,
    }
}

/// A source's name for a service: its own, without what a name may not hold.
pub fn source_name(service: &str) -> String {
    let name: String = service.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(40).collect();
    let name = name.trim_start_matches(['-', '_']);
    if name.is_empty() { "postgres".to_owned() } else { name.to_owned() }
}

/// Every service of every compose file, by name; the first file that has a service wins.
pub fn services(look: &Look, dotenv: &BTreeMap<String, String>) -> Vec<Service> {
    // Compose itself lets the environment win over .env.
    let own = look.environment.names().filter_map(|n| Some((n.to_owned(), look.environment.get_raw(n)?.to_owned())));
    let environment = Environment::of(&look.folder, dotenv.clone().into_iter().chain(own));
    let mut found: Vec<Service> = Vec::new();
    for (file, text) in look.files.iter().filter(|(name, _)| is_file_name(name)) {
        // Findings are left to compose itself: it knows more forms than we do.
        let Some(root) = tree::parse(text, &file.as_str().into(), &environment, &mut Vec::new()) else { continue };
        let Some(Data::Map(entries)) = root.get("services").map(|e| &e.node.data) else { continue };
        for entry in entries {
            let Some(image) = entry.node.get("image").and_then(|e| text_of(&e.node)) else { continue };
            if found.iter().any(|s| s.name == entry.key) {
                continue;
            }
            found.push(Service {
                file: file.clone(),
                name: entry.key.clone(),
                kind: kind_of(&image),
                image: image.chars().filter(|c| !c.is_control()).take(100).collect(),
                published: entry.node.get("ports").and_then(|e| published(&e.node, 5432)),
                environment: entry.node.get("environment").map(|e| variables(&e.node)).unwrap_or_default(),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn text_of(node: &Node) -> Option<String> {
    match &node.data {
        Data::Scalar(scalar) => Some(scalar.text.clone()),
        _ => None,
    }
}

/// A map, or a list of `NAME=value`.
fn variables(node: &Node) -> BTreeMap<String, String> {
    match &node.data {
        Data::Map(entries) => entries.iter().filter_map(|e| Some((e.key.clone(), text_of(&e.node)?))).collect(),
        Data::List(items) => {
            let pairs = items.iter().filter_map(text_of);
            pairs.filter_map(|t| t.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect()
        }
        Data::Scalar(_) => BTreeMap::new(),
    }
}

/// The host's port for the container's `target`: `5433:5432`, `127.0.0.1:5433:5432/tcp`, or `{ published: 5433, target: 5432 }`.
fn published(node: &Node, target: u16) -> Option<u16> {
    let Data::List(items) = &node.data else { return None };
    items.iter().find_map(|item| match &item.data {
        Data::Scalar(scalar) => {
            let text = scalar.text.split('/').next().unwrap_or_default();
            let mut parts = text.rsplit(':');
            let (inner, outer) = (parts.next()?, parts.next()?);
            (inner.parse() == Ok(target)).then(|| outer.parse().ok()).flatten()
        }
        Data::Map(_) => {
            let number = |key: &str| item.get(key).and_then(|e| text_of(&e.node)).and_then(|t| t.parse::<u16>().ok());
            (number("target") == Some(target)).then(|| number("published")).flatten()
        }
        Data::List(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_and_images() {
        for good in ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.prod.yml"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["composer.yml", "docker-compose", "compose.json", "my-compose.yml"] {
            assert!(!is_file_name(bad), "{bad}");
        }
        for (image, kind) in [
            ("postgres", Kind::Postgres),
            ("timescale/timescaledb:latest-pg15", Kind::Postgres),
            ("registry.example:5000/postgis/postgis:16", Kind::Postgres),
            ("redis:7-alpine", Kind::Later("redis")),
            ("mongo@sha256:abc", Kind::Later("mongodb")),
            ("postgres-exporter", Kind::Unknown),
            ("", Kind::Unknown),
        ] {
            assert_eq!(kind_of(image), kind, "{image}");
        }
    }

    #[test]
    fn published_ports() {
        for (text, want) in [
            ("['5433:5432']", Some(5433)),
            ("['127.0.0.1:5433:5432/tcp']", Some(5433)),
            ("[{ published: 5433, target: 5432 }]", Some(5433)),
            ("['80:80', '5434:5432']", Some(5434)),
            ("['5432']", None),
            ("['5433:5433']", None),
            ("x", None),
        ] {
            let node = tree::parse(&format!("p: {text}"), &"f".into(), &Environment::default(), &mut Vec::new()).unwrap();
            assert_eq!(published(&node.get("p").unwrap().node, 5432), want, "{text}");
        }
    }
}
