//! The task that refreshes policies (RFC 8461 §3.3): fetches them again daily and before they
//! expire, removes expired ones, and saves the times of use.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::store::PolicyChange;
use super::{FetchPurpose, MtaSts};

/// The interval at which due policies are searched.
const ROUND: Duration = Duration::from_mins(1);
/// The maximum number of concurrent fetches.
const AT_ONCE: usize = 8;

impl MtaSts {
    /// Refreshes policies, and exchanges them with the other nodes, for as long as the future is
    /// polled. One task is enough; a second one is harmless.
    ///
    /// Policies unused for 30 days are left to expire. A failed refresh is retried after 5 minutes,
    /// then after a pause that grows to an hour. Each failure is logged as a warning, unless the
    /// policy's mode is none.
    // Rule: RFC 8461 §3.3, §10.2.
    pub async fn keep_fresh(&self) {
        tokio::join!(self.keep_refreshing(), self.0.keep_exchanging());
    }

    async fn keep_refreshing(&self) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            self.run_round().await;
        }
    }

    pub(super) async fn run_round(&self) {
        let (changes, due) = {
            let (mut known, now) = (self.0.cache(), (self.0.clock)());
            let mut changes: Vec<_> = known
                .expire(now)
                .into_iter()
                .map(PolicyChange::Remove)
                .collect();
            changes.extend(
                known
                    .take_unsaved()
                    .into_iter()
                    .map(|(domain, at)| PolicyChange::Used(domain, at)),
            );
            (changes, known.due(now))
        };
        self.0.save(changes).await;
        let due = self.0.own_refreshes(due).await;
        let mut fetches = JoinSet::new();
        for domain in due {
            if fetches.len() >= AT_ONCE {
                fetches.join_next().await;
            }
            let policies = self.clone();
            fetches.spawn(async move { policies.fetch(&domain, FetchPurpose::Refetch).await });
        }
        while fetches.join_next().await.is_some() {}
    }
}
