//! The archive's head and its table of contents.

use std::collections::{BTreeSet, HashMap};

use super::scalar::{KEPT, Scalars};

/// Most bytes of names held; a table's entry takes about 100. More entries with data than this holds are refused.
const NAMES_LIMIT: usize = 256 * 1024 * 1024;

/// `schema.table`; a part that holds a dot or a quote is quoted as SQL does it, so that no two tables share a key.
pub fn table_key(schema: &str, table: &str) -> String {
    let part = |name: &str| {
        if name.is_empty() || name.contains(['.', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
    };
    format!("{}.{}", part(schema), part(table))
}

/// What the head and the table of contents say; whole once the first data block has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TocSummary {
    /// The database that was dumped.
    pub database: String,
    /// The server's version: `15.18 (Debian …)`.
    pub server_version: String,
    /// pg_dump's version.
    pub dump_version: String,
    /// Extensions that a restore creates.
    pub extensions: BTreeSet<String>,
    /// Roles that own something in it.
    pub owners: BTreeSet<String>,
    /// Tablespaces that something in it lies in.
    pub tablespaces: BTreeSet<String>,
    /// Number of entries.
    pub entries: u64,
}

/// The archive's version and what depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    /// `14` of 1.14.
    pub(super) minor: u8,
    pub(super) offset_bytes: usize,
    /// Whether the data is stored as it is; else it cannot be counted.
    pub(super) plain: bool,
}

/// What an entry with data holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A table's rows as COPY text.
    Copy,
    /// A table's rows in another form.
    Table,
    /// Large objects.
    Blobs,
    /// Something else.
    Other,
}

/// An entry with data.
pub(super) struct Slot {
    pub(super) content: Content,
    pub(super) name: String,
    pub(super) rows: u64,
    pub(super) seen: bool,
}

/// Fields of the head behind the compression, in order.
const HEAD_INTS: u8 = 7;
const HEAD_STRINGS: u8 = 3;

/// Fields of an entry, in order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    HadData,
    TableOid,
    Oid,
    Tag,
    Description,
    Section,
    Definition,
    Drop,
    Copy,
    Namespace,
    Tablespace,
    AccessMethod,
    RelationKind,
    Owner,
    WithOids,
    Dependencies,
    Offset,
}

const FIELDS: &[Field] = &[
    Field::Id,
    Field::HadData,
    Field::TableOid,
    Field::Oid,
    Field::Tag,
    Field::Description,
    Field::Section,
    Field::Definition,
    Field::Drop,
    Field::Copy,
    Field::Namespace,
    Field::Tablespace,
    Field::AccessMethod,
    Field::RelationKind,
    Field::Owner,
    Field::WithOids,
    Field::Dependencies,
    Field::Offset,
];

enum At {
    Prefix,
    Compression,
    HeadInt(u8),
    HeadString(u8),
    Count,
    Entry(usize),
    Done,
}

#[derive(Default)]
struct Entry {
    id: i64,
    had_data: bool,
    tag: Vec<u8>,
    description: Vec<u8>,
    namespace: Vec<u8>,
    copies: bool,
}

/// Reads head and table of contents.
pub(super) struct Toc {
    at: At,
    pub(super) layout: Layout,
    pub(super) summary: TocSummary,
    /// Entries with data by their ids.
    pub(super) slots: HashMap<i64, Slot>,
    left: i64,
    entry: Entry,
    names_bytes: usize,
}

type Step = Result<bool, String>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Toc {
    pub(super) fn new() -> Self {
        Toc {
            at: At::Prefix,
            layout: Layout::default(),
            summary: TocSummary::default(),
            slots: HashMap::new(),
            left: 0,
            entry: Entry::default(),
            names_bytes: 0,
        }
    }

    /// Takes what it can; `true` once the data blocks follow.
    pub(super) fn feed(&mut self, scalars: &mut Scalars, input: &mut &[u8]) -> Step {
        while self.step(scalars, input)? {
            if matches!(self.at, At::Done) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One field; `false` when more bytes are needed for it.
    fn step(&mut self, scalars: &mut Scalars, input: &mut &[u8]) -> Step {
        match self.at {
            At::Prefix => {
                let Some(prefix) = scalars.raw(input, 11) else { return Ok(false) };
                self.prefix(&prefix, scalars)?;
                self.at = At::Compression;
            }
            At::Compression if self.layout.minor >= 15 => {
                let Some(algorithm) = scalars.byte(input) else { return Ok(false) };
                self.layout.plain = algorithm == 0;
                self.at = At::HeadInt(0);
            }
            At::Compression => {
                let Some(level) = scalars.int(input)? else { return Ok(false) };
                self.layout.plain = level == 0;
                self.at = At::HeadInt(0);
            }
            At::HeadInt(n) => {
                let Some(_) = scalars.int(input)? else { return Ok(false) };
                self.at = if n + 1 < HEAD_INTS { At::HeadInt(n + 1) } else { At::HeadString(0) };
            }
            At::HeadString(n) => {
                let Some(value) = scalars.string(input)? else { return Ok(false) };
                let value = text(&value.unwrap_or_default());
                match n {
                    0 => self.summary.database = value,
                    1 => self.summary.server_version = value,
                    _ => self.summary.dump_version = value,
                }
                self.at = if n + 1 < HEAD_STRINGS { At::HeadString(n + 1) } else { At::Count };
            }
            At::Count => {
                let Some(count) = scalars.int(input)? else { return Ok(false) };
                if !(0..=i64::from(i32::MAX)).contains(&count) {
                    return Err(format!("{count} entries in its table of contents"));
                }
                self.left = count;
                self.at = if count == 0 { At::Done } else { At::Entry(0) };
            }
            At::Entry(n) => return self.field(n, scalars, input),
            At::Done => {}
        }
        Ok(true)
    }

    fn prefix(&mut self, prefix: &[u8; 16], scalars: &mut Scalars) -> Result<(), String> {
        let [b'P', b'G', b'D', b'M', b'P', major, minor, _, int_bytes, offset_bytes, format, ..] = *prefix else {
            return Err("no pg_dump archive: it does not start with PGDMP".into());
        };
        if major != 1 || !(12..=16).contains(&minor) {
            return Err(format!("archive version {major}.{minor}; 1.12 to 1.16 are known"));
        }
        if !matches!(int_bytes, 4 | 8) || !matches!(offset_bytes, 4 | 8) {
            return Err(format!("ints of {int_bytes} and offsets of {offset_bytes} bytes"));
        }
        // 1 is archCustom.
        if format != 1 {
            return Err(format!("archive format {format} instead of custom"));
        }
        self.layout = Layout { minor, offset_bytes: usize::from(offset_bytes), plain: false };
        scalars.int_bytes = usize::from(int_bytes);
        Ok(())
    }

    fn absent(&self, field: Field) -> bool {
        match field {
            Field::AccessMethod => self.layout.minor < 14,
            Field::RelationKind => self.layout.minor < 16,
            _ => false,
        }
    }

    fn field(&mut self, n: usize, scalars: &mut Scalars, input: &mut &[u8]) -> Step {
        let Some(&field) = FIELDS.get(n) else {
            self.close_entry()?;
            self.left -= 1;
            self.at = if self.left == 0 { At::Done } else { At::Entry(0) };
            return Ok(true);
        };
        if self.absent(field) {
            self.at = At::Entry(n + 1);
            return Ok(true);
        }
        match field {
            Field::Id | Field::HadData | Field::Section | Field::RelationKind => {
                let Some(value) = scalars.int(input)? else { return Ok(false) };
                match field {
                    Field::Id => self.entry = Entry { id: value, ..Entry::default() },
                    Field::HadData => self.entry.had_data = value != 0,
                    _ => {}
                }
            }
            Field::Offset => {
                let Some(raw) = scalars.raw(input, 1 + self.layout.offset_bytes) else { return Ok(false) };
                if !(1..=3).contains(&raw[0]) {
                    return Err(format!("an offset of unknown kind {}", raw[0]));
                }
            }
            Field::Dependencies => {
                let Some(value) = scalars.string(input)? else { return Ok(false) };
                if value.is_some() {
                    return Ok(true);
                }
            }
            _ => {
                let Some(value) = scalars.string(input)? else { return Ok(false) };
                self.string_field(field, value.unwrap_or_default());
            }
        }
        self.at = At::Entry(n + 1);
        Ok(true)
    }

    fn string_field(&mut self, field: Field, value: Vec<u8>) {
        match field {
            Field::Tag => self.entry.tag = value,
            Field::Description => self.entry.description = value,
            Field::Namespace => self.entry.namespace = value,
            Field::Copy => self.entry.copies = value.starts_with(b"COPY "),
            Field::Owner => note(&mut self.summary.owners, &mut self.names_bytes, &value),
            Field::Tablespace => note(&mut self.summary.tablespaces, &mut self.names_bytes, &value),
            _ => {}
        }
    }

    fn close_entry(&mut self) -> Result<(), String> {
        self.summary.entries += 1;
        let entry = std::mem::take(&mut self.entry);
        if entry.id <= 0 {
            return Err(format!("an entry with id {}", entry.id));
        }
        if entry.description == b"EXTENSION" {
            note(&mut self.summary.extensions, &mut self.names_bytes, &entry.tag);
        }
        if self.names_bytes > NAMES_LIMIT {
            return Err("more names than drctl holds in memory".into());
        }
        if !entry.had_data {
            return Ok(());
        }
        let content = match entry.description.as_slice() {
            b"TABLE DATA" if entry.copies => Content::Copy,
            b"TABLE DATA" => Content::Table,
            b"BLOBS" | b"LARGE OBJECTS" => Content::Blobs,
            _ => Content::Other,
        };
        if entry.tag.len() >= KEPT || entry.namespace.len() >= KEPT {
            return Err("a table with a name longer than PostgreSQL allows".into());
        }
        let name = match content {
            Content::Copy | Content::Table => table_key(&text(&entry.namespace), &text(&entry.tag)),
            _ => text(&entry.description),
        };
        self.names_bytes += name.len() + 64;
        let slot = Slot { content, name, rows: 0, seen: false };
        match self.slots.insert(entry.id, slot) {
            Some(_) => Err(format!("two entries with id {}", entry.id)),
            None => Ok(()),
        }
    }
}

fn note(set: &mut BTreeSet<String>, bytes: &mut usize, name: &[u8]) {
    let name = text(name);
    if !name.is_empty() && !set.contains(&name) {
        *bytes += name.len() + 64;
        set.insert(name);
    }
}
