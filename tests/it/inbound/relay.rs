//! A relay's inbound side on loopback, with a real spool in a folder of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost::config::{self, Config};
use gatepost::net::dns::Dns;
use gatepost::net::revocation::DistributionPoints;
use gatepost::net::tls_io::TlsMaterial;
use gatepost::policy::tls::{Groups, Handshake, Hello};
use gatepost::relay::inbound::{Inbound, serve};
use gatepost::relay::running_config::{RunningConfig, Snapshot};
use gatepost::relay::users::UserStore;
use gatepost::smtp::address::Host;
use gatepost::smtp::envelope::{Envelope, QueueId};
use gatepost::storage::spool::{
    Claim, Claimed, Draft, Entry, HeldLease, Lease, Receipt, Spool, SpoolError, SpoolFuture,
    SqliteSpool, StoredMessage,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

pub(crate) use crate::support::session::Client;

/// Nothing on loopback takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A spool that keeps what it is given, once the test lets it.
pub(crate) struct Slow {
    spool: SqliteSpool,
    pub(crate) leave: Arc<Semaphore>,
    pub(crate) full: bool,
}

impl Spool for Slow {
    fn draft(&self) -> Draft {
        self.spool.draft()
    }
    fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> SpoolFuture<'_, (Receipt, Claimed<Entry>)> {
        Box::pin(async move {
            if self.full {
                return Err(SpoolError::Full("no room, says the test".into()));
            }
            self.leave.acquire().await.expect("open").forget();
            self.spool.commit(draft, envelope).await
        })
    }
    fn settle(
        &self,
        claim: Claim,
        before: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> SpoolFuture<'_, Vec<(Receipt, Claimed<Entry>)>> {
        self.spool.settle(claim, before, after, reports)
    }
    fn remove(&self, claim: Claim) -> SpoolFuture<'_, ()> {
        self.spool.remove(claim)
    }
    fn claim(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> SpoolFuture<'_, Vec<Claimed<StoredMessage>>> {
        self.spool.claim(after, limit)
    }
    fn claimed(&self, id: QueueId) -> SpoolFuture<'_, Claimed<StoredMessage>> {
        self.spool.claimed(id)
    }
    fn release(&self, claims: Vec<Claim>) -> SpoolFuture<'_, ()> {
        self.spool.release(claims)
    }
    fn renew(&self) -> SpoolFuture<'_, Lease> {
        self.spool.renew()
    }
    fn lease(&self) -> HeldLease {
        self.spool.lease()
    }
    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry> {
        self.spool.load(id)
    }
    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>> {
        self.spool.scan(after, limit)
    }
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: mpsc::Receiver<Claimed<Entry>>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    pub(crate) spool: Arc<Slow>,
    tls: Arc<TlsMaterial>,
    running: RunningConfig,
    partner: Config,
    folder: tempfile::TempDir,
}

/// The settings that a test may change.
pub(crate) struct Wanted<'a> {
    pub(crate) tls: &'a str,
    /// More TOML, at the end.
    pub(crate) more: &'a str,
    /// A network of load balancers.
    pub(crate) balancers: &'a str,
    /// A network of proxies that may say XCLIENT.
    pub(crate) proxies: &'a str,
    /// Networks that may relay.
    pub(crate) networks: &'a str,
    /// More lines of the listener.
    pub(crate) listener: &'a str,
    /// True if commits are made without a wait.
    pub(crate) at_once: bool,
    pub(crate) full: bool,
    /// The CRLs of distribution points.
    pub(crate) points: DistributionPoints,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            tls: "opportunistic",
            more: "",
            balancers: "",
            proxies: "",
            networks: "",
            listener: "",
            at_once: true,
            full: false,
            points: DistributionPoints::default(),
        }
    }
}

fn configured(wanted: &Wanted<'_>, spool: &Path) -> Config {
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    let Wanted {
        tls,
        more,
        balancers,
        proxies,
        networks,
        listener,
        ..
    } = wanted;
    let quoted = |network: &str| {
        if network.is_empty() {
            String::new()
        } else {
            format!("\"{network}\"")
        }
    };
    let (balancers, proxies) = (quoted(balancers), quoted(proxies));
    let (certs, spool) = (certs.display(), spool.display());
    let text = format!(
        r#"
hostname = "relay.example.com"
postmaster = "admin@example.com"
[tls]
certificate = "{certs}/relay.pem"
key = "{certs}/relay.key"
[admin]
socket = ""
http = ""
[spool]
path = "{spool}"
[[listener]]
name = "test"
address = ["127.0.0.1:2525"]
tls = "{tls}"
proxy_protocol = [{balancers}]
xclient = [{proxies}]
{listener}
[relay]
networks = [{networks}]
domains = ["example.com"]
[[connector]]
name = "domain-c"
domains = ["domain-c.com"]
names = ["mail.domain-c.com"]
trust = "{certs}/ca.pem"
[connector.outbound]
tls = "opportunistic"
client_certificate = "{certs}/partner.pem"
client_key = "{certs}/partner.key"
[connector.inbound]
tls = "forced"
verify = "name"
relay = true
[[connector]]
name = "elsewhere"
domains = ["elsewhere.example"]
[connector.inbound]
tls = "opportunistic"
networks = ["192.0.2.0/24"]
{more}
"#
    );
    match config::parse(&text, Path::new("/test.toml")) {
        Ok((config, _)) => config,
        Err(faults) => panic!("{faults:#?}"),
    }
}

impl Relay {
    pub(crate) async fn start(wanted: Wanted<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = configured(&wanted, folder.path());
        let (tls, _) = TlsMaterial::load(&config).expect("the development certificates");
        let dns = Dns::new(&config.dns).expect("a resolver");
        let users = UserStore::load(&config).expect("good users");
        let snapshot = Snapshot::new(Arc::new(config.clone()), Arc::clone(&tls), dns);
        let running = RunningConfig::new(snapshot.with_users(users).with_points(wanted.points));
        let spool = SqliteSpool::open(&folder.path().join("spool")).expect("a spool");
        let leave = Arc::new(Semaphore::new(if wanted.at_once { 1000 } else { 0 }));
        let spool = Arc::new(Slow {
            spool,
            leave,
            full: wanted.full,
        });
        let (sender, accepted) = mpsc::channel(10);
        let inbound = Inbound::new(running.clone(), Arc::clone(&spool) as _, sender);
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(
            Arc::new(inbound),
            "test".into(),
            vec![socket],
            stop.clone(),
        ));
        Self {
            address,
            accepted,
            stop,
            serving,
            spool,
            tls,
            running,
            partner: config,
            folder,
        }
    }

    /// Replaces the configuration, as a reload does.
    pub(crate) fn reload(&self, wanted: &Wanted<'_>) {
        let config = configured(wanted, self.folder.path());
        let dns = Dns::new(&config.dns).expect("a resolver");
        let users = UserStore::load(&config).expect("good users");
        let snapshot = Snapshot::new(Arc::new(config), Arc::clone(&self.tls), dns);
        self.running.replace(snapshot.with_users(users));
    }

    /// Replaces the configuration with all that is loaded for it.
    pub(crate) fn reload_all(&self, wanted: &Wanted<'_>) {
        let config = configured(wanted, self.folder.path());
        let (tls, _) = TlsMaterial::load(&config).expect("good certificates");
        let dns = Dns::new(&config.dns).expect("a resolver");
        self.running
            .replace(Snapshot::new(Arc::new(config), tls, dns));
    }

    /// Reads the CRL files that have changed, as the daemon does every 20 seconds.
    pub(crate) fn refresh_crls(&self) {
        let (_, faults) = self.running.load().tls.refresh_crls();
        assert!(faults.is_empty(), "{faults:?}");
    }

    /// Connects, and hears the greeting.
    pub(crate) async fn client(&self) -> Client<TcpStream> {
        let mut client = self.silent().await;
        client.hears("220 relay.example.com ESMTP Gatepost").await;
        client
    }

    /// Connects, and hears nothing yet.
    pub(crate) async fn silent(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        stream.set_nodelay(true).expect("a connection");
        Client::new(stream)
    }

    /// Connects from another address of loopback's network.
    pub(crate) async fn from(&self, address: &str) -> Client<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        let address: IpAddr = address.parse().expect("an address");
        socket
            .bind(SocketAddr::new(address, 0))
            .expect("all of 127/8 is ours");
        Client::new(socket.connect(self.address).await.expect("a connection"))
    }

    /// Says STARTTLS, and shakes hands; with the partner's certificate or without.
    pub(crate) async fn secured(
        &self,
        with_certificate: bool,
    ) -> Client<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let mut client = self.client().await;
        client.says("STARTTLS").await;
        client.hears("220 2.0.0 Ready to start TLS").await;
        self.shaken(client, with_certificate).await
    }

    /// Shakes hands at once.
    pub(crate) async fn shaken(
        &self,
        client: Client<TcpStream>,
        with_certificate: bool,
    ) -> Client<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        self.shaken_as(
            client,
            if with_certificate {
                "domain-c"
            } else {
                "elsewhere"
            },
        )
        .await
    }

    /// Says STARTTLS, and shakes hands with the client certificate of a connector.
    pub(crate) async fn secured_as(
        &self,
        which: &str,
    ) -> Client<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let mut client = self.client().await;
        client.says("STARTTLS").await;
        client.hears("220 2.0.0 Ready to start TLS").await;
        self.shaken_as(client, which).await
    }

    /// The users as the relay has them.
    pub(crate) fn users(&self) -> Arc<UserStore> {
        Arc::clone(&self.running.load().users)
    }

    async fn shaken_as(
        &self,
        client: Client<TcpStream>,
        which: &str,
    ) -> Client<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let connector = self
            .partner
            .connectors
            .iter()
            .find(|connector| connector.name == which)
            .expect("configured");
        assert!(
            client.stream.buffer().is_empty(),
            "the relay spoke before the handshake"
        );
        let name = Host::parse("relay.example.com").expect("a name");
        let (stream, hello) = (
            client.stream.into_inner(),
            Hello {
                groups: Groups::PostQuantumFirst,
                sni: true,
            },
        );
        let shaking = self
            .tls
            .client(connector)
            .connect(stream, &name, hello, Handshake::Full);
        let (stream, _) = timeout(PATIENCE, shaking)
            .await
            .expect("in time")
            .expect("a handshake");
        Client::new(stream)
    }

    /// The next message that was accepted.
    pub(crate) async fn entry(&mut self) -> Entry {
        timeout(PATIENCE, self.accepted.recv())
            .await
            .expect("in time")
            .expect("open")
            .message
    }

    /// Everything that is in the spool.
    pub(crate) async fn stored(&self) -> Vec<StoredMessage> {
        self.spool.scan(None, 100).await.expect("readable")
    }

    /// Stops the relay; its sessions have ended then.
    pub(crate) async fn ends(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.serving)
            .await
            .expect("in time")
            .expect("no panic");
    }
}

/// Connects, says STARTTLS, and shakes hands as a client of any kind.
pub(crate) async fn secured_at(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> Client<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let mut client = Client::new(stream);
    client.hears("220 relay.example.com").await;
    client
        .asks("STARTTLS", "220 2.0.0 Ready to start TLS")
        .await;
    let name = rustls::pki_types::ServerName::try_from("relay.example.com").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let shaking = connector.connect(name, client.stream.into_inner());
    let stream = timeout(PATIENCE, shaking).await.expect("in time");
    Client::new(stream.expect("a handshake"))
}

/// The content of a message, with our Received field cut off, and that field unfolded.
pub(crate) async fn content(entry: &Entry) -> (String, String) {
    let mut reader = entry.body.reader().await.expect("readable");
    let mut all = Vec::new();
    while let Some(chunk) = reader.next().await.expect("whole") {
        all.extend_from_slice(&chunk);
    }
    assert_eq!(all.len() as u64, entry.size);
    let all = String::from_utf8(all).expect("test content");
    // The field ends at the first line end that no tab follows.
    let lines: Vec<_> = all.split_inclusive("\r\n").collect();
    let folded = 1 + lines[1..]
        .iter()
        .take_while(|line| line.starts_with('\t'))
        .count();
    (
        lines[..folded].concat().replace("\r\n\t", " "),
        lines[folded..].concat(),
    )
}
