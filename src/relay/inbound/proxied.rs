//! The PROXY header of a load balancer (`HAProxy`'s proxy-protocol.txt, versions 1 and 2), which
//! names the client.
//!
//! It is required on connections from the networks of `[[listener]] proxy_protocol`, and accepted
//! from no others. Its statements about TLS are ignored: facts about TLS come from our own
//! handshake.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The first octets of a version 2 header. No version 1 header is shorter.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_1: &[u8] = b"PROXY ";
/// The maximum length of a version 1 header in octets (§2.1).
const LINE_MAX: usize = 107;
/// The maximum length of the variable part of a version 2 header, behind its first 16 octets:
/// addresses and TLVs.
const VARIABLE_MAX: usize = 4096;

/// The reason for which a PROXY header is rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyFault {
    /// The connection begins with something else.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// The header is not well formed.
    #[error("its PROXY header is malformed")]
    Malformed,
    /// The header describes a connection that is not TCP.
    #[error("its PROXY header does not describe a TCP connection")]
    NotTcp,
    /// The connection was closed without any octet, as by a load balancer's check of the port.
    #[error("it was closed before its PROXY header")]
    Empty,
    /// The connection ended within the header.
    #[error("it ended within its PROXY header: {0}")]
    Broken(#[from] io::Error),
}

/// The origin of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client, with its own address or the address that the PROXY header names.
    Client(SocketAddr),
    /// A load balancer whose header names no client (`PROXY UNKNOWN`, or LOCAL in version 2), as in
    /// a health check. It has no rights by its address, since a client behind it is unknown.
    Balancer(SocketAddr),
}

impl Origin {
    /// Returns the address for logs and evidence.
    pub(super) fn address(self) -> SocketAddr {
        match self {
            Self::Client(address) | Self::Balancer(address) => address,
        }
    }

    /// Returns the address of the client, if it is known.
    pub(super) fn client(self) -> Option<IpAddr> {
        match self {
            Self::Client(address) => Some(address.ip()),
            Self::Balancer(_) => None,
        }
    }
}

/// Returns true if `peer` is in one of the networks, which are those of `proxy_protocol` or of
/// `xclient`.
pub(super) fn is_listed(networks: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    networks.iter().any(|network| network.contains(&peer))
}

/// Reads the PROXY header and no octet behind it. Returns the client's address, or `None` if the
/// header names no client, as in a health check.
pub(super) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, ProxyFault> {
    let mut header = vec![0; SIGNATURE.len()];
    let first = stream.read(&mut header).await?;
    if first == 0 {
        return Err(ProxyFault::Empty);
    }
    stream.read_exact(&mut header[first..]).await?;
    if header == SIGNATURE {
        header.resize(SIGNATURE.len() + 4, 0);
        stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if rest > VARIABLE_MAX {
            return Err(ProxyFault::Malformed);
        }
        header.resize(header.len() + rest, 0);
        stream
            .read_exact(&mut header[SIGNATURE.len() + 4..])
            .await?;
        parse_version_2(&header)
    } else if header.starts_with(VERSION_1) {
        // Octets behind the line belong to the session, so the line is read octet by octet.
        while !header.ends_with(b"\n") {
            if header.len() >= LINE_MAX {
                return Err(ProxyFault::Malformed);
            }
            header.push(stream.read_u8().await?);
        }
        parse_version_1(&header)
    } else {
        Err(ProxyFault::Missing)
    }
}

/// Parses a version 1 header (§2.1). The library is not used for it, since it accepts ports with a
/// sign or leading zeros, and any protocol name that begins with UNKNOWN.
fn parse_version_1(line: &[u8]) -> Result<Option<SocketAddr>, ProxyFault> {
    let line = line
        .strip_suffix(b"\r\n")
        .filter(|line| !line.contains(&b'\r'))
        .ok_or(ProxyFault::Malformed)?;
    // Everything behind UNKNOWN is ignored (§2.1).
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Ok(None);
    }
    parse_tcp(line).map(Some).ok_or(ProxyFault::Malformed)
}

/// Parses a version 1 header with addresses and returns the source.
fn parse_tcp(line: &[u8]) -> Option<SocketAddr> {
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let [
        "PROXY",
        family,
        source,
        destination,
        source_port,
        destination_port,
    ] = words[..]
    else {
        return None;
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse().ok().map(IpAddr::V4),
        "TCP6" => text.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| port.to_string() == text)
    };
    address(destination).and(port(destination_port))?;
    Some(SocketAddr::new(address(source)?, port(source_port)?))
}

/// Parses a version 2 header (§2.2).
fn parse_version_2(header: &[u8]) -> Result<Option<SocketAddr>, ProxyFault> {
    let parsed = ProxyHeader::parse(
        header,
        ParseConfig {
            include_tlvs: false,
            ..ParseConfig::default()
        },
    );
    let (parsed, _) = parsed.map_err(|_| ProxyFault::Malformed)?;
    match parsed.proxied_address() {
        None => Ok(None),
        Some(ProxiedAddress {
            protocol: Protocol::Stream,
            source,
            ..
        }) => Ok(Some(*source)),
        Some(ProxiedAddress {
            protocol: Protocol::Datagram,
            ..
        }) => Err(ProxyFault::NotTcp),
    }
}

/// Reads a header for the fuzzer. Returns the client that it names, and the octets behind it.
///
/// # Errors
/// Returns the text of the [`ProxyFault`].
#[cfg(fuzzing)]
pub async fn fuzzed(mut octets: &[u8]) -> Result<(Option<SocketAddr>, &[u8]), String> {
    let named = read_header(&mut octets)
        .await
        .map_err(|fault| fault.to_string())?;
    Ok((named, octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4: &[u8] = b"\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x01\x04\xd2\0\x19";

    /// Returns a version 2 header with this command octet and the octets behind it.
    fn v2(command: u8, rest: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &[command], rest].concat()
    }

    async fn read(header: &[u8]) -> (String, Vec<u8>) {
        let all = [header, b"EHLO"].concat();
        let mut stream = &all[..];
        let result = match read_header(&mut stream).await {
            Ok(Some(address)) => address.to_string(),
            Ok(None) => "its own".to_owned(),
            Err(fault) => fault.to_string(),
        };
        (result, stream.to_vec())
    }

    #[tokio::test]
    async fn a_header_is_read_and_nothing_behind_it() {
        let with_more = [b"\x11\0\x12", &IPV4[3..], b"\x04\0\x03abc"].concat();
        for (header, client) in [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 25\r\n".to_vec(),
                "192.0.2.1:1234",
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 1234 25\r\n".to_vec(),
                "[2001:db8::1]:1234",
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), "its own"),
            (
                b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(),
                "its own",
            ),
            (v2(0x21, IPV4), "192.0.2.1:1234"),
            (v2(0x21, &with_more), "192.0.2.1:1234"),
            (v2(0x20, b"\0\0\0"), "its own"),
            // The addresses of a LOCAL header are ignored (§2.2).
            (v2(0x20, IPV4), "its own"),
        ] {
            assert_eq!(
                read(&header).await,
                (client.to_owned(), b"EHLO".to_vec()),
                "{header:?}"
            );
        }
    }

    #[tokio::test]
    async fn malformed_headers_are_rejected() {
        let none = "the connection does not begin with a PROXY header";
        let bad = "its PROXY header is malformed";
        let long = format!("PROXY TCP4 192.0.2.1 {} 1234 25\r\n", "1".repeat(100));
        let datagram = [b"\x12", &IPV4[1..]].concat();
        for (header, fault) in [
            (b"EHLO client.example\r\n".to_vec(), none),
            (b"proxy TCP4 192.0.2.1 10.0.0.1 1234 25\r\n".to_vec(), none),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 1234\r\n".to_vec(), bad),
            (b"PROXY TCP4 192.0.2.256 10.0.0.1 1234 25\r\n".to_vec(), bad),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 25\n".to_vec(), bad),
            (b"PROXY TCP5 192.0.2.1 10.0.0.1 1234 25\r\n".to_vec(), bad),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 +1234 25\r\n".to_vec(), bad),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 025\r\n".to_vec(), bad),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1  1234 25\r\n".to_vec(), bad),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 25 \r\n".to_vec(), bad),
            (
                b"PROXY TCP4 2001:db8::1 2001:db8::2 1234 25\r\n".to_vec(),
                bad,
            ),
            (b"PROXY UNKNOWNS 192.0.2.1\r\n".to_vec(), bad),
            (b"PROXY UNKNOWN\r\r\n".to_vec(), bad),
            (long.into_bytes(), bad),
            (v2(0x22, IPV4), bad),
            (v2(0x31, IPV4), bad),
            (v2(0x21, b"\x11\0\x02ab"), bad),
            (v2(0x21, b"\x11\xff\xff"), bad),
            (
                v2(0x21, &datagram),
                "its PROXY header does not describe a TCP connection",
            ),
        ] {
            assert_eq!(read(&header).await.0, fault, "{header:?}");
        }
        let mut cut = &b"PROXY TCP4 192.0.2.1"[..];
        assert!(matches!(
            read_header(&mut cut).await,
            Err(ProxyFault::Broken(_))
        ));
        assert!(matches!(
            read_header(&mut &b""[..]).await,
            Err(ProxyFault::Empty)
        ));
    }
}
