//! TLSA records: the usable ones of a hostile set, by a second implementation of RFC 7671 and RFC
//! 7672.

use std::sync::LazyLock;

use gatepost::smtp::address::Domain;
use gatepost::discovery::dane;
use gatepost::net::dns::TlsaRecord;
use gatepost::policy::tls::{Tlsa, TlsaMatching, TlsaSelector, TlsaUsage};

/// The maximum number of records in one input, and of records of one host that count.
const RECORDS_MAX: usize = 100;
const USED_MAX: usize = 32;

static BASE: LazyLock<Domain> = LazyLock::new(|| Domain::parse("mx.good.test").expect("a domain"));

pub(crate) fn run(input: &[u8]) {
    let records = read(input);
    let expected = usable(&records);
    match dane::fuzzed(&BASE, &records) {
        Ok(found) => assert_eq!(found.iter().map(key).collect::<Vec<_>>(), expected, "of {records:?}"),
        Err(why) => {
            assert!(expected.is_empty(), "nothing of {records:?} is used: {why}");
            assert!(why.len() < 600 && !why.chars().any(char::is_control), "{why:?}");
        }
    }
}

/// Reads records: three octets, the length of the data in two, the data.
fn read(mut input: &[u8]) -> Vec<TlsaRecord> {
    let mut records = Vec::new();
    while let [usage, selector, matching, high, low, rest @ ..] = input
        && records.len() < RECORDS_MAX
    {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (data, rest) = rest.split_at(length);
        records.push(TlsaRecord { usage: *usage, selector: *selector, matching: *matching, data: data.to_vec() });
        input = rest;
    }
    records
}

/// Returns a record as numbers and data.
type Key = (u8, u8, u8, Vec<u8>);

fn key(tlsa: &Tlsa) -> Key {
    let usage = match tlsa.usage {
        TlsaUsage::TrustAnchor => 2,
        TlsaUsage::EndEntity => 3,
    };
    let selector = match tlsa.selector {
        TlsaSelector::Certificate => 0,
        TlsaSelector::PublicKey => 1,
    };
    let matching = match tlsa.matching {
        TlsaMatching::Full => 0,
        TlsaMatching::Sha256 => 1,
        TlsaMatching::Sha512 => 2,
    };
    (usage, selector, matching, tlsa.data.clone())
}

fn usable(records: &[TlsaRecord]) -> Vec<Key> {
    let mut fit: Vec<Key> = Vec::new();
    for record in records {
        let has_length = match record.matching {
            0 => is_der(&record.data),
            1 => record.data.len() == 32,
            2 => record.data.len() == 64,
            _ => false,
        };
        let key = (record.usage, record.selector, record.matching, record.data.clone());
        if (2..=3).contains(&record.usage) && record.selector <= 1 && has_length && !fit.contains(&key) {
            fit.push(key);
        }
    }
    let is_beaten = |(usage, selector, matching, _): &Key| {
        *matching == 1 && fit.iter().any(|other| (&other.0, &other.1, other.2) == (usage, selector, 2))
    };
    let mut used: Vec<Key> = fit.iter().filter(|key| !is_beaten(key)).cloned().collect();
    // DANE-EE records come first; the others stay in order.
    used.sort_by_key(|(usage, ..)| std::cmp::Reverse(*usage));
    used.truncate(USED_MAX);
    used
}

/// Returns whether octets are one SEQUENCE with the shortest form of its length (X.690 §10.1).
fn is_der(octets: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = octets else { return false };
    if *first < 0x80 {
        return usize::from(*first) == rest.len();
    }
    let count = usize::from(first & 0x7f);
    let Some((length, content)) = rest.split_at_checked(count) else { return false };
    let value = length.iter().fold(0_usize, |sum, octet| sum.wrapping_mul(256).wrapping_add(usize::from(*octet)));
    let is_shortest = count > 0 && count <= 2 && length[0] != 0 && value >= 0x80;
    is_shortest && value == content.len()
}
