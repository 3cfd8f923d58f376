//! The policy host of several domains: HTTPS, and under the well-known path what each of them publishes
//! (RFC 8461 §3.3).

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const PATH: &str = "/.well-known/mta-sts.txt";
/// Connections at the same time, at most.
const CONNECTIONS_MAX: usize = 64;

/// Answers until it is dropped.
#[derive(Debug)]
pub struct PolicyHost {
    /// Where, on loopback.
    pub port: u16,
    shelf: Arc<Mutex<HashMap<String, Published>>>,
    _task: JoinSet<()>,
}

/// What one domain publishes.
#[derive(Debug, Default)]
struct Published {
    policy: String,
    asked: usize,
}

impl PolicyHost {
    /// Starts without any policy: whoever asks hears 404. The certificate must be for each `mta-sts.DOMAIN`.
    ///
    /// # Errors
    /// Where no port of loopback can be had.
    pub async fn start(tls: Arc<ServerConfig>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let shelf = Arc::default();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, TlsAcceptor::from(tls), Arc::clone(&shelf)));
        Ok(Self { port, shelf, _task: task })
    }

    /// Publishes a policy for a domain, in the place of the one before.
    pub fn publish(&self, domain: &str, policy: &str) {
        policy.clone_into(&mut lock(&self.shelf).entry(domain.to_owned()).or_default().policy);
    }

    /// How often the policy of a domain was asked for.
    #[must_use]
    pub fn asked(&self, domain: &str) -> usize {
        lock(&self.shelf).get(domain).map_or(0, |published| published.asked)
    }
}

fn lock(shelf: &Mutex<HashMap<String, Published>>) -> MutexGuard<'_, HashMap<String, Published>> {
    // Nothing is done under this lock that could leave it half changed.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shelf: Arc<Mutex<HashMap<String, Published>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        connections.spawn(converse(stream, acceptor.clone(), Arc::clone(&shelf)));
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, shelf: Arc<Mutex<HashMap<String, Published>>>) {
    // A client that does not like the certificate goes, and has its reasons.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &shelf))));
    let _gone = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
}

fn answer(request: &Request<Incoming>, shelf: &Mutex<HashMap<String, Published>>) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.split(':').next().unwrap_or_default();
    let domain = name.strip_prefix("mta-sts.").unwrap_or_default();
    let mut response = Response::new(Full::default());
    match lock(shelf).get_mut(domain).filter(|_| request.uri().path() == PATH) {
        Some(published) => {
            published.asked += 1;
            *response.body_mut() = Full::new(Bytes::from(published.policy.clone()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        None => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}
