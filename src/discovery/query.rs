//! A lookup for one hop, and the reasons to leave a publication out.

use jiff::Timestamp;

use crate::config::{Connector, Publication, TlsDemand};
use crate::net::dns::Dns;
use crate::net::route::{Addresses, Hop, RouteBasis};
use crate::policy::connector::exception;
use crate::smtp::address::Host;
use crate::smtp::envelope::TlsRequirement;

const NOT_IN_DISCOVER: &str = "the connector's discover does not name it";
const OFF: &str = "the connector has switched TLS off";
const TLS_REQUIRED_NO: &str = "the message overrides it (TLS-Required: No)";

/// A lookup for one hop.
#[derive(Debug, Clone, Copy)]
pub struct HopQuery<'a> {
    /// The recipient domain.
    pub recipient: &'a Host,
    /// The connector of the recipient domain.
    pub connector: &'a Connector,
    /// The hop.
    pub hop: &'a Hop,
    /// The source of the hop.
    pub basis: &'a RouteBasis,
    /// The addresses of the hop.
    pub addresses: &'a Addresses,
    /// The TLS requirement of the message.
    pub requirement: TlsRequirement,
    /// The resolver.
    pub dns: &'a Dns,
    /// The time.
    pub now: Timestamp,
}

/// Returns the reason why a publication need not be looked up, if there is one.
// Rule: RFC 8689 §4.2.2.
pub(super) fn reason_to_skip(
    query: &HopQuery<'_>,
    publication: Publication,
) -> Option<&'static str> {
    let is_off = |connector: &Connector| {
        let own = connector.outbound.tls;
        exception(connector, query.now).map_or(own, |exception| exception.tls) == TlsDemand::Off
    };
    if query.connector.with_floor().all(is_off) {
        Some(OFF)
    } else if !query.connector.outbound.discover.contains(&publication) {
        Some(NOT_IN_DISCOVER)
    } else if query.requirement == TlsRequirement::Relaxed {
        Some(TLS_REQUIRED_NO)
    } else {
        None
    }
}
