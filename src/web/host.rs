//! Which names requests are taken under. Pure.
//!
//! A page of any site can make a browser ask `http://its.name:9180/` after its name was pointed at 127.0.0.1 (DNS rebinding). The browser
//! then sends that name as `Host`, and nothing but the name tells that the request is not meant for us.

use std::net::IpAddr;

use hyper::header::HOST;
use hyper::http::request::Parts;

/// Why a request is not for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOurs {
    /// It names no host, or several.
    Malformed,
    /// It names another.
    Other,
}

/// Whether the host that a request names is an address, `localhost` or one of `names`.
pub fn check(request: &Parts, names: &[String]) -> Result<(), NotOurs> {
    let mut headers = request.headers.get_all(HOST).iter();
    let (Some(host), None) = (headers.next(), headers.next()) else { return Err(NotOurs::Malformed) };
    let host = host.to_str().map_err(|_| NotOurs::Malformed)?;
    // A proxy's form of request names a host of its own, which must be ours too.
    let target = request.uri.authority().map(|authority| authority.as_str());
    if std::iter::once(host).chain(target).all(|host| is_ours(host, names)) { Ok(()) } else { Err(NotOurs::Other) }
}

fn is_ours(authority: &str, names: &[String]) -> bool {
    let Some(host) = without_port(authority) else { return false };
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    matches!(host.parse::<IpAddr>(), Ok(IpAddr::V4(_)))
        || host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// `host`, `host:port`, `[::1]:port` without the port; `None` for what is none of them.
fn without_port(authority: &str) -> Option<&str> {
    let after = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after..].rfind(':') {
        None => Some(authority),
        Some(colon) => {
            let (host, port) = authority.split_at(after + colon);
            let port = &port[1..];
            (port.is_empty() || port.parse::<u16>().is_ok()).then_some(host)
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use proptest::prelude::*;

    use super::*;

    fn parts(uri: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn f87_only_requests_that_name_this_machine_are_taken() {
        let names = ["web-1".to_owned()];
        for host in [
            "127.0.0.1",
            "127.0.0.1:9180",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9180",
            "localhost",
            "LOCALHOST:1",
            "localhost.:9180",
            "web-1",
            "Web-1:9180",
            "localhost:",
        ] {
            assert_eq!(check(&parts("/", &[host]), &names), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9180",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "xlocalhost",
            "2130706433",
            "0x7f.1",
            "::1",
            "[::1",
            "[evil]",
            "[127.0.0.1]",
            "",
            ":9180",
            "localhost:x",
            "web-1.example",
            "localhost:99999",
            "a@localhost",
            "user@127.0.0.1",
        ] {
            assert_eq!(check(&parts("/", &[host]), &names), Err(NotOurs::Other), "{host}");
        }
        for hosts in [&[] as &[&str], &["localhost", "localhost"], &["localhost", "evil.example"]] {
            assert_eq!(check(&parts("/", hosts), &names), Err(NotOurs::Malformed), "{hosts:?}");
        }
        assert_eq!(check(&parts("http://evil.example/metrics", &["localhost"]), &names), Err(NotOurs::Other));
        assert_eq!(check(&parts("http://127.0.0.1:9180/metrics", &["127.0.0.1:9180"]), &names), Ok(()));
    }

    proptest! {
        #[test]
        fn any_host_is_judged(host in "[ -~]{0,40}") {
            let _ = is_ours(&host, &[]);
        }
    }
}
