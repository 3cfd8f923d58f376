//! The one task that keeps policies fresh (RFC 8461 §3.3): it fetches them again daily and before they
//! expire, drops what has expired, and saves who is in use.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::store::PolicyChange;
use super::{FetchPurpose, MtaSts};

/// How often somebody looks who is due.
const ROUND: Duration = Duration::from_mins(1);
/// Policies that are fetched at the same time, at most.
const AT_ONCE: usize = 8;

impl MtaSts {
    /// Keeps policies fresh for as long as this is polled. One task is enough, and more would do no harm.
    ///
    /// Policies that nobody has used for 30 days are left to expire. Where a refresh fails, it is tried again
    /// after 5 minutes, and after a pause that grows to an hour; each failure is told in the log, unless the
    /// policy's mode is none.
    pub async fn keep_fresh(&self) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            self.round().await;
        }
    }

    pub(super) async fn round(&self) {
        let (changes, due) = {
            let (mut known, now) = (self.0.cache(), (self.0.clock)());
            let mut changes: Vec<_> = known.expire(now).into_iter().map(PolicyChange::Remove).collect();
            changes.extend(known.take_unsaved().into_iter().map(|(domain, at)| PolicyChange::Used(domain, at)));
            (changes, known.due(now))
        };
        self.0.save(changes).await;
        let mut searches = JoinSet::new();
        for domain in due {
            if searches.len() >= AT_ONCE {
                searches.join_next().await;
            }
            let policies = self.clone();
            searches.spawn(async move { policies.fetch(&domain, FetchPurpose::Refetch).await });
        }
        while searches.join_next().await.is_some() {}
    }
}
