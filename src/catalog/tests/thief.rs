//! Someone who may write to the store and owns no key, or one that was revoked: what he puts there counts for nothing, is named, and costs little.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::catalog::cache::Cache;
use crate::catalog::encoding::{self, record_subject};
use crate::catalog::keys::{KeyFile, LogHead, MinisignKey, RoleKey, all_in_one};
use crate::catalog::lease::{self, Lease, Standing};
use crate::catalog::log::record_key;
use crate::catalog::repository::{Repository, Terms, Trust};
use crate::catalog::testing::{Bed, at, job};
use crate::catalog::{Finding, JobLog, Outcome, Rules, VoidReason, checkpoint};
use crate::error::Result;
use crate::model::record::Body;
use crate::model::{FORMAT, JobName, SetKind, Sha256};
use crate::store::{Entry, Head, Store};

const HOUR: Duration = Duration::from_secs(3600);

/// Counts what is asked of a store.
struct Counted {
    inner: Arc<dyn Store>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Counted {
    fn one(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Store for Counted {
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn put(&self, key: &str, body: crate::store::Body) -> Result<()> {
        self.one();
        self.inner.put(key, body).await
    }
    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        self.one();
        self.bytes.fetch_add(length, Ordering::SeqCst);
        self.inner.get_range(key, offset, length).await
    }
    async fn head(&self, key: &str) -> Result<Head> {
        self.one();
        self.inner.head(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        self.one();
        self.inner.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.one();
        self.inner.delete(key).await
    }
    async fn server_date(&self) -> Result<Timestamp> {
        self.inner.server_date().await
    }
}

/// What opening the repository and reading its one log costs: requests and bytes.
async fn cost(bed: &Bed, cache: Option<&Cache>) -> (u64, u64, JobLog) {
    let store = Arc::new(Counted { inner: bed.store.clone(), requests: AtomicU64::new(0), bytes: AtomicU64::new(0) });
    let mut env = bed.repository.env().clone();
    env.cache = cache.cloned();
    let trust = Trust::Known { id: bed.repository.id().into(), root: bed.repository.root().clone() };
    let repository = Repository::open(store.clone(), env, &trust).await.unwrap();
    let log = JobLog::open(&repository, &job(), vec![bed.key.clone()]).await.unwrap();
    (store.requests.load(Ordering::SeqCst), store.bytes.load(Ordering::SeqCst), log)
}

fn put(bed: &Bed, key: &str, bytes: impl Into<Bytes>) {
    bed.store.inner.overwrite(key, bytes.into());
}

/// A key file that takes the place of key 1, with these heads.
fn revoking(bed: &Bed, number: u64, heads: Option<BTreeMap<JobName, LogHead>>) -> RoleKey {
    let secret = MinisignKey::generate().unwrap();
    let file = KeyFile {
        format: FORMAT,
        repository: bed.repository.id().into(),
        number,
        roles: all_in_one(),
        public: crate::catalog::Signer::public(&secret).clone(),
        holder: "web-2".into(),
        at: at("2025-01-02T00:00:00Z"),
        revokes: vec![1],
        heads,
    };
    put(bed, &KeyFile::key(number), file.seal(&*bed.root).unwrap());
    RoleKey { number, signer: Arc::new(secret) }
}

fn head_of(log: &JobLog) -> BTreeMap<JobName, LogHead> {
    [(job(), LogHead { number: log.head(), sha256: *log.state().head_sha256() })].into()
}

/// The repository of a machine that remembers no record.
async fn elsewhere(bed: &Bed) -> Repository {
    let env = crate::catalog::Env { high_water: None, ..bed.repository.env().clone() };
    let trust = Trust::Known { id: bed.repository.id().into(), root: bed.repository.root().clone() };
    Repository::open(bed.store.clone(), env, &trust).await.unwrap()
}

/// Signs with the old key whatever the rules say.
async fn thiefs_log(bed: &Bed, job: &JobName) -> JobLog {
    let rules = Rules { revoked_everywhere: false, ..Rules::default() };
    JobLog::open_with(&elsewhere(bed).await, job, vec![bed.key.clone()], rules).await.unwrap()
}

#[tokio::test]
async fn f130_a_revoked_key_counts_up_to_the_named_heads_and_founds_no_log() {
    let bed = Bed::new().await;
    let repository = elsewhere(&bed).await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    let new = revoking(&bed, 2, Some(head_of(&log)));
    // The thief appends to the log that was named.
    let mut thief = thiefs_log(&bed, &job()).await;
    let forged = bed.backup(&mut thief, SetKind::Full).await;
    // And founds one that was not.
    let evil: JobName = "evil".parse().unwrap();
    let mut thief = thiefs_log(&bed, &evil).await;
    bed.backup(&mut thief, SetKind::Full).await;
    let mut owner = JobLog::open(&repository, &job(), vec![new.clone()]).await.unwrap();
    assert!(owner.state().get(&first).is_some() && owner.state().get(&forged).is_none());
    assert!(matches!(owner.state().findings(), [Finding::Unverified { number: 2, reason }] if reason.contains("key file 2")));
    let next = bed.backup(&mut owner, SetKind::Full).await;
    let read = JobLog::open(&repository, &job(), vec![bed.key.clone()]).await.unwrap();
    assert!(read.state().get(&next).is_some() && read.state().get(&forged).is_none());
    let foreign = JobLog::open(&repository, &evil, vec![]).await.unwrap();
    assert_eq!(foreign.state().all().count(), 0);
    assert!(matches!(foreign.state().findings(), [Finding::Unverified { reason, .. }] if reason.contains("it is foreign")));
    // A key-change that the thief signs with the old key brings nothing back.
    let mut thief = thiefs_log(&bed, &"other".parse().unwrap()).await;
    bed.backup(&mut thief, SetKind::Full).await;
    let change = Body::KeyChange { number: 2, sha256: Sha256::of(&bed.raw(&KeyFile::key(2)).await), revoked: vec![1] };
    thief.append(change).await.unwrap();
    // Nor does the owner write with it.
    let mut old = JobLog::open(&repository, &job(), vec![bed.key.clone()]).await.unwrap();
    assert!(old.begin_run(SetKind::Full, "main").await.unwrap_err().to_string().contains("was revoked"));
    let (jobs, odd) = repository.look_at_jobs().await.unwrap();
    let odd: Vec<&str> = odd.iter().map(|odd| odd.key.as_str()).collect();
    assert_eq!((jobs, odd), (vec![job()], vec!["jobs/evil/", "jobs/other/"]));
}

#[tokio::test]
async fn f130_a_run_whose_key_was_revoked_while_it_worked_is_told() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    bed.backup(&mut log, SetKind::Full).await;
    let mut runner = bed.log().await;
    let run = runner.begin_run(SetKind::Full, "main").await.unwrap();
    let manifest = bed.upload(&run).await;
    let (heads, root) = (head_of(&log), bed.root.clone());
    // The key file comes in the moment in which the record is sent.
    let note = |_: &_| {
        let secret = MinisignKey::generate().unwrap();
        let file = KeyFile {
            format: FORMAT,
            repository: bed.repository.id().into(),
            number: 2,
            roles: all_in_one(),
            public: crate::catalog::Signer::public(&secret).clone(),
            holder: "web-2".into(),
            at: at("2025-01-02T00:00:00Z"),
            revokes: vec![1],
            heads: Some(heads.clone()),
        };
        put(&bed, &KeyFile::key(2), file.seal(&*root).unwrap());
        Ok(())
    };
    let outcome = run.commit(&mut runner, manifest, note).await.unwrap();
    assert_eq!(outcome, Outcome::Void { reason: VoidReason::NoValidKey });
    assert_eq!(bed.log().await.state().live().count(), 1);
}

#[tokio::test]
async fn f130_a_log_that_differs_from_the_head_that_a_key_file_names_is_told_without_any_mark() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    bed.backup(&mut log, SetKind::Full).await;
    bed.backup(&mut log, SetKind::Full).await;
    let new = revoking(&bed, 2, Some(head_of(&log)));
    bed.store.inner.delete(&record_key(&job(), 2)).await.unwrap();
    *bed.mark.0.lock().unwrap() = None;
    let mut log = JobLog::open(&bed.repository, &job(), vec![new.clone()]).await.unwrap();
    assert_eq!(log.state().findings(), [Finding::Exchanged { number: 2, file: 2 }]);
    assert!(log.begin_run(SetKind::Full, "main").await.is_err());
    checkpoint::acknowledge(&mut log).await.unwrap();
    let mut log = JobLog::open(&bed.repository, &job(), vec![new]).await.unwrap();
    assert_eq!(log.state().open_findings().count(), 0, "{:?}", log.state().findings());
    bed.backup(&mut log, SetKind::Full).await;
}

#[tokio::test]
async fn f131_what_nobody_signed_below_repository_is_passed_over_and_not_read() {
    let bed = Bed::new().await;
    let terms = |number, host: &str| Terms {
        format: FORMAT,
        repository: bed.repository.id().into(),
        number,
        single_writer: Some(host.into()),
        at: at("2025-01-01T00:00:00Z"),
    };
    bed.repository.write_terms(&*bed.root, &terms(1, "web-1")).await.unwrap();
    let (before, ..) = cost(&bed, None).await;
    put(&bed, "repository/0002.json", vec![0; 70 << 20]);
    put(&bed, "repository/0003.json", "hello");
    put(&bed, "repository/18446744073709551615.json", "{}");
    put(&bed, "repository/0001.json.0", "");
    put(&bed, "keys/0002.json", vec![0; 70 << 20]);
    put(&bed, "keys/0003.json", "x\ny\nz\na\nb\n");
    put(&bed, "keys/0004.json", "");
    let (after, bytes, log) = cost(&bed, None).await;
    assert!(after <= before + 3 && bytes < 100_000, "{before} {after} {bytes}");
    assert_eq!(log.repository().single_writer(), Some("web-1"));
    let odd: Vec<String> = log.repository().odd().into_iter().map(|odd| odd.key).collect();
    assert!(odd.len() == 7 && odd.contains(&"repository/0002.json".to_owned()) && odd.contains(&"keys/0003.json".to_owned()), "{odd:?}");
    // What is written next goes past what is in the way, and is found.
    bed.repository.write_terms(&*bed.root, &terms(2, "web-2")).await.unwrap();
    let file = KeyFile { number: 0, ..bed.repository.key_file(1).await.unwrap() };
    assert_eq!(bed.repository.add_key(&*bed.root, file).await.unwrap().number, 5);
    let (_, _, log) = cost(&bed, None).await;
    assert_eq!(log.repository().single_writer(), Some("web-2"));
    assert_eq!(log.repository().key_files().await.unwrap().len(), 2);
    // A listing that is full of something else hides nothing.
    for number in 0..1500 {
        put(&bed, &format!("repository/0001.json.{number}"), "x");
        put(&bed, &format!("keys/0000x{number}"), "x");
        put(&bed, &format!("keys/0001.json.{number}"), "x");
    }
    let (requests, _, log) = cost(&bed, None).await;
    assert_eq!((log.repository().single_writer(), log.repository().key_files().await.unwrap().len()), (Some("web-2"), 2));
    assert!(requests < 100, "{requests}");
}

#[tokio::test]
async fn f132_an_epoch_beyond_reason_a_lease_without_end_and_nonsense_hold_nothing() {
    let bed = Bed::new().await;
    let key = |epoch: u64| format!("jobs/shop/lease/{epoch:010}.json");
    let shop = job();
    let acquire = || Lease::acquire(&bed.repository, &shop, "web-1", 7, HOUR);
    let held = |epoch: u64, until: &str| {
        format!(r#"{{"epoch":{epoch},"holder":{{"host":"x","pid":1,"since":"2025-01-01T00:00:00Z"}},"until":"{until}","released":false}}"#)
    };
    let first = acquire().await.unwrap();
    first.release(&bed.repository).await.unwrap();
    put(&bed, &key(u64::MAX), "{}");
    put(&bed, &key(u64::MAX - 1), held(u64::MAX - 1, "2025-01-01T02:30:00Z"));
    put(&bed, &key(3), held(3, "9999-01-01T00:00:00Z"));
    put(&bed, &key(4), vec![0; 5000]);
    put(&bed, &key(5), "");
    put(&bed, "jobs/shop/lease/x", "");
    assert_eq!(lease::standing(&bed.repository, &job(), "web-1").await.unwrap(), Standing::Free);
    assert_eq!(lease::odd(&bed.repository, &job()).await.unwrap().len(), 6);
    let mut lease = acquire().await.unwrap();
    assert_eq!(lease.epoch, 6);
    lease.renew(&bed.repository, HOUR).await.unwrap();
    put(&bed, &key(lease.epoch + 1), "in the way");
    lease.renew(&bed.repository, HOUR).await.unwrap();
    let other = Lease::acquire(&bed.repository, &job(), "web-2", 8, HOUR).await.unwrap_err();
    assert_eq!(other.kind(), crate::error::Kind::Locked);
    lease.release(&bed.repository).await.unwrap();
    let gone = lease::clear(&bed.repository, &job()).await.unwrap();
    assert!(gone.iter().any(|odd| odd.key == key(u64::MAX)), "{gone:?}");
    lease::tidy(&bed.repository, &job()).await.unwrap();
    let left = crate::store::whole::list_all(&*bed.store, "jobs/shop/lease/").await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(lease::odd(&bed.repository, &job()).await.unwrap().is_empty());
    acquire().await.unwrap();
}

#[tokio::test]
async fn f133_what_stands_far_ahead_in_the_log_costs_a_few_requests_and_hinders_nothing() {
    for ahead in [2, 90, 9000, 9_999_999_000] {
        let bed = Bed::new().await;
        let mut log = bed.log().await;
        bed.backup(&mut log, SetKind::Full).await;
        let (before, ..) = cost(&bed, None).await;
        let stray = log.head() + ahead;
        put(&bed, &record_key(&job(), stray), "junk");
        let (after, _, log) = cost(&bed, None).await;
        assert!(after <= before + 4, "{ahead}: {before} {after}");
        assert_eq!(log.state().findings(), [Finding::Stray { number: stray }]);
        // Backups go on, over it where it comes to that, and so it is after a person has looked.
        let mut log = bed.log().await;
        bed.backup(&mut log, SetKind::Full).await;
        checkpoint::acknowledge(&mut log).await.unwrap();
        bed.backup(&mut bed.log().await, SetKind::Full).await;
        let (later, _, log) = cost(&bed, None).await;
        assert!(later <= before + 4 + 3 * 2 + 2, "{ahead}: {before} {later}");
        assert_eq!(log.state().live().count(), 3);
        assert!(!log.state().findings().iter().any(|found| matches!(found, Finding::Gap { .. })));
    }
}

#[tokio::test]
async fn f133_junk_in_the_log_is_read_once_and_never_believed() {
    let bed = Bed::new().await;
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    // Of the shape of records, signed by nobody whom the log knows.
    let stranger = MinisignKey::generate().unwrap();
    for number in 2..22 {
        let good = bed.raw(&record_key(&job(), 1)).await;
        let line = encoding::split(&good).unwrap().json().unwrap().replace(r#""number":1,"#, &format!(r#""number":{number},"#));
        put(&bed, &record_key(&job(), number), encoding::seal(&stranger, &line, &record_subject(&job(), number)).unwrap());
    }
    put(&bed, &record_key(&job(), 22), vec![7; 3 << 20]);
    let second = bed.backup(&mut bed.log().await, SetKind::Full).await;
    let (full, bytes, _) = cost(&bed, Some(&cache)).await;
    assert!(full > 40 && bytes > 3 << 20);
    for _ in 0..2 {
        let (requests, bytes, log) = cost(&bed, Some(&cache)).await;
        assert!(requests <= 12 && bytes < 100_000, "{requests} {bytes}");
        assert_eq!(log.state().live().map(|entry| entry.id().clone()).collect::<Vec<_>>(), [first.clone(), second.clone()]);
        assert_eq!(log.state().findings().len(), 21);
    }
}

/// Two records were taken away: a person has seen that, and nobody looks for them again.
#[tokio::test]
async fn f133_a_gap_that_a_person_has_seen_is_not_looked_for_again() {
    let bed = Bed::new().await;
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let mut log = bed.log().await;
    for _ in 0..30 {
        bed.backup(&mut log, SetKind::Full).await;
    }
    for number in 2..29 {
        bed.store.inner.delete(&record_key(&job(), number)).await.unwrap();
    }
    *bed.mark.0.lock().unwrap() = None;
    let mut log = bed.log().await;
    assert!(log.state().open_findings().any(Finding::stops_appends));
    checkpoint::acknowledge(&mut log).await.unwrap();
    cost(&bed, Some(&cache)).await;
    let (requests, _, log) = cost(&bed, Some(&cache)).await;
    assert!(requests <= 12, "{requests}");
    assert_eq!(log.state().open_findings().count(), 0);
    assert_eq!(log.state().live().count(), 3);
}

#[tokio::test]
async fn f131_names_of_jobs_that_nobody_signed_are_no_jobs() {
    let bed = Bed::new().await;
    bed.backup(&mut bed.log().await, SetKind::Full).await;
    for number in 0..500 {
        put(&bed, &format!("jobs/a{number}/log/0000000001.signed"), "x");
        put(&bed, &format!("jobs/z{number}/sets/2025/01/01/x"), "x");
    }
    for number in 0..1500 {
        put(&bed, &format!("jobs/many/lease/{number}"), "x");
    }
    put(&bed, "jobs/Not-A-Job/x", "");
    let store = Arc::new(Counted { inner: bed.store.clone(), requests: AtomicU64::new(0), bytes: AtomicU64::new(0) });
    let repository = bed.through(store.clone()).await;
    let (jobs, odd) = repository.look_at_jobs().await.unwrap();
    assert_eq!(jobs, [job()]);
    assert_eq!(odd.len(), 1002);
    // One for each name that could be one, far from one for each object.
    assert!(store.requests.load(Ordering::SeqCst) < 530, "{}", store.requests.load(Ordering::SeqCst));
}
