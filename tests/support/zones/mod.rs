//! A validating world in the process: a root of its own, signed and unsigned zones below it, and a server that
//! answers about them as a recursive resolver does, on a port of its own.
//!
//! ```ignore
//! let dns = Zones::new()
//!     .zone("good.test", Kind::Signed, "good.test MX 10 mx.good.test\nmx.good.test A 192.0.2.1")
//!     .zone("plain.test", Kind::Unsigned, "plain.test A 192.0.2.2")
//!     .start(Resolver::default())
//!     .await;
//! dns.fail("mx.good.test", Some(RecordType::TLSA), Fault::ServFail);
//! let config = format!("[dns]\nservers = [\"{}\"]\ntrust_anchor = \"{}\"", dns.address, dns.anchor("dnskey"));
//! assert_eq!(dns.asked("good.test", RecordType::MX), 1);
//! ```
//! The parent of each zone delegates to it and vouches for it (DS) as its kind says. Proofs of absence are
//! NSEC, with wildcards and empty non-terminals as RFC 4035 §3.1.3 wants them.

mod answer;
mod sign;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinEncodable as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use sign::Zone;

/// How a zone is signed, and what its parent says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it should be.
    Signed,
    /// Signed, for so many seconds from now on.
    SignedFor(u32),
    /// Not at all, and the parent proves it.
    Unsigned,
    /// It is signed, and the parent does not know.
    Island,
    /// The parent's DS means another key.
    WrongKey,
    /// All signatures are over.
    Expired,
    /// The parent says that it is signed, and there are no signatures.
    SignaturesLost,
}

impl Kind {
    /// Whether a validator takes it for secure.
    fn is_good(self) -> bool {
        matches!(self, Self::Signed | Self::SignedFor(_))
    }
}

/// What happens instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    ServFail,
    Refused,
    /// Nothing comes back.
    Silence,
    /// Nothing comes back by UDP.
    OnlyTcp,
}

/// How the resolver behaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resolver {
    /// It leaves signatures and proofs out, whatever it is asked.
    pub(crate) strips: bool,
    /// It validates: the AD bit on what is good, SERVFAIL for what is bogus.
    pub(crate) validates: bool,
}

/// Zones before they are served.
#[derive(Debug, Default)]
pub(crate) struct Zones(Vec<(String, Kind, String)>);

impl Zones {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a zone with its records, one a line: `example.test MX 10 mx.example.test`. Names are complete.
    pub(crate) fn zone(mut self, origin: &str, kind: Kind, records: &str) -> Self {
        self.0.push((origin.to_owned(), kind, records.to_owned()));
        self
    }

    /// Serves them, with a signed root above, until the server is dropped.
    pub(crate) async fn start(self, resolver: Resolver) -> Server {
        let zones = sign::house(&self.0);
        let folder = tempfile::tempdir().expect("a folder");
        for (kind, line) in zones[0].anchors() {
            std::fs::write(folder.path().join(kind), line).expect("written");
        }
        let inner = Arc::new(Inner {
            zones,
            resolver,
            strips: AtomicBool::new(resolver.strips),
            faults: Mutex::default(),
            asked: Mutex::default(),
        });
        let (udp, tcp) = one_port().await;
        let address = udp.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(Arc::clone(&inner), udp));
        tasks.spawn(serve_tcp(Arc::clone(&inner), tcp));
        Server { address, inner, folder, _tasks: tasks }
    }
}

/// Serves until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

struct Inner {
    /// The root first.
    zones: Vec<Zone>,
    resolver: Resolver,
    strips: AtomicBool,
    faults: Mutex<Vec<(Name, Option<RecordType>, Fault)>>,
    asked: Mutex<Vec<(Name, RecordType)>>,
}

impl Server {
    /// The file of the root's trust anchor, as `dnskey` or as `ds` record.
    pub(crate) fn anchor(&self, kind: &str) -> PathBuf {
        self.folder.path().join(kind)
    }

    /// From now on, questions about this name and all below it come to nothing; for one type, or for all.
    pub(crate) fn fail(&self, name: &str, kind: Option<RecordType>, fault: Fault) {
        self.inner.faults.lock().expect("no panic").push((full(name), kind, fault));
    }

    /// All is well again.
    pub(crate) fn heal(&self) {
        self.inner.faults.lock().expect("no panic").clear();
    }

    /// Whether signatures and proofs are left out from now on.
    pub(crate) fn strip(&self, strips: bool) {
        self.inner.strips.store(strips, Ordering::SeqCst);
    }

    /// How often this was asked.
    pub(crate) fn asked(&self, name: &str, kind: RecordType) -> usize {
        let wanted = (full(name), kind);
        self.inner.asked.lock().expect("no panic").iter().filter(|asked| **asked == wanted).count()
    }

    /// How many questions were asked in all.
    pub(crate) fn questions(&self) -> usize {
        self.inner.asked.lock().expect("no panic").len()
    }
}

pub(crate) fn full(text: &str) -> Name {
    let mut full = Name::from_ascii(text).expect("a name");
    full.set_fqdn(true);
    full
}

impl Inner {
    /// The reply to a datagram or a message on a stream; `None` for silence.
    fn reply(&self, octets: &[u8], udp: bool) -> Option<Vec<u8>> {
        let request = Message::from_bytes(octets).expect("a question");
        let query = request.queries.first().expect("a question").clone();
        self.asked.lock().expect("no panic").push((query.name.to_lowercase(), query.query_type));
        let faults = self.faults.lock().expect("no panic").clone();
        let fault = faults
            .iter()
            .find(|(name, kind, _)| name.zone_of(&query.name) && kind.is_none_or(|kind| kind == query.query_type));
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        reply.metadata.recursion_desired = true;
        reply.metadata.recursion_available = true;
        reply.add_query(query.clone());
        match fault.map(|(.., fault)| fault) {
            Some(Fault::Silence) => return None,
            Some(Fault::OnlyTcp) if udp => return None,
            Some(Fault::ServFail) => reply.metadata.response_code = ResponseCode::ServFail,
            Some(Fault::Refused) => reply.metadata.response_code = ResponseCode::Refused,
            Some(Fault::OnlyTcp) | None => {
                let strips = self.strips.load(Ordering::SeqCst);
                let dnssec = !strips && request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
                answer::fill(&mut reply, &self.zones, &query, dnssec, self.resolver.validates);
            }
        }
        if let Some(edns) = &request.edns {
            reply.edns = Some(edns.clone());
        }
        let octets = reply.to_bytes().expect("encoded");
        if udp && octets.len() > usize::from(request.max_payload()) {
            reply.answers.clear();
            reply.authorities.clear();
            reply.metadata.truncation = true;
            return Some(reply.to_bytes().expect("encoded"));
        }
        Some(octets)
    }
}

async fn serve_udp(inner: Arc<Inner>, socket: UdpSocket) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Some(reply) = inner.reply(&buffer[..length], true) {
            let _ = socket.send_to(&reply, from).await;
        }
    }
}

async fn serve_tcp(inner: Arc<Inner>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_stream(Arc::clone(&inner), stream));
    }
}

async fn serve_stream(inner: Arc<Inner>, mut stream: TcpStream) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        if let Some(reply) = inner.reply(&question, false) {
            let length = u16::try_from(reply.len()).expect("short enough");
            let framed = [length.to_be_bytes().as_slice(), &reply].concat();
            if stream.write_all(&framed).await.is_err() {
                return;
            }
        }
    }
}

/// The same port for UDP and TCP: one that is free for one may be in use for the other.
async fn one_port() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("bound")).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}
