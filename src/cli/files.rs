//! Files of a host's own: keys, configuration, recovery file. Whole or not there, private, and never over anything unless that is what is meant.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// Creates a file that only its owner can read. One that is there is [`crate::error::Kind::Exists`], and stays as it is.
pub fn create_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("write {}", path.display());
    let temporary = beside(path);
    drop(write(&temporary, bytes).context(what)?);
    let linked = std::fs::hard_link(&temporary, path);
    let _ = std::fs::remove_file(&temporary);
    linked.and_then(|()| sync_folder(path)).context(what)
}

/// Puts a new file in the place of one that is there, with its owner and mode, in one step. A link stays one.
pub fn exchange(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("write {}", path.display());
    let path = &std::fs::canonicalize(path).context(what)?;
    let there = std::fs::metadata(path).context(what)?;
    let temporary = beside(path);
    let exchanged = write(&temporary, bytes).and_then(|file| {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (there.uid(), there.gid()) {
            std::os::unix::fs::fchown(&file, Some(there.uid()), Some(there.gid()))?;
        }
        file.set_permissions(there.permissions())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    if exchanged.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    exchanged.and_then(|()| sync_folder(path)).context(what)
}

/// A name in the same folder that nobody else has.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{:016x}", rand::random::<u64>()))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written.map(|()| file)
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_file_is_created_once_and_exchanged_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        assert!(exchange(&path, b"0").is_err(), "there is nothing to exchange");
        create_whole(&path, b"1").unwrap();
        assert_eq!(create_whole(&path, b"2").unwrap_err().kind(), Kind::Exists);
        assert_eq!((std::fs::read(&path).unwrap(), path.metadata().unwrap().mode() & 0o777), (b"1".to_vec(), 0o600));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        exchange(&path, b"3").unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), path.metadata().unwrap().mode() & 0o777), (b"3".to_vec(), 0o640));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else stays");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        exchange(&link, b"4").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink() && std::fs::read(&path).unwrap() == b"4");
        assert!(create_whole(&folder.path().join("no/such"), b"1").is_err());
    }
}
