//! The one TLS judge: does what a handshake reached satisfy what a policy demands?
//!
//! Pure decisions over facts. The facts are gathered by [`crate::handshake`], the policies come from
//! [`crate::connector`]; both directions, every command and every report ask [`judge`] and nobody
//! else. Only this module can make a [`Clearance`] or a [`Fallback`].
//!
//! Names are matched as RFC 9525 §6 says: DNS SANs only, never the common name.

use std::fmt;

use jiff::Timestamp;

use crate::address::{AddressError, Domain};
use crate::smtp::reply::{Reply, Status};

/// A TLS protocol version that Gatepost speaks; nothing older exists here (RFC 8996, RFC 9325 §3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        })
    }
}

/// A name that a certificate must carry: `mail.example.org`, or `*.example.org` for one label under
/// it (or for the name `*.example.org` itself).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// Exactly this host.
    Exact(Domain),
    /// Any host exactly one label under this domain.
    OneLabelUnder(Domain),
}

impl NamePattern {
    /// Parses a name, or a name whose whole left-most label is `*`.
    ///
    /// # Errors
    /// [`AddressError::Domain`], also for a `*` anywhere else.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("*.") {
            Some(base) => Domain::parse(base).map(Self::OneLabelUnder),
            None => Domain::parse(text).map(Self::Exact),
        }
    }

    /// Whether a name in a certificate (a DNS SAN, possibly itself a wildcard) meets this one.
    #[must_use]
    pub fn accepts(&self, presented: &Self) -> bool {
        match (self, presented) {
            (Self::Exact(wanted), Self::Exact(name)) => wanted == name,
            (Self::Exact(wanted), Self::OneLabelUnder(base)) => is_one_label_under(wanted, base),
            (Self::OneLabelUnder(wanted), Self::Exact(name)) => is_one_label_under(name, wanted),
            (Self::OneLabelUnder(wanted), Self::OneLabelUnder(base)) => wanted == base,
        }
    }
}

fn is_one_label_under(name: &Domain, base: &Domain) -> bool {
    name.as_str().split_once('.').is_some_and(|(_, rest)| rest == base.as_str())
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::OneLabelUnder(base) => write!(f, "*.{base}"),
        }
    }
}

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

/// What a session reached: the facts of its handshake, or the reason that there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsOutcome {
    /// No TLS, and why.
    Clear(NoTls),
    /// TLS.
    Tls(TlsFacts),
}

/// Why a session has no TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTls {
    /// Our own policy for the domain is `off`.
    NotWanted,
    /// Outbound: the peer's EHLO answer has no STARTTLS.
    NotOffered,
    /// Outbound: the peer answered STARTTLS with this.
    Rejected(Reply),
    /// Outbound: the peer said something in clear after its 220 to STARTTLS (RFC 3207 §6).
    SpokeBeforeHandshake,
    /// The handshake broke; what rustls or the network said.
    Broken(String),
    /// Inbound: the client did not ask for TLS.
    NotUsed,
}

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("TLS is switched off for this domain"),
            Self::NotOffered => f.write_str("the peer does not offer STARTTLS"),
            Self::Rejected(reply) => write!(f, "the peer refused STARTTLS: {reply}"),
            Self::SpokeBeforeHandshake => f.write_str("the peer sent clear text after agreeing to STARTTLS"),
            Self::Broken(fault) => write!(f, "the TLS handshake failed: {fault}"),
            Self::NotUsed => f.write_str("the client did not issue STARTTLS"),
        }
    }
}

/// What a completed handshake established.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The version negotiated.
    pub version: TlsVersion,
    /// The cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// The key exchange group, where the session had one (a resumed TLS 1.2 session has none).
    pub key_exchange: Option<&'static str>,
    /// What the peer showed of itself.
    pub certificate: Presented,
}

/// What the peer showed of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// No certificate (a client that has none).
    Nothing,
    /// A certificate, whose private key the peer proved to hold.
    Certificate(CertificateFacts),
}

/// What a certificate says, and whether it stands under the trust anchors it was held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its DNS names (SAN), those that are well-formed.
    pub names: Vec<NamePattern>,
    /// Whether a path to a trust anchor was found at the time of the handshake.
    pub chain: Result<(), ChainFault>,
}

/// Why a certificate does not stand under our trust anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainFault {
    /// Signed by itself, and not a trust anchor.
    SelfSigned,
    /// Issued by an authority that we do not trust; its name.
    UnknownIssuer(String),
    /// Its time is over.
    Expired(Timestamp),
    /// Its time has not come.
    NotYetValid(Timestamp),
    /// Anything else, in words.
    Invalid(String),
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelfSigned => f.write_str("it is self-signed"),
            Self::UnknownIssuer(issuer) => write!(f, "its issuer ({issuer}) is not trusted"),
            Self::Expired(at) => write!(f, "it expired on {at}"),
            Self::NotYetValid(at) => write!(f, "it is not valid before {at}"),
            Self::Invalid(fault) => f.write_str(fault),
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

/// At most five names: a certificate may carry hundreds.
fn any_of(names: &[NamePattern]) -> String {
    let mut text = names.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    if names.len() > 5 {
        text.push_str(&format!(" or {} more", names.len() - 5));
    }
    text
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
