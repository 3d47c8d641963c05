//! Does a store refuse to create what is there already? On that the log rests (FORMAT rules 1 and 13).

use bytes::Bytes;

use crate::error::{Kind, Result};
use crate::store::{Store, whole};

/// The one key that the probe creates; it stays (FORMAT rule 16).
pub const PROBE_KEY: &str = "probe/create-only";

/// Whether a second create of one key is refused ([`Kind::Exists`]). Writes [`PROBE_KEY`] where it is not there yet.
pub async fn honours_create_only(store: &dyn Store) -> Result<bool> {
    // Never the same bytes twice: whoever retries a create takes its own bytes for its own success.
    for _ in 0..2 {
        let bytes = Bytes::from(format!("drctl asks whether this can be created twice: {:016x}\n", rand::random::<u64>()));
        match whole::create(store, PROBE_KEY, bytes).await {
            Ok(()) => {}
            Err(e) if e.kind() == Kind::Exists => return Ok(true),
            Err(e) => return Err(e.context(format!("ask {} whether it keeps two writers apart", store.location()))),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::faulty::{Fault, FaultyStore, Operation, When};
    use crate::store::local::LocalStore;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn rule_13_a_store_that_overwrites_is_found_out_and_one_that_refuses_is_not_written_to_again() {
        for _ in 0..2 {
            assert!(!honours_create_only(&MemoryStore::overwriting()).await.unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        let stores: [Arc<dyn Store>; 2] = [Arc::new(MemoryStore::default()), Arc::new(LocalStore::open(folder.path()).unwrap())];
        for store in stores {
            assert!(honours_create_only(&*store).await.unwrap());
            let kept = whole::read(&*store, PROBE_KEY).await.unwrap();
            assert!(honours_create_only(&*store).await.unwrap());
            assert_eq!(whole::read(&*store, PROBE_KEY).await.unwrap(), kept);
        }
        let down = FaultyStore::new(Arc::new(MemoryStore::default()));
        down.rule(Operation::Put, "probe/*", When::Always, Fault::Fail(Kind::Unreachable));
        assert_eq!(honours_create_only(&down).await.unwrap_err().kind(), Kind::Unreachable);
    }
}
