//! The units by which limits count clients: a client's address, and the networks that a customer of
//! a provider may control.

use std::net::IpAddr;

use ipnet::IpNet;

/// The prefix lengths of one client: an IPv4 address, or an IPv6 /64, as one machine is given.
const CLIENT: (u8, u8) = (32, 64);
/// The prefix lengths of networks: an IPv4 /24; an IPv6 /56 (a household) and /48 (a site).
const NETWORKS: ([u8; 1], [u8; 2]) = ([24], [56, 48]);

/// Returns the client that an address belongs to, as a network.
#[must_use]
pub fn client(address: IpAddr) -> IpNet {
    around(address, CLIENT)
}

/// Returns the networks around a client, from the narrowest to the widest.
pub fn networks(address: IpAddr) -> impl Iterator<Item = IpNet> {
    let address = address.to_canonical();
    let widths = if address.is_ipv4() {
        &NETWORKS.0[..]
    } else {
        &NETWORKS.1[..]
    };
    widths
        .iter()
        .map(move |width| around(address, (*width, *width)))
}

/// Returns the widest network around a client.
#[must_use]
pub fn site(address: IpAddr) -> IpNet {
    networks(address).last().unwrap_or_else(|| client(address))
}

fn around(address: IpAddr, (v4, v6): (u8, u8)) -> IpNet {
    let address = address.to_canonical();
    let width = if address.is_ipv4() { v4 } else { v6 };
    // The prefix length always fits the address family.
    IpNet::new(address, width).map_or(IpNet::from(address), |network| network.trunc())
}

/// Formats a client or a network; a single address without its prefix length.
#[must_use]
pub fn network_text(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_a_client_and_networks() {
        for (address, of_client, around) in [
            ("192.0.2.77", "192.0.2.77", &["192.0.2.0/24"][..]),
            ("::ffff:192.0.2.77", "192.0.2.77", &["192.0.2.0/24"]),
            (
                "2001:db8:1:2345::9",
                "2001:db8:1:2345::/64",
                &["2001:db8:1:2300::/56", "2001:db8:1::/48"],
            ),
            (
                "2001:db8:1:2345:ffff::1",
                "2001:db8:1:2345::/64",
                &["2001:db8:1:2300::/56", "2001:db8:1::/48"],
            ),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(network_text(&client(address)), of_client);
            assert_eq!(
                networks(address)
                    .map(|network| network_text(&network))
                    .collect::<Vec<_>>(),
                around
            );
            assert_eq!(
                Some(network_text(&site(address)).as_str()),
                around.last().copied()
            );
        }
    }
}
