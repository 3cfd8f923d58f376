//! The kind of client that sent a message. The handling of reports about it depends on that.

use serde::{Deserialize, Serialize};

/// The kind of client that sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientOrigin {
    /// A client that may relay, or the relay itself. Also the value for messages that an earlier
    /// version stored.
    #[default]
    Known,
    /// A client that may send only to our own domains. Its sender address is unverified.
    Stranger,
}

impl ClientOrigin {
    /// Returns whether this is [`ClientOrigin::Known`], which is not serialized.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self == Self::Known
    }
}

#[cfg(test)]
mod tests {
    use super::ClientOrigin;
    use crate::smtp::envelope::{Envelope, RecipientState};

    /// An envelope without an origin, with a pending report, as an earlier version stored it.
    const OLD: &str = r#"{"reverse_path":"a@example.org","recipients":[{"mailbox":"b@example.net","state":"delivered","owed":{"at":"1970-01-01T00:00:00Z","status":"2.0.0","text":"taken"}},{"mailbox":"c@example.net","state":{"held":{"attempts":1}}}],"body":"7BIT","smtputf8":false,"needs":{"eight_bit":false,"utf8_header":false}}"#;

    #[test]
    fn an_envelope_of_an_earlier_version_is_read_and_written_unchanged() {
        let old: Envelope = serde_json::from_str(OLD).expect("it loads");
        assert_eq!((old.origin, old.confidential), (ClientOrigin::Known, false));
        assert!(old.recipients[0].owed.is_some() && old.is_open());
        assert!(matches!(
            old.recipients[1].state,
            RecipientState::Held { attempts: 1, .. }
        ));
        assert_eq!(serde_json::to_string(&old).expect("serialises"), OLD);
    }

    #[test]
    fn origin_and_confidentiality_survive_the_stored_form() {
        let mut envelope: Envelope = serde_json::from_str(OLD).expect("it loads");
        (envelope.origin, envelope.confidential) = (ClientOrigin::Stranger, true);
        let text = serde_json::to_string(&envelope).expect("serialises");
        assert!(
            text.contains(r#""origin":"stranger","confidential":true"#),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<Envelope>(&text).expect(&text),
            envelope
        );
    }
}
