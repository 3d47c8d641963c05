//! Checkpoints: a record that sums up the log before it, so that a reader may start there (rule 6).
//!
//! The summary names every live set by the number and hash of its commit record; manifests are read from those records. Records
//! are never deleted: a checkpoint saves requests, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::encoding;
use crate::catalog::keys::Role;
use crate::catalog::log::{Appended, Found, JobLog, fetch, number_of};
use crate::catalog::repository::refuse_newer;
use crate::catalog::state::{Finding, Intent, KeyStanding, Pin, SetEntry, StandingProof, State};
use crate::error::{Error, Result};
use crate::model::record::{Body, Record};
use crate::model::{SetId, Sha256, Timestamp};
use crate::store::whole;

/// A live set in a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetSummary {
    pub(crate) number: u64,
    pub(crate) set: SetId,
    pub(crate) record_sha256: Sha256,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) proofs: Vec<StandingProof>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<Pin>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) holds: BTreeMap<String, Timestamp>,
}

/// What a checkpoint record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    pub(crate) head: u64,
    pub(crate) head_sha256: Sha256,
    pub(crate) newest_at: Option<Timestamp>,
    pub(crate) sets: Vec<SetSummary>,
    pub(crate) keys: BTreeMap<u64, KeyStanding>,
    pub(crate) intents: Vec<Intent>,
    /// Every id an intent ever named, dead sets included, with the intent's number.
    pub(crate) doomed: BTreeMap<SetId, u64>,
    pub(crate) closed: BTreeMap<SetId, u64>,
    pub(crate) findings: Vec<Finding>,
}

/// The summary of a state as it stands in a record.
pub(crate) fn summary(state: &State) -> Result<serde_json::Value> {
    let summary = Summary {
        head: state.head,
        head_sha256: state.head_sha256,
        newest_at: state.newest_at,
        sets: state
            .live()
            .map(|entry| SetSummary {
                number: entry.number,
                set: entry.id().clone(),
                record_sha256: entry.record_sha256,
                proofs: entry.proofs.clone(),
                pin: entry.pin.clone(),
                holds: entry.holds.clone(),
            })
            .collect(),
        keys: state.keys.clone(),
        intents: state.intents.values().cloned().collect(),
        doomed: state.doomed.clone(),
        closed: state.closed.clone(),
        findings: state.findings.iter().filter_map(nameless).collect(),
    };
    serde_json::to_value(&summary).map_err(|e| Error::failed("sum up the log").because(e))
}

/// A finding without the words, which may differ from one reader to the next; `None` for what only one machine knows.
fn nameless(finding: &Finding) -> Option<Finding> {
    let reason = String::new();
    match finding {
        Finding::RolledBack { .. } | Finding::Stray { .. } | Finding::Exchanged { .. } => None,
        Finding::Unverified { number, .. } => Some(Finding::Unverified { number: *number, reason }),
        Finding::Void { number, .. } => Some(Finding::Void { number: *number, reason }),
        Finding::Gap { number } => Some(Finding::Gap { number: *number }),
        Finding::BrokenLink { number } => Some(Finding::BrokenLink { number: *number }),
    }
}

/// Appends a checkpoint of the log up to its head; needs the pruner's role. [`crate::error::Kind::Corrupt`] while a person has not looked at what
/// was found in the log: a checkpoint says that it was seen.
pub async fn checkpoint(log: &mut JobLog) -> Result<Appended> {
    log.refresh().await?;
    log.refuse_if_tampered(true)?;
    append(log).await
}

/// [`checkpoint`] on the word of a person who has looked at every finding: from there on they stop neither appends nor deletes.
/// Where the log was rolled back, this machine's mark follows it.
pub async fn acknowledge(log: &mut JobLog) -> Result<Appended> {
    log.acknowledging = true;
    let appended = append(log).await;
    log.acknowledging = false;
    let appended = appended?;
    log.state.findings.retain(|finding| finding.number().is_some());
    if let Some(mark) = &log.repository.env().high_water {
        mark.reset(log.repository.id(), &log.job, appended.number, &appended.sha256)?;
    }
    Ok(appended)
}

async fn append(log: &mut JobLog) -> Result<Appended> {
    log.append_with(|state, _| {
        let number = state.head() + 1;
        Ok(Body::Checkpoint { upto: number, state: summary(state)? })
    })
    .await
}

impl JobLog {
    /// Starts at the newest checkpoint that can be trusted; does nothing where there is none.
    pub(crate) async fn start_at_checkpoint(&mut self) -> Result<()> {
        let store = self.repository.store().clone();
        let prefix = format!("jobs/{}/log/", self.job);
        let numbers: Vec<u64> =
            whole::list_all(&*store, &prefix).await?.iter().filter_map(|entry| number_of(&entry.key, &self.job)).collect();
        let revoked = self.read_every_key().await?;
        // Newest first. What lies after the checkpoint has to be read anyway.
        for number in numbers.into_iter().rev() {
            let Found::Bytes(bytes) = fetch(&self.repository, &self.job, number).await? else { continue };
            if memchr::memmem::find(&bytes, b"\"checkpoint\"").is_none() {
                continue;
            }
            if let Some((record, summary)) = self.trusted_checkpoint(number, &bytes, &revoked)? {
                return self.start_from(record, Sha256::of(&bytes), summary).await;
            }
        }
        Ok(())
    }

    /// Reads every key file into the book and returns the numbers that any of them revokes: a key that the root revoked anywhere
    /// may not vouch for a starting point, since the records that revoke it here are not read.
    async fn read_every_key(&mut self) -> Result<BTreeSet<u64>> {
        self.book.extend(self.repository.key_book().await?);
        Ok(self.book.values().flat_map(|(file, _)| file.revokes.iter().copied()).collect())
    }

    /// The checkpoint in these bytes, if a key vouches for it that nobody revoked.
    fn trusted_checkpoint(&self, number: u64, bytes: &[u8], revoked: &BTreeSet<u64>) -> Result<Option<(Record, Summary)>> {
        let Ok(parts) = encoding::split(bytes) else { return Ok(None) };
        let Ok(json) = parts.json() else { return Ok(None) };
        #[derive(Deserialize)]
        struct Peek {
            key: u64,
        }
        let Ok(Peek { key }) = serde_json::from_str::<Peek>(json) else { return Ok(None) };
        let Some((file, sha256)) = self.book.get(&key).filter(|_| !revoked.contains(&key)) else { return Ok(None) };
        let subject = encoding::record_subject(&self.job, number);
        if !file.roles.contains(&Role::Pruner)
            || self.repository.inner.scheme.verify(&file.public, parts.line, &subject, parts.signature).is_err()
        {
            return Ok(None);
        }
        refuse_newer(json)?;
        let Ok(record) = serde_json::from_str::<Record>(json) else { return Ok(None) };
        let Body::Checkpoint { upto, state } = &record.body else { return Ok(None) };
        let Ok(summary) = serde_json::from_value::<Summary>(state.clone()) else { return Ok(None) };
        let fits = record.repository == self.repository.id()
            && record.job == self.job
            && record.number == number
            && *upto == number
            && summary.head + 1 == number
            && summary.head_sha256 == record.previous
            && summary.keys.get(&key).is_some_and(|standing| standing.revoked.is_none() && standing.sha256 == *sha256);
        Ok(fits.then_some((record, summary)))
    }

    /// Takes the summary for the state, with the manifests from the records that it names.
    async fn start_from(&mut self, record: Record, sha256: Sha256, summary: Summary) -> Result<()> {
        let mut sets = BTreeMap::new();
        let mut by_id = BTreeMap::new();
        for set in summary.sets {
            let lost = |why: &str| {
                Error::corrupt(format!("record {} of {}: {why}", set.number, set.set)).hint("see what can still be read: drctl list")
            };
            let Found::Bytes(bytes) = fetch(&self.repository, &self.job, set.number).await? else {
                return Err(lost("the checkpoint names it, and it is missing"));
            };
            if Sha256::of(&bytes) != set.record_sha256 {
                return Err(lost("it is not the record that the checkpoint names"));
            }
            let commit: Record =
                serde_json::from_str(encoding::split(&bytes)?.json()?).map_err(|e| lost("its JSON is wrong").because(e))?;
            let Body::Commit { manifest } = commit.body else { return Err(lost("it is no commit")) };
            let entry = SetEntry {
                number: set.number,
                key: commit.key,
                record_sha256: set.record_sha256,
                at: commit.at,
                manifest: Arc::new(*manifest),
                proofs: set.proofs,
                pin: set.pin,
                holds: set.holds,
                intent: None,
            };
            by_id.insert(set.set, set.number);
            sets.insert(set.number, entry);
        }
        let state = &mut self.state;
        state.head = record.number;
        state.head_sha256 = sha256;
        state.hashes = [(summary.head, summary.head_sha256), (record.number, sha256)].into();
        state.newest_at = summary.newest_at.max(Some(record.at));
        state.sets = sets;
        state.by_id = by_id;
        state.keys = summary.keys;
        state.intents = summary.intents.into_iter().map(|intent| (intent.number, intent)).collect();
        state.doomed = summary.doomed;
        state.closed = summary.closed;
        state.findings = summary.findings;
        state.checkpoint = Some(record.number);
        Ok(())
    }
}
