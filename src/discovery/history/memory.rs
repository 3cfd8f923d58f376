//! The memory itself: what each host of a domain has shown, when, and what that makes of the next sighting.
//!
//! Pure: time comes in, and what must go to disk is noted for [`super::disk`] to fetch. Times are seconds
//! since 1970, which is all that days of memory need, and a quarter of the room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Best, Change, Forgotten, Level, Page, Remembered, Standing};
use crate::address::Host;

pub(super) const DAY: i64 = 24 * 60 * 60;
/// A level that was not reached again for so long is no longer held against anybody.
const KEPT: i64 = 90 * DAY;
/// In so many rounds, a day apart, a host must be found to have aged out before it is dropped: a clock that is ahead, as
/// at a start without a network, may be put right meanwhile, and what it took would be missed then.
const ROUNDS_AGED: u8 = 3;
/// How long a host is new. A new host in clear is held against what its domain has shown: it may be a forged
/// MX. After that it is taken as what it is: a domain may well have one host with TLS and one without.
const NEW: i64 = 7 * DAY;
/// A date on disk may be so much older than the one in memory: nobody needs a write for each delivery.
const STALE: i64 = 10 * 60;
/// Hosts of one domain, at most; far more than the route takes from one answer.
const HOSTS_MAX: usize = 64;
/// Acts of forgetting that are kept.
const FORGOTTEN_MAX: usize = 200;
/// Characters of an issuer's name, at most.
const ISSUER_MAX: usize = 200;

/// From when to when a level was reached, without a gap of [`KEPT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: i64,
    pub(super) last: i64,
}

/// What one host of a domain has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) host: Host,
    /// By level, in the order of [`Level::ALL`].
    pub(super) stretches: [Option<Stretch>; 5],
    pub(super) seen: i64,
    pub(super) level: Level,
    /// Of the last certificate, and since when it is this one.
    pub(super) issuer: Option<(Arc<str>, i64)>,
    /// As of when the disk knows it.
    pub(super) written: i64,
    /// In so many rounds it was found to have aged out.
    pub(super) aged: u8,
}

impl Row {
    fn best(&self, now: i64) -> Option<Best> {
        Level::ALL.into_iter().zip(self.stretches).rev().find_map(|(level, stretch)| {
            let stretch = stretch.filter(|stretch| stretch.last > now - KEPT)?;
            Some(Best { level, first: time(stretch.first), last: time(stretch.last) })
        })
    }

    /// Whether the host ever took TLS, as far as is known.
    fn took_tls(&self) -> bool {
        let with_tls = |(level, stretch): (Level, Option<Stretch>)| level > Level::Plain && stretch.is_some();
        Level::ALL.into_iter().zip(self.stretches).any(with_tls)
    }

    /// When it was first seen at all.
    fn first(&self) -> i64 {
        self.stretches.iter().flatten().map(|stretch| stretch.first).min().unwrap_or(self.seen)
    }

    fn remembered(&self, domain: &Host, now: i64) -> Option<Remembered> {
        Some(Remembered {
            domain: domain.clone(),
            host: self.host.clone(),
            best: self.best(now)?,
            seen: time(self.seen),
            level: self.level,
            issuer: self.issuer.as_ref().map(|(issuer, _)| Arc::clone(issuer)),
        })
    }
}

/// A time outside of what can be written cannot come from us; one on a damaged disk is taken for the start.
pub(super) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[derive(Debug, Default)]
struct Known {
    rows: Vec<Row>,
    /// When it was last warned of.
    warned: Option<i64>,
}

/// What the disk does not have yet.
#[derive(Debug)]
enum Dirty {
    Rows(BTreeSet<(Host, Host)>),
    All,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Batch {
    /// Whether what is there goes first.
    pub(super) all: bool,
    /// Domain and host, and what is known; nothing where it is to go.
    pub(super) rows: Vec<(Host, Host, Option<Row>)>,
    pub(super) forgotten: Option<Vec<Forgotten>>,
}

/// What a sighting was, for the caller and for the alarm.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) change: Change,
    /// The host, or its domain where the host is new, took TLS before.
    pub(super) took_tls: bool,
    /// Whose certificate the host had before.
    pub(super) issuer_before: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Memory {
    domains: BTreeMap<Host, Known>,
    rows: usize,
    max: usize,
    dirty: Dirty,
    forgotten: VecDeque<Forgotten>,
    forgotten_dirty: bool,
    pruned: i64,
}

impl Memory {
    pub(super) fn new(max: usize) -> Self {
        Self {
            domains: BTreeMap::new(),
            rows: 0,
            max,
            dirty: Dirty::Rows(BTreeSet::new()),
            forgotten: VecDeque::new(),
            forgotten_dirty: false,
            pruned: 0,
        }
    }

    /// Takes in what the disk had.
    pub(super) fn restore(&mut self, rows: Vec<(Host, Row)>, forgotten: Vec<Forgotten>, now: i64) {
        for (domain, row) in rows {
            self.domains.entry(domain).or_default().rows.push(row);
            self.rows += 1;
        }
        self.forgotten.extend(forgotten);
        self.prune(now);
        self.shrink();
    }

    /// All issuers, with the level their certificate was last seen at and since when.
    pub(super) fn issuers(&self) -> impl Iterator<Item = (Level, &str, i64)> {
        let rows = self.domains.values().flat_map(|known| &known.rows);
        rows.filter_map(|row| row.issuer.as_ref().map(|(issuer, since)| (row.level, &**issuer, *since)))
    }

    pub(super) fn get(&self, domain: &Host, host: &Host, now: i64) -> Option<Remembered> {
        let rows = &self.domains.get(domain)?.rows;
        rows.iter().find(|row| row.host == *host)?.remembered(domain, now)
    }

    /// The best of a domain's hosts; of equals the one that was seen last.
    pub(super) fn best_of(&self, domain: &Host, now: i64) -> Option<Remembered> {
        let rows = &self.domains.get(domain)?.rows;
        let all = rows.iter().filter_map(|row| row.remembered(domain, now));
        all.max_by_key(|one| (one.best.level, one.best.last))
    }

    pub(super) fn standing(&self, domain: &Host, host: &Host, now: i64) -> Standing {
        Standing {
            host: self.get(domain, host, now).map(|one| one.best),
            domain: self.best_of(domain, now).map(|one| one.best),
            took_tls: self.took_tls(domain, now),
        }
    }

    /// When a host of a domain last took TLS.
    fn took_tls(&self, domain: &Host, now: i64) -> Option<Timestamp> {
        let rows = &self.domains.get(domain)?.rows;
        let with_tls = rows.iter().flat_map(|row| &row.stretches[Level::Tls as usize..]).flatten();
        with_tls.map(|stretch| stretch.last).filter(|last| *last > now - KEPT).max().map(time)
    }

    pub(super) fn note(&mut self, domain: &Host, host: &Host, level: Level, issuer: Option<&str>, at: i64) -> Noted {
        if at.abs_diff(self.pruned) >= DAY.unsigned_abs() {
            self.prune(at);
        }
        let before = self.standing(domain, host, at);
        let known = self.domains.entry(domain.clone()).or_default();
        let place = known.rows.iter().position(|row| row.host == *host).unwrap_or_else(|| {
            self.rows += 1;
            let stretches = [None; 5];
            // Never written, so that it will be.
            known.rows.push(Row {
                host: host.clone(),
                stretches,
                seen: at,
                level,
                issuer: None,
                written: i64::MIN,
                aged: 0,
            });
            known.rows.len() - 1
        });
        let row = &mut known.rows[place];
        let issuer_before = row.issuer.as_ref().map(|(issuer, _)| Arc::clone(issuer));
        let mut changed = record(row, level, at);
        if let Some(issuer) = issuer.map(shortened).filter(|issuer| issuer_before.as_deref() != Some(issuer)) {
            row.issuer = Some((Arc::from(issuer), at));
            changed = true;
        }
        let is_new = at - row.first() < NEW;
        let write = changed || at.saturating_sub(row.written) >= STALE;
        if write {
            row.written = at;
        }
        let crowded = known.rows.len() > HOSTS_MAX;
        if write {
            self.mark(domain.clone(), host.clone());
        }
        if crowded {
            self.drop_oldest_host(domain);
        }
        self.shrink();
        let took_tls = before.host.is_some_and(|best| best.level > Level::Plain)
            || (is_new && before.domain.is_some_and(|best| best.level > Level::Plain));
        Noted { change: change(&before, level, is_new), took_tls, issuer_before }
    }

    /// Whether a warning about a domain is due: one a day.
    pub(super) fn may_warn(&mut self, domain: &Host, at: i64) -> bool {
        let Some(known) = self.domains.get_mut(domain) else { return true };
        let due = known.warned.is_none_or(|warned| at - warned >= DAY || at < warned);
        if due {
            known.warned = Some(at);
        }
        due
    }

    /// Forgets all hosts of a domain; how many that were.
    pub(super) fn forget(&mut self, domain: &Host, reason: &str, who: &str, at: i64) -> usize {
        let Some(known) = self.domains.remove(domain) else { return 0 };
        let hosts = known.rows.len();
        self.rows -= hosts;
        for row in known.rows {
            self.mark(domain.clone(), row.host);
        }
        let forgotten =
            Forgotten { domain: domain.clone(), at: time(at), reason: reason.into(), who: who.into(), hosts };
        self.forgotten.push_back(forgotten);
        while self.forgotten.len() > FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
        self.forgotten_dirty = true;
        hosts
    }

    /// Domains in order, whole ones, until `limit` rows are reached.
    pub(super) fn page(&self, domain: Option<&Host>, after: Option<&Host>, limit: usize, now: i64) -> Page {
        let forgotten = self.forgotten.iter().filter(|one| domain.is_none_or(|domain| one.domain == *domain));
        let forgotten = if after.is_none() { forgotten.cloned().collect() } else { Vec::new() };
        let mut page = Page { remembered: Vec::new(), next: None, forgotten };
        let from = match (domain, after) {
            (Some(domain), _) => (Bound::Included(domain), Bound::Included(domain)),
            (None, Some(after)) => (Bound::Excluded(after), Bound::Unbounded),
            (None, None) => (Bound::Unbounded, Bound::Unbounded),
        };
        for (domain, known) in self.domains.range::<Host, _>(from) {
            if page.remembered.len() >= limit {
                page.next = page.remembered.last().map(|last| last.domain.clone());
                return page;
            }
            let mut rows: Vec<_> = known.rows.iter().filter_map(|row| row.remembered(domain, now)).collect();
            rows.sort_by(|a, b| a.host.cmp(&b.host));
            page.remembered.extend(rows);
        }
        page
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.forgotten_dirty || !matches!(&self.dirty, Dirty::Rows(keys) if keys.is_empty())
    }

    /// What the disk does not have; afterwards it counts as written.
    pub(super) fn take_batch(&mut self) -> Batch {
        let dirty = std::mem::replace(&mut self.dirty, Dirty::Rows(BTreeSet::new()));
        let forgotten = std::mem::take(&mut self.forgotten_dirty).then(|| self.forgotten.iter().cloned().collect());
        let find =
            |domain: &Host, host: &Host| self.domains.get(domain)?.rows.iter().find(|row| row.host == *host).cloned();
        match dirty {
            Dirty::Rows(keys) => {
                let rows = keys.into_iter().map(|(domain, host)| {
                    let row = find(&domain, &host);
                    (domain, host, row)
                });
                Batch { all: false, rows: rows.collect(), forgotten }
            }
            Dirty::All => {
                let rows = self.domains.iter().flat_map(|(domain, known)| {
                    known.rows.iter().map(|row| (domain.clone(), row.host.clone(), Some(row.clone())))
                });
                Batch { all: true, rows: rows.collect(), forgotten }
            }
        }
    }

    /// What could not be written is to be tried again.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.forgotten_dirty |= batch.forgotten.is_some();
        if batch.all {
            self.dirty = Dirty::All;
        }
        for (domain, host, _) in batch.rows {
            self.mark(domain, host);
        }
    }

    /// The disk has nothing any more.
    pub(super) fn mark_all(&mut self) {
        self.dirty = Dirty::All;
        self.forgotten_dirty = true;
    }

    fn mark(&mut self, domain: Host, host: Host) {
        let Dirty::Rows(keys) = &mut self.dirty else { return };
        keys.insert((domain, host));
        // A disk that takes nothing must not make this grow with all that was dropped meanwhile.
        if keys.len() > self.max.saturating_mul(2) {
            self.dirty = Dirty::All;
        }
    }

    /// Drops what has aged out, round after round.
    fn prune(&mut self, now: i64) {
        self.pruned = now;
        for row in self.domains.values_mut().flat_map(|known| &mut known.rows) {
            row.aged = if row.best(now).is_none() { row.aged + 1 } else { 0 };
        }
        self.drop_rows(|row| row.aged >= ROUNDS_AGED);
    }

    /// Drops the rows that were not seen for the longest time, some more than needed: so it is rarely needed.
    fn shrink(&mut self) {
        if self.rows <= self.max {
            return;
        }
        let excess = self.rows - self.max + self.max / 100;
        let mut seen: Vec<i64> =
            self.domains.values().flat_map(|known| known.rows.iter().map(|row| row.seen)).collect();
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
        let rows = self.domains.get(domain).map(|known| known.rows.iter());
        // Those that never took TLS first: made-up hosts must not push out the one that did.
        let order = |row: &&Row| (row.took_tls(), row.seen);
        let oldest = rows.into_iter().flatten().min_by_key(order).map(|row| row.host.clone());
        let Some((host, known)) = oldest.zip(self.domains.get_mut(domain)) else { return };
        known.rows.retain(|row| row.host != host);
        self.rows -= 1;
        self.mark(domain.clone(), host);
    }

    fn drop_rows(&mut self, mut is_to_go: impl FnMut(&Row) -> bool) {
        let mut gone = Vec::new();
        self.domains.retain(|domain, known| {
            known.rows.retain(|row| {
                let go = is_to_go(row);
                if go {
                    gone.push((domain.clone(), row.host.clone()));
                }
                !go
            });
            !known.rows.is_empty()
        });
        self.rows -= gone.len();
        for (domain, host) in gone {
            self.mark(domain, host);
        }
    }
}

/// Enters a sighting; whether more has changed than a date.
fn record(row: &mut Row, level: Level, at: i64) -> bool {
    let stretch = &mut row.stretches[level as usize];
    let goes_on = stretch.is_some_and(|stretch| stretch.last > at - KEPT);
    // A clock that was set back changes no past.
    *stretch = match *stretch {
        Some(Stretch { first, last }) if goes_on => Some(Stretch { first: first.min(at), last: last.max(at) }),
        _ => Some(Stretch { first: at, last: at }),
    };
    let changed = !goes_on || row.level != level;
    row.level = level;
    row.seen = row.seen.max(at);
    changed
}

/// What a sighting is against what was remembered.
fn change(before: &Standing, level: Level, is_new: bool) -> Change {
    // A new host in clear, of a domain that takes TLS.
    let foreign = before.domain.filter(|best| is_new && level == Level::Plain && best.level > Level::Plain);
    match (before.host, foreign) {
        (Some(own), _) if level < own.level => Change::Worse { was: own },
        (_, Some(was)) => Change::Worse { was },
        (None, None) => Change::First,
        (Some(own), None) if level > own.level => Change::Better { was: own },
        (Some(_), None) => Change::Same,
    }
}

/// A name as long as may be kept.
fn shortened(issuer: &str) -> &str {
    issuer.char_indices().nth(ISSUER_MAX).map_or(issuer, |(end, _)| &issuer[..end])
}
