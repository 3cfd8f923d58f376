//! The events of deliveries, and the trait of those that observe them.
//!
//! There is one [`SessionEvent`] for each address that is dialled, for each hop that is not
//! dialled, and for each message on an idle connection; and one [`RecipientEvent`] for each
//! recipient of an attempt. Each is built once, from typed values, and every observer reads the
//! same.

use std::fmt;
use std::time::Instant;

use jiff::Timestamp;

use crate::config::Connector;
use crate::discovery::HopLookup;
use crate::discovery::history::{LevelChange, TlsLevel};
use crate::net::route::Hop;
use crate::policy::failure::{Failure, Peer};
use crate::policy::tls::{Clearance, Hello, NoTls, Refusal, TlsPolicy, Verdict};
use crate::relay::outbound::attempt::{Attempt, RecipientResult};
use crate::relay::outbound::login_result::LoginAttempt;
use crate::relay::outbound::plan::HopUnusable;
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Mailbox;
use crate::smtp::envelope::AttemptFailure;
use crate::smtp::reply::Reply;
use crate::telemetry::certificates::WatchedCertificate;
use crate::telemetry::{HandshakeResult, PolicyDecision};

/// Observes deliveries. An observer decides nothing, and returns nothing.
///
/// To add one, implement this trait and add the observer to `Observers::list`.
pub trait DeliveryObserver: Send + Sync {
    /// Observes that a session with a next hop is ready for mail, ended before that, or was not
    /// begun.
    fn observe_session(&self, _event: &SessionEvent<'_>) {}

    /// Observes the end of an attempt, or of recipients without an attempt (see [`EventOrigin`]):
    /// one event for each recipient that has an outcome. The outcome is not stored yet.
    fn observe_recipients(&self, _events: &[RecipientEvent<'_>]) {}
}

/// Observes nothing.
impl DeliveryObserver for () {}

impl<F: Fn(&[RecipientEvent<'_>]) + Send + Sync> DeliveryObserver for F {
    fn observe_recipients(&self, events: &[RecipientEvent<'_>]) {
        self(events);
    }
}

/// A session with a next hop, from the dial to the point at which mail may be sent; or the reason
/// for which there is none.
#[derive(Debug, Clone, Copy)]
pub struct SessionEvent<'a> {
    /// The time of the outcome.
    pub at: Timestamp,
    /// The attempt.
    pub attempt: &'a Attempt,
    /// The connector of the recipient domain.
    pub connector: &'a Connector,
    /// The hop.
    pub hop: &'a Hop,
    /// The peer; `None` if the hop was not dialled.
    pub peer: Option<&'a Peer>,
    /// The facts that discovery found for the hop; `None` if they are unknown.
    pub found: Option<&'a HopLookup>,
    /// The policy of the hop; `None` if it is unknown.
    pub policy: Option<&'a TlsPolicy>,
    /// The steps of the session.
    pub steps: &'a SessionSteps,
    /// The outcome.
    pub outcome: SessionOutcome<'a>,
    /// The TLS level that the session showed, and the change against the downgrade memory; `None`
    /// if it showed none.
    pub shown: Option<(TlsLevel, LevelChange)>,
}

/// The outcome of a session.
#[derive(Debug, Clone, Copy)]
pub enum SessionOutcome<'a> {
    /// A new session with a clearance.
    Cleared(&'a Clearance),
    /// An idle session, with a clearance for another message.
    Reused(&'a Clearance),
    /// The session failed, or the TLS judge refused it.
    Failed(&'a Failure),
    /// The hop was not dialled, since no session could meet its policy.
    Unmeetable(&'a Refusal),
    /// The hop was not dialled: it has no address, or its policy is unknown.
    Unusable(&'a HopUnusable),
}

impl SessionEvent<'_> {
    /// Returns the TLS level that the domain showed before, if this session shows less and the
    /// connector warns of that.
    #[must_use]
    pub fn downgraded_from(&self) -> Option<TlsLevel> {
        use crate::config::OnDowngrade;
        match (self.outcome, self.shown, self.connector.outbound.downgrade) {
            (
                SessionOutcome::Cleared(_) | SessionOutcome::Reused(_),
                Some((_, LevelChange::Worse { was })),
                // With `refuse`, a session that lost TLS is refused by the judge before this; a
                // smaller loss only warns.
                OnDowngrade::Warn | OnDowngrade::Refuse,
            ) => Some(was.level),
            _ => None,
        }
    }

    /// Returns the TLS judge's refusal, if there was one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.outcome {
            SessionOutcome::Failed(failure) => failure.refusal(),
            SessionOutcome::Unmeetable(refusal) => Some(refusal),
            SessionOutcome::Cleared(_)
            | SessionOutcome::Reused(_)
            | SessionOutcome::Unusable(_) => None,
        }
    }
}

/// The steps of one session on its way to the TLS judge.
#[derive(Debug, Default)]
pub struct SessionSteps {
    /// The handshakes, in order.
    pub handshakes: Vec<HandshakeResult>,
    /// The first handshake, if it was cut short and another one was tried.
    pub first_try: Option<FirstTry>,
    /// The verdicts of the TLS judge, in order. A session that ends after its verdict is judged
    /// once more.
    pub verdicts: Vec<VerdictSummary>,
    /// The reason why TLS failed, if the judge permitted a fresh connection in the clear.
    pub fallback: Option<NoTls>,
    /// Our login at the host, if the connector has one and the session came that far.
    pub login: Option<LoginAttempt>,
}

/// A handshake that was cut short, and the `ClientHello` of the second try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstTry {
    /// The error of the first handshake, as text.
    pub fault: String,
    /// The `ClientHello` of the second try.
    pub second: Hello,
}

/// A verdict of the TLS judge.
#[derive(Debug)]
pub struct VerdictSummary {
    /// The decision.
    pub decision: PolicyDecision,
    /// The certificate of the peer, if it showed one.
    pub certificate: Option<WatchedCertificate>,
    /// The refusal, as text.
    pub refused: Option<String>,
}

impl VerdictSummary {
    pub(in crate::relay::outbound) fn of(
        verdict: &Verdict,
        certificate: Option<WatchedCertificate>,
    ) -> Self {
        let (decision, refused) = match verdict {
            Verdict::Cleared(_) => (PolicyDecision::Cleared, None),
            Verdict::Redial(_) => (PolicyDecision::FellBack, None),
            Verdict::Refused(refusal) => (PolicyDecision::Refused, Some(refusal.to_string())),
        };
        Self {
            decision,
            certificate,
            refused,
        }
    }
}

/// The end of an attempt for one recipient.
#[derive(Debug, Clone)]
pub struct RecipientEvent<'a> {
    /// The attempt.
    pub attempt: &'a Attempt,
    /// The index of the recipient in the envelope.
    pub recipient: usize,
    /// The address of the recipient.
    pub mailbox: &'a Mailbox,
    /// The origin of the outcome.
    pub origin: EventOrigin,
    /// The configuration that the attempt used.
    pub snapshot: &'a Snapshot,
    /// The connector that the attempt used.
    pub connector: &'a Connector,
    /// The number of attempts for this recipient, this one included; 0 if a deadline passed without
    /// one.
    pub attempts: u32,
    /// The result of the attempt; `None` if a deadline passed without one.
    pub result: Option<&'a RecipientResult>,
    /// The outcome in the queue. A result that is deferred ends as bounced if the message has
    /// expired.
    pub ending: RecipientEnding<'a>,
}

/// The origin of a recipient's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOrigin {
    /// An attempt.
    Attempt,
    /// A deadline that passed without an attempt.
    Deadline,
    /// The message was given up without an attempt, by an operator or because its content was
    /// damaged.
    GivenUp,
}

/// The outcome of one recipient in the queue.
#[derive(Debug, Clone)]
pub enum RecipientEnding<'a> {
    /// The next hop accepted the message, with this reply.
    Delivered(&'a Reply),
    /// Another attempt follows.
    Deferred {
        /// The failure.
        last: AttemptFailure,
        /// The time of the next attempt by the monotonic clock, for the queue in memory.
        due: Instant,
        /// The same time by the system clock, for the stored state.
        next: Timestamp,
    },
    /// An operator must decide.
    Held {
        /// The failure.
        last: AttemptFailure,
    },
    /// The recipient is given up.
    Bounced {
        /// The failure.
        last: AttemptFailure,
        /// True if a host rejected the message for its content, and may accept it in another form.
        is_of_content: bool,
    },
}

impl RecipientEnding<'_> {
    /// Returns the failure, unless the message was delivered.
    #[must_use]
    pub fn failure(&self) -> Option<&AttemptFailure> {
        match self {
            Self::Delivered(_) => None,
            Self::Deferred { last, .. } | Self::Held { last } | Self::Bounced { last, .. } => {
                Some(last)
            }
        }
    }
}

impl RecipientEvent<'_> {
    /// Returns the failure of the attempt, unless it delivered the message.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.result.and_then(|result| result.outcome.failure())
    }
}

impl fmt::Debug for dyn DeliveryObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliveryObserver")
    }
}
