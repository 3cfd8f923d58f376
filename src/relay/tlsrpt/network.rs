//! The network access that reports need: TXT lookups and HTTPS posts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::net::dns::{AnswerRecords, Dns, LookupError};
use crate::net::https::{Https, HttpsError, Url};

/// The reason why a network operation failed. Each one is worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The TXT lookup failed.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The report could not be posted.
    #[error("{0}")]
    Post(Box<HttpsError>),
}

/// The future of a network operation.
pub type NetworkFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, NetworkError>> + Send + 'a>>;

/// Access to DNS and HTTPS.
pub trait Network: Send + Sync + 'static {
    /// Looks up the TXT records at a name. The character-strings of each record are joined; an
    /// empty list means no records.
    fn txt<'a>(&'a self, name: &'a str) -> NetworkFuture<'a, Vec<String>>;
    /// Posts a report (RFC 8460 §5.4) to a host whose certificate must be trusted, within a limited
    /// time. Redirects are not followed. `Ok` means a successful status.
    fn post<'a>(&'a self, to: &'a Url, report: Bytes) -> NetworkFuture<'a, ()>;
}

/// Network access by our own resolver and HTTPS client. Both can be replaced while reports are
/// being sent.
pub struct Internet(ArcSwap<(Dns, Https)>);

impl fmt::Debug for Internet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Internet")
    }
}

impl Internet {
    /// Returns network access by this resolver and this HTTPS client.
    #[must_use]
    pub fn new(dns: Dns, https: Https) -> Self {
        Self(ArcSwap::from_pointee((dns, https)))
    }

    /// Replaces the resolver and the HTTPS client.
    pub fn replace(&self, dns: Dns, https: Https) {
        self.0.store((dns, https).into());
    }
}

impl Network for Internet {
    fn txt<'a>(&'a self, name: &'a str) -> NetworkFuture<'a, Vec<String>> {
        let with = self.0.load_full();
        Box::pin(async move {
            let answer = with.0.txt(name).await?;
            match answer.found {
                AnswerRecords::Records(texts) => Ok(texts),
                AnswerRecords::NoData | AnswerRecords::NoDomain => Ok(Vec::new()),
            }
        })
    }

    fn post<'a>(&'a self, to: &'a Url, report: Bytes) -> NetworkFuture<'a, ()> {
        let with = self.0.load_full();
        Box::pin(async move {
            let posted = with.1.post(to, "application/tlsrpt+gzip", report).await;
            posted
                .map(|_| ())
                .map_err(|error| NetworkError::Post(Box::new(error)))
        })
    }
}
