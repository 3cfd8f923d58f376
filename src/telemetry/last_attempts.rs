//! The last attempt to deliver a message to each domain, since the start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use moka::sync::Cache;

use super::labels::DeliveryResult;
use crate::smtp::address::Host;
use crate::smtp::envelope::QueueId;
use crate::smtp::reply::EnhancedStatusCode;

/// The number of domains whose last attempt is stored. The least used is dropped first.
const DOMAINS_MAX: u64 = 5000;
/// The most characters of a text.
const TEXT_MAX: usize = 1000;

/// The end of an attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastAttempt {
    /// The time of the end.
    pub at: Timestamp,
    /// The message.
    pub queue_id: QueueId,
    /// The outcome.
    pub outcome: DeliveryResult,
    /// The enhanced status code.
    pub status: EnhancedStatusCode,
    /// The reply of the peer, or the reason for the failure.
    pub text: String,
    /// The host whose answer decided the outcome.
    pub host: Option<String>,
    /// The demand at that host, with its layers.
    pub demand: String,
    /// The TLS of the session, if one was cleared.
    pub tls: Option<String>,
    /// The explanation for the sender, if a TLS policy was not met.
    pub explanation: Option<String>,
    /// True if the recipient bounced and the sender gets a report.
    pub reported: bool,
}

/// The last attempts, by recipient domain.
#[derive(Debug)]
pub(super) struct LastAttempts(Cache<Host, Arc<Mutex<Arc<LastAttempt>>>>);

impl Default for LastAttempts {
    fn default() -> Self {
        Self(Cache::new(DOMAINS_MAX))
    }
}

impl LastAttempts {
    pub(super) fn get(&self, domain: &Host) -> Option<Arc<LastAttempt>> {
        self.0.get(domain).map(|place| Arc::clone(&lock(&place)))
    }

    pub(super) fn set(&self, domain: &Host, mut last: LastAttempt) {
        if last.text.len() > TEXT_MAX && last.text.chars().nth(TEXT_MAX).is_some() {
            last.text = last.text.chars().take(TEXT_MAX).chain(['…']).collect();
        }
        let last = Arc::new(last);
        // To replace the value is cheaper than to replace the entry.
        match self.0.get(domain) {
            Some(place) => *lock(&place) = last,
            None => self.0.insert(domain.clone(), Arc::new(Mutex::new(last))),
        }
    }
}

fn lock(place: &Mutex<Arc<LastAttempt>>) -> MutexGuard<'_, Arc<LastAttempt>> {
    // No code panics while it holds the lock.
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Status;

    /// Only the last attempt of a domain is stored, and its text is cut.
    #[test]
    fn the_last_attempt_of_a_domain_replaces_the_one_before() {
        let attempts = LastAttempts::default();
        let domain = Host::parse("a.example").expect("a domain");
        let last = |text: &str| LastAttempt {
            at: Timestamp::UNIX_EPOCH,
            queue_id: QueueId::from_number(1).expect("small"),
            outcome: DeliveryResult::Deferred,
            status: EnhancedStatusCode::transient(Status(4, 1)),
            text: text.to_owned(),
            host: None,
            demand: "opportunistic".to_owned(),
            tls: None,
            explanation: None,
            reported: false,
        };
        assert_eq!(attempts.get(&domain), None);
        attempts.set(&domain, last("first"));
        attempts.set(&domain, last(&"ü".repeat(2000)));
        let stored = attempts.get(&domain).expect("one");
        assert_eq!(stored.text.chars().count(), TEXT_MAX + 1);
        assert_eq!(
            attempts.get(&Host::parse("b.example").expect("a domain")),
            None
        );
    }
}
