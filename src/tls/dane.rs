//! TLSA records as values, and what comes of holding a certificate against them (RFC 6698, RFC 7671,
//! RFC 7672).
//!
//! Only records that SMTP can use get this far: DANE-TA and DANE-EE. Nothing is looked up or hashed here.

use std::fmt;
use std::sync::Arc;

use super::names::any_of;
use super::{ChainFault, NamePattern};
use crate::address::Domain;

/// Certificate usage (RFC 7671 §5). The PKIX usages, 0 and 1, mean nothing to SMTP (RFC 7672 §3.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsaUsage {
    /// 2, DANE-TA: an authority, above the peer's certificate.
    TrustAnchor,
    /// 3, DANE-EE: the peer's own certificate, whatever its names, dates and issuer.
    EndEntity,
}

/// Selector: what the record is about (RFC 6698 §2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsaSelector {
    /// 0: the whole certificate.
    Certificate,
    /// 1: the `SubjectPublicKeyInfo`.
    PublicKey,
}

/// Matching type: how it is written down (RFC 6698 §2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsaMatching {
    /// 0: in full.
    Full,
    /// 1: its SHA-256.
    Sha256,
    /// 2: its SHA-512.
    Sha512,
}

/// One usable TLSA record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// Whose certificate.
    pub usage: TlsaUsage,
    /// What of it.
    pub selector: TlsaSelector,
    /// How it is written down.
    pub matching: TlsaMatching,
    /// The certificate association data.
    pub data: Vec<u8>,
}

impl fmt::Display for Tlsa {
    /// As in a zone file; of long data, the beginning, unless `{:#}` asks for all of it.
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
        if self.data.len() > shown { f.write_str("…") } else { Ok(()) }
    }
}

/// For whom a TLSA record vouches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DaneScope {
    /// For the recipient domain: DNSSEC secures the way from it to the host as well.
    Domain,
    /// For the host alone: the MX records that name it are not signed (RFC 7672 §2.2.1).
    Host,
}

/// The usable TLSA records of one host; at least one, all secure.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsaSet {
    /// The TLSA base domain, under which they were found.
    pub base: Domain,
    /// The records, after digest agility (RFC 7671 §9).
    pub records: Vec<Tlsa>,
    /// The names of which a certificate under a DANE-TA record must carry one (RFC 7672 §3.2.2).
    pub names: Vec<NamePattern>,
    /// For whom they vouch.
    pub scope: DaneScope,
}

/// What came of holding a certificate against TLSA records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaneFacts {
    /// There were none to hold it against.
    NotChecked,
    /// It was held against these.
    Checked {
        /// The records.
        records: Arc<TlsaSet>,
        /// The one that matches, or why none does.
        result: Result<Tlsa, DaneFault>,
    },
}

/// Why no TLSA record matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaneFault {
    /// The certificate was not held against these records: the handshake is older than they are.
    NotChecked,
    /// No record names this certificate or an authority above it.
    NoMatch {
        /// How many records there are.
        records: usize,
    },
    /// A record names an authority that was sent along, and no valid path leads to it.
    Path(ChainFault),
    /// The path to the authority is good, but the certificate carries none of the names.
    Name {
        /// Any of these would have done.
        wanted: Vec<NamePattern>,
        /// These are there.
        presented: Vec<NamePattern>,
    },
}

impl fmt::Display for DaneFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotChecked => f.write_str("the certificate was shown before these TLSA records were known"),
            Self::NoMatch { records: 1 } => f.write_str("the certificate is not the one that the TLSA record names"),
            Self::NoMatch { records } => write!(f, "none of the {records} TLSA records names the certificate"),
            Self::Path(fault) => write!(f, "no path leads to the authority that a TLSA record names: {fault}"),
            Self::Name { wanted, presented } if presented.is_empty() => {
                write!(f, "the certificate has no DNS name at all ({} was wanted)", any_of(wanted))
            }
            Self::Name { wanted, presented } => {
                write!(f, "the certificate is for {}, not for {}", any_of(presented), any_of(wanted))
            }
        }
    }
}
