//! docs/format.md is enough to read a set: a small reader written from its sections Artifacts, Frames and Index alone, and nothing
//! of drctl but its command line, opens every artifact of sets that drctl made and compares it with the manifest.

#![expect(clippy::unwrap_used, reason = "a test: what panics has failed")]

#[path = "support/cli.rs"]
mod cli;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cli::Home;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const GIB: u64 = 1 << 30;

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// One set as the document describes it: the manifest of the first record and the set's folder.
struct Set {
    manifest: Value,
    folder: PathBuf,
    identity: age::x25519::Identity,
}

impl Set {
    fn of(home: &Home) -> Set {
        let repository = home.path("drctl-repository");
        let record = std::fs::read_to_string(repository.join("jobs/shop/log/0000000001.signed")).unwrap();
        let record: Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
        let manifest = record["body"]["manifest"].clone();
        // shop/20250101T020000Z-full-7k3q lies in jobs/shop/sets/2025/01/01/020000Z-full-7k3q/
        let id = manifest["set"].as_str().unwrap().strip_prefix("shop/").unwrap();
        let folder = format!("jobs/shop/sets/{}/{}/{}/{}", &id[..4], &id[4..6], &id[6..8], &id[9..]);
        let keys = std::fs::read_to_string(home.path("drctl-keys/identity.txt")).unwrap();
        let identity = keys.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap().parse().unwrap();
        Set { manifest, folder: repository.join(folder), identity }
    }

    fn object(&self, object: &Value) -> Vec<u8> {
        let bytes = std::fs::read(self.folder.join(object["file"].as_str().unwrap())).unwrap();
        assert_eq!(bytes.len() as u64, object["stored_bytes"].as_u64().unwrap());
        assert_eq!(sha256(&bytes), object["stored_sha256"].as_str().unwrap());
        bytes
    }

    /// The bytes under the seal.
    fn open(&self, artifact: &Value, sealed: &[u8]) -> Vec<u8> {
        match artifact["encryption"]["name"].as_str().unwrap() {
            "none" => sealed.to_vec(),
            "age" => {
                let recipients: Vec<&str> =
                    artifact["encryption"]["recipients"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
                assert_eq!(recipients, [self.identity.to_public().to_string()]);
                let mut opened = Vec::new();
                let decryptor = age::Decryptor::new(sealed).unwrap();
                decryptor.decrypt(std::iter::once(&self.identity as &dyn age::Identity)).unwrap().read_to_end(&mut opened).unwrap();
                opened
            }
            other => panic!("the document knows no seal '{other}'"),
        }
    }

    /// Reads an artifact as the document says; returns its plain stream.
    fn read(&self, artifact: &Value) -> Vec<u8> {
        let fields: BTreeSet<&str> = artifact.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, documented_fields(), "the table of fields in the document");
        let number = |name: &str| artifact[name].as_u64().unwrap();
        let sealed: Vec<u8> = artifact["objects"].as_array().unwrap().iter().flat_map(|object| self.object(object)).collect();
        assert_eq!(artifact["objects"][0]["file"], artifact["file"]);
        let compressed = self.open(artifact, &sealed);
        assert_eq!(compressed.len() as u64, number("compressed_bytes"));

        let place = &artifact["index"];
        let length = place["length"].as_u64().unwrap() as usize;
        let (index, index_frame) = match place["at"].as_str().unwrap() {
            "inside" => {
                let offset = place["offset"].as_u64().unwrap() as usize;
                assert_eq!(offset + length, compressed.len());
                assert_eq!(compressed[offset - 8..offset - 4], [0x5d, 0x2a, 0x4d, 0x18]);
                assert_eq!(compressed[offset - 4..offset], (length as u32).to_le_bytes());
                (compressed[offset..].to_vec(), length + 8)
            }
            "beside" => {
                let base = artifact["file"].as_str().unwrap().trim_end_matches(".age").trim_end_matches(".gz");
                let file = place["object"]["file"].as_str().unwrap();
                assert_eq!(file.trim_end_matches(".age"), format!("{base}.index.zst"));
                let opened = self.open(artifact, &self.object(&place["object"]));
                (zstd::decode_all(opened.as_slice()).unwrap(), 0)
            }
            other => panic!("the document knows no place '{other}'"),
        };
        assert_eq!((index.len(), sha256(&index)), (length, place["sha256"].as_str().unwrap().to_owned()));

        let mut digest = Sha256::new();
        digest.update(b"drctl-plain-0\n");
        let (mut plain, mut at) = (Vec::new(), 0);
        let frames = frames(&index);
        for frame in &frames {
            let stored = &compressed[at..at + frame.stored_bytes];
            let bytes = decode(artifact["codec"]["name"].as_str().unwrap(), stored, frame.plain_bytes);
            assert_eq!(hex::encode(frame.sha256), sha256(&bytes));
            assert!(frame.plain_bytes as u64 <= largest_frame(plain.len() as u64));
            digest.update(frame.sha256);
            digest.update((frame.plain_bytes as u64).to_le_bytes());
            plain.extend_from_slice(&bytes);
            at += frame.stored_bytes;
        }
        assert_eq!(at + index_frame, compressed.len());
        assert_eq!((frames.len() as u64, plain.len() as u64), (number("frames"), number("plain_bytes")));
        assert_eq!(hex::encode(digest.finalize()), artifact["plain_digest"].as_str().unwrap());
        plain
    }
}

struct Frame {
    plain_bytes: usize,
    stored_bytes: usize,
    sha256: [u8; 32],
}

/// The section Index.
fn frames(index: &[u8]) -> Vec<Frame> {
    let mut rest = index.strip_prefix(b"drctl-index-0\n").unwrap();
    let mut frames = Vec::new();
    loop {
        let (tag, after) = rest.split_first().unwrap();
        if *tag == 0x00 {
            assert!(after.is_empty(), "bytes follow the end of the index");
            return frames;
        }
        assert_eq!(*tag, 0x01);
        let (count, after) = after.split_first_chunk::<4>().unwrap();
        let (entries, after) = after.split_at(u32::from_le_bytes(*count) as usize * 40);
        frames.extend(entries.chunks(40).map(|entry| Frame {
            plain_bytes: u32::from_le_bytes(entry[..4].try_into().unwrap()) as usize,
            stored_bytes: u32::from_le_bytes(entry[4..8].try_into().unwrap()) as usize,
            sha256: entry[8..].try_into().unwrap(),
        }));
        rest = after;
    }
}

/// The section Artifacts, Codec: one frame.
fn decode(codec: &str, stored: &[u8], plain_bytes: usize) -> Vec<u8> {
    let plain = match codec {
        "zstd" => {
            assert_eq!(zstd::zstd_safe::find_frame_compressed_size(stored).unwrap(), stored.len(), "one zstd frame");
            assert_eq!(zstd::zstd_safe::get_frame_content_size(stored).unwrap(), Some(plain_bytes as u64));
            assert_eq!(stored[4] & 0b100, 0, "no checksum");
            zstd::bulk::decompress(stored, plain_bytes).unwrap()
        }
        "gzip" => {
            assert_eq!((stored[3], &stored[4..8]), (0, &[0; 4][..]), "without name and time");
            let mut decoder = flate2::bufread::GzDecoder::new(stored);
            let mut plain = Vec::new();
            decoder.read_to_end(&mut plain).unwrap();
            assert!(decoder.into_inner().is_empty(), "one gzip member");
            plain
        }
        "none" => stored.to_vec(),
        other => panic!("the document knows no codec '{other}'"),
    };
    assert_eq!(plain.len(), plain_bytes);
    plain
}

/// The section Frames, For writers.
fn largest_frame(offset: u64) -> u64 {
    match offset {
        at if at < 16 * GIB => 256 << 10,
        at if at < 128 * GIB => 1 << 20,
        _ => 4 << 20,
    }
}

/// First column of the table of fields, as the document has it.
fn documented_fields() -> BTreeSet<&'static str> {
    let document = include_str!("../docs/format.md");
    let section = document.split("\n## Artifacts\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    cells.flat_map(|cell| cell.trim_matches('`').split("`, `")).collect()
}

/// Bytes that do not compress and are the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A set of files, a program's output and nothing at all, made with `settings` in the section `repository`.
fn made_with(settings: &str) -> Home {
    let home = Home::new();
    std::fs::create_dir_all(home.path("data")).unwrap();
    std::fs::write(home.path("data/noise"), noise(3 << 20)).unwrap();
    std::fs::write(home.path("data/zeros"), vec![0; 2 << 20]).unwrap();
    std::fs::write(home.path("data/small"), "hello\n").unwrap();
    home.init(
        "jobs:\n  - job: shop\n    sources:\n      - files: { name: uploads, paths: [data] }\n      \
         - command: { name: numbers, run: [seq, \"200000\"] }\n      - command: { name: silent, run: [\"true\"], allow_empty: true }\n",
    );
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    home.write("drctl.yaml", &config.replacen("\njobs:", &format!("\n  {settings}\njobs:"), 1));
    home.ok(&["backup", "now"]);
    home
}

/// The plain stream of the artifact whose file name begins with `name`.
fn plain(set: &Set, name: &str) -> Vec<u8> {
    let artifacts = set.manifest["artifacts"].as_array().unwrap();
    set.read(artifacts.iter().find(|a| a["file"].as_str().unwrap().starts_with(name)).unwrap())
}

fn every_artifact_opens(settings: &str, codec: &str, seal: &str) {
    let home = made_with(settings);
    let set = Set::of(&home);
    for artifact in set.manifest["artifacts"].as_array().unwrap() {
        assert_eq!((&artifact["codec"]["name"], &artifact["encryption"]["name"]), (&codec.into(), &seal.into()));
        set.read(artifact);
    }

    let numbers: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(plain(&set, "numbers.output.raw"), numbers.as_bytes());
    assert_eq!(plain(&set, "silent."), b"");
    let silent = set.manifest["artifacts"].as_array().unwrap().iter().find(|a| a["source"] == "silent").unwrap();
    assert_eq!((&silent["frames"], &silent["plain_bytes"]), (&1.into(), &0.into()), "an empty stream has one empty frame");
    tar_holds(&plain(&set, "uploads.tree.tar"), &home.path("data"));

    assert!(String::from_utf8(plain(&set, "drctl.yaml")).unwrap().contains("jobs:"));
    let details: Value = serde_json::from_slice(&set.read(&set.manifest["details"])).unwrap();
    assert_eq!((&details["format"], &details["set"]), (&0.into(), &set.manifest["set"]));
    assert_eq!(details["sources"][1]["artifacts"][0]["name"], "output");
    let totals = &details["sources"][0]["artifacts"][0]["facts"]["totals"];
    assert_eq!((totals, &totals["files"]), (&set.manifest["artifacts"][0]["totals"], &3.into()));
}

fn tar_holds(bytes: &[u8], folder: &Path) {
    let mut found = 0;
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_owned();
        assert_eq!(content, std::fs::read(folder.join(name)).unwrap());
        found += 1;
    }
    assert_eq!(found, 3);
}

#[test]
fn a_reader_made_from_the_document_opens_zstd_under_age() {
    every_artifact_opens("codec: { zstd: 1 }", "zstd", "age");
}

#[test]
fn a_reader_made_from_the_document_opens_gzip_with_its_index_beside() {
    every_artifact_opens("codec: gzip", "gzip", "age");
}

#[test]
fn a_reader_made_from_the_document_opens_frames_as_they_are() {
    every_artifact_opens("codec: none", "none", "age");
}

#[test]
fn a_reader_made_from_the_document_opens_what_is_not_sealed() {
    let home = made_with("codec: { zstd: 3 }");
    // The recipients go, an explicit `none` comes; a second run makes a second set in clear.
    let config = std::fs::read_to_string(home.path("drctl.yaml")).unwrap();
    let clear: Vec<&str> =
        config.lines().filter(|line| !line.trim_start().starts_with("- age1") && !line.contains("recipients:")).collect();
    home.write("drctl.yaml", &clear.join("\n").replacen("  codec:", "  encryption: none\n  codec:", 1));
    home.ok(&["backup", "now"]);
    let record = std::fs::read_to_string(home.path("drctl-repository/jobs/shop/log/0000000002.signed")).unwrap();
    let record: Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
    let first = Set::of(&home);
    let set = Set {
        folder: home.set_folder(record["body"]["manifest"]["set"].as_str().unwrap()),
        manifest: record["body"]["manifest"].clone(),
        ..first
    };
    for artifact in set.manifest["artifacts"].as_array().unwrap() {
        assert_eq!(artifact["encryption"], serde_json::json!({ "name": "none" }));
        set.read(artifact);
    }
    tar_holds(&plain(&set, "uploads.tree.tar.zst"), &home.path("data"));
}
