//! The last stage: sealed bytes become objects of a bounded size, each hashed once and handed to every store.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::error::{Context, Error, Result};
use crate::model::digest::{Crc64Nvme, Hasher};
use crate::model::{Object, Sha256};
use crate::pipeline::first::FirstError;
use crate::store::{Body, BodySender, DynStore, Piece};

/// Largest object: 900 equal parts of 8 MiB, which fits the part limits of every S3 look-alike (DESIGN §4).
pub const OBJECT_BYTES: u64 = 900 * (8 << 20);

/// Largest first object, eight parts. Each further one may be twice as large as the one before it, up to [`OBJECT_BYTES`]: a store puts an object
/// together while the next is on its way, and what it has to put together when the stream has ended is at most half of it. Some stores copy
/// every part for that (versitygw on a filesystem without shared blocks needs a second for 300 MB), and all of it would be waited for.
const FIRST_OBJECT_BYTES: u64 = 8 * (8 << 20);

/// How large a stream's objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizes {
    /// They grow, and none is larger than this.
    Growing(u64),
    /// There is one, however long the stream is.
    One,
}

impl Sizes {
    /// Largest size of the object with this number, counted from 0.
    fn limit(self, number: usize) -> u64 {
        let Sizes::Growing(most) = self else { return u64::MAX };
        let doublings = u32::try_from(number).unwrap_or(u32::MAX).min(OBJECT_BYTES.ilog2());
        FIRST_OBJECT_BYTES.saturating_mul(1 << doublings).min(most)
    }
}

/// Bytes handed to the stores at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Pieces waiting for a store; with [`PIECE_BYTES`] this bounds memory per store.
const PIECES_WAITING: usize = 4;

/// A store that takes part in a run.
#[derive(Clone)]
pub struct Sink {
    /// Its name in the configuration.
    pub name: String,
    /// The store.
    pub store: DynStore,
    /// For a store that a set may miss: why this run gave it up, once it did. Shared by every clone of one run.
    given_up: Option<Arc<OnceLock<String>>>,
}

impl Sink {
    /// A store that must hold all of a set.
    pub fn new(name: impl Into<String>, store: DynStore) -> Self {
        Sink { name: name.into(), store, given_up: None }
    }

    /// The same store, as one that a set may miss.
    pub fn optional(self) -> Self {
        Sink { given_up: Some(Arc::default()), ..self }
    }

    /// The same store for a new run, which has not given it up.
    pub fn for_run(&self) -> Self {
        Sink { given_up: self.given_up.as_ref().map(|_| Arc::default()), ..self.clone() }
    }

    /// Whether a set may miss it.
    pub fn is_optional(&self) -> bool {
        self.given_up.is_some()
    }

    /// Why this run gave the store up, if it did: it gets nothing more.
    pub fn given_up(&self) -> Option<&str> {
        self.given_up.as_ref()?.get().map(String::as_str)
    }

    /// Gives the store up because of `error`; the first one is kept. A store that must hold all of the set gives the error back.
    pub fn give_up(&self, error: Error) -> Result<()> {
        match &self.given_up {
            Some(why) => {
                let _ = why.set(error.to_string());
                Ok(())
            }
            None => Err(error),
        }
    }
}

/// Every key that a run created, so that a run that ends badly can delete them again.
#[derive(Clone, Default)]
pub struct Created(Arc<Mutex<Vec<(usize, String)>>>);

impl Created {
    /// Notes that the sink with this number holds (or may hold) the key.
    pub fn note(&self, sink: usize, key: &str) {
        self.0.lock().unwrap_or_else(|p| p.into_inner()).push((sink, key.to_owned()));
    }

    /// Those in sinks for which `wanted` holds, and forgets them.
    pub fn take_of(&self, wanted: impl Fn(usize) -> bool) -> Vec<(usize, String)> {
        let mut all = self.0.lock().unwrap_or_else(|p| p.into_inner());
        let (taken, kept) = std::mem::take(&mut *all).into_iter().partition(|(sink, _)| wanted(*sink));
        *all = kept;
        taken
    }

    /// All of them, and forgets them.
    pub fn take(&self) -> Vec<(usize, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(|p| p.into_inner()))
    }
}

/// Where an artifact's objects go; the same for its index object.
pub(super) struct Target {
    pub sinks: Vec<Sink>,
    pub runtime: Handle,
    pub created: Created,
    /// Folder of the set, with a slash at its end.
    pub prefix: String,
    /// Counts bytes for progress.
    pub stored: Arc<AtomicU64>,
    pub first: Arc<FirstError>,
}

/// Splits a stream into objects in the folder `prefix` and fans them out.
pub struct ObjectSplitter {
    sinks: Vec<Sink>,
    runtime: Handle,
    created: Created,
    prefix: String,
    file: String,
    sizes: Sizes,
    stored: Arc<AtomicU64>,
    piece: BytesMut,
    open: Option<Open>,
    /// The object before it, whole, which the stores are making visible and durable meanwhile.
    ending: Option<Ending>,
    done: Vec<Object>,
    /// Told here why a store stopped: the write error that follows from it passes the seal, which knows only `io::Error`.
    first: Arc<FirstError>,
}

/// The object being written.
struct Open {
    file: String,
    /// Bytes at which it is full.
    limit: u64,
    hasher: Hasher,
    crc: Crc64Nvme,
    bytes: u64,
    uploads: Vec<Upload>,
}

/// An object of which every store has all bytes.
struct Ending {
    object: Object,
    puts: Vec<(usize, JoinHandle<Result<()>>)>,
}

/// The object on its way into one store.
struct Upload {
    /// The sink's number.
    at: usize,
    body: BodySender,
    put: JoinHandle<Result<()>>,
}

impl ObjectSplitter {
    /// The first object is called `file`, further ones `file.002`, `file.003` ….
    /// To be used from a thread that is not one of the runtime's workers.
    pub(super) fn new(target: &Target, file: &str, sizes: Sizes) -> Self {
        ObjectSplitter {
            sinks: target.sinks.clone(),
            runtime: target.runtime.clone(),
            created: target.created.clone(),
            prefix: target.prefix.clone(),
            file: file.to_owned(),
            sizes,
            stored: target.stored.clone(),
            piece: BytesMut::with_capacity(PIECE_BYTES),
            open: None,
            ending: None,
            done: Vec::new(),
            first: target.first.clone(),
        }
    }

    fn begin(&mut self) -> Open {
        let before = self.done.len() + usize::from(self.ending.is_some());
        let file = if before == 0 { self.file.clone() } else { format!("{}.{:03}", self.file, before + 1) };
        let key = format!("{}{file}", self.prefix);
        let mut uploads = Vec::new();
        for (at, sink) in self.sinks.iter().enumerate().filter(|(_, sink)| sink.given_up().is_none()) {
            let (sender, body) = Body::summed_channel(PIECES_WAITING);
            let (store, key, created) = (sink.store.clone(), key.clone(), self.created.clone());
            // Noted before it is asked for: a put whose answer is lost may have happened.
            created.note(at, &key);
            let put = self.runtime.spawn(async move { store.put(&key, body).await });
            uploads.push(Upload { at, body: sender, put });
        }
        Open { file, limit: self.sizes.limit(before), hasher: Sha256::hasher(), crc: Crc64Nvme::default(), bytes: 0, uploads }
    }

    /// Hands the collected piece over, ending the object when it is full.
    fn hand_over(&mut self) -> Result<()> {
        if self.ending.as_ref().is_some_and(|ending| ending.puts.iter().all(|(_, put)| put.is_finished())) {
            // What went wrong with it is told now, not when the next one is full.
            self.settle()?;
        }
        while !self.piece.is_empty() {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.begin(),
            };
            let room = open.limit - open.bytes;
            let take = (self.piece.len() as u64).min(room) as usize;
            let piece = self.piece.split_to(take).freeze();
            open.hasher.update(&piece);
            open.crc.update(&piece);
            open.bytes += piece.len() as u64;
            self.stored.fetch_add(piece.len() as u64, Ordering::Relaxed);
            self.send(&mut open, Piece::Data(piece))?;
            fail::fail_point!("split::piece");
            if open.bytes == open.limit {
                self.complete(open)?;
            } else {
                self.open = Some(open);
            }
        }
        self.piece.reserve(PIECE_BYTES);
        Ok(())
    }

    fn send(&self, open: &mut Open, piece: Piece) -> Result<()> {
        let mut kept = Vec::with_capacity(open.uploads.len());
        let mut stopped = Ok(());
        for upload in std::mem::take(&mut open.uploads) {
            if self.sinks[upload.at].given_up().is_some() {
                // It failed to end the object before this one.
                drop(upload.body);
                let _ = self.runtime.block_on(upload.put);
                continue;
            }
            if stopped.is_err() || upload.body.blocking_send(piece.clone()).is_ok() {
                kept.push(upload);
                continue;
            }
            // The store gave up: its put says why. Where the set may miss it, the others go on.
            let at = upload.at;
            stopped = self.sinks[at].give_up(self.why(at, &open.file, upload.put));
        }
        open.uploads = kept;
        if stopped.is_err() {
            self.abort(open);
        }
        stopped
    }

    /// Ends every upload of the object without completing it, and waits until the stores have cleaned up.
    fn abort(&self, open: &mut Open) {
        // All at once: a store that waits for its next piece must not keep another from hearing that none comes.
        let puts: Vec<_> = open.uploads.drain(..).map(|upload| upload.put).collect();
        for put in puts {
            let _ = self.runtime.block_on(put);
        }
    }

    fn why(&self, sink: usize, file: &str, put: JoinHandle<Result<()>>) -> Error {
        match self.runtime.block_on(put) {
            Ok(Err(error)) => error.context(format!("store {file} in '{}'", self.sinks[sink].name)),
            Ok(Ok(())) => Error::failed(format!("store '{}' ended {file} before its end", self.sinks[sink].name)),
            Err(panic) => Error::failed(format!("storing {file} in '{}' broke down", self.sinks[sink].name))
                .because(panic)
                .hint("this is a bug in drctl: please report it"),
        }
    }

    /// Tells the stores that the object is whole. They end it while the next one is on its way; the one before must have been ended by now.
    fn complete(&mut self, mut open: Open) -> Result<()> {
        let sha256 = open.hasher.clone().finish();
        let end = Piece::End { bytes: open.bytes, sha256, crc64_nvme: Some(open.crc.finish()) };
        self.send(&mut open, end)?;
        let before = self.settle();
        let puts = open.uploads.into_iter().map(|upload| (upload.at, upload.put)).collect();
        self.ending = Some(Ending { object: Object { file: open.file, stored_bytes: open.bytes, stored_sha256: sha256 }, puts });
        before
    }

    /// Waits until the object that is being ended, if any, is visible and durable in every store.
    fn settle(&mut self) -> Result<()> {
        let Some(Ending { object, puts }) = self.ending.take() else { return Ok(()) };
        // Every store is waited for, also when one failed: nobody may clean up below a put that still runs.
        let mut outcome = Ok(());
        for (at, put) in puts {
            let sink = &self.sinks[at];
            let ended = match self.runtime.block_on(put) {
                Ok(ended) => ended.context(|| format!("store {} in '{}'", object.file, sink.name)),
                Err(e) => Err(Error::failed(format!("storing {} in '{}' broke down", object.file, sink.name)).because(e)),
            };
            outcome = outcome.and(ended.or_else(|error| sink.give_up(error)));
        }
        self.done.push(object);
        outcome
    }

    /// Ends the last object; returns them all once every store has them durably.
    pub fn finish(mut self) -> Result<Vec<Object>> {
        self.hand_over()?;
        if let Some(open) = self.open.take() {
            self.complete(open)?;
        } else if self.done.is_empty() && self.ending.is_none() {
            let open = self.begin();
            self.complete(open)?;
        }
        self.settle()?;
        Ok(std::mem::take(&mut self.done))
    }
}

impl Drop for ObjectSplitter {
    fn drop(&mut self) {
        if let Some(mut open) = self.open.take() {
            self.abort(&mut open);
        }
        let _ = self.settle();
    }
}

impl Write for ObjectSplitter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let take = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..take]);
        if self.piece.len() == PIECE_BYTES
            && let Err(error) = self.hand_over()
        {
            let told = std::io::Error::other(error.to_string());
            self.first.set(error);
            return Err(told);
        }
        Ok(take)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Creates one small object in every store that the run has not given up.
pub async fn put_everywhere(sinks: &[Sink], created: &Created, prefix: &str, file: &str, bytes: Bytes) -> Result<Object> {
    let key = format!("{prefix}{file}");
    for (at, sink) in sinks.iter().enumerate().filter(|(_, sink)| sink.given_up().is_none()) {
        created.note(at, &key);
        let stored = crate::store::whole::create(sink.store.as_ref(), &key, bytes.clone()).await;
        stored.context(|| format!("store {file} in '{}'", sink.name)).or_else(|error| sink.give_up(error))?;
    }
    Ok(Object { file: file.to_owned(), stored_bytes: bytes.len() as u64, stored_sha256: Sha256::of(&bytes) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Kind;
    use crate::store::Store as _;
    use crate::store::faulty::{Fault, FaultyStore, Operation, When};
    use crate::store::memory::MemoryStore;

    fn target(sinks: Vec<Sink>) -> Target {
        let (created, stored, first) = (Created::default(), Arc::default(), Arc::default());
        Target { sinks, runtime: Handle::current(), created, prefix: "jobs/j/sets/x/".into(), stored, first }
    }

    #[test]
    fn objects_grow_by_whole_parts_up_to_the_largest() {
        const PART: u64 = 8 << 20;
        let limit = |number| Sizes::Growing(OBJECT_BYTES).limit(number);
        assert_eq!((0..9).map(|number| limit(number) / PART).collect::<Vec<_>>(), [8, 16, 32, 64, 128, 256, 512, 900, 900]);
        assert!((0..9).chain([1000, usize::MAX]).all(|number| limit(number).is_multiple_of(PART)));
        assert_eq!(limit(usize::MAX), OBJECT_BYTES);
        assert_eq!([0, 1, usize::MAX].map(|number| Sizes::Growing(1000).limit(number)), [1000; 3], "tests ask for less");
        // What is left to put together at the end.
        let mut before = 0;
        for number in 0..7 {
            assert!(limit(number) <= before + FIRST_OBJECT_BYTES, "at most half of all, but for what is less than two first ones");
            before += limit(number);
        }
    }

    /// An index that lies beside its artifact is named by one key, however long it is.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn where_one_object_is_wanted_it_is_one() {
        let kept = Arc::new(MemoryStore::default());
        let target = target(vec![Sink::new("kept", kept.clone())]);
        let bytes = FIRST_OBJECT_BYTES + 1;
        let written = tokio::task::spawn_blocking(move || {
            let mut splitter = ObjectSplitter::new(&target, "a", Sizes::One);
            std::io::copy(&mut std::io::Read::take(std::io::repeat(7), bytes), &mut splitter).unwrap();
            splitter.finish().unwrap()
        });
        assert_eq!(written.await.unwrap().iter().map(|object| object.stored_bytes).collect::<Vec<_>>(), [bytes]);
        assert_eq!(kept.head("jobs/j/sets/x/a").await.unwrap().bytes, bytes);
    }

    /// A store that a set may miss fails to end an object while the next is under way: it gets no more of that, and the other has all.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_that_is_given_up_gets_nothing_more() {
        let (kept, bad) = (Arc::new(MemoryStore::default()), Arc::new(FaultyStore::new(Arc::new(MemoryStore::default()))));
        bad.rule(Operation::Put, "*/a", When::Always, Fault::LoseAnswer(Kind::Full));
        // Were it asked to end this one, that would take an hour.
        bad.rule(Operation::Put, "*/a.002", When::Always, Fault::AnswerLate(Duration::from_secs(3600)));
        let target = target(vec![Sink::new("bad", bad.clone()).optional(), Sink::new("kept", kept.clone())]);
        let written = tokio::task::spawn_blocking(move || {
            let mut splitter = ObjectSplitter::new(&target, "a", Sizes::Growing(PIECE_BYTES as u64 * 3 / 2));
            for _ in 0..2 {
                splitter.write_all(&[7; PIECE_BYTES]).unwrap();
            }
            let begun = splitter.open.as_ref().map(|open| open.uploads.len());
            splitter.settle().unwrap();
            splitter.write_all(b"the rest").unwrap();
            let why = splitter.sinks[0].given_up().map(str::to_owned);
            (begun, why, splitter.finish().unwrap())
        });
        let written = tokio::time::timeout(Duration::from_secs(60), written).await.expect("it is still waited for");
        let (begun, why, objects) = written.unwrap();
        assert_eq!((begun, objects.len()), (Some(2), 2), "it was under way in both");
        assert!(why.unwrap().starts_with("store a in 'bad'"));
        assert_eq!(kept.head("jobs/j/sets/x/a.002").await.unwrap().bytes, (1 << 19) + 8);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_next_object_goes_on_its_way_while_one_is_being_ended() {
        let slow = Arc::new(FaultyStore::new(Arc::new(MemoryStore::default())));
        slow.rule(Operation::Put, "*/a", When::Always, Fault::AnswerLate(Duration::from_secs(3600)));
        let target = target(vec![Sink::new("slow", slow.clone())]);
        let written = tokio::task::spawn_blocking(move || {
            let mut splitter = ObjectSplitter::new(&target, "a", Sizes::Growing(PIECE_BYTES as u64 * 3 / 2));
            for _ in 0..2 {
                splitter.write_all(&[7; PIECE_BYTES]).unwrap();
            }
            assert_eq!(splitter.open.as_ref().map(|open| (open.file.as_str(), open.bytes)), Some(("a.002", 1 << 19)));
            splitter.ending.as_ref().unwrap().puts[0].1.abort();
        });
        tokio::time::timeout(Duration::from_secs(60), written).await.expect("the first one is waited for").unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_third_object_is_begun_before_the_first_is_ended() {
        const LATE: Duration = Duration::from_millis(700);
        let slow = Arc::new(FaultyStore::new(Arc::new(MemoryStore::default())));
        slow.rule(Operation::Put, "*/a", When::Always, Fault::AnswerLate(LATE));
        let target = target(vec![Sink::new("slow", slow.clone())]);
        let ended = tokio::task::spawn_blocking(move || {
            let mut splitter = ObjectSplitter::new(&target, "a", Sizes::Growing(PIECE_BYTES as u64));
            let since = std::time::Instant::now();
            for _ in 0..2 {
                splitter.write_all(&[7; PIECE_BYTES]).unwrap();
            }
            let waited = since.elapsed();
            splitter.write_all(b"the rest").unwrap();
            (splitter.finish().unwrap(), waited)
        });
        let (objects, waited) = ended.await.unwrap();
        assert!(waited >= LATE, "{waited:?}");
        let of = |object: &Object| (object.file.clone(), object.stored_bytes);
        let expected = [("a", 1 << 20), ("a.002", 1 << 20), ("a.003", 8)].map(|(file, bytes)| (file.to_owned(), bytes));
        assert_eq!(objects.iter().map(of).collect::<Vec<_>>(), expected);
        assert_eq!(slow.calls().iter().filter(|(operation, _)| *operation == Operation::Put).count(), 3);
    }

    /// What a store says of the end of an object is heard while the next one is under way, and nothing runs on behind the error.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_object_that_cannot_be_ended_stops_the_stream() {
        let bad = Arc::new(FaultyStore::new(Arc::new(MemoryStore::default())));
        bad.rule(Operation::Put, "*/a", When::Always, Fault::LoseAnswer(Kind::Full));
        let target = target(vec![Sink::new("bad", bad.clone())]);
        let first = target.first.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut splitter = ObjectSplitter::new(&target, "a", Sizes::Growing(64 * PIECE_BYTES as u64));
            let mut written = 0;
            while splitter.write_all(&[7; PIECE_BYTES]).is_ok() {
                written += 1;
                if written >= 64 {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            written
        });
        let written = tokio::time::timeout(Duration::from_secs(60), written).await.expect("the stream goes on").unwrap();
        assert!((64..128).contains(&written), "told before the second one is full: {written}");
        let error = first.take().unwrap();
        assert!(error.kind() == Kind::Full && error.to_string().starts_with("store a in 'bad'"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_object_that_is_being_ended_is_waited_for_when_the_stream_breaks_off() {
        let kept = Arc::new(MemoryStore::default());
        let slow = FaultyStore::new(kept.clone());
        slow.rule(Operation::Put, "*/a", When::Always, Fault::Stall(Duration::from_millis(500)));
        let target = target(vec![Sink::new("slow", Arc::new(slow))]);
        let dropped = tokio::task::spawn_blocking(move || {
            let mut splitter = ObjectSplitter::new(&target, "a", Sizes::Growing(PIECE_BYTES as u64));
            splitter.write_all(&[7; PIECE_BYTES]).unwrap();
            splitter.write_all(b"more").unwrap();
        });
        dropped.await.unwrap();
        let keys = crate::store::whole::list_all(kept.as_ref(), "").await.unwrap();
        assert_eq!(keys.len(), 1, "it stands, so that who cleans up finds it, and nothing else does: {keys:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn when_one_store_fails_the_others_are_still_waited_for() {
        let kept = Arc::new(MemoryStore::default());
        let (bad, slow) = (FaultyStore::new(Arc::new(MemoryStore::default())), FaultyStore::new(kept.clone()));
        bad.rule(Operation::Put, "*", When::Always, Fault::LoseAnswer(Kind::Full));
        slow.rule(Operation::Put, "*", When::Always, Fault::Stall(Duration::from_millis(300)));
        let target = target(vec![Sink::new("bad", Arc::new(bad)), Sink::new("slow", Arc::new(slow))]);
        let ended = tokio::task::spawn_blocking(move || {
            let mut splitter = ObjectSplitter::new(&target, "a", Sizes::Growing(OBJECT_BYTES));
            splitter.write_all(b"some bytes").unwrap();
            splitter.finish()
        });
        let error = ended.await.unwrap().unwrap_err();
        assert!(error.kind() == Kind::Full && error.to_string().starts_with("store a in 'bad'"), "{error}");
        assert_eq!(kept.head("jobs/j/sets/x/a").await.unwrap().bytes, 10, "no put runs on after the answer");
    }
}
