//! A bad world, by a seed: the tests that play `simulation`.
//!
//! `GATEPOST_SEED=7 cargo test --test it bad_world::` plays the world of that seed. Tests start in
//! the order of their names, and this one takes longest and mostly waits: it must be among the
//! first.

use std::time::SystemTime;

use crate::simulation::play::{Extent, play};
use crate::simulation::seed::Seed;

/// Seeds that have failed once in a world of this size, and what they found. The large worlds that
/// `.ci/simulation` plays have found with seed 1 that a clock which jumps ahead made a message
/// expire that had just come in.
const FAILED: &[u64] = &[];

/// The seeds that `GATEPOST_SEED` names; `today` stands for the number of the day.
fn given() -> Option<Vec<u64>> {
    let text = std::env::var("GATEPOST_SEED").ok()?;
    let today = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs() / 86400);
    let read = |word: &str| {
        if word == "today" {
            today
        } else {
            word.parse().expect("a number, or today")
        }
    };
    Some(text.split_whitespace().map(read).collect())
}

/// Some hundreds of messages, within a minute.
#[test]
fn a_small_world_keeps_every_promise() {
    let seeds = given().unwrap_or_else(|| [1].iter().chain(FAILED).copied().collect());
    for seed in seeds {
        play(Seed(seed), Extent::SMALL);
    }
}

#[test]
#[ignore = "takes minutes, and root for the disk: .ci/simulation"]
fn a_large_world_keeps_every_promise() {
    let seeds = given().unwrap_or_else(|| vec![1, 2]);
    std::thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || play(Seed(seed), Extent::LARGE));
        }
    });
}
