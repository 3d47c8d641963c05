//! Temporary files: where an object grows before it gets its name.
//!
//! They lie in `.drctl-tmp/` at the root, so that `link(2)` stays on one filesystem and one look finds them all. Whoever writes one holds
//! `flock(2)` on it; the kernel lets go of the lock when that process dies, in whatever container or process namespace it lived.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::file_lock::HeldFile;
use crate::store::local::disk::Disk;
use crate::store::local::folder::{Folder, modified, trouble};

/// The folder of temporary files; never a key.
pub(super) const FOLDER: &str = ".drctl-tmp";

/// Age after which an unlocked temporary file of another boot (or of another machine on a network folder) is taken for dead. Its date is
/// that of the last write, so an upload that still makes progress is younger.
const DEAD_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A file that is removed unless it was given a name of its own before.
pub(super) struct Temp {
    pub(super) folder: Folder,
    pub(super) name: String,
    /// Holds the lock until the end.
    pub(super) file: HeldFile,
    disk: Arc<dyn Disk>,
}

impl Temp {
    /// Creates and locks a file; the folder is made when it is not there.
    pub(super) fn create(root: &Folder, disk: &Arc<dyn Disk>) -> Result<Temp> {
        let folder = open_or_make(root, disk.as_ref())?;
        // A cleaner may take the file in the instant between its creation and its lock: then another one is made.
        for _ in 0..16 {
            let name = fresh_name();
            let file = disk.create(&folder, &name).map_err(|e| trouble("create temporary file", &folder.join(&name), e))?;
            let file = HeldFile::of(file);
            let locked = !matches!(file.try_exclusive(), Err(Errno::AGAIN));
            let kept = rustix::fs::fstat(&*file).is_ok_and(|stat| stat.st_nlink > 0);
            if locked && kept {
                return Ok(Temp { folder, name, file, disk: Arc::clone(disk) });
            }
        }
        Err(Error::failed(format!("temporary files in {FOLDER} are removed as fast as they are made")))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Left behind at worst; the next cleaning finds it.
        let _ = self.disk.remove(&self.folder, &self.name);
    }
}

fn open_or_make(root: &Folder, disk: &dyn Disk) -> Result<Folder> {
    for _ in 0..4 {
        if let Some(folder) = root.child(FOLDER)? {
            return Ok(folder);
        }
        match disk.make_folder(root, FOLDER) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                if root.child(FOLDER)?.is_none() {
                    return Err(Error::failed(format!("{FOLDER} is not a folder")));
                }
            }
            Err(e) => return Err(trouble("make folder", FOLDER, e)),
        }
    }
    Err(Error::failed(format!("{FOLDER} vanishes as fast as it is made")))
}

/// `<boot>-<pid>-<counter>-<random>.tmp`; the boot tells the cleaner whether a free lock proves that the writer is dead.
fn fresh_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{number}-{:08x}.tmp", boot(), std::process::id(), rand::random::<u32>())
}

/// The first 16 digits of this boot's id; the same in every container of one machine.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    if digits.len() == 16 { digits } else { "unknown".into() }
}

/// Removes temporary files whose writers are dead and returns how many there were. Files of living writers stay.
pub(super) fn clean(root: &Folder, disk: &dyn Disk) -> Result<u64> {
    let Some(folder) = root.child(FOLDER)? else { return Ok(0) };
    let list = || rustix::fs::Dir::read_from(&folder).map_err(|e| trouble("read folder", folder.path(), e.into()));
    let mut removed = 0;
    for entry in list()? {
        let entry = entry.map_err(|e| trouble("read folder", folder.path(), e.into()))?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !name.ends_with(".tmp") {
            continue;
        }
        // Locked until it is removed: a writer that comes in between finds that it was too late.
        if let Some(_held) = dead(&folder, name)? {
            disk.remove(&folder, name).map_err(|e| trouble("remove temporary file", &folder.join(name), e))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// A file that nobody writes any more, locked where the filesystem knows locks.
fn dead(folder: &Folder, name: &str) -> Result<Option<HeldFile>> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => HeldFile::of(File::from(fd)),
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(trouble("open temporary file", &folder.join(name), e.into())),
    };
    let lock = file.try_exclusive();
    let this_boot = boot();
    match lock {
        Err(Errno::AGAIN) => Ok(None),
        Ok(()) if this_boot != "unknown" && name.starts_with(&format!("{this_boot}-")) => Ok(Some(file)),
        // Another boot, another machine, or a filesystem without locks: only time can tell.
        _ => {
            let stat = rustix::fs::fstat(&*file).map_err(|e| trouble("look at", &folder.join(name), e.into()))?;
            let age = jiff::Timestamp::now().duration_since(modified(&stat)?);
            let limit = jiff::SignedDuration::try_from(DEAD_AFTER).unwrap_or(jiff::SignedDuration::MAX);
            Ok((age > limit).then_some(file))
        }
    }
}

/// Whether a path lies in the folder of temporary files, or is it.
pub(super) fn is_reserved(path: &str) -> bool {
    path.strip_prefix(FOLDER).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
