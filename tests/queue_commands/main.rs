//! The operator's hands on the queue: `gatepost queue`, and the socket that it speaks to, with real daemons.

mod commands;
mod history;
mod socket;
mod world;
