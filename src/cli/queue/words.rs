//! Times, sizes and texts as people read them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Characters of a reason in a table, at most.
const REASON_MAX: usize = 200;

/// `1 message`, `2 messages`.
pub(super) fn count(messages: usize) -> String {
    if messages == 1 { "1 message".to_owned() } else { format!("{messages} messages") }
}

/// A time, to the second.
pub(in crate::cli) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// How long ago.
pub(in crate::cli) fn age(at: Timestamp, now: Timestamp) -> String {
    brief(at.duration_until(now))
}

/// A time to come, by the clock and from now.
pub(super) fn to_come(at: Timestamp, now: Timestamp) -> String {
    format!("{}, in {}", time(at), brief(now.duration_until(at)))
}

/// The two largest units of a duration.
pub(in crate::cli) fn brief(duration: SignedDuration) -> String {
    let seconds = Duration::try_from(duration).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        (_, _, _) => format!("{days}d {}h", hours % 24),
    }
}

/// Octets, in the largest unit that leaves a number before the point.
pub(in crate::cli) fn size(octets: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(bits, _)| octets >> bits > 0) {
        Some((bits, unit)) => {
            // The whole part and the first digit behind the point.
            let tenths = (octets >> (bits - 10)) * 10 / 1024;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{octets} B"),
    }
}

/// A text that came from elsewhere, on one line and without anything that a terminal would obey.
pub(in crate::cli) fn plain(text: &str) -> String {
    let obeyed = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| {
            if c == '\n' {
                ' '
            } else if obeyed(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// The same, for a cell of a table.
pub(in crate::cli) fn short(text: &str) -> String {
    let mut text = plain(text);
    if let Some((at, _)) = text.char_indices().nth(REASON_MAX) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// The sender, as people know it.
pub(super) fn sender(sender: &crate::address::ReversePath) -> String {
    sender.mailbox().map_or_else(|| "<>".to_owned(), |mailbox| plain(&mailbox.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_brief() {
        for (seconds, said) in
            [(-5, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7500, "2h 5m"), (86400, "1d 0h"), (273_600, "3d 4h")]
        {
            assert_eq!(brief(SignedDuration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn sizes_are_brief() {
        for (octets, said) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (52_428_800, "50.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(octets), said);
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        assert_eq!(plain("a\u{1b}[31mb\r\nc\u{202e}d"), "a\u{fffd}[31mb\u{fffd} c\u{fffd}d");
        assert_eq!(short(&"ü".repeat(300)).chars().count(), 201);
    }
}
