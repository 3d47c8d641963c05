//! `/metrics`: the board in Prometheus' text format 0.0.4. Pure.
//!
//! What is not known is left out: a nought would look like a figure, and an alert on absence could not fire.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::model::Severity;
use crate::model::clock::age_seconds;
use crate::model::record::Grade;
use crate::ops::board::{Board, JobBoard};
use crate::web::health::health;

/// Media type of the format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The board as metrics. All of them are gauges.
pub fn render(board: &Board) -> String {
    let mut page = Page(String::new());
    of_agent(&mut page, board);
    of_jobs(&mut page, &board.jobs, board.at);
    of_runs(&mut page, &board.jobs);
    of_stores(&mut page, board);
    page.0
}

fn of_agent(page: &mut Page, board: &Board) {
    page.metric("drctl_up", "1 while the agent runs; absent when it does not.").one(&[], Some(1u64));
    page.metric("drctl_build_info", "Version of drctl, as a label.").one(&[("version", board.version), ("host", &board.host)], Some(1u64));
    page.metric("drctl_start_timestamp_seconds", "When the agent started.").one(&[], Some(seconds(board.started_at)));
    page.metric("drctl_last_tick_timestamp_seconds", "When the scheduler last looked what is due.")
        .one(&[], board.scheduler.last_tick.map(seconds));
    let mut family = page.metric("drctl_component_status", "Status of a component of /health: 0 ok, 1 degraded, 2 failing.");
    let health = health(board, board.at);
    for (name, component) in health.components.iter().filter(|(name, _)| !name.starts_with("jobs/")) {
        family.one(&[("component", name)], Some(component.status as i64));
    }
    for job in &board.jobs {
        let status = health.components.get(&format!("jobs/{}", job.job)).map(|c| c.status as i64);
        family.one(&[("component", "job"), ("job", job.job.as_str())], status);
    }
    let config = &board.config;
    page.metric("drctl_config_last_reload_successful", "1: the configuration in use is the one on the disk; 0: that one was refused.")
        .one(&[], config.loaded_at.map(|_| i64::from(config.refused.is_none())));
    page.metric("drctl_config_loaded_timestamp_seconds", "When the configuration in use was loaded.")
        .one(&[], config.loaded_at.map(seconds));
    page.metric("drctl_clock_skew_seconds", "By how much this machine's clock is ahead of the first store's.")
        .one(&[], board.clock.skew_seconds);
    let mut family = page.metric("drctl_incidents_open", "Open incidents.");
    for (severity, name) in Severity::ALL {
        let open = board.incidents.iter().filter(|incident| incident.severity == severity).count();
        family.one(&[("severity", name)], Some(open as u64));
    }
    let queues = &board.queues;
    let mut family = page.metric("drctl_notify_queue", "Alerts that wait for a notifier.");
    queues.iter().for_each(|q| family.one(&[("notifier", &q.notifier)], Some(q.waiting)));
    let mut family = page.metric("drctl_notify_waiting_since_timestamp_seconds", "Since when the first of them waits.");
    queues.iter().for_each(|q| family.one(&[("notifier", &q.notifier)], q.waiting_since.map(seconds)));
    let mut family = page.metric("drctl_notify_undelivered", "Alerts that a notifier refused for good, or that were dropped.");
    queues.iter().for_each(|q| family.one(&[("notifier", &q.notifier)], Some(q.refused.saturating_add(q.dropped))));
}

/// A date in the future would keep every rule that counts from it silent until then: it is left out.
fn of_jobs(page: &mut Page, jobs: &[JobBoard], now: Timestamp) {
    let past = |at: &Timestamp| age_seconds(*at, now).is_some();
    let mut family = page.metric("drctl_last_success_timestamp_seconds", "End of the newest run that stored all of a source.");
    of_sources(&mut family, jobs, |source| source.last_success.filter(|_| !source.ahead).map(seconds));
    let help = "Greatest time between two scheduled backups of a source.";
    let mut family = page.metric("drctl_schedule_expected_interval_seconds", help);
    of_sources(&mut family, jobs, |source| source.expected_interval_seconds);
    let mut family = page.metric("drctl_backup_size_bytes", "Plain bytes of a source in the newest set that holds all of it.");
    of_sources(&mut family, jobs, |source| source.plain_bytes.and_then(signed));
    let mut family = page.metric("drctl_backup_stored_bytes", "Bytes that these take in each store.");
    of_sources(&mut family, jobs, |source| source.stored_bytes.and_then(signed));

    page.metric("drctl_rpo_seconds", "Work that would be lost now: age of what the newest good set of the worst group stands for.")
        .each(jobs, |job| job.rpo_seconds);
    page.metric(
        "drctl_age_unknown",
        "1 while the newest good set of a group is dated in the future: what would be lost is not known then.",
    )
    .each(jobs, |job| job.log.as_ref().map(|_| i64::from(job.age_unknown)));
    page.metric("drctl_rpo_objective_seconds", "The most that may be lost.").each(jobs, |job| job.objectives.rpo_seconds);
    page.metric("drctl_verify_objective_seconds", "Greatest age that the newest verification may have.")
        .each(jobs, |job| job.objectives.verified_within_seconds);
    page.metric("drctl_drill_objective_seconds", "Greatest age that the newest drill may have.")
        .each(jobs, |job| job.objectives.drilled_within_seconds);
    page.metric("drctl_sets", "Sets of a job.").each(jobs, |job| Some(job.log.as_ref()?.sets as u64));
    page.metric("drctl_verified_sets", "Sets that are good and proven read-back or better.")
        .each(jobs, |job| Some(job.log.as_ref()?.verified_sets as u64));
    page.metric("drctl_groups_without_good_set", "Groups of sources that have no good set at all.")
        .each(jobs, |job| Some(job.log.as_ref()?.groups_without_good.len() as u64));
    page.metric("drctl_stored_bytes", "Bytes that all sets of a job take in each store.")
        .each(jobs, |job| Some(job.log.as_ref()?.stored_bytes));
    page.metric("drctl_log_findings", "What is wrong with a job's log and was not acknowledged.")
        .each(jobs, |job| Some(job.log.as_ref()?.findings.len() as u64));
    let mut family = page.metric("drctl_last_verified_timestamp_seconds", "When a good set was last proven to be of this grade or better.");
    for job in jobs {
        for grade in [Grade::ReadBack, Grade::Restored] {
            let at = job.log.as_ref().and_then(|log| log.verified_at(grade)).filter(past);
            family.one(&[("job", job.job.as_str()), ("grade", grade.name())], at.map(seconds));
        }
    }
    page.metric("drctl_last_drill_success_timestamp_seconds", "When a drill last passed.")
        .each(jobs, |job| Some(seconds(job.log.as_ref()?.drill.as_ref().filter(|drill| past(&drill.at))?.at)));
}

fn of_runs(page: &mut Page, jobs: &[JobBoard]) {
    page.metric("drctl_last_attempt_timestamp_seconds", "When the newest backup of a job began, ended or not.")
        .each(jobs, |job| job.runs.attempted_at.map(seconds));
    // An interrupted run has no exit code; 137 is what a shell says of one that was killed.
    page.metric("drctl_last_attempt_exit_code", "Exit code of the newest backup that ended; 137: it was interrupted.")
        .each(jobs, |job| Some(job.runs.last_attempt.as_ref()?.exit_code.map_or(137, i64::from)));
    let mut family = page.metric("drctl_backup_duration_seconds", "How long the newest set of a group took.");
    for job in jobs {
        for (group, facts) in job.log.iter().flat_map(|log| &log.groups) {
            family.one(&[("job", job.job.as_str()), ("group", group)], Some(facts.duration_seconds));
        }
    }
    let mut family = page.metric("drctl_restore_duration_seconds", "How long the newest drill, or restore, took that went well.");
    for job in jobs {
        let drill = job.log.as_ref().and_then(|log| Some(log.drill.as_ref()?.duration_seconds));
        family.one(&[("job", job.job.as_str()), ("how", "drill")], drill);
        family.one(&[("job", job.job.as_str()), ("how", "restore")], job.runs.restore_seconds);
    }
    page.metric("drctl_run_in_progress", "1 while a run of the job is under way.").each(jobs, |job| Some(i64::from(job.running.is_some())));
    let mut family = page.metric("drctl_run_started_timestamp_seconds", "When the run under way began.");
    for job in jobs {
        let verb = job.running.as_ref().map_or("", |running| running.verb.as_str());
        family.one(&[("job", job.job.as_str()), ("verb", verb)], job.running.as_ref().map(|running| seconds(running.since)));
    }
    let mut family = page.metric("drctl_next_run_timestamp_seconds", "When something is scheduled next.");
    for job in jobs {
        for (at, next) in job.next.iter().enumerate() {
            // Of several instants of one entry the first counts: a series may stand only once.
            if job.next[..at].iter().all(|other| (&other.group, other.what) != (&next.group, next.what)) {
                family.one(&[("job", job.job.as_str()), ("group", &next.group), ("what", next.what)], Some(seconds(next.at)));
            }
        }
    }
}

fn of_stores(page: &mut Page, board: &Board) {
    let mut family = page.metric("drctl_store_up", "1: the store answered when it was last tried.");
    board.stores.iter().for_each(|s| family.one(&[("store", &s.name)], s.reachable.map(i64::from)));
    let mut family = page.metric("drctl_store_probed_timestamp_seconds", "When the store was last tried.");
    board.stores.iter().for_each(|s| family.one(&[("store", &s.name)], s.probed_at.map(seconds)));
    let mut family = page.metric("drctl_orphan_multiparts", "Multipart uploads in the store that nobody will end; they cost money.");
    board.stores.iter().for_each(|s| family.one(&[("store", &s.name)], s.orphan_multiparts));
}

fn of_sources<V: Value>(family: &mut Family<'_>, jobs: &[JobBoard], value: impl Fn(&crate::ops::board::SourceBoard) -> Option<V>) {
    for job in jobs {
        for source in &job.sources {
            family.one(&[("job", job.job.as_str()), ("source", &source.name)], value(source));
        }
    }
}

fn seconds(at: Timestamp) -> i64 {
    at.as_second()
}

fn signed(count: u64) -> Option<i64> {
    i64::try_from(count).ok()
}

/// A sample's value as the format has it: what Go's `ParseFloat` reads.
trait Value {
    fn text(&self) -> String;
}

impl Value for i64 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    fn text(&self) -> String {
        match self {
            value if value.is_nan() => "NaN".into(),
            value if value.is_infinite() => if *value > 0.0 { "+Inf" } else { "-Inf" }.into(),
            value => value.to_string(),
        }
    }
}

struct Page(String);

impl Page {
    fn metric<'a>(&'a mut self, name: &'static str, help: &'static str) -> Family<'a> {
        Family { page: &mut self.0, name, help, begun: false }
    }
}

/// One metric; its HELP and TYPE come with its first sample.
struct Family<'a> {
    page: &'a mut String,
    name: &'static str,
    help: &'static str,
    begun: bool,
}

impl Family<'_> {
    fn one<V: Value>(&mut self, labels: &[(&str, &str)], value: Option<V>) {
        let Some(value) = value else { return };
        if !self.begun {
            self.begun = true;
            let _ = writeln!(self.page, "# HELP {} {}\n# TYPE {} gauge", self.name, self.help, self.name);
        }
        self.page.push_str(self.name);
        for (at, (name, text)) in labels.iter().enumerate() {
            self.page.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.page, "{name}=\"{}\"", escaped(text));
        }
        let _ = writeln!(self.page, "{} {}", if labels.is_empty() { "" } else { "}" }, value.text());
    }

    /// A sample for each job.
    fn each<V: Value>(&mut self, jobs: &[JobBoard], value: impl Fn(&JobBoard) -> Option<V>) {
        for job in jobs {
            self.one(&[("job", job.job.as_str())], value(job));
        }
    }
}

/// A label's value: backslash, quote and line feed are written as the format asks; any other character may stand for itself.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
