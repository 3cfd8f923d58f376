//! A client for plain HTTP, which fetches CRLs (RFC 5280 §4.2.1.13). A CRL is signed, so that its
//! transport needs no protection.
//!
//! The URLs come from certificates on a path to a connector's trust anchors. Nevertheless no request
//! goes to this machine, to its link, or to a port of another service; to private networks only for
//! authorities that the administrator has named in a file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{
    ETAG, HOST, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, USER_AGENT,
};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::exchange::{read_body, send};
use super::proxy::proxy_addresses;
use super::steps::{
    Deadline, before_deadline, connect_error_text, look_up_addresses, within_limit,
};
use super::{HttpsFault, HttpsStep, TunnelFault, Url, UrlError};
use crate::config::ProxyAddress;
use crate::net::dns::Dns;
use crate::net::revocation::{
    CrlFuture, CrlRequest, CrlResponse, CrlValidators, FETCHED_OCTETS_MAX, FetchCrl, Reach,
};
use crate::smtp::address::Domain;

/// The time limit of a request, from the address lookup to the last octet.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The privileged port that may be used; others belong to other services.
const PORT: u16 = 80;
/// The first port that is not privileged.
const UNPRIVILEGED: u16 = 1024;

/// The client.
#[derive(Clone)]
pub struct PlainHttp {
    dns: Dns,
    proxy: Option<ProxyAddress>,
    allows_loopback: bool,
    timeout: Duration,
}

impl fmt::Debug for PlainHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainHttp")
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

/// The reason why a URL yields no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum PlainHttpError {
    /// The URL is not usable.
    #[error("{0}")]
    Url(#[from] UrlError),
    /// The port is that of another service.
    #[error("port {0} belongs to another service; only 80 and those from 1024 on are used")]
    Port(u16),
    /// The name is of this machine, or of a private network.
    #[error("{0} is no name of the Internet; put the CRL into a file of `crl`")]
    LocalName(Domain),
    /// All addresses of the host are forbidden; the first of them.
    #[error("the host is at {0}, from where no CRL is fetched; put it into a file of `crl`")]
    Address(IpAddr),
    /// The request failed.
    #[error("{0}")]
    Http(HttpsFault),
}

impl From<HttpsFault> for PlainHttpError {
    fn from(fault: HttpsFault) -> Self {
        Self::Http(fault)
    }
}

impl PlainHttp {
    /// Creates a client with a resolver. With a proxy all requests go to that, and it looks up the
    /// names.
    #[must_use]
    pub fn new(dns: Dns, proxy: Option<ProxyAddress>) -> Self {
        Self {
            dns,
            proxy,
            allows_loopback: false,
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// Allows requests to this machine, for the demo and tests.
    #[must_use]
    pub fn with_loopback(self, allows_loopback: bool) -> Self {
        Self {
            allows_loopback,
            ..self
        }
    }

    /// Sets the time limit of a request.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    // Rule: policy table (revocation).
    async fn get(&self, request: CrlRequest<'_>) -> Result<CrlResponse, PlainHttpError> {
        let url = Url::parse_http(request.url)?;
        if url.port() != PORT && url.port() < UNPRIVILEGED {
            return Err(PlainHttpError::Port(url.port()));
        }
        if is_local_name(url.host(), request.reach) {
            return Err(PlainHttpError::LocalName(url.host().clone()));
        }
        let deadline = Deadline {
            at: Instant::now() + self.timeout,
            timeout: self.timeout,
        };
        let message = self
            .message(&url, request.held)
            .map_err(|error| HttpsFault::Http(error.to_string()))?;
        let stream = self.connect(&url, request.reach, deadline).await?;
        let (answer, _driver) = send(stream, message, deadline).await?;
        match answer.status().as_u16() {
            200 => {}
            304 if request.held.is_some() => return Ok(CrlResponse::Unchanged),
            407 if self.proxy.is_some() => {
                return Err(HttpsFault::Proxy(TunnelFault::Login).into());
            }
            status @ 300..=399 => return Err(HttpsFault::Redirect(status).into()),
            status => return Err(HttpsFault::Status(status).into()),
        }
        let validators = validators(answer.headers());
        let body = read_body(answer.into_body(), FETCHED_OCTETS_MAX);
        let body = before_deadline(deadline, HttpsStep::Body, body).await??;
        Ok(CrlResponse::Content(body, validators))
    }

    /// Makes the request. A proxy gets the complete URL (RFC 9112 §3.2.2).
    fn message(
        &self,
        url: &Url,
        held: Option<&CrlValidators>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let target = match &self.proxy {
            Some(_) => url.to_string(),
            None => url.path().to_owned(),
        };
        let mut request = Request::builder()
            .uri(target)
            .header(HOST, url.authority())
            .header(USER_AGENT, concat!("Gatepost/", env!("CARGO_PKG_VERSION")));
        if let Some(held) = held {
            for (name, value) in [
                (IF_NONE_MATCH, &held.etag),
                (IF_MODIFIED_SINCE, &held.last_modified),
            ] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
        }
        request.body(Full::default())
    }

    async fn connect(
        &self,
        url: &Url,
        reach: Reach,
        deadline: Deadline,
    ) -> Result<TcpStream, PlainHttpError> {
        let addresses = match &self.proxy {
            Some(proxy) => proxy_addresses(proxy, &self.dns, deadline).await?,
            None => self.addresses(url, reach, deadline).await?,
        };
        let mut last = HttpsFault::NoAddress;
        for address in addresses {
            let connecting = TcpStream::connect(address);
            let step = HttpsStep::Connect;
            match within_limit(deadline, deadline.timeout / 6, step, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = HttpsFault::Connect(connect_error_text(&error)),
                Err(fault) => last = fault,
            }
        }
        Err(last.into())
    }

    /// Returns the addresses of a host from which a CRL may be fetched. The connection goes to one
    /// of these, so that no later answer of a name server leads it elsewhere.
    async fn addresses(
        &self,
        url: &Url,
        reach: Reach,
        deadline: Deadline,
    ) -> Result<Vec<SocketAddr>, PlainHttpError> {
        let found = look_up_addresses(&self.dns, url.host(), deadline).await?;
        let allowed = found
            .iter()
            .filter(|address| is_allowed(**address, reach, self.allows_loopback));
        let allowed: Vec<_> = allowed
            .map(|address| SocketAddr::new(*address, url.port()))
            .collect();
        match found.first() {
            Some(first) if allowed.is_empty() => Err(PlainHttpError::Address(*first)),
            Some(_) | None => Ok(allowed),
        }
    }
}

/// Returns true if a CRL may be fetched from this address.
fn is_allowed(address: IpAddr, reach: Reach, allows_loopback: bool) -> bool {
    let address = address.to_canonical();
    if address.is_loopback() {
        return allows_loopback;
    }
    match reach {
        Reach::Public => is_public(address),
        Reach::Private => is_public(address) || is_private(address),
    }
}

impl FetchCrl for PlainHttp {
    fn fetch<'a>(&'a self, request: CrlRequest<'a>) -> CrlFuture<'a> {
        Box::pin(async move { self.get(request).await.map_err(Into::into) })
    }
}

fn validators(fields: &HeaderMap) -> CrlValidators {
    let value = |name: HeaderName| fields.get(name).and_then(|value| value.to_str().ok());
    CrlValidators::new(value(ETAG), value(LAST_MODIFIED))
}

/// Returns true for a name that a resolver, or that of the proxy, may take for this machine or, if
/// only the Internet may be reached, for one of the own network.
fn is_local_name(name: &Domain, reach: Reach) -> bool {
    let name = name.to_string().to_ascii_lowercase();
    let is_host = name == "localhost" || name.ends_with(".localhost");
    is_host || (reach == Reach::Public && !name.contains('.'))
}

/// Returns true for an address of the private networks of an organisation (RFC 1918, RFC 4193, RFC
/// 6598).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// Returns true for an address of the Internet. Those of the own machine, link or organisation,
/// multicast, and those reserved are not (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(v4) => is_special_v4(v4),
        IpAddr::V6(v6) => is_special_v6(v6),
    };
    !is_special && !is_private(address)
}

fn is_special_v4(v4: Ipv4Addr) -> bool {
    let [first, second, third, _] = v4.octets();
    first == 0
        || first >= 240
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || [first, second, third] == [192, 0, 0]
        // Tests of networks (RFC 2544).
        || (first == 198 && second & 0xfe == 18)
}

fn is_special_v6(v6: Ipv6Addr) -> bool {
    let [first, second, ..] = v6.segments();
    // Unspecified, loopback, and IPv4 addresses in old forms.
    v6.segments()[..6] == [0; 6]
        || v6.is_unicast_link_local()
        || v6.is_multicast()
        // Addresses of a site (RFC 3879).
        || first & 0xffc0 == 0xfec0
        // IPv4 addresses behind NAT64, 6to4 and Teredo, whatever they are (RFC 6052, RFC 3056, RFC
        // 4380).
        || [first, second] == [0x64, 0xff9b]
        || first == 0x2002
        || [first, second] == [0x2001, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for (address, public, private) in [
            ("93.184.215.14", true, false),
            ("2606:4700::1", true, false),
            ("10.0.0.1", false, true),
            ("172.31.0.1", false, true),
            ("172.32.0.1", true, false),
            ("192.168.1.1", false, true),
            ("100.64.0.1", false, true),
            ("100.128.0.1", true, false),
            ("fd00::1", false, true),
            ("127.0.0.1", false, false),
            ("0.0.0.0", false, false),
            ("169.254.169.254", false, false),
            ("192.0.0.1", false, false),
            ("198.19.0.1", false, false),
            ("198.20.0.1", true, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("::", false, false),
            ("::1", false, false),
            ("::10.0.0.1", false, false),
            ("fe80::1", false, false),
            ("fec0::1", false, false),
            ("ff02::1", false, false),
            ("64:ff9b::a00:1", false, false),
            ("2002:a00:1::1", false, false),
            ("2001::1", false, false),
            ("2001:db8::1", true, false),
        ] {
            let parsed: IpAddr = address.parse().expect(address);
            assert_eq!(
                (is_public(parsed), is_private(parsed)),
                (public, private),
                "{address}"
            );
        }
    }

    #[test]
    fn an_authority_in_a_file_may_name_a_private_network() {
        for (address, for_public, for_file) in [
            ("93.184.215.14", true, true),
            ("10.0.0.1", false, true),
            ("::ffff:10.0.0.1", false, true),
            ("fd00::1", false, true),
            ("127.0.0.1", false, false),
            ("::ffff:127.0.0.1", false, false),
            ("169.254.169.254", false, false),
        ] {
            let parsed = address.parse().expect(address);
            let allowed = |reach| is_allowed(parsed, reach, false);
            assert_eq!(
                (allowed(Reach::Public), allowed(Reach::Private)),
                (for_public, for_file),
                "{address}"
            );
        }
    }

    #[test]
    fn a_name_of_this_machine_is_never_asked() {
        for (name, for_public, for_file) in [
            ("crl.example.com", false, false),
            ("pki", true, false),
            ("localhost", true, true),
            ("LocalHost", true, true),
            ("crl.localhost", true, true),
        ] {
            let name = Domain::parse(name).expect("a name");
            assert_eq!(
                (
                    is_local_name(&name, Reach::Public),
                    is_local_name(&name, Reach::Private)
                ),
                (for_public, for_file),
                "{name}"
            );
        }
    }
}
