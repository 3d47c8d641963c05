//! `config check`, `config show`, `config schema`: text and JSON from one value each.

use serde_json::{Value, json};

use crate::config::problem::Problem;
use crate::config::values::duration_text;
use crate::config::{Config, Job, LoadOptions, Problems, SourceConfig, load, schema, show};

/// Which of the verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigVerb {
    /// Reads everything and says that it is fine, or what is not.
    Check,
    /// The configuration in effect, without secrets, with the origin of each value.
    Show,
    /// The JSON Schema: of `drctl.yaml`, or of a file in `jobs/`.
    Schema {
        /// Of a job file.
        job: bool,
    },
}

/// What a verb has to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// For people; ends with a newline.
    pub text: String,
    /// For machines.
    pub json: Value,
}

/// Runs one of the verbs. Findings come back as they are: [`Problems::to_json`] is their JSON, and as an error they exit 2.
pub fn run(verb: ConfigVerb, options: &LoadOptions) -> Result<Output, Problems> {
    match verb {
        ConfigVerb::Check => load(options).map(|config| check(&config)),
        ConfigVerb::Show => load(options).map(|config| Output { text: show::show_text(&config), json: show::show_json(&config) }),
        ConfigVerb::Schema { job } => {
            let value = if job { schema::JOB.value.clone() } else { schema::MAIN.value.clone() };
            Ok(Output { text: format!("{value:#}\n"), json: value })
        }
    }
}

fn check(config: &Config) -> Output {
    let mut text = String::new();
    let files: Vec<String> = config.files.iter().map(|f| f.display().to_string()).collect();
    text.push_str(&format!("read {}\n", files.join(", ")));
    let stores: Vec<String> = config.repository.stores.iter().map(|s| s.name.clone()).collect();
    let sealed = match (config.repository.encrypt, config.repository.recipients.len()) {
        (true, 1) => "encrypted for 1 recipient".to_owned(),
        (true, n) => format!("encrypted for {n} recipients"),
        (false, _) => "not encrypted".to_owned(),
    };
    text.push_str(&format!("repository {}: stores {}; {sealed}\n", config.repository.id, stores.join(", ")));
    for job in &config.jobs {
        text.push_str(&job_line(job));
    }
    for warning in &config.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let sources = config.jobs.iter().map(|j| j.sources.len()).sum();
    let sum = format!("{}, {}", count(config.jobs.len(), "job"), count(sources, "source"));
    text.push_str(&format!("the configuration is fine: {sum}, {}\n", count(config.warnings.len(), "warning")));
    let json = json!({
        "ok": true,
        "files": files,
        "repository": { "id": config.repository.id, "stores": stores, "encrypted": config.repository.encrypt },
        "jobs": config.jobs.iter().map(job_json).collect::<Vec<_>>(),
        "warnings": config.warnings.iter().map(Problem::to_json).collect::<Vec<_>>(),
        "config_sha256": show::config_sha256(config).to_string(),
    });
    Output { text, json }
}

fn job_line(job: &Job) -> String {
    let source = |s: &SourceConfig| if s.name == s.kind.name() { s.name.clone() } else { format!("{} ({})", s.name, s.kind.name()) };
    let sources: Vec<String> = job.sources.iter().map(source).collect();
    let zone = job.timezone.iana_name().unwrap_or("UTC");
    let when = match &job.schedule.full {
        Some(cron) => format!("schedule '{}' ({zone}), by drctl agent", cron.text()),
        None => "no schedule".to_owned(),
    };
    let keep = match &job.retention {
        Some(retention) => {
            let what = retention.keep_within.map_or_else(|| "by count".to_owned(), duration_text);
            format!("retention {what}, by drctl prune")
        }
        None => "every set is kept".to_owned(),
    };
    format!("job {}: {}; {when}; {keep}\n", job.name, sources.join(", "))
}

fn job_json(job: &Job) -> Value {
    let sources = job.sources.iter().map(|s| json!({ "name": s.name, "kind": s.kind.name(), "group": s.group() }));
    json!({ "job": job.name.as_str(), "sources": sources.collect::<Vec<_>>(), "stores": job.stores })
}
