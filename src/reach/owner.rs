//! Whose the other end of a loopback connection is.
//!
//! A forwarded port leads past the server's own idea of who may connect: an official PostgreSQL image trusts whoever comes from inside the
//! container. So only processes of drctl's own user may use one. The kernel tells the owner of every socket in `/proc/net/tcp`
//! (Documentation/networking/proc_net_tcp.rst).

use std::net::SocketAddrV4;

/// State of a connection that is open on both sides, in hexadecimal.
const ESTABLISHED: &str = "01";

/// The user that owns the socket at `peer` which is connected to `own`, by the text of `/proc/net/tcp`. `None`: there is no such open one.
pub(super) fn owner(table: &str, peer: SocketAddrV4, own: SocketAddrV4) -> Option<u32> {
    let (peer, own) = (hex(peer), hex(own));
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let fits = fields.next()? == peer && fields.next()? == own && fields.next()? == ESTABLISHED;
        // Queues, timer, retransmissions, then the user.
        if fits { fields.nth(3)?.parse().ok() } else { None }
    })
}

/// Address and port as the table has them: the four bytes as a number of this machine, then the port.
fn hex(address: SocketAddrV4) -> String {
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_owner_of_a_real_connection_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        let client = TcpStream::connect(own).unwrap();
        let _server = listener.accept().unwrap();
        let (std::net::SocketAddr::V4(own), std::net::SocketAddr::V4(peer)) = (own, client.local_addr().unwrap()) else { panic!() };
        let table = || std::fs::read_to_string("/proc/net/tcp").unwrap();
        assert_eq!(owner(&table(), peer, own), Some(rustix::process::geteuid().as_raw()));
        assert_eq!(owner(&table(), own, own), None);
        drop(client);
        // A child of another test may hold it still, between fork and exec.
        let begun = std::time::Instant::now();
        while owner(&table(), peer, own).is_some() {
            assert!(begun.elapsed().as_secs() < 60, "a closed one belongs to nobody");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for bad in ["", "head\n", "head\n0:", "head\n 0: 0100007F:0001"] {
            assert_eq!(owner(bad, peer, own), None);
        }
    }
}
