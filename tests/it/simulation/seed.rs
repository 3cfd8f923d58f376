//! Everything that a seed decides. A decision depends on the seed and on what it is about, never on
//! the order in which things happen: the third connection to a host misbehaves alike in every run
//! of a seed.

use crate::support::Dice;

/// The number that a world is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    /// Dice for one subject.
    pub(crate) fn dice(self, subject: &str) -> Dice {
        let text = format!("{}/{subject}", self.0);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let mut octets = [0; 8];
        octets.copy_from_slice(&digest.as_ref()[..8]);
        Dice::new(u64::from_le_bytes(octets))
    }
}

/// One of several, each as likely as the others.
pub(crate) fn one_of<T: Copy>(dice: &mut Dice, all: &[T]) -> T {
    all[usize::try_from(dice.below(all.len() as u64)).expect("an index")]
}

/// Returns true with this chance in a hundred.
pub(crate) fn chance(dice: &mut Dice, percent: u64) -> bool {
    dice.below(100) < percent
}
