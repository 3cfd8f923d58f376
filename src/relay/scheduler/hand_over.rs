//! Hands the messages that wait over to other relays while this one drains.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Event;
use super::hand_over_page::HandOverEnd;
use super::state::SchedulerState;
use crate::smtp::envelope::QueueId;
use crate::storage::spool::{Claim, SpoolError};

/// The number of messages that are handed over at a time.
const PAGE: usize = 1000;
/// The wait after an error of the spool.
const PAUSE: Duration = Duration::from_secs(1);
/// The interval at which messages that no other relay may have are offered again.
const OFFERED_AGAIN: Duration = Duration::from_mins(1);

impl SchedulerState {
    /// Hands over the next page of the messages that wait and on which no job works. A message that owes a
    /// report stays until that is stored.
    pub(super) fn begin_hand_over(&mut self) {
        let since = self.hand_over.kept_since;
        if since.is_some_and(|since| since.elapsed() > OFFERED_AGAIN) {
            self.hand_over.kept.clear();
            self.hand_over.kept_since = None;
        }
        if self.hand_over.is_running {
            return;
        }
        let owed: HashSet<QueueId> = self.owed.claims().map(|claim| claim.id()).collect();
        let is_free = |claim: &Claim| {
            let id = claim.id();
            !self.active.contains_key(&id)
                && !owed.contains(&id)
                && !self.hand_over.kept.contains(&id)
        };
        let mut claims: Vec<Claim> = self.queues.claims().filter(is_free).collect();
        // A message waits once for each of its recipient domains.
        claims.sort_unstable_by_key(Claim::id);
        claims.dedup();
        claims.truncate(PAGE);
        if claims.is_empty() {
            return;
        }
        let ids: Vec<QueueId> = claims.iter().map(Claim::id).collect();
        self.hand_over.is_running = true;
        self.hand_over.under_way = ids.iter().copied().collect();
        let items = self.queues.take(&self.hand_over.under_way);
        for id in &ids {
            *self.active.entry(*id).or_default() += 1;
            self.ordered.insert(*id);
        }
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            // The outcome of a try that failed is unknown. The next one finds out.
            let kept = loop {
                match context.spool.hand_over(claims.clone()).await {
                    Ok(kept) => break kept,
                    Err(SpoolError::Closed) => break Vec::new(),
                    Err(error) => tracing::debug!(%error, "cannot hand over messages; retrying"),
                }
                tokio::select! {
                    () = context.ending.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            };
            let kept = kept.into_iter().collect();
            // The loop does not listen any more at the end alone.
            drop(
                context
                    .events
                    .send(Event::HandedOver(HandOverEnd { ids, items, kept })),
            );
        });
    }

    /// Queues what stays after a hand-over, and begins the next one.
    pub(super) fn handed_over(&mut self, end: HandOverEnd) {
        let HandOverEnd { ids, items, kept } = end;
        self.hand_over.is_running = false;
        let mut stays = std::mem::take(&mut self.hand_over.under_way);
        stays.retain(|id| kept.contains(id) && !self.disowned.has_jobs(*id));
        let messages = ids.len() - kept.len();
        if messages > 0 {
            tracing::info!(messages, "messages handed to other relays");
        }
        for (item, due) in items {
            if stays.contains(&item.id()) {
                self.enqueue(item, due);
            }
        }
        for id in ids {
            self.ordered.remove(&id);
            self.end_job(id);
        }
        if !kept.is_empty() {
            self.hand_over.kept_since.get_or_insert_with(Instant::now);
            self.hand_over.kept.extend(kept);
        }
        if self.context.spool.is_draining() {
            self.begin_hand_over();
        }
    }
}
