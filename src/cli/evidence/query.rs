//! The reading of the selected records, for all commands.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::filter::RecordFilter;
use crate::cli::connector_name::{self, UnknownConnector};
use crate::cli::format::{INDENT, count, plain, wrap};
use crate::storage::evidence::{
    EvidenceError, EvidenceSource, Link, MailRecord, ReadResult, RecordHash, Totals, Verification,
    first_record, records, records_of_verified_chain,
};

/// The most names of connectors that an error lists.
const NAMES_MAX: usize = 20;

/// The folder and the records that are selected in it.
pub(super) struct EvidenceQuery<'a> {
    pub(super) source: EvidenceSource<'a>,
    pub(super) filter: &'a RecordFilter<'a>,
    /// The names of the connectors in the configuration, if it was read.
    pub(super) connectors: Option<&'a [String]>,
}

/// The error of a query.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    /// The evidence cannot be read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Neither the configuration nor a record of the period has the connector.
    #[error(transparent)]
    Connector(#[from] UnknownConnector),
}

/// The result of a query.
pub(super) struct QueryResult {
    /// The totals of the selected records.
    pub(super) totals: Totals,
    /// The verification of the chain.
    pub(super) chain: Verification,
    bad: u64,
}

impl QueryResult {
    /// Returns whether records were found, each line was a record, and the chain is whole.
    pub(super) fn is_success(&self) -> bool {
        self.bad == 0 && is_whole(&self.chain) && !self.totals.is_empty()
    }

    /// Prints an error if lines were left out or the chain is not whole: the output is no evidence
    /// then.
    pub(super) fn show_damage(&self, source: EvidenceSource<'_>) {
        let option = match source.chain {
            Some(_) => "node",
            None => "folder",
        };
        let see = format!(
            "see gatepost evidence verify --{option} {}",
            source.folder.display()
        );
        if self.bad > 0 {
            eprintln!(
                "gatepost evidence: {} left out; {see}",
                count(self.bad, "damaged line")
            );
        } else if !is_whole(&self.chain) && self.chain.last.is_some() {
            eprintln!("gatepost evidence: the chain is not whole; {see}");
        }
    }
}

/// Returns whether the chain has records and no defect.
pub(super) fn is_whole(chain: &Verification) -> bool {
    chain.findings.is_empty() && chain.last.is_some()
}

impl EvidenceQuery<'_> {
    /// Reads the selected records. `each` receives the line of the record, its link and the record.
    pub(super) fn read(
        &self,
        mut each: impl FnMut(&str, &Link, &MailRecord),
    ) -> Result<QueryResult, QueryError> {
        let mut selected = Selected::new(self.filter);
        let read = records(self.source, self.filter.period(), |line, link, record| {
            if selected.add(&record) {
                each(line, link, &record);
            }
        })?;
        self.finish(selected, read)
    }

    /// Reads the selected records and verifies the chain from its first record on.
    pub(super) fn verify(&self, heads: &[RecordHash]) -> Result<QueryResult, QueryError> {
        let mut selected = Selected::new(self.filter);
        let read =
            records_of_verified_chain(self.source, self.filter.period(), heads, |_, _, record| {
                let _is_selected = selected.add(&record);
            })?;
        self.finish(selected, read)
    }

    fn finish(&self, selected: Selected<'_>, read: ReadResult) -> Result<QueryResult, QueryError> {
        let Selected {
            totals, connectors, ..
        } = selected;
        let ReadResult { bad, chain } = read;
        if let Some(name) = self
            .filter
            .connector()
            .filter(|name| !connectors.contains(*name))
        {
            let configured = self.connectors.unwrap_or_default();
            // Without a configuration and records nothing says which connectors exist.
            let can_judge = self.connectors.is_some() || !connectors.is_empty();
            if can_judge && !configured.iter().any(|configured| configured == name) {
                let others = connectors
                    .iter()
                    .filter(|recorded| !configured.contains(recorded));
                let existing = configured.iter().chain(others).cloned().collect();
                return Err(connector_name::unknown(name, existing).into());
            }
        }
        Ok(QueryResult { totals, chain, bad })
    }

    /// Returns the text for a query that selects no record, for a terminal with `width` columns: the
    /// period, and the records that the folder has.
    pub(super) fn nothing_found(
        &self,
        chain: &Verification,
        width: usize,
    ) -> Result<String, QueryError> {
        let options = match self.filter.options_text() {
            Some(options) => format!(": {}", plain(&options)),
            None => String::new(),
        };
        let none = format!("no records{} match{options}", self.filter.period_text());
        let folder = self.source.folder.display();
        let first = match &chain.last {
            Some(_) => first_record(self.source)?,
            None => None,
        };
        let existing = match (first, &chain.last) {
            (Some(first), Some(last)) => {
                let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
                let (from, to) = (day(first.time), day(last.time));
                let days = if from == to {
                    from
                } else {
                    format!("{from} to {to}")
                };
                let (first, last) = (first.seq, last.seq);
                format!("{folder} has records {first} to {last}, of {days} (UTC)")
            }
            _ => format!("{folder} has no records"),
        };
        let mut text = String::new();
        wrap(&mut text, "", INDENT, &none, width);
        wrap(&mut text, "", INDENT, &existing, width);
        Ok(text)
    }
}

/// The selected records so far.
struct Selected<'a> {
    filter: &'a RecordFilter<'a>,
    totals: Totals,
    /// The connectors of all records of the period, if one is selected.
    connectors: BTreeSet<String>,
}

impl<'a> Selected<'a> {
    fn new(filter: &'a RecordFilter<'a>) -> Self {
        Self {
            filter,
            totals: Totals::default(),
            connectors: BTreeSet::new(),
        }
    }

    /// Counts a record. Returns whether it is selected.
    fn add(&mut self, record: &MailRecord) -> bool {
        if let Some(wanted) = self.filter.connector() {
            let name = record.connector();
            let is_listed = self.connectors.len() < NAMES_MAX || name == wanted;
            if is_listed && !self.connectors.contains(name) {
                self.connectors.insert(name.to_owned());
            }
        }
        let is_selected = self.filter.matches(record);
        if is_selected {
            self.totals.add(record);
        }
        is_selected
    }
}
