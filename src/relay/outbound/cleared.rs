//! A connection with the TLS judge's clearance: the only place from which MAIL FROM is written.
//!
//! [`Wire::converse`] runs dialogues. The only dialogues that contain MAIL are the private
//! [`ClearedTransaction`] and [`ClearedQuery`], which cannot be created without the clearance of
//! their connection.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::Timeouts;
use crate::discovery::history::TlsLevel;
use crate::net::revocation::crl_changes;
use crate::policy::failure::Peer;
use crate::policy::tls::{
    Clearance, Handshake, NamePattern, NoTls, TlsOutcome, TlsPolicy, Verdict, judge,
};
use crate::relay::buffer_memory::{BufferMemory, SLOW};
use crate::smtp::address::Mailbox;
use crate::smtp::client::{
    DialogueStage, Extensions, Mail, ProtocolViolation, QueryEnd, QueryOver, RecipientQuery,
    RecipientStatus, Transaction, TransactionEnd, TransactionResults, TransactionStep,
};
use crate::smtp::data::Stuffer;
use crate::smtp::reply::{Reply, Severity};
use crate::storage::spool::{Body, LARGE_CHUNK, SpoolError};

use super::attempt::Via;
use super::limit::AttemptLimit;
use super::login_result::SessionLogin;
use super::wire::{ConnectionFailure, Dialogue, LARGE_TLS_BUFFER, Wire};

/// The size of the blocks in which content is sent, in octets; a smaller content is sent in one
/// block.
const BLOCK_SIZE: usize = 64 * 1024;
/// The size of the blocks in which content is sent to a peer that is fast.
const LARGE_BLOCK_SIZE: usize = 256 * 1024;
/// The memory that such a peer needs in addition: two chunks of the spool, a block, and the block
/// under TLS.
const LARGE_MEMORY: usize = 2 * LARGE_CHUNK + LARGE_BLOCK_SIZE + LARGE_TLS_BUFFER;

/// The most commands that a peer may have rejected in a session that is kept for another message.
/// Postfix delays each reply from ten errors on, and ends the session after twenty.
const REJECTIONS_MAX: u32 = 5;

/// A connection on which mail may be sent.
#[derive(Debug)]
pub(super) struct Cleared {
    wire: Wire,
    extensions: Extensions,
    via: Arc<Via>,
    /// The policy under which the clearance was given.
    policy: TlsPolicy,
    /// The number of changes of CRLs before the revocation status was found.
    crl_changes: u64,
    /// True if the connection is the fallback in the clear after TLS failed; its clearance is for
    /// one message only.
    is_fallback: bool,
    /// The time since which the connection is idle, so that the peer may close it meanwhile.
    idle_since: Option<Instant>,
    /// True if the peer accepted the last message, within [`SLOW`], with replies that cannot be
    /// mistaken for one another.
    is_prompt: bool,
    transactions: u32,
    /// The commands that the peer has rejected. Servers count them, also across RSET, and then slow
    /// the session down or end it.
    rejections: u32,
}

/// The reason for which a transaction stopped before the peer decided it.
#[derive(Debug)]
pub(super) enum Interruption {
    /// The connection failed.
    Connection(ConnectionFailure),
    /// The content could not be read.
    Spool(SpoolError),
    /// The message is not this relay's any more.
    NotOwner(SpoolError),
}

/// The result of sending one message on one connection.
#[derive(Debug)]
pub(super) struct SendResult {
    pub(super) results: TransactionResults,
    pub(super) interruption: Option<Interruption>,
    /// True if the peer had closed the connection while it was idle. The peer accepted nothing, and
    /// no failure is recorded: the message is tried on another connection.
    pub(super) was_stale: bool,
    /// True if the peer may have accepted the message although its reply is not known.
    pub(super) may_be_accepted: bool,
    pub(super) chunk: ChunkResult,
}

/// The result of sending the content as a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkResult {
    /// The content was not sent as a chunk.
    Unused,
    /// The peer replied to it.
    Answered,
    /// The peer does not know BDAT, and accepted nothing. No recipient has a result.
    Refused,
    /// It is not known what became of it.
    Failed,
}

impl SendResult {
    /// Returns the result for a message of which nothing was sent. The session is as it was.
    fn not_sent(recipients: usize, refusal: SpoolError) -> Self {
        let results = TransactionResults {
            recipients: vec![RecipientStatus::Pending; recipients],
            ending: TransactionEnd::Unfinished,
            reusable: true,
            has_distinct_replies: false,
            last_named: None,
        };
        Self {
            results,
            interruption: Some(Interruption::NotOwner(refusal)),
            was_stale: false,
            may_be_accepted: false,
            chunk: ChunkResult::Unused,
        }
    }

    /// Returns whether the peer deferred the message for any recipient, by a reply of its own (4xx
    /// or 421).
    pub(super) fn is_deferred(&self) -> bool {
        let is_temporary = |reply: &Reply| reply.severity() != Severity::Permanent;
        let refused = |status: &RecipientStatus| {
            matches!(status, RecipientStatus::Rejected(reply) | RecipientStatus::Undelivered(reply)
                if is_temporary(reply))
        };
        let ending = match &self.results.ending {
            TransactionEnd::Rejected { reply, .. } | TransactionEnd::Closing { reply, .. } => {
                is_temporary(reply)
            }
            TransactionEnd::Unfinished
            | TransactionEnd::Accepted(_)
            | TransactionEnd::EachAnswered
            | TransactionEnd::NoRecipient => false,
        };
        ending || self.results.recipients.iter().any(refused)
    }
}

/// A transaction together with the clearance of its connection.
struct ClearedTransaction<'c, 'm> {
    _clearance: &'c Clearance,
    transaction: Transaction<'m>,
}

impl Dialogue for ClearedTransaction<'_, '_> {
    type Step = TransactionStep;

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<TransactionStep>), ProtocolViolation> {
        self.transaction.receive(input, out)
    }

    fn replies(&self) -> usize {
        self.transaction.replies()
    }

    fn awaited(&self) -> DialogueStage {
        self.transaction.awaited()
    }
}

/// A question together with the clearance of its connection.
struct ClearedQuery<'c, 'm> {
    _clearance: &'c Clearance,
    query: RecipientQuery<'m>,
}

impl Dialogue for ClearedQuery<'_, '_> {
    type Step = QueryOver;

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<QueryOver>), ProtocolViolation> {
        self.query.receive(input, out)
    }

    fn replies(&self) -> usize {
        self.query.replies()
    }

    fn awaited(&self) -> DialogueStage {
        self.query.awaited()
    }
}

impl Cleared {
    /// Creates a connection that the judge cleared under `policy`. EHLO has been answered on
    /// `wire`, and the login too, if there was one.
    pub(super) fn new(
        wire: Wire,
        extensions: Extensions,
        peer: Peer,
        (clearance, login): (Clearance, Option<SessionLogin>),
        (policy, crl_changes): (TlsPolicy, u64),
    ) -> Self {
        let via = Arc::new(Via {
            peer,
            clearance,
            login,
            offers_dsn: extensions.dsn,
            earlier_level: None,
        });
        Self {
            wire,
            extensions,
            via,
            policy,
            crl_changes,
            is_fallback: false,
            idle_since: None,
            is_prompt: false,
            transactions: 0,
            rejections: 0,
        }
    }

    /// Creates a connection in the clear after TLS failed. Its clearance is for one message; the
    /// next message tries TLS again.
    pub(super) fn fallback(
        wire: Wire,
        extensions: Extensions,
        peer: Peer,
        cleared: (Clearance, Option<SessionLogin>),
        policy: (TlsPolicy, u64),
    ) -> Self {
        Self {
            is_fallback: true,
            ..Self::new(wire, extensions, peer, cleared, policy)
        }
    }

    /// The session, as logs and evidence record it.
    pub(super) fn via(&self) -> &Arc<Via> {
        &self.via
    }

    /// Records the TLS level that the domain of the current message showed before, if that was
    /// higher.
    pub(super) fn set_earlier_level(&mut self, level: Option<TlsLevel>) {
        if self.via.earlier_level != level {
            self.via = Arc::new(Via {
                earlier_level: level,
                ..Via::clone(&self.via)
            });
        }
    }

    /// Returns whether the session was resumed from an earlier one, so that the peer showed no
    /// certificate in it.
    pub(super) fn is_resumed(&self) -> bool {
        matches!(self.via.clearance.outcome(), TlsOutcome::Tls(facts) if facts.handshake == Handshake::Resumed)
    }

    /// The extensions that the peer offers.
    pub(super) fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// Returns whether the connection may be kept for another message. A fallback in the clear is
    /// never kept, nor is a session in which the peer has rejected much.
    pub(super) fn is_reusable(&self, messages_per_connection: u32) -> bool {
        !self.is_fallback
            && !self.has_reached_limit(messages_per_connection)
            && self.rejections < REJECTIONS_MAX
    }

    /// Returns whether the connection has carried as many messages as it may.
    pub(super) fn has_reached_limit(&self, messages_per_connection: u32) -> bool {
        self.transactions >= messages_per_connection
    }

    /// Returns whether mail under `policy` may use this session too. The judge judges the session's
    /// own handshake again, unless the policy is the one it was cleared under. Where revocation
    /// matters, a session is of no use once a CRL has changed or expired.
    // Rule: policy table (reuse); policy table (revocation).
    pub(super) fn admits(&mut self, policy: &TlsPolicy, reference: &[NamePattern]) -> bool {
        let outcome = self.via.clearance.outcome();
        if policy.asks_for_revocation()
            && (self.crl_changes != crl_changes() || !outcome.revocation_holds_at(Timestamp::now()))
        {
            return false;
        }
        if *policy == self.policy {
            return true;
        }
        // TLS was not requested in this session, so the session does not show whether the peer has
        // it.
        if *outcome == TlsOutcome::Clear(NoTls::NotWanted) {
            return false;
        }
        let Verdict::Cleared(clearance) = judge(policy, outcome.clone(), reference) else {
            return false;
        };
        self.via = Arc::new(Via {
            clearance,
            ..Via::clone(&self.via)
        });
        self.policy = policy.clone();
        true
    }

    /// Returns whether the peer has neither sent anything nor closed the connection since the last
    /// message.
    pub(super) async fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet().await
    }

    /// Prepares the connection for being idle.
    pub(super) fn prepare_idle(&mut self) {
        self.idle_since = Some(Instant::now());
        self.wire.shrink_output();
    }

    /// Closes the session with QUIT. The returned task ends when the connection is closed.
    pub(super) fn quit(self) -> JoinHandle<()> {
        self.wire.quit()
    }

    /// Returns whether the connection has been idle, so that the peer may have closed it.
    pub(super) fn is_idle(&self) -> bool {
        self.idle_since.is_some()
    }

    /// Asks about a mailbox, of which the peer can be asked ([`RecipientQuery::may_ask`]). Returns
    /// the end of the question, and whether the session can be used again.
    ///
    /// # Errors
    /// The failure of the connection.
    pub(super) async fn ask(
        &mut self,
        mailbox: &Mailbox,
        limit: Duration,
    ) -> Result<(QueryEnd, bool), ConnectionFailure> {
        let clearance = &self.via.clearance;
        self.transactions = self.transactions.saturating_add(1);
        self.idle_since = None;
        let out = self.wire.output(clearance);
        let mut dialogue = ClearedQuery {
            _clearance: clearance,
            query: RecipientQuery::start(mailbox, self.extensions, out),
        };
        let broken = self.wire.converse(&mut dialogue, limit).await.err();
        let is_reusable = broken.is_none() && dialogue.query.is_reusable();
        let end = dialogue.query.into_end();
        self.rejections += u32::from(end.is_rejection());
        match (end, broken) {
            // The reply to RCPT counts, whatever became of RSET.
            (end @ QueryEnd::Answered(_), _) | (end, None) => Ok((end, is_reusable)),
            (_, Some(broken)) => Err(broken),
        }
    }

    /// Sends one message, unless the lease of its owner is over. The message must fit the peer
    /// ([`Mail::fits`]). `may_chunk` is false if the content may not be sent as a chunk.
    // Rule: RFC 5321 §4.5.3.1.8.
    pub(super) async fn send(
        &mut self,
        mail: Mail<'_>,
        body: &Body,
        timeouts: &Timeouts,
        limit: &AttemptLimit,
        may_chunk: bool,
    ) -> SendResult {
        // Octets that came before the commands would count as the reply to one of them.
        let chunk = match self.chunk_of(&mail, body) {
            Some(chunk) if may_chunk && !self.wire.has_spoken().await => Some(chunk),
            Some(_) | None => None,
        };
        if let Err(refusal) = limit.check_owner() {
            return SendResult::not_sent(mail.recipients.len(), refusal);
        }
        let clearance = &self.via.clearance;
        self.transactions = self.transactions.saturating_add(1);
        limit.begin_transaction(mail.recipients.len());
        let content = Content {
            body,
            octets: mail.size,
            timeouts,
            limit,
        };
        let has_waited = self.idle_since.take().is_some();
        let (extensions, out) = (self.extensions, self.wire.output(clearance));
        let began = Instant::now();
        let transaction = match chunk {
            Some(octets) => Transaction::start_with_chunk(mail, extensions, octets, out),
            None => Transaction::start(mail, extensions, out),
        };
        let mut dialogue = ClearedTransaction {
            _clearance: clearance,
            transaction,
        };
        if chunk.is_some() {
            limit.chunk_sent();
        }
        let interruption = run_transaction(&mut self.wire, &mut dialogue, clearance, &content)
            .await
            .err();
        limit.end_transaction();
        let unanswered = dialogue.transaction.replies() == 0;
        let may_be_accepted = dialogue.transaction.may_be_accepted();
        let chunk = match chunk {
            None => ChunkResult::Unused,
            Some(_) if dialogue.transaction.refuses_chunks() => ChunkResult::Refused,
            Some(_) if interruption.is_some() && may_be_accepted => ChunkResult::Failed,
            Some(_) => ChunkResult::Answered,
        };
        let results = dialogue.transaction.into_results();
        self.rejections = self.rejections.saturating_add(rejections(&results));
        self.is_prompt = results.has_distinct_replies && began.elapsed() < SLOW;
        let is_closed_unused =
            !may_be_accepted && is_closed_unused(unanswered, interruption.as_ref(), &results);
        SendResult {
            results,
            interruption,
            was_stale: is_closed_unused && has_waited,
            may_be_accepted,
            chunk,
        }
    }
}

impl Cleared {
    /// Returns the content if it is to be sent as a chunk with the commands, in one write: a small
    /// one, to a peer that offers that and has just accepted another message. A peer that refuses
    /// or delays mail gets no content before it has accepted a recipient, and a connection that the
    /// peer may have closed while it was idle gets none either: nobody would know what became of it.
    /// Nor does a peer whose replies do not show to which command they belong.
    fn chunk_of<'b>(&self, mail: &Mail<'_>, body: &'b Body) -> Option<&'b [u8]> {
        let is_warm = self.is_prompt && self.idle_since.is_none_or(|since| since.elapsed() < SLOW);
        let may = is_warm && Transaction::may_have_chunk(mail, self.extensions);
        match body {
            Body::Memory(content) if may && content.len() <= BLOCK_SIZE => Some(content),
            Body::Memory(_) | Body::File(_) | Body::Pieces(_) => None,
        }
    }
}

/// Returns the number of commands of a transaction that the peer rejected.
fn rejections(results: &TransactionResults) -> u32 {
    let recipients = results.recipients.iter().map(|status| match status {
        RecipientStatus::Rejected(_)
        | RecipientStatus::Undelivered(_)
        | RecipientStatus::Overflow => 1,
        RecipientStatus::Pending | RecipientStatus::Accepted | RecipientStatus::Delivered(_) => 0,
    });
    let ended = matches!(
        results.ending,
        TransactionEnd::Rejected { .. } | TransactionEnd::NoRecipient
    );
    recipients.fold(u32::from(ended), u32::saturating_add)
}

/// Returns whether the peer closed the connection before it could accept anything.
fn is_closed_unused(
    unanswered: bool,
    interruption: Option<&Interruption>,
    results: &TransactionResults,
) -> bool {
    match (interruption, &results.ending) {
        (Some(Interruption::Connection(broken)), _) => unanswered && broken.is_closed(),
        (
            _,
            TransactionEnd::Closing {
                stage: DialogueStage::Mail,
                ..
            },
        ) => true,
        // Some servers check their idle limit only at RCPT.
        _ => {
            is_closed_at_rcpt(results)
                && results
                    .recipients
                    .iter()
                    .all(|status| *status == RecipientStatus::Pending)
        }
    }
}

/// Returns whether the peer ended the session at a recipient. It may have the content as a chunk, and
/// deliver it to those that it accepted before.
fn is_closed_at_rcpt(results: &TransactionResults) -> bool {
    matches!(
        results.ending,
        TransactionEnd::Closing {
            stage: DialogueStage::Rcpt,
            ..
        }
    )
}

/// The content of a message, and the time limits for sending it.
struct Content<'a> {
    body: &'a Body,
    octets: u64,
    timeouts: &'a Timeouts,
    limit: &'a AttemptLimit,
}

async fn run_transaction(
    wire: &mut Wire,
    dialogue: &mut ClearedTransaction<'_, '_>,
    clearance: &Clearance,
    content: &Content<'_>,
) -> Result<(), Interruption> {
    let timeouts = content.timeouts;
    let step = wire.converse(dialogue, timeouts.reply).await;
    match step.map_err(Interruption::Connection)? {
        TransactionStep::Over => return Ok(()),
        TransactionStep::ChunkReply => content.limit.await_final_reply(),
        TransactionStep::Content => {
            let spoke_early = send_content(wire, clearance, content).await?;
            dialogue.transaction.content_sent(spoke_early);
        }
    }
    // After the end of the content only the reply is awaited.
    wire.converse(dialogue, timeouts.final_reply)
        .await
        .map_err(Interruption::Connection)?;
    Ok(())
}

/// Sends the content. If the spool cannot be read to the end, or the message is not this relay's any
/// more, the final dot is not sent, so that the peer does not accept it. Returns true if the peer sent something before the
/// final dot was sent.
// Rule: RFC 5321 §4.5.3.2.5.
async fn send_content(
    wire: &mut Wire,
    clearance: &Clearance,
    content: &Content<'_>,
) -> Result<bool, Interruption> {
    let Content {
        body,
        octets,
        timeouts,
        limit,
    } = *content;
    limit.begin_content(octets, timeouts.data_rate);
    let mut reader = body.reader().await.map_err(Interruption::Spool)?;
    let mut stuffer = Stuffer::new();
    let mut large: Option<BufferMemory> = None;
    while let Some(chunk) = reader.next().await.map_err(Interruption::Spool)? {
        let since = Instant::now();
        let block = if large.is_some() {
            LARGE_BLOCK_SIZE
        } else {
            BLOCK_SIZE
        };
        for part in chunk.chunks(block) {
            let out = wire.output(clearance);
            stuffer.push(part, out);
            if out.len() >= block {
                wire.flush(time_for_block(block, timeouts))
                    .await
                    .map_err(Interruption::Connection)?;
            }
        }
        if since.elapsed() > SLOW {
            large = None;
        } else if large.is_none() && octets > LARGE_CHUNK as u64 {
            large = BufferMemory::reserve(LARGE_MEMORY);
        }
        reader.use_large_chunks(large.is_some());
        wire.use_large_blocks(large.is_some());
    }
    // A lease that has ended meanwhile: another relay may be sending the message by now.
    limit.check_owner().map_err(Interruption::NotOwner)?;
    stuffer.finish(wire.output(clearance));
    let spoke_early = wire.has_spoken().await;
    limit.await_final_reply();
    let time_limit = time_for_block(BLOCK_SIZE, timeouts);
    let sent = wire.flush(time_limit).await;
    wire.use_large_blocks(false);
    sent.map_err(Interruption::Connection)?;
    Ok(spoke_early)
}

/// Returns the time in which the peer must accept a block. A large block may take as long as it
/// takes at `[timeouts] data_rate`, since a peer that keeps this rate is served to the end.
fn time_for_block(octets: usize, timeouts: &Timeouts) -> Duration {
    let rate = timeouts.data_rate.max(1);
    timeouts
        .data_block
        .max(Duration::from_secs(octets as u64 / rate))
}
