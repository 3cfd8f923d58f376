//! A connection with the judge's clearance: the only place from which MAIL FROM is written.
//!
//! [`Wire::converse`] takes dialogues, and the only dialogue that has a transaction in it is the private
//! [`Permitted`], which cannot be made without the clearance of the connection it runs on.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::address::Host;
use crate::config::Timeouts;
use crate::discovery::history::TlsLevel;
use crate::smtp::client::{
    DialogueStage, Extensions, Mail, ProtocolViolation, RecipientStatus, Transaction, TransactionEnd,
    TransactionResults, TransactionStep,
};
use crate::smtp::data::Stuffer;
use crate::smtp::reply::{Reply, Severity};
use crate::spool::{Body, SpoolError};
use crate::tls::{Clearance, Handshake, NamePattern, NoTls, TlsOutcome, TlsPolicy, Verdict, judge};

use super::Via;
use super::limit::AttemptLimit;
use super::wire::{Broken, Dialogue, Wire};

/// Content is sent in blocks of at least this many octets, or whole where it is smaller.
const BLOCK: usize = 64 * 1024;

/// A connection on which mail may be spoken of.
#[derive(Debug)]
pub(super) struct Cleared {
    wire: Wire,
    extensions: Extensions,
    via: Arc<Via>,
    /// Under which policy the clearance was given.
    policy: TlsPolicy,
    /// The clearance is the judge's leave for this one connection in the clear, after TLS failed.
    is_fallback: bool,
    /// It has waited for this message; the peer may have given it up meanwhile.
    has_waited: bool,
    transactions: u32,
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// `mx.example.org [192.0.2.1]:25`.
    pub(super) text: String,
    pub(super) host: Host,
    pub(super) address: SocketAddr,
}

/// Why a transaction came to no end of its own.
#[derive(Debug)]
pub(super) enum Interruption {
    /// The connection broke.
    Connection(Broken),
    /// The content could not be read.
    Spool(SpoolError),
}

/// How a message was handed over.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) results: TransactionResults,
    pub(super) interruption: Option<Interruption>,
    /// The peer had given up an idle connection: nothing was asked of it, and nothing failed.
    pub(super) was_stale: bool,
}

impl Handed {
    /// Whether the peer put the message off for anybody, in its own words.
    pub(super) fn is_put_off(&self) -> bool {
        let later = |reply: &Reply| reply.severity() != Severity::Permanent;
        let refused = |status: &RecipientStatus| matches!(status, RecipientStatus::Rejected(reply) if later(reply));
        let ending = match &self.results.ending {
            TransactionEnd::Rejected { reply, .. } | TransactionEnd::Closing { reply, .. } => later(reply),
            TransactionEnd::Unfinished | TransactionEnd::Accepted(_) | TransactionEnd::NoRecipient => false,
        };
        ending || self.results.recipients.iter().any(refused)
    }
}

/// A transaction with the leave to hold it.
struct Permitted<'c, 'm> {
    _leave: &'c Clearance,
    transaction: Transaction<'m>,
}

impl Dialogue for Permitted<'_, '_> {
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

impl Cleared {
    /// A connection that the judge cleared under `policy`. `wire` is open: EHLO was answered.
    pub(super) fn new(wire: Wire, extensions: Extensions, peer: Peer, clearance: Clearance, policy: TlsPolicy) -> Self {
        let Peer { text: peer, host, address } = peer;
        let via = Arc::new(Via { peer, host, address, clearance, offers_dsn: extensions.dsn, was: None });
        Self { wire, extensions, via, policy, is_fallback: false, has_waited: false, transactions: 0 }
    }

    /// The same, in the clear after TLS failed. Its leave is good for the message at hand alone: the next
    /// one tries TLS again.
    pub(super) fn fallback(
        wire: Wire,
        extensions: Extensions,
        peer: Peer,
        clearance: Clearance,
        policy: TlsPolicy,
    ) -> Self {
        Self { is_fallback: true, ..Self::new(wire, extensions, peer, clearance, policy) }
    }

    /// The session, for the record.
    pub(super) fn via(&self) -> &Arc<Via> {
        &self.via
    }

    /// What the domain of the message at hand had shown before, where that was more.
    pub(super) fn is_less_than(&mut self, was: Option<TlsLevel>) {
        if self.via.was != was {
            self.via = Arc::new(Via { was, ..Via::clone(&self.via) });
        }
    }

    /// Whether the session was resumed from an earlier one, so that no certificate was shown in it.
    pub(super) fn is_renewed(&self) -> bool {
        matches!(self.via.clearance.outcome(), TlsOutcome::Tls(facts) if facts.handshake == Handshake::Resumed)
    }

    /// What the peer can do.
    pub(super) fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// Returns whether another message may follow, as far as the number of messages goes; none on a fallback in the clear.
    pub(super) fn is_reusable(&self, messages_per_connection: u32) -> bool {
        !self.is_fallback && !self.is_spent(messages_per_connection)
    }

    /// Whether it has carried as many messages as it may.
    pub(super) fn is_spent(&self, messages_per_connection: u32) -> bool {
        self.transactions >= messages_per_connection
    }

    /// Whether mail under `policy` may cross this session too. Its own handshake is judged, anew unless
    /// the policy is the one it was judged by: the judge is a pure function.
    pub(super) fn admits(&mut self, policy: &TlsPolicy, reference: &[NamePattern]) -> bool {
        if *policy == self.policy {
            return true;
        }
        let outcome = self.via.clearance.outcome();
        // Nobody asked this peer for TLS.
        if *outcome == TlsOutcome::Clear(NoTls::NotWanted) {
            return false;
        }
        let Verdict::Cleared(clearance) = judge(policy, outcome.clone(), reference) else { return false };
        self.via = Arc::new(Via { clearance, ..Via::clone(&self.via) });
        self.policy = policy.clone();
        true
    }

    /// Whether the peer has been quiet since the last message.
    pub(super) async fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet().await
    }

    /// Makes ready for a time without work.
    pub(super) fn rest(&mut self) {
        self.has_waited = true;
        self.wire.rest();
    }

    /// Ends the session; the task ends with it.
    pub(super) fn quit(self) -> JoinHandle<()> {
        self.wire.quit()
    }

    /// Hands one message over. The message must fit the peer ([`Mail::fits`]).
    pub(super) async fn hand_over(
        &mut self,
        mail: Mail<'_>,
        body: &Body,
        timeouts: &Timeouts,
        limit: &AttemptLimit,
    ) -> Handed {
        let leave = &self.via.clearance;
        let has_waited = std::mem::take(&mut self.has_waited);
        self.transactions = self.transactions.saturating_add(1);
        limit.transaction(mail.recipients.len());
        let content = Content { body, octets: mail.size, timeouts, limit };
        let transaction = Transaction::start(mail, self.extensions, self.wire.output(leave));
        let mut permitted = Permitted { _leave: leave, transaction };
        let interruption = carry(&mut self.wire, &mut permitted, leave, &content).await.err();
        limit.transaction_over();
        let unanswered = permitted.transaction.replies() == 0;
        let results = permitted.transaction.into_results();
        let closed = match (&interruption, &results.ending) {
            (Some(Interruption::Connection(broken)), _) => unanswered && broken.is_closed(),
            (_, TransactionEnd::Closing { stage: DialogueStage::Mail, .. }) => true,
            // Some look at the clock only when it comes to a recipient.
            (_, TransactionEnd::Closing { stage: DialogueStage::Rcpt, .. }) => {
                results.recipients.iter().all(|status| *status == RecipientStatus::Pending)
            }
            _ => false,
        };
        Handed { results, interruption, was_stale: closed && has_waited }
    }
}

/// What is handed over, and in which time.
struct Content<'a> {
    body: &'a Body,
    octets: u64,
    timeouts: &'a Timeouts,
    limit: &'a AttemptLimit,
}

async fn carry(
    wire: &mut Wire,
    permitted: &mut Permitted<'_, '_>,
    leave: &Clearance,
    content: &Content<'_>,
) -> Result<(), Interruption> {
    let timeouts = content.timeouts;
    match wire.converse(permitted, timeouts.reply).await.map_err(Interruption::Connection)? {
        TransactionStep::Over => return Ok(()),
        TransactionStep::Content => {}
    }
    send_content(wire, leave, content).await?;
    permitted.transaction.content_sent();
    // After the dot there is nothing to send but an answer to wait for.
    wire.converse(permitted, timeouts.final_reply).await.map_err(Interruption::Connection)?;
    Ok(())
}

/// Streams the content. Where it cannot be read to its end, the final dot is not sent: half a message
/// must not pass for a whole one.
async fn send_content(wire: &mut Wire, leave: &Clearance, content: &Content<'_>) -> Result<(), Interruption> {
    let Content { body, octets, timeouts, limit } = *content;
    limit.content(octets, timeouts.data_rate);
    let mut reader = body.reader().await.map_err(Interruption::Spool)?;
    let mut stuffer = Stuffer::new();
    while let Some(chunk) = reader.next().await.map_err(Interruption::Spool)? {
        let out = wire.output(leave);
        stuffer.push(&chunk, out);
        if out.len() >= BLOCK {
            wire.flush(timeouts.data_block).await.map_err(Interruption::Connection)?;
        }
    }
    stuffer.finish(wire.output(leave));
    limit.final_reply();
    wire.flush(timeouts.data_block).await.map_err(Interruption::Connection)
}
