//! The durability tests (`it/durability`), as a program of their own: they kill and trace the
//! relay, and most of them need strace, root and minutes.

mod it {
    mod durability;
    #[allow(
        dead_code,
        reason = "shared with the other integration tests, which use more of it"
    )]
    pub(crate) mod support;
}

use it::support;
