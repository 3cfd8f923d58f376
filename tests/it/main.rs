//! The integration tests, as one program: a module for each subject, and what they share in
//! [`support`].
//!
//! `cargo test --test it SUBJECT::` runs one subject. `durability` is a program of its own, because
//! it kills and traces the relay.

mod assurance;
mod bad_world;
mod check;
mod client_dialogues;
mod config_faults;
mod config_good;
mod config_include;
mod crl_points;
mod dane;
mod database;
mod demo;
mod dns;
mod dnssec;
mod dnssec_differential;
mod documents;
mod evidence;
mod explain;
mod handshake;
mod inbound;
mod life_cycle;
mod outbound;
mod probe;
mod published;
mod queue_commands;
mod recipients;
mod reports;
mod route;
mod scheduling;
mod screens;
mod sendmail;
mod server_dialogues;
mod simulation;
mod spool;
mod stores;
mod structure;
mod support;
mod test_mail;
mod tlsrpt;
mod tokens;
mod user_commands;
