//! The TLS levels of sessions, in order.
//!
//! The TLS judge ([`crate::policy::tls`]) decides what a handshake proves; the levels are a view of
//! its scale of assurance.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::tls::{
    Assurance, Clearance, NoTls, PeerCertificate, Refusal, RefusalBasis, SessionTls, TlsOutcome,
};

/// The level of TLS of a session; greater is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsLevel {
    /// No TLS, although we asked for it.
    Plain,
    /// TLS with a certificate that proves nothing.
    Tls,
    /// TLS with a certificate of a trusted authority.
    Trusted,
    /// TLS with a trusted certificate for an expected name.
    Verified,
    /// TLS authenticated by DANE for the domain (RFC 7672).
    Dane,
}

impl From<Assurance> for TlsLevel {
    fn from(assurance: Assurance) -> Self {
        match assurance {
            Assurance::None => Self::Plain,
            Assurance::Encrypted => Self::Tls,
            Assurance::Chain => Self::Trusted,
            // With `DaneHost`, the records authenticate the host but not the domain.
            Assurance::Name | Assurance::Pin | Assurance::DaneHost => Self::Verified,
            Assurance::DaneDomain => Self::Dane,
        }
    }
}

impl TlsLevel {
    /// All levels, lowest first.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::Tls,
        Self::Trusted,
        Self::Verified,
        Self::Dane,
    ];

    /// Returns the level of a session that may carry mail; `None` if we did not ask for TLS, which
    /// proves nothing about the host.
    #[must_use]
    pub fn of_clearance(clearance: &Clearance) -> Option<Self> {
        Self::of_session(clearance.session())
    }

    /// Returns the level of a refused session; `None` if no connection was opened. Hosts under a
    /// forced policy can lose STARTTLS too, and the memory and the alarm must notice.
    #[must_use]
    pub fn of_refusal(refusal: &Refusal) -> Option<Self> {
        match &refusal.basis {
            RefusalBasis::NoSession => None,
            RefusalBasis::Session(session) => Self::of_session(session),
        }
    }

    fn of_session(session: &SessionTls) -> Option<Self> {
        match &session.outcome {
            TlsOutcome::Clear(NoTls::NotWanted | NoTls::NotUsed) => None,
            TlsOutcome::Clear(
                NoTls::NotOffered
                | NoTls::Rejected(_)
                | NoTls::SpokeBeforeHandshake
                | NoTls::Broken(_),
            )
            | TlsOutcome::Tls(_) => Some(session.assurance().into()),
        }
    }

    /// Returns the level's name in the database and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Trusted => "trusted",
            Self::Verified => "verified",
            Self::Dane => "dane",
        }
    }

    /// Parses the level's name in the database and in JSON.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }
}

impl fmt::Display for TlsLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "no TLS",
            Self::Tls => "TLS",
            Self::Trusted => "TLS, trusted",
            Self::Verified => "TLS, name verified",
            Self::Dane => "DANE",
        })
    }
}

/// Returns the issuer of the certificate of a session, for [`super::History::record`].
#[must_use]
pub fn issuer(outcome: &TlsOutcome) -> Option<&str> {
    match outcome {
        TlsOutcome::Clear(_) => None,
        TlsOutcome::Tls(facts) => match &facts.certificate {
            PeerCertificate::Nothing | PeerCertificate::Unproved(_) => None,
            PeerCertificate::Certificate(certificate) => Some(&certificate.issuer),
        },
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::policy::tls::{
        CertificateFacts, ChainFault, DaneFacts, Demand, Handshake, Layer, NamePattern, Pin,
        RevocationFacts, TlsFacts, TlsPolicy, TlsVersion, Unmeetable, Verdict, Verify, judge,
        unmeetable,
    };
    use crate::smtp::reply::Reply;

    /// Returns a session with a certificate for mail.example.org.
    fn shown(chain: Result<(), ChainFault>) -> TlsOutcome {
        let certificate = CertificateFacts {
            names: vec![NamePattern::parse("mail.example.org").expect("a name")],
            default_chain: chain.clone(),
            chain,
            key: Pin::new([1; 32]),
            issuer: "CN=Test CA".to_owned(),
            not_after: Timestamp::MAX,
            dane: DaneFacts::NotChecked,
            revocation: RevocationFacts::NotChecked,
        };
        with(PeerCertificate::Certificate(Box::new(certificate)))
    }

    fn with(certificate: PeerCertificate) -> TlsOutcome {
        TlsOutcome::Tls(TlsFacts {
            version: TlsVersion::V1_3,
            cipher: "x",
            key_exchange: None,
            reduced: None,
            certificate,
            handshake: Handshake::Full,
        })
    }

    /// Returns the level of the clearance that the TLS judge makes under an opportunistic policy.
    fn level(outcome: TlsOutcome, reference: &str) -> Option<TlsLevel> {
        let reference: Vec<_> = NamePattern::parse(reference).into_iter().collect();
        match judge(&TlsPolicy::Opportunistic, outcome, &reference) {
            Verdict::Cleared(clearance) => TlsLevel::of_clearance(&clearance),
            Verdict::Redial(fallback) => TlsLevel::of_clearance(&fallback.clearance()),
            Verdict::Refused(refusal) => panic!("opportunistic TLS refuses nothing: {refusal}"),
        }
    }

    #[test]
    fn a_clearance_has_the_level_of_what_was_proved() {
        let clear = TlsOutcome::Clear;
        for (outcome, reference, expected) in [
            (clear(NoTls::NotWanted), "", None),
            (clear(NoTls::NotUsed), "", None),
            (clear(NoTls::NotOffered), "", Some(TlsLevel::Plain)),
            (
                clear(NoTls::Rejected(Reply::bare(454, "not now"))),
                "",
                Some(TlsLevel::Plain),
            ),
            (
                clear(NoTls::SpokeBeforeHandshake),
                "",
                Some(TlsLevel::Plain),
            ),
            (
                clear(NoTls::Broken("cut".to_owned())),
                "",
                Some(TlsLevel::Plain),
            ),
            (
                with(PeerCertificate::Nothing),
                "mail.example.org",
                Some(TlsLevel::Tls),
            ),
            (
                shown(Err(ChainFault::SelfSigned)),
                "mail.example.org",
                Some(TlsLevel::Tls),
            ),
            (
                shown(Err(ChainFault::Expired(Timestamp::UNIX_EPOCH))),
                "mail.example.org",
                Some(TlsLevel::Tls),
            ),
            (shown(Ok(())), "", Some(TlsLevel::Trusted)),
            (shown(Ok(())), "mx.example.net", Some(TlsLevel::Trusted)),
            (shown(Ok(())), "mail.example.org", Some(TlsLevel::Verified)),
        ] {
            assert_eq!(
                level(outcome.clone(), reference),
                expected,
                "{outcome:?} for {reference:?}"
            );
        }
    }

    /// Returns the level of a session that a forced policy refuses.
    fn refused(verify: Verify, outcome: TlsOutcome) -> Option<TlsLevel> {
        let reference: Vec<_> = NamePattern::parse("mail.example.org").into_iter().collect();
        match judge(
            &TlsPolicy::forced(Demand::new(Layer::Connector, verify)),
            outcome,
            &reference,
        ) {
            Verdict::Refused(refusal) => TlsLevel::of_refusal(&refusal),
            other => panic!("it satisfies the demand: {other:?}"),
        }
    }

    #[test]
    fn a_refused_session_has_the_level_that_it_showed() {
        let other_name =
            || Verify::Name(NamePattern::parse("mx.example.net").into_iter().collect());
        let pin = || Verify::Pin(vec![Pin::new([2; 32])]);
        for (verify, outcome, expected) in [
            (
                Verify::None,
                TlsOutcome::Clear(NoTls::NotOffered),
                Some(TlsLevel::Plain),
            ),
            (Verify::None, TlsOutcome::Clear(NoTls::NotUsed), None),
            (
                Verify::Chain,
                with(PeerCertificate::Nothing),
                Some(TlsLevel::Tls),
            ),
            (
                Verify::Chain,
                shown(Err(ChainFault::SelfSigned)),
                Some(TlsLevel::Tls),
            ),
            // The certificate has the name of the host, though the connector wants another name, or
            // another key.
            (other_name(), shown(Ok(())), Some(TlsLevel::Verified)),
            (pin(), shown(Ok(())), Some(TlsLevel::Verified)),
            (
                pin(),
                shown(Err(ChainFault::SelfSigned)),
                Some(TlsLevel::Tls),
            ),
        ] {
            assert_eq!(
                refused(verify.clone(), outcome.clone()),
                expected,
                "{verify:?}: {outcome:?}"
            );
        }
    }

    #[test]
    fn a_hop_that_was_not_connected_to_has_no_level() {
        let impossible =
            Verify::Impossible(Unmeetable::NoTlsa("the zone is not signed".to_owned()));
        let policy = TlsPolicy::forced(Demand::new(Layer::Connector, impossible));
        let refusal = unmeetable(&policy).expect("it is known before the connection");
        assert_eq!(TlsLevel::of_refusal(&refusal), None);
    }

    #[test]
    fn only_a_certificate_has_an_issuer() {
        assert_eq!(issuer(&shown(Ok(()))), Some("CN=Test CA"));
        assert_eq!(issuer(&with(PeerCertificate::Nothing)), None);
        assert_eq!(issuer(&TlsOutcome::Clear(NoTls::NotOffered)), None);
    }

    #[test]
    fn level_names_parse_again() {
        for level in TlsLevel::ALL {
            assert_eq!(TlsLevel::parse(level.as_str()), Some(level));
        }
        assert_eq!(TlsLevel::parse("golden"), None);
    }
}
