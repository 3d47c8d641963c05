//! Ports for the servers of tests.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Below the ports that Linux gives to outgoing connections (`net.ipv4.ip_local_port_range`, from 32768): one of those could take the port of
/// a server that is about to start, or that a test has stopped for a while.
const PORTS: std::ops::Range<u32> = 20_000..30_000;

/// A port where nobody listens. No other test on this machine is given it while this process lives, whether a server is there or not.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    for _ in PORTS {
        // Processes begin at places of their own, so that few ask for the same.
        let at = std::process::id().wrapping_mul(97).wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + at % (PORTS.end - PORTS.start);
        // A name without a file, which the kernel takes back when the process ends.
        let name = SocketAddr::from_abstract_name(format!("drctl-test-port-{port}")).unwrap();
        let Ok(claim) = UnixListener::bind_addr(&name) else { continue };
        let port = u16::try_from(port).unwrap();
        if !somebody_listens(port) {
            std::mem::forget(claim);
            return port;
        }
    }
    panic!("no port is free between {} and {}", PORTS.start, PORTS.end);
}

/// Asked by connecting, not by binding: a child that another thread forks meanwhile would hold the port after this has let it go.
fn somebody_listens(port: u16) -> bool {
    match TcpStream::connect_timeout(&std::net::SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(5)) {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock),
    }
}
