//! `drctl diff`.

use std::fmt::Write as _;

use crate::cli::Shell;
use crate::cli::args::DiffArgs;
use crate::cli::output::{bytes, number};
use crate::error::Result;
use crate::open::Opened;
use crate::ops::choose::{self, Wanted};
use crate::ops::diff::{Change, DiffReport, diff};

/// Says what changed between two sets.
pub async fn run(shell: &Shell, args: DiffArgs) -> Result<u8> {
    let opened = Opened::for_reading_from(&shell.around(), args.from_store.store.as_deref()).await?;
    let (from, to) = (Wanted::word(&args.from), Wanted::word(&args.to));
    let (now, job) = (opened.setup.clock.now(), opened.job_of(&from, args.job.as_deref()).await?);
    let log = opened.setup.log(&job).await?;
    let zone = opened.zone(Some(&job));
    let from = choose::set(&log, &from, None, now, &zone)?.manifest.clone();
    let to = choose::set(&log, &to, None, now, &zone)?.manifest.clone();
    let report = diff(&opened.setup, &from, &to).await?;
    shell.out.result("diff", &report, text);
    Ok(0)
}

fn text(report: &DiffReport) -> String {
    let mut out = format!("{} → {}\n", report.from, report.to);
    if report.artifacts.is_empty() {
        out.push_str("nothing changed\n");
    }
    for artifact in &report.artifacts {
        let sizes = match (artifact.plain_bytes_before, artifact.plain_bytes_after) {
            (None, Some(after)) => format!("new, {}", bytes(after)),
            (Some(_), None) => "gone".to_owned(),
            (Some(before), Some(after)) => format!("{} → {}", bytes(before), bytes(after)),
            (None, None) => String::new(),
        };
        let _ = writeln!(out, "\n{}: {sizes}", artifact.artifact);
        for Change { name, before, after } in &artifact.counts {
            let show = |count: &Option<u64>| count.map_or("–".into(), number);
            let _ = writeln!(out, "  {name}: {} → {}", show(before), show(after));
        }
        for line in &artifact.lines {
            let _ = writeln!(out, "  {line}");
        }
        if artifact.more > 0 {
            let _ = writeln!(out, "  … and {} more: --json shows all", artifact.more);
        }
    }
    out
}
