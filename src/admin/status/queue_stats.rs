//! Statistics of the queue: the mail for each domain, its age, and the last failure.
//!
//! Counting reads every message in the spool, so its result is cached, the longer the more time it
//! took, or until an operator's order changes the queue. Only one count runs at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::smtp::address::Host;
use crate::smtp::envelope::{AttemptFailure, RecipientState};
use crate::storage::spool::{Spool, SpoolError, StoredMessage};

/// Messages read at a time.
const PAGE: usize = 1000;
/// A count is valid for a second at least, and for fifty times as long as it took, unless an
/// operator gives an order. So counting takes at most a fiftieth of one processor otherwise.
const GOOD_FOR: Duration = Duration::from_secs(1);
const SHARE: u32 = 50;
/// The number of recipient domains with statistics of their own. Mail for further domains is
/// counted together.
const DOMAINS_MAX: usize = 20_000;

/// The statistics of the queue.
#[derive(Debug, Clone)]
pub(in crate::admin) struct QueueStats {
    pub(in crate::admin) at: Timestamp,
    pub(super) messages: u64,
    pub(super) octets: u64,
    pub(super) oldest: Option<Timestamp>,
    /// The mail for each domain, apart for each connector of a user by which it goes.
    pub(super) domains: HashMap<(Host, Option<Box<str>>), DomainStats>,
    /// The mail for further domains.
    pub(super) others: DomainStats,
}

/// The mail for one domain.
#[derive(Debug, Clone, Default)]
pub(in crate::admin) struct DomainStats {
    pub(in crate::admin) waiting: u64,
    pub(in crate::admin) held: u64,
    pub(in crate::admin) oldest: Option<Timestamp>,
    /// The time of acceptance of the oldest waiting message.
    pub(in crate::admin) oldest_waiting: Option<Timestamp>,
    /// The number of waiting recipients about whom a delay report was sent.
    pub(in crate::admin) delays_reported: u64,
    /// The time of acceptance of the oldest waiting message without a delay report.
    pub(in crate::admin) oldest_unreported: Option<Timestamp>,
    /// The latest failure of an attempt.
    pub(in crate::admin) trouble: Option<AttemptFailure>,
    /// The earliest time at which a message is due. It is in the past if a message is due now.
    pub(in crate::admin) next: Option<Timestamp>,
}

/// Counts the queue and caches the result.
#[derive(Debug, Default)]
pub(in crate::admin) struct QueueCounter {
    cached: Mutex<Option<CachedStats>>,
    /// The number of orders that have changed the queue.
    orders: AtomicU64,
}

#[derive(Debug)]
struct CachedStats {
    stats: Arc<QueueStats>,
    good_until: Instant,
    /// The number of orders when the count began.
    orders: u64,
}

impl QueueCounter {
    /// Returns the statistics of the queue, counted now or a short while ago.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub(in crate::admin) async fn stats(
        &self,
        spool: &dyn Spool,
    ) -> Result<Arc<QueueStats>, SpoolError> {
        let mut last = self.cached.lock().await;
        let (began, orders) = (Instant::now(), self.orders.load(Ordering::Acquire));
        let is_valid =
            |counted: &&CachedStats| began < counted.good_until && counted.orders == orders;
        if let Some(counted) = last.as_ref().filter(is_valid) {
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
        *last = Some(CachedStats {
            stats: Arc::clone(&stats),
            good_until,
            orders,
        });
        Ok(stats)
    }

    /// Makes the next request count the queue anew, because an operator's order has changed it.
    pub(in crate::admin) fn expire(&self) {
        self.orders.fetch_add(1, Ordering::Release);
    }
}

impl QueueStats {
    fn new(at: Timestamp) -> Self {
        Self {
            at,
            messages: 0,
            octets: 0,
            oldest: None,
            domains: HashMap::new(),
            others: DomainStats::default(),
        }
    }

    fn add(&mut self, stored: &StoredMessage) {
        self.messages += 1;
        self.octets += stored.size;
        keep_earlier(&mut self.oldest, stored.accepted);
        for recipient in stored
            .envelope
            .recipients
            .iter()
            .filter(|recipient| recipient.state.is_open())
        {
            let way = (
                recipient.mailbox.host().clone(),
                stored.envelope.connector.clone(),
            );
            let is_full = self.domains.len() >= DOMAINS_MAX && !self.domains.contains_key(&way);
            let domain = if is_full {
                &mut self.others
            } else {
                self.domains.entry(way).or_default()
            };
            domain.add(&recipient.state, stored.accepted);
        }
    }

    /// Returns the mail for one domain, whichever way it goes.
    pub(in crate::admin) fn of_domain(&self, domain: &Host) -> DomainStats {
        let mut all = DomainStats::default();
        for ((host, _), stats) in &self.domains {
            if host == domain {
                all.add_all(stats);
            }
        }
        all
    }

    pub(super) fn domain_stats(&self) -> impl Iterator<Item = &DomainStats> {
        self.domains.values().chain(std::iter::once(&self.others))
    }
}

impl DomainStats {
    /// Adds other mail for the domain.
    fn add_all(&mut self, other: &Self) {
        let Self {
            waiting,
            held,
            oldest,
            oldest_waiting,
            delays_reported,
            oldest_unreported,
            trouble,
            next,
        } = other;
        self.waiting += waiting;
        self.held += held;
        self.delays_reported += delays_reported;
        for (kept, other) in [
            (&mut self.oldest, oldest),
            (&mut self.oldest_waiting, oldest_waiting),
            (&mut self.oldest_unreported, oldest_unreported),
            (&mut self.next, next),
        ] {
            if let Some(other) = other {
                keep_earlier(kept, *other);
            }
        }
        if let Some(last) = trouble {
            self.keep_later_trouble(last);
        }
    }

    fn keep_later_trouble(&mut self, last: &AttemptFailure) {
        if self.trouble.as_ref().is_none_or(|known| known.at < last.at) {
            self.trouble = Some(last.clone());
        }
    }

    fn add(&mut self, state: &RecipientState, accepted: Timestamp) {
        let history = match state {
            RecipientState::Pending {
                next,
                history,
                warned,
                ..
            } => {
                self.waiting += 1;
                keep_earlier(&mut self.oldest_waiting, accepted);
                if *warned {
                    self.delays_reported += 1;
                } else {
                    keep_earlier(&mut self.oldest_unreported, accepted);
                }
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
        if let Some(last) = history.last() {
            self.keep_later_trouble(last);
        }
    }
}

/// Sets `kept` to the earlier of two times.
fn keep_earlier(kept: &mut Option<Timestamp>, other: Timestamp) {
    *kept = Some(kept.map_or(other, |kept| kept.min(other)));
}
