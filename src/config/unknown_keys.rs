//! Unknown keys, and the tables to which they may belong.
//!
//! In TOML a key belongs to the header above it, so a key added at the end of a connector is often
//! in `[connector.outbound]` by mistake.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::Fault;
use super::spelling::nearest_word;
use crate::policy::location::Location;

/// The most tables that a remedy names.
const NAMED_MAX: usize = 3;

/// A key that its table does not know.
#[derive(Debug)]
pub(super) struct UnknownKey {
    pub(super) location: Location,
    /// The key, in a form fit for a message.
    pub(super) name: String,
    /// The table that contains it; empty for the top of the file.
    pub(super) title: &'static str,
    /// The table of an array that contains it, such as a `[[connector]]`.
    pub(super) entry: Option<Location>,
    /// The keys that this table knows.
    pub(super) known: Vec<&'static str>,
}

/// The key that an unknown one probably stands for.
enum Meaning {
    /// The same key, in one of these tables.
    In(Vec<&'static str>),
    /// This key, in the same table.
    Misspelt(&'static str),
    /// No key is like it.
    Unclear,
}

/// The keys for which unknown ones stand. A rule must not treat them as absent: the unknown key is
/// the only fault.
#[derive(Debug, Default)]
pub(super) struct IntendedKeys(BTreeSet<(&'static str, &'static str, Option<Location>)>);

impl IntendedKeys {
    /// Returns true if an unknown key stands for this one. `entry` is the table of an array that
    /// contains the key.
    pub(super) fn contains(
        &self,
        title: &'static str,
        key: &'static str,
        entry: Option<&Location>,
    ) -> bool {
        !self.0.is_empty() && self.0.contains(&(title, key, entry.cloned()))
    }

    fn add(&mut self, title: &'static str, key: &'static str, entry: Option<&Location>) {
        // A table outside of arrays is looked up without an entry.
        self.0.insert((title, key, None));
        self.0.insert((title, key, entry.cloned()));
    }
}

/// All unknown keys, and the keys that each table knows.
#[derive(Debug, Default)]
pub(super) struct UnknownKeys {
    known: BTreeMap<&'static str, Vec<&'static str>>,
    keys: Vec<UnknownKey>,
}

impl UnknownKeys {
    /// Registers the keys of a table that are not tables themselves.
    pub(super) fn register(&mut self, title: &'static str, keys: &[&'static str]) {
        self.known.entry(title).or_insert_with(|| keys.to_vec());
    }

    pub(super) fn add(&mut self, unknown: UnknownKey) {
        self.keys.push(unknown);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the keys for which the unknown ones stand, after all tables have been read.
    pub(super) fn intended(&self) -> IntendedKeys {
        let mut intended = IntendedKeys::default();
        for unknown in &self.keys {
            let entry = unknown.entry.as_ref();
            match meaning(unknown, &self.known) {
                Meaning::In(titles) => {
                    for title in titles {
                        if let Some(key) = key_of(&self.known, title, &unknown.name) {
                            intended.add(title, key, entry);
                        }
                    }
                }
                Meaning::Misspelt(key) => intended.add(unknown.title, key, entry),
                Meaning::Unclear => {}
            }
        }
        intended
    }

    /// Returns the faults, after all tables have been read.
    pub(super) fn faults(self) -> Vec<Fault> {
        let Self { known, keys } = self;
        let fault = |unknown: UnknownKey| Fault {
            message: format!("unknown key \"{}\"{}", unknown.name, within(unknown.title)),
            remedy: remedy(&unknown, &known),
            location: unknown.location,
        };
        keys.into_iter().map(fault).collect()
    }
}

fn within(title: &str) -> String {
    if title.is_empty() {
        String::new()
    } else {
        format!(" in {title}")
    }
}

/// Returns the key of this name in a table.
fn key_of(
    known: &BTreeMap<&'static str, Vec<&'static str>>,
    title: &str,
    name: &str,
) -> Option<&'static str> {
    known.get(title)?.iter().find(|key| **key == name).copied()
}

fn meaning(unknown: &UnknownKey, known: &BTreeMap<&'static str, Vec<&'static str>>) -> Meaning {
    let belongs = |title: &&'static str| {
        *title != unknown.title
            && may_mean(unknown.title, title)
            && key_of(known, title, &unknown.name).is_some()
    };
    let tables: Vec<_> = known.keys().copied().filter(belongs).collect();
    if !tables.is_empty() && tables.len() <= NAMED_MAX {
        return Meaning::In(tables);
    }
    nearest_word(&unknown.name, &unknown.known).map_or(Meaning::Unclear, Meaning::Misspelt)
}

fn remedy(unknown: &UnknownKey, known: &BTreeMap<&'static str, Vec<&'static str>>) -> String {
    let here = unknown.known.join(", ");
    let tables = match meaning(unknown, known) {
        Meaning::In(tables) => tables,
        Meaning::Misspelt(meant) => {
            return format!("Did you mean \"{meant}\"? Known here: {here}.");
        }
        Meaning::Unclear => return format!("Remove it. Known here: {here}."),
    };
    match tables[..] {
        [""] => "It belongs at the top of the file: move it above the first table.".to_owned(),
        [parent] if is_parent(parent, unknown.title) => {
            format!("It belongs to {parent}: move it above {}.", unknown.title)
        }
        _ => {
            let tables: Vec<_> = tables
                .iter()
                .map(|title| {
                    if title.is_empty() {
                        "the top of the file"
                    } else {
                        title
                    }
                })
                .collect();
            format!("It belongs to {}: move it there.", tables.join(" or "))
        }
    }
}

/// Returns true if a key in one table may have been meant for the other: a table of the same
/// family, or the top of the file, or from there any table.
fn may_mean(written_in: &str, other: &str) -> bool {
    written_in.is_empty() || other.is_empty() || top_table(written_in) == top_table(other)
}

fn is_parent(title: &str, child: &str) -> bool {
    let (title, child) = (bare(title), bare(child));
    child
        .strip_prefix(title)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The first part of a title.
fn top_table(title: &str) -> &str {
    bare(title).split('.').next().unwrap_or_default()
}

fn bare(title: &str) -> &str {
    title.trim_start_matches('[').trim_end_matches(']')
}
