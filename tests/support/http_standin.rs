//! A stand-in for Slack and other receivers: answers by a script, keeps what it was sent.
//!
//! Include it with `#[path = "support/http_standin.rs"] mod http_standin;`.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[allow(clippy::duplicate_mod, reason = "helpers that need a port share no parent")]
#[path = "ports.rs"]
mod ports;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ports::free_port;
use serde_json::Value;

/// What one request gets.
#[derive(Clone, Debug)]
pub enum Act {
    /// Status, headers, body.
    Say(u16, Vec<(String, String)>, String),
    /// The usual answer after so long.
    Slow(Duration),
    /// No answer at all, until the other side has enough.
    Hang,
    /// The connection is closed.
    Close,
}

impl Act {
    pub fn status(status: u16) -> Act {
        Act::Say(status, vec![], "no".into())
    }

    pub fn later(status: u16, retry_after: &str) -> Act {
        Act::Say(status, vec![("Retry-After".into(), retry_after.into())], "slow down".into())
    }

    /// Slack's API: status 200 and a word.
    pub fn word(word: &str) -> Act {
        Act::Say(200, vec![], format!("{{\"ok\":false,\"error\":\"{word}\"}}"))
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Got {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Whether it was answered with a yes.
    pub taken: bool,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

#[derive(Default)]
struct Inner {
    script: Mutex<VecDeque<Act>>,
    /// Done when the script is at its end; `None`: the usual answer.
    always: Mutex<Option<Act>>,
    got: Mutex<Vec<Got>>,
    stop: AtomicBool,
    stamps: AtomicU64,
}

/// The server; it ends when this is dropped.
pub struct Standin {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Standin {
    pub fn new() -> Standin {
        // Not any port: nobody else is given it where this one ends and another begins at the same address.
        Standin::at(Standin::nobody())
    }

    /// At an address where one was before.
    pub fn at(address: SocketAddr) -> Standin {
        let begun = Instant::now();
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                // A child that was forked while the one before listened has its socket until it becomes its program.
                Err(e) if e.kind() == ErrorKind::AddrInUse && begun.elapsed() < Duration::from_secs(60) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(e) => panic!("listen at {address}: {e}"),
            }
        };
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner::default());
        let shared = inner.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shared) = (stream, shared.clone()) else { continue };
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Standin { address, inner, thread: Some(thread) }
    }

    /// An address where nobody listens.
    pub fn nobody() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], free_port()))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next requests get these.
    pub fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.inner.script.lock().unwrap().extend(acts);
    }

    /// All requests behind the script get this.
    pub fn always(&self, act: Option<Act>) {
        *self.inner.always.lock().unwrap() = act;
    }

    pub fn got(&self) -> Vec<Got> {
        self.inner.got.lock().unwrap().clone()
    }

    /// Requests that were answered with a yes.
    pub fn taken(&self) -> Vec<Got> {
        self.got().into_iter().filter(|got| got.taken).collect()
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, inner: &Inner) {
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let Some(mut got) = read(&stream) else { return };
    let act = inner.script.lock().unwrap().pop_front().or_else(|| inner.always.lock().unwrap().clone());
    let (status, headers, body) = match act {
        None => usual(&got, inner),
        Some(Act::Say(status, headers, body)) => (status, headers, body),
        Some(Act::Slow(pause)) => {
            std::thread::sleep(pause);
            usual(&got, inner)
        }
        Some(Act::Hang) => {
            inner.got.lock().unwrap().push(got);
            let _ = stream.read(&mut [0; 1]);
            return;
        }
        Some(Act::Close) => {
            inner.got.lock().unwrap().push(got);
            return;
        }
    };
    got.taken = (200..300).contains(&status) && !body.contains("\"ok\":false") && !body.starts_with("OK (") && !body.starts_with('<');
    inner.got.lock().unwrap().push(got);
    let more: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n{body}", body.len());
    let _ = stream.write_all(text.as_bytes());
}

/// What Slack says when all is well.
fn usual(got: &Got, inner: &Inner) -> (u16, Vec<(String, String)>, String) {
    let body = if got.path.starts_with("/api/") {
        let stamp = inner.stamps.fetch_add(1, Ordering::SeqCst) + 1;
        format!("{{\"ok\":true,\"channel\":\"C0123\",\"ts\":\"1700000000.{stamp:06}\"}}")
    } else {
        "ok".to_owned()
    };
    (200, vec![], body)
}

fn read(stream: &TcpStream) -> Option<Got> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => break,
        }
    }
    let length = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length")).map_or(0, |(_, v)| v.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Got { method, path, headers, body: String::from_utf8(body).ok()?, taken: false })
}
