//! The first error of several stages, and how a worker that ends badly makes the stage behind it stop.

use std::sync::Mutex;

use crossbeam_channel::Sender;
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

    /// Keeps `error` if it is the first that is more than a neighbour's end.
    pub fn set(&self, error: Error) {
        let mut kept = self.error.lock().unwrap_or_else(|p| p.into_inner());
        *kept = Some(match kept.take() {
            None => error,
            Some(first) => Error::first_of(first, error),
        });
        drop(kept);
        self.failed.cancel();
    }

    /// The first error, if there was one.
    pub fn take(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(|p| p.into_inner()).take()
    }
}

/// A worker's line to the stage behind it. A worker that ends badly, by an error or a panic, says so when its line is dropped:
/// otherwise that stage would wait for ever for the batch that never comes, while the other workers live on.
pub struct Line<T> {
    to: Sender<Option<T>>,
    well: bool,
}

impl<T> Line<T> {
    /// A line into `to`.
    pub fn new(to: Sender<Option<T>>) -> Self {
        Line { to, well: false }
    }

    /// Hands a batch over; `false` when the stage behind is gone and has told why.
    pub fn send(&self, batch: T) -> bool {
        self.to.send(Some(batch)).is_ok()
    }

    /// Ends the line: `work` is the worker's outcome, whose error is told before anyone stops because of it.
    pub fn end(mut self, first: &FirstError, work: crate::error::Result<()>) {
        match work {
            Ok(()) => self.well = true,
            Err(error) => first.set(error),
        }
    }
}

impl<T> Drop for Line<T> {
    fn drop(&mut self) {
        if !self.well {
            let _ = self.to.send(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn f10_why_a_stage_is_gone_counts_and_not_who_noticed_first() {
        let first = FirstError::default();
        first.set(Error::new(Kind::Stopped, "a neighbour is gone"));
        first.set(Error::failed("it panicked"));
        first.set(Error::failed("and this came of it"));
        first.set(Error::new(Kind::Stopped, "gone too"));
        assert_eq!(first.take().unwrap().to_string(), "it panicked");
    }
}
