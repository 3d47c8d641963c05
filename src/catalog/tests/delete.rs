//! Deleting: what is refused, what may be repeated, what is swept.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::commit::{Outcome, VoidReason};
use crate::catalog::log::record_key;
use crate::catalog::testing::{Bed, at, job};
use crate::catalog::{JobLog, Repository, Trust, hold, retire, rules};
use crate::error::Kind;
use crate::model::record::{Grade, Proof};
use crate::model::{SetKind, SetState};
use crate::store::faulty::{Fault, FaultyStore, Operation, When};
use crate::store::{Store as _, whole};

#[tokio::test]
async fn rule_7_a_chain_goes_as_a_whole_and_every_step_may_be_repeated() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let full = bed.backup(&mut log, SetKind::Full).await;
    let more = bed.backup(&mut log, SetKind::Incremental).await;
    let keep = bed.backup(&mut log, SetKind::Full).await;
    let intent = retire::retire_chain(&mut log, &full, "older than 30 days").await.unwrap().unwrap();
    assert_eq!(log.state().intents().next().unwrap().sets, [full.clone(), more.clone()]);
    assert_eq!(log.state().live().map(|e| e.id()).collect::<Vec<_>>(), [&keep]);
    assert_eq!(bed.count(&full).await, 3, "the intent deletes nothing by itself");
    // Half of it goes by hand, as if the pruner had died.
    bed.store.delete(&format!("{}RESTORE.md", full.prefix())).await.unwrap();
    let mut log = bed.log().await;
    retire::finish_delete(&mut log, intent).await.unwrap();
    assert_eq!((bed.count(&full).await, bed.count(&more).await, bed.count(&keep).await), (0, 0, 3));
    let head = log.head();
    retire::finish_delete(&mut log, intent).await.unwrap();
    assert_eq!(log.head(), head, "'deleted' stands once");
    assert_eq!(retire::finish_delete(&mut log, 1).await.unwrap_err().kind(), Kind::Failed);
    // Late objects of a dead set go under the intent it has.
    whole::create(&*bed.store, &format!("{}late", more.prefix()), "late".into()).await.unwrap();
    let swept = retire::sweep(&mut log, Duration::from_secs(1 << 40)).await.unwrap();
    assert_eq!((swept.objects > 0, swept.doomed.len(), bed.count(&more).await, log.head()), (true, 0, 0, head));
}

#[tokio::test]
async fn the_last_good_set_is_never_retired() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    let refused = retire::retire_chain(&mut log, &first, "x").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Preflight);
    assert!(refused.to_string().contains("last good set of group main"), "{refused}");
    // One that a reading found bad is no reason to let the other go.
    let second = bed.backup(&mut log, SetKind::Full).await;
    let (begin, end) = (at("2025-01-01T03:00:00Z"), at("2025-01-01T04:00:00Z"));
    let mut proof = Proof {
        set: second.clone(),
        grade: Grade::ReadBack,
        passed: false,
        findings: vec!["files.a.tar.zst: hash".into()],
        started_at: begin,
        finished_at: end,
        store: "main".into(),
    };
    hold::prove(&mut log, proof.clone()).await.unwrap();
    assert_eq!(log.state().get(&second).unwrap().grade(false), None);
    assert_eq!(retire::retire_chain(&mut log, &first, "x").await.unwrap_err().kind(), Kind::Preflight);
    // Rule 15: a success beats a failure only when its reading began after it.
    proof.passed = true;
    hold::prove(&mut log, proof.clone()).await.unwrap();
    assert!(log.state().get(&second).unwrap().failure().is_some());
    (proof.started_at, proof.finished_at) = (at("2025-01-01T05:00:00Z"), at("2025-01-01T06:00:00Z"));
    hold::prove(&mut log, proof).await.unwrap();
    let entry = log.state().get(&second).unwrap();
    assert_eq!((entry.grade(false), entry.failure()), (Some(Grade::ReadBack), None));
    // On a sealed repository a key that also writes raises nothing.
    assert_eq!(entry.grade(true), None);
    assert!(retire::retire_chain(&mut log, &first, "x").await.unwrap().is_some());
    assert_eq!(retire::retire_chain(&mut log, &first, "x").await.unwrap_err().kind(), Kind::NoSuchSet);
}

#[tokio::test]
async fn neither_another_groups_set_nor_one_that_lacks_something_makes_up_for_the_last_good_one() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    for (group, state) in [("uploads", SetState::Complete), ("main", SetState::Partial { reasons: vec!["db: gone".into()] })] {
        let run = log.begin_run(SetKind::Full, group).await.unwrap();
        let mut manifest = bed.upload(&run).await;
        manifest.state = state;
        run.commit(&mut log, manifest, |_| Ok(())).await.unwrap();
    }
    let refused = retire::retire_chain(&mut log, &first, "x").await.unwrap_err();
    assert!(refused.kind() == Kind::Preflight && refused.to_string().contains("last good set of group main"), "{refused}");
}

#[tokio::test]
async fn deletes_of_an_intent_are_ended_by_whoever_reads_it_but_not_in_a_log_that_was_tampered_with() {
    let bed = Bed::new().await;
    let (mut log, mut other) = (bed.log().await, bed.log().await);
    let old = bed.backup(&mut log, SetKind::Full).await;
    let older = bed.backup(&mut log, SetKind::Full).await;
    bed.backup(&mut log, SetKind::Full).await;
    let intent = retire::retire_chain(&mut log, &old, "old").await.unwrap().unwrap();
    retire::finish_delete(&mut other, intent).await.unwrap();
    assert_eq!(bed.count(&old).await, 0, "its own log was read before the intent");
    let intent = retire::retire_chain(&mut log, &older, "old").await.unwrap().unwrap();
    // What cannot be read might have been a pin.
    bed.store.inner.overwrite(&record_key(&job(), 3), "garbage".into());
    let mut log = bed.log().await;
    assert_eq!(retire::finish_delete(&mut log, intent).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(bed.count(&older).await, 3);
}

#[tokio::test]
async fn what_is_committed_or_has_a_young_object_is_no_orphan() {
    let bed = Bed::new().await;
    let (mut log, mut stale) = (bed.log().await, bed.log().await);
    let set = bed.backup(&mut log, SetKind::Full).await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    bed.upload(&run).await;
    bed.hours(49);
    bed.store.inner.overwrite(&format!("{}late", run.set().prefix()), "late".into());
    let grace = Duration::from_secs(48 * 3600);
    let found = retire::orphans(&mut stale, grace).await.unwrap();
    assert_eq!(
        (found.doomed.as_slice(), found.waiting.as_slice()),
        (&[][..], &[run.set().clone()][..]),
        "the log is read after the listing"
    );
    bed.hours(49);
    assert_eq!(retire::orphans(&mut stale, grace).await.unwrap().doomed, [run.set().clone()]);
    // Nor is it thrown away as the remains of a run.
    let mut stale = bed.log().await;
    let later = bed.backup(&mut log, SetKind::Full).await;
    for committed in [&set, &later] {
        assert_eq!(retire::discard(&mut stale, committed).await.unwrap_err().kind(), Kind::Failed);
        assert_eq!(bed.count(committed).await, 3);
    }
}

/// A log of the bed behind a store whose next record is late.
async fn late_log(bed: &Bed) -> JobLog {
    let store = Arc::new(FaultyStore::new(bed.store.clone()));
    store.rule(Operation::Put, "*/log/*", When::Call(1), Fault::Stall(Duration::from_millis(200)));
    let trust = Trust::Known { id: bed.repository.id().into(), root: bed.repository.root().clone() };
    let repository = Repository::open(store, bed.repository.env().clone(), &trust).await.unwrap();
    JobLog::open(&repository, &job(), vec![bed.key.clone()]).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn rule_8_a_sweep_that_others_outrun_looks_again_before_it_names_a_set() {
    let grace = Duration::from_secs(48 * 3600);
    let outrun = || tokio::time::sleep(Duration::from_millis(50));
    // By the writer itself, after all.
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    let (set, manifest) = (run.set().clone(), bed.upload(&run).await);
    bed.hours(49);
    let mut late = late_log(&bed).await;
    let commit = async {
        outrun().await;
        run.commit(&mut log, manifest, |_| Ok(())).await.unwrap()
    };
    let (swept, outcome) = tokio::join!(retire::sweep(&mut late, grace), commit);
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    assert_eq!((swept.unwrap().doomed.len(), bed.count(&set).await), (0, 3));
    assert!(bed.log().await.state().get(&set).is_some_and(|entry| entry.intent.is_none()));
    // By another sweep.
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let run = log.begin_run(SetKind::Full, "main").await.unwrap();
    bed.upload(&run).await;
    bed.hours(49);
    let mut late = late_log(&bed).await;
    let other = async {
        outrun().await;
        retire::sweep(&mut log, grace).await.unwrap()
    };
    let (swept, other) = tokio::join!(retire::sweep(&mut late, grace), other);
    assert_eq!((swept.unwrap().doomed.len(), other.doomed.len()), (0, 1));
    assert_eq!((bed.log().await.state().intents().count(), bed.count(run.set()).await), (1, 0));
}

#[tokio::test]
async fn rule_10_pins_and_holds_stop_an_intent_and_are_refused_after_one() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let first = bed.backup(&mut log, SetKind::Full).await;
    bed.backup(&mut log, SetKind::Full).await;
    hold::pin(&mut log, &first, at("2025-02-01T00:00:00Z"), "audit").await.unwrap();
    assert_eq!(retire::retire_chain(&mut log, &first, "x").await.unwrap_err().kind(), Kind::Preflight);
    hold::unpin(&mut log, &first).await.unwrap();
    let mut reader = bed.log().await;
    let mut held = hold::Hold::acquire(&mut reader, &first, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(retire::retire_chain(&mut log, &first, "x").await.unwrap_err().kind(), Kind::Preflight);
    bed.clock.step_seconds(3000);
    held.renew(&mut reader, Duration::from_secs(3600)).await.unwrap();
    bed.clock.step_seconds(3000);
    assert_eq!(retire::retire_chain(&mut log, &first, "x").await.unwrap_err().kind(), Kind::Preflight);
    held.release(&mut reader).await.unwrap();
    retire::retire_chain(&mut log, &first, "x").await.unwrap().unwrap();
    let until = at("2025-02-01T00:00:00Z");
    let refused = hold::pin(&mut reader, &first, until, "too late").await.unwrap_err();
    assert_eq!((refused.kind(), refused.kind().exit_code()), (Kind::NoSuchSet, 6));
    assert_eq!(hold::Hold::acquire(&mut reader, &first, Duration::from_secs(1)).await.unwrap_err().kind(), Kind::NoSuchSet);
}

#[tokio::test]
async fn f75_objects_without_a_manifest_are_swept_only_under_an_intent_that_voids_their_writer() {
    let bed = Bed::new().await;
    let mut slow = bed.log().await;
    let run = slow.begin_run(SetKind::Full, "main").await.unwrap();
    let manifest = bed.upload(&run).await;
    bed.store.inner.overwrite("jobs/shop/sets/notes.txt", "by hand".into());
    bed.hours(49);
    let mut log = bed.log().await;
    let swept = retire::sweep(&mut log, Duration::from_secs(48 * 3600)).await.unwrap();
    assert_eq!(swept.doomed, [run.set().clone()]);
    assert_eq!(swept.strange, ["jobs/shop/sets/notes.txt"], "what is not ours is left alone");
    // The laptop wakes up: its set is void, not half there.
    let outcome = run.commit(&mut slow, manifest, |_| Ok(())).await.unwrap();
    assert!(matches!(outcome, Outcome::Void { reason: VoidReason::Doomed { .. } }), "{outcome:?}");
    assert_eq!(bed.log().await.state().all().count(), 0);
    assert_eq!(log.job(), &job());
}

#[tokio::test]
async fn rule_14_a_clock_that_is_wrong_prunes_nothing() {
    let bed = Bed::new().await;
    let mut log = bed.log().await;
    let hour = Duration::from_secs(3600);
    assert!(
        rules::clock_allows_pruning(log.state().newest_at(), at("1999-01-01T00:00:00Z"), hour).is_ok(),
        "an empty log has nothing to prune"
    );
    bed.backup(&mut log, SetKind::Full).await;
    let table = [
        ("2025-01-01T01:59:59Z", 1, false),
        ("2025-01-01T02:00:01Z", 1, true),
        ("2025-01-08T01:00:00Z", 1, true),
        ("2025-01-08T03:00:00Z", 1, false),
        ("2025-01-20T00:00:00Z", 24 * 10, true),
        ("2025-01-22T00:00:00Z", 24 * 10, false),
        ("2035-01-01T00:00:00Z", 1, false),
    ];
    for (now, interval, allowed) in table {
        let result = rules::clock_allows_pruning(log.state().newest_at(), at(now), hour * interval);
        assert_eq!(result.is_ok(), allowed, "{now}");
        assert!(result.is_ok() || result.is_err_and(|e| e.kind() == Kind::Preflight));
    }
}
