//! One mail transaction: MAIL, RCPT for each recipient, DATA, the content and the final dot (RFC
//! 5321 §3.3). Commands are sent in groups if the peer offers PIPELINING (RFC 2920), and the content
//! can go with them as a chunk if it offers CHUNKING, too (RFC 3030).

use std::io::Write as _;

use crate::smtp::reply::{Reply, ReplyParser, Severity, Status};

use super::{CLOSING, DialogueStage, Extensions, Mail, ProtocolViolation};

/// The largest number of commands in one group. With more, a peer that replies while it reads could
/// fill both directions, and each side would wait for the other (RFC 2920 §3.1).
const GROUP_MAX: usize = 128;

/// The next thing that the driver of the dialogue must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStep {
    /// Send the content, dot-stuffed, with the final dot. Then call [`Transaction::content_sent`].
    Content,
    /// The transaction has ended. Call [`Transaction::into_results`].
    Over,
}

/// The status of one recipient before the content is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientStatus {
    /// RCPT was not answered yet.
    Pending,
    /// RCPT was accepted. The result depends on the [`TransactionEnd`].
    Accepted,
    /// RCPT was rejected with this reply.
    Rejected(Reply),
    /// The recipient is too many for one transaction (RFC 5321 §4.5.3.1.10) and goes into a further
    /// one.
    Overflow,
}

/// The end of a transaction, for the recipients that were not rejected one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionEnd {
    /// The connection broke before the end.
    Unfinished,
    /// The message was accepted with this reply.
    Accepted(Reply),
    /// The message was rejected.
    Rejected {
        /// The stage at which it was.
        stage: DialogueStage,
        /// The reply.
        reply: Reply,
    },
    /// The peer closes the connection (421).
    Closing {
        /// The stage at which it does.
        stage: DialogueStage,
        /// The reply.
        reply: Reply,
    },
    /// No recipient was accepted.
    NoRecipient,
}

/// The content as a chunk (BDAT), if it is sent as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    /// The content is sent with DATA.
    Unused,
    /// The chunk was sent behind RCPT.
    Sent,
    /// The peer does not know BDAT although it offers CHUNKING. RSET was sent, and the transaction
    /// begins again with DATA.
    Refused,
}

/// The results of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionResults {
    /// The status of each recipient, in the order of [`Mail::recipients`].
    pub recipients: Vec<RecipientStatus>,
    /// The result of the recipients that were not rejected one by one.
    pub ending: TransactionEnd,
    /// True if the session is as it was before MAIL, so that another transaction can follow.
    pub reusable: bool,
    /// The index in [`Mail::recipients`] of the recipient whose reply ended the session, or was
    /// awaited when the connection broke.
    pub last_named: Option<usize>,
}

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
    chunk: ChunkState,
    /// True once the peer has refused BDAT.
    refuses_chunks: bool,
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
        transaction.chunk = ChunkState::Sent;
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
            chunk: ChunkState::Unused,
            refuses_chunks: false,
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

    /// Returns whether the whole content was sent as a chunk and is not answered yet.
    #[must_use]
    pub fn has_chunk_in_flight(&self) -> bool {
        self.chunk == ChunkState::Sent
            && matches!(
                self.awaited,
                DialogueStage::Mail | DialogueStage::Rcpt | DialogueStage::Dot
            )
    }

    fn is_chunk_accepted(&self) -> bool {
        self.chunk == ChunkState::Sent && matches!(self.ending, TransactionEnd::Accepted(_))
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
            let more = used < input.len();
            let (stage, written) = (self.awaited, out.len());
            let content = self.process_reply(reply, out);
            if !self.over && !content && self.outstanding == 0 {
                self.continue_or_end(out);
            }
            if self.over && more && self.is_chunk_accepted() && !input[used..].starts_with(b"421") {
                // More replies than commands: nobody knows which of them is that to the chunk.
                self.ending = TransactionEnd::Unfinished;
                self.over = false;
                return Err(ProtocolViolation::OutOfTurn(stage));
            }
            if self.over {
                // Further octets are most likely a 421 before the peer closes the connection.
                self.reusable &= !more;
                return Ok((used, Some(TransactionStep::Over)));
            }
            // These octets came before the command that is written now, so they cannot be its
            // reply.
            if more && (content || out.len() > written) {
                out.truncate(written);
                return Err(ProtocolViolation::OutOfTurn(stage));
            }
            if content {
                return Ok((used, Some(TransactionStep::Content)));
            }
        }
    }

    /// Continues after the content and the final dot have been sent.
    pub fn content_sent(&mut self) {
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
            last_named: (is_awaiting_rcpt && ended).then_some(self.answered),
            recipients: self.recipients,
            ending: self.ending,
            reusable: self.over && self.reusable,
        }
    }

    /// Processes one reply. Returns true if the content may be sent.
    fn process_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> bool {
        if reply.code().get() == CLOSING {
            self.process_closing(reply);
            return false;
        }
        match self.awaited {
            DialogueStage::Mail => self.process_mail_reply(reply),
            DialogueStage::Rcpt => self.process_rcpt_reply(reply),
            DialogueStage::Data => return self.process_data_reply(reply, out),
            DialogueStage::Dot if self.chunk == ChunkState::Sent => {
                self.process_chunk_reply(reply, out);
            }
            DialogueStage::Dot => self.process_dot_reply(reply),
            DialogueStage::Rset
                if self.chunk == ChunkState::Refused && reply.severity() == Severity::Success =>
            {
                *self = Self {
                    refuses_chunks: true,
                    replies: self.replies,
                    ..Self::new(self.mail, self.extensions)
                };
                self.write_first(out);
            }
            DialogueStage::Greeting
            | DialogueStage::Ehlo
            | DialogueStage::Helo
            | DialogueStage::StartTls
            | DialogueStage::Rset => {
                self.reusable &= reply.severity() == Severity::Success;
                self.over = true;
            }
        }
        false
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
        } else if self.chunk == ChunkState::Sent {
            self.awaited = DialogueStage::Dot;
        }
    }

    fn process_data_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> bool {
        let may_send = self.mail_accepted && self.accepted > 0;
        match (reply.severity(), may_send) {
            (Severity::Intermediate, true) => {
                self.sends_content = true;
                return true;
            }
            // RFC 2920 §3.1: DATA was accepted although no recipient was. An empty message ends it.
            (Severity::Intermediate, false) => {
                out.extend_from_slice(b".\r\n");
                self.content_sent();
                return false;
            }
            (_, true) => {
                self.ending = TransactionEnd::Rejected {
                    stage: DialogueStage::Data,
                    reply,
                }
            }
            (_, false) => {}
        }
        self.give_up(out);
        false
    }

    // Rule: RFC 5321 §4.2.5.
    fn process_dot_reply(&mut self, reply: Reply) {
        self.over = true;
        if !self.sends_content {
            self.record_no_recipient();
            return;
        }
        self.reusable = reply.severity() != Severity::Intermediate;
        self.ending = match reply.severity() {
            Severity::Success => TransactionEnd::Accepted(reply),
            Severity::Intermediate | Severity::Transient | Severity::Permanent => {
                TransactionEnd::Rejected {
                    stage: DialogueStage::Dot,
                    reply,
                }
            }
        };
    }

    /// Processes the reply to the chunk. After a failed one RSET makes the state of the peer certain
    /// (RFC 3030 §2).
    fn process_chunk_reply(&mut self, reply: Reply, out: &mut Vec<u8>) {
        let has_recipient = self.mail_accepted && self.accepted > 0;
        let severity = reply.severity();
        if has_recipient && is_unknown_command(&reply) {
            self.chunk = ChunkState::Refused;
            self.refuses_chunks = true;
        } else if !has_recipient {
            self.record_no_recipient();
        } else if severity == Severity::Success {
            self.ending = TransactionEnd::Accepted(reply);
        } else {
            self.ending = TransactionEnd::Rejected {
                stage: DialogueStage::Dot,
                reply,
            };
        }
        match severity {
            Severity::Success => self.over = true,
            Severity::Intermediate => {
                self.over = true;
                self.reusable = false;
            }
            Severity::Transient | Severity::Permanent => {
                out.extend_from_slice(b"RSET\r\n");
                self.awaited = DialogueStage::Rset;
                self.outstanding = 1;
            }
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

/// Returns true if a recipient was rejected only because the transaction has too many: 452, or 552
/// from servers that follow RFC 821 (RFC 5321 §4.5.3.1.10), or any 4.5.3. A 452 with another
/// enhanced status, as for a full mailbox, does not count.
fn is_over_recipient_limit(reply: &Reply) -> bool {
    const TOO_MANY: Status = Status(5, 3);
    match (reply.code().get(), reply.enhanced()) {
        (452 | 552, None) => true,
        (code, Some(enhanced)) => enhanced.status() == TOO_MANY && (code < 500 || code == 552),
        _ => false,
    }
}

/// Returns true if the peer does not know the command, or not in this place (RFC 5321 §4.2.2).
fn is_unknown_command(reply: &Reply) -> bool {
    matches!(reply.code().get(), 500..=504)
}
