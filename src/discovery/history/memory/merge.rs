//! The changes of other nodes, merged into this node's memory.
//!
//! The statement in `tables` merges a row in the database by the same rules.

use super::{DowngradeMemory, FORGOTTEN_MAX, HOSTS_MAX, HostRecord, LevelPeriod, MEMORY_PERIOD};
use crate::discovery::history::remembered::ForgetEntry;
use crate::smtp::address::Host;

/// The changes in the database since it was read last.
#[derive(Debug, Default)]
pub(in crate::discovery::history) struct SharedChanges {
    pub(in crate::discovery::history) rows: Vec<(Host, HostRecord)>,
    /// The domains that were forgotten, oldest first. The rows are those since then.
    pub(in crate::discovery::history) forgotten: Vec<ForgetEntry>,
}

impl DowngradeMemory {
    /// Merges the changes of other nodes. The node's own changes among them change nothing.
    pub(in crate::discovery::history) fn merge(&mut self, changes: SharedChanges) {
        for entry in changes.forgotten {
            self.forget_as_elsewhere(entry);
        }
        for (domain, row) in changes.rows {
            // An order to forget the domain waits to be written; it covers this row, too.
            if !self
                .unwritten_forgets
                .iter()
                .any(|entry| entry.domain == domain)
            {
                self.merge_row(&domain, row);
            }
        }
        self.enforce_limit();
    }

    /// Forgets a domain because an operator had another node forget it.
    fn forget_as_elsewhere(&mut self, entry: ForgetEntry) {
        if self.forgotten.contains(&entry) {
            return;
        }
        if let Some(known) = self.domains.remove(&entry.domain) {
            self.rows -= known.rows.len();
        }
        self.forgotten.push_back(entry);
        self.forgotten
            .make_contiguous()
            .sort_by_key(|entry| entry.at);
        while self.forgotten.len() > FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
    }

    fn merge_row(&mut self, domain: &Host, row: HostRecord) {
        let entry = self.domains.entry(domain.clone()).or_default();
        if let Some(own) = entry.rows.iter_mut().find(|own| own.host == row.host) {
            own.merge(row);
            return;
        }
        entry.rows.push(row);
        let has_too_many_hosts = entry.rows.len() > HOSTS_MAX;
        self.rows += 1;
        if has_too_many_hosts {
            self.drop_oldest_host(domain);
        }
    }
}

impl HostRecord {
    /// Adds another record of the host. Nothing that either of them has is lowered.
    fn merge(&mut self, other: Self) {
        for (own, other) in self.periods.iter_mut().zip(other.periods) {
            *own = merge_periods(*own, other);
        }
        self.issuer = match (self.issuer.take(), other.issuer) {
            (Some(own), Some(other)) if own.0 == other.0 => Some((own.0, own.1.min(other.1))),
            (Some(own), Some(other)) => Some(if other.1 > own.1 { other } else { own }),
            (own, other) => own.or(other),
        };
        if other.seen > self.seen {
            (self.seen, self.level) = (other.seen, other.level);
        }
        self.written = self.written.max(other.written);
    }
}

/// Returns one period of two, or the later one if the level had been lost between them.
fn merge_periods(one: Option<LevelPeriod>, other: Option<LevelPeriod>) -> Option<LevelPeriod> {
    let (Some(one), Some(other)) = (one, other) else {
        return one.or(other);
    };
    let (earlier, later) = if one.last <= other.last {
        (one, other)
    } else {
        (other, one)
    };
    let continues = later.first.saturating_sub(earlier.last) < MEMORY_PERIOD;
    Some(LevelPeriod {
        first: if continues {
            later.first.min(earlier.first)
        } else {
            later.first
        },
        last: later.last,
    })
}
