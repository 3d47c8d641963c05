//! tar archives (ustar with PAX records; GNU long names are read too): encoder, walker and inspector.
//!
//! One walker serves everyone who reads an archive (inspector, loader, `cat`, `diff`), so that what was checked is what is
//! extracted. Where the formats leave room for two readings it refuses instead of choosing.

mod encode;
mod header;
mod pax;
mod sparse;
mod walk;

#[cfg(test)]
mod tests;

pub use encode::{encode, end_of_archive, padding};
pub use sparse::{Extent, MAX_EXTENTS};
pub use walk::{Entry, EntryKind, Sink, Walker, Xattr};

use crate::error::Result;
use crate::format::Inspector;
use crate::model::Facts;

/// A block: everything in an archive begins at a multiple of it (POSIX `pax`, "ustar Interchange Format").
pub const BLOCK: usize = 512;

/// Counts the entries of an archive as they go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files with content of their own.
    pub files: u64,
    /// Folders.
    pub dirs: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files already in the archive.
    pub hardlinks: u64,
    /// Devices and fifos.
    pub others: u64,
    /// Length of all files, holes included.
    pub bytes: u64,
}

impl Totals {
    /// Counts one entry.
    pub fn add(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::File => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(entry.size);
            }
            EntryKind::Dir => self.dirs += 1,
            EntryKind::Symlink => self.symlinks += 1,
            EntryKind::HardLink => self.hardlinks += 1,
            EntryKind::Other(_) => self.others += 1,
        }
    }

    /// All entries.
    pub fn entries(&self) -> u64 {
        self.files + self.dirs + self.symlinks + self.hardlinks + self.others
    }

    /// As facts: `files`, `dirs`, `symlinks`, `hardlinks`, `others`, `bytes`.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::of("tar");
        for (name, count) in self.named() {
            facts.add(name, count);
        }
        facts
    }

    /// The totals that facts hold; a total that is absent is 0.
    pub fn of_facts(facts: &Facts) -> Self {
        let get = |name: &str| facts.totals.get(name).copied().unwrap_or(0);
        Totals {
            files: get("files"),
            dirs: get("dirs"),
            symlinks: get("symlinks"),
            hardlinks: get("hardlinks"),
            others: get("others"),
            bytes: get("bytes"),
        }
    }

    /// Every total with its name.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("files", self.files),
            ("dirs", self.dirs),
            ("symlinks", self.symlinks),
            ("hardlinks", self.hardlinks),
            ("others", self.others),
            ("bytes", self.bytes),
        ]
    }
}

impl Sink for Totals {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.add(entry);
        Ok(())
    }
}

/// Proves that every header is sound, every file as long as its header says, and that the archive ends in two zero blocks with
/// nothing but zeros after them; counts what is in it.
pub struct TarInspector {
    walker: Walker,
    totals: Totals,
}

impl TarInspector {
    /// At the start of an archive.
    #[expect(clippy::new_without_default, reason = "a stream has a start, not a default")]
    pub fn new() -> Self {
        TarInspector { walker: Walker::new(), totals: Totals::default() }
    }
}

impl Inspector for TarInspector {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.walker.feed(bytes, &mut self.totals)
    }

    fn finish(self: Box<Self>) -> Result<Facts> {
        self.walker.finish()?;
        Ok(self.totals.facts())
    }
}
