//! A store in a bucket.

use super::Scope;
use super::reference::{secret, text};
use crate::config::raw::RawS3;
use crate::config::s3::{S3Keys, S3Place, S3Provider, check_bucket, check_endpoint, check_prefix, provider_names};
use crate::config::values;

/// The place, or `None` when a finding stands in the way.
pub fn s3(scope: &Scope<'_>, raw: &RawS3) -> Option<S3Place> {
    let bucket = raw.bucket.as_ref().filter(|name| scope.key("bucket").take(check_bucket(name)).is_some());
    let prefix = match &raw.prefix {
        Some(text) => scope.key("prefix").take(check_prefix(text)),
        None => Some(String::new()),
    };
    let endpoint = raw.endpoint.as_ref().map(|text| scope.key("endpoint").take(check_endpoint(text)));
    let provider = raw.provider.as_ref().map(|name| {
        let found = S3Provider::parse(name).ok_or_else(|| format!("there is no provider '{name}'; known are: {}", provider_names()));
        scope.key("provider").take(found)
    });
    let ca_file = raw.ca_file.as_ref().map(|text| scope.key("ca_file").path(text));
    let bandwidth = raw.bandwidth.as_ref().map(|text| {
        let scope = scope.key("bandwidth");
        let size = scope.take(values::size(text))?;
        if size < MIN_BANDWIDTH {
            scope.error("less than 1KiB a second cannot carry a backup");
            return None;
        }
        Some(size)
    });
    let keys = keys(scope, raw);
    Some(S3Place {
        bucket: bucket?.clone(),
        prefix: prefix?,
        region: raw.region.clone(),
        endpoint: whole(endpoint)?,
        provider: whole(provider)?,
        path_style: raw.path_style,
        profile: raw.profile.clone(),
        keys: keys?,
        ca_file: whole(ca_file)?,
        bandwidth: whole(bandwidth)?,
    })
}

/// Smallest limit, in bytes a second.
const MIN_BANDWIDTH: u64 = 1 << 10;

/// Not there is good; there and wrong is not.
fn whole<T>(found: Option<Option<T>>) -> Option<Option<T>> {
    match found {
        None => Some(None),
        Some(found) => found.map(Some),
    }
}

fn keys(scope: &Scope<'_>, raw: &RawS3) -> Option<Option<S3Keys>> {
    if raw.access_key.is_none() && raw.secret_key.is_none() && raw.session_token.is_none() {
        return Some(None);
    }
    if raw.access_key.is_none() || raw.secret_key.is_none() {
        scope.error("access_key and secret_key belong together; without both, AWS_* variables, profile or role are used");
        return None;
    }
    if raw.profile.is_some() {
        scope.key("profile").error("is not looked at beside access_key and secret_key; take one of them away");
    }
    let access_key = text(&scope.key("access_key"), raw.access_key.as_ref());
    let secret_key = secret(&scope.key("secret_key"), raw.secret_key.as_ref());
    let session_token = raw.session_token.as_ref().map(|raw| secret(&scope.key("session_token"), Some(raw)));
    Some(Some(S3Keys { access_key: access_key?, secret_key: secret_key?, session_token: whole(session_token)? }))
}
