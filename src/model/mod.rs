//! The nouns of drctl, without I/O: ids, digests, manifest and log records, clock.

pub mod artifact;
pub mod clock;
pub mod digest;
pub mod facts;
pub mod figures;
pub mod ids;
pub mod manifest;
pub mod record;
pub mod secret;
pub mod severity;

#[cfg(test)]
pub(crate) mod testing;

pub use artifact::{Artifact, ArtifactFormat, Codec, Encryption, IndexPlace, Object};
pub use clock::{Clock, SystemClock, TestClock};
pub use digest::{PlainDigest, Sha256};
pub use facts::Facts;
pub use ids::{JobName, SetId, SetKind};
pub use jiff::Timestamp;
pub use manifest::{Manifest, SetClass, SetState};
pub use secret::Secret;
pub use severity::Severity;

/// The repository format this program writes. `0` until incremental sets have landed (DESIGN §5).
pub const FORMAT: u32 = 0;
