//! The map of a sparse file in GNU's PAX format 1.0: decimal numbers, one a line (how many extents, then offset and length of
//! each), padded to a block, in front of the extents' bytes. See the GNU tar manual, "Storing Sparse Files".

use crate::format::tar::BLOCK;
use crate::format::tar::pax::decimal;

/// Most extents believed in one file (16 MiB of memory).
pub const MAX_EXTENTS: usize = 1 << 20;

/// A piece of a file that holds data; between two pieces there is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes from the file's start.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Reads a map that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    digits: Vec<u8>,
    expected: Option<usize>,
    offset: Option<u64>,
    extents: Vec<Extent>,
    /// Bytes taken so far.
    taken: u64,
}

impl MapReader {
    /// Takes bytes of the map; says how many, and whether the map is whole. Its padding is not taken.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), &'static str> {
        for (i, b) in bytes.iter().enumerate() {
            if *b != b'\n' {
                if self.digits.len() == 19 {
                    return Err("a number in a sparse map is too long");
                }
                self.digits.push(*b);
                continue;
            }
            let value = decimal(&self.digits).ok_or("a sparse map holds something else than numbers")?;
            self.digits.clear();
            if self.number(value)? {
                self.taken += i as u64 + 1;
                return Ok((i + 1, true));
            }
        }
        self.taken += bytes.len() as u64;
        Ok((bytes.len(), false))
    }

    fn number(&mut self, value: u64) -> Result<bool, &'static str> {
        let Some(expected) = self.expected else {
            let count = usize::try_from(value).ok().filter(|n| *n <= MAX_EXTENTS).ok_or("a sparse map has too many extents")?;
            self.expected = Some(count);
            return Ok(count == 0);
        };
        match self.offset.take() {
            None => self.offset = Some(value),
            Some(offset) => self.extents.push(Extent { offset, length: value }),
        }
        Ok(self.extents.len() == expected)
    }

    /// Bytes to the end of the block in which the map ends.
    pub fn padding(&self) -> u64 {
        self.taken.next_multiple_of(BLOCK as u64) - self.taken
    }

    /// The extents, once they are known to lie in order within the file and to sum up to `data_bytes`.
    pub fn finish(self, real_size: u64, data_bytes: u64) -> Result<Vec<Extent>, &'static str> {
        let mut end = 0u64;
        let mut sum = 0u64;
        for extent in &self.extents {
            if extent.offset < end {
                return Err("extents of a sparse file overlap");
            }
            end = extent.offset.checked_add(extent.length).ok_or("an extent of a sparse file is too long")?;
            sum = sum.checked_add(extent.length).ok_or("extents of a sparse file are too long")?;
        }
        if end > real_size {
            return Err("an extent lies behind the end of its sparse file");
        }
        if sum != data_bytes {
            return Err("the extents of a sparse file do not sum up to its size");
        }
        Ok(self.extents)
    }
}

/// The map as bytes, padded to a block. It ends in an empty extent at the file's end, as GNU tar writes it, so that
/// readers that look at the map only make the file long enough.
pub(super) fn map(extents: &[Extent], real_size: u64) -> Vec<u8> {
    use std::io::Write;
    let closed = extents.last().is_some_and(|e| e.offset + e.length == real_size);
    let mut out = Vec::with_capacity(BLOCK);
    // Writing to memory cannot fail.
    let _ = writeln!(out, "{}", extents.len() + usize::from(!closed));
    for extent in extents {
        let _ = write!(out, "{}\n{}\n", extent.offset, extent.length);
    }
    if !closed {
        let _ = write!(out, "{real_size}\n0\n");
    }
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}
