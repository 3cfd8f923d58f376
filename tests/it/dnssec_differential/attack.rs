//! Whole attacks: all answers of a conversation play together.

use super::attacker::{Attacker, UNKNOWN};
use super::forgery::records;
use super::stage::Stage;
use super::wire::{Message, Name, Record, child, code, is_in, kind, name};
use super::world::World;

/// An attack on a zone or a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attack {
    /// A DS record of x.evil.test. with the digest of "the zone | his key" stands beside the zone's
    /// own; the zone's key, and all below, are his.
    ForeignDigest,
    /// The same, in the place of the zone's own DS record.
    ForeignDigestAlone,
    /// A DS record of x.evil.test. with an algorithm that nobody knows stands beside the zone's
    /// own; all below is unsigned.
    ForeignAlgorithm,
    /// The same, and all below is an unsigned CNAME.
    ForeignAlgorithmAlias,
    /// His key, with his signature, stands among the zone's keys.
    ForeignKey,
    /// An unsigned CNAME and the name's genuine denial of a CNAME, in the place of the records.
    UnsignedAlias,
    /// The same in NXDOMAIN.
    UnsignedAliasNoName,
    /// A genuine wildcard answer of the zone, in the place of the records.
    OtherWildcard,
    /// A wildcard's records under a name that exists, with an NSEC record of the attacker's that
    /// spans everything.
    WildcardOverName,
    /// The DS records are denied by opt-out NSEC3 records of zones above, and all below is
    /// unsigned.
    OptOut,
    /// The same, with a single NSEC3 record and nothing about the closest encloser.
    OptOutBare,
    /// An opt-out NSEC3 record stands beside an unsigned answer.
    OptOutAnswer,
    /// NSEC3 records of a zone above, with too many iterations, stand beside an unsigned answer or
    /// none.
    Iterations,
    /// NSEC records of the attacker's deny what was asked.
    ForeignDenial,
    /// The DS records are denied by the apex's, or the parent's, own denial of another type.
    ApexDenial,
    /// DNSSEC is cut out of everything below the root.
    Stripped,
}

/// All of them.
pub(crate) const ATTACKS: [Attack; 16] = [
    Attack::ForeignDigest,
    Attack::ForeignDigestAlone,
    Attack::ForeignAlgorithm,
    Attack::ForeignAlgorithmAlias,
    Attack::ForeignKey,
    Attack::UnsignedAlias,
    Attack::UnsignedAliasNoName,
    Attack::OtherWildcard,
    Attack::WildcardOverName,
    Attack::OptOut,
    Attack::OptOutBare,
    Attack::OptOutAnswer,
    Attack::Iterations,
    Attack::ForeignDenial,
    Attack::ApexDenial,
    Attack::Stripped,
];

impl Attack {
    /// Changes an answer as the attack on `victim`, a zone, wants it; `asked` says that it is the
    /// question of the conversation.
    pub(crate) async fn play(self, stage: &mut Stage<'_>, victim: &Name, asked: bool) -> bool {
        let world = stage.world;
        let below = is_in(&stage.name, victim);
        let inner = matches!(
            stage.kind,
            kind::DS | kind::DNSKEY | kind::NS | kind::SOA | kind::CNAME
        );
        match (self, stage.kind) {
            (Self::ForeignDigest | Self::ForeignDigestAlone, _) if below => {
                self.foreign_digest(stage, victim)
            }
            (Self::ForeignAlgorithm | Self::ForeignAlgorithmAlias, _) if below => {
                self.foreign_algorithm(stage, victim)
            }
            (Self::ForeignKey, _) if below && (stage.kind == kind::DNSKEY || !inner) => {
                foreign_key(stage, victim)
            }
            (Self::UnsignedAlias, _) if asked => unsigned_alias(stage, code::NOERROR),
            (Self::UnsignedAliasNoName, _) if asked => unsigned_alias(stage, code::NXDOMAIN),
            (Self::OtherWildcard, _) if asked => {
                let other = world
                    .genuine(&child("any", &child("wild", victim)), kind::A)
                    .await;
                put(stage, Message::clone(&other));
                true
            }
            (Self::WildcardOverName, _) if asked => wildcard_over_name(stage, victim).await,
            (Self::OptOut | Self::OptOutBare, kind::DS) if stage.name == *victim => {
                opt_out(stage, self == Self::OptOut);
                true
            }
            (Self::OptOut | Self::OptOutBare | Self::ApexDenial, _) if below && !inner => {
                unsigned(stage);
                true
            }
            (Self::OptOutAnswer, _) if asked => {
                opt_out(stage, false);
                unsigned_beside(stage);
                true
            }
            (Self::Iterations, _) if asked => iterations(stage, victim).await,
            (Self::ForeignDenial, _) if asked => {
                foreign_denial(stage);
                true
            }
            (Self::ApexDenial, kind::DS) if stage.name == *victim => {
                let apex = if stage.dice.happens(50) {
                    victim
                } else {
                    &crate::dnssec_differential::wire::parent(victim)
                };
                let other = world.genuine(apex, kind::HINFO).await;
                put(stage, Message::clone(&other));
                true
            }
            (Self::Stripped, _) if below => strip(&mut stage.message),
            _ => false,
        }
    }

    fn foreign_digest(self, stage: &mut Stage<'_>, victim: &[u8]) -> bool {
        let attacker = &stage.world.attacker;
        match stage.kind {
            kind::DS if stage.name == victim => {
                let owner = child("x", &attacker.zone);
                let ds = attacker.ds(&owner, victim, Attacker::algorithm(), 2);
                if self == Self::ForeignDigestAlone {
                    stage.message.answers.clear();
                    stage.message.set_code(code::NOERROR);
                }
                stage
                    .message
                    .answers
                    .extend(attacker.signed(vec![ds], &attacker.zone));
                true
            }
            kind::DNSKEY if stage.name == victim => {
                stage.message.answers = attacker.signed(vec![attacker.key_of(victim)], victim);
                true
            }
            kind::DS | kind::DNSKEY | kind::NS | kind::SOA | kind::CNAME => false,
            _ => {
                let set = records(&stage.name, stage.kind, &mut stage.dice);
                stage.message.answers = attacker.signed(set, victim);
                stage.message.authorities.clear();
                stage.message.set_code(code::NOERROR);
                true
            }
        }
    }

    fn foreign_algorithm(self, stage: &mut Stage<'_>, victim: &[u8]) -> bool {
        let attacker = &stage.world.attacker;
        match stage.kind {
            kind::DS if stage.name == victim => {
                let owner = child("x", &attacker.zone);
                let ds = attacker.ds(&owner, victim, UNKNOWN, 2);
                stage
                    .message
                    .answers
                    .extend(attacker.signed(vec![ds], &attacker.zone));
                true
            }
            kind::DS | kind::DNSKEY | kind::NS | kind::SOA | kind::CNAME => false,
            _ => {
                if self == Self::ForeignAlgorithmAlias {
                    stage.message.answers =
                        vec![Record::new(&stage.name, kind::CNAME, name("mx.evil.test."))];
                    stage.message.authorities.clear();
                } else {
                    unsigned(stage);
                }
                true
            }
        }
    }
}

fn put(stage: &mut Stage<'_>, other: Message) {
    stage.message = Message {
        name: stage.name.clone(),
        kind: stage.kind,
        ..other
    };
}

/// An unsigned answer, and nothing else.
fn unsigned(stage: &mut Stage<'_>) {
    unsigned_beside(stage);
    stage.message.authorities.clear();
}

/// An unsigned answer beside what is in the authority section.
fn unsigned_beside(stage: &mut Stage<'_>) {
    stage.message.answers = records(&stage.name, stage.kind, &mut stage.dice);
    stage.message.set_code(code::NOERROR);
}

fn foreign_key(stage: &mut Stage<'_>, victim: &Name) -> bool {
    let attacker = &stage.world.attacker;
    if stage.kind == kind::DNSKEY {
        if stage.name != *victim {
            return false;
        }
        let mut keys: Vec<Record> = stage
            .message
            .answers
            .iter()
            .filter(|record| record.kind == kind::DNSKEY)
            .cloned()
            .collect();
        keys.push(attacker.key_of(victim));
        let signature = attacker.signature(&keys, victim);
        stage.message.answers.push(attacker.key_of(victim));
        stage.message.answers.push(signature);
        return true;
    }
    let set = records(&stage.name, stage.kind, &mut stage.dice);
    stage.message.answers = attacker.signed(set, victim);
    stage.message.authorities.clear();
    stage.message.set_code(code::NOERROR);
    true
}

/// There is a name there.wild beside the wildcard.
async fn wildcard_over_name(stage: &mut Stage<'_>, victim: &Name) -> bool {
    let world: &World = stage.world;
    let other = world
        .genuine(&child("any", &child("wild", victim)), stage.kind)
        .await;
    let mut answers = other.answers.clone();
    for record in &mut answers {
        if record.owner == other.name {
            record.owner.clone_from(&stage.name);
        }
    }
    let evil = &world.attacker.zone;
    let spans = Record::new(
        &child("!", evil),
        kind::NSEC,
        [
            child("zzz", &name("test.")),
            vec![0, 6, 0x40, 0, 0, 0, 0, 3],
        ]
        .concat(),
    );
    let irrelevant = world.genuine(&child("zz", victim), kind::HINFO).await;
    stage.message.answers = answers;
    stage.message.authorities = world.attacker.signed(vec![spans], evil);
    stage
        .message
        .authorities
        .extend(irrelevant.authorities.iter().cloned());
    stage.message.set_code(code::NOERROR);
    true
}

/// The authority section becomes NSEC3 records of the zones above that touch the name: with
/// `whole`, all of them.
fn opt_out(stage: &mut Stage<'_>, whole: bool) {
    let mut dice = stage.dice.fork();
    let touching: Vec<_> = stage
        .denials_that_touch()
        .into_iter()
        .filter(|set| set.kind() == kind::NSEC3)
        .cloned()
        .collect();
    stage.message.answers.clear();
    stage.message.set_code(code::NOERROR);
    if whole {
        stage.message.authorities = touching
            .iter()
            .flat_map(crate::dnssec_differential::world::Set::all)
            .collect();
    } else {
        stage.message.authorities = dice
            .pick(&touching)
            .map(|set| set.all().collect())
            .unwrap_or_default();
    }
}

async fn iterations(stage: &mut Stage<'_>, victim: &Name) -> bool {
    let label = if stage.dice.happens(50) {
        "nowhere"
    } else {
        "mx"
    };
    let other = stage
        .world
        .genuine(&child(label, &name("high.test.")), kind::HINFO)
        .await;
    let own = stage
        .world
        .genuine(&child("nowhere", victim), kind::HINFO)
        .await;
    let other = if stage.dice.happens(50) { other } else { own };
    stage.message.authorities.clone_from(&other.authorities);
    if stage.dice.happens(50) {
        unsigned_beside(stage);
    } else {
        stage.message.answers.clear();
        stage.message.set_code(other.code());
    }
    true
}

fn foreign_denial(stage: &mut Stage<'_>) {
    let attacker = &stage.world.attacker;
    let next = [name("zzz."), vec![0, 6, 0x40, 0, 0, 0, 0, 3]].concat();
    let spans = |owner: &[u8]| {
        attacker.signed(
            vec![Record::new(owner, kind::NSEC, next.clone())],
            &attacker.zone,
        )
    };
    let authorities = [
        spans(&child("!", &attacker.zone)),
        spans(&attacker.zone),
        spans(&stage.name),
    ]
    .concat();
    stage.message.answers.clear();
    stage.message.authorities = authorities;
    let code = if stage.dice.happens(50) {
        code::NXDOMAIN
    } else {
        code::NOERROR
    };
    stage.message.set_code(code);
}

/// Puts an alias without a signature in place of the answer, beside the denial.
fn unsigned_alias(stage: &mut Stage<'_>, code: u16) -> bool {
    let target = name("mx.evil.test.");
    stage.message.answers = vec![Record::new(&stage.name, kind::CNAME, target)];
    let authorities = &stage.denial.authorities;
    stage.message.authorities.clone_from(authorities);
    stage.message.set_code(code);
    true
}

/// Takes everything that DNSSEC adds out of a message.
fn strip(message: &mut Message) -> bool {
    let unsigned = |record: &Record| {
        !matches!(
            record.kind,
            kind::RRSIG | kind::NSEC | kind::NSEC3 | kind::DS
        )
    };
    message.answers.retain(unsigned);
    message.authorities.retain(unsigned);
    true
}
