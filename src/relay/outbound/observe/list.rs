//! The one list of observers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::discovery::history::History;
use crate::relay::tlsrpt::Reporter;
use crate::telemetry::Monitor;

use super::delivery_log::DeliveryLog;
use super::downgrade::DowngradeWatch;
use super::event::{DeliveryObserver, RecipientEvent, SessionEvent};
use super::last_attempts::LastAttemptWatch;
use super::recipient_metrics::RecipientMetrics;
use super::refusals::RefusalCount;
use super::session_log::SessionLog;
use super::session_metrics::SessionMetrics;
use super::tlsrpt::TlsReports;

/// The observers of deliveries, in the order in which they see an event.
///
/// No observer depends on another. What needs an order is no observer: the scheduler stores the
/// reports to senders, then the evidence, then the new state of the message, from the same
/// [`RecipientEvent`]s and after these have seen them.
#[derive(Clone, Default)]
pub struct Observers(Arc<[Arc<dyn DeliveryObserver>]>);

impl Observers {
    /// Lists the observers of the delivery service, and the `added` ones after them.
    pub(in crate::relay::outbound) fn list(
        history: &History,
        reporter: &Reporter,
        monitor: &Monitor,
        refused: &Arc<AtomicU64>,
        added: &[Arc<dyn DeliveryObserver>],
    ) -> Self {
        let own: [Arc<dyn DeliveryObserver>; 8] = [
            Arc::new(SessionLog {
                monitor: monitor.clone(),
            }),
            Arc::new(SessionMetrics {
                monitor: monitor.clone(),
            }),
            Arc::new(DowngradeWatch {
                history: history.clone(),
                monitor: monitor.clone(),
            }),
            Arc::new(TlsReports {
                reporter: reporter.clone(),
            }),
            Arc::new(DeliveryLog),
            Arc::new(LastAttemptWatch {
                monitor: monitor.clone(),
            }),
            Arc::new(RecipientMetrics {
                monitor: monitor.clone(),
            }),
            Arc::new(RefusalCount {
                attempts: Arc::clone(refused),
            }),
        ];
        Self(own.into_iter().chain(added.iter().cloned()).collect())
    }

    /// Shows a session to every observer.
    pub(in crate::relay::outbound) fn observe_session(&self, event: &SessionEvent<'_>) {
        for observer in &*self.0 {
            observer.observe_session(event);
        }
    }

    /// Shows the recipients of an attempt to every observer. Each event is shown once.
    pub fn observe_recipients(&self, events: &[RecipientEvent<'_>]) {
        for observer in &*self.0 {
            observer.observe_recipients(events);
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observers").field(&self.0.len()).finish()
    }
}
