//! An archive's head with its table of contents, kept aside while the data flows by: loading goes through it several times.

use std::io::{Read, Write};

use crate::error::{Error, Result};
use crate::format::pgdump::archive::{ArchiveReader, TocEntry};

/// Fast, and definitions shrink to a tenth.
const LEVEL: i32 = 1;

/// The first bytes of an archive, up to where its data begins; packed, since ten thousand tables make some ten MiB of it.
pub struct Head {
    packed: Vec<u8>,
}

/// Reads and keeps.
struct Tee<'a, R> {
    input: R,
    kept: zstd::stream::write::Encoder<'a, Vec<u8>>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(out)?;
        self.kept.write_all(&out[..read])?;
        Ok(read)
    }
}

fn pack(error: std::io::Error) -> Error {
    Error::failed("keep an archive's table of contents in memory").because(error)
}

impl Head {
    /// Reads an archive up to its data and gives the rest back. For a thread that may block.
    pub fn read<R: Read>(input: R) -> Result<(Head, R)> {
        let kept = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).map_err(pack)?;
        let mut archive = ArchiveReader::open(Tee { input, kept })?;
        while archive.entry()?.is_some() {}
        let Tee { input, kept } = archive.into_inner();
        Ok((Head { packed: kept.finish().map_err(pack)? }, input))
    }

    /// Its bytes.
    pub fn bytes(&self) -> Result<impl Read + '_> {
        zstd::stream::read::Decoder::with_buffer(self.packed.as_slice()).map_err(pack)
    }

    /// Shows every entry of the table of contents, in order.
    pub fn each(&self, mut see: impl FnMut(TocEntry)) -> Result<()> {
        let mut archive = ArchiveReader::open(self.bytes()?)?;
        while let Some(entry) = archive.entry()? {
            see(entry);
        }
        Ok(())
    }
}
