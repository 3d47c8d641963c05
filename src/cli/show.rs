//! `drctl show`.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::Shell;
use crate::cli::args::ShowArgs;
use crate::cli::list::proof;
use crate::cli::output::{bytes, counted, duration, number, when};
use crate::error::{Kind, Result};
use crate::open::Opened;
use crate::ops::backup::OWN_SOURCE;
use crate::ops::choose::{self, Wanted};
use crate::ops::look::{self, ShowReport};

/// Shows one set. With `--rescue` exit 5 when something of it is damaged.
pub async fn run(shell: &Shell, args: ShowArgs) -> Result<u8> {
    let opened = Opened::for_reading_from(&shell.around(), args.from_store.store.as_deref()).await?;
    let wanted = Wanted::word(&args.set);
    let log = opened.setup.log(&opened.job_of(&wanted, args.job.as_deref()).await?).await?;
    let zone = opened.zone(Some(log.job()));
    let now = opened.setup.clock.now();
    let entry = choose::set(&log, &wanted, None, now, &zone)?;
    let report = look::show(&opened.setup, entry, args.rescue).await?;
    shell.out.result("show", &report, |report| text(report, args.rescue, now, &zone));
    let damaged = report.artifacts.iter().any(|a| a.damage.is_some());
    Ok(if damaged { Kind::Verify.exit_code() } else { 0 })
}

fn text(report: &ShowReport, rescue: bool, now: Timestamp, zone: &TimeZone) -> String {
    let mut out = String::new();
    let set = &report.set;
    let class = set.class.words().map(|words| format!(", {words}")).unwrap_or_default();
    let _ = writeln!(out, "{}  ({}, {}{class})", set.set, set.kind, set.state);
    for reason in &report.reasons {
        let _ = writeln!(out, "  ! {reason}");
    }
    for warning in report.sources.iter().filter(|s| s.kind == OWN_SOURCE).flat_map(|s| &s.warnings) {
        let _ = writeln!(out, "  - {warning}");
    }
    let _ = writeln!(out, "  begun     {} on {} by drctl {}", when(set.started_at, zone), report.host, report.drctl_version);
    let _ = writeln!(out, "  folder    {}", report.folder);
    if report.stores.len() > 1 {
        let _ = writeln!(out, "  stores    {}", report.stores.join(", "));
    }
    let _ = writeln!(out, "  size      {} of data, {} stored, record {}", bytes(set.plain_bytes), bytes(set.stored_bytes), report.record);
    let _ = writeln!(out, "  proof     {}", proof(set, now));
    if let Some(failed) = report.proofs.iter().rev().find(|p| !p.passed) {
        let _ = writeln!(out, "  last failed verification {} in store '{}':", when(failed.finished_at, zone), failed.store);
        for finding in &failed.findings {
            let _ = writeln!(out, "    {finding}");
        }
    }
    if set.sources.len() > 1 {
        let _ = writeln!(out, "  spread    its sources lie {} apart", duration(report.spread_seconds));
    }
    for source in report.sources.iter().filter(|s| s.kind != OWN_SOURCE) {
        let _ = writeln!(out, "\n{} ({}), as of {}", source.name, source.kind, when(source.as_of, zone));
        for problem in &source.problems {
            let _ = writeln!(out, "  ! {problem}");
        }
        for warning in &source.warnings {
            let _ = writeln!(out, "  - {warning}");
        }
        for artifact in report.artifacts.iter().filter(|a| a.source == source.name) {
            let name = artifact.name.as_deref().unwrap_or("(sealed)");
            let _ = writeln!(
                out,
                "  {name:<20} {:>9} → {:>9}  {}",
                bytes(artifact.plain_bytes),
                bytes(artifact.stored_bytes),
                counted(artifact.totals.iter().map(|(name, total)| (name.as_str(), *total)))
            );
            let _ = writeln!(out, "  {:<20} {}", "", artifact.file);
            for (table, rows) in artifact.per_name.iter().take(SHOWN_NAMES) {
                let _ = writeln!(out, "    {:>12}  {table}", number(*rows));
            }
            if artifact.per_name.len() > SHOWN_NAMES {
                let _ = writeln!(out, "    … and {} more: --json shows all", artifact.per_name.len() - SHOWN_NAMES);
            }
            if rescue {
                rescue_lines(&mut out, report, artifact);
            }
        }
    }
    if let Some(sealed) = &report.sealed {
        let _ = writeln!(out, "\nnames and counts stay sealed: {sealed}");
    }
    out
}

/// Names listed per artifact before the list is cut.
const SHOWN_NAMES: usize = 30;

fn rescue_lines(out: &mut String, report: &ShowReport, artifact: &look::ArtifactLine) {
    let command = format!("drctl cat {} {} > {}", report.set.set, artifact.file, artifact.file.split(".zst").next().unwrap_or("out"));
    match &artifact.damage {
        None => {
            let _ = writeln!(out, "    whole: {command}");
        }
        Some(damage) => {
            let _ = writeln!(out, "    DAMAGED: {damage}\n    what comes before the damage: {command}");
        }
    }
}
