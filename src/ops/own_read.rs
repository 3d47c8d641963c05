//! How a sealed host proves its own set: by an identity that lives no longer than the run (DESIGN §5).
//!
//! The host has public keys only, so it could not read back what it wrote. For a run that is asked to, it makes an age identity in memory, adds its
//! public key to the recipients of everything that it writes, reads the whole set back before the commit, and forgets the secret: it is on no
//! disk, in no record and in no set. Whoever copies the disk afterwards reads nothing. Whoever is on the host *during* the run reads the process's memory, and
//! the data itself, which lies there anyway.
//!
//! A set that does not read back is not committed: the host could not tell the log that it is bad. That it does is a proof in the log only where
//! the host's key is also a prover's; from a writer alone it is worth what the thief of a writer could say (FORMAT rule 15).

use std::time::Instant;

use crate::catalog::{JobLog, Role};
use crate::error::{Error, Kind, Result};
use crate::model::record::{Grade, Proof};
use crate::model::{Manifest, Timestamp};
use crate::ops::Setup;
use crate::ops::verify::{VerifyReport, look, record, tell_end};
use crate::pipeline::seal::{Identities, Sealing};

/// What came of reading the run's own set.
#[derive(Clone, Debug)]
pub enum OwnRead {
    /// All of it is as it should be.
    Proven(Box<Reading>),
    /// It could not be read just now; nothing is known, and the set is committed all the same.
    NotNow {
        /// What sort of failure.
        kind: Kind,
        /// In words.
        why: String,
    },
}

/// A reading that passed.
#[derive(Clone, Debug)]
pub struct Reading {
    started_at: Timestamp,
    finished_at: Timestamp,
    report: VerifyReport,
}

/// The same run with an identity of its own; `None` where the host can open what it writes, or nothing is sealed.
pub fn with_identity(setup: &Setup) -> Result<Option<Setup>> {
    let Sealing::Age(recipients) = &setup.sealing else { return Ok(None) };
    if setup.identities.can_open(&setup.sealing.encryption()) {
        return Ok(None);
    }
    let (secret, own) = Identities::generate();
    let mut recipients = recipients.clone();
    recipients.push(own);
    let identities = Identities::parse(&secret, "the run's identity")?;
    Ok(Some(Setup { sealing: Sealing::Age(recipients), identities, ..setup.clone() }))
}

/// Reads a set that is stored and not yet committed. [`Kind::Verify`] when anything is wrong with it.
pub async fn before_commit(setup: &Setup, manifest: &Manifest) -> Result<OwnRead> {
    let (started, started_at) = (Instant::now(), setup.clock.now());
    let sink = setup.reading();
    setup.bus.step("reading the set back before its commit");
    let findings = match look(setup, sink, manifest, Grade::ReadBack).await {
        Ok(findings) => findings,
        Err(error) if matches!(error.kind(), Kind::Interrupted | Kind::Terminated) => return Err(error),
        Err(error) => return Ok(OwnRead::NotNow { kind: error.kind(), why: error.to_string() }),
    };
    if !findings.is_empty() {
        let text = format!("{} does not read back from '{}', so it was not committed: {}", manifest.set, sink.name, findings.join("; "));
        return Err(
            Error::new(Kind::Verify, text).hint("what the store gives back is not what it was given: look at it, then drctl backup now")
        );
    }
    Ok(OwnRead::Proven(Box::new(Reading {
        started_at,
        finished_at: setup.clock.now(),
        report: VerifyReport {
            set: manifest.set.clone(),
            grade: Grade::ReadBack,
            passed: true,
            findings,
            store: sink.name.clone(),
            objects: manifest.every_object().count() as u64,
            stored_bytes: manifest.stored_bytes(),
            elapsed_seconds: started.elapsed().as_secs_f64(),
            record: None,
            before_commit: true,
        },
    })))
}

/// Tells of a reading whose set is committed by now, in the log where this host's key may.
pub async fn tell(setup: &Setup, log: &mut JobLog, reading: Reading) -> Result<VerifyReport> {
    let Reading { started_at, finished_at, mut report } = reading;
    if setup.roles.contains(&Role::Prover) {
        let VerifyReport { set, grade, passed, findings, store, .. } = report.clone();
        report.record = record(setup, log, Proof { set, grade, passed, findings, started_at, finished_at, store }).await?;
    }
    tell_end(setup, &report);
    Ok(report)
}
