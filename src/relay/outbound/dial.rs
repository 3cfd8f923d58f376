//! From an address to a cleared connection: a session, a second try, or a fallback to the clear.

use crate::net::tls_io::HandshakeError;
use crate::policy::connector::HopProtocol;
use crate::policy::failure::{Failure, HopAddress, Scope};
use crate::policy::tls::{Clearance, Fallback, NoTls, TlsPolicy};
use crate::smtp::client::{Extensions, StarttlsUse};
use crate::smtp::reply::Status;

use super::cleared::Cleared;
use super::dial_record::{AddressProbe, DialRecord};
use super::hellos::DialBudget;
use super::login_result::SessionLogin;
use super::session::{DialOutcome, HandshakeOutcome, OpenedSession};
use super::target::Target;
use super::wire::Wire;

/// A session on which mail may be sent.
struct ReadySession {
    wire: Wire,
    extensions: Extensions,
    clearance: Clearance,
    /// Our login, if the connector has one.
    login: Option<SessionLogin>,
    /// True if the session is in the clear after TLS failed.
    is_fallback: bool,
}

impl Target<'_> {
    /// Leads one address of the hop to a cleared connection, and records the way in `record`.
    ///
    /// # Errors
    /// The [`Failure`] of this address; nothing of the envelope was sent to it.
    pub(super) async fn dial(
        &self,
        address: &HopAddress,
        budget: &mut DialBudget,
        record: &mut DialRecord,
    ) -> Result<Cleared, Failure> {
        let ready = self.get_ready(address, budget, record).await;
        let peer = self.peer(address).with_source(record.source);
        let ready = ready.map_err(|failure| failure.with_peer(peer.clone()))?;
        let cleared = (ready.clearance, ready.login);
        let policy = (self.policy.clone(), record.crl_changes);
        let make = if ready.is_fallback {
            Cleared::fallback
        } else {
            Cleared::new
        };
        Ok(make(ready.wire, ready.extensions, peer, cleared, policy))
    }

    /// Leads one address of the hop to the judge, logs in if the connector says so, and sends QUIT.
    /// The function returns no connection, so a probe cannot write MAIL.
    pub(super) async fn probe(&self, address: &HopAddress) -> AddressProbe {
        let (mut budget, mut record) = (DialBudget::new(), DialRecord::default());
        let ready = self.get_ready(address, &mut budget, &mut record).await;
        let peer = self.peer(address).with_source(record.source);
        let end = match ready {
            Ok(ready) => {
                self.quit(ready.wire).await;
                Ok(ready.clearance)
            }
            Err(failure) => Err(failure.with_peer(&peer)),
        };
        AddressProbe { peer, record, end }
    }

    /// Leads one address of the hop to a session on which mail may be sent. If the host refuses an
    /// access token, which can be revoked before it expires, another one is tried, once.
    async fn get_ready(
        &self,
        address: &HopAddress,
        budget: &mut DialBudget,
        record: &mut DialRecord,
    ) -> Result<ReadySession, Failure> {
        let ready = self.get_ready_once(address, budget, record).await;
        if ready.is_err() && record.has_new_token && budget.take() {
            return self.get_ready_once(address, budget, record).await;
        }
        ready
    }

    async fn get_ready_once(
        &self,
        address: &HopAddress,
        budget: &mut DialBudget,
        record: &mut DialRecord,
    ) -> Result<ReadySession, Failure> {
        let (wire, extensions, clearance, is_fallback) =
            match self.dial_and_judge(address, budget, record).await? {
                DialOutcome::Cleared {
                    wire,
                    opening,
                    clearance,
                } => (wire, opening, clearance, false),
                DialOutcome::Redial(fallback) if self.is_tls_only() => {
                    return Err(without_fallback(&fallback));
                }
                DialOutcome::Redial(fallback) => {
                    record.steps.fallback = Some(fallback.reason().clone());
                    let (wire, extensions) = self.redial(address, record).await?;
                    (wire, extensions, fallback.clearance(), true)
                }
                DialOutcome::Refused(refusal) => return Err(Failure::policy(refusal)),
            };
        record.extensions = Some(extensions);
        let (wire, login) = self.log_in(wire, extensions, &clearance, record).await?;
        Ok(ReadySession {
            wire,
            extensions,
            clearance,
            login,
            is_fallback,
        })
    }

    async fn dial_and_judge(
        &self,
        address: &HopAddress,
        budget: &mut DialBudget,
        record: &mut DialRecord,
    ) -> Result<DialOutcome, Failure> {
        let starttls = match self.policy {
            TlsPolicy::Off => StarttlsUse::Never,
            TlsPolicy::Opportunistic | TlsPolicy::Forced(_) => StarttlsUse::IfOffered,
        };
        let mut opening = self.opening(starttls);
        let wire = match self.open(address, &mut opening, record).await? {
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

    /// Returns whether the hop speaks nothing in the clear, so that there is no fallback to it.
    fn is_tls_only(&self) -> bool {
        self.hop.protocol == HopProtocol::Smtps
    }

    /// Connects to the same address again, in the clear, after the judge permitted it.
    async fn redial(
        &self,
        address: &HopAddress,
        record: &mut DialRecord,
    ) -> Result<(Wire, Extensions), Failure> {
        let mut opening = self.opening(StarttlsUse::Never);
        match self.open(address, &mut opening, record).await? {
            OpenedSession::Clear {
                wire, extensions, ..
            } => Ok((wire, extensions)),
            OpenedSession::Closed(_) | OpenedSession::Handshake(_) => {
                unreachable!("an opening without STARTTLS continues in the clear or fails")
            }
        }
    }
}

/// Returns the failure of a hop that has TLS from the first octet and breaks every handshake.
pub(super) fn without_fallback(fallback: &Fallback) -> Failure {
    let text = format!("no TLS, which smtps:// begins with: {}", fallback.reason());
    Failure::transient(Scope::Hop, Status(7, 5), text)
}
