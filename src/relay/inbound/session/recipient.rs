//! RCPT: the relay rules, the limits, and the check whether the recipient exists.

use tokio::select;
use tracing::info;

use super::{ClientSession, SessionEndReason};
use crate::config::{Rate, RecipientSource};
use crate::policy::relay_access::{self, RelayDenied};
use crate::relay::inbound::clients::cannot_be_checked;
use crate::relay::recipient_tables::RecipientTable;
use crate::relay::recipients::{CheckStep, RecipientCheck, RecipientDecision, RecipientLookup};
use crate::relay::users::HourlyRate;
use crate::smtp::address::Mailbox;
use crate::smtp::command::RcptTo;
use crate::smtp::reply::{EnhancedStatusCode, Reply, Status};
use crate::telemetry::RefusalReason;

/// The status of a mailbox that does not exist (RFC 3463 §3.2).
const NO_SUCH_MAILBOX: Status = Status(1, 1);

/// The next step after RCPT.
pub(super) enum RcptStep {
    /// Send this reply.
    Reply(Reply),
    /// Wait for the answer of a server.
    Ask(Box<AskedRecipient>),
}

/// A recipient about which a server is asked.
pub(super) struct AskedRecipient {
    rcpt: RcptTo,
    mailbox: Mailbox,
    lookup: RecipientLookup,
}

impl ClientSession {
    /// Returns the facts about the client that the relay rules need.
    pub(super) fn client_rights(&self) -> relay_access::RelayClient {
        let may_relay = self
            .sender_clearance
            .as_ref()
            .is_some_and(|cleared| cleared.may_relay);
        relay_access::RelayClient {
            address: self.client,
            local: self.local,
            may_relay,
            is_user: self.user().is_some(),
        }
    }

    /// Applies the relay rules and limits to a recipient, and begins the check whether it exists.
    /// The relay rules come first, so that strangers learn nothing about other domains.
    pub(super) fn rcpt(&mut self, rcpt: RcptTo) -> RcptStep {
        if let Err(refusal) = self.count(Rate::Recipients) {
            return RcptStep::Reply(self.server.rcpt(rcpt, Err(refusal)));
        }
        if let Some(user) = self.user().cloned()
            && let Err(refusal) = self.count_hourly(&user, HourlyRate::Recipients)
        {
            return RcptStep::Reply(self.server.rcpt(rcpt, Err(refusal)));
        }
        let peer = self.client_rights();
        let rules = self.settings.config.relay_rules(&self.settings.connectors);
        let mailbox = match relay_access::resolve_recipient(rules, peer, &rcpt.forward_path) {
            Ok(mailbox) => mailbox,
            Err(denied) => return RcptStep::Reply(self.deny(rcpt, denied)),
        };
        let Some(table) = RecipientCheck::table(&self.settings, &mailbox) else {
            return RcptStep::Reply(self.accept_rcpt(rcpt, mailbox));
        };
        if let Err(refusal) = self.check_guesses(&table) {
            return RcptStep::Reply(self.server.rcpt(rcpt, Err(refusal)));
        }
        let check = &self.inbound.recipients;
        let decision = match check.begin(&self.settings, table, &mailbox) {
            CheckStep::Decided(decision) => decision,
            CheckStep::Ask(lookup) => {
                // The recipient counts as unknown until a yes: without an answer it may be, and
                // nobody may ask more than that at the same time.
                if let Err(refusal) = self.count(Rate::UnknownRecipients) {
                    return RcptStep::Reply(self.server.rcpt(rcpt, Err(refusal)));
                }
                return RcptStep::Ask(Box::new(AskedRecipient {
                    rcpt,
                    mailbox,
                    lookup: *lookup,
                }));
            }
        };
        if matches!(decision, RecipientDecision::Unknown(_)) {
            self.count_unknown_recipient();
        }
        RcptStep::Reply(self.answer_rcpt(rcpt, mailbox, decision))
    }

    /// Checks that the client has not tried too many recipients that are unknown or cannot be
    /// checked: it learns nothing about any other then. A list in a file can always be checked.
    ///
    /// # Errors
    /// Returns the reply if it has.
    fn check_guesses(&mut self, table: &RecipientTable) -> Result<(), Reply> {
        self.check_rate(Rate::UnknownRecipients)?;
        match table.rules().source {
            RecipientSource::File(_) => Ok(()),
            RecipientSource::Ask | RecipientSource::Ldap(_) => {
                self.check_rate(Rate::UncheckedRecipients)
            }
        }
    }

    /// Waits for the answer about a recipient, and returns the reply to RCPT.
    ///
    /// # Errors
    /// Returns the end of the session if it ends meanwhile.
    pub(super) async fn ask_recipient(
        &mut self,
        asked: Box<AskedRecipient>,
    ) -> Result<Reply, SessionEndReason> {
        let AskedRecipient {
            rcpt,
            mailbox,
            lookup,
        } = *asked;
        let decision = select! {
            biased;
            () = self.stop.cancelled() => return Err(SessionEndReason::Shutdown),
            () = self.seat.evicted() => return Err(SessionEndReason::Evicted),
            decision = lookup.decision(self.limited_client()) => decision,
        };
        if !matches!(decision, RecipientDecision::Unknown(_)) {
            self.uncount_unknown_recipient();
        }
        Ok(self.answer_rcpt(rcpt, mailbox, decision))
    }

    fn answer_rcpt(
        &mut self,
        rcpt: RcptTo,
        mailbox: Mailbox,
        decision: RecipientDecision,
    ) -> Reply {
        let refusal = match decision {
            RecipientDecision::Exists | RecipientDecision::Accepted => {
                return self.accept_rcpt(rcpt, mailbox);
            }
            RecipientDecision::Unknown(status) => self.reject_unknown(&rcpt, status),
            RecipientDecision::NotAsked(reason) => self.defer(&rcpt, &reason),
            // Trouble of ours is no guess of the client, and has a limit of its own: somebody who
            // guesses could learn from what is remembered, and from the bounces that follow.
            RecipientDecision::Unchecked(_) => match self.count(Rate::UncheckedRecipients) {
                Ok(()) => return self.accept_rcpt(rcpt, mailbox),
                Err(refusal) => refusal,
            },
            RecipientDecision::Deferred(reason) => match self.count(Rate::UncheckedRecipients) {
                Ok(()) => self.defer(&rcpt, &reason),
                Err(refusal) => refusal,
            },
        };
        self.server.rcpt(rcpt, Err(refusal))
    }

    /// Accepts a recipient if there is memory for it, and returns the reply.
    fn accept_rcpt(&mut self, rcpt: RcptTo, mailbox: Mailbox) -> Reply {
        let reserved = self.reserve(&mailbox, rcpt.orcpt.as_deref());
        self.server.rcpt(rcpt, reserved.map(|()| mailbox))
    }

    /// Returns the reply to RCPT of a client that may not relay there.
    fn deny(&mut self, rcpt: RcptTo, denied: RelayDenied) -> Reply {
        self.refuse_recipient(&rcpt, RefusalReason::Recipient, &denied.to_string());
        self.server.rcpt(rcpt, Err(denied.reply()))
    }

    /// Returns the rejection of a recipient that does not exist, or that its server rejects.
    fn reject_unknown(&mut self, rcpt: &RcptTo, status: EnhancedStatusCode) -> Reply {
        let text = if status.status().0 == NO_SUCH_MAILBOX.0 {
            "Unknown recipient: there is no such mailbox here"
        } else {
            "Recipient rejected: its mailbox server takes no mail for it"
        };
        self.refuse_recipient(rcpt, RefusalReason::UnknownRecipient, text);
        let status = if status.status().0 == NO_SUCH_MAILBOX.0 {
            NO_SUCH_MAILBOX
        } else {
            status.status()
        };
        Reply::new(550, status, text)
    }

    /// Returns the temporary rejection of a recipient about whom nothing is known.
    fn defer(&mut self, rcpt: &RcptTo, reason: &str) -> Reply {
        let recipient = rcpt.forward_path.to_string();
        if self.should_log("recipient deferred", &recipient) {
            let (from, from_connector) = self.sender_fields();
            info!(
                listener = %self.listener.name, peer = %self.peer, from, from_connector, recipient, reason,
                "recipient deferred: it cannot be checked"
            );
        }
        self.is_logged = true;
        cannot_be_checked()
    }

    /// Counts, lists and logs the refusal of a recipient.
    fn refuse_recipient(&mut self, rcpt: &RcptTo, why: RefusalReason, reason: &str) {
        let connector = self
            .sender_clearance
            .as_ref()
            .map(|cleared| cleared.connector.name.clone())
            .unwrap_or_default();
        self.count_refusal(&connector, why, reason.to_owned());
        let recipient = rcpt.forward_path.to_string();
        if self.should_log("recipient refused", &recipient) {
            let (from, from_connector) = self.sender_fields();
            info!(
                listener = %self.listener.name, peer = %self.peer, from, from_connector, recipient, reason,
                "recipient refused"
            );
        }
        self.is_logged = true;
    }
}
