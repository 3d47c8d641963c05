//! A local copy of record bytes that were verified once. It saves requests; everything in it is hashed again when read, and
//! nothing is deleted on its word.

use std::path::PathBuf;

use bytes::Bytes;

use crate::model::{JobName, Sha256};
use crate::store::whole::WHOLE_LIMIT;

/// A folder of record bytes. Deleting it costs time only.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// A cache below `folder`, which is made when something is first kept.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Cache { folder: folder.into() }
    }

    /// Record `number` as it was kept, hashed again; `None` when there is none or it is not what was kept.
    pub(crate) fn read(&self, repository: &str, job: &JobName, number: u64) -> Option<Bytes> {
        let path = self.path(repository, job, number);
        if std::fs::metadata(&path).ok()?.len() > WHOLE_LIMIT {
            return None;
        }
        let kept = std::fs::read(path).ok()?;
        let (sha256, bytes) = kept.split_at_checked(32)?;
        (Sha256::of(bytes).0 == sha256).then(|| Bytes::copy_from_slice(bytes))
    }

    /// Keeps a record that was verified. Failing costs time later, and nothing else: it is not told.
    pub(crate) fn keep(&self, repository: &str, job: &JobName, number: u64, bytes: &[u8]) {
        let path = self.path(repository, job, number);
        let mut kept = Sha256::of(bytes).0.to_vec();
        kept.extend_from_slice(bytes);
        let Some(folder) = path.parent() else { return };
        // Written beside and renamed, so that a reader never meets half of it; a crash leaves what the hash unmasks.
        let beside = folder.join(format!(".{number:010}.{}", std::process::id()));
        let written =
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&beside, &kept)).and_then(|()| std::fs::rename(&beside, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
    }

    fn path(&self, repository: &str, job: &JobName, number: u64) -> PathBuf {
        self.folder.join(repository).join(job.as_str()).join(format!("{number:010}"))
    }

    /// The folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}
