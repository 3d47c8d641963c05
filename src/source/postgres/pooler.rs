//! Poolers between drctl and PostgreSQL: PgBouncer and its kind (FAULTS 103).
//!
//! One that gives every transaction another session of the server (`pool_mode = transaction`) cannot be dumped or loaded through: what pg_dump
//! and pg_restore set for their session, an empty search_path first of all, would be met by the application instead. So it is found before
//! anything is set. One that keeps sessions whole (`pool_mode = session`) will do, but takes no settings in the startup packet.
//!
//! A pooler gives its clients keys of its own for cancelling, so that a key does not name the process that answers. That alone may be any
//! proxy; whether sessions are shared is seen from two connections.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::{Error, Kind, Result};

/// How long a session may be waited for that a pooler has not got to give.
const PATIENCE: Duration = Duration::from_secs(5);

/// What stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Between {
    /// The server answers itself.
    Nothing,
    /// Something that keeps sessions whole, as far as can be seen.
    Sessions,
    /// Sessions are shared: one for each transaction, or each statement.
    Transactions,
}

/// The length of a request to cancel, and of a request for TLS; big-endian, as the protocol has them.
const CANCEL_BYTES: usize = 16;
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The process that the key for cancelling names. The client shows its key to nobody but the server, so that we play its server.
async fn key_process(client: &Client) -> Option<i32> {
    let (ours, theirs) = tokio::io::duplex(64);
    let token = client.cancel_token();
    let reading = async move {
        let (mut ours, mut head, mut cancel) = (ours, [0; 8], [0; CANCEL_BYTES]);
        ours.read_exact(&mut head).await.ok()?;
        if head == TLS_REQUEST {
            ours.write_all(b"S").await.ok()?;
            ours.read_exact(&mut head).await.ok()?;
        }
        cancel[..8].copy_from_slice(&head);
        ours.read_exact(&mut cancel[8..]).await.ok()?;
        Some(i32::from_be_bytes([cancel[8], cancel[9], cancel[10], cancel[11]]))
    };
    let (process, _) = tokio::join!(reading, token.cancel_query_raw(theirs, Unsealed));
    process
}

/// Stands for TLS towards the server that is played.
struct Unsealed;

struct Plain(DuplexStream);

impl TlsConnect<DuplexStream> for Unsealed {
    type Stream = Plain;
    type Error = io::Error;
    type Future = Ready<io::Result<Plain>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        ready(Ok(Plain(stream)))
    }
}

impl TlsStream for Plain {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Fields of the first row of an answer; asked without a prepared statement, which a shared session would not find again.
async fn row<const N: usize>(client: &Client, sql: &str) -> Result<[Option<String>; N], tokio_postgres::Error> {
    let answer = client.simple_query(sql).await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(std::array::from_fn(|at| row.and_then(|row| row.try_get(at).ok().flatten()).map(str::to_owned)))
}

async fn process(client: &Client) -> Result<Option<i32>, tokio_postgres::Error> {
    let [pid] = row::<1>(client, "SELECT pg_catalog.pg_backend_pid()").await?;
    Ok(pid.and_then(|pid| pid.parse().ok()))
}

/// Looks at a connection on which nothing was set yet. `another` makes a second one like it.
pub(super) async fn look<C: std::ops::Deref<Target = Client>>(
    client: &Client,
    another: impl Future<Output = Result<C>>,
) -> Result<Between, tokio_postgres::Error> {
    let first = process(client).await?;
    if first.is_none() || key_process(client).await == first {
        return Ok(Between::Nothing);
    }
    // In a pool of whole sessions there may be no second one to be had: that says nothing.
    let Ok(Ok(second)) = tokio::time::timeout(PATIENCE, another).await else { return Ok(Between::Sessions) };
    let held = async {
        second.batch_execute("BEGIN").await?;
        process(&second).await
    };
    match tokio::time::timeout(PATIENCE, held).await {
        Err(_) => return Ok(Between::Sessions),
        // As a pool of statements answers to BEGIN.
        Ok(Err(_)) => return Ok(Between::Transactions),
        Ok(Ok(other)) if other == first => return Ok(Between::Transactions),
        Ok(Ok(_)) => {}
    }
    // With the second inside a transaction, a first that owned its session still has it.
    let again = tokio::time::timeout(PATIENCE, process(client)).await;
    let _ = tokio::time::timeout(PATIENCE, second.batch_execute("ROLLBACK")).await;
    match again {
        Ok(Ok(again)) if again == first => Ok(Between::Sessions),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(Between::Transactions),
    }
}

/// Why a pooler that shares sessions will not do, with the server's own address as the pooler sees it.
pub(super) async fn refusal(client: &Client, what: &str) -> Error {
    let sql = "SELECT pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.current_setting('port')";
    let itself = match row::<2>(client, sql).await {
        Ok([Some(host), Some(port)]) => format!("host {host}, port {port} as the pooler sees it"),
        Ok([None, Some(port)]) => format!("port {port}, on the pooler's own machine"),
        _ => "its [databases] section names it".to_owned(),
    };
    Error::new(
        Kind::Preflight,
        format!(
            "{what}: a connection pooler answers (PgBouncer or its kind) that gives each transaction another session (pool_mode = transaction or statement); \
             pg_dump and pg_restore need one session to themselves"
        ),
    )
    .hint(format!(
        "name PostgreSQL itself as the source's host and port ({itself}); or give drctl a pool of whole sessions: in pgbouncer.ini `* = host=… pool_mode=session`"
    ))
}

/// What to do about something that only a pooler says.
pub(super) fn hint(message: &str) -> Option<&'static str> {
    let said = |words: &str| message.starts_with(words);
    if said("unsupported startup parameter") || said("unsupported options startup parameter") {
        return Some(
            "PgBouncer stands between: name PostgreSQL itself as host and port, or set in pgbouncer.ini ignore_startup_parameters = options,extra_float_digits",
        );
    }
    if said("no such database: ") {
        return Some(
            "PgBouncer stands between and knows no such database: name PostgreSQL itself as host and port, or add `* = host=… pool_mode=session` to [databases] in pgbouncer.ini",
        );
    }
    const OTHERS: [&str; 6] = [
        "bouncer config error",
        "pgbouncer cannot connect to server",
        "query_wait_timeout",
        "server login failed",
        "server login has been failing",
        "client_login_timeout",
    ];
    OTHERS.iter().any(|words| said(words)).then_some("PgBouncer stands between: see its log, or name PostgreSQL itself as host and port")
}
