//! Entries as bytes. Equal entries give equal bytes.

use crate::format::tar::header::{POSIX, field, put_number, put_octal, seal};
use crate::format::tar::pax::{self, time_text};
use crate::format::tar::walk::{Entry, EntryKind};
use crate::format::tar::{BLOCK, sparse};

/// Largest time that eleven octal digits hold.
const MAX_OCTAL_TIME: i64 = (1 << 33) - 1;

/// Largest number that a PAX-blind reader finds in the seven digits of an id.
const MAX_OCTAL_ID: u64 = (1 << 21) - 1;

/// Largest size in eleven octal digits.
const MAX_OCTAL_SIZE: u64 = (1 << 33) - 1;

/// Zero bytes that follow `length` bytes of content.
pub fn padding(length: u64) -> usize {
    // Below 512.
    ((BLOCK as u64 - length % BLOCK as u64) % BLOCK as u64) as usize
}

/// The two zero blocks that end an archive.
pub fn end_of_archive() -> &'static [u8] {
    &[0; 2 * BLOCK]
}

/// Appends everything that precedes the entry's content: PAX records where ustar cannot say it, the header, a sparse file's map.
/// Returns how many bytes of content must follow (without padding): of a sparse file its extents only.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) -> u64 {
    let map = entry.sparse.as_ref().map(|extents| sparse::map(extents, entry.size));
    let content = match (&entry.sparse, entry.kind) {
        (Some(extents), _) => extents.iter().map(|e| e.length).sum(),
        (None, EntryKind::File) => entry.size,
        (None, _) => 0,
    };
    let stored = content + map.as_ref().map_or(0, |m| m.len() as u64);

    let mut path = entry.path.clone();
    if entry.kind == EntryKind::Dir && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    let mut block = [0u8; BLOCK];
    let records = records(entry, &path, stored, &mut block);
    if !records.is_empty() {
        extended(&records, out);
    }

    put_octal(&mut block[field::MODE], u64::from(entry.mode & 0o7777));
    put_number(&mut block[field::UID], entry.uid);
    put_number(&mut block[field::GID], entry.gid);
    put_number(&mut block[field::SIZE], stored);
    put_octal(&mut block[field::MTIME], entry.mtime.0.clamp(0, MAX_OCTAL_TIME) as u64);
    block[field::TYPE] = match entry.kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::Dir => b'5',
        EntryKind::Other(kind) => kind,
    };
    block[field::MAGIC].copy_from_slice(POSIX);
    put_text(&mut block[field::UNAME], &entry.uname);
    put_text(&mut block[field::GNAME], &entry.gname);
    seal(&mut block);
    out.extend_from_slice(&block);
    if let Some(map) = map {
        out.extend_from_slice(&map);
    }
    content
}

/// The PAX records the entry needs; names that fit go into the header block.
fn records(entry: &Entry, path: &[u8], stored: u64, block: &mut [u8; BLOCK]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut binary = false;
    if entry.sparse.is_some() {
        pax::put(&mut out, b"GNU.sparse.major", b"1");
        pax::put(&mut out, b"GNU.sparse.minor", b"0");
        pax::put(&mut out, b"GNU.sparse.name", path);
        pax::put(&mut out, b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
        // A reader that knows no sparse files must not mistake map and extents for the file.
        put_text(&mut block[field::NAME], b"GNUSparseFile.0/sparse");
        binary |= std::str::from_utf8(path).is_err();
    } else if !put_path(path, block) {
        pax::put(&mut out, b"path", path);
        put_text(&mut block[field::NAME], path);
        binary |= std::str::from_utf8(path).is_err();
    }
    if entry.link.len() > field::LINK.len() {
        pax::put(&mut out, b"linkpath", &entry.link);
        binary |= std::str::from_utf8(&entry.link).is_err();
    }
    put_text(&mut block[field::LINK], &entry.link);
    if stored > MAX_OCTAL_SIZE {
        pax::put(&mut out, b"size", stored.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if id > MAX_OCTAL_ID {
            pax::put(&mut out, key, id.to_string().as_bytes());
        }
    }
    for (key, name) in [(&b"uname"[..], &entry.uname), (b"gname", &entry.gname)] {
        if name.len() >= field::UNAME.len() {
            pax::put(&mut out, key, name);
            binary |= std::str::from_utf8(name).is_err();
        }
    }
    let (seconds, nanoseconds) = entry.mtime;
    if nanoseconds != 0 || !(0..=MAX_OCTAL_TIME).contains(&seconds) {
        pax::put(&mut out, b"mtime", time_text(seconds, nanoseconds).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        let mut key = b"SCHILY.xattr.".to_vec();
        key.extend_from_slice(&pax::escape(name));
        pax::put(&mut out, &key, value);
    }
    if binary {
        // POSIX: names in this header are bytes, not UTF-8. It must stand before them.
        let mut first = Vec::new();
        pax::put(&mut first, b"hdrcharset", b"BINARY");
        first.append(&mut out);
        out = first;
    }
    out
}

/// Puts a path into the name field, or prefix and name; says whether it fits.
fn put_path(path: &[u8], block: &mut [u8; BLOCK]) -> bool {
    if path.len() <= field::NAME.len() {
        put_text(&mut block[field::NAME], path);
        return true;
    }
    // The slash between the two is not stored; the name must not become empty.
    let last = path.len() - 1;
    let earliest = last.saturating_sub(field::NAME.len());
    let split = (earliest..=field::PREFIX.len().min(last.saturating_sub(1))).find(|i| *i > 0 && path[*i] == b'/');
    match split {
        Some(at) if path.len() - at - 1 <= field::NAME.len() => {
            put_text(&mut block[field::PREFIX], &path[..at]);
            put_text(&mut block[field::NAME], &path[at + 1..]);
            true
        }
        _ => false,
    }
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let take = text.len().min(field.len());
    field[..take].copy_from_slice(&text[..take]);
}

/// One extended header: its own header block, the records, padding.
fn extended(records: &[u8], out: &mut Vec<u8>) {
    let mut block = [0u8; BLOCK];
    put_text(&mut block[field::NAME], b"././@PaxHeader");
    put_octal(&mut block[field::MODE], 0o644);
    put_octal(&mut block[field::UID], 0);
    put_octal(&mut block[field::GID], 0);
    put_number(&mut block[field::SIZE], records.len() as u64);
    put_octal(&mut block[field::MTIME], 0);
    block[field::TYPE] = b'x';
    block[field::MAGIC].copy_from_slice(POSIX);
    seal(&mut block);
    out.extend_from_slice(&block);
    out.extend_from_slice(records);
    out.resize(out.len() + padding(records.len() as u64), 0);
}
