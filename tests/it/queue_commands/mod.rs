//! The operator's hands on the queue, and eyes on the rest: `gatepost queue`, `gatepost status`,
//! the socket that they speak to and the window for monitoring, with real daemons.

mod clients;
mod commands;
mod crls;
mod domain;
mod history;
mod hostile;
mod log;
mod output;
mod pages;
mod proxies;
mod refused;
mod socket;
mod status;
