//! Where a root of the set belongs on this machine, and what stands in the way.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::source::files::filter::Filter;
use crate::source::files::load::state::{Mode, RootState};
use crate::source::files::roots::{FilesDetails, RootKind, RootRecord};

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
}

/// Finds the place of a root: through links, as the dump did. Parents that are missing are made later.
pub(crate) fn place(record: &RootRecord, details: &FilesDetails, filter: &Filter, mounts: &Mounts) -> Result<Placed> {
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
    } else if !exists && path.symlink_metadata().is_ok() {
        refusal = Some(format!("{} is a link that leads nowhere: remove it, or make what it points to", record.path));
    }
    let why_merge = match record.kind {
        RootKind::File => None,
        _ if !exists => None,
        _ if is_mount => Some("it is a mount point"),
        _ if below => Some("other file systems are mounted below it"),
        _ if !filter.takes_all() => Some("the set holds only a part of it"),
        _ if details.unreadable.len() > 0 => Some("parts of it could not be read when the set was made"),
        _ => None,
    };
    let mode = if why_merge.is_some() { Mode::Merge } else { Mode::Exchange };
    let (base, name) = match (is_mount && is_dir, live.parent(), live.file_name()) {
        (false, Some(parent), Some(name)) => (parent.to_path_buf(), name.to_string_lossy().into_owned()),
        _ => (live, String::new()),
    };
    Ok(Placed { root: RootState { record: record.clone(), mode, base, name }, exists, why_merge, refusal })
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

/// The mount points of this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// From `/proc/self/mountinfo`; its fifth field is the mount point, with `\040` for a space.
    pub fn of_machine() -> Result<Self> {
        let text = std::fs::read("/proc/self/mountinfo")
            .map_err(|e| Error::new(Kind::Preflight, "read /proc/self/mountinfo").because(e).hint("mount /proc"))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &[u8]) -> Self {
        let field = |line: &[u8]| line.split(|b| *b == b' ').nth(4).map(unescape);
        Mounts(text.split(|b| *b == b'\n').filter_map(field).map(|bytes| PathBuf::from(OsString::from_vec(bytes))).collect())
    }

    /// Whether something is mounted here.
    pub fn is_mount(&self, path: &Path) -> bool {
        self.0.iter().any(|mount| mount == path)
    }

    /// Whether something is mounted below.
    pub fn below(&self, path: &Path) -> bool {
        self.0.iter().any(|mount| mount != path && mount.starts_with(path))
    }
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = rest.get(1..4).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(d) => {
                out.push(((d[0] - b'0') & 3) << 6 | (d[1] - b'0') << 3 | (d[2] - b'0'));
                rest = &rest[4..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let mounts = Mounts::parse(b"22 1 8:1 / / rw - ext4 /dev/a rw\n30 22 0:5 / /a\\040b/c\\134d rw - tmpfs none rw\n\n");
        assert!(mounts.is_mount(Path::new("/a b/c\\d")));
        assert!(mounts.below(Path::new("/a b")) && !mounts.below(Path::new("/a b/c\\d")) && !mounts.below(Path::new("/a")));
    }
}
