//! Warnings about CRLs that expire: a tenth of their time before, and when they have expired, once
//! each.

use std::collections::HashMap;

use jiff::Timestamp;

/// A CRL in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WatchedCrl {
    /// The file or the URL.
    pub(super) source: String,
    /// The issuer's name.
    pub(super) issuer: String,
    /// The time at which it was issued.
    pub(super) this_update: Timestamp,
    /// The time from which it has expired.
    pub(super) next_update: Timestamp,
}

/// The state of a CRL of which a warning is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CrlExpiry {
    /// Less than a tenth of its time is left.
    Soon,
    /// It has expired.
    Expired,
}

/// The warnings that were logged.
#[derive(Debug, Default)]
pub(super) struct CrlExpiries {
    logged: HashMap<(String, String), (Timestamp, CrlExpiry)>,
}

impl CrlExpiries {
    /// Returns the CRLs of which a warning is due, and records that it was logged.
    pub(super) fn due(
        &mut self,
        crls: Vec<WatchedCrl>,
        now: Timestamp,
    ) -> Vec<(WatchedCrl, CrlExpiry)> {
        let key = |crl: &WatchedCrl| (crl.source.clone(), crl.issuer.clone());
        self.logged
            .retain(|known, _| crls.iter().any(|crl| key(crl) == *known));
        let mut due = Vec::new();
        for crl in crls {
            let Some(expiry) = expiry(&crl, now) else {
                continue;
            };
            let new = (crl.next_update, expiry);
            let old = self.logged.insert(key(&crl), new);
            if old.is_none_or(|old| old.0 != new.0 || old.1 < new.1) {
                due.push((crl, expiry));
            }
        }
        due
    }

    /// Logs the warnings that are due.
    pub(super) fn log(&mut self, crls: Vec<WatchedCrl>, now: Timestamp) {
        for (crl, expiry) in self.due(crls, now) {
            let (source, issuer) = (&crl.source, &crl.issuer);
            let remedy =
                "See `gatepost status`; revocation = \"required\" refuses with an expired one.";
            match expiry {
                CrlExpiry::Soon => tracing::warn!(
                    source, issuer, next_update = %crl.next_update, remedy, "a CRL expires soon"
                ),
                CrlExpiry::Expired => tracing::warn!(
                    source, issuer, next_update = %crl.next_update, remedy, "a CRL has expired"
                ),
            }
        }
    }
}

fn expiry(crl: &WatchedCrl, now: Timestamp) -> Option<CrlExpiry> {
    let (left, all) = (
        crl.next_update.duration_since(now),
        crl.next_update.duration_since(crl.this_update),
    );
    if now >= crl.next_update {
        Some(CrlExpiry::Expired)
    } else if left < all / 10 {
        Some(CrlExpiry::Soon)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crl(source: &str, this_update: i64, next_update: i64) -> WatchedCrl {
        WatchedCrl {
            source: source.to_owned(),
            issuer: "CN=Partner".to_owned(),
            this_update: at(this_update),
            next_update: at(next_update),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// The time, the CRL at that time, and the warning.
    #[test]
    fn a_crl_is_announced_once_before_its_end_and_once_after_it() {
        use CrlExpiry::{Expired, Soon};
        let mut expiries = CrlExpiries::default();
        for (now, this_update, next_update, expected) in [
            (500, 0, 1000, None),
            (900, 0, 1000, None),
            (901, 0, 1000, Some(Soon)),
            (950, 0, 1000, None),
            (1000, 0, 1000, Some(Expired)),
            (1500, 0, 1000, None),
            // A new one.
            (1501, 1500, 2500, None),
            (2450, 1500, 2500, Some(Soon)),
            // Another one that is no better.
            (2451, 1500, 2452, Some(Soon)),
            (2500, 1500, 2452, Some(Expired)),
        ] {
            let due = expiries.due(vec![crl("a.crl", this_update, next_update)], at(now));
            let due: Vec<_> = due.into_iter().map(|(_, expiry)| expiry).collect();
            assert_eq!(due, expected.into_iter().collect::<Vec<_>>(), "{now}");
        }
        // One that is no longer in use is forgotten.
        assert_eq!(expiries.due(Vec::new(), at(2600)), []);
        assert_eq!(
            expiries.due(vec![crl("a.crl", 1500, 2452)], at(2601)).len(),
            1
        );
    }
}
