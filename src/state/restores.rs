//! Who works on a restore: a lock on a file of its own, as runs have one.
//!
//! A process number says nothing across containers that share a state volume: each counts its own. The lock is the kernel's, it holds for all of
//! them, and it ends with its process, however that ends.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::file_lock::HeldFile;
use crate::state::{StateFile, with_suffix};

/// How often a lock that is taken is tried again, and after how long.
const LOOKS: u32 = 4;
const LOOK: Duration = Duration::from_millis(10);

/// The lock of one restore, held until this is dropped: whoever holds it alone may change what that restore made, or its note.
#[derive(Debug)]
pub struct RestoreLock {
    path: PathBuf,
    held: Option<HeldFile>,
}

impl RestoreLock {
    /// Whether the kernel holds it. Not where the filesystem has no locks: there the process number has to do.
    pub fn is_real(&self) -> bool {
        self.held.is_some()
    }
}

impl Drop for RestoreLock {
    fn drop(&mut self) {
        // Before the lock is let go: whoever opened the file meanwhile sees that it is not the one that lies there.
        if self.held.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What the lock of a restore tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A process holds it.
    Yes,
    /// None does.
    No,
    /// The filesystem has no locks.
    Unknown,
}

impl StateFile {
    /// Takes the lock of a restore. `None` when another process has it: that restore is under way, or is being undone or cleaned up.
    pub fn hold_restore(&self, restore: &str) -> Result<Option<RestoreLock>> {
        let path = self.restore_lock(restore)?;
        // Nothing beside a state file in memory.
        if self.file.is_none() {
            return Ok(Some(RestoreLock { path, held: None }));
        }
        let folder = self.restore_locks();
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.context(|| format!("make folder {}", folder.display()))?;
        let mut looks = 0;
        loop {
            let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = HeldFile::of(opened.context(|| format!("make {}", path.display()))?);
            match file.try_exclusive() {
                Ok(()) if lies_at(&file, &path) => return Ok(Some(RestoreLock { path, held: Some(file) })),
                // Its holder removed it as it let go.
                Ok(()) => {}
                // Whoever only looks has it for an instant.
                Err(Errno::AGAIN) if looks < LOOKS => {
                    looks += 1;
                    std::thread::sleep(LOOK);
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(_) => return Ok(Some(RestoreLock { path, held: None })),
            }
        }
    }

    /// Whether a process holds the lock of a restore. One that was never taken counts as let go.
    pub fn restore_is_held(&self, restore: &str) -> Result<Held> {
        let path = self.restore_lock(restore)?;
        let file = match File::open(&path) {
            Ok(file) => HeldFile::of(file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Held::No),
            Err(e) => return Err(e).context(|| format!("open {}", path.display())),
        };
        Ok(match file.try_shared() {
            Ok(()) => Held::No,
            Err(Errno::AGAIN) => Held::Yes,
            Err(_) => Held::Unknown,
        })
    }

    fn restore_locks(&self) -> PathBuf {
        with_suffix(&self.path, ".restores")
    }

    /// Ids are ours; anything else in the file is damage and must not lead elsewhere.
    fn restore_lock(&self, restore: &str) -> Result<PathBuf> {
        if restore.is_empty() || !restore.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::corrupt(format!("'{}' is no id of a restore", restore.escape_debug())));
        }
        Ok(self.restore_locks().join(restore))
    }
}

fn lies_at(file: &HeldFile, path: &Path) -> bool {
    let number = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().ok().map(number).zip(std::fs::metadata(path).ok().map(number)).is_some_and(|(is, lies)| is == lies)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::SystemClock;

    #[test]
    fn one_holder_at_a_time_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFile::open(&folder.path().join("state.sqlite"), Arc::new(SystemClock)).unwrap();
        assert_eq!(state.restore_is_held("7k3q9xyz").unwrap(), Held::No);
        let lock = state.hold_restore("7k3q9xyz").unwrap().unwrap();
        assert!(lock.is_real());
        assert!(state.hold_restore("7k3q9xyz").unwrap().is_none());
        assert_eq!(state.restore_is_held("7k3q9xyz").unwrap(), Held::Yes);
        assert_eq!(state.restore_is_held("8k3q9xyz").unwrap(), Held::No, "each has its own");
        drop(lock);
        assert_eq!(state.restore_is_held("7k3q9xyz").unwrap(), Held::No);
        assert_eq!(std::fs::read_dir(folder.path().join("state.sqlite.restores")).unwrap().count(), 0);
        assert!(state.hold_restore("../x").is_err() && state.hold_restore("").is_err());
    }
}
