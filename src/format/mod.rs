//! Pure walkers of dump formats: they prove that a stream reached its own end and count what is in it. No I/O.

use crate::error::Result;
use crate::model::{ArtifactFormat, Facts};

pub mod bytes;
pub mod pgdump;
pub mod tar;

/// Watches a plain stream go by.
///
/// Fed with pieces of any size in order. Memory stays bounded by the format's own tables (names), never by its data.
/// Its input may be hostile: every length is checked before it is believed.
pub trait Inspector: Send {
    /// Looks at the next bytes. An error ([`crate::error::Kind::Corrupt`], naming the offset) voids the stream.
    fn feed(&mut self, bytes: &[u8]) -> Result<()>;

    /// The stream has ended: an error if the format's own end was not reached, or was passed.
    fn finish(self: Box<Self>) -> Result<Facts>;
}

/// The inspector for a format; formats without an end of their own are counted only.
pub fn inspector(format: ArtifactFormat) -> Box<dyn Inspector> {
    match format {
        ArtifactFormat::PgCustom => Box::new(pgdump::PgDumpInspector::new()),
        ArtifactFormat::Tar => Box::new(tar::TarInspector::new()),
        ArtifactFormat::Sql | ArtifactFormat::Env | ArtifactFormat::Yaml => Box::new(bytes::LinesInspector::default()),
        ArtifactFormat::Json | ArtifactFormat::Raw => Box::new(bytes::BytesInspector::default()),
    }
}
