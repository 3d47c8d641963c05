//! The 512 bytes of a ustar header: fields, numbers, checksum. Offsets are those of POSIX `pax`, "ustar Interchange Format".

use crate::format::tar::BLOCK;

/// Where the fields lie.
pub(super) mod field {
    use std::ops::Range;
    pub const NAME: Range<usize> = 0..100;
    pub const MODE: Range<usize> = 100..108;
    pub const UID: Range<usize> = 108..116;
    pub const GID: Range<usize> = 116..124;
    pub const SIZE: Range<usize> = 124..136;
    pub const MTIME: Range<usize> = 136..148;
    pub const CHECKSUM: Range<usize> = 148..156;
    pub const TYPE: usize = 156;
    pub const LINK: Range<usize> = 157..257;
    pub const MAGIC: Range<usize> = 257..265;
    pub const UNAME: Range<usize> = 265..297;
    pub const GNAME: Range<usize> = 297..329;
    pub const PREFIX: Range<usize> = 345..500;
}

/// POSIX magic and version.
pub(super) const POSIX: &[u8; 8] = b"ustar\x0000";
/// What GNU tar writes in its own format; the prefix field means something else there.
pub(super) const GNU: &[u8; 8] = b"ustar  \0";

/// Sum of all bytes with the checksum field taken as spaces.
pub(super) fn checksum(block: &[u8; BLOCK]) -> u64 {
    let field: u64 = block[field::CHECKSUM].iter().map(|b| u64::from(*b)).sum();
    block.iter().map(|b| u64::from(*b)).sum::<u64>() - field + 8 * u64::from(b' ')
}

/// A text field: its bytes up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    &field[..memchr::memchr(0, field).unwrap_or(field.len())]
}

/// A number field: octal digits between spaces or NULs, or GNU's base-256. `None` when it is neither, or outside `i64`.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let field = &field[start..];
    let end = field.iter().position(|b| !(b'0'..=b'7').contains(b)).unwrap_or(field.len());
    if field[end..].iter().any(|b| *b != b' ' && *b != 0) {
        return None;
    }
    field[..end].iter().try_fold(0i64, |value, b| value.checked_mul(8)?.checked_add(i64::from(b - b'0')))
}

fn base256(field: &[u8]) -> Option<i64> {
    // 0x80 marks the field; the bit beside it is the sign.
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = i128::from(field[0] & 0x3f) - if negative { 64 } else { 0 };
    for b in &field[1..] {
        value = value.checked_mul(256)?.checked_add(i128::from(*b))?;
        if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
            return None;
        }
    }
    i64::try_from(value).ok()
}

/// Writes a number: octal when it fits, else base-256.
pub(super) fn put_number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    if digits >= 21 || value < 1u64 << (3 * digits) {
        put_octal(field, value);
        return;
    }
    field.fill(0);
    let len = field.len();
    let bytes = value.to_be_bytes();
    let take = bytes.len().min(len - 1);
    field[len - take..].copy_from_slice(&bytes[bytes.len() - take..]);
    field[0] |= 0x80;
}

/// Writes octal digits and a NUL; the caller knows that they fit.
pub(super) fn put_octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for slot in field[..digits].iter_mut().rev() {
        *slot = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    field[digits] = 0;
}

/// Writes the checksum as six digits, NUL, space.
pub(super) fn seal(block: &mut [u8; BLOCK]) {
    let sum = checksum(block);
    put_octal(&mut block[field::CHECKSUM][..7], sum);
    block[field::CHECKSUM.end - 1] = b' ';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (bytes, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"644", Some(0o644)),
            (b"6 4\0", None),
            (b"8\0", None),
            (b"-1\0", None),
            (b"777777777777777777777", Some(0o777_777_777_777_777_777_777)),
            (b"7777777777777777777777", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(bytes), value, "{bytes:?}");
        }
    }

    #[test]
    fn numbers_written_are_read_back() {
        for value in [0, 1, 0o7777777, 0o10000000, u64::from(u32::MAX), 1 << 33, (1 << 36) - 1, 1 << 36, i64::MAX as u64] {
            let mut field = [0u8; 12];
            put_number(&mut field, value);
            assert_eq!(number(&field), Some(value as i64), "{value}");
        }
        for value in [0, 0o7777777, 0o10000000, u64::from(u32::MAX)] {
            let mut field = [0u8; 8];
            put_number(&mut field, value);
            assert_eq!(number(&field), Some(value as i64), "{value}");
        }
    }
}
