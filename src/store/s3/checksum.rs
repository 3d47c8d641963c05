//! Checksums in S3's own words: computed by us over what we send, and compared with what the store answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest};

/// A checksum that a store checks and keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// CRC-64/NVME: the only one that S3 keeps of a whole multipart object.
    Crc64Nvme,
    /// CRC-32C (Castagnoli): of a multipart object S3 keeps the checksum of its parts' checksums.
    Crc32c,
    /// None that is known to be honoured.
    None,
}

impl Algorithm {
    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::None => None,
        }
    }

    /// A CRC-64/NVME that is known already.
    pub fn known(crc64_nvme: u64) -> Checksum {
        let text = base64(&crc64_nvme.to_be_bytes());
        Checksum { algorithm: Algorithm::Crc64Nvme, text: Some(text) }
    }

    /// The checksum of some bytes.
    pub fn of(self, bytes: &[u8]) -> Checksum {
        Checksum { algorithm: self, text: self.raw(bytes).map(|raw| base64(&raw)) }
    }

    /// Ours of the checksums in an answer's fields.
    pub fn of_answer(self, crc64_nvme: Option<String>, crc32c: Option<String>) -> Option<String> {
        match self {
            Algorithm::Crc64Nvme => crc64_nvme,
            Algorithm::Crc32c => crc32c,
            Algorithm::None => None,
        }
    }

    /// The checksum of some bytes, big-endian.
    fn raw(self, bytes: &[u8]) -> Option<Vec<u8>> {
        Some(self.bytes_of(crc_fast::checksum(self.crc()?, bytes)))
    }

    fn bytes_of(self, value: u64) -> Vec<u8> {
        match self {
            Algorithm::Crc64Nvme => value.to_be_bytes().to_vec(),
            // A CRC-32 comes in the low half.
            _ => (value as u32).to_be_bytes().to_vec(),
        }
    }
}

/// A checksum as S3 writes it, for the field that S3 has for its algorithm.
#[derive(Clone, Debug)]
pub struct Checksum {
    algorithm: Algorithm,
    text: Option<String>,
}

impl Checksum {
    /// In base64; `None` of a provider that honours none.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The value of the field for CRC-64/NVME.
    pub fn crc64_nvme(&self) -> Option<String> {
        self.text.clone().filter(|_| self.algorithm == Algorithm::Crc64Nvme)
    }

    /// The value of the field for CRC-32C.
    pub fn crc32c(&self) -> Option<String> {
        self.text.clone().filter(|_| self.algorithm == Algorithm::Crc32c)
    }
}

fn base64(raw: &[u8]) -> String {
    STANDARD.encode(raw)
}

/// The checksum of one object as it grows.
pub struct Whole {
    algorithm: Algorithm,
    digest: Option<Digest>,
    parts: Vec<u8>,
    count: usize,
}

impl Whole {
    /// Of nothing yet.
    pub fn new(algorithm: Algorithm) -> Whole {
        Whole { algorithm, digest: algorithm.crc().map(Digest::new), parts: Vec::new(), count: 0 }
    }

    /// Takes the next part in and gives its own checksum.
    pub fn part(&mut self, bytes: &[u8]) -> Checksum {
        let raw = self.algorithm.raw(bytes);
        self.count += 1;
        match (self.algorithm, &mut self.digest) {
            (Algorithm::Crc64Nvme, Some(digest)) => digest.update(bytes),
            _ => self.parts.extend_from_slice(raw.as_deref().unwrap_or_default()),
        }
        Checksum { algorithm: self.algorithm, text: raw.map(|raw| base64(&raw)) }
    }

    /// What S3 keeps of the multipart object: the checksum of all bytes, or that of the parts' checksums with their number behind it.
    pub fn multipart(&self) -> Checksum {
        Checksum { algorithm: self.algorithm, text: self.multipart_text() }
    }

    fn multipart_text(&self) -> Option<String> {
        match self.algorithm {
            Algorithm::None => None,
            Algorithm::Crc64Nvme => self.digest.as_ref().map(|d| base64(&self.algorithm.bytes_of(d.finalize()))),
            Algorithm::Crc32c => Some(format!("{}-{}", base64(&self.algorithm.raw(&self.parts)?), self.count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_the_catalogue() {
        // "123456789", as every catalogue of CRCs has it.
        assert_eq!(hex::encode(Algorithm::Crc64Nvme.raw(b"123456789").unwrap()), "ae8b14860a799888");
        assert_eq!(hex::encode(Algorithm::Crc32c.raw(b"123456789").unwrap()), "e3069283");
        assert_eq!(Algorithm::None.raw(b"123456789"), None);
    }

    #[test]
    fn a_whole_of_parts() {
        let mut whole = Whole::new(Algorithm::Crc64Nvme);
        assert_eq!(whole.part(b"1234").text(), Algorithm::Crc64Nvme.of(b"1234").text());
        whole.part(b"56789");
        assert_eq!(whole.multipart().text(), Algorithm::Crc64Nvme.of(b"123456789").text());

        let mut whole = Whole::new(Algorithm::Crc32c);
        whole.part(b"1234");
        whole.part(b"56789");
        let parts = [Algorithm::Crc32c.raw(b"1234").unwrap(), Algorithm::Crc32c.raw(b"56789").unwrap()].concat();
        assert_eq!(whole.multipart().text().unwrap(), format!("{}-2", base64(&Algorithm::Crc32c.raw(&parts).unwrap())));
        assert_eq!(Whole::new(Algorithm::None).multipart().text(), None);
    }
}
