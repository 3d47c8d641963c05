//! What the agent says, and what it must not say, on a sealed host, of a store that is away or refuses, of a run that breaks down, of disks;
//! and every figure of a digest.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drctl::agent::log::Log;
use drctl::agent::service::Agent;
use drctl::error::Kind;
use drctl::model::record::{Body, Grade, Proof};
use drctl::model::{Clock, SetId, TestClock, Timestamp};
use drctl::open::Opened;
use drctl::state::{RunOutcome, RunRow, StateFile};
use serde_json::Value;

#[path = "support/bench.rs"]
mod bench;
#[path = "support/cli.rs"]
mod cli;
#[path = "support/http_standin.rs"]
mod http_standin;
#[path = "support/namespace.rs"]
mod namespace;

use bench::{Bench, ONE_JOB, around, home, last, no_pages, runs, titles};
use cli::{Home, Ran};
use http_standin::Standin;
use namespace::inside;

/// Puts a notifier before everything else of the configuration.
fn listen(home: &Home, settings: &str) -> Standin {
    let hears = Standin::new();
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("notify: [{{ webhook: {{ url: \"{}\", {settings} }} }}]\n{text}", hears.url("/")));
    hears
}

/// Messages of a kind that were sent: `run-report`, `digest` …
fn heard(hears: &Standin, what: &str) -> Vec<Value> {
    hears.got().iter().map(|got| got.json()["message"].clone()).filter(|message| message["what"] == what).collect()
}

/// What is told under a key, as text; empty when nothing is wrong.
fn told(bench: &Bench, key: &str) -> String {
    let open = bench.agent.desk().open_incidents().unwrap();
    open.into_iter().find(|incident| incident.key == key).map(|incident| incident.message).unwrap_or_default()
}

fn lines(message: &Value) -> Vec<String> {
    message["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// The newest run of a verb as this host noted it.
fn row(home: &Home, verb: &str) -> RunRow {
    let state = StateFile::open(&home.state().join("state.sqlite"), Arc::new(drctl::model::SystemClock)).unwrap();
    state.runs(None, Some(verb), 1).unwrap().remove(0)
}

fn with_passphrase(home: &Home, args: &[&str]) {
    let ran = Ran::of(home.command(args).env("DRCTL_PASSPHRASE_FILE", home.path("passphrase")).output().unwrap());
    assert_eq!(ran.code, 0, "{args:?} {}", ran.all());
}

/// Makes a host a sealed one of these roles; `vault.yaml` is the configuration of a prover elsewhere.
fn seal(home: &Home, roles: &[&str]) {
    let by = ["--by", "drctl-recovery.txt"];
    with_passphrase(home, &[&["key", "add", "--role", "prover", "--holder", "vault", "--out", "prover.key"], &by[..]].concat());
    let roles: Vec<&str> = roles.iter().flat_map(|role| ["--role", role]).collect();
    with_passphrase(home, &[&["key", "rotate"], &by[..], &roles].concat());
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let vault = config.replace("drctl-keys/signing.key", "prover.key");
    assert_ne!(vault, config);
    home.write("vault.yaml", &vault);
    let config: Vec<&str> = config.lines().filter(|line| !line.trim_start().starts_with("identity:")).collect();
    home.write("drctl.yaml", &config.join("\n"));
}

/// The prover elsewhere reads all sets.
fn vault_verifies(home: &Home) {
    let away = home.away("vault-state");
    std::fs::create_dir_all(&away).unwrap();
    let ran = Ran::of(home.command(&["--config", "vault.yaml", "verify", "--all"]).env("STATE_DIRECTORY", away).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.all());
}

/// To how many identities the newest set's data is sealed: a run that reads its own set has one more.
fn recipients(home: &Home) -> usize {
    let shown = home.json(&["show", &home.newest()]);
    shown["result"]["artifacts"][0]["recipients"].as_array().unwrap().len()
}

fn grade(home: &Home) -> Value {
    home.json(&["show", &home.newest()])["result"]["set"]["grade"].clone()
}

const DAILY: &str = "full: \"0 2 * * *\", verify: \"0 3 * * *\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_writer_reads_its_set_before_the_commit_and_counts_no_reading_but_a_provers() {
    let home = home(&ONE_JOB.replace("full: \"0 2 * * *\"", DAILY));
    seal(&home, &["writer"]);
    let mut bench = Bench::start(&home, "2027-01-01T01:30:00Z").await;
    bench.go("2027-01-01T02:30:00Z", 1800).await;
    assert_eq!((last(&home, "backup"), recipients(&home)), (Some(RunOutcome::Finished(0)), 2), "read by an identity of the run's own");
    assert_eq!(grade(&home), "uploaded", "a writer's word is no proof");
    // Nobody has read it: that is said, and not that it is damaged.
    bench.go("2027-01-01T03:30:00Z", 1800).await;
    assert_eq!(last(&home, "verify"), Some(RunOutcome::Finished(Kind::Config.exit_code())));
    let why = told(&bench, "verify:shop");
    assert!(why.contains("was never read back, and this host has no identity to read it with"), "{why}");
    assert!(why.contains("verify where the identity is"), "{why}");
    assert_eq!(bench.agent.board().job("shop").unwrap().log.as_ref().unwrap().verified_sets, 0);

    // A prover has read all that there is: nothing is left for this host to read, and nothing is wrong.
    bench.go("2027-01-02T02:30:00Z", 1800).await;
    vault_verifies(&home);
    bench.go("2027-01-02T04:30:00Z", 1800).await;
    assert_eq!((home.sets().len(), last(&home, "verify")), (2, Some(RunOutcome::Finished(0))), "{:?}", row(&home, "verify"));
    assert_eq!(told(&bench, "verify:shop"), "");
    assert_eq!(bench.agent.board().job("shop").unwrap().log.as_ref().unwrap().verified_sets, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reading_of_a_sealed_prover_is_a_proof_and_one_that_nobody_asked_for_is_not_made() {
    for (schedule, read) in [(DAILY, true), ("full: \"0 2 * * *\"", false)] {
        let home = home(&ONE_JOB.replace("full: \"0 2 * * *\"", schedule));
        seal(&home, &["writer", "prover"]);
        let hears = listen(&home, "success: each, digest: never");
        let mut bench = Bench::start(&home, "2027-01-01T01:30:00Z").await;
        bench.go("2027-01-01T03:30:00Z", 1800).await;
        let word = if read { "read-back" } else { "uploaded" };
        assert_eq!((grade(&home), recipients(&home)), (word.into(), 1 + usize::from(read)), "{schedule}");
        let report = heard(&hears, "run-report")[0].clone();
        assert_eq!(lines(&report)[0], format!("set {}, proof: {word}", home.newest()));
        assert_eq!(last(&home, "verify"), read.then_some(RunOutcome::Finished(0)), "what was read is not read again");
        assert_eq!(told(&bench, "verify:shop"), "");
    }
}

const ENVIRONMENT: &str = r#"jobs:
  - job: shop
    timezone: UTC
    schedule: { full: "0 * * * *" }
    sources: [ { environment: { from: { file: app.env } } } ]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn f64_what_changed_is_told_by_name_and_not_claimed_by_who_cannot_open_the_sets() {
    for sealed in [false, true] {
        let home = Home::new();
        home.write("app.env", "DB_POOL=hunter1\nDB_HOST=a\n");
        home.init(ENVIRONMENT);
        no_pages(&home);
        if sealed {
            seal(&home, &["writer"]);
        }
        let hears = listen(&home, "success: each, digest: never");
        let mut bench = Bench::start(&home, "2027-01-01T00:30:00Z").await;
        bench.go("2027-01-01T02:30:00Z", 1800).await;
        home.write("app.env", "DB_POOL=hunter2\nDB_HOST=a\nMAIL_FROM=hunter3\n");
        bench.go("2027-01-01T03:30:00Z", 1800).await;
        let reports = heard(&hears, "run-report");
        let changes = |at: usize| lines(&reports[at]).into_iter().filter(|line| line.contains("changed")).collect::<Vec<_>>();
        let expected = if sealed { vec![] } else { vec!["changed since the set before: ~ DB_POOL, + MAIL_FROM".to_owned()] };
        assert_eq!((reports.len(), changes(0), changes(1), changes(2)), (3, vec![], vec![], expected), "sealed: {sealed}");
        assert!(hears.got().iter().all(|got| !got.body.contains("hunter")), "no value leaves");
    }
}

/// A job that runs each hour, with an optional second store in the folder `copy`.
fn two_stores() -> Home {
    let home = home(&ONE_JOB.replace("0 2 * * *", "0 * * * *"));
    std::fs::create_dir(home.path("copy")).unwrap();
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let place = "      local: { path: drctl-repository }\n";
    let second = "    - { name: second, local: { path: copy }, optional: true }\n";
    home.write("drctl.yaml", &config.replace(place, &format!("{place}{second}")));
    home.ok(&["config", "check"]);
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn f66_what_is_odd_of_a_set_and_the_store_that_misses_it_are_in_the_report() {
    let home = two_stores();
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &config.replace("command: { name: data, run: [cat, data] }", "files: { name: data, paths: [many] }"));
    let many = |files: std::ops::Range<u32>| files.for_each(|n| home.write(&format!("many/{n}"), "x"));
    many(0..30);
    let hears = listen(&home, "success: each, digest: never");
    let mut bench = Bench::start(&home, "2027-01-01T00:30:00Z").await;
    bench.go("2027-01-01T01:30:00Z", 1800).await;
    (1..30).for_each(|n| std::fs::remove_file(home.path(&format!("many/{n}"))).unwrap());
    std::fs::rename(home.path("copy"), home.path("elsewhere")).unwrap();
    bench.go("2027-01-01T02:30:00Z", 1800).await;
    let reports = heard(&hears, "run-report");
    assert_eq!((reports.len(), lines(&reports[0]).len()), (1, 2), "of the good one the set and what would be lost: {reports:?}");
    let (odd, set) = (&heard(&hears, "incident-opened").pop().unwrap(), home.newest());
    assert_eq!((odd["title"].as_str(), odd["severity"].as_str()), (Some("shop: backup done, but it looks odd"), Some("warning")));
    let found = lines(odd);
    assert!(found.iter().any(|line| line.starts_with("odd: data: data.") && line.contains("has 1 files where 30 are usual")), "{found:?}");
    let missed: Vec<&String> = found.iter().filter(|line| line.contains("second")).collect();
    assert_eq!(missed, ["not in second: the next backup goes there again, this set does not"]);
    assert_eq!(odd["next"].as_str(), Some(format!("drctl show {set}").as_str()));
    // What the report says of the set it missed is so.
    std::fs::rename(home.path("elsewhere"), home.path("copy")).unwrap();
    many(0..30);
    bench.go("2027-01-01T03:30:00Z", 1800).await;
    let there = |set: &str| home.path("copy").join(set.parse::<SetId>().unwrap().prefix()).exists();
    assert_eq!((there(&home.newest()), there(&set)), (true, false));
    assert!(!lines(&heard(&hears, "incident-recovered").pop().unwrap()).iter().any(|line| line.contains("second")));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_store_that_is_down_is_told_until_it_is_back_and_the_first_goes_on() {
    let home = two_stores();
    let hears = listen(&home, "digest: never");
    let key = "alarm:store:second".to_owned();
    let mut bench = Bench::start(&home, "2027-01-01T00:30:00Z").await;
    bench.go("2027-01-01T01:30:00Z", 1800).await;
    assert!(!bench.alerts().contains(&key), "{:?}", bench.alerts());
    std::fs::rename(home.path("copy"), home.path("elsewhere")).unwrap();
    bench.go("2027-01-01T03:30:00Z", 1800).await;
    assert_eq!(runs(&home).into_iter().map(|run| run.1).collect::<Vec<_>>(), [RunOutcome::Finished(0); 3]);
    assert_eq!(home.sets().len(), 3);
    // It would deliver, too, by this machine's clock, which is years before the agent's.
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let quiet: Vec<&str> = config.lines().filter(|line| !line.starts_with("notify:")).collect();
    home.write("quiet.yaml", &quiet.join("\n"));
    home.ok(&["--config", "quiet.yaml", "verify", "--all"]);
    let store = bench.agent.board().stores[1].clone();
    assert!(store.reachable == Some(false) && store.problem.unwrap().contains("copy"));
    let why = told(&bench, &key);
    assert!(why.contains("store second does not answer") && why.contains("copy"), "{why}");
    // A new agent has not looked yet: that is not the end of it. Nor is a repository that nobody can look at.
    let begins = bench.clock.now().to_string();
    drop(bench);
    std::fs::rename(home.path("drctl-repository"), home.path("away")).unwrap();
    let mut bench = Bench::start(&home, &begins).await;
    bench.go("2027-01-01T03:45:00Z", 300).await;
    std::fs::rename(home.path("away"), home.path("drctl-repository")).unwrap();
    bench.go("2027-01-01T04:30:00Z", 300).await;
    let of_store = || titles(&hears.got()).into_iter().filter(|title| title.contains("second")).collect::<Vec<_>>();
    assert_eq!(of_store(), ["store second does not answer"]);
    std::fs::rename(home.path("elsewhere"), home.path("copy")).unwrap();
    bench.go("2027-01-01T06:30:00Z", 1800).await;
    assert_eq!(of_store(), ["store second does not answer", "store second does not answer: over"]);
    assert!(!bench.alerts().contains(&key));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_lasts_is_not_over_because_the_agent_began_anew() {
    let objectives = "    objectives: { rpo: 1h }\n    sources:";
    let home = home(&ONE_JOB.replace("0 2 * * *", "0 2 1 1 *").replace("    sources:", objectives));
    let hears = listen(&home, "digest: never");
    home.ok(&["backup", "now"]);
    let later = |hours: i64| Timestamp::now().checked_add(jiff::SignedDuration::from_hours(hours)).unwrap().to_string();
    let about = |title: &str| titles(&hears.got()).into_iter().filter(|told| told.contains(title)).collect::<Vec<_>>();
    for hours in [2, 3] {
        let mut bench = Bench::start(&home, &later(hours)).await;
        for _ in 0..3 {
            bench.agent.tick().await;
            bench.agent.deliver().await;
            bench.agent.settle().await;
        }
        assert!(bench.alerts().contains(&"alarm:rpo:shop".to_owned()), "{:?}", bench.alerts());
        assert_eq!(about("too old"), ["shop: the newest backup is too old"]);
        assert_eq!(about("clocks"), ["the clocks of this host and of the store differ"]);
    }
}

/// A clock that breaks a task of the agent, once: as a mistake of drctl would.
struct Breaking {
    clock: TestClock,
    state: PathBuf,
    /// 1: the next task that asks; 2: the next one while a run is noted as under way.
    armed: AtomicU8,
}

impl Breaking {
    fn breaks(&self) -> bool {
        let armed = self.armed.load(Ordering::SeqCst);
        // The agent itself is no task here.
        if armed == 0 || tokio::task::try_id().is_none() {
            return false;
        }
        let under_way = || {
            let state = rusqlite::Connection::open(&self.state).unwrap();
            let count: i64 = state.query_row("SELECT count(*) FROM runs WHERE finished_at IS NULL", [], |row| row.get(0)).unwrap();
            count > 0
        };
        armed == 1 || under_way()
    }
}

impl Clock for Breaking {
    fn now(&self) -> Timestamp {
        if self.breaks() {
            self.armed.store(0, Ordering::SeqCst);
            panic!("a clock that breaks");
        }
        self.clock.now()
    }
}

/// Ticks once, and once more when what began has ended.
async fn round(agent: &mut Agent) {
    agent.tick().await;
    agent.settle().await;
    agent.tick().await;
}

fn keys(agent: &Agent) -> Vec<String> {
    agent.desk().open_incidents().unwrap().into_iter().map(|incident| incident.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_a_task_that_breaks_down_is_noted_and_told_and_the_agent_goes_on() {
    let job = ONE_JOB
        .replace("0 2 * * *", "* * * * *")
        .replace("[cat, data]", "[sh, -c, \"touch began; cat data; while [ -e slow ]; do sleep 0.05; done\"]");
    let home = home(&format!("{job}{}", ONE_JOB.replace("jobs:\n", "").replace("shop", "zoo").replace("0 2 * * *", "*/2 * * * *")));
    let state = home.state().join("state.sqlite");
    let begin = Timestamp::from_second(Timestamp::now().as_second() / 120 * 120 + 1).unwrap();
    let clock = Arc::new(Breaking { clock: TestClock::at(begin), state, armed: AtomicU8::new(0) });
    let mut agent = Agent::start(around(&home, clock.clone()), Log::silent(clock.clone())).await.unwrap();
    round(&mut agent).await;
    assert_eq!((keys(&agent), home.sets().len()), (vec![], 0));

    // A run: once its beginning is noted.
    clock.clock.step_seconds(60);
    clock.armed.store(2, Ordering::SeqCst);
    round(&mut agent).await;
    assert_eq!((clock.armed.load(Ordering::SeqCst), agent.busy()), (0, 0), "it broke, and is not taken for running");
    assert_eq!(keys(&agent), ["broke-down:shop"]);
    let noted = row(&home, "backup");
    assert_eq!((noted.outcome, noted.job.as_deref()), (RunOutcome::Interrupted, Some("shop")), "it has ended, and not well");
    assert!(noted.error.unwrap().contains("it broke down"));
    let shop = agent.board().job("shop").unwrap().clone();
    assert!(shop.runs.last_attempt.as_ref().unwrap().failed() && shop.running.is_none());
    assert_eq!(home.sets().len(), 0);

    // The other job runs, and this one at its next time, whatever the broken run held.
    clock.clock.step_seconds(60);
    home.write("slow", "");
    std::fs::remove_file(home.path("began")).ok();
    agent.tick().await;
    for _ in 0..6000 {
        if home.path("began").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(home.path("began").exists(), "{:?}", row(&home, "backup"));
    // What it holds now is taken by nobody, though an earlier run of the same process broke down.
    let beside = home.run(&["backup", "now", "shop"]);
    assert!(beside.code == 7 && beside.err.contains("is held by"), "{}", beside.all());
    std::fs::remove_file(home.path("slow")).unwrap();
    agent.settle().await;
    agent.tick().await;
    let mut jobs: Vec<String> = home.sets().iter().map(|set| set.split('/').next().unwrap().to_owned()).collect();
    jobs.sort_unstable();
    assert_eq!(jobs, ["shop", "zoo"], "{:?}", row(&home, "backup"));
    assert_eq!(keys(&agent), [""; 0]);

    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &config.replace("*/2 * * * *", "0 0 29 2 *").replace("* * * * *", "0 0 29 2 *"));
    clock.clock.step_seconds(10);
    round(&mut agent).await;
    clock.clock.step_seconds(10);
    round(&mut agent).await;
    drop(agent);
    // A new agent is not told of a run that broke down while the old one lived.
    let mut agent = Agent::start(around(&home, clock.clone()), Log::silent(clock.clone())).await.unwrap();
    assert!(!keys(&agent).contains(&"backup:shop".to_owned()), "{:?}", keys(&agent));

    // The look at the repository: told, and not begun anew with each tick.
    clock.armed.store(1, Ordering::SeqCst);
    round(&mut agent).await;
    assert_eq!(clock.armed.load(Ordering::SeqCst), 0, "the look broke");
    assert!(keys(&agent).contains(&"repository".to_owned()), "{:?}", keys(&agent));
    clock.armed.store(1, Ordering::SeqCst);
    clock.clock.step_seconds(10);
    round(&mut agent).await;
    assert_eq!(clock.armed.load(Ordering::SeqCst), 1, "it is looked again in some minutes");
    clock.armed.store(0, Ordering::SeqCst);
    clock.clock.step_seconds(301);
    round(&mut agent).await;
    assert!(!keys(&agent).contains(&"repository".to_owned()), "{:?}", keys(&agent));
}

fn mount(args: &[&str], at: &Path) {
    assert!(Command::new("mount").args(args).arg(at).status().unwrap().success());
}

fn umount(at: &Path) {
    assert!(Command::new("umount").arg(at).status().unwrap().success());
}

/// How the newest prune ended, by the audit log.
fn audited(home: &Home) -> String {
    let entries = home.json(&["audit", "--last", "1000"])["result"]["entries"].as_array().unwrap().clone();
    let ended = entries.iter().rev().find(|entry| entry["verb"] == "prune" && entry["ends"] != 0).unwrap();
    ended["outcome"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn f35_a_prune_that_the_store_denies_is_no_success() {
    if !inside("f35_a_prune_that_the_store_denies_is_no_success") {
        return;
    }
    let jobs = ONE_JOB
        .replace("full: \"0 2 * * *\"", "prune: \"* * * * *\"")
        .replace("    sources:", "    retention: { keep_last: 1 }\n    sources:");
    let home = home(&jobs);
    for _ in 0..3 {
        home.ok(&["backup", "now", "--verify", "read-back"]);
    }
    let sets = home.sets();
    let kept = home.set_folder(&sets[0]);
    mount(&["--bind", kept.to_str().unwrap()], &kept);
    mount(&["-o", "remount,bind,ro"], &kept);
    let denied = Kind::Denied.exit_code();

    // By hand.
    let ran = home.run(&["prune", "--apply"]);
    assert_eq!(ran.code, i32::from(denied), "{}", ran.all());
    assert!(ran.out.contains(&format!("RETAINED by the store: {}: ", sets[0])) && ran.out.contains("shop: deleted 1 set"), "{}", ran.out);
    assert_eq!((home.sets(), audited(&home)), (sets[2..].to_vec(), denied.to_string()));
    assert!(kept.exists() && !home.set_folder(&sets[1]).exists());

    // By schedule, until it is allowed.
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    for code in [denied, 0] {
        bench.agent.tick().await;
        bench.clock.step_seconds(61);
        round(&mut bench.agent).await;
        let noted = row(&home, "prune");
        assert_eq!((noted.outcome, audited(&home)), (RunOutcome::Finished(code), if code == 0 { "ok".into() } else { code.to_string() }));
        let (why, told) = (noted.error.unwrap_or_default(), told(&bench, "prune:shop"));
        match code {
            0 => assert_eq!((why.as_str(), told.as_str()), ("", "")),
            _ => {
                assert!(why.contains(&sets[0]), "why it failed is noted: {why:?}");
                assert!(told.contains("shop: the store keeps what was to be deleted") && told.contains(&sets[0]), "{told}");
                umount(&kept);
            }
        }
    }
    assert!(!kept.exists());
    home.ok(&["verify", "--all"]);
}

/// Leaves so much room on the file system of a folder.
fn fill(folder: &Path, leave: u64) {
    let stat = rustix::fs::statvfs(folder).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    std::fs::write(folder.join("filler"), vec![1; usize::try_from(free - leave).unwrap()]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn f14_a_disk_of_the_configuration_that_is_nearly_full_is_told_until_there_is_room() {
    if !inside("f14_a_disk_of_the_configuration_that_is_nearly_full_is_told_until_there_is_room") {
        return;
    }
    let home = two_stores();
    // Nothing runs while what is free is compared, whatever the hour.
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &config.replace("0 * * * *", "0 0 29 2 *"));
    let disks = [home.path("drctl-repository"), home.path("copy"), home.state()];
    for disk in &disks {
        let moved = disk.with_extension("moved");
        std::fs::rename(disk, &moved).unwrap();
        std::fs::create_dir(disk).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=16m,mode=700", "none"], disk);
        assert!(Command::new("cp").arg("-a").arg(moved.join(".")).arg(disk).status().unwrap().success());
    }
    home.ok(&["backup", "now"]);
    let hears = listen(&home, "digest: never");
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    // The look at the repository writes there too.
    round(&mut bench.agent).await;
    let told_of = |bench: &Bench| {
        let mut told: Vec<String> = bench.alerts().into_iter().filter(|key| key.starts_with("alarm:disk:")).collect();
        told.sort_unstable();
        told
    };
    let all = ["alarm:disk:store main", "alarm:disk:store second", "alarm:disk:the state file"];
    // A twentieth of the disk is the least.
    for (leave, expected) in [(1 << 20, &all[..0]), (700 << 10, &all[..]), (1 << 20, &all[..0])] {
        for disk in &disks {
            let _ = std::fs::remove_file(disk.join("filler"));
            fill(disk, leave);
        }
        bench.clock.step_seconds(61);
        bench.agent.tick().await;
        bench.agent.deliver().await;
        assert_eq!(told_of(&bench), expected, "{leave} left");
    }
    let full: Vec<Value> = heard(&hears, "incident-opened");
    let main = full.iter().find(|message| message["title"] == "the disk of store main is nearly full").unwrap();
    assert_eq!((main["severity"].as_str(), lines(main)), (Some("critical"), vec!["700 KiB of 16 MiB are free".to_owned()]));
    assert!(titles(&hears.got()).contains(&"the disk of store main is nearly full: over".to_owned()), "{:?}", titles(&hears.got()));
}

/// Bytes of all sets as they lie on the disk.
fn stored(home: &Home) -> u64 {
    let sum = Mutex::new(0);
    cli::walk(&home.path("drctl-repository/jobs/shop/sets"), &mut |path| *sum.lock().unwrap() += std::fs::metadata(path).unwrap().len());
    sum.into_inner().unwrap()
}

/// Notes a proof of a set, as a prover elsewhere would.
async fn proven(home: &Home, bench: &Bench, set: &str, grade: Grade, at: &str) {
    let opened = Opened::of(&around(home, bench.clock.clone()), bench.agent.config().clone(), None, true, None).await.unwrap();
    let set: SetId = set.parse().unwrap();
    let mut log = opened.setup.log(set.job()).await.unwrap();
    let at: Timestamp = at.parse().unwrap();
    let proof = Proof { set, grade, passed: true, findings: Vec::new(), started_at: at, finished_at: at, store: "main".into() };
    log.append(Body::Proof { proof }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_of_a_digest_is_what_was_done() {
    let home = home(&ONE_JOB.replace("0 2 * * *", "0 * * * *").replace("    sources:", "    objectives: { rpo: 30m }\n    sources:"));
    // In whatever zone the machine is, once an hour.
    let hears = listen(&home, "digest: \"45 * * * *\"");
    let mut bench = Bench::start(&home, "2027-01-01T00:30:00Z").await;
    bench.go("2027-01-01T01:10:00Z", 300).await;
    proven(&home, &bench, &home.newest(), Grade::Restored, "2027-01-01T01:05:00Z").await;
    // Nine days later: one run makes up for all that was missed, the next fails, the third is good.
    bench.clock.set("2027-01-10T00:20:00Z".parse().unwrap());
    bench.go("2027-01-10T00:40:00Z", 300).await;
    proven(&home, &bench, &home.newest(), Grade::ReadBack, "2027-01-10T00:40:00Z").await;
    std::fs::rename(home.path("data"), home.path("gone")).unwrap();
    bench.go("2027-01-10T01:40:00Z", 300).await;
    std::fs::rename(home.path("gone"), home.path("data")).unwrap();
    let before = stored(&home);
    bench.go("2027-01-10T02:35:00Z", 300).await;
    assert_eq!(home.sets().len(), 3);
    let whole = stored(&home);
    bench.go("2027-01-10T03:00:00Z", 300).await;
    let digests = heard(&hears, "digest");
    let newest = digests.last().unwrap();
    let (at, found) = (newest["at"].as_str().unwrap().parse::<Timestamp>().unwrap(), lines(newest));
    let minutes = at.duration_since("2027-01-10T02:00:00Z".parse().unwrap()).as_mins();
    assert!((35..=55).contains(&minutes), "{minutes}");
    assert_eq!(found[0], "the last 7 d:");
    let percent = (whole as f64 / before as f64 - 1.0) * 100.0;
    assert!((45.0..55.0).contains(&percent), "two sets were there, then three: {percent}");
    let drill = at.duration_since("2027-01-01T01:05:00Z".parse().unwrap()).as_hours() % 24;
    let expected = format!(
        "shop: 2 good runs, 1 FAILED; newest good set {minutes} min old, 30 min allowed; 3 sets, 2 verified, {} ({percent:+.0} %); drilled 9 d {drill} h ago",
        drctl::model::figures::bytes(whole)
    );
    assert_eq!(found[1], expected);
    assert_eq!(newest["title"].as_str().unwrap().split_once(": ").unwrap().1, "1 of 1 job to be looked at");
    let open: Vec<&String> = found.iter().filter(|line| line.starts_with("open: ")).collect();
    assert!(open.iter().any(|line| line.as_str() == "open: the clocks of this host and of the store differ"), "{open:?}");
    assert_eq!(open.len(), bench.alerts().len(), "{open:?} {:?}", bench.alerts());
}
