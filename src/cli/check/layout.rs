//! Lines of at most 80 columns.

/// The width of the output.
const WIDTH: usize = 80;

/// Adds a line that begins with `head`, and continues with the parts and a separator between them.
/// Further lines are indented as far as the head is wide. A line is broken between parts, and
/// inside of a part only if that is too long for a line of its own. Text without a space is never
/// broken.
pub(super) fn add_parts<T: AsRef<str>>(
    text: &mut String,
    head: &str,
    parts: &[T],
    separator: &str,
) {
    let indent = head.chars().count();
    let mut line = head.to_owned();
    let mut is_empty = true;
    for (at, part) in parts.iter().enumerate() {
        let end = if at + 1 < parts.len() {
            separator.trim_end()
        } else {
            ""
        };
        let part = format!("{}{end}", part.as_ref());
        let columns = WIDTH.saturating_sub(indent);
        let pieces = if part.chars().count() > columns {
            part.split(' ').collect()
        } else {
            vec![part.as_str()]
        };
        for piece in pieces {
            let blank = usize::from(!is_empty);
            if !is_empty && line.chars().count() + blank + piece.chars().count() > WIDTH {
                push_line(text, &line);
                line = " ".repeat(indent);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(piece);
            is_empty = false;
        }
    }
    push_line(text, &line);
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// A block of lines, each with a label in a column of its own.
pub(super) struct Block {
    text: String,
    indent: usize,
    label: usize,
}

impl Block {
    /// Starts a block under a title. The labels are `indent` columns from the left, in a column of
    /// this width.
    pub(super) fn new(title: &str, indent: usize, label: usize) -> Self {
        Self {
            text: format!("{title}\n"),
            indent,
            label,
        }
    }

    /// Adds a line with a label.
    pub(super) fn line(&mut self, label: &str, value: &str) {
        self.parts(label, &[value]);
    }

    /// Adds a line with a label and several parts.
    pub(super) fn parts<T: AsRef<str>>(&mut self, label: &str, parts: &[T]) {
        let Self {
            text,
            indent,
            label: width,
        } = self;
        add_parts(
            text,
            &format!(
                "{:indent$}{label:<width$}  ",
                "",
                width = *width,
                indent = *indent
            ),
            parts,
            "; ",
        );
    }

    /// Adds lines without a label.
    pub(super) fn bare<T: AsRef<str>>(&mut self, parts: &[T]) {
        add_parts(&mut self.text, &" ".repeat(self.indent), parts, ", ");
    }

    /// Adds lines that another function has laid out.
    pub(super) fn raw(&mut self, lines: &str) {
        self.text.push_str(lines);
    }

    /// Returns the lines.
    pub(super) fn end(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line is broken between parts, then between words, and never inside of a word.
    #[test]
    fn lines_are_broken_at_80_columns_between_parts() {
        let broken = |parts: &[&str]| {
            let mut text = String::new();
            add_parts(&mut text, "  label  ", parts, "; ");
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
            words.lines().count() > 1 && words.lines().all(|line| line.len() <= WIDTH),
            "{words}"
        );
    }
}
