//! The walk through head, table of contents and data blocks.

use super::scalar::Scalars;
use super::toc::{Content, Toc, TocSummary};
use crate::error::{Error, Result};
use crate::format::Inspector;
use crate::model::Facts;

/// Ends each table's COPY text in every known version of pg_dump.
const COPY_END: &[u8; 5] = b"\\.\n\n\n";
/// Newlines of [`COPY_END`].
const COPY_END_LINES: u64 = 3;

/// Block types of the custom format.
const BLOCK_DATA: u8 = 1;
const BLOCK_BLOBS: u8 = 3;

enum At {
    Toc,
    /// Between blocks; the only place where the archive may end.
    Between,
    BlockId {
        blobs: bool,
    },
    /// The length of the next piece of a table's data.
    Length,
    Data {
        left: usize,
    },
    BlobOid,
    BlobLength,
    Blob {
        left: usize,
    },
}

/// The table whose data flows by.
#[derive(Default)]
struct Open {
    id: i64,
    name: String,
    counts: bool,
    lines: u64,
    /// The last bytes of the data, the very last in the highest place.
    tail: u64,
}

/// Proves that every TOC entry with data has its block, that every block ends, and that nothing follows the last; counts rows per table.
///
/// Facts: format `pgdump-custom 1.14`; totals `bytes`, `entries`, `tables`, `large_objects`, and `rows` where all data is uncompressed
/// COPY text; per name the rows of each table under [`super::table_key`].
pub struct PgDumpInspector {
    at: At,
    scalars: Scalars,
    toc: Toc,
    open: Open,
    /// Blocks that have not come yet.
    missing: usize,
    large_objects: u64,
    offset: u64,
    failed: Option<String>,
}

impl PgDumpInspector {
    /// At the start of an archive.
    #[expect(clippy::new_without_default, reason = "a stream has a start, not a default")]
    pub fn new() -> Self {
        PgDumpInspector {
            at: At::Toc,
            scalars: Scalars::default(),
            toc: Toc::new(),
            open: Open::default(),
            missing: 0,
            large_objects: 0,
            offset: 0,
            failed: None,
        }
    }

    /// What the table of contents says, once all of it has been seen.
    pub fn summary(&self) -> Option<&TocSummary> {
        (!matches!(self.at, At::Toc)).then_some(&self.toc.summary)
    }

    fn walk(&mut self, input: &mut &[u8]) -> std::result::Result<(), String> {
        while !input.is_empty() {
            match self.at {
                At::Toc => {
                    if self.toc.feed(&mut self.scalars, input)? {
                        self.missing = self.toc.slots.len();
                        self.at = At::Between;
                    }
                }
                At::Between => self.begin(input)?,
                At::BlockId { blobs } => self.identify(blobs, input)?,
                At::Length => self.pieces(input)?,
                At::Data { left } => {
                    let left = left - self.data(left, input);
                    self.at = if left == 0 { At::Length } else { At::Data { left } };
                }
                At::BlobOid => match self.scalars.int(input)? {
                    None => {}
                    Some(0) => self.end_block(),
                    Some(_) => {
                        self.large_objects += 1;
                        self.at = At::BlobLength;
                    }
                },
                At::BlobLength => match self.scalars.int(input)? {
                    None => {}
                    Some(0) => self.at = At::BlobOid,
                    Some(length) => self.at = At::Blob { left: piece(length)? },
                },
                At::Blob { left } => {
                    let take = left.min(input.len());
                    *input = &input[take..];
                    self.at = if take == left { At::BlobLength } else { At::Blob { left: left - take } };
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, input: &mut &[u8]) -> std::result::Result<(), String> {
        if self.missing == 0 {
            return Err(format!("{} or more bytes follow its end", input.len()));
        }
        let blobs = match self.scalars.byte(input) {
            None => return Ok(()),
            Some(BLOCK_DATA) => false,
            Some(BLOCK_BLOBS) => true,
            Some(other) => return Err(format!("a block of unknown type {other}")),
        };
        self.at = At::BlockId { blobs };
        Ok(())
    }

    fn identify(&mut self, blobs: bool, input: &mut &[u8]) -> std::result::Result<(), String> {
        let Some(id) = self.scalars.int(input)? else {
            return Ok(());
        };
        let plain = self.toc.layout.plain;
        let slot = self.toc.slots.get_mut(&id).ok_or_else(|| format!("a block for entry {id}, which has no data"))?;
        if std::mem::replace(&mut slot.seen, true) {
            return Err(format!("a second block for {}", slot.name));
        }
        if blobs != (slot.content == Content::Blobs) {
            return Err(format!("a block of the wrong type for {}", slot.name));
        }
        let counts = plain && slot.content == Content::Copy;
        self.open = Open { id, name: slot.name.clone(), counts, lines: 0, tail: 0 };
        self.at = if blobs { At::BlobOid } else { At::Length };
        Ok(())
    }

    /// The hot loop: with `-Z0` each row of a table is a piece of its own.
    fn pieces(&mut self, input: &mut &[u8]) -> std::result::Result<(), String> {
        while let Some(length) = self.scalars.int(input)? {
            if length == 0 {
                return self.end_table();
            }
            let length = piece(length)?;
            let left = length - self.data(length, input);
            if left > 0 {
                self.at = At::Data { left };
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes at most `left` bytes of the open table's data; returns how many.
    #[inline]
    fn data(&mut self, left: usize, input: &mut &[u8]) -> usize {
        let (head, rest) = input.split_at(left.min(input.len()));
        *input = rest;
        if self.open.counts {
            self.open.lines += memchr::memchr_iter(b'\n', head).count() as u64;
            if let Some(last) = head.last_chunk::<8>() {
                self.open.tail = u64::from_le_bytes(*last);
            } else {
                for byte in head {
                    self.open.tail = (self.open.tail >> 8) | (u64::from(*byte) << 56);
                }
            }
        }
        head.len()
    }

    fn end_table(&mut self) -> std::result::Result<(), String> {
        if self.open.counts {
            if self.open.tail.to_le_bytes()[3..] != COPY_END[..] {
                return Err(format!("the rows of {} do not end with the mark of their end", self.open.name));
            }
            if let Some(slot) = self.toc.slots.get_mut(&self.open.id) {
                slot.rows = self.open.lines - COPY_END_LINES;
            }
        }
        self.end_block();
        Ok(())
    }

    fn end_block(&mut self) {
        self.missing -= 1;
        self.at = At::Between;
    }

    fn place(&self) -> String {
        match self.at {
            At::Toc => "its table of contents".into(),
            At::Between | At::BlockId { .. } => format!("its data, with {} blocks to come", self.missing),
            _ => format!("the data of {}", self.open.name),
        }
    }

    fn error(&self, why: &str) -> Error {
        Error::corrupt(format!("pg_dump archive, near byte {}: {why}", self.offset))
    }
}

/// A piece's length. No memory is set aside for it.
#[inline]
fn piece(length: i64) -> std::result::Result<usize, String> {
    usize::try_from(length).map_err(|_| format!("a piece of {length} bytes"))
}

impl Inspector for PgDumpInspector {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed.is_none() {
            let mut input = bytes;
            let result = self.walk(&mut input);
            self.offset += (bytes.len() - input.len()) as u64;
            self.failed = result.err();
        }
        match &self.failed {
            Some(why) => Err(self.error(why)),
            None => Ok(()),
        }
    }

    fn finish(self: Box<Self>) -> Result<Facts> {
        if let Some(why) = &self.failed {
            return Err(self.error(why));
        }
        if !matches!(self.at, At::Between) || self.missing > 0 {
            let truncated = self.error(&format!("it ends within {}", self.place()));
            return Err(truncated.hint("the dump is cut short: make a new one"));
        }
        let mut facts = Facts::of(format!("pgdump-custom 1.{}", self.toc.layout.minor));
        facts.add("bytes", self.offset);
        facts.add("entries", self.toc.summary.entries);
        facts.add("large_objects", self.large_objects);
        facts.add("tables", 0);
        let tables = || self.toc.slots.values().filter(|s| matches!(s.content, Content::Copy | Content::Table));
        let counted = self.toc.layout.plain && tables().all(|s| s.content == Content::Copy);
        if counted {
            facts.add("rows", 0);
        }
        for slot in tables() {
            facts.add("tables", 1);
            if counted {
                facts.add("rows", slot.rows);
                *facts.per_name.entry(slot.name.clone()).or_insert(0) += slot.rows;
            }
        }
        Ok(facts)
    }
}
