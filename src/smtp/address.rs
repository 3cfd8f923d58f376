//! SMTP addresses: domains, mailboxes and paths, parsed once and valid from then on.
//!
//! The grammar is RFC 5321 §4.1.2 with RFC 6531 §3.3 (UTF-8 in local parts, U-labels in domains).
//! Relay access is decided in [`crate::policy::relay_access`]. This module never asks DNS whether a
//! domain exists.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// The most octets in a path without its angle brackets (RFC 5321 §4.5.3.1.3). The local part may
/// use all that the domain leaves: the 64 octets of §4.5.3.1.1 are too few for addresses that
/// contain another (VERP, SRS).
// Rule: RFC 5321 §4.5.3.1.1.
const PATH_MAX: usize = 254;

/// The reason why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The address is empty.
    #[error("the address is empty")]
    Empty,
    /// There is no "@" outside quotes.
    #[error("there is no \"@domain\"")]
    NoDomain,
    /// The part before the "@" violates the grammar of RFC 5321.
    #[error("the part before the \"@\" is not a dot-atom or a quoted string")]
    LocalPart,
    /// The domain is neither letters, digits, hyphens and underscores between dots, nor a valid
    /// internationalised name.
    #[error("\"{0}\" is not a domain name")]
    Domain(String),
    /// The address literal is neither `[192.0.2.1]` nor `[IPv6:2001:db8::1]`.
    #[error("\"{0}\" is not an address literal")]
    Literal(String),
    /// The path is longer than 254 octets (RFC 5321 §4.5.3.1.3, RFC 3696 erratum 1690).
    #[error("the address is longer than 254 octets")]
    TooLong,
    /// The source route violates RFC 5321 appendix C.
    #[error("the source route is malformed")]
    SourceRoute,
}

/// The ASCII characters that a domain name cannot contain: all but letters, digits, hyphens, dots
/// and underscores. Host names have no underscore (RFC 1123 §2.1), but DNS names may (RFC 2181
/// §11), and some mail servers have such names.
const NOT_IN_DOMAINS: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// A domain name as A-labels, in lower case, without a trailing dot (RFC 5890 §2.3.2.1).
///
/// All spellings of one domain compare equal, because only this form is stored.
// Rule: RFC 5321 §2.3.5, §4.1.2, §4.5.3.1.2; RFC 9525 §7.3.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Parses a domain, written in A-labels or U-labels and in any case.
    ///
    /// # Errors
    /// [`AddressError::Domain`] if the text is not a host name (RFC 5321 §2.3.5: letters, digits
    /// and hyphens, and here underscores; at most 63 octets in a label and 253 in all).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::Domain(text.to_owned());
        let ascii = Uts46::new()
            .to_ascii(
                text.as_bytes(),
                NOT_IN_DOMAINS,
                Hyphens::CheckFirstLast,
                DnsLength::Verify,
            )
            .map_err(|_| bad())?;
        // "1.2.3.4" is an address without its brackets, not a name (RFC 1123 §2.1).
        if ascii.parse::<Ipv4Addr>().is_ok() {
            return Err(bad());
        }
        Ok(Self(Arc::from(ascii.as_ref())))
    }

    /// The name as A-labels, in lower case, without a trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if this domain is below `ancestor`, at any depth. A domain is not below itself.
    #[must_use]
    pub fn is_below(&self, ancestor: &Self) -> bool {
        self.0
            .strip_suffix(&*ancestor.0)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// The name without its left-most label; `None` if it has only one.
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

/// The host part of an address: a domain, or an address literal (RFC 5321 §4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A domain name.
    Domain(Domain),
    /// An address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    Literal(IpAddr),
}

impl Host {
    /// Parses a domain or a bracketed address literal, as in EHLO and in mailboxes.
    ///
    /// # Errors
    /// [`AddressError::Domain`] or [`AddressError::Literal`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let Some(inner) = text.strip_prefix('[') else {
            return Domain::parse(text).map(Self::Domain);
        };
        let bad = || AddressError::Literal(text.to_owned());
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        // An IPv4 literal contains no colon, so the tag alone distinguishes the two.
        let tagged = inner
            .get(..5)
            .is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let address = if tagged {
            inner[5..].parse::<Ipv6Addr>().map(IpAddr::V6)
        } else {
            inner.parse::<Ipv4Addr>().map(IpAddr::V4)
        };
        address.map(Self::Literal).map_err(|_| bad())
    }

    /// Returns the number of octets of the host as it is displayed.
    fn octets(&self) -> usize {
        match self {
            Self::Domain(domain) => domain.as_str().len(),
            Self::Literal(_) => self.to_string().len(),
        }
    }

    /// The domain, unless the host is an address literal.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Domain(domain) => Some(domain),
            Self::Literal(_) => None,
        }
    }

    /// Returns true for an address of this machine, and for `localhost` and names below it, which
    /// stand for this machine (RFC 6761 §6.3).
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Domain(domain) => {
                let name = domain.as_str();
                name == "localhost" || name.ends_with(".localhost")
            }
            Self::Literal(address) => address.to_canonical().is_loopback(),
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

/// A mailbox: local part and host (RFC 5321 §4.1.2). The local part stays as written, because only
/// its own host may interpret it (RFC 5321 §2.3.11).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    local: Box<str>,
    host: Host,
}

impl Mailbox {
    /// Parses `local@host`, without angle brackets and without a source route.
    ///
    /// # Errors
    /// Any [`AddressError`] except [`AddressError::SourceRoute`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > PATH_MAX {
            return Err(AddressError::TooLong);
        }
        let mailbox = Self::parse_stored(text)?;
        // The limit applies to the stored form, which is sent to the next hop: A-labels are longer
        // than U-labels.
        if mailbox.local.len() + 1 + mailbox.host.octets() > PATH_MAX {
            Err(AddressError::TooLong)
        } else {
            Ok(mailbox)
        }
    }

    /// Parses a stored mailbox, whatever its length, so that no accepted message becomes
    /// unreadable.
    fn parse_stored(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let end = local_part_end(text)?;
        let (local, rest) = text.split_at(end);
        let host = rest.strip_prefix('@').ok_or(AddressError::NoDomain)?;
        Ok(Self {
            local: local.into(),
            host: Host::parse(host)?,
        })
    }

    /// The mailbox `<postmaster@domain>` of a domain (RFC 5321 §4.5.1).
    #[must_use]
    pub fn postmaster(domain: Domain) -> Self {
        Self {
            local: "postmaster".into(),
            host: Host::Domain(domain),
        }
    }

    /// The mailbox of a user of a host; `local` comes from a [`ForwardPath::Local`].
    #[must_use]
    pub fn of_user(local: &str, domain: Domain) -> Self {
        Self {
            local: local.into(),
            host: Host::Domain(domain),
        }
    }

    /// Returns the same local part at another host.
    #[must_use]
    pub fn with_host(self, host: Host) -> Self {
        Self { host, ..self }
    }

    /// The local part as written, with its quotes.
    #[must_use]
    pub fn local_part(&self) -> &str {
        &self.local
    }

    /// Returns the mailbox without its plus-tag: `user@` for `user+tag@`; `None` if it has none.
    #[must_use]
    pub fn without_tag(&self) -> Option<Self> {
        let (user, _) = self.local.split_once('+')?;
        let is_bare = !user.is_empty() && !user.starts_with('"');
        is_bare.then(|| Self {
            local: user.into(),
            host: self.host.clone(),
        })
    }

    /// The host part, after the "@".
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns true if the mailbox can be sent without SMTPUTF8 (RFC 6531 §3.3). Domains always
    /// can, as A-labels; local parts cannot be converted.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.local)?;
        f.write_str("@")?;
        self.host.fmt(f)
    }
}

/// Returns the position of the "@" after the local part, which is a dot-string or a quoted string.
/// Dots may be anywhere in a dot-string, since some providers assigned addresses such as `name.@`
/// and `a..b@`, and other servers relay them.
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
    if is_dot_string {
        Ok(end)
    } else {
        Err(AddressError::LocalPart)
    }
}

/// Returns true if the text is a local part alone, short enough to leave room for a domain.
fn is_local_part(text: &str) -> bool {
    const LOCAL_MAX: usize = 64;
    if text.is_empty() || text.len() > LOCAL_MAX {
        return false;
    }
    if text.starts_with('"') {
        return local_part_end(&format!("{text}@")).is_ok_and(|end| end == text.len());
    }
    text.chars().all(|c| c == '.' || is_atext(c))
}

/// Returns true for atext of RFC 5322 §3.2.3, extended to UTF-8 by RFC 6531 §3.3.
fn is_atext(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => true,
        '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^' | '_'
        | '`' | '{' | '|' | '}' | '~' => true,
        c => !c.is_ascii() && !c.is_control() && !c.is_whitespace(),
    }
}

/// The sender in the envelope (RFC 5321 §3.3).
// Rule: RFC 5321 §4.1.1.2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// The null sender `<>`, of a report about another message; such mail never bounces (RFC 5321
    /// §4.5.5).
    Null,
    /// The mailbox that reports go to.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Parses the text between the angle brackets of `MAIL FROM:<…>`.
    ///
    /// # Errors
    /// Any [`AddressError`]. A source route is checked and dropped (RFC 5321 appendix C).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        Mailbox::parse(without_source_route(text)?).map(Self::Mailbox)
    }

    fn parse_stored(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            Ok(Self::Null)
        } else {
            Mailbox::parse_stored(text).map(Self::Mailbox)
        }
    }

    /// The mailbox; `None` for the null sender.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// The sender's domain, if it has one.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        self.mailbox().and_then(|mailbox| mailbox.host().domain())
    }

    /// Returns true if the path can be sent without SMTPUTF8.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_ascii)
    }
}

impl fmt::Display for ReversePath {
    /// Writes the path without angle brackets; the null sender is empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// A recipient in RCPT TO (RFC 5321 §4.1.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain: ours, whatever our domains are (RFC 5321 §2.3.5).
    Postmaster,
    /// Any other local part without a domain: a user of the host to which the client believes it is
    /// connected.
    Local(Box<str>),
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// Parses the text between the angle brackets of `RCPT TO:<…>`.
    ///
    /// # Errors
    /// Any [`AddressError`]. A source route is checked and dropped (RFC 5321 appendix C), so it can
    /// never bypass relay access: only the last mailbox counts.
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

/// Removes a source route `@a,@b:` from the front of a path, after checking its syntax.
// Rule: RFC 5321 §4.1.1.3.
fn without_source_route(text: &str) -> Result<&str, AddressError> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    // A colon inside an IPv6 literal of the route ends it too early; it then fails as a domain.
    let (route, rest) = text.split_once(':').ok_or(AddressError::SourceRoute)?;
    let at_domain = |hop: &str| {
        hop.strip_prefix('@')
            .is_some_and(|domain| Domain::parse(domain).is_ok())
    };
    if route.split(',').all(at_domain) {
        Ok(rest)
    } else {
        Err(AddressError::SourceRoute)
    }
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
serde_as_text!(
    Domain read by parse, Mailbox read by parse_stored, ReversePath read by parse_stored, ForwardPath read by parse
);
