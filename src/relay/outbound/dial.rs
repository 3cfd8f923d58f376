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
use super::session::{DialOutcome, HandshakeOutcome, OpenedSession};
use super::target::Target;
use super::wire::Wire;

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
        let dialled = match self.dial_and_judge(address, budget, record).await {
            Ok(DialOutcome::Cleared {
                wire,
                opening,
                clearance,
            }) => self
                .log_in(wire, opening, &clearance, record)
                .await
                .map(|(wire, login)| {
                    let peer = self.peer(address).with_source(record.source);
                    let cleared = (clearance, login);
                    Cleared::new(wire, opening, peer, cleared, self.policy.clone())
                }),
            Ok(DialOutcome::Redial(fallback)) if self.is_tls_only() => {
                Err(without_fallback(&fallback))
            }
            Ok(DialOutcome::Redial(fallback)) => {
                record.steps.fallback = Some(fallback.reason().clone());
                let clearance = fallback.clearance();
                let dialled = match self.redial(address, record).await {
                    Ok((wire, extensions)) => self
                        .log_in(wire, extensions, &clearance, record)
                        .await
                        .map(|(wire, _)| (wire, extensions)),
                    Err(failure) => Err(failure),
                };
                dialled.map(|(wire, extensions)| {
                    let peer = self.peer(address).with_source(record.source);
                    Cleared::fallback(wire, extensions, peer, clearance, self.policy.clone())
                })
            }
            Ok(DialOutcome::Refused(refusal)) => Err(Failure::policy(refusal)),
            Err(failure) => Err(failure),
        };
        let peer = || self.peer(address).with_source(record.source);
        dialled.map_err(|failure| failure.with_peer(peer()))
    }

    /// Leads one address of the hop to the judge, logs in if the connector says so, and sends QUIT. The function
    /// returns no connection, so a probe cannot write MAIL.
    pub(super) async fn probe(&self, address: &HopAddress) -> AddressProbe {
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
                self.try_login(wire, opening, clearance, &mut record).await
            }
            Ok(DialOutcome::Redial(fallback)) if self.is_tls_only() => {
                Err(without_fallback(&fallback))
            }
            Ok(DialOutcome::Redial(fallback)) => match self.redial(address, &mut record).await {
                Ok((wire, extensions)) => {
                    record.extensions = Some(extensions);
                    let clearance = fallback.clearance();
                    self.try_login(wire, extensions, clearance, &mut record)
                        .await
                }
                Err(failure) => Err(failure),
            },
            Ok(DialOutcome::Refused(refusal)) => Err(Failure::policy(refusal)),
            Err(failure) => Err(failure),
        };
        let peer = self.peer(address).with_source(record.source);
        AddressProbe {
            record,
            end: end.map_err(|failure| failure.with_peer(&peer)),
            peer,
        }
    }

    /// Logs in as a delivery does, and sends QUIT.
    async fn try_login(
        &self,
        wire: Wire,
        extensions: Extensions,
        clearance: Clearance,
        record: &mut DialRecord,
    ) -> Result<Clearance, Failure> {
        let (wire, _) = self.log_in(wire, extensions, &clearance, record).await?;
        self.quit(wire).await;
        Ok(clearance)
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
