//! Sets of three objects of a few bytes: all that the catalog needs.

use std::collections::BTreeMap;

use bytes::Bytes;

use drctl::catalog::Run;
use drctl::model::artifact::{Chunker, Consistency};
use drctl::model::{Artifact, ArtifactFormat, Codec, Encryption, IndexPlace, Manifest, Object, SetState, Sha256, Timestamp};

const FILES: [&str; 3] = ["files.a.tar", "details.json", "RESTORE.md"];

/// A run's manifest and its objects, by whole key.
pub fn set(run: &Run, salt: u64) -> (Manifest, Vec<(String, Bytes)>) {
    let at = run.set().at();
    let manifest = Manifest {
        set: run.set().clone(),
        group: run.group().to_owned(),
        chain: run.chain().clone(),
        class: Default::default(),
        base: run.base(),
        state: SetState::Complete,
        started_at: at,
        finished_at: at,
        drctl_version: "0.1.0".into(),
        host: "web-1".into(),
        config_sha256: Sha256([0; 32]),
        lease_epoch: None,
        sources: Vec::new(),
        artifacts: vec![artifact(FILES[0], salt, at)],
        details: artifact(FILES[1], salt, at),
        guide: object(FILES[2], salt),
        stores: vec!["main".into()],
    };
    let objects = FILES.iter().map(|file| (format!("{}{file}", run.set().prefix()), content(file, salt))).collect();
    (manifest, objects)
}

fn content(file: &str, salt: u64) -> Bytes {
    Bytes::from(format!("{file} {salt}\n"))
}

fn object(file: &str, salt: u64) -> Object {
    let bytes = content(file, salt);
    Object { file: file.to_owned(), stored_bytes: bytes.len() as u64, stored_sha256: Sha256::of(&bytes) }
}

fn artifact(file: &str, salt: u64, at: Timestamp) -> Artifact {
    Artifact {
        source: "files".into(),
        file: file.into(),
        format: ArtifactFormat::Tar,
        objects: vec![object(file, salt)],
        plain_bytes: 1,
        plain_digest: Sha256([0; 32]),
        frames: 1,
        compressed_bytes: 1,
        index: IndexPlace::Inside { offset: 0, length: 0, sha256: Sha256([0; 32]) },
        chunker: Chunker { name: "fastcdc-v2020".into(), min_bytes: 16_384, avg_bytes: 65_536, max_bytes: 262_144 },
        codec: Codec::None,
        encryption: Encryption::None,
        consistency: Consistency::Snapshot,
        tool: None,
        exit_status: None,
        started_at: at,
        finished_at: at,
        totals: BTreeMap::new(),
    }
}
