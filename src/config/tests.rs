//! Whole configurations that are right: what they mean, what is shown of them, what differs between them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::discover::{Look, discover};
use super::template::{Template, job_name, write};
use super::*;
use crate::model::{Codec, Secret};

const RECIPIENT: &str = "age17et55u4d4df3aee5pafa5cs4ahcwfrl507ultujwu3a9ntsk34xs7r78nm";
const ROOT_KEY: &str = "RWR3cBpllPzfHE/HcwpCzx0LtLbYTVuI6FSpV6SdSJzNM53mU1tJlsq/";

pub(super) fn private(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

pub(super) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["identity", "signing", "other"] {
        private(&folder.path().join("keys").join(name), "key\n");
    }
    folder
}

pub(super) fn head() -> String {
    format!(
        "repository:\n  id: shop-7k3q\n  root_key: {ROOT_KEY}\n  stores:\n    - name: main\n      local: {{ path: store }}\n  recipients: [{RECIPIENT}]\n  \
         identity: keys/identity\n  signing_key: keys/signing\n"
    )
}

const BODY: &str = r##"  codec: gzip
defaults:
  timezone: Asia/Shanghai
  retention: { keep_within: 30d, keep_monthly: 12, keep_min_verified: 3 }
notify:
  - slack: { webhook: { env: SLACK_WEBHOOK_URL } }
  - slack: { webhook: "https://hooks.slack.com/services/hunter2", name: ops, least: critical }
  - slack: { token: hunter2, channel: "#backups", digest: never }
  - webhook: { url: "http://127.0.0.1:9/x?key=hunter2", headers: { Authorization: hunter2, X-Y: { env: X } }, success: each, digest: "@daily" }
jobs:
  - job: jisu
    sources:
      - postgres:
          url: postgres://app:hunter2@127.0.0.1:5433/jisu_prod?sslmode=require
          password: ${DB_PASSWORD}
          lock_wait_timeout: 90s
      - postgres: { name: second, host: db2, database: [a, "b c"], sslrootcert: system, sslcert: tls/drctl.crt,
          sslkey: /etc/drctl.key, user: { env: PGUSER2 }, password: hunter2 }
      - files: { name: uploads, paths: [/data/uploads, rel], exclude: ["*.tmp"], schedule: { full: "0 3 1 * *" }, retention: { keep_last: 2 } }
      - environment: { from: { file: .env }, prefixes: [JISU_, DATABASE_] }
      - compose: { files: [docker-compose.prod.yml] }
      - later: { redis: { reach: { docker: hunter2 }, password: hunter2, url: { env: REDIS_URL } } }
      - command: { run: [sh, -c, "echo ${SET} $${LITERAL}"], env: { TOKEN: hunter2, OTHER: { env: X } }, timeout: 1h30m }
    schedule: { full: "0 2 * * *", verify: "0 6 * * *", jitter: 5m }
    objectives: { rpo: 1h, rto: 30m }
    notify: [ { healthchecks: { url: { env: HC_URL }, log: true } } ]
"##;

fn options(folder: &TempDir, vars: &[(&str, &str)]) -> LoadOptions {
    let base = [("DB_PASSWORD", "hunter2"), ("SET", "value"), ("HOME", "/nonexistent")];
    LoadOptions::new(Environment::of(folder.path(), base.iter().chain(vars).copied()))
}

fn read(folder: &TempDir, text: &str) -> Config {
    private(&folder.path().join("drctl.yaml"), text);
    load(&options(folder, &[])).unwrap_or_else(|p| panic!("{p}"))
}

#[test]
fn everything_is_typed_and_absolute() {
    let folder = folder();
    let config = read(&folder, &format!("{}{BODY}", head()));
    let repository = &config.repository;
    assert_eq!(repository.stores[0].place, StorePlace::Local { path: folder.path().join("store") });
    assert!(!repository.stores[0].optional && repository.encrypt && repository.decode_check);
    assert_eq!(repository.codec, Codec::Gzip { level: 6 });
    assert_eq!(repository.signing_key, folder.path().join("keys/signing"));
    let job = config.job("jisu").unwrap();
    assert_eq!(job.timezone.iana_name(), Some("Asia/Shanghai"));
    assert_eq!(job.stores, ["main"]);
    assert_eq!(job.retention.as_ref().unwrap().keep_within, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(job.schedule.jitter, Duration::from_secs(300));
    let groups: Vec<(&str, usize)> = job.groups().iter().map(|(name, sources)| (*name, sources.len())).collect();
    assert_eq!(groups, [("main", 5), ("uploads", 1)]);
    let SourceKind::Postgres(postgres) = &job.sources[0].kind else { panic!() };
    let connection = postgres.connection(&options(&folder, &[]).environment).unwrap();
    assert_eq!((connection.place().as_str(), connection.user.as_str()), ("127.0.0.1:5433", "app"));
    assert_eq!(connection.sslmode, SslMode::Require);
    assert_eq!(connection.databases, DatabaseChoice::Named(vec!["jisu_prod".into()]));
    let SourceKind::Postgres(second) = &job.sources[1].kind else { panic!() };
    assert_eq!(second.sslrootcert.as_deref(), Some(Path::new("system")));
    assert_eq!(second.sslcert, Some(folder.path().join("tls/drctl.crt")));
    assert_eq!(second.sslkey.as_deref(), Some(Path::new("/etc/drctl.key")));
    let SourceKind::Files(files) = &job.source("uploads").unwrap().kind else { panic!() };
    assert_eq!(files.paths, [Path::new("/data/uploads").to_owned(), folder.path().join("rel")]);
    assert!(files.one_file_system && !files.allow_empty);
    let SourceKind::Command(command) = &job.sources[5].kind else { panic!() };
    assert_eq!(command.args, ["-c", "echo value ${LITERAL}"]);
    assert_eq!((command.folder.as_path(), command.timeout), (folder.path(), Some(Duration::from_secs(5400))));
    let told: Vec<String> = config
        .notifiers()
        .map(|(job, n)| {
            let digest = n.digest.as_ref().map_or("never", |cron| cron.text());
            format!("{} {} {} {} {} {digest}", job.map_or("*", |j| j.as_str()), n.name, n.kind.name(), n.least.name(), n.success.name())
        })
        .collect();
    assert_eq!(
        told,
        [
            "* slack slack info quiet 0 9 * * 1",
            "* ops slack critical quiet never",
            "* slack-2 slack info quiet never",
            "* webhook webhook info each @daily",
            "jisu jisu.healthchecks healthchecks info quiet never",
        ]
    );
    let NotifierKind::SlackToken { channel, api, .. } = &config.notify[2].kind else { panic!() };
    assert_eq!((channel.as_str(), api.as_str()), ("#backups", "https://slack.com/api"));
    let known = config.known_secrets(&options(&folder, &[("HC_URL", "http://hc/1")]).environment);
    for secret in ["hunter2", "http://hc/1", "https://hooks.slack.com/services/hunter2"] {
        assert!(known.contains(&Secret::new(secret)), "{secret}");
    }
    assert!(!format!("{config:?}").contains("hunter2"), "Debug shows a secret");
}

#[test]
fn what_is_shown_has_no_secret_and_loads_again() {
    let first_folder = folder();
    let config = read(&first_folder, &format!("{}{BODY}", head()));
    let yaml = redacted_yaml(&config);
    let shown = show::show_text(&config);
    for text in [&yaml, &shown, &show::show_json(&config).to_string(), &redacted_json(&config).to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(yaml.contains("${DB_PASSWORD}") && yaml.contains("$${LITERAL}") && yaml.contains("postgres://app:***@127.0.0.1"), "{yaml}");
    let again = read(&folder(), &yaml);
    assert_eq!(redacted_json(&again), redacted_json(&config));
    assert_eq!(config_sha256(&again), config_sha256(&config));
    // `config show` is the same text with comments.
    let shown_again = read(&folder(), &shown);
    assert_eq!(redacted_json(&shown_again), redacted_json(&config));
}

#[test]
fn every_value_has_its_origin() {
    let folder = folder();
    private(&folder.path().join("drctl.yaml"), &format!("{}{BODY}", head()));
    private(&folder.path().join("jobs/more.yaml"), "job: more\nsources:\n  - files: { paths: [/x] }\n");
    let mut given = options(&folder, &[("DRCTL_CODEC", "zstd:3"), ("DRCTL_IDENTITY", "keys/identity")]);
    given.overlay.identity = Some("keys/other".into());
    let config = load(&given).unwrap();
    assert_eq!(config.repository.codec, Codec::Zstd { level: 3 });
    assert_eq!(config.repository.identity, Some(folder.path().join("keys/other")), "a flag wins over the environment");
    let origins = &show::show_json(&config)["origins"];
    for (path, origin) in [
        ("repository.id", "drctl.yaml:2:7"),
        ("repository.identity", "--identity"),
        ("repository.codec.zstd", "DRCTL_CODEC"),
        ("repository.decode_check", "default"),
        ("jobs[0].timezone", "drctl.yaml:12:13"),
        ("jobs[0].sources[0].postgres.name", "default"),
        ("jobs[1].job", "jobs/more.yaml:1:6"),
        ("jobs[1].retention.keep_within", "drctl.yaml:13:29"),
        ("jobs[1].sources[0].files.paths[0]", "jobs/more.yaml:3:22"),
    ] {
        assert_eq!(origins[path], json!(origin), "{path}");
    }
    let bad = load(&options(&folder, &[("DRCTL_CODEC", "zstd:30"), ("DRCTL_DECODE_CHECK", "perhaps")])).unwrap_err();
    assert_eq!(
        bad.to_string(),
        "DRCTL_CODEC: repository.codec.zstd: must be at most 19\n\
         DRCTL_DECODE_CHECK: repository.decode_check: must be true or false, not text"
    );
}

#[test]
fn what_comes_later_is_said_and_accepted() {
    let folder = folder();
    let text = format!(
        "{}agent: {{ listen: \"127.0.0.1:9180\", bandwidth: 20MiB }}\njobs:\n  - job: a\n    sources: [{{ files: {{ paths: [/x] }} }}]\n    \
         schedule: {{ full: \"@daily\", incremental: \"0 * * * *\", archive: \"0 4 1 * *\", drill: \"0 5 * * 0\" }}\n    \
         hooks: {{ before: [{{ run: [echo, hi] }}] }}\n",
        head()
    );
    let config = read(&folder, &text);
    let warnings: Vec<String> = config.warnings.iter().map(|w| w.what.clone()).collect();
    assert_eq!(
        warnings,
        ["incremental sets do not exist yet: each of these runs makes a full set", "drills are not yet run by this version of drctl",]
    );
}

#[test]
fn how_jobs_are_run_has_defaults_and_comes_back_as_it_is_shown() {
    let folder = folder();
    let (seconds, hours) = (Duration::from_secs, |n: u64| Duration::from_secs(n * 3600));
    let job = |more: &str| format!("  - job: a\n    sources: [{{ files: {{ paths: [/x] }} }}]\n{more}");
    let config = read(&folder, &format!("{}jobs:\n{}", head(), job("")));
    assert_eq!(config.agent, AgentConfig::default());
    assert_eq!((config.agent.listen.unwrap().to_string().as_str(), config.agent.stop_within), ("127.0.0.1:9180", seconds(60)));
    let a = &config.jobs[0];
    assert_eq!(a.limits, Limits { step: hours(2), no_progress: seconds(1800), total: hours(12) });
    assert_eq!((a.objectives.max_duration, a.schedule.catch_up, &a.hooks), (seconds(1800), seconds(7 * 86_400), &Hooks::default()));

    let text = format!(
        "{}agent: {{ listen: '0.0.0.0:80', allow_remote: true, hosts: [drctl, backup.example.com], token: {{ env: TOKEN }}, textfile: drctl.prom, bandwidth: 20MiB, nice: 5, \
         stop_within: 2m }}\ndefaults: {{ limits: {{ step: 4h, total: 1d }} }}\njobs:\n{}",
        head(),
        job("    limits: { step: 5h }\n    schedule: { prune: '0 5 * * *', catch_up: 1d }\n    \
             objectives: { max_duration: 2h, verified_within: 7d, drilled_within: 30d, max_total_size: 500GiB }\n    \
             hooks: { before: [{ run: [stop, '${X}'], env: { PW: hunter2 } }], after: [{ run: [start], timeout: 10s }] }\n")
    );
    private(&folder.path().join("drctl.yaml"), &text);
    let options = options(&folder, &[("TOKEN", "t"), ("X", "y")]);
    let config = load(&options).unwrap();
    assert_eq!(config.warnings, []);
    let a = &config.jobs[0];
    assert_eq!(a.limits, Limits { step: hours(5), no_progress: seconds(1800), total: hours(24) }, "the job's own over those of all jobs");
    assert_eq!(a.hooks.before[0].run, ["stop", "y"]);
    assert_eq!((a.hooks.before[0].timeout, a.hooks.after[0].timeout), (seconds(300), seconds(10)));
    assert_eq!((a.objectives.max_total_size, a.schedule.catch_up), (Some(500 << 30), hours(24)));
    assert_eq!(config.agent.hosts, ["drctl", "backup.example.com"]);
    assert_eq!(config.agent.textfile, Some(folder.path().join("drctl.prom")));
    let shown = redacted_yaml(&config);
    assert!(!shown.contains("hunter2") && shown.contains("PW: \"***\""), "{shown}");
    private(&folder.path().join("drctl.yaml"), &shown);
    let again = load(&options).unwrap_or_else(|p| panic!("{p}\n{shown}"));
    assert_eq!(redacted_json(&again), redacted_json(&config));
    assert_eq!((again.jobs[0].limits, &again.agent, &again.jobs[0].objectives), (a.limits, &config.agent, &a.objectives));
}

#[test]
fn a_name_to_be_asked_by_is_a_name_and_nothing_more() {
    let folder = folder();
    for (host, good) in [("drctl", true), ("backup_1.example.com", true), ("https://x", false), ("x:9180", false), ("*.example.com", false)]
    {
        private(&folder.path().join("drctl.yaml"), &format!("{}agent: {{ hosts: ['{host}'] }}\n", head()));
        match load(&options(&folder, &[])) {
            Ok(config) => assert!(good && config.agent.hosts == [host], "{host}"),
            Err(problems) => assert!(!good && problems.to_string().contains("is not the name of a machine"), "{host}: {problems}"),
        }
    }
}

#[test]
fn the_agent_listens_on_this_machine_only_unless_that_is_meant() {
    let folder = folder();
    for (agent, listens) in [
        ("listen: none", Ok(None)),
        ("listen: '127.8.0.1:1'", Ok(Some("127.8.0.1:1"))),
        ("listen: '[::1]:80'", Ok(Some("[::1]:80"))),
        ("listen: '[::ffff:127.0.0.1]:80'", Ok(Some("[::ffff:127.0.0.1]:80"))),
        ("listen: '10.0.0.1:80', allow_remote: true", Ok(Some("10.0.0.1:80"))),
        ("listen: '10.0.0.1:80', allow_remote: false", Err("other machines could connect to 10.0.0.1:80")),
        ("listen: '[::]:80'", Err("other machines could connect to [::]:80")),
        ("listen: '[::ffff:10.0.0.1]:80'", Err("other machines")),
        ("listen: localhost", Err("is not an address with a port")),
    ] {
        private(&folder.path().join("drctl.yaml"), &format!("{}agent: {{ {agent} }}\n", head()));
        match (load(&options(&folder, &[])), listens) {
            (Ok(config), Ok(listens)) => assert_eq!(config.agent.listen.map(|at| at.to_string()).as_deref(), listens, "{agent}"),
            (Err(problems), Err(says)) => {
                let text = problems.to_string();
                assert!(text.contains("drctl.yaml:") && text.contains("agent.listen: ") && text.contains(says), "{agent}: {text}");
            }
            (found, _) => panic!("{agent}: {found:?}"),
        }
    }
}

#[test]
fn sources_of_a_later_version_are_named_with_their_line_and_left_out() {
    let folder = folder();
    let text = |sources: &str| format!("{}jobs:\n  - job: a\n    sources:\n{sources}", head());
    let config = read(
        &folder,
        &text(
            "      - later: { redis: { anything: [at, all] } }\n      - files: { paths: [/x] }\n      - later: { mongodb: {} }\n      \
             - later: { kubernetes: { namespaces: [prod] } }\n      - later: { environment: { from: { pod: app-0 }, prefixes: [APP_] } }\n      \
             - later: { redis: { name: second } }\n",
        ),
    );
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let said = |line: u32, column: u32, path: &str, what: &str| {
        format!("drctl.yaml:{line}:{column}: jobs[0].sources{path}: {what} comes with a later version of drctl: nothing of it is backed up")
    };
    assert_eq!(
        warnings,
        [
            said(13, 18, "[0].later.redis", "redis"),
            said(15, 18, "[2].later.mongodb", "mongodb"),
            said(16, 18, "[3].later.kubernetes", "kubernetes"),
            said(17, 18, "[4].later.environment", "the environment of a pod"),
            said(18, 18, "[5].later.redis", "redis"),
        ]
    );
    let job = config.job("a").unwrap();
    assert_eq!(job.sources.len(), 1);
    assert_eq!(job.warnings().len(), 4, "each said once: {:?}", job.warnings());
    // And there they are in what a set keeps, for whoever reads it on a new machine.
    let again = read(&folder, &redacted_yaml(&config));
    assert_eq!(again.job("a").unwrap().warnings(), job.warnings());

    for (sources, words) in [
        ("      - later: { redis: {} }\n", "every source is marked 'later:', so nothing would be backed up"),
        ("      - later: { postgres: {} }\n      - files: { paths: [/x] }\n", "unknown key"),
        ("      - later: { redis: {}, mongodb: {} }\n      - files: { paths: [/x] }\n", "takes one key only"),
        ("      - later: {}\n      - files: { paths: [/x] }\n", "later"),
        ("      - later: redis\n      - files: { paths: [/x] }\n", "later: must be a map"),
        ("      - later: { environment: { from: { file: x } } }\n      - files: { paths: [/x] }\n", "this version backs it up"),
        ("      - later: { environment: {} }\n      - files: { paths: [/x] }\n", "take 'later:' away"),
        (
            "      - redis: {}\n      - files: { paths: [/x] }\n",
            "redis comes with a later version of drctl; mark the entry as 'later:' to go on without it, or take it out",
        ),
        (
            "      - environment: { from: { unit: app } }\n      - files: { paths: [/x] }\n",
            "the environment of a unit comes with a later version of drctl; mark the entry as 'later:'",
        ),
    ] {
        private(&folder.path().join("drctl.yaml"), &text(sources));
        let problems = load(&options(&folder, &[])).unwrap_err().to_string();
        assert!(problems.contains(words), "{sources}: {problems}");
    }
}

#[test]
fn f60_f61_differences_are_told_by_name() {
    let old_folder = folder();
    let old = read(&old_folder, &format!("{}{BODY}", head()));
    assert_eq!(diff(&old, &old), []);
    let changed = BODY
        .replace("password: hunter2 }", "password: hunter3 }")
        .replace("      - compose: { files: [docker-compose.prod.yml] }\n", "")
        .replace("rpo: 1h, ", "")
        .replace("token: hunter2", "token: hunter3")
        .replace("least: critical", "least: warning")
        .replace("keep_within: 30d", "keep_within: 60d");
    let new = read(&old_folder, &format!("{}{changed}  - job: more\n    sources: [{{ files: {{ paths: [/x] }} }}]\n", head()));
    let changes = diff(&old, &new);
    let find = |path: &str| changes.iter().find(|c| c.path == path).map(|c| c.kind);
    assert_eq!(find("jobs.jisu.sources.second.postgres.password"), Some(ChangeKind::Changed), "{changes:?}");
    assert_eq!(find("jobs.jisu.sources.compose.compose.files[0]"), Some(ChangeKind::Removed));
    assert_eq!(find("jobs.jisu.objectives.rpo"), Some(ChangeKind::Removed));
    assert_eq!(find("jobs.jisu.retention.keep_within"), Some(ChangeKind::Changed));
    assert_eq!(find("notify.slack-2.slack.token"), Some(ChangeKind::Changed));
    assert_eq!(find("notify.ops.slack.least"), Some(ChangeKind::Changed));
    assert_eq!(find("jobs.more.job"), Some(ChangeKind::Added));
    assert_eq!(find("jobs.jisu.sources.uploads.files.paths[0]"), None);
    assert!(!format!("{changes:?}").contains("hunter"));
}

/// What the files say when they are read again.
fn again(folder: &TempDir, text: &str) -> Result<Config, Problems> {
    private(&folder.path().join("drctl.yaml"), text);
    load(&options(folder, &[]))
}

#[test]
fn f60_a_broken_file_is_refused_with_its_line_and_the_old_configuration_stays() {
    let folder = folder();
    let good = format!("{}{BODY}", head());
    let old = read(&folder, &good);
    let shown = redacted_json(&old);
    let line = 1 + good.lines().position(|l| l.contains("files: { name: uploads")).unwrap();
    for (was, broken, says) in [
        ("paths: [/data/uploads, rel]", "pahts: [/data/uploads]", "did you mean 'paths'"),
        ("paths: [/data/uploads, rel]", "paths: [/data/uploads", ""),
        ("paths: [/data/uploads, rel]", "paths: 7", "must be"),
        ("name: uploads", "name: second", "name"),
    ] {
        let Reload::Keep(problems) = reload(&old, again(&folder, &good.replace(was, broken))) else { panic!("{broken} was taken") };
        let text = problems.to_string();
        // A bracket that is never closed is noticed where the next line does not fit.
        let near = (line..line + 2).any(|line| text.contains(&format!("drctl.yaml:{line}:")));
        assert!(near && text.contains(says), "{broken}: {text}");
        assert_eq!(redacted_json(&old), shown);
    }
    std::fs::remove_file(folder.path().join("drctl.yaml")).unwrap();
    assert!(matches!(reload(&old, load(&options(&folder, &[]))), Reload::Keep(_)), "no file is a mistake, too");
    assert!(matches!(reload(&old, again(&folder, &good)), Reload::Same));
    assert!(matches!(reload(&old, again(&folder, &format!("# said differently\n{good}"))), Reload::Same));
}

#[test]
fn f61_a_source_that_was_taken_out_is_told_by_name() {
    let folder = folder();
    let good = format!("{}{BODY}", head());
    let old = read(&folder, &good);
    let without = good.replace("      - compose: { files: [docker-compose.prod.yml] }\n", "");
    let Reload::Swap { config, changes, removed_sources } = reload(&old, again(&folder, &without)) else { panic!() };
    assert_eq!(removed_sources, ["jisu/compose"]);
    assert!(changes.iter().all(|c| c.kind == ChangeKind::Removed && c.path.starts_with("jobs.jisu.sources.compose.")), "{changes:?}");
    assert!(config.job("jisu").unwrap().source("compose").is_none() && old.job("jisu").unwrap().source("compose").is_some());
    // With its name another source is another source; a job takes all of its own along.
    let renamed = good.replace("name: uploads", "name: pictures");
    let Reload::Swap { removed_sources, .. } = reload(&old, again(&folder, &renamed)) else { panic!() };
    assert_eq!(removed_sources, ["jisu/uploads"]);
    let other = good.replace("job: jisu", "job: other");
    let Reload::Swap { removed_sources, changes, .. } = reload(&old, again(&folder, &other)) else { panic!() };
    assert_eq!((removed_sources.len(), removed_sources.iter().all(|s| s.starts_with("jisu/"))), (6, true), "{removed_sources:?}");
    assert!(changes.iter().any(|c| c.path == "jobs.other.job" && c.kind == ChangeKind::Added));
    let more = good + "  - job: more\n    sources: [{ files: { paths: [/x] } }]\n";
    let Reload::Swap { removed_sources, .. } = reload(&old, again(&folder, &more)) else { panic!() };
    assert_eq!(removed_sources, [""; 0]);
}

fn template(folder: &TempDir, look: &Look, recipients: &[&str]) -> Template {
    Template {
        folder: folder.path().to_owned(),
        store_name: "main".into(),
        store: StorePlace::Local { path: folder.path().join("backups") },
        id: "shop-7k3q".into(),
        root_key: ROOT_KEY.into(),
        recipients: recipients.iter().map(|r| (*r).to_owned()).collect(),
        identity: Some(folder.path().join("keys/identity")),
        signing_key: folder.path().join("keys/signing"),
        job: job_name(Path::new("/srv/shop")),
        findings: discover(look),
        paths: vec!["/data/up loads".into()],
        presets: Vec::new(),
        kept: None,
    }
}

#[test]
fn what_init_writes_loads_without_a_finding() {
    let compose = "services:\n  db-1:\n    image: timescale/timescaledb\n    ports: ['6432:5432']\n    environment: { POSTGRES_PASSWORD: hunter2 }\n  \
                   c: { image: redis }\n";
    for recipients in [&[RECIPIENT][..], &[]] {
        let folder = folder();
        let vars =
            [("DATABASE_URL", "postgres://u:hunter2@h/shop"), ("PGHOST", "${x}y: #"), ("PGPASSWORD", "hunter2"), ("PGDATABASE", "all")];
        let look = Look {
            environment: Environment::of(folder.path(), vars),
            folder: folder.path().to_owned(),
            files: [("compose.yml", compose), (".env", "A=1\n")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            sockets: vec![("/var/run/postgresql".into(), 5432)],
        };
        let written = write(&template(&folder, &look, recipients));
        assert!(!written.text.contains("hunter2"), "{}", written.text);
        for (path, secret) in &written.secrets {
            private(path, secret.expose());
        }
        private(&folder.path().join("drctl.yaml"), &written.text);
        let config = load(&options(&folder, &vars)).unwrap_or_else(|p| panic!("{p}\n{}", written.text));
        assert_eq!(config.warnings, [], "{}", written.text);
        assert_eq!(config.repository.encrypt, !recipients.is_empty());
        let job = config.job("shop").unwrap();
        let names: Vec<&str> = job.sources.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["postgres", "postgres-2", "db-1", "postgres-3", "compose", "environment", "files"]);
        let SourceKind::Postgres(found) = &job.sources[1].kind else { panic!() };
        assert_eq!(found.host, Some(TextRef::Plain("${x}y: #".into())));
        assert_eq!(found.databases, Some(DatabaseChoice::Named(vec!["all".into()])));
        let SourceKind::Postgres(found) = &job.sources[2].kind else { panic!() };
        let connection = found.connection(&Environment::of(folder.path(), [("HOME", "/nonexistent")])).unwrap();
        assert_eq!((connection.place().as_str(), connection.password_for("x")), ("127.0.0.1:6432", Some(Secret::new("hunter2"))));
    }
}

#[test]
fn where_nothing_is_found_the_file_still_loads() {
    let folder = folder();
    let mut template = template(&folder, &Look::default(), &[RECIPIENT]);
    template.paths.clear();
    let config = read(&folder, &write(&template).text);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].what.starts_with("there are no jobs"));
    // What it proposes loads too.
    let text = write(&template).text;
    let (head, jobs) = text.split_once("# Nothing to back up was found.").unwrap();
    let jobs: String = jobs.lines().skip(1).map(|l| format!("{}\n", l.strip_prefix("# ").unwrap_or(l))).collect();
    assert_eq!(read(&folder, &format!("{head}{jobs}")).jobs.len(), 1);
}

#[test]
fn a_reference_that_is_missing_here_is_a_warning() {
    let folder = folder();
    let text = format!(
        "{}jobs:\n  - job: a\n    sources:\n      - postgres: {{ password: {{ file: gone }}, user: {{ env: GONE }}, host: {{ cred: gone }} }}\n",
        head()
    );
    let config = read(&folder, &text);
    assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
    let SourceKind::Postgres(postgres) = &config.jobs[0].sources[0].kind else { panic!() };
    let error = postgres.connection(&Environment::of("/", [("HOME", "/")])).unwrap_err();
    assert!(error.to_string().starts_with("find the connection of source 'postgres'"), "{error}");
}

#[test]
fn numbers_that_do_not_fit_are_told_with_their_place() {
    let folder = folder();
    let text = format!(
        "{}jobs:\n  - job: a\n    sources:\n      - files: {{ paths: [/x] }}\n      - postgres: {{ port: 5432.0, database: 2024 }}\n    \
         retention: {{ keep_last: 4294967296, keep_daily: -1, keep_weekly: 1.5, keep_monthly: 3.0 }}\n",
        head()
    );
    private(&folder.path().join("drctl.yaml"), &text);
    let problems = load(&options(&folder, &[])).unwrap_err();
    let what: Vec<&str> = problems.list.iter().map(|p| p.what.as_str()).collect();
    assert_eq!(what, ["must be at most 4294967295", "must be at least 0", "must be a whole number, not a number with a fraction"]);
}

proptest::proptest! {
    /// Whatever becomes of a configuration, its author is told what is wrong and where; what loads, loads again as it is shown.
    #[test]
    fn a_damaged_configuration_is_loaded_or_explained(
        at in 0usize..1600, cut in 0usize..30, put in "[a-z0-9:{}\\[\\]\"'#\\- \n$&*!|>~%@`]{0,6}"
    ) {
        let folder = folder();
        let whole = format!("{}{BODY}", head());
        let chars: Vec<char> = whole.chars().collect();
        let at = at.min(chars.len());
        let end = (at + cut).min(chars.len());
        let text: String = chars[..at].iter().copied().chain(put.chars()).chain(chars[end..].iter().copied()).collect();
        private(&folder.path().join("drctl.yaml"), &text);
        let options = |folder| options(folder, &[("DB_PASSWORD", "canary")]);
        match load(&options(&folder)) {
            Ok(config) => {
                let shown = redacted_yaml(&config);
                // A password whose place was damaged away is no password any more; one that came by its variable still is.
                proptest::prop_assert!(!shown.contains("canary"), "{}", shown);
                private(&folder.path().join("drctl.yaml"), &shown);
                let again = load(&options(&folder)).unwrap_or_else(|p| panic!("{p}\n{shown}"));
                proptest::prop_assert_eq!(redacted_json(&again), redacted_json(&config));
            }
            Err(problems) => {
                let text = problems.to_string();
                proptest::prop_assert!(!problems.list.is_empty());
                for internal in ["without a reason", "error)", "schema cannot", "does not fit the schema"] {
                    proptest::prop_assert!(!text.contains(internal), "{}", text);
                }
                proptest::prop_assert!(problems.list.iter().all(|p| p.origin.is_some()), "{}", text);
            }
        }
    }
}
