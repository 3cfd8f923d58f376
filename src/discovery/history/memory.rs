//! The memory itself: what each host of a domain has shown, when, and what that makes of the next sighting.
//!
//! Pure: time comes in, and what must go to disk is observed for [`super::disk`] to fetch. Times are seconds
//! since 1970, which is all that days of memory need, and a quarter of the room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Baseline, BestLevel, ForgetEntry, HistoryPage, HostHistory, LevelChange, TlsLevel};
use crate::address::Host;

pub(super) const DAY: i64 = 24 * 60 * 60;
/// A level that was not reached again for so long is no longer held against anybody.
const MEMORY_PERIOD: i64 = 90 * DAY;
/// In so many rounds, a day apart, a host must be found to have expired_rounds out before it is dropped: a clock that is ahead, as
/// at a start without a network, may be put right meanwhile, and what it took would be missed then.
const EXPIRED_ROUNDS: u8 = 3;
/// How long a host is new. A new host in clear is held against what its domain has shown: it may be a forged
/// MX. After that it is taken as what it is: a domain may well have one host with TLS and one without.
const NEW_HOST_PERIOD: i64 = 7 * DAY;
/// A date on disk may be so much older than the one in memory: nobody needs a write for each delivery.
const STALE_AFTER: i64 = 10 * 60;
/// Hosts of one domain, at most; far more than the route takes from one answer.
const HOSTS_MAX: usize = 64;
/// Acts of forgetting that are kept.
const FORGOTTEN_MAX: usize = 200;
/// Characters of an issuer's name, at most.
const ISSUER_MAX: usize = 200;

/// From when to when a level was reached, without a gap of [`MEMORY_PERIOD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) first: i64,
    pub(super) last: i64,
}

/// What one host of a domain has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostRecord {
    pub(super) host: Host,
    /// By level, in the order of [`TlsLevel::ALL`].
    pub(super) periods: [Option<Period>; 5],
    pub(super) seen: i64,
    pub(super) level: TlsLevel,
    /// Of the last certificate, and since when it is this one.
    pub(super) issuer: Option<(Arc<str>, i64)>,
    /// As of when the disk knows it.
    pub(super) written: i64,
    /// In so many rounds it was found to have expired_rounds out.
    pub(super) expired_rounds: u8,
}

impl HostRecord {
    fn best(&self, now: i64) -> Option<BestLevel> {
        TlsLevel::ALL.into_iter().zip(self.periods).rev().find_map(|(level, period)| {
            let period = period.filter(|period| period.last > now - MEMORY_PERIOD)?;
            Some(BestLevel { level, first: timestamp(period.first), last: timestamp(period.last) })
        })
    }

    /// Whether the host ever took TLS, as far as is entry.
    fn took_tls(&self) -> bool {
        let with_tls = |(level, period): (TlsLevel, Option<Period>)| level > TlsLevel::Plain && period.is_some();
        TlsLevel::ALL.into_iter().zip(self.periods).any(with_tls)
    }

    /// When it was first seen at all.
    fn first(&self) -> i64 {
        self.periods.iter().flatten().map(|period| period.first).min().unwrap_or(self.seen)
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

/// A time outside of what can be written cannot come from us; one on a damaged disk is taken for the start.
pub(super) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[derive(Debug, Default)]
struct DomainRecord {
    rows: Vec<HostRecord>,
    /// When it was last warned of.
    warned: Option<i64>,
}

/// What the disk does not have yet.
#[derive(Debug)]
enum Unwritten {
    Rows(BTreeSet<(Host, Host)>),
    All,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct WriteBatch {
    /// Whether what is there goes first.
    pub(super) all: bool,
    /// Domain and host, and what is entry; nothing where it is to go.
    pub(super) rows: Vec<(Host, Host, Option<HostRecord>)>,
    pub(super) forgotten: Option<Vec<ForgetEntry>>,
}

/// What a sighting was, for the caller and for the alarm.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) change: LevelChange,
    /// The host, or its domain where the host is new, took TLS before.
    pub(super) took_tls: bool,
    /// Whose certificate the host had before.
    pub(super) issuer_before: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct DowngradeMemory {
    domains: BTreeMap<Host, DomainRecord>,
    rows: usize,
    max: usize,
    dirty: Unwritten,
    forgotten: VecDeque<ForgetEntry>,
    forgotten_dirty: bool,
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
            expired_at: 0,
        }
    }

    /// Takes in what the disk had.
    pub(super) fn restore(&mut self, rows: Vec<(Host, HostRecord)>, forgotten: Vec<ForgetEntry>, now: i64) {
        for (domain, row) in rows {
            self.domains.entry(domain).or_default().rows.push(row);
            self.rows += 1;
        }
        self.forgotten.extend(forgotten);
        self.expire(now);
        self.enforce_limit();
    }

    /// All issuers, with the level their certificate was last seen at and since when.
    pub(super) fn issuers(&self) -> impl Iterator<Item = (TlsLevel, &str, i64)> {
        let rows = self.domains.values().flat_map(|entry| &entry.rows);
        rows.filter_map(|row| row.issuer.as_ref().map(|(issuer, since)| (row.level, &**issuer, *since)))
    }

    pub(super) fn get(&self, domain: &Host, host: &Host, now: i64) -> Option<HostHistory> {
        let rows = &self.domains.get(domain)?.rows;
        rows.iter().find(|row| row.host == *host)?.remembered(domain, now)
    }

    /// The best of a domain's hosts; of equals the one that was seen last.
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

    /// When a host of a domain last took TLS.
    fn took_tls(&self, domain: &Host, now: i64) -> Option<Timestamp> {
        let rows = &self.domains.get(domain)?.rows;
        let with_tls = rows.iter().flat_map(|row| &row.periods[TlsLevel::Tls as usize..]).flatten();
        with_tls.map(|period| period.last).filter(|last| *last > now - MEMORY_PERIOD).max().map(timestamp)
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
        let place = entry.rows.iter().position(|row| row.host == *host).unwrap_or_else(|| {
            self.rows += 1;
            let periods = [None; 5];
            // Never written, so that it will be.
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
        if let Some(issuer) = issuer.map(truncate_issuer).filter(|issuer| issuer_before.as_deref() != Some(issuer)) {
            row.issuer = Some((Arc::from(issuer), at));
            changed = true;
        }
        let is_new = at - row.first() < NEW_HOST_PERIOD;
        let write = changed || at.saturating_sub(row.written) >= STALE_AFTER;
        if write {
            row.written = at;
        }
        let crowded = entry.rows.len() > HOSTS_MAX;
        if write {
            self.mark_dirty(domain.clone(), host.clone());
        }
        if crowded {
            self.drop_oldest_host(domain);
        }
        self.enforce_limit();
        let took_tls = before.host.is_some_and(|best| best.level > TlsLevel::Plain)
            || (is_new && before.domain.is_some_and(|best| best.level > TlsLevel::Plain));
        Observed { change: compare(&before, level, is_new), took_tls, issuer_before }
    }

    /// Whether a warning about a domain is due: one a day.
    pub(super) fn should_warn(&mut self, domain: &Host, at: i64) -> bool {
        let Some(entry) = self.domains.get_mut(domain) else { return true };
        let due = entry.warned.is_none_or(|warned| at - warned >= DAY || at < warned);
        if due {
            entry.warned = Some(at);
        }
        due
    }

    /// Forgets all hosts of a domain; how many that were.
    pub(super) fn forget(&mut self, domain: &Host, reason: &str, who: &str, at: i64) -> usize {
        let Some(entry) = self.domains.remove(domain) else { return 0 };
        let hosts = entry.rows.len();
        self.rows -= hosts;
        for row in entry.rows {
            self.mark_dirty(domain.clone(), row.host);
        }
        let forgotten =
            ForgetEntry { domain: domain.clone(), at: timestamp(at), reason: reason.into(), who: who.into(), hosts };
        self.forgotten.push_back(forgotten);
        while self.forgotten.len() > FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
        self.forgotten_dirty = true;
        hosts
    }

    /// Domains in order, whole ones, until `limit` rows are reached.
    pub(super) fn page(&self, domain: Option<&Host>, after: Option<&Host>, limit: usize, now: i64) -> HistoryPage {
        let forgotten = self.forgotten.iter().filter(|one| domain.is_none_or(|domain| one.domain == *domain));
        let forgotten = if after.is_none() { forgotten.cloned().collect() } else { Vec::new() };
        let mut page = HistoryPage { remembered: Vec::new(), next: None, forgotten };
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
            let mut rows: Vec<_> = entry.rows.iter().filter_map(|row| row.remembered(domain, now)).collect();
            rows.sort_by(|a, b| a.host.cmp(&b.host));
            page.remembered.extend(rows);
        }
        page
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.forgotten_dirty || !matches!(&self.dirty, Unwritten::Rows(keys) if keys.is_empty())
    }

    /// What the disk does not have; afterwards it counts as written.
    pub(super) fn take_batch(&mut self) -> WriteBatch {
        let dirty = std::mem::replace(&mut self.dirty, Unwritten::Rows(BTreeSet::new()));
        let forgotten = std::mem::take(&mut self.forgotten_dirty).then(|| self.forgotten.iter().cloned().collect());
        let find =
            |domain: &Host, host: &Host| self.domains.get(domain)?.rows.iter().find(|row| row.host == *host).cloned();
        match dirty {
            Unwritten::Rows(keys) => {
                let rows = keys.into_iter().map(|(domain, host)| {
                    let row = find(&domain, &host);
                    (domain, host, row)
                });
                WriteBatch { all: false, rows: rows.collect(), forgotten }
            }
            Unwritten::All => {
                let rows = self.domains.iter().flat_map(|(domain, entry)| {
                    entry.rows.iter().map(|row| (domain.clone(), row.host.clone(), Some(row.clone())))
                });
                WriteBatch { all: true, rows: rows.collect(), forgotten }
            }
        }
    }

    /// What could not be written is to be tried again.
    pub(super) fn mark_unwritten(&mut self, batch: WriteBatch) {
        self.forgotten_dirty |= batch.forgotten.is_some();
        if batch.all {
            self.dirty = Unwritten::All;
        }
        for (domain, host, _) in batch.rows {
            self.mark_dirty(domain, host);
        }
    }

    /// The disk has nothing any more.
    pub(super) fn mark_all_dirty(&mut self) {
        self.dirty = Unwritten::All;
        self.forgotten_dirty = true;
    }

    fn mark_dirty(&mut self, domain: Host, host: Host) {
        let Unwritten::Rows(keys) = &mut self.dirty else { return };
        keys.insert((domain, host));
        // A disk that takes nothing must not make this grow with all that was dropped meanwhile.
        if keys.len() > self.max.saturating_mul(2) {
            self.dirty = Unwritten::All;
        }
    }

    /// Drops what has expired_rounds out, round after round.
    fn expire(&mut self, now: i64) {
        self.expired_at = now;
        for row in self.domains.values_mut().flat_map(|entry| &mut entry.rows) {
            row.expired_rounds = if row.best(now).is_none() { row.expired_rounds + 1 } else { 0 };
        }
        self.drop_rows(|row| row.expired_rounds >= EXPIRED_ROUNDS);
    }

    /// Drops the rows that were not seen for the longest time, some more than needed: so it is rarely needed.
    fn enforce_limit(&mut self) {
        if self.rows <= self.max {
            return;
        }
        let excess = self.rows - self.max + self.max / 100;
        let mut seen: Vec<i64> =
            self.domains.values().flat_map(|entry| entry.rows.iter().map(|row| row.seen)).collect();
        let (_, last, _) = seen.select_nth_unstable(excess.saturating_sub(1));
        let last = *last;
        let mut left = excess;
        self.drop_rows(|row| {
            let drop = row.seen <= last && left > 0;
            left -= usize::from(drop);
            drop
        });
    }

    fn drop_oldest_host(&mut self, domain: &Host) {
        let rows = self.domains.get(domain).map(|entry| entry.rows.iter());
        // Those that never took TLS first: made-up hosts must not push out the one that did.
        let order = |row: &&HostRecord| (row.took_tls(), row.seen);
        let oldest = rows.into_iter().flatten().min_by_key(order).map(|row| row.host.clone());
        let Some((host, entry)) = oldest.zip(self.domains.get_mut(domain)) else { return };
        entry.rows.retain(|row| row.host != host);
        self.rows -= 1;
        self.mark_dirty(domain.clone(), host);
    }

    fn drop_rows(&mut self, mut is_to_go: impl FnMut(&HostRecord) -> bool) {
        let mut gone = Vec::new();
        self.domains.retain(|domain, entry| {
            entry.rows.retain(|row| {
                let go = is_to_go(row);
                if go {
                    gone.push((domain.clone(), row.host.clone()));
                }
                !go
            });
            !entry.rows.is_empty()
        });
        self.rows -= gone.len();
        for (domain, host) in gone {
            self.mark_dirty(domain, host);
        }
    }
}

/// Enters a sighting; whether more has changed than a date.
fn record_level(row: &mut HostRecord, level: TlsLevel, at: i64) -> bool {
    let period = &mut row.periods[level as usize];
    let goes_on = period.is_some_and(|period| period.last > at - MEMORY_PERIOD);
    // A clock that was set back changes no past.
    *period = match *period {
        Some(Period { first, last }) if goes_on => Some(Period { first: first.min(at), last: last.max(at) }),
        _ => Some(Period { first: at, last: at }),
    };
    let changed = !goes_on || row.level != level;
    row.level = level;
    row.seen = row.seen.max(at);
    changed
}

/// What a sighting is against what was remembered.
fn compare(before: &Baseline, level: TlsLevel, is_new: bool) -> LevelChange {
    // A new host in clear, of a domain that takes TLS.
    let foreign = before.domain.filter(|best| is_new && level == TlsLevel::Plain && best.level > TlsLevel::Plain);
    match (before.host, foreign) {
        (Some(own), _) if level < own.level => LevelChange::Worse { was: own },
        (_, Some(was)) => LevelChange::Worse { was },
        (None, None) => LevelChange::First,
        (Some(own), None) if level > own.level => LevelChange::Better { was: own },
        (Some(_), None) => LevelChange::Same,
    }
}

/// A name as long as may be kept.
fn truncate_issuer(issuer: &str) -> &str {
    issuer.char_indices().nth(ISSUER_MAX).map_or(issuer, |(end, _)| &issuer[..end])
}
