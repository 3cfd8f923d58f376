//! Gatepost: an SMTP relay that holds every domain to its TLS policy, in both directions.
//!
//! # A message's walk
//!
//! [`inbound`] accepts a session and pumps bytes through the server dialogue in [`smtp`]. At MAIL the
//! [`connector`] of the sender's domain says what the session must show, and the judge in [`tls`]
//! whether it did; at RCPT [`access`] says whether this peer may send there. The content streams into
//! a draft of the [`spool`]; only the spool's receipt, which exists once the message is durable, makes
//! the final 250. The [`scheduler`] then gives each recipient domain its own attempt. [`outbound`]
//! asks [`route`] for the hops and [`handshake`] for TLS, the same judge decides, and with its
//! clearance alone can MAIL FROM be written. What a failure means is decided in [`outcome`], and what
//! the sender is told of it is written in [`dsn`].
//!
//! # The floors
//!
//! Imports point down only; `tests/it/floors` reads them. From the top:
//!
//! - `cli` and [`demo`]: the commands, and the play that shows what the policies do; [`explain`], which
//!   says in advance what either direction would do, in the words of both; [`daemon`] wires the rooms and
//!   ends them in order;
//! - movers, which are tokio tasks: [`admin`], [`inbound`], [`scheduler`], [`outbound`], [`tlsrpt`];
//! - hands, each touching one piece of the world: [`discovery`] (what domains publish about themselves, and
//!   what they showed before), on [`https`]; [`spool`], [`evidence`] (what became of each delivery, chained),
//!   [`route`], [`handshake`]; below them [`dns`], [`ownership`] (of folders), and [`monitor`], to which all of them tell
//!   what is to be watched;
//! - rules, pure decisions over words: [`dsn`], [`outcome`] (the failure judge), [`access`],
//!   [`connector`], [`config`], [`tls`] (the TLS judge);
//! - words, values and grammar without I/O, clock or async: [`envelope`], [`smtp`], [`address`], [`networks`] (by which
//!   limits count clients).
//!
//! # Proofs
//!
//! A [`tls::Clearance`] is made by the TLS judge alone, and MAIL FROM is written only on a connection
//! that carries one. A [`spool::Receipt`] is made by the spool alone, and the final 250 needs one. A
//! session without TLS carries its reason, [`tls::NoTls`]. A reply's two codes share one severity.

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
