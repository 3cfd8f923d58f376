//! The database of a queue that several relays share: how a relay connects to it, and starts with it.
//!
//! Tests that need PostgreSQL run where `GATEPOST_TEST_POSTGRESQL` has the URL of a superuser; each
//! makes a database of its own.

mod front;
mod outage;
mod safety;
mod server;
mod shared_state;
mod start;
