//! Mail routing: finds the hops of a recipient domain, and the addresses of a hop.
//!
//! Sources: RFC 5321 §5 (MX, implicit MX, our own name), RFC 7505 (null MX), RFC 6761 §6.3
//! (localhost). Routing opens no connection and judges no TLS; TLS policies are looked up in
//! [`crate::discovery`]. Names are always absolute: neither a search list nor the hosts file is
//! consulted.

mod own_addresses;

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Config, HopProtocol, Route};
use crate::net::dns::{AnswerRecords, CnameChain, Dns, Exchange, LookupError, Mx};
use crate::policy::failure::{FailedHost, Failure, HopAddress, Scope};
use crate::smtp::address::{Domain, Host};
use crate::smtp::reply::Status;
use own_addresses::OwnAddresses;

/// The maximum number of hops of one destination.
const HOPS_MAX: usize = 20;
/// The maximum number of addresses of one hop.
const ADDRESSES_MAX: usize = 10;

/// The hops of a destination, and the source they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hops {
    /// The hops in order of preference; never empty.
    pub hops: Vec<Hop>,
    /// The source of the hops.
    pub basis: RouteBasis,
}

impl Hops {
    /// Returns the failure of a hop at one of our own addresses. If MX records name another host of
    /// the same or better preference, mail waits for that host; otherwise it would loop, and the
    /// failure is permanent (RFC 5321 §5.1).
    #[must_use]
    pub fn own_address_failure(
        &self,
        hop: &Hop,
        address: &HopAddress,
        destination: &Host,
    ) -> Failure {
        let how = format!("the address {address} of {} is one of our own", hop.host);
        let (better, others) = self
            .hops
            .split_at(self.hops.iter().position(|other| other == hop).unwrap_or(0));
        if !better.is_empty()
            || others
                .iter()
                .skip(1)
                .any(|other| other.has_same_preference(hop))
        {
            return Failure::ourselves(how);
        }
        let text = format!("mail for {destination} loops back to myself: {how}");
        Failure::permanent(Scope::Destination, Status(4, 6), text)
    }
}

/// The source of the hops of a destination.
// Rule: RFC 5321 §5.1; RFC 7672 §2.2.2; RFC 8689 §4.2.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteBasis {
    /// MX records. The chain leads from the domain to the name that has them (RFC 7672 §2.2.1).
    Mx(CnameChain),
    /// The destination has no MX record and is its own host. The chain leads from the domain to the
    /// name that has no MX record.
    NoMx(CnameChain),
    /// The connector's route or an address literal, without DNS.
    Configured,
}

impl RouteBasis {
    /// Returns true if the hops are named by the destination itself or by our configuration.
    /// Insecure MX records may have been forged and may name any host.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        match self {
            Self::Mx(chain) => chain.security.is_secure(),
            Self::NoMx(_) | Self::Configured => true,
        }
    }
}

/// The addresses of a hop, with their security.
// Rule: RFC 5321 §5.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The addresses, with IPv6 and IPv4 alternating, or a unix socket; never empty.
    pub addresses: Vec<HopAddress>,
    /// The CNAME chain to the addresses; [`None`] if DNS was not queried, as for address literals
    /// and `localhost`.
    pub chain: Option<CnameChain>,
}

/// One host that may accept mail for a destination. Its addresses are looked up when an attempt
/// reaches it, with [`Router::addresses`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The host name, for SNI, certificates and evidence; or an address literal.
    pub host: Host,
    /// The TCP port; 0 for a unix socket.
    pub port: u16,
    /// The protocol.
    pub protocol: HopProtocol,
    /// The source of the hop.
    pub origin: HopOrigin,
}

/// The source of one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopOrigin {
    /// An MX record.
    Mx {
        /// The preference of the record; lower is better.
        preference: u16,
    },
    /// The recipient domain itself, since it has no MX record (RFC 5321 §5.1).
    ImplicitMx,
    /// The address literal of the recipient (RFC 5321 §4.1.3).
    Literal,
    /// The connector's route.
    SmartHost,
}

impl Hop {
    /// Returns the host if it is a smart host of the connector's route; `None` if the recipient's
    /// domain led to it.
    #[must_use]
    pub fn smart_host(&self) -> Option<&Host> {
        match self.origin {
            HopOrigin::SmartHost => Some(&self.host),
            HopOrigin::Mx { .. } | HopOrigin::ImplicitMx | HopOrigin::Literal => None,
        }
    }

    /// Returns true if two hops of one destination have the same preference, so that their order is
    /// arbitrary.
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
        self.protocol.write_server(&self.host, self.port, f)
    }
}

/// Names a hop that was not dialled.
impl From<&Hop> for FailedHost {
    fn from(hop: &Hop) -> Self {
        Self::NotDialled {
            host: hop.host.clone(),
            port: hop.port,
        }
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
        f.debug_struct("Router")
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

impl Router {
    /// Creates a router. It sends no query.
    #[must_use]
    pub fn new(config: &Config, dns: Dns) -> Self {
        Self {
            dns,
            hostname: config.hostname.clone(),
            own_addresses: OwnAddresses::new(config),
        }
    }

    /// Returns the resolver in use.
    #[must_use]
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Returns true if one of our own listeners answers at an address.
    #[must_use]
    pub fn is_own_address(&self, address: &HopAddress) -> bool {
        match address {
            HopAddress::Tcp(address) => self.own_addresses.contains(*address),
            HopAddress::Socket(_) => false,
        }
    }

    /// Finds the hops of a destination.
    ///
    /// # Errors
    /// A [`Failure`] of the destination: 5.1.10 for a null MX, 5.1.2 for a domain that does not
    /// exist, 5.4.6 if mail would loop back to us, 4.4.3 if DNS did not answer, 4.7.5 if the answer
    /// failed DNSSEC validation (RFC 7672 §2.2.1).
    // Rule: RFC 5321 §5.1; RFC 7672 §2.1.2.
    pub async fn hops(&self, recipient: &Host, route: &Route) -> Result<Hops, Failure> {
        match (route, recipient) {
            (Route::SmartHosts(hosts), _) => {
                let hop = |host: &crate::config::SmartHost| Hop {
                    host: host.host.clone(),
                    port: host.port,
                    protocol: host.protocol.clone(),
                    origin: HopOrigin::SmartHost,
                };
                Ok(Hops {
                    hops: hosts.iter().map(hop).collect(),
                    basis: RouteBasis::Configured,
                })
            }
            (Route::Mx { port }, Host::Literal(_)) => {
                let hop = Hop {
                    host: recipient.clone(),
                    port: *port,
                    protocol: HopProtocol::Smtp,
                    origin: HopOrigin::Literal,
                };
                Ok(Hops {
                    hops: vec![hop],
                    basis: RouteBasis::Configured,
                })
            }
            (Route::Mx { port }, Host::Domain(domain)) => self.mx_hops(domain, *port).await,
        }
    }

    // Rule: RFC 5321 §5.1.
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
                let hop = Hop {
                    host: Host::Domain(domain.clone()),
                    port,
                    protocol: HopProtocol::Smtp,
                    origin: HopOrigin::ImplicitMx,
                };
                return Ok(Hops {
                    hops: vec![hop],
                    basis: RouteBasis::NoMx(answer.into()),
                });
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
        let hop = |(preference, name)| Hop {
            host: Host::Domain(name),
            port,
            protocol: HopProtocol::Smtp,
            origin: HopOrigin::Mx { preference },
        };
        Ok(Hops {
            hops: chosen.into_iter().map(hop).collect(),
            basis: RouteBasis::Mx(answer.into()),
        })
    }

    /// Looks up the addresses of a hop.
    ///
    /// # Errors
    /// A [`Failure`] of this hop. If the hop is the recipient domain itself and has no address, the
    /// failure is that of the destination: 5.4.4.
    // Rule: RFC 5321 §5.1.
    pub async fn addresses(&self, hop: &Hop) -> Result<Addresses, Failure> {
        let at_port = |addresses: &[IpAddr], chain| {
            let addresses = addresses
                .iter()
                .take(ADDRESSES_MAX)
                .map(|ip| SocketAddr::new(*ip, hop.port).into())
                .collect();
            Ok(Addresses { addresses, chain })
        };
        if let HopProtocol::LmtpSocket(path) = &hop.protocol {
            return Ok(Addresses {
                addresses: vec![HopAddress::Socket(path.clone())],
                chain: None,
            });
        }
        let name = match &hop.host {
            Host::Literal(address) => return at_port(&[*address], None),
            Host::Domain(name) => name,
        };
        if is_localhost(name) {
            return at_port(
                &[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                None,
            );
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
            Ok(_) => Err(Failure::permanent(
                Scope::Hop,
                Status(4, 4),
                format!("the host {name} has no address"),
            )),
            Err(fault) => {
                let text = format!("the address lookup for {name} failed: {fault}");
                Err(Failure::transient(Scope::Hop, lookup_status(&fault), text))
            }
        }
    }
}

/// Returns the enhanced status of a failed lookup.
// Rule: RFC 5321 §5.1.
fn lookup_status(fault: &LookupError) -> Status {
    match fault {
        LookupError::Bogus(_) => Status(7, 5),
        LookupError::Server(_) | LookupError::Timeout => Status(4, 3),
    }
}

/// Returns the preferences and hosts of MX records; at least one.
fn mx_hosts(domain: &Domain, records: &[Mx]) -> Result<Vec<(u16, Domain)>, Failure> {
    let mut hosts = Vec::with_capacity(records.len());
    let mut null = false;
    for record in records {
        match &record.exchange {
            Exchange::Host(host) => hosts.push((record.preference, host.clone())),
            Exchange::Null => null = true,
            Exchange::NotAHost(name) => {
                tracing::debug!(%domain, %name, "MX record does not name a host");
            }
        }
    }
    match (hosts.is_empty(), null) {
        (false, _) => Ok(hosts),
        (true, true) => {
            let text =
                format!("{domain} accepts no mail (it publishes a null MX record, RFC 7505)");
            Err(Failure::permanent(Scope::Destination, Status(1, 10), text))
        }
        (true, false) => {
            let text = format!("no MX record of {domain} names a valid host");
            Err(Failure::transient(Scope::Destination, Status(4, 4), text))
        }
    }
}

// Rule: RFC 5321 §5.1.
fn mail_loop(domain: &Domain) -> Failure {
    Failure::permanent(
        Scope::Destination,
        Status(4, 6),
        format!("mail for {domain} loops back to myself"),
    )
}

/// Returns true for names of this machine, which must not be looked up in DNS (RFC 6761 §6.3).
fn is_localhost(name: &Domain) -> bool {
    name.as_str() == "localhost" || name.as_str().ends_with(".localhost")
}

/// Sorts MX records by preference, in random order among equals. Leaves out ourselves and all
/// records that are not better than ours (RFC 5321 §5.1).
fn sort_by_preference(mut records: Vec<(u16, Domain)>, ourselves: &Domain) -> Vec<(u16, Domain)> {
    if let Some(ours) = records
        .iter()
        .filter(|(_, name)| name == ourselves)
        .map(|(preference, _)| *preference)
        .min()
    {
        records.retain(|(preference, _)| *preference < ours);
    }
    let mut shuffled: Vec<(u64, (u16, Domain))> = records
        .into_iter()
        .map(|record| (random(), record))
        .collect();
    shuffled.sort_by_key(|(random, (preference, _))| (*preference, *random));
    let mut chosen: Vec<(u16, Domain)> = Vec::with_capacity(shuffled.len().min(HOPS_MAX));
    for (_, record) in shuffled {
        if chosen.len() == HOPS_MAX {
            break;
        }
        // A host is listed once, with its best preference.
        if chosen.iter().all(|(_, name)| *name != record.1) {
            chosen.push(record);
        }
    }
    chosen
}

/// Returns a random number for load balancing; it needs no secrecy. Each `RandomState` has
/// different keys.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(list: &[(u16, &str)]) -> Vec<(u16, Domain)> {
        list.iter()
            .map(|(preference, name)| (*preference, Domain::parse(name).expect("a domain")))
            .collect()
    }

    #[test]
    fn ourselves_and_hosts_that_are_not_better_are_left_out() {
        let us = Domain::parse("us.example").expect("a domain");
        let all = records(&[
            (20, "us.example"),
            (10, "a.example"),
            (20, "b.example"),
            (30, "c.example"),
        ]);
        assert_eq!(sort_by_preference(all, &us), records(&[(10, "a.example")]));
        assert!(
            sort_by_preference(records(&[(5, "us.example"), (5, "a.example")]), &us).is_empty()
        );
    }

    #[test]
    fn equals_are_shuffled_and_the_rest_is_sorted() {
        let us = Domain::parse("us.example").expect("a domain");
        let all = records(&[
            (20, "z.example"),
            (10, "a.example"),
            (10, "b.example"),
            (10, "a.example"),
        ]);
        let firsts: std::collections::HashSet<String> = (0..200)
            .map(|_| sort_by_preference(all.clone(), &us)[0].1.to_string())
            .collect();
        assert_eq!(
            firsts.len(),
            2,
            "both of the equals come first at times: {firsts:?}"
        );
        let order = sort_by_preference(all, &us);
        assert_eq!((order.len(), order[2].0), (3, 20));
    }

    #[test]
    fn hosts_are_bounded() {
        let us = Domain::parse("us.example").expect("a domain");
        let many: Vec<(u16, Domain)> = (0..100)
            .map(|n| {
                (
                    n,
                    Domain::parse(&format!("m{n}.example")).expect("a domain"),
                )
            })
            .collect();
        assert_eq!(sort_by_preference(many, &us).len(), HOPS_MAX);
    }
}
