//! The few file operations on which durability rests, behind a trait so that tests can record their order and let them fail.
//!
//! Every method of [`Disk`] has the real operation as its default; [`RealDisk`] changes none of them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid};

use crate::store::local::folder::Folder;

/// What the folder store does to the disk when it writes.
pub trait Disk: Send + Sync {
    /// Creates a file with mode 0600 that was not there before.
    fn create(&self, folder: &Folder, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?;
        if let Some(owner) = owner_to_give(folder) {
            let _ = rustix::fs::fchown(&file, Some(owner.0), Some(owner.1));
        }
        Ok(File::from(file))
    }

    /// Appends bytes to the file.
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    /// Starts writing a range back to the disk and does not wait. An error is a failed write and fatal.
    fn start_write_back(&self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        write_back(file, offset, length, libc::SYNC_FILE_RANGE_WRITE)
    }

    /// Waits until a range whose write-back was started is written. An error is a failed write and fatal: the kernel reports it once.
    fn wait_write_back(&self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        write_back(file, offset, length, all)
    }

    /// Returns when every byte and the length of the file are on the disk.
    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Closes the file and says what the kernel says; network filesystems report a failed write only here.
    fn close(&self, file: File) -> io::Result<()> {
        let raw = OwnedFd::from(file).into_raw_fd();
        // SAFETY: `raw` came out of the only owner just now, so nothing else closes or uses it.
        if unsafe { libc::close(raw) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Gives a file a second name; `AlreadyExists` when the name is taken.
    fn link(&self, from: &Folder, old: &str, to: &Folder, new: &str) -> io::Result<()> {
        Ok(rustix::fs::linkat(from, old, to, new, AtFlags::empty())?)
    }

    /// Moves a file to another name; `AlreadyExists` when the name is taken. For filesystems without hard links (exFAT, some FUSE).
    fn rename_new(&self, from: &Folder, old: &str, to: &Folder, new: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)?)
    }

    /// Returns when the folder's own entries are on the disk.
    fn sync_folder(&self, folder: &Folder) -> io::Result<()> {
        Ok(rustix::fs::fsync(folder)?)
    }

    /// Creates a folder with mode 0700.
    fn make_folder(&self, parent: &Folder, name: &str) -> io::Result<()> {
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Some(owner) = owner_to_give(parent)
            && let Ok(made) = rustix::fs::openat(parent, name, flags, Mode::empty())
        {
            let _ = rustix::fs::fchown(made, Some(owner.0), Some(owner.1));
        }
        Ok(())
    }

    /// Removes a file's name.
    fn remove(&self, folder: &Folder, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?)
    }
}

/// The operating system's own operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}

/// What root makes in another's repository is the other's, as everything there: a restore by `sudo` must not leave records that the next backup
/// cannot read. Where that is not allowed (a network folder that squashes root) it stays as it is.
fn owner_to_give(folder: &Folder) -> Option<(Uid, Gid)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let stat = rustix::fs::fstat(folder).ok()?;
    (stat.st_uid != 0).then(|| (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)))
}

/// `sync_file_range(2)`. It only shortens the fsync at the end, so a filesystem that cannot do it is no error.
fn write_back(file: &File, offset: u64, length: u64, flags: libc::c_uint) -> io::Result<()> {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return Ok(()) };
    // SAFETY: takes a descriptor that `file` keeps open, and numbers; touches no memory of ours.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::ESPIPE | libc::EINVAL | libc::EOPNOTSUPP | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}
