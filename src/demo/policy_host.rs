//! An MTA-STS policy host for several domains, which serves their policies over HTTPS (RFC 8461
//! §3.3).

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

/// The path of a policy.
const PATH: &str = "/.well-known/mta-sts.txt";
/// The maximum number of concurrent connections.
const CONNECTIONS_MAX: usize = 64;

/// A policy host, which runs until it is dropped.
#[derive(Debug)]
pub struct PolicyHost {
    /// The port on loopback.
    pub port: u16,
    policies: Arc<Mutex<HashMap<String, ServedPolicy>>>,
    _task: JoinSet<()>,
}

/// The policy of one domain, with the number of requests for it.
#[derive(Debug, Default)]
struct ServedPolicy {
    policy: String,
    requests: usize,
}

impl PolicyHost {
    /// Starts a policy host without policies: it answers 404. The certificate must be valid for
    /// `mta-sts.DOMAIN` of each domain.
    ///
    /// # Errors
    /// No port of loopback can be bound.
    pub async fn start(tls: Arc<ServerConfig>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let policies = Arc::default();
        let mut task = JoinSet::new();
        task.spawn(serve(
            listener,
            TlsAcceptor::from(tls),
            Arc::clone(&policies),
        ));
        Ok(Self {
            port,
            policies,
            _task: task,
        })
    }

    /// Publishes a policy for a domain, in place of the one before.
    pub fn publish(&self, domain: &str, policy: &str) {
        policy.clone_into(
            &mut lock(&self.policies)
                .entry(domain.to_owned())
                .or_default()
                .policy,
        );
    }

    /// Returns the number of requests for the policy of a domain.
    #[must_use]
    pub fn requests(&self, domain: &str) -> usize {
        lock(&self.policies)
            .get(domain)
            .map_or(0, |published| published.requests)
    }
}

fn lock(
    policies: &Mutex<HashMap<String, ServedPolicy>>,
) -> MutexGuard<'_, HashMap<String, ServedPolicy>> {
    // The map is consistent even after a panic: each change under the lock is a single insertion or
    // addition.
    policies.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    policies: Arc<Mutex<HashMap<String, ServedPolicy>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        connections.spawn(serve_connection(
            stream,
            acceptor.clone(),
            Arc::clone(&policies),
        ));
    }
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    policies: Arc<Mutex<HashMap<String, ServedPolicy>>>,
) {
    // The handshake fails if the client rejects the certificate, as some tests expect.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service =
        service_fn(|request| std::future::ready(Ok::<_, Infallible>(respond(&request, &policies))));
    let _closed = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn respond(
    request: &Request<Incoming>,
    policies: &Mutex<HashMap<String, ServedPolicy>>,
) -> Response<Full<Bytes>> {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = host.split(':').next().unwrap_or_default();
    let domain = name.strip_prefix("mta-sts.").unwrap_or_default();
    let mut response = Response::new(Full::default());
    match lock(policies)
        .get_mut(domain)
        .filter(|_| request.uri().path() == PATH)
    {
        Some(published) => {
            published.requests += 1;
            *response.body_mut() = Full::new(Bytes::from(published.policy.clone()));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        None => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}
