//! The server: connections in, replies out, and limits that a hostile or broken client cannot get around (FAULTS 87).
//!
//! One request a connection. When all places are taken the oldest connection makes room, so that a probe is answered however many idle
//! clients hold on; each has had time to send its request by then.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::web::Web;
use crate::web::answer::answer;

/// Bytes of a request's head, and header lines in it.
const HEAD: (usize, usize) = (16 << 10, 64);
/// When no connection can be taken (no descriptor is left): one more try after so long.
const PAUSE: Duration = Duration::from_millis(200);
/// How long replies under way may take when all is to stop.
const FINISH: Duration = Duration::from_secs(1);

/// What a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Time to send a request.
    pub send_within: Duration,
    /// Time to take the reply after that.
    pub take_within: Duration,
    /// A connection makes room for another only after so long.
    pub at_least: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Limits { connections: 64, send_within: seconds(5), take_within: seconds(10), at_least: Duration::from_millis(10) }
    }
}

/// Serves the pages until `cancel`. Never fails: what goes wrong with one connection ends that one.
pub async fn serve(listener: TcpListener, web: Web, cancel: CancellationToken) {
    let web = Arc::new(web);
    let mut tasks = JoinSet::new();
    let mut places = Places { open: VecDeque::new(), limits: web.limits };
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while tasks.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                places.make_room().await;
                let task = tasks.spawn(connection(stream, Arc::clone(&web)));
                places.open.push_back((Instant::now(), task));
                // In a flood the connections that were taken come before those that wait.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::debug!("take a connection: {error}");
                tokio::select! {
                    () = cancel.cancelled() => break,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(FINISH, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Who is connected, the oldest first.
struct Places {
    open: VecDeque<(Instant, AbortHandle)>,
    limits: Limits,
}

impl Places {
    async fn make_room(&mut self) {
        self.open.retain(|(_, task)| !task.is_finished());
        while self.open.len() >= self.limits.connections.max(1) {
            let Some((since, task)) = self.open.pop_front() else { return };
            if !task.is_finished() {
                // A timer counts whole milliseconds: to wait for each by itself would take a flood's time several times over.
                if since.elapsed() < self.limits.at_least * 3 / 4 {
                    tokio::time::sleep_until(since + self.limits.at_least).await;
                }
                task.abort();
            }
        }
    }
}

async fn connection(stream: TcpStream, web: Arc<Web>) {
    let limits = web.limits;
    let service = service_fn(move |request: Request<Incoming>| {
        let has_body = !request.body().is_end_stream();
        let reply: Response<_> = answer(&web, &request.into_parts().0, has_body);
        std::future::ready(Ok::<_, Infallible>(reply))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.send_within)
        .max_buf_size(HEAD.0)
        .max_headers(HEAD.1)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(limits.send_within + limits.take_within, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("a connection ended: {error}"),
        Err(_) => tracing::debug!("a client took its reply too slowly"),
    }
}
