//! Sealing with age v1 (X25519 recipients) and opening again. Plugins, passphrases and SSH keys are not for artifacts.

use std::io::{Read, Seek, SeekFrom, Write};
use std::str::FromStr;

use crate::error::{Error, Kind, Result};
use crate::model::{Encryption, Secret};

/// A public key that artifacts are sealed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        age::x25519::Recipient::from_str(text.trim()).map(Recipient).map_err(|why| {
            Error::new(Kind::Config, format!("'{}' is not an age recipient: {why}", text.escape_debug()))
                .hint("a recipient is a public key such as age1…; age-keygen -y IDENTITY_FILE prints it")
        })
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How an artifact is to be sealed.
#[derive(Clone, Debug)]
pub enum Sealing {
    /// One age file that any of these can open.
    Age(Vec<Recipient>),
    /// In clear, by explicit choice.
    None,
}

impl Sealing {
    /// As a manifest names it.
    pub fn encryption(&self) -> Encryption {
        match self {
            Sealing::Age(recipients) => {
                let mut recipients: Vec<String> = recipients.iter().map(Recipient::to_string).collect();
                recipients.sort();
                recipients.dedup();
                Encryption::Age { recipients }
            }
            Sealing::None => Encryption::None,
        }
    }

    /// Starts a sealed stream into `out`. [`SealWriter::finish`] must be called, or what was written does not open.
    pub fn wrap<W: Write>(&self, out: W) -> Result<SealWriter<W>> {
        match self {
            Sealing::Age(recipients) => {
                let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|r| &r.0 as &dyn age::Recipient))
                    .map_err(|e| Error::new(Kind::Config, "seal for the recipients").because(e.to_string()))?;
                let writer = encryptor.wrap_output(out).map_err(|e| Error::failed("write the age header").because(e))?;
                Ok(SealWriter::Age(Box::new(writer)))
            }
            Sealing::None => Ok(SealWriter::None(out)),
        }
    }
}

/// Seals what is written to it.
pub enum SealWriter<W: Write> {
    /// An age stream.
    Age(Box<age::stream::StreamWriter<W>>),
    /// No seal.
    None(W),
}

impl<W: Write> SealWriter<W> {
    /// Writes the end of the sealed stream and gives the writer below back.
    pub fn finish(self) -> std::io::Result<W> {
        match self {
            SealWriter::Age(writer) => writer.finish(),
            SealWriter::None(out) => Ok(out),
        }
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            SealWriter::Age(writer) => writer.write(bytes),
            SealWriter::None(out) => out.write(bytes),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            SealWriter::Age(writer) => writer.flush(),
            SealWriter::None(out) => out.flush(),
        }
    }
}

/// The secret keys at hand; none is a valid state (a sealed writer has none).
#[derive(Clone, Default)]
pub struct Identities {
    secret: Vec<age::x25519::Identity>,
    /// Their public keys in words: every artifact of every set is held against them, and each is a multiplication on the curve.
    public: Vec<String>,
}

impl Identities {
    /// Reads an identity file: a line `AGE-SECRET-KEY-1…` each, empty lines and `#` comments between. `origin` names it in errors.
    pub fn parse(text: &Secret, origin: &str) -> Result<Self> {
        let mut identities = Vec::new();
        for (number, line) in text.expose().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line itself must not be shown: it is or was meant to be a secret.
            let identity = age::x25519::Identity::from_str(line).map_err(|why| {
                Error::new(Kind::Config, format!("{origin}:{}: not an age identity: {why}", number + 1))
                    .hint("the file holds lines that begin with AGE-SECRET-KEY-1; look for a copy in the recovery file")
            })?;
            identities.push(identity);
        }
        if identities.is_empty() {
            return Err(Error::new(Kind::Config, format!("{origin} holds no age identity"))
                .hint("the file holds lines that begin with AGE-SECRET-KEY-1; look for a copy in the recovery file"));
        }
        let public = identities.iter().map(|identity| identity.to_public().to_string()).collect();
        Ok(Identities { secret: identities, public })
    }

    /// Makes a new identity: its secret line and its recipient.
    pub fn generate() -> (Secret, Recipient) {
        use age::secrecy::ExposeSecret;
        let identity = age::x25519::Identity::generate();
        (Secret::new(identity.to_string().expose_secret()), Recipient(identity.to_public()))
    }

    /// The public keys of these identities.
    pub fn recipients(&self) -> Vec<Recipient> {
        self.secret.iter().map(|i| Recipient(i.to_public())).collect()
    }

    /// Whether one of them is among the recipients of a seal.
    pub fn can_open(&self, encryption: &Encryption) -> bool {
        match encryption {
            Encryption::None => true,
            Encryption::Age { recipients } => self.public.iter().any(|own| recipients.contains(own)),
        }
    }

    /// Opens a sealed stream that starts at the reader's start. `what` names it in errors.
    pub fn open<R: Read + Seek>(&self, encryption: &Encryption, what: &str, input: R) -> Result<OpenReader<R>> {
        let Encryption::Age { recipients } = encryption else {
            return Ok(OpenReader::None(input));
        };
        let decryptor = age::Decryptor::new(input).map_err(|e| match e {
            age::DecryptError::Io(e) => store_error(e, || format!("{what} does not begin as an age file")),
            e => Error::corrupt(format!("{what} does not begin as an age file")).because(e),
        })?;
        let identities = self.secret.iter().map(|i| i as &dyn age::Identity);
        match decryptor.decrypt(identities) {
            Ok(reader) => Ok(OpenReader::Age(Box::new(reader))),
            Err(age::DecryptError::NoMatchingKeys) => Err(wrong_key(what, recipients, self.secret.is_empty())),
            Err(age::DecryptError::Io(e)) => Err(store_error(e, || format!("{what} ends behind its age header"))),
            Err(e) => Err(Error::corrupt(format!("{what}: its age header is damaged")).because(e)),
        }
    }
}

/// A store's own error that passed through `Read` is given back as it was: who cannot reach a store knows nothing of damage. Anything else
/// is damage, and `what` says which.
pub(super) fn store_error(error: std::io::Error, what: impl FnOnce() -> String) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::corrupt(what()).because(error),
    }
}

/// FAULTS 79: says whom the set was sealed for.
fn wrong_key(what: &str, recipients: &[String], none_at_hand: bool) -> Error {
    let have = if none_at_hand { "no identity is at hand" } else { "none of the identities at hand opens it" };
    Error::new(Kind::Preflight, format!("{what} is sealed for {}; {have}", recipients.join(", ")))
        .hint("name the identity file in drctl.yaml (repository.identity), or use the recovery file: --recovery FILE")
}

/// Opens what is read from it.
pub enum OpenReader<R> {
    /// An age stream.
    Age(Box<age::stream::StreamReader<R>>),
    /// No seal.
    None(R),
}

impl<R: Read> Read for OpenReader<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self {
            OpenReader::Age(reader) => reader.read(out),
            OpenReader::None(input) => input.read(out),
        }
    }
}

impl<R: Read + Seek> Seek for OpenReader<R> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        match self {
            OpenReader::Age(reader) => reader.seek(to),
            OpenReader::None(input) => input.seek(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn f79_wrong_or_missing_key_names_the_recipients_and_damaged_file_shows_no_secret() {
        let (_, recipient) = Identities::generate();
        let sealing = Sealing::Age(vec![recipient.clone()]);
        let mut writer = sealing.wrap(Vec::new()).unwrap();
        writer.write_all(b"data").unwrap();
        let file = writer.finish().unwrap();

        let (other, _) = Identities::generate();
        for identities in [Identities::default(), Identities::parse(&other, "id").unwrap()] {
            let error = identities.open(&sealing.encryption(), "x.age", Cursor::new(&file)).err().unwrap();
            assert!(error.to_string().contains(&recipient.to_string()), "{error}");
            assert_eq!(error.kind(), Kind::Preflight);
            assert!(!identities.can_open(&sealing.encryption()));
        }

        let cut = Secret::new(&other.expose()[..40]);
        let error = Identities::parse(&cut, "id.txt").err().unwrap();
        assert!(error.to_string().starts_with("id.txt:1:"), "{error}");
        assert!(!format!("{error:?}").contains(cut.expose()));
    }
}
