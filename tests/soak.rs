//! What takes longer than a test should; `make soak` runs it in a release build.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;

use bytes::Bytes;
use drctl::model::{ArtifactFormat, Codec};
use drctl::pipeline::plain;
use drctl::pipeline::seal::{Identities, Sealing};
use drctl::pipeline::split::{Created, OBJECT_BYTES, Sink};
use drctl::pipeline::write::{WriteSpec, write};
use drctl::store::counting::CountingStore;
use tokio_util::sync::CancellationToken;

/// Size of one part in bytes; an object has at most 900 of them (DESIGN §4).
const PART: u64 = 8 << 20;

fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Noise that no frame repeats: xorshift, 8 bytes at a time.
struct Noise(u64);

impl Noise {
    fn block(&mut self, len: usize) -> Bytes {
        let mut out = vec![0u8; len];
        for word in out.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
        out.into()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "100 GiB: make soak"]
async fn soak_100_gib_become_objects_of_900_equal_parts_in_flat_memory() {
    let gib: u64 = std::env::var("SOAK_GIB").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let store = Arc::new(CountingStore::new(1 << 20));
    let (_, recipient) = Identities::generate();
    let spec = WriteSpec {
        base: "big.stream.raw".into(),
        prefix: "jobs/soak/sets/x/".into(),
        format: ArtifactFormat::Raw,
        codec: Codec::Zstd { level: 1 },
        sealing: Sealing::Age(vec![recipient]),
        decode_check: true,
        object_bytes: OBJECT_BYTES,
    };
    let (sender, receiver) = plain::channel();
    let sinks = vec![Sink::new("counting", store.clone())];
    let writing = write(spec, receiver, sinks, Created::default(), Arc::default(), CancellationToken::new());
    let feeding = async {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        for _ in 0..gib * 1024 {
            sender.data(noise.block(1 << 20)).await.unwrap();
        }
        sender.end().await.unwrap();
    };
    let (written, ()) = tokio::join!(writing, feeding);
    let written = written.unwrap();
    assert_eq!(written.plain_bytes, gib << 30);
    let objects = store.objects();
    assert_eq!(objects.len() as u64, objects.iter().map(|(_, bytes)| bytes).sum::<u64>().div_ceil(900 * PART));
    for (at, (key, bytes)) in objects.iter().enumerate() {
        assert!(bytes.div_ceil(PART) <= 900, "{key}: {bytes}");
        assert!(at + 1 == objects.len() || *bytes == 900 * PART, "{key}: {bytes}");
    }
    let peak = peak_memory_mib();
    println!("{gib} GiB: {} objects, {} frames, peak memory {peak} MiB", objects.len(), written.frames);
    assert!(peak <= 96, "peak memory {peak} MiB");
}
