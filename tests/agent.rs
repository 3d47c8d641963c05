//! The agent in fast time: its own code, real sources and stores, a clock that the test sets.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;
use std::time::Duration;

use drctl::error::Kind;
use drctl::model::{Clock, TestClock, Timestamp};
use drctl::ops::restore::journal::{Phase, RestoreNote};
use drctl::state::{Process, RunOutcome, StateFile};

#[path = "support/bench.rs"]
mod bench;
#[path = "support/cli.rs"]
mod cli;
#[path = "support/http_standin.rs"]
mod http_standin;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/postgres.rs"]
mod support;

use bench::{Bench, ONE_JOB, home, last, no_pages, runs, titles};
use cli::Home;
use http_standin::Standin;
use shop::Shop;

/// The first of August 2027 is a Sunday: everything that jisu's crontab has is due on that day.
#[tokio::test(flavor = "multi_thread")]
async fn one_day_of_jisus_crontab() {
    let shop = Shop::new();
    no_pages(&shop.home);
    let hears = Standin::new();
    let text = std::fs::read_to_string(shop.home.path("drctl.yaml")).unwrap();
    let text = text.replace("timezone: UTC", "timezone: Asia/Shanghai").replace(
        "    sources:",
        "    schedule: { full: \"0 2 * * *\", incremental: \"0 3 * * 0\", archive: \"0 4 1 * *\", verify: \"0 6 * * *\" }\n    \
         objectives: { rpo: 26h }\n    retention: { keep_last: 9 }\n    sources:",
    );
    let notify = format!("notify: [{{ webhook: {{ url: \"{}\", success: each, digest: never }} }}]\n", hears.url("/hook"));
    shop.home.write("drctl.yaml", &format!("{notify}{text}"));
    // Midnight in Shanghai, then a day and half an hour.
    let mut bench = Bench::start(&shop.home, "2027-07-31T16:00:00Z").await;
    bench.go("2027-08-01T16:30:00Z", 600).await;

    let sets = shop.home.json(&["list"]);
    let made: Vec<String> =
        sets["result"]["sets"].as_array().unwrap().iter().map(|s| s["started_at"].as_str().unwrap().to_owned()).collect();
    assert_eq!(made, ["2027-07-31T18:00:00Z", "2027-07-31T19:00:00Z", "2027-07-31T20:00:00Z"], "02:00, 03:00 and 04:00 in Shanghai");
    let plan = shop.home.ok(&["prune"]).out;
    assert_eq!(plan.matches("an archive, and no monthly or yearly rule ends it").count(), 1, "that of 04:00: {plan}");
    let grades: Vec<&str> = sets["result"]["sets"].as_array().unwrap().iter().map(|s| s["grade"].as_str().unwrap()).collect();
    assert_eq!(grades, ["read-back"; 3], "06:00 verified each that nobody had read");
    let verbs: Vec<String> = runs(&shop.home).into_iter().map(|(verb, outcome, at)| format!("{verb} {at} {outcome:?}")).collect();
    assert_eq!(
        verbs,
        ["backup 31 18:00 Finished(0)", "backup 31 19:00 Finished(0)", "backup 31 20:00 Finished(0)", "verify 31 22:00 Finished(0)"]
    );
    let told: Vec<String> = titles(&hears.got()).into_iter().filter(|title| !title.contains("clocks")).collect();
    assert_eq!(told, ["shop: backup done", "shop: backup done", "shop: backup done"], "one for each good run, as it was asked for");
    let report = hears.got()[2].json()["message"].clone();
    let facts: Vec<String> = report["facts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| format!("{}: {}", f["label"].as_str().unwrap(), f["value"].as_str().unwrap()))
        .collect();
    assert!(facts.iter().any(|fact| fact.starts_with("postgres: ") && fact.contains("rows")), "{facts:?}");
    assert!(facts.iter().any(|fact| fact.starts_with("Spread of times: ")), "{facts:?}");
    // The clock of this test is ahead of the store's own, which is noticed.
    assert_eq!(bench.alerts(), ["alarm:clock"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_failures_are_two_messages_and_a_success_ends_it() {
    let home = home(&ONE_JOB.replace("0 2 * * *", "0 * * * *"));
    let hears = Standin::new();
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("notify: [{{ webhook: {{ url: \"{}\", digest: never }} }}]\n{text}", hears.url("/")));
    let mut bench = Bench::start(&home, "2027-01-01T00:30:00Z").await;
    std::fs::rename(home.path("data"), home.path("gone")).unwrap();
    bench.go("2027-01-01T10:40:00Z", 1200).await;
    assert!(bench.alerts().contains(&"backup:shop".to_owned()), "{:?}", bench.alerts());
    std::fs::rename(home.path("gone"), home.path("data")).unwrap();
    bench.go("2027-01-01T11:40:00Z", 1200).await;
    assert_eq!(runs(&home).iter().filter(|(_, outcome, _)| *outcome == RunOutcome::Finished(1)).count(), 10);
    let told: Vec<String> = titles(&hears.got()).into_iter().filter(|title| title.contains("backup")).collect();
    assert_eq!(told, ["shop: backup failed", "shop: recovered, backup done"]);
    assert!(!bench.alerts().contains(&"backup:shop".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn f59_what_was_missed_is_made_up_for_once() {
    let home = home(ONE_JOB);
    let mut bench = Bench::start(&home, "2027-01-01T01:00:00Z").await;
    bench.go("2027-01-01T03:00:00Z", 1800).await;
    drop(bench);
    // Off for three days.
    let mut bench = Bench::start(&home, "2027-01-04T10:00:00Z").await;
    bench.go("2027-01-04T11:00:00Z", 600).await;
    assert_eq!(runs(&home).len(), 2, "{:?}", runs(&home));
    drop(bench);
    // At the due minute, and again right after.
    for now in ["2027-01-05T02:00:00Z", "2027-01-05T02:00:20Z"] {
        let mut bench = Bench::start(&home, now).await;
        bench.go(&now.replace("T02:00", "T02:01"), 20).await;
    }
    assert_eq!(runs(&home).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn f60_a_broken_file_is_refused_and_the_old_configuration_stays() {
    let home = home(ONE_JOB);
    let mut bench = Bench::start(&home, "2027-01-01T00:00:00Z").await;
    let good = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &good.replace("schedule:", "schedul:"));
    bench.look_at_files().await;
    let refused = bench.agent.refused().unwrap().to_owned();
    let line = 1 + good.lines().position(|line| line.contains("schedule:")).unwrap();
    assert!(refused.contains(&format!("drctl.yaml:{line}:")) && refused.contains("schedul"), "{refused}");
    assert_eq!(bench.alerts(), ["config"]);
    bench.go("2027-01-01T02:10:00Z", 600).await;
    assert_eq!(runs(&home).len(), 1, "it runs by the old one");
    // A person goes back, and all is well.
    let back = home.ok(&["config", "rollback"]);
    assert!(back.out.contains("wrote ") && std::fs::read_to_string(home.path("drctl.yaml")).unwrap() == good, "{}", back.out);
    assert!(home.path("drctl.yaml.before-rollback").exists());
    bench.look_at_files().await;
    assert_eq!((bench.agent.refused(), bench.alerts().contains(&"config".to_owned())), (None, false));
}

/// Editors and copies write a file piece by piece: what is half there is not read.
#[tokio::test(flavor = "multi_thread")]
async fn f60_a_configuration_that_is_still_being_written_is_left_alone() {
    let home = home(ONE_JOB);
    let mut bench = Bench::start(&home, "2027-01-01T00:00:00Z").await;
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap().replace("0 2 * * *", "0 3 * * *");
    let (half, whole) = (text.rsplit_once("run: [").unwrap().0, &text);
    bench.agent.tick().await;
    for written in [half, whole] {
        home.write("drctl.yaml", written);
        bench.clock.step_seconds(10);
        bench.agent.tick().await;
        assert_eq!((bench.agent.refused(), bench.alerts()), (None, vec![]));
    }
    let hours = |bench: &Bench| format!("{:?}", bench.agent.config().jobs[0].schedule);
    assert!(hours(&bench).contains("0 2 * * *"), "{}", hours(&bench));
    bench.clock.step_seconds(1);
    bench.agent.tick().await;
    assert!(hours(&bench).contains("0 3 * * *"), "a second is enough: {}", hours(&bench));
    // What stays half written is a mistake to be told of.
    home.write("drctl.yaml", half);
    bench.look_at_files().await;
    assert!(
        bench.agent.refused().is_some() && bench.alerts().contains(&"config".to_owned()),
        "{:?} {:?}",
        bench.agent.refused(),
        bench.alerts()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn f61_a_run_under_way_keeps_its_configuration_and_a_removed_source_its_sets() {
    let held = "run: [sh, -c, \"while [ -e hold ]; do sleep 0.05; done; cat data\"] } }, { command: { name: more, run: [cat, data] } }";
    let home = home(&ONE_JOB.replace("run: [cat, data] } }", held));
    home.write("hold", "");
    let mut bench = Bench::start(&home, "2027-01-01T01:59:00Z").await;
    bench.clock.step_seconds(61);
    bench.agent.tick().await;
    assert_eq!(bench.agent.busy(), 1);
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &text.replace(", { command: { name: more, run: [cat, data] } }", ""));
    bench.look_at_files().await;
    assert_eq!((bench.agent.config().jobs[0].sources.len(), bench.agent.busy()), (1, 1), "the new one is in use, and the run goes on");
    std::fs::remove_file(home.path("hold")).unwrap();
    bench.agent.settle().await;
    let show = home.json(&["show", &home.newest()]);
    let sources: Vec<&str> = show["result"]["sources"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(sources, ["data", "more", "drctl"], "the run ended as it began");
    bench.go("2027-01-02T02:10:00Z", 3600).await;
    assert_eq!(home.sets().len(), 2, "the sets of a source that was taken out stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_changed_leaves_another_that_runs_alone() {
    let jobs = format!(
        "{}{}",
        ONE_JOB.replace("run: [cat, data]", "run: [sh, -c, \"sleep 2; cat data\"]"),
        ONE_JOB.replace("jobs:\n", "").replace("job: shop", "job: other")
    );
    let home = home(&jobs);
    let mut bench = Bench::start(&home, "2027-01-01T01:59:00Z").await;
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    bench.clock.step_seconds(61);
    bench.agent.tick().await;
    assert_eq!(bench.agent.busy(), 2, "two jobs run beside each other");
    home.write("drctl.yaml", &text.replacen("job: other", "job: another", 1));
    bench.look_at_files().await;
    bench.agent.settle().await;
    let audit = home.ok(&["audit"]).out;
    assert!(audit.contains("config reload"), "{audit}");
    let finished: Vec<_> = runs(&home).into_iter().map(|(_, outcome, _)| outcome).collect();
    assert_eq!(finished, [RunOutcome::Finished(0); 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_an_alarm() {
    let objectives = "    objectives: { rpo: 1h, verified_within: 3h }\n    sources:";
    let home = home(&ONE_JOB.replace("0 2 * * *", "0 2 1 1 *").replace("    sources:", objectives));
    home.ok(&["backup", "now"]);
    let now = Timestamp::now();
    let later = |hours: i64| now.checked_add(jiff::SignedDuration::from_hours(hours)).unwrap().to_string();
    let mut bench = Bench::start(&home, &now.to_string()).await;
    bench.go(&later(0), 60).await;
    assert_eq!(bench.alerts(), Vec::<String>::new());
    bench.agent.tick().await;
    bench.agent.settle().await;
    bench.go(&later(2), 1800).await;
    for _ in 0..2 {
        assert!(bench.alerts().contains(&"alarm:rpo:shop".to_owned()), "while it lasts: {:?}", bench.alerts());
        bench.clock.step_seconds(61);
        bench.agent.tick().await;
    }
    bench.go(&later(4), 1800).await;
    assert!(bench.alerts().contains(&"alarm:verified:shop".to_owned()), "{:?}", bench.alerts());
    // Somebody backs up and verifies by hand: the next look at the log sees it.
    home.ok(&["backup", "now", "--verify", "read-back"]);
    let clock = bench.clock.clone();
    clock.set(Timestamp::now());
    drop(bench);
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    bench.agent.tick().await;
    bench.agent.settle().await;
    bench.agent.tick().await;
    assert_eq!(bench.alerts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_prune_deletes_what_retention_gives_up() {
    let jobs = ONE_JOB
        .replace("full: \"0 2 * * *\"", "prune: \"* * * * *\"")
        .replace("    sources:", "    retention: { keep_last: 2 }\n    sources:");
    let home = home(&jobs);
    for _ in 0..4 {
        home.ok(&["backup", "now", "--verify", "read-back"]);
    }
    let before = home.sets();
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    bench.clock.step_seconds(61);
    bench.agent.tick().await;
    bench.agent.settle().await;
    assert_eq!(home.sets(), before[2..]);
    let audit = home.ok(&["audit"]).out;
    assert!(audit.contains("prune"), "{audit}");
    assert_eq!(bench.alerts(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_work_finish_and_then_aborts_it() {
    for (sleep, within, expected) in [(1, "60s", RunOutcome::Finished(0)), (600, "3s", RunOutcome::Finished(130))] {
        let home = home(&ONE_JOB.replace("run: [cat, data]", &format!("run: [sh, -c, \"touch began; sleep {sleep}; cat data\"]")));
        let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
        home.write("drctl.yaml", &text.replacen("stop_within: 3s", &format!("stop_within: {within}"), 1));
        let mut bench = Bench::start(&home, "2027-01-01T01:59:00Z").await;
        bench.clock.step_seconds(61);
        bench.agent.tick().await;
        let ticked = std::time::Instant::now();
        while !home.path("began").exists() {
            assert!(ticked.elapsed() < Duration::from_secs(60), "the run does not begin: {:?}", runs(&home));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bench.agent.stop().await;
        assert_eq!(runs(&home)[0].1, expected);
        assert_eq!(home.sets().len(), usize::from(sleep == 1));
        bench.clock.step_seconds(86_400);
        bench.agent.tick().await;
        assert_eq!(bench.agent.busy(), 0, "it begins nothing more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_file_that_is_taken_away_or_locked_is_told_of_and_stops_no_run() {
    let home = home(&ONE_JOB.replace("0 2 * * *", "0 * * * *"));
    let hears = Standin::new();
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("notify: [{{ webhook: {{ url: \"{}\", digest: never }} }}]\n{text}", hears.url("/")));
    let mut bench = Bench::start(&home, "2027-01-01T00:30:00Z").await;
    bench.go("2027-01-01T02:30:00Z", 600).await;
    assert_eq!(home.sets().len(), 2);
    let about_state = || titles(&hears.got()).into_iter().filter(|title| title.contains("state file")).collect::<Vec<_>>();
    assert_eq!(about_state(), [""; 0]);

    // Taken away: a new one is made, and it is said until a good run has passed.
    for more in ["", "-wal", "-shm"] {
        let _ = std::fs::rename(home.state().join(format!("state.sqlite{more}")), home.state().join(format!("lost{more}")));
    }
    bench.go("2027-01-01T02:50:00Z", 120).await;
    let is_new = "the state file is new although there are sets".to_owned();
    assert_eq!((about_state(), bench.alerts().contains(&"state-new".to_owned())), (vec![is_new.clone()], true));
    bench.go("2027-01-01T03:10:00Z", 120).await;
    assert_eq!(about_state(), [is_new.clone(), format!("{is_new}: over")]);
    assert_eq!((home.sets().len(), runs(&home).len()), (3, 1), "what was handled is known, and the new file is used");

    // Locked by another for long: runs go on, and what they were is not known.
    let other = rusqlite::Connection::open(home.state().join("state.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    bench.go("2027-01-01T04:10:00Z", 600).await;
    assert_eq!(home.sets().len(), 4);
    assert_eq!(about_state()[2..], ["the state file cannot be used".to_owned()]);
    other.execute_batch("ROLLBACK").unwrap();
    bench.go("2027-01-01T05:10:00Z", 600).await;
    assert_eq!(about_state()[3..], ["the state file cannot be used: over".to_owned()]);
    assert_eq!((home.sets().len(), runs(&home).len()), (5, 2));
}

fn get(address: &str, host: &str, path: &str, more: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_show_what_the_agent_knows() {
    let home = home(ONE_JOB);
    let address = format!("127.0.0.1:{}", support::free_port());
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let agent = format!("agent: {{ listen: \"{address}\", hosts: [drctl], token: {{ file: token }}, textfile: drctl.prom }}\n");
    home.write("token", "a-long-secret-token");
    home.write("drctl.yaml", &text.replacen("agent: { listen: none, stop_within: 3s }\n", &agent, 1));
    let now = Timestamp::now().to_string();
    home.ok(&["backup", "now", "--verify", "read-back"]);
    let mut bench = Bench::start(&home, &now).await;
    for _ in 0..2 {
        bench.agent.tick().await;
        bench.agent.settle().await;
    }
    bench.agent.tick().await;
    let ask = move |host: Option<&'static str>, path: &'static str, more: &'static str| {
        let address = address.clone();
        tokio::task::spawn_blocking(move || get(&address, host.unwrap_or(&address), path, more))
    };
    let pages = |path, more| ask(None, path, more);
    let health = pages("/health", "").await.unwrap();
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("\"status\":\"ok\""), "{health}");
    assert!(pages("/health/ready", "").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(ask(Some("drctl:9180"), "/health", "").await.unwrap().starts_with("HTTP/1.1 200"), "a name of agent.hosts");
    assert!(ask(Some("other:9180"), "/health", "").await.unwrap().starts_with("HTTP/1.1 421"));
    let metrics = pages("/metrics", "").await.unwrap();
    assert!(metrics.contains("drctl_up 1") && metrics.contains("drctl_verified_sets{job=\"shop\"} 1"), "{metrics}");
    assert!(metrics.contains("drctl_schedule_expected_interval_seconds{job=\"shop\",source=\"data\"} 86400"), "{metrics}");
    assert!(pages("/api/v1/jobs", "").await.unwrap().starts_with("HTTP/1.1 401"));
    let jobs = pages("/api/v1/jobs", "Authorization: Bearer a-long-secret-token\r\n").await.unwrap();
    assert!(jobs.starts_with("HTTP/1.1 200") && jobs.contains("\"what\":\"full\""), "{jobs}");
    assert!(std::fs::read_to_string(home.path("drctl.prom")).unwrap().contains("drctl_up 1"));
    // What is taken out of the configuration is no longer there.
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &text.replacen(&agent, "agent: { listen: none }\n", 1));
    bench.agent.reload().await;
    bench.agent.tick().await;
    let listens = || async {
        let address = agent.split('"').nth(1).unwrap();
        tokio::net::TcpStream::connect(address).await.is_ok()
    };
    let begun = std::time::Instant::now();
    while listens().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "it still listens");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A record of a newer drctl, as another host may have written it after its update.
fn write_newer_record(home: &Home, job: &str, number: u64) {
    use drctl::catalog::{encoding, keys::MinisignKey, log::record_key};
    let job = job.parse().unwrap();
    let key = MinisignKey::load(&home.path("drctl-keys/signing.key")).unwrap();
    let path = |number| home.path("drctl-repository").join(record_key(&job, number));
    let before = std::fs::read(path(number - 1)).unwrap();
    let genuine: serde_json::Value = serde_json::from_str(encoding::split(&before).unwrap().json().unwrap()).unwrap();
    let json = serde_json::json!({
        "format": 99, "repository": genuine["repository"], "job": job, "number": number,
        "previous": drctl::model::Sha256::of(&before), "key": genuine["key"], "at": "2031-01-01T00:00:00Z",
        "body": { "type": "commit-99" }
    });
    std::fs::write(path(number), encoding::seal(&key, &json.to_string(), &encoding::record_subject(&job, number)).unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_hides_no_other_job() {
    let job = |name: &str| ONE_JOB.replace("jobs:\n", "").replace("shop", name);
    let home = home(&format!("jobs:\n{}{}", job("shop"), job("zoo")));
    home.ok(&["backup", "now"]);
    write_newer_record(&home, "shop", 2);
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    for _ in 0..2 {
        bench.agent.tick().await;
        bench.agent.settle().await;
    }
    bench.agent.tick().await;
    let board = bench.agent.board();
    let (shop, zoo) = (board.job("shop").unwrap(), board.job("zoo").unwrap());
    assert!(shop.log.is_none() && shop.log_problem.as_deref().unwrap().contains("has format 99"), "{:?}", shop.log_problem);
    assert!(zoo.log.as_ref().unwrap().newest_good.is_some() && zoo.log_problem.is_none());
    assert!(bench.alerts().contains(&"alarm:unreadable:shop".to_owned()), "{:?}", bench.alerts());
    assert!(!bench.alerts().contains(&"repository".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_says_what_the_logs_say_and_never_that_nothing_is_there_because_nobody_looked() {
    let home = home(ONE_JOB);
    let hears = Standin::new();
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &format!("notify: [{{ webhook: {{ url: \"{}\" }} }}]\n{text}", hears.url("/")));
    home.ok(&["backup", "now"]);
    let repository = home.path("drctl-repository");
    let digest_of = async |now: &str| {
        let seen = hears.got().len();
        let mut bench = Bench::start(&home, now).await;
        for _ in 0..3 {
            bench.agent.tick().await;
            bench.agent.settle().await;
        }
        bench.agent.deliver().await;
        let messages: Vec<serde_json::Value> = hears.got()[seen..].iter().map(|got| got.json()["message"].clone()).collect();
        messages
            .into_iter()
            .filter(|message| message["what"] == "digest")
            .map(|message| message["lines"].to_string())
            .collect::<Vec<String>>()
    };
    let next_week = |weeks: i64| (Timestamp::now() + jiff::SignedDuration::from_hours(weeks * 7 * 24)).to_string();
    assert_eq!(digest_of(&next_week(0)).await, Vec::<String>::new(), "the first comes at its time");
    let first = digest_of(&next_week(1)).await;
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].contains("newest good set") && first[0].contains("to do: the recovery file was never tried"), "{first:?}");
    // Due again while the repository is away.
    std::fs::rename(&repository, home.path("away")).unwrap();
    let blind = digest_of(&next_week(2)).await;
    assert!(blind.len() == 1 && blind[0].contains("its log could not be read") && !blind[0].contains("NO GOOD SET"), "{blind:?}");
    std::fs::rename(home.path("away"), &repository).unwrap();
    let third = digest_of(&next_week(3)).await;
    assert!(third[0].contains(" %)"), "the size is compared with the last that was known: {third:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_bandwidth_bounds_its_runs() {
    let home = home(ONE_JOB);
    // A megabyte that does not compress.
    let mut state = 1u64;
    let bytes: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    std::fs::write(home.path("data"), bytes).unwrap();
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &text.replacen("listen: none", "listen: none, bandwidth: 512KiB", 1));
    let mut bench = Bench::start(&home, "2027-01-01T01:59:00Z").await;
    bench.clock.step_seconds(61);
    let began = std::time::Instant::now();
    bench.agent.tick().await;
    bench.agent.settle().await;
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!(home.sets().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_fails_is_told_until_one_passes() {
    let home = home(&ONE_JOB.replace("full: \"0 2 * * *\"", "verify: \"* * * * *\""));
    home.ok(&["backup", "now"]);
    let objects = std::fs::read_dir(home.set_folder(&home.newest())).unwrap().map(|entry| entry.unwrap().path());
    let object = objects.filter(|path| path.to_str().unwrap().contains("data.")).min().unwrap();
    let good = std::fs::read(&object).unwrap();
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    for (bytes, code) in [(vec![0; good.len()], Kind::Verify.exit_code()), (good.clone(), 0)] {
        std::fs::write(&object, bytes).unwrap();
        bench.clock.step_seconds(61);
        bench.agent.tick().await;
        bench.agent.settle().await;
        assert_eq!(last(&home, "verify"), Some(RunOutcome::Finished(code)), "{:?}", runs(&home));
        assert_eq!(bench.alerts().contains(&"verify:shop".to_owned()), code != 0, "{:?}", bench.alerts());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_is_refused_is_told_until_one_is_not() {
    let jobs = ONE_JOB
        .replace("full: \"0 2 * * *\"", "prune: \"* * * * *\"")
        .replace("    sources:", "    retention: { keep_last: 1 }\n    sources:");
    let home = home(&jobs);
    for _ in 0..2 {
        home.ok(&["backup", "now", "--verify", "read-back"]);
    }
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    // A clock two hours ahead of the store's, which is then put right.
    for (ahead, code, sets) in [(7200, Kind::Preflight.exit_code(), 2), (0, 0, 1)] {
        bench.clock.set(Timestamp::now());
        bench.clock.step_seconds(ahead);
        bench.agent.tick().await;
        bench.clock.step_seconds(61);
        bench.agent.tick().await;
        bench.agent.settle().await;
        assert_eq!((last(&home, "prune"), home.sets().len()), (Some(RunOutcome::Finished(code)), sets), "{:?}", runs(&home));
        assert_eq!(bench.alerts().contains(&"prune:shop".to_owned()), code != 0, "{:?}", bench.alerts());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_of_the_main_group_leaves_one_with_a_prune_of_its_own_alone() {
    let jobs = ONE_JOB
        .replace("full: \"0 2 * * *\"", "prune: \"* * * * *\"")
        .replace("    sources:", "    retention: { keep_last: 1 }\n    sources:");
    let own = "}, { command: { name: more, run: [cat, data], schedule: { prune: \"0 0 1 1 *\" } } } ]";
    let home = home(&jobs.replace("} ]", own));
    for _ in 0..2 {
        home.ok(&["backup", "now", "--verify", "read-back"]);
    }
    assert_eq!(home.sets().len(), 4);
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    bench.clock.step_seconds(61);
    bench.agent.tick().await;
    bench.agent.settle().await;
    let sets = home.json(&["list"]);
    let sources = |s: &serde_json::Value| s["sources"][0].as_str().unwrap().to_owned();
    let mut sources: Vec<String> = sets["result"]["sets"].as_array().unwrap().iter().map(sources).collect();
    sources.sort_unstable();
    assert_eq!(sources, ["data", "more", "more"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_does_one_thing_at_a_time_four_run_at_once_and_a_restore_comes_first() {
    let slow = ONE_JOB.replace("run: [cat, data]", "run: [sh, -c, \"sleep 1; cat data\"]");
    let twice = slow.replace("} ]", "}, { command: { name: more, run: [cat, data], schedule: { full: \"0 2 * * *\" } } } ]");
    let others: String = ["b", "c", "d", "e"].map(|job| slow.replace("jobs:\n", "").replace("job: shop", &format!("job: {job}"))).concat();
    let home = home(&format!("{twice}{others}"));
    let mut bench = Bench::start(&home, "2027-01-01T01:59:00Z").await;
    let state = StateFile::open(&home.state().join("state.sqlite"), bench.clock.clone()).unwrap();
    let mut note = RestoreNote {
        restore: "r1".into(),
        set: "shop/20250102T020000Z-full-zzzz".parse().unwrap(),
        sources: Vec::new(),
        target: None,
        in_place: false,
        exchange_first: false,
        phase: Phase::Loading,
        process: Process::this(),
        locked: false,
        started_at: bench.clock.now(),
        switched_at: None,
        elapsed_seconds: None,
        identities: Default::default(),
        load_errors: 0,
    };
    note.save(&state).unwrap();
    bench.clock.step_seconds(61);
    bench.agent.tick().await;
    assert_eq!(bench.agent.busy(), 0, "what is due waits for the restore");
    // One of another container: its process is not to be seen here, its lock is.
    note.process = Process { boot: "elsewhere".into(), ..Process::this() };
    note.locked = true;
    let lock = state.hold_restore("r1").unwrap().unwrap();
    note.save(&state).unwrap();
    bench.agent.tick().await;
    assert_eq!(bench.agent.busy(), 0, "f100: what is due waits for the restore");
    drop(lock);
    note.phase = Phase::Finished;
    note.save(&state).unwrap();
    for (busy, ended) in [(4, 4), (2, 6), (0, 6)] {
        bench.agent.tick().await;
        assert_eq!(bench.agent.busy(), busy);
        bench.agent.settle().await;
        let runs = runs(&home);
        assert_eq!((runs.len(), runs.iter().all(|run| run.1 == RunOutcome::Finished(0))), (ended, true), "{runs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f59_what_is_too_old_to_be_made_up_for_is_told_until_a_good_run() {
    let home = home(&ONE_JOB.replace("full: \"0 2 * * *\"", "full: \"0 2 * * *\", catch_up: 1h"));
    let mut bench = Bench::start(&home, "2027-01-01T01:00:00Z").await;
    bench.go("2027-01-01T03:00:00Z", 1800).await;
    drop(bench);
    let missed = |bench: &Bench| bench.alerts().contains(&"missed:shop:main:full".to_owned());
    let mut bench = Bench::start(&home, "2027-01-04T10:00:00Z").await;
    bench.go("2027-01-04T11:00:00Z", 600).await;
    assert_eq!((runs(&home).len(), missed(&bench)), (1, true));
    std::fs::rename(home.path("data"), home.path("gone")).unwrap();
    bench.go("2027-01-05T02:30:00Z", 1800).await;
    assert_eq!((runs(&home).len(), missed(&bench)), (2, true), "one that fails makes up for nothing");
    std::fs::rename(home.path("gone"), home.path("data")).unwrap();
    bench.go("2027-01-06T02:30:00Z", 1800).await;
    assert_eq!((runs(&home).len(), missed(&bench)), (3, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn f60_a_reload_reaches_the_schedule_what_is_remembered_of_it_what_is_late_and_who_is_told() {
    // Each minute at first, with nothing that would run it by then.
    let home = home(&ONE_JOB.replace("0 2 * * *", "0 * * * *"));
    home.ok(&["backup", "now"]);
    let hears = Standin::new();
    let begun = Timestamp::now();
    let at = |minutes: i64| begun.checked_add(jiff::SignedDuration::from_mins(minutes)).unwrap();
    let mut bench = Bench::start(&home, &begun.to_string()).await;
    bench.agent.tick().await;
    bench.agent.settle().await;
    let text = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let yearly = at(-60 * 24).to_zoned(jiff::tz::TimeZone::UTC).strftime("%M %H %d %m *").to_string();
    let notify = format!("notify: [{{ webhook: {{ url: \"{}\", digest: never }} }}]\n", hears.url("/"));
    home.write("drctl.yaml", &format!("{notify}{}", text.replace("0 * * * *", &yearly)));
    bench.look_at_files().await;
    // By the old schedule a backup would have come, and be late.
    bench.go(&at(5 * 60).to_string(), 1800).await;
    assert_eq!(home.sets().len(), 1, "the new schedule is in use");
    assert!(!bench.alerts().contains(&"alarm:rpo:shop".to_owned()), "what is late is so by the new one: {:?}", bench.alerts());
    assert!(titles(&hears.got()).iter().any(|title| title.contains("clocks")), "who is new is told");
    let state = StateFile::open(&home.state().join("state.sqlite"), bench.clock.clone()).unwrap();
    let marks = state.schedule_marks(&bench.agent.config().repository.id).unwrap();
    assert_eq!(marks.iter().map(|mark| mark.schedule.clone()).collect::<Vec<_>>(), [format!("{yearly} UTC")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_cannot_be_read_is_told_and_looked_at_again_soon() {
    let home = home(&ONE_JOB.replace("0 2 * * *", "0 2 1 1 *"));
    home.ok(&["backup", "now"]);
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    let told = |bench: &Bench| bench.alerts().contains(&"repository".to_owned());
    std::fs::rename(home.path("drctl-repository"), home.path("away")).unwrap();
    for there in [false, true] {
        bench.agent.tick().await;
        bench.agent.settle().await;
        bench.agent.tick().await;
        assert_eq!(told(&bench), !there, "{:?}", bench.alerts());
        let _ = std::fs::rename(home.path("away"), home.path("drctl-repository"));
        bench.clock.step_seconds(301);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f57_after_a_clock_went_back_the_agent_looks_at_once() {
    let home = home(&ONE_JOB.replace("0 2 * * *", "0 2 1 1 *"));
    home.ok(&["backup", "now"]);
    let mut bench = Bench::start(&home, &Timestamp::now().to_string()).await;
    for (step, told) in [(0, false), (-2 * 86_400, true)] {
        bench.clock.step_seconds(step);
        bench.agent.tick().await;
        bench.agent.settle().await;
        bench.agent.tick().await;
        assert_eq!(bench.alerts().contains(&"alarm:clock".to_owned()), told, "{:?}", bench.alerts());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_that_die_again_and_again_fail_often_and_one_under_way_does_not() {
    for (deaths, told) in [(1, false), (2, true)] {
        let home = home(ONE_JOB);
        let clock = Arc::new(TestClock::at(Timestamp::now()));
        let state = Arc::new(StateFile::open(&home.state().join("state.sqlite"), clock.clone()).unwrap());
        let run = || state.begin_run("backup", Some("shop")).unwrap();
        for n in 0..10 {
            match n % 5 == 0 && n / 5 < deaths {
                true => drop(run()),
                false => run().finish(0, None).unwrap(),
            }
            state.sweep_interrupted().unwrap();
        }
        let under_way = run();
        let mut bench = Bench::start(&home, &clock.now().to_string()).await;
        bench.agent.tick().await;
        bench.agent.settle().await;
        assert_eq!(bench.alerts().contains(&"alarm:failing:shop".to_owned()), told, "{deaths} of ten");
        under_way.finish(0, None).unwrap();
    }
}
