//! The peers of the relay: small SMTP servers with real TLS that record what they receive, and a
//! client.
//!
//! They do not use [`crate::smtp`] on purpose: their records are the evidence that the relay works,
//! so they must not share a bug with it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::attempts::short_cipher;
use super::authority::{Authority, DemoIdentity, Flaw};
use super::cases::PeerTls;
use super::error::DemoError;

/// The maximum length of a line in octets, enough for everything in the demo.
const LINE_MAX: u64 = 4096;

/// A stream with or without TLS.
pub(super) trait PeerStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> PeerStream for T {}
pub(super) type PeerConnection = BufReader<Box<dyn PeerStream>>;

/// The behaviour of a peer.
#[derive(Clone)]
pub(super) enum PeerBehaviour {
    /// Offers no TLS.
    NoTls,
    /// Agrees to STARTTLS, then sends garbage.
    BrokenTls,
    /// Offers TLS.
    Tls(Arc<ServerConfig>),
    /// Offers TLS and accepts no mail without it.
    DemandsTls(Arc<ServerConfig>),
}

impl PeerBehaviour {
    /// Returns the behaviour of a host named `name`, and its certificate if it has one.
    pub(super) fn of(
        authority: &Authority,
        shows: PeerTls,
        name: &str,
    ) -> Result<(Self, Option<DemoIdentity>), DemoError> {
        let (name, flaw) = match shows {
            PeerTls::NoTls => return Ok((Self::NoTls, None)),
            PeerTls::BrokenTls => return Ok((Self::BrokenTls, None)),
            PeerTls::Good | PeerTls::GoodAndDemandsTls => (name, Flaw::None),
            PeerTls::OtherName => ("mail.stranger.example", Flaw::None),
            PeerTls::SelfSigned => (name, Flaw::SelfSigned),
            PeerTls::Expired => (name, Flaw::Expired),
        };
        let identity = authority.issue(name, flaw)?;
        let config = identity.server()?;
        let behaviour = if shows == PeerTls::GoodAndDemandsTls {
            Self::DemandsTls(config)
        } else {
            Self::Tls(config)
        };
        Ok((behaviour, Some(identity)))
    }
}

/// The record of what a peer received on all of its connections.
#[derive(Default, Clone)]
pub(super) struct PeerLog {
    pub(super) connections: usize,
    /// The MAIL FROM commands, each with true if it came over TLS.
    pub(super) mail_from: Vec<(String, bool)>,
    /// The messages, each with true if it came over TLS.
    pub(super) messages: Vec<(String, bool)>,
    /// The number of sessions that ended with QUIT.
    pub(super) quits: usize,
}

impl PeerLog {
    /// Returns the part of the record that is not in `before`, an earlier record of the same peer.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            mail_from: self.mail_from[before.mail_from.len()..].to_vec(),
            messages: self.messages[before.messages.len()..].to_vec(),
            quits: self.quits - before.quits,
        }
    }
}

/// A peer, which runs until it is dropped.
pub(super) struct DemoPeer {
    pub(super) address: SocketAddr,
    log: Arc<Mutex<PeerLog>>,
    task: AbortHandle,
}

impl Drop for DemoPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl DemoPeer {
    pub(super) async fn start(behaviour: PeerBehaviour) -> std::io::Result<Self> {
        Self::serve(TcpListener::bind("127.0.0.1:0").await?, behaviour)
    }

    /// Starts a peer at a socket that listens.
    pub(super) fn serve(listener: TcpListener, behaviour: PeerBehaviour) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let log = Arc::new(Mutex::new(PeerLog::default()));
        let session_log = Arc::clone(&log);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                lock(&session_log).connections += 1;
                // Errors are ignored: some cases break a session, whose record until then counts.
                tokio::spawn(serve(stream, behaviour.clone(), Arc::clone(&session_log)));
            }
        });
        Ok(Self {
            address,
            log,
            task: task.abort_handle(),
        })
    }

    /// Returns the record so far.
    pub(super) fn log(&self) -> PeerLog {
        lock(&self.log).clone()
    }
}

fn lock(log: &Mutex<PeerLog>) -> MutexGuard<'_, PeerLog> {
    // The record is consistent even after a panic: each change under the lock is a single push or
    // addition.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    stream: TcpStream,
    behaviour: PeerBehaviour,
    log: Arc<Mutex<PeerLog>>,
) -> std::io::Result<()> {
    let mut connection: PeerConnection = BufReader::new(Box::new(stream));
    write_line(&mut connection, "220 peer.example ESMTP").await?;
    let mut encrypted = false;
    while let Some(line) = read_line(&mut connection).await? {
        let verb = line
            .split([' ', ':'])
            .next()
            .unwrap_or("")
            .to_ascii_uppercase();
        let answer = match (verb.as_str(), &behaviour) {
            ("EHLO", PeerBehaviour::BrokenTls) => "250-peer.example\r\n250 STARTTLS",
            ("EHLO", PeerBehaviour::Tls(_) | PeerBehaviour::DemandsTls(_)) if !encrypted => {
                "250-peer.example\r\n250 STARTTLS"
            }
            ("EHLO" | "HELO", _) => "250 peer.example",
            ("STARTTLS", PeerBehaviour::BrokenTls) => {
                return write_line(&mut connection, "220 Go ahead\r\nThis is not TLS").await;
            }
            ("STARTTLS", PeerBehaviour::Tls(config) | PeerBehaviour::DemandsTls(config))
                if !encrypted =>
            {
                write_line(&mut connection, "220 Go ahead").await?;
                let stream = TlsAcceptor::from(Arc::clone(config))
                    .accept(connection.into_inner())
                    .await?;
                connection = BufReader::new(Box::new(stream));
                encrypted = true;
                continue;
            }
            ("MAIL", behaviour) => {
                lock(&log).mail_from.push((line.clone(), encrypted));
                match behaviour {
                    PeerBehaviour::DemandsTls(_) if !encrypted => {
                        "530 5.7.0 Must issue a STARTTLS command first"
                    }
                    _ => "250 2.1.0 Ok",
                }
            }
            ("RCPT", _) => "250 2.1.5 Ok",
            ("DATA", _) => {
                write_line(&mut connection, "354 Go ahead").await?;
                let message = read_message(&mut connection).await?;
                lock(&log).messages.push((message, encrypted));
                "250 2.0.0 Taken"
            }
            ("RSET" | "NOOP", _) => "250 2.0.0 Ok",
            ("QUIT", _) => {
                lock(&log).quits += 1;
                return write_line(&mut connection, "221 2.0.0 Bye").await;
            }
            _ => "502 5.5.1 Not here",
        };
        write_line(&mut connection, answer).await?;
    }
    Ok(())
}

async fn write_line(connection: &mut PeerConnection, line: &str) -> std::io::Result<()> {
    // Line and line end are written at once: Nagle's algorithm would delay a line end that is
    // written alone.
    connection
        .write_all(format!("{line}\r\n").as_bytes())
        .await?;
    connection.flush().await
}

/// Reads a line without its line end; `None` at the end of the connection.
async fn read_line(connection: &mut PeerConnection) -> std::io::Result<Option<String>> {
    use tokio::io::AsyncReadExt as _;
    let mut line = String::new();
    if connection.take(LINE_MAX).read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

/// Reads content up to the final dot.
async fn read_message(connection: &mut PeerConnection) -> std::io::Result<String> {
    let mut message = String::new();
    while let Some(line) = read_line(connection).await? {
        if line == "." {
            break;
        }
        message.push_str(line.strip_prefix('.').unwrap_or(&line));
        message.push('\n');
    }
    Ok(message)
}

/// A man in the middle between the relay and a peer, which can strip STARTTLS from the replies.
pub(super) struct Interceptor {
    pub(super) address: SocketAddr,
    strips: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Interceptor {
    pub(super) async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let strips = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&strips);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let strip = flag.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut client = client;
                    let mut server = TcpStream::connect(target).await?;
                    if strip {
                        strip_starttls(client, server).await
                    } else {
                        tokio::io::copy_bidirectional(&mut client, &mut server)
                            .await
                            .map(|_| ())
                    }
                });
            }
        });
        Ok(Self {
            address,
            strips,
            task: task.abort_handle(),
        })
    }

    /// Strips STARTTLS from all later connections.
    pub(super) fn strip(&self) {
        self.strips.store(true, Ordering::Relaxed);
    }
}

async fn strip_starttls(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut from_client = BufReader::new(from_client);
    let up = async {
        tokio::io::copy_buf(&mut from_client, &mut to_server)
            .await
            .map(|_| ())
    };
    let down = async {
        let mut lines = BufReader::new(from_server).lines();
        while let Some(line) = lines.next_line().await? {
            // The replacement has the same length, as in known attacks.
            let line = line.replace("STARTTLS", "XXXXXXXA");
            to_client
                .write_all(format!("{line}\r\n").as_bytes())
                .await?;
        }
        Ok(())
    };
    tokio::select! { end = up => end, end = down => end }
}

/// The result of a client's session with the relay.
pub(super) struct Submission {
    /// True if the relay offered STARTTLS.
    pub(super) offered: bool,
    /// The TLS version of the session.
    pub(super) version: Option<String>,
    /// The cipher suite of the session.
    pub(super) cipher: Option<String>,
    /// The last reply before QUIT.
    pub(super) reply: String,
}

impl Submission {
    /// Returns true if the relay accepted the message.
    pub(super) fn is_accepted(&self) -> bool {
        self.reply.starts_with("250")
    }
}

/// Sends a message to the relay, over TLS if `tls` is given, and QUIT.
pub(super) async fn submit(
    relay: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    from: &str,
    to: &[&str],
    subject: &str,
) -> std::io::Result<Submission> {
    let mut connection: PeerConnection = BufReader::new(Box::new(TcpStream::connect(relay).await?));
    let mut submission = Submission {
        offered: false,
        version: None,
        cipher: None,
        reply: String::new(),
    };
    read_reply(&mut connection).await?;
    submission.offered = send_command(&mut connection, "EHLO client.example")
        .await?
        .contains("STARTTLS");
    if let Some(config) = tls {
        send_command(&mut connection, "STARTTLS").await?;
        let name = ServerName::try_from("relay.example").map_err(std::io::Error::other)?;
        let stream = TlsConnector::from(config)
            .connect(name, connection.into_inner())
            .await?;
        let session = stream.get_ref().1;
        submission.version = session
            .protocol_version()
            .map(|version| format!("{version:?}").replace('_', "."));
        submission.cipher = session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .map(short_cipher);
        connection = BufReader::new(Box::new(stream));
        send_command(&mut connection, "EHLO client.example").await?;
    }
    let content = format!(
        "From: <{from}>\r\nTo: <{}>\r\nSubject: {subject}\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n\r\nHello.\r\n.",
        to.join(">, <")
    );
    let mut commands = vec![format!("MAIL FROM:<{from}>")];
    commands.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
    commands.extend(["DATA".to_owned(), content]);
    for command in commands {
        submission.reply = send_command(&mut connection, &command).await?;
        if !submission.reply.starts_with(['2', '3']) {
            break;
        }
    }
    send_command(&mut connection, "QUIT").await?;
    Ok(submission)
}

/// Sends a command and returns the reply.
async fn send_command(connection: &mut PeerConnection, line: &str) -> std::io::Result<String> {
    write_line(connection, line).await?;
    read_reply(connection).await
}

/// Reads a reply of one or more lines.
async fn read_reply(connection: &mut PeerConnection) -> std::io::Result<String> {
    let mut reply = String::new();
    while let Some(line) = read_line(connection).await? {
        let is_last = line.as_bytes().get(3) != Some(&b'-');
        reply.push_str(&line);
        if is_last {
            return Ok(reply);
        }
        reply.push('\n');
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::UnexpectedEof,
        format!("the relay closed after {reply:?}"),
    ))
}
