//! The one TLS judge: does what a handshake reached satisfy what a policy demands?
//!
//! Pure decisions over facts. The facts are gathered by [`crate::handshake`], the policies come from
//! [`crate::connector`]; both directions, every command and every report ask [`judge`] and nobody
//! else. Only this module can make a [`Clearance`] or a [`Fallback`].
//!
//! Names are matched as RFC 9525 §6 says: DNS SANs only, never the common name.

mod facts;
mod names;
#[cfg(test)]
mod tests;

use std::fmt;

pub use facts::{CertificateFacts, ChainFault, NoTls, Presented, TlsFacts, TlsOutcome, TlsVersion};
pub use names::NamePattern;
use names::any_of;

use crate::smtp::reply::Status;

/// What is demanded of a session before mail crosses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsPolicy {
    /// TLS is not even tried.
    Off,
    /// TLS where it can be had, clear text otherwise.
    Opportunistic,
    /// TLS that meets the demand, or nothing.
    Forced(Demand),
}

/// What a forced policy wants of the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The oldest version that will do.
    pub min_version: TlsVersion,
    /// How the peer must prove who it is.
    pub verify: Verify,
}

/// How a peer must prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// Encrypted, whoever answers.
    None,
    /// A certificate under a trusted authority, whatever its name.
    Chain,
    /// A certificate under a trusted authority that carries one of these names.
    Name(Vec<NamePattern>),
}

impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("no TLS"),
            Self::Opportunistic => f.write_str("TLS if offered"),
            Self::Forced(demand) => demand.fmt(f),
        }
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min_version {
            TlsVersion::V1_2 => f.write_str("TLS")?,
            version @ TlsVersion::V1_3 => write!(f, "{version}")?,
        }
        match &self.verify {
            Verify::None => Ok(()),
            Verify::Chain => f.write_str(" with a trusted certificate"),
            Verify::Name(names) => write!(f, " with a trusted certificate for {}", any_of(names)),
        }
    }
}

/// How well the peer of a cleared session is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all: the session is in clear, or the peer showed no certificate.
    Anonymous,
    /// Its certificate falls short of trust; TLS is used all the same.
    Untrusted(Shortfall),
    /// Its certificate stands under a trust anchor; no name was asked for or none matched is told by
    /// `Untrusted`, so this is chain trust without a name demand.
    Trusted,
    /// Its certificate is trusted and carries this name, which was looked for.
    Verified(NamePattern),
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Untrusted(fault) => write!(f, "untrusted: {fault}"),
            Self::Trusted => f.write_str("trusted"),
            Self::Verified(name) => write!(f, "verified as {name}"),
        }
    }
}

/// The judge's leave to speak of mail on one session. Nothing else leads to MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clearance {
    outcome: TlsOutcome,
    authentication: Authentication,
}

impl Clearance {
    /// What the session reached.
    #[must_use]
    pub fn outcome(&self) -> &TlsOutcome {
        &self.outcome
    }

    /// How well the peer is known.
    #[must_use]
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }
}

/// The judge's leave to try the same host once more, in clear: TLS was tried and spoilt the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback(NoTls);

impl Fallback {
    /// The clearance of the fresh connection, which carries why it is in clear.
    #[must_use]
    pub fn clearance(self) -> Clearance {
        Clearance { outcome: TlsOutcome::Clear(self.0), authentication: Authentication::Anonymous }
    }

    /// Why TLS failed.
    #[must_use]
    pub fn reason(&self) -> &NoTls {
        &self.0
    }
}

/// A policy that was not met: what was wanted, and what was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the policy demands.
    pub wanted: Demand,
    /// What is missing.
    pub got: Shortfall,
}

impl Refusal {
    /// Subject and detail: 7.4 where no TLS was to be had, 7.5 where it was not good enough
    /// (RFC 3463 §3.8; Gatepost's policy table).
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.got {
            Shortfall::NoTls(NoTls::NotWanted | NoTls::NotOffered | NoTls::Rejected(_) | NoTls::NotUsed) => {
                Status(7, 4)
            }
            Shortfall::NoTls(NoTls::SpokeBeforeHandshake | NoTls::Broken(_))
            | Shortfall::Version(_)
            | Shortfall::NoCertificate
            | Shortfall::Chain(_)
            | Shortfall::Name { .. } => Status(7, 5),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is demanded, but {}", self.wanted, self.got)
    }
}

/// What a session lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortfall {
    /// TLS altogether.
    NoTls(NoTls),
    /// A newer version; this one was negotiated.
    Version(TlsVersion),
    /// A certificate.
    NoCertificate,
    /// A path to a trust anchor.
    Chain(ChainFault),
    /// A name that was looked for; the names that the certificate has.
    Name {
        /// Any of these would have done.
        wanted: Vec<NamePattern>,
        /// These are there.
        presented: Vec<NamePattern>,
    },
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTls(reason) => reason.fmt(f),
            Self::Version(version) => write!(f, "only {version} was negotiated"),
            Self::NoCertificate => f.write_str("no certificate was shown"),
            Self::Chain(fault) => write!(f, "the certificate is not trusted: {fault}"),
            Self::Name { wanted, presented } if presented.is_empty() => {
                write!(f, "the certificate has no DNS name at all ({} was wanted)", any_of(wanted))
            }
            Self::Name { wanted, presented } => {
                write!(f, "the certificate is for {}, not for {}", any_of(presented), any_of(wanted))
            }
        }
    }
}

/// What may be done with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Mail may cross it.
    Cleared(Clearance),
    /// This connection is spoilt; the same host may be tried at once, in clear, on a fresh one.
    Redial(Fallback),
    /// Nothing of the envelope may be said.
    Refused(Refusal),
}

/// Judges a session. `reference` is whom we meant to reach (the hop's own host name; nothing for
/// inbound): it is looked for in the certificate where the policy itself names nobody, for the record
/// only.
///
/// This is the policy table of the design, one arm for each of its cells.
#[must_use]
pub fn judge(policy: &TlsPolicy, outcome: TlsOutcome, reference: &[NamePattern]) -> Verdict {
    match (policy, outcome) {
        (TlsPolicy::Off | TlsPolicy::Opportunistic, TlsOutcome::Clear(reason)) => match reason {
            NoTls::NotWanted | NoTls::NotOffered | NoTls::Rejected(_) | NoTls::NotUsed => {
                cleared(TlsOutcome::Clear(reason), Authentication::Anonymous)
            }
            NoTls::SpokeBeforeHandshake | NoTls::Broken(_) => Verdict::Redial(Fallback(reason)),
        },
        (TlsPolicy::Off | TlsPolicy::Opportunistic, TlsOutcome::Tls(facts)) => {
            let authentication = authenticate(&facts, reference);
            cleared(TlsOutcome::Tls(facts), authentication)
        }
        (TlsPolicy::Forced(demand), TlsOutcome::Clear(reason)) => refused(demand, Shortfall::NoTls(reason)),
        (TlsPolicy::Forced(demand), TlsOutcome::Tls(facts)) => judge_forced(demand, facts, reference),
    }
}

fn judge_forced(demand: &Demand, facts: TlsFacts, reference: &[NamePattern]) -> Verdict {
    if facts.version < demand.min_version {
        return refused(demand, Shortfall::Version(facts.version));
    }
    let authentication = match &demand.verify {
        Verify::None | Verify::Chain => authenticate(&facts, reference),
        Verify::Name(names) => authenticate(&facts, names),
    };
    match (&demand.verify, &facts.certificate, authentication) {
        (Verify::None, _, authentication) => cleared(TlsOutcome::Tls(facts), authentication),
        (Verify::Chain | Verify::Name(_), Presented::Nothing, _) => refused(demand, Shortfall::NoCertificate),
        (Verify::Chain, Presented::Certificate(certificate), authentication) => match &certificate.chain {
            Ok(()) => cleared(TlsOutcome::Tls(facts), authentication),
            Err(fault) => refused(demand, Shortfall::Chain(fault.clone())),
        },
        (Verify::Name(_), Presented::Certificate(_), authentication) => match authentication {
            Authentication::Verified(_) => cleared(TlsOutcome::Tls(facts), authentication),
            Authentication::Untrusted(fault) => refused(demand, fault),
            // An empty list of names demands a name that nothing can carry.
            Authentication::Trusted | Authentication::Anonymous => {
                refused(demand, Shortfall::Name { wanted: Vec::new(), presented: Vec::new() })
            }
        },
    }
}

/// How well the facts identify the peer as one of `reference`.
fn authenticate(facts: &TlsFacts, reference: &[NamePattern]) -> Authentication {
    let Presented::Certificate(certificate) = &facts.certificate else {
        return Authentication::Anonymous;
    };
    if let Err(fault) = &certificate.chain {
        return Authentication::Untrusted(Shortfall::Chain(fault.clone()));
    }
    if reference.is_empty() {
        return Authentication::Trusted;
    }
    let matches = |name: &&NamePattern| reference.iter().any(|wanted| wanted.accepts(name));
    match certificate.names.iter().find(matches) {
        Some(name) => Authentication::Verified(name.clone()),
        None => Authentication::Untrusted(Shortfall::Name {
            wanted: reference.to_vec(),
            presented: certificate.names.clone(),
        }),
    }
}

fn cleared(outcome: TlsOutcome, authentication: Authentication) -> Verdict {
    Verdict::Cleared(Clearance { outcome, authentication })
}

fn refused(demand: &Demand, got: Shortfall) -> Verdict {
    Verdict::Refused(Refusal { wanted: demand.clone(), got })
}
