//! What a recursive resolver answers about the zones (RFC 4035 §3.1).

use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::sign::Zone;
use super::{Kind, ZoneError};

/// Fills a reply; with `dnssec`, signatures and proofs come along.
pub(super) fn fill(
    reply: &mut Message,
    zones: &[Zone],
    query: &Query,
    dnssec: bool,
    validates: bool,
) -> Result<(), ZoneError> {
    let mut answers = Vec::new();
    let mut authorities = Vec::new();
    let (mut good, mut bogus) = (true, false);
    let mut at = query.name.to_lowercase();
    let mut been = Vec::new();
    while !been.contains(&at) {
        been.push(at.clone());
        let zone = zone_of(zones, &at, query.query_type);
        good &= chain(zones, &zone.origin).all(|zone| zone.kind.is_good());
        bogus |= !good && chain(zones, &zone.origin).all(|zone| !matches!(zone.kind, Kind::Unsigned | Kind::Island));
        let found = lookup(zone, &at, query.query_type)?;
        answers.extend(found.answers);
        authorities.extend(found.authorities);
        reply.metadata.response_code = found.code;
        match found.next {
            Some(next) => at = next,
            None => break,
        }
    }
    let is_proof = |record: &Record| matches!(record.record_type(), RecordType::RRSIG | RecordType::NSEC);
    if !dnssec {
        answers.retain(|record| !is_proof(record));
        authorities.retain(|record| !is_proof(record));
    }
    if validates && bogus {
        reply.metadata.response_code = ResponseCode::ServFail;
        return Ok(());
    }
    reply.metadata.authentic_data = validates && good;
    reply.insert_answers(answers);
    reply.insert_authorities(authorities);
    Ok(())
}

struct Found {
    answers: Vec<Record>,
    authorities: Vec<Record>,
    code: ResponseCode,
    /// Where a CNAME leads.
    next: Option<Name>,
}

/// The zone that knows about a name; about DS, the parent does.
fn zone_of<'a>(zones: &'a [Zone], name: &Name, kind: RecordType) -> &'a Zone {
    let above = |zone: &&Zone| zone.origin.zone_of(name) && (kind != RecordType::DS || zone.origin != *name);
    zones.iter().filter(above).max_by_key(|zone| zone.origin.num_labels()).unwrap_or(&zones[0])
}

/// The zones from the root to one.
fn chain<'a>(zones: &'a [Zone], origin: &'a Name) -> impl Iterator<Item = &'a Zone> {
    zones.iter().filter(|zone| zone.origin.zone_of(origin))
}

fn lookup(zone: &Zone, name: &Name, kind: RecordType) -> Result<Found, ZoneError> {
    if zone.exists(name) {
        return Ok(at(zone, name, kind, name, Vec::new()));
    }
    let mut encloser = name.base_name();
    while !zone.exists(&encloser) {
        encloser = encloser.base_name();
    }
    let wildcard = encloser.prepend_label("*")?;
    let uncovered = zone.nsec(name);
    if zone.exists(&wildcard) {
        return Ok(at(zone, &wildcard, kind, name, uncovered));
    }
    let mut authorities = soa(zone);
    authorities.extend(uncovered);
    for record in zone.nsec(&wildcard) {
        if !authorities.contains(&record) {
            authorities.push(record);
        }
    }
    Ok(Found { answers: Vec::new(), authorities, code: ResponseCode::NXDomain, next: None })
}

/// What stands at a name that exists; `asked` is the name that a wildcard stands for.
fn at(zone: &Zone, name: &Name, kind: RecordType, asked: &Name, proof: Vec<Record>) -> Found {
    let found = |answers, authorities, next| Found { answers, authorities, code: ResponseCode::NoError, next };
    if let Some(answers) = zone.set(name, kind, asked).filter(|_| kind == RecordType::DS || !zone.is_cut(name)) {
        return found(answers, proof, None);
    }
    if let Some(answers) = zone.set(name, RecordType::CNAME, asked) {
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.to_lowercase()),
            _ => None,
        });
        return found(answers, proof, next);
    }
    let mut authorities = soa(zone);
    authorities.extend(proof);
    for record in zone.nsec(name) {
        if !authorities.contains(&record) {
            authorities.push(record);
        }
    }
    found(Vec::new(), authorities, None)
}

fn soa(zone: &Zone) -> Vec<Record> {
    zone.set(&zone.origin, RecordType::SOA, &zone.origin).unwrap_or_default()
}
