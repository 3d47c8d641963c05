//! Signed files: one JSON line with its newline, then the four lines of a minisign signature (FORMAT, Encoding).
//!
//! The bytes of a signed file have one spelling only: the comments are fixed by what the file is, and the reader encodes the
//! signature lines again and compares bytes. The JSON line is covered by the signature as it stands.

use bytes::Bytes;
use minisign::SignatureBox;

use crate::catalog::keys::{PublicKey, Signer};
use crate::error::{Error, Result};
use crate::model::record::Record;

/// Lines that minisign's signature takes.
const SIGNATURE_LINES: usize = 4;

/// Checks signatures. Production code uses [`Minisign`]; the model run has a cheap one.
pub trait Scheme: Send + Sync {
    /// Whether `signature` (four lines) is the one spelling of a signature by `key` of `line` (its newline included) under
    /// `subject`. The error says what is wrong.
    fn verify(&self, key: &PublicKey, line: &[u8], subject: &str, signature: &str) -> Result<()>;

    /// A record from its JSON. The model run, which reads each record many times, remembers them here.
    fn parse(&self, json: &str) -> Result<Record> {
        serde_json::from_str(json).map_err(|e| Error::corrupt("it is no record").because(e))
    }
}

/// Prehashed ed25519 signatures as stock `minisign` makes and checks them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Minisign;

impl Scheme for Minisign {
    fn verify(&self, key: &PublicKey, line: &[u8], subject: &str, signature: &str) -> Result<()> {
        let parsed = SignatureBox::from_string(signature).map_err(|e| Error::corrupt("its signature cannot be read").because(e))?;
        // The crate ignores spaces, further lines and trailing bytes; encoding again leaves one spelling.
        let lengths = signature.lines().map(str::len).collect::<Vec<_>>();
        let [_, 100, _, 88] = lengths[..] else {
            return Err(Error::corrupt("its signature lines have the wrong length"));
        };
        if parsed.to_string() != signature || !signature.is_ascii() {
            return Err(Error::corrupt("its signature is spelled differently from how drctl writes it"));
        }
        let comments = (parsed.untrusted_comment().ok(), parsed.trusted_comment().ok());
        if comments != (Some(untrusted_comment(subject)), Some(subject.to_owned())) {
            return Err(Error::corrupt(format!("its signature is not for '{subject}'")));
        }
        if !parsed.is_prehashed() {
            return Err(Error::corrupt("its signature is of minisign's old kind"));
        }
        minisign::verify(&key.to_minisign()?, &parsed, std::io::Cursor::new(line), true, false, false)
            .map_err(|e| Error::corrupt("its signature does not verify").because(e))
    }
}

/// The untrusted comment of a signature whose trusted comment is `subject`.
pub fn untrusted_comment(subject: &str) -> String {
    format!("signed by drctl: {subject}")
}

/// A signed file's bytes: `json` and a newline, then the signature of both.
///
/// `json` must be one line; serde_json's compact form is.
pub fn seal(signer: &dyn Signer, json: &str, subject: &str) -> Result<Bytes> {
    if json.contains(['\n', '\r']) {
        return Err(Error::failed("write a signed file: its JSON has more than one line"));
    }
    let mut bytes = Vec::with_capacity(json.len() + 400);
    bytes.extend_from_slice(json.as_bytes());
    bytes.push(b'\n');
    let signature = signer.sign(&bytes, subject)?;
    bytes.extend_from_slice(signature.as_bytes());
    Ok(bytes.into())
}

/// A signed file taken apart, nothing of it believed yet.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The JSON line with its newline: what was signed.
    pub line: &'a [u8],
    /// The four signature lines with their newlines.
    pub signature: &'a str,
}

/// Takes a signed file apart: a first line, then exactly four more, each ended by a newline.
pub fn split(bytes: &[u8]) -> Result<Parts<'_>> {
    let bad = || Error::corrupt("it is not one line of JSON and a signature");
    let end = memchr::memchr(b'\n', bytes).ok_or_else(bad)? + 1;
    let (line, rest) = bytes.split_at(end);
    let signature = std::str::from_utf8(rest).map_err(|_| bad())?;
    let newlines = memchr::memchr_iter(b'\n', rest).count();
    if newlines != SIGNATURE_LINES || rest.last() != Some(&b'\n') || rest.contains(&b'\r') {
        return Err(bad());
    }
    Ok(Parts { line, signature })
}

impl<'a> Parts<'a> {
    /// The JSON as text, without its newline.
    pub fn json(&self) -> Result<&'a str> {
        let line = self.line.strip_suffix(b"\n").unwrap_or(self.line);
        std::str::from_utf8(line).map_err(|_| Error::corrupt("its JSON is not UTF-8"))
    }
}

/// Subject of the log record `number` of a job; the text of both minisign comments.
pub fn record_subject(job: &crate::model::JobName, number: u64) -> String {
    format!("drctl log record {job} {number:010}")
}

/// Subject of a role key file.
pub fn key_subject(number: u64) -> String {
    format!("drctl key {number:04}")
}

/// Subject of a file under `repository/`.
pub fn terms_subject(number: u64) -> String {
    format!("drctl repository terms {number:04}")
}

/// Subject of `drctl-repository.json`.
pub const REPOSITORY_SUBJECT: &str = "drctl repository";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::keys::MinisignKey;

    fn read(key: &PublicKey, bytes: &[u8], subject: &str) -> Result<()> {
        let parts = split(bytes)?;
        Minisign.verify(key, parts.line, subject, parts.signature)
    }

    #[test]
    fn one_spelling_only() {
        let key = MinisignKey::generate().unwrap();
        let bytes = seal(&key, r#"{"a":1}"#, "drctl key 0001").unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        read(key.public(), &bytes, "drctl key 0001").unwrap();
        assert!(read(key.public(), &bytes, "drctl key 0002").is_err(), "another subject");
        assert!(read(MinisignKey::generate().unwrap().public(), &bytes, "drctl key 0001").is_err());
        let lines: Vec<&str> = text.lines().collect();
        let put = |index: usize, line: String| {
            let mut all: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
            all[index] = line;
            all.join("\n") + "\n"
        };
        let other_spellings = [
            text.trim_end().to_owned(),
            format!("{text}\n"),
            format!("{text}x\n"),
            text.replace('\n', "\r\n"),
            put(1, "untrusted comment: hello".into()),
            put(1, format!("{} ", lines[1])),
            put(2, format!("{} ", lines[2])),
            put(2, format!(" {}", lines[2])),
            put(3, format!("{} ", lines[3])),
            put(3, "trusted comment: drctl key 0002".into()),
            put(4, format!("{}AAAA", lines[4])),
            put(4, "AAAA".into()),
            put(4, String::new()),
            put(2, lines[4].to_owned()),
            put(0, r#"{"a":2}"#.into()),
            put(0, r#"{"a":1} "#.into()),
        ];
        for other in other_spellings {
            assert!(read(key.public(), other.as_bytes(), "drctl key 0001").is_err(), "{other:?}");
        }
        assert!(seal(&key, "{\n}", "x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(bytes in proptest::collection::vec(0u8..128, 0..400)) {
            let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".parse::<PublicKey>().unwrap();
            let _ = read(&key, &bytes, "x");
        }

        #[test]
        fn broken_signature_lines_never_panic(a in "[A-Za-z0-9+/=]{0,110}", b in "[A-Za-z0-9+/=]{80,90}") {
            let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".parse::<PublicKey>().unwrap();
            let text = format!("{{}}\nuntrusted comment: signed by drctl: x\n{a}\ntrusted comment: x\n{b}\n");
            proptest::prop_assert!(read(&key, text.as_bytes(), "x").is_err());
        }
    }
}
