//! Owner, mode, times and attributes of a file or folder: everything but its content.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::format::tar::Xattr;
use crate::source::files::access;
use crate::source::files::load::tree::failed;
use crate::source::files::report::Listed;
use crate::source::files::sys::{self, shown};

/// What is set once content is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Look {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub xattrs: Vec<Xattr>,
}

impl Look {
    /// Of an open file or folder.
    pub fn of(fd: BorrowedFd<'_>, path: &[u8]) -> Result<Self> {
        let node = sys::fstat(fd).map_err(|e| failed("look at", path, e))?;
        let xattrs = sys::xattrs(fd).map_err(|e| failed("read the attributes of", path, e))?;
        Ok(Look { mode: node.mode, uid: node.uid, gid: node.gid, mtime: node.mtime, xattrs })
    }

    /// Sets owner first (it clears setuid), then attributes (capabilities would be cleared too), then the mode, times last. What this
    /// user may not set is left and noted.
    pub fn set(&self, fd: BorrowedFd<'_>, privileged: bool, warnings: &mut Listed, path: &[u8]) -> Result<()> {
        let mut mode = self.mode & 0o7777;
        match rustix::fs::fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid))) {
            Ok(()) => {}
            Err(Errno::PERM) if !privileged => {
                // Another owner's program must not run with this user's rights.
                mode &= 0o1777;
                warnings.add(path, "its owner could not be set (not root)");
            }
            Err(e) => return Err(failed("set the owner of", path, e)),
        }
        for (name, value) in &self.xattrs {
            match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(e @ (Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::INVAL)) => {
                    warnings.add(path, format!("attribute {} could not be set: {}", shown(name), std::io::Error::from(e)));
                }
                Err(e) => return Err(failed("set an attribute of", path, e)),
            }
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(|e| failed("set the mode of", path, e))?;
        set_time(fd, self.mtime, path)
    }

    /// Like [`Look::set`] on something that has a look already: attributes it should not have are taken away.
    pub fn impose(&self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        for (name, _) in sys::xattrs(fd).map_err(|e| failed("read the attributes of", path, e))? {
            if !self.xattrs.iter().any(|(wanted, _)| *wanted == name) {
                // What the system keeps for itself stays.
                let _ = rustix::fs::fremovexattr(fd, name.as_slice());
            }
        }
        self.set(fd, access::gives_owners(), &mut Listed::default(), path)
    }
}

/// For `utimensat` and its like; the time of the last read is set to the same.
pub(super) fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets the time of an open file or folder.
pub(super) fn set_time(fd: impl AsFd, time: (i64, u32), path: &[u8]) -> Result<()> {
    rustix::fs::futimens(fd, &times(time)).map_err(|e| failed("set the time of", path, e))
}
