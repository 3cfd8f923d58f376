//! `gatepost probe`: the real program against real peers, who tell what they heard.

#[allow(dead_code, reason = "shared with the tests of handshakes, which use more of it")]
#[path = "../handshake/world.rs"]
mod certificates;
#[path = "../support/dns.rs"]
mod dns;
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
#[path = "../outbound/peer.rs"]
mod peer;

mod all;
mod hostile;
mod memory;
mod shown;
mod verdicts;
mod world;
