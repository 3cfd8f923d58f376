//! The complete daemon, against a world that delays, cuts, lies and dies by a seed.
//!
//! - [`world`]: destinations, policies and what is wrong with each; [`script`]: what a host does on
//!   one connection.
//! - [`peer`] and [`resolver`]: the hosts and the resolver, which do it.
//! - [`mail`]: what is sent. [`ledger`]: what the hosts have seen.
//! - [`play`]: clients send; the daemon is killed, stopped and stalled; its disk fills up and its
//!   clock jumps.
//! - [`verdict`]: what must be true afterwards, by what clients and hosts saw alone. [`proof`]
//!   shows that each promise that is broken is found out.
//!
//! The tests that play it are in [`super::bad_world`]. `docs/simulation.md` says more.

mod ledger;
mod mail;
mod peer;
pub(crate) mod play;
mod proof;
mod resolver;
mod script;
pub(crate) mod seed;
mod verdict;
mod world;
