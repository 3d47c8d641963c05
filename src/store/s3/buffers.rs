//! Buffers for parts, used again and again: a fixed number of them is all the memory that a store's uploads take.
//!
//! Without them each part is a fresh allocation, freed by another thread than the one that made it: the allocator keeps such memory, and 32 MiB
//! of parts become more than a hundred (measured).

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// A bounded set of buffers, shared by all uploads of a store. An object that is being ended and the one behind it overlap: with a set for each,
/// memory would be that of two. With two or more none waits for ever: a buffer is on its way, which ends, or is being filled, and of the uploads
/// of one run at most one waits for bytes that are not there yet; all the others have theirs queued.
#[derive(Clone)]
pub struct Buffers {
    /// Those that nobody uses just now.
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    permits: Arc<Semaphore>,
    bytes: usize,
}

impl Buffers {
    /// At most `count` buffers of `bytes` each; none is made before it is needed.
    pub fn new(count: usize, bytes: usize) -> Buffers {
        Buffers { free: Arc::default(), permits: Arc::new(Semaphore::new(count)), bytes }
    }

    /// An empty buffer; waits until one is free.
    pub async fn take(&self) -> Result<Buffer> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|e| Error::failed("wait for a buffer").because(e))?;
        let bytes = self.free().pop().unwrap_or_else(|| Vec::with_capacity(self.bytes));
        Ok(Buffer { bytes, of: self.clone(), _permit: permit })
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(|p| p.into_inner())
    }
}

/// One buffer; it goes back when it, and every [`Bytes`] made of it, is dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    of: Buffers,
    _permit: OwnedSemaphorePermit,
}

impl Buffer {
    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.of.bytes - self.bytes.len()
    }

    /// Appends bytes; there must be room for them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What is in it, shared; nothing is copied.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        // Before the permit goes back: whoever gets that finds this.
        self.of.free().push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_than_so_many_and_each_used_again() {
        let buffers = Buffers::new(2, 10);
        let (mut one, two) = (buffers.take().await.unwrap(), buffers.take().await.unwrap());
        one.push(b"abcd");
        assert_eq!(one.room(), 6);
        let bytes = one.freeze();
        let clone = bytes.slice(1..3);
        drop(bytes);
        let wait = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, buffers.take()).await.is_err(), "a part of it is still in use");
        assert_eq!(clone, "bc");
        drop(clone);
        let again = buffers.take().await.unwrap();
        assert_eq!((again.room(), again.as_ref().len()), (10, 0));
        drop((again, two));
        assert_eq!(buffers.free().len(), 2);
    }
}
