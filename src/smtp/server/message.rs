//! DATA and BDAT: how a message begins, goes on and ends.

use super::incoming::{ContentTarget, Framing, Incoming};
use super::{ContentProgress, InputMode, OpenTransaction, Server, ServerStep, replies};
use crate::smtp::data::Inspector;
use crate::smtp::reply::Reply;

/// Of content that was refused so many times a whole message is read, so that the client hears why: the network takes
/// an answer away from who is still sending when the connection is closed.
const PATIENCE: u64 = 4;

impl Server {
    /// Says that content cannot be stored: the rest of it is dropped, and answered for with `reply`.
    pub fn fail(&mut self, reply: Reply) {
        if let InputMode::Incoming(incoming) = &mut self.mode {
            incoming.fail(reply);
        }
    }

    /// The answer to content that was refused, where its end has not come yet.
    #[must_use]
    pub fn refusal(&self) -> Option<&Reply> {
        match &self.mode {
            InputMode::Incoming(incoming) => incoming.refusal(),
            InputMode::Command | InputMode::Skip | InputMode::Closed => None,
        }
    }

    /// Whether refused content seems to have ended, though not as SMTP has it: its client waits for an answer, as we do
    /// for the end.
    #[must_use]
    pub fn seems_over(&self) -> bool {
        matches!(&self.mode, InputMode::Incoming(incoming) if incoming.seems_over())
    }

    pub(super) fn data<'a>(&mut self, behind: &[u8]) -> ServerStep<'a> {
        // A client that does not wait for the answer to DATA sends a message that might be taken for
        // commands (RFC 2920 §3.1: DATA is the last of its group).
        if !behind.is_empty() {
            return self.close(replies::spoke_behind_data());
        }
        match self.transaction.take() {
            Some(transaction) if matches!(transaction.progress, ContentProgress::Envelope) => match transaction.fault()
            {
                None => {
                    self.begin(
                        Framing::data(),
                        ContentTarget::Store { transaction, content: Ok(Box::new(self.inspector())) },
                    );
                    ServerStep::Reply(replies::go_ahead())
                }
                Some(fault) => {
                    self.transaction = Some(transaction);
                    self.say(fault)
                }
            },
            transaction => {
                self.transaction = transaction;
                self.say(replies::out_of_order("DATA comes behind RCPT, and never in one transaction with BDAT"))
            }
        }
    }

    /// Whatever is wrong, the chunk is on its way and has to be read (RFC 3030 §2).
    pub(super) fn chunk<'a>(&mut self, size: u64, last: bool) -> ServerStep<'a> {
        let Some(mut transaction) = self.transaction.take() else {
            return self.drop_chunk(size, last, replies::out_of_order("BDAT comes behind RCPT"));
        };
        if let Some(fault) = transaction.fault() {
            return self.reject_chunk(transaction, size, last, fault);
        }
        let inspector = match std::mem::replace(&mut transaction.progress, ContentProgress::Failed) {
            ContentProgress::Envelope => Box::new(self.inspector()),
            ContentProgress::Chunks(inspector) => inspector,
            ContentProgress::Failed => {
                let answer = replies::out_of_order("An earlier chunk was refused; RSET first");
                return self.reject_chunk(transaction, size, last, answer);
            }
        };
        let content =
            if size > inspector.room() { Err(replies::too_large(self.profile.message_size)) } else { Ok(inspector) };
        self.begin(Framing::chunk(size, last), ContentTarget::Store { transaction, content })
    }

    /// A chunk that is refused takes its transaction with it: what comes behind it is not the whole message.
    fn reject_chunk<'a>(
        &mut self,
        mut transaction: OpenTransaction,
        size: u64,
        last: bool,
        answer: Reply,
    ) -> ServerStep<'a> {
        transaction.progress = ContentProgress::Failed;
        // Behind the last chunk the next transaction may be in the pipeline already.
        self.transaction = Some(transaction).filter(|_| !last);
        self.drop_chunk(size, last, answer)
    }

    pub(super) fn drop_chunk<'a>(&mut self, size: u64, last: bool, answer: Reply) -> ServerStep<'a> {
        self.begin(Framing::chunk(size, last), ContentTarget::Drop(answer))
    }

    fn begin<'a>(&mut self, framing: Framing, target: ContentTarget) -> ServerStep<'a> {
        let patience = self.profile.message_size.saturating_mul(PATIENCE);
        self.mode = InputMode::Incoming(Box::new(Incoming { framing, target, patience, tail: Vec::new() }));
        // An empty chunk has ended already.
        let (_, step) = self.advance(&[]);
        step
    }

    /// The message, or a chunk of it, has come to its end.
    pub(super) fn end<'a>(&mut self) -> ServerStep<'a> {
        let InputMode::Incoming(incoming) = std::mem::replace(&mut self.mode, InputMode::Command) else {
            return ServerStep::Read;
        };
        let Incoming { framing, target, .. } = *incoming;
        let (mut transaction, content) = match target {
            ContentTarget::Drop(answer) => return self.say(answer),
            ContentTarget::Store { transaction, content } => (transaction, content),
        };
        match (content, framing.chunk_size_if_more()) {
            (Ok(inspector), Some(size)) => {
                transaction.progress = ContentProgress::Chunks(inspector);
                self.transaction = Some(transaction);
                self.say(replies::chunk_ok(size))
            }
            (Ok(inspector), None) => match inspector.finish() {
                Ok(findings) => ServerStep::Commit(Box::new(transaction.envelope(findings))),
                Err(fault) => self.say(fault.reply()),
            },
            (Err(refusal), Some(_)) => {
                transaction.progress = ContentProgress::Failed;
                self.transaction = Some(transaction);
                self.say(refusal)
            }
            (Err(refusal), None) => self.say(refusal),
        }
    }

    fn inspector(&self) -> Inspector {
        Inspector::new(self.profile.message_size, self.profile.received).completed(self.profile.completed)
    }
}
