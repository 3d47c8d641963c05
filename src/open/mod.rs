//! From the configuration, or from `--repo`, to everything that the command line, the agent and its pages work with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::catalog::env::{Env, HighWater};
use crate::catalog::recovery::RecoverySecrets;
use crate::catalog::single_writer::why_single_writer;
use crate::catalog::{MinisignKey, PublicKey, RecoveryFile, Repository, Trust, cache::Cache};
use crate::config::environment::Environment;
use crate::config::load::{LoadOptions, load};
use crate::config::s3::{S3Place, is_s3_url};
use crate::config::secret::read_secret_file;
use crate::config::typed::{Config, Job, StorePlace};
use crate::error::{Context, Error, Kind, Result};
use crate::model::{Clock, Codec, JobName, Secret, SetId, Sha256, SystemClock, Timestamp};
use crate::observe::Bus;
use crate::open::stores::{OpenStore, State, host, instead, named_store, open_place};
use crate::ops::choose::{self, Wanted};
use crate::ops::restore::Loaders;
use crate::ops::{JobSpec, Setup, SourceSpec, keys, words};
use crate::pipeline::seal::{Identities, Recipient, Sealing};
use crate::pipeline::split::Sink;
use crate::source::load::Loader;
use crate::state::{Run, RunOutcome, RunRow, StateFile};

pub mod history;
pub mod policy;
pub mod reporter;
pub mod runs;
pub mod sources;
pub mod stores;

/// What opening needs from whoever asks for it.
#[derive(Clone)]
pub struct Surroundings {
    /// The verb, for hints that repeat it.
    pub verb: &'static str,
    /// The configuration file, where one was named.
    pub config: Option<PathBuf>,
    /// The repository to read without a configuration.
    pub repo: Option<PathBuf>,
    /// The recovery file that vouches for it.
    pub recovery: Option<PathBuf>,
    /// Where events go.
    pub bus: Bus,
    /// Set when all is to stop.
    pub cancel: CancellationToken,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Variables.
    pub environment: Environment,
    /// Most bytes a second to and from each store, besides what the store's own settings say.
    pub bandwidth: Option<u64>,
}

impl Surroundings {
    /// For a verb that needs a configuration, by the system's clock.
    pub fn new(verb: &'static str, config: Option<PathBuf>, bus: Bus, cancel: CancellationToken) -> Self {
        Surroundings {
            verb,
            config,
            repo: None,
            recovery: None,
            bus,
            cancel,
            clock: Arc::new(SystemClock),
            environment: Environment::system(),
            bandwidth: None,
        }
    }

    /// How the configuration is found and read.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions { config: self.config.clone(), ..LoadOptions::new(self.environment.clone()) }
    }
}

/// Name of the state file in the state folder.
pub const STATE_FILE: &str = "state.sqlite";

/// Among so many newest runs `status` looks for interrupted ones.
const INTERRUPTED_AMONG: u32 = 20;

/// An open repository with the configuration it came from, if it came from one.
pub struct Opened {
    /// What the ops work with.
    pub setup: Setup,
    /// The configuration.
    pub config: Option<Arc<Config>>,
}

/// The options that every verb hands to the configuration.
pub fn load_options(config: Option<&Path>) -> LoadOptions {
    let mut options = LoadOptions::new(Environment::system());
    options.config = config.map(Path::to_owned);
    options
}

impl Opened {
    /// For verbs that make sets: the configuration, the signing key and the repository must be there.
    pub async fn for_writing(around: &Surroundings) -> Result<Opened> {
        if around.repo.is_some() {
            return Err(Error::new(Kind::Usage, "--repo is for reading verbs: a backup needs a configuration").hint("drctl init"));
        }
        Self::from_config(around, true, None).await
    }

    /// For verbs that read: by configuration, or by `--repo` and `--recovery` without one.
    pub async fn for_reading(around: &Surroundings) -> Result<Opened> {
        Self::for_reading_from(around, None).await
    }

    /// The same, with sets read from the store that `--store` names. When the first store is down that one's copy of the log is read.
    pub async fn for_reading_from(around: &Surroundings, from: Option<&str>) -> Result<Opened> {
        match (&around.repo, from) {
            (Some(_), Some(_)) => Err(Error::new(Kind::Usage, "--store names a store of the configuration, --repo works without one")
                .hint("give the place of the copy itself: --repo FOLDER")),
            (Some(repo), None) => Self::from_repo(around, repo).await,
            (None, name) => Self::from_config(around, false, name).await,
        }
    }

    async fn from_config(around: &Surroundings, writing: bool, from: Option<&str>) -> Result<Opened> {
        let config = load(&load_options(around.config.as_deref()))?;
        for warning in &config.warnings {
            around.bus.warn(warning.to_string());
        }
        let state = open_state(around, &config.state);
        Self::of(around, Arc::new(config), state, writing, from).await
    }

    /// From a configuration and a state file at hand; `from` names the store that sets are read from.
    pub async fn of(
        around: &Surroundings,
        config: Arc<Config>,
        state: Option<Arc<StateFile>>,
        writing: bool,
        from: Option<&str>,
    ) -> Result<Opened> {
        let wanted = &config.repository;
        let trust = Trust::Known { id: wanted.id.clone(), root: wanted.root_key.parse::<PublicKey>()? };
        let remembers = State { folder: &config.state, file: state.as_deref() };
        let mut stores = Vec::new();
        for place in &wanted.stores {
            stores.push(OpenStore::open(around, place, &remembers, writing).await);
        }
        let buckets = stores.iter().filter_map(|store| store.bucket.clone()).collect();
        let from = from.map(|name| named_store(&wanted.stores, name)).transpose()?;
        let env = environment(around, state.clone(), Some(&config.state));
        let opened = match stores.first_mut() {
            Some(first) => first.repository(env, &trust).await,
            None => Err(Error::new(Kind::Config, "no store is configured")),
        };
        let (repository, sinks, read_from, is_copy) = match (opened, from) {
            (Ok(repository), from) => {
                if writing {
                    let (first, told) = (&stores[0], wanted.stores[0].single_writer);
                    let why = why_single_writer(&*first.sink.store, first.network, told).await?;
                    repository.check_writer(&host(), why.as_deref())?;
                }
                (repository, stores.into_iter().map(|store| store.sink).collect(), from.unwrap_or(0), false)
            }
            // The first store is down: what the copy says is all there is, and nothing can be written.
            (Err(error), Some(at)) if at > 0 => {
                let copy = stores.swap_remove(at).sink;
                let name = &copy.name;
                around.bus.warn(format!("the first store cannot be read, and store '{name}' may lack the newest records: {error}"));
                // It may lag behind what this machine has seen, and is no cache's source.
                let repository = Repository::open(copy.store.clone(), environment(around, None, None), &trust).await;
                (repository.context(|| format!("store '{name}'"))?, vec![copy], 0, true)
            }
            (Err(error), _) => return Err(instead(error, around, &wanted.stores, writing)),
        };
        tell_odd(around, &repository).await?;
        let may_write = !is_copy && repository.check_writer(&host(), None).is_ok();
        let sealing = if wanted.encrypt { Sealing::Age(recipients(&wanted.recipients)?) } else { Sealing::None };
        let mut setup = Setup::new(repository, sinks, sealing);
        setup.read_from = read_from;
        setup.buckets = buckets;
        setup.job_stores = config.jobs.iter().map(|job| (job.name.clone(), job.stores.clone())).collect();
        if may_write {
            (setup.keys, setup.roles) = keys::at_hand(&setup.repository, signers(around, &wanted.signing_key)?).await?;
        }
        setup.identities = match &wanted.identity {
            Some(path) => Identities::parse(&read_secret_file(path)?, &path.display().to_string())?,
            None => Identities::default(),
        };
        setup.codec = wanted.codec;
        setup.decode_check = wanted.decode_check;
        Ok(Opened { setup: finish(setup, around, state), config: Some(config) })
    }

    async fn from_repo(around: &Surroundings, repo: &Path) -> Result<Opened> {
        let state_folder = crate::config::find::state_folder(None, &Environment::system());
        let store = open_place(around, &repo_place(repo)?, &state_folder).await?;
        let state = open_state(around, &state_folder);
        let (trust, identities) = match &around.recovery {
            Some(path) => {
                let (file, secrets) = recovery_file(path).await?;
                (file.trust(), Identities::parse(&secrets.identities, "the recovery file")?)
            }
            None => {
                around.bus.warn("without --recovery nobody vouches for this repository: its signatures are checked against its own key");
                (Trust::OnFirstUse, Identities::default())
            }
        };
        let repository = Repository::open(store.clone(), environment(around, state.clone(), None), &trust).await?;
        tell_odd(around, &repository).await?;
        let mut setup = Setup::new(repository, vec![Sink::new("repo", store)], Sealing::None);
        setup.identities = identities;
        setup.codec = Codec::Zstd { level: 1 };
        Ok(Opened { setup: finish(setup, around, state), config: None })
    }

    /// Opens a further store as if it were the first one, with this host's keys and marks, for `repository adopt`: the first is gone.
    pub async fn on_copy(around: &Surroundings, name: &str) -> Result<Opened> {
        let config = load(&load_options(around.config.as_deref()))?;
        let wanted = &config.repository;
        let at = named_store(&wanted.stores, name)?;
        let state = open_state(around, &config.state);
        let remembers = State { folder: &config.state, file: state.as_deref() };
        let mut store = OpenStore::open(around, &wanted.stores[at], &remembers, false).await;
        let trust = Trust::Known { id: wanted.id.clone(), root: wanted.root_key.parse::<PublicKey>()? };
        // No cache: it is of the first store's log.
        let repository = store.repository(environment(around, state.clone(), None), &trust).await.context(|| format!("store '{name}'"))?;
        let mut setup = Setup::new(repository, vec![store.sink], Sealing::None);
        (setup.keys, setup.roles) = keys::at_hand(&setup.repository, signers(around, &wanted.signing_key)?).await?;
        Ok(Opened { setup: finish(setup, around, state), config: Some(Arc::new(config)) })
    }

    /// The jobs a verb means: the one named, or all of the configuration, or all of the repository.
    pub async fn jobs(&self, named: Option<&str>) -> Result<Vec<JobName>> {
        match named {
            Some(name) => Ok(vec![self.named(name).await?]),
            None => {
                let (mut jobs, odd) = self.setup.repository.look_at_jobs().await?;
                if let Some(first) = odd.first() {
                    let more = words::and_more(odd.len());
                    self.setup.bus.warn(format!("{first}{more}: passed over; drctl doctor shows what to do"));
                }
                // A job that was taken out of the configuration still has its sets; one that never ran has none.
                for job in self.config.iter().flat_map(|c| &c.jobs) {
                    if !jobs.contains(&job.name) {
                        jobs.push(job.name.clone());
                    }
                }
                Ok(jobs)
            }
        }
    }

    async fn named(&self, name: &str) -> Result<JobName> {
        let configured = self.config.iter().flat_map(|c| c.jobs.iter().map(|j| &j.name));
        if let Ok(job) = name.parse::<JobName>()
            && (configured.clone().any(|known| *known == job) || self.setup.repository.has_job(&job).await?)
        {
            return Ok(job);
        }
        let known = self.setup.repository.jobs().await?;
        let job = known.iter().chain(configured.clone()).find(|job| job.as_str() == name).cloned();
        job.ok_or_else(|| {
            let mut names: Vec<String> = known.iter().chain(configured).map(JobName::to_string).collect();
            names.sort();
            names.dedup();
            Error::new(Kind::NoSuchSet, format!("there is no job '{name}' in {}", self.setup.repository.location()))
                .hint(format!("its jobs are: {}", names.join(", ")))
        })
    }

    /// The one job that a set's id or `--job` names, or the only one there is.
    pub async fn job_of(&self, wanted: &Wanted, named: Option<&str>) -> Result<JobName> {
        if let Wanted::Set(id) = wanted
            && let Some((job, _)) = id.split_once('/')
        {
            return self.named(job).await;
        }
        let known: Vec<JobName> = self.config.iter().flat_map(|c| c.jobs.iter().map(|j| j.name.clone())).collect();
        match named {
            Some(name) => self.named(name).await,
            None => choose::job(&self.setup, None, &known).await,
        }
    }

    /// The zone in which a job's dates are meant.
    pub fn zone(&self, job: Option<&JobName>) -> TimeZone {
        let configured = job.and_then(|job| self.config.as_ref()?.job(job.as_str()));
        configured.map_or_else(TimeZone::system, |job| job.timezone.clone())
    }

    /// Folders of this machine that are stores.
    pub fn store_folders(&self) -> Vec<PathBuf> {
        let stores = self.config.iter().flat_map(|config| &config.repository.stores);
        let folder = |place: &StorePlace| match place {
            StorePlace::Local { path } => Some(path.clone()),
            StorePlace::S3(_) => None,
        };
        stores.filter_map(|store| folder(&store.place)).collect()
    }

    /// The jobs asked for, ready to run, a spec for each group of each; all when none is named.
    pub fn job_specs(&self, names: &[String]) -> Result<Vec<JobSpec>> {
        let config = self.config.as_ref().ok_or_else(|| Error::new(Kind::Usage, "this needs a configuration").hint("drctl init"))?;
        let known: Vec<String> = config.jobs.iter().map(|j| j.name.to_string()).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
            return Err(no_such_job(unknown, &known));
        }
        if config.jobs.is_empty() {
            return Err(
                Error::new(Kind::Config, "the configuration has no job").hint("add one: see drctl config schema, or run drctl init")
            );
        }
        let wanted = config.jobs.iter().filter(|job| names.is_empty() || names.iter().any(|n| n == job.name.as_str()));
        let mut specs = Vec::new();
        for job in wanted {
            for (group, _) in job.groups() {
                specs.push(self.spec(config, job, group)?);
            }
        }
        Ok(specs)
    }

    fn spec(&self, config: &Config, job: &Job, group: &str) -> Result<JobSpec> {
        let text = crate::config::show::redacted_yaml(config);
        let mut list = Vec::new();
        for source in job.sources.iter().filter(|s| s.group() == group) {
            list.push(SourceSpec {
                source: sources::source(source)?,
                allowed: sources::allowed(source),
                allow_plaintext: source.allow_plaintext,
            });
        }
        Ok(JobSpec {
            name: job.name.clone(),
            group: group.to_owned(),
            sources: list,
            warnings: job.warnings(),
            config_sha256: crate::config::show::config_sha256(config),
            config_text: text,
        })
    }

    /// Notes in the state file that a run began. A state file that is not there is no reason not to back up.
    pub fn run_started(&self, verb: &str, job: &JobName) -> RunNote {
        RunNote::begin(self.setup.state.as_ref(), verb, job)
    }

    /// Runs of this host that began and never ended. Of a backup that died behind its commit the log tells that its set stands (FAULTS 5).
    pub async fn interrupted_runs(&self) -> Result<Vec<String>> {
        let Some(state) = &self.setup.state else { return Ok(Vec::new()) };
        let newest = state.runs(None, None, INTERRUPTED_AMONG).unwrap_or_default();
        let mut told = Vec::new();
        for run in newest.iter().filter(|run| run.outcome == RunOutcome::Interrupted) {
            let begun = run.started_at.strftime("%Y-%m-%d %H:%M UTC");
            let what = run.set.clone().or(run.job.clone()).unwrap_or_default();
            told.push(match self.made_after_all(run, &newest).await? {
                Some(set) => format!("{} {set}, begun {begun}: after its commit, the set stands", run.verb),
                None => format!("{} {what}, begun {begun}", run.verb),
            });
        }
        Ok(told)
    }

    /// The set that an interrupted backup committed: one of this host that began while it ran and that no other run is known to have made.
    async fn made_after_all(&self, run: &RunRow, runs: &[RunRow]) -> Result<Option<SetId>> {
        let job = run.job.as_ref().filter(|_| run.verb == "backup").and_then(|job| job.parse::<JobName>().ok());
        let Some(job) = job else { return Ok(None) };
        let log = self.setup.log(&job).await?;
        let next = runs.iter().filter(|other| other.job == run.job && other.id > run.id).map(|other| other.started_at).min();
        let until = next.into_iter().chain(run.finished_at).min().unwrap_or(Timestamp::MAX);
        let its_own = |id: &SetId| !runs.iter().any(|other| other.set.as_ref().is_some_and(|set| *set == id.to_string()));
        let made = log.state().live().find(|entry| {
            let at = entry.manifest.started_at;
            entry.manifest.host == self.setup.host && (run.started_at..=until).contains(&at) && its_own(entry.id())
        });
        Ok(made.map(|entry| entry.id().clone()))
    }
}

/// A run as the state file knows it.
pub struct RunNote {
    run: Option<Run>,
    problem: Option<String>,
}

impl RunNote {
    /// Notes that a run begins.
    pub fn begin(state: Option<&Arc<StateFile>>, verb: &str, job: &JobName) -> RunNote {
        let Some(state) = state else {
            return RunNote { run: None, problem: Some("the state file cannot be opened".into()) };
        };
        match state.begin_run(verb, Some(job.as_str())) {
            Ok(run) => RunNote { run: Some(run), problem: None },
            Err(error) => RunNote { run: None, problem: Some(error.to_string()) },
        }
    }

    /// Notes how the run ended; returns what could not be recorded, if anything.
    pub fn finished(self, set: Option<&SetId>, exit_code: u8, error: Option<&Error>) -> Option<String> {
        let Some(run) = self.run else { return self.problem };
        let named = set.map_or(Ok(()), |set| run.set(&set.to_string()));
        let words = error.map(Error::to_string);
        named.and_then(|()| run.finish(exit_code, words.as_deref())).err().map(|e| e.to_string())
    }
}

impl Loaders for Opened {
    fn loader(&self, job: &JobName, name: &str, kind: &str, has_target: bool) -> Result<Arc<dyn Loader>> {
        let configured = self.config.as_ref().and_then(|c| c.job(job.as_str()));
        let source = configured.and_then(|j| j.source(name)).filter(|s| s.kind.name() == kind);
        // What is only laid aside needs no place of its own.
        let aside = matches!(kind, "environment" | "compose");
        if source.is_none() && !has_target && !aside {
            let why = match &self.config {
                Some(_) => format!("the configuration has no source '{name}' ({kind}) for job {job}: where should it go?"),
                None => format!("without a configuration nothing says where '{name}' ({kind}) of job {job} should go"),
            };
            let target = if kind == "files" { "FOLDER    (a new or empty one)" } else { "postgres://USER@HOST:5432" };
            return Err(
                Error::new(Kind::Preflight, why).hint(format!("say where, one source at a time: --source {name} --target {target}"))
            );
        }
        sources::loader(name, kind, source)
    }

    fn groups(&self, job: &JobName) -> Option<Vec<String>> {
        let job = self.config.as_ref()?.job(job.as_str())?;
        Some(job.group_names())
    }
}

fn finish(mut setup: Setup, around: &Surroundings, state: Option<Arc<StateFile>>) -> Setup {
    setup.bus = around.bus.clone();
    setup.cancel = around.cancel.clone();
    setup.host = host();
    setup.state = state;
    // For tests that want an artifact of several objects without gigabytes; never in a release.
    #[cfg(feature = "failpoints")]
    if let Some(bytes) = std::env::var("DRCTL_OBJECT_BYTES").ok().and_then(|text| text.parse().ok()) {
        setup.object_bytes = bytes;
    }
    setup
}

fn environment(around: &Surroundings, state: Option<Arc<StateFile>>, folder: Option<&Path>) -> Env {
    let high_water = state.map(|state| Arc::new(StateHighWater { state, bus: around.bus.clone() }) as Arc<dyn HighWater>);
    Env { clock: around.clock.clone(), high_water, cache: folder.map(|f| Cache::at(f.join("cache"))), ..Env::default() }
}

/// Says that something lies below `repository/` or `keys/` that nobody signed: it is passed over.
async fn tell_odd(around: &Surroundings, repository: &Repository) -> Result<()> {
    repository.key_book().await?;
    let odd = repository.odd();
    if let Some(first) = odd.first() {
        let more = words::and_more(odd.len());
        around.bus.warn(format!("{first}{more}: nobody signed it, and it is passed over; drctl doctor shows what to do"));
    }
    Ok(())
}

/// The secrets that this host signs with.
fn signers(around: &Surroundings, path: &Path) -> Result<Vec<MinisignKey>> {
    let mut signers = vec![MinisignKey::load(path)?];
    let next = keys::next_of(path);
    if next.exists() {
        // `key rotate` did not come to its end: each log takes the one that is valid there.
        around.bus.warn(format!("{} waits to replace the signing key: finish it with drctl key rotate", next.display()));
        signers.push(MinisignKey::load(&next)?);
    }
    Ok(signers)
}

/// Where `--repo` and `--store` point: a folder, or a bucket by its URL.
pub fn repo_place(text: &Path) -> Result<StorePlace> {
    match text.to_str().filter(|text| is_s3_url(text)) {
        Some(url) => {
            let place = S3Place::parse_url(url).map_err(|why| Error::new(Kind::Usage, format!("the bucket's URL: {why}")))?;
            Ok(StorePlace::S3(Box::new(place)))
        }
        None => Ok(StorePlace::Local { path: text.to_owned() }),
    }
}

/// A state file that cannot be opened is said and done without.
pub fn open_state(around: &Surroundings, folder: &Path) -> Option<Arc<StateFile>> {
    // What a killed run left behind is cleaned up here: passwords first.
    crate::source::postgres::sweep_private_files();
    let opened = StateFile::open(&folder.join(STATE_FILE), around.clock.clone()).and_then(|state| {
        state.sweep_interrupted()?;
        Ok(state)
    });
    match opened {
        Ok(state) => Some(Arc::new(state)),
        Err(error) => {
            around.bus.warn(format!("this run is not recorded on this host: {error}"));
            None
        }
    }
}

/// Asked for by a caller that has no job at all.
pub fn no_such_job(name: &str, known: &[String]) -> Error {
    Error::new(Kind::Usage, format!("there is no job '{name}' in the configuration")).hint(format!("its jobs are: {}", known.join(", ")))
}

fn recipients(texts: &[String]) -> Result<Vec<Recipient>> {
    texts.iter().map(|text| text.parse()).collect()
}

/// Reads a recovery file and opens it with its passphrase.
pub async fn recovery_file(path: &Path) -> Result<(RecoveryFile, RecoverySecrets)> {
    recovery_file_with(path, passphrase).await
}

/// The same with a passphrase from elsewhere; it is asked for when the file is one.
pub async fn recovery_file_with(path: &Path, passphrase: impl FnOnce() -> Result<Secret>) -> Result<(RecoveryFile, RecoverySecrets)> {
    let text = std::fs::read_to_string(path).context(|| format!("read the recovery file {}", path.display()))?;
    let file = RecoveryFile::parse(&text)?;
    let passphrase = passphrase()?;
    // A second of scrypt.
    let opened = tokio::task::spawn_blocking(move || {
        let secrets = file.open(&passphrase)?;
        Ok((file, secrets))
    });
    opened.await.map_err(|e| Error::failed("open the recovery file").because(e))?
}

/// The recovery file's passphrase: from the file that DRCTL_PASSPHRASE_FILE names, or from the terminal.
pub fn passphrase() -> Result<Secret> {
    if let Some(path) = std::env::var_os("DRCTL_PASSPHRASE_FILE") {
        return read_secret_file(Path::new(&path));
    }
    let typed = rpassword::prompt_password("Passphrase of the recovery file: ").map_err(|e| {
        Error::new(Kind::Preflight, "the recovery file needs its passphrase and there is no terminal to ask at")
            .because(e)
            .hint("put it into a file that only you can read and set DRCTL_PASSPHRASE_FILE to its path")
    })?;
    Ok(Secret::new(typed))
}

/// High-water marks in the state file.
struct StateHighWater {
    state: Arc<StateFile>,
    bus: Bus,
}

impl HighWater for StateHighWater {
    fn get(&self, repository: &str, job: &JobName) -> Result<Option<(u64, Sha256)>> {
        self.state.mark(repository, job)
    }

    /// A mark that cannot be written is a guard less the next time, and no reason to make no backup (FAULTS 13). What it found is one.
    fn set(&self, repository: &str, job: &JobName, number: u64, sha256: &Sha256) -> Result<()> {
        match self.state.raise_mark(repository, job, number, sha256) {
            Err(error) if error.kind() != Kind::Corrupt => {
                self.bus.warn(format!("record {number} of job {job} is not remembered on this host: {error}"));
                Ok(())
            }
            other => other,
        }
    }

    fn reset(&self, repository: &str, job: &JobName, number: u64, sha256: &Sha256) -> Result<()> {
        self.state.replace_mark(repository, job, number, sha256)
    }
}
