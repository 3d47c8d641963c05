//! **Test equipment**: a store that throws large objects away, but checks and counts them; for soak runs larger than any disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::model::Sha256;
use crate::store::{Body, Entry, Head, Piece, Store, check_key};

/// Keeps the bytes of small objects (records, keys, details), and of larger ones only length, hash and date.
pub struct CountingStore {
    keep_bytes: usize,
    objects: Mutex<BTreeMap<String, Counted>>,
}

struct Counted {
    head: Head,
    bytes: Option<Bytes>,
}

impl CountingStore {
    /// A store that can give back objects of up to `keep_bytes`.
    pub fn new(keep_bytes: usize) -> Self {
        CountingStore { keep_bytes, objects: Mutex::default() }
    }

    /// Key and length of every object, in the order of keys.
    pub fn objects(&self) -> Vec<(String, u64)> {
        self.map().iter().map(|(key, o)| (key.clone(), o.head.bytes)).collect()
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Counted>> {
        self.objects.lock().unwrap_or_else(|p| p.into_inner())
    }
}

#[async_trait]
impl Store for CountingStore {
    fn location(&self) -> String {
        "counting".into()
    }

    async fn put(&self, key: &str, mut body: Body) -> Result<()> {
        check_key(key)?;
        let mut hasher = Sha256::hasher();
        let mut kept = Some(BytesMut::new());
        let mut length = 0u64;
        let sha256 = loop {
            match body.next().await? {
                Piece::Data(data) => {
                    hasher.update(&data);
                    length += data.len() as u64;
                    kept = kept.filter(|k| k.len() + data.len() <= self.keep_bytes);
                    if let Some(kept) = &mut kept {
                        kept.extend_from_slice(&data);
                    }
                }
                Piece::End { bytes, sha256, .. } if bytes == length && hasher.clone().finish() == sha256 => break sha256,
                Piece::End { .. } => {
                    return Err(crate::store::wrong_end(key));
                }
            }
        };
        match self.map().entry(key.to_owned()) {
            std::collections::btree_map::Entry::Occupied(_) => Err(Error::new(Kind::Exists, format!("{key} exists already"))),
            std::collections::btree_map::Entry::Vacant(slot) => {
                let head = Head { bytes: length, modified: Timestamp::now(), sha256: Some(sha256) };
                slot.insert(Counted { head, bytes: kept.map(BytesMut::freeze) });
                Ok(())
            }
        }
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        check_key(key)?;
        let objects = self.map();
        let object = objects.get(key).ok_or_else(|| missing(key))?;
        let end = offset.checked_add(length).filter(|end| *end <= object.head.bytes);
        let Some(end) = end else {
            return Err(Error::corrupt(format!("{key} has {} bytes, {offset}+{length} were asked for", object.head.bytes)));
        };
        match &object.bytes {
            Some(bytes) => Ok(bytes.slice(offset as usize..end as usize)),
            None => Err(Error::new(Kind::Unsupported, format!("{key} was counted and thrown away"))),
        }
    }

    async fn head(&self, key: &str) -> Result<Head> {
        check_key(key)?;
        self.map().get(key).map(|o| o.head.clone()).ok_or_else(|| missing(key))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        let objects = self.map();
        let from = after.map_or(prefix, |a| a.max(prefix)).to_owned();
        let entries = objects.range(from..).take_while(|(key, _)| key.starts_with(prefix));
        let entries = entries.filter(|(key, _)| after.is_none_or(|a| key.as_str() > a)).take(limit);
        Ok(entries.map(|(key, o)| Entry { key: key.clone(), bytes: o.head.bytes, modified: o.head.modified }).collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        check_key(key)?;
        self.map().remove(key);
        Ok(())
    }

    async fn server_date(&self) -> Result<Timestamp> {
        Ok(Timestamp::now())
    }
}

fn missing(key: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no {key}"))
}
