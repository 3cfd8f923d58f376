//! An HTML writer with which no value can become markup.

use jiff::Timestamp;

/// A piece of HTML.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Adds markup of the program.
    pub(super) fn raw(&mut self, markup: &str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds a value as text, also within a quoted attribute. Characters that could hide or reorder
    /// the surrounding text are replaced.
    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        for c in value.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if c.is_control() || is_reordering(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    /// Adds a time, for people and for programs.
    pub(super) fn time(&mut self, at: Timestamp) -> &mut Self {
        let shown = at.strftime("%Y-%m-%d %H:%M");
        self.raw("<time datetime=\"")
            .text(&at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            .raw("\">");
        self.text(&shown.to_string()).raw(" UTC</time>")
    }

    /// Adds an element with text.
    pub(super) fn element(&mut self, opening: &str, value: &str, closing: &str) -> &mut Self {
        self.raw(opening).text(value).raw(closing)
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// Returns true for characters that change the direction of text (Unicode UAX #9) or are invisible.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Formats a number for people.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Formats a number with its noun: `1 message`, `2 messages`.
pub(super) fn count(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// Formats a number of octets for people.
pub(super) fn size(octets: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if octets < 1024 {
        return format!("{octets} B");
    }
    let (mut whole, mut unit) = (octets / 1024, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        whole /= 1024;
        unit += 1;
    }
    format!("{whole} {}", UNITS[unit])
}

/// Formats the time between two moments in its largest units.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = (to.as_second() - from.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_becomes_markup() {
        let mut html = Html::default();
        html.raw("<p title=\"")
            .text("\"'><script>&")
            .raw("\">")
            .text("a\u{202e}b\u{7}c\r\n")
            .raw("</p>");
        assert_eq!(
            html.into_string(),
            "<p title=\"&quot;&#39;&gt;&lt;script&gt;&amp;\">a\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}</p>"
        );
    }

    #[test]
    fn numbers_and_spans_are_for_people() {
        assert_eq!(
            [number(0), number(999), number(1000), number(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [size(0), size(1023), size(1024), size(5 << 30)],
            ["0 B", "1023 B", "1 KiB", "5 GiB"]
        );
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        assert_eq!(
            [
                span(at(0), at(59)),
                span(at(0), at(60)),
                span(at(0), at(3660)),
                span(at(0), at(90_000)),
                span(at(5), at(0))
            ],
            ["59 s", "1 min", "1 h 1 min", "1 d 1 h", "0 s"]
        );
    }
}
