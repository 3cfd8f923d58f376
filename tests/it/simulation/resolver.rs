//! The resolver: it answers from signed zones, and for some domains it delays, loses, fails and
//! lies, as the seed has it for each question and each time that it is asked.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost::demo::zones::{Kind, Zones};
use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, rdata};
use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinEncodable as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::seed::chance;
use super::world::{Dead, Destination, Names, World, Zone};

/// Serves until it is dropped.
pub(crate) struct Resolver {
    pub(crate) address: SocketAddr,
    /// The line of the trust anchor.
    pub(crate) anchor: String,
    _tasks: JoinSet<()>,
}

struct Inner {
    world: Arc<World>,
    zones: Zones,
    /// The number of times that each question was asked.
    asked: Mutex<HashMap<String, u64>>,
}

/// The treatment of one question.
enum Fate {
    Answer(Duration),
    ServFail(Duration),
    Silence,
    /// Addresses lead to somebody else.
    Lie,
}

impl Resolver {
    /// Serves these zones of a world.
    pub(crate) async fn start(world: &Arc<World>, zones: &[(String, Zone, String)]) -> Self {
        let mut written = vec![("example".to_owned(), Kind::Signed, String::new())];
        written.extend(zones.iter().map(|(origin, zone, records)| {
            let kind = match zone {
                Zone::Signed => Kind::Signed,
                Zone::Unsigned => Kind::Unsigned,
                Zone::Expired => Kind::Expired,
            };
            (origin.clone(), kind, records.clone())
        }));
        let zones = Zones::new(&written).expect("zones");
        let anchor = zones.anchor_dnskey();
        let inner = Arc::new(Inner {
            world: Arc::clone(world),
            zones,
            asked: Mutex::default(),
        });
        let (udp, tcp) = one_port().await;
        let address = udp.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(Arc::clone(&inner), Arc::new(udp)));
        tasks.spawn(streams(inner, tcp));
        Self {
            address,
            anchor,
            _tasks: tasks,
        }
    }
}

async fn one_port() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("bound")).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

async fn datagrams(inner: Arc<Inner>, socket: Arc<UdpSocket>) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let (inner, socket, question) = (
            Arc::clone(&inner),
            Arc::clone(&socket),
            buffer[..length].to_vec(),
        );
        tokio::spawn(async move {
            if let Some(reply) = inner.reply(&question, true).await {
                let _gone = socket.send_to(&reply, from).await;
            }
        });
    }
}

async fn streams(inner: Arc<Inner>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(stream_of(Arc::clone(&inner), stream));
    }
}

async fn stream_of(inner: Arc<Inner>, mut stream: TcpStream) -> Option<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await.ok()?.into()];
        stream.read_exact(&mut question).await.ok()?;
        let Some(reply) = inner.reply(&question, false).await else {
            continue;
        };
        let length = u16::try_from(reply.len()).ok()?;
        stream
            .write_all(&[length.to_be_bytes().as_slice(), &reply].concat())
            .await
            .ok()?;
    }
}

impl Inner {
    async fn reply(&self, octets: &[u8], is_datagram: bool) -> Option<Vec<u8>> {
        let request = Message::from_bytes(octets).ok()?;
        let query = request.queries.first()?.clone();
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        reply.metadata.recursion_desired = true;
        reply.metadata.recursion_available = true;
        reply.add_query(query.clone());
        reply.edns.clone_from(&request.edns);
        let fate = self.fate(&query);
        match fate {
            Fate::Silence => return None,
            Fate::Answer(delay) | Fate::ServFail(delay) => tokio::time::sleep(delay).await,
            Fate::Lie => {}
        }
        if matches!(fate, Fate::ServFail(_)) {
            reply.metadata.response_code = ResponseCode::ServFail;
            return reply.to_bytes().ok();
        }
        let wants_dnssec = request
            .edns
            .as_ref()
            .is_some_and(|edns| edns.flags().dnssec_ok);
        self.zones
            .answer(&mut reply, &query, wants_dnssec, false)
            .ok()?;
        if matches!(fate, Fate::Lie) {
            let trap = self.world.trap().address;
            for record in &mut reply.answers {
                if matches!(record.data, RData::A(_)) {
                    *record = Record::from_rdata(
                        record.name.clone(),
                        record.ttl,
                        RData::A(rdata::A(trap)),
                    );
                }
            }
        }
        let octets = reply.to_bytes().ok()?;
        if is_datagram && octets.len() > usize::from(request.max_payload()) {
            reply.answers.clear();
            reply.authorities.clear();
            reply.metadata.truncation = true;
            return reply.to_bytes().ok();
        }
        Some(octets)
    }

    fn fate(&self, query: &Query) -> Fate {
        let name = query.name.to_lowercase().to_string();
        let question = format!("{name} {}", query.query_type);
        let times = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let times = asked.entry(question.clone()).or_default();
            *times += 1;
            *times
        };
        let mut dice = self
            .world
            .seed
            .dice(&format!("question/{question}/{times}"));
        let soon = Duration::from_millis(dice.below(30));
        match self.of(&name).map_or(Names::Good, |one| one.names) {
            Names::Dead(Dead::ServFail) => Fate::ServFail(soon),
            Names::Dead(Dead::Unheard) => Fate::Silence,
            Names::Flaky if chance(&mut dice, 60) => match dice.below(5) {
                0 | 1 => Fate::ServFail(soon),
                2 => Fate::Silence,
                3 => Fate::Answer(Duration::from_millis(dice.below(1500))),
                _ => Fate::Lie,
            },
            _ => Fate::Answer(soon),
        }
    }

    /// Whose question it is.
    fn of(&self, name: &str) -> Option<&Destination> {
        let name = name.trim_end_matches('.');
        let is_of = |domain: &str| {
            name.strip_suffix(domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.world
            .destinations
            .iter()
            .find(|one| is_of(&one.domain))
    }
}
