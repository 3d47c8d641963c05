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
    limit: u64,
    stored: Arc<AtomicU64>,
    piece: BytesMut,
    open: Option<Open>,
    done: Vec<Object>,
    /// Told here why a store stopped: the write error that follows from it passes the seal, which knows only `io::Error`.
    first: Arc<FirstError>,
}

/// The object being written.
struct Open {
    file: String,
    hasher: Hasher,
    crc: Crc64Nvme,
    bytes: u64,
    uploads: Vec<Upload>,
}

/// The object on its way into one store.
struct Upload {
    /// The sink's number.
    at: usize,
    body: BodySender,
    put: JoinHandle<Result<()>>,
}

impl ObjectSplitter {
    /// The first object is called `file`, further ones `file.002`, `file.003` …; none is larger than `limit`.
    /// To be used from a thread that is not one of the runtime's workers.
    pub(super) fn new(target: &Target, file: &str, limit: u64) -> Self {
        ObjectSplitter {
            sinks: target.sinks.clone(),
            runtime: target.runtime.clone(),
            created: target.created.clone(),
            prefix: target.prefix.clone(),
            file: file.to_owned(),
            limit,
            stored: target.stored.clone(),
            piece: BytesMut::with_capacity(PIECE_BYTES),
            open: None,
            done: Vec::new(),
            first: target.first.clone(),
        }
    }

    fn begin(&mut self) -> Open {
        let number = self.done.len() + 1;
        let file = if number == 1 { self.file.clone() } else { format!("{}.{number:03}", self.file) };
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
        Open { file, hasher: Sha256::hasher(), crc: Crc64Nvme::default(), bytes: 0, uploads }
    }

    /// Hands the collected piece over, ending the object when it is full.
    fn hand_over(&mut self) -> Result<()> {
        while !self.piece.is_empty() {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.begin(),
            };
            let room = self.limit - open.bytes;
            let take = (self.piece.len() as u64).min(room) as usize;
            let piece = self.piece.split_to(take).freeze();
            open.hasher.update(&piece);
            open.crc.update(&piece);
            open.bytes += piece.len() as u64;
            self.stored.fetch_add(piece.len() as u64, Ordering::Relaxed);
            self.send(&mut open, Piece::Data(piece))?;
            fail::fail_point!("split::piece");
            if open.bytes == self.limit {
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

    fn complete(&mut self, mut open: Open) -> Result<()> {
        let sha256 = open.hasher.clone().finish();
        let end = Piece::End { bytes: open.bytes, sha256, crc64_nvme: Some(open.crc.finish()) };
        self.send(&mut open, end)?;
        // Every store is waited for, also when one failed: nobody may clean up below a put that still runs.
        let mut outcome = Ok(());
        for Upload { at, put, .. } in open.uploads {
            let sink = &self.sinks[at];
            let ended = match self.runtime.block_on(put) {
                Ok(ended) => ended.context(|| format!("store {} in '{}'", open.file, sink.name)),
                Err(e) => Err(Error::failed(format!("storing {} in '{}' broke down", open.file, sink.name)).because(e)),
            };
            outcome = outcome.and(ended.or_else(|error| sink.give_up(error)));
        }
        outcome?;
        self.done.push(Object { file: open.file, stored_bytes: open.bytes, stored_sha256: sha256 });
        Ok(())
    }

    /// Ends the last object; returns them all once every store has them durably.
    pub fn finish(mut self) -> Result<Vec<Object>> {
        self.hand_over()?;
        if let Some(open) = self.open.take() {
            self.complete(open)?;
        } else if self.done.is_empty() {
            let open = self.begin();
            self.complete(open)?;
        }
        Ok(std::mem::take(&mut self.done))
    }
}

impl Drop for ObjectSplitter {
    fn drop(&mut self) {
        if let Some(mut open) = self.open.take() {
            self.abort(&mut open);
        }
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn when_one_store_fails_the_others_are_still_waited_for() {
        let kept = Arc::new(MemoryStore::default());
        let (bad, slow) = (FaultyStore::new(Arc::new(MemoryStore::default())), FaultyStore::new(kept.clone()));
        bad.rule(Operation::Put, "*", When::Always, Fault::LoseAnswer(Kind::Full));
        slow.rule(Operation::Put, "*", When::Always, Fault::Stall(Duration::from_millis(300)));
        let target = Target {
            sinks: vec![Sink::new("bad", Arc::new(bad)), Sink::new("slow", Arc::new(slow))],
            runtime: Handle::current(),
            created: Created::default(),
            prefix: "jobs/j/sets/x/".into(),
            stored: Arc::default(),
            first: Arc::default(),
        };
        let ended = tokio::task::spawn_blocking(move || {
            let mut splitter = ObjectSplitter::new(&target, "a", OBJECT_BYTES);
            splitter.write_all(b"some bytes").unwrap();
            splitter.finish()
        });
        let error = ended.await.unwrap().unwrap_err();
        assert!(error.kind() == Kind::Full && error.to_string().starts_with("store a in 'bad'"), "{error}");
        assert_eq!(kept.head("jobs/j/sets/x/a").await.unwrap().bytes, 10, "no put runs on after the answer");
    }
}
