//! The behaviour of a host on one connection, chosen by the seed.

use std::time::Duration;

use super::seed::{Seed, chance, one_of};
use super::world::{Dead, Health, Point, Shown, Site};
use crate::support::Dice;

/// The host's answer to STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starttls {
    NotOffered,
    Rejected,
    /// The connection is closed after the 220.
    Closes,
    /// Something else than TLS follows the 220.
    Garbage,
    /// The connection is closed after the first octets of the handshake.
    Cut,
    Shows(Shown),
}

/// A failure in the middle of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection is closed in the place of an answer.
    Cut,
    /// No answer comes.
    Silence,
    /// Half of an answer comes, then the end.
    Half,
    Transient,
    Permanent,
    /// 421, and the end.
    Shutdown,
}

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) starttls: Starttls,
    pub(crate) trouble: Option<(Point, Trouble)>,
    /// The trouble is the second message's, or a later one's.
    pub(crate) after: u64,
    /// The pause behind each octet of an answer.
    pub(crate) pace: Option<Duration>,
    /// The pause before each answer.
    pub(crate) pause: Option<Duration>,
}

impl Site {
    /// Returns the events of this connection to it.
    pub(crate) fn script(&self, seed: Seed, connection: u64) -> Script {
        let usual = Script {
            starttls: self.shown.map_or(Starttls::NotOffered, Starttls::Shows),
            trouble: None,
            after: 0,
            pace: None,
            pause: None,
        };
        let dice = &mut seed.dice(&format!("{}/{connection}", self.name));
        let always = |point, trouble| Script {
            trouble: Some((point, trouble)),
            ..usual
        };
        match self.health {
            Health::Healthy => usual,
            Health::Recovers(after) if connection >= after => usual,
            Health::Worsens(after) if connection < after => usual,
            Health::Recovers(_) | Health::Worsens(_) => usual.troubled(dice),
            Health::Flaky if chance(dice, 50) => usual.troubled(dice),
            Health::Flaky => usual,
            Health::Dead(Dead::Silent(point)) => always(point, Trouble::Silence),
            Health::Dead(Dead::Defers(point)) => always(point, Trouble::Transient),
            Health::Dead(Dead::Rejects(point)) => always(point, Trouble::Permanent),
            Health::Dead(_) => usual,
        }
    }
}

impl Script {
    fn troubled(mut self, dice: &mut Dice) -> Self {
        let points = [
            Point::Greeting,
            Point::Ehlo,
            Point::Starttls,
            Point::Mail,
            Point::Rcpt,
            Point::Data,
            Point::Content,
            Point::Dot,
            Point::Dot,
        ];
        let troubles = [
            Trouble::Cut,
            Trouble::Cut,
            Trouble::Half,
            Trouble::Silence,
            Trouble::Transient,
            Trouble::Transient,
            Trouble::Permanent,
            Trouble::Shutdown,
        ];
        match dice.below(4) {
            0 => {
                self.starttls = one_of(
                    dice,
                    &[
                        Starttls::NotOffered,
                        Starttls::Rejected,
                        Starttls::Closes,
                        Starttls::Garbage,
                        Starttls::Cut,
                        Starttls::Shows(Shown::SelfSigned),
                        Starttls::Shows(Shown::Foreign),
                        Starttls::Shows(Shown::WrongName),
                    ],
                );
            }
            1 => {
                self.pace = chance(dice, 50).then(|| Duration::from_millis(1 + dice.below(8)));
                self.pause = Some(Duration::from_millis(dice.below(400)));
            }
            _ => {
                let (point, trouble) = (one_of(dice, &points), one_of(dice, &troubles));
                // Nothing is answered in the middle of a message.
                let ends = matches!(trouble, Trouble::Cut | Trouble::Silence);
                let trouble = if point == Point::Content && !ends {
                    Trouble::Cut
                } else {
                    trouble
                };
                self.trouble = Some((point, trouble));
                self.after = dice.below(3);
            }
        }
        self
    }
}
