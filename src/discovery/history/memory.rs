//! The levels that the hosts of each domain have shown, and the comparison of new sessions with
//! them.
//!
//! This module does no I/O and reads no clock: callers pass the time, and write the changes that
//! [`DowngradeMemory::take_batch`] returns. Times are seconds since 1970, which take less memory
//! than a `Timestamp`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use super::level::TlsLevel;
use super::remembered::{Baseline, BestLevel, ForgetEntry, HostHistory, LevelChange, MemoryPage};
use crate::smtp::address::Host;

mod merge;

pub(super) use merge::SharedChanges;

pub(super) const DAY: i64 = 24 * 60 * 60;
/// The time without a session at a level after which that level no longer counts.
pub(super) const MEMORY_PERIOD: i64 = 90 * DAY;
/// The number of rounds, a day apart, in which a host must be found expired before it is removed.
/// If the clock is ahead for a while, as at a start without a network, hosts survive until it is
/// corrected.
const EXPIRED_ROUNDS: u8 = 3;
/// The age up to which a host is new. A new host in the clear is compared with its domain, since
/// its MX record may be forged. An older host counts by itself: a domain may have hosts with and
/// without TLS.
const NEW_HOST_PERIOD: i64 = 7 * DAY;
/// The age at which a time on disk is updated, so that not every delivery causes a write.
const STALE_AFTER: i64 = 10 * 60;
/// The maximum number of hosts of one domain; far more than routing uses.
const HOSTS_MAX: usize = 64;
/// The maximum number of records of forgotten domains.
pub(super) const FORGOTTEN_MAX: usize = 200;
/// The maximum length of an issuer's name in characters.
const ISSUER_MAX: usize = 200;

/// The period in which a level was seen, without a gap of [`MEMORY_PERIOD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LevelPeriod {
    pub(super) first: i64,
    pub(super) last: i64,
}

/// The memory of one host of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostRecord {
    pub(super) host: Host,
    /// The period of each level, in the order of [`TlsLevel::ALL`].
    pub(super) periods: [Option<LevelPeriod>; 5],
    pub(super) seen: i64,
    pub(super) level: TlsLevel,
    /// The issuer of the last certificate, and the time since which it is the issuer.
    pub(super) issuer: Option<(Arc<str>, i64)>,
    /// The time of `seen` on disk.
    pub(super) written: i64,
    /// The number of consecutive rounds in which the host was found expired.
    pub(super) expired_rounds: u8,
}

impl HostRecord {
    fn best(&self, now: i64) -> Option<BestLevel> {
        TlsLevel::ALL
            .into_iter()
            .zip(self.periods)
            .rev()
            .find_map(|(level, period)| {
                let period = period.filter(|period| period.last > now - MEMORY_PERIOD)?;
                Some(BestLevel {
                    level,
                    first: timestamp(period.first),
                    last: timestamp(period.last),
                })
            })
    }

    /// Returns true if the host ever took TLS.
    fn took_tls(&self) -> bool {
        let with_tls = |(level, period): (TlsLevel, Option<LevelPeriod>)| {
            level > TlsLevel::Plain && period.is_some()
        };
        TlsLevel::ALL.into_iter().zip(self.periods).any(with_tls)
    }

    /// Returns the time of the first session.
    fn first(&self) -> i64 {
        self.periods
            .iter()
            .flatten()
            .map(|period| period.first)
            .min()
            .unwrap_or(self.seen)
    }

    fn remembered(&self, domain: &Host, now: i64) -> Option<HostHistory> {
        Some(HostHistory {
            domain: domain.clone(),
            host: self.host.clone(),
            best: self.best(now)?,
            seen: timestamp(self.seen),
            level: self.level,
            issuer: self.issuer.as_ref().map(|(issuer, _)| Arc::clone(issuer)),
        })
    }
}

/// Converts seconds to a timestamp. An impossible time can only come from a damaged disk and
/// becomes the epoch.
pub(super) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The memory of one domain.
#[derive(Debug, Default)]
struct DomainRecord {
    rows: Vec<HostRecord>,
    /// The time of the last downgrade warning.
    warned: Option<i64>,
}

/// The pairs of domain and host that must be written to disk.
#[derive(Debug)]
enum Unwritten {
    Rows(BTreeSet<(Host, Host)>),
    All,
}

/// The changes of one transaction.
#[derive(Debug, Default)]
pub(super) struct WriteBatch {
    /// True if the table is emptied first.
    pub(super) all: bool,
    /// Domain, host and their record; `None` deletes the row.
    pub(super) rows: Vec<(Host, Host, Option<HostRecord>)>,
    pub(super) forgotten: Option<Vec<ForgetEntry>>,
    /// The entries of `forgotten` that were never written.
    pub(super) new_forgets: Vec<ForgetEntry>,
}

/// The result of recording a session, for the caller and for the alarm.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) change: LevelChange,
    /// True if the host took TLS before or, for a new host, its domain did.
    pub(super) took_tls: bool,
    /// The issuer of the host's previous certificate.
    pub(super) issuer_before: Option<Arc<str>>,
}

/// The memory of all domains, with what must still be written.
#[derive(Debug)]
pub(super) struct DowngradeMemory {
    domains: BTreeMap<Host, DomainRecord>,
    rows: usize,
    max: usize,
    dirty: Unwritten,
    forgotten: VecDeque<ForgetEntry>,
    forgotten_dirty: bool,
    /// The forgotten domains that were never written.
    unwritten_forgets: Vec<ForgetEntry>,
    expired_at: i64,
}

impl DowngradeMemory {
    pub(super) fn new(max: usize) -> Self {
        Self {
            domains: BTreeMap::new(),
            rows: 0,
            max,
            dirty: Unwritten::Rows(BTreeSet::new()),
            forgotten: VecDeque::new(),
            forgotten_dirty: false,
            unwritten_forgets: Vec::new(),
            expired_at: 0,
        }
    }

    /// Adds the content of the database.
    pub(super) fn restore(
        &mut self,
        rows: Vec<(Host, HostRecord)>,
        forgotten: Vec<ForgetEntry>,
        now: i64,
    ) {
        for (domain, row) in rows {
            self.domains.entry(domain).or_default().rows.push(row);
            self.rows += 1;
        }
        self.forgotten.extend(forgotten);
        self.expire(now);
        self.enforce_limit();
    }

    /// Returns every issuer with the level of the host's last session and the time since which it
    /// is the issuer.
    pub(super) fn issuers(&self) -> impl Iterator<Item = (TlsLevel, &str, i64)> {
        let rows = self.domains.values().flat_map(|entry| &entry.rows);
        rows.filter_map(|row| {
            row.issuer
                .as_ref()
                .map(|(issuer, since)| (row.level, &**issuer, *since))
        })
    }

    pub(super) fn get(&self, domain: &Host, host: &Host, now: i64) -> Option<HostHistory> {
        let rows = &self.domains.get(domain)?.rows;
        rows.iter()
            .find(|row| row.host == *host)?
            .remembered(domain, now)
    }

    /// Returns the domain's host with the best level; among equals the one seen last.
    pub(super) fn best_of(&self, domain: &Host, now: i64) -> Option<HostHistory> {
        let rows = &self.domains.get(domain)?.rows;
        let all = rows.iter().filter_map(|row| row.remembered(domain, now));
        all.max_by_key(|one| (one.best.level, one.best.last))
    }

    pub(super) fn baseline(&self, domain: &Host, host: &Host, now: i64) -> Baseline {
        Baseline {
            host: self.get(domain, host, now).map(|one| one.best),
            domain: self.best_of(domain, now).map(|one| one.best),
            took_tls: self.took_tls(domain, now),
        }
    }

    /// Returns the time of the last session with TLS of any host of a domain.
    fn took_tls(&self, domain: &Host, now: i64) -> Option<Timestamp> {
        let rows = &self.domains.get(domain)?.rows;
        let with_tls = rows
            .iter()
            .flat_map(|row| &row.periods[TlsLevel::Tls as usize..])
            .flatten();
        with_tls
            .map(|period| period.last)
            .filter(|last| *last > now - MEMORY_PERIOD)
            .max()
            .map(timestamp)
    }

    pub(super) fn record(
        &mut self,
        domain: &Host,
        host: &Host,
        level: TlsLevel,
        issuer: Option<&str>,
        at: i64,
    ) -> Observed {
        if at.abs_diff(self.expired_at) >= DAY.unsigned_abs() {
            self.expire(at);
        }
        let before = self.baseline(domain, host, at);
        let entry = self.domains.entry(domain.clone()).or_default();
        let place = entry
            .rows
            .iter()
            .position(|row| row.host == *host)
            .unwrap_or_else(|| {
                self.rows += 1;
                let periods = [None; 5];
                // The earliest possible time forces the first write.
                entry.rows.push(HostRecord {
                    host: host.clone(),
                    periods,
                    seen: at,
                    level,
                    issuer: None,
                    written: i64::MIN,
                    expired_rounds: 0,
                });
                entry.rows.len() - 1
            });
        let row = &mut entry.rows[place];
        let issuer_before = row.issuer.as_ref().map(|(issuer, _)| Arc::clone(issuer));
        let mut changed = record_level(row, level, at);
        if let Some(issuer) = issuer
            .map(truncate_issuer)
            .filter(|issuer| issuer_before.as_deref() != Some(issuer))
        {
            row.issuer = Some((Arc::from(issuer), at));
            changed = true;
        }
        let is_new = at - row.first() < NEW_HOST_PERIOD;
        let write = changed || at.saturating_sub(row.written) >= STALE_AFTER;
        if write {
            row.written = at;
        }
        let has_too_many_hosts = entry.rows.len() > HOSTS_MAX;
        if write {
            self.mark_dirty(domain.clone(), host.clone());
        }
        if has_too_many_hosts {
            self.drop_oldest_host(domain);
        }
        self.enforce_limit();
        let took_tls = before.host.is_some_and(|best| best.level > TlsLevel::Plain)
            || (is_new
                && before
                    .domain
                    .is_some_and(|best| best.level > TlsLevel::Plain));
        Observed {
            change: compare(&before, level, is_new),
            took_tls,
            issuer_before,
        }
    }

    /// Returns true if a warning about a domain is due, at most one a day, and counts it as given.
    pub(super) fn should_warn(&mut self, domain: &Host, at: i64) -> bool {
        let Some(entry) = self.domains.get_mut(domain) else {
            return true;
        };
        let due = entry
            .warned
            .is_none_or(|warned| at - warned >= DAY || at < warned);
        if due {
            entry.warned = Some(at);
        }
        due
    }

    /// Forgets all hosts of a domain and returns their number.
    pub(super) fn forget(&mut self, domain: &Host, reason: &str, who: &str, at: i64) -> usize {
        let Some(entry) = self.domains.remove(domain) else {
            return 0;
        };
        let hosts = entry.rows.len();
        self.rows -= hosts;
        for row in entry.rows {
            self.mark_dirty(domain.clone(), row.host);
        }
        let forgotten = ForgetEntry {
            domain: domain.clone(),
            at: timestamp(at),
            reason: reason.into(),
            who: who.into(),
            hosts,
        };
        self.unwritten_forgets.push(forgotten.clone());
        self.forgotten.push_back(forgotten);
        while self.forgotten.len() > FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
        if self.unwritten_forgets.len() > FORGOTTEN_MAX {
            self.unwritten_forgets.remove(0);
        }
        self.forgotten_dirty = true;
        hosts
    }

    /// Returns whole domains in order until the page has `limit` hosts.
    pub(super) fn page(
        &self,
        domain: Option<&Host>,
        after: Option<&Host>,
        limit: usize,
        now: i64,
    ) -> MemoryPage {
        let forgotten = self
            .forgotten
            .iter()
            .filter(|one| domain.is_none_or(|domain| one.domain == *domain));
        let forgotten = if after.is_none() {
            forgotten.cloned().collect()
        } else {
            Vec::new()
        };
        let mut page = MemoryPage {
            remembered: Vec::new(),
            next: None,
            forgotten,
        };
        let from = match (domain, after) {
            (Some(domain), _) => (Bound::Included(domain), Bound::Included(domain)),
            (None, Some(after)) => (Bound::Excluded(after), Bound::Unbounded),
            (None, None) => (Bound::Unbounded, Bound::Unbounded),
        };
        for (domain, entry) in self.domains.range::<Host, _>(from) {
            if page.remembered.len() >= limit {
                page.next = page.remembered.last().map(|last| last.domain.clone());
                return page;
            }
            let mut rows: Vec<_> = entry
                .rows
                .iter()
                .filter_map(|row| row.remembered(domain, now))
                .collect();
            rows.sort_by(|a, b| a.host.cmp(&b.host));
            page.remembered.extend(rows);
        }
        page
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.forgotten_dirty || !matches!(&self.dirty, Unwritten::Rows(keys) if keys.is_empty())
    }

    /// Returns all unwritten changes and counts them as written.
    pub(super) fn take_batch(&mut self) -> WriteBatch {
        let dirty = std::mem::replace(&mut self.dirty, Unwritten::Rows(BTreeSet::new()));
        let forgotten = std::mem::take(&mut self.forgotten_dirty)
            .then(|| self.forgotten.iter().cloned().collect());
        let new_forgets = std::mem::take(&mut self.unwritten_forgets);
        let find = |domain: &Host, host: &Host| {
            self.domains
                .get(domain)?
                .rows
                .iter()
                .find(|row| row.host == *host)
                .cloned()
        };
        match dirty {
            Unwritten::Rows(keys) => {
                let rows = keys.into_iter().map(|(domain, host)| {
                    let row = find(&domain, &host);
                    (domain, host, row)
                });
                WriteBatch {
                    all: false,
                    rows: rows.collect(),
                    forgotten,
                    new_forgets,
                }
            }
            Unwritten::All => {
                let rows = self.domains.iter().flat_map(|(domain, entry)| {
                    entry
                        .rows
                        .iter()
                        .map(|row| (domain.clone(), row.host.clone(), Some(row.clone())))
                });
                WriteBatch {
                    all: true,
                    rows: rows.collect(),
                    forgotten,
                    new_forgets,
                }
            }
        }
    }

    /// Counts the changes of a failed write as unwritten again.
    pub(super) fn mark_unwritten(&mut self, batch: WriteBatch) {
        self.forgotten_dirty |= batch.forgotten.is_some();
        self.unwritten_forgets.splice(..0, batch.new_forgets);
        if batch.all {
            self.dirty = Unwritten::All;
        }
        for (domain, host, _) in batch.rows {
            self.mark_dirty(domain, host);
        }
    }

    /// Counts everything as unwritten, after the database was replaced.
    pub(super) fn mark_all_dirty(&mut self) {
        self.dirty = Unwritten::All;
        self.forgotten_dirty = true;
    }

    fn mark_dirty(&mut self, domain: Host, host: Host) {
        let Unwritten::Rows(keys) = &mut self.dirty else {
            return;
        };
        keys.insert((domain, host));
        // While the disk fails, removed hosts must not make the list grow without limit.
        if keys.len() > self.max.saturating_mul(2) {
            self.dirty = Unwritten::All;
        }
    }

    /// Counts a round for expired hosts and removes those that have expired for enough rounds.
    fn expire(&mut self, now: i64) {
        self.expired_at = now;
        for row in self.domains.values_mut().flat_map(|entry| &mut entry.rows) {
            row.expired_rounds = if row.best(now).is_none() {
                row.expired_rounds + 1
            } else {
                0
            };
        }
        self.drop_rows(|row| row.expired_rounds >= EXPIRED_ROUNDS);
    }

    /// Removes the hosts not seen for the longest time if there are too many. Removes 1 % more than
    /// needed, so that this runs rarely.
    fn enforce_limit(&mut self) {
        if self.rows <= self.max {
            return;
        }
        let excess = self.rows - self.max + self.max / 100;
        let mut seen: Vec<i64> = self
            .domains
            .values()
            .flat_map(|entry| entry.rows.iter().map(|row| row.seen))
            .collect();
        let (_, last, _) = seen.select_nth_unstable(excess.saturating_sub(1));
        let last = *last;
        let mut remaining = excess;
        self.drop_rows(|row| {
            let drop = row.seen <= last && remaining > 0;
            remaining -= usize::from(drop);
            drop
        });
    }

    fn drop_oldest_host(&mut self, domain: &Host) {
        let rows = self.domains.get(domain).map(|entry| entry.rows.iter());
        // Hosts that never took TLS are removed first: hosts invented by an attacker must not
        // displace one that did.
        let order = |row: &&HostRecord| (row.took_tls(), row.seen);
        let oldest = rows
            .into_iter()
            .flatten()
            .min_by_key(order)
            .map(|row| row.host.clone());
        let Some((host, entry)) = oldest.zip(self.domains.get_mut(domain)) else {
            return;
        };
        entry.rows.retain(|row| row.host != host);
        self.rows -= 1;
        self.mark_dirty(domain.clone(), host);
    }

    fn drop_rows(&mut self, mut should_drop: impl FnMut(&HostRecord) -> bool) {
        let mut removed = Vec::new();
        self.domains.retain(|domain, entry| {
            entry.rows.retain(|row| {
                let remove = should_drop(row);
                if remove {
                    removed.push((domain.clone(), row.host.clone()));
                }
                !remove
            });
            !entry.rows.is_empty()
        });
        self.rows -= removed.len();
        for (domain, host) in removed {
            self.mark_dirty(domain, host);
        }
    }
}

/// Records the level of a session. Returns true if more than a time has changed.
fn record_level(row: &mut HostRecord, level: TlsLevel, at: i64) -> bool {
    let period = &mut row.periods[level as usize];
    let continues = period.is_some_and(|period| period.last > at - MEMORY_PERIOD);
    // A clock that was set back does not shorten the period.
    *period = match *period {
        Some(LevelPeriod { first, last }) if continues => Some(LevelPeriod {
            first: first.min(at),
            last: last.max(at),
        }),
        _ => Some(LevelPeriod {
            first: at,
            last: at,
        }),
    };
    let changed = !continues || row.level != level;
    row.level = level;
    row.seen = row.seen.max(at);
    changed
}

/// Compares a session with the memory.
fn compare(before: &Baseline, level: TlsLevel, is_new: bool) -> LevelChange {
    // A new host in the clear, of a domain that takes TLS.
    let foreign = before
        .domain
        .filter(|best| is_new && level == TlsLevel::Plain && best.level > TlsLevel::Plain);
    match (before.host, foreign) {
        (Some(own), _) if level < own.level => LevelChange::Worse { was: own },
        (_, Some(was)) => LevelChange::Worse { was },
        (None, None) => LevelChange::First,
        (Some(own), None) if level > own.level => LevelChange::Better { was: own },
        (Some(_), None) => LevelChange::Same,
    }
}

/// Truncates an issuer's name to the maximum length.
fn truncate_issuer(issuer: &str) -> &str {
    issuer
        .char_indices()
        .nth(ISSUER_MAX)
        .map_or(issuer, |(end, _)| &issuer[..end])
}
