//! The `include` key, and what an included file may have.

use toml::de::DeTable;

use super::connector_toml::ConnectorToml;
use super::fault_list::FaultList;
use super::reader::{TableReader, TomlValue, read_all};
use super::spelling::shorten;
use super::values::{list, text};
use crate::policy::location::Located;

/// The keys that an included file may have.
const INCLUDED_KEYS: [&str; 1] = ["connector"];

/// Reads the `include` key.
pub(super) fn patterns(
    value: &TomlValue<'_>,
    faults: &mut FaultList<'_>,
) -> Option<Vec<Located<String>>> {
    list(value, faults, |value, faults| {
        text(value, faults).map(str::to_owned)
    })
}

/// Reads the connectors of the included documents, which are the texts from 1 on. Other keys are
/// faults.
pub(super) fn connectors(
    documents: &[&DeTable<'_>],
    faults: &mut FaultList<'_>,
) -> Vec<ConnectorToml> {
    let mut connectors = Vec::new();
    for (number, document) in (1..).zip(documents) {
        faults.turn_to(number);
        let mut root = TableReader::root(document, faults);
        let tables = root.tables(faults, "connector", "[[connector]]");
        connectors.extend(read_all(
            tables.unwrap_or_default(),
            faults,
            ConnectorToml::read,
        ));
        for key in document.keys() {
            let name: &str = key.get_ref();
            if !INCLUDED_KEYS.contains(&name) {
                let location = faults.location(key.span().start);
                let message = format!("\"{}\" has no place in an included file", shorten(name));
                let remedy =
                    "Move it to the file that includes this one; here, write only [[connector]].";
                faults.add(&location, message, remedy);
            }
        }
    }
    faults.turn_to(0);
    connectors
}
