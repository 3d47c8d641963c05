//! What a session of ours must not inherit from its role, its database or the server (FAULTS 104).
//!
//! `ALTER ROLE … SET`, `ALTER DATABASE … SET` and postgresql.conf reach into every session: a role that is read-only by default cannot load,
//! one whose statements or pauses are timed loses its connection half way, and some settings change what loaded rows mean.

use crate::error::{Error, Result};
use crate::source::postgres::connect::{Connection, pg_error};

/// Nothing outside `pg_catalog` is found by an unqualified name (CVE-2018-1058), before anything else is asked. It runs as a transaction of
/// its own: a role whose transactions are serializable could ask a replica nothing.
const FIRST: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = 0; \
    SELECT pg_catalog.set_config('search_path', '', false)";

/// For our own statements: rows hidden by policies are an error, and a lock is not waited for without end. A server of encoding SQL_ASCII would
/// refuse to send names that are no UTF-8: from there they come as they are ([`super::names`]).
const LAST: &str = "SET row_security = off; SET lock_timeout = '30s'; SET client_min_messages = warning; SET DateStyle = 'ISO, MDY'; \
    SELECT pg_catalog.set_config('client_encoding', \
      CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END, false); COMMIT";

/// Settings with the values that every session has, our own and that of each program, and why another would do harm. The values are
/// PostgreSQL's defaults: for most servers there is nothing to say.
const WANTED: [(&str, &str); 18] = [
    // A load writes.
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // A store may be slow, and a dump long.
    ("statement_timeout", "0"),
    ("transaction_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    // The first error would be the last.
    ("exit_on_error", "off"),
    // What is said is heard.
    ("client_min_messages", "notice"),
    // What rows and definitions mean.
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    ("backslash_quote", "safe_encoding"),
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    // Where and how things are made of which the dump says nothing.
    ("default_tablespace", ""),
    ("default_table_access_method", "heap"),
    // Triggers and rules as everyone has them; only a superuser may set it.
    (ORIGIN, "origin"),
];

const ORIGIN: &str = "session_replication_role";

/// The list as a table `w (name, value)`, with the settings `s` that this server has and this role may set.
fn wanted() -> String {
    let rows: Vec<String> = WANTED.iter().map(|(name, value)| format!("('{name}', '{value}')")).collect();
    format!(
        "(values {}) w (name, value) join pg_catalog.pg_settings s on s.name = w.name
         where (s.name <> '{ORIGIN}' or (select rolsuper from pg_catalog.pg_roles where rolname = current_user))",
        rows.join(", ")
    )
}

/// Sets up a new connection.
pub(super) fn setup() -> String {
    format!("{FIRST}; SELECT pg_catalog.count(pg_catalog.set_config(s.name, w.value, false)) from {}; {LAST}", wanted())
}

/// `PGOPTIONS` for a program that is to connect as this connection did: what would be otherwise there. Empty for most servers, and where a pooler stands between, which takes none.
pub(super) async fn options(connection: &Connection) -> Result<String> {
    if connection.pooled {
        return Ok(String::new());
    }
    with_money(connection, Some(MONEY)).await
}

/// The same for a load: thousands of small statements need not each wait for the disk, as the switch commits synchronously, and with it all
/// that came before. `money` is the locale by which the dump writes money, where that is known.
pub(super) async fn load_options(connection: &Connection, money: Option<&str>) -> Result<String> {
    if connection.pooled {
        return Ok(String::new());
    }
    Ok(format!("-c synchronous_commit=off {}", with_money(connection, money).await?).trim_end().to_owned())
}

async fn with_money(connection: &Connection, money: Option<&str>) -> Result<String> {
    let mut options = deviating(connection).await?;
    let inherited = inherited_money(connection).await?;
    options.extend(money.filter(|money| **money != inherited).map(|money| (MONETARY.to_owned(), money.to_owned())));
    Ok(options.iter().map(|(name, value)| option(name, value)).collect::<Vec<_>>().join(" "))
}

/// The setting by which values of type money are written and read: `1.234,56 €` is 1,234.56 by one locale and an error by most others, but
/// `$ 12,34` of es_AR is 1,234 by C, and nobody is told.
const MONETARY: &str = "lc_monetary";

/// The locale that every server has.
const MONEY: &str = "C";

/// The `lc_monetary` with which a session of this role begins in this database.
pub(super) async fn inherited_money(connection: &Connection) -> Result<String> {
    let row = connection.query_one("select coalesce(reset_val, '') from pg_catalog.pg_settings where name = $1", &[&MONETARY]).await;
    Ok(row.map_err(|e| pg_error("ask for lc_monetary", &e))?.get(0))
}

/// The locale by which a program that connects as this connection did, with our [`options`], writes money.
pub(super) async fn money_of_dumps(connection: &Connection) -> Result<String> {
    if connection.pooled { inherited_money(connection).await } else { Ok(MONEY.to_owned()) }
}

/// Whether the server has a locale for money.
pub(super) async fn knows_money(connection: &Connection, locale: &str) -> bool {
    locale == MONEY || connection.query_one("select pg_catalog.set_config($1, $2, true)", &[&MONETARY, &locale]).await.is_ok()
}

/// Has a session of ours read money as a dump wrote it.
pub(super) async fn read_money(connection: &Connection, locale: &str) -> Result<()> {
    let done = connection.query_one("select pg_catalog.set_config($1, $2, false)", &[&MONETARY, &locale]).await;
    done.map(drop).map_err(|e| pg_error("set lc_monetary", &e))
}

/// Settings with which a session of this role begins and which a program of ours must not have, with the value that they should have.
async fn deviating(connection: &Connection) -> Result<Vec<(String, String)>> {
    let query = format!("select s.name, w.value from {} and s.reset_val <> w.value", wanted());
    let rows = connection.query(&query, &[]).await.map_err(|e| pg_error("ask for the settings of the session", &e))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// For a load through a pooler, which lets us say nothing at the start of a session: why pg_restore's would not do. `None` where it will.
pub(super) async fn inherited(connection: &Connection) -> Result<Option<String>> {
    if !connection.pooled {
        return Ok(None);
    }
    let names: Vec<String> = deviating(connection).await?.into_iter().map(|(name, _)| name).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "a connection pooler stands between, through which a session cannot be begun with settings of its own, and pg_restore would have those \
             of its role for {}: name PostgreSQL itself as host and port, or reset them (ALTER ROLE … RESET …)",
            names.join(", ")
        )
    }))
}

/// One setting as the server takes it in `PGOPTIONS`, where a space ends it.
fn option(name: &str, value: &str) -> String {
    format!("-c {name}={}", value.replace('\\', "\\\\").replace(' ', "\\ "))
}

/// Why nothing can be written through this connection, although its transactions are not read-only by default: `None` where it can.
pub(super) async fn read_only(connection: &Connection) -> Result<Option<String>> {
    let query = "select pg_catalog.current_setting('transaction_read_only') = 'on', pg_catalog.pg_is_in_recovery()";
    let row = connection
        .query_one(query, &[])
        .await
        .map_err(|e: tokio_postgres::Error| -> Error { pg_error("ask whether it takes writes", &e) })?;
    let (read_only, replica): (bool, bool) = (row.get(0), row.get(1));
    Ok((read_only && !replica).then(|| {
        "the target takes no writes, and `SET default_transaction_read_only = off` does not change that: end what keeps it read-only there \
         (an extension, or a provider that closed it for lack of room), or name another target"
            .to_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_space_is_one_option() {
        assert_eq!(option("default_transaction_isolation", "read committed"), "-c default_transaction_isolation=read\\ committed");
        assert_eq!(option("default_tablespace", ""), "-c default_tablespace=");
    }
}
