//! The errors in building zones.

use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::dnssec::DnsSecError;

/// The reason why zones cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// A line is not a record, or the record is outside of its zone.
    #[error("not a record of the zone: {0:?}")]
    Record(String),
    /// A name or a message is invalid.
    #[error("{0}")]
    Dns(#[from] ProtoError),
    /// A key or a signature cannot be made.
    #[error("{0}")]
    Dnssec(#[from] DnsSecError),
    /// The system clock is outside of 1970 to 2106, the range of signature dates.
    #[error("the system clock is out of the range of signature dates")]
    Clock,
}
