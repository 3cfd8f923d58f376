//! The zone cuts that were found, and those that are being looked up: each once, however many wait for it.
//!
//! Only what is validated is kept, so a forged answer can neither enter nor empty it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::Name;
use tokio::sync::OnceCell;

use super::super::LookupError;
use super::zone::SignedZone;

/// Octets of cuts, about, that are kept at most.
const OCTETS_MAX: u64 = 16 << 20;
/// What an entry costs beside the keys of its zone, about.
const ENTRY_OCTETS: usize = 512;
/// How long one is kept, at most: a zone that changes its keys is noticed soon.
const KEEP_MAX: Duration = Duration::from_mins(15);
/// How long one is kept, at least: a TTL of 0 must not cost a walk for every lookup.
const KEEP_MIN: Duration = Duration::from_secs(5);
/// One that was looked up so lately is fresh.
const FRESH_PERIOD: Duration = Duration::from_secs(30);

/// The answer to "does a zone begin at this name?".
#[derive(Debug, Clone)]
pub(in crate::dns) enum ZoneCut {
    /// A signed zone.
    Signed(Arc<SignedZone>),
    /// A zone that is not signed, or not with anything that is known.
    Unsigned,
    /// No: the name belongs to the zone above.
    None,
    /// No: the name does not exist, and neither does anything below it.
    NoName,
}

/// The zone cuts that are known.
pub(in crate::dns) struct ZoneCuts(moka::sync::Cache<Name, Arc<CutEntry>>);

#[derive(Default)]
struct CutEntry(OnceCell<FoundCut>);

struct FoundCut {
    outcome: Result<ZoneCut, LookupError>,
    since: Instant,
    until: Instant,
}

impl ZoneCuts {
    pub(in crate::dns) fn new() -> Self {
        let weigher = |_: &Name, entry: &Arc<CutEntry>| u32::try_from(entry.octets()).unwrap_or(u32::MAX);
        Self(moka::sync::Cache::builder().max_capacity(OCTETS_MAX).weigher(weigher).build())
    }

    /// Returns the outcome for a name that is known, that somebody else is waiting for, or that of `find`. With
    /// `fresh`, what was looked up a while ago does not count.
    pub(super) async fn get(
        &self,
        name: &Name,
        fresh: bool,
        find: impl AsyncFnOnce() -> Result<(ZoneCut, Duration), LookupError>,
    ) -> Result<ZoneCut, LookupError> {
        let entry =
            self.0.entry_by_ref(name).or_insert_with_if(Arc::default, |entry| entry.is_over(fresh)).into_value();
        let mut is_new = false;
        let init = async || {
            is_new = true;
            FoundCut::of(find().await)
        };
        let outcome = entry.0.get_or_init(init).await.outcome.clone();
        if is_new {
            // An entry is weighed when it is put in: now with its keys.
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
        Self { outcome, since, until: since + holds }
    }
}

impl CutEntry {
    fn is_over(&self, fresh: bool) -> bool {
        let now = Instant::now();
        self.0.get().is_some_and(|found| {
            found.outcome.is_err() || found.until <= now || (fresh && found.since + FRESH_PERIOD <= now)
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
    async fn a_failure_is_looked_up_again_and_a_find_is_not() {
        let (cuts, name) = (ZoneCuts::new(), Name::root());
        let failed = cuts.get(&name, false, async || Err(LookupError::Timeout)).await;
        assert!(matches!(failed, Err(LookupError::Timeout)));
        let found = cuts.get(&name, false, async || Ok((ZoneCut::Unsigned, Duration::ZERO))).await;
        assert!(matches!(found, Ok(ZoneCut::Unsigned)));
        for fresh in [false, true] {
            let kept = cuts.get(&name, fresh, async || Err(LookupError::Timeout)).await;
            assert!(matches!(kept, Ok(ZoneCut::Unsigned)), "it was found a moment ago");
        }
    }
}
