//! Globals as text. drctl has pg_dumpall write UTF-8; before it wrote in the encoding of the server, and from one of encoding SQL_ASCII it
//! still writes the bytes that are there.

use std::collections::{BTreeMap, BTreeSet};

use super::Recorded;
use super::globals::Globals;
use crate::source::postgres::catalog::ANY_BYTES;
use crate::source::postgres::connect::Connection;
use crate::source::postgres::names::{Text, decode, is_raw, shown};

impl Recorded {
    /// In which encoding a set's globals are where they are not UTF-8: that of the database which pg_dumpall connected to.
    pub(super) fn globals_encoding(&self, maintenance_database: &str) -> Option<&str> {
        let of = |name: &str| self.database(name).map(|d| d.encoding.as_str());
        let all: BTreeSet<&str> = self.databases.iter().map(|d| d.encoding.as_str()).collect();
        let only = || all.first().copied().filter(|_| all.len() == 1);
        self.server.encoding.as_deref().or_else(|| of(maintenance_database)).or_else(|| of("postgres")).or_else(only)
    }
}

/// The text of globals; bytes of an encoding that neither we nor the server can tell are kept as [`decode`] has them.
///
/// What the server is asked to convert is no more than the letters that are not ASCII: a password's hash has none.
pub(super) async fn text(bytes: Vec<u8>, encoding: Option<&str>, connection: &Connection) -> String {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return text,
        Err(error) => error.into_bytes(),
    };
    let Some(encoding) = encoding.filter(|name| *name != ANY_BYTES && *name != "UTF8") else { return decode(&bytes) };
    // Every encoding that a server may have keeps ASCII apart: no byte of another character is below 0x80.
    let runs: Vec<&[u8]> = bytes.chunk_by(|a, b| a.is_ascii() == b.is_ascii()).collect();
    let wanted: Vec<&[u8]> = runs.iter().copied().filter(|run| !run.is_ascii()).collect::<BTreeSet<_>>().into_iter().collect();
    let query = "select convert_from(x, $2::text::name) from unnest($1::bytea[]) with ordinality as t(x, at) order by at";
    match connection.query(query, &[&wanted, &encoding]).await {
        Ok(rows) if rows.len() == wanted.len() => {
            let texts: BTreeMap<&[u8], String> = wanted.into_iter().zip(rows.iter().map(|row| row.get::<_, Text>(0).0)).collect();
            runs.into_iter().map(|run| texts.get(run).cloned().unwrap_or_else(|| decode(run))).collect()
        }
        other => {
            tracing::debug!(?other, encoding, "the server cannot convert the names of the globals");
            decode(&bytes)
        }
    }
}

impl Globals {
    /// Takes out what a server of this encoding cannot take, since nobody knows which letters it is: statements about roles whose names
    /// are no UTF-8, and texts. Gives those names, as people see them.
    pub(super) fn without_unreadable(&mut self, encoding: Option<&str>) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        if encoding == Some(ANY_BYTES) {
            return names;
        }
        let passed_over = &mut self.passed_over;
        self.statements.retain(|statement| {
            let raw: Vec<String> = statement.roles().filter(|name| is_raw(name)).map(shown).collect();
            let unreadable = statement.text().filter(|(_, text)| is_raw(text));
            let keep = raw.is_empty() && unreadable.is_none();
            if raw.is_empty() {
                passed_over.extend(unreadable.map(|(what, _)| format!("{what} (in letters of an unknown encoding)")));
            }
            names.extend(raw);
            keep
        });
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f95_roles_that_a_server_cannot_have_are_passed_over_and_named() {
        let text = decode(b"CREATE ROLE \"m\xfcller\"; CREATE ROLE app; GRANT \"m\xfcller\" TO app; COMMENT ON ROLE app IS '\xfc';");
        let parse = || Globals::parse(&text).unwrap();
        let mut globals = parse();
        assert_eq!(globals.without_unreadable(Some("UTF8")).into_iter().collect::<Vec<_>>(), ["m\\xfcller"]);
        assert_eq!((globals.roles().collect::<Vec<_>>(), globals.statements.len()), (vec!["app"], 1));
        assert_eq!(globals.passed_over.iter().collect::<Vec<_>>(), ["COMMENT ON (in letters of an unknown encoding)"]);
        let mut globals = parse();
        assert!(globals.without_unreadable(Some(ANY_BYTES)).is_empty());
        assert_eq!(globals.statements.len(), 4);
    }
}
