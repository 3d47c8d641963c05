//! The operating system's view of files, always relative to an open folder and never through a symbolic link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::format::tar::Xattr;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags, openat, openat2, statat, statx};
use rustix::io::Errno;

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    Device,
}

impl NodeKind {
    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            NodeKind::File => "file",
            NodeKind::Dir => "folder",
            NodeKind::Symlink => "symbolic link",
            NodeKind::Fifo => "fifo",
            NodeKind::Socket => "socket",
            NodeKind::Device => "device",
        }
    }
}

/// The parts of `stat` that matter, in types of one size on every machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub kind: NodeKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub blocks: u64,
    pub mtime: (i64, u32),
    pub id: NodeId,
    pub links: u64,
}

/// Device and inode: what a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct NodeId {
    pub dev: u64,
    pub ino: u64,
}

/// What a name stands for, known again after a reboot: device numbers may be given out anew then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Identity {
    pub dev: u64,
    pub ino: u64,
    /// When it was made, in seconds and nanoseconds, where the file system keeps that.
    #[serde(default)]
    pub born: Option<(i64, u32)>,
}

impl Identity {
    /// Whether both are the same thing. The time of its making tells apart what got the same inode number one after the other; without
    /// it the device counts.
    pub fn same(&self, other: &Identity) -> bool {
        let by_birth = self.born.zip(other.born).map(|(one, other)| one == other);
        self.ino == other.ino && by_birth.unwrap_or(self.dev == other.dev)
    }
}

/// Whether a thing may be neither changed nor renamed, by root neither (`chattr +i`, `+a`). Where the file system keeps no such mark: no.
pub(crate) fn is_fixed(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    has_mark(statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::empty()))
}

/// The same of what is open.
pub(crate) fn is_open_fixed(fd: BorrowedFd<'_>) -> bool {
    has_mark(statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty()))
}

fn has_mark(found: Result<rustix::fs::Statx, Errno>) -> bool {
    found.is_ok_and(|found| found.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND))
}

/// What a name in a folder stands for; `None` when there is nothing under it.
pub(crate) fn identity(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Identity>, Errno> {
    let Some(node) = lstat_opt(dir, name)? else { return Ok(None) };
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let born = match statx(dir, name, flags, StatxFlags::BTIME | StatxFlags::INO) {
        // Only of the same node: the name may stand for another by now.
        Ok(now) if now.stx_ino == node.id.ino && now.stx_mask & StatxFlags::BTIME.bits() != 0 => {
            Some((now.stx_btime.tv_sec, now.stx_btime.tv_nsec))
        }
        _ => None,
    };
    Ok(Some(Identity { dev: node.id.dev, ino: node.id.ino, born }))
}

#[allow(clippy::unnecessary_cast, reason = "field types differ between machines")]
impl From<Stat> for Node {
    fn from(stat: Stat) -> Self {
        use rustix::fs::FileType;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Dir,
            FileType::Symlink => NodeKind::Symlink,
            FileType::Fifo => NodeKind::Fifo,
            FileType::Socket => NodeKind::Socket,
            _ => NodeKind::Device,
        };
        Node {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: stat.st_blocks as u64,
            mtime: (stat.st_mtime as i64, (stat.st_mtime_nsec as u32).min(999_999_999)),
            id: NodeId { dev: stat.st_dev as u64, ino: stat.st_ino as u64 },
            links: stat.st_nlink as u64,
        }
    }
}

/// `lstat` of a name in an open folder.
pub(crate) fn lstat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Node, Errno> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(Node::from)
}

/// Like [`lstat`]; `None` when there is nothing under the name.
pub(crate) fn lstat_opt(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Node>, Errno> {
    match lstat(dir, name) {
        Ok(node) => Ok(Some(node)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// `fstat`.
pub(crate) fn fstat(fd: impl AsFd) -> Result<Node, Errno> {
    rustix::fs::fstat(fd).map(Node::from)
}

/// Opens a folder by name in an open folder; a symbolic link is refused (`ELOOP`, `ENOTDIR`).
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Like [`open_dir`]; a folder on which something is mounted is refused (`EXDEV`), be it of the same device. Kernels before 5.6, and
/// sandboxes that forbid the call, open it as [`open_dir`] does: whoever relies on it looks at the list of mounts as well.
pub(crate) fn open_dir_no_mount(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match openat2(dir, name, flags, Mode::empty(), within) {
        Err(Errno::NOSYS | Errno::PERM) => open_dir(dir, name),
        other => other,
    }
}

/// How a step down is opened: [`open_dir`] or [`open_dir_no_mount`].
pub(crate) type OpenDir = fn(BorrowedFd<'_>, &[u8]) -> Result<OwnedFd, Errno>;

/// Opens a folder by its full path, following links in it.
pub(crate) fn open_dir_path(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    openat(rustix::fs::CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Like [`open_dir_path`], only to look names up in it: that needs no right to list it.
pub(crate) fn open_parent_path(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    openat(rustix::fs::CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file to read it. A fifo put in its place in the meantime does not hang (`NONBLOCK`).
pub(crate) fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
}

/// All extended attributes of an open file or folder, sorted by name; none where the file system has none.
/// One that vanishes in between is left out.
pub(crate) fn xattrs(fd: impl AsFd) -> Result<Vec<Xattr>, Errno> {
    let fd = fd.as_fd();
    let list = match sized(|buffer| rustix::fs::flistxattr(fd, buffer)) {
        Ok(list) => list,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut out = Vec::new();
    for name in list.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        match sized(|buffer| rustix::fs::fgetxattr(fd, name, buffer)) {
            Ok(value) => out.push((name.to_vec(), value)),
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    out.sort();
    Ok(out)
}

/// Calls with a small buffer first, then with the largest that Linux gives (64 KiB).
fn sized(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0u8; 512];
    match call(&mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; 64 << 10];
            let length = call(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(e) => Err(e),
    }
}

/// Names in a folder, sorted by their bytes, held in one piece of memory.
#[derive(Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    spans: Vec<(u32, u16)>,
}

impl Names {
    /// Reads all names but `.` and `..`.
    pub fn read(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut names = Names::default();
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let start = u32::try_from(names.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
            names.spans.push((start, u16::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?));
            names.bytes.extend_from_slice(name);
        }
        let bytes = &names.bytes;
        names.spans.sort_unstable_by(|a, b| slice(bytes, *a).cmp(slice(bytes, *b)));
        Ok(names)
    }

    /// The `index`th name.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans.get(index).map(|span| slice(&self.bytes, *span))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

fn slice(bytes: &[u8], (start, length): (u32, u16)) -> &[u8] {
    let start = start as usize;
    bytes.get(start..start + usize::from(length)).unwrap_or_default()
}

/// Folders held open at once on the way down; deeper trees close the upper ones and open them again on the way back.
const MAX_OPEN: usize = 64;

/// The way from a base folder down to the present one. Each step was opened without following links; a step that was closed to
/// save descriptors is opened again the same way.
pub(crate) struct DirStack {
    base: OwnedFd,
    open: OpenDir,
    levels: Vec<(Vec<u8>, Option<OwnedFd>)>,
}

impl DirStack {
    /// Standing in `base`.
    pub fn new(base: OwnedFd) -> Self {
        Self::opening(base, open_dir)
    }

    /// Standing in `base`; a step that is opened again is opened this way.
    pub fn opening(base: OwnedFd, open: OpenDir) -> Self {
        DirStack { base, open, levels: Vec::new() }
    }

    /// Steps below the base.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Name of the step at `index`.
    pub fn name(&self, index: usize) -> Option<&[u8]> {
        self.levels.get(index).map(|level| level.0.as_slice())
    }

    /// Goes one step down, into an open folder.
    pub fn push(&mut self, name: &[u8], fd: OwnedFd) {
        self.levels.push((name.to_vec(), Some(fd)));
        if let Some(far) = self.levels.len().checked_sub(MAX_OPEN + 1) {
            self.levels[far].1 = None;
        }
    }

    /// Goes one step up; says the name of the step left.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        self.levels.pop().map(|level| level.0)
    }

    /// The present folder.
    pub fn fd(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        let Some(top) = self.levels.len().checked_sub(1) else { return Ok(self.base.as_fd()) };
        if self.levels[top].1.is_none() {
            let open = self.levels.iter().rposition(|level| level.1.is_some());
            let mut fd = match open.and_then(|i| self.levels[i].1.as_ref()) {
                Some(fd) => fd.try_clone().map_err(|_| Errno::MFILE)?,
                None => self.base.try_clone().map_err(|_| Errno::MFILE)?,
            };
            for i in open.map_or(0, |i| i + 1)..=top {
                let next = (self.open)(fd.as_fd(), &self.levels[i].0)?;
                if i + MAX_OPEN / 2 > top {
                    self.levels[i].1 = Some(next.try_clone().map_err(|_| Errno::MFILE)?);
                }
                fd = next;
            }
        }
        self.levels[top].1.as_ref().map(|fd| fd.as_fd()).ok_or(Errno::BADF)
    }
}

/// Goes from an open folder along a path of names, never through a link.
pub(crate) fn open_beneath<'a>(base: BorrowedFd<'_>, names: impl Iterator<Item = &'a [u8]>) -> Result<OwnedFd, Errno> {
    let mut fd = base.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    for name in names {
        fd = open_dir(fd.as_fd(), name)?;
    }
    Ok(fd)
}

/// A path's bytes for people: control characters and broken UTF-8 are made visible.
pub(crate) fn shown(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }
    out
}
