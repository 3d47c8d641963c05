//! The agent's pages: health, metrics, a read-only JSON API. Nothing here changes anything, or asks a store or a database.
//!
//! ```text
//!  agent ──Board──▶ health · metrics ──▶ answer (Host, method, path, token) ──▶ server (limits) ──▶ probes, Prometheus, dashboard
//!                             └────────▶ textfile
//! ```
//! Every page is a rendering of one [`Board`]; [`answer`] is a pure function of it and of a request.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};

use crate::error::{Context, Kind, Result};
use crate::model::{Clock, Secret, SystemClock};
use crate::notify::Cleaner;
use crate::ops::board::Board;

mod answer;
mod api;
pub mod health;
mod host;
pub mod metrics;
mod server;
pub mod textfile;

#[cfg(test)]
mod tests;

pub use server::{Limits, serve};

/// Gives the newest board. It is called for every request but `/health/live`, on the server's own threads: it must not block.
pub type Boards = Arc<dyn Fn() -> Arc<Board> + Send + Sync>;

/// What the pages are made from.
#[derive(Clone)]
pub struct Web {
    boards: Boards,
    clock: Arc<dyn Clock>,
    token: Option<Secret>,
    hosts: Vec<String>,
    cleaner: Cleaner,
    limits: Limits,
}

impl Web {
    /// Pages of these boards; without `token` there is no JSON API, and an empty one opens it to nobody.
    pub fn new(boards: Boards, token: Option<Secret>) -> Web {
        let cleaner = Cleaner::new(token.as_slice());
        Web { boards, clock: Arc::new(SystemClock), token, hosts: Vec::new(), cleaner, limits: Limits::default() }
    }

    /// Another clock.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Web {
        Web { clock, ..self }
    }

    /// Names besides `localhost` and addresses under which requests are taken: this machine's own name, if it is to be reached by it.
    pub fn hosts(self, hosts: impl IntoIterator<Item = String>) -> Web {
        Web { hosts: hosts.into_iter().filter(|host| !host.is_empty()).collect(), ..self }
    }

    /// Secrets that no reply of the JSON API may hold, whatever a server or a tool said; what looks like one is taken out anyway.
    pub fn secrets(self, secrets: &[Secret]) -> Web {
        let all: Vec<Secret> = secrets.iter().chain(&self.token).cloned().collect();
        Web { cleaner: Cleaner::new(&all), ..self }
    }

    /// Other limits.
    pub fn limits(self, limits: Limits) -> Web {
        Web { limits, ..self }
    }
}

/// Connections that may wait to be taken. With the usual 128 a flood makes every other client wait a second or more for its second try.
const BACKLOG: u32 = 1024;

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Listens at an address; needs a runtime. [`Kind::Exists`]: something else does.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    let bound = bind(address);
    let in_use = bound.as_ref().err().is_some_and(|e| e.kind() == std::io::ErrorKind::AddrInUse);
    bound.context(|| format!("listen on {address}")).map_err(|error| match in_use {
        true => error.with_kind(Kind::Exists).hint("another agent? Give this one another address: agent.listen in drctl.yaml"),
        false => error.hint_or("agent.listen in drctl.yaml says where; listen: none for no pages"),
    })
}
