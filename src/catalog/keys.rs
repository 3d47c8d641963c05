//! Signing keys: minisign's ed25519, one root key per repository and numbered role keys that the root key signs.
//!
//! The root secret is in the recovery file only, under a passphrase. A host holds role secrets, each a minisign secret key file
//! without password and with mode 0600: whoever reads it may do what its roles may do, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use minisign::{KeyPair, SecretKey, SecretKeyBox};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::catalog::encoding::{self, Scheme, untrusted_comment};
use crate::error::{Context as _, Error, Kind, Result};
use crate::model::record::Body;
use crate::model::{FORMAT, JobName, Secret, Sha256};

/// A minisign public key in its one-line form (`RW…`, 56 characters).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(String);

impl PublicKey {
    /// As stock `minisign -V -P` takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn to_minisign(&self) -> Result<minisign::PublicKey> {
        minisign::PublicKey::from_base64(&self.0).map_err(|e| Error::corrupt(format!("'{self}' is not a public key")).because(e))
    }
}

impl FromStr for PublicKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::corrupt(format!("'{}' is not a minisign public key", text.escape_debug()));
        if text.len() != 56 || !text.is_ascii() {
            return Err(bad());
        }
        let key = minisign::PublicKey::from_base64(text).map_err(|_| bad())?;
        // One key, one spelling.
        if key.to_base64() == text && text.starts_with("RW") { Ok(PublicKey(text.to_owned())) } else { Err(bad()) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Something that signs: a secret key at hand.
pub trait Signer: Send + Sync {
    /// The key that checks its signatures.
    fn public(&self) -> &PublicKey;

    /// The four lines of a minisign signature of `line` (its newline included) with `subject` in both comments.
    fn sign(&self, line: &[u8], subject: &str) -> Result<String>;
}

/// A minisign secret key in memory.
pub struct MinisignKey {
    public: PublicKey,
    secret: SecretKey,
}

impl fmt::Debug for MinisignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret key of {}", self.public)
    }
}

impl MinisignKey {
    /// A new key pair.
    pub fn generate() -> Result<Self> {
        let pair = KeyPair::generate_unencrypted_keypair().map_err(|e| Error::failed("make a signing key").because(e))?;
        Self::of(pair.sk)
    }

    fn of(secret: SecretKey) -> Result<Self> {
        let public = minisign::PublicKey::from_secret_key(&secret).map_err(|e| Error::corrupt("read a signing key").because(e))?;
        Ok(MinisignKey { public: public.to_base64().parse()?, secret })
    }

    /// The secret key as minisign writes it: a comment and one line. Secret.
    pub fn to_text(&self) -> Result<Secret> {
        let text = self
            .secret
            .to_box(Some("drctl signing key, no password: keep it secret"))
            .map_err(|e| Error::failed("write a signing key").because(e))?;
        Ok(Secret::new(text.into_string()))
    }

    /// Reads what [`MinisignKey::to_text`] wrote, or a key that `minisign -G -W` made.
    pub fn from_text(text: &Secret) -> Result<Self> {
        let bad = |e| Error::corrupt("read a signing key").because(e);
        // The crate slices without looking; a minisign secret key is 158 bytes, 212 characters.
        if text.expose().lines().nth(1).is_none_or(|line| line.len() != 212 || !line.is_ascii()) {
            return Err(Error::corrupt("read a signing key: it is not a minisign secret key"));
        }
        let secret = SecretKeyBox::from_string(text.expose()).map_err(bad)?.into_unencrypted_secret_key().map_err(bad)?;
        Self::of(secret)
    }

    /// Writes the secret key to a new file with mode 0600 and syncs it; a file that exists is [`Kind::Exists`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let what = || format!("write the signing key {}", path.display());
        let text = self.to_text()?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).context(what)?;
        file.write_all(text.expose().as_bytes()).context(what)?;
        file.sync_all().context(what)
    }

    /// Reads a secret key file; one that others may read is refused ([`Kind::Config`]).
    pub fn load(path: &Path) -> Result<Self> {
        const LIMIT: u64 = 4096;
        let what = || format!("read the signing key {}", path.display());
        let meta = std::fs::metadata(path).context(what)?;
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(Error::new(Kind::Config, format!("{}: others may read it", what())).hint(format!("chmod 600 {}", path.display())));
        }
        if meta.len() > LIMIT {
            return Err(Error::corrupt(format!("{}: it is far too long", what())));
        }
        let text = Secret::new(std::fs::read_to_string(path).context(what)?);
        Self::from_text(&text).map_err(|e| e.context(what()))
    }
}

impl Signer for MinisignKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, line: &[u8], subject: &str) -> Result<String> {
        minisign::sign(None, &self.secret, line, Some(subject), Some(&untrusted_comment(subject)))
            .map(|signature| signature.to_string())
            .map_err(|e| Error::failed(format!("sign {subject}")).because(e))
    }
}

/// What a key may do (DESIGN §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Makes sets.
    Writer,
    /// Verifies and drills.
    Prover,
    /// Deletes what retention gave up, sweeps, sums up.
    Pruner,
    /// Reads sets to restore them.
    Restorer,
}

impl Role {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Writer => "writer",
            Role::Prover => "prover",
            Role::Pruner => "pruner",
            Role::Restorer => "restorer",
        }
    }
}

/// A set of roles.
pub type Roles = BTreeSet<Role>;

/// Every role: what `init` gives to the first key.
pub fn all_in_one() -> Roles {
    [Role::Writer, Role::Prover, Role::Pruner, Role::Restorer].into()
}

/// The roles of which a key needs one to append a record of this type; an empty list means any.
///
/// A `key-change` needs no role of its own: the key file it names is signed by the root key, and so is what it revokes.
pub fn roles_for(body: &Body) -> &'static [Role] {
    match body {
        Body::Commit { .. } | Body::CloseChain { .. } => &[Role::Writer],
        Body::Proof { .. } => &[Role::Prover],
        Body::Hold { .. } | Body::Release { .. } => &[Role::Restorer, Role::Prover],
        Body::Pin { .. } => &[Role::Writer, Role::Pruner, Role::Restorer],
        Body::Unpin { .. } | Body::DeleteIntent { .. } | Body::Deleted { .. } | Body::Checkpoint { .. } => &[Role::Pruner],
        Body::KeyChange { .. } => &[],
    }
}

/// A role key at hand: its number in the repository and its secret.
#[derive(Clone)]
pub struct RoleKey {
    /// Number of its file under `keys/`.
    pub number: u64,
    /// The secret.
    pub signer: Arc<dyn Signer>,
}

impl fmt::Debug for RoleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "role key {} ({})", self.number, self.signer.public())
    }
}

/// `keys/0001.json`: a role key as the root key vouches for it. It says nothing about when: each job's log does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// The repository.
    pub repository: String,
    /// Its own number.
    pub number: u64,
    /// What the key may do.
    pub roles: Roles,
    /// The public key.
    pub public: PublicKey,
    /// For people: the host or person that holds the secret.
    pub holder: String,
    /// When it was made, by the clock of whoever made it.
    pub at: Timestamp,
    /// Numbers of key files that are not valid any more once a log's `key-change` names this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revokes: Vec<u64>,
    /// Where the logs ended when this file was made, by job: what a revoked key signed counts up to there and in no other log (rule 18).
    /// Missing where nothing is revoked, and in files of before: there each log's own `key-change` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<BTreeMap<JobName, LogHead>>,
}

/// The newest record of a log at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHead {
    /// Its number.
    pub number: u64,
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
}

/// Key files that were read and verified, by number.
pub type KeyBook = BTreeMap<u64, (KeyFile, Sha256)>;

/// Why key `key` does not count under `number` of a job's log, by what the root key signed anywhere (rule 18).
pub fn revoked(book: &KeyBook, job: &JobName, key: u64, number: u64) -> Option<String> {
    book.values().map(|(file, _)| file).filter(|file| file.revokes.contains(&key)).find_map(|file| {
        let by = file.number;
        match file.heads.as_ref()?.get(job) {
            None => Some(format!("key {key} was revoked by key file {by}, which knows no log of job {job}: it is foreign")),
            Some(head) if number > head.number => {
                Some(format!("key {key} was revoked by key file {by}, when record {} was the newest", head.number))
            }
            Some(_) => None,
        }
    })
}

/// Whether no key file revokes key `key`, wherever.
pub fn in_force(files: &[KeyFile], key: u64) -> bool {
    files.iter().any(|file| file.number == key) && !files.iter().any(|file| file.revokes.contains(&key))
}

impl KeyFile {
    /// Where the file with this number lies.
    pub fn key(number: u64) -> String {
        format!("keys/{number:04}.json")
    }

    /// The file's bytes, signed by the root key.
    pub fn seal(&self, root: &dyn Signer) -> Result<bytes::Bytes> {
        let json = serde_json::to_string(self).map_err(|e| Error::failed("write a key file").because(e))?;
        encoding::seal(root, &json, &encoding::key_subject(self.number))
    }

    /// Reads and verifies a key file that must be number `number` of `repository`.
    pub fn open(bytes: &[u8], scheme: &dyn Scheme, root: &PublicKey, repository: &str, number: u64) -> Result<(KeyFile, Sha256)> {
        let what = || format!("read {}", KeyFile::key(number));
        let read = || -> Result<KeyFile> {
            let parts = encoding::split(bytes)?;
            scheme.verify(root, parts.line, &encoding::key_subject(number), parts.signature)?;
            super::repository::refuse_newer(parts.json()?)?;
            let file: KeyFile = serde_json::from_str(parts.json()?).map_err(|e| Error::corrupt("its JSON is wrong").because(e))?;
            if file.repository != repository || file.number != number || file.format > FORMAT {
                return Err(Error::corrupt("it belongs to another repository or number"));
            }
            Ok(file)
        };
        Ok((read().map_err(|e| e.context(what()))?, Sha256::of(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_private_and_round_trips() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let key = MinisignKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(MinisignKey::load(&path).unwrap().public(), key.public());
        assert_eq!(key.save(&path).unwrap_err().kind(), Kind::Exists);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = MinisignKey::load(&path).unwrap_err();
        assert_eq!((refused.kind(), refused.hint_text().unwrap().starts_with("chmod 600")), (Kind::Config, true));
        assert!(!format!("{key:?}").contains(key.to_text().unwrap().expose().lines().nth(1).unwrap()));
    }

    #[test]
    fn texts_that_are_no_keys_are_refused() {
        let good = MinisignKey::generate().unwrap().to_text().unwrap();
        let line = good.expose().lines().nth(1).unwrap().to_owned();
        for bad in
            ["", "x", "a\nb\n", &format!("c\n{}", &line[..211]), &format!("c\n{}", "!".repeat(212)), &format!("c\n{}", "A".repeat(212))]
        {
            assert!(MinisignKey::from_text(&Secret::new(bad)).is_err(), "{bad}");
        }
        let mut flipped = line.into_bytes();
        flipped[150] = if flipped[150] == b'A' { b'B' } else { b'A' };
        let flipped = Secret::new(format!("c\n{}\n", String::from_utf8(flipped).unwrap()));
        assert!(MinisignKey::from_text(&flipped).is_err(), "the key's own checksum");
        for bad in ["", "RW", &"R".repeat(56), &format!(" {}", "R".repeat(55)), &"é".repeat(28)] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_role_may_do_its_own_only() {
        let set: crate::model::SetId = "shop/20250101T020000Z-full-7k3q".parse().unwrap();
        let delete = Body::DeleteIntent { sets: vec![set.clone()], reason: String::new() };
        assert_eq!(roles_for(&delete), [Role::Pruner]);
        assert!(!roles_for(&Body::Unpin { set: set.clone() }).contains(&Role::Writer), "a thief of the host unpins nothing");
        assert!(!roles_for(&Body::Release { set: set.clone(), hold: String::new() }).contains(&Role::Writer));
        assert!(roles_for(&Body::Pin { set, until: Timestamp::UNIX_EPOCH, reason: String::new() }).contains(&Role::Writer));
    }
}
