//! The envelope of a message: the parameters of MAIL and RCPT, and the delivery state of each
//! recipient.
//!
//! Values only: the grammar is in [`crate::smtp`], storage in [`crate::storage::spool`], decisions
//! in [`crate::policy::failure`]. The spool stores the serialized form, so a field keeps its
//! serialized name once it has been released. RFC 5321 §2.3.1; DSN parameters from RFC 3461 §4;
//! REQUIRETLS from RFC 8689.

mod arrival;
mod attempt_failure;
mod origin;
mod reception;
mod report;
mod requirement;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::smtp::address::{Mailbox, ReversePath};
pub use arrival::Arrival;
pub use attempt_failure::AttemptFailure;
pub use origin::ClientOrigin;
pub use reception::Reception;
pub use report::ReportForm;
pub use requirement::TlsRequirement;

/// The id of a message in the queue: unique in one spool, and sortable by time of arrival. It is
/// written as 13 characters of Crockford's base 32 in lower case, which avoids confusion of 0 and
/// o, or 1 and l.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u64);

const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl QueueId {
    /// The largest number of an id: row ids in the database are signed.
    pub const MAX: u64 = i64::MAX as u64;

    /// Creates an id from its number. Returns `None` above [`QueueId::MAX`].
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// Returns the number of the id.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// Parses an id as people type it, in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 13 {
            return None;
        }
        text.bytes()
            .try_fold(0_u64, |sum, c| {
                let digit = BASE32.iter().position(|b| *b == c.to_ascii_lowercase())?;
                sum.checked_mul(32)?.checked_add(digit as u64)
            })
            .and_then(Self::from_number)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; 13];
        for (at, c) in text.iter_mut().rev().enumerate() {
            let five_bits = self.0 >> (5 * at) & 31;
            // Five bits are always an index into 32 characters.
            *c = usize::try_from(five_bits)
                .ok()
                .and_then(|digit| BASE32.get(digit).copied())
                .unwrap_or(b'0');
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl Serialize for QueueId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QueueId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a queue id"))
    }
}

/// The BODY parameter of MAIL (RFC 6152 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BodyType {
    /// `BODY=7BIT`, or no BODY parameter.
    #[default]
    #[serde(rename = "7BIT")]
    SevenBit,
    /// `BODY=8BITMIME`.
    #[serde(rename = "8BITMIME")]
    EightBitMime,
}

/// The RET parameter of MAIL: how much of the message a failure report returns (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Ret {
    /// The whole message.
    Full,
    /// Only the header fields.
    Hdrs,
}

/// The NOTIFY parameter of RCPT: when the sender wants a report about a recipient (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notify {
    /// `NOTIFY=NEVER`.
    #[serde(rename = "never")]
    Never,
    /// Any of SUCCESS, FAILURE and DELAY; at least one.
    #[serde(rename = "on")]
    On {
        /// A report on delivery.
        success: bool,
        /// A report on failure.
        failure: bool,
        /// A report on delay.
        delay: bool,
    },
}

impl Notify {
    /// Combines two NOTIFY parameters so that each report requested by either is sent. A missing
    /// parameter requests reports on failure and delay, the usual default.
    #[must_use]
    pub fn either(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let reports = |wish: Option<Self>| match wish {
            None => (false, true, true),
            Some(Self::Never) => (false, false, false),
            Some(Self::On {
                success,
                failure,
                delay,
            }) => (success, failure, delay),
        };
        if one == other {
            return one;
        }
        let ((success, failure, delay), (more_success, more_failure, more_delay)) =
            (reports(one), reports(other));
        Some(Self::On {
            success: success || more_success,
            failure: failure || more_failure,
            delay: delay || more_delay,
        })
    }
}

/// One recipient of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The address.
    pub mailbox: Mailbox,
    /// The NOTIFY parameter, if it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// The ORCPT parameter as it was given (`type;xtext`), already validated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// The state of the delivery.
    #[serde(default, skip_serializing_if = "RecipientState::is_fresh")]
    pub state: RecipientState,
    /// The report to the sender about this recipient that is not stored yet. Its kind follows from
    /// `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed: Option<Box<AttemptFailure>>,
}

impl Recipient {
    /// Returns a recipient without attempts and without DSN parameters.
    #[must_use]
    pub fn new(mailbox: Mailbox) -> Self {
        Self {
            mailbox,
            notify: None,
            orcpt: None,
            state: RecipientState::default(),
            owed: None,
        }
    }

    /// Returns whether the recipient never gets another attempt nor a report that the message failed:
    /// it was delivered, or given up with no report owed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match self.state {
            RecipientState::Delivered => true,
            RecipientState::Failed => self.owed.is_none(),
            RecipientState::Pending { .. } | RecipientState::Held { .. } => false,
        }
    }
}

/// The state of the delivery to one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientState {
    /// Waiting for delivery.
    Pending {
        /// The number of attempts so far.
        #[serde(default)]
        attempts: u32,
        /// The earliest time of the next attempt; `None` before the first attempt, which is due on
        /// arrival.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Timestamp>,
        /// The failures of the attempts, oldest first.
        #[serde(default, skip_serializing_if = "FailureHistory::is_empty")]
        history: FailureHistory,
        /// True if a delay report was sent.
        #[serde(default, skip_serializing_if = "is_false")]
        warned: bool,
        /// True if a session ended with the reply to this recipient, or while that was awaited. The
        /// recipient then gets a transaction of its own.
        #[serde(default, skip_serializing_if = "is_false")]
        apart: bool,
    },
    /// Held until an operator decides.
    Held {
        /// The number of attempts so far.
        #[serde(default)]
        attempts: u32,
        /// The failures of the attempts, oldest first.
        #[serde(default, skip_serializing_if = "FailureHistory::is_empty")]
        history: FailureHistory,
    },
    /// The next hop accepted the message.
    Delivered,
    /// Bounced. A failure report was sent unless the sender must not get one.
    Failed,
}

impl Default for RecipientState {
    fn default() -> Self {
        Self::Pending {
            attempts: 0,
            next: None,
            history: FailureHistory::default(),
            warned: false,
            apart: false,
        }
    }
}

impl RecipientState {
    fn is_fresh(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether delivery is still to be attempted.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending { .. })
    }

    /// Returns whether the recipient is pending or held.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Pending { .. } | Self::Held { .. } => true,
            Self::Delivered | Self::Failed => false,
        }
    }
}

// The signature is given by serde.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// The failures of the attempts for one recipient, oldest first. The first ones and the latest ones
/// are stored, and those in between are dropped, so that many attempts do not enlarge the queue
/// entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FailureHistory(Vec<AttemptFailure>);

impl FailureHistory {
    /// The number of first failures that are stored.
    const FIRST: usize = 4;
    /// The most failures of one recipient that are stored.
    const ALL: usize = 24;
    /// The most failures of all recipients of a message that are stored; each recipient keeps at
    /// least its latest.
    const MESSAGE: usize = 480;

    /// Adds the latest failure of one recipient. The more recipients the message has, the fewer
    /// failures each keeps, because recipients of the same destination fail alike.
    pub fn push(&mut self, trouble: AttemptFailure, recipients: usize) {
        // Only the latest failure is explained to the sender.
        if let Some(earlier) = self.0.last_mut() {
            earlier.explanation = None;
        }
        let room = (Self::MESSAGE / recipients.max(1)).clamp(1, Self::ALL);
        while self.0.len() >= room {
            self.0
                .remove(Self::FIRST.min(self.0.len() - 1).min(room - 1));
        }
        self.0.push(trouble);
    }

    /// Returns the latest failure.
    #[must_use]
    pub fn last(&self) -> Option<&AttemptFailure> {
        self.0.last()
    }

    /// Returns all stored failures, oldest first.
    #[must_use]
    pub fn all(&self) -> &[AttemptFailure] {
        &self.0
    }

    /// Returns whether there are no failures.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The SMTP extensions that the content requires of the next hop; known after the content was
/// received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContentNeeds {
    /// True if the content has octets above 127 (RFC 6152).
    #[serde(default)]
    pub eight_bit: bool,
    /// True if a header field has octets above 127, so that the next hop must offer SMTPUTF8 (RFC
    /// 6531 §3.4).
    #[serde(default)]
    pub utf8_header: bool,
}

/// All data about a message except its content.
// Rule: RFC 5321 §2.3.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender, who gets failure reports.
    pub reverse_path: ReversePath,
    /// The recipients in the order of the RCPT commands. The index in this list identifies a
    /// recipient everywhere.
    pub recipients: Vec<Recipient>,
    /// The BODY parameter.
    #[serde(default)]
    pub body: BodyType,
    /// True if MAIL had the parameter SMTPUTF8 (RFC 6531 §3.4).
    #[serde(default)]
    pub smtputf8: bool,
    /// The extensions that the content requires.
    #[serde(default)]
    pub needs: ContentNeeds,
    /// The RET parameter, if it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Ret>,
    /// The ENVID parameter as it was given (xtext), if it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// The TLS that the sender requires.
    #[serde(default, skip_serializing_if = "TlsRequirement::is_ordinary")]
    pub tls: TlsRequirement,
    /// The Message-ID, if the message has one; used only in logs and records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Box<str>>,
    /// The form of the report, if the message is a report of ours to a sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportForm>,
    /// The session in which the message was received, until the evidence has recorded it; `None`
    /// for messages of our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
    /// The same session in short, once `arrival` is recorded, or from the beginning without evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Box<Reception>>,
    /// The kind of client that sent the message.
    #[serde(default, skip_serializing_if = "ClientOrigin::is_known")]
    pub origin: ClientOrigin,
    /// True if pending reports must not return content, because a hop of the message required TLS.
    #[serde(default, skip_serializing_if = "is_false")]
    pub confidential: bool,
    /// The name of the connector by which the message goes, if the user who sent it has one; else the
    /// recipients' own connectors say which way it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<Box<str>>,
}

impl Envelope {
    /// Returns an envelope with only a sender and recipients.
    #[must_use]
    pub fn new(reverse_path: ReversePath, recipients: Vec<Recipient>) -> Self {
        Self {
            reverse_path,
            recipients,
            body: BodyType::SevenBit,
            smtputf8: false,
            needs: ContentNeeds::default(),
            ret: None,
            envid: None,
            tls: TlsRequirement::Ordinary,
            message_id: None,
            report: None,
            arrival: None,
            received: None,
            origin: ClientOrigin::Known,
            confidential: false,
            connector: None,
        }
    }

    /// Returns the session in which the message was received; `None` for messages of our own.
    #[must_use]
    pub fn reception(&self) -> Option<Reception> {
        let received = self.received.as_deref().cloned();
        received.or_else(|| self.arrival.as_ref()?.reception())
    }

    /// Removes the session that the evidence has recorded. An unfinished message keeps it in short.
    pub fn forget_arrival(&mut self) {
        if self.received.is_none() && self.is_open() {
            self.received = self.reception().map(Box::new);
        }
        self.arrival = None;
    }

    /// Returns whether the message is unfinished: a recipient is pending or held, or a report to
    /// the sender is not stored.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.recipients
            .iter()
            .any(|recipient| recipient.state.is_open() || recipient.owed.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::{EnhancedStatusCode, Reply};

    #[test]
    fn queue_ids_are_thirteen_sortable_characters() {
        let (small, large) = (QueueId(5), QueueId(QueueId::MAX));
        assert_eq!(small.to_string(), "0000000000005");
        assert!(small.to_string() < large.to_string());
        for id in [small, large] {
            assert_eq!(QueueId::parse(&id.to_string().to_uppercase()), Some(id));
        }
        for text in ["", "5", "zzzzzzzzzzzzz", "000000000000o", "00000000000005"] {
            assert_eq!(QueueId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn combining_notify_keeps_every_requested_report() {
        let on = |success, failure, delay| {
            Some(Notify::On {
                success,
                failure,
                delay,
            })
        };
        for (one, other, both) in [
            (None, None, None),
            (
                Some(Notify::Never),
                Some(Notify::Never),
                Some(Notify::Never),
            ),
            (None, Some(Notify::Never), on(false, true, true)),
            (on(true, false, false), None, on(true, true, true)),
            (
                on(true, false, false),
                Some(Notify::Never),
                on(true, false, false),
            ),
            (
                on(true, false, false),
                on(false, true, false),
                on(true, true, false),
            ),
        ] {
            assert_eq!(Notify::either(one, other), both, "{one:?} {other:?}");
            assert_eq!(Notify::either(other, one), both, "{other:?} {one:?}");
        }
    }

    fn refused(second: i64) -> AttemptFailure {
        AttemptFailure {
            at: Timestamp::from_second(second).expect("in range"),
            status: EnhancedStatusCode::parse("4.7.5").expect("valid"),
            text: "refused".into(),
            explanation: Some(format!("explanation {second}")),
            host: Some("mx.example.net".into()),
            reply: Some(Reply::bare(454, "no")),
        }
    }

    #[test]
    fn a_history_keeps_its_beginning_and_its_end() {
        let mut history = FailureHistory::default();
        for second in 0..100 {
            history.push(refused(second), 1);
        }
        let seconds = |history: &FailureHistory| {
            history
                .all()
                .iter()
                .map(|one| one.at.as_second())
                .collect::<Vec<_>>()
        };
        assert_eq!(seconds(&history), (0..4).chain(80..100).collect::<Vec<_>>());
        let explained: Vec<_> = history
            .all()
            .iter()
            .filter_map(|one| one.explanation.as_deref())
            .collect();
        assert_eq!(explained, ["explanation 99"], "only the latest");
        history.push(refused(100), 1000);
        assert_eq!(
            seconds(&history),
            [100],
            "a message with many recipients stays small"
        );
    }

    #[test]
    fn an_envelope_survives_its_stored_form() {
        let mut envelope = Envelope::new(
            ReversePath::parse("a@example.org").expect("valid"),
            vec![Recipient::new(
                Mailbox::parse("b@example.net").expect("valid"),
            )],
        );
        let mut history = FailureHistory::default();
        history.push(refused(1), 1);
        envelope.recipients[0].state = RecipientState::Pending {
            attempts: 2,
            next: Some(Timestamp::UNIX_EPOCH),
            history,
            warned: true,
            apart: true,
        };
        let text = serde_json::to_string(&envelope).expect("serialises");
        assert!(!text.contains("connector"), "as earlier versions wrote it");
        assert_eq!(
            serde_json::from_str::<Envelope>(&text).expect(&text),
            envelope
        );
        envelope.connector = Some("smart".into());
        let text = serde_json::to_string(&envelope).expect("serialises");
        assert_eq!(
            serde_json::from_str::<Envelope>(&text).expect(&text),
            envelope
        );
    }
}
