//! Handshakes over real sockets, with real certificates, in both directions.

mod files;
mod inbound;
mod outbound;
mod world;
