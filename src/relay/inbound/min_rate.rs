//! The minimum data rate of a message (`[timeouts] data_rate`). A client must keep this average
//! over the message, so that it cannot hold a session for hours with one octet a minute.

use std::time::Duration;

/// The time and the octets of one message so far.
#[derive(Debug, Default)]
pub(super) struct ContentRate {
    waited: Duration,
    octets: u64,
}

impl ContentRate {
    /// Adds a wait for the client and the octets that it yielded. Time that the relay itself needs
    /// does not count, for example to write to a slow disk.
    pub(super) fn add_wait(&mut self, waited: Duration, octets: usize) {
        self.waited = self.waited.saturating_add(waited);
        self.octets = self.octets.saturating_add(octets as u64);
    }

    /// Returns the time for the next block: at most `block`, and less if the average is near `rate`
    /// octets per second. The first `block` of waiting is free.
    pub(super) fn time_for_block(&self, block: Duration, rate: u64) -> Duration {
        // A rate of 0 switches the check off.
        let Some(seconds) = self.octets.checked_div(rate) else {
            return block;
        };
        block
            .saturating_add(Duration::from_secs(seconds))
            .saturating_sub(self.waited)
            .min(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Duration = Duration::from_mins(3);

    #[test]
    fn a_client_above_the_rate_has_the_time_of_a_block() {
        let mut content_rate = ContentRate::default();
        assert_eq!(content_rate.time_for_block(BLOCK, 1024), BLOCK);
        content_rate.add_wait(Duration::from_secs(100), 100 * 1024);
        assert_eq!(content_rate.time_for_block(BLOCK, 1024), BLOCK);
    }

    #[test]
    fn a_client_below_the_rate_runs_out_of_time() {
        let mut content_rate = ContentRate::default();
        content_rate.add_wait(Duration::from_secs(100), 10);
        assert_eq!(
            content_rate.time_for_block(BLOCK, 1024),
            Duration::from_secs(80)
        );
        content_rate.add_wait(Duration::from_secs(100), 10);
        assert_eq!(content_rate.time_for_block(BLOCK, 1024), Duration::ZERO);
        content_rate.add_wait(Duration::ZERO, 1024 * 1024);
        assert_eq!(
            content_rate.time_for_block(BLOCK, 1024),
            BLOCK,
            "what came fast is credit"
        );
        assert_eq!(ContentRate::default().time_for_block(BLOCK, 0), BLOCK);
    }
}
