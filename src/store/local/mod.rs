//! A store in a local folder.
//!
//! ```text
//! put      .drctl-tmp/<boot>-<pid>-…tmp ── write, hash, fsync, close ── link(2) to its name ── fsync every folder up to the root
//! temp     locked while it grows; removed on any error; one of a dead process is found by clean_temp()
//! ```
//! Files have mode 0600, folders 0700. Links inside the root are never followed: a link on the way to a key is refused, and a link, pipe, socket
//! or device under a key is an object without bytes, which takes its name and can be deleted. Every error of write, fsync, close and link is fatal.
//! Work is done on blocking threads. Whoever uses the store must see to it that the folder is the right one (the repository file in it says so);
//! a filesystem that is mounted or unmounted there while the store is open is noticed.
//!
//! Bytes are hashed once more as they are written, for the proof that what went to the disk is what was sent: 0.55 s of one core per GiB with the
//! CPU's SHA instructions (measured), some 2 to 3 % of a backup's CPU time, since only compressed bytes pass here. With it a GiB takes 0.8 s from memory to
//! a fast disk, fsync included; without the early write-back 1.0 s.

use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::AtFlags;

use crate::error::{Context, Error, Kind, Result};
use crate::store::{Body, Entry, Head, Store, check_key};

pub mod disk;
mod folder;
mod temp;
mod walk;
mod write;

pub use disk::{Disk, RealDisk};
pub use folder::Folder;
use folder::{modified, trouble};

/// Tries when folders vanish under our hands. Each lost try means that another process deleted an object in the meantime.
const TRIES: u32 = 1000;

/// Objects as files below one folder.
pub struct LocalStore(Arc<Inner>);

struct Inner {
    root: PathBuf,
    device: u64,
    disk: Arc<dyn Disk>,
}

impl LocalStore {
    /// Uses a folder that is there. One that is not is [`Kind::Unreachable`]: a disk that is not mounted looks like that.
    pub fn open(root: &Path) -> Result<LocalStore> {
        Self::with_disk(root, Arc::new(RealDisk))
    }

    /// Like [`LocalStore::open`], but makes the folder (mode 0700) and those above it when they are not there.
    pub fn create(root: &Path) -> Result<LocalStore> {
        let root = std::path::absolute(root).context(|| format!("find folder {}", root.display()))?;
        make_root(&root)?;
        Self::open(&root)
    }

    /// Like [`LocalStore::open`], with other file operations than the real ones: for tests.
    pub fn with_disk(root: &Path, disk: Arc<dyn Disk>) -> Result<LocalStore> {
        let root = std::path::absolute(root).context(|| format!("find folder {}", root.display()))?;
        let device = open_root(&root)?.device()?;
        Ok(LocalStore(Arc::new(Inner { root, device, disk })))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Bytes that this user may still write there.
    pub fn available_bytes(&self) -> Result<u64> {
        available_bytes(&self.0.root)
    }

    /// The file whose lock keeps this host's writers apart on a single-writer repository (FORMAT rule 13). It lies in the folder itself,
    /// so that every process that writes there finds the same one.
    pub fn writer_lock(&self) -> PathBuf {
        self.0.root.join(temp::FOLDER).join("single-writer.lock")
    }

    /// The network filesystem that the folder lies on, if it is one of those whose promises nobody can check from here.
    pub fn network_filesystem(&self) -> Result<Option<&'static str>> {
        let root = self.0.root()?;
        let stat = rustix::fs::fstatfs(&root).map_err(|e| trouble("ask for the filesystem of folder", root.path(), e.into()))?;
        Ok(network_name(stat.f_type as u64))
    }

    /// Removes temporary files whose writers are dead, and says how many there were. Uploads under way, here and in other processes, stay.
    pub async fn clean_temp(&self) -> Result<u64> {
        self.work(|store| temp::clean(&store.root()?, store.disk.as_ref())).await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let store = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|e| Error::failed("a worker of the folder store broke").because(e))?
    }
}

/// Magic numbers of `statfs(2)`: linux/magic.h, and fs/smb/client for the third.
fn network_name(magic: u64) -> Option<&'static str> {
    // The field is signed and of 32 bits on some machines.
    match magic & 0xffff_ffff {
        0x6969 => Some("NFS"),
        0x517b | 0xfe53_4d42 | 0xff53_4d42 => Some("SMB"),
        _ => None,
    }
}

/// Bytes that this user may still write to the filesystem on which a folder lies (`statvfs`).
pub fn available_bytes(folder: &Path) -> Result<u64> {
    let stat =
        rustix::fs::statvfs(folder).map_err(std::io::Error::from).context(|| format!("ask for the room left at {}", folder.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[async_trait]
impl Store for LocalStore {
    fn location(&self) -> String {
        self.0.root.display().to_string()
    }

    async fn put(&self, key: &str, body: Body) -> Result<()> {
        check_own_key(key)?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = write::CancelOnDrop(Arc::clone(&cancelled));
        let key = key.to_owned();
        self.work(move |store| write::put(store, &key, body, &cancelled)).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        check_own_key(key)?;
        let key = key.to_owned();
        self.work(move |store| store.read(&key, offset, length)).await
    }

    async fn head(&self, key: &str) -> Result<Head> {
        check_own_key(key)?;
        let key = key.to_owned();
        self.work(move |store| {
            let (bytes, modified) = match store.find_folder(&key)? {
                Some((folder, name)) => folder.stat_object(name)?.ok_or_else(|| missing(&key))?,
                None => return Err(missing(&key)),
            };
            Ok(Head { bytes, modified, sha256: None })
        })
        .await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.work(move |store| walk::list(store, &prefix, after.as_deref(), limit)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        check_own_key(key)?;
        let key = key.to_owned();
        self.work(move |store| store.delete(&key)).await
    }

    async fn server_date(&self) -> Result<Timestamp> {
        self.work(|store| {
            let probe = temp::Temp::create(&store.root()?, &store.disk)?;
            let stat = rustix::fs::fstat(&*probe.file).map_err(|e| trouble("look at", &probe.folder.join(&probe.name), e.into()))?;
            modified(&stat)
        })
        .await
    }
}

impl Inner {
    /// Opens the root and makes sure that it lies on the filesystem it lay on when the store was opened.
    fn root(&self) -> Result<Folder> {
        let root = open_root(&self.root)?;
        if root.device()? != self.device {
            let text = format!("another filesystem is at {} than when this began", self.root.display());
            return Err(Error::new(Kind::Unreachable, text).hint("was the disk unmounted? mount it again and run again"));
        }
        Ok(root)
    }

    /// The folder of a key and the key's last part; `None` when there is no such folder.
    fn find_folder<'k>(&self, key: &'k str) -> Result<Option<(Folder, &'k str)>> {
        let mut folder = self.root()?;
        let (parents, name) = split(key);
        for part in parents {
            match folder.child(part)? {
                Some(child) => folder = child,
                None => return Ok(None),
            }
        }
        Ok(Some((folder, name)))
    }

    /// Every folder from the root to the one of a key, made where they were not there.
    fn make_folders(&self, key: &str) -> Result<Vec<Folder>> {
        // More than one try, because a delete removes the folders that it empties, also those that we have just opened.
        for _ in 0..TRIES {
            if let Some(chain) = self.try_make_folders(key)? {
                return Ok(chain);
            }
        }
        Err(vanishing(key))
    }

    fn try_make_folders(&self, key: &str) -> Result<Option<Vec<Folder>>> {
        let mut chain = vec![self.root()?];
        for part in split(key).0 {
            match self.make_folder(&chain[chain.len() - 1], part)? {
                Some(folder) => chain.push(folder),
                None => return Ok(None),
            }
        }
        Ok(Some(chain))
    }

    /// Opens a folder, made if it was not there; `None` when it or its parent vanished in between.
    fn make_folder(&self, parent: &Folder, name: &str) -> Result<Option<Folder>> {
        if let Some(folder) = parent.child(name)? {
            return Ok(Some(folder));
        }
        match self.disk.make_folder(parent, name) {
            Ok(()) => parent.child(name),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                if parent.stat_object(name)?.is_some() {
                    let path = parent.join(name);
                    let hint = format!("drctl makes a folder there: look at it, and take it away: rm {}", self.root.join(&path).display());
                    return Err(Error::failed(format!("{path} is an object, so no key can lie below it")).hint(hint));
                }
                parent.child(name)
            }
            Err(e) => Err(trouble("make folder", &parent.join(name), e)),
        }
    }

    /// Makes names durable, the innermost first. All of them, for another process may have made a folder and not have got so far.
    fn sync_folders(&self, chain: &[Folder]) -> Result<()> {
        chain.iter().rev().try_for_each(|f| self.disk.sync_folder(f).map_err(|e| trouble("bring to the disk folder", f.path(), e)))
    }

    fn read(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        if (offset, length) == (0, 0) {
            let stands = |(folder, name): (Folder, &str)| folder.stat_object(name);
            return self.find_folder(key)?.map_or(Ok(None), stands)?.map(|_| Bytes::new()).ok_or_else(|| missing(key));
        }
        let found = match self.find_folder(key)? {
            Some((folder, name)) => folder.open_object(name)?,
            None => None,
        };
        let Some((file, bytes)) = found else { return Err(missing(key)) };
        let within = offset.checked_add(length).is_some_and(|end| end <= bytes);
        let (true, Ok(length)) = (within, usize::try_from(length)) else {
            return Err(Error::corrupt(format!("{key} has {bytes} bytes, {offset}+{length} were asked for")));
        };
        let mut buffer = vec![0; length];
        file.read_exact_at(&mut buffer, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::corrupt(format!("{key} became shorter while it was read")),
            _ => trouble("read", key, e),
        })?;
        Ok(buffer.into())
    }

    fn delete(&self, key: &str) -> Result<()> {
        let Some((folder, name)) = self.find_folder(key)? else { return Ok(()) };
        if folder.stat_object(name)?.is_none() {
            return Ok(());
        }
        match self.disk.remove(&folder, name) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(trouble("delete", key, e)),
        }
        self.disk.sync_folder(&folder).map_err(|e| trouble("bring to the disk folder", folder.path(), e))?;
        // Only tidiness: an empty folder is nothing to anyone.
        let _ = self.remove_empty_folders(key);
        Ok(())
    }

    /// Removes the folders of a key that hold nothing, the innermost first; the root stays.
    fn remove_empty_folders(&self, key: &str) -> Result<()> {
        let mut chain = vec![self.root()?];
        let mut names = Vec::new();
        for part in split(key).0 {
            let Some(child) = chain[chain.len() - 1].child(part)? else { break };
            chain.push(child);
            names.push(part);
        }
        for (parent, name) in chain.iter().zip(names).rev() {
            if rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn open_root(root: &Path) -> Result<Folder> {
    Folder::root(root).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            Error::new(Kind::Unreachable, format!("there is no folder {}", root.display()))
                .because(e)
                .hint("is its disk mounted? a new repository is made with `drctl init`")
        }
        _ => trouble("open", &root.display().to_string(), e),
    })
}

/// Makes a folder and those above it, each one durable.
fn make_root(root: &Path) -> Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    let path = root.display().to_string();
    if let Some(parent) = root.parent() {
        make_root(parent)?;
        match std::fs::DirBuilder::new().mode(0o700).create(root) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(trouble("make folder", &path, e)),
            _ => {}
        }
        std::fs::File::open(parent).and_then(|f| f.sync_all()).map_err(|e| trouble("bring to the disk the folder above", &path, e))?;
    }
    Ok(())
}

fn check_own_key(key: &str) -> Result<()> {
    check_key(key)?;
    if temp::is_reserved(key) {
        return Err(Error::corrupt(format!("'{key}' is not a key: the folder store keeps its temporary files there")));
    }
    Ok(())
}

/// The folders of a key, and its last part.
fn split(key: &str) -> (impl Iterator<Item = &str>, &str) {
    let (parents, name) = key.rsplit_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    (parents.into_iter().flat_map(|p| p.split('/')), name)
}

fn vanishing(key: &str) -> Error {
    Error::failed(format!("the folder of {key} vanishes as fast as it is made"))
}

fn missing(key: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_filesystems_are_known_by_their_numbers() {
        for (magic, name) in [(0x6969, Some("NFS")), (0xff53_4d42, Some("SMB")), (0xfe53_4d42, Some("SMB")), (0x517b, Some("SMB"))] {
            assert_eq!(network_name(magic), name);
        }
        // As a signed field of 32 bits gives it; ext4, tmpfs, overlayfs.
        assert_eq!(network_name(0xff53_4d42_u32 as i32 as u64), Some("SMB"));
        assert!([0xef53, 0x0102_1994, 0x794c_7630].into_iter().all(|magic| network_name(magic).is_none()));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(LocalStore::open(folder.path()).unwrap().network_filesystem().unwrap(), None);
    }
}
