//! Byte copies of a job's log in the other stores of the repository (rule 11): in order, lagging at most, never leading.
//!
//! The first store holds the log; what a copy holds is read only by whoever reads from the copy. Nothing here writes to the first store.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::catalog::env::Env;
use crate::catalog::log::{FAR, Found, JobLog, bound_sha256, fetch, number_of, record_key};
use crate::catalog::repository::{Repository, Trust};
use crate::catalog::state::Finding;
use crate::error::{Error, Kind, Result};
use crate::model::Sha256;
use crate::pipeline::split::Sink;
use crate::store::{Body, DynStore, Piece, Store, whole};

/// Pieces in which a record longer than any may be is copied.
const STEP: u64 = 1 << 20;

impl JobLog {
    /// The same log, with the repository's further stores: deleting reaches them too.
    pub fn with_copies(mut self, copies: Vec<Sink>) -> JobLog {
        self.copies = copies;
        self
    }

    /// Copies the repository's own files and every record up to the head that is not there yet to `copy`, in order, and returns how many
    /// records were new there. [`Kind::Corrupt`] when `copy` holds other bytes under a key: it is the copy of another repository, or damaged.
    pub async fn copy_to(&mut self, copy: &DynStore) -> Result<u64> {
        self.refresh().await?;
        let place = copy.location();
        let store = self.repository().store().clone();
        for key in self.repository.own_files().await? {
            place_copy(copy, &key, whole::read(&*store, &key).await?).await.map_err(|e| e.context(format!("copy {key} to {place}")))?;
        }
        let standing = self.standing_in(copy).await?;
        if let Some(newest) = standing.range(..=self.head()).next_back()
            && !self.stands_in(copy, *newest).await?
        {
            let key = record_key(self.job(), *newest);
            return Err(other_bytes().context(format!("copy {key} to {place}")));
        }
        let mut missing: Vec<u64> = (1..=self.head()).filter(|number| !standing.contains(number)).collect();
        if !self.rules.copy_in_order {
            missing.reverse();
        }
        let mut copied = 0;
        for number in missing {
            let key = record_key(self.job(), number);
            let placed = match fetch(self.repository(), self.job(), number).await? {
                Found::Bytes(bytes) => place_copy(copy, &key, bytes).await,
                Found::TooLong(sha256) => place_long(&*store, copy, &key, sha256).await,
                Found::Nothing => Err(Error::corrupt(format!("it cannot be read in {}", self.repository().location()))),
            };
            copied += u64::from(placed.map_err(|e| e.context(format!("copy {key} to {place}")))?);
        }
        Ok(copied)
    }

    /// Whether `copy` holds the record under `number` as this log does: objects of a copy may be deleted only when their intent
    /// stands there.
    pub async fn stands_in(&self, copy: &DynStore, number: u64) -> Result<bool> {
        let there = match bound_sha256(&**copy, &record_key(self.job(), number)).await? {
            Some(sha256) => sha256,
            None => return Ok(false),
        };
        let here = match self.state().hash_of(number) {
            Some(sha256) => Some(sha256),
            // A log that was opened at a checkpoint has not read what lies before.
            None => match fetch(self.repository(), self.job(), number).await? {
                Found::Bytes(bytes) => Some(Sha256::of(&bytes)),
                Found::TooLong(sha256) => Some(sha256),
                Found::Nothing => None,
            },
        };
        Ok(here == Some(there))
    }

    /// How many records of this log, as far as it was read, do not stand in `copy`. By a listing, which may lag.
    pub async fn behind(&self, copy: &DynStore) -> Result<u64> {
        let standing = self.standing_in(copy).await?;
        Ok(self.head().saturating_sub(standing.range(..=self.head()).count() as u64))
    }

    /// The number of a record that verifies in `copy` and lies beyond this log's head: the first store has lost it, for a copy never
    /// leads. Whoever appended now would make two histories. Call it after [`JobLog::refresh`].
    pub async fn led_by(&self, copy: &DynStore) -> Result<Option<u64>> {
        let beyond = self.standing_in(copy).await?.range(self.head() + 1..).next().copied();
        let Some(beyond) = beyond else { return Ok(None) };
        let trust = Trust::Known { id: self.repository().id().to_owned(), root: self.repository().root().clone() };
        let env = Env { high_water: None, cache: None, ..self.repository().env().clone() };
        let there = Repository::open_with(copy.clone(), env, &trust, self.repository.inner.scheme.clone()).await?;
        let there = JobLog::open_with(&there, self.job(), Vec::new(), self.rules).await?;
        let counts = |number: &u64| {
            let tells = |f: &Finding| f.number() == Some(*number) && matches!(f, Finding::Unverified { .. } | Finding::Gap { .. });
            !there.state().findings().iter().any(tells)
        };
        Ok((beyond..=there.head()).find(counts))
    }

    /// Numbers of this log's records that a listing of `copy` shows, up to what could be part of the log.
    async fn standing_in(&self, copy: &DynStore) -> Result<BTreeSet<u64>> {
        let far = self.head().saturating_add(FAR);
        let listed = whole::list_all(&**copy, &format!("jobs/{}/log/", self.job())).await;
        let listed = listed.map_err(|e| e.context(format!("list the copy of the log in {}", copy.location())))?;
        Ok(listed.iter().filter_map(|entry| number_of(&entry.key, self.job())).filter(|number| *number <= far).collect())
    }
}

/// SHA-256 of an object of any length; `None` when there is none.
async fn sha256_of(store: &dyn Store, key: &str) -> Result<Option<Sha256>> {
    let bytes = match store.head(key).await {
        Ok(head) => head.bytes,
        Err(e) if e.kind() == Kind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut hasher = Sha256::hasher();
    let mut offset = 0;
    while offset < bytes {
        let length = STEP.min(bytes - offset);
        hasher.update(&store.get_range(key, offset, length).await?);
        offset += length;
    }
    Ok(Some(hasher.finish()))
}

/// Creates `key`, or finds the same bytes there. Says whether it was new. It looks first, for a store without conditional create would
/// overwrite what stands there.
async fn place_copy(copy: &DynStore, key: &str, bytes: Bytes) -> Result<bool> {
    match sha256_of(&**copy, key).await? {
        Some(sha256) if sha256 == Sha256::of(&bytes) => return Ok(false),
        Some(_) => return Err(other_bytes()),
        None => {}
    }
    match whole::create(&**copy, key, bytes.clone()).await {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == Kind::Exists => {
            if whole::read(&**copy, key).await? == bytes {
                Ok(false)
            } else {
                Err(other_bytes())
            }
        }
        Err(e) => Err(e),
    }
}

/// Copies what stands under a record's number and is longer than any record: it takes its number there too (rule 12).
async fn place_long(first: &dyn Store, copy: &DynStore, key: &str, sha256: Sha256) -> Result<bool> {
    match bound_sha256(&**copy, key).await? {
        Some(there) if there == sha256 => return Ok(false),
        Some(_) => return Err(other_bytes()),
        None => {}
    }
    let bytes = first.head(key).await?.bytes;
    let (sender, body) = Body::channel(2);
    let feed = async move {
        let mut hasher = Sha256::hasher();
        let mut offset = 0;
        while offset < bytes {
            let length = STEP.min(bytes - offset);
            let piece = first.get_range(key, offset, length).await?;
            hasher.update(&piece);
            sender.send(Piece::Data(piece)).await?;
            offset += length;
        }
        sender.send(Piece::End { bytes, sha256: hasher.finish(), crc64_nvme: None }).await
    };
    let (stored, fed) = tokio::join!(copy.put(key, body), feed);
    stored.map_err(|e| fed.err().map_or(e, |fed| fed)).map(|()| true)
}

fn other_bytes() -> Error {
    Error::corrupt("the copy holds other bytes")
        .hint("is this store the copy of another repository? drctl config show says where the stores lie")
}
