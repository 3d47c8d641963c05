//! What is wrong, or silent. Pure: the facts and now in, alerts out, each under a key that stays the same while it lasts.
//!
//! A run that did not happen is as loud as one that failed: where no objective is set, twice the time between two scheduled backups is the
//! most that may be lost.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::agent::facts::Facts;
use crate::model::figures::{bytes, duration};
use crate::model::record::Grade;
use crate::model::{JobName, Severity};
use crate::notify::Alert;

/// What begins the key of every alert from here: those that are open and not among the answer are over.
pub const PREFIX: &str = "alarm:";

/// More than this share of the newest runs may not fail.
const FAILED_SHARE: f64 = 0.1;

/// Runs that the share is taken of, and how few say nothing yet.
pub const RUNS_LOOKED_AT: u32 = 20;
const RUNS_NEEDED: usize = 10;

/// Clocks that differ by more make ages and schedules wrong (FAULTS I8).
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A set may be so many times as large as is usual.
const GROWTH: u64 = 2;

/// A disk with less free is told of.
const FREE_BYTES: u64 = 1 << 30;
const FREE_SHARE: u64 = 20;

/// What is asked of a job, and what is known of it.
#[derive(Clone, Debug)]
pub struct JobView<'a> {
    /// The job.
    pub job: &'a JobName,
    /// The most that may be lost.
    pub rpo: Option<Duration>,
    /// Longest time between two scheduled backups of one group.
    pub interval: Option<Duration>,
    /// A run that takes longer is told of.
    pub max_duration: Duration,
    /// The newest verification may be so old.
    pub verified_within: Option<Duration>,
    /// The newest drill may be so old.
    pub drilled_within: Option<Duration>,
    /// All its sets may take so many bytes.
    pub max_total_size: Option<u64>,
    /// What the log says; `None` while it could not be read.
    pub facts: Option<&'a Facts>,
    /// Since when a run of it is under way, and what.
    pub running: Option<(Timestamp, &'a str)>,
    /// Its newest backup failed, which is told, with what would be lost: the same is not told once more under other names.
    pub failing: bool,
    /// Of its newest backups, which came to no whole set.
    pub failed_runs: &'a [bool],
    /// Since when this agent knows of the job: before that nothing can be late.
    pub since: Timestamp,
}

/// A disk that drctl writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What lies there: `store main`, `state`.
    pub name: String,
    /// Bytes free for us.
    pub free: u64,
    /// Its size.
    pub size: u64,
}

/// What is wrong with a job.
pub fn of_job(view: &JobView<'_>, now: Timestamp) -> Vec<Alert> {
    let job = view.job.as_str();
    let alert = |what: &str, severity: Severity, title: String, lines: Vec<String>, next: String| Alert {
        key: format!("{PREFIX}{what}:{job}"),
        severity,
        job: Some(job.to_owned()),
        title: format!("{job}: {title}"),
        lines,
        next: Some(next),
        facts: Vec::new(),
    };
    let mut found = Vec::new();
    let allowed = view.rpo.or(view.interval.map(|interval| interval.saturating_mul(2)));
    let why = match view.rpo {
        Some(_) => "by objectives.rpo",
        None => "twice the time between two scheduled backups",
    };
    if let (Some(allowed), Some(facts), false) = (allowed, view.facts, view.failing) {
        let (late, lines) = match facts.safe_until {
            Some(safe) => (
                seconds(now, safe) > as_seconds(allowed),
                vec![format!(
                    "what was written in the last {} would be lost now; {} are allowed, {why}",
                    duration(seconds(now, safe)),
                    duration(as_seconds(allowed))
                )],
            ),
            None => (
                seconds(now, view.since) > as_seconds(allowed),
                vec![format!("there is no good set of: {}", facts.groups_without_good.join(", "))],
            ),
        };
        if late {
            found.push(alert("rpo", Severity::Critical, "the newest backup is too old".into(), lines, format!("drctl backup now {job}")));
        }
    }
    if let Some((since, what)) = view.running.filter(|(since, _)| seconds(now, *since) > as_seconds(view.max_duration)) {
        let lines = vec![format!(
            "it began {} ago; {} are usual at most (objectives.max_duration)",
            duration(seconds(now, since)),
            duration(as_seconds(view.max_duration))
        )];
        found.push(alert("long", Severity::Warning, format!("{what} takes long"), lines, "drctl status".into()));
    }
    // An outage that lasted is one failure, which was told when it began: this is about jobs that fail again and again.
    let again = |at: &usize| view.failed_runs[*at] && (*at == 0 || !view.failed_runs[at - 1]);
    let failed = (0..view.failed_runs.len()).filter(again).count();
    if !view.failing && view.failed_runs.len() >= RUNS_NEEDED && failed as f64 > view.failed_runs.len() as f64 * FAILED_SHARE {
        let lines = vec![format!("{failed} times in its last {} backups it came to no whole set", view.failed_runs.len())];
        found.push(alert("failing", Severity::Warning, "backups fail often".into(), lines, "drctl status".into()));
    }
    if let Some(facts) = view.facts {
        for (what, within, grade, next) in [
            ("verified", view.verified_within, Grade::ReadBack, format!("drctl verify --job {job}")),
            ("drilled", view.drilled_within, Grade::Restored, format!("drctl status --job {job}")),
        ] {
            let Some(within) = within else { continue };
            let newest = facts.proven_at.iter().filter(|(g, _)| **g >= grade).map(|(_, at)| *at).max();
            if seconds(now, newest.unwrap_or(view.since)) > as_seconds(within) {
                let line = match newest {
                    Some(at) => format!(
                        "the newest set that was {what} was so {} ago; {} are allowed",
                        duration(seconds(now, at)),
                        duration(as_seconds(within))
                    ),
                    None => format!("no set was ever {what}"),
                };
                found.push(alert(what, Severity::Warning, format!("not {what} for too long"), vec![line], next));
            }
        }
        if let Some(most) = view.max_total_size.filter(|most| facts.stored_bytes > *most) {
            let lines =
                vec![format!("its sets take {}, {} are allowed (objectives.max_total_size)", bytes(facts.stored_bytes), bytes(most))];
            found.push(alert("size", Severity::Warning, "the repository is too large".into(), lines, format!("drctl prune --job {job}")));
        }
        for (group, sizes) in &facts.sizes {
            let Some((newest, before)) = sizes.split_first().filter(|(_, before)| before.len() >= 3) else { continue };
            let mut before = before.to_vec();
            before.sort_unstable();
            let usual = before[before.len() / 2];
            if *newest > usual.saturating_mul(GROWTH) && *newest > 1 << 20 {
                let lines = vec![format!("the newest set of group {group} takes {}, {} are usual", bytes(*newest), bytes(usual))];
                found.push(alert(
                    &format!("growth-{group}"),
                    Severity::Warning,
                    "the newest set is much larger than usual".into(),
                    lines,
                    format!("drctl list --job {job}"),
                ));
            }
        }
        if !facts.findings.is_empty() {
            found.push(alert(
                "log",
                Severity::Critical,
                "the log is not as it was written".into(),
                facts.findings.clone(),
                "drctl status".into(),
            ));
        }
    }
    found
}

/// The clocks of this host and of the store differ.
pub fn of_clock(skew: SignedDuration) -> Option<Alert> {
    (skew.abs() > SKEW).then(|| Alert {
        lines: vec![
            format!("they differ by {}: schedules run at the wrong time, and nothing is pruned", duration(skew.abs().as_secs())),
            "set the clock by NTP: timedatectl".into(),
        ],
        ..Alert::new(format!("{PREFIX}clock"), Severity::Warning, "the clocks of this host and of the store differ")
    })
}

/// Disks that are nearly full.
pub fn of_disks(disks: &[Disk]) -> Vec<Alert> {
    let full = disks.iter().filter(|disk| disk.free < FREE_BYTES.min(disk.size / FREE_SHARE));
    full.map(|disk| Alert {
        lines: vec![format!("{} of {} are free", bytes(disk.free), bytes(disk.size))],
        next: Some("drctl prune".into()),
        ..Alert::new(format!("{PREFIX}disk:{}", disk.name), Severity::Critical, format!("the disk of {} is nearly full", disk.name))
    })
    .collect()
}

fn seconds(now: Timestamp, then: Timestamp) -> i64 {
    now.duration_since(then).as_secs()
}

fn as_seconds(length: Duration) -> i64 {
    i64::try_from(length.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_750_000_000 + hours * 3600).unwrap()
    }

    fn hours(n: u64) -> Duration {
        Duration::from_secs(n * 3600)
    }

    fn view<'a>(job: &'a JobName, facts: Option<&'a Facts>) -> JobView<'a> {
        JobView {
            job,
            rpo: None,
            interval: Some(hours(24)),
            max_duration: Duration::from_secs(1800),
            verified_within: None,
            drilled_within: None,
            max_total_size: None,
            facts,
            running: None,
            failing: false,
            failed_runs: &[],
            since: at(0),
        }
    }

    fn keys(found: &[Alert]) -> Vec<&str> {
        found.iter().map(|alert| alert.key.as_str()).collect()
    }

    #[test]
    fn a_backup_that_does_not_come_is_an_alarm() {
        let job: JobName = "shop".parse().unwrap();
        let facts = Facts { safe_until: Some(at(100)), ..Facts::default() };
        assert!(of_job(&view(&job, Some(&facts)), at(148)).is_empty(), "twice the interval");
        let late = of_job(&view(&job, Some(&facts)), at(149));
        assert_eq!(keys(&late), ["alarm:rpo:shop"]);
        assert!(late[0].lines[0].starts_with("what was written in the last 2 d 1 h would be lost now"), "{late:?}");
        let strict = JobView { rpo: Some(hours(1)), ..view(&job, Some(&facts)) };
        assert_eq!((of_job(&strict, at(101)).len(), of_job(&strict, at(102)).len()), (0, 1));
        // Never a good set: only once there could have been one.
        let none = Facts { groups_without_good: vec!["main".into()], ..Facts::default() };
        assert_eq!((of_job(&view(&job, Some(&none)), at(47)).len(), of_job(&view(&job, Some(&none)), at(49)).len()), (0, 1));
        assert!(of_job(&JobView { failing: true, ..view(&job, Some(&none)) }, at(49)).is_empty(), "told as a failed backup");
        // A job that nobody scheduled is late for nothing.
        assert!(of_job(&JobView { interval: None, ..view(&job, Some(&none)) }, at(9999)).is_empty());
    }

    #[test]
    fn long_runs_failing_runs_and_proofs_that_are_old() {
        let job: JobName = "shop".parse().unwrap();
        let running = JobView { running: Some((at(0), "backup")), ..view(&job, None) };
        assert_eq!(keys(&of_job(&running, at(1))), ["alarm:long:shop"]);
        let failed = |failed: usize, of: usize| {
            let runs: Vec<bool> = (0..of).map(|n| n % 2 == 0 && n / 2 < failed).collect();
            of_job(&JobView { failed_runs: &runs, ..view(&job, None) }, at(0)).len()
        };
        assert_eq!([failed(2, 20), failed(3, 20), failed(4, 9), failed(1, 10), failed(2, 10)], [0, 1, 0, 0, 1]);
        let outage: Vec<bool> = (0..20).map(|n| n < 10).collect();
        assert!(of_job(&JobView { failed_runs: &outage, ..view(&job, None) }, at(0)).is_empty(), "one outage");
        let facts = Facts { safe_until: Some(at(50)), proven_at: [(Grade::ReadBack, at(0))].into(), ..Facts::default() };
        let proofs = JobView { verified_within: Some(hours(40)), drilled_within: Some(hours(60)), ..view(&job, Some(&facts)) };
        assert_eq!(keys(&of_job(&proofs, at(41))), ["alarm:verified:shop"]);
        assert_eq!(keys(&of_job(&proofs, at(61))), ["alarm:verified:shop", "alarm:drilled:shop"]);
    }

    #[test]
    fn nothing_is_told_twice_early_or_of_little() {
        let job: JobName = "shop".parse().unwrap();
        let running = JobView { running: Some((at(0), "backup")), max_duration: hours(1), ..view(&job, None) };
        assert_eq!((of_job(&running, at(1)).len(), of_job(&running, at(2)).len()), (0, 1));
        let runs: Vec<bool> = (0..20).map(|n| n % 4 == 0).collect();
        let often = |failing: bool| of_job(&JobView { failing, failed_runs: &runs, ..view(&job, None) }, at(0)).len();
        assert_eq!((often(false), often(true)), (1, 0), "a failing backup is told as that");
        // A drill proves what a verification proves; before the first one there is as much time as between two.
        let drilled = Facts { safe_until: Some(at(48)), proven_at: [(Grade::Restored, at(8))].into(), ..Facts::default() };
        let verified = |facts, now| of_job(&JobView { verified_within: Some(hours(40)), ..view(&job, Some(facts)) }, now).len();
        assert_eq!((verified(&drilled, at(48)), verified(&drilled, at(49))), (0, 1));
        let never = Facts { safe_until: Some(at(48)), ..Facts::default() };
        assert_eq!((verified(&never, at(40)), verified(&never, at(41))), (0, 1));
        let grown = |sizes: &[u64]| {
            let facts = Facts { safe_until: Some(at(0)), sizes: [("main".to_owned(), sizes.to_vec())].into(), ..Facts::default() };
            of_job(&view(&job, Some(&facts)), at(0)).len()
        };
        assert_eq!([grown(&[9 << 20, 1 << 20, 1 << 20]), grown(&[9 << 20, 1 << 20, 1 << 20, 1 << 20])], [0, 1], "two say nothing yet");
        assert_eq!([grown(&[1 << 20, 9, 9, 9]), grown(&[(1 << 20) + 1, 9, 9, 9])], [0, 1]);
    }

    #[test]
    fn a_log_that_was_tampered_with_is_told_while_nobody_has_looked() {
        let job: JobName = "shop".parse().unwrap();
        let facts = Facts { safe_until: Some(at(0)), findings: vec!["record 3 is missing".into()], ..Facts::default() };
        let found = of_job(&view(&job, Some(&facts)), at(0));
        assert_eq!(
            (keys(&found), found[0].severity, found[0].lines.as_slice()),
            (vec!["alarm:log:shop"], Severity::Critical, &facts.findings[..])
        );
    }

    #[test]
    fn sizes_clocks_and_disks() {
        let job: JobName = "shop".parse().unwrap();
        let sizes = |newest: u64| Facts {
            safe_until: Some(at(0)),
            stored_bytes: newest,
            sizes: [("main".to_owned(), vec![newest, 3 << 20, 3 << 20, 3 << 20])].into(),
            ..Facts::default()
        };
        let (small, large) = (sizes(6 << 20), sizes(7 << 20));
        assert!(of_job(&view(&job, Some(&small)), at(0)).is_empty());
        assert_eq!(keys(&of_job(&view(&job, Some(&large)), at(0))), ["alarm:growth-main:shop"]);
        let capped = JobView { max_total_size: Some(5 << 20), ..view(&job, Some(&small)) };
        assert_eq!(keys(&of_job(&capped, at(0))), ["alarm:size:shop"]);
        assert!(of_clock(SignedDuration::from_secs(299)).is_none() && of_clock(SignedDuration::from_secs(-301)).is_some());
        let disk = |free, size| of_disks(&[Disk { name: "store main".into(), free, size }]).len();
        assert_eq!([disk(2 << 30, 100 << 30), disk(1 << 29, 100 << 30), disk(1 << 20, 10 << 20)], [0, 1, 0]);
    }
}
