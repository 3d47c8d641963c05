//! Putting a whole root in place, and back. Each function may be repeated after a crash at any point: what a name stands for (its
//! inode, noted before) tells how far the last try came.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::source::files::load::state::RootState;
use crate::source::files::load::tree::failed;
use crate::source::files::mounts::Mounts;
use crate::source::files::names::Beside;
use crate::source::files::sys::{self, Identity};

/// What a name in a folder stands for.
pub(super) fn id(base: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Identity>> {
    sys::identity(base, name).map_err(|e| failed("look at", name, e))
}

/// Whether what was found is what was noted.
pub(super) fn is(found: Option<Identity>, noted: Option<Identity>) -> bool {
    found.zip(noted).is_some_and(|(found, noted)| found.same(&noted))
}

fn rename(base: BorrowedFd<'_>, from: &[u8], to: &[u8]) -> Result<()> {
    renameat_with(base, from, base, to, RenameFlags::NOREPLACE).map_err(|e| failed("rename", from, e))
}

/// Makes two names change places; false where the file system cannot.
fn swap(base: BorrowedFd<'_>, one: &[u8], other: &[u8]) -> Result<bool> {
    match renameat_with(base, one, base, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
        Err(e) => Err(failed("exchange", one, e)),
    }
}

fn to_disk(base: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::fsync(base).map_err(|e| failed("write to the disk", b"the folder", e))
}

/// Puts `new` (the stage) in the live place and `old` under its kept name.
pub(super) fn switch(root: &RootState, restore: &str, new: Identity, old: Option<Identity>) -> Result<()> {
    let base = root.open_base()?;
    let base = base.as_fd();
    let live = root.name.as_bytes();
    let (stage, kept) = (root.tree(Beside::Stage, restore), root.tree(Beside::Old, restore));
    let (now_live, now_stage) = (id(base, live)?, id(base, &stage)?);
    if is(now_live, Some(new)) {
        // Exchanged by an earlier try; the old data may still have the stage's name.
        if is(now_stage, old) {
            rename(base, &stage, &kept)?;
        }
        return to_disk(base);
    }
    if !is(now_stage, Some(new)) {
        return Err(Error::failed(format!("{} is not what was loaded", root.tree_path(Beside::Stage, restore).display()))
            .hint("drctl restore again"));
    }
    // It would go along with the old data, out of the programs' sight and into what `finish` removes.
    Mounts::of_machine()?.refuse_within(&root.live(), "exchange")?;
    match now_live {
        None => rename(base, &stage, live)?,
        Some(_) if swap(base, &stage, live)? => rename(base, &stage, &kept)?,
        Some(_) => {
            // Two renames, with nothing in place in between for a moment.
            rename(base, live, &kept)?;
            rename(base, &stage, live)?;
        }
    }
    to_disk(base)
}

/// Puts the old data back; what is live now is kept under the undone name. Says what was done.
pub(super) fn undo(root: &RootState, restore: &str, new: Identity, old: Option<Identity>) -> Result<Option<String>> {
    let base = root.open_base()?;
    let base = base.as_fd();
    let live = root.name.as_bytes();
    let (stage, kept, undone) = (root.tree(Beside::Stage, restore), root.tree(Beside::Old, restore), root.tree(Beside::Undone, restore));
    let (now_live, now_stage, now_kept) = (id(base, live)?, id(base, &stage)?, id(base, &kept)?);
    if !is(now_live, Some(new)) && is(now_stage, Some(new)) && now_kept.is_none() {
        // The switch never came to it.
        return Ok(None);
    }
    let shown_live = root.live().display().to_string();
    let shown_undone = root.tree_path(Beside::Undone, restore).display().to_string();
    let Some(old) = old else {
        if now_live.is_some() && id(base, &undone)?.is_none() {
            rename(base, live, &undone)?;
            to_disk(base)?;
        }
        return Ok(Some(format!("{shown_live} was not there before; what was restored is now {shown_undone}")));
    };
    // A switch that stopped between exchange and rename left the old data under the stage's name.
    if is(now_stage, Some(old)) && now_kept.is_none() {
        rename(base, &stage, &kept)?;
    }
    if is(id(base, &kept)?, Some(old)) {
        match now_live {
            None => rename(base, &kept, live)?,
            Some(_) if swap(base, &kept, live)? => {}
            Some(_) => {
                rename(base, live, &undone)?;
                rename(base, &kept, live)?;
            }
        }
    }
    if !is(id(base, live)?, Some(old)) {
        return Err(Error::failed(format!("the data that was live before at {shown_live} was not found"))
            .hint(format!("look at {}", root.tree_path(Beside::Old, restore).display())));
    }
    if id(base, &kept)?.is_some() {
        rename(base, &kept, &undone)?;
    }
    to_disk(base)?;
    Ok(Some(format!("{shown_live} is as before the restore; what was there since is now {shown_undone}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::files::load::state::Mode;
    use crate::source::files::roots::{RootKind, RootRecord};
    use std::path::Path;

    fn root(dir: &Path) -> RootState {
        let record = RootRecord { path: dir.join("t").display().to_string(), name: "t".into(), kind: RootKind::Dir };
        RootState { record, mode: Mode::Exchange, base: dir.to_path_buf(), name: "t".into() }
    }

    fn names(dir: &Path) -> Vec<(String, String)> {
        let mut out: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), std::fs::read_to_string(e.path().join("f")).unwrap()))
            .collect();
        out.sort();
        out
    }

    /// Each way in which a crash can leave the names, then the whole switch and its undo from there.
    #[test]
    fn every_crash_between_renames_is_found_by_inode() {
        let (stage, kept, undone) = ("t.drctl-7k3q", "t.drctl-old-7k3q", "t.drctl-undone-7k3q");
        let pair = |a: (&str, &str), b: (&str, &str)| vec![(a.0.to_owned(), a.1.to_owned()), (b.0.to_owned(), b.1.to_owned())];
        for (live_at, new_at) in [("t", stage), (stage, "t"), (kept, "t"), (kept, stage)] {
            for undo_at_once in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                for (name, content) in [(live_at, "old"), (new_at, "new")] {
                    std::fs::create_dir(dir.path().join(name)).unwrap();
                    std::fs::write(dir.path().join(name).join("f"), content).unwrap();
                }
                let base = crate::source::files::load::state::open_folder(dir.path()).unwrap();
                let (old, new) = (id(base.as_fd(), live_at.as_bytes()).unwrap(), id(base.as_fd(), new_at.as_bytes()).unwrap().unwrap());
                let root = root(dir.path());
                if !undo_at_once {
                    switch(&root, "7k3q", new, old).unwrap();
                    assert_eq!(names(dir.path()), pair(("t", "new"), (kept, "old")), "{live_at} {new_at}");
                }
                undo(&root, "7k3q", new, old).unwrap();
                let there = names(dir.path());
                assert!(there.contains(&("t".to_owned(), "old".to_owned())), "{live_at} {new_at}: {there:?}");
                if !undo_at_once {
                    assert_eq!(there, pair(("t", "old"), (undone, "new")));
                    undo(&root, "7k3q", new, old).unwrap();
                    assert_eq!(names(dir.path()), there);
                }
            }
        }
    }

    #[test]
    fn a_stage_that_is_not_what_was_loaded_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["t", "t.drctl-7k3q"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let other = Identity { dev: 1, ino: 1, born: None };
        assert!(switch(&root(dir.path()), "7k3q", other, None).is_err());
    }
}
