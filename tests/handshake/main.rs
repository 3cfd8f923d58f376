//! Handshakes over real sockets, with real certificates, in both directions.

mod dane;
mod files;
mod hello;
mod inbound;
mod keys;
mod openssl;
mod openssl_keys;
mod outbound;
mod paths;
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
#[path = "../outbound/picky.rs"]
mod picky;
mod resumption;
mod trust;
mod uncheckable;
mod words;
mod world;
