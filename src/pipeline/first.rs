//! The first error of several stages.

use std::sync::Mutex;

use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Keeps the first error of all stages: those after it only say that a neighbour is gone. Setting it cancels `failed`, so that
/// whoever feeds the pipeline stops at once, also when it has nothing to send just then.
#[derive(Default)]
pub struct FirstError {
    error: Mutex<Option<Error>>,
    failed: CancellationToken,
}

impl FirstError {
    /// Cancels `failed` when the first error is set.
    pub fn new(failed: CancellationToken) -> Self {
        FirstError { error: Mutex::default(), failed }
    }

    /// Keeps `error` if it is the first.
    pub fn set(&self, error: Error) {
        self.error.lock().unwrap_or_else(|p| p.into_inner()).get_or_insert(error);
        self.failed.cancel();
    }

    /// The first error, if there was one.
    pub fn take(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(|p| p.into_inner()).take()
    }
}
