//! Reads a table key by key. Keys that were not requested by the end are unknown.
//!
//! This module knows the types of TOML, but not the meaning of keys (see [`super::values`] and its
//! neighbours). A table of the wrong type is reported once, and every key in it is then
//! [`Field::Invalid`], so that one mistake gives one fault.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault_list::FaultList;
use super::spelling::shorten;
use super::unknown_keys::UnknownKey;
use crate::policy::location::{Located, Location};

/// A value of the document, with its key.
pub(super) struct TomlValue<'d> {
    /// The key, for messages; of a list item, the key of the list.
    pub(super) key: &'static str,
    /// The location of the value.
    pub(super) location: Location,
    /// The TOML value.
    pub(super) raw: &'d DeValue<'d>,
}

impl<'d> TomlValue<'d> {
    /// The items, if this is a list.
    pub(super) fn items(&self, faults: &FaultList<'_>) -> Option<Vec<TomlValue<'d>>> {
        let item = |raw: &'d Spanned<DeValue<'d>>| TomlValue {
            key: self.key,
            location: faults.location(raw.span().start),
            raw: raw.get_ref(),
        };
        Some(self.raw.as_array()?.iter().map(item).collect())
    }
}

/// A key of a table, as it was found.
#[derive(Debug, Clone)]
pub(super) enum Field<T> {
    /// The key is not there.
    Absent,
    /// The key is there, but misspelt, in a wrong table, or with an invalid value, which has been
    /// reported. Rules that depend on it are skipped.
    Invalid,
    /// The key is there, with a valid value.
    Valid(Located<T>),
}

impl<T> Field<T> {
    pub(super) fn value(&self) -> Option<&T> {
        self.located().map(|located| &located.value)
    }

    pub(super) fn located(&self) -> Option<&Located<T>> {
        match self {
            Self::Absent | Self::Invalid => None,
            Self::Valid(located) => Some(located),
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Returns the value, or `default` if there is no valid one.
    pub(super) fn or(self, default: T) -> T {
        match self {
            Self::Absent | Self::Invalid => default,
            Self::Valid(located) => located.value,
        }
    }

    /// Returns the value for rules: `default` if the key is absent, `None` if it is invalid.
    pub(super) fn resolve(&self, default: T) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Self::Absent => Some(default),
            Self::Invalid => None,
            Self::Valid(located) => Some(located.value.clone()),
        }
    }
}

/// A table that is being read.
pub(super) struct TableReader<'d> {
    title: &'static str,
    location: Location,
    /// The table of an array that this table is, or is in.
    entry: Option<Location>,
    content: TableContent<'d>,
    requested: Vec<&'static str>,
    /// The requested keys that are values, not tables.
    value_keys: Vec<&'static str>,
}

enum TableContent<'d> {
    Absent,
    Invalid,
    Table(&'d DeTable<'d>),
}

impl<'d> TableReader<'d> {
    /// The top level of the document.
    pub(super) fn root(document: &'d DeTable<'d>, faults: &FaultList<'_>) -> Self {
        Self {
            title: "",
            location: faults.location(0),
            entry: None,
            content: TableContent::Table(document),
            requested: Vec::new(),
            value_keys: Vec::new(),
        }
    }

    /// The location of the table's header; of an absent table, that of its parent.
    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// Returns true if the table is not there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.content, TableContent::Absent)
    }

    fn get(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.requested.push(key);
        match self.content {
            TableContent::Absent | TableContent::Invalid => None,
            TableContent::Table(table) => table.get(key),
        }
    }

    /// Returns true if a key that is not there has been reported already: the table is invalid, or
    /// an unknown key stands for it.
    fn is_reported(&self, key: &'static str, faults: &FaultList<'_>) -> bool {
        let intended = &faults.intended_keys;
        matches!(self.content, TableContent::Invalid)
            || intended.contains(self.title, key, self.entry.as_ref())
    }

    /// Reads a key.
    pub(super) fn read<T>(
        &mut self,
        faults: &mut FaultList<'_>,
        key: &'static str,
        read: impl FnOnce(&TomlValue<'d>, &mut FaultList<'_>) -> Option<T>,
    ) -> Field<T> {
        self.value_keys.push(key);
        let Some(raw) = self.get(key) else {
            return if self.is_reported(key, faults) {
                Field::Invalid
            } else {
                Field::Absent
            };
        };
        let value = TomlValue {
            key,
            location: faults.location(raw.span().start),
            raw: raw.get_ref(),
        };
        match read(&value, faults) {
            Some(parsed) => Field::Valid(Located {
                value: parsed,
                location: value.location,
            }),
            None => Field::Invalid,
        }
    }

    /// Reads a key that has a default.
    pub(super) fn read_or<T>(
        &mut self,
        faults: &mut FaultList<'_>,
        key: &'static str,
        default: T,
        read: impl FnOnce(&TomlValue<'d>, &mut FaultList<'_>) -> Option<T>,
    ) -> T {
        self.read(faults, key, read).or(default)
    }

    /// Reads a mandatory key. `example` is shown in the remedy.
    pub(super) fn required<T>(
        &mut self,
        faults: &mut FaultList<'_>,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&TomlValue<'d>, &mut FaultList<'_>) -> Option<T>,
    ) -> Field<T> {
        let given = self.read(faults, key, read);
        if !given.is_absent() {
            return given;
        }
        let inside = if self.title.is_empty() {
            "at the top".to_owned()
        } else {
            format!("to {}", self.title)
        };
        faults.add(
            &self.location,
            format!("{key} is missing{}", self.within()),
            format!("Add {inside}: {example}"),
        );
        Field::Invalid
    }

    /// Reads a table. An absent table has only absent keys.
    pub(super) fn table(
        &mut self,
        faults: &mut FaultList<'_>,
        key: &'static str,
        title: &'static str,
    ) -> TableReader<'d> {
        let Some(raw) = self.get(key) else {
            let content = if self.is_reported(key, faults) {
                TableContent::Invalid
            } else {
                TableContent::Absent
            };
            return TableReader {
                title,
                location: self.location.clone(),
                entry: self.entry.clone(),
                content,
                requested: Vec::new(),
                value_keys: Vec::new(),
            };
        };
        let location = faults.location(raw.span().start);
        let content = match raw.get_ref() {
            DeValue::Table(table) => TableContent::Table(table),
            DeValue::Array(array) if array.iter().all(|item| item.get_ref().is_table()) => {
                let message = format!("{key} can be used here only once");
                faults.add(
                    &location,
                    message,
                    format!("Write {title} with single brackets, once."),
                );
                TableContent::Invalid
            }
            other => {
                let message = format!("{key} must be a table, not {}", kind_name(other));
                faults.add(
                    &location,
                    message,
                    format!("Write {title} on a line of its own and its keys below."),
                );
                TableContent::Invalid
            }
        };
        TableReader {
            title,
            location,
            entry: self.entry.clone(),
            content,
            requested: Vec::new(),
            value_keys: Vec::new(),
        }
    }

    /// Reads an array of tables. `None` if it has the wrong type.
    pub(super) fn tables(
        &mut self,
        faults: &mut FaultList<'_>,
        key: &'static str,
        title: &'static str,
    ) -> Option<Vec<TableReader<'d>>> {
        let Some(raw) = self.get(key) else {
            return if self.is_reported(key, faults) {
                None
            } else {
                Some(Vec::new())
            };
        };
        let DeValue::Array(array) = raw.get_ref() else {
            let location = faults.location(raw.span().start);
            let message = format!(
                "{key} must be a list of tables, not {}",
                kind_name(raw.get_ref())
            );
            faults.add(
                &location,
                message,
                format!("Write {title}, with two brackets on each side, before its keys."),
            );
            return None;
        };
        let mut tables = Vec::new();
        for item in array {
            let location = faults.location(item.span().start);
            let content = if let DeValue::Table(table) = item.get_ref() {
                TableContent::Table(table)
            } else {
                let message = format!(
                    "{key} must be a list of tables, but this is {}",
                    kind_name(item.get_ref())
                );
                faults.add(
                    &location,
                    message,
                    format!("Write {title} before the keys of each."),
                );
                TableContent::Invalid
            };
            tables.push(TableReader {
                title,
                entry: Some(location.clone()),
                location,
                content,
                requested: Vec::new(),
                value_keys: Vec::new(),
            });
        }
        Some(tables)
    }

    /// Registers every key that was not requested. Its remedy is chosen after all tables have been
    /// read, because it may belong to another one.
    pub(super) fn finish(self, faults: &mut FaultList<'_>) {
        faults.unknown_keys.register(self.title, &self.value_keys);
        let TableContent::Table(table) = self.content else {
            return;
        };
        for key in table.keys() {
            let name: &str = key.get_ref();
            if self.requested.contains(&name) {
                continue;
            }
            let location = faults.location(key.span().start);
            faults.unknown_keys.add(UnknownKey {
                location,
                name: shorten(name),
                title: self.title,
                entry: self.entry.clone(),
                known: self.requested.clone(),
            });
        }
    }

    fn within(&self) -> String {
        if self.title.is_empty() {
            String::new()
        } else {
            format!(" in {}", self.title)
        }
    }
}

/// Reads the tables of an array.
pub(super) fn read_all<'d, 't, T>(
    tables: Vec<TableReader<'d>>,
    faults: &mut FaultList<'t>,
    read: fn(TableReader<'d>, &mut FaultList<'t>) -> T,
) -> Vec<T> {
    let read = |table| read(table, faults);
    tables.into_iter().map(read).collect()
}

/// The TOML type of a value, with its article.
pub(super) fn kind_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
