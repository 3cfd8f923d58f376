//! Monitoring over HTTP (`[admin] http`): metrics, health and the status page. RFC 9110, RFC 9112.
//!
//! The server is read-only and has four paths. The address decides who may reach it. It shows
//! neither content of mail nor secrets, but it does show names of hosts and domains. Therefore it
//! shows the page only under the names of this host, so that a web page of a third party cannot
//! read it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connections::{HttpConnections, HttpLimits};
use super::limit_answer_time;
use super::state::{AdminState, ErrorResponse};
use super::{page, readiness, status};
use crate::config::{AdminHttp, Fault, Located};
use crate::smtp::address::Domain;
use crate::telemetry::Format;

/// The limits of the HTTP server. A client that does not read its answer loses its connection to
/// another client.
const LIMITS: HttpLimits = HttpLimits {
    server: "status and metrics",
    connections: 32,
    head: 16 * 1024,
    head_time: Duration::from_secs(10),
    time: Duration::from_mins(2),
    reading: Some(Duration::from_secs(10)),
};
/// The bound address.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
}

impl HttpServer {
    /// Binds the address of `[admin] http`. `None` if that is off.
    ///
    /// # Errors
    /// A fault if it cannot be bound.
    pub async fn open(http: &Located<AdminHttp>) -> Result<Option<Self>, Fault> {
        let address = match http.value {
            AdminHttp::Off => return Ok(None),
            AdminHttp::Address(address) => address,
        };
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Some(Self { listener })),
            Err(error) => Err(Fault {
                location: http.location.clone(),
                message: format!("status and metrics cannot be shown on {address}: {error}"),
                remedy: "Set [admin] http to an address and port that are free on this machine, or to \"\" for none; `ss -ltnp` \
                         shows who has which."
                    .to_owned(),
            }),
        }
    }

    /// Returns the bound address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves requests until `stop`. Running requests are then dropped.
    pub async fn serve(self, admin: AdminState, stop: CancellationToken) {
        let router = router(admin, stop.clone());
        let mut connections = HttpConnections::new(LIMITS);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = connections.wait_for_slot() => connections.serve(stream, router.clone()),
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections for status and metrics; retrying");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

fn router(admin: AdminState, stop: CancellationToken) -> Router {
    let ready = {
        let admin = admin.clone();
        move || ready(admin.clone(), stop.clone())
    };
    Router::new()
        .route(
            "/",
            get(page::page).route_layer(middleware::from_fn_with_state(
                admin.clone(),
                require_our_name,
            )),
        )
        .route("/metrics", get(metrics))
        .route(
            "/healthz",
            get(|| async { plain(StatusCode::OK, "alive\n") }),
        )
        .route("/readyz", get(ready))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "no such path\n") })
        .method_not_allowed_fallback(|| async {
            plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are allowed\n",
            )
        })
        .layer(middleware::from_fn(limit_answer_time))
        .with_state(admin)
}

/// Returns a response of plain text that a browser does not interpret.
fn plain(status: StatusCode, text: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, text).into_response()
}

/// Passes the request on if its Host is a name of this host. Otherwise a third party could point a
/// name of its own at this address, and its scripts would read the page in a browser that can reach
/// it (DNS rebinding). The browser sends the name that it was given. Metrics and health need no
/// such check.
async fn require_our_name(
    State(admin): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    let hostname = admin.running.load().config.hostname.clone();
    let asked = requested_authority(&request);
    match asked {
        None => plain(
            StatusCode::BAD_REQUEST,
            "a request needs exactly one Host field\n",
        ),
        Some(host) if is_our_name(host.host(), &hostname) => next.run(request).await,
        Some(_) => plain(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "this page is shown under an IP address, localhost or {hostname} only: ask for it under one of these; \
                 a proxy in front of it has to send one of them as Host\n"
            ),
        ),
    }
}

/// Returns the host that a request is for (RFC 9112 §3.2).
fn requested_authority(request: &Request) -> Option<Authority> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.clone());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (one, None) = (hosts.next()?, hosts.next()) else {
        return None;
    };
    Authority::try_from(one.as_bytes()).ok()
}

fn is_our_name(host: &str, hostname: &Domain) -> bool {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let name = host.strip_suffix('.').unwrap_or(host);
    v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
        || host.parse::<Ipv4Addr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(hostname.as_str())
}

async fn metrics(
    State(admin): State<AdminState>,
    headers: HeaderMap,
) -> Result<Response, ErrorResponse> {
    let reading = status::reading(&admin).await?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    let format = Format::requested(accept);
    let mut response = admin.monitor.text(&reading, format).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.media_type()),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Answers with 200 where the relay is ready, and with 503 where it is not.
async fn ready(admin: AdminState, stop: CancellationToken) -> Response {
    let readiness = if stop.is_cancelled() {
        readiness::stopping()
    } else {
        readiness::readiness(&admin).await
    };
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    plain(status, readiness.text())
}
