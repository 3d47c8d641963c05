//! Looking at what is there: `list`, `show`, `status`. Nothing here changes anything.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::catalog::{JobLog, SetEntry};
use crate::error::{Error, Kind, Result};
use crate::model::manifest::SourceEntry;
use crate::model::record::Grade;
use crate::model::{Artifact, Encryption, JobName, SetClass, SetId, SetKind};
use crate::ops::Setup;
use crate::ops::copies::{self, CopyStatus};
use crate::ops::details::Details;
use crate::ops::restore::Loaders;
use crate::ops::restore::journal::RestoreNote;
use crate::ops::standing::{self, Standing};
use crate::pipeline::read::StoredArtifact;

/// One set in a line.
#[derive(Clone, Debug, Serialize)]
pub struct SetLine {
    /// The set.
    pub set: SetId,
    /// Full or incremental.
    pub kind: SetKind,
    /// When its run began.
    pub started_at: Timestamp,
    /// `complete`, `partial`, `suspect`.
    pub state: &'static str,
    /// What it was made for; left out of an ordinary set.
    #[serde(skip_serializing_if = "SetClass::is_ordinary")]
    pub class: SetClass,
    /// What it holds: `postgres`, `files` …
    pub sources: Vec<String>,
    /// Plain bytes of its artifacts.
    pub plain_bytes: u64,
    /// Bytes it takes in each store.
    pub stored_bytes: u64,
    /// Proof grade; `None` after a failed verification.
    pub grade: Option<Grade>,
    /// When that grade was proven.
    pub proven_at: Option<Timestamp>,
    /// End of its pin.
    pub pinned_until: Option<Timestamp>,
}

impl SetLine {
    /// The line of a set.
    pub fn of(entry: &SetEntry) -> Self {
        let manifest = &entry.manifest;
        let grade = entry.grade(false);
        SetLine {
            set: manifest.set.clone(),
            kind: manifest.kind(),
            started_at: manifest.started_at,
            state: manifest.state.name(),
            class: manifest.class,
            sources: manifest.sources.iter().filter(|s| s.kind != super::backup::OWN_SOURCE).map(|s| s.name.clone()).collect(),
            plain_bytes: manifest.plain_bytes(),
            stored_bytes: manifest.stored_bytes(),
            grade,
            proven_at: grade.map(|grade| entry.proven_at(grade).unwrap_or(manifest.finished_at)),
            pinned_until: entry.pin.as_ref().map(|p| p.until),
        }
    }
}

/// Sets of the jobs asked for, oldest first within a job.
#[derive(Clone, Debug, Serialize)]
pub struct ListReport {
    /// Where they lie.
    pub location: String,
    /// The sets.
    pub sets: Vec<SetLine>,
    /// What a person must hear of the logs.
    pub findings: Vec<String>,
}

/// Every live set of the jobs.
pub async fn list(setup: &Setup, jobs: &[JobName]) -> Result<ListReport> {
    let mut report = ListReport { location: setup.repository.location(), sets: Vec::new(), findings: Vec::new() };
    for job in jobs {
        let log = setup.log(job).await?;
        report.sets.extend(log.state().live().map(SetLine::of));
        report.findings.extend(log.state().open_findings().map(|f| format!("{job}: {f}")));
    }
    Ok(report)
}

/// One set in full.
#[derive(Clone, Debug, Serialize)]
pub struct ShowReport {
    /// Its line.
    pub set: SetLine,
    /// Number of its commit record.
    pub record: u64,
    /// Where it lies: location and folder.
    pub folder: String,
    /// Names of the stores that got all of it.
    pub stores: Vec<String>,
    /// The machine it was made on.
    pub host: String,
    /// Version of drctl that made it.
    pub drctl_version: String,
    /// When everything was stored.
    pub finished_at: Timestamp,
    /// What is missing or odd.
    pub reasons: Vec<String>,
    /// Its sources.
    pub sources: Vec<SourceEntry>,
    /// Seconds between the earliest and the latest instant its sources stand for.
    pub spread_seconds: i64,
    /// Its artifacts.
    pub artifacts: Vec<ArtifactLine>,
    /// Proofs in the log, oldest first: grade, outcome, when, findings.
    pub proofs: Vec<ProofLine>,
    /// Why true names and counts are not shown, if they are not.
    pub sealed: Option<String>,
}

/// One artifact of a set.
#[derive(Clone, Debug, Serialize)]
pub struct ArtifactLine {
    /// Its source.
    pub source: String,
    /// True name, where the details could be read.
    pub name: Option<String>,
    /// File name.
    pub file: String,
    /// Plain bytes.
    pub plain_bytes: u64,
    /// Stored bytes.
    pub stored_bytes: u64,
    /// Objects it consists of.
    pub objects: usize,
    /// Counts.
    pub totals: BTreeMap<String, u64>,
    /// Counts by name: rows per table …; empty when the details could not be read.
    pub per_name: BTreeMap<String, u64>,
    /// Whom it is sealed for.
    pub recipients: Vec<String>,
    /// With `--rescue`: `None` when all of it can be read, else why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// One proof.
#[derive(Clone, Debug, Serialize)]
pub struct ProofLine {
    /// Grade tried for.
    pub grade: Grade,
    /// Whether it was reached.
    pub passed: bool,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The store that was read.
    pub store: String,
    /// What was wrong.
    pub findings: Vec<String>,
}

/// All about one set; with `rescue` every artifact is read to see what of it is whole.
pub async fn show(setup: &Setup, entry: &SetEntry, rescue: bool) -> Result<ShowReport> {
    let manifest = &entry.manifest;
    let store = &setup.reading().store;
    let details = Details::read(setup, store, manifest).await;
    let (details, sealed) = match details {
        Ok(details) => (Some(details), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let mut artifacts = Vec::new();
    for artifact in &manifest.artifacts {
        let known = details.as_ref().and_then(|d| d.artifact(&artifact.file));
        let damage = if rescue { damage(setup, manifest.set.prefix(), artifact).await } else { None };
        artifacts.push(ArtifactLine {
            source: artifact.source.clone(),
            name: known.map(|k| k.name.clone()),
            file: artifact.file.clone(),
            plain_bytes: artifact.plain_bytes,
            stored_bytes: artifact.stored_bytes(),
            objects: artifact.objects.len(),
            totals: artifact.totals.clone(),
            per_name: known.map(|k| k.facts.per_name.clone()).unwrap_or_default(),
            recipients: match &artifact.encryption {
                Encryption::Age { recipients } => recipients.clone(),
                Encryption::None => Vec::new(),
            },
            damage,
        });
    }
    let own = |s: &&SourceEntry| s.kind != super::backup::OWN_SOURCE;
    let first = manifest.sources.iter().filter(own).map(|s| s.as_of).min();
    let last = manifest.sources.iter().filter(own).map(|s| s.as_of).max();
    Ok(ShowReport {
        set: SetLine::of(entry),
        record: entry.number,
        folder: format!("{}/{}", store.location(), manifest.set.prefix()),
        stores: manifest.stores.clone(),
        host: manifest.host.clone(),
        drctl_version: manifest.drctl_version.clone(),
        finished_at: manifest.finished_at,
        reasons: manifest.state.reasons().to_vec(),
        sources: manifest.sources.clone(),
        spread_seconds: first.zip(last).map_or(0, |(first, last)| last.as_second() - first.as_second()),
        artifacts,
        proofs: entry
            .proofs
            .iter()
            .map(|p| ProofLine {
                grade: p.proof.grade,
                passed: p.proof.passed,
                finished_at: p.proof.finished_at,
                store: p.proof.store.clone(),
                findings: p.proof.findings.clone(),
            })
            .collect(),
        sealed,
    })
}

async fn damage(setup: &Setup, prefix: String, artifact: &Artifact) -> Option<String> {
    let stored =
        StoredArtifact { store: setup.reading().store.clone(), prefix, artifact: artifact.clone(), identities: setup.identities.clone() };
    stored.read(None, Default::default(), Default::default()).await.err().map(|e| e.to_string())
}

/// Where every job stands.
#[derive(Clone, Debug, Serialize)]
pub struct StatusReport {
    /// Where the sets lie.
    pub location: String,
    /// What this host's keys may do, and what a thief of it could.
    pub role: String,
    /// Now; ages are counted from here.
    pub now: Timestamp,
    /// Whether the agent of this host runs; `None` where none ever did.
    pub agent: Option<String>,
    /// One entry a job.
    pub jobs: Vec<JobStatus>,
    /// Restores on this host that leave something, with what that is.
    pub restores: Vec<StandingRestore>,
    /// Runs that began on this host and never ended.
    pub interrupted: Vec<String>,
    /// What a person must hear of.
    pub findings: Vec<String>,
    /// What is left to do, though nothing is wrong.
    pub advice: Vec<String>,
}

/// One job.
#[derive(Clone, Debug, Serialize)]
pub struct JobStatus {
    /// Its name.
    pub job: JobName,
    /// Whether the configuration has it: of one that it no longer has nothing is expected.
    pub configured: bool,
    /// Sets that are live.
    pub sets: usize,
    /// Sets that are good and proven `read-back` or better.
    pub verified_sets: usize,
    /// Bytes they take in each store.
    pub stored_bytes: u64,
    /// The newest good set.
    pub newest_good: Option<SetLine>,
    /// Seconds since the content of the newest good set: what would be lost now. `None`: a group has none, or it is not known.
    pub rpo_seconds: Option<i64>,
    /// The date of a newest good set that lies in the future: how old it is is not known.
    pub dated_ahead: Option<Timestamp>,
    /// Groups of sources that have no good set at all.
    pub groups_without_good: Vec<String>,
    /// A newer set that is not good, if there is one.
    pub newest_bad: Option<SetLine>,
    /// Whether the newest good set is older than allowed.
    pub stale: bool,
    /// The further stores.
    pub copies: Vec<CopyStatus>,
}

/// One restore that leaves something.
#[derive(Clone, Debug, Serialize)]
pub struct StandingRestore {
    /// The restore.
    pub restore: RestoreNote,
    /// Whether it is under way.
    pub running: bool,
    /// What is kept aside.
    pub kept: Vec<String>,
}

/// Status of the jobs; `max_age_seconds` makes a job stale.
pub async fn status(
    setup: &Setup,
    jobs: &[JobName],
    loaders: &dyn Loaders,
    restores: Vec<StandingRestore>,
    max_age_seconds: Option<i64>,
) -> Result<StatusReport> {
    let now = setup.clock.now();
    let advice = [super::confirm::reminder(setup), super::conformance::exposure(setup)];
    let mut report = StatusReport {
        location: setup.repository.location(),
        role: super::keys::exposure(&setup.roles, !setup.identities.recipients().is_empty()),
        now,
        agent: None,
        jobs: Vec::new(),
        restores,
        interrupted: Vec::new(),
        findings: super::conformance::alarms(setup).iter().map(ToString::to_string).collect(),
        advice: advice.into_iter().flatten().collect(),
    };
    for job in jobs {
        let log = setup.log(job).await?;
        report.findings.extend(log.state().open_findings().map(|f| format!("{job}: {f}")));
        report.findings.extend(super::keys::closed_sets(setup, &log).map(|words| format!("{job}: {words}: {}", super::keys::PUT_BACK)));
        let mut status = job_status(&log, loaders.groups(job).as_deref(), now, max_age_seconds).await;
        report.findings.extend(status.dated_ahead.map(|at| {
            format!("{job}: a newest good set is dated {at}, in the future: how old it is is not known; set the clock of the host that made it, then: drctl backup now {job}")
        }));
        status.copies = copies::status(setup, &log).await;
        report.jobs.push(status);
    }
    Ok(report)
}

/// How a job stands; of what is dated in the future no age is known, and it is stale.
pub(crate) async fn job_status(log: &JobLog, groups: Option<&[String]>, now: Timestamp, max_age_seconds: Option<i64>) -> JobStatus {
    let stored = standing::stored_dates(log, groups, now).await;
    let stands = Standing::of(log.state(), groups, &stored);
    let rpo_seconds = standing::rpo_seconds(stands.as_of, stands.latest, now);
    JobStatus {
        job: log.job().clone(),
        configured: true,
        sets: stands.sets,
        verified_sets: stands.verified_sets,
        stored_bytes: stands.stored_bytes,
        newest_good: stands.newest_good.map(SetLine::of),
        rpo_seconds,
        dated_ahead: stands.latest.filter(|_| standing::is_ahead(stands.latest, now)),
        groups_without_good: stands.groups_without_good,
        newest_bad: stands.newest_bad.map(SetLine::of),
        stale: max_age_seconds.is_some_and(|max| rpo_seconds.is_none_or(|age| age > max)),
        copies: Vec::new(),
    }
}

/// The artifact that `wanted` names: its file name, its true name, `source.name`, or its source when that has one only.
pub fn artifact<'a>(manifest: &'a crate::model::Manifest, details: Option<&Details>, wanted: &str) -> Result<&'a Artifact> {
    let by_name = |a: &&Artifact| {
        let name = details.and_then(|d| d.artifact(&a.file)).map(|d| d.name.as_str());
        a.file == wanted || name.is_some_and(|n| n == wanted || format!("{}.{n}", a.source) == wanted)
    };
    let mut found: Vec<&Artifact> = manifest.artifacts.iter().filter(by_name).collect();
    if found.is_empty() {
        found = manifest.artifacts.iter().filter(|a| a.source == wanted || a.file.starts_with(&format!("{wanted}."))).collect();
    }
    match found.as_slice() {
        [only] => Ok(only),
        _ => {
            let files =
                |artifacts: &mut dyn Iterator<Item = &'a Artifact>| artifacts.map(|a| a.file.as_str()).collect::<Vec<_>>().join(", ");
            Err(if found.is_empty() {
                Error::new(Kind::NoSuchSet, format!("{} has no artifact '{wanted}'", manifest.set))
                    .hint(format!("its artifacts are: {}", files(&mut manifest.artifacts.iter())))
            } else {
                Error::new(Kind::Usage, format!("'{wanted}' names more than one artifact of {}", manifest.set))
                    .hint(format!("say which: {}", files(&mut found.into_iter())))
            })
        }
    }
}
