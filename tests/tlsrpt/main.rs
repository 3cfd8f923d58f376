//! TLS reports (RFC 8460): sessions in, one report a day and domain out, by mail through the real queue
//! and to collectors of the test's own.

#[path = "../handshake/world.rs"]
#[allow(dead_code, reason = "shared with the tests of handshakes, which use more of it")]
mod certificates;
#[path = "../support/dns.rs"]
#[allow(dead_code, reason = "shared with the tests of routing, which use more of it")]
mod dns;
#[path = "../outbound/internet.rs"]
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
mod internet;
#[path = "../outbound/peer.rs"]
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
mod peer;
#[path = "../reports/reader.rs"]
#[allow(dead_code, reason = "shared with the tests of reports, which use more of it")]
mod reader;
#[path = "../reports/world.rs"]
#[allow(dead_code, reason = "shared with the tests of reports, which use more of it")]
mod relay;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of durability, which use more of it")]
mod support;
#[path = "../outbound/world.rs"]
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
mod world;
#[path = "../support/zones/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the resolver, which use more of it")]
mod zones;

mod counts;
mod days;
mod desk;
mod example;
mod https;
mod mail;
mod sessions;
