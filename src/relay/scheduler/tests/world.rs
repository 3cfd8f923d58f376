//! A relay's queue on a store that others share, and a peer whose answers wait for the test.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::discovery::Discovery;
use crate::discovery::history::History;
use crate::discovery::mta_sts::{MtaSts, WebSource};
use crate::net::dns::Dns;
use crate::net::https::Https;
use crate::net::tls_io::TlsMaterial;
use crate::relay::outbound::Outbound;
use crate::relay::running_config::{RunningConfig, Snapshot};
use crate::relay::scheduler::{Operator, Order, OrderRefused, Scheduler, SchedulerProbe};
use crate::relay::tlsrpt::Reporter;
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::envelope::{Envelope, QueueId, Recipient};
use crate::storage::evidence::Evidence;
use crate::storage::spool::suite::memory::{MemorySpool, MemoryStore};
use crate::storage::spool::{Claimed, Entry, Spool as _, SpoolError};

/// The connection limit of each connector.
pub(super) const CONNECTIONS: usize = 4;
/// Only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until this is so.
pub(super) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waits = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waits).await;
    waited.unwrap_or_else(|_| panic!("{what}: that has not come to pass"));
}

/// A host that logs the dialogue, and that waits where the test says so.
pub(super) struct GatedHost {
    pub(super) address: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
    /// True once the host greets.
    pub(super) greets: watch::Sender<bool>,
    /// The reply to the content, once there is one.
    pub(super) final_reply: watch::Sender<Option<&'static str>>,
    /// The reply to RCPT.
    pub(super) rcpt_reply: watch::Sender<&'static str>,
}

impl GatedHost {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let peer = Self {
            address: listener.local_addr().expect("an address"),
            said: Arc::default(),
            greets: watch::Sender::new(true),
            final_reply: watch::Sender::new(Some("250 2.0.0 yours")),
            rcpt_reply: watch::Sender::new("250 2.1.5 fine"),
        };
        let (said, greets) = (Arc::clone(&peer.said), peer.greets.subscribe());
        let (last, rcpt) = (peer.final_reply.subscribe(), peer.rcpt_reply.subscribe());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let gates = (greets.clone(), last.clone(), rcpt.clone());
                tokio::spawn(serve(stream, Arc::clone(&said), gates));
            }
        });
        peer
    }

    fn said(&self) -> MutexGuard<'_, Vec<String>> {
        self.said.lock().expect("no panic")
    }

    /// Returns the commands that begin with this word, and the ends of connections as "end".
    pub(super) fn heard(&self, word: &str) -> usize {
        let said = self.said();
        said.iter().filter(|line| line.starts_with(word)).count()
    }

    pub(super) async fn hears(&self, word: &str, count: usize) {
        let what = format!("{count} of {word}");
        eventually(&what, async || self.heard(word) == count).await;
    }
}

type Gates = (
    watch::Receiver<bool>,
    watch::Receiver<Option<&'static str>>,
    watch::Receiver<&'static str>,
);

/// Has the dialogue on one connection. It ends with the client's part of it, or with the test.
async fn serve(stream: TcpStream, said: Arc<Mutex<Vec<String>>>, gates: Gates) {
    let log = |line: &str| said.lock().expect("no panic").push(line.to_owned());
    let (mut greets, mut last, rcpt) = gates;
    let mut stream = BufReader::new(stream);
    log("connection");
    if greets.wait_for(|greets| *greets).await.is_err() {
        return;
    }
    let mut reply = "220 peer".to_owned();
    let mut in_content = false;
    loop {
        if stream
            .write_all(format!("{reply}\r\n").as_bytes())
            .await
            .is_err()
        {
            return log("end");
        }
        let mut line = String::new();
        loop {
            line.clear();
            let read = stream.read_line(&mut line).await;
            if read.is_err() || line.is_empty() {
                return log("end");
            }
            if !in_content || line == ".\r\n" {
                break;
            }
        }
        log(line.trim_end());
        in_content = line == "DATA\r\n";
        reply = match line.get(..4) {
            Some("DATA") => "354 go on".to_owned(),
            Some("RCPT") => (*rcpt.borrow()).to_owned(),
            _ if line == ".\r\n" => match last.wait_for(Option::is_some).await {
                Ok(reply) => reply.expect("it was waited for").to_owned(),
                Err(_) => return,
            },
            _ => "250 fine".to_owned(),
        };
    }
}

/// A run of a relay: its spool, and its scheduler, with a connector for each domain.
pub(super) struct Owner {
    pub(super) spool: Arc<MemorySpool>,
    outbound: Arc<Outbound>,
    operator: Operator,
    liveness: SchedulerProbe,
    accepted: mpsc::Sender<Claimed<Entry>>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), SpoolError>>,
    _folder: tempfile::TempDir,
}

impl Owner {
    pub(super) fn start(store: &MemoryStore, peers: &[(&str, &GatedHost)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Arc::new(config(peers));
        let (outbound, running) = outbound(&config, folder.path());
        let spool = Arc::new(MemorySpool::open(store));
        let scheduler = Scheduler::new(
            Arc::clone(&spool) as _,
            Evidence::off(),
            Arc::clone(&outbound),
            running,
        );
        let (operator, liveness) = (scheduler.operator(), scheduler.liveness());
        let (stop, (accepted, work)) = (CancellationToken::new(), mpsc::channel(10));
        Self {
            running: tokio::spawn(scheduler.run(work, stop.clone())),
            spool,
            outbound,
            operator,
            liveness,
            accepted,
            stop,
            _folder: folder,
        }
    }

    /// Stores a message, which the scheduler does not know yet.
    pub(super) async fn stores(&self, to: &[&str]) -> Claimed<Entry> {
        let to = to.iter().map(|to| Mailbox::parse(to).expect("an address"));
        let sender = ReversePath::parse("a@sender.example").expect("an address");
        let envelope = Envelope::new(sender, to.map(Recipient::new).collect());
        let mut draft = self.spool.draft();
        draft
            .write(b"Subject: test\r\n\r\nx\r\n")
            .await
            .expect("room");
        self.spool.commit(draft, envelope).await.expect("stored").1
    }

    /// Passes a stored message to the scheduler.
    pub(super) async fn queues(&self, entry: Claimed<Entry>) {
        self.accepted.send(entry).await.expect("it runs");
    }

    pub(super) async fn accepts(&self, to: &[&str]) -> QueueId {
        let entry = self.stores(to).await;
        let id = entry.id;
        self.queues(entry).await;
        id
    }

    pub(super) async fn order(&self, order: Order, id: QueueId) -> Result<(), OrderRefused> {
        self.operator.order(order, vec![id]).await.remove(0).1
    }

    /// Waits until so many items wait, and so many jobs run.
    pub(super) async fn has(&self, waiting: usize, under_way: usize) {
        let what = format!("{waiting} waiting, {under_way} under way");
        eventually(&what, async || {
            let workload = self.liveness.probe().await.expect("it runs");
            (workload.waiting, workload.under_way) == (waiting, under_way)
        })
        .await;
    }

    pub(super) async fn holds_lease(&self) {
        let lease = self.spool.lease();
        eventually("the lease holds", async || lease.holds()).await;
    }

    /// Closes the connections that are kept.
    pub(super) fn hangs_up(&self) {
        self.outbound.close();
    }

    pub(super) async fn ends(self) {
        self.stop.cancel();
        self.outbound.close();
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        ended
            .expect("in time")
            .expect("no panic")
            .expect("an orderly end");
    }
}

fn config(peers: &[(&str, &GatedHost)]) -> Config {
    let mut text = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n\
                    [queue]\nretry = [\"1h\"]\n\
                    [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n"
        .to_owned();
    for (domain, peer) in peers {
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "[[connector]]\nname = \"{domain}\"\ndomains = [\"{domain}\"]\n\
             [connector.outbound]\nroute = [\"{}\"]\ntls = \"off\"\nconnections = {CONNECTIONS}\n",
            peer.address
        );
    }
    let (config, _) = crate::config::parse(&text, Path::new("gatepost.toml")).expect("good");
    config
}

fn outbound(config: &Arc<Config>, folder: &Path) -> (Arc<Outbound>, RunningConfig) {
    let (tls, _) = TlsMaterial::load(config).expect("it names no files");
    let dns = Dns::new(&config.dns).expect("a resolver");
    let web = WebSource::new(dns.clone(), Https::new(dns.clone(), tls.https().clone()));
    let memory = History::open(folder, jiff::Timestamp::now()).expect("a memory");
    let discovery = Discovery::new(MtaSts::open(folder, web).expect("our own version"), memory);
    let running = RunningConfig::new(Snapshot::new(Arc::clone(config), tls, dns));
    let outbound = Outbound::new(running.clone(), discovery, Reporter::off());
    (Arc::new(outbound), running)
}
