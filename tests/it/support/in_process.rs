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
use gatepost::storage::spool::{StoredMessage, read_queue};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::config::ConfigBuilder;
use super::dsn::Report;
use super::peer::{Manner, Peer, Starttls};
use super::session::Client;

/// Only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The sender, unless a test has another one.
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
        client.asks(&format!("MAIL FROM:{from}"), "250").await;
        for recipient in to {
            client.asks(&format!("RCPT TO:{recipient}"), "250").await;
        }
        client.content(content).await
    }

    /// A client that has gone on under TLS.
    pub(crate) async fn client_under_tls(
        &self,
    ) -> Client<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let mut client = Client::connect(self.address).await;
        client.asks("STARTTLS", "220").await;
        let config = configured(self.folder.path(), self.home.address, "", &[]);
        let (tls, _) = TlsMaterial::load(&config).expect("a client has no files");
        let name = Host::parse("relay.example.com").expect("a name");
        let (stream, hello) = (
            client.stream.into_inner(),
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
        let mut client = Client::new(stream);
        client.asks("EHLO client.example", "250").await;
        client
    }

    /// Waits until the queue is empty: all outcomes are known then, and all reports are sent.
    pub(crate) async fn is_done(&self) {
        until("the queue is worked off", || {
            queue(self.folder.path()).is_empty().then_some(())
        })
        .await;
    }

    /// The reports that have arrived; each with the addresses it was sent to.
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

/// The envelopes in the queue, from the files while the relay runs, each with its id.
pub(crate) fn queue(folder: &Path) -> Vec<(String, Value)> {
    let queue = read_queue(&folder.join("spool")).expect("the queue can be read");
    let envelope = |stored: &StoredMessage| serde_json::to_value(&stored.envelope).expect("JSON");
    queue
        .iter()
        .map(|stored| (stored.id.to_string(), envelope(stored)))
        .collect()
}
