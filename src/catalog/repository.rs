//! One repository: its identity, its root key, and the files that say what may change.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::catalog::encoding::{self, Minisign, REPOSITORY_SUBJECT, Scheme};
use crate::catalog::env::Env;
use crate::catalog::keys::{KeyBook, KeyFile, MinisignKey, PublicKey, RoleKey, Signer, all_in_one};
use crate::catalog::numbered::{self, Candidate, Looked, Odd};
use crate::error::{Error, Kind, Result};
use crate::model::{FORMAT, JobName, Sha256};
use crate::store::{DynStore, Entry, whole};

/// What is said of something that was read before.
const UNSIGNED: &str = "the root key did not sign it";

/// Key files read at once.
const READERS: usize = 8;

/// Where the repository's own file lies.
pub const REPOSITORY_KEY: &str = "drctl-repository.json";

/// `drctl-repository.json`: created once, never changed, signed by the root key it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryFile {
    /// [`FORMAT`] of the program that made the repository.
    pub format: u32,
    /// 32 hex digits, random.
    pub repository: String,
    /// The root public key.
    pub root: PublicKey,
    /// When it was made, by the maker's clock.
    pub at: Timestamp,
}

/// `repository/0001.json` and on: what may change. The highest one that the root key signed holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Format that readers must know.
    pub format: u32,
    /// The repository.
    pub repository: String,
    /// Its own number.
    pub number: u64,
    /// The one host that may write, where the store has no conditional create (rule 13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_writer: Option<String>,
    /// When it was written.
    pub at: Timestamp,
}

/// Which repository the caller expects to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// This one: from configuration or recovery file. Anything else is refused.
    Known {
        /// The repository's id.
        id: String,
        /// Its root public key.
        root: PublicKey,
    },
    /// Whatever stands there; the caller keeps [`Repository::id`] and [`Repository::root`] and passes them from then on.
    OnFirstUse,
}

/// An open repository on its first store. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: DynStore,
    pub(crate) env: Env,
    pub(crate) scheme: Arc<dyn Scheme>,
    pub(crate) file: RepositoryFile,
    pub(crate) file_sha256: Sha256,
    pub(crate) terms: Option<Terms>,
    /// What was passed over below `repository/`.
    odd_terms: Vec<Odd>,
    /// What is known of `keys/`.
    known: Mutex<KnownKeys>,
    /// Jobs that were seen to have a log.
    jobs: Mutex<BTreeSet<JobName>>,
    /// What was found to be signed by nobody: hashes of key, size, date and the keys known then.
    junk: Mutex<Option<BTreeSet<Sha256>>>,
}

/// Why files do not verify, by key, size and date.
type Failed = BTreeMap<(String, u64, Timestamp), String>;

/// Key files are never changed: one that verified once is not read again, nor is what did not.
#[derive(Default)]
struct KnownKeys {
    book: KeyBook,
    failed: Failed,
    odd: Vec<Odd>,
}

/// What `init` made.
pub struct NewRepository {
    /// The repository, open.
    pub repository: Repository,
    /// The root secret. It goes into the recovery file and nowhere else.
    pub root: MinisignKey,
    /// Secret of key file 1, all roles. It stays on the host.
    pub key: MinisignKey,
}

impl NewRepository {
    /// The first key as a role key.
    pub fn role_key(self) -> RoleKey {
        RoleKey { number: 1, signer: Arc::new(self.key) }
    }
}

impl Repository {
    /// Makes a repository in an empty place: `drctl-repository.json`, then key file 1 with all roles. `holder` names the host
    /// that keeps the key. A place that holds a repository already is [`Kind::Exists`], and nothing of it is touched.
    pub async fn init(store: DynStore, env: Env, holder: &str) -> Result<NewRepository> {
        let root = MinisignKey::generate()?;
        let key = MinisignKey::generate()?;
        let repository = Self::init_with(store, env, holder, &root, key.public().clone(), Arc::new(Minisign)).await?;
        Ok(NewRepository { repository, root, key })
    }

    /// [`Repository::init`] with keys and scheme of the caller's; for tests and for `init` itself.
    pub async fn init_with(
        store: DynStore,
        env: Env,
        holder: &str,
        root: &dyn Signer,
        first: PublicKey,
        scheme: Arc<dyn Scheme>,
    ) -> Result<Repository> {
        let at = env.clock.now();
        let id = (0..4).map(|_| format!("{:08x}", env.random.bits())).collect::<String>();
        let file = RepositoryFile { format: FORMAT, repository: id.clone(), root: root.public().clone(), at };
        let json = serde_json::to_string(&file).map_err(|e| Error::failed("write the repository file").because(e))?;
        let bytes = encoding::seal(root, &json, REPOSITORY_SUBJECT)?;
        let taken = || {
            Error::new(Kind::Exists, format!("{} holds a drctl repository already", store.location()))
                .hint("use it with --repo and its recovery file, or choose an empty place")
        };
        // A store without conditional create (rule 13) would overwrite it without a word.
        match store.head(REPOSITORY_KEY).await {
            Err(e) if e.kind() == Kind::NotFound => {}
            Ok(_) => return Err(taken()),
            Err(e) => return Err(e.context(format!("make a repository in {}", store.location()))),
        }
        let key_file = KeyFile {
            format: FORMAT,
            repository: id,
            number: 1,
            roles: all_in_one(),
            public: first,
            holder: holder.to_owned(),
            at,
            revokes: Vec::new(),
            heads: None,
        };
        create(&store, REPOSITORY_KEY, bytes.clone()).await.map_err(|e| match e.kind() {
            Kind::Exists => taken(),
            _ => e.context(format!("make a repository in {}", store.location())),
        })?;
        create(&store, &KeyFile::key(1), key_file.seal(root)?).await.map_err(|e| e.context("write the first key file"))?;
        let file_sha256 = Sha256::of(&bytes);
        Ok(Self::of(store, env, scheme, (file, file_sha256), (None, Vec::new())))
    }

    /// Opens a repository and checks that it is the one expected. A newer format is [`Kind::Unsupported`]; another repository or
    /// a file that does not verify is [`Kind::Corrupt`]; none at all is [`Kind::NotFound`].
    pub async fn open(store: DynStore, env: Env, trust: &Trust) -> Result<Repository> {
        Self::open_with(store, env, trust, Arc::new(Minisign)).await
    }

    /// [`Repository::open`] with a scheme of the caller's; for tests.
    pub async fn open_with(store: DynStore, env: Env, trust: &Trust, scheme: Arc<dyn Scheme>) -> Result<Repository> {
        let place = store.location();
        let what = || format!("open the repository in {place}");
        let bytes = whole::read(&*store, REPOSITORY_KEY).await.map_err(|e| match e.kind() {
            Kind::NotFound => Error::new(Kind::NotFound, format!("there is no drctl repository in {place}"))
                .hint("check the location, or make one: drctl init"),
            _ => e.context(what()),
        })?;
        let file = read_repository_file(&bytes, &*scheme, trust).map_err(|e| e.context(what()))?;
        let repository = Self::of(store, env, scheme, (file, Sha256::of(&bytes)), (None, Vec::new()));
        let terms = repository.newest_terms().await.map_err(|e| e.context(what()))?;
        // Nobody else has it yet.
        Arc::try_unwrap(repository.inner)
            .map(|inner| Repository { inner: Arc::new(Inner { terms: terms.0, odd_terms: terms.1, ..inner }) })
            .map_err(|_| Error::failed(what()))
    }

    fn of(
        store: DynStore,
        env: Env,
        scheme: Arc<dyn Scheme>,
        (file, file_sha256): (RepositoryFile, Sha256),
        (terms, odd_terms): (Option<Terms>, Vec<Odd>),
    ) -> Repository {
        let (known, jobs, junk) = (Mutex::default(), Mutex::default(), Mutex::default());
        Repository { inner: Arc::new(Inner { store, env, scheme, file, file_sha256, terms, odd_terms, known, jobs, junk }) }
    }

    /// The repository's id: 32 hex digits.
    pub fn id(&self) -> &str {
        &self.inner.file.repository
    }

    /// The root public key.
    pub fn root(&self) -> &PublicKey {
        &self.inner.file.root
    }

    /// The store it lies in.
    pub fn store(&self) -> &DynStore {
        &self.inner.store
    }

    /// The store's place as people know it.
    pub fn location(&self) -> String {
        self.inner.store.location()
    }

    /// What the caller gave from outside.
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// The one host that may write, where the repository is single-writer (rule 13).
    pub fn single_writer(&self) -> Option<&str> {
        self.inner.terms.as_ref()?.single_writer.as_deref()
    }

    /// Writes the next free file under `repository/`; needs the root secret. It holds for whoever opens the repository afterwards.
    pub async fn write_terms(&self, root: &dyn Signer, terms: &Terms) -> Result<()> {
        let mut terms = terms.clone();
        for _ in 0..numbered::MOST_ODD {
            let json = serde_json::to_string(&terms).map_err(|e| Error::failed("write the repository's terms").because(e))?;
            let bytes = encoding::seal(root, &json, &encoding::terms_subject(terms.number))?;
            let key = terms_key(terms.number);
            match create(&self.inner.store, &key, bytes).await {
                // Something that nobody signed took the number.
                Err(e) if e.kind() == Kind::Exists => terms.number += 1,
                other => return other.map_err(|e| e.context(format!("write {key}"))),
            }
        }
        Err(too_much("repository"))
    }

    /// The highest terms that the root key signed, and what was passed over.
    async fn newest_terms(&self) -> Result<(Option<Terms>, Vec<Odd>)> {
        let Looked { candidates, mut odd } = numbered::look(&*self.inner.store, "repository", terms_key, numbered::LONGEST).await?;
        let mut newest = None;
        let mut junk = 0;
        for candidate in candidates {
            if self.is_junk(&candidate.entry(), &KeyBook::new()) {
                odd.push(Odd::new(candidate.key, UNSIGNED));
                continue;
            }
            if junk >= numbered::MOST_ODD {
                odd.push(Odd::new(candidate.key, "too many before it do not verify: neither it nor what comes after was looked at"));
                break;
            }
            match self.read_terms(&candidate).await? {
                Ok(terms) => newest = Some(terms),
                Err(why) => {
                    junk += 1;
                    self.note_junk(&candidate.entry(), &KeyBook::new());
                    odd.push(Odd::new(candidate.key, why));
                }
            }
        }
        Ok((newest, odd))
    }

    /// One file under `repository/`; the inner error says why it is none of the root key's.
    async fn read_terms(&self, candidate: &Candidate) -> Result<std::result::Result<Terms, String>> {
        let Inner { store, scheme, file, .. } = &*self.inner;
        let Candidate { number, key, bytes, .. } = candidate;
        let bytes = match store.get_range(key, 0, *bytes).await {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::NotFound) => return Ok(Err(e.to_string())),
            Err(e) => return Err(e.context(format!("read {key}"))),
        };
        let signed = encoding::split(&bytes).and_then(|parts| {
            scheme.verify(&file.root, parts.line, &encoding::terms_subject(*number), parts.signature)?;
            parts.json()
        });
        let json = match signed {
            Ok(json) => json,
            Err(e) => return Ok(Err(e.to_string())),
        };
        refuse_newer(json).map_err(|e| e.context(key.clone()))?;
        let terms: Terms = serde_json::from_str(json).map_err(|e| Error::corrupt(key.clone()).because(e))?;
        let own = terms.repository == file.repository && terms.number == *number;
        Ok(if own { Ok(terms) } else { Err("it belongs to another repository or number".to_owned()) })
    }

    /// Keys of the repository's own files that hold, `drctl-repository.json` first.
    pub(crate) async fn own_files(&self) -> Result<Vec<String>> {
        let mut keys = vec![REPOSITORY_KEY.to_owned()];
        keys.extend(self.key_book().await?.into_keys().map(KeyFile::key));
        let looked = numbered::look(&*self.inner.store, "repository", terms_key, numbered::LONGEST).await?;
        let newest = self.inner.terms.as_ref().map_or(0, |terms| terms.number);
        for candidate in looked.candidates.into_iter().filter(|candidate| candidate.number <= newest) {
            if self.read_terms(&candidate).await?.is_ok() {
                keys.push(candidate.key);
            }
        }
        Ok(keys)
    }

    /// What was passed over below `repository/` and, as far as they were looked at, `keys/`: nobody whom the root key knows put it there.
    pub fn odd(&self) -> Vec<Odd> {
        let known = self.inner.known.lock().unwrap_or_else(|p| p.into_inner());
        let mut odd: Vec<Odd> = self.inner.odd_terms.iter().chain(&known.odd).cloned().collect();
        odd.sort();
        odd.dedup();
        odd
    }

    /// Every key file that the root key signed, by number. By a listing, which may lack the newest; one that was seen once stays.
    pub async fn key_book(&self) -> Result<KeyBook> {
        let store = &*self.inner.store;
        let looked =
            numbered::look(store, "keys", KeyFile::key, numbered::LONGEST_KEY).await.map_err(|e| e.context("list the key files"))?;
        let (mut book, mut failed) = {
            let known = self.inner.known.lock().unwrap_or_else(|p| p.into_inner());
            (known.book.clone(), known.failed.clone())
        };
        let mut odd = looked.odd;
        let wanted: Vec<Candidate> = looked.candidates.into_iter().filter(|candidate| !book.contains_key(&candidate.number)).collect();
        let mut junk = (0, 0);
        for batch in wanted.chunks(READERS) {
            if junk.0 >= numbered::MOST_ODD || junk.1 >= numbered::MOST_ODD_BYTES {
                odd.push(Odd::new(batch[0].key.clone(), "too many before it do not verify: neither it nor what comes after was looked at"));
                break;
            }
            let read = batch.iter().map(|candidate| self.open_key_file(candidate, &failed));
            for (candidate, file) in batch.iter().zip(futures::future::try_join_all(read).await?) {
                match file {
                    Ok(file) => {
                        book.insert(candidate.number, file);
                    }
                    Err(why) => {
                        if why != UNSIGNED {
                            junk = (junk.0 + 1, junk.1 + candidate.bytes);
                        }
                        odd.push(Odd::new(candidate.key.clone(), why.clone()));
                        failed.insert(candidate.identity(), why);
                    }
                }
            }
        }
        let mut known = self.inner.known.lock().unwrap_or_else(|p| p.into_inner());
        known.book.extend(book.clone());
        (known.failed, known.odd) = (failed, odd);
        Ok(book)
    }

    /// One key file. [`Kind::Corrupt`]: the root key did not sign it.
    pub async fn key_file(&self, number: u64) -> Result<KeyFile> {
        super::log::read_key_file(self, number).await.map(|(file, _)| file)
    }

    /// One key file; the inner error says why it is none of the root key's.
    async fn open_key_file(&self, candidate: &Candidate, failed: &Failed) -> Result<std::result::Result<(KeyFile, Sha256), String>> {
        if let Some(why) = failed.get(&candidate.identity()) {
            return Ok(Err(why.clone()));
        }
        if self.is_junk(&candidate.entry(), &KeyBook::new()) {
            return Ok(Err(UNSIGNED.to_owned()));
        }
        let Candidate { number, key, bytes, .. } = candidate;
        let opened = match self.inner.store.get_range(key, 0, *bytes).await {
            Ok(bytes) => KeyFile::open(&bytes, &*self.inner.scheme, self.root(), self.id(), *number),
            Err(e) => Err(e),
        };
        match opened {
            Err(e) if e.kind() == Kind::Corrupt => {
                self.note_junk(&candidate.entry(), &KeyBook::new());
                Ok(Err(e.to_string()))
            }
            Err(e) if e.kind() == Kind::NotFound => Ok(Err(e.to_string())),
            other => other.map(Ok),
        }
    }

    /// [`Repository::key_book`], the files only.
    pub async fn key_files(&self) -> Result<Vec<KeyFile>> {
        Ok(self.key_book().await?.into_values().map(|(file, _)| file).collect())
    }

    /// Writes a key file under the next free number, signed by the root key. What `wanted` says of repository, number and date is put right.
    pub async fn add_key(&self, root: &dyn Signer, wanted: KeyFile) -> Result<KeyFile> {
        if root.public() != self.root() {
            return Err(Error::new(Kind::Denied, format!("the root key at hand is not that of the repository in {}", self.location())));
        }
        let mut number = self.key_book().await?.into_keys().next_back().unwrap_or(0) + 1;
        for _ in 0..numbered::MOST_ODD {
            let at = self.inner.env.clock.now();
            let file = KeyFile { format: FORMAT, repository: self.id().to_owned(), number, at, ..wanted.clone() };
            let bytes = file.seal(root)?;
            if bytes.len() as u64 > numbered::LONGEST_KEY {
                return Err(Error::failed(format!("write key file {number}: with the heads of all logs it is too long to be read again")));
            }
            match create(&self.inner.store, &KeyFile::key(number), bytes).await {
                Ok(()) => return Ok(file),
                // Someone was faster, the listing lacked it, or something that nobody signed took the number.
                Err(e) if e.kind() == Kind::Exists => number += 1,
                Err(e) => return Err(e.context(format!("write key file {number}"))),
            }
        }
        Err(too_much("keys"))
    }

    /// Names of the jobs that have a log here, in order: names under which a key of the repository signed something. A listing: proves
    /// presence, never absence.
    pub async fn jobs(&self) -> Result<Vec<JobName>> {
        Ok(self.look_at_jobs().await?.0)
    }

    /// [`Repository::jobs`], and names of jobs below which lies nothing that counts: nobody signed it, or a revoked key did (rule 18).
    pub async fn look_at_jobs(&self) -> Result<(Vec<JobName>, Vec<Odd>)> {
        const PAGE: usize = 200;
        let store = &*self.inner.store;
        let what = "list the jobs of the repository";
        // What the listing shows of each log; nothing where it may show a part only.
        let mut names: BTreeMap<String, Option<Vec<Entry>>> = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = store.list("jobs/", after.as_deref(), PAGE).await.map_err(|e| e.context(what))?;
            let last = page.last().filter(|_| page.len() == PAGE).map(|entry| name_in(&entry.key).to_owned());
            for entry in page {
                let name = name_in(&entry.key).to_owned();
                let is_log = entry.key.get(5 + name.len()..).is_some_and(|rest| rest.starts_with("/log/"));
                let log = names.entry(name).or_insert_with(|| Some(Vec::new()));
                log.iter_mut().filter(|_| is_log).for_each(|log| log.push(entry.clone()));
            }
            let Some(last) = last else { break };
            names.insert(last.clone(), None);
            // One page of a job is enough: jump behind everything of the last one.
            after = Some(format!("jobs/{last}/~"));
        }
        let (mut jobs, mut odd) = (Vec::new(), Vec::new());
        if names.is_empty() {
            return Ok((jobs, odd));
        }
        let book = self.key_book().await?;
        for (name, log) in names {
            match name.parse::<JobName>() {
                Ok(job) if self.has_log(&job, &book, log).await.map_err(|e| e.context(what))? => jobs.push(job),
                Ok(job) => odd.push(Odd::new(format!("jobs/{job}/"), "foreign: no key that counts there signed anything")),
                Err(_) => odd.push(Odd::new(format!("jobs/{name}"), "no name of a job")),
            }
        }
        jobs.sort();
        Ok((jobs, odd))
    }

    /// Whether an object was found before to be signed by nobody whom these keys know.
    pub(crate) fn is_junk(&self, entry: &Entry, book: &KeyBook) -> bool {
        let mut junk = self.inner.junk.lock().unwrap_or_else(|p| p.into_inner());
        let kept = || self.env().cache.as_ref().map(|cache| cache.junk(self.id())).unwrap_or_default();
        junk.get_or_insert_with(kept).contains(&junk_hash(entry, book))
    }

    /// Remembers that it is.
    pub(crate) fn note_junk(&self, entry: &Entry, book: &KeyBook) {
        let hash = junk_hash(entry, book);
        let mut junk = self.inner.junk.lock().unwrap_or_else(|p| p.into_inner());
        if junk.get_or_insert_default().insert(hash)
            && let Some(cache) = &self.env().cache
        {
            cache.keep_junk(self.id(), &hash);
        }
    }

    async fn has_log(&self, job: &JobName, book: &KeyBook, listed: Option<Vec<Entry>>) -> Result<bool> {
        let known = |inner: &Inner| inner.jobs.lock().unwrap_or_else(|p| p.into_inner()).contains(job);
        let has = known(&self.inner) || super::log::is_log(self, job, book, listed).await?;
        if has {
            self.inner.jobs.lock().unwrap_or_else(|p| p.into_inner()).insert(job.clone());
        }
        Ok(has)
    }

    /// Whether a key of the repository signed something in this job's log.
    pub async fn has_job(&self, job: &JobName) -> Result<bool> {
        let book = self.key_book().await?;
        self.has_log(job, &book, None).await
    }
}

fn junk_hash(entry: &Entry, book: &KeyBook) -> Sha256 {
    let Entry { key, bytes, modified } = entry;
    let newest = book.keys().next_back().copied().unwrap_or(0);
    Sha256::of(format!("{key}\n{bytes}\n{modified}\n{newest}\n{}", book.len()).as_bytes())
}

/// The job's name in a key below `jobs/`.
fn name_in(key: &str) -> &str {
    key.split('/').nth(1).unwrap_or_default()
}

/// Where the file with this number lies.
fn terms_key(number: u64) -> String {
    format!("repository/{number:04}.json")
}

fn too_much(folder: &str) -> Error {
    Error::failed(format!("too much lies below {folder}/ that nobody signed"))
        .hint(format!("have the store's owner take it away; drctl doctor names it ({folder}/)"))
}

/// Creates a small object; a retry after a lost answer finds its own bytes (rule 1).
async fn create(store: &DynStore, key: &str, bytes: Bytes) -> Result<()> {
    match whole::create(&**store, key, bytes.clone()).await {
        Err(e) if e.kind() == Kind::Unreachable => match whole::create(&**store, key, bytes.clone()).await {
            Err(again) if again.kind() == Kind::Exists && whole::read(&**store, key).await? == bytes => Ok(()),
            other => other,
        },
        other => other,
    }
}

fn read_repository_file(bytes: &[u8], scheme: &dyn Scheme, trust: &Trust) -> Result<RepositoryFile> {
    let parts = encoding::split(bytes)?;
    refuse_newer(parts.json()?)?;
    let file: RepositoryFile =
        serde_json::from_str(parts.json()?).map_err(|e| Error::corrupt(format!("{REPOSITORY_KEY} is not as it should be")).because(e))?;
    if let Trust::Known { id, root } = trust
        && (*id != file.repository || *root != file.root)
    {
        return Err(Error::corrupt(format!(
            "another repository stands there: id {} with root key {}, expected id {id} with root key {root}",
            file.repository, file.root
        ))
        .hint("is this the right place? if the repository was exchanged on purpose, take id and root key from its recovery file"));
    }
    if file.repository.len() != 32 || !file.repository.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Error::corrupt(format!("{REPOSITORY_KEY} has no proper repository id")));
    }
    scheme.verify(&file.root, parts.line, REPOSITORY_SUBJECT, parts.signature).map_err(|e| e.context(REPOSITORY_KEY))?;
    Ok(file)
}

/// Refuses what a newer program wrote (FAULTS 88). Every format keeps the field `format` at the top.
pub(crate) fn refuse_newer(json: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Peek {
        format: u32,
    }
    let peek: Peek = serde_json::from_str(json).map_err(|e| Error::corrupt("its JSON names no format").because(e))?;
    if peek.format > FORMAT {
        return Err(Error::new(Kind::Unsupported, format!("it has format {}, this drctl knows formats up to {FORMAT}", peek.format))
            .hint("install a newer drctl; this one will neither read nor prune here"));
    }
    Ok(())
}
