//! A host of CRLs, and certificates that name it.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost::config::ProxyAddress;
use gatepost::net::dns::Dns;
use gatepost::net::https::PlainHttp;
use gatepost::net::revocation::{DistributionPoints, PointFiles};
use rcgen::CrlDistributionPoint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::certificates::{Authority, Pair};
use crate::support::deliveries::World;

/// The host of every certificate.
pub(crate) const HOP: &str = "mx.partner.example";
pub(crate) const RECORDS: &str = "
    mx.partner.example A 127.0.0.1
    crl.partner.example A 127.0.0.1
    partner.example MX 10 mx.partner.example
";

/// The answer of a host to a request.
#[derive(Clone)]
pub(crate) enum Answer {
    Octets(Vec<u8>),
    /// A body without an end.
    Endless,
    /// Nothing; the connection stays open.
    Silence,
}

/// Status 200 with this body.
pub(crate) fn found(body: &[u8]) -> Answer {
    found_with("", body)
}

/// Status 200 with these header lines and this body.
pub(crate) fn found_with(fields: &str, body: &[u8]) -> Answer {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    Answer::Octets([head.as_bytes(), body].concat())
}

/// This status and header, without a body.
pub(crate) fn status(line: &str) -> Answer {
    Answer::Octets(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes())
}

/// Serves until it is dropped. The last answer is given again and again.
pub(crate) struct CrlHost {
    pub(crate) port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<Answer>>>,
    _tasks: JoinSet<()>,
}

impl CrlHost {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let answers = Arc::new(Mutex::new(vec![answer]));
        let (all, next) = (Arc::clone(&heard), Arc::clone(&answers));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sessions.spawn(serve(stream, Arc::clone(&all), Arc::clone(&next)));
            }
        });
        Self {
            port,
            heard,
            answers,
            _tasks: tasks,
        }
    }

    /// Answers so from now on.
    pub(crate) fn publish(&self, answer: Answer) {
        *self.answers.lock().expect("sound") = vec![answer];
    }

    pub(crate) fn url(&self) -> String {
        format!("http://crl.partner.example:{}/ca.crl", self.port)
    }

    /// The head of each request.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("sound").clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.heard().len()
    }
}

async fn serve(
    mut stream: TcpStream,
    heard: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<Answer>>>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(octet) => request.push(octet),
            Err(_) => return,
        }
    }
    heard
        .lock()
        .expect("sound")
        .push(String::from_utf8_lossy(&request).into_owned());
    let answer = answers.lock().expect("sound").last().cloned();
    // The client may go whenever it has enough.
    match answer.expect("there is one") {
        Answer::Octets(octets) => drop(stream.write_all(&octets).await),
        Answer::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let octets = vec![0x30; 65536];
            while stream.write_all(&octets).await.is_ok() {}
        }
        Answer::Silence => drop(stream.read_u8().await),
    }
}

/// Returns a certificate for [`HOP`] that names these distribution points.
pub(crate) fn issued(authority: &Authority, urls: &[&str]) -> Pair {
    authority.issue_as(&[HOP], |params| {
        params.crl_distribution_points = urls
            .iter()
            .map(|url| CrlDistributionPoint {
                uris: vec![(*url).to_owned()],
            })
            .collect();
    })
}

/// A client that may ask this machine.
pub(crate) fn client(world: &World, proxy: Option<ProxyAddress>) -> PlainHttp {
    let dns = Dns::new(&world.config("").dns).expect("a resolver");
    PlainHttp::new(dns, proxy)
        .with_timeout(Duration::from_secs(6))
        .with_loopback(true)
}

pub(crate) fn points(world: &World) -> DistributionPoints {
    DistributionPoints::new(PointFiles::none(), Box::new(client(world, None)))
}

/// Fetches all CRLs in use again, and waits until that is done.
pub(crate) async fn fetch_again(world: &World, points: &DistributionPoints) {
    let sum = |(fetched, failed): (u64, u64)| fetched + failed;
    let before = sum(points.fetches());
    points.replace(Box::new(client(world, None)));
    points.refresh_due();
    let done = async {
        while sum(points.fetches()) == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), done)
        .await
        .expect("the fetch ends");
}
