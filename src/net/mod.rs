//! Access to the network: DNS, HTTPS, TLS sessions, and the routes of mail.

pub mod dns;
pub mod https;
pub mod revocation;
pub mod route;
pub mod tls_io;
