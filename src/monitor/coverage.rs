//! How much of the mail went under TLS, by connector, direction and day (UTC), for the last two weeks.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::labels::Direction;
use crate::tls::{Clearance, TlsOutcome};

/// Days that are kept.
pub const DAYS: usize = 14;
/// Connectors that are kept; a configuration has fewer, but names may change for years.
const CONNECTORS_MAX: usize = 2000;

/// Recipients of one day, by what their sessions reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// Which.
    pub date: Date,
    /// In clear.
    pub clear: u64,
    /// Under TLS, with a peer that did not prove who it is.
    pub encrypted: u64,
    /// Under TLS, with a peer that proved who it is: by a name that was looked for, a pinned key or TLSA records.
    pub verified: u64,
}

impl Day {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.clear + self.encrypted + self.verified
    }
}

/// One connector in one direction, the oldest day first.
pub(super) type Kept = BTreeMap<String, VecDeque<Day>>;

/// The coverage of every connector.
#[derive(Debug, Default)]
pub struct Coverage {
    days: Kept,
    is_dirty: bool,
}

fn key(connector: &str, direction: Direction) -> String {
    format!("{} {connector}", direction.word())
}

fn today(now: Timestamp) -> Date {
    now.to_zoned_datetime(TimeZone::UTC).date()
}

impl Coverage {
    pub(super) fn restored(mut days: Kept, now: Timestamp) -> Self {
        let today = today(now);
        for list in days.values_mut() {
            // A clock that was ahead leaves days that have not come.
            list.retain(|day| day.date <= today);
            list.drain(..list.len().saturating_sub(DAYS));
        }
        days.retain(|_, list| !list.is_empty());
        while days.len() > CONNECTORS_MAX {
            days.pop_last();
        }
        Self { days, is_dirty: false }
    }

    pub(super) fn kept(&self) -> Kept {
        self.days.clone()
    }

    pub(super) fn take_dirt(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    pub(super) fn note(&mut self, connector: &str, direction: Direction, clearance: &Clearance, recipients: u64) {
        self.enter(connector, direction, Level::of(clearance), recipients, Timestamp::now());
    }

    fn enter(&mut self, connector: &str, direction: Direction, level: Level, recipients: u64, now: Timestamp) {
        let (key, date) = (key(connector, direction), today(now));
        if !self.days.contains_key(&key) && self.days.len() >= CONNECTORS_MAX {
            return;
        }
        self.is_dirty = true;
        let list = self.days.entry(key).or_default();
        if list.back().is_none_or(|day| day.date < date) {
            list.push_back(Day { date, clear: 0, encrypted: 0, verified: 0 });
            list.drain(..list.len().saturating_sub(DAYS));
        }
        // A clock that was set back goes on with the last day that there is.
        let Some(day) = list.back_mut() else { return };
        let count = match level {
            Level::Clear => &mut day.clear,
            Level::Encrypted => &mut day.encrypted,
            Level::Verified => &mut day.verified,
        };
        *count = count.saturating_add(recipients);
    }

    /// The days of a connector on which there was mail, the oldest first.
    #[must_use]
    pub fn days(&self, connector: &str, direction: Direction, now: Timestamp) -> Vec<Day> {
        let today = today(now);
        let list = self.days.get(&key(connector, direction));
        list.into_iter().flatten().filter(|day| is_recent(day.date, today)).copied().collect()
    }
}

/// Whether a day is one of the last ones.
fn is_recent(day: Date, today: Date) -> bool {
    let days = today.since(day).map_or(i32::MAX, |span| span.get_days());
    usize::try_from(days).is_ok_and(|days| days < DAYS)
}

#[derive(Debug, Clone, Copy)]
enum Level {
    Clear,
    Encrypted,
    Verified,
}

impl Level {
    fn of(clearance: &Clearance) -> Self {
        match clearance.outcome() {
            TlsOutcome::Clear(_) => Self::Clear,
            TlsOutcome::Tls(_) if clearance.authentication().identifies() => Self::Verified,
            TlsOutcome::Tls(_) => Self::Encrypted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{
        CertificateFacts, ChainFault, DaneFacts, Handshake, NamePattern, NoTls, PeerCertificate, Pin, TlsFacts,
        TlsPolicy, TlsVersion, UncheckableKey, Verdict, judge,
    };

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn days_are_apart_and_the_oldest_go() {
        let mut coverage = Coverage::default();
        let first = at("2026-11-01T23:59:00Z");
        coverage.enter("a", Direction::Outbound, Level::Clear, 2, first);
        coverage.enter("a", Direction::Outbound, Level::Verified, 3, at("2026-11-02T00:00:00Z"));
        let days = coverage.days("a", Direction::Outbound, at("2026-11-02T12:00:00Z"));
        assert_eq!(days.iter().map(|day| (day.clear, day.verified)).collect::<Vec<_>>(), [(2, 0), (0, 3)]);
        assert!(coverage.days("a", Direction::Inbound, first).is_empty());
        for day in 2..=28 {
            coverage.enter("a", Direction::Outbound, Level::Encrypted, 1, at(&format!("2026-11-{day:02}T10:00:00Z")));
        }
        assert_eq!(coverage.kept()["outbound a"].len(), DAYS);
        assert_eq!(coverage.days("a", Direction::Outbound, at("2026-11-30T00:00:00Z")).len(), DAYS - 2);
    }

    #[test]
    fn what_is_restored_has_no_days_to_come() {
        let mut coverage = Coverage::default();
        coverage.enter("a", Direction::Outbound, Level::Clear, 1, at("2026-11-20T10:00:00Z"));
        coverage.enter("a", Direction::Outbound, Level::Clear, 1, at("2027-11-20T10:00:00Z"));
        let restored = Coverage::restored(coverage.kept(), at("2026-11-21T10:00:00Z"));
        assert_eq!(restored.kept()["outbound a"].len(), 1);
    }

    /// Returns the counts of one recipient whose session reached this: clear, encrypted, verified.
    fn counted(outcome: TlsOutcome, looked_for: &[&str]) -> (u64, u64, u64) {
        let names: Vec<_> = looked_for.iter().map(|name| NamePattern::parse(name).expect("a name")).collect();
        let Verdict::Cleared(clearance) = judge(&TlsPolicy::Opportunistic, outcome, &names) else {
            panic!("opportunistic TLS clears it")
        };
        let mut coverage = Coverage::default();
        coverage.note("a", Direction::Outbound, &clearance, 1);
        let day = coverage.kept()["outbound a"][0];
        (day.clear, day.encrypted, day.verified)
    }

    fn tls(certificate: PeerCertificate) -> TlsOutcome {
        TlsOutcome::Tls(TlsFacts {
            version: TlsVersion::V1_3,
            cipher: "x",
            key_exchange: None,
            reduced: None,
            certificate,
            handshake: Handshake::Full,
        })
    }

    #[test]
    fn only_a_name_that_was_looked_for_proves_who_a_peer_is() {
        let shown = |chain: Result<(), ChainFault>| {
            tls(PeerCertificate::Certificate(Box::new(CertificateFacts {
                names: vec![NamePattern::parse("mail.example.org").expect("a name")],
                default_chain: chain.clone(),
                chain,
                key: Pin::new([1; 32]),
                issuer: "CN=Test CA".to_owned(),
                not_after: Timestamp::MAX,
                dane: DaneFacts::NotChecked,
            })))
        };
        for (outcome, looked_for, expected) in [
            (TlsOutcome::Clear(NoTls::NotOffered), &["mail.example.org"][..], (1, 0, 0)),
            (tls(PeerCertificate::Nothing), &["mail.example.org"], (0, 1, 0)),
            (tls(PeerCertificate::Unproved(UncheckableKey::RsaSize(1024))), &["mail.example.org"], (0, 1, 0)),
            (shown(Err(ChainFault::SelfSigned)), &["mail.example.org"], (0, 1, 0)),
            (shown(Ok(())), &["mx.example.net"], (0, 1, 0)),
            // Of a trusted authority, for whomever: no name was looked for.
            (shown(Ok(())), &[], (0, 1, 0)),
            (shown(Ok(())), &["mail.example.org"], (0, 0, 1)),
        ] {
            assert_eq!(counted(outcome.clone(), looked_for), expected, "{outcome:?} for {looked_for:?}");
        }
    }
}
