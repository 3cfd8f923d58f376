//! The subject of an explanation, parsed from what the user typed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::smtp::address::{AddressError, Host, Mailbox, ReversePath};

/// The reason why a text is not the subject of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The text is empty.
    #[error("neither an address nor a domain is given")]
    Empty,
    /// The text has an "@" but is not a mailbox.
    #[error("\"{text}\": {source}")]
    Mailbox {
        /// The text.
        text: String,
        /// The error in it.
        source: AddressError,
    },
    /// The text is an IPv4 address without brackets.
    #[error("{0} is an address without brackets: write [{0}]")]
    Ipv4(Ipv4Addr),
    /// The text is an IPv6 address without brackets.
    #[error("{0} is an address without brackets: write [IPv6:{0}]")]
    Ipv6(Ipv6Addr),
    /// The text is not a domain.
    #[error(transparent)]
    Host(#[from] AddressError),
}

/// An address, or the domain or address literal of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `postmaster` without a domain, which means our own postmaster (RFC 5321 §4.5.1).
    Postmaster,
    /// `<>`, the sender of reports.
    Null,
    /// `bob@example.org`.
    Address(Mailbox),
    /// `example.org` or `[192.0.2.1]`.
    Host(Host),
}

impl Subject {
    /// Parses an address or a domain, with or without angle brackets, in A-labels or U-labels.
    ///
    /// # Errors
    /// [`SubjectError`].
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        let text = text.trim();
        let bare = text
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix('>'))
            .unwrap_or(text);
        if bare.is_empty() {
            return if text.is_empty() {
                Err(SubjectError::Empty)
            } else {
                Ok(Self::Null)
            };
        }
        if bare.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        if bare.contains('@') {
            let named = |source| SubjectError::Mailbox {
                text: bare.to_owned(),
                source,
            };
            return Mailbox::parse(bare).map(Self::Address).map_err(named);
        }
        match bare.parse() {
            Ok(IpAddr::V4(address)) => return Err(SubjectError::Ipv4(address)),
            Ok(IpAddr::V6(address)) => return Err(SubjectError::Ipv6(address)),
            Err(_) => {}
        }
        let name = bare.strip_suffix('.').unwrap_or(bare);
        Ok(Self::Host(Host::parse(name)?))
    }

    /// Returns the subject as the sender in MAIL FROM. For a domain, that is its postmaster. `ours`
    /// is our own postmaster.
    pub(super) fn reverse_path(&self, ours: &Mailbox) -> ReversePath {
        match self {
            Self::Null => ReversePath::Null,
            Self::Postmaster => ReversePath::Mailbox(ours.clone()),
            Self::Address(mailbox) => ReversePath::Mailbox(mailbox.clone()),
            // A local part before a valid host always makes a valid mailbox.
            Self::Host(host) => Mailbox::parse(&format!("postmaster@{host}"))
                .map_or(ReversePath::Null, ReversePath::Mailbox),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_domains_are_parsed_as_users_type_them() {
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
            ("", "neither an address nor a domain"),
            ("192.0.2.1", "write [192.0.2.1]"),
            ("2001:db8::1", "write [IPv6:2001:db8::1]"),
            ("a b", "\"a b\" is not a domain name"),
            ("bob@", "\"bob@\": "),
        ] {
            let error = Subject::parse(typed).expect_err(typed);
            assert!(error.to_string().contains(said), "{typed}: {error}");
        }
    }
}
