//! Handshake errors, with texts for logs and reports.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

/// The most characters that are shown of a name from rustls.
const NAME_SHOWN_MAX: usize = 100;

/// The reason why a handshake failed, from rustls or the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer or a middlebox ended the handshake: by a reset, by closing, by silence, or by an
    /// alert. The peer may accept another `ClientHello`.
    #[error("{0}")]
    CutShort(String),
    /// Any other reason; another `ClientHello` would not help.
    #[error("{0}")]
    Failed(String),
}

impl HandshakeError {
    /// Like [`Self::of`], for a handshake with a client. If both sides have nothing in common,
    /// `offer` may return the reason in the client's offer.
    pub(super) fn of_client(error: &io::Error, offer: impl FnOnce() -> Option<String>) -> Self {
        let is_incompatible = matches!(
            tls_error(error),
            Some(rustls::Error::PeerIncompatible(_) | rustls::Error::InvalidMessage(_))
        );
        match Some(offer)
            .filter(|_| is_incompatible)
            .and_then(|offer| offer())
        {
            Some(reason) => Self::Failed(reason),
            None => Self::of(error),
        }
    }

    /// Converts an error of tokio-rustls, which wraps the errors of rustls and of the network.
    pub(super) fn of(error: &io::Error) -> Self {
        if let Some(tls) = tls_error(error) {
            let text = describe_tls_error(tls);
            return match tls {
                // The alert names the missing version or protocol, and no ClientHello of ours could
                // offer it.
                rustls::Error::AlertReceived(
                    AlertDescription::ProtocolVersion | AlertDescription::NoApplicationProtocol,
                ) => Self::Failed(text),
                rustls::Error::AlertReceived(_) => Self::CutShort(text),
                _ => Self::Failed(text),
            };
        }
        Self::CutShort(match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                "the peer closed the connection during the handshake".to_owned()
            }
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => {
                "the peer reset the connection during the handshake".to_owned()
            }
            _ => format!("the connection broke during the handshake: {error}"),
        })
    }
}

/// Describes the alert by which a peer ended a connection; `None` for any other error.
#[must_use]
pub fn describe_alert(error: &io::Error) -> Option<String> {
    match tls_error(error)? {
        error @ rustls::Error::AlertReceived(_) => Some(describe_tls_error(error)),
        _ => None,
    }
}

/// The error of rustls inside a network error.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

fn describe_tls_error(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        // Only servers send this alert.
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the peer sent the alert certificate_required: it accepts mail only from clients with a certificate; set \
             client_certificate and client_key in [connector.outbound]"
                .to_owned()
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "no TLS version in common: the peer sent the alert protocol_version".to_owned()
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the peer does not speak HTTP/1.1 (ALPN)".to_owned()
        }
        // Only a server sends this alert, so we were the server here.
        Error::NoApplicationProtocol => {
            "the client offers other protocols than SMTP (ALPN), as a browser does".to_owned()
        }
        Error::AlertReceived(alert) => format!("the peer sent the alert {}", alert_name(*alert)),
        Error::PeerIncompatible(why) => describe_incompatibility(why),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::InvalidEmptyPayload,
        ) => "the peer did not speak TLS".to_owned(),
        Error::InvalidMessage(why) => format!("the peer sent a malformed TLS message ({})", spaced_name(why)),
        Error::InappropriateMessage { got_type, .. } => describe_unexpected(got_type),
        Error::InappropriateHandshakeMessage { got_type, .. } => describe_unexpected(got_type),
        Error::PeerMisbehaved(why) => format!("the peer breaks the TLS protocol ({})", spaced_name(why)),
        Error::InvalidCertificate(CertificateError::BadEncoding) => "the peer's certificate is malformed".to_owned(),
        Error::InvalidCertificate(_) => "the peer does not prove that it holds its certificate's key".to_owned(),
        Error::NoCertificatesPresented => "the peer showed no certificate".to_owned(),
        Error::DecryptError => "the peer's message cannot be decrypted".to_owned(),
        Error::PeerSentOversizedRecord => "the peer sent an oversized TLS record".to_owned(),
        // The text is already readable.
        Error::General(text) => text.clone(),
        other => other.to_string(),
    }
}

fn describe_incompatibility(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => "no TLS version in common".to_owned(),
        PeerIncompatible::NoCipherSuitesInCommon => "no cipher suite in common".to_owned(),
        PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::KeyShareExtensionRequired => {
            "no key exchange group in common".to_owned()
        }
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "no signature scheme in common".to_owned()
        }
        other => format!("nothing in common with the peer ({})", spaced_name(other)),
    }
}

fn describe_unexpected(message: &impl fmt::Debug) -> String {
    format!(
        "the peer sent \"{}\" at the wrong time",
        spaced_name(message)
    )
}

/// Splits a name of rustls into words: `HandshakePayloadTooLarge` becomes "handshake payload too
/// large".
fn spaced_name(name: &impl fmt::Debug) -> String {
    let mut words = String::new();
    for letter in format!("{name:?}").chars().take(NAME_SHOWN_MAX) {
        match letter {
            'A'..='Z'
                if words.ends_with(|before: char| {
                    before.is_ascii_lowercase() || before.is_ascii_digit()
                }) =>
            {
                words.push(' ');
                words.push(letter.to_ascii_lowercase());
            }
            '(' => words.push_str(": "),
            ')' | '"' => {}
            _ => words.push(letter.to_ascii_lowercase()),
        }
    }
    words
}

/// The alert's name in RFC 8446 §6.
fn alert_name(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnrecognisedName => return "unrecognized_name".to_owned(),
        AlertDescription::UnknownPSKIdentity => return "unknown_psk_identity".to_owned(),
        AlertDescription::Unknown(number) => return format!("number {number}"),
        _ => {}
    }
    let mut name = String::new();
    let mut after_lower = false;
    for letter in format!("{alert:?}").chars() {
        if letter.is_ascii_uppercase() && after_lower {
            name.push('_');
        }
        after_lower = letter.is_ascii_lowercase();
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use rustls::{ContentType, Error, PeerMisbehaved};

    use super::*;

    #[test]
    fn errors_of_rustls_become_readable() {
        for (error, words) in [
            (
                Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge),
                "the peer sent a malformed TLS message (handshake payload too large)",
            ),
            (
                Error::InvalidMessage(InvalidMessage::MissingData("ServerKeyShare")),
                "the peer sent a malformed TLS message (missing data: server key share)",
            ),
            (
                Error::InvalidMessage(InvalidMessage::TrailingData("ClientExtensions")),
                "the peer sent a malformed TLS message (trailing data: client extensions)",
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedKxGroup),
                "the peer breaks the TLS protocol (selected unoffered kx group)",
            ),
            (
                Error::InappropriateMessage {
                    expect_types: vec![ContentType::Handshake],
                    got_type: ContentType::ApplicationData,
                },
                "the peer sent \"application data\" at the wrong time",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::ExtendedMasterSecretExtensionRequired),
                "nothing in common with the peer (extended master secret extension required)",
            ),
        ] {
            assert_eq!(describe_tls_error(&error), words);
        }
    }

    #[test]
    fn alerts_have_the_names_of_the_standard() {
        for (alert, name) in [
            (AlertDescription::HandshakeFailure, "handshake_failure"),
            (AlertDescription::UnknownCA, "unknown_ca"),
            (AlertDescription::BadRecordMac, "bad_record_mac"),
            (AlertDescription::UnknownPSKIdentity, "unknown_psk_identity"),
            (AlertDescription::UnrecognisedName, "unrecognized_name"),
            (AlertDescription::Unknown(200), "number 200"),
        ] {
            assert_eq!(alert_name(alert), name);
        }
    }
}
