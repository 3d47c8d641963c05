//! The manifest: body of a commit record, and the only thing that makes a set exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::artifact::{Artifact, Object};
use crate::model::digest::Sha256;
use crate::model::ids::{SetId, SetKind};

/// Whether a set is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name", deny_unknown_fields)]
pub enum SetState {
    /// Every source is whole.
    Complete,
    /// Something is missing; the reasons name it.
    Partial {
        /// One sentence per problem, the source's name in front.
        reasons: Vec<String>,
    },
    /// Whole, but not like its predecessors: kept, alarmed, frees nothing.
    Suspect {
        /// One sentence per finding.
        reasons: Vec<String>,
    },
}

impl SetState {
    /// `complete`, `partial` or `suspect`.
    pub fn name(&self) -> &'static str {
        match self {
            SetState::Complete => "complete",
            SetState::Partial { .. } => "partial",
            SetState::Suspect { .. } => "suspect",
        }
    }

    /// Why it is not complete; empty when it is.
    pub fn reasons(&self) -> &[String] {
        match self {
            SetState::Complete => &[],
            SetState::Partial { reasons } | SetState::Suspect { reasons } => reasons,
        }
    }
}

/// What a set was made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetClass {
    /// A restore point like another.
    #[default]
    Ordinary,
    /// Made to be kept: only the monthly and yearly rules end it.
    Archive,
    /// What was live when a restore was about to load over it: the way back of that restore, and no restore point that a date means.
    Safety,
}

impl SetClass {
    /// As it is left out of manifests.
    pub fn is_ordinary(&self) -> bool {
        *self == SetClass::Ordinary
    }

    /// Said of a set beside its state: what it is where it is no ordinary one.
    pub fn words(self) -> Option<&'static str> {
        match self {
            SetClass::Ordinary => None,
            SetClass::Archive => Some("archive"),
            SetClass::Safety => Some("safety set"),
        }
    }
}

/// One source as it took part in the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Unique in the job; default is its type.
    pub name: String,
    /// `postgres`, `files`, `environment`, `compose`, `command`, `drctl`.
    pub kind: String,
    /// What ties the source to one real thing: `system_identifier`, `database_oids`, `host`, `paths` …
    pub identity: Arc<BTreeMap<String, String>>,
    /// The instant its content stands for: what was written later is not in the set.
    pub as_of: Timestamp,
    /// Why this source is not whole in the set; empty when it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Worth saying, but nothing is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Everything one run of one job produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The set's id; names the job, the start and the kind.
    pub set: SetId,
    /// The group of sources with a schedule of their own; `main` where there is one schedule only.
    pub group: String,
    /// The set whose frames this set's chain begins with; a full set names itself.
    pub chain: SetId,
    /// What it was made for; left out of an ordinary set.
    #[serde(default, skip_serializing_if = "SetClass::is_ordinary")]
    pub class: SetClass,
    /// The number of the log's record the run started from; every record after it was judged before the commit.
    pub base: u64,
    /// Whether it is whole.
    pub state: SetState,
    /// When the run began.
    pub started_at: Timestamp,
    /// When everything but the commit was stored.
    pub finished_at: Timestamp,
    /// The program's version.
    pub drctl_version: String,
    /// Name of the machine the run was made on.
    pub host: String,
    /// SHA-256 of the effective configuration, secrets left out.
    pub config_sha256: Sha256,
    /// Epoch of the courtesy lease the run held, if it held one.
    pub lease_epoch: Option<u64>,
    /// The sources, in the order in which they were read.
    pub sources: Vec<SourceEntry>,
    /// The artifacts, in the order in which they were made.
    pub artifacts: Vec<Artifact>,
    /// `details.json`: true names, counts per table, properties needed to restore.
    pub details: Artifact,
    /// `RESTORE.md`, in clear.
    pub guide: Object,
    /// Names of the stores that hold every object.
    pub stores: Vec<String>,
}

impl Manifest {
    /// The same in less memory, which counts where thousands of sets are at hand: the identities of its sources are shared with the set
    /// before, where they are the same.
    pub fn share_identities(mut self, before: Option<&Manifest>) -> Manifest {
        for source in &mut self.sources {
            let same = before.and_then(|before| before.source(&source.name)).filter(|same| same.identity == source.identity);
            if let Some(same) = same {
                source.identity = same.identity.clone();
            }
        }
        self
    }

    /// Its state and, where it is no ordinary set, what it was made for: `complete, safety set`.
    pub fn words(&self) -> String {
        [Some(self.state.name()), self.class.words()].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Full or incremental.
    pub fn kind(&self) -> SetKind {
        self.set.kind()
    }

    /// Every object of the set: file name, size, SHA-256.
    pub fn every_object(&self) -> impl Iterator<Item = &Object> {
        self.artifacts.iter().flat_map(Artifact::every_object).chain(self.details.every_object()).chain(std::iter::once(&self.guide))
    }

    /// Bytes the set takes in one store.
    pub fn stored_bytes(&self) -> u64 {
        self.every_object().map(|o| o.stored_bytes).sum()
    }

    /// Plain bytes of all artifacts.
    pub fn plain_bytes(&self) -> u64 {
        self.artifacts.iter().map(|a| a.plain_bytes).sum()
    }

    /// A source of the set by name.
    pub fn source(&self, name: &str) -> Option<&SourceEntry> {
        self.sources.iter().find(|s| s.name == name)
    }
}
