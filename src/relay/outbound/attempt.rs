//! An attempt to deliver one message to its recipients at one domain, and its result.

use std::sync::Arc;

use crate::config::Connector;
use crate::discovery::history::TlsLevel;
use crate::policy::connector::Connectors;
use crate::policy::failure::{Failure, Peer, RecipientOutcome};
use crate::policy::tls::{Clearance, TlsPolicy};
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Host;
use crate::storage::spool::Entry;

use super::login_result::SessionLogin;

/// The task of one attempt: one message, and its recipients at one domain.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The message.
    pub entry: Arc<Entry>,
    /// The indices in the envelope of the recipients at `host`; at least one.
    pub recipients: Vec<usize>,
    /// The recipients at which a session ended before. Each gets a transaction of its own, after
    /// the others.
    pub apart: Vec<usize>,
    /// The recipient domain.
    pub host: Host,
    /// True if this may be the last attempt: the message expires, or is about to.
    pub may_be_last: bool,
}

impl Attempt {
    /// Returns the connector by which the message goes, among those of a configuration.
    #[must_use]
    pub fn connector(&self, connectors: &Connectors) -> Arc<Connector> {
        connectors.for_mail(&self.host, self.user_connector())
    }

    /// Returns the name of the connector of the user who sent the message, if the user has one.
    #[must_use]
    pub fn user_connector(&self) -> Option<&str> {
        self.entry.envelope.connector.as_deref()
    }
}

/// The result of an attempt.
#[derive(Debug)]
pub struct AttemptResult {
    /// One result for each recipient of the attempt.
    pub results: Vec<RecipientResult>,
    /// Every failure of the attempt, hop by hop, including those after which a later hop accepted
    /// the message.
    pub trail: Vec<Arc<Failure>>,
    /// The connector by which the message went.
    pub connector: Arc<Connector>,
    /// The configuration that the whole attempt used.
    pub snapshot: Arc<Snapshot>,
}

/// The result of an attempt for one recipient.
#[derive(Debug)]
pub struct RecipientResult {
    /// The index of the recipient in the envelope.
    pub recipient: usize,
    /// The outcome for this recipient.
    pub outcome: RecipientOutcome,
    /// The session that decided the outcome; `None` if no session got a clearance.
    pub via: Option<Arc<Via>>,
    /// The TLS policy of the hop that decided the outcome; `None` if the attempt failed before the
    /// policy was known.
    pub policy: Option<Arc<TlsPolicy>>,
    /// The failures of this recipient, hop by hop, the deciding one included. Failures of other
    /// recipients are not listed. Empty for a delivered recipient.
    pub trail: Vec<Arc<Failure>>,
    /// True if a session ended with the reply to this recipient, or while that reply was awaited,
    /// in this attempt or an earlier one.
    pub apart: bool,
}

/// A cleared session, as logs and evidence record it.
#[derive(Debug, Clone)]
pub struct Via {
    /// The peer.
    pub peer: Peer,
    /// The clearance of the session.
    pub clearance: Clearance,
    /// Our login at the peer, if the connector has one.
    pub login: Option<SessionLogin>,
    /// True if the peer offers DSN (RFC 3461), so that the sender's wishes for reports were passed
    /// on.
    pub offers_dsn: bool,
    /// The TLS level that the domain showed before, if this session shows less and the connector
    /// warns of that.
    pub earlier_level: Option<TlsLevel>,
}
