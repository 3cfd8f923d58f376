//! The parts of the relay that every task of the scheduler uses, and the events that the tasks send
//! to its loop.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::relay::outbound::Outbound;
use crate::relay::running_config::RunningConfig;
use crate::smtp::address::Host;
use crate::smtp::envelope::QueueId;
use crate::storage::evidence::Evidence;
use crate::storage::spool::{Claim, Claimed, Entry, SetAside, Spool, StoredMessage};

use super::active_message::LoadedMessage;
use super::hand_over_page::HandOverEnd;
use super::queues::{AttemptToken, Health, Item};
use super::recorded_acceptances::RecordedAcceptances;
use super::report_queue::{Limiter, OwedReports, ReportCounters};
use super::waiting_results::WaitingResults;

/// The parts of the relay that every delivery task uses.
pub(super) struct Context {
    pub(super) spool: Arc<dyn Spool>,
    pub(super) evidence: Evidence,
    pub(super) outbound: Arc<Outbound>,
    pub(super) running: RunningConfig,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// The results that wait until the spool stores them.
    pub(super) waiting_results: WaitingResults,
    /// The acceptances that are on record although the stored messages still have their facts.
    pub(super) acceptances: RecordedAcceptances,
    /// The rate limit of reports to senders.
    pub(super) limiter: Mutex<Limiter>,
    /// The counts of reports.
    pub(super) reports: ReportCounters,
    /// The stored report about quarantined messages whose marks could not be removed, and these
    /// messages.
    pub(super) marked_report: Mutex<Option<(QueueId, Vec<SetAside>)>>,
    /// The octets of content in memory, at most [`super::active_message::MEMORY_MAX`].
    pub(super) in_memory: Arc<AtomicU64>,
    /// Cancelled at shutdown: no job starts any more, and a write that fails is not retried.
    pub(super) ending: CancellationToken,
}

/// An event that a task sends to the scheduler's loop. The number of jobs bounds the number of
/// events in the channel.
pub(super) enum Event {
    /// An attempt has ended, and its connection slot is free: the recipient domain, and the connector
    /// of the user who sent the message.
    Finished(AttemptToken, Host, Option<Arc<str>>, Health),
    /// The result of a job is stored. The item is queued again for the given time, if recipients
    /// remain.
    Settled(QueueId, Option<(Item<LoadedMessage>, Instant)>),
    /// A report was stored in the spool and is to be delivered.
    Report(Box<Claimed<Entry>>),
    /// The reports that a message owes have changed; the change is stored.
    ReportsOwed(Claim, OwedReports),
    /// A report task has ended. A time means that a report is still owed and is retried after it.
    Reported(QueueId, Option<Duration>),
    /// A digest task has ended.
    Digested {
        /// The messages that the task worked on.
        ids: Vec<QueueId>,
        /// The messages among them that still need a digest.
        remaining: Vec<Claim>,
    },
    /// The task of the report about quarantined messages has ended. It is true if the report is
    /// stored.
    QuarantineReported(bool),
    /// The spool has refused a change of this message, which is another owner's.
    NotOwner(QueueId),
    /// An operator's order on one message has ended.
    Ordered(QueueId, AfterOrder),
    /// A page of messages was handed to other relays, except some of them.
    HandedOver(HandOverEnd),
}

/// The work that remains for a message after an order.
pub(super) enum AfterOrder {
    Nothing,
    /// The items from before the order.
    SameItems(Vec<(Item<LoadedMessage>, Instant)>),
    /// The items of its new envelope.
    Requeue(Box<Claimed<StoredMessage>>),
}
