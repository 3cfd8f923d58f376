//! The parts that the integration tests share: relays, peers, clients, name servers, certificates
//! and messages.
//!
//! - Relays: [`relay`] is the program as a child process, [`operated`] the same with its admin
//!   socket and its HTTP address, [`in_process`] the daemon in the process of the test,
//!   [`deliveries`] the outbound side alone.
//! - Servers that take mail: [`peer`] plays a script and remembers each command ([`picky`] stumbles
//!   over the ClientHello), [`smart_host`] wants a login, [`sink`] takes everything, [`counting_sink`] counts sessions and waits
//!   for leave.
//! - The rest of the world: [`dns`] is an unsigned name server, [`zones`] a signed one,
//!   [`internet`] joins it with a policy host; [`proxy`] is an HTTP proxy; [`certificates`] makes authorities and leaves,
//!   [`uncheckable`] leaves with unusual keys.
//! - Clients: [`session`] speaks line by line, [`client`] sends complete [`message`]s that can be
//!   recognised.
//! - [`chain`] writes evidence, [`config`] builds configurations, [`dsn`] reads reports, [`disk`] is a small file
//!   system, and [`database_lock`] keeps the log of a spool's database from being moved.

pub(crate) mod certificates;
pub(crate) mod chain;
pub(crate) mod claims;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod counting_sink;
pub(crate) mod crl;
pub(crate) mod database_lock;
pub(crate) mod deliveries;
pub(crate) mod disk;
pub(crate) mod dns;
pub(crate) mod dsn;
pub(crate) mod faketime;
pub(crate) mod in_process;
pub(crate) mod internet;
pub(crate) mod message;
pub(crate) mod operated;
pub(crate) mod peer;
pub(crate) mod picky;
pub(crate) mod proxy;
pub(crate) mod relay;
pub(crate) mod session;
pub(crate) mod sink;
pub(crate) mod smart_host;
pub(crate) mod uncheckable;
pub(crate) mod zones;

use std::time::{Duration, Instant};

/// A folder of its own, on a disk: where programs are built, and under the name that the system has
/// for it.
pub(crate) fn place() -> tempfile::TempDir {
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    target
        .canonicalize()
        .and_then(tempfile::tempdir_in)
        .expect("a folder can be made there")
}

/// Asks every few milliseconds until the answer is yes, or the time is over.
pub(crate) fn within(limit: Duration, asked: impl FnMut() -> bool) -> bool {
    within_every(Duration::from_millis(5), limit, asked)
}

/// Asks again after each pause until the answer is yes, or the time is over.
pub(crate) fn within_every(
    pause: Duration,
    limit: Duration,
    mut asked: impl FnMut() -> bool,
) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if asked() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
    }
}

/// Numbers that look random and are the same for the same seed (xorshift64*).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
