//! The one TLS judge: does what a handshake reached satisfy what a policy demands?
//!
//! Pure decisions over facts. The facts are gathered by [`crate::handshake`], the policies come from
//! [`crate::connector`]; both directions, every command and every report ask [`judge`] and nobody
//! else. Only this module can make a [`Clearance`] or a [`Fallback`].
//!
//! Names are matched as RFC 9525 §6 says: DNS SANs only, never the common name.

mod dane;
mod demand;
mod facts;
mod hello;
mod key;
mod names;
mod pin;
mod policy;
mod refusal;
mod sample_peer;
#[cfg(test)]
mod tests;

use std::fmt;

pub use dane::{DaneFacts, DaneFault, DaneScope, Tlsa, TlsaMatching, TlsaSelector, TlsaSet, TlsaUsage};
pub use demand::{Demand, Layer, Unmeetable, Verify};
pub use facts::{CertificateFacts, ChainFault, Handshake, NoTls, PeerCertificate, TlsFacts, TlsOutcome, TlsVersion};
pub use hello::{Groups, Hello, Hellos, SniUse, Strength};
pub use key::UncheckableKey;
pub use names::NamePattern;
pub use pin::{Pin, PinError};
pub use policy::{Demands, TlsPolicy};
pub use refusal::{Refusal, RefusalBasis, Unmet};
pub use sample_peer::SamplePeer;

/// How well the peer of a session is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all: the session is in the clear, the peer showed no certificate, or nobody asked whose it is.
    Anonymous,
    /// Not at all: its certificate has a key that cannot be checked, so it may be anybody's.
    Unproved(UncheckableKey),
    /// Its certificate falls short of trust; TLS is used all the same.
    Untrusted(Unmet),
    /// Its certificate stands under a trust anchor; no name was asked for or none matched is told by
    /// `Untrusted`, so this is chain trust without a name demand.
    Trusted,
    /// Its certificate is trusted and carries this name, which was looked for.
    Verified(NamePattern),
    /// Its key is one that the connector pins.
    Pinned(Pin),
    /// Its certificate is what this TLSA record says (RFC 7672).
    Dane {
        /// The record that matched.
        record: Tlsa,
        /// For whom it vouches.
        scope: DaneScope,
    },
}

impl Authentication {
    /// Returns true where the peer proved to be who was demanded or expected: by a name, a key or TLSA records. A
    /// trusted certificate alone proves nothing of that: a public authority gives one to anybody.
    #[must_use]
    pub fn identifies(&self) -> bool {
        match self {
            Self::Verified(_) | Self::Pinned(_) | Self::Dane { .. } => true,
            Self::Anonymous | Self::Unproved(_) | Self::Untrusted(_) | Self::Trusted => false,
        }
    }
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Unproved(key) => write!(f, "key not proved: {key}"),
            Self::Untrusted(fault) => write!(f, "untrusted: {fault}"),
            Self::Trusted => f.write_str("trusted"),
            Self::Verified(name) => write!(f, "verified as {name}"),
            Self::Pinned(pin) => write!(f, "pinned by {pin}"),
            Self::Dane { record, .. } => write!(f, "authenticated by DANE ({record})"),
        }
    }
}

/// What a session came to, whatever was demanded of it: a fact for the record, and no leave to do anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTls {
    /// The facts of its handshake, or the reason that there was none.
    pub outcome: TlsOutcome,
    /// How well its peer is known.
    pub authentication: Authentication,
}

/// The judge's leave to speak of mail on one session. Nothing else leads to MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clearance {
    session: SessionTls,
}

impl Clearance {
    /// What the session came to.
    #[must_use]
    pub fn session(&self) -> &SessionTls {
        &self.session
    }

    /// What the session reached.
    #[must_use]
    pub fn outcome(&self) -> &TlsOutcome {
        &self.session.outcome
    }

    /// How well the peer is known.
    #[must_use]
    pub fn authentication(&self) -> &Authentication {
        &self.session.authentication
    }
}

/// The judge's leave to try the same host once more, in the clear: TLS was tried and spoilt the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback(NoTls);

impl Fallback {
    /// The clearance of the fresh connection, which carries why it is in the clear.
    #[must_use]
    pub fn clearance(self) -> Clearance {
        let outcome = TlsOutcome::Clear(self.0);
        Clearance { session: SessionTls { outcome, authentication: Authentication::Anonymous } }
    }

    /// Why TLS failed.
    #[must_use]
    pub fn reason(&self) -> &NoTls {
        &self.0
    }
}

/// What may be done with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Mail may cross it.
    Cleared(Clearance),
    /// This connection is spoilt; the same host may be tried at once, in the clear, on a fresh one.
    Redial(Fallback),
    /// Nothing of the envelope may be said.
    Refused(Refusal),
}

/// Judges a session. `reference` is whom we meant to reach (the hop's own host name; nothing for
/// inbound): it is looked for in the certificate where the policy itself names nobody, for the record
/// only.
///
/// This is the policy table of the design, one arm for each of its cells. Of several demands every one
/// must be met; a refusal tells the first that is not.
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
        (TlsPolicy::Forced(demands), outcome @ (TlsOutcome::Clear(_) | TlsOutcome::Tls(_))) => {
            judge_forced(demands, outcome, reference)
        }
    }
}

/// The demand that no handshake can meet, where there is one: nobody need be dialled to refuse it.
#[must_use]
pub fn unmeetable(policy: &TlsPolicy) -> Option<Refusal> {
    policy.demands().find_map(|wanted| match &wanted.verify {
        Verify::Impossible(reason) => {
            let got = Unmet::Unmeetable(reason.clone());
            Some(Refusal { demand: wanted.clone(), unmet: got, basis: RefusalBasis::NoSession })
        }
        Verify::None | Verify::Chain | Verify::Name(_) | Verify::Published(_) | Verify::Pin(_) | Verify::Dane(_) => {
            None
        }
    })
}

fn judge_forced(demands: &Demands, outcome: TlsOutcome, reference: &[NamePattern]) -> Verdict {
    let (mut best, mut missing) = (None, None);
    for demand in demands.iter() {
        match check_demand(demand, &outcome, reference) {
            Err(got) => missing = missing.or(Some((demand, got))),
            Ok(authentication) => best = Some(stronger(best, authentication)),
        }
    }
    let authentication = best.unwrap_or_else(|| match &outcome {
        TlsOutcome::Clear(_) => Authentication::Anonymous,
        TlsOutcome::Tls(facts) => authenticate(facts, reference),
    });
    match missing {
        None => cleared(outcome, authentication),
        Some((wanted, got)) => {
            let basis = RefusalBasis::Session(Box::new(SessionTls { outcome, authentication }));
            Verdict::Refused(Refusal { demand: wanted.clone(), unmet: got, basis })
        }
    }
}

/// Judges each demand of a policy by itself, for whoever wants to tell them all. What [`judge`] says
/// follows from this: it clears where nothing is missing.
#[must_use]
pub fn judge_each<'a>(
    demands: &'a Demands,
    outcome: &TlsOutcome,
    reference: &[NamePattern],
) -> Vec<(&'a Demand, Result<Authentication, Unmet>)> {
    demands.iter().map(|demand| (demand, check_demand(demand, outcome, reference))).collect()
}

/// Whether a session meets one demand, and how well its peer is known by it.
fn check_demand(demand: &Demand, outcome: &TlsOutcome, reference: &[NamePattern]) -> Result<Authentication, Unmet> {
    // No handshake helps here, so none is waited for.
    if let Verify::Impossible(reason) = &demand.verify {
        return Err(Unmet::Unmeetable(reason.clone()));
    }
    let facts = match outcome {
        TlsOutcome::Clear(reason) => return Err(Unmet::NoTls(reason.clone())),
        TlsOutcome::Tls(facts) => facts,
    };
    if facts.version < demand.min_version {
        return Err(Unmet::Version(facts.version));
    }
    if facts.strength() < demand.min_strength {
        return Err(Unmet::KeyExchange(facts.key_exchange));
    }
    let certificate = match (&demand.verify, &facts.certificate) {
        (Verify::None, _) => return Ok(authenticate(facts, reference)),
        (_, PeerCertificate::Nothing) => return Err(Unmet::NoCertificate),
        (_, PeerCertificate::Unproved(key)) => return Err(Unmet::Unproved(key.clone())),
        // Whoever is asked who it is shows it now.
        (_, PeerCertificate::Certificate(_)) if facts.handshake == Handshake::Resumed => {
            return Err(Unmet::NoCertificate);
        }
        (_, PeerCertificate::Certificate(certificate)) => certificate,
    };
    match &demand.verify {
        Verify::None | Verify::Chain => match &certificate.chain {
            Ok(()) => Ok(authenticate(facts, reference)),
            Err(fault) => Err(Unmet::Chain(fault.clone())),
        },
        Verify::Name(wanted) => check_name(certificate, &certificate.chain, wanted),
        Verify::Published(host) => {
            check_name(certificate, &certificate.default_chain, &[NamePattern::Exact(host.clone())])
        }
        Verify::Pin(pins) => match pins.iter().find(|pin| **pin == certificate.key) {
            Some(pin) => Ok(Authentication::Pinned(*pin)),
            None => Err(Unmet::Pin { wanted: pins.clone(), presented: certificate.key }),
        },
        Verify::Dane(wanted) => match &certificate.dane {
            DaneFacts::Checked { records, result } if records == wanted => match result {
                Ok(record) => Ok(Authentication::Dane { record: record.clone(), scope: wanted.scope }),
                Err(fault) => Err(Unmet::Dane(fault.clone())),
            },
            DaneFacts::Checked { .. } | DaneFacts::NotChecked => Err(Unmet::Dane(DaneFault::NotChecked)),
        },
        Verify::Impossible(reason) => Err(Unmet::Unmeetable(reason.clone())),
    }
}

fn check_name(
    certificate: &CertificateFacts,
    chain: &Result<(), ChainFault>,
    wanted: &[NamePattern],
) -> Result<Authentication, Unmet> {
    if let Err(fault) = chain {
        return Err(Unmet::Chain(fault.clone()));
    }
    match certificate.carries(wanted) {
        Some(name) => Ok(Authentication::Verified(name.clone())),
        None => Err(Unmet::Name { wanted: wanted.to_vec(), presented: certificate.names.clone() }),
    }
}

/// How well the facts identify the peer as one of `reference`.
fn authenticate(facts: &TlsFacts, reference: &[NamePattern]) -> Authentication {
    let certificate = match &facts.certificate {
        PeerCertificate::Nothing => return Authentication::Anonymous,
        PeerCertificate::Unproved(key) => return Authentication::Unproved(key.clone()),
        PeerCertificate::Certificate(certificate) => certificate,
    };
    match check_name(certificate, &certificate.chain, reference) {
        Ok(authentication) => authentication,
        Err(Unmet::Name { .. }) if reference.is_empty() => Authentication::Trusted,
        Err(Unmet::Chain(ChainFault::NotChecked)) => Authentication::Anonymous,
        Err(fault) => Authentication::Untrusted(fault),
    }
}

/// Of two ways to know a peer, the one that tells more; of equals, the earlier.
fn stronger(earlier: Option<Authentication>, later: Authentication) -> Authentication {
    let rank = |authentication: &Authentication| match authentication {
        Authentication::Anonymous | Authentication::Unproved(_) => 0,
        Authentication::Untrusted(_) => 1,
        Authentication::Trusted => 2,
        Authentication::Verified(_) => 3,
        Authentication::Pinned(_) => 4,
        Authentication::Dane { .. } => 5,
    };
    match earlier {
        Some(earlier) if rank(&earlier) >= rank(&later) => earlier,
        Some(_) | None => later,
    }
}

fn cleared(outcome: TlsOutcome, authentication: Authentication) -> Verdict {
    Verdict::Cleared(Clearance { session: SessionTls { outcome, authentication } })
}
