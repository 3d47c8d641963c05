//! A file's bytes on their way into the stream: where its holes are, and exactly as many bytes as its header promised.

use std::os::fd::BorrowedFd;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::format::tar::{Extent, padding};
use crate::pipeline::plain::PlainSender;
use crate::source::files::sys::Node;

/// Bytes read and sent at a time.
const BLOCK: usize = 512 << 10;

/// A file longer than this has frames of its own (DESIGN §4).
pub(super) const OWN_FRAMES: u64 = 256 << 10;

/// Most pieces a file's map lists; smaller holes are read as zeros until it fits.
const MAX_PIECES: usize = 65_536;

/// Smallest hole worth a line in the map.
const MIN_HOLE: u64 = 4096;

/// Gathers small things into blocks on their way to the pipeline.
pub(super) struct Out {
    sender: PlainSender,
    cancel: CancellationToken,
    buffer: Vec<u8>,
}

impl Out {
    pub fn new(sender: PlainSender, cancel: CancellationToken) -> Self {
        Out { sender, cancel, buffer: Vec::with_capacity(BLOCK) }
    }

    /// An error once the run is to end.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::new(Kind::Interrupted, "the run was stopped"));
        }
        Ok(())
    }

    /// Appends what `write` appends.
    pub fn with<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T> {
        let done = write(&mut self.buffer);
        if self.buffer.len() >= BLOCK {
            self.flush()?;
        }
        Ok(done)
    }

    /// Sends what was gathered.
    pub fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.check()?;
            let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BLOCK));
            self.sender.blocking_data(Bytes::from(full))?;
        }
        Ok(())
    }

    /// The next byte starts a frame.
    fn cut(&mut self) -> Result<()> {
        self.flush()?;
        self.sender.blocking_cut()
    }
}

/// How reading a file ended.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Bytes that were not there any more; zeros stand for them.
    pub missing_bytes: u64,
    /// Why, where it was an error of the disk.
    pub error: Option<Errno>,
}

/// The pieces of a file that hold data; `None` when it has no holes, or the file system cannot say.
pub(super) fn pieces(fd: BorrowedFd<'_>, node: &Node) -> Option<Vec<Extent>> {
    if node.blocks.saturating_mul(512) >= node.size {
        return None;
    }
    let mut out: Vec<Extent> = Vec::new();
    let mut min_hole = MIN_HOLE;
    let mut at = 0;
    while at < node.size {
        let start = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(start) if start < node.size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = rustix::fs::seek(fd, SeekFrom::Hole(start)).ok()?.min(node.size);
        if end <= start {
            return None;
        }
        push(&mut out, Extent { offset: start, length: end - start }, min_hole);
        at = end;
        while out.len() > MAX_PIECES {
            min_hole *= 2;
            let mut wider = Vec::new();
            for piece in out {
                push(&mut wider, piece, min_hole);
            }
            out = wider;
        }
    }
    match out.as_slice() {
        [whole] if whole.offset == 0 && whole.length == node.size => None,
        _ => Some(out),
    }
}

/// Adds a piece, joined to the last one when the hole between them is not worth it.
fn push(pieces: &mut Vec<Extent>, piece: Extent, min_hole: u64) {
    match pieces.last_mut() {
        Some(last) if piece.offset - (last.offset + last.length) < min_hole => last.length = piece.offset + piece.length - last.offset,
        None if piece.offset < min_hole => pieces.push(Extent { offset: 0, length: piece.offset + piece.length }),
        _ => pieces.push(piece),
    }
}

/// Sends the file's pieces and the padding behind them: always as many bytes as they say, whatever happens to the file.
/// A file over 256 KiB is set off by cuts at both ends, so that its frames do not depend on its neighbours.
pub(super) fn copy(fd: BorrowedFd<'_>, pieces: &[Extent], out: &mut Out) -> Result<Copied> {
    let length: u64 = pieces.iter().map(|p| p.length).sum();
    let own_frames = length > OWN_FRAMES;
    if own_frames {
        out.cut()?;
    }
    let mut copied = Copied::default();
    for piece in pieces {
        copy_piece(fd, *piece, out, &mut copied)?;
    }
    out.with(|buffer| buffer.resize(buffer.len() + padding(length), 0))?;
    if own_frames {
        out.cut()?;
    }
    Ok(copied)
}

fn copy_piece(fd: BorrowedFd<'_>, piece: Extent, out: &mut Out, copied: &mut Copied) -> Result<()> {
    let mut offset = piece.offset;
    let mut left = piece.length;
    let mut gone = copied.error.is_some();
    while left > 0 {
        out.check()?;
        let before = out.buffer.len();
        let room = (out.buffer.capacity().saturating_sub(before)).min(BLOCK) as u64;
        let want = left.min(room) as usize;
        if want < room as usize && want as u64 == left || gone {
            // The last part of a piece: no byte behind it may be read, the next piece or the padding follows.
            out.buffer.resize(before + want, 0);
        }
        let read = if gone {
            Ok(0)
        } else if out.buffer.len() > before {
            rustix::io::pread(fd, &mut out.buffer[before..], offset)
        } else {
            rustix::io::pread(fd, spare_capacity(&mut out.buffer), offset)
        };
        let read = match read {
            Ok(read) => read as u64,
            Err(Errno::INTR) => {
                out.buffer.truncate(before);
                continue;
            }
            Err(error) => {
                copied.error = Some(error);
                0
            }
        };
        let taken = if read == 0 {
            gone = true;
            out.buffer.resize(before + want, 0);
            copied.missing_bytes += want as u64;
            want as u64
        } else {
            // More came than was promised only where the whole spare room was offered.
            let taken = read.min(left);
            out.buffer.truncate(before + taken as usize);
            taken
        };
        offset += taken;
        left -= taken;
        if out.buffer.len() >= BLOCK || out.buffer.len() == out.buffer.capacity() {
            out.flush()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_holes_are_joined() {
        let mut out = Vec::new();
        for (offset, length) in [(100, 50), (200, 50), (10_000, 1), (10_002, 5)] {
            push(&mut out, Extent { offset, length }, MIN_HOLE);
        }
        assert_eq!(out, [Extent { offset: 0, length: 250 }, Extent { offset: 10_000, length: 7 }]);
    }
}
