//! Several stores in one run (FORMAT rules 11 and 17): what each holds after a run, after a failure, after a delete.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "support/scripted.rs"]
mod scripted;

use std::sync::Arc;
use std::time::Duration;

use drctl::catalog::{Env, JobLog, Repository, Trust, retire};
use drctl::config::typed::Retention;
use drctl::error::Kind;
use drctl::model::SetId;
use drctl::model::record::Grade;
use drctl::observe::Event;
use drctl::ops::Setup;
use drctl::ops::backup::{BackupOptions, BackupReport, backup};
use drctl::ops::prune::{GroupPolicy, PruneOptions, PrunePolicy, prune};
use drctl::ops::verify::verify;
use drctl::ops::{copies, pins};
use drctl::pipeline::split::Sink;
use drctl::store::faulty::{Fault, FaultyStore, Operation, When};
use drctl::store::memory::MemoryStore;
use drctl::store::{DynStore, whole};
use jiff::tz::TimeZone;
use scripted::{Act, Scripted, World};

/// A world with a second store, required or optional.
struct Two {
    world: World,
    memory: Arc<MemoryStore>,
    second: Arc<FaultyStore>,
}

impl Two {
    async fn new(optional: bool) -> Two {
        let mut world = World::new().await;
        let memory = Arc::new(MemoryStore::default());
        let second = Arc::new(FaultyStore::new(memory.clone()));
        let sink = Sink::new("second", second.clone());
        world.setup.sinks.push(if optional { sink.optional() } else { sink });
        Two { world, memory, second }
    }

    async fn run(&self, act: Act) -> drctl::error::Result<BackupReport> {
        backup(&self.world.setup, &self.world.job([Arc::new(Scripted::new("s", [act]))]), &BackupOptions::default()).await
    }

    async fn good(&self) -> SetId {
        let report = self.run(Act::Good(2_000_000)).await.unwrap();
        assert_eq!(report.state, "complete");
        report.set
    }

    /// Keys below `sets/` in the second store.
    async fn there(&self, below: &str) -> Vec<String> {
        let listed = whole::list_all(&*self.memory, below).await.unwrap();
        listed.into_iter().map(|entry| entry.key).collect()
    }

    async fn here(&self, below: &str) -> Vec<String> {
        let listed = whole::list_all(&*self.world.memory, below).await.unwrap();
        listed.into_iter().map(|entry| entry.key).collect()
    }

    async fn log(&self) -> JobLog {
        self.world.setup.log(&"shop".parse().unwrap()).await.unwrap()
    }

    async fn records_behind(&self) -> u64 {
        copies::status(&self.world.setup, &self.log().await).await[0].records_behind.unwrap()
    }

    fn warnings(&self) -> String {
        let heard = self.world.heard.0.lock().unwrap();
        let texts = heard.iter().filter_map(|event| match event {
            Event::Warning { text } => Some(text.clone()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// A host that has nothing but the second store.
    async fn reader(&self) -> Setup {
        let store: DynStore = self.memory.clone();
        let repository = Repository::open(store.clone(), Env::default(), &Trust::OnFirstUse).await.unwrap();
        let mut setup = Setup::new(repository, vec![Sink::new("repo", store)], self.world.setup.sealing.clone());
        setup.identities = self.world.setup.identities.clone();
        setup
    }

    async fn stores_of(&self, set: &SetId) -> Vec<String> {
        self.log().await.state().get(set).unwrap().manifest.stores.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_copy_has_every_object_and_every_record_and_is_enough_to_read_from() {
    let two = Two::new(false).await;
    let set = two.good().await;
    assert_eq!(two.here("jobs/shop/sets/").await, two.there("jobs/shop/sets/").await);
    assert_eq!(two.here("jobs/shop/log/").await, two.there("jobs/shop/log/").await);
    assert_eq!((two.records_behind().await, two.stores_of(&set).await), (0, vec!["first".to_owned(), "second".to_owned()]));
    // Read without the first store, and without a key to write with.
    let reader = two.reader().await;
    let mut log = reader.log(set.job()).await.unwrap();
    assert!(log.state().findings().is_empty());
    assert!(verify(&reader, &mut log, &set, Grade::ReadBack).await.unwrap().passed);
    assert_eq!(two.there("jobs/shop/log/").await.len(), 1, "a reader of a copy writes nothing there");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_copy_that_takes_no_records_lags_and_the_next_run_makes_it_good() {
    let two = Two::new(false).await;
    two.good().await;
    two.second.rule(Operation::Put, "*/log/*", When::First(1), Fault::Fail(Kind::Unreachable));
    let set = two.good().await;
    assert!(two.warnings().contains("the newest records are not in store 'second' yet"), "{}", two.warnings());
    assert_eq!(two.stores_of(&set).await.len(), 2, "its objects are there");
    assert_eq!(two.records_behind().await, 1);
    two.good().await;
    assert_eq!(two.records_behind().await, 0);
    assert_eq!(two.here("jobs/shop/").await.iter().filter(|k| !k.contains("/lease/")).count(), two.there("jobs/shop/").await.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_required_store_that_fails_in_mid_run_fails_it_and_nothing_stays_anywhere() {
    let two = Two::new(false).await;
    let good = two.good().await;
    two.second.rule(Operation::Put, "*/sets/*", When::Always, Fault::FailAfterBytes(1_000_000, Kind::Full));
    let error = two.run(Act::Good(9_000_000)).await.unwrap_err();
    assert!(error.kind() == Kind::Full && error.to_string().contains("'second'"), "{error}");
    let own = good.prefix();
    assert!(two.here("jobs/shop/sets/").await.iter().chain(&two.there("jobs/shop/sets/").await).all(|key| key.starts_with(&own)));
    // One that is down is found out before anything is dumped, with the exit code of the first.
    two.second.clear();
    two.second.rule(None, "*", When::Always, Fault::Fail(Kind::Unreachable));
    let source = Arc::new(Scripted::new("s", [Act::Good(10)]));
    let error = backup(&two.world.setup, &two.world.job([source.clone()]), &BackupOptions::default()).await.unwrap_err();
    assert_eq!((error.kind().exit_code(), source.opened.load(std::sync::atomic::Ordering::SeqCst)), (8, 0), "{error}");
    assert_eq!(two.log().await.head(), 1);
    two.second.clear();
    two.good().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_required_store_that_kept_less_than_it_said_is_found_before_the_commit() {
    let two = Two::new(false).await;
    two.good().await;
    two.second.rule(Operation::Put, "*/s.a.raw*", When::Always, Fault::Truncate(1000));
    let error = two.run(Act::Good(2_000_000)).await.unwrap_err();
    assert!(error.to_string().contains("'second' holds 1000 bytes"), "{error}");
    assert_eq!(two.log().await.head(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_an_optional_store_is_given_up_in_mid_run_and_the_set_goes_on() {
    // In the middle of an object, at its end, at the start, at the look before the commit, at the last small object.
    let faults = [
        (Operation::Put, "*/s.a.raw*", Fault::FailAfterBytes(1_000_000, Kind::Full)),
        (Operation::Put, "*/s.a.raw*", Fault::LoseAnswer(Kind::Full)),
        (Operation::List, "*", Fault::Fail(Kind::Denied)),
        (Operation::Head, "*/details*", Fault::Fail(Kind::Denied)),
        (Operation::Put, "*/s.a.raw*", Fault::Truncate(1000)),
        (Operation::Put, "*/RESTORE.md", Fault::Fail(Kind::Full)),
    ];
    for (operation, pattern, fault) in faults {
        let two = Two::new(true).await;
        let before = two.good().await;
        assert_eq!(two.stores_of(&before).await.len(), 2);
        two.second.rule(operation, pattern, When::Always, fault.clone());
        let report = two.run(Act::Good(9_000_000)).await.unwrap();
        assert_eq!((report.state, report.stores.as_slice()), ("complete", &["first".to_owned()][..]), "{fault:?}");
        assert_eq!(two.stores_of(&report.set).await, ["first"], "{fault:?}");
        assert_eq!(two.warnings().matches("goes on without the optional store 'second'").count(), 1, "{fault:?}: {}", two.warnings());
        assert_eq!(two.there(&report.set.prefix()).await, Vec::<String>::new(), "{fault:?}: whole or not at all");
        let mut log = two.log().await;
        assert!(verify(&two.world.setup, &mut log, &report.set, Grade::ReadBack).await.unwrap().passed);
        // The next run takes it in again, with the records it missed.
        two.second.clear();
        let after = two.good().await;
        assert_eq!((two.stores_of(&after).await.len(), two.records_behind().await), (2, 0), "{fault:?}");
        let status = copies::status(&two.world.setup, &two.log().await).await;
        assert_eq!(status[0].sets_missing, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_set_that_a_copy_never_got_is_named_as_such_and_gives_no_failed_proof() {
    let two = Two::new(true).await;
    two.good().await;
    two.second.rule(Operation::Put, "*/RESTORE.md", When::Always, Fault::Fail(Kind::Full));
    let missed = two.run(Act::Good(1000)).await.unwrap().set;
    two.second.clear();
    let set = two.good().await;
    let reading = Setup { read_from: 1, ..two.world.setup.clone() };
    let mut log = two.log().await;
    let error = verify(&reading, &mut log, &missed, Grade::ReadBack).await.unwrap_err();
    assert!(error.kind() == Kind::NoSuchSet && error.to_string().contains("it was stored in first"), "{error}");
    let error = verify(&two.reader().await, &mut two.reader().await.log(set.job()).await.unwrap(), &missed, Grade::ReadBack).await;
    assert_eq!(error.unwrap_err().kind(), Kind::NoSuchSet);
    // A proof of the copy names it.
    let report = verify(&reading, &mut log, &set, Grade::ReadBack).await.unwrap();
    assert_eq!((report.store.as_str(), report.passed), ("second", true));
    let entry = log.state().get(&set).unwrap();
    assert_eq!((entry.proofs[0].proof.store.as_str(), entry.grade(false)), ("second", Some(Grade::Uploaded)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_first_store_down_commits_nothing() {
    let two = Two::new(false).await;
    two.good().await;
    let hushed = Env { pause: Arc::new(Never), ..Env::default() };
    let repository = Repository::open(two.world.store.clone(), hushed, &Trust::OnFirstUse).await.unwrap();
    let world = World { setup: Setup { repository, ..two.world.setup.clone() }, ..two.world };
    world.store.rule(None, "*", When::Always, Fault::Fail(Kind::Unreachable));
    let job = world.job([Arc::new(Scripted::new("s", [Act::Good(1000)]))]);
    let error = backup(&world.setup, &job, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.kind().exit_code(), 8, "{error}");
    assert_eq!(whole::list_all(&*two.memory, "jobs/shop/log/").await.unwrap().len(), 1, "no copy ever gets what the first has not");
}

struct Never;

#[async_trait::async_trait]
impl drctl::catalog::Pause for Never {
    async fn before_retry(&self, _: u32) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f72_a_first_store_that_lost_records_which_a_copy_has_is_not_written_to() {
    for optional in [false, true] {
        let two = Two::new(optional).await;
        two.good().await;
        two.good().await;
        // As after an old image of the first disk was put back; this machine keeps no mark of what it saw.
        drctl::store::Store::delete(&*two.world.memory, "jobs/shop/log/0000000002.signed").await.unwrap();
        let error = two.run(Act::Good(1000)).await.unwrap_err();
        assert!(error.kind() == Kind::Corrupt && error.to_string().contains("record 2"), "{error}");
        assert_eq!(two.log().await.head(), 1);
        let status = copies::status(&two.world.setup, &two.log().await).await;
        assert!(status[0].problem.as_ref().unwrap().contains("the first store has lost records"), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_another_repository_gets_nothing() {
    for optional in [false, true] {
        let two = Two::new(optional).await;
        let other: DynStore = two.memory.clone();
        Repository::init(other, Env::default(), "elsewhere").await.unwrap();
        let result = two.run(Act::Good(1000)).await;
        match optional {
            false => assert_eq!(result.unwrap_err().kind(), Kind::Corrupt),
            true => assert_eq!(result.unwrap().stores, ["first"]),
        }
        assert!(two.there("jobs/").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_added_later_gets_the_records_and_the_sets_from_then_on_and_one_that_was_emptied_is_refused() {
    let mut world = World::new().await;
    let job = world.job([Arc::new(Scripted::new("s", [Act::Good(1000)]))]);
    let old = backup(&world.setup, &job, &BackupOptions::default()).await.unwrap().set;
    let memory = Arc::new(MemoryStore::default());
    world.setup.sinks.push(Sink::new("second", memory.clone()));
    let two = Two { world, second: Arc::new(FaultyStore::new(memory.clone())), memory };
    let new = two.good().await;
    assert!(two.warnings().contains("store 'second' is new") && two.warnings().contains("1 older sets"), "{}", two.warnings());
    assert_eq!((two.there(&old.prefix()).await.len(), two.records_behind().await), (0, 0));
    assert!(!two.there(&new.prefix()).await.is_empty());
    // The disk below the folder is gone: what is there is an empty mount point.
    for key in two.there("").await {
        drctl::store::Store::delete(&*two.memory, &key).await.unwrap();
    }
    let error = two.run(Act::Good(1000)).await.unwrap_err();
    assert!(error.kind() == Kind::Unreachable && error.to_string().contains("is its disk mounted?"), "{error}");
    assert!(two.there("").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_17_a_cancelled_run_leaves_no_object_in_any_store() {
    let two = Two::new(false).await;
    let good = two.good().await;
    let (cancel, stop) = (two.world.setup.cancel.clone(), async {
        // Until something of it lies in both.
        while two.there("jobs/shop/sets/").await.len() < 6 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut source = Scripted::new("s", [Act::Good(1000), Act::Good(1000), Act::HangAfter(1000)]);
    source.artifacts = vec!["a", "b", "c"];
    let job = two.world.job([Arc::new(source)]);
    let options = BackupOptions::default();
    let running = backup(&two.world.setup, &job, &options);
    let (result, ()) = tokio::join!(running, async {
        stop.await;
        cancel.cancel();
    });
    assert_eq!(result.unwrap_err().kind(), Kind::Interrupted);
    for keys in [two.here("jobs/shop/sets/").await, two.there("jobs/shop/sets/").await] {
        assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with(&good.prefix())), "{keys:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_a_retired_set_goes_from_every_store() {
    let two = Two::new(false).await;
    let old = two.good().await;
    let new = two.good().await;
    let mut log = two.log().await;
    let intent = retire::retire_chain(&mut log, &old, "old").await.unwrap().unwrap();
    retire::finish_delete(&mut log, intent).await.unwrap();
    assert!(two.here(&old.prefix()).await.is_empty() && two.there(&old.prefix()).await.is_empty());
    assert!(!two.there(&new.prefix()).await.is_empty());
    let reader = two.reader().await;
    assert_eq!(reader.log(old.job()).await.unwrap().state().live().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_what_is_pinned_and_pruned_is_known_in_every_store() {
    let two = Two::new(false).await;
    let mut sets = Vec::new();
    for _ in 0..3 {
        sets.push(two.good().await);
        let mut log = two.log().await;
        assert!(verify(&two.world.setup, &mut log, &sets[sets.len() - 1], Grade::ReadBack).await.unwrap().passed);
    }
    let mut log = two.log().await;
    let until = drctl::model::Timestamp::now() + Duration::from_secs(3600);
    pins::pin(&two.world.setup, &mut log, &sets[0], until, "before the upgrade").await.unwrap();
    assert_eq!(two.records_behind().await, 0);
    let rules = Retention { keep_last: 1, ..Retention::NOTHING };
    let group = GroupPolicy { retention: Some(rules), ..GroupPolicy::default() };
    let policy = PrunePolicy {
        job: "shop".parse().unwrap(),
        zone: TimeZone::UTC,
        groups: [("main".to_owned(), group)].into(),
        sources: ["s".to_owned()].into(),
        abandoned: false,
    };
    let report = prune(&two.world.setup, &policy, PruneOptions { apply: true, ..PruneOptions::default() }).await.unwrap();
    assert_eq!((report.deleted.as_slice(), two.records_behind().await), (&sets[1..2], 0));
    assert!(two.here(&sets[1].prefix()).await.is_empty() && two.there(&sets[1].prefix()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_writes_to_its_own_stores_only() {
    let mut two = Two::new(false).await;
    two.world.setup.job_stores.insert("shop".parse().unwrap(), vec!["first".into()]);
    assert_eq!(two.run(Act::Good(1000)).await.unwrap().stores, ["first"]);
    assert!(two.there("").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_signing_key_dumps_nothing() {
    let two = Two::new(false).await;
    let keyless = Setup { keys: Vec::new(), ..two.world.setup.clone() };
    let source = Arc::new(Scripted::new("s", [Act::Good(10)]));
    let error = backup(&keyless, &two.world.job([source.clone()]), &BackupOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), source.opened.load(std::sync::atomic::Ordering::SeqCst)), (Kind::Preflight, 0));
}
