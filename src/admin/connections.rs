//! The connections of an HTTP server: their number is limited, and if the limit is reached, some
//! give way to new ones.
//!
//! A connection without a complete request costs its client nothing. It must not keep out clients
//! that send requests, so it is closed if another client needs the slot. If the server is
//! configured so, the same holds for a connection whose client has not read its response for a
//! while.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tracing::{debug, error};

/// The pause between two searches for a connection that gives way.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// The limits of one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct HttpLimits {
    /// The name of the server in the log.
    pub(super) server: &'static str,
    /// The most concurrent connections. Further ones wait in the backlog of the socket.
    pub(super) connections: usize,
    /// The most octets in the head of a request.
    pub(super) head: usize,
    /// The timeout of the head of a request.
    pub(super) head_time: Duration,
    /// The timeout of a connection.
    pub(super) time: Duration,
    /// The time after which a client that is still reading its response may be closed. `None`:
    /// never.
    pub(super) reading: Option<Duration>,
}

/// The progress of the request on a connection.
#[derive(Debug, Default)]
struct RequestProgress {
    /// The time at which the head of the request was complete.
    asked: OnceLock<Instant>,
    /// The time at which the response began.
    answered: OnceLock<Instant>,
}

#[derive(Debug)]
struct HttpConnection {
    since: Instant,
    progress: Arc<RequestProgress>,
    task: AbortHandle,
}

/// The connections of one server.
#[derive(Debug)]
pub(super) struct HttpConnections {
    limits: HttpLimits,
    tasks: JoinSet<()>,
    open: HashMap<Id, HttpConnection>,
}

impl HttpConnections {
    pub(super) fn new(limits: HttpLimits) -> Self {
        Self {
            limits,
            tasks: JoinSet::new(),
            open: HashMap::new(),
        }
    }

    /// Waits for a free slot. If none is free, closes a connection that has to give way.
    pub(super) async fn wait_for_slot(&mut self) {
        while let Some(end) = self.tasks.try_join_next_with_id() {
            self.remove_ended(end);
        }
        while self.open.len() >= self.limits.connections && !self.evict() {
            tokio::select! {
                Some(end) = self.tasks.join_next_with_id() => self.remove_ended(end),
                () = tokio::time::sleep(SEARCH_PAUSE) => {}
            }
        }
    }

    /// Serves one request on a connection.
    pub(super) fn serve<S>(&mut self, stream: S, router: Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let progress = Arc::<RequestProgress>::default();
        let task = self.tasks.spawn(serve_connection(
            self.limits,
            stream,
            router,
            Arc::clone(&progress),
        ));
        self.open.insert(
            task.id(),
            HttpConnection {
                since: Instant::now(),
                progress,
                task,
            },
        );
    }

    /// Waits at most `time` for running requests.
    pub(super) async fn finish(mut self, time: Duration) {
        for place in self
            .open
            .values()
            .filter(|place| place.progress.asked.get().is_none())
        {
            place.task.abort();
        }
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        // Requests that are still running are aborted by the drop.
        let _ = timeout(time, finished).await;
    }

    /// Closes the oldest connection without a complete request, or else the one that has been
    /// reading its response for the longest time. Returns false if there is none.
    fn evict(&mut self) -> bool {
        let waiting = |place: &HttpConnection| place.progress.asked.get().is_none();
        let oldest = self
            .open
            .iter()
            .filter(|(_, place)| waiting(place))
            .min_by_key(|(_, place)| place.since);
        let slow = self.limits.reading.and_then(|reading| {
            let answered = |place: &HttpConnection| place.progress.answered.get().copied();
            let slow = self
                .open
                .iter()
                .filter(|(_, place)| answered(place).is_some_and(|at| at.elapsed() >= reading));
            slow.min_by_key(|(_, place)| answered(place))
        });
        let Some(id) = oldest.or(slow).map(|(id, _)| *id) else {
            return false;
        };
        if let Some(place) = self.open.remove(&id) {
            debug!(
                server = self.limits.server,
                "connection closed to make a slot free"
            );
            place.task.abort();
        }
        true
    }

    fn remove_ended(&mut self, end: Result<(Id, ()), JoinError>) {
        let id = match &end {
            Ok((id, ())) => *id,
            Err(end) => end.id(),
        };
        self.open.remove(&id);
        if let Err(panic) = end
            && panic.is_panic()
        {
            error!(server = self.limits.server, error = %panic, "request handler panicked");
        }
    }
}

async fn serve_connection<S>(
    limits: HttpLimits,
    stream: S,
    router: Router,
    progress: Arc<RequestProgress>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answers = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let progress = Arc::clone(&progress);
        // Each connection has one request.
        let _ = progress.asked.set(Instant::now());
        let answering = answers.call(request);
        async move {
            let answer = answering.await;
            let _ = progress.answered.set(Instant::now());
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .keep_alive(false)
        .max_buf_size(limits.head)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(limits.time, connection).await {
        Ok(Ok(())) => {}
        // Usually the client has closed the connection, as with `| head`.
        Ok(Err(error)) => debug!(server = limits.server, %error, "connection broke"),
        Err(_) => debug!(server = limits.server, "connection closed: timeout"),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const LIMITS: HttpLimits = HttpLimits {
        server: "test",
        connections: 2,
        head: 16 << 10,
        head_time: Duration::from_secs(10),
        time: Duration::from_mins(2),
        reading: Some(Duration::from_millis(500)),
    };
    /// A time in which everything happens that need not wait, less than `head_time` and `time`.
    const SOON: Duration = Duration::from_secs(5);
    const A_WHILE: Duration = Duration::from_millis(200);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    fn router() -> Router {
        let never = || async { std::future::pending::<&'static str>().await };
        Router::new()
            .route("/", get(|| async { "hello\n" }))
            .route("/never", get(never))
            .route("/long", get(|| async { "x".repeat(100_000) }))
    }

    /// Opens a connection as soon as there is a slot, and sends some octets.
    async fn connect(connections: &mut HttpConnections, input: &[u8]) -> DuplexStream {
        let (mut client, server) = tokio::io::duplex(1024);
        connections.wait_for_slot().await;
        connections.serve(server, router());
        client.write_all(input).await.expect("there is room");
        // Lets the server run.
        tokio::time::sleep(Duration::from_millis(50)).await;
        client
    }

    /// Returns everything until the end of the connection, or `None` after the timeout.
    async fn read_to_end(client: &mut DuplexStream, time: Duration) -> Option<String> {
        let mut rest = Vec::new();
        timeout(time, client.read_to_end(&mut rest))
            .await
            .ok()?
            .expect("no error");
        Some(String::from_utf8(rest).expect("text"))
    }

    #[tokio::test]
    async fn an_incomplete_request_gives_way_to_a_complete_one() {
        let mut connections = HttpConnections::new(LIMITS);
        let mut half = connect(&mut connections, b"GET / HTTP/1.1\r\n").await;
        let mut silent = connect(&mut connections, b"").await;
        let began = Instant::now();
        let mut whole = connect(&mut connections, REQUEST).await;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "it waited for {:?}",
            began.elapsed()
        );
        assert_eq!(
            read_to_end(&mut half, SOON).await.as_deref(),
            Some(""),
            "the oldest was closed"
        );
        assert!(
            read_to_end(&mut whole, SOON)
                .await
                .is_some_and(|answer| answer.ends_with("hello\n"))
        );
        assert_eq!(
            read_to_end(&mut silent, A_WHILE).await,
            None,
            "one place was enough"
        );
        connections.finish(Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn the_head_of_a_request_has_a_timeout() {
        for input in [&b""[..], b"GET / HTTP/1.1\r\nhost: "] {
            let mut connections = HttpConnections::new(HttpLimits {
                head_time: A_WHILE,
                ..LIMITS
            });
            let mut client = connect(&mut connections, input).await;
            assert!(
                read_to_end(&mut client, SOON)
                    .await
                    .is_some_and(|rest| !rest.contains("hello"))
            );
        }
    }

    #[tokio::test]
    async fn a_slow_reader_gives_way_and_a_running_request_does_not() {
        let never = b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n";
        let long = b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut connections = HttpConnections::new(LIMITS);
        let (mut working, _reading) = (
            connect(&mut connections, never).await,
            connect(&mut connections, long).await,
        );
        let began = Instant::now();
        let mut third = connect(&mut connections, REQUEST).await;
        let waited = began.elapsed();
        assert!(
            (Duration::from_millis(400)..Duration::from_secs(5)).contains(&waited),
            "it waited for {waited:?}"
        );
        assert!(
            read_to_end(&mut third, SOON)
                .await
                .is_some_and(|answer| answer.ends_with("hello\n"))
        );
        assert_eq!(
            read_to_end(&mut working, A_WHILE).await,
            None,
            "its answer is still worked on"
        );
        // If no connection has to give way, the next one waits.
        let mut connections = HttpConnections::new(HttpLimits {
            reading: None,
            ..LIMITS
        });
        let _open = (
            connect(&mut connections, never).await,
            connect(&mut connections, long).await,
        );
        let waited = timeout(Duration::from_secs(2), connections.wait_for_slot()).await;
        assert!(waited.is_err(), "both were under way");
    }
}
