//! The alarm about an interception of our connections. It is raised if many unrelated domains
//! change in the same way within an hour.
//!
//! Two changes count: domains that took TLS no longer do, and certificates have an issuer that no
//! domain had before. Changes of single domains belong to [`super::memory`]. This module does no
//! I/O and reads no clock: callers pass sessions with their time and receive events. The sessions
//! of the last hour are kept, in limited number.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::level::TlsLevel;
use super::memory::timestamp;
use super::registrable::{count_groups, registrable_domain};
use crate::smtp::address::Host;

/// The time within which changes are attributed to one cause, in seconds.
const WINDOW: i64 = 60 * 60;
/// The minimum number of unrelated domains. Two or three break on any day; five in an hour are no
/// coincidence.
const DOMAINS_MIN: usize = 5;
/// The divisor of the minimum share: one in five of the domains that could be affected must be. In
/// a relay with thousands of domains an hour, five failures are normal; an attacker on the network
/// affects all or most.
const SHARE_MIN: usize = 5;
/// The number of domains below which the alarm ends. It is less than [`DOMAINS_MIN`], so that the
/// alarm does not flap.
const DOMAINS_END: usize = 3;
/// The interval at which an active alarm is logged again, in seconds.
const LOG_INTERVAL: i64 = 60 * 60;
/// The interval at which the window is evaluated without new changes, in seconds.
const EVALUATE_INTERVAL: i64 = 60;
/// The maximum number of pairs of domain and host in the window.
const CONTACTS_MAX: usize = 5_000;
/// The maximum number of known issuers. Each self-signed certificate has its own; public
/// authorities have a few hundred.
const ISSUERS_MAX: usize = 50_000;
/// The number of domains named in an alarm.
const EXAMPLES: usize = 5;

/// An alarm: many unrelated domains are affected at once, so somebody may intercept our
/// connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// The kind of interception.
    pub kind: AlarmKind,
    /// The time at which the alarm was raised.
    pub since: Timestamp,
    /// The number of domains affected within an hour. Related domains count once.
    pub domains: usize,
    /// The number of domains seen in that hour that could be affected.
    pub of: usize,
    /// The first few affected domains.
    pub examples: Vec<Host>,
}

/// The kind of interception.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The domains took TLS before and no longer do.
    TlsLost,
    /// Their certificates have this issuer, which none of them had before. It is the whole issuer
    /// name, or the organization alone if a trusted authority issued the certificate.
    NewIssuer(Arc<str>),
}

/// A session with a host, and what the memory knew before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObservedHost<'a> {
    pub(super) domain: &'a Host,
    pub(super) host: &'a Host,
    pub(super) level: TlsLevel,
    pub(super) took_tls: bool,
    pub(super) issuer: Option<&'a str>,
    pub(super) issuer_before: Option<&'a str>,
    pub(super) at: i64,
}

/// An event of an alarm.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AlarmEvent {
    /// The alarm was raised, or is still active an hour later.
    Raised(Alarm),
    /// The alarm has ended.
    Ended(Alarm),
}

/// The latest session of a pair of domain and host.
#[derive(Debug)]
struct Contact {
    at: i64,
    /// A domain of this registrable domain.
    domain: Host,
    took_tls: bool,
    state: ContactState,
}

/// The state of a session, by which it counts for an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ContactState {
    /// The host took TLS before and does not now.
    Lost,
    /// The host is in the clear, as before.
    Plain,
    /// The certificate has an issuer that is new to the host and was unknown before.
    NewIssuer(Arc<str>),
    /// The certificate is not suspicious.
    Certificate,
}

impl ContactState {
    /// Returns the kind of alarm that the state is a sign of.
    fn alarm_kind(&self) -> Option<AlarmKind> {
        match self {
            Self::Lost => Some(AlarmKind::TlsLost),
            Self::NewIssuer(issuer) => Some(AlarmKind::NewIssuer(Arc::clone(issuer))),
            Self::Plain | Self::Certificate => None,
        }
    }
}

/// An active alarm.
#[derive(Debug)]
struct RaisedAlarm {
    alarm: Alarm,
    logged_at: i64,
}

/// The times at which an issuer was first and last seen.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: i64,
    last: i64,
}

/// The sessions of the last hour, the known issuers, and the active alarms.
#[derive(Debug, Default)]
pub(super) struct AlarmWatch {
    /// The latest session by the registrable domains of domain and host.
    contacts: HashMap<(String, String), Contact>,
    issuers: HashMap<Arc<str>, Span>,
    active: Vec<RaisedAlarm>,
    evaluated_at: i64,
}

impl AlarmWatch {
    /// Adds an issuer from the memory to the known ones.
    pub(super) fn add_known_issuer(&mut self, level: TlsLevel, issuer: &str, since: i64) {
        self.record_issuer(issuer_key(level, issuer), since);
    }

    /// Records a session, and evaluates the window if it may change an alarm.
    pub(super) fn observe(&mut self, seen: ObservedHost<'_>) -> Vec<AlarmEvent> {
        let key = (
            registrable_domain(seen.domain),
            registrable_domain(seen.host),
        );
        let before = self.contacts.get(&key).map(|contact| contact.state.clone());
        let state = self.state(&seen, before.as_ref());
        let has_changed_state = before.as_ref() != Some(&state)
            && !matches!(state, ContactState::Plain | ContactState::Certificate);
        if before.is_none() && self.contacts.len() >= CONTACTS_MAX {
            self.evict(seen.at);
        }
        let contact = Contact {
            at: seen.at,
            domain: seen.domain.clone(),
            took_tls: seen.took_tls,
            state,
        };
        self.contacts.insert(key, contact);
        let is_due =
            !self.active.is_empty() && (seen.at - self.evaluated_at).abs() >= EVALUATE_INTERVAL;
        if has_changed_state || is_due {
            self.evaluate(seen.at)
        } else {
            Vec::new()
        }
    }

    /// Evaluates the window, and removes sessions that have left it.
    pub(super) fn evaluate(&mut self, now: i64) -> Vec<AlarmEvent> {
        self.evaluated_at = now;
        self.contacts.retain(|_, contact| contact.at > now - WINDOW);
        // Active alarms are evaluated even if no domain is affected any more.
        let mut affected: BTreeMap<_, Vec<_>> = self
            .active
            .iter()
            .map(|on| (on.alarm.kind.clone(), Vec::new()))
            .collect();
        for (pair, contact) in &self.contacts {
            if let Some(kind) = contact.state.alarm_kind() {
                affected.entry(kind).or_default().push((pair, contact));
            }
        }
        let count = |predicate: fn(&Contact) -> bool| {
            count_groups(
                self.contacts
                    .iter()
                    .filter(|(_, contact)| predicate(contact))
                    .map(|(pair, _)| pair),
            )
        };
        let took_tls = count(|contact| contact.took_tls);
        let certificates = count(|contact| {
            matches!(
                contact.state,
                ContactState::NewIssuer(_) | ContactState::Certificate
            )
        });
        let seen = affected.into_iter().map(|(kind, contacts)| {
            let of = match kind {
                AlarmKind::TlsLost => took_tls,
                AlarmKind::NewIssuer(_) => certificates,
            };
            alarm(kind, contacts, of, now)
        });
        let seen: Vec<_> = seen.collect();
        seen.into_iter()
            .filter_map(|seen| self.update_alarm(seen, now))
            .collect()
    }

    /// Returns the alarms that were active at the last evaluation.
    pub(super) fn current(&self) -> Vec<Alarm> {
        self.active.iter().map(|on| on.alarm.clone()).collect()
    }

    /// Raises, updates or ends one kind of alarm.
    fn update_alarm(&mut self, mut seen: Alarm, now: i64) -> Option<AlarmEvent> {
        let place = self.active.iter().position(|on| on.alarm.kind == seen.kind);
        if let Some(place) = place {
            seen.since = self.active[place].alarm.since;
        }
        let is_bad = seen.domains >= DOMAINS_MIN && seen.domains * SHARE_MIN >= seen.of;
        match place {
            None if is_bad => {
                self.active.push(RaisedAlarm {
                    alarm: seen.clone(),
                    logged_at: now,
                });
                Some(AlarmEvent::Raised(seen))
            }
            None => None,
            Some(place) if seen.domains < DOMAINS_END => {
                self.active.remove(place);
                Some(AlarmEvent::Ended(seen))
            }
            Some(place) => {
                let on = &mut self.active[place];
                on.alarm = seen.clone();
                if !is_bad || now - on.logged_at < LOG_INTERVAL {
                    return None;
                }
                on.logged_at = now;
                Some(AlarmEvent::Raised(seen))
            }
        }
    }

    fn state(&mut self, seen: &ObservedHost<'_>, before: Option<&ContactState>) -> ContactState {
        if seen.level == TlsLevel::Plain {
            return if seen.took_tls {
                ContactState::Lost
            } else {
                ContactState::Plain
            };
        }
        let Some(issuer) = seen.issuer else {
            return ContactState::Certificate;
        };
        let known = issuer_key(seen.level, issuer);
        let first = self.record_issuer(known, seen.at);
        // DNSSEC authenticates the certificate, so no attacker on the network can have made it.
        if seen.level == TlsLevel::Dane {
            return ContactState::Certificate;
        }
        let is_new = first > seen.at - WINDOW;
        let has_changed = seen
            .issuer_before
            .is_some_and(|before| issuer_key(seen.level, before) != known);
        match before {
            Some(ContactState::NewIssuer(one)) if **one == *known => {
                ContactState::NewIssuer(Arc::clone(one))
            }
            _ if is_new && has_changed => ContactState::NewIssuer(Arc::from(known)),
            _ => ContactState::Certificate,
        }
    }

    /// Records an issuer and returns the time at which it was first seen.
    fn record_issuer(&mut self, issuer: &str, at: i64) -> i64 {
        if let Some(span) = self.issuers.get_mut(issuer) {
            *span = Span {
                first: span.first.min(at),
                last: span.last.max(at),
            };
            return span.first;
        }
        if self.issuers.len() >= ISSUERS_MAX {
            // A tenth is removed at once, so that this runs rarely.
            let mut last: Vec<i64> = self.issuers.values().map(|span| span.last).collect();
            let (_, bound, _) = last.select_nth_unstable(ISSUERS_MAX / 10);
            let bound = *bound;
            let mut remaining = ISSUERS_MAX / 10 + 1;
            self.issuers.retain(|_, span| {
                let remove = span.last <= bound && remaining > 0;
                remaining -= usize::from(remove);
                !remove
            });
        }
        self.issuers.insert(
            Arc::from(issuer),
            Span {
                first: at,
                last: at,
            },
        );
        at
    }

    /// Removes sessions that have left the window and, if that is not enough, the oldest tenth.
    fn evict(&mut self, now: i64) {
        self.contacts.retain(|_, contact| contact.at > now - WINDOW);
        if self.contacts.len() < CONTACTS_MAX {
            return;
        }
        let mut times: Vec<i64> = self.contacts.values().map(|contact| contact.at).collect();
        let (_, bound, _) = times.select_nth_unstable(CONTACTS_MAX / 10);
        let bound = *bound;
        let mut remaining = CONTACTS_MAX / 10 + 1;
        self.contacts.retain(|_, contact| {
            let remove = contact.at <= bound && remaining > 0;
            remaining -= usize::from(remove);
            !remove
        });
    }
}

/// Creates an alarm of a kind from the affected sessions and the number of domains that could be
/// affected.
fn alarm(
    kind: AlarmKind,
    mut affected: Vec<(&(String, String), &Contact)>,
    of: usize,
    now: i64,
) -> Alarm {
    affected.sort_by_key(|(_, contact)| (contact.at, &contact.domain));
    let mut examples: Vec<Host> = Vec::new();
    for (_, contact) in &affected {
        if examples.len() < EXAMPLES && !examples.contains(&contact.domain) {
            examples.push(contact.domain.clone());
        }
    }
    let domains = count_groups(affected.into_iter().map(|(pair, _)| pair));
    Alarm {
        kind,
        since: timestamp(now),
        domains,
        of,
        examples,
    }
}

/// Returns the key of an issuer. Under a trusted authority it is the organization, since
/// authorities replace their intermediates every few months under new common names. Without one it
/// is the whole name, which may say anything.
fn issuer_key(level: TlsLevel, issuer: &str) -> &str {
    match level {
        TlsLevel::Trusted | TlsLevel::Verified => organization(issuer).unwrap_or(issuer),
        TlsLevel::Plain | TlsLevel::Tls | TlsLevel::Dane => issuer,
    }
}

/// Returns the organization in a name of RFC 4514 form.
fn organization(name: &str) -> Option<&str> {
    let at = name.match_indices("O=").map(|(at, _)| at).find(|at| {
        name[..*at].trim_end().is_empty() || name[..*at].trim_end().ends_with([',', '+'])
    })?;
    let value = &name[at..];
    let mut escaped = false;
    let end = value.char_indices().find_map(|(at, c)| {
        let ends = !escaped && matches!(c, ',' | '+');
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    });
    Some(value[..end.unwrap_or(value.len())].trim_end())
}
