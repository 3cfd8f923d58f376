//! The TLS that a message itself requires (RFC 8689), by decision of its sender.
//!
//! [`crate::smtp::server`] reads REQUIRETLS, and [`crate::smtp::data`] the header field. The
//! outbound side decides what it means for a hop.

use serde::{Deserialize, Serialize};

/// The TLS that a message requires.
// Rule: RFC 8689 §4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsRequirement {
    /// No requirement: connectors and published policies apply, as for most mail.
    #[default]
    Ordinary,
    /// `MAIL FROM … REQUIRETLS`: deliver only over TLS to an authenticated server that offers
    /// REQUIRETLS as well (RFC 8689 §4.2.1).
    Require,
    /// The header field `TLS-Required: No`: published policies are ignored (RFC 8689 §4.2.2), but
    /// not the demands of connectors.
    Relaxed,
}

impl TlsRequirement {
    /// Returns whether there is no requirement, as in all messages that earlier versions stored.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        *self == Self::Ordinary
    }
}

#[cfg(test)]
mod tests {
    use super::TlsRequirement::{Ordinary, Relaxed, Require};
    use crate::smtp::envelope::Envelope;

    /// An envelope without a requirement, as an earlier version stored it.
    const OLD: &str = r#"{"reverse_path":"a@example.org","recipients":[{"mailbox":"b@example.net"}],"body":"7BIT","smtputf8":false,"needs":{"eight_bit":false,"utf8_header":false}}"#;

    #[test]
    fn an_envelope_of_an_earlier_version_has_no_requirement() {
        let old: Envelope = serde_json::from_str(OLD).expect("it loads");
        assert_eq!(old.tls, Ordinary);
        assert_eq!(
            serde_json::to_string(&old).expect("serialises"),
            OLD,
            "and is stored as it was"
        );
    }

    #[test]
    fn a_requirement_survives_the_stored_form() {
        let mut envelope: Envelope = serde_json::from_str(OLD).expect("it loads");
        for (tls, stored) in [
            (Require, r#""tls":"require""#),
            (Relaxed, r#""tls":"relaxed""#),
        ] {
            envelope.tls = tls;
            let text = serde_json::to_string(&envelope).expect("serialises");
            assert!(text.contains(stored), "{text}");
            assert_eq!(
                serde_json::from_str::<Envelope>(&text).expect(&text),
                envelope
            );
        }
    }
}
