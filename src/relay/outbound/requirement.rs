//! The TLS requirement of a message, applied to one hop (RFC 8689).
//!
//! [`crate::policy::layers`] joins the demands on the hop, and [`crate::policy::tls`] judges
//! them. This module chooses which of the hop's policies applies, and names the failure.

use crate::policy::failure::{Cause, Failure, RequireTlsUnmet};
use crate::policy::tls::{Handshake, Layer, Refusal, TlsPolicy, Unmet};
use crate::smtp::address::Host;
use crate::smtp::client::RequireTlsUse;
use crate::smtp::envelope::{Envelope, TlsRequirement};

use super::cleared::Cleared;
use super::target::reference_names;

/// The TLS terms on which a hop may receive a message.
#[derive(Debug)]
pub(super) enum MessageTlsTerms {
    /// The policy of the hop; the message requires nothing more.
    Ordinary(TlsPolicy),
    /// The policy of the hop, for a report about a message that required TLS. REQUIRETLS is
    /// requested where the hop supports it, and the report is sent all the same where it does not
    /// (RFC 8689 §5).
    Preferred {
        /// The policy that the session must satisfy.
        policy: TlsPolicy,
        /// The policy that the session must satisfy before REQUIRETLS is sent on it.
        required: TlsPolicy,
    },
    /// The policy that the message requires (RFC 8689 §4.2.1).
    Required(TlsPolicy),
}

impl MessageTlsTerms {
    /// Returns the terms for a message at a hop. `policy` returns the policy of the hop for a
    /// requirement.
    pub(super) fn new(envelope: &Envelope, policy: impl Fn(TlsRequirement) -> TlsPolicy) -> Self {
        match (envelope.tls, envelope.reverse_path.mailbox()) {
            (requirement @ (TlsRequirement::Ordinary | TlsRequirement::Relaxed), _) => {
                Self::Ordinary(policy(requirement))
            }
            (TlsRequirement::Require, None) => Self::Preferred {
                policy: policy(TlsRequirement::Ordinary),
                required: policy(TlsRequirement::Require),
            },
            (TlsRequirement::Require, Some(_)) => Self::Required(policy(TlsRequirement::Require)),
        }
    }

    /// The policy that a session must satisfy before anything of the envelope is sent.
    // Rule: RFC 8689 §4.2.1.
    pub(super) fn policy(&self) -> &TlsPolicy {
        match self {
            Self::Ordinary(policy) | Self::Preferred { policy, .. } | Self::Required(policy) => {
                policy
            }
        }
    }

    /// Returns the kind of handshake that is needed. A session on which REQUIRETLS may be sent must
    /// show its certificate, even if the hop's policy does not need that.
    pub(super) fn needed_handshake(&self) -> Handshake {
        match self {
            Self::Ordinary(policy) | Self::Required(policy) => policy.needed_handshake(),
            Self::Preferred { required, .. } => required.needed_handshake(),
        }
    }

    /// Returns whether the message may use an idle connection. A resumed one, which shows no
    /// certificate, is not used if a new one may permit REQUIRETLS.
    pub(super) fn admit(&self, connection: &mut Cleared, hop: &Host) -> bool {
        let mut admits = |policy: &TlsPolicy| connection.admits(policy, &reference_names(hop));
        match self {
            Self::Ordinary(policy) | Self::Required(policy) => admits(policy),
            Self::Preferred { policy, required } => {
                admits(policy) && (admits(required) || !connection.is_resumed())
            }
        }
    }

    /// Returns the failure if the administrator switched TLS off for the hop and the message
    /// requires it.
    pub(super) fn refusal(&self) -> Option<Failure> {
        match self {
            Self::Required(TlsPolicy::Off) => Some(Failure::require_tls(RequireTlsUnmet::Off)),
            Self::Required(TlsPolicy::Opportunistic | TlsPolicy::Forced(_))
            | Self::Ordinary(_)
            | Self::Preferred { .. } => None,
        }
    }

    /// Returns the use of REQUIRETLS on a session that meets the policy. It may be sent only if the
    /// session meets RFC 8689 §2.
    pub(super) fn promise(&self, connection: &mut Cleared, hop: &Host) -> RequireTlsUse {
        match self {
            Self::Ordinary(_) => RequireTlsUse::Never,
            Self::Required(_) => RequireTlsUse::Always,
            Self::Preferred {
                required: required @ TlsPolicy::Forced(_),
                ..
            } if connection.admits(required, &reference_names(hop)) => RequireTlsUse::IfOffered,
            Self::Preferred { .. } => RequireTlsUse::Never,
        }
    }

    /// Names a failure by its cause: a session that does not meet the message's requirement is a
    /// failure under RFC 8689, to which the connector's `on_failure` does not apply.
    pub(super) fn name_failure(&self, mut failure: Failure) -> Failure {
        let Self::Required(_) = self else {
            return failure;
        };
        match failure.cause {
            Cause::Policy(refusal) if is_unmet_requirement(&refusal) => {
                let peer = failure.peer.take();
                Failure {
                    peer,
                    ..Failure::require_tls(RequireTlsUnmet::Session(refusal))
                }
            }
            cause => Failure { cause, ..failure },
        }
    }
}

/// Returns whether the session was not TLS with an authenticated server, as RFC 8689 requires. A
/// refusal under the administrator's own demands alone does not count.
// Rule: RFC 8689 §4.2.1.
fn is_unmet_requirement(refusal: &Refusal) -> bool {
    match refusal.demand.layer {
        Layer::Dane | Layer::MtaSts | Layer::RequireTls => true,
        Layer::Connector
        | Layer::Exception
        | Layer::RecipientConnector
        | Layer::DowngradeMemory => {
            matches!(refusal.unmet, Unmet::NoTls(_))
        }
    }
}
