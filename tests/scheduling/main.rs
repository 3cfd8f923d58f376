//! Who is tried when, and who must not wait for whom: a real daemon, real sockets, and sinks that count.

#[path = "../outbound/peer.rs"]
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
mod peer;
#[path = "../reports/reader.rs"]
#[allow(dead_code, reason = "shared with the tests of reports, which use more of it")]
mod reader;
#[path = "../reports/world.rs"]
#[allow(dead_code, reason = "shared with the tests of reports, which use more of it")]
mod world;

mod back_off;
mod clock;
mod connections;
mod fairness;
mod limits;
mod orders;
mod owed;
mod restart;
mod sink;
