//! A small SMTP server that follows a script, and records each command.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt as _, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::picky::{Picky, Waiting};

/// Only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The behaviour of a peer at STARTTLS.
#[derive(Clone)]
pub(crate) enum Starttls {
    NotOffered,
    /// Offered and then answered with this.
    Answered(&'static str),
    /// Agreed to, and the connection closed.
    Closes,
    /// Agreed to, and then something else than TLS.
    Speaks(&'static str),
    /// The connection is closed instead of an answer.
    Vanishes,
    Tls(Arc<rustls::ServerConfig>),
    /// The same, but not for every ClientHello. Each is noted as `(hello …)`.
    Picky(Picky, Arc<rustls::ServerConfig>),
}

/// The behaviour of a peer.
#[derive(Clone)]
pub(crate) struct Manner {
    pub(crate) greeting: &'static str,
    /// Keywords beside STARTTLS.
    pub(crate) keywords: &'static [&'static str],
    pub(crate) starttls: Starttls,
    /// Answers to commands that begin like this, instead of the usual. An empty answer closes the
    /// connection. The number is how often the command must have come before, on any connection.
    pub(crate) answers: Vec<(&'static str, usize, &'static str)>,
    /// Said after the answer to the final dot; the connection is closed then.
    pub(crate) farewell: Option<&'static str>,
}

impl Manner {
    pub(crate) fn new(starttls: Starttls) -> Self {
        Self {
            greeting: "220 peer ESMTP",
            keywords: &["PIPELINING", "SIZE", "8BITMIME"],
            starttls,
            answers: Vec::new(),
            farewell: None,
        }
    }

    pub(crate) fn answer(mut self, command: &'static str, answer: &'static str) -> Self {
        self.answers.push((command, 0, answer));
        self
    }

    /// The usual answer for the first `before` times.
    pub(crate) fn answer_after(
        mut self,
        before: usize,
        command: &'static str,
        answer: &'static str,
    ) -> Self {
        self.answers.push((command, before, answer));
        self
    }
}

/// Everything that was received on one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Commands as they came; `(TLS)` where a handshake was completed.
    pub(crate) commands: Vec<String>,
    /// Whole messages, dots unstuffed.
    pub(crate) messages: Vec<Vec<u8>>,
}

impl Heard {
    pub(crate) fn has(&self, command: &str) -> bool {
        self.commands.iter().any(|line| line.starts_with(command))
    }
}

/// A running peer.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    manner: Manner,
    heard: Mutex<Vec<Heard>>,
    counts: Vec<AtomicUsize>,
    active: watch::Sender<usize>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    pub(crate) async fn start(manner: Manner) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), manner).await
    }

    /// At a port where another peer was a moment ago.
    pub(crate) async fn start_again(port: u16, manner: impl Fn() -> Manner) -> Self {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                Ok(listener) => return Self::on(listener, manner()),
                Err(fault) if tokio::time::Instant::now() > deadline => panic!("{fault}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// At every address of loopback.
    pub(crate) async fn everywhere(manner: Manner) -> Self {
        Self::start_at((Ipv4Addr::UNSPECIFIED, 0).into(), manner).await
    }

    async fn start_at(address: SocketAddr, manner: Manner) -> Self {
        Self::on(TcpListener::bind(address).await.expect("loopback"), manner)
    }

    /// Two peers on one port, the first at 127.0.0.1 and the second at 127.0.0.2.
    pub(crate) async fn twins(first: Manner, second: Manner) -> (Self, Self) {
        loop {
            let one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .expect("loopback");
            let port = one.local_addr().expect("bound").port();
            // Somebody else may have the port there.
            if let Ok(two) = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await {
                return (Self::on(one, first), Self::on(two, second));
            }
        }
    }

    fn on(listener: TcpListener, manner: Manner) -> Self {
        let address = listener.local_addr().expect("bound");
        let counts = manner.answers.iter().map(|_| AtomicUsize::new(0)).collect();
        let shared = Arc::new(Shared {
            manner,
            heard: Mutex::default(),
            counts,
            active: watch::Sender::new(0),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                // Without a delay: each part of an answer would wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                let shared = Arc::clone(&serving);
                let connection = {
                    let mut heard = shared.heard.lock().expect("no panic");
                    heard.push(Heard::default());
                    heard.len() - 1
                };
                shared.active.send_modify(|active| *active += 1);
                tokio::spawn(async move {
                    // A client that goes in the middle is what some tests are about.
                    let _ = shared.serve(stream, connection).await;
                    shared.active.send_modify(|active| *active -= 1);
                });
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// Returns everything received so far, connection by connection.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().expect("no panic").clone()
    }

    /// Returns everything received, once every connection has ended.
    pub(crate) async fn heard_to_the_end(&self) -> Vec<Heard> {
        let mut active = self.shared.active.subscribe();
        let ended = tokio::time::timeout(PATIENCE, active.wait_for(|active| *active == 0)).await;
        ended.expect("connections end").expect("the peer runs");
        self.heard()
    }

    /// All messages, whatever the connection.
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        self.heard()
            .into_iter()
            .flat_map(|heard| heard.messages)
            .collect()
    }
}

enum Next {
    Handshake(Arc<rustls::ServerConfig>),
    Over,
}

impl Shared {
    async fn serve(&self, stream: TcpStream, connection: usize) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        say(&mut stream, self.manner.greeting).await?;
        if let Next::Handshake(config) = self.session(&mut stream, connection, false).await? {
            assert!(
                stream.buffer().is_empty(),
                "the client spoke behind STARTTLS"
            );
            let stream = stream.into_inner();
            if let Starttls::Picky(picky, _) = &self.manner.starttls {
                let hello = Waiting::on(&stream).await?;
                self.note(connection, &hello.words());
                if picky.stumbles(&hello) {
                    return picky.play(stream).await;
                }
            }
            let stream = TlsAcceptor::from(config).accept(stream).await?;
            self.note(connection, "(TLS)");
            self.session(&mut BufReader::new(stream), connection, true)
                .await?;
        }
        Ok(())
    }

    fn note(&self, connection: usize, command: &str) {
        self.heard.lock().expect("no panic")[connection]
            .commands
            .push(command.to_owned());
    }

    /// The answer that was ordered for this command.
    fn ordered(&self, command: &str) -> Option<&'static str> {
        let mut ordered = None;
        for ((begin, before, answer), count) in self.manner.answers.iter().zip(&self.counts) {
            if command.starts_with(begin)
                && count.fetch_add(1, Ordering::SeqCst) >= *before
                && ordered.is_none()
            {
                ordered = Some(*answer);
            }
        }
        ordered
    }

    async fn session<S: AsyncBufRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        connection: usize,
        under_tls: bool,
    ) -> std::io::Result<Next> {
        let (mut recipients, mut line) = (0, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(Next::Over);
            }
            let command = line.trim_end().to_owned();
            self.note(connection, &command);
            let chunk = chunk(stream, &command).await?;
            let answer = self.ordered(&command);
            if answer == Some("") {
                return Ok(Next::Over);
            }
            let answer = match (&self.manner.starttls, command.as_str(), answer) {
                (Starttls::Answered(words), "STARTTLS", None) => Some(*words),
                (_, "STARTTLS", None) => return self.starttls(stream).await,
                (_, _, answer) => answer,
            };
            let usual = match command.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => self.features(under_tls),
                "DATA" if recipients == 0 => "554 no valid recipients".to_owned(),
                "DATA" => "354 go ahead".to_owned(),
                "BDAT" if recipients == 0 => "503 no valid recipients".to_owned(),
                "MAIL" if self.has_enhanced() => "250 2.1.0 ok".to_owned(),
                "RCPT" if self.has_enhanced() => "250 2.1.5 ok".to_owned(),
                "BDAT" => "250 2.0.0 queued".to_owned(),
                "QUIT" => "221 bye".to_owned(),
                _ => "250 ok".to_owned(),
            };
            let answer = answer.map_or(usual, str::to_owned);
            say(stream, &answer).await?;
            match (
                command.split(' ').next().unwrap_or_default(),
                answer.starts_with('2'),
            ) {
                ("MAIL", _) => recipients = 0,
                ("RCPT", true) => recipients += 1,
                ("BDAT", true) => self.heard.lock().expect("no panic")[connection]
                    .messages
                    .push(chunk),
                ("QUIT", _) => return Ok(Next::Over),
                _ => {}
            }
            if answer.starts_with("421") {
                return Ok(Next::Over);
            }
            if answer.starts_with("354") && !self.message(stream, connection).await? {
                return Ok(Next::Over);
            }
        }
    }

    /// Whether answers have enhanced statuses: those of peers that take chunks do.
    fn has_enhanced(&self) -> bool {
        self.manner.keywords.contains(&"CHUNKING")
    }

    fn features(&self, under_tls: bool) -> String {
        let mut lines = vec!["peer"];
        lines.extend(self.manner.keywords);
        if !under_tls && !matches!(self.manner.starttls, Starttls::NotOffered) {
            lines.push("STARTTLS");
        }
        let last = lines.len() - 1;
        let lines = lines
            .iter()
            .enumerate()
            .map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }));
        lines.collect::<Vec<_>>().join("\r\n")
    }

    async fn starttls<S: AsyncBufRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
    ) -> std::io::Result<Next> {
        match &self.manner.starttls {
            Starttls::Tls(config) | Starttls::Picky(_, config) => {
                say(stream, "220 go ahead").await?;
                Ok(Next::Handshake(Arc::clone(config)))
            }
            Starttls::Speaks(words) => {
                // In one piece, so that the client finds it in its buffer, or in more than one.
                say(stream, &format!("220 go ahead\r\n{words}")).await?;
                // It is the client's turn to give up.
                let _ = stream.read_line(&mut String::new()).await;
                Ok(Next::Over)
            }
            Starttls::Closes => {
                say(stream, "220 go ahead").await?;
                // The client's first command is read, so that closing does not reset.
                let _ = stream.fill_buf().await?;
                Ok(Next::Over)
            }
            Starttls::Vanishes => Ok(Next::Over),
            Starttls::Answered(_) | Starttls::NotOffered => {
                unreachable!("the session goes on in the clear")
            }
        }
    }

    /// Takes a message; says whether the session goes on.
    async fn message<S: AsyncBufRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        connection: usize,
    ) -> std::io::Result<bool> {
        let (mut message, mut line) = (Vec::new(), Vec::new());
        loop {
            line.clear();
            if stream.read_until(b'\n', &mut line).await? == 0 {
                self.note(connection, "(half a message)");
                return Ok(false);
            }
            if line == b".\r\n" {
                break;
            }
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        self.note(connection, ".");
        let usual = if self.has_enhanced() {
            "250 2.0.0 queued"
        } else {
            "250 queued"
        };
        let answer = self.ordered(".").unwrap_or(usual);
        if answer.is_empty() {
            return Ok(false);
        }
        if answer.starts_with('2') {
            self.heard.lock().expect("no panic")[connection]
                .messages
                .push(message);
        }
        say(stream, answer).await?;
        if let Some(farewell) = self.manner.farewell {
            if !farewell.is_empty() {
                say(stream, farewell).await?;
            }
            return Ok(false);
        }
        Ok(!answer.starts_with("421"))
    }
}

/// Reads the content behind `BDAT n LAST`; behind any other command there is none.
async fn chunk<S: AsyncBufRead + Unpin>(stream: &mut S, command: &str) -> std::io::Result<Vec<u8>> {
    let size = command
        .strip_prefix("BDAT ")
        .and_then(|size| size.strip_suffix(" LAST"));
    let mut content = vec![0; size.map_or(0, |size| size.parse().expect("a number"))];
    stream.read_exact(&mut content).await?;
    Ok(content)
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, words: &str) -> std::io::Result<()> {
    stream.write_all(format!("{words}\r\n").as_bytes()).await?;
    stream.flush().await
}

/// An address where nobody listens, and nobody else will as long as this is kept.
pub(crate) struct Nobody {
    pub(crate) address: SocketAddr,
    _socket: TcpSocket,
}

impl Nobody {
    /// At this address of loopback, on a port of its own.
    pub(crate) fn at(ip: [u8; 4]) -> Self {
        Self::on(ip, 0).expect("loopback")
    }

    /// At 127.0.0.1, on the port of a peer that is started at 127.0.0.2.
    pub(crate) async fn before(manner: impl Fn() -> Manner) -> (Self, Peer) {
        loop {
            let peer = Peer::start_at(([127, 0, 0, 2], 0).into(), manner()).await;
            // Somebody else may have the port there.
            if let Some(nobody) = Self::on([127, 0, 0, 1], peer.address.port()) {
                return (nobody, peer);
            }
        }
    }

    /// Two of them on one port, at 127.0.0.1 and 127.0.0.2.
    pub(crate) fn twins() -> (Self, Self) {
        loop {
            let first = Self::at([127, 0, 0, 1]);
            if let Some(second) = Self::on([127, 0, 0, 2], first.address.port()) {
                return (first, second);
            }
        }
    }

    /// At a port of 127.0.0.1 on which a server may still be started by its number. No other gets
    /// it: a port that the system chooses is never one that is bound.
    pub(crate) fn until_a_server_starts() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a socket");
        Self::bound(socket, ([127, 0, 0, 1], 0).into()).expect("loopback")
    }

    fn on(ip: [u8; 4], port: u16) -> Option<Self> {
        let socket = TcpSocket::new_v4().expect("a socket");
        Self::bound(socket, (ip, port).into())
    }

    fn bound(socket: TcpSocket, address: SocketAddr) -> Option<Self> {
        socket.bind(address).ok()?;
        Some(Self {
            address: socket.local_addr().expect("bound"),
            _socket: socket,
        })
    }
}
