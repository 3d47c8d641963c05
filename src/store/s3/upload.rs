//! Writing: a stream of unknown length becomes one PUT, or a multipart upload of equal parts; create-only either way.
//!
//! ```text
//! ≤ 8 MiB   PutObject            If-None-Match: *, checksum, one request
//! more      CreateMultipartUpload · UploadPart × n, a few at once · (length and SHA-256 judged) · CompleteMultipartUpload If-None-Match: * · HEAD
//! ```
//! Nothing is visible before the last request. When an answer is lost, what stands under the key decides: the very same bytes are ours (rule 1).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use crate::error::{Error, Kind, Result};
use crate::model::Sha256;
use crate::model::digest::Hasher;
use crate::store::s3::Inner;
use crate::store::s3::buffers::Buffer;
use crate::store::s3::checksum::{Algorithm, Checksum, Whole};
use crate::store::s3::fail::{Class, Doing, Failure, failure};
use crate::store::s3::steps::Unheard;
use crate::store::s3::sweep::OpenUpload;
use crate::store::{Body, Piece, wrong_end};

/// Length of every part but the last: equal parts of this size keep every look-alike content (DESIGN §4).
pub const PART_BYTES: usize = 8 << 20;

/// Up to this length an object is collected in memory of its own size: records and leases must not wait for, or take, a buffer of a part.
const SMALL_BYTES: usize = 1 << 20;

/// Slowest link that an upload is meant to work over, in bytes a second for each part on its way; slower counts as a lost answer.
const SLOWEST: u64 = 32 << 10;

/// What a finished object must be.
#[derive(Clone, Debug)]
struct Expected {
    bytes: u64,
    sha256: Sha256,
    /// Of the whole, as the store writes it.
    checksum: Checksum,
}

/// What is taken along while a body comes, to be held against its end.
enum Seen {
    Hash(Hasher),
    /// The checksum that the store will check is compared with the one that the end tells: it spans all the way from where the bytes were made
    /// to the store's disk, and hashing them once more costs a fifth of a core.
    Checksum,
}

impl Seen {
    fn of(body: &Body, algorithm: Algorithm) -> Seen {
        if body.is_summed() && algorithm == Algorithm::Crc64Nvme { Seen::Checksum } else { Seen::Hash(Sha256::hasher()) }
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Seen::Hash(hasher) = self {
            hasher.update(bytes);
        }
    }

    /// Whether that is what the end tells; `checksum` is that of all that goes to the store.
    fn is(self, sha256: Sha256, crc64_nvme: Option<u64>, checksum: &Checksum) -> bool {
        match self {
            Seen::Hash(hasher) => hasher.finish() == sha256,
            Seen::Checksum => crc64_nvme.is_some_and(|told| Algorithm::known(told).text() == checksum.text()),
        }
    }
}

impl Inner {
    /// Longest time one request with so many bytes may take.
    fn send_limit(&self, bytes: usize) -> Duration {
        self.settings.stall + Duration::from_secs(bytes as u64 / SLOWEST)
    }

    /// Creates an object; see [`crate::store::Store::put`].
    pub async fn create(self: &Arc<Self>, key: &str, mut body: Body) -> Result<()> {
        let mut content = Seen::of(&body, self.profile.checksum);
        let mut seen = 0u64;
        let mut small = BytesMut::new();
        let mut part: Option<Buffer> = None;
        let next = loop {
            match body.next().await? {
                Piece::Data(bytes) => {
                    if part.is_none() && small.len() + bytes.len() > SMALL_BYTES {
                        let mut first = self.buffer(key).await?;
                        first.push(&std::mem::take(&mut small));
                        part = Some(first);
                    }
                    if part.as_ref().is_some_and(|part| part.room() < bytes.len()) {
                        break bytes;
                    }
                    content.update(&bytes);
                    seen += bytes.len() as u64;
                    match &mut part {
                        Some(part) => part.push(&bytes),
                        None => small.extend_from_slice(&bytes),
                    }
                }
                Piece::End { bytes, sha256, crc64_nvme } => {
                    let whole = part.map_or_else(|| small.freeze(), Buffer::freeze);
                    let checksum = self.profile.checksum.of(&whole);
                    if seen != bytes || !content.is(sha256, crc64_nvme, &checksum) {
                        return Err(wrong_end(key));
                    }
                    return self.put_one(key, whole, sha256, checksum).await;
                }
            }
        };
        let mut upload = Upload::begin(self, key).await?;
        let sent = upload.stream(&mut body, Filling { content, seen, part }, next).await;
        upload.end(sent).await
    }

    /// A small object by a multipart upload of one part, as only the probe wants it.
    pub async fn put_by_parts(self: &Arc<Self>, key: &str, bytes: Bytes) -> Result<()> {
        let mut upload = Upload::begin(self, key).await?;
        let (length, sha256) = (bytes.len() as u64, Sha256::of(&bytes));
        let sent = match upload.send(bytes).await {
            Ok(()) => upload.one_sent().await,
            Err(error) => Err(error),
        };
        let expected = Expected { bytes: length, sha256, checksum: upload.whole.multipart() };
        upload.end(sent.map(|()| expected)).await
    }

    /// A buffer for the next part of `key`: one is free as soon as a part on its way is stored. Only waiting ends with the signal to stop: what
    /// is small goes on.
    async fn buffer(&self, key: &str) -> Result<Buffer> {
        tokio::select! {
            biased;
            buffer = self.buffers.take() => buffer,
            () = self.settings.cancel.cancelled() => Err(interrupted(key)),
        }
    }

    /// The whole object in one request.
    async fn put_one(&self, key: &str, bytes: Bytes, sha256: Sha256, checksum: Checksum) -> Result<()> {
        let doing = Doing { verb: "store", object: key, place: &self.short, permission: "s3:PutObject" };
        let expected = Expected { bytes: bytes.len() as u64, sha256, checksum };
        let unheard = Unheard::default();
        let step = || async {
            let request = self.client.put_object().bucket(&self.place.bucket).key(self.full(key)).if_none_match("*");
            let request = request.body(ByteStream::from(bytes.clone())).content_length(bytes.len() as i64);
            let request = request.set_checksum_crc64_nvme(expected.checksum.crc64_nvme()).set_checksum_crc32_c(expected.checksum.crc32c());
            let request = request.customize();
            let request = if self.signs_payload() { request } else { request.disable_payload_signing() };
            let answer = request.send().await.map_err(|e| failure(e, &doing))?;
            let told = self.profile.checksum.of_answer(answer.checksum_crc64_nvme, answer.checksum_crc32_c);
            same_checksum(key, told.as_deref(), &expected.checksum)
        };
        let outcome = self.again(&doing, self.send_limit(bytes.len()), &unheard, step).await;
        self.settle(key, outcome, &unheard, &expected).await
    }

    /// With a checksum that the store checks, on a line where nobody can change it, a SHA-256 of the body in the signature would prove nothing
    /// more and cost a core on both sides.
    fn signs_payload(&self) -> bool {
        !self.safe_line || self.profile.checksum == Algorithm::None
    }

    /// The end of a create whose last request ended so. Only what stands under the key tells whether an unanswered request did its work (rule 5).
    async fn settle(&self, key: &str, outcome: Result<(), Failure>, unheard: &Unheard, expected: &Expected) -> Result<()> {
        let failed = match outcome {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        // A vanished upload may have been completed by a request whose answer the SDK or a proxy swallowed.
        if !unheard.any() && failed.class != Class::NoUpload {
            return Err(failed.error);
        }
        let refused = !failed.error.kind().retryable();
        match self.holds(key, expected).await {
            Ok(true) => Ok(()),
            Ok(false) if failed.class == Class::Taken => Err(failed.error),
            // It is not there now, but a request that is still on its way may yet arrive.
            Ok(false) if refused && failed.class != Class::NoUpload => {
                let text = format!("{key} was sent before without an answer and may yet come to stand");
                Err(failed.error.with_kind(Kind::OutcomeUnknown).context(text))
            }
            Ok(false) => Err(failed.error),
            Err(_) if !refused => Err(failed.error),
            Err(why) => {
                let text = format!("{key} was sent before without an answer and may stand ({why})");
                Err(failed.error.with_kind(Kind::OutcomeUnknown).context(text))
            }
        }
    }

    /// Whether the very bytes expected stand under the key: by length and the store's checksum, else by reading them back.
    async fn holds(&self, key: &str, expected: &Expected) -> Result<bool> {
        let stored = match self.look(key).await {
            Ok(stored) => stored,
            Err(Failure { class: Class::Missing, .. }) => return Ok(false),
            Err(failed) => return Err(failed.error),
        };
        if stored.head.bytes != expected.bytes {
            return Ok(false);
        }
        if let (Some(theirs), Some(ours)) = (stored.checksum.as_deref(), expected.checksum.text()) {
            return Ok(theirs == ours);
        }
        let mut hasher = Sha256::hasher();
        let mut at = 0;
        while at < expected.bytes {
            let length = (expected.bytes - at).min(PART_BYTES as u64);
            hasher.update(&self.read(key, at, length).await?);
            at += length;
        }
        Ok(hasher.finish() == expected.sha256)
    }

    /// One part. The same number with the same bytes may be sent any number of times: the last one counts.
    async fn send_part(&self, key: &str, upload: &str, number: i32, bytes: Bytes, checksum: Checksum) -> Result<CompletedPart, Failure> {
        let object = format!("{key} (part {number})");
        let doing = Doing { verb: "store", object: &object, place: &self.short, permission: "s3:PutObject" };
        let step = || async {
            let request = self.client.upload_part().bucket(&self.place.bucket).key(self.full(key)).upload_id(upload).part_number(number);
            let request = request.body(ByteStream::from(bytes.clone())).content_length(bytes.len() as i64);
            let request = request.set_checksum_crc64_nvme(checksum.crc64_nvme()).set_checksum_crc32_c(checksum.crc32c());
            let request = request.customize();
            let request = if self.signs_payload() { request } else { request.disable_payload_signing() };
            let answer = request.send().await.map_err(|e| failure(e, &doing))?;
            let told = self.profile.checksum.of_answer(answer.checksum_crc64_nvme, answer.checksum_crc32_c);
            same_checksum(key, told.as_deref(), &checksum)?;
            let part = CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag);
            Ok(part.set_checksum_crc64_nvme(checksum.crc64_nvme()).set_checksum_crc32_c(checksum.crc32c()).build())
        };
        let sent = self.again(&doing, self.send_limit(bytes.len()), &Unheard::default(), step).await?;
        self.pace.went_well();
        Ok(sent)
    }
}

/// The checksum that the store answers with must be ours; one that answers with none is asked again at the end, by HEAD.
fn same_checksum(key: &str, told: Option<&str>, ours: &Checksum) -> Result<(), Failure> {
    match (told, ours.text()) {
        (Some(told), Some(ours)) if told != ours => {
            Err(Failure::new(Class::Garbled, Error::corrupt(format!("{key}: the store answers with checksum {told}, sent was {ours}"))))
        }
        _ => Ok(()),
    }
}

/// What came of a body so far: hash and length of all of it, and the part being filled.
struct Filling {
    content: Seen,
    seen: u64,
    /// Taken out while the next one is waited for.
    part: Option<Buffer>,
}

fn interrupted(key: &str) -> Error {
    Error::new(Kind::Interrupted, format!("stopped while {key} was being stored"))
}

/// A multipart upload that is open.
struct Upload {
    store: Arc<Inner>,
    open: OpenUpload,
    key: String,
    whole: Whole,
    sending: JoinSet<Result<CompletedPart, Failure>>,
    done: BTreeMap<i32, CompletedPart>,
    next: i32,
}

impl Upload {
    async fn begin(store: &Arc<Inner>, key: &str) -> Result<Upload> {
        let doing = Doing { verb: "begin to store", object: key, place: &store.short, permission: "s3:PutObject" };
        let step = || async {
            let mut request = store.client.create_multipart_upload().bucket(&store.place.bucket).key(store.full(key));
            match store.profile.checksum {
                Algorithm::Crc64Nvme => {
                    request = request.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::FullObject);
                }
                Algorithm::Crc32c => request = request.checksum_algorithm(ChecksumAlgorithm::Crc32C).checksum_type(ChecksumType::Composite),
                Algorithm::None => {}
            }
            let answer = request.send().await.map_err(|e| failure(e, &doing))?;
            answer
                .upload_id
                .filter(|id| !id.is_empty())
                .ok_or_else(|| Failure::new(Class::Final, Error::failed(format!("{}: the store gave no upload id", doing.text()))))
        };
        // An upload whose answer is lost stays open and empty until it is swept.
        let id = store.again(&doing, store.settings.stall, &Unheard::default(), step).await?;
        Ok(Upload {
            open: OpenUpload::new(store, key, id),
            store: store.clone(),
            key: key.to_owned(),
            whole: Whole::new(store.profile.checksum),
            sending: JoinSet::new(),
            done: BTreeMap::new(),
            next: 1,
        })
    }

    /// Sends all of the body and judges its end. Nothing is visible yet when it returns.
    async fn stream(&mut self, body: &mut Body, mut filling: Filling, next: Bytes) -> Result<Expected> {
        self.take(&mut filling, next).await?;
        loop {
            // A part that failed for good ends the upload now, not when the body ends.
            let piece = tokio::select! {
                biased;
                () = self.store.settings.cancel.cancelled() => return Err(interrupted(&self.key)),
                Some(sent) = self.sending.join_next() => {
                    self.note(sent)?;
                    continue;
                }
                piece = body.next() => piece?,
            };
            match piece {
                Piece::Data(bytes) => self.take(&mut filling, bytes).await?,
                Piece::End { bytes, sha256, crc64_nvme } => {
                    if let Some(last) = filling.part.take() {
                        self.send(last.freeze()).await?;
                    }
                    let checksum = self.whole.multipart();
                    if filling.seen != bytes || !filling.content.is(sha256, crc64_nvme, &checksum) {
                        return Err(wrong_end(&self.key));
                    }
                    while !self.sending.is_empty() {
                        self.one_sent().await?;
                    }
                    return Ok(Expected { bytes, sha256, checksum });
                }
            }
        }
    }

    /// Takes bytes in; a part is sent when it is full and more is there, so that none is ever empty.
    async fn take(&mut self, filling: &mut Filling, mut bytes: Bytes) -> Result<()> {
        filling.content.update(&bytes);
        filling.seen += bytes.len() as u64;
        loop {
            let mut part = match filling.part.take() {
                Some(part) => part,
                None => self.store.buffer(&self.key).await?,
            };
            let room = part.room();
            if bytes.len() <= room {
                part.push(&bytes);
                filling.part = Some(part);
                return Ok(());
            }
            part.push(&bytes.split_to(room));
            self.send(part.freeze()).await?;
        }
    }

    /// Sends one more part as soon as fewer than allowed are on their way.
    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        while self.sending.len() >= self.store.pace.now() {
            self.one_sent().await?;
        }
        let number = self.next;
        let most = self.store.profile.most_parts;
        if usize::try_from(number).is_ok_and(|n| n > most) {
            return Err(Error::failed(format!("{}: an object has at most {most} parts of {PART_BYTES} bytes here", self.key)));
        }
        self.next += 1;
        let checksum = self.whole.part(&bytes);
        let (store, key, id) = (self.store.clone(), self.key.clone(), self.open.id().to_owned());
        self.sending.spawn(async move { store.send_part(&key, &id, number, bytes, checksum).await });
        Ok(())
    }

    /// Waits for the next part to be stored, or for the signal to stop.
    async fn one_sent(&mut self) -> Result<()> {
        tokio::select! {
            biased;
            () = self.store.settings.cancel.cancelled() => Err(interrupted(&self.key)),
            Some(sent) = self.sending.join_next() => self.note(sent),
        }
    }

    fn note(&mut self, sent: std::result::Result<Result<CompletedPart, Failure>, tokio::task::JoinError>) -> Result<()> {
        let part = sent.map_err(|e| Error::failed(format!("storing a part of {} broke down", self.key)).because(e))??;
        self.done.insert(part.part_number.unwrap_or(0), part);
        Ok(())
    }

    /// Makes the object visible if all of it was sent; else, and when that fails, gives the upload up.
    async fn end(mut self, sent: Result<Expected>) -> Result<()> {
        let outcome = match sent {
            Ok(expected) => self.complete(&expected).await,
            Err(error) => Err(error),
        };
        // None may be on its way any more when the upload is aborted: a part that lands later would stay.
        self.sending.shutdown().await;
        match outcome {
            Ok(()) => {
                self.open.completed();
                Ok(())
            }
            Err(error) => {
                self.open.abort().await;
                Err(error)
            }
        }
    }

    async fn complete(&mut self, expected: &Expected) -> Result<()> {
        let store = self.store.clone();
        let key = self.key.clone();
        let doing = Doing { verb: "complete", object: &key, place: &store.short, permission: "s3:PutObject" };
        let parts: Vec<CompletedPart> = std::mem::take(&mut self.done).into_values().collect();
        let unheard = Unheard::default();
        let step = || async {
            let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.clone())).build();
            let request = store.client.complete_multipart_upload().bucket(&store.place.bucket).key(store.full(&key));
            let mut request = request.upload_id(self.open.id()).multipart_upload(parts).if_none_match("*");
            if store.profile.checksum == Algorithm::Crc64Nvme {
                let bytes = i64::try_from(expected.bytes).ok();
                request = request.checksum_type(ChecksumType::FullObject).set_mpu_object_size(bytes);
                request = request.set_checksum_crc64_nvme(expected.checksum.crc64_nvme());
            }
            let answer = request.send().await.map_err(|e| failure(e, &doing))?;
            let told = store.profile.checksum.of_answer(answer.checksum_crc64_nvme, answer.checksum_crc32_c);
            same_checksum(&key, told.as_deref(), &expected.checksum)
        };
        // The store may put thousands of parts together before it answers.
        let limit = store.settings.stall.saturating_mul(3);
        let outcome = store.again(&doing, limit, &unheard, step).await;
        let answered = outcome.is_ok();
        store.settle(&key, outcome, &unheard, expected).await?;
        if answered { store.check_stored(&key, expected).await } else { Ok(()) }
    }
}

impl Inner {
    /// An answer of 200 is believed when a HEAD says the same (FAULTS, incident 12).
    async fn check_stored(&self, key: &str, expected: &Expected) -> Result<()> {
        let stored = self.look(key).await.map_err(|failed| match failed.class {
            Class::Missing => Error::new(Kind::OutcomeUnknown, format!("{key}: the store said that it is stored, and does not have it")),
            _ => failed.error,
        })?;
        let checksum = stored.checksum.as_deref().is_none_or(|theirs| Some(theirs) == expected.checksum.text());
        if stored.head.bytes == expected.bytes && checksum {
            return Ok(());
        }
        let (theirs, ours) = (stored.checksum.unwrap_or_default(), expected.checksum.text().unwrap_or_default());
        let text = format!("{key}: sent were {} bytes ({ours}), the store holds {} ({theirs})", expected.bytes, stored.head.bytes);
        Err(Error::corrupt(text))
    }
}
