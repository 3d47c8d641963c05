//! What is wrong with a job, as far as the board tells. Pure; texts hold names and figures only, for they are shown without a token.

use jiff::Timestamp;

use crate::error::Kind;
use crate::model::Severity::{self, Critical, Warning};
use crate::model::figures::{bytes, count, duration};
use crate::model::record::Grade;
use crate::ops::board::{Alarm, JobBoard, LogFacts};

/// A source without success for so many times what is expected is in alarm: one run may fail and be made up for by the next.
const MISSED: i64 = 2;

pub(super) fn of(job: &JobBoard, now: Timestamp) -> Vec<Alarm> {
    let mut found = Found(Vec::new());
    let name = &job.job;
    if job.log_problem.is_some() {
        found.say(Warning, format!("its log cannot be read: drctl list --job {name}"));
    }
    if let Some(log) = &job.log {
        by_log(job, log, now, &mut found);
    }
    if let Some(attempt) = &job.runs.last_attempt {
        match attempt.exit_code {
            None => found.say(Warning, format!("its last backup was interrupted: drctl status --job {name}")),
            // Another run had the job: that one counts.
            Some(code) if code != 0 && code != Kind::Locked.exit_code() => {
                found.say(Warning, format!("its last backup ended with exit code {code}: drctl backup now {name}"));
            }
            Some(_) => {}
        }
    }
    if let Some(running) = &job.running {
        let elapsed = since(running.since, now);
        if elapsed > job.objectives.max_duration_seconds {
            found.say(Warning, format!("its {} has been running for {}: drctl status --job {name}", running.verb, duration(elapsed)));
        }
    }
    found.0
}

fn by_log(job: &JobBoard, log: &LogFacts, now: Timestamp, found: &mut Found) {
    let name = &job.job;
    if !log.findings.is_empty() {
        found.say(Critical, format!("{} in its log: drctl list --job {name}", count(log.findings.len() as u64, "finding")));
    }
    // Before the first run nothing has gone wrong yet.
    let missing = if job.runs.last_attempt.is_some() { Critical } else { Warning };
    for group in &log.groups_without_good {
        found.say(missing, format!("there is no good set of group {group}: drctl backup now {name}"));
    }
    if let (Some(age), Some(most)) = (job.rpo_seconds, job.objectives.rpo_seconds)
        && age > most
    {
        found.say(Critical, format!("{} of work would be lost, {} is the most: drctl backup now {name}", duration(age), duration(most)));
    }
    for source in &job.sources {
        let (Some(last), Some(expected)) = (source.last_success, source.expected_interval_seconds) else { continue };
        let age = since(last, now);
        if age > expected.saturating_mul(MISSED) {
            let (age, expected) = (duration(age), duration(expected));
            let text = format!("source {}: no success for {age}, expected every {expected}: drctl backup now {name}", source.name);
            found.say(Critical, text);
        }
    }
    if let Some(bad) = &log.newest_bad {
        found.say(Warning, format!("its newest set is not good: drctl show {}", bad.set));
    }
    let proofs = [
        (job.objectives.verified_within_seconds, Grade::ReadBack, "verified", format!("drctl verify --job {name}")),
        (job.objectives.drilled_within_seconds, Grade::Restored, "drilled", format!("drctl status --job {name}")),
    ];
    for (within, grade, word, next) in proofs {
        let Some(within) = within else { continue };
        match log.verified_at(grade).map(|at| since(at, now)) {
            Some(age) if age > within => {
                found.say(Warning, format!("last {word} {} ago, {} is the most: {next}", duration(age), duration(within)))
            }
            None if log.newest_good.is_some() => found.say(Warning, format!("never {word}: {next}")),
            _ => {}
        }
    }
    if let Some(most) = job.objectives.max_total_bytes.filter(|most| log.stored_bytes > *most) {
        found.say(Warning, format!("its sets take {}, {} is the most: drctl prune", bytes(log.stored_bytes), bytes(most)));
    }
}

fn since(at: Timestamp, now: Timestamp) -> i64 {
    now.as_second() - at.as_second()
}

struct Found(Vec<Alarm>);

impl Found {
    fn say(&mut self, severity: Severity, text: String) {
        self.0.push(Alarm { severity, text });
    }
}
