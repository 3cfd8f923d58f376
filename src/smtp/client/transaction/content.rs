//! The replies to DATA and to the content.

use crate::smtp::client::reply_meaning::{is_about_message, is_unknown_command};
use crate::smtp::client::results::{RecipientStatus, TransactionEnd, TransactionStep};
use crate::smtp::client::{DialogueStage, ProtocolViolation};
use crate::smtp::reply::{Reply, Severity};

use super::Transaction;

/// The reply code to a command that is not allowed now (RFC 5321 §4.2.3).
const BAD_SEQUENCE: u16 = 503;

impl Transaction<'_> {
    pub(super) fn process_data_reply(
        &mut self,
        reply: Reply,
        out: &mut Vec<u8>,
    ) -> Result<Option<TransactionStep>, ProtocolViolation> {
        let may_send = self.mail_accepted && self.accepted > 0;
        match (reply.severity(), may_send) {
            // It belongs to a command before DATA, and so do the replies before it.
            (Severity::Success, _) => return Err(self.reject_misplaced()),
            (Severity::Intermediate, true) => {
                self.sends_content = true;
                return Ok(Some(TransactionStep::Content));
            }
            // RFC 2033 §4.2: an empty message would have no reply.
            (Severity::Intermediate, false) if self.extensions.lmtp => {
                self.record_no_recipient();
                self.over = true;
                self.reusable = false;
                return Ok(None);
            }
            // RFC 2920 §3.1: DATA was accepted although no recipient was. An empty message ends it.
            (Severity::Intermediate, false) => {
                out.extend_from_slice(b".\r\n");
                self.await_dot();
                return Ok(None);
            }
            (Severity::Transient | Severity::Permanent, true) => {
                self.ending = TransactionEnd::Rejected {
                    stage: DialogueStage::Data,
                    reply,
                }
            }
            (Severity::Transient | Severity::Permanent, false) => {}
        }
        self.give_up(out);
        Ok(None)
    }

    // Rule: RFC 5321 §4.2.5.
    pub(super) fn process_dot_reply(&mut self, reply: Reply) -> Result<(), ProtocolViolation> {
        let severity = reply.severity();
        if self.spoke_early && severity == Severity::Success {
            return Err(self.reject_misplaced());
        }
        self.over = true;
        if !self.sends_content {
            self.record_no_recipient();
            return Ok(());
        }
        self.reusable &= severity != Severity::Intermediate && !self.spoke_early;
        if self.extensions.lmtp {
            self.record_recipient_reply(reply);
        } else {
            self.record_content_reply(reply);
        }
        Ok(())
    }

    /// Records the reply to the content for the next recipient that was accepted. The transaction is
    /// over when each has one.
    // Rule: RFC 2033 §4.2.
    fn record_recipient_reply(&mut self, reply: Reply) {
        let is_delivered = reply.severity() == Severity::Success;
        if is_delivered {
            self.has_address_replies &= is_about_message(&reply);
            self.has_distinct_replies = self.has_address_replies;
        }
        let mut accepted = self
            .recipients
            .iter_mut()
            .filter(|status| **status == RecipientStatus::Accepted);
        if let Some(status) = accepted.next() {
            *status = if is_delivered {
                RecipientStatus::Delivered(reply)
            } else {
                RecipientStatus::Undelivered(reply)
            };
        }
        self.outstanding = accepted.count();
        self.over = self.outstanding == 0;
        if self.over {
            self.ending = TransactionEnd::EachAnswered;
        }
    }

    /// Processes the reply to the chunk. After a failed one RSET makes the state of the peer certain
    /// (RFC 3030 §2). A peer that does not know BDAT takes the content for commands, so nothing more
    /// can be said to it.
    // RFC 3030 §2.
    pub(super) fn process_chunk_reply(
        &mut self,
        reply: Reply,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolViolation> {
        let has_recipient = self.mail_accepted && self.accepted > 0;
        let severity = reply.severity();
        // RFC 3030 §2: a chunk for nobody is answered 503.
        self.refuses_chunks = is_unknown_command(&reply)
            && !self.is_partly_answered()
            && (has_recipient || reply.code().get() != BAD_SEQUENCE);
        if has_recipient && severity == Severity::Success && !is_about_message(&reply) {
            return Err(self.reject_misplaced());
        }
        if !has_recipient {
            self.record_no_recipient();
        } else if self.extensions.lmtp && !self.refuses_chunks {
            self.reusable &= severity != Severity::Intermediate;
            self.record_recipient_reply(reply);
            return Ok(());
        } else if !self.refuses_chunks {
            self.record_content_reply(reply);
        }
        match severity {
            Severity::Success => self.over = true,
            Severity::Transient | Severity::Permanent if !self.refuses_chunks => {
                out.extend_from_slice(b"RSET\r\n");
                self.awaited = DialogueStage::Rset;
                self.outstanding = 1;
            }
            Severity::Intermediate | Severity::Transient | Severity::Permanent => {
                self.over = true;
                self.reusable = false;
            }
        }
        Ok(())
    }

    /// Returns whether a recipient has a reply to the content (LMTP).
    fn is_partly_answered(&self) -> bool {
        let is_answered = |status: &RecipientStatus| {
            matches!(
                status,
                RecipientStatus::Delivered(_) | RecipientStatus::Undelivered(_)
            )
        };
        self.recipients.iter().any(is_answered)
    }

    /// Records the reply to the content.
    fn record_content_reply(&mut self, reply: Reply) {
        self.ending = if reply.severity() == Severity::Success {
            self.has_distinct_replies = self.has_address_replies && is_about_message(&reply);
            TransactionEnd::Accepted(reply)
        } else {
            TransactionEnd::Rejected {
                stage: DialogueStage::Dot,
                reply,
            }
        };
    }
}
