//! Log lines that say the same of the same peer again and again: the first is written at once, and what
//! follows within the minute is counted.

use std::collections::HashMap;
use std::fmt::Display;

use super::log_budget::{LogBudget, LogClient, Suppressed};

/// Lines that are remembered, at most. Beyond it no repetition is recognised; clients are held by their budgets.
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

/// The lines of the last minute, how often each came again, and what clients may still cause.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    lines: HashMap<Line, Again>,
    budget: LogBudget,
}

/// The repetitions of a line, and the client that it is about, if any.
#[derive(Debug)]
struct Again {
    times: u64,
    client: Option<LogClient>,
}

/// The decision about a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is to be written.
    News,
    /// The same was written a moment ago: it is counted.
    Repeated,
    /// The client has no line left in this minute: it is left out.
    Suppressed,
}

impl Repeats {
    /// Judges a line that nobody in particular causes.
    pub(super) fn is_news(&mut self, what: &'static str, who: &dyn Display, said: &dyn Display) -> bool {
        self.judge(what, who, said, None) == Verdict::News
    }

    /// Judges a line that a client causes.
    pub(super) fn judge_client(&mut self, what: &'static str, client: LogClient, said: &dyn Display) -> Verdict {
        self.judge(what, &client.address, said, Some(client))
    }

    fn judge(
        &mut self,
        what: &'static str,
        who: &dyn Display,
        said: &dyn Display,
        client: Option<LogClient>,
    ) -> Verdict {
        let said = said.to_string().chars().take(SAID_MAX).collect();
        let line = Line { what, who: who.to_string(), said };
        if let Some(again) = self.lines.get_mut(&line) {
            again.times += 1;
            return Verdict::Repeated;
        }
        // A line that is not written is not remembered: it would be summed up later.
        if client.is_some_and(|client| !self.budget.spend(client, 1)) {
            return Verdict::Suppressed;
        }
        if self.lines.len() < LINES_MAX {
            self.lines.insert(line, Again { times: 0, client });
        }
        Verdict::News
    }

    /// A minute is over. What came again stays under watch, the rest is forgotten. A sum is a line of its client's, too.
    pub(super) fn round(&mut self) -> (Vec<Told>, Vec<Suppressed>) {
        let suppressed = self.budget.round();
        self.lines.retain(|_, again| again.times > 0);
        let mut told = Vec::new();
        for (line, again) in &mut self.lines {
            let times = std::mem::take(&mut again.times);
            if again.client.is_none_or(|client| self.budget.spend(client, times)) {
                told.push(Told { what: line.what, who: line.who.clone(), said: line.said.clone(), times });
            }
        }
        (told, suppressed)
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
        let (told, _) = repeats.round();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].who.as_str(), told[0].times), ("192.0.2.1", 2));
        assert!(!repeats.is_news("refused", &"192.0.2.1", &"550 no"), "it goes on");
        assert_eq!(repeats.round().0.len(), 1);
        assert!(repeats.round().0.is_empty(), "and is over");
        assert!(repeats.is_news("refused", &"192.0.2.1", &"550 no"));
    }

    #[test]
    fn nobody_makes_it_grow() {
        let mut repeats = Repeats::default();
        for peer in 0..3 * LINES_MAX {
            assert!(repeats.is_news("refused", &peer, &"no"));
        }
        assert_eq!(repeats.lines.len(), LINES_MAX);
    }

    #[test]
    fn a_client_pays_for_its_lines_and_their_sums_and_not_for_repetitions() {
        let mut repeats = Repeats::default();
        let client = LogClient { address: "192.0.2.1".parse().expect("an address"), is_own: false };
        let mut lines = |said: std::ops::Range<u32>| {
            let judged = said.map(|said| repeats.judge_client("refused", client, &said));
            let count = judged.fold([0; 3], |mut count, verdict| {
                count[verdict as usize] += 1;
                count
            });
            (count, repeats.round())
        };
        let (count, (told, suppressed)) = lines(0..150);
        assert_eq!((count, told.len(), suppressed[0].lines), ([100, 0, 50], 0, 50));
        // What was left out is no repetition.
        let (count, _) = lines(149..150);
        assert_eq!(count, [1, 0, 0]);
        let mut repeats = Repeats::default();
        for said in (0..90).chain(0..90) {
            repeats.judge_client("refused", client, &said);
        }
        let (told, suppressed) = repeats.round();
        assert_eq!((told.len(), suppressed.len()), (90, 0));
        let (mut news, mut said) = (0, 90..);
        while repeats.judge_client("refused", client, &said.next().expect("endless")) == Verdict::News {
            news += 1;
        }
        assert_eq!(news, 10, "the sums are lines of the new minute");
    }
}
