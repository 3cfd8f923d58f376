//! Keys that no table knows where they stand, and the table that they belong to.
//!
//! In TOML a key belongs to the header above it, so one that is added at the end of a connector lands in
//! `[connector.outbound]`.

use std::collections::BTreeMap;

use super::Fault;
use super::Place;
use super::reader::nearest;

/// Tables that a remedy names, at most.
const NAMED_MAX: usize = 3;

/// A key that its table does not know.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) place: Place,
    /// The key, as a message can carry it.
    pub(super) name: String,
    /// The table that it stands in; empty for the top of the file.
    pub(super) title: &'static str,
    /// The keys that this table knows.
    pub(super) known: Vec<&'static str>,
}

/// All of them, and the keys that each table knows.
#[derive(Debug, Default)]
pub(super) struct Strays {
    known: BTreeMap<&'static str, Vec<&'static str>>,
    found: Vec<Stray>,
}

impl Strays {
    /// Notes the keys of a table that are no tables themselves.
    pub(super) fn know(&mut self, title: &'static str, keys: &[&'static str]) {
        self.known.entry(title).or_insert_with(|| keys.to_vec());
    }

    pub(super) fn add(&mut self, stray: Stray) {
        self.found.push(stray);
    }

    /// The faults, once every table was read.
    pub(super) fn faults(self) -> Vec<Fault> {
        let Self { known, found } = self;
        let fault = |stray: Stray| Fault {
            message: format!("unknown key \"{}\"{}", stray.name, within(stray.title)),
            remedy: remedy(&stray, &known),
            place: stray.place,
        };
        found.into_iter().map(fault).collect()
    }
}

fn within(title: &str) -> String {
    if title.is_empty() { String::new() } else { format!(" in {title}") }
}

fn remedy(stray: &Stray, known: &BTreeMap<&'static str, Vec<&'static str>>) -> String {
    let here = stray.known.join(", ");
    let home = |(title, keys): (&&'static str, &Vec<&'static str>)| {
        (*title != stray.title && may_mean(stray.title, title) && keys.contains(&stray.name.as_str())).then_some(*title)
    };
    let homes: Vec<_> = known.iter().filter_map(home).collect();
    if let [""] = homes[..] {
        return "It belongs at the top of the file: move it above the first table.".to_owned();
    }
    if let [parent] = homes[..]
        && is_parent(parent, stray.title)
    {
        return format!("It belongs to {parent}: move it above {}.", stray.title);
    }
    if !homes.is_empty() && homes.len() <= NAMED_MAX {
        let homes: Vec<_> =
            homes.iter().map(|title| if title.is_empty() { "the top of the file" } else { title }).collect();
        return format!("It belongs to {}: move it there.", homes.join(" or "));
    }
    match nearest(&stray.name, &stray.known) {
        Some(meant) => format!("Did you mean \"{meant}\"? Known here: {here}."),
        None => format!("Remove it. Known here: {here}."),
    }
}

/// Checks that whoever wrote a key in one table may have meant the other: a part of the same, the top of the file, or
/// from there any table.
fn may_mean(stands_in: &str, other: &str) -> bool {
    stands_in.is_empty() || other.is_empty() || family(stands_in) == family(other)
}

fn is_parent(title: &str, child: &str) -> bool {
    let (title, child) = (bare(title), bare(child));
    child.strip_prefix(title).is_some_and(|rest| rest.starts_with('.'))
}

/// The first word of a title.
fn family(title: &str) -> &str {
    bare(title).split('.').next().unwrap_or_default()
}

fn bare(title: &str) -> &str {
    title.trim_start_matches('[').trim_end_matches(']')
}
