//! What each page answers.

use super::*;
use crate::ops::board::Refused;

async fn served() -> Served {
    Served::new(Some(TOKEN), Limits::default()).await
}

#[tokio::test]
async fn every_page_answers_and_none_may_be_kept_or_framed() {
    let served = served().await;
    let json = "application/json";
    for (path, status, kind, begins) in [
        ("/health/live", 200, "text/plain; charset=utf-8", "live\n"),
        ("/health/ready", 200, "text/plain; charset=utf-8", "ready\n"),
        ("/health", 200, json, "{\"status\":\"ok\","),
        ("/health?verbose=1", 200, json, "{\"status\":\"ok\","),
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8", "# HELP drctl_up "),
        ("/", 404, "text/plain; charset=utf-8", ""),
        ("/healthy", 404, "text/plain; charset=utf-8", ""),
        ("/metrics/", 404, "text/plain; charset=utf-8", ""),
        ("/api/v1/status", 401, json, "{\"error\""),
    ] {
        let got = served.get(path).await;
        assert_eq!(got.status, status, "{path}: {got:?}");
        assert!(got.head.contains(&format!("content-type: {kind}")) && got.body.starts_with(begins), "{path}: {got:?}");
        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "content-security-policy: default-src 'none'",
            "connection: close",
        ] {
            assert!(got.head.contains(header), "{path} lacks {header}: {}", got.head);
        }
        assert!(!got.head.contains("access-control"), "{path}");
    }
    let head = served.ask("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("content-length: ") && !head.head.contains("content-length: 0"), "{head:?}");
    let old = served.ask("GET /health/live HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").await;
    assert_eq!(old.status, 200);
}

#[tokio::test]
async fn ready_waits_for_configuration_repository_and_scheduler() {
    let served = served().await;
    served.change(|board| board.repository.looked_at = None);
    let got = served.get("/health/ready").await;
    assert_eq!((got.status, got.body.as_str()), (503, "the repository has not been looked at yet\n"));
    served.change(|board| board.config.loaded_at = None);
    assert_eq!(served.get("/health/ready").await.body, "the configuration is not loaded yet\n");
    served.change(|board| *board = testing::full());
    assert_eq!(served.get("/health/ready").await.status, 200);
    // The board stays as it is, and time goes on: the agent hangs.
    served.clock.step_seconds(200);
    let got = served.get("/health/ready").await;
    assert_eq!((got.status, got.body.as_str()), (503, "scheduler: it last looked what is due 3 min ago: restart the agent\n"));
    assert_eq!(served.get("/health").await.status, 503);
    assert_eq!(served.get("/health/live").await.status, 200);
}

#[tokio::test]
async fn health_is_503_only_when_something_fails() {
    let served = served().await;
    served.change(|board| board.config.refused = Some(Refused { at: at(NOW), why: "drctl.yaml line 14".into() }));
    let got = served.get("/health").await;
    assert!(got.status == 200 && got.body.starts_with("{\"status\":\"degraded\""), "{got:?}");
    served.change(|board| board.stores[0].reachable = Some(false));
    let got = served.get("/health").await;
    assert!(got.status == 503 && got.body.starts_with("{\"status\":\"failing\""), "{got:?}");
}

#[tokio::test]
async fn the_api_gives_the_board_to_those_who_have_the_token() {
    let served = served().await;
    let result = |got: Got| -> serde_json::Value {
        assert_eq!(got.status, 200, "{got:?}");
        let value: serde_json::Value = serde_json::from_str(&got.body).unwrap();
        assert_eq!(value["schema"], "drctl.v1");
        value["result"].clone()
    };
    let status = result(served.get_with("/api/v1/status", TOKEN).await);
    assert_eq!((&status["health"]["status"], &status["board"]["host"]), (&"ok".into(), &"web-1".into()));
    assert_eq!(status["board"]["jobs"][0]["rpo_seconds"], 45_420);
    let jobs = result(served.get_with("/api/v1/jobs", TOKEN).await);
    assert_eq!(jobs["jobs"][0]["log"]["verified_sets"], 29);
    let sets = result(served.get_with("/api/v1/jobs/shop/sets", TOKEN).await);
    assert_eq!((&sets["total"], sets["sets"].as_array().unwrap().len()), (&31.into(), 2));
    assert_eq!(sets["sets"][0]["set"], testing::line("shop", "2025-01-31T14:00:00Z").set.to_string());
    for path in
        ["/api", "/api/", "/api/v1", "/api/v1/", "/api/v2/status", "/api/v1/jobs/other/sets", "/api/v1/jobs/shop", "/api/v1/jobs//sets"]
    {
        assert_eq!(served.get_with(path, TOKEN).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn without_a_token_there_is_no_api() {
    let served = Served::new(None, Limits::default()).await;
    for path in ["/api", "/api/v1/status", "/api/v1/jobs/shop/sets"] {
        assert_eq!(served.get_with(path, TOKEN).await.status, 404, "{path}");
        assert_eq!(served.get_with(path, "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = listen(first.local_addr().unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::Exists);
    assert!(error.to_string().contains(&first.local_addr().unwrap().to_string()) && error.hint_text().unwrap().contains("agent.listen"));
}

#[tokio::test]
async fn the_server_stops_when_it_is_told_to() {
    // No other test takes a port of this address as soon as it is free.
    let listener = listen("127.0.0.87:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    // It does not wait until the idle one is let go of.
    let limits = Limits { send_within: std::time::Duration::from_secs(600), ..Limits::default() };
    let web = Web::new(Arc::new(|| Arc::new(testing::full())), None).limits(limits);
    let server = tokio::spawn(serve(listener, web, cancel.clone()));
    let idle = TcpStream::connect(address).await.unwrap();
    cancel.cancel();
    tokio::time::timeout(std::time::Duration::from_secs(60), server).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}
