//! A probe for people.

use std::fmt::Display;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::queue::words::plain;
use super::soon::expiry;
use super::{After, Done, Prospect};
use crate::config::{Config, WarnAfter, write_duration};
use crate::connector::{DaneFinding, MemoryFinding, MtaStsFinding, MtaStsListing, exception};
use crate::explain::{DaemonPolicies, Recollection};
use crate::failure::{Failure, Persistence};
use crate::handshake::SentCertificate;
use crate::outbound::probe::{FirstTry, ProbedHop, Seen, Sighting, trusted};
use crate::route::HopOrigin;
use crate::smtp::client::{Extensions, SizeLimit};
use crate::tls::{Authentication, NamePattern, TlsOutcome};

/// Names of a certificate that are written out; it may have hundreds.
const NAMES_SHOWN: usize = 8;

// Writing into a String cannot fail, so the results of `write!` are dropped below.

/// Everything that was seen, and what would become of mail.
pub(super) fn report(done: &Done, config: &Config) -> String {
    let mut out = format!("{}, by connector \"{}\"\n", done.recipient, done.connector.name);
    let _ = writeln!(out, "remembered  {}", remembered(&done.remembered));
    match &done.probe.hops {
        Ok(hops) => {
            for probed in hops {
                hop(&mut out, probed, &done.known);
            }
        }
        Err(failure) => {
            let _ = writeln!(out, "\nno hosts    {}", told(failure, failure.persistence));
        }
    }
    let _ = write!(out, "\n{}", prospect(done, &done.probe.prospect, config));
    if let (Some(exception), true) = (exception(&done.connector, Timestamp::now()), done.is_clear()) {
        let _ = writeln!(out, "The exception until {} allows that ({}).", exception.until, plain(&exception.reason));
    }
    if let Some(After { until, probe }) = &done.after {
        let _ = write!(out, "\nOnce the exception has ended on {until}:\n{}", prospect(done, &probe.prospect, config));
    }
    out
}

fn remembered(remembered: &Recollection) -> String {
    match remembered {
        Recollection::Told(MemoryFinding::Nothing) => "no TLS of this domain is remembered".to_owned(),
        Recollection::Told(MemoryFinding::TookTls { last }) => {
            format!("the domain took TLS, last on {}", last.to_zoned_datetime(TimeZone::UTC).date())
        }
        Recollection::NotAsked(why) => format!("left out: {}", plain(why)),
    }
}

fn hop(out: &mut String, probed: &ProbedHop, known: &DaemonPolicies) {
    let origin = match probed.hop.origin {
        HopOrigin::Mx { preference } => format!("MX {preference}"),
        HopOrigin::ImplicitMx => "the domain itself, which has no MX".to_owned(),
        HopOrigin::Literal => "the address itself".to_owned(),
        HopOrigin::SmartHost => "smart host".to_owned(),
    };
    let _ = writeln!(out, "\n{} ({origin})", probed.hop);
    let seen = match &probed.seen {
        Ok(seen) => seen,
        Err(failure) => {
            let _ = writeln!(out, "  NOT USABLE  {}", told(failure, failure.persistence));
            return;
        }
    };
    let Seen { policy, found, unmeetable, addresses } = seen;
    line(out, "wanted", &plain(&policy.to_string()));
    line(out, "DANE", &plain(&dane(&found.findings.dane)));
    line(out, "MTA-STS", &plain(&mta_sts(&found.findings.mta_sts)));
    if let Some(policy) = known.note(&found.published) {
        line(out, "", &plain(&policy.to_string()));
    }
    if let Some(failure) = unmeetable {
        line(out, "REFUSED", &format!("{}; a delivery does not even dial it", told(failure, failure.persistence)));
    }
    for sighting in addresses {
        address(out, sighting);
    }
}

fn line(out: &mut String, label: &str, text: &str) {
    let _ = writeln!(out, "  {label:<10}{text}");
}

fn dane(found: &DaneFinding) -> String {
    match found {
        DaneFinding::NotLookedUp(why) => format!("not asked: {why}"),
        DaneFinding::Absent(why) => format!("no demand: {why}"),
        DaneFinding::Unusable(why) => format!("TLS, unauthenticated: {why}"),
        DaneFinding::Usable(set) => {
            let records: Vec<_> = set.records.iter().take(NAMES_SHOWN).map(ToString::to_string).collect();
            format!("{} at {}", records.join(", "), set.base)
        }
    }
}

fn mta_sts(found: &MtaStsFinding) -> String {
    let listing = |listing: &MtaStsListing| match listing {
        MtaStsListing::Listed => "the policy lists this host".to_owned(),
        MtaStsListing::NotListed(listed) => format!("the policy does NOT list this host, but {}", names(listed)),
    };
    match found {
        MtaStsFinding::NotLookedUp(why) => format!("not asked: {why}"),
        MtaStsFinding::None(why) => format!("no policy: {why}"),
        MtaStsFinding::Enforce(found) => format!("enforce: {}", listing(found)),
        MtaStsFinding::Testing(found) => format!("testing, so not demanded: {}", listing(found)),
    }
}

fn address(out: &mut String, sighting: &Sighting) {
    let _ = writeln!(out, "\n  {}", sighting.peer);
    if let Some(FirstTry { fault, second }) = &sighting.first_try {
        line(out, "cut short", &plain(fault));
        line(out, "", &format!("tried once more, with {second}"));
    }
    match &sighting.outcome {
        Some(TlsOutcome::Tls(facts)) => {
            let key_exchange = facts.key_exchange.unwrap_or("none");
            line(out, "TLS", &format!("{}, {}, key exchange {key_exchange}", facts.version, facts.cipher));
        }
        Some(TlsOutcome::Clear(reason)) => line(out, "no TLS", &plain(&reason.to_string())),
        // The verdict tells why.
        None => {}
    }
    for (demand, verdict) in &sighting.verdicts {
        line(out, "demand", &plain(&format!("{}: {demand}", demand.layer)));
        match verdict {
            Ok(authentication) => line(out, "", &plain(&format!("met{}", known(authentication)))),
            Err(lack) => line(out, "", &plain(&format!("NOT MET: {lack}"))),
        }
    }
    for (number, sent) in (1..).zip(&sighting.chain) {
        certificate(out, number, sent);
    }
    match sighting.facts().and_then(trusted) {
        Some(Ok(())) => line(out, "trusted", "yes, by the connector's authorities"),
        Some(Err(fault)) => line(out, "trusted", &plain(&format!("NO: {fault}"))),
        None => {}
    }
    if let Some(extensions) = &sighting.extensions {
        line(out, "offers", &offers(*extensions));
    }
    match &sighting.end {
        Ok(clearance) => {
            let how = match clearance.outcome() {
                TlsOutcome::Tls(_) => format!("under TLS{}", known(clearance.authentication())),
                TlsOutcome::Clear(_) => "IN CLEAR".to_owned(),
            };
            line(out, "verdict", &plain(&format!("mail may cross it {how}")));
        }
        Err(failure) => {
            let without_peer = Failure { peer: None, ..failure.clone() };
            line(out, "verdict", &format!("FAILS: {}", told(&without_peer, failure.persistence)));
        }
    }
}

/// How the peer is known. What nobody demanded is no shortfall, but worth a word.
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

fn certificate(out: &mut String, number: usize, sent: &SentCertificate) {
    let label = format!("cert {number}");
    match sent {
        SentCertificate::Malformed => line(out, &label, "malformed"),
        SentCertificate::Readable(certificate) => {
            line(out, &label, &plain(&certificate.subject));
            if !certificate.names.is_empty() {
                line(out, "", &format!("for {}", names(&certificate.names)));
            }
            line(out, "", &plain(&format!("issued by {}", certificate.issuer)));
            line(out, "", &format!("expires {}", expiry(certificate.not_after)));
            line(out, "", &format!("pins = [\"{}\"]", certificate.key));
        }
    }
}

fn names(names: &[NamePattern]) -> String {
    let mut text = names.iter().take(NAMES_SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(NAMES_SHOWN).filter(|more| *more > 0) {
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
    let flag = |has: bool, keyword: &str| if has { keyword.to_owned() } else { format!("no {keyword}") };
    let flags = [
        (extensions.eight_bit_mime, "8BITMIME"),
        (extensions.smtputf8, "SMTPUTF8"),
        (extensions.dsn, "DSN"),
        (extensions.require_tls, "REQUIRETLS"),
    ];
    std::iter::once(size).chain(flags.map(|(has, keyword)| flag(has, keyword))).collect::<Vec<_>>().join(", ")
}

/// A failure with its status, as a report to the sender has it.
fn told(failure: &Failure, ends_as: Persistence) -> String {
    plain(&format!("{} {failure}", failure.enhanced(ends_as)))
}

/// What a sender would hear.
fn prospect(done: &Done, prospect: &Prospect, config: &Config) -> String {
    let domain = &done.recipient;
    match prospect {
        Prospect::GoesOn { peer, clearance } => match clearance.outcome() {
            TlsOutcome::Tls(_) => format!("Mail for {domain} would go to {peer} under TLS.\n"),
            TlsOutcome::Clear(reason) => {
                format!("Mail for {domain} would go to {peer} IN CLEAR: {}.\n", plain(&reason.to_string()))
            }
        },
        Prospect::Deferred(failure) => {
            let why = told(failure, Persistence::Transient);
            let expire = write_duration(config.queue.expire);
            let warned = match config.queue.warn_after {
                WarnAfter::Never => String::new(),
                WarnAfter::Age(age) => {
                    format!("after {} its sender is told that it is still being tried; ", write_duration(age))
                }
            };
            format!(
                "Mail for {domain} would WAIT:\n  {why}\n{warned}after {expire} it goes back to its sender:\n  5.4.7 not \
                 delivered within {expire}; the last attempt failed because: …\n"
            )
        }
        Prospect::Held(failure) => {
            let why = told(failure, Persistence::Transient);
            format!("Mail for {domain} would be HELD until an operator decides:\n  {why}\n")
        }
        Prospect::Bounced(failure) => {
            let why = told(failure, Persistence::Permanent);
            format!("Mail for {domain} would GO BACK to its sender at once:\n  {why}\n")
        }
    }
}

/// One word for a table, and why.
pub(super) fn brief(prospect: &Prospect) -> (&'static str, String) {
    let (word, failure, ends_as) = match prospect {
        Prospect::GoesOn { peer, clearance } => {
            return match clearance.outcome() {
                TlsOutcome::Tls(_) => ("ok", plain(&format!("{peer}{}", known(clearance.authentication())))),
                TlsOutcome::Clear(reason) => ("CLEAR", plain(&format!("{peer}: {reason}"))),
            };
        }
        Prospect::Deferred(failure) => ("WAITS", failure, Persistence::Transient),
        Prospect::Held(failure) => ("HELD", failure, Persistence::Transient),
        Prospect::Bounced(failure) => ("BOUNCES", failure, Persistence::Permanent),
    };
    (word, told(failure, ends_as))
}

/// What cannot be told by its domain.
pub(super) fn quoted(item: &impl Display) -> String {
    format!("\"{item}\"")
}
