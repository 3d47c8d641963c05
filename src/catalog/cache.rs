//! A local copy of what was read of a log once. It saves requests; everything in it is hashed again when read, and
//! nothing is deleted on its word.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;

use crate::catalog::encoding;
use crate::model::record::Record;
use crate::model::{JobName, Sha256};
use crate::store::whole::WHOLE_LIMIT;

/// Records read by one task, and tasks at once: parsing is what takes the time.
const AT_ONCE: u64 = 64;
const TASKS: u64 = 4;

/// What stood under a number, as it was kept.
pub(crate) enum Kept {
    /// A record that was verified.
    Record {
        /// What its bytes say.
        record: Box<Record>,
        /// Its bytes.
        bytes: Bytes,
        /// Their SHA-256.
        sha256: Sha256,
    },
    /// Something that did not verify.
    Nonsense {
        /// Its bytes.
        bytes: Bytes,
        /// Their SHA-256.
        sha256: Sha256,
    },
    /// Something that is not read: what is bound in its place, and why it counts for nothing.
    Taken {
        /// Bound in the place of its SHA-256.
        sha256: Sha256,
        /// Why.
        reason: String,
    },
    /// Nothing, and a person has seen that.
    Gap,
}

/// The file of hashes of what nobody signed, and how long it may get.
const JUNK: &str = "junk";
const MOST_JUNK: u64 = 32 << 16;

/// What stands before bytes that did not verify, in the place of their SHA-256.
fn unverified(bytes: &[u8]) -> Sha256 {
    let mut hasher = Sha256::hasher();
    hasher.update(b"drctl-unverified-0\n");
    hasher.update(bytes);
    hasher.finish()
}

/// Stands for a number without a record.
const GAP: &[u8] = b"drctl-gap-0";

/// Begins what stands for a number under which something lies that is not read; 32 bytes and the reason follow.
const TAKEN: &[u8] = b"drctl-taken-0\n";

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

    /// The records from `from` on as they were kept, hashed again, up to the first that is missing or not what was kept; not all of them at
    /// once.
    pub(crate) async fn read_chunk(&self, repository: &str, job: &JobName, from: u64) -> Vec<Kept> {
        let read = |task: u64| {
            let (cache, repository, job) = (self.clone(), repository.to_owned(), job.clone());
            let first = from + task * AT_ONCE;
            let run = move || (first..first + AT_ONCE).map_while(|number| cache.read(&repository, &job, number)).collect::<Vec<_>>();
            tokio::task::spawn_blocking(run)
        };
        let mut all = Vec::new();
        for (task, read) in (0..TASKS).map(read).enumerate().collect::<Vec<_>>() {
            // A gap: what comes after it is of no use.
            let whole = all.len() as u64 == task as u64 * AT_ONCE;
            if let (Ok(kept), true) = (read.await, whole) {
                all.extend(kept);
            }
        }
        all
    }

    fn read(&self, repository: &str, job: &JobName, number: u64) -> Option<Kept> {
        let path = self.path(repository, job, number);
        let mut file = std::fs::File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        if length > WHOLE_LIMIT {
            return None;
        }
        let mut kept = Vec::with_capacity(length as usize);
        std::io::Read::read_to_end(&mut file, &mut kept).ok()?;
        let bytes = Bytes::from(kept);
        if bytes == GAP {
            return Some(Kept::Gap);
        }
        if let Some((sha256, reason)) = bytes.strip_prefix(TAKEN).and_then(|rest| rest.split_first_chunk::<32>()) {
            return Some(Kept::Taken { sha256: Sha256(*sha256), reason: String::from_utf8_lossy(reason).into_owned() });
        }
        let sha256 = Sha256::of(bytes.get(32..)?);
        let (mark, bytes) = (bytes.slice(..32), bytes.slice(32..));
        if mark[..] == unverified(&bytes).0 {
            return Some(Kept::Nonsense { bytes, sha256 });
        }
        if mark[..] != sha256.0 {
            return None;
        }
        let record = Box::new(serde_json::from_str(encoding::split(&bytes).ok()?.json().ok()?).ok()?);
        Some(Kept::Record { record, bytes, sha256 })
    }

    /// Keeps a record that was verified. Failing costs time later, and nothing else: it is not told.
    pub(crate) fn keep(&self, repository: &str, job: &JobName, number: u64, bytes: &[u8]) {
        let mut kept = Sha256::of(bytes).0.to_vec();
        kept.extend_from_slice(bytes);
        self.write(repository, job, number, &kept);
    }

    /// Keeps what does not verify, whatever its shape: it is judged anew when it is read.
    pub(crate) fn keep_unverified(&self, repository: &str, job: &JobName, number: u64, bytes: &[u8]) {
        let mut kept = unverified(bytes).0.to_vec();
        kept.extend_from_slice(bytes);
        self.write(repository, job, number, &kept);
    }

    /// Keeps that something takes a number which is not read.
    pub(crate) fn keep_taken(&self, repository: &str, job: &JobName, number: u64, sha256: &Sha256, reason: &str) {
        self.write(repository, job, number, &[TAKEN, &sha256.0, reason.as_bytes()].concat());
    }

    /// Keeps that nothing stands under a number, which a person has seen.
    pub(crate) fn keep_gap(&self, repository: &str, job: &JobName, number: u64) {
        self.write(repository, job, number, GAP);
    }

    fn write(&self, repository: &str, job: &JobName, number: u64, kept: &[u8]) {
        let path = self.path(repository, job, number);
        let Some(folder) = path.parent() else { return };
        // Written beside and renamed, so that a reader never meets half of it; a crash leaves what the hash unmasks.
        let beside = folder.join(format!(".{number:010}.{}", std::process::id()));
        let written =
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&beside, kept)).and_then(|()| std::fs::rename(&beside, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
    }

    /// What was found to be signed by nobody, as far as this machine remembers.
    pub(crate) fn junk(&self, repository: &str) -> BTreeSet<Sha256> {
        let kept = std::fs::File::open(self.folder.join(repository).join(JUNK)).map(|file| {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::Read::take(file, MOST_JUNK), &mut bytes).map(|_| bytes)
        });
        let Ok(Ok(bytes)) = kept else { return BTreeSet::new() };
        bytes.as_chunks::<32>().0.iter().map(|one| Sha256(*one)).collect()
    }

    /// Remembers it. What is forgotten is read again: an error is not told.
    pub(crate) fn keep_junk(&self, repository: &str, what: &Sha256) {
        let folder = self.folder.join(repository);
        let appended = std::fs::create_dir_all(&folder).and_then(|()| {
            let path = folder.join(JUNK);
            if path.metadata().is_ok_and(|meta| meta.len() >= MOST_JUNK) {
                std::fs::remove_file(&path)?;
            }
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            std::io::Write::write_all(&mut file, &what.0)
        });
        if let Err(e) = appended {
            tracing::debug!("not kept: {e}");
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
