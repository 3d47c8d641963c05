//! Where a root of the set belongs on this machine, and what stands in the way.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::source::files::filter::Filter;
use crate::source::files::load::state::{Mode, RootState};
use crate::source::files::mounts::Mounts;
use crate::source::files::roots::{FilesDetails, RootKind, RootRecord};
use crate::source::files::sys::shown;

/// A root's place.
#[derive(Debug)]
pub(crate) struct Placed {
    pub root: RootState,
    /// Whether something is live there.
    pub exists: bool,
    /// Why it is merged.
    pub why_merge: Option<&'static str>,
    /// Why it cannot be restored there.
    pub refusal: Option<String>,
    /// The root that holds it now: it lies below that one and is no mount point (any more), so it has no place of its own.
    pub part_of: Option<String>,
}

/// Finds the places of all roots of a set.
pub(crate) fn place_all(details: &FilesDetails, filter: &Filter, mounts: &Mounts) -> Result<Vec<Placed>> {
    let mut all: Vec<Placed> = details.roots.iter().map(|record| place(record, details, filter, mounts)).collect::<Result<_>>()?;
    let places: Vec<(RootRecord, PathBuf)> = all.iter().map(|placed| (placed.root.record.clone(), placed.root.live())).collect();
    for (index, inner) in all.iter_mut().enumerate() {
        let live = inner.root.live();
        for (other, (outer, outer_live)) in places.iter().enumerate() {
            let own_mount = live != *outer_live && mounts.is_mount(&live);
            if index == other || !live.starts_with(outer_live) || own_mount {
                continue;
            }
            // Two roots were two file systems and are one now. Its files go where the outer root's files go, if the archive's names
            // say so too.
            if live != *outer_live && Path::new(&inner.root.record.path).starts_with(&outer.path) {
                inner.part_of = Some(outer.path.clone());
                inner.refusal = None;
            } else {
                inner.refusal = Some(format!("{} leads into {} now: restore with --target FOLDER", inner.root.record.path, outer.path));
            }
        }
    }
    Ok(all)
}

/// Finds the place of a root: through links, as the dump did. Parents that are missing are made later.
fn place(record: &RootRecord, details: &FilesDetails, filter: &Filter, mounts: &Mounts) -> Result<Placed> {
    let path = Path::new(&record.path);
    let (live, exists) = match std::fs::canonicalize(path) {
        Ok(live) => (live, true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (missing(path)?, false),
        Err(e) => return Err(Error::new(Kind::Preflight, format!("look at {}", record.path)).because(e)),
    };
    let mut refusal = None;
    let is_dir = exists && live.is_dir();
    let is_mount = exists && mounts.is_mount(&live);
    let below = is_dir && mounts.below(&live);
    if live.to_str().is_none() {
        refusal = Some(format!("{} leads to a path that is not UTF-8: restore with --target FOLDER", record.path));
    } else if live.parent().is_none() {
        refusal = Some("/ cannot be put in place while it is in use: restore with --target FOLDER".to_owned());
    } else if exists && is_dir != (record.kind == RootKind::Dir) {
        let (now, then) = if is_dir { ("folder", "file") } else { ("file", "folder") };
        refusal = Some(format!("{} is a {now} now and was a {then}: move it away, or restore with --target FOLDER", record.path));
    } else if is_mount && !is_dir {
        refusal = Some(format!("{} is a mount point: restore with --target FOLDER and copy it", record.path));
    } else if below && !details.one_file_system {
        refusal = Some(format!("other file systems are mounted below {}: restore with --target FOLDER", record.path));
    } else if exists && details.unreadable.more > 0 {
        refusal = Some(format!(
            "more could not be read when the set was made than it lists, and {} holds data: restore with --target FOLDER",
            record.path
        ));
    } else if let Some(point) = below.then(|| unknown_mount(record, &live, details, filter, mounts)).flatten() {
        refusal = Some(format!(
            "something is mounted at {} that was not when the set was made: unmount it, or restore with --target FOLDER",
            shown(point.as_os_str().as_bytes())
        ));
    } else if !exists && path.symlink_metadata().is_ok() {
        refusal = Some(format!("{} is a link that leads nowhere: remove it, or make what it points to", record.path));
    }
    let why_merge = match record.kind {
        RootKind::File => None,
        _ if !exists => None,
        _ if is_mount => Some("it is a mount point"),
        _ if below => Some("other file systems are mounted below it"),
        _ if left_out(record, details) => Some("it holds things that are not in the set"),
        _ if !filter.takes_all() => Some("the set holds only a part of it"),
        _ if details.unreadable.len() > 0 => Some("parts of it could not be read when the set was made"),
        _ => None,
    };
    let mode = if why_merge.is_some() { Mode::Merge } else { Mode::Exchange };
    let (base, name) = match (is_mount && is_dir, live.parent(), live.file_name()) {
        (false, Some(parent), Some(name)) => (parent.to_path_buf(), name.to_string_lossy().into_owned()),
        _ => (live, String::new()),
    };
    Ok(Placed { root: RootState { record: record.clone(), mode, base, name }, exists, why_merge, refusal, part_of: None })
}

/// Whether a dump passed over anything in a root: sockets, devices, other file systems, what looks like a leftover of a restore.
fn left_out(record: &RootRecord, details: &FilesDetails) -> bool {
    let root = shown(&[b"/", record.name.as_bytes()].concat());
    [&details.skipped, &details.mounts]
        .iter()
        .any(|list| list.more > 0 || list.entries.iter().any(|(path, _)| Path::new(path).starts_with(&root)))
}

/// A mount point below a live folder on which the set may have files of its own. Another file system that is a folder is left alone by a
/// merge, or found out before it begins.
fn unknown_mount(record: &RootRecord, live: &Path, details: &FilesDetails, filter: &Filter, mounts: &Mounts) -> Option<PathBuf> {
    let device = live.symlink_metadata().ok()?.dev();
    let listed: HashSet<&str> = details.mounts.entries.iter().map(|(path, _)| path.as_str()).collect();
    let taken = filter.of(&record.path);
    let known = |relative: &Path| {
        let bytes = relative.as_os_str().as_bytes();
        let path = Path::new(&record.path).join(relative);
        taken.excludes(bytes)
            || listed.contains(shown(path.as_os_str().as_bytes()).as_str())
            || details.roots.iter().any(|root| Path::new(&root.path) == path)
    };
    mounts.relative_to(live).into_iter().map(|bytes| PathBuf::from(OsString::from_vec(bytes))).find_map(|relative| {
        if relative.ancestors().filter(|part| !part.as_os_str().is_empty()).any(known) {
            return None;
        }
        let full = live.join(&relative);
        let meta = full.symlink_metadata().ok()?;
        (!meta.is_dir() || meta.dev() == device).then_some(full)
    })
}

/// A path that does not exist, with links in the part that does resolved.
fn missing(path: &Path) -> Result<PathBuf> {
    for ancestor in path.ancestors().skip(1) {
        if let Ok(real) = std::fs::canonicalize(ancestor) {
            return Ok(real.join(path.strip_prefix(ancestor).unwrap_or(path)));
        }
    }
    Err(Error::new(Kind::Preflight, format!("no folder on the way to {} exists", path.display())))
}

/// Whether a folder is absent or has nothing in it.
pub(crate) fn is_empty_or_absent(path: &Path) -> Result<bool> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(path.symlink_metadata().is_err()),
        Err(e) => Err(Error::new(Kind::Preflight, format!("look into {}", path.display())).because(e)),
    }
}

/// The folders that must be made so that `path` exists, outermost first.
pub(crate) fn to_make(path: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = path
        .ancestors()
        .take_while(|p| !p.as_os_str().as_bytes().is_empty() && p.symlink_metadata().is_err())
        .map(Path::to_path_buf)
        .collect();
    out.reverse();
    out
}
