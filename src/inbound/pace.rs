//! How long the next block of a message may take: a client must keep up an average over the whole
//! message, or it could hold a session for ever with one octet a minute.

use std::time::Duration;

/// How fast one message has come so far.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    octets: u64,
}

impl Pace {
    /// Notes that we waited for the client, and what came of it. Time that we took ourselves, to
    /// write to a slow disk, does not count.
    pub(super) fn note(&mut self, waited: Duration, octets: usize) {
        self.waited = self.waited.saturating_add(waited);
        self.octets = self.octets.saturating_add(octets as u64);
    }

    /// How long the next block may take: `block` at most, and less where the average is near `rate`
    /// octets per second. The first `block` of time is free.
    pub(super) fn patience(&self, block: Duration, rate: u64) -> Duration {
        // A rate of nothing asks for nothing.
        let Some(seconds) = self.octets.checked_div(rate) else { return block };
        block.saturating_add(Duration::from_secs(seconds)).saturating_sub(self.waited).min(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Duration = Duration::from_mins(3);

    #[test]
    fn a_client_that_keeps_up_has_the_whole_block() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience(BLOCK, 1024), BLOCK);
        pace.note(Duration::from_secs(100), 100 * 1024);
        assert_eq!(pace.patience(BLOCK, 1024), BLOCK);
    }

    #[test]
    fn a_client_that_trickles_runs_out_of_time() {
        let mut pace = Pace::default();
        pace.note(Duration::from_secs(100), 10);
        assert_eq!(pace.patience(BLOCK, 1024), Duration::from_secs(80));
        pace.note(Duration::from_secs(100), 10);
        assert_eq!(pace.patience(BLOCK, 1024), Duration::ZERO);
        pace.note(Duration::ZERO, 1024 * 1024);
        assert_eq!(pace.patience(BLOCK, 1024), BLOCK, "what came fast is credit");
        assert_eq!(Pace::default().patience(BLOCK, 0), BLOCK);
    }
}
