//! A name server of one conversation: a port of its own, and answers that are changed by one plan.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::attack::{ATTACKS, Attack};
use super::dice::Dice;
use super::mutation::mutate;
use super::stage::Stage;
use super::wire::{Message, Name, Record, flag, is_name, kind, lower};
use super::world::World;

/// CNAMEs that one answer follows, at most.
const ALIASES_MAX: usize = 10;
/// Percent of the answers that are changed: of the question's own, of the chain of trust, and of
/// others.
const OWN: usize = 50;
const CHAIN: usize = 6;
const OTHER: usize = 25;
/// Percent of the conversations that are an attack, and of its answers that are changed at random
/// as well.
const ATTACKED: usize = 25;
const BESIDES: usize = 10;

/// The treatment of the answers.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// Nothing. With aliases followed, or not.
    Genuine { whole: bool },
    /// Whatever the seed says.
    Random { seed: u64 },
    /// One attack on a zone.
    Attack {
        seed: u64,
        attack: Attack,
        victim: Name,
    },
}

/// The changes that were made to an answer, and the answer after them.
pub(crate) type Part = (Vec<String>, Message);

/// The answers of one conversation.
pub(crate) struct Plan {
    pub(crate) world: Arc<World>,
    pub(crate) script: Script,
    /// The questions of the conversation itself.
    pub(crate) asked: Vec<(Name, u16)>,
    /// The answers as they were given.
    pub(crate) log: Mutex<BTreeMap<(Name, u16), Part>>,
}

impl Plan {
    pub(crate) fn new(world: &Arc<World>, script: Script, asked: Vec<(Name, u16)>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            script,
            asked,
            log: Mutex::default(),
        })
    }

    /// The answer to a question: always the same. Where aliases are followed, every part of it is
    /// the answer that a question for that part alone would have had: one resolver takes them at
    /// once, the other asks for each.
    async fn answer(&self, name: &Name, kind: u16) -> Message {
        let message = self.part(name, kind).await;
        if self.follows() {
            self.follow(message).await
        } else {
            message
        }
    }

    /// Follows the aliases of an answer, as a recursive resolver does.
    async fn follow(&self, mut message: Message) -> Message {
        let (kind, mut at) = (message.kind, lower(&message.name));
        if kind == kind::CNAME {
            return message;
        }
        for _ in 0..ALIASES_MAX {
            let of_name = |record: &&Record| lower(&record.owner) == at;
            let alias = message
                .answers
                .iter()
                .filter(of_name)
                .find(|record| record.kind == kind::CNAME);
            let is_over = message
                .answers
                .iter()
                .filter(of_name)
                .any(|record| record.kind == kind);
            let Some(target) = alias
                .filter(|alias| !is_over && is_name(&alias.data))
                .map(|alias| lower(&alias.data))
            else {
                break;
            };
            at = target;
            let is_answered = message
                .answers
                .iter()
                .any(|record| lower(&record.owner) == at && record.set() != kind::NSEC);
            if is_answered
                || message
                    .authorities
                    .iter()
                    .any(|record| record.kind == kind::SOA)
            {
                continue;
            }
            let next = self.part(&at, kind).await;
            message.answers.extend(next.answers);
            message
                .authorities
                .retain(|record| record.set() != kind::NS);
            message.authorities.extend(next.authorities);
            message.flags = message.flags & !15 | next.flags & 15;
        }
        message
    }

    fn follows(&self) -> bool {
        match self.script {
            Script::Genuine { whole } => whole,
            Script::Random { seed } | Script::Attack { seed, .. } => {
                Dice::new(seed, b"whole", 0).happens(50)
            }
        }
    }

    async fn part(&self, name: &Name, kind: u16) -> Message {
        let known = self
            .log
            .lock()
            .expect("no panic")
            .get(&(name.clone(), kind))
            .map(|(_, message)| message.clone());
        if let Some(known) = known {
            return known;
        }
        let (done, message) = match &self.script {
            Script::Genuine { .. } => (
                Vec::new(),
                Message::clone(&*self.world.genuine(name, kind).await),
            ),
            Script::Random { seed } => self.random(*seed, name, kind).await,
            Script::Attack {
                seed,
                attack,
                victim,
            } => {
                let mut stage = self.stage(*seed, name, kind).await;
                let done = attack
                    .play(&mut stage, victim, self.is_asked(name, kind))
                    .await;
                (
                    done.then(|| format!("{attack:?}")).into_iter().collect(),
                    stage.message,
                )
            }
        };
        self.log
            .lock()
            .expect("no panic")
            .insert((name.clone(), kind), (done, message.clone()));
        message
    }

    fn is_asked(&self, name: &Name, kind: u16) -> bool {
        self.asked
            .iter()
            .any(|(asked, of_kind)| asked == name && *of_kind == kind)
    }

    async fn stage(&self, seed: u64, name: &Name, kind: u16) -> Stage<'_> {
        Stage {
            world: &self.world,
            dice: Dice::new(seed, name, kind),
            name: name.clone(),
            kind,
            denial: self.world.genuine(name, kind::HINFO).await,
            message: Message::clone(&*self.world.genuine(name, kind).await),
        }
    }

    async fn random(&self, seed: u64, name: &Name, kind: u16) -> Part {
        let mut stage = self.stage(seed, name, kind).await;
        let mut done = Vec::new();
        let mut dice = Dice::new(seed, b"attack", 0);
        let chain = matches!(kind, kind::DS | kind::DNSKEY | kind::NS | kind::SOA);
        let mut percent = match (self.is_asked(name, kind), chain) {
            (true, _) => OWN,
            (_, true) => CHAIN,
            _ => OTHER,
        };
        if dice.happens(ATTACKED) {
            percent = BESIDES;
            let attack = *dice.pick(&ATTACKS).expect("there are some");
            let mut victim = self.world.zone_of(&self.asked[0].0).clone();
            if dice.happens(20) {
                victim = self
                    .world
                    .zone_of(&crate::dnssec_differential::wire::parent(&victim))
                    .clone();
            }
            if attack
                .play(&mut stage, &victim, self.is_asked(name, kind))
                .await
            {
                done.push(format!(
                    "{attack:?} on {}",
                    crate::dnssec_differential::wire::text(&victim)
                ));
            }
        }
        if stage.dice.happens(percent) {
            let times = [1, 1, 1, 2, 2, 3][stage.dice.below(6)];
            done.extend((0..times).map(|_| mutate(&mut stage).to_owned()));
        }
        (done, stage.message)
    }

    /// The reply to what came in; without the DO bit, nothing of DNSSEC is in it.
    async fn reply(&self, octets: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let query = Message::parse(octets)?;
        let mut reply = self.answer(&query.name, query.kind).await;
        if !query.dnssec {
            let plain =
                |record: &Record| !matches!(record.kind, kind::RRSIG | kind::NSEC | kind::NSEC3);
            reply.answers.retain(plain);
            reply.authorities.retain(plain);
        }
        reply.id = query.id;
        reply.dnssec = query.dnssec;
        reply.flags |= flag::QR | query.flags & (flag::RD | flag::CD);
        let octets = reply.octets();
        if datagram && octets.len() > usize::from(query.payload) {
            reply.answers.clear();
            reply.authorities.clear();
            reply.flags |= flag::TC;
            return Some(reply.octets());
        }
        Some(octets)
    }
}

/// Serves a plan until it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Served {
    pub(crate) async fn start(plan: &Arc<Plan>) -> Self {
        let (udp, tcp) = one_port().await;
        let address = udp.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(Arc::clone(plan), udp));
        tasks.spawn(streams(Arc::clone(plan), tcp));
        Self {
            address,
            _tasks: tasks,
        }
    }
}

async fn datagrams(plan: Arc<Plan>, socket: UdpSocket) {
    let mut buffer = [0; 4096];
    loop {
        // An error is what comes back from a port that nobody listens on any more.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(reply) = plan.reply(&buffer[..length], true).await {
            let _ = socket.send_to(&reply, from).await;
        }
    }
}

async fn streams(plan: Arc<Plan>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(stream_of(Arc::clone(&plan), stream));
    }
}

async fn stream_of(plan: Arc<Plan>, mut stream: TcpStream) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(reply) = plan.reply(&question, false).await else {
            continue;
        };
        let Ok(length) = u16::try_from(reply.len()) else {
            return;
        };
        if stream
            .write_all(&[length.to_be_bytes().as_slice(), &reply].concat())
            .await
            .is_err()
        {
            return;
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
