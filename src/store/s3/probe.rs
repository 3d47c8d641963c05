//! Tries out what a bucket does, with the keys at hand (FAULTS 38 and incident 50). Some look-alikes answer 200 to `If-None-Match: *` and
//! overwrite, or to a wrong checksum and store it.
//!
//! ```text
//! probe/create-only       created twice; stays (FORMAT rule 16); then once more by a multipart upload
//! probe/scratch           overwritten with a right and a wrong checksum, listed, read in part; stays
//! jobs/probe/sets/none    deleted, and never there
//! ```
//! Some fifteen small requests. An answer that takes a permission which these keys lack is [`Answer::Unknown`].

use std::sync::Arc;

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockRetentionMode};
use bytes::Bytes;

use crate::error::{Kind, Result};
use crate::store::Body;
use crate::store::probe::{PROBE_KEY, honours_create_only};
use crate::store::profile::{Answer, Checksum, Lock, StoreProfile};
use crate::store::s3::checksum::Algorithm;
use crate::store::s3::fail::{Class, Doing, Failure, failure};
use crate::store::s3::steps::Unheard;
use crate::store::s3::{Inner, S3Store};

/// The one key that is overwritten.
const SCRATCH_KEY: &str = "probe/scratch";

/// A key among those of sets, which no set has.
const ABSENT_KEY: &str = "jobs/probe/sets/none";

/// Never the same bytes twice: after a lost answer equal ones would pass for our own.
fn fresh() -> Bytes {
    let pad = "~".repeat(rand::random_range(1..400));
    Bytes::from(format!("drctl asks here what this store does. {:016x} {pad}\n", rand::random::<u64>()))
}

/// A refusal is an answer; whatever may pass is none.
fn refused(failed: &Failure) -> bool {
    !failed.error.kind().retryable() && failed.class != Class::Passing
}

impl Inner {
    /// Tries everything. An error means that nothing could be learnt: the store is not there, or takes nothing from these keys.
    pub async fn try_out(self: &Arc<Self>) -> Result<StoreProfile> {
        let create_only = honours_create_only(&S3Store(Arc::clone(self))).await?.into();
        let versioning = self.versioning().await?;
        let mut found = StoreProfile {
            create_only,
            versioning,
            ranges: self.answers_ranges().await?,
            may_delete: self.may_delete(versioning).await?,
            lock: self.lock().await?,
            ..StoreProfile::default()
        };
        found.checksum = self.checksum().await?;
        let by = match found.checksum {
            Checksum::Crc64nvme => Algorithm::Crc64Nvme,
            Checksum::Crc32c => Algorithm::Crc32c,
            Checksum::None => Algorithm::None,
            Checksum::Unknown => self.profile.checksum,
        };
        let with = self.with_checksum(by);
        (found.may_overwrite, found.lists_at_once) = with.overwrites_and_lists().await?;
        found.create_only_multipart = match with.put_by_parts(PROBE_KEY, fresh()).await {
            Ok(()) => Answer::No,
            Err(error) if error.kind() == Kind::Exists => Answer::Yes,
            Err(error) if error.kind().retryable() => return Err(error.context("probe the store by a multipart upload")),
            Err(_) => Answer::Unknown,
        };
        Ok(found)
    }

    /// The strongest checksum that the store takes, gives back, and refuses when it is wrong.
    async fn checksum(self: &Arc<Self>) -> Result<Checksum> {
        match self.create(SCRATCH_KEY, Body::of(fresh())).await {
            Err(error) if error.kind() != Kind::Exists => return Err(error.context("probe the store")),
            _ => {}
        }
        for (algorithm, name) in [(Algorithm::Crc64Nvme, Checksum::Crc64nvme), (Algorithm::Crc32c, Checksum::Crc32c)] {
            let bytes = fresh();
            match self.overwrite(algorithm, &bytes, &bytes).await {
                Ok(()) => {}
                // It may not be overwritten, with no checksum at all.
                Err(failed) if failed.error.kind() == Kind::Denied => return Ok(Checksum::Unknown),
                Err(failed) if refused(&failed) => continue,
                Err(failed) => return Err(failed.error),
            }
            let stored = self.with_checksum(algorithm).look(SCRATCH_KEY).await?;
            if stored.checksum.as_deref() != algorithm.of(&bytes).text() {
                continue;
            }
            match self.overwrite(algorithm, &bytes, &fresh()).await {
                Err(failed) if refused(&failed) => return Ok(name),
                Err(failed) => return Err(failed.error),
                Ok(()) => {}
            }
        }
        Ok(Checksum::None)
    }

    /// Puts `bytes` over the scratch key with the checksum of `summed`.
    async fn overwrite(&self, algorithm: Algorithm, summed: &Bytes, bytes: &Bytes) -> Result<(), Failure> {
        let doing = Doing { verb: "probe", object: SCRATCH_KEY, place: &self.short, permission: "s3:PutObject" };
        let checksum = algorithm.of(summed);
        let step = || async {
            let request = self.client.put_object().bucket(&self.place.bucket).key(self.full(SCRATCH_KEY));
            let request = request.body(ByteStream::from(bytes.clone())).content_length(bytes.len() as i64);
            let request = request.set_checksum_crc64_nvme(checksum.crc64_nvme()).set_checksum_crc32_c(checksum.crc32c());
            request.send().await.map(|_| ()).map_err(|e| match failure(e, &doing) {
                // Meant to be refused, and not tried again.
                Failure { class: Class::Garbled, error } if summed != bytes => Failure::new(Class::Final, error),
                failed => failed,
            })
        };
        self.again(&doing, self.settings.stall, &Unheard::default(), step).await
    }

    /// Whether these keys may overwrite, and whether a listing shows at once that they did.
    async fn overwrites_and_lists(&self) -> Result<(Answer, Answer)> {
        let bytes = fresh();
        match self.overwrite(self.profile.checksum, &bytes, &bytes).await {
            Ok(()) => {}
            Err(failed) if failed.error.kind() == Kind::Denied => return Ok((Answer::No, Answer::Unknown)),
            Err(failed) if refused(&failed) => return Ok((Answer::Unknown, Answer::Unknown)),
            Err(failed) => return Err(failed.error),
        }
        let listed = self.entries(SCRATCH_KEY, None, 1).await?;
        let shown = listed.first().is_some_and(|entry| entry.key == SCRATCH_KEY && entry.bytes == bytes.len() as u64);
        Ok((Answer::Yes, shown.into()))
    }

    async fn answers_ranges(&self) -> Result<Answer> {
        // Every text that drctl ever put there begins alike.
        match self.read(PROBE_KEY, 1, 4).await {
            Ok(bytes) => Ok((&bytes[..] == b"rctl").into()),
            Err(error) if matches!(error.kind(), Kind::Unsupported | Kind::Corrupt) => Ok(Answer::No),
            Err(error) if error.kind() == Kind::Denied => Ok(Answer::Unknown),
            Err(error) => Err(error.context("probe the store")),
        }
    }

    /// Deletes what is not there. Where versions are kept, a version: a plain delete would only hide the object, and leave a mark each time.
    async fn may_delete(&self, versioning: Answer) -> Result<Answer> {
        let doing = Doing { verb: "probe a delete", object: ABSENT_KEY, place: &self.short, permission: "s3:DeleteObject" };
        let version = (versioning == Answer::Yes).then(|| "null".to_owned());
        let step = || async {
            let request = self.client.delete_object().bucket(&self.place.bucket).key(self.full(ABSENT_KEY));
            request.set_version_id(version.clone()).send().await.map(|_| ()).map_err(|e| failure(e, &doing))
        };
        match self.again(&doing, self.settings.stall, &Unheard::default(), step).await {
            Ok(()) | Err(Failure { class: Class::Missing, .. }) => Ok(Answer::Yes),
            Err(failed) if failed.error.kind() == Kind::Denied => Ok(Answer::No),
            Err(failed) if refused(&failed) => Ok(Answer::Unknown),
            Err(failed) => Err(failed.error),
        }
    }

    async fn versioning(&self) -> Result<Answer> {
        let doing = Doing { verb: "ask for the versioning of", object: "", place: &self.short, permission: "s3:GetBucketVersioning" };
        let step = || async {
            let answer = self.client.get_bucket_versioning().bucket(&self.place.bucket).send().await.map_err(|e| failure(e, &doing))?;
            Ok(Answer::from(answer.status == Some(BucketVersioningStatus::Enabled)))
        };
        match self.again(&doing, self.settings.stall, &Unheard::default(), step).await {
            Err(failed) if refused(&failed) => Ok(Answer::Unknown),
            other => Ok(other?),
        }
    }

    async fn lock(&self) -> Result<Lock> {
        let permission = "s3:GetBucketObjectLockConfiguration";
        let doing = Doing { verb: "ask for the object lock of", object: "", place: &self.short, permission };
        let step = || async {
            let answer = match self.client.get_object_lock_configuration().bucket(&self.place.bucket).send().await {
                Ok(answer) => answer,
                Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => return Ok(Lock::None),
                Err(error) => return Err(failure(error, &doing)),
            };
            let Some(lock) = answer.object_lock_configuration.filter(|lock| lock.object_lock_enabled.is_some()) else {
                return Ok(Lock::None);
            };
            let Some(rule) = lock.rule.and_then(|rule| rule.default_retention) else { return Ok(Lock::Possible) };
            let number = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
            let days = number(rule.days).saturating_add(number(rule.years).saturating_mul(365));
            Ok(Lock::Default { compliance: rule.mode == Some(ObjectLockRetentionMode::Compliance), days })
        };
        match self.again(&doing, self.settings.stall, &Unheard::default(), step).await {
            Err(failed) if refused(&failed) => Ok(Lock::Unknown),
            other => Ok(other?),
        }
    }
}
