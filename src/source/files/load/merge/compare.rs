//! Comparing what was loaded with what is live.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};
use rustix::io::Errno;

use super::open_live;
use super::steps::Step;
use crate::error::{Context, Error, Result};
use crate::source::files::filter::Filter;
use crate::source::files::load::look::Look;
use crate::source::files::load::state::{RootState, State};
use crate::source::files::load::tree::failed;
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
    let filter = Filter::new(&details.include, &details.exclude, details.since)?;
    let unreadable = details.unreadable.entries.iter().map(|(path, _)| path.clone()).collect();
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
        filter,
        unreadable,
        // What could not be listed in full must not be taken for complete; an age limit says nothing about what is older.
        takes_extras: details.since.is_none() && details.unreadable.more == 0,
        root: root.record.path.clone(),
        device,
        line: Vec::new(),
    };
    plan.folder(stage.as_fd(), live.as_fd(), &mut Vec::new())?;
    let file = plan.out.into_inner().map_err(|e| Error::failed("write the list of steps").because(e.into_error()))?;
    file.sync_all().context(|| "write the list of steps")?;
    rustix::fs::fsync(&base).map_err(|e| failed("write to the disk", b"the folder", e))?;
    Ok(true)
}

struct Plan {
    out: std::io::BufWriter<std::fs::File>,
    filter: Filter,
    unreadable: std::collections::HashSet<String>,
    takes_extras: bool,
    root: String,
    device: u64,
    line: Vec<u8>,
}

/// Deepest tree that is merged: each level holds two folders open.
const MAX_DEPTH: usize = 400;

impl Plan {
    fn step(&mut self, step: Step, path: &[u8]) -> Result<()> {
        self.line.clear();
        step.write(path, &mut self.line);
        self.out.write_all(&self.line).context(|| "write the list of steps")
    }

    /// A folder that is on both sides.
    fn folder(&mut self, stage: BorrowedFd<'_>, live: BorrowedFd<'_>, path: &mut Vec<u8>) -> Result<()> {
        if path.iter().filter(|b| **b == b'/').count() > MAX_DEPTH {
            return Err(
                Error::failed(format!("{}/{} is too deep to be merged", self.root, shown(path))).hint("restore with --target FOLDER")
            );
        }
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
        match (new.kind == NodeKind::Dir, now.kind == NodeKind::Dir) {
            (false, false) => self.step(Step::Replace, path),
            (true, true) => {
                let below = sys::open_dir(stage, name).map_err(|e| failed("open", path, e))?;
                if now.id.dev != self.device {
                    let names = Names::read(below.as_fd()).map_err(|e| failed("read", path, e))?;
                    // The place to mount on, stored empty: what is mounted there is not ours.
                    return if names.is_empty() {
                        Ok(())
                    } else {
                        Err(Error::failed(format!("{}/{} is another file system", self.root, shown(path)))
                            .hint("restore with --target FOLDER"))
                    };
                }
                let now = sys::open_dir(live, name).map_err(|e| failed("open", path, e))?;
                self.folder(below.as_fd(), now.as_fd(), path)
            }
            _ if now.id.dev != self.device => {
                Err(Error::failed(format!("{}/{} is another file system", self.root, shown(path))).hint("restore with --target FOLDER"))
            }
            _ => self.step(Step::Turn, path),
        }
    }

    /// Something live that the set does not hold.
    fn extra(&mut self, live: BorrowedFd<'_>, name: &[u8], node: Node, path: &mut Vec<u8>) -> Result<()> {
        let full = format!("{}/{}", self.root.trim_end_matches('/'), shown(path));
        let left_alone = !self.takes_extras
            || is_leftover(name)
            || self.filter.excludes(path)
            || node.id.dev != self.device
            || self.unreadable.contains(&full);
        if left_alone {
            return Ok(());
        }
        match node.kind {
            NodeKind::File | NodeKind::Symlink if self.filter.includes(path, node.mtime.0) => self.step(Step::Extra, path),
            NodeKind::Dir if path.iter().filter(|b| **b == b'/').count() > MAX_DEPTH => Ok(()),
            NodeKind::Dir => {
                // Not as a whole: there may be sockets, mounts or excluded things in it. Emptied folders stay.
                let below = sys::open_dir(live, name).map_err(|e| failed("open", path, e))?;
                let names = Names::read(below.as_fd()).map_err(|e| failed("read", path, e))?;
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
