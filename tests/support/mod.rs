//! What the tests with a real daemon share: the daemon, a client, a sink, and messages that can be
//! told apart.

pub(crate) mod client;
pub(crate) mod disk;
pub(crate) mod evidence;
pub(crate) mod message;
pub(crate) mod relay;
pub(crate) mod sink;

use std::time::{Duration, Instant};

/// A folder of its own, on a disk: where programs are built, and under the name that the system tells.
pub(crate) fn place() -> tempfile::TempDir {
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    target.canonicalize().and_then(tempfile::tempdir_in).expect("a folder can be made there")
}

/// Asks every few milliseconds until the answer is yes, or the time is over.
pub(crate) fn within(limit: Duration, mut asked: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if asked() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
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
