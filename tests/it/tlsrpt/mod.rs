//! TLS reports (RFC 8460): sessions in, one report a day and domain out, by mail through the real
//! queue and to collectors of the test's own.

mod counts;
mod days;
mod example;
mod https;
mod mail;
pub(crate) mod service;
mod sessions;
