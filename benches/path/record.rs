//! The figures of a run as JSON, and their comparison with those of an earlier run.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// The growth of the processor time from which a comparison fails.
const WORSE: f64 = 1.1;
/// The end of the names of figures that may not grow.
const CPU: &str = "CPU, s for 1,000 messages";

/// All figures of a run by their names.
#[derive(Default)]
pub(crate) struct Record(BTreeMap<String, f64>);

impl Record {
    /// Adds a figure.
    pub(crate) fn add(&mut self, case: &str, figure: &str, value: f64) {
        self.0.insert(format!("{case}: {figure}"), value);
    }

    /// Adds the processor time of a case.
    pub(crate) fn add_cpu(&mut self, case: &str, seconds: f64) {
        self.add(case, CPU, seconds);
    }

    /// Returns the figures as JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::json!(self.0).to_string()
    }

    /// Prints each figure beside that of an earlier run, which was written with `--json`. Returns
    /// false if a case needs more of the processor than 10 % above the earlier one.
    ///
    /// # Errors
    /// An error if the file is no such record.
    pub(crate) fn compare(&self, file: &Path) -> io::Result<bool> {
        let earlier: BTreeMap<String, f64> = serde_json::from_str(&fs::read_to_string(file)?)?;
        let mut is_good = true;
        eprintln!("\nNow, before, and the ratio:");
        for (name, now) in &self.0 {
            let Some(before) = earlier.get(name) else {
                continue;
            };
            let is_worse = name.ends_with(CPU) && *now > before * WORSE;
            is_good &= !is_worse;
            let mark = if is_worse { "  WORSE" } else { "" };
            eprintln!("{name}: {now:.3}, {before:.3}, {:.2}{mark}", now / before);
        }
        Ok(is_good)
    }
}
