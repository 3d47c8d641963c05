//! From the configuration to the delivered message, against receivers that are down, slow, full, or refuse (FAULTS 63, 64).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/http_standin.rs"]
mod http_standin;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drctl::config::{Config, Environment, LoadOptions, load};
use drctl::model::{Secret, Severity, TestClock, Timestamp};
use drctl::notify::words::{BackupReport, Lost, backup_incident, backup_report, run_started};
use drctl::notify::{Alert, Desk, DeskOptions, Message, What};
use drctl::state::StateFile;
use http_standin::{Act, Got, Standin};
use serde_json::Value;

const RECIPIENT: &str = "age17et55u4d4df3aee5pafa5cs4ahcwfrl507ultujwu3a9ntsk34xs7r78nm";
const ROOT_KEY: &str = "RWR3cBpllPzfHE/HcwpCzx0LtLbYTVuI6FSpV6SdSJzNM53mU1tJlsq/";
const TOKEN: &str = "xoxb-t0ken-c4n4ry";
const PASSWORD: &str = "p4ssw0rd-c4n4ry";

/// A configuration, a state file and a clock.
struct World {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    config: Config,
    environment: Environment,
}

impl World {
    /// `notify` is the YAML of the list, `job_notify` that of the job `jisu`.
    fn new(notify: &str, job_notify: &str, vars: &[(&str, &str)]) -> World {
        let folder = tempfile::tempdir().unwrap();
        for key in ["identity", "signing"] {
            std::fs::write(folder.path().join(key), "key\n").unwrap();
            std::fs::set_permissions(folder.path().join(key), PermissionsExt::from_mode(0o600)).unwrap();
        }
        let text = format!(
            "repository:\n  id: shop-7k3q\n  root_key: {ROOT_KEY}\n  stores: [ {{ name: main, local: {{ path: store }} }} ]\n  recipients: [{RECIPIENT}]\n  \
             identity: identity\n  signing_key: signing\nnotify: {notify}\njobs:\n  - job: jisu\n    sources: [ {{ postgres: {{ host: h, password: {{ env: DB }} }} }} ]\n    \
             notify: {job_notify}\n  - job: other\n    sources: [ {{ files: {{ paths: [/x] }} }} ]\n"
        );
        std::fs::write(folder.path().join("drctl.yaml"), text).unwrap();
        std::fs::set_permissions(folder.path().join("drctl.yaml"), PermissionsExt::from_mode(0o600)).unwrap();
        let vars = [("DB", PASSWORD), ("TOKEN", TOKEN), ("HOME", "/nonexistent")].iter().chain(vars).copied();
        let environment = Environment::of(folder.path(), vars);
        let config = load(&LoadOptions::new(environment.clone())).unwrap_or_else(|p| panic!("{p}"));
        // A Wednesday.
        World { folder, clock: Arc::new(TestClock::at("2025-01-01T00:00:00Z".parse().unwrap())), config, environment }
    }

    fn token(standin: &Standin) -> World {
        World::new(&slack_token(standin.address), "[]", &[])
    }

    fn webhook(standin: &Standin) -> World {
        World::new(&format!("[ {{ slack: {{ webhook: \"{}\" }} }} ]", standin.url("/services/h00k-c4n4ry")), "[]", &[])
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state/state.sqlite")
    }

    fn state(&self) -> Arc<StateFile> {
        Arc::new(StateFile::open(&self.path(), self.clock.clone()).unwrap())
    }

    fn options(&self) -> DeskOptions {
        DeskOptions {
            zone: jiff::tz::TimeZone::get("Asia/Shanghai").unwrap(),
            // Only where nobody answers may it matter.
            time_limit: Some(Duration::from_secs(120)),
            ..DeskOptions::new("prod-1", self.environment.clone())
        }
    }

    /// A desk over the state file, as after a start.
    fn desk(&self) -> Desk {
        Desk::new(&self.config, Some(self.state()), self.clock.clone(), self.options())
    }

    /// A desk that gives up soon.
    fn hasty(&self) -> Desk {
        let options = DeskOptions { time_limit: Some(Duration::from_millis(1200)), ..self.options() };
        Desk::new(&self.config, Some(self.state()), self.clock.clone(), options)
    }

    fn in_memory(&self) -> Desk {
        Desk::new(&self.config, None, self.clock.clone(), self.options())
    }
}

fn slack_token(address: SocketAddr) -> String {
    format!("[ {{ slack: {{ token: {{ env: TOKEN }}, channel: \"#backups\", api: \"http://{address}/api\" }} }} ]")
}

fn alert(key: &str, severity: Severity) -> Alert {
    Alert { job: Some("jisu".into()), lines: vec![format!("why of {key}")], ..Alert::new(key, severity, format!("jisu: {key}")) }
}

fn report(exit_code: u8, at: Timestamp) -> Message {
    backup_report(&BackupReport {
        job: "jisu".into(),
        run: Some(at.to_string()),
        exit_code,
        why: (exit_code != 0).then(|| "connect to postgres at db:5432: connection refused".to_owned()),
        next: None,
        set: (exit_code == 0).then(|| "jisu/20250101T020000Z-full-7k3q".to_owned()),
        started_at: at,
        finished_at: at,
        sources: vec![],
        grade: (exit_code == 0).then(|| "read-back".to_owned()),
        spread_seconds: None,
        spread_limit_seconds: None,
        suspicions: vec![],
        drift: vec![],
        missed_stores: vec![],
        lost_now: Lost::Seconds(4000),
        rpo_seconds: None,
    })
}

/// The words of the header, without the icon.
fn title(got: &Got) -> String {
    let body = got.json();
    let text = body["blocks"][0]["text"]["text"].as_str().or(body["message"]["title"].as_str()).unwrap_or_default();
    text.split_once(' ').filter(|_| body["blocks"].is_array()).map_or(text, |(_, rest)| rest).to_owned()
}

fn titles(got: &[Got]) -> Vec<String> {
    got.iter().map(title).collect()
}

/// Lets time go by and delivers what is due, every so many seconds.
async fn pass(world: &World, desk: &Desk, seconds: i64, step: i64) {
    for _ in 0..seconds / step {
        world.clock.step_seconds(step);
        desk.deliver_due().await;
    }
}

/// Waits for something that another task or the receiver's thread does.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn f63_ten_failures_are_one_thread_by_token() {
    let standin = Standin::new();
    let world = World::token(&standin);
    let desk = world.desk();
    for _ in 0..10 {
        assert!(desk.report(report(1, drctl::model::Clock::now(&*world.clock))).is_none());
        pass(&world, &desk, 360, 60).await;
    }
    desk.report(report(0, drctl::model::Clock::now(&*world.clock)));
    desk.deliver_due().await;
    desk.report(report(0, drctl::model::Clock::now(&*world.clock)));
    desk.deliver_due().await;
    let got = standin.got();
    let posts: Vec<&Got> = got.iter().filter(|g| g.path == "/api/chat.postMessage").collect();
    assert_eq!(posts[0].json()["channel"], "#backups");
    assert_eq!(posts[0].json()["thread_ts"], Value::Null);
    assert!(posts[1..].iter().all(|g| g.json()["thread_ts"] == "1700000000.000001" && g.json()["channel"] == "C0123"), "{posts:#?}");
    // An hour holds four updates.
    assert_eq!(posts.len(), 1 + 4 + 1, "{:?}", titles(&got));
    let updates: Vec<&Got> = got.iter().filter(|g| g.path == "/api/chat.update").collect();
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].json()["ts"], "1700000000.000001");
    assert_eq!((title(posts[0]), title(posts[5])), ("jisu: backup failed".into(), "jisu: recovered, backup done".into()));
    assert!(
        posts[5].body.contains("Was: jisu: backup failed")
            && posts[5].body.contains("Lasted: 1 h")
            && posts[5].body.contains("Seen: 10 times")
    );
    assert!(got.iter().all(|g| g.header("authorization") == Some(&format!("Bearer {TOKEN}"))));
    // The next failure is a new incident, and a new thread.
    desk.report(report(1, drctl::model::Clock::now(&*world.clock)));
    desk.deliver_due().await;
    assert_eq!(standin.got().last().unwrap().json()["thread_ts"], Value::Null);
}

#[tokio::test]
async fn f63_ten_failures_are_two_messages_by_webhook() {
    let standin = Standin::new();
    for notify in [
        format!("[ {{ slack: {{ webhook: \"{}\" }} }} ]", standin.url("/a")),
        format!("[ {{ webhook: {{ url: \"{}\" }} }} ]", standin.url("/b")),
    ] {
        let before = standin.got().len();
        let world = World::new(&notify, "[]", &[]);
        let desk = world.desk();
        for _ in 0..10 {
            desk.report(report(1, drctl::model::Clock::now(&*world.clock)));
            pass(&world, &desk, 3600, 600).await;
        }
        desk.report(report(0, drctl::model::Clock::now(&*world.clock)));
        desk.deliver_due().await;
        assert_eq!(titles(&standin.got()[before..]), ["jisu: backup failed", "jisu: recovered, backup done"]);
        // One that stays open is told once a day.
        desk.report(report(1, drctl::model::Clock::now(&*world.clock)));
        pass(&world, &desk, 3 * 86_400, 3600).await;
        let open = "jisu: backup failed";
        assert_eq!(titles(&standin.got()[before + 2..]), [open; 4]);
    }
}

#[tokio::test]
async fn f63_slack_down_for_an_hour_loses_nothing_and_keeps_the_order() {
    let address = Standin::nobody();
    let world = World::new(&slack_token(address), "[]", &[]);
    let desk = world.desk();
    let mut want = Vec::new();
    for minute in 0..60 {
        if minute % 6 == 0 {
            // What is told never fails and never waits for the network.
            assert!(desk.raise(&alert(&format!("k{minute}"), Severity::Critical)).is_none());
            want.push(format!("jisu: k{minute}"));
        }
        world.clock.step_seconds(60);
        let outcomes = desk.deliver_due().await;
        assert!(outcomes.iter().all(|o| o.delivered == 0 && o.problem.as_ref().is_some_and(|p| p.contains("refused"))), "{outcomes:?}");
    }
    let state = desk.states().unwrap().remove(0);
    assert_eq!((state.waiting, state.refused, state.waiting_since.unwrap().to_string().as_str()), (10, 0, "2025-01-01T00:00:00Z"));
    // The process ends, another begins, Slack is back.
    drop(desk);
    let standin = Standin::at(address);
    let desk = world.desk();
    pass(&world, &desk, 1800, 60).await;
    let got = standin.got();
    assert_eq!(titles(&got), want);
    // Each says when it happened, not when it was sent.
    assert!(got[0].body.contains("<!date^1735689600^") && got[9].body.contains("<!date^1735692840^"), "{}", got[9].body);
    assert_eq!(desk.states().unwrap(), []);
}

#[tokio::test]
async fn f63_429_is_heeded_and_500_slow_and_hanging_are_tried_again_in_order() {
    let standin = Standin::new();
    let world = World::token(&standin);
    let desk = world.desk();
    standin.script([Act::later(429, "120")]);
    for key in ["a", "b", "c"] {
        desk.raise(&alert(key, Severity::Warning));
    }
    desk.deliver_due().await;
    pass(&world, &desk, 110, 10).await;
    assert_eq!(standin.got().len(), 1, "nothing is sent before the receiver allows it");
    // As a date, too.
    world.clock.step_seconds(10);
    standin.script([Act::later(429, "Wed, 01 Jan 2025 00:05:00 GMT")]);
    desk.deliver_due().await;
    assert_eq!(standin.got().len(), 2);
    pass(&world, &desk, 170, 10).await;
    assert_eq!(standin.got().len(), 2);
    standin.script([Act::status(500), Act::Hang, Act::Close, Act::word("internal_error"), Act::Say(200, vec![], "<html>".into())]);
    for n in 3..=7 {
        if n == 4 {
            // The one that hangs. The sender gives up by its own clock: before the receiver has read it, or even before it is sent.
            let hasty = world.hasty();
            while standin.got().len() < n {
                pass(&world, &hasty, 900, 900).await;
                let since = Instant::now();
                while standin.got().len() < n && since.elapsed() < Duration::from_secs(10) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        } else {
            pass(&world, &desk, 900, 900).await;
        }
        assert_eq!(standin.got().len(), n, "one try, then a pause");
    }
    let problem = desk.states().unwrap()[0].problem.clone().unwrap();
    assert!(problem.contains("does not speak like Slack"), "{problem}");
    standin.script([Act::Slow(Duration::from_millis(100))]);
    pass(&world, &desk, 900, 900).await;
    assert_eq!(titles(&standin.taken())[..], ["jisu: a", "jisu: b", "jisu: c"], "{:?}", standin.got());
    assert_eq!(desk.states().unwrap(), []);
}

#[tokio::test]
async fn f63_what_is_refused_for_good_is_kept_with_its_reason_and_blocks_nothing() {
    let (slack, hook) = (Standin::new(), Standin::new());
    let hooks = format!(
        "{{ slack: {{ webhook: \"{}\", name: ops }} }}, {{ webhook: {{ url: \"{}\" }} }}",
        slack.url("/hook"),
        hook.url("/x?key=k3y-c4n4ry")
    );
    let notify = slack_token(slack.address).replace(" ]", &format!(", {hooks} ]"));
    let world = World::new(&notify, "[]", &[]);
    let desk = world.desk();
    for (act, word) in [
        (Act::word("channel_not_found"), "there is no #backups"),
        (Act::word("not_in_channel"), "/invite"),
        (Act::status(400), "answered 400"),
        (Act::status(403), "still valid"),
        (Act::Say(404, vec![], "no_service".into()), "no_service"),
        (Act::Say(302, vec![("Location".into(), hook.url("/stolen"))], String::new()), "leads elsewhere"),
    ] {
        slack.always(Some(act.clone()));
        let key = format!("{word:.12}");
        desk.raise(&alert(&key, Severity::Warning));
        desk.deliver_due().await;
        let states = desk.states().unwrap();
        assert!(states.iter().all(|s| s.waiting == 0), "{act:?}: {states:?}");
        assert!(states.iter().any(|s| s.problem.as_ref().unwrap().contains(word)), "{act:?}: {states:?}");
        assert_eq!(title(hook.got().last().unwrap()), format!("jisu: {key}"), "the other one hears of it");
    }
    assert_eq!(hook.got().len(), 6, "no redirect to another server is followed");
    // What comes later goes out as soon as it can.
    slack.always(None);
    desk.raise(&alert("later", Severity::Warning));
    desk.deliver_due().await;
    assert_eq!(titles(&slack.taken()), ["jisu: later", "jisu: later"]);
    let refused: Vec<(String, u64)> = desk.states().unwrap().into_iter().map(|s| (s.notifier, s.refused)).collect();
    assert_eq!(refused, [("ops".into(), 6), ("slack".into(), 6)]);
}

#[tokio::test]
async fn f63_a_queue_that_is_full_drops_the_mildest_and_says_how_many() {
    let standin = Standin::new();
    let world = World::new(&format!("[ {{ webhook: {{ url: \"{}\", success: each }} }} ]", standin.url("/")), "[]", &[]);
    let desk = world.in_memory();
    standin.always(Some(Act::status(503)));
    desk.raise(&alert("first", Severity::Critical));
    for second in 0..1004 {
        desk.report(report(0, Timestamp::from_second(1_735_689_600 + second).unwrap()));
    }
    desk.raise(&alert("last", Severity::Warning));
    let state = desk.states().unwrap().remove(0);
    assert_eq!((state.waiting, state.dropped), (1000, 6));
    standin.always(None);
    pass(&world, &desk, 60 * 60, 60).await;
    let got: Vec<Value> = standin.taken().iter().map(|g| g.json()["message"].clone()).collect();
    assert_eq!(got.len(), 1000);
    assert_eq!((got[0]["title"].as_str(), got[0]["dropped"].as_u64()), (Some("jisu: first"), Some(6)));
    assert!(got[1..].iter().all(|m| m["dropped"] == 0));
    assert_eq!((got[1]["at"].as_str(), got[999]["title"].as_str()), (Some("2025-01-01T00:00:06Z"), Some("jisu: last")));
}

#[tokio::test]
async fn f63_a_hanging_receiver_holds_up_nobody_else() {
    let (bad, good) = (Standin::new(), Standin::new());
    bad.always(Some(Act::Hang));
    let world = World::new(
        &format!("[ {{ slack: {{ webhook: \"{}\" }} }}, {{ webhook: {{ url: \"{}\" }} }} ]", bad.url("/"), good.url("/")),
        "[]",
        &[],
    );
    let desk = world.desk();
    desk.raise(&alert("a", Severity::Warning));
    let waiting = |name: &str| desk.states().unwrap().iter().find(|state| state.notifier == name).map_or(0, |state| state.waiting);
    tokio::select! {
        outcomes = desk.deliver_due() => panic!("nobody waited for the one that hangs: {outcomes:?}"),
        () = until("the message", || waiting("webhook") == 0 && bad.got().len() == 1) => {}
    }
    assert_eq!((good.taken().len(), waiting("slack")), (1, 1));
    // It is given up, too.
    let hasty = world.hasty();
    let began = Instant::now();
    hasty.deliver_due().await;
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(hasty.states().unwrap()[0].problem.as_ref().unwrap().contains("gave no answer within 1.2 s"));
}

#[tokio::test]
async fn f13_alarms_go_out_though_the_state_file_takes_no_writing() {
    let standin = Standin::new();
    let world = World::webhook(&standin);
    let desk = world.desk();
    desk.raise(&alert("before", Severity::Critical));
    // From now on every write fails, as on a disk that went read-only.
    let other = rusqlite::Connection::open(world.path()).unwrap();
    for (table, verb) in [
        ("outbox", "INSERT"),
        ("outbox", "UPDATE"),
        ("outbox", "DELETE"),
        ("incidents", "INSERT"),
        ("incidents", "UPDATE"),
        ("settings", "INSERT"),
    ] {
        other
            .execute_batch(&format!(
                "CREATE TRIGGER no_{verb}_{table} BEFORE {verb} ON {table} BEGIN SELECT RAISE(FAIL, 'disk I/O error'); END"
            ))
            .unwrap();
    }
    for _ in 0..10 {
        let problem = desk.raise(&alert("now", Severity::Critical)).expect("it says that this is not on the disk");
        assert!(problem.to_string().contains("disk I/O error"), "{problem}");
        desk.deliver_due().await;
        world.clock.step_seconds(60);
    }
    // What was on the disk goes out once, though it cannot be struck off.
    assert_eq!(titles(&standin.got()), ["jisu: before", "jisu: now"]);
    standin.always(Some(Act::status(500)));
    desk.raise(&alert("more", Severity::Critical));
    pass(&world, &desk, 1200, 60).await;
    assert!(standin.got().len() <= 2 + 10, "pauses grow, too: {}", standin.got().len());
    standin.always(None);
    other.execute_batch("DROP TRIGGER no_DELETE_outbox").unwrap();
    pass(&world, &desk, 1800, 900).await;
    assert_eq!(titles(&standin.taken()), ["jisu: before", "jisu: now", "jisu: more"]);
    assert_eq!(desk.states().unwrap(), [], "the disk takes writing again: it is struck off there");
}

#[tokio::test]
async fn f13_pauses_grow_though_they_cannot_be_written_down() {
    let standin = Standin::new();
    let world = World::webhook(&standin);
    let desk = world.desk();
    desk.raise(&alert("before", Severity::Critical));
    let other = rusqlite::Connection::open(world.path()).unwrap();
    other.execute_batch("CREATE TRIGGER no BEFORE UPDATE ON outbox BEGIN SELECT RAISE(FAIL, 'disk I/O error'); END").unwrap();
    standin.always(Some(Act::status(500)));
    pass(&world, &desk, 1200, 5).await;
    let tries = standin.got().len();
    assert!((6..=9).contains(&tries), "{tries} tries in 20 minutes");
}

#[tokio::test]
async fn f63_what_is_in_memory_is_delivered_once_too() {
    let standin = Standin::new();
    let world = World::webhook(&standin);
    let desk = world.in_memory();
    for key in 0..3 {
        desk.raise(&alert(&format!("k{key}"), Severity::Warning));
    }
    standin.script([Act::Slow(Duration::from_millis(100))]);
    tokio::join!(desk.deliver_due(), desk.deliver_due());
    desk.deliver_due().await;
    assert_eq!(standin.got().len(), 3);
}

#[tokio::test]
async fn f63_two_processes_deliver_once() {
    let standin = Standin::new();
    let world = World::webhook(&standin);
    let (one, two) = (world.desk(), world.desk());
    for key in 0..5 {
        one.raise(&alert(&format!("k{key}"), Severity::Warning));
    }
    standin.script([Act::Slow(Duration::from_millis(100))]);
    tokio::join!(one.deliver_due(), two.deliver_due(), one.deliver_due());
    two.deliver_due().await;
    assert_eq!(standin.got().len(), 5);
}

#[tokio::test]
async fn f63_who_hears_what() {
    let (all, own, pager) = (Standin::new(), Standin::new(), Standin::new());
    let notify = format!(
        "[ {{ webhook: {{ url: \"{}\", success: each }} }}, {{ webhook: {{ url: \"{}\", name: pager, least: critical }} }} ]",
        all.url("/"),
        pager.url("/")
    );
    let world =
        World::new(&notify, &format!("[ {{ webhook: {{ url: \"{}\", headers: {{ X-Key: {{ env: TOKEN }} }} }} }} ]", own.url("/")), &[]);
    let desk = world.desk();
    let now = drctl::model::Clock::now(&*world.clock);
    desk.report(report(0, now));
    desk.raise(&Alert { job: Some("other".into()), ..alert("o", Severity::Warning) });
    desk.raise(&Alert { job: None, ..alert("host", Severity::Critical) });
    desk.raise(&alert("mild", Severity::Info));
    desk.raise(&alert("mild", Severity::Critical));
    desk.clear("mild", Some("jisu: well again"), &["by itself".into()]);
    desk.clear("mild", None, &[]);
    desk.clear("never there", None, &[]);
    desk.deliver_due().await;
    let what = |standin: &Standin| {
        standin.got().iter().map(|g| format!("{} {}", g.json()["message"]["what"].as_str().unwrap(), title(g))).collect::<Vec<_>>()
    };
    assert_eq!(
        what(&all),
        [
            "run-report jisu: backup done",
            "incident-opened jisu: o",
            "incident-opened jisu: host",
            "incident-opened jisu: mild",
            "incident-open jisu: mild",
            "incident-recovered jisu: well again"
        ]
    );
    assert_eq!(what(&own), ["incident-opened jisu: mild", "incident-open jisu: mild", "incident-recovered jisu: well again"]);
    assert_eq!(what(&pager), ["incident-opened jisu: host", "incident-opened jisu: mild", "incident-recovered jisu: well again"]);
    let body = own.got()[0].json();
    assert_eq!((body["schema"].as_str(), body["message"]["host"].as_str()), (Some("drctl.v1"), Some("prod-1")));
    assert_eq!(own.got()[0].header("x-key"), Some(TOKEN));
    let ids: std::collections::BTreeSet<String> = all.got().iter().map(|g| g.json()["message"]["id"].to_string()).collect();
    assert_eq!(ids.len(), 6, "every message has an id of its own");
}

#[tokio::test]
async fn f64_no_secret_reaches_a_payload_the_queue_or_an_error() {
    let standin = Standin::new();
    let notify = slack_token(standin.address).replace(
        " ]",
        &format!(
            ", {{ slack: {{ webhook: \"{}\" }} }}, {{ webhook: {{ url: \"{}\", success: each }} }}, {{ healthchecks: {{ url: \"{}\", log: true }} }} ]",
            standin.url("/services/h00k-c4n4ry"),
            standin.url("/x?key=k3y-c4n4ry"),
            standin.url("/ping/u0id-c4n4ry")
        ),
    );
    let world = World::new(&notify, "[]", &[]);
    let mut options = world.options();
    options.secrets = vec![Secret::new("gi4en-c4n4ry")];
    let desk = Desk::new(&world.config, Some(world.state()), world.clock.clone(), options);
    let canaries = [PASSWORD, TOKEN, "gi4en-c4n4ry", "h00k-c4n4ry", "k3y-c4n4ry", "u0id-c4n4ry", "url-c4n4ry", "named-c4n4ry"];
    let stderr: String = (0..1500)
        .map(|i| {
            format!(
                "pg_dump: {i} {PASSWORD} {TOKEN} gi4en-c4n4ry {} postgres://u:url-c4n4ry@h/d PGPASSWORD=named-c4n4ry {}\n",
                standin.url("/services/h00k-c4n4ry"),
                "x".repeat(20)
            )
        })
        .collect();
    assert!(stderr.len() > 100 << 10);
    let lines = vec![stderr.clone(), stderr[..70 << 10].replace('\n', " ")];
    let now = drctl::model::Clock::now(&*world.clock);
    let bad = Message { lines: lines.clone(), next: Some(stderr[..600].to_owned()), title: stderr[..400].to_owned(), ..report(1, now) };
    desk.report(run_started("jisu", "1", now));
    desk.report(bad);
    desk.raise(&Alert { lines, facts: vec![drctl::notify::Fact::new(PASSWORD, stderr.clone())], ..alert("k", Severity::Critical) });
    desk.clear("k", Some(PASSWORD), std::slice::from_ref(&stderr));
    standin.script((0..12).map(|n| if n % 2 == 0 { Act::status(500) } else { Act::Say(403, vec![], format!("{TOKEN} {PASSWORD}")) }));
    for _ in 0..4 {
        desk.deliver_due().await;
        for state in desk.states().unwrap() {
            assert!(canaries.iter().all(|c| !format!("{state:?}").contains(c)), "{state:?}");
        }
        world.clock.step_seconds(900);
    }
    let got = standin.got();
    assert!(got.len() > 12, "{}", got.len());
    for one in &got {
        // Slack's token and the addresses are where they belong; bodies hold none.
        assert!(canaries.iter().all(|c| !one.body.contains(c)), "{}", one.body);
        assert!(one.body.len() < 60_000, "{} bytes", one.body.len());
    }
    let files = ["", "-wal"].map(|end| std::fs::read(format!("{}{end}", world.path().display())).unwrap_or_default()).concat();
    for canary in canaries {
        assert!(!files.windows(canary.len()).any(|w| w == canary.as_bytes()), "{canary} in the state file");
    }
    for tried in desk.try_out(None).await {
        assert!(canaries.iter().all(|c| !format!("{tried:?}").contains(c)), "{tried:?}");
    }
}

#[tokio::test]
async fn f63_the_dead_mans_switch_hears_of_runs_and_not_of_old_ones() {
    let standin = Standin::new();
    let of = |log: bool| World::new("[]", &format!("[ {{ healthchecks: {{ url: \"{}\", log: {log} }} }} ]", standin.url("/ping/abc")), &[]);
    let world = of(false);
    let desk = world.desk();
    let now = || drctl::model::Clock::now(&*world.clock);
    desk.report(run_started("jisu", "run 1", now()));
    desk.report(Message { run: Some("run 1".into()), ..report(3, now()) });
    desk.report(run_started("other", "run 2", now()));
    desk.report(Message { run: Some("run 3".into()), ..report(0, now()) });
    desk.raise(&alert("clock", Severity::Critical));
    desk.deliver_due().await;
    let paths: Vec<String> = standin.got().iter().map(|g| g.path.clone()).collect();
    let rid = paths[0].split_once("rid=").unwrap().1.to_owned();
    assert_eq!(paths[0], format!("/ping/abc/start?rid={rid}"));
    assert_eq!(paths[1], format!("/ping/abc/3?rid={rid}"), "beginning and end are one run there");
    assert!(paths[2].starts_with("/ping/abc/0?rid=") && !paths[2].ends_with(&rid));
    assert_eq!(paths[3..], ["/ping/abc/fail"]);
    assert!(standin.got().iter().all(|g| g.body.is_empty()), "no body unless asked for");
    // A success that waited for an hour is not one of now: the switch must fire.
    standin.always(Some(Act::status(502)));
    desk.report(report(0, now()));
    desk.report(report(1, now()));
    pass(&world, &desk, 3600, 600).await;
    standin.always(None);
    let before = standin.got().len();
    pass(&world, &desk, 3600, 900).await;
    let late: Vec<String> = standin.got()[before..].iter().map(|g| g.path.split('?').next().unwrap().to_owned()).collect();
    assert_eq!(late, ["/ping/abc/log", "/ping/abc/1"]);
    // It says 200 to what it does not know.
    standin.script([Act::Say(200, vec![], "OK (rate limited)".into()), Act::Say(200, vec![], "OK (not found)".into())]);
    desk.report(report(0, now()));
    desk.deliver_due().await;
    assert_eq!(desk.states().unwrap()[0].waiting, 1);
    pass(&world, &desk, 60, 60).await;
    assert_eq!((desk.states().unwrap()[0].waiting, desk.states().unwrap()[0].refused), (0, 1));
    let world = of(true);
    let desk = world.desk();
    desk.report(report(1, drctl::model::Clock::now(&*world.clock)));
    desk.deliver_due().await;
    assert!(standin.got().last().unwrap().body.starts_with("jisu: backup failed\nconnect to postgres"));
}

#[tokio::test]
async fn digests_go_out_once_a_week_in_the_zone_of_the_machine() {
    let standin = Standin::new();
    let notify = format!(
        "[ {{ webhook: {{ url: \"{}\" }} }}, {{ webhook: {{ url: \"{}\", digest: never }} }} ]",
        standin.url("/a"),
        standin.url("/b")
    );
    let world = World::new(&notify, "[]", &[]);
    let mut sent = Vec::new();
    for hour in 0..(15 * 24) {
        // A desk of its own each day: what was sent is remembered.
        let desk = world.desk();
        if desk.digest_is_due() {
            let now = drctl::model::Clock::now(&*world.clock);
            desk.digest(Message::new(What::Digest, Severity::Info, "prod-1: all is well", now));
            sent.push(hour);
        }
        assert!(!desk.digest_is_due());
        desk.deliver_due().await;
        world.clock.step_seconds(3600);
    }
    // From Wednesday 08:00 in Shanghai to Monday 09:00: 5 days and an hour.
    assert_eq!(sent, [5 * 24 + 1, 12 * 24 + 1]);
    assert_eq!(standin.got().iter().map(|g| g.path.as_str()).collect::<Vec<_>>(), ["/a", "/a"]);
}

#[tokio::test]
async fn a_secret_that_is_not_there_yet_is_waited_for_and_one_in_a_file_is_read_anew() {
    let standin = Standin::new();
    let world = World::new("[ { slack: { webhook: { file: hook } } } ]", "[]", &[]);
    let desk = world.desk();
    desk.raise(&alert("a", Severity::Warning));
    desk.deliver_due().await;
    let state = desk.states().unwrap().remove(0);
    assert!(state.waiting == 1 && state.problem.as_ref().unwrap().contains("hook"), "{state:?}");
    let file = world.folder.path().join("hook");
    std::fs::write(&file, standin.url("/hook")).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    pass(&world, &desk, 60, 60).await;
    assert_eq!(standin.taken().len(), 1);
    assert_eq!(backup_incident("jisu"), "backup:jisu");
}

/// What Slack gets, word for word.
#[tokio::test]
async fn slack_payloads() {
    let standin = Standin::new();
    let world = World::token(&standin);
    let desk = world.desk();
    let now = || drctl::model::Clock::now(&*world.clock);
    desk.report(Message { next: Some("drctl show `x` <y> & z".into()), ..report(3, now()) });
    desk.deliver_due().await;
    world.clock.step_seconds(7500);
    desk.report(report(0, now()));
    desk.deliver_due().await;
    let bodies: Vec<String> = standin.got().iter().map(|g| format!("{} {:#}", g.path, g.json())).collect();
    insta::assert_snapshot!(bodies.join("\n"));
}

fn home(notify: &str) -> cli::Home {
    let home = cli::Home::new();
    home.write("data/a.txt", "a");
    home.init("jobs:\n  - job: shop\n    sources:\n      - files: { name: data, paths: [data] }\n");
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("{config}\nnotify: {notify}\n"));
    home
}

#[test]
fn notify_test_says_what_each_could_do() {
    // A port that stays ours while nobody listens there.
    let standin = Standin::at(Standin::nobody());
    let notify = slack_token(standin.address).replace(
        " ]",
        &format!(
            ", {{ slack: {{ webhook: {{ env: HOOK }} }} }}, {{ healthchecks: {{ url: \"{}\" }} }} ]",
            standin.url("/ping/u0id-c4n4ry")
        ),
    );
    let mut home = home(&notify);
    home.env("TOKEN", TOKEN);
    home.env("HOOK", &standin.url("/services/h00k-c4n4ry"));
    let ran = home.ok(&["notify", "test"]);
    assert!(ran.out.contains("slack (slack): delivered; an incident gets one thread"), "{}", ran.all());
    assert!(ran.out.contains("slack-2 (slack): delivered; without threads"), "{}", ran.out);
    assert!(ran.out.contains("healthchecks (healthchecks): delivered"), "{}", ran.out);
    assert_eq!(standin.taken().len(), 3);
    assert_eq!(home.json(&["notify", "test", "--name", "slack"])["result"]["notifiers"][0]["threads"], true);
    assert_eq!(standin.taken().len(), 4);

    standin.script([Act::word("not_in_channel")]);
    let ran = home.run(&["notify", "test", "--name", "slack", "--json"]);
    let value: Value = serde_json::from_str(&ran.out).unwrap();
    let line = &value["result"]["notifiers"][0];
    assert_eq!((ran.code, line["word"].as_str(), line["status"].as_u64()), (1, Some("not_in_channel"), Some(200)));
    assert_eq!(line["next_step"], "in #backups type /invite @its-name");

    let address = standin.address;
    drop(standin);
    let ran = home.run(&["notify", "test"]);
    assert_eq!(ran.code, 8, "{}", ran.all());
    assert!(ran.out.contains("NOT delivered: connect to Slack"), "{}", ran.out);
    home.env("HOOK", "");
    assert_eq!(home.run(&["notify", "test"]).code, 1, "a variable that is not set mends itself by no waiting");
    let ran = home.run(&["notify", "test", "--name", "slak"]);
    assert!(ran.code == 2 && ran.err.contains("the configuration has: slack, slack-2, healthchecks"), "{}", ran.all());
    // A proxy of the environment is used.
    let proxy = Standin::at(address);
    home.env("HOOK", "http://localhost:1/services/h00k-c4n4ry");
    home.env("HTTP_PROXY", &proxy.url(""));
    home.ok(&["notify", "test", "--name", "slack-2"]);
    assert_eq!(proxy.got()[0].path, "http://localhost:1/services/h00k-c4n4ry");
    for args in [&["notify", "test", "-vv"][..], &["config", "show"], &["config", "check"]] {
        let all = home.run(args).all();
        assert!(!all.contains("c4n4ry"), "{all}");
    }
}

#[test]
fn status_says_what_did_not_get_through_and_a_test_that_arrives_forgets_what_was_refused() {
    let standin = Standin::new();
    let home = home(&format!("[ {{ webhook: {{ url: \"{}\" }} }} ]", standin.url("/")));
    home.ok(&["backup", "now"]);
    let environment = Environment::of(home.path(""), [("HOME", "/nonexistent")]);
    let config = load(&LoadOptions::new(environment.clone())).unwrap();
    let clock = Arc::new(drctl::model::SystemClock);
    let state = Arc::new(StateFile::open(&home.state().join("state.sqlite"), clock.clone()).unwrap());
    let options = DeskOptions { time_limit: Some(Duration::from_secs(120)), ..DeskOptions::new("prod-1", environment) };
    let desk = Desk::new(&config, Some(state), clock, options);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    standin.script([Act::status(410), Act::status(500)]);
    desk.raise(&alert("a", Severity::Warning));
    runtime.block_on(desk.deliver_due());
    let ran = home.ok(&["status"]);
    assert!(ran.out.contains("ALARM: webhook refused 1 message: the webhook answered 410"), "{}", ran.out);
    desk.raise(&alert("b", Severity::Warning));
    runtime.block_on(desk.deliver_due());
    let ran = home.ok(&["status"]);
    assert!(ran.out.contains("ALARM: 1 message for webhook waiting since 20") && ran.out.contains("answered 500"), "{}", ran.out);
    let ran = home.ok(&["notify", "test"]);
    assert!(ran.out.contains("1 message waiting for it") && ran.out.contains("1 message it refused before"), "{}", ran.out);
    assert_eq!(desk.states().unwrap()[0].refused, 0);
}

/// What the receiver was sent so far, without the beginnings of runs: `what severity title`.
fn heard(standin: &Standin) -> Vec<String> {
    let of = |got: &Got| {
        let message = got.json()["message"].clone();
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text("what"), text("severity"), text("title"))
    };
    standin.taken().iter().map(of).collect()
}

fn newest_lines(standin: &Standin) -> String {
    standin.taken().last().unwrap().json()["message"].to_string()
}

/// A home whose verbs tell a webhook.
fn telling(standin: &Standin, more: &str) -> cli::Home {
    let home = cli::Home::new();
    for folder in ["a", "b", "c"] {
        home.write(&format!("{folder}/x"), folder);
    }
    home.init(&format!(
        "notify: [ {{ webhook: {{ url: \"{}\"{more} }} }} ]\njobs:\n  - job: shop\n    retention: {{ keep_last: 1 }}\n    sources:\n      - files: {{ name: a, paths: [a] }}\n      \
         - files: {{ name: b, paths: [b] }}\n      - files: {{ name: c, paths: [c] }}\n",
        standin.url("/hook")
    ));
    home
}

#[test]
fn f144_verbs_typed_by_cron_are_heard_as_the_agents_runs_are() {
    let standin = Standin::new();
    let home = telling(&standin, "");
    home.ok(&["backup", "now"]);
    home.ok(&["verify"]);
    home.ok(&["prune", "--apply"]);
    assert_eq!(heard(&standin), [""; 0], "good runs are not told unless they are asked for");

    // Every source that failed is named, in a set that lacks some and where nothing came out.
    std::fs::rename(home.path("a"), home.path("away-a")).unwrap();
    std::fs::rename(home.path("c"), home.path("away-c")).unwrap();
    assert_eq!(home.run(&["backup", "now"]).code, 3);
    assert_eq!(heard(&standin), ["incident-opened warning shop: backup is not whole"]);
    let told = newest_lines(&standin);
    assert!(told.contains("/work/a of a files source") && told.contains("/work/c of a files source"), "{told}");
    std::fs::rename(home.path("b"), home.path("away-b")).unwrap();
    let ran = home.run(&["backup", "now"]);
    assert_eq!(ran.code, 4, "{}", ran.all());
    for name in ["a: path", "b: path", "c: path"] {
        assert!(ran.err.contains(name), "{name}: {}", ran.err);
    }
    assert_eq!(heard(&standin).last().unwrap(), "incident-open critical shop: backup could not start", "worse than it was: at once");
    let told = newest_lines(&standin);
    assert!(["/work/a", "/work/b", "/work/c"].iter().all(|name| told.contains(name)), "{told}");
    assert_eq!(home.run(&["backup", "now"]).code, 4);
    assert_eq!(heard(&standin).len(), 2, "the same once more is one incident");
    // A dry run changes nothing and tells nobody; nor does a word that was typed wrong.
    home.run(&["backup", "now", "--dry-run"]);
    assert_eq!(home.run(&["backup", "now", "no-such-job"]).code, 2);
    assert_eq!(heard(&standin).len(), 2);

    for folder in ["a", "b", "c"] {
        std::fs::rename(home.path(&format!("away-{folder}")), home.path(folder)).unwrap();
    }
    // One source alone is no whole backup: the incident stays.
    home.ok(&["backup", "now", "--source", "a"]);
    assert_eq!(heard(&standin).len(), 2);
    home.ok(&["backup", "now"]);
    assert_eq!(heard(&standin).last().unwrap(), "incident-recovered critical shop: recovered, backup done");

    // A verification that fails, until the newest set passes one.
    let set = home.newest();
    let in_set = std::fs::read_dir(home.set_folder(&set)).unwrap().map(|entry| entry.unwrap().path());
    let object = in_set.into_iter().find(|path| path.to_string_lossy().contains("/a.tree")).unwrap();
    let sound = std::fs::read(&object).unwrap();
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    std::fs::set_permissions(&object, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&object, damaged).unwrap();
    assert_eq!(home.run(&["verify"]).code, 5);
    assert_eq!(heard(&standin).last().unwrap(), "incident-opened critical shop: verification failed");
    std::fs::write(&object, sound).unwrap();
    home.ok(&["verify"]);
    assert_eq!(heard(&standin).last().unwrap(), "incident-recovered critical shop: verification failed: over");

    // A restore exchanges what is live: those who hear warnings hear of it, and of its end.
    home.ok(&["restore", "latest", "--yes"]);
    assert_eq!(heard(&standin).last().unwrap(), &format!("done warning shop: restored {set}"));
    home.ok(&["restore", "--undo"]);
    assert!(heard(&standin).last().unwrap().starts_with("done warning shop: restore "), "{:?}", heard(&standin));
    std::fs::remove_dir_all(home.set_folder(&set)).unwrap();
    let failed = home.run(&["restore", "latest", "--yes"]);
    assert_ne!(failed.code, 0);
    assert_eq!(heard(&standin).last().unwrap(), "incident-opened warning shop: restore failed", "{}", failed.all());
}

#[test]
fn f144_what_cannot_be_opened_is_told_and_what_cannot_be_delivered_waits_on_the_disk() {
    let standin = Standin::new();
    let home = telling(&standin, ", success: each");
    home.ok(&["backup", "now"]);
    assert_eq!(heard(&standin), ["run-report info shop: backup done"]);
    // Nobody answers: the run is as good as it was, and says that somebody is still to be told.
    standin.always(Some(Act::status(503)));
    let ran = home.ok(&["backup", "now"]);
    assert!(ran.err.contains("1 to be told later"), "{}", ran.all());
    standin.always(None);

    let standin = Standin::new();
    let home = telling(&standin, "");
    home.ok(&["backup", "now"]);
    std::fs::rename(home.path("drctl-repository"), home.path("elsewhere")).unwrap();
    for verb in [&["backup", "now"][..], &["verify"], &["prune", "--apply"]] {
        assert_ne!(home.run(verb).code, 0);
    }
    let told = heard(&standin);
    for title in ["critical shop: backup", "critical shop: verification failed", "warning shop: nothing was pruned"] {
        assert!(told.iter().any(|line| line.starts_with("incident-opened ") && line.contains(title)), "{title}: {told:?}");
    }
}

/// Whether a request is there to its last byte.
fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    request.len() >= head.len() + 4 + length.unwrap_or(0)
}

/// Serves so many connections over TLS; gives the port. What cannot shake hands counts too.
fn tls_server(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>, connections: usize) -> u16 {
    use std::io::{Read, Write};
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            let session = rustls::ServerConnection::new(Arc::new(config.clone())).unwrap();
            let mut tls = rustls::StreamOwned::new(session, stream);
            // All of the request: what is left unread when the connection closes takes the answer away.
            let mut request = Vec::<u8>::new();
            while !whole(&request) {
                let mut piece = [0; 65536];
                match tls.read(&mut piece) {
                    Ok(bytes) if bytes > 0 => request.extend_from_slice(&piece[..bytes]),
                    _ => break,
                }
            }
            if whole(&request) {
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
                let _ = tls.flush();
            }
        }
    });
    port
}

#[test]
fn tls_goes_by_the_authorities_of_the_system_and_by_no_other() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let port = tls_server(&certificate, 3);
    let mut home = home(&format!("[ {{ webhook: {{ url: \"https://localhost:{port}/k3y-c4n4ry\" }} }} ]"));
    let ran = home.run(&["notify", "test"]);
    assert_eq!(ran.code, 8, "{}", ran.all());
    assert!(ran.out.contains("certificate") && ran.out.contains("SSL_CERT_FILE") && !ran.all().contains("c4n4ry"), "{}", ran.all());
    home.write("ca.pem", &certificate.cert.pem());
    home.env("SSL_CERT_FILE", home.path("ca.pem").to_str().unwrap());
    home.ok(&["notify", "test"]);
    // Another name than the certificate's.
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &config.replace("https://localhost", "https://127.0.0.1"));
    let ran = home.run(&["notify", "test"]);
    assert!(ran.code == 8 && ran.out.contains("certificate"), "{}", ran.all());
}
