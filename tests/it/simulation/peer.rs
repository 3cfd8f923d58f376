//! The hosts: SMTP servers, each at an address of its own, that do on each connection what the seed
//! says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
    BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::ledger::{Answer, Arrival, Ledger, Named, Reported, Session, Tls};
use super::script::{Script, Starttls, Trouble};
use super::seed::Seed;
use super::world::{Dead, Health, Point, Shown, Site, World};
use crate::support::certificates::{
    Authority, BOTH, Pair, TLS12, key_pin, self_signed, server_config,
};
use crate::support::message::recognise;

/// The time for which a silent host keeps a connection open; the daemon gives up long before.
const SILENCE: Duration = Duration::from_mins(1);

/// The certificates that a host can show.
pub(crate) struct Certificates([(Shown, Arc<rustls::ServerConfig>, String); 4]);

impl Certificates {
    /// Those of one host, and the good one among them.
    fn issue(site: &Site, authority: &Authority, foreign: &Authority) -> (Self, Pair) {
        let name = [site.name.as_str()];
        let good = authority.issue(&name);
        let others = [
            (Shown::SelfSigned, self_signed(&name, |_| {})),
            (Shown::Foreign, foreign.issue(&name)),
            (
                Shown::WrongName,
                authority.issue(&["mx.somebody-else.example"]),
            ),
        ];
        let versions = if site.only_tls12 { &TLS12[..] } else { BOTH };
        let shown = |shown, pair: &Pair| {
            (
                shown,
                Arc::new(server_config(pair, versions)),
                key_pin(&pair.chain[0]),
            )
        };
        let [first, second, third] = others.each_ref().map(|(kind, pair)| shown(*kind, pair));
        (
            Self([shown(Shown::Good, &good), first, second, third]),
            good,
        )
    }

    fn of(&self, shown: Shown) -> (Arc<rustls::ServerConfig>, String) {
        let found = self
            .0
            .iter()
            .find(|one| one.0 == shown)
            .expect("all are there");
        (Arc::clone(&found.1), found.2.clone())
    }
}

/// All hosts, as long as they are kept.
pub(crate) struct Peers {
    pub(crate) port: u16,
    /// The good certificate of each.
    pub(crate) good: Vec<Pair>,
    silent: Vec<Socket>,
    tasks: tokio::task::JoinSet<()>,
}

enum Held {
    Listens(std::net::TcpListener),
    Silent(Socket),
}

/// Takes the address of each host on one port that they have in common.
fn bind(world: &World) -> (u16, Vec<Held>) {
    for _ in 0..100 {
        let probe = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let port = probe.local_addr().expect("bound").port();
        let bound: std::io::Result<Vec<_>> =
            world.sites.iter().map(|site| hold(site, port)).collect();
        if let Ok(bound) = bound {
            return (port, bound);
        }
    }
    panic!(
        "no port is free at {} addresses of loopback",
        world.sites.len()
    );
}

fn hold(site: &Site, port: u16) -> std::io::Result<Held> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((site.address, port)).into())?;
    match site.health {
        Health::Dead(Dead::Refuses) => Ok(Held::Silent(socket)),
        Health::Dead(Dead::Hangs) => socket.listen(1024).map(|()| Held::Silent(socket)),
        _ => {
            socket.listen(1024)?;
            socket.set_nonblocking(true)?;
            Ok(Held::Listens(socket.into()))
        }
    }
}

impl Peers {
    /// Starts them.
    pub(crate) fn start(world: &Arc<World>, authority: &Authority, ledger: &Arc<Ledger>) -> Self {
        let (port, bound) = bind(world);
        let foreign = Authority::root("Nobody trusts this one");
        let mut peers = Self {
            port,
            good: Vec::new(),
            silent: Vec::new(),
            tasks: tokio::task::JoinSet::new(),
        };
        for (at, held) in bound.into_iter().enumerate() {
            let (certificates, good) = Certificates::issue(&world.sites[at], authority, &foreign);
            peers.good.push(good);
            match held {
                Held::Silent(socket) => peers.silent.push(socket),
                Held::Listens(listener) => {
                    let (world, ledger) = (Arc::clone(world), Arc::clone(ledger));
                    let host = Host {
                        world,
                        at,
                        certificates,
                        ledger,
                        connections: AtomicU64::new(0),
                    };
                    peers.tasks.spawn(Arc::new(host).listen(listener));
                }
            }
        }
        peers
    }
}

struct Host {
    world: Arc<World>,
    at: usize,
    certificates: Certificates,
    ledger: Arc<Ledger>,
    connections: AtomicU64,
}

/// A session has come to its end, by the script or otherwise.
struct Over;

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl Host {
    async fn listen(self: Arc<Self>, listener: std::net::TcpListener) {
        let listener = TcpListener::from_std(listener).expect("it does not block");
        while let Ok((stream, _)) = listener.accept().await {
            let host = Arc::clone(&self);
            tokio::spawn(async move {
                let _over = host.serve(stream).await;
            });
        }
    }

    fn seed(&self) -> Seed {
        self.world.seed
    }

    async fn serve(&self, stream: TcpStream) -> Result<(), Over> {
        stream.set_nodelay(true)?;
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let script = self.world.sites[self.at].script(self.seed(), connection);
        let session = Session {
            site: self.at,
            connection,
            life: String::new(),
            tls: None,
        };
        let mut talk = Talk {
            host: self,
            script,
            session,
            stream: BufReader::new(stream),
            messages: 0,
        };
        if !talk.troubled(Point::Greeting).await? {
            talk.say("220 peer ESMTP").await?;
        }
        talk.dialogue().await?;
        // STARTTLS was agreed to.
        let mut stream = talk.stream.into_inner();
        let (shown, (config, key)) = match script.starttls {
            Starttls::Shows(shown) => (shown, self.certificates.of(shown)),
            Starttls::Garbage => {
                stream.write_all(b"\x15\x03garbage\r\n").await?;
                return Err(Over);
            }
            Starttls::Cut => {
                stream.read_exact(&mut [0; 40]).await?;
                return Err(Over);
            }
            Starttls::NotOffered | Starttls::Rejected | Starttls::Closes => return Err(Over),
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let facts = stream.get_ref().1;
        let version = match facts.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let suite = facts
            .negotiated_cipher_suite()
            .map(|suite| format!("{:?}", suite.suite()));
        let cipher = suite.unwrap_or_default().replace("TLS13_", "TLS_");
        let tls = Tls {
            shown,
            version: version.to_owned(),
            cipher,
            key,
        };
        let session = Session {
            site: self.at,
            connection,
            life: String::new(),
            tls: Some(tls),
        };
        let stream = BufReader::new(stream);
        Talk {
            host: self,
            script,
            session,
            stream,
            messages: 0,
        }
        .dialogue()
        .await
    }
}

/// One session, in the clear or under TLS.
struct Talk<'a, S> {
    host: &'a Host,
    script: Script,
    session: Session,
    stream: S,
    messages: u64,
}

impl<S: AsyncBufRead + AsyncWrite + Unpin> Talk<'_, S> {
    /// Says a line, as slowly as the script wants.
    async fn say(&mut self, words: &str) -> Result<(), Over> {
        if let Some(pause) = self.script.pause {
            tokio::time::sleep(pause).await;
        }
        let words = format!("{words}\r\n");
        let Some(pace) = self.script.pace else {
            self.stream.write_all(words.as_bytes()).await?;
            return Ok(self.stream.flush().await?);
        };
        for octet in words.as_bytes() {
            self.stream.write_all(&[*octet]).await?;
            self.stream.flush().await?;
            tokio::time::sleep(pace).await;
        }
        Ok(())
    }

    /// Plays the trouble that the script has for this point, where it has one; says whether that
    /// was the answer.
    async fn troubled(&mut self, point: Point) -> Result<bool, Over> {
        let due = self.messages >= self.script.after
            || matches!(point, Point::Greeting | Point::Ehlo | Point::Starttls);
        let Some((_, trouble)) = self.script.trouble.filter(|(at, _)| due && *at == point) else {
            return Ok(false);
        };
        match trouble {
            Trouble::Cut => Err(Over),
            Trouble::Silence => {
                // The daemon may say more in the meantime, or go.
                let listening = async { while self.stream.read_u8().await.is_ok() {} };
                let _gone = tokio::time::timeout(SILENCE, listening).await;
                Err(Over)
            }
            Trouble::Half => {
                self.stream.write_all(b"25").await?;
                self.stream.flush().await?;
                Err(Over)
            }
            Trouble::Transient => self.say("451 4.3.0 not now").await.map(|()| true),
            Trouble::Permanent => self.say("554 5.3.0 never").await.map(|()| true),
            Trouble::Shutdown => {
                self.say("421 4.3.2 closing").await?;
                Err(Over)
            }
        }
    }

    /// The session up to its end, or to a STARTTLS that was agreed to.
    async fn dialogue(&mut self) -> Result<(), Over> {
        let (mut recipients, mut is_open) = (Vec::new(), false);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(Over);
            }
            let line = line.trim_end();
            let verb = line
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            if self.named(&verb, line) {
                recipients.clear();
                is_open = false;
            }
            let point = match verb.as_str() {
                "EHLO" | "HELO" => Some(Point::Ehlo),
                "MAIL" => Some(Point::Mail),
                "RCPT" => Some(Point::Rcpt),
                "DATA" => Some(Point::Data),
                "STARTTLS" => Some(Point::Starttls),
                _ => None,
            };
            if let Some(point) = point
                && self.troubled(point).await?
            {
                continue;
            }
            match verb.as_str() {
                "EHLO" => self.features().await?,
                "STARTTLS" if self.script.starttls == Starttls::Rejected => {
                    self.say("454 4.7.0 not now").await?;
                }
                "STARTTLS" => {
                    self.say("220 go ahead").await?;
                    return Ok(());
                }
                "MAIL" => {
                    is_open = true;
                    self.say("250 2.1.0 ok").await?;
                }
                "RCPT" | "DATA" if !is_open => self.say("503 5.5.1 MAIL first").await?,
                "RCPT" => {
                    recipients.push(path(line));
                    self.say("250 2.1.5 ok").await?;
                }
                "DATA" if recipients.is_empty() => {
                    self.say("554 5.5.1 nobody to send it to").await?;
                }
                "DATA" => {
                    self.say("354 go ahead").await?;
                    is_open = false;
                    self.message(std::mem::take(&mut recipients)).await?;
                }
                "BDAT" => {
                    is_open = false;
                    self.chunk(line, std::mem::take(&mut recipients)).await?;
                }
                "QUIT" => {
                    self.say("221 2.0.0 bye").await?;
                    return Err(Over);
                }
                _ => self.say("250 2.0.0 ok").await?,
            }
        }
    }

    /// Remembers who was named; says whether a transaction begins.
    fn named(&mut self, verb: &str, line: &str) -> bool {
        let recipient = match verb {
            "EHLO" | "HELO" => {
                line.rsplit(' ')
                    .next()
                    .unwrap_or_default()
                    .clone_into(&mut self.session.life);
                return true;
            }
            "MAIL" => None,
            "RCPT" => Some(path(line)),
            _ => return verb == "RSET",
        };
        let session = Arc::new(self.session.clone());
        self.host.ledger.note(|seen| {
            seen.named.push(Named {
                session,
                recipient,
                at: Instant::now(),
            });
        });
        verb == "MAIL"
    }

    async fn features(&mut self) -> Result<(), Over> {
        let site = &self.host.world.sites[self.host.at];
        let offers = self.session.tls.is_none() && self.script.starttls != Starttls::NotOffered;
        let mut lines = vec!["peer", "SIZE", "8BITMIME"];
        if site.pipelining {
            lines.extend(["PIPELINING", "CHUNKING"]);
        }
        lines.extend(offers.then_some("STARTTLS"));
        let last = lines.len() - 1;
        let lines: Vec<_> = lines
            .iter()
            .enumerate()
            .map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }))
            .collect();
        self.say(&lines.join("\r\n")).await
    }

    async fn message(&mut self, recipients: Vec<String>) -> Result<(), Over> {
        let (mut content, mut line) = (Vec::new(), Vec::new());
        if self
            .script
            .trouble
            .is_some_and(|(point, _)| point == Point::Content)
        {
            self.stream.read_until(b'\n', &mut line).await?;
            // An answer in the middle of the content is none.
            self.troubled(Point::Content).await?;
        }
        loop {
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            line.clear();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                return Err(Over);
            }
            if line == b".\r\n" {
                break;
            }
        }
        self.answer_content(&recipients, &content).await
    }

    /// Takes the content behind `BDAT n LAST`, whoever it is for.
    async fn chunk(&mut self, line: &str, recipients: Vec<String>) -> Result<(), Over> {
        let size = line
            .strip_prefix("BDAT ")
            .and_then(|size| size.strip_suffix(" LAST"));
        let size = size.and_then(|size| size.parse().ok()).expect("one chunk");
        let mut content = vec![0; size];
        let first = size.min(10);
        self.stream.read_exact(&mut content[..first]).await?;
        let trouble = self.script.trouble;
        if trouble.is_some_and(|(point, _)| point == Point::Content) {
            self.troubled(Point::Content).await?;
        }
        self.stream.read_exact(&mut content[first..]).await?;
        if recipients.is_empty() {
            return self.say("503 5.5.1 nobody to send it to").await;
        }
        self.answer_content(&recipients, &content).await
    }

    /// Writes down what has arrived, and answers it.
    async fn answer_content(&mut self, recipients: &[String], content: &[u8]) -> Result<(), Over> {
        let at = Instant::now();
        let (first, count) = self.arrived(recipients, content, at);
        let ledger = Arc::clone(&self.host.ledger);
        let answered = |answer| {
            ledger.note(|seen| {
                seen.arrivals[first..first + count]
                    .iter_mut()
                    .for_each(|one| one.answer = answer);
            });
        };
        let refuses = self.script.trouble.is_some_and(|(point, trouble)| {
            let refusal = matches!(
                trouble,
                Trouble::Transient | Trouble::Permanent | Trouble::Shutdown
            );
            point == Point::Dot && refusal && self.messages >= self.script.after
        });
        if refuses {
            answered(Answer::Refused);
        }
        if !self.troubled(Point::Dot).await? {
            self.say("250 2.0.0 taken").await?;
            answered(Answer::Taken(Instant::now()));
        }
        self.messages += 1;
        Ok(())
    }

    /// Writes down what has arrived, and where.
    fn arrived(&self, recipients: &[String], content: &[u8], at: Instant) -> (usize, usize) {
        let session = Arc::new(self.session.clone());
        let is_home = self.host.at == self.host.world.home();
        let reports = if is_home {
            Reported::read(content, at)
        } else {
            Vec::new()
        };
        let named = if is_home {
            Ok(String::new())
        } else {
            recognise(content)
        };
        self.host.ledger.note(|seen| {
            let first = seen.arrivals.len();
            seen.reports.extend(reports);
            seen.arrivals
                .extend(recipients.iter().map(|recipient| Arrival {
                    session: Arc::clone(&session),
                    recipient: recipient.clone(),
                    at,
                    answer: Answer::Lost,
                    content: named.clone(),
                }));
            (first, recipients.len())
        })
    }
}

/// Returns the text between the angle brackets.
fn path(line: &str) -> String {
    let inside = line
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    inside.map_or_else(String::new, |(path, _)| path.to_owned())
}
