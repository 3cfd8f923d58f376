//! The zone cuts that were found, and those that are being looked up: each once, however many wait for it.
//!
//! Only what is validated is kept, so a forged answer can neither enter nor empty it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::Name;
use tokio::sync::OnceCell;

use super::super::LookupError;
use super::zone::Zone;

/// Cuts that are kept, at most.
const KEPT: u64 = 16_384;
/// How long one is kept, at most: a zone that changes its keys is noticed soon.
const KEPT_FOR: Duration = Duration::from_mins(15);
/// How long one is kept, at least: a TTL of 0 must not cost a walk for every lookup.
const KEPT_AT_LEAST: Duration = Duration::from_secs(5);
/// One that was looked up so lately is fresh.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// The answer to "does a zone begin at this name?".
#[derive(Debug, Clone)]
pub(in crate::dns) enum Cut {
    /// A signed zone.
    Signed(Arc<Zone>),
    /// A zone that is not signed, or not with anything that is known.
    Unsigned,
    /// No: the name belongs to the zone above.
    None,
    /// No: the name does not exist, and neither does anything below it.
    NoName,
}

/// The zone cuts that are known.
pub(in crate::dns) struct Cuts(moka::sync::Cache<Name, Arc<Entry>>);

#[derive(Default)]
pub(super) struct Entry(OnceCell<Found>);

struct Found {
    outcome: Result<Cut, LookupError>,
    since: Instant,
    until: Instant,
}

impl Cuts {
    pub(in crate::dns) fn new() -> Self {
        Self(moka::sync::Cache::new(KEPT))
    }

    /// The entry of a name: empty where nothing is known, or nothing that is new enough.
    pub(super) fn entry(&self, name: &Name, fresh: bool) -> Arc<Entry> {
        self.0.entry_by_ref(name).or_insert_with_if(Arc::default, |entry| entry.is_over(fresh)).into_value()
    }
}

impl Entry {
    fn is_over(&self, fresh: bool) -> bool {
        let now = Instant::now();
        self.0.get().is_some_and(|found| {
            found.outcome.is_err() || found.until <= now || (fresh && found.since + FRESH_FOR <= now)
        })
    }

    /// The outcome that is known, that somebody else is waiting for, or that of `find`.
    pub(super) async fn get_or_init(
        &self,
        find: impl AsyncFnOnce() -> Result<(Cut, Duration), LookupError>,
    ) -> Result<Cut, LookupError> {
        let init = async || {
            let (outcome, holds) = match find().await {
                Ok((cut, holds)) => (Ok(cut), holds.clamp(KEPT_AT_LEAST, KEPT_FOR)),
                Err(fault) => (Err(fault), Duration::ZERO),
            };
            let since = Instant::now();
            Found { outcome, since, until: since + holds }
        };
        self.0.get_or_init(init).await.outcome.clone()
    }
}
