//! The budget of log lines about clients: a number of lines a minute for each network, and for all
//! networks together. So no client can fill the disk, or hide the lines about other clients among
//! its own.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::networks;

/// The lines of one network in a minute.
const PER_NETWORK: u32 = 100;
/// The lines of all networks of strangers in a minute; the clients in `[relay] networks` have as
/// many.
const PER_GROUP: u32 = 3000;

/// The client that a log line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogClient {
    /// The address of the client.
    pub address: IpAddr,
    /// True if the client is in `[relay] networks`, which has a budget of its own.
    pub is_own: bool,
}

/// The number of lines that were suppressed in a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suppressed {
    /// The network whose budget was exhausted; `None` for the budget of all networks.
    pub(super) network: Option<IpNet>,
    pub(super) is_own: bool,
    pub(super) lines: u64,
}

/// The budgets of the present minute.
#[derive(Debug, Default)]
pub(super) struct LogBudget {
    strangers: Group,
    own: Group,
}

#[derive(Debug, Default)]
struct Group {
    /// The networks that caused a line, at most as many as there are lines.
    networks: HashMap<IpNet, LineCount>,
    all: LineCount,
}

#[derive(Debug, Default)]
struct LineCount {
    written: u32,
    suppressed: u64,
}

impl LogBudget {
    /// Takes one line from the budget and returns whether it may be written. If it may not, it
    /// counts as `lines` suppressed lines.
    pub(super) fn spend(&mut self, client: LogClient, lines: u64) -> bool {
        let group = if client.is_own {
            &mut self.own
        } else {
            &mut self.strangers
        };
        let network = networks::site(client.address);
        let full = match group.networks.get_mut(&network) {
            Some(of_network) if of_network.written >= PER_NETWORK => of_network,
            _ if group.all.written >= PER_GROUP => &mut group.all,
            _ => {
                group.all.written += 1;
                group.networks.entry(network).or_default().written += 1;
                return true;
            }
        };
        full.suppressed = full.suppressed.saturating_add(lines);
        false
    }

    /// Starts the next minute. Returns the suppressed lines of the last one, the largest number
    /// first.
    pub(super) fn next_minute(&mut self) -> Vec<Suppressed> {
        let (strangers, own) = (
            std::mem::take(&mut self.strangers),
            std::mem::take(&mut self.own),
        );
        let of_group = |(group, is_own): (Group, bool)| {
            let networks = group
                .networks
                .into_iter()
                .map(|(network, lines)| (Some(network), lines.suppressed));
            let all = std::iter::once((None, group.all.suppressed));
            all.chain(networks).map(move |(network, lines)| Suppressed {
                network,
                is_own,
                lines,
            })
        };
        let mut suppressed: Vec<_> = [(strangers, false), (own, true)]
            .into_iter()
            .flat_map(of_group)
            .collect();
        suppressed.retain(|suppressed| suppressed.lines > 0);
        suppressed
            .sort_by_key(|suppressed| (std::cmp::Reverse(suppressed.lines), suppressed.network));
        suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str, is_own: bool) -> LogClient {
        LogClient {
            address: address.parse().expect("an address"),
            is_own,
        }
    }

    fn written(budget: &mut LogBudget, address: &str, lines: u32) -> usize {
        (0..lines)
            .filter(|_| budget.spend(client(address, false), 1))
            .count()
    }

    #[test]
    fn a_network_has_a_budget_and_suppressed_lines_are_counted() {
        let mut budget = LogBudget::default();
        // Addresses of one network share a budget; other networks have their own.
        for (address, wanted) in [
            ("192.0.2.1", 70),
            ("192.0.2.2", 30),
            ("192.0.2.3", 0),
            ("::ffff:192.0.2.4", 0),
            ("192.0.3.1", 70),
            ("2001:db8:1:1::1", 70),
            ("2001:db8:1:ff00::1", 30),
            ("2001:db8:2::1", 70),
        ] {
            assert_eq!(written(&mut budget, address, 70), wanted, "{address}");
        }
        let suppressed: Vec<_> = budget
            .next_minute()
            .into_iter()
            .map(|one| (one.network, one.is_own, one.lines))
            .collect();
        let network = |text: &str| Some(text.parse::<IpNet>().expect("a network"));
        assert_eq!(
            suppressed,
            [
                (network("192.0.2.0/24"), false, 180),
                (network("2001:db8:1::/48"), false, 40)
            ]
        );
        assert_eq!(
            written(&mut budget, "192.0.2.3", 101),
            100,
            "the next minute has lines again"
        );
    }

    #[test]
    fn all_networks_share_a_budget_and_own_clients_have_another() {
        let mut budget = LogBudget::default();
        let all: usize = (0..5000)
            .map(|n| written(&mut budget, &format!("10.{}.{}.1", n / 250, n % 250), 1))
            .sum();
        assert_eq!(all, 3000);
        assert_eq!(
            budget.strangers.networks.len(),
            3000,
            "nobody makes it grow"
        );
        assert!(
            budget.spend(client("192.168.0.1", true), 1),
            "strangers use up nothing of ours"
        );
        let wanted = Suppressed {
            network: None,
            is_own: false,
            lines: 2000,
        };
        assert_eq!(
            (budget.next_minute(), budget.next_minute()),
            (vec![wanted], vec![])
        );
    }
}
