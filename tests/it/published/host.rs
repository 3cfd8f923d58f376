//! An HTTPS host that plays a part, and what is needed to ask it.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost::config::TrustSource;
use gatepost::net::dns::Dns;
use gatepost::net::https::{Https, Url};
use gatepost::net::tls_io::TlsMaterial;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::{self, Authority, BOTH, Pair, at, server_config};
use crate::support::dns::NameServer;
use crate::support::picky::{Picky, Waiting};

/// The answer of a host to a request that it has read.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// With these octets, and closes.
    Say(Vec<u8>),
    /// With these octets, and then nothing, and the connection stays.
    Hang(Vec<u8>),
    /// With these octets, and then those again and again, each after this pause.
    Forever {
        head: Vec<u8>,
        again: Vec<u8>,
        pause: Duration,
    },
    /// It never even shakes hands.
    Deaf,
}

/// An answer with status 200, plain text, and this body.
pub(crate) fn plain(body: &[u8]) -> Part {
    answer(
        "200 OK",
        &format!(
            "Content-Type: text/plain\r\nContent-Length: {}\r\n",
            body.len()
        ),
        body,
    )
}

pub(crate) fn answer(status: &str, fields: &str, body: &[u8]) -> Part {
    Part::Say(
        [
            format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes(),
            body,
        ]
        .concat(),
    )
}

/// Serves until it is dropped.
pub(crate) struct Host {
    pub(crate) port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    hellos: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Host {
    pub(crate) async fn start(pair: &Pair, part: Part) -> Self {
        Self::start_with(server_config(pair, BOTH), part).await
    }

    pub(crate) async fn start_with(config: rustls::ServerConfig, part: Part) -> Self {
        Self::serve(config, part, None).await
    }

    /// One that does not take every ClientHello.
    pub(crate) async fn picky(pair: &Pair, part: Part, picky: Picky) -> Self {
        Self::serve(server_config(pair, BOTH), part, Some(picky)).await
    }

    async fn serve(config: rustls::ServerConfig, part: Part, picky: Option<Picky>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback");
        let bound = listener.local_addr().expect("bound").port();
        let (heard, hellos, acceptor) = (
            Arc::default(),
            Arc::default(),
            TlsAcceptor::from(Arc::new(config)),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(
            listener,
            acceptor,
            part,
            picky,
            (Arc::clone(&heard), Arc::clone(&hellos)),
        ));
        Self {
            port: bound,
            heard,
            hellos,
            _tasks: tasks,
        }
    }

    /// Each ClientHello that it was shown, where it is picky.
    pub(crate) fn hellos(&self) -> Vec<String> {
        self.hellos.lock().expect("sound").clone()
    }

    /// Each complete request, after the name of SNI and the protocol of ALPN.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("sound").clone()
    }
}

type Words = Arc<Mutex<Vec<String>>>;

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    part: Part,
    picky: Option<Picky>,
    (heard, hellos): (Words, Words),
) {
    let mut sessions = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a client");
        let (acceptor, part, heard, hellos) = (
            acceptor.clone(),
            part.clone(),
            Arc::clone(&heard),
            Arc::clone(&hellos),
        );
        sessions.spawn(async move {
            if matches!(part, Part::Deaf) {
                return std::future::pending().await;
            }
            if let Some(picky) = picky {
                let hello = Waiting::on(&stream).await.expect("a ClientHello");
                hellos.lock().expect("sound").push(hello.words());
                if picky.stumbles(&hello) {
                    let _gone = picky.play(stream).await;
                    return;
                }
            }
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let session = stream.get_ref().1;
            let protocol = session
                .alpn_protocol()
                .map(|name| String::from_utf8_lossy(name).into_owned());
            let about = format!(
                "{} {}\n",
                session.server_name().unwrap_or("-"),
                protocol.as_deref().unwrap_or("-")
            );
            let Some(request) = read(&mut stream).await else {
                return;
            };
            heard.lock().expect("sound").push(about + &request);
            // The client may go whenever it has enough.
            let _gone = play(&mut stream, part).await;
        });
    }
}

/// A request with its content; `None` where the client left without one.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let octet = stream.read_u8().await.ok()?;
        text.push(octet);
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(text).expect("a head is ASCII");
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut content = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut content).await.ok()?;
    Some(head + &String::from_utf8_lossy(&content))
}

async fn play(stream: &mut (impl AsyncWrite + Unpin), part: Part) -> std::io::Result<()> {
    match part {
        Part::Say(octets) => {
            stream.write_all(&octets).await?;
            stream.shutdown().await
        }
        Part::Hang(octets) => {
            stream.write_all(&octets).await?;
            stream.flush().await?;
            std::future::pending().await
        }
        Part::Forever { head, again, pause } => {
            stream.write_all(&head).await?;
            loop {
                stream.write_all(&again).await?;
                stream.flush().await?;
                tokio::time::sleep(pause).await;
            }
        }
        Part::Deaf => std::future::pending().await,
    }
}

/// An authority that is trusted, and a name server.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) names: NameServer,
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new(records: &str) -> Self {
        Self {
            authority: Authority::root("WebSource Root"),
            names: NameServer::start(&[("example", records)]).await,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// A resolver, and TLS that trusts the authority alone.
    pub(crate) fn tools(&self) -> (Dns, Https) {
        let file = self.folder.path().join("trust.pem");
        std::fs::write(&file, self.authority.pem()).expect("the folder is ours");
        let mut config = certificates::config(None, Vec::new());
        config.tls.trust = at(TrustSource::File(file), 10);
        config.dns.servers = vec![at(self.names.address, 30)];
        let material: Arc<TlsMaterial> = certificates::load(&config);
        let dns = Dns::new(&config.dns).expect("a resolver");
        (dns.clone(), Https::new(dns, material.https().clone()))
    }

    pub(crate) fn https(&self) -> Https {
        self.tools().1
    }
}

pub(crate) fn url(host: &Host, rest: &str) -> Url {
    let (name, path) = rest.split_once('/').expect("a path");
    Url::parse(&format!("https://{name}:{}/{path}", host.port)).expect(rest)
}
