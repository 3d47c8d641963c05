//! The pages over a real socket: a server on a free port and a client that says exactly what it is told to.

mod deploy;
mod exposition;
mod figures;
mod hostile;
mod judgement;
mod pages;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::model::TestClock;
use crate::ops::board::testing::{self, NOW, at};

pub const TOKEN: &str = "t0ken-0123456789abcdef";

/// A server whose board a test may change.
pub struct Served {
    pub at: SocketAddr,
    board: Arc<Mutex<Board>>,
    pub clock: Arc<TestClock>,
    _stop: DropGuard,
}

/// What came back.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Served {
    pub async fn new(token: Option<&str>, limits: Limits) -> Served {
        Self::with(token, limits, &[]).await
    }

    pub async fn with(token: Option<&str>, limits: Limits, secrets: &[Secret]) -> Served {
        let board = Arc::new(Mutex::new(testing::full()));
        let shown = board.clone();
        let clock = Arc::new(TestClock::at(at(NOW)));
        let boards: Boards = Arc::new(move || Arc::new(shown.lock().unwrap().clone()));
        let web = Web::new(boards, token.map(Secret::new)).clock(clock.clone()).hosts(["web-1".into()]).secrets(secrets).limits(limits);
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        tokio::spawn(serve(listener, web, cancel.clone()));
        Served { at, board, clock, _stop: cancel.drop_guard() }
    }

    pub fn change(&self, change: impl FnOnce(&mut Board)) {
        let mut board = self.board.lock().unwrap();
        change(&mut board);
        let now = board.at;
        board.judge(now);
    }

    pub async fn get(&self, path: &str) -> Got {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    pub async fn get_with(&self, path: &str, token: &str) -> Got {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")).await
    }

    /// Sends these bytes and reads to the end.
    pub async fn ask(&self, request: &str) -> Got {
        self.try_ask(request).await.unwrap()
    }

    /// The same; `None`: nothing came back.
    pub async fn try_ask(&self, request: &str) -> Option<Got> {
        let mut stream = TcpStream::connect(self.at).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut got = Vec::new();
        // A server that does not hang up fails its test instead of stopping all of them.
        tokio::time::timeout(std::time::Duration::from_secs(60), stream.read_to_end(&mut got)).await.ok()?.ok();
        let text = String::from_utf8(got).unwrap();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Got { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }
}
