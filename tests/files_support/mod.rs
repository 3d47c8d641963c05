//! What the tests of the files source share.
#![allow(dead_code, clippy::unwrap_used, reason = "test code; each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use drctl::error::Result;
use drctl::format::Inspector;
use drctl::format::tar::TarInspector;
use drctl::model::{Facts, SystemClock};
use drctl::observe::Bus;
use drctl::pipeline::plain::{self, Plain};
use drctl::source::files::{FilesSettings, FilesSource};
use drctl::source::{RunContext, Source};
use tokio_util::sync::CancellationToken;

pub fn context() -> RunContext {
    RunContext { run: "test".into(), cancel: CancellationToken::new(), bus: Bus::new(), clock: Arc::new(SystemClock) }
}

/// A finished dump.
pub struct Dump {
    pub bytes: Vec<u8>,
    /// Where the stream was cut.
    pub cuts: Vec<usize>,
    pub details: serde_json::Value,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
    pub facts: Facts,
}

/// Dumps and walks.
pub async fn dump(settings: FilesSettings) -> Result<Dump> {
    dump_in(settings, &context(), |_| ()).await
}

/// Like [`dump`]; `each` is called after every piece with the bytes so far.
pub async fn dump_in(settings: FilesSettings, context: &RunContext, mut each: impl FnMut(usize)) -> Result<Dump> {
    let source = FilesSource::new("files", settings)?;
    source.preflight(context).await?;
    let mut session = source.open(context).await?;
    let plan = session.artifacts().remove(0);
    let (sender, mut receiver) = plain::channel();
    let reading = async {
        let (mut bytes, mut cuts) = (Vec::new(), Vec::new());
        while let Some(piece) = receiver.next().await {
            match piece {
                Plain::Data(data) => bytes.extend_from_slice(&data),
                Plain::Cut => cuts.push(bytes.len()),
                Plain::End => break,
            }
            each(bytes.len());
        }
        (bytes, cuts)
    };
    let (end, (bytes, cuts)) = tokio::join!(session.dump(&plan, sender, context), reading);
    let end = end?;
    let mut inspector = Box::new(TarInspector::new());
    inspector.feed(&bytes)?;
    let facts = inspector.finish()?;
    assert_eq!(facts.totals, end.expected_totals, "writer and walker count alike");
    Ok(Dump { bytes, cuts, details: session.details(), problems: session.problems(), warnings: session.warnings(), facts })
}

/// The archive's names as the walker reads them.
pub fn names(archive: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    drctl::source::files::list(archive, |entry| {
        names.push(String::from_utf8_lossy(&entry.path).into_owned());
        Ok(())
    })
    .unwrap();
    names
}

/// Runs a command and fails with its words unless it ends well.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A copy of this test program that anybody may run. A process of its own makes it: what this one has open for writing, a child that another
/// thread has just forked has too, and a program that is open for writing cannot be run.
pub fn copy_program(to: &Path) {
    run(Command::new("install").args(["-m", "755"]).arg(std::env::current_exe().unwrap()).arg(to));
}

/// Takes a mount away. A child that another thread has just forked may still have a folder of it open, so it is not asked to be unused.
pub fn unmount(at: &Path) {
    run(Command::new("umount").arg("--lazy").arg(at));
}

/// Extracts with GNU tar.
pub fn gnu_tar(archive: &[u8], into: &Path) {
    let file = into.join(".archive.tar");
    std::fs::write(&file, archive).unwrap();
    let words = run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-C"])
        .arg(into)
        .arg("-xf")
        .arg(&file)
        .env("LC_ALL", "C.UTF-8"));
    assert_eq!(words, "");
    std::fs::remove_file(file).unwrap();
}

/// Everything about a tree that a backup must bring back, as lines to compare.
pub fn picture(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    fn walk(root: &Path, at: &Path, seen: &mut std::collections::HashMap<u64, PathBuf>, out: &mut Vec<String>) {
        let meta = std::fs::symlink_metadata(at).unwrap();
        let relative = at.strip_prefix(root).unwrap();
        let mut line = format!("{relative:?} {:o} {}:{} ", meta.mode(), meta.uid(), meta.gid());
        if meta.is_symlink() {
            line += &format!("-> {:?}", std::fs::read_link(at).unwrap());
        } else {
            let mut xattrs: Vec<_> = xattr::list(at).unwrap().collect();
            xattrs.sort();
            for name in xattrs {
                line += &format!("{name:?}={:?} ", xattr::get(at, &name).unwrap());
            }
        }
        line += &format!(" mtime {}.{:09}", meta.mtime(), meta.mtime_nsec());
        if meta.is_file() {
            let first = seen.entry(meta.ino()).or_insert_with(|| relative.to_path_buf());
            line += &format!(" {} bytes, same as {first:?}", meta.len());
            if meta.len() < 64 << 20 {
                line += &format!(" {}", drctl::model::Sha256::of(&std::fs::read(at).unwrap()));
            }
        }
        out.push(line);
        if meta.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(at).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            for name in names {
                walk(root, &name, seen, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut Default::default(), &mut out);
    out
}

/// A POSIX ACL with one named user, in the kernel's form.
pub fn acl() -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 4, u32::MAX)] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// A folder with one of everything that can be stored.
pub fn zoo(root: &Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    std::fs::create_dir_all(root.join("sub/deeper")).unwrap();
    std::fs::write(root.join("empty"), b"").unwrap();
    std::fs::write(root.join("small"), b"hello\n").unwrap();
    std::fs::write(root.join("block"), vec![7u8; 512]).unwrap();
    std::fs::write(root.join("big"), (0..3_000_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>()).unwrap();
    std::fs::write(root.join("sub/deeper/leaf"), b"leaf").unwrap();
    std::fs::hard_link(root.join("small"), root.join("sub/again")).unwrap();
    symlink("../..", root.join("sub/loop")).unwrap();
    symlink("no/such/thing", root.join("dangling")).unwrap();
    symlink("x".repeat(300), root.join("long-link")).unwrap();
    std::fs::write(root.join("setuid"), b"#!").unwrap();
    rustix::fs::chown(root.join("setuid"), Some(rustix::fs::Uid::from_raw(1234)), Some(rustix::fs::Gid::from_raw(4_000_000))).unwrap();
    std::fs::set_permissions(root.join("setuid"), PermissionsExt::from_mode(0o6755)).unwrap();
    std::fs::write(root.join("attributes"), b"a").unwrap();
    xattr::set(root.join("attributes"), "user.note", b"bin\0\n=").unwrap();
    xattr::set(root.join("attributes"), "user.a=b%", b"").unwrap();
    xattr::set(root.join("attributes"), "system.posix_acl_access", &acl()).unwrap();
    xattr::set(root.join("sub"), "user.folder", b"x").unwrap();
    xattr::set(root.join("sub"), "system.posix_acl_default", &acl()).unwrap();
    let capability = hex::decode("0100000200200000000000000000000000000000").unwrap();
    xattr::set(root.join("block"), "security.capability", &capability).unwrap();
    sparse(&root.join("holes"), 20 << 20, &[(0, 10), (5 << 20, 100_000), ((20 << 20) - 1, 1)]);
    sparse(&root.join("one-hole"), 1 << 20, &[]);
    std::fs::set_permissions(root.join("sub"), PermissionsExt::from_mode(0o2750)).unwrap();
    std::fs::create_dir(root.join("read-only")).unwrap();
    std::fs::write(root.join("read-only/file"), b"r").unwrap();
    std::fs::set_permissions(root.join("read-only"), PermissionsExt::from_mode(0o555)).unwrap();
    for (name, seconds, nanoseconds) in
        [("small", 1_000_000_000, 123_456_789), ("empty", -5, 1), ("sub/deeper", 0, 0), ("sub", 4_000_000_000, 5)]
    {
        set_mtime(&root.join(name), seconds, nanoseconds);
    }
    let link_times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 7, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 7, tv_nsec: 8 },
    };
    rustix::fs::utimensat(rustix::fs::CWD, root.join("dangling"), &link_times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
}

/// A file with holes between the pieces.
pub fn sparse(path: &Path, length: u64, pieces: &[(u64, usize)]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(length).unwrap();
    for (offset, count) in pieces {
        file.write_all_at(&vec![0xab; *count], *offset).unwrap();
    }
    file.sync_all().unwrap();
}

/// Disk blocks of 512 bytes.
pub fn blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().blocks()
}

/// The name corpus of FAULTS row 67: every sort of name that has broken something.
pub fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "ünïcödé",
        "cafe\u{301}",
        "caf\u{e9}",
        "日本語",
        "😀",
        "with space",
        " leading",
        "trailing ",
        "new\nline",
        "tab\tcr\rbell\x07",
        "-rf",
        "--help",
        "...",
        "..a",
        "a..",
        "a..b",
        "'single'",
        "\"double\"",
        "back\\slash",
        "$(id)",
        "`id`",
        "%2e%2e",
        "a+b",
        "a;b|c&d",
        "*?[x]",
        "{a,b}",
        "~",
        "#x#",
        "@",
        "=",
        "a=b",
        "con",
        "nul.txt",
        "PaxHeaders",
        "././@PaxHeader",
        "GNUSparseFile.0",
        "e\u{202e}txt",
        "\u{feff}bom",
    ]
    .iter()
    .map(|name| name.replace('/', "_").into_bytes())
    .collect();
    names.extend([
        b"\xff\xfe".to_vec(),
        b"latin-\xe9".to_vec(),
        vec![0xff; 255],
        vec![b'x'; 255],
        vec![b'x'; 100],
        vec![b'x'; 101],
        vec![b'n'; 99],
    ]);
    names.push("é".repeat(127).into_bytes());
    names
}

/// A journal in memory; `stop_after` makes it fail after so many notes, as a crash would.
#[derive(Default)]
pub struct MemoryJournal {
    pub notes: std::sync::Mutex<std::collections::BTreeMap<String, serde_json::Value>>,
    pub stop_after: std::sync::Mutex<Option<usize>>,
}

#[async_trait::async_trait]
impl drctl::source::load::Journal for MemoryJournal {
    async fn note(&self, key: &str, value: serde_json::Value) -> Result<()> {
        let mut stop = self.stop_after.lock().unwrap();
        if let Some(left) = stop.as_mut() {
            *left = left.checked_sub(1).ok_or_else(|| drctl::error::Error::failed("stopped by the test"))?;
        }
        self.notes.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }
    fn get(&self, key: &str) -> Option<serde_json::Value> {
        self.notes.lock().unwrap().get(key).cloned()
    }
}

/// A whole session's artifact with its bytes.
pub struct Taken {
    pub artifact: drctl::source::load::LoadArtifact,
    pub bytes: Vec<u8>,
}

/// Dumps every artifact of any source.
pub async fn take(source: &dyn Source) -> Result<(Vec<Taken>, serde_json::Value)> {
    let context = context();
    source.preflight(&context).await?;
    let mut session = source.open(&context).await?;
    let mut out = Vec::new();
    for plan in session.artifacts() {
        let (sender, mut receiver) = plain::channel();
        let reading = async {
            let mut bytes = Vec::new();
            while let Some(piece) = receiver.next().await {
                if let Plain::Data(data) = piece {
                    bytes.extend_from_slice(&data);
                }
            }
            bytes
        };
        let (end, bytes) = tokio::join!(session.dump(&plan, sender, &context), reading);
        let end = end?;
        let mut inspector = drctl::format::inspector(plan.format);
        inspector.feed(&bytes)?;
        let facts = inspector.finish()?;
        for (name, count) in end.expected_totals {
            assert!(facts.totals[&name] >= count, "{name}");
        }
        out.push(Taken { artifact: load_artifact(source.name(), &plan.name, plan.format, &bytes, facts), bytes });
    }
    Ok((out, session.details()))
}

/// An artifact as a manifest would describe it, as far as loaders look.
pub fn load_artifact(
    source: &str,
    name: &str,
    format: drctl::model::ArtifactFormat,
    bytes: &[u8],
    facts: Facts,
) -> drctl::source::load::LoadArtifact {
    use drctl::model::artifact::*;
    use drctl::model::{Sha256, Timestamp};
    let artifact = Artifact {
        source: source.into(),
        file: "x".into(),
        format,
        objects: vec![],
        plain_bytes: bytes.len() as u64,
        plain_digest: Sha256::of(b""),
        frames: 1,
        compressed_bytes: 0,
        index: IndexPlace::Inside { offset: 0, length: 0, sha256: Sha256::of(b"") },
        chunker: Chunker { name: "x".into(), min_bytes: 1, avg_bytes: 1, max_bytes: 1 },
        codec: Codec::None,
        encryption: Encryption::None,
        consistency: Consistency::Fuzzy,
        tool: None,
        exit_status: None,
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        totals: facts.totals.clone(),
    };
    drctl::source::load::LoadArtifact { artifact, name: name.into(), facts, rereads: Default::default() }
}

/// A request to restore.
pub fn request(
    source: &str,
    artifacts: Vec<drctl::source::load::LoadArtifact>,
    details: serde_json::Value,
) -> drctl::source::load::LoadRequest {
    drctl::source::load::LoadRequest {
        restore: "7k3q".into(),
        source: source.into(),
        artifacts,
        details,
        as_of: "2025-01-01T02:00:00Z".parse().unwrap(),
        in_place: false,
        grows: Vec::new(),
        exchange_first: false,
        target: None,
    }
}

/// Sends bytes in pieces and ends the stream well, or not at all.
pub fn stream(bytes: Vec<u8>, ends: bool) -> drctl::pipeline::plain::PlainReceiver {
    let (sender, receiver) = plain::channel();
    tokio::spawn(async move {
        for piece in bytes.chunks(100_003) {
            if sender.data(bytes::Bytes::copy_from_slice(piece)).await.is_err() {
                return;
            }
        }
        if ends {
            let _ = sender.end().await;
        }
    });
    receiver
}

/// Keeps what is told.
#[derive(Default)]
pub struct Told(pub std::sync::Mutex<Vec<String>>);

impl drctl::observe::Observer for Told {
    fn observe(&self, event: &drctl::observe::Event) {
        use drctl::observe::Event;
        if let Event::Step { text } | Event::Warning { text } = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}
