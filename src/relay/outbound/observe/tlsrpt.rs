//! Records sessions for the TLS reports that a domain may request (RFC 8460 §4.3).
//!
//! A TLS report is about what the domain itself publishes, not about our connectors: a session that
//! only failed our own demand is no failure of the domain. [`tls::judge_each`] judges a session
//! against the published policy.

use std::sync::Arc;

use crate::discovery::mta_sts::{MtaStsFailureKind, PublishedPolicy};
use crate::discovery::{DiscoveryError, HopLookup, MtaStsLookup, policy_domain};
use crate::net::route::Hop;
use crate::policy::layers::{DaneFinding, MtaStsFinding, MtaStsListing};
use crate::policy::tls::{
    self, Clearance, Demand, Layer, NoTls, TlsOutcome, TlsPolicy, Unmeetable, Unmet, Verify,
};
use crate::relay::outbound::plan::HopUnusable;
use crate::relay::tlsrpt::{
    self, AppliedPolicy, Observation, Reporter, ResultType, SessionResult, result,
};
use crate::smtp::address::Domain;

use super::event::{DeliveryObserver, SessionEvent, SessionOutcome};

/// Records sessions for TLS reports.
pub(super) struct TlsReports {
    pub(super) reporter: Reporter,
}

impl DeliveryObserver for TlsReports {
    fn observe_session(&self, event: &SessionEvent<'_>) {
        if !self.reporter.is_on() || tlsrpt::is_report(&event.attempt.entry.envelope) {
            return;
        }
        let observation = match event.outcome {
            SessionOutcome::Cleared(clearance) => cleared(event, clearance),
            SessionOutcome::Failed(_) | SessionOutcome::Unmeetable(_) => refused(event),
            SessionOutcome::Unusable(why) => undialled(event, why),
            // A session is counted once, however many messages it carries.
            SessionOutcome::Reused(_) => None,
        };
        if let Some(observation) = observation {
            self.reporter.observe(observation);
        }
    }
}

/// Returns the observation of a hop that was not dialled because DNSSEC does not prove its TLSA
/// records. For the domain it is a failed session (RFC 8460 §4.3.2.1, `dnssec-invalid`).
fn undialled(event: &SessionEvent<'_>, why: &HopUnusable) -> Option<Observation> {
    match why {
        HopUnusable::Unknown(DiscoveryError::Tlsa(_)) => {}
        // A missing address, or a missing DNSSEC proof that the message requires, says nothing
        // about the host's TLS.
        HopUnusable::Unknown(DiscoveryError::Proof(_)) | HopUnusable::NoAddress(_) => return None,
    }
    let (domain, host) = (
        policy_domain(&event.attempt.host, event.hop)?,
        event.hop.host.domain()?,
    );
    let policy = AppliedPolicy {
        domain: host.clone(),
        found: tlsrpt::ReportedPolicy::Tlsa(Vec::new()),
    };
    let failure = tlsrpt::SessionFailure {
        mx: Some(host.to_string()),
        ..tlsrpt::SessionFailure::new(ResultType::DnssecInvalid)
    };
    let (domain, session) = (domain.clone(), SessionResult::Failed(failure));
    Some(Observation {
        at: event.at,
        domain,
        policy: Arc::new(policy),
        session,
    })
}

/// Returns the observation of a cleared session.
fn cleared(event: &SessionEvent<'_>, clearance: &Clearance) -> Option<Observation> {
    let outcome = clearance.outcome();
    // The domain is not concerned if we did not use TLS by our own choice.
    if matches!(
        outcome,
        TlsOutcome::Clear(NoTls::NotWanted | NoTls::NotUsed)
    ) {
        return None;
    }
    observation(event, |demand| match &demand.verify {
        Err(kind) => SessionResult::Failed(tlsrpt::SessionFailure::new(*kind)),
        Ok(verify) => judge_session(verify, outcome),
    })
}

/// Returns the observation of a refused session, or of a hop that was not dialled.
fn refused(event: &SessionEvent<'_>) -> Option<Observation> {
    let refusal = event.refusal()?;
    let concerns_domain = match refusal.demand.layer {
        Layer::Dane | Layer::MtaSts => true,
        Layer::Connector
        | Layer::Exception
        | Layer::RecipientConnector
        | Layer::RequireTls
        | Layer::DowngradeMemory => {
            matches!(refusal.unmet, Unmet::NoTls(_))
        }
    };
    if !concerns_domain {
        return None;
    }
    observation(event, |_| {
        SessionResult::Failed(session_failure(&refusal.unmet))
    })
}

fn observation(
    event: &SessionEvent<'_>,
    session: impl FnOnce(&ReportedDemand) -> SessionResult,
) -> Option<Observation> {
    let domain = policy_domain(&event.attempt.host, event.hop)?;
    let demand = reported_demand(event.hop, event.found?, domain);
    let session = match session(&demand) {
        SessionResult::Succeeded => SessionResult::Succeeded,
        SessionResult::Failed(failure) => SessionResult::Failed(tlsrpt::SessionFailure {
            mx: Some(event.hop.host.to_string()),
            receiving_ip: event.peer.and_then(|peer| peer.address.ip()),
            ..failure
        }),
    };
    Some(Observation {
        at: event.at,
        domain: domain.clone(),
        policy: Arc::new(demand.policy),
        session,
    })
}

/// The policy that a domain publishes for a host, as a TLS report names it.
struct ReportedDemand {
    policy: AppliedPolicy,
    /// The verification that the policy asks for, or the reason for which the policy cannot be
    /// used.
    verify: Result<Verify, ResultType>,
}

fn reported_demand(hop: &Hop, lookup: &HopLookup, domain: &Domain) -> ReportedDemand {
    let of = |found| AppliedPolicy {
        domain: domain.clone(),
        found,
    };
    match &lookup.findings.dane {
        DaneFinding::Usable(set) => {
            let records = set
                .records
                .iter()
                .map(|record| format!("{record:#}"))
                .collect();
            let policy = AppliedPolicy {
                domain: set.base.clone(),
                found: tlsrpt::ReportedPolicy::Tlsa(records),
            };
            return ReportedDemand {
                policy,
                verify: Ok(Verify::Dane(Arc::clone(set))),
            };
        }
        DaneFinding::Unusable(_) => {
            return ReportedDemand {
                policy: of(tlsrpt::ReportedPolicy::Tlsa(Vec::new())),
                verify: Err(ResultType::TlsaInvalid),
            };
        }
        DaneFinding::NotLookedUp(_) | DaneFinding::Absent(_) => {}
    }
    match &lookup.published {
        MtaStsLookup::Done(PublishedPolicy::Policy(policy)) => {
            let mx = policy.mx_lines();
            let verify = match &lookup.findings.mta_sts {
                MtaStsFinding::Enforce(listing) | MtaStsFinding::Testing(listing) => {
                    listed(hop, listing)
                }
                MtaStsFinding::NotLookedUp(_) | MtaStsFinding::None(_) => Verify::None,
            };
            ReportedDemand {
                policy: of(tlsrpt::ReportedPolicy::Sts {
                    lines: policy.lines(),
                    mx,
                }),
                verify: Ok(verify),
            }
        }
        MtaStsLookup::Done(PublishedPolicy::None(absent)) => match absent.kind() {
            Some(kind) => {
                let found = tlsrpt::ReportedPolicy::Sts {
                    lines: Vec::new(),
                    mx: Vec::new(),
                };
                ReportedDemand {
                    policy: of(found),
                    verify: Err(result_type(kind)),
                }
            }
            None => ReportedDemand {
                policy: of(tlsrpt::ReportedPolicy::Nothing),
                verify: Ok(Verify::None),
            },
        },
        MtaStsLookup::Skipped(_) => ReportedDemand {
            policy: of(tlsrpt::ReportedPolicy::Nothing),
            verify: Ok(Verify::None),
        },
    }
}

fn listed(hop: &Hop, listing: &MtaStsListing) -> Verify {
    match (listing, hop.host.domain()) {
        (MtaStsListing::Listed, Some(host)) => Verify::Published(host.clone()),
        (MtaStsListing::NotListed(listed), Some(host)) => {
            Verify::Impossible(Unmeetable::NotListed {
                host: host.clone(),
                listed: listed.clone(),
            })
        }
        // A host without a name has no policy.
        (_, None) => Verify::None,
    }
}

fn judge_session(verify: &Verify, outcome: &TlsOutcome) -> SessionResult {
    let TlsPolicy::Forced(demands) = TlsPolicy::forced(Demand::new(Layer::Dane, verify.clone()))
    else {
        return SessionResult::Succeeded;
    };
    let verdicts = tls::judge_each(&demands, outcome, &[]);
    match verdicts.into_iter().find_map(|(_, verdict)| verdict.err()) {
        None => SessionResult::Succeeded,
        Some(unmet) => SessionResult::Failed(session_failure(&unmet)),
    }
}

fn session_failure(unmet: &Unmet) -> tlsrpt::SessionFailure {
    let reason = result::reason_code(unmet).map(str::to_owned);
    tlsrpt::SessionFailure {
        reason,
        ..tlsrpt::SessionFailure::new(result::of_unmet(unmet))
    }
}

fn result_type(kind: MtaStsFailureKind) -> ResultType {
    match kind {
        MtaStsFailureKind::FetchError => ResultType::StsPolicyFetchError,
        MtaStsFailureKind::Invalid => ResultType::StsPolicyInvalid,
        MtaStsFailureKind::WebPkiInvalid => ResultType::StsWebpkiInvalid,
    }
}
