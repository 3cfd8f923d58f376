//! Access to the network: DNS, HTTPS, LDAP, OAuth tokens, TLS sessions, the routes of mail, and the
//! secrets that logins elsewhere need.

pub mod dns;
pub mod https;
pub mod ldap;
pub mod oauth;
pub mod revocation;
pub mod route;
pub mod secret;
pub mod tls_io;
