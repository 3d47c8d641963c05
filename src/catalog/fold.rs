//! From a record's bytes to what it changes: verify, then apply. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use crate::catalog::checkpoint;
use crate::catalog::encoding::{self, Scheme};
use crate::catalog::keys::{self, KeyBook, KeyFile, PublicKey, roles_for};
use crate::catalog::rules::Rules;
use crate::catalog::state::{Finding, Intent, KeyStanding, Pin, SetEntry, StandingProof, State};
use crate::error::{Error, Kind, Result};
use crate::model::record::{Body, Proof, Record};
use crate::model::{FORMAT, JobName, Manifest, SetId, SetKind, Sha256, Timestamp};

/// What every record of a log must agree with.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// The repository's id.
    pub repository: &'a str,
    /// The job.
    pub job: &'a JobName,
    /// How signatures are checked.
    pub scheme: &'a dyn Scheme,
    /// The key files known.
    pub keys: &'a KeyBook,
    /// The rules in force.
    pub rules: Rules,
}

/// The fields that every format keeps at the top of a record, so that an old program can tell a newer record from a broken one.
#[derive(Deserialize)]
struct Envelope {
    format: u32,
    repository: String,
    job: JobName,
    number: u64,
    key: u64,
}

impl Envelope {
    fn of(record: &Record) -> Envelope {
        let Record { format, repository, job, number, key, .. } = record;
        Envelope { format: *format, repository: repository.clone(), job: job.clone(), number: *number, key: *key }
    }
}

/// Numbers of the key files that a `key-change` in these bytes names and is signed by, nothing of it verified; they must be at hand to judge
/// the record.
pub fn named_keys(bytes: &[u8]) -> Option<[u64; 2]> {
    #[derive(Deserialize)]
    struct PeekBody {
        #[serde(rename = "type")]
        kind: String,
        number: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Peek {
        key: u64,
        body: PeekBody,
    }
    // Nearly every record is of another type: look for the word before parsing.
    memchr::memmem::find(bytes, b"\"key-change\"")?;
    let peek: Peek = serde_json::from_str(encoding::split(bytes).ok()?.json().ok()?).ok()?;
    (peek.body.kind == "key-change").then_some([peek.body.number?, peek.key])
}

/// A record that verified.
pub struct Verified {
    /// The record.
    pub record: Record,
}

/// Checks the signature of a record that [`vouched`] let pass, and with it of all before it, which its bytes bind one by one.
pub fn check_signature(number: u64, bytes: &[u8], frame: Frame<'_>) -> Result<()> {
    let parts = encoding::split(bytes)?;
    let head: Envelope = serde_json::from_str(parts.json()?).map_err(|e| Error::corrupt("its JSON is wrong").because(e))?;
    let (file, _) = frame.keys.get(&head.key).ok_or_else(|| Error::corrupt(format!("key file {} is not at hand", head.key)))?;
    frame.scheme.verify(&file.public, parts.line, &encoding::record_subject(frame.job, number), parts.signature)
}

/// Whether these bytes are a record of this log under `number`, signed by a key of the repository that is not revoked there; whether it counts
/// is another question.
pub fn is_signed(number: u64, bytes: &[u8], frame: Frame<'_>) -> bool {
    let signed = || -> Result<bool> {
        let head: Envelope = serde_json::from_str(encoding::split(bytes)?.json()?).map_err(|e| Error::corrupt("no envelope").because(e))?;
        belongs(&head, number, frame)?;
        check_signature(number, bytes, frame)?;
        Ok(!frame.rules.revoked_everywhere || keys::revoked(frame.keys, frame.job, head.key, number).is_none())
    };
    signed().unwrap_or(false)
}

/// Verifies the bytes under `number` with the keys in force there. [`Kind::Unsupported`] for a signed record of a newer format;
/// any other error says why the record counts for nothing.
pub fn verify(state: &State, number: u64, bytes: &[u8], frame: Frame<'_>) -> Result<Verified> {
    let parts = encoding::split(bytes)?;
    let json = parts.json()?;
    let wrong = |e: Error| Error::corrupt("its JSON is wrong").because(e);
    // Read before the signature is checked, because it names the key; believed only after.
    let (head, record) = match frame.scheme.parse(json) {
        Ok(record) => (Envelope::of(&record), Ok(record)),
        Err(e) => (serde_json::from_str(json).map_err(|_| wrong(Error::corrupt("no envelope")))?, Err(e)),
    };
    if !frame.rules.unverified_is_nothing {
        belongs(&head, number, frame)?;
        return Ok(Verified { record: record.map_err(wrong)? });
    }
    let (public, standing) = standing(state, number, &head, record.as_ref().ok(), frame)?;
    frame.scheme.verify(public, parts.line, &encoding::record_subject(frame.job, number), parts.signature)?;
    if head.format > FORMAT {
        return Err(Error::new(
            Kind::Unsupported,
            format!("record {number} has format {}, this drctl knows formats up to {FORMAT}", head.format),
        )
        .hint("install a newer drctl; this one will neither read nor prune here"));
    }
    let record = record.map_err(wrong)?;
    may_write(&standing, &record)?;
    Ok(Verified { record })
}

/// A record whose signature was checked when it was first read, and whose bytes a later record binds, which [`check_signature`] is asked of:
/// everything else is judged as by [`verify`].
pub fn vouched(state: &State, number: u64, record: Record, frame: Frame<'_>) -> Result<Verified> {
    let head = Envelope::of(&record);
    let (_, standing) = standing(state, number, &head, Some(&record), frame)?;
    if head.format > FORMAT {
        return Err(Error::corrupt("it is of a newer format"));
    }
    may_write(&standing, &record)?;
    Ok(Verified { record })
}

fn belongs(head: &Envelope, number: u64, frame: Frame<'_>) -> Result<()> {
    if head.repository != frame.repository || head.job != *frame.job || head.number != number {
        return Err(Error::corrupt("it belongs to another repository, job or number"));
    }
    Ok(())
}

/// The public key that a record must be signed with, and what it may do there.
fn standing<'a>(
    state: &State,
    number: u64,
    head: &Envelope,
    record: Option<&Record>,
    frame: Frame<'a>,
) -> Result<(&'a PublicKey, KeyStanding)> {
    belongs(head, number, frame)?;
    let (file, sha256) = frame.keys.get(&head.key).ok_or_else(|| Error::corrupt(format!("key file {} is not at hand", head.key)))?;
    if let Some(why) = keys::revoked(frame.keys, frame.job, head.key, number).filter(|_| frame.rules.revoked_everywhere) {
        return Err(Error::corrupt(why));
    }
    let standing = match state.keys.get(&head.key) {
        Some(standing) => standing.clone(),
        // A new key may bring itself, and those before it: the root key vouches for its file. Otherwise no log could go on whose keys are
        // all lost or revoked.
        None if state.takes_key(head.key) && record.is_some_and(introduces) => {
            KeyStanding { sha256: *sha256, roles: file.roles.clone(), since: number, revoked: None }
        }
        None => return Err(Error::corrupt(format!("key {} was never made valid in this log", head.key))),
    };
    if let Some(revoked) = standing.revoked {
        return Err(Error::corrupt(format!("key {} was revoked by record {revoked}", head.key)));
    }
    if *sha256 != standing.sha256 {
        return Err(Error::corrupt(format!("key file {} is not the one this log names", head.key)));
    }
    Ok((&file.public, standing))
}

fn may_write(standing: &KeyStanding, record: &Record) -> Result<()> {
    let needed = roles_for(&record.body);
    if !needed.is_empty() && !needed.iter().any(|role| standing.roles.contains(role)) {
        return Err(Error::corrupt(format!("key {} may not write a {} record", record.key, record.body.type_name())));
    }
    Ok(())
}

/// A `key-change` signed by the key it names or a later one. What it names is compared when it is applied.
fn introduces(record: &Record) -> bool {
    matches!(&record.body, Body::KeyChange { number, .. } if *number <= record.key)
}

impl State {
    /// The state of an empty log: the repository file before record 1, key 1 valid.
    pub fn new(repository_file: Sha256, first: &(KeyFile, Sha256)) -> State {
        let key = KeyStanding { sha256: first.1, roles: first.0.roles.clone(), since: 0, revoked: None };
        State {
            head: 0,
            head_sha256: repository_file,
            hashes: [(0, repository_file)].into(),
            newest_at: None,
            sets: BTreeMap::new(),
            by_id: BTreeMap::new(),
            keys: [(first.0.number, key)].into(),
            intents: BTreeMap::new(),
            doomed: BTreeMap::new(),
            closed: BTreeMap::new(),
            findings: Vec::new(),
            checkpoint: None,
        }
    }

    /// A number under which nothing stands though later ones do.
    pub fn apply_gap(&mut self, number: u64) {
        self.findings.push(Finding::Gap { number });
        self.advance(number, None);
    }

    /// The record under the next number does not verify: it takes the number and counts for nothing (rule 12).
    pub fn apply_unverified(&mut self, number: u64, sha256: Sha256, reason: String) {
        self.findings.push(Finding::Unverified { number, reason });
        self.advance(number, Some(sha256));
    }

    /// Applies a verified record. Returns whether it counts.
    pub fn apply(&mut self, verified: Verified, sha256: Sha256, frame: Frame<'_>) -> bool {
        let Record { number, previous, key, at, body, .. } = verified.record;
        if self.hashes.get(&(number - 1)).is_some_and(|before| *before != previous) {
            self.findings.push(Finding::BrokenLink { number });
        }
        let entered = Entered { number, sha256, key, at };
        let result = self.enter(entered, body, frame);
        self.advance(number, Some(sha256));
        if self.newest_at.is_none_or(|newest| newest < at) {
            self.newest_at = Some(at);
        }
        match result {
            Ok(()) => true,
            Err(reason) => {
                self.findings.push(Finding::Void { number, reason });
                false
            }
        }
    }

    fn advance(&mut self, number: u64, sha256: Option<Sha256>) {
        self.head = number;
        if let Some(sha256) = sha256 {
            self.hashes.insert(number, sha256);
            self.head_sha256 = sha256;
        }
    }

    fn enter(&mut self, entered: Entered, body: Body, frame: Frame<'_>) -> Result<(), String> {
        match body {
            Body::Commit { manifest } => self.enter_commit(entered, manifest, frame),
            Body::Proof { proof } => {
                let roles = self.keys.get(&entered.key).map(|k| k.roles.clone()).unwrap_or_default();
                let proof_set: Proof = proof;
                let set = proof_set.set.clone();
                self.on_set(&set, |e| e.proofs.push(StandingProof { number: entered.number, roles, proof: proof_set }))
            }
            Body::Pin { set, until, reason } => self.on_set(&set, |e| {
                if e.pin.as_ref().is_none_or(|pin| pin.until < until) {
                    e.pin = Some(Pin { number: entered.number, until, reason });
                }
            }),
            Body::Unpin { set } => self.on_set(&set, |e| e.pin = None),
            Body::Hold { set, hold, until } => self.on_set(&set, |e| {
                e.holds.insert(hold, until);
            }),
            Body::Release { set, hold } => self.on_set(&set, |e| {
                e.holds.remove(&hold);
            }),
            Body::CloseChain { chain, .. } => {
                self.own(&chain, frame)?;
                self.closed.entry(chain).or_insert(entered.number);
                Ok(())
            }
            Body::DeleteIntent { sets, reason } => self.enter_intent(entered.number, sets, reason, frame),
            Body::Deleted { intent } => match self.intents.get_mut(&intent) {
                Some(known) => {
                    known.deleted.get_or_insert(entered.number);
                    if !frame.rules.dead_is_dead {
                        // Rule 7 taken out: sets count until their objects are gone.
                        let sets: BTreeSet<SetId> = known.sets.iter().cloned().collect();
                        self.kill(intent, &sets);
                    }
                    Ok(())
                }
                None => Err(format!("record {intent} is no delete-intent")),
            },
            Body::KeyChange { number, sha256, revoked } => self.enter_key(entered.number, number, sha256, &revoked, frame),
            Body::Checkpoint { upto, state } => {
                if upto != entered.number || checkpoint::summary(self).ok().as_ref() != Some(&state) {
                    return Err("the checkpoint says something else than the records before it".into());
                }
                self.checkpoint = Some(entered.number);
                Ok(())
            }
        }
    }

    /// Runs `change` on a committed set. On a dead set nothing happens, and that is no finding: the appender lost a race.
    fn on_set(&mut self, set: &SetId, change: impl FnOnce(&mut SetEntry)) -> Result<(), String> {
        if self.doomed.contains_key(set) {
            return Ok(());
        }
        let number = self.by_id.get(set).ok_or_else(|| format!("there is no set {set}"))?;
        let entry = self.sets.get_mut(number).ok_or_else(|| format!("there is no set {set}"))?;
        if entry.intent.is_none() {
            change(entry);
        }
        Ok(())
    }

    fn own(&self, set: &SetId, frame: Frame<'_>) -> Result<(), String> {
        if set.job() == frame.job { Ok(()) } else { Err(format!("{set} is not a set of this job")) }
    }

    fn enter_commit(&mut self, entered: Entered, manifest: Box<Manifest>, frame: Frame<'_>) -> Result<(), String> {
        let set = &manifest.set;
        self.own(set, frame)?;
        if let Some(number) = self.by_id.get(set) {
            return Err(format!("{set} was committed by record {number} already"));
        }
        if let Some(intent) = self.doomed.get(set).filter(|_| frame.rules.dead_is_dead) {
            return Err(format!("the delete-intent {intent} names {set}"));
        }
        match set.kind() {
            SetKind::Full if manifest.chain != *set => {
                return Err(format!("the full set {set} says it is in the chain of {}", manifest.chain));
            }
            SetKind::Incremental
                if !self.get(&manifest.chain).is_some_and(|first| first.is_live() && first.id().kind() == SetKind::Full) =>
            {
                return Err(format!("{set} refers to the chain of {}, which does not exist", manifest.chain));
            }
            _ => {}
        }
        if let Some(object) = manifest.every_object().find(|o| o.file.is_empty() || o.file.contains('/')) {
            return Err(format!("{set} names an object '{}' outside its folder", object.file.escape_debug()));
        }
        if manifest.base >= entered.number {
            return Err(format!("{set} says it was begun at record {}", manifest.base));
        }
        self.by_id.insert(set.clone(), entered.number);
        let before = self.sets.last_key_value().map(|(_, entry)| &*entry.manifest);
        let entry = SetEntry {
            number: entered.number,
            key: entered.key,
            record_sha256: entered.sha256,
            at: entered.at,
            manifest: Arc::new(manifest.share_identities(before)),
            proofs: Vec::new(),
            pin: None,
            holds: BTreeMap::new(),
            intent: None,
        };
        self.sets.insert(entered.number, entry);
        Ok(())
    }

    fn enter_intent(&mut self, number: u64, sets: Vec<SetId>, reason: String, frame: Frame<'_>) -> Result<(), String> {
        if sets.is_empty() {
            return Err("the delete-intent names no set".into());
        }
        for set in &sets {
            self.own(set, frame)?;
        }
        if frame.rules.dead_is_dead {
            self.kill(number, &sets.iter().cloned().collect());
        }
        self.intents.insert(number, Intent { number, sets, reason, deleted: None });
        Ok(())
    }

    /// From the intent on these sets count for nothing.
    fn kill(&mut self, intent: u64, named: &BTreeSet<SetId>) {
        for entry in self.sets.values_mut() {
            // A chain without its full set cannot be read, so it is dead even where a careless intent did not name all of it.
            if named.contains(&entry.manifest.set) || named.contains(&entry.manifest.chain) {
                entry.intent.get_or_insert(intent);
                self.doomed.entry(entry.manifest.set.clone()).or_insert(intent);
                self.closed.entry(entry.manifest.chain.clone()).or_insert(intent);
            }
        }
        for set in named {
            self.doomed.entry(set.clone()).or_insert(intent);
        }
    }

    fn enter_key(&mut self, at: u64, number: u64, sha256: Sha256, revoked: &[u64], frame: Frame<'_>) -> Result<(), String> {
        let (file, file_sha256) = frame.keys.get(&number).ok_or_else(|| format!("key file {number} cannot be read or verified"))?;
        if *file_sha256 != sha256 {
            return Err(format!("key file {number} is not the one named"));
        }
        // Only upwards, so that a key once revoked cannot be brought back by naming its old file again.
        if !self.takes_key(number) {
            return Err(format!("key {number} is not newer than the keys this log knows"));
        }
        // What is revoked stands in the file that the root key signed; a stolen role key cannot revoke others.
        if file.revokes != revoked {
            return Err(format!("the key-change revokes other keys than key file {number} does"));
        }
        for old in revoked {
            if let Some(key) = self.keys.get_mut(old) {
                key.revoked.get_or_insert(at);
            }
        }
        self.keys.insert(number, KeyStanding { sha256, roles: file.roles.clone(), since: at, revoked: None });
        Ok(())
    }
}

/// Where a record stands.
#[derive(Clone, Copy)]
struct Entered {
    number: u64,
    sha256: Sha256,
    key: u64,
    at: Timestamp,
}
