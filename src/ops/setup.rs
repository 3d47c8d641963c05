//! Everything a verb works with, opened once from the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::catalog::{JobLog, Repository, RoleKey, Roles};
use crate::error::Result;
use crate::model::{Clock, Codec, JobName, Sha256};
use crate::observe::Bus;
use crate::ops::conformance::Bucket;
use crate::ops::suspect::Allowed;
use crate::pipeline::seal::{Identities, Sealing};
use crate::pipeline::split::{OBJECT_BYTES, Sink};
use crate::source::{RunContext, Source};
use crate::state::{Act, Audited, StateFile};

/// An open repository and how this host uses it. Cheap to clone.
#[derive(Clone)]
pub struct Setup {
    /// The repository on its first store.
    pub repository: Repository,
    /// Every store that takes part, the repository's first.
    pub sinks: Vec<Sink>,
    /// Which of them sets are read from.
    pub read_from: usize,
    /// Names of the stores that a job writes to, where that is not all of them.
    pub job_stores: BTreeMap<JobName, Vec<String>>,
    /// Those of the stores that are buckets.
    pub buckets: Vec<Bucket>,
    /// The role keys at hand; none where only reading is possible.
    pub keys: Vec<RoleKey>,
    /// What their key files let this host do.
    pub roles: Roles,
    /// The age identities at hand; none on a sealed host.
    pub identities: Identities,
    /// How artifacts are sealed by default.
    pub sealing: Sealing,
    /// How frames are compressed by default.
    pub codec: Codec,
    /// Whether each compressed frame is decompressed again before it goes on.
    pub decode_check: bool,
    /// Size limit of objects.
    pub object_bytes: u64,
    /// Where events go.
    pub bus: Bus,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Set by a signal: stop, clean up, exit.
    pub cancel: CancellationToken,
    /// The machine's name.
    pub host: String,
    /// The state file; `None` when it cannot be opened, which has been said.
    pub state: Option<Arc<StateFile>>,
}

impl Setup {
    /// A setup with the defaults of DESIGN §4 for everything that can have one.
    pub fn new(repository: Repository, sinks: Vec<Sink>, sealing: Sealing) -> Self {
        let clock = repository.env().clock.clone();
        Setup {
            repository,
            sinks,
            read_from: 0,
            job_stores: BTreeMap::new(),
            buckets: Vec::new(),
            keys: Vec::new(),
            roles: Roles::new(),
            identities: Identities::default(),
            sealing,
            codec: Codec::Zstd { level: 1 },
            decode_check: true,
            object_bytes: OBJECT_BYTES,
            bus: Bus::new(),
            clock,
            cancel: CancellationToken::new(),
            host: String::from("localhost"),
            state: None,
        }
    }

    /// Reads a job's log. Deleting by it reaches every further store, also those that the job no longer writes to.
    pub async fn log(&self, job: &JobName) -> Result<JobLog> {
        let log = JobLog::open(&self.repository, job, self.keys.clone()).await?;
        Ok(log.with_copies(self.sinks.iter().skip(1).cloned().collect()))
    }

    /// The store that sets are read from.
    pub fn reading(&self) -> &Sink {
        &self.sinks[self.read_from.min(self.sinks.len() - 1)]
    }

    /// The stores that a job writes to.
    pub fn sinks_of(&self, job: &JobName) -> Vec<Sink> {
        let wanted = self.job_stores.get(job);
        // The first holds the log, and every job writes there.
        let takes_part = |(at, sink): &(usize, &Sink)| *at == 0 || wanted.is_none_or(|names| names.contains(&sink.name));
        self.sinks.iter().enumerate().filter(takes_part).map(|(_, sink)| sink.clone()).collect()
    }

    /// The same for one run of a job: its stores only, none of which has been given up yet.
    pub fn for_run(&self, job: &JobName) -> Setup {
        let sinks = self.sinks_of(job).into_iter().map(|sink| sink.for_run()).collect();
        Setup { sinks, read_from: 0, ..self.clone() }
    }

    /// Writes into the audit log that something begins; say how it [`Audited::ended`].
    pub fn audit(&self, act: Act) -> Audited {
        Audited::begin(self.state.as_ref(), &self.bus, act)
    }

    /// Does something between its two entries in the audit log.
    pub async fn audited<T>(&self, act: Act, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.audited_by(act, work, |_| 0).await
    }

    /// The same for what may end without an error and not be all well: `exit_of` gives its exit code.
    pub async fn audited_by<T>(&self, act: Act, work: impl Future<Output = Result<T>>, exit_of: impl Fn(&T) -> u8) -> Result<T> {
        let audited = self.audit(act);
        let done = work.await;
        audited.ended_with(done.as_ref().map_or_else(|error| error.kind().exit_code(), exit_of));
        done
    }

    /// What a source or loader gets for run `run`.
    pub fn context(&self, run: &str) -> RunContext {
        RunContext { run: run.to_owned(), cancel: self.cancel.clone(), bus: self.bus.clone(), clock: self.clock.clone() }
    }
}

/// A source of a job.
#[derive(Clone)]
pub struct SourceSpec {
    /// What the source may do that would make the set suspect (FAULTS 66).
    pub allowed: Allowed,
    /// The source.
    pub source: Arc<dyn Source>,
    /// Artifacts that hold secrets by nature may be stored in clear: an explicit choice for this source.
    pub allow_plaintext: bool,
}

/// A job, ready to run.
#[derive(Clone)]
pub struct JobSpec {
    /// Its name.
    pub name: JobName,
    /// The group of sources that makes one set.
    pub group: String,
    /// The sources, in the order in which they run.
    pub sources: Vec<SourceSpec>,
    /// What no set of the job holds, as each of them says.
    pub warnings: Vec<String>,
    /// The effective configuration as text, secrets by reference: kept in the set as `drctl.yaml`.
    pub config_text: String,
    /// SHA-256 of the effective configuration without secrets.
    pub config_sha256: Sha256,
}
