//! From a request's head to its reply.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::web::health::{Status, health, not_ready};
use crate::web::host::{self, NotOurs};
use crate::web::{Web, api, metrics};

/// A whole reply.
pub type Reply = Response<Full<Bytes>>;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// On every reply. Nothing is to be kept, framed, guessed at or read by another site's page; no CORS header is ever sent.
const HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("x-frame-options"), "DENY"),
    (HeaderName::from_static("content-security-policy"), "default-src 'none'; frame-ancestors 'none'"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
];

/// Answers a request; `has_body`: something follows its head.
pub fn answer(web: &Web, request: &Parts, has_body: bool) -> Reply {
    match host::check(request, &web.hosts) {
        Ok(()) => {}
        Err(NotOurs::Malformed) => return text(StatusCode::BAD_REQUEST, "a request names exactly one host\n"),
        Err(NotOurs::Other) => {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "ask by address, localhost, this machine's name or one of agent.hosts in drctl.yaml\n",
            );
        }
    }
    if request.method != Method::GET && request.method != Method::HEAD {
        let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "everything here is read only\n");
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return reply;
    }
    if has_body {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "no page takes a body\n");
    }
    match request.uri.path() {
        // The process answers: nothing else is asked, so that nothing else can keep it from answering.
        "/health/live" => text(StatusCode::OK, "live\n"),
        "/health/ready" => match not_ready(&(web.boards)(), web.clock.now()) {
            None => text(StatusCode::OK, "ready\n"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/health" => health_page(web),
        "/metrics" => reply(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&(web.boards)())),
        path if path == "/api" || path.starts_with("/api/") => api_page(web, request),
        _ => text(StatusCode::NOT_FOUND, "there are /health, /health/live, /health/ready, /metrics\n"),
    }
}

fn health_page(web: &Web) -> Reply {
    let health = health(&(web.boards)(), web.clock.now());
    let status = if health.status == Status::Failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    match serde_json::to_string(&health) {
        Ok(json) => reply(status, JSON, json),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be written\n"),
    }
}

fn api_page(web: &Web, request: &Parts) -> Reply {
    let Some(token) = &web.token else {
        return reply(StatusCode::NOT_FOUND, JSON, api::error("there is no API: set agent.token in drctl.yaml"));
    };
    if !api::shows_token(&request.headers, token) {
        let mut reply = reply(StatusCode::UNAUTHORIZED, JSON, api::error("needs the header Authorization: Bearer TOKEN"));
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"drctl\""));
        return reply;
    }
    match api::page(request.uri.path(), &(web.boards)(), web.clock.now(), &web.cleaner) {
        Some(Ok(json)) => reply(StatusCode::OK, JSON, json),
        Some(Err(_)) => reply(StatusCode::INTERNAL_SERVER_ERROR, JSON, api::error("the page cannot be written")),
        None => reply(StatusCode::NOT_FOUND, JSON, api::error("there are /api/v1/status, /api/v1/jobs, /api/v1/jobs/JOB/sets")),
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    reply(status, TEXT, text)
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}
