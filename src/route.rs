//! DNS: from a recipient domain and its connector's route to hops, and from a hop to addresses.
//!
//! RFC 5321 §5 (MX, implicit MX, our own name), RFC 7505 (null MX), RFC 6761 §6.3 (localhost). It
//! opens no connection and judges no TLS; published TLS policies are looked up elsewhere. Names are
//! always complete: neither a search list nor the hosts file has a say in where mail goes.

mod own_addresses;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::address::{Domain, Host};
use crate::config::{Config, Route};
use crate::dns::{AnswerRecords, CnameChain, Dns, Exchange, LookupError, Mx};
use crate::failure::{Failure, Scope};
use crate::smtp::reply::Status;
use own_addresses::OwnAddresses;

/// Hosts of one destination, at most: whoever publishes more does not make us dial for hours.
const HOPS_MAX: usize = 20;
/// Addresses of one host, at most.
const ADDRESSES_MAX: usize = 10;

/// The hops of a destination, and how far the way to them can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hops {
    /// The hops, best first; never empty.
    pub hops: Vec<Hop>,
    /// What led to them.
    pub basis: RouteBasis,
}

impl Hops {
    /// The failure of a hop that is at one of our own addresses. Where DNS names no better or equal one, mail for the
    /// destination would come back for ever; otherwise it waits for the better ones (RFC 5321 §5.1).
    #[must_use]
    pub fn own_address_failure(&self, hop: &Hop, address: SocketAddr, destination: &Host) -> Failure {
        let how = format!("the address {address} of {} is one of our own", hop.host);
        let (better, others) = self.hops.split_at(self.hops.iter().position(|other| other == hop).unwrap_or(0));
        if !better.is_empty() || others.iter().skip(1).any(|other| other.has_same_preference(hop)) {
            return Failure::ourselves(how);
        }
        let text = format!("mail for {destination} loops back to myself: {how}");
        Failure::permanent(Scope::Destination, Status(4, 6), text)
    }
}

/// What led from a destination to its hops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteBasis {
    /// MX records: their security with that of the CNAMEs before them, and the name that has them
    /// (RFC 7672 §2.2.1).
    Mx(CnameChain),
    /// The destination has no MX record, and is its own host: how far that denial can be believed.
    NoMx(CnameChain),
    /// The connector's route, or an address: DNS had no say.
    Configured,
}

impl RouteBasis {
    /// Whether nobody but the destination itself, or our own configuration, can have named the hops. A host
    /// that an insecure MX record names may be anybody's.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        match self {
            Self::Mx(chain) => chain.security.is_secure(),
            Self::NoMx(_) | Self::Configured => true,
        }
    }
}

/// The addresses of a hop, and how far they can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// IPv6 and IPv4 by turns; never empty.
    pub addresses: Vec<SocketAddr>,
    /// What DNSSEC says of them; [`None`] where DNS was not asked: for addresses, and for `localhost`.
    pub chain: Option<CnameChain>,
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
    pub origin: HopOrigin,
}

/// How a host came to be a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopOrigin {
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
            HopOrigin::SmartHost => Some(&self.host),
            HopOrigin::Mx { .. } | HopOrigin::ImplicitMx | HopOrigin::Literal => None,
        }
    }

    /// Whether two hops of one destination are equally good, so that their order means nothing.
    #[must_use]
    pub fn has_same_preference(&self, other: &Self) -> bool {
        match (self.origin, other.origin) {
            (HopOrigin::Mx { preference: one }, HopOrigin::Mx { preference: two }) => one == two,
            _ => self == other,
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Finds hops and their addresses.
pub struct Router {
    dns: Dns,
    hostname: Domain,
    own_addresses: OwnAddresses,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

impl Router {
    /// Makes a router. Nothing is asked yet.
    #[must_use]
    pub fn new(config: &Config, dns: Dns) -> Self {
        Self { dns, hostname: config.hostname.clone(), own_addresses: OwnAddresses::new(config) }
    }

    /// The resolver that is asked.
    #[must_use]
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Whether one of our own listeners answers at an address.
    #[must_use]
    pub fn is_own_address(&self, address: SocketAddr) -> bool {
        self.own_addresses.contains(address)
    }

    /// The hops for a destination.
    ///
    /// # Errors
    /// A [`Failure`] of the destination: 5.1.10 for a null MX, 5.1.2 for a domain that does not
    /// exist, 5.4.6 where mail would come back to us, 4.4.3 where DNS gave no answer, 4.7.5 where its
    /// answer failed DNSSEC validation (RFC 7672 §2.2.1: mail waits).
    pub async fn hops(&self, recipient: &Host, route: &Route) -> Result<Hops, Failure> {
        match (route, recipient) {
            (Route::SmartHosts(hosts), _) => {
                let hop = |host: &crate::config::SmartHost| Hop {
                    host: host.host.clone(),
                    port: host.port,
                    origin: HopOrigin::SmartHost,
                };
                Ok(Hops { hops: hosts.iter().map(hop).collect(), basis: RouteBasis::Configured })
            }
            (Route::Mx { port }, Host::Literal(_)) => {
                let hop = Hop { host: recipient.clone(), port: *port, origin: HopOrigin::Literal };
                Ok(Hops { hops: vec![hop], basis: RouteBasis::Configured })
            }
            (Route::Mx { port }, Host::Domain(domain)) => self.mx_hops(domain, *port).await,
        }
    }

    async fn mx_hops(&self, domain: &Domain, port: u16) -> Result<Hops, Failure> {
        let destination = Scope::Destination;
        let answer = self.dns.mx(domain).await.map_err(|fault| {
            let text = format!("the MX lookup for {domain} failed: {fault}");
            Failure::transient(destination, lookup_status(&fault), text)
        })?;
        let records = match &answer.found {
            AnswerRecords::Records(records) => mx_hosts(domain, records)?,
            AnswerRecords::NoData if *domain == self.hostname => return Err(mail_loop(domain)),
            AnswerRecords::NoData => {
                let hop = Hop { host: Host::Domain(domain.clone()), port, origin: HopOrigin::ImplicitMx };
                return Ok(Hops { hops: vec![hop], basis: RouteBasis::NoMx(answer.into()) });
            }
            AnswerRecords::NoDomain => {
                let text = format!("the domain {domain} does not exist");
                return Err(Failure::permanent(destination, Status(1, 2), text));
            }
        };
        let chosen = sort_by_preference(records, &self.hostname);
        if chosen.is_empty() {
            return Err(mail_loop(domain));
        }
        let hop = |(preference, name)| Hop { host: Host::Domain(name), port, origin: HopOrigin::Mx { preference } };
        Ok(Hops { hops: chosen.into_iter().map(hop).collect(), basis: RouteBasis::Mx(answer.into()) })
    }

    /// The addresses of a hop.
    ///
    /// # Errors
    /// A [`Failure`] of this hop alone. Only where the hop is the recipient domain itself, and that
    /// has no address either, the failure is the destination's: 5.4.4.
    pub async fn addresses(&self, hop: &Hop) -> Result<Addresses, Failure> {
        let at_port = |addresses: &[IpAddr], chain| {
            let addresses = addresses.iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(*ip, hop.port)).collect();
            Ok(Addresses { addresses, chain })
        };
        let name = match &hop.host {
            Host::Literal(address) => return at_port(&[*address], None),
            Host::Domain(name) => name,
        };
        if is_localhost(name) {
            return at_port(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], None);
        }
        match self.dns.addresses(name).await {
            Ok(answer) if !answer.records().is_empty() => {
                let chain = CnameChain::from(answer.clone());
                at_port(answer.records(), Some(chain))
            }
            Ok(_) if hop.origin == HopOrigin::ImplicitMx => {
                let text = format!("the domain {name} has neither MX nor address records");
                Err(Failure::permanent(Scope::Destination, Status(4, 4), text))
            }
            Ok(_) => Err(Failure::permanent(Scope::Hop, Status(4, 4), format!("the host {name} has no address"))),
            Err(fault) => {
                let text = format!("the address lookup for {name} failed: {fault}");
                Err(Failure::transient(Scope::Hop, lookup_status(&fault), text))
            }
        }
    }
}

/// What an enhanced status makes of a lookup that failed.
fn lookup_status(fault: &LookupError) -> Status {
    match fault {
        LookupError::Bogus(_) => Status(7, 5),
        LookupError::Server(_) | LookupError::Timeout => Status(4, 3),
    }
}

/// The hosts that MX records name; at least one.
fn mx_hosts(domain: &Domain, records: &[Mx]) -> Result<Vec<(u16, Domain)>, Failure> {
    let mut hosts = Vec::with_capacity(records.len());
    let mut null = false;
    for record in records {
        match &record.exchange {
            Exchange::Host(host) => hosts.push((record.preference, host.clone())),
            Exchange::Null => null = true,
            Exchange::NotAHost(name) => tracing::debug!(%domain, %name, "MX record does not name a host"),
        }
    }
    match (hosts.is_empty(), null) {
        (false, _) => Ok(hosts),
        (true, true) => {
            let text = format!("{domain} accepts no mail (it publishes a null MX record, RFC 7505)");
            Err(Failure::permanent(Scope::Destination, Status(1, 10), text))
        }
        (true, false) => {
            let text = format!("no MX record of {domain} names a valid host");
            Err(Failure::transient(Scope::Destination, Status(4, 4), text))
        }
    }
}

fn mail_loop(domain: &Domain) -> Failure {
    Failure::permanent(Scope::Destination, Status(4, 6), format!("mail for {domain} loops back to myself"))
}

/// RFC 6761 §6.3: such names mean this host, and DNS must not be asked about them.
fn is_localhost(name: &Domain) -> bool {
    name.as_str() == "localhost" || name.as_str().ends_with(".localhost")
}

/// MX records in the order in which they are tried: best preference first, equals in random order,
/// ourselves and everything not better than ourselves left out (RFC 5321 §5.1).
fn sort_by_preference(mut records: Vec<(u16, Domain)>, ourselves: &Domain) -> Vec<(u16, Domain)> {
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
        assert_eq!(sort_by_preference(all, &us), records(&[(10, "a.example")]));
        assert!(sort_by_preference(records(&[(5, "us.example"), (5, "a.example")]), &us).is_empty());
    }

    #[test]
    fn equals_are_shuffled_and_the_rest_is_sorted() {
        let us = Domain::parse("us.example").expect("a domain");
        let all = records(&[(20, "z.example"), (10, "a.example"), (10, "b.example"), (10, "a.example")]);
        let firsts: std::collections::HashSet<String> =
            (0..200).map(|_| sort_by_preference(all.clone(), &us)[0].1.to_string()).collect();
        assert_eq!(firsts.len(), 2, "both of the equals come first at times: {firsts:?}");
        let order = sort_by_preference(all, &us);
        assert_eq!((order.len(), order[2].0), (3, 20));
    }

    #[test]
    fn hosts_are_bounded() {
        let us = Domain::parse("us.example").expect("a domain");
        let many: Vec<(u16, Domain)> =
            (0..100).map(|n| (n, Domain::parse(&format!("m{n}.example")).expect("a domain"))).collect();
        assert_eq!(sort_by_preference(many, &us).len(), HOPS_MAX);
    }
}
