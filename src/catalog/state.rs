//! What a job's log says: a pure fold of its records, in order of their numbers.
//!
//! The fold decides what exists. It knows no store and no clock; whoever asks about pins and holds gives the server's date.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::keys::{Role, Roles};
use crate::model::record::{Grade, Proof};
use crate::model::{Manifest, SetClass, SetId, SetState, Sha256};

/// Something about the log that a person must hear of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type", deny_unknown_fields)]
pub enum Finding {
    /// No record stands under this number though later ones do: tampering (rule 6).
    Gap {
        /// The number.
        number: u64,
    },
    /// The log ends before, or differs at, a record that this machine has seen (FAULTS 72).
    RolledBack {
        /// Number of the newest record this machine has seen.
        seen: u64,
        /// The head found now.
        found: u64,
    },
    /// The log ends before, or differs at, the record that a key file of the root key names as its head (rule 18).
    Exchanged {
        /// The number.
        number: u64,
        /// Number of the key file.
        file: u64,
    },
    /// Something stands under a number beyond the head that nobody signed; it is no part of the log.
    Stray {
        /// The lowest such number.
        number: u64,
    },
    /// The record does not verify; it takes its number and counts for nothing (rule 12).
    Unverified {
        /// The number.
        number: u64,
        /// Why.
        reason: String,
    },
    /// The record is signed, but the bytes before it are not those it was appended to.
    BrokenLink {
        /// The number.
        number: u64,
    },
    /// The record is signed, but what it says cannot be so; it counts for nothing.
    Void {
        /// The number.
        number: u64,
        /// Why.
        reason: String,
    },
}

impl Finding {
    /// Whether records were taken away or exchanged, so that nothing may be appended before a person has looked.
    pub fn stops_appends(&self) -> bool {
        matches!(self, Finding::Gap { .. } | Finding::RolledBack { .. } | Finding::Exchanged { .. })
    }

    /// Whether nothing may be deleted before a person has looked: what cannot be read might have been a pin or a hold.
    pub fn stops_deletes(&self) -> bool {
        !matches!(self, Finding::Void { .. } | Finding::Stray { .. })
    }

    /// The record it is about; `None` for what only this machine knows.
    pub fn number(&self) -> Option<u64> {
        match self {
            Finding::RolledBack { .. } | Finding::Stray { .. } | Finding::Exchanged { .. } => None,
            Finding::Gap { number }
            | Finding::Unverified { number, .. }
            | Finding::BrokenLink { number }
            | Finding::Void { number, .. } => Some(*number),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Gap { number } => write!(f, "record {number} is missing though later ones stand: the log was tampered with"),
            Finding::RolledBack { seen, found } => {
                write!(f, "this machine has seen record {seen}, the log now ends or differs at {found}: it was rolled back or exchanged")
            }
            Finding::Exchanged { number, file } => {
                write!(
                    f,
                    "the log ends before record {number} or differs there, and key file {file} names it: it was rolled back or exchanged"
                )
            }
            Finding::Stray { number } => {
                write!(
                    f,
                    "something stands under {number}, beyond the log's end, that nobody signed: it is no part of it, and hinders nothing"
                )
            }
            Finding::Unverified { number, reason } => write!(f, "record {number} does not verify and counts for nothing: {reason}"),
            Finding::BrokenLink { number } => write!(f, "record {number} was appended to other bytes than now stand before it: tampered"),
            Finding::Void { number, reason } => write!(f, "record {number} counts for nothing: {reason}"),
        }
    }
}

/// A pin in force until `until`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Number of its record.
    pub number: u64,
    /// End, server date.
    pub until: Timestamp,
    /// Why, for people.
    pub reason: String,
}

/// One proof as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingProof {
    /// Number of its record.
    pub number: u64,
    /// Roles of the key that signed it.
    pub roles: Roles,
    /// What it says.
    pub proof: Proof,
}

/// A committed set and all that the log says of it.
#[derive(Clone, Debug)]
pub struct SetEntry {
    /// Number of its commit record.
    pub number: u64,
    /// Number of the key that signed it.
    pub key: u64,
    /// SHA-256 of that record's bytes.
    pub record_sha256: Sha256,
    /// The writer's clock when the record was written.
    pub at: Timestamp,
    /// What it is.
    pub manifest: Arc<Manifest>,
    /// Proofs, in the log's order.
    pub proofs: Vec<StandingProof>,
    /// The pin that reaches furthest.
    pub pin: Option<Pin>,
    /// Holds by name, each with its end (server date).
    pub holds: BTreeMap<String, Timestamp>,
    /// Number of the intent that names it: it counts for nothing.
    pub intent: Option<u64>,
}

impl SetEntry {
    /// The set's id.
    pub fn id(&self) -> &SetId {
        &self.manifest.set
    }

    /// Whether no intent names it.
    pub fn is_live(&self) -> bool {
        self.intent.is_none()
    }

    /// Good = complete, not suspect, no delete-intent (FORMAT, Keys), and no safety set: that one holds what somebody wanted to leave behind,
    /// so no date, age or comparison may mean it.
    pub fn is_good(&self) -> bool {
        self.is_live() && self.manifest.state == SetState::Complete && !self.is_safety()
    }

    /// Whether it was made of what was live just before a restore loaded over it.
    pub fn is_safety(&self) -> bool {
        self.manifest.class == SetClass::Safety
    }

    /// Whether a pin is in force at `now` (server date).
    pub fn is_pinned(&self, now: Timestamp) -> bool {
        self.pin.as_ref().is_some_and(|pin| pin.until > now)
    }

    /// Whether a reader's hold is in force at `now` (server date).
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.holds.values().any(|until| *until > now)
    }

    /// The highest grade that stands. A commit by itself is `uploaded`.
    ///
    /// Rule 15: a failed proof beats every proof before it in the log, and every later one whose reading began before it ended;
    /// with `provers_only` (sealed repositories) only keys that are not writers' raise a grade. Proofs of copies count for nothing here.
    pub fn grade(&self, provers_only: bool) -> Option<Grade> {
        if !self.is_live() {
            return None;
        }
        let failed = self.own_proofs().rfind(|p| !p.proof.passed);
        let latest_failure = self.own_proofs().filter(|p| !p.proof.passed).map(|p| p.proof.finished_at).max();
        let stands = |p: &&StandingProof| {
            p.proof.passed
                && !(provers_only && p.roles.contains(&Role::Writer))
                && failed.is_none_or(|f| p.number > f.number)
                && latest_failure.is_none_or(|end| p.proof.started_at > end)
        };
        let best = self.own_proofs().filter(stands).map(|p| p.proof.grade).max();
        match (best, failed) {
            (Some(grade), _) => Some(grade),
            // A failed reading says that the bytes are bad, whatever the store said at the upload.
            (None, Some(_)) => None,
            (None, None) => Some(Grade::Uploaded),
        }
    }

    /// The failed proof that stands against it, if no later success beats it.
    pub fn failure(&self) -> Option<&StandingProof> {
        match self.grade(false) {
            Some(_) => None,
            None => self.own_proofs().rfind(|p| !p.proof.passed),
        }
    }

    /// Proofs but those of copies: what a reading of another store found says nothing of the first one, where sets are read from.
    fn own_proofs(&self) -> impl DoubleEndedIterator<Item = &StandingProof> {
        self.proofs.iter().filter(|standing| !self.is_copy(&standing.proof.store))
    }

    /// Whether the manifest names this store after the first one: it holds a copy of the set.
    pub fn is_copy(&self, store: &str) -> bool {
        self.manifest.stores.iter().skip(1).any(|name| name == store)
    }

    /// The failed proof that stands against the set as it lies in `store`: for a copy its own newest proof decides.
    pub fn failure_in(&self, store: &str) -> Option<&StandingProof> {
        if self.is_copy(store) {
            self.proofs.iter().rfind(|standing| standing.proof.store == store).filter(|standing| !standing.proof.passed)
        } else {
            self.failure()
        }
    }

    /// When a grade was proven last; `None` where no proof of the log says so.
    pub fn proven_at(&self, grade: Grade) -> Option<Timestamp> {
        self.own_proofs().rev().find(|p| p.proof.passed && p.proof.grade == grade).map(|p| p.proof.finished_at)
    }
}

/// A delete-intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// Number of its record.
    pub number: u64,
    /// What it names.
    pub sets: Vec<SetId>,
    /// Why, for people.
    pub reason: String,
    /// Number of the `deleted` record, once its objects are gone.
    pub deleted: Option<u64>,
}

/// A key file as a log knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyStanding {
    /// SHA-256 of the key file.
    pub sha256: Sha256,
    /// What it may do.
    pub roles: Roles,
    /// Number of the record since which it is valid; 0 for the first key.
    pub since: u64,
    /// Number of the record that revoked it.
    pub revoked: Option<u64>,
}

/// What a log says up to its head.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) head: u64,
    pub(crate) head_sha256: Sha256,
    pub(crate) newest_at: Option<Timestamp>,
    pub(crate) sets: BTreeMap<u64, SetEntry>,
    pub(crate) by_id: BTreeMap<SetId, u64>,
    pub(crate) keys: BTreeMap<u64, KeyStanding>,
    pub(crate) intents: BTreeMap<u64, Intent>,
    pub(crate) doomed: BTreeMap<SetId, u64>,
    pub(crate) closed: BTreeMap<SetId, u64>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) checkpoint: Option<u64>,
    /// SHA-256 of every record read, by number; 0 is the repository file.
    pub(crate) hashes: BTreeMap<u64, Sha256>,
}

impl State {
    /// Number of the newest record; 0 for an empty log.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// SHA-256 of the newest record's bytes; of `drctl-repository.json` for an empty log.
    pub fn head_sha256(&self) -> &Sha256 {
        &self.head_sha256
    }

    /// Date of the newest verified record, by its writer's clock.
    pub fn newest_at(&self) -> Option<Timestamp> {
        self.newest_at
    }

    /// Every committed set that no intent names, oldest first.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &SetEntry> {
        self.sets.values().filter(|entry| entry.is_live())
    }

    /// Every committed set, dead ones included, oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &SetEntry> {
        self.sets.values()
    }

    /// A committed set, dead or live.
    pub fn get(&self, set: &SetId) -> Option<&SetEntry> {
        self.sets.get(self.by_id.get(set)?)
    }

    /// The live sets of a chain, its full set first.
    pub fn chain<'a>(&'a self, chain: &'a SetId) -> impl DoubleEndedIterator<Item = &'a SetEntry> {
        self.live().filter(move |entry| entry.manifest.chain == *chain)
    }

    /// Whether a chain takes no more incremental sets: closed by a record or by an intent.
    pub fn is_closed(&self, chain: &SetId) -> bool {
        self.closed_by(chain).is_some()
    }

    /// Number of the intent that names a set id, committed or not.
    pub fn intent_for(&self, set: &SetId) -> Option<u64> {
        self.doomed.get(set).copied()
    }

    /// Every intent, oldest first.
    pub fn intents(&self) -> impl Iterator<Item = &Intent> {
        self.intents.values()
    }

    /// What a person must hear of, in the order found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// SHA-256 of the bytes of record `number`, where it was read.
    pub fn hash_of(&self, number: u64) -> Option<Sha256> {
        self.hashes.get(&number).copied()
    }

    /// Number of the record that closed a chain: a `close-chain` or an intent.
    pub fn closed_by(&self, chain: &SetId) -> Option<u64> {
        self.closed.get(chain).or_else(|| self.doomed.get(chain)).copied()
    }

    /// Findings that no person has acknowledged: those after the newest checkpoint, and what only this machine knows.
    pub fn open_findings(&self) -> impl Iterator<Item = &Finding> {
        let upto = self.checkpoint.unwrap_or(0);
        self.findings.iter().filter(move |finding| finding.number().is_none_or(|number| number > upto))
    }

    /// Whether some key that is valid may write and not delete: hosts that a thief of one could use to make sets, and to call them proven.
    pub fn is_sealed(&self) -> bool {
        let sealed = |key: &KeyStanding| key.revoked.is_none() && key.roles.contains(&Role::Writer) && !key.roles.contains(&Role::Pruner);
        self.keys.values().any(sealed)
    }

    /// Number of the newest checkpoint.
    pub fn checkpoint(&self) -> Option<u64> {
        self.checkpoint
    }

    /// A key file's standing in this log.
    pub fn key(&self, number: u64) -> Option<&KeyStanding> {
        self.keys.get(&number)
    }

    /// Whether a key of this number may still come: only upwards, so that a revoked one cannot be brought back.
    pub fn takes_key(&self, number: u64) -> bool {
        self.keys.keys().next_back().is_none_or(|newest| *newest < number)
    }

    /// Whether key `number` is valid for the next record.
    pub fn key_is_valid(&self, number: u64) -> bool {
        self.keys.get(&number).is_some_and(|key| key.revoked.is_none())
    }
}
