//! The `include` key, and what an included file may have.

use toml::de::DeTable;

use super::connector_toml::ConnectorToml;
use super::fault_list::FaultList;
use super::reader::{TableReader, TomlValue, read_all};
use super::recipients_toml::RecipientsToml;
use super::spelling::shorten;
use super::values::{list, text};
use crate::policy::location::Located;

/// The keys that an included file may have.
const INCLUDED_KEYS: [&str; 2] = ["connector", "recipients"];

/// Reads the `include` key.
pub(super) fn patterns(
    value: &TomlValue<'_>,
    faults: &mut FaultList<'_>,
) -> Option<Vec<Located<String>>> {
    list(value, faults, |value, faults| {
        text(value, faults).map(str::to_owned)
    })
}

/// The tables of a configuration that included files may have too.
pub(super) struct SharedTables {
    pub(super) connectors: Vec<ConnectorToml>,
    pub(super) recipients: Vec<RecipientsToml>,
}

impl SharedTables {
    /// Reads the tables of one document and adds them.
    pub(super) fn read(&mut self, root: &mut TableReader<'_>, faults: &mut FaultList<'_>) {
        let tables = root.tables(faults, "connector", "[[connector]]");
        let connectors = read_all(tables.unwrap_or_default(), faults, ConnectorToml::read);
        self.connectors.extend(connectors);
        let tables = root.tables(faults, "recipients", "[[recipients]]");
        let recipients = read_all(tables.unwrap_or_default(), faults, RecipientsToml::read);
        self.recipients.extend(recipients);
    }
}

/// Reads the tables of the included documents, which are the texts from 1 on, and adds them. Other
/// keys are faults.
pub(super) fn read_included(
    documents: &[&DeTable<'_>],
    tables: &mut SharedTables,
    faults: &mut FaultList<'_>,
) {
    for (number, document) in (1..).zip(documents) {
        faults.turn_to(number);
        let mut root = TableReader::root(document, faults);
        tables.read(&mut root, faults);
        for key in document.keys() {
            let name: &str = key.get_ref();
            if !INCLUDED_KEYS.contains(&name) {
                let location = faults.location(key.span().start);
                let message = format!("\"{}\" has no place in an included file", shorten(name));
                let remedy = "Move it to the file that includes this one; here, write only [[connector]] and [[recipients]].";
                faults.add(&location, message, remedy);
            }
        }
    }
    faults.turn_to(0);
}
