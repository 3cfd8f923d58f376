//! One session with a hop: TCP, opening, TLS, and the verdict of the TLS judge.
//!
//! Nothing is decided here. [`tls::judge`] decides what may be done with a session, and this module
//! does it.

use jiff::Timestamp;

use crate::net::revocation::crl_changes;
use crate::net::tls_io::{ChainChecks, ClientTls, HandshakeError, Role};
use crate::policy::connector::HopProtocol;
use crate::policy::failure::{Failure, HopAddress, Scope};
use crate::policy::tls::{
    self, Clearance, Fallback, Handshake, Hello, Hellos, NoTls, Refusal, TlsFacts, TlsOutcome,
    Verdict,
};
use crate::smtp::client::{DialogueStage, Extensions, NoStarttls, Opening, OpeningStep};
use crate::smtp::reply::Status;
use crate::telemetry::certificates::WatchedCertificate;

use super::dial_record::DialRecord;
use super::observe::VerdictSummary;
use super::target::{DialPurpose, Target, reference_names};
use super::wire::Wire;

/// The reply code after which the server closes the connection (RFC 5321 §3.8).
const CLOSING_REPLY: u16 = 421;

/// The result of dialling one address, as the judge sees it.
pub(super) enum DialOutcome {
    Cleared {
        wire: Wire,
        opening: Extensions,
        clearance: Clearance,
    },
    Redial(Fallback),
    Refused(Refusal),
}

/// The result of a handshake.
pub(super) enum HandshakeOutcome {
    /// The handshake was completed, and the session judged.
    Judged(Box<DialOutcome>),
    /// The handshake failed, and the connection is closed.
    Broken(HandshakeError),
}

/// A session before it is judged.
pub(super) enum OpenedSession {
    Clear {
        wire: Wire,
        extensions: Extensions,
        reason: NoTls,
    },
    /// TLS was tried and failed, and the connection is closed.
    Closed(NoTls),
    Handshake(Wire),
}

impl Target<'_> {
    /// Connects, and runs greeting, EHLO, and STARTTLS if it is wanted and offered.
    pub(super) async fn open(
        &self,
        address: &HopAddress,
        opening: &mut Opening<'_>,
        record: &mut DialRecord,
    ) -> Result<OpenedSession, Failure> {
        record.source = None;
        let mut wire = Wire::connect(address, &self.connector.outbound, self.timeouts().connect)
            .await
            .map_err(|error| Failure::transient(Scope::Hop, Status(4, 1), error.to_string()))?
            .counted(self.monitor.open_connection());
        record.source = wire.source();
        if self.hop.protocol == HopProtocol::Smtps {
            return Ok(OpenedSession::Handshake(wire));
        }
        let step = match wire.converse(opening, self.timeouts().reply).await {
            Ok(step) => step,
            // The connection broke at STARTTLS; this counts as a failed handshake.
            Err(broken) if broken.stage() == DialogueStage::StartTls => {
                return Ok(OpenedSession::Closed(NoTls::Broken(broken.to_string())));
            }
            Err(broken) => return Err(broken.failure()),
        };
        // A name from DNS may lead back to this relay; a smart host was named by the administrator.
        if opening.is_ourselves() && self.hop.smart_host().is_none() {
            self.quit(wire).await;
            return Err(Failure::ourselves(
                "the host greets with our own name: the message would come back",
            ));
        }
        let reason = match step {
            OpeningStep::Handshake | OpeningStep::Secured => {
                return Ok(OpenedSession::Handshake(wire));
            }
            OpeningStep::Failed { stage, reply } => {
                self.quit(wire).await;
                return Err(Failure::reply(Scope::Hop, stage.name(), reply));
            }
            OpeningStep::InClear(NoStarttls::SpokeBeforeHandshake) => {
                return Ok(OpenedSession::Closed(NoTls::SpokeBeforeHandshake));
            }
            OpeningStep::InClear(NoStarttls::NotWanted) if self.offers_no_tls() => {
                NoTls::NotOffered
            }
            OpeningStep::InClear(NoStarttls::NotWanted) => NoTls::NotWanted,
            OpeningStep::InClear(NoStarttls::NotOffered) => NoTls::NotOffered,
            OpeningStep::InClear(NoStarttls::Rejected(reply)) => NoTls::Rejected(reply),
        };
        Ok(OpenedSession::Clear {
            wire,
            extensions: opening.extensions(),
            reason,
        })
    }

    pub(super) async fn judge_clear(
        &self,
        wire: Wire,
        extensions: Extensions,
        reason: NoTls,
        record: &mut DialRecord,
    ) -> DialOutcome {
        record.extensions = Some(extensions);
        let closing = match &reason {
            NoTls::Rejected(reply) if reply.code().get() == CLOSING_REPLY => Some(NoTls::Broken(
                format!("the peer answered STARTTLS with: {reply}"),
            )),
            _ => None,
        };
        match (self.judge(TlsOutcome::Clear(reason), record), closing) {
            // The peer rejected STARTTLS with 421 and closes the connection, so the mail cannot go
            // on over it.
            (Verdict::Cleared(_), Some(broken)) => self.judge_closed(broken, record),
            (Verdict::Cleared(clearance), None) => DialOutcome::Cleared {
                wire,
                opening: extensions,
                clearance,
            },
            (Verdict::Redial(fallback), _) => DialOutcome::Redial(fallback),
            (Verdict::Refused(refusal), _) => {
                self.quit(wire).await;
                DialOutcome::Refused(refusal)
            }
        }
    }

    /// Judges a session whose connection is closed. The verdict is never a clearance.
    pub(super) fn judge_closed(&self, reason: NoTls, record: &mut DialRecord) -> DialOutcome {
        match self.judge(TlsOutcome::Clear(reason), record) {
            Verdict::Redial(fallback) => DialOutcome::Redial(fallback),
            Verdict::Refused(refusal) => DialOutcome::Refused(refusal),
            Verdict::Cleared(_) => {
                unreachable!("the judge clears no session whose connection is closed")
            }
        }
    }

    // Rule: RFC 8689 §4.2.2.
    pub(super) async fn handshake(
        &self,
        wire: Wire,
        mut opening: Opening<'_>,
        hellos: &Hellos,
        hello: Hello,
        record: &mut DialRecord,
    ) -> Result<HandshakeOutcome, Failure> {
        let client: &ClientTls = self.snapshot.tls.client(self.connector);
        let reduced = hellos.reduced(hello);
        // A session ticket can make the next ClientHello large, so a reduced ClientHello goes
        // without one.
        let handshake = if reduced.is_none() {
            self.needed_handshake()
        } else {
            Handshake::Full
        };
        let result = wire
            .start_tls(
                client,
                &self.server_name(),
                hello,
                handshake,
                self.handshake,
            )
            .await;
        record.add_handshake(result.as_ref().ok().map(|(_, seen)| seen));
        let (mut wire, seen) = match result {
            Ok(secured) => secured,
            Err(fault) => return Ok(self.forget_hello(fault)),
        };
        let judging = self.snapshot.judging_tls(self.connector);
        let against = self.chain_checks(judging.client(self.connector));
        record.crl_changes = crl_changes();
        let facts = seen.facts(against, Role::Server, Timestamp::now()).await;
        record.seen = Some(seen);
        let clearance = match self.judge(TlsOutcome::Tls(TlsFacts { reduced, ..facts }), record) {
            Verdict::Cleared(clearance) => clearance,
            Verdict::Redial(fallback) => {
                return Ok(HandshakeOutcome::Judged(Box::new(DialOutcome::Redial(
                    fallback,
                ))));
            }
            Verdict::Refused(refusal) => {
                self.known
                    .remember(&self.hop.host, self.hop.port, hellos, hello);
                if self.purpose == DialPurpose::Probe {
                    self.repeat_ehlo(&mut wire, &mut opening, record).await;
                }
                self.quit(wire).await;
                return Ok(HandshakeOutcome::Judged(Box::new(DialOutcome::Refused(
                    refusal,
                ))));
            }
        };
        wire.continue_opening(&mut opening);
        match wire.converse(&mut opening, self.timeouts().reply).await {
            Ok(OpeningStep::Failed { stage, reply }) => {
                self.quit(wire).await;
                Err(Failure::reply(Scope::Hop, stage.name(), reply)
                    .with_session(clearance.session()))
            }
            // Under TLS an opening ends only with `Secured` or `Failed`.
            Ok(OpeningStep::Secured | OpeningStep::InClear(_) | OpeningStep::Handshake) => {
                self.known
                    .remember(&self.hop.host, self.hop.port, hellos, hello);
                Ok(HandshakeOutcome::Judged(Box::new(DialOutcome::Cleared {
                    wire,
                    opening: opening.extensions(),
                    clearance,
                })))
            }
            // In TLS 1.3 the client finishes its handshake before the server has checked the client
            // certificate. The server's objection to it arrives as an alert in place of the reply
            // to EHLO.
            Err(broken) if broken.is_closed() && is_first_reply(broken.stage()) => {
                Ok(self.forget_hello(HandshakeError::CutShort(broken.to_string())))
            }
            Err(broken) => Err(broken.failure().with_session(clearance.session())),
        }
    }

    /// Returns the checks of the peer's certificate that the policy needs.
    fn chain_checks<'c>(&'c self, client: &'c ClientTls) -> ChainChecks<'c> {
        client
            .checks(self.policy.tlsa())
            .for_policy(self.policy)
            .and_connector_path()
            .with_points(&self.snapshot.points)
    }

    /// Returns a failed handshake. The peer no longer accepts the ClientHello that it accepted
    /// before, so that is forgotten.
    fn forget_hello(&self, fault: HandshakeError) -> HandshakeOutcome {
        self.known.forget(&self.hop.host, self.hop.port);
        HandshakeOutcome::Broken(fault)
    }

    /// Sends EHLO under TLS to a refused peer, to record its extensions for the probe. A missing
    /// reply is ignored.
    async fn repeat_ehlo(
        &self,
        wire: &mut Wire,
        opening: &mut Opening<'_>,
        record: &mut DialRecord,
    ) {
        wire.continue_opening(opening);
        if let Ok(OpeningStep::Secured) = wire.converse(opening, self.timeouts().reply).await {
            record.extensions = Some(opening.extensions());
        }
    }

    fn judge(&self, outcome: TlsOutcome, record: &mut DialRecord) -> Verdict {
        record.outcome = Some(outcome.clone());
        let shown = WatchedCertificate::of(&outcome);
        let verdict = tls::judge(self.policy, outcome, &reference_names(&self.hop.host));
        record
            .steps
            .verdicts
            .push(VerdictSummary::of(&verdict, shown));
        verdict
    }
}

/// Returns whether a reply is the first one under TLS.
fn is_first_reply(stage: DialogueStage) -> bool {
    matches!(
        stage,
        DialogueStage::Greeting | DialogueStage::Ehlo | DialogueStage::Lhlo
    )
}
