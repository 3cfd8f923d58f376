//! The memory for large buffers, which all sessions and attempts share.
//!
//! Content passes through small buffers, whose sizes limit the memory of each session. With larger
//! ones it needs fewer system calls and changes of threads. A peer that is fast gets them as long
//! as some of this memory is free; if none is, its content passes through the small ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The octets of large buffers that all sessions and attempts may have at the same time.
const SHARED: usize = 64 << 20;
/// The wait for a peer, to send or to accept one buffer, after which it has no large buffers.
pub(super) const SLOW: Duration = Duration::from_secs(1);

static MEMORY: FreeMemory = FreeMemory::new(SHARED);

/// The free octets of a memory.
#[derive(Debug)]
struct FreeMemory(AtomicUsize);

impl FreeMemory {
    const fn new(octets: usize) -> Self {
        Self(AtomicUsize::new(octets))
    }

    fn reserve(&'static self, octets: usize) -> Option<BufferMemory> {
        let less = |free: usize| free.checked_sub(octets);
        // Relaxed: the counter orders no other memory.
        let reserved = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        reserved.is_ok().then(|| BufferMemory {
            memory: self,
            octets,
        })
    }
}

/// Memory that one peer's large buffers may use. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct BufferMemory {
    memory: &'static FreeMemory,
    octets: usize,
}

impl BufferMemory {
    /// Reserves memory. Returns `None` if not enough is free.
    pub(super) fn reserve(octets: usize) -> Option<Self> {
        MEMORY.reserve(octets)
    }
}

impl Drop for BufferMemory {
    fn drop(&mut self) {
        self.memory.0.fetch_add(self.octets, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_reserved_than_there_is() {
        static MEMORY: FreeMemory = FreeMemory::new(10);
        let first = MEMORY.reserve(6).expect("all is free");
        assert!(MEMORY.reserve(5).is_none());
        let second = MEMORY.reserve(4).expect("so much is free");
        drop(first);
        assert!(MEMORY.reserve(7).is_none());
        drop(second);
        assert!(MEMORY.reserve(10).is_some());
    }
}
