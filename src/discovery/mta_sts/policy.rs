//! The policy body (RFC 8461 §3.2) and what it says of an MX host (§4.1). No clock, no I/O.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::record::{PolicyId, is_name};
use crate::address::Domain;
use crate::tls::NamePattern;

/// Octets of a policy, at most (RFC 8461 §3.3).
pub(super) const BODY_MAX: usize = 64 * 1024;
/// Seconds that a policy may be kept, at most: about a year.
const MAX_AGE_MAX: u32 = 31_557_600;
/// Characters of a policy that an error quotes, at most.
const QUOTED: usize = 60;

/// What a domain wants done with mail that meets no valid MX host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StsMode {
    /// It must not be delivered there.
    Enforce,
    /// It is delivered, and reported where the domain wants reports (RFC 8460).
    Testing,
    /// There is no policy any more.
    None,
}

impl StsMode {
    /// As the policy has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Testing, Self::None].into_iter().find(|mode| mode.as_str() == text)
    }
}

impl fmt::Display for StsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// It is over 64 KiB.
    #[error("it is longer than {BODY_MAX} octets")]
    TooLong,
    /// A line is not `name: value`.
    #[error("line {line} is not \"name: value\": {text:?}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// A field has a value that it cannot have.
    #[error("line {line} has no valid value for \"{field}\": {value:?}")]
    Value {
        /// Which, from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// The beginning of its value.
        value: String,
    },
    /// A field is missing.
    #[error("it has no \"{0}\"")]
    Missing(&'static str),
}

/// The terms of a policy, wherever they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyTerms {
    pub(super) mode: StsMode,
    pub(super) mx: Vec<MxLine>,
    pub(super) max_age: u32,
}

/// The value of one `mx` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MxLine {
    /// `["*."] Domain`.
    Pattern(NamePattern),
    /// Anything else (an address, a name with a final dot, a U-label): it matches no host, and the other lines
    /// count all the same.
    Unusable(String),
}

impl MxLine {
    fn parse(value: &str) -> Self {
        // In A-labels; a U-label has no place there.
        match value.is_ascii().then(|| NamePattern::parse(value)) {
            Some(Ok(pattern)) => Self::Pattern(pattern),
            Some(Err(_)) | None => Self::Unusable(value.to_owned()),
        }
    }

    fn pattern(&self) -> Option<&NamePattern> {
        match self {
            Self::Pattern(pattern) => Some(pattern),
            Self::Unusable(_) => None,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Pattern(_) => 96,
            Self::Unusable(value) => 96 + value.len(),
        }
    }
}

impl fmt::Display for MxLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => pattern.fmt(f),
            Self::Unusable(value) => f.write_str(value),
        }
    }
}

impl PolicyTerms {
    /// Parses a policy body. Lines end with LF or CRLF, and empty ones are passed over, as some hosts
    /// send them; of a field that may stand once the first counts; unknown fields are ignored.
    pub(super) fn parse(body: &[u8]) -> Result<Self, PolicyFault> {
        if body.len() > BODY_MAX {
            return Err(PolicyFault::TooLong);
        }
        let text = std::str::from_utf8(body).map_err(|_| PolicyFault::NotUtf8)?;
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for (line, text) in (1..).zip(text.split('\n')) {
            let text = text.strip_suffix('\r').unwrap_or(text).trim_end_matches([' ', '\t']);
            if text.is_empty() {
                continue;
            }
            let malformed = || PolicyFault::Line { line, text: quoted(text) };
            let (name, value) = text.split_once(':').ok_or_else(malformed)?;
            if !is_name(name) || value.chars().any(|c| c.is_control() && c != '\t') {
                return Err(malformed());
            }
            let value = value.trim_matches([' ', '\t']);
            let bad = |field| PolicyFault::Value { line, field, value: quoted(value) };
            match name {
                "version" if version.is_none() => {
                    version = Some(Some(value).filter(|value| *value == "STSv1").ok_or_else(|| bad("version"))?);
                }
                "mode" if mode.is_none() => mode = Some(StsMode::parse(value).ok_or_else(|| bad("mode"))?),
                "max_age" if max_age.is_none() => {
                    max_age = Some(parse_max_age(value).ok_or_else(|| bad("max_age"))?);
                }
                "mx" => mx.push(MxLine::parse(value)),
                _ => {}
            }
        }
        let missing = PolicyFault::Missing;
        version.ok_or(missing("version"))?;
        let mode = mode.ok_or(missing("mode"))?;
        let max_age = max_age.ok_or(missing("max_age"))?;
        match mode {
            StsMode::Enforce | StsMode::Testing if mx.is_empty() => Err(missing("mx")),
            StsMode::Enforce | StsMode::Testing | StsMode::None => Ok(Self { mode, mx, max_age }),
        }
    }

    /// The terms as a policy has them, one a line.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {}", self.mode)];
        lines.extend(self.mx.iter().map(|mx| format!("mx: {mx}")));
        lines.push(format!("max_age: {}", self.max_age));
        lines
    }
}

fn parse_max_age(value: &str) -> Option<u32> {
    let digits = (1..=10).contains(&value.len()) && value.bytes().all(|octet| octet.is_ascii_digit());
    // What is over the greatest value is no value: the standard leaves no room to guess a lower one.
    value.parse().ok().filter(|age| digits && *age <= MAX_AGE_MAX)
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

/// A policy that a domain published, as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StsPolicy {
    pub(super) domain: Domain,
    pub(super) id: PolicyId,
    pub(super) terms: PolicyTerms,
    pub(super) fetched: Timestamp,
}

impl StsPolicy {
    /// A policy that was fetched then, from its [`lines`](Self::lines) and its id as somebody wrote them down;
    /// nothing where they make no sense.
    #[must_use]
    pub fn from_parts(domain: Domain, id: &str, lines: &str, fetched: Timestamp) -> Option<Self> {
        Some(Self { domain, id: PolicyId::parse(id)?, terms: PolicyTerms::parse(lines.as_bytes()).ok()?, fetched })
    }

    /// The policy domain: the recipient domain, or the smart host's own name (RFC 8461 §3.4).
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The id that the domain's TXT record had when the policy was fetched.
    #[must_use]
    pub fn id(&self) -> &PolicyId {
        &self.id
    }

    /// What the domain wants.
    #[must_use]
    pub fn mode(&self) -> StsMode {
        self.terms.mode
    }

    /// The hosts that may take its mail: of its `mx` lines, those that can be used.
    pub fn mx(&self) -> impl Iterator<Item = &NamePattern> {
        self.terms.mx.iter().filter_map(MxLine::pattern)
    }

    /// All of its `mx` lines as they were written, for `mx-host` of a TLS report (RFC 8460 §4.2).
    #[must_use]
    pub fn mx_lines(&self) -> Vec<String> {
        self.terms.mx.iter().map(ToString::to_string).collect()
    }

    /// How long it may be kept after it was fetched.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(self.terms.max_age.into())
    }

    /// When it was fetched.
    #[must_use]
    pub fn fetched(&self) -> Timestamp {
        self.fetched
    }

    /// Until when it counts.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.fetched.checked_add(SignedDuration::from_secs(self.terms.max_age.into())).unwrap_or(Timestamp::MAX)
    }

    /// Its lines, for `policy-string` of a TLS report (RFC 8460 §4.2): those that mean something here.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.terms.lines()
    }

    /// Octets that it takes up in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        self.terms.mx.iter().map(MxLine::weight).sum::<usize>() + 256
    }
}

/// Reads the body of a policy for the fuzzer, as it comes from a web server.
///
/// # Errors
/// [`PolicyFault`].
#[cfg(fuzzing)]
pub fn fuzzed(domain: Domain, id: PolicyId, body: &[u8]) -> Result<StsPolicy, PolicyFault> {
    Ok(StsPolicy { domain, id, terms: PolicyTerms::parse(body)?, fetched: Timestamp::UNIX_EPOCH })
}

/// Whether a policy lists a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// It does: mail may go there, provided that its certificate is trusted and carries its name.
    Listed,
    /// It does not.
    NotListed,
}

/// Whether a policy lists an MX host (RFC 8461 §4.1): "*" stands for exactly one label.
///
/// What follows from it is for the caller, by [`StsPolicy::mode`].
#[must_use]
pub fn evaluate(policy: &StsPolicy, mx: &Domain) -> Listing {
    let host = NamePattern::Exact(mx.clone());
    if policy.mx().any(|pattern| pattern.accepts(&host)) { Listing::Listed } else { Listing::NotListed }
}

#[cfg(test)]
mod tests;
