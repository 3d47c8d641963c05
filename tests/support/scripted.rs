//! A source that does what a test says, over a repository in memory whose store can be spoilt.

#![allow(dead_code, reason = "every test file uses its own part of it")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use drctl::catalog::env::Env;
use drctl::catalog::{Repository, RoleKey};
use drctl::error::{Error, Kind, Result};
use drctl::model::artifact::Consistency;
use drctl::model::{ArtifactFormat, Sha256, Timestamp};
use drctl::observe::{Event, Observer};
use drctl::ops::{JobSpec, Setup, SourceSpec};
use drctl::pipeline::plain::PlainSender;
use drctl::pipeline::seal::{Identities, Sealing};
use drctl::pipeline::split::Sink;
use drctl::source::{ArtifactPlan, DumpEnd, Preflight, RunContext, Session, Source};
use drctl::store::faulty::FaultyStore;
use drctl::store::memory::MemoryStore;
use drctl::store::whole;

/// What a scripted dump does.
#[derive(Clone)]
pub enum Act {
    /// Sends so many bytes and ends well.
    Good(usize),
    /// Sends so many bytes, then fails with this kind.
    DieAfter(usize, Kind),
    /// Sends so many bytes and never ends.
    HangAfter(usize),
    /// Sends so many bytes, ends well, with this exit status.
    Exit(usize, i32),
    /// Ends well and says that there should have been so many of a total.
    Promise(usize, &'static str, u64),
    /// Panics in mid-stream.
    Panic,
}

/// Acts in the order of its list, artifact after artifact; the last act is repeated.
pub struct Scripted {
    pub name: String,
    pub artifacts: Vec<&'static str>,
    pub acts: Mutex<Vec<Act>>,
    /// Preflights that fail before one works, and how.
    pub unreachable: AtomicU32,
    pub secret: bool,
    pub opened: AtomicU32,
    pub problems: Vec<String>,
    /// Who answers, opening after opening; the last stays. Empty: always the source's own name.
    pub answers: Mutex<Vec<&'static str>>,
    /// Who answers is lasting: sets are bound to it (FAULTS I11).
    pub bound: bool,
}

impl Scripted {
    pub fn new(name: &str, acts: impl Into<Vec<Act>>) -> Self {
        Scripted {
            name: name.into(),
            artifacts: vec!["a"],
            acts: Mutex::new(acts.into()),
            unreachable: AtomicU32::new(0),
            secret: false,
            opened: AtomicU32::new(0),
            problems: Vec::new(),
            answers: Mutex::default(),
            bound: false,
        }
    }
}

/// The source and who answered when it was opened.
struct ScriptedSession(Arc<Scripted>, String);

/// So that a session can share what its source says.
pub struct Shared(pub Arc<Scripted>);

#[async_trait]
impl Source for Shared {
    fn name(&self) -> &str {
        &self.0.name
    }
    fn kind(&self) -> &'static str {
        "command"
    }
    async fn preflight(&self, _: &RunContext) -> Result<Preflight> {
        let left = self.0.unreachable.load(Ordering::SeqCst);
        if left > 0 {
            self.0.unreachable.store(left - 1, Ordering::SeqCst);
            return Err(Error::new(Kind::Unreachable, "nobody answers").hint("start it"));
        }
        Ok(Preflight { summary: "scripted".into(), ..Preflight::default() })
    }
    async fn open(&self, _: &RunContext) -> Result<Box<dyn Session>> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.0.answers.lock().unwrap();
        let who = if answers.len() > 1 { answers.remove(0) } else { answers.first().copied().unwrap_or(&self.0.name) };
        Ok(Box::new(ScriptedSession(self.0.clone(), who.to_owned())))
    }
}

pub fn noise(len: usize) -> Bytes {
    let mut state = 9u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        })
        .collect::<Vec<u8>>()
        .into()
}

async fn send(out: &PlainSender, len: usize) -> Result<()> {
    let mut rest = noise(len);
    while !rest.is_empty() {
        out.data(rest.split_to(rest.len().min(100_000))).await?;
    }
    Ok(())
}

#[async_trait]
impl Session for ScriptedSession {
    fn identity(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("who".into(), self.1.clone())])
    }
    fn bound_by(&self) -> Option<&'static str> {
        self.0.bound.then_some("who")
    }
    fn artifacts(&self) -> Vec<ArtifactPlan> {
        let plan = |name: &&str| ArtifactPlan {
            name: (*name).into(),
            format: ArtifactFormat::Raw,
            extension: None,
            expected_bytes: None,
            secret: self.0.secret,
        };
        self.0.artifacts.iter().map(plan).collect()
    }
    async fn dump(&mut self, _: &ArtifactPlan, out: PlainSender, _: &RunContext) -> Result<DumpEnd> {
        let act = {
            let mut acts = self.0.acts.lock().unwrap();
            if acts.len() > 1 { acts.remove(0) } else { acts[0].clone() }
        };
        let end =
            |exit_status, expected_totals| Ok(DumpEnd { exit_status, tool: None, consistency: Consistency::Snapshot, expected_totals });
        match act {
            Act::Good(len) => send(&out, len).await.and_then(|()| end(Some(0), BTreeMap::new())),
            Act::Exit(len, status) => send(&out, len).await.and_then(|()| end(Some(status), BTreeMap::new())),
            Act::Promise(len, name, least) => send(&out, len).await.and_then(|()| end(Some(0), BTreeMap::from([(name.to_owned(), least)]))),
            Act::DieAfter(len, kind) => {
                send(&out, len).await?;
                Err(Error::new(kind, "the dump tool exited 1: out of cheese"))
            }
            Act::HangAfter(len) => {
                send(&out, len).await?;
                std::future::pending().await
            }
            Act::Panic => panic!("scripted panic"),
        }
    }
    fn problems(&self) -> Vec<String> {
        self.0.problems.clone()
    }
    fn as_of(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Keeps every event.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<Event>>);

impl Observer for Heard {
    fn observe(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// A repository in memory behind a store that can be spoilt, and a job.
pub struct World {
    pub memory: Arc<MemoryStore>,
    pub store: Arc<FaultyStore>,
    pub setup: Setup,
    pub heard: Arc<Heard>,
}

impl World {
    pub async fn new() -> World {
        let memory = Arc::new(MemoryStore::default());
        let store = Arc::new(FaultyStore::new(memory.clone()));
        let new = Repository::init(store.clone(), Env::default(), "test").await.unwrap();
        let (secret, recipient) = Identities::generate();
        let sinks = vec![Sink::new("first", store.clone())];
        let mut setup = Setup::new(new.repository.clone(), sinks, Sealing::Age(vec![recipient]));
        setup.keys = vec![RoleKey { number: 1, signer: Arc::new(new.key) }];
        setup.identities = Identities::parse(&secret, "test").unwrap();
        let heard = Arc::new(Heard::default());
        setup.bus.subscribe(heard.clone());
        World { memory, store, setup, heard }
    }

    pub fn job(&self, sources: impl IntoIterator<Item = Arc<Scripted>>) -> JobSpec {
        let spec = |s| SourceSpec { source: Arc::new(Shared(s)) as Arc<dyn Source>, allowed: Default::default(), allow_plaintext: false };
        JobSpec {
            name: "shop".parse().unwrap(),
            group: "main".into(),
            sources: sources.into_iter().map(spec).collect(),
            warnings: Vec::new(),
            config_text: "jobs: []\n".into(),
            config_sha256: Sha256::of(b"jobs: []\n"),
        }
    }

    /// Keys below `sets/` and `log/` of the job.
    pub async fn keys(&self, below: &str) -> Vec<String> {
        let entries = whole::list_all(self.memory.as_ref(), &format!("jobs/shop/{below}")).await.unwrap();
        entries.into_iter().map(|e| e.key).collect()
    }
}
