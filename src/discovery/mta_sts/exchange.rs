//! The exchange of policies with the other nodes, where several share a database.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{sleep, timeout};

use super::shared::{ReadPolicies, SharedPolicies};
use super::store::PolicyChange;
use super::{MtaStsInner, PolicyStorage};
use crate::smtp::address::Domain;
use crate::storage::postgresql::DatabaseError;

/// The interval at which changes of other nodes are read.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// The time between a failed exchange and the next try.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The time in which an exchange must end.
const EXCHANGE_TIME: Duration = Duration::from_secs(30);
/// The time that a failed first contact waits for what other nodes know.
const FIRST_CONTACT_TIME: Duration = Duration::from_secs(5);
/// The age by which a policy of the database and one of this node may seem to differ although they
/// come from the same fetch.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

impl MtaStsInner {
    /// Exchanges changes for as long as the future is polled; never ends.
    pub(super) async fn keep_exchanging(&self) {
        let PolicyStorage::Shared(shared) = &self.store else {
            return std::future::pending().await;
        };
        loop {
            let exchanged = self.exchange_in_time(shared, EXCHANGE_TIME).await;
            if exchanged.is_err() {
                sleep(RETRY_AFTER).await;
                continue;
            }
            tokio::select! {
                () = shared.changed() => {}
                () = sleep(EXCHANGE_INTERVAL) => {}
            }
        }
    }

    /// Reads what other nodes know, if the database answers soon.
    pub(super) async fn learn(&self) {
        if let PolicyStorage::Shared(shared) = &self.store {
            let _logged = self.exchange_in_time(shared, FIRST_CONTACT_TIME).await;
        }
    }

    async fn exchange_in_time(
        &self,
        shared: &SharedPolicies,
        time: Duration,
    ) -> Result<(), DatabaseError> {
        let exchange = timeout(time, shared.exchange(&*self.clock));
        let result = exchange.await.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", time.as_secs());
            Err(DatabaseError::Unreachable(text))
        });
        match result {
            Ok(read) => {
                self.merge(shared, read);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("MTA-STS policies are exchanged with the other nodes again");
                }
                Ok(())
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "cannot exchange MTA-STS policies with the other nodes; a restart loses recent ones");
                }
                Err(error)
            }
        }
    }

    /// Merges the policies of the database. The database decides which of two is newer, except
    /// where it was restored from a backup.
    fn merge(&self, shared: &SharedPolicies, read: ReadPolicies) {
        let mut cache = self.cache();
        if read.has_lost {
            let known = cache.all().into_iter();
            shared.add(known.map(|(policy, used)| PolicyChange::Put(policy, used)));
        }
        let mut removed = Vec::new();
        for (policy, used) in read.policies {
            if shared.is_pending(policy.domain()) {
                continue;
            }
            let stored = cache.stored(policy.domain());
            let used = stored.as_ref().map_or(used, |(_, known)| used.max(*known));
            if stored.is_none_or(|(known, _)| is_news(&known, &policy)) {
                removed.extend(cache.put(policy, used));
            }
        }
        drop(cache);
        shared.add(removed.into_iter().map(PolicyChange::Remove));
    }

    /// Returns those of the due policies that this node is to refresh, and not another one.
    pub(super) async fn own_refreshes(&self, due: Vec<Domain>) -> Vec<Domain> {
        let PolicyStorage::Shared(shared) = &self.store else {
            return due;
        };
        if due.is_empty() {
            return due;
        }
        match timeout(FIRST_CONTACT_TIME, shared.claim_refresh(&due)).await {
            Ok(Ok(ours)) => due
                .into_iter()
                .filter(|domain| ours.contains(domain.as_str()))
                .collect(),
            // Without the database each node refreshes by itself.
            Ok(Err(_)) | Err(_) => due,
        }
    }
}

/// Returns whether the policy of the database replaces the one that is known here.
fn is_news(known: &Arc<super::MtaStsPolicy>, read: &super::MtaStsPolicy) -> bool {
    let later_by = read.fetched.duration_since(known.fetched);
    let is_same = known.id == read.id && known.terms == read.terms;
    later_by > TOLERANCE || (!is_same && later_by >= -TOLERANCE)
}
