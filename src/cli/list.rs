//! `drctl list`.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::Shell;
use crate::cli::args::ListArgs;
use crate::cli::output::{ago, bytes, duration, table, when};
use crate::error::Result;
use crate::model::clock::age_seconds;
use crate::open::Opened;
use crate::ops::look::{self, ListReport, SetLine};

/// Lists the sets of one job or all.
pub async fn run(shell: &Shell, args: ListArgs) -> Result<u8> {
    let opened = Opened::for_reading_from(&shell.around(), args.from_store.store.as_deref()).await?;
    let jobs = opened.jobs(args.job.as_deref()).await?;
    let report = look::list(&opened.setup, &jobs).await?;
    let (now, zone) = (opened.setup.clock.now(), opened.zone(jobs.first()));
    shell.out.result("list", &report, |report| text(report, now, &zone));
    Ok(0)
}

/// `read-back 3 h ago`, `FAILED`.
pub fn proof(set: &SetLine, now: Timestamp) -> String {
    match (set.grade, set.proven_at) {
        (Some(grade), Some(at)) => format!("{grade}, {}", ago(at, now)),
        (Some(grade), None) => grade.to_string(),
        (None, _) => "FAILED".into(),
    }
}

fn text(report: &ListReport, now: Timestamp, zone: &TimeZone) -> String {
    let mut out = String::new();
    if report.sets.is_empty() {
        out.push_str(&format!("no backup sets in {}\nmake one: drctl backup now\n", report.location));
    } else {
        let rows: Vec<Vec<String>> = report
            .sets
            .iter()
            .map(|set| {
                let pinned = set.pinned_until.is_some_and(|until| until > now).then_some("pinned");
                let state = [Some(set.state), set.class.words(), pinned].into_iter().flatten().collect::<Vec<_>>().join(", ");
                vec![
                    set.set.to_string(),
                    when(set.started_at, zone),
                    age_seconds(set.started_at, now).map_or_else(|| "in the future".to_owned(), duration),
                    state,
                    proof(set, now),
                    bytes(set.plain_bytes),
                    bytes(set.stored_bytes),
                    set.sources.join(" "),
                ]
            })
            .collect();
        out.push_str(&table(&["SET", "BEGUN", "AGE", "STATE", "PROOF", "DATA", "STORED", "SOURCES"], &rows, &[5, 6]));
    }
    for finding in &report.findings {
        out.push_str(&format!("ALARM: {finding}\n"));
    }
    out
}
