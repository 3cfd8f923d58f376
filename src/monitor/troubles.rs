//! The last refusals and downgrades: the newest of each, and a limited number.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use super::labels::Direction;

/// How many of each are kept.
const KEPT: usize = 50;
/// A downgrade that was not seen again for so long is no longer listed: the host may have gone.
const STALE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Characters of a reason, at most.
const REASON_MAX: usize = 400;

/// A session, a sender or a recipient that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When, the last time.
    pub at: Timestamp,
    /// By whom: we refuse what comes in, or a host that we would send to.
    pub direction: Direction,
    /// The connector that speaks for the domain.
    pub connector: String,
    /// Who was refused: an address, or a host.
    pub peer: String,
    /// Why, in words.
    pub reason: String,
    /// How often since it is listed.
    pub times: u64,
}

/// A host that shows less TLS than it did, which was let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downgrade {
    /// When, the last time.
    pub at: Timestamp,
    /// The connector that let it through.
    pub connector: String,
    /// The recipient domain.
    pub domain: String,
    /// The host.
    pub host: String,
    /// What it showed before.
    pub was: String,
    /// What it shows now.
    pub got: String,
}

/// The last ones of each, the newest first.
#[derive(Debug, Default)]
pub struct Troubles {
    refusals: VecDeque<Refusal>,
    downgrades: VecDeque<Downgrade>,
}

impl Troubles {
    /// The last refusals, the newest first.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.refusals.iter()
    }

    /// The downgrades that last, the newest first: the host has not shown as much as before since, and mail went to it
    /// within a week.
    pub fn downgrades(&self, now: Timestamp) -> impl Iterator<Item = &Downgrade> {
        self.downgrades.iter().filter(move |one| one.at.duration_until(now) < STALE)
    }

    pub(super) fn refused(&mut self, mut refusal: Refusal) {
        if refusal.reason.chars().nth(REASON_MAX).is_some() {
            refusal.reason = refusal.reason.chars().take(REASON_MAX).chain(['…']).collect();
        }
        let same = |one: &Refusal| {
            (&one.connector, &one.peer, &one.reason) == (&refusal.connector, &refusal.peer, &refusal.reason)
        };
        if let Some(at) = self.refusals.iter().position(same) {
            refusal.times += self.refusals.remove(at).map_or(0, |before| before.times);
        }
        self.refusals.push_front(refusal);
        self.refusals.truncate(KEPT);
    }

    pub(super) fn downgraded(&mut self, downgrade: Downgrade) {
        self.downgrades.retain(|one| (&one.domain, &one.host) != (&downgrade.domain, &downgrade.host));
        self.downgrades.push_front(downgrade);
        self.downgrades.truncate(KEPT);
    }

    /// Ends the downgrades of a domain that `is_over` picks by their host.
    pub(super) fn recovered(&mut self, domain: &str, is_over: impl Fn(&str) -> bool) {
        self.downgrades.retain(|one| one.domain != domain || !is_over(&one.host));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(peer: &str, reason: &str) -> Refusal {
        Refusal {
            at: Timestamp::UNIX_EPOCH,
            direction: Direction::Outbound,
            connector: "a".to_owned(),
            peer: peer.to_owned(),
            reason: reason.to_owned(),
            times: 1,
        }
    }

    #[test]
    fn one_that_comes_again_is_listed_once_and_first() {
        let mut troubles = Troubles::default();
        for peer in ["x", "y", "x"] {
            troubles.refused(refusal(peer, "no TLS"));
        }
        let listed: Vec<_> = troubles.refusals().map(|one| (one.peer.as_str(), one.times)).collect();
        assert_eq!(listed, [("x", 2), ("y", 1)]);
    }

    #[test]
    fn no_peer_makes_the_list_grow() {
        let mut troubles = Troubles::default();
        for peer in 0..1000 {
            troubles.refused(refusal(&peer.to_string(), &"x".repeat(10_000)));
        }
        assert_eq!(troubles.refusals().count(), KEPT);
        assert!(troubles.refusals().all(|one| one.reason.chars().count() == REASON_MAX + 1));
        assert_eq!(troubles.refusals().next().map(|one| one.peer.as_str()), Some("999"));
    }

    fn downgrade(domain: &str, host: &str, at: &str) -> Downgrade {
        Downgrade {
            at: at.parse().expect("a time"),
            connector: "a".to_owned(),
            domain: domain.to_owned(),
            host: host.to_owned(),
            was: "TLS".to_owned(),
            got: "no TLS".to_owned(),
        }
    }

    #[test]
    fn a_downgrade_ends_with_the_tls_that_is_back_or_after_a_week_without_mail() {
        let mut troubles = Troubles::default();
        let (first, later) = ("2026-11-01T10:00:00Z", "2026-11-07T10:00:00Z");
        for (domain, host, at) in
            [("a.example", "mx1", first), ("a.example", "mx2", later), ("b.example", "mx1", later)]
        {
            troubles.downgraded(downgrade(domain, host, at));
        }
        let listed = |troubles: &Troubles, now: &str| {
            let all = troubles.downgrades(now.parse().expect("a time"));
            all.map(|one| format!("{} {}", one.domain, one.host)).collect::<Vec<_>>()
        };
        assert_eq!(listed(&troubles, later), ["b.example mx1", "a.example mx2", "a.example mx1"]);
        assert_eq!(listed(&troubles, "2026-11-08T10:00:00Z"), ["b.example mx1", "a.example mx2"]);
        troubles.recovered("a.example", |host| host == "mx2");
        assert_eq!(listed(&troubles, later), ["b.example mx1", "a.example mx1"], "of that host alone");
    }
}
