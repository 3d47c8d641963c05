//! Job files that drctl brings along, for `init --preset`: those of `jobs/` at the root of the source tree, as they are.

use std::sync::Arc;

use serde::Serialize;

use crate::config::environment::Environment;
use crate::config::tree::{self, Data, Node};
use crate::error::{Error, Kind, Result};

/// One job file.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// Its name, and its job's.
    pub name: &'static str,
    /// The file. Its first line is `# NAME: what it is for`.
    pub text: &'static str,
}

macro_rules! presets {
    ($($name:literal),*) => {
        &[$(Preset { name: $name, text: include_str!(concat!("../../jobs/", $name, ".yaml")) }),*]
    };
}

/// All of them, the general ones first.
pub const PRESETS: &[Preset] = presets!["postgres", "compose-app", "files", "quant", "chan", "jisu", "sagacity", "erp"];

/// A variable that a preset takes from drctl's environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What stands for it where it is not set; without one it must be.
    pub default: Option<String>,
    /// Whether it is set now, itself or by a file that `<name>_FILE` names. Never its value.
    pub set: bool,
}

impl Preset {
    /// The preset of this name; a wrong one is answered with the names there are.
    pub fn named(name: &str) -> Result<&'static Preset> {
        PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            Error::new(Kind::Usage, format!("there is no preset '{}'", name.escape_debug()))
                .hint(format!("its name is one of {}; drctl init --preset list says what each is for", names.join(", ")))
        })
    }

    /// What it is for, a line.
    pub fn about(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.split_once(": ").map_or(first, |(_, about)| about)
    }

    /// The variables it takes, those that must be set first, each kind by name. What only a source marked `later:` names is left out.
    pub fn variables(&self, environment: &Environment) -> Vec<Variable> {
        let mut found: Vec<Variable> = Vec::new();
        if let Some(root) = self.tree() {
            variables(&root, environment, &mut found);
        }
        found.sort_by(|a, b| (a.default.is_some(), &a.name).cmp(&(b.default.is_some(), &b.name)));
        found.dedup_by(|a, b| a.name == b.name);
        found
    }

    /// What it knows of and does not back up yet.
    pub fn later(&self) -> Vec<String> {
        let root = self.tree();
        let sources = root.as_ref().and_then(|root| root.get("sources")).map(|entry| &entry.node.data);
        let Some(Data::List(sources)) = sources else { return Vec::new() };
        let marked = sources.iter().filter_map(|source| match &source.get("later")?.node.data {
            Data::Map(kinds) => kinds.first(),
            _ => None,
        });
        let words = marked.map(|kind| match kind.node.get("from").map(|from| &from.node.data) {
            Some(Data::Map(from)) if !from.is_empty() => format!("the {} of a {}", kind.key, from[0].key),
            _ => kind.key.clone(),
        });
        words.collect()
    }

    /// Read with every variable standing for itself, so that none is missing.
    fn tree(&self) -> Option<Node> {
        let names = self.text.split("${").skip(1).filter_map(|rest| rest.split([':', '}']).next());
        let environment = Environment::of("/", names.map(|name| (name, name)));
        tree::parse(self.text, &Arc::from(self.name), &environment, &mut Vec::new())
    }
}

fn variables(node: &Node, environment: &Environment, found: &mut Vec<Variable>) {
    match &node.data {
        Data::List(items) => items.iter().for_each(|item| variables(item, environment, found)),
        Data::Map(entries) => {
            for entry in entries.iter().filter(|entry| entry.key != "later") {
                match &entry.node.data {
                    Data::Scalar(scalar) if entry.key == "env" && entries.len() == 1 => {
                        let name = scalar.text.clone();
                        found.push(Variable { set: environment.has_secret(&name), name, default: None });
                    }
                    _ => variables(&entry.node, environment, found),
                }
            }
        }
        Data::Scalar(scalar) => {
            let bodies = scalar.written.iter().flat_map(|text| text.split("${").skip(1)).filter_map(|rest| rest.split('}').next());
            for body in bodies {
                let (name, default) = body.split_once(":-").map_or((body, None), |(name, default)| (name, Some(default.to_owned())));
                // `${NAME}` takes no `_FILE`.
                found.push(Variable { name: name.to_owned(), default, set: environment.get(name).is_some() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{folder, head, private};
    use crate::config::{Config, LoadOptions, Problems, load};
    use tempfile::TempDir;

    /// A configuration with this preset as its only job, in a world of these variables.
    fn load_with(preset: &Preset, variables: &[(String, String)]) -> (TempDir, Result<Config, Problems>) {
        let folder = folder();
        private(&folder.path().join("drctl.yaml"), &head());
        private(&folder.path().join("jobs").join(format!("{}.yaml", preset.name)), preset.text);
        let loaded = load(&LoadOptions::new(Environment::of(folder.path(), variables.iter().cloned())));
        (folder, loaded)
    }

    fn none() -> Environment {
        Environment::of("/", Vec::<(String, String)>::new())
    }

    fn needed(preset: &Preset) -> Vec<String> {
        preset.variables(&none()).into_iter().filter(|v| v.default.is_none()).map(|v| v.name).collect()
    }

    #[test]
    fn each_loads_as_it_is_with_its_variables_set() {
        for preset in PRESETS {
            // The addresses of notifiers are looked at when a configuration is read.
            let value = |name: &str| if name.ends_with("WEBHOOK_URL") { "https://hooks.example/x" } else { "/srv/x" }.to_owned();
            let set: Vec<(String, String)> = needed(preset).into_iter().map(|name| (name.clone(), value(&name))).collect();
            let (_folder, loaded) = load_with(preset, &set);
            let config = loaded.unwrap_or_else(|problems| panic!("{}: {problems}", preset.name));
            let job = config.job(preset.name).unwrap();
            assert!(job.schedule.full.is_some() && job.schedule.verify.is_some(), "{}", preset.name);
            let retention = job.retention.as_ref().unwrap();
            assert!(retention.keep_within.is_some() && retention.keep_monthly > 0 && retention.keep_min_verified == 3, "{}", preset.name);
            let (rpo, rto) = (job.objectives.rpo.unwrap(), job.objectives.rto.unwrap());
            assert!(rpo > rto && retention.keep_within.unwrap() > rpo, "{}", preset.name);
            // What is warned of is what comes later, and nothing that anyone could have set.
            for warning in &config.warnings {
                let known = ["comes with a later version of drctl", "not yet run by this version", "do not exist yet"]
                    .iter()
                    .any(|words| warning.what.contains(words));
                assert!(known, "{}: {warning}", preset.name);
            }
            let marked: Vec<&str> = job.later_sources.iter().map(|later| later.what.as_str()).collect();
            assert_eq!(preset.later(), marked, "{}", preset.name);
        }
    }

    #[test]
    fn every_missing_variable_is_named_at_once() {
        for preset in PRESETS {
            let (_folder, loaded) = load_with(preset, &[]);
            let told = match &loaded {
                Ok(config) => config.warnings.iter().map(|w| format!("{w}\n")).collect(),
                Err(problems) => problems.to_string(),
            };
            for name in needed(preset) {
                // Who is told is not looked at before the version that tells them.
                assert!(told.contains(&name) || name == "SLACK_WEBHOOK_URL", "{}: {name} in {told}", preset.name);
            }
            assert!(preset.variables(&none()).iter().all(|variable| !variable.set));
        }
    }

    #[test]
    fn the_comments_name_every_variable_and_its_default() {
        for preset in PRESETS {
            assert!(preset.text.starts_with(&format!("# {}: ", preset.name)) && preset.about().len() > 10, "{}", preset.name);
            assert!(preset.text.contains(&format!("\njob: {}\n", preset.name)));
            let head: String = preset.text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
            for Variable { name, default, .. } in preset.variables(&none()) {
                let line = head.lines().find(|line| line.contains(&name));
                let line = line.unwrap_or_else(|| panic!("{}: {name} is not explained", preset.name));
                let default = match default.as_deref() {
                    Some(".") => "that of drctl.yaml",
                    Some(default) => default,
                    None => continue,
                };
                assert!(line.contains(default), "{}: {name} {default}", preset.name);
            }
            assert!(!head.contains("later:") || !preset.later().is_empty(), "{}", preset.name);
            // What other versions of drctl would have to know of.
            for key in ["hooks:", "limits:", "catch_up:", "prune:"] {
                assert!(!preset.text.contains(key), "{}: {key}", preset.name);
            }
        }
        let jisu = Preset::named("jisu").unwrap();
        assert_eq!(needed(jisu), ["POSTGRES_PASSWORD", "POSTGRES_USER", "SLACK_WEBHOOK_URL"]);
        assert_eq!(jisu.later(), ["redis", "the environment of a container", "kubernetes"]);
        let set = Environment::of("/", [("POSTGRES_USER_FILE", "/run/secrets/user"), ("JISU_DIR", "")]);
        let names: Vec<(String, bool)> = jisu.variables(&set).into_iter().map(|v| (v.name, v.set)).take(4).collect();
        assert_eq!(names[1], ("POSTGRES_USER".to_owned(), true));
        assert_eq!(names[3], ("JISU_DIR".to_owned(), false));
        let wrong = Preset::named("jisuu").unwrap_err();
        assert!(wrong.kind() == Kind::Usage && wrong.hint_text().is_some_and(|hint| hint.contains("jisu, sagacity")));
    }

    /// Every file of the folder is one of them.
    #[test]
    fn none_is_forgotten() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs");
        let mut files: Vec<String> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        let mut names: Vec<String> = PRESETS.iter().map(|preset| format!("{}.yaml", preset.name)).collect();
        files.sort();
        names.sort();
        assert_eq!(files, names);
    }
}
