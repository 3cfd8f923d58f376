//! The scheduler starts delivery attempts, limits how many run at once, retries and expires
//! messages.
//!
//! One task owns the queue in memory (`service`, `state`, `queues`). Each attempt is a task of its
//! own (`delivery`), which sends an event when it ends. Every message is in the spool before it is
//! queued here, so a restart rebuilds the queue; `ownership` claims what nobody owns, and `loss`
//! forgets what others have claimed. `hand_over` gives others what waits while this relay drains. The scheduler opens no connection; of the policy
//! it reads only the route and the limits of a connector.
//!
//! From the bottom up: `queues` and `report_queue` decide what is due; `attempt` runs an attempt in
//! [`crate::relay::outbound`]; `result` stores what came of it; `change_queue` gathers the changes
//! of one message that are stored together; `delivery` and `report_tasks` are the tasks that do
//! both; `operator` carries out orders; `service` is the loop.

mod active_message;
mod attempt;
mod attempt_failure;
mod change_queue;
mod context;
mod damage;
mod deadlines;
mod delivery;
mod disowned;
mod dispatch;
mod hand_over;
mod hand_over_page;
mod health;
mod liveness;
mod loss;
mod message_change;
mod operator;
mod ownership;
mod pending_domains;
mod placement;
mod quarantine_due;
mod quarantine_report;
mod queues;
mod recipient_events;
mod recorded_acceptances;
mod report_queue;
mod report_tasks;
mod result;
mod retry_schedule;
mod service;
mod state;
mod usage;
mod waiting_results;

#[cfg(test)]
mod tests;

pub use liveness::{SchedulerProbe, Workload};
pub use operator::{
    BackoffStatus, DestinationStatus, MessageStatus, Operator, Order, OrderOutcome, OrderRefused,
    StatusQuery, StatusReply,
};
pub use queues::Share;
pub use report_queue::ReportCounts;
pub use service::Scheduler;
pub use usage::ShareUsage;
