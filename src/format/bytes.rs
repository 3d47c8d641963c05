//! Formats without an end of their own: only counted.

use crate::error::Result;
use crate::format::Inspector;
use crate::model::Facts;

/// Counts bytes.
#[derive(Default)]
pub struct BytesInspector {
    bytes: u64,
}

impl Inspector for BytesInspector {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Facts> {
        let mut facts = Facts::of("bytes");
        facts.add("bytes", self.bytes);
        Ok(facts)
    }
}

/// Counts bytes and lines; a last line without a newline counts.
#[derive(Default)]
pub struct LinesInspector {
    bytes: u64,
    newlines: u64,
    open_line: bool,
}

impl Inspector for LinesInspector {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(last) = bytes.last() {
            self.bytes += bytes.len() as u64;
            self.newlines += memchr::memchr_iter(b'\n', bytes).count() as u64;
            self.open_line = *last != b'\n';
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Facts> {
        let mut facts = Facts::of("lines");
        facts.add("bytes", self.bytes);
        facts.add("lines", self.newlines + u64::from(self.open_line));
        Ok(facts)
    }
}
