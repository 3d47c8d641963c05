use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::error::{Kind, Result};
use crate::format::Inspector;
use crate::model::Facts;

/// Made by pg_dump 15.18 from a database with an odd schema, an empty table, a table without columns, NULs, backslashes, newlines,
/// bytea, a partition, a generated column, an extension, a materialized view and two large objects, one of them empty.
const PLAIN: &[u8] = include_bytes!("../../../tests/data/postgres_15_plain.dump");
/// The same with pg_dump's own compression.
const GZIP: &[u8] = include_bytes!("../../../tests/data/postgres_15_gzip.dump");

fn walk(pieces: &[&[u8]]) -> Result<Facts> {
    let mut inspector = Box::new(PgDumpInspector::new());
    for piece in pieces {
        inspector.feed(piece)?;
    }
    inspector.finish()
}

fn rows(facts: &Facts) -> Vec<(&str, u64)> {
    facts.per_name.iter().map(|(name, rows)| (name.as_str(), *rows)).collect()
}

#[test]
fn a_real_archive_is_counted() {
    let facts = walk(&[PLAIN]).unwrap();
    assert_eq!(facts.format, "pgdump-custom 1.14");
    let want =
        [("\"we.ird\".\"o\"\"d\"", 2), ("public.a", 6), ("public.empty", 0), ("public.gen", 1), ("public.part1", 1), ("public.zero", 3)];
    assert_eq!(rows(&facts), want);
    assert_eq!(facts.totals["rows"], 13);
    assert_eq!(facts.totals["tables"], 6);
    assert_eq!(facts.totals["large_objects"], 2);
    assert_eq!(facts.totals["bytes"], PLAIN.len() as u64);
}

#[test]
fn a_compressed_archive_is_walked_without_rows() {
    let facts = walk(&[GZIP]).unwrap();
    assert_eq!(facts.totals["tables"], 6);
    assert_eq!(facts.totals["large_objects"], 2);
    assert!(!facts.totals.contains_key("rows") && facts.per_name.is_empty());
}

#[test]
fn the_summary_names_owners_and_extensions() {
    let mut inspector = PgDumpInspector::new();
    inspector.feed(&PLAIN[..100]).unwrap();
    assert_eq!(inspector.summary(), None);
    inspector.feed(&PLAIN[100..]).unwrap();
    let summary = inspector.summary().unwrap();
    assert_eq!(summary.database, "t1");
    assert!(summary.dump_version.starts_with("15."));
    assert!(summary.extensions.contains("pg_trgm") && summary.owners.contains("postgres"));
}

#[test]
fn f27_every_cut_is_found() {
    for archive in [PLAIN, GZIP] {
        for cut in 0..archive.len() {
            let error = walk(&[&archive[..cut]]).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "cut at {cut}");
        }
    }
}

#[test]
fn what_follows_the_end_is_found() {
    for archive in [PLAIN, GZIP] {
        for tail in [&b"\0"[..], b"x", archive] {
            let error = walk(&[archive, tail]).unwrap_err();
            assert!(error.to_string().contains("follow its end"), "{error}");
        }
    }
}

#[test]
fn no_flipped_byte_panics_and_an_error_stays() {
    for at in 0..PLAIN.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = PLAIN.to_vec();
            bytes[at] ^= flip;
            let mut inspector = Box::new(PgDumpInspector::new());
            if inspector.feed(&bytes).is_err() {
                assert!(inspector.feed(b"").is_err());
                assert!(inspector.finish().is_err());
            } else {
                let _ = inspector.finish();
            }
        }
    }
}

/// Writes archives as pg_dump of that version does.
struct Writer {
    minor: u8,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(minor: u8, plain: bool, entries: i64) -> Self {
        let mut w = Writer { minor, bytes: b"PGDMP\x01".to_vec() };
        w.bytes.extend([minor, 0, 4, 8, 1]);
        match (minor >= 15, plain) {
            (true, plain) => w.bytes.push(u8::from(!plain)),
            (false, true) => w.int(0),
            (false, false) => w.int(-1),
        }
        for n in [1, 2, 3, 4, 5, 126, 0] {
            w.int(n);
        }
        for text in ["shop", "15.18", "15.18"] {
            w.string(Some(text));
        }
        w.int(entries);
        w
    }

    fn int(&mut self, n: i64) {
        self.bytes.push(u8::from(n < 0));
        self.bytes.extend(&(n.unsigned_abs() as u32).to_le_bytes());
    }

    fn string(&mut self, text: Option<&str>) {
        match text {
            None => self.int(-1),
            Some(text) => {
                self.int(text.len() as i64);
                self.bytes.extend(text.as_bytes());
            }
        }
    }

    fn entry(&mut self, id: i64, had_data: bool, desc: &str, tag: &str, copy: Option<&str>) {
        self.int(id);
        self.int(i64::from(had_data));
        for text in ["1259", "16384", tag, desc] {
            self.string(Some(text));
        }
        self.int(3);
        self.string(Some("CREATE TABLE x ();"));
        self.string(Some(""));
        self.string(copy);
        self.string(Some("public"));
        self.string(None);
        if self.minor >= 14 {
            self.string(Some("heap"));
        }
        if self.minor >= 16 {
            self.int(i64::from(b'r'));
        }
        for text in [Some("app"), Some("false"), Some("12"), Some("13"), None] {
            self.string(text);
        }
        self.bytes.push(1);
        self.bytes.extend([0; 8]);
    }

    fn table(&mut self, id: i64, pieces: &[&[u8]]) {
        self.bytes.push(1);
        self.int(id);
        for piece in pieces {
            self.int(piece.len() as i64);
            self.bytes.extend(*piece);
        }
        self.int(0);
    }
}

const COPY: Option<&str> = Some("COPY public.x (a) FROM stdin;\n");

/// An archive of that version with two tables and two blocks of large objects.
fn archive(minor: u8) -> Vec<u8> {
    let mut w = Writer::new(minor, true, 5);
    w.entry(1, false, "TABLE", "t", None);
    w.entry(2, true, "TABLE DATA", "t", COPY);
    w.entry(3, true, "BLOBS", "BLOBS", None);
    w.entry(4, true, "TABLE DATA", "u", COPY);
    w.entry(5, true, "BLOBS", "BLOBS", None);
    w.table(2, &[b"1\n", b"2\n", b"\\.\n\n\n"]);
    for id in [3, 5] {
        w.bytes.push(3);
        w.int(id);
        for oid in [4_000_000_000u32 as i32, 77] {
            w.int(i64::from(oid));
            w.int(3);
            w.bytes.extend(b"abc");
            w.int(0);
        }
        w.int(0);
    }
    // pg_dump may join pieces.
    w.table(4, &[b"1\n2\n3", b"\n\\.", b"\n\n\n"]);
    w.bytes
}

#[test]
fn every_known_version_is_read() {
    for minor in 12..=16 {
        let facts = walk(&[&archive(minor)]).unwrap();
        assert_eq!(facts.format, format!("pgdump-custom 1.{minor}"));
        assert_eq!(rows(&facts), [("public.t", 2), ("public.u", 3)]);
        assert_eq!(facts.totals["large_objects"], 4);
    }
    for minor in [0, 11, 17, 255] {
        assert!(walk(&[&archive(minor)]).unwrap_err().to_string().contains("are known"));
    }
}

#[test]
fn structure_that_pg_dump_never_writes_is_refused() {
    type Build = fn(&mut Writer);
    let cases: [(&str, Build); 9] = [
        ("a second block for public.t", |w| {
            w.table(2, &[b"\\.\n\n\n"]);
            w.table(2, &[b"\\.\n\n\n"]);
        }),
        ("entry 1, which has no data", |w| w.table(1, &[])),
        ("entry 99, which has no data", |w| w.table(99, &[])),
        ("unknown type 2", |w| w.bytes.push(2)),
        ("wrong type for public.t", |w| {
            w.bytes.push(3);
            w.int(2);
        }),
        ("wrong type for BLOBS", |w| w.table(3, &[])),
        ("rows of public.t do not end", |w| w.table(2, &[b"1\n"])),
        ("rows of public.t do not end", |w| w.table(2, &[])),
        ("a piece of -5 bytes", |w| {
            w.bytes.push(1);
            w.int(2);
            w.int(-5);
        }),
    ];
    for (want, build) in cases {
        let mut w = Writer::new(14, true, 3);
        w.entry(1, false, "TABLE", "t", None);
        w.entry(2, true, "TABLE DATA", "t", COPY);
        w.entry(3, true, "BLOBS", "BLOBS", None);
        build(&mut w);
        let error = walk(&[&w.bytes]).unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
}

#[test]
fn a_table_dumped_as_inserts_gives_no_rows() {
    let mut w = Writer::new(14, true, 1);
    w.entry(2, true, "TABLE DATA", "t", None);
    w.table(2, &[b"INSERT INTO t VALUES (1);\n"]);
    let facts = walk(&[&w.bytes]).unwrap();
    assert_eq!(facts.totals["tables"], 1);
    assert!(!facts.totals.contains_key("rows") && facts.per_name.is_empty());
}

#[test]
fn f66_an_archive_without_data_ends_with_its_contents() {
    let empty = Writer::new(15, true, 0);
    assert_eq!(walk(&[&empty.bytes]).unwrap().totals["tables"], 0);
    let mut one = Writer::new(15, true, 1);
    one.entry(1, false, "SCHEMA", "s", None);
    assert_eq!(walk(&[&one.bytes]).unwrap().totals["tables"], 0);
}

#[test]
fn f28_an_empty_stream_is_no_archive() {
    assert_eq!(walk(&[]).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn huge_lengths_take_no_memory() {
    // A string of 1 GiB that never comes, a piece of 2 GiB that never comes, 2^31 entries that never come.
    let mut w = Writer::new(14, true, i64::from(i32::MAX));
    w.int(1);
    w.int(1);
    w.int(0x3fff_ffff);
    w.bytes.extend(b"abc");
    assert!(walk(&[&w.bytes]).is_err());
    let mut w = Writer::new(14, true, 1);
    w.entry(2, true, "TABLE DATA", "t", COPY);
    w.bytes.push(1);
    w.int(2);
    w.int(i64::from(i32::MAX));
    assert!(walk(&[&w.bytes]).unwrap_err().to_string().contains("ends within the data of public.t"));
    let mut w = Writer::new(14, true, 1);
    w.int(1);
    w.int(1);
    w.int(0x4000_0000);
    assert!(walk(&[&w.bytes]).unwrap_err().to_string().contains("longer than PostgreSQL allows"));
}

#[test]
fn keys_of_tables_are_unambiguous() {
    let cases = [(("a", "b"), "a.b"), (("a.b", "c"), "\"a.b\".c"), (("a", "b.c"), "a.\"b.c\""), (("a\"", ""), "\"a\"\"\".\"\"")];
    let want: BTreeMap<String, ()> = cases.iter().map(|(_, key)| ((*key).to_owned(), ())).collect();
    assert_eq!(want.len(), cases.len());
    for ((schema, table), key) in cases {
        assert_eq!(table_key(schema, table), key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_facts(cuts in prop::collection::vec(0usize..1 << 20, 0..40), minor in 12u8..=16, real in any::<bool>()) {
        let archive = if real { PLAIN.to_vec() } else { archive(minor) };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % archive.len()).chain([0, archive.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &archive[w[0]..w[1]]).collect();
        prop_assert_eq!(walk(&pieces).unwrap(), walk(&[&archive]).unwrap());
    }

    #[test]
    fn any_bytes_after_the_magic_do_not_panic(tail in prop::collection::vec(any::<u8>(), 0..400), minor in 12u8..=16) {
        let mut bytes = b"PGDMP\x01".to_vec();
        bytes.extend([minor, 0, 4, 8, 1]);
        bytes.extend(tail);
        let _ = walk(&[&bytes]);
    }
}

#[test]
fn byte_by_byte_gives_the_same_facts() {
    let bytes: Vec<&[u8]> = PLAIN.chunks(1).collect();
    assert_eq!(walk(&bytes).unwrap(), walk(&[PLAIN]).unwrap());
}

/// `cargo test --release --lib pgdump -- --ignored --nocapture`
#[test]
#[ignore = "prints a speed; says nothing in a debug build"]
fn speed() {
    for (name, row) in [("rows of 100 bytes", 100), ("rows of 1 MiB", 1 << 20)] {
        let mut line = vec![b'x'; row];
        line[row - 1] = b'\n';
        let mut w = Writer::new(14, true, 1);
        w.entry(2, true, "TABLE DATA", "t", COPY);
        let mut pieces: Vec<&[u8]> = vec![&line; (256 << 20) / row];
        pieces.push(b"\\.\n\n\n");
        w.table(2, &pieces);
        let since = std::time::Instant::now();
        let pieces: Vec<&[u8]> = w.bytes.chunks(512 * 1024).collect();
        let facts = walk(&pieces).unwrap();
        let speed = w.bytes.len() as f64 / since.elapsed().as_secs_f64() / 1e9;
        println!("{name}: {speed:.1} GB/s, {} rows", facts.totals["rows"]);
    }
}

#[test]
fn f90_an_archive_is_read_entry_by_entry_and_block_by_block() {
    let (head, rest) = Head::read(PLAIN).unwrap();
    let mut kept = Vec::new();
    std::io::Read::read_to_end(&mut head.bytes().unwrap(), &mut kept).unwrap();
    assert_eq!([kept.as_slice(), rest].concat(), PLAIN, "nothing is lost between head and data");
    let mut entries = Vec::new();
    head.each(|entry| entries.push(entry)).unwrap();
    let table = entries.iter().find(|e| e.description == "TABLE" && e.tag == b"a").unwrap();
    assert_eq!((table.namespace.as_slice(), table.owner.as_slice(), table.section), (&b"public"[..], &b"postgres"[..], Section::PreData));
    assert!(table.definition.starts_with(b"CREATE TABLE public.a ("), "{table:?}");
    let data = entries.iter().find(|e| e.description == "TABLE DATA" && e.tag == b"a").unwrap();
    assert!(data.copy.starts_with(b"COPY public.a (") && data.had_data && data.dependencies.contains(&table.id), "{data:?}");
    let mut archive = ArchiveReader::open(PLAIN).unwrap();
    while archive.entry().unwrap().is_some() {}
    let (mut rows, mut blocks) = (Vec::new(), 0);
    while let Some(id) = archive.block().unwrap() {
        blocks += 1;
        match id == data.id {
            true => while archive.piece(&mut rows).unwrap() {},
            false => archive.pass().unwrap(),
        }
    }
    assert_eq!(blocks, 6, "large objects are passed over");
    assert!(rows.ends_with(b"\\.\n\n\n"));
    assert_eq!(rows.iter().filter(|b| **b == b'\n').count(), 6 + 3);
}

#[test]
fn f90_an_archive_that_is_cut_anywhere_is_an_error() {
    for cut in 0..PLAIN.len() {
        let read = || -> Result<()> {
            let mut archive = ArchiveReader::open(&PLAIN[..cut])?;
            while archive.entry()?.is_some() {}
            while archive.block()?.is_some() {
                archive.pass()?;
            }
            Ok(())
        };
        // Between two blocks the archive itself does not tell: its digest does.
        if let Err(error) = read() {
            assert_eq!(error.kind(), Kind::Corrupt, "cut at {cut}");
        }
    }
    assert!(ArchiveReader::open(GZIP).is_err(), "what is compressed is not read as rows");
}
