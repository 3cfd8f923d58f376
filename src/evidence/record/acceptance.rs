//! The record of a message that came in.

use serde::{Deserialize, Serialize};

use super::{Policy, Session, Standing, cut};
use crate::envelope::{Arrival, Envelope, QueueId};
use crate::tls::{Clearance, TlsPolicy};

/// Recipients that are written out, at most: a line has a limit.
const RECIPIENTS_MAX: usize = 100;

/// A message that a listener accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// The message's name in the queue.
    pub queue_id: String,
    /// Its Message-ID, where it has one.
    pub message_id: Option<String>,
    /// The reverse-path; empty for none.
    pub from: String,
    /// The sender's domain; empty for none.
    pub domain: String,
    /// The recipients, the first hundred of them.
    pub to: Vec<String>,
    /// The number of further recipients.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_to: usize,
    /// Octets of its content.
    pub size: u64,
    /// The session that brought it.
    #[serde(flatten)]
    pub by: InboundSession,
}

/// The session that brought a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundSession {
    /// The listener.
    pub listener: String,
    /// The client's address and port; none where the load balancer or proxy before it does not know it.
    pub client: Option<String>,
    /// The client's name in DNS, as a proxy says (XCLIENT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// The proxy that brought the client (XCLIENT), or the load balancer that did not know it. The TLS is that of the
    /// proxy's connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// The name in its EHLO or HELO.
    pub hello: Option<String>,
    /// The connector that speaks for the sender.
    pub connector: String,
    /// SHA-256 of the configuration file, in hexadecimal digits.
    pub configuration: String,
    /// The connector's demand.
    pub policy: Policy,
    /// What the session reached.
    pub session: Session,
    /// The result of comparing that with the demand.
    pub standing: Standing,
}

/// The names and addresses of an inbound session.
#[derive(Debug, Clone, Copy)]
pub struct InboundParties<'a> {
    /// The listener.
    pub listener: &'a str,
    /// The address at the other end, or the one that a balancer named.
    pub peer: std::net::SocketAddr,
    /// True where that is the client's; false where a balancer or proxy does not know it.
    pub is_client: bool,
    /// The client's name in DNS, as a proxy says.
    pub name: Option<&'a str>,
    /// The proxy.
    pub proxy: Option<std::net::SocketAddr>,
    /// The name in its EHLO or HELO.
    pub hello: Option<&'a str>,
    /// The connector that speaks for the sender.
    pub connector: &'a str,
    /// SHA-256 of the configuration file.
    pub configuration: &'a str,
}

impl InboundSession {
    /// A cleared session in words.
    #[must_use]
    pub fn of(parties: &InboundParties<'_>, policy: &TlsPolicy, clearance: &Clearance) -> Self {
        // A proxy need not tell the port.
        let written = |address: std::net::SocketAddr| match (address.ip().to_canonical(), address.port()) {
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
            policy: Policy::of(policy),
            session: Session::of(clearance.session()),
            standing: Standing::of(Some(policy), clearance),
        }
    }

    /// The form in which it travels with its message.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        // Our own words always have a form in JSON.
        Arrival::new(serde_json::to_string(self).unwrap_or_default())
    }
}

impl Acceptance {
    /// The record that a message still owes; `None` where it is written, and for what we write ourselves.
    #[must_use]
    pub fn owed(id: QueueId, size: u64, envelope: &Envelope) -> Option<Self> {
        let arrival = envelope.arrival.as_ref()?;
        let by = match serde_json::from_str(arrival.json()) {
            Ok(by) => by,
            Err(error) => {
                tracing::error!(queue_id = %id, %error, "the session that brought a message cannot be read; it is not put on record");
                return None;
            }
        };
        let sender = envelope.reverse_path.mailbox();
        let recipients = &envelope.recipients;
        Some(Self {
            queue_id: id.to_string(),
            message_id: envelope.message_id.as_deref().map(str::to_owned),
            from: sender.map(ToString::to_string).unwrap_or_default(),
            domain: sender.map(|sender| sender.host().to_string()).unwrap_or_default(),
            to: recipients.iter().take(RECIPIENTS_MAX).map(|recipient| recipient.mailbox.to_string()).collect(),
            more_to: recipients.len().saturating_sub(RECIPIENTS_MAX),
            size,
            by,
        })
    }
}

// The signature that serde wants.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Mailbox, ReversePath};
    use crate::envelope::Recipient;
    use crate::tls::{NoTls, TlsOutcome, Verdict, judge};

    fn session() -> InboundSession {
        let policy = TlsPolicy::Opportunistic;
        let Verdict::Cleared(clearance) = judge(&policy, TlsOutcome::Clear(NoTls::NotUsed), &[]) else {
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
        let record = Acceptance::owed(id, 7, &envelope).expect("it is owed");
        assert_eq!((record.to.len(), record.more_to, record.domain.as_str()), (100, 150, ""));
        assert_eq!((record.by.client.as_deref(), record.by.via.clone()), (Some("192.0.2.1:4711"), None));
        assert_eq!(record.by, session(), "it travels whole");
        envelope.arrival = None;
        assert_eq!(Acceptance::owed(id, 7, &envelope), None);
    }
}
