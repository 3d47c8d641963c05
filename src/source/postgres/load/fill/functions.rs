//! Functions that find others by a search_path, on servers that give them none.
//!
//! Since PostgreSQL 17 the commands that make indexes and fill materialized views empty the path themselves (`RestrictSearchPath`): what an older
//! server had cannot be made by any path of the session. A path that is a function's own setting holds there too, so functions without one get it
//! for the transaction of the try. Whoever calls them is the same as before: the owner, or the role that acts for it.

use crate::source::postgres::connect::Connection;
use crate::source::postgres::names::{Text, is_raw};

use super::entry::Entry;

/// The first version, as in `server_version_num`, that empties the path.
pub(super) const EMPTIES_PATH: i32 = 170_000;

/// Whether such a server empties the path for this entry's statement.
pub(super) fn are_asked_by(entry: &Entry) -> bool {
    matches!(entry.description.as_str(), "INDEX" | "CONSTRAINT" | "MATERIALIZED VIEW DATA")
}

/// Functions in full, `public.f(integer)`, whose bodies are read when they are called, that have no path of their own, and that we may alter.
pub(super) async fn without_path(connection: &Connection) -> Result<Vec<String>, tokio_postgres::Error> {
    let query = "select p.oid::pg_catalog.regprocedure::text
        from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and l.lanname not in ('c', 'internal') and p.prokind in ('f', 'w')
          and p.prosqlbody is null and pg_catalog.pg_has_role(p.proowner, 'USAGE')
          and not exists (select from pg_catalog.unnest(p.proconfig) s (setting) where s.setting like 'search_path=%')
          and not exists (select from pg_catalog.pg_depend d
            where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'e')";
    Ok(connection.query(query, &[]).await?.iter().map(|row| row.get::<_, Text>(0).0).filter(|name| !is_raw(name)).collect())
}

/// Gives each the path of the session.
pub(super) fn lend_path(functions: &[String]) -> String {
    functions.iter().map(|function| format!("ALTER FUNCTION {function} SET search_path FROM CURRENT; ")).collect()
}

/// Takes it back.
pub(super) fn take_path_back(function: &str) -> String {
    format!("ALTER FUNCTION {function} RESET search_path")
}
