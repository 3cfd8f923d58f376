//! DANE for SMTP: looks up the TLSA records of a hop.
//!
//! Sources: RFC 7672 §2.2 (which lookups count, under which name), RFC 7671 §4 and §9 (usable
//! records, digest agility). Certificates are compared in [`crate::net::tls_io`] and judged in
//! [`crate::policy::tls`]. If the lookup fails the host must not be used; otherwise an attacker
//! could switch DANE off by breaking lookups.

use std::fmt;
use std::sync::Arc;

use super::query::{HopQuery, reason_to_skip};
use crate::config::Publication;
use crate::net::dns::{AnswerRecords, CnameChain, LookupError, Security, TlsaRecord};
use crate::net::route::RouteBasis;
use crate::policy::connector::demands_dane;
use crate::policy::failure::Failure;
use crate::policy::layers::DaneFinding;
use crate::policy::tls::{
    DaneScope, NamePattern, Tlsa, TlsaMatching, TlsaSelector, TlsaSet, TlsaUsage,
};
use crate::smtp::address::{Domain, Host};
use crate::smtp::reply::Status;

/// The maximum number of records of one host that a certificate is compared with.
const RECORDS_MAX: usize = 32;
const ADDRESS: &str = "the host is named by its address";
const LOCALHOST: &str = "the host is this machine, so DNS is not queried";

/// Looks up the TLSA records of a hop.
///
/// # Errors
/// A [`Failure`] of this hop with 4.7.5: the lookup failed, so the host must not be used (RFC 7672
/// §2.1.2).
pub async fn look_up(query: &HopQuery<'_>) -> Result<DaneFinding, Failure> {
    // A message cannot override a demand of the connector itself.
    let demands_dane = |connector| demands_dane(connector, query.now);
    if !query.connector.with_floor().any(demands_dane)
        && let Some(why) = reason_to_skip(query, Publication::Dane)
    {
        return Ok(DaneFinding::NotLookedUp(why));
    }
    let Host::Domain(host) = &query.hop.host else {
        return Ok(DaneFinding::NotLookedUp(ADDRESS));
    };
    let Some(chain) = &query.addresses.chain else {
        return Ok(DaneFinding::NotLookedUp(LOCALHOST));
    };
    let mut absent = format!("the addresses of {host} are {}", insecurity(chain));
    for base in bases(host, chain) {
        let name = format!("_{}._tcp.{base}", query.hop.port);
        let answer = query
            .dns
            .tlsa(query.hop.port, &base)
            .await
            .map_err(|fault| lookup_failure(&name, &fault))?;
        absent = match (&answer.found, answer.security) {
            (AnswerRecords::Records(records), Security::Secure) => {
                return Ok(select_records(&name, records, |records| TlsaSet {
                    names: names(query, host, &base),
                    scope: scope(query.basis),
                    base,
                    records,
                }));
            }
            (AnswerRecords::NoData | AnswerRecords::NoDomain, Security::Secure) => {
                format!("DNSSEC proves that {name} has no TLSA records")
            }
            (_, Security::Insecure(why)) => format!("the DNS answer for {name} is {why}"),
        };
    }
    Ok(DaneFinding::Absent(absent))
}

/// Returns the names whose TLSA records apply, best first (RFC 7672 §2.2.2): the target of the
/// alias if the whole chain is secure, then the host name itself if its own zone is signed.
// Rule: RFC 7672 §2.2.3.
fn bases(host: &Domain, chain: &CnameChain) -> Vec<Domain> {
    let expanded = chain
        .domain()
        .filter(|expanded| expanded != host && chain.security.is_secure());
    let original = chain.first_link.is_secure().then(|| host.clone());
    expanded.into_iter().chain(original).collect()
}

// Rule: RFC 7672 §2.2, §2.2.2.
fn insecurity(chain: &CnameChain) -> String {
    match chain.security {
        Security::Insecure(why) => why.to_string(),
        Security::Secure => "secure".to_owned(),
    }
}

/// Returns the scope of the records: the recipient domain, or the host alone (RFC 7672 §2.2.1).
fn scope(basis: &RouteBasis) -> DaneScope {
    if basis.is_secure() {
        DaneScope::Domain
    } else {
        DaneScope::Host
    }
}

/// Returns the names of which a certificate under a DANE-TA record must have one (RFC 7672 §3.2.2):
/// the base domain and the host name and, if the MX records are secure, the recipient domain and
/// the target of its alias.
fn names(query: &HopQuery<'_>, host: &Domain, base: &Domain) -> Vec<NamePattern> {
    let mut names = vec![base.clone(), host.clone()];
    if let RouteBasis::Mx(chain) = query.basis
        && chain.security.is_secure()
    {
        names.extend(
            query
                .recipient
                .domain()
                .cloned()
                .into_iter()
                .chain(chain.domain()),
        );
    }
    let mut unique: Vec<NamePattern> = Vec::new();
    for name in names.into_iter().map(NamePattern::Exact) {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}

// Rule: RFC 7672 §2.1.2.
fn lookup_failure(name: &str, fault: &LookupError) -> Failure {
    let text = format!(
        "the TLSA lookup for {name} failed, and a host whose TLSA records are not known is not used (RFC 7672): {fault}"
    );
    Failure::discovery(Status(7, 5), text)
}

/// Selects the usable records of a secure answer.
// Rule: RFC 7672 §3.1.
fn select_records(
    name: &str,
    records: &[TlsaRecord],
    set: impl FnOnce(Vec<Tlsa>) -> TlsaSet,
) -> DaneFinding {
    let mut usable = Vec::new();
    let mut unusable = Vec::new();
    for record in records {
        match check_record(record) {
            Ok(tlsa) if usable.contains(&tlsa) => {}
            Ok(tlsa) => usable.push(tlsa),
            Err(why) if unusable.contains(&why) => {}
            Err(why) => unusable.push(why),
        }
    }
    if usable.is_empty() {
        let reasons = unusable
            .iter()
            .take(3)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        return DaneFinding::Unusable(format!("no TLSA record of {name} is usable: {reasons}"));
    }
    let mut records = strongest_digests(&usable);
    records.truncate(RECORDS_MAX);
    DaneFinding::Usable(Arc::new(set(records)))
}

/// Selects the usable records of a secure answer, for the fuzzer.
///
/// # Errors
/// The reason why no record is usable.
#[cfg(fuzzing)]
pub fn fuzzed(base: &Domain, records: &[TlsaRecord]) -> Result<Vec<Tlsa>, String> {
    let set = |records| TlsaSet {
        base: base.clone(),
        records,
        names: Vec::new(),
        scope: DaneScope::Domain,
    };
    match select_records(&format!("_25._tcp.{base}"), records, set) {
        DaneFinding::Usable(set) => Ok(set.records.clone()),
        DaneFinding::Unusable(why) | DaneFinding::Absent(why) => Err(why),
        DaneFinding::NotLookedUp(why) => Err(why.to_owned()),
    }
}

/// Applies digest agility (RFC 7671 §9): of several digests with the same usage and selector only
/// the strongest counts; full values always count. DANE-EE records come first, since they need no
/// certificate path.
// Rule: RFC 7672 §5.
fn strongest_digests(records: &[Tlsa]) -> Vec<Tlsa> {
    let has_stronger = |record: &Tlsa| {
        record.matching == TlsaMatching::Sha256
            && records.iter().any(|other| {
                (other.usage, other.selector, other.matching)
                    == (record.usage, record.selector, TlsaMatching::Sha512)
            })
    };
    let of = |usage| {
        records
            .iter()
            .filter(move |record| record.usage == usage && !has_stronger(record))
    };
    of(TlsaUsage::EndEntity)
        .chain(of(TlsaUsage::TrustAnchor))
        .cloned()
        .collect()
}

/// The reason why a TLSA record is unusable (RFC 7672 §3.1.3, RFC 7671 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
enum UnusableRecord {
    /// PKIX-TA or PKIX-EE. SMTP servers and clients share no list of authorities, so these are not
    /// used.
    Pkix(u8),
    Usage(u8),
    Selector(u8),
    Matching(u8),
    /// The digest has this wrong number of octets.
    Digest(usize),
    /// The full value is not DER.
    Encoding,
}

impl fmt::Display for UnusableRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pkix(usage) => write!(f, "certificate usage {usage} (PKIX) is not used in SMTP"),
            Self::Usage(usage) => write!(f, "there is no certificate usage {usage}"),
            Self::Selector(selector) => write!(f, "there is no selector {selector}"),
            Self::Matching(matching) => write!(f, "there is no matching type {matching}"),
            Self::Digest(octets) => write!(f, "a digest of {octets} octets has the wrong length"),
            Self::Encoding => f.write_str("a certificate or key is not in DER"),
        }
    }
}

// Rule: RFC 7672 §3.1.
fn check_record(record: &TlsaRecord) -> Result<Tlsa, UnusableRecord> {
    let usage = match record.usage {
        2 => TlsaUsage::TrustAnchor,
        3 => TlsaUsage::EndEntity,
        usage @ (0 | 1) => return Err(UnusableRecord::Pkix(usage)),
        usage => return Err(UnusableRecord::Usage(usage)),
    };
    let selector = match record.selector {
        0 => TlsaSelector::Certificate,
        1 => TlsaSelector::PublicKey,
        selector => return Err(UnusableRecord::Selector(selector)),
    };
    let (matching, length) = match record.matching {
        0 => (TlsaMatching::Full, None),
        1 => (TlsaMatching::Sha256, Some(32)),
        2 => (TlsaMatching::Sha512, Some(64)),
        matching => return Err(UnusableRecord::Matching(matching)),
    };
    match length {
        Some(length) if record.data.len() != length => {
            return Err(UnusableRecord::Digest(record.data.len()));
        }
        None if !is_one_sequence(&record.data) => return Err(UnusableRecord::Encoding),
        Some(_) | None => {}
    }
    Ok(Tlsa {
        usage,
        selector,
        matching,
        data: record.data.clone(),
    })
}

/// Returns true if the octets are exactly one DER SEQUENCE, as a certificate or public key is.
fn is_one_sequence(octets: &[u8]) -> bool {
    let (length, content, least) = match octets {
        [0x30, length @ 0..=0x7f, content @ ..] => (usize::from(*length), content, 0),
        [0x30, 0x81, length, content @ ..] => (usize::from(*length), content, 0x80),
        [0x30, 0x82, high, low, content @ ..] => (
            usize::from(u16::from_be_bytes([*high, *low])),
            content,
            0x100,
        ),
        _ => return false,
    };
    // DER uses the shortest form of a length (X.690 §10.1).
    content.len() == length && length >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(usage: u8, selector: u8, matching: u8, data: &[u8]) -> TlsaRecord {
        TlsaRecord {
            usage,
            selector,
            matching,
            data: data.to_vec(),
        }
    }

    /// Returns the selected records as `usage selector matching`, or the reason why none is usable.
    fn selected(records: &[TlsaRecord]) -> String {
        let set = |records| TlsaSet {
            base: Domain::parse("mx.test").expect("a domain"),
            records,
            names: Vec::new(),
            scope: DaneScope::Domain,
        };
        match select_records("_25._tcp.mx.test", records, set) {
            DaneFinding::Usable(set) => set
                .records
                .iter()
                .map(|tlsa| tlsa.to_string()[..5].to_owned())
                .collect::<Vec<_>>()
                .join(", "),
            DaneFinding::Unusable(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_usage_selector_and_matching_type_is_usable_or_not() {
        let der = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
        for usage in 0..=4_u8 {
            for selector in 0..=2_u8 {
                for (matching, data) in [
                    (0, der.as_slice()),
                    (1, &[7; 32]),
                    (2, &[7; 64]),
                    (3, &[7; 32]),
                ] {
                    let selected = selected(&[record(usage, selector, matching, data)]);
                    let unusable = match (usage, selector, matching) {
                        (0 | 1, ..) => Some(format!(
                            "certificate usage {usage} (PKIX) is not used in SMTP"
                        )),
                        (4, ..) => Some("there is no certificate usage 4".to_owned()),
                        (_, 2, _) => Some("there is no selector 2".to_owned()),
                        (_, _, 3) => Some("there is no matching type 3".to_owned()),
                        _ => None,
                    };
                    let expected = match unusable {
                        Some(why) => format!("no TLSA record of _25._tcp.mx.test is usable: {why}"),
                        None => format!("{usage} {selector} {matching}"),
                    };
                    assert_eq!(selected, expected);
                }
            }
        }
    }

    #[test]
    fn data_that_cannot_match_anything_is_not_usable() {
        for (matching, data, words) in [
            (
                1,
                [7; 31].as_slice(),
                "a digest of 31 octets has the wrong length",
            ),
            (1, &[7; 64], "a digest of 64 octets has the wrong length"),
            (2, &[7; 32], "a digest of 32 octets has the wrong length"),
            (1, &[], "a digest of 0 octets has the wrong length"),
            (0, &[], "a certificate or key is not in DER"),
            (0, &[7; 32], "a certificate or key is not in DER"),
            (0, &[0x30, 2, 1], "a certificate or key is not in DER"),
            (0, &[0x30, 1, 1, 1], "a certificate or key is not in DER"),
            (0, &[0x30, 0x80, 0, 0], "a certificate or key is not in DER"),
        ] {
            for usage in [2, 3] {
                assert!(
                    selected(&[record(usage, 1, matching, data)]).ends_with(words),
                    "{matching} {data:?}"
                );
            }
        }
    }

    #[test]
    fn usable_records_count_beside_unusable_ones() {
        let good = record(3, 1, 1, &[7; 32]);
        assert_eq!(
            selected(&[
                record(1, 1, 1, &[7; 32]),
                good.clone(),
                record(3, 1, 1, &[7; 3])
            ]),
            "3 1 1"
        );
        let all = selected(&[
            record(0, 0, 1, &[7; 32]),
            record(3, 1, 1, &[]),
            record(0, 0, 1, &[8; 32]),
        ]);
        assert!(
            all.ends_with("certificate usage 0 (PKIX) is not used in SMTP; a digest of 0 octets has the wrong length"),
            "{all}"
        );
    }

    #[test]
    fn the_strongest_digest_counts_and_full_values_always() {
        let (two, four, der) = ([7; 32], [7; 64], [0x30, 1, 7]);
        for (records, expected) in [
            (vec![record(3, 1, 1, &two), record(3, 1, 2, &four)], "3 1 2"),
            (
                vec![record(3, 1, 1, &two), record(3, 0, 2, &four)],
                "3 1 1, 3 0 2",
            ),
            (
                vec![record(3, 1, 1, &two), record(2, 1, 2, &four)],
                "3 1 1, 2 1 2",
            ),
            (
                vec![
                    record(2, 0, 1, &two),
                    record(2, 0, 2, &four),
                    record(3, 0, 1, &two),
                ],
                "3 0 1, 2 0 2",
            ),
            (
                vec![
                    record(3, 1, 0, &der),
                    record(3, 1, 1, &two),
                    record(3, 1, 2, &four),
                ],
                "3 1 0, 3 1 2",
            ),
            (
                vec![
                    record(3, 1, 1, &two),
                    record(3, 1, 1, &[8; 32]),
                    record(3, 1, 1, &two),
                ],
                "3 1 1, 3 1 1",
            ),
            // A digest of the wrong length does not replace a weaker one.
            (vec![record(3, 1, 1, &two), record(3, 1, 2, &two)], "3 1 1"),
        ] {
            assert_eq!(selected(&records), expected);
        }
    }

    #[test]
    fn records_are_bounded() {
        let many: Vec<_> = (0..200)
            .map(|number| record(3, 1, 1, &[number; 32]))
            .collect();
        assert_eq!(selected(&many).split(", ").count(), RECORDS_MAX);
    }

    #[test]
    fn the_target_of_an_alias_counts_only_if_the_chain_is_secure() {
        let unsigned = Security::Insecure(crate::net::dns::InsecureReason::Unsigned);
        let (host, target) = ("mx.test", "host.test");
        for (security, first_link, name, expected) in [
            (Security::Secure, Security::Secure, host, vec![host]),
            (
                Security::Secure,
                Security::Secure,
                target,
                vec![target, host],
            ),
            (unsigned, Security::Secure, target, vec![host]),
            (unsigned, unsigned, target, vec![]),
            (unsigned, unsigned, host, vec![]),
            (Security::Secure, Security::Secure, "no host", vec![host]),
        ] {
            let chain = CnameChain {
                security,
                first_link,
                name: name.to_owned(),
            };
            let bases = bases(&Domain::parse(host).expect("a domain"), &chain);
            assert_eq!(
                bases.iter().map(Domain::as_str).collect::<Vec<_>>(),
                expected,
                "{chain:?}"
            );
        }
    }
}
