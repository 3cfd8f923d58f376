//! The URL of a directory server (RFC 4516), without a DN and a query.

use std::fmt;

use crate::smtp::address::Host;

const LDAP_PORT: u16 = 389;
const LDAPS_PORT: u16 = 636;

/// The TLS of a connection to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryTls {
    /// TLS from the first octet.
    Implicit,
    /// TLS after the STARTTLS operation (RFC 4511 §4.14).
    StartTls,
    /// No TLS, to this machine alone.
    Off,
}

/// The URL of a directory server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryUrl {
    /// The host.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
    /// The TLS of the connection.
    pub tls: DirectoryTls,
}

impl DirectoryUrl {
    /// Parses `ldap://host:port` or `ldaps://host:port`; the port may be missing. `ldap` is without
    /// TLS here; STARTTLS is a key of its own.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_ldaps = match scheme.to_ascii_lowercase().as_str() {
            "ldap" => false,
            "ldaps" => true,
            _ => return None,
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rfind(':') {
            Some(at) if !authority[at..].contains(']') => {
                let port = authority[at + 1..].parse().ok().filter(|port| *port > 0)?;
                (&authority[..at], port)
            }
            _ => (authority, if is_ldaps { LDAPS_PORT } else { LDAP_PORT }),
        };
        let host = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(address) => Host::Literal(address.parse().ok()?),
            None => match host.parse() {
                Ok(address) => Host::Literal(address),
                Err(_) => Host::parse(host).ok()?,
            },
        };
        let tls = if is_ldaps {
            DirectoryTls::Implicit
        } else {
            DirectoryTls::Off
        };
        Some(Self { host, port, tls })
    }

    /// Returns true if the host is this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host.is_local()
    }
}

impl fmt::Display for DirectoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.tls {
            DirectoryTls::Implicit => "ldaps",
            DirectoryTls::StartTls | DirectoryTls::Off => "ldap",
        };
        match &self.host {
            Host::Literal(std::net::IpAddr::V6(address)) => {
                write!(f, "{scheme}://[{address}]:{}", self.port)
            }
            Host::Literal(address) => write!(f, "{scheme}://{address}:{}", self.port),
            Host::Domain(domain) => write!(f, "{scheme}://{domain}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_server() {
        for (text, wanted) in [
            ("ldaps://dc1.example.com", "ldaps://dc1.example.com:636"),
            ("LDAP://dc1.example.com/", "ldap://dc1.example.com:389"),
            ("ldap://127.0.0.1:1389", "ldap://127.0.0.1:1389"),
            ("ldap://[::1]", "ldap://[::1]:389"),
            ("ldaps://[2001:db8::1]:3269", "ldaps://[2001:db8::1]:3269"),
        ] {
            let url = DirectoryUrl::parse(text).expect(text);
            assert_eq!(url.to_string(), wanted);
        }
        for text in [
            "",
            "dc1.example.com",
            "ldapi://%2Frun%2Fldapi",
            "http://dc1.example.com",
            "ldap://",
            "ldap://a b",
            "ldap://dc1.example.com:0",
            "ldap://dc1.example.com:x",
            "ldap://dc1.example.com/dc=example,dc=com",
            "ldap://user@dc1.example.com",
        ] {
            assert_eq!(DirectoryUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn servers_on_this_machine_are_known() {
        for (text, local) in [
            ("ldap://localhost", true),
            ("ldap://dc1.localhost", true),
            ("ldap://notlocalhost", false),
            ("ldap://127.0.0.2", true),
            ("ldap://[::1]", true),
            ("ldap://[::ffff:127.0.0.1]", true),
            ("ldap://192.0.2.1", false),
            ("ldap://dc1.example.com", false),
        ] {
            let url = DirectoryUrl::parse(text).expect(text);
            assert_eq!(url.is_local(), local, "{text}");
        }
    }
}
