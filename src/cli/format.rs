//! Times, sizes, counts and tables as the commands print them.

use std::fmt::Display;
use std::time::Duration;

use comfy_table::{Table, presets};
use jiff::{SignedDuration, Timestamp};

use crate::smtp::address::ReversePath;

/// The maximum length of a text in a table, in characters.
const SHORT_MAX: usize = 200;

/// Returns a number with its noun: `1 message`, `2 messages`. The plural is formed with "s".
pub(super) fn count<N: Copy + Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Returns a time in UTC, to the second.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Returns the time since a moment, in its two largest units.
pub(super) fn age(at: Timestamp, now: Timestamp) -> String {
    brief(at.duration_until(now))
}

/// Returns a moment in the future in UTC, and the time until then.
pub(super) fn time_and_wait(at: Timestamp, now: Timestamp) -> String {
    format!("{}, in {}", time(at), brief(now.duration_until(at)))
}

/// Returns a duration in its two largest units. A negative one is `0s`.
pub(super) fn brief(duration: SignedDuration) -> String {
    let seconds = Duration::try_from(duration).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        (_, _, _) => format!("{days}d {}h", hours % 24),
    }
}

/// Returns a number of octets in the largest unit that gives at least 1, with one decimal.
pub(super) fn size(octets: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(bits, _)| octets >> bits > 0) {
        Some((bits, unit)) => {
            let tenths = (octets >> (bits - 10)) * 10 / 1024;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{octets} B"),
    }
}

/// Puts a foreign text on one line and replaces the characters that a terminal would obey: control
/// characters and overrides of the writing direction.
pub(super) fn plain(text: &str) -> String {
    let is_obeyed =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| match c {
            '\n' => ' ',
            c if is_obeyed(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Returns a foreign text like [`plain`], cut after 200 characters.
pub(super) fn short(text: &str) -> String {
    let mut text = plain(text);
    if let Some((at, _)) = text.char_indices().nth(SHORT_MAX) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// Returns a sender address; `<>` for the null sender.
pub(super) fn sender(sender: &ReversePath) -> String {
    sender
        .mailbox()
        .map_or_else(|| "<>".to_owned(), |mailbox| plain(&mailbox.to_string()))
}

/// Returns an empty table without a frame.
pub(super) fn frameless_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec());
    table
}

/// Returns the lines of a table without a frame, the header first, without the blanks that stand in
/// place of the frame.
pub(super) fn table_lines(table: &Table) -> impl Iterator<Item = String> {
    table.lines().map(|line| {
        line.strip_prefix(' ')
            .unwrap_or(&line)
            .trim_end()
            .to_owned()
            + "\n"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (7500, "2h 5m"),
            (86400, "1d 0h"),
            (273_600, "3d 4h"),
        ] {
            assert_eq!(brief(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn sizes_have_one_decimal() {
        for (octets, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (52_428_800, "50.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(octets), text);
        }
    }

    #[test]
    fn characters_that_a_terminal_obeys_are_replaced() {
        assert_eq!(
            plain("a\u{1b}[31mb\r\nc\u{202e}d"),
            "a\u{fffd}[31mb\u{fffd} c\u{fffd}d"
        );
        assert_eq!(short(&"ü".repeat(300)).chars().count(), 201);
    }
}
