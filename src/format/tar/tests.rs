use proptest::prelude::*;

use super::*;
use crate::error::Kind;

/// Keeps everything it is told.
#[derive(Default, Debug, PartialEq)]
struct Keep {
    entries: Vec<Entry>,
    content: Vec<Vec<(u64, u8)>>,
    ends: usize,
}

impl Sink for Keep {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        assert_eq!(self.ends, self.entries.len());
        self.entries.push(entry.clone());
        self.content.push(Vec::new());
        Ok(())
    }
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let content = self.content.last_mut().unwrap();
        content.extend(bytes.iter().enumerate().map(|(i, b)| (offset + i as u64, *b)));
        Ok(())
    }
    fn end(&mut self) -> Result<()> {
        self.ends += 1;
        Ok(())
    }
}

fn walk(archive: &[u8], piece: usize) -> Result<Keep> {
    let mut walker = Walker::new();
    let mut keep = Keep::default();
    for bytes in archive.chunks(piece) {
        walker.feed(bytes, &mut keep)?;
    }
    walker.finish()?;
    Ok(keep)
}

fn file(path: &[u8], size: u64) -> Entry {
    Entry { size, mode: 0o644, mtime: (1_700_000_000, 0), ..Entry::new(path, EntryKind::File) }
}

/// An archive of the entries; content is a count of bytes.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let content = encode(entry, &mut out);
        out.extend((0..content).map(|i| (i % 251) as u8));
        out.resize(out.len() + padding(content), 0);
    }
    out.extend_from_slice(end_of_archive());
    out
}

fn sample() -> Vec<Entry> {
    let dir = Entry { mode: 0o1777, ..Entry::new("d", EntryKind::Dir) };
    let link = Entry { link: vec![b't'; 300], ..Entry::new("d/link", EntryKind::Symlink) };
    let hard = Entry { link: b"d/a".to_vec(), ..Entry::new("d/b", EntryKind::HardLink) };
    let long = file(&[b"d/".to_vec(), vec![b'x'; 255]].concat(), 513);
    let holes = Entry {
        sparse: Some(vec![Extent { offset: 0, length: 10 }, Extent { offset: 4096, length: 600 }, Extent { offset: 9000, length: 0 }]),
        mtime: (-5, 999_999_999),
        ..file(b"d/holes", 9000)
    };
    let hole = Entry { sparse: Some(vec![Extent { offset: 1 << 33, length: 0 }]), ..file(b"d/hole", 1 << 33) };
    let mut xattr = Entry { uid: u64::from(u32::MAX), uname: vec![b'u'; 40], ..file(b"d/\xff\xfe", 1) };
    xattr.xattrs = vec![(b"user.a=%".to_vec(), vec![0, 10, 255, b'\n']), (b"user.b".to_vec(), vec![])];
    let raw = file(&[&[0xff_u8; 120][..], b"/", &[0xfe; 130]].concat(), 0);
    vec![dir, link, file(b"d/a", 1024), hard, long, holes, hole, xattr, raw]
}

#[test]
fn entries_round_trip_in_pieces_of_any_size() {
    let archive = archive(&sample());
    let whole = walk(&archive, archive.len()).unwrap();
    assert_eq!(whole.entries, sample());
    assert_eq!(whole.content[5].len(), 610);
    assert_eq!(whole.content[5][10], (4096, 10));
    for piece in [1, 7, 511, 512, 513, 1000] {
        assert_eq!(walk(&archive, piece).unwrap(), whole, "{piece}");
    }
    let mut inspector = Box::new(TarInspector::new());
    inspector.feed(&archive).unwrap();
    let facts = inspector.finish().unwrap();
    assert_eq!(
        Totals::of_facts(&facts),
        Totals { files: 6, dirs: 1, symlinks: 1, hardlinks: 1, others: 0, bytes: 1024 + 513 + 9000 + (1 << 33) + 1 }
    );
}

#[test]
fn empty_extents_are_passed_over() {
    let extents = [(100, 0), (200, 3), (203, 0), (300, 2), (400, 0)].map(|(offset, length)| Extent { offset, length });
    let holes = Entry { sparse: Some(extents.to_vec()), ..file(b"holes", 500) };
    let keep = walk(&archive(&[holes]), 4096).unwrap();
    let offsets: Vec<u64> = keep.content[0].iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [200, 201, 202, 300, 301]);
}

#[test]
fn f27_an_archive_cut_at_any_block_or_byte_is_noticed() {
    let archive = archive(&sample());
    let cuts = (0..archive.len()).step_by(archive.len() / 400).chain((0..archive.len()).step_by(512));
    for cut in cuts {
        let error = walk(&archive[..cut], 4096).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{cut}");
    }
}

#[test]
fn nothing_but_zeros_may_follow_the_end() {
    let mut good = archive(&sample());
    good.resize(good.len() + 10240, 0);
    walk(&good, 4096).unwrap();
    for (tail, why) in [(&b"x"[..], "block"), (&[0u8; 511], "block"), (&[1u8; 512], "follows")] {
        let mut bad = archive(&sample());
        bad.extend_from_slice(tail);
        let error = walk(&bad, 4096).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn every_flipped_header_byte_is_noticed() {
    let good = archive(&[file(b"a", 3)]);
    for at in 0..512 {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        // The checksum's last byte is filler.
        if at != 155 {
            assert!(walk(&bad, 4096).is_err(), "{at}");
        }
    }
}

/// A header by hand, for what the encoder would never write.
fn raw(kind: u8, name: &[u8], size: u64, magic: &[u8; 8]) -> Vec<u8> {
    let mut block = [0u8; BLOCK];
    block[..name.len()].copy_from_slice(name);
    header::put_number(&mut block[header::field::SIZE], size);
    block[header::field::TYPE] = kind;
    block[header::field::MAGIC].copy_from_slice(magic);
    if matches!(kind, b'1' | b'2') {
        block[157] = b't';
    }
    header::seal(&mut block);
    block.to_vec()
}

fn with_pax(records: &[(&str, &str)], entry: Vec<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        pax::put(&mut body, key.as_bytes(), value.as_bytes());
    }
    let mut out = raw(b'x', b"x", body.len() as u64, header::POSIX);
    out.extend_from_slice(&body);
    out.resize(out.len().next_multiple_of(512), 0);
    out.extend(entry);
    out
}

fn ended(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend_from_slice(end_of_archive());
    bytes
}

#[test]
fn f70_what_has_two_readings_is_refused() {
    let p = header::POSIX;
    let mut sized = with_pax(&[("size", "1024")], raw(b'0', b"a", 0, p));
    sized.extend_from_slice(&[7; 1024]);
    assert_eq!(walk(&ended(sized), 4096).unwrap().entries[0].size, 1024, "PAX size alone holds");

    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("sizes differ", with_pax(&[("size", "0")], raw(b'0', b"a", 512, p))),
        ("sizes differ, the other way", with_pax(&[("size", "1024")], raw(b'0', b"a", 512, p))),
        ("size twice", with_pax(&[("size", "0"), ("size", "512")], raw(b'0', b"a", 0, p))),
        ("path twice", with_pax(&[("path", "a"), ("path", "b")], raw(b'0', b"a", 0, p))),
        ("NUL in path", with_pax(&[("path", "a\0b")], raw(b'0', b"a", 0, p))),
        ("empty path", with_pax(&[("path", "")], raw(b'0', b"a", 0, p))),
        ("no name", raw(b'0', b"", 0, p)),
        ("folder with size", raw(b'5', b"a/", 512, p)),
        ("symlink with size", raw(b'2', b"a", 512, p)),
        ("hard link with size", raw(b'1', b"a", 512, p)),
        ("fifo with size", raw(b'6', b"a", 512, p)),
        ("file with slash", raw(b'0', b"a/", 0, p)),
        ("old folder", raw(0, b"a/", 0, p)),
        ("unknown type", raw(b'Z', b"a", 0, p)),
        ("old GNU sparse", raw(b'S', b"a", 0, header::GNU)),
        ("multi-volume", raw(b'M', b"a", 0, header::GNU)),
        ("v7", raw(b'0', b"a", 0, b"\0\0\0\0\0\0\0\0")),
        ("negative size", {
            let mut block: [u8; 512] = raw(b'0', b"a", 0, p).try_into().unwrap();
            block[header::field::SIZE].fill(0xff);
            header::seal(&mut block);
            block.to_vec()
        }),
        ("global path", {
            let mut body = Vec::new();
            pax::put(&mut body, b"path", b"/etc/passwd");
            let mut out = raw(b'g', b"g", body.len() as u64, p);
            out.extend_from_slice(&body);
            out.resize(1024, 0);
            out.extend(raw(b'0', b"a", 0, p));
            out
        }),
        ("PAX twice", with_pax(&[("path", "b")], with_pax(&[("path", "c")], raw(b'0', b"a", 0, p)))),
        ("PAX at the end", with_pax(&[("path", "b")], vec![])),
        ("huge PAX", raw(b'x', b"x", 1 << 40, p)),
        ("empty PAX", raw(b'x', b"x", 0, p)),
        ("long name twice over", {
            let mut out = raw(b'L', b"L", 3, header::GNU);
            out.extend_from_slice(b"abc");
            out.resize(1024, 0);
            out.extend(with_pax(&[("path", "b")], raw(b'0', b"a", 0, p)));
            out
        }),
        ("sparse 0.1", with_pax(&[("GNU.sparse.map", "0,1")], raw(b'0', b"a", 0, p))),
        (
            "sparse folder",
            with_pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "5")], raw(b'5', b"a/", 0, p)),
        ),
        (
            "sparse without map",
            with_pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "5")], raw(b'0', b"a", 0, p)),
        ),
    ];
    for (name, bytes) in cases {
        let mut bytes = ended(bytes);
        bytes.resize(bytes.len() + 2048, 0);
        assert_eq!(walk(&bytes, 4096).map(|_| ()).unwrap_err().kind(), Kind::Corrupt, "{name}");
    }
}

#[test]
fn f70_sparse_maps_that_lie_are_refused() {
    for (name, map) in [
        ("overlap", "2\n0\n10\n5\n10\n"),
        ("behind the end", "1\n95\n20\n"),
        ("too short", "1\n0\n19\n"),
        ("too long", "1\n0\n21\n"),
        ("overflow", "1\n9223372036854775807\n20\n"),
        ("words", "one\n"),
        ("many", "99999999999\n"),
        ("long number", "00000000000000000000000000\n"),
        ("endless", "5\n0\n1\n"),
    ] {
        let records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "100")];
        let mut bytes = with_pax(&records, raw(b'0', b"a", 512 + 20, header::POSIX));
        bytes.extend_from_slice(map.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512) + 512, 0);
        assert!(walk(&ended(bytes), 100).is_err(), "{name}");
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let name = proptest::collection::vec(proptest::collection::vec(1u8..=255, 1..140), 1..4).prop_map(|parts| {
        let parts: Vec<Vec<u8>> = parts.into_iter().map(|p| p.into_iter().map(|b| if b == b'/' { b'_' } else { b }).collect()).collect();
        parts.join(&b'/')
    });
    let xattrs =
        proptest::collection::btree_map(proptest::collection::vec(1u8..=255, 1..30), proptest::collection::vec(any::<u8>(), 0..50), 0..3);
    (name, 0u64..3000, any::<u32>(), any::<u32>(), -10_000_000_000i64..10_000_000_000, 0u32..1_000_000_000, 0u8..4, xattrs).prop_map(
        |(path, size, uid, mode, seconds, nanoseconds, kind, xattrs)| {
            let kind = [EntryKind::File, EntryKind::Dir, EntryKind::Symlink, EntryKind::HardLink][usize::from(kind)];
            let links = matches!(kind, EntryKind::Symlink | EntryKind::HardLink);
            Entry {
                link: if links { path.iter().rev().copied().collect() } else { Vec::new() },
                size: if kind == EntryKind::File { size } else { 0 },
                uid: u64::from(uid),
                gid: u64::from(uid.rotate_left(7)),
                mode: mode & 0o7777,
                mtime: (seconds, nanoseconds),
                xattrs: xattrs.into_iter().collect(),
                ..Entry::new(path, kind)
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_entries_round_trip(entries in proptest::collection::vec(any_entry(), 0..6), piece in 1usize..2000) {
        let archive = archive(&entries);
        let keep = walk(&archive, piece).unwrap();
        prop_assert_eq!(keep.entries, entries);
    }

    #[test]
    fn damage_never_panics(at in 0usize..8192, byte in any::<u8>(), piece in 1usize..600) {
        let mut bytes = archive(&sample());
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = walk(&bytes, piece);
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 1..3000)) {
        prop_assert!(walk(&bytes, 512).is_err());
    }
}
