//! The TOML of a text, or the places where it is none.

use toml::Spanned;
use toml::de::DeTable;

use super::fault::Fault;
use super::fault_list::FaultList;

/// Parses a text as TOML. `None` if it is not, which has been reported.
pub(super) fn toml_document<'t>(
    text: &'t str,
    faults: &mut FaultList<'_>,
) -> Option<Spanned<DeTable<'t>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut is_toml = true;
    for error in errors {
        let location = faults.location(error.span().map_or(0, |span| span.start));
        if error.message() == "duplicate key" {
            let remedy = "Remove one of the two: a key or table can be defined only once.";
            faults.add(&location, "this key or table is already defined", remedy);
            continue;
        }
        is_toml = false;
        // The parser reports one mistake several times; the first error on a line is the useful
        // one.
        let is_known = |fault: &Fault| {
            (&fault.location.file, fault.location.line) == (&location.file, location.line)
        };
        if !faults.errors.iter().any(is_known) {
            let message = format!("this is not TOML: {}", error.message());
            faults.add(
                &location,
                message,
                "Write text in double quotes, lists in square brackets, and one key on each line.",
            );
        }
    }
    is_toml.then_some(document)
}
