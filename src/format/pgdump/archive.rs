//! Reading an archive as `Read`, entry after entry and block after block: for loading what pg_restore could not.
//!
//! The layout stands in [`super`]. Where the walker passes SQL texts over, this keeps them whole; memory holds one entry at a time.

use std::io::Read;

use crate::error::{Error, Result};

/// Longest string of an archive: PostgreSQL's own limit for one value (`MaxAllocSize`).
const STRING_LIMIT: i64 = 0x3fff_ffff;
/// Most bytes of a block's piece that are read at a time.
const PIECE: usize = 256 * 1024;

const BLOCK_DATA: u8 = 1;
const BLOCK_BLOBS: u8 = 3;

/// When pg_restore loads an entry (`teSection` of PostgreSQL's `pg_backup.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// Access rights, comments: with what they belong to.
    None,
    /// Before the rows.
    PreData,
    /// Rows, large objects, states of sequences.
    Data,
    /// After the rows: indexes, constraints, triggers.
    PostData,
}

/// One entry of the table of contents. Texts are bytes in the dump's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocEntry {
    /// Its number in the archive.
    pub id: i64,
    /// Whether a block of data belongs to it.
    pub had_data: bool,
    /// Its name: `t`, `t t_pkey`, `f(integer)` …
    pub tag: Vec<u8>,
    /// What it is: `TABLE`, `INDEX`, `FK CONSTRAINT` …
    pub description: String,
    /// When it is loaded.
    pub section: Section,
    /// The statements that make it.
    pub definition: Vec<u8>,
    /// The statement that drops it.
    pub drop: Vec<u8>,
    /// `COPY … FROM stdin;` for a table's rows.
    pub copy: Vec<u8>,
    /// Its schema; empty where it is in none.
    pub namespace: Vec<u8>,
    /// Its tablespace; empty for the default.
    pub tablespace: Vec<u8>,
    /// Its table access method; empty for the default.
    pub access_method: Vec<u8>,
    /// The role that owns it; empty where nothing does.
    pub owner: Vec<u8>,
    /// Numbers of the entries that must be there before.
    pub dependencies: Vec<i64>,
}

/// An archive that is read from its start to its end.
pub struct ArchiveReader<R> {
    input: R,
    minor: u8,
    int_bytes: usize,
    offset_bytes: usize,
    entries_left: i64,
}

fn bad(why: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("pg_dump archive: {why}"))
}

impl<R: Read> ArchiveReader<R> {
    /// Reads the head. An archive that is compressed, or of an unknown version, is an error.
    pub fn open(input: R) -> Result<Self> {
        let mut archive = ArchiveReader { input, minor: 0, int_bytes: 4, offset_bytes: 8, entries_left: 0 };
        let mut prefix = [0u8; 11];
        archive.exact(&mut prefix)?;
        let [b'P', b'G', b'D', b'M', b'P', 1, minor @ 12..=16, _, int_bytes @ (4 | 8), offset_bytes @ (4 | 8), 1] = prefix else {
            return Err(bad("its head is not one of a custom archive of version 1.12 to 1.16"));
        };
        archive.minor = minor;
        (archive.int_bytes, archive.offset_bytes) = (usize::from(int_bytes), usize::from(offset_bytes));
        let compressed = if minor >= 15 { archive.byte()? != 0 } else { archive.int()? != 0 };
        if compressed {
            return Err(bad("its blocks are compressed"));
        }
        // Second, minute, hour, day, month, year, daylight saving; database, versions of server and pg_dump.
        for _ in 0..7 {
            archive.int()?;
        }
        for _ in 0..3 {
            archive.string()?;
        }
        archive.entries_left = archive.int()?;
        Ok(archive)
    }

    /// What is behind the part that was read.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry of the table of contents; `None` once the data follows.
    pub fn entry(&mut self) -> Result<Option<TocEntry>> {
        if self.entries_left <= 0 {
            return Ok(None);
        }
        self.entries_left -= 1;
        let id = self.int()?;
        let had_data = self.int()? != 0;
        self.string()?;
        self.string()?;
        let tag = self.string()?;
        let description = String::from_utf8_lossy(&self.string()?).into_owned();
        let section = match self.int()? {
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            _ => Section::None,
        };
        let (definition, drop, copy) = (self.string()?, self.string()?, self.string()?);
        let (namespace, tablespace) = (self.string()?, self.string()?);
        let access_method = if self.minor >= 14 { self.string()? } else { Vec::new() };
        if self.minor >= 16 {
            self.int()?;
        }
        let owner = self.string()?;
        // Whether the table had oids; then the dependencies, ended by an absent string.
        self.string()?;
        let mut dependencies = Vec::new();
        while let Some(text) = self.optional_string()? {
            let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            dependencies.push(number.ok_or_else(|| bad("a dependency that is no number"))?);
        }
        let mut offset = vec![0u8; 1 + self.offset_bytes];
        self.exact(&mut offset)?;
        Ok(Some(TocEntry {
            id,
            had_data,
            tag,
            description,
            section,
            definition,
            drop,
            copy,
            namespace,
            tablespace,
            access_method,
            owner,
            dependencies,
        }))
    }

    /// The next block of data, by its entry's number; `None` at the archive's end. Large objects are passed over. Each block but those must be
    /// read to its end by [`ArchiveReader::piece`] first.
    pub fn block(&mut self) -> Result<Option<i64>> {
        loop {
            let mut kind = [0u8; 1];
            match self.input.read(&mut kind) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(bad("it broke off").because(error)),
            }
            let id = self.int()?;
            match kind[0] {
                BLOCK_DATA => return Ok(Some(id)),
                BLOCK_BLOBS => {
                    while self.int()? != 0 {
                        self.pass()?;
                    }
                }
                other => return Err(bad(format!("a block of unknown type {other}"))),
            }
        }
    }

    /// Appends the open block's next piece; `false` at the block's end.
    pub fn piece(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        let mut left = self.length()?;
        if left == 0 {
            return Ok(false);
        }
        while left > 0 {
            let take = left.min(PIECE);
            let at = into.len();
            into.resize(at + take, 0);
            self.input.read_exact(&mut into[at..]).map_err(|e| bad("it broke off").because(e))?;
            left -= take;
        }
        Ok(true)
    }

    /// Passes over what is left of the open block.
    pub fn pass(&mut self) -> Result<()> {
        loop {
            let left = self.length()? as u64;
            if left == 0 {
                return Ok(());
            }
            let passed =
                std::io::copy(&mut (&mut self.input).take(left), &mut std::io::sink()).map_err(|e| bad("it broke off").because(e))?;
            if passed < left {
                return Err(bad("it broke off"));
            }
        }
    }

    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.int()?).map_err(|_| bad("a piece of negative length"))
    }

    fn exact(&mut self, into: &mut [u8]) -> Result<()> {
        self.input.read_exact(into).map_err(|e| bad("it broke off").because(e))
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0u8; 1];
        self.exact(&mut byte)?;
        Ok(byte[0])
    }

    fn int(&mut self) -> Result<i64> {
        let mut held = [0u8; 9];
        let bytes = self.int_bytes;
        self.exact(&mut held[..=bytes])?;
        let mut magnitude = [0u8; 8];
        magnitude[..bytes].copy_from_slice(&held[1..=bytes]);
        let magnitude = i64::try_from(u64::from_le_bytes(magnitude)).map_err(|_| bad("an int that is too large"))?;
        match held[0] {
            0 => Ok(magnitude),
            1 => Ok(-magnitude),
            _ => Err(bad("an int with an impossible sign")),
        }
    }

    fn string(&mut self) -> Result<Vec<u8>> {
        Ok(self.optional_string()?.unwrap_or_default())
    }

    /// Memory grows with what arrives, never with a length that is only claimed.
    fn optional_string(&mut self) -> Result<Option<Vec<u8>>> {
        let length = self.int()?;
        if length < 0 {
            return Ok(None);
        }
        if length > STRING_LIMIT {
            return Err(bad("a string longer than PostgreSQL allows"));
        }
        let mut text = Vec::new();
        let read = (&mut self.input).take(length as u64).read_to_end(&mut text).map_err(|e| bad("it broke off").because(e))?;
        if (read as i64) < length {
            return Err(bad("it broke off"));
        }
        Ok(Some(text))
    }
}
