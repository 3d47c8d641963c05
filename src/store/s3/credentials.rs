//! Keys of the store's user: fetched when needed, kept until shortly before they run out, fetched anew when the store says that they did.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, SharedCredentialsProvider, future};

use crate::config::environment::Environment;
use crate::config::s3::S3Keys;

/// Keys are fetched anew so long before they run out.
const BEFORE_EXPIRY: Duration = Duration::from_secs(300);

/// Keys from the chain of AWS or from the configuration, with a cache that can be emptied.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    from: SharedCredentialsProvider,
    kept: Mutex<Option<Credentials>>,
    /// One fetch at a time: a slow provider is not asked by every part at once.
    fetching: tokio::sync::Mutex<()>,
}

impl Keys {
    /// Keys from `from`.
    pub fn new(from: SharedCredentialsProvider) -> Keys {
        Keys(Arc::new(Inner { from, kept: Mutex::default(), fetching: tokio::sync::Mutex::default() }))
    }

    /// Forgets what is kept: the store says that it ran out.
    pub fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Credentials>> {
        self.0.kept.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn good(&self) -> Option<Credentials> {
        let kept = self.kept().clone()?;
        let good = kept.expiry().is_none_or(|at| at > SystemTime::now() + BEFORE_EXPIRY);
        good.then_some(kept)
    }

    async fn get(&self) -> Result {
        if let Some(kept) = self.good() {
            return Ok(kept);
        }
        let _one = self.0.fetching.lock().await;
        if let Some(kept) = self.good() {
            return Ok(kept);
        }
        let fetched = self.0.from.provide_credentials().await?;
        *self.kept() = Some(fetched.clone());
        Ok(fetched)
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.get())
    }
}

/// Keys of the configuration, fetched again each time they are asked for: a rotated file takes effect.
#[derive(Debug)]
pub struct Configured {
    keys: Arc<S3Keys>,
}

impl Configured {
    /// Keys as the configuration refers to them.
    pub fn new(keys: S3Keys) -> Configured {
        Configured { keys: Arc::new(keys) }
    }

    async fn fetch(&self) -> Result {
        let keys = self.keys.clone();
        // Commands may be run and files read for them.
        let fetched = tokio::task::spawn_blocking(move || {
            let environment = Environment::system();
            let access = keys.access_key.resolve_in(&environment)?;
            let secret = keys.secret_key.resolve_in(&environment)?;
            let token = keys.session_token.as_ref().map(|t| t.resolve_in(&environment)).transpose()?;
            Ok::<_, crate::error::Error>(Credentials::new(
                access,
                secret.expose(),
                token.map(|t| t.expose().to_owned()),
                None,
                "drctl configuration",
            ))
        });
        match fetched.await {
            Ok(fetched) => fetched.map_err(CredentialsError::provider_error),
            Err(broken) => Err(CredentialsError::provider_error(broken)),
        }
    }
}

impl ProvideCredentials for Configured {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.fetch())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug)]
    struct Counting(AtomicU64, Option<Duration>);

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let n = self.0.fetch_add(1, Ordering::Relaxed);
            let expiry = self.1.map(|d| SystemTime::now() + d);
            future::ProvideCredentials::ready(Ok(Credentials::new(format!("k{n}"), "s", None, expiry, "test")))
        }
    }

    #[tokio::test]
    async fn f34_keys_are_kept_until_they_run_out_or_are_refused() {
        for (expiry, again) in [(None, "k0"), (Some(Duration::from_secs(3600)), "k0"), (Some(Duration::from_secs(60)), "k1")] {
            let keys = Keys::new(SharedCredentialsProvider::new(Counting(AtomicU64::new(0), expiry)));
            assert_eq!(keys.get().await.unwrap().access_key_id(), "k0");
            assert_eq!(keys.get().await.unwrap().access_key_id(), again);
        }
        let keys = Keys::new(SharedCredentialsProvider::new(Counting(AtomicU64::new(0), None)));
        keys.get().await.unwrap();
        keys.forget();
        assert_eq!(keys.get().await.unwrap().access_key_id(), "k1");
    }
}
