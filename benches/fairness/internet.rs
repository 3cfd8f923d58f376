//! A small Internet: a name server, our mailbox server, and hosts on loopback whose addresses
//! encode their behaviour.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::ROUNDS_MAX;
use crate::dns::NameServer;

/// The number of domains that never greet, each with ten addresses: `silent0.example` and so on.
pub(crate) const SILENT: usize = 3000;
/// The number of domains that accept some messages and then hang: `tarpit0.example` and so on.
pub(crate) const TARPITS: usize = 60;
/// The number of domains that accept some messages and then give no final reply: `mute0.example`
/// and so on.
pub(crate) const MUTES: usize = 60;
/// The number of messages that each of these accepts first.
pub(crate) const TAKEN: usize = 20;

/// The behaviour of a host, encoded in the second octet of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Healthy,
    /// The host never greets.
    Silent,
    /// The host accepts [`TAKEN`] messages, ends the session, and never greets again.
    Tarpit,
    /// The host accepts [`TAKEN`] messages, and then gives no final reply to any other.
    Mute,
}

impl Manner {
    fn of(address: Ipv4Addr) -> Self {
        match address.octets()[1] {
            2 => Self::Silent,
            3 => Self::Tarpit,
            4 => Self::Mute,
            _ => Self::Healthy,
        }
    }
}

/// The servers of the small Internet.
pub(crate) struct Internet {
    pub(crate) names: NameServer,
    pub(crate) mailbox_server: SocketAddr,
    /// The port of MX hosts.
    pub(crate) port: u16,
    seen: Arc<Seen>,
}

/// The messages that arrived.
#[derive(Default)]
struct Seen {
    /// The recipients of healthy mail, with the times of sending and of arrival.
    expected: Mutex<HashMap<String, (Instant, Option<Instant>)>>,
    /// The number of messages that each address accepted.
    taken: Mutex<HashMap<Ipv4Addr, usize>>,
    /// The number of sessions that hang, and its maximum.
    hanging: AtomicUsize,
    peak: AtomicUsize,
}

impl Internet {
    pub(crate) async fn start() -> Self {
        let names = NameServer::start(&[("example", &zone())]).await;
        let seen = Arc::new(Seen::default());
        let mailboxes = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let hosts = TcpListener::bind("0.0.0.0:0").await.expect("every address");
        let mailbox_server = mailboxes.local_addr().expect("bound");
        let port = hosts.local_addr().expect("bound").port();
        for listener in [mailboxes, hosts] {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&seen)));
                }
            });
        }
        Self {
            names,
            mailbox_server,
            port,
            seen,
        }
    }

    /// Records that healthy mail is sent now.
    pub(crate) fn expect(&self, to: &[String]) {
        let now = Instant::now();
        let mut expected = self.seen.expected.lock().expect("no panic");
        expected.extend(to.iter().map(|to| (to.clone(), (now, None))));
    }

    /// Returns the time of each message; `None` for one that did not arrive in time.
    pub(crate) async fn times(&self, patience: Duration) -> Vec<(String, Option<Duration>)> {
        let deadline = Instant::now() + patience;
        loop {
            let times: Vec<_> = {
                let expected = self.seen.expected.lock().expect("no panic");
                let time =
                    |(begun, come): &(Instant, Option<Instant>)| come.map(|come| come - *begun);
                expected
                    .iter()
                    .map(|(to, times)| (to.clone(), time(times)))
                    .collect()
            };
            if Instant::now() > deadline || times.iter().all(|(_, time)| time.is_some()) {
                return times;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the number of sessions that hang now.
    pub(crate) fn hanging(&self) -> usize {
        self.seen.hanging.load(Ordering::Relaxed)
    }

    /// Returns the largest number of sessions that hung at the same time.
    pub(crate) fn peak(&self) -> usize {
        self.seen.peak.load(Ordering::Relaxed)
    }

    /// Returns the number of messages that tarpits and mutes accepted.
    pub(crate) fn taken(&self) -> usize {
        self.seen.taken.lock().expect("no panic").values().sum()
    }
}

fn zone() -> String {
    let mut zone = String::from("host.example A 127.1.0.1\npartner.example MX 10 host.example\n");
    for number in 0..ROUNDS_MAX {
        let _ = writeln!(zone, "new{number}.example MX 10 host.example");
    }
    for number in 0..SILENT {
        let _ = writeln!(
            zone,
            "silent{number}.example MX 10 mx.silent{number}.example"
        );
        for address in 0..10 {
            let at = number * 10 + address;
            let _ = writeln!(
                zone,
                "mx.silent{number}.example A 127.2.{}.{}",
                at / 250,
                at % 250 + 1
            );
        }
    }
    for (name, octet, count) in [("tarpit", 3, TARPITS), ("mute", 4, MUTES)] {
        for number in 0..count {
            let _ = writeln!(
                zone,
                "{name}{number}.example MX 10 mx.{name}{number}.example"
            );
            let _ = writeln!(
                zone,
                "mx.{name}{number}.example A 127.{octet}.0.{}",
                number + 1
            );
        }
    }
    zone
}

/// Runs one session; errors of the client are ignored.
async fn serve(stream: TcpStream, seen: Arc<Seen>) {
    let Ok(SocketAddr::V4(here)) = stream.local_addr() else {
        return;
    };
    let (address, manner) = (*here.ip(), Manner::of(*here.ip()));
    let mut stream = BufReader::new(stream);
    let hangs = match manner {
        Manner::Silent => true,
        Manner::Tarpit => is_spent(&seen, address),
        Manner::Healthy | Manner::Mute => false,
    };
    if !hangs {
        let _ = converse(&mut stream, address, manner, &seen).await;
        if manner != Manner::Mute {
            return;
        }
    }
    let now = seen.hanging.fetch_add(1, Ordering::Relaxed) + 1;
    seen.peak.fetch_max(now, Ordering::Relaxed);
    // The session hangs until the client gives up.
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        line.clear();
    }
    seen.hanging.fetch_sub(1, Ordering::Relaxed);
}

async fn converse(
    stream: &mut BufReader<TcpStream>,
    address: Ipv4Addr,
    manner: Manner,
    seen: &Seen,
) -> std::io::Result<()> {
    stream.write_all(b"220 host\r\n").await?;
    let (mut line, mut to) = (String::new(), Vec::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer: &[u8] = match line.get(..4).unwrap_or_default() {
            "RCPT" if line.contains("nobody") => b"550 5.1.1 nobody of that name\r\n",
            "RCPT" => {
                to.extend(line.split(['<', '>']).nth(1).map(str::to_owned));
                b"250 ok\r\n"
            }
            "DATA" => b"354 go on\r\n",
            "QUIT" => return stream.write_all(b"221 bye\r\n").await,
            _ => b"250 ok\r\n",
        };
        stream.write_all(answer).await?;
        if answer.starts_with(b"354") {
            while line != ".\r\n" {
                line.clear();
                if stream.read_line(&mut line).await? == 0 {
                    return Ok(());
                }
            }
            if !take(seen, address, manner, to.drain(..)) {
                return Ok(());
            }
            stream.write_all(b"250 taken\r\n").await?;
            if manner == Manner::Tarpit && is_spent(seen, address) {
                return Ok(());
            }
        }
    }
}

fn is_spent(seen: &Seen, address: Ipv4Addr) -> bool {
    seen.taken
        .lock()
        .expect("no panic")
        .get(&address)
        .is_some_and(|taken| *taken >= TAKEN)
}

/// Records a message; returns false if the host does not reply to it.
fn take(seen: &Seen, address: Ipv4Addr, manner: Manner, to: impl Iterator<Item = String>) -> bool {
    if manner != Manner::Healthy {
        let mut taken = seen.taken.lock().expect("no panic");
        let taken = taken.entry(address).or_default();
        *taken += 1;
        return *taken <= TAKEN || manner != Manner::Mute;
    }
    let mut expected = seen.expected.lock().expect("no panic");
    for to in to {
        if let Some((_, come)) = expected.get_mut(&to) {
            come.get_or_insert_with(Instant::now);
        }
    }
    true
}
