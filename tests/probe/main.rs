//! `gatepost probe`: the real program against real peers, who tell what they heard.

#[allow(dead_code, reason = "shared with the tests of handshakes, which use more of it")]
#[path = "../handshake/world.rs"]
mod certificates;
#[path = "../support/dns.rs"]
mod dns;
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
#[path = "../outbound/peer.rs"]
mod peer;
#[allow(dead_code, reason = "shared with the tests of DNSSEC, which use more of it")]
#[path = "../support/zones/mod.rs"]
mod zones;

mod all;
mod dane;
mod hostile;
mod memory;
mod shown;
mod verdicts;
mod world;
