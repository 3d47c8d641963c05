//! What tampering, loss and newer programs do to a log.

use std::time::Duration;

use bytes::Bytes;

use crate::catalog::encoding::{self, record_subject};
use crate::catalog::keys::{KeyFile, MinisignKey, Role, RoleKey, Signer};
use crate::catalog::log::record_key;
use crate::catalog::objects::{self, Depth, Wrong};
use crate::catalog::repository::{REPOSITORY_KEY, Repository, Trust};
use crate::catalog::testing::{Bed, job};
use crate::catalog::{Finding, JobLog, cache::Cache, checkpoint, hold, retire};
use crate::error::Kind;
use crate::model::record::{Body, Record};
use crate::model::{FORMAT, SetKind, Sha256};
use crate::store::Store as _;

/// Every byte of a commit record, each bit pattern of a flip that keeps it a byte: never believed, and the other sets stay.
#[tokio::test]
async fn f71_each_flipped_byte_of_a_commit_record_is_noticed() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    let second = bed.backup(&mut log, SetKind::Full).await;
    let key = record_key(&job(), 2);
    let good = bed.raw(&key).await;
    for index in 0..good.len() {
        let mut bad = good.to_vec();
        bad[index] ^= [0x01, 0x20, 0x80][index % 3];
        bed.store.inner.overwrite(&key, bad.into());
        *bed.mark.0.lock().unwrap() = None;
        let log = bed.log().await;
        assert!(log.state().get(&second).is_none(), "byte {index} of {}", good.len());
        assert!(log.state().get(&first).is_some_and(|entry| entry.is_good()));
        assert!(matches!(log.state().findings(), [Finding::Unverified { number: 2, .. }]), "byte {index}: {:?}", log.state().findings());
    }
    for length in 0..good.len() {
        bed.store.inner.overwrite(&key, good.slice(..length));
        assert!(bed.log().await.state().get(&second).is_none(), "cut at {length}");
    }
    let mut longer = good.to_vec();
    longer.push(b'\n');
    bed.store.inner.overwrite(&key, longer.into());
    assert!(bed.log().await.state().get(&second).is_none());
}

#[tokio::test]
async fn rule_12_what_does_not_verify_takes_its_number_and_is_bound_by_the_next() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    let garbage = Bytes::from_static(b"garbage");
    bed.store.inner.overwrite(&record_key(&job(), 2), garbage.clone());
    let second = bed.backup(&mut log, SetKind::Full).await;
    assert_eq!(log.state().get(&second).unwrap().number, 3);
    let third: Record = serde_json::from_str(encoding::split(&bed.raw(&record_key(&job(), 3)).await).unwrap().json().unwrap()).unwrap();
    assert_eq!(third.previous, Sha256::of(&garbage));
    // Backups go on; nothing is deleted before a person has looked.
    let plan = retire::retire_chain(&mut log, &first, "old").await;
    assert_eq!(plan.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(checkpoint::checkpoint(&mut log).await.unwrap_err().kind(), Kind::Corrupt);
    checkpoint::acknowledge(&mut log).await.unwrap();
    assert!(retire::retire_chain(&mut bed.log().await, &first, "old").await.unwrap().is_some());
}

#[tokio::test]
async fn f72_a_missing_record_is_a_gap_and_stops_appends_only() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    bed.backup(&mut log, SetKind::Full).await;
    let third = bed.backup(&mut log, SetKind::Full).await;
    bed.store.delete(&record_key(&job(), 2)).await.unwrap();
    let mut log = bed.log().await;
    assert_eq!(log.state().findings()[0], Finding::Gap { number: 2 });
    assert!(log.state().get(&first).is_some() && log.state().get(&third).is_some());
    let refused = log.begin_run(SetKind::Full, "main").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt);
    assert!(refused.to_string().contains("record 2 is missing"), "{refused}");
    // A person has looked: from the checkpoint on work goes on.
    checkpoint::acknowledge(&mut log).await.unwrap();
    bed.backup(&mut bed.log().await, SetKind::Full).await;
}

#[tokio::test]
async fn a_record_far_ahead_is_no_part_of_the_log() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    bed.store.inner.overwrite("jobs/shop/log/9999999999.signed", Bytes::from_static(b"x"));
    bed.store.inner.overwrite("jobs/shop/log/notes", Bytes::from_static(b"x"));
    let mut log = bed.log().await;
    assert_eq!((log.head(), log.state().findings()), (1, &[Finding::Stray { number: 9_999_999_999 }][..]));
    bed.backup(&mut log, SetKind::Full).await;
    assert!(retire::retire_chain(&mut log, &first, "x").await.unwrap().is_some(), "it alarms, and hinders nobody");
}

#[tokio::test]
async fn f72_a_removed_head_and_a_replayed_log_are_noticed_by_the_mark() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    bed.backup(&mut log, SetKind::Full).await;
    let newest = bed.raw(&record_key(&job(), 2)).await;
    bed.store.delete(&record_key(&job(), 2)).await.unwrap();
    let mut rolled_back = bed.log().await;
    assert_eq!(rolled_back.state().findings(), [Finding::RolledBack { seen: 2, found: 1 }]);
    assert!(rolled_back.state().get(&first).is_some(), "still readable");
    assert_eq!(rolled_back.begin_run(SetKind::Full, "main").await.unwrap_err().kind(), Kind::Corrupt);
    // Another record under the same number, rightly signed: the log forked.
    *bed.mark.0.lock().unwrap() = None;
    bed.backup(&mut bed.log().await, SetKind::Full).await;
    *bed.mark.0.lock().unwrap() = Some((2, Sha256::of(&newest)));
    assert_eq!(bed.log().await.state().findings(), [Finding::RolledBack { seen: 2, found: 2 }]);
}

#[tokio::test]
async fn f72_an_old_record_put_back_in_another_place_counts_for_nothing() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    let old = bed.raw(&record_key(&job(), 1)).await;
    bed.store.inner.overwrite(&record_key(&job(), 2), old.clone());
    bed.store.inner.overwrite("jobs/other/log/0000000001.signed", old);
    let log = bed.log().await;
    assert!(matches!(log.state().findings(), [Finding::Unverified { number: 2, .. }]));
    assert_eq!(log.state().get(&first).unwrap().number, 1);
    let other = JobLog::open(&bed.repository, &"other".parse().unwrap(), vec![]).await.unwrap();
    assert_eq!(other.state().all().count(), 0);
}

#[tokio::test]
async fn a_record_exchanged_under_a_later_one_breaks_the_link() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    bed.backup(&mut log, SetKind::Full).await;
    let sealed = log.seal(Body::CloseChain { chain: log.state().live().next().unwrap().id().clone(), reason: "x".into() }).unwrap();
    let second = bed.backup(&mut log, SetKind::Full).await;
    bed.backup(&mut log, SetKind::Full).await;
    // Signed by the right key for number 2, yet not what stood there when 3 was appended.
    bed.store.inner.overwrite(&record_key(&job(), 2), sealed.bytes);
    *bed.mark.0.lock().unwrap() = None;
    let log = bed.log().await;
    assert_eq!(log.state().findings(), [Finding::BrokenLink { number: 3 }]);
    assert!(log.state().get(&second).is_none());
}

#[tokio::test]
async fn f73_swapped_objects_of_two_sets_are_noticed() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let (a, b) = (bed.backup(&mut log, SetKind::Full).await, bed.backup(&mut log, SetKind::Full).await);
    let (ka, kb) = (format!("{}files.a.tar.zst", a.prefix()), format!("{}files.a.tar.zst", b.prefix()));
    let (oa, ob) = (bed.raw(&ka).await, bed.raw(&kb).await);
    assert_eq!(oa.len(), ob.len());
    let look = |set: &crate::model::SetId| log.state().get(set).unwrap().manifest.clone();
    assert_eq!(objects::check(&*bed.store, &look(&a), Depth::Hashed).await.unwrap(), []);
    bed.store.inner.overwrite(&ka, ob);
    bed.store.inner.overwrite(&kb, oa);
    for (set, key) in [(a.clone(), ka), (b, kb.clone())] {
        let damage = objects::check(&*bed.store, &look(&set), Depth::Hashed).await.unwrap();
        assert!(matches!(&damage[..], [one] if one.key == key && matches!(one.what, Wrong::Hash { .. })), "{damage:?}");
    }
    bed.store.delete(&kb).await.unwrap();
    bed.store.inner.overwrite(&format!("{}RESTORE.md", a.prefix()), Bytes::from_static(b"x"));
    let damage = objects::check(&*bed.store, &look(&a), Depth::Present).await.unwrap();
    assert!(matches!(&damage[..], [one] if matches!(one.what, Wrong::Length { found: 1, .. })), "{damage:?}");
}

/// A record as a newer program would write it: other fields in the body, the envelope kept.
async fn newer_record(bed: &Bed, log: &JobLog, signer: &dyn Signer) -> Bytes {
    let json = serde_json::json!({
        "format": FORMAT + 1, "repository": bed.repository.id(), "job": "shop", "number": log.head() + 1,
        "previous": log.state().head_sha256(), "key": 1, "at": "2031-01-01T00:00:00Z", "colour": "blue",
        "body": { "type": "commit-2", "things": [1, 2, 3] }
    });
    encoding::seal(signer, &json.to_string(), &record_subject(&job(), log.head() + 1)).unwrap()
}

#[tokio::test]
async fn f88_a_record_of_a_newer_format_refuses_the_log() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let set = bed.backup(&mut log, SetKind::Full).await;
    let record = newer_record(&bed, &log, &*bed.key.signer).await;
    bed.store.inner.overwrite(&record_key(&job(), 2), record);
    let refused = JobLog::open(&bed.repository, &job(), vec![bed.key.clone()]).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Unsupported);
    assert!(refused.hint_text().unwrap().contains("newer drctl"));
    // Nor does a log that was open before prune anything now.
    assert_eq!(retire::retire_chain(&mut log, &set, "old").await.unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(retire::sweep(&mut log, std::time::Duration::ZERO).await.unwrap_err().kind(), Kind::Unsupported);
    // What only pretends to be newer is not signed and stops nobody.
    let forged = newer_record(&bed, &bed.log_before(1).await, &MinisignKey::generate().unwrap()).await;
    bed.store.inner.overwrite(&record_key(&job(), 2), forged);
    assert!(JobLog::open(&bed.repository, &job(), vec![]).await.is_ok());
}

impl Bed {
    /// The log as it was when it ended at `head`.
    async fn log_before(&self, head: u64) -> JobLog {
        self.store.delete(&record_key(&job(), head + 1)).await.unwrap();
        *self.mark.0.lock().unwrap() = None;
        self.log().await
    }
}

#[tokio::test]
async fn f88_a_newer_repository_or_other_repository_is_refused() {
    let bed = Bed::new().await;
    let env = bed.repository.env().clone();
    let trust = Trust::Known { id: bed.repository.id().into(), root: bed.repository.root().clone() };
    assert!(Repository::open(bed.store.clone(), env.clone(), &trust).await.is_ok());
    let mut log = bed.log().await;
    bed.backup(&mut log, SetKind::Full).await;
    assert_eq!(bed.repository.jobs().await.unwrap(), [job()]);
    let again = Repository::init(bed.store.clone(), env.clone(), "web-2").await.err().unwrap();
    assert_eq!(again.kind(), Kind::Exists);
    let strangers = Bed::new().await;
    let other = Trust::Known { id: bed.repository.id().into(), root: strangers.repository.root().clone() };
    let refused = Repository::open(bed.store.clone(), env.clone(), &other).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    let good = bed.raw(REPOSITORY_KEY).await;
    for index in 0..good.len() {
        let mut bad = good.to_vec();
        bad[index] ^= 1;
        bed.store.inner.overwrite(REPOSITORY_KEY, bad.into());
        assert!(Repository::open(bed.store.clone(), env.clone(), &trust).await.is_err(), "byte {index}");
    }
    let newer = serde_json::json!({ "format": FORMAT + 1, "repository": bed.repository.id(), "shape": "new" }).to_string();
    bed.store.inner.overwrite(REPOSITORY_KEY, encoding::seal(&*bed.root, &newer, encoding::REPOSITORY_SUBJECT).unwrap());
    let refused = Repository::open(bed.store.clone(), env.clone(), &trust).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Unsupported);
    bed.store.delete(REPOSITORY_KEY).await.unwrap();
    assert_eq!(Repository::open(bed.store.clone(), env, &trust).await.err().unwrap().kind(), Kind::NotFound);
}

/// A second key with the roles given; its file stands, no log knows it yet.
async fn second_key(bed: &Bed, number: u64, roles: &[Role], revokes: Vec<u64>) -> (RoleKey, Body) {
    let secret = MinisignKey::generate().unwrap();
    let file = KeyFile {
        format: FORMAT,
        repository: bed.repository.id().into(),
        number,
        roles: roles.iter().copied().collect(),
        public: secret.public().clone(),
        holder: "vault".into(),
        at: crate::model::Clock::now(&*bed.clock),
        revokes: revokes.clone(),
        heads: None,
    };
    let bytes = file.seal(&*bed.root).unwrap();
    bed.store.inner.overwrite(&KeyFile::key(number), bytes.clone());
    (RoleKey { number, signer: std::sync::Arc::new(secret) }, Body::KeyChange { number, sha256: Sha256::of(&bytes), revoked: revokes })
}

#[tokio::test]
async fn rule_4_keys_are_valid_from_their_record_until_they_are_revoked() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    let (writer, change) = second_key(&bed, 2, &[Role::Writer], vec![]).await;
    log.append(change.clone()).await.unwrap();
    let mut sealed = JobLog::open(&bed.repository, &job(), vec![writer.clone()]).await.unwrap();
    let second = bed.backup(&mut sealed, SetKind::Full).await;
    // A writer may not delete, prove or sum up.
    assert_eq!(retire::retire_chain(&mut sealed, &first, "x").await.unwrap_err().kind(), Kind::Denied);
    assert_eq!(checkpoint::checkpoint(&mut sealed).await.unwrap_err().kind(), Kind::Denied);
    // Key 3 revokes it.
    let (_, change) = second_key(&bed, 3, &[Role::Pruner], vec![2]).await;
    let lie = Body::KeyChange { number: 3, sha256: Sha256([9; 32]), revoked: vec![1] };
    log.append(lie).await.unwrap();
    assert!(log.state().key_is_valid(1), "what the root key did not sign revokes nobody");
    let run = sealed.begin_run(SetKind::Full, "main").await.unwrap();
    log.append(change.clone()).await.unwrap();
    assert!(!log.state().key_is_valid(2));
    let manifest = bed.upload(&run).await;
    let outcome = run.commit(&mut sealed, manifest, |_| Ok(())).await.unwrap();
    assert_eq!(outcome, crate::catalog::Outcome::Void { reason: crate::catalog::VoidReason::NoValidKey });
    // What it signed before stays; it cannot be brought back by its old file.
    assert!(log.state().get(&second).is_some_and(|entry| entry.is_good()));
    log.append(Body::KeyChange { number: 2, sha256: log.state().key(2).unwrap().sha256, revoked: vec![] }).await.unwrap();
    assert!(!bed.log().await.state().key_is_valid(2));
}

#[tokio::test]
async fn rule_4_a_key_that_the_root_signed_brings_itself_and_those_before_it() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    bed.backup(&mut log, SetKind::Full).await;
    let (prover, _) = second_key(&bed, 2, &[Role::Prover], vec![]).await;
    let (writer, change) = second_key(&bed, 3, &[Role::Writer], vec![1]).await;
    // A secret that is not that of the file brings nothing.
    let stranger = RoleKey { number: 3, signer: std::sync::Arc::new(MinisignKey::generate().unwrap()) };
    let mut false_one = JobLog::open(&bed.repository, &job(), vec![stranger]).await.unwrap();
    assert_eq!(false_one.begin_run(SetKind::Full, "main").await.err().unwrap().kind(), Kind::Denied);
    // Key 1 is lost: nobody is left who could vouch but the root key, and it did.
    let mut alone = JobLog::open(&bed.repository, &job(), vec![writer.clone()]).await.unwrap();
    let second = bed.backup(&mut alone, SetKind::Full).await;
    let state = bed.log().await;
    assert!(state.state().key_is_valid(2) && state.state().key_is_valid(3) && !state.state().key_is_valid(1));
    assert_eq!(state.state().findings(), []);
    assert!(state.state().get(&second).is_some_and(|entry| entry.is_good()));
    let mut proving = JobLog::open(&bed.repository, &job(), vec![prover]).await.unwrap();
    assert_eq!(proving.begin_run(SetKind::Full, "main").await.err().unwrap().kind(), Kind::Denied, "its role stays what it is");
    // Nothing but its own coming may be signed by a key that the log does not know.
    let (fourth, _) = second_key(&bed, 4, &[Role::Writer], vec![]).await;
    let mut early = JobLog::open(&bed.repository, &job(), vec![writer]).await.unwrap();
    let number = early.head() + 1;
    let run = early.begin_run(SetKind::Full, "main").await.unwrap();
    let manifest = bed.upload(&run).await;
    early.keys = vec![fourth];
    early.book.insert(4, super::super::log::read_key_file(&bed.repository, 4).await.unwrap());
    let record = crate::model::record::Record {
        format: FORMAT,
        repository: bed.repository.id().into(),
        job: job(),
        number,
        previous: *early.state().head_sha256(),
        key: 4,
        at: crate::model::Clock::now(&*bed.clock),
        body: Body::Commit { manifest: Box::new(manifest) },
    };
    let json = serde_json::to_string(&record).unwrap();
    let bytes = encoding::seal(&*early.keys[0].signer, &json, &encoding::record_subject(&job(), number)).unwrap();
    bed.store.inner.overwrite(&super::super::log::record_key(&job(), number), bytes);
    let log = bed.log().await;
    assert!(log.state().get(run.set()).is_none(), "a commit is no coming");
    assert_eq!(log.state().findings().len(), 1);
    // A key that was passed over cannot come later, nor bring back what was revoked.
    let mut old = JobLog::open(&bed.repository, &job(), vec![]).await.unwrap();
    assert!(old.append(change).await.is_err());
}

#[tokio::test]
async fn rule_13_sealed_roles_are_refused_on_a_single_writer_repository() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let (writer, change) = second_key(&bed, 2, &[Role::Writer], vec![]).await;
    log.append(change).await.unwrap();
    let terms = crate::catalog::repository::Terms {
        format: FORMAT,
        repository: bed.repository.id().into(),
        number: 1,
        single_writer: Some("web-1".into()),
        at: crate::model::Clock::now(&*bed.clock),
    };
    bed.repository.write_terms(&*bed.root, &terms).await.unwrap();
    let trust = Trust::Known { id: bed.repository.id().into(), root: bed.repository.root().clone() };
    let single = Repository::open(bed.store.clone(), bed.repository.env().clone(), &trust).await.unwrap();
    assert_eq!(single.single_writer(), Some("web-1"));
    let mut sealed = JobLog::open(&single, &job(), vec![writer]).await.unwrap();
    assert_eq!(sealed.begin_run(SetKind::Full, "main").await.unwrap_err().kind(), Kind::Preflight);
    let mut whole = JobLog::open(&single, &job(), vec![bed.key.clone()]).await.unwrap();
    assert!(whole.begin_run(SetKind::Full, "main").await.is_ok());
}

#[tokio::test]
async fn rule_6_a_checkpoint_gives_the_same_state_as_the_whole_log() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    let second = bed.backup(&mut log, SetKind::Full).await;
    let third = bed.backup(&mut log, SetKind::Incremental).await;
    let intent = retire::retire_chain(&mut log, &first, "old").await.unwrap().unwrap();
    hold::pin(&mut log, &second, "2026-01-01T00:00:00Z".parse().unwrap(), "audit").await.unwrap();
    checkpoint::checkpoint(&mut log).await.unwrap();
    retire::finish_delete(&mut log, intent).await.unwrap();
    bed.backup(&mut log, SetKind::Incremental).await;
    let whole = bed.log().await;
    assert_eq!(whole.state().checkpoint(), Some(6));
    assert_eq!(whole.state().findings(), []);
    let short = JobLog::open_at_checkpoint(&bed.repository, &job(), vec![]).await.unwrap();
    assert_eq!(checkpoint::summary(short.state()).unwrap(), checkpoint::summary(whole.state()).unwrap());
    assert_eq!(short.state().get(&third).unwrap().manifest, whole.state().get(&third).unwrap().manifest);
    // One that says something else counts for nothing, and is not started from by whoever reads the whole log.
    log.append(Body::Checkpoint { upto: log.head() + 1, state: serde_json::json!({}) }).await.unwrap();
    assert!(matches!(bed.log().await.state().findings(), [Finding::Void { .. }]));
    let short = JobLog::open_at_checkpoint(&bed.repository, &job(), vec![]).await.unwrap();
    assert_eq!(short.state().live().count(), 3);
    // A key that the root revoked anywhere vouches for no starting point.
    second_key(&bed, 2, &[Role::Writer], vec![1]).await;
    let careful = JobLog::open_at_checkpoint(&bed.repository, &job(), vec![]).await.unwrap();
    assert_eq!(careful.state().hash_of(1), whole.state().hash_of(1), "read from the beginning");
}

/// The same repository, read by a machine that keeps what it read.
async fn cached(bed: &Bed) -> (Repository, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut env = bed.repository.env().clone();
    env.cache = Some(Cache::at(folder.path()));
    let trust = Trust::Known { id: bed.repository.id().into(), root: bed.repository.root().clone() };
    (Repository::open(bed.store.clone(), env, &trust).await.unwrap(), folder)
}

#[tokio::test]
async fn a_cache_saves_reads_and_is_never_believed() {
    let bed = Bed::new().await;
    let (cached, folder) = cached(&bed).await;
    let job = job();
    let open = || JobLog::open(&cached, &job, vec![bed.key.clone()]);
    let mut log = open().await.unwrap();
    let first = bed.backup(&mut log, SetKind::Full).await;
    let second = bed.backup(&mut log, SetKind::Full).await;
    let log = open().await.unwrap();
    assert!(log.is_from_cache() && log.state().get(&second).is_some());
    // Bytes that rot in the cache are read from the store again.
    let file = folder.path().join(cached.id()).join("shop").join("0000000002");
    let mut rotten = std::fs::read(&file).unwrap();
    rotten[40] ^= 1;
    std::fs::write(&file, rotten).unwrap();
    assert_eq!(open().await.unwrap().state().live().count(), 2);
    // A store whose newest cached record differs is read from the beginning.
    open().await.unwrap();
    let good = bed.raw(&record_key(&job, 2)).await;
    bed.store.inner.overwrite(&record_key(&job, 2), Bytes::from_static(b"other"));
    let log = open().await.unwrap();
    assert!(!log.is_from_cache() && log.state().get(&second).is_none());
    // Deleting asks the store, whatever the cache says: record 1 is gone there.
    bed.store.inner.overwrite(&record_key(&job, 2), good);
    // What stood there meanwhile was kept as what it is, and trails: it is asked for again.
    assert!(open().await.unwrap().state().get(&second).is_some());
    bed.store.delete(&record_key(&job, 1)).await.unwrap();
    let mut log = open().await.unwrap();
    assert!(log.is_from_cache() && log.state().get(&first).is_some());
    assert_eq!(retire::retire_chain(&mut log, &first, "old").await.unwrap_err().kind(), Kind::Corrupt);
    let sweep = async |mut log: JobLog| retire::sweep(&mut log, Duration::ZERO).await;
    assert_eq!(sweep(open().await.unwrap()).await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn what_an_intent_in_the_cache_names_is_deleted_by_the_stores_word_only() {
    let bed = Bed::new().await;
    let (cached, _folder) = cached(&bed).await;
    let job = job();
    let open = || JobLog::open(&cached, &job, vec![bed.key.clone()]);
    let mut log = open().await.unwrap();
    let first = bed.backup(&mut log, SetKind::Full).await;
    bed.backup(&mut log, SetKind::Full).await;
    let intent = retire::retire_chain(&mut log, &first, "old").await.unwrap().unwrap();
    bed.store.delete(&record_key(&job, 1)).await.unwrap();
    let mut log = open().await.unwrap();
    assert!(log.is_from_cache());
    assert_eq!(retire::finish_delete(&mut log, intent).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(bed.count(&first).await, 3);
}

/// What is kept is not signature-checked again: the newest kept record must be signed and stand in the store, and binds all before it.
#[tokio::test]
async fn a_forged_cache_is_not_believed() {
    let bed = Bed::new().await;
    let (cached, folder) = cached(&bed).await;
    let job = job();
    let open = || JobLog::open(&cached, &job, vec![bed.key.clone()]);
    let mut log = open().await.unwrap();
    for _ in 0..3 {
        bed.backup(&mut log, SetKind::Full).await;
    }
    // Another host's name, the signature of the true bytes, and a hash that fits.
    let forge = |number: u64, true_bytes: &[u8]| {
        let forged = String::from_utf8(true_bytes.to_vec()).unwrap().replace("web-1", "web-2");
        let mut kept = Sha256::of(forged.as_bytes()).0.to_vec();
        kept.extend_from_slice(forged.as_bytes());
        std::fs::write(folder.path().join(cached.id()).join("shop").join(format!("{number:010}")), kept).unwrap();
        Bytes::from(forged)
    };
    let hosts = |log: &JobLog| log.state().live().map(|entry| entry.manifest.host.clone()).collect::<Vec<_>>();
    let second = bed.raw(&record_key(&job, 2)).await;
    forge(2, &second);
    let log = open().await.unwrap();
    assert_eq!((log.is_from_cache(), hosts(&log)), (false, vec!["web-1".to_owned(); 3]), "the one after it does not follow from it");
    // The newest one, in the store as well: it follows from the one before, and nobody signed it.
    open().await.unwrap();
    let third = bed.raw(&record_key(&job, 3)).await;
    let forged = forge(3, &third);
    bed.store.inner.overwrite(&record_key(&job, 3), forged);
    let log = open().await.unwrap();
    assert_eq!((log.is_from_cache(), hosts(&log)), (false, vec!["web-1".to_owned(); 2]));
    assert!(log.state().findings().iter().any(|found| matches!(found, Finding::Unverified { number: 3, .. })));
}
