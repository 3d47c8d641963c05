//! Folders reached step by step from the root, never through a symbolic link.
//!
//! Each step is an `openat(2)` relative to the folder before with `O_NOFOLLOW`, so no link that appears in between can lead out of the root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result, io_kind};

/// An open folder and its place below the root.
pub struct Folder {
    fd: OwnedFd,
    path: String,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Folder {
    /// Opens the root itself; the root may be a symbolic link, which is the user's own choice.
    pub(super) fn root(path: &Path) -> io::Result<Folder> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Folder { fd, path: String::new() })
    }

    /// The folder's place: empty for the root, else with a `/` at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The folder's place with a name in it.
    pub(super) fn join(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// Number of the filesystem the folder lies on.
    pub(super) fn device(&self) -> Result<u64> {
        Ok(rustix::fs::fstat(self).map_err(|e| trouble("look at folder", &self.path, e.into()))?.st_dev)
    }

    /// Opens a folder in this one; `None` when there is nothing of that name, or a file.
    pub(super) fn child(&self, name: &str) -> Result<Option<Folder>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Folder { fd, path: format!("{}{name}/", self.path) })),
            Err(Errno::NOENT) => Ok(None),
            // Which of the two a link gives depends on the kernel; a file gives NOTDIR.
            Err(Errno::NOTDIR | Errno::LOOP) => match self.stat(name)? {
                Some(stat) if file_type(&stat) == FileType::Symlink => Err(self.link_refused(name)),
                _ => Ok(None),
            },
            Err(e) => Err(trouble("open folder", &self.join(name), e.into())),
        }
    }

    /// What stands under a name; `None` when nothing does. A link is not followed.
    pub(super) fn stat(&self, name: &str) -> Result<Option<Stat>> {
        match rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(trouble("look at", &self.join(name), e.into())),
        }
    }

    /// The size and date of the object of that name; `None` when there is none (or a folder). A link, pipe, socket or device takes its name
    /// and holds nothing: it is an object of 0 bytes, which is never opened.
    pub(super) fn stat_object(&self, name: &str) -> Result<Option<(u64, Timestamp)>> {
        let Some(stat) = self.stat(name)? else { return Ok(None) };
        match file_type(&stat) {
            FileType::RegularFile => Ok(Some((u64::try_from(stat.st_size).unwrap_or(0), modified(&stat).unwrap_or(Timestamp::MAX)))),
            FileType::Directory => Ok(None),
            _ => Ok(Some((0, modified(&stat).unwrap_or(Timestamp::UNIX_EPOCH)))),
        }
    }

    /// Whether a link stands under a name.
    pub(super) fn is_link(&self, name: &str) -> Result<bool> {
        Ok(self.stat(name)?.is_some_and(|stat| file_type(&stat) == FileType::Symlink))
    }

    fn object_of(&self, name: &str, stat: &Stat) -> Result<Option<(u64, Timestamp)>> {
        match file_type(stat) {
            FileType::RegularFile => Ok(Some((u64::try_from(stat.st_size).unwrap_or(0), modified(stat)?))),
            FileType::Directory => Ok(None),
            FileType::Symlink => Err(self.link_refused(name)),
            _ => Err(Error::corrupt(format!("{} is neither a file nor a folder", self.join(name)))),
        }
    }

    /// Opens the regular file of that name for reading, with its size; `None` when there is none.
    pub(super) fn open_object(&self, name: &str) -> Result<Option<(File, u64)>> {
        // NONBLOCK: opening a pipe that someone put there must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.link_refused(name)),
            Err(e) => return Err(trouble("open", &self.join(name), e.into())),
        };
        let stat = rustix::fs::fstat(&file).map_err(|e| trouble("look at", &self.join(name), e.into()))?;
        Ok(self.object_of(name, &stat)?.map(|(bytes, _)| (file, bytes)))
    }

    pub(super) fn link_refused(&self, name: &str) -> Error {
        let path = self.join(name);
        Error::new(Kind::Denied, format!("{path} is a symbolic link, and links inside a repository are not followed"))
            .hint(format!("put the real files there instead of the link, or mount the other place at {path} with `mount --bind`"))
    }
}

/// What a stat describes.
pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The modification time in a stat.
pub(super) fn modified(stat: &Stat) -> Result<Timestamp> {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Timestamp::new(stat.st_mtime, nanoseconds).map_err(|e| Error::corrupt("the modification time is out of range").because(e))
}

/// An error of the operating system with what was being done, to which file, and what helps.
pub(super) fn trouble(doing: &str, path: &str, error: io::Error) -> Error {
    let path = if path.is_empty() { "the repository's folder" } else { path };
    let kind = io_kind(&error);
    let hint = match (kind, error.raw_os_error()) {
        (Kind::Full, Some(libc::EFBIG)) => Some("a file of this size is not allowed: look at `ulimit -f` and at the filesystem's limit"),
        (_, Some(libc::EMFILE | libc::ENFILE)) => Some("too many files are open: raise `ulimit -n`"),
        (Kind::Full, Some(libc::EDQUOT)) => Some("the disk quota is used up: look at `quota -s`"),
        (Kind::Full, _) => {
            Some("free some room on the repository's disk (`df -h`, `df -i`) and run again; nothing stored earlier was touched")
        }
        (Kind::Denied, Some(libc::EROFS)) => Some("the filesystem is read-only: if it should not be, `dmesg` says why; then remount it"),
        (Kind::Denied, _) => Some("run as the user who owns the repository's folder, or give this user the right to write there"),
        (_, Some(libc::EIO)) => Some("the disk reports an error: look at `dmesg` and `smartctl -a`, and keep a second store"),
        (_, Some(libc::ESTALE | libc::ENODEV | libc::ENXIO)) => Some("the disk or the network folder went away: mount it again"),
        _ => None,
    };
    let gone = matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENODEV | libc::ENXIO));
    let error = Error::new(if gone { Kind::Unreachable } else { kind }, format!("{doing} {path}")).because(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
