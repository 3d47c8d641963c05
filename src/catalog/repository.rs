//! One repository: its identity, its root key, and the files that say what may change.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::catalog::encoding::{self, Minisign, REPOSITORY_SUBJECT, Scheme};
use crate::catalog::env::Env;
use crate::catalog::keys::{KeyFile, MinisignKey, PublicKey, RoleKey, Roles, Signer, all_in_one};
use crate::error::{Error, Kind, Result};
use crate::model::{FORMAT, Sha256};
use crate::store::{DynStore, whole};

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
        };
        create(&store, REPOSITORY_KEY, bytes.clone()).await.map_err(|e| match e.kind() {
            Kind::Exists => taken(),
            _ => e.context(format!("make a repository in {}", store.location())),
        })?;
        create(&store, &KeyFile::key(1), key_file.seal(root)?).await.map_err(|e| e.context("write the first key file"))?;
        let file_sha256 = Sha256::of(&bytes);
        Ok(Repository { inner: Arc::new(Inner { store, env, scheme, file, file_sha256, terms: None }) })
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
        let terms = newest_terms(&store, &*scheme, &file).await.map_err(|e| e.context(what()))?;
        Ok(Repository { inner: Arc::new(Inner { store, env, scheme, file_sha256: Sha256::of(&bytes), file, terms }) })
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

    /// Writes the next file under `repository/`; needs the root secret. It holds for whoever opens the repository afterwards.
    pub async fn write_terms(&self, root: &dyn Signer, terms: &Terms) -> Result<()> {
        let json = serde_json::to_string(terms).map_err(|e| Error::failed("write the repository's terms").because(e))?;
        let bytes = encoding::seal(root, &json, &encoding::terms_subject(terms.number))?;
        let key = format!("repository/{:04}.json", terms.number);
        create(&self.inner.store, &key, bytes).await.map_err(|e| e.context(format!("write {key}")))
    }

    /// One key file. [`Kind::Corrupt`]: the root key did not sign it.
    pub async fn key_file(&self, number: u64) -> Result<KeyFile> {
        super::log::read_key_file(self, number).await.map(|(file, _)| file)
    }

    /// Every key file that the root key signed, by number; what does not verify is left out. A listing: it may lack the newest.
    pub async fn key_files(&self) -> Result<Vec<KeyFile>> {
        let mut files = Vec::new();
        for entry in whole::list_all(&*self.inner.store, "keys/").await.map_err(|e| e.context("list the key files"))? {
            let number = entry.key.strip_prefix("keys/").and_then(|k| k.strip_suffix(".json")).and_then(|k| k.parse::<u64>().ok());
            let Some(number) = number.filter(|n| KeyFile::key(*n) == entry.key) else { continue };
            match self.key_file(number).await {
                Ok(file) => files.push(file),
                Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
        files.sort_by_key(|file| file.number);
        Ok(files)
    }

    /// Writes a key file under the next free number, signed by the root key.
    pub async fn add_key(&self, root: &dyn Signer, public: PublicKey, roles: Roles, holder: &str, revokes: Vec<u64>) -> Result<KeyFile> {
        if root.public() != self.root() {
            return Err(Error::new(Kind::Denied, format!("the root key at hand is not that of the repository in {}", self.location())));
        }
        let mut number = self.key_files().await?.last().map_or(1, |file| file.number) + 1;
        loop {
            let file = KeyFile {
                format: FORMAT,
                repository: self.id().to_owned(),
                number,
                roles: roles.clone(),
                public: public.clone(),
                holder: holder.to_owned(),
                at: self.inner.env.clock.now(),
                revokes: revokes.clone(),
            };
            match create(&self.inner.store, &KeyFile::key(number), file.seal(root)?).await {
                Ok(()) => return Ok(file),
                // Someone was faster, or the listing lacked it.
                Err(e) if e.kind() == Kind::Exists => number += 1,
                Err(e) => return Err(e.context(format!("write key file {number}"))),
            }
        }
    }

    /// Names of the jobs that have a log here, in order. A listing: proves presence, never absence.
    pub async fn jobs(&self) -> Result<Vec<crate::model::JobName>> {
        let mut jobs = Vec::new();
        let mut after: Option<String> = None;
        loop {
            // One key per job is enough: jump behind everything of the job just seen.
            let page =
                self.inner.store.list("jobs/", after.as_deref(), 1).await.map_err(|e| e.context("list the jobs of the repository"))?;
            let Some(entry) = page.first() else { return Ok(jobs) };
            let part = entry.key.split('/').nth(1).unwrap_or_default();
            if let Ok(job) = part.parse::<crate::model::JobName>()
                && !self.inner.store.list(&format!("jobs/{job}/log/"), None, 1).await?.is_empty()
            {
                jobs.push(job);
            }
            after = Some(format!("jobs/{part}/~"));
        }
    }
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

async fn newest_terms(store: &DynStore, scheme: &dyn Scheme, file: &RepositoryFile) -> Result<Option<Terms>> {
    let mut newest = None;
    for entry in whole::list_all(&**store, "repository/").await? {
        let Some(number) = entry.key.strip_prefix("repository/").and_then(|k| k.strip_suffix(".json")).and_then(|k| k.parse::<u64>().ok())
        else {
            continue;
        };
        let bytes = whole::read(&**store, &entry.key).await?;
        let Ok(parts) = encoding::split(&bytes) else { continue };
        if scheme.verify(&file.root, parts.line, &encoding::terms_subject(number), parts.signature).is_err() {
            continue;
        }
        refuse_newer(parts.json()?).map_err(|e| e.context(entry.key.clone()))?;
        let terms: Terms = serde_json::from_str(parts.json()?).map_err(|e| Error::corrupt(entry.key.clone()).because(e))?;
        if terms.repository == file.repository && terms.number == number {
            newest = Some(terms);
        }
    }
    Ok(newest)
}
