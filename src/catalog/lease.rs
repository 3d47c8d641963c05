//! The courtesy lease of a job: it saves two runs from doing the same work. Nothing is safe because of it (rule 16).
//!
//! A lease is a row of create-only files `jobs/<job>/lease/<epoch>.json`; only the newest counts. It is taken, renewed and given
//! back by creating the next epoch. It is not signed: whoever may write the store can hinder runs anyway.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::repository::Repository;
use crate::error::{Error, Kind, Result};
use crate::model::JobName;
use crate::store::whole;

/// A lease file longer than this is none of ours.
const LONGEST: u64 = 4096;

/// So many renewals of our own, not known to have landed, are stepped over; a store cannot make us go on for ever.
const OWN_AHEAD: usize = 64;

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The process id.
    pub pid: u32,
    /// Since when, server date.
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    /// `db1 pid 4711 since 2026-03-01T02:00:00Z`; a host's name is what some file said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pid {} since {}", self.host.escape_debug(), self.pid, second(self.since))
    }
}

fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// One lease file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseFile {
    epoch: u64,
    holder: Holder,
    /// Where the holder's process id means something ([`place`]); a lease without it ends by its time only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    until: Timestamp,
    released: bool,
}

impl LeaseFile {
    /// Whether the holder ran where we run and is no more. A process of another machine, boot or container is never taken for dead,
    /// nor is one where `/proc` does not show every process.
    fn is_dead(&self, host: &str) -> bool {
        self.holder.host == host && self.boot.is_some() && self.boot == place() && is_dead(self.holder.pid)
    }
}

/// A lease that we hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobName,
    /// Its newest epoch; goes into the manifest.
    pub epoch: u64,
    /// Who we are.
    pub holder: Holder,
    /// End, server date.
    pub until: Timestamp,
    boot: Option<String>,
}

impl Lease {
    /// Takes the job's lease for `length`. [`Kind::Locked`], naming the holder, when another has it; a holder whose process ran here
    /// and is dead has nothing.
    pub async fn acquire(repository: &Repository, job: &JobName, host: &str, pid: u32, length: Duration) -> Result<Lease> {
        Self::acquire_from(repository, job, host, pid, length, |_| false).await
    }

    /// The same; a holder that `is_gone` knows to be dead is not waited for. Being wrong about that costs work done twice and nothing else.
    pub async fn acquire_from(
        repository: &Repository,
        job: &JobName,
        host: &str,
        pid: u32,
        length: Duration,
        is_gone: impl FnOnce(&Holder) -> bool,
    ) -> Result<Lease> {
        let what = || format!("take the lease of job {job} in {}", repository.location());
        let now = repository.store().server_date().await.map_err(|e| e.context(what()))?;
        let newest = newest(repository, job).await.map_err(|e| e.context(what()))?;
        if let Some((_, Some(file))) = &newest
            && !file.released
            && file.until > now
            && !is_gone(&file.holder)
            && !file.is_dead(host)
        {
            return Err(locked(job, file));
        }
        let epoch = newest.map_or(0, |(epoch, _)| epoch).saturating_add(1);
        let holder = Holder { host: host.to_owned(), pid, since: now };
        let lease = Lease { job: job.clone(), epoch, holder, until: end(now, length)?, boot: place() };
        match lease.write(repository, false).await.map_err(|e| e.context(what()))? {
            None => Ok(lease),
            Some(standing) => Err(locked(job, &standing).context(what())),
        }
    }

    /// Moves the end to `length` from now, by a new epoch. [`Kind::Locked`] when another took it meanwhile: stop before the
    /// commit, the work is being done twice.
    pub async fn renew(&mut self, repository: &Repository, length: Duration) -> Result<()> {
        let now = repository.store().server_date().await?;
        self.until = end(now, length)?;
        match self.advance(repository, false).await.map_err(|e| e.context(format!("renew the lease of job {}", self.job)))? {
            None => Ok(()),
            Some(other) => Err(locked(&self.job, &other)),
        }
    }

    /// Gives the lease back, by a new epoch that says so. A lease that another took meanwhile is left alone.
    pub async fn release(mut self, repository: &Repository) -> Result<()> {
        match self.advance(repository, true).await {
            Err(e) if e.kind() == Kind::Locked => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Creates the next epoch, behind those of our own that stand there already: a renewal that was dropped on its way, or whose answer
    /// was lost, may have landed. Gives the file of another holder that is in the way.
    async fn advance(&mut self, repository: &Repository, released: bool) -> Result<Option<LeaseFile>> {
        for _ in 0..OWN_AHEAD {
            let next = Lease { epoch: self.epoch.saturating_add(1), ..self.clone() };
            match next.write(repository, released).await? {
                Some(standing) if !(standing.holder == self.holder && standing.boot == self.boot) => return Ok(Some(standing)),
                // Ours, whatever its end: it holds the epoch, and the end comes with the next one.
                Some(_) => *self = next,
                None => {
                    *self = next;
                    return Ok(None);
                }
            }
        }
        Err(Error::failed(format!("the lease of job {} is {OWN_AHEAD} epochs ahead of the one held here", self.job)))
    }

    /// Creates this epoch's file. Gives the one that stands there instead, if it says anything else.
    async fn write(&self, repository: &Repository, released: bool) -> Result<Option<LeaseFile>> {
        let file = LeaseFile { epoch: self.epoch, holder: self.holder.clone(), boot: self.boot.clone(), until: self.until, released };
        let json = serde_json::to_vec(&file).map_err(|e| Error::failed("write a lease").because(e))?;
        let key = lease_key(&self.job, self.epoch);
        match whole::create(&**repository.store(), &key, Bytes::from(json)).await {
            Err(e) if e.kind() == Kind::Exists => match read(repository, &self.job, self.epoch).await? {
                // The answer of an earlier try was lost.
                Some(standing) if standing == file => Ok(None),
                Some(other) => Ok(Some(other)),
                None => Err(Error::new(Kind::Locked, format!("job {}: {key} was just taken", self.job))
                    .hint("another run began at the same moment: wait for it; its lease ends by itself")),
            },
            other => other.map(|()| None),
        }
    }
}

/// How a job's lease stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody holds it.
    Free,
    /// A run holds it, or held it and never gave it back.
    Held {
        /// Whose.
        holder: Holder,
        /// Until when, server date.
        until: Timestamp,
        /// Whether that process ran here and is no more: the next run will not wait for it.
        dead: bool,
    },
}

/// How the lease of `job` stands, seen from machine `host`.
pub async fn standing(repository: &Repository, job: &JobName, host: &str) -> Result<Standing> {
    let now = repository.store().server_date().await?;
    Ok(match newest(repository, job).await? {
        Some((_, Some(file))) if !file.released && file.until > now => {
            Standing::Held { dead: file.is_dead(host), holder: file.holder, until: file.until }
        }
        _ => Standing::Free,
    })
}

/// Takes the lease away from `holder`, by a new epoch that says that it was given back. The log stays as safe as before (rule 16):
/// should that run live, it and the next one do the same work. [`Kind::Locked`] when another holds it by now.
pub async fn unlock(repository: &Repository, job: &JobName, holder: &Holder) -> Result<()> {
    let what = || format!("unlock job {job}");
    let Some((epoch, Some(file))) = newest(repository, job).await.map_err(|e| e.context(what()))? else { return Ok(()) };
    if file.released {
        return Ok(());
    }
    if file.holder != *holder {
        return Err(locked(job, &file).context(what()));
    }
    let next = Lease { job: job.clone(), epoch: epoch.saturating_add(1), holder: file.holder, until: file.until, boot: file.boot };
    match next.write(repository, true).await.map_err(|e| e.context(what()))? {
        None => Ok(()),
        Some(other) => Err(locked(job, &other).context(what())),
    }
}

/// The boot and the process namespace of this process; none where the kernel does not say.
fn place() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let boot = boot.trim();
    (!boot.is_empty()).then(|| format!("{boot} {}", namespace.to_string_lossy()))
}

/// Whether no process of this namespace has the number. `/proc` must be that of our own namespace, and show the processes of others.
fn is_dead(pid: u32) -> bool {
    let own = std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == std::process::id().to_string().as_str());
    let shows_all = std::path::Path::new("/proc/1").exists();
    own && shows_all && matches!(std::path::Path::new(&format!("/proc/{pid}")).try_exists(), Ok(false))
}

/// Removes all but the newest epoch; the pruner does so. Returns how many files went.
pub async fn tidy(repository: &Repository, job: &JobName) -> Result<u64> {
    let epochs = list(repository, job).await?;
    let Some((_, old)) = epochs.split_last() else { return Ok(0) };
    for epoch in old {
        repository.store().delete(&lease_key(job, *epoch)).await?;
    }
    Ok(old.len() as u64)
}

fn lease_key(job: &JobName, epoch: u64) -> String {
    format!("jobs/{job}/lease/{epoch:010}.json")
}

fn end(now: Timestamp, length: Duration) -> Result<Timestamp> {
    now.checked_add(length).map_err(|e| Error::new(Kind::Usage, "the end of the lease lies too far ahead").because(e))
}

fn locked(job: &JobName, file: &LeaseFile) -> Error {
    Error::new(Kind::Locked, format!("job {job} is held by {}", file.holder)).hint(format!(
        "wait for it; if that process is gone, the lease ends by itself at {}, or now: drctl unlock {job}",
        second(file.until)
    ))
}

async fn list(repository: &Repository, job: &JobName) -> Result<Vec<u64>> {
    let prefix = format!("jobs/{job}/lease/");
    let mut epochs: Vec<u64> = whole::list_all(&**repository.store(), &prefix)
        .await?
        .iter()
        .filter_map(|entry| {
            let epoch = entry.key.strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok()?;
            (lease_key(job, epoch) == entry.key).then_some(epoch)
        })
        .collect();
    epochs.sort_unstable();
    Ok(epochs)
}

/// The newest epoch and what it says; a file that cannot be understood takes its epoch and holds nothing.
async fn newest(repository: &Repository, job: &JobName) -> Result<Option<(u64, Option<LeaseFile>)>> {
    match list(repository, job).await?.last() {
        None => Ok(None),
        Some(epoch) => Ok(Some((*epoch, read(repository, job, *epoch).await?))),
    }
}

async fn read(repository: &Repository, job: &JobName, epoch: u64) -> Result<Option<LeaseFile>> {
    let key = lease_key(job, epoch);
    let store = &**repository.store();
    match store.head(&key).await {
        Ok(head) if head.bytes == 0 || head.bytes > LONGEST => return Ok(None),
        Err(e) if e.kind() == Kind::NotFound => return Ok(None),
        other => other?,
    };
    let bytes = whole::read(store, &key).await?;
    Ok(serde_json::from_slice::<LeaseFile>(&bytes).ok().filter(|file| file.epoch == epoch))
}
