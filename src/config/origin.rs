//! The places at which the keys of a configuration are written, to distinguish what an
//! administrator wrote from defaults.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault_list::FaultList;
use super::settings::ConfigSource;
use crate::policy::location::Location;

/// The places of all keys in the files of a configuration.
#[derive(Debug, Clone, Default)]
pub struct KeyLocations(HashMap<(String, String), Location>);

impl KeyLocations {
    /// Finds the keys of a configuration.
    #[must_use]
    pub fn of(source: &ConfigSource) -> Self {
        let mut found = Self::default();
        for (file, text) in source.texts() {
            found.add_text(text, &FaultList::new(text, file));
        }
        found
    }

    fn add_text(&mut self, text: &str, lines: &FaultList<'_>) {
        let (document, _) = DeTable::parse_recoverable(text);
        for (key, value) in document.get_ref() {
            let key: &str = key.get_ref();
            match value.get_ref() {
                DeValue::Table(table) => self.add_table(&format!("[{key}]"), "", table, lines),
                DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                    for item in items {
                        self.add_item(key, item, lines);
                    }
                }
                _ => self.add("", key.to_owned(), value, lines),
            }
        }
    }

    /// Returns the place of a key's value; `None` if it is not written. `title` is that of the
    /// [`Section`](super::Section), such as `[queue]` or `[[connector]] partner`, or empty; keys of
    /// tables inside have dots, as `outbound.tls`.
    #[must_use]
    pub fn get(&self, title: &str, key: &str) -> Option<&Location> {
        self.0.get(&(title.to_owned(), key.to_owned()))
    }

    /// Returns the place of a table such as `[[connector]] partner`.
    #[must_use]
    pub fn table(&self, title: &str) -> Option<&Location> {
        self.get(title, "")
    }

    fn add(
        &mut self,
        title: &str,
        key: String,
        value: &Spanned<DeValue<'_>>,
        lines: &FaultList<'_>,
    ) {
        self.0
            .insert((title.to_owned(), key), lines.location(value.span().start));
    }

    /// Adds the keys of a table, and of the tables in it.
    fn add_table(&mut self, title: &str, prefix: &str, table: &DeTable<'_>, lines: &FaultList<'_>) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            self.add(title, path.clone(), value, lines);
            if let DeValue::Table(inner) = value.get_ref() {
                self.add_table(title, &format!("{path}."), inner, lines);
            }
        }
    }

    /// Adds a table of an array, which its `name` distinguishes, or its `domains`.
    fn add_item(&mut self, key: &str, item: &Spanned<DeValue<'_>>, lines: &FaultList<'_>) {
        let DeValue::Table(table) = item.get_ref() else {
            return;
        };
        let name = table.get("name").and_then(|name| name.get_ref().as_str());
        let name = name.map_or_else(|| domains_of(table), str::to_owned);
        let title = format!("[[{key}]] {name}");
        self.add(&title, String::new(), item, lines);
        self.add_table(&title, "", table, lines);
    }
}

/// Returns the domains of a table in one text, as the title of its section has them.
fn domains_of(table: &DeTable<'_>) -> String {
    let domains = table
        .get("domains")
        .and_then(|domains| domains.get_ref().as_array());
    let domains: Vec<&str> = domains
        .into_iter()
        .flatten()
        .filter_map(|domain| domain.get_ref().as_str())
        .collect();
    domains.join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Each written key has its place, under the names that a section has; what is not written has
    /// none.
    #[test]
    fn written_keys_have_a_place_and_others_have_none() {
        let text = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[queue]\nexpire = \"5d\"\n\
                    [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n\
                    [[connector]]\nname = \"one\"\ndomains = [\"one.example\"]\n\
                    outbound = { tls = \"off\" }\n\
                    [[connector]]\nname = \"two\"\ndomains = [\"two.example\"]\n[connector.outbound]\ntls = \"forced\"\n\
                    exception.tls = \"off\"\nexception.until = \"2027-01-31\"\nexception.reason = \"x\"\n";
        let (config, _) = crate::config::parse(text, Path::new("gatepost.toml")).expect("good");
        let keys = KeyLocations::of(&config.source);
        let place = |title, key| {
            keys.get(title, key)
                .map(|location| (location.line, location.column))
        };
        for (title, key, line, column) in [
            ("", "hostname", 1, 12),
            ("[queue]", "expire", 4, 10),
            ("[[listener]] mx", "address", 7, 11),
            ("[[connector]] one", "outbound.tls", 12, 20),
            ("[[connector]] two", "domains", 15, 11),
            ("[[connector]] two", "outbound.tls", 17, 7),
            ("[[connector]] two", "outbound.exception.until", 19, 19),
        ] {
            assert_eq!(place(title, key), Some((line, column)), "{title} {key}");
        }
        assert_eq!(
            keys.table("[[connector]] two")
                .map(|location| location.line),
            Some(13)
        );
        for (title, key) in [
            ("[queue]", "retry"),
            ("[limits]", "recipients"),
            ("[[connector]] one", "outbound.exception"),
            ("[[connector]] three", "domains"),
        ] {
            assert_eq!(place(title, key), None, "{title} {key}");
        }
    }
}
