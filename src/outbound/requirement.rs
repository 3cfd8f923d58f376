//! What a message itself asks of TLS, and what that makes of one hop (RFC 8689).
//!
//! What the hop must show is joined in [`crate::connector`] and judged in [`crate::tls`]; here it is chosen
//! which of its policies counts, and what came of it is given its name.

use crate::address::Host;
use crate::envelope::{Envelope, TlsRequirement};
use crate::failure::{Cause, Failure, RequireTlsUnmet};
use crate::smtp::client::RequireTlsUse;
use crate::tls::{Handshake, Layer, Refusal, TlsPolicy, Unmet};

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
    Required(TlsPolicy),
}

impl Terms {
    /// The terms for a message at a hop; `policy` tells what the hop must show, for what a message asks.
    pub(super) fn new(envelope: &Envelope, policy: impl Fn(TlsRequirement) -> TlsPolicy) -> Self {
        match (envelope.tls, envelope.reverse_path.mailbox()) {
            (asked @ (TlsRequirement::Ordinary | TlsRequirement::Relaxed), _) => Self::Ordinary(policy(asked)),
            (TlsRequirement::Require, None) => {
                Self::Preferred { policy: policy(TlsRequirement::Ordinary), required: policy(TlsRequirement::Require) }
            }
            (TlsRequirement::Require, Some(_)) => Self::Required(policy(TlsRequirement::Require)),
        }
    }

    /// What a session with the hop must show before anything is said of the message.
    pub(super) fn policy(&self) -> &TlsPolicy {
        match self {
            Self::Ordinary(policy) | Self::Preferred { policy, .. } | Self::Required(policy) => policy,
        }
    }

    /// What a session must be able to say of the peer: who is to promise more than the hop must show has to show who
    /// it is.
    pub(super) fn needed_handshake(&self) -> Handshake {
        match self {
            Self::Ordinary(policy) | Self::Required(policy) => policy.needed_handshake(),
            Self::Preferred { required, .. } => required.needed_handshake(),
        }
    }

    /// Whether the message may go over a connection that waits. One that shows no certificate, for it was taken up
    /// again from an earlier one, makes way where a fresh one may do better.
    pub(super) fn admit(&self, connection: &mut Cleared, hop: &Host) -> bool {
        let mut admits = |policy: &TlsPolicy| connection.admits(policy, &reference(hop));
        match self {
            Self::Ordinary(policy) | Self::Required(policy) => admits(policy),
            Self::Preferred { policy, required } => admits(policy) && (admits(required) || !connection.is_renewed()),
        }
    }

    /// Why the message cannot go to the hop, although no demand is in its way: TLS is switched off, and that is
    /// the administrator's word.
    pub(super) fn refused(&self) -> Option<Failure> {
        match self {
            Self::Required(TlsPolicy::Off) => Some(Failure::require_tls(RequireTlsUnmet::Off)),
            Self::Required(TlsPolicy::Opportunistic | TlsPolicy::Forced(_))
            | Self::Ordinary(_)
            | Self::Preferred { .. } => None,
        }
    }

    /// What is asked of the peer on a session that meets the policy: REQUIRETLS may be said only where the
    /// session is as RFC 8689 §2 wants it.
    pub(super) fn promise(&self, connection: &mut Cleared, hop: &Host) -> RequireTlsUse {
        match self {
            Self::Ordinary(_) => RequireTlsUse::Never,
            Self::Required(_) => RequireTlsUse::Always,
            Self::Preferred { required: required @ TlsPolicy::Forced(_), .. }
                if connection.admits(required, &reference(hop)) =>
            {
                RequireTlsUse::IfOffered
            }
            Self::Preferred { .. } => RequireTlsUse::Never,
        }
    }

    /// A hop's failure by its right name: a session that falls short of what the message requires concerns
    /// the message, not the connector, and `on_failure` has no say in it.
    pub(super) fn named(&self, mut failure: Failure) -> Failure {
        let Self::Required(_) = self else { return failure };
        match failure.cause {
            Cause::Policy(refusal) if falls_short_of_the_message(&refusal) => {
                let peer = failure.peer.take();
                Failure { peer, ..Failure::require_tls(RequireTlsUnmet::Session(refusal)) }
            }
            cause => Failure { cause, ..failure },
        }
    }
}

/// Whether a refusal says that TLS to an authenticated server was not to be had, and not only that what the
/// administrator wants was not met.
fn falls_short_of_the_message(refusal: &Refusal) -> bool {
    match refusal.demand.layer {
        Layer::Dane | Layer::MtaSts | Layer::RequireTls => true,
        Layer::Connector | Layer::Exception | Layer::DowngradeMemory => matches!(refusal.unmet, Unmet::NoTls(_)),
    }
}
