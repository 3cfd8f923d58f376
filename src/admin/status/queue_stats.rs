//! The queue, counted: how much waits for whom, how long, and why.
//!
//! Everything in the spool is looked at, so it is not done for each who asks: the longer it took, the
//! longer it is good for, and only one count goes on at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::address::Host;
use crate::envelope::{RecipientState, Trouble};
use crate::spool::{Spool, SpoolError, StoredMessage};

/// Messages that are read at a time.
const PAGE: usize = 1000;
/// A count is good for a second at least, and for fifty times the time it took: no more than a fiftieth of
/// one processor is spent on counting.
const GOOD_FOR: Duration = Duration::from_secs(1);
const SHARE: u32 = 50;
/// Recipient domains that are told apart; the mail for others is counted without them.
const DOMAINS_MAX: usize = 20_000;

/// What the spool holds.
#[derive(Debug, Clone)]
pub(super) struct QueueStats {
    pub(super) at: Timestamp,
    pub(super) messages: u64,
    pub(super) octets: u64,
    pub(super) oldest: Option<Timestamp>,
    pub(super) domains: HashMap<Host, DomainStats>,
    /// Of domains that are not told apart.
    pub(super) others: DomainStats,
}

/// What waits for one domain.
#[derive(Debug, Clone, Default)]
pub(super) struct DomainStats {
    pub(super) waiting: u64,
    pub(super) held: u64,
    pub(super) oldest: Option<Timestamp>,
    /// The last failure of any attempt.
    pub(super) trouble: Option<Trouble>,
    /// The time at which the first of them is due; it is in the past where the message is due already.
    pub(super) next: Option<Timestamp>,
}

/// Counts, and remembers the last count.
#[derive(Debug, Default)]
pub(in crate::admin) struct QueueCounter(Mutex<Option<CachedStats>>);

#[derive(Debug)]
struct CachedStats {
    stats: Arc<QueueStats>,
    good_until: Instant,
}

impl QueueCounter {
    /// The queue as it is now, or was when it was counted a while ago.
    ///
    /// # Errors
    /// Whatever keeps the spool from being read.
    pub(super) async fn stats(&self, spool: &dyn Spool) -> Result<Arc<QueueStats>, SpoolError> {
        let mut last = self.0.lock().await;
        let began = Instant::now();
        if let Some(counted) = last.as_ref().filter(|counted| began < counted.good_until) {
            return Ok(Arc::clone(&counted.stats));
        }
        let mut stats = QueueStats::new(Timestamp::now());
        let mut after = None;
        loop {
            let page = spool.scan(after, PAGE).await?;
            let Some(end) = page.last() else { break };
            after = Some(end.id);
            for stored in &page {
                stats.add(stored);
            }
        }
        let stats = Arc::new(stats);
        let good_until = Instant::now() + GOOD_FOR.max(began.elapsed() * SHARE);
        *last = Some(CachedStats { stats: Arc::clone(&stats), good_until });
        Ok(stats)
    }
}

impl QueueStats {
    fn new(at: Timestamp) -> Self {
        Self { at, messages: 0, octets: 0, oldest: None, domains: HashMap::new(), others: DomainStats::default() }
    }

    fn add(&mut self, stored: &StoredMessage) {
        self.messages += 1;
        self.octets += stored.size;
        keep_earlier(&mut self.oldest, stored.accepted);
        for recipient in stored.envelope.recipients.iter().filter(|recipient| recipient.state.is_open()) {
            let host = recipient.mailbox.host();
            let is_full = self.domains.len() >= DOMAINS_MAX && !self.domains.contains_key(host);
            let domain = if is_full { &mut self.others } else { self.domains.entry(host.clone()).or_default() };
            domain.add(&recipient.state, stored.accepted);
        }
    }

    pub(super) fn domain_stats(&self) -> impl Iterator<Item = &DomainStats> {
        self.domains.values().chain(std::iter::once(&self.others))
    }
}

impl DomainStats {
    fn add(&mut self, state: &RecipientState, accepted: Timestamp) {
        let history = match state {
            RecipientState::Pending { next, history, .. } => {
                self.waiting += 1;
                keep_earlier(&mut self.next, next.unwrap_or(accepted));
                history
            }
            RecipientState::Held { history, .. } => {
                self.held += 1;
                history
            }
            RecipientState::Delivered | RecipientState::Failed => return,
        };
        keep_earlier(&mut self.oldest, accepted);
        let last = history.last().filter(|last| self.trouble.as_ref().is_none_or(|known| known.at < last.at));
        if let Some(last) = last {
            self.trouble = Some(last.clone());
        }
    }
}

/// Keeps the earlier of two moments.
fn keep_earlier(kept: &mut Option<Timestamp>, other: Timestamp) {
    *kept = Some(kept.map_or(other, |kept| kept.min(other)));
}
