//! Records that the attacker makes himself and signs with the key of his own zone.

use super::attacker::{Attacker, UNKNOWN, base32, hashed};
use super::dice::Dice;
use super::stage::Stage;
use super::wire::{Name, Record, child, code, kind, name, parent, unhex};

/// Adds something forged to an answer, or answers with it.
pub(crate) fn forge(stage: &mut Stage<'_>) {
    match (stage.kind, stage.dice.below(10)) {
        (kind::DS, 0..7) | (_, 0) => digest(stage),
        (kind::DNSKEY, 0..7) | (_, 1) => key(stage),
        (_, 2..6) => data(stage),
        (_, 6 | 7) => nsec(stage),
        _ => nsec3(stage),
    }
}

/// Forged records of a type.
pub(crate) fn records(owner: &[u8], asked: u16, dice: &mut Dice) -> Vec<Record> {
    let data = match asked {
        kind::A => vec![203, 0, 113, 66],
        kind::AAAA => unhex("20010db8000000000000000000000066"),
        kind::MX => [&[0, 10], name("mx.evil.test.").as_slice()].concat(),
        kind::TXT => b"\x0av=STSv1; e".to_vec(),
        kind::TLSA => [[3, 1, 1].as_slice(), &[0xee; 32]].concat(),
        kind::NS => name("mx.evil.test."),
        _ => return vec![Record::new(owner, kind::CNAME, name("mx.evil.test."))],
    };
    if dice.happens(25) {
        return vec![Record::new(owner, kind::CNAME, name("mx.evil.test."))];
    }
    vec![Record::new(owner, asked, data)]
}

/// In whose name he signs.
fn signer(stage: &mut Stage<'_>) -> Name {
    let zone = stage.world.zone_of(&stage.name).clone();
    match stage.dice.below(6) {
        0 | 1 => stage.world.attacker.zone.clone(),
        2 => parent(&zone),
        3 => stage.name.clone(),
        _ => zone,
    }
}

fn put(stage: &mut Stage<'_>, records: Vec<Record>) {
    let message = &mut stage.message;
    match stage.dice.below(4) {
        0 => message.answers = records,
        1 => drop(message.answers.splice(0..0, records)),
        2 => message.answers.extend(records),
        _ => message.authorities.extend(records),
    }
}

/// A DS record that means his key, somewhere.
fn digest(stage: &mut Stage<'_>) {
    let attacker = &stage.world.attacker;
    let owner = match stage.dice.below(6) {
        0..3 => child("x", &attacker.zone),
        3 => attacker.zone.clone(),
        4 => stage.name.clone(),
        _ => child("x", &stage.name),
    };
    let above = stage.names_above();
    let meant = if stage.dice.happens(70) {
        stage.name.clone()
    } else {
        stage.dice.pick(&above).cloned().unwrap_or_default()
    };
    let (algorithm, digest_type) = match stage.dice.below(6) {
        0..3 => (Attacker::algorithm(), 2),
        3 | 4 => (UNKNOWN, 2),
        _ => (Attacker::algorithm(), UNKNOWN),
    };
    let signer = if stage.dice.happens(80) {
        attacker.zone.clone()
    } else {
        signer(stage)
    };
    let attacker = &stage.world.attacker;
    let records = attacker.signed(
        vec![attacker.ds(&owner, &meant, algorithm, digest_type)],
        &signer,
    );
    put(stage, records);
}

/// His key among the keys of another, or in their place.
fn key(stage: &mut Stage<'_>) {
    let attacker = &stage.world.attacker;
    let owner = if stage.dice.happens(70) {
        stage.name.clone()
    } else {
        child("x", &attacker.zone)
    };
    let key = attacker.key_of(&owner);
    let records = match stage.dice.below(4) {
        0 => vec![key],
        1 => attacker.signed(vec![key], &attacker.zone),
        _ => attacker.signed(vec![key], &owner),
    };
    put(stage, records);
}

/// The records that were asked for.
fn data(stage: &mut Stage<'_>) {
    let name = stage.name.clone();
    let set = records(&name, stage.kind, &mut stage.dice);
    let records = if stage.dice.happens(25) {
        set
    } else {
        let signer = signer(stage);
        stage.world.attacker.signed(set, &signer)
    };
    put(stage, records);
}

/// An NSEC record that spans half the world.
fn nsec(stage: &mut Stage<'_>) {
    let zone = stage.world.zone_of(&stage.name).clone();
    let evil = stage.world.attacker.zone.clone();
    let owners = [
        evil.clone(),
        child("a", &evil),
        parent(&stage.name),
        stage.name.clone(),
        zone.clone(),
        child("!", &evil),
    ];
    let nexts = [
        evil.clone(),
        name("zzz.test."),
        name("zzz."),
        zone,
        child("zzz", &stage.name),
        child("!", &stage.name),
        child("zzz", &evil),
    ];
    let owner = stage.dice.pick(&owners).cloned().unwrap_or_default();
    let mut data = stage.dice.pick(&nexts).cloned().unwrap_or_default();
    // Types: A, RRSIG, NSEC; or NS as well; or none.
    data.extend(match stage.dice.below(3) {
        0 => [0, 6, 0x40, 0, 0, 0, 0, 3].as_slice(),
        1 => &[0, 6, 0x60, 0, 0, 0, 0, 3],
        _ => &[0, 6, 0, 0, 0, 0, 0, 3],
    });
    let signer = if stage.dice.happens(75) {
        evil
    } else {
        signer(stage)
    };
    let records = stage
        .world
        .attacker
        .signed(vec![Record::new(&owner, kind::NSEC, data)], &signer);
    denied_by(stage, records);
}

/// An NSEC3 record with opt-out that covers or matches a name above, or everything.
fn nsec3(stage: &mut Stage<'_>) {
    let above = stage.names_above();
    let meant = stage.dice.pick(&above).cloned().unwrap_or_default();
    let iterations: u16 = if stage.dice.happens(25) { 2000 } else { 0 };
    let mut from = hashed(&meant, &[], iterations.min(200));
    let mut to = from.clone();
    to[19] = to[19].wrapping_add(1);
    if stage.dice.happens(60) {
        from[19] = from[19].wrapping_sub(1);
    }
    let evil = stage.world.attacker.zone.clone();
    let zone = stage.world.zone_of(&stage.name).clone();
    let apex = match stage.dice.below(4) {
        0 => zone,
        1 => parent(&stage.name),
        _ => evil.clone(),
    };
    let mut data = vec![1, u8::from(stage.dice.happens(70))];
    data.extend(iterations.to_be_bytes());
    data.extend([0, 20]);
    data.extend(&to);
    data.extend(if stage.dice.happens(50) {
        [0, 1, 0x20].as_slice()
    } else {
        &[]
    });
    let owner = child(&base32(&from), &apex);
    let signer = if stage.dice.happens(75) {
        evil
    } else {
        signer(stage)
    };
    let records = stage
        .world
        .attacker
        .signed(vec![Record::new(&owner, kind::NSEC3, data)], &signer);
    denied_by(stage, records);
}

fn denied_by(stage: &mut Stage<'_>, records: Vec<Record>) {
    if stage.dice.happens(50) {
        stage.message.authorities.clear();
    }
    stage.message.authorities.extend(records);
    match stage.dice.below(4) {
        0 => stage.message.answers.clear(),
        1 => {
            stage.message.answers.clear();
            stage.message.set_code(code::NXDOMAIN);
        }
        2 => {
            let name = stage.name.clone();
            stage.message.answers = self::records(&name, stage.kind, &mut stage.dice);
            stage.message.set_code(code::NOERROR);
        }
        _ => {}
    }
}
