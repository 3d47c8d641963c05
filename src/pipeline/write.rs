//! The road from a plain stream to stored objects.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crossbeam_channel as channel;
use tokio_util::sync::CancellationToken;

use crate::error::{Context, Error, Kind, Result};
use crate::format::{Inspector, inspector};
use crate::model::artifact::{Chunker, Consistency};
use crate::model::{Artifact, ArtifactFormat, Codec, Encryption, Facts, IndexPlace, Object, PlainDigest, Sha256, Timestamp};
use crate::pipeline::codec::{FrameDecoder, FrameEncoder};
use crate::pipeline::first::{FirstError, Line};
use crate::pipeline::frame::{FrameCutter, chunker};
use crate::pipeline::index::{FrameEntry, IndexWriter};
use crate::pipeline::plain::{Plain, PlainReceiver};
use crate::pipeline::seal::{SealWriter, Sealing};
use crate::pipeline::split::{Created, ObjectSplitter, Sink, Sizes, Target};

/// Plain bytes that go to a worker at a time.
const BATCH_BYTES: usize = 1 << 20;

/// zstd's first magic number for skippable frames (RFC 8878 §3.1.2); drctl uses this one.
pub const SKIPPABLE_MAGIC: u32 = 0x184D_2A5D;

/// How one artifact is to be written.
#[derive(Clone)]
pub struct WriteSpec {
    /// File name without the extensions of codec and seal: `postgres.shop.dump`.
    pub base: String,
    /// Folder of the set, with a slash at its end.
    pub prefix: String,
    /// Shape of the plain stream.
    pub format: ArtifactFormat,
    /// Compression.
    pub codec: Codec,
    /// Encryption.
    pub sealing: Sealing,
    /// Decompress each frame again and compare before it goes on (FAULTS I15).
    pub decode_check: bool,
    /// Size limit of objects; [`crate::pipeline::split::OBJECT_BYTES`] but for tests.
    pub object_bytes: u64,
}

/// So far; read by whoever shows progress.
#[derive(Default)]
pub struct Counters {
    /// Plain bytes taken from the source.
    pub plain_bytes: AtomicU64,
    /// Bytes handed to the stores.
    pub stored_bytes: Arc<AtomicU64>,
}

/// A stored artifact, as far as the pipeline knows it.
#[derive(Clone, Debug)]
pub struct Written {
    /// File name of the first object.
    pub file: String,
    /// The objects.
    pub objects: Vec<Object>,
    /// Length of the plain stream.
    pub plain_bytes: u64,
    /// Plain digest.
    pub plain_digest: Sha256,
    /// Number of frames.
    pub frames: u64,
    /// Length of the compressed stream, the index's skippable frame included.
    pub compressed_bytes: u64,
    /// Where the index is.
    pub index: IndexPlace,
    /// How frames were cut.
    pub chunker: Chunker,
    /// How they were compressed.
    pub codec: Codec,
    /// How the stream is sealed.
    pub encryption: Encryption,
    /// What the inspector counted.
    pub facts: Facts,
}

impl Written {
    /// Its entry of a manifest. What made the plain stream is not known here: `tool` and `exit_status` are the caller's.
    pub fn artifact(
        self,
        source: &str,
        format: ArtifactFormat,
        consistency: Consistency,
        started_at: Timestamp,
        finished_at: Timestamp,
    ) -> Artifact {
        Artifact {
            source: source.to_owned(),
            file: self.file,
            format,
            objects: self.objects,
            plain_bytes: self.plain_bytes,
            plain_digest: self.plain_digest,
            frames: self.frames,
            compressed_bytes: self.compressed_bytes,
            index: self.index,
            chunker: self.chunker,
            codec: self.codec,
            encryption: self.encryption,
            consistency,
            tool: None,
            exit_status: None,
            started_at,
            finished_at,
            totals: self.facts.totals,
        }
    }
}

/// Frames on their way to a worker.
struct Batch {
    number: u64,
    frames: Vec<Bytes>,
}

/// Frames on their way back.
struct Done {
    number: u64,
    entries: Vec<FrameEntry>,
    stored: Vec<u8>,
}

/// Number of workers that compress or decompress.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 8)
}

/// Takes a plain stream to its end and stores it in every sink. On an error nothing of the open objects stays; objects completed
/// before it are listed in `created`. `failed` is cancelled as soon as an error is certain: the source should then be stopped, as
/// this function returns only when the stream's sender is gone.
pub async fn write(
    spec: WriteSpec,
    input: PlainReceiver,
    sinks: Vec<Sink>,
    created: Created,
    counters: Arc<Counters>,
    failed: CancellationToken,
) -> Result<Written> {
    let target = Target {
        sinks,
        runtime: tokio::runtime::Handle::current(),
        created,
        prefix: spec.prefix.clone(),
        stored: counters.stored_bytes.clone(),
        first: Arc::new(FirstError::new(failed)),
    };
    let done = tokio::task::spawn_blocking(move || write_blocking(&spec, input, &target, &counters));
    done.await.map_err(|e| Error::failed("the pipeline broke down").because(e).hint("this is a bug in drctl: please report it"))?
}

fn write_blocking(spec: &WriteSpec, input: PlainReceiver, target: &Target, counters: &Counters) -> Result<Written> {
    let first = &target.first;
    let workers = workers();
    // Every batch under way holds a token, so that one slow batch cannot make the others pile up behind it.
    let (token_back, tokens) = channel::bounded::<()>(2 * workers + 2);
    for _ in 0..2 * workers + 2 {
        let _ = token_back.try_send(());
    }
    let (to_workers, batches) = channel::bounded::<Batch>(workers);
    let (to_sealer, done) = channel::bounded::<Option<Done>>(workers);
    let mut sealer = Sealer::start(spec, target)?;

    let facts = std::thread::scope(|scope| {
        let cutter = scope.spawn(move || {
            let mut cutter = Cutter::new(spec.format, to_workers, tokens);
            cutter.run(input, counters).map_err(|e| first.set(e)).ok()
        });
        let mut stages = Vec::new();
        for _ in 0..workers {
            let (batches, line) = (batches.clone(), Line::new(to_sealer.clone()));
            stages.push(scope.spawn(move || {
                let work = encode(spec, batches, &line);
                line.end(first, work);
            }));
        }
        drop((batches, to_sealer));
        sealer.run(done, token_back).unwrap_or_else(|e| first.set(e));
        let panicked = stages.into_iter().map(|stage| stage.join()).filter(|joined| joined.is_err()).count();
        match cutter.join() {
            Ok(facts) if panicked == 0 => facts,
            _ => {
                first.set(Error::failed("a stage of the pipeline panicked").hint("this is a bug in drctl: please report it"));
                None
            }
        }
    });
    // Only now is it known that the stream came to its end and that nothing is wrong with it: the last object may be completed.
    match (first.take(), facts) {
        (None, Some(facts)) => sealer.finish(spec, target, facts).map_err(|e| first.take().unwrap_or(e)),
        (error, _) => Err(error.unwrap_or_else(|| Error::failed("the stream ended without a reason"))),
    }
}

/// First stage: inspects, cuts, and gathers frames into batches.
struct Cutter {
    inspector: Box<dyn Inspector>,
    cutter: FrameCutter,
    to_workers: channel::Sender<Batch>,
    tokens: channel::Receiver<()>,
    frames: Vec<Bytes>,
    batches: u64,
}

impl Cutter {
    fn new(format: ArtifactFormat, to_workers: channel::Sender<Batch>, tokens: channel::Receiver<()>) -> Self {
        let (inspector, cutter) = (inspector(format), FrameCutter::default());
        Cutter { inspector, cutter, to_workers, tokens, frames: Vec::new(), batches: 0 }
    }

    fn run(&mut self, mut input: PlainReceiver, counters: &Counters) -> Result<Facts> {
        loop {
            match input.blocking_next() {
                Some(Plain::Data(bytes)) => {
                    counters.plain_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.inspector.feed(&bytes)?;
                    self.cutter.push(bytes, &mut self.frames);
                    self.send_full_batches()?;
                }
                Some(Plain::Cut) => self.cutter.flush(&mut self.frames),
                Some(Plain::End) => break,
                None => return Err(Error::new(Kind::Stopped, "the source gave up before its end")),
            }
        }
        let facts = std::mem::replace(&mut self.inspector, inspector(ArtifactFormat::Raw)).finish()?;
        self.cutter.flush(&mut self.frames);
        self.send_full_batches()?;
        if !self.frames.is_empty() {
            let rest = std::mem::take(&mut self.frames);
            self.send(rest)?;
        } else if self.batches == 0 {
            // An empty stream is stored as one empty frame (DESIGN §4).
            self.send(vec![Bytes::new()])?;
        }
        Ok(facts)
    }

    fn send_full_batches(&mut self) -> Result<()> {
        let mut held = 0;
        while let Some(last) = self.frames.iter().position(|frame| {
            held += frame.len();
            held >= BATCH_BYTES
        }) {
            let batch = self.frames.drain(..=last).collect();
            self.send(batch)?;
            held = 0;
        }
        Ok(())
    }

    fn send(&mut self, frames: Vec<Bytes>) -> Result<()> {
        // A later stage that is gone tells why; one that panicked does so after this.
        let gone = || Error::new(Kind::Stopped, "a later stage of the pipeline stopped");
        self.tokens.recv().map_err(|_| gone())?;
        self.to_workers.send(Batch { number: self.batches, frames }).map_err(|_| gone())?;
        self.batches += 1;
        Ok(())
    }
}

/// Second stage: hashes, compresses, checks.
fn encode(spec: &WriteSpec, batches: channel::Receiver<Batch>, line: &Line<Done>) -> Result<()> {
    let mut encoder = FrameEncoder::new(spec.codec)?;
    let mut decoder = FrameDecoder::new(spec.codec)?;
    let mut scratch: Vec<u8> = Vec::new();
    for batch in batches {
        let mut stored = Vec::with_capacity(BATCH_BYTES / 2);
        let mut entries = Vec::with_capacity(batch.frames.len());
        for frame in &batch.frames {
            let start = stored.len();
            let length = encoder.encode(frame, &mut stored)?;
            damage(&mut stored, start);
            if spec.decode_check && !matches!(spec.codec, Codec::None) {
                if scratch.len() < frame.len() {
                    scratch.resize(frame.len(), 0);
                }
                let back = &mut scratch[..frame.len()];
                decoder.decode(&stored[start..], back).and_then(|()| same(back, frame)).map_err(|e| {
                    e.context(format!("check a compressed frame of {}", spec.base))
                        .hint("the machine's memory, its processor or the compressor is broken: do not trust this host")
                })?;
            }
            entries.push(FrameEntry { plain_bytes: frame.len() as u32, stored_bytes: length as u32, sha256: Sha256::of(frame) });
        }
        if !line.send(Done { number: batch.number, entries, stored }) {
            return Ok(());
        }
    }
    Ok(())
}

fn same(back: &[u8], frame: &[u8]) -> Result<()> {
    if back == frame { Ok(()) } else { Err(Error::corrupt("it does not decompress to what it was made of")) }
}

/// Flips a bit behind the compressor when the failpoint `pipeline::damage` is set: what a broken memory cell would do.
fn damage(stored: &mut [u8], start: usize) {
    let wanted = || -> bool {
        fail::fail_point!("pipeline::damage", |_| true);
        false
    };
    if wanted()
        && let Some(last) = stored[start..].last_mut()
    {
        *last ^= 1;
    }
}

/// Third stage: puts batches back in order, writes them through the seal, notes frames.
struct Sealer {
    out: SealWriter<ObjectSplitter>,
    file: String,
    index: IndexWriter,
    digest: PlainDigest,
    plain_bytes: u64,
    compressed_bytes: u64,
}

impl Sealer {
    fn start(spec: &WriteSpec, target: &Target) -> Result<Self> {
        let file = format!("{}{}{}", spec.base, spec.codec.extension(), spec.sealing.encryption().extension());
        let out = spec.sealing.wrap(ObjectSplitter::new(target, &file, Sizes::Growing(spec.object_bytes)))?;
        Ok(Sealer { out, file, index: IndexWriter::default(), digest: PlainDigest::default(), plain_bytes: 0, compressed_bytes: 0 })
    }

    fn run(&mut self, done: channel::Receiver<Option<Done>>, token_back: channel::Sender<()>) -> Result<()> {
        let mut waiting: BTreeMap<u64, Done> = BTreeMap::new();
        let mut next = 0;
        for batch in done {
            // A worker ended badly and has told why: dropping the channels stops all others.
            let Some(batch) = batch else { return Ok(()) };
            waiting.insert(batch.number, batch);
            while let Some(batch) = waiting.remove(&next) {
                for entry in &batch.entries {
                    self.index.push(entry);
                    self.digest.frame(&entry.sha256, u64::from(entry.plain_bytes));
                    self.plain_bytes += u64::from(entry.plain_bytes);
                }
                self.put(&batch.stored)?;
                next += 1;
                let _ = token_back.try_send(());
            }
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.compressed_bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| Error::failed(format!("write {}", self.file)).because(e))
    }

    fn finish(mut self, spec: &WriteSpec, target: &Target, facts: Facts) -> Result<Written> {
        let inside = matches!(spec.codec, Codec::Zstd { .. });
        let length = self.index.encoded_bytes();
        let index = std::mem::take(&mut self.index);
        let place = if inside {
            let short = u32::try_from(length).map_err(|_| Error::failed(format!("the index of {} is too large", spec.base)))?;
            let mut head = [0; 8];
            head[..4].copy_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
            head[4..].copy_from_slice(&short.to_le_bytes());
            self.put(&head)?;
            let offset = self.compressed_bytes;
            let sha256 = index.write(|piece| self.put(piece))?;
            IndexPlace::Inside { offset, length, sha256 }
        } else {
            write_beside(spec, target, &index, length)?
        };
        let splitter = self.out.finish().map_err(|e| Error::failed(format!("end {}", self.file)).because(e))?;
        let objects = splitter.finish().context(|| format!("end {}", self.file))?;
        Ok(Written {
            file: self.file,
            objects,
            plain_bytes: self.plain_bytes,
            plain_digest: self.digest.finish(),
            frames: index.frames(),
            compressed_bytes: self.compressed_bytes,
            index: place,
            chunker: chunker(),
            codec: spec.codec,
            encryption: spec.sealing.encryption(),
            facts,
        })
    }
}

/// The index as an object of its own, for codecs whose stock readers know no skippable frames.
fn write_beside(spec: &WriteSpec, target: &Target, index: &IndexWriter, length: u64) -> Result<IndexPlace> {
    let file = format!("{}.index.zst{}", spec.base, spec.sealing.encryption().extension());
    let failed = |e: std::io::Error| Error::failed("write the index").because(e);
    let sealed = spec.sealing.wrap(ObjectSplitter::new(target, &file, Sizes::One))?;
    let mut encoder = zstd::stream::write::Encoder::new(sealed, 1).map_err(failed)?;
    let sha256 = index.write(|piece| encoder.write_all(piece).map_err(failed))?;
    let objects = encoder.finish().and_then(SealWriter::finish).map_err(failed)?.finish()?;
    let [object] = <[Object; 1]>::try_from(objects).map_err(|_| Error::failed("the index was not stored as one object"))?;
    Ok(IndexPlace::Beside { object, length, sha256 })
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::*;
    use crate::pipeline::plain;
    use crate::pipeline::split::OBJECT_BYTES;
    use crate::store::memory::MemoryStore;

    /// I15: a frame that was damaged behind the compressor is found before it is stored, and the run ends, also when the workers
    /// are the slow part and the source has more to say.
    #[tokio::test(flavor = "multi_thread")]
    async fn i15_a_frame_damaged_behind_the_compressor_ends_the_run() {
        fail::cfg("pipeline::damage", "200*off->1*return->off").unwrap();
        let memory = Arc::new(MemoryStore::default());
        let (sender, receiver) = plain::channel();
        let sinks = vec![Sink::new("m", memory.clone())];
        let spec = WriteSpec {
            base: "s.a.raw".into(),
            prefix: "jobs/j/sets/x/".into(),
            format: ArtifactFormat::Raw,
            codec: Codec::Zstd { level: 12 },
            sealing: Sealing::None,
            decode_check: true,
            object_bytes: OBJECT_BYTES,
        };
        let failed = CancellationToken::new();
        let writing = write(spec, receiver, sinks, Created::default(), Arc::default(), failed.clone());
        let feeding = async {
            let sending = async {
                for at in 0..96u64 {
                    let block: Vec<u8> = (0..1u64 << 20).map(|i| (i.wrapping_mul(at * 2 + 0x9e37_79b9) >> 13) as u8).collect();
                    if sender.data(block.into()).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = failed.cancelled() => {}
                () = sending => {}
            }
            drop(sender);
        };
        let both = async { tokio::join!(writing, feeding) };
        let (written, ()) = tokio::time::timeout(std::time::Duration::from_secs(300), both).await.expect("the run hangs");
        fail::remove("pipeline::damage");
        let error = written.unwrap_err();
        assert!(error.to_string().contains("check a compressed frame"), "{error}");
        assert!(crate::store::whole::list_all(memory.as_ref(), "").await.unwrap().is_empty());
    }
}
