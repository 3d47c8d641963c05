//! A store in memory, for tests and the model run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::model::{Clock, Sha256, SystemClock};
use crate::store::{Body, Entry, Head, Piece, Store, check_key};

/// Keeps every object in a map; dates come from the clock it was given.
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, (Bytes, Timestamp)>>,
    clock: Arc<dyn Clock>,
    create_only: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl MemoryStore {
    /// An empty store whose dates come from `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        MemoryStore { objects: Mutex::default(), clock, create_only: true }
    }

    /// An empty store that creates a key again and again without a word, as one without conditional create does (FORMAT rule 13).
    pub fn overwriting() -> Self {
        MemoryStore { create_only: false, ..Self::default() }
    }

    fn objects(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Bytes, Timestamp)>> {
        self.objects.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Replaces or creates an object behind everyone's back, for damage tests.
    pub fn overwrite(&self, key: &str, bytes: Bytes) {
        let now = self.clock.now();
        self.objects().insert(key.to_owned(), (bytes, now));
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".into()
    }

    async fn put(&self, key: &str, mut body: Body) -> Result<()> {
        check_key(key)?;
        let mut data = BytesMut::new();
        loop {
            match body.next().await? {
                Piece::Data(bytes) => data.extend_from_slice(&bytes),
                Piece::End { bytes, sha256, .. } => {
                    if data.len() as u64 != bytes || Sha256::of(&data) != sha256 {
                        return Err(crate::store::wrong_end(key));
                    }
                    break;
                }
            }
        }
        let now = self.clock.now();
        match self.objects().entry(key.to_owned()) {
            std::collections::btree_map::Entry::Occupied(mut slot) if !self.create_only => {
                slot.insert((data.freeze(), now));
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(_) => Err(Error::new(Kind::Exists, format!("{key} exists already"))),
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert((data.freeze(), now));
                Ok(())
            }
        }
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        check_key(key)?;
        let objects = self.objects();
        let (bytes, _) = objects.get(key).ok_or_else(|| missing(key))?;
        let end = offset.checked_add(length).filter(|end| *end <= bytes.len() as u64);
        match end {
            Some(end) => Ok(bytes.slice(offset as usize..end as usize)),
            None => Err(Error::corrupt(format!("{key} has {} bytes, {offset}+{length} were asked for", bytes.len()))),
        }
    }

    async fn head(&self, key: &str) -> Result<Head> {
        check_key(key)?;
        let objects = self.objects();
        let (bytes, modified) = objects.get(key).ok_or_else(|| missing(key))?;
        Ok(Head { bytes: bytes.len() as u64, modified: *modified, sha256: None })
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        let objects = self.objects();
        let from = after.map_or(prefix, |a| a.max(prefix));
        Ok(objects
            .range(from.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|a| key.as_str() > a))
            .take(limit)
            .map(|(key, (bytes, modified))| Entry { key: key.clone(), bytes: bytes.len() as u64, modified: *modified })
            .collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        check_key(key)?;
        self.objects().remove(key);
        Ok(())
    }

    async fn server_date(&self) -> Result<Timestamp> {
        Ok(self.clock.now())
    }
}

fn missing(key: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no {key}"))
}
