//! Unknown keys, and the tables to which they may belong.
//!
//! In TOML a key belongs to the header above it, so a key added at the end of a connector is often
//! in `[connector.outbound]` by mistake.

use std::collections::BTreeMap;

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
    /// The keys that this table knows.
    pub(super) known: Vec<&'static str>,
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

fn remedy(unknown: &UnknownKey, known: &BTreeMap<&'static str, Vec<&'static str>>) -> String {
    let here = unknown.known.join(", ");
    let belongs = |(title, keys): (&&'static str, &Vec<&'static str>)| {
        (*title != unknown.title
            && may_mean(unknown.title, title)
            && keys.contains(&unknown.name.as_str()))
        .then_some(*title)
    };
    let tables: Vec<_> = known.iter().filter_map(belongs).collect();
    if let [""] = tables[..] {
        return "It belongs at the top of the file: move it above the first table.".to_owned();
    }
    if let [parent] = tables[..]
        && is_parent(parent, unknown.title)
    {
        return format!("It belongs to {parent}: move it above {}.", unknown.title);
    }
    if !tables.is_empty() && tables.len() <= NAMED_MAX {
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
        return format!("It belongs to {}: move it there.", tables.join(" or "));
    }
    match nearest_word(&unknown.name, &unknown.known) {
        Some(meant) => format!("Did you mean \"{meant}\"? Known here: {here}."),
        None => format!("Remove it. Known here: {here}."),
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
