//! Domains, mailboxes and paths: the addresses of SMTP, parsed once and trusted afterwards.
//!
//! This is the grammar of RFC 5321 §4.1.2 with the additions of RFC 6531 §3.3 (UTF-8 in local parts
//! and U-labels in domains). It is not a rule about who may send where (see [`crate::access`]) and
//! it never asks DNS whether a domain exists.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// Octets in a path without its angle brackets, at most (RFC 5321 §4.5.3.1.3). A local part may be as long as that
/// leaves: the 64 octets of §4.5.3.1.1 are too few for addresses that carry another (VERP, SRS).
const PATH_MAX: usize = 254;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing stands where an address should.
    #[error("the address is empty")]
    Empty,
    /// There is no "@" outside quotes.
    #[error("there is no \"@domain\"")]
    NoDomain,
    /// The part before the "@" breaks RFC 5321's grammar.
    #[error("the part before the \"@\" is not a dot-atom or a quoted string")]
    LocalPart,
    /// The domain is not letters, digits, hyphens and underscores between dots, or a valid internationalised name.
    #[error("\"{0}\" is not a domain name")]
    Domain(String),
    /// The address literal is neither `[192.0.2.1]` nor `[IPv6:2001:db8::1]`.
    #[error("\"{0}\" is not an address literal")]
    Literal(String),
    /// The path is over 254 octets (RFC 5321 §4.5.3.1.3, RFC 3696 erratum 1690).
    #[error("the address is longer than 254 octets")]
    TooLong,
    /// A source route that does not follow RFC 5321 appendix C.
    #[error("the source route is malformed")]
    SourceRoute,
}

/// ASCII characters that stand in no domain name: all but letters, digits, hyphens, dots and underscores. Host names
/// have no underscore (RFC 1123 §2.1), but DNS does (RFC 2181 §11), and mail servers under such names exist.
const NOT_IN_DOMAINS: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// A domain name in A-label form, lower case, without the trailing dot (RFC 5890 §2.3.2.1).
///
/// Two spellings of one domain compare equal, because only one spelling is kept.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Parses a domain as people and programs write it: A-labels or U-labels, any case.
    ///
    /// # Errors
    /// [`AddressError::Domain`] where the text is not a host name (RFC 5321 §2.3.5: letters, digits
    /// and hyphens; here underscores as well; at most 63 octets a label and 253 in all).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::Domain(text.to_owned());
        let ascii = Uts46::new()
            .to_ascii(text.as_bytes(), NOT_IN_DOMAINS, Hyphens::CheckFirstLast, DnsLength::Verify)
            .map_err(|_| bad())?;
        // "1.2.3.4" is an address that lost its brackets, not a name (RFC 1123 §2.1).
        if ascii.parse::<Ipv4Addr>().is_ok() {
            return Err(bad());
        }
        Ok(Self(Arc::from(ascii.as_ref())))
    }

    /// The name in A-labels, lower case, no trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this domain lies below `ancestor`, at any depth. A domain is not below itself.
    #[must_use]
    pub fn is_below(&self, ancestor: &Self) -> bool {
        self.0.strip_suffix(&*ancestor.0).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// The name without its left-most label, where more than one label is left of it.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_once('.')?;
        Some(Self(Arc::from(rest)))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// What stands right of the "@": a domain, or an address literal (RFC 5321 §4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A domain name.
    Domain(Domain),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    Literal(IpAddr),
}

impl Host {
    /// Parses a domain or a bracketed address literal, as EHLO and mailboxes carry them.
    ///
    /// # Errors
    /// [`AddressError::Domain`] or [`AddressError::Literal`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let Some(inner) = text.strip_prefix('[') else {
            return Domain::parse(text).map(Self::Domain);
        };
        let bad = || AddressError::Literal(text.to_owned());
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        // A colon cannot stand in an IPv4 literal, so the tag alone tells the two apart.
        let tagged = inner.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let address = if tagged {
            inner[5..].parse::<Ipv6Addr>().map(IpAddr::V6)
        } else {
            inner.parse::<Ipv4Addr>().map(IpAddr::V4)
        };
        address.map(Self::Literal).map_err(|_| bad())
    }

    /// The domain, where it is one.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Domain(domain) => Some(domain),
            Self::Literal(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Literal(IpAddr::V4(address)) => write!(f, "[{address}]"),
            Self::Literal(IpAddr::V6(address)) => write!(f, "[IPv6:{address}]"),
        }
    }
}

/// A mailbox: local part and host (RFC 5321 §4.1.2). The local part is kept as it was written, for
/// only its own host may interpret it (RFC 5321 §2.3.11).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    local: Box<str>,
    host: Host,
}

impl Mailbox {
    /// Parses `local@host`, without angle brackets and without a source route.
    ///
    /// # Errors
    /// Any [`AddressError`] but [`AddressError::SourceRoute`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > PATH_MAX {
            return Err(AddressError::TooLong);
        }
        let mailbox = Self::parse_stored(text)?;
        // What is kept is what the next hop hears, and A-labels are longer than the U-labels that were written.
        if mailbox.to_string().len() > PATH_MAX { Err(AddressError::TooLong) } else { Ok(mailbox) }
    }

    /// Parses what was parsed before, and is kept, however long it is: a message that was accepted is not lost over it.
    fn parse_stored(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let end = local_part_end(text)?;
        let (local, rest) = text.split_at(end);
        let host = rest.strip_prefix('@').ok_or(AddressError::NoDomain)?;
        Ok(Self { local: local.into(), host: Host::parse(host)? })
    }

    /// The mailbox `<postmaster@domain>` of a domain (RFC 5321 §4.5.1).
    #[must_use]
    pub fn postmaster(domain: Domain) -> Self {
        Self { local: "postmaster".into(), host: Host::Domain(domain) }
    }

    /// The mailbox of a user of a host: `local` is of a [`ForwardPath::Local`].
    #[must_use]
    pub fn of_user(local: &str, domain: Domain) -> Self {
        Self { local: local.into(), host: Host::Domain(domain) }
    }

    /// The same local part at another host.
    #[must_use]
    pub fn with_host(self, host: Host) -> Self {
        Self { host, ..self }
    }

    /// The local part as it was written, quotes included.
    #[must_use]
    pub fn local_part(&self) -> &str {
        &self.local
    }

    /// What stands right of the "@".
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether the mailbox can be written without SMTPUTF8 (RFC 6531 §3.3). Domains always can, as
    /// A-labels; local parts cannot be converted.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.host)
    }
}

/// The end of the local part: at the "@" after a dot-string or a quoted string. Dots may stand anywhere in a dot-string,
/// for some providers have handed out `name.@` and `a..b@`, and other servers pass them on.
fn local_part_end(text: &str) -> Result<usize, AddressError> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut escaped = false;
        for (at, c) in quoted.char_indices() {
            match c {
                _ if escaped && (' '..='~').contains(&c) => escaped = false,
                _ if escaped => return Err(AddressError::LocalPart),
                '\\' => escaped = true,
                '"' => return Ok(at + 2),
                ' '..='~' => {}
                c if !c.is_ascii() && !c.is_control() => {}
                _ => return Err(AddressError::LocalPart),
            }
        }
        return Err(AddressError::LocalPart);
    }
    let end = text.find('@').ok_or(AddressError::NoDomain)?;
    let is_dot_string = end > 0 && text[..end].chars().all(|c| c == '.' || is_atext(c));
    if is_dot_string { Ok(end) } else { Err(AddressError::LocalPart) }
}

/// Checks that a text is a local part and nothing else, of a length that leaves room for a domain.
fn is_local_part(text: &str) -> bool {
    const LOCAL_MAX: usize = 64;
    let is_whole = |with_at: String| local_part_end(&with_at).is_ok_and(|end| end == text.len());
    !text.is_empty() && text.len() <= LOCAL_MAX && is_whole(format!("{text}@"))
}

/// RFC 5322 §3.2.3 atext, widened to UTF-8 by RFC 6531 §3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
}

/// The sender of a message as the envelope has it (RFC 5321 §3.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: a report about another message; it is never bounced (RFC 5321 §4.5.5).
    Null,
    /// A mailbox that reports can go to.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Parses what stands between the angle brackets of `MAIL FROM:<…>`.
    ///
    /// # Errors
    /// Any [`AddressError`]; a source route is read and dropped (RFC 5321 appendix C).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        Mailbox::parse(without_source_route(text)?).map(Self::Mailbox)
    }

    fn parse_stored(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::Null) } else { Mailbox::parse_stored(text).map(Self::Mailbox) }
    }

    /// The mailbox, unless the path is null.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// The sender's domain, where there is one.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        self.mailbox().and_then(|mailbox| mailbox.host().domain())
    }

    /// Whether the path can be written without SMTPUTF8.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_ascii)
    }
}

impl fmt::Display for ReversePath {
    /// Writes the path without angle brackets; the null path is empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// A recipient as `RCPT TO` names it (RFC 5321 §4.1.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain: ours, whatever our domains are (RFC 5321 §2.3.5).
    Postmaster,
    /// Any other local part without a domain: a user of the host that the client believes to speak to.
    Local(Box<str>),
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// Parses what stands between the angle brackets of `RCPT TO:<…>`.
    ///
    /// # Errors
    /// Any [`AddressError`]; a source route is read and dropped (RFC 5321 appendix C), so it can
    /// never be a way round the relay rules: the last mailbox alone counts.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        if is_local_part(text) {
            return Ok(Self::Local(text.into()));
        }
        Mailbox::parse(without_source_route(text)?).map(Self::Mailbox)
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Local(local) => f.write_str(local),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// Drops `@a,@b:` from the front of a path, after checking that it is one.
fn without_source_route(text: &str) -> Result<&str, AddressError> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    // A colon inside an IPv6 literal of the route would be cut short here: it then fails as a domain.
    let (route, rest) = text.split_once(':').ok_or(AddressError::SourceRoute)?;
    let at_domain = |hop: &str| hop.strip_prefix('@').is_some_and(|domain| Domain::parse(domain).is_ok());
    if route.split(',').all(at_domain) { Ok(rest) } else { Err(AddressError::SourceRoute) }
}

macro_rules! serde_as_text {
    ($($name:ident read by $read:ident),*) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::$read(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Domain read by parse, Mailbox read by parse_stored, ReversePath read by parse_stored, ForwardPath read by parse);
