//! What is wrong with a job, or silent: the pages show all of it, and the agent makes incidents of what is not told otherwise. Pure; texts
//! hold names and figures only, for they are shown without a token.
//!
//! A run that did not happen is as loud as one that failed: where no objective is set, twice the time between two scheduled backups is the
//! most that may be lost.

use jiff::Timestamp;

use crate::model::Severity::{self, Critical, Warning};
use crate::model::clock::age_seconds;
use crate::model::figures::{bytes, count, duration};
use crate::model::record::Grade;
use crate::ops::board::{Alarm, JobBoard, LogFacts, SourceBoard};

/// A backup that does not come for so many times what is expected is missed: one run may fail and be made up for by the next.
const MISSED: i64 = 2;

/// More than this share of the newest runs may not fail, and so few of them say nothing yet.
const FAILED_SHARE: f64 = 0.1;
const RUNS_NEEDED: usize = 10;

/// A set may be so many times as large as is usual, by so many sets before it; below a mebibyte it is no matter.
const GROWTH: u64 = 2;
const USUAL_BY: usize = 3;
const GROWTH_FROM: u64 = 1 << 20;

/// What is wrong with a job at `now`. `since` is when it began to be watched: before that nothing can be late.
pub(super) fn of(job: &JobBoard, since: Timestamp, now: Timestamp) -> Vec<Alarm> {
    let failing = job.runs.last_attempt.as_ref().is_some_and(|attempt| attempt.failed());
    let mut judge = Judge { job, now, watched: age(since, now), failing, found: Vec::new() };
    judge.unreadable();
    if let Some(log) = &job.log {
        judge.findings(log);
        judge.lost(log);
        judge.late();
        judge.newest(log);
        judge.proofs(log);
        judge.size(log);
        judge.growth(log);
    }
    judge.last_run();
    judge.fails_often();
    judge.running();
    judge.found
}

struct Judge<'a> {
    job: &'a JobBoard,
    now: Timestamp,
    /// Seconds since it is watched.
    watched: i64,
    /// Its newest backup failed, which is told, with what would be lost: the same is not told once more under other names.
    failing: bool,
    found: Vec<Alarm>,
}

impl Judge<'_> {
    fn say(&mut self, what: impl Into<String>, severity: Severity, text: String, next: String) -> &mut Alarm {
        self.found.push(Alarm { what: what.into(), severity, text, next, incident: None });
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    fn unreadable(&mut self) {
        if self.job.log_problem.is_some() {
            let next = self.command("list --job");
            self.say("unreadable", Warning, "its log cannot be read".into(), next).incident = Some("its log cannot be read");
        }
    }

    fn findings(&mut self, log: &LogFacts) {
        if !log.findings.is_empty() {
            let text = format!("{} in its log", count(log.findings.len() as u64, "finding"));
            self.say("log", Critical, text, self.command("list --job")).incident = Some("the log is not as it was written");
        }
    }

    /// Most seconds of work that may be lost: as it was asked for, else by the group that is backed up most rarely.
    fn allowed(&self) -> Option<i64> {
        let rarest = self.job.sources.iter().filter_map(|source| source.expected_interval_seconds).max();
        self.job.objectives.rpo_seconds.or(rarest.map(|seconds| seconds.saturating_mul(MISSED)))
    }

    fn lost(&mut self, log: &LogFacts) {
        if !log.groups_without_good.is_empty() {
            // Before the first run nothing has gone wrong yet.
            let late = self.allowed().is_some_and(|allowed| self.watched > allowed);
            let severity = if late || self.job.runs.last_attempt.is_some() { Critical } else { Warning };
            let groups = match log.groups_without_good.as_slice() {
                [one] => format!("group {one}"),
                many => format!("groups {}", many.join(", ")),
            };
            let told = (late && !self.failing).then_some("there is no backup yet");
            self.say("no-set", severity, format!("there is no good set of {groups}"), self.command("backup now")).incident = told;
        }
        if self.job.age_unknown {
            let text =
                "the newest good set is dated in the future: how much work would be lost is not known; look at the clocks".to_owned();
            self.say("rpo", Critical, text, self.command("backup now")).incident = Some("the newest backup is dated in the future");
        } else if let (Some(age), Some(most)) = (self.job.rpo_seconds, self.job.objectives.rpo_seconds)
            && age > most
        {
            let text = format!("{} of work would be lost, {} is the most (objectives.rpo)", duration(age), duration(most));
            let told = (!self.failing).then_some("the newest backup is too old");
            self.say("rpo", Critical, text, self.command("backup now")).incident = told;
        }
    }

    fn late(&mut self) {
        // Who said how much may be lost hears of that, and not of what is usual as well.
        let told = (!self.failing && self.job.objectives.rpo_seconds.is_none()).then_some("the newest backup is too old");
        for group in &self.job.groups {
            let is_late = |source: &&SourceBoard| {
                let (Some(last), Some(expected)) = (source.last_success, source.expected_interval_seconds) else { return false };
                age(last, self.now) > expected.saturating_mul(MISSED)
            };
            let ahead: Vec<&str> = self.job.sources.iter().filter(|s| s.group == *group && s.ahead).map(|s| s.name.as_str()).collect();
            if !ahead.is_empty() && !self.job.age_unknown {
                let text = format!("{}: the last success is dated in the future, and how old it is is not known", ahead.join(", "));
                self.say(format!("late-{group}"), Critical, text, self.command("backup now")).incident = told;
                continue;
            }
            let late: Vec<&SourceBoard> = self.job.sources.iter().filter(|source| source.group == *group).filter(is_late).collect();
            let Some(oldest) = late.iter().min_by_key(|source| source.last_success) else { continue };
            let (last, expected) = (oldest.last_success.unwrap_or(self.now), oldest.expected_interval_seconds.unwrap_or_default());
            let names: Vec<&str> = late.iter().map(|source| source.name.as_str()).collect();
            let (age, expected) = (duration(age(last, self.now)), duration(expected));
            let text = format!("{}: no success for {age}, expected every {expected}", names.join(", "));
            self.say(format!("late-{group}"), Critical, text, self.command("backup now")).incident = told;
        }
    }

    fn newest(&mut self, log: &LogFacts) {
        if let Some(bad) = &log.newest_bad {
            self.say("newest", Warning, "its newest set is not good".into(), format!("drctl show {}", bad.set));
        }
    }

    fn proofs(&mut self, log: &LogFacts) {
        let objectives = &self.job.objectives;
        let proofs = [
            (objectives.verified_within_seconds, Grade::ReadBack, "verified", "verify --job", "not verified for too long"),
            (objectives.drilled_within_seconds, Grade::Restored, "drilled", "status --job", "not drilled for too long"),
        ];
        for (within, grade, word, next, title) in proofs {
            let Some(within) = within else { continue };
            match log.verified_at(grade).map(|at| age_seconds(at, self.now)) {
                Some(None) => {
                    self.say(word, Warning, format!("last {word} at a date in the future"), self.command(next)).incident = Some(title);
                }
                Some(Some(age)) if age > within => {
                    let text = format!("last {word} {} ago, {} is the most", duration(age), duration(within));
                    self.say(word, Warning, text, self.command(next)).incident = Some(title);
                }
                None if log.newest_good.is_some() => {
                    let told = (self.watched > within).then_some(title);
                    self.say(word, Warning, format!("never {word}"), self.command(next)).incident = told;
                }
                _ => {}
            }
        }
    }

    fn size(&mut self, log: &LogFacts) {
        if let Some(most) = self.job.objectives.max_total_bytes.filter(|most| log.stored_bytes > *most) {
            let text = format!("its sets take {}, {} is the most (objectives.max_total_size)", bytes(log.stored_bytes), bytes(most));
            self.say("size", Warning, text, self.command("prune --job")).incident = Some("the repository is too large");
        }
    }

    fn growth(&mut self, log: &LogFacts) {
        for (group, sizes) in &log.sizes {
            let Some((newest, before)) = sizes.split_first().filter(|(_, before)| before.len() >= USUAL_BY) else { continue };
            let mut before = before.to_vec();
            before.sort_unstable();
            let usual = before[before.len() / 2];
            if *newest > usual.saturating_mul(GROWTH) && *newest > GROWTH_FROM {
                let text = format!("the newest set of group {group} takes {}, {} are usual", bytes(*newest), bytes(usual));
                let next = self.command("list --job");
                self.say(format!("growth-{group}"), Warning, text, next).incident = Some("the newest set is much larger than usual");
            }
        }
    }

    /// The agent tells of a run when it ends: no incident comes from here.
    fn last_run(&mut self) {
        let Some(attempt) = self.job.runs.last_attempt.as_ref().filter(|attempt| attempt.failed()) else { return };
        match attempt.exit_code {
            None => self.say("run", Warning, "its last backup was interrupted".into(), self.command("status --job")),
            Some(code) => self.say("run", Warning, format!("its last backup ended with exit code {code}"), self.command("backup now")),
        };
    }

    /// An outage that lasted is one failure, which was told when it began: this is about jobs that fail again and again.
    fn fails_often(&mut self) {
        let runs = &self.job.runs.recent_failed;
        let failed = (0..runs.len()).filter(|at| runs[*at] && (*at == 0 || !runs[at - 1])).count();
        if runs.len() >= RUNS_NEEDED && failed as f64 > runs.len() as f64 * FAILED_SHARE {
            let text = format!("{failed} times in its last {} backups it came to no whole set", runs.len());
            let told = (!self.failing).then_some("backups fail often");
            self.say("failing", Warning, text, self.command("status --job")).incident = told;
        }
    }

    fn running(&mut self) {
        let Some(running) = &self.job.running else { return };
        let (elapsed, most) = (age(running.since, self.now), self.job.objectives.max_duration_seconds);
        if elapsed > most {
            let text = format!(
                "its {} has been running for {}, {} is the most (objectives.max_duration)",
                running.verb,
                duration(elapsed),
                duration(most)
            );
            self.say("long", Warning, text, self.command("status --job")).incident = Some("a run takes long");
        }
    }

    fn command(&self, verb: &str) -> String {
        format!("drctl {verb} {}", self.job.job)
    }
}

/// Of what began on this host; a clock that was set back makes nothing late.
fn age(at: Timestamp, now: Timestamp) -> i64 {
    now.as_second() - at.as_second()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Kind;
    use crate::ops::board::testing::{NOW, at, shop};
    use crate::ops::board::{Attempt, LogFacts, Running};

    const HOUR: i64 = 3600;

    fn later(hours: i64) -> Timestamp {
        at(NOW) + jiff::SignedDuration::from_hours(hours)
    }

    fn log(job: &mut JobBoard) -> &mut LogFacts {
        Arc::make_mut(job.log.as_mut().unwrap())
    }

    /// What is an incident `hours` from [`NOW`] of a job that is watched since then, whose backups are `hours` old by then.
    fn incidents(job: &JobBoard, hours: i64) -> Vec<String> {
        let mut job = job.clone();
        job.running = None;
        job.rpo_seconds = job.log.as_ref().and_then(|log| log.as_of).map(|from| age(from, later(hours)));
        of(&job, at(NOW), later(hours)).into_iter().filter(|alarm| alarm.incident.is_some()).map(|alarm| alarm.what).collect()
    }

    /// Everything was backed up at [`NOW`], `main` every hour and `uploads` once a day; nothing else is asked.
    fn fresh() -> JobBoard {
        let mut job = shop();
        job.objectives = crate::ops::board::ObjectivesBoard { max_duration_seconds: 1800, ..Default::default() };
        job.sources.iter_mut().for_each(|source| source.last_success = Some(at(NOW)));
        log(&mut job).as_of = Some(at(NOW));
        job
    }

    #[test]
    fn a_backup_that_does_not_come_is_an_incident() {
        let job = fresh();
        assert_eq!([incidents(&job, 2), incidents(&job, 3), incidents(&job, 49)].map(|found| found.len()), [0, 1, 2]);
        assert_eq!(incidents(&job, 49), ["late-main", "late-uploads"]);
        // Who said how much may be lost hears of that alone.
        let mut strict = job.clone();
        strict.objectives.rpo_seconds = Some(26 * HOUR);
        assert_eq!((incidents(&strict, 26), incidents(&strict, 27)), (vec![], vec!["rpo".to_owned()]));
        // A failure is told when it happens, with what would be lost.
        let ended = |exit_code| Some(Attempt { started_at: at(NOW), finished_at: Some(at(NOW)), exit_code, error: None, set: None });
        for (exit_code, told) in [(Some(1), 0), (None, 0), (Some(Kind::Locked.exit_code()), 1), (Some(0), 1)] {
            let mut ran = strict.clone();
            ran.runs.last_attempt = ended(exit_code);
            assert_eq!(incidents(&ran, 27).len(), told, "{exit_code:?}");
            ran.objectives.rpo_seconds = None;
            assert_eq!(incidents(&ran, 49).len(), 2 * told, "{exit_code:?}");
        }
        // A job that nobody scheduled is late for nothing.
        let mut by_hand = job;
        by_hand.sources.iter_mut().for_each(|source| source.expected_interval_seconds = None);
        assert_eq!(incidents(&by_hand, 9999), Vec::<String>::new());
    }

    #[test]
    fn no_set_at_all_is_an_incident_once_there_could_have_been_one() {
        let mut job = fresh();
        job.sources.iter_mut().for_each(|source| source.last_success = None);
        (log(&mut job).as_of, log(&mut job).groups_without_good) = (None, vec!["main".into(), "uploads".into()]);
        job.runs.last_attempt = None;
        assert_eq!((incidents(&job, 48), incidents(&job, 49)), (vec![], vec!["no-set".to_owned()]), "twice a day");
        let severity = |hours| of(&job, at(NOW), later(hours)).into_iter().find(|alarm| alarm.what == "no-set").unwrap().severity;
        assert_eq!((severity(48), severity(49)), (Warning, Critical));
        job.objectives.rpo_seconds = Some(HOUR);
        assert_eq!((incidents(&job, 1).len(), incidents(&job, 2).len()), (0, 1));
    }

    #[test]
    fn proofs_that_never_came_are_incidents_once_they_are_late() {
        let mut job = fresh();
        job.objectives.rpo_seconds = Some(9999 * HOUR);
        (job.objectives.verified_within_seconds, job.objectives.drilled_within_seconds) = (Some(40 * HOUR), Some(60 * HOUR));
        log(&mut job).verified.clear();
        let shown = |hours| of(&job, at(NOW), later(hours)).iter().filter(|alarm| alarm.text.starts_with("never ")).count();
        assert_eq!((shown(0), shown(61)), (2, 2), "pages say it at once");
        assert_eq!(incidents(&job, 40), Vec::<String>::new());
        assert_eq!((incidents(&job, 41), incidents(&job, 61)), (vec!["verified".into()], vec!["verified".to_owned(), "drilled".into()]));
    }

    #[test]
    fn runs_that_fail_again_and_again_and_one_that_takes_long() {
        let mut job = fresh();
        job.objectives.rpo_seconds = Some(9999 * HOUR);
        let mut failed = |runs: Vec<bool>| {
            job.runs.recent_failed = runs;
            incidents(&job, 0).len()
        };
        let each_second = |failed: usize, of: usize| (0..of).map(|n| n % 2 == 0 && n / 2 < failed).collect::<Vec<bool>>();
        assert_eq!([(2, 20), (3, 20), (4, 9), (1, 10), (2, 10)].map(|(failures, of)| failed(each_second(failures, of))), [0, 1, 0, 0, 1]);
        assert_eq!(failed((0..20).map(|n| n < 10).collect()), 0, "one outage");
        job.runs.last_attempt.as_mut().unwrap().exit_code = Some(1);
        job.runs.recent_failed = each_second(4, 20);
        assert_eq!(incidents(&job, 0), Vec::<String>::new(), "a failing backup is told as that");
        let mut job = fresh();
        job.running = Some(Running { verb: "backup".into(), since: at(NOW) });
        let long = |seconds| of(&job, at(NOW), at(NOW) + jiff::SignedDuration::from_secs(seconds)).len();
        assert_eq!((long(1800), long(1801)), (0, 1));
    }

    #[test]
    fn a_set_that_grew_is_an_incident_when_it_is_known_what_is_usual() {
        let grown = |sizes: &[u64]| {
            let mut job = fresh();
            log(&mut job).sizes.insert("main".into(), sizes.iter().map(|mib| mib << 20).collect());
            incidents(&job, 0)
        };
        assert_eq!(grown(&[7, 3, 3, 3]), ["growth-main"]);
        assert_eq!(grown(&[2, 0, 0, 0]), ["growth-main"]);
        for usual in [&[6, 3, 3, 3][..], &[7, 3, 3], &[7, 9, 9, 3], &[1, 0, 0, 0], &[]] {
            assert_eq!(grown(usual), Vec::<String>::new(), "{usual:?}");
        }
    }
}
