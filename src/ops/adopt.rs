//! `drctl repository adopt`: who may write, and which store holds the log, when a host or a disk is gone (FORMAT rules 11 and 13).

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::checkpoint::acknowledge;
use crate::catalog::state::Finding;
use crate::catalog::{JobLog, MinisignKey};
use crate::error::{Context, Error, Kind, Result};
use crate::model::JobName;
use crate::ops::Setup;
use crate::pipeline::split::Sink;

/// Another host became the single writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Who was, if anybody.
    pub from: Option<String>,
    /// Who is.
    pub to: String,
}

/// Names this host as the one that may write; nothing is written when it is that already.
pub async fn take_over(setup: &Setup, root: &MinisignKey) -> Result<Moved> {
    let moved = Moved { from: setup.repository.single_writer().map(str::to_owned), to: setup.host.clone() };
    if moved.from.as_ref() != Some(&moved.to) {
        setup.repository.make_single_writer(root, &moved.to).await?;
    }
    Ok(moved)
}

/// How a job's log in a copy stands to what is known of the first store's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopyOfLog {
    /// The job.
    pub job: JobName,
    /// The copy's newest record.
    pub head: u64,
    /// Records that this host has seen and the copy lacks.
    pub lost_records: u64,
    /// Start of the newest set in the copy.
    pub newest_set: Option<Timestamp>,
    /// Sets of the log of which the copy has not got all.
    pub sets_elsewhere: usize,
}

/// With the first store at hand: brings the copy up to its head, so that nothing is lost by the exchange.
pub async fn level(setup: &Setup, copy: &Sink) -> Result<Vec<CopyOfLog>> {
    let mut stand = Vec::new();
    for job in setup.repository.jobs().await? {
        let mut log = setup.log(&job).await?;
        if let Some(number) = log.led_by(&copy.store).await? {
            return Err(Error::corrupt(format!(
                "store '{}' holds record {number} of job {job}, which the first store does not have",
                copy.name
            ))
            .hint("the first store has lost records; find out why first: drctl status"));
        }
        log.copy_to(&copy.store).await.context(|| format!("store '{}'", copy.name))?;
        stand.push(of(&log, &copy.name));
    }
    Ok(stand)
}

/// With the first store gone: what would be lost. `setup` is open on the copy with this host's marks; nothing is written.
pub async fn weigh(setup: &Setup, copy: &str) -> Result<Vec<CopyOfLog>> {
    let mut stand = Vec::new();
    for job in setup.repository.jobs().await? {
        let log = setup.log(&job).await?;
        // Anything but a log that is behind is for a person to look at before it becomes the log.
        if let Some(other) = log.state().open_findings().find(|f| f.stops_appends() && !matches!(f, Finding::RolledBack { .. })) {
            return Err(Error::corrupt(format!("store '{copy}' cannot become the first: {job}: {other}"))
                .hint("another copy may be whole: drctl list --store NAME"));
        }
        stand.push(of(&log, copy));
    }
    Ok(stand)
}

fn of(log: &JobLog, copy: &str) -> CopyOfLog {
    let lost = log.state().open_findings().find_map(|finding| match finding {
        Finding::RolledBack { seen, found } => Some(seen.saturating_sub(*found)),
        _ => None,
    });
    CopyOfLog {
        job: log.job().clone(),
        head: log.head(),
        lost_records: lost.unwrap_or(0),
        newest_set: log.state().live().next_back().map(|entry| entry.manifest.started_at),
        sets_elsewhere: log.state().live().filter(|entry| !entry.manifest.stores.iter().any(|store| store == copy)).count(),
    }
}

/// Goes on with the copy's log where it ends: a checkpoint in each log that lost records, on the word of a person. May be repeated.
pub async fn accept_loss(setup: &Setup, stand: &[CopyOfLog]) -> Result<()> {
    if setup.keys.is_empty() {
        return Err(Error::new(Kind::Denied, "there is no signing key on this host").hint("run this where backups are made"));
    }
    for copy in stand.iter().filter(|copy| copy.lost_records > 0) {
        let mut log = setup.log(&copy.job).await?;
        acknowledge(&mut log).await.context(|| format!("go on with the log of job {}", copy.job))?;
    }
    Ok(())
}

/// A log that goes on after a person has looked at it.
#[derive(Debug, Serialize)]
pub struct Acknowledged {
    /// The job.
    pub job: JobName,
    /// What was found and is looked at now.
    pub findings: Vec<String>,
    /// Number of the record that says so; `None` when nothing had been found.
    pub record: Option<u64>,
}

/// Goes on with a log in which something was found, on the word of a person who has looked at it.
pub async fn go_on(setup: &Setup, log: &mut JobLog) -> Result<Acknowledged> {
    let (job, findings) = (log.job().clone(), log.state().open_findings().map(ToString::to_string).collect::<Vec<_>>());
    if findings.is_empty() {
        return Ok(Acknowledged { job, findings, record: None });
    }
    if setup.keys.is_empty() {
        return Err(Error::new(Kind::Denied, "there is no signing key on this host").hint("run this where sets are pruned"));
    }
    let appended = acknowledge(log).await.context(|| format!("go on with the log of job {job}"))?;
    Ok(Acknowledged { job, findings, record: Some(appended.number) })
}
