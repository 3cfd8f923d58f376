//! `gatepost probe`: the result that a delivery would have at each hop, without a message.
//!
//! A probe takes the same steps as a delivery: [`HopPlan`] holds the policy of a hop, `Target`
//! dials it and asks the judge, and `PendingRecipients` decides the outcome for a recipient. A
//! probe uses only `Target::probe`, which returns no connection, so it cannot write MAIL. It
//! records nothing in the downgrade memory.

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;

use crate::config::Connector;
use crate::discovery::{Discovery, HopLookup, KnownPolicies};
use crate::net::route::{Hop, Hops};
use crate::net::tls_io::{KnownHellos, SentCertificate};
use crate::policy::failure::{Failure, HopAddress, RecipientOutcome};
use crate::policy::tls::{
    self, Authentication, Clearance, Demand, PeerCertificate, TlsFacts, TlsOutcome, TlsPolicy,
    Unmet,
};
use crate::policy::tls::{TlsaUsage, Verify};
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Host;
use crate::smtp::client::Extensions;
use crate::smtp::envelope::TlsRequirement;
use crate::telemetry::Monitor;

use super::dial_record::AddressProbe;
use super::hellos::DialBudget;
pub use super::login_result::LoginAttempt;
pub use super::observe::FirstTry;
use super::plan::{HopPlan, MailContext};
use super::recipients::{PendingRecipients, Remaining};
use super::target::{DialPurpose, Target, reference_names};

/// The number of hops that are probed in parallel; the addresses of one hop are probed one after
/// another.
const PARALLEL_HOPS: usize = 4;

/// The subject of a probe.
#[derive(Debug, Clone, Copy)]
pub struct ProbeQuery<'a> {
    /// The recipient domain.
    pub recipient: &'a Host,
    /// The connector whose demands are checked.
    pub connector: &'a Connector,
}

/// The result of a probe.
#[derive(Debug)]
pub struct Probe {
    /// The hops in the order of a delivery, or the failure for which there are none.
    pub hops: Result<Vec<ProbedHop>, Failure>,
    /// The outcome of a message to the domain.
    pub prospect: PredictedOutcome,
}

/// The outcome that a message with an ordinary envelope would have now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PredictedOutcome {
    /// The message would be sent to this host.
    Sent {
        /// The peer, as `mx.example.org [192.0.2.1]:25`.
        peer: String,
        /// The clearance of the session.
        clearance: Clearance,
    },
    /// The message would be deferred.
    Deferred(Failure),
    /// The message would be held for an operator.
    Held(Failure),
    /// The message would bounce.
    Bounced(Failure),
}

/// A probed hop.
#[derive(Debug)]
pub struct ProbedHop {
    /// The hop.
    pub hop: Hop,
    /// The findings at the hop, or the failure for which it was not dialled.
    pub findings: Result<HopFindings, Failure>,
}

/// The findings at a hop.
#[derive(Debug)]
pub struct HopFindings {
    /// The demand on the hop, joined from all layers.
    pub policy: TlsPolicy,
    /// The facts from which the policy follows.
    pub found: HopLookup,
    /// The failure if no handshake could meet the policy; a delivery would not dial this hop.
    pub unmeetable: Option<Failure>,
    /// The addresses of the hop, in order.
    pub addresses: Vec<AddressFindings>,
}

/// The findings at one address of a hop.
#[derive(Debug)]
pub struct AddressFindings {
    /// The address.
    pub address: HopAddress,
    /// The peer, as `mx.example.org [192.0.2.1]:25`.
    pub peer: String,
    /// The first handshake, if it was cut short; the other fields are about the second try.
    pub first_try: Option<FirstTry>,
    /// The outcome of TLS; `None` if the session failed before, for the reason in `end`.
    pub outcome: Option<TlsOutcome>,
    /// Each demand with its verdict; empty without demands or an outcome.
    pub verdicts: Vec<(Demand, Result<Authentication, Unmet>)>,
    /// The certificate chain as it was sent, leaf first; only the beginning of a long one.
    pub chain: Vec<SentCertificate>,
    /// The extensions of the peer; `None` if it did not answer EHLO.
    pub extensions: Option<Extensions>,
    /// Our login, if the connector has one and the session came that far.
    pub login: Option<LoginAttempt>,
    /// The clearance, or the failure that a delivery would meet.
    pub end: Result<Clearance, Failure>,
}

impl AddressFindings {
    /// Returns the facts of the handshake, if one was completed and counts.
    #[must_use]
    pub fn facts(&self) -> Option<&TlsFacts> {
        match &self.outcome {
            Some(TlsOutcome::Tls(facts)) => Some(facts),
            Some(TlsOutcome::Clear(_)) | None => None,
        }
    }

    /// Returns whether a demand depends on the dates of the chain, so that it is unmet when a
    /// certificate expires. Pins and DANE-EE records do not depend on dates (RFC 7671 §5.1).
    #[must_use]
    pub fn dates_count(&self) -> bool {
        self.verdicts
            .iter()
            .any(|(demand, verdict)| match (&demand.verify, verdict) {
                (Verify::Chain | Verify::Name(_) | Verify::Published(_), _) => true,
                (Verify::Dane(_), Ok(Authentication::Dane { record, .. })) => {
                    record.usage == TlsaUsage::TrustAnchor
                }
                (Verify::Dane(set), _) => set
                    .records
                    .iter()
                    .all(|record| record.usage == TlsaUsage::TrustAnchor),
                (Verify::None | Verify::Pin(_) | Verify::Impossible(_), _) => false,
            })
    }

    /// Returns the next expiry of a certificate in the chain that a demand depends on, with the
    /// certificate's subject.
    #[must_use]
    pub fn breaks_at(&self, now: Timestamp) -> Option<(Timestamp, &str)> {
        if !self.dates_count() {
            return None;
        }
        let readable = self.chain.iter().filter_map(|sent| match sent {
            SentCertificate::Readable(certificate) => {
                Some((certificate.not_after, certificate.subject.as_str()))
            }
            SentCertificate::Malformed => None,
        });
        readable
            .filter(|(not_after, _)| *not_after > now)
            .min_by_key(|(not_after, _)| *not_after)
    }

    fn new(result: AddressProbe, policy: &TlsPolicy, hop: &Hop) -> Self {
        let AddressProbe { peer, record, end } = result;
        let verdicts = match (policy, &record.outcome) {
            (TlsPolicy::Forced(demands), Some(outcome)) => {
                tls::judge_each(demands, outcome, &reference_names(&hop.host))
                    .into_iter()
                    .map(|(demand, verdict)| (demand.clone(), verdict))
                    .collect()
            }
            (TlsPolicy::Off | TlsPolicy::Opportunistic, _) | (TlsPolicy::Forced(_), None) => {
                Vec::new()
            }
        };
        let chain = record
            .seen
            .map(|seen| seen.certificates())
            .unwrap_or_default();
        let (first_try, login) = (record.steps.first_try, record.steps.login);
        let (outcome, extensions) = (record.outcome, record.extensions);
        Self {
            peer: peer.to_string(),
            address: peer.address,
            first_try,
            outcome,
            verdicts,
            chain,
            extensions,
            login,
            end,
        }
    }
}

/// Returns whether the certificate chains to the connector's authorities; `None` if no certificate
/// was shown.
#[must_use]
pub fn chain_verdict(facts: &TlsFacts) -> Option<&Result<(), crate::policy::tls::ChainFault>> {
    match &facts.certificate {
        PeerCertificate::Certificate(certificate) => Some(&certificate.chain),
        PeerCertificate::Nothing | PeerCertificate::Unproved(_) => None,
    }
}

/// Returns the revocation status of a certificate in words, if a demand asked for it.
#[must_use]
pub fn revocation_status(facts: &TlsFacts) -> Option<String> {
    match &facts.certificate {
        PeerCertificate::Certificate(certificate) => certificate.revocation.describe(),
        PeerCertificate::Nothing | PeerCertificate::Unproved(_) => None,
    }
}

/// Probes every address of every hop, several hops in parallel. It always ends: each step has the
/// time limit of a delivery, and the numbers of hosts and addresses are bounded.
pub async fn probe<K: KnownPolicies>(
    snapshot: &Snapshot,
    discovery: &Discovery<K>,
    query: ProbeQuery<'_>,
) -> Probe {
    let ProbeQuery {
        recipient,
        connector,
    } = query;
    let Hops { hops, basis } = match snapshot
        .router
        .hops(recipient, &connector.outbound.route)
        .await
    {
        Ok(found) => found,
        Err(failure) => {
            let prospect = predict(&[], Some(&failure), connector);
            return Probe {
                hops: Err(failure),
                prospect,
            };
        }
    };
    let probes = hops.into_iter().map(|hop| {
        let basis = &basis;
        async move {
            let findings = probe_hop(snapshot, discovery, query, &hop, basis).await;
            ProbedHop { hop, findings }
        }
    });
    let hops: Vec<_> = stream::iter(probes).buffered(PARALLEL_HOPS).collect().await;
    let prospect = predict(&hops, None, connector);
    Probe {
        hops: Ok(hops),
        prospect,
    }
}

async fn probe_hop<K: KnownPolicies>(
    snapshot: &Snapshot,
    discovery: &Discovery<K>,
    query: ProbeQuery<'_>,
    hop: &Hop,
    basis: &crate::net::route::RouteBasis,
) -> Result<HopFindings, Failure> {
    let ProbeQuery {
        recipient,
        connector,
    } = query;
    let context = MailContext {
        recipient,
        connector,
        requirement: TlsRequirement::Ordinary,
    };
    let plan = HopPlan::make(&snapshot.router, discovery, context, hop, basis)
        .await
        .map_err(|unusable| Failure::from(unusable).with_peer(hop))?;
    let policy = plan.policy(context, hop);
    let unmeetable =
        tls::unmeetable(&policy).map(|refusal| Failure::policy(refusal).with_peer(hop));
    let mut addresses = Vec::new();
    for address in &plan.addresses.addresses {
        // Each address is shown the usual ClientHello, even if it accepted another one lately.
        let (known, monitor) = (KnownHellos::default(), Monitor::default());
        let (purpose, handshake) = (DialPurpose::Probe, snapshot.config.timeouts.handshake);
        let target = Target {
            snapshot,
            monitor: &monitor,
            connector,
            hop,
            policy: &policy,
            known: &known,
            purpose,
            handshake,
        };
        addresses.push(AddressFindings::new(
            target.probe(address).await,
            &policy,
            hop,
        ));
    }
    Ok(HopFindings {
        policy,
        found: plan.found,
        unmeetable,
        addresses,
    })
}

/// Predicts the outcome of a message: records the findings as a delivery would, in the same order.
fn predict(
    hops: &[ProbedHop],
    route_failure: Option<&Failure>,
    connector: &Connector,
) -> PredictedOutcome {
    let mut recipients = PendingRecipients::new(&[0], &[], connector.outbound.on_failure);
    if let Some(failure) = route_failure {
        recipients.fail_all(failure.clone(), Remaining::Useless);
    }
    let (mut left, mut budget) = (hops.len(), DialBudget::new());
    for ProbedHop { findings, .. } in hops {
        left -= 1;
        if recipients.is_complete() {
            break;
        }
        recipients.begin_hop();
        let findings = match findings {
            Ok(HopFindings {
                unmeetable: Some(failure),
                ..
            })
            | Err(failure) => {
                recipients.fail_all(failure.clone(), Remaining::after(failure, left > 0));
                continue;
            }
            Ok(findings) => findings,
        };
        for (at, address) in findings.addresses.iter().enumerate() {
            if recipients.is_complete() {
                break;
            }
            budget.take();
            if address.first_try.is_some() {
                budget.take();
            }
            match &address.end {
                Ok(clearance) => {
                    return PredictedOutcome::Sent {
                        peer: address.peer.clone(),
                        clearance: clearance.clone(),
                    };
                }
                Err(failure) => {
                    let has_next =
                        (left > 0 || at + 1 < findings.addresses.len()) && !budget.is_exhausted();
                    recipients.fail_all(failure.clone(), Remaining::after(failure, has_next));
                }
            }
        }
    }
    let unknown = || {
        Failure::transient(
            crate::policy::failure::Scope::Destination,
            crate::smtp::reply::Status(4, 0),
            "no host",
        )
    };
    match recipients.into_parts().0.pop().map(|result| result.outcome) {
        Some(RecipientOutcome::Deferred(failure)) => PredictedOutcome::Deferred(failure),
        Some(RecipientOutcome::Held(failure)) => PredictedOutcome::Held(failure),
        Some(RecipientOutcome::Bounced(failure)) => PredictedOutcome::Bounced(failure),
        // There is one result for one recipient, and no message was sent.
        Some(RecipientOutcome::Delivered(_)) | None => PredictedOutcome::Deferred(unknown()),
    }
}
