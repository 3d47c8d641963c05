//! The walker: takes an archive in pieces of any size and tells a [`Sink`] of entries and their content.

use crate::error::{Error, Result};
use crate::format::tar::header::{self, GNU, POSIX, field};
use crate::format::tar::pax::{self, Records};
use crate::format::tar::sparse::{Extent, MapReader};
use crate::format::tar::{BLOCK, padding};

/// Longest GNU long name believed.
const MAX_LONG_NAME: u64 = 1 << 20;

/// Sorts of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file with its content.
    File,
    /// A folder.
    Dir,
    /// A symbolic link; its target is [`Entry::link`].
    Symlink,
    /// A further name of the file at [`Entry::link`].
    HardLink,
    /// A device (`3`, `4`) or fifo (`6`), by its type byte.
    Other(u8),
}

/// Name and value of an extended attribute.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// One entry with everything said about it put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name; a folder's without the slash at its end.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Where a symbolic or hard link points; empty for the others.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Owner's name; empty when unknown.
    pub uname: Vec<u8>,
    /// Group's name; empty when unknown.
    pub gname: Vec<u8>,
    /// Last change: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Length of a file, holes included; 0 for the others.
    pub size: u64,
    /// The pieces of a sparse file that hold data; `None` when all of it does.
    pub sparse: Option<Vec<Extent>>,
    /// Extended attributes, POSIX ACLs among them (`system.posix_acl_access`).
    pub xattrs: Vec<Xattr>,
}

impl Entry {
    /// An entry with nothing but name and kind.
    pub fn new(path: impl Into<Vec<u8>>, kind: EntryKind) -> Self {
        Entry {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            uname: Vec::new(),
            gname: Vec::new(),
            mtime: (0, 0),
            size: 0,
            sparse: None,
            xattrs: Vec::new(),
        }
    }
}

/// Told of an archive's entries in their order: `entry`, then for files `data` any number of times, then `end`.
pub trait Sink {
    /// A new entry.
    fn entry(&mut self, entry: &Entry) -> Result<()>;

    /// Bytes of the file last told of, at `offset` from its start. Offsets rise; what is left out is a hole.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let _ = (offset, bytes);
        Ok(())
    }

    /// The entry last told of is whole.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Which sort of header about the next header.
#[derive(Clone, Copy, Debug)]
enum Meta {
    Pax,
    Global,
    LongName,
    LongLink,
}

enum State {
    /// Between entries.
    Header,
    /// Within a header about the next header.
    Meta { meta: Meta, left: u64, pad: usize },
    /// Within a sparse file's map; `left` counts stored bytes.
    Map { reader: MapReader, left: u64 },
    /// Behind a map, to its block's end.
    MapPad { reader: MapReader, left: u64, pad: u64 },
    /// Within content; `extent` and `within` say where in a sparse file.
    Data { left: u64, pad: usize, offset: u64, extent: usize },
    /// Zeros up to a block's end; an entry is over.
    Pad { pad: usize },
    /// One zero block has been seen.
    HalfEnd,
    /// Both have.
    End,
}

/// A tar archive being read. Memory: one header, one PAX header (8 MiB at most), one sparse map (16 MiB at most).
pub struct Walker {
    state: State,
    /// Bytes taken before the present call's slice.
    offset: u64,
    block: Vec<u8>,
    meta: Vec<u8>,
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    entry: Option<Entry>,
}

impl Walker {
    /// At the start of an archive.
    #[expect(clippy::new_without_default, reason = "a stream has a start, not a default")]
    pub fn new() -> Self {
        Walker {
            state: State::Header,
            offset: 0,
            block: Vec::with_capacity(BLOCK),
            meta: Vec::new(),
            records: None,
            long_name: None,
            long_link: None,
            entry: None,
        }
    }

    /// Bytes taken so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes. An error of the archive names the offset; one of the sink is passed on.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<()> {
        while !bytes.is_empty() {
            let taken = self.step(bytes, sink)?;
            self.offset += taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// The stream has ended: an error unless the archive has.
    pub fn finish(self) -> Result<()> {
        match self.state {
            State::End if self.block.is_empty() => Ok(()),
            State::End => Err(self.corrupt("it does not end at a block's end")),
            _ => Err(self.corrupt("it is cut short: its two closing zero blocks are missing")),
        }
    }

    fn corrupt(&self, why: &str) -> Error {
        let at = self.offset - self.block.len() as u64;
        match &self.entry {
            Some(entry) => {
                Error::corrupt(format!("tar archive, offset {at}, entry '{}': {why}", String::from_utf8_lossy(&entry.path).escape_debug()))
            }
            None => Error::corrupt(format!("tar archive, offset {at}: {why}")),
        }
    }

    /// Takes some of `bytes` (not empty) and says how many.
    fn step(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<usize> {
        match &mut self.state {
            State::Header | State::HalfEnd | State::End => {
                let take = bytes.len().min(BLOCK - self.block.len());
                self.block.extend_from_slice(&bytes[..take]);
                if self.block.len() == BLOCK {
                    // The block counts as taken, for offsets in messages.
                    self.offset += take as u64;
                    let done = self.on_block(sink);
                    self.offset -= take as u64;
                    done?;
                    self.block.clear();
                }
                Ok(take)
            }
            State::Meta { left, .. } => {
                let take = clip(bytes.len(), *left);
                self.meta.extend_from_slice(&bytes[..take]);
                *left -= take as u64;
                if *left == 0 {
                    self.on_meta()?;
                }
                Ok(take)
            }
            State::Map { reader, left } => {
                let (taken, whole) = match reader.feed(&bytes[..clip(bytes.len(), *left)]) {
                    Ok(done) => done,
                    Err(why) => return Err(self.corrupt(why)),
                };
                *left -= taken as u64;
                if whole {
                    let (reader, left) = (std::mem::take(reader), *left);
                    let pad = reader.padding();
                    if pad > left {
                        return Err(self.corrupt("a sparse file is shorter than its map"));
                    }
                    self.state = State::MapPad { reader, left, pad };
                    self.on_map_pad(sink)?;
                } else if *left == 0 {
                    return Err(self.corrupt("a sparse file ends within its map"));
                }
                Ok(taken)
            }
            State::MapPad { left, pad, .. } => {
                let take = clip(bytes.len(), *pad);
                *left -= take as u64;
                *pad -= take as u64;
                self.on_map_pad(sink)?;
                Ok(take)
            }
            State::Data { left, offset, extent, .. } => {
                let mut take = clip(bytes.len(), *left);
                if let Some(extents) = self.entry.as_ref().and_then(|e| e.sparse.as_ref()) {
                    // Empty extents are passed over; the sum of the others is `left`, so one is found.
                    while let Some(this) = extents.get(*extent) {
                        *offset = (*offset).max(this.offset);
                        let ahead = this.offset + this.length - *offset;
                        if ahead > 0 {
                            take = clip(take, ahead);
                            break;
                        }
                        *extent += 1;
                    }
                }
                sink.data(*offset, &bytes[..take])?;
                *offset += take as u64;
                *left -= take as u64;
                if *left == 0 {
                    self.on_data_end(sink)?;
                }
                Ok(take)
            }
            State::Pad { pad } => {
                let take = bytes.len().min(*pad);
                if bytes[..take].iter().any(|b| *b != 0) {
                    return Err(self.corrupt("the padding of a file is not zeros: its size is wrong"));
                }
                *pad -= take;
                if *pad == 0 {
                    self.state = State::Header;
                }
                Ok(take)
            }
        }
    }

    /// A whole block where a header or zeros must stand.
    fn on_block(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let mut block = [0u8; BLOCK];
        block.copy_from_slice(&self.block);
        let zero = block.iter().all(|b| *b == 0);
        match (&self.state, zero) {
            (State::Header, true) => {
                if self.records.is_some() || self.long_name.is_some() || self.long_link.is_some() {
                    return Err(self.corrupt("it ends behind an extended header"));
                }
                self.state = State::HalfEnd;
                Ok(())
            }
            (State::HalfEnd | State::End, true) => {
                self.state = State::End;
                Ok(())
            }
            (State::HalfEnd, false) => Err(self.corrupt("one zero block stands alone")),
            (State::End, false) => Err(self.corrupt("something follows the end of the archive")),
            _ => self.on_header(&block, sink),
        }
    }

    fn on_header(&mut self, block: &[u8; BLOCK], sink: &mut dyn Sink) -> Result<()> {
        if header::number(&block[field::CHECKSUM]) != i64::try_from(header::checksum(block)).ok() {
            return Err(self.corrupt("a header's checksum is wrong"));
        }
        let gnu = match &block[field::MAGIC] {
            magic if magic == POSIX => false,
            magic if magic == GNU => true,
            _ => return Err(self.corrupt("a header is not in ustar format")),
        };
        let kind = block[field::TYPE];
        let size = header::number(&block[field::SIZE]).and_then(|n| u64::try_from(n).ok());
        let Some(size) = size else {
            return Err(self.corrupt("a header's size is not a number"));
        };
        let meta = match kind {
            b'x' => Some((Meta::Pax, pax::MAX_PAX, self.records.is_some())),
            b'g' => Some((Meta::Global, pax::MAX_PAX, self.records.is_some())),
            b'L' => Some((Meta::LongName, MAX_LONG_NAME, self.long_name.is_some())),
            b'K' => Some((Meta::LongLink, MAX_LONG_NAME, self.long_link.is_some())),
            _ => None,
        };
        if let Some((meta, most, again)) = meta {
            if again {
                return Err(self.corrupt("two extended headers of one kind stand before one entry"));
            }
            if size > most || size == 0 {
                return Err(self.corrupt("an extended header has an impossible size"));
            }
            self.meta.clear();
            self.state = State::Meta { meta, left: size, pad: padding(size) };
            return Ok(());
        }
        self.on_entry(block, gnu, size, sink)
    }

    /// An extended header is whole.
    fn on_meta(&mut self) -> Result<()> {
        let State::Meta { meta, pad, .. } = self.state else { return Ok(()) };
        let bytes = std::mem::take(&mut self.meta);
        match meta {
            Meta::Pax => match pax::parse(&bytes) {
                Ok(records) => self.records = Some(records),
                Err(why) => return Err(self.corrupt(why)),
            },
            Meta::Global => pax::check_global(&bytes).map_err(|e| self.corrupt(&e.to_string()))?,
            Meta::LongName | Meta::LongLink => {
                let name = header::text(&bytes);
                if name.is_empty() || bytes[name.len()..].iter().any(|b| *b != 0) {
                    return Err(self.corrupt("a long name is empty or holds a NUL"));
                }
                let slot = if matches!(meta, Meta::LongName) { &mut self.long_name } else { &mut self.long_link };
                *slot = Some(name.to_vec());
            }
        }
        self.state = if pad == 0 { State::Header } else { State::Pad { pad } };
        Ok(())
    }

    /// A header of an entry: everything known about it comes together here.
    fn on_entry(&mut self, block: &[u8; BLOCK], gnu: bool, header_size: u64, sink: &mut dyn Sink) -> Result<()> {
        let records = self.records.take().unwrap_or_default();
        let (long_name, long_link) = (self.long_name.take(), self.long_link.take());
        if (long_name.is_some() && (records.path.is_some() || records.sparse_name.is_some()))
            || (long_link.is_some() && records.link.is_some())
        {
            return Err(self.corrupt("an entry has two names"));
        }
        // A reader that does not know PAX would see the other size, and other entries: never two sizes.
        let size = match records.size {
            Some(size) if header_size != 0 && header_size != size => {
                return Err(self.corrupt("PAX size and header size differ"));
            }
            Some(size) => size,
            None => header_size,
        };
        let mut path = match records.sparse_name.or(records.path).or(long_name) {
            Some(path) => path,
            None => header_path(block, gnu),
        };
        let link = records.link.or(long_link).unwrap_or_else(|| header::text(&block[field::LINK]).to_vec());
        let slash = path.last() == Some(&b'/');
        let kind = match block[field::TYPE] {
            b'0' | b'7' | 0 => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'5' => EntryKind::Dir,
            other @ (b'3' | b'4' | b'6') => EntryKind::Other(other),
            _ => return Err(self.corrupt("an entry is of an unknown type")),
        };
        if kind == EntryKind::Dir {
            while path.len() > 1 && path.last() == Some(&b'/') {
                path.pop();
            }
        } else if slash {
            return Err(self.corrupt("the name of something that is no folder ends in a slash"));
        }
        let links = matches!(kind, EntryKind::Symlink | EntryKind::HardLink);
        if path.is_empty() || (links && link.is_empty()) {
            return Err(self.corrupt("an entry has no name, or a link no target"));
        }
        let number = |range: std::ops::Range<usize>| header::number(&block[range]);
        let id = |said: Option<u64>, range| said.or_else(|| number(range).and_then(|n| u64::try_from(n).ok()));
        let (Some(mode), Some(uid), Some(gid), Some(mtime)) =
            (number(field::MODE), id(records.uid, field::UID), id(records.gid, field::GID), number(field::MTIME))
        else {
            return Err(self.corrupt("a number in a header is not one"));
        };
        let entry = Entry {
            path,
            kind,
            link: if links { link } else { Vec::new() },
            mode: (mode & 0o7777) as u32,
            uid,
            gid,
            uname: records.uname.unwrap_or_else(|| header::text(&block[field::UNAME]).to_vec()),
            gname: records.gname.unwrap_or_else(|| header::text(&block[field::GNAME]).to_vec()),
            mtime: records.mtime.unwrap_or((mtime, 0)),
            size: 0,
            sparse: None,
            xattrs: records.xattrs,
        };
        self.entry = Some(entry);
        if kind != EntryKind::File && size != 0 {
            // Readers disagree whether content follows.
            return Err(self.corrupt("something that is no file has a size"));
        }
        match (records.sparse_major, records.sparse_minor, records.sparse_size) {
            (None, None, None) => self.begin(size, None, size, sink),
            (Some(1), Some(0), Some(real)) if kind == EntryKind::File => {
                if let Some(entry) = &mut self.entry {
                    entry.size = real;
                }
                if size == 0 {
                    return Err(self.corrupt("a sparse file has no map"));
                }
                self.state = State::Map { reader: MapReader::default(), left: size };
                Ok(())
            }
            _ => Err(self.corrupt("an entry is sparse in an unknown way")),
        }
    }

    /// The map's padding has shrunk; once it is gone the content begins.
    fn on_map_pad(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let State::MapPad { reader, left, pad: 0 } = &mut self.state else { return Ok(()) };
        let (reader, left) = (std::mem::take(reader), *left);
        let real = self.entry.as_ref().map_or(0, |e| e.size);
        match reader.finish(real, left) {
            Ok(extents) => self.begin(real, Some(extents), left, sink),
            Err(why) => Err(self.corrupt(why)),
        }
    }

    /// Tells the sink of the entry; `left` bytes of content follow.
    fn begin(&mut self, size: u64, sparse: Option<Vec<Extent>>, left: u64, sink: &mut dyn Sink) -> Result<()> {
        if let Some(entry) = &mut self.entry {
            entry.size = size;
            entry.sparse = sparse;
            sink.entry(entry)?;
        }
        // The map is whole blocks, so the padding depends on the content alone.
        self.state = State::Data { left, pad: padding(left), offset: 0, extent: 0 };
        if left == 0 { self.on_data_end(sink) } else { Ok(()) }
    }

    fn on_data_end(&mut self, sink: &mut dyn Sink) -> Result<()> {
        sink.end()?;
        let State::Data { pad, .. } = self.state else { return Ok(()) };
        self.entry = None;
        self.state = if pad == 0 { State::Header } else { State::Pad { pad } };
        Ok(())
    }
}

/// The name a header gives by itself.
fn header_path(block: &[u8; BLOCK], gnu: bool) -> Vec<u8> {
    let name = header::text(&block[field::NAME]);
    let prefix = if gnu { &[][..] } else { header::text(&block[field::PREFIX]) };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// The smaller of the two.
fn clip(have: usize, most: u64) -> usize {
    usize::try_from(most).map_or(have, |most| have.min(most))
}
