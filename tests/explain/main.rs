//! `gatepost explain` and `gatepost check --against` as an administrator runs them: the real program, a real name
//! server, a real policy host, and a real daemon where one is needed.

#[allow(dead_code, reason = "shared with the tests of handshakes, which use more of it")]
#[path = "../handshake/world.rs"]
mod certificates;
#[path = "../support/dns.rs"]
mod dns;
#[allow(dead_code, reason = "shared with the tests of the queue's commands, which use more of it")]
#[path = "../queue_commands/world.rs"]
mod relay;

#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
#[path = "../outbound/peer.rs"]
mod peer;
#[allow(dead_code, reason = "shared with the tests of DNS, which use more of it")]
#[path = "../support/zones/mod.rs"]
mod zones;

mod against;
mod dane;
mod hello;
mod inbound;
mod mta_sts;
mod outbound;
mod world;
