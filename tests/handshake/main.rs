//! Handshakes over real sockets, with real certificates, in both directions.

mod dane;
mod files;
mod inbound;
mod openssl;
mod outbound;
mod paths;
mod resumption;
mod trust;
mod words;
mod world;
