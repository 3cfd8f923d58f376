//! What a message itself asks of TLS, and what that makes of one hop (RFC 8689).
//!
//! The judge stays the one in [`crate::tls`]: here a policy is raised, never lowered, and what came of it
//! is given its name. Whether a domain's MX hosts can be trusted is found by who looks them up.

use crate::address::Host;
use crate::envelope::{Envelope, TlsRequirement};
use crate::outcome::{Cause, Failure, Unpromised};
use crate::smtp::client::Promise;
use crate::tls::{Demand, NamePattern, Refusal, Shortfall, TlsPolicy, TlsVersion, Verify};

use super::cleared::Cleared;
use super::dial::reference;

/// On which terms one hop may have the message.
#[derive(Debug)]
pub(super) enum Terms {
    /// Those of the hop: the message asks for nothing, or for less than the administrator does.
    Ordinary(TlsPolicy),
    /// Those of the hop. The message is a report about one that required TLS: REQUIRETLS is asked for
    /// where it can be had, and the report is not lost where it cannot (RFC 8689 §5).
    Preferred {
        /// What the hop must show.
        policy: TlsPolicy,
        /// What it must have shown before REQUIRETLS may be said to it.
        required: TlsPolicy,
    },
    /// Those of the message (RFC 8689 §4.2.1).
    Required {
        /// What the hop would have to show for other mail.
        floor: TlsPolicy,
        /// What it must show for this.
        policy: TlsPolicy,
    },
}

impl Terms {
    /// The terms for a message at a hop whose policy for other mail is `floor`.
    pub(super) fn new(envelope: &Envelope, floor: TlsPolicy, hop: &Host) -> Self {
        match (envelope.tls, envelope.reverse_path.mailbox()) {
            (TlsRequirement::Ordinary | TlsRequirement::Relaxed, _) => Self::Ordinary(floor),
            (TlsRequirement::Require, None) => Self::Preferred { required: raised(&floor, hop), policy: floor },
            (TlsRequirement::Require, Some(_)) => Self::Required { policy: raised(&floor, hop), floor },
        }
    }

    /// What a session with the hop must show before anything is said of the message.
    pub(super) fn policy(&self) -> &TlsPolicy {
        match self {
            Self::Ordinary(policy) | Self::Preferred { policy, .. } | Self::Required { policy, .. } => policy,
        }
    }

    /// What is asked of the peer on a session that meets the policy: REQUIRETLS may be said only where the
    /// session is as RFC 8689 §2 wants it.
    pub(super) fn promise(&self, connection: &mut Cleared, hop: &Host) -> Promise {
        match self {
            Self::Ordinary(_) => Promise::NotAsked,
            Self::Required { .. } => Promise::Needed,
            Self::Preferred { required, .. } if connection.admits(required, &reference(hop)) => Promise::Welcome,
            Self::Preferred { .. } => Promise::NotAsked,
        }
    }

    /// A hop's failure by its right name: a session that falls short of what the message requires concerns
    /// the message, not the connector, and `on_failure` has no say in it.
    pub(super) fn named(&self, mut failure: Failure) -> Failure {
        let Self::Required { floor, .. } = self else { return failure };
        match failure.cause {
            Cause::Policy(refusal) if falls_short_of_the_message(&refusal, floor) => {
                let peer = failure.peer.take();
                Failure { peer, ..Failure::unpromised(Unpromised::Session(refusal)) }
            }
            cause => Failure { cause, ..failure },
        }
    }
}

/// Whether a refusal says that TLS to an authenticated server was not to be had, and not only that the
/// connector's own demand was not met.
fn falls_short_of_the_message(refusal: &Refusal, floor: &TlsPolicy) -> bool {
    let is_the_connectors = matches!(floor, TlsPolicy::Forced(demand) if *demand == refusal.wanted);
    matches!(refusal.got, Shortfall::NoTls(_)) || !is_the_connectors
}

/// A policy with what REQUIRETLS demands: TLS, and a certificate for the hop's own name (RFC 8689 §4.2.1,
/// steps 2 and 4). A host without a name can prove none.
fn raised(floor: &TlsPolicy, hop: &Host) -> TlsPolicy {
    let authenticated = Verify::Name(hop.domain().map(|name| NamePattern::Exact(name.clone())).into_iter().collect());
    TlsPolicy::Forced(match floor {
        TlsPolicy::Off | TlsPolicy::Opportunistic => Demand { min_version: TlsVersion::V1_2, verify: authenticated },
        TlsPolicy::Forced(demand) => match &demand.verify {
            Verify::None | Verify::Chain => Demand { verify: authenticated, ..demand.clone() },
            // The names that the administrator gave are the stronger word.
            Verify::Name(_) => demand.clone(),
        },
    })
}
