//! Log lines that say the same of the same peer again and again: the first is written at once, and what
//! follows within the minute is counted.

use std::collections::HashMap;
use std::fmt::Display;

/// Lines that are remembered, at most. Beyond it nothing is held back: who makes so many different ones
/// is held by the limits on what a session may log.
const LINES_MAX: usize = 4096;
/// Characters of what was said that are compared and told.
const SAID_MAX: usize = 300;

/// What makes two lines the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Line {
    what: &'static str,
    who: String,
    said: String,
}

/// A line that came again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) what: &'static str,
    pub(super) who: String,
    pub(super) said: String,
    pub(super) times: u64,
}

/// The lines of the last minute, and how often each came again.
#[derive(Debug, Default)]
pub(super) struct Repeats(HashMap<Line, u64>);

impl Repeats {
    pub(super) fn is_news(&mut self, what: &'static str, who: &dyn Display, said: &dyn Display) -> bool {
        let said = said.to_string().chars().take(SAID_MAX).collect();
        let line = Line { what, who: who.to_string(), said };
        if let Some(times) = self.0.get_mut(&line) {
            *times += 1;
            return false;
        }
        if self.0.len() < LINES_MAX {
            self.0.insert(line, 0);
        }
        true
    }

    /// A minute is over. What came again stays under watch, the rest is forgotten.
    pub(super) fn round(&mut self) -> Vec<Told> {
        self.0.retain(|_, times| *times > 0);
        let told = self.0.iter_mut().map(|(line, times)| Told {
            what: line.what,
            who: line.who.clone(),
            said: line.said.clone(),
            times: std::mem::take(times),
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_news_and_the_rest_a_count() {
        let mut repeats = Repeats::default();
        assert!(repeats.is_news("refused", &"192.0.2.1", &"550 no"));
        assert!(!repeats.is_news("refused", &"192.0.2.1", &"550 no"));
        assert!(!repeats.is_news("refused", &"192.0.2.1", &"550 no"));
        assert!(repeats.is_news("refused", &"192.0.2.2", &"550 no"), "somebody else");
        assert!(repeats.is_news("refused", &"192.0.2.1", &"530 no"), "something else");
        let told = repeats.round();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].who.as_str(), told[0].times), ("192.0.2.1", 2));
        assert!(!repeats.is_news("refused", &"192.0.2.1", &"550 no"), "it goes on");
        assert_eq!(repeats.round().len(), 1);
        assert!(repeats.round().is_empty(), "and is over");
        assert!(repeats.is_news("refused", &"192.0.2.1", &"550 no"));
    }

    #[test]
    fn nobody_makes_it_grow() {
        let mut repeats = Repeats::default();
        for peer in 0..3 * LINES_MAX {
            assert!(repeats.is_news("refused", &peer, &"no"));
        }
        assert_eq!(repeats.0.len(), LINES_MAX);
    }
}
