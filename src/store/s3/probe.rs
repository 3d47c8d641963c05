//! Whether the store keeps what a create-only write rests on. Some look-alikes answer 200 to `If-None-Match: *` and overwrite; then two writers
//! could both believe that they wrote the same record of the log.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::store::Body;
use crate::store::probe::PROBE_KEY;
use crate::store::s3::Inner;

impl Inner {
    /// Creates the probe's key twice with different bytes: the second must find it taken. What stands there from earlier is as good.
    pub async fn creates_only(self: &Arc<Self>) -> Result<bool> {
        for _ in 0..2 {
            // Never the same bytes twice: after a lost answer equal ones would pass for our own.
            let bytes = Bytes::from(format!("drctl asks here whether a write can be refused. {:016x}\n", rand::random::<u64>()));
            match self.create(PROBE_KEY, Body::of(bytes)).await {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Exists => return Ok(true),
                Err(error) => return Err(error.context("probe the store")),
            }
        }
        Ok(false)
    }

    /// Refuses a store that overwrites.
    pub async fn require_creates_only(self: &Arc<Self>) -> Result<()> {
        if self.creates_only().await? {
            return Ok(());
        }
        let text = format!(
            "{} overwrites although it is told not to (If-None-Match: *): two writers could destroy each other's records",
            self.short
        );
        Err(Error::new(Kind::Preflight, text).hint("use a store that honours conditional writes; docs/s3.md names some"))
    }
}
