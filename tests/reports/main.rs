//! What senders are told, and what is passed on so that others tell them: a real daemon, real sockets,
//! and reports that are read as a program would read them (RFC 3461, RFC 3464).

#[path = "../outbound/peer.rs"]
#[allow(dead_code, reason = "shared with the tests of deliveries, which use more of it")]
mod peer;
mod reader;
#[allow(dead_code, reason = "shared with the tests of the scheduler, which use more of it")]
mod world;

mod addresses;
mod backscatter;
mod confidential;
mod delays;
mod failures;
mod groups;
mod notify;
mod passing;
mod postmaster;
mod requiretls;
