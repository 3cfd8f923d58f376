//! Changes of one answer: what is genuine is dropped, replayed, crossed and bent.

use super::stage::Stage;
use super::wire::{Message, Record, code, flag, is_in, kind, lower, name, parent};
use super::world::sets;

/// The weight of a change in the random choice, its name, and the change itself.
type Mutation = (usize, &'static str, fn(&mut Stage<'_>));

/// Everything that can happen to an answer.
pub(crate) const MUTATIONS: [Mutation; 24] = [
    (5, "drop an RRset", drop_set),
    (5, "drop signatures", drop_signatures),
    (4, "drop a section", drop_section),
    (3, "strip DNSSEC", strip),
    (9, "add a foreign RRset", add_set),
    (6, "add a foreign authority section", add_authority),
    (6, "another question's answer", replace),
    (6, "another question's answer, renamed", rename),
    (6, "another answer's authority section", cross),
    (5, "another answer's denial", deny),
    (9, "an unsigned CNAME and the name's denial", unsigned_alias),
    (4, "change an owner", change_owner),
    (2, "change a type or class", change_type),
    (3, "change a TTL", change_ttl),
    (4, "change data", change_data),
    (6, "change a signature's fields", change_signature),
    (3, "duplicate", duplicate),
    (3, "reorder", reorder),
    (3, "move records to the other section", move_records),
    (6, "change the response code", change_code),
    (2, "set flags", set_flags),
    (8, "denials that touch the name", touching_denials),
    (3, "capital letters", capitals),
    (14, "forge", crate::dnssec_differential::forgery::forge),
];

/// Changes an answer once; says how.
pub(crate) fn mutate(stage: &mut Stage<'_>) -> &'static str {
    let total = MUTATIONS.iter().map(|(weight, ..)| weight).sum();
    let mut at = stage.dice.below(total);
    for (weight, name, change) in MUTATIONS {
        if at < weight {
            change(stage);
            return name;
        }
        at -= weight;
    }
    "nothing"
}

/// One of the two sections; the one that has records where only one has.
fn section<'a>(stage: &'a mut Stage<'_>) -> &'a mut Vec<Record> {
    let answers = stage.dice.happens(60);
    let message = &mut stage.message;
    if message.authorities.is_empty() || (answers && !message.answers.is_empty()) {
        &mut message.answers
    } else {
        &mut message.authorities
    }
}

/// The place of some record in a section, where there is one that fits.
fn some_record<'a>(stage: &'a mut Stage<'_>, fits: fn(&Record) -> bool) -> Option<&'a mut Record> {
    let mut dice = stage.dice.fork();
    let records = section(stage);
    let fitting: Vec<usize> = (0..records.len())
        .filter(|at| fits(&records[*at]))
        .collect();
    let at = *dice.pick(&fitting)?;
    records.get_mut(at)
}

fn drop_set(stage: &mut Stage<'_>) {
    let Some((owner, set)) =
        some_record(stage, |_| true).map(|record| (record.owner.clone(), record.set()))
    else {
        return;
    };
    let keep = |record: &Record| record.owner != owner || record.set() != set;
    stage.message.answers.retain(keep);
    stage.message.authorities.retain(keep);
}

fn drop_signatures(stage: &mut Stage<'_>) {
    let signature = |record: &Record| record.kind == kind::RRSIG;
    let Some((owner, set)) =
        some_record(stage, signature).map(|record| (record.owner.clone(), record.set()))
    else {
        return;
    };
    let keep = |record: &Record| {
        record.kind != kind::RRSIG || record.owner != owner || record.set() != set
    };
    stage.message.answers.retain(keep);
    stage.message.authorities.retain(keep);
}

fn drop_section(stage: &mut Stage<'_>) {
    section(stage).clear();
}

fn strip(stage: &mut Stage<'_>) {
    let asked = stage.kind;
    let keep = |record: &Record| {
        !matches!(
            record.kind,
            kind::RRSIG | kind::NSEC | kind::NSEC3 | kind::DS | kind::DNSKEY
        ) || record.kind == asked && asked == kind::DNSKEY
    };
    stage.message.answers.retain(keep);
    stage.message.authorities.retain(keep);
}

fn add_set(stage: &mut Stage<'_>) {
    let Some(set) = stage.some_set() else { return };
    let mut records: Vec<Record> = set.all().collect();
    if stage.dice.happens(15) {
        let owner = stage.name.clone();
        for record in &mut records {
            record.owner.clone_from(&owner);
        }
    }
    let first = stage.dice.happens(50);
    let section = if stage.dice.happens(55) {
        &mut stage.message.answers
    } else {
        &mut stage.message.authorities
    };
    let at = if first { 0 } else { section.len() };
    section.splice(at..at, records);
}

fn add_authority(stage: &mut Stage<'_>) {
    let other = stage.some_message();
    let records = if stage.dice.happens(70) {
        other.authorities
    } else {
        other.answers
    };
    stage.message.authorities.extend(records);
}

fn replace(stage: &mut Stage<'_>) {
    let other = stage.some_message();
    stage.message = Message {
        name: stage.name.clone(),
        kind: stage.kind,
        ..other
    };
}

fn rename(stage: &mut Stage<'_>) {
    let mut other = stage.some_message();
    for record in &mut other.answers {
        if record.owner == other.name {
            record.owner.clone_from(&stage.name);
        }
    }
    if stage.dice.happens(40) {
        other.authorities.clone_from(&stage.message.authorities);
    }
    stage.message = Message {
        name: stage.name.clone(),
        kind: stage.kind,
        ..other
    };
}

fn cross(stage: &mut Stage<'_>) {
    let other = stage.some_message();
    stage.message.authorities = other.authorities;
    if stage.dice.happens(30) {
        stage.message.set_code(other.flags & 15);
    }
}

fn deny(stage: &mut Stage<'_>) {
    let mut other = if stage.dice.happens(40) {
        Message::clone(&stage.denial)
    } else {
        stage.some_message()
    };
    for _ in 0..3 {
        if other.answers.is_empty() {
            break;
        }
        other = stage.some_message();
    }
    stage.message.answers.clear();
    stage.message.authorities = other.authorities;
    let code = if stage.dice.happens(50) {
        other.flags & 15
    } else {
        code::NXDOMAIN
    };
    stage.message.set_code(code);
}

fn unsigned_alias(stage: &mut Stage<'_>) {
    let target = match stage.dice.below(5) {
        0 => name("mx.evil.test."),
        1 => name("mx.plain.test."),
        2 => name("nowhere.evil.test."),
        3 => crate::dnssec_differential::wire::child("x", &stage.name),
        _ => stage
            .some_set()
            .map_or_else(|| name("mx.nsec.test."), |set| set.owner().clone()),
    };
    let owner = match stage.dice.below(8) {
        0 => parent(&stage.name),
        1 => stage.world.zone_of(&stage.name).clone(),
        _ => stage.name.clone(),
    };
    let alias = Record::new(&owner, kind::CNAME, target);
    match stage.dice.below(3) {
        0 => stage.message.answers = vec![alias],
        1 => stage.message.answers.insert(0, alias),
        _ => stage.message.answers.push(alias),
    }
    if stage.dice.happens(75) {
        let denial = stage.denial.clone();
        stage.message.authorities.clone_from(&denial.authorities);
        if stage.dice.happens(70) {
            stage.message.set_code(denial.code());
        }
    }
}

fn change_owner(stage: &mut Stage<'_>) {
    let other = match stage.dice.below(5) {
        0 => parent(&stage.name),
        1 => crate::dnssec_differential::wire::child("x", &stage.name),
        2 => stage.name.clone(),
        3 => crate::dnssec_differential::wire::child("*", &parent(&stage.name)),
        _ => stage
            .some_set()
            .map_or_else(|| vec![0], |set| set.owner().clone()),
    };
    let whole = stage.dice.happens(60);
    let Some((owner, set)) =
        some_record(stage, |_| true).map(|record| (record.owner.clone(), record.set()))
    else {
        return;
    };
    let mut once = true;
    for record in stage
        .message
        .answers
        .iter_mut()
        .chain(&mut stage.message.authorities)
    {
        if record.owner == owner && record.set() == set && (whole || once) {
            record.owner.clone_from(&other);
            once = false;
        }
    }
}

fn change_type(stage: &mut Stage<'_>) {
    let class = stage.dice.happens(40);
    let kinds = [
        kind::A,
        kind::CNAME,
        kind::MX,
        kind::TXT,
        kind::TLSA,
        kind::DS,
        kind::NSEC,
        kind::NS,
        65280,
    ];
    let other = stage.dice.pick(&kinds).copied().unwrap_or(kind::A);
    if let Some(record) = some_record(stage, |_| true) {
        if class {
            record.class = 3;
        } else {
            record.kind = other;
        }
    }
}

fn change_ttl(stage: &mut Stage<'_>) {
    let ttls = [0, 1, 59, 86400, 604_800, i32::MAX.cast_unsigned(), u32::MAX];
    let ttl = stage.dice.pick(&ttls).copied().unwrap_or(0);
    let all = stage.dice.happens(60);
    if all {
        for record in section(stage) {
            record.ttl = ttl;
        }
    } else if let Some(record) = some_record(stage, |_| true) {
        record.ttl = ttl;
    }
}

fn change_data(stage: &mut Stage<'_>) {
    let mut dice = stage.dice.fork();
    if let Some(record) = some_record(stage, |record| {
        !record.data.is_empty() && record.kind != kind::SOA
    }) {
        // Names keep their form: what cannot be read is no test of a validator.
        let fixed = match record.kind {
            kind::CNAME | kind::NS | kind::DNAME | kind::NSEC => 1..2,
            kind::MX => 0..2,
            kind::NSEC3 => 1..2,
            kind::RRSIG => 24..record.data.len(),
            _ => 0..record.data.len(),
        };
        let at = fixed.start + dice.below(fixed.len());
        if let Some(octet) = record.data.get_mut(at) {
            *octet ^= 1 << dice.below(3);
        }
    }
}

fn change_signature(stage: &mut Stage<'_>) {
    let mut dice = stage.dice.fork();
    let asked = stage.name.clone();
    let zone = stage.world.zone_of(&asked).clone();
    let all = dice.happens(50);
    let change = |data: &mut Vec<u8>, dice: &mut crate::dnssec_differential::dice::Dice| match dice
        .below(9)
    {
        0 => data[3] = data[3].wrapping_sub(1),
        1 => data[3] = data[3].wrapping_add(1),
        2 => data[3] = dice.below(4).try_into().unwrap_or(0),
        3 => data[2] = if dice.happens(50) { 200 } else { 8 },
        4 => data[8..12].copy_from_slice(&[0x20, 0, 0, 0]),
        5 => data[12..16].copy_from_slice(&[0x7f, 0, 0, 0]),
        6 => data[17] ^= 1,
        7 => data[0..2].copy_from_slice(&[0, u8::try_from(dice.below(53)).unwrap_or(1)]),
        _ => {
            let signers = [
                name("evil.test."),
                parent(&zone),
                asked.clone(),
                name("test."),
                vec![0],
                zone.clone(),
            ];
            let end = 18 + data[18..].iter().position(|octet| *octet == 0).unwrap_or(0);
            if let Some(signer) = dice.pick(&signers) {
                data.splice(18..=end, signer.iter().copied());
            }
        }
    };
    if all {
        let repeat = dice.fork();
        for record in section(stage)
            .iter_mut()
            .filter(|record| record.kind == kind::RRSIG && record.data.len() > 20)
        {
            change(&mut record.data, &mut repeat.clone());
        }
    } else if let Some(record) = some_record(stage, |record| {
        record.kind == kind::RRSIG && record.data.len() > 20
    }) {
        change(&mut record.data, &mut dice);
    }
}

fn duplicate(stage: &mut Stage<'_>) {
    if let Some(record) = some_record(stage, |_| true).cloned() {
        section(stage).push(record);
    }
}

fn reorder(stage: &mut Stage<'_>) {
    let mut dice = stage.dice.fork();
    dice.shuffle(section(stage));
}

fn move_records(stage: &mut Stage<'_>) {
    let message = &mut stage.message;
    match stage.dice.below(3) {
        0 => message.authorities.append(&mut message.answers),
        1 => message.answers.append(&mut message.authorities),
        _ => std::mem::swap(&mut message.answers, &mut message.authorities),
    }
}

fn change_code(stage: &mut Stage<'_>) {
    let now = stage.message.code();
    let codes = [
        code::NOERROR,
        code::NXDOMAIN,
        code::NOERROR,
        code::NXDOMAIN,
        code::SERVFAIL,
        code::REFUSED,
    ];
    let other: Vec<u16> = codes.into_iter().filter(|code| *code != now).collect();
    let other = stage.dice.pick(&other).copied().unwrap_or(code::SERVFAIL);
    stage.message.set_code(other);
}

fn set_flags(stage: &mut Stage<'_>) {
    for bit in [flag::AD, flag::AA, flag::CD, flag::RA] {
        if stage.dice.happens(50) {
            stage.message.flags ^= bit;
        }
    }
}

/// Denials that are genuine, and have to do with the name: whether they prove anything is another
/// question.
fn touching_denials(stage: &mut Stage<'_>) {
    let mut dice = stage.dice.fork();
    let touching = stage.denials_that_touch();
    let picked: Vec<Record> = (0..=dice.below(3))
        .filter_map(|_| dice.pick(&touching))
        .flat_map(|set| set.all())
        .collect();
    let message = &mut stage.message;
    if dice.happens(60) {
        message
            .authorities
            .retain(|record| record.set() == kind::SOA && is_in(&stage.name, &record.owner));
    }
    message.authorities.extend(picked);
    match dice.below(3) {
        0 => message.answers.clear(),
        1 => {
            message.answers.clear();
            message.set_code(code::NXDOMAIN);
        }
        _ => {}
    }
    if dice.happens(25) && message.answers.is_empty() {
        // Something below what is said not to be signed.
        message.answers =
            crate::dnssec_differential::forgery::records(&stage.name, stage.kind, &mut dice);
        message.set_code(code::NOERROR);
    }
    message.authorities = sets(&message.authorities)
        .iter()
        .flat_map(crate::dnssec_differential::world::Set::all)
        .collect();
}

fn capitals(stage: &mut Stage<'_>) {
    let all = stage.dice.happens(50);
    let upper = |record: &mut Record| record.owner.make_ascii_uppercase();
    if all {
        section(stage).iter_mut().for_each(upper);
    } else if let Some(record) = some_record(stage, |_| true) {
        upper(record);
        debug_assert!(lower(&record.owner).len() == record.owner.len());
    }
}
