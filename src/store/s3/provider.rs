//! What each provider's S3 can do, as far as drctl relies on it before it has probed.
//!
//! | provider | checksum | create-only put, complete | path style | region | sources |
//! |---|---|---|---|---|---|
//! | aws | CRC64NVME of the whole | yes, yes | no | `AWS_REGION` | S3 user guide, "Checking object integrity", "Conditional writes" |
//! | minio | CRC64NVME of the whole | yes, yes | yes | us-east-1 | minio/minio#20855 (releases from February 2025 on) |
//! | r2 | CRC64NVME of the whole | yes, yes | yes | auto | R2 documentation, "S3 API compatibility", "Conditional operations" (from July 2025 on) |
//! | b2 | none | not told | yes | of the endpoint | B2 documentation, "S3-Compatible API": neither is listed |
//! | ceph | none | not told | yes | us-east-1 | versions differ: trailing and flexible checksums came with Squid and Tentacle; fleetdm/fleet#47850 |
//! | scaleway | none | yes, not told | yes | of the endpoint | "Using conditional writes" (July 2026), "Managing multipart uploads" (1,000 parts) |
//! | versitygw | CRC64NVME of the whole | yes, yes | yes | us-east-1 | tried, version 1.8.0; versity/versitygw#1182 |
//! | other | none | not told | yes | us-east-1 | – |
//!
//! `If-None-Match: *` is always sent: a store that does not know it ignores it, and what then holds is found out by the probe, not believed from
//! this table. Where no checksum is honoured, the SHA-256 of every body is part of the signed request instead, which all of them check.

use crate::config::s3::S3Provider;
use crate::store::s3::checksum::Algorithm;

/// What is known of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The checksum that is sent with every body and asked for again.
    pub checksum: Algorithm,
    /// The bucket's name in the path.
    pub path_style: bool,
    /// The region where none is told.
    pub region: &'static str,
    /// Most parts of one upload.
    pub most_parts: usize,
}

/// The profile of a provider.
pub fn profile(provider: S3Provider) -> Profile {
    let (checksum, path_style, region, most_parts) = match provider {
        S3Provider::Aws => (Algorithm::Crc64Nvme, false, "us-east-1", 10_000),
        S3Provider::R2 => (Algorithm::Crc64Nvme, true, "auto", 10_000),
        S3Provider::Minio | S3Provider::Versitygw => (Algorithm::Crc64Nvme, true, "us-east-1", 10_000),
        S3Provider::Scaleway => (Algorithm::None, true, "fr-par", 1000),
        S3Provider::B2 | S3Provider::Ceph | S3Provider::Other => (Algorithm::None, true, "us-east-1", 10_000),
    };
    Profile { checksum, path_style, region, most_parts }
}

/// The region that an endpoint's name tells: `https://s3.fr-par.scw.cloud`, `https://s3.us-west-004.backblazeb2.com`.
pub fn region_of(endpoint: &str) -> Option<String> {
    let host = url::Url::parse(endpoint).ok()?.host_str()?.to_owned();
    let inner = [".scw.cloud", ".backblazeb2.com", ".amazonaws.com"].iter().find_map(|end| host.strip_suffix(end))?;
    let region = inner.rsplit('.').next()?;
    (region.contains('-') && region != "s3").then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_stand_in_the_names_of_endpoints() {
        for (endpoint, region) in [
            ("https://s3.fr-par.scw.cloud", Some("fr-par")),
            ("https://s3.us-west-004.backblazeb2.com", Some("us-west-004")),
            ("https://s3.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("https://s3.amazonaws.com", None),
            ("http://127.0.0.1:7070", None),
            ("https://minio.example.org", None),
        ] {
            assert_eq!(region_of(endpoint).as_deref(), region, "{endpoint}");
        }
    }

    #[test]
    fn an_object_fits_every_provider() {
        // Objects have at most 900 parts (pipeline::split).
        for provider in [S3Provider::Aws, S3Provider::Scaleway, S3Provider::Other, S3Provider::B2] {
            assert!(profile(provider).most_parts >= 900);
        }
    }
}
