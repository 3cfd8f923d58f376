//! A smart host with TLS from the first octet that wants a login, and records each line.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost::smtp::sasl::scram::ScramVerifier;
use gatepost::smtp::sasl::{ExchangeStep, Mechanism, Password, SaslExchange};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// The user that may log in.
pub(crate) const USER: &str = "relay@example.com";
/// The password of that user.
pub(crate) const PASSWORD: &str = "pencil";

/// The behaviour of a smart host.
#[derive(Clone)]
pub(crate) struct LoginManner {
    /// The keyword AUTH with its mechanisms, in the answer to EHLO.
    pub(crate) auth: &'static str,
    /// The replies to lines that begin like this, in place of the usual ones; an empty one closes the
    /// connection.
    pub(crate) scripted: &'static [(&'static str, &'static str)],
}

/// A running smart host.
pub(crate) struct SmartHost {
    pub(crate) port: u16,
    shared: Arc<SharedHost>,
    task: JoinHandle<()>,
}

struct SharedHost {
    manner: LoginManner,
    heard: Mutex<Vec<Vec<String>>>,
    active: watch::Sender<usize>,
}

impl Drop for SmartHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SmartHost {
    pub(crate) async fn start(tls: rustls::ServerConfig, manner: LoginManner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(SharedHost {
            manner,
            heard: Mutex::default(),
            active: watch::Sender::new(0),
        });
        let (serving, acceptor) = (Arc::clone(&shared), TlsAcceptor::from(Arc::new(tls)));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                serving.active.send_modify(|active| *active += 1);
                let (shared, acceptor) = (Arc::clone(&serving), acceptor.clone());
                let connection = {
                    let mut heard = shared.heard.lock().expect("no panic");
                    heard.push(Vec::new());
                    heard.len() - 1
                };
                tokio::spawn(async move {
                    // A client that goes in the middle is what some tests are about.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = shared.serve(stream, connection).await;
                    }
                    shared.active.send_modify(|active| *active -= 1);
                });
            }
        });
        Self { port, shared, task }
    }

    /// Returns the lines of each connection, once every connection has ended.
    pub(crate) async fn heard(&self) -> Vec<Vec<String>> {
        let mut active = self.shared.active.subscribe();
        let ended = tokio::time::timeout(PATIENCE, active.wait_for(|active| *active == 0)).await;
        ended.expect("connections end").expect("the host runs");
        self.shared.heard.lock().expect("no panic").clone()
    }
}

type Line = BufReader<TlsStream<TcpStream>>;

impl SharedHost {
    async fn serve(&self, stream: TlsStream<TcpStream>, connection: usize) -> std::io::Result<()> {
        let exported = stream.get_ref().1.export_keying_material(
            [0; 32],
            b"EXPORTER-Channel-Binding",
            Some(&[]),
        );
        let binding = exported.expect("the handshake is complete");
        let mut stream = BufReader::new(stream);
        say(&mut stream, "220 smart host").await?;
        let (mut is_in, mut in_content) = (false, false);
        loop {
            let line = self.read(&mut stream, connection, in_content).await?;
            if in_content && line != "." {
                continue;
            }
            let scripted = self.manner.scripted.iter();
            if let Some((_, reply)) = scripted.clone().find(|(begin, _)| line.starts_with(begin)) {
                if reply.is_empty() {
                    return Ok(());
                }
                say(&mut stream, reply).await?;
                continue;
            }
            in_content = line == "DATA";
            let reply = match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => {
                    let auth = self.manner.auth;
                    let reply =
                        format!("250-smart host\r\n250-PIPELINING\r\n250-{auth}\r\n250 SIZE");
                    say(&mut stream, &reply).await?;
                    continue;
                }
                "AUTH" => {
                    let login = self.log_in(&mut stream, connection, &line, &binding);
                    is_in = login.await?;
                    continue;
                }
                "MAIL" if !is_in => "530 5.7.0 Authentication required",
                "DATA" => "354 go ahead",
                "QUIT" => {
                    return say(&mut stream, "221 2.0.0 bye").await;
                }
                _ => "250 2.0.0 ok",
            };
            say(&mut stream, reply).await?;
        }
    }

    async fn read(
        &self,
        stream: &mut Line,
        connection: usize,
        is_content: bool,
    ) -> std::io::Result<String> {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        if !is_content {
            let mut heard = self.heard.lock().expect("no panic");
            heard[connection].push(line.clone());
        }
        Ok(line)
    }

    async fn log_in(
        &self,
        stream: &mut Line,
        connection: usize,
        command: &str,
        binding: &[u8],
    ) -> std::io::Result<bool> {
        let words: Vec<_> = command.split(' ').collect();
        let mechanism = Mechanism::parse(words[1]).expect("it was offered");
        let is_bound = self.manner.auth.contains("PLUS");
        let mut exchange = SaslExchange::new(mechanism, is_bound);
        let mut response = if let Some(response) = words.get(2) {
            (*response).to_owned()
        } else {
            say(stream, &format!("334 {}", exchange.first_challenge())).await?;
            self.read(stream, connection, false).await?
        };
        loop {
            let challenge = match exchange.respond(response.as_bytes()) {
                ExchangeStep::Challenge(challenge) => challenge,
                ExchangeStep::FindVerifier(_) => {
                    exchange.challenge(true, verifier(), "of-the-server", binding)
                }
                ExchangeStep::Proved(_) => exchange.server_final(),
                ExchangeStep::CheckPassword(login) => {
                    let is_right =
                        login.name == USER && login.password.as_bytes() == PASSWORD.as_bytes();
                    return end_login(stream, is_right).await;
                }
                ExchangeStep::Acknowledged => return end_login(stream, true).await,
                ExchangeStep::Failed(..) => return end_login(stream, false).await,
            };
            say(stream, &format!("334 {challenge}")).await?;
            response = self.read(stream, connection, false).await?;
        }
    }
}

async fn end_login(stream: &mut Line, is_right: bool) -> std::io::Result<bool> {
    let reply = if is_right {
        "235 2.7.0 ok"
    } else {
        "535 5.7.8 Authentication credentials invalid"
    };
    say(stream, reply).await?;
    Ok(is_right)
}

fn verifier() -> ScramVerifier {
    let password = Password::new(PASSWORD).expect("usable");
    ScramVerifier::derive(&password, b"salt", NonZeroU32::new(4096).expect("not zero"))
}

async fn say(stream: &mut Line, reply: &str) -> std::io::Result<()> {
    stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
    stream.flush().await
}
