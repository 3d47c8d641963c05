//! Byte copies of a job's log in the other stores of the repository (rule 11): in order, lagging at most, never leading.

use crate::catalog::keys::KeyFile;
use crate::catalog::log::{Found, JobLog, fetch, record_key};
use crate::catalog::repository::REPOSITORY_KEY;
use crate::error::{Error, Kind, Result};
use crate::store::{Store, whole};

impl JobLog {
    /// Copies the repository's own files and every record up to the head to `copy`, in order, and returns how many records were
    /// new there. Stops at the first record that `copy` holds with other bytes: [`Kind::Corrupt`].
    pub async fn copy_to(&mut self, copy: &dyn Store) -> Result<u64> {
        self.refresh().await?;
        let place = copy.location();
        let store = self.repository().store().clone();
        let mut files = vec![REPOSITORY_KEY.to_owned()];
        files.extend(self.book.keys().map(|number| KeyFile::key(*number)));
        for key in files {
            place_copy(copy, &key, whole::read(&*store, &key).await?).await.map_err(|e| e.context(format!("copy {key} to {place}")))?;
        }
        let mut copied = 0;
        for number in 1..=self.head() {
            let key = record_key(self.job(), number);
            let Found::Bytes(bytes) = fetch(self.repository(), self.job(), number).await? else {
                return Err(Error::corrupt(format!("copy {key} to {place}: it cannot be read in {}", self.repository().location())));
            };
            copied += u64::from(place_copy(copy, &key, bytes).await.map_err(|e| e.context(format!("copy {key} to {place}")))?);
        }
        Ok(copied)
    }

    /// Whether `copy` holds the record under `number` as this log does: objects of a copy may be deleted only when their intent
    /// stands there.
    pub async fn stands_in(&self, copy: &dyn Store, number: u64) -> Result<bool> {
        match whole::read(copy, &record_key(self.job(), number)).await {
            Ok(bytes) => Ok(self.state().hash_of(number) == Some(crate::model::Sha256::of(&bytes))),
            Err(e) if e.kind() == Kind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Creates `key`, or finds the same bytes there. Says whether it was new.
async fn place_copy(copy: &dyn Store, key: &str, bytes: bytes::Bytes) -> Result<bool> {
    match whole::create(copy, key, bytes.clone()).await {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == Kind::Exists => {
            if whole::read(copy, key).await? == bytes {
                Ok(false)
            } else {
                Err(Error::corrupt("the copy holds other bytes")
                    .hint("is this store the copy of another repository? drctl config show says where the stores lie"))
            }
        }
        Err(e) => Err(e),
    }
}
