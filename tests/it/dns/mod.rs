//! The resolver, against a root of its own and a server that answers as resolvers do.

mod bounds;
mod forged;
mod ground;
mod security;

use gatepost::config;
use gatepost::net::dns::{Dns, InsecureReason, LookupError, Security};
use gatepost::smtp::address::Domain;

use crate::support::config::ConfigBuilder;
use crate::support::zones::Server;

pub(crate) const SECURE: Security = Security::Secure;
pub(crate) const UNSIGNED: Security = Security::Insecure(InsecureReason::Unsigned);

/// `[dns]` with these lines.
pub(crate) fn config(lines: &str) -> config::DnsConfig {
    ConfigBuilder::new().table("dns", lines).parse().dns
}

/// A resolver that asks this server and validates from its root.
pub(crate) fn validating(server: &Server) -> Dns {
    with_anchor(server, "dnskey")
}

pub(crate) fn with_anchor(server: &Server, kind: &str) -> Dns {
    Dns::new(&of_server(server, kind)).expect("a resolver")
}

pub(crate) fn of_server(server: &Server, kind: &str) -> config::DnsConfig {
    let anchor = server.anchor(kind);
    config(&format!(
        "servers = [\"{}\"]\ntrust_anchor = \"{}\"",
        server.address,
        anchor.display()
    ))
}

pub(crate) fn mode(server: &Server, dnssec: &str) -> Dns {
    Dns::new(&config(&format!(
        "servers = [\"{}\"]\ndnssec = \"{dnssec}\"",
        server.address
    )))
    .expect("a resolver")
}

pub(crate) fn domain(name: &str) -> Domain {
    Domain::parse(name).expect("a domain")
}

/// The text of a validation that failed.
pub(crate) fn bogus<T: std::fmt::Debug>(outcome: Result<T, LookupError>) -> String {
    match outcome {
        Err(fault @ LookupError::Bogus(_)) => fault.to_string(),
        other => panic!("{other:?} where validation should have failed"),
    }
}
