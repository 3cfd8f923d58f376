//! Values for hosts: domains, patterns, certificate names, addresses, networks, smart hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};

use super::fault_list::FaultList;
use super::reader::TomlValue;
use super::settings::ListenAddress;
use super::spelling::shorten;
use super::values::text;
use crate::policy::connector::{DomainPattern, HopProtocol, SmartHost};
use crate::policy::tls::NamePattern;
use crate::smtp::address::{Domain, Host, Mailbox};

fn reject<T>(
    value: &TomlValue<'_>,
    faults: &mut FaultList<'_>,
    written: &str,
    problem: &str,
    remedy: String,
) -> Option<T> {
    faults.add(
        &value.location,
        format!("{}: \"{}\" {problem}", value.key, shorten(written)),
        remedy,
    );
    None
}

pub(super) fn domain(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Domain> {
    let written = text(value, faults)?;
    Domain::parse(written).ok().or_else(|| {
        let remedy = "Write a host name, such as \"relay.example.com\", without a dot at the end.";
        reject(
            value,
            faults,
            written,
            "is not a domain name",
            remedy.to_owned(),
        )
    })
}

pub(super) fn mailbox(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Mailbox> {
    let written = text(value, faults)?;
    match Mailbox::parse(written) {
        Ok(mailbox) => Some(mailbox),
        Err(error) => {
            let problem = format!("is not a mail address: {error}");
            reject(
                value,
                faults,
                written,
                &problem,
                "Write one such as \"postmaster@example.com\".".to_owned(),
            )
        }
    }
}

/// Reads `example.org`, `*.example.org` or `*`.
pub(super) fn domain_pattern(
    value: &TomlValue<'_>,
    faults: &mut FaultList<'_>,
) -> Option<DomainPattern> {
    let written = text(value, faults)?;
    if written == "*" {
        return Some(DomainPattern::Any);
    }
    let parsed = match written.strip_prefix("*.") {
        Some(base) => Domain::parse(base).map(DomainPattern::Below),
        None => Domain::parse(written).map(DomainPattern::Exactly),
    };
    if let Ok(pattern) = parsed {
        return Some(pattern);
    }
    let remedy = if let Some(base) = written
        .strip_prefix('.')
        .filter(|base| Domain::parse(base).is_ok())
    {
        format!("Every subdomain is written \"*.{base}\".")
    } else if let Some((_, domain)) = written.rsplit_once('@') {
        format!(
            "Connectors cover whole domains: write \"{}\".",
            shorten(domain)
        )
    } else if written.starts_with('[') || written.parse::<IpAddr>().is_ok() {
        "An address has no domain; only the pattern \"*\" covers mail to addresses.".to_owned()
    } else {
        "Write \"example.org\", \"*.example.org\" for all its subdomains, or \"*\" for every domain.".to_owned()
    };
    reject(value, faults, written, "is not a domain pattern", remedy)
}

/// Reads a name in a certificate: `mail.example.org` or `*.example.org`.
// Rule: RFC 9525 §6.1.1, §7.1.
pub(super) fn name_pattern(
    value: &TomlValue<'_>,
    faults: &mut FaultList<'_>,
) -> Option<NamePattern> {
    let written = text(value, faults)?;
    if let Ok(pattern) = NamePattern::parse(written) {
        return Some(pattern);
    }
    let (problem, remedy) = if written == "*" {
        (
            "names no host",
            "Write the names that the certificate carries; with verify = \"chain\" any will do.",
        )
    } else if written.contains('*') {
        (
            "has a wildcard inside",
            "A wildcard can only be the whole left-most label: \"*.example.org\".",
        )
    } else if written.parse::<IpAddr>().is_ok() || written.starts_with('[') {
        (
            "is an address",
            "Only DNS names in certificates count (RFC 9525): write the host's name.",
        )
    } else {
        (
            "is not a host name",
            "Write a name such as \"mail.example.org\" or \"*.example.org\".",
        )
    };
    reject(value, faults, written, problem, remedy.to_owned())
}

/// The most octets in the name of a socket, as in systemd.
const SOCKET_NAME_MAX: usize = 255;

/// Reads an address and a port, or the name of a socket that systemd passes.
pub(super) fn listen_address(
    value: &TomlValue<'_>,
    faults: &mut FaultList<'_>,
) -> Option<ListenAddress> {
    let written = text(value, faults)?;
    if let Ok(address) = written.parse() {
        return Some(ListenAddress::Bind(address));
    }
    if let Some(name) = written.strip_prefix("systemd:") {
        // The rules of systemd.socket(5) for FileDescriptorName=.
        let usable = !name.is_empty() && name.len() <= SOCKET_NAME_MAX;
        if usable
            && name
                .bytes()
                .all(|octet| octet.is_ascii_graphic() && octet != b':')
        {
            return Some(ListenAddress::Systemd(name.to_owned()));
        }
        let remedy = "Write the FileDescriptorName= of the socket unit behind \"systemd:\", such as \"systemd:mx\".";
        return reject(
            value,
            faults,
            written,
            "names no socket that systemd could pass",
            remedy.to_owned(),
        );
    }
    let remedy = match (written.parse::<IpAddr>(), bracketed_address(written)) {
        (Ok(address), _) | (_, Some(address)) => format!("Add the port: \"{}\".", SocketAddr::new(address, 25)),
        _ => "Write an address and a port: \"[::]:25\" for all, or one such as \"192.0.2.1:25\"; or \"systemd:NAME\" for a \
              socket that systemd passes.".to_owned(),
    };
    reject(
        value,
        faults,
        written,
        "is not an address to listen on",
        remedy,
    )
}

/// Reads the address of a DNS server; the default port is 53.
pub(super) fn dns_server(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<SocketAddr> {
    let written = text(value, faults)?;
    let bare = || {
        written
            .parse()
            .ok()
            .map(|address: IpAddr| SocketAddr::new(address, 53))
    };
    if let Some(server) = written
        .parse()
        .ok()
        .or_else(bare)
        .filter(|server| server.port() != 0)
    {
        return Some(server);
    }
    let remedy =
        "Write an address, with or without a port: \"127.0.0.1:5353\", \"[2001:db8::53]:53\"."
            .to_owned();
    reject(
        value,
        faults,
        written,
        "is not the address of a DNS server",
        remedy,
    )
}

/// The prefix length of IPv4-mapped addresses.
const MAPPED_PREFIX: u8 = 96;

/// Reads a network, or one address.
pub(super) fn network(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<IpNet> {
    let written = text(value, faults)?;
    let one = written.parse().map(|address: IpAddr| IpNet::from(address));
    let Ok(network) = written.parse::<IpNet>().or(one) else {
        let remedy =
            "Write an address and a prefix length, such as \"192.0.2.0/24\" or \"2001:db8::/32\"."
                .to_owned();
        return reject(value, faults, written, "is not a network", remedy);
    };
    if network != network.trunc() {
        let remedy = format!(
            "Write \"{}\" for the whole network, or \"{}\" for this address alone.",
            network.trunc(),
            IpNet::from(network.addr())
        );
        return reject(value, faults, written, "has bits behind its prefix", remedy);
    }
    Some(canonical(network))
}

/// Converts an IPv4-mapped network to the IPv4 network (RFC 4291 §2.5.5.2), because clients'
/// addresses are compared in that form.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(six) = network else {
        return network;
    };
    let four = six
        .addr()
        .to_ipv4_mapped()
        .zip(six.prefix_len().checked_sub(MAPPED_PREFIX));
    four.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok())
        .map_or(network, IpNet::V4)
}

/// Returns true if these networks together cover all of IPv4 or all of IPv6.
///
/// IPv6 unicast is `2000::/3` (RFC 4291 §2.4); `::ffff:0:0/96` is all of IPv4 (§2.5.5.2).
pub(super) fn covers_everything(networks: &[IpNet]) -> bool {
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    IpNet::aggregate(&networks.to_vec())
        .iter()
        .any(|network| match network {
            IpNet::V4(network) => network.prefix_len() == 0,
            IpNet::V6(network) => {
                let mapped = network.prefix_len() <= 96 && network.contains(&mapped);
                mapped
                    || (network.prefix_len() <= 3
                        && network.contains(&Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)))
            }
        })
}

/// The most octets in the path of a unix socket (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// Reads `mx1.example.org:25`, `[192.0.2.7]:587`, `192.0.2.7:25`, `[2001:db8::1]:25` or
/// `[IPv6:2001:db8::1]:25`, each also behind `smtps://` or `lmtp://`; or `lmtp:/path/of/socket`.
pub(super) fn smart_host(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<SmartHost> {
    let written = text(value, faults)?;
    if let Some(smart_host) = parse_smart_host(written) {
        return Some(smart_host);
    }
    let remedy = if written == "mx" {
        "\"mx\" is written without brackets: route = \"mx\".".to_owned()
    } else if let Ok(address @ IpAddr::V6(_)) = written.parse::<IpAddr>() {
        format!("An IPv6 address is written in brackets: \"[{address}]:25\".")
    } else if parse_host(written).is_some() {
        format!("Add the port: \"{written}:25\".")
    } else if let Some((scheme @ ("smtps" | "lmtp"), host)) = written.split_once("://")
        && parse_host(host).is_some()
    {
        let port = if scheme == "smtps" { 465 } else { 24 };
        format!("Add the port: \"{written}:{port}\".")
    } else if written.starts_with("lmtp:/") && !written.starts_with("lmtp://") {
        format!("The path of a unix socket has at most {SOCKET_PATH_MAX} octets.")
    } else {
        "Write host and port: \"mx1.example.org:25\", \"[192.0.2.7]:587\" or \"[2001:db8::1]:25\"; or \
         \"smtps://host:465\", \"lmtp://host:24\" or \"lmtp:/path/of/socket\"."
            .to_owned()
    };
    reject(value, faults, written, "is not a smart host", remedy)
}

fn parse_smart_host(written: &str) -> Option<SmartHost> {
    if let Some(path) = written
        .strip_prefix("lmtp:")
        .filter(|path| path.starts_with('/') && !path.starts_with("//"))
    {
        return (path.len() <= SOCKET_PATH_MAX).then(|| SmartHost {
            host: Host::Literal(Ipv4Addr::LOCALHOST.into()),
            port: 0,
            protocol: HopProtocol::LmtpSocket(Path::new(path).into()),
        });
    }
    let (protocol, server) = match written.split_once("://") {
        None => (HopProtocol::Smtp, written),
        Some(("smtps", server)) => (HopProtocol::Smtps, server),
        Some(("lmtp", server)) => (HopProtocol::Lmtp, server),
        Some(_) => return None,
    };
    let (host, port) = server.rsplit_once(':')?;
    // Rust would parse "+25" as a number.
    let port = Some(port)
        .filter(|port| port.bytes().all(|c| c.is_ascii_digit()))?
        .parse()
        .ok()?;
    Some(SmartHost {
        host: parse_host(host)?,
        port,
        protocol,
    })
    .filter(|_| port != 0)
}

fn parse_host(written: &str) -> Option<Host> {
    if let Some(address) = bracketed_address(written) {
        return Some(Host::Literal(address));
    }
    match written.parse() {
        Ok(IpAddr::V4(address)) => Some(Host::Literal(IpAddr::V4(address))),
        Ok(IpAddr::V6(_)) => None,
        Err(_) => Host::parse(written).ok(),
    }
}

/// Parses the address in `[2001:db8::1]` or `[192.0.2.7]`.
fn bracketed_address(written: &str) -> Option<IpAddr> {
    written.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smart_hosts_have_one_meaning() {
        for (written, meant) in [
            ("mx1.example.org:25", "mx1.example.org:25"),
            ("[192.0.2.7]:587", "[192.0.2.7]:587"),
            ("10.0.0.5:25", "[10.0.0.5]:25"),
            ("[2001:db8::1]:25", "[IPv6:2001:db8::1]:25"),
            ("[IPv6:2001:db8::1]:25", "[IPv6:2001:db8::1]:25"),
            ("Bücher.example:2525", "xn--bcher-kva.example:2525"),
            ("smtps://mx1.example.org:465", "smtps://mx1.example.org:465"),
            ("lmtp://10.0.0.5:24", "lmtp://[10.0.0.5]:24"),
            ("lmtp:/run/dovecot/lmtp", "lmtp:/run/dovecot/lmtp"),
        ] {
            assert_eq!(parse_smart_host(written).expect(written).to_string(), meant);
        }
        for written in [
            "mx1.example.org",
            "2001:db8::1",
            "2001:db8::1:25",
            ":25",
            "a:0",
            "a:65536",
            "a:+25",
            "a b:25",
            "[a]:25",
            "smtps://mx1.example.org",
            "smtp://mx1.example.org:25",
            "lmtp:run/dovecot/lmtp",
            "lmtp://",
        ] {
            assert_eq!(parse_smart_host(written), None, "{written}");
        }
        let path = format!("lmtp:/{}", "p".repeat(SOCKET_PATH_MAX));
        assert_eq!(parse_smart_host(&path), None, "the path is too long");
    }

    #[test]
    fn an_ipv4_mapped_network_becomes_the_ipv4_network() {
        for (written, meant) in [
            ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
            ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            let network: IpNet = written.parse().expect("a network");
            assert_eq!(canonical(network).trunc().to_string(), meant, "{written}");
        }
    }

    #[test]
    fn networks_that_cover_everything_together_are_recognised() {
        let networks = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().expect("a network"))
                .collect::<Vec<IpNet>>()
        };
        for texts in [
            &["0.0.0.0/0"][..],
            &["::/0"],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["2000::/3"],
            &["::ffff:0:0/96"],
            &["::/1"],
        ] {
            assert!(covers_everything(&networks(texts)), "{texts:?}");
        }
        for texts in [
            &[][..],
            &["10.0.0.0/8", "127.0.0.0/8"],
            &["fd00::/8", "::1/128"],
            &["2001:db8::/32"],
        ] {
            assert!(!covers_everything(&networks(texts)), "{texts:?}");
        }
    }
}
