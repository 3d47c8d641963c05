//! One stream of a backup set as the manifest describes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::digest::Sha256;

/// The shape of the plain stream; decides the inspector, the loader and the file name's first extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactFormat {
    /// `pg_dump -Fc`.
    PgCustom,
    /// SQL text, such as globals.
    Sql,
    /// A tar archive (PAX).
    Tar,
    /// Lines of `NAME=value`.
    Env,
    /// A YAML document.
    Yaml,
    /// A JSON document.
    Json,
    /// Anything else.
    Raw,
}

impl ArtifactFormat {
    /// The first extension of the artifact's file name.
    pub fn extension(self) -> &'static str {
        match self {
            ArtifactFormat::PgCustom => "dump",
            ArtifactFormat::Sql => "sql",
            ArtifactFormat::Tar => "tar",
            ArtifactFormat::Env => "env",
            ArtifactFormat::Yaml => "yml",
            ArtifactFormat::Json => "json",
            ArtifactFormat::Raw => "raw",
        }
    }
}

/// How frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name", deny_unknown_fields)]
pub enum Codec {
    /// zstd; every frame of the artifact is a zstd frame.
    Zstd {
        /// zstd's compression level.
        level: i32,
    },
    /// gzip; every frame of the artifact is a gzip member.
    Gzip {
        /// zlib's compression level, 0 to 9.
        level: u32,
    },
    /// Stored as it is.
    None,
}

impl Codec {
    /// The extension it adds to the file name, with its dot, or nothing.
    pub fn extension(self) -> &'static str {
        match self {
            Codec::Zstd { .. } => ".zst",
            Codec::Gzip { .. } => ".gz",
            Codec::None => "",
        }
    }
}

/// How the compressed stream is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name", deny_unknown_fields)]
pub enum Encryption {
    /// One age v1 file for X25519 recipients.
    Age {
        /// The recipients' public keys (`age1…`), sorted.
        recipients: Vec<String>,
    },
    /// Not encrypted, by explicit choice.
    None,
}

impl Encryption {
    /// The extension it adds to the file name, with its dot, or nothing.
    pub fn extension(&self) -> &'static str {
        match self {
            Encryption::Age { .. } => ".age",
            Encryption::None => "",
        }
    }
}

/// One stored object, as every store named in the manifest holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// File name inside the set's folder.
    pub file: String,
    /// Length in bytes.
    pub stored_bytes: u64,
    /// SHA-256 of the stored bytes.
    pub stored_sha256: Sha256,
}

/// Where an artifact's frame index is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "at", deny_unknown_fields)]
pub enum IndexPlace {
    /// A zstd skippable frame that ends the compressed stream.
    Inside {
        /// Offset of the index itself (behind the skippable frame's 8-byte head) in the compressed stream.
        offset: u64,
        /// Length of the index in bytes.
        length: u64,
        /// SHA-256 of the index.
        sha256: Sha256,
    },
    /// An object of its own, zstd-compressed and sealed like the artifact.
    Beside {
        /// The stored object.
        object: Object,
        /// Length of the index, decompressed.
        length: u64,
        /// SHA-256 of the index, decompressed.
        sha256: Sha256,
    },
}

/// How frames were cut; the sizes are those of the first 16 GiB of the stream (FORMAT, Encoding).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunker {
    /// `fastcdc-v2020`.
    pub name: String,
    /// Smallest frame in bytes (the last frame and frames before a forced cut may be smaller).
    pub min_bytes: u32,
    /// Average frame in bytes.
    pub avg_bytes: u32,
    /// Largest frame in bytes.
    pub max_bytes: u32,
}

/// How true to one instant the artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// One instant.
    Snapshot,
    /// One instant, by replaying an oplog.
    Oplog,
    /// One instant per collection.
    PerCollection,
    /// Parts were read while they could change.
    Fuzzy,
}

/// The program that made the plain stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Program name, such as `pg_dump`.
    pub name: String,
    /// Its version as it says it.
    pub version: String,
}

/// One stream of the set and everything needed to check and open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// The source's name in the job.
    pub source: String,
    /// File name of the first object without its number: `postgres.shop.dump.zst.age`.
    pub file: String,
    /// Shape of the plain stream.
    pub format: ArtifactFormat,
    /// The stored objects; their bytes in this order are the artifact's file.
    pub objects: Vec<Object>,
    /// Length of the plain stream in bytes.
    pub plain_bytes: u64,
    /// Plain digest (not a SHA-256 of the plain bytes: see [`crate::model::PlainDigest`]).
    pub plain_digest: Sha256,
    /// Number of frames.
    pub frames: u64,
    /// Length of the compressed stream in bytes, the index's skippable frame included.
    pub compressed_bytes: u64,
    /// Where the frame index is.
    pub index: IndexPlace,
    /// How frames were cut.
    pub chunker: Chunker,
    /// How frames were compressed.
    pub codec: Codec,
    /// How the compressed stream is sealed.
    pub encryption: Encryption,
    /// How true to one instant.
    pub consistency: Consistency,
    /// What made the plain stream.
    pub tool: Option<Tool>,
    /// The tool's exit status; absent where no child was run.
    pub exit_status: Option<i32>,
    /// When its dump began.
    pub started_at: Timestamp,
    /// When its last byte was stored.
    pub finished_at: Timestamp,
    /// What the inspector counted: `tables`, `rows`, `files` …
    pub totals: BTreeMap<String, u64>,
}

impl Artifact {
    /// Bytes the artifact takes in one store, an index object included.
    pub fn stored_bytes(&self) -> u64 {
        self.every_object().map(|o| o.stored_bytes).sum()
    }

    /// Its objects and its index object, if it has one.
    pub fn every_object(&self) -> impl Iterator<Item = &Object> {
        let beside = match &self.index {
            IndexPlace::Beside { object, .. } => Some(object),
            IndexPlace::Inside { .. } => None,
        };
        self.objects.iter().chain(beside)
    }
}
