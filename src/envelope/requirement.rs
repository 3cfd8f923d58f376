//! What a message itself asks of TLS on its way (RFC 8689): the sender's word, not ours.
//!
//! Where it is read: [`crate::smtp::server`] takes REQUIRETLS, [`crate::smtp::data`] finds the header
//! field. What it means for a hop is decided on the way out.

use serde::{Deserialize, Serialize};

/// What a message asks of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsRequirement {
    /// Nothing: what connectors and domains say holds, as for most mail.
    #[default]
    Ordinary,
    /// `MAIL FROM … REQUIRETLS`: only over TLS to an authenticated server that promises the same
    /// (RFC 8689 §4.2.1).
    Require,
    /// `TLS-Required: No` in its header: what domains publish is set aside (RFC 8689 §4.2.2). What a
    /// connector demands is not: that is the administrator's word.
    Relaxed,
}

impl TlsRequirement {
    /// Whether it asks for nothing, as all mail that was stored before it could be asked.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        *self == Self::Ordinary
    }
}

#[cfg(test)]
mod tests {
    use super::TlsRequirement::{Ordinary, Relaxed, Require};
    use crate::envelope::Envelope;

    /// An envelope as it was stored before there was a requirement.
    const OLD: &str = r#"{"reverse_path":"a@example.org","recipients":[{"mailbox":"b@example.net"}],"body":"7BIT","smtputf8":false,"needs":{"eight_bit":false,"utf8_header":false}}"#;

    #[test]
    fn an_envelope_that_was_stored_before_asks_for_nothing() {
        let old: Envelope = serde_json::from_str(OLD).expect("it loads");
        assert_eq!(old.tls, Ordinary);
        assert_eq!(serde_json::to_string(&old).expect("serialises"), OLD, "and is stored as it was");
    }

    #[test]
    fn what_is_asked_survives_the_stored_form() {
        let mut envelope: Envelope = serde_json::from_str(OLD).expect("it loads");
        for (tls, stored) in [(Require, r#""tls":"require""#), (Relaxed, r#""tls":"relaxed""#)] {
            envelope.tls = tls;
            let text = serde_json::to_string(&envelope).expect("serialises");
            assert!(text.contains(stored), "{text}");
            assert_eq!(serde_json::from_str::<Envelope>(&text).expect(&text), envelope);
        }
    }
}
