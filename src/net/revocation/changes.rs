//! The number of changes of the CRLs in use, by which a kept session knows that its certificate must
//! be judged anew.

use std::sync::atomic::{AtomicU64, Ordering};

static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Returns the number of changes of any CRL since the start. A revocation status that was found
/// before a change may not hold after it.
#[must_use]
pub fn crl_changes() -> u64 {
    CHANGES.load(Ordering::Acquire)
}

/// Counts a change, after the new CRL is in use.
pub(super) fn record_change() {
    CHANGES.fetch_add(1, Ordering::Release);
}
