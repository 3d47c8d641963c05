//! From plain bytes to stored objects and back: frames, hashes, compression, encryption, digests, fan-out.
//!
//! ```text
//! plain ─▶ cutter + inspector ─▶ workers: hash, compress, decode check ─▶ sealer: index, age ─▶ splitter: objects, digests ─▶ stores
//! ```
//! Every arrow is a bounded channel, so memory does not depend on the stream's length. Stages with much to compute run on threads
//! of their own. A stage that fails drops its channels; its neighbours stop, and the first error is the one that is told.

pub mod codec;
mod first;
pub mod frame;
pub mod index;
pub mod objects;
pub mod plain;
pub mod read;
pub mod seal;
pub mod split;
pub mod write;
