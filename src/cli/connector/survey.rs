//! The findings of a probe that a new connector depends on.

use jiff::Timestamp;

use super::super::format::short;
use crate::net::tls_io::SentCertificate;
use crate::policy::failure::Failure;
use crate::policy::layers::{DaneFinding, MtaStsFinding, MtaStsListing};
use crate::policy::tls::{ChainFault, DaneScope, NamePattern, PeerCertificate, Pin, TlsOutcome};
use crate::relay::outbound::probe::{AddressFindings, HopFindings, Probe, ProbedHop};
use crate::smtp::address::Domain;

/// A host that accepts the domain's mail, and what was found at it.
#[derive(Debug, Clone)]
pub(super) struct SurveyedHost {
    /// The name of the host, if it has one.
    pub(super) name: Option<Domain>,
    /// The proof by the usable TLSA records of the host; `None` without such records.
    pub(super) dane: Option<DaneScope>,
    /// The verdict of the domain's MTA-STS policy on the host.
    pub(super) mta_sts: PolicyMode,
    /// The addresses of the host.
    pub(super) addresses: Vec<SurveyedAddress>,
}

/// The MTA-STS policy of a domain as it concerns one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PolicyMode {
    /// There is no policy, or none that lists the host.
    Without,
    /// The policy only asks for reports.
    Testing,
    /// The policy demands TLS with a trusted certificate of the host's name.
    Enforce,
}

/// An address of a host, and what it showed.
#[derive(Debug, Clone)]
pub(super) struct SurveyedAddress {
    /// The address, as `mx.example.org [192.0.2.1]:25`.
    pub(super) peer: String,
    pub(super) shown: ShownTls,
}

/// The TLS that an address showed.
#[derive(Debug, Clone)]
pub(super) enum ShownTls {
    /// The session ended before TLS, for this reason.
    Unreachable(String),
    /// There is no TLS, for this reason.
    Clear(String),
    /// TLS, but the certificate proves nothing, for this reason.
    Unproved(String),
    /// TLS with a certificate.
    Certificate(Box<ShownCertificate>),
}

/// The certificate of an address.
#[derive(Debug, Clone)]
pub(super) struct ShownCertificate {
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) names: Vec<NamePattern>,
    pub(super) not_after: Timestamp,
    pub(super) key: Pin,
    /// The result of the search for a path to the authorities of `[tls] trust`.
    pub(super) chain: Result<(), ChainFault>,
}

/// Returns what was found at each host.
///
/// # Errors
/// The failure for which the domain has no hosts.
pub(super) fn survey(probe: &Probe) -> Result<Vec<SurveyedHost>, &Failure> {
    let hops = probe.hops.as_ref()?;
    Ok(hops.iter().map(host).collect())
}

fn host(probed: &ProbedHop) -> SurveyedHost {
    let name = probed.hop.host.domain().cloned();
    let HopFindings {
        found, addresses, ..
    } = match &probed.findings {
        Ok(findings) => findings,
        Err(failure) => {
            let address = SurveyedAddress {
                peer: probed.hop.to_string(),
                shown: ShownTls::Unreachable(reason(failure)),
            };
            return SurveyedHost {
                name,
                dane: None,
                mta_sts: PolicyMode::Without,
                addresses: vec![address],
            };
        }
    };
    let dane = match &found.findings.dane {
        DaneFinding::Usable(set) => Some(set.scope),
        DaneFinding::NotLookedUp(_) | DaneFinding::Absent(_) | DaneFinding::Unusable(_) => None,
    };
    let mta_sts = match &found.findings.mta_sts {
        MtaStsFinding::Enforce(MtaStsListing::Listed) => PolicyMode::Enforce,
        MtaStsFinding::Testing(MtaStsListing::Listed) => PolicyMode::Testing,
        MtaStsFinding::Enforce(MtaStsListing::NotListed(_))
        | MtaStsFinding::Testing(MtaStsListing::NotListed(_))
        | MtaStsFinding::NotLookedUp(_)
        | MtaStsFinding::None(_) => PolicyMode::Without,
    };
    SurveyedHost {
        name,
        dane,
        mta_sts,
        addresses: addresses.iter().map(address).collect(),
    }
}

fn address(findings: &AddressFindings) -> SurveyedAddress {
    let shown = match (&findings.outcome, &findings.end) {
        (Some(TlsOutcome::Clear(reason)), _) => ShownTls::Clear(short(&reason.to_string())),
        (Some(TlsOutcome::Tls(facts)), _) => certificate(&facts.certificate, &findings.chain),
        (None, Err(failure)) => ShownTls::Unreachable(reason(failure)),
        // A clearance is made from an outcome.
        (None, Ok(_)) => ShownTls::Unreachable("it ended the session".to_owned()),
    };
    SurveyedAddress {
        peer: short(&findings.peer),
        shown,
    }
}

fn certificate(shown: &PeerCertificate, chain: &[SentCertificate]) -> ShownTls {
    let facts = match shown {
        PeerCertificate::Certificate(facts) => facts,
        PeerCertificate::Nothing => {
            return ShownTls::Unproved("it shows no certificate".to_owned());
        }
        PeerCertificate::Unproved(key) => {
            return ShownTls::Unproved(short(&format!(
                "the key of its certificate cannot be checked: {key}"
            )));
        }
    };
    let subject = match chain.first() {
        Some(SentCertificate::Readable(leaf)) => short(&leaf.subject),
        Some(SentCertificate::Malformed) | None => "without a readable subject".to_owned(),
    };
    ShownTls::Certificate(Box::new(ShownCertificate {
        subject,
        issuer: short(&facts.issuer),
        names: facts.names.clone(),
        not_after: facts.not_after,
        key: facts.key,
        chain: facts.chain.clone(),
    }))
}

/// Returns the reason of a failure without the peer, on one line.
fn reason(failure: &Failure) -> String {
    let without_peer = Failure {
        peer: None,
        ..failure.clone()
    };
    short(&without_peer.to_string())
}
