//! HTTPS as a client: one request, one answer, on our own resolver and our own TLS (RFC 9110, RFC 9112,
//! RFC 2818 with the names of RFC 9525).
//!
//! It is for published policies (RFC 8461) and for reports (RFC 8460), and no more of HTTP than they
//! need: no redirection is followed, no proxy message, no cookie kept, nothing cached or decompressed, no
//! connection used twice. Every step is bounded, in time and in octets. The host's certificate must
//! stand under the trust anchors of `[tls] trust` and carry the host's name, before a word is said.

mod dial;
mod error;
mod url;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::dns::Dns;
use crate::handshake::{ClientTls, KnownHellos};
use dial::{HttpsSession, before_deadline};
pub use error::{HttpsError, HttpsFault, HttpsStep};
pub use url::{DEFAULT_PORT, Url, UrlError};

/// A timeout request, from the address lookup to the last octet (RFC 8461 §3.3 suggests one minute).
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// Fields in the head of an answer, at most.
const FIELDS_MAX: usize = 64;
/// Octets in the head of an answer, at most.
const HEAD_MAX: usize = 16 * 1024;
/// Characters of a Content-Type that are kept.
const CONTENT_TYPE_MAX: usize = 200;

/// An answer with status 200 (or, to a POST, any 2xx).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsResponse {
    /// The status.
    pub status: u16,
    /// The value of Content-Type, where there is one that is text.
    pub content_type: Option<String>,
    /// The body; empty for a POST, whose answer nobody reads.
    pub body: Bytes,
}

/// Asks HTTPS hosts. A clone shares the resolver's cache with the first.
#[derive(Clone)]
pub struct Https {
    dns: Dns,
    tls: ClientTls,
    /// The `ClientHello`s of hosts that do not take the usual one.
    hellos: KnownHellos,
    timeout: Duration,
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Https").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Https {
    /// Asks with this resolver, and with [`Material::https`](crate::handshake::Material::https). A timeout
    /// request may take one minute.
    #[must_use]
    pub fn new(dns: Dns, tls: ClientTls) -> Self {
        Self { dns, tls, hellos: KnownHellos::default(), timeout: REQUEST_TIMEOUT }
    }

    /// The same, but a timeout request may take `limit`; a TCP connection a sixth of it, and a handshake a
    /// quarter, so that one dead address does not use up the time of the next.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// GET: an answer with status 200 and at most `at_most` octets.
    ///
    /// # Errors
    /// [`HttpsError`] for everything else.
    pub async fn get(&self, url: &Url, at_most: usize) -> Result<HttpsResponse, HttpsError> {
        self.exchange(url, &HttpsRequest::Get { at_most }).await
    }

    /// POST: an answer with a status from 200 to 299. Where this fails, the host may have taken the content
    /// all the same.
    ///
    /// # Errors
    /// [`HttpsError`] for everything else.
    pub async fn post(
        &self,
        url: &Url,
        content_type: &'static str,
        content: Bytes,
    ) -> Result<HttpsResponse, HttpsError> {
        self.exchange(url, &HttpsRequest::Post { content_type, content }).await
    }

    async fn exchange(&self, url: &Url, message: &HttpsRequest) -> Result<HttpsResponse, HttpsError> {
        let failed = |address, tried, fault| HttpsError { url: url.clone(), address, tried, fault };
        let deadline = Deadline { at: Instant::now() + self.timeout, timeout: self.timeout };
        let request = message.request(url).map_err(|error| failed(None, 0, HttpsFault::Http(error.to_string())))?;
        let HttpsSession { stream, address, tried } = dial::dial(self, url, deadline).await?;
        // Once the request is on its way no other address is message: a report must not arrive twice.
        let answered = async {
            let mut http = http1::Builder::new();
            http.max_headers(FIELDS_MAX).max_buf_size(HEAD_MAX);
            let (mut sender, connection) =
                http.handshake(TokioIo::new(stream)).await.map_err(|error| http_fault(&error))?;
            // The task ends with the set, that is with this request.
            let mut driver = JoinSet::new();
            driver.spawn(connection);
            let answer = before_deadline(deadline, HttpsStep::Head, sender.send_request(request))
                .await?
                .map_err(|error| http_fault(&error))?;
            before_deadline(deadline, HttpsStep::Body, message.read_response(answer)).await?
        };
        answered.await.map_err(|fault| failed(Some(address), tried, fault))
    }
}

/// The end of a request, whether it is done or not.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    timeout: Duration,
}

/// What is message.
enum HttpsRequest {
    Get { at_most: usize },
    Post { content_type: &'static str, content: Bytes },
}

impl HttpsRequest {
    fn request(&self, url: &Url) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let request = Request::builder()
            .uri(url.path())
            .header(HOST, url.authority())
            .header(USER_AGENT, concat!("Gatepost/", env!("CARGO_PKG_VERSION")));
        match self {
            Self::Get { .. } => request.method(Method::GET).body(Full::default()),
            Self::Post { content_type, content } => {
                request.method(Method::POST).header(CONTENT_TYPE, *content_type).body(Full::new(content.clone()))
            }
        }
    }

    async fn read_response(&self, answer: Response<Incoming>) -> Result<HttpsResponse, HttpsFault> {
        let status = answer.status();
        let wanted = match self {
            Self::Get { .. } => status.as_u16() == 200,
            Self::Post { .. } => status.is_success(),
        };
        match wanted {
            true => {}
            false if status.is_redirection() => return Err(HttpsFault::Redirect(status.as_u16())),
            false => return Err(HttpsFault::Status(status.as_u16())),
        }
        let text = |value: &HeaderValue| value.to_str().ok().map(|text| text.chars().take(CONTENT_TYPE_MAX).collect());
        let content_type = answer.headers().get(CONTENT_TYPE).and_then(text);
        let body = match self {
            Self::Get { at_most } => read_body(answer.into_body(), *at_most).await?,
            Self::Post { .. } => Bytes::new(),
        };
        Ok(HttpsResponse { status: status.as_u16(), content_type, body })
    }
}

async fn read_body(body: Incoming, at_most: usize) -> Result<Bytes, HttpsFault> {
    match Limited::new(body, at_most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpsFault::TooLarge(at_most)),
        Err(error) => Err(match error.downcast_ref::<hyper::Error>() {
            Some(error) => http_fault(error),
            None => HttpsFault::Http(error.to_string()),
        }),
    }
}

fn http_fault(error: &hyper::Error) -> HttpsFault {
    if error.is_parse_too_large() {
        return HttpsFault::Http(format!(
            "the head of the answer has more than {HEAD_MAX} octets or {FIELDS_MAX} fields"
        ));
    }
    // hyper's own words, and those of what lies beneath: "connection error: unexpected end of file".
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    HttpsFault::Http(text)
}
