//! Handshakes over real sockets, with real certificates, in both directions.

mod dane;
mod files;
mod inbound;
mod keys;
mod openssl;
mod openssl_keys;
mod outbound;
mod paths;
mod resumption;
mod trust;
mod uncheckable;
mod words;
mod world;
