//! One transaction: MAIL, RCPT for each recipient, DATA, the content, the final dot (RFC 5321 §3.3),
//! in one go where the peer takes commands by the group (RFC 2920).

use crate::smtp::reply::{Reply, ReplyParser, Severity, Status};

use super::{CLOSING, DialogueStage, Extensions, Mail, ProtocolViolation};

/// Commands in one group, at most. A peer that answers while it reads could otherwise fill both
/// directions, and each side would wait for the other (RFC 2920 §3.1).
const GROUP_MAX: usize = 128;

/// What the pump is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStep {
    /// Send the content with dots stuffed and the final dot, then call [`Transaction::content_sent`].
    Content,
    /// The transaction is over; see [`Transaction::into_results`].
    Over,
}

/// What became of one recipient before the content was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientStatus {
    /// Named, or about to be, and not answered.
    Pending,
    /// Accepted: the [`TransactionEnd`] decides.
    Accepted,
    /// Refused by an answer of its own.
    Rejected(Reply),
    /// Too many for one transaction (RFC 5321 §4.5.3.1.10): it belongs into a further one.
    Overflow,
}

/// How a transaction ended for the recipients that were not refused one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionEnd {
    /// It has not ended: the connection broke.
    Unfinished,
    /// The message was taken, with this answer.
    Accepted(Reply),
    /// The message was refused.
    Rejected {
        /// At this command.
        stage: DialogueStage,
        /// With this answer.
        reply: Reply,
    },
    /// The peer closes the connection (421).
    Closing {
        /// At this command.
        stage: DialogueStage,
        /// With this answer.
        reply: Reply,
    },
    /// No recipient was accepted.
    NoRecipient,
}

/// The results of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionResults {
    /// One for each recipient, in the order of [`Mail::recipients`].
    pub recipients: Vec<RecipientStatus>,
    /// For those that were not refused one by one.
    pub ending: TransactionEnd,
    /// Whether the session is as it was before MAIL, and another transaction can follow.
    pub reusable: bool,
    /// The recipient, by its place in [`Mail::recipients`], whose answer ended the session or was awaited when the
    /// connection broke.
    pub last_named: Option<usize>,
}

/// One transaction.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "under pipelining, what was said runs ahead of what was answered: \
    one state could not tell both"
)]
pub struct Transaction<'a> {
    mail: Mail<'a>,
    extensions: Extensions,
    parser: ReplyParser,
    /// What is awaited an answer to; `Data` also stands for the time of the content.
    awaited: DialogueStage,
    recipients: Vec<RecipientStatus>,
    /// RCPT commands written, and answered.
    named: usize,
    answered: usize,
    accepted: usize,
    mail_taken: bool,
    full: bool,
    data_said: bool,
    /// The message goes; otherwise a final dot ends an empty one that nobody gets.
    content_goes: bool,
    /// Commands written and not answered.
    outstanding: usize,
    replies: usize,
    ending: TransactionEnd,
    over: bool,
    reusable: bool,
}

impl<'a> Transaction<'a> {
    /// A transaction for a message that fits ([`Mail::fits`], [`Mail::recipient_fits`]) and has at
    /// least one recipient. Writes the first commands.
    #[must_use]
    pub fn start(mail: Mail<'a>, extensions: Extensions, out: &mut Vec<u8>) -> Self {
        let mut transaction = Self {
            mail,
            extensions,
            parser: ReplyParser::default(),
            awaited: DialogueStage::Mail,
            recipients: vec![RecipientStatus::Pending; mail.recipients.len()],
            named: 0,
            answered: 0,
            accepted: 0,
            mail_taken: false,
            full: false,
            data_said: false,
            content_goes: false,
            outstanding: 1,
            replies: 0,
            ending: TransactionEnd::Unfinished,
            over: false,
            reusable: true,
        };
        mail.write_mail(extensions, out);
        if extensions.pipelining {
            transaction.write_group(out);
        }
        transaction
    }

    /// What has become of each recipient so far, in the order of [`Mail::recipients`].
    #[must_use]
    pub fn recipients(&self) -> &[RecipientStatus] {
        &self.recipients
    }

    /// What is awaited an answer to.
    #[must_use]
    pub fn awaited(&self) -> DialogueStage {
        self.awaited
    }

    /// How many whole replies have come.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// Takes the peer's bytes and says how many were used; `None` wants more of them, after `out` has
    /// been sent.
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
            let (taken, reply) = self.parser.parse(&input[used..])?;
            used += taken;
            // Each recipient may have one, and the results outlive the session.
            let Some(reply) = reply.map(Reply::brief) else { return Ok((used, None)) };
            self.replies += 1;
            self.outstanding = self.outstanding.saturating_sub(1);
            let more = used < input.len();
            let (stage, written) = (self.awaited, out.len());
            let content = self.reply(reply, out);
            if !self.over && !content && self.outstanding == 0 {
                self.next(out);
            }
            if self.over {
                // What it says without being asked is most likely a farewell.
                self.reusable &= !more;
                return Ok((used, Some(TransactionStep::Over)));
            }
            // An answer to what is only being said now would be taken for the wrong one.
            if more && (content || out.len() > written) {
                return Err(ProtocolViolation::OutOfTurn(stage));
            }
            if content {
                return Ok((used, Some(TransactionStep::Content)));
            }
        }
    }

    /// The content and the final dot have been sent.
    pub fn content_sent(&mut self) {
        self.awaited = DialogueStage::Dot;
        self.outstanding = 1;
    }

    /// The results, whether the transaction is over or the connection broke.
    #[must_use]
    pub fn into_results(self) -> TransactionResults {
        let is_named = self.awaited == DialogueStage::Rcpt && self.mail_taken && self.answered < self.named;
        let ended = matches!(self.ending, TransactionEnd::Closing { .. } | TransactionEnd::Unfinished);
        TransactionResults {
            last_named: (is_named && ended).then_some(self.answered),
            recipients: self.recipients,
            ending: self.ending,
            reusable: self.over && self.reusable,
        }
    }

    /// Takes one reply; says whether it is the peer's leave to send the content.
    fn reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> bool {
        if reply.code().get() == CLOSING {
            self.closing(reply);
            return false;
        }
        match self.awaited {
            DialogueStage::Mail => self.mail_reply(reply),
            DialogueStage::Rcpt => self.rcpt_reply(reply),
            DialogueStage::Data => return self.data_reply(reply, out),
            DialogueStage::Dot => self.dot_reply(reply),
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

    fn closing(&mut self, reply: Reply) {
        self.over = true;
        self.reusable = false;
        // An outcome that stands already is not changed by a farewell.
        if self.ending == TransactionEnd::Unfinished {
            self.ending = TransactionEnd::Closing { stage: self.awaited, reply };
        }
    }

    fn mail_reply(&mut self, reply: Reply) {
        if reply.severity() == Severity::Success {
            self.mail_taken = true;
        } else {
            self.ending = TransactionEnd::Rejected { stage: DialogueStage::Mail, reply };
        }
        self.await_next();
    }

    fn rcpt_reply(&mut self, reply: Reply) {
        let at = self.answered;
        self.answered += 1;
        // After a refused MAIL these answers say nothing about the recipients.
        if self.mail_taken {
            self.recipients[at] = if reply.severity() == Severity::Success {
                self.accepted += 1;
                RecipientStatus::Accepted
            } else if self.accepted > 0 && is_too_many(&reply) {
                self.full = true;
                RecipientStatus::Overflow
            } else {
                RecipientStatus::Rejected(reply)
            };
        }
        self.await_next();
    }

    /// Which of the commands already written is answered next.
    fn await_next(&mut self) {
        if self.answered < self.named {
            self.awaited = DialogueStage::Rcpt;
        } else if self.data_said {
            self.awaited = DialogueStage::Data;
        }
    }

    fn data_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> bool {
        let goes = self.mail_taken && self.accepted > 0;
        match (reply.severity(), goes) {
            (Severity::Intermediate, true) => {
                self.content_goes = true;
                return true;
            }
            // RFC 2920 §3.1: DATA went through although nobody is to get the message.
            (Severity::Intermediate, false) => {
                out.extend_from_slice(b".\r\n");
                self.content_sent();
                return false;
            }
            (_, true) => self.ending = TransactionEnd::Rejected { stage: DialogueStage::Data, reply },
            (_, false) => {}
        }
        self.give_up(out);
        false
    }

    fn dot_reply(&mut self, reply: Reply) {
        self.over = true;
        if !self.content_goes {
            self.no_recipient();
            return;
        }
        self.reusable = reply.severity() != Severity::Intermediate;
        self.ending = match reply.severity() {
            Severity::Success => TransactionEnd::Accepted(reply),
            Severity::Intermediate | Severity::Transient | Severity::Permanent => {
                TransactionEnd::Rejected { stage: DialogueStage::Dot, reply }
            }
        };
    }

    /// Everything written has been answered: what now?
    fn next(&mut self, out: &mut Vec<u8>) {
        let all_named = self.named == self.recipients.len() || self.full;
        let refused = self.ending != TransactionEnd::Unfinished;
        if refused || (all_named && self.accepted == 0) {
            self.give_up(out);
        } else {
            self.write_group(out);
        }
    }

    /// Writes the commands that may be said now: all of a group, or one where the peer has no
    /// PIPELINING.
    fn write_group(&mut self, out: &mut Vec<u8>) {
        let room = if self.extensions.pipelining { GROUP_MAX } else { 1 };
        while self.outstanding < room && self.named < self.recipients.len() && !self.full {
            self.mail.write_rcpt(self.named, self.extensions, out);
            self.named += 1;
            self.outstanding += 1;
        }
        if self.outstanding < room && (self.named == self.recipients.len() || self.full) {
            out.extend_from_slice(b"DATA\r\n");
            self.data_said = true;
            self.outstanding += 1;
            // Whom there was no room to name belongs into a further transaction.
            self.recipients[self.named..].fill(RecipientStatus::Overflow);
        }
        if self.mail_taken {
            self.await_next();
        }
    }

    /// Ends without a message; RSET where the peer still holds a half of one.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        self.no_recipient();
        if self.mail_taken {
            out.extend_from_slice(b"RSET\r\n");
            self.awaited = DialogueStage::Rset;
            self.outstanding = 1;
        } else {
            self.over = true;
        }
    }

    fn no_recipient(&mut self) {
        if self.ending == TransactionEnd::Unfinished {
            self.ending = TransactionEnd::NoRecipient;
        }
    }
}

/// Whether a recipient was refused only because there are too many in this transaction: 452, or 552
/// from servers after RFC 821 (RFC 5321 §4.5.3.1.10), or any 4.5.3; not a 452 that gives another
/// reason, as a full mailbox.
fn is_too_many(reply: &Reply) -> bool {
    const TOO_MANY: Status = Status(5, 3);
    match (reply.code().get(), reply.enhanced()) {
        (452 | 552, None) => true,
        (code, Some(enhanced)) => enhanced.status() == TOO_MANY && (code < 500 || code == 552),
        _ => false,
    }
}
