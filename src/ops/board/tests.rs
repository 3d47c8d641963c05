//! What the board takes from real logs and a real state file.

use std::sync::Arc;

use super::testing::at;
use super::*;
use crate::catalog::testing::{Bed, source_entry};
use crate::catalog::{JobLog, Outcome};
use crate::model::manifest::{SetState, SourceEntry};
use crate::model::record::{Body, Grade, Proof};
use crate::model::{Manifest, SetId, SetKind, TestClock};
use crate::state::StateFile;

fn source(name: &str, as_of: &str, problems: &[&str]) -> SourceEntry {
    SourceEntry { as_of: at(as_of), problems: problems.iter().map(|p| (*p).to_owned()).collect(), ..source_entry(name, "files") }
}

/// A run of a group, its manifest as `change` makes it; the clock goes on by an hour.
async fn backup(bed: &Bed, log: &mut JobLog, group: &str, change: impl FnOnce(&mut Manifest)) -> SetId {
    let run = log.begin_run(SetKind::Full, group).await.unwrap();
    let set = run.set().clone();
    let mut manifest = bed.upload(&run).await;
    manifest.finished_at = manifest.started_at + jiff::SignedDuration::from_secs(90);
    change(&mut manifest);
    assert!(matches!(run.commit(log, manifest, |_| Ok(())).await.unwrap(), Outcome::Committed { .. }));
    bed.hours(1);
    set
}

async fn prove(log: &mut JobLog, set: &SetId, grade: Grade, passed: bool, from: &str, to: &str) {
    let proof =
        Proof { set: set.clone(), grade, passed, findings: Vec::new(), started_at: at(from), finished_at: at(to), store: "main".into() };
    log.append(Body::Proof { proof }).await.unwrap();
}

fn facts(log: &JobLog, groups: &[&str]) -> LogFacts {
    let groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
    LogFacts::of(log.state(), Some(&groups), &Default::default(), 10)
}

#[tokio::test]
async fn a_source_counts_by_the_newest_set_that_holds_all_of_it() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    // 02:00 whole, 03:00 without uploads, 04:00 suspect.
    let whole =
        |m: &mut Manifest| m.sources = vec![source("files", "2025-01-01T01:59:00Z", &[]), source("uploads", "2025-01-01T01:50:00Z", &[])];
    backup(&bed, &mut log, "main", whole).await;
    backup(&bed, &mut log, "main", |m| {
        m.sources = vec![source("files", "2025-01-01T02:59:00Z", &[]), source("uploads", "2025-01-01T02:59:00Z", &["gone"])];
        m.state = SetState::Partial { reasons: vec!["uploads: gone".into()] };
    })
    .await;
    backup(&bed, &mut log, "main", |m| {
        m.sources = vec![source("files", "2025-01-01T03:59:00Z", &[]), source("uploads", "2025-01-01T03:59:00Z", &[])];
        m.state = SetState::Suspect { reasons: vec!["small".into()] };
    })
    .await;
    let facts = facts(&log, &["main"]);
    assert_eq!(facts.sources["files"].last_success, at("2025-01-01T03:01:30Z"));
    assert_eq!(facts.sources["uploads"].last_success, at("2025-01-01T02:01:30Z"));
    assert!(facts.sources["files"].stored_bytes > 0 && facts.sources["files"].plain_bytes == 1);
    assert_eq!(facts.sources["uploads"].stored_bytes, 0, "no artifact is its own");
    // What would be lost counts from the oldest source of the newest good set.
    assert_eq!((facts.as_of, facts.sets), (Some(at("2025-01-01T01:50:00Z")), 3));
    assert_eq!(facts.newest_bad.unwrap().started_at, at("2025-01-01T04:00:00Z"));
    assert_eq!(facts.groups["main"], GroupFacts { started_at: at("2025-01-01T04:00:00Z"), duration_seconds: 90.0 });
    assert_eq!(facts.lines.iter().map(|line| line.state).collect::<Vec<_>>(), ["suspect", "partial", "complete"]);
}

#[tokio::test]
async fn a_group_without_a_good_set_leaves_no_figure_for_what_would_be_lost() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    backup(&bed, &mut log, "main", |_| {}).await;
    let known = facts(&log, &["main", "uploads"]);
    assert_eq!((known.as_of, known.groups_without_good.as_slice()), (None, ["uploads".to_owned()].as_slice()));
    backup(&bed, &mut log, "uploads", |_| {}).await;
    assert_eq!(facts(&log, &["main", "uploads"]).as_of, Some(at("2025-01-01T02:00:00Z")));
}

#[tokio::test]
async fn a_proof_counts_while_it_stands() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let one = backup(&bed, &mut log, "main", |_| {}).await;
    let two = backup(&bed, &mut log, "main", |_| {}).await;
    let verified = |log: &JobLog| {
        let facts = facts(log, &["main"]);
        (facts.verified_at(Grade::ReadBack), facts.verified_at(Grade::Restored), facts.drill.map(|d| d.duration_seconds))
    };
    assert_eq!(verified(&log), (None, None, None));
    prove(&mut log, &one, Grade::ReadBack, true, "2025-01-01T05:00:00Z", "2025-01-01T05:10:00Z").await;
    assert_eq!(verified(&log), (Some(at("2025-01-01T05:10:00Z")), None, None));
    // A drill proves what a reading proves.
    prove(&mut log, &two, Grade::Restored, true, "2025-01-01T06:00:00Z", "2025-01-01T06:05:00Z").await;
    let six = Some(at("2025-01-01T06:05:00Z"));
    assert_eq!(verified(&log), (six, six, Some(300.0)));
    // A later reading failed: what was proven of that set counts no more, nor does it as a set.
    prove(&mut log, &two, Grade::ReadBack, false, "2025-01-01T07:00:00Z", "2025-01-01T07:05:00Z").await;
    assert_eq!(verified(&log), (Some(at("2025-01-01T05:10:00Z")), None, None));
    let facts = facts(&log, &["main"]);
    assert_eq!((facts.newest_good.unwrap().set, facts.newest_bad.unwrap().set, facts.verified_sets), (one, two, 1));
}

#[tokio::test]
async fn what_failed_its_reading_or_was_read_from_a_copy_counts_for_nothing() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let of_files = |m: &mut Manifest| {
        m.sources = vec![
            source("files", "2025-01-01T01:50:00Z", &[]),
            SourceEntry { kind: "drctl".into(), ..source("drctl", "2024-01-01T00:00:00Z", &[]) },
        ];
    };
    let one = backup(&bed, &mut log, "main", of_files).await;
    let two = backup(&bed, &mut log, "main", |m| {
        of_files(m);
        m.stores.push("copy".into());
    })
    .await;
    assert_eq!(facts(&log, &["main"]).as_of, Some(at("2025-01-01T01:50:00Z")), "drctl's own configuration is no work that is lost");
    assert_eq!(facts(&log, &["main"]).sources.keys().collect::<Vec<_>>(), ["files"]);
    assert_eq!(LogFacts::of(log.state(), None, &Default::default(), 1).lines.len(), 1);
    prove(&mut log, &one, Grade::Restored, true, "2025-01-01T05:00:00Z", "2025-01-01T05:10:00Z").await;
    prove(&mut log, &one, Grade::ReadBack, true, "2025-01-01T06:00:00Z", "2025-01-01T06:10:00Z").await;
    prove(&mut log, &two, Grade::ReadBack, true, "2025-01-01T06:20:00Z", "2025-01-01T06:30:00Z").await;
    let proof = Proof {
        set: two.clone(),
        grade: Grade::ReadBack,
        passed: true,
        findings: Vec::new(),
        started_at: at("2025-01-01T07:00:00Z"),
        finished_at: at("2025-01-01T07:10:00Z"),
        store: "copy".into(),
    };
    log.append(Body::Proof { proof }).await.unwrap();
    let known = facts(&log, &["main"]);
    let verified = (known.verified_at(Grade::ReadBack), known.verified_at(Grade::Restored));
    assert_eq!(verified, (Some(at("2025-01-01T06:30:00Z")), Some(at("2025-01-01T05:10:00Z"))), "a reading is no drill");
    prove(&mut log, &two, Grade::ReadBack, false, "2025-01-01T08:00:00Z", "2025-01-01T08:05:00Z").await;
    assert_eq!(facts(&log, &["main"]).sources["files"].last_success, at("2025-01-01T02:01:30Z"), "that of the set before");
}

#[tokio::test]
async fn a_set_that_lacks_something_is_proven_of_nothing() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let partial = |m: &mut Manifest| m.state = SetState::Partial { reasons: vec!["db: gone".into()] };
    let set = backup(&bed, &mut log, "main", partial).await;
    prove(&mut log, &set, Grade::ReadBack, true, "2025-01-01T05:00:00Z", "2025-01-01T05:10:00Z").await;
    let facts = facts(&log, &["main"]);
    assert_eq!((facts.verified_sets, facts.verified_at(Grade::ReadBack)), (0, None));
}

#[tokio::test]
async fn a_log_that_was_tampered_with_is_on_the_board() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    backup(&bed, &mut log, "main", |_| {}).await;
    backup(&bed, &mut log, "main", |_| {}).await;
    bed.store.inner.overwrite(&crate::catalog::log::record_key(&crate::catalog::testing::job(), 1), "garbage".into());
    assert!(!facts(&bed.log().await, &["main"]).findings.is_empty());
}

#[test]
fn runs_are_told_by_job_and_only_what_ended_is_an_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::at(at("2025-01-01T02:00:00Z")));
    let state = Arc::new(StateFile::open(&folder.path().join("state.sqlite"), clock.clone()).unwrap());
    let run = |verb: &str, job: &str, code: u8, seconds: i64, error: Option<&str>| {
        let run = state.begin_run(verb, Some(job)).unwrap();
        clock.step_seconds(seconds);
        run.finish(code, error).unwrap();
    };
    run("backup", "shop", 0, 60, None);
    run("restore", "shop", 0, 95, None);
    run("restore", "shop", 4, 5, Some("refused"));
    run("verify", "shop", 5, 5, None);
    run("backup", "shop", 8, 60, Some("away"));
    run("backup", "other", 0, 60, None);
    let under_way = state.begin_run("backup", Some("shop")).unwrap();
    let all = RunFacts::read(&state).unwrap();
    let shop = &all["shop"];
    assert_eq!((all.len(), shop.restore_seconds), (2, Some(95.0)));
    let attempt = shop.last_attempt.as_ref().unwrap();
    assert_eq!((attempt.exit_code, attempt.error.as_deref()), (Some(8), Some("away")));
    assert!(shop.attempted_at > Some(attempt.started_at), "the one under way has begun");
    assert_eq!((all["other"].last_attempt.as_ref().unwrap().exit_code, all["other"].restore_seconds), (Some(0), None));
    // Its process dies.
    drop(under_way);
    state.sweep_interrupted().unwrap();
    assert_eq!(RunFacts::read(&state).unwrap()["shop"].last_attempt.as_ref().unwrap().exit_code, None);
}

#[test]
fn lines_of_many_jobs_are_bounded_together() {
    assert_eq!([0, 1, 20, 21, 1000, 100_000].map(lines_kept), [1000, 1000, 1000, 952, 20, 1]);
}

#[test]
fn every_notifier_has_a_queue_and_those_that_were_taken_out_too() {
    let waits = QueueState { notifier: "old".into(), waiting: 3, ..QueueState::default() };
    let queues = queues_of(["slack"], &[waits]);
    let told: Vec<(&str, u64)> = queues.iter().map(|q| (q.notifier.as_str(), q.waiting)).collect();
    assert_eq!(told, [("old", 3), ("slack", 0)]);
}

#[tokio::test]
async fn a_job_of_the_configuration_gets_what_is_known_of_it() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    backup(&bed, &mut log, "main", |m| {
        m.sources = vec![source("etc", "2025-01-01T02:00:00Z", &[]), source("gone", "2025-01-01T02:00:00Z", &[])]
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let text = r#"
repository:
  id: shop-7k3q
  root_key: RWR3cBpllPzfHE/HcwpCzx0LtLbYTVuI6FSpV6SdSJzNM53mU1tJlsq/
  stores: [{ name: main, local: { path: store } }]
  recipients: [age17et55u4d4df3aee5pafa5cs4ahcwfrl507ultujwu3a9ntsk34xs7r78nm]
  identity: keys/identity
  signing_key: keys/signing
jobs:
  - job: shop
    sources:
      - files: { name: etc, paths: [/etc] }
      - files: { name: uploads, paths: [/srv], schedule: { full: "0 2 * * *" } }
    objectives: { rpo: 1h, verified_within: 2d }
  - job: idle
    sources: [files: { name: etc, paths: [/etc] }]
"#;
    let path = folder.path().join("drctl.yaml");
    std::fs::write(&path, text).unwrap();
    let environment = crate::config::Environment::of(folder.path(), [("HOME", "/nonexistent")]);
    let mut options = crate::config::LoadOptions::new(environment);
    (options.config, options.look_at_files) = (Some(path), false);
    let config = crate::config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));

    let logs = BTreeMap::from([("shop".parse().unwrap(), Arc::new(facts(&log, &["main", "uploads"])))]);
    let mut board = Board::new("web-1", at("2025-01-01T02:00:00Z"));
    board.jobs = jobs_of(&config, &logs, &BTreeMap::new());
    board.jobs[0].expect("uploads", Some(86_400));
    board.judge(at("2025-01-01T04:00:00Z"));
    let (shop, idle) = (&board.jobs[0], &board.jobs[1]);
    assert_eq!((shop.job.as_str(), shop.groups.as_slice()), ("shop", ["main".to_owned(), "uploads".into()].as_slice()));
    let told: Vec<_> =
        shop.sources.iter().map(|s| (s.name.as_str(), s.group.as_str(), s.last_success.is_some(), s.expected_interval_seconds)).collect();
    // A source that was taken out is not shown, though sets still hold it.
    assert_eq!(told, [("etc", "main", true, None), ("uploads", "uploads", false, Some(86_400))]);
    assert_eq!((shop.objectives.rpo_seconds, shop.objectives.verified_within_seconds), (Some(3600), Some(2 * 86_400)));
    let alarms: Vec<(&str, &str)> = shop.alarms.iter().map(|alarm| (alarm.text.as_str(), alarm.next.as_str())).collect();
    let told = [("there is no good set of group uploads", "drctl backup now shop"), ("never verified", "drctl verify --job shop")];
    assert_eq!(alarms, told);
    assert_eq!(shop.rpo_seconds, None, "a group has none");
    assert!(idle.log.is_none() && idle.alarms.is_empty() && idle.runs == RunFacts::default());
    // Where there is no set yet, that is what is told.
    board.jobs[0].log = Some(Arc::new(facts(&Bed::new().await.log().await, &["main"])));
    board.judge(at("2025-01-01T04:00:00Z"));
    let alarms: Vec<&str> = board.jobs[0].alarms.iter().map(|alarm| alarm.text.as_str()).filter(|text| text.contains("verif")).collect();
    assert_eq!(alarms, [""; 0]);
}

#[tokio::test]
async fn what_is_usual_is_the_size_of_the_newest_good_sets() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let mut sizes = Vec::new();
    for n in 0..10 {
        backup(&bed, &mut log, "main", |manifest| {
            if n == 2 {
                manifest.state = SetState::Partial { reasons: vec!["db: gone".into()] };
            }
        })
        .await;
        sizes.push(facts(&log, &["main"]).sizes["main"].len());
    }
    assert_eq!(sizes, [1, 2, 2, 3, 4, 5, 6, 7, 8, 8]);
}

#[tokio::test]
async fn what_somebody_looked_at_is_told_no_more() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    for _ in 0..2 {
        backup(&bed, &mut log, "main", |_| ()).await;
    }
    bed.store.inner.overwrite(&crate::catalog::log::record_key(&crate::catalog::testing::job(), 2), "garbage".into());
    let mut log = bed.log().await;
    assert!(!facts(&log, &["main"]).findings.is_empty());
    crate::catalog::checkpoint::acknowledge(&mut log).await.unwrap();
    assert_eq!(facts(&bed.log().await, &["main"]).findings, [""; 0]);
}
