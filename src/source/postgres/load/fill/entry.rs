//! What an entry of the archive's table of contents is, in SQL.

use crate::format::pgdump::TocEntry;
use crate::source::postgres::connect::ident;
use crate::source::postgres::names::decode;

/// Texts of an entry.
pub(super) const TEXTS: usize = 8;

/// An entry's texts as text.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: i64,
    pub(super) description: String,
    pub(super) tag: String,
    pub(super) namespace: String,
    pub(super) owner: String,
    pub(super) definition: String,
    pub(super) drop: String,
    pub(super) copy: String,
    pub(super) tablespace: String,
    pub(super) access_method: String,
    pub(super) dependencies: Vec<i64>,
}

/// Statements of these hold passwords (of publishers, of foreign servers): only what they begin with is told.
const SECRET: [&str; 4] = ["SUBSCRIPTION", "USER MAPPING", "SERVER", "FOREIGN DATA WRAPPER"];

/// Longest statement that is told, in bytes: some functions are long.
const STATEMENT_BYTES: usize = 1500;

impl Entry {
    /// From an entry whose texts are UTF-8; bytes that are none become what [`decode`] makes of them.
    pub(super) fn of(entry: &TocEntry) -> Entry {
        let texts = Self::texts(entry).map(decode);
        Self::with(entry, texts)
    }

    /// The texts of an entry, as they are in the archive.
    pub(super) fn texts(entry: &TocEntry) -> [&[u8]; TEXTS] {
        [&entry.tag, &entry.namespace, &entry.owner, &entry.definition, &entry.drop, &entry.copy, &entry.tablespace, &entry.access_method]
    }

    /// With the texts of [`Entry::texts`], converted.
    pub(super) fn with(entry: &TocEntry, texts: [String; TEXTS]) -> Entry {
        let [tag, namespace, owner, definition, drop, copy, tablespace, access_method] = texts;
        Entry {
            id: entry.id,
            description: entry.description.clone(),
            tag,
            namespace,
            owner,
            definition,
            drop,
            copy,
            tablespace,
            access_method,
            dependencies: entry.dependencies.clone(),
        }
    }

    pub(super) fn is_rows(&self) -> bool {
        self.description == "TABLE DATA"
    }

    /// `INDEX public.a_idx`.
    pub(super) fn name(&self) -> String {
        let name = match self.namespace.is_empty() {
            true => format!("{} {}", self.description, self.tag),
            false => format!("{} {}.{}", self.description, self.namespace, self.tag),
        };
        name.escape_debug().to_string()
    }

    /// What is told of the statement that makes it.
    pub(super) fn statement(&self) -> String {
        let whole = if self.is_rows() { self.copy.trim() } else { self.definition.trim() };
        if SECRET.contains(&self.description.as_str()) {
            return format!("{} …", whole.split_whitespace().take(3).collect::<Vec<_>>().join(" "));
        }
        let mut end = whole.len().min(STATEMENT_BYTES);
        while !whole.is_char_boundary(end) {
            end -= 1;
        }
        let harmless = |c: char| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c };
        let shown: String = whole[..end].chars().map(harmless).collect();
        if end < whole.len() { format!("{shown} …") } else { shown }
    }

    pub(super) fn qualified(&self) -> String {
        match self.namespace.is_empty() {
            true => ident(&self.tag),
            false => format!("{}.{}", ident(&self.namespace), ident(&self.tag)),
        }
    }

    /// Whether a path may be all that is wrong with it. The rest is looked up by names that pg_dump writes in full, or only a superuser makes it.
    pub(super) fn follows_path(&self) -> bool {
        matches!(
            self.description.as_str(),
            "TABLE"
                | "TABLE DATA"
                | "TABLE ATTACH"
                | "VIEW"
                | "MATERIALIZED VIEW"
                | "MATERIALIZED VIEW DATA"
                | "FOREIGN TABLE"
                | "SEQUENCE"
                | "TYPE"
                | "DOMAIN"
                | "FUNCTION"
                | "PROCEDURE"
                | "AGGREGATE"
                | "OPERATOR"
                | "INDEX"
                | "INDEX ATTACH"
                | "CONSTRAINT"
                | "CHECK CONSTRAINT"
                | "FK CONSTRAINT"
                | "DEFAULT"
                | "TRIGGER"
                | "RULE"
                | "POLICY"
                | "STATISTICS"
        )
    }

    /// Whether it depends on relations through their indexes: on partitions, and on what a foreign key points to.
    pub(super) fn depends_through_indexes(&self) -> bool {
        matches!(self.description.as_str(), "INDEX ATTACH" | "FK CONSTRAINT")
    }

    /// Whether whoever makes it must own the relations that it depends on.
    pub(super) fn needs_relations(&self) -> bool {
        matches!(
            self.description.as_str(),
            "TABLE"
                | "TABLE DATA"
                | "TABLE ATTACH"
                | "MATERIALIZED VIEW DATA"
                | "INDEX"
                | "INDEX ATTACH"
                | "CONSTRAINT"
                | "CHECK CONSTRAINT"
                | "FK CONSTRAINT"
                | "DEFAULT"
                | "TRIGGER"
                | "RULE"
                | "POLICY"
                | "STATISTICS"
        )
    }

    pub(super) fn is_relation(&self) -> bool {
        matches!(self.description.as_str(), "TABLE" | "VIEW" | "MATERIALIZED VIEW" | "FOREIGN TABLE" | "DOMAIN")
    }

    /// `ALTER … OWNER TO …`, as pg_restore says it behind what it makes; `None` for what has no owner of its own.
    /// Fact: `_getObjectDescription` of PostgreSQL's `pg_backup_archiver.c`.
    pub(super) fn owner_sql(&self) -> Option<String> {
        if self.owner.is_empty() || self.drop.is_empty() {
            return None;
        }
        let what = match self.description.as_str() {
            kind @ ("COLLATION"
            | "CONVERSION"
            | "DOMAIN"
            | "FOREIGN TABLE"
            | "MATERIALIZED VIEW"
            | "SEQUENCE"
            | "STATISTICS"
            | "TABLE"
            | "TEXT SEARCH DICTIONARY"
            | "TEXT SEARCH CONFIGURATION"
            | "TYPE"
            | "VIEW") => format!("{kind} {}", self.qualified()),
            kind @ ("PROCEDURAL LANGUAGE"
            | "SCHEMA"
            | "EVENT TRIGGER"
            | "FOREIGN DATA WRAPPER"
            | "SERVER"
            | "PUBLICATION"
            | "SUBSCRIPTION") => {
                format!("{kind} {}", ident(&self.tag))
            }
            // Arguments stand in the statement that drops it.
            "AGGREGATE" | "FUNCTION" | "OPERATOR" | "OPERATOR CLASS" | "OPERATOR FAMILY" | "PROCEDURE" => {
                self.drop.trim().strip_prefix("DROP ")?.strip_suffix(';')?.to_owned()
            }
            _ => return None,
        };
        Some(format!("ALTER {what} OWNER TO {}", ident(&self.owner)))
    }

    /// `ALTER … OWNER TO role` of a relation.
    pub(super) fn give_to(&self, role: &str) -> String {
        let kind = if self.description == "DOMAIN" { "DOMAIN" } else { "TABLE" };
        format!("ALTER {kind} {} OWNER TO {}", self.qualified(), ident(role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(description: &str, definition: &str, drop: &str) -> Entry {
        Entry {
            id: 1,
            description: description.into(),
            tag: "o\"d d".into(),
            namespace: "public".into(),
            owner: "App".into(),
            definition: definition.into(),
            drop: drop.into(),
            copy: String::new(),
            tablespace: String::new(),
            access_method: String::new(),
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn f90_owners_are_set_as_pg_restore_sets_them() {
        let owner = |description, drop| entry(description, "", drop).owner_sql();
        assert_eq!(owner("TABLE", "DROP TABLE x;\n").unwrap(), "ALTER TABLE \"public\".\"o\"\"d d\" OWNER TO \"App\"");
        assert_eq!(owner("SCHEMA", "DROP SCHEMA x;\n").unwrap(), "ALTER SCHEMA \"o\"\"d d\" OWNER TO \"App\"");
        assert_eq!(owner("FUNCTION", "DROP FUNCTION public.f(integer);\n").unwrap(), "ALTER FUNCTION public.f(integer) OWNER TO \"App\"");
        assert_eq!(owner("INDEX", "DROP INDEX x;\n"), None);
        assert_eq!(owner("TABLE", ""), None);
    }

    #[test]
    fn f92_passwords_in_statements_are_not_told() {
        let told = entry("SUBSCRIPTION", "CREATE SUBSCRIPTION s CONNECTION 'password=hunter2'", "").statement();
        assert_eq!(told, "CREATE SUBSCRIPTION s …");
        assert!(entry("FUNCTION", &"x".repeat(5000), "").statement().len() < 1600);
    }
}
