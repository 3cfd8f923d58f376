//! The tests of several relays that share a queue (`it/cluster`), as a program of their own: they need
//! PostgreSQL's server programs and minutes.

mod it {
    mod cluster;
    #[allow(
        dead_code,
        reason = "shared with the other integration tests, which use more of it"
    )]
    pub(crate) mod support;
}

use it::support;
