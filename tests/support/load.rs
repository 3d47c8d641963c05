//! From something dumped to something that a loader takes.
//!
//! Include it after `postgres.rs`, as `#[path = "support/load.rs"] mod load;` beside `mod support`.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use drctl::model::artifact::{Chunker, Codec, Encryption, IndexPlace};
use drctl::model::{Artifact, Sha256};
use drctl::pipeline::plain::{PlainReceiver, channel};
use drctl::source::load::LoadArtifact;

use crate::support::Dumped;

pub fn artifact(dumped: &Dumped) -> LoadArtifact {
    let now = jiff::Timestamp::now();
    let facts = dumped.facts.as_ref().unwrap().clone();
    let artifact = Artifact {
        source: "postgres".into(),
        file: "x".into(),
        format: dumped.plan.format,
        objects: Vec::new(),
        plain_bytes: dumped.bytes.len() as u64,
        plain_digest: Sha256::of(b""),
        frames: 1,
        compressed_bytes: 0,
        index: IndexPlace::Inside { offset: 0, length: 0, sha256: Sha256::of(b"") },
        chunker: Chunker { name: String::new(), min_bytes: 0, avg_bytes: 0, max_bytes: 0 },
        codec: Codec::None,
        encryption: Encryption::None,
        consistency: dumped.end.consistency,
        tool: dumped.end.tool.clone(),
        exit_status: Some(0),
        started_at: now,
        finished_at: now,
        totals: facts.totals.clone(),
    };
    LoadArtifact { artifact, name: dumped.plan.name.clone(), facts, rereads: Default::default() }
}

/// The whole of a stream.
pub fn plain(bytes: &[u8]) -> PlainReceiver {
    let (sender, receiver) = channel();
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    tokio::spawn(async move {
        if sender.data(bytes).await.is_ok() {
            let _ = sender.end().await;
        }
    });
    receiver
}
