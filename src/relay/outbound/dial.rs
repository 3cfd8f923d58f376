//! From an address to a cleared connection: TCP, opening, TLS, and the TLS judge.
//!
//! Nothing is decided here. [`tls::judge`] decides what may be done with a session, and this module
//! does it.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{Connector, Timeouts};
use crate::net::route::Hop;
use crate::net::tls_io::{ClientTls, HandshakeError, KnownHellos, Role};
use crate::policy::failure::{Failure, Scope};
use crate::policy::tls::{
    self, Clearance, Fallback, Handshake, Hello, Hellos, NamePattern, NoTls, Refusal, TlsFacts,
    TlsOutcome, TlsPolicy, Verdict,
};
use crate::smtp::address::Host;
use crate::smtp::client::{
    DialogueStage, Extensions, NoStarttls, Opening, OpeningStep, StarttlsUse,
};
use crate::smtp::envelope::QueueId;
use crate::smtp::reply::Status;
use crate::telemetry::Monitor;
use crate::telemetry::certificates::CertificateSummary;

use super::Snapshot;
use super::cleared::{Cleared, Peer};
use super::probe_result::{AddressProbe, DialRecord};
use super::second_try::DialBudget;
use super::wire::Wire;

/// The reply code after which the server closes the connection (RFC 5321 §3.8).
const CLOSING_REPLY: u16 = 421;

/// A hop to dial, with its policy.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) monitor: &'a Monitor,
    pub(super) connector: &'a Connector,
    pub(super) hop: &'a Hop,
    pub(super) policy: &'a TlsPolicy,
    pub(super) known: &'a KnownHellos,
    pub(super) purpose: DialPurpose,
    /// The time limit of one handshake.
    pub(super) handshake: Duration,
}

/// The purpose for which a host is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialPurpose {
    /// To send a message: its queue ID, and the kind of handshake that its policy needs.
    Mail(QueueId, Handshake),
    /// To probe the host. The peer is asked for everything it offers, whatever the verdict.
    Probe,
}

/// Returns the names of a hop that are looked for in its certificate, for the record.
pub(super) fn reference_names(host: &Host) -> Vec<NamePattern> {
    host.domain()
        .map(|name| NamePattern::Exact(name.clone()))
        .into_iter()
        .collect()
}

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
    /// Leads one address of the hop to a cleared connection.
    ///
    /// # Errors
    /// The [`Failure`] of this address; nothing of the envelope was sent to it.
    pub(super) async fn dial(
        &self,
        address: SocketAddr,
        budget: &mut DialBudget,
    ) -> Result<Cleared, Failure> {
        let peer = self.peer(address);
        let dialled = match self
            .dial_and_judge(address, budget, &mut DialRecord::default())
            .await
        {
            Ok(DialOutcome::Cleared {
                wire,
                opening,
                clearance,
            }) => Ok(Cleared::new(
                wire,
                opening,
                peer.clone(),
                clearance,
                self.policy.clone(),
            )),
            Ok(DialOutcome::Redial(fallback)) => {
                self.warn_fallback(address, &fallback);
                self.redial(address).await.map(|(wire, extensions)| {
                    let clearance = fallback.clearance();
                    Cleared::fallback(
                        wire,
                        extensions,
                        peer.clone(),
                        clearance,
                        self.policy.clone(),
                    )
                })
            }
            Ok(DialOutcome::Refused(refusal)) => {
                self.warn_refused(address, &refusal);
                Err(Failure::policy(refusal))
            }
            Err(failure) => Err(failure),
        };
        dialled.map_err(|failure| failure.with_peer(peer.text))
    }

    /// Leads one address of the hop to the judge and sends QUIT, whatever the verdict. The function
    /// returns no connection, so a probe cannot write MAIL.
    pub(super) async fn probe(&self, address: SocketAddr) -> AddressProbe {
        let mut record = DialRecord::default();
        let end = match self
            .dial_and_judge(address, &mut DialBudget::new(), &mut record)
            .await
        {
            Ok(DialOutcome::Cleared {
                wire,
                opening,
                clearance,
            }) => {
                record.extensions = Some(opening);
                self.quit(wire).await;
                Ok(clearance)
            }
            Ok(DialOutcome::Redial(fallback)) => match self.redial(address).await {
                Ok((wire, extensions)) => {
                    record.extensions = Some(extensions);
                    self.quit(wire).await;
                    Ok(fallback.clearance())
                }
                Err(failure) => Err(failure),
            },
            Ok(DialOutcome::Refused(refusal)) => Err(Failure::policy(refusal)),
            Err(failure) => Err(failure),
        };
        let peer = self.peer(address).text;
        AddressProbe {
            address,
            record,
            end: end.map_err(|failure| failure.with_peer(peer.clone())),
            peer,
        }
    }

    /// Closes a session with QUIT. A probe waits until the connection is closed, since its process
    /// may end right after.
    async fn quit(&self, wire: Wire) {
        let closing = wire.quit();
        match self.purpose {
            DialPurpose::Mail(..) => {}
            DialPurpose::Probe => drop(closing.await),
        }
    }

    /// Returns the peer at this address, as `mx.example.org [192.0.2.1]:25`.
    pub(super) fn peer(&self, address: SocketAddr) -> Peer {
        let (ip, port) = (address.ip(), address.port());
        let text = match &self.hop.host {
            Host::Domain(name) => format!("{name} [{ip}]:{port}"),
            Host::Literal(_) => format!("[{ip}]:{port}"),
        };
        Peer {
            text,
            host: self.hop.host.clone(),
            address,
        }
    }

    fn timeouts(&self) -> &Timeouts {
        &self.snapshot.config.timeouts
    }

    async fn dial_and_judge(
        &self,
        address: SocketAddr,
        budget: &mut DialBudget,
        record: &mut DialRecord,
    ) -> Result<DialOutcome, Failure> {
        let starttls = match self.policy {
            TlsPolicy::Off => StarttlsUse::Never,
            TlsPolicy::Opportunistic | TlsPolicy::Forced(_) => StarttlsUse::IfOffered,
        };
        let mut opening = Opening::new(&self.snapshot.config.hostname, starttls);
        let wire = match self.open(address, &mut opening).await? {
            OpenedSession::Clear {
                wire,
                extensions,
                reason,
            } => {
                return Ok(self.judge_clear(wire, extensions, reason, record).await);
            }
            OpenedSession::Closed(reason) => return Ok(self.judge_closed(reason, record)),
            OpenedSession::Handshake(wire) => wire,
        };
        let hellos = self.hellos();
        let fault = match self
            .handshake(wire, opening, &hellos, hellos.first(), record)
            .await?
        {
            HandshakeOutcome::Judged(outcome) => return Ok(*outcome),
            HandshakeOutcome::Broken(fault) => fault,
        };
        match (&fault, hellos.second()) {
            (HandshakeError::CutShort(_), Some(hello)) if budget.take() => {
                self.try_again(address, &hellos, hello, &fault, record)
                    .await
            }
            (HandshakeError::CutShort(_) | HandshakeError::Failed(_), _) => {
                Ok(self.judge_closed(NoTls::Broken(fault.to_string()), record))
            }
        }
    }

    /// Connects, and runs greeting, EHLO, and STARTTLS if it is wanted and offered.
    pub(super) async fn open(
        &self,
        address: SocketAddr,
        opening: &mut Opening<'_>,
    ) -> Result<OpenedSession, Failure> {
        let mut wire = Wire::connect(address, self.timeouts().connect)
            .await
            .map_err(|fault| Failure::transient(Scope::Hop, Status(4, 1), fault))?
            .counted(self.monitor.open_connection());
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

    async fn judge_clear(
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
            Verdict::Cleared(_) => unreachable!("the judge clears no session that TLS spoilt"),
        }
    }

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
        self.count_handshake(result.as_ref().ok().map(|(_, seen)| seen));
        let (mut wire, seen) = match result {
            Ok(secured) => secured,
            Err(fault) => return Ok(self.forget_hello(fault)),
        };
        let against = client
            .checks(self.policy.tlsa())
            .for_policy(self.policy)
            .and_connector_path();
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
        wire.send_ehlo(&mut opening);
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
            Err(broken) if broken.is_closed() && broken.stage() == DialogueStage::Ehlo => {
                Ok(self.forget_hello(HandshakeError::CutShort(broken.to_string())))
            }
            Err(broken) => Err(broken.failure().with_session(clearance.session())),
        }
    }

    /// Returns a failed handshake. The peer no longer accepts the ClientHello that it accepted
    /// before, so that is forgotten.
    fn forget_hello(&self, fault: HandshakeError) -> HandshakeOutcome {
        self.known.forget(&self.hop.host, self.hop.port);
        HandshakeOutcome::Broken(fault)
    }

    /// Returns the kind of handshake that is needed. A probe needs a full one, to see the
    /// certificate.
    fn needed_handshake(&self) -> Handshake {
        match self.purpose {
            DialPurpose::Mail(_, handshake) => handshake,
            DialPurpose::Probe => Handshake::Full,
        }
    }

    /// Sends EHLO under TLS to a refused peer, to record its extensions for the probe. A missing
    /// reply is ignored.
    async fn repeat_ehlo(
        &self,
        wire: &mut Wire,
        opening: &mut Opening<'_>,
        record: &mut DialRecord,
    ) {
        wire.send_ehlo(opening);
        if let Ok(OpeningStep::Secured) = wire.converse(opening, self.timeouts().reply).await {
            record.extensions = Some(opening.extensions());
        }
    }

    /// Connects to the same address again, in the clear, after the judge permitted it.
    async fn redial(&self, address: SocketAddr) -> Result<(Wire, Extensions), Failure> {
        let mut opening = Opening::new(&self.snapshot.config.hostname, StarttlsUse::Never);
        match self.open(address, &mut opening).await? {
            OpenedSession::Clear {
                wire, extensions, ..
            } => Ok((wire, extensions)),
            OpenedSession::Closed(_) | OpenedSession::Handshake(_) => {
                unreachable!("an opening without STARTTLS is in clear or fails")
            }
        }
    }

    fn judge(&self, outcome: TlsOutcome, record: &mut DialRecord) -> Verdict {
        record.outcome = Some(outcome.clone());
        let shown = CertificateSummary::of(&outcome);
        let verdict = tls::judge(self.policy, outcome, &reference_names(&self.hop.host));
        self.record_verdict(shown, &verdict);
        verdict
    }

    /// Returns the queue ID for the log; `None` in a probe.
    pub(super) fn queue_id(&self) -> Option<tracing::field::DisplayValue<QueueId>> {
        match self.purpose {
            DialPurpose::Mail(id, _) => Some(tracing::field::display(id)),
            DialPurpose::Probe => None,
        }
    }
}
