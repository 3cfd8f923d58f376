//! Deliveries over real sockets, with real certificates and a real name server.

mod chunks;
mod dane;
mod delivery;
mod extensions;
mod implicit_tls;
mod layers;
mod lmtp;
mod loops;
mod lost_spool;
mod many_addresses;
mod memory;
mod mta_sts;
mod observed;
mod pins;
mod policy_table;
mod questions;
mod requiretls;
mod reuse;
mod revocation;
mod second_try;
mod smart_host_login;
mod smart_host_tokens;
mod source;
mod tls_demanded;
mod transactions;
mod user_connector;
