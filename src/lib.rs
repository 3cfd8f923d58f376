//! Gatepost.
pub mod access;
pub mod address;
pub mod cli;
pub mod config;
pub mod connector;
pub mod envelope;
pub mod handshake;
pub mod inbound;
pub mod outbound;
pub mod outcome;
pub mod route;
pub mod smtp;
pub mod spool;
pub mod tls;
