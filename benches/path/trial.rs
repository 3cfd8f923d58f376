//! One trial: one relay and one case, with all its messages from the client to the sink. Relay,
//! spool and sink are new for each trial.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Load;
use crate::ledger::{Ledger, Passage};
use crate::processes::{ThreadClock, computer_time};
use crate::relay::{Relay, Task, free_address};
use crate::tls::KeyExchange;
use crate::{gatepost, message, postfix, sink, tls};

/// The number of parallel connections on either side of the relay: for small messages, and for
/// large ones.
pub(crate) const CONNECTIONS: usize = 20;
const CONNECTIONS_OF_LARGE: usize = 4;

/// The time without progress after which missing messages count as lost. It is longer than either
/// relay's retry interval, so that a retried message is late and not lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// The time for the relay to finish before its processor time is read, and for a duplicate to
/// arrive.
const SETTLE: Duration = Duration::from_secs(1);

/// The relay of a trial.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Make {
    /// The daemon that was built with this benchmark.
    Gatepost,
    /// The installed Postfix.
    Postfix,
}

/// The number of messages that a connection from the relay to the sink may carry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Onward {
    /// As many as the relay itself chooses.
    AsItLikes,
    /// As many as each connection of the load carries.
    AsTheLoad,
}

/// The parameters of a trial.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// The size of a message in octets.
    pub(crate) size: usize,
    /// STARTTLS on both legs with this key exchange, or on neither.
    pub(crate) tls: Option<KeyExchange>,
    /// The messages per connection of the load.
    pub(crate) messages_per_connection: usize,
    /// The messages per connection to the sink.
    pub(crate) onward: Onward,
    /// True if Gatepost keeps evidence, which is its default.
    pub(crate) evidence: bool,
}

impl Case {
    pub(crate) fn is_large(self) -> bool {
        self.size == message::LARGE
    }

    pub(crate) fn connections(self) -> usize {
        if self.is_large() {
            CONNECTIONS_OF_LARGE
        } else {
            CONNECTIONS
        }
    }

    /// Returns the number of messages before the measurement: processes are forked, pools filled,
    /// tickets issued.
    fn warm_up(self) -> usize {
        if self.is_large() { 8 } else { 400 }
    }

    /// Returns the number of messages of a trial and before it, where small ones are so many.
    pub(crate) fn all_messages(self, small: usize) -> usize {
        self.warm_up() + self.messages(small)
    }

    /// Returns the number of messages of a trial, where small ones are so many.
    fn messages(self, small: usize) -> usize {
        if self.is_large() {
            small.div_ceil(100)
        } else {
            small
        }
    }
}

/// The results of one trial.
pub(crate) struct Figures {
    pub(crate) passage: Passage,
    /// The average number of messages per connection from the relay to the sink.
    pub(crate) reuse: f64,
    /// The relay's processor time in seconds for 1,000 messages.
    pub(crate) cpu: f64,
    /// The relay's peak memory, in octets.
    pub(crate) peak_memory: u64,
    /// The share of one core that each end of the benchmark used during the measurement. Near 1,
    /// the benchmark itself limited the figures.
    pub(crate) client_busy: f64,
    pub(crate) sink_busy: f64,
    /// The share of the whole computer that neither the relay nor the benchmark used.
    pub(crate) others: f64,
}

/// Creates the folder of a trial, on the disk.
///
/// # Errors
/// Those of the disk.
pub(crate) fn folder() -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("path-")
        // Postfix drops root and must still be able to enter the folder.
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
}

/// Runs one trial.
///
/// # Errors
/// An error if a part of it does not start, or the trial is cancelled.
pub(crate) fn run(
    make: Make,
    case: Case,
    small: usize,
    cancelled: &CancellationToken,
) -> io::Result<Figures> {
    let folder = folder()?;
    let ledger = Arc::new(Ledger::new(case.all_messages(small)));
    let sink = Sink::start(case, None, &ledger)?;
    let task = Task {
        folder: folder.path(),
        sink: sink.address,
        tls: case.tls.is_some(),
        connections: case.connections(),
        messages_per_connection: match case.onward {
            Onward::AsItLikes => None,
            Onward::AsTheLoad => Some(case.messages_per_connection),
        },
        evidence: case.evidence,
        database: None,
    };
    let relay = match make {
        Make::Gatepost => gatepost::start(&task)?,
        Make::Postfix => postfix::start(&task)?,
    };
    let relays = [relay];
    let figures = measure(&relays, &sink, &ledger, case, small, cancelled, &mut || {
        Ok(())
    })?;
    drop(relays);
    if !figures.passage.is_clean() {
        eprintln!(
            "not everything went as it should; log and spool are kept in {}",
            folder.keep().display()
        );
    }
    Ok(figures)
}

/// Sends the messages of a trial through relays that run, to each of them the same share, and measures.
/// `snapshot` runs immediately before the measurement and immediately after it.
///
/// # Errors
/// As [`run`], and those of `snapshot`.
pub(crate) fn measure(
    relays: &[Relay],
    sink: &Sink,
    ledger: &Arc<Ledger>,
    case: Case,
    small: usize,
    cancelled: &CancellationToken,
    snapshot: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Figures> {
    let (messages, warm_up) = (case.messages(small), case.warm_up());
    let addresses: Vec<_> = relays.iter().map(|relay| relay.address).collect();
    let lives = || relays.iter().all(Relay::lives);
    let carry = |numbers| carry(&addresses, &lives, case, numbers, ledger, cancelled);
    let died = |error: io::Error| match (error.kind(), relays.iter().find(|it| !it.lives())) {
        (io::ErrorKind::BrokenPipe, Some(relay)) => relay.with_log("the relay died on the way"),
        _ => error,
    };
    carry(0..warm_up).map_err(died)?;
    thread::sleep(SETTLE);

    let cpu_of_relays = || relays.iter().map(Relay::cpu_time).sum::<Duration>();
    snapshot()?;
    let (relay_cpu, sink_cpu, began) = (cpu_of_relays(), sink.clock.used(), ledger.now());
    let (computer, start) = (computer_time(), Instant::now());
    let client_cpu = carry(warm_up..warm_up + messages).map_err(died)?;
    thread::sleep(SETTLE);
    let relay_cpu = cpu_of_relays().saturating_sub(relay_cpu);
    let sink_cpu = sink.clock.used().saturating_sub(sink_cpu);
    let others = computer_time()
        .saturating_sub(computer + relay_cpu + client_cpu + sink_cpu)
        .as_secs_f64();
    let others =
        others / start.elapsed().as_secs_f64() / thread::available_parallelism()?.get() as f64;
    snapshot()?;
    let passage = ledger.passage(warm_up..warm_up + messages, began);
    let share = |cpu: Duration| cpu.as_secs_f64() / passage.delivered.took.as_secs_f64();
    Ok(Figures {
        reuse: (warm_up + passage.delivered.messages) as f64 / passage.connections as f64,
        cpu: relay_cpu.as_secs_f64() * 1000.0 / passage.delivered.messages as f64,
        peak_memory: relays.iter().map(Relay::peak_memory).sum(),
        client_busy: share(client_cpu),
        sink_busy: share(sink_cpu),
        others,
        passage,
    })
}

/// Runs the case without a relay, from the client straight into the sink. Returns the messages per
/// second, the ceiling of what any relay between the two could reach.
///
/// # Errors
/// As [`run`].
pub(crate) fn ceiling(case: Case, small: usize, cancelled: &CancellationToken) -> io::Result<f64> {
    let (messages, warm_up) = (case.messages(small), case.warm_up());
    let ledger = Arc::new(Ledger::new(warm_up + messages));
    let sink = Sink::start(case, None, &ledger)?;
    let carry = |numbers| carry(&[sink.address], &|| true, case, numbers, &ledger, cancelled);
    carry(0..warm_up)?;
    let began = ledger.now();
    carry(warm_up..warm_up + messages)?;
    let passage = ledger.passage(warm_up..warm_up + messages, began);
    Ok(passage.delivered.rate())
}

/// Lets so many messages wait for a next hop that is down, and then opens it. Returns the messages
/// per second from then to the last arrival.
///
/// # Errors
/// As [`run`], and an error if a message is lost.
pub(crate) fn backlog(
    case: Case,
    messages: usize,
    cancelled: &CancellationToken,
) -> io::Result<f64> {
    let folder = folder()?;
    let (ledger, sink) = (Arc::new(Ledger::new(messages)), free_address()?);
    let task = Task {
        folder: folder.path(),
        sink,
        tls: case.tls.is_some(),
        connections: case.connections(),
        messages_per_connection: None,
        evidence: case.evidence,
        database: None,
    };
    let relay = gatepost::start(&task)?;
    let (filled, waiting) = (Arc::new(Ledger::new(messages)), 0..messages);
    let load = Load::of(relay.address, case, &filled)?;
    on_own_thread(cancelled, load.send(waiting.clone()))?;
    let accepted = filled.progress().0;
    let began = ledger.now();
    let _sink = Sink::start(case, Some(sink), &ledger)?;
    gatepost::retry_all(folder.path())?;
    let deadline = Instant::now() + PATIENCE;
    while ledger.progress().0 < accepted && Instant::now() < deadline && relay.lives() {
        if cancelled.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let passage = ledger.passage(waiting, began);
    if passage.delivered.messages < messages {
        let arrived = passage.delivered.messages;
        return Err(relay.with_log(&format!("{arrived} of {messages} messages arrived")));
    }
    Ok(passage.delivered.rate())
}

/// Returns the type of the file system of the relays' spools, as `stat` names it.
///
/// # Errors
/// An error if it is not on a disk: the figures would mean nothing.
pub(crate) fn file_system() -> io::Result<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(folder)?;
    let output = Command::new("stat")
        .args(["--file-system", "--format=%T"])
        .arg(folder)
        .output()?;
    let kind = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if kind == "tmpfs" || kind == "ramfs" {
        let what = format!(
            "{} is {kind}; set CARGO_TARGET_DIR to a folder on a disk",
            folder.display()
        );
        return Err(io::Error::other(what));
    }
    Ok(kind)
}

/// Sends these messages, to each address the same share, and waits until all accepted ones have arrived. Returns the processor time
/// of the client.
///
/// # Errors
/// `BrokenPipe` if the relay no longer `lives`.
fn carry(
    addresses: &[SocketAddr],
    lives: &dyn Fn() -> bool,
    case: Case,
    numbers: Range<usize>,
    ledger: &Arc<Ledger>,
    cancelled: &CancellationToken,
) -> io::Result<Duration> {
    let loads = Load::shares(addresses, case, numbers, ledger)?;
    let stop = cancelled.child_token();
    let stopped = stop.clone();
    let client = thread::spawn(move || on_own_thread(&stopped, send_all(loads)));
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let (progress, all_arrived) = ledger.progress();
        if cancelled.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if client.is_finished() && all_arrived {
            break;
        }
        if progress != before {
            (before, since) = (progress, Instant::now());
        } else if since.elapsed() > PATIENCE {
            stop.cancel();
            break;
        } else if !lives() {
            stop.cancel();
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    client
        .join()
        .map_err(|_| io::Error::other("the client panicked"))?
}

/// Runs a load on the calling thread. Returns the processor time of the thread.
fn on_own_thread(
    stopped: &CancellationToken,
    load: impl Future<Output = ()>,
) -> io::Result<Duration> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(stopped.run_until_cancelled(load));
    Ok(ThreadClock::here()?.used())
}

/// Sends all loads at once.
async fn send_all(loads: Vec<(Load, Range<usize>)>) {
    let loads = loads.into_iter().map(|(load, numbers)| load.send(numbers));
    loads.collect::<JoinSet<()>>().join_all().await;
}

impl Load {
    /// Divides the messages and the connections of a case among relays.
    fn shares(
        addresses: &[SocketAddr],
        case: Case,
        numbers: Range<usize>,
        ledger: &Arc<Ledger>,
    ) -> io::Result<Vec<(Self, Range<usize>)>> {
        let count = addresses.len();
        let place = |at: usize| numbers.start + numbers.len() * at / count;
        let share = |(at, address): (usize, &SocketAddr)| {
            let mut load = Self::of(*address, case, ledger)?;
            load.connections = load.connections.div_ceil(count);
            Ok((load, place(at)..place(at + 1)))
        };
        addresses.iter().enumerate().map(share).collect()
    }

    fn of(address: SocketAddr, case: Case, ledger: &Arc<Ledger>) -> io::Result<Self> {
        Ok(Self {
            address,
            tls: case.tls.map(tls::connector).transpose()?,
            connections: case.connections(),
            messages_per_connection: case.messages_per_connection,
            size: case.size,
            ledger: Arc::clone(ledger),
        })
    }
}

/// The sink in its own thread, beside the client's; many computers have only two cores.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    clock: ThreadClock,
    stop: CancellationToken,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Sink {
    /// Starts a sink for this case, at `address` or at a free one.
    ///
    /// # Errors
    /// An error if it cannot listen there.
    pub(crate) fn start(
        case: Case,
        address: Option<SocketAddr>,
        ledger: &Arc<Ledger>,
    ) -> io::Result<Self> {
        let (tls, size) = (case.tls.map(tls::acceptor).transpose()?, case.size);
        let address = address.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        let ledger = Arc::clone(ledger);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (up, ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let listener = runtime.block_on(TcpListener::bind(address))?;
            let _ = up.send((listener.local_addr()?, ThreadClock::here()?));
            runtime
                .block_on(stopped.run_until_cancelled(sink::serve(listener, tls, size, ledger)))
                .unwrap_or(Ok(()))
        });
        let (address, clock) = ready
            .recv()
            .map_err(|_| io::Error::other("the sink did not come up"))?;
        Ok(Self {
            address,
            clock,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the sink ended early: {error}");
        }
    }
}
