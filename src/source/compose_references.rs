//! The files that a compose file names: without them the project is not whole. Pure; paths are as Compose resolves them, against the folder
//! of the file that names them (compose-spec: 05-services `env_file`, `extends`; 08-configs; 09-secrets; 14-include).

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

/// One file that is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Where it lies; as written where a variable decides.
    pub path: PathBuf,
    /// The key that names it: `env_file`, `include`, `extends`, `secrets`, `configs`.
    pub key: &'static str,
    /// Whether the project does without it.
    pub optional: bool,
    /// Whether it is a compose file itself, and against which folder what it names counts then.
    pub compose: Option<PathBuf>,
}

impl Reference {
    /// Whether a variable decides which file this is.
    pub fn depends_on_a_variable(&self) -> bool {
        self.path.to_string_lossy().contains('$')
    }

    /// Whether it lies on another machine: `include` and `extends` take git and OCI addresses, too.
    pub fn is_remote(&self) -> bool {
        let text = self.path.to_string_lossy();
        self.compose.is_some() && (text.contains("://") || text.starts_with("git@") || text.starts_with("oci:"))
    }
}

/// Everything that `document`, whose relative paths count from `folder`, names.
pub(super) fn references(document: &Value, folder: &Path) -> Vec<Reference> {
    let mut found = Vec::new();
    for (_, service) in super::compose::services(document) {
        for value in list(service.get("env_file")) {
            let optional = value.get("required").and_then(Value::as_bool) == Some(false);
            push(&mut found, path_of(value), folder, "env_file", optional, None);
        }
        // Without a file another service of the same file is meant.
        if let Some(path) = service.get("extends").and_then(|extends| extends.get("file")).and_then(Value::as_str) {
            let base = folder_of(&join(folder, path), folder);
            push(&mut found, Some(path), folder, "extends", false, Some(base));
        }
    }
    for key in ["secrets", "configs"] {
        for value in document.get(key).and_then(Value::as_object).into_iter().flat_map(|map| map.values()) {
            push(&mut found, value.get("file").and_then(Value::as_str), folder, key, false, None);
        }
    }
    for value in list(document.get("include")) {
        let own = value.get("project_directory").and_then(Value::as_str).map(|path| join(folder, path));
        let paths: Vec<&str> = match value {
            Value::String(path) => vec![path],
            other => list(other.get("path")).into_iter().filter_map(Value::as_str).collect(),
        };
        // Of several the first one's folder is that of all.
        let base = own.or_else(|| paths.first().map(|path| folder_of(&join(folder, path), folder))).unwrap_or_else(|| folder.to_owned());
        for path in paths {
            push(&mut found, Some(path), folder, "include", false, Some(base.clone()));
        }
        for env in list(value.get("env_file")) {
            push(&mut found, path_of(env), folder, "env_file", false, None);
        }
    }
    found
}

/// What Compose reads beside a file of its default name without being told: the override, and the values of variables.
pub(super) fn beside(path: &Path, folder: &Path) -> Vec<Reference> {
    let named = |name: String, key: &'static str, compose: bool| Reference {
        path: folder.join(name),
        key,
        optional: true,
        compose: compose.then(|| folder.to_owned()),
    };
    let mut found = vec![named(".env".to_owned(), "env_file", false)];
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some((stem, extension)) = name.rsplit_once('.')
        && matches!((stem, extension), ("compose" | "docker-compose", "yml" | "yaml"))
    {
        for extension in ["yml", "yaml"] {
            found.push(named(format!("{stem}.override.{extension}"), "override", true));
        }
    }
    found
}

fn push(found: &mut Vec<Reference>, path: Option<&str>, folder: &Path, key: &'static str, optional: bool, compose: Option<PathBuf>) {
    let Some(path) = path.filter(|path| !path.is_empty()) else { return };
    let mut reference = Reference { path: PathBuf::from(path), key, optional, compose };
    if !reference.depends_on_a_variable() && !reference.is_remote() {
        reference.path = join(folder, path);
    }
    if !found.iter().any(|known| known.path == reference.path) {
        found.push(reference);
    }
}

/// A string, or a map with `path`.
fn path_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("path")?.as_str())
}

/// One value or a list of them.
fn list(value: Option<&Value>) -> Vec<&Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.iter().collect(),
        Some(one) => vec![one],
    }
}

/// A path of a file that lies in `folder`. `~/` is the home folder of whoever runs Compose; that is not known here, so it stays as it is and is not found.
/// `..` goes by the text, not by where links lead: Compose does so.
fn join(folder: &Path, path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

fn folder_of(path: &Path, otherwise: &Path) -> PathBuf {
    path.parent().map_or_else(|| otherwise.to_owned(), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let document: Value = serde_saphyr::from_slice(text.as_bytes()).unwrap();
        let line = |r: Reference| {
            let base = r.compose.map(|base| format!(" from {}", base.display())).unwrap_or_default();
            format!("{} {}{}{base}", r.key, r.path.display(), if r.optional { " optional" } else { "" })
        };
        references(&document, Path::new("/p")).into_iter().map(line).collect()
    }

    #[test]
    fn everything_that_a_project_is_made_of_is_found() {
        assert_eq!(
            of(
                "services:\n  a: {env_file: .env}\n  b: {env_file: [./b.env, {path: sub/c.env, required: false}]}\n  d:\n  e: {env_file: .env}\n"
            ),
            ["env_file /p/.env", "env_file /p/b.env", "env_file /p/sub/c.env optional"]
        );
        assert_eq!(of("configs: {c: {file: ../../../x/./y/../z}}\n"), ["configs /x/z"]);
        assert_eq!(
            of("services:\n  a: {extends: {file: base/common.yml, service: x}}\n  b: {extends: a}\n"),
            ["extends /p/base/common.yml from /p/base"]
        );
        assert_eq!(
            of(
                "secrets: {db: {file: ./secrets/db.txt}, x: {external: true}, y: {environment: Y}}\nconfigs: {nginx: {file: /etc/nginx.conf}}\n"
            ),
            ["secrets /p/secrets/db.txt", "configs /etc/nginx.conf"]
        );
        assert_eq!(
            of(
                "include:\n  - a/compose.yml\n  - path: [b/one.yml, b/two.yml]\n    project_directory: c\n    env_file: d.env\n  - 'https://example.org/x.git'\n  - '${WHERE}/compose.yml'\n"
            ),
            [
                "include /p/a/compose.yml from /p/a",
                "include /p/b/one.yml from /p/c",
                "include /p/b/two.yml from /p/c",
                "env_file /p/d.env",
                "include https://example.org/x.git from /p/https:/example.org",
                "include ${WHERE}/compose.yml from /p/${WHERE}",
            ]
        );
        for odd in
            ["services: 3\nsecrets: [a]\ninclude: {}\n", "- 1\n", "services: {a: {env_file: [1, null, {}], extends: {file: 3}}}\n", "x"]
        {
            assert_eq!(of(odd), [""; 0], "{odd}");
        }
    }

    #[test]
    fn what_lies_beside_a_default_name_belongs_to_it() {
        let names = |path: &str| {
            let found = beside(Path::new(path), Path::new("/p"));
            found.into_iter().map(|r| r.path.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("/p/compose.yaml"), [".env", "compose.override.yml", "compose.override.yaml"]);
        assert_eq!(names("/p/docker-compose.yml"), [".env", "docker-compose.override.yml", "docker-compose.override.yaml"]);
        assert_eq!(names("/p/prod.yml"), [".env"]);
    }
}
