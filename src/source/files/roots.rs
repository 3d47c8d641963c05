//! The paths a source names, made absolute, resolved and checked; and what a restore needs to know of them.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::patterns::RootPath;
use crate::error::{Error, Kind, Result};
use crate::source::files::access::let_in;
use crate::source::files::filter::Filter;
use crate::source::files::mounts::Mounts;
use crate::source::files::report::{Listed, Report};
use crate::source::files::sys::{Node, NodeId, NodeKind};

/// One root as the details keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootRecord {
    /// Absolute path as configured; its last part may be a link to the folder that was read.
    pub path: String,
    /// Name in the archive: the path without its leading slash; empty for `/`.
    pub name: String,
    /// `dir` or `file`.
    pub kind: RootKind,
}

/// What a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RootKind {
    Dir,
    File,
}

/// What the set's details keep of a files source; read back by the loader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilesDetails {
    pub roots: Vec<RootRecord>,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// Files changed before this second were not taken.
    pub since: Option<i64>,
    pub one_file_system: bool,
    /// No file and no link was found.
    pub empty: bool,
    pub allow_empty: bool,
    pub skipped: Listed,
    pub mounts: Listed,
    /// Their content is not in the set, or not whole.
    pub unreadable: Listed,
    /// Their content is in the set, their extended attributes are not.
    #[serde(default)]
    pub without_attributes: Listed,
    pub changed: Listed,
    pub vanished: Listed,
    pub users: std::collections::BTreeMap<u32, String>,
    pub groups: std::collections::BTreeMap<u32, String>,
}

impl FilesDetails {
    /// The filter that the set was made with. The roots are looked for where they lie now.
    pub fn filter(&self) -> Result<Filter> {
        let roots: Vec<RootPath> = self.roots.iter().map(|root| RootPath::of(Path::new(&root.path))).collect();
        Filter::new(&roots, &self.include, &self.exclude, self.since)
    }

    /// Puts what a dump met beside the settings it ran with.
    pub fn set_report(&mut self, report: &Report) {
        self.empty = report.things == 0;
        self.skipped = report.skipped.clone();
        self.mounts = report.mounts.clone();
        self.unreadable = report.unreadable.clone();
        self.without_attributes = report.without_attributes.clone();
        self.changed = report.changed.clone();
        self.vanished = report.vanished.clone();
        self.users = report.users.clone();
        self.groups = report.groups.clone();
    }
}

/// The paths of roots, for their patterns.
pub(crate) fn paths(roots: &[Root]) -> Vec<RootPath> {
    roots.iter().map(|root| RootPath { path: root.record.path.clone().into(), real: root.real.clone() }).collect()
}

/// A root found on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub record: RootRecord,
    /// Where it really lies: no link in it.
    pub real: PathBuf,
    pub id: NodeId,
}

/// The absolute form of a configured path, without `.`, `..` and doubled slashes. Where `..` stands the path must exist.
pub(crate) fn absolute(path: &Path) -> Result<String> {
    let bad = |why: &str| Error::new(Kind::Config, format!("path '{}': {why}", path.display()));
    if path.as_os_str().is_empty() {
        return Err(bad("it is empty"));
    }
    let full = std::path::absolute(path).map_err(|e| bad("it cannot be made absolute").because(e))?;
    let full = if full.components().any(|c| c == Component::ParentDir) {
        std::fs::canonicalize(&full).map_err(|e| missing(&full.display().to_string(), e))?
    } else {
        full
    };
    let clean: PathBuf = full.components().collect();
    clean.into_os_string().into_string().map_err(|_| bad("it is not UTF-8"))
}

fn missing(path: &str, error: std::io::Error) -> Error {
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => let_in(Path::new(path)),
        _ => "is it mounted? correct `paths`, or create it".to_owned(),
    };
    Error::new(Kind::Preflight, format!("path {path} of a files source")).because(error).hint(hint)
}

/// Finds every root. A missing one, one inside another, or one that is neither file nor folder is an error.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<Root>> {
    // Where the list cannot be read only devices tell file systems apart.
    let mounts = Mounts::of_machine().unwrap_or_default();
    if paths.is_empty() {
        return Err(Error::new(Kind::Config, "a files source names no paths").hint("add `paths: [/data/uploads]`"));
    }
    let mut roots: Vec<Root> = Vec::new();
    for path in paths {
        let path = absolute(path)?;
        if !roots.iter().any(|root| root.record.path == path) {
            roots.push(find_one(path)?);
        }
    }
    // The archive's order: by the names' parts.
    roots.sort_by(|a, b| a.record.name.split('/').cmp(b.record.name.split('/')));
    for (i, inner) in roots.iter().enumerate() {
        for (j, outer) in roots.iter().enumerate() {
            let mounted = inner.real != outer.real && (inner.id.dev != outer.id.dev || mounts.is_mount(&inner.real));
            let nested = i != j && inner.real.starts_with(&outer.real) && !mounted;
            if nested {
                return Err(Error::new(
                    Kind::Preflight,
                    format!("path {} of a files source lies inside {}", inner.record.path, outer.record.path),
                )
                .hint("leave one of the two out of `paths`"));
            }
        }
    }
    Ok(roots)
}

fn find_one(path: String) -> Result<Root> {
    let real = std::fs::canonicalize(&path).map_err(|e| missing(&path, e))?;
    let node = rustix::fs::lstat(&real).map(Node::from).map_err(|e| missing(&path, e.into()))?;
    let kind = match node.kind {
        NodeKind::Dir => RootKind::Dir,
        NodeKind::File => RootKind::File,
        other => {
            return Err(Error::new(Kind::Preflight, format!("path {path} of a files source is a {}", other.name()))
                .hint("name a folder or a regular file"));
        }
    };
    let name = path.trim_start_matches('/').to_owned();
    Ok(Root { record: RootRecord { path, name, kind }, real, id: node.id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_and_clean() {
        assert_eq!(absolute(Path::new("/a//b/./c/")).unwrap(), "/a/b/c");
        assert_eq!(absolute(Path::new("/")).unwrap(), "/");
        assert!(absolute(Path::new("x")).unwrap().ends_with("/x"));
        assert_eq!(absolute(Path::new("/usr/../usr")).unwrap(), std::fs::canonicalize("/usr").unwrap().to_str().unwrap());
        assert_eq!(absolute(Path::new("")).unwrap_err().kind(), Kind::Config);
    }

    #[test]
    fn roots_inside_roots_and_missing_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().to_path_buf();
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        std::os::unix::fs::symlink(base.join("a"), base.join("l")).unwrap();
        for bad in [vec![base.join("a"), base.join("a/b")], vec![base.join("a"), base.join("l")], vec![base.join("no")]] {
            assert_eq!(find(&bad).unwrap_err().kind(), Kind::Preflight);
        }
        let twice = find(&[base.join("a"), base.join("a/"), base.join("a/.")]).unwrap();
        assert_eq!(twice.len(), 1);
        let link = find(&[base.join("l")]).unwrap();
        assert!(link[0].record.path.ends_with("/l") && link[0].real.ends_with("a"), "named as configured, read where it points");
    }
}
