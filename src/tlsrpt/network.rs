//! The world outside, as reports need it: who asks for them, and those who want them by HTTPS.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::dns::{AnswerRecords, Dns};
use crate::https::{Https, Url};

/// What a [`Network`] comes back with; trouble in words, and all of it is worth another try.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// DNS and HTTPS.
pub trait Network: Send + Sync + 'static {
    /// The TXT records at a name, the character-strings of each joined; none where there are none.
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>>;
    /// Posts a report (RFC 8460 §5.4) to a host whose certificate is trusted, within a bounded time; no
    /// redirect is followed. `Ok` is a status of success.
    fn post<'a>(&'a self, to: &'a Url, report: Bytes) -> Answer<'a, ()>;
}

/// Our resolver and our HTTPS; both can be replaced while reports are under way.
pub struct Internet(ArcSwap<(Dns, Https)>);

impl fmt::Debug for Internet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Internet")
    }
}

impl Internet {
    /// Asks and posts with these.
    #[must_use]
    pub fn new(dns: Dns, https: Https) -> Self {
        Self(ArcSwap::from_pointee((dns, https)))
    }

    /// Asks and posts with others from now on.
    pub fn replace(&self, dns: Dns, https: Https) {
        self.0.store((dns, https).into());
    }
}

impl Network for Internet {
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>> {
        let with = self.0.load_full();
        Box::pin(async move {
            let answer = with.0.txt(name).await.map_err(|error| error.to_string())?;
            match answer.found {
                AnswerRecords::Records(texts) => Ok(texts),
                AnswerRecords::NoData | AnswerRecords::NoDomain => Ok(Vec::new()),
            }
        })
    }

    fn post<'a>(&'a self, to: &'a Url, report: Bytes) -> Answer<'a, ()> {
        let with = self.0.load_full();
        Box::pin(async move {
            let posted = with.1.post(to, "application/tlsrpt+gzip", report).await;
            posted.map(|_| ()).map_err(|error| error.to_string())
        })
    }
}
