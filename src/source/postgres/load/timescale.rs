//! TimescaleDB: its own catalogue may be filled only between `timescaledb_pre_restore()` and `timescaledb_post_restore()`, by one
//! process, with the very version of the extension that was dumped (TimescaleDB's guide to logical backups; FAULTS 46 and incident 49).

use tokio_util::sync::CancellationToken;

use super::server::run_until;
use crate::error::{Context, Error, Kind, Result};
use crate::source::postgres::catalog::{Database, Extension};
use crate::source::postgres::connect::{Connection, connect, ident, literal, pg_error};
use crate::source::postgres::settings::PostgresSettings;

/// Its name as an extension.
pub(super) const NAME: &str = "timescaledb";

/// Where it is made unless told otherwise; every database has it, and no dump makes it.
const DEFAULT_SCHEMA: &str = "public";

/// The extension of a recorded database.
pub(super) fn of(database: &Database) -> Option<&Extension> {
    database.extensions.iter().find(|e| e.name == NAME)
}

/// Why the server behind `connection` cannot take a database with this extension: `None` when it can.
pub(super) async fn cannot_take(connection: &Connection, source: &str, extension: &Extension) -> Result<Option<String>> {
    let Extension { version: want, schema, .. } = extension;
    if schema != DEFAULT_SCHEMA {
        return Ok(Some(format!(
            "database {source} has TimescaleDB {want} in schema {schema}: the extension must be there before its dump is loaded, and the dump makes \
             the schema again. By hand: drctl cat SET {source} > dump, make the extension there, timescaledb_pre_restore(), pg_restore -L with a \
             list (pg_restore -l) that lacks schema {schema}, timescaledb_post_restore()"
        )));
    }
    let query = "select array_agg(version order by version) from pg_available_extension_versions where name = 'timescaledb'";
    let row = connection.query_one(query, &[]).await.map_err(|e| pg_error("list the versions of timescaledb", &e))?;
    let has: Vec<String> = row.get::<_, Option<Vec<String>>>(0).unwrap_or_default();
    Ok(match has.is_empty() {
        // Told with the other extensions.
        true => None,
        false if has.contains(want) => None,
        false => Some(format!(
            "database {source} was dumped with TimescaleDB {want}, the target has {}: its catalogue must be loaded by the same version; \
             install {want} there, restore, then ALTER EXTENSION timescaledb UPDATE",
            has.join(", ")
        )),
    })
}

/// The extension in a database while it is loaded.
pub(super) struct Loading<'a> {
    settings: &'a PostgresSettings,
    database: &'a str,
    application: &'a str,
    extension: &'a Extension,
}

impl<'a> Loading<'a> {
    pub(super) fn new(settings: &'a PostgresSettings, database: &'a str, application: &'a str, extension: &'a Extension) -> Self {
        Loading { settings, database, application, extension }
    }

    /// Makes the extension in the empty database and tells it that a restore comes: it sets that for all later connections.
    pub(super) async fn begin(&self, cancel: &CancellationToken) -> Result<()> {
        let Extension { version, schema, .. } = self.extension;
        let connection = self.connect().await?;
        let create = format!("CREATE EXTENSION timescaledb WITH SCHEMA {} VERSION {}", ident(schema), literal(version));
        let what = format!("make extension timescaledb {version} in database {}", self.database);
        run_until(&connection, &what, &create, cancel).await.map_err(|e| {
            e.hint("the server must load it at its start: shared_preload_libraries = 'timescaledb' in postgresql.conf, then a restart")
        })?;
        self.call(&connection, "timescaledb_pre_restore", cancel).await
    }

    /// Tells it that all is there.
    pub(super) async fn end(&self, cancel: &CancellationToken) -> Result<()> {
        let connection = self.connect().await?;
        self.call(&connection, "timescaledb_post_restore", cancel).await?;
        let row = connection.query_one("select extversion from pg_extension where extname = 'timescaledb'", &[]).await;
        let has: String = row.map_err(|e| pg_error("ask for the version of timescaledb", &e))?.get(0);
        if has == self.extension.version {
            return Ok(());
        }
        Err(Error::new(
            Kind::Failed,
            format!("database {} has TimescaleDB {has} after the load instead of {}", self.database, self.extension.version),
        ))
    }

    async fn connect(&self) -> Result<Connection> {
        connect(self.settings, self.database, self.application).await
    }

    async fn call(&self, connection: &Connection, function: &str, cancel: &CancellationToken) -> Result<()> {
        let sql = format!("SELECT {}.{function}()", ident(&self.extension.schema));
        run_until(connection, &format!("call {function}() in database {}", self.database), &sql, cancel)
            .await
            .context(|| "prepare TimescaleDB for the restore".to_owned())
    }
}
