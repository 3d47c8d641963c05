//! What of the `drctl.yaml` that a backup set keeps goes into the configuration of a new machine. Pure.
//!
//! The text is what [`crate::config::show::redacted_yaml`] wrote: block style, two spaces a level, no scalar over more than one line. Jobs are taken
//! over as they stand there, line by line, so that a `${NAME}` stays one.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::config::environment::Environment;
use crate::config::s3::S3Place;
use crate::config::tree;
use crate::config::typed::StorePlace;

/// One job of a kept configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptJob {
    /// Its name.
    pub name: String,
    /// Its lines as an entry of `jobs:`, two spaces deep, without the names of stores.
    pub text: String,
}

impl KeptJob {
    /// Whether a secret stood in the configuration itself: it is not kept.
    pub fn lacks_secret(&self) -> bool {
        self.text.contains("***")
    }
}

/// A kept configuration, as far as it is of use elsewhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Its jobs.
    pub jobs: Vec<KeptJob>,
    /// Public keys that it sealed for.
    pub recipients: Vec<String>,
    /// Whether it sealed at all.
    pub encrypted: bool,
    /// Its stores by name, the first one with the log; those whose place can be told.
    pub stores: Vec<(String, StorePlace)>,
    /// Further settings that are not taken over: `notify`, `agent`.
    pub left: Vec<String>,
}

/// Takes a kept configuration apart. `None` when it is not such a text: it is shown to a person then, not guessed at.
pub fn read(text: &str) -> Option<Kept> {
    let mut problems = Vec::new();
    // Variables are those of another machine, and only places and public keys are looked at.
    let root = tree::parse(text, &Arc::from("drctl.yaml"), &Environment::of("/", Vec::<(String, String)>::new()), &mut problems)?.to_json();
    let repository = root.get("repository")?;
    let texts = |value: Option<&Value>| -> Vec<String> {
        value.and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let stores = repository.get("stores").and_then(Value::as_array)?;
    let jobs = jobs(text);
    // Both ways of reading must see the same jobs.
    let named: Vec<&str> =
        root.get("jobs").and_then(Value::as_array).into_iter().flatten().filter_map(|j| j.get("job")?.as_str()).collect();
    if named != jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>() {
        return None;
    }
    Some(Kept {
        jobs,
        recipients: texts(repository.get("recipients")),
        encrypted: repository.get("encryption").and_then(Value::as_str) != Some("none"),
        stores: stores.iter().filter_map(store).collect(),
        left: ["notify", "agent"].into_iter().filter(|key| root.get(key).is_some()).map(str::to_owned).collect(),
    })
}

fn store(value: &Value) -> Option<(String, StorePlace)> {
    let name = value.get("name")?.as_str()?.to_owned();
    if let Some(path) = value.get("local").and_then(|local| local.get("path")?.as_str()) {
        return Some((name, StorePlace::Local { path: PathBuf::from(path) }));
    }
    let s3 = value.get("s3")?;
    let field = |key: &str| s3.get(key).and_then(Value::as_str).map(str::to_owned);
    let place = S3Place { endpoint: field("endpoint"), ..S3Place::new(field("bucket")?, field("prefix").unwrap_or_default()) };
    Some((name, StorePlace::S3(Box::new(place))))
}

/// The entries of `jobs:`.
fn jobs(text: &str) -> Vec<KeptJob> {
    let mut jobs: Vec<KeptJob> = Vec::new();
    let mut in_stores = false;
    for line in text.lines().skip_while(|line| *line != "jobs:").skip(1).take_while(|line| line.starts_with("  ")) {
        if let Some(first) = line.strip_prefix("  - ") {
            let name = first.strip_prefix("job: ").map(|name| name.trim_matches('"').to_owned()).unwrap_or_default();
            jobs.push(KeptJob { name, text: String::new() });
            in_stores = false;
        } else if !line.starts_with("     ") {
            in_stores = line == "    stores:";
        }
        // The new machine has one store, by whatever name.
        if let Some(job) = jobs.last_mut().filter(|_| !in_stores) {
            job.text.push_str(line);
            job.text.push('\n');
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# The configuration this backup set was made with, as it was in effect. Secrets are left out.
repository:
  id: "0123"
  root_key: RWx
  stores:
    - name: main
      local:
        path: /mnt/backup
    - name: off-site
      s3:
        bucket: acme
        prefix: drctl
        endpoint: "https://minio.example:9000"
  recipients:
    - age1x
  signing_key: /srv/drctl-keys/signing.key
  encryption: age
notify:
  - slack: x
jobs:
  - job: shop
    timezone: Europe/Berlin
    stores:
      - main
      - off-site
    sources:
      - files:
          name: data
          paths:
            - "/srv/${SHOP}/data"
  - job: "yes"
    timezone: UTC
    stores:
      - main
    sources:
      - postgres:
          password: "***"
"#;

    #[test]
    fn jobs_come_over_line_by_line_without_their_stores() {
        let kept = read(TEXT).unwrap();
        assert_eq!(kept.jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["shop", "yes"]);
        assert_eq!(
            kept.jobs[0].text,
            "  - job: shop\n    timezone: Europe/Berlin\n    sources:\n      - files:\n          name: data\n          paths:\n            - \"/srv/${SHOP}/data\"\n"
        );
        assert_eq!((kept.jobs[0].lacks_secret(), kept.jobs[1].lacks_secret()), (false, true));
        assert_eq!((kept.recipients.as_slice(), kept.encrypted), (["age1x".to_owned()].as_slice(), true));
        assert_eq!(kept.stores[0], ("main".to_owned(), StorePlace::Local { path: "/mnt/backup".into() }));
        let StorePlace::S3(bucket) = &kept.stores[1].1 else { panic!("{kept:?}") };
        assert_eq!((bucket.short().as_str(), bucket.endpoint.as_deref()), ("s3://acme/drctl", Some("https://minio.example:9000")));
        assert_eq!(kept.left, ["notify"]);
    }

    #[test]
    fn what_is_no_such_text_is_not_guessed_at() {
        for text in ["", "x", "{", "repository: 1\n", "jobs:\n  - job: a\n", &TEXT.replace("  - job: shop", "  -\n    job: shop")] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(!read(&TEXT.replace("encryption: age", "encryption: none")).unwrap().encrypted);
    }
}
