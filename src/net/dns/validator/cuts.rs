//! The cache of zone cuts. Concurrent lookups of the same cut share one query.
//!
//! Only validated results are cached, so a forged answer can neither add nor remove one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::Name;
use tokio::sync::OnceCell;

use super::super::LookupError;
use super::zone::SignedZone;

/// The approximate maximum size of all cuts in octets.
const OCTETS_MAX: u64 = 16 << 20;
/// The approximate size of an entry without the keys of its zone.
const ENTRY_OCTETS: usize = 512;
/// The maximum lifetime of an entry, so that a zone's new keys are noticed soon.
const KEEP_MAX: Duration = Duration::from_mins(15);
/// The minimum lifetime of an entry, so that a TTL of 0 does not cost a walk from the root for
/// every lookup.
const KEEP_MIN: Duration = Duration::from_secs(5);
/// The age up to which an entry counts as fresh.
const FRESH_PERIOD: Duration = Duration::from_secs(30);

/// The result of a search for a zone cut at a name.
#[derive(Debug, Clone)]
pub(in crate::net::dns) enum ZoneCut {
    /// A signed zone begins at the name.
    Signed(Arc<SignedZone>),
    /// An unsigned zone begins at the name, or one without any supported algorithm.
    Unsigned,
    /// No zone begins at the name: it belongs to the zone above.
    None,
    /// The name does not exist, nor does any name below it.
    NoName,
}

/// The known zone cuts.
pub(in crate::net::dns) struct ZoneCuts(moka::sync::Cache<Name, Arc<CutEntry>>);

#[derive(Default)]
struct CutEntry(OnceCell<FoundCut>);

struct FoundCut {
    outcome: Result<ZoneCut, LookupError>,
    since: Instant,
    until: Instant,
}

impl ZoneCuts {
    pub(in crate::net::dns) fn new() -> Self {
        let weigher =
            |_: &Name, entry: &Arc<CutEntry>| u32::try_from(entry.octets()).unwrap_or(u32::MAX);
        Self(
            moka::sync::Cache::builder()
                .max_capacity(OCTETS_MAX)
                .weigher(weigher)
                .build(),
        )
    }

    /// Returns the result for a name: from the cache, from a concurrent lookup, or from `find`.
    /// With `fresh`, only entries that count as fresh are used.
    pub(super) async fn get(
        &self,
        name: &Name,
        fresh: bool,
        find: impl AsyncFnOnce() -> Result<(ZoneCut, Duration), LookupError>,
    ) -> Result<ZoneCut, LookupError> {
        let entry = self
            .0
            .entry_by_ref(name)
            .or_insert_with_if(Arc::default, |entry| entry.is_over(fresh))
            .into_value();
        let mut is_new = false;
        let init = async || {
            is_new = true;
            FoundCut::of(find().await)
        };
        let outcome = entry.0.get_or_init(init).await.outcome.clone();
        if is_new {
            // The cache measures an entry when it is inserted. It is inserted again now that it has
            // its keys.
            self.0.insert(name.clone(), Arc::clone(&entry));
        }
        outcome
    }
}

impl FoundCut {
    fn of(found: Result<(ZoneCut, Duration), LookupError>) -> Self {
        let (outcome, holds) = match found {
            Ok((cut, holds)) => (Ok(cut), holds.clamp(KEEP_MIN, KEEP_MAX)),
            Err(fault) => (Err(fault), Duration::ZERO),
        };
        let since = Instant::now();
        Self {
            outcome,
            since,
            until: since + holds,
        }
    }
}

impl CutEntry {
    fn is_over(&self, fresh: bool) -> bool {
        let now = Instant::now();
        self.0.get().is_some_and(|found| {
            found.outcome.is_err()
                || found.until <= now
                || (fresh && found.since + FRESH_PERIOD <= now)
        })
    }

    fn octets(&self) -> usize {
        let keys = match self.0.get().map(|found| &found.outcome) {
            Some(Ok(ZoneCut::Signed(zone))) => zone.octets(),
            _ => 0,
        };
        ENTRY_OCTETS + keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_are_not_cached_and_results_are() {
        let (cuts, name) = (ZoneCuts::new(), Name::root());
        let failed = cuts
            .get(&name, false, async || Err(LookupError::Timeout))
            .await;
        assert!(matches!(failed, Err(LookupError::Timeout)));
        let found = cuts
            .get(&name, false, async || {
                Ok((ZoneCut::Unsigned, Duration::ZERO))
            })
            .await;
        assert!(matches!(found, Ok(ZoneCut::Unsigned)));
        for fresh in [false, true] {
            let kept = cuts
                .get(&name, fresh, async || Err(LookupError::Timeout))
                .await;
            assert!(
                matches!(kept, Ok(ZoneCut::Unsigned)),
                "it was found a moment ago"
            );
        }
    }
}
