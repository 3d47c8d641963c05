//! The recovery file: everything needed to restore from nothing but the store, on paper or in a password manager.

use crate::catalog::keys::{MinisignKey, PublicKey};
use crate::catalog::repository::Trust;
use crate::error::{Error, Result};
use crate::model::Secret;

/// What a recovery file says in clear, and its sealed part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryFile {
    /// The store's place, as `--repo` takes it.
    pub location: String,
    /// The repository's id.
    pub repository: String,
    /// The root public key.
    pub root: PublicKey,
    /// age recipient of the identity inside (`age1…`).
    pub recipient: String,
    /// The age file, armored: identity and root secret under a passphrase.
    pub sealed: String,
}

/// What the passphrase opens.
pub struct RecoverySecrets {
    /// The age identity (`AGE-SECRET-KEY-1…`).
    pub identity: Secret,
    /// The root secret key.
    pub root: MinisignKey,
}

impl RecoveryFile {
    /// Seals the secrets under `passphrase` (age's scrypt; takes about a second).
    pub fn seal(location: &str, repository: &str, root: &MinisignKey, identity: &Secret, passphrase: &Secret) -> Result<RecoveryFile> {
        let _ = (location, repository, root, identity, passphrase);
        Err(Error::failed("recovery files cannot be written yet"))
    }

    /// The whole text, as it is printed or stored.
    pub fn to_text(&self) -> String {
        String::new()
    }

    /// Reads what [`RecoveryFile::to_text`] wrote, with whatever blank space a printer or mailer added.
    pub fn parse(text: &str) -> Result<RecoveryFile> {
        let _ = text;
        Err(Error::failed("recovery files cannot be read yet"))
    }

    /// Which repository to expect.
    pub fn trust(&self) -> Trust {
        Trust::Known { id: self.repository.clone(), root: self.root.clone() }
    }

    /// Opens the sealed part. A wrong passphrase is [`crate::error::Kind::Denied`].
    pub fn open(&self, passphrase: &Secret) -> Result<RecoverySecrets> {
        let _ = passphrase;
        Err(Error::failed("recovery files cannot be opened yet"))
    }
}
