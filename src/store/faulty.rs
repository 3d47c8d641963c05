//! **Test equipment**: a store that fails by script. No configuration leads here; integration tests build it.
//!
//! A script is a list of [`Rule`]s by operation, key pattern and n-th call. The first rule that fits a call is applied; a call that no rule fits
//! goes through untouched. What was called is kept for tests to look at.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::model::Sha256;
use crate::store::{Body, DynStore, Entry, Head, Piece, Store};

/// An operation of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Store::put`]
    Put,
    /// [`Store::get_range`]
    Get,
    /// [`Store::head`]
    Head,
    /// [`Store::list`]; its key is the prefix.
    List,
    /// [`Store::delete`]
    Delete,
    /// [`Store::server_date`]; its key is empty.
    Date,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Does nothing and gives an error of this kind.
    Fail(Kind),
    /// Does it, and gives an error of this kind: the answer is lost. (A get, head, list or date only fails.)
    LoseAnswer(Kind),
    /// Waits, then does it.
    Stall(Duration),
    /// Never answers and does nothing.
    Hang,
    /// Does it, and answers later.
    AnswerLate(Duration),
    /// put: takes so many bytes, then fails with this kind. Others: like [`Fault::Fail`].
    FailAfterBytes(u64, Kind),
    /// put: keeps only so many bytes and reports success. get: answers with only so many bytes. head: tells this length. list: leaves out what
    /// comes after so many entries. delete: reports success and does nothing.
    Truncate(u64),
    /// put: stores this bit (counted from the first byte's lowest) turned over and reports success. get: turns it over in the answer.
    FlipBit(u64),
}

/// When a rule holds, counted over the calls that fit its operation and pattern, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// This call only.
    Call(u64),
    /// The first so many calls.
    First(u64),
    /// This call and all after it.
    From(u64),
    /// Every call.
    Always,
}

/// One line of the script.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The operation; none is any.
    pub operation: Option<Operation>,
    /// The key, with `*` for any run of bytes, `/` too.
    pub pattern: String,
    /// Which of the fitting calls.
    pub when: When,
    /// What goes wrong.
    pub fault: Fault,
}

/// Wraps a store and spoils what its script says.
pub struct FaultyStore {
    inner: DynStore,
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    rules: Vec<(Rule, u64)>,
    calls: Vec<(Operation, String)>,
}

impl FaultyStore {
    /// A store that does exactly what `inner` does, until rules are added.
    pub fn new(inner: DynStore) -> Self {
        FaultyStore { inner, script: Mutex::default() }
    }

    /// Adds a rule behind those that are there.
    pub fn rule(&self, operation: impl Into<Option<Operation>>, pattern: &str, when: When, fault: Fault) {
        self.script().rules.push((Rule { operation: operation.into(), pattern: pattern.to_owned(), when, fault }, 0));
    }

    /// Forgets all rules; the store is sound again.
    pub fn clear(&self) {
        self.script().rules.clear();
    }

    /// Every call so far, in the order in which they began.
    pub fn calls(&self) -> Vec<(Operation, String)> {
        self.script().calls.clone()
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Notes a call and says what shall go wrong with it. Every rule counts the calls that fit it, whichever is applied.
    fn next(&self, operation: Operation, key: &str) -> Option<Fault> {
        let mut script = self.script();
        script.calls.push((operation, key.to_owned()));
        let mut fault = None;
        for (rule, count) in &mut script.rules {
            if rule.operation.is_some_and(|o| o != operation) || !matches(&rule.pattern, key) {
                continue;
            }
            *count += 1;
            let holds = match rule.when {
                When::Call(n) => *count == n,
                When::First(n) => *count <= n,
                When::From(n) => *count >= n,
                When::Always => true,
            };
            if holds && fault.is_none() {
                fault = Some(rule.fault.clone());
            }
        }
        fault
    }

    /// What a fault does before the store is asked; the kind to fail with afterwards, if the answer is to be lost.
    async fn before(&self, fault: &Option<Fault>, operation: Operation, key: &str) -> Result<()> {
        match fault {
            Some(Fault::Fail(kind)) => Err(injected(*kind, operation, key)),
            Some(Fault::Stall(pause)) => {
                tokio::time::sleep(*pause).await;
                Ok(())
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::FailAfterBytes(_, kind)) if operation != Operation::Put => Err(injected(*kind, operation, key)),
            _ => Ok(()),
        }
    }

    async fn after(&self, fault: &Option<Fault>, operation: Operation, key: &str) -> Result<()> {
        match fault {
            Some(Fault::LoseAnswer(kind)) => Err(injected(*kind, operation, key)),
            Some(Fault::AnswerLate(pause)) => {
                tokio::time::sleep(*pause).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Stores something else than what was sent, and is told the length and hash of that.
    async fn put_spoilt(&self, key: &str, body: Body, fault: &Fault) -> Result<()> {
        let (sender, spoilt) = Body::channel(2);
        let feed = spoil(body, sender, fault.clone(), key.to_owned());
        let (stored, fed) = tokio::join!(self.inner.put(key, spoilt), feed);
        match (stored, fed) {
            // The store says only that its body was cut; why is what counts.
            (Err(_), Err(why)) => Err(why),
            (stored, _) => stored,
        }
    }
}

async fn spoil(mut body: Body, sender: crate::store::BodySender, fault: Fault, key: String) -> Result<()> {
    let mut hasher = Sha256::hasher();
    let (mut seen, mut kept) = (0u64, 0u64);
    loop {
        let bytes = match body.next().await? {
            Piece::Data(bytes) => bytes,
            Piece::End { .. } => return sender.send(Piece::End { bytes: kept, sha256: hasher.finish(), crc64_nvme: None }).await,
        };
        let here = seen;
        seen += bytes.len() as u64;
        let bytes = match fault {
            Fault::FailAfterBytes(limit, kind) if seen > limit => return Err(injected(kind, Operation::Put, &key)),
            Fault::Truncate(limit) => bytes.slice(..bytes.len().min(usize::try_from(limit.saturating_sub(here)).unwrap_or(usize::MAX))),
            Fault::FlipBit(bit) => flipped(bytes, bit, here),
            _ => bytes,
        };
        hasher.update(&bytes);
        kept += bytes.len() as u64;
        if !bytes.is_empty() {
            sender.send(Piece::Data(bytes)).await?;
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &str, body: Body) -> Result<()> {
        let fault = self.next(Operation::Put, key);
        self.before(&fault, Operation::Put, key).await?;
        match &fault {
            Some(f @ (Fault::FailAfterBytes(..) | Fault::Truncate(_) | Fault::FlipBit(_))) => self.put_spoilt(key, body, f).await?,
            _ => self.inner.put(key, body).await?,
        }
        self.after(&fault, Operation::Put, key).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        let fault = self.next(Operation::Get, key);
        self.before(&fault, Operation::Get, key).await?;
        let bytes = self.inner.get_range(key, offset, length).await?;
        self.after(&fault, Operation::Get, key).await?;
        Ok(match fault {
            Some(Fault::Truncate(limit)) => bytes.slice(..bytes.len().min(usize::try_from(limit).unwrap_or(usize::MAX))),
            Some(Fault::FlipBit(bit)) => flipped(bytes, bit, 0),
            _ => bytes,
        })
    }

    async fn head(&self, key: &str) -> Result<Head> {
        let fault = self.next(Operation::Head, key);
        self.before(&fault, Operation::Head, key).await?;
        let head = self.inner.head(key).await?;
        self.after(&fault, Operation::Head, key).await?;
        Ok(match fault {
            Some(Fault::Truncate(bytes)) => Head { bytes, sha256: None, ..head },
            _ => head,
        })
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        let fault = self.next(Operation::List, prefix);
        self.before(&fault, Operation::List, prefix).await?;
        let mut entries = self.inner.list(prefix, after, limit).await?;
        self.after(&fault, Operation::List, prefix).await?;
        if let Some(Fault::Truncate(keep)) = fault {
            entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        }
        Ok(entries)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let fault = self.next(Operation::Delete, key);
        self.before(&fault, Operation::Delete, key).await?;
        if !matches!(fault, Some(Fault::Truncate(_))) {
            self.inner.delete(key).await?;
        }
        self.after(&fault, Operation::Delete, key).await
    }

    async fn server_date(&self) -> Result<Timestamp> {
        let fault = self.next(Operation::Date, "");
        self.before(&fault, Operation::Date, "").await?;
        let date = self.inner.server_date().await?;
        self.after(&fault, Operation::Date, "").await?;
        Ok(date)
    }
}

fn injected(kind: Kind, operation: Operation, key: &str) -> Error {
    Error::new(kind, format!("injected fault: {operation:?} {key}"))
}

/// `bytes`, which begin at `start` of the whole, with bit `bit` of the whole turned over if it lies in them.
fn flipped(bytes: Bytes, bit: u64, start: u64) -> Bytes {
    let place = (bit / 8).checked_sub(start).and_then(|p| usize::try_from(p).ok()).filter(|p| *p < bytes.len());
    let Some(place) = place else { return bytes };
    let mut changed = BytesMut::from(&bytes[..]);
    changed[place] ^= 1 << (bit % 8);
    changed.freeze()
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of bytes.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    (0..=rest.len()).any(|i| rest.is_char_boundary(i) && matches(tail, &rest[i..]))
}
