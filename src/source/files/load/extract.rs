//! Extraction, jailed: everything is made by name in a folder held open, nothing is opened through a link, nothing that exists is
//! replaced. What an archive asks beyond that is refused before anything is written.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::format::tar::{Entry, EntryKind, Sink, Totals};
use crate::source::files::access;
use crate::source::files::load::look::{Look, set_time, times};
use crate::source::files::load::tree::failed;
use crate::source::files::report::Listed;
use crate::source::files::sys::{self, DirStack, NodeKind, shown};

/// Where a part of the archive goes.
pub(super) struct Place {
    /// The parts of the names that belong here begin with these.
    pub prefix: Vec<Vec<u8>>,
    /// The folder in which it is laid.
    pub base: OwnedFd,
    /// The name in `base` that stands for the prefix; `None` keeps names as they are.
    pub top: Option<Vec<u8>>,
}

/// What to do with a folder when the walk leaves it.
enum Leaving {
    Set(Look),
    /// It was complete already: only its time has changed.
    Time((i64, u32)),
    /// It is not in the archive itself.
    Nothing,
}

struct OpenFile {
    fd: OwnedFd,
    look: Look,
    size: u64,
    end: u64,
}

/// A sink for the walker that extracts.
pub(super) struct Extractor {
    places: Vec<Place>,
    limits: Totals,
    seen: Totals,
    privileged: bool,
    current: Option<usize>,
    stack: Option<DirStack>,
    leaving: Vec<Leaving>,
    file: Option<OpenFile>,
    path: Vec<u8>,
    /// Things that could not be brought back exactly; nothing of the content.
    pub warnings: Listed,
}

impl Extractor {
    /// Extracts into `places` no more than `limits`.
    pub fn new(places: Vec<Place>, limits: Totals) -> Self {
        Extractor {
            places,
            limits,
            seen: Totals::default(),
            privileged: access::gives_owners(),
            current: None,
            stack: None,
            leaving: Vec::new(),
            file: None,
            path: Vec::new(),
            warnings: Listed::default(),
        }
    }

    /// The archive has ended well: completes the folders and puts all of it on the disk. Says what was extracted.
    pub fn finish(mut self) -> Result<(Totals, Listed)> {
        self.leave_to(0)?;
        for place in &self.places {
            rustix::fs::syncfs(&place.base).map_err(|e| failed("write to the disk", b"", e))?;
        }
        Ok((self.seen, self.warnings))
    }

    fn refuse(&self, why: &str) -> Error {
        Error::corrupt(format!("archive entry '{}': {why}; refused", shown(&self.path)))
    }

    fn failed(&self, doing: &str, error: Errno) -> Error {
        if error == Errno::EXIST {
            return self.refuse("it is in the archive twice");
        }
        failed(doing, &self.path, error)
    }

    /// The place of an archive's name, and the parts of the name there.
    fn locate(&self, path: &[u8]) -> Result<(usize, Vec<Vec<u8>>)> {
        let parts: Vec<Vec<u8>> = if path == b"." { Vec::new() } else { path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect() };
        if parts.iter().any(|p| p.is_empty() || p == b"." || p == b".." || p.len() > 255) {
            return Err(self.refuse("its name leads elsewhere"));
        }
        let fits = |place: &&(usize, &Place)| parts.starts_with(&place.1.prefix);
        let places: Vec<(usize, &Place)> = self.places.iter().enumerate().collect();
        let Some((index, place)) = places.iter().filter(fits).max_by_key(|(_, place)| place.prefix.len()) else {
            return Err(self.refuse("it lies outside the paths that were backed up"));
        };
        let below = parts[place.prefix.len()..].iter().cloned();
        Ok((*index, place.top.iter().cloned().chain(below).collect()))
    }

    /// Completes folders until `depth` of them are open.
    fn leave_to(&mut self, depth: usize) -> Result<()> {
        while self.leaving.len() > depth {
            let (Some(leaving), Some(stack)) = (self.leaving.pop(), &mut self.stack) else { return Ok(()) };
            let fd = stack.fd().map_err(|e| failed("open", &self.path, e))?;
            match leaving {
                Leaving::Set(look) => look.set(fd, self.privileged, &mut self.warnings, &self.path)?,
                Leaving::Time(mtime) => set_time(fd, mtime, &self.path)?,
                Leaving::Nothing => {}
            }
            stack.pop();
        }
        Ok(())
    }

    /// Stands in the folder `parts` of a place, completing what is left and opening what is entered.
    fn go(&mut self, place: usize, parts: &[Vec<u8>]) -> Result<()> {
        if self.current != Some(place) {
            self.leave_to(0)?;
            let base = self.places[place].base.try_clone().map_err(|e| Error::failed("open a folder").because(e))?;
            self.stack = Some(DirStack::new(base));
            self.current = Some(place);
        }
        let common = self
            .stack
            .as_ref()
            .map_or(0, |stack| (0..stack.depth()).take_while(|i| stack.name(*i) == parts.get(*i).map(Vec::as_slice)).count());
        self.leave_to(common)?;
        for part in &parts[common..] {
            let path = self.path.clone();
            let stack = self.stack.as_mut().ok_or_else(|| Error::failed("no folder is open"))?;
            let dir = stack.fd().map_err(|e| failed("open", &path, e))?;
            let (fd, leaving) = match sys::open_dir(dir, part) {
                Ok(fd) => {
                    let node = sys::fstat(&fd).map_err(|e| failed("look at", &path, e))?;
                    (fd, Leaving::Time(node.mtime))
                }
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(dir, part.as_slice(), Mode::from_raw_mode(0o755)).map_err(|e| failed("create", &path, e))?;
                    let fd = sys::open_dir(dir, part).map_err(|e| failed("open", &path, e))?;
                    drop_inherited(fd.as_fd());
                    (fd, Leaving::Nothing)
                }
                // Never through a link, never through a file.
                Err(Errno::LOOP | Errno::NOTDIR) => return Err(self.refuse("it lies below something that is no folder")),
                Err(e) => return Err(failed("open", &path, e)),
            };
            stack.push(part, fd);
            self.leaving.push(leaving);
        }
        Ok(())
    }

    fn dir(&mut self) -> Result<BorrowedFd<'_>> {
        let stack = self.stack.as_mut().ok_or_else(|| Error::failed("no folder is open"))?;
        stack.fd().map_err(|e| failed("open", &self.path, e))
    }

    fn look(&self, entry: &Entry) -> Result<Look> {
        // The largest id means "leave it" to the system.
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| self.refuse("its owner is no user"));
        Ok(Look { mode: entry.mode & 0o7777, uid: id(entry.uid)?, gid: id(entry.gid)?, mtime: entry.mtime, xattrs: entry.xattrs.clone() })
    }

    fn within_limits(&self) -> bool {
        let mut pairs = self.seen.named().into_iter().zip(self.limits.named());
        pairs.all(|((_, seen), (_, limit))| seen <= limit)
    }

    fn folder(&mut self, name: &[u8], top: bool, look: Look) -> Result<()> {
        let dir = self.dir()?;
        let made = rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)).and_then(|()| sys::open_dir(dir, name));
        let fd = made.map_err(|e| self.failed("create", e))?;
        if top {
            drop_inherited(fd.as_fd());
        }
        if let Some(stack) = &mut self.stack {
            stack.push(name, fd);
            self.leaving.push(Leaving::Set(look));
        }
        Ok(())
    }

    fn regular(&mut self, name: &[u8], top: bool, look: Look, size: u64) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.dir()?, name, flags, Mode::from_raw_mode(0o600)).map_err(|e| self.failed("create", e))?;
        if top {
            drop_inherited(fd.as_fd());
        }
        self.file = Some(OpenFile { fd, look, size, end: 0 });
        Ok(())
    }

    fn symlink(&mut self, name: &[u8], target: &[u8], look: &Look) -> Result<()> {
        let privileged = self.privileged;
        let dir = self.dir()?;
        let made = rustix::fs::symlinkat(target, dir, name);
        let owned = match made {
            Ok(()) => {
                rustix::fs::chownat(dir, name, Some(Uid::from_raw(look.uid)), Some(Gid::from_raw(look.gid)), AtFlags::SYMLINK_NOFOLLOW)
            }
            Err(_) => Ok(()),
        };
        let timed = if made.is_ok() { rustix::fs::utimensat(dir, name, &times(look.mtime), AtFlags::SYMLINK_NOFOLLOW) } else { Ok(()) };
        made.map_err(|e| self.failed("create", e))?;
        timed.map_err(|e| self.failed("set the time of", e))?;
        match owned {
            Err(Errno::PERM) if !privileged => self.warnings.add(&self.path, "its owner could not be set"),
            other => other.map_err(|e| self.failed("set the owner of", e))?,
        }
        Ok(())
    }

    fn hard_link(&mut self, place: usize, name: &[u8], target: &[u8]) -> Result<()> {
        let (other, parts) = self.locate(target)?;
        let Some((last, way)) = parts.split_last().filter(|_| other == place) else {
            return Err(self.refuse("it is a link to something outside"));
        };
        let refused = || self.refuse("it is a link to something that is not in the archive before it");
        let from = sys::open_beneath(self.places[place].base.as_fd(), way.iter().map(Vec::as_slice)).map_err(|_| refused())?;
        match sys::lstat(from.as_fd(), last) {
            Ok(node) if node.kind == NodeKind::File => {}
            _ => return Err(refused()),
        }
        let linked = rustix::fs::linkat(&from, last.as_slice(), self.dir()?, name, AtFlags::empty());
        linked.map_err(|e| self.failed("link", e))
    }
}

impl Sink for Extractor {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.path.clone_from(&entry.path);
        let (place, parts) = self.locate(&entry.path)?;
        let look = self.look(entry)?;
        self.seen.add(entry);
        if let EntryKind::Other(_) = entry.kind {
            return Err(self.refuse("it is a device or a fifo"));
        }
        if !self.within_limits() {
            return Err(self.refuse("the archive holds more than was counted when it was made"));
        }
        let Some((name, way)) = parts.split_last() else {
            // The target folder itself: it stays as it is.
            return if entry.kind == EntryKind::Dir { Ok(()) } else { Err(self.refuse("it has no name")) };
        };
        self.go(place, way)?;
        let top = way.is_empty();
        match entry.kind {
            EntryKind::Dir => self.folder(name, top, look),
            EntryKind::File => self.regular(name, top, look, entry.size),
            EntryKind::Symlink => self.symlink(name, &entry.link, &look),
            EntryKind::HardLink => self.hard_link(place, name, &entry.link),
            EntryKind::Other(_) => Ok(()),
        }
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let (mut offset, mut bytes) = (offset, bytes);
        while !bytes.is_empty() {
            match rustix::io::pwrite(&file.fd, bytes, offset) {
                Ok(written) => {
                    offset += written as u64;
                    bytes = &bytes[written..];
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed("write", &self.path, e)),
            }
        }
        file.end = offset;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        if file.end < file.size {
            rustix::fs::ftruncate(&file.fd, file.size).map_err(|e| failed("write", &self.path, e))?;
        }
        file.look.set(file.fd.as_fd(), self.privileged, &mut self.warnings, &self.path)
    }
}

/// A folder with a default ACL gives it to all that is made in it: the archive says what there shall be.
fn drop_inherited(fd: BorrowedFd<'_>) {
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        // Absent mostly, or not known to the file system.
        let _ = rustix::fs::fremovexattr(fd, name);
    }
}
