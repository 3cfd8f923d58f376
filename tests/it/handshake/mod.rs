//! Handshakes over real sockets, with real certificates, in both directions.

mod dane;
mod files;
mod hello;
mod inbound;
mod keys;
mod openssl;
mod openssl_crls;
mod openssl_keys;
mod outbound;
mod paths;
mod resumption;
mod revocation;
mod trust;
mod words;
