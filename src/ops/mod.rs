//! What drctl does with sources, stores and the log: backup, verify, restore, and looking at what is there.
//!
//! Each verb is a function of a [`Setup`] and its options; it tells of its progress on the bus and gives back a value that the
//! command line renders as text or JSON.

pub mod adopt;
pub mod backup;
pub mod board;
pub mod cat;
pub mod choose;
pub mod confirm;
pub mod conformance;
pub mod copies;
pub mod details;
pub mod diff;
pub mod doctor;
pub mod dump;
pub mod guide;
pub mod hooks;
pub mod identity;
pub mod keys;
mod lease;
pub mod left_out;
pub mod limits;
pub mod look;
pub mod own_read;
pub mod pins;
pub mod progress;
pub mod prune;
pub mod restore;
pub mod retention;
pub mod setup;
pub mod standing;
pub mod suspect;
mod uploaded;
pub mod verify;
pub mod words;

pub use setup::{JobSpec, Setup, SourceSpec};
