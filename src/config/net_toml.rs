//! The `[net]` table.

use std::net::{IpAddr, Ipv4Addr};

use super::fault_list::FaultList;
use super::reader::{TableReader, TomlValue};
use super::settings::{NetConfig, ProxyAddress};
use super::spelling::shorten;
use super::values::text;
use crate::smtp::address::{Domain, Host};

/// The port of a proxy whose URL has none.
const PROXY_PORT: u16 = 80;

/// Reads the table.
pub(super) fn net(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> NetConfig {
    let proxy = table.read(faults, "http_proxy", http_proxy);
    table.finish(faults);
    NetConfig {
        http_proxy: proxy.value().cloned(),
    }
}

/// Reads `http_proxy`: `http://host:port`.
fn http_proxy(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<ProxyAddress> {
    let written = text(value, faults)?;
    let parsed = parse(written);
    if parsed.is_none() {
        // A password is not repeated, since faults are logged.
        let message = if written.contains('@') {
            format!(
                "{}: a user or password for the proxy is not supported",
                value.key
            )
        } else {
            format!(
                "{}: \"{}\" is not the URL of a proxy",
                value.key,
                shorten(written)
            )
        };
        let remedy = "Write the scheme http, the host and the port: \"http://proxy.example.com:3128\". Let the proxy accept \
                      this relay by its address.";
        faults.add(&value.location, message, remedy);
    }
    parsed
}

fn parse(written: &str) -> Option<ProxyAddress> {
    let (scheme, authority) = written.split_at_checked("http://".len())?;
    if !scheme.eq_ignore_ascii_case("http://") {
        return None;
    }
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port_number(port)?),
        _ => (authority, PROXY_PORT),
    };
    let host = match (host.strip_prefix('['), host.parse::<Ipv4Addr>()) {
        (Some(rest), _) => Host::Literal(IpAddr::V6(rest.strip_suffix(']')?.parse().ok()?)),
        (None, Ok(address)) => Host::Literal(address.into()),
        (None, Err(_)) => Host::Domain(Domain::parse(host).ok()?),
    };
    (port > 0).then_some(ProxyAddress { host, port })
}

fn port_number(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|octet| octet.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_a_host_and_a_port() {
        for (text, written) in [
            (
                "http://proxy.example.com:3128",
                Some("http://proxy.example.com:3128"),
            ),
            (
                "HTTP://proxy.example.com/",
                Some("http://proxy.example.com:80"),
            ),
            ("http://192.0.2.1:8080", Some("http://192.0.2.1:8080")),
            (
                "http://[2001:db8::1]:8080",
                Some("http://[2001:db8::1]:8080"),
            ),
            ("http://[2001:db8::1]", Some("http://[2001:db8::1]:80")),
            ("https://proxy.example.com:3128", None),
            ("proxy.example.com:3128", None),
            ("http://user:secret@proxy.example.com:3128", None),
            ("http://proxy.example.com:0", None),
            ("http://proxy.example.com:+80", None),
            ("http://2001:db8::1:8080", None),
            ("http://[192.0.2.1", None),
            ("http://proxy.example.com:x", None),
            ("http://proxy.example.com/path", None),
            ("http://", None),
            ("", None),
        ] {
            assert_eq!(
                parse(text).map(|proxy| proxy.to_string()).as_deref(),
                written,
                "{text}"
            );
        }
    }
}
