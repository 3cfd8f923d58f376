//! Records sessions for the TLS reports that a domain may request (RFC 8460 §4.3).
//!
//! A TLS report is about what the domain itself publishes, not about our connectors: a session that
//! only failed our own demand is no failure of the domain. [`tls::judge_each`] judges a session
//! against the published policy.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::discovery::mta_sts::{MtaStsFailureKind, PublishedPolicy};
use crate::discovery::{DiscoveryError, HopLookup, MtaStsLookup, policy_domain};
use crate::net::route::Hop;
use crate::policy::failure::{Cause, Failure, RequireTlsUnmet};
use crate::policy::layers::{DaneFinding, MtaStsFinding, MtaStsListing};
use crate::policy::tls::{
    self, Clearance, Demand, Layer, NoTls, TlsOutcome, TlsPolicy, Unmeetable, Unmet, Verify,
};
use crate::relay::tlsrpt::{
    self, AppliedPolicy, Observation, Reporter, ResultType, SessionResult, result,
};
use crate::smtp::address::Domain;

use super::{Attempt, HopUnusable};

/// Observes the sessions of one attempt with one hop.
pub(super) struct SessionObserver<'a> {
    pub(super) reporter: &'a Reporter,
    pub(super) attempt: &'a Attempt,
    pub(super) hop: &'a Hop,
    pub(super) found: &'a HopLookup,
}

/// Records a hop that was not dialled because DNSSEC does not prove its TLSA records. For the
/// domain it is a failed session (RFC 8460 §4.3.2.1, `dnssec-invalid`).
pub(super) fn observe_undialled(
    reporter: &Reporter,
    attempt: &Attempt,
    hop: &Hop,
    why: &HopUnusable,
) {
    match why {
        HopUnusable::Unknown(DiscoveryError::Tlsa(_)) => {}
        // A missing address, or a missing DNSSEC proof that the message requires, says nothing
        // about the host's TLS.
        HopUnusable::Unknown(DiscoveryError::Proof(_)) | HopUnusable::NoAddress(_) => return,
    }
    let (Some(domain), Some(host)) = (policy_domain(&attempt.host, hop), hop.host.domain()) else {
        return;
    };
    if !reporter.is_on() || tlsrpt::is_report(&attempt.entry.envelope) {
        return;
    }
    let policy = AppliedPolicy {
        domain: host.clone(),
        found: tlsrpt::ReportedPolicy::Tlsa(Vec::new()),
    };
    let failure = tlsrpt::SessionFailure {
        mx: Some(host.to_string()),
        ..tlsrpt::SessionFailure::new(ResultType::DnssecInvalid)
    };
    let (at, domain, session) = (
        Timestamp::now(),
        domain.clone(),
        SessionResult::Failed(failure),
    );
    reporter.observe(Observation {
        at,
        domain,
        policy: Arc::new(policy),
        session,
    });
}

/// The policy that a domain publishes for a host, as a TLS report names it.
struct ReportedDemand {
    policy: AppliedPolicy,
    /// The verification that the policy asks for, or the reason for which the policy cannot be
    /// used.
    verify: Result<Verify, ResultType>,
}

impl SessionObserver<'_> {
    /// Records a cleared session.
    pub(super) fn observe_cleared(&self, address: SocketAddr, clearance: &Clearance) {
        let outcome = clearance.outcome();
        // The domain is not concerned if we did not use TLS by our own choice.
        if matches!(
            outcome,
            TlsOutcome::Clear(NoTls::NotWanted | NoTls::NotUsed)
        ) {
            return;
        }
        self.observe(Some(address), |demand| match &demand.verify {
            Err(kind) => SessionResult::Failed(tlsrpt::SessionFailure::new(*kind)),
            Ok(verify) => judge_session(verify, outcome),
        });
    }

    /// Records a refused session, or, without an address, a hop that was not dialled.
    pub(super) fn observe_refused(&self, address: Option<SocketAddr>, failure: &Failure) {
        let refusal = match &failure.cause {
            Cause::Policy(refusal) | Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => {
                refusal
            }
            Cause::RequireTls(RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)
            | Cause::Reply { .. }
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => return,
        };
        let concerns_domain = match refusal.demand.layer {
            Layer::Dane | Layer::MtaSts => true,
            Layer::Connector | Layer::Exception | Layer::RequireTls | Layer::DowngradeMemory => {
                matches!(refusal.unmet, Unmet::NoTls(_))
            }
        };
        if concerns_domain {
            self.observe(address, |_| {
                SessionResult::Failed(session_failure(&refusal.unmet))
            });
        }
    }

    fn observe(
        &self,
        address: Option<SocketAddr>,
        session: impl FnOnce(&ReportedDemand) -> SessionResult,
    ) {
        if !self.reporter.is_on() || tlsrpt::is_report(&self.attempt.entry.envelope) {
            return;
        }
        let Some(domain) = policy_domain(&self.attempt.host, self.hop) else {
            return;
        };
        let demand = self.reported_demand(domain);
        let session = match session(&demand) {
            SessionResult::Succeeded => SessionResult::Succeeded,
            SessionResult::Failed(failure) => SessionResult::Failed(tlsrpt::SessionFailure {
                mx: Some(self.hop.host.to_string()),
                receiving_ip: address.map(|address| address.ip()),
                ..failure
            }),
        };
        let (at, domain) = (Timestamp::now(), domain.clone());
        self.reporter.observe(Observation {
            at,
            domain,
            policy: Arc::new(demand.policy),
            session,
        });
    }

    fn reported_demand(&self, domain: &Domain) -> ReportedDemand {
        let of = |found| AppliedPolicy {
            domain: domain.clone(),
            found,
        };
        match &self.found.findings.dane {
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
        match &self.found.published {
            MtaStsLookup::Done(PublishedPolicy::Policy(policy)) => {
                let mx = policy.mx_lines();
                let verify = match &self.found.findings.mta_sts {
                    MtaStsFinding::Enforce(listing) | MtaStsFinding::Testing(listing) => {
                        self.listed(listing)
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

    fn listed(&self, listing: &MtaStsListing) -> Verify {
        match (listing, self.hop.host.domain()) {
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
