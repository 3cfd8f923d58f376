//! The mapping from the TLS judge's decisions to the result types of RFC 8460 §4.3.
//!
//! Failures before a decision (a policy that cannot be fetched, a failed DNSSEC validation) get
//! their result type where they occur.

use super::observation::ResultType;
use crate::policy::tls::{
    ChainFault, DaneFault, NoTls, Refusal, RevocationFault, Unmeetable, Unmet,
};

/// Returns the result type of a refused session.
// Rule: RFC 8461 §6.
#[must_use]
pub fn of_refusal(refusal: &Refusal) -> ResultType {
    of_unmet(&refusal.unmet)
}

/// Returns the result type of a session that does not meet a demand, whether or not it was refused.
#[must_use]
pub fn of_unmet(unmet: &Unmet) -> ResultType {
    match unmet {
        Unmet::NoTls(reason) => of_no_tls(reason),
        Unmet::Version(_) | Unmet::KeyExchange(_) | Unmet::NoCertificate | Unmet::Unproved(_) => {
            ResultType::ValidationFailure
        }
        Unmet::Chain(fault) => of_chain_fault(fault),
        Unmet::Name { .. } => ResultType::CertificateHostMismatch,
        // RFC 8460 has no result type for our own demands.
        Unmet::Pin { .. } | Unmet::Revocation(_) => ResultType::ValidationFailure,
        Unmet::Dane(fault) => of_dane_fault(fault),
        Unmet::Unmeetable(Unmeetable::NoTlsa(_) | Unmeetable::UnsignedMx(_)) => {
            ResultType::DaneRequired
        }
        Unmet::Unmeetable(
            Unmeetable::NotListed { .. }
            | Unmeetable::NoName(_)
            | Unmeetable::Unproven(_)
            | Unmeetable::Contradiction(_),
        ) => ResultType::ValidationFailure,
    }
}

/// Returns the result type of a certificate that does not match the TLSA records.
#[must_use]
pub fn of_dane_fault(fault: &DaneFault) -> ResultType {
    match fault {
        // §4.3.2.1: "none of the records in the RRset were found to be valid".
        DaneFault::NoMatch { .. } => ResultType::TlsaInvalid,
        DaneFault::Path(fault) => of_chain_fault(fault),
        DaneFault::Name { .. } => ResultType::CertificateHostMismatch,
        DaneFault::NotChecked => ResultType::ValidationFailure,
    }
}

/// Returns the result type of a session without TLS. If we decided not to use TLS, the session must
/// not be observed at all.
#[must_use]
pub fn of_no_tls(reason: &NoTls) -> ResultType {
    match reason {
        // A host that offers STARTTLS and then rejects it does not support it, as far as a client
        // can see.
        NoTls::NotOffered | NoTls::Rejected(_) => ResultType::StartTlsNotSupported,
        NoTls::NotWanted | NoTls::NotUsed | NoTls::SpokeBeforeHandshake | NoTls::Broken(_) => {
            ResultType::ValidationFailure
        }
    }
}

/// Returns the result type of a certificate that our trust anchors do not validate.
#[must_use]
pub fn of_chain_fault(fault: &ChainFault) -> ResultType {
    match fault {
        ChainFault::SelfSigned | ChainFault::UnknownIssuer(_) => ResultType::CertificateNotTrusted,
        ChainFault::Expired(_) => ResultType::CertificateExpired,
        // §4.3.1 has a result type for an expired certificate, but none for one that is not yet
        // valid.
        ChainFault::NotYetValid(_) | ChainFault::NotChecked | ChainFault::Invalid(_) => {
            ResultType::ValidationFailure
        }
    }
}

/// Returns the `failure-reason-code` that makes a `validation-failure` more specific (RFC 8460
/// §4.3.1), or `None` if the result type is specific enough.
#[must_use]
pub fn reason_code(unmet: &Unmet) -> Option<&'static str> {
    match unmet {
        Unmet::NoTls(NoTls::SpokeBeforeHandshake) => Some("clear-text-after-starttls"),
        Unmet::NoTls(NoTls::Broken(_)) => Some("handshake-failed"),
        Unmet::NoTls(NoTls::Rejected(_)) => Some("starttls-refused"),
        Unmet::NoTls(NoTls::NotOffered | NoTls::NotWanted | NoTls::NotUsed) => None,
        Unmet::Version(_) => Some("tls-version-too-old"),
        Unmet::KeyExchange(_) => Some("key-exchange-too-weak"),
        Unmet::NoCertificate => Some("no-certificate"),
        Unmet::Unproved(_) => Some("certificate-key-not-supported"),
        Unmet::Chain(fault) | Unmet::Dane(DaneFault::Path(fault)) => reason_code_of_chain(fault),
        Unmet::Name { .. } | Unmet::Dane(DaneFault::Name { .. }) => None,
        Unmet::Pin { .. } => Some("pin-mismatch"),
        Unmet::Revocation(RevocationFault::Revoked(..)) => Some("certificate-revoked"),
        Unmet::Revocation(
            RevocationFault::Expired(..) | RevocationFault::NoCrl(..) | RevocationFault::NotChecked,
        ) => Some("no-current-crl"),
        Unmet::Dane(DaneFault::NoMatch { .. }) => Some("tlsa-no-match"),
        Unmet::Dane(DaneFault::NotChecked) => Some("tlsa-changed"),
        Unmet::Unmeetable(Unmeetable::NoTlsa(_)) => None,
        Unmet::Unmeetable(Unmeetable::UnsignedMx(_)) => Some("mx-not-signed"),
        Unmet::Unmeetable(Unmeetable::NotListed { .. }) => Some("mx-not-in-policy"),
        Unmet::Unmeetable(Unmeetable::NoName(_)) => Some("no-reference-name"),
        Unmet::Unmeetable(Unmeetable::Unproven(_)) => Some("mx-not-proven"),
        Unmet::Unmeetable(Unmeetable::Contradiction(_)) => Some("no-common-demand"),
    }
}

fn reason_code_of_chain(fault: &ChainFault) -> Option<&'static str> {
    match fault {
        ChainFault::SelfSigned => Some("self-signed"),
        ChainFault::UnknownIssuer(_) => Some("unknown-issuer"),
        ChainFault::NotYetValid(_) => Some("certificate-not-yet-valid"),
        ChainFault::Invalid(_) => Some("certificate-invalid"),
        ChainFault::Expired(_) | ChainFault::NotChecked => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::policy::tls::{NamePattern, TlsVersion, UncheckableKey};
    use crate::smtp::reply::Reply;

    fn session_faults() -> Vec<(Unmet, &'static str)> {
        let chain = |fault| Unmet::Chain(fault);
        let name = NamePattern::parse("mx.example.org").expect("valid");
        vec![
            (Unmet::NoTls(NoTls::NotOffered), "starttls-not-supported"),
            (
                Unmet::NoTls(NoTls::Rejected(Reply::bare(454, "no"))),
                "starttls-not-supported",
            ),
            (
                Unmet::NoTls(NoTls::Broken("reset".to_owned())),
                "validation-failure",
            ),
            (
                Unmet::NoTls(NoTls::SpokeBeforeHandshake),
                "validation-failure",
            ),
            (Unmet::Version(TlsVersion::V1_2), "validation-failure"),
            (Unmet::NoCertificate, "validation-failure"),
            (
                Unmet::Unproved(UncheckableKey::RsaSize(1024)),
                "validation-failure",
            ),
            (chain(ChainFault::SelfSigned), "certificate-not-trusted"),
            (
                chain(ChainFault::UnknownIssuer("CN=x".to_owned())),
                "certificate-not-trusted",
            ),
            (
                chain(ChainFault::Expired(Timestamp::UNIX_EPOCH)),
                "certificate-expired",
            ),
            (
                chain(ChainFault::NotYetValid(Timestamp::UNIX_EPOCH)),
                "validation-failure",
            ),
            (
                Unmet::Name {
                    wanted: vec![name],
                    presented: Vec::new(),
                },
                "certificate-host-mismatch",
            ),
        ]
    }

    fn dane_faults() -> Vec<(Unmet, &'static str)> {
        vec![
            (
                Unmet::Dane(DaneFault::NoMatch { records: 2 }),
                "tlsa-invalid",
            ),
            (Unmet::Dane(DaneFault::NotChecked), "validation-failure"),
            (
                Unmet::Dane(DaneFault::Path(ChainFault::Expired(Timestamp::UNIX_EPOCH))),
                "certificate-expired",
            ),
            (
                Unmet::Dane(DaneFault::Name {
                    wanted: Vec::new(),
                    presented: Vec::new(),
                }),
                "certificate-host-mismatch",
            ),
            (
                Unmet::Unmeetable(Unmeetable::NoTlsa("insecure".to_owned())),
                "dane-required",
            ),
            (
                Unmet::Unmeetable(Unmeetable::UnsignedMx(
                    "the MX records are unsigned".to_owned(),
                )),
                "dane-required",
            ),
            (
                Unmet::Unmeetable(Unmeetable::Unproven("no policy".to_owned())),
                "validation-failure",
            ),
        ]
    }

    #[test]
    fn each_unmet_demand_has_the_result_type_that_the_standard_names() {
        for (unmet, result) in session_faults().into_iter().chain(dane_faults()) {
            let got = of_unmet(&unmet);
            assert_eq!(got.as_str(), result, "{unmet:?}");
            let code = reason_code(&unmet);
            assert!(
                got != ResultType::ValidationFailure || code.is_some(),
                "{unmet:?} must tell more"
            );
        }
    }
}
