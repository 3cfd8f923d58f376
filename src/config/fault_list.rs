//! The faults found in the texts of a configuration, and the conversion of offsets to locations.

use std::path::Path;
use std::sync::Arc;

use super::fault::Fault;
use super::unknown_keys::{IntendedKeys, UnknownKeys};
use crate::policy::location::Location;

/// The faults and warnings of texts that are being read, and the start of each line for their
/// locations.
pub(super) struct FaultList<'t> {
    texts: Vec<LinedText<'t>>,
    /// The text that is being read, by its place in `texts`.
    current: usize,
    /// Faults that make the configuration invalid.
    pub(super) errors: Vec<Fault>,
    /// Warnings about a configuration that is valid.
    pub(super) warnings: Vec<Fault>,
    /// The keys that their table does not know.
    pub(super) unknown_keys: UnknownKeys,
    /// The keys for which those stand, if the texts have been read before.
    pub(super) intended_keys: IntendedKeys,
}

/// A text with the start of each line.
#[derive(Clone)]
struct LinedText<'t> {
    text: &'t str,
    file: Arc<Path>,
    /// The offset of each line's start.
    lines: Vec<usize>,
}

impl<'t> LinedText<'t> {
    fn new(text: &'t str, file: &Path) -> Self {
        let lines = std::iter::once(0)
            .chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1))
            .collect();
        Self {
            text,
            file: Arc::from(file),
            lines,
        }
    }

    fn location(&self, offset: usize) -> Location {
        let offset = offset.min(self.text.len());
        // The first line starts at 0, so at least one line starts at or before any offset.
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        let column = self
            .text
            .get(start..offset)
            .map_or(offset - start, |before| before.chars().count())
            + 1;
        Location {
            file: Arc::clone(&self.file),
            line: to_u32(line),
            column: to_u32(column),
        }
    }
}

impl<'t> FaultList<'t> {
    pub(super) fn new(text: &'t str, file: &Path) -> Self {
        Self::of(vec![LinedText::new(text, file)])
    }

    fn of(texts: Vec<LinedText<'t>>) -> Self {
        Self {
            texts,
            current: 0,
            errors: Vec::new(),
            warnings: Vec::new(),
            unknown_keys: UnknownKeys::default(),
            intended_keys: IntendedKeys::default(),
        }
    }

    /// Adds the text of an included file. Texts are numbered from 0, which is the first one.
    pub(super) fn add_text(&mut self, text: &'t str, file: &Path) {
        self.texts.push(LinedText::new(text, file));
    }

    /// Turns to the text of this number, which must have been added: locations are in it from now on.
    pub(super) fn turn_to(&mut self, number: usize) {
        self.current = number;
    }

    /// Reads the texts with `read`, which returns nothing if it has reported a fault. If they have unknown
    /// keys, it reads them again: that reading reports no fault that only follows from such a key.
    /// Returns the value with the warnings.
    ///
    /// # Errors
    /// All faults, each once, by location.
    pub(super) fn resolve<T>(
        mut self,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Result<(T, Vec<Fault>), Vec<Fault>> {
        let before = self.errors.clone();
        let mut value = read(&mut self);
        if !self.unknown_keys.is_empty() {
            self = self.for_second_reading();
            self.errors = before;
            value = read(&mut self);
        }
        let Self {
            mut errors,
            mut warnings,
            unknown_keys,
            ..
        } = self;
        errors.extend(unknown_keys.faults());
        errors.sort();
        errors.dedup();
        warnings.sort();
        match value {
            Some(value) if errors.is_empty() => Ok((value, warnings)),
            _ => Err(errors),
        }
    }

    /// Returns an empty list for the same texts, which knows what the unknown keys of this list stand
    /// for.
    fn for_second_reading(&self) -> Self {
        Self {
            intended_keys: self.unknown_keys.intended(),
            ..Self::of(self.texts.clone())
        }
    }

    /// Returns the location of an offset. An offset past the end counts as the end.
    pub(super) fn location(&self, offset: usize) -> Location {
        self.texts[self.current].location(offset)
    }

    /// The folder from which relative paths start: that of the file that is being read.
    pub(super) fn folder(&self) -> &Path {
        let file = &self.texts[self.current].file;
        file.parent().unwrap_or(Path::new(""))
    }

    pub(super) fn add(
        &mut self,
        location: &Location,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.errors.push(Fault {
            location: location.clone(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn warn(
        &mut self,
        location: &Location,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.warnings.push(Fault {
            location: location.clone(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_start_at_one() {
        let faults = FaultList::new("a = 1\nü = \"é\" # x\n", Path::new("f"));
        let at = |offset| {
            let location = faults.location(offset);
            (location.line, location.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(5), (1, 6));
        assert_eq!(at(6), (2, 1));
        assert_eq!(at(8), (2, 2), "one character of two octets stands before");
        assert_eq!(at(9999), (3, 1));
    }
}
