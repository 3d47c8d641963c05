//! A reverse proxy before an S3 server that spoils what its rules say (PX in FAULTS).
//!
//! It speaks just enough HTTP/1.1 for the SDK: heads, bodies of a known length or chunked. Requests pass on as they came, so signatures hold.
//! Include it with `#[path = "support/s3_proxy.rs"] mod s3_proxy;`.

#![allow(dead_code, reason = "every test file uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answered with this status and code by the proxy; the server sees nothing.
    Answer(u16, &'static str),
    /// Like it, with further header lines.
    AnswerWith(u16, &'static str, String),
    /// Answered with this body and status 200; the server sees nothing.
    Body(String),
    /// Done by the server, then answered with status 200 and this error in the body.
    DoneButError(&'static str),
    /// The connection is cut after so many bytes of the request's body; the server sees nothing.
    CutUp(usize),
    /// Done by the server; the connection is cut instead of an answer.
    Swallow,
    /// A bit of this byte of the request's body is turned over.
    FlipUp(usize),
    /// A bit of this byte of the answer's body is turned over.
    FlipDown(usize),
    /// The answer's body has so many bytes only, and its head says so.
    Shorten(usize),
    /// The answer breaks off after so many bytes of its body.
    CutDown(usize),
    /// Nothing is ever answered; the server sees nothing.
    Hold,
    /// The head and so many bytes of the answer come, then nothing more.
    HoldAfter(usize),
    /// The listing lacks what has this in its key.
    Omit(&'static str),
    /// Done later.
    Late(Duration),
}

/// Which of the fitting calls, from 1.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Call(usize),
    First(usize),
    From(usize),
    Every(usize),
    Always,
}

struct Rule {
    method: &'static str,
    part: &'static str,
    when: When,
    fault: Fault,
    seen: usize,
}

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    calls: Vec<(String, String)>,
    dates: Vec<String>,
}

/// The proxy; it ends with the runtime that it was started on.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    script: Arc<Mutex<Script>>,
}

impl Proxy {
    pub async fn before(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy { port: listener.local_addr().unwrap().port(), script: Arc::default() };
        let script = proxy.script.clone();
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let script = script.clone();
                tokio::spawn(async move {
                    let _ = serve(client, server, script).await;
                });
            }
        });
        proxy
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests by `method` (`*` is any) whose path or query holds `part`; the first rule that fits is applied.
    pub fn rule(&self, method: &'static str, part: &'static str, when: When, fault: Fault) {
        self.script.lock().unwrap().rules.push(Rule { method, part, when, fault, seen: 0 });
    }

    pub fn clear(&self) {
        self.script.lock().unwrap().rules.clear();
    }

    /// How many requests by `method` whose path or query holds `part` came so far.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.script.lock().unwrap().calls.iter().filter(|(m, target)| m == method && target.contains(part)).count()
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<(String, String)> {
        self.script.lock().unwrap().calls.clone()
    }

    /// `x-amz-date` of every request.
    pub fn dates(&self) -> Vec<String> {
        self.script.lock().unwrap().dates.clone()
    }
}

impl Script {
    fn next(&mut self, method: &str, target: &str, date: &str) -> Option<Fault> {
        self.calls.push((method.to_owned(), target.to_owned()));
        self.dates.push(date.to_owned());
        let mut found = None;
        for rule in &mut self.rules {
            if (rule.method != method && rule.method != "*") || !target.contains(rule.part) {
                continue;
            }
            rule.seen += 1;
            let holds = match rule.when {
                When::Call(n) => rule.seen == n,
                When::First(n) => rule.seen <= n,
                When::From(n) => rule.seen >= n,
                When::Every(n) => rule.seen % n == 0,
                When::Always => true,
            };
            if holds && found.is_none() {
                found = Some(rule.fault.clone());
            }
        }
        found
    }
}

/// The lines of a head without the empty one at its end; none when the connection ended.
async fn head(from: &mut BufReader<TcpStream>) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).await? == 0 {
            return Ok(Vec::new());
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

fn value<'h>(lines: &'h [String], name: &str) -> Option<&'h str> {
    lines.iter().skip(1).find_map(|l| {
        let (n, v) = l.split_once(':')?;
        n.eq_ignore_ascii_case(name).then_some(v.trim())
    })
}

async fn body(from: &mut BufReader<TcpStream>, lines: &[String], none: bool) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if none {
        return Ok(bytes);
    }
    if value(lines, "transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        loop {
            let mut line = String::new();
            from.read_line(&mut line).await?;
            let length = usize::from_str_radix(line.trim().split(';').next().unwrap(), 16).map_err(std::io::Error::other)?;
            let start = bytes.len();
            bytes.resize(start + length, 0);
            from.read_exact(&mut bytes[start..]).await?;
            line.clear();
            from.read_line(&mut line).await?;
            if length == 0 {
                return Ok(bytes);
            }
        }
    }
    let length = value(lines, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    bytes.resize(length, 0);
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn error_body(code: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>by the proxy</Message><RequestId>PX</RequestId></Error>"
    )
}

async fn answer(to: &mut BufReader<TcpStream>, head_only: bool, status: u16, headers: &str, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    to.write_all(head.as_bytes()).await?;
    if !head_only {
        to.write_all(body.as_bytes()).await?;
    }
    to.flush().await
}

async fn serve(client: TcpStream, server: u16, script: Arc<Mutex<Script>>) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let request = head(&mut client).await?;
        if request.is_empty() {
            return Ok(());
        }
        let mut words = request[0].split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let is_head = method == "HEAD";
        let date = value(&request, "x-amz-date").unwrap_or_default().to_owned();
        let fault = script.lock().unwrap().next(&method, &target, &date);
        if let Some(Fault::CutUp(bytes)) = fault {
            let mut some = vec![0; bytes];
            let _ = client.read_exact(&mut some).await;
            return Ok(());
        }
        if value(&request, "expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut sent = body(&mut client, &request, false).await?;
        match &fault {
            Some(Fault::Answer(status, code)) => {
                answer(&mut client, is_head, *status, "", &error_body(code)).await?;
                continue;
            }
            Some(Fault::AnswerWith(status, code, headers)) => {
                answer(&mut client, is_head, *status, headers, &error_body(code)).await?;
                continue;
            }
            Some(Fault::Body(text)) => {
                answer(&mut client, is_head, 200, "", text).await?;
                continue;
            }
            Some(Fault::Hold) => std::future::pending().await,
            Some(Fault::Late(pause)) => tokio::time::sleep(*pause).await,
            Some(Fault::FlipUp(at)) if *at < sent.len() => sent[*at] ^= 4,
            _ => {}
        }
        let (lines, mut got) = forward(server, &request, &sent, is_head).await?;
        match &fault {
            Some(Fault::Swallow) => return Ok(()),
            Some(Fault::DoneButError(code)) => {
                answer(&mut client, is_head, 200, "", &error_body(code)).await?;
                continue;
            }
            Some(Fault::FlipDown(at)) if *at < got.len() => got[*at] ^= 4,
            Some(Fault::Shorten(bytes)) => got.truncate(*bytes),
            Some(Fault::Omit(part)) => got = omit(&got, part),
            _ => {}
        }
        let length = if is_head { value(&lines, "content-length").unwrap_or("0").to_owned() } else { got.len().to_string() };
        let mut out = lines[0].clone() + "\r\n";
        for line in &lines[1..] {
            let name = line.split(':').next().unwrap().to_ascii_lowercase();
            if !matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") {
                out += line;
                out += "\r\n";
            }
        }
        client.write_all(format!("{out}content-length: {length}\r\n\r\n").as_bytes()).await?;
        match fault {
            Some(Fault::CutDown(bytes)) if !is_head => {
                client.write_all(&got[..bytes.min(got.len())]).await?;
                client.flush().await?;
                return Ok(());
            }
            Some(Fault::HoldAfter(bytes)) => {
                client.write_all(&got[..bytes.min(got.len())]).await?;
                client.flush().await?;
                std::future::pending::<()>().await;
            }
            _ => client.write_all(&got).await?,
        }
        client.flush().await?;
    }
}

async fn forward(server: u16, request: &[String], sent: &[u8], is_head: bool) -> std::io::Result<(Vec<String>, Vec<u8>)> {
    let mut upstream = BufReader::new(TcpStream::connect(("127.0.0.1", server)).await?);
    let mut out = String::new();
    for line in request {
        if !line.to_ascii_lowercase().starts_with("expect:") {
            out += line;
            out += "\r\n";
        }
    }
    upstream.write_all(format!("{out}\r\n").as_bytes()).await?;
    upstream.write_all(sent).await?;
    upstream.flush().await?;
    let lines = head(&mut upstream).await?;
    if lines.is_empty() {
        return Err(std::io::Error::other("the server gave no answer"));
    }
    let empty = is_head || lines[0].contains(" 204") || lines[0].contains(" 304");
    let got = body(&mut upstream, &lines, empty).await?;
    Ok((lines, got))
}

/// A listing without the entries whose key holds `part`.
fn omit(listing: &[u8], part: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(listing).into_owned();
    let mut out = String::new();
    for (i, entry) in text.split("<Contents>").enumerate() {
        let (inside, rest) = entry.split_once("</Contents>").unwrap_or((entry, ""));
        match i {
            0 => out += entry,
            _ if inside.contains(part) => out += rest,
            _ => out += &format!("<Contents>{inside}</Contents>{rest}"),
        }
    }
    out.into_bytes()
}
