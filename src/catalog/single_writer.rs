//! Rule 13: a store that creates a key twice without a word cannot keep two writers apart. The repository is then single-writer: one host,
//! named in the repository's terms, which appends under one `flock(2)`.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::catalog::env::{Guard, WriterLock};
use crate::catalog::keys::Signer;
use crate::catalog::repository::{Repository, Terms};
use crate::error::{Context, Error, Kind, Result};
use crate::file_lock::HeldFile;
use crate::model::FORMAT;
use crate::store::Store;
use crate::store::probe::honours_create_only;

/// How long an append of another process may take: the longest that the log itself waits for an answer, and some.
const PATIENCE: Duration = Duration::from_secs(180);

/// Pause between two tries for the lock.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a store cannot keep two writers apart; `None` when it can. `network` names the network filesystem that it lies on, `configured` is
/// what a person says of it. What the probe finds nobody can talk away.
pub async fn why_single_writer(store: &dyn Store, network: Option<&str>, configured: Option<bool>) -> Result<Option<String>> {
    let place = store.location();
    if !honours_create_only(store).await? {
        return Ok(Some(format!("{place} lets a file be created twice")));
    }
    Ok(match (configured, network) {
        (Some(true), _) => Some(format!("the configuration says so of {place}")),
        (None, Some(name)) => Some(format!("{place} lies on {name}, which may let a file be created twice")),
        _ => None,
    })
}

impl Repository {
    /// Names the one host that may write from now on; needs the root secret. It holds for whoever opens the repository afterwards.
    pub async fn make_single_writer(&self, root: &dyn Signer, host: &str) -> Result<()> {
        let terms = Terms {
            format: FORMAT,
            repository: self.id().to_owned(),
            number: self.inner.terms.as_ref().map_or(0, |terms| terms.number) + 1,
            single_writer: Some(host.to_owned()),
            at: self.env().clock.now(),
        };
        self.write_terms(root, &terms).await
    }

    /// Refuses writing ([`Kind::Preflight`]) from another host than the one that the terms name, and to a store that needs a single writer
    /// (`why`) where the terms name none.
    pub fn check_writer(&self, host: &str, why: Option<&str>) -> Result<()> {
        match (self.single_writer(), why) {
            (Some(named), _) if named != host => Err(Error::new(
                Kind::Preflight,
                format!("{} is single-writer: only '{named}' may write there, this is '{host}'", self.location()),
            )
            .hint("run this on that host, or when it is gone: drctl repository adopt --by RECOVERY_FILE (with --repo PLACE where there is no configuration yet)")),
            (None, Some(why)) => Err(Error::new(
                Kind::Preflight,
                format!("two writers could overwrite each other's records: {why}, and the repository names no single writer"),
            )
            .hint(
                "name this host as the one that writes: drctl repository adopt --by RECOVERY_FILE; or move it to a store that refuses. If that \
                 filesystem is known to refuse, say single_writer: false at the store",
            )),
            _ => Ok(()),
        }
    }
}

/// A [`HeldFile`] by its path.
pub struct FileLock(PathBuf);

impl FileLock {
    /// A lock on this file, which is made when it is first taken. It is never removed: whoever waited would then hold another one.
    pub fn at(path: PathBuf) -> Self {
        FileLock(path)
    }

    fn open(path: &Path) -> std::io::Result<File> {
        if let Some(parent) = path.parent() {
            match std::fs::DirBuilder::new().mode(0o700).create(parent) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits() as i32;
        std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).custom_flags(flags).open(path)
    }
}

#[async_trait]
impl WriterLock for FileLock {
    async fn lock(&self) -> Result<Guard> {
        let what = || format!("lock {} for an append", self.0.display());
        let file = HeldFile::of(Self::open(&self.0).context(what)?);
        let began = Instant::now();
        loop {
            match file.try_exclusive() {
                Ok(()) => return Ok(Box::new(file)),
                Err(Errno::AGAIN | Errno::INTR) if began.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                Err(Errno::AGAIN) => {
                    return Err(Error::new(Kind::Locked, format!("{}: another process holds it", what()))
                        .hint("is another drctl stuck? drctl status"));
                }
                Err(e) => {
                    return Err(Error::failed(what())
                        .because(std::io::Error::from(e))
                        .hint("a single-writer repository needs a filesystem whose locks work on this host"));
                }
            }
        }
    }
}
