//! The services that a message passes: `inbound` accepts it, `scheduler` queues it, and `outbound`
//! delivers it. `tlsrpt` reports on the TLS of the sessions; `users` are the clients that log in.

mod buffer_memory;
pub mod inbound;
pub mod outbound;
pub mod running_config;
pub mod scheduler;
pub mod tlsrpt;
pub mod users;
