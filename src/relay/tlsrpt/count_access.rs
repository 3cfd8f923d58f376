//! Access to the counts where they are: in the folder, or in the database that all nodes share.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;

use super::count::CountBatch;
use super::report::PolicyCounts;
use super::shared::SharedCounts;
use super::store::{CountStore, CountStoreError, ReportJob, Uncounted};

/// The counts. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum CountAccess {
    /// In `tlsrpt.db`.
    Folder(Arc<CountStore>),
    /// In the database.
    Shared(Arc<SharedCounts>),
}

/// The failure of adding a batch.
#[derive(Debug)]
pub(super) struct BatchError {
    pub(super) error: CountStoreError,
    /// The batch, if it was certainly not added and another try may succeed.
    pub(super) batch: Option<CountBatch>,
}

impl CountAccess {
    /// Adds a batch, completely or not at all.
    pub(super) async fn add(&self, batch: CountBatch) -> Result<Uncounted, BatchError> {
        match self {
            Self::Folder(store) => {
                let added = blocking(store, move |store| store.add(&batch)).await;
                added.map_err(|error| BatchError { error, batch: None })
            }
            Self::Shared(shared) => shared.add(&batch).await.map_err(|failed| BatchError {
                error: failed.error.into(),
                batch: failed.may_retry.then_some(batch),
            }),
        }
    }

    /// Deletes the days before `day`. Returns the number of open reports among them.
    pub(super) async fn delete_before(&self, day: Date) -> Result<u64, CountStoreError> {
        match self {
            Self::Folder(store) => blocking(store, move |store| store.delete_before(day)).await,
            Self::Shared(shared) => Ok(shared.delete_before(day).await?),
        }
    }

    /// Assigns a report id and a time to each domain of the days before `today` that has none;
    /// `draw` provides both.
    pub(super) async fn plan(
        &self,
        today: Date,
        draw: impl FnMut(Date) -> (String, Timestamp) + Send + 'static,
    ) -> Result<u64, CountStoreError> {
        match self {
            Self::Folder(store) => blocking(store, move |store| store.plan(today, draw)).await,
            Self::Shared(shared) => Ok(shared.plan(today, draw).await?),
        }
    }

    /// Returns up to `limit` reports that are due, in the order of their due times.
    pub(super) async fn due(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ReportJob>, CountStoreError> {
        match self {
            Self::Folder(store) => blocking(store, move |store| store.due(now, limit)).await,
            Self::Shared(shared) => Ok(shared.due(now, limit).await?),
        }
    }

    /// Claims a report and returns it as it is now; `None` if another node sends it.
    pub(super) async fn claim(
        &self,
        job: ReportJob,
        now: Timestamp,
    ) -> Result<Option<ReportJob>, CountStoreError> {
        match self {
            Self::Folder(_) => Ok(Some(job)),
            Self::Shared(shared) => Ok(shared.claim(&job, now).await?),
        }
    }

    /// Extends the claim on a report. Returns false if it has ended.
    pub(super) async fn renew(&self, job: &ReportJob) -> Result<bool, CountStoreError> {
        match self {
            Self::Folder(_) => Ok(true),
            Self::Shared(shared) => Ok(shared.renew(job).await?),
        }
    }

    /// Returns the time at which the next report is due.
    pub(super) async fn next_due(
        &self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, CountStoreError> {
        match self {
            Self::Folder(store) => blocking(store, CountStore::next_due).await,
            Self::Shared(shared) => Ok(shared.next_due(now).await?),
        }
    }

    /// Returns the counts of a report.
    pub(super) async fn policy_counts(
        &self,
        job: &ReportJob,
    ) -> Result<Vec<PolicyCounts>, CountStoreError> {
        match self {
            Self::Folder(store) => {
                let job = job.clone();
                blocking(store, move |store| store.policy_counts(&job)).await
            }
            Self::Shared(shared) => Ok(shared.policy_counts(job).await?),
        }
    }

    /// Stores the attempts and the destinations that have received the report.
    pub(super) async fn save_progress(&self, job: &ReportJob) -> Result<(), CountStoreError> {
        match self {
            Self::Folder(store) => {
                let job = job.clone();
                blocking(store, move |store| store.save_progress(&job)).await
            }
            Self::Shared(shared) => Ok(shared.save_progress(job).await?),
        }
    }

    /// Stores the attempts of a report and postpones it.
    pub(super) async fn postpone(
        &self,
        job: ReportJob,
        until: Timestamp,
    ) -> Result<(), CountStoreError> {
        self.save_progress(&job).await?;
        match self {
            Self::Folder(store) => blocking(store, move |store| store.postpone(&job, until)).await,
            Self::Shared(shared) => Ok(shared.postpone(&job, until).await?),
        }
    }

    /// Closes a report and deletes its counts.
    pub(super) async fn close(
        &self,
        job: ReportJob,
        why: &'static str,
    ) -> Result<(), CountStoreError> {
        match self {
            Self::Folder(store) => blocking(store, move |store| store.close(&job, why)).await,
            Self::Shared(shared) => Ok(shared.close(&job, why).await?),
        }
    }
}

async fn blocking<T: Send + 'static>(
    store: &Arc<CountStore>,
    work: impl FnOnce(&CountStore) -> Result<T, CountStoreError> + Send + 'static,
) -> Result<T, CountStoreError> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || work(&store)).await?
}
