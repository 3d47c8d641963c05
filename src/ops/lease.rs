//! A run's lease: taken also from a run of this host that is known to have died, and renewed while the run goes on.

use std::time::Duration;

use crate::catalog::{Holder, Lease};
use crate::error::{Error, Kind, Result};
use crate::model::JobName;
use crate::ops::Setup;
use crate::state::{Process, RunOutcome, RunRow};

/// How long a lease lasts, and how often it is renewed.
const LEASE: Duration = Duration::from_secs(15 * 60);
const RENEWAL: Duration = Duration::from_secs(5 * 60);

/// Among so many newest runs of the job the holder of a lease is looked for.
const HOLDER_AMONG: u32 = 20;
/// How far the store's clock, which a lease goes by, may be behind this host's.
const CLOCKS: Duration = Duration::from_secs(5 * 60);

/// Takes the job's lease for a backup. Only a live holder is an error ([`Kind::Locked`]): the lease saves work, and where it cannot be had for
/// another reason the run goes on without it, and says so.
pub async fn acquire(setup: &Setup, job: &JobName) -> Result<Option<Lease>> {
    let gone = |holder: &Holder| is_gone(setup, job, holder);
    match Lease::acquire_from(&setup.repository, job, &setup.host, std::process::id(), LEASE, gone).await {
        Ok(lease) => Ok(Some(lease)),
        Err(error) if error.kind() == Kind::Locked => Err(error),
        Err(error) => {
            setup.bus.warn(format!("this run goes on without the lease, two at once would do the same work twice: {error}"));
            Ok(None)
        }
    }
}

/// Renews the lease until dropped; returns only when that fails for good.
pub async fn keep(setup: &Setup, lease: Option<&mut Lease>) -> Error {
    let Some(lease) = lease else { return std::future::pending().await };
    loop {
        tokio::time::sleep(RENEWAL).await;
        if let Err(error) = lease.renew(&setup.repository, LEASE).await
            && !error.kind().retryable()
        {
            return error;
        }
    }
}

/// Whether the state file knows the holder of a lease for a run of this host that was interrupted: then nobody waits for it (FAULTS 1).
/// The state file sees that by a lock which the kernel frees, so a process of another container is never taken for dead.
fn is_gone(setup: &Setup, job: &JobName, holder: &Holder) -> bool {
    let Some(state) = &setup.state else { return false };
    let runs = state.runs(Some(job.as_str()), None, HOLDER_AMONG).unwrap_or_default();
    let gone = holder.host == setup.host && was_interrupted(&runs, holder, &Process::this());
    if gone {
        let Holder { host, pid, since } = holder;
        setup
            .bus
            .warn(format!("the run of {host} pid {pid} since {} was interrupted: its lease is taken over", since.strftime("%H:%M UTC")));
    }
    gone
}

/// Whether the run that holds a lease is one that was interrupted: the newest, of those of its number that began before, which has not ended.
/// One that ended has given its lease back or never had one; in containers each process may have the same number. A process that lives
/// long may have had a run that broke down, and have another by now. `this` process's own run has no lease yet.
///
/// `runs`: the newest first.
fn was_interrupted(runs: &[RunRow], holder: &Holder, this: &Process) -> bool {
    let until = holder.since.as_second() + CLOCKS.as_secs() as i64;
    let may_hold = |run: &&RunRow| {
        let open = match run.outcome {
            RunOutcome::Finished(_) => false,
            RunOutcome::Running => run.process != *this,
            RunOutcome::Interrupted => true,
        };
        open && run.process.pid == holder.pid && run.started_at.as_second() <= until
    };
    runs.iter().find(may_hold).is_some_and(|run| run.outcome == RunOutcome::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn f01_only_a_run_that_was_interrupted_and_can_be_the_holder_gives_its_lease_away() {
        use RunOutcome::*;
        const BEGUN: i64 = 1_767_225_600;
        let process = |pid: u32, start_ticks: u64| Process { pid, start_ticks, boot: "b".into() };
        // Number and start of the process, when the run began after the lease's date, and how it ended; the newest first.
        let row = |&(pid, ticks, after, outcome): &(u32, u64, i64, RunOutcome)| RunRow {
            id: 0,
            verb: "backup".into(),
            job: Some("shop".into()),
            set: None,
            started_at: Timestamp::from_second(BEGUN + after).unwrap(),
            finished_at: None,
            outcome,
            error: None,
            process: process(pid, ticks),
        };
        let holder = Holder { host: "web-1".into(), pid: 7, since: Timestamp::from_second(BEGUN).unwrap() };
        let this = process(7, 100);
        type Case = (bool, &'static str, &'static [(u32, u64, i64, RunOutcome)]);
        let cases: [Case; 11] = [
            (false, "nothing is known", &[]),
            (true, "it was interrupted", &[(7, 1, -1, Interrupted)]),
            (true, "and this run, of the same number, has begun", &[(7, 100, 9, Running), (7, 1, -1, Interrupted)]),
            (
                true,
                "and another of the same number was turned away",
                &[(7, 100, 9, Running), (7, 2, 5, Finished(7)), (7, 1, -1, Interrupted)],
            ),
            (true, "this process had a run that broke down", &[(7, 100, 9, Running), (7, 100, -1, Interrupted)]),
            (true, "the store's clock is behind", &[(7, 1, 200, Interrupted)]),
            (false, "it began too late", &[(7, 1, 400, Interrupted)]),
            (false, "it has another number", &[(8, 1, -1, Interrupted)]),
            (false, "it is under way", &[(7, 1, -1, Running)]),
            (false, "one before it broke down, it is under way", &[(7, 1, -1, Running), (7, 1, -900, Interrupted)]),
            (false, "all have ended", &[(7, 1, -1, Finished(0)), (7, 1, -900, Finished(1))]),
        ];
        for (gone, what, runs) in cases {
            let runs: Vec<RunRow> = runs.iter().map(row).collect();
            assert_eq!(was_interrupted(&runs, &holder, &this), gone, "{what}");
        }
    }
}
