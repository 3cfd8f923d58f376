//! The settings of each session at the database, which follow from the lease.

use std::time::Duration;

use tokio_postgres::Config;

/// The times of connections and statements. All are shorter than the lease, so that a relay notices
/// a cut network or a hung server while its claims hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionTimes {
    /// The time in which one host must let us in.
    pub(super) connect: Duration,
    /// The time for which a caller waits for a free connection.
    pub(super) wait: Duration,
    /// The time for which sent data may stay unacknowledged.
    unacknowledged: Duration,
    /// The time after which an idle connection is probed.
    idle: Duration,
    /// The longest statement.
    statement: Duration,
    /// The longest wait for a lock.
    lock: Duration,
    /// The longest pause in a transaction. Others may wait for its locks, among them those who renew
    /// their leases, so a relay that hangs in the middle must not hold them for long.
    pause: Duration,
}

impl SessionTimes {
    /// Returns the times for a lease.
    pub(super) fn of(lease: Duration) -> Self {
        let second = Duration::from_secs(1);
        Self {
            connect: (lease / 6).clamp(second, 5 * second),
            wait: (lease / 3).clamp(second, 10 * second),
            unacknowledged: (lease / 3).clamp(second, 10 * second),
            idle: (lease / 6).clamp(second, 10 * second),
            statement: lease * 2 / 3,
            lock: lease / 3,
            pause: (lease / 6).clamp(second, 5 * second),
        }
    }

    /// Sets the times of the socket, and the settings of the session, on our side and on the server's:
    /// a server that does not notice that a node is gone would keep its locks. Statements rely on
    /// READ COMMITTED. How a commit becomes durable is not set here; it is the administrator's choice,
    /// which [`super::durability`](super::DatabaseDurability) reads.
    pub(super) fn apply(&self, config: &mut Config) {
        let second = Duration::from_secs(1);
        config
            .connect_timeout(self.connect)
            .tcp_user_timeout(self.unacknowledged)
            .keepalives(true)
            .keepalives_idle(self.idle)
            .keepalives_interval(second)
            .keepalives_retries(3)
            .options(self.options());
    }

    fn options(&self) -> String {
        let milliseconds = |time: Duration| time.as_millis();
        format!(
            "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} \
             -c idle_session_timeout=0 -c tcp_keepalives_idle={} -c tcp_keepalives_interval=1 \
             -c tcp_keepalives_count=3 -c tcp_user_timeout={} \
             -c default_transaction_isolation=read\\ committed",
            milliseconds(self.statement),
            milliseconds(self.lock),
            milliseconds(self.pause),
            self.idle.as_secs(),
            milliseconds(self.unacknowledged),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_times_end_within_the_lease() {
        for seconds in [3, 30, 600] {
            let lease = Duration::from_secs(seconds);
            let times = SessionTimes::of(lease);
            for time in [
                times.connect,
                times.wait,
                times.unacknowledged,
                times.idle,
                times.statement,
                times.lock,
                times.pause,
            ] {
                assert!(time < lease && time >= Duration::from_secs(1), "{times:?}");
            }
            assert!(
                times.pause < times.lock || seconds == 3,
                "others wait for it: {times:?}"
            );
            assert!(times.lock < times.statement, "{times:?}");
        }
        let options = SessionTimes::of(Duration::from_secs(30)).options();
        assert!(
            options.starts_with("-c statement_timeout=20000 -c lock_timeout=10000 "),
            "{options}"
        );
    }
}
