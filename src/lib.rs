//! Gatepost: an SMTP relay that holds every domain to its TLS policy, in both directions.
//!
//! # The way of a message
//!
//! [`relay::inbound`] accepts a session and passes its bytes to the server dialogue in [`smtp`]. At
//! MAIL, [`policy::connector`] finds the connector of the sender's domain, and the TLS judge in
//! [`policy::tls`] decides whether the session satisfies it. At RCPT, [`policy::relay_access`]
//! decides whether this client may relay to the recipient. The content streams into a draft of the
//! [`storage::spool`], which returns a receipt once the message is durable. Only a receipt makes
//! the final 250. The [`relay::scheduler`] then starts an attempt for each recipient domain.
//! [`relay::outbound`] runs it: [`net::route`] yields the hops, [`net::tls_io`] negotiates TLS, and
//! the TLS judge decides. MAIL FROM can be written only with the judge's clearance.
//! [`policy::failure`] decides what a failure means, and [`smtp::dsn`] writes the report to the
//! sender.
//!
//! # The layers
//!
//! Imports point down only; `tests/it/structure` checks it. From the top:
//!
//! - commands: `cli`, and [`demo`], which shows what the policies do;
//! - [`daemon`]: wires the services together and ends them in order;
//! - [`admin`]: the admin socket, the status page and the metrics;
//! - [`explain`]: what either direction would do, without doing it;
//! - [`relay`]: the services, which are tokio tasks;
//! - [`discovery`]: the policies that domains publish, and their past TLS;
//! - [`storage`]: the spool and the evidence;
//! - [`net`]: DNS, HTTPS, routes, and TLS sessions;
//! - [`telemetry`], to which all of them report;
//! - [`config`]: TOML as written, and the configuration that it means;
//! - [`policy`]: pure decisions, the two judges among them;
//! - [`smtp`]: grammar and values, without I/O, clock or async.
//!
//! # Proofs
//!
//! A [`policy::tls::Clearance`] is made by the TLS judge alone, and MAIL FROM is written only on a
//! connection that has one. A [`storage::spool::Receipt`] is made by the spool alone, and the final
//! 250 needs one. A session without TLS carries its reason, [`policy::tls::NoTls`]. The reply code
//! and the enhanced status code of a [`smtp::reply::Reply`] share one severity.

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
