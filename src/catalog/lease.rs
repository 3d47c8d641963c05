//! The courtesy lease of a job: it saves two runs from doing the same work. Nothing is safe because of it (rule 16).
//!
//! A lease is a row of create-only files `jobs/<job>/lease/<epoch>.json`; only the newest counts. It is taken, renewed and given
//! back by creating the next epoch. It is not signed: whoever may write the store can hinder runs anyway.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::numbered::Odd;
use crate::catalog::repository::Repository;
use crate::error::{Error, Kind, Result};
use crate::model::JobName;
use crate::store::whole;

/// A lease file longer than this is none of ours.
const LONGEST: u64 = 4096;

/// An epoch that is so much higher than the one before it is none (rule 19).
const BEYOND_REASON: u64 = 1_000_000;

/// A lease that ends later than this from now is none of ours: no run asks for so much.
const MOST_LENGTH: Duration = Duration::from_secs(3600);

/// So many of the highest epochs are looked at for one that can be understood.
const LOOK_AT: usize = 16;

/// So many pages of a listing are read.
const PAGES: usize = 50;
const PAGE: usize = 1000;

/// So many files are removed at once.
const MOST_REMOVED: usize = 1000;

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
    /// Whether it ends so late that no run can have asked for it.
    fn is_endless(&self, now: Timestamp) -> bool {
        now.checked_add(MOST_LENGTH).is_ok_and(|most| self.until > most)
    }

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
        let stands = look(repository, job).await.map_err(|e| e.context(what()))?;
        if let Some(file) = stands.held(now)
            && !is_gone(&file.holder)
            && !file.is_dead(host)
        {
            return Err(locked(job, file));
        }
        let holder = Holder { host: host.to_owned(), pid, since: now };
        let mut lease =
            Lease { job: job.clone(), epoch: stands.highest.saturating_add(1), holder, until: end(now, length)?, boot: place() };
        for _ in 0..OWN_AHEAD {
            match lease.write(repository, false).await.map_err(|e| e.context(what()))? {
                Written::Ours => return Ok(lease),
                Written::Other(standing) => return Err(locked(job, &standing).context(what())),
                Written::Nonsense => lease.epoch = lease.epoch.saturating_add(1),
            }
        }
        Err(Error::failed(format!("{}: {OWN_AHEAD} epochs from {} on are taken by what is no lease", what(), stands.highest)))
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
                Written::Other(standing) if !(standing.holder == self.holder && standing.boot == self.boot) => return Ok(Some(standing)),
                // Ours, whatever its end, or nobody's: it holds the epoch, and the end comes with the next one.
                Written::Other(_) | Written::Nonsense => *self = next,
                Written::Ours => {
                    *self = next;
                    return Ok(None);
                }
            }
        }
        Err(Error::failed(format!("the lease of job {} is {OWN_AHEAD} epochs ahead of the one held here", self.job)))
    }

    /// Creates this epoch's file, or says what stands there instead.
    async fn write(&self, repository: &Repository, released: bool) -> Result<Written> {
        let file = LeaseFile { epoch: self.epoch, holder: self.holder.clone(), boot: self.boot.clone(), until: self.until, released };
        let json = serde_json::to_vec(&file).map_err(|e| Error::failed("write a lease").because(e))?;
        let key = lease_key(&self.job, self.epoch);
        match whole::create(&**repository.store(), &key, Bytes::from(json)).await {
            Err(e) if e.kind() == Kind::Exists => Ok(match read(repository, &self.job, self.epoch).await? {
                // The answer of an earlier try was lost.
                Some(standing) if standing == file => Written::Ours,
                Some(other) => Written::Other(other),
                None => Written::Nonsense,
            }),
            other => other.map(|()| Written::Ours),
        }
    }
}

/// What came of creating an epoch's file.
enum Written {
    /// It stands.
    Ours,
    /// Another lease stands there.
    Other(LeaseFile),
    /// Something stands there that is no lease.
    Nonsense,
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
    let stands = look(repository, job).await?;
    Ok(match stands.held(now) {
        Some(file) => Standing::Held { dead: file.is_dead(host), holder: file.holder.clone(), until: file.until },
        None => Standing::Free,
    })
}

/// What lies where leases lie and is none: no lease by its name or content, an epoch or an end beyond reason.
pub async fn odd(repository: &Repository, job: &JobName) -> Result<Vec<Odd>> {
    let now = repository.store().server_date().await?;
    let mut stands = look(repository, job).await?;
    if let Some(file) = stands.newest.as_ref().filter(|file| file.is_endless(now)) {
        stands.odd.push(Odd::new(lease_key(job, file.epoch), format!("a lease until {}", second(file.until))));
    }
    Ok(stands.odd)
}

/// Removes what [`odd`] finds, as far as this user may; returns what went.
pub async fn clear(repository: &Repository, job: &JobName) -> Result<Vec<Odd>> {
    let mut found = odd(repository, job).await?;
    found.truncate(MOST_REMOVED);
    for odd in &found {
        repository.store().delete(&odd.key).await.map_err(|e| e.context(format!("remove {}", odd.key)))?;
    }
    Ok(found)
}

/// Takes the lease away from `holder`, by a new epoch that says that it was given back. The log stays as safe as before (rule 16):
/// should that run live, it and the next one do the same work. [`Kind::Locked`] when another holds it by now.
pub async fn unlock(repository: &Repository, job: &JobName, holder: &Holder) -> Result<()> {
    let what = || format!("unlock job {job}");
    let stands = look(repository, job).await.map_err(|e| e.context(what()))?;
    let Some(file) = stands.newest.filter(|file| !file.released) else { return Ok(()) };
    if file.holder != *holder {
        return Err(locked(job, &file).context(what()));
    }
    let mut next = Lease { job: job.clone(), epoch: stands.highest, holder: file.holder, until: file.until, boot: file.boot };
    for _ in 0..OWN_AHEAD {
        next.epoch = next.epoch.saturating_add(1);
        match next.write(repository, true).await.map_err(|e| e.context(what()))? {
            Written::Ours => return Ok(()),
            Written::Other(other) => return Err(locked(job, &other).context(what())),
            Written::Nonsense => {}
        }
    }
    Err(Error::failed(format!("{}: {OWN_AHEAD} epochs from {} on are taken by what is no lease", what(), stands.highest)))
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

/// Removes all but the newest epoch; the pruner does so. Returns how many files went: at most 1,000 at once.
pub async fn tidy(repository: &Repository, job: &JobName) -> Result<u64> {
    let stands = look(repository, job).await?;
    let newest = stands.newest.as_ref().map(|file| file.epoch);
    let old = stands.epochs.iter().filter(|(epoch, _)| Some(*epoch) != newest).map(|(epoch, _)| lease_key(job, *epoch));
    let mut removed = 0;
    for key in stands.odd.iter().map(|odd| odd.key.clone()).chain(old).take(MOST_REMOVED) {
        repository.store().delete(&key).await?;
        removed += 1;
    }
    Ok(removed)
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

/// What lies where a job's leases lie.
#[derive(Default)]
struct Looked {
    /// Epochs within reason with their sizes, the lowest first.
    epochs: Vec<(u64, u64)>,
    /// The highest of them; 0 where there is none.
    highest: u64,
    /// The newest that can be understood; one that cannot takes its epoch and holds nothing.
    newest: Option<LeaseFile>,
    /// What is no lease.
    odd: Vec<Odd>,
}

impl Looked {
    fn held(&self, now: Timestamp) -> Option<&LeaseFile> {
        self.newest.as_ref().filter(|file| !file.released && file.until > now && !file.is_endless(now))
    }
}

async fn look(repository: &Repository, job: &JobName) -> Result<Looked> {
    let prefix = format!("jobs/{job}/lease/");
    let store = &**repository.store();
    let mut looked = Looked::default();
    let mut after: Option<String> = None;
    for _ in 0..PAGES {
        let page = store.list(&prefix, after.as_deref(), PAGE).await?;
        after = page.last().filter(|_| page.len() == PAGE).map(|entry| entry.key.clone());
        for entry in page {
            let epoch = entry.key.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".json")?.parse().ok());
            match epoch.filter(|epoch| lease_key(job, *epoch) == entry.key) {
                Some(epoch) => looked.epochs.push((epoch, entry.bytes)),
                None => looked.odd.push(Odd::new(entry.key, "no name of a lease")),
            }
        }
        if after.is_none() {
            break;
        }
    }
    looked.epochs.sort_unstable();
    let mut before = 0;
    let reasonable = looked.epochs.iter().take_while(|(epoch, _)| epoch - std::mem::replace(&mut before, *epoch) <= BEYOND_REASON).count();
    let beyond = looked.epochs.split_off(reasonable);
    looked.odd.extend(beyond.iter().map(|(epoch, _)| Odd::new(lease_key(job, *epoch), "an epoch beyond reason")));
    looked.highest = looked.epochs.last().map_or(0, |(epoch, _)| *epoch);
    for (epoch, bytes) in looked.epochs.iter().rev().take(LOOK_AT) {
        let read = if (1..=LONGEST).contains(bytes) { read(repository, job, *epoch).await? } else { None };
        if read.is_some() {
            looked.newest = read;
            break;
        }
        looked.odd.push(Odd::new(lease_key(job, *epoch), "no lease by what it holds"));
    }
    Ok(looked)
}

async fn read(repository: &Repository, job: &JobName, epoch: u64) -> Result<Option<LeaseFile>> {
    let key = lease_key(job, epoch);
    let store = &**repository.store();
    match store.head(&key).await {
        Ok(head) if head.bytes == 0 || head.bytes > LONGEST => return Ok(None),
        Err(e) if e.kind() == Kind::NotFound => return Ok(None),
        other => other?,
    };
    let bytes = match whole::read(store, &key).await {
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) => return Ok(None),
        other => other?,
    };
    Ok(serde_json::from_slice::<LeaseFile>(&bytes).ok().filter(|file| file.epoch == epoch))
}
