//! The parser of records in text form.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::dnssec::Algorithm;
use hickory_resolver::proto::dnssec::rdata::{DNSSECRData, DS};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, TLSA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record};

use super::error::ZoneError;

/// Parses a complete name, with or without a dot at the end.
///
/// # Errors
/// The text is not a domain name.
pub fn full_name(text: &str) -> Result<Name, ProtoError> {
    let mut full = Name::from_ascii(text)?;
    full.set_fqdn(true);
    Ok(full)
}

/// Parses a record such as `example.test MX 10 mx.example.test`.
pub(super) fn parse(line: &str, ttl: u32) -> Result<Record, ZoneError> {
    let fault = || ZoneError::Record(line.to_owned());
    let words: Vec<&str> = line.split_whitespace().collect();
    let (owner, rest) = words.split_first().ok_or_else(fault)?;
    let octet = |text: &str| text.parse::<u8>().map_err(|_| fault());
    let data = match *rest {
        ["A", address] => RData::A(A(address.parse::<Ipv4Addr>().map_err(|_| fault())?)),
        ["AAAA", address] => RData::AAAA(AAAA(address.parse::<Ipv6Addr>().map_err(|_| fault())?)),
        ["MX", preference, host] => RData::MX(MX::new(
            preference.parse().map_err(|_| fault())?,
            full_name(host)?,
        )),
        ["CNAME", target] => RData::CNAME(CNAME(full_name(target)?)),
        ["TXT", ref strings @ ..] => RData::TXT(TXT::new(
            strings.iter().map(|&text| text.to_owned()).collect(),
        )),
        ["TLSA", usage, selector, matching, hex] => RData::TLSA(TLSA::new(
            octet(usage)?.into(),
            octet(selector)?.into(),
            octet(matching)?.into(),
            octets(hex).ok_or_else(fault)?,
        )),
        ["DS", tag, algorithm, digest_type, hex] => RData::DNSSEC(DNSSECRData::DS(DS::new(
            tag.parse().map_err(|_| fault())?,
            Algorithm::from_u8(octet(algorithm)?),
            octet(digest_type)?.into(),
            octets(hex).ok_or_else(fault)?,
        ))),
        _ => return Err(fault()),
    };
    Ok(Record::from_rdata(full_name(owner)?, ttl, data))
}

fn octets(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let pairs = digits?;
    let (pairs, rest) = pairs.as_chunks::<2>();
    let octets = pairs
        .iter()
        .map(|[high, low]| u8::try_from(high << 4 | low).ok())
        .collect();
    if rest.is_empty() { octets } else { None }
}
