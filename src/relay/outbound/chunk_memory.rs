//! The hosts that offer CHUNKING and cannot be sent chunks.

use std::time::Duration;

use moka::sync::Cache;

use crate::smtp::address::Host;

/// The time for which a host gets its content with DATA.
const LIFETIME: Duration = Duration::from_hours(1);
/// The most hosts. One that is evicted is sent one more chunk.
const HOSTS_MAX: u64 = 4096;

/// The hosts that did not process a chunk, by name (or address) and port.
#[derive(Debug)]
pub(super) struct ChunkMemory(Cache<(Host, u16), ()>);

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
    pub(super) fn may_send(&self, host: &Host, port: u16) -> bool {
        !self.0.contains_key(&(host.clone(), port))
    }

    /// Stores that a host refused a chunk, or that nobody knows what became of it.
    pub(super) fn remember(&self, host: &Host, port: u16) {
        self.0.insert((host.clone(), port), ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_hosts_is_limited() {
        let memory = ChunkMemory::default();
        for number in 0..2 * HOSTS_MAX {
            let host = Host::parse(&format!("mx{number}.example.org")).expect("a host");
            memory.remember(&host, 25);
        }
        memory.0.run_pending_tasks();
        assert!(memory.0.entry_count() <= HOSTS_MAX);
    }

    #[test]
    fn hosts_differ_by_their_ports() {
        let memory = ChunkMemory::default();
        let host = Host::parse("mx1.example.org").expect("a host");
        memory.remember(&host, 25);
        assert_eq!(
            (memory.may_send(&host, 25), memory.may_send(&host, 26)),
            (false, true)
        );
    }
}
