//! The forecast for a hop: the judges' verdict on each kind of peer that may answer there, without
//! dialling it.

use jiff::Timestamp;

use crate::config::HopProtocol;
use crate::net::route::Hop;
use crate::policy::failure::{self, Failure, LoginProblem, NextStep, RequireTlsUnmet};
use crate::policy::tls::{self, Clearance, Hello, Hellos, SamplePeer, TlsPolicy, Verdict};
use crate::smtp::envelope::TlsRequirement;

use super::dial::without_fallback;
use super::hellos::{choose_hellos, server_name};
use super::plan::MailContext;
use super::requirement::MessageTlsTerms;
use super::target::reference_names;

/// A kind of peer, and the result of a delivery to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerOutcome {
    /// The kind of peer.
    pub peer: SamplePeer,
    /// True if the peer offers REQUIRETLS; also true if the message does not need it.
    pub offers_requiretls: bool,
    /// The result of the delivery.
    pub ending: DeliveryForecast,
}

/// The result of a delivery to one kind of peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryForecast {
    /// The message is sent.
    Sent(Clearance),
    /// The message is sent in the clear, on a fresh connection.
    SentAgain(Clearance),
    /// The message is not sent to this hop; the next hop is tried.
    Refused {
        /// The reason.
        failure: Failure,
        /// The fate of the message if there is no next hop.
        last: NextStep,
    },
}

/// Returns the reason for which a hop is not dialled, if there is one: TLS is off for a message
/// that requires it, or no peer could meet the policy.
#[must_use]
pub fn undialled_reason(policy: &TlsPolicy, requirement: TlsRequirement) -> Option<Failure> {
    let terms = terms(policy, requirement);
    terms.refusal().or_else(|| {
        tls::unmeetable(policy).map(|refusal| terms.name_failure(Failure::policy(refusal)))
    })
}

/// Returns the terms for a message that is not a report.
fn terms(policy: &TlsPolicy, requirement: TlsRequirement) -> MessageTlsTerms {
    match requirement {
        TlsRequirement::Ordinary | TlsRequirement::Relaxed => {
            MessageTlsTerms::Ordinary(policy.clone())
        }
        TlsRequirement::Require => MessageTlsTerms::Required(policy.clone()),
    }
}

/// Returns the `ClientHello`s that a hop is shown; `None` if TLS is off. `known` is the one that
/// the hop accepted lately in place of the usual one.
#[must_use]
pub fn hellos(
    policy: &TlsPolicy,
    context: MailContext<'_>,
    hop: &Hop,
    known: Option<Hello>,
) -> Option<Hellos> {
    let handshake = terms(policy, context.requirement).needed_handshake();
    let chosen = || {
        choose_hellos(
            policy,
            context.connector,
            &server_name(policy, hop),
            handshake,
            known,
        )
    };
    let is_socket = matches!(hop.protocol, HopProtocol::LmtpSocket(_));
    (*policy != TlsPolicy::Off && !is_socket).then(chosen)
}

/// Returns whether a hop of this protocol can behave like this kind of peer.
fn is_possible(peer: SamplePeer, protocol: &HopProtocol) -> bool {
    let has_starttls = matches!(
        peer,
        SamplePeer::NotOffered | SamplePeer::Rejects | SamplePeer::SpeaksEarly
    );
    match protocol {
        HopProtocol::Smtp | HopProtocol::Lmtp => true,
        HopProtocol::Smtps => !has_starttls,
        HopProtocol::LmtpSocket(_) => {
            matches!(peer, SamplePeer::NotAsked | SamplePeer::NotOffered)
        }
    }
}

/// Returns whether a login is needed, and the session does not prove who the peer is.
fn lacks_login_proof(context: MailContext<'_>, clearance: &Clearance) -> bool {
    context.connector.outbound.auth.is_some() && clearance.peer_proof().is_none()
}

/// Asks the judges about each kind of peer at a hop that is dialled.
#[must_use]
pub fn forecast(
    policy: &TlsPolicy,
    context: MailContext<'_>,
    hop: &Hop,
    now: Timestamp,
) -> Vec<PeerOutcome> {
    let on_failure = context.connector.outbound.on_failure;
    let refused = |failure: Failure| {
        let last = failure::decide(&failure, false, on_failure);
        DeliveryForecast::Refused { failure, last }
    };
    let terms = terms(policy, context.requirement);
    let names = reference_names(&hop.host);
    let predict =
        |peer: SamplePeer| match tls::judge(policy, peer.outcome(policy, &names, now), &names) {
            Verdict::Cleared(clearance) if lacks_login_proof(context, &clearance) => {
                refused(Failure::login(LoginProblem::Unproven))
            }
            Verdict::Cleared(clearance) => DeliveryForecast::Sent(clearance),
            Verdict::Redial(fallback) if hop.protocol == HopProtocol::Smtps => {
                refused(without_fallback(&fallback))
            }
            Verdict::Redial(_) if context.connector.outbound.auth.is_some() => {
                refused(Failure::login(LoginProblem::Unproven))
            }
            Verdict::Redial(fallback) => DeliveryForecast::SentAgain(fallback.clearance()),
            Verdict::Refused(refusal) => refused(terms.name_failure(Failure::policy(refusal))),
        };
    let mut outcomes: Vec<_> = SamplePeer::servers(policy)
        .into_iter()
        .filter(|peer| is_possible(*peer, &hop.protocol))
        .map(|peer| PeerOutcome {
            peer,
            offers_requiretls: true,
            ending: predict(peer),
        })
        .collect();
    let best = outcomes
        .last()
        .map(|outcome| (outcome.peer, outcome.ending.clone()));
    match (context.requirement, best) {
        (
            TlsRequirement::Require,
            Some((peer, DeliveryForecast::Sent(_) | DeliveryForecast::SentAgain(_))),
        ) => {
            let ending = refused(Failure::require_tls(RequireTlsUnmet::NotOffered));
            outcomes.push(PeerOutcome {
                peer,
                offers_requiretls: false,
                ending,
            });
        }
        (TlsRequirement::Require | TlsRequirement::Ordinary | TlsRequirement::Relaxed, _) => {}
    }
    outcomes
}
