//! Access to the network: DNS, HTTPS, LDAP, OAuth tokens, TLS sessions, and the routes of mail.

pub mod dns;
pub mod https;
pub mod ldap;
pub mod oauth;
pub mod revocation;
pub mod route;
pub mod secret_file;
pub mod tls_io;
