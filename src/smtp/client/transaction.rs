//! One mail transaction: MAIL, RCPT for each recipient, DATA, the content and the final dot (RFC
//! 5321 §3.3). Commands are sent in groups if the peer offers PIPELINING (RFC 2920), and the content
//! can go with them as a chunk if it offers CHUNKING, too (RFC 3030). With LMTP the content has a
//! reply for each accepted recipient (RFC 2033).

mod content;

use std::io::Write as _;

use crate::smtp::reply::{Reply, ReplyParser, Severity};

use super::reply_meaning::{
    is_about_address, is_farewell, is_over_recipient_limit, is_unknown_command,
};
use super::results::{RecipientStatus, TransactionEnd, TransactionResults, TransactionStep};
use super::{CLOSING, DialogueStage, Extensions, Mail, ProtocolViolation};

/// The largest number of commands in one group. With more, a peer that replies while it reads could
/// fill both directions, and each side would wait for the other (RFC 2920 §3.1).
const GROUP_MAX: usize = 128;

/// The state machine of one transaction.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "with pipelining, commands are sent ahead of the replies: \
    one state could not represent both"
)]
// Rule: RFC 5321 §3.3.
pub struct Transaction<'a> {
    mail: Mail<'a>,
    extensions: Extensions,
    parser: ReplyParser,
    /// The stage whose reply is awaited. It stays `Data` while the content is sent.
    awaited: DialogueStage,
    recipients: Vec<RecipientStatus>,
    /// RCPT commands written.
    sent: usize,
    /// RCPT commands answered.
    answered: usize,
    accepted: usize,
    mail_accepted: bool,
    full: bool,
    data_sent: bool,
    /// True if the content was sent as a chunk, behind RCPT.
    has_chunk: bool,
    /// True if the peer does not know BDAT although it offers CHUNKING.
    refuses_chunks: bool,
    /// True if the peer sent something before the end of the content.
    spoke_early: bool,
    /// True while each reply that accepts MAIL or RCPT is about an address.
    has_address_replies: bool,
    has_distinct_replies: bool,
    /// True if the replies cannot be assigned to the commands, and one of them may be that to the
    /// content.
    is_uncertain: bool,
    /// True if the content is sent. Otherwise a final dot ends an empty message that has no
    /// recipient.
    sends_content: bool,
    /// Commands written and not answered.
    outstanding: usize,
    replies: usize,
    ending: TransactionEnd,
    over: bool,
    reusable: bool,
}

impl<'a> Transaction<'a> {
    /// Starts the transaction of a message that fits ([`Mail::fits`], [`Mail::recipient_fits`]) and
    /// has at least one recipient. Writes the first commands.
    #[must_use]
    pub fn start(mail: Mail<'a>, extensions: Extensions, out: &mut Vec<u8>) -> Self {
        let mut transaction = Self::new(mail, extensions);
        transaction.write_first(out);
        transaction
    }

    /// Starts the transaction like [`Transaction::start`], and writes the content with the
    /// commands, as one chunk (RFC 3030 §2). The message must satisfy
    /// [`Transaction::may_have_chunk`]. The peer has the content before it has accepted a
    /// recipient, and may have accepted the message as soon as this is sent.
    #[must_use]
    pub fn start_with_chunk(
        mail: Mail<'a>,
        extensions: Extensions,
        content: &[u8],
        out: &mut Vec<u8>,
    ) -> Self {
        let mut transaction = Self::new(mail, extensions);
        mail.write_mail(extensions, out);
        for at in 0..mail.recipients.len() {
            mail.write_rcpt(at, extensions, out);
        }
        // Writing into a Vec cannot fail.
        let _ = write!(out, "BDAT {} LAST\r\n", content.len());
        out.extend_from_slice(content);
        transaction.sent = mail.recipients.len();
        transaction.outstanding = transaction.sent + 2;
        transaction.has_chunk = true;
        transaction
    }

    /// Returns whether the content may be sent as a chunk, behind the RCPT commands and in one
    /// group with them.
    #[must_use]
    pub fn may_have_chunk(mail: &Mail<'_>, extensions: Extensions) -> bool {
        extensions.chunking && extensions.pipelining && mail.recipients.len() + 2 <= GROUP_MAX
    }

    fn new(mail: Mail<'a>, extensions: Extensions) -> Self {
        Self {
            mail,
            extensions,
            parser: ReplyParser::default(),
            awaited: DialogueStage::Mail,
            recipients: vec![RecipientStatus::Pending; mail.recipients.len()],
            sent: 0,
            answered: 0,
            accepted: 0,
            mail_accepted: false,
            full: false,
            data_sent: false,
            has_chunk: false,
            refuses_chunks: false,
            spoke_early: false,
            has_address_replies: true,
            has_distinct_replies: false,
            is_uncertain: false,
            sends_content: false,
            outstanding: 1,
            replies: 0,
            ending: TransactionEnd::Unfinished,
            over: false,
            reusable: true,
        }
    }

    /// Writes MAIL, and with PIPELINING the first group behind it.
    fn write_first(&mut self, out: &mut Vec<u8>) {
        self.mail.write_mail(self.extensions, out);
        if self.extensions.pipelining {
            self.write_group(out);
        }
    }

    /// Returns the status of each recipient so far, in the order of [`Mail::recipients`].
    #[must_use]
    pub fn recipients(&self) -> &[RecipientStatus] {
        &self.recipients
    }

    /// Returns the stage whose reply is awaited.
    #[must_use]
    pub fn awaited(&self) -> DialogueStage {
        self.awaited
    }

    /// Returns whether the peer may have accepted the message although its reply is not known: the
    /// content was sent, and the peer may have accepted a recipient.
    // RFC 5321 §4.5.3.2.6.
    #[must_use]
    pub fn may_be_accepted(&self) -> bool {
        let has_recipient = self.mail_accepted && self.accepted > 0;
        match (&self.ending, self.awaited) {
            _ if self.is_uncertain => true,
            _ if self.refuses_chunks => false,
            (TransactionEnd::Unfinished, DialogueStage::Mail) => self.has_chunk,
            (TransactionEnd::Unfinished, DialogueStage::Rcpt) => {
                self.has_chunk && self.mail_accepted
            }
            (TransactionEnd::Unfinished, DialogueStage::Dot) => {
                has_recipient && (self.has_chunk || self.sends_content)
            }
            (TransactionEnd::Closing { .. }, DialogueStage::Rcpt) => {
                self.has_chunk && has_recipient
            }
            _ => false,
        }
    }

    /// Returns whether the peer does not know BDAT although it offers CHUNKING.
    #[must_use]
    pub fn refuses_chunks(&self) -> bool {
        self.refuses_chunks
    }

    /// Returns the number of complete replies so far.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// Takes the peer's bytes and returns the number used. If the step is `None`, send `out` and
    /// call again with more bytes.
    ///
    /// # Errors
    /// [`ProtocolViolation`].
    pub fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<TransactionStep>), ProtocolViolation> {
        let mut used = 0;
        loop {
            let (octets, reply) = self.parser.parse(&input[used..])?;
            used += octets;
            // Each recipient may keep a reply, and the results outlive the session, so the text is
            // shortened.
            let Some(reply) = reply.map(Reply::shortened) else {
                return Ok((used, None));
            };
            self.replies += 1;
            self.outstanding = self.outstanding.saturating_sub(1);
            let surplus = &input[used..];
            let (stage, written) = (self.awaited, out.len());
            let step = self.process_reply(reply, out)?;
            if !self.over && step.is_none() && self.outstanding == 0 {
                self.continue_or_end(out);
            }
            let is_turn = self.over || step == Some(TransactionStep::Content);
            if !surplus.is_empty() && (is_turn || out.len() > written) {
                out.truncate(written);
                self.process_surplus(surplus, stage)?;
            }
            if self.over {
                return Ok((used, Some(TransactionStep::Over)));
            }
            if step.is_some() {
                return Ok((used, step));
            }
        }
    }

    /// Processes octets behind the last reply that was awaited. They came before the command that
    /// would follow now, so they cannot be its reply. Behind the end of a transaction they are most
    /// likely a farewell. A chunk has one reply (RFC 3030 §2), and with LMTP each recipient has one:
    /// with more of them, any may belong to another.
    // Rule: RFC 2033 §4.2.
    fn process_surplus(
        &mut self,
        surplus: &[u8],
        stage: DialogueStage,
    ) -> Result<(), ProtocolViolation> {
        let is_counted = stage == DialogueStage::Dot
            && !self.refuses_chunks
            && (self.has_chunk || self.extensions.lmtp);
        let is_over = self.over && !is_counted;
        if is_over || (is_counted && is_farewell(surplus)) {
            self.over = true;
            self.reusable = false;
            return Ok(());
        }
        if is_counted {
            self.distrust();
        }
        Err(ProtocolViolation::OutOfTurn(stage))
    }

    /// Forgets all replies: they cannot be assigned to the commands.
    // RFC 2920 §3.1.
    fn distrust(&mut self) {
        self.is_uncertain = self.accepted > 0 && (self.has_chunk || self.sends_content);
        self.recipients.fill(RecipientStatus::Pending);
        self.ending = TransactionEnd::Unfinished;
        self.over = false;
    }

    /// Returns an error for a reply that belongs to another command.
    fn reject_misplaced(&mut self) -> ProtocolViolation {
        self.distrust();
        ProtocolViolation::Misplaced(self.awaited)
    }

    /// Continues after the content and the final dot have been sent. `spoke_early` is true if the peer
    /// sent anything before the final dot was sent; that cannot be an acceptance of the message.
    pub fn content_sent(&mut self, spoke_early: bool) {
        self.spoke_early = spoke_early;
        self.await_dot();
    }

    fn await_dot(&mut self) {
        self.awaited = DialogueStage::Dot;
        self.outstanding = 1;
    }

    /// Returns the results, after the end of the transaction or of the connection.
    #[must_use]
    pub fn into_results(self) -> TransactionResults {
        let is_awaiting_rcpt =
            self.awaited == DialogueStage::Rcpt && self.mail_accepted && self.answered < self.sent;
        let ended = matches!(
            self.ending,
            TransactionEnd::Closing { .. } | TransactionEnd::Unfinished
        );
        TransactionResults {
            has_distinct_replies: self.has_distinct_replies,
            last_named: (is_awaiting_rcpt && ended).then_some(self.answered),
            recipients: self.recipients,
            ending: self.ending,
            reusable: self.over && self.reusable,
        }
    }

    /// Processes one reply. Returns the step if the driver has one to do before the end.
    fn process_reply(
        &mut self,
        reply: Reply,
        out: &mut Vec<u8>,
    ) -> Result<Option<TransactionStep>, ProtocolViolation> {
        if reply.code().get() == CLOSING {
            self.process_closing(reply);
            return Ok(None);
        }
        match self.awaited {
            DialogueStage::Mail => self.process_mail_reply(reply),
            DialogueStage::Rcpt => {
                self.process_rcpt_reply(reply);
                let awaits_chunk_reply = self.has_chunk && self.awaited == DialogueStage::Dot;
                if awaits_chunk_reply && self.may_be_accepted() {
                    return Ok(Some(TransactionStep::ChunkReply));
                }
            }
            DialogueStage::Data => return self.process_data_reply(reply, out),
            DialogueStage::Dot if self.has_chunk => self.process_chunk_reply(reply, out)?,
            DialogueStage::Dot => self.process_dot_reply(reply)?,
            // A server knows RSET: this is the reply to an earlier command.
            DialogueStage::Rset if self.has_chunk && is_unknown_command(&reply) => {
                return Err(self.reject_misplaced());
            }
            DialogueStage::Greeting
            | DialogueStage::Ehlo
            | DialogueStage::Lhlo
            | DialogueStage::Helo
            | DialogueStage::StartTls
            | DialogueStage::Auth
            | DialogueStage::Rset => {
                self.reusable &= reply.severity() == Severity::Success;
                self.over = true;
            }
        }
        Ok(None)
    }

    /// Processes a 421.
    // Rule: RFC 5321 §3.8.
    fn process_closing(&mut self, reply: Reply) {
        self.over = true;
        self.reusable = false;
        // A result that is known already does not change.
        if self.ending == TransactionEnd::Unfinished {
            self.ending = TransactionEnd::Closing {
                stage: self.awaited,
                reply,
            };
        }
    }

    fn process_mail_reply(&mut self, reply: Reply) {
        if reply.severity() == Severity::Success {
            self.mail_accepted = true;
            self.has_address_replies &= is_about_address(&reply);
        } else {
            self.ending = TransactionEnd::Rejected {
                stage: DialogueStage::Mail,
                reply,
            };
        }
        self.await_next();
    }

    fn process_rcpt_reply(&mut self, reply: Reply) {
        let at = self.answered;
        self.answered += 1;
        // After a rejected MAIL these replies do not concern the recipients.
        if self.mail_accepted {
            self.recipients[at] = if reply.severity() == Severity::Success {
                self.accepted += 1;
                self.has_address_replies &= is_about_address(&reply);
                RecipientStatus::Accepted
            } else if self.accepted > 0 && is_over_recipient_limit(&reply) {
                self.full = true;
                RecipientStatus::Overflow
            } else {
                RecipientStatus::Rejected(reply)
            };
        }
        self.await_next();
    }

    /// Sets the stage to the next command that was written and not answered.
    fn await_next(&mut self) {
        if self.answered < self.sent {
            self.awaited = DialogueStage::Rcpt;
        } else if self.data_sent {
            self.awaited = DialogueStage::Data;
        } else if self.has_chunk {
            self.awaited = DialogueStage::Dot;
        }
    }

    /// Writes the next commands, or ends the transaction, once all commands written are answered.
    fn continue_or_end(&mut self, out: &mut Vec<u8>) {
        let all_sent = self.sent == self.recipients.len() || self.full;
        let refused = self.ending != TransactionEnd::Unfinished;
        if refused || (all_sent && self.accepted == 0) {
            self.give_up(out);
        } else {
            self.write_group(out);
        }
    }

    /// Writes the commands that may be sent now: a group, or a single one without PIPELINING.
    // Rule: RFC 5321 §4.3.1.
    fn write_group(&mut self, out: &mut Vec<u8>) {
        let group_max = if self.extensions.pipelining {
            GROUP_MAX
        } else {
            1
        };
        while self.outstanding < group_max && self.sent < self.recipients.len() && !self.full {
            self.mail.write_rcpt(self.sent, self.extensions, out);
            self.sent += 1;
            self.outstanding += 1;
        }
        if self.outstanding < group_max && (self.sent == self.recipients.len() || self.full) {
            out.extend_from_slice(b"DATA\r\n");
            self.data_sent = true;
            self.outstanding += 1;
            // The recipients that were not sent go into a further transaction.
            self.recipients[self.sent..].fill(RecipientStatus::Overflow);
        }
        if self.mail_accepted {
            self.await_next();
        }
    }

    /// Ends the transaction without a message. RSET discards the transaction at a peer that has
    /// accepted MAIL.
    // Rule: RFC 5321 §4.1.4.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        self.record_no_recipient();
        if self.mail_accepted {
            out.extend_from_slice(b"RSET\r\n");
            self.awaited = DialogueStage::Rset;
            self.outstanding = 1;
        } else {
            self.over = true;
        }
    }

    /// Records that no recipient was accepted, unless the end is known already.
    fn record_no_recipient(&mut self) {
        if self.ending == TransactionEnd::Unfinished {
            self.ending = TransactionEnd::NoRecipient;
        }
    }
}
