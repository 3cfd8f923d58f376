//! Policies that domains publish on the web: HTTPS hosts on loopback with certificates of every
//! kind, found through a real name server.

pub(crate) mod host;

mod https;
mod mta_sts;
mod proxied;
