//! The way of a message, in services: in by `inbound`, on by `scheduler`, out by `outbound`; and
//! TLS reports.

pub mod inbound;
pub mod outbound;
pub mod running_config;
pub mod scheduler;
pub mod tlsrpt;
