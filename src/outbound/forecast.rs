//! What would come of a hop, for each kind of peer that may answer there: the judges' own words, asked
//! before anybody is dialled.

use jiff::Timestamp;

use crate::envelope::TlsRequirement;
use crate::failure::{self, Failure, NextStep, RequireTlsUnmet};
use crate::route::Hop;
use crate::tls::{self, Clearance, Hello, Hellos, SamplePeer, TlsPolicy, Verdict};

use super::dial::reference;
use super::plan::Purpose;
use super::requirement::Terms;
use super::second_try;

/// One kind of peer, and what would come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prospect {
    /// What answers.
    pub peer: SamplePeer,
    /// Whether it offers what the message asks beside TLS (REQUIRETLS); every peer does that need not.
    pub offers_requiretls: bool,
    /// What follows.
    pub ending: Ending,
}

/// What would come of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The message is handed over.
    Sent(Clearance),
    /// The message is handed over on a fresh connection, in the clear.
    SentAgain(Clearance),
    /// Nothing of the message is said; the next hop is tried.
    Refused {
        /// Why.
        failure: Failure,
        /// What becomes of the message where there is no next hop.
        last: NextStep,
    },
}

/// Why a hop is not even dialled, where that is so: no peer could meet the policy.
#[must_use]
pub fn not_dialled(policy: &TlsPolicy, requirement: TlsRequirement) -> Option<Failure> {
    let terms = terms(policy, requirement);
    terms.refused().or_else(|| tls::unmeetable(policy).map(|refusal| terms.named(Failure::policy(refusal))))
}

/// As for any message but a report.
fn terms(policy: &TlsPolicy, requirement: TlsRequirement) -> Terms {
    match requirement {
        TlsRequirement::Ordinary | TlsRequirement::Relaxed => Terms::Ordinary(policy.clone()),
        TlsRequirement::Require => Terms::Required(policy.clone()),
    }
}

/// The `ClientHello`s that a hop is shown; nothing where TLS is off. `known` is the one that it
/// accepted lately in the place of the usual one.
#[must_use]
pub fn hellos(policy: &TlsPolicy, purpose: Purpose<'_>, hop: &Hop, known: Option<Hello>) -> Option<Hellos> {
    let handshake = terms(policy, purpose.requirement).needed_handshake();
    let chosen =
        || second_try::hellos(policy, purpose.connector, &second_try::server_name(policy, hop), handshake, known);
    (*policy != TlsPolicy::Off).then(chosen)
}

/// Asks the judges about each kind of peer at a hop that is dialled.
#[must_use]
pub fn forecast(policy: &TlsPolicy, purpose: Purpose<'_>, hop: &Hop, now: Timestamp) -> Vec<Prospect> {
    let on_failure = purpose.connector.outbound.on_failure;
    let refused = |failure: Failure| {
        let last = failure::decide(&failure, false, on_failure);
        Ending::Refused { failure, last }
    };
    let terms = terms(policy, purpose.requirement);
    let names = reference(&hop.host);
    let ask = |peer: SamplePeer| match tls::judge(policy, peer.outcome(policy, &names, now), &names) {
        Verdict::Cleared(clearance) => Ending::Sent(clearance),
        Verdict::Redial(fallback) => Ending::SentAgain(fallback.clearance()),
        Verdict::Refused(refusal) => refused(terms.named(Failure::policy(refusal))),
    };
    let mut prospects: Vec<_> = SamplePeer::servers(policy)
        .into_iter()
        .map(|peer| Prospect { peer, offers_requiretls: true, ending: ask(peer) })
        .collect();
    let best = prospects.last().map(|prospect| (prospect.peer, prospect.ending.clone()));
    match (purpose.requirement, best) {
        (TlsRequirement::Require, Some((peer, Ending::Sent(_) | Ending::SentAgain(_)))) => {
            let ending = refused(Failure::require_tls(RequireTlsUnmet::NotOffered));
            prospects.push(Prospect { peer, offers_requiretls: false, ending });
        }
        (TlsRequirement::Require | TlsRequirement::Ordinary | TlsRequirement::Relaxed, _) => {}
    }
    prospects
}
