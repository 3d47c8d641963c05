//! How a server is got at that does not listen where drctl runs: in a container of Docker, or behind ssh.
//!
//! Two ways, both by the user's own programs, so that their configuration (contexts of `docker`, `~/.ssh/config`, agents, jump hosts)
//! holds: [`Reach::connect`] gives a connection, for drctl's own clients and, by a [`Way`], for local tools; [`there::command`] runs a tool
//! there. What a source makes of it is its own matter. No reach is direct: a source without one connects by itself.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as Waker, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::error::{Error, Kind, Result};
use crate::process::{Command, Duplex, Said};

mod docker;
mod engine;
mod forward;
mod owner;
mod ssh;
pub mod there;

pub use docker::Docker;
pub use forward::Way;
pub use ssh::Ssh;

/// How long a program that carries a connection may take to say why it ended.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A way to a server.
#[async_trait]
pub trait Reach: fmt::Debug + Send + Sync {
    /// For people: `docker db`, `ssh backup@bastion`.
    fn name(&self) -> String;

    /// A connection to a port as it is seen from there. `host` is a name there; a container is itself the host.
    ///
    /// That the way works is known only when the server answers: until then [`Link::trouble`] may tell why it does not.
    async fn connect(&self, host: &str, port: u16) -> Result<Link>;

    /// Where a local program can connect to by itself and meet the same server for sure; `None`: only through [`Reach::connect`].
    async fn address(&self, host: &str, port: u16) -> Result<Option<std::net::SocketAddr>>;

    /// `sh -c SCRIPT sh ARGS…` there, its standard streams being the command's. Arguments are seen by every user of both machines.
    async fn shell(&self, what: &str, script: &str, args: &[String]) -> Result<Command>;

    /// The name by which a tool there finds the server.
    fn host_there<'a>(&self, host: &'a str) -> &'a str;

    /// What sort of failure the last words of the program in between tell of, and what to do.
    fn judge(&self) -> Judge;
}

/// From words to what sort of failure they tell of, and what to do.
pub type Judge = fn(words: &str) -> Option<(Kind, &'static str)>;

/// One connection; dropped, it is closed and what carried it ends.
pub struct Link {
    carrier: Carrier,
    trouble: Trouble,
}

enum Carrier {
    Tcp(TcpStream),
    Child(Duplex),
}

impl Link {
    fn tcp(name: String, stream: TcpStream, judge: Judge) -> Link {
        Link { carrier: Carrier::Tcp(stream), trouble: Trouble { name, said: None, judge } }
    }

    async fn child(name: String, command: Command, judge: Judge) -> Result<Link> {
        let child = command.duplex().await?;
        let said = Some(child.said());
        Ok(Link { carrier: Carrier::Child(child), trouble: Trouble { name, said, judge } })
    }

    /// Why it ended, to be asked when it has.
    pub fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }
}

/// What the program that carries a [`Link`] said.
#[derive(Clone)]
pub struct Trouble {
    name: String,
    said: Option<Said>,
    judge: Judge,
}

impl Trouble {
    /// An error with its words, once the connection has ended; `None` when it said nothing.
    pub async fn error(&self) -> Option<Error> {
        let lines = self.said.as_ref()?.lines(LAST_WORDS).await;
        (!lines.is_empty()).then(|| judged(&self.name, &lines, self.judge))
    }

    /// Why a connection failed for which `error` is all that its client knows: what was said explains it, or stands beside it.
    pub async fn explain(&self, error: Error) -> Error {
        match self.error().await {
            None => error,
            Some(own) if own.hint_text().is_some() => own,
            Some(own) => Error::new(own.kind(), format!("{error} ({own})")).hint_of(&error),
        }
    }
}

/// The words of a program in between as an error.
fn judged(name: &str, lines: &[String], judge: Judge) -> Error {
    let words = lines.join("; ");
    match judge(&words) {
        Some((kind, hint)) => Error::new(kind, format!("{name}: {words}")).hint(hint),
        None => Error::new(Kind::Unreachable, format!("{name}: {words}")),
    }
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(waker, buffer),
            Carrier::Child(child) => Pin::new(child).poll_read(waker, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(waker, bytes),
            Carrier::Child(child) => Pin::new(child).poll_write(waker, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(waker),
            Carrier::Child(child) => Pin::new(child).poll_flush(waker),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(waker),
            Carrier::Child(child) => Pin::new(child).poll_shutdown(waker),
        }
    }
}
