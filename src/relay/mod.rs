//! The services that a message passes: `inbound` accepts it, `scheduler` queues it, and `outbound`
//! delivers it. `recipients` finds out whether a recipient exists, `tlsrpt` reports on the TLS of the
//! sessions, and `users` are the clients that log in.

mod buffer_memory;
pub mod inbound;
pub mod outbound;
pub mod recipient_tables;
pub mod recipients;
pub mod running_config;
pub mod scheduler;
pub mod tlsrpt;
pub mod users;
