//! One frame at a time into and out of its codec.

use std::io::{Cursor, Read, Write};

use crate::error::{Error, Result};
use crate::model::Codec;

/// Compresses frames, each on its own. Holds its context from frame to frame; one for each worker.
pub enum FrameEncoder {
    /// zstd frames with their content size.
    Zstd(zstd::bulk::Compressor<'static>),
    /// gzip members without name or time.
    Gzip(flate2::Compression),
    /// As it is.
    None,
}

impl FrameEncoder {
    /// An encoder for `codec`.
    pub fn new(codec: Codec) -> Result<Self> {
        Ok(match codec {
            Codec::Zstd { level } => {
                FrameEncoder::Zstd(zstd::bulk::Compressor::new(level).map_err(|e| Error::failed("start zstd").because(e))?)
            }
            Codec::Gzip { level } => FrameEncoder::Gzip(flate2::Compression::new(level)),
            Codec::None => FrameEncoder::None,
        })
    }

    /// Appends the stored form of `plain` to `out`; returns its length.
    pub fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<usize> {
        let start = out.len();
        let failed = |e: std::io::Error| Error::failed("compress a frame").because(e);
        match self {
            FrameEncoder::Zstd(compressor) => {
                out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
                let mut tail = Cursor::new(&mut *out);
                tail.set_position(start as u64);
                compressor.compress_to_buffer(plain, &mut tail).map_err(failed)?;
            }
            FrameEncoder::Gzip(level) => {
                let mut encoder = flate2::write::GzEncoder::new(&mut *out, *level);
                encoder.write_all(plain).and_then(|()| encoder.try_finish()).map_err(failed)?;
            }
            FrameEncoder::None => out.extend_from_slice(plain),
        }
        Ok(out.len() - start)
    }
}

/// Decompresses frames, each on its own; never gives more bytes than were announced.
pub enum FrameDecoder {
    /// zstd.
    Zstd(zstd::bulk::Decompressor<'static>),
    /// gzip.
    Gzip,
    /// As it is.
    None,
}

impl FrameDecoder {
    /// A decoder for `codec`.
    pub fn new(codec: Codec) -> Result<Self> {
        Ok(match codec {
            Codec::Zstd { .. } => FrameDecoder::Zstd(zstd::bulk::Decompressor::new().map_err(|e| Error::failed("start zstd").because(e))?),
            Codec::Gzip { .. } => FrameDecoder::Gzip,
            Codec::None => FrameDecoder::None,
        })
    }

    /// Fills all of `plain` from the stored form of one frame; a frame that gives more or fewer bytes is corrupt.
    pub fn decode(&mut self, stored: &[u8], plain: &mut [u8]) -> Result<()> {
        let bad = |e: std::io::Error| Error::corrupt("a frame does not decompress").because(e);
        // The slice is the limit: a bomb fails, it does not grow (FAULTS 82).
        let got = match self {
            FrameDecoder::Zstd(decompressor) => decompressor.decompress_to_buffer(stored, &mut *plain).map_err(bad)?,
            FrameDecoder::Gzip => {
                let mut decoder = flate2::bufread::GzDecoder::new(stored);
                decoder.read_exact(plain).map_err(bad)?;
                if decoder.read(&mut [0]).map_err(bad)? != 0 {
                    return Err(Error::corrupt("a frame decompresses to more than its length"));
                }
                if !decoder.into_inner().is_empty() {
                    return Err(Error::corrupt("bytes follow the end of a gzip frame"));
                }
                plain.len()
            }
            FrameDecoder::None => {
                if stored.len() == plain.len() {
                    plain.copy_from_slice(stored);
                }
                stored.len()
            }
        };
        if got == plain.len() { Ok(()) } else { Err(Error::corrupt(format!("a frame of {} bytes decompresses to {got}", plain.len()))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Codec; 3] = [Codec::Zstd { level: 1 }, Codec::Gzip { level: 6 }, Codec::None];

    #[test]
    fn frames_come_back_and_lie_behind_one_another() {
        for codec in CODECS {
            let mut encoder = FrameEncoder::new(codec).unwrap();
            let mut decoder = FrameDecoder::new(codec).unwrap();
            let frames = [b"".to_vec(), b"hello".to_vec(), vec![7; 300_000]];
            let mut out = Vec::new();
            let lens: Vec<usize> = frames.iter().map(|f| encoder.encode(f, &mut out).unwrap()).collect();
            assert_eq!(out.len(), lens.iter().sum::<usize>());
            let mut at = 0;
            for (frame, len) in frames.iter().zip(lens) {
                let mut plain = vec![0; frame.len()];
                decoder.decode(&out[at..at + len], &mut plain).unwrap();
                assert_eq!(&plain, frame, "{codec:?}");
                at += len;
            }
        }
    }

    #[test]
    fn f82_a_frame_that_is_larger_or_smaller_than_announced_is_refused() {
        for codec in CODECS {
            let mut out = Vec::new();
            FrameEncoder::new(codec).unwrap().encode(&vec![0; 50_000_000], &mut out).unwrap();
            let mut decoder = FrameDecoder::new(codec).unwrap();
            assert!(decoder.decode(&out, &mut [0; 1000]).is_err(), "{codec:?} larger");
            assert!(decoder.decode(&out, &mut vec![0; 50_000_001]).is_err(), "{codec:?} smaller");
        }
    }

    #[test]
    fn f82_trailing_bytes_of_a_frame_are_refused() {
        for codec in [CODECS[0], CODECS[1]] {
            let mut out = Vec::new();
            FrameEncoder::new(codec).unwrap().encode(b"hello", &mut out).unwrap();
            out.push(0);
            assert!(FrameDecoder::new(codec).unwrap().decode(&out, &mut [0; 5]).is_err(), "{codec:?}");
        }
    }
}
