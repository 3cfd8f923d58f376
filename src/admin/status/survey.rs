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
pub(super) struct Survey {
    pub(super) at: Timestamp,
    pub(super) messages: u64,
    pub(super) octets: u64,
    pub(super) oldest: Option<Timestamp>,
    pub(super) domains: HashMap<Host, Load>,
    /// Of domains that are not told apart.
    pub(super) others: Load,
}

/// What waits for one domain.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
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
pub(in crate::admin) struct Surveyor(Mutex<Option<Counted>>);

#[derive(Debug)]
struct Counted {
    survey: Arc<Survey>,
    good_until: Instant,
}

impl Surveyor {
    /// The queue as it is now, or was when it was counted a while ago.
    ///
    /// # Errors
    /// Whatever keeps the spool from being read.
    pub(super) async fn survey(&self, spool: &dyn Spool) -> Result<Arc<Survey>, SpoolError> {
        let mut last = self.0.lock().await;
        let began = Instant::now();
        if let Some(counted) = last.as_ref().filter(|counted| began < counted.good_until) {
            return Ok(Arc::clone(&counted.survey));
        }
        let mut survey = Survey::new(Timestamp::now());
        let mut after = None;
        loop {
            let page = spool.scan(after, PAGE).await?;
            let Some(end) = page.last() else { break };
            after = Some(end.id);
            for stored in &page {
                survey.enter(stored);
            }
        }
        let survey = Arc::new(survey);
        let good_until = Instant::now() + GOOD_FOR.max(began.elapsed() * SHARE);
        *last = Some(Counted { survey: Arc::clone(&survey), good_until });
        Ok(survey)
    }
}

impl Survey {
    fn new(at: Timestamp) -> Self {
        Self { at, messages: 0, octets: 0, oldest: None, domains: HashMap::new(), others: Load::default() }
    }

    fn enter(&mut self, stored: &StoredMessage) {
        self.messages += 1;
        self.octets += stored.size;
        lower(&mut self.oldest, stored.accepted);
        for recipient in stored.envelope.recipients.iter().filter(|recipient| recipient.state.is_open()) {
            let host = recipient.mailbox.host();
            let is_full = self.domains.len() >= DOMAINS_MAX && !self.domains.contains_key(host);
            let load = if is_full { &mut self.others } else { self.domains.entry(host.clone()).or_default() };
            load.enter(&recipient.state, stored.accepted);
        }
    }

    pub(super) fn loads(&self) -> impl Iterator<Item = &Load> {
        self.domains.values().chain(std::iter::once(&self.others))
    }
}

impl Load {
    fn enter(&mut self, state: &RecipientState, accepted: Timestamp) {
        let history = match state {
            RecipientState::Pending { next, history, .. } => {
                self.waiting += 1;
                lower(&mut self.next, next.unwrap_or(accepted));
                history
            }
            RecipientState::Held { history, .. } => {
                self.held += 1;
                history
            }
            RecipientState::Delivered | RecipientState::Failed => return,
        };
        lower(&mut self.oldest, accepted);
        let last = history.last().filter(|last| self.trouble.as_ref().is_none_or(|known| known.at < last.at));
        if let Some(last) = last {
            self.trouble = Some(last.clone());
        }
    }
}

/// Keeps the earlier of two moments.
fn lower(kept: &mut Option<Timestamp>, other: Timestamp) {
    *kept = Some(kept.map_or(other, |kept| kept.min(other)));
}
