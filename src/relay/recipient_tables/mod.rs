//! The `[[recipients]]` tables of one configuration: lists from files, directories, and the answers
//! that servers gave lately. [`super::recipients`] asks the servers.

mod answers;
mod list_file;
mod memory;
mod table;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Config, Fault, Located, RecipientRules};
use crate::policy::recipients::RecipientIndex;
use crate::smtp::address::Mailbox;

pub use memory::{
    AnswerResult, KnownAnswer, PendingAnswer, Question, RecipientAnswer, RecipientTrouble,
    TableChange, TroubleScope, no_such_mailbox,
};
pub use table::{RecipientTable, TableReading};
pub use waiting::{WaitPermit, WaitRefused};

/// The tables of one configuration. A table whose mailbox servers are asked is here once for each
/// connector.
#[derive(Debug, Default)]
pub struct RecipientTables {
    index: RecipientIndex,
    tables: Vec<Arc<RecipientTable>>,
}

/// A list that was read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedList {
    /// The file.
    pub file: PathBuf,
    /// The number of addresses.
    pub addresses: usize,
    /// The number of domains.
    pub domains: usize,
}

/// Returns true if a file lists a mailbox, with `plus_tags` also without its tag; `None` if the file
/// cannot be read.
#[must_use]
pub fn is_listed(file: &Located<PathBuf>, mailbox: &Mailbox, plus_tags: bool) -> Option<bool> {
    let file = list_file::ListFile::load(file).ok()?;
    Some(file.list().contains(mailbox, plus_tags))
}

impl RecipientTables {
    /// Loads the files that the tables name. Returns warnings with them.
    ///
    /// # Errors
    /// All faults of all files; those of lines have the location in the file itself.
    pub fn load(config: &Config) -> Result<(Arc<Self>, Vec<Fault>), Vec<Fault>> {
        let (mut tables, mut warnings, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        let connectors = config.connectors();
        let split = |rules: &Arc<RecipientRules>| rules.by_connector(&connectors);
        let all: Vec<_> = config.recipients.iter().flat_map(split).collect();
        for rules in &all {
            match RecipientTable::load(rules, &config.tls) {
                Ok((table, more)) => {
                    tables.push(Arc::new(table));
                    warnings.extend(more);
                }
                Err(more) => faults.extend(more),
            }
        }
        // Two tables may name one file.
        faults.sort();
        faults.dedup();
        if !faults.is_empty() {
            return Err(faults);
        }
        let index = RecipientIndex::new(&all);
        Ok((Arc::new(Self { index, tables }), warnings))
    }

    /// Returns the table that decides about a mailbox.
    #[must_use]
    pub fn find(&self, mailbox: &Mailbox) -> Option<&Arc<RecipientTable>> {
        if self.index.is_empty() {
            return None;
        }
        let at = self.index.find(mailbox.host().domain()?)?;
        self.tables.get(at)
    }

    /// Reads the files again, and returns the lists that were replaced and the faults of new
    /// versions. The old lists of those files stay in use, and the others are replaced nevertheless.
    /// This reads files and blocks.
    #[must_use]
    pub fn refresh(&self) -> (Vec<ReplacedList>, Vec<Fault>) {
        let (mut replaced, mut faults) = (Vec::new(), Vec::new());
        for file in self.tables.iter().filter_map(|table| table.list()) {
            match file.refresh() {
                Ok(None) => {}
                Ok(Some(list)) => {
                    let (addresses, domains) = list.counts();
                    replaced.push(ReplacedList {
                        file: file.path().to_owned(),
                        addresses,
                        domains,
                    });
                }
                Err(more) => faults.extend(more),
            }
        }
        let directories = self.tables.iter().filter_map(|table| table.directory());
        faults.extend(directories.filter_map(|directory| directory.refresh().err()));
        faults.sort();
        faults.dedup();
        (replaced, faults)
    }

    /// Returns the state of each table, in the order of the file.
    #[must_use]
    pub fn readings(&self) -> Vec<TableReading> {
        self.tables.iter().map(|table| table.reading()).collect()
    }
}
