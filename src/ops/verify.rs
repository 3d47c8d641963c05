//! `drctl verify`: is what lies there what was written? The outcome is a proof in the log.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Hold, JobLog, hold};
use crate::error::{Error, Kind, Result};
use crate::model::record::{Grade, Proof};
use crate::model::{Artifact, Manifest, SetId, Sha256};
use crate::observe::Event;
use crate::ops::Setup;
use crate::ops::copies;
use crate::ops::details::Details;
use crate::ops::dump::interrupted;
use crate::pipeline::read::StoredArtifact;
use crate::pipeline::split::Sink;

/// How long a reader's hold lasts; renewed at a third of it.
pub const HOLD: Duration = Duration::from_secs(3600);

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The set.
    pub set: SetId,
    /// The grade that was tried for.
    pub grade: Grade,
    /// Whether it was reached.
    pub passed: bool,
    /// What was wrong, the object or artifact named in each.
    pub findings: Vec<String>,
    /// The store that was read.
    pub store: String,
    /// Objects looked at.
    pub objects: u64,
    /// Stored bytes looked at.
    pub stored_bytes: u64,
    /// Seconds it took.
    pub elapsed_seconds: f64,
    /// Number of the proof in the log; `None` where this host may not append one.
    pub record: Option<u64>,
    /// Whether the run that made the set read it, by an identity of its own, before the commit ([`crate::ops::own_read`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub before_commit: bool,
}

/// Verifies one set in the store that is read (the first, unless another was asked for) and appends the proof, which names that store.
pub async fn verify(setup: &Setup, log: &mut JobLog, set: &SetId, grade: Grade) -> Result<VerifyReport> {
    if grade == Grade::Restored {
        return Err(
            Error::new(Kind::Usage, "the grade 'restored' is reached by a drill, not by verify").hint("drctl verify --grade read-back")
        );
    }
    let started = std::time::Instant::now();
    let started_at = setup.clock.now();
    let entry = log.state().get(set).ok_or_else(|| Error::new(Kind::NoSuchSet, format!("{set} was never committed")).hint("drctl list"))?;
    let manifest = entry.manifest.clone();
    let sink = setup.reading();
    copies::check_is_here(setup, &manifest).await?;
    setup.bus.emit(Event::RunStarted { verb: "verify".into(), job: set.job().to_string(), set: Some(set.to_string()) });

    let mut holds = hold_all(setup, log, std::slice::from_ref(set)).await?;
    let findings = while_holding(setup, log, &mut holds, look(setup, sink, &manifest, grade)).await;
    release_all(setup, log, holds).await;
    let findings = findings?;
    // What was deleted meanwhile is not damaged (FORMAT rule 9).
    if !findings.is_empty() {
        let gone = hold::explain(log, set, Error::new(Kind::Verify, "")).await;
        if gone.kind() == Kind::NoSuchSet {
            return Err(gone);
        }
    }
    let mut report = VerifyReport {
        set: set.clone(),
        grade,
        passed: findings.is_empty(),
        findings: findings.clone(),
        store: sink.name.clone(),
        objects: manifest.every_object().count() as u64,
        stored_bytes: manifest.stored_bytes(),
        elapsed_seconds: started.elapsed().as_secs_f64(),
        record: None,
        before_commit: false,
    };
    // The log cannot tell a proof of a store that the manifest does not name from one of the first store.
    let tells = setup.read_from == 0 || manifest.stores.contains(&sink.name);
    if !tells {
        setup.bus.warn(format!("this proof is not in the log: {set} was not made for store '{}'", sink.name));
    }
    if tells && !setup.keys.is_empty() {
        let proof = Proof {
            set: set.clone(),
            grade,
            passed: report.passed,
            findings,
            started_at,
            finished_at: setup.clock.now(),
            store: sink.name.clone(),
        };
        report.record = record(setup, log, proof).await?;
    }
    report.elapsed_seconds = started.elapsed().as_secs_f64();
    tell_end(setup, &report);
    Ok(report)
}

/// Tells everybody who listens what came of it.
pub(super) fn tell_end(setup: &Setup, report: &VerifyReport) {
    setup.bus.emit(Event::RunFinished {
        verb: "verify".into(),
        job: report.set.job().to_string(),
        set: Some(report.set.to_string()),
        exit_code: if report.passed { 0 } else { Kind::Verify.exit_code() },
        elapsed_seconds: report.elapsed_seconds,
        at: setup.clock.now(),
    });
}

/// Appends a proof, here and in the copies, and gives its number. Where this host may not, or the store takes no bytes, it says so.
pub(super) async fn record(setup: &Setup, log: &mut JobLog, proof: Proof) -> Result<Option<u64>> {
    let number = match hold::prove(log, proof).await {
        Ok(appended) => {
            setup.bus.emit(Event::Recorded { record: "proof".into(), number: appended.number });
            Some(appended.number)
        }
        Err(error) if takes_no_bytes(&error) => {
            setup.bus.warn(format!("this proof is not in the log: {error}"));
            None
        }
        Err(error) => return Err(error),
    };
    copies::bring_records(setup, log).await;
    Ok(number)
}

/// What is wrong with a set in one store, up to a grade.
pub(super) async fn look(setup: &Setup, sink: &Sink, manifest: &Manifest, grade: Grade) -> Result<Vec<String>> {
    let findings = check_objects(sink, manifest).await?;
    if findings.is_empty() && grade == Grade::ReadBack { read_back(setup, sink, manifest).await } else { Ok(findings) }
}

/// Holds on sets while they are read, where this host may append them; otherwise it says so and judges the log itself
/// (FORMAT rule 9).
pub async fn hold_all(setup: &Setup, log: &mut JobLog, sets: &[SetId]) -> Result<Vec<Hold>> {
    let mut holds = Vec::new();
    if setup.keys.is_empty() {
        setup.bus.warn("no signing key is at hand: reading without a hold, so a prune elsewhere may delete the set meanwhile");
        for set in sets {
            hold::check_readable(log, set).await?;
        }
        return Ok(holds);
    }
    for set in sets {
        match Hold::acquire(log, set, HOLD).await {
            Ok(held) => holds.push(held),
            // A store that takes no more bytes must still give those it has: on that day most of all.
            Err(error) if takes_no_bytes(&error) => {
                setup.bus.warn(format!("reading without a hold, so a prune elsewhere may delete the set meanwhile: {error}"));
                hold::check_readable(log, set).await?;
            }
            Err(error) => {
                release_all(setup, log, holds).await;
                return Err(error);
            }
        }
    }
    Ok(holds)
}

/// Whether a store is read-only or full.
fn takes_no_bytes(error: &Error) -> bool {
    matches!(error.kind(), Kind::Denied | Kind::Full)
}

/// Ends holds. One that cannot be ended is said; it ends by itself at its time.
pub async fn release_all(setup: &Setup, log: &mut JobLog, holds: Vec<Hold>) {
    for held in holds {
        let (set, until) = (held.set.clone(), held.until);
        if let Err(error) = held.release(log).await {
            setup.bus.warn(format!("the hold on {set} stays until {}: {error}", until.strftime("%H:%M UTC")));
        }
    }
}

/// When holds are renewed.
struct Pace {
    /// So long after the last time.
    every: Duration,
    /// How long a renewal that is under way at the work's end is waited for.
    grace: Duration,
}

/// Runs `work` and renews the holds meanwhile, the one never waiting for the other: a store that is slow to take a record must not stop a
/// read. `work` is not stopped when a hold cannot be renewed: the log is read again after it.
pub async fn while_holding<T>(setup: &Setup, log: &mut JobLog, holds: &mut [Hold], work: impl std::future::Future<Output = T>) -> T {
    while_renewing(setup, log, holds, Pace { every: HOLD / 3, grace: Duration::from_secs(30) }, work).await
}

async fn while_renewing<T>(
    setup: &Setup,
    log: &mut JobLog,
    holds: &mut [Hold],
    pace: Pace,
    work: impl std::future::Future<Output = T>,
) -> T {
    let done = CancellationToken::new();
    let renewing = async {
        while done.run_until_cancelled(tokio::time::sleep(pace.every)).await.is_some() {
            for held in holds.iter_mut() {
                if let Err(error) = held.renew(log, HOLD).await {
                    setup.bus.warn(format!("the hold on {} could not be renewed: {error}", held.set));
                }
            }
        }
    };
    let end = async {
        done.cancelled().await;
        tokio::time::sleep(pace.grace).await;
    };
    let renewing = async {
        // One that is broken off stands in the log or does not: both are right, and the log is read before the next record.
        tokio::select! {
            () = renewing => {}
            () = end => {}
        }
    };
    let working = async {
        let result = work.await;
        done.cancel();
        result
    };
    tokio::join!(working, renewing).0
}

/// Presence, size, and checksum where the store keeps one, of every object.
async fn check_objects(sink: &Sink, manifest: &Manifest) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for object in manifest.every_object() {
        match sink.store.head(&format!("{}{}", manifest.set.prefix(), object.file)).await {
            Ok(head) if head.bytes != object.stored_bytes => {
                findings.push(format!("{}: has {} bytes, the manifest has {}", object.file, head.bytes, object.stored_bytes));
            }
            Ok(head) if head.sha256.is_some_and(|sha256| sha256 != object.stored_sha256) => {
                findings.push(format!("{}: the store's checksum is not the manifest's", object.file));
            }
            Ok(_) => {}
            Err(error) if error.kind() == Kind::NotFound => findings.push(format!("{}: is missing", object.file)),
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// Every byte: digests, seal, frames, format's end, counts.
async fn read_back(setup: &Setup, sink: &Sink, manifest: &Manifest) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let prefix = manifest.set.prefix();
    let guide = crate::store::whole::read(sink.store.as_ref(), &format!("{prefix}{}", manifest.guide.file)).await?;
    if Sha256::of(&guide) != manifest.guide.stored_sha256 {
        findings.push(format!("{}: its SHA-256 is not the manifest's", manifest.guide.file));
    }
    let details = match Details::read(setup, &sink.store, manifest).await {
        Ok(details) => Some(details),
        Err(error) => {
            findings.push(finding(error)?);
            None
        }
    };
    for artifact in &manifest.artifacts {
        let reading = read_one(setup, sink, &prefix, artifact);
        let facts = tokio::select! {
            biased;
            () = setup.cancel.cancelled() => return Err(interrupted()),
            facts = reading => facts,
        };
        match facts {
            Ok(facts) => {
                let expected = details.as_ref().and_then(|d| d.artifact(&artifact.file));
                if expected.is_some_and(|expected| expected.facts != facts) {
                    findings.push(format!("{}: the counts now are not those of the dump", artifact.file));
                }
            }
            Err(error) => findings.push(finding(error)?),
        }
    }
    Ok(findings)
}

/// A bad artifact is a finding; a store or key that is not there stops the verification with nothing proven.
fn finding(error: Error) -> Result<String> {
    match error.kind() {
        Kind::Corrupt | Kind::NotFound | Kind::Verify => Ok(error.to_string()),
        _ => Err(error),
    }
}

async fn read_one(setup: &Setup, sink: &Sink, prefix: &str, artifact: &Artifact) -> Result<crate::model::Facts> {
    let shown = artifact.file.clone();
    setup.bus.emit(Event::ArtifactStarted { artifact: shown.clone(), expected_bytes: Some(artifact.plain_bytes) });
    let read_bytes = Arc::new(AtomicU64::new(0));
    let stored = StoredArtifact {
        store: sink.store.clone(),
        prefix: prefix.to_owned(),
        artifact: artifact.clone(),
        identities: setup.identities.clone(),
    };
    let reading = stored.read(None, read_bytes.clone(), CancellationToken::new());
    let facts = crate::ops::progress::while_telling(setup, &shown, artifact, &read_bytes, reading).await?;
    setup.bus.emit(Event::ArtifactFinished { artifact: shown, plain_bytes: artifact.plain_bytes, stored_bytes: artifact.stored_bytes() });
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::env::Env;
    use crate::catalog::{Repository, RoleKey};
    use crate::ops::backup::{BackupOptions, backup};
    use crate::ops::{JobSpec, SourceSpec};
    use crate::pipeline::seal::Sealing;
    use crate::source::files::{FilesSettings, FilesSource};
    use crate::store::faulty::{Fault, FaultyStore, Operation, When};
    use crate::store::memory::MemoryStore;

    /// A renewal whose answer never comes: with the read standing still meanwhile neither would ever end.
    #[tokio::test(flavor = "multi_thread")]
    async fn f37_a_renewal_that_hangs_does_not_stop_the_read() {
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::default())));
        let new = Repository::init(store.clone(), Env::default(), "test").await.unwrap();
        let sink = Sink::new("first", store.clone());
        let mut setup = Setup::new(new.repository.clone(), vec![sink], Sealing::None);
        setup.keys = vec![RoleKey { number: 1, signer: Arc::new(new.key) }];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "a").unwrap();
        let source = FilesSource::new("files", FilesSettings::all_of([folder.path()])).unwrap();
        let job = JobSpec {
            name: "shop".parse().unwrap(),
            group: "main".into(),
            sources: vec![SourceSpec { source: Arc::new(source), allowed: Default::default(), allow_plaintext: false }],
            warnings: Vec::new(),
            config_text: String::new(),
            config_sha256: Sha256::of(b""),
        };
        let set = backup(&setup, &job, &BackupOptions::default()).await.unwrap().set;
        let mut log = setup.log(&job.name).await.unwrap();
        let mut holds = hold_all(&setup, &mut log, std::slice::from_ref(&set)).await.unwrap();

        let records = || store.calls().iter().filter(|(o, key)| *o == Operation::Put && key.contains("/log/")).count();
        let before = records();
        store.rule(Operation::Put, "*/log/*", When::Always, Fault::Hang);
        let reading = async {
            while records() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            "read to its end"
        };
        let pace = Pace { every: Duration::from_millis(5), grace: Duration::from_millis(5) };
        let held = while_renewing(&setup, &mut log, &mut holds, pace, reading);
        let done = tokio::time::timeout(Duration::from_secs(120), held).await;
        assert_eq!(done.expect("the read waits for the renewal"), "read to its end");
        // The broken renewal is no obstacle to what follows.
        store.clear();
        release_all(&setup, &mut log, holds).await;
        assert!(setup.log(&job.name).await.unwrap().state().get(&set).unwrap().is_live());
    }
}
