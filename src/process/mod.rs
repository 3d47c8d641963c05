//! Children: programs that drctl runs, in process groups of their own, watched from start to end.
//!
//! A child never outlives drctl (FAULTS 2): it gets its own session and process group, and the kernel kills it when drctl dies.
//! That parent-death signal fires when the *thread* that spawned the child ends, so all children are spawned by one thread that never
//! ends (see [`child`]). A child that the children start is reached by killing the group; after a `kill -9` of drctl it ends by itself
//! when it next writes to the closed pipe.
//!
//! Standard error is always drained, whatever its size, and its last lines are kept with known secrets removed. The environment is
//! cleared to an allow-list. Success is exit status 0 *and* an output read to its end; anything else is a [`Failure`].

mod child;
mod command;
mod duplex;
pub mod lookup;
mod read;
mod redact;
mod run;
mod stderr;

pub use command::{Command, KeepLine, Limits};
pub use duplex::{Duplex, Said};
pub use redact::{Redactor, hide_likely};
pub use run::{Failure, Finished, Input, Reason, human_bytes, shell_word};

#[cfg(test)]
mod tests;
