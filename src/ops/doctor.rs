//! `drctl doctor`: looks at everything a backup and a restore will need, before they need it, and says what mends what is wrong.
//!
//! A check never ends the examination: each gives findings, and the next one runs. Nothing is changed.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::JobLog;
use crate::catalog::lease::{self, Standing};
use crate::catalog::numbered::Odd;
use crate::error::{Error, Kind, Result};
use crate::model::JobName;
use crate::model::clock::age_seconds;
use crate::model::record::Grade;
use crate::ops::look;
use crate::ops::words::{and_more, duration};
use crate::ops::{Setup, confirm, keys};
use crate::source::{RunContext, Source};

/// A store's clock further off than this is a problem: leases, holds and retention go by it (FAULTS I8).
const SKEW: i64 = 5 * 60;
/// From here on it is worth saying.
const SKEW_SEEN: i64 = 30;

/// A proof older than this is worth saying: media rot and keys get lost.
const PROOF_AGE: i64 = 31 * 86_400;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but will not always.
    Warning,
    /// A backup or a restore would fail.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// `configuration`, `state`, `store`, `clock`, `room`, `keys`, `sets`, `source` …
    pub area: &'static str,
    /// Which store, job or source; empty where there is only one.
    pub subject: String,
    /// How bad.
    pub level: Level,
    /// What was found.
    pub words: String,
    /// The line that mends it.
    pub fix: Option<String>,
    /// The exit code that a verb would end with because of it.
    #[serde(skip)]
    pub exit_code: u8,
}

impl Finding {
    /// All is well.
    pub fn ok(area: &'static str, subject: impl Into<String>, words: impl Into<String>) -> Finding {
        Finding { area, subject: subject.into(), level: Level::Ok, words: words.into(), fix: None, exit_code: 0 }
    }

    /// Works for now.
    pub fn warning(area: &'static str, subject: impl Into<String>, words: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { level: Level::Warning, fix: Some(fix.into()), ..Finding::ok(area, subject, words) }
    }

    /// Would fail.
    pub fn problem(area: &'static str, subject: impl Into<String>, words: impl Into<String>, fix: impl Into<String>) -> Finding {
        let exit_code = Kind::Failed.exit_code();
        Finding { level: Level::Problem, fix: Some(fix.into()), exit_code, ..Finding::ok(area, subject, words) }
    }

    /// An error that a check met.
    pub fn error(area: &'static str, subject: impl Into<String>, error: &Error) -> Finding {
        Finding {
            level: Level::Problem,
            fix: error.hint_text().map(str::to_owned),
            exit_code: error.kind().exit_code(),
            ..Finding::ok(area, subject, error.to_string())
        }
    }
}

/// The whole examination.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DoctorReport {
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    /// How many of a level there are.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|f| f.level == level).count()
    }

    /// 0, or that of the first problem.
    pub fn exit_code(&self) -> u8 {
        self.findings.iter().find(|f| f.level == Level::Problem).map_or(0, |f| f.exit_code)
    }
}

/// The store's clock beside ours.
pub fn clock(store: &str, here: Timestamp, there: Timestamp) -> Finding {
    let seconds = there.as_second() - here.as_second();
    let off = format!("the store's clock is {} {}", duration(seconds.abs()), if seconds < 0 { "behind" } else { "ahead" });
    let fix = "set both clocks by NTP: timedatectl set-ntp true";
    match seconds.abs() {
        0..SKEW_SEEN => Finding::ok("clock", store, "agrees with the store's"),
        SKEW_SEEN..SKEW => Finding::warning("clock", store, off, fix),
        _ => Finding::problem("clock", store, off, fix),
    }
}

/// Room left in a folder beside what the next set will take, as far as earlier sets tell.
pub fn room(store: &str, left: u64, newest_set: Option<u64>) -> Finding {
    let bytes = crate::process::human_bytes;
    let fix = "make room, or move the repository to a larger disk (stop drctl, copy the whole folder, change path: in drctl.yaml)";
    match newest_set {
        Some(set) if left < set => {
            Finding::problem("room", store, format!("{} left, and the newest set took {}", bytes(left), bytes(set)), fix)
        }
        Some(set) if left < set.saturating_mul(5) => {
            Finding::warning("room", store, format!("{} left: {} more sets like the newest", bytes(left), left / set.max(1)), fix)
        }
        _ => Finding::ok("room", store, format!("{} left", bytes(left))),
    }
}

/// Keys: does ours sign, does the identity open, was the recovery file tried?
pub async fn keys(setup: &Setup, sealed_for: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    let here: Vec<String> = setup.identities.recipients().iter().map(ToString::to_string).collect();
    if !sealed_for.is_empty() {
        found.push(if here.is_empty() {
            Finding::ok("keys", "identity", "none on this host: it can write sets and not read them")
        } else if here.iter().any(|own| sealed_for.contains(own)) {
            Finding::ok("keys", "identity", "opens what this host writes")
        } else {
            Finding::problem(
                "keys",
                "identity",
                format!("it is for {}, but sets are sealed for {}", here.join(", "), sealed_for.join(", ")),
                "put the matching file under identity:, or its recipient under recipients: in drctl.yaml",
            )
        });
    }
    found.push(match confirm::untried(setup) {
        Some(words) => Finding::warning("keys", "recovery file", words, "drctl key confirm FILE"),
        None => match confirm::last(setup) {
            Some(known) => Finding::ok("keys", "recovery file", format!("opened a set on {}", known.at.strftime("%Y-%m-%d"))),
            None => Finding::ok("keys", "recovery file", "whether it was tried is not kept on this host"),
        },
    });
    found
}

/// What lies in the repository that nobody signed: named, and passed over by every verb.
pub async fn odd(setup: &Setup) -> Vec<Finding> {
    /// So many are named one by one.
    const NAMED: usize = 20;
    let mut found = setup.repository.odd();
    match setup.repository.look_at_jobs().await {
        Ok((_, odd)) => found.extend(odd),
        Err(error) => return vec![Finding::error("repository", "", &error)],
    }
    let fix = "somebody who may write to the store put it there: find out who, and have the store's owner take it away";
    let words = |odd: &Odd| format!("{odd}: nobody signed it; it is passed over");
    let mut findings: Vec<Finding> = found.iter().take(NAMED).map(|odd| Finding::warning("repository", "", words(odd), fix)).collect();
    if found.len() > NAMED {
        findings.push(Finding::warning("repository", "", format!("{} more like these", found.len() - NAMED), fix));
    }
    findings
}

/// One job: does its log verify, is there a good set, was it proven, is the lease free?
pub async fn job(setup: &Setup, job: &JobName, log: &Result<JobLog>, groups: Option<&[String]>) -> Vec<Finding> {
    let name = job.to_string();
    let log = match log {
        Ok(log) => log,
        Err(error) => return vec![Finding::error("sets", name, error)],
    };
    let now = setup.clock.now();
    let mut found: Vec<Finding> = log
        .state()
        .open_findings()
        .map(|f| {
            Finding::problem(
                "log",
                &name,
                f.to_string(),
                "compare with a copy of the repository before anything else; every set that list still shows is whole",
            )
        })
        .collect();
    let bad = |number: u64| log.head() > 0 && !log.state().key_is_valid(number) || log.revoked(number).is_some();
    if let Some(key) = setup.keys.iter().find(|key| bad(key.number)) {
        found.push(Finding::problem(
            "keys",
            &name,
            format!("key {} of this host was revoked", key.number),
            "use the key that replaced it: signing_key: in drctl.yaml",
        ));
    }
    if let Some(words) = keys::closed_sets(setup, log) {
        found.push(Finding::problem("keys", &name, words, keys::PUT_BACK));
    }
    let stands = look::job_status(log, groups, now, None).await;
    match &stands.newest_good {
        None => found.push(Finding::problem("sets", &name, "there is no good set", format!("drctl backup now {job}"))),
        Some(set) => {
            match stands.dated_ahead {
                Some(at) => found.push(Finding::problem(
                    "sets",
                    &name,
                    format!("newest good set {}: one is dated {at}, in the future, and how old it is is not known", set.set),
                    format!("look at the clocks (date) of the hosts that write here, then: drctl backup now {job}"),
                )),
                None => {
                    let age = stands.rpo_seconds.map_or_else(|| "of some sources only".to_owned(), |age| format!("{} old", duration(age)));
                    found.push(Finding::ok("sets", &name, format!("newest good set {}, {age}", set.set)));
                }
            }
            found.push(proof(&name, log, now));
        }
    }
    for group in stands.groups_without_good.iter().filter(|_| stands.newest_good.is_some()) {
        found.push(Finding::problem("sets", &name, format!("no good set of group {group}"), format!("drctl backup now {job}")));
    }
    match lease::odd(&setup.repository, job).await {
        Ok(odd) => found.extend(odd.first().map(|first| {
            let words = format!("{first}{} is no lease; it hinders nothing, and somebody put it there", and_more(odd.len()));
            Finding::warning("lease", &name, words, format!("drctl unlock {job}    (or drctl prune --apply, with a pruner's rights)"))
        })),
        Err(error) => found.push(Finding::error("lease", &name, &error)),
    }
    match lease::standing(&setup.repository, job, &setup.host).await {
        Ok(Standing::Held { holder, until, dead: false }) => found.push(Finding::warning(
            "lease",
            &name,
            format!("held by {holder}, until {}", until.strftime("%Y-%m-%d %H:%M UTC")),
            format!("wait for that run; if it is gone for good: drctl unlock {job}"),
        )),
        // The next run takes a dead one's over.
        Ok(Standing::Free | Standing::Held { dead: true, .. }) => {}
        Err(error) => found.push(Finding::error("lease", &name, &error)),
    }
    found
}

fn proof(name: &str, log: &JobLog, now: Timestamp) -> Finding {
    let proven = log.state().live().rev().find(|e| e.is_good() && e.grade(false) >= Some(Grade::ReadBack));
    let at = proven.and_then(|e| e.proofs.iter().rev().find(|p| p.proof.passed).map(|p| (e.id().clone(), p.proof.finished_at)));
    match at {
        None => Finding::warning("proof", name, "no set was ever read back", format!("drctl verify --job {name}")),
        Some((set, at)) => {
            let again = format!("drctl verify --job {name}");
            match age_seconds(at, now) {
                None => Finding::warning("proof", name, format!("{set} was read back at {at}, which lies in the future"), again),
                Some(age) if age > PROOF_AGE => {
                    Finding::warning("proof", name, format!("{set} was read back {} ago", duration(age)), again)
                }
                Some(age) => Finding::ok("proof", name, format!("{set} was read back {} ago", duration(age))),
            }
        }
    }
}

/// One source: reachable, allowed, versions fit, tools there. One that hangs is given up after `limit`.
pub async fn source(subject: &str, source: &dyn Source, context: &RunContext, limit: Duration) -> Vec<Finding> {
    match tokio::time::timeout(limit, source.preflight(context)).await {
        Err(_) => vec![Finding::problem(
            "source",
            subject,
            format!("no answer within {} s", limit.as_secs()),
            "is the server busy, or does a firewall in between drop packets?",
        )],
        Ok(Err(error)) => vec![Finding::error("source", subject, &error)],
        Ok(Ok(checked)) => {
            let mut found = vec![Finding::ok("source", subject, checked.summary)];
            // What a warning asks for stands in its own words.
            let words = checked.warnings.into_iter().chain(checked.left_out.into_iter().filter(|l| !l.on_purpose).map(|l| l.words));
            found.extend(words.map(|words| Finding { level: Level::Warning, ..Finding::ok("source", subject, words) }));
            found.extend(checked.problems.iter().map(|error| Finding::error("source", subject, error)));
            found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_said_and_then_refused() {
        let here = Timestamp::UNIX_EPOCH;
        for (seconds, level) in
            [(0, Level::Ok), (29, Level::Ok), (-30, Level::Warning), (299, Level::Warning), (300, Level::Problem), (-9000, Level::Problem)]
        {
            let there = Timestamp::from_second(seconds).unwrap();
            let found = clock("a", here, there);
            assert_eq!(found.level, level, "{seconds}: {}", found.words);
            assert!(level == Level::Ok || found.words.contains(if seconds < 0 { "behind" } else { "ahead" }), "{}", found.words);
        }
    }

    #[test]
    fn room_is_judged_by_what_a_set_takes() {
        for (left, set, level) in [
            (0, None, Level::Ok),
            (10, Some(11), Level::Problem),
            (11, Some(11), Level::Warning),
            (54, Some(11), Level::Warning),
            (55, Some(11), Level::Ok),
            (1, Some(0), Level::Ok),
        ] {
            assert_eq!(room("a", left, set).level, level, "{left} {set:?}");
        }
    }

    #[test]
    fn the_first_problem_decides_the_exit_code() {
        let unreachable = Error::new(Kind::Unreachable, "connect").hint("start it");
        let report = DoctorReport {
            findings: vec![
                Finding::ok("state", "", "fine"),
                Finding::warning("room", "", "little", "make room"),
                Finding::error("source", "db", &unreachable),
                Finding::problem("sets", "shop", "none", "drctl backup now"),
            ],
        };
        assert_eq!(report.exit_code(), Kind::Unreachable.exit_code());
        assert_eq!(report.findings[2].fix.as_deref(), Some("start it"));
        assert_eq!([Level::Ok, Level::Warning, Level::Problem].map(|l| report.count(l)), [1, 1, 2]);
        assert_eq!(DoctorReport { findings: report.findings[..2].to_vec() }.exit_code(), 0);
    }
}
