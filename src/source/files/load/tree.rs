//! Whole trees: going through them, counting, measuring, removing. Never through a symbolic link.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, unlinkat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result, io_kind};
use crate::format::tar::Totals;
use crate::source::files::mounts::Mounts;
use crate::source::files::sys::{self, DirStack, Names, Node, NodeKind, OpenDir, shown};

/// An error of the system about a path.
pub(crate) fn failed(doing: &str, path: &[u8], error: Errno) -> Error {
    let error = std::io::Error::from(error);
    Error::new(io_kind(&error), format!("{doing} {}", shown(path))).because(error)
}

/// What a walk meets. `path` is relative to the walk's start.
pub(crate) enum Met<'a> {
    /// Something that is no folder.
    Leaf { dir: BorrowedFd<'a>, name: &'a [u8], node: Node },
    /// A folder, before what is in it.
    Enter { fd: BorrowedFd<'a>, node: Node },
    /// A folder, after what is in it.
    Leave { dir: BorrowedFd<'a>, name: &'a [u8] },
}

/// Goes through `name` in `base`, be it a file or a folder. Entries that vanish meanwhile are passed over.
pub(crate) fn walk(base: BorrowedFd<'_>, name: &[u8], visit: &mut dyn FnMut(&[u8], Met<'_>) -> Result<()>) -> Result<()> {
    walk_opening(base, name, sys::open_dir, visit)
}

fn walk_opening(base: BorrowedFd<'_>, name: &[u8], open: OpenDir, visit: &mut dyn FnMut(&[u8], Met<'_>) -> Result<()>) -> Result<()> {
    let not_opened = |path: &[u8], e: Errno| match e {
        Errno::XDEV => Error::failed(format!("something is mounted at {} in {}", shown(path), shown(name))).hint("unmount it"),
        e => failed("open", path, e),
    };
    let node = sys::lstat(base, name).map_err(|e| failed("look at", name, e))?;
    if node.kind != NodeKind::Dir {
        return visit(b"", Met::Leaf { dir: base, name, node });
    }
    let mut path: Vec<u8> = Vec::new();
    let mut stack = DirStack::opening(base.try_clone_to_owned().map_err(|_| failed("open", name, Errno::MFILE))?, open);
    let mut frames: Vec<(Names, usize, usize)> = Vec::new();
    let mut enter = Some((name.to_vec(), node));
    loop {
        if let Some((name, node)) = enter.take() {
            let dir = stack.fd().map_err(|e| not_opened(&path, e))?;
            let fd = open(dir, &name).map_err(|e| not_opened(&path, e))?;
            visit(&path, Met::Enter { fd: fd.as_fd(), node })?;
            let names = Names::read(fd.as_fd()).map_err(|e| failed("read", &path, e))?;
            frames.push((names, 0, path.len()));
            stack.push(&name, fd);
        }
        let Some((names, next, length)) = frames.last_mut() else { return Ok(()) };
        path.truncate(*length);
        let Some(name) = names.get(*next) else {
            frames.pop();
            let left = stack.pop().unwrap_or_default();
            let dir = stack.fd().map_err(|e| not_opened(&path, e))?;
            visit(&path, Met::Leave { dir, name: &left })?;
            continue;
        };
        *next += 1;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let dir = stack.fd().map_err(|e| not_opened(&path, e))?;
        match sys::lstat_opt(dir, name).map_err(|e| failed("look at", &path, e))? {
            Some(node) if node.kind == NodeKind::Dir => enter = Some((name.to_vec(), node)),
            Some(node) => visit(&path, Met::Leaf { dir, name, node })?,
            None => {}
        }
    }
}

/// Counts a tree as the archive's walker would: further names of a file are hard links.
pub(crate) fn totals(base: BorrowedFd<'_>, name: &[u8]) -> Result<Totals> {
    let mut totals = Totals::default();
    let mut seen = HashMap::new();
    walk(base, name, &mut |_, met| {
        match met {
            Met::Leaf { node, .. } => match node.kind {
                NodeKind::File if node.links > 1 && seen.insert(node.id, ()).is_some() => totals.hardlinks += 1,
                NodeKind::File => {
                    totals.files += 1;
                    totals.bytes += node.size;
                }
                NodeKind::Symlink => totals.symlinks += 1,
                _ => totals.others += 1,
            },
            Met::Enter { .. } => totals.dirs += 1,
            Met::Leave { .. } => {}
        }
        Ok(())
    })?;
    Ok(totals)
}

/// Bytes on disk and number of things, as far as they could be counted in the time given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub things: u64,
    pub disk_bytes: u64,
    /// The first things that may be neither changed nor renamed, by their path in the tree; empty for the tree itself.
    pub fixed: Vec<Vec<u8>>,
    /// Counted to the end.
    pub whole: bool,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.whole { "" } else { "more than " };
        write!(f, "{more}{} in {} entries", size(self.disk_bytes), self.things)
    }
}

/// Most things that may not be changed which are remembered.
const MAX_FIXED: usize = 1000;

/// Measures a tree, stopping when the time is over.
pub(crate) fn measure(base: BorrowedFd<'_>, name: &[u8], limit: Duration) -> Measured {
    let start = Instant::now();
    let mut out = Measured::default();
    let done = walk(base, name, &mut |path, met| {
        let (node, fixed) = match met {
            Met::Leaf { dir, name, node } => (Some(node), sys::is_fixed(dir, name)),
            Met::Enter { fd, node } => (Some(node), sys::is_open_fixed(fd)),
            Met::Leave { .. } => (None, false),
        };
        if let Some(node) = node {
            out.things += 1;
            out.disk_bytes += node.blocks * 512;
        }
        if fixed && out.fixed.len() < MAX_FIXED {
            out.fixed.push(path.to_vec());
        }
        if start.elapsed() > limit { Err(Error::failed("time is over")) } else { Ok(()) }
    });
    out.whole = done.is_ok();
    out
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Removes a tree; nothing to do when it is not there. Anything mounted in it, be it of the same device, is an error before anything is
/// removed: its data is not ours.
pub(crate) fn remove(base: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let Some(top) = sys::lstat_opt(base, name).map_err(|e| failed("look at", name, e))? else { return Ok(()) };
    let folder = std::fs::read_link(format!("/proc/self/fd/{}", base.as_raw_fd())).context(|| "find the path of an open folder")?;
    Mounts::of_machine()?.refuse_within(&folder.join(OsStr::from_bytes(name)), "remove")?;
    walk_opening(base, name, sys::open_dir_no_mount, &mut |path, met| {
        let done = match met {
            Met::Leaf { dir, name, .. } => unlinkat(dir, name, AtFlags::empty()),
            Met::Enter { node, .. } if node.id.dev != top.id.dev => {
                return Err(
                    Error::failed(format!("another file system is mounted at {} in {}", shown(path), shown(name))).hint("unmount it")
                );
            }
            // Whoever owns it may lack the right to write in it.
            Met::Enter { fd, node } if node.mode & 0o700 != 0o700 => rustix::fs::fchmod(fd, Mode::from_raw_mode(node.mode | 0o700)),
            Met::Enter { .. } => Ok(()),
            Met::Leave { dir, name } => unlinkat(dir, name, AtFlags::REMOVEDIR),
        };
        match done {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(failed("remove", path, e)),
        }
    })
}
