//! A block of lines with labels.

use crate::cli::format::{wrap, wrap_parts};

/// A block of lines, each with a label in a column of its own.
pub(super) struct Block {
    text: String,
    indent: usize,
    label: usize,
    width: usize,
}

impl Block {
    /// Starts a block under a title, in lines of at most `width` columns. The labels are `indent`
    /// columns from the left, in a column of `label` columns.
    pub(super) fn new(title: &str, (indent, label): (usize, usize), width: usize) -> Self {
        let mut text = String::new();
        let first = " ".repeat(title.len() - title.trim_start().len());
        wrap(&mut text, &first, &first, title, width);
        Self {
            text,
            indent,
            label,
            width,
        }
    }

    /// Adds a line with a label.
    pub(super) fn line(&mut self, label: &str, value: &str) {
        self.parts(label, &[value]);
    }

    /// Adds a line with a label and several parts.
    pub(super) fn parts<T: AsRef<str>>(&mut self, label: &str, parts: &[T]) {
        let (indent, column) = (self.indent, self.label);
        let first = format!("{:indent$}{label:<column$}  ", "");
        wrap_parts(&mut self.text, &first, parts, "; ", self.width);
    }

    /// Adds lines without a label.
    pub(super) fn bare<T: AsRef<str>>(&mut self, parts: &[T]) {
        let first = " ".repeat(self.indent);
        wrap_parts(&mut self.text, &first, parts, ", ", self.width);
    }

    /// Adds lines that have their form already.
    pub(super) fn raw(&mut self, lines: &str) {
        self.text.push_str(lines);
    }

    /// Returns the lines.
    pub(super) fn end(self) -> String {
        self.text
    }
}
