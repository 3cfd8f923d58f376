//! The connection of an HTTPS request: addresses, TCP, TLS handshake, and the check of the host's
//! certificate.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::proxy::{open_tunnel, proxy_addresses};
use super::steps::{
    Deadline, before_deadline, connect_error_text, look_up_addresses, within_limit,
};
use super::{HttpsError, HttpsFault, HttpsStep, Url};
use crate::config::ProxyAddress;
use crate::net::dns::Dns;
use crate::net::tls_io::{ClientTls, KnownHellos};
use crate::net::tls_io::{CompletedHandshake, HandshakeError, Role};
use crate::policy::tls::{
    Handshake, Hello, Hellos, NamePattern, PeerCertificate, SniUse, Strength, TlsPolicy,
};
use crate::smtp::address::Host;

/// Opens connections to HTTPS hosts. Clones share the resolver's cache.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) dns: Dns,
    pub(super) tls: ClientTls,
    /// The reduced `ClientHello`s of hosts that do not accept the default one.
    pub(super) hellos: KnownHellos,
    /// The proxy through which the hosts are reached.
    pub(super) proxy: Option<ProxyAddress>,
}

/// A TLS session with the host, whose certificate is valid for it.
pub(super) struct HttpsSession {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) address: SocketAddr,
    pub(super) tried: usize,
}

/// Tries the addresses of a host one after the other until a session succeeds.
pub(super) async fn dial(
    dialer: &Dialer,
    url: &Url,
    deadline: Deadline,
) -> Result<HttpsSession, HttpsError> {
    let failed = |address, tried, fault| HttpsError {
        url: url.clone(),
        proxy: dialer.proxy.clone(),
        address,
        tried,
        fault,
    };
    let addresses = match &dialer.proxy {
        Some(proxy) => proxy_addresses(proxy, &dialer.dns, deadline).await,
        None => look_up_addresses(&dialer.dns, url.host(), deadline)
            .await
            .map(|found| with_port(&found, url.port())),
    };
    let addresses = addresses.map_err(|fault| failed(None, 0, fault))?;
    let mut last = failed(None, 0, HttpsFault::NoAddress);
    for (tried, address) in (1..).zip(addresses) {
        match open_session(dialer, url, address, deadline).await {
            Ok(stream) => {
                return Ok(HttpsSession {
                    stream,
                    address,
                    tried,
                });
            }
            Err(fault) => last = failed(Some(address), tried, fault),
        }
        if Instant::now() >= deadline.at {
            break;
        }
    }
    Err(last)
}

fn with_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|address| SocketAddr::new(*address, port))
        .collect()
}

// Rule: RFC 8461 §3.3, §8.2.
async fn open_session(
    dialer: &Dialer,
    url: &Url,
    address: SocketAddr,
    deadline: Deadline,
) -> Result<TlsStream<TcpStream>, HttpsFault> {
    let (stream, seen) = handshake_or_reduce(dialer, url, address, deadline).await?;
    let against = dialer.tls.checks(None);
    let facts = before_deadline(
        deadline,
        HttpsStep::Handshake,
        seen.facts(against, Role::Server, Timestamp::now()),
    )
    .await?;
    let certificate = match facts.certificate {
        PeerCertificate::Nothing => return Err(HttpsFault::NoCertificate),
        PeerCertificate::Unproved(key) => return Err(HttpsFault::Unproved(key)),
        PeerCertificate::Certificate(certificate) => certificate,
    };
    certificate.chain.map_err(HttpsFault::Chain)?;
    let wanted = NamePattern::Exact(url.host().clone());
    if !certificate.names.iter().any(|name| wanted.accepts(name)) {
        return Err(HttpsFault::Name(certificate.names));
    }
    Ok(stream)
}

/// Performs the handshake with one address. If the host breaks it off, tries once more on a new
/// connection with a reduced `ClientHello`.
async fn handshake_or_reduce(
    dialer: &Dialer,
    url: &Url,
    address: SocketAddr,
    deadline: Deadline,
) -> Result<(TlsStream<TcpStream>, CompletedHandshake), HttpsFault> {
    let host = Host::Domain(url.host().clone());
    let known = dialer.hellos.get(&host, url.port());
    // The certificate must match the host's name, so SNI is always sent.
    let hellos = Hellos::new(
        &TlsPolicy::Opportunistic,
        Strength::PostQuantum,
        SniUse::Needed,
        known,
    );
    let fault = match handshake_once(dialer, url, hellos.first(), address, deadline).await {
        Err(fault) if may_take_another_hello(&fault) => fault,
        outcome => return outcome,
    };
    dialer.hellos.forget(&host, url.port());
    let Some(hello) = hellos.second().filter(|_| Instant::now() < deadline.at) else {
        return Err(fault);
    };
    match handshake_once(dialer, url, hello, address, deadline).await {
        Ok(session) => {
            dialer.hellos.remember(&host, url.port(), &hellos, hello);
            Ok(session)
        }
        Err(second_fault @ HttpsFault::Timeout { .. }) if second_fault == fault => {
            Err(second_fault)
        }
        Err(second_fault) => {
            let short = |fault: HttpsFault| match fault {
                HttpsFault::Handshake(error) => error.to_string(),
                other => other.to_string(),
            };
            let text = format!(
                "{}; once more, with {hello}: {}",
                short(fault),
                short(second_fault)
            );
            Err(HttpsFault::Handshake(HandshakeError::CutShort(text)))
        }
    }
}

/// Returns true if a handshake failed in a way that a reduced `ClientHello` may avoid.
fn may_take_another_hello(fault: &HttpsFault) -> bool {
    matches!(
        fault,
        HttpsFault::Handshake(HandshakeError::CutShort(_))
            | HttpsFault::Timeout {
                step: HttpsStep::Handshake,
                ..
            }
    )
}

async fn handshake_once(
    dialer: &Dialer,
    url: &Url,
    hello: Hello,
    address: SocketAddr,
    deadline: Deadline,
) -> Result<(TlsStream<TcpStream>, CompletedHandshake), HttpsFault> {
    let connecting = TcpStream::connect(address);
    let stream = within_limit(
        deadline,
        deadline.timeout / 6,
        HttpsStep::Connect,
        connecting,
    )
    .await?;
    let mut stream = stream.map_err(|error| HttpsFault::Connect(connect_error_text(&error)))?;
    if dialer.proxy.is_some() {
        open_tunnel(&mut stream, url, deadline).await?;
    }
    let host = Host::Domain(url.host().clone());
    let handshake = dialer.tls.connect(stream, &host, hello, Handshake::Full);
    within_limit(
        deadline,
        deadline.timeout / 4,
        HttpsStep::Handshake,
        handshake,
    )
    .await?
    .map_err(HttpsFault::Handshake)
}
