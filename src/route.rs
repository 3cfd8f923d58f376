//! DNS: from a recipient domain and its connector's route to hops, and from a hop to addresses.
//!
//! RFC 5321 §5 (MX, implicit MX, our own name), RFC 7505 (null MX), RFC 6761 §6.3 (localhost). It
//! opens no connection and judges no TLS; published TLS policies are looked up elsewhere. Names are
//! always complete: neither a search list nor the hosts file has a say in where mail goes.

mod lookup;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::address::{Domain, Host};
use crate::config::{Config, Route};
use crate::outcome::{Failure, Scope};
use crate::smtp::reply::Status;
use lookup::{Dns, MxAnswer};

/// Hosts of one destination, at most: whoever publishes more does not make us dial for hours.
const HOPS_MAX: usize = 20;
/// Addresses of one host, at most.
const ADDRESSES_MAX: usize = 10;

/// Why there can be no router.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The system's resolver configuration cannot be used.
    #[error("/etc/resolv.conf cannot be used ({0}); correct it, or name servers in [dns] servers")]
    SystemConfiguration(String),
    /// The resolver cannot be set up.
    #[error("the DNS resolver cannot be set up: {0}")]
    Resolver(String),
}

/// One host that may take the mail of a destination. Its addresses are looked up only when it is its
/// turn, with [`Router::addresses`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Its name, for SNI, certificates and the record; or its address where it has no name.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
    /// How it came to be a hop.
    pub origin: Origin,
}

/// How a host came to be a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An MX record names it.
    Mx {
        /// The record's preference; lower is better.
        preference: u16,
    },
    /// It is the recipient domain itself, which has no MX record (RFC 5321 §5.1).
    ImplicitMx,
    /// The recipient's address literal (RFC 5321 §4.1.3).
    Literal,
    /// The connector's route names it.
    SmartHost,
}

impl Hop {
    /// The host where the connector's route names it; `None` where the recipient domain led here.
    #[must_use]
    pub fn smart_host(&self) -> Option<&Host> {
        match self.origin {
            Origin::SmartHost => Some(&self.host),
            Origin::Mx { .. } | Origin::ImplicitMx | Origin::Literal => None,
        }
    }

    /// Whether two hops of one destination are equally good, so that their order means nothing.
    #[must_use]
    pub fn is_as_good_as(&self, other: &Self) -> bool {
        match (self.origin, other.origin) {
            (Origin::Mx { preference: one }, Origin::Mx { preference: two }) => one == two,
            _ => self == other,
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Finds hops and their addresses. Answers are cached for as long as DNS says.
pub struct Router {
    dns: Dns,
    hostname: Domain,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

impl Router {
    /// Makes a router that asks `[dns] servers`, or the servers of /etc/resolv.conf where there are
    /// none. Nothing is asked yet.
    ///
    /// # Errors
    /// [`RouteError`], where /etc/resolv.conf is needed and unusable.
    pub fn new(config: &Config) -> Result<Self, RouteError> {
        Ok(Self {
            dns: Dns::new(&config.dns.servers.iter().map(|server| server.value).collect::<Vec<_>>())?,
            hostname: config.hostname.clone(),
        })
    }

    /// The hops for a destination, best first; never an empty list.
    ///
    /// # Errors
    /// A [`Failure`] of the destination: 5.1.10 for a null MX, 5.1.2 for a domain that does not
    /// exist, 5.4.6 where mail would come back to us, 4.4.3 where DNS gave no answer.
    pub async fn hops(&self, recipient: &Host, route: &Route) -> Result<Vec<Hop>, Failure> {
        match (route, recipient) {
            (Route::SmartHosts(hosts), _) => {
                let hop = |host: &crate::config::SmartHost| Hop {
                    host: host.host.clone(),
                    port: host.port,
                    origin: Origin::SmartHost,
                };
                Ok(hosts.iter().map(hop).collect())
            }
            (Route::Mx { port }, Host::Literal(_)) => {
                Ok(vec![Hop { host: recipient.clone(), port: *port, origin: Origin::Literal }])
            }
            (Route::Mx { port }, Host::Domain(domain)) => self.mx_hops(domain, *port).await,
        }
    }

    async fn mx_hops(&self, domain: &Domain, port: u16) -> Result<Vec<Hop>, Failure> {
        let destination = Scope::Destination;
        let records = match self.dns.mx(domain).await {
            MxAnswer::Records(records) => records,
            MxAnswer::None => {
                if *domain == self.hostname {
                    return Err(loops_back(domain));
                }
                let host = Host::Domain(domain.clone());
                return Ok(vec![Hop { host, port, origin: Origin::ImplicitMx }]);
            }
            MxAnswer::Null => {
                let text = format!("{domain} accepts no mail (it publishes a null MX record, RFC 7505)");
                return Err(Failure::permanent(destination, Status(1, 10), text));
            }
            MxAnswer::NoDomain => {
                let text = format!("the domain {domain} does not exist");
                return Err(Failure::permanent(destination, Status(1, 2), text));
            }
            MxAnswer::Unusable => {
                let text = format!("no MX record of {domain} names a valid host");
                return Err(Failure::transient(destination, Status(4, 4), text));
            }
            MxAnswer::Failed(fault) => {
                let text = format!("the MX lookup for {domain} failed: {fault}");
                return Err(Failure::transient(destination, Status(4, 3), text));
            }
        };
        let chosen = in_order(records, &self.hostname);
        if chosen.is_empty() {
            return Err(loops_back(domain));
        }
        let hop = |(preference, name)| Hop { host: Host::Domain(name), port, origin: Origin::Mx { preference } };
        Ok(chosen.into_iter().map(hop).collect())
    }

    /// The addresses of a hop, IPv6 and IPv4 by turns; never an empty list.
    ///
    /// # Errors
    /// A [`Failure`] of this hop alone. Only where the hop is the recipient domain itself, and that
    /// has no address either, the failure is the destination's: 5.4.4.
    pub async fn addresses(&self, hop: &Hop) -> Result<Vec<SocketAddr>, Failure> {
        let name = match &hop.host {
            Host::Literal(address) => return Ok(vec![SocketAddr::new(*address, hop.port)]),
            Host::Domain(name) => name,
        };
        let at_port = |addresses: Vec<IpAddr>| addresses.into_iter().map(|ip| SocketAddr::new(ip, hop.port)).collect();
        if is_localhost(name) {
            return Ok(at_port(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
        }
        let (six, four) = tokio::join!(self.dns.ipv6(name), self.dns.ipv4(name));
        let fault = six.as_ref().err().or(four.as_ref().err()).cloned();
        let addresses = by_turns(six.unwrap_or_default(), four.unwrap_or_default());
        match (addresses.is_empty(), fault) {
            (false, _) => Ok(at_port(addresses)),
            (true, Some(fault)) => {
                let text = format!("the address lookup for {name} failed: {fault}");
                Err(Failure::transient(Scope::Hop, Status(4, 3), text))
            }
            (true, None) if hop.origin == Origin::ImplicitMx => {
                let text = format!("the domain {name} has neither MX nor address records");
                Err(Failure::permanent(Scope::Destination, Status(4, 4), text))
            }
            (true, None) => {
                Err(Failure::permanent(Scope::Hop, Status(4, 4), format!("the host {name} has no address")))
            }
        }
    }
}

fn loops_back(domain: &Domain) -> Failure {
    Failure::permanent(Scope::Destination, Status(4, 6), format!("mail for {domain} loops back to myself"))
}

/// RFC 6761 §6.3: such names mean this host, and DNS must not be asked about them.
fn is_localhost(name: &Domain) -> bool {
    name.as_str() == "localhost" || name.as_str().ends_with(".localhost")
}

/// MX records in the order in which they are tried: best preference first, equals in random order,
/// ourselves and everything not better than ourselves left out (RFC 5321 §5.1).
fn in_order(mut records: Vec<(u16, Domain)>, ourselves: &Domain) -> Vec<(u16, Domain)> {
    if let Some(ours) = records.iter().filter(|(_, name)| name == ourselves).map(|(preference, _)| *preference).min() {
        records.retain(|(preference, _)| *preference < ours);
    }
    let mut dice: Vec<(u64, (u16, Domain))> = records.into_iter().map(|record| (random(), record)).collect();
    dice.sort_by(|(my_throw, (mine, _)), (your_throw, (yours, _))| match mine.cmp(yours) {
        Ordering::Equal => my_throw.cmp(your_throw),
        order => order,
    });
    let mut chosen: Vec<(u16, Domain)> = Vec::with_capacity(dice.len().min(HOPS_MAX));
    for (_, record) in dice {
        if chosen.len() == HOPS_MAX {
            break;
        }
        // The same host twice would be dialled twice.
        if chosen.iter().all(|(_, name)| *name != record.1) {
            chosen.push(record);
        }
    }
    chosen
}

/// A number that spreads load; nothing secret hangs on it. Each `RandomState` has keys of its own.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn by_turns(six: Vec<IpAddr>, four: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut addresses = Vec::new();
    while addresses.len() < ADDRESSES_MAX {
        let (next_six, next_four) = (six.next(), four.next());
        if next_six.is_none() && next_four.is_none() {
            break;
        }
        addresses.extend(next_six);
        addresses.extend(next_four);
    }
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(list: &[(u16, &str)]) -> Vec<(u16, Domain)> {
        list.iter().map(|(preference, name)| (*preference, Domain::parse(name).expect("a domain"))).collect()
    }

    #[test]
    fn ourselves_and_what_is_not_better_is_left_out() {
        let us = Domain::parse("us.example").expect("a domain");
        let all = records(&[(20, "us.example"), (10, "a.example"), (20, "b.example"), (30, "c.example")]);
        assert_eq!(in_order(all, &us), records(&[(10, "a.example")]));
        assert!(in_order(records(&[(5, "us.example"), (5, "a.example")]), &us).is_empty());
    }

    #[test]
    fn equals_are_shuffled_and_the_rest_is_sorted() {
        let us = Domain::parse("us.example").expect("a domain");
        let all = records(&[(20, "z.example"), (10, "a.example"), (10, "b.example"), (10, "a.example")]);
        let firsts: std::collections::HashSet<String> =
            (0..200).map(|_| in_order(all.clone(), &us)[0].1.to_string()).collect();
        assert_eq!(firsts.len(), 2, "both of the equals come first at times: {firsts:?}");
        let order = in_order(all, &us);
        assert_eq!((order.len(), order[2].0), (3, 20));
    }

    #[test]
    fn hosts_and_addresses_are_bounded() {
        let us = Domain::parse("us.example").expect("a domain");
        let many: Vec<(u16, Domain)> =
            (0..100).map(|n| (n, Domain::parse(&format!("m{n}.example")).expect("a domain"))).collect();
        assert_eq!(in_order(many, &us).len(), HOPS_MAX);
        let four = vec![IpAddr::from(Ipv4Addr::LOCALHOST); 50];
        let six = vec![IpAddr::from(Ipv6Addr::LOCALHOST); 2];
        let addresses = by_turns(six, four);
        assert_eq!(addresses.len(), ADDRESSES_MAX);
        assert_eq!(
            addresses.iter().map(IpAddr::is_ipv6).take(5).collect::<Vec<_>>(),
            [true, false, true, false, false]
        );
    }
}
