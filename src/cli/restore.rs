//! `drctl restore`: plan, question, work, closing lines; undo, finish and forget.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde_json::json;

use crate::catalog::JobLog;
use crate::cli::Shell;
use crate::cli::args::RestoreArgs;
use crate::cli::backup::{own_sources, with_sources};
use crate::cli::load_errors::{Accept, problems_text};
use crate::cli::output::{ago, bytes, confirm, counted, duration, is_interactive, took, when};
use crate::cli::reports;
use crate::error::{Error, Kind, Result};
use crate::model::{JobName, SetClass, SetId};
use crate::open::Opened;
use crate::ops::backup::{BackupOptions, backup};
use crate::ops::choose::Wanted;
use crate::ops::details::Details;
use crate::ops::restore::aftermath::{self, AftermathPlan, AftermathReport, Way};
use crate::ops::restore::journal::Phase;
use crate::ops::restore::plan::{Prepared, RestorePlan, plan};
use crate::ops::restore::run::{RestoreReport, run as carry_out};
use crate::ops::restore::{DATA_KINDS, RestoreOptions, new_restore_id, sweep};
use crate::process::shell_word;
use crate::state::Act;

/// Plans and, when agreed to, restores. Without a terminal and without `--yes`: prints plan and command line, exit 4.
pub async fn run(shell: &Shell, args: RestoreArgs) -> Result<u8> {
    let opened = Opened::for_reading_from(&shell.around(), args.from_store.store.as_deref()).await?;
    if let Some(id) = &args.undo {
        return settle(shell, &opened, &args, Way::Undo, id).await;
    }
    if let Some(id) = &args.finish {
        return settle(shell, &opened, &args, Way::Finish, id).await;
    }
    if let Some(id) = &args.forget {
        return settle(shell, &opened, &args, Way::Forget, id).await;
    }
    let wanted = match (&args.set, &args.date) {
        (Some(set), _) => Wanted::word(set),
        (None, Some(date)) => Wanted::Date(date.clone()),
        (None, None) => {
            return Err(Error::new(Kind::Usage, "restore what? Name a set or a date")
                .hint("drctl restore --date latest --dry-run    shows what the newest good set would bring back"));
        }
    };
    let job = opened.job_of(&wanted, args.job.as_deref()).await?;
    let zone = opened.zone(Some(&job));
    let options = RestoreOptions {
        wanted,
        sources: args.source.clone(),
        without: args.without.clone(),
        target: args.target.clone(),
        in_place: args.in_place,
        safety_set: (args.in_place && !args.no_safety_set).then(|| opened.store_folders()),
        exchange_first: args.exchange_first,
        zone_name: zone.iana_name().unwrap_or("UTC").to_owned(),
        zone: zone.clone(),
    };
    let mut begun = false;
    let done = plan_and_restore(shell, &opened, &args, &job, &options, &mut begun).await;
    // A script is told of what kept it from its work, too; a person sees it.
    if (begun || (args.yes && !args.dry_run && !is_interactive()))
        && let Some(reporter) = reports::of(shell, &opened)
    {
        match &done {
            Ok(Done::Restored(report)) => reporter.restore_ended(&job, Ok(report)),
            Ok(Done::Planned(_)) => {}
            Err(error) => reporter.restore_ended(&job, Err(error)),
        }
        reporter.deliver().await;
    }
    match done? {
        Done::Planned(code) => Ok(code),
        Done::Restored(report) => {
            shell.out.result("restore", report.as_ref(), done_text);
            Ok(if report.problems.is_empty() { 0 } else { Kind::Partial.exit_code() })
        }
    }
}

/// What a restore came to.
enum Done {
    /// The plan was shown, with this exit code.
    Planned(u8),
    Restored(Box<RestoreReport>),
}

/// `begun` is set once it was agreed to.
async fn plan_and_restore(
    shell: &Shell,
    opened: &Opened,
    args: &RestoreArgs,
    job: &JobName,
    options: &RestoreOptions,
    begun: &mut bool,
) -> Result<Done> {
    let zone = &options.zone;
    let log = opened.setup.log(job).await?;
    let mut prepared = plan(&opened.setup, &log, opened, options, &new_restore_id()).await?;
    sweep::look(&opened.setup, opened, &mut prepared).await?;

    if args.dry_run {
        shell.out.result("restore", &prepared.plan, |plan| plan_text(plan, zone));
        return Ok(Done::Planned(if prepared.plan.refusals().next().is_some() { Kind::Preflight.exit_code() } else { 0 }));
    }
    // The plan is what a person reads before yes: to standard error, as the result is still to come.
    if !shell.out.json {
        eprint!("{}", plan_text(&prepared.plan, zone));
    }
    if let Some(refusal) = prepared.plan.refusals().next() {
        return Err(Error::new(Kind::Preflight, refusal.clone()).hint("nothing was changed; mend this and run the same line again"));
    }
    let accepts = args.accept_load_errors.map(|most| format!(" --accept-load-errors {most}")).unwrap_or_default();
    agree(shell, args, || command_line(args, &prepared.plan) + &accepts)?;
    *begun = true;
    let report = opened.setup.audited(act(args, &prepared.plan, job), go(shell, opened, args, job, log, prepared)).await?;
    Ok(Done::Restored(Box::new(report)))
}

/// What was agreed to, for the audit log.
fn act(args: &RestoreArgs, plan: &RestorePlan, job: &JobName) -> Act {
    let sets: Vec<String> = plan.sets.iter().map(|set| set.set.to_string()).collect();
    let sources: Vec<&str> = plan.sources.iter().map(|source| source.name.as_str()).collect();
    Act::of("restore").job(job).on(sets.join(" ")).with(json!({
        "restore": plan.restore,
        "sources": sources,
        "target": plan.target,
        "in_place": args.in_place,
        "no_safety_set": args.no_safety_set,
        "accept_load_errors": args.accept_load_errors,
        "without": plan.without,
        "store": args.from_store.store,
    }))
}

/// What was planned, done.
async fn go(
    shell: &Shell,
    opened: &Opened,
    args: &RestoreArgs,
    job: &JobName,
    mut log: JobLog,
    prepared: Prepared,
) -> Result<RestoreReport> {
    sweep::sweep(&opened.setup, opened, &prepared).await?;
    let mut safety_sets = Vec::new();
    if args.in_place && !args.no_safety_set {
        safety_sets = make_safety_sets(shell, opened, job, &prepared.plan).await?;
        log.refresh().await?;
    }
    let recorded = opened.run_started("restore", job);
    let decide = Accept { shell, at_most: args.accept_load_errors, line: command_line(args, &prepared.plan), safety_sets };
    match carry_out(&opened.setup, &mut log, prepared, &decide).await {
        Ok(report) => {
            let exit_code = if report.problems.is_empty() { 0 } else { Kind::Partial.exit_code() };
            recorded.finished(Some(&report.set), exit_code, None);
            Ok(report)
        }
        Err(error) => {
            recorded.finished(None, error.kind().exit_code(), Some(&error));
            Err(error)
        }
    }
}

/// Undoes or finishes an earlier restore, once what that means was shown and agreed to.
async fn settle(shell: &Shell, opened: &Opened, args: &RestoreArgs, way: Way, id: &str) -> Result<u8> {
    let plan = aftermath::look(&opened.setup, opened, some(id), way).await?;
    let zone = opened.zone(Some(plan.restore.set.job()));
    if args.dry_run {
        shell.out.result("restore", &plan, |plan| aftermath_plan_text(plan, &zone));
        return Ok(0);
    }
    if !shell.out.json {
        eprint!("{}", aftermath_plan_text(&plan, &zone));
    }
    // The one that was shown, whatever another process does meanwhile.
    let shown = Some(plan.restore.restore.as_str());
    let act =
        |verb| Act::of(verb).job(plan.restore.set.job()).on(&plan.restore.restore).with(json!({ "set": plan.restore.set.to_string() }));
    let setup = &opened.setup;
    let report = match way {
        // It loses nothing, and it is the way out: nobody who cannot be asked is kept from it.
        Way::Undo => {
            if is_interactive() {
                agree(shell, args, String::new)?;
            }
            setup.audited_by(act("restore --undo"), aftermath::undo(setup, opened, shown), |report| report.exit_code).await?
        }
        Way::Finish => {
            if !plan.kept.is_empty() {
                agree(shell, args, || format!("drctl restore --finish {} --yes", plan.restore.restore))?;
            }
            setup.audited_by(act("restore --finish"), aftermath::finish(setup, opened, shown), |report| report.exit_code).await?
        }
        Way::Forget => {
            agree(shell, args, || format!("drctl restore --forget {} --yes", plan.restore.restore))?;
            setup.audited(act("restore --forget"), async { aftermath::forget(setup, opened, &plan.restore.restore) }).await?
        }
    };
    if let (Way::Undo, Some(reporter)) = (way, reports::of(shell, opened)) {
        reporter.restore_undone(plan.restore.set.job(), &report.restore, &report.done);
        reporter.deliver().await;
    }
    shell.out.result("restore", &report, aftermath_text);
    Ok(report.exit_code)
}

/// Asks, unless `--yes` was given. `line` is what does it without asking, for where there is nobody to ask.
fn agree(shell: &Shell, args: &RestoreArgs, line: impl FnOnce() -> String) -> Result<()> {
    if args.yes {
        return Ok(());
    }
    if !is_interactive() {
        return Err(Error::new(Kind::Preflight, "nothing was changed: this needs a yes, and there is no terminal to ask at").hint(line()));
    }
    if !confirm("Do this?")? || shell.cancel.is_cancelled() {
        return Err(Error::new(Kind::Preflight, "nothing was changed"));
    }
    Ok(())
}

/// What is live now, saved before it is loaded over: the sets. A safety set that is not whole is none.
async fn make_safety_sets(shell: &Shell, opened: &Opened, job: &JobName, plan: &RestorePlan) -> Result<Vec<SetId>> {
    let wanted: Vec<String> = plan.sources.iter().map(|s| s.name.clone()).collect();
    let (mut saved, mut sets) = (Vec::new(), Vec::new());
    for spec in with_sources(opened.job_specs(&[job.to_string()])?, &wanted).map_err(no_safety_set)? {
        shell.bus.step("making a safety set of what is live now");
        let options = BackupOptions { class: SetClass::Safety, ..own_sources(&spec, &wanted) };
        let safety = backup(&opened.setup, &spec, &options).await.map_err(no_safety_set)?;
        if let Some(problem) = safety.problems.first() {
            return Err(no_safety_set(Error::new(Kind::Preflight, format!("{} is not whole: {problem}", safety.set))));
        }
        let mut log = opened.setup.log(job).await?;
        log.refresh().await?;
        if let Some(entry) = log.state().get(&safety.set) {
            saved.push(Details::read(&opened.setup, &opened.setup.sinks[0].store, &entry.manifest).await.map_err(no_safety_set)?);
        }
        shell.bus.warn(format!("safety set {}: back to it with drctl restore {} --in-place", safety.set, safety.set));
        sets.push(safety.set);
    }
    // The configuration says what a backup holds, the set says what is dropped: these need not be the same.
    let unsaved = plan.unsaved(&saved);
    if !unsaved.is_empty() {
        return Err(Error::new(
            Kind::Preflight,
            format!("nothing was dropped: what is live now would be lost, the safety set does not hold {}", unsaved.join(", ")),
        )
        .hint("add it to the source's `database` in the configuration (or `database: all`), restore without --in-place, or give it up with --no-safety-set"));
    }
    Ok(sets)
}

/// What is in the way comes first; giving up the only way back comes last, and only where the sources themselves are what fails.
fn no_safety_set(error: Error) -> Error {
    let passing = matches!(error.kind(), Kind::Locked | Kind::Full | Kind::Unreachable | Kind::Interrupted | Kind::Terminated);
    let own = error.hint_text().map(str::to_owned);
    let again = if passing { "nothing was changed; once that is mended, type the same line again" } else { "nothing was changed" };
    let give_up = (!passing).then_some("only if nothing is left to save: add --no-safety-set, and there is no way back");
    let hints: Vec<String> = own.into_iter().chain([again.to_owned()]).chain(give_up.map(str::to_owned)).collect();
    error.context("make a safety set before loading over the live data").hint(hints.join("; "))
}

fn some(id: &str) -> Option<&str> {
    (!id.is_empty()).then_some(id)
}

/// The line that does what was planned, for scripts.
fn command_line(args: &RestoreArgs, plan: &RestorePlan) -> String {
    // One set by its id; several only by the date that joins them.
    let mut line = match (plan.sets.as_slice(), &args.date) {
        ([only], _) => format!("drctl restore {}", only.set),
        (_, date) => format!("drctl restore --date '{}'", date.as_deref().unwrap_or("latest")),
    };
    for source in &args.source {
        let _ = write!(line, " --source {source}");
    }
    for artifact in &args.without {
        let _ = write!(line, " --without {}", shell_word(artifact));
    }
    if let Some(target) = &args.target {
        let _ = write!(line, " --target '{}'", crate::ops::restore::shown_target(target));
    }
    if let Some(store) = &args.from_store.store {
        let _ = write!(line, " --store {store}");
    }
    if args.in_place {
        line.push_str(" --in-place");
    }
    if args.no_safety_set {
        line.push_str(" --no-safety-set");
    }
    if args.exchange_first {
        line.push_str(" --exchange-first");
    }
    line + " --yes"
}

/// How much is lost by what a set holds of a source.
fn lost(seconds: Option<i64>) -> String {
    seconds.map_or_else(|| "how much is not known, for this date lies in the future".to_owned(), duration)
}

/// The plan as it is shown before yes.
pub fn plan_text(plan: &RestorePlan, zone: &TimeZone) -> String {
    let mut out = String::new();
    let several = plan.sets.len() > 1;
    for set in &plan.sets {
        let proof = match set.proof {
            Some((grade, at)) => format!("proven {grade} {}", ago(at, plan.now)),
            None => "NOT PROVEN".into(),
        };
        let _ = writeln!(out, "RESTORE {}  ({}, {proof})", set.set, set.words());
    }
    let joined = if several { ", with the newest good set before it of each group with a schedule of its own" } else { "" };
    let _ = writeln!(out, "  {}{joined}\n", plan.chosen);
    out.push_str("What is lost: everything written after\n");
    let width = plan.sources.iter().map(|s| s.name.len()).max().unwrap_or(0);
    for source in &plan.sources {
        let _ = writeln!(out, "  {:width$}  {}: {}", source.name, when(source.as_of, zone), lost(source.lost_seconds));
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "  - {warning}");
    }
    if plan.spread_seconds >= 60 {
        let _ = writeln!(out, "  These lie {} apart.", duration(plan.spread_seconds));
    }
    for source in &plan.sources {
        let names = source.artifacts.join(", ");
        let _ = writeln!(out, "\n{} into {}: {} ({names})", source.name, source.load.target, bytes(source.plain_bytes));
        for line in &source.load.touches {
            let _ = writeln!(out, "  {line}");
        }
        for line in &source.load.warnings {
            let _ = writeln!(out, "  - {line}");
        }
        for line in &source.load.refusals {
            let _ = writeln!(out, "  ! {line}");
        }
    }
    out.push('\n');
    if !plan.left_out.is_empty() || !plan.without.is_empty() {
        let without = plan.without.iter().map(|artifact| format!("{artifact} (--without)"));
        let left_out: Vec<String> = plan.left_out.iter().map(|source| left_out(source)).chain(without).collect();
        let _ = writeln!(out, "Left out: {}", left_out.join("; "));
    }
    let _ = match plan.took_before {
        Some((seconds, at)) => writeln!(out, "The last restore of this job took {} ({}).", took(seconds), ago(at, plan.now)),
        None => writeln!(out, "No restore of this job was timed on this host yet."),
    };
    let _ = match (plan.in_place, &plan.target) {
        (true, _) => {
            let loads = plan.sources.iter().any(|source| source.kind == "postgres");
            let back = match (plan.safety_set, plan.safety_bytes) {
                (false, _) => "; NO safety set is made (--no-safety-set): what is live now cannot be had back".to_owned(),
                (true, None) => "; the way back is the safety set made first.".to_owned(),
                (true, Some(size)) => format!("; the way back is the safety set made first, of about {}.", bytes(size)),
            };
            writeln!(out, "IN PLACE: the live data is overwritten{back}{}", if loads { ONLY_ROWS } else { "" })
        }
        (false, Some(target)) if plan.sources.iter().any(|s| s.load.exchanges) => {
            let password = if target.contains("***") { "   (its password in PGPASSWORD or ~/.pgpass)" } else { "" };
            writeln!(
                out,
                "What is live there stays in use until all is loaded and counted; then it is exchanged and kept.\nBack again: drctl restore --undo {}{password}",
                plan.restore
            )
        }
        (false, Some(_)) => writeln!(out, "Nothing live is touched but what is named above."),
        (false, None) if plan.sources.iter().all(|s| !DATA_KINDS.contains(&s.kind.as_str())) => writeln!(out, "Nothing live is touched."),
        (false, None) if plan.exchange_first => writeln!(
            out,
            "Live databases are OUT OF USE from the start of the load on; they come back by themselves if it fails, and are kept if it does not.\nBack again: drctl restore --undo {}",
            plan.restore
        ),
        (false, None) => writeln!(
            out,
            "The live data stays in use until all is loaded and counted; then it is exchanged and kept.\nBack again: drctl restore --undo {}",
            plan.restore
        ),
    };
    out
}

/// What can go wrong in place when nothing live is left, and what becomes of it.
const ONLY_ROWS: &str = "\nAll but the rows is tried out before anything is dropped: what cannot be loaded is asked about, or refused, with everything still live.
What only the rows show (a foreign key that they break) turns up when what was live is gone: you are asked whether to take what was loaded
without it; where nobody can be asked it is taken, with everything that is missing listed (exit 3), as nothing else would be live.";

/// `environment: --source environment` as `environment (to get it: --source environment)`.
fn left_out(source: &str) -> String {
    match source.split_once(": ") {
        Some((name, option)) if option.starts_with("--") => format!("{name} (to get it: {option})"),
        _ => source.to_owned(),
    }
}

/// The closing lines.
pub fn done_text(report: &RestoreReport) -> String {
    let mut out = String::new();
    for source in &report.sources {
        let mut totals = std::collections::BTreeMap::<&str, u64>::new();
        for (name, count) in source.counts.values().flatten() {
            *totals.entry(name).or_default() += count;
        }
        let counts = counted(totals);
        let same = if counts.is_empty() { String::new() } else { format!(", {counts}, counted as in the backup") };
        let _ = writeln!(out, "{} into {}: {}{same}", source.name, source.target, bytes(source.plain_bytes));
    }
    if !report.problems.is_empty() {
        let how = if report.unasked { "as nobody could be asked and nothing else was live" } else { "accepted" };
        let _ = writeln!(out, "NOT LOADED, {how} ({}):\n{}", report.problems.len(), problems_text(&report.problems));
    }
    for line in &report.kept {
        let _ = writeln!(out, "kept: {line}");
    }
    for line in &report.aside {
        let _ = writeln!(out, "  {line}");
    }
    let _ = writeln!(out, "restored {} in {}", report.set, took(report.elapsed_seconds));
    if report.switched {
        let _ =
            writeln!(out, "   back again:      drctl restore --undo {0}\n   drop the old:    drctl restore --finish {0}", report.restore);
    }
    for line in &report.afterwards {
        let _ = writeln!(out, "   then:            {line}");
    }
    out
}

/// What an undo or a finish would do, as it is shown before.
fn aftermath_plan_text(plan: &AftermathPlan, zone: &TimeZone) -> String {
    let (mut out, note) = (String::new(), &plan.restore);
    let since = match (note.phase, note.switched_at) {
        (Phase::Switched, Some(at)) => format!("live since {}, {}", when(at, zone), ago(at, plan.now)),
        _ => format!("{}, begun {}", note.words(), when(note.started_at, zone)),
    };
    let what = match plan.way {
        Way::Undo => "UNDO",
        Way::Finish => "FINISH",
        Way::Forget => "FORGET",
    };
    let _ = writeln!(out, "{what} restore {} of {}  ({since})", note.restore, note.set);
    if let Some(target) = &note.target {
        let _ = writeln!(out, "  at {target}");
    }
    let _ = match (plan.way, plan.kept.is_empty(), note.phase) {
        (Way::Undo, _, Phase::Loading) if note.exchange_first => {
            writeln!(out, "It never went live: what it loaded under the live name is removed, what was live before gets its name back.")
        }
        (Way::Undo, _, Phase::Loading) => writeln!(out, "It never went live: what it loaded beside the live data is removed."),
        (Way::Undo, true, _) => writeln!(out, "Nothing is kept of what was there before."),
        (Way::Undo, false, _) => writeln!(out, "Live again, instead of what is live now:"),
        (Way::Finish, true, _) => writeln!(out, "Nothing is kept aside."),
        (Way::Finish, false, _) => writeln!(out, "Dropped for good:"),
        (Way::Forget, true, _) => writeln!(out, "Nothing is known that it left."),
        (Way::Forget, false, _) => writeln!(out, "Nothing is touched. What it left, and drctl tells and removes no more:"),
    };
    for line in &plan.kept {
        let _ = writeln!(out, "  {line}");
    }
    for name in plan.stay.iter().filter(|_| plan.way != Way::Forget) {
        let _ = writeln!(out, "  {name} was loaded in place and stays: its way back is the safety set");
    }
    if plan.way == Way::Forget && matches!(note.phase, Phase::Loading | Phase::Switching) && !plan.kept.is_empty() {
        let _ = writeln!(out, "While its server answers, undoing it leaves nothing behind: drctl restore --undo {}", note.restore);
    }
    let puts_aside = note.phase != Phase::Loading && plan.stay.len() < note.sources.len();
    if plan.way == Way::Undo && puts_aside {
        let _ = writeln!(out, "What was written since the restore is kept aside, until drctl restore --finish {}.", note.restore);
    }
    out
}

fn aftermath_text(report: &AftermathReport) -> String {
    let mut out = String::new();
    for line in &report.done {
        let _ = writeln!(out, "{line}");
    }
    for line in &report.failed {
        let _ = writeln!(out, "NOT DONE  {line}");
    }
    let still = if report.failed.is_empty() { "" } else { "still " };
    let _ = writeln!(out, "restore {}: {still}{}", report.restore, report.phase.words());
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Timestamp;
    use crate::model::record::Grade;
    use crate::ops::restore::journal::RestoreNote;
    use crate::ops::restore::plan::{PlannedSet, SourcePlan};
    use crate::ops::restore::run::RestoredSource;
    use crate::source::load::LoadPlan;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn sample() -> RestorePlan {
        RestorePlan {
            restore: "7k3q9abc".into(),
            sets: vec![
                PlannedSet {
                    set: "jisu/20250101T180000Z-full-7k3q".parse().unwrap(),
                    state: "complete",
                    class: SetClass::Ordinary,
                    proof: Some((Grade::ReadBack, at("2025-01-01T18:05:00Z"))),
                },
                PlannedSet {
                    set: "jisu/20250101T160000Z-full-00aa".parse().unwrap(),
                    state: "complete",
                    class: SetClass::Ordinary,
                    proof: Some((Grade::Uploaded, at("2025-01-01T16:05:00Z"))),
                },
            ],
            chosen: "last good set for 20250102 (Asia/Shanghai)".into(),
            spread_seconds: 7201,
            now: at("2025-01-01T18:37:10Z"),
            sources: vec![
                SourcePlan {
                    name: "postgres".into(),
                    kind: "postgres".into(),
                    set: "jisu/20250101T180000Z-full-7k3q".parse().unwrap(),
                    as_of: at("2025-01-01T18:00:01Z"),
                    lost_seconds: Some(2229),
                    artifacts: vec!["globals".into(), "jisu_prod".into()],
                    plain_bytes: 1 << 30,
                    load: LoadPlan {
                        target: "PostgreSQL 15.18 at 127.0.0.1:5432".into(),
                        touches: vec!["database jisu_prod: 1.2 GiB live with 12 connections, kept as jisu_prod_drctl_old_7k3q9abc".into()],
                        warnings: vec!["role app exists and is left as it is".into()],
                        refusals: vec![],
                        ..LoadPlan::default()
                    },
                },
                SourcePlan {
                    name: "uploads".into(),
                    kind: "files".into(),
                    set: "jisu/20250101T160000Z-full-00aa".parse().unwrap(),
                    as_of: at("2025-01-01T16:00:00Z"),
                    lost_seconds: Some(9430),
                    artifacts: vec!["tree".into()],
                    plain_bytes: 3 << 20,
                    load: LoadPlan {
                        target: "/data/uploads".into(),
                        touches: vec!["/data/uploads: 12 files, kept beside it".into()],
                        ..LoadPlan::default()
                    },
                },
            ],
            left_out: vec!["environment: --source environment".into()],
            without: vec![],
            warnings: vec![],
            in_place: false,
            safety_set: false,
            safety_bytes: None,
            exchange_first: false,
            target: None,
            took_before: Some((370.0, at("2024-12-30T10:00:00Z"))),
        }
    }

    fn zone() -> TimeZone {
        TimeZone::get("Asia/Shanghai").unwrap()
    }

    #[test]
    fn the_plan_says_what_is_lost_how_long_it_took_what_is_touched_and_the_way_back() {
        insta::assert_snapshot!(plan_text(&sample(), &zone()));
    }

    #[test]
    fn in_place_into_a_target_and_refused_plans_say_so() {
        let mut plan = sample();
        plan.sources.truncate(1);
        plan.sets.truncate(1);
        plan.spread_seconds = 0;
        plan.in_place = true;
        (plan.safety_set, plan.safety_bytes) = (true, Some(3 << 20));
        plan.sets[0].proof = None;
        plan.took_before = None;
        plan.left_out.clear();
        plan.sources[0]
            .load
            .refusals
            .push("extension postgis 3.3.2 is not available there: apt-get install postgresql-15-postgis-3".into());
        insta::assert_snapshot!(plan_text(&plan, &zone()));
        plan.safety_set = false;
        assert!(plan_text(&plan, &zone()).contains("NO safety set is made"));
        plan.in_place = false;
        plan.target = Some("postgres://drill@db2/scratch".into());
        let last: Vec<String> = plan_text(&plan, &zone()).lines().rev().take(1).map(str::to_owned).collect();
        assert_eq!(last, ["Nothing live is touched but what is named above."]);
        plan.sources[0].load.exchanges = true;
        let last = |plan: &RestorePlan| plan_text(plan, &zone()).lines().last().map(str::to_owned).unwrap();
        assert_eq!(last(&plan), "Back again: drctl restore --undo 7k3q9abc");
        plan.target = Some("postgres://drill:***@db2/scratch".into());
        assert_eq!(last(&plan), "Back again: drctl restore --undo 7k3q9abc   (its password in PGPASSWORD or ~/.pgpass)");
    }

    #[test]
    fn closing_lines() {
        let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect::<BTreeMap<_, _>>();
        let report = RestoreReport {
            restore: "7k3q9abc".into(),
            set: sample().sets[0].set.clone(),
            sources: vec![
                RestoredSource {
                    name: "postgres".into(),
                    target: "PostgreSQL 15.18 at 127.0.0.1:5432".into(),
                    counts: BTreeMap::from([("jisu_prod".into(), counts(&[("tables", 41), ("rows", 1_234_567)]))]),
                    plain_bytes: 1 << 30,
                },
                RestoredSource { name: "uploads".into(), target: "/data/uploads".into(), counts: BTreeMap::new(), plain_bytes: 3 << 20 },
            ],
            switched: true,
            kept: vec!["database jisu_prod_drctl_old_7k3q9abc, 1.2 GiB".into()],
            aside: vec![],
            problems: Vec::new(),
            unasked: false,
            afterwards: vec!["vacuumdb --host=127.0.0.1 --port=5432 --username=postgres --analyze-in-stages --dbname=jisu_prod".into()],
            elapsed_seconds: 41.5,
        };
        insta::assert_snapshot!(done_text(&report));
    }

    #[test]
    fn an_undo_and_a_finish_say_what_they_mean() {
        let note = RestoreNote {
            restore: "7k3q9abc".into(),
            set: sample().sets[0].set.clone(),
            sources: vec![("postgres".into(), "postgres".into()), ("uploads".into(), "files".into())],
            target: None,
            in_place: false,
            exchange_first: false,
            phase: Phase::Switched,
            process: crate::state::Process::this(),
            locked: false,
            started_at: at("2025-01-01T18:37:10Z"),
            switched_at: Some(at("2025-01-01T18:43:20Z")),
            elapsed_seconds: Some(370.0),
            identities: BTreeMap::new(),
            load_errors: 0,
        };
        let mut plan = AftermathPlan {
            way: Way::Undo,
            restore: note,
            now: at("2025-01-03T20:00:00Z"),
            kept: vec!["database jisu_prod_drctl_old_7k3q9abc: 1.2 GiB".into(), "/data/uploads.drctl-old-7k3q9abc: 12 files".into()],
            stay: vec![],
        };
        let mut all = aftermath_plan_text(&plan, &zone());
        plan.way = Way::Finish;
        plan.restore.target = Some("postgres://drill:***@db2/scratch".into());
        all = all + "\n" + &aftermath_plan_text(&plan, &zone());
        plan.restore.phase = Phase::Undone;
        plan.kept.clear();
        all = all + "\n" + &aftermath_plan_text(&plan, &zone());
        (plan.way, plan.restore.phase, plan.restore.target) = (Way::Undo, Phase::Loading, None);
        all = all + "\n" + &aftermath_plan_text(&plan, &zone());
        plan.restore.exchange_first = true;
        all = all + "\n" + &aftermath_plan_text(&plan, &zone());
        (plan.way, plan.kept) = (Way::Forget, vec!["database jisu_prod_drctl_old_7k3q9abc: what was live before, put aside".into()]);
        all = all + "\n" + &aftermath_plan_text(&plan, &zone());
        (plan.way, plan.kept, plan.restore.exchange_first) = (Way::Undo, vec![], false);
        (plan.restore.phase, plan.restore.in_place, plan.stay) = (Phase::Switched, true, vec!["postgres".into()]);
        all = all + "\n" + &aftermath_plan_text(&plan, &zone());
        insta::assert_snapshot!(all);
    }

    #[test]
    fn the_line_for_scripts_repeats_the_choice_and_hides_passwords() {
        let args = RestoreArgs {
            from_store: Default::default(),
            set: None,
            date: Some("20250102".into()),
            job: None,
            source: vec!["postgres".into()],
            without: vec![],
            target: Some("postgres://drill:geheim@db2/scratch".into()),
            in_place: false,
            accept_load_errors: None,
            exchange_first: false,
            no_safety_set: false,
            dry_run: false,
            yes: false,
            undo: None,
            finish: None,
            forget: None,
        };
        let mut plan = sample();
        assert!(command_line(&args, &plan).starts_with("drctl restore --date '20250102' --source postgres"));
        plan.sets.truncate(1);
        let line = command_line(&args, &plan);
        assert!(line.starts_with("drctl restore jisu/20250101T180000Z-full-7k3q --source postgres --target "), "{line}");
        assert!(!line.contains("geheim"), "{line}");
        assert!(line.ends_with(" --yes"), "{line}");
    }
}
