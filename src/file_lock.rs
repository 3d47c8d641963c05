//! `flock(2)` on a file, let go when it is said and not when the kernel finds time for it.
//!
//! The kernel ends such a lock with the last descriptor of its file, and every child has all of them between `fork` and `exec`. A lock that
//! ends by closing alone outlives its owner for that instant, and whoever asks then takes the owner for alive.

#![expect(clippy::disallowed_methods, reason = "the one place that locks")]

use std::fs::File;
use std::ops::{Deref, DerefMut};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A file whose lock, if it holds one, is let go when this is dropped. A process that dies lets go of it too, however it dies.
#[derive(Debug)]
pub struct HeldFile(File);

impl HeldFile {
    /// The file, not locked yet.
    pub fn of(file: File) -> HeldFile {
        HeldFile(file)
    }

    /// Locks it against every other lock. [`Errno::AGAIN`] when another holds one, another error when the filesystem knows no locks.
    pub fn try_exclusive(&self) -> Result<(), Errno> {
        flock(&self.0, FlockOperation::NonBlockingLockExclusive)
    }

    /// Locks it against exclusive locks only; errors as of [`HeldFile::try_exclusive`].
    pub fn try_shared(&self) -> Result<(), Errno> {
        flock(&self.0, FlockOperation::NonBlockingLockShared)
    }
}

impl Deref for HeldFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for HeldFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        // What cannot be unlocked was not locked; closing does the rest.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second descriptor of the same opening is what a child holds between `fork` and `exec`.
    #[test]
    fn a_dropped_lock_is_free_though_a_child_still_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = HeldFile::of(File::create(&path).unwrap());
        held.try_exclusive().unwrap();
        let child = held.try_clone().unwrap();
        let other = HeldFile::of(File::open(&path).unwrap());
        assert_eq!(other.try_exclusive(), Err(Errno::AGAIN));
        assert_eq!(other.try_shared(), Err(Errno::AGAIN));
        drop(held);
        other.try_exclusive().unwrap();
        drop(child);
    }

    #[test]
    fn readers_share() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = HeldFile::of(File::create(&path).unwrap());
        first.try_shared().unwrap();
        let second = HeldFile::of(File::open(&path).unwrap());
        second.try_shared().unwrap();
        assert_eq!(second.try_exclusive(), Err(Errno::AGAIN));
    }
}
