//! Our own connections to the server.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::error::{Error, Kind, Result};
use crate::model::Secret;
use crate::source::postgres::settings::{PostgresSettings, SslMode};

/// A connection; dropped, it is closed.
pub(super) struct Connection {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
}

impl std::ops::Deref for Connection {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::ops::DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Nothing outside `pg_catalog` is found by an unqualified name (CVE-2018-1058), rows hidden by policies are an error, and a lock is
/// not waited for without end.
const SETUP: &str = "SELECT pg_catalog.set_config('search_path', '', false); SET row_security = off; SET statement_timeout = 0; \
                     SET lock_timeout = '30s'; SET client_min_messages = warning; SET standard_conforming_strings = on";

/// Connects to a database of the server.
pub(super) async fn connect(settings: &PostgresSettings, database: &str, application: &str) -> Result<Connection> {
    if !matches!(settings.sslmode, SslMode::Disable | SslMode::Prefer) {
        return Err(Error::new(
            Kind::Preflight,
            format!("sslmode {} for {}: drctl's own connection has no TLS yet", settings.sslmode.name(), settings.address()),
        )
        .hint("connect over a Unix socket, a tunnel or a private network with sslmode prefer"));
    }
    let mut config = tokio_postgres::Config::new();
    config
        .host(&settings.host)
        .port(settings.port)
        .user(&settings.user)
        .dbname(database)
        .application_name(application)
        .connect_timeout(settings.connect_timeout)
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(60));
    if let Some(password) = password(settings) {
        config.password(password.expose());
    }
    let what = || format!("connect to PostgreSQL at {} as {}, database {}", settings.address(), settings.user, database.escape_debug());
    let connecting = config.connect(NoTls);
    // The setting above covers the TCP part only; a server may accept and then say nothing.
    let limit = settings.connect_timeout + Duration::from_secs(1);
    let (client, connection) = match tokio::time::timeout(limit, connecting).await {
        Err(_) => return Err(Error::new(Kind::Unreachable, format!("{}: no answer in {} s", what(), limit.as_secs()))),
        Ok(result) => result.map_err(|e| pg_error(what(), &e))?,
    };
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a PostgreSQL connection ended");
        }
    });
    let connection = Connection { client, driver };
    connection.batch_execute(SETUP).await.map_err(|e| pg_error(what(), &e))?;
    Ok(connection)
}

/// An error of the server or the connection, in drctl's terms: what the server said, with its detail and hint.
pub(super) fn pg_error(what: impl Into<String>, error: &tokio_postgres::Error) -> Error {
    let what = what.into();
    let Some(db) = error.as_db_error() else {
        let mut words = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(source) = next {
            words = format!("{words}: {source}");
            next = source.source();
        }
        let kind = if error.is_closed() || is_io(error) { Kind::Unreachable } else { Kind::Failed };
        let made = Error::new(kind, format!("{what}: {words}"));
        return if kind == Kind::Unreachable { made.hint("is the server running, and does it listen there?") } else { made };
    };
    let mut words = db.message().to_owned();
    if let Some(detail) = db.detail() {
        words = format!("{words} ({detail})");
    }
    let made = Error::new(kind_of(db.code()), format!("{what}: {words}"));
    match (kind_of(db.code()), db.hint()) {
        (Kind::Preflight, _) if db.code().code().starts_with("28") => made.hint("check user, password and pg_hba.conf of the server"),
        (_, Some(hint)) => made.hint(hint.to_owned()),
        _ => made,
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if source.is::<std::io::Error>() {
            return true;
        }
        next = source.source();
    }
    false
}

/// SQLSTATE classes and codes: PostgreSQL manual, appendix A.
fn kind_of(code: &SqlState) -> Kind {
    match code.code() {
        // Shutting down, starting up, too many connections, in the way of a replica's recovery: later tries may succeed.
        "40001" | "57P01" | "57P02" | "57P03" | "53300" => Kind::Unreachable,
        "53100" => Kind::Full,
        // No such database, and permission denied.
        "3D000" | "42501" => Kind::Preflight,
        code if code.starts_with("28") => Kind::Preflight,
        code if code.starts_with("08") => Kind::Unreachable,
        _ => Kind::Failed,
    }
}

/// The password: from the settings, `PGPASSWORD` or the password file, in this order, as libpq does it.
pub(super) fn password(settings: &PostgresSettings) -> Option<Secret> {
    if settings.password.is_some() {
        return settings.password.clone();
    }
    if let Ok(password) = std::env::var("PGPASSWORD") {
        return Some(Secret::new(password));
    }
    let file = match std::env::var_os("PGPASSFILE") {
        Some(file) => PathBuf::from(file),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".pgpass"),
    };
    use std::os::unix::fs::PermissionsExt;
    let meta = std::fs::metadata(&file).ok()?;
    if !meta.is_file() || meta.permissions().mode() & 0o077 != 0 {
        return None;
    }
    let text = std::fs::read_to_string(&file).ok()?;
    let host = if settings.host.starts_with('/') { "localhost" } else { &settings.host };
    in_passfile(&text, &[host, &settings.port.to_string(), &settings.maintenance_database, &settings.user])
}

/// The password of the first line that fits host, port, database and user.
fn in_passfile(text: &str, wanted: &[&str; 4]) -> Option<Secret> {
    let fields = |line: &str| {
        let mut fields = vec![String::new()];
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => fields.last_mut()?.push(chars.next()?),
                ':' if fields.len() < 5 => fields.push(String::new()),
                c => fields.last_mut()?.push(c),
            }
        }
        Some(fields)
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(fields).find_map(|fields| {
        let fits = fields.len() == 5 && fields.iter().zip(wanted).all(|(have, want)| have == "*" || have == want);
        fits.then(|| Secret::new(fields[4].clone()))
    })
}

/// A name as SQL takes it.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_file_is_read_as_libpq_reads_it() {
        let text = "# c\nother:5432:*:u:no\ndb:5432:a\\:b:u:no\ndb:*:*:u:s\\:e\\\\c:r et\n*:*:*:*:last\n";
        let find = |host: &str, user: &str| in_passfile(text, &[host, "5432", "postgres", user]).unwrap();
        assert_eq!(find("db", "u").expose(), "s:e\\c:r et");
        assert_eq!(find("x", "y").expose(), "last");
        assert!(in_passfile("short:line", &["short", "line", "", ""]).is_none());
    }

    #[test]
    fn what_may_work_later_is_said_to_be_retryable() {
        for (code, kind) in
            [("40001", Kind::Unreachable), ("57P01", Kind::Unreachable), ("42501", Kind::Preflight), ("42601", Kind::Failed)]
        {
            assert_eq!(kind_of(&SqlState::from_code(code)), kind, "{code}");
        }
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
