//! The road back: from stored objects to a plain stream, with every hash checked on the way.
//!
//! ```text
//! store ─▶ ranges, read ahead, object digests ─▶ opener: age, batches ─▶ workers: decompress, frame hash ─▶ order, inspector ─▶ plain
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crossbeam_channel as channel;
use tokio_util::sync::CancellationToken;

use crate::error::{Context, Error, Result};
use crate::format::{Inspector, inspector};
use crate::model::{Artifact, Facts, IndexPlace, Sha256};
use crate::pipeline::codec::FrameDecoder;
use crate::pipeline::first::{FirstError, Line};
use crate::pipeline::index::{FrameEntry, Index};
use crate::pipeline::objects::ObjectsReader;
use crate::pipeline::plain::PlainSender;
use crate::pipeline::seal::{Identities, OpenReader, store_error};
use crate::pipeline::write::{SKIPPABLE_MAGIC, workers};
use crate::store::DynStore;

/// Plain bytes that go to a worker at a time.
const BATCH_BYTES: usize = 1 << 20;

/// A stored artifact and what it takes to read it.
#[derive(Clone)]
pub struct StoredArtifact {
    /// The store to read from.
    pub store: DynStore,
    /// Folder of the set, with a slash at its end.
    pub prefix: String,
    /// As the manifest has it.
    pub artifact: Artifact,
    /// The identities at hand.
    pub identities: Identities,
}

/// Stored bytes of some frames on their way to a worker.
struct Batch {
    number: u64,
    first_frame: u64,
    entries: Vec<FrameEntry>,
    stored: Vec<u8>,
}

/// Their plain bytes.
struct Done {
    number: u64,
    plain: Bytes,
}

impl StoredArtifact {
    /// Reads all of it: every object's digest, the seal, every frame's hash, the plain digest, the format's end and the counts
    /// are checked. The plain bytes go to `out`, which gets its end only when everything was found good. `read_bytes` counts
    /// plain bytes for progress. `failed` is cancelled as soon as an error is certain.
    pub async fn read(self, out: Option<PlainSender>, read_bytes: Arc<AtomicU64>, failed: CancellationToken) -> Result<Facts> {
        let runtime = tokio::runtime::Handle::current();
        let plain = out.clone();
        let reading = tokio::task::spawn_blocking(move || self.read_blocking(&runtime, plain, &read_bytes, failed));
        let facts = reading
            .await
            .map_err(|e| Error::failed("the pipeline broke down").because(e).hint("this is a bug in drctl: please report it"))??;
        if let Some(out) = out {
            out.end().await?;
        }
        Ok(facts)
    }

    /// Reads a small artifact (details, configuration) whole, checked like [`StoredArtifact::read`].
    pub async fn read_whole(self, limit: u64) -> Result<Vec<u8>> {
        if self.artifact.plain_bytes > limit {
            return Err(Error::corrupt(format!("{} has {} bytes, more than it may have", self.artifact.file, self.artifact.plain_bytes)));
        }
        let (sender, mut receiver) = crate::pipeline::plain::channel();
        let reading = self.read(Some(sender), Arc::default(), CancellationToken::new());
        let collecting = async {
            let mut whole = Vec::new();
            while let Some(piece) = receiver.next().await {
                if let crate::pipeline::plain::Plain::Data(bytes) = piece {
                    whole.extend_from_slice(&bytes);
                }
            }
            whole
        };
        let (facts, whole) = tokio::join!(reading, collecting);
        facts?;
        Ok(whole)
    }

    fn open<R: Read + Seek>(&self, reader: R) -> Result<OpenReader<R>> {
        self.identities.open(&self.artifact.encryption, &self.artifact.file, reader)
    }

    /// Reads and checks the index; returns it with the bytes it takes in the compressed stream.
    fn index(&self, runtime: &tokio::runtime::Handle) -> Result<(Index, u64)> {
        let artifact = &self.artifact;
        let failed = |e: std::io::Error| store_error(e, || format!("read the index of {}", artifact.file));
        let (bytes, wanted, frame_bytes) = match &artifact.index {
            IndexPlace::Inside { offset, length, sha256 } => {
                let length = check_index_length(artifact, *length)?;
                let objects = ObjectsReader::new(runtime.clone(), self.store.clone(), &self.prefix, &artifact.objects, false);
                let mut reader = self.open(objects)?;
                let head = offset.checked_sub(8).ok_or_else(|| Error::corrupt(format!("{}: the index has no place", artifact.file)))?;
                reader.seek(SeekFrom::Start(head)).map_err(failed)?;
                let mut bytes = vec![0; length + 8];
                reader.read_exact(&mut bytes).map_err(failed)?;
                let expected = [SKIPPABLE_MAGIC.to_le_bytes(), (length as u32).to_le_bytes()].concat();
                if bytes[..8] != expected {
                    return Err(Error::corrupt(format!("{}: no index stands where the manifest says", artifact.file)));
                }
                bytes.drain(..8);
                (bytes, sha256, length as u64 + 8)
            }
            IndexPlace::Beside { object, length, sha256 } => {
                let length = check_index_length(artifact, *length)?;
                let objects = std::slice::from_ref(object);
                let mut objects = ObjectsReader::new(runtime.clone(), self.store.clone(), &self.prefix, objects, true);
                let mut bytes = Vec::new();
                let reader = self.open(&mut objects)?;
                let decoder = zstd::stream::read::Decoder::new(reader).map_err(failed)?;
                decoder.take(length as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
                objects.drain().map_err(failed)?;
                (bytes, sha256, 0)
            }
        };
        if Sha256::of(&bytes) != *wanted {
            return Err(Error::corrupt(format!("the index of {}: its SHA-256 is not the manifest's", artifact.file)));
        }
        Ok((Index::decode(&bytes, artifact, frame_bytes)?, frame_bytes))
    }

    fn read_blocking(
        &self,
        runtime: &tokio::runtime::Handle,
        out: Option<PlainSender>,
        read_bytes: &AtomicU64,
        failed: CancellationToken,
    ) -> Result<Facts> {
        let (index, _) = self.index(runtime)?;
        let first = &FirstError::new(failed);
        let workers = workers();
        let (token_back, tokens) = channel::bounded::<()>(2 * workers + 2);
        for _ in 0..2 * workers + 2 {
            let _ = token_back.try_send(());
        }
        let (to_workers, batches) = channel::bounded::<Batch>(workers);
        let (to_order, done) = channel::bounded::<Option<Done>>(workers);
        let ended = std::thread::scope(|scope| {
            let opener = scope.spawn(|| self.feed(runtime, &index, to_workers, tokens).unwrap_or_else(|e| first.set(e)));
            let mut stages = vec![opener];
            for _ in 0..workers {
                let (batches, line) = (batches.clone(), Line::new(to_order.clone()));
                stages.push(scope.spawn(move || {
                    let work = self.decode(batches, &line);
                    line.end(first, work);
                }));
            }
            drop((batches, to_order));
            let mut order = Order { inspector: inspector(self.artifact.format), out, read_bytes };
            let ordered = order.run(done, token_back);
            let panicked = stages.into_iter().map(|stage| stage.join()).filter(|joined| joined.is_err()).count();
            if panicked > 0 {
                first.set(Error::failed("a stage of the pipeline panicked").hint("this is a bug in drctl: please report it"));
            }
            ordered.map(|()| order.inspector)
        });
        match (first.take(), ended) {
            (Some(one), Err(other)) => Err(Error::first_of(one, other)),
            (Some(error), Ok(_)) | (None, Err(error)) => Err(error),
            (None, Ok(inspector)) => {
                let facts = inspector.finish().context(|| format!("walk {}", self.artifact.file))?;
                if facts.totals != self.artifact.totals {
                    return Err(Error::corrupt(format!(
                        "{}: counted {:?}, the manifest has {:?}",
                        self.artifact.file, facts.totals, self.artifact.totals
                    )));
                }
                Ok(facts)
            }
        }
    }

    /// First stage: opens the seal and gives out batches of whole frames; ends by reading to the very end of the last object.
    fn feed(
        &self,
        runtime: &tokio::runtime::Handle,
        index: &Index,
        to_workers: channel::Sender<Batch>,
        tokens: channel::Receiver<()>,
    ) -> Result<()> {
        let mut objects = ObjectsReader::new(runtime.clone(), self.store.clone(), &self.prefix, &self.artifact.objects, true);
        let mut reader = self.open(&mut objects)?;
        let mut at = 0u64;
        let mut rest = index.frames.as_slice();
        let (mut number, mut first_frame) = (0, 0);
        while !rest.is_empty() {
            let mut held = 0;
            let count = rest.iter().position(|f| {
                held += f.plain_bytes as usize;
                held >= BATCH_BYTES
            });
            let (entries, after) = rest.split_at(count.map_or(rest.len(), |at| at + 1));
            let bytes: usize = entries.iter().map(|f| f.stored_bytes as usize).sum();
            let mut stored = vec![0; bytes];
            reader.read_exact(&mut stored).map_err(|e| self.unreadable(at, e))?;
            at += bytes as u64;
            let batch = Batch { number, first_frame, entries: entries.to_vec(), stored };
            if tokens.recv().is_err() || to_workers.send(batch).is_err() {
                // A later stage stopped and has told why.
                return Ok(());
            }
            number += 1;
            first_frame += entries.len() as u64;
            rest = after;
        }
        // What follows the last frame (the index, the end of the seal) is read too: a seal cut off there must not pass.
        let mut sink = [0; 64 << 10];
        loop {
            match reader.read(&mut sink).map_err(|e| self.unreadable(at, e))? {
                0 => break,
                n => at += n as u64,
            }
        }
        if at != self.artifact.compressed_bytes {
            return Err(Error::corrupt(format!(
                "{}: {at} bytes lie under the seal, the manifest has {}",
                self.artifact.file, self.artifact.compressed_bytes
            )));
        }
        drop(reader);
        objects.drain().map_err(|e| self.unreadable(at, e))
    }

    fn unreadable(&self, at: u64, error: std::io::Error) -> Error {
        store_error(error, || format!("{} cannot be opened behind byte {at} of its compressed stream", self.artifact.file))
    }

    /// Second stage: decompresses and compares hashes.
    fn decode(&self, batches: channel::Receiver<Batch>, line: &Line<Done>) -> Result<()> {
        let mut decoder = FrameDecoder::new(self.artifact.codec)?;
        for batch in batches {
            let bytes: usize = batch.entries.iter().map(|f| f.plain_bytes as usize).sum();
            let mut plain = vec![0; bytes];
            let (mut from, mut to) = (0, 0);
            for (at, entry) in batch.entries.iter().enumerate() {
                let (stored, out) =
                    (&batch.stored[from..from + entry.stored_bytes as usize], &mut plain[to..to + entry.plain_bytes as usize]);
                let checked = decoder.decode(stored, out).and_then(|()| {
                    let got = Sha256::of(out);
                    let wanted = entry.sha256;
                    if got == wanted { Ok(()) } else { Err(Error::corrupt(format!("its SHA-256 is {got}, the index has {wanted}"))) }
                });
                checked.context(|| format!("frame {} of {}", batch.first_frame + at as u64, self.artifact.file))?;
                from += entry.stored_bytes as usize;
                to += entry.plain_bytes as usize;
            }
            if !line.send(Done { number: batch.number, plain: plain.into() }) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// An index takes some 40 bytes a frame: a manifest that says much more is not believed with memory.
fn check_index_length(artifact: &Artifact, length: u64) -> Result<usize> {
    let most = 64 + artifact.frames.saturating_mul(45);
    if length > most || length > u64::from(u32::MAX) {
        return Err(Error::corrupt(format!("{}: an index of {length} bytes for {} frames", artifact.file, artifact.frames)));
    }
    Ok(length as usize)
}

/// Third stage: the order of the stream again.
struct Order<'a> {
    inspector: Box<dyn Inspector>,
    out: Option<PlainSender>,
    read_bytes: &'a AtomicU64,
}

impl Order<'_> {
    fn run(&mut self, done: channel::Receiver<Option<Done>>, token_back: channel::Sender<()>) -> Result<()> {
        let mut waiting: BTreeMap<u64, Bytes> = BTreeMap::new();
        let mut next = 0;
        for batch in done {
            // A worker ended badly and has told why: dropping the channels stops all others.
            let Some(batch) = batch else { return Ok(()) };
            waiting.insert(batch.number, batch.plain);
            while let Some(plain) = waiting.remove(&next) {
                self.inspector.feed(&plain)?;
                self.read_bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
                if let Some(out) = &self.out
                    && !plain.is_empty()
                {
                    out.blocking_data(plain)?;
                }
                next += 1;
                let _ = token_back.try_send(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::error::Kind;
    use crate::model::artifact::Consistency;
    use crate::model::{ArtifactFormat, Codec};
    use crate::pipeline::plain;
    use crate::pipeline::seal::Sealing;
    use crate::pipeline::split::{Created, OBJECT_BYTES, Sink};
    use crate::pipeline::write::{WriteSpec, Written, write};
    use crate::store::memory::MemoryStore;
    use crate::store::whole;

    /// Half compressible, half not.
    fn sample(len: usize) -> Bytes {
        let mut state = 42u64;
        (0..len)
            .map(|at| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if at / 100_000 % 2 == 0 { (state >> 33) as u8 } else { (at / 7 % 13) as u8 }
            })
            .collect::<Vec<u8>>()
            .into()
    }

    fn spec(codec: Codec, sealing: Sealing) -> WriteSpec {
        WriteSpec {
            base: "s.a.raw".into(),
            prefix: "jobs/j/sets/x/".into(),
            format: ArtifactFormat::Raw,
            codec,
            sealing,
            decode_check: true,
            object_bytes: OBJECT_BYTES,
        }
    }

    async fn store(spec: WriteSpec, data: Bytes, end: bool) -> (Arc<MemoryStore>, Result<Written>) {
        let memory = Arc::new(MemoryStore::default());
        let (sender, receiver) = plain::channel();
        let sinks = vec![Sink::new("m", memory.clone())];
        let writing = write(spec, receiver, sinks, Created::default(), Arc::default(), CancellationToken::new());
        let feeding = async {
            for block in data.chunks(300_000) {
                if sender.data(Bytes::copy_from_slice(block)).await.is_err() {
                    return;
                }
            }
            if end {
                let _ = sender.end().await;
            }
        };
        let (written, ()) = tokio::join!(writing, feeding);
        (memory, written)
    }

    fn artifact(written: Written) -> Artifact {
        written.artifact("s", ArtifactFormat::Raw, Consistency::Fuzzy, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH)
    }

    async fn read(memory: &Arc<MemoryStore>, artifact: &Artifact, identities: &Identities) -> Result<Vec<u8>> {
        let stored = StoredArtifact {
            store: memory.clone(),
            prefix: "jobs/j/sets/x/".into(),
            artifact: artifact.clone(),
            identities: identities.clone(),
        };
        stored.read_whole(1 << 30).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_codec_and_seal_comes_back_also_in_several_objects() {
        let (secret, recipient) = Identities::generate();
        let identities = Identities::parse(&secret, "test").unwrap();
        for codec in [Codec::Zstd { level: 1 }, Codec::Gzip { level: 1 }, Codec::None] {
            for sealing in [Sealing::Age(vec![recipient.clone()]), Sealing::None] {
                for (len, object_bytes) in [(0, OBJECT_BYTES), (1, OBJECT_BYTES), (3_000_000, OBJECT_BYTES), (3_000_000, 200_001)] {
                    let data = sample(len);
                    let spec = WriteSpec { object_bytes, ..spec(codec, sealing.clone()) };
                    let (memory, written) = store(spec, data.clone(), true).await;
                    let artifact = artifact(written.unwrap());
                    if object_bytes != OBJECT_BYTES {
                        assert!(artifact.objects.len() > 5);
                        assert!(artifact.objects[1].file.ends_with(".002"), "{}", artifact.objects[1].file);
                    }
                    assert_eq!(artifact.frames == 1, len < 2, "{len}");
                    assert_eq!(read(&memory, &artifact, &identities).await.unwrap(), data, "{codec:?} {len}");
                }
            }
        }
    }

    /// Without a seal the frame's own hash finds it, in a worker, with many batches still to come.
    #[tokio::test(flavor = "multi_thread")]
    async fn f23_one_bad_frame_early_in_a_long_artifact_ends_the_read() {
        for codec in [Codec::Zstd { level: 1 }, Codec::None] {
            let (memory, written) = store(spec(codec, Sealing::None), sample(48 << 20), true).await;
            let artifact = artifact(written.unwrap());
            let key = format!("jobs/j/sets/x/{}", artifact.file);
            let mut bad = whole::read(memory.as_ref(), &key).await.unwrap().to_vec();
            bad[300_000] ^= 1;
            memory.overwrite(&key, bad.into());
            let none = Identities::default();
            let ended = tokio::time::timeout(std::time::Duration::from_secs(300), read(&memory, &artifact, &none)).await;
            let error = ended.expect("the read hangs").unwrap_err();
            assert!(error.kind() == Kind::Corrupt && error.to_string().starts_with("frame "), "{codec:?}: {error}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn stock_readers_open_it_without_the_index() {
        let data = sample(1_000_000);
        let (memory, written) = store(spec(Codec::Zstd { level: 1 }, Sealing::None), data.clone(), true).await;
        let file = whole::read(memory.as_ref(), &format!("jobs/j/sets/x/{}", written.unwrap().file)).await.unwrap();
        assert_eq!(zstd::stream::decode_all(file.as_ref()).unwrap(), data);
        let (memory, written) = store(spec(Codec::Gzip { level: 1 }, Sealing::None), data.clone(), true).await;
        let file = whole::read(memory.as_ref(), &format!("jobs/j/sets/x/{}", written.unwrap().file)).await.unwrap();
        let mut plain = Vec::new();
        flate2::bufread::MultiGzDecoder::new(file.as_ref()).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, data);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_without_its_end_leaves_nothing() {
        let (memory, written) = store(spec(Codec::Zstd { level: 1 }, Sealing::None), sample(5_000_000), false).await;
        assert!(written.unwrap_err().to_string().contains("gave up before its end"));
        assert!(whole::list_all(memory.as_ref(), "").await.unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn f23_f81_any_flip_or_cut_of_a_stored_object_is_found() {
        let (secret, recipient) = Identities::generate();
        let identities = Identities::parse(&secret, "test").unwrap();
        let (memory, written) = store(spec(Codec::Zstd { level: 1 }, Sealing::Age(vec![recipient])), sample(400_000), true).await;
        let artifact = artifact(written.unwrap());
        let key = format!("jobs/j/sets/x/{}", artifact.file);
        let good = whole::read(memory.as_ref(), &key).await.unwrap();
        let step = good.len() / 199;
        for at in (0..good.len()).step_by(step).chain([good.len() - 1]) {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            memory.overwrite(&key, bad.into());
            let error = read(&memory, &artifact, &identities).await.expect_err(&format!("flip at {at}"));
            assert_eq!(error.kind(), Kind::Corrupt, "{error}");
            memory.overwrite(&key, good.slice(..at));
            assert!(read(&memory, &artifact, &identities).await.is_err(), "cut at {at}");
        }
        memory.overwrite(&key, good.clone());
        assert!(read(&memory, &artifact, &identities).await.is_ok());
    }

    /// What nothing else vouches for is vouched for by the object's own hash: here an index that says what lies there, flipped or not.
    #[tokio::test(flavor = "multi_thread")]
    async fn f23_f73_an_object_is_compared_with_its_own_hash() {
        let (memory, written) = store(spec(Codec::None, Sealing::None), sample(400_000), true).await;
        let mut artifact = artifact(written.unwrap());
        artifact.objects[0].stored_sha256 = Sha256::of(b"of another set");
        let error = read(&memory, &artifact, &Identities::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains(&format!("{}: its SHA-256 is ", artifact.file)), "{error}");
    }

    /// Age itself, behind the hash of the object: the manifest is made to fit each forgery, as who holds the store and a signing key could.
    #[tokio::test(flavor = "multi_thread")]
    async fn f81_an_age_file_cut_at_a_chunk_with_chunks_swapped_or_its_header_edited_gives_no_byte() {
        /// Plain bytes of a chunk and its tag (age v1 specification).
        const CHUNK: usize = (64 << 10) + 16;
        let (secret, recipient) = Identities::generate();
        let identities = Identities::parse(&secret, "test").unwrap();
        // Noise, so that the file is of many chunks; with a last chunk that is full and with one that is not.
        for length in [900_000, 14 << 16] {
            let (memory, written) = store(spec(Codec::None, Sealing::Age(vec![recipient.clone()])), sample(length), true).await;
            let artifact = artifact(written.unwrap());
            let key = format!("jobs/j/sets/x/{}", artifact.file);
            let good = whole::read(memory.as_ref(), &key).await.unwrap().to_vec();
            let mac = good.windows(4).position(|w| w == b"--- ").unwrap();
            let header = mac + good[mac..].iter().position(|b| *b == b'\n').unwrap() + 1;
            let body = header + 16;
            let chunks = (good.len() - body).div_ceil(CHUNK);
            assert!(chunks > 10);
            let chunk = |n: usize| body + n * CHUNK..(body + (n + 1) * CHUNK).min(good.len());
            let mut forgeries: Vec<(String, Vec<u8>)> = Vec::new();
            for n in 0..chunks {
                forgeries.push((format!("cut before chunk {n}"), good[..chunk(n).start].to_vec()));
                let without = [&good[..chunk(n).start], &good[chunk(n).end..]].concat();
                forgeries.push((format!("without chunk {n}"), without));
                if n + 1 < chunks {
                    let (a, b) = (chunk(n), chunk(n + 1));
                    forgeries.push((
                        format!("chunks {n} and {} swapped", n + 1),
                        [&good[..a.start], &good[b.clone()], &good[a], &good[b.end..]].concat(),
                    ));
                }
                let mut flipped = good.clone();
                flipped[chunk(n).end - 1] ^= 1;
                forgeries.push((format!("tag of chunk {n}"), flipped));
            }
            for at in 0..body {
                let mut edited = good.clone();
                edited[at] ^= 1;
                forgeries.push((format!("header byte {at}"), edited));
            }
            forgeries.push(("a chunk after the last".into(), [&good[..], &good[chunk(0)]].concat()));
            for (what, bytes) in forgeries {
                let mut fitting = artifact.clone();
                fitting.objects[0].stored_bytes = bytes.len() as u64;
                fitting.objects[0].stored_sha256 = Sha256::of(&bytes);
                memory.overwrite(&key, bytes.into());
                assert!(read(&memory, &fitting, &identities).await.is_err(), "{what} was not noticed");
            }
            memory.overwrite(&key, good.into());
            assert!(read(&memory, &artifact, &identities).await.is_ok());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn f82_a_manifest_that_lies_about_sizes_is_refused() {
        let (memory, written) = store(spec(Codec::Zstd { level: 1 }, Sealing::None), sample(400_000), true).await;
        let good = artifact(written.unwrap());
        type Lie = fn(&mut Artifact);
        let lies: [Lie; 6] = [
            |a| a.plain_bytes += 1,
            |a| a.frames += 1,
            |a| a.compressed_bytes -= 1,
            |a| a.plain_digest = Sha256::of(b"x"),
            |a| a.totals = BTreeMap::from([("bytes".to_owned(), 1)]),
            |a| a.index = IndexPlace::Inside { offset: 8, length: u64::MAX / 2, sha256: Sha256::of(b"x") },
        ];
        for (at, lie) in lies.iter().enumerate() {
            let mut artifact = good.clone();
            lie(&mut artifact);
            let error = read(&memory, &artifact, &Identities::default()).await.expect_err(&format!("lie {at}"));
            // Noticed, not stumbled over: a panic would be an error too.
            assert_eq!(error.kind(), Kind::Corrupt, "lie {at}: {error}");
        }
        // More lies in the object than the frames and their index take, and the manifest knows of it.
        let key = format!("jobs/j/sets/x/{}", good.file);
        let longer = [&whole::read(memory.as_ref(), &key).await.unwrap()[..], b"more"].concat();
        let mut artifact = good.clone();
        artifact.objects[0].stored_bytes = longer.len() as u64;
        artifact.objects[0].stored_sha256 = Sha256::of(&longer);
        memory.overwrite(&key, longer.into());
        let error = read(&memory, &artifact, &Identities::default()).await.unwrap_err();
        assert!(error.to_string().contains("bytes lie under the seal"), "{error}");
    }
}
