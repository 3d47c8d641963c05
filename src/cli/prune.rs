//! `drctl prune`.

use std::fmt::Write as _;

use crate::cli::Shell;
use crate::cli::args::PruneArgs;
use crate::cli::output::{bytes, count, table};
use crate::cli::reports::{self, Reported};
use crate::error::{Error, Kind, Result};
use crate::open::policy::{self, prune_policy};
use crate::open::reporter::PruneFailure;
use crate::open::{Opened, no_such_job};
use crate::ops::prune::{PruneOptions, PrunePolicy, PruneReport, prune};
use crate::state::Act;

/// Plans the jobs, and with `--apply` deletes. The first error decides the exit code; jobs after it are still pruned.
pub async fn run(shell: &Shell, args: PruneArgs) -> Result<u8> {
    let around = shell.around();
    let named: Vec<String> = args.job.iter().cloned().collect();
    let opened = match args.apply {
        true => reports::opened(shell, Reported::Prune, &named, Opened::for_writing(&around).await).await?,
        false => Opened::for_reading(&around).await?,
    };
    let reporter = reports::of(shell, &opened).filter(|_| args.apply);
    let config = opened.config.as_ref().ok_or_else(|| {
        Error::new(Kind::Usage, "prune needs a configuration: it says which sets are kept").hint("drctl init --from FOLDER|URL makes one")
    })?;
    let known: Vec<String> = config.jobs.iter().map(|job| job.name.to_string()).collect();
    let mut policies: Vec<PrunePolicy> = config
        .jobs
        .iter()
        .filter(|job| args.job.as_ref().is_none_or(|name| name == job.name.as_str()))
        .map(|job| PrunePolicy { abandoned: args.abandoned, ..prune_policy(job, opened.setup.clock.now()) })
        .collect();
    if let Some(unknown) = args.job.as_ref().filter(|name| !known.contains(name)) {
        let jobs = opened.setup.repository.jobs().await?;
        let Some(job) = jobs.iter().find(|job| job.as_str() == unknown) else { return Err(no_such_job(unknown, &known)) };
        if !args.abandoned {
            return Err(no_such_job(unknown, &known).hint(format!(
                "its sets are kept; to give them up: drctl prune --job {job} --abandoned; the jobs of the configuration are: {}",
                known.join(", ")
            )));
        }
        policies.push(policy::abandoned(job));
    }
    let options = PruneOptions { apply: args.apply, confirm_clock: args.confirm_clock, accept_surplus: args.accept_surplus };
    let (mut reports, mut first_error, mut code) = (Vec::new(), None, 0);
    for policy in &policies {
        let pruning = prune(&opened.setup, policy, options);
        let pruned = match args.apply {
            true => opened.setup.audited_by(Act::of("prune").job(&policy.job), pruning, PruneReport::exit_code).await,
            false => pruning.await,
        };
        if let Some(reporter) = &reporter {
            reporter.prune_ended(&policy.job, PruneFailure::of(Some(&opened), pruned.as_ref()).as_ref());
        }
        match pruned {
            Ok(report) => {
                code = code.max(report.exit_code());
                reports.push(report);
            }
            Err(error) => match first_error {
                None => first_error = Some(error),
                Some(_) => shell.bus.warn(error.to_string()),
            },
        }
    }
    reports::deliver(reporter.as_ref()).await;
    if !reports.is_empty() || first_error.is_none() {
        shell.out.result("prune", &reports, |reports| reports.iter().map(text).collect());
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(code),
    }
}

fn text(report: &PruneReport) -> String {
    let mut out = String::new();
    let rows: Vec<Vec<String>> = (report.plan.sets.iter())
        .map(|set| {
            let what = match (set.keep, report.deleted.contains(&set.set)) {
                (true, _) => "keep",
                (false, true) => "deleted",
                (false, false) => "may go",
            };
            vec![what.to_owned(), set.set.to_string(), bytes(set.stored_bytes), set.reasons.join("; ")]
        })
        .collect();
    if rows.is_empty() {
        let _ = writeln!(out, "job {} has no sets", report.job);
    } else {
        out.push_str(&table(&["", "SET", "STORED", "WHY"], &rows, &[2]));
    }
    for (group, why) in &report.plan.stopped {
        let _ = writeln!(out, "nothing of group {group} is freed: {}", why.join("; "));
    }
    if let Some(why) = report.refused.as_ref().filter(|_| !report.applied) {
        let _ = writeln!(out, "nothing may be deleted now: {why}");
    }
    let sets = |sets: &[crate::model::SetId]| sets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !report.half_deleted.is_empty() && !report.applied {
        let _ = writeln!(out, "half deleted by an earlier prune, the next one ends it: {}", sets(&report.half_deleted));
    }
    for (found, words) in [
        (&report.orphans, "objects that no set names, of runs that came to nothing"),
        (&report.waiting, "objects that no set names yet: a run may be making them"),
    ] {
        if !found.is_empty() {
            let _ = writeln!(out, "{words}: {}", sets(found));
        }
    }
    if !report.strange.is_empty() {
        let _ = writeln!(out, "not drctl's, and left alone: {}", report.strange.join(", "));
    }
    for kept in &report.retained {
        let _ = writeln!(out, "RETAINED by the store: {kept}");
    }
    let (freed, freed_bytes) = report.plan.freed();
    let _ = match (report.applied, freed) {
        (true, _) => writeln!(
            out,
            "{}: deleted {}, {}, {}",
            report.job,
            count(report.deleted.len() as u64, "set"),
            count(report.objects, "object"),
            bytes(report.bytes)
        ),
        (false, 0) if report.orphans.is_empty() && report.half_deleted.is_empty() => writeln!(out, "{}: nothing to delete", report.job),
        (false, _) => writeln!(
            out,
            "{}: {} of {} may go, {} in each store; nothing was deleted: drctl prune --job {}{} --apply",
            report.job,
            count(freed as u64, "set"),
            report.plan.sets.len(),
            bytes(freed_bytes),
            report.job,
            if report.abandoned { " --abandoned" } else { "" }
        ),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SetId;
    use crate::ops::retention::{Decision, Plan};

    fn report() -> PruneReport {
        PruneReport {
            job: "shop".parse().unwrap(),
            applied: false,
            abandoned: false,
            plan: Plan::default(),
            refused: None,
            half_deleted: Vec::new(),
            orphans: Vec::new(),
            waiting: Vec::new(),
            strange: Vec::new(),
            deleted: Vec::new(),
            retained: Vec::new(),
            objects: 0,
            bytes: 0,
        }
    }

    #[test]
    fn whatever_keeps_something_or_would_go_is_said() {
        let set: SetId = "shop/20250102T020000Z-full-zzzz".parse().unwrap();
        assert_eq!(text(&report()), "job shop has no sets\nshop: nothing to delete\n");
        let to_do = "shop: 0 sets of 0 may go, 0 B in each store; nothing was deleted: drctl prune --job shop --apply\n";
        for (report, words) in [
            (PruneReport { half_deleted: vec![set.clone()], ..report() }, "half deleted by an earlier prune, the next one ends it: shop/"),
            (PruneReport { orphans: vec![set.clone()], ..report() }, "objects that no set names, of runs that came to nothing: shop/"),
        ] {
            let said = text(&report);
            assert!(said.contains(words) && said.ends_with(to_do), "{said}");
        }
        let says = |report: PruneReport, words: &str| assert!(text(&report).contains(words), "{}", text(&report));
        says(PruneReport { refused: Some("the clock went back".into()), ..report() }, "nothing may be deleted now: the clock went back\n");
        says(PruneReport { retained: vec!["shop/x: denied".into()], applied: true, ..report() }, "RETAINED by the store: shop/x: denied\n");
        let stopped = [("main".to_owned(), vec!["its newest set is partial".to_owned()])].into();
        says(
            PruneReport { plan: Plan { stopped, ..Plan::default() }, ..report() },
            "nothing of group main is freed: its newest set is partial\n",
        );
        let decision = |keep: bool| Decision {
            set: set.clone(),
            chain: set.clone(),
            group: "main".into(),
            stored_bytes: 10,
            keep,
            reasons: vec!["why".into()],
        };
        for (keep, deleted, word) in [(true, vec![], "keep"), (false, vec![set.clone()], "deleted"), (false, vec![], "may go")] {
            let plan = Plan { sets: vec![decision(keep)], ..Plan::default() };
            says(PruneReport { plan, deleted, ..report() }, word);
        }
    }
}
