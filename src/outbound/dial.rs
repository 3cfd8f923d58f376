//! From an address to a cleared connection: TCP, opening, TLS, and the TLS judge.
//!
//! Nothing is decided here. [`tls::judge`] decides what may be done with a session, and this module does it.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::address::Host;
use crate::config::{Connector, Timeouts};
use crate::envelope::QueueId;
use crate::failure::{Failure, Scope};
use crate::handshake::{ClientTls, HandshakeError, KnownHellos, Role};
use crate::monitor::Monitor;
use crate::monitor::certificates::CertificateSummary;
use crate::route::Hop;
use crate::smtp::client::{DialogueStage, Extensions, NoStarttls, Opening, OpeningStep, StarttlsUse};
use crate::smtp::reply::Status;
use crate::tls::{
    self, Clearance, Fallback, Handshake, Hello, Hellos, NamePattern, NoTls, Refusal, TlsFacts, TlsOutcome, TlsPolicy,
    Verdict,
};

use super::Snapshot;
use super::cleared::{Cleared, Peer};
use super::look::{Look, Notes};
use super::second_try::Dials;
use super::wire::Wire;

/// The reply code after which the server closes the connection (RFC 5321 §3.8).
const CLOSING: u16 = 421;

/// A hop to dial, with its policy.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) monitor: &'a Monitor,
    pub(super) connector: &'a Connector,
    pub(super) hop: &'a Hop,
    pub(super) policy: &'a TlsPolicy,
    pub(super) known: &'a KnownHellos,
    pub(super) errand: Errand,
    /// The time limit of one handshake.
    pub(super) handshake: Duration,
}

/// The purpose for which a host is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// To send a message: its queue ID, and the kind of handshake that its policy needs.
    Mail(QueueId, Handshake),
    /// To probe the host. The peer is asked for everything it offers, whatever the verdict.
    Look,
}

/// Returns the names of a hop that are looked for in its certificate, for the record.
pub(super) fn reference(host: &Host) -> Vec<NamePattern> {
    host.domain().map(|name| NamePattern::Exact(name.clone())).into_iter().collect()
}

/// The result of dialling one address, as the judge sees it.
pub(super) enum First {
    Cleared { wire: Wire, opening: Extensions, clearance: Clearance },
    Redial(Fallback),
    Refused(Refusal),
}

/// The result of a handshake.
pub(super) enum Shaken {
    /// The handshake was completed, and the session judged.
    Judged(Box<First>),
    /// The handshake failed, and the connection is closed.
    Broken(HandshakeError),
}

/// A session before it is judged.
pub(super) enum Session {
    Clear {
        wire: Wire,
        extensions: Extensions,
        reason: NoTls,
    },
    /// TLS was tried and failed, and the connection is closed.
    Spoilt(NoTls),
    Handshake(Wire),
}

impl Target<'_> {
    /// Leads one address of the hop to a cleared connection.
    ///
    /// # Errors
    /// The [`Failure`] of this address; nothing of the envelope was sent to it.
    pub(super) async fn dial(&self, address: SocketAddr, dials: &mut Dials) -> Result<Cleared, Failure> {
        let peer = self.peer(address);
        let dialled = match self.first(address, dials, &mut Notes::default()).await {
            Ok(First::Cleared { wire, opening, clearance }) => {
                Ok(Cleared::new(wire, opening, peer.clone(), clearance, self.policy.clone()))
            }
            Ok(First::Redial(fallback)) => {
                self.warn_fallback(address, &fallback);
                self.redial(address).await.map(|(wire, extensions)| {
                    let clearance = fallback.clearance();
                    Cleared::fallback(wire, extensions, peer.clone(), clearance, self.policy.clone())
                })
            }
            Ok(First::Refused(refusal)) => {
                self.warn_refused(address, &refusal);
                Err(Failure::policy(refusal))
            }
            Err(failure) => Err(failure),
        };
        dialled.map_err(|failure| failure.with_peer(peer.text))
    }

    /// Leads one address of the hop to the judge and sends QUIT, whatever the verdict. The function returns no
    /// connection, so a probe cannot write MAIL.
    pub(super) async fn look(&self, address: SocketAddr) -> Look {
        let mut notes = Notes::default();
        let end = match self.first(address, &mut Dials::new(), &mut notes).await {
            Ok(First::Cleared { wire, opening, clearance }) => {
                notes.extensions = Some(opening);
                self.farewell(wire).await;
                Ok(clearance)
            }
            Ok(First::Redial(fallback)) => match self.redial(address).await {
                Ok((wire, extensions)) => {
                    notes.extensions = Some(extensions);
                    self.farewell(wire).await;
                    Ok(fallback.clearance())
                }
                Err(failure) => Err(failure),
            },
            Ok(First::Refused(refusal)) => Err(Failure::policy(refusal)),
            Err(failure) => Err(failure),
        };
        let peer = self.peer(address).text;
        Look { address, notes, end: end.map_err(|failure| failure.with_peer(peer.clone())), peer }
    }

    /// Closes a session with QUIT. A probe waits until the connection is closed, since its process may end right after.
    async fn farewell(&self, wire: Wire) {
        let said = wire.quit();
        match self.errand {
            Errand::Mail(..) => {}
            Errand::Look => drop(said.await),
        }
    }

    /// Returns the peer at this address, as `mx.example.org [192.0.2.1]:25`.
    pub(super) fn peer(&self, address: SocketAddr) -> Peer {
        let (ip, port) = (address.ip(), address.port());
        let text = match &self.hop.host {
            Host::Domain(name) => format!("{name} [{ip}]:{port}"),
            Host::Literal(_) => format!("[{ip}]:{port}"),
        };
        Peer { text, host: self.hop.host.clone(), address }
    }

    fn timeouts(&self) -> &Timeouts {
        &self.snapshot.config.timeouts
    }

    async fn first(&self, address: SocketAddr, dials: &mut Dials, notes: &mut Notes) -> Result<First, Failure> {
        let starttls = match self.policy {
            TlsPolicy::Off => StarttlsUse::Never,
            TlsPolicy::Opportunistic | TlsPolicy::Forced(_) => StarttlsUse::IfOffered,
        };
        let mut opening = Opening::new(&self.snapshot.config.hostname, starttls);
        let wire = match self.open(address, &mut opening).await? {
            Session::Clear { wire, extensions, reason } => {
                return Ok(self.judge_clear(wire, extensions, reason, notes).await);
            }
            Session::Spoilt(reason) => return Ok(self.judge_spoilt(reason, notes)),
            Session::Handshake(wire) => wire,
        };
        let hellos = self.hellos();
        let fault = match self.handshake(wire, opening, &hellos, hellos.first(), notes).await? {
            Shaken::Judged(first) => return Ok(*first),
            Shaken::Broken(fault) => fault,
        };
        match (&fault, hellos.second()) {
            (HandshakeError::CutShort(_), Some(hello)) if dials.take() => {
                self.second(address, &hellos, hello, &fault, notes).await
            }
            (HandshakeError::CutShort(_) | HandshakeError::Failed(_), _) => {
                Ok(self.judge_spoilt(NoTls::Broken(fault.to_string()), notes))
            }
        }
    }

    /// Connects, and runs greeting, EHLO, and STARTTLS if it is wanted and offered.
    pub(super) async fn open(&self, address: SocketAddr, opening: &mut Opening<'_>) -> Result<Session, Failure> {
        let mut wire = Wire::connect(address, self.timeouts().connect)
            .await
            .map_err(|fault| Failure::transient(Scope::Hop, Status(4, 1), fault))?
            .counted(self.monitor.open_connection());
        let step = match wire.converse(opening, self.timeouts().reply).await {
            Ok(step) => step,
            // The connection broke at STARTTLS; this counts as a failed handshake.
            Err(broken) if broken.at() == DialogueStage::StartTls => {
                return Ok(Session::Spoilt(NoTls::Broken(broken.to_string())));
            }
            Err(broken) => return Err(broken.failure()),
        };
        // A name from DNS may lead back to this relay; a smart host was named by the administrator.
        if opening.is_ourselves() && self.hop.smart_host().is_none() {
            self.farewell(wire).await;
            return Err(Failure::ourselves("the host greets with our own name: the message would come back"));
        }
        let reason = match step {
            OpeningStep::Handshake | OpeningStep::Secured => return Ok(Session::Handshake(wire)),
            OpeningStep::Failed { stage, reply } => {
                self.farewell(wire).await;
                return Err(Failure::reply(Scope::Hop, stage.name(), reply));
            }
            OpeningStep::InClear(NoStarttls::SpokeBeforeHandshake) => {
                return Ok(Session::Spoilt(NoTls::SpokeBeforeHandshake));
            }
            OpeningStep::InClear(NoStarttls::NotWanted) => NoTls::NotWanted,
            OpeningStep::InClear(NoStarttls::NotOffered) => NoTls::NotOffered,
            OpeningStep::InClear(NoStarttls::Rejected(reply)) => NoTls::Rejected(reply),
        };
        Ok(Session::Clear { wire, extensions: opening.extensions(), reason })
    }

    async fn judge_clear(&self, wire: Wire, extensions: Extensions, reason: NoTls, notes: &mut Notes) -> First {
        notes.extensions = Some(extensions);
        let closing = match &reason {
            NoTls::Rejected(reply) if reply.code().get() == CLOSING => {
                Some(NoTls::Broken(format!("the peer answered STARTTLS with: {reply}")))
            }
            _ => None,
        };
        match (self.judge(TlsOutcome::Clear(reason), notes), closing) {
            // The peer rejected STARTTLS with 421 and closes the connection, so the mail cannot go on over it.
            (Verdict::Cleared(_), Some(broken)) => self.judge_spoilt(broken, notes),
            (Verdict::Cleared(clearance), None) => First::Cleared { wire, opening: extensions, clearance },
            (Verdict::Redial(fallback), _) => First::Redial(fallback),
            (Verdict::Refused(refusal), _) => {
                self.farewell(wire).await;
                First::Refused(refusal)
            }
        }
    }

    /// Judges a session whose connection is closed. The verdict is never a clearance.
    pub(super) fn judge_spoilt(&self, reason: NoTls, notes: &mut Notes) -> First {
        match self.judge(TlsOutcome::Clear(reason), notes) {
            Verdict::Redial(fallback) => First::Redial(fallback),
            Verdict::Refused(refusal) => First::Refused(refusal),
            Verdict::Cleared(_) => unreachable!("the judge clears no session that TLS spoilt"),
        }
    }

    pub(super) async fn handshake(
        &self,
        wire: Wire,
        mut opening: Opening<'_>,
        hellos: &Hellos,
        hello: Hello,
        notes: &mut Notes,
    ) -> Result<Shaken, Failure> {
        let client: &ClientTls = self.snapshot.tls.client(self.connector);
        let reduced = hellos.reduced(hello);
        // A session ticket can make the next ClientHello large, so a reduced ClientHello goes without one.
        let handshake = if reduced.is_none() { self.needed_handshake() } else { Handshake::Full };
        let shaken = wire.secure(client, &self.server_name(), hello, handshake, self.handshake).await;
        self.shaken(shaken.as_ref().ok().map(|(_, seen)| seen));
        let (mut wire, seen) = match shaken {
            Ok(secured) => secured,
            Err(fault) => return Ok(self.broken(fault)),
        };
        let against = client.checks(self.policy.tlsa()).for_policy(self.policy).and_connector_path();
        let facts = seen.facts(against, Role::Server, Timestamp::now()).await;
        notes.seen = Some(seen);
        let clearance = match self.judge(TlsOutcome::Tls(TlsFacts { reduced, ..facts }), notes) {
            Verdict::Cleared(clearance) => clearance,
            Verdict::Redial(fallback) => return Ok(Shaken::Judged(Box::new(First::Redial(fallback)))),
            Verdict::Refused(refusal) => {
                self.known.remember(&self.hop.host, self.hop.port, hellos, hello);
                if self.errand == Errand::Look {
                    self.greet_again(&mut wire, &mut opening, notes).await;
                }
                self.farewell(wire).await;
                return Ok(Shaken::Judged(Box::new(First::Refused(refusal))));
            }
        };
        wire.secured(&mut opening);
        match wire.converse(&mut opening, self.timeouts().reply).await {
            Ok(OpeningStep::Failed { stage, reply }) => {
                self.farewell(wire).await;
                Err(Failure::reply(Scope::Hop, stage.name(), reply).with_session(clearance.session()))
            }
            // Under TLS an opening ends only with `Secured` or `Failed`.
            Ok(OpeningStep::Secured | OpeningStep::InClear(_) | OpeningStep::Handshake) => {
                self.known.remember(&self.hop.host, self.hop.port, hellos, hello);
                Ok(Shaken::Judged(Box::new(First::Cleared { wire, opening: opening.extensions(), clearance })))
            }
            // In TLS 1.3 the client finishes its handshake before the server has checked the client certificate. The
            // server's objection to it arrives as an alert in place of the reply to EHLO.
            Err(broken) if broken.is_closed() && broken.at() == DialogueStage::Ehlo => {
                Ok(self.broken(HandshakeError::CutShort(broken.to_string())))
            }
            Err(broken) => Err(broken.failure().with_session(clearance.session())),
        }
    }

    /// Returns a failed handshake. The peer no longer accepts the ClientHello that it accepted before, so that is
    /// forgotten.
    fn broken(&self, fault: HandshakeError) -> Shaken {
        self.known.forget(&self.hop.host, self.hop.port);
        Shaken::Broken(fault)
    }

    /// Returns the kind of handshake that is needed. A probe needs a full one, to see the certificate.
    fn needed_handshake(&self) -> Handshake {
        match self.errand {
            Errand::Mail(_, handshake) => handshake,
            Errand::Look => Handshake::Full,
        }
    }

    /// Sends EHLO under TLS to a refused peer, to record its extensions for the probe. A missing reply is ignored.
    async fn greet_again(&self, wire: &mut Wire, opening: &mut Opening<'_>, notes: &mut Notes) {
        wire.secured(opening);
        if let Ok(OpeningStep::Secured) = wire.converse(opening, self.timeouts().reply).await {
            notes.extensions = Some(opening.extensions());
        }
    }

    /// Connects to the same address again, in the clear, after the judge permitted it.
    async fn redial(&self, address: SocketAddr) -> Result<(Wire, Extensions), Failure> {
        let mut opening = Opening::new(&self.snapshot.config.hostname, StarttlsUse::Never);
        match self.open(address, &mut opening).await? {
            Session::Clear { wire, extensions, .. } => Ok((wire, extensions)),
            Session::Spoilt(_) | Session::Handshake(_) => {
                unreachable!("an opening without STARTTLS is in clear or fails")
            }
        }
    }

    fn judge(&self, outcome: TlsOutcome, notes: &mut Notes) -> Verdict {
        notes.outcome = Some(outcome.clone());
        let shown = CertificateSummary::of(&outcome);
        let verdict = tls::judge(self.policy, outcome, &reference(&self.hop.host));
        self.judged(shown, &verdict);
        verdict
    }

    /// Returns the queue ID for the log; `None` in a probe.
    pub(super) fn queue_id(&self) -> Option<tracing::field::DisplayValue<QueueId>> {
        match self.errand {
            Errand::Mail(id, _) => Some(tracing::field::display(id)),
            Errand::Look => None,
        }
    }
}
