//! Times, sizes, counts and tables as the commands print them.

use std::fmt::Display;
use std::time::Duration;

use comfy_table::presets;
use jiff::{SignedDuration, Timestamp};

use crate::smtp::address::ReversePath;

/// The maximum length of a text in a table, in characters.
const SHORT_MAX: usize = 200;
/// The age from which a count is shown with its age. A short queue is counted once a second.
const COUNT_AGE: SignedDuration = SignedDuration::from_secs(2);

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

/// Returns the age of a count; `None` if the count is at most as old as a count of a short queue.
pub(super) fn count_age(counted: Timestamp, now: Timestamp) -> Option<String> {
    let age = counted.duration_until(now);
    (age >= COUNT_AGE).then(|| format!("counted {} ago", brief(age)))
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

/// The number of columns if neither `COLUMNS` nor the terminal gives one.
const COLUMNS: usize = 80;
/// The least number of columns that a terminal is believed to have.
const COLUMNS_MIN: usize = 20;
/// The indentation of what belongs to the line above.
pub(super) const INDENT: &str = "    ";

/// Returns the number of columns of the terminal: `COLUMNS` in the environment, the width of the
/// terminal on standard output, or 80.
pub(super) fn width() -> usize {
    let environment = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    let terminal = || {
        rustix::termios::tcgetwinsize(std::io::stdout())
            .ok()
            .map(|size| usize::from(size.ws_col))
    };
    let is_usable = |columns: &usize| *columns >= COLUMNS_MIN;
    environment
        .filter(is_usable)
        .or_else(|| terminal().filter(is_usable))
        .unwrap_or(COLUMNS)
}

/// Appends a text in lines of at most `width` columns. The first begins with `first`, the others
/// with `next`. No word is broken, so that it can be copied; a longer one has a line of its own.
pub(super) fn wrap(out: &mut String, first: &str, next: &str, text: &str, width: usize) {
    fill(out, (first, next), text.split_whitespace(), width);
}

/// Appends several parts in lines of at most `width` columns, like [`wrap`]. A line is broken
/// between parts, and inside of a part only if that is too long for a line of its own. Further
/// lines are indented as far as `first` is wide.
pub(super) fn wrap_parts<T: AsRef<str>>(
    out: &mut String,
    first: &str,
    parts: &[T],
    separator: &str,
    width: usize,
) {
    let next = " ".repeat(first.chars().count());
    let mut parts: Vec<_> = parts.iter().map(|part| part.as_ref().to_owned()).collect();
    let separated = parts.len().saturating_sub(1);
    for part in &mut parts[..separated] {
        part.push_str(separator.trim_end());
    }
    let is_short = |part: &str| next.len() + part.chars().count() <= width;
    let pieces = parts.iter().flat_map(|part| {
        let whole = Some(part.as_str()).filter(|part| is_short(part));
        let words = part.split_whitespace().filter(move |_| whole.is_none());
        whole.into_iter().chain(words)
    });
    fill(out, (first, &next), pieces, width);
}

/// Appends pieces in lines of at most `width` columns, with a blank between two pieces of a line.
/// No line ends with a blank.
fn fill<'a>(
    out: &mut String,
    (first, next): (&str, &str),
    pieces: impl Iterator<Item = &'a str>,
    width: usize,
) {
    out.push_str(first);
    let mut column = first.chars().count();
    for (at, piece) in pieces.enumerate() {
        let length = piece.chars().count();
        if at > 0 && column + 1 + length > width {
            out.push('\n');
            out.push_str(next);
            column = next.chars().count();
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(piece);
        column += length;
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

/// A text that is built line by line, in lines of at most `width` columns. Control characters are
/// replaced.
#[derive(Debug)]
pub(super) struct WrappedText {
    text: String,
    width: usize,
}

impl WrappedText {
    pub(super) fn new(width: usize) -> Self {
        Self {
            text: String::new(),
            width,
        }
    }

    /// Adds a line that begins with `indent` blanks.
    pub(super) fn line(&mut self, indent: usize, text: &str) {
        let first = " ".repeat(indent);
        let next = format!("{first}{INDENT}");
        wrap(&mut self.text, &first, &next, &plain(text), self.width);
    }

    /// Adds an empty line.
    pub(super) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// Adds a line with a label in a column of `column` characters, and a value. If the labels use
    /// more than half of the width, the value is below its label.
    pub(super) fn pair(&mut self, indent: usize, column: usize, label: &str, value: &str) {
        let (label, value) = (plain(label), plain(value));
        if (indent + column) * 2 > self.width {
            self.line(indent, &label);
            self.line(indent + INDENT.len(), &value);
            return;
        }
        let first = format!("{:indent$}{label:<column$}  ", "");
        let next = " ".repeat(indent + column + 2);
        wrap(&mut self.text, &first, &next, &value, self.width);
    }

    /// Returns the lines.
    pub(super) fn end(self) -> String {
        self.text
    }
}

/// A table without a frame that fits the terminal.
///
/// A column in which every cell is empty or zero is left out, the first one excepted. If a row
/// would be too wide, every row becomes a block: its first cell, and below it a line for each other
/// cell that is neither empty nor zero. A row whose first cell is empty continues the row before.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<TableRow>,
}

/// A row, and the texts below it.
#[derive(Debug)]
struct TableRow {
    cells: Vec<String>,
    notes: Vec<String>,
}

impl Table {
    pub(super) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell for each column.
    pub(super) fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) -> &mut Self {
        let cells = cells.into_iter().map(Into::into).collect();
        self.rows.push(TableRow {
            cells,
            notes: Vec::new(),
        });
        self
    }

    /// Adds a text below the last row, over as many lines as it needs. An empty one is left out.
    pub(super) fn note(&mut self, text: impl Into<String>) -> &mut Self {
        let text = text.into();
        if let Some(row) = self.rows.last_mut().filter(|_| !text.is_empty()) {
            row.notes.push(text);
        }
        self
    }

    /// Returns the lines of the table, the header first, for a terminal with `width` columns.
    /// Without rows there are none.
    pub(super) fn render(&self, width: usize) -> String {
        let is_shown = |column: &usize| {
            *column == 0 || self.rows.iter().any(|row| !is_zero(row.cell(*column)))
        };
        let columns: Vec<usize> = (0..self.header.len()).filter(is_shown).collect();
        if self.rows.is_empty() {
            return String::new();
        }
        let mut table = frameless_table(
            &columns
                .iter()
                .map(|column| self.header[*column])
                .collect::<Vec<_>>(),
        );
        for row in &self.rows {
            table.add_row(columns.iter().map(|column| row.cell(*column)));
        }
        let widths = table.column_max_content_widths();
        let needed = widths
            .iter()
            .map(|width| usize::from(*width) + 2)
            .sum::<usize>()
            .saturating_sub(2);
        if needed > width {
            return self
                .rows
                .iter()
                .map(|row| self.block(row, &columns, width))
                .collect();
        }
        // No cell has a line end, so that each row of the table is one line.
        let mut lines = table_lines(&table);
        let mut text = lines.next().unwrap_or_default();
        for (row, line) in self.rows.iter().zip(lines) {
            text.push_str(&line);
            row.add_notes(&mut text, width);
        }
        text
    }

    /// Returns a row as a block.
    fn block(&self, row: &TableRow, columns: &[usize], width: usize) -> String {
        let label_width = columns
            .iter()
            .skip(1)
            .map(|column| self.header[*column].len())
            .max()
            .unwrap_or_default();
        let mut text = String::new();
        for (at, column) in columns.iter().enumerate() {
            let cell = row.cell(*column);
            if cell.is_empty() || at > 0 && is_zero(cell) {
                continue;
            }
            if at == 0 {
                wrap(&mut text, "", INDENT, cell, width);
            } else {
                let label = format!("  {:label_width$}  ", self.header[*column]);
                wrap(&mut text, &label, &" ".repeat(label.len()), cell, width);
            }
        }
        row.add_notes(&mut text, width);
        text
    }
}

impl TableRow {
    fn cell(&self, column: usize) -> &str {
        self.cells.get(column).map_or("", String::as_str)
    }

    fn add_notes(&self, text: &mut String, width: usize) {
        for note in &self.notes {
            wrap(text, INDENT, INDENT, note, width);
        }
    }
}

/// Returns true for a cell that says nothing.
fn is_zero(cell: &str) -> bool {
    matches!(cell, "" | "0" | "-" | "0 B")
}

/// Returns an empty table without a frame.
pub(super) fn frameless_table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec());
    table
}

/// Returns the lines of a table without a frame, the header first, without the blanks that stand in
/// place of the frame.
pub(super) fn table_lines(table: &comfy_table::Table) -> impl Iterator<Item = String> {
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

    fn mail() -> Table {
        let mut table = Table::new(&["id", "size", "held", "recipient"]);
        table
            .row(["5", "9 B", "0", "bob@example.net"])
            .note("4.4.1 mx.example.net: connection refused");
        table.row(["", "", "0", "carol@example.net"]).note("");
        table
    }

    #[test]
    fn a_table_that_fits_has_a_line_for_each_row_and_leaves_out_zeros() {
        let expected = "id  size  recipient\n\
                        5   9 B   bob@example.net\n    4.4.1 mx.example.net: connection refused\n\
                        \x20         carol@example.net\n";
        assert_eq!(mail().render(44), expected);
        assert_eq!(
            Table::new(&["id", "size"]).render(80),
            "",
            "no header without rows"
        );
        assert_eq!(
            Table::new(&["id", "held"]).row(["0", "0"]).render(80),
            "id\n0\n",
            "the first column stays"
        );
    }

    #[test]
    fn a_table_that_is_too_wide_has_a_block_for_each_row() {
        let block = "5\n  size       9 B\n  recipient  bob@example.net\n    4.4.1 mx.example.net:\n    \
                     connection refused\n  recipient  carol@example.net\n";
        assert_eq!(mail().render(26), block);
        let mut counts = Table::new(&["domain", "delivered", "deferred", "bounced"]);
        counts.row(["a.example", "1", "0", "0"]);
        counts.row(["b.example", "0", "12", "0"]);
        assert_eq!(
            counts.render(20),
            "a.example\n  delivered  1\nb.example\n  deferred   12\n",
            "a block leaves out what is zero"
        );
        let mut wide = Table::new(&["domain", "reason"]);
        wide.row([
            "a.example".to_owned(),
            format!("the name {} is too long", "x".repeat(40)),
        ]);
        let name = "x".repeat(40);
        assert_eq!(
            wide.render(30),
            format!("a.example\n  reason  the name\n          {name}\n          is too long\n")
        );
    }

    /// A line is broken between parts, then between words, and never inside of a word.
    #[test]
    fn a_line_is_broken_between_parts_first() {
        let broken = |parts: &[&str]| {
            let mut text = String::new();
            wrap_parts(&mut text, "  label  ", parts, "; ", 80);
            text
        };
        let long = "x".repeat(90);
        for (parts, lines) in [
            (&["a", "b"][..], "  label  a; b\n".to_owned()),
            (&[], "  label\n".to_owned()),
            (
                &[
                    "certificate for one.example",
                    "trusted by the roots of Mozilla",
                    "raised by DANE",
                ],
                format!(
                    "  label  certificate for one.example; trusted by the roots of Mozilla;\n{:9}raised by DANE\n",
                    ""
                ),
            ),
            (&[&long, "b"], format!("  label  {long};\n{:9}b\n", "")),
            (&["a", &long], format!("  label  a;\n{:9}{long}\n", "")),
        ] {
            assert_eq!(broken(parts), lines);
        }
        let words = broken(&[&"word ".repeat(30)]);
        assert!(
            words.lines().count() > 1 && words.lines().all(|line| line.len() <= 80),
            "{words}"
        );
    }

    #[test]
    fn a_line_is_as_wide_as_the_terminal_at_most() {
        let text = "one two three four";
        for (width, lines) in [
            (18, "one two three four\n"),
            (17, "one two three\n  four\n"),
            (1, "one\n  two\n  three\n  four\n"),
        ] {
            let mut out = String::new();
            wrap(&mut out, "", "  ", text, width);
            assert_eq!(out, lines);
        }
    }
}
