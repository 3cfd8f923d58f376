//! The hosts that offer CHUNKING and cannot be sent chunks.

use std::time::Duration;

use moka::sync::Cache;

use crate::config::SmartHost;

/// The time for which a host gets its content with DATA.
const LIFETIME: Duration = Duration::from_hours(1);
/// The most hosts. One that is evicted is sent one more chunk.
const HOSTS_MAX: u64 = 4096;

/// The hosts that did not process a chunk, by host, port and protocol.
#[derive(Debug)]
pub(super) struct ChunkMemory(Cache<SmartHost, ()>);

impl Default for ChunkMemory {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(HOSTS_MAX)
                .time_to_live(LIFETIME)
                .build(),
        )
    }
}

impl ChunkMemory {
    /// Returns whether chunks may be sent to this host.
    pub(super) fn may_send(&self, server: &SmartHost) -> bool {
        !self.0.contains_key(server)
    }

    /// Stores that a host refused a chunk, or that nobody knows what became of it.
    pub(super) fn remember(&self, server: &SmartHost) {
        self.0.insert(server.clone(), ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HopProtocol;
    use crate::smtp::address::Host;

    fn server(host: &str, port: u16) -> SmartHost {
        SmartHost {
            host: Host::parse(host).expect("a host"),
            port,
            protocol: HopProtocol::Smtp,
        }
    }

    #[test]
    fn the_number_of_hosts_is_limited() {
        let memory = ChunkMemory::default();
        for number in 0..2 * HOSTS_MAX {
            memory.remember(&server(&format!("mx{number}.example.org"), 25));
        }
        memory.0.run_pending_tasks();
        assert!(memory.0.entry_count() <= HOSTS_MAX);
    }

    #[test]
    fn hosts_differ_by_their_ports() {
        let memory = ChunkMemory::default();
        let (one, other) = (server("mx1.example.org", 25), server("mx1.example.org", 26));
        memory.remember(&one);
        assert_eq!(
            (memory.may_send(&one), memory.may_send(&other)),
            (false, true)
        );
    }
}
