//! The SDK's client, set up once: TLS by rustls and ring, proxy from the environment, no retries of its own.
//!
//! The SDK's retries stay off: it knows nothing of lost answers, gives up on some errors of CompleteMultipartUpload (awslabs/aws-sdk-rust#1163) and
//! cannot put the clock right. Its protection against stalled streams is off as well: it ends slow uploads (awslabs/aws-sdk-rust#1146); our own
//! limits are in [`super::steps`] and [`super::read`].

use std::path::Path;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    IdentityCache, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_async::time::SharedTimeSource;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use url::{Host, Url};

use crate::config::s3::{S3Place, S3Provider};
use crate::error::{Context, Error, Kind, Result};
use crate::store::s3::clock::SignClock;
use crate::store::s3::credentials::{Configured, Keys};
use crate::store::s3::fail::chain;
use crate::store::s3::provider::{Profile, profile, region_of};

/// Longest time until a connection stands.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A client and what it was made of.
pub struct Ready {
    /// The SDK's client.
    pub client: Client,
    /// The keys it signs with.
    pub keys: Keys,
    /// The clock it signs by.
    pub clock: SignClock,
    /// What is known of the provider.
    pub profile: Profile,
    /// Whether nobody can change bytes on their way: they travel in TLS, or do not leave this machine.
    pub safe_line: bool,
}

/// Makes a client for a place and fetches its keys, so that a wrong or missing one is told at the start.
pub async fn ready(place: &S3Place) -> Result<Ready> {
    let http = http_client(place.ca_file.as_deref())?;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
    if let Some(name) = &place.profile {
        loader = loader.profile_name(name);
    }
    let endpoint = place.endpoint.clone().or_else(|| ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().find_map(|name| variable(name)));
    let told = S3Place { endpoint: endpoint.clone(), ..place.clone() };
    match &place.region {
        Some(region) => loader = loader.region(Region::new(region.clone())),
        // The machine itself (EC2) is asked for its region on AWS only: elsewhere the question would only cost seconds.
        None if told.provider() != S3Provider::Aws => {
            let fallback = endpoint.as_deref().and_then(region_of).unwrap_or_else(|| profile(told.provider()).region.to_owned());
            let mut file = ProfileFileRegionProvider::builder();
            if let Some(name) = &place.profile {
                file = file.profile_name(name);
            }
            let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(file.build());
            loader = loader.region(chain.or_else(Region::new(fallback)));
        }
        None => {}
    }
    let shared = loader.load().await;
    // AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and the profile's endpoint are in it.
    let base = aws_sdk_s3::Config::from(&shared);
    let from = match &place.keys {
        Some(keys) => SharedCredentialsProvider::new(Configured::new(keys.clone())),
        None => {
            shared.credentials_provider().ok_or_else(|| Error::new(Kind::Denied, format!("there are no keys for {place}")).hint(KEYS))?
        }
    };
    let keys = Keys::new(from);
    keys.provide_credentials()
        .await
        .map_err(|e| Error::new(Kind::Denied, format!("get the keys for {place}: {}", chain(&e))).hint(KEYS))?;

    let endpoint = endpoint.or_else(|| shared.endpoint_url().map(str::to_owned));
    let known = profile(S3Place { endpoint: endpoint.clone(), ..place.clone() }.provider());
    let region = shared.region().cloned();
    let region = region.or_else(|| endpoint.as_deref().and_then(region_of).map(Region::new)).unwrap_or_else(|| Region::new(known.region));
    let clock = SignClock::default();
    let mut config = base
        .to_builder()
        .http_client(http)
        .region(region)
        .credentials_provider(keys.clone())
        // Ours keeps them, and can forget them.
        .identity_cache(IdentityCache::no_cache())
        .time_source(SharedTimeSource::new(clock.clone()))
        .disable_clock_skew_correction(true)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_LIMIT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // We send and compare checksums ourselves, where the provider honours them (FAULTS, incident 50).
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(place.path_style.unwrap_or(known.path_style));
    if let Some(endpoint) = &place.endpoint {
        config = config.endpoint_url(endpoint);
    }
    if let Ok(name) = AppName::new(concat!("drctl-", env!("CARGO_PKG_VERSION"))) {
        config = config.app_name(name);
    }
    let safe_line = endpoint.as_deref().is_none_or(is_safe_line);
    Ok(Ready { client: Client::from_conf(config.build()), keys, clock, profile: known, safe_line })
}

fn is_safe_line(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    url.scheme() == "https"
        || match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
}

const KEYS: &str = "give access_key and secret_key, or profile, in the store's configuration; or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE";

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn http_client(ca_file: Option<&Path>) -> Result<SharedHttpClient> {
    let context = match ca_file {
        None => TlsContext::default(),
        Some(path) => {
            let what = || format!("read the certificates of {}", path.display());
            let pem = std::fs::read(path).context(what)?;
            // The SDK would break down on a file without any.
            if !pem.windows(BEGIN.len()).any(|w| w == BEGIN) {
                return Err(Error::new(Kind::Config, format!("{} holds no certificate (PEM)", path.display())));
            }
            let trust = TrustStore::empty().with_pem_certificate(pem);
            TlsContext::builder().with_trust_store(trust).build().map_err(|e| Error::new(Kind::Config, what()).because(e))?
        }
    };
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector
            // HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.clone())
            .build()
    });
    Ok(client)
}

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

#[cfg(test)]
mod tests {
    use super::is_safe_line;

    #[test]
    fn a_line_is_safe_in_tls_or_within_the_machine() {
        for (endpoint, safe) in [
            ("https://s3.example.org", true),
            ("http://127.0.0.1:7070", true),
            ("http://localhost:9000/", true),
            ("http://[::1]:9000", true),
            ("http://minio:9000", false),
            ("http://10.0.0.7", false),
            ("http://localhost.example.org", false),
            ("http://127.0.0.1.example.org", false),
            ("127.0.0.1:9000", false),
        ] {
            assert_eq!(is_safe_line(endpoint), safe, "{endpoint}");
        }
    }
}
