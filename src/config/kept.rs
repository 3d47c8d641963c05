//! What of the `drctl.yaml` that a backup set keeps goes into the configuration of a new machine. Pure.
//!
//! The text is what [`crate::config::show::redacted_yaml`] wrote: block style, two spaces a level, no scalar over more than one line. Jobs are taken
//! over as they stand there, line by line, so that a `${NAME}` stays one. What would run a program is commented out: whoever made the set may
//! have been a thief, and the new machine's drctl runs as root. Nothing here rests on how that text is written: what is left is read once more,
//! and a job that would still run something is commented out whole.

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
    /// Its lines as an entry of `jobs:`, two spaces deep, without the names of stores and with its programs commented out.
    pub text: String,
    /// What it would run.
    pub programs: Vec<Program>,
    /// Why all of it is to be commented out.
    pub off: Option<String>,
}

/// Something in a kept configuration that runs a program, and is commented out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Program {
    /// The setting: `hooks`, `sources[0].command`, `sources[1].postgres.password`.
    pub setting: String,
    /// What it would run.
    pub runs: String,
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
    // Line ends of YAML that are none of ours would end a comment.
    if text.chars().any(|c| c != '\n' && (c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'))) {
        return None;
    }
    let mut problems = Vec::new();
    // Variables are those of another machine, and only places and public keys are looked at.
    let root = tree::parse(text, &Arc::from("drctl.yaml"), &Environment::of("/", Vec::<(String, String)>::new()), &mut problems)?.to_json();
    let repository = root.get("repository")?;
    let texts = |value: Option<&Value>| -> Vec<String> {
        value.and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let stores = repository.get("stores").and_then(Value::as_array)?;
    let mut jobs = jobs(text);
    // Both ways of reading must see the same jobs.
    let named: Vec<&str> =
        root.get("jobs").and_then(Value::as_array).into_iter().flatten().filter_map(|j| j.get("job")?.as_str()).collect();
    if named != jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>() {
        return None;
    }
    jobs.iter_mut().for_each(comment_out);
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
            jobs.push(KeptJob { name, text: String::new(), programs: Vec::new(), off: None });
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

/// The programs that a job's text would run; `None` when it cannot be read as one job.
fn programs_of(text: &str) -> Option<Vec<Program>> {
    let environment = Environment::of("/", Vec::<(String, String)>::new());
    let root = tree::parse(&format!("jobs:\n{text}"), &Arc::from("drctl.yaml"), &environment, &mut Vec::new())?.to_json();
    let [job] = root.get("jobs")?.as_array()?.as_slice() else { return None };
    let mut found = Vec::new();
    programs("", job, &mut found);
    Some(found)
}

/// Whether any job of a configuration would run a program.
pub fn runs_programs(text: &str) -> bool {
    let environment = Environment::of("/", Vec::<(String, String)>::new());
    let root = tree::parse(text, &Arc::from("drctl.yaml"), &environment, &mut Vec::new()).map(|root| root.to_json());
    let mut found = Vec::new();
    let jobs = root.as_ref().and_then(|root| root.get("jobs"));
    programs("", jobs.unwrap_or(&Value::Null), &mut found);
    root.is_none() || !found.is_empty()
}

/// Whether a setting of this name runs what it holds: programs, folders of programs, an ssh configuration (ProxyCommand).
fn runs(key: &str, parent: &str) -> bool {
    matches!(key, "hooks" | "command" | "cmd" | "client_folders") || key == "config" && parent == "ssh"
}

fn programs(path: &str, value: &Value, found: &mut Vec<Program>) {
    let parent = path.rsplit('.').next().unwrap_or_default();
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let setting = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if runs(key, parent) && !is_empty(value) {
                    // The setting whose value the program gives.
                    let setting = if key == "cmd" { path.to_owned() } else { setting };
                    found.push(Program { setting, runs: shown(value) });
                } else {
                    programs(&setting, value, found);
                }
            }
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| programs(&format!("{path}[{at}]"), item, found)),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

/// What would run, on one line: the words of each `run`, or the value itself.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 400;
    fn lines(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
                let words: Vec<String> = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
                found.push(words.join(" "));
            }
            Value::Array(items) => items.iter().for_each(|item| lines(item, found)),
            Value::Object(map) if map.contains_key("run") => lines(&map["run"], found),
            Value::Object(map) => map.values().for_each(|value| lines(value, found)),
            Value::String(text) => found.push(text.clone()),
            other => found.push(other.to_string()),
        }
    }
    let mut found = Vec::new();
    lines(value, &mut found);
    found.join("; ").chars().take(LONGEST).flat_map(char::escape_debug).collect()
}

/// Comments out what would run a program.
fn comment_out(job: &mut KeptJob) {
    let Some(found) = programs_of(&job.text) else {
        job.off = Some("it cannot be read by itself".to_owned());
        return;
    };
    job.programs = found;
    if job.programs.is_empty() {
        return;
    }
    let text = without_programs(&job.text);
    match programs_of(&text) {
        Some(left) if left.is_empty() => job.text = text,
        _ => job.off = Some("it would run programs, see there".to_owned()),
    }
}

/// The block style that drctl writes, line by line: a setting that runs something, with what is deeper than it, becomes a comment.
fn without_programs(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    // Where an entry's key begins: behind the dash of a list.
    let key_of = |line: &str| {
        let entry = line.trim_start().trim_start_matches("- ").trim_start();
        entry.split_once(':').map(|(key, _)| key.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    let key_depth = |line: &str| depth(line) + if line.trim_start().starts_with("- ") { 2 } else { 0 };
    let parent = |at: usize| (0..at).rev().find(|up| key_depth(lines[*up]) < key_depth(lines[at]));
    let mut off = vec![false; lines.len()];
    for at in 0..lines.len() {
        let above = parent(at);
        if !runs(&key_of(lines[at]), &above.map(|up| key_of(lines[up])).unwrap_or_default()) {
            continue;
        }
        let first = if key_of(lines[at]) == "cmd" { above.unwrap_or(at) } else { at };
        let end = (first + 1..lines.len()).find(|next| depth(lines[*next]) <= depth(lines[first])).unwrap_or(lines.len());
        off[first..end].iter_mut().for_each(|line| *line = true);
    }
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        let margin = depth(line);
        if off[at] && (at == 0 || !off[at - 1]) {
            out.push_str(&format!(
                "{:margin$}# NOT SWITCHED ON: this came out of the repository and runs a program. If it is yours, take the '# ' away:\n",
                ""
            ));
        }
        match off[at] {
            true => out.push_str(&format!("{:margin$}# {}\n", "", line.trim_start())),
            false => out.push_str(&format!("{line}\n")),
        }
    }
    out
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
    fn f130_what_runs_a_program_is_commented_out_however_it_is_written() {
        let head = TEXT.split("jobs:").next().unwrap();
        let job =
            |lines: &str| read(&format!("{head}jobs:\n  - job: shop\n    timezone: UTC\n{lines}")).map(|mut kept| kept.jobs.remove(0));
        let data = "    sources:\n      - files:\n          name: data\n          paths:\n            - /srv\n";
        let hooks = "    hooks:\n      before:\n        - run:\n            - sh\n            - -c\n            - touch /root/owned\n          timeout: 5m\n";
        let found = job(&format!("{data}{hooks}")).unwrap();
        assert_eq!(found.programs, [Program { setting: "hooks".into(), runs: "sh -c touch /root/owned".into() }]);
        assert!(
            found.off.is_none() && found.text.contains("\n    # hooks:\n      # before:\n") && found.text.contains("            - /srv\n")
        );
        assert_eq!(programs_of(&found.text).unwrap(), []);
        // Taking the '# ' away gives back what was there.
        let back: String = found.text.lines().filter(|l| !l.contains("NOT SWITCHED")).map(|l| l.replacen("# ", "", 1) + "\n").collect();
        assert_eq!(programs_of(&back).unwrap(), found.programs);
        let command = "      - command:\n          name: x\n          run:\n            - /tmp/x\n          artifact: a\n";
        let found = job(&format!("{data}{command}")).unwrap();
        assert_eq!((found.programs[0].setting.as_str(), found.programs[0].runs.as_str()), ("sources[1].command", "/tmp/x"));
        assert!(found.off.is_none() && found.text.contains("\n      # - command:\n"), "{}", found.text);
        let secret = "      - postgres:\n          host: db\n          password:\n            cmd:\n              - /tmp/x\n              - y\n          port: 1\n";
        let found = job(&format!("    sources:\n{secret}")).unwrap();
        assert_eq!((found.programs[0].setting.as_str(), found.programs[0].runs.as_str()), ("sources[0].postgres.password", "/tmp/x y"));
        assert!(
            found.text.contains("          # password:\n            # cmd:\n") && found.text.contains("\n          port: 1\n"),
            "{}",
            found.text
        );
        for setting in
            ["client_folders:\n            - /tmp", "reach:\n            ssh:\n              host: h\n              config: /tmp/c"]
        {
            let found = job(&format!("    sources:\n      - postgres:\n          host: db\n          {setting}\n")).unwrap();
            assert!(found.programs.len() == 1 && found.off.is_none() && programs_of(&found.text).unwrap().is_empty(), "{found:?}");
        }
        // Spellings that drctl does not use: nothing of such a job is in effect, or nothing of it runs.
        for other in [
            "    hooks: { before: [{ run: [sh, -c, x] }] }\n",
            "    \"hooks\":\n      before:\n        - run: [sh]\n",
            "    \"h\\u006foks\": { before: [{ run: [sh] }] }\n",
            "    ? hooks\n    : before:\n        - run: [sh]\n",
            "    !!str hooks: { before: [{ run: [sh] }] }\n",
            "    x: &a { before: [{ run: [sh] }] }\n    hooks: *a\n",
            "    hooks:\n      {before: [{run: [sh]}]}\n",
        ] {
            let Some(found) = job(&format!("{data}{other}")) else { continue };
            assert!(!found.programs.is_empty(), "{other}");
            assert!(found.off.is_some() || programs_of(&found.text).unwrap().is_empty(), "{other}\n{}", found.text);
        }
        for end in ["\r", "\u{85}", "\u{2028}"] {
            assert!(job(&format!("{data}    # x{end}    hooks: {{ before: [{{ run: [sh] }}] }}\n")).is_none(), "{end:?}");
        }
    }

    #[test]
    fn what_is_no_such_text_is_not_guessed_at() {
        for text in ["", "x", "{", "repository: 1\n", "jobs:\n  - job: a\n", &TEXT.replace("  - job: shop", "  -\n    job: shop")] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(!read(&TEXT.replace("encryption: age", "encryption: none")).unwrap().encrypted);
    }
}
