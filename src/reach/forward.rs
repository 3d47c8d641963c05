//! A way for local tools: an address of this machine that leads to the server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::{Context, Error, Kind, Result};
use crate::reach::{Reach, owner};

/// Buffer of each direction.
const BUFFER: usize = 128 * 1024;
/// How long the far side may take to close after the near side has.
const CLOSING: Duration = Duration::from_secs(5);

/// Leads a local tool to the server; ends when dropped.
///
/// Where the server has no address of its own on this machine it is a port of 127.0.0.1, each connection to which is carried by one of
/// [`Reach::connect`]. Only this user's processes may use it: all others are turned away before a byte is taken.
pub struct Way {
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
    trouble: Arc<Mutex<Option<Error>>>,
}

impl Way {
    /// Opens it. A server that does not answer is not noticed here.
    pub async fn open(reach: Arc<dyn Reach>, host: &str, port: u16) -> Result<Way> {
        let trouble: Arc<Mutex<Option<Error>>> = Arc::default();
        if let Some(address) = reach.address(host, port).await? {
            return Ok(Way { address, accepting: None, trouble });
        }
        let what = || format!("open a local port for {}", reach.name());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context(what)?;
        let address = listener.local_addr().context(what)?;
        let accepting = tokio::spawn(accept(listener, reach, host.to_owned(), port, trouble.clone()));
        Ok(Way { address, accepting: Some(accepting), trouble })
    }

    /// Where to connect to.
    pub fn address(&self) -> (IpAddr, u16) {
        (self.address.ip(), self.address.port())
    }

    /// Why the last connection that went wrong did; asking forgets it.
    pub fn trouble(&self) -> Option<Error> {
        self.trouble.lock().unwrap_or_else(|p| p.into_inner()).take()
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            // The connections live in a set of that task and end with it.
            accepting.abort();
        }
    }
}

async fn accept(listener: TcpListener, reach: Arc<dyn Reach>, host: String, port: u16, trouble: Arc<Mutex<Option<Error>>>) {
    let mut carried = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = carried.join_next() => continue,
        };
        let Ok((mut client, peer)) = accepted else {
            // Out of file descriptors, say: they may come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let own = listener.local_addr().ok();
        let (reach, host, trouble) = (reach.clone(), host.clone(), trouble.clone());
        carried.spawn(async move {
            let result = match own.filter(|own| is_ours(peer, *own)) {
                Some(_) => carry(&mut client, &*reach, &host, port).await,
                None => {
                    let note = format!("a process of another user tried the local port for {}; it was turned away", reach.name());
                    tracing::warn!("{note}");
                    return;
                }
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a carried connection ended");
                *trouble.lock().unwrap_or_else(|p| p.into_inner()) = Some(error);
            }
            // Not before the reason is noted: whoever sees the near side end asks for it at once.
            drop(client);
        });
    }
}

/// Whether a process of this user is at the other end. Not known counts as no, and so does one that has already closed its side: the
/// kernel no longer tells whose that was.
fn is_ours(peer: SocketAddr, own: SocketAddr) -> bool {
    let (SocketAddr::V4(peer), SocketAddr::V4(own)) = (peer, own) else { return false };
    // The kernel gives the table in pieces: one that changes meanwhile may lack a line that is there all the time.
    let look = || owner::owner(&std::fs::read_to_string("/proc/net/tcp").unwrap_or_default(), peer, own);
    (0..3).find_map(|_| look()) == Some(rustix::process::geteuid().as_raw())
}

/// Carries one connection to its end. The near side ends first when all is well.
async fn carry(client: &mut TcpStream, reach: &dyn Reach, host: &str, port: u16) -> Result<()> {
    let _ = client.set_nodelay(true);
    let link = reach.connect(host, port).await?;
    let trouble = link.trouble();
    let (near_in, mut near_out) = client.split();
    let (far_in, mut far_out) = tokio::io::split(link);
    let mut near_in = BufReader::with_capacity(BUFFER, near_in);
    let mut far_in = BufReader::with_capacity(BUFFER, far_in);
    let near_first = {
        let mut up = std::pin::pin!(tokio::io::copy_buf(&mut near_in, &mut far_out));
        let mut down = std::pin::pin!(tokio::io::copy_buf(&mut far_in, &mut near_out));
        tokio::select! {
            // Bytes that are there go to the client before the end of the other direction is looked at.
            biased;
            _ = &mut down => false,
            sent = &mut up => sent.is_ok(),
        }
    };
    if near_first {
        let _ = far_out.shutdown().await;
        let _ = tokio::time::timeout(CLOSING, tokio::io::copy_buf(&mut far_in, &mut near_out)).await;
        return Ok(());
    }
    drop((far_in, far_out));
    match trouble.error().await {
        Some(error) => Err(error),
        None => Err(Error::new(Kind::Unreachable, format!("the server, or {} on the way to it, ended the connection", reach.name()))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command as Std, Stdio};

    use async_trait::async_trait;

    use super::*;
    use crate::process::Command;
    use crate::reach::{Judge, Link};

    /// Carried by a program of our own making.
    #[derive(Debug)]
    struct By(&'static str);

    #[async_trait]
    impl Reach for By {
        fn name(&self) -> String {
            "a shell".into()
        }
        async fn connect(&self, host: &str, port: u16) -> Result<Link> {
            let command = Command::new("carry", "/bin/sh").arg("-c").arg(self.0).arg(host).arg(port.to_string());
            Link::child(self.name(), command, |_| Some((Kind::Preflight, "a hint"))).await
        }
        async fn address(&self, _: &str, _: u16) -> Result<Option<SocketAddr>> {
            Ok(None)
        }
        async fn shell(&self, _: &str, _: &str, _: &[String]) -> Result<Command> {
            Err(Error::failed("no"))
        }
        fn host_there<'a>(&self, host: &'a str) -> &'a str {
            host
        }
        fn judge(&self) -> Judge {
            |_| None
        }
    }

    async fn talk(way: &Way, text: &'static str) -> String {
        let address = way.address();
        let talking = move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let mut begin = [0; 1];
            stream.read_exact(&mut begin).unwrap();
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = String::from_utf8(begin.to_vec()).unwrap();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        tokio::task::spawn_blocking(talking).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_go_both_ways_and_ends_are_passed_on() {
        let way = Way::open(Arc::new(By(r#"echo "to $0 $1"; tr a-z A-Z"#)), "db", 5432).await.unwrap();
        assert_eq!(way.address().0, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(talk(&way, "hello").await, "to db 5432\nHELLO");
        assert_eq!(talk(&way, "again").await, "to db 5432\nAGAIN");
        assert!(way.trouble().is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_carrier_says_is_told() {
        let way = Way::open(Arc::new(By("echo 'no way' >&2; exit 1")), "db", 5432).await.unwrap();
        // A client that waits for the server, as PostgreSQL's do: it is the far side that ends.
        let address = way.address();
        let waiting = move || std::net::TcpStream::connect(address).unwrap().read(&mut [0; 1]).unwrap_or(0);
        assert_eq!(tokio::task::spawn_blocking(waiting).await.unwrap(), 0);
        // Known by then: whoever sees the end asks at once.
        let error = way.trouble().unwrap();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Preflight, "a shell: no way"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_user_is_turned_away() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED another_user_is_turned_away: only root can be another user");
            return;
        }
        let way = Way::open(Arc::new(By("echo secret; cat")), "db", 5432).await.unwrap();
        let (ip, port) = way.address();
        let script = format!("exec 3<>/dev/tcp/{ip}/{port}; head -n 1 <&3");
        let as_user = move |user: &str| {
            let output = Std::new("setpriv")
                .args(["--reuid", user, "--regid", user, "--clear-groups", "timeout", "60", "bash", "-c", &script])
                .stdin(Stdio::null())
                .output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let (ours, others) = tokio::task::spawn_blocking(move || (as_user("0"), as_user("65534"))).await.unwrap();
        assert_eq!((ours.as_str(), others.as_str()), ("secret\n", ""));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_ends_when_dropped() {
        let way = Way::open(Arc::new(By("cat")), "db", 5432).await.unwrap();
        let (ip, port) = way.address();
        let mut open = std::net::TcpStream::connect((ip, port)).unwrap();
        open.write_all(b"x").unwrap();
        let mut byte = [0];
        let read = tokio::task::spawn_blocking(move || (open.read_exact(&mut byte).map(|()| byte), open)).await.unwrap();
        assert_eq!(read.0.unwrap(), *b"x");
        drop(way);
        let mut open = read.1;
        let end = tokio::task::spawn_blocking(move || open.read(&mut [0; 1]).unwrap_or(0)).await.unwrap();
        assert_eq!(end, 0);
    }
}
