//! One job's log: read, verified, appended to.
//!
//! Reading gives findings, not errors: what can be verified stays readable. Appending is refused ([`Kind::Corrupt`]) when records
//! are missing or the log was rolled back; deleting also when a record does not verify or does not follow from the one before.

use bytes::Bytes;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use crate::catalog::cache::Kept;
use crate::catalog::encoding;
use crate::catalog::env::Guard;
use crate::catalog::fold::{self, Frame};
use crate::catalog::keys::{self, KeyBook, KeyFile, Role, RoleKey, roles_for};
use crate::catalog::numbered;
use crate::catalog::repository::Repository;
use crate::catalog::rules::{self, Rules};
use crate::catalog::state::{Finding, State};
use crate::error::{Error, Kind, Result};
use crate::model::record::{Body, Record};
use crate::model::{FORMAT, JobName, Sha256};
use crate::pipeline::split::Sink;
use crate::store::{Entry, Store, whole};

/// Records read at once.
const READERS: usize = 8;

/// Numbers asked for in one listing.
const PAGE: usize = 1000;

/// Behind a gap of more than so many numbers nothing is part of the log (rule 19).
pub(crate) const FAR: u64 = 100;

/// So many objects, and so many bytes of them, are read to find one that somebody signed.
const LOOK_AT: usize = 16;
const LOOK_AT_BYTES: u64 = 16 << 20;

/// No record is shorter.
const SHORTEST: u64 = 200;

/// A record of ours that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub number: u64,
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
}

/// A record ready to be sent; a retry sends these very bytes (rule 1).
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) number: u64,
    pub(crate) bytes: Bytes,
    pub(crate) sha256: Sha256,
}

/// What became of a record that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It stands.
    Stands,
    /// Another record holds the number.
    Taken,
    /// The store can keep no record there: a folder has its name.
    Blocked,
}

/// One job's log, as far as it was read.
pub struct JobLog {
    pub(crate) repository: Repository,
    pub(crate) job: JobName,
    pub(crate) keys: Vec<RoleKey>,
    pub(crate) rules: Rules,
    pub(crate) state: State,
    pub(crate) book: KeyBook,
    from_cache: bool,
    pub(crate) acknowledging: bool,
    /// The repository's further stores; they get copies of the log (rule 11).
    pub(crate) copies: Vec<Sink>,
}

/// Where record `number` of a job lies.
pub fn record_key(job: &JobName, number: u64) -> String {
    format!("jobs/{job}/log/{number:010}.signed")
}

pub(crate) fn number_of(key: &str, job: &JobName) -> Option<u64> {
    let number = key.rsplit('/').next()?.strip_suffix(".signed")?.parse().ok()?;
    (record_key(job, number) == key).then_some(number)
}

/// Bytes under a number, as far as they could be a record.
pub(crate) enum Found {
    Bytes(Bytes),
    /// Longer than any record: it is not read, and its length stands for it.
    TooLong(Sha256),
    Nothing,
}

/// What a kept record is worth.
enum Judged {
    /// It counts: itself, its SHA-256, its bytes.
    Counts(Box<fold::Verified>, Sha256, Bytes),
    /// It counts for nothing: its SHA-256 and why, or nothing stands there.
    Nothing(Option<(Sha256, String)>),
}

impl JobLog {
    /// Reads and verifies the whole log. `keys` are the role keys at hand; none is needed to read.
    ///
    /// A log that does not exist is an empty one. Records that do not verify, gaps and rollbacks are findings in
    /// [`State::findings`], not errors: what can be verified stays readable. A record of a newer format is
    /// [`Kind::Unsupported`].
    pub async fn open(repository: &Repository, job: &JobName, keys: Vec<RoleKey>) -> Result<JobLog> {
        Self::open_with(repository, job, keys, Rules::default()).await
    }

    /// [`JobLog::open`] with rules switched off; for tests that show what a rule is for.
    #[doc(hidden)]
    pub async fn open_with(repository: &Repository, job: &JobName, keys: Vec<RoleKey>, rules: Rules) -> Result<JobLog> {
        let mut log = Self::unread(repository, job, keys, rules).await?;
        let what = || format!("read the log of job {job} in {}", repository.location());
        log.read_cached().await.map_err(|e| e.context(what()))?;
        log.refresh().await.map_err(|e| e.context(what()))?;
        Ok(log)
    }

    /// The log before its first record.
    async fn unread(repository: &Repository, job: &JobName, keys: Vec<RoleKey>, rules: Rules) -> Result<JobLog> {
        let mut book = repository.key_book().await?;
        let first = match book.get(&1) {
            Some(first) => first.clone(),
            // A listing may lack it.
            None => read_key_file(repository, 1).await.map_err(|e| match e.kind() {
                Kind::NotFound => e.with_kind(Kind::Corrupt).context("the repository has lost its first key file"),
                _ => e,
            })?,
        };
        let state = State::new(repository.inner.file_sha256, &first);
        book.insert(1, first);
        let (repository, job) = (repository.clone(), job.clone());
        Ok(JobLog { repository, job, keys, rules, state, book, from_cache: false, acknowledging: false, copies: Vec::new() })
    }

    /// Reads the log from its newest checkpoint on; the whole of it where there is none that can be trusted.
    ///
    /// Nothing of what lies before is looked at but the commit records of live sets, so that a gap there goes unnoticed: whoever
    /// wants to be sure opens the whole log.
    pub async fn open_at_checkpoint(repository: &Repository, job: &JobName, keys: Vec<RoleKey>) -> Result<JobLog> {
        Self::open_at_checkpoint_with(repository, job, keys, Rules::default()).await
    }

    /// [`JobLog::open_at_checkpoint`] with rules switched off; for tests.
    #[doc(hidden)]
    pub async fn open_at_checkpoint_with(repository: &Repository, job: &JobName, keys: Vec<RoleKey>, rules: Rules) -> Result<JobLog> {
        let mut log = Self::unread(repository, job, keys, rules).await?;
        let what = || format!("read the log of job {job} in {}", repository.location());
        log.start_at_checkpoint().await.map_err(|e| e.context(what()))?;
        log.refresh().await.map_err(|e| e.context(what()))?;
        Ok(log)
    }

    /// Reads what came since, and says how many numbers that were.
    pub async fn refresh(&mut self) -> Result<u64> {
        let before = self.state.head();
        loop {
            let listed = self.listed().await?;
            let from = self.state.head() + 1;
            let upto = listed.iter().zip(from..).take_while(|((number, _), next)| number == next).map(|(_, next)| next).last();
            if self.read_range(from, upto.unwrap_or(from)).await? == 0 && !self.cross_gap(from, &listed).await? {
                break;
            }
        }
        let head = self.state.head();
        self.state.findings.retain(|finding| !matches!(finding, Finding::Stray { number } if *number <= head));
        self.check_named_heads();
        self.check_high_water()?;
        Ok(head - before)
    }

    /// Reads every record from the store again, past the cache, and folds anew. Deleting asks for it.
    pub async fn reread(&mut self) -> Result<()> {
        let Some(first) = self.book.get(&1) else { return Err(Error::corrupt("the first key file is not at hand")) };
        self.state = State::new(self.repository.inner.file_sha256, first);
        self.from_cache = false;
        self.refresh().await.map(|_| ())
    }

    /// Whether part of the state rests on the local cache.
    pub(crate) fn is_from_cache(&self) -> bool {
        self.from_cache
    }

    /// Numbers after the head that a listing shows, up to the first gap of more than [`FAR`]. One that it does not show
    /// may stand all the same.
    ///
    /// Whoever may write the store may put something under a number far ahead; that is no part of the log, and nobody asks for
    /// every number before it.
    async fn listed(&mut self) -> Result<Vec<(u64, Entry)>> {
        let prefix = format!("jobs/{}/log/", self.job);
        let head = self.state.head();
        let page =
            self.repository.store().list(&prefix, Some(&record_key(&self.job, head)), PAGE).await.map_err(|e| e.context("list the log"))?;
        let number = |entry: &Entry| number_of(&entry.key, &self.job).filter(|number| *number > head);
        let mut numbers: Vec<(u64, Entry)> = page.into_iter().filter_map(|entry| Some((number(&entry)?, entry))).collect();
        numbers.sort_by_key(|(number, _)| *number);
        let mut before = head;
        let near = numbers.iter().take_while(|(number, _)| number - std::mem::replace(&mut before, *number) <= FAR).count();
        if let Some((number, _)) = numbers.get(near) {
            self.stray(*number);
        }
        numbers.truncate(near);
        Ok(numbers)
    }

    fn stray(&mut self, number: u64) {
        let lower = |finding: &Finding| matches!(finding, Finding::Stray { number: known } if *known <= number);
        if !self.state.findings.iter().any(lower) {
            self.state.findings.retain(|finding| !matches!(finding, Finding::Stray { .. }));
            self.state.findings.push(Finding::Stray { number });
        }
    }

    /// Reads and folds `from ..= upto`, up to the first number under which nothing stands; says how many.
    async fn read_range(&mut self, from: u64, upto: u64) -> Result<u64> {
        let repository = self.repository.clone();
        let job = self.job.clone();
        let mut read = futures::stream::iter(from..=upto)
            .map(|number| {
                let (repository, job) = (repository.clone(), job.clone());
                async move { Ok::<_, Error>((number, fetch(&repository, &job, number).await?)) }
            })
            .buffered(READERS);
        let mut count = 0;
        while let Some((number, found)) = read.try_next().await? {
            if matches!(found, Found::Nothing) {
                break;
            }
            self.take(number, found).await?;
            count += 1;
        }
        Ok(count)
    }

    /// Nothing stands under `from`, and the listing shows what comes after: says whether the log goes on behind a gap. It does where somebody
    /// signed a record there; what nobody signed is a stray, and proves nothing.
    async fn cross_gap(&mut self, from: u64, listed: &[(u64, Entry)]) -> Result<bool> {
        let Some((first, _)) = listed.first().filter(|(first, _)| *first > from) else { return Ok(false) };
        let Some(next) = first_signed(&self.repository, &self.job, listed, self.frame()).await? else {
            self.stray(*first);
            return Ok(false);
        };
        for number in from..next {
            match fetch(&self.repository, &self.job, number).await? {
                Found::Nothing if self.is_blocked(number).await? => self.take_blocked(number),
                Found::Nothing => self.state.apply_gap(number),
                found => self.take(number, found).await?,
            }
        }
        Ok(true)
    }

    /// Whether a folder stands in the place of a record, so that some stores can keep none there.
    async fn is_blocked(&self, number: u64) -> Result<bool> {
        let prefix = format!("{}/", record_key(&self.job, number));
        Ok(!self.repository.store().list(&prefix, None, 1).await?.is_empty())
    }

    /// A number under which no record can be written is taken, as by an empty object.
    pub(crate) fn take_blocked(&mut self, number: u64) {
        let (sha256, reason) = (Sha256::of(&[]), "a folder stands in its place");
        if let Some(cache) = &self.repository.env().cache {
            cache.keep_taken(self.repository.id(), &self.job, number, &sha256, reason);
        }
        self.state.apply_unverified(number, sha256, reason.to_owned());
    }

    /// Compares with what the key files of the root key name as the log's head (rule 18). A checkpoint after such a key came into this log says
    /// that a person has seen it.
    fn check_named_heads(&mut self) {
        for (file, _) in self.book.values() {
            let Some(named) = file.heads.as_ref().and_then(|heads| heads.get(&self.job)) else { continue };
            let differs = named.number > self.state.head() || self.state.hash_of(named.number).is_some_and(|found| found != named.sha256);
            let seen = self.state.key(file.number).is_some_and(|known| self.state.checkpoint().is_some_and(|at| at > known.since));
            let finding = Finding::Exchanged { number: named.number, file: file.number };
            if differs && !seen && !self.state.findings.contains(&finding) {
                self.state.findings.push(finding);
            }
        }
    }

    /// Reads the key files again; what a new one revokes does not count any more.
    pub(crate) async fn refresh_keys(&mut self) -> Result<()> {
        let book = self.repository.key_book().await?;
        let revokes = book.iter().any(|(number, (file, _))| !self.book.contains_key(number) && !file.revokes.is_empty());
        self.book.extend(book);
        if revokes { self.reread().await } else { Ok(()) }
    }

    /// Folds what stands under the next number.
    async fn take(&mut self, number: u64, found: Found) -> Result<()> {
        let mut found = found;
        for last_try in [false, true] {
            let (sha256, reason) = match &found {
                Found::Nothing => return Ok(()),
                Found::TooLong(sha256) => (*sha256, "it is longer than any record may be".to_owned()),
                Found::Bytes(bytes) => match self.fold(number, bytes).await {
                    Ok(_) => {
                        self.keep(number, bytes);
                        return Ok(());
                    }
                    Err(e) if e.kind() != Kind::Corrupt => return Err(e),
                    Err(e) => (Sha256::of(bytes), e.to_string()),
                },
            };
            if last_try && self.rules.unverified_takes_number {
                match (&self.repository.env().cache, &found) {
                    (Some(cache), Found::Bytes(bytes)) => cache.keep_unverified(self.repository.id(), &self.job, number, bytes),
                    (Some(cache), _) => cache.keep_taken(self.repository.id(), &self.job, number, &sha256, &reason),
                    (None, _) => {}
                }
                self.state.apply_unverified(number, sha256, reason);
                return Ok(());
            }
            // Bytes can go wrong on the way; what is bound into the next record must be what stands there.
            found = fetch(&self.repository, &self.job, number).await?;
        }
        Ok(())
    }

    /// Verifies and applies one record; says whether it counts. [`Kind::Corrupt`] when it does not verify, nothing applied then.
    pub(crate) async fn fold(&mut self, number: u64, bytes: &[u8]) -> Result<bool> {
        self.bring_keys(fold::named_keys(bytes)).await?;
        let verified = fold::verify(&self.state, number, bytes, self.frame())?;
        Ok(self.apply(verified, Sha256::of(bytes)))
    }

    /// Key files that a `key-change` names, into the book.
    async fn bring_keys(&mut self, named: Option<[u64; 2]>) -> Result<()> {
        for key in named.into_iter().flatten() {
            if self.book.contains_key(&key) {
                continue;
            }
            match read_key_file(&self.repository, key).await {
                Ok(file) => {
                    self.book.insert(key, file);
                }
                Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn apply(&mut self, verified: fold::Verified, sha256: Sha256) -> bool {
        // Beside the state, which changes, the frame is what is left alone.
        let JobLog { repository, job, rules, state, book, .. } = self;
        let frame = Frame { repository: repository.id(), job, scheme: &*repository.inner.scheme, keys: book, rules: *rules };
        state.apply(verified, sha256, frame)
    }

    /// What every record of this log must agree with.
    fn frame(&self) -> Frame<'_> {
        Frame {
            repository: self.repository.id(),
            job: &self.job,
            scheme: &*self.repository.inner.scheme,
            keys: &self.book,
            rules: self.rules,
        }
    }

    async fn read_cached(&mut self) -> Result<()> {
        let Some(cache) = self.repository.env().cache.clone() else { return Ok(()) };
        let (mut number, mut newest) = (1, None);
        // What counts for nothing is folded when a record that does follows: its links vouch for it.
        let mut waiting = Vec::new();
        'all: loop {
            let chunk = cache.read_chunk(self.repository.id(), &self.job, number).await;
            if chunk.is_empty() {
                break;
            }
            for kept in chunk {
                if let Some(judged) = self.judge_kept(number, kept).await? {
                    match judged {
                        Judged::Counts(verified, sha256, bytes) => {
                            for (number, what) in waiting.drain(..) {
                                match what {
                                    Some((sha256, reason)) => self.state.apply_unverified(number, sha256, reason),
                                    None => self.state.apply_gap(number),
                                }
                            }
                            let findings = self.state.findings.len();
                            self.apply(*verified, sha256);
                            if self.state.findings[findings..].iter().any(Finding::stops_deletes) {
                                // Not worth a word: the store is asked instead.
                                newest = None;
                                break 'all;
                            }
                            newest = Some((number, bytes));
                        }
                        Judged::Nothing(what) => waiting.push((number, what)),
                    }
                } else {
                    newest = None;
                    break 'all;
                }
                number += 1;
            }
        }
        // The newest cached record must be what the store holds; the links then vouch for those before it.
        let agrees = match newest {
            Some((number, bytes)) => {
                matches!(fetch(&self.repository, &self.job, number).await?, Found::Bytes(stored) if stored == bytes)
                    && fold::check_signature(number, &bytes, self.frame()).is_ok()
            }
            None => false,
        };
        if agrees {
            self.from_cache = true;
        } else if let Some(first) = self.book.get(&1) {
            self.state = State::new(self.repository.inner.file_sha256, first);
        }
        Ok(())
    }

    /// What a kept record is worth; `None` when the store has to be asked.
    async fn judge_kept(&mut self, number: u64, kept: Kept) -> Result<Option<Judged>> {
        let (verified, bytes, sha256) = match kept {
            Kept::Gap => return Ok(Some(Judged::Nothing(None))),
            Kept::Taken { sha256, reason } => return Ok(Some(Judged::Nothing(Some((sha256, reason))))),
            Kept::Record { record, bytes, sha256 } => {
                self.bring_keys(record.body.key_change().map(|named| [named, record.key])).await?;
                (fold::vouched(&self.state, number, *record, self.frame()), bytes, sha256)
            }
            Kept::Nonsense { bytes, sha256 } => {
                self.bring_keys(fold::named_keys(&bytes)).await?;
                (fold::verify(&self.state, number, &bytes, self.frame()), bytes, sha256)
            }
        };
        Ok(match verified {
            Ok(verified) => Some(Judged::Counts(Box::new(verified), sha256, bytes)),
            Err(e) if e.kind() == Kind::Corrupt && self.rules.unverified_takes_number => {
                Some(Judged::Nothing(Some((sha256, e.to_string()))))
            }
            Err(_) => None,
        })
    }

    fn keep(&self, number: u64, bytes: &[u8]) {
        let Some(cache) = &self.repository.env().cache else { return };
        cache.keep(self.repository.id(), &self.job, number, bytes);
        if self.state.checkpoint() == Some(number) {
            // Gaps that a person has seen are not looked for again.
            for finding in self.state.findings() {
                if let Finding::Gap { number } = finding {
                    cache.keep_gap(self.repository.id(), &self.job, *number);
                }
            }
        }
    }

    /// Compares with the newest record this machine has seen, and moves that mark forwards.
    fn check_high_water(&mut self) -> Result<()> {
        let Some(mark) = self.repository.env().high_water.clone() else { return Ok(()) };
        let id = self.repository.id().to_owned();
        let head = self.state.head();
        if let Some((seen, sha256)) = mark.get(&id, &self.job)? {
            let same = seen <= head && self.state.hash_of(seen).is_none_or(|found| found == sha256);
            let finding = Finding::RolledBack { seen, found: head.min(seen) };
            if !same && !self.state.findings.iter().any(|f| matches!(f, Finding::RolledBack { .. })) {
                self.state.findings.push(finding);
            }
            if seen >= head {
                return Ok(());
            }
        }
        if head > 0 && !self.state.open_findings().any(Finding::stops_appends) {
            mark.set(&id, &self.job, head, &self.state.head_sha256)?;
        }
        Ok(())
    }

    /// Refuses to append to a log from which records were taken.
    pub(crate) fn refuse_if_tampered(&self, deletes: bool) -> Result<()> {
        let stops = |f: &&Finding| f.stops_appends() || (deletes && f.stops_deletes());
        match self.state.open_findings().find(stops) {
            None => Ok(()),
            Some(finding) => {
                let what = if deletes { "delete from" } else { "append to" };
                Err(Error::corrupt(format!("{what} the log of job {}: {finding}", self.job))
                    .hint(format!(
                        "what can be verified is still readable: drctl list; look into it before anything else is done; then: drctl repository acknowledge {}",
                        self.job
                    )))
            }
        }
    }

    /// Appends one record that needs no judgement beyond the rules for its type; a conflict is judged again and tried again at
    /// the next number.
    pub async fn append(&mut self, body: Body) -> Result<Appended> {
        self.append_with(|_, _| Ok(body.clone())).await
    }

    /// Appends the record that `make` gives for the log up to its head. `make` is asked again, with the state at the new head,
    /// whenever another record took the number; its error ends the append with nothing written.
    ///
    /// The second argument of `make` is the server's date. [`Kind::OutcomeUnknown`]: the record may stand, or may yet arrive.
    pub async fn append_with<F>(&mut self, mut make: F) -> Result<Appended>
    where
        F: FnMut(&State, Timestamp) -> Result<Body> + Send,
    {
        let appended = self.append_if(|state, date| make(state, date).map(Some)).await?;
        appended.ok_or_else(|| Error::failed("append a record: there is nothing to append"))
    }

    /// [`JobLog::append_with`] for a `make` that may find, at any head, that there is nothing to append any more.
    ///
    /// A key at hand that the log does not know yet is brought first, as by [`JobLog::introduce`]; a `key-change` brings its own.
    pub async fn append_if<F>(&mut self, mut make: F) -> Result<Option<Appended>>
    where
        F: FnMut(&State, Timestamp) -> Result<Option<Body>> + Send,
    {
        self.refresh_keys().await?;
        self.refresh().await?;
        loop {
            let date = self.server_date().await?;
            let Some(wanted) = make(&self.state, date)? else { return Ok(None) };
            let key = if matches!(wanted, Body::KeyChange { .. }) { None } else { self.next_key().await? };
            let (brought, body) = key.map_or((None, wanted), |(number, change)| (Some(number), change));
            if !self.acknowledging {
                self.refuse_if_tampered(matches!(body, Body::DeleteIntent { .. } | Body::Deleted { .. }))?;
            }
            rules::admissible(&self.state, &body, self.rules)?;
            let what = format!("append a {} record to the log of job {}", body.type_name(), self.job);
            let sealed = self.seal(body).map_err(|e| e.context(what.clone()))?;
            match self.send(&sealed).await.map_err(|e| e.context(what.clone()))? {
                Sent::Stands => {
                    self.take_own(&sealed).await.map_err(|e| e.with_kind(Kind::OutcomeUnknown).context(what))?;
                    match brought {
                        None => return Ok(Some(Appended { number: sealed.number, sha256: sealed.sha256 })),
                        Some(number) if self.state.takes_key(number) => {
                            return Err(Error::corrupt(format!("the log of job {} does not take key {number} in", self.job))
                                .hint("drctl status shows what is wrong with the log"));
                        }
                        Some(_) => {}
                    }
                }
                Sent::Taken => {
                    self.refresh().await?;
                }
                Sent::Blocked => self.take_blocked(sealed.number),
            }
        }
    }

    /// Makes a key at hand valid here that the root key vouches for and this log does not know yet, and with it, in their order, every key file
    /// before it: what is passed over now could not come later. A `key-change` each, signed by the new key itself.
    pub async fn introduce(&mut self) -> Result<()> {
        while let Some((number, change)) = self.next_key().await? {
            self.append_if(|state, _| Ok(state.takes_key(number).then(|| change.clone()))).await?;
        }
        Ok(())
    }

    /// The next `key-change` on the way to the newest key at hand; `None` when the log knows that key.
    async fn next_key(&mut self) -> Result<Option<(u64, Body)>> {
        let Some(own) = self.keys.iter().filter(|key| self.state.takes_key(key.number)).max_by_key(|key| key.number).cloned() else {
            return Ok(None);
        };
        for number in (1..=own.number).filter(|number| self.state.takes_key(*number)) {
            let (file, sha256) = match read_key_file(&self.repository, number).await {
                // Its maker died before it was written, or what stands there is none of the root key's.
                Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) && number < own.number => continue,
                other => other?,
            };
            if number == own.number && file.public != *own.signer.public() {
                return Err(Error::new(Kind::Denied, format!("the signing key at hand is not that of key file {number}"))
                    .hint("drctl key list shows the keys of this repository"));
            }
            let change = Body::KeyChange { number, sha256, revoked: file.revokes.clone() };
            self.book.insert(number, (file, sha256));
            if !self.book.contains_key(&own.number) {
                self.book.insert(own.number, read_key_file(&self.repository, own.number).await?);
            }
            return Ok(Some((number, change)));
        }
        Ok(None)
    }

    /// The server's date.
    pub async fn server_date(&self) -> Result<Timestamp> {
        self.repository.store().server_date().await.map_err(|e| e.context(format!("ask {} for its date", self.repository.location())))
    }

    /// Refuses before the work what would be refused after it: a set that no key at hand may commit.
    pub(crate) fn refuse_without_writer(&self) -> Result<()> {
        self.key_with(&[Role::Writer], "commit", |_| false).map(|_| ())
    }

    /// A key at hand that may append `body` at the head (rule 4).
    pub(crate) fn key_for(&self, body: &Body) -> Result<&RoleKey> {
        // A new key may bring itself and those before it.
        let introduces =
            |key: &RoleKey| matches!(body, Body::KeyChange { number, .. } if *number <= key.number) && self.state.takes_key(key.number);
        self.key_with(roles_for(body), body.type_name(), introduces)
    }

    fn key_with(&self, needed: &[Role], what: &str, introduces: impl Fn(&RoleKey) -> bool) -> Result<&RoleKey> {
        if !self.rules.fresh_key {
            return self.keys.first().ok_or_else(|| Error::new(Kind::Denied, "there is no signing key at hand"));
        }
        let known = |key: &&RoleKey| self.book.get(&key.number).is_some_and(|(file, _)| file.public == *key.signer.public());
        let valid = |key: &&RoleKey| {
            let roles = self.state.key(key.number).map(|standing| &standing.roles);
            known(key)
                && self.state.key_is_valid(key.number)
                && self.revoked(key.number).is_none()
                && (needed.is_empty() || roles.is_some_and(|roles| needed.iter().any(|role| roles.contains(role))))
        };
        let brings = |key: &&RoleKey| known(key) && introduces(key) && self.revoked(key.number).is_none();
        self.keys.iter().rfind(valid).or_else(|| self.keys.iter().rfind(brings)).ok_or_else(|| {
            let revoked = self.keys.iter().find(|key| self.state.key(key.number).is_some_and(|standing| standing.revoked.is_some()));
            let by_file = self.keys.iter().find_map(|key| self.revoked(key.number));
            let why = match (revoked, self.keys.as_slice()) {
                (Some(key), _) => format!("key {} was revoked in the log of job {}", key.number, self.job),
                (None, _) if by_file.is_some() => by_file.unwrap_or_default(),
                (None, []) => "there is no signing key at hand".to_owned(),
                (None, [only]) => format!("key {} has no role that may", only.number),
                (None, _) => "none of the signing keys at hand may".to_owned(),
            };
            Error::new(Kind::Denied, format!("this host cannot write a {what} record: {why}"))
                .hint("drctl key list shows which keys may what; signing_key: in drctl.yaml names this host's")
        })
    }

    /// Why a key signs nothing more here, by what the root key signed anywhere (rule 18).
    pub fn revoked(&self, key: u64) -> Option<String> {
        keys::revoked(&self.book, &self.job, key, self.state.head() + 1).filter(|_| self.rules.revoked_everywhere)
    }

    /// The record that would stand at the next number.
    pub(crate) fn seal(&self, body: Body) -> Result<Sealed> {
        let key = self.key_for(&body)?;
        let number = self.state.head() + 1;
        let record = Record {
            format: FORMAT,
            repository: self.repository.id().to_owned(),
            job: self.job.clone(),
            number,
            previous: self.state.head_sha256,
            key: key.number,
            at: self.repository.env().clock.now(),
            body,
        };
        let json = serde_json::to_string(&record).map_err(|e| Error::failed("write a record").because(e))?;
        let bytes = encoding::seal(&*key.signer, &json, &encoding::record_subject(&self.job, number))?;
        Ok(Sealed { number, sha256: Sha256::of(&bytes), bytes })
    }

    /// Creates the record, again and again until it stands, the number is another's, or the waiting ends (rules 1 and 5).
    pub(crate) async fn send(&self, sealed: &Sealed) -> Result<Sent> {
        let key = record_key(&self.job, sealed.number);
        let mut attempt = 0;
        let mut may_have_landed = false;
        let alone = self.alone().await?;
        loop {
            let failed = match self.create(&key, sealed, alone.is_some()).await {
                Ok(()) => return Ok(Sent::Stands),
                Err(e) if e.kind() == Kind::Exists && !self.rules.same_bytes => return Ok(Sent::Taken),
                Err(e) if e.kind() == Kind::Exists => match fetch(&self.repository, &self.job, sealed.number).await {
                    Ok(Found::Bytes(bytes)) if bytes == sealed.bytes => return Ok(Sent::Stands),
                    Ok(Found::Nothing) if !may_have_landed && self.is_blocked(sealed.number).await? => return Ok(Sent::Blocked),
                    Ok(Found::Nothing) => e,
                    Ok(_) => return Ok(Sent::Taken),
                    Err(e) => e,
                },
                // The store itself cannot tell, and to find the record there proves nothing: a name whose fsync failed may be gone after a
                // power loss, and a second fsync reports no error that the first one reported.
                Err(e) if e.kind() == Kind::OutcomeUnknown => {
                    return Err(e.context(format!("outcome unknown: {key} was sent and may stand")));
                }
                // These say that nothing was stored.
                Err(e) if matches!(e.kind(), Kind::Denied | Kind::Full | Kind::Corrupt) && !may_have_landed => return Err(e),
                Err(e) => e,
            };
            may_have_landed = true;
            attempt += 1;
            if !self.repository.env().pause.before_retry(attempt).await {
                return Err(failed.with_kind(Kind::OutcomeUnknown).context(format!("outcome unknown: {key} was sent and may yet arrive")));
            }
        }
    }

    /// Rule 13: on a single-writer repository every append of this host is made under one lock.
    async fn alone(&self) -> Result<Option<Guard>> {
        if self.repository.single_writer().is_none() {
            return Ok(None);
        }
        match &self.repository.env().writer_lock {
            Some(lock) => lock.lock().await.map(Some),
            None => Err(Error::new(
                Kind::Preflight,
                format!(
                    "append to the log of job {}: {} is single-writer, and there is no lock here",
                    self.job,
                    self.repository.location()
                ),
            )
            .hint("write with the configuration of the one host that may: drctl config show")),
        }
    }

    /// Creates the record. With `look` the number is looked at first: the store would overwrite what stands there.
    async fn create(&self, key: &str, sealed: &Sealed, look: bool) -> Result<()> {
        if look && !matches!(fetch(&self.repository, &self.job, sealed.number).await?, Found::Nothing) {
            return Err(Error::new(Kind::Exists, format!("{key} exists already")));
        }
        whole::create(&**self.repository.store(), key, sealed.bytes.clone()).await
    }

    /// Folds a record of ours that stands at the next number.
    pub(crate) async fn take_own(&mut self, sealed: &Sealed) -> Result<()> {
        if self.state.head() + 1 != sealed.number {
            return Err(Error::failed(format!("record {} does not follow the head {}", sealed.number, self.state.head())));
        }
        match self.fold(sealed.number, &sealed.bytes).await {
            Ok(_) => self.keep(sealed.number, &sealed.bytes),
            Err(e) if self.rules.fresh_key => return Err(e.context("the record just written does not count")),
            Err(e) => self.state.apply_unverified(sealed.number, sealed.sha256, e.to_string()),
        }
        // The record stands, whatever becomes of this machine's own mark.
        if let Err(e) = self.check_high_water() {
            tracing::warn!("the newest record seen of job {} could not be noted: {e}", self.job);
        }
        Ok(())
    }

    /// What the log says up to [`JobLog::head`].
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Number of the newest record read.
    pub fn head(&self) -> u64 {
        self.state.head()
    }

    /// The job.
    pub fn job(&self) -> &JobName {
        &self.job
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }
}

/// Whether a key that counts there signed something among the first objects of a job's log; `listed` is what lies there, where that is known.
pub(crate) async fn is_log(repository: &Repository, job: &JobName, book: &KeyBook, listed: Option<Vec<Entry>>) -> Result<bool> {
    let listed = match listed {
        Some(listed) => listed,
        None => repository.store().list(&format!("jobs/{job}/log/"), None, LOOK_AT).await?,
    };
    let numbers: Vec<(u64, Entry)> = listed.into_iter().filter_map(|entry| Some((number_of(&entry.key, job)?, entry))).collect();
    let scheme = &*repository.inner.scheme;
    let frame = Frame { repository: repository.id(), job, scheme, keys: book, rules: Rules::default() };
    Ok(first_signed(repository, job, &numbers, frame).await?.is_some())
}

/// The first of these numbers under which a record stands that a key of the repository signed. Not all are looked at, and none twice.
async fn first_signed(repository: &Repository, job: &JobName, listed: &[(u64, Entry)], frame: Frame<'_>) -> Result<Option<u64>> {
    let mut left = LOOK_AT_BYTES;
    for (number, entry) in listed.iter().filter(|(_, entry)| (SHORTEST..=LOOK_AT_BYTES).contains(&entry.bytes)).take(LOOK_AT) {
        if repository.is_junk(entry, frame.keys) {
            continue;
        }
        let Some(rest) = left.checked_sub(entry.bytes) else { break };
        left = rest;
        let key = record_key(job, *number);
        match repository.store().get_range(&key, 0, entry.bytes).await {
            Ok(bytes) if fold::is_signed(*number, &bytes, frame) => return Ok(Some(*number)),
            Ok(_) => repository.note_junk(entry, frame.keys),
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) => {}
            Err(e) => return Err(e.context(format!("read {key}"))),
        }
    }
    Ok(None)
}

pub(crate) async fn read_key_file(repository: &Repository, number: u64) -> Result<(KeyFile, Sha256)> {
    let key = KeyFile::key(number);
    let store = &**repository.store();
    let bytes = store.head(&key).await?.bytes;
    if bytes > numbered::LONGEST_KEY {
        return Err(Error::corrupt(format!("{key} has {bytes} bytes, more than any key file")));
    }
    let bytes = store.get_range(&key, 0, bytes).await?;
    KeyFile::open(&bytes, &*repository.inner.scheme, repository.root(), repository.id(), number)
}

/// What is bound in the place of the SHA-256 of something too long to be a record: nobody reads it (rule 19).
fn too_long(bytes: u64) -> Sha256 {
    Sha256::of(format!("drctl-too-long-0\n{bytes}\n").as_bytes())
}

/// SHA-256 of what stands under a record's number, as the next one binds it; `None` when nothing does.
pub(crate) async fn bound_sha256(store: &dyn Store, key: &str) -> Result<Option<Sha256>> {
    match store.head(key).await {
        Ok(head) if head.bytes > whole::WHOLE_LIMIT => Ok(Some(too_long(head.bytes))),
        Ok(head) => Ok(Some(Sha256::of(&store.get_range(key, 0, head.bytes).await?))),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) async fn fetch(repository: &Repository, job: &JobName, number: u64) -> Result<Found> {
    let key = record_key(job, number);
    let store = &**repository.store();
    let bytes = match store.head(&key).await {
        Ok(head) => head.bytes,
        Err(e) if e.kind() == Kind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(e.context(format!("read {key}"))),
    };
    if bytes == 0 {
        return Ok(Found::Bytes(Bytes::new()));
    }
    if bytes <= whole::WHOLE_LIMIT {
        return store.get_range(&key, 0, bytes).await.map(Found::Bytes).map_err(|e| e.context(format!("read {key}")));
    }
    Ok(Found::TooLong(too_long(bytes)))
}
