//! What a run looks at between its last object and its commit: does every store hold what it was given?

use crate::error::{Context, Error, Result};
use crate::model::Manifest;
use crate::ops::Setup;
use crate::pipeline::split::{Created, Sink};

/// Grade `uploaded`: every store has every object at our size, and our checksum where the store keeps one. One that the set may miss is
/// given up otherwise.
pub async fn check_uploaded(setup: &Setup, manifest: &Manifest) -> Result<()> {
    for sink in setup.sinks.iter().filter(|sink| sink.given_up().is_none()) {
        check_uploaded_to(sink, manifest).await.or_else(|error| sink.give_up(error))?;
    }
    Ok(())
}

async fn check_uploaded_to(sink: &Sink, manifest: &Manifest) -> Result<()> {
    let prefix = manifest.set.prefix();
    for object in manifest.every_object() {
        let key = format!("{prefix}{}", object.file);
        let head = sink.store.head(&key).await.context(|| format!("check {} in '{}'", object.file, sink.name))?;
        if head.bytes != object.stored_bytes || head.sha256.is_some_and(|sha256| sha256 != object.stored_sha256) {
            return Err(Error::corrupt(format!(
                "'{}' holds {} bytes as {}, {} were stored",
                sink.name, head.bytes, object.file, object.stored_bytes
            )));
        }
    }
    Ok(())
}

/// Deletes what a store holds of the set that the run gave up for it: a set is in a store whole or not at all. What cannot be deleted goes
/// with the set.
pub async fn take_back(setup: &Setup, created: &Created) {
    let given_up = |at: usize| setup.sinks.get(at).is_some_and(|sink| sink.given_up().is_some());
    for (at, key) in created.take_of(given_up) {
        if let Some(sink) = setup.sinks.get(at)
            && let Err(error) = sink.store.delete(&key).await
        {
            tracing::warn!("{key} stays in '{}': {error}", sink.name);
            // One that does not answer is not asked again and again.
            if error.kind().retryable() {
                return;
            }
        }
    }
}
