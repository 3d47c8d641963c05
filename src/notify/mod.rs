//! Who is told of what: messages, the ways they take, and the desk that keeps what waits and decides what is said.
//!
//! ```text
//!  raise · clear · report · digest ──▶ desk ──▶ clean ──▶ outbox on the disk ──▶ Slack · webhook · healthchecks
//!                                       └── incidents: who was told what, when, in which thread
//! ```
//! Nothing here changes the outcome of a backup, and nothing of it waits for a network but [`Desk::deliver_due`]. Every text of a message
//! goes through [`Cleaner`] once before it is kept and once before it is sent: what a notifier gets is [`Clean`].

use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Kind};

pub mod clean;
pub mod desk;
mod healthchecks;
mod http;
mod message;
mod policy;
mod slack;
mod slack_blocks;
mod ways;
mod webhook;
pub mod words;

pub use clean::{Clean, Cleaner};
pub use desk::{Desk, DeskOptions, Outcome, Tried};
pub use message::{Alert, Fact, Message, What};

/// One way to tell somebody.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Delivers a message, within some ten seconds. `thread` is what the first message of its incident gave back.
    async fn deliver(&self, message: &Clean, thread: Option<&str>) -> Result<Delivered, Undelivered>;
}

/// What became of a message that was delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Where what follows of its incident goes, where this way has such a thing.
    pub thread: Option<String>,
    /// The answer's status, where anything was sent.
    pub status: Option<u16>,
}

/// Why a message was not delivered.
#[derive(Debug)]
pub struct Undelivered {
    /// What went wrong and what helps. [`Kind::Denied`]: refused, and trying again is of no use; anything else may work later.
    pub error: Error,
    /// The answer's status, where there was one.
    pub status: Option<u16>,
    /// The receiver's own word for it, such as Slack's `channel_not_found`.
    pub word: Option<String>,
    /// Not before so long.
    pub retry_after: Option<Duration>,
}

impl Undelivered {
    /// Whether the same message will not be taken later either.
    pub fn is_permanent(&self) -> bool {
        self.error.kind() == Kind::Denied
    }
}

impl From<Error> for Undelivered {
    fn from(error: Error) -> Self {
        Undelivered { error, status: None, word: None, retry_after: None }
    }
}
