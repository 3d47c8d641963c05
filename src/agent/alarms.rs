//! What the agent makes incidents of: the alarms of each job, as the board judges them, and what is wrong with this host. Pure; each alert
//! comes under a key that stays the same while it lasts.

use jiff::SignedDuration;

use crate::model::Severity;
use crate::model::figures::{bytes, duration};
use crate::notify::Alert;
use crate::ops::board::JobBoard;

/// What begins the key of every alert from here: those that are open and not among the answer are over.
pub const PREFIX: &str = "alarm:";

/// Key of the alert that clocks differ.
pub const CLOCK: &str = "alarm:clock";

/// Clocks that differ by more make ages and schedules wrong (FAULTS I8).
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A disk with less free is told of.
const FREE_BYTES: u64 = 1 << 30;
const FREE_SHARE: u64 = 20;

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

/// What is wrong with a job and not told otherwise.
pub fn of_job(job: &JobBoard) -> impl Iterator<Item = Alert> {
    job.alarms.iter().filter_map(|alarm| {
        // The pages give the number of findings; whoever gets an alert may read them.
        let findings = job.log.iter().filter(|_| alarm.what == "log").flat_map(|log| log.findings.iter().cloned());
        Some(Alert {
            job: Some(job.job.to_string()),
            lines: std::iter::once(alarm.text.clone()).chain(findings).collect(),
            next: Some(alarm.next.clone()),
            ..Alert::new(format!("{PREFIX}{}:{}", alarm.what, job.job), alarm.severity, format!("{}: {}", job.job, alarm.incident?))
        })
    })
}

/// The clocks of this host and of the store differ.
pub fn of_clock(skew: SignedDuration) -> Option<Alert> {
    (skew.abs() > SKEW).then(|| Alert {
        lines: vec![
            format!("they differ by {}: schedules run at the wrong time, and nothing is pruned", duration(skew.abs().as_secs())),
            "set the clock by NTP: timedatectl".into(),
        ],
        ..Alert::new(CLOCK, Severity::Warning, "the clocks of this host and of the store differ")
    })
}

/// What begins the key of the alert that a further store does not answer; its name follows.
pub const STORE: &str = "alarm:store:";

/// Further stores that do not answer, of those that were asked: sets are made without an optional one, and nothing else would say so.
pub fn of_stores<'a>(stores: impl IntoIterator<Item = (&'a String, &'a Option<String>)>) -> impl Iterator<Item = Alert> {
    stores.into_iter().filter_map(|(name, problem)| {
        Some(Alert {
            lines: vec![problem.clone()?, "sets that are made meanwhile are not there, and are not brought there later".into()],
            next: Some("drctl status".into()),
            ..Alert::new(format!("{STORE}{name}"), Severity::Warning, format!("store {name} does not answer"))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_board_wants_told_is_told_under_a_key_of_its_own() {
        let mut job = crate::ops::board::testing::shop();
        let alarm = |what: &str, incident| crate::ops::board::Alarm {
            what: what.into(),
            severity: Severity::Warning,
            text: format!("{what} is wrong"),
            next: "drctl status".into(),
            incident,
        };
        job.alarms = vec![alarm("run", None), alarm("size", Some("too large")), alarm("log", Some("not as it was"))];
        std::sync::Arc::make_mut(job.log.as_mut().unwrap()).findings.push("record 7 is missing".into());
        let told: Vec<Alert> = of_job(&job).collect();
        let keys: Vec<&str> = told.iter().map(|alert| alert.key.as_str()).collect();
        assert_eq!(keys, ["alarm:size:shop", "alarm:log:shop"]);
        assert_eq!((told[0].title.as_str(), told[0].lines.as_slice()), ("shop: too large", ["size is wrong".to_owned()].as_slice()));
        assert_eq!(told[1].lines, ["log is wrong", "record 7 is missing"]);
    }

    #[test]
    fn clocks_and_disks() {
        assert!(of_clock(SignedDuration::from_secs(299)).is_none() && of_clock(SignedDuration::from_secs(-301)).is_some());
        let disk = |free, size| of_disks(&[Disk { name: "store main".into(), free, size }]).len();
        assert_eq!([disk(2 << 30, 100 << 30), disk(1 << 29, 100 << 30), disk(1 << 20, 10 << 20)], [0, 1, 0]);
    }
}
