//! The further stores of a repository: what a run does with them before its dump and after its commit (FORMAT rule 11).

use serde::Serialize;

use crate::catalog::JobLog;
use crate::catalog::repository::REPOSITORY_KEY;
use crate::error::{Context, Error, Kind, Result};
use crate::model::Manifest;
use crate::ops::Setup;
use crate::pipeline::split::Sink;

/// How a further store stands to a job's log.
#[derive(Clone, Debug, Serialize)]
pub struct CopyStatus {
    /// Its name.
    pub store: String,
    /// Its place.
    pub location: String,
    /// Whether a set may miss it.
    pub optional: bool,
    /// Records of the log that it does not have yet; `None` when it cannot be asked.
    pub records_behind: Option<u64>,
    /// Live sets that it has not got all of.
    pub sets_missing: usize,
    /// Why it cannot be asked, or what a person must look at.
    pub problem: Option<String>,
}

/// Brings every further store of the run up to the log's head, so that nothing is dumped for a store that is not there or not ours.
///
/// One that a set may miss is given up when it fails; any other's error ends the run. A copy that holds records which the first store has
/// lost ends the run in any case ([`Kind::Corrupt`]): what is appended to a log that lost its end makes two histories.
pub async fn make_ready(setup: &Setup, log: &mut JobLog) -> Result<()> {
    for sink in setup.sinks.iter().skip(1) {
        let ready = make_one_ready(setup, log, sink).await.context(|| format!("store '{}'", sink.name));
        match ready {
            Ok(None) => {}
            Ok(Some(number)) => return Err(led(setup, log, sink, number)),
            Err(error) => sink.give_up(error)?,
        }
    }
    tell_given_up(setup, &mut Vec::new());
    Ok(())
}

fn leads(setup: &Setup, log: &JobLog, number: u64) -> String {
    let place = setup.repository.location();
    format!("holds record {number} of job {}, the log in {place} ends at {}: the first store has lost records", log.job(), log.head())
}

fn led(setup: &Setup, log: &JobLog, sink: &Sink, number: u64) -> Error {
    Error::corrupt(format!("store '{}' {}", sink.name, leads(setup, log, number)))
        .hint("nothing was stored; find out why before anything is written. What the copy has can be read: drctl list --store NAME")
}

/// Gives the number of a record by which the copy leads the log, if there is one; nothing was copied then.
async fn make_one_ready(setup: &Setup, log: &mut JobLog, sink: &Sink) -> Result<Option<u64>> {
    let is_new = match sink.store.head(REPOSITORY_KEY).await {
        Ok(_) => false,
        Err(e) if e.kind() == Kind::NotFound => true,
        Err(e) => return Err(e),
    };
    if is_new {
        refuse_emptied(setup, sink).await?;
    } else {
        log.refresh().await?;
        if let Some(number) = log.led_by(&sink.store).await? {
            return Ok(Some(number));
        }
    }
    log.copy_to(&sink.store).await?;
    let missing = log.state().live().filter(|entry| !entry.manifest.stores.contains(&sink.name)).count();
    if is_new && missing > 0 {
        setup.bus.warn(format!(
            "store '{}' is new: it gets every record, and every set from now on; {missing} older sets of job {} stay in '{}' only",
            sink.name,
            log.job(),
            setup.sinks[0].name
        ));
    }
    Ok(None)
}

/// A place that is empty although sets were stored there is a disk that is not mounted: what were written now would fill the disk below.
async fn refuse_emptied(setup: &Setup, sink: &Sink) -> Result<()> {
    for job in setup.repository.jobs().await? {
        let log = JobLog::open(&setup.repository, &job, Vec::new()).await?;
        if let Some(entry) = log.state().live().find(|entry| entry.is_copy(&sink.name)) {
            return Err(Error::new(
                Kind::Unreachable,
                format!("{} is empty, but {} was stored there: is its disk mounted?", sink.store.location(), entry.id()),
            )
            .hint("mount it and run again; a new disk in its place needs another name in drctl.yaml (repository.stores), for it holds none of the old sets"));
        }
    }
    Ok(())
}

/// Says which stores the run has given up since it was asked last; `told` keeps their names.
pub fn tell_given_up(setup: &Setup, told: &mut Vec<String>) {
    for sink in &setup.sinks {
        if let Some(why) = sink.given_up().filter(|_| !told.contains(&sink.name)) {
            told.push(sink.name.clone());
            setup.bus.warn(format!("the set goes on without the optional store '{}': {why}", sink.name));
        }
    }
}

/// Copies the records that stand by now to the further stores. What fails is said, and made good by the next run: a copy may lag.
pub async fn bring_records(setup: &Setup, log: &mut JobLog) {
    let job = log.job().clone();
    for sink in setup.sinks_of(&job).iter().skip(1) {
        // A store that is down was told of when the run gave it up.
        if sink.given_up().is_some() {
            continue;
        }
        if let Err(error) = log.copy_to(&sink.store).await {
            setup.bus.warn(format!("the newest records are not in store '{}' yet, the next backup brings them: {error}", sink.name));
        }
    }
}

/// Refuses ([`Kind::NoSuchSet`]) a set of which the store that is read has nothing, because the set was made for others.
pub async fn check_is_here(setup: &Setup, manifest: &Manifest) -> Result<()> {
    let sink = setup.reading();
    if manifest.stores.contains(&sink.name) {
        return Ok(());
    }
    // The manifest cannot know what was brought later, nor by which name `--repo` goes.
    for object in manifest.every_object() {
        match sink.store.head(&format!("{}{}", manifest.set.prefix(), object.file)).await {
            Err(e) if e.kind() == Kind::NotFound => {}
            found => return found.map(drop),
        }
    }
    let place = sink.store.location();
    Err(Error::new(Kind::NoSuchSet, format!("{} is not in {place}: it was stored in {}", manifest.set, manifest.stores.join(", ")))
        .hint("choose a set that is there; drctl show SET names the stores of each"))
}

/// How every further store of the log's job stands.
pub async fn status(setup: &Setup, log: &JobLog) -> Vec<CopyStatus> {
    let mut all = Vec::new();
    for sink in setup.sinks_of(log.job()).iter().skip(1) {
        let (records_behind, problem) = match behind(log, sink).await {
            Ok((behind, None)) => (Some(behind), None),
            Ok((behind, Some(number))) => (Some(behind), Some(leads(setup, log, number))),
            Err(error) => (None, Some(error.to_string())),
        };
        all.push(CopyStatus {
            store: sink.name.clone(),
            location: sink.store.location(),
            optional: sink.is_optional(),
            records_behind,
            sets_missing: log.state().live().filter(|entry| !entry.manifest.stores.contains(&sink.name)).count(),
            problem,
        });
    }
    all
}

/// Records that a copy lacks, and the one by which it leads.
async fn behind(log: &JobLog, sink: &Sink) -> Result<(u64, Option<u64>)> {
    let behind = log.behind(&sink.store).await?;
    // Nothing there yet: a store that was just added.
    let led_by = if behind == log.head() { None } else { log.led_by(&sink.store).await? };
    Ok((behind, led_by))
}
