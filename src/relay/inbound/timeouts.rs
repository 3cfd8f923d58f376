//! Timeouts of a session: those of the configuration, and shorter ones while seats are scarce (as
//! in Postfix's stress mode).

use std::time::Duration;

use crate::config::Timeouts;

/// The upper bounds of strangers' timeouts while seats are scarce.
const SCARCE: SessionTimeouts = SessionTimeouts {
    command: Duration::from_secs(10),
    data_block: Duration::from_secs(30),
    handshake: Duration::from_secs(10),
    message: Duration::from_mins(5),
};

/// The timeouts of a session's steps.
// Rule: RFC 5321 §4.5.3.2.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionTimeouts {
    /// The time for the next complete command line.
    pub(super) command: Duration,
    /// The time for the next block of a message's content.
    pub(super) data_block: Duration,
    /// The time for a complete TLS handshake.
    pub(super) handshake: Duration,
    /// The time between two accepted messages.
    message: Duration,
}

impl SessionTimeouts {
    /// Returns the timeouts of a session; `is_short` selects the shorter ones.
    pub(super) fn of(timeouts: &Timeouts, is_short: bool) -> Self {
        let Timeouts {
            command,
            data_block,
            handshake,
            message,
            ..
        } = *timeouts;
        let configured = Self {
            command,
            data_block,
            handshake,
            message,
        };
        if !is_short {
            return configured;
        }
        Self {
            command: command.min(SCARCE.command),
            data_block: data_block.min(SCARCE.data_block),
            handshake: handshake.min(SCARCE.handshake),
            message: message.min(SCARCE.message),
        }
    }
}

/// The content that a session has received since its last accepted message, or since its beginning.
#[derive(Debug, Default)]
pub(super) struct Progress {
    octets: u64,
    /// Octets since [`GOOD_PART`] was last reached.
    part: u64,
}

/// The octets of content after which a session counts as active, as after a message.
const GOOD_PART: u64 = 64 << 10;

impl Progress {
    /// Adds received content. Returns true each time that another [`GOOD_PART`] is complete.
    pub(super) fn add(&mut self, octets: usize) -> bool {
        self.octets = self.octets.saturating_add(octets as u64);
        self.part = self.part.saturating_add(octets as u64);
        let is_good = self.part >= GOOD_PART;
        if is_good {
            self.part = 0;
        }
        is_good
    }

    /// Returns the time that the session has between its last message and the next one. Content
    /// extends it by the time that it takes at `rate` octets a second.
    pub(super) fn allowance(&self, timeouts: &SessionTimeouts, rate: u64) -> Duration {
        let earned = self
            .octets
            .checked_div(rate)
            .map_or(Duration::ZERO, Duration::from_secs);
        timeouts.message.saturating_add(earned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn timeouts(times: [u64; 4]) -> Timeouts {
        let [command, data_block, handshake, message] = times.map(Duration::from_secs);
        let (connect, reply, final_reply, drain) = (SECOND, SECOND, SECOND, SECOND);
        Timeouts {
            command,
            data_block,
            data_rate: 1024,
            message,
            handshake,
            connect,
            reply,
            final_reply,
            drain,
        }
    }

    #[test]
    fn scarcity_shortens_and_never_lengthens() {
        for (configured, scarce) in [
            ([300, 180, 30, 1800], [10, 30, 10, 300]),
            ([5, 5, 5, 5], [5, 5, 5, 5]),
        ] {
            for (is_short, wanted) in [(false, configured), (true, scarce)] {
                let SessionTimeouts {
                    command,
                    data_block,
                    handshake,
                    message,
                } = SessionTimeouts::of(&timeouts(configured), is_short);
                assert_eq!(
                    [command, data_block, handshake, message].map(|time| time.as_secs()),
                    wanted
                );
            }
        }
    }

    #[test]
    fn only_content_buys_time() {
        let timeouts = SessionTimeouts::of(&timeouts([300, 180, 30, 1800]), false);
        let mut progress = Progress::default();
        assert_eq!(progress.allowance(&timeouts, 1024), SECOND * 1800);
        for _ in 0..1000 {
            assert!(!progress.add(1), "BDAT 1 is no progress");
        }
        assert_eq!(progress.allowance(&timeouts, 1024), SECOND * 1800);
        let parts = (0..100).filter(|_| progress.add(16 << 10)).count();
        assert_eq!(parts, 25);
        assert_eq!(progress.allowance(&timeouts, 1024), SECOND * 3400);
        assert_eq!(
            progress.allowance(&timeouts, 0),
            SECOND * 1800,
            "a rate of nothing gives nothing away"
        );
    }
}
