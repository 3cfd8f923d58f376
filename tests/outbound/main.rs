//! Deliveries over real sockets, with real certificates and a real name server.

#[allow(dead_code, reason = "shared with the tests of handshakes, which use more of it")]
#[path = "../handshake/world.rs"]
mod certificates;
#[path = "../support/dns.rs"]
mod dns;
#[allow(dead_code, reason = "shared with the tests of handshakes, which use more of it")]
#[path = "../handshake/uncheckable.rs"]
mod uncheckable;
#[allow(dead_code, reason = "shared with the tests of the resolver, which use more of it")]
#[path = "../support/zones/mod.rs"]
mod zones;

mod dane;
mod delivery;
mod internet;
mod layers;
mod loops;
mod memory;
mod mta_sts;
mod peer;
mod pins;
mod policy_table;
mod requiretls;
mod reuse;
mod second_try;
mod tls_demanded;
mod world;
