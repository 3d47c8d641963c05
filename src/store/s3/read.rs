//! Reading: ranges whose length is checked, heads, listings in order.

use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::ChecksumMode;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::error::{Error, Kind, Result};
use crate::store::s3::Inner;
use crate::store::s3::checksum::Algorithm;
use crate::store::s3::fail::{Class, Doing, Failure, chain, failure};
use crate::store::s3::steps::Unheard;
use crate::store::{Entry, Head, check_key};

/// Largest page of a listing (ListObjectsV2).
const PAGE: usize = 1000;

/// A head with the checksum that the store keeps, as it writes it.
pub struct Stored {
    /// Size and date.
    pub head: Head,
    /// The checksum in the provider's algorithm.
    pub checksum: Option<String>,
}

impl Inner {
    fn doing<'a>(&'a self, verb: &'a str, object: &'a str, permission: &'a str) -> Doing<'a> {
        Doing { verb, object, place: &self.short, permission }
    }

    /// Exactly the bytes asked for. What came of a try that broke off is kept; the next asks for the rest of the very same object.
    pub async fn read(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        let Some(end) = offset.checked_add(length).filter(|end| length > 0 && i64::try_from(*end).is_ok()) else {
            // An empty range, or one that no object can have and some stores cannot read.
            let bytes = self.look(key).await?.head.bytes;
            return if length == 0 && offset <= bytes { Ok(Bytes::new()) } else { Err(too_short(key, bytes, offset, length)) };
        };
        let doing = self.doing("read", key, "s3:GetObject");
        let got: Mutex<(BytesMut, Option<String>)> = Mutex::default();
        let step = || async {
            let mut got = got.lock().await;
            self.read_on(key, (offset, end), &mut got, &doing).await
        };
        // Each wait for bytes has its own limit.
        self.again(&doing, Duration::MAX, &Unheard::default(), step).await?;
        let (bytes, _) = got.into_inner();
        Ok(bytes.freeze())
    }

    async fn read_on(
        &self,
        key: &str,
        (offset, end): (u64, u64),
        (bytes, etag): &mut (BytesMut, Option<String>),
        doing: &Doing<'_>,
    ) -> Result<(), Failure> {
        let from = offset + bytes.len() as u64;
        let mut request =
            self.client.get_object().bucket(&self.place.bucket).key(self.full(key)).range(format!("bytes={from}-{}", end - 1));
        if let Some(etag) = etag {
            request = request.if_match(etag.as_str());
        }
        let answer = match tokio::time::timeout(self.settings.stall, request.send()).await {
            Err(_) => return Err(self.stalled(doing)),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.raw_response().is_some_and(|r| r.status().as_u16() == 416) => {
                return Err(Failure::new(Class::Final, Error::corrupt(format!("{key} ends before {offset}+{}", end - offset))));
            }
            Ok(Err(error)) => {
                let failed = failure(error, doing);
                return Err(match failed.class {
                    // The condition of our own: the object changed between two tries.
                    Class::Taken => Failure::new(Class::Final, Error::corrupt(format!("{key} changed while it was read"))),
                    _ => failed,
                });
            }
        };
        self.check_range(key, &answer, (offset, from, end))?;
        if etag.is_none() {
            *etag = answer.e_tag.clone();
        }
        let wanted =
            usize::try_from(end - offset).map_err(|_| Failure::new(Class::Final, Error::corrupt(format!("{key}: no such range"))))?;
        // Believed only now: the store has said that it sends as much.
        bytes.reserve(wanted - bytes.len());
        let mut body = answer.body;
        loop {
            match tokio::time::timeout(self.settings.stall, body.next()).await {
                Err(_) => return Err(self.stalled(doing)),
                Ok(Some(Ok(chunk))) if chunk.len() > wanted - bytes.len() => {
                    return Err(Failure::new(Class::Final, Error::corrupt(format!("{key}: more bytes came than were asked for"))));
                }
                Ok(Some(Ok(chunk))) => bytes.extend_from_slice(&chunk),
                Ok(Some(Err(error))) => {
                    let text = format!("{}: broke off after {} of {wanted} bytes: {}", doing.text(), bytes.len(), chain(&error));
                    return Err(Failure::new(Class::Passing, Error::new(Kind::Unreachable, text)));
                }
                Ok(None) if bytes.len() == wanted => return Ok(()),
                Ok(None) => return Err(short(doing, bytes.len(), wanted)),
            }
        }
    }

    /// Whether the answer is about the range asked for. One that says it is shorter is asked for again (awslabs/aws-sdk-rust#1079).
    fn check_range(&self, key: &str, answer: &GetObjectOutput, (offset, from, end): (u64, u64, u64)) -> Result<(), Failure> {
        let told = answer.content_range.as_deref().and_then(content_range);
        match told {
            Some((_, _, total)) if total < end => Err(Failure::new(Class::Final, too_short(key, total, offset, end - offset))),
            Some((first, last, _)) if first == from && last == end - 1 => Ok(()),
            Some((first, last, _)) if first == from && last < end - 1 => {
                Err(short(&self.doing("read", key, ""), 1 + (last - first) as usize, (end - from) as usize))
            }
            None if from == 0 && answer.content_length == i64::try_from(end).ok() => Ok(()),
            _ => {
                let error = Error::new(
                    Kind::Unsupported,
                    format!("read {key} at {}: the store does not answer with the range asked for", self.short),
                );
                // A proxy in between may have answered for once; a store that never does is told after the last try.
                Err(Failure::new(Class::Passing, error))
            }
        }
    }

    fn stalled(&self, doing: &Doing<'_>) -> Failure {
        let text = format!("{}: nothing came for {} s", doing.text(), self.settings.stall.as_secs_f32());
        Failure::new(Class::Passing, Error::new(Kind::Unreachable, text))
    }

    /// Size, date and checksum of an object.
    pub async fn look(&self, key: &str) -> Result<Stored, Failure> {
        let doing = self.doing("look at", key, "s3:GetObject");
        self.again(&doing, self.settings.stall, &Unheard::default(), || self.look_once(key, &doing)).await
    }

    async fn look_once(&self, key: &str, doing: &Doing<'_>) -> Result<Stored, Failure> {
        let mut request = self.client.head_object().bucket(&self.place.bucket).key(self.full(key));
        if self.profile.checksum != Algorithm::None {
            request = request.checksum_mode(ChecksumMode::Enabled);
        }
        match request.send().await {
            Ok(head) => stored(key, &head, self.profile.checksum),
            Err(error) if error.raw_response().is_some_and(|r| r.status().as_u16() == 404) => Err(self.missing(key, doing).await),
            Err(error) => Err(failure(error, doing)),
        }
    }

    /// What a 404 to a HEAD means: it has no body, so the object is asked for, whose answer tells a missing object from a missing bucket.
    async fn missing(&self, key: &str, doing: &Doing<'_>) -> Failure {
        match self.client.get_object().bucket(&self.place.bucket).key(self.full(key)).range("bytes=0-0").send().await {
            Err(error) => match failure(error, doing) {
                Failure { class: Class::Missing, .. } => Failure::new(Class::Missing, missing(key)),
                failed => failed,
            },
            Ok(_) => {
                let text = format!("{}: the store says that it is not there, and sends it", doing.text());
                Failure::new(Class::Passing, Error::new(Kind::Unreachable, text))
            }
        }
    }

    /// Entries of a listing; see [`crate::store::Store::list`].
    pub async fn entries(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-' | b'/');
        if limit == 0 || !prefix.bytes().all(legal) {
            return Ok(Vec::new());
        }
        let doing = self.doing("list", prefix, "s3:ListBucket");
        let mut all: Vec<Entry> = Vec::new();
        let mut last = after.filter(|a| !a.is_empty()).map(str::to_owned);
        loop {
            let step = || self.page(prefix, last.as_deref(), limit - all.len(), &doing);
            let (page, next) = self.again(&doing, self.settings.stall, &Unheard::default(), step).await?;
            for entry in page {
                // What other programs put here is none of ours: drctl makes no such keys.
                let ours = check_key(&entry.key).is_ok() && after.is_none_or(|a| entry.key.as_str() > a);
                if ours && all.last().is_some_and(|l| l.key >= entry.key) {
                    return Err(out_of_order(&doing, &entry.key));
                }
                if ours && all.len() < limit {
                    all.push(entry);
                }
            }
            match next {
                Some(next) if all.len() < limit => {
                    if last.as_ref().is_some_and(|l| next <= *l) {
                        return Err(out_of_order(&doing, &next));
                    }
                    last = Some(next);
                }
                _ => return Ok(all),
            }
        }
    }

    /// One page, and where the next begins if there is one. The next page starts behind the last key and not by the store's token: a token may
    /// be lost or lie (FAULTS 32).
    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        doing: &Doing<'_>,
    ) -> Result<(Vec<Entry>, Option<String>), Failure> {
        let mut request = self.client.list_objects_v2().bucket(&self.place.bucket).prefix(self.full(prefix));
        request = request.max_keys(i32::try_from(limit.min(PAGE)).unwrap_or(1000));
        if let Some(after) = after {
            request = request.start_after(self.full(after));
        }
        let answer = request.send().await.map_err(|e| failure(e, doing))?;
        let mut page = Vec::new();
        let mut last = None;
        for object in answer.contents.unwrap_or_default() {
            let key = object.key.unwrap_or_default();
            let Some(key) = self.own(&key).filter(|k| k.starts_with(prefix)) else {
                let text = format!("{}: the store lists '{}', which was not asked for", doing.text(), key.escape_debug());
                return Err(Failure::new(Class::Final, Error::corrupt(text)));
            };
            let bytes = object.size.and_then(|s| u64::try_from(s).ok());
            let (Some(bytes), Some(modified)) = (bytes, object.last_modified.as_ref().and_then(timestamp)) else {
                let text = format!("{}: the store tells no size or date of {}", doing.text(), key.escape_debug());
                return Err(Failure::new(Class::Final, Error::corrupt(text)));
            };
            last = Some(key.to_owned());
            page.push(Entry { key: key.to_owned(), bytes, modified });
        }
        let more = answer.is_truncated.unwrap_or(false);
        Ok((page, last.filter(|_| more)))
    }

    /// Now, by the store's clock: the date of its answer to a listing of one.
    pub async fn date(&self) -> Result<Timestamp> {
        let doing = self.doing("ask for the date", "", "s3:ListBucket");
        let step = || async {
            let date = super::date::DateOfAnswer::default();
            let request = self.client.list_objects_v2().bucket(&self.place.bucket).prefix(self.full("")).max_keys(1);
            request.customize().interceptor(date.clone()).send().await.map_err(|e| failure(e, &doing))?;
            date.get().ok_or_else(|| {
                let text = format!("{}: the store tells no date", doing.text());
                Failure::new(
                    Class::Final,
                    Error::new(Kind::Unsupported, text).hint("is a proxy in between that takes the Date header away?"),
                )
            })
        };
        Ok(self.again(&doing, self.settings.stall, &Unheard::default(), step).await?)
    }

    /// Deletes an object.
    pub async fn remove(&self, key: &str) -> Result<()> {
        let doing = self.doing("delete", key, "s3:DeleteObject");
        let step = || async {
            let request = self.client.delete_object().bucket(&self.place.bucket).key(self.full(key));
            match request.send().await.map_err(|e| failure(e, &doing)) {
                Ok(_) | Err(Failure { class: Class::Missing, .. }) => Ok(()),
                Err(failed) => Err(failed),
            }
        };
        Ok(self.again(&doing, self.settings.stall, &Unheard::default(), step).await?)
    }
}

fn stored(key: &str, head: &HeadObjectOutput, algorithm: Algorithm) -> Result<Stored, Failure> {
    let bytes = head.content_length.and_then(|l| u64::try_from(l).ok());
    let (Some(bytes), Some(modified)) = (bytes, head.last_modified.as_ref().and_then(timestamp)) else {
        // No store of its own does so: something in between answered.
        return Err(Failure::new(Class::Passing, Error::corrupt(format!("the store tells no size or date of {key}"))));
    };
    let checksum = match algorithm {
        Algorithm::Crc64Nvme => head.checksum_crc64_nvme.clone(),
        Algorithm::Crc32c => head.checksum_crc32_c.clone(),
        Algorithm::None => None,
    };
    Ok(Stored { head: Head { bytes, modified, sha256: None }, checksum })
}

fn timestamp(at: &DateTime) -> Option<Timestamp> {
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).ok()?).ok()
}

/// `bytes 0-9/100`.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (first.trim().parse().ok()?, last.trim().parse().ok()?, total.trim().parse().ok()?);
    (first <= last && last < total).then_some((first, last, total))
}

fn short(doing: &Doing<'_>, got: usize, wanted: usize) -> Failure {
    Failure::new(Class::Passing, Error::corrupt(format!("{}: the answer ended after {got} of {wanted} bytes", doing.text())))
}

fn out_of_order(doing: &Doing<'_>, key: &str) -> Error {
    Error::corrupt(format!("{}: the store's listing is not in order at {}", doing.text(), key.escape_debug()))
        .hint("drctl needs listings in byte order, as S3 gives them; directory buckets do not")
}

fn too_short(key: &str, bytes: u64, offset: u64, length: u64) -> Error {
    Error::corrupt(format!("{key} has {bytes} bytes, {offset}+{length} were asked for"))
}

fn missing(key: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0, 9, 100)));
        for bad in ["", "bytes */100", "bytes 9-0/100", "bytes 0-100/100", "0-9/100", "bytes 0-9/*", "bytes 0-9", "bytes -1-2/3"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
