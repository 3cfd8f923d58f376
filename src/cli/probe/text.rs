//! The text output of a probe.

use std::fmt::Display;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::format::{WrappedText, plain};
use super::domain_probe::{AfterException, DomainProbe};
use super::expiry::date_and_days;
use crate::config::{Config, WarnAfter, write_duration};
use crate::explain::{DaemonPolicies, RememberedTls};
use crate::net::revocation::PointSummary;
use crate::net::route::HopOrigin;
use crate::net::tls_io::SentCertificate;
use crate::policy::connector::exception;
use crate::policy::failure::{Failure, Persistence};
use crate::policy::layers::{DaneFinding, MemoryFinding, MtaStsFinding, MtaStsListing};
use crate::policy::tls::{Authentication, NamePattern, TlsOutcome};
use crate::relay::outbound::probe::{
    AddressFindings, FirstTry, HopFindings, PredictedOutcome, ProbedHop, chain_verdict,
    revocation_status,
};
use crate::smtp::address::Host;
use crate::smtp::client::{Extensions, SizeLimit};

/// The maximum number of names of a certificate, which may have hundreds.
const NAMES_MAX: usize = 8;

/// Returns everything that the probe saw, and the result that mail would have, in lines of at most
/// `width` columns.
pub(super) fn report(
    result: &DomainProbe,
    config: &Config,
    points: &[PointSummary],
    width: usize,
) -> String {
    let mut out = WrappedText::new(width);
    let (recipient, connector) = (&result.recipient, &result.connector.name);
    out.line(0, &format!("{recipient}, by connector \"{connector}\""));
    out.pair(0, 16, "downgrade memory", &remembered(&result.remembered));
    if let Some(recipients) = &result.recipients {
        out.pair(0, 16, "recipients", recipients);
    }
    match &result.probe.hops {
        Ok(hops) => {
            for probed in hops {
                hop(&mut out, probed, &result.known);
            }
        }
        Err(failure) => {
            out.blank();
            out.pair(
                0,
                16,
                "no hosts",
                &failure_text(failure, failure.persistence),
            );
        }
    }
    revocation_lists(&mut out, points);
    out.blank();
    prospect(&mut out, recipient, &result.probe.prospect, config);
    if let (Some(exception), true) = (
        exception(&result.connector, Timestamp::now()),
        result.is_clear(),
    ) {
        let (until, reason) = (exception.until, &exception.reason);
        out.line(
            0,
            &format!("The exception until {until} allows that ({reason})."),
        );
    }
    if let Some(AfterException { until, probe }) = &result.after {
        out.blank();
        out.line(0, &format!("After the exception has ended on {until}:"));
        prospect(&mut out, recipient, &probe.prospect, config);
    }
    out.end()
}

/// Adds the CRLs that were fetched for the probe, or the reason why they were not.
fn revocation_lists(out: &mut WrappedText, points: &[PointSummary]) {
    if !points.is_empty() {
        out.blank();
        out.line(0, "Revocation lists fetched");
    }
    for point in points {
        out.line(2, &plain(&point.url));
        if let Some(crl) = &point.crl {
            let (issuer, until) = (&crl.issuer, crl.next_update);
            let listed = format!("of {issuer}, {} listed, until {until}", crl.entries);
            line(out, "", &plain(&listed));
        }
        if let Some(failure) = &point.failure {
            line(out, "FAILED", &plain(failure));
        }
    }
}

fn remembered(remembered: &RememberedTls) -> String {
    match remembered {
        RememberedTls::Known(MemoryFinding::Nothing) => {
            "no TLS of this domain is remembered".to_owned()
        }
        RememberedTls::Known(MemoryFinding::TookTls { last }) => {
            format!(
                "the domain used TLS, last on {}",
                last.to_zoned_datetime(TimeZone::UTC).date()
            )
        }
        RememberedTls::Unavailable(why) => format!("not available: {}", plain(why)),
    }
}

fn hop(out: &mut WrappedText, probed: &ProbedHop, known: &DaemonPolicies) {
    let origin = match probed.hop.origin {
        HopOrigin::Mx { preference } => format!("MX {preference}"),
        HopOrigin::ImplicitMx => "the domain itself, which has no MX".to_owned(),
        HopOrigin::Literal => "the address itself".to_owned(),
        HopOrigin::SmartHost => "smart host".to_owned(),
    };
    out.blank();
    out.line(0, &format!("{} ({origin})", probed.hop));
    let findings = match &probed.findings {
        Ok(findings) => findings,
        Err(failure) => {
            let failure = failure_text(failure, failure.persistence);
            out.pair(2, 10, "NOT USABLE", &failure);
            return;
        }
    };
    let HopFindings {
        policy,
        found,
        unmeetable,
        addresses,
    } = findings;
    line(out, "policy", &plain(&policy.to_string()));
    line(out, "DANE", &plain(&dane(&found.findings.dane)));
    line(out, "MTA-STS", &plain(&mta_sts(&found.findings.mta_sts)));
    if let Some(policy) = known.note(&found.published) {
        line(out, "", &plain(&policy.to_string()));
    }
    if let Some(failure) = unmeetable {
        let failure = failure_text(failure, failure.persistence);
        line(
            out,
            "REFUSED",
            &format!("{failure}; a delivery does not dial it"),
        );
    }
    for findings in addresses {
        address(out, findings);
    }
}

fn line(out: &mut WrappedText, label: &str, text: &str) {
    out.pair(2, 8, label, text);
}

fn dane(found: &DaneFinding) -> String {
    match found {
        DaneFinding::NotLookedUp(why) => format!("not looked up: {why}"),
        DaneFinding::Absent(why) => format!("no demand: {why}"),
        DaneFinding::Unusable(why) => format!("TLS, unauthenticated: {why}"),
        DaneFinding::Usable(set) => {
            let records: Vec<_> = set
                .records
                .iter()
                .take(NAMES_MAX)
                .map(ToString::to_string)
                .collect();
            format!("{} at {}", records.join(", "), set.base)
        }
    }
}

fn mta_sts(found: &MtaStsFinding) -> String {
    let listing = |listing: &MtaStsListing| match listing {
        MtaStsListing::Listed => "the policy lists this host".to_owned(),
        MtaStsListing::NotListed(listed) => {
            format!("the policy does NOT list this host, but {}", names(listed))
        }
    };
    match found {
        MtaStsFinding::NotLookedUp(why) => format!("not looked up: {why}"),
        MtaStsFinding::None(why) => format!("no policy: {why}"),
        MtaStsFinding::Enforce(found) => format!("enforce: {}", listing(found)),
        MtaStsFinding::Testing(found) => format!("testing, so not demanded: {}", listing(found)),
    }
}

fn address(out: &mut WrappedText, findings: &AddressFindings) {
    out.blank();
    out.line(2, &findings.peer);
    if let Some(FirstTry { fault, second }) = &findings.first_try {
        line(out, "broken", &plain(fault));
        line(out, "", &format!("second handshake with {second}"));
    }
    match &findings.outcome {
        Some(TlsOutcome::Tls(facts)) => {
            let key_exchange = facts.key_exchange.unwrap_or("none");
            line(
                out,
                "TLS",
                &format!(
                    "{}, {}, key exchange {key_exchange}",
                    facts.version, facts.cipher
                ),
            );
        }
        Some(TlsOutcome::Clear(reason)) => line(out, "no TLS", &plain(&reason.to_string())),
        // The verdict below has the reason.
        None => {}
    }
    for (demand, verdict) in &findings.verdicts {
        line(
            out,
            "demand",
            &plain(&format!("{}: {demand}", demand.layer)),
        );
        match verdict {
            Ok(authentication) => line(out, "", &plain(&format!("met{}", known(authentication)))),
            Err(lack) => line(out, "", &plain(&format!("NOT MET: {lack}"))),
        }
    }
    for (number, sent) in (1..).zip(&findings.chain) {
        certificate(out, number, sent);
    }
    match findings.facts().and_then(chain_verdict) {
        Some(Ok(())) => line(out, "trusted", "yes, by the connector's authorities"),
        Some(Err(fault)) => line(out, "trusted", &plain(&format!("NO: {fault}"))),
        None => {}
    }
    if let Some(status) = findings.facts().and_then(revocation_status) {
        line(out, "revoked", &plain(&status));
    }
    if let Some(extensions) = &findings.extensions {
        line(out, "offers", &offers(*extensions));
    }
    if let Some(login) = &findings.login {
        line(out, "login", &plain(&login.to_string()));
    }
    verdict(out, findings);
}

/// Adds the verdict of the judge.
fn verdict(out: &mut WrappedText, findings: &AddressFindings) {
    match &findings.end {
        Ok(clearance) => {
            let outcome = match clearance.outcome() {
                TlsOutcome::Tls(_) => format!("under TLS{}", known(clearance.authentication())),
                TlsOutcome::Clear(_) => "IN THE CLEAR".to_owned(),
            };
            line(
                out,
                "verdict",
                &plain(&format!("mail may be sent {outcome}")),
            );
        }
        Err(failure) => {
            let without_peer = Failure {
                peer: None,
                ..failure.clone()
            };
            line(
                out,
                "verdict",
                &format!(
                    "FAILS: {}",
                    failure_text(&without_peer, failure.persistence)
                ),
            );
        }
    }
}

/// Returns the authentication of the peer. If the certificate is not trusted, which no layer
/// demanded, the reason is added.
fn known(authentication: &Authentication) -> String {
    match authentication {
        Authentication::Untrusted(lack) => format!(", though {lack}"),
        Authentication::Anonymous
        | Authentication::Unproved(_)
        | Authentication::Trusted
        | Authentication::Verified(_)
        | Authentication::Pinned(_)
        | Authentication::Dane { .. } => format!(": {authentication}"),
    }
}

fn certificate(out: &mut WrappedText, number: usize, sent: &SentCertificate) {
    let label = format!("cert {number}");
    match sent {
        SentCertificate::Malformed => line(out, &label, "malformed"),
        SentCertificate::Readable(certificate) => {
            line(out, &label, &plain(&certificate.subject));
            if !certificate.names.is_empty() {
                line(out, "", &format!("for {}", names(&certificate.names)));
            }
            line(
                out,
                "",
                &plain(&format!("issued by {}", certificate.issuer)),
            );
            line(
                out,
                "",
                &format!("expires {}", date_and_days(certificate.not_after)),
            );
            if number == 1 {
                line(out, "", &format!("allows {}", certificate.purposes));
            }
            line(out, "", &format!("pins = [\"{}\"]", certificate.key));
        }
    }
}

fn names(names: &[NamePattern]) -> String {
    let mut text = names
        .iter()
        .take(NAMES_MAX)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = names.len().checked_sub(NAMES_MAX).filter(|more| *more > 0) {
        let _ = write!(text, " and {more} more");
    }
    text
}

fn offers(extensions: Extensions) -> String {
    let size = match extensions.size {
        SizeLimit::NotOffered => "no SIZE".to_owned(),
        SizeLimit::NoLimit => "SIZE without a limit".to_owned(),
        SizeLimit::Limit(octets) => format!("SIZE {octets}"),
    };
    let flag = |has: bool, keyword: &str| {
        if has {
            keyword.to_owned()
        } else {
            format!("no {keyword}")
        }
    };
    let flags = [
        (extensions.eight_bit_mime, "8BITMIME"),
        (extensions.smtputf8, "SMTPUTF8"),
        (extensions.dsn, "DSN"),
        (extensions.require_tls, "REQUIRETLS"),
    ];
    let auth: Vec<_> = extensions.auth.names().collect();
    let auth = match (extensions.auth.is_offered, auth.is_empty()) {
        (false, _) => None,
        (true, true) => Some("AUTH without a mechanism that we have".to_owned()),
        (true, false) => Some(format!("AUTH {}", auth.join(" "))),
    };
    std::iter::once(size)
        .chain(flags.map(|(has, keyword)| flag(has, keyword)))
        .chain(auth)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns a failure with its enhanced status, as in a report to the sender.
fn failure_text(failure: &Failure, ends_as: Persistence) -> String {
    plain(&format!("{} {failure}", failure.enhanced(ends_as)))
}

/// Adds the result that mail would have, as its sender would see it.
fn prospect(out: &mut WrappedText, domain: &Host, prospect: &PredictedOutcome, config: &Config) {
    let connectors = config.connectors();
    let schedule = config.queue.schedule(connectors.for_host(domain));
    match prospect {
        PredictedOutcome::Sent { peer, clearance } => {
            let how = match clearance.outcome() {
                TlsOutcome::Tls(_) => "under TLS".to_owned(),
                TlsOutcome::Clear(reason) => format!("IN THE CLEAR: {reason}"),
            };
            out.line(0, &format!("Mail for {domain} would go to {peer} {how}."));
        }
        PredictedOutcome::Deferred(failure) => {
            let expire = write_duration(schedule.expire);
            out.line(0, &format!("Mail for {domain} would be DEFERRED:"));
            out.line(2, &failure_text(failure, Persistence::Transient));
            let delay_report = match schedule.warn_after {
                WarnAfter::Never => String::new(),
                WarnAfter::Age(age) => format!(
                    "after {} its sender gets a delay report; ",
                    write_duration(age)
                ),
            };
            out.line(0, &format!("{delay_report}after {expire} it bounces:"));
            let last =
                format!("5.4.7 not delivered within {expire}; the last attempt failed because: …");
            out.line(2, &last);
        }
        PredictedOutcome::Held(failure) => {
            let held = format!("Mail for {domain} would be HELD until an operator decides:");
            out.line(0, &held);
            out.line(2, &failure_text(failure, Persistence::Transient));
        }
        PredictedOutcome::Bounced(failure) => {
            out.line(0, &format!("Mail for {domain} would BOUNCE at once:"));
            out.line(2, &failure_text(failure, Persistence::Permanent));
        }
    }
}

/// Returns the outcome in one word for a table, and the reason.
pub(in crate::cli) fn brief(prospect: &PredictedOutcome) -> (&'static str, String) {
    let (outcome, failure, ends_as) = match prospect {
        PredictedOutcome::Sent { peer, clearance } => {
            return match clearance.outcome() {
                TlsOutcome::Tls(_) => (
                    "ok",
                    plain(&format!("{peer}{}", known(clearance.authentication()))),
                ),
                TlsOutcome::Clear(reason) => ("CLEAR", plain(&format!("{peer}: {reason}"))),
            };
        }
        PredictedOutcome::Deferred(failure) => ("DEFERRED", failure, Persistence::Transient),
        PredictedOutcome::Held(failure) => ("HELD", failure, Persistence::Transient),
        PredictedOutcome::Bounced(failure) => ("BOUNCES", failure, Persistence::Permanent),
    };
    (outcome, failure_text(failure, ends_as))
}

/// Returns an item in quotes.
pub(super) fn quoted(item: &impl Display) -> String {
    format!("\"{item}\"")
}
