//! `drctl repository`.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::cli::Shell;
use crate::cli::args::{RepositoryArgs, RepositoryVerb};
use crate::cli::key::root;
use crate::cli::output::{confirm, count, is_interactive};
use crate::error::{Error, Kind, Result};
use crate::model::JobName;
use crate::open::Opened;
use crate::open::stores::{host, named_store};
use crate::ops::adopt::{self, CopyOfLog, Moved};
use crate::state::Act;

/// Takes the place of a host or a store that is gone.
pub async fn run(shell: &Shell, args: RepositoryArgs) -> Result<u8> {
    let (by, store, yes) = match args.verb {
        RepositoryVerb::Adopt { by, store, yes } => (by, store, yes),
        RepositoryVerb::Acknowledge { job, yes } => return acknowledge(shell, &job, yes).await,
    };
    match (by, store) {
        (Some(recovery), _) => adopt_host(shell, &recovery, yes).await,
        (None, Some(name)) => adopt_store(shell, &name, yes).await,
        (None, None) => Err(Error::new(Kind::Usage, "adopt what?").hint("--by FILE for this host, --store NAME for a copy")),
    }
}

/// Goes on with a log in which something was found.
async fn acknowledge(shell: &Shell, job: &str, yes: bool) -> Result<u8> {
    let opened = Opened::for_writing(&shell.around()).await?;
    let setup = &opened.setup;
    let job: JobName = job.parse()?;
    let mut log = setup.log(&job).await?;
    let found: Vec<String> = log.state().open_findings().map(ToString::to_string).collect();
    if !found.is_empty() {
        let question = format!(
            "{} in the log of {job}:\n  {}\nWho can write to {} may have done it. Sets that are listed were each verified; what is missing stays missing. Go on with the log as it is",
            count(found.len() as u64, "finding"),
            found.join("\n  "),
            setup.repository.location()
        );
        agreed(&question, yes, &format!("drctl repository acknowledge {job}"))?;
    }
    let act = Act::of("repository acknowledge").job(&job).with(json!({ "findings": found }));
    let report = setup.audited(act, adopt::go_on(setup, &mut log)).await?;
    shell.out.result("repository", &report, |report| match report.record {
        Some(_) => format!("ok  {} of {job} acknowledged\nnext: drctl backup now {job}\n", count(report.findings.len() as u64, "finding")),
        None => format!("ok  nothing was found in the log of {job}\n"),
    });
    Ok(0)
}

/// Asks, or names the line that needs no answer.
fn agreed(question: &str, yes: bool, line: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !is_interactive() {
        return Err(Error::new(Kind::Preflight, format!("{question}: nothing was changed")).hint(format!("if that is meant: {line} --yes")));
    }
    if confirm(question)? { Ok(()) } else { Err(Error::new(Kind::Preflight, "nothing was changed")) }
}

async fn adopt_host(shell: &Shell, recovery: &Path, yes: bool) -> Result<u8> {
    let opened = Opened::for_reading(&shell.around()).await?;
    let setup = &opened.setup;
    let secrets = root(&opened, recovery).await?;
    let here = host();
    match setup.repository.single_writer() {
        None => {
            let question = format!(
                "Any host with a key may write to {} so far. From now on only '{here}' may, and keys with fewer roles are of no use",
                setup.repository.location()
            );
            agreed(&question, yes, &format!("drctl repository adopt --by {}", recovery.display()))?;
        }
        Some(from) if from != here => {
            let question = format!(
                "'{}' is the one host that writes to {}. If it still does so after '{here}' has taken over, they destroy each other's records",
                from.escape_debug(),
                setup.repository.location()
            );
            agreed(&question, yes, &format!("drctl repository adopt --by {}", recovery.display()))?;
        }
        Some(_) => {}
    }
    let from = setup.repository.single_writer().map(str::to_owned);
    let act = Act::of("repository adopt").on(format!("host {here}")).with(json!({ "from": from, "by": recovery.display().to_string() }));
    let moved = setup.audited(act, adopt::take_over(setup, &secrets.root)).await?;
    shell.out.result("repository", &moved, |Moved { from, to }| match from {
        Some(from) if from == to => format!("ok  '{to}' is the one host that writes already\n"),
        Some(from) => {
            format!("ok  '{to}' writes from now on, '{}' no more\nnext: drctl doctor, then drctl backup now\n", from.escape_debug())
        }
        None => format!("ok  '{to}' writes from now on\n"),
    });
    Ok(0)
}

#[derive(Serialize)]
struct Promoted {
    store: String,
    jobs: Vec<CopyOfLog>,
    /// Whether the old first store was there, and nothing is lost.
    level: bool,
}

async fn adopt_store(shell: &Shell, name: &str, yes: bool) -> Result<u8> {
    let line = format!("drctl repository adopt --store {name}");
    let act = |level: bool| Act::of("repository adopt").on(format!("store {name}")).with(json!({ "first_store_gone": !level }));
    let promoted = match Opened::for_reading(&shell.around()).await {
        Ok(opened) => {
            let stores = opened.config.as_ref().map(|config| config.repository.stores.as_slice()).unwrap_or_default();
            let at = named_store(stores, name)?;
            if at == 0 {
                return Err(Error::new(Kind::Usage, format!("store '{name}' is the first one already")).hint("drctl status"));
            }
            let setup = &opened.setup;
            let jobs = setup.audited(act(true), adopt::level(setup, &setup.sinks[at])).await?;
            Promoted { store: name.to_owned(), jobs, level: true }
        }
        Err(error) if error.kind() == Kind::Unreachable => {
            let opened = Opened::on_copy(&shell.around(), name).await?;
            let jobs = adopt::weigh(&opened.setup, name).await?;
            let question = format!(
                "The first store is not there ({error}).\n{}If it comes back, it must not be written to again: its log and that of '{name}' go apart here",
                losses(&jobs)
            );
            agreed(&question, yes, &line)?;
            opened.setup.audited(act(false), adopt::accept_loss(&opened.setup, &jobs)).await?;
            Promoted { store: name.to_owned(), jobs, level: false }
        }
        Err(error) => return Err(error),
    };
    shell.out.result("repository", &promoted, text);
    Ok(0)
}

fn losses(jobs: &[CopyOfLog]) -> String {
    let mut out = String::new();
    for copy in jobs {
        let newest =
            copy.newest_set.map_or_else(|| "no set".to_owned(), |at| format!("newest set of {}", at.strftime("%Y-%m-%d %H:%M UTC")));
        let lost = match copy.lost_records {
            0 => "every record that this host has seen".to_owned(),
            lost => format!("{} that this host has seen IS MISSING", count(lost, "newer record")),
        };
        let _ = writeln!(out, "job {}: {newest}, {lost}", copy.job);
        if copy.sets_elsewhere > 0 {
            let _ = writeln!(out, "job {}: {} lie elsewhere, and not there", copy.job, count(copy.sets_elsewhere as u64, "set"));
        }
    }
    out
}

fn text(promoted: &Promoted) -> String {
    let name = &promoted.store;
    let old = if promoted.level {
        "the old first one may stay behind it as a copy"
    } else {
        "take the old first one out, or give it another name and an empty place"
    };
    format!(
        "ok  store '{name}' can hold the log\n{}next: put '{name}' first under repository.stores in drctl.yaml ({old}), then drctl doctor\n",
        losses(&promoted.jobs)
    )
}
