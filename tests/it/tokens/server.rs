//! A token server that plays a script and remembers each request.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::{BOTH, Pair, server_config};

/// The answer to one request.
#[derive(Debug, Clone)]
pub(crate) enum Conduct {
    /// These octets, then the end.
    Say(Vec<u8>),
    /// These octets, and then nothing.
    Hang(Vec<u8>),
    /// The same as [`Conduct::Say`], once it is allowed.
    After(Arc<Notify>, Vec<u8>),
}

/// An answer in JSON.
pub(crate) fn json(status: &str, body: &str) -> Conduct {
    answer(status, "application/json", body)
}

/// An answer of a type.
pub(crate) fn answer(status: &str, content_type: &str, body: &str) -> Conduct {
    let length = body.len();
    Conduct::Say(
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes(),
    )
}

/// A token for an hour.
pub(crate) fn token(token: &str) -> Conduct {
    json(
        "200 OK",
        &format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":3600}}"),
    )
}

/// A token for an hour, with a refresh token.
pub(crate) fn token_and_refresh(token: &str, refresh: &str) -> Conduct {
    json(
        "200 OK",
        &format!(
            "{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":3600,\"refresh_token\":\"{refresh}\"}}"
        ),
    )
}

/// A request, as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) form: Vec<(String, String)>,
}

impl Request {
    /// The names of the fields, in their order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.form.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The value of a field, which must be there once.
    pub(crate) fn value(&self, name: &str) -> &str {
        let mut found = self.form.iter().filter(|(key, _)| key == name);
        let (_, value) = found.next().unwrap_or_else(|| panic!("{name} in {self:?}"));
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }
}

/// Serves until it is dropped.
pub(crate) struct TokenServer {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    script: Arc<Mutex<VecDeque<Conduct>>>,
    _tasks: JoinSet<()>,
}

impl TokenServer {
    /// Starts with a script, which a test may extend. Without one, requests get no answer.
    pub(crate) async fn start(pair: &Pair, script: Vec<Conduct>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(pair, BOTH)));
        let script = Arc::new(Mutex::new(VecDeque::from(script)));
        let requests = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(
            listener,
            acceptor,
            Arc::clone(&script),
            Arc::clone(&requests),
        ));
        Self {
            port,
            requests,
            script,
            _tasks: tasks,
        }
    }

    /// Adds an answer to the script.
    pub(crate) fn then(&self, conduct: Conduct) {
        self.script.lock().expect("sound").push_back(conduct);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("sound").clone()
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    script: Arc<Mutex<VecDeque<Conduct>>>,
    requests: Arc<Mutex<Vec<Request>>>,
) {
    let mut sessions = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a client");
        let (acceptor, script, requests) =
            (acceptor.clone(), Arc::clone(&script), Arc::clone(&requests));
        sessions.spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let Some(request) = read(&mut stream).await else {
                return;
            };
            requests.lock().expect("sound").push(request);
            let mut conduct = script.lock().expect("sound").pop_front();
            if let Some(Conduct::After(allowed, octets)) = conduct {
                allowed.notified().await;
                conduct = Some(Conduct::Say(octets));
            }
            match conduct {
                Some(Conduct::Say(octets)) => {
                    // The client may go whenever it has enough.
                    let _gone = stream.write_all(&octets).await;
                    let _gone = stream.shutdown().await;
                }
                Some(Conduct::Hang(octets)) => {
                    let _gone = stream.write_all(&octets).await;
                    let _gone = stream.flush().await;
                    std::future::pending::<()>().await;
                }
                Some(Conduct::After(..)) | None => {}
            }
        });
    }
}

/// Reads a request with a form; `None` if the client left without one.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a head is ASCII");
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a form has a length")];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).expect("a form is ASCII");
    let form = body
        .split('&')
        .map(|field| {
            let (name, value) = field.split_once('=').expect("a field has a value");
            (decode(name), decode(value))
        })
        .collect();
    Some(Request { head, form })
}

fn decode(text: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((octet, behind)) = rest.split_first() {
        rest = behind;
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let digits = std::str::from_utf8(&rest[..2]).expect("ASCII");
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).expect("hexadecimal")
            }
            octet => *octet,
        });
    }
    String::from_utf8(octets).expect("UTF-8")
}
