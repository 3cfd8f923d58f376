//! XCLIENT, the command by which a proxy describes its own client (Postfix's `XCLIENT_README`;
//! nginx's mail module sends it by default).

use std::net::IpAddr;

use super::{ClientName, CommandError, parse_client_name};
use crate::smtp::address::Domain;

const SYNTAX: CommandError = CommandError::Syntax("XCLIENT attribute=value [attribute=value ...]");

/// The value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attribute<T> {
    /// Not given; the value does not change.
    #[default]
    Absent,
    /// Unknown to the proxy: `[UNAVAILABLE]` or `[TEMPUNAVAIL]`.
    Unavailable,
    /// This value.
    Is(T),
}

/// The attributes that a proxy gives of its client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct XClient {
    /// NAME: the host name in DNS.
    pub name: Attribute<Domain>,
    /// ADDR.
    pub address: Attribute<IpAddr>,
    /// PORT.
    pub port: Attribute<u16>,
    /// HELO.
    pub hello: Attribute<ClientName>,
    /// PROTO: true for ESMTP.
    pub esmtp: Attribute<bool>,
}

/// Parses the arguments of XCLIENT.
pub(super) fn parse(arguments: &str) -> Result<XClient, CommandError> {
    let mut attributes = XClient::default();
    let mut seen: Vec<&'static str> = Vec::new();
    for word in arguments.split(' ').filter(|word| !word.is_empty()) {
        let (keyword, value) = word.split_once('=').ok_or(SYNTAX)?;
        let value = decode(value).ok_or(SYNTAX)?;
        let keyword = match keyword.to_ascii_uppercase().as_str() {
            "NAME" => set(&mut attributes.name, "NAME", &value, |value| {
                Domain::parse(value).ok()
            })?,
            "ADDR" => set(&mut attributes.address, "ADDR", &value, address)?,
            "PORT" => set(&mut attributes.port, "PORT", &value, port)?,
            "HELO" => set(&mut attributes.hello, "HELO", &value, |value| {
                parse_client_name(Some(value), "").ok()
            })?,
            "PROTO" => set(&mut attributes.esmtp, "PROTO", &value, protocol)?,
            // A login at the proxy gives no rights here.
            "LOGIN" => "LOGIN",
            _ => return Err(SYNTAX),
        };
        if seen.contains(&keyword) {
            return Err(CommandError::DuplicateParameter(keyword));
        }
        seen.push(keyword);
    }
    if seen.is_empty() {
        Err(SYNTAX)
    } else {
        Ok(attributes)
    }
}

/// Stores the value of an attribute and returns its keyword.
fn set<T>(
    slot: &mut Attribute<T>,
    keyword: &'static str,
    value: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<&'static str, CommandError> {
    let is_unavailable = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word));
    *slot = if is_unavailable {
        Attribute::Unavailable
    } else {
        Attribute::Is(read(value).ok_or(CommandError::BadParameter(keyword))?)
    };
    Ok(keyword)
}

/// Decodes xtext (RFC 3461 §4). Returns `None` if the result has control characters.
fn decode(value: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'+' {
            let (digits, after) = after.split_at_checked(2)?;
            octets.push(super::params::parse_hex(digits)?);
            rest = after;
        } else {
            octets.push(*first);
            rest = after;
        }
    }
    String::from_utf8(octets)
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
}

/// Parses `192.0.2.1` or `IPV6:2001:db8::1`, also in brackets as in RFC 5321 §4.1.3.
fn address(value: &str) -> Option<IpAddr> {
    let bare = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(value);
    let prefix = bare
        .get(..5)
        .filter(|prefix| prefix.eq_ignore_ascii_case("IPV6:"));
    match prefix {
        Some(prefix) => bare[prefix.len()..].parse().ok().map(IpAddr::V6),
        None => bare.parse().ok(),
    }
}

fn port(value: &str) -> Option<u16> {
    super::params::parse_number(value).and_then(|port| u16::try_from(port).ok())
}

/// Parses PROTO; returns true for ESMTP.
fn protocol(value: &str) -> Option<bool> {
    match value.to_ascii_uppercase().as_str() {
        "SMTP" => Some(false),
        "ESMTP" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Result<XClient, String> {
        parse(arguments).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_forms_of_nginx_and_postfix_are_parsed() {
        let nginx = read("ADDR=192.0.2.1 LOGIN=alice NAME=client.example").expect("nginx");
        assert_eq!(
            nginx.address,
            Attribute::Is("192.0.2.1".parse().expect("an address"))
        );
        assert_eq!(
            nginx.name,
            Attribute::Is(Domain::parse("client.example").expect("a name"))
        );
        assert_eq!(
            (nginx.port, nginx.esmtp),
            (Attribute::Absent, Attribute::Absent)
        );
        let all =
            read("proto=ESMTP helo=[192.0.2.7] port=4711 name=[tempunavail] addr=IPV6:2001:db8::1")
                .expect("all");
        assert_eq!(
            (all.port, all.esmtp, all.name),
            (
                Attribute::Is(4711),
                Attribute::Is(true),
                Attribute::Unavailable
            )
        );
        assert_eq!(
            all.address,
            Attribute::Is("2001:db8::1".parse().expect("an address"))
        );
        assert!(matches!(all.hello, Attribute::Is(name) if name.as_str() == "[192.0.2.7]"));
        for (value, address) in [
            (
                "[IPv6:2001:db8::1]",
                Attribute::Is("2001:db8::1".parse().expect("an address")),
            ),
            (
                "ipv6:::1",
                Attribute::Is("::1".parse().expect("an address")),
            ),
            (
                "192+2E0.2.1",
                Attribute::Is("192.0.2.1".parse().expect("an address")),
            ),
            ("[UnAvailable]", Attribute::Unavailable),
        ] {
            assert_eq!(
                read(&format!("ADDR={value}")).expect(value).address,
                address,
                "{value}"
            );
        }
    }

    #[test]
    fn any_other_form_is_rejected() {
        for (arguments, expected) in [
            ("", "Syntax: XCLIENT"),
            ("ADDR", "Syntax: XCLIENT"),
            ("DESTADDR=192.0.2.1", "Syntax: XCLIENT"),
            ("ADDR=192.0.2.1 ADDR=192.0.2.2", "ADDR is given twice"),
            ("LOGIN=a LOGIN=b", "LOGIN is given twice"),
            ("ADDR=192.0.2.256", "Bad value of ADDR"),
            ("ADDR=IPV6:192.0.2.1", "Bad value of ADDR"),
            ("ADDR=", "Bad value of ADDR"),
            ("PORT=65536", "Bad value of PORT"),
            ("PROTO=LMTP", "Bad value of PROTO"),
            ("NAME=a_b..c", "Bad value of NAME"),
            ("HELO=a+0D+0AMAIL", "Syntax: XCLIENT"),
            ("HELO=a+4", "Syntax: XCLIENT"),
        ] {
            let fault = read(arguments).expect_err(arguments);
            assert!(fault.starts_with(expected), "{arguments}: {fault}");
        }
    }
}
