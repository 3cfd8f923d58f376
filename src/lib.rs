//! Gatepost: an SMTP relay that holds every domain to its TLS policy, in both directions.
//!
//! # The way of a message
//!
//! [`inbound`] accepts a session and passes its bytes to the server dialogue in [`smtp`]. At MAIL, [`connector`]
//! finds the connector of the sender's domain, and the TLS judge in [`tls`] decides whether the session satisfies
//! it. At RCPT, [`access`] decides whether this client may relay to the recipient. The content streams into a draft
//! of the [`spool`], which returns a receipt once the message is durable. Only a receipt makes the final 250. The
//! [`scheduler`] then makes an attempt for each recipient domain. [`outbound`] runs it: [`route`] yields the hops,
//! [`handshake`] negotiates TLS, and the TLS judge decides. MAIL FROM can be written only with its clearance.
//! [`failure`] decides what a failure means, and [`dsn`] writes the report to the sender.
//!
//! # The layers
//!
//! Imports point down only; `tests/it/floors` checks it. From the top:
//!
//! - commands: `cli` and [`demo`], which shows what the policies do;
//! - [`explain`]: what either direction would do, without doing it;
//! - [`daemon`]: wires the services together and ends them in order;
//! - services, which are tokio tasks: [`admin`], [`inbound`], [`scheduler`], [`outbound`], [`tlsrpt`];
//! - access to one part of the world each: [`discovery`] (the policies that domains publish, and their past TLS),
//!   on [`https`]; [`spool`]; [`evidence`] (the chained records of deliveries); [`route`]; [`handshake`]; and below
//!   them [`dns`], [`ownership`] (of folders) and [`monitor`], to which all of them report;
//! - rules, which are pure decisions: [`dsn`], [`failure`] (the failure judge), [`access`], [`connector`],
//!   [`config`], [`tls`] (the TLS judge);
//! - grammar and values, without I/O, clock or async: [`envelope`], [`smtp`], [`address`], [`networks`] (by which
//!   limits count clients).
//!
//! # Proofs
//!
//! A [`tls::Clearance`] is made by the TLS judge alone, and MAIL FROM is written only on a connection that has one.
//! A [`spool::Receipt`] is made by the spool alone, and the final 250 needs one. A session without TLS carries its
//! reason, [`tls::NoTls`]. Both codes of a reply share one severity.

pub mod access;
pub mod address;
pub mod admin;
pub mod cli;
pub mod config;
pub mod connector;
pub mod daemon;
pub mod demo;
pub mod discovery;
pub mod dns;
pub mod dsn;
pub mod envelope;
pub mod evidence;
pub mod explain;
pub mod failure;
pub mod handshake;
pub mod https;
pub mod inbound;
pub mod monitor;
pub mod networks;
pub mod outbound;
pub mod ownership;
pub mod route;
pub mod running_config;
pub mod scheduler;
pub mod smtp;
pub mod spool;
pub mod tls;
pub mod tlsrpt;
