//! What was found wrong while a configuration is read, and where: offsets become lines and columns.

use std::path::Path;
use std::sync::Arc;

use super::strays::Strays;
use super::{Fault, Place};

/// The text being read, and everything noted about it.
pub(super) struct Notes<'t> {
    text: &'t str,
    file: Arc<Path>,
    /// The offset at which each line begins.
    lines: Vec<usize>,
    /// What makes the configuration unusable.
    pub(super) faults: Vec<Fault>,
    /// What an administrator should know, though the configuration is taken.
    pub(super) warnings: Vec<Fault>,
    /// Keys that no table knows where they stand.
    pub(super) strays: Strays,
}

impl<'t> Notes<'t> {
    pub(super) fn new(text: &'t str, file: &Path) -> Self {
        let lines = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect();
        Self { text, file: Arc::from(file), lines, faults: Vec::new(), warnings: Vec::new(), strays: Strays::default() }
    }

    /// The place of an offset in the text. One behind the end is at the end.
    pub(super) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        // The first line begins at 0, so at least one line begins at or before any offset.
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        let column = self.text.get(start..offset).map_or(offset - start, |before| before.chars().count()) + 1;
        Place { file: Arc::clone(&self.file), line: narrow(line), column: narrow(column) }
    }

    /// The folder that relative paths start from.
    pub(super) fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    pub(super) fn fault(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault { place: place.clone(), message: message.into(), remedy: remedy.into() });
    }

    pub(super) fn warn(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Fault { place: place.clone(), message: message.into(), remedy: remedy.into() });
    }
}

/// Sorts warnings and says each once: one that several keys earn, as a key file that several tables name, stands at the
/// first of them and names the others.
#[must_use]
pub fn merged(mut warnings: Vec<Fault>) -> Vec<Fault> {
    warnings.sort();
    warnings.dedup();
    let mut merged: Vec<(Fault, Vec<Place>)> = Vec::new();
    for warning in warnings {
        let same =
            |(earlier, _): &&mut (Fault, _)| (&earlier.message, &earlier.remedy) == (&warning.message, &warning.remedy);
        match merged.iter_mut().find(same) {
            Some((_, others)) => others.push(warning.place),
            None => merged.push((warning, Vec::new())),
        }
    }
    let told = merged.into_iter().map(|(mut warning, others)| {
        if !others.is_empty() {
            let others: Vec<_> = others.iter().map(|place| format!("{}:{}", place.line, place.column)).collect();
            warning.message = format!("{} (also named at {})", warning.message, others.join(", "));
        }
        warning
    });
    told.collect()
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_start_at_one() {
        let notes = Notes::new("a = 1\nü = \"é\" # x\n", Path::new("f"));
        let at = |offset| {
            let place = notes.place(offset);
            (place.line, place.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(5), (1, 6));
        assert_eq!(at(6), (2, 1));
        assert_eq!(at(8), (2, 2), "one character of two octets stands before");
        assert_eq!(at(9999), (3, 1));
    }
}
