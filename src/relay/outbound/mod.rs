//! Delivers messages: one attempt takes one message to its recipients at one domain, with hops, TLS
//! and the transaction.
//!
//! The scheduler decides what happens to the recipients afterwards (retry, report, removal) and how
//! many attempts run at the same time. The hops are tried in the order of RFC 5321 §5.1.
//! [`crate::policy::layers`] joins the demands on each hop, [`crate::policy::tls`] judges the
//! session, and [`crate::policy::failure`] judges a failure.
//!
//! A connection passes through these modules: `wire` opens it, `session` and `dial` lead it to the
//! TLS judge, and only a connection with the judge's clearance becomes a `Cleared` connection, the
//! only kind on which MAIL FROM can be written. `login` logs in before, if the connector says so and the
//! session proves who the host is. `second_try` repeats a handshake that the peer cut
//! short. `pool` keeps cleared connections for the next message. `deliver` goes from hop to hop.
//! `requirement` applies what the message itself demands of TLS (RFC 8689), and `limit` bounds the
//! time of an attempt. `observe` has the events of sessions and recipients, and the one list of
//! those that observe them. [`probe`] goes as far as the judge and sends no message. `ask` asks a
//! mailbox server about a recipient, and sends no message either.

mod ask;
mod attempt;
mod chunk_memory;
mod cleared;
mod deliver;
mod dial;
mod dial_record;
mod forecast;
mod hellos;
mod limit;
mod login;
mod login_result;
mod observe;
mod plan;
mod pool;
pub mod probe;
mod recheck;
mod recipients;
mod requirement;
mod second_try;
mod service;
mod session;
mod session_watch;
mod target;
mod wire;

pub use attempt::{Attempt, AttemptResult, RecipientResult, Via};
pub use deliver::missing_connector;
pub use forecast::{DeliveryForecast, PeerOutcome, forecast, hellos, undialled_reason};
pub use limit::AttemptLimit;
pub use login_result::{LoginAttempt, LoginVerdict, SessionLogin};
pub use observe::{
    DeliveryObserver, EventOrigin, FirstTry, Observers, RecipientEnding, RecipientEvent,
    SessionEvent, SessionOutcome, SessionSteps, VerdictSummary,
};
pub use plan::{HopPlan, HopUnusable, MailContext};
pub use service::Outbound;
