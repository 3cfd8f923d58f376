//! The failure judge: decides what a failure means for the recipients that it affects.
//!
//! A failure has a scope (what it affects) and a persistence (whether it may pass). The judge
//! derives the next step from both. It sends nothing, waits for nothing and knows no schedule. The
//! rules follow RFC 5321 §4.2.1 and §5.1, RFC 3463 and, for REQUIRETLS, RFC 8689 §4.2.1.

pub mod for_sender;
mod host;
mod login;
mod tls_demanded;

use std::fmt;

use crate::policy::connector::OnFailure;
use crate::policy::tls::{Refusal, SessionTls, TlsOutcome};
use crate::smtp::reply::{EnhancedStatusCode, Reply, Severity, Status};
pub use host::{FailedHost, HopAddress, Peer};
pub use login::LoginProblem;

/// The part of an attempt that a failure affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One host or address; another hop may succeed.
    Hop,
    /// The destination as a whole; no hop can succeed.
    Destination,
    /// This message, for all recipients.
    Message,
    /// One recipient.
    Recipient,
}

/// The persistence of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It may pass: a 4xx reply, the network, or a problem of ours.
    Transient,
    /// It will not pass: a 5xx reply.
    Permanent,
}

/// The cause of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The connector's demand, or that of another layer, is not satisfied.
    Policy(Box<Refusal>),
    /// The demand of REQUIRETLS is not satisfied (RFC 8689).
    RequireTls(RequireTlsUnmet),
    /// The peer rejected a command.
    Reply {
        /// The command or stage, such as "RCPT TO" or "greeting".
        stage: &'static str,
        /// The peer's reply.
        reply: Reply,
    },
    /// We could not log in at the host.
    Login(Box<LoginProblem>),
    /// The host is this relay itself; the evidence for that.
    Ourselves(String),
    /// The published TLS policy of the domain or host cannot be looked up, or is out of date; the
    /// reason.
    Discovery(String),
    /// Any other cause, as text: network, DNS, protocol, our own disk.
    Other(String),
}

/// The reason why a hop cannot receive a message with REQUIRETLS (RFC 8689 §4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequireTlsUnmet {
    /// The session does not satisfy the demand (step 4), or the host is not proven to be the
    /// domain's (step 2).
    Session(Box<Refusal>),
    /// The connector switches TLS off, and a message cannot overrule that. No connection is made.
    Off,
    /// The peer does not offer REQUIRETLS (step 5).
    NotOffered,
}

impl fmt::Display for RequireTlsUnmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(refusal) => write!(f, "the message requires TLS on its whole way (REQUIRETLS): {refusal}"),
            Self::Off => f.write_str(
                "the message requires TLS on its whole way (REQUIRETLS), and the connector has it switched off",
            ),
            Self::NotOffered => f.write_str(
                "the message requires TLS on its whole way, and the host does not promise that (it does not offer REQUIRETLS)",
            ),
        }
    }
}

/// A failure: scope, persistence, status and cause, and the host where it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The part of the attempt that it affects.
    pub scope: Scope,
    /// The persistence.
    pub persistence: Persistence,
    /// Subject and detail of the enhanced status; the class follows from the outcome.
    pub status: Status,
    /// The cause.
    pub cause: Cause,
    /// The host where it happened, if there was one.
    pub peer: Option<FailedHost>,
    /// The TLS of the session, if the failure ended a TLS session before MAIL FROM; for the record.
    pub session: Option<Box<SessionTls>>,
}

impl Failure {
    /// A peer's reply that is not the expected one, shortened for logs and reports. The enhanced
    /// status is the peer's, if it gave one.
    ///
    /// An unexpected positive reply, such as 2xx to DATA, is a fault of the peer that may pass.
    #[must_use]
    pub fn reply(scope: Scope, stage: &'static str, reply: Reply) -> Self {
        let persistence = match reply.severity() {
            Severity::Permanent => Persistence::Permanent,
            Severity::Transient | Severity::Intermediate | Severity::Success => {
                Persistence::Transient
            }
        };
        let status = match reply.enhanced() {
            Some(enhanced) if enhanced.severity() == reply.severity() => enhanced.status(),
            _ => Status(0, 0),
        };
        Self {
            scope,
            persistence,
            status,
            cause: Cause::Reply {
                stage,
                reply: reply.shortened(),
            },
            peer: None,
            session: None,
        }
    }

    /// A peer's negative reply in a session with this TLS outcome. If it demands TLS that we tried
    /// and failed to use, or that was not offered, the failure may pass at another hop, and its
    /// text gives both reasons.
    #[must_use]
    pub fn reply_in_session(
        scope: Scope,
        stage: &'static str,
        reply: Reply,
        outcome: &TlsOutcome,
    ) -> Self {
        match tls_demanded::reason(&reply, outcome) {
            None => Self::reply(scope, stage, reply),
            Some(reason) => {
                let Self { status, .. } = Self::reply(scope, stage, reply.clone());
                let text = format!(
                    "answered {stage} with: {}, for the session is in the clear: {reason}",
                    reply.shortened()
                );
                Self::transient(Scope::Hop, status, text)
            }
        }
    }

    /// A hop that does not satisfy the policy.
    #[must_use]
    pub fn policy(refusal: Refusal) -> Self {
        Self {
            scope: Scope::Hop,
            persistence: Persistence::Transient,
            status: refusal.status(),
            cause: Cause::Policy(Box::new(refusal)),
            peer: None,
            session: None,
        }
    }

    /// A hop that cannot receive a message with REQUIRETLS. It is permanent: the message bounces
    /// once every hop has failed so (RFC 8689 §4.2.1).
    #[must_use]
    pub fn require_tls(why: RequireTlsUnmet) -> Self {
        let status = match why {
            RequireTlsUnmet::Session(_) | RequireTlsUnmet::Off => Status(7, 10),
            RequireTlsUnmet::NotOffered => Status(7, 30),
        };
        Self {
            scope: Scope::Hop,
            persistence: Persistence::Permanent,
            status,
            cause: Cause::RequireTls(why),
            peer: None,
            session: None,
        }
    }

    /// A host at which we could not log in. It is transient, also after a 5xx: the message is not at
    /// fault, and an administrator can correct the password.
    // Rule: RFC 4954 §6.
    #[must_use]
    pub fn login(problem: LoginProblem) -> Self {
        Self {
            status: problem.status(),
            cause: Cause::Login(Box::new(problem)),
            ..Self::transient(Scope::Hop, Status(7, 0), "")
        }
    }

    /// A host that is this relay itself. One such host is no proof of a mail loop, so the failure
    /// is transient: the host is left out, and so are the hops after it, whose preference is no
    /// better (RFC 5321 §5.1).
    #[must_use]
    pub fn ourselves(how: impl Into<String>) -> Self {
        let (scope, persistence) = (Scope::Hop, Persistence::Transient);
        Self {
            scope,
            persistence,
            status: Status(4, 6),
            cause: Cause::Ourselves(how.into()),
            peer: None,
            session: None,
        }
    }

    /// Returns true if the host is this relay itself.
    #[must_use]
    pub fn is_ourselves(&self) -> bool {
        matches!(self.cause, Cause::Ourselves(_))
    }

    /// Returns true if the failure concerns REQUIRETLS, and so no other message.
    #[must_use]
    pub fn is_require_tls(&self) -> bool {
        matches!(self.cause, Cause::RequireTls(_))
    }

    /// A hop whose published TLS policy is needed and cannot be looked up. It is transient.
    #[must_use]
    pub fn discovery(status: Status, text: impl Into<String>) -> Self {
        let cause = Cause::Discovery(text.into());
        Self {
            cause,
            ..Self::transient(Scope::Hop, status, "")
        }
    }

    /// Any other transient failure.
    #[must_use]
    pub fn transient(scope: Scope, status: Status, text: impl Into<String>) -> Self {
        Self {
            scope,
            persistence: Persistence::Transient,
            status,
            cause: Cause::Other(text.into()),
            peer: None,
            session: None,
        }
    }

    /// Any other permanent failure.
    #[must_use]
    pub fn permanent(scope: Scope, status: Status, text: impl Into<String>) -> Self {
        Self {
            persistence: Persistence::Permanent,
            ..Self::transient(scope, status, text)
        }
    }

    /// Adds the host where it happened.
    #[must_use]
    pub fn with_peer(mut self, peer: impl Into<FailedHost>) -> Self {
        self.peer = Some(peer.into());
        self
    }

    /// Adds the TLS of the session that the failure ended.
    #[must_use]
    pub fn with_session(mut self, session: &SessionTls) -> Self {
        self.session = Some(Box::new(session.clone()));
        self
    }

    /// The enhanced status code, with the class of the persistence in which the failure ends.
    #[must_use]
    pub fn enhanced(&self, ends_as: Persistence) -> EnhancedStatusCode {
        match ends_as {
            Persistence::Transient => EnhancedStatusCode::transient(self.status),
            Persistence::Permanent => EnhancedStatusCode::permanent(self.status),
        }
    }

    /// Returns the TLS judge's refusal, if the failure is one: the demand of a layer or of
    /// REQUIRETLS is unmet.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.cause {
            Cause::Policy(refusal) | Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => {
                Some(refusal)
            }
            Cause::RequireTls(RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)
            | Cause::Reply { .. }
            | Cause::Login(_)
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => None,
        }
    }

    /// The peer's reply, if there was one.
    #[must_use]
    pub fn peer_reply(&self) -> Option<&Reply> {
        match &self.cause {
            Cause::Reply { reply, .. } => Some(reply),
            Cause::Login(problem) => problem.reply(),
            Cause::Policy(_)
            | Cause::RequireTls(_)
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(peer) = &self.peer {
            write!(f, "{peer}: ")?;
        }
        match &self.cause {
            Cause::Policy(refusal) => refusal.fmt(f),
            Cause::RequireTls(why) => why.fmt(f),
            Cause::Reply { stage, reply } => write!(f, "answered {stage} with: {reply}"),
            Cause::Login(problem) => problem.fmt(f),
            Cause::Ourselves(text) | Cause::Discovery(text) | Cause::Other(text) => {
                f.write_str(text)
            }
        }
    }
}

/// The next step after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// The next hop is tried for the same recipients.
    NextHop,
    /// The recipients wait for the next attempt.
    Defer,
    /// The recipients wait for an operator.
    Hold,
    /// The recipients are given up and reported to the sender.
    Bounce,
}

/// Decides what follows from a failure. `hops_left` is true if another hop can be tried in this
/// attempt.
///
/// After a transient negative reply the next hop is tried, as RFC 5321 §5.1 asks for; a permanent
/// one is final for what it affects. A hop's own 5xx, such as its greeting, is about that host
/// alone and never bounces mail by itself. Only the lack of REQUIRETLS at every hop does (RFC 8689
/// §4.2.1).
// Rule: RFC 5321 §4.2.1, §4.2.5; RFC 8461 §5.1; policy table (refused, revocation).
#[must_use]
pub fn decide(failure: &Failure, hops_left: bool, on_failure: OnFailure) -> NextStep {
    match (failure.scope, failure.persistence) {
        (Scope::Hop, Persistence::Transient | Persistence::Permanent)
        | (Scope::Message | Scope::Recipient, Persistence::Transient)
            if hops_left =>
        {
            NextStep::NextHop
        }
        (Scope::Hop, persistence) => match (&failure.cause, persistence, on_failure) {
            // It is no fault of the peer, and passes with a new CRL.
            (Cause::Policy(refusal), ..) if refusal.lacks_crl() => NextStep::Defer,
            (Cause::Policy(_), _, OnFailure::Bounce) => NextStep::Bounce,
            (Cause::Policy(_), _, OnFailure::Hold) => NextStep::Hold,
            // The sender asked for this, not the administrator.
            (Cause::RequireTls(_), Persistence::Permanent, _) => NextStep::Bounce,
            (Cause::RequireTls(_), Persistence::Transient, _)
            | (Cause::Policy(_), _, OnFailure::Defer)
            | (
                Cause::Reply { .. }
                | Cause::Login(_)
                | Cause::Ourselves(_)
                | Cause::Discovery(_)
                | Cause::Other(_),
                ..,
            ) => NextStep::Defer,
        },
        (Scope::Destination | Scope::Message | Scope::Recipient, Persistence::Transient) => {
            NextStep::Defer
        }
        (Scope::Destination | Scope::Message | Scope::Recipient, Persistence::Permanent) => {
            NextStep::Bounce
        }
    }
}

/// The outcome of one attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientOutcome {
    /// The next hop accepted the message, with this reply.
    Delivered(Reply),
    /// A later attempt follows.
    Deferred(Failure),
    /// An operator must decide.
    Held(Failure),
    /// The recipient is given up.
    Bounced(Failure),
}

impl RecipientOutcome {
    /// Returns the failure, unless the message was delivered.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Delivered(_) => None,
            Self::Deferred(failure) | Self::Held(failure) | Self::Bounced(failure) => Some(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use NextStep::{Bounce, Defer, NextHop};
    use Persistence::{Permanent, Transient};
    use Scope::{Destination, Hop, Message, Recipient};

    use super::*;
    use crate::policy::tls::{
        Demand, Layer, NoTls, TlsOutcome, TlsPolicy, Verdict, Verify, judge as judge_tls,
    };
    use crate::smtp::address::Host;

    fn refusal() -> Refusal {
        let demand = Demand::new(Layer::Connector, Verify::None);
        match judge_tls(
            &TlsPolicy::forced(demand),
            TlsOutcome::Clear(NoTls::NotOffered),
            &[],
        ) {
            Verdict::Refused(refusal) => refusal,
            other => panic!("no TLS under a forced policy: {other:?}"),
        }
    }

    fn failure(scope: Scope, persistence: Persistence, cause: Cause) -> Failure {
        Failure {
            scope,
            persistence,
            status: Status(0, 0),
            cause,
            peer: None,
            session: None,
        }
    }

    /// Only a refusal of the TLS judge is one, whether a layer or the message asked for TLS.
    #[test]
    fn a_failure_yields_the_refusal_that_caused_it() {
        assert_eq!(Failure::policy(refusal()).refusal(), Some(&refusal()));
        let session = Failure::require_tls(RequireTlsUnmet::Session(Box::new(refusal())));
        assert_eq!(session.refusal(), Some(&refusal()));
        for other in [
            Failure::require_tls(RequireTlsUnmet::Off),
            Failure::require_tls(RequireTlsUnmet::NotOffered),
            Failure::reply(Recipient, "RCPT TO", Reply::bare(550, "no")),
            Failure::ourselves("our own name"),
            Failure::discovery(Status(7, 5), "the TLSA lookup failed"),
            Failure::transient(Hop, Status(4, 1), "cannot connect"),
        ] {
            assert_eq!(other.refusal(), None, "{other:?}");
        }
    }

    /// Scope and persistence; the step with hops left, and without.
    const TABLE: [(Scope, Persistence, NextStep, NextStep); 8] = [
        (Hop, Transient, NextHop, Defer),
        (Hop, Permanent, NextHop, Defer),
        (Destination, Transient, Defer, Defer),
        (Destination, Permanent, Bounce, Bounce),
        (Message, Transient, NextHop, Defer),
        (Message, Permanent, Bounce, Bounce),
        (Recipient, Transient, NextHop, Defer),
        (Recipient, Permanent, Bounce, Bounce),
    ];

    #[test]
    fn scope_and_persistence_decide_and_on_failure_applies_to_policies_alone() {
        for (scope, persistence, with_hops, without) in TABLE {
            for on_failure in [OnFailure::Defer, OnFailure::Bounce] {
                for cause in [
                    Cause::Reply {
                        stage: "greeting",
                        reply: Reply::bare(554, "no"),
                    },
                    Cause::Other("connection refused".to_owned()),
                ] {
                    let failure = failure(scope, persistence, cause);
                    assert_eq!(
                        decide(&failure, true, on_failure),
                        with_hops,
                        "{failure:?}, hops left, {on_failure:?}"
                    );
                    assert_eq!(
                        decide(&failure, false, on_failure),
                        without,
                        "{failure:?}, {on_failure:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn on_failure_applies_after_every_hop_was_refused() {
        let failure = Failure::policy(refusal());
        assert_eq!(
            (failure.scope, failure.persistence, failure.status),
            (Hop, Transient, Status(7, 4))
        );
        for (on_failure, last) in [(OnFailure::Defer, Defer), (OnFailure::Bounce, Bounce)] {
            assert_eq!(decide(&failure, true, on_failure), NextHop);
            assert_eq!(decide(&failure, false, on_failure), last);
        }
    }

    #[test]
    fn on_failure_does_not_apply_to_requiretls() {
        for (why, status) in [
            (RequireTlsUnmet::Session(Box::new(refusal())), "5.7.10"),
            (RequireTlsUnmet::Off, "5.7.10"),
            (RequireTlsUnmet::NotOffered, "5.7.30"),
        ] {
            let failure = Failure::require_tls(why);
            assert_eq!(failure.enhanced(Permanent).to_string(), status);
            for on_failure in [OnFailure::Defer, OnFailure::Hold, OnFailure::Bounce] {
                assert_eq!(decide(&failure, true, on_failure), NextHop);
                assert_eq!(decide(&failure, false, on_failure), Bounce);
                let passing = Failure {
                    persistence: Transient,
                    ..failure.clone()
                };
                assert_eq!(
                    decide(&passing, false, on_failure),
                    Defer,
                    "another hop may do better later"
                );
            }
        }
    }

    #[test]
    fn a_reply_determines_persistence_and_status() {
        for (code, enhanced, persistence, status) in [
            (451, Some(Status(3, 0)), Transient, Status(3, 0)),
            (550, Some(Status(1, 1)), Permanent, Status(1, 1)),
            (550, None, Permanent, Status(0, 0)),
            (421, None, Transient, Status(0, 0)),
            // A positive reply in place of a negative one is a fault of the peer, which may pass.
            (250, None, Transient, Status(0, 0)),
            (354, None, Transient, Status(0, 0)),
        ] {
            let reply = match enhanced {
                Some(status) => Reply::new(code, status, "text"),
                None => Reply::bare(code, "text"),
            };
            let failure = Failure::reply(Recipient, "RCPT TO", reply.clone());
            assert_eq!(
                (failure.persistence, failure.status),
                (persistence, status),
                "{code}"
            );
            assert_eq!(failure.peer_reply(), Some(&reply));
        }
    }

    #[test]
    fn a_failure_names_its_peer() {
        let host = Host::parse("mx.example.org").expect("a host");
        let address = HopAddress::Tcp("192.0.2.1:25".parse().expect("an address"));
        let failure = Failure::transient(Hop, Status(4, 1), "connection refused").with_peer(Peer {
            host,
            address,
            protocol: crate::policy::connector::HopProtocol::Smtp,
            source: None,
        });
        assert_eq!(
            failure.to_string(),
            "mx.example.org [192.0.2.1]:25: connection refused"
        );
        assert_eq!(failure.enhanced(Transient).to_string(), "4.4.1");
        assert_eq!(failure.enhanced(Permanent).to_string(), "5.4.1");
        let refused = Failure::reply(Recipient, "RCPT TO", Reply::bare(550, "nobody here"));
        assert_eq!(
            refused.to_string(),
            "answered RCPT TO with: 550 nobody here"
        );
        assert_eq!(
            Failure::policy(refusal()).to_string(),
            "TLS is demanded, but the peer does not offer STARTTLS"
        );
    }
}
