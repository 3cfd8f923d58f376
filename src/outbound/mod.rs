//! One attempt to deliver one message to one destination: hops, TLS, transaction.
//!
//! What becomes of the recipients afterwards (retry, report, removal) is the scheduler's affair.

use std::sync::Arc;

use crate::address::Host;
use crate::config::Connector;
use crate::outcome::{Failure, Outcome};
use crate::spool::Entry;
use crate::tls::Clearance;

/// One message, one destination.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The message.
    pub entry: Arc<Entry>,
    /// Which of its recipients, by index: all have `host` right of the "@". At least one.
    pub recipients: Vec<usize>,
    /// The recipient domain.
    pub host: Host,
    /// The connector that speaks for it.
    pub connector: Arc<Connector>,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Report {
    /// One result for each recipient of the attempt.
    pub results: Vec<RecipientResult>,
    /// Every failure on the way, hop by hop, those that the next hop made good included.
    pub trail: Vec<Failure>,
}

/// How an attempt ended for one recipient.
#[derive(Debug)]
pub struct RecipientResult {
    /// Its index in the envelope.
    pub recipient: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// The session on which it was decided; `None` where no session got as far as a clearance.
    pub via: Option<Arc<Via>>,
}

/// A cleared session, for the record.
#[derive(Debug)]
pub struct Via {
    /// `mx.example.org [192.0.2.1]:25`.
    pub peer: String,
    /// Under which clearance.
    pub clearance: Clearance,
    /// Whether the peer offers DSN (RFC 3461), so that what the sender wants reported was passed on.
    pub offers_dsn: bool,
}

/// Stand-in.
#[derive(Debug)]
pub struct Outbound;
impl Outbound {
    /// Stand-in.
    pub async fn deliver(&self, _attempt: Attempt) -> Report {
        todo!()
    }
}
