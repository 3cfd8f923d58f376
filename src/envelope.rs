//! The envelope of a message: what MAIL and RCPT said, and how far each recipient has come.
//!
//! Values only: grammar lives in [`crate::smtp`], storage in [`crate::spool`], decisions in
//! [`crate::failure`]. The serialised form is what the spool keeps, so a field once released keeps
//! its name. RFC 5321 §2.3.1; DSN parameters from RFC 3461 §4; REQUIRETLS from RFC 8689.

mod arrival;
mod origin;
mod report;
mod requirement;
mod trouble;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::address::{Mailbox, ReversePath};
pub use arrival::Arrival;
pub use origin::Origin;
pub use report::ReportForm;
pub use requirement::TlsRequirement;
pub use trouble::Trouble;

/// The name of a message in our queue: unique in one spool, and sortable by arrival. Written as 13
/// characters without 0/o or 1/l confusions (Crockford's base 32, lower case).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u64);

const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl QueueId {
    /// The largest number an id may have: row ids in a database are signed.
    pub const MAX: u64 = i64::MAX as u64;

    /// Makes an id from its number; `None` above [`QueueId::MAX`].
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// The number behind the id.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// Reads an id as people type it, in either case.
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
            // Five bits are an index into 32 characters.
            *c = usize::try_from(five_bits).ok().and_then(|digit| BASE32.get(digit).copied()).unwrap_or(b'0');
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

/// What the BODY parameter declared (RFC 6152 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BodyType {
    /// `BODY=7BIT`, or nothing said.
    #[default]
    #[serde(rename = "7BIT")]
    SevenBit,
    /// `BODY=8BITMIME`.
    #[serde(rename = "8BITMIME")]
    EightBitMime,
}

/// How much of the message a failure report should carry (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header fields only.
    Hdrs,
}

/// When the sender wants a report about a recipient (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notify {
    /// `NOTIFY=NEVER`.
    #[serde(rename = "never")]
    Never,
    /// Any of SUCCESS, FAILURE, DELAY; at least one.
    #[serde(rename = "on")]
    On {
        /// On delivery.
        success: bool,
        /// On failure.
        failure: bool,
        /// On delay.
        delay: bool,
    },
}

impl Notify {
    /// The reports that either of two wishes asks for. No wish asks for failures and delays, as senders are used to.
    #[must_use]
    pub fn either(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let reports = |wish: Option<Self>| match wish {
            None => (false, true, true),
            Some(Self::Never) => (false, false, false),
            Some(Self::On { success, failure, delay }) => (success, failure, delay),
        };
        if one == other {
            return one;
        }
        let ((success, failure, delay), (more_success, more_failure, more_delay)) = (reports(one), reports(other));
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
    /// Where the message goes.
    pub mailbox: Mailbox,
    /// NOTIFY, where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// ORCPT as it was given: `type;xtext`, already checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// How far delivery has come.
    #[serde(default, skip_serializing_if = "RecipientState::is_fresh")]
    pub state: RecipientState,
    /// The report to the sender about this recipient that is not stored yet: its state says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed: Option<Box<Trouble>>,
}

impl Recipient {
    /// A recipient to whom nothing has been tried yet, without DSN parameters.
    #[must_use]
    pub fn new(mailbox: Mailbox) -> Self {
        Self { mailbox, notify: None, orcpt: None, state: RecipientState::default(), owed: None }
    }
}

/// How far the delivery to one recipient has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientState {
    /// Still to be delivered.
    Pending {
        /// Attempts made so far.
        #[serde(default)]
        attempts: u32,
        /// Not before this time; the arrival time where nothing was tried yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Timestamp>,
        /// Why the attempts failed, oldest first; see [`History`].
        #[serde(default, skip_serializing_if = "History::is_empty")]
        history: History,
        /// Whether the sender was told of the delay.
        #[serde(default, skip_serializing_if = "is_false")]
        warned: bool,
        /// Whether a session ended with its answer, or while that was awaited: it goes into a transaction of its own.
        #[serde(default, skip_serializing_if = "is_false")]
        apart: bool,
    },
    /// Neither tried nor given up until an operator decides.
    Held {
        /// Attempts made before.
        #[serde(default)]
        attempts: u32,
        /// Why the attempts failed, oldest first; see [`History`].
        #[serde(default, skip_serializing_if = "History::is_empty")]
        history: History,
    },
    /// The next hop took it.
    Delivered,
    /// Given up, and the sender told where it may be told.
    Failed,
}

impl Default for RecipientState {
    fn default() -> Self {
        Self::Pending { attempts: 0, next: None, history: History::default(), warned: false, apart: false }
    }
}

impl RecipientState {
    fn is_fresh(&self) -> bool {
        *self == Self::default()
    }

    /// Whether delivery is still to be tried.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending { .. })
    }

    /// Whether the recipient's fate is still open: to be tried, or held.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Pending { .. } | Self::Held { .. } => true,
            Self::Delivered | Self::Failed => false,
        }
    }
}

// The signature that serde wants.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The failures of one recipient's attempts, oldest first. The first ones and the latest are kept, and
/// what lies between is dropped, so that five days of attempts do not make a queue entry grow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<Trouble>);

impl History {
    const FIRST: usize = 4;
    const ALL: usize = 24;
    /// Failures kept over all recipients of a message, where each keeps at least its latest.
    const MESSAGE: usize = 480;

    /// Adds the latest failure of one of so many recipients: the more there are, the fewer each keeps,
    /// for one destination's recipients fail alike.
    pub fn push(&mut self, trouble: Trouble, recipients: usize) {
        let room = (Self::MESSAGE / recipients.max(1)).clamp(1, Self::ALL);
        while self.0.len() >= room {
            self.0.remove(Self::FIRST.min(self.0.len() - 1).min(room - 1));
        }
        self.0.push(trouble);
    }

    /// The latest failure.
    #[must_use]
    pub fn last(&self) -> Option<&Trouble> {
        self.0.last()
    }

    /// Every failure that is kept, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Trouble] {
        &self.0
    }

    /// Whether nothing has failed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a message needs of the next hop beyond plain SMTP; known once its content was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContentNeeds {
    /// The content has octets above 127 (RFC 6152).
    #[serde(default)]
    pub eight_bit: bool,
    /// A header field has octets above 127, so the next hop must offer SMTPUTF8 (RFC 6531 §3.4).
    #[serde(default)]
    pub utf8_header: bool,
}

/// Everything about a message but its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who is told when it fails.
    pub reverse_path: ReversePath,
    /// The recipients, in the order they were named; their index in this list is their name
    /// everywhere in Gatepost.
    pub recipients: Vec<Recipient>,
    /// BODY.
    #[serde(default)]
    pub body: BodyType,
    /// Whether SMTPUTF8 was given with MAIL (RFC 6531 §3.4).
    #[serde(default)]
    pub smtputf8: bool,
    /// What the content turned out to need.
    #[serde(default)]
    pub needs: ContentNeeds,
    /// RET, where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Ret>,
    /// ENVID as it was given (xtext), where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// What the message asks of TLS.
    #[serde(default, skip_serializing_if = "TlsRequirement::is_ordinary")]
    pub tls: TlsRequirement,
    /// Its Message-ID, where it has one: for records alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Box<str>>,
    /// Its form, where it is a report of ours to a sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportForm>,
    /// The session that brought it, until that is on record in the evidence; none for what we write ourselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
    /// The kind of client that it came from.
    #[serde(default, skip_serializing_if = "Origin::is_known")]
    pub origin: Origin,
    /// True where the reports that are owed return no content, since TLS was forced on the way of the message.
    #[serde(default, skip_serializing_if = "is_false")]
    pub confidential: bool,
}

impl Envelope {
    /// An envelope with nothing but a sender and recipients.
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
            origin: Origin::Known,
            confidential: false,
        }
    }

    /// Whether anything is left to do: the fate of a recipient is open, or a report to the sender is owed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.recipients.iter().any(|recipient| recipient.state.is_open() || recipient.owed.is_some())
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
    fn either_wish_for_reports_counts() {
        let on = |success, failure, delay| Some(Notify::On { success, failure, delay });
        for (one, other, both) in [
            (None, None, None),
            (Some(Notify::Never), Some(Notify::Never), Some(Notify::Never)),
            (None, Some(Notify::Never), on(false, true, true)),
            (on(true, false, false), None, on(true, true, true)),
            (on(true, false, false), Some(Notify::Never), on(true, false, false)),
            (on(true, false, false), on(false, true, false), on(true, true, false)),
        ] {
            assert_eq!(Notify::either(one, other), both, "{one:?} {other:?}");
            assert_eq!(Notify::either(other, one), both, "{other:?} {one:?}");
        }
    }

    fn refused(second: i64) -> Trouble {
        Trouble {
            at: Timestamp::from_second(second).expect("in range"),
            status: EnhancedStatusCode::parse("4.7.5").expect("valid"),
            text: "refused".into(),
            host: Some("mx.example.net".into()),
            reply: Some(Reply::bare(454, "no")),
        }
    }

    #[test]
    fn a_history_keeps_its_beginning_and_its_end() {
        let mut history = History::default();
        for second in 0..100 {
            history.push(refused(second), 1);
        }
        let seconds = |history: &History| history.all().iter().map(|one| one.at.as_second()).collect::<Vec<_>>();
        assert_eq!(seconds(&history), (0..4).chain(80..100).collect::<Vec<_>>());
        history.push(refused(100), 1000);
        assert_eq!(seconds(&history), [100], "a message with many recipients stays small");
    }

    #[test]
    fn an_envelope_survives_its_stored_form() {
        let mut envelope = Envelope::new(
            ReversePath::parse("a@example.org").expect("valid"),
            vec![Recipient::new(Mailbox::parse("b@example.net").expect("valid"))],
        );
        let mut history = History::default();
        history.push(refused(1), 1);
        envelope.recipients[0].state = RecipientState::Pending {
            attempts: 2,
            next: Some(Timestamp::UNIX_EPOCH),
            history,
            warned: true,
            apart: true,
        };
        let text = serde_json::to_string(&envelope).expect("serialises");
        assert_eq!(serde_json::from_str::<Envelope>(&text).expect(&text), envelope);
    }
}
