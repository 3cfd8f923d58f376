//! A probe for programs. A name once released keeps its meaning; new ones may come.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use super::soon::{Soon, What, days_left};
use super::{Done, Prospect};
use crate::connector::MemoryFinding;
use crate::explain::words::PolicyNote;
use crate::explain::{DaemonPolicies, Recollection};
use crate::failure::{Failure, Persistence};
use crate::handshake::SentCertificate;
use crate::outbound::probe::{ProbedHop, Sighting, trusted};
use crate::smtp::client::{Extensions, SizeLimit};
use crate::tls::TlsOutcome;

/// Names of a certificate, at most.
const NAMES_MAX: usize = 100;

#[derive(Serialize)]
pub(super) struct Document {
    domain: String,
    connector: String,
    memory: Memory,
    hops: Vec<Hop>,
    #[serde(flatten)]
    end: End,
    /// The last day of the exception that holds, where one does.
    exception_until: Option<Date>,
    /// The same once that has ended.
    after_exception: Option<End>,
    breaks_soon: Vec<Breaks>,
}

/// The result that mail would have.
#[derive(Serialize)]
struct End {
    outcome: &'static str,
    fails: bool,
    /// Who would be spoken to of mail.
    peer: Option<String>,
    /// Whether that would be under TLS.
    under_tls: Option<bool>,
    /// Why mail would not go on.
    failure: Option<Told>,
}

impl End {
    fn of(prospect: &Prospect) -> Self {
        let (outcome, failure) = match prospect {
            Prospect::GoesOn { peer, clearance } => {
                let under_tls = Some(matches!(clearance.outcome(), TlsOutcome::Tls(_)));
                return Self { outcome: "goes_on", fails: false, peer: Some(peer.clone()), under_tls, failure: None };
            }
            Prospect::Deferred(failure) => ("deferred", told(failure, Persistence::Transient)),
            Prospect::Held(failure) => ("held", told(failure, Persistence::Transient)),
            Prospect::Bounced(failure) => ("bounced", told(failure, Persistence::Permanent)),
        };
        Self { outcome, fails: true, peer: None, under_tls: None, failure: Some(failure) }
    }
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Memory {
    Nothing,
    TookTls { last: Timestamp },
    Unknown { why: String },
}

#[derive(Serialize)]
struct Told {
    status: String,
    text: String,
}

#[derive(Serialize)]
struct Hop {
    host: String,
    port: u16,
    wanted: Option<String>,
    /// The MTA-STS policy that counts here, where there is one.
    mta_sts_policy: Option<PolicyNote>,
    /// Why it could not be used, whatever its addresses show.
    failure: Option<Told>,
    addresses: Vec<Sighted>,
}

#[derive(Serialize)]
struct Sighted {
    address: String,
    peer: String,
    /// The handshake that was cut short before, so that TLS was tried once more.
    first_try: Option<FirstTry>,
    tls: Option<Tls>,
    no_tls: Option<String>,
    demands: Vec<Verdict>,
    chain: Vec<Certificate>,
    trusted: Option<bool>,
    not_trusted: Option<String>,
    extensions: Option<Offers>,
    cleared: bool,
    authentication: Option<String>,
    failure: Option<Told>,
}

#[derive(Serialize)]
struct FirstTry {
    /// The fault that ended it.
    fault: String,
    /// The `ClientHello` of the second try.
    second_client_hello: String,
}

#[derive(Serialize)]
struct Tls {
    version: String,
    cipher: &'static str,
    key_exchange: Option<&'static str>,
}

#[derive(Serialize)]
struct Verdict {
    layer: String,
    demand: String,
    met: bool,
    /// How the peer is known, or what is missing.
    why: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Certificate {
    Malformed { malformed: bool },
    Readable(Box<Words>),
}

#[derive(Serialize)]
struct Words {
    subject: String,
    issuer: String,
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    days_left: i64,
    pin: String,
}

#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a keyword of the EHLO answer, independent of the others")]
struct Offers {
    /// Whether SIZE is offered.
    size: bool,
    size_limit: Option<u64>,
    eight_bit_mime: bool,
    smtputf8: bool,
    dsn: bool,
    requiretls: bool,
}

#[derive(Serialize)]
struct Breaks {
    /// `their_certificate`, `our_certificate` or `exception`.
    what: &'static str,
    peer: Option<String>,
    /// Whose it is, or its file.
    certificate: Option<String>,
    at: Timestamp,
    days_left: i64,
}

/// The text of a document.
pub(super) fn document(content: &impl Serialize) -> String {
    // Our own words always have a form in JSON.
    serde_json::to_string_pretty(content).unwrap_or_default() + "\n"
}

/// One probe.
pub(super) fn done(done: &Done, soon: &[Soon]) -> Document {
    Document {
        domain: done.recipient.to_string(),
        connector: done.connector.name.clone(),
        memory: match &done.remembered {
            Recollection::Told(MemoryFinding::Nothing) => Memory::Nothing,
            Recollection::Told(MemoryFinding::TookTls { last }) => Memory::TookTls { last: *last },
            Recollection::NotAsked(why) => Memory::Unknown { why: why.clone() },
        },
        hops: done.probe.hops.iter().flatten().map(|probed| hop(probed, &done.known)).collect(),
        end: End::of(&done.probe.prospect),
        exception_until: done.after.as_ref().map(|after| after.until),
        after_exception: done.after.as_ref().map(|after| End::of(&after.probe.prospect)),
        breaks_soon: soon.iter().map(breaks).collect(),
    }
}

fn told(failure: &Failure, ends_as: Persistence) -> Told {
    Told { status: failure.enhanced(ends_as).to_string(), text: failure.to_string() }
}

fn breaks(soon: &Soon) -> Breaks {
    let (what, peer, certificate) = match &soon.what {
        What::Theirs { peer, subject } => ("their_certificate", Some(peer.clone()), Some(subject.clone())),
        What::Ours { file } => ("our_certificate", None, Some(file.clone())),
        What::Exception { .. } => ("exception", None, None),
    };
    Breaks { what, peer, certificate, at: soon.at, days_left: days_left(soon.at) }
}

fn hop(probed: &ProbedHop, known: &DaemonPolicies) -> Hop {
    let (wanted, failure, addresses) = match &probed.seen {
        Err(failure) => (None, Some(failure), Vec::new()),
        Ok(seen) => {
            (Some(seen.policy.to_string()), seen.unmeetable.as_ref(), seen.addresses.iter().map(address).collect())
        }
    };
    Hop {
        host: probed.hop.host.to_string(),
        port: probed.hop.port,
        wanted,
        mta_sts_policy: probed.seen.as_ref().ok().and_then(|seen| known.note(&seen.found.published)),
        failure: failure.map(|failure| told(failure, failure.persistence)),
        addresses,
    }
}

fn address(sighting: &Sighting) -> Sighted {
    let (tls, no_tls) = match &sighting.outcome {
        Some(TlsOutcome::Tls(facts)) => {
            let (version, cipher, key_exchange) = (facts.version.to_string(), facts.cipher, facts.key_exchange);
            (Some(Tls { version, cipher, key_exchange }), None)
        }
        Some(TlsOutcome::Clear(reason)) => (None, Some(reason.to_string())),
        None => (None, None),
    };
    let trusted = sighting.facts().and_then(trusted);
    Sighted {
        address: sighting.address.to_string(),
        peer: sighting.peer.clone(),
        first_try: sighting
            .first_try
            .as_ref()
            .map(|first| FirstTry { fault: first.fault.clone(), second_client_hello: first.second.to_string() }),
        tls,
        no_tls,
        demands: sighting
            .verdicts
            .iter()
            .map(|(demand, verdict)| Verdict {
                layer: demand.layer.to_string(),
                demand: demand.to_string(),
                met: verdict.is_ok(),
                why: verdict.as_ref().map_or_else(ToString::to_string, ToString::to_string),
            })
            .collect(),
        chain: sighting.chain.iter().map(certificate).collect(),
        trusted: trusted.map(Result::is_ok),
        not_trusted: trusted.and_then(|trusted| trusted.as_ref().err()).map(ToString::to_string),
        extensions: sighting.extensions.map(offers),
        cleared: sighting.end.is_ok(),
        authentication: sighting.end.as_ref().ok().map(|clearance| clearance.authentication().to_string()),
        failure: sighting.end.as_ref().err().map(|failure| told(failure, failure.persistence)),
    }
}

fn certificate(sent: &SentCertificate) -> Certificate {
    match sent {
        SentCertificate::Malformed => Certificate::Malformed { malformed: true },
        SentCertificate::Readable(certificate) => Certificate::Readable(Box::new(Words {
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            names: certificate.names.iter().take(NAMES_MAX).map(ToString::to_string).collect(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            days_left: days_left(certificate.not_after),
            pin: certificate.key.to_string(),
        })),
    }
}

fn offers(extensions: Extensions) -> Offers {
    let size_limit = match extensions.size {
        SizeLimit::Limit(octets) => Some(octets),
        SizeLimit::NoLimit | SizeLimit::NotOffered => None,
    };
    Offers {
        size: extensions.size != SizeLimit::NotOffered,
        size_limit,
        eight_bit_mime: extensions.eight_bit_mime,
        smtputf8: extensions.smtputf8,
        dsn: extensions.dsn,
        requiretls: extensions.require_tls,
    }
}
