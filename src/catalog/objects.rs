//! Whether a set's objects are in a store as its manifest says (FAULTS 73, 74). The manifest binds name, size and hash of each.

use std::fmt;

use crate::error::{Kind, Result};
use crate::model::{Manifest, Object, Sha256};
use crate::store::Store;

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Each object is there with the right length, and with the right hash where the store vouches for one.
    Present,
    /// Each object is read and hashed.
    Hashed,
}

/// One object that is not as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The object's whole key.
    pub key: String,
    /// What is wrong with it.
    pub what: Wrong,
}

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is not there.
    Missing,
    /// It has another length.
    Length {
        /// By the manifest.
        expected: u64,
        /// In the store.
        found: u64,
    },
    /// It has the length, and other bytes.
    Hash {
        /// By the manifest.
        expected: Sha256,
        /// Of the bytes in the store.
        found: Sha256,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match self.what {
            Wrong::Missing => write!(f, "{key} is missing"),
            Wrong::Length { expected, found } => write!(f, "{key} has {found} bytes, {expected} were stored"),
            Wrong::Hash { expected, found } => write!(f, "{key} has other bytes than were stored: SHA-256 {found}, {expected} was stored"),
        }
    }
}

/// Looks at every object of the set in one store. An error means that the store did not answer, and says nothing of the set.
pub async fn check(store: &dyn Store, manifest: &Manifest, depth: Depth) -> Result<Vec<Damage>> {
    let prefix = manifest.set.prefix();
    let mut damage = Vec::new();
    for object in manifest.every_object() {
        let key = format!("{prefix}{}", object.file);
        if let Some(what) = check_one(store, &key, object, depth).await.map_err(|e| e.context(format!("check {key}")))? {
            damage.push(Damage { key, what });
        }
    }
    Ok(damage)
}

async fn check_one(store: &dyn Store, key: &str, object: &Object, depth: Depth) -> Result<Option<Wrong>> {
    /// Bytes read at once.
    const STEP: u64 = 4 << 20;
    let (expected, length) = (object.stored_sha256, object.stored_bytes);
    let head = match store.head(key).await {
        Ok(head) => head,
        Err(e) if e.kind() == Kind::NotFound => return Ok(Some(Wrong::Missing)),
        Err(e) => return Err(e),
    };
    if head.bytes != length {
        return Ok(Some(Wrong::Length { expected: length, found: head.bytes }));
    }
    let found = match (depth, head.sha256) {
        (Depth::Present, None) => return Ok(None),
        (Depth::Present, Some(found)) => found,
        (Depth::Hashed, _) => {
            let mut hasher = Sha256::hasher();
            let mut offset = 0;
            while offset < length {
                let step = STEP.min(length - offset);
                hasher.update(&store.get_range(key, offset, step).await?);
                offset += step;
            }
            hasher.finish()
        }
    };
    Ok((found != expected).then_some(Wrong::Hash { expected, found }))
}
