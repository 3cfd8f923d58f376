//! The other side: small SMTP servers with real TLS that write down what they hear, and a client.
//!
//! They are written apart from [`crate::smtp`] on purpose: what they saw is the demo's evidence, so
//! they must not share a fault with the program they watch.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Octets in a line, at most: enough for anything the demo says.
const LINE_MAX: u64 = 4096;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}
pub(super) type Talk = BufReader<Box<dyn Stream>>;

/// How a peer behaves.
#[derive(Clone)]
pub(super) enum Manner {
    /// Has no TLS.
    NoTls,
    /// Agrees to STARTTLS, then sends garbage.
    BrokenTls,
    /// Offers TLS.
    Tls(Arc<ServerConfig>),
    /// Offers TLS and takes no mail without.
    DemandsTls(Arc<ServerConfig>),
}

/// What a peer heard, over all of its connections.
#[derive(Default, Clone)]
pub(super) struct Heard {
    pub(super) connections: usize,
    /// Commands of the envelope, with whether they came over TLS.
    pub(super) mail_from: Vec<(String, bool)>,
    /// Whole messages, with whether they came over TLS.
    pub(super) messages: Vec<(String, bool)>,
    /// Sessions that were ended with QUIT.
    pub(super) quits: usize,
}

impl Heard {
    /// What was heard after `before`, which was heard by the same peer.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            mail_from: self.mail_from[before.mail_from.len()..].to_vec(),
            messages: self.messages[before.messages.len()..].to_vec(),
            quits: self.quits - before.quits,
        }
    }
}

/// A peer that is running, until it is dropped.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    task: AbortHandle,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    pub(super) async fn start(manner: Manner) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let ears = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                lock(&ears).connections += 1;
                // A session that breaks off is part of the play; what was heard until then is kept.
                tokio::spawn(serve(stream, manner.clone(), Arc::clone(&ears)));
            }
        });
        Ok(Self { address, heard, task: task.abort_handle() })
    }

    pub(super) fn heard(&self) -> Heard {
        lock(&self.heard).clone()
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    // Nothing is done under this lock that could leave it half changed.
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(stream: TcpStream, manner: Manner, ears: Arc<Mutex<Heard>>) -> std::io::Result<()> {
    let mut talk: Talk = BufReader::new(Box::new(stream));
    say(&mut talk, "220 peer.example ESMTP").await?;
    let mut encrypted = false;
    while let Some(line) = hear(&mut talk).await? {
        let verb = line.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase();
        let answer = match (verb.as_str(), &manner) {
            ("EHLO", Manner::BrokenTls) => "250-peer.example\r\n250 STARTTLS",
            ("EHLO", Manner::Tls(_) | Manner::DemandsTls(_)) if !encrypted => "250-peer.example\r\n250 STARTTLS",
            ("EHLO" | "HELO", _) => "250 peer.example",
            ("STARTTLS", Manner::BrokenTls) => {
                return say(&mut talk, "220 Go ahead\r\nThis is not TLS").await;
            }
            ("STARTTLS", Manner::Tls(config) | Manner::DemandsTls(config)) if !encrypted => {
                say(&mut talk, "220 Go ahead").await?;
                let stream = TlsAcceptor::from(Arc::clone(config)).accept(talk.into_inner()).await?;
                talk = BufReader::new(Box::new(stream));
                encrypted = true;
                continue;
            }
            ("MAIL", manner) => {
                lock(&ears).mail_from.push((line.clone(), encrypted));
                match manner {
                    Manner::DemandsTls(_) if !encrypted => "530 5.7.0 Must issue a STARTTLS command first",
                    _ => "250 2.1.0 Ok",
                }
            }
            ("RCPT", _) => "250 2.1.5 Ok",
            ("DATA", _) => {
                say(&mut talk, "354 Go ahead").await?;
                let message = hear_message(&mut talk).await?;
                lock(&ears).messages.push((message, encrypted));
                "250 2.0.0 Taken"
            }
            ("RSET" | "NOOP", _) => "250 2.0.0 Ok",
            ("QUIT", _) => {
                lock(&ears).quits += 1;
                return say(&mut talk, "221 2.0.0 Bye").await;
            }
            _ => "502 5.5.1 Not here",
        };
        say(&mut talk, answer).await?;
    }
    Ok(())
}

async fn say(talk: &mut Talk, line: &str) -> std::io::Result<()> {
    // In one piece: the end of the line alone would wait for an acknowledgement of its beginning.
    talk.write_all(format!("{line}\r\n").as_bytes()).await?;
    talk.flush().await
}

async fn hear(talk: &mut Talk) -> std::io::Result<Option<String>> {
    use tokio::io::AsyncReadExt as _;
    let mut line = String::new();
    if talk.take(LINE_MAX).read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

async fn hear_message(talk: &mut Talk) -> std::io::Result<String> {
    let mut message = String::new();
    while let Some(line) = hear(talk).await? {
        if line == "." {
            break;
        }
        message.push_str(line.strip_prefix('.').unwrap_or(&line));
        message.push('\n');
    }
    Ok(message)
}

/// Somebody on the way to a peer who, when told to, hides STARTTLS from the client.
pub(super) struct Interceptor {
    pub(super) address: SocketAddr,
    strips: Arc<std::sync::atomic::AtomicBool>,
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
        let strips = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = Arc::clone(&strips);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let strip = told.load(std::sync::atomic::Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut client = client;
                    let mut server = TcpStream::connect(target).await?;
                    if strip {
                        strip_starttls(client, server).await
                    } else {
                        tokio::io::copy_bidirectional(&mut client, &mut server).await.map(|_| ())
                    }
                });
            }
        });
        Ok(Self { address, strips, task: task.abort_handle() })
    }

    pub(super) fn strip(&self) {
        self.strips.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

async fn strip_starttls(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut from_client = BufReader::new(from_client);
    let up = async { tokio::io::copy_buf(&mut from_client, &mut to_server).await.map(|_| ()) };
    let down = async {
        let mut lines = BufReader::new(from_server).lines();
        while let Some(line) = lines.next_line().await? {
            // The length stays, as a careful interceptor would have it.
            let line = line.replace("STARTTLS", "XXXXXXXA");
            to_client.write_all(format!("{line}\r\n").as_bytes()).await?;
        }
        Ok(())
    };
    tokio::select! { end = up => end, end = down => end }
}

/// What a client's submission came to.
pub(super) struct Submitted {
    /// Whether EHLO's answer had STARTTLS.
    pub(super) offered: bool,
    /// The TLS version reached.
    pub(super) version: Option<String>,
    /// The cipher suite reached.
    pub(super) cipher: Option<String>,
    /// The last reply.
    pub(super) reply: String,
}

impl Submitted {
    pub(super) fn taken(&self) -> bool {
        self.reply.starts_with("250")
    }
}

/// Hands a message in, over TLS where `tls` is given, and says QUIT.
pub(super) async fn submit(
    relay: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    from: &str,
    to: &[&str],
    subject: &str,
) -> std::io::Result<Submitted> {
    let mut talk: Talk = BufReader::new(Box::new(TcpStream::connect(relay).await?));
    let mut submitted = Submitted { offered: false, version: None, cipher: None, reply: String::new() };
    answer(&mut talk).await?;
    submitted.offered = ask(&mut talk, "EHLO client.example").await?.contains("STARTTLS");
    if let Some(config) = tls {
        ask(&mut talk, "STARTTLS").await?;
        let name = ServerName::try_from("relay.example").map_err(std::io::Error::other)?;
        let stream = TlsConnector::from(config).connect(name, talk.into_inner()).await?;
        let session = stream.get_ref().1;
        submitted.version = session.protocol_version().map(|version| format!("{version:?}").replace('_', "."));
        submitted.cipher =
            session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).map(super::short_cipher);
        talk = BufReader::new(Box::new(stream));
        ask(&mut talk, "EHLO client.example").await?;
    }
    let content = format!(
        "From: <{from}>\r\nTo: <{}>\r\nSubject: {subject}\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n\r\nHello.\r\n.",
        to.join(">, <")
    );
    let mut words = vec![format!("MAIL FROM:<{from}>")];
    words.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
    words.extend(["DATA".to_owned(), content]);
    for word in words {
        submitted.reply = ask(&mut talk, &word).await?;
        if !submitted.reply.starts_with(['2', '3']) {
            break;
        }
    }
    ask(&mut talk, "QUIT").await?;
    Ok(submitted)
}

async fn ask(talk: &mut Talk, line: &str) -> std::io::Result<String> {
    say(talk, line).await?;
    answer(talk).await
}

async fn answer(talk: &mut Talk) -> std::io::Result<String> {
    let mut all = String::new();
    while let Some(line) = hear(talk).await? {
        let last = line.as_bytes().get(3) != Some(&b'-');
        all.push_str(&line);
        if last {
            return Ok(all);
        }
        all.push('\n');
    }
    Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("the relay hung up after {all:?}")))
}
