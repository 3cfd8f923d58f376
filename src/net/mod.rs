//! Access to the network: DNS, HTTPS, LDAP, TLS sessions, and the routes of mail.

pub mod dns;
pub mod https;
pub mod ldap;
pub mod revocation;
pub mod route;
pub mod tls_io;
