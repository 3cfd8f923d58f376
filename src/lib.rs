//! Gatepost: an SMTP relay that holds every domain to its TLS policy, in both directions.
//!
//! # The way of a message
//!
//! [`relay::inbound`] accepts a session and passes its bytes to the server dialogue in [`smtp`]. At
//! MAIL, [`policy::connector`] finds the connector of the sender's domain, and the TLS judge in
//! [`policy::tls`] decides whether the session satisfies it. At RCPT, [`policy::relay_access`]
//! decides whether this client may relay to the recipient. The content streams into a draft of the
//! [`storage::spool`], which returns a receipt once the message is durable. Only a receipt makes
//! the final 250. The [`relay::scheduler`] then makes an attempt for each recipient domain.
//! [`relay::outbound`] runs it: [`net::route`] yields the hops, [`net::tls_io`] negotiates TLS, and
//! the TLS judge decides. MAIL FROM can be written only with its clearance. [`policy::failure`]
//! decides what a failure means, and [`smtp::dsn`] writes the report to the sender.
//!
//! # The layers
//!
//! Imports point down only; `tests/it/floors` checks it. From the top:
//!
//! - commands: `cli` and [`demo`], which shows what the policies do;
//! - [`explain`]: what either direction would do, without doing it;
//! - [`daemon`]: wires the services together and ends them in order;
//! - services, which are tokio tasks: [`admin`], [`relay::inbound`], [`relay::scheduler`],
//!   [`relay::outbound`], [`relay::tlsrpt`];
//! - access to one part of the world each: [`discovery`] (the policies that domains publish, and
//!   their past TLS), on [`net::https`]; [`storage::spool`]; [`storage::evidence`] (the chained
//!   records of deliveries); [`net::route`]; [`net::tls_io`]; and below them [`net::dns`],
//!   [`storage::ownership`] (of folders) and [`telemetry`], to which all of them report;
//! - rules, which are pure decisions: [`smtp::dsn`], [`policy::failure`] (the failure judge),
//!   [`policy::relay_access`], [`policy::connector`], [`config`], [`policy::tls`] (the TLS judge);
//! - grammar and values, without I/O, clock or async: [`smtp::envelope`], [`smtp`],
//!   [`smtp::address`], [`policy::networks`] (by which limits count clients).
//!
//! # Proofs
//!
//! A [`policy::tls::Clearance`] is made by the TLS judge alone, and MAIL FROM is written only on a
//! connection that has one. A [`storage::spool::Receipt`] is made by the spool alone, and the final
//! 250 needs one. A session without TLS carries its reason, [`policy::tls::NoTls`]. Both codes of a
//! reply share one severity.

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod discovery;
pub mod explain;
pub mod net;
pub mod policy;
pub mod relay;
pub mod smtp;
pub mod storage;
pub mod telemetry;
