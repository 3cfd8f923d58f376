//! Whom an explanation is about, as people write it.

use std::net::IpAddr;

use crate::address::{Host, Mailbox, ReversePath};

/// An address or what stands right of its "@".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `postmaster` without a domain: ours (RFC 5321 §2.3.5).
    Postmaster,
    /// `<>`: the sender of reports.
    Null,
    /// `bob@example.org`.
    Address(Mailbox),
    /// `example.org` or `[192.0.2.1]`.
    Host(Host),
}

impl Subject {
    /// Reads what somebody typed: with angle brackets or without, in A-labels or U-labels.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bare = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
        if bare.is_empty() {
            return if text.is_empty() {
                Err("there is neither address nor domain".to_owned())
            } else {
                Ok(Self::Null)
            };
        }
        if bare.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        if bare.contains('@') {
            return Mailbox::parse(bare).map(Self::Address).map_err(|error| format!("\"{bare}\": {error}"));
        }
        match bare.parse() {
            Ok(IpAddr::V4(address)) => {
                return Err(format!("{address} is an address without brackets: write [{address}]"));
            }
            Ok(IpAddr::V6(address)) => {
                return Err(format!("{address} is an address without brackets: write [IPv6:{address}]"));
            }
            Err(_) => {}
        }
        let name = bare.strip_suffix('.').unwrap_or(bare);
        Host::parse(name).map(Self::Host).map_err(|error| error.to_string())
    }

    /// The sender it is for MAIL FROM; of a domain alone, its postmaster.
    pub(super) fn reverse_path(&self, ours: &Mailbox) -> ReversePath {
        match self {
            Self::Null => ReversePath::Null,
            Self::Postmaster => ReversePath::Mailbox(ours.clone()),
            Self::Address(mailbox) => ReversePath::Mailbox(mailbox.clone()),
            // A local part in front of a host makes a mailbox.
            Self::Host(host) => {
                Mailbox::parse(&format!("postmaster@{host}")).map_or(ReversePath::Null, ReversePath::Mailbox)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        let address = |text: &str| Subject::Address(Mailbox::parse(text).expect("a mailbox"));
        let host = |text: &str| Subject::Host(Host::parse(text).expect("a host"));
        for (typed, meant) in [
            ("bob@example.org", address("bob@example.org")),
            (" <bob@Example.ORG> ", address("bob@example.org")),
            ("Example.org.", host("example.org")),
            ("b\u{fc}cher.example", host("xn--bcher-kva.example")),
            ("[192.0.2.1]", host("[192.0.2.1]")),
            ("PostMaster", Subject::Postmaster),
            ("<postmaster>", Subject::Postmaster),
            ("<>", Subject::Null),
        ] {
            assert_eq!(Subject::parse(typed), Ok(meant), "{typed}");
        }
        for (typed, said) in [
            ("", "neither address nor domain"),
            ("192.0.2.1", "write [192.0.2.1]"),
            ("2001:db8::1", "write [IPv6:2001:db8::1]"),
            ("a b", "\"a b\" is not a domain name"),
            ("bob@", "\"bob@\": "),
        ] {
            let error = Subject::parse(typed).expect_err(typed);
            assert!(error.contains(said), "{typed}: {error}");
        }
    }
}
