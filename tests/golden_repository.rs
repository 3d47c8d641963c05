//! The golden repository of each format under tests/data is opened and read (FAULTS 88), by drctl and by stock minisign.
//!
//! Its keys and passphrase are for this test and protect nothing.

#![expect(clippy::unwrap_used, reason = "a test: what panics has failed")]

mod tiny;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use drctl::catalog::keys::{KeyFile, MinisignKey, Role, RoleKey};
use drctl::catalog::objects::{self, Depth};
use drctl::catalog::{Env, Hold, JobLog, Outcome, RecoveryFile, Repository, Signer as _, checkpoint, hold, retire};
use drctl::model::record::{Body, Grade, Proof};
use drctl::model::{Clock as _, FORMAT, JobName, Secret, SetKind, Sha256, TestClock};
use drctl::store::memory::MemoryStore;
use drctl::store::{Store, whole};

const PASSPHRASE: &str = "golden repository";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden-format-0")
}

fn job() -> JobName {
    "shop".parse().unwrap()
}

fn load(folder: &Path, under: &Path, store: &MemoryStore) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            load(folder, &path, store);
        } else {
            let key = path.strip_prefix(folder).unwrap().to_str().unwrap();
            store.overwrite(key, std::fs::read(&path).unwrap().into());
        }
    }
}

async fn golden() -> (Arc<MemoryStore>, Repository, RecoveryFile) {
    let store = Arc::new(MemoryStore::default());
    load(&folder().join("repository"), &folder().join("repository"), &store);
    let recovery = RecoveryFile::parse(&std::fs::read_to_string(folder().join("recovery.txt")).unwrap()).unwrap();
    let repository = Repository::open(store.clone(), Env::default(), &recovery.trust()).await.unwrap();
    (store, repository, recovery)
}

#[tokio::test]
async fn f88_the_golden_repository_of_format_0_is_read_for_ever() {
    let (store, repository, _) = golden().await;
    assert_eq!(repository.jobs().await.unwrap(), [job()]);
    let log = JobLog::open(&repository, &job(), vec![]).await.unwrap();
    let state = log.state();
    assert_eq!((state.head(), state.findings()), (13, &[][..]));
    let listed: Vec<String> = state.all().map(|e| format!("{} {} {:?} {:?}", e.number, e.id().kind(), e.intent, e.grade(false))).collect();
    assert_eq!(
        listed,
        ["1 full Some(8) None", "2 incremental Some(8) None", "3 full None Some(ReadBack)", "12 incremental None Some(Uploaded)"]
    );
    for entry in state.live() {
        assert_eq!(objects::check(&*store, &entry.manifest, Depth::Hashed).await.unwrap(), []);
    }
    let pinned = state.live().next().unwrap();
    assert_eq!(pinned.pin.as_ref().unwrap().reason, "audit");
    assert!(pinned.holds.is_empty());
    assert_eq!(state.intents().next().unwrap().deleted, Some(9));
    assert!(!state.key_is_valid(1) && state.key_is_valid(2));
    assert_eq!(state.checkpoint(), Some(11));
    let short = JobLog::open_at_checkpoint(&repository, &job(), vec![]).await.unwrap();
    assert_eq!(short.head(), 13);
    assert_eq!(short.state().live().count(), 2);
}

#[tokio::test]
async fn the_golden_recovery_file_opens_and_its_keys_still_work() {
    let (store, repository, recovery) = golden().await;
    let secrets = recovery.open(&Secret::new(PASSPHRASE)).unwrap();
    assert_eq!(secrets.root.public(), repository.root());
    // The root key makes a new role key, with which work goes on.
    let key = MinisignKey::generate().unwrap();
    let file = key_file(&repository, 3, key.public().clone(), vec![2]);
    whole::create(&*store, &KeyFile::key(3), file.seal(&secrets.root).unwrap()).await.unwrap();
    let old = MinisignKey::from_text(&Secret::new(std::fs::read_to_string(folder().join("key-0002.secret")).unwrap())).unwrap();
    let keys = vec![RoleKey { number: 2, signer: Arc::new(old) }, RoleKey { number: 3, signer: Arc::new(key) }];
    let mut log = JobLog::open(&repository, &job(), keys).await.unwrap();
    let sha256 = Sha256::of(&whole::read(&*store, &KeyFile::key(3)).await.unwrap());
    log.append(Body::KeyChange { number: 3, sha256, revoked: vec![2] }).await.unwrap();
    backup(&mut log, &*store, SetKind::Full, 9).await;
    assert_eq!(log.state().findings(), []);
}

/// The lines of docs/format.md.
#[test]
fn stock_minisign_checks_every_signed_file() {
    let folder = folder().join("repository");
    let scratch = tempfile::tempdir().unwrap();
    let check = |file: &str, key: &str| {
        let script = format!(
            "head -n 1 '{}' > line && tail -n 4 '{}' > line.minisig && minisign -Vm line -P {key}",
            folder.join(file).display(),
            folder.join(file).display()
        );
        let out = Command::new("sh").args(["-c", &script]).current_dir(scratch.path()).output().unwrap();
        assert!(out.status.success(), "{file}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let json = |file: &str| -> serde_json::Value {
        serde_json::from_str(std::fs::read_to_string(folder.join(file)).unwrap().lines().next().unwrap()).unwrap()
    };
    let root = json("drctl-repository.json")["root"].as_str().unwrap().to_owned();
    assert!(check("drctl-repository.json", &root).contains("Trusted comment: drctl repository\n"));
    assert!(check("keys/0001.json", &root).contains("Trusted comment: drctl key 0001\n"));
    assert!(check("keys/0002.json", &root).contains("Trusted comment: drctl key 0002\n"));
    for number in 1..=13 {
        let file = format!("jobs/shop/log/{number:010}.signed");
        let key = json(&format!("keys/{:04}.json", json(&file)["key"].as_u64().unwrap()))["public"].as_str().unwrap().to_owned();
        assert!(check(&file, &key).contains(&format!("Trusted comment: drctl log record shop {number:010}\n")));
    }
}

fn key_file(repository: &Repository, number: u64, public: drctl::catalog::PublicKey, revokes: Vec<u64>) -> KeyFile {
    KeyFile {
        format: FORMAT,
        repository: repository.id().to_owned(),
        number,
        roles: [Role::Writer, Role::Prover, Role::Pruner, Role::Restorer].into(),
        public,
        holder: "web-1".into(),
        at: "2025-01-02T00:00:00Z".parse().unwrap(),
        revokes,
        heads: None,
    }
}

async fn backup(log: &mut JobLog, store: &dyn Store, kind: SetKind, salt: u64) -> drctl::model::SetId {
    let run = log.begin_run(kind, "main").await.unwrap();
    let set = run.set().clone();
    let (manifest, objects) = tiny::set(&run, salt);
    for (key, bytes) in objects {
        whole::create(store, &key, bytes).await.unwrap();
    }
    let outcome = run.commit(log, manifest, |_| Ok(())).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed { .. }));
    set
}

/// Made tests/data/golden-format-0. A golden repository is never made anew: a new format gets one of its own.
#[tokio::test]
#[ignore = "writes a golden repository; by hand, once per format"]
async fn write_a_golden_repository() {
    let folder = PathBuf::from(std::env::var("GOLDEN").expect("GOLDEN names the folder to make"));
    let clock = Arc::new(TestClock::at("2025-01-01T02:00:00Z".parse().unwrap()));
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let env = Env { clock: clock.clone(), ..Env::default() };
    let new = Repository::init(store.clone(), env, "web-1").await.unwrap();
    let (repository, root) = (new.repository.clone(), new.root);
    let first = RoleKey { number: 1, signer: Arc::new(new.key) };
    let second = MinisignKey::generate().unwrap();
    let file = key_file(&repository, 2, second.public().clone(), vec![1]);
    let bytes = file.seal(&root).unwrap();
    whole::create(&*store, &KeyFile::key(2), bytes.clone()).await.unwrap();
    let second_text = second.to_text().unwrap();
    let keys = vec![first, RoleKey { number: 2, signer: Arc::new(second) }];
    let mut log = JobLog::open(&repository, &job(), keys).await.unwrap();
    let old = backup(&mut log, &*store, SetKind::Full, 1).await;
    clock.step_seconds(3600);
    backup(&mut log, &*store, SetKind::Incremental, 2).await;
    clock.step_seconds(23 * 3600);
    let set = backup(&mut log, &*store, SetKind::Full, 3).await;
    let now = clock.now();
    let proof = Proof {
        set: set.clone(),
        grade: Grade::ReadBack,
        passed: true,
        findings: vec![],
        started_at: now,
        finished_at: now,
        store: "main".into(),
    };
    hold::prove(&mut log, proof).await.unwrap();
    hold::pin(&mut log, &set, "2026-01-01T00:00:00Z".parse().unwrap(), "audit").await.unwrap();
    let held = Hold::acquire(&mut log, &set, Duration::from_secs(3600)).await.unwrap();
    held.release(&mut log).await.unwrap();
    let intent = retire::retire_chain(&mut log, &old, "older than kept").await.unwrap().unwrap();
    retire::finish_delete(&mut log, intent).await.unwrap();
    log.append(Body::KeyChange { number: 2, sha256: Sha256::of(&bytes), revoked: vec![1] }).await.unwrap();
    checkpoint::checkpoint(&mut log).await.unwrap();
    clock.step_seconds(3600);
    backup(&mut log, &*store, SetKind::Incremental, 4).await;
    log.append(Body::CloseChain { chain: set, reason: "max_age".into() }).await.unwrap();
    let identity = age::x25519::Identity::generate().to_string();
    let identity = Secret::new(age::secrecy::ExposeSecret::expose_secret(&identity));
    let recovery = RecoveryFile::seal("/backup/drctl", repository.id(), &root, &identity, &Secret::new(PASSPHRASE)).unwrap();
    save(&folder.join("recovery.txt"), recovery.to_text().into());
    save(&folder.join("key-0002.secret"), Bytes::from(second_text.expose().to_owned()));
    for entry in whole::list_all(&*store, "").await.unwrap() {
        save(&folder.join("repository").join(&entry.key), whole::read(&*store, &entry.key).await.unwrap());
    }
}

fn save(path: &Path, bytes: Bytes) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}
