//! A store in a bucket of S3, or of anything that speaks like it.
//!
//! ```text
//! put    one PUT, or a multipart upload; create-only; checksums compared           upload, checksum
//! get    ranges, length checked, resumed when they break off                        read
//! steps  each tried again whole, by our own rules; the SDK tries once               steps, fail
//! keys   chain of AWS or configuration, fetched anew when refused                   credentials
//! probe  what the bucket does, and what these keys may                              probe
//! sweep  what dead uploads left                                                     sweep
//! ```
//! It retries by itself and is not to be wrapped in a [`crate::store::retry::RetryStore`]. Memory: [`Settings::parts_at_once`] parts of 8 MiB on
//! their way and one being filled, for all objects that are being written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::config::s3::S3Place;
use crate::error::Result;
use crate::observe::Bus;
use crate::store::profile::StoreProfile;
use crate::store::retry::RetryPolicy;
use crate::store::{Body, Entry, Head, Store, check_key};

mod buffers;
mod checksum;
mod client;
mod clock;
mod credentials;
mod date;
mod fail;
mod probe;
pub mod provider;
mod read;
mod steps;
mod sweep;
mod upload;

pub use checksum::Algorithm;
pub use sweep::{GRACE, Swept};
pub use upload::PART_BYTES;

/// How the store is used; everything has a default.
#[derive(Clone)]
pub struct Settings {
    /// How often and how long a step is tried.
    pub retry: RetryPolicy,
    /// A request without an answer, or a read without bytes, is given up after so long. (Uploads get time for their bytes on top.)
    pub stall: Duration,
    /// Parts of one object on their way at once.
    pub parts_at_once: usize,
    /// Folder for notes of open uploads, in the state folder; none where there is no state.
    pub notes: Option<PathBuf>,
    /// The checksum, where it is not to be the one of the provider's profile: what a probe found out.
    pub checksum: Option<Algorithm>,
    /// Set by a signal: uploads of several parts are given up at once. What is small goes on, for cleaning up takes it.
    pub cancel: CancellationToken,
    /// Where retries and warnings are told.
    pub bus: Bus,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            retry: RetryPolicy::default(),
            stall: Duration::from_secs(120),
            parts_at_once: 2,
            notes: None,
            checksum: None,
            cancel: CancellationToken::new(),
            bus: Bus::new(),
        }
    }
}

/// Objects below a prefix of a bucket.
#[derive(Clone)]
pub struct S3Store(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    place: S3Place,
    /// [`S3Place::short`].
    short: String,
    settings: Settings,
    client: aws_sdk_s3::Client,
    keys: credentials::Keys,
    clock: clock::SignClock,
    profile: provider::Profile,
    safe_line: bool,
    pace: Arc<steps::Pace>,
    buffers: buffers::Buffers,
}

impl S3Store {
    /// Sets up a client and fetches the keys; the bucket is not asked for yet. Missing keys are [`crate::error::Kind::Denied`].
    pub async fn open(place: &S3Place, settings: Settings) -> Result<S3Store> {
        let ready = client::ready(place).await?;
        let mut profile = ready.profile;
        profile.checksum = settings.checksum.unwrap_or(profile.checksum);
        Ok(S3Store(Arc::new(Inner {
            place: place.clone(),
            short: place.short(),
            pace: Arc::new(steps::Pace::new(settings.parts_at_once.max(1))),
            buffers: buffers::Buffers::new(settings.parts_at_once.max(1) + 1, PART_BYTES),
            settings,
            client: ready.client,
            keys: ready.keys,
            clock: ready.clock,
            profile,
            safe_line: ready.safe_line,
        })))
    }

    /// Everything that finds this place again: what goes into the recovery file.
    pub fn url(&self) -> String {
        self.0.place.url()
    }

    /// Tries out what the bucket does with these keys; leaves two small objects below `probe/`. An error means that nothing could be learnt.
    pub async fn try_out(&self) -> Result<StoreProfile> {
        self.0.try_out().await
    }

    /// The checksum that is sent with every body.
    pub fn checksum(&self) -> Algorithm {
        self.0.profile.checksum
    }

    /// The same store by another checksum, such as [`S3Store::try_out`] found.
    pub fn with_checksum(&self, checksum: Algorithm) -> S3Store {
        S3Store(self.0.with_checksum(checksum))
    }

    /// Aborts multipart uploads that nobody will end: of this host's dead processes, and of anyone below the prefix that are older than `grace`
    /// (usually [`GRACE`]). Missing permissions are warnings on the bus.
    pub async fn sweep_uploads(&self, grace: Duration) -> Result<Swept> {
        self.0.sweep(grace).await
    }
}

impl Inner {
    fn with_checksum(&self, checksum: Algorithm) -> Arc<Inner> {
        Arc::new(Inner { profile: provider::Profile { checksum, ..self.profile }, ..self.clone() })
    }

    /// A key as the bucket knows it.
    fn full(&self, key: &str) -> String {
        match self.place.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// A key of the bucket as the repository knows it; `None` when it lies elsewhere.
    fn own<'k>(&self, full: &'k str) -> Option<&'k str> {
        match self.place.prefix.as_str() {
            "" => Some(full),
            prefix => full.strip_prefix(prefix)?.strip_prefix('/'),
        }
    }
}

#[async_trait]
impl Store for S3Store {
    fn location(&self) -> String {
        self.0.short.clone()
    }

    async fn put(&self, key: &str, body: Body) -> Result<()> {
        check_key(key)?;
        self.0.create(key, body).await
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        check_key(key)?;
        self.0.read(key, offset, length).await
    }

    async fn head(&self, key: &str) -> Result<Head> {
        check_key(key)?;
        Ok(self.0.look(key).await?.head)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        self.0.entries(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        check_key(key)?;
        self.0.remove(key).await
    }

    async fn server_date(&self) -> Result<Timestamp> {
        self.0.date().await
    }
}
