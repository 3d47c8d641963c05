//! Putting a root in place entry by entry: where the root itself cannot be renamed (a mount point), or where the set holds only a
//! part of it (patterns, age, unreadable parts), so that an exchange would take away what was never backed up.
//!
//! First both trees are compared and the steps written to a file; nothing is changed. Then each step is made. A file that is replaced
//! is first linked into the kept tree and then renamed over: its name never stands for nothing. Live entries that the set does not
//! hold are moved aside only if the source would have taken them; all else is left alone. Every step can be repeated, and undone
//! in reverse, by looking at what lies where.

mod compare;
mod steps;

pub(super) use compare::plan;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode, RenameFlags, linkat, mkdirat, renameat, renameat_with};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::source::files::load::look::{Look, set_time};
use crate::source::files::load::state::RootState;
use crate::source::files::load::tree::failed;
use crate::source::files::names::Beside;
use crate::source::files::sys::{self, Node, NodeKind, shown};
use steps::Step;

/// The four trees of a merge.
struct Trees {
    live: OwnedFd,
    stage: Option<OwnedFd>,
    kept: OwnedFd,
    undone: Option<OwnedFd>,
}

fn open_live(root: &RootState, base: BorrowedFd<'_>) -> Result<OwnedFd> {
    let opened =
        if root.name.is_empty() { base.try_clone_to_owned().map_err(|_| Errno::MFILE) } else { sys::open_dir(base, root.name.as_bytes()) };
    opened.map_err(|e| failed("open", root.record.path.as_bytes(), e))
}

/// Reads the list of steps.
fn steps(root: &RootState, base: BorrowedFd<'_>, restore: &str) -> Result<Vec<(Step, Vec<u8>)>> {
    let name = root.steps(restore);
    let fd = sys::open_file(base, &name).map_err(|e| failed("open", &name, e))?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(fd), &mut bytes).context(|| "read the list of steps")?;
    let damaged = || Error::corrupt(format!("the list of steps {} is damaged", shown(&name)));
    let body = bytes.strip_suffix(b"\0").ok_or_else(damaged)?;
    body.split(|b| *b == 0)
        .map(|line| {
            let (step, path) = Step::read(line).ok_or_else(damaged)?;
            Ok((step, path.to_vec()))
        })
        .collect()
}

/// Makes all steps; those already made are passed over.
pub(super) fn run(root: &RootState, restore: &str) -> Result<()> {
    run_some(root, restore, usize::MAX)
}

/// Makes the first `most` steps only; tests stop in between as a crash would.
fn run_some(root: &RootState, restore: &str, most: usize) -> Result<()> {
    let base = root.open_base()?;
    let list = steps(root, base.as_fd(), restore)?;
    let stage_name = root.tree(Beside::Stage, restore);
    let stage = match sys::open_dir(base.as_fd(), &stage_name) {
        Ok(stage) => stage,
        // All done by an earlier try.
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(failed("open", &stage_name, e)),
    };
    let kept = make_tree(base.as_fd(), &root.tree(Beside::Old, restore))?;
    let trees = Trees { live: open_live(root, base.as_fd())?, stage: Some(stage), kept, undone: None };
    for (step, path) in list.iter().take(most) {
        trees.make(step, path).map_err(|e| e.context(format!("put {}/{} in place", root.record.path, shown(path))))?;
    }
    if most < list.len() {
        return Ok(());
    }
    rustix::fs::syncfs(&trees.live).map_err(|e| failed("write to the disk", root.record.path.as_bytes(), e))?;
    super::tree::remove(base.as_fd(), &stage_name)?;
    if let Some((Step::FolderAfter(look), _)) = list.last() {
        // The stage lay in it, where the root is a mount point.
        set_time(&trees.live, look.mtime, b"")?;
    }
    Ok(())
}

/// Takes all steps back, last first. Says what was done.
pub(super) fn undo(root: &RootState, restore: &str) -> Result<String> {
    let base = root.open_base()?;
    let list = steps(root, base.as_fd(), restore)?;
    let trees = Trees {
        live: open_live(root, base.as_fd())?,
        stage: sys::open_dir(base.as_fd(), &root.tree(Beside::Stage, restore)).ok(),
        kept: make_tree(base.as_fd(), &root.tree(Beside::Old, restore))?,
        undone: Some(make_tree(base.as_fd(), &root.tree(Beside::Undone, restore))?),
    };
    for (step, path) in list.iter().rev() {
        trees.unmake(step, path).map_err(|e| e.context(format!("put {}/{} back", root.record.path, shown(path))))?;
    }
    rustix::fs::syncfs(&trees.live).map_err(|e| failed("write to the disk", root.record.path.as_bytes(), e))?;
    Ok(format!(
        "{} is as before the restore; what was there since is now in {}",
        root.record.path,
        root.tree_path(Beside::Undone, restore).display()
    ))
}

/// An error when the kept tree of a merge that was undone still holds what was live before. Looks only.
pub(super) fn nothing_left(root: &RootState, restore: &str) -> Result<()> {
    let base = root.open_base()?;
    let live = open_live(root, base.as_fd())?;
    let kept_name = root.tree(Beside::Old, restore);
    let kept = sys::open_dir(base.as_fd(), &kept_name).map_err(|e| failed("open", &kept_name, e))?;
    for (step, path) in steps(root, base.as_fd(), restore)? {
        if matches!(step, Step::FolderBefore(_) | Step::FolderAfter(_)) {
            continue;
        }
        let Some(old) = node(&parent(&kept, &path, false)?)? else { continue };
        // A try that stopped between link and rename leaves a second name of what is live.
        if node(&parent(&live, &path, false)?)?.is_none_or(|now| now.id != old.id) {
            let shown = root.tree_path(Beside::Old, restore).join(OsStr::from_bytes(&path));
            return Err(Error::failed(format!("{} was not put back by the undo; it is left alone", shown.display()))
                .hint("look at it, and move it away"));
        }
    }
    Ok(())
}

fn make_tree(base: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    match mkdirat(base, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(failed("create", name, e)),
    }
    sys::open_dir(base, name).map_err(|e| failed("open", name, e))
}

/// The folder of a path below a tree's root, and the last name; folders are made on the way if asked for.
fn parent(tree: &OwnedFd, path: &[u8], make: bool) -> Result<Option<(OwnedFd, Vec<u8>)>> {
    let mut parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    let Some(name) = parts.pop() else { return Ok(None) };
    let mut fd = tree.try_clone().context(|| "open a folder")?;
    for part in parts {
        let next = match sys::open_dir(fd.as_fd(), part) {
            Err(Errno::NOENT) if make => {
                mkdirat(&fd, part, Mode::from_raw_mode(0o700)).map_err(|e| failed("create", path, e))?;
                sys::open_dir(fd.as_fd(), part)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !make => return Ok(None),
            other => other,
        };
        fd = next.map_err(|e| failed("open", path, e))?;
    }
    Ok(Some((fd, name.to_vec())))
}

fn node(place: &Option<(OwnedFd, Vec<u8>)>) -> Result<Option<Node>> {
    match place {
        Some((dir, name)) => sys::lstat_opt(dir.as_fd(), name).map_err(|e| failed("look at", name, e)),
        None => Ok(None),
    }
}

/// Moves without replacing.
fn shift(from: &(OwnedFd, Vec<u8>), to: &(OwnedFd, Vec<u8>)) -> Result<()> {
    renameat_with(&from.0, from.1.as_slice(), &to.0, to.1.as_slice(), RenameFlags::NOREPLACE).map_err(|e| failed("rename", &from.1, e))
}

/// Puts `from` in the place of `to`, which is first linked as `aside`: there is no moment without either.
fn replace(from: &(OwnedFd, Vec<u8>), to: &(OwnedFd, Vec<u8>), aside: &(OwnedFd, Vec<u8>)) -> Result<()> {
    match linkat(&to.0, to.1.as_slice(), &aside.0, aside.1.as_slice(), AtFlags::empty()) {
        Ok(()) => {}
        // No hard links here, or not to this file: with a moment in between, then.
        Err(Errno::PERM | Errno::MLINK | Errno::NOTSUP) => shift(to, aside)?,
        Err(e) => return Err(failed("keep", &to.1, e)),
    }
    renameat(&from.0, from.1.as_slice(), &to.0, to.1.as_slice()).map_err(|e| failed("rename", &from.1, e))
}

impl Trees {
    fn make(&self, step: &Step, path: &[u8]) -> Result<()> {
        let Some(stage) = &self.stage else { return Ok(()) };
        match step {
            Step::FolderBefore(_) => return Ok(()),
            Step::FolderAfter(look) => return self.look(path, look),
            _ => {}
        }
        let new = parent(stage, path, false)?;
        let now_new = node(&new)?;
        // A live folder that was removed meanwhile is made again where something is to lie in it.
        let live = parent(&self.live, path, now_new.is_some())?;
        let (Some(live), now_live) = (&live, node(&live)?) else { return Ok(()) };
        let kept_place = |make| parent(&self.kept, path, make);
        if *step == Step::Extra {
            if now_live.is_some()
                && node(&kept_place(false)?)?.is_none()
                && let Some(kept) = kept_place(true)?
            {
                shift(live, &kept)?;
            }
            return Ok(());
        }
        let (Some(new), Some(new_node)) = (&new, now_new) else { return Ok(()) };
        let Some(live_node) = now_live else { return shift(new, live) };
        let Some(kept) = kept_place(true)? else { return Ok(()) };
        let kept_node = sys::lstat_opt(kept.0.as_fd(), &kept.1).map_err(|e| failed("look at", path, e))?;
        match kept_node {
            // A try that stopped between link and rename.
            Some(kept_node) if kept_node.id == live_node.id => {
                renameat(&new.0, new.1.as_slice(), &live.0, live.1.as_slice()).map_err(|e| failed("rename", path, e))
            }
            // Written anew by someone since it was moved aside: both are kept.
            Some(_) => {
                let second = (kept.0.try_clone().context(|| "open a folder")?, [kept.1.as_slice(), b".drctl-again"].concat());
                shift(live, &second)?;
                shift(new, live)
            }
            None if live_node.kind != NodeKind::Dir && new_node.kind != NodeKind::Dir => replace(new, live, &kept),
            None => {
                shift(live, &kept)?;
                shift(new, live)
            }
        }
    }

    fn unmake(&self, step: &Step, path: &[u8]) -> Result<()> {
        let Some(undone) = &self.undone else { return Ok(()) };
        match step {
            Step::FolderAfter(_) => return Ok(()),
            Step::FolderBefore(look) => return self.look(path, look),
            _ => {}
        }
        if let Some(stage) = &self.stage
            && node(&parent(stage, path, false)?)?.is_some()
        {
            // Not put in place yet; but what was live may have been moved aside already.
            if let (kept @ Some(_), Some(live)) = (parent(&self.kept, path, false)?, parent(&self.live, path, true)?)
                && node(&kept)?.is_some()
                && sys::lstat_opt(live.0.as_fd(), &live.1).map_err(|e| failed("look at", path, e))?.is_none()
                && let Some(kept) = kept
            {
                return shift(&kept, &live);
            }
            return Ok(());
        }
        // All folders in which steps were made were there before. One that was removed since is made again; something else in its place is
        // an error.
        let Some(live) = parent(&self.live, path, true)? else { return Ok(()) };
        let kept = parent(&self.kept, path, false)?;
        let live_node = sys::lstat_opt(live.0.as_fd(), &live.1).map_err(|e| failed("look at", path, e))?;
        let kept_node = node(&kept)?;
        let aside = || parent(undone, path, true);
        match (kept.as_ref().zip(kept_node), live_node) {
            (Some((kept, _)), None) => shift(kept, &live),
            (Some((kept, kept_node)), Some(live_node)) => {
                let Some(aside) = aside()? else { return Ok(()) };
                let there = sys::lstat_opt(aside.0.as_fd(), &aside.1).map_err(|e| failed("look at", path, e))?;
                if there.is_some_and(|there| there.id == live_node.id) {
                    return renameat(&kept.0, kept.1.as_slice(), &live.0, live.1.as_slice()).map_err(|e| failed("rename", path, e));
                }
                if live_node.kind != NodeKind::Dir && kept_node.kind != NodeKind::Dir && there.is_none() {
                    return replace(kept, &live, &aside);
                }
                shift(&live, &aside)?;
                shift(kept, &live)
            }
            (None, Some(_)) if *step == Step::Add => {
                let Some(aside) = aside()? else { return Ok(()) };
                let there = sys::lstat_opt(aside.0.as_fd(), &aside.1).map_err(|e| failed("look at", path, e))?;
                if there.is_none() { shift(&live, &aside) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// Gives a live folder a look; nothing to do when it is no folder any more.
    fn look(&self, path: &[u8], look: &Look) -> Result<()> {
        let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty());
        match sys::open_beneath(self.live.as_fd(), parts) {
            Ok(folder) => look.impose(folder.as_fd(), path),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(e) => Err(failed("open", path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::files::load::state::{Mode as Way, State};
    use crate::source::files::roots::{FilesDetails, RootKind, RootRecord};
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    /// Path, what it is, its time.
    fn look(root: &Path) -> Vec<String> {
        fn go(at: &Path, root: &Path, out: &mut Vec<String>) {
            let meta = std::fs::symlink_metadata(at).unwrap();
            let content = if meta.is_file() { std::fs::read_to_string(at).unwrap() } else { format!("{:?}", std::fs::read_link(at).ok()) };
            out.push(format!("{:?} {:o} {}.{} {content}", at.strip_prefix(root).unwrap(), meta.mode(), meta.mtime(), meta.mtime_nsec()));
            if meta.is_dir() {
                let mut names: Vec<_> = std::fs::read_dir(at).unwrap().map(|e| e.unwrap().path()).collect();
                names.sort();
                names.iter().for_each(|name| go(name, root, out));
            }
        }
        let mut out = Vec::new();
        go(root, root, &mut out);
        out
    }

    fn make(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            match content.strip_prefix("->") {
                Some(target) => std::os::unix::fs::symlink(target, root.join(name)).unwrap(),
                None => std::fs::write(root.join(name), content).unwrap(),
            }
        }
    }

    #[test]
    fn a_crash_after_any_step_can_be_repeated_or_undone() {
        let new = [("a", "1"), ("b/c", "1"), ("b/new", "1"), ("link", "->x"), ("turn", "1"), ("turned/x", "1"), ("z/deep/er", "1")];
        let now = [("a", "0"), ("b/c", "0"), ("b/extra", "0"), ("link", "->y"), ("turn/x", "0"), ("turned", "0"), ("only/here", "0")];
        let mut steps_seen = 0;
        for most in 0..40 {
            for undone in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let (live, stage) = (dir.path().join("tree"), dir.path().join("tree.drctl-7k3q"));
                make(&live, &now);
                make(&stage, &new);
                std::fs::set_permissions(stage.join("b"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
                let (before, mut after) = (look(&live), look(&stage));
                let record = RootRecord { path: live.display().to_string(), name: "tree".into(), kind: RootKind::Dir };
                let root = RootState { record: record.clone(), mode: Way::Merge, base: dir.path().to_path_buf(), name: "tree".into() };
                let details = FilesDetails {
                    roots: vec![record],
                    include: vec![],
                    exclude: vec![],
                    since: None,
                    one_file_system: true,
                    empty: false,
                    allow_empty: false,
                    skipped: Default::default(),
                    mounts: Default::default(),
                    unreadable: Default::default(),
                    without_attributes: Default::default(),
                    changed: Default::default(),
                    vanished: Default::default(),
                    users: BTreeMap::new(),
                    groups: BTreeMap::new(),
                };
                let state = State { restore: "7k3q".into(), target: None, made: vec![], roots: vec![root.clone()], details };
                assert!(plan(&root, &state).unwrap());
                assert_eq!(look(&live), before, "planning changes nothing");
                steps_seen = steps(&root, root.open_base().unwrap().as_fd(), "7k3q").unwrap().len();
                run_some(&root, "7k3q", most).unwrap();
                if undone {
                    undo(&root, "7k3q").unwrap();
                    undo(&root, "7k3q").unwrap();
                    assert_eq!(look(&live), before, "{most}");
                } else {
                    run(&root, "7k3q").unwrap();
                    run(&root, "7k3q").unwrap();
                    // Emptied folders stay.
                    let found: Vec<_> = look(&live).into_iter().filter(|line| !line.starts_with("\"only\"")).collect();
                    after.retain(|line| !line.starts_with("\"only\""));
                    assert_eq!(found, after, "{most}");
                    undo(&root, "7k3q").unwrap();
                    let strip = |lines: Vec<String>| -> Vec<String> { lines.into_iter().filter(|l| !l.starts_with("\"only\"")).collect() };
                    assert_eq!(strip(look(&live)), strip(before), "{most}");
                }
            }
        }
        assert!((10..40).contains(&steps_seen));
    }

    #[test]
    fn a_crash_between_link_and_rename_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            super::super::state::open_folder(&dir.path().join(name)).unwrap()
        };
        let trees = Trees { live: open("l"), stage: Some(open("s")), kept: open("k"), undone: None };
        std::fs::write(dir.path().join("l/f"), "live").unwrap();
        std::fs::write(dir.path().join("s/f"), "set").unwrap();
        std::fs::hard_link(dir.path().join("l/f"), dir.path().join("k/f")).unwrap();
        trees.make(&Step::Replace, b"f").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("l/f")).unwrap(), "set");
        assert_eq!(std::fs::read_to_string(dir.path().join("k/f")).unwrap(), "live");
        trees.make(&Step::Replace, b"f").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("l/f")).unwrap(), "set");
    }
}
