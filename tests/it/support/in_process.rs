//! A relay in this process, with its spool in a folder of its own, peers it delivers to, and a
//! client that hands it mail.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost::config::Config;
use gatepost::daemon::{self, RunningDaemon};
use gatepost::net::tls_io::TlsMaterial;
use gatepost::policy::tls::{Groups, Handshake, Hello};
use gatepost::relay::outbound::DeliveryObserver;
use gatepost::smtp::address::Host;
use rusqlite::OpenFlags;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::ConfigBuilder;
use super::dsn::Report;
use super::peer::{Manner, Peer, Starttls};

/// Only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Who sends, where a test does not say otherwise.
pub(crate) const SENDER: &str = "alice@sender.example";

/// Asks every few milliseconds until the answer is there.
pub(crate) async fn until<T>(what: &str, mut asked: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = asked() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: that has not come to pass"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A connector for one domain, with the smart host that it leads to and more lines of its outbound
/// table.
pub(crate) fn connector(domain: &str, to: SocketAddr, more: &str) -> String {
    let tls = if more.contains("tls =") {
        ""
    } else {
        "tls = \"off\"\n"
    };
    format!(
        "[[connector]]\nname = \"{domain}\"\ndomains = [\"{domain}\"]\n[connector.outbound]\nroute = [\"{to}\"]\n{tls}{more}\n"
    )
}

/// A peer that takes everything, and knows every extension that a report can need.
pub(crate) async fn willing() -> Peer {
    peer(&["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN"], &[]).await
}

/// A peer with these keywords and, to commands that begin so, these answers.
pub(crate) async fn peer(
    keywords: &'static [&'static str],
    answers: &[(&'static str, &'static str)],
) -> Peer {
    let manner = Manner {
        keywords,
        ..Manner::new(Starttls::NotOffered)
    };
    Peer::start(answers.iter().fold(manner, |manner, (command, answer)| {
        manner.answer(command, answer)
    }))
    .await
}

/// The relay, and where its senders and its postmaster get their mail.
pub(crate) struct World {
    pub(crate) home: Peer,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    pub(crate) running: RunningDaemon,
}

impl World {
    /// Starts a relay with these connectors, and what stands before them (`[queue]` and the like).
    pub(crate) async fn start(before: &str, connectors: &[String]) -> Self {
        Self::start_with(willing().await, before, connectors).await
    }

    /// As [`World::start`], with another home.
    pub(crate) async fn start_with(home: Peer, before: &str, connectors: &[String]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let config = configured(folder.path(), home.address, before, connectors);
        let (address, running) = run(config, Arc::new(())).await;
        Self {
            home,
            address,
            folder,
            running,
        }
    }

    /// Sends a message, its envelope as MAIL and RCPT have it, and gives its queue id.
    pub(crate) async fn sends(&self, from: &str, to: &[&str], content: &str) -> String {
        let mut client = Client::connect(self.address).await;
        client.says(&format!("MAIL FROM:{from}"), "250").await;
        for recipient in to {
            client.says(&format!("RCPT TO:{recipient}"), "250").await;
        }
        client.content(content).await
    }

    /// A client that has gone on under TLS.
    pub(crate) async fn client_under_tls(
        &self,
    ) -> Client<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let mut client = Client::connect(self.address).await;
        client.says("STARTTLS", "220").await;
        let config = configured(self.folder.path(), self.home.address, "", &[]);
        let (tls, _) = TlsMaterial::load(&config).expect("a client has no files");
        let name = Host::parse("relay.example.com").expect("a name");
        let (stream, hello) = (
            client.0.into_inner(),
            Hello {
                groups: Groups::PostQuantumFirst,
                sni: true,
            },
        );
        let shaking =
            tls.client(&config.connectors[0])
                .connect(stream, &name, hello, Handshake::Full);
        let (stream, _) = timeout(PATIENCE, shaking)
            .await
            .expect("in time")
            .expect("a handshake");
        let mut client = Client(BufReader::new(stream));
        client.says("EHLO client.example", "250").await;
        client
    }

    /// Waits until the queue is empty: all fates are known then, and all has been told.
    pub(crate) async fn is_done(&self) {
        until("the queue is worked off", || {
            queue(self.folder.path()).is_empty().then_some(())
        })
        .await;
    }

    /// What has come home, as reports; each with the addresses it was sent to.
    pub(crate) fn reports(&self) -> Vec<(Vec<String>, Report)> {
        let mut reports = Vec::new();
        for heard in self.home.heard() {
            let mut to: Vec<Vec<String>> = Vec::new();
            for command in heard.commands {
                if let Some(rest) = command.strip_prefix("MAIL FROM:") {
                    assert!(rest.starts_with("<>"), "a report goes out as {command}");
                    to.push(Vec::new());
                } else if let Some(rest) = command.strip_prefix("RCPT TO:<") {
                    let path = rest.split('>').next().expect("a path").to_owned();
                    to.last_mut().expect("MAIL came first").push(path);
                }
            }
            reports.extend(
                to.into_iter()
                    .zip(heard.messages.iter().map(|message| Report::read(message))),
            );
        }
        reports
    }

    /// Waits until everything is over; there is one report then, and it went to the sender.
    pub(crate) async fn the_report(&self) -> Report {
        self.is_done().await;
        self.one_report(SENDER)
    }

    /// The one report there is, which went to this address.
    pub(crate) fn one_report(&self, to: &str) -> Report {
        let mut reports = self.reports();
        assert_eq!(reports.len(), 1, "{reports:#?}");
        let (addresses, report) = reports.remove(0);
        assert_eq!(addresses, [to]);
        report
    }

    /// Ends the relay.
    pub(crate) async fn ends(mut self) -> (TempDir, Peer) {
        self.running.stop();
        timeout(PATIENCE, self.running.ended())
            .await
            .expect("in time")
            .expect("an orderly end");
        (self.folder, self.home)
    }
}

/// A configuration. All mail without a connector goes home.
pub(crate) fn configured(
    folder: &Path,
    home: SocketAddr,
    before: &str,
    connectors: &[String],
) -> Config {
    let tls = if before.contains("[tls]") {
        "opportunistic"
    } else {
        "off"
    };
    let all = format!(
        "[[connector]]\nname = \"home\"\ndomains = [\"*\"]\n[connector.outbound]\nroute = [\"{home}\"]\ntls = \"off\"\n"
    );
    let least = ConfigBuilder::running()
        .tls(tls)
        .table("evidence", "path = \"\"");
    let least = least
        .table("relay", "networks = [\"127.0.0.0/8\"]")
        .with(before)
        .with(&all);
    let mut config = connectors
        .iter()
        .fold(least, |config, connector| config.with(connector))
        .parse_in(folder);
    // Tests do not wait half a minute, or an hour.
    for (key, time) in [
        ("dsn_gather", &mut config.queue.dsn_gather),
        ("postmaster_digest", &mut config.queue.postmaster_digest),
    ] {
        if !before.contains(key) {
            *time = Duration::from_millis(200);
        }
    }
    config
}

/// Starts a relay; says where it listens.
pub(crate) async fn run(
    config: Config,
    observer: Arc<dyn DeliveryObserver>,
) -> (SocketAddr, RunningDaemon) {
    let running = daemon::start(config, observer)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    (running.addresses[0].1, running)
}

/// The envelopes in the queue, as the database tells while the relay runs, each with its id.
pub(crate) fn queue(folder: &Path) -> Vec<(String, Value)> {
    let open = || {
        let file = folder.join("spool/queue.db");
        let database =
            rusqlite::Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        database.busy_timeout(PATIENCE)?;
        let mut rows = database.prepare("SELECT name, envelope FROM queue ORDER BY id")?;
        let rows = rows.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let rows = open().expect("the queue can be read");
    rows.into_iter()
        .map(|(name, envelope)| (name, serde_json::from_str(&envelope).expect("JSON")))
        .collect()
}

/// A client of the relay that has said EHLO.
pub(crate) struct Client<S>(BufReader<S>);

impl Client<TcpStream> {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut client = Self(BufReader::new(
            TcpStream::connect(address)
                .await
                .expect("the relay listens"),
        ));
        client.reply("220").await;
        client.says("EHLO client.example", "250").await;
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Says a line, and hears an answer that begins so.
    pub(crate) async fn says(&mut self, line: &str, expected: &str) -> String {
        self.0
            .write_all(format!("{line}\r\n").as_bytes())
            .await
            .expect("a connection");
        self.0.flush().await.expect("a connection");
        self.reply(expected).await
    }

    pub(crate) async fn reply(&mut self, expected: &str) -> String {
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.0.read_line(&mut line))
                .await
                .expect("in time")
                .expect("text");
            assert!(read > 0, "the relay has closed the connection");
            assert!(
                line.starts_with(expected),
                "{expected} was wanted, and heard was {line:?}"
            );
            if line.as_bytes().get(3) == Some(&b' ') {
                return line.trim_end().to_owned();
            }
        }
    }

    /// DATA, and content that has no line with a leading dot; gives the queue id.
    pub(crate) async fn content(&mut self, content: &str) -> String {
        self.says("DATA", "354").await;
        self.0
            .write_all(content.as_bytes())
            .await
            .expect("a connection");
        let taken = self.says(".", "250 2.0.0 Ok: queued as ").await;
        taken.rsplit(' ').next().expect("an id").to_owned()
    }

    /// A message from nobody in particular, in one go.
    pub(crate) async fn sends(&mut self, to: &str) -> String {
        self.says(&format!("MAIL FROM:<{SENDER}>"), "250").await;
        self.says(&format!("RCPT TO:<{to}>"), "250").await;
        self.content("Subject: test\r\n\r\nbody\r\n").await
    }
}
