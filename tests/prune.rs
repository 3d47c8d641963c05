//! `prune` from end to end over a store in memory that can be spoiled, with a clock of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drctl::catalog::env::Env;
use drctl::catalog::{MinisignKey, Repository, Role, RoleKey};
use drctl::config::typed::Retention;
use drctl::error::{Error, Kind};
use drctl::model::record::Grade;
use drctl::model::{Clock, SetId, Sha256, TestClock};
use drctl::observe::{Event, Observer};
use drctl::ops::backup::{BackupOptions, backup};
use drctl::ops::prune::{GroupPolicy, PruneOptions, PrunePolicy, PruneReport, prune};
use drctl::ops::verify::verify;
use drctl::ops::{JobSpec, Setup, SourceSpec};
use drctl::ops::{keys, pins};
use drctl::pipeline::seal::Sealing;
use drctl::pipeline::split::Sink;
use drctl::source::files::{FilesSettings, FilesSource};
use drctl::state::StateFile;
use drctl::store::faulty::{Fault, FaultyStore, Operation, When};
use drctl::store::memory::MemoryStore;
use drctl::store::{Store, whole};
use jiff::tz::TimeZone;

const DAY: i64 = 86_400;

struct World {
    setup: Setup,
    job: JobSpec,
    policy: PrunePolicy,
    clock: Arc<TestClock>,
    objects: Arc<MemoryStore>,
    store: Arc<FaultyStore>,
    root: MinisignKey,
    folder: tempfile::TempDir,
}

/// The configuration knows the one group.
struct Main;

impl drctl::ops::restore::Loaders for Main {
    fn loader(&self, _: &drctl::model::JobName, _: &str, _: &str, _: bool) -> Result<Arc<dyn drctl::source::load::Loader>, Error> {
        Err(Error::failed("nothing is restored here"))
    }

    fn groups(&self, _: &drctl::model::JobName) -> Option<Vec<String>> {
        Some(vec!["main".into()])
    }
}

impl World {
    async fn new(keep_last: u32) -> World {
        let clock = Arc::new(TestClock::at("2025-01-01T02:00:00Z".parse().unwrap()));
        World::with_store(keep_last, clock.clone(), clock).await
    }

    /// The store has a clock of its own.
    async fn with_store(keep_last: u32, clock: Arc<TestClock>, stores: Arc<TestClock>) -> World {
        let objects = Arc::new(MemoryStore::new(stores));
        let store = Arc::new(FaultyStore::new(objects.clone()));
        let env = Env { clock: clock.clone(), ..Env::default() };
        let new = Repository::init(store.clone(), env, "test").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let state = StateFile::open(&folder.path().join("state.sqlite"), clock.clone()).unwrap();
        let mut setup = Setup::new(new.repository.clone(), vec![Sink::new("first", store.clone())], Sealing::None);
        setup.keys = vec![RoleKey { number: 1, signer: Arc::new(new.key) }];
        setup.state = Some(Arc::new(state));
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("a"), "a").unwrap();
        let source = FilesSource::new("files", FilesSettings::all_of([&data])).unwrap();
        let job = JobSpec {
            name: "shop".parse().unwrap(),
            group: "main".into(),
            sources: vec![SourceSpec { source: Arc::new(source), allowed: Default::default(), allow_plaintext: false }],
            warnings: Vec::new(),
            config_text: String::new(),
            config_sha256: Sha256::of(b""),
        };
        let rules = Retention { keep_last, ..Retention::NOTHING };
        let group = GroupPolicy { retention: Some(rules), per_day: Some(1), interval: Some(Duration::from_secs(DAY as u64)) };
        let policy = PrunePolicy {
            job: job.name.clone(),
            zone: TimeZone::UTC,
            groups: BTreeMap::from([("main".into(), group)]),
            sources: ["files".to_owned()].into(),
            abandoned: false,
        };
        World { setup, job, policy, clock, objects, store, root: new.root, folder }
    }

    async fn status(&self) -> drctl::ops::look::JobStatus {
        let jobs = [self.job.name.clone()];
        let report = drctl::ops::look::status(&self.setup, &jobs, &Main, Vec::new(), Some(26 * 3600)).await.unwrap();
        assert_eq!(report.findings.iter().any(|f| f.contains("in the future")), report.jobs[0].dated_ahead.is_some());
        report.jobs[0].clone()
    }

    async fn back_up(&self) -> SetId {
        backup(&self.setup, &self.job, &BackupOptions::default()).await.unwrap().set
    }

    /// A day later each time, read back.
    async fn proven_days(&self, days: usize) -> Vec<SetId> {
        let mut sets = Vec::new();
        for _ in 0..days {
            self.clock.step_seconds(DAY);
            let set = self.back_up().await;
            self.verify(&set).await;
            sets.push(set);
        }
        sets
    }

    async fn verify(&self, set: &SetId) {
        let mut log = self.setup.log(&self.job.name).await.unwrap();
        assert!(verify(&self.setup, &mut log, set, Grade::ReadBack).await.unwrap().passed, "{set}");
    }

    async fn prune(&self, apply: bool) -> Result<PruneReport, Error> {
        prune(&self.setup, &self.policy, PruneOptions { apply, ..PruneOptions::default() }).await
    }

    /// What `list` would show, each of which must be whole.
    async fn live(&self) -> Vec<SetId> {
        let log = self.setup.log(&self.job.name).await.unwrap();
        let live: Vec<SetId> = log.state().live().map(|entry| entry.id().clone()).collect();
        for entry in log.state().live() {
            for object in entry.manifest.every_object() {
                let key = format!("{}{}", entry.id().prefix(), object.file);
                assert!(self.objects.head(&key).await.is_ok(), "{key} is gone, and its set is listed");
            }
        }
        live
    }

    async fn folders(&self) -> Vec<SetId> {
        let mut sets: Vec<SetId> = Vec::new();
        for entry in whole::list_all(&*self.objects, "jobs/shop/sets/").await.unwrap() {
            sets.extend(SetId::of_key(&entry.key));
        }
        sets.dedup();
        sets
    }
}

#[tokio::test]
async fn f141_what_the_configuration_no_longer_has_stays_until_it_is_given_up() {
    let mut world = World::new(2).await;
    let sets = world.proven_days(5).await;
    // The source has another name now; the group is the same.
    world.policy.sources = ["others".to_owned()].into();
    assert_eq!(world.prune(true).await.unwrap().deleted, []);
    // The group is gone, or the whole job: nothing of it goes but by hand, the last good set too then; a pin stays.
    world.policy.groups.clear();
    assert_eq!(world.prune(true).await.unwrap().deleted, []);
    let mut log = world.setup.log(&world.job.name).await.unwrap();
    let until = world.clock.now() + jiff::SignedDuration::from_hours(24);
    pins::pin(&world.setup, &mut log, &sets[1], until, "why").await.unwrap();
    world.policy.abandoned = true;
    let plan = world.prune(false).await.unwrap().plan;
    assert!(plan.sets[0].reasons[0].starts_with("given up") && plan.sets[1].reasons[0].starts_with("pinned"), "{plan:?}");
    assert_eq!(world.prune(true).await.unwrap().deleted.len(), 4);
    assert_eq!(world.live().await, [sets[1].clone()]);
}

#[tokio::test]
async fn f141_a_source_that_is_given_up_counts_no_more() {
    let mut world = World::new(2).await;
    let sets = world.proven_days(3).await;
    let data = world.folder.path().join("data");
    let others = FilesSource::new("others", FilesSettings::all_of([&data])).unwrap();
    world.job.sources = vec![SourceSpec { source: Arc::new(others), allowed: Default::default(), allow_plaintext: false }];
    world.policy.sources = ["others".to_owned()].into();
    let newer = world.proven_days(3).await;
    assert_eq!(world.prune(true).await.unwrap().deleted, [newer[0].clone()]);
    world.policy.abandoned = true;
    assert_eq!(world.prune(true).await.unwrap().deleted, sets);
    assert_eq!(world.live().await, newer[1..]);
}

#[tokio::test]
async fn f140_a_set_dated_in_the_future_is_stale_until_a_newer_one_is_there() {
    let world = World::new(3).await;
    world.back_up().await;
    assert!(!world.status().await.stale);
    for ahead in [3600, DAY, 400 * DAY] {
        world.clock.step_seconds(ahead);
        world.back_up().await;
        world.clock.step_seconds(-ahead);
        let status = world.status().await;
        assert_eq!((status.stale, status.rpo_seconds, status.dated_ahead.is_some()), (true, None, true), "{ahead}");
        let log = world.setup.log(&world.job.name).await;
        let found = drctl::ops::doctor::job(&world.setup, &world.job.name, &log, Some(&["main".to_owned()])).await;
        assert!(found.iter().any(|f| f.area == "sets" && f.words.contains("in the future")), "{found:?}");
        // The clock is right again: what is made now counts, whatever stands before it.
        world.clock.step_seconds(60);
        world.back_up().await;
        assert_eq!(world.status().await.rpo_seconds, Some(0));
    }
    // Clocks that differ by less than five minutes are no matter.
    world.clock.step_seconds(290);
    world.back_up().await;
    world.clock.step_seconds(-290);
    assert_eq!(world.status().await.rpo_seconds, Some(0));
}

#[tokio::test]
async fn f140_ages_are_by_the_stores_date_where_the_writers_clock_was_ahead() {
    let at = |text: &str| Arc::new(TestClock::at(text.parse().unwrap()));
    let (clock, stores) = (at("2025-01-01T02:00:00Z"), at("2025-01-01T02:00:00Z"));
    let world = World::with_store(3, clock.clone(), stores.clone()).await;
    clock.step_seconds(20 * 3600);
    world.back_up().await;
    assert_eq!(world.status().await.rpo_seconds, Some(0), "by a clock that is as wrong now");
    // The host's clock is set right; a day later the set says that it is four hours old.
    stores.step_seconds(DAY);
    clock.set(stores.now());
    let status = world.status().await;
    assert_eq!((status.rpo_seconds, status.stale), (Some(DAY), false));
    stores.step_seconds(3 * 3600);
    clock.set(stores.now());
    assert!(world.status().await.stale);
    // A store whose clock is wrong makes nothing older: it is asked what it shows now.
    let (clock, stores) = (at("2025-01-09T02:00:00Z"), at("2025-01-05T02:00:00Z"));
    let world = World::with_store(3, clock.clone(), stores.clone()).await;
    world.back_up().await;
    assert_eq!(world.status().await.rpo_seconds, Some(0));
    clock.step_seconds(3600);
    stores.step_seconds(3600);
    assert_eq!(world.status().await.rpo_seconds, Some(3600));
    // A store that was copied has younger records than there are: the writer's date holds then.
    let (clock, stores) = (at("2025-01-01T02:00:00Z"), at("2025-01-05T02:00:00Z"));
    let world = World::with_store(3, clock.clone(), stores.clone()).await;
    world.back_up().await;
    clock.set(stores.now());
    assert_eq!(world.status().await.rpo_seconds, Some(4 * DAY));
}

#[tokio::test]
async fn what_no_rule_keeps_goes_when_it_is_told_to() {
    let world = World::new(3).await;
    let sets = world.proven_days(8).await;
    let report = world.prune(false).await.unwrap();
    assert_eq!((report.plan.freed().0, report.refused.clone(), world.live().await.len()), (5, None, 8), "a plan changes nothing");
    let report = world.prune(true).await.unwrap();
    assert_eq!((report.deleted.as_slice(), report.retained.len()), (&sets[..5], 0));
    assert_eq!((world.live().await, world.folders().await), (sets[5..].to_vec(), sets[5..].to_vec()));
    assert!(report.objects >= 15 && report.bytes > 0, "{report:?}");
    world.verify(&sets[7]).await;
    let again = world.prune(true).await.unwrap();
    assert_eq!((again.deleted.len(), again.objects), (0, 0));
}

#[tokio::test]
async fn pins_and_holds_are_kept_until_they_end() {
    let world = World::new(1).await;
    let sets = world.proven_days(4).await;
    let mut log = world.setup.log(&world.job.name).await.unwrap();
    let until = world.clock.now().checked_add(Duration::from_secs(3 * DAY as u64)).unwrap();
    pins::pin(&world.setup, &mut log, &sets[0], until, "before the upgrade").await.unwrap();
    let held = pins::hold_by_hand(&world.setup, &mut log, &sets[1], Duration::from_secs(3600)).await.unwrap();
    assert_eq!(world.prune(true).await.unwrap().deleted, sets[2..3]);
    assert_eq!(world.live().await, [sets[0].clone(), sets[1].clone(), sets[3].clone()]);
    assert_eq!(pins::release(&world.setup, &mut log, &sets[1], "another").await.unwrap_err().kind(), Kind::Usage);
    pins::release(&world.setup, &mut log, &sets[1], &held.hold.unwrap()).await.unwrap();
    assert_eq!(world.prune(true).await.unwrap().deleted, sets[1..2]);
    pins::unpin(&world.setup, &mut log, &sets[0]).await.unwrap();
    assert_eq!(world.prune(true).await.unwrap().deleted, sets[..1]);
    let gone = pins::pin(&world.setup, &mut log, &sets[0], until, "too late").await.unwrap_err();
    assert_eq!(gone.kind(), Kind::NoSuchSet);
    let past = pins::pin(&world.setup, &mut log, &sets[3], world.clock.now(), "in the past").await.unwrap_err();
    assert_eq!(past.kind(), Kind::Usage);
}

#[tokio::test]
async fn f06_f76_a_prune_that_dies_anywhere_is_ended_by_the_next() {
    // Every step that a prune of one set makes: its intent, each object, `deleted`; and each with its answer lost.
    for point in 1..=20 {
        for fault in [Fault::Fail(Kind::Failed), Fault::LoseAnswer(Kind::Failed)] {
            let world = World::new(2).await;
            let sets = world.proven_days(4).await;
            // The n-th step from here fails, and everything after it: the process is gone.
            let (mut deletes, mut puts) = (0, 0);
            for (operation, key) in dry_steps().await.into_iter().take(point) {
                match operation {
                    Operation::Delete => deletes += 1,
                    _ => puts += u64::from(key.contains("/log/")),
                }
            }
            world.store.rule(Operation::Delete, "*", When::Call(deletes.max(1)), fault.clone());
            world.store.rule(Operation::Delete, "*", When::From(deletes.max(1) + 1), Fault::Fail(Kind::Failed));
            world.store.rule(Operation::Put, "*/log/*", When::From(puts + 1), fault.clone());
            let _ = world.prune(true).await;
            world.store.clear();
            let live = world.live().await;
            assert!(live.ends_with(&sets[2..]), "point {point} {fault:?}: {live:?}");
            // A new backup works whatever stands there, and the next prune ends it.
            let report = world.prune(true).await.unwrap();
            assert_eq!(world.live().await, sets[2..], "point {point} {fault:?}: {report:?}");
            assert_eq!(world.folders().await, sets[2..], "point {point} {fault:?}");
            assert!(world.prune(false).await.unwrap().half_deleted.is_empty(), "point {point} {fault:?}");
        }
    }
}

/// The steps of a prune that changes things, in their order.
async fn dry_steps() -> Vec<(Operation, String)> {
    let world = World::new(2).await;
    world.proven_days(4).await;
    let before = world.store.calls().len();
    world.prune(true).await.unwrap();
    let calls = world.store.calls().split_off(before);
    calls.into_iter().filter(|(o, key)| *o == Operation::Delete || (*o == Operation::Put && key.contains("/log/"))).collect()
}

#[tokio::test]
async fn f32_a_listing_that_leaves_things_out_stops_every_delete() {
    let world = World::new(2).await;
    let sets = world.proven_days(5).await;
    world.store.rule(Operation::List, &format!("{}*", sets[4].prefix()), When::Always, Fault::Truncate(1));
    let error = world.prune(true).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Verify);
    assert!(error.to_string().contains("does not list it: its listing cannot be trusted"), "{error}");
    assert_eq!(world.live().await, sets);
    world.store.clear();
    // An object that is really gone.
    let log = world.setup.log(&world.job.name).await.unwrap();
    let object = log.state().get(&sets[4]).unwrap().manifest.artifacts[0].objects[0].file.clone();
    let key = format!("{}{object}", sets[4].prefix());
    world.objects.delete(&key).await.unwrap();
    let error = world.prune(true).await.unwrap_err();
    assert!(error.to_string().contains(&format!("{key} is missing")) && error.kind() == Kind::Verify, "{error}");
    assert_eq!(world.folders().await.len(), 5);
}

#[tokio::test]
async fn f33_a_listing_that_lags_is_asked_again() {
    let world = World::new(2).await;
    let sets = world.proven_days(5).await;
    world.store.rule(Operation::List, &format!("{}*", sets[4].prefix()), When::First(2), Fault::Truncate(1));
    assert_eq!(world.prune(true).await.unwrap().deleted, sets[..3]);
    assert_eq!(world.live().await, sets[3..]);
}

#[tokio::test]
async fn f35_what_the_store_does_not_let_go_of_is_told_and_backups_go_on() {
    let world = World::new(2).await;
    let sets = world.proven_days(8).await;
    world.store.rule(Operation::Delete, "*/sets/*", When::Always, Fault::Fail(Kind::Denied));
    let report = world.prune(true).await.unwrap();
    assert_eq!((report.retained.len(), report.deleted.len()), (3, 0), "after three refusals the store is not asked for more");
    assert!(report.retained[0].starts_with(&sets[0].to_string()), "{report:?}");
    world.clock.step_seconds(DAY);
    world.back_up().await;
    world.store.clear();
    let report = world.prune(true).await.unwrap();
    assert_eq!(report.deleted[..3], sets[..3], "those under an intent go first: {report:?}");
}

#[tokio::test]
async fn f57_f58_a_clock_that_jumps_frees_nothing_and_stops_no_backup() {
    let world = World::new(2).await;
    let sets = world.proven_days(5).await;
    let right = world.clock.now();
    // Ten years ahead: the run is made, the prune is not.
    world.clock.step_seconds(3650 * DAY);
    let error = world.prune(true).await.unwrap_err();
    assert!(error.kind() == Kind::Preflight && error.to_string().contains("more than 7 days ago"), "{error}");
    let ahead = world.back_up().await;
    world.verify(&ahead).await;
    world.clock.set(right);
    world.clock.step_seconds(DAY);
    let after = world.back_up().await;
    world.verify(&after).await;
    let log = world.setup.log(&world.job.name).await.unwrap();
    let order: Vec<SetId> = log.state().live().map(|entry| entry.id().clone()).collect();
    assert_eq!(order, [&sets[..], &[ahead.clone(), after]].concat(), "sets are in the order in which they were made");
    let error = world.prune(true).await.unwrap_err();
    assert!(error.kind() == Kind::Preflight && error.to_string().contains("the newest record was written at 2035"), "{error}");
    let report = world.prune(false).await.unwrap();
    assert!(report.plan.stopped["main"][0].contains("dated in the future"), "{report:?}");
    // A person who knows of it says so once.
    let confirmed = PruneOptions { apply: true, confirm_clock: true, ..PruneOptions::default() };
    let report = prune(&world.setup, &world.policy, confirmed).await.unwrap();
    assert_eq!(report.deleted, sets[..4], "what is dated ahead takes no place: {report:?}");
    world.clock.step_seconds(DAY);
    let next = world.back_up().await;
    world.verify(&next).await;
    let report = world.prune(true).await.unwrap();
    assert_eq!(report.deleted, [sets[4].clone(), ahead], "and it is remembered; what is odd goes with the last older one");

    // Back by two days.
    let world = World::new(2).await;
    let sets = world.proven_days(5).await;
    world.clock.step_seconds(-2 * DAY);
    let error = world.prune(true).await.unwrap_err();
    assert!(error.kind() == Kind::Preflight && error.to_string().contains("the newest record was written at"), "{error}");
    assert_eq!(world.live().await, sets);
    let confirmed = PruneOptions { apply: true, confirm_clock: true, ..PruneOptions::default() };
    let report = prune(&world.setup, &world.policy, confirmed).await.unwrap();
    assert!(report.deleted.len() <= 3 && world.live().await.ends_with(&sets[3..]), "{report:?}");
}

#[tokio::test]
async fn f75_objects_that_no_set_names_go_after_their_grace() {
    let world = World::new(2).await;
    let sets = world.proven_days(3).await;
    let orphan: SetId = "shop/20250104T020000Z-full-zzzz".parse().unwrap();
    world.objects.overwrite(&format!("{}files.tar.zst.age", orphan.prefix()), Bytes::from_static(b"cut"));
    world.objects.overwrite("jobs/shop/sets/notes.txt", Bytes::from_static(b"mine"));
    let report = world.prune(true).await.unwrap();
    assert_eq!((report.waiting.as_slice(), report.orphans.len()), (&[orphan.clone()][..], 0));
    assert!(world.folders().await.contains(&orphan));
    world.clock.step_seconds(2 * DAY);
    let fresh = world.back_up().await;
    world.verify(&fresh).await;
    world.clock.step_seconds(DAY + 600);
    let report = world.prune(false).await.unwrap();
    assert_eq!(
        (report.orphans.as_slice(), report.strange.as_slice()),
        (&[orphan.clone()][..], &["jobs/shop/sets/notes.txt".to_owned()][..])
    );
    world.prune(true).await.unwrap();
    assert_eq!(world.folders().await, [sets[2].clone(), fresh]);
    assert!(world.objects.head("jobs/shop/sets/notes.txt").await.is_ok());
    assert!(world.folder.path().exists());
}

#[tokio::test]
async fn another_prune_and_a_pin_meanwhile_change_the_plan() {
    // Between the plan and its intent somebody else pins the first set: the number is taken, and the plan is made anew. A pin that was held
    // up until the intent stood shows nothing: then the intent is stalled for longer.
    for stall in [Duration::from_millis(400), Duration::from_secs(5), Duration::from_secs(40)] {
        let world = World::new(2).await;
        let sets = world.proven_days(4).await;
        let mut other = world.setup.log(&world.job.name).await.unwrap();
        let until = world.clock.now().checked_add(Duration::from_secs(DAY as u64)).unwrap();
        world.store.rule(Operation::Put, "*/log/*", When::Call(1), Fault::Stall(stall));
        let records = || world.store.calls().iter().filter(|(o, key)| *o == Operation::Put && key.contains("/log/")).count();
        let before = records();
        let pinning = async {
            let since = std::time::Instant::now();
            while records() == before {
                assert!(since.elapsed() < Duration::from_secs(60), "no intent is written");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            pins::pin(&world.setup, &mut other, &sets[0], until, "meanwhile").await
        };
        let (report, pinned) = tokio::join!(world.prune(true), pinning);
        if pinned.is_err() && stall < Duration::from_secs(40) {
            continue;
        }
        pinned.unwrap();
        assert_eq!(report.unwrap().deleted, sets[1..2]);
        assert_eq!(world.live().await, [sets[0].clone(), sets[2].clone(), sets[3].clone()]);
        return;
    }
}

/// A clock of this host that is ahead of the store's by so many seconds.
fn host_clock(world: &mut World, ahead: i64) {
    let clock = TestClock::at(world.clock.now());
    clock.step_seconds(ahead);
    world.setup.clock = Arc::new(clock);
}

#[tokio::test]
async fn f57_clocks_that_differ_by_more_than_five_minutes_free_nothing() {
    let mut world = World::new(2).await;
    let sets = world.proven_days(5).await;
    for ahead in [301, -301] {
        host_clock(&mut world, ahead);
        let error = world.prune(true).await.unwrap_err();
        assert!(error.kind() == Kind::Preflight && error.to_string().contains("differ by 5 min"), "{ahead}: {error}");
        assert!(world.prune(false).await.unwrap().refused.is_some(), "{ahead}: the plan says so too");
    }
    assert_eq!(world.live().await, sets);
    // What the store's date does not free yet stays: here a pin that ends between the two clocks.
    host_clock(&mut world, 0);
    let until = world.clock.now().checked_add(Duration::from_secs(100)).unwrap();
    let mut log = world.setup.log(&world.job.name).await.unwrap();
    pins::pin(&world.setup, &mut log, &sets[0], until, "for a while").await.unwrap();
    host_clock(&mut world, 299);
    assert!(world.prune(false).await.unwrap().plan.sets[0].keep);
    assert_eq!(world.prune(true).await.unwrap().deleted, sets[1..3]);
}

#[tokio::test]
async fn f57_a_store_that_tells_whole_seconds_does_not_look_like_a_clock_that_went_back() {
    let mut world = World::new(2).await;
    let sets = world.proven_days(4).await;
    // The newest record has this host's date; the store's is a little behind.
    host_clock(&mut world, 0);
    world.clock.step_seconds(-1);
    assert_eq!(world.prune(true).await.unwrap().deleted, sets[..2]);
}

#[tokio::test]
async fn f57_a_clock_behind_the_last_prune_frees_nothing() {
    let world = World::new(9).await;
    world.proven_days(3).await;
    world.clock.step_seconds(5 * DAY);
    assert_eq!(world.prune(true).await.unwrap().deleted, []);
    // After the newest record, before what this host has seen.
    world.clock.step_seconds(-DAY);
    let error = world.prune(true).await.unwrap_err();
    assert!(error.kind() == Kind::Preflight && error.to_string().contains("the clock went back"), "{error}");
    let confirmed = PruneOptions { apply: true, confirm_clock: true, ..PruneOptions::default() };
    assert_eq!(prune(&world.setup, &world.policy, confirmed).await.unwrap().refused, None, "unless a person says that it is right");
    world.prune(true).await.unwrap();
}

#[tokio::test]
async fn f58_a_plan_confirms_no_clock() {
    let world = World::new(2).await;
    world.proven_days(5).await;
    world.clock.step_seconds(-2 * DAY);
    let look = PruneOptions { confirm_clock: true, ..PruneOptions::default() };
    assert_eq!(prune(&world.setup, &world.policy, look).await.unwrap().refused, None);
    assert_eq!(world.prune(true).await.unwrap_err().kind(), Kind::Preflight, "only --apply remembers it");
}

#[tokio::test]
async fn a_run_that_failed_or_was_cut_off_frees_nothing() {
    let world = World::new(2).await;
    let sets = world.proven_days(4).await;
    let state = world.setup.state.clone().unwrap();
    let ran = |verb: &str, job: &str, code: u8| state.begin_run(verb, Some(job)).unwrap().finish(code, None).unwrap();
    let why = async || world.prune(false).await.unwrap().plan.stopped.get("main").map(|why| why.join("; ")).unwrap_or_default();
    ran("backup", "shop", 0);
    assert_eq!(why().await, "");
    ran("backup", "shop", Kind::Unreachable.exit_code());
    assert!(why().await.ends_with("failed with exit code 8"), "{}", why().await);
    assert_eq!(world.prune(true).await.unwrap().deleted, []);
    // A partial set stands in the log, and is judged there; other verbs and jobs say nothing of this one.
    ran("backup", "shop", Kind::Partial.exit_code());
    ran("verify", "shop", 5);
    ran("backup", "other", 1);
    assert_eq!(why().await, "");
    drop(state.begin_run("backup", Some("shop")).unwrap());
    state.sweep_interrupted().unwrap();
    assert!(why().await.ends_with("was interrupted"), "{}", why().await);
    assert_eq!((world.prune(true).await.unwrap().deleted.len(), world.live().await), (0, sets));
}

#[tokio::test]
async fn without_a_key_there_is_a_plan_and_nothing_else() {
    let mut world = World::new(2).await;
    let sets = world.proven_days(4).await;
    world.setup.keys.clear();
    assert_eq!(world.prune(false).await.unwrap().plan.freed().0, 2);
    let error = world.prune(true).await.unwrap_err();
    assert!(error.kind() == Kind::Preflight && error.to_string().contains("no signing key"), "{error}");
    assert_eq!(world.live().await, sets);
}

#[tokio::test]
async fn a_store_that_tells_no_date_gives_a_plan_only_to_those_who_may_not_write() {
    let world = World::new(2).await;
    let sets = world.proven_days(4).await;
    world.store.rule(Operation::Date, "*", When::Call(1), Fault::Fail(Kind::Denied));
    assert_eq!(world.prune(false).await.unwrap().plan.freed().0, 2);
    world.store.clear();
    world.store.rule(Operation::Date, "*", When::Call(1), Fault::Fail(Kind::Denied));
    assert_eq!(world.prune(true).await.unwrap_err().kind(), Kind::Denied);
    world.store.clear();
    world.store.rule(Operation::Date, "*", When::Call(1), Fault::Fail(Kind::Unreachable));
    assert_eq!(world.prune(false).await.unwrap_err().kind(), Kind::Unreachable);
    world.store.clear();
    assert_eq!(world.live().await, sets);
}

#[tokio::test]
async fn a_prune_that_is_cancelled_begins_nothing_more() {
    let world = World::new(2).await;
    let sets = world.proven_days(4).await;
    world.setup.cancel.cancel();
    assert_eq!(world.prune(true).await.unwrap_err().kind(), Kind::Interrupted);
    assert_eq!(world.live().await, sets);
    // Nor does it sweep.
    let world = World::new(9).await;
    world.proven_days(1).await;
    let orphan: SetId = "shop/20250102T020000Z-full-zzzz".parse().unwrap();
    world.objects.overwrite(&format!("{}a", orphan.prefix()), Bytes::from_static(b"cut"));
    world.clock.step_seconds(4 * DAY);
    world.setup.cancel.cancel();
    assert_eq!(world.prune(true).await.unwrap_err().kind(), Kind::Interrupted);
    assert!(world.folders().await.contains(&orphan));
}

#[derive(Default)]
struct Codes(std::sync::Mutex<Vec<u8>>);

impl Observer for Codes {
    fn observe(&self, event: &Event) {
        if let Event::RunFinished { exit_code, .. } = event {
            self.0.lock().unwrap().push(*exit_code);
        }
    }
}

#[tokio::test]
async fn f35_objects_that_no_set_names_and_cannot_be_deleted_are_told() {
    let world = World::new(9).await;
    world.proven_days(1).await;
    let codes = Arc::new(Codes::default());
    world.setup.bus.subscribe(codes.clone());
    let orphan: SetId = "shop/20250102T020000Z-full-zzzz".parse().unwrap();
    world.objects.overwrite(&format!("{}a", orphan.prefix()), Bytes::from_static(b"cut"));
    world.clock.step_seconds(4 * DAY);
    world.store.rule(Operation::Delete, "*/sets/*", When::Always, Fault::Fail(Kind::Denied));
    // Leases that cannot be tidied away are no reason to fail.
    world.store.rule(Operation::Delete, "*/lease/*", When::Always, Fault::Fail(Kind::Denied));
    let report = world.prune(true).await.unwrap();
    assert!(report.retained.len() == 1 && report.retained[0].starts_with("objects that no set names"), "{report:?}");
    world.store.clear();
    assert_eq!(world.prune(true).await.unwrap().retained, Vec::<String>::new());
    assert!(!world.folders().await.contains(&orphan));
    assert_eq!(*codes.0.lock().unwrap(), [Kind::Denied.exit_code(), 0]);
}

#[tokio::test]
async fn f32_what_stays_is_looked_at_object_by_object() {
    let world = World::new(2).await;
    let mut sets = world.proven_days(4).await;
    world.clock.step_seconds(DAY);
    sets.push(world.back_up().await);
    let key_of = async |set: &SetId| {
        let log = world.setup.log(&world.job.name).await.unwrap();
        let file = log.state().get(set).unwrap().manifest.artifacts[0].objects[0].file.clone();
        format!("{}{file}", set.prefix())
    };
    // The newest set of all, and the newest that was read back: both have to be there.
    for set in [&sets[4], &sets[3]] {
        let key = key_of(set).await;
        let bytes = whole::read(&*world.objects, &key).await.unwrap();
        let refused = async |words: &str| {
            let error = world.prune(true).await.unwrap_err();
            assert!(error.kind() == Kind::Verify && error.to_string().contains(words), "{words}: {error}");
            assert_eq!(world.folders().await, sets);
        };
        world.objects.overwrite(&key, bytes.slice(1..));
        refused(&format!("{key} has {} bytes, {} were stored", bytes.len() - 1, bytes.len())).await;
        world.objects.overwrite(&key, bytes);
        world.store.rule(Operation::Head, &key, When::Always, Fault::Fail(Kind::NotFound));
        refused(&format!("the store lists {key} and does not have it")).await;
        world.store.clear();
        world.store.rule(Operation::Head, &key, When::Always, Fault::Fail(Kind::Unreachable));
        assert_eq!(world.prune(true).await.unwrap_err().kind(), Kind::Unreachable, "what cannot be asked is not taken for there");
        world.store.clear();
    }
    assert_eq!(world.prune(true).await.unwrap().deleted, sets[..2]);
}

#[tokio::test]
async fn the_longest_pause_of_any_group_says_how_long_a_log_may_be_silent() {
    let mut world = World::new(2).await;
    world.proven_days(4).await;
    world.clock.step_seconds(15 * DAY);
    assert_eq!(world.prune(true).await.unwrap_err().kind(), Kind::Preflight);
    let seldom = GroupPolicy { interval: Some(Duration::from_secs(10 * DAY as u64)), ..GroupPolicy::default() };
    world.policy.groups.insert("seldom".into(), seldom);
    assert_eq!(world.prune(true).await.unwrap().deleted, [], "its own group is late all the same");
}

#[tokio::test]
async fn f61_f141_sets_of_a_group_or_source_that_was_taken_out_stay() {
    let mut world = World::new(1).await;
    let first = world.proven_days(2).await;
    world.job.sources[0].source = Arc::new(FilesSource::new("other", FilesSettings::all_of([&world.folder.path().join("data")])).unwrap());
    world.policy.sources = ["other".to_owned()].into();
    let then = world.proven_days(3).await;
    assert_eq!(world.prune(true).await.unwrap().deleted, [then[0].clone(), then[1].clone()]);
    assert_eq!(world.live().await, [first[0].clone(), first[1].clone(), then[2].clone()], "all sets of the source that is gone");
    // The group too.
    let group = world.policy.groups.remove("main").unwrap();
    world.policy.groups.insert("new".into(), group);
    let more = world.proven_days(1).await;
    assert_eq!(world.prune(true).await.unwrap().deleted, []);
    assert_eq!(world.live().await, [first[0].clone(), first[1].clone(), then[2].clone(), more[0].clone()]);
}

#[tokio::test]
async fn rule_15_on_a_sealed_repository_a_writers_proof_frees_nothing() {
    let world = World::new(1).await;
    let sets = world.proven_days(3).await;
    assert_eq!(world.prune(false).await.unwrap().plan.freed().0, 2);
    // Now there is a host that may write and not delete.
    let wanted = keys::Wanted { roles: [Role::Writer].into(), holder: "web-2".into(), revokes: Vec::new() };
    keys::add(&world.setup, &world.root, &world.folder.path().join("second"), &wanted).await.unwrap();
    let report = world.prune(true).await.unwrap();
    assert!(report.plan.sets[0].reasons[0].starts_with("only 0 of 1 proven sets of files"), "{report:?}");
    assert_eq!(world.live().await, sets);
}

#[tokio::test]
async fn pins_say_why_and_change_nothing_twice() {
    let mut world = World::new(1).await;
    let sets = world.proven_days(1).await;
    let mut log = world.setup.log(&world.job.name).await.unwrap();
    let until = world.clock.now().checked_add(Duration::from_secs(60)).unwrap();
    let error = pins::pin(&world.setup, &mut log, &sets[0], until, "  ").await.unwrap_err();
    assert!(error.kind() == Kind::Usage && error.to_string().contains("needs a reason"), "{error}");
    let head = log.head();
    assert_eq!((pins::unpin(&world.setup, &mut log, &sets[0]).await.unwrap().record, log.head()), (None, head));
    world.setup.keys.clear();
    for error in [
        pins::pin(&world.setup, &mut log, &sets[0], until, "x").await.unwrap_err(),
        pins::unpin(&world.setup, &mut log, &sets[0]).await.unwrap_err(),
        pins::hold_by_hand(&world.setup, &mut log, &sets[0], Duration::from_secs(60)).await.unwrap_err(),
        pins::release(&world.setup, &mut log, &sets[0], "x").await.unwrap_err(),
    ] {
        assert!(error.kind() == Kind::Preflight && error.to_string().contains("no signing key"), "{error}");
    }
    assert_eq!(log.head(), head);
}

#[tokio::test]
async fn f32_what_a_listing_leaves_out_is_deleted_by_its_name_and_what_stays_is_said() {
    let world = World::new(2).await;
    let sets = world.proven_days(4).await;
    world.store.rule(Operation::List, &format!("{}*", sets[0].prefix()), When::Always, Fault::Truncate(0));
    // A delete that is answered and does nothing.
    world.store.rule(Operation::Delete, &format!("{}*", sets[1].prefix()), When::Always, Fault::Truncate(0));
    let error = world.prune(true).await.unwrap_err();
    assert!(error.to_string().contains("is still listed after it was deleted"), "{error}");
    assert_eq!((world.live().await, world.folders().await), (sets[2..].to_vec(), sets[1..].to_vec()));
    world.store.clear();
    assert_eq!(world.prune(false).await.unwrap().half_deleted, sets[1..2]);
    assert_eq!(world.prune(true).await.unwrap().deleted, sets[1..2]);
    assert_eq!(world.folders().await, sets[2..]);
}
