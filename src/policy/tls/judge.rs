//! The TLS judge: decides if a session satisfies every demand of a policy.

use super::chain_fault::ChainFault;
use super::dane::{DaneFacts, DaneFault};
use super::demand::{Demand, Layer, Verify};
use super::facts::{CertificateFacts, Handshake, NoTls, PeerCertificate, TlsFacts, TlsOutcome};
use super::names::NamePattern;
use super::policy::{Demands, TlsPolicy};
use super::refusal::{Refusal, RefusalBasis};
use super::revocation;
use super::session::{Authentication, SessionTls};
use super::unmet::Unmet;

/// The proof that a session satisfies its policy. MAIL FROM cannot be written without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clearance {
    session: SessionTls,
    proof: Option<PeerProof>,
}

/// The proof that the session satisfies a demand of the connector itself by which the peer shows
/// its identity: a name, a key or a TLSA record. A secret of ours cannot be sent without one.
///
/// The policies that a domain publishes make none, and neither does an exception: the administrator
/// has named the host to which the secret goes, and the connector alone says how it proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProof(());

impl Clearance {
    /// The TLS of the session.
    #[must_use]
    pub fn session(&self) -> &SessionTls {
        &self.session
    }

    /// The facts of the handshake, or the reason why the session is in the clear.
    #[must_use]
    pub fn outcome(&self) -> &TlsOutcome {
        &self.session.outcome
    }

    /// The result of identifying the peer.
    #[must_use]
    pub fn authentication(&self) -> &Authentication {
        &self.session.authentication
    }

    /// The proof of the peer's identity, if the connector demanded one.
    #[must_use]
    pub fn peer_proof(&self) -> Option<&PeerProof> {
        self.proof.as_ref()
    }
}

/// The permission to connect to the same host again and send in the clear, because TLS failed and
/// the connection can no longer be used.
// Rule: policy table (broken handshake, octets before the handshake).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback(NoTls);

impl Fallback {
    /// Returns the clearance for the new connection. It carries the reason why the session is in
    /// the clear.
    #[must_use]
    pub fn clearance(self) -> Clearance {
        let outcome = TlsOutcome::Clear(self.0);
        Clearance {
            session: SessionTls {
                outcome,
                authentication: Authentication::Anonymous,
            },
            proof: None,
        }
    }

    /// The reason why TLS failed.
    #[must_use]
    pub fn reason(&self) -> &NoTls {
        &self.0
    }
}

/// The judge's decision on a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Mail may be sent or accepted.
    Cleared(Clearance),
    /// This connection is unusable; the same host may be tried again in the clear, on a new
    /// connection.
    Redial(Fallback),
    /// Nothing of the envelope may be sent or accepted.
    Refused(Refusal),
}

/// Judges a session by the table of docs/policy.md: one match arm for each of its cells.
///
/// `reference` holds the reference identifiers (RFC 9525 §2): the hop's own host name when we are
/// the client, the connector's names when we are the server. They only fill the record where the
/// policy itself demands no name. A policy is satisfied if every demand is; a refusal names the
/// first that is not.
// Rule: RFC 3207 §4.1.
// Rule: policy table (STARTTLS rejected, no STARTTLS, trusted certificate, untrusted certificate).
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

/// Returns the first demand that no handshake can satisfy. Such a hop is refused without a
/// connection.
#[must_use]
pub fn unmeetable(policy: &TlsPolicy) -> Option<Refusal> {
    policy.demands().find_map(|wanted| match &wanted.verify {
        Verify::Impossible(reason) => {
            let got = Unmet::Unmeetable(reason.clone());
            Some(Refusal {
                demand: wanted.clone(),
                unmet: got,
                basis: RefusalBasis::NoSession,
            })
        }
        Verify::None
        | Verify::Chain
        | Verify::Name(_)
        | Verify::Published(_)
        | Verify::Pin(_)
        | Verify::Dane(_) => None,
    })
}

// Rule: RFC 3207 §6.
// Rule: policy table (STARTTLS rejected, broken handshake, no STARTTLS, octets before the handshake).
pub(super) fn judge_forced(
    demands: &Demands,
    outcome: TlsOutcome,
    reference: &[NamePattern],
) -> Verdict {
    let (mut best, mut missing, mut proof) = (None, None, None);
    for demand in demands.iter() {
        match check_demand(demand, &outcome, reference) {
            Err(got) => missing = missing.or(Some((demand, got))),
            Ok(authentication) => {
                best = Some(stronger(best, authentication));
                proof = proof.or(proves_peer(demand).then_some(PeerProof(())));
            }
        }
    }
    let authentication = best.unwrap_or_else(|| match &outcome {
        TlsOutcome::Clear(_) => Authentication::Anonymous,
        TlsOutcome::Tls(facts) => authenticate(facts, reference),
    });
    match missing {
        None => Verdict::Cleared(Clearance {
            session: SessionTls {
                outcome,
                authentication,
            },
            proof,
        }),
        Some((wanted, got)) => {
            let basis = RefusalBasis::Session(Box::new(SessionTls {
                outcome,
                authentication,
            }));
            Verdict::Refused(Refusal {
                demand: wanted.clone(),
                unmet: got,
                basis,
            })
        }
    }
}

/// Judges each demand of a policy separately, for reports that list them all. [`judge`] clears the
/// session exactly if every result is `Ok`.
#[must_use]
pub(crate) fn judge_each<'a>(
    demands: &'a Demands,
    outcome: &TlsOutcome,
    reference: &[NamePattern],
) -> Vec<(&'a Demand, Result<Authentication, Unmet>)> {
    demands
        .iter()
        .map(|demand| (demand, check_demand(demand, outcome, reference)))
        .collect()
}

/// Checks one demand, and identifies the peer by it.
// Rule: RFC 7672 §3.2; policy table (trusted certificate, untrusted certificate).
pub(super) fn check_demand(
    demand: &Demand,
    outcome: &TlsOutcome,
    reference: &[NamePattern],
) -> Result<Authentication, Unmet> {
    // An impossible demand fails whatever the session has, so this check comes first.
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
        // A resumed handshake shows no certificate, so it cannot satisfy a demand for one.
        (_, PeerCertificate::Certificate(_)) if facts.handshake == Handshake::Resumed => {
            return Err(Unmet::NoCertificate);
        }
        (_, PeerCertificate::Certificate(certificate)) => certificate,
    };
    match &demand.verify {
        Verify::None | Verify::Chain => match &certificate.chain {
            Ok(()) => {
                check_revocation(demand, certificate)?;
                Ok(authenticate(facts, reference))
            }
            Err(fault) => Err(Unmet::Chain(fault.clone())),
        },
        Verify::Name(wanted) => {
            let authentication = check_name(certificate, &certificate.chain, wanted)?;
            check_revocation(demand, certificate)?;
            Ok(authentication)
        }
        Verify::Published(host) => check_name(
            certificate,
            &certificate.default_chain,
            &[NamePattern::Exact(host.clone())],
        ),
        Verify::Pin(pins) => match pins.iter().find(|pin| **pin == certificate.key) {
            Some(pin) => Ok(Authentication::Pinned(*pin)),
            None => Err(Unmet::Pin {
                wanted: pins.clone(),
                presented: certificate.key,
            }),
        },
        Verify::Dane(wanted) => match &certificate.dane {
            DaneFacts::Checked { records, result } if records == wanted => match result {
                Ok(record) => Ok(Authentication::Dane {
                    record: record.clone(),
                    scope: wanted.scope,
                }),
                Err(fault) => Err(Unmet::Dane(fault.clone())),
            },
            DaneFacts::Checked { .. } | DaneFacts::NotChecked => {
                Err(Unmet::Dane(DaneFault::NotChecked))
            }
        },
        Verify::Impossible(reason) => Err(Unmet::Unmeetable(reason.clone())),
    }
}

// Rule: RFC 5280 §6.3; policy table (revocation).
fn check_revocation(demand: &Demand, certificate: &CertificateFacts) -> Result<(), Unmet> {
    revocation::check(demand.revocation, &certificate.revocation).map_err(Unmet::Revocation)
}

// Rule: RFC 9525 §6.6; policy table (trusted certificate, untrusted certificate).
pub(super) fn check_name(
    certificate: &CertificateFacts,
    chain: &Result<(), ChainFault>,
    wanted: &[NamePattern],
) -> Result<Authentication, Unmet> {
    if let Err(fault) = chain {
        return Err(Unmet::Chain(fault.clone()));
    }
    match certificate.carries(wanted) {
        Some(name) => Ok(Authentication::Verified(name.clone())),
        None => Err(Unmet::Name {
            wanted: wanted.to_vec(),
            presented: certificate.names.clone(),
        }),
    }
}

/// Identifies the peer by its certificate and the reference identifiers, where no demand does so.
// Rule: policy table (untrusted certificate, revocation).
pub(super) fn authenticate(facts: &TlsFacts, reference: &[NamePattern]) -> Authentication {
    let certificate = match &facts.certificate {
        PeerCertificate::Nothing => return Authentication::Anonymous,
        PeerCertificate::Unproved(key) => return Authentication::Unproved(key.clone()),
        PeerCertificate::Certificate(certificate) => certificate,
    };
    // It has a path, so it would count as trusted.
    if let Some(revoked) = revocation::known_revoked(&certificate.revocation) {
        return Authentication::Untrusted(Unmet::Revocation(revoked));
    }
    match check_name(certificate, &certificate.chain, reference) {
        Ok(authentication) => authentication,
        Err(Unmet::Name { .. }) if reference.is_empty() => Authentication::Trusted,
        Err(Unmet::Chain(ChainFault::NotChecked)) => Authentication::Anonymous,
        Err(fault) => Authentication::Untrusted(fault),
    }
}

/// Returns the stronger of two identifications, the earlier if they are equal.
pub(super) fn stronger(earlier: Option<Authentication>, later: Authentication) -> Authentication {
    match earlier {
        Some(earlier) if earlier.assurance() >= later.assurance() => earlier,
        Some(_) | None => later,
    }
}

pub(super) fn cleared(outcome: TlsOutcome, authentication: Authentication) -> Verdict {
    Verdict::Cleared(Clearance {
        session: SessionTls {
            outcome,
            authentication,
        },
        proof: None,
    })
}

/// Returns true if a session that satisfies this demand proves to the connector who the peer is. A
/// chain alone proves nobody: anybody can have a certificate of a trusted authority.
// Rule: RFC 4954 §14.
fn proves_peer(demand: &Demand) -> bool {
    match (demand.layer, &demand.verify) {
        (Layer::Connector, Verify::Name(_) | Verify::Pin(_) | Verify::Dane(_)) => true,
        (
            Layer::Connector,
            Verify::None | Verify::Chain | Verify::Published(_) | Verify::Impossible(_),
        )
        | (
            Layer::Exception
            | Layer::RecipientConnector
            | Layer::Dane
            | Layer::MtaSts
            | Layer::RequireTls
            | Layer::DowngradeMemory,
            _,
        ) => false,
    }
}
