//! The hosts that failures name: peers that were dialled, and hops that were not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use crate::policy::connector::HopProtocol;
use crate::smtp::address::{Domain, Host};

/// An address at which a host is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HopAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Socket(Arc<Path>),
}

impl HopAddress {
    /// Returns the IP address, if it has one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Socket(_) => None,
        }
    }
}

impl From<SocketAddr> for HopAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for HopAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// A host that was dialled, with the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The name of the host, or its address literal.
    pub host: Host,
    /// The address.
    pub address: HopAddress,
    /// The protocol that is spoken.
    pub protocol: HopProtocol,
    /// Our own address of the connection; `None` for a unix socket, or if there was no connection.
    pub source: Option<IpAddr>,
}

impl Peer {
    /// Returns the peer with our own address of the connection.
    #[must_use]
    pub fn with_source(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// Returns the host as reports name it: `mx.example.org`, or `[192.0.2.1]` if it has no name.
    #[must_use]
    pub fn host_name(&self) -> String {
        match (&self.host, &self.address) {
            (Host::Domain(name), _) => name.to_string(),
            (Host::Literal(_), HopAddress::Tcp(address)) => format!("[{}]", address.ip()),
            (host @ Host::Literal(_), HopAddress::Socket(_)) => host.to_string(),
        }
    }
}

/// Writes `mx.example.org [192.0.2.1]:25`, `[192.0.2.1]:25` if the host has no name, or the path of a
/// socket.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HopAddress::Tcp(address) = &self.address else {
            return self.address.fmt(f);
        };
        let (ip, port) = (address.ip(), address.port());
        match &self.host {
            Host::Domain(name) => write!(f, "{name} [{ip}]:{port}"),
            Host::Literal(_) => write!(f, "[{ip}]:{port}"),
        }
    }
}

/// The host at which a failure happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailedHost {
    /// It was dialled.
    Dialled(Box<Peer>),
    /// It was not dialled.
    NotDialled {
        /// The name of the host, or its address literal.
        host: Host,
        /// The TCP port.
        port: u16,
    },
}

impl FailedHost {
    /// Returns the host as reports name it.
    #[must_use]
    pub fn host_name(&self) -> String {
        match self {
            Self::Dialled(peer) => peer.host_name(),
            Self::NotDialled { host, .. } => host.to_string(),
        }
    }

    /// Returns the name of the host, if it has one.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Dialled(peer) => peer.host.domain(),
            Self::NotDialled { host, .. } => host.domain(),
        }
    }

    /// Returns the peer, if it was dialled.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Dialled(peer) => Some(peer.as_ref()),
            Self::NotDialled { .. } => None,
        }
    }

    /// Returns the address that was dialled.
    #[must_use]
    pub fn address(&self) -> Option<&HopAddress> {
        match self {
            Self::Dialled(peer) => Some(&peer.address),
            Self::NotDialled { .. } => None,
        }
    }
}

impl From<Peer> for FailedHost {
    fn from(peer: Peer) -> Self {
        Self::Dialled(Box::new(peer))
    }
}

impl From<&Peer> for FailedHost {
    fn from(peer: &Peer) -> Self {
        Self::Dialled(Box::new(peer.clone()))
    }
}

impl fmt::Display for FailedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialled(peer) => peer.fmt(f),
            Self::NotDialled { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peers and hosts, as logs and reports show them; the name of the host alone; the address, if
    /// it was dialled.
    #[test]
    fn a_host_is_named_with_its_address_if_it_was_dialled() {
        let host = |text: &str| Host::parse(text).expect(text);
        let dialled = |name: &str, address: &str| {
            FailedHost::from(Peer {
                host: host(name),
                address: HopAddress::Tcp(address.parse().expect(address)),
                protocol: HopProtocol::Smtp,
                source: None,
            })
        };
        let not_dialled = |name: &str| FailedHost::NotDialled {
            host: host(name),
            port: 25,
        };
        for (failed, text, name, has_address) in [
            (
                dialled("mx.example.org", "192.0.2.1:25"),
                "mx.example.org [192.0.2.1]:25",
                "mx.example.org",
                true,
            ),
            (
                dialled("mx.example.org", "[2001:db8::1]:25"),
                "mx.example.org [2001:db8::1]:25",
                "mx.example.org",
                true,
            ),
            (
                dialled("[192.0.2.1]", "192.0.2.1:25"),
                "[192.0.2.1]:25",
                "[192.0.2.1]",
                true,
            ),
            (
                dialled("[IPv6:2001:db8::1]", "[2001:db8::1]:25"),
                "[2001:db8::1]:25",
                "[2001:db8::1]",
                true,
            ),
            (
                not_dialled("mx.example.org"),
                "mx.example.org:25",
                "mx.example.org",
                false,
            ),
            (
                not_dialled("[192.0.2.1]"),
                "[192.0.2.1]:25",
                "[192.0.2.1]",
                false,
            ),
            (
                not_dialled("[IPv6:2001:db8::1]"),
                "[IPv6:2001:db8::1]:25",
                "[IPv6:2001:db8::1]",
                false,
            ),
        ] {
            assert_eq!(
                (failed.to_string().as_str(), failed.host_name().as_str()),
                (text, name)
            );
            assert_eq!(failed.address().is_some(), has_address, "{text}");
        }
    }
}
