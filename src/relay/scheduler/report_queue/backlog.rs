//! The limit on mail of strangers that stays in the spool only for its report.
//!
//! A message stays in the spool with its content until its report is stored, and the rate of
//! reports is limited. Without this limit, a stranger who sends much mail that bounces could fill
//! the disk. Messages over the limit go into the postmaster's digest, which reports hundreds at
//! once. Each sender domain has a limit of its own, so that mail in the name of one domain does not
//! use up the limit of all.

use std::collections::HashMap;

use crate::smtp::address::Host;

/// The most messages whose reports wait.
const MESSAGES_MAX: usize = 10_000;
/// The most of these messages from senders of one domain.
pub(super) const OF_DOMAIN_MAX: usize = 1_000;
/// The most octets of content of all of them.
const OCTETS_MAX: u64 = 1 << 30;

/// The counts of mail of strangers whose reports wait.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    messages: usize,
    octets: u64,
    domains: HashMap<Host, usize>,
}

impl Backlog {
    /// Counts a message from a sender in `host`. Returns false when it is over the limit.
    pub(super) fn take(&mut self, host: &Host, octets: u64) -> bool {
        let of_domain = self.domains.get(host).copied().unwrap_or_default();
        // One message alone may be of any size.
        let is_large = self.messages > 0 && self.octets.saturating_add(octets) > OCTETS_MAX;
        if self.messages >= MESSAGES_MAX || of_domain >= OF_DOMAIN_MAX || is_large {
            return false;
        }
        self.messages += 1;
        self.octets = self.octets.saturating_add(octets);
        self.domains.insert(host.clone(), of_domain + 1);
        true
    }

    /// Gives back the place of a counted message.
    pub(super) fn give_back(&mut self, host: &Host, octets: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.octets = self.octets.saturating_sub(octets);
        if let Some(of_domain) = self.domains.get_mut(host) {
            *of_domain = of_domain.saturating_sub(1);
            if *of_domain == 0 {
                self.domains.remove(host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::Domain;

    fn host(number: usize) -> Host {
        Host::Domain(Domain::parse(&format!("d{number}.example")).expect("valid"))
    }

    #[test]
    fn messages_are_limited_in_all_and_for_each_domain() {
        let mut backlog = Backlog::default();
        let of_one = (0..2 * OF_DOMAIN_MAX)
            .filter(|_| backlog.take(&host(0), 10))
            .count();
        assert_eq!(of_one, OF_DOMAIN_MAX);
        let of_others = (0..2 * MESSAGES_MAX)
            .filter(|number| backlog.take(&host(1 + number), 10))
            .count();
        assert_eq!(of_others, MESSAGES_MAX - OF_DOMAIN_MAX);
        backlog.give_back(&host(1), 10);
        assert!(
            !backlog.take(&host(0), 10)
                && backlog.take(&host(1), 10)
                && !backlog.take(&host(2), 10)
        );
    }

    #[test]
    fn octets_are_limited_and_given_back() {
        let mut backlog = Backlog::default();
        assert!(
            backlog.take(&host(0), 2 * OCTETS_MAX),
            "one may be of any size"
        );
        assert!(!backlog.take(&host(1), 0));
        backlog.give_back(&host(0), 2 * OCTETS_MAX);
        assert!(
            backlog.take(&host(0), OCTETS_MAX)
                && !backlog.take(&host(1), 1)
                && backlog.take(&host(1), 0)
        );
        backlog.give_back(&host(0), OCTETS_MAX);
        backlog.give_back(&host(1), 0);
        assert_eq!(
            (backlog.messages, backlog.octets, backlog.domains.len()),
            (0, 0, 0)
        );
    }
}
