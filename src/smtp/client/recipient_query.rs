//! A question to a mailbox server: MAIL FROM:<>, RCPT and RSET. No message is sent (RFC 5321 §3.3).

use std::io::Write as _;

use crate::smtp::address::Mailbox;
use crate::smtp::reply::{Reply, ReplyParser, Severity};

use super::{CLOSING, DialogueStage, Extensions, ProtocolViolation};

/// The marker that a question is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryOver;

/// The end of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryEnd {
    /// The connection broke before the reply to RCPT.
    Unfinished,
    /// RCPT was answered.
    Answered(Reply),
    /// The peer rejected MAIL, or ended the session with 421.
    NotAsked {
        /// The stage at which it did.
        stage: DialogueStage,
        /// The reply.
        reply: Reply,
    },
}

impl QueryEnd {
    /// Returns true if the peer rejected a command.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Unfinished => false,
            Self::Answered(reply) => reply.severity() != Severity::Success,
            Self::NotAsked { .. } => true,
        }
    }
}

/// The state machine of one question.
#[derive(Debug)]
// Rule: RFC 5321 §4.5.5.
pub struct RecipientQuery<'a> {
    mailbox: &'a Mailbox,
    parser: ReplyParser,
    is_pipelined: bool,
    awaited: DialogueStage,
    replies: usize,
    end: QueryEnd,
    is_reusable: bool,
}

impl<'a> RecipientQuery<'a> {
    /// Returns false if a peer with these extensions cannot be asked about a mailbox: its local
    /// part needs SMTPUTF8 (RFC 6531 §3.3).
    #[must_use]
    pub fn may_ask(mailbox: &Mailbox, extensions: Extensions) -> bool {
        mailbox.is_ascii() || extensions.smtputf8
    }

    /// Starts a question about a mailbox that the peer can be asked about
    /// ([`RecipientQuery::may_ask`]). Writes the first commands.
    #[must_use]
    pub fn start(mailbox: &'a Mailbox, extensions: Extensions, out: &mut Vec<u8>) -> Self {
        let query = Self {
            mailbox,
            parser: ReplyParser::default(),
            is_pipelined: extensions.pipelining,
            awaited: DialogueStage::Mail,
            replies: 0,
            end: QueryEnd::Unfinished,
            is_reusable: false,
        };
        out.extend_from_slice(b"MAIL FROM:<>");
        if !mailbox.is_ascii() {
            out.extend_from_slice(b" SMTPUTF8");
        }
        out.extend_from_slice(b"\r\n");
        if query.is_pipelined {
            query.write_rcpt(out);
            write_rset(out);
        }
        query
    }

    fn write_rcpt(&self, out: &mut Vec<u8>) {
        // Writing into a Vec cannot fail.
        let _ = write!(out, "RCPT TO:<{}>\r\n", self.mailbox);
    }

    /// Returns the stage whose reply is awaited.
    #[must_use]
    pub fn awaited(&self) -> DialogueStage {
        self.awaited
    }

    /// Returns the number of complete replies so far.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// Returns true if the session is as it was before MAIL, so that it can be used again.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.is_reusable
    }

    /// Returns the end of the question.
    #[must_use]
    pub fn into_end(self) -> QueryEnd {
        self.end
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
    ) -> Result<(usize, Option<QueryOver>), ProtocolViolation> {
        let mut used = 0;
        loop {
            let (octets, reply) = self.parser.parse(&input[used..])?;
            used += octets;
            let Some(reply) = reply.map(Reply::shortened) else {
                return Ok((used, None));
            };
            self.replies += 1;
            let (stage, has_more) = (self.awaited, used < input.len());
            if self.process_reply(reply, out) {
                // Further octets are most likely a 421 before the peer closes the connection.
                self.is_reusable &= !has_more;
                return Ok((used, Some(QueryOver)));
            }
            if has_more && !self.is_pipelined {
                return Err(ProtocolViolation::OutOfTurn(stage));
            }
        }
    }

    /// Processes one reply. Returns true if it was the last one.
    fn process_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> bool {
        let is_success = reply.severity() == Severity::Success;
        if reply.code().get() == CLOSING {
            if self.end == QueryEnd::Unfinished {
                let stage = self.awaited;
                self.end = QueryEnd::NotAsked { stage, reply };
            }
            return true;
        }
        match self.awaited {
            DialogueStage::Mail if is_success => {
                self.awaited = DialogueStage::Rcpt;
                if !self.is_pipelined {
                    self.write_rcpt(out);
                }
            }
            DialogueStage::Mail => {
                let stage = DialogueStage::Mail;
                self.end = QueryEnd::NotAsked { stage, reply };
                // With pipelining, the peer answers RCPT as well.
                self.awaited = if self.is_pipelined {
                    DialogueStage::Rcpt
                } else {
                    write_rset(out);
                    DialogueStage::Rset
                };
            }
            DialogueStage::Rcpt => {
                if self.end == QueryEnd::Unfinished {
                    self.end = QueryEnd::Answered(reply);
                }
                self.awaited = DialogueStage::Rset;
                if !self.is_pipelined {
                    write_rset(out);
                }
            }
            _ => {
                self.is_reusable = is_success;
                return true;
            }
        }
        false
    }
}

fn write_rset(out: &mut Vec<u8>) {
    out.extend_from_slice(b"RSET\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox() -> Mailbox {
        Mailbox::parse("user@example.com").expect("a mailbox")
    }

    /// Runs a question against these replies, each in a read of its own, and returns everything
    /// that was written, the end, and whether the session can be used again.
    fn run(pipelining: bool, replies: &[&str]) -> (String, QueryEnd, bool) {
        let (mailbox, mut out) = (mailbox(), Vec::new());
        let extensions = Extensions {
            pipelining,
            ..Extensions::default()
        };
        let mut query = RecipientQuery::start(&mailbox, extensions, &mut out);
        for reply in replies {
            let (used, step) = query.receive(reply.as_bytes(), &mut out).expect("replies");
            assert!(step.is_some() || used == reply.len());
            if step.is_some() {
                break;
            }
        }
        let reusable = query.is_reusable();
        (
            String::from_utf8(out).expect("text"),
            query.into_end(),
            reusable,
        )
    }

    const COMMANDS: &str = "MAIL FROM:<>\r\nRCPT TO:<user@example.com>\r\nRSET\r\n";

    #[test]
    fn a_question_is_mail_rcpt_and_rset_with_and_without_pipelining() {
        for (pipelining, replies) in [
            (false, &["250 ok\r\n", "550 5.1.1 no\r\n", "250 ok\r\n"][..]),
            (true, &["250 ok\r\n550 5.1.1 no\r\n250 ok\r\n"]),
        ] {
            let (written, end, reusable) = run(pipelining, replies);
            assert_eq!(written, COMMANDS, "no DATA, and nothing else");
            let QueryEnd::Answered(reply) = end else {
                panic!("{end:?}");
            };
            assert_eq!(reply.to_string(), "550 5.1.1 no");
            assert!(reusable, "pipelining {pipelining}");
        }
    }

    #[test]
    fn a_rejected_mail_is_no_answer_about_the_recipient() {
        for (pipelining, replies) in [
            (false, &["550 5.7.1 no nulls\r\n", "250 ok\r\n"][..]),
            (true, &["550 5.7.1 no nulls\r\n503 MAIL\r\n250 ok\r\n"]),
        ] {
            let (written, end, reusable) = run(pipelining, replies);
            assert_eq!(written.contains("RCPT"), pipelining);
            let QueryEnd::NotAsked { stage, reply } = end else {
                panic!("{end:?}");
            };
            assert_eq!((stage, reply.code().get()), (DialogueStage::Mail, 550));
            assert!(reusable);
        }
    }

    #[test]
    fn a_421_ends_the_session_and_an_answer_before_it_counts() {
        let (_, end, reusable) = run(false, &["250 ok\r\n", "421 4.3.2 bye\r\n"]);
        assert!(
            matches!(
                end,
                QueryEnd::NotAsked {
                    stage: DialogueStage::Rcpt,
                    ..
                }
            ),
            "{end:?}"
        );
        assert!(!reusable);
        let (_, end, reusable) = run(false, &["250 ok\r\n", "250 ok\r\n", "421 bye\r\n"]);
        assert!(matches!(end, QueryEnd::Answered(_)), "{end:?}");
        assert!(!reusable);
        let (_, _, reusable) = run(true, &["250 ok\r\n250 ok\r\n250 ok\r\n421 bye\r\n"]);
        assert!(!reusable, "the peer is closing the connection");
    }

    #[test]
    fn a_reply_without_a_command_breaks_the_session() {
        let (mailbox, mut out) = (mailbox(), Vec::new());
        let mut query = RecipientQuery::start(&mailbox, Extensions::default(), &mut out);
        let early = query.receive(b"250 ok\r\n250 ok\r\n", &mut out);
        assert_eq!(
            early,
            Err(ProtocolViolation::OutOfTurn(DialogueStage::Mail))
        );
    }
}
