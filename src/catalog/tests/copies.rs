//! Further stores (rule 11) and stores that cannot keep two writers apart (rule 13).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::catalog::env::Env;
use crate::catalog::log::record_key;
use crate::catalog::single_writer::{FileLock, why_single_writer};
use crate::catalog::testing::{Bed, Quick, job};
use crate::catalog::{JobLog, NewRepository, Repository, RoleKey, Rules, Trust, retire};
use crate::error::Kind;
use crate::model::record::{Body, Grade, Proof};
use crate::model::{SetId, SetKind};
use crate::pipeline::split::Sink;
use crate::store::faulty::{Fault, FaultyStore, Operation, When};
use crate::store::memory::MemoryStore;
use crate::store::{DynStore, Store as _, whole};

/// A second store that can be spoilt.
struct Copy {
    memory: Arc<MemoryStore>,
    faulty: Arc<FaultyStore>,
    store: DynStore,
}

impl Copy {
    fn new() -> Copy {
        let memory = Arc::new(MemoryStore::default());
        let faulty = Arc::new(FaultyStore::new(memory.clone()));
        Copy { memory, store: faulty.clone(), faulty }
    }

    fn sink(&self) -> Sink {
        Sink::new("copy", self.store.clone())
    }

    async fn count(&self, set: &SetId) -> usize {
        whole::list_all(&*self.memory, &set.prefix()).await.unwrap().len()
    }

    /// What a reader lists who knows this store only.
    async fn lists(&self) -> Vec<SetId> {
        let repository = Repository::open(self.store.clone(), Env::default(), &Trust::OnFirstUse).await.unwrap();
        let log = JobLog::open(&repository, &job(), Vec::new()).await.unwrap();
        assert_eq!(log.state().findings(), []);
        log.state().live().map(|entry| entry.id().clone()).collect()
    }
}

/// A set whose objects lie in both stores.
async fn backup(bed: &Bed, log: &mut JobLog, copy: &Copy) -> SetId {
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let mut manifest = bed.upload(&run).await;
    manifest.stores = vec!["main".into(), "copy".into()];
    for object in manifest.every_object() {
        let key = format!("{}{}", run.set().prefix(), object.file);
        whole::create(&*copy.memory, &key, bed.raw(&key).await).await.unwrap();
    }
    let set = run.set().clone();
    run.commit(log, manifest, |_| Ok(())).await.unwrap();
    set
}

#[tokio::test]
async fn rule_11_copies_lag_and_never_lead() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let copy = Copy::new();
    bed.backup(&mut log, SetKind::Full).await;
    assert_eq!(log.copy_to(&copy.store).await.unwrap(), 1);
    bed.backup(&mut log, SetKind::Full).await;
    assert!(log.stands_in(&copy.store, 1).await.unwrap() && !log.stands_in(&copy.store, 2).await.unwrap());
    assert_eq!(log.behind(&copy.store).await.unwrap(), 1);
    assert_eq!(log.copy_to(&copy.store).await.unwrap(), 1);
    assert_eq!(log.copy_to(&copy.store).await.unwrap(), 0);
    assert_eq!((log.behind(&copy.store).await.unwrap(), copy.lists().await.len()), (0, 2));
    // What a copy lost is brought again.
    copy.memory.delete(&record_key(&job(), 1)).await.unwrap();
    assert_eq!((log.behind(&copy.store).await.unwrap(), log.copy_to(&copy.store).await.unwrap()), (1, 1));
    copy.memory.overwrite(&record_key(&job(), 2), "other".into());
    assert_eq!(log.copy_to(&copy.store).await.unwrap_err().kind(), Kind::Corrupt);
    assert!(!log.stands_in(&copy.store, 2).await.unwrap());
    // A store that would overwrite: what stands there is looked at first.
    let blind = Arc::new(MemoryStore::overwriting());
    let store: DynStore = blind.clone();
    log.copy_to(&store).await.unwrap();
    blind.overwrite("drctl-repository.json", "of another repository".into());
    assert_eq!(log.copy_to(&store).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(whole::read(&*blind, "drctl-repository.json").await.unwrap(), Bytes::from("of another repository"));
}

#[tokio::test]
async fn rule_11_a_copy_that_holds_more_than_the_log_is_told_from_garbage() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let copy = Copy::new();
    bed.backup(&mut log, SetKind::Full).await;
    bed.backup(&mut log, SetKind::Full).await;
    log.copy_to(&copy.store).await.unwrap();
    assert_eq!(log.led_by(&copy.store).await.unwrap(), None);
    // Somebody with a store user and no key.
    copy.memory.overwrite(&record_key(&job(), 3), "garbage".into());
    assert_eq!(log.led_by(&copy.store).await.unwrap(), None);
    // The first store lost its newest record, as after a disk was put back from an old image.
    bed.store.delete(&record_key(&job(), 2)).await.unwrap();
    let log = JobLog::open(&bed.repository, &job(), Vec::new()).await.unwrap();
    assert_eq!((log.head(), log.led_by(&copy.store).await.unwrap()), (1, Some(2)));
}

#[tokio::test]
async fn rule_12_what_takes_a_number_takes_it_in_the_copy_too() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let copy = Copy::new();
    let before = bed.backup(&mut log, SetKind::Full).await;
    bed.store.inner.overwrite(&record_key(&job(), 2), "garbage".into());
    let long = Bytes::from(vec![7; whole::WHOLE_LIMIT as usize + 1]);
    bed.store.inner.overwrite(&record_key(&job(), 3), long);
    let mut log = bed.log().await;
    let after = bed.backup(&mut log, SetKind::Full).await;
    assert_eq!((log.head(), log.copy_to(&copy.store).await.unwrap(), log.copy_to(&copy.store).await.unwrap()), (4, 4, 0));
    let repository = Repository::open(copy.store.clone(), Env::default(), &Trust::OnFirstUse).await.unwrap();
    let there = JobLog::open(&repository, &job(), Vec::new()).await.unwrap();
    assert_eq!(there.state().live().map(|entry| entry.id()).collect::<Vec<_>>(), [&before, &after]);
    assert_eq!(there.state().findings(), log.state().findings());
}

#[tokio::test]
async fn rule_11_objects_of_a_copy_go_only_after_the_intent_stands_there() {
    for rules in [Rules::default(), Rules { copy_intent: false, ..Rules::default() }] {
        let bed = Bed::new().await;
        let copy = Copy::new();
        let log = JobLog::open_with(&bed.repository, &job(), vec![bed.key.clone()], rules).await.unwrap();
        let mut log = log.with_copies(vec![copy.sink()]);
        let old = backup(&bed, &mut log, &copy).await;
        let new = backup(&bed, &mut log, &copy).await;
        log.copy_to(&copy.store).await.unwrap();
        let intent = retire::retire_chain(&mut log, &old, "old").await.unwrap().unwrap();
        // The copy takes no records just now.
        copy.faulty.rule(Operation::Put, "*/log/*", When::Always, Fault::Fail(Kind::Unreachable));
        let deleted = retire::finish_delete(&mut log, intent).await;
        assert_eq!(bed.count(&old).await, 0, "the first store does not wait for the copy");
        if !rules.copy_intent {
            assert!(copy.lists().await.contains(&old) && copy.count(&old).await == 0, "without the guard a listed set has no objects");
            continue;
        }
        let error = deleted.unwrap_err();
        assert!(error.kind() == Kind::Unreachable && error.to_string().contains("'copy'"), "{error}");
        assert_eq!((copy.count(&old).await, copy.lists().await), (3, vec![old.clone(), new.clone()]));
        assert!(log.state().intents().all(|known| known.deleted.is_none()), "it is not done");
        // Later, by anyone with the role, also by one that has read from a checkpoint on.
        copy.faulty.clear();
        crate::catalog::checkpoint::checkpoint(&mut log).await.unwrap();
        let short = JobLog::open_at_checkpoint(&bed.repository, &job(), vec![bed.key.clone()]).await.unwrap();
        let mut short = short.with_copies(vec![copy.sink()]);
        retire::finish_delete(&mut short, intent).await.unwrap();
        assert_eq!((copy.count(&old).await, copy.lists().await), (0, vec![new.clone()]));
        assert!(short.state().intents().all(|known| known.deleted.is_some()));
    }
}

#[tokio::test]
async fn f75_orphans_are_swept_in_every_store_by_each_ones_own_clock() {
    let bed = Bed::new().await;
    let copy = Copy::new();
    let mut log = bed.log().await.with_copies(vec![copy.sink()]);
    backup(&bed, &mut log, &copy).await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    // A run that died before its first object was whole in the first store.
    whole::create(&*copy.memory, &format!("{}a", run.set().prefix()), "a".into()).await.unwrap();
    // The copy's clock is that of this machine and its object new; the first store's runs ahead.
    bed.hours(1000);
    let swept = retire::sweep(&mut log, Duration::from_secs(3600)).await.unwrap();
    assert_eq!((swept.waiting.as_slice(), copy.count(run.set()).await), (&[run.set().clone()][..], 1));
    copy.faulty.rule(Operation::List, "jobs/shop/sets/", When::Call(1), Fault::Fail(Kind::Unreachable));
    assert_eq!(retire::sweep(&mut log, Duration::ZERO).await.unwrap_err().kind(), Kind::Unreachable, "no store is left out in silence");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let swept = retire::sweep(&mut log, Duration::ZERO).await.unwrap();
    assert_eq!((swept.doomed.as_slice(), copy.count(run.set()).await), (&[run.set().clone()][..], 0));
}

#[tokio::test]
async fn a_proof_of_a_copy_says_nothing_of_the_first_store() {
    let bed = Bed::new().await;
    let copy = Copy::new();
    let mut log = bed.log().await;
    let set = backup(&bed, &mut log, &copy).await;
    let now = bed.store.server_date().await.unwrap();
    let proof = |store: &str, passed: bool| {
        let findings = if passed { Vec::new() } else { vec!["a: is missing".to_owned()] };
        Body::Proof {
            proof: Proof {
                set: set.clone(),
                grade: Grade::ReadBack,
                passed,
                findings,
                started_at: now,
                finished_at: now,
                store: store.into(),
            },
        }
    };
    log.append(proof("copy", true)).await.unwrap();
    assert_eq!(log.state().get(&set).unwrap().grade(false), Some(Grade::Uploaded));
    log.append(proof("main", true)).await.unwrap();
    log.append(proof("copy", false)).await.unwrap();
    let entry = log.state().get(&set).unwrap();
    assert_eq!((entry.grade(false), entry.failure(), entry.proven_at(Grade::ReadBack)), (Some(Grade::ReadBack), None, Some(now)));
    assert!(entry.failure_in("copy").is_some() && entry.failure_in("main").is_none());
    // A first store that was given another name is still the first.
    log.append(proof("primary", false)).await.unwrap();
    assert!(log.state().get(&set).unwrap().failure_in("main").is_some());
}

/// A repository on a store that overwrites, and its key.
async fn on_overwriting_store() -> (Arc<MemoryStore>, Repository, RoleKey, tempfile::TempDir) {
    let store = Arc::new(MemoryStore::overwriting());
    let folder = tempfile::tempdir().unwrap();
    let lock = Arc::new(FileLock::at(folder.path().join("below/single-writer.lock")));
    let env = Env { pause: Arc::new(Quick), writer_lock: Some(lock), ..Env::default() };
    let NewRepository { repository, root, key } = Repository::init(store.clone(), env.clone(), "web-1").await.unwrap();
    assert!(why_single_writer(&*store, None, Some(false)).await.unwrap().is_some(), "what the probe found nobody talks away");
    repository.make_single_writer(&root, "web-1").await.unwrap();
    let repository = Repository::open(store.clone(), env, &Trust::OnFirstUse).await.unwrap();
    (store, repository, RoleKey { number: 1, signer: Arc::new(key) }, folder)
}

#[tokio::test]
async fn rule_13_two_processes_of_the_one_host_never_overwrite_each_others_records() {
    let (store, repository, key, _folder) = on_overwriting_store().await;
    assert_eq!(repository.single_writer(), Some("web-1"));
    let open = || async { JobLog::open(&repository, &job(), vec![key.clone()]).await.unwrap() };
    let chain: SetId = "shop/20250101T020000Z-full-7k3q".parse().unwrap();
    let mut tasks = Vec::new();
    for _ in 0..8 {
        // Each has read the empty log.
        let (mut log, chain) = (open().await, chain.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..5 {
                log.append(Body::CloseChain { chain: chain.clone(), reason: "because".into() }).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let log = open().await;
    assert_eq!((log.head(), log.state().findings().len()), (40, 0), "{:?}", log.state().findings());
    // One that knows an old head does not write over what came since, whatever the store would let it.
    let stale = open().await;
    let mut other = open().await;
    let first = other.append(Body::CloseChain { chain: chain.clone(), reason: "first".into() }).await.unwrap();
    let kept = whole::read(&*store, &record_key(&job(), first.number)).await.unwrap();
    let sealed = stale.seal(Body::CloseChain { chain: chain.clone(), reason: "second".into() }).unwrap();
    assert_eq!(stale.send(&sealed).await.unwrap(), crate::catalog::log::Sent::Taken);
    assert_eq!(whole::read(&*store, &record_key(&job(), first.number)).await.unwrap(), kept);
    // Without a lock nothing is appended.
    let bare = Repository::open(store.clone(), Env::default(), &Trust::OnFirstUse).await.unwrap();
    let mut log = JobLog::open(&bare, &job(), vec![key.clone()]).await.unwrap();
    let refused = log.append(Body::CloseChain { chain, reason: "because".into() }).await.unwrap_err();
    assert_eq!((refused.kind(), log.head()), (Kind::Preflight, first.number));
}

#[tokio::test]
async fn rule_13_another_host_and_a_repository_that_names_none_are_refused() {
    let (store, repository, _, _folder) = on_overwriting_store().await;
    assert!(repository.check_writer("web-1", Some("it overwrites")).is_ok());
    let refused = repository.check_writer("web-2", None).unwrap_err();
    assert!(refused.kind() == Kind::Preflight && refused.to_string().contains("only 'web-1' may write"), "{refused}");
    let again = Repository::init(store, Env::default(), "web-2").await.err().unwrap();
    assert_eq!(again.kind(), Kind::Exists, "a second init overwrites nothing");
    let bed = Bed::new().await;
    assert!(bed.repository.check_writer("web-1", None).is_ok());
    assert_eq!(bed.repository.check_writer("web-1", Some("it overwrites")).unwrap_err().kind(), Kind::Preflight);
}

#[tokio::test]
async fn rule_13_network_folders_count_as_single_writer_unless_told_otherwise() {
    let store = MemoryStore::default();
    let table = [
        (None, None, false),
        (None, Some(true), true),
        (None, Some(false), false),
        (Some("NFS"), None, true),
        (Some("NFS"), Some(true), true),
        (Some("SMB"), Some(false), false),
    ];
    for (network, told, single) in table {
        assert_eq!(why_single_writer(&store, network, told).await.unwrap().is_some(), single, "{network:?} {told:?}");
    }
}
