//! The state of a session.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::ListenerConfig;
use crate::config::{Connector, MailUser, write_duration};
use crate::net::tls_io::CompletedHandshake;
use crate::relay::inbound::Inbound;
use crate::relay::inbound::clients::Seat;
use crate::relay::inbound::min_rate::ContentRate;
use crate::relay::inbound::policy::SenderClearance;
use crate::relay::inbound::timeouts::Progress;
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Domain;
use crate::smtp::address::ReversePath;
use crate::smtp::data::{FromReader, HeaderCompleter};
use crate::smtp::envelope::Envelope;
use crate::smtp::server::Server;
use crate::storage::spool::{Draft, SpoolError};

/// The TLS state of the connection.
pub(super) enum ConnectionTls {
    /// The connection is in the clear: the client has not sent STARTTLS.
    Clear,
    /// The connection is under TLS; the value holds the facts of the handshake.
    Tls(CompletedHandshake),
}

/// The reason for which a session ended.
// Rule: RFC 5321 §4.1.1.5.
#[derive(Debug)]
pub(super) enum SessionEndReason {
    /// Our last reply was sent: to QUIT, or to a client whose session cannot continue.
    Replied,
    /// The client has sent STARTTLS; the session goes on after the handshake.
    StartTls,
    /// The TLS handshake failed.
    Handshake(String),
    /// The client was too slow.
    Timeout(MissedDeadline),
    /// The client sent no message for too long.
    NoMessage,
    /// The seat was given to another client.
    Evicted,
    /// The daemon is stopping.
    Shutdown,
    /// The connection was lost.
    ConnectionLost(String),
}

impl fmt::Display for SessionEndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replied | Self::StartTls => f.write_str("the relay closed the connection after its last reply"),
            Self::Handshake(fault) => write!(f, "the TLS handshake failed: {fault}"),
            Self::Timeout(slow) => slow.fmt(f),
            Self::NoMessage => f.write_str("the client sent no message within [timeouts] message"),
            Self::Evicted => {
                f.write_str("the client sent no message for a while, and its seat was needed for another client")
            }
            Self::Shutdown => f.write_str("the service is shutting down"),
            Self::ConnectionLost(how) => f.write_str(how),
        }
    }
}

/// The time for which more of a rejected message is awaited once it seems to be complete: the
/// client may have ended it with bare LFs, and now awaits the reply.
pub(super) const SEEMS_ENDED: Duration = Duration::from_secs(3);

/// The state of one session.
pub(super) struct ClientSession {
    pub(super) inbound: Arc<Inbound>,
    pub(super) settings: Arc<Snapshot>,
    pub(super) listener: Arc<ListenerConfig>,
    pub(super) peer: SocketAddr,
    /// The client's address, if it is known and may give rights.
    pub(super) client: Option<IpAddr>,
    /// The client's name in DNS, if a proxy has reported it.
    pub(super) client_name: Option<Domain>,
    /// The proxy that has named the client with XCLIENT.
    pub(super) proxy: Option<SocketAddr>,
    pub(super) local: IpAddr,
    pub(super) stop: CancellationToken,
    pub(super) server: Server,
    pub(super) connection_tls: ConnectionTls,
    /// The judge's clearance for the last accepted MAIL.
    pub(super) sender_clearance: Option<Box<SenderClearance>>,
    /// The user that has logged in, or is about to.
    pub(super) user: Option<Arc<MailUser>>,
    /// The sender of the transaction, or of the MAIL that is being answered.
    pub(super) sender: Option<TransactionSender>,
    /// The message that is being received.
    /// The user whose keys the exchange in progress was begun with.
    pub(super) proving: Option<Arc<MailUser>>,
    pub(super) draft: Option<Box<IncomingMessage>>,
    pub(super) content_rate: ContentRate,
    /// The time at which the wait for the next command began.
    pub(super) command_since: Instant,
    /// The time of the last accepted message, or of the session's beginning.
    pub(super) message_since: Instant,
    pub(super) progress: Progress,
    pub(super) seat: Seat,
    /// True if the refusal that is sent next was already logged or counted with its reason.
    pub(super) is_logged: bool,
}

/// The deadline that a client missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissedDeadline {
    /// The client sent no complete command within this time.
    Command(Duration),
    /// The client sent no more content within this time.
    Content(Duration),
    /// The client sent its message slower than `[timeouts] data_rate`.
    Rate,
    /// The client did not read our replies in time.
    Replies,
}

impl fmt::Display for MissedDeadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(time) => write!(f, "no command within {}", write_duration(*time)),
            Self::Content(time) => write!(
                f,
                "no more content of the message within {}",
                write_duration(*time)
            ),
            Self::Rate => f.write_str("the message came slower than [timeouts] data_rate"),
            Self::Replies => f.write_str("the client did not read our replies in time"),
        }
    }
}

/// The sender of the last MAIL, with its connector.
pub(crate) struct TransactionSender {
    pub(super) from: ReversePath,
    pub(super) connector: Arc<Connector>,
}

/// A message that is being received.
pub(crate) struct IncomingMessage {
    pub(super) draft: Draft,
    /// Adds missing header fields, if the message comes from a client of ours.
    pub(super) completer: Option<HeaderCompleter>,
    /// Reads the From field, if the user may write as its senders alone.
    pub(super) from: Option<FromReader>,
}

impl IncomingMessage {
    /// Adds content to the draft, through the header completer if there is one. Returns true if
    /// [`Draft::write_out`] must follow.
    pub(super) fn add(&mut self, octets: &[u8]) -> Result<bool, SpoolError> {
        if let Some(from) = &mut self.from {
            from.push(octets);
        }
        let Some(completer) = &mut self.completer else {
            return self.draft.add(octets);
        };
        let (made, rest) = completer.push(octets);
        self.draft.add(&made)?;
        self.draft.add(rest)
    }

    /// Completes the message. If a Message-ID was added, the envelope gets it.
    pub(super) fn finish(mut self, envelope: &mut Envelope) -> Result<Draft, SpoolError> {
        if let Some(completer) = self.completer {
            let (made, id) = completer.finish();
            self.draft.add(&made)?;
            if let Some(id) = id {
                envelope.message_id = Some(id.into());
            }
        }
        Ok(self.draft)
    }
}
