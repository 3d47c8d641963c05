//! A place in a bucket, as it stands in the configuration or in a URL.
//!
//! ```text
//! s3://bucket/prefix?endpoint=https://…&region=…&provider=minio&path_style=true&profile=…&ca_file=/…
//! ```
//! The URL is what `--repo`, `init --store` and the recovery file take. It never holds a key: those come from the configuration, from the
//! environment (`AWS_*`), from a profile or from the machine's role.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use crate::config::secret::{SecretRef, TextRef};

/// Where in which bucket a repository lies, and how it is got at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Place {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with, without a slash at either end; empty is the bucket itself.
    pub prefix: String,
    /// The region; without it `AWS_REGION`, the profile, then what the provider takes by default.
    pub region: Option<String>,
    /// The server, `https://host[:port]`; without it `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, the profile, then AWS itself.
    pub endpoint: Option<String>,
    /// Whose S3 it is; without it, what the endpoint's name tells.
    pub provider: Option<S3Provider>,
    /// The bucket's name in the path instead of in the host's name; without it, what the provider takes.
    pub path_style: Option<bool>,
    /// Profile of the shared AWS configuration files.
    pub profile: Option<String>,
    /// Keys of the store's user; without them the chain of AWS: environment, profile, web identity, container, machine.
    pub keys: Option<S3Keys>,
    /// PEM file of certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// At most so many bytes a second in each direction.
    pub bandwidth: Option<u64>,
}

/// Keys of a store's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Keys {
    /// Its name.
    pub access_key: TextRef,
    /// Its secret.
    pub secret_key: SecretRef,
    /// The third part of temporary keys.
    pub session_token: Option<SecretRef>,
}

/// Whose S3 it is. What each can do stands in `store::s3::provider`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Provider {
    /// Amazon.
    Aws,
    /// MinIO.
    Minio,
    /// Cloudflare R2.
    R2,
    /// Backblaze B2.
    B2,
    /// Ceph's RADOS gateway.
    Ceph,
    /// Scaleway.
    Scaleway,
    /// Versity's gateway.
    Versitygw,
    /// Any other.
    Other,
}

/// Each with its name in the configuration.
const PROVIDERS: [(S3Provider, &str); 8] = [
    (S3Provider::Aws, "aws"),
    (S3Provider::Minio, "minio"),
    (S3Provider::R2, "r2"),
    (S3Provider::B2, "b2"),
    (S3Provider::Ceph, "ceph"),
    (S3Provider::Scaleway, "scaleway"),
    (S3Provider::Versitygw, "versitygw"),
    (S3Provider::Other, "other"),
];

impl S3Provider {
    /// By name.
    pub fn parse(name: &str) -> Option<S3Provider> {
        PROVIDERS.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        PROVIDERS.iter().find(|row| row.0 == self).map_or("other", |row| row.1)
    }

    /// What an endpoint's name tells; without an endpoint it is AWS.
    pub fn of_endpoint(endpoint: Option<&str>) -> S3Provider {
        let Some(endpoint) = endpoint else { return S3Provider::Aws };
        let host = Url::parse(endpoint).ok().and_then(|u| u.host_str().map(str::to_owned)).unwrap_or_default();
        let known = [
            (".amazonaws.com", S3Provider::Aws),
            (".amazonaws.com.cn", S3Provider::Aws),
            (".r2.cloudflarestorage.com", S3Provider::R2),
            (".backblazeb2.com", S3Provider::B2),
            (".scw.cloud", S3Provider::Scaleway),
        ];
        known.iter().find(|(end, _)| host.ends_with(end)).map_or(S3Provider::Other, |(_, p)| *p)
    }
}

/// Whether text is the URL of a bucket.
pub fn is_s3_url(text: &str) -> bool {
    text.starts_with("s3://")
}

/// Why a name is no bucket's; the rules of S3 for new general purpose buckets, and '_' and capitals, which old ones have.
pub fn check_bucket(name: &str) -> Result<(), String> {
    let good = (3..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if good { Ok(()) } else { Err(format!("'{name}' is not a bucket's name: 3 to 63 letters, digits, '.', '_' or '-'")) }
}

/// A prefix without slashes at its ends, or why it is none.
pub fn check_prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim_matches('/');
    let good = prefix.len() <= 100
        && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-' | b'/'))
        && (prefix.is_empty() || prefix.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
    if good {
        Ok(prefix.to_owned())
    } else {
        Err(format!("'{text}' is not a prefix: at most 100 letters, digits, '.', '_', '~', '-', and single '/' between names"))
    }
}

/// An endpoint without a slash at its end, or why it is none.
pub fn check_endpoint(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|e| format!("'{text}' is not a URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an endpoint holds no user or password; use access_key and secret_key".into());
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || url.query().is_some() || url.path() != "/" {
        return Err(format!("'{text}' is not an endpoint: https://host or https://host:port"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

impl S3Place {
    /// A bucket and a prefix, everything else by default.
    pub fn new(bucket: impl Into<String>, prefix: impl Into<String>) -> S3Place {
        S3Place {
            bucket: bucket.into(),
            prefix: prefix.into(),
            region: None,
            endpoint: None,
            provider: None,
            path_style: None,
            profile: None,
            keys: None,
            ca_file: None,
            bandwidth: None,
        }
    }

    /// Reads a URL. The message never repeats a user or password.
    pub fn parse_url(text: &str) -> Result<S3Place, String> {
        let url = Url::parse(text).map_err(|e| format!("this is not a URL: {e}; write s3://bucket/prefix"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "keys have no place in the URL of a bucket; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile".into()
            );
        }
        if url.scheme() != "s3" || url.port().is_some() || url.fragment().is_some() {
            return Err("write s3://bucket/prefix; the server goes into ?endpoint=https://host:port".into());
        }
        let bucket = url.host_str().unwrap_or_default().to_owned();
        check_bucket(&bucket)?;
        let mut place = S3Place::new(bucket, check_prefix(url.path())?);
        for (key, value) in url.query_pairs() {
            let value = value.into_owned();
            match key.as_ref() {
                "region" => place.region = Some(value),
                "endpoint" => place.endpoint = Some(check_endpoint(&value)?),
                "provider" => match S3Provider::parse(&value) {
                    Some(provider) => place.provider = Some(provider),
                    None => return Err(format!("there is no provider '{value}'; known are: {}", provider_names())),
                },
                "path_style" => match value.as_str() {
                    "true" => place.path_style = Some(true),
                    "false" => place.path_style = Some(false),
                    _ => return Err(format!("path_style is true or false, not '{value}'")),
                },
                "profile" => place.profile = Some(value),
                "ca_file" => place.ca_file = Some(PathBuf::from(value)),
                other => {
                    return Err(format!(
                        "'{other}' has no meaning here; there are: region, endpoint, provider, path_style, profile, ca_file"
                    ));
                }
            }
        }
        Ok(place)
    }

    /// The provider, told or guessed.
    pub fn provider(&self) -> S3Provider {
        self.provider.unwrap_or_else(|| S3Provider::of_endpoint(self.endpoint.as_deref()))
    }

    /// The place as people know it: `s3://bucket/prefix`.
    pub fn short(&self) -> String {
        match self.prefix.as_str() {
            "" => format!("s3://{}", self.bucket),
            prefix => format!("s3://{}/{prefix}", self.bucket),
        }
    }

    /// Everything that [`S3Place::parse_url`] needs to find it again. No secret is in it.
    pub fn url(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let mut any = false;
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                any = true;
                query.append_pair(key, &value);
            }
        };
        add("endpoint", self.endpoint.clone());
        add("region", self.region.clone());
        add("provider", self.provider.map(|p| p.name().to_owned()));
        add("path_style", self.path_style.map(|p| p.to_string()));
        add("profile", self.profile.clone());
        add("ca_file", self.ca_file.as_ref().map(|p| p.display().to_string()));
        if any { format!("{}?{}", self.short(), query.finish()) } else { self.short() }
    }

    /// Whether two configurations mean the same objects; who reads them, and how, does not matter.
    pub fn same_place(&self, other: &S3Place) -> bool {
        self.bucket == other.bucket && self.prefix == other.prefix && self.endpoint == other.endpoint
    }
}

/// Names of all providers, for messages.
pub fn provider_names() -> String {
    PROVIDERS.map(|row| row.1).join(", ")
}

impl fmt::Display for S3Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for text in [
            "s3://bucket",
            "s3://bucket/drctl",
            "s3://my.bucket-1/a/b.c/~d?endpoint=http%3A%2F%2F127.0.0.1%3A7070&region=eu-west-1&provider=versitygw&path_style=true&profile=x&ca_file=%2Fa+b",
        ] {
            assert_eq!(S3Place::parse_url(text).unwrap().url(), text);
        }
        let place = S3Place::parse_url("s3://bucket//drctl//").unwrap();
        assert_eq!((place.short().as_str(), place.provider()), ("s3://bucket/drctl", S3Provider::Aws));
    }

    #[test]
    fn wrong_urls_say_why_and_repeat_no_secret() {
        for (text, part) in [
            ("s3://", "not a bucket"),
            ("s3:///x", "not a bucket"),
            ("s3://ab/x", "not a bucket"),
            ("s3://bucket/a//b", "not a prefix"),
            ("s3://bucket/a b", "not a prefix"),
            ("s3://bucket/../x/é", "not a prefix"),
            ("s3://AKIA:hunter2@bucket/x", "no place in the URL"),
            ("s3://bucket:9000/x", "?endpoint="),
            ("s3://bucket/x?endpoint=minio:9000", "not an endpoint"),
            ("s3://bucket/x?endpoint=https://u:hunter2@h", "no user or password"),
            ("s3://bucket/x?endpoint=https://h/path", "not an endpoint"),
            ("s3://bucket/x?provider=gcs", "versitygw"),
            ("s3://bucket/x?path_style=1", "true or false"),
            ("s3://bucket/x?secret_key=hunter2", "has no meaning"),
            ("http://bucket/x", "s3://bucket/prefix"),
        ] {
            let why = S3Place::parse_url(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn endpoints_tell_the_provider() {
        for (endpoint, provider) in [
            (None, S3Provider::Aws),
            (Some("https://s3.eu-central-1.amazonaws.com"), S3Provider::Aws),
            (Some("https://0abc.r2.cloudflarestorage.com"), S3Provider::R2),
            (Some("https://s3.us-west-004.backblazeb2.com"), S3Provider::B2),
            (Some("https://s3.fr-par.scw.cloud"), S3Provider::Scaleway),
            (Some("http://127.0.0.1:9000"), S3Provider::Other),
        ] {
            assert_eq!(S3Provider::of_endpoint(endpoint), provider, "{endpoint:?}");
        }
        for (provider, name) in PROVIDERS {
            assert_eq!((S3Provider::parse(name), provider.name()), (Some(provider), name));
        }
    }
}
