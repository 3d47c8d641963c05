//! Our own connections to the server.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, NoTls, Socket, config};

use crate::config::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::model::Secret;
use crate::reach::{Link, Reach};
use crate::source::postgres::pooler::{self, Between};
use crate::source::postgres::session;
use crate::source::postgres::settings::{ChannelBinding, PostgresSettings, SslMode};
use crate::source::postgres::tls::{self, TlsFiles};

/// A connection; dropped, it is closed.
pub(super) struct Connection {
    client: Client,
    /// A pooler that keeps sessions whole stands between: it takes no settings at the start of a session.
    pub(super) pooled: bool,
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

/// What a reach may take before the server is even asked: an ssh login over a jump host, say.
const IN_BETWEEN: Duration = Duration::from_secs(20);

fn doing(settings: &PostgresSettings, database: &str) -> String {
    format!("connect to PostgreSQL at {} as {}, database {}", settings.address(), settings.user, database.escape_debug())
}

/// Connects to a database of the server. The session has the settings of [`session`], whatever its role, its database and the server say.
pub(super) async fn connect(settings: &PostgresSettings, database: &str, application: &str) -> Result<Connection> {
    let what = doing(settings, database);
    let mut connection = log_in(settings, database, application).await?;
    // Before anything is set: a session that is shared keeps it for the next one.
    let between = pooler::look(&connection, log_in(settings, database, application)).await.map_err(|e| pg_error(&what, &e))?;
    if between == Between::Transactions {
        return Err(pooler::refusal(&connection, &what).await);
    }
    connection.pooled = between == Between::Sessions;
    connection.batch_execute(&session::setup()).await.map_err(|e| pg_error(what, &e))?;
    Ok(connection)
}

async fn log_in(settings: &PostgresSettings, database: &str, application: &str) -> Result<Connection> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&settings.host)
        .port(settings.port)
        .user(&settings.user)
        .dbname(database)
        .application_name(application)
        .channel_binding(match settings.channel_binding {
            ChannelBinding::Disable => config::ChannelBinding::Disable,
            ChannelBinding::Prefer => config::ChannelBinding::Prefer,
            ChannelBinding::Require => config::ChannelBinding::Require,
        })
        .connect_timeout(settings.connect_timeout)
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(60));
    if let Some(password) = password(settings) {
        config.password(password.expose());
    }
    let what = doing(settings, database);
    let in_between = if settings.reach.is_some() { IN_BETWEEN } else { Duration::ZERO };
    let limit = settings.connect_timeout + in_between + Duration::from_secs(1);
    if tls::wanted(settings) {
        let files = TlsFiles::of(settings, &Environment::system()).map_err(|e| e.context(&what))?;
        let connector = files.connector(settings.sslmode).map_err(|e| e.context(&what))?;
        let prefer = settings.sslmode == SslMode::Prefer;
        config.ssl_mode(if prefer { config::SslMode::Prefer } else { config::SslMode::Require });
        match open(settings, &config, connector, limit).await {
            Err(Failed::Said(first)) if prefer && without_tls_may_help(&first) => {
                tracing::debug!(error = %first, "trying PostgreSQL without TLS, as sslmode prefer has it");
                config.ssl_mode(config::SslMode::Disable);
                let second = open(settings, &config, NoTls, limit).await;
                second.map_err(|second| both(&what, &first, second.named(&what, limit)))
            }
            other => other.map_err(|e| e.named(&what, limit)),
        }
    } else {
        config.ssl_mode(config::SslMode::Disable);
        open(settings, &config, NoTls, limit).await.map_err(|e| e.named(&what, limit))
    }
}

/// Why there is no connection.
enum Failed {
    Silent,
    Said(tokio_postgres::Error),
    /// What stands in between says why.
    Way(Error),
}

impl Failed {
    fn named(self, what: &str, limit: Duration) -> Error {
        match self {
            Failed::Silent => Error::new(Kind::Unreachable, format!("{what}: no answer in {} s", limit.as_secs())),
            Failed::Said(error) => pg_error(what, &error),
            Failed::Way(error) => error.context(what),
        }
    }
}

/// One try. `limit` covers all of it: the configuration's own covers the TCP part only, and a server may accept and then say nothing.
async fn open<T>(settings: &PostgresSettings, config: &tokio_postgres::Config, tls: T, limit: Duration) -> Result<Connection, Failed>
where
    T: MakeTlsConnect<Socket> + MakeTlsConnect<Link>,
    <T as MakeTlsConnect<Socket>>::Stream: Send + 'static,
    <T as MakeTlsConnect<Link>>::Stream: Send + 'static,
    <T as MakeTlsConnect<Link>>::Error: std::fmt::Display,
    <<T as MakeTlsConnect<Link>>::TlsConnect as TlsConnect<Link>>::Future: Send,
{
    if let Some(reach) = &settings.reach {
        return through(reach.as_ref(), settings, config, tls, limit).await;
    }
    let (client, connection) = match tokio::time::timeout(limit, config.connect(tls)).await {
        Err(_) => return Err(Failed::Silent),
        Ok(result) => result.map_err(Failed::Said)?,
    };
    Ok(Connection { client, pooled: false, driver: drive(connection) })
}

/// The same over a connection of the reach's making.
async fn through<T>(
    reach: &dyn Reach,
    settings: &PostgresSettings,
    config: &tokio_postgres::Config,
    mut tls: T,
    limit: Duration,
) -> Result<Connection, Failed>
where
    T: MakeTlsConnect<Link>,
    T::Stream: Send + 'static,
    T::Error: std::fmt::Display,
{
    let connector = tls.make_tls_connect(&settings.host).map_err(|e| {
        Failed::Way(Error::new(Kind::Preflight, format!("'{}' cannot be the name in a certificate: {e}", settings.host.escape_debug())))
    })?;
    let link = reach.connect(&settings.host, settings.port).await.map_err(Failed::Way)?;
    let trouble = link.trouble();
    match tokio::time::timeout(limit, config.connect_raw(link, connector)).await {
        Ok(Ok((client, connection))) => Ok(Connection { client, pooled: false, driver: drive(connection) }),
        // The server itself answered.
        Ok(Err(error)) if error.as_db_error().is_some() => Err(Failed::Said(error)),
        Ok(Err(error)) if tls::is_tls(&error) => Err(Failed::Said(error)),
        Ok(Err(error)) => Err(Failed::Way(trouble.explain(pg_error("talk to it", &error)).await)),
        Err(_) => Err(trouble.error().await.map_or(Failed::Silent, Failed::Way)),
    }
}

fn drive<S, T>(connection: tokio_postgres::Connection<S, T>) -> tokio::task::JoinHandle<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a PostgreSQL connection ended");
        }
    })
}

/// libpq's `prefer` goes on without TLS when TLS fails or the server does not let this user in with it. A wrong password (28P01) is
/// wrong either way: a second try would only be counted against the user.
fn without_tls_may_help(error: &tokio_postgres::Error) -> bool {
    tls::is_tls(error) || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// Both tries failed: the first is what matters, and is said with the second where that says something else.
fn both(what: &str, first: &tokio_postgres::Error, second: Error) -> Error {
    let made = pg_error(what, first);
    let (ours, theirs) = (made.to_string(), second.to_string());
    if ours == theirs {
        return made;
    }
    let hint = made.hint_text().map(str::to_owned);
    let joined = Error::new(made.kind(), format!("{ours}; and without TLS{}", theirs.strip_prefix(what).unwrap_or(&theirs)));
    match hint {
        Some(hint) => joined.hint(hint),
        None => joined,
    }
}

/// An error of the server or the connection, in drctl's terms: what the server said, with its detail and hint.
pub(super) fn pg_error(what: impl Into<String>, error: &tokio_postgres::Error) -> Error {
    let what = what.into();
    let Some(db) = error.as_db_error() else {
        if let Some(explained) = tls::explain(&what, error) {
            return explained;
        }
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
    if let Some(hint) = pooler::hint(db.message()) {
        return made.hint(hint);
    }
    match (kind_of(db.code()), db.hint()) {
        (Kind::Preflight, _) if db.code().code().starts_with("28") => made.hint(refusal_hint(db.message())),
        (_, Some(hint)) => made.hint(hint.to_owned()),
        _ => made,
    }
}

/// What to do when the server refuses the user; its words (in English, else the last is said) tell when TLS is the reason.
fn refusal_hint(message: &str) -> &'static str {
    // "no pg_hba.conf entry for host …, no encryption"; before PostgreSQL 14 "…, SSL off".
    if message.ends_with("no encryption") || message.ends_with("SSL off") {
        "does the server demand TLS (hostssl in its pg_hba.conf)? set sslmode require, or better verify-full"
    } else if message.ends_with("SSL encryption") || message.ends_with("SSL on") {
        "check user and address in pg_hba.conf of the server; or does it let this user in without TLS only (hostnossl)?"
    } else if message.contains("requires a valid client certificate") {
        "name a client certificate in sslcert, and its key in sslkey"
    } else if message.starts_with("certificate authentication failed") {
        "the common name of the certificate in sslcert must be the user's name, or be mapped to it in pg_ident.conf of the server"
    } else {
        "check user, password and pg_hba.conf of the server"
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
