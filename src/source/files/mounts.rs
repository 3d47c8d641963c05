//! What is mounted where.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

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

    /// Mount points below a path, relative to it, as bytes.
    pub fn relative_to(&self, path: &Path) -> HashSet<Vec<u8>> {
        let below = self.0.iter().filter_map(|mount| mount.strip_prefix(path).ok());
        below.map(|relative| relative.as_os_str().as_bytes().to_vec()).filter(|relative| !relative.is_empty()).collect()
    }

    /// An error when something is mounted at or below a path. `doing` is what it would be in the way of.
    pub fn refuse_within(&self, path: &Path, doing: &str) -> Result<()> {
        match self.0.iter().find(|mount| mount.starts_with(path)) {
            Some(mount) => Err(Error::failed(format!("{doing} {}: something is mounted at {}", path.display(), mount.display()))
                .hint("unmount it, then run the same command again")),
            None => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let mounts = Mounts::parse(b"22 1 8:1 / / rw - ext4 /dev/a rw\n30 22 0:5 / /a\\040b/c\\134d rw - tmpfs none rw\n\n");
        assert!(mounts.is_mount(Path::new("/a b/c\\d")));
        assert_eq!(mounts.relative_to(Path::new("/a b")), HashSet::from([b"c\\d".to_vec()]));
        assert!(mounts.refuse_within(Path::new("/a b/c\\d"), "remove").is_err() && mounts.refuse_within(Path::new("/a"), "remove").is_ok());
        assert!(mounts.below(Path::new("/a b")) && !mounts.below(Path::new("/a b/c\\d")) && !mounts.below(Path::new("/a")));
    }
}
