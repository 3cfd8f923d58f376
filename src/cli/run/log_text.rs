//! Log lines as text: a fixed sentence, then the fields as `name=value`.
//!
//! One rule holds for all values, so that programs can split a line at its blanks: a value is
//! quoted if it is empty or has white space, `"`, `=`, `\` or a control character. A quoted value
//! is a JSON string. The sentence is quoted by the same rule, except that it may have blanks.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Formats the fields of an event for the text log and for the journal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = LineWriter {
            writer,
            is_empty: true,
            result: Ok(()),
        };
        fields.record(&mut line);
        line.result
    }
}

/// Writes fields one after the other.
struct LineWriter<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl LineWriter<'_> {
    fn add(&mut self, field: &Field, value: &str) {
        // Lines of libraries that use the `log` crate have such fields, with the place in the
        // library's source.
        if field.name().starts_with("log.") {
            return;
        }
        if self.result.is_ok() {
            self.result = self.write(field.name(), value);
        }
        self.is_empty = false;
    }

    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        if !self.is_empty {
            self.writer.write_char(' ')?;
        }
        if name == "message" {
            return self.writer.write_str(&sentence(value));
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        // Italics and a faint "=", on a terminal.
        if self.writer.has_ansi_escapes() {
            write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?;
        } else {
            write!(self.writer, "{name}=")?;
        }
        self.writer.write_str(&quoted(value))
    }
}

impl Visit for LineWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// Returns a value, quoted if it could not be split off otherwise.
fn quoted(value: &str) -> Cow<'_, str> {
    if value.is_empty() || value.chars().any(|c| c.is_whitespace() || is_special(c)) {
        json_string(value).into()
    } else {
        value.into()
    }
}

/// Returns the sentence of a line, quoted if a part of it could be mistaken for a field.
fn sentence(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_special) {
        json_string(text).into()
    } else {
        text.into()
    }
}

/// Returns true for the characters that have a meaning in a line, and for those that a terminal
/// obeys: control characters and overrides of the writing direction.
fn is_special(c: char) -> bool {
    matches!(c, '"' | '=' | '\\' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || c.is_control()
}

/// Returns a text as a JSON string (RFC 8259 §7), without any character that a terminal obeys.
fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '=' => out.push(c),
            // All of these have at most four hexadecimal digits. Writing into a String cannot fail.
            c if is_special(c) => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("nobody panicked")
                .extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the lines that these events make, without time and level.
    fn lines(events: impl FnOnce()) -> Vec<String> {
        let log = Log::default();
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(TextFields)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .with_level(false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let text =
            String::from_utf8(log.0.lock().expect("nobody panicked").clone()).expect("UTF-8");
        text.lines().map(str::to_owned).collect()
    }

    /// Splits a line as a simple reader of `name=value` does: the sentence, and each field with its
    /// value.
    fn split(line: &str) -> (String, Vec<(String, String)>) {
        /// Takes a word or a JSON string from the front of a text.
        fn take(text: &str) -> (String, &str) {
            if !text.starts_with('"') {
                let end = text.find(' ').unwrap_or(text.len());
                return (text[..end].to_owned(), &text[end..]);
            }
            let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
            let value = strings.next().expect("a string").expect("a JSON string");
            (value, &text[strings.byte_offset()..])
        }
        let (mut words, mut fields, mut rest) = (Vec::new(), Vec::new(), line);
        while !rest.is_empty() {
            let name_end = rest.find(['=', ' ', '"']).unwrap_or(rest.len());
            if rest[name_end..].starts_with('=') {
                let (value, after) = take(&rest[name_end + 1..]);
                fields.push((rest[..name_end].to_owned(), value));
                rest = after;
            } else {
                assert!(
                    fields.is_empty(),
                    "a bare word behind a field: {rest:?} in {line:?}"
                );
                let (word, after) = take(rest);
                words.push(word);
                rest = after;
            }
            rest = rest.strip_prefix(' ').unwrap_or(rest);
        }
        (words.join(" "), fields)
    }

    /// Each value comes back as it was, whatever it has and however it was recorded, and each event
    /// is one line.
    #[test]
    fn a_line_can_be_split_into_its_fields() {
        let values = [
            "a@example.org",
            "",
            "forced (connector: TLS)",
            "250 2.0.0 \"queued\" as=x",
            "C:\\mail\\",
            "two\nlines\r\n\tmore",
            "\u{1b}[31mred\u{202e}\u{7}",
            "b\u{fc}cher\u{a0}.example",
            "to=x",
            "\"",
        ];
        for value in values {
            let written = lines(|| {
                tracing::info!(queue_id = %"0sb", text = value, display = %value, tls.wanted = "x", n = 7, "delivery deferred");
            });
            assert_eq!(written.len(), 1, "{written:?}");
            assert!(
                !written[0].contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{written:?}"
            );
            let (sentence, fields) = split(&written[0]);
            assert_eq!(sentence, "delivery deferred");
            let expected = [
                ("queue_id", "0sb"),
                ("text", value),
                ("display", value),
                ("tls.wanted", "x"),
                ("n", "7"),
            ];
            assert_eq!(
                fields,
                expected.map(|(name, value)| (name.to_owned(), value.to_owned())),
                "{written:?}"
            );
        }
    }

    /// Only what needs quotes has them, and a sentence that could be mistaken for fields has them
    /// too.
    #[test]
    fn quotes_stand_only_where_they_are_needed() {
        let written = lines(|| {
            tracing::info!(to = "b@c.example", peer = %"mx [192.0.2.1]:25", order = ?Some("x"), "message delivered");
            tracing::warn!("set tls = \"forced\"");
        });
        assert_eq!(
            written,
            [
                r#"message delivered to=b@c.example peer="mx [192.0.2.1]:25" order="Some(\"x\")""#,
                r#""set tls = \"forced\"""#
            ]
        );
        assert_eq!(
            split(&written[1]),
            ("set tls = \"forced\"".to_owned(), Vec::new())
        );
    }

    /// A line of a library has no field about its source, also if it is the first one.
    #[test]
    fn the_place_in_a_library_is_left_out() {
        let written = lines(|| {
            tracing::info!(
                log.target = "rustls",
                log.line = 7_u64,
                n = 1,
                "alert received"
            );
            tracing::info!(n = 1, log.file = %"hs.rs", log.module_path = "rustls::hs");
            tracing::info!(log.file = %"hs.rs", n = 1);
        });
        assert_eq!(written, ["alert received n=1", "n=1", "n=1"]);
    }
}
