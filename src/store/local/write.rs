//! Creating an object: temporary file, fsync, `link(2)`, fsync of the folders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType};

use crate::error::{Error, Kind, Result};
use crate::model::Sha256;
use crate::store::local::folder::{Folder, file_type, trouble};
use crate::store::local::temp::Temp;
use crate::store::local::{Inner, TRIES, vanishing};
use crate::store::{Body, Piece};

/// Write-back to the disk is started each time so many bytes were written, so that the fsync at the end finds little to do.
const WRITE_BACK_BYTES: u64 = 16 << 20;

/// The writer waits for the disk when more than this was written and has not reached it, so that a slow disk cannot fill memory with
/// dirty pages, which the databases beside us would pay for.
const DIRTY_BYTES: u64 = 128 << 20;

/// Creates `key` from `body`. Runs on a blocking thread; `cancelled` is set when nobody waits for the outcome any more.
pub(super) fn put(store: &Inner, key: &str, body: Body, cancelled: &AtomicBool) -> Result<()> {
    let outcome = put_object(store, key, body, cancelled);
    if outcome.is_err() {
        // Folders made for an object that never came.
        let _ = store.remove_empty_folders(key);
    }
    outcome
}

fn put_object(store: &Inner, key: &str, mut body: Body, cancelled: &AtomicBool) -> Result<()> {
    let chain = store.make_folders(key)?;
    refuse_taken(store, &chain, key)?;
    let mut temp = Temp::create(&chain[0], &store.disk)?;
    one_filesystem(&chain, &temp.folder)?;
    drop(chain);
    receive(store, key, &mut temp, &mut body, cancelled)?;
    seal(store, key, &temp)?;
    if cancelled.load(Ordering::Acquire) {
        return Err(given_up(key));
    }
    publish(store, key, &temp)
}

/// Takes the body to its end and proves that what was handed to the disk is what was sent.
fn receive(store: &Inner, key: &str, temp: &mut Temp, body: &mut Body, cancelled: &AtomicBool) -> Result<()> {
    let failed = |e| trouble("write", key, e);
    let mut hasher = Sha256::hasher();
    let (mut written, mut started, mut waited) = (0u64, 0u64, 0u64);
    loop {
        let piece = body.blocking_next().map_err(|e| e.context(format!("write {key}")))?;
        if cancelled.load(Ordering::Acquire) {
            return Err(given_up(key));
        }
        match piece {
            Piece::Data(bytes) => {
                store.disk.write(&temp.file, &bytes).map_err(failed)?;
                hasher.update(&bytes);
                written += bytes.len() as u64;
            }
            Piece::End { bytes, sha256, .. } => {
                if written != bytes || hasher.finish() != sha256 {
                    return Err(crate::store::wrong_end(key));
                }
                return Ok(());
            }
        }
        if written - started >= WRITE_BACK_BYTES {
            store.disk.start_write_back(&temp.file, started, written - started).map_err(failed)?;
            started = written;
        }
        if started - waited > DIRTY_BYTES {
            let settled = started - DIRTY_BYTES;
            store.disk.wait_write_back(&temp.file, waited, settled - waited).map_err(failed)?;
            waited = settled;
        }
    }
}

/// Makes the content durable before it gets its name.
fn seal(store: &Inner, key: &str, temp: &Temp) -> Result<()> {
    store.disk.sync_file(&temp.file).map_err(|e| trouble("bring to the disk", key, e))?;
    // A second descriptor is closed, because the first one holds the lock; the kernel flushes and reports on each close.
    let second = temp.file.try_clone().map_err(|e| trouble("close", key, e))?;
    store.disk.close(second).map_err(|e| trouble("close", key, e))
}

/// Gives the content its name and makes the name durable.
fn publish(store: &Inner, key: &str, temp: &Temp) -> Result<()> {
    let name = last_part(key);
    for _ in 0..TRIES {
        let chain = store.make_folders(key)?;
        match give_name(store, temp, innermost(&chain), name) {
            Ok(()) => return store.sync_folders(&chain).map_err(|e| unknown(key, e)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                refuse_taken(store, &chain, key)?;
                // It was there a moment ago and was deleted since: the answer is that of that moment.
                return Err(taken(key));
            }
            // A delete emptied and removed the folder since it was opened.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(trouble("give its name to", key, e)),
        }
    }
    Err(vanishing(key))
}

/// `link(2)`, or where the filesystem has no hard links a rename that refuses a taken name, which is as good.
fn give_name(store: &Inner, temp: &Temp, folder: &Folder, name: &str) -> std::io::Result<()> {
    match store.disk.link(&temp.folder, &temp.name, folder, name) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK)) => {
            store.disk.rename_new(&temp.folder, &temp.name, folder, name)
        }
        other => other,
    }
}

/// The name stands and may or may not outlive a power loss. To try again and see it there would prove nothing, for the kernel reports a failed
/// write once only; so this is not retryable.
fn unknown(key: &str, error: Error) -> Error {
    error.context(format!("{key} was written, but the disk failed before that was certain")).with_kind(Kind::OutcomeUnknown)
}

/// An error when the key is taken. Before that is said the name is made durable: whoever finds its own bytes there calls it success (rule 1).
fn refuse_taken(store: &Inner, chain: &[Folder], key: &str) -> Result<()> {
    let folder = innermost(chain);
    match folder.stat(last_part(key))? {
        None => Ok(()),
        Some(stat) if file_type(&stat) == FileType::Directory => {
            // An empty one is nothing to anyone.
            if rustix::fs::unlinkat(folder, last_part(key), AtFlags::REMOVEDIR).is_ok() {
                return Ok(());
            }
            let path = store.root.join(key);
            Err(Error::new(Kind::Exists, format!("{key} is a folder that holds other objects, so it cannot be an object itself"))
                .hint(format!("drctl puts nothing there: look at it, and take it away: rm -r {}", path.display())))
        }
        Some(_) => {
            store.sync_folders(chain).map_err(|e| unknown(key, e))?;
            Err(taken(key))
        }
    }
}

fn one_filesystem(chain: &[Folder], temp: &Folder) -> Result<()> {
    let folder = innermost(chain);
    if folder.device()? == temp.device()? {
        return Ok(());
    }
    let text = format!("{} lies on another filesystem than the repository's folder", folder.path());
    Err(Error::failed(text).hint("a repository must lie on one filesystem: mount the disk at the repository's folder itself"))
}

fn innermost(chain: &[Folder]) -> &Folder {
    // A chain begins with the root and is never empty.
    &chain[chain.len() - 1]
}

fn last_part(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

fn taken(key: &str) -> Error {
    Error::new(Kind::Exists, format!("{key} exists already"))
}

fn given_up(key: &str) -> Error {
    Error::failed(format!("the upload of {key} was given up before its end"))
}

/// Sets a flag when dropped: the future that waited for a worker is gone.
pub(super) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
