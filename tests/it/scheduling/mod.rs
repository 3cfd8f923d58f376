//! The scheduler's order of attempts, and the messages that must not wait for one another: a real
//! daemon, real sockets, and sinks that count.

mod back_off;
mod clock;
mod connections;
mod damage;
mod fairness;
mod limits;
mod lost;
mod many_domains;
mod observers;
mod orders;
mod owed;
mod release;
mod restart;
mod stuck;
mod user_connector;
