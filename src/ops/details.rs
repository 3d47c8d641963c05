//! `details.json`: the encrypted side of a manifest. True names, counts per table, what a restore needs to know.

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::model::{FORMAT, Facts, Manifest, SetId};
use crate::ops::Setup;
use crate::pipeline::read::StoredArtifact;
use crate::store::DynStore;

/// Largest details that are read; 10,000 tables take some 2 MiB.
const DETAILS_LIMIT: u64 = 256 << 20;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Details {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// The set it belongs to.
    pub set: SetId,
    /// One entry a source, in the manifest's order.
    pub sources: Vec<SourceDetails>,
}

/// What is known of one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceDetails {
    /// The source's name.
    pub name: String,
    /// What the source's session said.
    pub details: serde_json::Value,
    /// Its artifacts.
    pub artifacts: Vec<ArtifactDetails>,
}

/// What is known of one artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactDetails {
    /// File name in the set.
    pub file: String,
    /// True name in the source: a database's name, `globals`, `tree` …
    pub name: String,
    /// What the inspector counted.
    pub facts: Facts,
}

impl Details {
    /// Details of a set that has nothing yet.
    pub fn new(set: SetId) -> Self {
        Details { format: FORMAT, set, sources: Vec::new() }
    }

    /// A source's details.
    pub fn source(&self, name: &str) -> Option<&SourceDetails> {
        self.sources.iter().find(|s| s.name == name)
    }

    /// An artifact's details by its file name.
    pub fn artifact(&self, file: &str) -> Option<&ArtifactDetails> {
        self.sources.iter().flat_map(|s| &s.artifacts).find(|a| a.file == file)
    }

    /// Reads and checks the details of a set from one store.
    pub async fn read(setup: &Setup, store: &DynStore, manifest: &Manifest) -> Result<Details> {
        let stored = StoredArtifact {
            store: store.clone(),
            prefix: manifest.set.prefix(),
            artifact: manifest.details.clone(),
            identities: setup.identities.clone(),
        };
        let bytes = stored.read_whole(DETAILS_LIMIT).await.context(|| format!("read the details of {}", manifest.set))?;
        let details: Details = serde_json::from_slice(&bytes)
            .map_err(|e| Error::corrupt(format!("the details of {} are damaged", manifest.set)).because(e))?;
        if details.set != manifest.set {
            return Err(Error::corrupt(format!("the details of {} belong to {}", manifest.set, details.set)));
        }
        Ok(details)
    }
}
