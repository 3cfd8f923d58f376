//! The alarm for somebody who sits between us and the Internet: what many unrelated domains suffer within
//! an hour is no change of theirs.
//!
//! Two things are evaluated_at for: domains that took TLS and no longer do, and certificates of one issuer that
//! nobody had before. One domain alone proves nothing and is the memory's affair. Pure: sightings and their
//! time come in, news comes out. It follows one hour, in a bounded window.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::memory::timestamp;
use super::registrable::{count_groups, registrable_domain};
use super::{Alarm, AlarmKind, TlsLevel};
use crate::address::Host;

/// What happens to many within so long has one cause.
const WINDOW: i64 = 60 * 60;
/// Unrelated domains that must suffer. Two or three break on any one day; five at once is no chance.
const DOMAINS_MIN: usize = 5;
/// One in so many of those that could suffer must: a relay that speaks to thousands of domains an hour sees
/// five mishaps in it every day, and whoever sits on the line changes all or most.
const SHARE_MIN: usize = 5;
/// Below this it is over. Less than [`DOMAINS_MIN`], or it would come and go with each delivery.
const DOMAINS_END: usize = 3;
/// How often it is told while it lasts.
const LOG_INTERVAL: i64 = 60 * 60;
/// How often the window is evaluated_at through where nothing new came into it.
const EVALUATE_INTERVAL: i64 = 60;
/// Pairs of domain and host in the window, at most. More would only sharpen what is clear by then.
const CONTACTS_MAX: usize = 5_000;
/// Issuers that are known, at most. Self-signed certificates have one each; public authorities are a
/// few hundred.
const ISSUERS_MAX: usize = 50_000;
/// Domains that are named.
const EXAMPLES: usize = 5;

/// One sighting, and what the memory knew before it.
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

/// What is new about the alarm.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AlarmEvent {
    /// It is on, or still on an hour later.
    Raised(Alarm),
    /// It is over.
    Ended(Alarm),
}

/// The latest sighting of one pair.
#[derive(Debug)]
struct Contact {
    at: i64,
    /// One domain of those that share the unit.
    domain: Host,
    took_tls: bool,
    state: ContactState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ContactState {
    /// It took TLS, and does not now.
    Lost,
    /// In clear, as ever.
    Plain,
    /// A certificate of an issuer that was new to everybody, and to it.
    NewIssuer(Arc<str>),
    /// A certificate that gives no cause.
    Certificate,
}

impl ContactState {
    /// Of which alarm it is a sign.
    fn alarm_kind(&self) -> Option<AlarmKind> {
        match self {
            Self::Lost => Some(AlarmKind::TlsLost),
            Self::NewIssuer(issuer) => Some(AlarmKind::NewIssuer(Arc::clone(issuer))),
            Self::Plain | Self::Certificate => None,
        }
    }
}

/// An alarm that is on.
#[derive(Debug)]
struct ActiveAlarm {
    alarm: Alarm,
    logged_at: i64,
}

/// When an issuer was first and last seen.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: i64,
    last: i64,
}

#[derive(Debug, Default)]
pub(super) struct AlarmWatch {
    /// By the units of domain and host.
    contacts: HashMap<(String, String), Contact>,
    issuers: HashMap<Arc<str>, Span>,
    active: Vec<ActiveAlarm>,
    evaluated_at: i64,
}

impl AlarmWatch {
    /// Makes an issuer known that the memory had.
    pub(super) fn add_known_issuer(&mut self, level: TlsLevel, issuer: &str, since: i64) {
        self.record_issuer(issuer_key(level, issuer), since);
    }

    /// Takes in a sighting.
    pub(super) fn observe(&mut self, seen: ObservedHost<'_>) -> Vec<AlarmEvent> {
        let key = (registrable_domain(seen.domain), registrable_domain(seen.host));
        let before = self.contacts.get(&key).map(|contact| contact.state.clone());
        let state = self.state(&seen, before.as_ref());
        let is_news =
            before.as_ref() != Some(&state) && !matches!(state, ContactState::Plain | ContactState::Certificate);
        if before.is_none() && self.contacts.len() >= CONTACTS_MAX {
            self.evict(seen.at);
        }
        let contact = Contact { at: seen.at, domain: seen.domain.clone(), took_tls: seen.took_tls, state };
        self.contacts.insert(key, contact);
        let is_due = !self.active.is_empty() && (seen.at - self.evaluated_at).abs() >= EVALUATE_INTERVAL;
        if is_news || is_due { self.evaluate(seen.at) } else { Vec::new() }
    }

    /// Looks through the window, and forgets what has left it.
    pub(super) fn evaluate(&mut self, now: i64) -> Vec<AlarmEvent> {
        self.evaluated_at = now;
        self.contacts.retain(|_, contact| contact.at > now - WINDOW);
        // One that is on is weighed though nobody suffers any more.
        let mut suffering: BTreeMap<_, Vec<_>> =
            self.active.iter().map(|on| (on.alarm.kind.clone(), Vec::new())).collect();
        for (units, contact) in &self.contacts {
            if let Some(kind) = contact.state.alarm_kind() {
                suffering.entry(kind).or_default().push((units, contact));
            }
        }
        let count = |could: fn(&Contact) -> bool| {
            count_groups(self.contacts.iter().filter(|(_, contact)| could(contact)).map(|(units, _)| units))
        };
        let took_tls = count(|contact| contact.took_tls);
        let certificates =
            count(|contact| matches!(contact.state, ContactState::NewIssuer(_) | ContactState::Certificate));
        let seen = suffering.into_iter().map(|(kind, contacts)| {
            let of = match kind {
                AlarmKind::TlsLost => took_tls,
                AlarmKind::NewIssuer(_) => certificates,
            };
            alarm(kind, contacts, of, now)
        });
        let seen: Vec<_> = seen.collect();
        seen.into_iter().filter_map(|seen| self.update_alarm(seen, now)).collect()
    }

    /// The alarms that are on as of the last look.
    pub(super) fn current(&self) -> Vec<Alarm> {
        self.active.iter().map(|on| on.alarm.clone()).collect()
    }

    /// What one kind of alarm comes to.
    fn update_alarm(&mut self, mut seen: Alarm, now: i64) -> Option<AlarmEvent> {
        let place = self.active.iter().position(|on| on.alarm.kind == seen.kind);
        if let Some(place) = place {
            seen.since = self.active[place].alarm.since;
        }
        let is_bad = seen.domains >= DOMAINS_MIN && seen.domains * SHARE_MIN >= seen.of;
        match place {
            None if is_bad => {
                self.active.push(ActiveAlarm { alarm: seen.clone(), logged_at: now });
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
            return if seen.took_tls { ContactState::Lost } else { ContactState::Plain };
        }
        let Some(issuer) = seen.issuer else { return ContactState::Certificate };
        let known = issuer_key(seen.level, issuer);
        let first = self.record_issuer(known, seen.at);
        // DNSSEC vouches for the certificate: nobody on the line can have made it.
        if seen.level == TlsLevel::Dane {
            return ContactState::Certificate;
        }
        let is_new = first > seen.at - WINDOW;
        let has_changed = seen.issuer_before.is_some_and(|before| issuer_key(seen.level, before) != known);
        match before {
            Some(ContactState::NewIssuer(one)) if **one == *known => ContactState::NewIssuer(Arc::clone(one)),
            _ if is_new && has_changed => ContactState::NewIssuer(Arc::from(known)),
            _ => ContactState::Certificate,
        }
    }

    /// Notes an issuer; when it was first seen.
    fn record_issuer(&mut self, issuer: &str, at: i64) -> i64 {
        if let Some(span) = self.issuers.get_mut(issuer) {
            *span = Span { first: span.first.min(at), last: span.last.max(at) };
            return span.first;
        }
        if self.issuers.len() >= ISSUERS_MAX {
            // A tenth at once: so it is rarely needed.
            let mut last: Vec<i64> = self.issuers.values().map(|span| span.last).collect();
            let (_, bound, _) = last.select_nth_unstable(ISSUERS_MAX / 10);
            let bound = *bound;
            let mut left = ISSUERS_MAX / 10 + 1;
            self.issuers.retain(|_, span| {
                let go = span.last <= bound && left > 0;
                left -= usize::from(go);
                !go
            });
        }
        self.issuers.insert(Arc::from(issuer), Span { first: at, last: at });
        at
    }

    /// Makes room: what has left the window goes, and where that is not enough the oldest tenth.
    fn evict(&mut self, now: i64) {
        self.contacts.retain(|_, contact| contact.at > now - WINDOW);
        if self.contacts.len() < CONTACTS_MAX {
            return;
        }
        let mut times: Vec<i64> = self.contacts.values().map(|contact| contact.at).collect();
        let (_, bound, _) = times.select_nth_unstable(CONTACTS_MAX / 10);
        let bound = *bound;
        let mut left = CONTACTS_MAX / 10 + 1;
        self.contacts.retain(|_, contact| {
            let go = contact.at <= bound && left > 0;
            left -= usize::from(go);
            !go
        });
    }
}

/// What these contacts, with their units, and so many that could suffer come to, if it begins now.
fn alarm(kind: AlarmKind, mut suffering: Vec<(&(String, String), &Contact)>, of: usize, now: i64) -> Alarm {
    suffering.sort_by_key(|(_, contact)| (contact.at, &contact.domain));
    let mut examples: Vec<Host> = Vec::new();
    for (_, contact) in &suffering {
        if examples.len() < EXAMPLES && !examples.contains(&contact.domain) {
            examples.push(contact.domain.clone());
        }
    }
    let domains = count_groups(suffering.into_iter().map(|(units, _)| units));
    Alarm { kind, since: timestamp(now), domains, of, examples }
}

/// By what an issuer is known. Under a trusted authority it is the organization: public authorities bring
/// new intermediates into use every few months, under new common names, and all their customers move to
/// them. Where nobody vouches for the name it is taken whole, for it may say anything.
fn issuer_key(level: TlsLevel, issuer: &str) -> &str {
    match level {
        TlsLevel::Trusted | TlsLevel::Verified => organization(issuer).unwrap_or(issuer),
        TlsLevel::Plain | TlsLevel::Tls | TlsLevel::Dane => issuer,
    }
}

/// The organization in a name as RFC 4514 writes it.
fn organization(name: &str) -> Option<&str> {
    let at = name
        .match_indices("O=")
        .map(|(at, _)| at)
        .find(|at| name[..*at].trim_end().is_empty() || name[..*at].trim_end().ends_with([',', '+']))?;
    let value = &name[at..];
    let mut escaped = false;
    let end = value.char_indices().find_map(|(at, c)| {
        let ends = !escaped && matches!(c, ',' | '+');
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    });
    Some(value[..end.unwrap_or(value.len())].trim_end())
}
