//! The answers of a recursive resolver about the zones (RFC 4035 §3.1).

use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::error::ZoneError;
use super::kind::Kind;
use super::sign::DemoZone;

/// Fills a reply. With `dnssec`, it includes signatures and proofs.
pub(super) fn fill(
    reply: &mut Message,
    zones: &[DemoZone],
    query: &Query,
    dnssec: bool,
    validates: bool,
) -> Result<(), ZoneError> {
    let mut answers = Vec::new();
    let mut authorities = Vec::new();
    let (mut good, mut bogus) = (true, false);
    let mut name = query.name.to_lowercase();
    let mut visited = Vec::new();
    // Follows CNAME records until the end of the chain, or until a loop.
    while !visited.contains(&name) {
        visited.push(name.clone());
        let zone = zone_of(zones, &name, query.query_type);
        good &= chain(zones, &zone.origin).all(|zone| zone.kind.is_good());
        bogus |= !good
            && chain(zones, &zone.origin)
                .all(|zone| !matches!(zone.kind, Kind::Unsigned | Kind::Island));
        let answer = lookup(zone, &name, query.query_type)?;
        answers.extend(answer.answers);
        authorities.extend(answer.authorities);
        reply.metadata.response_code = answer.code;
        match answer.next {
            Some(next) => name = next,
            None => break,
        }
    }
    let is_proof =
        |record: &Record| matches!(record.record_type(), RecordType::RRSIG | RecordType::NSEC);
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

/// The answer of one zone.
struct ZoneAnswer {
    answers: Vec<Record>,
    authorities: Vec<Record>,
    code: ResponseCode,
    /// The target of a CNAME record.
    next: Option<Name>,
}

/// Returns the zone that answers for a name. For DS records, that is the parent of the zone with
/// this name.
fn zone_of<'a>(zones: &'a [DemoZone], name: &Name, kind: RecordType) -> &'a DemoZone {
    let above = |zone: &&DemoZone| {
        zone.origin.zone_of(name) && (kind != RecordType::DS || zone.origin != *name)
    };
    zones
        .iter()
        .filter(above)
        .max_by_key(|zone| zone.origin.num_labels())
        .unwrap_or(&zones[0])
}

/// Returns the zones from the root to the one with this origin.
fn chain<'a>(zones: &'a [DemoZone], origin: &'a Name) -> impl Iterator<Item = &'a DemoZone> {
    zones.iter().filter(|zone| zone.origin.zone_of(origin))
}

/// Looks a name up in a zone, also by wildcard.
fn lookup(zone: &DemoZone, name: &Name, kind: RecordType) -> Result<ZoneAnswer, ZoneError> {
    if zone.exists(name) {
        return Ok(answer_at(zone, name, kind, name, Vec::new()));
    }
    let mut encloser = name.base_name();
    while !zone.exists(&encloser) {
        encloser = encloser.base_name();
    }
    let wildcard = encloser.prepend_label("*")?;
    let uncovered = zone.nsec(name);
    if zone.exists(&wildcard) {
        return Ok(answer_at(zone, &wildcard, kind, name, uncovered));
    }
    let mut authorities = soa(zone);
    authorities.extend(uncovered);
    for record in zone.nsec(&wildcard) {
        if !authorities.contains(&record) {
            authorities.push(record);
        }
    }
    Ok(ZoneAnswer {
        answers: Vec::new(),
        authorities,
        code: ResponseCode::NXDomain,
        next: None,
    })
}

/// Returns the answer for a name that exists. `asked` is the name of the question, which differs
/// from `name` if that is a wildcard.
fn answer_at(
    zone: &DemoZone,
    name: &Name,
    kind: RecordType,
    asked: &Name,
    proof: Vec<Record>,
) -> ZoneAnswer {
    let answer = |answers, authorities, next| ZoneAnswer {
        answers,
        authorities,
        code: ResponseCode::NoError,
        next,
    };
    if let Some(answers) = zone
        .set(name, kind, asked)
        .filter(|_| kind == RecordType::DS || !zone.is_cut(name))
    {
        return answer(answers, proof, None);
    }
    if let Some(answers) = zone.set(name, RecordType::CNAME, asked) {
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.to_lowercase()),
            _ => None,
        });
        return answer(answers, proof, next);
    }
    let mut authorities = soa(zone);
    authorities.extend(proof);
    for record in zone.nsec(name) {
        if !authorities.contains(&record) {
            authorities.push(record);
        }
    }
    answer(Vec::new(), authorities, None)
}

fn soa(zone: &DemoZone) -> Vec<Record> {
    zone.set(&zone.origin, RecordType::SOA, &zone.origin)
        .unwrap_or_default()
}
