//! Records of a job's log (DESIGN §5, FORMAT "Rules of the log").

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::digest::Sha256;
use crate::model::ids::{JobName, SetId};
use crate::model::manifest::Manifest;

/// How far a set has been proven; each grade includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// The store's size and checksum of every object equal ours.
    Uploaded,
    /// Read again, decrypted, decompressed, hashed, walked to the format's end, counts equal.
    ReadBack,
    /// A drill loaded it and the counts came back.
    Restored,
}

impl Grade {
    /// As written on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Uploaded => "uploaded",
            Grade::ReadBack => "read-back",
            Grade::Restored => "restored",
        }
    }
}

impl std::fmt::Display for Grade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The outcome of a verification or drill of one set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The set that was looked at.
    pub set: SetId,
    /// The grade that was tried for.
    pub grade: Grade,
    /// Whether it was reached. A failed proof beats any proof whose reading began before it (rule 15).
    pub passed: bool,
    /// What was wrong, an object or artifact named in each; empty when it passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// When its reading began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The store that was read.
    pub store: String,
}

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type", deny_unknown_fields)]
pub enum Body {
    /// A set came to exist.
    Commit {
        /// What it is.
        manifest: Box<Manifest>,
    },
    /// A set was verified or drilled.
    Proof {
        /// The outcome.
        proof: Proof,
    },
    /// A set is not to be deleted before `until`, whatever retention says.
    Pin {
        /// The set.
        set: SetId,
        /// End of the pin, server date.
        until: Timestamp,
        /// Why, for people.
        reason: String,
    },
    /// Ends every pin of the set.
    Unpin {
        /// The set.
        set: SetId,
    },
    /// A reader is at work on the set until `until`.
    Hold {
        /// The set.
        set: SetId,
        /// Names this hold, so that it can be renewed and released.
        hold: String,
        /// End of the hold, server date.
        until: Timestamp,
    },
    /// The reader is done.
    Release {
        /// The set.
        set: SetId,
        /// The hold that ends.
        hold: String,
    },
    /// No further incremental set may join the chain.
    CloseChain {
        /// The full set the chain begins with.
        chain: SetId,
        /// Why, for people.
        reason: String,
    },
    /// These sets are to be deleted and count for nothing from here on.
    DeleteIntent {
        /// Every set of the chain, or orphan set ids that no commit names.
        sets: Vec<SetId>,
        /// Why, for people.
        reason: String,
    },
    /// The objects under an intent are gone.
    Deleted {
        /// Number of the intent's record.
        intent: u64,
    },
    /// A role key is valid from here on.
    KeyChange {
        /// Number of the key file under `keys/`.
        number: u64,
        /// SHA-256 of that file.
        sha256: Sha256,
        /// Numbers of key files that are not valid any more from here on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        revoked: Vec<u64>,
    },
    /// Sums up the records before it, so that readers may start here.
    Checkpoint {
        /// The number it sums up to, itself excluded.
        upto: u64,
        /// The summary, as the catalog's state at that number.
        state: serde_json::Value,
    },
}

impl Body {
    /// Number of the key file that a `key-change` names.
    pub fn key_change(&self) -> Option<u64> {
        match self {
            Body::KeyChange { number, .. } => Some(*number),
            _ => None,
        }
    }

    /// The record's type as written in it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Body::Commit { .. } => "commit",
            Body::Proof { .. } => "proof",
            Body::Pin { .. } => "pin",
            Body::Unpin { .. } => "unpin",
            Body::Hold { .. } => "hold",
            Body::Release { .. } => "release",
            Body::CloseChain { .. } => "close-chain",
            Body::DeleteIntent { .. } => "delete-intent",
            Body::Deleted { .. } => "deleted",
            Body::KeyChange { .. } => "key-change",
            Body::Checkpoint { .. } => "checkpoint",
        }
    }
}

/// One record: a line of JSON, then its minisign signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`crate::model::FORMAT`] of the program that wrote it.
    pub format: u32,
    /// The repository it belongs to.
    pub repository: String,
    /// The job whose log it stands in.
    pub job: JobName,
    /// Its number; the first is 1.
    pub number: u64,
    /// SHA-256 of all bytes of the record before; of `drctl-repository.json` for record 1.
    pub previous: Sha256,
    /// Number of the role key that signed it.
    pub key: u64,
    /// When it was written, by the writer's clock. Order is given by the number alone.
    pub at: Timestamp,
    /// What it says.
    pub body: Body,
}
