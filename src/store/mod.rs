//! Where a repository's bytes lie: a flat space of keys with create-only writes.
//!
//! A store knows nothing of sets, records or secrets. Retry, fault injection and limits are stores that wrap a store.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};
use crate::model::Sha256;

pub mod absent;
pub mod counting;
pub mod faulty;
pub mod limit;
pub mod local;
pub mod memory;
pub mod probe;
pub mod profile;
pub mod retry;
pub mod s3;

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Length in bytes.
    pub bytes: u64,
    /// When it was created, by the store's clock.
    pub modified: Timestamp,
    /// SHA-256 of the stored bytes where the store itself keeps and vouches for one.
    pub sha256: Option<Sha256>,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// Length in bytes.
    pub bytes: u64,
    /// When it was created, by the store's clock.
    pub modified: Timestamp,
}

/// A flat space of keys. Keys are relative to the repository's root, use `/`, and consist of `[A-Za-z0-9._~/-]`; no part is
/// empty, `.` or `..`.
///
/// Errors carry [`Kind::NotFound`], [`Kind::Exists`], [`Kind::Denied`], [`Kind::Full`], [`Kind::Corrupt`] or
/// [`Kind::Unreachable`] where these fit. After [`Kind::Unreachable`] on a write or delete it is unknown whether it happened; after
/// [`Kind::OutcomeUnknown`] too, and trying again could not tell.
#[async_trait]
pub trait Store: Send + Sync {
    /// The place as people know it, without secrets: `/backup/drctl`, `s3://bucket/prefix`.
    fn location(&self) -> String;

    /// Creates `key` from a stream. Nothing is visible under `key` until the body's [`Piece::End`] came and all bytes before it
    /// are durable and have the length and hash that it names; a body that ends without it leaves nothing and gives an error.
    ///
    /// A taken key is [`Kind::Exists`], also when it holds the very same bytes: whoever retries compares (rule 1).
    async fn put(&self, key: &str, body: Body) -> Result<()>;

    /// Exactly the bytes `offset .. offset + length`; an object that ends sooner is [`Kind::Corrupt`].
    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes>;

    /// Size and date of one object; [`Kind::NotFound`] if there is none.
    async fn head(&self, key: &str) -> Result<Head>;

    /// Up to `limit` entries whose key starts with `prefix`, in byte order of their keys, those after `after` only.
    /// Fewer than `limit` means the end. A listing proves presence, never absence (FAULTS, incident 25).
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>>;

    /// Deletes one object; one that is not there is a success.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Now, by the store's clock.
    async fn server_date(&self) -> Result<Timestamp>;
}

/// A shared store of any sort.
pub type DynStore = Arc<dyn Store>;

/// One piece of a body on its way into a store.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Some bytes, at most a few MiB.
    Data(Bytes),
    /// The end: what the store must have received.
    End {
        /// Length of all data in bytes.
        bytes: u64,
        /// SHA-256 of all data.
        sha256: Sha256,
        /// CRC-64/NVME of all data, from who has it: always in a body of [`Body::summed_channel`].
        crc64_nvme: Option<u64>,
    },
}

/// Bytes on their way into a store. A channel that closes before [`Piece::End`] is an abort, never an end.
pub struct Body {
    pieces: mpsc::Receiver<Piece>,
    summed: bool,
}

/// The other end of a [`Body`].
#[derive(Clone)]
pub struct BodySender(mpsc::Sender<Piece>);

impl Body {
    /// A channel that holds at most `depth` pieces.
    pub fn channel(depth: usize) -> (BodySender, Body) {
        let (sender, pieces) = mpsc::channel(depth);
        (BodySender(sender), Body { pieces, summed: false })
    }

    /// The same, with the promise that the end tells the CRC-64: a store that computes one anyway need not hash the bytes as well.
    pub fn summed_channel(depth: usize) -> (BodySender, Body) {
        let (sender, body) = Body::channel(depth);
        (sender, Body { summed: true, ..body })
    }

    /// Whether its end tells the CRC-64.
    pub fn is_summed(&self) -> bool {
        self.summed
    }

    /// A body of bytes at hand.
    pub fn of(bytes: Bytes) -> Body {
        let (sender, body) = Body::channel(2);
        let end = Piece::End { bytes: bytes.len() as u64, sha256: Sha256::of(&bytes), crc64_nvme: None };
        // Both fit: the channel holds two.
        let _ = sender.0.try_send(Piece::Data(bytes));
        let _ = sender.0.try_send(end);
        body
    }

    /// The next piece; an abort is an error, after which the store must discard what it has.
    pub async fn next(&mut self) -> Result<Piece> {
        self.pieces.recv().await.ok_or_else(aborted)
    }

    /// Like [`Body::next`], for a store that works on a blocking thread.
    pub fn blocking_next(&mut self) -> Result<Piece> {
        self.pieces.blocking_recv().ok_or_else(aborted)
    }
}

/// A body whose end tells another length or hash than what came.
pub(crate) fn wrong_end(key: &str) -> Error {
    Error::corrupt(format!("{key}: the bytes that arrived are not the bytes that were sent"))
}

fn aborted() -> Error {
    Error::new(Kind::Failed, "the upload was given up before its end")
}

impl BodySender {
    /// Hands one piece over, waiting for room. An error means that the store has given up; its own error says why.
    pub async fn send(&self, piece: Piece) -> Result<()> {
        self.0.send(piece).await.map_err(|_| Error::failed("the store stopped taking bytes"))
    }

    /// Like [`BodySender::send`], for a blocking thread.
    pub fn blocking_send(&self, piece: Piece) -> Result<()> {
        self.0.blocking_send(piece).map_err(|_| Error::failed("the store stopped taking bytes"))
    }
}

/// What every store can do by its primitives.
pub mod whole {
    use super::*;

    /// Largest object that is read in one piece: records, key files, details; a hostile store cannot fill memory with more.
    pub const WHOLE_LIMIT: u64 = 64 << 20;

    /// Creates a small object.
    pub async fn create(store: &dyn Store, key: &str, bytes: Bytes) -> Result<()> {
        store.put(key, Body::of(bytes)).await
    }

    /// Reads a whole object of at most [`WHOLE_LIMIT`] bytes.
    pub async fn read(store: &dyn Store, key: &str) -> Result<Bytes> {
        let head = store.head(key).await?;
        if head.bytes > WHOLE_LIMIT {
            return Err(Error::corrupt(format!("{key} has {} bytes, more than anything of its sort may have", head.bytes)));
        }
        if head.bytes == 0 {
            return Ok(Bytes::new());
        }
        store.get_range(key, 0, head.bytes).await
    }

    /// Every entry under `prefix`, page after page.
    pub async fn list_all(store: &dyn Store, prefix: &str) -> Result<Vec<Entry>> {
        const PAGE: usize = 1000;
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map(|e| e.key.clone());
            let page = store.list(prefix, after.as_deref(), PAGE).await?;
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }
}

/// Refuses keys that no store may be asked for; every store calls it first.
pub fn check_key(key: &str) -> Result<()> {
    let good = !key.is_empty()
        && key.len() <= 900
        && key.bytes().all(|b| is_key_byte(b) || b == b'/')
        && key.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if good { Ok(()) } else { Err(Error::corrupt(format!("'{}' is not a key", key.escape_debug()))) }
}

/// Bytes that a part of a key may have.
fn is_key_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-')
}
