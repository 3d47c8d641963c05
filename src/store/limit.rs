//! A store that moves at most so many bytes a second, in each direction.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::Result;
use crate::store::{Body, DynStore, Entry, Head, Piece, Store};

/// What may be sent at once after a pause; a shorter burst would cost precision, a longer one would be felt by others on the line.
const BURST: Duration = Duration::from_millis(200);

/// One direction: when the next byte is due.
struct Flow {
    bytes_per_second: u64,
    due: Mutex<Option<Instant>>,
}

impl Flow {
    fn new(bytes_per_second: u64) -> Flow {
        Flow { bytes_per_second: bytes_per_second.max(1), due: Mutex::new(None) }
    }

    /// Waits until `bytes` more may move. Callers share the flow: each takes its turn in the order of asking.
    async fn wait(&self, bytes: u64) {
        let until = {
            let mut due = self.due.lock().await;
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let from = due.map_or(now, |due| due.max(earliest));
            let until = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            *due = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

/// Wraps a store and holds its bytes back.
pub struct LimitStore {
    inner: DynStore,
    up: Flow,
    down: Flow,
}

/// Bytes of one wait: a limit of a few KiB a second must not hold a MiB back for minutes.
const STEP: usize = 64 << 10;

impl LimitStore {
    /// A store that does what `inner` does, at most so many bytes a second up and as many down.
    pub fn new(inner: DynStore, bytes_per_second: u64) -> LimitStore {
        LimitStore { inner, up: Flow::new(bytes_per_second), down: Flow::new(bytes_per_second) }
    }
}

#[async_trait]
impl Store for LimitStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &str, mut body: Body) -> Result<()> {
        let (sender, slow) = Body::channel(2);
        let feed = async move {
            loop {
                match body.next().await? {
                    Piece::Data(mut bytes) => {
                        while !bytes.is_empty() {
                            let step = bytes.split_to(bytes.len().min(STEP));
                            self.up.wait(step.len() as u64).await;
                            sender.send(Piece::Data(step)).await?;
                        }
                    }
                    end @ Piece::End { .. } => return sender.send(end).await,
                }
            }
        };
        let (stored, _) = tokio::join!(self.inner.put(key, slow), feed);
        stored
    }

    async fn get_range(&self, key: &str, offset: u64, length: u64) -> Result<Bytes> {
        // Asked for in one piece, as the caller wants it; paid for afterwards, by what came.
        let bytes = self.inner.get_range(key, offset, length).await?;
        self.down.wait(bytes.len() as u64).await;
        Ok(bytes)
    }

    async fn head(&self, key: &str) -> Result<Head> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn server_date(&self) -> Result<Timestamp> {
        self.inner.server_date().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::whole;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_both_ways() {
        let store = Arc::new(LimitStore::new(Arc::new(MemoryStore::default()), 1 << 20));
        let began = Instant::now();
        let bytes = Bytes::from(vec![7; 256 << 10]);
        let puts = (0..2).map(|i| {
            let (store, bytes) = (store.clone(), bytes.clone());
            tokio::spawn(async move { whole::create(store.as_ref(), &format!("k{i}"), bytes).await.unwrap() })
        });
        futures::future::join_all(puts).await;
        let took = began.elapsed();
        assert!(took > Duration::from_millis(450) && took < Duration::from_secs(5), "512 KiB at 1 MiB a second: {took:?}");
        let began = Instant::now();
        assert_eq!(whole::read(store.as_ref(), "k0").await.unwrap(), bytes);
        assert!(began.elapsed() > Duration::from_millis(200));
    }
}
