//! Who is tried when, and who must not wait for whom: a real daemon, real sockets, and sinks that
//! count.

mod back_off;
mod clock;
mod connections;
mod damage;
mod fairness;
mod limits;
mod observers;
mod orders;
mod owed;
mod restart;
