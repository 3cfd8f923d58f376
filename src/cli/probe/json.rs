//! The JSON output of a probe. A released field name keeps its meaning; new ones may be added.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use super::domain_probe::DomainProbe;
use super::expiry::{ExpiringItem, UpcomingExpiry, days_left};
use crate::explain::document::PolicyNote;
use crate::explain::{DaemonPolicies, RememberedTls};
use crate::net::revocation::PointSummary;
use crate::net::tls_io::{SentCertificate, TlsPurposes};
use crate::policy::failure::{Failure, Persistence};
use crate::policy::layers::MemoryFinding;
use crate::policy::tls::TlsOutcome;
use crate::relay::outbound::probe::{
    AddressFindings, PredictedOutcome, ProbedHop, chain_verdict, revocation_status,
};
use crate::smtp::client::{Extensions, SizeLimit};

/// The maximum number of names of a certificate.
const NAMES_MAX: usize = 100;

/// The result for one domain.
#[derive(Serialize)]
pub(super) struct ProbeDocument {
    domain: String,
    connector: String,
    memory: MemoryDocument,
    /// The check of recipients, in a sentence.
    recipients: Option<String>,
    hops: Vec<HopDocument>,
    /// The distribution points from which this run fetched CRLs.
    crls: Vec<PointDocument>,
    #[serde(flatten)]
    end: OutcomeDocument,
    /// The last day of the exception that is in force.
    exception_until: Option<Date>,
    /// The outcome after the exception has ended.
    after_exception: Option<OutcomeDocument>,
    breaks_soon: Vec<ExpiryDocument>,
}

/// A distribution point of CRLs.
#[derive(Serialize)]
struct PointDocument {
    url: String,
    issuer: Option<String>,
    /// The number of certificates that the CRL lists.
    entries: Option<usize>,
    this_update: Option<Timestamp>,
    next_update: Option<Timestamp>,
    /// The reason why no CRL, or none that is current, could be fetched.
    failure: Option<String>,
}

impl PointDocument {
    fn of(point: &PointSummary) -> Self {
        let crl = point.crl.as_ref();
        Self {
            url: point.url.clone(),
            issuer: crl.map(|crl| crl.issuer.clone()),
            entries: crl.map(|crl| crl.entries),
            this_update: crl.map(|crl| crl.this_update),
            next_update: crl.map(|crl| crl.next_update),
            failure: point.failure.clone(),
        }
    }
}

/// The outcome that mail would have.
#[derive(Serialize)]
struct OutcomeDocument {
    outcome: &'static str,
    fails: bool,
    /// The peer that would receive the mail.
    peer: Option<String>,
    /// True if the mail would be sent under TLS.
    under_tls: Option<bool>,
    /// The reason why mail would not be delivered.
    failure: Option<FailureDocument>,
}

impl OutcomeDocument {
    fn of(prospect: &PredictedOutcome) -> Self {
        let (outcome, failure) = match prospect {
            PredictedOutcome::Sent { peer, clearance } => {
                let under_tls = Some(matches!(clearance.outcome(), TlsOutcome::Tls(_)));
                return Self {
                    outcome: "goes_on",
                    fails: false,
                    peer: Some(peer.clone()),
                    under_tls,
                    failure: None,
                };
            }
            PredictedOutcome::Deferred(failure) => (
                "deferred",
                failure_document(failure, Persistence::Transient),
            ),
            PredictedOutcome::Held(failure) => {
                ("held", failure_document(failure, Persistence::Transient))
            }
            PredictedOutcome::Bounced(failure) => {
                ("bounced", failure_document(failure, Persistence::Permanent))
            }
        };
        Self {
            outcome,
            fails: true,
            peer: None,
            under_tls: None,
            failure: Some(failure),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum MemoryDocument {
    Nothing,
    TookTls { last: Timestamp },
    Unknown { why: String },
}

#[derive(Serialize)]
struct FailureDocument {
    status: String,
    text: String,
}

#[derive(Serialize)]
struct HopDocument {
    host: String,
    port: u16,
    /// `smtp`, `smtps` or `lmtp`.
    protocol: &'static str,
    wanted: Option<String>,
    /// The MTA-STS policy that applies to the hop.
    mta_sts_policy: Option<PolicyNote>,
    /// The reason why no session with the hop can be used.
    failure: Option<FailureDocument>,
    addresses: Vec<AddressDocument>,
}

#[derive(Serialize)]
struct AddressDocument {
    address: String,
    peer: String,
    /// The broken handshake before this session, after which TLS was tried again.
    first_try: Option<FirstTryDocument>,
    tls: Option<TlsDocument>,
    no_tls: Option<String>,
    demands: Vec<VerdictDocument>,
    chain: Vec<CertificateDocument>,
    trusted: Option<bool>,
    not_trusted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<String>,
    extensions: Option<ExtensionsDocument>,
    /// Our login at the host, if the connector has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<LoginDocument>,
    cleared: bool,
    authentication: Option<String>,
    failure: Option<FailureDocument>,
}

#[derive(Serialize)]
struct LoginDocument {
    user: String,
    mechanism: Option<&'static str>,
    /// `accepted`, `rejected`, `failed` or `impossible`.
    outcome: &'static str,
}

#[derive(Serialize)]
struct FirstTryDocument {
    /// The error that ended the handshake.
    fault: String,
    /// The `ClientHello` of the second handshake.
    second_client_hello: String,
}

#[derive(Serialize)]
struct TlsDocument {
    version: String,
    cipher: &'static str,
    key_exchange: Option<&'static str>,
}

#[derive(Serialize)]
struct VerdictDocument {
    layer: String,
    demand: String,
    met: bool,
    /// The authentication of the peer, or the part of the demand that is unmet.
    why: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum CertificateDocument {
    Malformed { malformed: bool },
    Readable(Box<CertificateFields>),
}

#[derive(Serialize)]
struct CertificateFields {
    subject: String,
    issuer: String,
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    days_left: i64,
    /// The TLS purposes that the extended key usage names, `server` and `client`; both if there is
    /// none. A client may also show a certificate for servers alone.
    tls_purposes: &'static [&'static str],
    pin: String,
}

#[derive(Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a keyword of the EHLO reply, independent of the others"
)]
struct ExtensionsDocument {
    /// True if SIZE is offered.
    size: bool,
    size_limit: Option<u64>,
    eight_bit_mime: bool,
    smtputf8: bool,
    dsn: bool,
    requiretls: bool,
    /// The mechanisms of AUTH that we have.
    auth: Vec<&'static str>,
}

#[derive(Serialize)]
struct ExpiryDocument {
    /// `their_certificate`, `our_certificate` or `exception`.
    what: &'static str,
    peer: Option<String>,
    /// The subject of the peer's certificate, or the file of ours.
    certificate: Option<String>,
    at: Timestamp,
    days_left: i64,
}

/// Returns the JSON document for one domain.
pub(super) fn document(
    result: &DomainProbe,
    expiries: &[UpcomingExpiry],
    points: &[PointSummary],
) -> ProbeDocument {
    ProbeDocument {
        domain: result.recipient.to_string(),
        connector: result.connector.name.clone(),
        recipients: result.recipients.clone(),
        memory: match &result.remembered {
            RememberedTls::Known(MemoryFinding::Nothing) => MemoryDocument::Nothing,
            RememberedTls::Known(MemoryFinding::TookTls { last }) => {
                MemoryDocument::TookTls { last: *last }
            }
            RememberedTls::Unavailable(why) => MemoryDocument::Unknown { why: why.clone() },
        },
        hops: result
            .probe
            .hops
            .iter()
            .flatten()
            .map(|probed| hop(probed, &result.known))
            .collect(),
        crls: points.iter().map(PointDocument::of).collect(),
        end: OutcomeDocument::of(&result.probe.prospect),
        exception_until: result.after.as_ref().map(|after| after.until),
        after_exception: result
            .after
            .as_ref()
            .map(|after| OutcomeDocument::of(&after.probe.prospect)),
        breaks_soon: expiries.iter().map(expiry).collect(),
    }
}

fn failure_document(failure: &Failure, ends_as: Persistence) -> FailureDocument {
    FailureDocument {
        status: failure.enhanced(ends_as).to_string(),
        text: failure.to_string(),
    }
}

fn expiry(expiry: &UpcomingExpiry) -> ExpiryDocument {
    let (what, peer, certificate) = match &expiry.item {
        ExpiringItem::PeerCertificate { peer, subject } => (
            "their_certificate",
            Some(peer.clone()),
            Some(subject.clone()),
        ),
        ExpiringItem::OwnCertificate { file } => ("our_certificate", None, Some(file.clone())),
        ExpiringItem::Exception { .. } => ("exception", None, None),
    };
    ExpiryDocument {
        what,
        peer,
        certificate,
        at: expiry.at,
        days_left: days_left(expiry.at),
    }
}

fn hop(probed: &ProbedHop, known: &DaemonPolicies) -> HopDocument {
    let (wanted, failure, addresses) = match &probed.findings {
        Err(failure) => (None, Some(failure), Vec::new()),
        Ok(findings) => (
            Some(findings.policy.to_string()),
            findings.unmeetable.as_ref(),
            findings.addresses.iter().map(address).collect(),
        ),
    };
    HopDocument {
        host: probed.hop.host.to_string(),
        port: probed.hop.port,
        protocol: probed.hop.protocol.name(),
        wanted,
        mta_sts_policy: probed
            .findings
            .as_ref()
            .ok()
            .and_then(|findings| known.note(&findings.found.published)),
        failure: failure.map(|failure| failure_document(failure, failure.persistence)),
        addresses,
    }
}

fn address(findings: &AddressFindings) -> AddressDocument {
    let (tls, no_tls) = match &findings.outcome {
        Some(TlsOutcome::Tls(facts)) => {
            let (version, cipher, key_exchange) =
                (facts.version.to_string(), facts.cipher, facts.key_exchange);
            (
                Some(TlsDocument {
                    version,
                    cipher,
                    key_exchange,
                }),
                None,
            )
        }
        Some(TlsOutcome::Clear(reason)) => (None, Some(reason.to_string())),
        None => (None, None),
    };
    let trusted = findings.facts().and_then(chain_verdict);
    AddressDocument {
        address: findings.address.to_string(),
        peer: findings.peer.clone(),
        first_try: findings.first_try.as_ref().map(|first| FirstTryDocument {
            fault: first.fault.clone(),
            second_client_hello: first.second.to_string(),
        }),
        tls,
        no_tls,
        demands: findings
            .verdicts
            .iter()
            .map(|(demand, verdict)| VerdictDocument {
                layer: demand.layer.to_string(),
                demand: demand.to_string(),
                met: verdict.is_ok(),
                why: verdict
                    .as_ref()
                    .map_or_else(ToString::to_string, ToString::to_string),
            })
            .collect(),
        chain: findings.chain.iter().map(certificate).collect(),
        trusted: trusted.map(Result::is_ok),
        not_trusted: trusted
            .and_then(|trusted| trusted.as_ref().err())
            .map(ToString::to_string),
        revocation: findings.facts().and_then(revocation_status),
        extensions: findings.extensions.map(offers),
        login: findings.login.as_ref().map(|login| LoginDocument {
            user: login.user.to_string(),
            mechanism: login.mechanism,
            outcome: login.verdict.as_str(),
        }),
        cleared: findings.end.is_ok(),
        authentication: findings
            .end
            .as_ref()
            .ok()
            .map(|clearance| clearance.authentication().to_string()),
        failure: findings
            .end
            .as_ref()
            .err()
            .map(|failure| failure_document(failure, failure.persistence)),
    }
}

fn certificate(sent: &SentCertificate) -> CertificateDocument {
    match sent {
        SentCertificate::Malformed => CertificateDocument::Malformed { malformed: true },
        SentCertificate::Readable(certificate) => {
            CertificateDocument::Readable(Box::new(CertificateFields {
                subject: certificate.subject.clone(),
                issuer: certificate.issuer.clone(),
                names: certificate
                    .names
                    .iter()
                    .take(NAMES_MAX)
                    .map(ToString::to_string)
                    .collect(),
                not_before: certificate.not_before,
                not_after: certificate.not_after,
                days_left: days_left(certificate.not_after),
                tls_purposes: match certificate.purposes {
                    TlsPurposes::Any | TlsPurposes::ServersAndClients => &["server", "client"],
                    TlsPurposes::Servers => &["server"],
                    TlsPurposes::Clients => &["client"],
                    TlsPurposes::Neither => &[],
                },
                pin: certificate.key.to_string(),
            }))
        }
    }
}

fn offers(extensions: Extensions) -> ExtensionsDocument {
    let size_limit = match extensions.size {
        SizeLimit::Limit(octets) => Some(octets),
        SizeLimit::NoLimit | SizeLimit::NotOffered => None,
    };
    ExtensionsDocument {
        size: extensions.size != SizeLimit::NotOffered,
        size_limit,
        eight_bit_mime: extensions.eight_bit_mime,
        smtputf8: extensions.smtputf8,
        dsn: extensions.dsn,
        requiretls: extensions.require_tls,
        auth: extensions.auth.names().collect(),
    }
}
