//! DATA and BDAT: the beginning and the end of a message.

use super::incoming::{ContentTarget, Framing, Incoming};
use super::{ContentProgress, InputMode, OpenTransaction, Server, ServerStep, replies};
use crate::smtp::data::Inspector;
use crate::smtp::reply::Reply;

/// The most octets of rejected content that are read, as a multiple of the largest message. The
/// client must see the reply, and closing the connection while it still sends would make TCP
/// discard that reply.
const DROP_FACTOR: u64 = 4;

impl Server {
    /// Rejects the content that is arriving. What follows of it is dropped, and `reply` is sent at
    /// its end.
    // Rule: RFC 5321 §4.2.5.
    pub fn reject_content(&mut self, reply: Reply) {
        if let InputMode::Incoming(incoming) = &mut self.mode {
            incoming.reject(reply);
        }
    }

    /// Returns the reply to rejected content whose end has not come yet.
    #[must_use]
    pub fn content_refusal(&self) -> Option<&Reply> {
        match &self.mode {
            InputMode::Incoming(incoming) => incoming.refusal(),
            InputMode::Command | InputMode::Skip | InputMode::SaslResponse | InputMode::Closed => {
                None
            }
        }
    }

    /// Returns true if rejected content seems to have ended, though not by the rules of SMTP: the
    /// client then waits for the reply while the server waits for the end.
    #[must_use]
    pub fn seems_ended(&self) -> bool {
        matches!(&self.mode, InputMode::Incoming(incoming) if incoming.seems_ended())
    }

    // Rule: RFC 5321 §4.1.1.4.
    pub(super) fn data_command<'a>(&mut self, behind: &[u8]) -> ServerStep<'a> {
        // A client that does not wait for the answer to DATA sends content that could be read as
        // commands (RFC 2920 §3.1: DATA is the last command of its group).
        if !behind.is_empty() {
            return self.close(replies::input_after_data());
        }
        match self.transaction.take() {
            Some(transaction) if matches!(transaction.progress, ContentProgress::Envelope) => {
                match transaction.fault() {
                    None => {
                        self.begin_content(
                            Framing::data(),
                            ContentTarget::Store {
                                transaction,
                                content: Ok(Box::new(self.new_inspector())),
                            },
                        );
                        ServerStep::Reply(replies::go_ahead())
                    }
                    Some(fault) => {
                        self.transaction = Some(transaction);
                        self.reply(fault)
                    }
                }
            }
            transaction => {
                self.transaction = transaction;
                self.reply(replies::out_of_order(
                    "DATA comes behind RCPT, and never in one transaction with BDAT",
                ))
            }
        }
    }

    /// Begins a chunk. The chunk follows its command even if that is rejected, so it is always read
    /// (RFC 3030 §2).
    pub(super) fn bdat_command<'a>(&mut self, size: u64, last: bool) -> ServerStep<'a> {
        let Some(mut transaction) = self.transaction.take() else {
            return self.drop_chunk(size, last, replies::out_of_order("BDAT comes behind RCPT"));
        };
        if let Some(fault) = transaction.fault() {
            return self.reject_chunk(transaction, size, last, fault);
        }
        let inspector = match std::mem::replace(&mut transaction.progress, ContentProgress::Failed)
        {
            ContentProgress::Envelope => Box::new(self.new_inspector()),
            ContentProgress::Chunks(inspector) => inspector,
            ContentProgress::Failed => {
                let answer = replies::out_of_order("An earlier chunk was refused; RSET first");
                return self.reject_chunk(transaction, size, last, answer);
            }
        };
        let content = if size > inspector.remaining() {
            Err(replies::too_large(self.profile.message_size))
        } else {
            Ok(inspector)
        };
        self.begin_content(
            Framing::chunk(size, last),
            ContentTarget::Store {
                transaction,
                content,
            },
        )
    }

    /// Rejects a chunk and with it the transaction: the later chunks are not the complete message.
    fn reject_chunk<'a>(
        &mut self,
        mut transaction: OpenTransaction,
        size: u64,
        last: bool,
        answer: Reply,
    ) -> ServerStep<'a> {
        transaction.progress = ContentProgress::Failed;
        // After the last chunk, the client may already have sent the next transaction.
        self.transaction = Some(transaction).filter(|_| !last);
        self.drop_chunk(size, last, answer)
    }

    /// Reads and drops a chunk, then answers with `answer`.
    pub(super) fn drop_chunk<'a>(
        &mut self,
        size: u64,
        last: bool,
        answer: Reply,
    ) -> ServerStep<'a> {
        self.begin_content(Framing::chunk(size, last), ContentTarget::Drop(answer))
    }

    fn begin_content<'a>(&mut self, framing: Framing, target: ContentTarget) -> ServerStep<'a> {
        let drop_allowance = self.profile.message_size.saturating_mul(DROP_FACTOR);
        self.mode = InputMode::Incoming(Box::new(Incoming {
            framing,
            target,
            drop_allowance,
            tail: Vec::new(),
        }));
        // An empty chunk ends at once.
        let (_, step) = self.advance(&[]);
        step
    }

    /// Ends the message or the chunk.
    pub(super) fn end_content<'a>(&mut self) -> ServerStep<'a> {
        let InputMode::Incoming(incoming) = std::mem::replace(&mut self.mode, InputMode::Command)
        else {
            return ServerStep::Read;
        };
        let Incoming {
            framing, target, ..
        } = *incoming;
        let (mut transaction, content) = match target {
            ContentTarget::Drop(answer) => return self.reply(answer),
            ContentTarget::Store {
                transaction,
                content,
            } => (transaction, content),
        };
        match (content, framing.chunk_size_if_more()) {
            (Ok(inspector), Some(size)) => {
                transaction.progress = ContentProgress::Chunks(inspector);
                self.transaction = Some(transaction);
                self.reply(replies::chunk_ok(size))
            }
            (Ok(inspector), None) => match inspector.finish() {
                Ok(facts) => ServerStep::Commit(Box::new(transaction.envelope(facts))),
                Err(fault) => self.reply(fault.reply()),
            },
            (Err(refusal), Some(_)) => {
                transaction.progress = ContentProgress::Failed;
                self.transaction = Some(transaction);
                self.reply(refusal)
            }
            (Err(refusal), None) => self.reply(refusal),
        }
    }

    fn new_inspector(&self) -> Inspector {
        Inspector::new(self.profile.message_size, self.profile.received)
            .with_completion(self.profile.completed || self.is_authenticated)
    }
}
