//! The kind of client that a message came from, as far as reports about it depend on that.

use serde::{Deserialize, Serialize};

/// The kind of client that a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A client that may relay, or ourselves. Mail that was stored before this was recorded counts as such.
    #[default]
    Known,
    /// A client that may write to our own domains alone: the sender that it names is anybody's claim.
    Stranger,
}

impl Origin {
    /// Checks for [`Origin::Known`], which is stored as nothing.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self == Self::Known
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;
    use crate::envelope::{Envelope, RecipientState};

    /// An envelope as it was stored before the origin was recorded, with a report that is owed.
    const OLD: &str = r#"{"reverse_path":"a@example.org","recipients":[{"mailbox":"b@example.net","state":"delivered","owed":{"at":"1970-01-01T00:00:00Z","status":"2.0.0","text":"taken"}},{"mailbox":"c@example.net","state":{"held":{"attempts":1}}}],"body":"7BIT","smtputf8":false,"needs":{"eight_bit":false,"utf8_header":false}}"#;

    #[test]
    fn an_envelope_that_was_stored_before_is_read_and_stays_as_it_was() {
        let old: Envelope = serde_json::from_str(OLD).expect("it loads");
        assert_eq!((old.origin, old.confidential), (Origin::Known, false));
        assert!(old.recipients[0].owed.is_some() && old.is_open());
        assert!(matches!(old.recipients[1].state, RecipientState::Held { attempts: 1, .. }));
        assert_eq!(serde_json::to_string(&old).expect("serialises"), OLD);
    }

    #[test]
    fn origin_and_confidentiality_survive_the_stored_form() {
        let mut envelope: Envelope = serde_json::from_str(OLD).expect("it loads");
        (envelope.origin, envelope.confidential) = (Origin::Stranger, true);
        let text = serde_json::to_string(&envelope).expect("serialises");
        assert!(text.contains(r#""origin":"stranger","confidential":true"#), "{text}");
        assert_eq!(serde_json::from_str::<Envelope>(&text).expect(&text), envelope);
    }
}
