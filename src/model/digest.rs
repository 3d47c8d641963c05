//! SHA-256 values and the plain digest of an artifact.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::error::{Error, Kind, Result};

/// A SHA-256 value; written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// A hash over bytes that come in pieces.
    pub fn hasher() -> Hasher {
        Hasher(sha2::Sha256::new())
    }
}

/// SHA-256 over bytes that come in pieces.
#[derive(Clone)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all pieces.
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

/// CRC-64/NVME over bytes that come in pieces: the checksum that S3 keeps of a whole object. No proof against intent, only against accidents.
#[derive(Clone)]
pub struct Crc64Nvme(crc_fast::Digest);

impl Default for Crc64Nvme {
    fn default() -> Self {
        Crc64Nvme(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme))
    }
}

impl Crc64Nvme {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all pieces.
    pub fn finish(&self) -> u64 {
        self.0.finalize()
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

impl FromStr for Sha256 {
    type Err = Error;

    /// Exactly 64 lower-case hex digits: one value has one spelling.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(Kind::Corrupt, format!("'{}' is not a SHA-256 in lower-case hex", text.escape_debug()));
        if text.len() != 64 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut out = [0u8; 32];
        hex::decode_to_slice(text, &mut out).map_err(|_| bad())?;
        Ok(Sha256(out))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Builds the plain digest of an artifact: SHA-256 of `drctl-plain-0\n`, then per frame the 32 bytes of its
/// SHA-256 and its length as u64 little-endian (FORMAT, Encoding).
#[derive(Clone)]
pub struct PlainDigest(Hasher);

impl Default for PlainDigest {
    fn default() -> Self {
        let mut hasher = Sha256::hasher();
        hasher.update(b"drctl-plain-0\n");
        PlainDigest(hasher)
    }
}

impl PlainDigest {
    /// Takes the next frame, in order.
    pub fn frame(&mut self, sha256: &Sha256, plain_bytes: u64) {
        self.0.update(&sha256.0);
        self.0.update(&plain_bytes.to_le_bytes());
    }

    /// The digest of all frames.
    pub fn finish(self) -> Sha256 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        let a = Sha256::of(b"a");
        assert_eq!(a.to_string().parse::<Sha256>().unwrap(), a);
        assert!(a.to_string().to_uppercase().parse::<Sha256>().is_err());
        assert!("00".parse::<Sha256>().is_err());
    }

    #[test]
    fn plain_digest_is_as_the_format_says() {
        let frame = Sha256::of(b"hello");
        let mut digest = PlainDigest::default();
        digest.frame(&frame, 5);
        let mut by_hand = b"drctl-plain-0\n".to_vec();
        by_hand.extend_from_slice(&frame.0);
        by_hand.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(digest.finish(), Sha256::of(&by_hand));
    }
}
