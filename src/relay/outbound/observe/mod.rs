//! The events of sessions and recipients, and their observers: log, metrics, downgrade
//! memory, TLS reports.

mod delivery_log;
mod describe;
mod downgrade;
mod event;
mod last_attempts;
mod list;
mod recipient_metrics;
mod refusals;
mod session_log;
mod session_metrics;
mod tlsrpt;

pub(super) use downgrade::record_level;
pub use event::{
    DeliveryObserver, EventOrigin, FirstTry, RecipientEnding, RecipientEvent, SessionEvent,
    SessionOutcome, SessionSteps, VerdictSummary,
};
pub use list::Observers;
