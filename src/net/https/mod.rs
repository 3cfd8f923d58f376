//! An HTTPS client: one request and one response per connection (RFC 9110, RFC 9112, RFC 2818 with
//! the names of RFC 9525).
//!
//! It serves MTA-STS policies (RFC 8461), TLS reports (RFC 8460) and OAuth tokens (RFC 6749), and
//! supports no more of HTTP than they need: no redirections, cookies, caching or compression. With
//! `[net] http_proxy` all requests go through a tunnel of that proxy. Every step has a limit in time
//! and octets. Nothing is sent until the host's certificate is found valid under the trust anchors
//! for the host's name.
//!
//! [`PlainHttp`] is the client without TLS, which fetches CRLs.

mod dial;
mod error;
mod exchange;
mod plain;
mod proxy;
mod steps;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use tokio::time::Instant;

use crate::config::ProxyAddress;
use crate::net::dns::Dns;
use crate::net::tls_io::{ClientTls, KnownHellos};
pub use crate::policy::https_url::{DEFAULT_PORT, Url, UrlError};
use dial::{Dialer, HttpsSession};
pub use error::{HttpsError, HttpsFault, HttpsStep, TunnelFault};
use exchange::{read_body, send};
pub use plain::PlainHttp;
use steps::{Deadline, before_deadline};

/// The default time limit of a request, from the address lookup to the last octet (one minute, as
/// RFC 8461 §3.3 suggests).
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// The maximum length of a Content-Type value; the rest is cut off.
const CONTENT_TYPE_MAX: usize = 200;

/// A response: with status 200 for GET, any 2xx for POST, and any but a redirection for a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsResponse {
    /// The status code.
    pub status: u16,
    /// The value of Content-Type, if it is text.
    pub content_type: Option<String>,
    /// The body; always empty for POST, except of a form.
    pub body: Bytes,
}

/// The client. Clones share the resolver's cache.
#[derive(Clone)]
pub struct Https {
    dialer: Dialer,
    timeout: Duration,
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Https")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Https {
    /// Creates a client with a resolver and with
    /// [`TlsMaterial::https`](crate::net::tls_io::TlsMaterial::https). The time limit of a request
    /// is one minute.
    #[must_use]
    pub fn new(dns: Dns, tls: ClientTls) -> Self {
        Self {
            dialer: Dialer {
                dns,
                tls,
                hellos: KnownHellos::default(),
                proxy: None,
            },
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// Sends all requests through a proxy. Then the proxy looks up the addresses of the hosts; the
    /// check of their certificates does not change.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Option<ProxyAddress>) -> Self {
        self.dialer.proxy = proxy;
        self
    }

    /// Sets the time limit of a request. A TCP connection may take a sixth of it and a handshake a
    /// quarter, so that one dead address leaves time for the next.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Sends a GET request and returns the response with its body of at most `at_most` octets.
    ///
    /// # Errors
    /// [`HttpsError`] for any status other than 200 and for every other failure.
    pub async fn get(&self, url: &Url, at_most: usize) -> Result<HttpsResponse, HttpsError> {
        self.exchange(url, &HttpsRequest::Get { at_most }).await
    }

    /// Sends a POST request. After an error the host may have accepted the content nevertheless.
    ///
    /// # Errors
    /// [`HttpsError`] for any status other than 2xx and for every other failure.
    pub async fn post(
        &self,
        url: &Url,
        content_type: &'static str,
        content: Bytes,
    ) -> Result<HttpsResponse, HttpsError> {
        self.exchange(
            url,
            &HttpsRequest::Post {
                content_type,
                content,
            },
        )
        .await
    }

    /// Sends a form, and returns the response with its body of at most `at_most` octets, also that of
    /// an error status: a token server explains its refusal there (RFC 6749 §5.2).
    ///
    /// # Errors
    /// [`HttpsError`] for a redirection and for every failure other than a status.
    pub async fn post_form(
        &self,
        url: &Url,
        form: Bytes,
        at_most: usize,
    ) -> Result<HttpsResponse, HttpsError> {
        self.exchange(url, &HttpsRequest::Form { form, at_most })
            .await
    }

    async fn exchange(
        &self,
        url: &Url,
        message: &HttpsRequest,
    ) -> Result<HttpsResponse, HttpsError> {
        let failed = |address, tried, fault| HttpsError {
            url: url.clone(),
            proxy: self.dialer.proxy.clone(),
            address,
            tried,
            fault,
        };
        let deadline = Deadline {
            at: Instant::now() + self.timeout,
            timeout: self.timeout,
        };
        let request = message
            .request(url)
            .map_err(|error| failed(None, 0, HttpsFault::Http(error.to_string())))?;
        let HttpsSession {
            stream,
            address,
            tried,
        } = dial::dial(&self.dialer, url, deadline).await?;
        // No other address is tried once the request may have been sent, since a report must not
        // arrive twice.
        let answered = async {
            let (answer, _driver) = send(stream, request, deadline).await?;
            before_deadline(deadline, HttpsStep::Body, message.read_response(answer)).await?
        };
        answered
            .await
            .map_err(|fault| failed(Some(address), tried, fault))
    }
}

/// The method of a request with its parameters.
enum HttpsRequest {
    Get {
        at_most: usize,
    },
    Post {
        content_type: &'static str,
        content: Bytes,
    },
    Form {
        form: Bytes,
        at_most: usize,
    },
}

impl HttpsRequest {
    fn request(&self, url: &Url) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let request = Request::builder()
            .uri(url.path())
            .header(HOST, url.authority())
            .header(USER_AGENT, concat!("Gatepost/", env!("CARGO_PKG_VERSION")));
        match self {
            Self::Get { .. } => request.method(Method::GET).body(Full::default()),
            Self::Post {
                content_type,
                content,
            } => request
                .method(Method::POST)
                .header(CONTENT_TYPE, *content_type)
                .body(Full::new(content.clone())),
            Self::Form { form, .. } => request
                .method(Method::POST)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(ACCEPT, "application/json")
                .body(Full::new(form.clone())),
        }
    }

    // Rule: RFC 8461 §3.3.
    async fn read_response(&self, answer: Response<Incoming>) -> Result<HttpsResponse, HttpsFault> {
        let status = answer.status();
        let is_success = match self {
            Self::Get { .. } => status.as_u16() == 200,
            Self::Post { .. } => status.is_success(),
            Self::Form { .. } => true,
        };
        if status.is_redirection() {
            return Err(HttpsFault::Redirect(status.as_u16()));
        }
        if !is_success {
            return Err(HttpsFault::Status(status.as_u16()));
        }
        let text = |value: &HeaderValue| {
            value
                .to_str()
                .ok()
                .map(|text| text.chars().take(CONTENT_TYPE_MAX).collect())
        };
        let content_type = answer.headers().get(CONTENT_TYPE).and_then(text);
        let body = match self {
            Self::Get { at_most } | Self::Form { at_most, .. } => {
                read_body(answer.into_body(), *at_most).await?
            }
            Self::Post { .. } => Bytes::new(),
        };
        Ok(HttpsResponse {
            status: status.as_u16(),
            content_type,
            body,
        })
    }
}
