//! A DNS server over UDP and TCP on one port of loopback (RFC 1035 §4.2).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinEncodable as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// The number of ports that are tried, since a port that is free for TCP may be in use for UDP.
const PORT_ATTEMPTS: usize = 100;
/// The maximum number of concurrent TCP connections.
const CONNECTIONS_MAX: usize = 64;

/// The transport of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsTransport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// The source of the replies.
pub trait Resolver: Send + Sync + 'static {
    /// Fills the reply to a question. `wants_dnssec` is the DO bit of the question. Returns false
    /// if no reply is to be sent.
    fn fill(
        &self,
        reply: &mut Message,
        query: &Query,
        wants_dnssec: bool,
        over: DnsTransport,
    ) -> bool;
}

/// Serves until the returned tasks are dropped.
///
/// # Errors
/// No port of loopback can be bound.
pub async fn serve(resolver: Arc<dyn Resolver>) -> std::io::Result<(SocketAddr, JoinSet<()>)> {
    let (udp, tcp) = bind_one_port().await?;
    let address = udp.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_udp(Arc::clone(&resolver), udp));
    tasks.spawn(serve_tcp(resolver, tcp));
    Ok((address, tasks))
}

/// Returns the reply to a message; `None` if the message is not a question, or if no reply is to be
/// sent.
fn reply(resolver: &dyn Resolver, octets: &[u8], over: DnsTransport) -> Option<Vec<u8>> {
    let request = Message::from_bytes(octets).ok()?;
    let query = request.queries.first()?.clone();
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    let wants_dnssec = request
        .edns
        .as_ref()
        .is_some_and(|edns| edns.flags().dnssec_ok);
    if !resolver.fill(&mut reply, &query, wants_dnssec, over) {
        return None;
    }
    reply.edns.clone_from(&request.edns);
    let octets = reply.to_bytes().ok()?;
    if over == DnsTransport::Udp && octets.len() > usize::from(request.max_payload()) {
        reply.answers.clear();
        reply.authorities.clear();
        reply.metadata.truncation = true;
        return reply.to_bytes().ok();
    }
    Some(octets)
}

async fn serve_udp(resolver: Arc<dyn Resolver>, socket: UdpSocket) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Some(reply) = reply(&*resolver, &buffer[..length], DnsTransport::Udp) {
            // A client whose reply is lost repeats its question.
            let _ = socket.send_to(&reply, from).await;
        }
    }
}

async fn serve_tcp(resolver: Arc<dyn Resolver>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        connections.spawn(serve_stream(Arc::clone(&resolver), stream));
    }
}

async fn serve_stream(resolver: Arc<dyn Resolver>, mut stream: TcpStream) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(reply) = reply(&*resolver, &question, DnsTransport::Tcp) else {
            continue;
        };
        let Ok(length) = u16::try_from(reply.len()) else {
            return;
        };
        let framed = [length.to_be_bytes().as_slice(), &reply].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

/// Binds a UDP and a TCP socket to the same port.
async fn bind_one_port() -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut last = None;
    for _ in 0..PORT_ATTEMPTS {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("no port is free for both UDP and TCP")))
}
