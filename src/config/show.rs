//! The configuration in effect, in the shape in which it is written, without secrets: for `config show`, for the set's own
//! `drctl.yaml`, and as the digest in the manifest. What is shown loads again.

use serde_json::{Map, Value, json};

use crate::config::notify::{NotifierConfig, NotifierKind};
use crate::config::running::{AgentConfig, Hook, Limits};
use crate::config::s3::S3Place;
use crate::config::secret::{Reference, SecretRef, TextRef};
use crate::config::tree::resolve;
use crate::config::typed::*;
use crate::config::values::{duration_text, long_duration_text};
use crate::model::{Codec, Sha256};

/// A value in the order in which it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum View {
    Map(Vec<(&'static str, View)>),
    /// Keys of the user's own.
    Own(Vec<(String, View)>),
    List(Vec<View>),
    /// Plain text.
    Text(String),
    /// Text with a `${NAME}` in it that is to stay one.
    Raw(String),
    /// A number, a boolean, or settings that are only passed on.
    Value(Value),
    /// A key that is left out.
    Nothing,
}

/// How secrets that stand in the configuration are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// As `***`, or the `${NAME}` they came by.
    Hidden,
    /// As a digest, to compare two configurations. Never printed: short secrets could be guessed from it.
    Digest,
}

/// The configuration in effect as JSON, secrets as `***` or by reference.
pub fn redacted_json(config: &Config) -> Value {
    to_json(&view(config, Secrets::Hidden))
}

/// The same as YAML that loads again: the `drctl.yaml` of a backup set.
pub fn redacted_yaml(config: &Config) -> String {
    let mut out = String::from("# The configuration this backup set was made with, as it was in effect. Secrets are left out.\n");
    write(&view(config, Secrets::Hidden), 0, "", None, &mut out);
    out
}

/// SHA-256 of [`redacted_json`] without spaces, keys sorted: the manifest's `config_sha256`.
pub fn config_sha256(config: &Config) -> Sha256 {
    Sha256::of(redacted_json(config).to_string().as_bytes())
}

/// `config show`: YAML with the origin of each value as a comment.
pub fn show_text(config: &Config) -> String {
    let mut out = String::new();
    write(&view(config, Secrets::Hidden), 0, "", Some(config), &mut out);
    out.push_str(&format!("# state: {}\n", config.state.display()));
    out
}

/// `config show --json`: the configuration, and the origin of each value by its path.
pub fn show_json(config: &Config) -> Value {
    let mut origins = Map::new();
    paths(&view(config, Secrets::Hidden), String::new(), &mut |path| {
        origins.insert(path.to_owned(), json!(origin(config, path)));
    });
    json!({ "config": redacted_json(config), "origins": origins, "state": config.state.display().to_string() })
}

/// Where the value at `path` came from: `drctl.yaml:14:5`, `--identity`, `DRCTL_IDENTITY`, or `default`.
fn origin(config: &Config, path: &str) -> String {
    // A value may be written shorter than it is shown: `codec: zstd` is `codec.zstd: 1` in effect.
    let mut at = path;
    loop {
        if let Some(found) = config.origins.get(at) {
            return found.clone();
        }
        match at.rfind(['.', '[']) {
            Some(cut) => at = &at[..cut],
            None => return "default".to_owned(),
        }
    }
}

pub(crate) fn view(config: &Config, secrets: Secrets) -> View {
    let repository = &config.repository;
    let mut top = vec![("repository", repository_view(repository, secrets))];
    top.push(("notify", notify_view(&config.notify, secrets)));
    top.push(("agent", agent_view(&config.agent, secrets)));
    top.push(("jobs", View::List(config.jobs.iter().map(|job| job_view(job, secrets)).collect())));
    map(top)
}

fn s3_view(place: &S3Place, secrets: Secrets) -> View {
    let or_nothing = |value: &Option<String>| value.as_deref().map_or(View::Nothing, text);
    let keys = place.keys.as_ref();
    map(vec![
        ("bucket", text(&place.bucket)),
        ("prefix", if place.prefix.is_empty() { View::Nothing } else { text(&place.prefix) }),
        ("region", or_nothing(&place.region)),
        ("endpoint", or_nothing(&place.endpoint)),
        ("provider", text(place.provider().name())),
        ("path_style", place.path_style.map_or(View::Nothing, |p| View::Value(json!(p)))),
        ("profile", or_nothing(&place.profile)),
        ("access_key", keys.map_or(View::Nothing, |k| text_ref(&k.access_key))),
        ("secret_key", keys.map_or(View::Nothing, |k| secret(&k.secret_key, secrets))),
        ("session_token", keys.and_then(|k| k.session_token.as_ref()).map_or(View::Nothing, |t| secret(t, secrets))),
        ("ca_file", place.ca_file.as_deref().map_or(View::Nothing, path_view)),
        ("bandwidth", bytes(place.bandwidth)),
    ])
}

fn repository_view(repository: &Repository, secrets: Secrets) -> View {
    let store = |store: &StoreConfig| {
        let place = match &store.place {
            StorePlace::Local { path } => ("local", map(vec![("path", path_view(path))])),
            StorePlace::S3(place) => ("s3", s3_view(place, secrets)),
        };
        map(vec![
            ("name", text(&store.name)),
            place,
            ("optional", if store.optional { View::Value(json!(true)) } else { View::Nothing }),
            ("single_writer", store.single_writer.map_or(View::Nothing, |told| View::Value(json!(told)))),
        ])
    };
    map(vec![
        ("id", text(&repository.id)),
        ("root_key", text(&repository.root_key)),
        ("stores", View::List(repository.stores.iter().map(store).collect())),
        ("recipients", texts(&repository.recipients)),
        ("identity", repository.identity.as_deref().map_or(View::Nothing, path_view)),
        ("signing_key", path_view(&repository.signing_key)),
        ("encryption", text(if repository.encrypt { "age" } else { "none" })),
        (
            "codec",
            match repository.codec {
                Codec::Zstd { level } => map(vec![("zstd", View::Value(json!(level)))]),
                Codec::Gzip { level } => map(vec![("gzip", View::Value(json!(level)))]),
                Codec::None => text("none"),
            },
        ),
        ("decode_check", View::Value(json!(repository.decode_check))),
    ])
}

fn job_view(job: &Job, secrets: Secrets) -> View {
    map(vec![
        ("job", text(job.name.as_str())),
        ("timezone", text(job.timezone.iana_name().unwrap_or("UTC"))),
        ("stores", texts(&job.stores)),
        (
            "sources",
            View::List(job.sources.iter().map(|s| source_view(s, secrets)).chain(job.later_sources.iter().map(later_view)).collect()),
        ),
        ("schedule", schedule_view(&job.schedule)),
        ("retention", job.retention.as_ref().map_or(View::Nothing, retention_view)),
        ("objectives", objectives_view(&job.objectives)),
        ("limits", limits_view(&job.limits)),
        ("notify", notify_view(&job.notify, secrets)),
        ("hooks", map(vec![("before", hooks_view(&job.hooks.before, secrets)), ("after", hooks_view(&job.hooks.after, secrets))])),
    ])
}

fn notify_view(notifiers: &[NotifierConfig], secrets: Secrets) -> View {
    let one = |notifier: &NotifierConfig| {
        let mut settings = vec![("name", text(&notifier.name))];
        settings.extend(match &notifier.kind {
            NotifierKind::SlackWebhook { url } => vec![("webhook", secret(url, secrets))],
            NotifierKind::SlackToken { token, channel, api } => {
                vec![("token", secret(token, secrets)), ("channel", text(channel)), ("api", text(api))]
            }
            NotifierKind::Webhook { url, headers } => vec![
                ("url", secret(url, secrets)),
                ("headers", View::Own(headers.iter().map(|(k, v)| (k.clone(), secret(v, secrets))).collect())),
            ],
            NotifierKind::Healthchecks { url, log } => vec![("url", secret(url, secrets)), ("log", flag(*log))],
        });
        if !matches!(notifier.kind, NotifierKind::Healthchecks { .. }) {
            settings.push(("least", text(notifier.least.name())));
            settings.push(("success", text(notifier.success.name())));
            settings.push(("digest", text(notifier.digest.as_ref().map_or("never", |cron| cron.text()))));
        }
        map(vec![(notifier.kind.name(), map(settings))])
    };
    View::List(notifiers.iter().map(one).collect())
}

fn later_view(source: &LaterSource) -> View {
    map(vec![("later", map(vec![(source.kind, View::Value(source.settings.clone()))]))])
}

fn schedule_view(schedule: &Schedule) -> View {
    let cron = |c: &Option<crate::config::values::CronSchedule>| c.as_ref().map_or(View::Nothing, |c| text(c.text()));
    map(vec![
        ("full", cron(&schedule.full)),
        ("incremental", cron(&schedule.incremental)),
        ("archive", cron(&schedule.archive)),
        ("verify", cron(&schedule.verify)),
        ("drill", cron(&schedule.drill)),
        ("prune", cron(&schedule.prune)),
        ("jitter", span(Some(schedule.jitter).filter(|j| !j.is_zero()))),
        // Without an entry there is nothing to catch up with, and no schedule to show.
        ("catch_up", if schedule.is_empty() { View::Nothing } else { span(Some(schedule.catch_up)) }),
    ])
}

fn objectives_view(objectives: &Objectives) -> View {
    map(vec![
        ("rpo", span(objectives.rpo)),
        ("rto", span(objectives.rto)),
        ("spread", span(objectives.spread)),
        ("max_duration", span(Some(objectives.max_duration))),
        ("verified_within", long_span(objectives.verified_within)),
        ("drilled_within", long_span(objectives.drilled_within)),
        ("max_total_size", bytes(objectives.max_total_size)),
    ])
}

fn limits_view(limits: &Limits) -> View {
    map(vec![("step", span(Some(limits.step))), ("no_progress", span(Some(limits.no_progress))), ("total", span(Some(limits.total)))])
}

fn hooks_view(hooks: &[Hook], secrets: Secrets) -> View {
    let hook =
        |hook: &Hook| map(vec![("run", texts(&hook.run)), ("timeout", span(Some(hook.timeout))), ("env", env_view(&hook.env, secrets))]);
    View::List(hooks.iter().map(hook).collect())
}

fn agent_view(agent: &AgentConfig, secrets: Secrets) -> View {
    map(vec![
        ("listen", agent.listen.map_or_else(|| text("none"), |at| text(&at.to_string()))),
        ("allow_remote", if agent.allow_remote { flag(true) } else { View::Nothing }),
        ("hosts", if agent.hosts.is_empty() { View::Nothing } else { texts(&agent.hosts) }),
        ("token", agent.token.as_ref().map_or(View::Nothing, |t| secret(t, secrets))),
        ("textfile", agent.textfile.as_deref().map_or(View::Nothing, path_view)),
        ("bandwidth", bytes(agent.bandwidth)),
        ("nice", agent.nice.map_or(View::Nothing, |n| View::Value(json!(n)))),
        ("stop_within", span(Some(agent.stop_within))),
    ])
}

fn env_view(env: &std::collections::BTreeMap<String, SecretRef>, secrets: Secrets) -> View {
    View::Own(env.iter().map(|(k, v)| (k.clone(), secret(v, secrets))).collect())
}

fn bytes(count: Option<u64>) -> View {
    count.map_or(View::Nothing, |b| text(&format!("{b}B")))
}

fn retention_view(retention: &Retention) -> View {
    let count = |n: u32| if n == 0 { View::Nothing } else { View::Value(json!(n)) };
    map(vec![
        ("keep_last", count(retention.keep_last)),
        ("keep_within", long_span(retention.keep_within)),
        ("keep_hourly", count(retention.keep_hourly)),
        ("keep_daily", count(retention.keep_daily)),
        ("keep_weekly", count(retention.keep_weekly)),
        ("keep_monthly", count(retention.keep_monthly)),
        ("keep_yearly", count(retention.keep_yearly)),
        ("keep_min_verified", count(retention.keep_min_verified)),
    ])
}

fn source_view(source: &SourceConfig, secrets: Secrets) -> View {
    let mut settings = vec![("name", text(&source.name))];
    settings.extend(match &source.kind {
        SourceKind::Postgres(c) => postgres_view(c, secrets),
        SourceKind::Files(c) => vec![
            ("paths", View::List(c.paths.iter().map(|p| path_view(p)).collect())),
            ("include", texts(&c.include)),
            ("exclude", texts(&c.exclude)),
            ("newer_than", long_span(c.newer_than)),
            ("one_file_system", flag(c.one_file_system)),
            ("allow_empty", flag(c.allow_empty)),
        ],
        SourceKind::Environment(c) => vec![
            (
                "from",
                match &c.from {
                    EnvironmentFrom::OwnProcess => text("self"),
                    EnvironmentFrom::File(path) => map(vec![("file", path_view(path))]),
                },
            ),
            ("prefixes", texts(&c.prefixes)),
            ("names", texts(&c.names)),
        ],
        SourceKind::Compose(c) => vec![("files", View::List(c.files.iter().map(|p| path_view(p)).collect()))],
        SourceKind::Command(c) => vec![
            ("run", View::List(std::iter::once(&c.program).chain(&c.args).map(|t| text(t)).collect())),
            ("artifact", text(&c.artifact)),
            ("extension", text(&c.extension)),
            ("folder", path_view(&c.folder)),
            ("env", env_view(&c.env, secrets)),
            ("allow_empty", flag(c.allow_empty)),
            ("timeout", span(c.timeout)),
            ("idle_timeout", span(Some(c.idle_timeout))),
        ],
    });
    settings.push(("schedule", source.schedule.as_ref().map_or(View::Nothing, schedule_view)));
    settings.push(("retention", source.retention.as_ref().map_or(View::Nothing, retention_view)));
    settings.push(("allow_plaintext", if source.allow_plaintext { flag(true) } else { View::Nothing }));
    map(vec![(source.kind.name(), map(settings))])
}

fn postgres_view(c: &PostgresConfig, secrets: Secrets) -> Vec<(&'static str, View)> {
    let databases = match (&c.databases, &c.database_ref) {
        (_, Some(name)) => text_ref(name),
        (Some(DatabaseChoice::All), _) => text("all"),
        (Some(DatabaseChoice::Named(names)), _) => texts(names),
        (None, None) => View::Nothing,
    };
    let reach = match &c.reach {
        ReachConfig::Direct => View::Nothing,
        ReachConfig::Docker(name) => map(vec![("docker", text(name))]),
        ReachConfig::Ssh { host, config: None, identity: None } => map(vec![("ssh", text(host))]),
        ReachConfig::Ssh { host, config, identity } => {
            let file = |path: &Option<std::path::PathBuf>| path.as_deref().map_or(View::Nothing, path_view);
            map(vec![("ssh", map(vec![("host", text(host)), ("config", file(config)), ("identity", file(identity))]))])
        }
    };
    let tools = if c.reach == ReachConfig::Direct { View::Nothing } else { text(c.tools.name()) };
    vec![
        ("reach", reach),
        ("tools", tools),
        ("url", c.url.as_ref().map_or(View::Nothing, |u| secret(u, secrets))),
        ("host", c.host.as_ref().map_or(View::Nothing, text_ref)),
        ("port", c.port.map_or(View::Nothing, |p| View::Value(json!(p)))),
        ("database", databases),
        ("exclude", texts(&c.exclude)),
        ("user", c.user.as_ref().map_or(View::Nothing, text_ref)),
        ("password", c.password.as_ref().map_or(View::Nothing, |p| secret(p, secrets))),
        ("sslmode", c.sslmode.map_or(View::Nothing, |m| text(m.name()))),
        ("sslrootcert", c.sslrootcert.as_deref().map_or(View::Nothing, path_view)),
        ("sslcert", c.sslcert.as_deref().map_or(View::Nothing, path_view)),
        ("sslkey", c.sslkey.as_deref().map_or(View::Nothing, path_view)),
        ("maintenance_database", text(&c.maintenance_database)),
        ("globals", flag(c.globals)),
        ("role_passwords", flag(c.role_passwords)),
        ("allow_empty", flag(c.allow_empty)),
        ("lock_wait_timeout", span(Some(c.lock_wait_timeout))),
        ("connect_timeout", span(Some(c.connect_timeout))),
        ("client_folders", View::List(c.client_folders.iter().map(|p| path_view(p)).collect())),
    ]
}

/// A map without the keys that hold nothing.
fn map(entries: Vec<(&'static str, View)>) -> View {
    let empty = |view: &View| match view {
        View::Nothing => true,
        View::Map(m) => m.is_empty(),
        View::Own(m) => m.is_empty(),
        View::List(l) => l.is_empty(),
        _ => false,
    };
    View::Map(entries.into_iter().filter(|(_, view)| !empty(view)).collect())
}

fn text(text: &str) -> View {
    View::Text(text.to_owned())
}

fn texts(list: &[String]) -> View {
    View::List(list.iter().map(|t| text(t)).collect())
}

fn flag(value: bool) -> View {
    View::Value(json!(value))
}

fn long_span(duration: Option<std::time::Duration>) -> View {
    duration.map_or(View::Nothing, |d| View::Text(long_duration_text(d)))
}

fn span(duration: Option<std::time::Duration>) -> View {
    duration.map_or(View::Nothing, |d| View::Text(duration_text(d)))
}

fn path_view(path: &std::path::Path) -> View {
    // Paths come from text, so nothing is lost.
    View::Text(path.to_string_lossy().into_owned())
}

fn by(reference: &Reference) -> View {
    map(vec![match reference {
        Reference::Env(name) => ("env", text(name)),
        Reference::File(path) => ("file", path_view(path)),
        Reference::Cmd(argv) => ("cmd", texts(argv)),
        Reference::Cred(name) => ("cred", text(name)),
    }])
}

fn text_ref(value: &TextRef) -> View {
    match value {
        TextRef::Plain(plain) => text(plain),
        TextRef::By(reference) => by(reference),
    }
}

fn secret(value: &SecretRef, secrets: Secrets) -> View {
    match (value, secrets) {
        (SecretRef::By(reference), _) => by(reference),
        (SecretRef::Plain { value, .. }, Secrets::Digest) => text(&Sha256::of(value.expose().as_bytes()).to_string()),
        (SecretRef::Plain { shown: Some(shown), .. }, Secrets::Hidden) => View::Raw(shown.clone()),
        (SecretRef::Plain { shown: None, .. }, Secrets::Hidden) => text("***"),
    }
}

/// What must stand in a file so that `text` comes out of it.
fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

fn to_json(view: &View) -> Value {
    match view {
        View::Map(entries) => Value::Object(entries.iter().map(|(k, v)| ((*k).to_owned(), to_json(v))).collect()),
        View::Own(entries) => Value::Object(entries.iter().map(|(k, v)| (k.clone(), to_json(v))).collect()),
        View::List(items) => Value::Array(items.iter().map(to_json).collect()),
        View::Text(text) => Value::String(escaped(text)),
        View::Raw(text) => Value::String(text.clone()),
        View::Value(value) => value.clone(),
        View::Nothing => Value::Null,
    }
}

/// Each scalar's path, in the words of [`crate::config::problem::KeyPath`].
fn paths(view: &View, at: String, each: &mut dyn FnMut(&str)) {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match view {
        View::Map(entries) => entries.iter().for_each(|(k, v)| paths(v, below(k), each)),
        View::Own(entries) => entries.iter().for_each(|(k, v)| paths(v, below(k), each)),
        View::List(items) => items.iter().enumerate().for_each(|(i, v)| paths(v, format!("{at}[{i}]"), each)),
        _ => each(&at),
    }
}

/// A scalar as YAML 1.2; in quotes unless it is plain beyond doubt.
pub(crate) fn scalar(text: &str) -> String {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b'+' | b'='))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_'))
        && resolve(text).is_string()
        // Not text to a reader of YAML 1.1.
        && !matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off" | "y" | "n");
    // A JSON string is a YAML string.
    if plain { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

/// Block style, two spaces a level; `from` adds the origin of each scalar.
fn write(view: &View, indent: usize, at: &str, from: Option<&Config>, out: &mut String) {
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match view {
        View::Map(entries) => entries.iter().for_each(|(k, v)| entry(k, v, indent, &below(k), from, out)),
        View::Own(entries) => entries.iter().for_each(|(k, v)| entry(&scalar(k), v, indent, &below(k), from, out)),
        View::List(items) => {
            for (i, item) in items.iter().enumerate() {
                let at = format!("{at}[{i}]");
                let mut text = String::new();
                match item {
                    View::Map(_) | View::Own(_) | View::List(_) => write(item, indent + 1, &at, from, &mut text),
                    leaf => text = format!("{}{}\n", leaf_text(leaf), comment(&at, from)),
                }
                out.push_str(&"  ".repeat(indent));
                out.push_str("- ");
                out.push_str(text.trim_start());
            }
        }
        _ => {}
    }
}

fn entry(key: &str, view: &View, indent: usize, at: &str, from: Option<&Config>, out: &mut String) {
    let margin = "  ".repeat(indent);
    match view {
        View::Map(_) | View::Own(_) | View::List(_) => {
            out.push_str(&format!("{margin}{key}:\n"));
            write(view, indent + 1, at, from, out);
        }
        leaf => out.push_str(&format!("{margin}{key}: {}{}\n", leaf_text(leaf), comment(at, from))),
    }
}

fn leaf_text(view: &View) -> String {
    match view {
        View::Text(text) => scalar(&escaped(text)),
        View::Raw(text) => scalar(text),
        // JSON is YAML.
        View::Value(value) => value.to_string(),
        _ => String::new(),
    }
}

fn comment(at: &str, from: Option<&Config>) -> String {
    from.map(|config| format!("  # {}", origin(config, at))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_come_back_as_they_were() {
        for text in
            ["plain", "true", "1", "1e3", "", " x", "a: b", "#x", "a #b", "*x", "0 2 * * *", "yes", "ü\n\"", "-", "~", "/a/b", "${X}"]
        {
            let (yaml, env) = (format!("k: {}\n", scalar(&escaped(text))), crate::config::environment::Environment::of("/", [("X", "y")]));
            let mut problems = Vec::new();
            let node = crate::config::tree::parse(&yaml, &"f".into(), &env, &mut problems).unwrap();
            assert_eq!(node.to_json(), json!({ "k": text }), "{yaml}");
            assert!(problems.is_empty());
        }
    }
}
