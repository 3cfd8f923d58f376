//! Suppression of repeated log lines: a line is written at once, and its repetitions within a
//! minute are counted.

use std::collections::HashMap;
use std::fmt::Display;

use super::log_budget::{LogBudget, LogClient, Suppressed};

/// The maximum number of lines that are remembered. Repetitions of further lines are not
/// recognised; lines about clients are still limited by their budgets.
const LINES_MAX: usize = 4096;
/// The characters of a line's text that are compared and logged.
const TEXT_MAX: usize = 300;

/// The key by which two lines are the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LineKey {
    event: &'static str,
    peer: String,
    text: String,
}

/// A line that was repeated.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RepeatedLine {
    pub(super) event: &'static str,
    pub(super) peer: String,
    pub(super) text: String,
    pub(super) times: u64,
}

/// The lines of the last minute with their repetitions, and the budgets of clients.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    lines: HashMap<LineKey, Repetitions>,
    budget: LogBudget,
}

/// The repetitions of a line, and the client that it is about, if any.
#[derive(Debug)]
struct Repetitions {
    times: u64,
    client: Option<LogClient>,
}

/// The decision about a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogDecision {
    /// The line should be written.
    Write,
    /// The same line was written within the last minute; it is counted.
    Repeated,
    /// The budget of the client is exhausted; the line is suppressed.
    Suppressed,
}

impl Repeats {
    /// Decides about a line that is not about a client.
    pub(super) fn should_log(
        &mut self,
        event: &'static str,
        peer: &dyn Display,
        text: &dyn Display,
    ) -> bool {
        self.decide(event, peer, text, None) == LogDecision::Write
    }

    /// Decides about a line that is about a client.
    pub(super) fn decide_client(
        &mut self,
        event: &'static str,
        client: LogClient,
        text: &dyn Display,
    ) -> LogDecision {
        self.decide(event, &client.address, text, Some(client))
    }

    fn decide(
        &mut self,
        event: &'static str,
        peer: &dyn Display,
        text: &dyn Display,
        client: Option<LogClient>,
    ) -> LogDecision {
        let text = text.to_string().chars().take(TEXT_MAX).collect();
        let line = LineKey {
            event,
            peer: peer.to_string(),
            text,
        };
        if let Some(repetitions) = self.lines.get_mut(&line) {
            repetitions.times += 1;
            return LogDecision::Repeated;
        }
        // A suppressed line is not remembered, or it would be summed up later.
        if client.is_some_and(|client| !self.budget.spend(client, 1)) {
            return LogDecision::Suppressed;
        }
        if self.lines.len() < LINES_MAX {
            self.lines.insert(line, Repetitions { times: 0, client });
        }
        LogDecision::Write
    }

    /// Starts the next minute and returns the repetitions and suppressions of the last one.
    /// Repeated lines stay remembered, others are forgotten. A sum about a client uses one line of
    /// its budget.
    pub(super) fn next_minute(&mut self) -> (Vec<RepeatedLine>, Vec<Suppressed>) {
        let suppressed = self.budget.next_minute();
        self.lines.retain(|_, repetitions| repetitions.times > 0);
        let mut repeated = Vec::new();
        for (line, repetitions) in &mut self.lines {
            let times = std::mem::take(&mut repetitions.times);
            if repetitions
                .client
                .is_none_or(|client| self.budget.spend(client, times))
            {
                repeated.push(RepeatedLine {
                    event: line.event,
                    peer: line.peer.clone(),
                    text: line.text.clone(),
                    times,
                });
            }
        }
        (repeated, suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_written_and_repetitions_are_counted() {
        let mut repeats = Repeats::default();
        assert!(repeats.should_log("refused", &"192.0.2.1", &"550 no"));
        assert!(!repeats.should_log("refused", &"192.0.2.1", &"550 no"));
        assert!(!repeats.should_log("refused", &"192.0.2.1", &"550 no"));
        assert!(
            repeats.should_log("refused", &"192.0.2.2", &"550 no"),
            "somebody else"
        );
        assert!(
            repeats.should_log("refused", &"192.0.2.1", &"530 no"),
            "something else"
        );
        let (repeated, _) = repeats.next_minute();
        assert_eq!(repeated.len(), 1, "{repeated:?}");
        assert_eq!(
            (repeated[0].peer.as_str(), repeated[0].times),
            ("192.0.2.1", 2)
        );
        assert!(
            !repeats.should_log("refused", &"192.0.2.1", &"550 no"),
            "it goes on"
        );
        assert_eq!(repeats.next_minute().0.len(), 1);
        assert!(repeats.next_minute().0.is_empty(), "and is over");
        assert!(repeats.should_log("refused", &"192.0.2.1", &"550 no"));
    }

    #[test]
    fn the_number_of_remembered_lines_is_limited() {
        let mut repeats = Repeats::default();
        for peer in 0..3 * LINES_MAX {
            assert!(repeats.should_log("refused", &peer, &"no"));
        }
        assert_eq!(repeats.lines.len(), LINES_MAX);
    }

    #[test]
    fn lines_and_sums_use_the_budget_of_a_client_and_repetitions_do_not() {
        let mut repeats = Repeats::default();
        let client = LogClient {
            address: "192.0.2.1".parse().expect("an address"),
            is_own: false,
        };
        let mut lines = |text: std::ops::Range<u32>| {
            let decided = text.map(|text| repeats.decide_client("refused", client, &text));
            let count = decided.fold([0; 3], |mut count, decision| {
                count[decision as usize] += 1;
                count
            });
            (count, repeats.next_minute())
        };
        let (count, (repeated, suppressed)) = lines(0..150);
        assert_eq!(
            (count, repeated.len(), suppressed[0].lines),
            ([100, 0, 50], 0, 50)
        );
        // A suppressed line does not count as a repetition.
        let (count, _) = lines(149..150);
        assert_eq!(count, [1, 0, 0]);
        let mut repeats = Repeats::default();
        for text in (0..90).chain(0..90) {
            repeats.decide_client("refused", client, &text);
        }
        let (repeated, suppressed) = repeats.next_minute();
        assert_eq!((repeated.len(), suppressed.len()), (90, 0));
        let (mut written, mut text) = (0, 90..);
        while repeats.decide_client("refused", client, &text.next().expect("endless"))
            == LogDecision::Write
        {
            written += 1;
        }
        assert_eq!(written, 10, "the sums are lines of the new minute");
    }
}
