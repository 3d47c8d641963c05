//! The catalog: what a repository holds, and the only ways to change it.
//!
//! Everything true of a job stands in its log, one signed record after the other (FORMAT "Rules of the log"). [`log`] reads,
//! verifies and appends; [`state`] is the pure fold of verified records; [`commit`], [`retire`] and [`hold`] are the protocols of
//! writers, pruners and readers on top of it. [`lease`] and [`cache`] only save work: nothing is safe because of them.

pub mod cache;
pub mod checkpoint;
pub mod commit;
pub mod copies;
pub mod encoding;
pub mod env;
pub mod fold;
pub mod grants;
pub mod hold;
pub mod keys;
pub mod lease;
pub mod log;
pub mod numbered;
pub mod objects;
pub mod recovery;
pub mod repository;
pub mod retire;
pub mod rules;
pub mod select;
pub mod single_writer;
pub mod state;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use commit::{Outcome, Pending, Run, Settled, VoidReason};
pub use env::{Env, HighWater, Pause, Random, WriterLock};
pub use hold::Hold;
pub use keys::{MinisignKey, PublicKey, Role, RoleKey, Roles, Signer};
pub use lease::{Holder, Lease};
pub use log::JobLog;
pub use recovery::RecoveryFile;
pub use repository::{NewRepository, Repository, Trust};
pub use rules::Rules;
pub use state::{Finding, SetEntry, State};
