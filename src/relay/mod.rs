//! The services that a message passes: `inbound` accepts it, `scheduler` queues it, and `outbound`
//! delivers it. `recipients` finds out whether a recipient exists, `tlsrpt` reports on the TLS of the
//! sessions, `users` are the clients that log in, and `smart_host_logins` are our own logins elsewhere.

mod buffer_memory;
pub mod inbound;
pub mod outbound;
pub mod recipient_tables;
pub mod recipients;
pub mod running_config;
pub mod scheduler;
pub mod smart_host_logins;
pub mod tlsrpt;
pub mod users;
