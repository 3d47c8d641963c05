//! Checkpoints: a record that sums up the log before it, so that a reader may start there (rule 6).
//!
//! The summary names every live set by the number and hash of its commit record; manifests are read from those records. Records
//! are never deleted: a checkpoint saves requests, nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalog::log::{Appended, JobLog};
use crate::catalog::state::{Finding, Intent, KeyStanding, Pin, StandingProof, State};
use crate::error::{Error, Result};
use crate::model::record::Body;
use crate::model::{SetId, Sha256, Timestamp};

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
        Finding::RolledBack { .. } => None,
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
        mark.set(log.repository.id(), &log.job, appended.number, &appended.sha256)?;
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
