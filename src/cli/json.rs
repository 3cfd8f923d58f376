//! JSON output.

use serde::Serialize;

use super::output::show;

/// Returns a value as JSON on one line. The values of the commands always have a JSON form.
pub(super) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

/// Returns a value as indented JSON. The values of the commands always have a JSON form.
pub(super) fn indented(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// A JSON array that is printed element by element. If a command fails before the end, the closing
/// bracket is missing, so that no program reads the output as complete.
pub(super) struct JsonArray {
    is_wanted: bool,
    has_elements: bool,
}

impl JsonArray {
    /// Starts an array. With `is_wanted` false, nothing is printed.
    pub(super) fn begin(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            has_elements: false,
        }
    }

    /// Prints an element.
    pub(super) fn add(&mut self, element: &impl Serialize) {
        if self.is_wanted {
            let separator = if self.has_elements { ",\n" } else { "[\n" };
            self.has_elements = true;
            show(&format!("{separator}{}", line(element).trim_end()));
        }
    }

    /// Prints the closing bracket.
    pub(super) fn end(self) {
        if self.is_wanted {
            show(if self.has_elements { "\n]\n" } else { "[]\n" });
        }
    }
}
