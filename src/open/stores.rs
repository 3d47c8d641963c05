//! The stores of a configuration, opened: each by itself, so that one that is down keeps nobody from the others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::env::{Env, WriterLock};
use crate::catalog::single_writer::FileLock;
use crate::catalog::{Repository, Trust};
use crate::config::s3::S3Place;
use crate::config::typed::{StoreConfig, StorePlace};
use crate::error::{Error, Kind, Result};
use crate::model::Sha256;
use crate::open::Surroundings;
use crate::ops::conformance::{self, Bucket};
use crate::pipeline::split::Sink;
use crate::state::StateFile;
use crate::store::DynStore;
use crate::store::absent::AbsentStore;
use crate::store::limit::LimitStore;
use crate::store::local::LocalStore;
use crate::store::profile::StoreProfile;
use crate::store::retry::{RetryPolicy, RetryStore};
use crate::store::s3::{GRACE, S3Store, Settings};

/// The machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A store whose steps are tried again.
pub fn retrying(around: &Surroundings, store: DynStore) -> DynStore {
    Arc::new(RetryStore::new(store, RetryPolicy::default(), around.bus.clone()))
}

/// Where this host remembers things.
pub struct State<'a> {
    /// The state folder.
    pub folder: &'a Path,
    /// The state file, where it can be opened.
    pub file: Option<&'a StateFile>,
}

/// A store of the configuration. One that cannot be opened gives its error to whoever needs it.
pub struct OpenStore {
    /// The store as runs know it.
    pub sink: Sink,
    /// Why it cannot be opened.
    error: Option<Error>,
    /// Where its writers' lock lies, for a store that has one of its own.
    writer_lock: Option<PathBuf>,
    /// The network filesystem it lies on.
    pub network: Option<&'static str>,
    /// A bucket, and how it is remembered.
    pub bucket: Option<Bucket>,
}

impl OpenStore {
    /// Opens it; a failure is kept for [`OpenStore::repository`], and for whoever asks the store for anything.
    pub async fn open(around: &Surroundings, config: &StoreConfig, state: &State<'_>, writing: bool) -> OpenStore {
        let path = match &config.place {
            StorePlace::Local { path } => path,
            StorePlace::S3(place) => return Self::of_bucket(around, config, place, state, writing).await,
        };
        let opened = async {
            let local = LocalStore::open(path)?;
            if writing {
                // What writers left that died in mid-write.
                local.clean_temp().await?;
            }
            Ok::<_, Error>((local.network_filesystem()?, local))
        };
        let (store, error, writer_lock, network) = match opened.await {
            Ok((network, local)) => {
                let lock = local.writer_lock();
                (limited(around, None, retrying(around, Arc::new(local))), None, Some(lock), network)
            }
            Err(error) => {
                let hint = format!("is its disk mounted? a new copy needs its folder first: mkdir -m 700 {}", path.display());
                let told = Error::new(error.kind(), error.to_string()).hint(hint);
                (Arc::new(AbsentStore::new(path.display().to_string(), &told)) as DynStore, Some(error), None, None)
            }
        };
        OpenStore { sink: sink(config, store), error, writer_lock, network, bucket: None }
    }

    async fn of_bucket(around: &Surroundings, config: &StoreConfig, place: &S3Place, state: &State<'_>, writing: bool) -> OpenStore {
        let bucket = Bucket { name: config.name.clone(), url: place.url() };
        let known = conformance::known(state.file, &bucket.url);
        let opened = async {
            let store = open_s3(around, place, Some(state.folder)).await?;
            let store = fitting(store, known.as_ref().map(|known| &known.tried));
            if !writing {
                return Ok(store);
            }
            match store.sweep_uploads(GRACE).await {
                Ok(swept) => conformance::note_left_uploads(state.file, &bucket.url, swept.left),
                // The run itself will say whether the store can be written to.
                Err(error) => around.bus.warn(format!("look for unfinished uploads: {error}")),
            }
            let now = around.clock.now();
            // `doctor` is asked how things are now.
            if !conformance::is_due(known.as_ref(), now) && around.verb != "doctor" {
                return Ok(store);
            }
            match conformance::try_out(&store, state.file, now).await {
                Ok((found, told)) => {
                    for change in told {
                        around.bus.warn(format!("store '{}': {}", config.name, change.words));
                    }
                    Ok(fitting(store, Some(&found.tried)))
                }
                Err(error) if error.kind() == Kind::Denied && known.is_some() => Err(error),
                Err(error) => {
                    around.bus.warn(format!("store '{}' could not be tried out: {error}", config.name));
                    Ok(store)
                }
            }
        };
        let (store, error) = match opened.await {
            Ok(store) => (limited(around, place.bandwidth, Arc::new(store)), None),
            Err(error) => (Arc::new(AbsentStore::new(place.url(), &error)) as DynStore, Some(error)),
        };
        // A bucket that overwrites has no lock of its own: writers are one host, so a file of that host is as good.
        let name = format!("writer-{}.lock", Sha256::of(bucket.url.as_bytes()));
        let writer_lock = Some(state.folder.join(name));
        OpenStore { sink: sink(config, store), error, writer_lock, network: None, bucket: Some(bucket) }
    }

    /// Opens the repository, whose log this store holds.
    pub async fn repository(&mut self, env: Env, trust: &Trust) -> Result<Repository> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let lock = self.writer_lock.clone().map(|path| Arc::new(FileLock::at(path)) as Arc<dyn WriterLock>);
        Repository::open(self.sink.store.clone(), Env { writer_lock: lock, ..env }, trust).await.map_err(|e| match e.kind() {
            // The configuration knows its id: it was there, and an empty folder is a disk that is not mounted.
            Kind::NotFound => e
                .with_kind(Kind::Unreachable)
                .hint("is its disk mounted? drctl config show says where the stores lie; drctl init makes a new one"),
            _ => e,
        })
    }
}

fn sink(config: &StoreConfig, store: DynStore) -> Sink {
    let sink = Sink::new(&config.name, store);
    if config.optional { sink.optional() } else { sink }
}

fn limited(around: &Surroundings, own: Option<u64>, store: DynStore) -> DynStore {
    match own.into_iter().chain(around.bandwidth).min() {
        Some(limit) => Arc::new(LimitStore::new(store, limit)),
        None => store,
    }
}

/// A bucket; `state` is where open uploads are noted. It tries its own steps again.
pub async fn open_s3(around: &Surroundings, place: &S3Place, state: Option<&Path>) -> Result<S3Store> {
    let notes = state.map(|folder| folder.join("uploads"));
    S3Store::open(place, Settings { notes, cancel: around.cancel.clone(), bus: around.bus.clone(), ..Settings::default() }).await
}

/// The store by the checksum that it was seen to honour.
pub fn fitting(store: S3Store, found: Option<&StoreProfile>) -> S3Store {
    match found.and_then(|found| conformance::algorithm(found.checksum)) {
        Some(algorithm) if algorithm != store.checksum() => store.with_checksum(algorithm),
        _ => store,
    }
}

/// A place without a configuration, to be read from.
pub async fn open_place(around: &Surroundings, place: &StorePlace, state: &Path) -> Result<DynStore> {
    match place {
        StorePlace::Local { path } => Ok(retrying(around, Arc::new(LocalStore::open(path)?))),
        StorePlace::S3(place) => Ok(limited(around, place.bandwidth, Arc::new(open_s3(around, place, Some(state)).await?))),
    }
}

/// The store that `--store` names.
pub fn named_store(stores: &[StoreConfig], name: &str) -> Result<usize> {
    stores.iter().position(|store| store.name == name).ok_or_else(|| {
        let known: Vec<&str> = stores.iter().map(|store| store.name.as_str()).collect();
        Error::new(Kind::Usage, format!("there is no store '{name}' in the configuration"))
            .hint(format!("its stores are: {}", known.join(", ")))
    })
}

/// The first store's error, with the way around it where a copy can be read.
pub fn instead(error: Error, around: &Surroundings, stores: &[StoreConfig], writing: bool) -> Error {
    let error = error.context(format!("store '{}'", stores[0].name));
    match stores.get(1) {
        Some(copy) if !writing => {
            let verb = if around.verb == "status" { "list" } else { around.verb };
            error.hint(format!("is its disk mounted? store '{}' can be read instead: drctl {verb} … --store {}", copy.name, copy.name))
        }
        _ => error,
    }
}
