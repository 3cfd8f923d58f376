//! The source of policies: the TXT record `_mta-sts.DOMAIN` and
//! `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` (RFC 8461 §3.1, §3.3).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::failure::{MtaStsFailure, NoPolicy};
use super::policy::{BODY_MAX, MtaStsPolicy, PolicyTerms};
use super::record::{self, PolicyId, RecordFault};
use crate::net::dns::Dns;
use crate::net::https::{self, Https, HttpsError, HttpsFault, HttpsResponse, Url};
use crate::smtp::address::Domain;

/// The time limit of an HTTPS fetch: what DNS leaves of the minute that RFC 8461 §3.3 suggests.
pub const POLICY_FETCH_TIMEOUT: Duration = Duration::from_secs(55);
/// The path of every policy (RFC 8461 §3.3).
const PATH: &str = "/.well-known/mta-sts.txt";

/// The MTA-STS record of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MtaStsRecord {
    Id(PolicyId),
    None,
    Unusable(RecordFault),
}

pub(super) type BoxedLookup<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, MtaStsFailure>> + Send + 'a>>;

/// A source of records and policies; a script in tests.
pub(super) trait PolicySource: Send + Sync {
    /// Looks up the record of a domain.
    fn record<'a>(&'a self, domain: &'a Domain) -> BoxedLookup<'a, MtaStsRecord>;
    /// Fetches the policy of a domain.
    fn terms<'a>(&'a self, domain: &'a Domain) -> BoxedLookup<'a, PolicyTerms>;
}

/// The resolver and the HTTPS client that policies are fetched with.
#[derive(Clone)]
pub struct WebSource {
    dns: Dns,
    https: Https,
    port: u16,
}

impl std::fmt::Debug for WebSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSource")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl WebSource {
    /// Creates a source that fetches from port 443, within 55 seconds.
    #[must_use]
    pub fn new(dns: Dns, https: Https) -> Self {
        Self {
            dns,
            https: https.with_timeout(POLICY_FETCH_TIMEOUT),
            port: https::DEFAULT_PORT,
        }
    }

    /// Sets another port and time limit, for policy hosts that are simulated on this machine.
    #[must_use]
    pub fn with_port_and_timeout(mut self, port: u16, limit: Duration) -> Self {
        self.port = port;
        self.https = self.https.with_timeout(limit);
        self
    }

    /// Fetches a policy without a cache. `now` becomes its time of fetching.
    ///
    /// # Errors
    /// [`NoPolicy`].
    pub async fn look_up_uncached(
        &self,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<MtaStsPolicy, NoPolicy> {
        let failed = |failure| NoPolicy::Failed(Arc::new(failure));
        let id = match self.record(domain).await.map_err(failed)? {
            MtaStsRecord::Id(id) => id,
            MtaStsRecord::None => return Err(NoPolicy::NoRecord),
            MtaStsRecord::Unusable(fault) => return Err(NoPolicy::Unusable(fault)),
        };
        let terms = self.terms(domain).await.map_err(failed)?;
        Ok(MtaStsPolicy {
            domain: domain.clone(),
            id,
            terms,
            fetched: now,
        })
    }

    async fn look_up_record(&self, domain: &Domain) -> Result<MtaStsRecord, MtaStsFailure> {
        let answer = self.dns.txt(&format!("_mta-sts.{domain}")).await;
        let answer = answer.map_err(|error| MtaStsFailure::Lookup(error.to_string()))?;
        Ok(
            match record::id(answer.records().iter().map(String::as_str)) {
                Ok(Some(id)) => MtaStsRecord::Id(id),
                Ok(None) => MtaStsRecord::None,
                Err(fault) => MtaStsRecord::Unusable(fault),
            },
        )
    }

    async fn fetch_policy(&self, domain: &Domain) -> Result<PolicyTerms, MtaStsFailure> {
        // If the domain is so long that "mta-sts." does not fit before it, it has no policy host.
        let host = Domain::parse(&format!("mta-sts.{domain}")).map_err(|_| {
            MtaStsFailure::Lookup(format!("mta-sts.{domain} cannot be the name of a host"))
        })?;
        let url = Url::new(host, self.port, PATH).map_err(|error| {
            MtaStsFailure::Lookup(format!("its policy host cannot be queried: {error}"))
        })?;
        let answer = match self.https.get(&url, BODY_MAX).await {
            Ok(answer) => answer,
            Err(HttpsError {
                fault: HttpsFault::TooLarge(_),
                ..
            }) => {
                return Err(MtaStsFailure::Invalid(super::PolicyFault::TooLong));
            }
            Err(error) => return Err(MtaStsFailure::Fetch(Box::new(error))),
        };
        if !is_plain_text(&answer) {
            return Err(MtaStsFailure::ContentType(answer.content_type));
        }
        PolicyTerms::parse(&answer.body).map_err(MtaStsFailure::Invalid)
    }
}

impl PolicySource for WebSource {
    fn record<'a>(&'a self, domain: &'a Domain) -> BoxedLookup<'a, MtaStsRecord> {
        Box::pin(self.look_up_record(domain))
    }

    fn terms<'a>(&'a self, domain: &'a Domain) -> BoxedLookup<'a, PolicyTerms> {
        Box::pin(self.fetch_policy(domain))
    }
}

/// Returns true if the Content-Type of a response is text/plain, with any parameters. Without this
/// check, a page or picture that a user has uploaded to the host could become its policy (RFC 8461
/// §3.2).
fn is_plain_text(answer: &HttpsResponse) -> bool {
    let kind = answer.content_type.as_deref().unwrap_or_default();
    kind.split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/plain"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_text_can_be_a_policy() {
        for (kind, plain) in [
            (Some("text/plain"), true),
            (Some("Text/Plain; charset=utf-8"), true),
            (Some("text/plain ;charset=us-ascii;x=y"), true),
            (Some("text/html"), false),
            (Some("text/plainer"), false),
            (Some("application/octet-stream; text/plain"), false),
            (Some(""), false),
            (None, false),
        ] {
            let answer = HttpsResponse {
                status: 200,
                content_type: kind.map(str::to_owned),
                body: bytes::Bytes::new(),
            };
            assert_eq!(is_plain_text(&answer), plain, "{kind:?}");
        }
    }
}
