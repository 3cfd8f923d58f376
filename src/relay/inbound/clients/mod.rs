//! The limits on clients: seats, rates and memory, and the list of clients that are held back.
//!
//! The submodules hold tables without locks, with the time as an argument. [`table`] adds the
//! locks and the clock.

mod held_networks;
mod limit;
mod limit_reached;
mod memory;
mod provisional;
mod rates;
mod seat_queue;
mod seat_request;
mod seats;
mod table;

pub use held_networks::HeldNetwork;
pub use limit::Limit;
pub(super) use limit_reached::{LimitReached, cannot_be_checked};
pub use seat_request::Occupancy;
pub(super) use seat_request::SeatStage;
pub use table::Clients;
pub(super) use table::{Seat, SeatAnswer};
