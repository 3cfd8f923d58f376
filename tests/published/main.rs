//! What domains publish on the web: HTTPS hosts on loopback with certificates of every kind, found through
//! a real name server.

#[allow(dead_code, reason = "shared with the tests of handshakes, which use more of it")]
#[path = "../handshake/world.rs"]
mod certificates;
#[path = "../support/dns.rs"]
mod dns;
mod host;
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
#[path = "../outbound/picky.rs"]
mod picky;

mod https;
mod mta_sts;
