//! The reasons for which handshakes fail, in words for people.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

/// Characters of a name of rustls' that are shown, at most.
const NAME_SHOWN: usize = 100;

/// The reason for which a handshake did not complete, in words for people, from rustls or the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer, or something on the way to it, ended it: a reset, an end, silence, or an alert. The peer may
    /// accept another `ClientHello`.
    #[error("{0}")]
    CutShort(String),
    /// Anything else: another `ClientHello` would change nothing.
    #[error("{0}")]
    Failed(String),
}

impl HandshakeError {
    /// As [`Self::of`], of a handshake with a client: where the two have nothing in common, `offer` gives the reason in
    /// the client's offer, if there is one.
    pub(super) fn of_client(error: &io::Error, offer: impl FnOnce() -> Option<String>) -> Self {
        let is_incompatible =
            matches!(tls(error), Some(rustls::Error::PeerIncompatible(_) | rustls::Error::InvalidMessage(_)));
        match Some(offer).filter(|_| is_incompatible).and_then(|offer| offer()) {
            Some(reason) => Self::Failed(reason),
            None => Self::of(error),
        }
    }

    /// Converts an error of tokio-rustls, which wraps those of rustls in those of the network.
    pub(super) fn of(error: &io::Error) -> Self {
        if let Some(tls) = tls(error) {
            let text = of_tls(tls);
            return match tls {
                // These two say what is missing, and it is not for a ClientHello of ours to offer it.
                rustls::Error::AlertReceived(
                    AlertDescription::ProtocolVersion | AlertDescription::NoApplicationProtocol,
                ) => Self::Failed(text),
                rustls::Error::AlertReceived(_) => Self::CutShort(text),
                _ => Self::Failed(text),
            };
        }
        Self::CutShort(match error.kind() {
            io::ErrorKind::UnexpectedEof => "the peer closed the connection during the handshake".to_owned(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                "the peer reset the connection during the handshake".to_owned()
            }
            _ => format!("the connection broke during the handshake: {error}"),
        })
    }
}

/// The alert by which a peer ended a connection, in words; nothing for any other error.
#[must_use]
pub fn alert(error: &io::Error) -> Option<String> {
    match tls(error)? {
        error @ rustls::Error::AlertReceived(_) => Some(of_tls(error)),
        _ => None,
    }
}

/// The error of rustls inside one of the network's.
fn tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

fn of_tls(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        // Only a server sends it.
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the peer sent the alert certificate_required: it takes mail only from those who show a certificate; set \
             client_certificate and client_key in [connector.outbound]"
                .to_owned()
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "no TLS version in common: the peer sent the alert protocol_version".to_owned()
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the peer does not speak HTTP/1.1 (ALPN)".to_owned()
        }
        // We send it as a server alone.
        Error::NoApplicationProtocol => {
            "the client offers other protocols than SMTP (ALPN), as a browser does".to_owned()
        }
        Error::AlertReceived(alert) => format!("the peer sent the alert {}", alert_name(*alert)),
        Error::PeerIncompatible(why) => of_incompatible(why),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::InvalidEmptyPayload,
        ) => "the peer did not speak TLS".to_owned(),
        Error::InvalidMessage(why) => format!("the peer sent a malformed TLS message ({})", in_words(why)),
        Error::InappropriateMessage { got_type, .. } => out_of_turn(got_type),
        Error::InappropriateHandshakeMessage { got_type, .. } => out_of_turn(got_type),
        Error::PeerMisbehaved(why) => format!("the peer breaks the TLS protocol ({})", in_words(why)),
        Error::InvalidCertificate(CertificateError::BadEncoding) => "the peer's certificate is malformed".to_owned(),
        Error::InvalidCertificate(_) => "the peer does not prove that it holds its certificate's key".to_owned(),
        Error::NoCertificatesPresented => "the peer showed no certificate".to_owned(),
        Error::DecryptError => "the peer's message cannot be decrypted".to_owned(),
        Error::PeerSentOversizedRecord => "the peer sent an oversized TLS record".to_owned(),
        // Words for people already.
        Error::General(text) => text.clone(),
        other => other.to_string(),
    }
}

fn of_incompatible(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => "no TLS version in common".to_owned(),
        PeerIncompatible::NoCipherSuitesInCommon => "no cipher suite in common".to_owned(),
        PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::KeyShareExtensionRequired => "no key exchange group in common".to_owned(),
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => "no signature scheme in common".to_owned(),
        other => format!("nothing in common with the peer ({})", in_words(other)),
    }
}

fn out_of_turn(message: &impl fmt::Debug) -> String {
    format!("the peer sent \"{}\" out of turn", in_words(message))
}

/// The name that rustls has for something, as words: `HandshakePayloadTooLarge` is "handshake payload too large".
fn in_words(name: &impl fmt::Debug) -> String {
    let mut words = String::new();
    for letter in format!("{name:?}").chars().take(NAME_SHOWN) {
        match letter {
            'A'..='Z' if words.ends_with(|before: char| before.is_ascii_lowercase() || before.is_ascii_digit()) => {
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

/// The alert's name in the words of RFC 8446 §6.
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
    fn what_rustls_says_is_put_in_words() {
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
                "the peer sent \"application data\" out of turn",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::ExtendedMasterSecretExtensionRequired),
                "nothing in common with the peer (extended master secret extension required)",
            ),
        ] {
            assert_eq!(of_tls(&error), words);
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
