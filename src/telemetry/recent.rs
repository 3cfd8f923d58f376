//! The most recent refusals and downgrades.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use super::labels::Direction;

/// The most refusals, and the most downgrades, that are stored.
const LISTED_MAX: usize = 50;
/// The time after which a downgrade is no longer listed if it was not seen again: the host may not
/// exist any more.
const STALE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The most characters of a reason.
const REASON_MAX: usize = 400;

/// A session, sender or recipient that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRefusal {
    /// The time of the last occurrence.
    pub at: Timestamp,
    /// The direction: inbound if we refused a client, outbound if we refused to send to a host.
    pub direction: Direction,
    /// The connector of the domain.
    pub connector: String,
    /// The peer that was refused: an address or a host.
    pub peer: String,
    /// The reason in words.
    pub reason: String,
    /// The number of occurrences since the refusal is listed.
    pub times: u64,
}

/// A host that shows less TLS than before, which the connector allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDowngrade {
    /// The time of the last occurrence.
    pub at: Timestamp,
    /// The connector that allowed it.
    pub connector: String,
    /// The recipient domain.
    pub domain: String,
    /// The host.
    pub host: String,
    /// The TLS that the host showed before.
    pub was: String,
    /// The TLS that the host shows now.
    pub got: String,
}

/// The recent refusals and downgrades, the newest first.
#[derive(Debug, Default)]
pub struct RecentEvents {
    refusals: VecDeque<ListedRefusal>,
    downgrades: VecDeque<ListedDowngrade>,
}

impl RecentEvents {
    /// Returns the recent refusals, the newest first.
    pub fn refusals(&self) -> impl Iterator<Item = &ListedRefusal> {
        self.refusals.iter()
    }

    /// Returns the present downgrades, the newest first: hosts that have not shown as much TLS as
    /// before since then, and to which mail was sent within a week.
    pub fn downgrades(&self, now: Timestamp) -> impl Iterator<Item = &ListedDowngrade> {
        self.downgrades
            .iter()
            .filter(move |one| one.at.duration_until(now) < STALE)
    }

    pub(super) fn add_refusal(&mut self, mut refusal: ListedRefusal) {
        if refusal.reason.chars().nth(REASON_MAX).is_some() {
            refusal.reason = refusal
                .reason
                .chars()
                .take(REASON_MAX)
                .chain(['…'])
                .collect();
        }
        let same = |one: &ListedRefusal| {
            (&one.connector, &one.peer, &one.reason)
                == (&refusal.connector, &refusal.peer, &refusal.reason)
        };
        if let Some(at) = self.refusals.iter().position(same) {
            refusal.times += self.refusals.remove(at).map_or(0, |before| before.times);
        }
        self.refusals.push_front(refusal);
        self.refusals.truncate(LISTED_MAX);
    }

    pub(super) fn add_downgrade(&mut self, downgrade: ListedDowngrade) {
        self.downgrades
            .retain(|one| (&one.domain, &one.host) != (&downgrade.domain, &downgrade.host));
        self.downgrades.push_front(downgrade);
        self.downgrades.truncate(LISTED_MAX);
    }

    /// Ends the downgrades of those hosts of a domain for which `is_over` returns true.
    pub(super) fn end_downgrades(&mut self, domain: &str, is_over: impl Fn(&str) -> bool) {
        self.downgrades
            .retain(|one| one.domain != domain || !is_over(&one.host));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(peer: &str, reason: &str) -> ListedRefusal {
        ListedRefusal {
            at: Timestamp::UNIX_EPOCH,
            direction: Direction::Outbound,
            connector: "a".to_owned(),
            peer: peer.to_owned(),
            reason: reason.to_owned(),
            times: 1,
        }
    }

    #[test]
    fn a_repeated_refusal_is_listed_once_and_first() {
        let mut recent = RecentEvents::default();
        for peer in ["x", "y", "x"] {
            recent.add_refusal(refusal(peer, "no TLS"));
        }
        let listed: Vec<_> = recent
            .refusals()
            .map(|one| (one.peer.as_str(), one.times))
            .collect();
        assert_eq!(listed, [("x", 2), ("y", 1)]);
    }

    #[test]
    fn the_list_is_limited_in_count_and_length() {
        let mut recent = RecentEvents::default();
        for peer in 0..1000 {
            recent.add_refusal(refusal(&peer.to_string(), &"x".repeat(10_000)));
        }
        assert_eq!(recent.refusals().count(), LISTED_MAX);
        assert!(
            recent
                .refusals()
                .all(|one| one.reason.chars().count() == REASON_MAX + 1)
        );
        assert_eq!(
            recent.refusals().next().map(|one| one.peer.as_str()),
            Some("999")
        );
    }

    fn downgrade(domain: &str, host: &str, at: &str) -> ListedDowngrade {
        ListedDowngrade {
            at: at.parse().expect("a time"),
            connector: "a".to_owned(),
            domain: domain.to_owned(),
            host: host.to_owned(),
            was: "TLS".to_owned(),
            got: "no TLS".to_owned(),
        }
    }

    #[test]
    fn a_downgrade_ends_when_tls_is_back_or_after_a_week_without_mail() {
        let mut recent = RecentEvents::default();
        let (first, later) = ("2026-11-01T10:00:00Z", "2026-11-07T10:00:00Z");
        for (domain, host, at) in [
            ("a.example", "mx1", first),
            ("a.example", "mx2", later),
            ("b.example", "mx1", later),
        ] {
            recent.add_downgrade(downgrade(domain, host, at));
        }
        let listed = |recent: &RecentEvents, now: &str| {
            let all = recent.downgrades(now.parse().expect("a time"));
            all.map(|one| format!("{} {}", one.domain, one.host))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            listed(&recent, later),
            ["b.example mx1", "a.example mx2", "a.example mx1"]
        );
        assert_eq!(
            listed(&recent, "2026-11-08T10:00:00Z"),
            ["b.example mx1", "a.example mx2"]
        );
        recent.end_downgrades("a.example", |host| host == "mx2");
        assert_eq!(
            listed(&recent, later),
            ["b.example mx1", "a.example mx1"],
            "of that host alone"
        );
    }
}
