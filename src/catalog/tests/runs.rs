//! Writers: crashes, lost answers, conflicts.

use crate::catalog::commit::{Outcome, Pending, Settled, VoidReason};
use crate::catalog::testing::{Bed, Fate, Quick, at, job};
use crate::catalog::{Env, Lease, Repository, Trust, retire};
use crate::error::{Error, Kind};
use crate::model::SetKind;
use crate::model::TestClock;
use crate::model::record::Body;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn f01_a_run_that_died_before_it_began_leaves_a_lease_that_ends_by_itself() {
    let bed = Bed::new().await;
    let minutes = Duration::from_secs(600);
    let dead = Lease::acquire(&bed.repository, &job(), "web-1", 4711, minutes).await.unwrap();
    let locked = Lease::acquire(&bed.repository, &job(), "web-2", 1, minutes).await.unwrap_err();
    assert_eq!(locked.kind(), Kind::Locked);
    assert_eq!(locked.to_string(), "job shop is held by web-1 pid 4711 since 2025-01-01T02:00:00Z");
    assert_eq!(
        locked.hint_text(),
        Some("wait for it; if that process is gone, the lease ends by itself at 2025-01-01T02:10:00Z, or now: drctl unlock shop")
    );
    // Whoever knows that the holder is dead need not wait.
    let gone = |holder: &crate::catalog::Holder| holder.host == "web-1" && holder.pid == 4711;
    let taken = Lease::acquire_from(&bed.repository, &job(), "web-1", std::process::id(), minutes, gone).await.unwrap();
    assert!(taken.epoch > dead.epoch);
    assert_eq!(Lease::acquire_from(&bed.repository, &job(), "web-1", 9, minutes, gone).await.unwrap_err().kind(), Kind::Locked);
    bed.clock.step_seconds(601);
    let mut mine = Lease::acquire(&bed.repository, &job(), "web-2", 1, minutes).await.unwrap();
    assert!(mine.epoch > dead.epoch);
    // The first wakes up and finds that it is not alone.
    let mut dead = dead;
    assert_eq!(dead.renew(&bed.repository, minutes).await.unwrap_err().kind(), Kind::Locked);
    dead.release(&bed.repository).await.unwrap();
    mine.renew(&bed.repository, minutes).await.unwrap();
    assert_eq!(crate::catalog::lease::tidy(&bed.repository, &job()).await.unwrap(), 3);
    mine.release(&bed.repository).await.unwrap();
    // Released: free at once. Garbage holds nothing.
    bed.store.inner.overwrite("jobs/shop/lease/0000000900.json", "{".into());
    let last = Lease::acquire(&bed.repository, &job(), "web-3", 1, minutes).await.unwrap();
    assert_eq!(last.epoch, 901);
}

#[tokio::test]
async fn f55_a_lease_ends_by_the_stores_date_whatever_the_clocks_of_holder_and_heir_say() {
    let bed = Bed::new().await;
    let minutes = Duration::from_secs(600);
    // Two machines whose clocks are hours ahead and hours behind.
    let elsewhere = |text: &str| Env { clock: Arc::new(TestClock::at(at(text))), pause: Arc::new(Quick), ..Env::default() };
    let trust = Trust::Known { id: bed.repository.id().to_owned(), root: bed.repository.root().clone() };
    let ahead = Repository::open(bed.store.clone(), elsewhere("2025-01-01T09:00:00Z"), &trust).await.unwrap();
    let behind = Repository::open(bed.store.clone(), elsewhere("2024-12-31T09:00:00Z"), &trust).await.unwrap();
    let held = Lease::acquire(&ahead, &job(), "web-1", 4711, minutes).await.unwrap();
    assert_eq!((held.holder.since, held.until), (at("2025-01-01T02:00:00Z"), at("2025-01-01T02:10:00Z")));
    bed.clock.step_seconds(599);
    assert_eq!(Lease::acquire(&behind, &job(), "web-2", 1, minutes).await.unwrap_err().kind(), Kind::Locked);
    bed.clock.step_seconds(1);
    let heir = Lease::acquire(&behind, &job(), "web-2", 1, minutes).await.unwrap();
    assert_eq!((heir.epoch, heir.until), (held.epoch + 1, at("2025-01-01T02:20:00Z")), "a number that only grows");
}

#[tokio::test]
async fn f01_a_dead_process_of_this_boot_and_namespace_holds_nothing() {
    let bed = Bed::new().await;
    let minutes = Duration::from_secs(600);
    let shop = job();
    let take = |host: &'static str, pid| Lease::acquire(&bed.repository, &shop, host, pid, minutes);
    // A process that ended and was waited for, so that nothing of it is left.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let dead = take("web-1", child.id()).await.unwrap();
    assert_eq!(take("web-2", 1).await.unwrap_err().kind(), Kind::Locked, "another machine cannot know");
    let alive = take("web-1", std::process::id()).await.unwrap();
    assert_eq!(alive.epoch, dead.epoch + 1);
    assert_eq!(take("web-1", 1).await.unwrap_err().kind(), Kind::Locked, "the holder lives");
    alive.release(&bed.repository).await.unwrap();
    // Of another boot or container, or of a version that did not say: only time ends it.
    let text = String::from_utf8(bed.raw("jobs/shop/lease/0000000001.json").await.to_vec()).unwrap();
    let boot = text.split("\"boot\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
    for (at, other) in [text.replace(&boot, "\"another pid:[1]\""), text.replace(&format!("\"boot\":{boot},"), "")].iter().enumerate() {
        assert!(*other != text);
        let epoch = 4 + at;
        let other = other.replace("\"epoch\":1", &format!("\"epoch\":{epoch}"));
        bed.store.inner.overwrite(&format!("jobs/shop/lease/{epoch:010}.json"), other.into());
        assert_eq!(take("web-1", 1).await.unwrap_err().kind(), Kind::Locked);
    }
}

#[tokio::test]
async fn a_renewal_that_landed_unheard_does_not_lock_us_out() {
    let bed = Bed::new().await;
    let minutes = Duration::from_secs(600);
    let mut lease = Lease::acquire(&bed.repository, &job(), "web-1", 1, minutes).await.unwrap();
    // Dropped in mid-PUT: it landed, the lease does not know, and the next try has another end.
    let mut dropped = lease.clone();
    dropped.renew(&bed.repository, minutes).await.unwrap();
    bed.clock.step_seconds(60);
    lease.renew(&bed.repository, minutes).await.unwrap();
    assert_eq!((lease.epoch, lease.until), (3, crate::catalog::testing::at("2025-01-01T02:11:00Z")));
    // The same before it is given back: the job is free at once.
    let mut dropped = lease.clone();
    bed.clock.step_seconds(60);
    dropped.renew(&bed.repository, minutes).await.unwrap();
    lease.release(&bed.repository).await.unwrap();
    let next = Lease::acquire(&bed.repository, &job(), "web-2", 1, minutes).await.unwrap();
    assert_eq!(next.epoch, 6);
    // Nobody steps over another's.
    dropped.release(&bed.repository).await.unwrap();
    assert_eq!(Lease::acquire(&bed.repository, &job(), "web-3", 1, minutes).await.unwrap_err().kind(), Kind::Locked);
}

#[tokio::test]
async fn f04_objects_without_their_commit_are_no_set() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    bed.upload(&run).await;
    // Killed here. The next start sees no set, and the objects go after the grace time only.
    let mut log = bed.log().await;
    assert_eq!(log.state().all().count(), 0);
    let grace = Duration::from_secs(48 * 3600);
    let swept = retire::sweep(&mut log, grace).await.unwrap();
    assert_eq!((swept.waiting, swept.objects), (vec![run.set().clone()], 0));
    bed.hours(49);
    let swept = retire::sweep(&mut log, grace).await.unwrap();
    assert_eq!((swept.doomed, swept.objects), (vec![run.set().clone()], 3));
    assert_eq!(bed.count(run.set()).await, 0);
}

#[tokio::test]
async fn f05_a_commit_whose_answer_was_lost_is_found_and_not_made_twice() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let set = run.set().clone();
    let manifest = bed.upload(&run).await;
    // The answer is lost; the retry finds its own bytes.
    bed.store.script.lock().unwrap().push_back(Fate::Lost);
    let outcome = run.commit(&mut log, manifest, |_| Ok(())).await.unwrap();
    assert_eq!(outcome, Outcome::Committed { number: 1 });
    let puts = bed.store.puts.lock().unwrap().clone();
    assert!(puts.len() == 2 && puts[0] == puts[1], "the very same bytes are sent again");
    assert_eq!(bed.log().await.state().get(&set).unwrap().number, 1);

    // Killed after the PUT: the journal's note settles it at the next start.
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let manifest = bed.upload(&run).await;
    let mut noted: Option<Pending> = None;
    run.commit(&mut log, manifest, |pending| {
        noted = Some(pending.clone());
        Ok(())
    })
    .await
    .unwrap();
    let settled = bed.log().await.settle(&noted.unwrap()).await.unwrap();
    assert_eq!(settled, Settled::Committed { number: 2 });
}

#[tokio::test]
async fn rule_5_an_unknown_outcome_is_said_and_settled_later() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let set = run.set().clone();
    let manifest = bed.upload(&run).await;
    bed.store.script.lock().unwrap().extend([Fate::Never; 4]);
    let mut noted = Vec::new();
    let unknown = run
        .commit(&mut log, manifest, |pending| {
            noted.push(pending.clone());
            Ok(())
        })
        .await
        .unwrap_err();
    assert_eq!((unknown.kind(), unknown.kind().exit_code()), (Kind::OutcomeUnknown, 8));
    assert!(unknown.to_string().contains("outcome unknown"), "{unknown}");
    assert_eq!(bed.count(&set).await, 3, "nothing was deleted");
    let mut log = bed.log().await;
    assert_eq!(log.settle(&noted[0]).await.unwrap(), Settled::Open);
    let other = bed.backup(&mut log, SetKind::Full).await;
    assert_eq!(log.settle(&noted[0]).await.unwrap(), Settled::Void);
    retire::discard(&mut log, &set).await.unwrap();
    assert_eq!(bed.count(&set).await, 0);
    assert_eq!(retire::discard(&mut log, &other).await.unwrap_err().kind(), Kind::Failed);
    assert_eq!(bed.count(&other).await, 3);
}

#[tokio::test]
async fn a_store_that_refuses_the_commit_says_so() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let manifest = bed.upload(&run).await;
    bed.store.script.lock().unwrap().push_back(Fate::Full);
    assert_eq!(run.commit(&mut log, manifest, |_| Ok(())).await.unwrap_err().kind(), Kind::Full);
    // A refusal after an unknown answer proves nothing.
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let manifest = bed.upload(&run).await;
    bed.store.script.lock().unwrap().extend([Fate::Never, Fate::Full, Fate::Full, Fate::Full]);
    assert_eq!(run.commit(&mut log, manifest, |_| Ok(())).await.unwrap_err().kind(), Kind::OutcomeUnknown);
    // A journal that cannot be written stops the run before the PUT.
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let manifest = bed.upload(&run).await;
    let before = bed.store.puts.lock().unwrap().len();
    assert!(run.commit(&mut log, manifest, |_| Err(Error::failed("disk full"))).await.is_err());
    assert_eq!(bed.store.puts.lock().unwrap().len(), before);
}

#[tokio::test]
async fn rule_5_a_record_whose_store_cannot_tell_is_not_called_standing() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let set = run.set().clone();
    let manifest = bed.upload(&run).await;
    let before = bed.store.puts.lock().unwrap().len();
    bed.store.script.lock().unwrap().push_back(Fate::Unsure);
    let unknown = run.commit(&mut log, manifest, |_| Ok(())).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::OutcomeUnknown, "{unknown}");
    assert_eq!(bed.store.puts.lock().unwrap().len(), before + 1, "sent again, it would find itself and call that success");
    assert_eq!(bed.count(&set).await, 3);
}

#[tokio::test]
async fn rule_5_a_refusal_of_a_retry_says_nothing_about_the_try_before() {
    use crate::store::faulty::{Fault, FaultyStore, Operation, When};
    use crate::store::retry::{RetryPolicy, RetryStore};
    let clock = std::sync::Arc::new(crate::model::TestClock::at(crate::catalog::testing::at("2025-01-01T02:00:00Z")));
    for kind in [Kind::Denied, Kind::Full, Kind::Corrupt, Kind::Failed] {
        let faulty = std::sync::Arc::new(FaultyStore::new(std::sync::Arc::new(crate::store::memory::MemoryStore::new(clock.clone()))));
        let policy = RetryPolicy { tries: 4, first_delay: Duration::ZERO, longest_delay: Duration::ZERO, total: Duration::from_secs(60) };
        let store = std::sync::Arc::new(RetryStore::new(faulty.clone(), policy, crate::observe::Bus::default()));
        let env =
            crate::catalog::Env { clock: clock.clone(), pause: std::sync::Arc::new(crate::catalog::testing::Quick), ..Default::default() };
        let new = crate::catalog::Repository::init(store, env, "web-1").await.unwrap();
        let key = crate::catalog::RoleKey { number: 1, signer: std::sync::Arc::new(new.key) };
        let mut log = crate::catalog::JobLog::open(&new.repository, &job(), vec![key]).await.unwrap();
        let run = log.begin_run(SetKind::Full, "main").await.unwrap();
        let set = run.set().clone();
        let manifest = crate::catalog::testing::manifest(&run);
        // The record lands unheard; what is tried after that is refused.
        faulty.rule(Operation::Put, "*/log/*", When::Call(1), Fault::LoseAnswer(Kind::Unreachable));
        faulty.rule(Operation::Put, "*/log/*", When::From(2), Fault::Fail(kind));
        let unknown = run.commit(&mut log, manifest, |_| Ok(())).await.unwrap_err();
        assert_eq!(unknown.kind(), Kind::OutcomeUnknown, "{kind:?}: {unknown}");
        log.refresh().await.unwrap();
        assert!(log.state().get(&set).is_some(), "it stands: whoever deleted its objects would have lost a committed set");
    }
}

/// Shows one key and signs with another.
struct Mismatched(crate::catalog::MinisignKey, crate::catalog::PublicKey);

impl crate::catalog::Signer for Mismatched {
    fn public(&self) -> &crate::catalog::PublicKey {
        &self.1
    }
    fn sign(&self, line: &[u8], subject: &str) -> crate::error::Result<String> {
        self.0.sign(line, subject)
    }
}

#[tokio::test]
async fn rule_5_what_goes_wrong_after_the_record_stands_is_no_failed_commit() {
    let bed = Bed::new().await;
    // The record stands and counts for nothing: this is not a commit.
    let mut log = bed.log().await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let set = run.set().clone();
    let mut manifest = bed.upload(&run).await;
    manifest.guide.file = "else/where".into();
    let unknown = run.commit(&mut log, manifest, |_| Ok(())).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::OutcomeUnknown);
    assert!(unknown.to_string().contains("record 1 stands and does not count"), "{unknown}");
    assert!(log.state().get(&set).is_none() && log.head() == 1);
    // The record stands and cannot be folded.
    let signer = Mismatched(crate::catalog::MinisignKey::generate().unwrap(), bed.key.signer.public().clone());
    let key = crate::catalog::RoleKey { number: 1, signer: std::sync::Arc::new(signer) };
    let mut log = crate::catalog::JobLog::open(&bed.repository, &job(), vec![key]).await.unwrap();
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let manifest = bed.upload(&run).await;
    let unknown = run.commit(&mut log, manifest, |_| Ok(())).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::OutcomeUnknown, "{unknown}");
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    assert_eq!(log.state().get(&first).unwrap().number, 3, "the log goes on behind them");
}

#[tokio::test]
async fn rule_3_what_voids_an_incremental_and_what_a_full_set() {
    let bed = Bed::new().await;
    let (mut a, mut b) = (bed.log().await, bed.log().await);
    assert_eq!(a.begin_run(SetKind::Incremental, "main").await.unwrap_err().kind(), Kind::Preflight);
    let full = bed.backup(&mut a, SetKind::Full).await;
    let (one, two) = (b.begin_run(SetKind::Incremental, "main").await.unwrap(), b.begin_run(SetKind::Full, "main").await.unwrap());
    assert_eq!((one.chain(), one.parent(), one.base()), (&full, Some(&full), 1));
    let (m1, m2) = (bed.upload(&one).await, bed.upload(&two).await);
    bed.backup(&mut a, SetKind::Incremental).await;
    // The chain moved on: the incremental is void, the full set is not.
    let moved = one.commit(&mut b, m1, |_| Ok(())).await.unwrap();
    assert_eq!(moved, Outcome::Void { reason: VoidReason::ChainMoved { number: 2 } });
    assert_eq!(two.commit(&mut b, m2, |_| Ok(())).await.unwrap(), Outcome::Committed { number: 3 });
    // Another group's commits harm nobody.
    let run = b.begin_run(SetKind::Incremental, "main").await.unwrap();
    let mut other = a.begin_run(SetKind::Full, "hourly").await.unwrap();
    let manifest = bed.upload(&other).await;
    other.clone().commit(&mut a, manifest, |_| Ok(())).await.unwrap();
    let manifest = bed.upload(&run).await;
    assert!(matches!(run.commit(&mut b, manifest, |_| Ok(())).await.unwrap(), Outcome::Committed { .. }));
    // A closed chain takes nothing.
    let run = b.begin_run(SetKind::Incremental, "main").await.unwrap();
    let manifest = bed.upload(&run).await;
    let closed = a.append(Body::CloseChain { chain: run.chain().clone(), reason: "max_age".into() }).await.unwrap();
    let outcome = run.commit(&mut b, manifest, |_| Ok(())).await.unwrap();
    assert_eq!(outcome, Outcome::Void { reason: VoidReason::ChainClosed { number: closed.number } });
    assert_eq!(b.begin_run(SetKind::Incremental, "main").await.unwrap_err().kind(), Kind::Preflight);
    // The manifest must be of the run.
    other = a.begin_run(SetKind::Full, "main").await.unwrap();
    let foreign = crate::catalog::testing::manifest(&two_of(&mut a).await);
    assert_eq!(other.commit(&mut a, foreign, |_| Ok(())).await.unwrap_err().kind(), Kind::Failed);
}

async fn two_of(log: &mut crate::catalog::JobLog) -> crate::catalog::Run {
    log.begin_run(SetKind::Full, "main").await.unwrap()
}
