//! Databases that can only be loaded under their own name.
//!
//! `CREATE EXTENSION pg_cron` works in the one database that the server's `cron.database_name` names, and in no other. So such a database is made
//! beside as any other, has the live name for as long as it is loaded, and gives it back: what follows is the same for all.

use crate::error::Result;
use crate::source::postgres::catalog::Database;
use crate::source::postgres::connect::{Connection, pg_error};

/// Extensions that work in one database only, with the server's setting that names it. Facts: pg_cron's README and its install script.
const BOUND: [(&str, &str); 1] = [("pg_cron", "cron.database_name")];

/// The extension that binds a database to its name, and the setting that names the database, if there is one.
pub(super) fn by(database: &Database) -> Option<(&'static str, &'static str)> {
    BOUND.into_iter().find(|(extension, _)| database.extensions.iter().any(|has| has.name == *extension))
}

/// What stands in the way of loading a bound database as `live`, with the way on.
pub(super) async fn cannot_take(connection: &Connection, source: &str, live: &str, database: &Database) -> Result<Option<String>> {
    let Some((extension, setting)) = by(database) else { return Ok(None) };
    let row = connection.query_one("select pg_catalog.current_setting($1, true)", &[&setting]).await;
    let names: Option<String> = row.map_err(|e| pg_error(format!("ask for {setting}"), &e))?.get(0);
    let (source, live) = (source.escape_debug(), live.escape_debug());
    Ok(match names.as_deref() {
        Some(name) if live.to_string() == name => None,
        Some(name) if !name.is_empty() => Some(format!(
            "database {source} has extension {extension}, which the target's server allows in database {} only: set {setting} = '{live}' in its \
             postgresql.conf and restart it, or restore under that name (--target …/{0})",
            name.escape_debug()
        )),
        _ => Some(format!(
            "database {source} has extension {extension}, which the target's server does not load at its start: set shared_preload_libraries = \
             '{extension}' and {setting} = '{live}' in its postgresql.conf and restart it"
        )),
    })
}
