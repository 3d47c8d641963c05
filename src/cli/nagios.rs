//! `drctl status --nagios`: one line and an exit code as the monitoring plugins have them (Monitoring Plugins Development Guidelines): 0 OK,
//! 1 WARNING, 2 CRITICAL, 3 UNKNOWN; behind the bar the figures, `label=value[unit];warning;critical;minimum`.

use std::fmt::Write as _;

use crate::cli::output::duration;
use crate::error::Error;
use crate::ops::look::{JobStatus, StatusReport};

/// From this share of the critical age on it is a warning.
const WARN_PERCENT: i64 = 80;

/// A state; the worst of all is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Ok => "OK",
            State::Warning => "WARNING",
            State::Critical => "CRITICAL",
            State::Unknown => "UNKNOWN",
        }
    }
}

/// The line, without its newline, and the exit code. `critical_age` gives the seconds from which on the newest good set of a job is too old;
/// `grave` of the report's findings, the first ones, are about what is stored.
pub fn judge(report: &StatusReport, critical_age: impl Fn(&JobStatus) -> Option<i64>, grave: usize) -> (String, u8) {
    let mut worst = State::Ok;
    let (mut bad, mut good, mut figures) = (Vec::new(), Vec::new(), String::new());
    for job in report.jobs.iter().filter(|job| job.configured) {
        let critical = critical_age(job);
        let (state, words) = of_job(job, critical);
        worst = worst.max(state);
        if state == State::Ok {
            good.push(words)
        } else {
            bad.push((state, words))
        }
        let limits = critical.map(|critical| format!("{};{critical}", warning_age(critical))).unwrap_or_else(|| ";".to_owned());
        let name = &job.job;
        if let Some(age) = job.rpo_seconds {
            let _ = write!(figures, " '{name}_age'={}s;{limits};0", age.max(0));
        }
        let _ = write!(figures, " '{name}_sets'={};;;0 '{name}_verified'={};;;0", job.sets, job.verified_sets);
        let _ = write!(figures, " '{name}_stored'={}B;;;0", job.stored_bytes);
    }
    for (at, finding) in report.findings.iter().enumerate() {
        let state = if at < grave { State::Critical } else { State::Warning };
        worst = worst.max(state);
        bad.push((state, finding.clone()));
    }
    if !report.jobs.iter().any(|job| job.configured) {
        worst = State::Unknown;
        bad.push((State::Unknown, "there is no job".to_owned()));
    }
    bad.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    let words: Vec<String> = bad.into_iter().map(|(_, words)| words).chain(good).collect();
    (format!("DRCTL {} - {}|{}", worst.name(), one_line(&words.join("; ")), figures.trim_start()), worst as u8)
}

/// What could not be found out is neither good nor bad.
pub fn unknown(error: &Error) -> (String, u8) {
    let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
    (unknown_words(&format!("{error}{hint}")), State::Unknown as u8)
}

/// The same for what is no error of ours: a command line that cannot be read.
pub fn unknown_words(words: &str) -> String {
    format!("DRCTL {} - {}", State::Unknown.name(), one_line(words))
}

fn of_job(job: &JobStatus, critical: Option<i64>) -> (State, String) {
    let name = &job.job;
    let Some(age) = job.rpo_seconds else {
        if let Some(at) = job.dated_ahead {
            return (State::Critical, format!("{name}: newest good set is dated {at}, in the future, and its age is not known"));
        }
        let groups = match (&job.newest_good, job.groups_without_good.as_slice()) {
            (Some(_), groups @ [_, ..]) => format!(" of group {}", groups.join(", ")),
            _ => String::new(),
        };
        return (State::Critical, format!("{name}: no good set{groups}"));
    };
    let words = format!("{name}: newest good set {} old", duration(age));
    let limit = |seconds: i64| format!("{words}, more than {}", duration(seconds));
    match critical {
        Some(critical) if age > critical => return (State::Critical, limit(critical)),
        Some(critical) if age > warning_age(critical) => return (State::Warning, limit(warning_age(critical))),
        _ => {}
    }
    if let Some(newer) = &job.newest_bad {
        return (State::Warning, format!("{words}, and the newer {} is not good", newer.set));
    }
    if let Some(copy) = job.copies.iter().find(|copy| copy.problem.is_some()) {
        return (State::Warning, format!("{words}, and store {} has a problem", copy.store));
    }
    (State::Ok, words)
}

fn warning_age(critical: i64) -> i64 {
    critical.saturating_mul(WARN_PERCENT) / 100
}

/// One line without the bar that begins the figures.
fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c == '|' { '/' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn job(age: Option<i64>) -> JobStatus {
        JobStatus {
            job: "shop".parse().unwrap(),
            configured: true,
            sets: 3,
            verified_sets: 2,
            stored_bytes: 4096,
            newest_good: None,
            rpo_seconds: age,
            dated_ahead: None,
            groups_without_good: Vec::new(),
            newest_bad: None,
            stale: false,
            copies: Vec::new(),
        }
    }

    fn report(jobs: Vec<JobStatus>, findings: &[&str]) -> StatusReport {
        StatusReport {
            location: "here".into(),
            role: String::new(),
            now: jiff::Timestamp::UNIX_EPOCH,
            agent: None,
            jobs,
            restores: Vec::new(),
            interrupted: Vec::new(),
            findings: findings.iter().map(|text| (*text).to_owned()).collect(),
            advice: Vec::new(),
        }
    }

    #[test]
    fn the_worst_decides() {
        let figures = |age: i64| format!("'shop_age'={age}s;80;100;0 'shop_sets'=3;;;0 'shop_verified'=2;;;0 'shop_stored'=4096B;;;0");
        for (age, findings, grave, code, begins) in [
            (0, &[][..], 0, 0, "DRCTL OK - shop: newest good set 0 s old|"),
            (80, &[], 0, 0, "DRCTL OK - shop: "),
            (81, &[], 0, 1, "DRCTL WARNING - shop: newest good set 1 min old, more than 1 min|"),
            (100, &[], 0, 1, "DRCTL WARNING - "),
            (101, &[], 0, 2, "DRCTL CRITICAL - "),
            (1, &["reload refused"], 0, 1, "DRCTL WARNING - reload refused; shop: "),
            (
                1,
                &["shop: a record | was\nexchanged", "reload refused"],
                1,
                2,
                "DRCTL CRITICAL - shop: a record / was exchanged; reload refused; shop: ",
            ),
            (101, &["reload refused"], 0, 2, "DRCTL CRITICAL - shop: newest good set 1 min old, more than 1 min; reload refused|"),
        ] {
            let (line, exit) = judge(&report(vec![job(Some(age))], findings), |_| Some(100), grave);
            assert!(line.starts_with(begins), "{age} {findings:?}: {line}");
            assert_eq!((exit, line.matches('|').count(), line.lines().count()), (code, 1, 1), "{line}");
            assert!(line.ends_with(&format!("|{}", figures(age))), "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_critical_and_what_is_not_known_is_unknown() {
        let none = judge(&report(vec![job(Some(5)), job(None)], &[]), |_| None, 0);
        assert_eq!(none.1, 2);
        assert!(none.0.starts_with("DRCTL CRITICAL - shop: no good set; shop: newest good set 5 s old|'shop_age'=5s;;;0 "), "{}", none.0);
        assert_eq!(judge(&report(vec![], &[]), |_| None, 0), ("DRCTL UNKNOWN - there is no job|".to_owned(), 3));
        let ahead = JobStatus { dated_ahead: Some("2031-01-01T00:00:00Z".parse().unwrap()), ..job(None) };
        let (line, code) = judge(&report(vec![ahead], &[]), |_| None, 0);
        assert!(
            code == 2 && line.contains("shop: newest good set is dated 2031-01-01T00:00:00Z, in the future") && !line.contains("_age"),
            "{line}"
        );
        let error = Error::new(Kind::Unreachable, "read the log:\nno answer").hint("drctl doctor");
        assert_eq!(unknown(&error), ("DRCTL UNKNOWN - read the log: no answer (drctl doctor)".to_owned(), 3));
        // Without a limit no age is too great, and without a job nothing is known.
        assert_eq!(judge(&report(vec![job(Some(1_000_000))], &[]), |_| None, 0).1, 0);
    }
}
