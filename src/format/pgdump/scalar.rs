//! Ints and strings that may be cut anywhere by the pieces in which the stream arrives.

/// Longest string of an archive: PostgreSQL's own limit for one value (`MaxAllocSize`).
const STRING_LIMIT: i64 = 0x3fff_ffff;
/// Bytes kept of a string. What is kept are names (63 bytes each by default) and the first word of a COPY.
pub(super) const KEPT: usize = 4096;

/// A field's value, once all of it has arrived.
pub(super) type Ready<T> = Option<T>;

/// Collects the fields of the archive's head and table of contents.
#[derive(Default)]
pub(super) struct Scalars {
    /// Bytes of an int's magnitude: 4 or 8.
    pub(super) int_bytes: usize,
    held: [u8; 16],
    have: usize,
    text: Option<Text>,
}

struct Text {
    left: usize,
    kept: Vec<u8>,
}

impl Scalars {
    /// `count` (at most 16) raw bytes.
    pub(super) fn raw(&mut self, input: &mut &[u8], count: usize) -> Ready<[u8; 16]> {
        let take = (count - self.have).min(input.len());
        let (head, rest) = input.split_at(take);
        self.held[self.have..self.have + take].copy_from_slice(head);
        self.have += take;
        *input = rest;
        if self.have < count {
            return None;
        }
        self.have = 0;
        Some(self.held)
    }

    /// One byte.
    pub(super) fn byte(&mut self, input: &mut &[u8]) -> Ready<u8> {
        self.raw(input, 1).map(|b| b[0])
    }

    /// An int; `Err` when it does not fit.
    #[inline]
    pub(super) fn int(&mut self, input: &mut &[u8]) -> Result<Ready<i64>, &'static str> {
        // Nearly every int of an archive is the length of a row, whole in the input.
        if self.have == 0
            && self.int_bytes == 4
            && let Some((head, rest)) = input.split_first_chunk::<5>()
        {
            *input = rest;
            let magnitude = i64::from(u32::from_le_bytes([head[1], head[2], head[3], head[4]]));
            return signed(head[0], magnitude).map(Some);
        }
        let Some(held) = self.raw(input, 1 + self.int_bytes) else {
            return Ok(None);
        };
        let mut magnitude = [0u8; 8];
        magnitude[..self.int_bytes].copy_from_slice(&held[1..=self.int_bytes]);
        let magnitude = i64::try_from(u64::from_le_bytes(magnitude)).map_err(|_| "an int that is too large")?;
        signed(held[0], magnitude).map(Some)
    }

    /// A string, of which the first [`KEPT`] bytes are kept, or nothing (`None` inside). Memory grows with what arrives, never with a length.
    pub(super) fn string(&mut self, input: &mut &[u8]) -> Result<Ready<Option<Vec<u8>>>, &'static str> {
        if self.text.is_none() {
            let Some(length) = self.int(input)? else {
                return Ok(None);
            };
            if length < 0 {
                return Ok(Some(None));
            }
            if length > STRING_LIMIT {
                return Err("a string longer than PostgreSQL allows");
            }
            self.text = Some(Text { left: usize::try_from(length).map_err(|_| "a string that is too long")?, kept: Vec::new() });
        }
        let Some(text) = &mut self.text else {
            return Ok(None);
        };
        let take = text.left.min(input.len());
        let (head, rest) = input.split_at(take);
        let room = KEPT - text.kept.len();
        text.kept.extend_from_slice(&head[..take.min(room)]);
        text.left -= take;
        *input = rest;
        if text.left > 0 {
            return Ok(None);
        }
        Ok(Some(self.text.take().map(|text| text.kept)))
    }
}

#[inline]
fn signed(sign: u8, magnitude: i64) -> Result<i64, &'static str> {
    match sign {
        0 => Ok(magnitude),
        1 => Ok(-magnitude),
        _ => Err("an int with an impossible sign"),
    }
}
