//! Comparing what was loaded with what is live.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};
use rustix::io::Errno;

use super::open_live;
use super::steps::Step;
use crate::error::{Context, Error, Result};
use crate::source::files::filter::Taken;
use crate::source::files::load::look::Look;
use crate::source::files::load::state::{RootState, State};
use crate::source::files::load::tree::failed;
use crate::source::files::mounts::Mounts;
use crate::source::files::names::{Beside, is_leftover};
use crate::source::files::sys::{self, Names, Node, NodeKind, shown};

/// Writes the list of steps, changing nothing else. False: the set holds nothing for this root.
pub(in super::super) fn plan(root: &RootState, state: &State) -> Result<bool> {
    let base = root.open_base()?;
    let stage_name = root.tree(Beside::Stage, &state.restore);
    let Some(stage) = sys::lstat_opt(base.as_fd(), &stage_name).map_err(|e| failed("look at", &stage_name, e))? else { return Ok(false) };
    if stage.kind != NodeKind::Dir {
        return Err(Error::corrupt(format!("{} is no folder in the set", root.record.path)));
    }
    let live = open_live(root, base.as_fd())?;
    let stage = sys::open_dir(base.as_fd(), &stage_name).map_err(|e| failed("open", &stage_name, e))?;
    let details = &state.details;
    let filter = details.filter()?;
    let taken = filter.of(&root.record.path);
    let unreadable: HashSet<String> = details.unreadable.entries.iter().map(|(path, _)| path.clone()).collect();
    let sorts = [Beside::Stage, Beside::Old, Beside::Undone];
    let own = sorts.iter().map(|sort| root.tree(*sort, &state.restore)).chain([root.steps(&state.restore)]).collect();
    let root_shown = shown(&[b"/", root.record.name.as_bytes()].concat());
    if unreadable.contains(&root_shown) {
        // The set does not hold what is in the root itself: nothing is taken from it.
        return Ok(false);
    }
    let device = sys::fstat(&live).map_err(|e| failed("look at", b"the live folder", e))?.id.dev;
    let steps_name = root.steps(&state.restore);
    // A list left by a try that crashed before it was complete.
    match unlinkat(&base, steps_name.as_slice(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(failed("remove", &steps_name, e)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&base, steps_name.as_slice(), flags, Mode::from_raw_mode(0o600))
        .map_err(|e| failed("create", &steps_name, e))?;
    let mut plan = Plan {
        out: std::io::BufWriter::new(std::fs::File::from(file)),
        taken,
        unreadable,
        // What could not be listed in full must not be taken for complete; an age limit says nothing about what is older.
        takes_extras: details.since.is_none() && details.unreadable.more == 0,
        root: root.record.path.clone(),
        root_shown,
        own,
        mounts: Mounts::of_machine()?.relative_to(&root.live()),
        device,
        line: Vec::new(),
    };
    plan.folder(stage.as_fd(), live.as_fd(), &mut Vec::new())?;
    let file = plan.out.into_inner().map_err(|e| Error::failed("write the list of steps").because(e.into_error()))?;
    file.sync_all().context(|| "write the list of steps")?;
    rustix::fs::fsync(&base).map_err(|e| failed("write to the disk", b"the folder", e))?;
    Ok(true)
}

struct Plan<'a> {
    out: std::io::BufWriter<std::fs::File>,
    taken: Taken<'a>,
    unreadable: HashSet<String>,
    takes_extras: bool,
    root: String,
    /// Its path as the lists of the details write it.
    root_shown: String,
    /// Names of this restore's own trees.
    own: Vec<Vec<u8>>,
    /// Mount points below the live folder, relative to it.
    mounts: HashSet<Vec<u8>>,
    device: u64,
    line: Vec<u8>,
}

/// Deepest tree that is merged: each level holds two folders open.
const MAX_DEPTH: usize = 400;

impl Plan<'_> {
    fn step(&mut self, step: Step, path: &[u8]) -> Result<()> {
        self.line.clear();
        step.write(path, &mut self.line);
        self.out.write_all(&self.line).context(|| "write the list of steps")
    }

    /// Whether the set holds nothing, or not all, of a live path: it or a folder around it could not be read.
    fn unread(&self, path: &[u8]) -> bool {
        if self.unreadable.is_empty() {
            return false;
        }
        let ends = memchr::memchr_iter(b'/', path).chain([path.len()]);
        let mut parts = ends.map(|end| shown(&path[..end])).filter(|part| !part.is_empty());
        parts.any(|part| self.unreadable.contains(&format!("{}/{part}", self.root_shown.trim_end_matches('/'))))
    }

    /// Whether a live thing is not the live folder's file system: mounted there, be it from the same device.
    fn foreign(&self, node: &Node, path: &[u8]) -> bool {
        node.id.dev != self.device || self.mounts.contains(path)
    }

    /// Whether anything is mounted at or below a live path.
    fn mounted_within(&self, path: &[u8]) -> bool {
        self.mounts.iter().any(|mount| mount.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'))
    }

    fn refuse_mount(&self, path: &[u8]) -> Error {
        Error::failed(format!("something is mounted at {}/{}", self.root, shown(path))).hint("unmount it, or restore with --target FOLDER")
    }

    /// What may be neither changed nor renamed stops the merge before its first step: half of it would be made.
    fn refuse_fixed(&self, fixed: bool, path: &[u8]) -> Result<()> {
        if !fixed {
            return Ok(());
        }
        let full = format!("{}/{}", self.root.trim_end_matches('/'), shown(path));
        Err(Error::failed(format!("{full} may be neither changed nor renamed, and nothing was changed"))
            .hint(format!("chattr -i -a {}; or restore with --target FOLDER", crate::process::shell_word(full.trim_end_matches('/')))))
    }

    /// A folder that is on both sides.
    fn folder(&mut self, stage: BorrowedFd<'_>, live: BorrowedFd<'_>, path: &mut Vec<u8>) -> Result<()> {
        if path.iter().filter(|b| **b == b'/').count() > MAX_DEPTH {
            return Err(
                Error::failed(format!("{}/{} is too deep to be merged", self.root, shown(path))).hint("restore with --target FOLDER")
            );
        }
        self.refuse_fixed(sys::is_open_fixed(live), path)?;
        let after = Step::FolderAfter(Look::of(stage, path)?);
        self.step(Step::FolderBefore(Look::of(live, path)?), path)?;
        let (new, now) = (Names::read(stage), Names::read(live));
        let (new, now) = (new.map_err(|e| failed("read", path, e))?, now.map_err(|e| failed("read", path, e))?);
        let (mut i, mut j) = (0, 0);
        let length = path.len();
        loop {
            path.truncate(length);
            let order = match (new.get(i), now.get(j)) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            let name = if order.is_gt() { now.get(j) } else { new.get(i) }.unwrap_or_default().to_vec();
            i += usize::from(order.is_le());
            j += usize::from(order.is_ge());
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let look = |dir, path: &[u8]| sys::lstat_opt(dir, &name).map_err(|e| failed("look at", path, e));
            match order {
                std::cmp::Ordering::Less => self.step(Step::Add, path)?,
                std::cmp::Ordering::Greater => {
                    if let Some(node) = look(live, path)? {
                        self.extra(live, &name, node, path)?;
                    }
                }
                std::cmp::Ordering::Equal => match (look(stage, path)?, look(live, path)?) {
                    (Some(new), Some(now)) => self.both(stage, live, &name, new, now, path)?,
                    (Some(_), None) => self.step(Step::Add, path)?,
                    (None, _) => {}
                },
            }
        }
        path.truncate(length);
        self.step(after, path)
    }

    fn both(&mut self, stage: BorrowedFd<'_>, live: BorrowedFd<'_>, name: &[u8], new: Node, now: Node, path: &mut Vec<u8>) -> Result<()> {
        if self.unread(path) {
            // Empty or zeros in the set: what is live is more.
            return Ok(());
        }
        match (new.kind == NodeKind::Dir, now.kind == NodeKind::Dir) {
            (false, false) if self.foreign(&now, path) => Err(self.refuse_mount(path)),
            (false, false) => {
                self.refuse_fixed(sys::is_fixed(live, name), path)?;
                self.step(Step::Replace, path)
            }
            (true, true) => {
                let below = sys::open_dir(stage, name).map_err(|e| failed("open", path, e))?;
                if self.foreign(&now, path) {
                    let names = Names::read(below.as_fd()).map_err(|e| failed("read", path, e))?;
                    // The place to mount on, stored empty: what is mounted there is not ours.
                    return if names.is_empty() { Ok(()) } else { Err(self.refuse_mount(path)) };
                }
                let now = sys::open_dir(live, name).map_err(|e| failed("open", path, e))?;
                self.folder(below.as_fd(), now.as_fd(), path)
            }
            _ if self.foreign(&now, path) || self.mounted_within(path) => Err(self.refuse_mount(path)),
            _ => {
                self.refuse_fixed(sys::is_fixed(live, name), path)?;
                self.step(Step::Turn, path)
            }
        }
    }

    /// Something live that the set does not hold.
    fn extra(&mut self, live: BorrowedFd<'_>, name: &[u8], node: Node, path: &mut Vec<u8>) -> Result<()> {
        let left_alone = !self.takes_extras
            || is_leftover(name)
            || self.own.iter().any(|own| own == path)
            || self.taken.excludes(path)
            || self.foreign(&node, path)
            || self.unread(path);
        if left_alone {
            return Ok(());
        }
        match node.kind {
            NodeKind::File | NodeKind::Symlink if self.taken.includes(path, node.mtime.0) => {
                self.refuse_fixed(sys::is_fixed(live, name), path)?;
                self.step(Step::Extra, path)
            }
            NodeKind::Dir if path.iter().filter(|b| **b == b'/').count() > MAX_DEPTH => Ok(()),
            NodeKind::Dir => {
                // Not as a whole: there may be sockets, mounts or excluded things in it. Emptied folders stay.
                let below = sys::open_dir(live, name).map_err(|e| failed("open", path, e))?;
                let names = Names::read(below.as_fd()).map_err(|e| failed("read", path, e))?;
                self.refuse_fixed(sys::is_open_fixed(below.as_fd()), path)?;
                self.step(Step::FolderBefore(Look::of(below.as_fd(), path)?), path)?;
                let length = path.len();
                for index in 0..names.len() {
                    let Some(name) = names.get(index) else { break };
                    path.truncate(length);
                    path.push(b'/');
                    path.extend_from_slice(name);
                    if let Some(node) = sys::lstat_opt(below.as_fd(), name).map_err(|e| failed("look at", path, e))? {
                        self.extra(below.as_fd(), name, node, path)?;
                    }
                }
                path.truncate(length);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
