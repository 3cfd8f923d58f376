//! The evidence: a chain that nobody can change unnoticed, written before the queue forgets.

#[path = "../outbound/peer.rs"]
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
mod peer;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of durability, which use more of it")]
mod support;

mod accepted;
mod chain;
mod daemon;
mod folder;
mod refused;
mod stuck;
mod world;
