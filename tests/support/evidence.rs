//! What the relay has put on record of its deliveries, and whether the record is whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use gatepost::evidence::{Outcome, deliveries};

use super::relay::{Home, program};

impl Home {
    /// Beside the spool: where that is on a disk of its own, this is on the same.
    pub(crate) fn evidence(&self) -> PathBuf {
        self.folder.join("evidence")
    }

    /// `gatepost evidence verify` finds nothing wrong; while the relay runs, too.
    ///
    /// # Errors
    /// What it said.
    pub(crate) fn expect_chain(&self) -> Result<(), String> {
        let mut verify = Command::new(program());
        verify.args(["evidence", "verify", "--config"]).arg(self.configuration());
        let output = verify.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("the evidence is not whole: {}", String::from_utf8_lossy(&said)))
    }

    /// How often each recipient is on record as one to whom was delivered. What a crash has left half
    /// written is not there.
    ///
    /// # Errors
    /// Lines that are no records.
    pub(crate) fn recorded(&self) -> Result<BTreeMap<String, usize>, String> {
        let mut recorded = BTreeMap::new();
        let reading = deliveries(&self.evidence(), None, |_, _, delivery| {
            if delivery.outcome == Outcome::Delivered {
                *recorded.entry(delivery.to).or_default() += 1;
            }
            true
        });
        match reading.map_err(|error| error.to_string())?.bad {
            0 => Ok(recorded),
            bad => Err(format!("{bad} lines of the evidence are no records")),
        }
    }

    /// Delivered is recorded: each of `owed` is on record. And the other way round: nobody is there more
    /// often than something `arrived` for him.
    ///
    /// # Errors
    /// Who is not, or too often.
    pub(crate) fn expect_recorded<T: AsRef<str>>(
        &self,
        owed: impl IntoIterator<Item = T>,
        arrived: &BTreeMap<String, usize>,
    ) -> Result<(), String> {
        let recorded = self.recorded()?;
        let owed = owed.into_iter().map(|to| to.as_ref().to_owned());
        let unrecorded: Vec<_> = owed.filter(|to| !recorded.contains_key(to)).collect();
        if !unrecorded.is_empty() {
            return Err(format!("delivered, and not on record: {unrecorded:?}"));
        }
        let times = |to: &String| arrived.get(to).copied().unwrap_or_default();
        let invented: Vec<_> = recorded.iter().filter(|(to, count)| **count > times(to)).collect();
        if !invented.is_empty() {
            return Err(format!("on record more often than it arrived: {invented:?}"));
        }
        Ok(())
    }
}
