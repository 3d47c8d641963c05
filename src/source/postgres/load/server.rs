//! Doing things to databases of the target: close, rename, drop. Each looks first, so each may be repeated.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::source::postgres::connect::{Connection, connect, ident, pg_error};
use crate::source::postgres::names::{Text, sendable};
use crate::source::postgres::settings::PostgresSettings;

/// How long to wait for connections to a database to end once they were told to.
const EMPTY_WITHIN: Duration = Duration::from_secs(20);

/// How long a statement under way may take once the run was cancelled: one that is left alone may come true after its clean-up.
const AFTER_CANCEL: Duration = Duration::from_secs(10);

/// Databases of the server: oid, name, whether they accept connections.
pub(super) struct Databases(BTreeMap<u32, (String, bool)>);

impl Databases {
    pub(super) async fn ask(connection: &Connection) -> Result<Databases> {
        let rows = connection
            .query("select oid, datname::text, datallowconn from pg_database", &[])
            .await
            .map_err(|e| pg_error("list the databases", &e))?;
        Ok(Databases(rows.iter().map(|row| (row.get(0), (row.get::<_, Text>(1).0, row.get(2)))).collect()))
    }

    pub(super) fn name_of(&self, oid: Option<u32>) -> Option<&str> {
        self.0.get(&oid?).map(|(name, _)| name.as_str())
    }

    pub(super) fn oid_of(&self, name: &str) -> Option<u32> {
        self.0.iter().find(|(_, (have, _))| have == name).map(|(oid, _)| *oid)
    }

    pub(super) fn is_open(&self, oid: u32) -> bool {
        self.0.get(&oid).is_some_and(|(_, open)| *open)
    }
}

/// A connection from which none of `busy` can be meant: a database with a connection cannot be renamed or dropped.
pub(super) async fn administer(settings: &PostgresSettings, application: &str, busy: &[&str]) -> Result<Connection> {
    let candidates = [settings.maintenance_database.as_str(), "postgres", "template1"];
    let mut last = None;
    for candidate in candidates.iter().filter(|candidate| !busy.contains(candidate)) {
        match connect(settings, candidate, application).await {
            Ok(connection) => return Ok(connection),
            // Nobody answers there, whatever the database.
            Err(error) if error.kind() == Kind::Unreachable => return Err(error),
            Err(error) => last = last.or(Some(error)),
        }
    }
    Err(last.unwrap_or_else(|| {
        Error::failed("every database from which others could be renamed is itself to be replaced")
            .hint("name another as maintenance database")
    }))
}

pub(super) async fn run(connection: &Connection, what: &str, sql: &str) -> Result<()> {
    connection.batch_execute(&sendable(sql)).await.map_err(|e| pg_error(what, &e))
}

fn cancelled(what: &str) -> Error {
    Error::new(Kind::Interrupted, format!("{what}: the run was cancelled"))
}

/// Like [`run`], but ends with the run.
pub(super) async fn run_until(connection: &Connection, what: &str, sql: &str, cancel: &CancellationToken) -> Result<()> {
    until(what, cancel, run(connection, what, sql)).await
}

/// Puts a setting on a database or a role. `Some`: the server does not take it, and why, without the value.
pub(super) async fn set_until(connection: &Connection, what: &str, sql: &str, cancel: &CancellationToken) -> Result<Option<&'static str>> {
    let setting = async {
        let Err(error) = connection.batch_execute(&sendable(sql)).await else { return Ok(None) };
        match error.code().and_then(not_taken) {
            Some(why) => Ok(Some(why)),
            None => Err(pg_error(what, &error)),
        }
    };
    until(what, cancel, setting).await
}

/// Settings come and go with versions, and their values with what else the server has (locales …).
fn not_taken(code: &SqlState) -> Option<&'static str> {
    if [SqlState::UNDEFINED_OBJECT, SqlState::INVALID_NAME].contains(code) {
        Some("does not know it")
    } else if *code == SqlState::INVALID_PARAMETER_VALUE {
        Some("does not take its value")
    } else {
        (*code == SqlState::CANT_CHANGE_RUNTIME_PARAM).then_some("has it for all databases only")
    }
}

async fn until<T>(what: &str, cancel: &CancellationToken, running: impl Future<Output = Result<T>>) -> Result<T> {
    if cancel.is_cancelled() {
        return Err(cancelled(what));
    }
    let mut running = std::pin::pin!(running);
    tokio::select! {
        result = &mut running => result,
        () = cancel.cancelled() => {
            let _ = tokio::time::timeout(AFTER_CANCEL, running).await;
            Err(cancelled(what))
        }
    }
}

/// Like [`empty`], but ends with the run.
pub(super) async fn empty_until(connection: &Connection, name: &str, cancel: &CancellationToken) -> Result<()> {
    tokio::select! {
        result = empty(connection, name) => result,
        () = cancel.cancelled() => Err(cancelled(&format!("end the connections to database {name}"))),
    }
}

/// Lets new connections in or not.
pub(super) async fn set_open(connection: &Connection, name: &str, open: bool) -> Result<()> {
    run(connection, &format!("{} database {name}", if open { "open" } else { "close" }), &open_sql(name, open)).await
}

pub(super) fn open_sql(name: &str, open: bool) -> String {
    format!("ALTER DATABASE {} ALLOW_CONNECTIONS {open}", ident(name))
}

pub(super) fn rename_sql(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", ident(from), ident(to))
}

/// Ends the connections of a database and waits until they are gone. An autovacuum worker is nobody's connection (it has no user): only a
/// superuser may end it by name, and what needs the database empty ends it by itself.
pub(super) async fn empty(connection: &Connection, name: &str) -> Result<()> {
    let what = format!("end the connections to database {name}");
    let query = "select count(*), count(*) filter (where not pg_terminate_backend(pid)),
          (select count(*) from pg_prepared_xacts where database = $1)
        from pg_stat_activity where datname = $1 and pid <> pg_backend_pid() and usesysid is not null";
    let since = Instant::now();
    loop {
        let row = connection.query_one(query, &[&name]).await.map_err(|e| pg_error(what.as_str(), &e))?;
        let (left, prepared): (i64, i64) = (row.get(0), row.get(2));
        if prepared > 0 {
            return Err(Error::failed(format!("{what}: {prepared} prepared transactions hold it"))
                .hint("look at pg_prepared_xacts there; COMMIT PREPARED or ROLLBACK PREPARED each"));
        }
        if left == 0 {
            return Ok(());
        }
        if since.elapsed() > EMPTY_WITHIN {
            return Err(Error::failed(format!("{what}: {left} are still there after {} s", EMPTY_WITHIN.as_secs()))
                .hint("stop the application and its pooler, then repeat"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs statements as one transaction: all renames of a switch happen, or none. Someone who slipped in is thrown out and it is tried again.
pub(super) async fn atomically(connection: &Connection, what: &str, statements: &[String], emptied: &[String]) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    let sql = format!("BEGIN; {}; COMMIT", statements.join("; "));
    let mut tries = 0;
    loop {
        let Err(error) = connection.batch_execute(&sql).await else { return Ok(()) };
        let in_use = error.code() == Some(&SqlState::OBJECT_IN_USE);
        // A failed statement leaves the transaction open.
        let _ = connection.batch_execute("ROLLBACK").await;
        tries += 1;
        if !in_use || tries == 5 {
            return Err(pg_error(what, &error));
        }
        for name in emptied {
            empty(connection, name).await?;
        }
    }
}

/// Drops a database if it is there under this name *and* oid. One that cannot be dropped is left as open as it was.
///
/// `Some` when it was dropped: with the subscriptions in it, which left their replication slots at their publishers.
pub(super) async fn drop_database(
    connection: &Connection,
    settings: &PostgresSettings,
    application: &str,
    name: &str,
    oid: Option<u32>,
) -> Result<Option<Vec<String>>> {
    let databases = Databases::ask(connection).await?;
    let Some(found) = databases.oid_of(name) else { return Ok(None) };
    if oid.is_some_and(|oid| oid != found) {
        return Err(Error::failed(format!("database {name} is not the one that this restore made or moved; it stays")));
    }
    let query =
        "select datistemplate, (select coalesce(array_agg(subname::text order by 1), '{}') from pg_subscription where subdbid = d.oid)
        from pg_database d where oid = $1";
    let row = connection.query_one(query, &[&found]).await.map_err(|e| pg_error(format!("look at database {name}"), &e))?;
    let (template, subscriptions): (bool, Vec<String>) = (row.get(0), row.get(1));
    let dropping = async {
        if template {
            run(connection, &format!("make database {name} no template"), &template_sql(name, false)).await?;
        }
        set_open(connection, name, false).await?;
        empty(connection, name).await?;
        if !subscriptions.is_empty() {
            // They can be dropped from within only.
            set_open(connection, name, true).await?;
            drop_subscriptions(&connect(settings, name, application).await?, name, &subscriptions).await?;
            set_open(connection, name, false).await?;
            empty(connection, name).await?;
        }
        run(connection, &format!("drop database {name}"), &format!("DROP DATABASE {}", ident(name))).await
    };
    if let Err(error) = dropping.await {
        // The first error is the one that counts.
        if template {
            let _ = run(connection, "", &template_sql(name, true)).await;
        }
        let _ = set_open(connection, name, databases.is_open(found)).await;
        return Err(error);
    }
    Ok(Some(subscriptions))
}

fn template_sql(name: &str, template: bool) -> String {
    format!("ALTER DATABASE {} IS_TEMPLATE {template}", ident(name))
}

/// A database with a subscription cannot be dropped. The slot at the publisher stays: the database that takes this one's place may use it.
async fn drop_subscriptions(inside: &Connection, database: &str, subscriptions: &[String]) -> Result<()> {
    for subscription in subscriptions {
        let name = ident(subscription);
        for sql in [
            format!("ALTER SUBSCRIPTION {name} DISABLE"),
            format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"),
            format!("DROP SUBSCRIPTION {name}"),
        ] {
            run(inside, &format!("drop subscription {subscription} of database {database}"), &sql).await?;
        }
    }
    Ok(())
}

/// Size in bytes.
pub(super) async fn size(connection: &Connection, name: &str) -> Option<u64> {
    let row = connection.query_one("select pg_database_size($1::name)", &[&name]).await.ok()?;
    u64::try_from(row.get::<_, i64>(0)).ok()
}
