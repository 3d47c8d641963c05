//! A repository in memory for the tests of this folder.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use crate::catalog::commit::{Outcome, Run};
use crate::catalog::env::{Env, HighWater, Pause};
use crate::catalog::keys::RoleKey;
use crate::catalog::log::JobLog;
use crate::catalog::repository::{NewRepository, Repository, Trust};
use crate::error::{Error, Kind, Result};
use crate::model::artifact::{Chunker, Consistency};
use crate::model::manifest::SourceEntry;
use crate::model::{
    Artifact, ArtifactFormat, Codec, Encryption, IndexPlace, JobName, Manifest, Object, SetId, SetKind, SetState, Sha256, TestClock,
    Timestamp,
};
use crate::store::memory::MemoryStore;
use crate::store::{Body, Entry, Head, Store, whole};

/// No waiting: three more tries.
pub struct Quick;

#[async_trait]
impl Pause for Quick {
    async fn before_retry(&self, attempt: u32) -> bool {
        attempt <= 3
    }
}

/// A mark in memory.
#[derive(Default)]
pub struct Mark(pub Mutex<Option<(u64, Sha256)>>);

impl HighWater for Mark {
    fn get(&self, _: &str, _: &JobName) -> Result<Option<(u64, Sha256)>> {
        Ok(*self.0.lock().unwrap())
    }
    fn set(&self, _: &str, _: &JobName, number: u64, sha256: &Sha256) -> Result<()> {
        *self.0.lock().unwrap() = Some((number, *sha256));
        Ok(())
    }
    fn reset(&self, repository: &str, job: &JobName, number: u64, sha256: &Sha256) -> Result<()> {
        self.set(repository, job, number, sha256)
    }
}

/// What becomes of the next PUT of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It lands and its answer is lost.
    Lost,
    /// It does not land, and neither does its answer.
    Never,
    /// It is refused for want of room.
    Full,
    /// It is there, and the disk failed before that was certain.
    Unsure,
}

/// A memory store whose record PUTs follow a script.
pub struct Scripted {
    pub inner: MemoryStore,
    pub script: Mutex<VecDeque<Fate>>,
    pub puts: Mutex<Vec<(String, Bytes)>>,
}

#[async_trait]
impl Store for Scripted {
    fn location(&self) -> String {
        "memory".into()
    }
    async fn put(&self, key: &str, mut body: Body) -> Result<()> {
        let mut data = Vec::new();
        while let crate::store::Piece::Data(bytes) = body.next().await? {
            data.extend_from_slice(&bytes);
        }
        let data = Bytes::from(data);
        if !key.contains("/log/") {
            return whole::create(&self.inner, key, data).await;
        }
        self.puts.lock().unwrap().push((key.to_owned(), data.clone()));
        let fate = self.script.lock().unwrap().pop_front();
        let lost = Error::new(Kind::Unreachable, "no answer");
        match fate {
            None => whole::create(&self.inner, key, data).await,
            Some(Fate::Lost) => {
                let _ = whole::create(&self.inner, key, data).await;
                Err(lost)
            }
            Some(Fate::Unsure) => {
                let _ = whole::create(&self.inner, key, data).await;
                Err(Error::new(Kind::OutcomeUnknown, "the disk failed"))
            }
            Some(Fate::Never) => Err(lost),
            Some(Fate::Full) => Err(Error::new(Kind::Full, "no room")),
        }
    }
    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        self.inner.get_range(key, offset, length).await
    }
    async fn head(&self, key: &str) -> Result<Head> {
        self.inner.head(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        self.inner.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }
    async fn server_date(&self) -> Result<Timestamp> {
        self.inner.server_date().await
    }
}

/// A repository and everything to get at it.
pub struct Bed {
    pub store: Arc<Scripted>,
    pub clock: Arc<TestClock>,
    pub mark: Arc<Mark>,
    pub repository: Repository,
    pub root: Arc<crate::catalog::MinisignKey>,
    pub key: RoleKey,
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn job() -> JobName {
    "shop".parse().unwrap()
}

impl Bed {
    pub async fn new() -> Bed {
        let clock = Arc::new(TestClock::at(at("2025-01-01T02:00:00Z")));
        let store = Arc::new(Scripted { inner: MemoryStore::new(clock.clone()), script: Mutex::default(), puts: Mutex::default() });
        let mark = Arc::new(Mark::default());
        let env = Env { clock: clock.clone(), pause: Arc::new(Quick), high_water: Some(mark.clone()), ..Env::default() };
        let NewRepository { repository, root, key } = Repository::init(store.clone(), env, "web-1").await.unwrap();
        Bed { store, clock, mark, repository, root: Arc::new(root), key: RoleKey { number: 1, signer: Arc::new(key) } }
    }

    /// Its repository, asked through another store: one over its own that fails or counts.
    pub async fn through(&self, store: Arc<dyn Store>) -> Repository {
        let trust = Trust::Known { id: self.repository.id().into(), root: self.repository.root().clone() };
        Repository::open(store, self.repository.env().clone(), &trust).await.unwrap()
    }

    pub async fn log(&self) -> JobLog {
        JobLog::open(&self.repository, &job(), vec![self.key.clone()]).await.unwrap()
    }

    pub fn hours(&self, hours: i64) {
        self.clock.step_seconds(hours * 3600);
    }

    /// A whole run: objects, then the commit.
    pub async fn backup(&self, log: &mut JobLog, kind: SetKind) -> SetId {
        let run = log.begin_run(kind, "main").await.unwrap();
        let set = run.set().clone();
        let manifest = self.upload(&run).await;
        match run.commit(log, manifest, |_| Ok(())).await.unwrap() {
            Outcome::Committed { .. } => set,
            void => panic!("{void:?}"),
        }
    }

    /// Stores the objects of a run and gives its manifest.
    pub async fn upload(&self, run: &Run) -> Manifest {
        let manifest = manifest(run);
        for object in manifest.every_object() {
            let key = format!("{}{}", run.set().prefix(), object.file);
            whole::create(&*self.store, &key, content(run.set(), &object.file)).await.unwrap();
        }
        manifest
    }

    pub async fn raw(&self, key: &str) -> Bytes {
        whole::read(&*self.store, key).await.unwrap()
    }

    /// How many objects lie below the set's folder.
    pub async fn count(&self, set: &SetId) -> usize {
        whole::list_all(&*self.store, &set.prefix()).await.unwrap().len()
    }
}

pub fn content(set: &SetId, file: &str) -> Bytes {
    // Of equal length for every set, so that a swap shows in the hash only.
    Bytes::from(format!("{} of {file}", set.short().split('-').next_back().unwrap()))
}

fn object(set: &SetId, file: &str) -> Object {
    let bytes = content(set, file);
    Object { file: file.into(), stored_bytes: bytes.len() as u64, stored_sha256: Sha256::of(&bytes) }
}

fn artifact(set: &SetId, file: &str) -> Artifact {
    Artifact {
        source: "files".into(),
        file: file.into(),
        format: ArtifactFormat::Tar,
        objects: vec![object(set, file)],
        plain_bytes: 1,
        plain_digest: Sha256([0; 32]),
        frames: 1,
        compressed_bytes: 1,
        index: IndexPlace::Inside { offset: 0, length: 0, sha256: Sha256([0; 32]) },
        chunker: Chunker { name: "fastcdc-v2020".into(), min_bytes: 16384, avg_bytes: 65536, max_bytes: 262_144 },
        codec: Codec::Zstd { level: 1 },
        encryption: Encryption::None,
        consistency: Consistency::Snapshot,
        tool: None,
        exit_status: None,
        started_at: set.at(),
        finished_at: set.at(),
        totals: BTreeMap::new(),
    }
}

/// What a run of this set would commit, its objects as [`Bench::upload`] stores them.
pub fn manifest(run: &Run) -> Manifest {
    Manifest { group: run.group().to_owned(), chain: run.chain().clone(), base: run.base(), ..manifest_of(run.set()) }
}

/// A manifest for those who have no log.
pub fn plain_manifest() -> Manifest {
    manifest_of(&SetId::new("shop".parse().unwrap(), "2025-01-01T02:00:00Z".parse().unwrap(), SetKind::Full, 1))
}

/// A source of a set, without an identity and without problems.
pub fn source_entry(name: &str, kind: &str) -> SourceEntry {
    SourceEntry {
        name: name.into(),
        kind: kind.into(),
        identity: Arc::default(),
        as_of: at("2025-01-01T02:00:00Z"),
        problems: Vec::new(),
        warnings: Vec::new(),
    }
}

fn manifest_of(set: &SetId) -> Manifest {
    Manifest {
        set: set.clone(),
        group: "main".into(),
        chain: set.clone(),
        class: Default::default(),
        base: 0,
        state: SetState::Complete,
        started_at: set.at(),
        finished_at: set.at(),
        drctl_version: "0.1.0".into(),
        host: "web-1".into(),
        config_sha256: Sha256([0; 32]),
        lease_epoch: None,
        sources: Vec::new(),
        artifacts: vec![artifact(set, "files.a.tar.zst")],
        details: artifact(set, "details.json.zst"),
        guide: object(set, "RESTORE.md"),
        stores: vec!["main".into()],
    }
}
