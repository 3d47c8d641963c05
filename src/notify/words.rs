//! Messages out of plain figures: the report of a backup, and the digest. Pure: whoever has run something fills the figures in.

use crate::model::figures::{bytes, count, duration, two};
use crate::model::{Severity, Timestamp};
use crate::notify::{Fact, Message, What};

/// What a run made of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Its name.
    pub source: String,
    /// Why it is not whole; `None`: it is.
    pub problem: Option<String>,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// Bytes in the store that it took in the set before, where there is one.
    pub stored_bytes_before: Option<u64>,
    /// What was counted in it: `3 tables, 305,000 rows`.
    pub counts: String,
}

/// What would be lost, were everything gone now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lost {
    /// The log could not be asked: nothing is said.
    #[default]
    Unknown,
    /// There is no good set.
    Everything,
    /// It is dated in the future: how much is not known.
    Ahead,
    /// So many seconds of work.
    Seconds(i64),
}

/// A run of a backup that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// The job.
    pub job: String,
    /// What names the run, the same as when it began.
    pub run: Option<String>,
    /// How it ended (DESIGN §7).
    pub exit_code: u8,
    /// Why it failed.
    pub why: Option<String>,
    /// The next command to type, where the failure names one.
    pub next: Option<String>,
    /// The set, when one was stored.
    pub set: Option<String>,
    /// When the run began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Its sources.
    pub sources: Vec<SourceReport>,
    /// How the set is proven: `uploaded`, `read-back`.
    pub grade: Option<String>,
    /// Seconds between the first and the last instant that the set's sources stand for.
    pub spread_seconds: Option<i64>,
    /// The most that the job's objectives allow.
    pub spread_limit_seconds: Option<i64>,
    /// What is odd: much smaller than the sets before, a table gone.
    pub suspicions: Vec<String>,
    /// What changed in environment, compose files and images since the set before, by name: never a value.
    pub drift: Vec<String>,
    /// Further stores that the set did not reach.
    pub missed_stores: Vec<String>,
    /// What would be lost now.
    pub lost_now: Lost,
    /// The most that the job's objectives allow.
    pub rpo_seconds: Option<i64>,
}

impl BackupReport {
    /// One of which nothing is known but how it ended.
    pub fn new(job: impl Into<String>, exit_code: u8, started_at: Timestamp, finished_at: Timestamp) -> BackupReport {
        BackupReport {
            job: job.into(),
            run: None,
            exit_code,
            why: None,
            next: None,
            set: None,
            started_at,
            finished_at,
            sources: Vec::new(),
            grade: None,
            spread_seconds: None,
            spread_limit_seconds: None,
            suspicions: Vec::new(),
            drift: Vec::new(),
            missed_stores: Vec::new(),
            lost_now: Lost::Unknown,
            rpo_seconds: None,
        }
    }
}

/// The key under which failed backups of a job are one incident.
pub fn backup_incident(job: &str) -> String {
    format!("backup:{job}")
}

/// A run begins: for dead-man switches.
pub fn run_started(job: &str, run: &str, at: Timestamp) -> Message {
    Message {
        job: Some(job.to_owned()),
        run: Some(run.to_owned()),
        ..Message::new(What::RunStarted, Severity::Info, format!("{job}: backup begins"), at)
    }
}

/// The report of a backup: title, why, the next command, the figures.
pub fn backup_report(report: &BackupReport) -> Message {
    let job = &report.job;
    let (severity, what) = outcome(report);
    let mut lines: Vec<String> = report.why.iter().cloned().collect();
    for source in &report.sources {
        lines.extend(source.problem.as_ref().map(|problem| format!("{}: {problem}", source.source)));
    }
    if let Some(set) = &report.set {
        let proof = report.grade.as_ref().map(|grade| format!(", proof: {grade}")).unwrap_or_default();
        lines.push(format!("set {set}{proof}"));
    } else if report.exit_code != 0 {
        lines.push("no set was stored; nothing stored earlier was touched".to_owned());
    }
    lines.extend(report.suspicions.iter().map(|odd| format!("odd: {odd}")));
    if !report.missed_stores.is_empty() {
        lines.push(format!("not in {}: the next backup goes there again, this set does not", report.missed_stores.join(", ")));
    }
    if !report.drift.is_empty() {
        lines.push(format!("changed since the set before: {}", report.drift.join(", ")));
    }
    lines.extend(lost(report));
    let next = report.next.clone().or_else(|| match (&report.set, report.exit_code) {
        (_, 0) => None,
        (Some(set), _) => Some(format!("drctl show {set}")),
        (None, _) => Some("drctl doctor".to_owned()),
    });
    Message {
        incident: Some(backup_incident(job)),
        job: Some(job.clone()),
        run: report.run.clone(),
        exit_code: Some(report.exit_code),
        lines,
        next,
        facts: facts(report),
        ..Message::new(What::RunReport, severity, format!("{job}: {what}"), report.finished_at)
    }
}

fn outcome(report: &BackupReport) -> (Severity, &'static str) {
    match report.exit_code {
        // Nothing is missing in it: it is the exit code of what a person has to look at.
        0 | 3 if !report.suspicions.is_empty() => (Severity::Warning, "backup done, but it looks odd"),
        0 => (Severity::Info, "backup done"),
        2 | 4 => (Severity::Critical, "backup could not start"),
        3 => (Severity::Warning, "backup is not whole"),
        5 => (Severity::Critical, "backup failed its verification"),
        7 => (Severity::Warning, "backup did not run, another run holds the job"),
        130 | 143 => (Severity::Warning, "backup was interrupted"),
        _ => (Severity::Critical, "backup failed"),
    }
}

fn lost(report: &BackupReport) -> Option<String> {
    Some(match (report.lost_now, report.rpo_seconds) {
        (Lost::Unknown, _) => return None,
        (Lost::Ahead, _) => "what would be lost now is not known: the newest good set is dated in the future".to_owned(),
        (Lost::Everything, _) => "there is no good set: everything would be lost now".to_owned(),
        (Lost::Seconds(age), Some(rpo)) if age > rpo => {
            format!("would be lost now: {}, more than the {} allowed", duration(age), duration(rpo))
        }
        (Lost::Seconds(age), _) => format!("would be lost now: {}", duration(age)),
    })
}

fn facts(report: &BackupReport) -> Vec<Fact> {
    let mut facts = vec![Fact::new("Took", took(report.finished_at.duration_since(report.started_at).as_secs()))];
    let whole: Vec<&SourceReport> = report.sources.iter().filter(|s| s.problem.is_none()).collect();
    if report.set.is_some() && !whole.is_empty() {
        let sum = |of: fn(&SourceReport) -> u64| whole.iter().map(|s| of(s)).sum::<u64>();
        // Only where every source was in the set before: a new one is no growth.
        let before: Option<u64> = whole.iter().map(|s| s.stored_bytes_before).sum();
        let stored = sum(|s| s.stored_bytes);
        facts.push(Fact::new("Size", format!("{} read, {}", bytes(sum(|s| s.plain_bytes)), stored_words(stored, before))));
    }
    if let Some(spread) = report.spread_seconds {
        let over = report.spread_limit_seconds.filter(|limit| spread > *limit);
        let over = over.map(|limit| format!(", more than the {} allowed", took(limit))).unwrap_or_default();
        facts.push(Fact::new("Spread of times", format!("{}{over}", took(spread))));
    }
    for source in &report.sources {
        let value = match &source.problem {
            Some(_) => "NOT WHOLE".to_owned(),
            None => {
                let counts = if source.counts.is_empty() { String::new() } else { format!(", {}", source.counts) };
                format!("{}{counts}", stored_words(source.stored_bytes, source.stored_bytes_before))
            }
        };
        facts.push(Fact::new(&source.source, value));
    }
    facts
}

/// `3 min 20 s`: below an hour to the second.
fn took(seconds: i64) -> String {
    if (60..3600).contains(&seconds) { two(seconds / 60, "min", seconds % 60, "s") } else { duration(seconds) }
}

/// `289 MiB stored (+4 %)`.
fn stored_words(stored: u64, before: Option<u64>) -> String {
    format!("{} stored{}", bytes(stored), before.map(|before| format!(" ({})", change(before, stored))).unwrap_or_default())
}

/// `+4 %`, `-62 %`, `same size`.
fn change(before: u64, now: u64) -> String {
    if before == 0 {
        return if now == 0 { "same size".to_owned() } else { "empty before".to_owned() };
    }
    let percent = (now as f64 - before as f64) / before as f64 * 100.0;
    match percent.abs() {
        small if small < 0.05 => "same size".to_owned(),
        some if some < 9.95 => format!("{percent:+.1} %"),
        _ => format!("{percent:+.0} %"),
    }
}

/// How one job did since the last digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestJob {
    /// The job.
    pub job: String,
    /// Runs that went well.
    pub good_runs: u64,
    /// Runs that did not.
    pub bad_runs: u64,
    /// The most that the job's objectives allow.
    pub rpo_seconds: Option<i64>,
    /// What its log says; `None`: it could not be read, which is not the same as no sets.
    pub log: Option<DigestLog>,
    /// Bytes of all live sets at the last digest.
    pub stored_bytes_before: Option<u64>,
}

/// A job's log in a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestLog {
    /// Age of the newest good set; `None`: there is none, or it is not known.
    pub newest_good_seconds: Option<i64>,
    /// The newest good set is dated in the future.
    pub dated_ahead: bool,
    /// Live sets, and those among them proven by reading back or better.
    pub sets: u64,
    /// See `sets`.
    pub verified_sets: u64,
    /// Bytes of all live sets.
    pub stored_bytes: u64,
    /// Age of the newest drill that passed.
    pub drill_seconds: Option<i64>,
}

impl DigestJob {
    fn is_well(&self) -> bool {
        let fresh = |age: i64| self.rpo_seconds.is_none_or(|rpo| age <= rpo);
        self.bad_runs == 0 && self.log.as_ref().and_then(|log| log.newest_good_seconds).is_some_and(fresh)
    }
}

/// How everything stands: a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// This machine.
    pub host: String,
    /// When it was made.
    pub at: Timestamp,
    /// Seconds that it is about.
    pub over_seconds: i64,
    /// Its jobs.
    pub jobs: Vec<DigestJob>,
    /// Titles of what is wrong now.
    pub open: Vec<String>,
    /// What a person should do some day: `the recovery file was never tried: drctl key confirm FILE`.
    pub advice: Vec<String>,
}

/// The digest as a message. One that has nothing bad to say is good to know.
pub fn digest(digest: &Digest) -> Message {
    let well = digest.jobs.iter().filter(|job| job.is_well()).count();
    let all = digest.jobs.len();
    let (severity, how) = match (all, all - well, digest.open.len()) {
        (0, _, _) => (Severity::Warning, "there is no job, so nothing is backed up".to_owned()),
        (_, 0, 0) if all == 1 => (Severity::Info, "all is well with its job".to_owned()),
        (_, 0, 0) => (Severity::Info, format!("all is well with its {all} jobs")),
        (_, 0, open) => (Severity::Warning, format!("{} open", count(open as u64, "incident"))),
        (_, bad, _) => (Severity::Warning, format!("{bad} of {} to be looked at", count(all as u64, "job"))),
    };
    let mut lines = vec![format!("the last {}:", duration(digest.over_seconds))];
    lines.extend(digest.jobs.iter().map(job_line));
    lines.extend(digest.open.iter().map(|title| format!("open: {title}")));
    lines.extend(digest.advice.iter().map(|advice| format!("to do: {advice}")));
    Message {
        host: digest.host.clone(),
        lines,
        next: (severity > Severity::Info).then(|| "drctl status".to_owned()),
        ..Message::new(What::Digest, severity, format!("{}: {how}", digest.host), digest.at)
    }
}

fn job_line(job: &DigestJob) -> String {
    let runs = match (job.good_runs, job.bad_runs) {
        (0, 0) => "no run".to_owned(),
        (good, 0) => count(good, "good run"),
        (good, bad) => format!("{}, {bad} FAILED", count(good, "good run")),
    };
    let Some(log) = &job.log else { return format!("{}: {runs}; its log could not be read", job.job) };
    let newest = match (log.newest_good_seconds, job.rpo_seconds) {
        (None, _) if log.dated_ahead => "newest good set DATED IN THE FUTURE: how old it is is not known".to_owned(),
        (None, _) => "NO GOOD SET".to_owned(),
        (Some(age), Some(rpo)) if age > rpo => format!("newest good set {} old, {} allowed", duration(age), duration(rpo)),
        (Some(age), _) => format!("newest good set {} old", duration(age)),
    };
    let grown = job.stored_bytes_before.map(|before| format!(" ({})", change(before, log.stored_bytes))).unwrap_or_default();
    let drill = log.drill_seconds.map_or_else(|| "never drilled".to_owned(), |age| format!("drilled {} ago", duration(age)));
    format!(
        "{}: {runs}; {newest}; {}, {} verified, {}{grown}; {drill}",
        job.job,
        count(log.sets, "set"),
        log.verified_sets,
        bytes(log.stored_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn source(name: &str, stored: u64, before: Option<u64>, counts: &str) -> SourceReport {
        SourceReport {
            source: name.into(),
            problem: None,
            plain_bytes: stored * 4,
            stored_bytes: stored,
            stored_bytes_before: before,
            counts: counts.into(),
        }
    }

    fn good() -> BackupReport {
        BackupReport {
            job: "jisu".into(),
            run: Some("7".into()),
            exit_code: 0,
            why: None,
            next: None,
            set: Some("jisu/20250101T020000Z-full-7k3q".into()),
            started_at: at("2025-01-01T02:00:00Z"),
            finished_at: at("2025-01-01T02:03:20Z"),
            sources: vec![
                source("postgres", 289 << 20, Some(278 << 20), "3 tables, 305,000 rows"),
                source("uploads", 1 << 30, Some(1 << 30), "12,000 files"),
                source("environment", 2100, None, ""),
            ],
            grade: Some("read-back".into()),
            spread_seconds: Some(95),
            spread_limit_seconds: None,
            suspicions: vec![],
            drift: vec![],
            missed_stores: vec![],
            lost_now: Lost::Seconds(200),
            rpo_seconds: Some(3600),
        }
    }

    #[test]
    fn what_is_not_known_is_not_said_to_be_lost() {
        let said = |lost_now| backup_report(&BackupReport { lost_now, ..good() }).to_text().contains("lost now");
        assert_eq!([Lost::Unknown, Lost::Everything, Lost::Seconds(5)].map(said), [false, true, true]);
    }

    fn shown(message: &Message) -> String {
        format!("[{} {}]\n{}", message.severity.name(), message.what.name(), message.to_text())
    }

    #[test]
    fn the_report_of_a_good_backup() {
        insta::assert_snapshot!(shown(&backup_report(&good())));
    }

    #[test]
    fn the_report_of_one_that_is_odd_and_not_everywhere() {
        let mut report = good();
        report.sources[0].stored_bytes = 100 << 20;
        report.suspicions = vec!["postgres is 64 % smaller than the last 5 sets".into()];
        report.drift = vec!["JISU_DB_POOL".into(), "image of backend".into()];
        report.missed_stores = vec!["far".into()];
        report.spread_limit_seconds = Some(60);
        insta::assert_snapshot!(shown(&backup_report(&report)));
    }

    #[test]
    fn the_report_of_one_that_is_not_whole() {
        let mut report = BackupReport { exit_code: 3, lost_now: Lost::Seconds(90_000), ..good() };
        report.sources[0].problem = Some("pg_dump of shop exited 1 after 40 MiB: server closed the connection".into());
        insta::assert_snapshot!(shown(&backup_report(&report)));
    }

    #[test]
    fn the_report_of_one_that_failed() {
        let report = BackupReport {
            exit_code: 8,
            why: Some("connect to postgres at db:5432: connection refused".into()),
            next: Some("systemctl status postgresql".into()),
            set: None,
            sources: vec![],
            grade: None,
            spread_seconds: None,
            lost_now: Lost::Everything,
            ..good()
        };
        insta::assert_snapshot!(shown(&backup_report(&report)));
    }

    #[test]
    fn titles_of_every_end() {
        for (code, title) in [
            (1, "jisu: backup failed"),
            (4, "jisu: backup could not start"),
            (5, "jisu: backup failed its verification"),
            (7, "jisu: backup did not run, another run holds the job"),
            (143, "jisu: backup was interrupted"),
        ] {
            let message = backup_report(&BackupReport { exit_code: code, set: None, ..good() });
            assert_eq!((message.title.as_str(), message.next.as_deref()), (title, Some("drctl doctor")));
            assert!(message.severity > Severity::Info && !message.is_good_run());
        }
    }

    #[test]
    fn changes_in_size() {
        for (before, now, words) in [
            (0, 0, "same size"),
            (0, 1, "empty before"),
            (1000, 1000, "same size"),
            (1000, 1042, "+4.2 %"),
            (1000, 380, "-62 %"),
            (10, 25, "+150 %"),
        ] {
            assert_eq!(change(before, now), words);
        }
    }

    #[test]
    fn digests() {
        let log = DigestLog {
            dated_ahead: false,
            newest_good_seconds: Some(2220),
            sets: 30,
            verified_sets: 28,
            stored_bytes: 12 << 30,
            drill_seconds: Some(3 * 86_400),
        };
        let job = DigestJob {
            job: "jisu".into(),
            good_runs: 7,
            rpo_seconds: Some(3600),
            log: Some(log.clone()),
            stored_bytes_before: Some(11 << 30),
            ..DigestJob::default()
        };
        let well = Digest {
            host: "prod-1".into(),
            at: at("2025-01-06T01:00:00Z"),
            over_seconds: 7 * 86_400,
            jobs: vec![job.clone()],
            open: vec![],
            advice: vec![],
        };
        let late = DigestJob {
            job: "sac".into(),
            good_runs: 5,
            bad_runs: 2,
            log: Some(DigestLog { newest_good_seconds: Some(90_000), drill_seconds: None, ..log }),
            ..job.clone()
        };
        let never = DigestJob { job: "new".into(), log: Some(DigestLog::default()), ..DigestJob::default() };
        let unread = DigestJob { job: "unread".into(), good_runs: 7, ..DigestJob::default() };
        let bad = Digest {
            jobs: vec![job, late, never, unread],
            open: vec!["sac: backup failed".into()],
            advice: vec!["the recovery file was never tried: drctl key confirm FILE".into()],
            ..well.clone()
        };
        let none = Digest { jobs: vec![], ..well.clone() };
        insta::assert_snapshot!([well, bad, none].iter().map(|d| shown(&digest(d))).collect::<Vec<_>>().join("\n"));
    }
}
