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
    use crate::model::testing::{alone, passes};

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

    /// What the other tests of this process reserve must not be counted.
    #[test]
    fn f82_a_huge_window_or_content_size_takes_no_memory() {
        passes(&mut alone("pipeline::codec::tests::helper_of_f82_huge_window"));
    }

    /// Frames as an attacker writes them, by RFC 8878: a window of 2 GiB or more must not make us reserve it, nor a content size.
    #[test]
    #[ignore = "a part of f82_a_huge_window_or_content_size_takes_no_memory, which runs it in a process of its own"]
    fn helper_of_f82_huge_window() {
        const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
        // The last block, raw, of 5 bytes: (5 << 3) | (0 << 1) | 1.
        const BLOCK: [u8; 8] = [0x29, 0, 0, b'h', b'e', b'l', b'l', b'o'];
        // Descriptor 0 and a window of 2^(10 + 21), of 2^(10 + 31) and 7/8 more; descriptor 0xc0 and a content size of 2^40.
        let headers: [&[u8]; 3] = [&[0x00, 21 << 3], &[0x00, 0xff], &[0xe0, 0, 0, 0, 0, 0, 1, 0, 0]];
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|l| l.starts_with("VmPeak")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
        };
        let before = resident();
        for header in headers {
            let frame = [&MAGIC[..], header, &BLOCK].concat();
            let mut decoder = FrameDecoder::new(CODECS[0]).unwrap();
            let mut plain = [0; 5];
            if decoder.decode(&frame, &mut plain).is_ok() {
                assert_eq!(&plain, b"hello", "{header:?}");
            }
            assert!(decoder.decode(&frame, &mut [0; 4]).is_err(), "{header:?}: one byte too many");
        }
        assert!(resident() < before + 1024, "address space grew from {before} to {} MiB", resident());
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
