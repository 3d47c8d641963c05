//! The recovery file: everything needed to restore from nothing but the store, on paper or in a password manager.
//!
//! It is plain text. Place, id and public keys stand in clear; the age identities, the newest first, and the root secret are one age file under a
//! passphrase, armored, which stock `age -d` opens too. The reader forgives what paper and mailers do to blank space.

use std::str::FromStr as _;

use age::secrecy::{ExposeSecret as _, SecretString};

use crate::catalog::keys::{MinisignKey, PublicKey, Signer as _};
use crate::catalog::repository::Trust;
use crate::error::{Error, Kind, Result};
use crate::model::Secret;

const TITLE: &str = "drctl recovery file, version 1";
const ARMOR_BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const ARMOR_END: &str = "-----END AGE ENCRYPTED FILE-----";

/// Larger texts are no recovery files.
const LONGEST: usize = 64 << 10;

/// scrypt's work factor: 2^18, as stock age takes it. The crate's own choice depends on how busy the machine is just then.
const WORK: u8 = 18;

/// Variable that lets a debug build seal weakly: tests make hundreds of repositories, a second and 256 MiB each. A release build does not look.
const WEAK: &str = "DRCTL_TEST_WEAK_PASSPHRASE";

fn work() -> u8 {
    let weak = cfg!(test) || cfg!(debug_assertions) && std::env::var_os(WEAK).is_some();
    if weak { 2 } else { WORK }
}

/// Highest scrypt work factor that is opened: 2^22 takes minutes, more is an attack.
const MOST_WORK: u8 = 22;

/// What a recovery file says in clear, and its sealed part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryFile {
    /// The store's place, as `--repo` takes it.
    pub location: String,
    /// The repository's id.
    pub repository: String,
    /// The root public key.
    pub root: PublicKey,
    /// age recipient of the newest identity inside (`age1…`): what is written from then on is sealed for it.
    pub recipient: String,
    /// The age file, armored: identities and root secret under a passphrase.
    pub sealed: String,
}

/// What the passphrase opens.
#[derive(Debug)]
pub struct RecoverySecrets {
    /// The age identities, a line `AGE-SECRET-KEY-1…` each, the newest first.
    pub identities: Secret,
    /// The root secret key.
    pub root: MinisignKey,
}

impl RecoveryFile {
    /// Seals the secrets under `passphrase` (age's scrypt; takes about a second and 256 MiB of memory). `identities` are lines, the newest first.
    pub fn seal(location: &str, repository: &str, root: &MinisignKey, identities: &Secret, passphrase: &Secret) -> Result<RecoveryFile> {
        let mut recipient = age::scrypt::Recipient::new(SecretString::from(passphrase.expose().to_owned()));
        recipient.set_work_factor(work());
        Self::seal_for(&recipient, location, repository, root, identities)
    }

    fn seal_for(
        recipient: &age::scrypt::Recipient,
        location: &str,
        repository: &str,
        root: &MinisignKey,
        identities: &Secret,
    ) -> Result<RecoveryFile> {
        if location.is_empty() || location.contains(['\n', '\r']) {
            return Err(Error::failed("write the recovery file: the repository's place cannot stand on one line"));
        }
        let no_key = || Error::failed("write the recovery file: the identity is not an age secret key");
        let parse = |line: &str| age::x25519::Identity::from_str(line).map_err(|_| no_key());
        let identities = identities.expose().lines().map(parse).collect::<Result<Vec<_>>>()?;
        let newest = identities.first().ok_or_else(no_key)?.to_public();
        let root_text = root.to_text()?;
        // An identity file as age itself writes it, with the root key in its comments: `age -d recovery | age -d -i - …` works.
        let root_lines = root_text.expose().lines().map(|line| format!("# root: {line}\n")).collect::<String>();
        let key_lines = identities.iter().map(|i| format!("# public key: {}\n{}\n", i.to_public(), i.to_string().expose_secret()));
        let plain = Secret::new(key_lines.collect::<String>() + &root_lines);
        let sealed =
            age::encrypt_and_armor(recipient, plain.expose().as_bytes()).map_err(|e| Error::failed("seal the recovery file").because(e))?;
        Ok(RecoveryFile {
            location: location.to_owned(),
            repository: repository.to_owned(),
            root: root.public().clone(),
            recipient: newest.to_string(),
            sealed: sealed.trim().to_owned(),
        })
    }

    /// The whole text, as it is printed or stored.
    pub fn to_text(&self) -> String {
        let RecoveryFile { location, repository, root, recipient, sealed } = self;
        let quoted = location.replace('\'', r"'\''");
        format!(
            "{TITLE}\n\
             \n\
             Keep this on paper or in a password manager, away from the machine that is backed up.\n\
             It opens the backups only together with its passphrase; keep that somewhere else.\n\
             \n\
             location:   {location}\n\
             repository: {repository}\n\
             root:       {root}\n\
             recipient:  {recipient}\n\
             \n\
             To restore on a new machine, with this text saved as recovery.txt:\n\
             \x20   drctl list --repo '{quoted}' --recovery recovery.txt\n\
             \x20   drctl restore --date latest --repo '{quoted}' --recovery recovery.txt --dry-run\n\
             \x20   drctl restore --date latest --repo '{quoted}' --recovery recovery.txt\n\
             Without drctl: every set holds a RESTORE.md; the lines below, saved as sealed.age, give its key:\n\
             \x20   age -d sealed.age > identity.txt\n\
             \n\
             {sealed}\n"
        )
    }

    /// Reads what [`RecoveryFile::to_text`] wrote, with whatever blank space a printer or mailer added.
    pub fn parse(text: &str) -> Result<RecoveryFile> {
        let bad = |why: &str| {
            Error::corrupt(format!("read the recovery file: {why}")).hint("is the whole text there, from its title to the END line?")
        };
        if text.len() > LONGEST {
            return Err(bad("it is far too long"));
        }
        let text = text.trim_start_matches('\u{feff}');
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        match lines.iter().find(|line| !line.is_empty()) {
            Some(line) if *line == TITLE => {}
            Some(line) if line.starts_with("drctl recovery file, version ") => {
                return Err(Error::new(Kind::Unsupported, format!("read the recovery file: it says '{}'", line.escape_debug()))
                    .hint("install a newer drctl"));
            }
            _ => return Err(bad(&format!("it does not begin with '{TITLE}'"))),
        }
        let begin = lines.iter().position(|line| *line == ARMOR_BEGIN).ok_or_else(|| bad("its sealed part does not begin"))?;
        let end = lines
            .iter()
            .position(|line| *line == ARMOR_END)
            .filter(|end| *end > begin)
            .ok_or_else(|| bad("its sealed part does not end"))?;
        let value = |name: &str| -> Result<String> {
            let mut found = lines[..begin].iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
            match (found.next(), found.next()) {
                (Some(value), None) if !value.is_empty() => Ok(value.to_owned()),
                (None, _) => Err(bad(&format!("the line '{name}:' is missing"))),
                _ => Err(bad(&format!("the line '{name}:' is empty or stands there twice"))),
            }
        };
        let sealed = lines[begin..=end].iter().filter(|line| !line.is_empty()).copied().collect::<Vec<_>>().join("\n");
        Ok(RecoveryFile {
            location: value("location")?,
            repository: value("repository")?,
            root: value("root")?.parse::<PublicKey>().map_err(|e| bad("its root key").because(e))?,
            recipient: value("recipient")?,
            sealed,
        })
    }

    /// Which repository to expect.
    pub fn trust(&self) -> Trust {
        Trust::Known { id: self.repository.clone(), root: self.root.clone() }
    }

    /// Opens the sealed part. A wrong passphrase is [`Kind::Denied`]; a sealed part that does not fit the text in clear is
    /// [`Kind::Corrupt`].
    pub fn open(&self, passphrase: &Secret) -> Result<RecoverySecrets> {
        let mut identity = age::scrypt::Identity::new(SecretString::from(passphrase.expose().to_owned()));
        identity.set_max_work_factor(MOST_WORK);
        let plain = age::decrypt(&identity, self.sealed.as_bytes()).map_err(|e| match e {
            age::DecryptError::DecryptionFailed | age::DecryptError::KeyDecryptionFailed => {
                Error::new(Kind::Denied, "open the recovery file: the passphrase is wrong")
            }
            e => Error::corrupt("open the recovery file: its sealed part is damaged").because(e),
        })?;
        let bad = |why: &str| Error::corrupt(format!("open the recovery file: {why}"));
        let plain = Secret::new(String::from_utf8(plain).map_err(|_| bad("its sealed part is not text"))?);
        let lines: Vec<&str> = plain.expose().lines().filter(|line| line.starts_with("AGE-SECRET-KEY-1")).collect();
        let newest = lines.first().ok_or_else(|| bad("no identity is inside"))?;
        let parsed = age::x25519::Identity::from_str(newest).map_err(|_| bad("the identity inside cannot be read"))?;
        if parsed.to_public().to_string() != self.recipient {
            return Err(bad("the identity inside is not of the recipient it names"));
        }
        let identities = Secret::new(lines.join("\n"));
        let root: String =
            plain.expose().lines().filter_map(|line| line.strip_prefix("# root: ")).map(|line| format!("{line}\n")).collect();
        let root = MinisignKey::from_text(&Secret::new(root))?;
        if *root.public() != self.root {
            return Err(bad("the root secret inside is not of the root key it names"));
        }
        Ok(RecoverySecrets { identities, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (RecoveryFile, MinisignKey, Secret) {
        let root = MinisignKey::generate().unwrap();
        let identity = Secret::new(age::x25519::Identity::generate().to_string().expose_secret());
        let file = RecoveryFile::seal("s3://bucket/drctl", &"ab".repeat(16), &root, &identity, &Secret::new("correct horse")).unwrap();
        (file, root, identity)
    }

    #[test]
    fn round_trip_through_paper() {
        let (file, root, identity) = file();
        let text = file.to_text();
        assert!(!text.contains(identity.expose()) && !text.contains("SECRET-KEY"));
        assert_eq!(RecoveryFile::parse(&text).unwrap(), file);
        // As a mailer, a scanner and an editor leave it.
        let worn = format!("\u{feff}\r\n{}", text.lines().map(|line| format!("   {line}  \r\n\r\n")).collect::<String>());
        let read = RecoveryFile::parse(&worn).unwrap();
        assert_eq!(read, file);
        let secrets = read.open(&Secret::new("correct horse")).unwrap();
        assert_eq!(secrets.identities, identity);
        assert_eq!(secrets.root.public(), root.public());
        assert_eq!(file.open(&Secret::new("wrong")).unwrap_err().kind(), Kind::Denied);
        assert!(text.contains("drctl restore --date latest --repo 's3://bucket/drctl' --recovery recovery.txt\n"));
    }

    #[test]
    fn several_identities_come_back_in_their_order_and_the_newest_is_named() {
        let (_, root, old) = file();
        let newest = age::x25519::Identity::generate();
        let both = Secret::new(format!("{}\n{}", newest.to_string().expose_secret(), old.expose()));
        let pass = Secret::new("correct horse");
        let file = RecoveryFile::seal("/b", &"ab".repeat(16), &root, &both, &pass).unwrap();
        assert_eq!(file.recipient, newest.to_public().to_string());
        assert_eq!(file.open(&pass).unwrap().identities, both);
        // The older one is not what new sets are sealed for.
        let older = age::x25519::Identity::from_str(old.expose()).unwrap().to_public().to_string();
        assert_eq!(RecoveryFile { recipient: older, ..file }.open(&pass).unwrap_err().kind(), Kind::Corrupt);
        for bad in ["", "x", "AGE-SECRET-KEY-1X"] {
            assert!(RecoveryFile::seal("/b", "id", &root, &Secret::new(bad), &pass).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_missing_or_exchanged_is_said() {
        let (file, ..) = file();
        let text = file.to_text();
        for name in ["location", "repository", "root", "recipient"] {
            let cut: String = text.lines().filter(|line| !line.starts_with(&format!("{name}:"))).map(|line| format!("{line}\n")).collect();
            assert!(RecoveryFile::parse(&cut).unwrap_err().to_string().contains(&format!("'{name}:'")), "{name}");
            let twice = text.replace(&format!("{name}:"), &format!("{name}: x\n{name}:"));
            assert!(RecoveryFile::parse(&twice).is_err(), "{name}");
        }
        assert_eq!(RecoveryFile::parse(&text.replace("version 1", "version 2")).unwrap_err().kind(), Kind::Unsupported);
        assert!(RecoveryFile::parse(&text[..text.len() - 20]).is_err());
        assert!(RecoveryFile::parse("").is_err());
        // Public lines that were exchanged do not fit what is sealed.
        let other = MinisignKey::generate().unwrap();
        let forged = RecoveryFile { root: other.public().clone(), ..file.clone() };
        assert_eq!(forged.open(&Secret::new("correct horse")).unwrap_err().kind(), Kind::Corrupt);
        let forged = RecoveryFile { recipient: "age1x".into(), ..file };
        assert_eq!(forged.open(&Secret::new("correct horse")).unwrap_err().kind(), Kind::Corrupt);
    }
}
