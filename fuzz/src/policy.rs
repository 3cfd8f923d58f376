//! The texts that domains publish: MTA-STS records and policies, and the addresses for TLS reports.

use std::sync::LazyLock;

use gatepost::smtp::address::Domain;
use gatepost::discovery::mta_sts::{self, Listing, MtaStsMode, MtaStsPolicy, PolicyId};
use gatepost::net::https::Url;
use gatepost::policy::tls::NamePattern;
use gatepost::relay::tlsrpt::record::{self, ReportDestination};
use jiff::Timestamp;

/// The maximum length of a policy in octets, and the maximum time for which it is cached, in
/// seconds.
const BODY_MAX: usize = 64 * 1024;
const MAX_AGE_MAX: u64 = 31_557_600;
/// The maximum length of an error text, in octets.
const WORDS_MAX: usize = 2048;

static DOMAIN: LazyLock<Domain> = LazyLock::new(|| Domain::parse("example.test").expect("a domain"));
static ID: LazyLock<PolicyId> =
    LazyLock::new(|| mta_sts::record_id(&["v=STSv1; id=1;"]).expect("a record").expect("an id"));

pub(crate) fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    if *kind == b'p' {
        return policy(rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match kind {
        b's' => sts_record(text),
        b'r' => report_record(text),
        _ => url(text),
    }
}

fn policy(body: &[u8]) {
    let policy = match mta_sts::policy_body(DOMAIN.clone(), ID.clone(), body) {
        Ok(policy) => policy,
        Err(fault) => {
            let words = fault.to_string();
            assert!(words.len() <= WORDS_MAX && !words.chars().any(char::is_control), "{words:?}");
            return;
        }
    };
    assert!(body.len() <= BODY_MAX, "a policy of {} octets", body.len());
    assert!(policy.max_age().as_secs() <= MAX_AGE_MAX, "it is kept for {:?}", policy.max_age());
    let lines = policy.lines();
    let mx_lines = policy.mx_lines();
    assert!(policy.mode() == MtaStsMode::None || !mx_lines.is_empty(), "a policy without hosts");
    assert!(mx_lines.len() <= body.split(|octet| *octet == b'\n').count(), "hosts out of nothing");
    let again = MtaStsPolicy::from_parts(DOMAIN.clone(), ID.as_str(), &lines.join("\n"), Timestamp::UNIX_EPOCH);
    assert_eq!(again.as_ref(), Some(&policy), "written as {lines:?}");
    let text = std::str::from_utf8(body).expect("only UTF-8 is accepted");
    assert!(text.contains("STSv1") && text.contains(policy.mode().as_str()), "{text:?} is a policy");
    for host in ["mx.example.test", "a.b.example.test", "example.test"] {
        let wanted = policy.mx().any(|pattern| lists(pattern, host));
        let host = Domain::parse(host).expect("a domain");
        let listed = mta_sts::evaluate(&policy, &host) == Listing::Listed;
        assert_eq!(listed, wanted, "{host} by {mx_lines:?}");
    }
}

/// Returns whether a host matches a pattern (RFC 8461 §4.1).
fn lists(pattern: &NamePattern, host: &str) -> bool {
    let text = pattern.to_string();
    match text.strip_prefix("*.") {
        None => text == host,
        Some(base) => host.split_once('.').is_some_and(|(_, parent)| parent == base),
    }
}

fn sts_record(text: &str) {
    let records: Vec<&str> = text.split('\n').collect();
    let ours = records.iter().filter(|record| record.starts_with("v=STSv1;")).count();
    match mta_sts::record_id(&records) {
        Ok(None) => assert_eq!(ours, 0, "{records:?} are no records"),
        Ok(Some(id)) => {
            assert_eq!(ours, 1, "{records:?} are one record");
            let id = id.as_str();
            assert!((1..=32).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric()), "{id:?}");
            assert!(text.contains(&format!("id={id}")), "{id} comes out of {text:?}");
            let again = mta_sts::record_id(&[&format!("v=STSv1;id={id};")]).expect("it is a record");
            assert_eq!(again.as_ref().map(PolicyId::as_str), Some(id));
        }
        Err(fault) => assert!(ours > 0 && fault.to_string().len() <= WORDS_MAX, "{records:?}: {fault}"),
    }
}

fn report_record(text: &str) {
    let records: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let record = match record::parse(&records) {
        Ok(record) => record,
        Err(fault) => {
            // Up to ten reasons, each with the text that it is about.
            assert!(fault.to_string().len() <= 4 * WORDS_MAX, "{} octets: {fault}", fault.to_string().len());
            return;
        }
    };
    let count = record.destinations.len();
    assert!((1..=record::DESTINATIONS_MAX).contains(&count), "{count} destinations");
    assert!(record.unusable.len() <= record::DESTINATIONS_MAX, "{} reasons", record.unusable.len());
    for (at, destination) in record.destinations.iter().enumerate() {
        assert!(!record.destinations[..at].contains(destination), "{destination} twice");
        if let ReportDestination::Https(address) = destination {
            assert!(!address.path().contains(['\r', '\n', ' ', '#']), "{address} is two lines");
            url(&address.to_string());
        }
    }
}

fn url(text: &str) {
    let Ok(url) = Url::parse(text) else { return };
    let written = url.to_string();
    assert!(url.port() > 0 && url.path().starts_with('/'), "{written}");
    assert!(
        written.is_ascii() && !written.bytes().any(|octet| octet.is_ascii_control() || octet == b' '),
        "{written:?}"
    );
    // A name in U-labels is longer in its written form.
    if written.len() <= 2000 {
        assert_eq!(Url::parse(&written).as_ref(), Ok(&url), "{text:?} becomes {written:?}");
    }
}
