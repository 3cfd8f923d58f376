//! From what the TLS judge says to a result type of RFC 8460 §4.3, in one place.
//!
//! Pure. What happens before a judge is asked (a policy that cannot be fetched, DNS that cannot be
//! proven) has its result type from whom it happens to.

use super::observation::ResultType;
use crate::tls::{ChainFault, DaneFault, Lack, NoTls, Refusal, Shortfall};

/// What a refused session counts as.
#[must_use]
pub fn of_refusal(refusal: &Refusal) -> ResultType {
    of_shortfall(&refusal.got)
}

/// What a session counts as that lacks this, whether or not it was refused for it.
#[must_use]
pub fn of_shortfall(shortfall: &Shortfall) -> ResultType {
    match shortfall {
        Shortfall::NoTls(reason) => of_no_tls(reason),
        Shortfall::Version(_) | Shortfall::KeyExchange(_) | Shortfall::NoCertificate | Shortfall::Unproved(_) => {
            ResultType::ValidationFailure
        }
        Shortfall::Chain(fault) => of_chain_fault(fault),
        Shortfall::Name { .. } => ResultType::CertificateHostMismatch,
        // What we demand beyond what is published has no word of its own.
        Shortfall::Pin { .. } => ResultType::ValidationFailure,
        Shortfall::Dane(fault) => of_dane_fault(fault),
        Shortfall::Lack(Lack::NoTlsa(_) | Lack::UnsignedMx(_)) => ResultType::DaneRequired,
        Shortfall::Lack(Lack::NotListed { .. } | Lack::NoName(_) | Lack::Unproven(_)) => ResultType::ValidationFailure,
    }
}

/// What a certificate counts as that the TLSA records do not lead to.
#[must_use]
pub fn of_dane_fault(fault: &DaneFault) -> ResultType {
    match fault {
        // §4.3.2.1: "none of the records in the RRset were found to be valid".
        DaneFault::NoMatch { .. } => ResultType::TlsaInvalid,
        DaneFault::Path(fault) => of_chain_fault(fault),
        DaneFault::Name { .. } => ResultType::CertificateHostMismatch,
        DaneFault::NotHeld => ResultType::ValidationFailure,
    }
}

/// What a session without TLS counts as. Our own decision not to use it is no failure of the peer, and
/// such a session is not to be observed at all.
#[must_use]
pub fn of_no_tls(reason: &NoTls) -> ResultType {
    match reason {
        // A host that offers STARTTLS and refuses it does not support it, as far as a sender can tell.
        NoTls::NotOffered | NoTls::Rejected(_) => ResultType::StartTlsNotSupported,
        NoTls::NotWanted | NoTls::NotUsed | NoTls::SpokeBeforeHandshake | NoTls::Broken(_) => {
            ResultType::ValidationFailure
        }
    }
}

/// What a certificate counts as that does not stand under our trust anchors.
#[must_use]
pub fn of_chain_fault(fault: &ChainFault) -> ResultType {
    match fault {
        ChainFault::SelfSigned | ChainFault::UnknownIssuer(_) => ResultType::CertificateNotTrusted,
        ChainFault::Expired(_) => ResultType::CertificateExpired,
        // §4.3.1 has a word for what has expired, and none for what is not valid yet.
        ChainFault::NotYetValid(_) | ChainFault::NotChecked | ChainFault::Invalid(_) => ResultType::ValidationFailure,
    }
}

/// The `failure-reason-code` that makes a `validation-failure` tell more (RFC 8460 §4.3.1); nothing where
/// the result type says it all.
#[must_use]
pub fn reason_of(shortfall: &Shortfall) -> Option<&'static str> {
    match shortfall {
        Shortfall::NoTls(NoTls::SpokeBeforeHandshake) => Some("clear-text-after-starttls"),
        Shortfall::NoTls(NoTls::Broken(_)) => Some("handshake-failed"),
        Shortfall::NoTls(NoTls::Rejected(_)) => Some("starttls-refused"),
        Shortfall::NoTls(NoTls::NotOffered | NoTls::NotWanted | NoTls::NotUsed) => None,
        Shortfall::Version(_) => Some("tls-version-too-old"),
        Shortfall::KeyExchange(_) => Some("key-exchange-too-weak"),
        Shortfall::NoCertificate => Some("no-certificate"),
        Shortfall::Unproved(_) => Some("certificate-key-not-supported"),
        Shortfall::Chain(fault) | Shortfall::Dane(DaneFault::Path(fault)) => reason_of_chain(fault),
        Shortfall::Name { .. } | Shortfall::Dane(DaneFault::Name { .. }) => None,
        Shortfall::Pin { .. } => Some("pin-mismatch"),
        Shortfall::Dane(DaneFault::NoMatch { .. }) => Some("tlsa-no-match"),
        Shortfall::Dane(DaneFault::NotHeld) => Some("tlsa-changed"),
        Shortfall::Lack(Lack::NoTlsa(_)) => None,
        Shortfall::Lack(Lack::UnsignedMx(_)) => Some("mx-not-signed"),
        Shortfall::Lack(Lack::NotListed { .. }) => Some("mx-not-in-policy"),
        Shortfall::Lack(Lack::NoName(_)) => Some("no-reference-name"),
        Shortfall::Lack(Lack::Unproven(_)) => Some("mx-not-proven"),
    }
}

fn reason_of_chain(fault: &ChainFault) -> Option<&'static str> {
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
    use crate::smtp::reply::Reply;
    use crate::tls::{NamePattern, TlsVersion, UncheckableKey};

    #[test]
    fn each_shortfall_has_the_result_type_that_the_standard_names() {
        let chain = |fault| Shortfall::Chain(fault);
        let name = NamePattern::parse("mx.example.org").expect("valid");
        let rows = [
            (Shortfall::NoTls(NoTls::NotOffered), "starttls-not-supported"),
            (Shortfall::NoTls(NoTls::Rejected(Reply::bare(454, "no"))), "starttls-not-supported"),
            (Shortfall::NoTls(NoTls::Broken("reset".to_owned())), "validation-failure"),
            (Shortfall::NoTls(NoTls::SpokeBeforeHandshake), "validation-failure"),
            (Shortfall::Version(TlsVersion::V1_2), "validation-failure"),
            (Shortfall::NoCertificate, "validation-failure"),
            (Shortfall::Unproved(UncheckableKey::RsaSize(1024)), "validation-failure"),
            (chain(ChainFault::SelfSigned), "certificate-not-trusted"),
            (chain(ChainFault::UnknownIssuer("CN=x".to_owned())), "certificate-not-trusted"),
            (chain(ChainFault::Expired(Timestamp::UNIX_EPOCH)), "certificate-expired"),
            (chain(ChainFault::NotYetValid(Timestamp::UNIX_EPOCH)), "validation-failure"),
            (Shortfall::Name { wanted: vec![name], presented: Vec::new() }, "certificate-host-mismatch"),
            (Shortfall::Dane(DaneFault::NoMatch { records: 2 }), "tlsa-invalid"),
            (Shortfall::Dane(DaneFault::NotHeld), "validation-failure"),
            (Shortfall::Dane(DaneFault::Path(ChainFault::Expired(Timestamp::UNIX_EPOCH))), "certificate-expired"),
            (
                Shortfall::Dane(DaneFault::Name { wanted: Vec::new(), presented: Vec::new() }),
                "certificate-host-mismatch",
            ),
            (Shortfall::Lack(Lack::NoTlsa("insecure".to_owned())), "dane-required"),
            (Shortfall::Lack(Lack::UnsignedMx("the MX records are unsigned".to_owned())), "dane-required"),
            (Shortfall::Lack(Lack::Unproven("no policy".to_owned())), "validation-failure"),
        ];
        for (shortfall, result) in rows {
            let got = of_shortfall(&shortfall);
            assert_eq!(got.as_str(), result, "{shortfall:?}");
            let code = reason_of(&shortfall);
            assert!(got != ResultType::ValidationFailure || code.is_some(), "{shortfall:?} must tell more");
        }
    }
}
