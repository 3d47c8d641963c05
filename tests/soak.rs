//! What takes longer than a test should; `make soak` runs it in a release build.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/postgres.rs"]
mod support;
#[path = "support/thief.rs"]
mod thief;
#[path = "support/versitygw.rs"]
mod versitygw;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cli::{Home, Ran};
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
    peak_of("self").unwrap()
}

/// Peak memory of a process in MiB; `None` when it has ended.
fn peak_of(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().unwrap() / 1024)
}

/// Runs drctl to its end; its own peak memory without that of its children, and how long it took.
fn measured(home: &Home, args: &[&str]) -> (Ran, u64, Duration) {
    let begun = Instant::now();
    let mut child = home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = child.id().to_string();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_of(&process).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    (Ran::of(child.wait_with_output().unwrap()), peak, took)
}

/// 10,000 tables and a row as wide as COPY takes: the counts are right, and drctl's memory does not know how wide a row is.
#[test]
#[ignore = "a row of 1 GB: make soak"]
fn soak_f65_10_000_tables_and_a_row_of_1_gb() {
    const WIDE: u64 = 1_000_000_000;
    let server = support::Server::start_with("max_locks_per_transaction = 1024\nlog_statement = none");
    server.sql("postgres", "CREATE DATABASE f65");
    server.sql("f65", "CREATE TABLE wide (t text)");
    server.sql("f65", &format!("INSERT INTO wide SELECT repeat('0123456789', {})", WIDE / 10));
    for from in (0..10_000).step_by(1000) {
        let make = "EXECUTE format('CREATE TABLE t%s AS SELECT %s AS i', i, i)";
        server.sql("f65", &format!("DO $$ BEGIN FOR i IN {from}..{} LOOP {make}; END LOOP; END $$", from + 999));
    }
    let home = Home::new();
    home.write("pg-password", support::PASSWORD);
    home.init(&format!(
        "jobs:\n  - job: shop\n    sources:\n      - postgres: {{ host: 127.0.0.1, port: {}, user: postgres, password: {{ file: pg-password }}, database: [f65] }}\n",
        server.port
    ));
    let target = format!("postgres://postgres@127.0.0.1:{}/f65_back", server.port);
    for args in [&["backup", "now"][..], &["verify"], &["restore", "latest", "--target", &target, "--yes"]] {
        let (ran, peak, took) = measured(&home, args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.all());
        println!("{}: {took:.1?}, peak memory {peak} MiB", args[0]);
        assert!(peak <= 96, "{args:?}: peak memory {peak} MiB");
    }
    let shown = home.json(&["show", "latest"]);
    let dump = shown["result"]["artifacts"].as_array().unwrap().iter().find(|a| a["name"] == "f65").unwrap().clone();
    assert_eq!((&dump["totals"]["tables"], &dump["totals"]["rows"]), (&10_001.into(), &10_001.into()), "{}", dump["totals"]);
    assert!(dump["plain_bytes"].as_u64().unwrap() > WIDE);
    let counted = "SELECT length(t) || ' ' || md5(t) FROM wide";
    assert_eq!(server.sql("f65_back", counted), server.sql("f65", counted));
    assert_eq!(
        server.sql("f65_back", "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"),
        "10001"
    );
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
async fn soak_100_gib_become_objects_of_at_most_900_equal_parts_in_flat_memory() {
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
    // Eight parts, and twice as many each time, up to 900.
    let mut parts = 8;
    for (at, (key, bytes)) in objects.iter().enumerate() {
        assert!(bytes.div_ceil(PART) <= parts, "{key}: {bytes}");
        assert!(at + 1 == objects.len() || *bytes == parts * PART, "{key}: {bytes}");
        parts = (parts * 2).min(900);
    }
    let peak = peak_memory_mib();
    println!("{gib} GiB: {} objects, {} frames, peak memory {peak} MiB", objects.len(), written.frames);
    assert!(peak <= 96, "peak memory {peak} MiB");
}

/// A thief with a writer's store user and a copy of the host makes random moves; the owner's verbs go on working, and every good set restores.
/// `THIEF_SECONDS` (default 60, for each kind of store), `THIEF_SEED` to repeat one.
#[test]
#[ignore = "a minute and more: make soak"]
fn soak_thief_in_a_folder() {
    thief::run(thief::Place::folder);
}

#[test]
#[ignore = "a minute and more: make soak"]
fn soak_thief_in_a_bucket() {
    if versitygw::program().is_some() {
        thief::run(|| thief::Place::bucket(versitygw::start().unwrap()));
    }
}
