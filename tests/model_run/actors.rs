//! What the hosts do: each deed is one future over the catalog, and may be dropped between any two requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use drctl::catalog::commit::{Outcome, Pending, Settled};
use drctl::catalog::encoding::Scheme;
use drctl::catalog::retire::{self, Retirement};
use drctl::catalog::{Env, Finding, Hold, JobLog, Repository, RoleKey, Rules, Signer, Trust, checkpoint, hold, keys};
use drctl::error::{Error, Kind, Result};
use drctl::model::record::{Body, Grade, Proof};
use drctl::model::{Clock, JobName, SetKind, Sha256, TestClock, Timestamp};
use drctl::pipeline::split::Sink;
use drctl::store::{DynStore, whole};

use crate::tiny;
use crate::world::{Dice, Op, Server, Shared, step};

/// Keys that hosts may come to hold, and the root that signs them.
pub struct Vault {
    pub root: Arc<dyn Signer>,
    pub make: fn(u64) -> Arc<dyn Signer>,
    pub keys: Mutex<Vec<RoleKey>>,
    pub scheme: Arc<dyn Scheme>,
}

/// One host: what survives a crash of its process.
pub struct Host {
    pub name: String,
    pub repository: Repository,
    pub clock: Arc<TestClock>,
    pub journal: Mutex<Option<Pending>>,
    /// The log of a process that lives on between deeds; a crash loses it.
    pub log: Mutex<Option<JobLog>>,
    pub server: Arc<Server>,
    /// The second store, in histories that have one.
    pub copy: Option<Sink>,
    pub world: Shared,
    pub vault: Arc<Vault>,
    pub rules: Rules,
}

#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Backup,
    Prove,
    Prune,
    Sweep,
    Checkpoint,
    Read,
    Pin,
    ChangeKey,
    CloseChain,
    Garbage,
    Acknowledge,
    Copy,
    ReadCopy,
}

impl Host {
    fn dice<T>(&self, f: impl FnOnce(&mut Dice) -> T) -> T {
        f(&mut self.world.lock().unwrap().dice)
    }

    fn job(&self) -> JobName {
        "shop".parse().unwrap()
    }

    async fn open(&self) -> Result<JobLog> {
        if let Some(log) = self.log.lock().unwrap().take() {
            return Ok(log);
        }
        let keys = self.vault.keys.lock().unwrap().clone();
        let log = if self.rules.keep_records && self.dice(|d| d.percent(70)) {
            JobLog::open_with(&self.repository, &self.job(), keys, self.rules).await
        } else {
            JobLog::open_at_checkpoint_with(&self.repository, &self.job(), keys, self.rules).await
        };
        log.map(|log| log.with_copies(self.copy.iter().cloned().collect()))
    }

    /// Does one deed from beginning to end.
    pub async fn act(self: Arc<Self>, deed: Deed) {
        self.world.lock().unwrap().say(|| format!("{} begins {deed:?}", self.name));
        let result = async {
            let mut log = self.open().await?;
            if self.dice(|d| d.percent(60)) {
                log.refresh().await?;
            }
            let done = self.perform(deed, &mut log).await;
            self.compare(&log);
            match &done {
                // Keys may have changed: the next deed opens with those at hand then.
                Err(e) if e.kind() == Kind::Denied => {}
                _ => *self.log.lock().unwrap() = Some(log),
            }
            done
        }
        .await;
        self.world.lock().unwrap().say(|| format!("{} ends {deed:?}: {result:?}", self.name));
    }

    fn compare(&self, log: &JobLog) {
        let live = log.state().live().map(|entry| entry.id().to_string()).collect();
        let mut world = self.world.lock().unwrap();
        world.model.listed(&self.name, log.head(), &live);
        if log.state().findings().iter().any(|finding| finding.stops_appends()) && self.rules.keep_records {
            world.model.wrong(format!("{}: false alarm: {:?}", self.name, log.state().findings()));
        }
        // However a reader came to its state, it must be the same.
        let differs = |finding: &Finding| matches!(finding, Finding::Void { reason, .. } if reason.contains("checkpoint"));
        if log.state().findings().iter().any(differs) && self.rules.keep_records {
            world.model.wrong(format!("{}: a checkpoint differs: {:?}", self.name, log.state().findings()));
        }
    }

    async fn perform(&self, deed: Deed, log: &mut JobLog) -> Result<String> {
        match deed {
            Deed::Backup => self.backup(log).await,
            Deed::Prove => self.prove(log).await,
            Deed::Prune => self.prune(log).await,
            Deed::Sweep => retire::sweep(log, Duration::from_secs(3 * 3600)).await.map(|swept| format!("{swept:?}")),
            Deed::Checkpoint => self.checkpoint(log).await,
            Deed::Read => self.read(log).await,
            Deed::Pin => self.pin(log).await,
            Deed::ChangeKey => self.change_key(log).await,
            Deed::CloseChain => self.close_chain(log).await,
            Deed::Garbage => self.garbage(log).await,
            Deed::Acknowledge => checkpoint::acknowledge(log).await.map(|a| format!("{a:?}")),
            Deed::Copy => self.copy(log).await,
            Deed::ReadCopy => self.read_copy().await,
        }
    }

    async fn backup(&self, log: &mut JobLog) -> Result<String> {
        let pending = self.journal.lock().unwrap().clone();
        if let Some(pending) = pending {
            match log.settle(&pending).await? {
                Settled::Committed { number } => self.world.lock().unwrap().model.told_committed(&pending.set.to_string(), number),
                Settled::Void => {
                    self.world.lock().unwrap().model.told_void(&pending.set.to_string());
                    retire::discard(log, &pending.set).await?;
                }
                Settled::Open => {}
            }
            *self.journal.lock().unwrap() = None;
        }
        let kind = if self.dice(|d| d.percent(55)) { SetKind::Incremental } else { SetKind::Full };
        let run = match log.begin_run(kind, "main").await {
            Err(e) if e.kind() == Kind::Preflight => log.begin_run(SetKind::Full, "main").await?,
            other => other?,
        };
        let set = run.set().clone();
        let (mut manifest, objects) = tiny::set(&run, self.dice(Dice::bits));
        manifest.stores.extend(self.copy.iter().map(|copy| copy.name.clone()));
        for (key, bytes) in objects {
            self.upload(self.repository.store(), &key, bytes.clone()).await?;
            if let Some(copy) = &self.copy {
                self.upload(&copy.store, &key, bytes).await?;
            }
        }
        self.dawdle().await;
        if self.dice(|d| d.percent(30)) {
            // A process that looks at the log while its run goes on (to show progress, say).
            log.refresh().await?;
        }
        let journal = |pending: &Pending| {
            *self.journal.lock().unwrap() = Some(pending.clone());
            Ok(())
        };
        match run.commit(log, manifest, journal).await {
            Ok(Outcome::Committed { number }) => {
                self.world.lock().unwrap().model.told_committed(&set.to_string(), number);
                *self.journal.lock().unwrap() = None;
                // What fails here is made good later.
                let copied = self.copy(log).await;
                Ok(format!("{set} at {number}, {copied:?}"))
            }
            Ok(Outcome::Void { reason }) => {
                self.world.lock().unwrap().model.told_void(&set.to_string());
                *self.journal.lock().unwrap() = None;
                retire::discard(log, &set).await?;
                Ok(format!("{set} void: {reason}"))
            }
            Err(e) if e.kind() == Kind::OutcomeUnknown => Err(e),
            Err(e) => {
                self.world.lock().unwrap().model.told_void(&set.to_string());
                *self.journal.lock().unwrap() = None;
                Err(e)
            }
        }
    }

    async fn copy(&self, log: &mut JobLog) -> Result<String> {
        let Some(copy) = &self.copy else { return Ok("no copy".into()) };
        log.refresh().await?;
        if let Some(number) = log.led_by(&copy.store).await.ok().flatten() {
            self.world.lock().unwrap().model.wrong(format!("{}: record {number} is said to lead the log", self.name));
        }
        log.copy_to(&copy.store).await.map(|copied| format!("{copied} copied"))
    }

    /// Someone who has nothing but the copy sees what was true at the newest record there.
    async fn read_copy(&self) -> Result<String> {
        let Some(copy) = &self.copy else { return Ok("no copy".into()) };
        let env = Env { high_water: None, ..self.repository.env().clone() };
        let there = Repository::open_with(copy.store.clone(), env, &Trust::OnFirstUse, self.vault.scheme.clone()).await?;
        let log = JobLog::open_with(&there, &self.job(), Vec::new(), self.rules).await?;
        self.compare(&log);
        Ok(format!("the copy is at {}", log.head()))
    }

    async fn upload(&self, store: &DynStore, key: &str, bytes: Bytes) -> Result<()> {
        for _ in 0..4 {
            match whole::create(&**store, key, bytes.clone()).await {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == Kind::Exists && whole::read(&**store, key).await? == bytes => return Ok(()),
                Err(e) if e.kind() == Kind::Unreachable => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::failed("the upload was given up"))
    }

    async fn dawdle(&self) {
        for _ in 0..self.dice(|d| if d.percent(40) { d.roll(60) } else { 0 }) {
            step().await;
        }
    }

    fn any_set(&self, log: &JobLog) -> Option<drctl::model::SetId> {
        let live: Vec<_> = log.state().all().map(|entry| entry.id().clone()).collect();
        // The newest and the oldest are the interesting ones.
        let index = match self.dice(|d| d.roll(3)) {
            0 => 0,
            1 => live.len().checked_sub(1)?,
            _ => self.dice(Dice::bits) as usize % live.len().max(1),
        };
        live.get(index).cloned()
    }

    async fn prove(&self, log: &mut JobLog) -> Result<String> {
        let Some(set) = self.any_set(log) else { return Ok("no set".into()) };
        let now = self.clock.now();
        let proof = Proof {
            set,
            grade: Grade::ReadBack,
            passed: true,
            findings: Vec::new(),
            started_at: now,
            finished_at: now,
            store: "main".into(),
        };
        hold::prove(log, proof).await.map(|a| format!("{a:?}"))
    }

    async fn prune(&self, log: &mut JobLog) -> Result<String> {
        let plan = |state: &drctl::catalog::State, date: Timestamp| {
            let mut chains = BTreeMap::new();
            for entry in state.live() {
                chains.entry(entry.manifest.chain.clone()).or_insert_with(Vec::new).push(entry);
            }
            let newest = state.live().filter(|e| e.id().kind() == SetKind::Full).map(|e| e.number).max();
            let spare =
                chains.iter().find(|(_, sets)| sets.iter().all(|e| !e.is_pinned(date) && !e.is_held(date) && Some(e.number) != newest));
            Ok(spare.map(|(chain, _)| Retirement { chain: chain.clone(), reason: "spare".into(), abandoned: false }))
        };
        let planned = retire::retire(log, plan).await?;
        let open: Vec<u64> = log.state().intents().filter(|intent| intent.deleted.is_none()).map(|intent| intent.number).collect();
        for intent in open {
            retire::finish_delete(log, intent).await?;
        }
        Ok(format!("{planned:?}"))
    }

    async fn checkpoint(&self, log: &mut JobLog) -> Result<String> {
        let appended = checkpoint::checkpoint(log).await?;
        if !self.rules.keep_records {
            let needed: Vec<u64> = log.state().live().map(|entry| entry.number).collect();
            for number in (1..appended.number).filter(|number| !needed.contains(number)) {
                self.repository.store().delete(&drctl::catalog::log::record_key(log.job(), number)).await?;
            }
        }
        Ok(format!("{appended:?}"))
    }

    async fn read(&self, log: &mut JobLog) -> Result<String> {
        let Some(set) = self.any_set(log) else { return Ok("no set".into()) };
        let Some(entry) = log.state().get(&set).cloned() else { return Ok("gone".into()) };
        let held = Hold::acquire(log, &set, Duration::from_secs(2 * 3600)).await?;
        for object in entry.manifest.every_object() {
            self.dawdle().await;
            let read = whole::read(&**self.repository.store(), &format!("{}{}", set.prefix(), object.file)).await;
            match read {
                Ok(bytes) if Sha256::of(&bytes) == object.stored_sha256 => {}
                Err(e) if e.kind() == Kind::Unreachable => {}
                _ if log.server_date().await? < held.until => {
                    self.world.lock().unwrap().model.lost_under_hold(&set.to_string());
                }
                _ => return Ok("the hold ran out".into()),
            }
        }
        held.release(log).await?;
        Ok(format!("read {set}"))
    }

    async fn pin(&self, log: &mut JobLog) -> Result<String> {
        let Some(set) = self.any_set(log) else { return Ok("no set".into()) };
        if self.dice(|d| d.percent(20)) {
            return hold::unpin(log, &set).await.map(|a| format!("{a:?}"));
        }
        let hours = self.dice(|d| d.roll(20)) as i64;
        let until = log.server_date().await?.checked_add(jiff::SignedDuration::from_hours(hours)).unwrap();
        hold::pin(log, &set, until, "because").await.map(|a| format!("{a:?}"))
    }

    async fn change_key(&self, log: &mut JobLog) -> Result<String> {
        let number = self.vault.keys.lock().unwrap().iter().map(|k| k.number).max().unwrap_or(0) + 1;
        let signer = (self.vault.make)(number);
        let revokes = if self.dice(|d| d.percent(70)) { vec![number - 1] } else { Vec::new() };
        let file = keys::KeyFile {
            format: drctl::model::FORMAT,
            repository: self.repository.id().to_owned(),
            number,
            roles: keys::all_in_one(),
            public: signer.public().clone(),
            holder: self.name.clone(),
            at: self.clock.now(),
            revokes: revokes.clone(),
            heads: None,
        };
        let bytes = file.seal(&*self.vault.root)?;
        self.upload(self.repository.store(), &keys::KeyFile::key(number), bytes.clone()).await?;
        self.vault.keys.lock().unwrap().push(RoleKey { number, signer });
        log.append(Body::KeyChange { number, sha256: Sha256::of(&bytes), revoked: revokes }).await.map(|a| format!("{a:?}"))
    }

    async fn close_chain(&self, log: &mut JobLog) -> Result<String> {
        log.refresh().await?;
        let Some(chain) = log.state().live().next_back().map(|entry| entry.manifest.chain.clone()) else { return Ok("no set".into()) };
        log.append(Body::CloseChain { chain, reason: "because".into() }).await.map(|a| format!("{a:?}"))
    }

    /// Someone with a store user and no key writes what looks like an intent for the newest set.
    async fn garbage(&self, log: &mut JobLog) -> Result<String> {
        log.refresh().await?;
        let number = log.head() + 1;
        let Some(set) = log.state().live().next_back().map(|entry| entry.id().to_string()) else { return Ok("no set".into()) };
        let json = serde_json::json!({
            "format": 0, "repository": self.repository.id(), "job": "shop", "number": number,
            "previous": log.state().head_sha256().to_string(), "key": 1, "at": "2025-01-01T00:00:00Z",
            "body": { "type": "delete-intent", "sets": [set], "reason": "garbage" }
        });
        let bytes = Bytes::from(format!("{json}\na\nb\nc\nd\n"));
        let _ = self.server.land(Op::Put(drctl::catalog::log::record_key(log.job(), number), bytes));
        Ok(format!("garbage at {number}"))
    }
}
