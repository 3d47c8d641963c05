//! FAULTS row 70: archives that want out. Each is refused before anything outside the jail is touched.
#![allow(clippy::unwrap_used, reason = "test code")]

mod files_support;

use std::path::Path;

use drctl::error::Kind;
use drctl::format::tar::{self, Entry, EntryKind, Extent};
use drctl::model::{ArtifactFormat, Facts};
use drctl::pipeline::plain::{self, PlainReceiver};
use drctl::source::files::{FilesLoader, FilesSettings};
use drctl::source::load::{LoadArtifact, Loader};
use files_support::*;

fn dir(path: &str) -> Entry {
    Entry { mode: 0o755, ..Entry::new(path, EntryKind::Dir) }
}
fn file(path: impl Into<Vec<u8>>) -> Entry {
    Entry { mode: 0o644, size: 4, ..Entry::new(path, EntryKind::File) }
}
fn symlink(path: &str, to: &str) -> Entry {
    Entry { link: to.into(), mode: 0o777, ..Entry::new(path, EntryKind::Symlink) }
}
fn hard(path: &str, to: &str) -> Entry {
    Entry { link: to.into(), ..Entry::new(path, EntryKind::HardLink) }
}

fn put(out: &mut Vec<u8>, entries: &[Entry]) {
    for entry in entries {
        let content = tar::encode(entry, out);
        out.extend(std::iter::repeat_n(b'x', content as usize));
        out.resize(out.len() + tar::padding(content), 0);
    }
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, entries);
    out.extend_from_slice(tar::end_of_archive());
    out
}

/// A header with fields of one's own, checksum right.
fn raw(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut out = Vec::new();
    tar::encode(&Entry { size: 0, ..file("tree/raw") }, &mut out);
    change(&mut out);
    out[148..156].fill(b' ');
    let sum: u32 = out[..512].iter().map(|b| u32::from(*b)).sum();
    out[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out
}

/// A PAX header of these records.
fn pax(records: &[u8]) -> Vec<u8> {
    let mut out = raw(|block| {
        block[156] = b'x';
        block[124..136].copy_from_slice(format!("{:011o}\0", records.len()).as_bytes());
    });
    out.extend_from_slice(records);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn cat(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = parts.concat();
    out.resize(out.len().next_multiple_of(512), 0);
    out.extend_from_slice(tar::end_of_archive());
    out
}

/// Everything in a folder, deep.
fn all(root: &Path) -> Vec<String> {
    picture(root).into_iter().filter(|line| !line.starts_with("\"\" ")).collect()
}

fn corpus(outside: &str) -> Vec<(&'static str, Vec<u8>)> {
    let up = |n: usize| "../".repeat(n);
    let outer = outside.trim_start_matches('/');
    let with = |entries: Vec<Entry>| archive(&[vec![dir("tree")], entries].concat());
    let top = archive(&[dir("tree")])[..512].to_vec();
    vec![
        ("dot dot", with(vec![file("tree/../evil")])),
        ("dot dot far", with(vec![file(format!("tree/{}{outer}/evil", up(12)))])),
        ("dot dot at the end", with(vec![dir("tree/a"), dir("tree/a/..")])),
        ("dot dot only", archive(&[dir("..")])),
        ("dot in the middle", with(vec![file("tree/./evil")])),
        ("double slash", with(vec![file("tree//evil")])),
        ("absolute", with(vec![file(format!("{outside}/evil"))])),
        ("absolute folder", archive(&[dir("/tree"), file("/tree/evil")])),
        ("another root", with(vec![file(format!("{outer}/evil"))])),
        ("a longer name than the root", with(vec![file("treehouse/evil")])),
        ("the parent of the root", archive(&[file("evil")])),
        ("symlink out, then child", with(vec![symlink("tree/l", outside), file("tree/l/evil")])),
        ("symlink up, then child", with(vec![symlink("tree/l", &up(20)), file(format!("tree/l/{outer}/evil"))])),
        ("symlink out, then folder", with(vec![symlink("tree/l", outside), dir("tree/l"), file("tree/l/evil")])),
        ("symlink out, then deep child", with(vec![symlink("tree/l", outside), file("tree/l/a/b/evil")])),
        ("symlink out, then symlink in it", with(vec![symlink("tree/l", outside), symlink("tree/l/evil", "x")])),
        ("symlink out, then link in it", with(vec![file("tree/f"), symlink("tree/l", outside), hard("tree/l/evil", "tree/f")])),
        ("symlink chain", with(vec![symlink("tree/a", outside), symlink("tree/b", "a"), file("tree/b/evil")])),
        ("symlink to itself, then child", with(vec![symlink("tree/l", "."), file("tree/l/evil")])),
        ("root is a symlink", archive(&[symlink("tree", outside), file("tree/evil")])),
        ("symlink replaced by file", with(vec![symlink("tree/l", &format!("{outside}/victim")), file("tree/l")])),
        ("hard link out", with(vec![hard("tree/h", &format!("{outer}/victim")), file("tree/h")])),
        ("hard link out, absolute", with(vec![hard("tree/h", &format!("{outside}/victim"))])),
        ("hard link out, dot dot", with(vec![hard("tree/h", &format!("tree/{}{outer}/victim", up(12)))])),
        ("hard link through a symlink", with(vec![symlink("tree/l", outside), hard("tree/h", "tree/l/victim")])),
        ("hard link to a symlink", with(vec![symlink("tree/l", &format!("{outside}/victim")), hard("tree/h", "tree/l")])),
        ("hard link to a folder", with(vec![dir("tree/d"), hard("tree/h", "tree/d")])),
        ("hard link to nothing", with(vec![hard("tree/h", "tree/later"), file("tree/later")])),
        ("hard link to itself", with(vec![hard("tree/h", "tree/h")])),
        ("hard link that replaces", with(vec![file("tree/a"), file("tree/b"), hard("tree/b", "tree/a")])),
        ("file twice", with(vec![file("tree/a"), file("tree/a")])),
        ("folder for a file", with(vec![file("tree/a"), dir("tree/a")])),
        ("file for a folder", with(vec![dir("tree/a"), file("tree/a")])),
        ("folder twice", with(vec![dir("tree/a"), dir("tree/a")])),
        ("root twice", archive(&[dir("tree"), dir("tree")])),
        ("child of a file", with(vec![file("tree/a"), file("tree/a/evil")])),
        ("character device", with(vec![Entry::new("tree/d", EntryKind::Other(b'3'))])),
        ("block device", with(vec![Entry::new("tree/d", EntryKind::Other(b'4'))])),
        ("fifo", with(vec![Entry::new("tree/p", EntryKind::Other(b'6'))])),
        ("owner that means nobody changes it", with(vec![Entry { uid: u64::from(u32::MAX), ..file("tree/a") }])),
        ("owner beyond 32 bits", with(vec![Entry { uid: 1 << 40, ..file("tree/a") }])),
        ("name too long", with(vec![file([b"tree/".to_vec(), vec![b'x'; 300]].concat())])),
        (
            "PAX size hides an entry",
            cat(&[&top, &pax(b"13 size=1024\n"), &raw(|b| b[124..136].copy_from_slice(b"00000000001\0")), &[0; 1024]]),
        ),
        (
            "PAX size zero shows an entry",
            cat(&[&top, &pax(b"10 size=0\n"), &raw(|b| b[124..136].copy_from_slice(b"00000001000\0")), &archive(&[file("tree/evil")])]),
        ),
        ("PAX path out", cat(&[&top, &pax(b"19 path=tree/../../e\n"), &raw(|_| ())])),
        ("PAX path twice", cat(&[&top, &pax(b"12 path=t/a\n12 path=t/b\n"), &raw(|_| ())])),
        ("PAX linkpath out", cat(&[&top, &pax(b"22 linkpath=../victim\n"), &raw(|b| b[156] = b'1')])),
        ("PAX record that lies about its length", cat(&[&top, &pax(b"99 path=tree/a\n"), &raw(|_| ())])),
        (
            "global PAX path",
            cat(&[
                &top,
                &{
                    let mut g = pax(b"15 path=tree/g\n");
                    g[156] = b'g';
                    let mut h = raw(|b| b.copy_from_slice(&g[..512]));
                    h.extend_from_slice(&g[512..]);
                    h
                },
                &raw(|_| ()),
            ]),
        ),
        ("negative size", cat(&[&top, &raw(|b| b[124..136].fill(0xff))])),
        (
            "huge size",
            cat(&[
                &top,
                &raw(|b| {
                    b[124..136].fill(0);
                    b[124] = 0x80;
                    b[128] = 0x7f;
                }),
            ]),
        ),
        (
            "link with content",
            cat(&[
                &top,
                &raw(|b| {
                    b[156] = b'2';
                    b[157] = b'x';
                    b[124..136].copy_from_slice(b"00000001000\0");
                }),
                &archive(&[file("tree/evil")]),
            ]),
        ),
        (
            "sparse bomb",
            with(vec![Entry { size: 1 << 50, sparse: Some(vec![Extent { offset: 1 << 49, length: 4 }]), ..file("tree/bomb") }]),
        ),
        ("wrong checksum", {
            let mut bad = with(vec![file("tree/a")]);
            bad[512 + 5] ^= 1;
            bad
        }),
        ("no end", with(vec![file("tree/a")])[..1536].to_vec()),
        ("something behind the end", [with(vec![]), with(vec![file("tree/a")])].concat()),
    ]
}

async fn attempt(base: &Path, bytes: Vec<u8>, facts: Facts) -> drctl::error::Result<()> {
    let artifact = load_artifact("files", "tree", ArtifactFormat::Tar, &bytes, facts);
    load_into(base, artifact, stream(bytes, true)).await
}

async fn load_into(base: &Path, artifact: LoadArtifact, stream: PlainReceiver) -> drctl::error::Result<()> {
    let tree = base.join("tree");
    let details = serde_json::json!({
        "roots": [{ "path": tree, "name": tree.strip_prefix("/").unwrap(), "kind": "dir" }],
        "include": [], "exclude": [], "since": null, "one_file_system": true, "empty": false, "allow_empty": false,
        "skipped": {"entries": [], "more": 0}, "mounts": {"entries": [], "more": 0}, "unreadable": {"entries": [], "more": 0},
        "changed": {"entries": [], "more": 0}, "vanished": {"entries": [], "more": 0}, "users": {}, "groups": {},
    });
    let request = request("files", vec![artifact], details);
    let loader = FilesLoader::new(FilesSettings::all_of([tree]));
    loader.load(&request, &request.artifacts[0], stream, &MemoryJournal::default(), &context()).await.map(drop)
}

/// Facts that allow a lot, so that limits are not what refuses.
fn generous() -> Facts {
    let mut facts = Facts::of("tar");
    for total in ["files", "dirs", "symlinks", "hardlinks", "others"] {
        facts.add(total, 1000);
    }
    facts.add("bytes", 1 << 30);
    facts
}

#[tokio::test]
async fn f70_archives_that_want_out_are_refused_and_leave_nothing() {
    // The root must be the first part of the names in the corpus.
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("victim"), b"precious").unwrap();
    let corpus = corpus(outside.path().to_str().unwrap());
    assert!(corpus.len() >= 40);
    for (name, bytes) in corpus {
        let base = tempfile::tempdir_in("/").unwrap();
        let jail = base.path().file_name().unwrap().to_str().unwrap().to_owned();
        std::fs::create_dir(base.path().join("tree")).unwrap();
        std::fs::write(base.path().join("tree/live"), b"live").unwrap();
        let before = (all(outside.path()), all(base.path()));
        let bytes = below(&bytes, &jail);
        let error = attempt(base.path(), bytes, generous()).await.err();
        let error = error.unwrap_or_else(|| panic!("{name}: was not refused"));
        assert_eq!(error.kind(), Kind::Corrupt, "{name}: {error}");
        assert!(!error.to_string().contains("holds less"), "{name} was refused only for its count: {error}");
        assert_eq!((all(outside.path()), all(base.path())), before, "{name}: {error}");
    }
}

/// The same archive with `tree` at the front of names and link targets moved below the jail, by header surgery where it parses.
fn below(bytes: &[u8], jail: &str) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at + 512 <= out.len() {
        let block = &mut out[at..at + 512];
        if &block[257..262] == b"ustar" && block.starts_with(b"tree") && (block[4] == b'/' || block[4] == 0) {
            // The prefix field joins in front with a slash.
            let sum_was_right = checksum(block) == stored_checksum(block);
            block[345..345 + jail.len()].copy_from_slice(jail.as_bytes());
            if block[156] == b'1' && block[157..].starts_with(b"tree/") {
                let link: Vec<u8> = block[157..257].iter().copied().take_while(|b| *b != 0).collect();
                let moved = [jail.as_bytes(), b"/", &link].concat();
                if moved.len() <= 100 {
                    block[157..157 + moved.len()].copy_from_slice(&moved);
                }
            }
            if sum_was_right {
                let sum = checksum(block);
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        at += 512;
    }
    out
}

fn checksum(block: &[u8]) -> u32 {
    block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum()
}

fn stored_checksum(block: &[u8]) -> u32 {
    u32::from_str_radix(std::str::from_utf8(&block[148..154]).unwrap_or("0"), 8).unwrap_or(0)
}

#[tokio::test]
async fn f70_a_harmless_archive_passes_the_same_way() {
    let base = tempfile::tempdir_in("/").unwrap();
    let jail = base.path().file_name().unwrap().to_str().unwrap().to_owned();
    let entries =
        [dir("tree"), file("tree/a"), hard("tree/b", "tree/a"), symlink("tree/l", "/etc/passwd"), dir("tree/z"), file("tree/z/..a")];
    let bytes = below(&archive(&entries), &jail);
    let mut inspector = Box::new(tar::TarInspector::new());
    drctl::format::Inspector::feed(inspector.as_mut(), &bytes).unwrap();
    let facts = drctl::format::Inspector::finish(inspector).unwrap();
    attempt(base.path(), bytes.clone(), facts.clone()).await.unwrap();
    std::fs::remove_dir_all(base.path().join("tree.drctl-7k3q")).unwrap();

    // One more of anything than the facts allow is refused.
    for total in ["files", "dirs", "symlinks", "hardlinks", "bytes"] {
        let mut less = facts.clone();
        *less.totals.get_mut(total).unwrap() -= 1;
        let error = attempt(base.path(), bytes.clone(), less).await.unwrap_err();
        assert!(error.to_string().contains("more than was counted"), "{total}: {error}");
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }
    let mut more = facts.clone();
    *more.totals.get_mut("files").unwrap() += 1;
    assert!(attempt(base.path(), bytes, more).await.unwrap_err().to_string().contains("less than was counted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn f70_f82_a_million_entries_are_refused_at_the_limit() {
    const ENTRIES: u32 = 1_000_000;
    let base = tempfile::tempdir_in("/").unwrap();
    let jail = base.path().file_name().unwrap().to_str().unwrap().to_owned();
    let mut facts = generous();
    facts.totals.insert("files".into(), 10);
    let first = {
        let mut bytes = Vec::new();
        put(&mut bytes, &[dir("tree")]);
        below(&bytes, &jail)
    };
    let artifact = load_artifact("files", "tree", ArtifactFormat::Tar, &first, facts);
    let (sender, receiver) = plain::channel();
    let feeding = tokio::spawn(async move {
        sender.data(first.into()).await.unwrap();
        for from in (0..ENTRIES).step_by(500) {
            let mut bytes = Vec::new();
            for i in from..from + 500 {
                put(&mut bytes, &[Entry { size: 0, ..file(format!("tree/f{i}")) }]);
            }
            if sender.data(below(&bytes, &jail).into()).await.is_err() {
                return from;
            }
        }
        let _ = sender.data(bytes::Bytes::copy_from_slice(tar::end_of_archive())).await;
        let _ = sender.end().await;
        ENTRIES
    });
    let started = std::time::Instant::now();
    let error = load_into(base.path(), artifact, receiver).await.unwrap_err();
    assert!(error.to_string().contains("more than was counted"), "{error}");
    assert!(started.elapsed().as_secs() < 60);
    let sent = feeding.await.unwrap();
    assert!(sent < 50_000, "nobody reads on behind the limit: {sent}");
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}
