//! The walk that turns roots into one archive.
//!
//! Every step down is taken from an open folder and never through a symbolic link, so that a folder swapped for a link during the
//! walk cannot lead outside. Order: by the bytes of names, a folder before what is in it.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result, io_kind};
use crate::format::tar::{self, Entry, EntryKind, Extent, Totals, Xattr};
use crate::pipeline::plain::PlainSender;
use crate::source::files::content::{self, Out};
use crate::source::files::filter::{Filter, Taken};
use crate::source::files::mounts::Mounts;
use crate::source::files::names::is_leftover;
use crate::source::files::owners::Owners;
use crate::source::files::report::{LEFTOVER, OWN_STATE, Report};
use crate::source::files::roots::{Root, RootKind};
use crate::source::files::sys::{self, DirStack, Names, Node, NodeId, NodeKind, shown};

/// What a dump ended with.
pub(super) struct Dumped {
    pub report: Report,
    pub totals: Totals,
}

/// Writes the whole archive. Blocks; for a thread of its own.
pub(super) fn dump(
    roots: &[Root],
    filter: &Filter,
    one_file_system: bool,
    sender: PlainSender,
    cancel: CancellationToken,
) -> Result<Dumped> {
    let mut walk = Walk {
        out: Out::new(sender, cancel),
        taken: filter.of(""),
        one_file_system,
        roots: roots.iter().map(|root| root.id).collect(),
        owners: Owners::of_machine(),
        links: HashMap::new(),
        mounts: Mounts::of_machine().unwrap_or_default(),
        mounted: HashSet::new(),
        report: Report::default(),
        totals: Totals::default(),
        path: Vec::new(),
        root_length: 0,
        pending: Vec::new(),
    };
    let mut empty = Vec::new();
    for root in roots {
        let before = (walk.report.things, walk.report.unreadable.len());
        walk.taken = filter.of(&root.record.path);
        walk.root(root)?;
        // What could not be read is told as that.
        if (walk.report.things, walk.report.unreadable.len()) == before {
            empty.push(root.record.path.clone());
        }
    }
    walk.report.empty_roots = empty;
    walk.out.with(|buffer| buffer.extend_from_slice(tar::end_of_archive()))?;
    walk.out.flush()?;
    Ok(Dumped { report: walk.report, totals: walk.totals })
}

struct Walk<'a> {
    out: Out,
    /// What is taken below the present root.
    taken: Taken<'a>,
    one_file_system: bool,
    /// Folders that are roots themselves are not entered from another root.
    roots: HashSet<NodeId>,
    owners: Owners,
    /// Files with several names: the first name in the archive, and how many names are still to come.
    links: HashMap<LinkKey, (Vec<u8>, u64)>,
    /// What is mounted on this machine; where that cannot be read only devices tell file systems apart.
    mounts: Mounts,
    /// Mount points below the present root, relative to it.
    mounted: HashSet<Vec<u8>>,
    report: Report,
    totals: Totals,
    /// Name in the archive of what is being looked at.
    path: Vec<u8>,
    /// Where the part below the root begins in `path`.
    root_length: usize,
    /// Folders on the way down that have not been written yet (only with `include` or an age limit).
    pending: Vec<Entry>,
}

/// What makes two names one file. Time and length are in it because an inode's number may be given out again during the walk.
type LinkKey = (NodeId, u64, (i64, u32));

fn link_key(node: &Node) -> LinkKey {
    (node.id, node.size, node.mtime)
}

/// A folder being gone through.
struct Frame {
    names: Names,
    next: usize,
    path_length: usize,
    pending: usize,
}

/// Whether an error means that the thing is gone, or is another thing by now.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::LOOP | Errno::NOTDIR)
}

/// Most files with several names that are remembered at a time, some 200 bytes each: names outside the root never come to take them off.
const MAX_LINKS: usize = if cfg!(test) { 4 } else { 500_000 };

/// What an error about a name means. A network file system answers `ESTALE`, a socket or fifo in the place of a file `ENXIO`: only a
/// second look tells whether the thing is gone.
fn second_look(dir: BorrowedFd<'_>, name: &[u8], error: Errno) -> Errno {
    match (error, sys::lstat(dir, name)) {
        (Errno::STALE | Errno::NXIO, Err(again)) if is_gone(again) => Errno::NOENT,
        (Errno::NXIO, Ok(node)) if !matches!(node.kind, NodeKind::File | NodeKind::Dir) => Errno::NOENT,
        _ => error,
    }
}

impl Walk<'_> {
    fn root(&mut self, root: &Root) -> Result<()> {
        self.links.clear();
        self.pending.clear();
        self.path = root.record.name.clone().into_bytes();
        let failed = |e: Errno| {
            let e = std::io::Error::from(e);
            Error::new(io_kind(&e), format!("open {}", root.record.path)).because(e)
        };
        if root.record.kind == RootKind::File {
            let (Some(parent), Some(name)) = (root.real.parent(), root.real.file_name()) else {
                return Err(Error::failed(format!("path {} has no parent", root.record.path)));
            };
            let parent = sys::open_parent_path(parent).map_err(failed)?;
            self.root_length = self.path.len() - root.record.name.rsplit('/').next().map_or(0, str::len);
            let node = sys::lstat(parent.as_fd(), name.as_bytes()).map_err(failed)?;
            return self.file(parent.as_fd(), name.as_bytes(), node);
        }
        let fd = sys::open_dir_path(&root.real).map_err(failed)?;
        let node = sys::fstat(&fd).map_err(failed)?;
        if node.id != root.id {
            return Err(Error::failed(format!("{} was replaced while the backup ran", root.record.path)).hint("run the backup again"));
        }
        self.mounted = self.mounts.relative_to(&root.real);
        self.root_length = if self.path.is_empty() { 0 } else { self.path.len() + 1 };
        self.folder(node, fd)
    }

    /// Everything below an open root folder.
    fn folder(&mut self, node: Node, fd: OwnedFd) -> Result<()> {
        let root_dev = node.id.dev;
        let mut frames = Vec::new();
        if let Some(frame) = self.enter(&node, fd.as_fd())? {
            // The root itself always stands in the archive.
            self.write_pending()?;
            frames.push(frame);
        }
        let mut stack = DirStack::new(fd);
        while let Some(frame) = frames.last_mut() {
            self.out.check()?;
            self.path.truncate(frame.path_length);
            let Some(name) = frame.names.get(frame.next) else {
                self.pending.truncate(frame.pending);
                frames.pop();
                stack.pop();
                continue;
            };
            frame.next += 1;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            if is_leftover(name) {
                self.note(|report, path| report.skipped.add(path, LEFTOVER));
                continue;
            }
            if self.taken.excludes(&self.path[self.root_length..]) {
                continue;
            }
            let dir = match stack.fd() {
                Ok(dir) => dir,
                Err(e) => {
                    // The folder on the way was moved: its other entries fare the same.
                    self.lost(e);
                    continue;
                }
            };
            let node = match sys::lstat(dir, name) {
                Ok(node) => node,
                Err(e) => {
                    self.lost(second_look(dir, name, e));
                    continue;
                }
            };
            if node.kind != NodeKind::Dir {
                self.leaf(dir, name, node)?;
                continue;
            }
            if self.roots.contains(&node.id) {
                continue;
            }
            let mounted = self.mounted.contains(&self.path[self.root_length..]);
            if self.one_file_system && (node.id.dev != root_dev || mounted) {
                self.mount_point(&node, if node.id.dev != root_dev { "another file system" } else { "a mount point" })?;
                continue;
            }
            let opened = match sys::open_dir(dir, name) {
                Ok(opened) => opened,
                Err(e) => {
                    let e = second_look(dir, name, e);
                    self.lost(e);
                    if !is_gone(e) && self.taken.takes_folders() {
                        let entry = self.entry(EntryKind::Dir, &node, Vec::new());
                        self.write_dir(entry)?;
                    }
                    continue;
                }
            };
            let node = match sys::fstat(&opened) {
                Ok(node) if !self.one_file_system || node.id.dev == root_dev => node,
                Ok(_) => continue,
                Err(e) => {
                    self.lost(e);
                    continue;
                }
            };
            if let Some(entered) = self.enter(&node, opened.as_fd())? {
                let name = name.to_vec();
                stack.push(&name, opened);
                frames.push(entered);
            }
        }
        Ok(())
    }

    /// Writes (or holds back) an open folder's own entry and reads its names.
    fn enter(&mut self, node: &Node, fd: BorrowedFd<'_>) -> Result<Option<Frame>> {
        let xattrs = self.xattrs(fd);
        let entry = self.entry(EntryKind::Dir, node, xattrs);
        let pending = self.pending.len();
        self.pending.push(entry);
        if self.taken.takes_folders() {
            self.write_pending()?;
        }
        match Names::read(fd) {
            Ok(names) => Ok(Some(Frame { names, next: 0, path_length: self.path.len(), pending })),
            Err(e) => {
                self.lost(e);
                self.pending.truncate(pending);
                Ok(None)
            }
        }
    }

    fn mount_point(&mut self, node: &Node, what: &str) -> Result<()> {
        self.note(|report, path| report.mounts.add(path, what));
        if self.taken.takes_folders() {
            // The place to mount on; its mode is that of the mounted folder.
            let entry = self.entry(EntryKind::Dir, node, Vec::new());
            self.write_dir(entry)?;
        }
        Ok(())
    }

    /// Something that is no folder.
    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &[u8], node: Node) -> Result<()> {
        match node.kind {
            NodeKind::File | NodeKind::Symlink if !self.taken.includes(&self.path[self.root_length..], node.mtime.0) => Ok(()),
            NodeKind::File => self.file(dir, name, node),
            NodeKind::Symlink => self.symlink(dir, name, node),
            other => {
                // Told only where a file in its place would have been taken.
                let wanted = self.taken.includes(&self.path[self.root_length..], node.mtime.0);
                self.note(|report, path| {
                    report.skipped.add(path, other.name());
                    if wanted {
                        report.special.add(path, other.name());
                    }
                });
                Ok(())
            }
        }
    }

    fn symlink(&mut self, dir: BorrowedFd<'_>, name: &[u8], node: Node) -> Result<()> {
        let target = match rustix::fs::readlinkat(dir, name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(e) => {
                // EINVAL: it is no link any more.
                self.lost(if e == Errno::INVAL { Errno::NOENT } else { second_look(dir, name, e) });
                return Ok(());
            }
        };
        let entry = Entry { link: target, ..self.entry(EntryKind::Symlink, &node, Vec::new()) };
        self.write(&entry)?;
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], node: Node) -> Result<()> {
        if crate::state::is_open_here(node.id.dev, node.id.ino) {
            self.note(|report, path| report.skipped.add(path, OWN_STATE));
            return Ok(());
        }
        if node.links > 1 && self.hard_link(&node)? {
            return Ok(());
        }
        let fd = match sys::open_file(dir, name) {
            Ok(fd) => fd,
            Err(e) => {
                self.lost(second_look(dir, name, e));
                return Ok(());
            }
        };
        // What was opened counts from here on: its length is fixed now.
        let node = match sys::fstat(&fd) {
            Ok(node) if node.kind == NodeKind::File => node,
            Ok(_) => {
                self.lost(Errno::NOENT);
                return Ok(());
            }
            Err(e) => {
                self.lost(e);
                return Ok(());
            }
        };
        let xattrs = self.xattrs(fd.as_fd());
        let sparse = content::pieces(fd.as_fd(), &node);
        let entry = Entry { size: node.size, sparse, ..self.entry(EntryKind::File, &node, xattrs) };
        self.write(&entry)?;
        if node.links > 1 {
            if self.links.len() < MAX_LINKS {
                self.links.insert(link_key(&node), (self.path.clone(), node.links - 1));
            } else {
                self.report.links_cut += 1;
            }
        }
        let whole = [Extent { offset: 0, length: node.size }];
        let copied = content::copy(fd.as_fd(), entry.sparse.as_deref().unwrap_or(&whole), &mut self.out)?;
        if let Some(error) = copied.error {
            // Its other names are no links to zeros: each is tried, and listed.
            self.links.remove(&link_key(&node));
            let why = format!("{} bytes of it are zeros in the set: {}", copied.missing_bytes, std::io::Error::from(error));
            self.note(|report, path| report.unreadable.add(path, why));
            return Ok(());
        }
        let what = match sys::fstat(&fd) {
            _ if copied.missing_bytes > 0 => format!("it shrank, {} bytes at its end are zeros in the set", copied.missing_bytes),
            Ok(now) if now.size > node.size => format!("it grew; its first {} bytes are in the set", node.size),
            Ok(now) if now.mtime != node.mtime || now.size != node.size => "it was written to".to_owned(),
            _ => return Ok(()),
        };
        self.note(|report, path| report.changed.add(path, what));
        Ok(())
    }

    /// Writes a link when another name of the file already stands in the archive; says whether it did.
    fn hard_link(&mut self, node: &Node) -> Result<bool> {
        let Some((first, left)) = self.links.get_mut(&link_key(node)) else { return Ok(false) };
        let link = first.clone();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.links.remove(&link_key(node));
        }
        let entry = Entry { link, ..self.entry(EntryKind::HardLink, node, Vec::new()) };
        self.write(&entry)?;
        Ok(true)
    }

    fn entry(&mut self, kind: EntryKind, node: &Node, xattrs: Vec<Xattr>) -> Entry {
        let (uname, gname) = (self.owners.user(node.uid).to_vec(), self.owners.group(node.gid).to_vec());
        if !uname.is_empty() {
            self.report.users.entry(node.uid).or_insert_with(|| shown(&uname));
        }
        if !gname.is_empty() {
            self.report.groups.entry(node.gid).or_insert_with(|| shown(&gname));
        }
        let path = if self.path.is_empty() { b".".to_vec() } else { self.path.clone() };
        Entry {
            mode: node.mode,
            uid: u64::from(node.uid),
            gid: u64::from(node.gid),
            uname,
            gname,
            mtime: node.mtime,
            xattrs,
            ..Entry::new(path, kind)
        }
    }

    fn write_dir(&mut self, entry: Entry) -> Result<()> {
        self.pending.push(entry);
        let done = self.write_pending();
        self.pending.pop();
        done
    }

    /// Writes the folders held back. They stay in the list (emptied of their name) so that frames find their own again.
    fn write_pending(&mut self) -> Result<()> {
        for i in 0..self.pending.len() {
            if self.pending[i].path.is_empty() {
                continue;
            }
            let entry = std::mem::replace(&mut self.pending[i], Entry::new("", EntryKind::Dir));
            self.put(&entry)?;
        }
        Ok(())
    }

    /// Writes an entry that is no folder, after the folders it lies in.
    fn write(&mut self, entry: &Entry) -> Result<()> {
        self.write_pending()?;
        self.report.things += 1;
        self.put(entry)
    }

    fn put(&mut self, entry: &Entry) -> Result<()> {
        self.totals.add(entry);
        self.out.with(|buffer| tar::encode(entry, buffer))?;
        Ok(())
    }

    fn xattrs(&mut self, fd: BorrowedFd<'_>) -> Vec<Xattr> {
        match sys::xattrs(fd) {
            Ok(xattrs) => xattrs,
            Err(e) => {
                self.note(|report, path| report.without_attributes.add(path, std::io::Error::from(e).to_string()));
                Vec::new()
            }
        }
    }

    /// Notes something that could not be read: gone is a warning, everything else leaves the set partial.
    fn lost(&mut self, error: Errno) {
        self.note(|report, path| {
            if is_gone(error) {
                report.vanished.add(path, "vanished before it could be read");
            } else {
                report.unreadable.add(path, std::io::Error::from(error).to_string());
            }
        });
    }

    fn note(&mut self, add: impl FnOnce(&mut Report, &[u8])) {
        let path = [b"/", self.path.as_slice()].concat();
        add(&mut self.report, &path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::plain;

    #[test]
    fn what_an_error_means_is_looked_at_twice() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("there"), b"x").unwrap();
        std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let fd = sys::open_dir_path(dir.path()).unwrap();
        let look = |name: &str, error| is_gone(second_look(fd.as_fd(), name.as_bytes(), error));
        for error in [Errno::STALE, Errno::NXIO] {
            assert!(!look("there", error) && look("gone", error), "{error}");
        }
        assert!(look("socket", Errno::NXIO) && !look("gone", Errno::IO));
    }

    #[test]
    fn files_with_several_names_are_not_remembered_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        for i in 0..MAX_LINKS + 2 {
            // One name of each outside, two inside.
            let first = dir.path().join(format!("outside{i}"));
            std::fs::write(&first, b"content").unwrap();
            for name in ["a", "b"] {
                std::fs::hard_link(&first, tree.join(format!("{name}{i}"))).unwrap();
            }
        }
        let roots = crate::source::files::roots::find(&[tree]).unwrap();
        let filter = Filter::new(&[], &[], &[], None).unwrap();
        let (sender, mut receiver) = plain::channel();
        let reader = std::thread::spawn(move || while receiver.blocking_next().is_some_and(|piece| piece != plain::Plain::End) {});
        let dumped = dump(&roots, &filter, true, sender, CancellationToken::new()).unwrap();
        reader.join().unwrap();
        let linked = MAX_LINKS as u64;
        assert_eq!((dumped.totals.hardlinks, dumped.totals.files), (linked, linked + 4));
        assert_eq!(dumped.report.links_cut, 4);
    }
}
