//! The addresses of this relay's own listeners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::{Config, ListenAddress};

/// The configured addresses of our listeners, without those that systemd binds.
#[derive(Debug)]
pub(super) struct OwnAddresses {
    listeners: Vec<SocketAddr>,
    /// True if the system binds only addresses of this machine, so that an attempt to bind shows
    /// which addresses are ours.
    bind_proves_local: bool,
}

impl OwnAddresses {
    pub(super) fn new(config: &Config) -> Self {
        let addresses = config
            .listeners
            .iter()
            .flat_map(|listener| &listener.addresses);
        let listeners = addresses.filter_map(|address| match &address.value {
            ListenAddress::Bind(address) => Some(*address),
            ListenAddress::Systemd(_) => None,
        });
        // Documentation addresses, which no machine has (RFC 5737, RFC 3849).
        let nobody = [
            Ipv4Addr::new(192, 0, 2, 1).into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ];
        Self {
            listeners: listeners.collect(),
            bind_proves_local: !nobody.into_iter().any(can_bind),
        }
    }

    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.listeners.iter().any(|listener| match listener.ip() {
            _ if listener.port() != address.port() => false,
            IpAddr::V4(ip) if ip.is_unspecified() => {
                address.is_ipv4() && self.is_local_address(address.ip())
            }
            // A listener on `[::]` accepts IPv4 by default, too.
            IpAddr::V6(ip) if ip.is_unspecified() => self.is_local_address(address.ip()),
            ip => ip.to_canonical() == address.ip().to_canonical(),
        })
    }

    fn is_local_address(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || (self.bind_proves_local && can_bind(ip))
    }
}

/// Returns true if the system lets us bind an address, as it does with this machine's own. Nothing
/// is sent.
fn can_bind(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_those_where_a_listener_answers() {
        for (listener, address, is_own) in [
            ("192.0.2.7:25", "192.0.2.7:25", true),
            ("192.0.2.7:25", "192.0.2.7:26", false),
            ("192.0.2.7:25", "192.0.2.8:25", false),
            ("[::ffff:192.0.2.7]:25", "192.0.2.7:25", true),
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("0.0.0.0:25", "[::1]:25", false),
            ("[::]:25", "127.0.0.1:25", true),
            ("[::]:25", "[::1]:25", true),
            ("[::]:25", "192.0.2.7:25", false),
            ("[::]:25", "127.0.0.1:2525", false),
        ] {
            let listeners = vec![listener.parse().expect(listener)];
            let own_addresses = OwnAddresses {
                listeners,
                bind_proves_local: true,
            };
            assert_eq!(
                own_addresses.contains(address.parse().expect(address)),
                is_own,
                "{listener} {address}"
            );
        }
        // If the system binds every address, an attempt to bind proves nothing.
        let blind = OwnAddresses {
            listeners: vec!["0.0.0.0:25".parse().expect("an address")],
            bind_proves_local: false,
        };
        assert!(!blind.contains("192.0.2.7:25".parse().expect("an address")));
    }
}
