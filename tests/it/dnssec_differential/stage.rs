//! One answer on its way to whoever asked: what it was, and what there is to change it with.

use std::sync::Arc;

use super::attacker::{hashed, unbase32};
use super::dice::Dice;
use super::wire::{Message, Name, canonical, is_in, kind, labels, parent};
use super::world::{Loot, Set, World};

/// An answer that is being changed.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a World,
    pub(crate) dice: Dice,
    /// The question.
    pub(crate) name: Name,
    pub(crate) kind: u16,
    /// The genuine proof that the name has no HINFO record, or does not exist.
    pub(crate) denial: Arc<Message>,
    /// The answer so far.
    pub(crate) message: Message,
}

impl<'a> Stage<'a> {
    /// A zone that an attacker would look into: most of all one that has to do with the name.
    pub(crate) fn some_zone(&mut self) -> &'a Loot {
        let world = self.world;
        let own = world.zone_of(&self.name);
        let all: Vec<&Name> = world.loot.keys().collect();
        let below: Vec<&Name> = all
            .iter()
            .copied()
            .filter(|zone| *zone != own && is_in(zone, own))
            .collect();
        let evil: Vec<&Name> = all.iter().copied().filter(|zone| is_evil(zone)).collect();
        let zone = match self.dice.below(100) {
            0..40 => own,
            40..60 => world.zone_of(&parent(own)),
            60..70 => self.dice.pick(&below).copied().unwrap_or(own),
            70..85 => self.dice.pick(&evil).copied().unwrap_or(own),
            _ => self.dice.pick(&all).copied().unwrap_or(own),
        };
        &world.loot[zone]
    }

    /// A genuine answer to another question.
    pub(crate) fn some_message(&mut self) -> Message {
        let same_kind = self.dice.happens(40);
        let kind = self.kind;
        let mut dice = self.dice.fork();
        let loot = self.some_zone();
        let alike: Vec<&Arc<Message>> = loot
            .messages
            .iter()
            .filter(|message| !same_kind || message.kind == kind)
            .collect();
        let picked = dice
            .pick(&alike)
            .map_or_else(|| self.denial.clone(), |message| Arc::clone(message));
        Message::clone(&picked)
    }

    /// A genuine RRset of another name or type.
    pub(crate) fn some_set(&mut self) -> Option<Set> {
        let same_kind = self.dice.happens(30);
        let kind = self.kind;
        let mut dice = self.dice.fork();
        let loot = self.some_zone();
        let alike: Vec<&Set> = loot
            .sets
            .iter()
            .filter(|set| !same_kind || set.kind() == kind)
            .collect();
        dice.pick(&alike).map(|set| (*set).clone())
    }

    /// The name and those above it, the root last.
    pub(crate) fn names_above(&self) -> Vec<Name> {
        let mut names = vec![self.name.clone()];
        while names.last().is_some_and(|name| name.len() > 1) {
            let above = parent(names.last().expect("not empty"));
            names.push(above);
        }
        names
    }

    /// Genuine denials of the zones above, and of the attacker's, that match or cover one of the
    /// names above.
    pub(crate) fn denials_that_touch(&self) -> Vec<&Set> {
        let names = self.names_above();
        let zones = self
            .world
            .loot
            .iter()
            .filter(|(zone, _)| is_in(&self.name, zone) || is_evil(zone));
        zones
            .flat_map(|(zone, loot)| loot.sets.iter().map(move |set| (zone, set)))
            .filter(|(zone, set)| names.iter().any(|name| touches(zone, set, name)))
            .map(|(_, set)| set)
            .collect()
    }
}

/// Returns true if a zone is the attacker's.
fn is_evil(zone: &[u8]) -> bool {
    labels(zone)
        .first()
        .is_some_and(|label| label.starts_with(b"evil"))
}

/// Returns true if an NSEC or NSEC3 record matches or covers a name.
fn touches(zone: &[u8], set: &Set, name: &[u8]) -> bool {
    let data = &set.records[0].data;
    match set.kind() {
        kind::NSEC => {
            let owner = canonical(set.owner(), name);
            let next = &data[..=labels(data)
                .iter()
                .map(|label| label.len() + 1)
                .sum::<usize>()];
            owner.is_le() && (canonical(name, next).is_lt() || next == zone)
        }
        kind::NSEC3 => {
            let salt_end = 5 + usize::from(data[4]);
            let iterations = u16::from_be_bytes([data[2], data[3]]);
            let hash = hashed(name, &data[5..salt_end], iterations);
            let next = &data[salt_end + 1..salt_end + 1 + usize::from(data[salt_end])];
            let owner = unbase32(labels(set.owner())[0]);
            hash == owner
                || if owner.as_slice() < next {
                    hash > owner && hash.as_slice() < next
                } else {
                    hash > owner || hash.as_slice() < next
                }
        }
        _ => false,
    }
}
