//! The answer cache. Concurrent lookups of the same name and type share one query.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::OnceCell;

use super::lookup::Resolved;
use super::{AnswerRecords, LookupError};

/// The approximate maximum size of all answers in octets.
const OCTETS_MAX: u64 = 32 << 20;
/// The approximate size of an entry without its records.
const ENTRY_OCTETS: usize = 512;
/// The lifetime of a failure (RFC 9520 §3.2): long enough for concurrent lookups, short enough to
/// retry soon.
const FAILURE_TTL: Duration = Duration::from_secs(5);

type CacheKey = (Name, RecordType);
pub(super) type ResolveOutcome = Result<Resolved, LookupError>;

pub(super) struct Cache(moka::sync::Cache<CacheKey, Arc<CacheEntry>>);

/// A query with its outcome and expiry, once there is one.
#[derive(Default)]
pub(super) struct CacheEntry(OnceCell<(ResolveOutcome, Instant)>);

impl CacheEntry {
    fn is_over(&self) -> bool {
        self.0
            .get()
            .is_some_and(|(_, until)| *until <= Instant::now())
    }

    fn octets(&self) -> usize {
        let of_record = |data: &RData| match data {
            RData::TXT(text) => text.txt_data.iter().map(|part| part.len() + 16).sum(),
            RData::TLSA(tlsa) => tlsa.cert_data.len(),
            _ => 0,
        };
        let records = match self.0.get() {
            Some((
                Ok(Resolved {
                    found: AnswerRecords::Records(records),
                    ..
                }),
                _,
            )) => records.as_slice(),
            _ => &[],
        };
        ENTRY_OCTETS
            + records
                .iter()
                .map(|data| size_of::<RData>() + of_record(data))
                .sum::<usize>()
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        let weigher = |_: &CacheKey, entry: &Arc<CacheEntry>| {
            u32::try_from(entry.octets()).unwrap_or(u32::MAX)
        };
        Self(
            moka::sync::Cache::builder()
                .max_capacity(OCTETS_MAX)
                .weigher(weigher)
                .build(),
        )
    }

    /// Returns the outcome of a query and its expiry: from the cache, from a concurrent lookup, or
    /// from `ask`.
    pub(super) async fn get<T>(
        &self,
        name: Name,
        kind: RecordType,
        ask: impl AsyncFnOnce(&Name) -> ResolveOutcome,
        read: impl FnOnce(&Resolved, Instant) -> T,
    ) -> Result<T, LookupError> {
        let key = (name, kind);
        let entry = self
            .0
            .entry_by_ref(&key)
            .or_insert_with_if(Arc::default, |entry| entry.is_over())
            .into_value();
        let mut is_new = false;
        let answered = entry
            .0
            .get_or_init(async || {
                is_new = true;
                let outcome = ask(&key.0).await;
                let holds = outcome
                    .as_ref()
                    .map_or(FAILURE_TTL, |resolved| resolved.holds);
                (outcome, Instant::now() + holds)
            })
            .await;
        if is_new {
            // The cache measures an entry when it is inserted. It is inserted again now that it has
            // its records.
            self.0.insert(key.clone(), Arc::clone(&entry));
        }
        match answered {
            (Ok(resolved), until) => Ok(read(resolved, *until)),
            (Err(fault), _) => Err(fault.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::TXT;

    use super::*;
    use crate::net::dns::Security;

    /// An entry is inserted before its answer arrives, when it is small. The size of the answer
    /// must count all the same, or a hostile zone could fill the memory.
    #[tokio::test]
    async fn large_answers_displace_each_other() {
        let cache = Cache::new();
        let text = "x".repeat(250);
        let each = 100 * 250;
        let many = 3 * usize::try_from(OCTETS_MAX).expect("it fits") / each / 2;
        for number in 0..many {
            let resolved = Resolved {
                found: AnswerRecords::Records(
                    (0..100)
                        .map(|_| RData::TXT(TXT::new(vec![text.clone()])))
                        .collect(),
                ),
                security: Security::Secure,
                first_link: Security::Secure,
                name: "big.example".to_owned(),
                holds: Duration::from_mins(5),
            };
            let name = Name::from_ascii(format!("n{number}.big.example.")).expect("a name");
            let got = cache
                .get(name, RecordType::TXT, async |_| Ok(resolved), |_, _| ())
                .await;
            assert!(got.is_ok());
        }
        cache.0.run_pending_tasks();
        let octets: usize = cache.0.iter().map(|(_, entry)| entry.octets()).sum();
        assert!(octets as u64 <= OCTETS_MAX, "{octets} octets are kept");
    }
}
