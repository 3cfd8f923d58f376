//! The errors and warnings about a configuration.

use std::fmt;

use crate::policy::location::Location;

/// An error or warning about a configuration: what is wrong, where, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The position.
    pub location: Location,
    /// The problem.
    pub message: String,
    /// The remedy.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}\n    {}",
            self.location, self.message, self.remedy
        )
    }
}

/// Sorts warnings and merges equal ones. A warning about a key file that several tables name is
/// listed once, at the first location, and names the others.
#[must_use]
pub fn merge_warnings(mut warnings: Vec<Fault>) -> Vec<Fault> {
    warnings.sort();
    warnings.dedup();
    let mut merged: Vec<(Fault, Vec<Location>)> = Vec::new();
    for warning in warnings {
        let same = |(earlier, _): &&mut (Fault, _)| {
            (&earlier.message, &earlier.remedy) == (&warning.message, &warning.remedy)
        };
        match merged.iter_mut().find(same) {
            Some((_, others)) => others.push(warning.location),
            None => merged.push((warning, Vec::new())),
        }
    }
    let warnings = merged.into_iter().map(|(mut warning, others)| {
        if !others.is_empty() {
            let named = |other: &Location| {
                if other.file == warning.location.file {
                    format!("{}:{}", other.line, other.column)
                } else {
                    other.to_string()
                }
            };
            let others: Vec<_> = others.iter().map(named).collect();
            warning.message = format!("{} (also named at {})", warning.message, others.join(", "));
        }
        warning
    });
    warnings.collect()
}
