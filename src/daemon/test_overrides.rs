//! Settings that tests replace.

use crate::net::https;

/// Settings that an administrator cannot change. The demo and tests use them to replace servers on
/// the Internet by peers on this machine, which cannot use the same ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestOverrides {
    /// The port of MTA-STS policy hosts: 443 (RFC 8461 §3.3).
    pub policy_port: u16,
    /// True if CRLs may be fetched from this machine: false.
    pub crls_from_loopback: bool,
    /// True if the database may run without fsync: false.
    pub database_without_fsync: bool,
}

impl Default for TestOverrides {
    fn default() -> Self {
        Self {
            policy_port: https::DEFAULT_PORT,
            crls_from_loopback: false,
            database_without_fsync: false,
        }
    }
}
