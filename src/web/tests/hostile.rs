//! FAULTS 87: bad tokens, other names, odd paths, slow clients, floods.

use std::time::{Duration, Instant};

use super::*;
use crate::model::Severity;
use crate::ops::board::Refused;

#[tokio::test]
async fn f87_a_bad_token_gets_nothing() {
    let served = Served::new(Some(TOKEN), Limits::default()).await;
    let longer = format!("{TOKEN}x");
    for bad in ["", "x", &TOKEN[1..], &TOKEN[..TOKEN.len() - 1], &longer, &TOKEN.to_uppercase()] {
        for path in ["/api/v1/status", "/api/v1/jobs", "/api/v1/jobs/shop/sets", "/api/none"] {
            let got = served.get_with(path, bad).await;
            assert!(got.status == 401 && got.head.contains("www-authenticate: bearer"), "{path}: {got:?}");
            assert!(!got.body.contains("shop") && !got.body.contains(TOKEN), "{got:?}");
        }
    }
    assert_eq!(served.get("/api/v1/status").await.status, 401);
    let twice =
        format!("GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nAuthorization: Bearer x\r\n\r\n");
    assert_eq!(served.ask(&twice).await.status, 401);
}

#[tokio::test]
async fn f87_paths_that_walk_out_or_are_written_oddly_are_not_found() {
    let served = Served::new(Some(TOKEN), Limits::default()).await;
    for path in [
        "/../etc/passwd",
        "/health/../api/v1/status",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/health/live/..",
        "//health/live",
        "/./health/live",
        "/HEALTH/LIVE",
        "/health%2flive",
        "/api/v1/jobs/../status",
        "/api/v1/jobs/..%2f..%2fshop/sets",
        "/api/v1/jobs/shop%00/sets",
        "/api/v1/jobs/shop/sets/",
        "/api/v1/jobs/shop/../shop/sets",
        "/api/v1/jobs/%73hop/sets",
    ] {
        assert_eq!(served.get_with(path, TOKEN).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn f87_requests_under_another_name_are_not_taken() {
    let served = Served::new(Some(TOKEN), Limits::default()).await;
    let host = |host: &str| format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (name, status) in
        [("localhost:9180", 200), ("127.0.0.1", 200), ("WEB-1:9180", 200), ("evil.example", 421), ("web-1.evil.example", 421)]
    {
        let got = served.ask(&host(name)).await;
        assert_eq!(got.status, status, "{name}");
        assert_eq!(got.body.contains("drctl_up"), status == 200);
    }
    assert_eq!(served.ask("GET /health/live HTTP/1.1\r\n\r\n").await.status, 400);
    assert_eq!(served.ask("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status, 421);
}

#[tokio::test]
async fn f87_nothing_can_be_sent_or_changed() {
    let served = Served::new(Some(TOKEN), Limits::default()).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECTED"] {
        let got = served.ask(&format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(got.status == 405 && got.head.contains("allow: get, head"), "{method}: {got:?}");
    }
    let body = served.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody").await;
    assert_eq!(body.status, 413);
    let chunked = served.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert_eq!(chunked.status, 413);
    // One request a connection: what is sent behind the first is not looked at.
    let two = served.ask("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((two.status, two.body.as_str()), (200, "live\n"));
}

#[tokio::test]
async fn f87_a_head_without_end_is_refused() {
    let served = Served::new(Some(TOKEN), Limits::default()).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(64 << 10));
    let header = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(100));
    for request in [long, header, many, "\u{1}\u{2}\u{3}\r\n\r\n".into(), "GET\r\n\r\n".into()] {
        let got = served.try_ask(&request).await;
        assert!(got.as_ref().is_none_or(|got| (400..500).contains(&got.status)), "{got:?}");
    }
    assert_eq!(served.get("/health/live").await.status, 200);
}

/// Sends some bytes and gives the seconds until the server hung up.
async fn dropped_after(served: &Served, first: &str, then: Option<&str>) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    stream.write_all(first.as_bytes()).await.unwrap();
    let mut sink = [0; 1024];
    loop {
        let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut sink)).await;
        match (read, then) {
            (Ok(Ok(0) | Err(_)), _) => return begun.elapsed(),
            (Ok(Ok(_)), _) => {}
            (Err(_), Some(more)) => drop(stream.write_all(more.as_bytes()).await),
            (Err(_), None) => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it is still connected");
    }
}

#[tokio::test]
async fn f87_slow_clients_are_dropped() {
    let limits = Limits { send_within: Duration::from_millis(300), take_within: Duration::from_secs(60), ..Limits::default() };
    let served = Served::new(Some(TOKEN), limits).await;
    let least = Duration::from_millis(250);
    // What follows bit by bit comes to no limit of size or number for long.
    for (first, then) in [("", None), ("GET /metr", None), ("GET /metrics HTTP/1.1\r\nX: y\r\nX: ", Some("y")), ("G", Some("E"))] {
        let after = dropped_after(&served, first, then).await;
        assert!(after >= least, "{first:?}: {after:?}");
    }
    assert_eq!(served.get("/health/live").await.status, 200);
}

#[tokio::test]
async fn f87_a_client_that_does_not_take_its_reply_is_dropped() {
    let limits = Limits { send_within: Duration::from_millis(500), take_within: Duration::from_millis(300), ..Limits::default() };
    let served = Served::new(Some(TOKEN), limits).await;
    // More than the kernel holds for a client that does not read.
    served.change(|board| board.host = "h".repeat(32 << 20));
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut got = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut got)).await;
    assert!(got.len() < 32 << 20, "all of it was kept for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f87_thousands_of_idle_connections_and_live_still_answers() {
    // None goes by itself meanwhile.
    let limits = Limits { send_within: Duration::from_secs(600), ..Limits::default() };
    let served = Served::new(Some(TOKEN), limits).await;
    let mut idle = Vec::new();
    for _ in 0..6 {
        let connect = async |_| {
            let mut stream = TcpStream::connect(served.at).await.unwrap();
            let _ = stream.write_all(b"GET /health/li").await;
            stream
        };
        idle.extend(futures::future::join_all((0..500).map(connect)).await);
        assert_eq!(served.get("/health/live").await.status, 200, "after {}", idle.len());
    }
    // Whom the server let go has nothing more to read: an end, or a reset. Word of it may come a little later.
    let waits = |stream: &&TcpStream| stream.try_read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    let begun = Instant::now();
    loop {
        let alive = idle.iter().filter(waits).count();
        if alive <= limits.connections {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{alive} are still connected");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn f87_no_reply_holds_a_secret() {
    let known = "kn0wn-s3cret";
    let served = Served::with(Some(TOKEN), Limits::default(), &[Secret::new(known)]).await;
    let said = format!("psql: postgres://shop:hunter2@db/shop PGPASSWORD=hunter3 {known} {TOKEN} xoxb-1234567890-abcdefghijkl");
    served.change(|board| {
        board.config.refused = Some(Refused { at: at(NOW), why: said.clone() });
        board.repository.problem = Some(said.clone());
        board.state.problem = Some(said.clone());
        board.stores[0].problem = Some(said.clone());
        board.queues[0].problem = Some(said.clone());
        board.incidents.push(testing::incident(Severity::Critical, &said));
        let job = &mut board.jobs[0];
        job.log_problem = Some(said.clone());
        std::sync::Arc::make_mut(job.log.as_mut().unwrap()).findings.push(said.clone());
        job.runs.last_attempt.as_mut().unwrap().error = Some(said.clone());
        job.runs.last_attempt.as_mut().unwrap().exit_code = Some(1);
    });
    for path in ["/health", "/health/ready", "/metrics", "/api/v1/status", "/api/v1/jobs", "/api/v1/jobs/shop/sets", "/none"] {
        let got = served.get_with(path, TOKEN).await;
        for secret in ["hunter", known, TOKEN, "abcdefghijkl"] {
            assert!(!got.body.contains(secret) && !got.head.contains(secret), "{path}: {secret} in {}", got.body);
        }
        // What others said is for those who have the token.
        assert_eq!(got.body.contains("psql: "), path == "/api/v1/status" || path == "/api/v1/jobs", "{path}: {}", got.body);
    }
}
