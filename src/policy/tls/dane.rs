//! TLSA records, and the result of comparing a certificate with them (RFC 6698, RFC 7671, RFC
//! 7672).
//!
//! Only records that SMTP can use appear here: DANE-TA and DANE-EE. This module looks up and hashes
//! nothing.

use std::fmt;
use std::sync::Arc;

use super::names::any_of;
use super::{ChainFault, NamePattern};
use crate::smtp::address::Domain;

/// The certificate usage of a record (RFC 7671 §5). Usages 0 and 1 (PKIX) are unusable for SMTP
/// (RFC 7672 §3.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsaUsage {
    /// 2, DANE-TA: the record matches an authority above the peer's certificate.
    TrustAnchor,
    /// 3, DANE-EE: the record matches the peer's own certificate, whatever its names, dates and
    /// issuer.
    EndEntity,
}

/// The selector: the part of the certificate that a record matches (RFC 6698 §2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsaSelector {
    /// 0: the whole certificate.
    Certificate,
    /// 1: the `SubjectPublicKeyInfo`.
    PublicKey,
}

/// The matching type: the form of the association data (RFC 6698 §2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsaMatching {
    /// 0: the selected content itself.
    Full,
    /// 1: the SHA-256 of the content.
    Sha256,
    /// 2: the SHA-512 of the content.
    Sha512,
}

/// A usable TLSA record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// The certificate usage.
    pub usage: TlsaUsage,
    /// The selector.
    pub selector: TlsaSelector,
    /// The matching type.
    pub matching: TlsaMatching,
    /// The certificate association data.
    pub data: Vec<u8>,
}

impl fmt::Display for Tlsa {
    /// Writes the record as in a zone file: of the data the first eight octets, or all with `{:#}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = match self.usage {
            TlsaUsage::TrustAnchor => 2,
            TlsaUsage::EndEntity => 3,
        };
        let selector = match self.selector {
            TlsaSelector::Certificate => 0,
            TlsaSelector::PublicKey => 1,
        };
        let matching = match self.matching {
            TlsaMatching::Full => 0,
            TlsaMatching::Sha256 => 1,
            TlsaMatching::Sha512 => 2,
        };
        write!(f, "{usage} {selector} {matching} ")?;
        let shown = if f.alternate() { self.data.len() } else { 8 };
        for octet in self.data.iter().take(shown) {
            write!(f, "{octet:02x}")?;
        }
        if self.data.len() > shown {
            f.write_str("…")
        } else {
            Ok(())
        }
    }
}

/// The identity that a TLSA record proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DaneScope {
    /// The recipient domain: DNSSEC secures the MX records as well.
    Domain,
    /// The host alone: the MX records that name it are not signed (RFC 7672 §2.2.1).
    Host,
}

/// The usable TLSA records of a host; all are secure, and there is at least one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsaSet {
    /// The TLSA base domain, under which the records were found.
    pub base: Domain,
    /// The records, after digest algorithm agility (RFC 7671 §9).
    pub records: Vec<Tlsa>,
    /// The reference identifiers: a certificate under a DANE-TA record must carry one of them (RFC
    /// 7672 §3.2.2).
    pub names: Vec<NamePattern>,
    /// The identity that the records prove.
    pub scope: DaneScope,
}

/// The result of comparing a certificate with TLSA records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaneFacts {
    /// There were no records to compare with.
    NotChecked,
    /// The certificate was compared with these records.
    Checked {
        /// The records.
        records: Arc<TlsaSet>,
        /// The record that matches, or the reason why none does.
        result: Result<Tlsa, DaneFault>,
    },
}

/// The reason why no TLSA record matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaneFault {
    /// The certificate was not compared with these records, because the handshake is older than
    /// they are.
    NotChecked,
    /// No record matches this certificate or an authority above it.
    NoMatch {
        /// The number of records.
        records: usize,
    },
    /// A record matches an authority, but no valid path leads to it.
    Path(ChainFault),
    /// A valid path leads to the authority, but the certificate carries none of the names.
    Name {
        /// The accepted names.
        wanted: Vec<NamePattern>,
        /// The names in the certificate.
        presented: Vec<NamePattern>,
    },
}

impl fmt::Display for DaneFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotChecked => {
                f.write_str("the certificate was shown before these TLSA records were known")
            }
            Self::NoMatch { records: 1 } => {
                f.write_str("the certificate is not the one that the TLSA record names")
            }
            Self::NoMatch { records } => write!(
                f,
                "none of the {records} TLSA records names the certificate"
            ),
            Self::Path(fault) => write!(
                f,
                "no path leads to the authority that a TLSA record names: {fault}"
            ),
            Self::Name { wanted, presented } if presented.is_empty() => {
                write!(
                    f,
                    "the certificate has no DNS name at all ({} was wanted)",
                    any_of(wanted)
                )
            }
            Self::Name { wanted, presented } => {
                write!(
                    f,
                    "the certificate is for {}, not for {}",
                    any_of(presented),
                    any_of(wanted)
                )
            }
        }
    }
}
