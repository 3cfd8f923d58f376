//! What a record says: words and numbers, as an auditor reads them years later and without Gatepost.
//!
//! No content and no secret is in it: of the message its envelope and Message-ID, of keys their hashes.
//! What came from elsewhere (replies, names) is cut to a length.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::chain::RecordHash;
use crate::config::TlsException;
use crate::tls::{
    Authentication, CertificateFacts, Demand, Handshake, NoTls, PeerCertificate, Refusal, RefusalBasis, SessionTls,
    TlsFacts, TlsOutcome, TlsPolicy,
};

mod acceptance;
mod level;

pub use acceptance::{Acceptance, InboundParties, InboundSession};
pub use level::{Level, Standing};

/// Characters of a text that came from elsewhere, at most.
pub const TEXT_MAX: usize = 1000;
/// Names of a certificate that are written out, at most; some have hundreds.
const NAMES_MAX: usize = 20;

/// What one record tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Statement {
    /// What became of one recipient in one attempt.
    Delivery(Box<Delivery>),
    /// A message came in.
    Accepted(Box<Acceptance>),
    /// The chain begins.
    Begun {
        /// By which version.
        gatepost: String,
    },
    /// What a crash had left behind the last whole record was set aside.
    Torn {
        /// Where it is now, in the same folder.
        aside: String,
        /// How many octets.
        octets: u64,
    },
    /// Files older than `[evidence] keep` are about to be removed: the chain now begins behind this record.
    Dropped {
        /// How many files.
        files: u64,
        /// The number of the last record that goes.
        last_seq: u64,
        /// Its hash.
        last_hash: RecordHash,
    },
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

impl Statement {
    /// As JSON without its braces, with its time.
    pub(super) fn inside(&self, at: Timestamp) -> String {
        // Milliseconds are enough, and shorter.
        let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
        // Our own words always have a form in JSON.
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("\"time\":\"{at}\",{}", text.trim_start_matches('{').strip_suffix('}').unwrap_or_default())
    }
}

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message's name in the queue.
    pub queue_id: String,
    /// Its Message-ID, where it has one.
    pub message_id: Option<String>,
    /// The reverse-path; empty for none.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The recipient domain.
    pub domain: String,
    /// Which attempt for this recipient it was; 0 where none was made.
    pub attempt: u32,
    /// The connector that speaks for the domain.
    pub connector: String,
    /// SHA-256 of the configuration file, in hexadecimal digits.
    pub configuration: String,
    /// What was demanded of the host, where it came as far as that.
    pub policy: Option<Policy>,
    /// The connector's exception, where one held.
    pub exception: Option<ExceptionHeld>,
    /// The host that decided it.
    pub host: Option<String>,
    /// Its address and port.
    pub address: Option<String>,
    /// The session, where one was cleared; where one was refused, the TLS that it had all the same.
    pub session: Option<Session>,
    /// The demand that was not met, where that is why it failed.
    pub unmet: Option<UnmetDemand>,
    /// What the domain had shown before, where it showed less now and the connector minds.
    pub downgraded_from: Option<String>,
    /// How what was reached compares with what was demanded.
    pub standing: Standing,
    /// What became of the recipient.
    pub outcome: Outcome,
    /// The enhanced status (RFC 3463).
    pub status: String,
    /// What the peer said.
    pub reply: Option<String>,
    /// Why it was not delivered.
    pub reason: Option<String>,
}

/// What became of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The next hop took responsibility.
    Delivered,
    /// It is tried again.
    Deferred,
    /// It waits for an operator.
    Held,
    /// It was given up.
    Bounced,
    /// An operator removed it; nobody was told.
    Removed,
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Held => "held",
            Self::Bounced => "bounced",
            Self::Removed => "removed",
        }
    }
}

/// What was demanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `off`, `opportunistic` or `forced`.
    pub tls: String,
    /// Every demand; none unless it is forced.
    pub demands: Vec<Demanded>,
}

/// One demand, and who set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demanded {
    /// Who set it.
    pub layer: String,
    /// In words.
    pub wanted: String,
    /// How well the peer must be known.
    pub level: Level,
}

/// An exception that held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionHeld {
    /// Its last day.
    pub until: String,
    /// Why it was made.
    pub reason: String,
}

/// A demand that was not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmetDemand {
    /// Who set it.
    pub layer: String,
    /// What was wanted.
    pub wanted: String,
    /// What was got instead.
    pub got: String,
}

/// A session that carried mail, was allowed to, or was refused in spite of its TLS: `standing` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// How well the peer was known.
    pub level: Level,
    /// Why there was no TLS, where there was none.
    pub no_tls: Option<String>,
    /// The TLS session, where there was one.
    pub tls: Option<TlsSession>,
}

/// A TLS session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSession {
    /// `TLSv1.3`.
    pub version: String,
    /// The cipher suite, by its IANA name.
    pub cipher: String,
    /// The key exchange group, where there was one.
    pub key_exchange: Option<String>,
    /// Our `ClientHello` in words, where it was smaller than the usual one because the peer had not taken that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_hello: Option<String>,
    /// Whether an earlier session was taken up, in which the certificate was shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// How the peer was authenticated, in words.
    pub authentication: String,
    /// The name that was looked for and found.
    pub matched_name: Option<String>,
    /// The certificate, where one was shown.
    pub certificate: Option<Certificate>,
}

/// What is kept of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-256 of its public key, as pins are written.
    pub spki: String,
    /// Its DNS names, the first twenty of them. Earlier versions kept none.
    #[serde(default)]
    pub names: Vec<String>,
    /// How many more it has.
    #[serde(default)]
    pub more_names: usize,
    /// Who issued it.
    pub issuer: String,
    /// When it expires.
    pub not_after: Timestamp,
}

/// A text from elsewhere, not longer than [`TEXT_MAX`].
#[must_use]
pub fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

impl Policy {
    /// A policy in words.
    #[must_use]
    pub fn of(policy: &TlsPolicy) -> Self {
        let demanded = |demand: &Demand| Demanded {
            layer: demand.layer.to_string(),
            wanted: cut(&demand.to_string()),
            level: Level::demanded(demand),
        };
        Self { tls: policy.level().to_owned(), demands: policy.demands().map(demanded).collect() }
    }
}

impl ExceptionHeld {
    /// An exception in words.
    #[must_use]
    pub fn of(exception: &TlsException) -> Self {
        Self { until: exception.until.to_string(), reason: exception.reason.clone() }
    }
}

impl UnmetDemand {
    /// A refusal in words.
    #[must_use]
    pub fn of(refusal: &Refusal) -> Self {
        Self {
            layer: refusal.demand.layer.to_string(),
            wanted: cut(&refusal.demand.to_string()),
            got: cut(&refusal.unmet.to_string()),
        }
    }
}

impl Session {
    /// A session in words.
    #[must_use]
    pub fn of(session: &SessionTls) -> Self {
        let (no_tls, tls) = match &session.outcome {
            TlsOutcome::Clear(reason) => (Some(without(reason)), None),
            TlsOutcome::Tls(facts) => (None, Some(TlsSession::of(facts, &session.authentication))),
        };
        Self { level: Level::of(session), no_tls, tls }
    }

    /// The TLS that was not good enough, in words. Where there was none, [`UnmetDemand`] says why.
    #[must_use]
    pub fn refused(refusal: &Refusal) -> Option<Self> {
        let RefusalBasis::Session(session) = &refusal.basis else { return None };
        match session.outcome {
            TlsOutcome::Clear(_) => None,
            TlsOutcome::Tls(_) => Some(Self::of(session)),
        }
    }
}

fn without(reason: &NoTls) -> String {
    cut(&reason.to_string())
}

impl TlsSession {
    fn of(facts: &TlsFacts, authentication: &Authentication) -> Self {
        let certificate = match &facts.certificate {
            PeerCertificate::Nothing | PeerCertificate::Unproved(_) => None,
            PeerCertificate::Certificate(shown) => Some(Certificate::of(shown)),
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

impl Certificate {
    fn of(shown: &CertificateFacts) -> Self {
        Self {
            spki: shown.key.to_string(),
            names: shown.names.iter().take(NAMES_MAX).map(ToString::to_string).collect(),
            more_names: shown.names.len().saturating_sub(NAMES_MAX),
            issuer: cut(&shown.issuer),
            not_after: shown.not_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{DaneFacts, Groups, Hello, NamePattern, Pin, TlsVersion, Verdict, Verify, judge};

    fn shown(names: usize) -> TlsOutcome {
        let name = |number| NamePattern::parse(&format!("host{number}.example.net")).expect("a name");
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
            })),
            handshake: Handshake::Full,
        })
    }

    fn refusal(outcome: TlsOutcome) -> Refusal {
        let wanted = NamePattern::parse("mail.example.org").expect("a name");
        let policy = TlsPolicy::forced(Demand::new(crate::tls::Layer::Connector, Verify::Name(vec![wanted])));
        match judge(&policy, outcome, &[]) {
            Verdict::Refused(refusal) => refusal,
            other => panic!("the name is another: {other:?}"),
        }
    }

    #[test]
    fn of_a_refused_session_its_tls_is_on_record_and_of_hundreds_of_names_the_first() {
        let session = Session::refused(&refusal(shown(300))).expect("there was TLS");
        assert_eq!((session.level, session.no_tls), (Level::Trusted, None));
        let tls = session.tls.expect("there was TLS");
        assert_eq!((tls.version.as_str(), tls.authentication.as_str(), tls.matched_name), ("TLSv1.2", "trusted", None));
        let certificate = tls.certificate.expect("one was shown");
        assert_eq!((certificate.names.len(), certificate.more_names), (NAMES_MAX, 300 - NAMES_MAX));
        assert_eq!((certificate.names[1].as_str(), certificate.issuer.as_str()), ("host1.example.net", "CN=Test CA"));
        assert_eq!(Session::refused(&refusal(TlsOutcome::Clear(NoTls::NotOffered))), None, "`unmet` says why");
    }

    #[test]
    fn a_client_hello_that_was_smaller_than_the_usual_one_is_on_record() {
        let record = |reduced| {
            let TlsOutcome::Tls(facts) = shown(1) else { panic!("there was TLS") };
            Session::refused(&refusal(TlsOutcome::Tls(TlsFacts { reduced, ..facts }))).expect("there was TLS")
        };
        let hello = Hello { groups: Groups::Classical, sni: false };
        let json = serde_json::to_value(record(Some(hello))).expect("JSON");
        assert_eq!(json["tls"]["client_hello"], "classical key exchange, without SNI");
        let json = serde_json::to_value(record(None)).expect("JSON");
        assert_eq!(json["tls"].get("client_hello"), None);
        assert_eq!(
            serde_json::from_value::<Session>(json).expect("readable"),
            record(None),
            "as earlier versions had it"
        );
    }

    #[test]
    fn what_earlier_versions_kept_of_a_certificate_can_be_read() {
        let text = r#"{"spki":"sha256:CQ","issuer":"CN=Test CA","not_after":"2027-01-01T00:00:00Z"}"#;
        let certificate: Certificate = serde_json::from_str(text).expect("readable");
        assert_eq!((certificate.names.len(), certificate.more_names), (0, 0));
    }
}
