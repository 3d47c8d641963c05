//! The audit log's chain: whatever is done to its rows behind drctl's back is found, and two processes at once keep one chain.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use drctl::error::Kind;
use drctl::model::{Sha256, TestClock};
use drctl::state::{AuditHead, AuditNote, StateFile};
use proptest::prelude::*;
use rusqlite::Connection;

/// Set for the half of a test that runs in a process of its own: the state file.
const INSIDE: &str = "DRCTL_TEST_STATE";

fn open(path: &Path) -> StateFile {
    StateFile::open(path, Arc::new(TestClock::at("2025-01-01T02:00:00Z".parse().unwrap()))).unwrap()
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.sqlite");
    (folder, path)
}

fn note(number: u32) -> AuditNote {
    AuditNote {
        user: "root".into(),
        uid: 0,
        sudo_user: if number.is_multiple_of(2) { "anna".into() } else { String::new() },
        host: "db1".into(),
        pid: 4000 + number,
        version: "0.1.0".into(),
        verb: "restore".into(),
        job: "shop".into(),
        subject: format!("shop/20250101T02000{number}Z-full-7k3q"),
        details: r#"{"in_place":true}"#.into(),
        outcome: if number.is_multiple_of(2) { "ok".into() } else { "begun".into() },
        ends: if number.is_multiple_of(2) { u64::from(number) - 1 } else { 0 },
    }
}

/// A chain, and a way past its triggers.
struct Chain {
    _folder: tempfile::TempDir,
    state: StateFile,
    raw: Connection,
    head: AuditHead,
}

impl Chain {
    fn of(notes: impl IntoIterator<Item = AuditNote>) -> Chain {
        let (folder, path) = scratch();
        let state = open(&path);
        for note in notes {
            state.audit_append(note).unwrap();
        }
        let head = state.audit_verify(None).unwrap().unwrap();
        let raw = Connection::open(&path).unwrap();
        raw.execute_batch(
            "PRAGMA synchronous = OFF; DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; DROP TRIGGER audit_in_order;",
        )
        .unwrap();
        Chain { _folder: folder, state, raw, head }
    }

    fn sql(&self, sql: &str) {
        self.raw.execute_batch(sql).unwrap();
    }

    /// The words about what does not fit.
    fn broken(&self, noted: Option<AuditHead>) -> String {
        let error = self.state.audit_verify(noted).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert_eq!(error.kind().exit_code(), 5);
        error.to_string()
    }

    fn whole(&self) {
        assert_eq!(self.state.audit_verify(Some(self.head)).unwrap(), Some(self.head));
    }
}

const TEXTS: [&str; 12] = ["at", "user", "sudo_user", "host", "version", "verb", "job", "subject", "details", "outcome", "before", "own"];
const NUMBERS: [&str; 3] = ["uid", "pid", "ends"];

#[test]
fn any_changed_byte_of_any_row_is_found() {
    let chain = Chain::of((1..=4).map(note));
    let mut tried = 0;
    for number in 1..=4_i64 {
        for column in TEXTS {
            let text: String =
                chain.raw.query_row(&format!("SELECT {column} FROM audit WHERE number = ?1"), [number], |r| r.get(0)).unwrap();
            let put = |text: &str| {
                chain.raw.execute(&format!("UPDATE audit SET {column} = ?2 WHERE number = ?1"), (number, text)).unwrap();
            };
            let mut others: Vec<String> = (0..text.len())
                .map(|at| {
                    let mut bytes = text.clone().into_bytes();
                    bytes[at] ^= 1;
                    String::from_utf8(bytes).unwrap()
                })
                .collect();
            others.push(format!("{text} "));
            if !text.is_empty() {
                others.push(String::new());
                others.push(text[1..].to_owned());
            }
            for other in others {
                put(&other);
                let said = chain.broken(None);
                assert!(said.contains(&format!("entry {number} of the audit log does not fit")), "{column} {other:?}: {said}");
                tried += 1;
            }
            put(&text);
        }
        for column in NUMBERS {
            for by in ["+ 1", "+ 256", "- 1000000", "+ 1099511627776"] {
                chain.sql(&format!("UPDATE audit SET {column} = {column} {by} WHERE number = {number}"));
                assert!(chain.broken(None).contains(&format!("entry {number} ")), "{column} {by}");
                let back = by.replace('+', "*").replace('-', "+").replace('*', "-");
                chain.sql(&format!("UPDATE audit SET {column} = {column} {back} WHERE number = {number}"));
            }
        }
    }
    assert!(tried > 800, "{tried}");
    chain.whole();
}

#[test]
fn a_removed_exchanged_added_or_renumbered_row_is_found() {
    for number in 1..=4 {
        let chain = Chain::of((1..=5).map(note));
        chain.sql(&format!("DELETE FROM audit WHERE number = {number}"));
        let said = chain.broken(None);
        assert!(said.contains(&format!("entry {number} ")) && said.contains("missing"), "{said}");
        // And when those behind it close the gap.
        chain.sql(&format!("UPDATE audit SET number = number - 1 WHERE number > {number}"));
        assert!(chain.broken(None).contains(&format!("entry {number} ")));
    }
    for (one, two) in [(1, 2), (2, 4), (1, 5)] {
        let chain = Chain::of((1..=5).map(note));
        chain.sql(&format!(
            "UPDATE audit SET number = 99 WHERE number = {one}; UPDATE audit SET number = {one} WHERE number = {two};
             UPDATE audit SET number = {two} WHERE number = 99"
        ));
        assert!(chain.broken(None).contains(&format!("entry {one} ")));
    }
    let columns = "at, user, uid, sudo_user, host, pid, version, verb, job, subject, details, outcome, ends, before, own";
    for number in [-1, 0, 6] {
        let chain = Chain::of((1..=5).map(note));
        chain.sql(&format!("INSERT INTO audit SELECT {number}, {columns} FROM audit WHERE number = 5"));
        chain.broken(None);
    }
}

/// Who knows how the hash is made can make an entry that is sound by itself: the one behind it tells.
#[test]
fn an_entry_written_anew_with_its_hash_is_found_by_the_next() {
    let chain = Chain::of((1..=5).map(note));
    let mut entry = chain.state.audit_entries(None, 9).unwrap().remove(2);
    entry.note.user = "nobody".into();
    chain.raw.execute("UPDATE audit SET user = 'nobody', own = ?1 WHERE number = 3", [entry.hash().to_string()]).unwrap();
    let said = chain.broken(None);
    assert!(said.contains("entry 4 ") && said.contains("behind the entry before it"), "{said}");
}

#[test]
fn a_cut_off_end_and_a_chain_written_anew_are_found_by_a_noted_head() {
    let chain = Chain::of((1..=5).map(note));
    let noted = chain.head;
    // Earlier heads stay good while the chain grows.
    chain.state.audit_append(note(6)).unwrap();
    let later = chain.state.audit_verify(Some(noted)).unwrap().unwrap();
    assert_eq!(later.number, 6);
    assert_eq!(noted.to_string().parse::<AuditHead>().unwrap(), noted);

    chain.sql("DELETE FROM audit WHERE number > 3");
    assert_eq!(chain.state.audit_verify(None).unwrap().unwrap().number, 3, "by itself a shorter chain is a chain");
    let said = chain.broken(Some(noted));
    assert!(said.contains("entry 5 ") && said.contains("ends at 3"), "{said}");

    // As long as before, by someone who can compute hashes.
    for number in 4..=6 {
        chain.state.audit_append(AuditNote { user: "mallory".into(), ..note(number) }).unwrap();
    }
    assert_eq!(chain.state.audit_verify(None).unwrap().unwrap().number, 6);
    let said = chain.broken(Some(noted));
    assert!(said.contains("entry 5 ") && said.contains("written anew"), "{said}");
    chain.sql("DELETE FROM audit");
    assert!(chain.broken(Some(noted)).contains("ends at 0"));
    assert_eq!(chain.state.audit_verify(None).unwrap(), None);
    for bad in ["", "5", "5:", "x:00", "0:0000000000000000000000000000000000000000000000000000000000000000", "-1:ab"] {
        assert_eq!(bad.parse::<AuditHead>().unwrap_err().kind(), Kind::Usage, "{bad}");
    }
}

#[test]
fn the_table_refuses_update_delete_and_replace() {
    let (_folder, path) = scratch();
    let state = open(&path);
    state.audit_append(note(1)).unwrap();
    state.audit_append(note(2)).unwrap();
    let head = state.audit_verify(None).unwrap();
    let raw = Connection::open(&path).unwrap();
    for sql in [
        "UPDATE audit SET user = 'x'",
        "UPDATE audit SET number = 7 WHERE number = 2",
        "DELETE FROM audit WHERE number = 2",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE number = 1",
        "REPLACE INTO audit SELECT 1, at, 'x', uid, sudo_user, host, pid, version, verb, job, subject, details, outcome, ends, before, own FROM audit WHERE number = 1",
        "INSERT INTO audit SELECT 9, at, user, uid, sudo_user, host, pid, version, verb, job, subject, details, outcome, ends, before, own FROM audit WHERE number = 1",
        "INSERT INTO audit SELECT NULL, at, user, uid, sudo_user, host, pid, version, verb, job, subject, details, outcome, ends, before, own FROM audit WHERE number = 9",
    ] {
        let refused = raw.execute_batch(sql);
        // The last one selects nothing, so nothing is inserted.
        assert!(refused.is_err() || sql.ends_with("number = 9"), "{sql}");
        if let Err(e) = refused {
            assert!(e.to_string().contains("append-only"), "{sql}: {e}");
        }
    }
    assert_eq!(state.audit_verify(head).unwrap(), head);
}

#[test]
fn entries_are_listed_by_job_and_from_the_end() {
    let (_folder, path) = scratch();
    let state = open(&path);
    for number in 1..=6_u32 {
        let job = if number.is_multiple_of(3) { "blog" } else { "shop" };
        state.audit_append(AuditNote { job: job.into(), ..note(number) }).unwrap();
    }
    let numbers = |job, last| state.audit_entries(job, last).unwrap().iter().map(|e| e.number).collect::<Vec<_>>();
    assert_eq!(numbers(None, 3), [4, 5, 6]);
    assert_eq!(numbers(Some("shop"), 3), [2, 4, 5]);
    assert_eq!(numbers(Some("blog"), 9), [3, 6]);
    assert_eq!(numbers(Some("none"), 9), [0_u64; 0]);
    assert_eq!((state.audit_count(None).unwrap(), state.audit_count(Some("blog")).unwrap()), (6, 2));
    let all = state.audit_entries(None, 9).unwrap();
    assert_eq!(all[0].at, "2025-01-01T02:00:00Z");
    assert!(all.iter().all(|entry| entry.hash() == entry.own));
    assert_eq!(all[0].before, Sha256([0; 32]));
    assert_eq!(all[3].before, all[2].own);
}

/// The hash of a fixed entry: it must never change for what is written, or every chain of before would break.
#[test]
fn the_encoding_is_what_its_documentation_says() {
    let (_folder, path) = scratch();
    let entry = open(&path).audit_append(AuditNote { user: "rööt".into(), ..note(1) }).unwrap();
    let zeros = "0".repeat(64);
    let text = format!(
        "drctl audit 1\n1:1,20:2025-01-01T02:00:00Z,6:rööt,1:0,0:,3:db1,4:4001,5:0.1.0,7:restore,4:shop,31:shop/20250101T020001Z-full-7k3q,17:{{\"in_place\":true}},5:begun,1:0,64:{zeros},"
    );
    assert_eq!(entry.own, Sha256::of(text.as_bytes()));
}

#[test]
fn several_processes_at_once_keep_one_chain() {
    const EACH: u32 = 25;
    if let Some(path) = std::env::var_os(INSIDE) {
        let state = open(Path::new(&path));
        for number in 1..=EACH {
            state.audit_append(note(number)).unwrap();
        }
        return;
    }
    let (_folder, path) = scratch();
    let others: Vec<_> = (0..4)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "several_processes_at_once_keep_one_chain"]).env(INSIDE, &path).stdout(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    for mut other in others {
        assert!(other.wait().unwrap().success());
    }
    let head = open(&path).audit_verify(None).unwrap().unwrap();
    assert_eq!(head.number, u64::from(4 * EACH));
}

fn any_note() -> impl Strategy<Value = AuditNote> {
    let text = || prop_oneof![Just(String::new()), "[ -~]{0,12}", "\\PC{0,6}"];
    ((text(), any::<u32>(), text(), text()), (any::<u32>(), text(), text(), text(), text(), text(), 0..9_u64)).prop_map(
        |((user, uid, sudo_user, host), (pid, verb, job, subject, details, outcome, ends))| AuditNote {
            user,
            uid,
            sudo_user,
            host,
            pid,
            version: "0.1.0".into(),
            verb,
            job,
            subject,
            details,
            outcome,
            ends,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Text that moves from one field to the next, as netstrings exist to prevent, and any other value in any place.
    #[test]
    fn no_change_of_any_chain_goes_unseen(
        notes in proptest::collection::vec(any_note(), 1..6),
        at in any::<prop::sample::Index>(),
        column in 0..TEXTS.len() - 1,
        take in any::<prop::sample::Index>(),
        value in "\\PC{0,4}",
    ) {
        let chain = Chain::of(notes.clone());
        chain.whole();
        let number = at.index(notes.len()) + 1;
        let read = |column: &str| -> String {
            chain.raw.query_row(&format!("SELECT {column} FROM audit WHERE number = {number}"), [], |r| r.get(0)).unwrap()
        };
        let (one, two) = (TEXTS[column], TEXTS[column + 1]);
        let (first, second) = (read(one), read(two));
        let joined = format!("{first}{second}");
        let cuts: Vec<usize> = joined.char_indices().map(|(i, _)| i).chain([joined.len()]).collect();
        let cut = cuts[take.index(cuts.len())];
        let put = |a: &str, b: &str| {
            chain.raw.execute(&format!("UPDATE audit SET {one} = ?1, {two} = ?2 WHERE number = ?3"), (a, b, number as i64)).unwrap();
        };
        put(&joined[..cut], &joined[cut..]);
        prop_assert_eq!(chain.state.audit_verify(None).is_ok(), cut == first.len(), "moved");
        put(&value, &second);
        prop_assert_eq!(chain.state.audit_verify(None).is_ok(), value == first, "replaced");
        put(&first, &second);
        chain.whole();
    }
}
