//! One request and its response over a connection, whatever lies below it.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::steps::{Deadline, before_deadline};
use super::{HttpsFault, HttpsStep};

/// The maximum number of header fields of a response.
const FIELDS_MAX: usize = 64;
/// The maximum size of a response header in octets.
const HEAD_MAX: usize = 16 * 1024;

/// The task that reads and writes a connection. It ends when this is dropped.
pub(super) type Driver = JoinSet<Result<(), hyper::Error>>;

/// Sends a request over a connection and returns the head of the response. The body comes for as
/// long as the driver is kept.
pub(super) async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
    deadline: Deadline,
) -> Result<(Response<Incoming>, Driver), HttpsFault> {
    let mut http = http1::Builder::new();
    http.max_headers(FIELDS_MAX).max_buf_size(HEAD_MAX);
    let (mut sender, connection) = http
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http_fault(&error))?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = before_deadline(deadline, HttpsStep::Head, sender.send_request(request))
        .await?
        .map_err(|error| http_fault(&error))?;
    Ok((answer, driver))
}

/// Reads a body of at most so many octets.
pub(super) async fn read_body(body: Incoming, at_most: usize) -> Result<Bytes, HttpsFault> {
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
            "the head of the response has more than {HEAD_MAX} octets or {FIELDS_MAX} fields"
        ));
    }
    // The error of hyper with its causes, such as "connection error: unexpected end of file".
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    HttpsFault::Http(text)
}
