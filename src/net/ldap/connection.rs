//! One connection to a directory server.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::error::LdapError;
use super::message::{self, DirectoryResponse, LdapResult};
use crate::net::dns::Dns;
use crate::net::tls_io::{ClientTls, HandshakeError};
use crate::policy::directory::{DirectoryTls, DirectoryUrl, LdapFilter, ber};
use crate::policy::tls::Groups;
use crate::smtp::address::{Host, Mailbox};

/// The time limit of a TCP connection to one address.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// The time limit of an answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The most addresses that are tried.
const ADDRESSES_MAX: usize = 3;
/// The longest message in octets, and the most messages of one search.
const MESSAGE_MAX: usize = 64 * 1024;
const MESSAGES_MAX: usize = 100;
const READ_SIZE: usize = 4096;
/// The result codes of RFC 4511 §4.1.9 that an answer can have.
const SUCCESS: u32 = 0;
const SIZE_LIMIT_EXCEEDED: u32 = 4;

enum LdapStream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to a directory server.
pub(super) struct LdapConnection {
    stream: LdapStream,
    input: BytesMut,
    last_id: u32,
}

/// Limits the time of a step.
async fn limited<T>(
    step: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, LdapError>>,
) -> Result<T, LdapError> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(LdapError::Timeout { step, limit }),
    }
}

impl LdapConnection {
    /// Connects, with the TLS that the URL demands, and checks the server's certificate.
    pub(super) async fn open(
        url: &DirectoryUrl,
        client: &ClientTls,
        dns: &Dns,
    ) -> Result<Self, LdapError> {
        let mut failure = None;
        for address in addresses(url, dns).await? {
            match Self::open_at(url, client, SocketAddr::new(address, url.port)).await {
                Ok(connection) => return Ok(connection),
                // What is wrong with a server says more than that nobody listens elsewhere.
                Err(LdapError::Connect(_)) if failure.is_some() => {}
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| LdapError::Lookup("there is none".to_owned())))
    }

    /// Connects to one address. If the server breaks the handshake off, tries once more with a
    /// smaller `ClientHello`.
    async fn open_at(
        url: &DirectoryUrl,
        client: &ClientTls,
        address: SocketAddr,
    ) -> Result<Self, LdapError> {
        match Self::open_once(url, client, address, Groups::PostQuantumFirst).await {
            Err(LdapError::Handshake(HandshakeError::CutShort(_))) => {
                Self::open_once(url, client, address, Groups::Classical).await
            }
            outcome => outcome,
        }
    }

    async fn open_once(
        url: &DirectoryUrl,
        client: &ClientTls,
        address: SocketAddr,
        groups: Groups,
    ) -> Result<Self, LdapError> {
        let connecting = async {
            TcpStream::connect(address)
                .await
                .map_err(LdapError::Connect)
        };
        let stream = limited("the connection", CONNECT_TIME, connecting).await?;
        // A request is one write, so delaying it would only cost time.
        let _ = stream.set_nodelay(true);
        let mut connection = Self {
            stream: LdapStream::Clear(stream),
            input: BytesMut::new(),
            last_id: 0,
        };
        match url.tls {
            DirectoryTls::Off => return Ok(connection),
            DirectoryTls::Implicit => {}
            DirectoryTls::StartTls => connection.ask_for_tls().await?,
        }
        let LdapStream::Clear(stream) = connection.stream else {
            return Ok(connection);
        };
        // The configuration rejects an address with TLS.
        let secured = async {
            let verified = client.connect_verified(stream, &url.host, groups);
            Ok(verified.await?.0)
        };
        let stream = limited("the TLS handshake", ANSWER_TIME, secured).await?;
        Ok(Self {
            stream: LdapStream::Tls(Box::new(stream)),
            input: BytesMut::new(),
            last_id: connection.last_id,
        })
    }

    /// Asks for TLS (RFC 4511 §4.14).
    async fn ask_for_tls(&mut self) -> Result<(), LdapError> {
        let id = self.next_id();
        self.send(&message::start_tls(id)).await?;
        let DirectoryResponse::Extended(result) = self.response(id, "StartTLS").await? else {
            return Err(ber::BerError.into());
        };
        accepted(result, "StartTLS")?;
        // Whoever injected this could inject more.
        if self.input.is_empty() {
            Ok(())
        } else {
            Err(LdapError::SpokeBeforeHandshake)
        }
    }

    /// Logs in.
    pub(super) async fn bind(&mut self, name: &str, password: &str) -> Result<(), LdapError> {
        let id = self.next_id();
        self.send(&message::bind(id, name, password)).await?;
        match self.response(id, "bind").await? {
            DirectoryResponse::Bind(result) => accepted(result, "bind"),
            _ => Err(ber::BerError.into()),
        }
    }

    /// Returns true if the filter matches an entry below `base`.
    pub(super) async fn search(
        &mut self,
        base: &str,
        filter: &LdapFilter,
        mailbox: &Mailbox,
    ) -> Result<bool, LdapError> {
        let id = self.next_id();
        self.send(&message::search(id, base, filter, mailbox))
            .await?;
        let searching = async {
            let mut found = false;
            for _ in 0..MESSAGES_MAX {
                match self.response(id, "search").await? {
                    DirectoryResponse::Entry => found = true,
                    // Another server may know more, but the administrator named this one.
                    DirectoryResponse::Reference => {}
                    // More entries than one match.
                    DirectoryResponse::Done(LdapResult {
                        code: SIZE_LIMIT_EXCEEDED,
                        ..
                    }) if found => return Ok(true),
                    DirectoryResponse::Done(result) => {
                        return accepted(result, "search").map(|()| found);
                    }
                    DirectoryResponse::Bind(_) | DirectoryResponse::Extended(_) => {
                        return Err(ber::BerError.into());
                    }
                }
            }
            Err(LdapError::TooLong)
        };
        limited("search", ANSWER_TIME, searching).await
    }

    fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        self.last_id
    }

    async fn send(&mut self, request: &[u8]) -> Result<(), LdapError> {
        let sending = async {
            let sent = match &mut self.stream {
                LdapStream::Clear(stream) => stream.write_all(request).await,
                LdapStream::Tls(stream) => match stream.write_all(request).await {
                    Ok(()) => stream.flush().await,
                    failed => failed,
                },
            };
            sent.map_err(LdapError::Broken)
        };
        limited("a request", ANSWER_TIME, sending).await
    }

    /// Reads the response to a request. A notice without a request (RFC 4511 §4.4) means that the
    /// server closes the connection.
    async fn response(
        &mut self,
        id: u32,
        step: &'static str,
    ) -> Result<DirectoryResponse, LdapError> {
        let reading = async {
            loop {
                if let Some(length) = ber::element_length(&self.input, MESSAGE_MAX)?
                    && self.input.len() >= length
                {
                    let (answered, response) = message::parse(&self.input[..length])?;
                    self.input.advance(length);
                    return match (answered, response) {
                        (0, DirectoryResponse::Extended(_)) => Err(LdapError::Closed),
                        (answered, response) if answered == id => Ok(response),
                        _ => Err(ber::BerError.into()),
                    };
                }
                self.input.reserve(READ_SIZE);
                let read = match &mut self.stream {
                    LdapStream::Clear(stream) => stream.read_buf(&mut self.input).await,
                    LdapStream::Tls(stream) => stream.read_buf(&mut self.input).await,
                };
                match read {
                    Ok(0) => return Err(LdapError::Closed),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(LdapError::Closed);
                    }
                    Err(error) => return Err(LdapError::Broken(error)),
                    Ok(_) => {}
                }
            }
        };
        limited(step, ANSWER_TIME, reading).await
    }
}

fn accepted(result: LdapResult, operation: &'static str) -> Result<(), LdapError> {
    if result.code == SUCCESS {
        return Ok(());
    }
    Err(LdapError::Refused {
        operation,
        code: result.code,
        text: result.text,
    })
}

/// Returns the addresses of the server.
async fn addresses(url: &DirectoryUrl, dns: &Dns) -> Result<Vec<IpAddr>, LdapError> {
    let domain = match &url.host {
        Host::Literal(address) => return Ok(vec![*address]),
        Host::Domain(_) if url.is_local() => {
            return Ok(vec![
                IpAddr::from(std::net::Ipv4Addr::LOCALHOST),
                IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
            ]);
        }
        Host::Domain(domain) => domain,
    };
    let found = dns.addresses(domain).await;
    let found = found.map_err(|error| LdapError::Lookup(error.to_string()))?;
    Ok(found
        .records()
        .iter()
        .copied()
        .take(ADDRESSES_MAX)
        .collect())
}
