//! The HTTP proxy of `[net] http_proxy`, which opens a tunnel to the host (RFC 9110 §9.3.6).

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::error::{HEAD_MAX, LOGIN_DEMANDED};
use super::steps::{Deadline, look_up_addresses, within_limit};
use super::{HttpsFault, HttpsStep, TunnelFault, Url};
use crate::config::ProxyAddress;
use crate::net::dns::Dns;
use crate::smtp::address::Host;

/// The begin of every response.
const HTTP: &[u8] = b"HTTP/1.";

/// Looks up the addresses of a proxy.
pub(super) async fn proxy_addresses(
    proxy: &ProxyAddress,
    dns: &Dns,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>, HttpsFault> {
    let found = match &proxy.host {
        Host::Literal(address) => return Ok(vec![SocketAddr::new(*address, proxy.port)]),
        Host::Domain(name) => look_up_addresses(dns, name, deadline).await,
    };
    let failed = |why: String| Err(HttpsFault::Proxy(TunnelFault::Lookup(why)));
    match found {
        Ok(found) if found.is_empty() => failed("the name has no address".to_owned()),
        Ok(found) => Ok(found
            .into_iter()
            .map(|address| SocketAddr::new(address, proxy.port))
            .collect()),
        Err(fault) => failed(fault.to_string()),
    }
}

/// Asks the proxy at the other end of a connection for a tunnel to the host of a URL. The proxy may
/// take half of the time of the request, since it dials the host.
pub(super) async fn open_tunnel(
    stream: &mut TcpStream,
    url: &Url,
    deadline: Deadline,
) -> Result<(), HttpsFault> {
    let target = format!("{}:{}", url.host(), url.port());
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let exchange = async {
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(|_| TunnelFault::Closed)?;
        read_head(stream).await
    };
    let limit = deadline.timeout / 2;
    let head = within_limit(deadline, limit, HttpsStep::Tunnel, exchange).await?;
    let status = head.and_then(|head| status(&head).ok_or(TunnelFault::NotHttp));
    let refused = match status {
        Ok(200..=299) => return Ok(()),
        Ok(LOGIN_DEMANDED) => TunnelFault::Login,
        Ok(status) => TunnelFault::Status(status),
        Err(fault) => fault,
    };
    Err(HttpsFault::Proxy(refused))
}

/// Reads the head of a response, octet by octet, since the octets behind it belong to TLS. A
/// response with status 2xx to CONNECT has no content.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, TunnelFault> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_MAX {
            return Err(TunnelFault::TooLong);
        }
        head.push(stream.read_u8().await.map_err(|_| TunnelFault::Closed)?);
        // A server of another protocol might wait for more from us.
        let begin = head.len().min(HTTP.len());
        if head[..begin] != HTTP[..begin] {
            return Err(TunnelFault::NotHttp);
        }
    }
    Ok(head)
}

/// Returns the status of a response, from its first line (RFC 9112 §4).
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|octet| *octet == b'\r').next()?;
    let code = std::str::from_utf8(line).ok()?.split(' ').nth(1)?;
    let is_code = code.len() == 3 && code.bytes().all(|octet| octet.is_ascii_digit());
    is_code.then(|| code.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_three_digits() {
        for (head, expected) in [
            (
                "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n",
                Some(200),
            ),
            ("HTTP/1.0 403\r\n\r\n", Some(403)),
            ("HTTP/1.1 +20 x\r\n\r\n", None),
            ("HTTP/1.1 2000 x\r\n\r\n", None),
            ("HTTP/1.1\r\nX: y 200\r\n\r\n", None),
            ("HTTP/1.1  200 OK\r\n\r\n", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
    }
}
