//! The content of a record: words and numbers that an auditor can read years later without
//! Gatepost.
//!
//! A record contains neither content nor secrets: of a message only its envelope and Message-ID, of
//! keys only hashes. Text from elsewhere (replies, names) is truncated.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::TlsException;
use crate::policy::tls::{
    Authentication, CertificateFacts, Demand, Handshake, NoTls, PeerCertificate, Refusal,
    RefusalBasis, SessionTls, TlsFacts, TlsOutcome, TlsPolicy,
};

mod acceptance;
mod assurance;
mod evidence_record;
mod record_text;
mod shared;

pub use acceptance::{AcceptanceRecord, InboundParties, InboundSession};
pub use assurance::{DemandOutcome, RecordedAssurance};
pub use evidence_record::EvidenceRecord;
pub use record_text::RecordText;
pub(super) use shared::{UnknownForm, recipients, to_fields};

/// The most characters of a text that came from elsewhere.
pub const TEXT_MAX: usize = 1000;
/// The most names of a certificate that are recorded; some certificates have hundreds.
const NAMES_MAX: usize = 20;

/// The result of one attempt for one recipient.
// Rule: RFC 7672 §9.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// The queue id of the message.
    pub queue_id: String,
    /// The Message-ID, if the message has one.
    pub message_id: Option<String>,
    /// The sender (reverse-path); empty for the null sender.
    pub from: String,
    /// The recipient. Recipients that differ in nothing but their address share a record on disk.
    #[serde(deserialize_with = "shared::first_recipient")]
    pub to: String,
    /// The domain of the recipient.
    pub domain: String,
    /// The number of the attempt for this recipient, from 1; 0 if none was made.
    pub attempt: u32,
    /// The connector by which the message went: that of the domain, or that of the user who sent it.
    pub connector: String,
    /// The connector of the domain, whose demands joined, if the message went by that of a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_connector: Option<String>,
    /// The SHA-256 of the configuration file, in hexadecimal digits.
    pub configuration: String,
    /// The TLS policy for the host, if the attempt came that far.
    pub policy: Option<PolicyRecord>,
    /// The connector's exception, if one was in force.
    pub exception: Option<ExceptionRecord>,
    /// The host whose answer decided the result.
    pub host: Option<String>,
    /// The address and port of the host.
    pub address: Option<String>,
    /// The protocol: `smtp`, `smtps` (TLS from the first octet) or `lmtp`. Records of earlier versions
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Our own address of the connection. Records of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The session that was cleared; of a refused session, its TLS.
    pub session: Option<SessionRecord>,
    /// Our login in that session, if the connector has one. Records of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginRecord>,
    /// The demand that was not met, if the attempt failed for that.
    pub unmet: Option<UnmetDemand>,
    /// The TLS that the domain offered before, if it offered less now and the connector checks
    /// that.
    pub downgraded_from: Option<String>,
    /// The comparison of the TLS that was used with the demand.
    pub standing: DemandOutcome,
    /// The outcome for the recipient.
    pub outcome: RecordedOutcome,
    /// The enhanced status code (RFC 3463).
    pub status: String,
    /// The reply of the peer.
    pub reply: Option<String>,
    /// The reason for a failure.
    pub reason: Option<String>,
}

/// The outcome of an attempt for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedOutcome {
    /// The next hop accepted responsibility.
    Delivered,
    /// The recipient is retried later.
    Deferred,
    /// The recipient is held for an operator.
    Held,
    /// The recipient bounced.
    Bounced,
    /// An operator removed the recipient; no report was sent.
    Removed,
}

impl RecordedOutcome {
    /// Returns the word for the outcome, as in JSON and CSV.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Held => "held",
            Self::Bounced => "bounced",
            Self::Removed => "removed",
        }
    }
}

/// The TLS policy that applied to a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// `off`, `opportunistic` or `forced`.
    pub tls: String,
    /// Every demand; empty unless `tls` is `forced`.
    pub demands: Vec<DemandRecord>,
}

/// One demand and its layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandRecord {
    /// The layer that makes the demand.
    pub layer: String,
    /// The demand in words.
    pub wanted: String,
    /// The assurance that is demanded.
    pub level: RecordedAssurance,
}

/// An exception that was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionRecord {
    /// Its last day.
    pub until: String,
    /// Its reason, as the administrator wrote it.
    pub reason: String,
}

/// A demand that was not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmetDemand {
    /// The layer that makes the demand.
    pub layer: String,
    /// The demand in words.
    pub wanted: String,
    /// The TLS that the session had instead, in words.
    pub got: String,
}

/// A session that was cleared, or that was refused in spite of its TLS; `standing` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The assurance of the session.
    pub level: RecordedAssurance,
    /// The reason why there was no TLS, if there was none.
    pub no_tls: Option<String>,
    /// The TLS session, if there was one.
    pub tls: Option<TlsSession>,
}

/// A login of ours at a smart host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRecord {
    /// The user.
    pub user: String,
    /// The mechanism, such as `SCRAM-SHA-256`.
    pub mechanism: String,
}

/// A TLS session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSession {
    /// The TLS version, such as `TLSv1.3`.
    pub version: String,
    /// The IANA name of the cipher suite.
    pub cipher: String,
    /// The key exchange group, if there was one.
    pub key_exchange: Option<String>,
    /// Our `ClientHello` in words, if it was a reduced one because the peer did not accept the
    /// usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_hello: Option<String>,
    /// True for a resumed session, whose certificate was shown in an earlier handshake.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// The authentication of the peer, in words.
    pub authentication: String,
    /// The demanded name that the certificate has.
    pub matched_name: Option<String>,
    /// The certificate, if the peer sent one.
    pub certificate: Option<CertificateRecord>,
}

/// The recorded facts of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// The SHA-256 of its public key, in the form of a pin.
    pub spki: String,
    /// Its first twenty DNS names. Records of earlier versions have none.
    #[serde(default)]
    pub names: Vec<String>,
    /// The number of further names.
    #[serde(default)]
    pub more_names: usize,
    /// The name of the issuer.
    pub issuer: String,
    /// The end of its validity.
    pub not_after: Timestamp,
    /// The revocation status of its path in words, if a demand asked for it: `good`, `unknown` or
    /// `revoked`, and the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<String>,
}

/// Truncates a text to [`TEXT_MAX`] characters.
#[must_use]
pub fn cut(text: &str) -> String {
    // A text has at least as many octets as characters.
    if text.len() <= TEXT_MAX {
        return text.to_owned();
    }
    text.chars().take(TEXT_MAX).collect()
}

impl PolicyRecord {
    /// Describes a policy.
    #[must_use]
    pub fn of(policy: &TlsPolicy) -> Self {
        let demanded = |demand: &Demand| DemandRecord {
            layer: demand.layer.to_string(),
            wanted: cut(&demand.to_string()),
            level: RecordedAssurance::demanded(demand),
        };
        Self {
            tls: policy.level().to_owned(),
            demands: policy.demands().map(demanded).collect(),
        }
    }
}

impl ExceptionRecord {
    /// Describes an exception.
    #[must_use]
    pub fn of(exception: &TlsException) -> Self {
        Self {
            until: exception.until.to_string(),
            reason: exception.reason.clone(),
        }
    }
}

impl UnmetDemand {
    /// Describes the unmet demand of a refusal.
    #[must_use]
    pub fn of(refusal: &Refusal) -> Self {
        Self {
            layer: refusal.demand.layer.to_string(),
            wanted: cut(&refusal.demand.to_string()),
            got: cut(&refusal.unmet.to_string()),
        }
    }
}

impl SessionRecord {
    /// Describes a session.
    #[must_use]
    pub fn of(session: &SessionTls) -> Self {
        let (no_tls, tls) = match &session.outcome {
            TlsOutcome::Clear(reason) => (Some(no_tls_text(reason)), None),
            TlsOutcome::Tls(facts) => (None, Some(TlsSession::of(facts, &session.authentication))),
        };
        Self {
            level: RecordedAssurance::of(session),
            no_tls,
            tls,
        }
    }

    /// Describes the TLS of a refused session. Returns `None` for a session without TLS:
    /// [`UnmetDemand`] gives its reason.
    #[must_use]
    pub fn of_refused(refusal: &Refusal) -> Option<Self> {
        let RefusalBasis::Session(session) = &refusal.basis else {
            return None;
        };
        match session.outcome {
            TlsOutcome::Clear(_) => None,
            TlsOutcome::Tls(_) => Some(Self::of(session)),
        }
    }
}

fn no_tls_text(reason: &NoTls) -> String {
    cut(&reason.to_string())
}

impl TlsSession {
    fn of(facts: &TlsFacts, authentication: &Authentication) -> Self {
        let certificate = match &facts.certificate {
            PeerCertificate::Nothing | PeerCertificate::Unproved(_) => None,
            PeerCertificate::Certificate(shown) => Some(CertificateRecord::of(shown)),
        };
        let matched_name = match authentication {
            Authentication::Verified(name) => Some(name.to_string()),
            Authentication::Anonymous
            | Authentication::Unproved(_)
            | Authentication::Untrusted(_)
            | Authentication::Trusted
            | Authentication::Pinned(_)
            | Authentication::Dane { .. } => None,
        };
        Self {
            version: facts.version.to_string(),
            cipher: facts.cipher.to_owned(),
            key_exchange: facts.key_exchange.map(str::to_owned),
            client_hello: facts.reduced.map(|hello| hello.to_string()),
            resumed: facts.handshake == Handshake::Resumed,
            authentication: cut(&authentication.to_string()),
            matched_name,
            certificate,
        }
    }
}

impl CertificateRecord {
    fn of(shown: &CertificateFacts) -> Self {
        Self {
            spki: shown.key.to_string(),
            names: shown
                .names
                .iter()
                .take(NAMES_MAX)
                .map(ToString::to_string)
                .collect(),
            more_names: shown.names.len().saturating_sub(NAMES_MAX),
            issuer: cut(&shown.issuer),
            not_after: shown.not_after,
            revocation: shown.revocation.describe().map(|text| cut(&text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tls::{
        DaneFacts, Groups, Hello, NamePattern, Pin, RevocationFacts, TlsVersion, Verdict, Verify,
        judge,
    };

    fn shown(names: usize) -> TlsOutcome {
        let name =
            |number| NamePattern::parse(&format!("host{number}.example.net")).expect("a name");
        TlsOutcome::Tls(TlsFacts {
            version: TlsVersion::V1_2,
            cipher: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            key_exchange: None,
            reduced: None,
            certificate: PeerCertificate::Certificate(Box::new(CertificateFacts {
                names: (0..names).map(name).collect(),
                chain: Ok(()),
                default_chain: Ok(()),
                key: Pin::new([9; 32]),
                issuer: "CN=Test CA".to_owned(),
                not_after: Timestamp::UNIX_EPOCH,
                dane: DaneFacts::NotChecked,
                revocation: RevocationFacts::NotChecked,
            })),
            handshake: Handshake::Full,
        })
    }

    fn refusal(outcome: TlsOutcome) -> Refusal {
        let wanted = NamePattern::parse("mail.example.org").expect("a name");
        let policy = TlsPolicy::forced(Demand::new(
            crate::policy::tls::Layer::Connector,
            Verify::Name(vec![wanted]),
        ));
        match judge(&policy, outcome, &[]) {
            Verdict::Refused(refusal) => refusal,
            other => panic!("the name is another: {other:?}"),
        }
    }

    #[test]
    fn a_refused_session_is_recorded_with_its_tls_and_the_first_names() {
        let session = SessionRecord::of_refused(&refusal(shown(300))).expect("there was TLS");
        assert_eq!(
            (session.level, session.no_tls),
            (RecordedAssurance::Trusted, None)
        );
        let tls = session.tls.expect("there was TLS");
        assert_eq!(
            (
                tls.version.as_str(),
                tls.authentication.as_str(),
                tls.matched_name
            ),
            ("TLSv1.2", "trusted", None)
        );
        let certificate = tls.certificate.expect("one was shown");
        assert_eq!(
            (certificate.names.len(), certificate.more_names),
            (NAMES_MAX, 300 - NAMES_MAX)
        );
        assert_eq!(
            (certificate.names[1].as_str(), certificate.issuer.as_str()),
            ("host1.example.net", "CN=Test CA")
        );
        assert_eq!(
            SessionRecord::of_refused(&refusal(TlsOutcome::Clear(NoTls::NotOffered))),
            None,
            "`unmet` says why"
        );
    }

    #[test]
    fn a_reduced_client_hello_is_recorded() {
        let record = |reduced| {
            let TlsOutcome::Tls(facts) = shown(1) else {
                panic!("there was TLS")
            };
            SessionRecord::of_refused(&refusal(TlsOutcome::Tls(TlsFacts { reduced, ..facts })))
                .expect("there was TLS")
        };
        let hello = Hello {
            groups: Groups::Classical,
            sni: false,
        };
        let json = serde_json::to_value(record(Some(hello))).expect("JSON");
        assert_eq!(
            json["tls"]["client_hello"],
            "classical key exchange, without SNI"
        );
        let json = serde_json::to_value(record(None)).expect("JSON");
        assert_eq!(json["tls"].get("client_hello"), None);
        assert_eq!(
            serde_json::from_value::<SessionRecord>(json).expect("readable"),
            record(None),
            "as earlier versions had it"
        );
    }

    /// Records of earlier versions are read and written as they were, so that their chain holds.
    #[test]
    fn deliveries_of_earlier_versions_keep_their_form() {
        let text = r#"{"queue_id":"1","message_id":null,"from":"a@b.example","to":"c@d.example","domain":"d.example","attempt":1,"connector":"all","configuration":"","policy":null,"exception":null,"host":null,"address":"192.0.2.1:25","session":null,"unmet":null,"downgraded_from":null,"standing":"met","outcome":"delivered","status":"2.0.0","reply":null,"reason":null}"#;
        let delivery: DeliveryRecord = serde_json::from_str(text).expect("readable");
        assert_eq!((&delivery.protocol, &delivery.source), (&None, &None));
        assert_eq!(serde_json::to_string(&delivery).expect("JSON"), text);
        let named = DeliveryRecord {
            protocol: Some("smtps".to_owned()),
            source: Some("198.51.100.25".to_owned()),
            recipient_connector: Some("own".to_owned()),
            ..delivery
        };
        let text = serde_json::to_string(&named).expect("JSON");
        let connection =
            r#""address":"192.0.2.1:25","protocol":"smtps","source":"198.51.100.25","session""#;
        assert!(text.contains(connection), "{text}");
        assert_eq!(
            serde_json::from_str::<DeliveryRecord>(&text).expect("readable"),
            named
        );
    }

    #[test]
    fn certificates_of_earlier_versions_can_be_read() {
        let text =
            r#"{"spki":"sha256:CQ","issuer":"CN=Test CA","not_after":"2027-01-01T00:00:00Z"}"#;
        let certificate: CertificateRecord = serde_json::from_str(text).expect("readable");
        assert_eq!((certificate.names.len(), certificate.more_names), (0, 0));
    }
}
