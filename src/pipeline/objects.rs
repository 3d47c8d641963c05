//! An artifact's objects as one file, read ahead in ranges.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};
use crate::model::digest::Hasher;
use crate::model::{Object, Sha256};
use crate::store::DynStore;

/// Bytes asked of the store at a time.
const RANGE_BYTES: u64 = 1 << 20;

/// Ranges under way at a time; with [`RANGE_BYTES`] this bounds memory.
const RANGES_AHEAD: usize = 4;

/// Reads objects one after the other as if they were one file. For blocking threads. Errors are [`Error`]s inside `io::Error`.
pub struct ObjectsReader {
    runtime: Handle,
    store: DynStore,
    /// Key and description of each object, and its offset in the whole.
    objects: Vec<(String, Object, u64)>,
    total: u64,
    /// Where the next byte for the reader lies.
    position: u64,
    /// What is left of the range being read.
    current: Bytes,
    /// Where the next range to ask for begins.
    ask_at: u64,
    ahead: VecDeque<(usize, JoinHandle<Result<Bytes>>)>,
    /// Checks objects' digests; only for readers that read from start to end.
    check: Option<Check>,
}

struct Check {
    object: usize,
    hasher: Hasher,
    hashed: u64,
}

impl ObjectsReader {
    /// A reader at the start of the first of `objects`, which lie in the folder `prefix`. With `check`, reading must go from start
    /// to end, and each object's SHA-256 is compared when its last byte has been read.
    pub fn new(runtime: Handle, store: DynStore, prefix: &str, objects: &[Object], check: bool) -> Self {
        let mut total = 0;
        let objects = objects
            .iter()
            .map(|object| {
                let start = total;
                total += object.stored_bytes;
                (format!("{prefix}{}", object.file), object.clone(), start)
            })
            .collect();
        let check = check.then(|| Check { object: 0, hasher: Sha256::hasher(), hashed: 0 });
        ObjectsReader { runtime, store, objects, total, position: 0, current: Bytes::new(), ask_at: 0, ahead: VecDeque::new(), check }
    }

    fn ask_ahead(&mut self) {
        while self.ahead.len() < RANGES_AHEAD && self.ask_at < self.total {
            let at = self.objects.partition_point(|(_, _, start)| *start <= self.ask_at) - 1;
            let (key, object, start) = &self.objects[at];
            let offset = self.ask_at - start;
            let length = RANGE_BYTES.min(object.stored_bytes - offset);
            let (store, key) = (self.store.clone(), key.clone());
            self.ahead.push_back((at, self.runtime.spawn(async move { store.get_range(&key, offset, length).await })));
            self.ask_at += length;
        }
    }

    fn next_range(&mut self) -> Result<()> {
        self.ask_ahead();
        let Some((at, range)) = self.ahead.pop_front() else {
            return Ok(());
        };
        let got = self.runtime.block_on(range).map_err(|e| Error::failed("reading broke down").because(e))?;
        let file = &self.objects[at].1.file;
        self.current = got.map_err(|e| match e.kind() {
            // The manifest says that it is there.
            Kind::NotFound => Error::corrupt(format!("{file} is missing")).because(e),
            _ => e.context(format!("read {file}")),
        })?;
        self.hash(at)
    }

    fn hash(&mut self, at: usize) -> Result<()> {
        let Some(check) = &mut self.check else { return Ok(()) };
        let object = &self.objects[at].1;
        check.hasher.update(&self.current);
        check.hashed += self.current.len() as u64;
        if check.object == at && check.hashed == object.stored_bytes {
            let got = std::mem::replace(&mut check.hasher, Sha256::hasher()).finish();
            check.object += 1;
            check.hashed = 0;
            if got != object.stored_sha256 {
                return Err(Error::corrupt(format!("{}: its SHA-256 is {got}, the manifest has {}", object.file, object.stored_sha256)));
            }
        }
        Ok(())
    }

    /// Reads to the end, so that every object's digest gets compared.
    pub fn drain(&mut self) -> io::Result<()> {
        let mut sink = [0; 16 << 10];
        while self.read(&mut sink)? > 0 {}
        Ok(())
    }
}

impl Read for ObjectsReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && self.position < self.total {
            self.next_range().map_err(io::Error::other)?;
        }
        let take = self.current.len().min(out.len());
        out[..take].copy_from_slice(&self.current.split_to(take));
        self.position += take as u64;
        Ok(take)
    }
}

impl Seek for ObjectsReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.total.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let target = target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a seek before the start"))?;
        if target != self.position {
            if self.check.is_some() {
                return Err(io::Error::other("a reader that checks digests cannot seek"));
            }
            self.ahead.clear();
            self.current = Bytes::new();
            self.position = target;
            self.ask_at = target;
        }
        Ok(target)
    }
}

impl Drop for ObjectsReader {
    fn drop(&mut self) {
        for (_, range) in &self.ahead {
            range.abort();
        }
    }
}
