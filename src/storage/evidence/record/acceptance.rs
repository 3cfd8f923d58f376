//! The record of an accepted message.

use serde::{Deserialize, Serialize};

use super::{DemandOutcome, PolicyRecord, SessionRecord, cut};
use crate::policy::tls::{Clearance, TlsPolicy};
use crate::smtp::envelope::{Arrival, Envelope, QueueId};

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
}

impl AcceptanceRecord {
    /// Returns the record of a message that is not written yet; `None` if it is written, and for
    /// messages of our own.
    #[must_use]
    pub fn pending(id: QueueId, size: u64, envelope: &Envelope) -> Option<Self> {
        let arrival = envelope.arrival.as_ref()?;
        let by = match serde_json::from_str(arrival.json()) {
            Ok(by) => by,
            Err(error) => {
                tracing::error!(queue_id = %id, %error, "cannot read the stored session of a message; its acceptance is not recorded");
                return None;
            }
        };
        let sender = envelope.reverse_path.mailbox();
        let recipients = &envelope.recipients;
        Some(Self {
            queue_id: id.to_string(),
            message_id: envelope.message_id.as_deref().map(str::to_owned),
            from: sender.map(ToString::to_string).unwrap_or_default(),
            domain: sender
                .map(|sender| sender.host().to_string())
                .unwrap_or_default(),
            to: recipients
                .iter()
                .take(RECIPIENTS_MAX)
                .map(|recipient| recipient.mailbox.to_string())
                .collect(),
            more_to: recipients.len().saturating_sub(RECIPIENTS_MAX),
            size,
            by,
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
    use crate::smtp::address::{Mailbox, ReversePath};
    use crate::smtp::envelope::Recipient;

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
            connector: "internet",
            configuration: "00",
        };
        InboundSession::of(&parties, &policy, &clearance)
    }

    #[test]
    fn a_long_list_of_recipients_is_cut_and_counted() {
        let to = |at| Recipient::new(Mailbox::parse(&format!("r{at}@b.example")).expect("valid"));
        let mut envelope = Envelope::new(ReversePath::Null, (0..250).map(to).collect());
        envelope.arrival = Some(session().arrival());
        let id = QueueId::from_number(5).expect("small");
        let record = AcceptanceRecord::pending(id, 7, &envelope).expect("it is owed");
        assert_eq!(
            (record.to.len(), record.more_to, record.domain.as_str()),
            (100, 150, "")
        );
        assert_eq!(
            (record.by.client.as_deref(), record.by.via.clone()),
            (Some("192.0.2.1:4711"), None)
        );
        assert_eq!(record.by, session(), "it travels whole");
        envelope.arrival = None;
        assert_eq!(AcceptanceRecord::pending(id, 7, &envelope), None);
    }
}
