//! Cuts a plain stream into content-defined frames (DESIGN §4, FORMAT Encoding).
//!
//! FastCDC v2020, normalization level 1, from the crate `fastcdc`. The sizes follow the offset of the frame's first byte in the
//! plain stream, so that the index of a very large stream stays small; equal content at equal tiers gives equal frames.

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::{self, Normalization};

use crate::model::artifact::Chunker;

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// Name of the chunker in manifests.
pub const CHUNKER: &str = "fastcdc-v2020";

/// Sizes of frames from some offset of the stream on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tier {
    from: u64,
    min: usize,
    avg: usize,
    max: usize,
}

const fn tier(from: u64, avg: u64) -> Tier {
    Tier { from, min: (avg / 4) as usize, avg: avg as usize, max: (avg * 4) as usize }
}

/// Average 64 KiB up to 16 GiB, 256 KiB up to 128 GiB, 1 MiB beyond; a quarter and four times of it at least and at most.
const TIERS: [Tier; 3] = [tier(0, 64 * KIB), tier(16 * GIB, 256 * KIB), tier(128 * GIB, 1024 * KIB)];

/// Largest frame of any tier in bytes.
pub const MAX_FRAME_BYTES: usize = TIERS[2].max;

/// The chunker as a manifest names it.
pub fn chunker() -> Chunker {
    Chunker { name: CHUNKER.into(), min_bytes: TIERS[0].min as u32, avg_bytes: TIERS[0].avg as u32, max_bytes: TIERS[0].max as u32 }
}

/// The masks of one tier, computed once.
#[derive(Clone, Copy)]
struct Masks {
    small: u64,
    large: u64,
}

/// Cuts a stream that comes in blocks. Frames share the blocks' memory; only a frame that spans blocks is copied.
pub struct FrameCutter {
    /// Offset in the stream of the first byte not yet given out.
    offset: u64,
    /// Bytes of earlier blocks not yet given out; always shorter than the tier's largest frame.
    carry: Bytes,
    masks: [Masks; TIERS.len()],
}

impl Default for FrameCutter {
    fn default() -> Self {
        let masks = TIERS.map(|tier| {
            let (small, large) = v2020::select_masks(tier.avg, Normalization::Level1);
            Masks { small, large }
        });
        FrameCutter { offset: 0, carry: Bytes::new(), masks }
    }
}

impl FrameCutter {
    fn tier(&self) -> (Tier, Masks) {
        let at = TIERS.iter().rposition(|t| self.offset >= t.from).unwrap_or(0);
        (TIERS[at], self.masks[at])
    }

    /// Length of the frame that `window` begins with, if it is certain whatever follows the window.
    fn certain_cut(&self, window: &[u8]) -> Option<usize> {
        let (tier, masks) = self.tier();
        if window.len() <= tier.min {
            return None;
        }
        let (_, cut) = v2020::cut(window, tier.min, tier.avg, tier.max, masks.small, masks.large, masks.small << 1, masks.large << 1);
        // A cut at the window's end is the window's doing, unless the largest frame fits in it.
        (cut < window.len() || cut == tier.max).then_some(cut)
    }

    fn give(&mut self, frame: Bytes, out: &mut Vec<Bytes>) {
        self.offset += frame.len() as u64;
        out.push(frame);
    }

    /// Takes the next block; appends to `out` every frame whose end is now certain.
    pub fn push(&mut self, mut block: Bytes, out: &mut Vec<Bytes>) {
        if !self.carry.is_empty() {
            // The open frame ends at most `max` bytes behind its start: join just as much of the block as that takes.
            let (tier, _) = self.tier();
            let wanted = (tier.max - self.carry.len()).min(block.len());
            let mut joint = BytesMut::with_capacity(self.carry.len() + wanted);
            joint.extend_from_slice(&self.carry);
            joint.extend_from_slice(&block[..wanted]);
            let joint = joint.freeze();
            match self.certain_cut(&joint) {
                Some(cut) if cut > self.carry.len() => {
                    let _ = block.split_to(cut - self.carry.len());
                    self.carry = Bytes::new();
                    self.give(joint.slice(..cut), out);
                }
                Some(cut) => {
                    // Cannot be: a cut inside the carry would have been certain before. Kept right all the same.
                    let frame = joint.slice(..cut);
                    self.carry = self.carry.slice(cut..);
                    self.give(frame, out);
                    return self.push(block, out);
                }
                None => {
                    debug_assert_eq!(wanted, block.len());
                    self.carry = joint;
                    return;
                }
            }
        }
        while let Some(cut) = self.certain_cut(&block) {
            let frame = block.split_to(cut);
            self.give(frame, out);
        }
        self.carry = block;
    }

    /// The next byte starts a frame of its own: what is held becomes frames now. Also called at the stream's end.
    pub fn flush(&mut self, out: &mut Vec<Bytes>) {
        let rest = std::mem::take(&mut self.carry);
        if !rest.is_empty() {
            self.give(rest, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that look random and are the same each time.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect()
    }

    fn frames(data: &[u8], blocks: &[usize]) -> Vec<Bytes> {
        let mut cutter = FrameCutter::default();
        let mut out = Vec::new();
        let mut rest = Bytes::copy_from_slice(data);
        for len in blocks {
            let len = (*len).min(rest.len());
            cutter.push(rest.split_to(len), &mut out);
        }
        cutter.push(rest, &mut out);
        cutter.flush(&mut out);
        out
    }

    #[test]
    fn frames_are_those_of_the_crate_over_the_whole_stream() {
        let data = noise(5 << 20, 7);
        let whole: Vec<usize> = v2020::FastCDC::new(&data, TIERS[0].min, TIERS[0].avg, TIERS[0].max).map(|chunk| chunk.length).collect();
        let ours: Vec<usize> = frames(&data, &[]).iter().map(Bytes::len).collect();
        assert_eq!(ours, whole);
    }

    #[test]
    fn zeros_give_the_largest_frame_and_nothing_gives_nothing() {
        let lens: Vec<usize> = frames(&vec![0; 600 << 10], &[]).iter().map(Bytes::len).collect();
        assert_eq!(lens, [256 << 10, 256 << 10, 88 << 10]);
        assert!(frames(&[], &[]).is_empty());
    }

    #[test]
    fn later_tiers_cut_larger() {
        let mut cutter = FrameCutter { offset: 16 * GIB, ..FrameCutter::default() };
        let mut out = Vec::new();
        cutter.push(Bytes::from(vec![0; 3 << 20]), &mut out);
        assert_eq!(out[0].len(), 1 << 20);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn frames_do_not_depend_on_the_blocks(seed in 1u64..1000, len in 0usize..3_000_000, blocks in prop::collection::vec(1usize..400_000, 0..40)) {
            let data = noise(len, seed);
            let split = frames(&data, &blocks);
            prop_assert_eq!(split.concat(), data.clone());
            prop_assert_eq!(split, frames(&data, &[]));
        }
    }
}
