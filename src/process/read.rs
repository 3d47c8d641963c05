//! Reading a child's output in large blocks without zeroing, copying or waking up too often.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Context, Result};

/// Bytes in one block but the last.
pub(super) const BLOCK: usize = 512 * 1024;
/// Blocks kept for reuse.
const KEPT: usize = 8;
/// A read that brings less than this means that we are faster than the child …
const SMALL: usize = 64 * 1024;
/// … which then gets this long to fill the pipe. pg_dump writes 4 KiB at a time; waking up for each costs both sides more than the
/// copy. The pipe holds 1 MiB, so the child is not held up below 3 GB/s.
const PAUSE: Duration = Duration::from_micros(300);

/// What a slow child wrote is handed on after this at the latest, so that whoever counts bytes sees them move.
const HELD: Duration = Duration::from_secs(2);

/// What the watcher sees of a pump.
#[derive(Default)]
pub(super) struct Progress {
    bytes: AtomicU64,
    /// The pump waits for drctl's own side; the child is not to blame.
    ours: AtomicBool,
}

impl Progress {
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn waits_for_us(&self) -> bool {
        self.ours.load(Ordering::Relaxed)
    }

    /// Runs something that may wait for drctl's own side.
    pub(super) fn ours<T>(&self, work: impl FnOnce() -> T) -> T {
        self.ours.store(true, Ordering::Relaxed);
        let value = work();
        self.ours.store(false, Ordering::Relaxed);
        value
    }
}

type Shelf = Arc<Mutex<Vec<Vec<u8>>>>;

/// A block that goes back to the shelf when the last reader lets go of it.
struct Block {
    bytes: Vec<u8>,
    shelf: Shelf,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut shelf = self.shelf.lock().unwrap_or_else(|p| p.into_inner());
        if shelf.len() < KEPT {
            shelf.push(bytes);
        }
    }
}

fn take(shelf: &Shelf) -> Vec<u8> {
    let kept = shelf.lock().unwrap_or_else(|p| p.into_inner()).pop();
    kept.unwrap_or_else(|| Vec::with_capacity(BLOCK))
}

/// Reads to the end of the stream and hands on every block; an error of `sink` ends the reading.
pub(super) fn pump(fd: impl AsFd, progress: &Progress, mut sink: impl FnMut(Bytes) -> Result<()>) -> Result<()> {
    let shelf = Shelf::default();
    let mut block = take(&shelf);
    let mut sent = Instant::now();
    let mut send = |bytes: Vec<u8>| {
        let bytes = Bytes::from_owner(Block { bytes, shelf: shelf.clone() });
        progress.ours(|| sink(bytes))
    };
    loop {
        let read = match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut block)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(std::io::Error::from).context(|| "read the output")?,
        };
        progress.add(read);
        if read == 0 {
            return if block.is_empty() { Ok(()) } else { send(block) };
        }
        if block.len() == block.capacity() || (read < SMALL && sent.elapsed() > HELD) {
            send(std::mem::take(&mut block))?;
            block = take(&shelf);
            sent = Instant::now();
        } else if read < SMALL {
            std::thread::sleep(PAUSE);
        }
    }
}
