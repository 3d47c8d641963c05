//! What a run does when its source, its store or its host fails: no record for a broken set, nothing stored earlier harmed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/scripted.rs"]
mod scripted;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use drctl::error::Kind;
use drctl::model::record::Grade;
use drctl::model::{SystemClock, Timestamp};
use drctl::observe::Event;
use drctl::ops::backup::{BackupOptions, backup};
use drctl::ops::restore::journal::{Phase, RestoreNote};
use drctl::ops::verify::verify;
use drctl::pipeline::seal::Sealing;
use drctl::pipeline::split::Sink;
use drctl::state::{Process, StateFile};
use drctl::store::faulty::{Fault, FaultyStore, Operation, When};
use drctl::store::memory::MemoryStore;
use scripted::{Act, Scripted, World};

fn all() -> BackupOptions {
    BackupOptions::default()
}

/// A good set first, so that every fault can be seen to leave it alone.
async fn world_with_a_good_set() -> (World, drctl::model::SetId) {
    let world = World::new().await;
    let report = backup(&world.setup, &world.job([Arc::new(Scripted::new("s", [Act::Good(300_000)]))]), &all()).await.unwrap();
    assert_eq!(report.state, "complete");
    (world, report.set)
}

async fn assert_untouched(world: &World, good: &drctl::model::SetId, commits: usize) {
    let mut log = world.setup.log(good.job()).await.unwrap();
    assert_eq!(log.state().live().count(), commits, "sets in the log");
    assert!(log.state().findings().is_empty(), "{:?}", log.state().findings());
    let verified = verify(&world.setup, &mut log, good, Grade::ReadBack).await.unwrap();
    assert!(verified.passed, "{:?}", verified.findings);
    let committed: Vec<String> = log.state().live().map(|e| e.id().prefix()).collect();
    for key in world.keys("sets/").await {
        assert!(committed.iter().any(|prefix| key.starts_with(prefix)), "{key} was left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f26_a_dump_that_fails_after_all_its_output_voids_the_set() {
    let (world, good) = world_with_a_good_set().await;
    let broken = Arc::new(Scripted::new("s", [Act::DieAfter(3_000_000, Kind::Failed)]));
    let error = backup(&world.setup, &world.job([broken.clone()]), &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.to_string().contains("out of cheese"), "{error}");
    assert_eq!(broken.opened.load(Ordering::SeqCst), 1, "what cannot be retried is not");
    assert_untouched(&world, &good, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f26_an_exit_status_is_looked_at_again_by_the_run() {
    let (world, good) = world_with_a_good_set().await;
    let error = backup(&world.setup, &world.job([Arc::new(Scripted::new("s", [Act::Exit(1000, 1)]))]), &all()).await.unwrap_err();
    assert!(error.to_string().contains("exited 1"), "{error}");
    assert_untouched(&world, &good, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f28_fewer_things_than_the_catalogue_promised_void_the_artifact() {
    let (world, good) = world_with_a_good_set().await;
    let source = Arc::new(Scripted::new("s", [Act::Promise(1000, "tables", 7)]));
    let error = backup(&world.setup, &world.job([source]), &all()).await.unwrap_err();
    assert!(error.to_string().contains("0 tables, the source said 7"), "{error}");
    assert_untouched(&world, &good, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f39_a_source_that_is_down_is_tried_again_and_then_the_others_still_run() {
    let (world, good) = world_with_a_good_set().await;
    let down = Arc::new(Scripted::new("down", [Act::Good(10)]));
    down.unreachable.store(100, Ordering::SeqCst);
    let up = Arc::new(Scripted::new("up", [Act::Good(500_000)]));
    let report = backup(&world.setup, &world.job([down.clone(), up]), &all()).await.unwrap();
    assert_eq!(report.state, "partial");
    assert!(report.problems[0].contains("down: nobody answers"), "{:?}", report.problems);
    assert_eq!(100 - down.unreachable.load(Ordering::SeqCst), 3, "tries");
    assert_untouched(&world, &good, 2).await;
    // And alone: exit 8, no set.
    let error = backup(&world.setup, &world.job([down]), &all()).await.unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (Kind::Unreachable, Some("start it")));
    assert_untouched(&world, &good, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f39_a_source_that_comes_back_within_the_window_is_backed_up() {
    let world = World::new().await;
    let slow = Arc::new(Scripted::new("slow", [Act::Good(10)]));
    slow.unreachable.store(1, Ordering::SeqCst);
    assert_eq!(backup(&world.setup, &world.job([slow]), &all()).await.unwrap().state, "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn f40_a_dump_cut_off_by_a_restart_is_dumped_once_more_from_the_start() {
    let (world, good) = world_with_a_good_set().await;
    let restarted = Arc::new(Scripted::new("s", [Act::DieAfter(2_000_000, Kind::Unreachable), Act::Good(2_500_000)]));
    let report = backup(&world.setup, &world.job([restarted.clone()]), &all()).await.unwrap();
    assert_eq!((report.state, restarted.opened.load(Ordering::SeqCst)), ("complete", 2));
    assert!(world.heard.0.lock().unwrap().iter().any(|e| matches!(e, Event::Retry { .. })));
    assert_untouched(&world, &report.set, 2).await;
    // Twice cut off is an error.
    let dead = Arc::new(Scripted::new("s", [Act::DieAfter(2_000_000, Kind::Unreachable)]));
    assert_eq!(backup(&world.setup, &world.job([dead.clone()]), &all()).await.unwrap_err().kind(), Kind::Unreachable);
    assert_eq!(dead.opened.load(Ordering::SeqCst), 2);
    assert_untouched(&world, &good, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f55_each_manifest_carries_the_number_of_the_lease_under_which_it_was_made() {
    let (world, good) = world_with_a_good_set().await;
    let job = world.job([Arc::new(Scripted::new("s", [Act::Good(1)]))]);
    let next = backup(&world.setup, &job, &all()).await.unwrap().set;
    let log = world.setup.log(good.job()).await.unwrap();
    let epoch = |set: &drctl::model::SetId| log.state().get(set).unwrap().manifest.lease_epoch.unwrap();
    assert!(0 < epoch(&good) && epoch(&good) < epoch(&next), "{} {}", epoch(&good), epoch(&next));
}

#[tokio::test(flavor = "multi_thread")]
async fn f8_a_cancelled_run_leaves_no_record_no_object_and_gives_the_lease_back() {
    let (mut world, good) = world_with_a_good_set().await;
    // By then an artifact is whole, and of the next one some objects are.
    world.setup.object_bytes = 1 << 20;
    let hanging = Arc::new(Scripted::new("s", [Act::HangAfter(20_000_000)]));
    let (cancel, job) = (world.setup.cancel.clone(), world.job([Arc::new(Scripted::new("first", [Act::Good(10)])), hanging]));
    let stop = async {
        while !world.keys("sets/").await.iter().any(|key| key.contains("/s.a.raw") && key.ends_with(".002")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(world.keys("sets/").await.iter().any(|key| key.contains("/first.a.raw")));
        cancel.cancel();
    };
    let options = all();
    let both = async { tokio::join!(backup(&world.setup, &job, &options), stop) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(120), both).await.expect("the run does not end");
    assert_eq!(result.unwrap_err().kind(), Kind::Interrupted);
    let world = World { setup: drctl::ops::Setup { cancel: Default::default(), ..world.setup }, ..world };
    assert_untouched(&world, &good, 1).await;
    // The lease is free again at once.
    assert!(backup(&world.setup, &world.job([Arc::new(Scripted::new("s", [Act::Good(1)]))]), &all()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_a_panic_in_a_source_is_an_error_of_its_run_and_gives_the_lease_back() {
    let (world, good) = world_with_a_good_set().await;
    let job = world.job([Arc::new(Scripted::new("s", [Act::Panic]))]);
    let error = backup(&world.setup, &job, &all()).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (Kind::Failed, 1), "{error}");
    assert!(error.to_string().contains("the backup of shop broke down: scripted panic"), "{error}");
    assert!(error.hint_text().is_some());
    assert_untouched(&world, &good, 1).await;
    // Nobody has to wait for the lease of the run that broke.
    let report = backup(&world.setup, &world.job([Arc::new(Scripted::new("s", [Act::Good(1)]))]), &all()).await.unwrap();
    assert_eq!(report.state, "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn f40_a_retry_that_meets_another_server_is_void_and_names_both() {
    let (world, good) = world_with_a_good_set().await;
    let mut source = Scripted::new("s", [Act::DieAfter(2_000_000, Kind::Unreachable), Act::Good(2_500_000)]);
    source.answers = vec!["7301", "9902"].into();
    let source = Arc::new(source);
    let error = backup(&world.setup, &world.job([source.clone()]), &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.to_string().contains("it began with who 7301, now there is who 9902"), "{error}");
    assert!(error.hint_text().is_some());
    assert_eq!(source.acts.lock().unwrap().len(), 1, "the other one was not dumped");
    assert_untouched(&world, &good, 1).await;
}

/// A source to which sets are bound, answered for by `who`.
fn bound(who: &'static str, act: Act) -> Arc<Scripted> {
    let mut source = Scripted::new("s", [act]);
    source.bound = true;
    source.answers = vec![who].into();
    Arc::new(source)
}

fn accepting() -> BackupOptions {
    BackupOptions { accept_new_identity: vec!["s".into()], ..BackupOptions::default() }
}

/// What a person accepted and what then could not be dumped is in no set: the sets still hold the one before.
#[tokio::test(flavor = "multi_thread")]
async fn i11_another_one_that_was_accepted_but_not_dumped_is_still_another() {
    let world = World::new().await;
    let with = |source| world.job([source, Arc::new(Scripted::new("other", [Act::Good(10)]))]);
    assert_eq!(backup(&world.setup, &with(bound("7301", Act::Good(10))), &all()).await.unwrap().state, "complete");
    let died = backup(&world.setup, &with(bound("9902", Act::DieAfter(10, Kind::Failed))), &accepting()).await.unwrap();
    assert!(died.state == "partial" && died.warnings[0].contains("accepted from now on"), "{died:?}");
    let refused = backup(&world.setup, &with(bound("9902", Act::Good(10))), &all()).await.unwrap();
    assert!(refused.problems[0].contains("who 9902 now, 7301 when it was last backed up"), "{:?}", refused.problems);
    assert_eq!(backup(&world.setup, &with(bound("7301", Act::Good(10))), &all()).await.unwrap().state, "complete");
    assert_eq!(backup(&world.setup, &with(bound("9902", Act::Good(10))), &accepting()).await.unwrap().state, "complete");
    assert_eq!(backup(&world.setup, &with(bound("9902", Act::Good(10))), &all()).await.unwrap().state, "complete");
}

/// Only a restore of this job that took place, and not at a target, says that another one is meant.
#[tokio::test(flavor = "multi_thread")]
async fn i11_of_restores_only_one_that_took_place_makes_another_one_known() {
    let mut world = World::new().await;
    let set = backup(&world.setup, &world.job([bound("7301", Act::Good(10))]), &all()).await.unwrap().set;
    let folder = tempfile::tempdir().unwrap();
    let state = Arc::new(StateFile::open(&folder.path().join("state.sqlite"), Arc::new(SystemClock)).unwrap());
    world.setup.state = Some(state.clone());
    let took_place = RestoreNote {
        restore: "7k3q9xyz".into(),
        set: set.clone(),
        sources: vec![("s".into(), "command".into())],
        target: None,
        in_place: false,
        exchange_first: false,
        phase: Phase::Switched,
        process: Process::this(),
        locked: false,
        started_at: Timestamp::now(),
        switched_at: None,
        elapsed_seconds: None,
        identities: [("s".to_owned(), [("who".to_owned(), "9902".to_owned())].into())].into(),
        load_errors: 0,
    };
    let elsewhere = [("t".to_owned(), took_place.identities["s"].clone())].into();
    let not_it = [
        RestoreNote { target: Some("postgres://h/x".into()), ..took_place.clone() },
        RestoreNote { set: set.to_string().replacen("shop/", "other/", 1).parse().unwrap(), ..took_place.clone() },
        RestoreNote { identities: elsewhere, ..took_place.clone() },
        RestoreNote { phase: Phase::Loading, ..took_place.clone() },
        RestoreNote { phase: Phase::Switching, ..took_place.clone() },
        RestoreNote { phase: Phase::InPlace, ..took_place.clone() },
        RestoreNote { phase: Phase::Undone, ..took_place.clone() },
        RestoreNote { phase: Phase::Discarded, ..took_place.clone() },
    ];
    for note in not_it {
        note.save(&state).unwrap();
        let refused = backup(&world.setup, &world.job([bound("9902", Act::Good(10))]), &all()).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Preflight, "{note:?}: {refused}");
    }
    took_place.save(&state).unwrap();
    let report = backup(&world.setup, &world.job([bound("9902", Act::Good(10))]), &all()).await.unwrap();
    assert!(report.warnings[0].contains("restore 7k3q9xyz put the data there"), "{:?}", report.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn f12_a_full_store_gives_its_own_error_and_leaves_nothing() {
    let (world, good) = world_with_a_good_set().await;
    world.store.rule(Operation::Put, "*/sets/*", When::Always, Fault::FailAfterBytes(1_000_000, Kind::Full));
    let error = backup(&world.setup, &world.job([Arc::new(Scripted::new("s", [Act::Good(60_000_000)]))]), &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Full, "{error}");
    world.store.clear();
    assert_untouched(&world, &good, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f12_a_store_that_fails_while_the_source_is_silent_ends_the_run() {
    let (world, good) = world_with_a_good_set().await;
    world.store.rule(Operation::Put, "*/sets/*", When::Always, Fault::FailAfterBytes(1_000_000, Kind::Full));
    let job = world.job([Arc::new(Scripted::new("s", [Act::HangAfter(9_000_000)]))]);
    let options = all();
    let ended = tokio::time::timeout(Duration::from_secs(120), backup(&world.setup, &job, &options)).await;
    assert_eq!(ended.expect("the run hangs").unwrap_err().kind(), Kind::Full);
    world.store.clear();
    assert_untouched(&world, &good, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_store_gets_every_object_and_one_that_fails_voids_the_set() {
    let (mut world, good) = world_with_a_good_set().await;
    let second = Arc::new(MemoryStore::default());
    let spoilt = Arc::new(FaultyStore::new(second.clone()));
    world.setup.sinks.push(Sink::new("second", spoilt.clone()));
    let job = world.job([Arc::new(Scripted::new("s", [Act::Good(2_000_000)]))]);
    let report = backup(&world.setup, &job, &all()).await.unwrap();
    let mut here = world.keys(&report.set.prefix()["jobs/shop/".len()..]).await;
    let there = drctl::store::whole::list_all(second.as_ref(), &report.set.prefix()).await.unwrap();
    here.sort();
    assert_eq!(here, there.into_iter().map(|e| e.key).collect::<Vec<_>>());

    spoilt.rule(Operation::Put, "*details*", When::Always, Fault::Fail(Kind::Denied));
    let error = backup(&world.setup, &job, &all()).await.unwrap_err();
    assert!(error.to_string().contains("'second'"), "{error}");
    spoilt.clear();
    assert_untouched(&world, &good, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_keeps_less_than_it_says_is_found_before_the_commit() {
    let (world, good) = world_with_a_good_set().await;
    world.store.rule(Operation::Put, "*/s.a.raw*", When::Always, Fault::Truncate(1000));
    let error = backup(&world.setup, &world.job([Arc::new(Scripted::new("s", [Act::Good(2_000_000)]))]), &all()).await.unwrap_err();
    assert!(error.to_string().contains("holds 1000 bytes"), "{error}");
    assert_untouched(&world, &good, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_a_commit_whose_answer_is_lost_for_good_deletes_nothing() {
    let (mut world, good) = world_with_a_good_set().await;
    #[derive(Clone)]
    struct Never;
    #[async_trait::async_trait]
    impl drctl::catalog::Pause for Never {
        async fn before_retry(&self, _: u32) -> bool {
            false
        }
    }
    let env = drctl::catalog::Env { pause: Arc::new(Never), ..drctl::catalog::Env::default() };
    let repository = drctl::catalog::Repository::open(world.store.clone(), env, &drctl::catalog::Trust::OnFirstUse).await.unwrap();
    world.setup.repository = repository;
    // The record arrives, its answer does not, and from then on nobody answers at all.
    struct Silence(Arc<FaultyStore>, String);
    impl drctl::observe::Observer for Silence {
        fn observe(&self, event: &Event) {
            if matches!(event, Event::Step { text } if text == "committing") {
                self.0.rule(Operation::Put, &self.1, When::Always, Fault::LoseAnswer(Kind::Unreachable));
                self.0.rule(Operation::Get, &self.1, When::Always, Fault::Fail(Kind::Unreachable));
                // The first is the look before the record is sent.
                self.0.rule(Operation::Head, &self.1, When::From(2), Fault::Fail(Kind::Unreachable));
            }
        }
    }
    let head = world.setup.log(good.job()).await.unwrap().head();
    let record = format!("jobs/shop/log/{:010}.signed", head + 1);
    world.setup.bus.subscribe(Arc::new(Silence(world.store.clone(), record)));
    let error = backup(&world.setup, &world.job([Arc::new(Scripted::new("s", [Act::Good(2_000_000)]))]), &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::OutcomeUnknown, "{error}");
    assert_eq!(error.kind().exit_code(), 8);
    world.store.clear();
    assert_untouched(&world, &good, 2).await;
}

/// The state folder is full just after a commit was noted: the note cannot be struck off, then or by the runs that follow.
#[tokio::test(flavor = "multi_thread")]
async fn f13_a_note_of_a_commit_that_cannot_be_struck_off_stops_no_backup() {
    let (mut world, good) = world_with_a_good_set().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite");
    world.setup.state = Some(Arc::new(StateFile::open(&path, Arc::new(SystemClock)).unwrap()));
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TRIGGER full BEFORE UPDATE ON settings BEGIN SELECT RAISE(ABORT, 'disk is full'); END").unwrap();
    for sets in 2..=4 {
        let source = Arc::new(Scripted::new("s", [Act::Good(300_000)]));
        assert_eq!(backup(&world.setup, &world.job([source]), &all()).await.unwrap().state, "complete");
        assert_untouched(&world, &good, sets).await;
    }
    // Nor can it be read.
    other.execute_batch("DROP TRIGGER full; ALTER TABLE settings RENAME COLUMN value TO other").unwrap();
    let source = Arc::new(Scripted::new("s", [Act::Good(300_000)]));
    assert_eq!(backup(&world.setup, &world.job([source]), &all()).await.unwrap().state, "complete");
    assert_untouched(&world, &good, 5).await;
}

/// Who cannot reach a store knows nothing of damage: no proof is written, wherever in the artifact it happens.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_reached_in_a_verification_proves_nothing() {
    let (world, good) = world_with_a_good_set().await;
    for object in ["*/s.a.raw*", "*details*", "*/RESTORE.md"] {
        for when in [When::Always, When::From(2)] {
            // Small ones are read at one go.
            if !object.contains("s.a.raw") && matches!(when, When::From(_)) {
                continue;
            }
            world.store.rule(Operation::Get, object, when, Fault::Fail(Kind::Unreachable));
            let mut log = world.setup.log(good.job()).await.unwrap();
            let before = log.head();
            let error = verify(&world.setup, &mut log, &good, Grade::ReadBack).await.expect_err(object);
            assert_eq!(error.kind(), Kind::Unreachable, "{object}: {error}");
            world.store.clear();
            let log = world.setup.log(good.job()).await.unwrap();
            let entry = log.state().get(&good).unwrap();
            assert!(entry.is_good() && entry.proofs.is_empty(), "{object}: {} records since {before}", log.head());
        }
    }
    assert_untouched(&world, &good, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f54_a_second_run_of_the_job_is_told_who_holds_it() {
    let (world, good) = world_with_a_good_set().await;
    let source = Arc::new(Scripted::new("s", [Act::HangAfter(1_000)]));
    let hanging = world.job([source.clone()]);
    let first = {
        let setup = world.setup.clone();
        tokio::spawn(async move { backup(&setup, &hanging, &BackupOptions::default()).await.map(drop) })
    };
    while source.opened.load(Ordering::SeqCst) == 0 {
        assert!(!first.is_finished());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let setup = drctl::ops::Setup { cancel: Default::default(), ..world.setup.clone() };
    let error = backup(&setup, &world.job([Arc::new(Scripted::new("s", [Act::Good(1)]))]), &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Locked, "{error}");
    assert!(error.to_string().contains("localhost"), "{error}");
    world.setup.cancel.cancel();
    assert!(first.await.unwrap().is_err());
    let world = World { setup, ..world };
    assert_untouched(&world, &good, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_by_nature_are_refused_without_encryption_unless_allowed() {
    let mut world = World::new().await;
    world.setup.sealing = Sealing::None;
    let secret = || {
        let mut source = Scripted::new("env", [Act::Good(10)]);
        source.secret = true;
        Arc::new(source)
    };
    let error = backup(&world.setup, &world.job([secret()]), &all()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config, "{error}");
    let mut job = world.job([secret()]);
    job.sources[0].allow_plaintext = true;
    assert_eq!(backup(&world.setup, &job, &all()).await.unwrap().state, "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_problems_of_its_own_makes_the_set_partial() {
    let world = World::new().await;
    let mut source = Scripted::new("files", [Act::Good(10)]);
    source.problems = vec!["/data/x: permission denied".into()];
    let report = backup(&world.setup, &world.job([Arc::new(source)]), &all()).await.unwrap();
    assert_eq!((report.state, report.problems.as_slice()), ("partial", &["files: /data/x: permission denied".to_owned()][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_named_sources_run_and_an_unknown_one_is_a_usage_error() {
    let world = World::new().await;
    let job = world.job([Arc::new(Scripted::new("a", [Act::Good(1)])), Arc::new(Scripted::new("b", [Act::Good(1)]))]);
    let only = BackupOptions { sources: vec!["b".into()], ..BackupOptions::default() };
    let report = backup(&world.setup, &job, &only).await.unwrap();
    assert!(report.artifacts.iter().any(|a| a.file.starts_with("b.")) && !report.artifacts.iter().any(|a| a.file.starts_with("a.")));
    let unknown = BackupOptions { sources: vec!["c".into()], ..BackupOptions::default() };
    let error = backup(&world.setup, &job, &unknown).await.unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (Kind::Usage, Some("its sources are: a, b")));
}
