//! The mail that clients send, message by message.

use super::seed::{chance, one_of};
use super::world::World;
use crate::support::message::{Message, RELAXED};

/// The message with this number, and whether its client goes away in the middle of it.
pub(crate) fn message(world: &World, number: usize) -> (Message, bool) {
    let dice = &mut world.seed.dice(&format!("message/{number}"));
    let count = match dice.below(10) {
        0 => 3,
        1 | 2 => 2,
        _ => 1,
    };
    let mut domains: Vec<&str> = Vec::new();
    for _ in 0..count {
        let of: Vec<_> = world
            .destinations
            .iter()
            .map(|one| one.domain.as_str())
            .collect();
        let domain = one_of(dice, &of);
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    let size = match dice.below(50) {
        0 => 130_000 + dice.below(100_000),
        1..=5 => dice.below(20_000),
        _ => 300 + dice.below(1500),
    };
    let relaxed = if chance(dice, 8) { RELAXED } else { "" };
    let mut message = Message::new(
        &format!("m{number}{relaxed}"),
        &domains,
        usize::try_from(size).expect("small"),
    );
    if chance(dice, 10) {
        message
            .recipients
            .push(format!("m{number}{relaxed}.second@{}", domains[0]));
    }
    (message, chance(dice, 2))
}

/// Returns true if mail for this recipient says `TLS-Required: No`.
pub(crate) fn is_relaxed(recipient: &str) -> bool {
    recipient.contains(RELAXED)
}
