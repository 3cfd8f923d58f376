//! The policy body (RFC 8461 §3.2) and the comparison of an MX host with it (§4.1). No clock, no
//! I/O.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::record::{PolicyId, is_name};
use crate::policy::tls::NamePattern;
use crate::smtp::address::Domain;

/// The maximum size of a policy in octets (RFC 8461 §3.3).
pub(super) const BODY_MAX: usize = 64 * 1024;
/// The maximum `max_age` in seconds, about a year (RFC 8461 §3.2).
const MAX_AGE_MAX: u32 = 31_557_600;
/// The maximum length of a quotation in an error.
const QUOTED: usize = 60;

/// The mode of a policy: the treatment of mail when no MX host satisfies the policy.
// Rule: RFC 8461 §3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MtaStsMode {
    /// The mail must not be delivered.
    Enforce,
    /// The mail is delivered, and the failure is reported if the domain wants reports (RFC 8460).
    Testing,
    /// The domain has withdrawn its policy.
    None,
}

impl MtaStsMode {
    /// Returns the mode as written in a policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Testing, Self::None]
            .into_iter()
            .find(|mode| mode.as_str() == text)
    }
}

impl fmt::Display for MtaStsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// The text is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// The text is longer than 64 KiB.
    #[error("it is longer than {BODY_MAX} octets")]
    TooLong,
    /// A line does not have the form `name: value`.
    #[error("line {line} is not \"name: value\": {text:?}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// The beginning of the line.
        text: String,
    },
    /// A field has an invalid value.
    #[error("line {line} has no valid value for \"{field}\": {value:?}")]
    Value {
        /// The number of the line, from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// The beginning of the value.
        value: String,
    },
    /// This field is missing.
    #[error("it has no \"{0}\"")]
    Missing(&'static str),
}

/// The content of a policy.
// Rule: RFC 8461 §3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyTerms {
    pub(super) mode: MtaStsMode,
    pub(super) mx: Vec<MxLine>,
    pub(super) max_age: u32,
}

/// The value of an `mx` line.
// Rule: RFC 8461 §3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MxLine {
    /// A host name, or "*." and a domain name.
    Pattern(NamePattern),
    /// An invalid value, such as an address, a name with a final dot or a U-label. It matches no
    /// host; the other lines still count.
    Unusable(String),
}

impl MxLine {
    fn parse(value: &str) -> Self {
        // Names must be in A-labels.
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
    /// Parses a policy body. Lines end with LF or CRLF, and empty lines are skipped, since some
    /// hosts send them. Of a repeated field other than `mx` the first counts. Unknown fields are
    /// ignored.
    pub(super) fn parse(body: &[u8]) -> Result<Self, PolicyFault> {
        if body.len() > BODY_MAX {
            return Err(PolicyFault::TooLong);
        }
        let text = std::str::from_utf8(body).map_err(|_| PolicyFault::NotUtf8)?;
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for (line, text) in (1..).zip(text.split('\n')) {
            let text = text
                .strip_suffix('\r')
                .unwrap_or(text)
                .trim_end_matches([' ', '\t']);
            if text.is_empty() {
                continue;
            }
            let malformed = || PolicyFault::Line {
                line,
                text: quoted(text),
            };
            let (name, value) = text.split_once(':').ok_or_else(malformed)?;
            if !is_name(name) || value.chars().any(|c| c.is_control() && c != '\t') {
                return Err(malformed());
            }
            let value = value.trim_matches([' ', '\t']);
            let bad = |field| PolicyFault::Value {
                line,
                field,
                value: quoted(value),
            };
            match name {
                "version" if version.is_none() => {
                    version = Some(
                        Some(value)
                            .filter(|value| *value == "STSv1")
                            .ok_or_else(|| bad("version"))?,
                    );
                }
                "mode" if mode.is_none() => {
                    mode = Some(MtaStsMode::parse(value).ok_or_else(|| bad("mode"))?);
                }
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
            MtaStsMode::Enforce | MtaStsMode::Testing if mx.is_empty() => Err(missing("mx")),
            MtaStsMode::Enforce | MtaStsMode::Testing | MtaStsMode::None => {
                Ok(Self { mode, mx, max_age })
            }
        }
    }

    /// Returns the fields that have a meaning here, as lines of a policy.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {}", self.mode)];
        lines.extend(self.mx.iter().map(|mx| format!("mx: {mx}")));
        lines.push(format!("max_age: {}", self.max_age));
        lines
    }
}

fn parse_max_age(value: &str) -> Option<u32> {
    let digits =
        (1..=10).contains(&value.len()) && value.bytes().all(|octet| octet.is_ascii_digit());
    // A larger value is invalid. RFC 8461 does not allow replacing it by the maximum.
    value
        .parse()
        .ok()
        .filter(|age| digits && *age <= MAX_AGE_MAX)
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

/// A policy as fetched from a domain.
// Rule: RFC 8461 §3.4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MtaStsPolicy {
    pub(super) domain: Domain,
    pub(super) id: PolicyId,
    pub(super) terms: PolicyTerms,
    pub(super) fetched: Timestamp,
}

impl MtaStsPolicy {
    /// Creates a policy from stored [`lines`](Self::lines), id and time of fetching; `None` if they
    /// are invalid.
    #[must_use]
    pub fn from_parts(domain: Domain, id: &str, lines: &str, fetched: Timestamp) -> Option<Self> {
        Some(Self {
            domain,
            id: PolicyId::parse(id)?,
            terms: PolicyTerms::parse(lines.as_bytes()).ok()?,
            fetched,
        })
    }

    /// Returns the policy domain: the recipient domain, or the smart host's own name (RFC 8461
    /// §3.4).
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Returns the id that the domain's TXT record had when the policy was fetched.
    #[must_use]
    pub fn id(&self) -> &PolicyId {
        &self.id
    }

    /// Returns the mode.
    #[must_use]
    pub fn mode(&self) -> MtaStsMode {
        self.terms.mode
    }

    /// Returns the MX patterns, without invalid `mx` lines.
    pub fn mx(&self) -> impl Iterator<Item = &NamePattern> {
        self.terms.mx.iter().filter_map(MxLine::pattern)
    }

    /// Returns all `mx` values as written, for `mx-host` of a TLS report (RFC 8460 §4.2).
    #[must_use]
    pub fn mx_lines(&self) -> Vec<String> {
        self.terms.mx.iter().map(ToString::to_string).collect()
    }

    /// Returns the time for which the policy may be cached after it was fetched.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(self.terms.max_age.into())
    }

    /// Returns the time of fetching.
    #[must_use]
    pub fn fetched(&self) -> Timestamp {
        self.fetched
    }

    /// Returns the time at which the policy expires.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.fetched
            .checked_add(SignedDuration::from_secs(self.terms.max_age.into()))
            .unwrap_or(Timestamp::MAX)
    }

    /// Returns the lines that have a meaning here, for `policy-string` of a TLS report (RFC 8460
    /// §4.2).
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.terms.lines()
    }

    /// Returns the approximate memory size in octets.
    pub(super) fn weight(&self) -> usize {
        self.terms.mx.iter().map(MxLine::weight).sum::<usize>() + 256
    }
}

/// Parses the body of a policy, for the fuzzer.
///
/// # Errors
/// [`PolicyFault`].
#[cfg(fuzzing)]
pub fn fuzzed(domain: Domain, id: PolicyId, body: &[u8]) -> Result<MtaStsPolicy, PolicyFault> {
    Ok(MtaStsPolicy {
        domain,
        id,
        terms: PolicyTerms::parse(body)?,
        fetched: Timestamp::UNIX_EPOCH,
    })
}

/// The result of comparing a host with a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// A pattern of the policy matches the host. Mail may go there under TLS with a trusted
    /// certificate for its name.
    Listed,
    /// No pattern matches the host.
    NotListed,
}

/// Compares an MX host with the patterns of a policy (RFC 8461 §4.1). "*" stands for exactly one
/// label.
///
/// The consequence depends on [`MtaStsPolicy::mode`].
#[must_use]
pub fn evaluate(policy: &MtaStsPolicy, mx: &Domain) -> Listing {
    let host = NamePattern::Exact(mx.clone());
    if policy.mx().any(|pattern| pattern.accepts(&host)) {
        Listing::Listed
    } else {
        Listing::NotListed
    }
}

#[cfg(test)]
mod tests;
