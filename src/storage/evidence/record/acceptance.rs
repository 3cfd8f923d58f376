//! The record of an accepted message.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::{DemandOutcome, PolicyRecord, RecordText, SessionRecord, cut};
use crate::policy::tls::{Clearance, TlsPolicy};
use crate::smtp::address::{Host, Mailbox};
use crate::smtp::envelope::{Arrival, Envelope, QueueId, Reception, Recipient};

/// The most recipients that are recorded: a line has a limit.
const RECIPIENTS_MAX: usize = 100;

/// A message that a listener accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptanceRecord {
    /// The queue id of the message.
    pub queue_id: String,
    /// The Message-ID, if the message has one.
    pub message_id: Option<String>,
    /// The sender (reverse-path); empty for the null sender.
    pub from: String,
    /// The domain of the sender; empty for the null sender.
    pub domain: String,
    /// The first hundred recipients.
    pub to: Vec<String>,
    /// The number of further recipients.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_to: usize,
    /// The size of the content in octets.
    pub size: u64,
    /// The session in which the message was received.
    #[serde(flatten)]
    pub by: InboundSession,
}

/// The session in which a message was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundSession {
    /// The name of the listener.
    pub listener: String,
    /// The client's address and port; `None` if the load balancer or proxy in front does not know
    /// them.
    pub client: Option<String>,
    /// The client's name in DNS, as a proxy reported it (XCLIENT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// The proxy that reported the client (XCLIENT), or the load balancer that did not know the
    /// client. The TLS is that of the proxy's connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// The name in the client's EHLO or HELO.
    pub hello: Option<String>,
    /// The user as which the client has logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The name of the protocol, as in the Received field (RFC 3848), such as `ESMTPSA`. Records of
    /// earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The connector of the sender.
    pub connector: String,
    /// The SHA-256 of the configuration file, in hexadecimal digits.
    pub configuration: String,
    /// The connector's demand.
    pub policy: PolicyRecord,
    /// The TLS of the session.
    pub session: SessionRecord,
    /// The comparison of the session with the demand.
    pub standing: DemandOutcome,
}

/// The names and addresses of an inbound session.
#[derive(Debug, Clone, Copy)]
pub struct InboundParties<'a> {
    /// The name of the listener.
    pub listener: &'a str,
    /// The address of the other end of the connection, or the one that a load balancer reported.
    pub peer: std::net::SocketAddr,
    /// True if `peer` is the client; false if a load balancer or proxy does not know the client.
    pub is_client: bool,
    /// The client's name in DNS, as a proxy reported it.
    pub name: Option<&'a str>,
    /// The address of the proxy.
    pub proxy: Option<std::net::SocketAddr>,
    /// The name in the client's EHLO or HELO.
    pub hello: Option<&'a str>,
    /// The user as which the client has logged in.
    pub user: Option<&'a str>,
    /// The name of the protocol (RFC 3848).
    pub protocol: &'static str,
    /// The connector of the sender.
    pub connector: &'a str,
    /// The SHA-256 of the configuration file.
    pub configuration: &'a str,
}

impl InboundSession {
    /// Describes a cleared session.
    #[must_use]
    pub fn of(parties: &InboundParties<'_>, policy: &TlsPolicy, clearance: &Clearance) -> Self {
        // A proxy need not report the port.
        let written =
            |address: std::net::SocketAddr| match (address.ip().to_canonical(), address.port()) {
                (address, 0) => address.to_string(),
                (address, port) => std::net::SocketAddr::new(address, port).to_string(),
            };
        let client = parties.is_client.then(|| written(parties.peer));
        let unknown = (!parties.is_client).then_some(parties.peer);
        Self {
            listener: parties.listener.to_owned(),
            client,
            client_name: parties.name.map(str::to_owned),
            via: parties.proxy.or(unknown).map(written),
            hello: parties.hello.map(cut),
            user: parties.user.map(cut),
            protocol: Some(parties.protocol.to_owned()),
            connector: parties.connector.to_owned(),
            configuration: parties.configuration.to_owned(),
            policy: PolicyRecord::of(policy),
            session: SessionRecord::of(clearance.session()),
            standing: DemandOutcome::of(Some(policy), clearance),
        }
    }

    /// Returns the session in the form in which it is stored with its message.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        // Serializing cannot fail: the session has only strings as keys.
        Arrival::new(serde_json::to_string(self).unwrap_or_default())
    }

    /// Returns the session in short.
    #[must_use]
    pub fn into_reception(self) -> Reception {
        Reception {
            protocol: self.protocol,
            client: self.client,
            client_name: self.client_name,
            via: self.via,
            hello: self.hello,
            user: self.user,
            listener: self.listener,
        }
    }
}

/// The fields of an acceptance before those of its session.
#[derive(Serialize)]
struct AcceptedEnvelope<'a> {
    kind: &'static str,
    queue_id: QueueId,
    message_id: Option<&'a str>,
    from: Displayed<Option<&'a Mailbox>>,
    domain: Displayed<Option<&'a Host>>,
    to: RecordedRecipients<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    more_to: usize,
    size: u64,
}

impl<'a> AcceptedEnvelope<'a> {
    fn of(id: QueueId, size: u64, envelope: &'a Envelope) -> Self {
        let sender = envelope.reverse_path.mailbox();
        Self {
            kind: "accepted",
            queue_id: id,
            message_id: envelope.message_id.as_deref(),
            from: Displayed(sender),
            domain: Displayed(sender.map(Mailbox::host)),
            to: RecordedRecipients(&envelope.recipients),
            more_to: envelope.recipients.len().saturating_sub(RECIPIENTS_MAX),
            size,
        }
    }
}

/// A value that is written as it is displayed; empty if there is none.
struct Displayed<T>(T);

impl<T: std::fmt::Display> Serialize for Displayed<Option<&T>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }
}

/// The first hundred recipients.
struct RecordedRecipients<'a>(&'a [Recipient]);

impl Serialize for RecordedRecipients<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let recorded = self.0.iter().take(RECIPIENTS_MAX);
        serializer.collect_seq(recorded.map(|recipient| Displayed(Some(&recipient.mailbox))))
    }
}

impl AcceptanceRecord {
    /// Returns the record of a message that was accepted at `at`, if it is not written yet; `None`
    /// if it is written, and for messages of our own.
    #[must_use]
    pub fn pending(
        id: QueueId,
        size: u64,
        envelope: &Envelope,
        at: Timestamp,
    ) -> Option<RecordText> {
        let arrival = envelope.arrival.as_ref()?;
        if !arrival.is_new() {
            // A stored session may have the form of another version.
            if let Err(error) = serde_json::from_str::<InboundSession>(arrival.json()) {
                tracing::error!(queue_id = %id, %error, "cannot read the stored session of a message; its acceptance is not recorded");
                return None;
            }
        }
        let session = arrival.json().trim();
        let session = session.strip_prefix('{')?.strip_suffix('}')?;
        let mut fields = RecordText::begin(at);
        RecordText::append(&mut fields, &AcceptedEnvelope::of(id, size, envelope));
        fields.push(',');
        fields.push_str(session);
        Some(RecordText {
            fields,
            is_delivery: false,
        })
    }
}

// The signature is given by serde.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tls::{NoTls, TlsOutcome, Verdict, judge};
    use crate::smtp::address::ReversePath;
    use crate::smtp::envelope::RecipientState;
    use crate::storage::evidence::EvidenceRecord;

    fn session() -> InboundSession {
        let policy = TlsPolicy::Opportunistic;
        let Verdict::Cleared(clearance) = judge(&policy, TlsOutcome::Clear(NoTls::NotUsed), &[])
        else {
            panic!("nothing is demanded")
        };
        let parties = InboundParties {
            listener: "mx",
            peer: "[::ffff:192.0.2.1]:4711".parse().expect("an address"),
            is_client: true,
            name: None,
            proxy: None,
            hello: Some("client.example"),
            user: Some("scanner"),
            protocol: "ESMTPSA",
            connector: "internet",
            configuration: "00",
        };
        InboundSession::of(&parties, &policy, &clearance)
    }

    /// Returns the record that is written for an envelope.
    fn written(envelope: &Envelope) -> AcceptanceRecord {
        let id = QueueId::from_number(5).expect("small");
        let text = AcceptanceRecord::pending(id, 7, envelope, Timestamp::UNIX_EPOCH);
        let line = format!("{{{}}}", text.expect("it is owed").fields);
        match serde_json::from_str(&line).expect("a record") {
            EvidenceRecord::Accepted(record) => {
                let again = EvidenceRecord::Accepted(record.clone());
                let again = again.to_text(Timestamp::UNIX_EPOCH);
                assert_eq!(line, format!("{{{}}}", again.fields), "as it is read");
                *record
            }
            other => panic!("{other:?}"),
        }
    }

    fn envelope(recipients: usize) -> Envelope {
        let to = |at| Recipient::new(Mailbox::parse(&format!("r{at}@b.example")).expect("valid"));
        let mut envelope = Envelope::new(ReversePath::Null, (0..recipients).map(to).collect());
        envelope.arrival = Some(session().arrival());
        envelope
    }

    #[test]
    fn a_long_list_of_recipients_is_cut_and_counted() {
        let mut envelope = envelope(250);
        let record = written(&envelope);
        assert_eq!(
            (record.to.len(), record.more_to, record.domain.as_str()),
            (100, 150, "")
        );
        assert_eq!(
            (record.by.client.as_deref(), record.by.via.clone()),
            (Some("192.0.2.1:4711"), None)
        );
        assert_eq!(record.by, session(), "as a unit");
        envelope.arrival = None;
        let id = QueueId::from_number(5).expect("small");
        let none = AcceptanceRecord::pending(id, 7, &envelope, Timestamp::UNIX_EPOCH);
        assert_eq!(none, None);
    }

    /// The record of a message from the disk is that of one in memory.
    #[test]
    fn a_stored_session_is_recorded_as_it_was_made() {
        let mut fresh = envelope(1);
        fresh.reverse_path = ReversePath::parse("\"a b\"@c.example").expect("a path");
        fresh.message_id = Some("<\"1\"@c.example>".into());
        let json = serde_json::to_string(&fresh).expect("JSON");
        let stored: Envelope = serde_json::from_str(&json).expect("readable");
        let is_new = |envelope: &Envelope| envelope.arrival.as_ref().map(Arrival::is_new);
        assert_eq!((is_new(&fresh), is_new(&stored)), (Some(true), Some(false)));
        assert_eq!(written(&fresh), written(&stored));
        assert_eq!(written(&stored).from, "\"a b\"@c.example");
    }

    /// The session in short is the same from the JSON that is stored.
    #[test]
    fn a_stored_session_is_shown_as_it_was_made() {
        let short = session().into_reception();
        assert_eq!(session().arrival().reception(), Some(short.clone()));
        assert_eq!(
            (short.protocol.as_deref(), short.client.as_deref()),
            (Some("ESMTPSA"), Some("192.0.2.1:4711"))
        );
        let mut envelope = envelope(1);
        assert_eq!(envelope.reception(), Some(short.clone()));
        envelope.forget_arrival();
        assert_eq!(
            (&envelope.arrival, envelope.reception()),
            (&None, Some(short))
        );
    }

    /// A message that has ended needs no session.
    #[test]
    fn a_message_that_has_ended_keeps_no_session() {
        let mut envelope = envelope(1);
        envelope.recipients[0].state = RecipientState::Delivered;
        envelope.forget_arrival();
        assert_eq!((envelope.arrival, envelope.received), (None, None));
    }

    /// A session that cannot be read is not recorded: the line would be no record.
    #[test]
    fn an_unreadable_session_is_not_recorded() {
        let json = serde_json::to_string(&envelope(1)).expect("JSON");
        let json = json.replace("listener", "hearer");
        let stored: Envelope = serde_json::from_str(&json).expect("readable");
        let id = QueueId::from_number(5).expect("small");
        let text = AcceptanceRecord::pending(id, 7, &stored, Timestamp::UNIX_EPOCH);
        assert_eq!(text, None);
    }
}
