//! A writer's run: from its base to its commit, or to the proof that it came to nothing (rules 2 to 5 and 8).

use serde::{Deserialize, Serialize};

use crate::catalog::keys::all_in_one;
use crate::catalog::log::{JobLog, Sent};
use crate::catalog::rules::Rules;
use crate::catalog::state::{SetEntry, State};
use crate::error::{Error, Kind, Result};
use crate::model::record::Body;
use crate::model::{Manifest, SetId, SetKind, Sha256};

/// One run of one group, begun at a known head of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    set: SetId,
    chain: SetId,
    parent: Option<SetId>,
    group: String,
    base: u64,
}

/// A commit that is about to be sent, for the caller's journal: enough to settle it after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The set.
    pub set: SetId,
    /// The number its record was sent to.
    pub number: u64,
    /// SHA-256 of the record's bytes.
    pub sha256: Sha256,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The set exists.
    Committed {
        /// Number of its record.
        number: u64,
    },
    /// The set does not exist and never will; its objects may be deleted.
    Void {
        /// Why.
        reason: VoidReason,
    },
}

impl std::fmt::Display for VoidReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VoidReason::Doomed { intent } => write!(f, "a sweep took it for abandoned (record {intent})"),
            VoidReason::ChainMoved { number } => write!(f, "another run added to its chain meanwhile (record {number})"),
            VoidReason::ChainClosed { number } => write!(f, "its chain was closed meanwhile (record {number})"),
            VoidReason::NoValidKey => write!(f, "none of the signing keys at hand is valid any more"),
            VoidReason::Settled => write!(f, "its record was sent and never stood"),
        }
    }
}

/// Why a run came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoidReason {
    /// An intent names the set.
    Doomed {
        /// Number of the intent.
        intent: u64,
    },
    /// Another set joined the chain meanwhile.
    ChainMoved {
        /// Number of its commit.
        number: u64,
    },
    /// The chain takes no more sets.
    ChainClosed {
        /// Number of the record that closed it.
        number: u64,
    },
    /// None of the keys at hand is valid any more.
    NoValidKey,
    /// The record was sent and never stood.
    Settled,
}

/// What became of a commit whose outcome was unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It stands.
    Committed {
        /// Number of its record.
        number: u64,
    },
    /// It does not stand and never will.
    Void,
    /// Nothing holds its number yet: it may still arrive. The next record appended to the log settles it.
    Open,
}

impl JobLog {
    /// Begins a run: reads the log to its head, remembers that as the base, and makes a new set id.
    ///
    /// An incremental run joins the newest chain of the group; [`Kind::Preflight`] when there is none that takes more sets (make a
    /// full set instead).
    pub async fn begin_run(&mut self, kind: SetKind, group: &str) -> Result<Run> {
        self.refresh().await?;
        self.refuse_if_tampered(false)?;
        self.refuse_single_writer()?;
        self.introduce().await?;
        self.refuse_without_writer()?;
        let parent = match kind {
            SetKind::Full => None,
            SetKind::Incremental => Some(open_chain(&self.state, group).ok_or_else(|| {
                Error::new(
                    Kind::Preflight,
                    format!("job {} has no open chain in group {group} that an incremental set could join", self.job),
                )
                .hint("make a full set: drctl backup now --full")
            })?),
        };
        let env = self.repository.env();
        let set = loop {
            let set = SetId::new(self.job.clone(), env.clock.now(), kind, env.random.bits());
            if self.state.get(&set).is_none() && self.state.intent_for(&set).is_none() {
                break set;
            }
        };
        let chain = parent.map_or_else(|| set.clone(), |entry| entry.manifest.chain.clone());
        let parent = parent.map(|entry| entry.id().clone());
        Ok(Run { set, chain, parent, group: group.to_owned(), base: self.head() })
    }

    /// Rule 13, as far as it can be seen from here; the caller's `flock` keeps two processes of that host apart.
    fn refuse_single_writer(&self) -> Result<()> {
        if self.repository.single_writer().is_none() {
            return Ok(());
        }
        let sealed = |key: &u64| self.state.key(*key).is_some_and(|standing| standing.roles != all_in_one());
        match self.keys.iter().map(|key| key.number).find(sealed) {
            None => Ok(()),
            Some(number) => Err(Error::new(
                Kind::Preflight,
                format!("key {number} has not every role, but the repository is single-writer: its store has no conditional create"),
            )
            .hint("sealed roles need a store with conditional create; sign with a key that has every role: drctl config show")),
        }
    }

    /// Settles a commit whose outcome was unknown (rule 5), by reading the log again.
    pub async fn settle(&mut self, pending: &Pending) -> Result<Settled> {
        self.refresh().await?;
        Ok(match self.state.get(&pending.set) {
            Some(entry) => Settled::Committed { number: entry.number },
            None if self.head() >= pending.number => Settled::Void,
            None => Settled::Open,
        })
    }
}

/// The newest set of the newest chain of a group, when that chain takes more sets.
fn open_chain<'a>(state: &'a State, group: &str) -> Option<&'a SetEntry> {
    let first = state.live().rfind(|entry| entry.manifest.group == group && entry.id().kind() == SetKind::Full)?;
    if state.is_closed(first.id()) {
        return None;
    }
    state.chain(first.id()).next_back()
}

impl Run {
    /// The id of the set being made.
    pub fn set(&self) -> &SetId {
        &self.set
    }

    /// The full set its chain begins with; a full run's own.
    pub fn chain(&self) -> &SetId {
        &self.chain
    }

    /// The newest set of the chain, which an incremental run refers to; none for a full run.
    pub fn parent(&self) -> Option<&SetId> {
        self.parent.as_ref()
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The number of the log's record the run started from; goes into the manifest.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Commits the set: judges every record since the base, then creates the record, and again on every conflict.
    ///
    /// [`Kind::OutcomeUnknown`] when the store stopped answering after the record was sent, or when the record stands and could not be
    /// folded or does not count: nothing may be deleted then, and the next start settles it ([`JobLog::settle`]). Any other error: the
    /// set was not committed and will not be.
    ///
    /// `note` is called before each PUT with what is about to be sent; an error of it stops the run before the PUT.
    pub async fn commit<F>(self, log: &mut JobLog, manifest: Manifest, mut note: F) -> Result<Outcome>
    where
        F: FnMut(&Pending) -> Result<()> + Send,
    {
        self.check_manifest(&manifest)?;
        let what = format!("commit {}", self.set);
        log.refresh_keys().await.map_err(|e| e.context(what.clone()))?;
        log.refresh().await.map_err(|e| e.context(what.clone()))?;
        // Rule 2 taken out: what was read before the first conflict goes unjudged.
        let judged_from = if log.rules.judge_all { self.base } else { log.head() };
        let body = Body::Commit { manifest: Box::new(manifest) };
        loop {
            if let Some(entry) = log.state.get(&self.set).filter(|_| log.rules.same_bytes) {
                // A send whose record was misread as another's: the log tells.
                return Ok(Outcome::Committed { number: entry.number });
            }
            log.refuse_if_tampered(false)?;
            if let Some(reason) = self.judge(&log.state, judged_from, log.rules) {
                return Ok(Outcome::Void { reason });
            }
            let sealed = match log.seal(body.clone()) {
                Ok(sealed) => sealed,
                Err(e) if e.kind() == Kind::Denied => return Ok(Outcome::Void { reason: VoidReason::NoValidKey }),
                Err(e) => return Err(e.context(what)),
            };
            note(&Pending { set: self.set.clone(), number: sealed.number, sha256: sealed.sha256 })?;
            match log.send(&sealed).await {
                Ok(Sent::Stands) => {
                    // It stands; what goes wrong from here on must not be taken for a run that came to nothing.
                    log.take_own(&sealed).await.map_err(|e| e.with_kind(Kind::OutcomeUnknown).context(what.clone()))?;
                    // A key that was changed in the meantime may have revoked ours as of before this record (rule 18).
                    if let Err(error) = log.refresh_keys().await {
                        tracing::warn!("whether the key that signed {} was revoked meanwhile is not known: {error}", self.set);
                    }
                    let counts = log.state.get(&self.set).is_some_and(|entry| entry.number == sealed.number);
                    if !counts && log.key_for(&body).is_err() {
                        return Ok(Outcome::Void { reason: VoidReason::NoValidKey });
                    }
                    if !counts && log.rules == Rules::default() {
                        return Err(Error::new(
                            Kind::OutcomeUnknown,
                            format!("{what}: record {} stands and does not count", sealed.number),
                        )
                        .hint("nothing was deleted; drctl list shows which sets the log counts"));
                    }
                    return Ok(Outcome::Committed { number: sealed.number });
                }
                Ok(Sent::Taken) => {
                    log.refresh().await.map_err(|e| e.with_kind(Kind::OutcomeUnknown).context(what.clone()))?;
                }
                Ok(Sent::Blocked) => log.take_blocked(sealed.number),
                Err(_) if !log.rules.unknown_is_unknown => return Ok(Outcome::Void { reason: VoidReason::Settled }),
                Err(e) if e.kind() == Kind::OutcomeUnknown => {
                    return Err(e.context(what).hint("nothing was deleted; the next drctl backup settles it, drctl list shows it"));
                }
                Err(e) => return Err(e.context(what)),
            }
        }
    }

    fn check_manifest(&self, manifest: &Manifest) -> Result<()> {
        let same = manifest.set == self.set && manifest.chain == self.chain && manifest.group == self.group && manifest.base == self.base;
        if same { Ok(()) } else { Err(Error::failed(format!("commit {}: the manifest is of another run", self.set))) }
    }

    /// Why the set may not exist any more, by the records after `from` (rules 2, 3 and 8).
    fn judge(&self, state: &State, from: u64, rules: Rules) -> Option<VoidReason> {
        let since = |number: &u64| *number > from || rules.judge_all;
        if let Some(intent) = state.intent_for(&self.set).filter(since)
            && rules.intent_voids
        {
            return Some(VoidReason::Doomed { intent });
        }
        if self.set.kind() == SetKind::Full || !rules.chain_moves {
            return None;
        }
        if let Some(number) = state.closed_by(&self.chain).filter(since) {
            return Some(VoidReason::ChainClosed { number });
        }
        let moved = state.chain(&self.chain).map(|entry| entry.number).find(|number| *number > from);
        moved.map(|number| VoidReason::ChainMoved { number })
    }
}
