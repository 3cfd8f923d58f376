//! The TLS coverage: how many recipients were served with TLS, by connector, direction and day
//! (UTC), for the last two weeks.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::labels::Direction;
use crate::policy::tls::{Assurance, Clearance};

/// The number of days that are stored.
pub const DAYS: usize = 14;
/// The most connectors that are stored. A configuration has fewer, but names may change over the
/// years.
const CONNECTORS_MAX: usize = 2000;

/// The recipients of one day, by the assurance of their sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// The day in UTC.
    pub date: Date,
    /// Recipients served in the clear.
    pub clear: u64,
    /// Recipients served with TLS by a peer that did not prove its identity.
    pub encrypted: u64,
    /// Recipients served with TLS by a peer that proved its identity: by the demanded name, a
    /// pinned key or TLSA records.
    pub verified: u64,
}

impl Day {
    /// Returns the number of all recipients of the day.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.clear + self.encrypted + self.verified
    }
}

/// The days of each connector in one direction, the oldest first.
pub(super) type StoredCoverage = BTreeMap<String, VecDeque<Day>>;

/// The coverage of all connectors.
#[derive(Debug, Default)]
pub struct Coverage {
    days: StoredCoverage,
    is_changed: bool,
    /// The day that was counted last, and its number since 1970.
    today: Option<(i64, Date)>,
    /// The buffer for the key of a count.
    key: String,
}

fn key(connector: &str, direction: Direction) -> String {
    let mut key = String::new();
    write_key(&mut key, connector, direction);
    key
}

fn write_key(key: &mut String, connector: &str, direction: Direction) {
    key.clear();
    key.push_str(direction.as_str());
    key.push(' ');
    key.push_str(connector);
}

fn today(now: Timestamp) -> Date {
    now.to_zoned_datetime(TimeZone::UTC).date()
}

impl Coverage {
    pub(super) fn from_stored(mut days: StoredCoverage, now: Timestamp) -> Self {
        let today = today(now);
        for list in days.values_mut() {
            // A clock that was ahead leaves days of the future.
            list.retain(|day| day.date <= today);
            list.drain(..list.len().saturating_sub(DAYS));
        }
        days.retain(|_, list| !list.is_empty());
        while days.len() > CONNECTORS_MAX {
            days.pop_last();
        }
        Self {
            days,
            ..Self::default()
        }
    }

    pub(super) fn to_stored(&self) -> StoredCoverage {
        self.days.clone()
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    pub(super) fn count(
        &mut self,
        connector: &str,
        direction: Direction,
        clearance: &Clearance,
        recipients: u64,
    ) {
        self.add(
            connector,
            direction,
            clearance.session().assurance().into(),
            recipients,
            Timestamp::now(),
        );
    }

    fn add(
        &mut self,
        connector: &str,
        direction: Direction,
        class: CoverageClass,
        recipients: u64,
        now: Timestamp,
    ) {
        let date = self.day_of(now);
        write_key(&mut self.key, connector, direction);
        if !self.days.contains_key(&self.key) {
            if self.days.len() >= CONNECTORS_MAX {
                return;
            }
            self.days.insert(self.key.clone(), VecDeque::new());
        }
        self.is_changed = true;
        let Some(list) = self.days.get_mut(&self.key) else {
            return;
        };
        if list.back().is_none_or(|day| day.date < date) {
            list.push_back(Day {
                date,
                clear: 0,
                encrypted: 0,
                verified: 0,
            });
            list.drain(..list.len().saturating_sub(DAYS));
        }
        // If the clock was set back, the last day continues.
        let Some(day) = list.back_mut() else { return };
        let count = match class {
            CoverageClass::Clear => &mut day.clear,
            CoverageClass::Encrypted => &mut day.encrypted,
            CoverageClass::Verified => &mut day.verified,
        };
        *count = count.saturating_add(recipients);
    }

    /// Returns the day of a time in UTC.
    fn day_of(&mut self, now: Timestamp) -> Date {
        const DAY: i64 = 24 * 60 * 60;
        let number = now.as_second().div_euclid(DAY);
        match self.today {
            Some((known, date)) if known == number => date,
            _ => self.today.insert((number, today(now))).1,
        }
    }

    /// Returns the days of a connector on which there was mail, the oldest first.
    #[must_use]
    pub fn days(&self, connector: &str, direction: Direction, now: Timestamp) -> Vec<Day> {
        let today = today(now);
        let list = self.days.get(&key(connector, direction));
        list.into_iter()
            .flatten()
            .filter(|day| is_recent(day.date, today))
            .copied()
            .collect()
    }
}

/// Returns whether a day is one of the last [`DAYS`].
fn is_recent(day: Date, today: Date) -> bool {
    let days = today.since(day).map_or(i32::MAX, |span| span.get_days());
    usize::try_from(days).is_ok_and(|days| days < DAYS)
}

/// The class in which a recipient is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoverageClass {
    /// Without TLS.
    Clear,
    /// With TLS; the peer did not prove its identity.
    Encrypted,
    /// With TLS; the peer proved its identity.
    Verified,
}

impl From<Assurance> for CoverageClass {
    fn from(assurance: Assurance) -> Self {
        match assurance {
            Assurance::None => Self::Clear,
            // A trusted certificate alone proves no identity, since a public authority issues one
            // to anybody.
            Assurance::Encrypted | Assurance::Chain => Self::Encrypted,
            Assurance::Name | Assurance::Pin | Assurance::DaneHost | Assurance::DaneDomain => {
                Self::Verified
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tls::{
        CertificateFacts, ChainFault, DaneFacts, Handshake, NamePattern, NoTls, PeerCertificate,
        Pin, RevocationFacts, TlsFacts, TlsOutcome, TlsPolicy, TlsVersion, UncheckableKey, Verdict,
        judge,
    };

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn each_day_has_its_counts_and_the_oldest_are_removed() {
        let mut coverage = Coverage::default();
        let first = at("2026-11-01T23:59:00Z");
        coverage.add("a", Direction::Outbound, CoverageClass::Clear, 2, first);
        coverage.add(
            "a",
            Direction::Outbound,
            CoverageClass::Verified,
            3,
            at("2026-11-02T00:00:00Z"),
        );
        let days = coverage.days("a", Direction::Outbound, at("2026-11-02T12:00:00Z"));
        assert_eq!(
            days.iter()
                .map(|day| (day.clear, day.verified))
                .collect::<Vec<_>>(),
            [(2, 0), (0, 3)]
        );
        assert!(coverage.days("a", Direction::Inbound, first).is_empty());
        for day in 2..=28 {
            coverage.add(
                "a",
                Direction::Outbound,
                CoverageClass::Encrypted,
                1,
                at(&format!("2026-11-{day:02}T10:00:00Z")),
            );
        }
        assert_eq!(coverage.to_stored()["outbound a"].len(), DAYS);
        assert_eq!(
            coverage
                .days("a", Direction::Outbound, at("2026-11-30T00:00:00Z"))
                .len(),
            DAYS - 2
        );
    }

    #[test]
    fn days_of_the_future_are_not_restored() {
        let mut coverage = Coverage::default();
        coverage.add(
            "a",
            Direction::Outbound,
            CoverageClass::Clear,
            1,
            at("2026-11-20T10:00:00Z"),
        );
        coverage.add(
            "a",
            Direction::Outbound,
            CoverageClass::Clear,
            1,
            at("2027-11-20T10:00:00Z"),
        );
        let restored = Coverage::from_stored(coverage.to_stored(), at("2026-11-21T10:00:00Z"));
        assert_eq!(restored.to_stored()["outbound a"].len(), 1);
    }

    /// Returns the counts after one recipient with this outcome: clear, encrypted, verified.
    fn counted(outcome: TlsOutcome, demanded_names: &[&str]) -> (u64, u64, u64) {
        let names: Vec<_> = demanded_names
            .iter()
            .map(|name| NamePattern::parse(name).expect("a name"))
            .collect();
        let Verdict::Cleared(clearance) = judge(&TlsPolicy::Opportunistic, outcome, &names) else {
            panic!("opportunistic TLS clears it")
        };
        let mut coverage = Coverage::default();
        coverage.count("a", Direction::Outbound, &clearance, 1);
        let day = coverage.to_stored()["outbound a"][0];
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
    fn only_a_demanded_name_proves_the_identity_of_a_peer() {
        let shown = |chain: Result<(), ChainFault>| {
            tls(PeerCertificate::Certificate(Box::new(CertificateFacts {
                names: vec![NamePattern::parse("mail.example.org").expect("a name")],
                default_chain: chain.clone(),
                chain,
                key: Pin::new([1; 32]),
                issuer: "CN=Test CA".to_owned(),
                not_after: Timestamp::MAX,
                dane: DaneFacts::NotChecked,
                revocation: RevocationFacts::NotChecked,
            })))
        };
        for (outcome, demanded_names, expected) in [
            (
                TlsOutcome::Clear(NoTls::NotOffered),
                &["mail.example.org"][..],
                (1, 0, 0),
            ),
            (
                tls(PeerCertificate::Nothing),
                &["mail.example.org"],
                (0, 1, 0),
            ),
            (
                tls(PeerCertificate::Unproved(UncheckableKey::RsaSize(1024))),
                &["mail.example.org"],
                (0, 1, 0),
            ),
            (
                shown(Err(ChainFault::SelfSigned)),
                &["mail.example.org"],
                (0, 1, 0),
            ),
            (shown(Ok(())), &["mx.example.net"], (0, 1, 0)),
            // A certificate of a trusted authority, but no name was demanded.
            (shown(Ok(())), &[], (0, 1, 0)),
            (shown(Ok(())), &["mail.example.org"], (0, 0, 1)),
        ] {
            assert_eq!(
                counted(outcome.clone(), demanded_names),
                expected,
                "{outcome:?} for {demanded_names:?}"
            );
        }
    }
}
