//! The frame index of an artifact (docs/format.md, Index).
//!
//! ```text
//! "drctl-index-0\n"                                   14 bytes
//! segments, each:
//!   0x01  count u32    then per frame: plain length u32, stored length u32, SHA-256 of the plain bytes (32 bytes)
//! 0x00                                                the end; nothing follows
//! ```
//! Numbers are little-endian. Frames stand in the order of the plain stream; the first frame's stored bytes begin at offset 0 of the
//! compressed stream and each further one's where the one before ended. Tag 0x02 is kept for frames of other artifacts.

use crate::error::{Error, Kind, Result};
use crate::model::{Artifact, PlainDigest, Sha256};

const MAGIC: &[u8; 14] = b"drctl-index-0\n";
const OWN_FRAMES: u8 = 0x01;
const FOREIGN_FRAMES: u8 = 0x02;
const END: u8 = 0x00;
const ENTRY_BYTES: usize = 40;
/// Frames in a segment: keeps the writer's memory in small steps instead of one doubling vector.
const SEGMENT_FRAMES: usize = 4096;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Length of the plain bytes.
    pub plain_bytes: u32,
    /// Length of the stored (compressed) bytes.
    pub stored_bytes: u32,
    /// SHA-256 of the plain bytes.
    pub sha256: Sha256,
}

/// Takes frames as they are made; holds them in their encoded form, 40 bytes each.
#[derive(Default)]
pub struct IndexWriter {
    segments: Vec<Vec<u8>>,
    frames: u64,
}

impl IndexWriter {
    /// Takes the next frame.
    pub fn push(&mut self, entry: &FrameEntry) {
        let full = self.segments.last().is_none_or(|s| s.len() >= SEGMENT_FRAMES * ENTRY_BYTES);
        if full {
            self.segments.push(Vec::with_capacity(SEGMENT_FRAMES.min(64) * ENTRY_BYTES));
        }
        if let Some(segment) = self.segments.last_mut() {
            segment.extend_from_slice(&entry.plain_bytes.to_le_bytes());
            segment.extend_from_slice(&entry.stored_bytes.to_le_bytes());
            segment.extend_from_slice(&entry.sha256.0);
        }
        self.frames += 1;
    }

    /// Number of frames so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Length of the encoded index in bytes.
    pub fn encoded_bytes(&self) -> u64 {
        let segments: usize = self.segments.iter().map(|s| 5 + s.len()).sum();
        (MAGIC.len() + segments + 1) as u64
    }

    /// Writes the encoded index piece by piece; returns its SHA-256.
    pub fn write(&self, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<Sha256> {
        let mut hasher = Sha256::hasher();
        let mut out = |piece: &[u8]| {
            hasher.update(piece);
            write(piece)
        };
        out(MAGIC)?;
        for segment in &self.segments {
            let count = (segment.len() / ENTRY_BYTES) as u32;
            let mut head = [OWN_FRAMES; 5];
            head[1..].copy_from_slice(&count.to_le_bytes());
            out(&head)?;
            out(segment)?;
        }
        out(&[END])?;
        Ok(hasher.finish())
    }
}

/// A decoded index; 40 bytes a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Index {
    /// The frames in the order of the plain stream.
    pub frames: Vec<FrameEntry>,
}

impl Index {
    /// Decodes an index whose SHA-256 has been checked, and compares it with what the manifest says of the artifact:
    /// number of frames, plain length, compressed length, plain digest.
    pub fn decode(bytes: &[u8], artifact: &Artifact, index_frame_bytes: u64) -> Result<Index> {
        let bad = |what: &str| Error::corrupt(format!("the index of {}: {what}", artifact.file));
        let mut rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or_else(|| bad("does not begin as one"))?;
        // The count is believed only as far as bytes are there for it.
        let mut frames = Vec::with_capacity((artifact.frames as usize).min(bytes.len() / ENTRY_BYTES));
        loop {
            let (tag, after) = rest.split_first().ok_or_else(|| bad("ends too soon"))?;
            rest = after;
            match *tag {
                END if rest.is_empty() => break,
                END => return Err(bad("bytes follow its end")),
                OWN_FRAMES => {
                    let (count, after) = rest.split_first_chunk::<4>().ok_or_else(|| bad("ends too soon"))?;
                    let wanted = (u32::from_le_bytes(*count) as usize).saturating_mul(ENTRY_BYTES);
                    let (entries, after) = after.split_at_checked(wanted).ok_or_else(|| bad("ends too soon"))?;
                    rest = after;
                    frames.extend(entries.chunks_exact(ENTRY_BYTES).map(entry));
                }
                FOREIGN_FRAMES => {
                    return Err(Error::new(Kind::Unsupported, format!("the index of {} refers to other sets", artifact.file))
                        .hint("this set was made by a later drctl: use that version to read it"));
                }
                _ => return Err(bad("has an unknown tag")),
            }
        }
        let index = Index { frames };
        index.compare(artifact, index_frame_bytes).map_err(|what| bad(&what))?;
        Ok(index)
    }

    fn compare(&self, artifact: &Artifact, index_frame_bytes: u64) -> std::result::Result<(), String> {
        let mut digest = PlainDigest::default();
        let (mut plain, mut stored) = (0u64, index_frame_bytes);
        for frame in &self.frames {
            if frame.plain_bytes as usize > crate::pipeline::frame::MAX_FRAME_BYTES {
                return Err(format!("a frame of {} bytes is larger than any may be", frame.plain_bytes));
            }
            digest.frame(&frame.sha256, u64::from(frame.plain_bytes));
            plain += u64::from(frame.plain_bytes);
            stored += u64::from(frame.stored_bytes);
        }
        if self.frames.len() as u64 != artifact.frames {
            return Err(format!("{} frames where the manifest has {}", self.frames.len(), artifact.frames));
        }
        if plain != artifact.plain_bytes || stored != artifact.compressed_bytes {
            return Err(format!(
                "{plain} plain and {stored} compressed bytes where the manifest has {} and {}",
                artifact.plain_bytes, artifact.compressed_bytes
            ));
        }
        if digest.finish() != artifact.plain_digest {
            return Err("its plain digest is not the manifest's".into());
        }
        Ok(())
    }
}

fn entry(bytes: &[u8]) -> FrameEntry {
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(&bytes[8..ENTRY_BYTES]);
    FrameEntry { plain_bytes: number(0), stored_bytes: number(4), sha256: Sha256(sha256) }
}
