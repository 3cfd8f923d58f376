//! The world that a seed makes: destinations, the policy that each is held to, and what is wrong
//! with each.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::seed::{Seed, chance, one_of};

/// The TLS that a host offers; its certificate decides which policies it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    SelfSigned,
    /// An authority that nobody trusts.
    Foreign,
    /// A trusted authority, and the name of somebody else.
    WrongName,
    Good,
}

/// The demand on connections to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Off,
    Opportunistic,
    Encrypted,
    Chain,
    Name,
    Pin,
    /// The domain publishes TLSA records, and no connector speaks for it.
    Published,
    /// The connector demands DANE.
    Dane,
    /// The TLSA records are secure, and none can be used.
    Unusable,
    /// Forced, with an exception that holds.
    Excepted,
    /// Opportunistic, until the host has taken TLS: a downgrade is refused from then on.
    Remembered,
}

impl Policy {
    /// Returns true if mail may go over a session in which the host showed this (`None`: no TLS).
    /// This is the policy table once more, written independently of the code.
    pub(crate) fn admits(self, shown: Option<Shown>) -> bool {
        match self {
            Self::Off => shown.is_none(),
            Self::Opportunistic | Self::Excepted | Self::Remembered => true,
            Self::Encrypted | Self::Unusable => shown.is_some(),
            Self::Chain => matches!(shown, Some(Shown::Good | Shown::WrongName)),
            Self::Name | Self::Pin | Self::Published | Self::Dane => shown == Some(Shown::Good),
        }
    }

    /// Returns true if a host that shows this while nothing is wrong gets the mail: `off` accepts
    /// whatever is offered.
    fn fits(self, shown: Option<Shown>) -> bool {
        self == Self::Off || self.admits(shown)
    }

    /// Returns true if the domain has made the demand, and not a connector: `TLS-Required: No`
    /// in a message sets it aside (RFC 8689).
    pub(crate) fn is_published(self) -> bool {
        matches!(self, Self::Published | Self::Unusable)
    }

    fn is_discovered(self) -> bool {
        matches!(self, Self::Opportunistic | Self::Published | Self::Unusable)
    }

    fn signs(self) -> bool {
        matches!(self, Self::Published | Self::Unusable | Self::Dane)
    }
}

/// A moment of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Greeting,
    Ehlo,
    Starttls,
    Mail,
    Rcpt,
    Data,
    Content,
    Dot,
}

/// The fault of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Healthy,
    /// Every other connection has trouble, each its own.
    Flaky,
    /// Trouble for so many connections, then none.
    Recovers(u64),
    /// No trouble for so many connections, then always.
    Worsens(u64),
    Dead(Dead),
}

/// A fault that never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dead {
    /// Nobody listens.
    Refuses,
    /// The system accepts the connection, and then nobody does.
    Hangs,
    /// It falls silent, always at the same point.
    Silent(Point),
    /// 4xx, always at the same point.
    Defers(Point),
    /// 5xx, always at the same point.
    Rejects(Point),
    /// Its TLS never meets the policy.
    Weak,
    NoSuchName,
    NullMx,
    /// The resolver has a failure to report, always.
    ServFail,
    /// The resolver says nothing, ever.
    Unheard,
    /// Its zone is signed, and the signatures are over.
    Bogus,
}

/// The resolver's treatment of questions about a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    Good,
    /// It delays, loses, fails and lies.
    Flaky,
    Dead(Dead),
}

/// A domain that mail is sent to.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) domain: String,
    pub(crate) policy: Policy,
    pub(crate) on_failure: &'static str,
    pub(crate) names: Names,
    /// Its hosts, the best first.
    pub(crate) sites: Vec<usize>,
    /// The route is the address of the host, not MX records.
    pub(crate) by_address: bool,
    pub(crate) is_healthy: bool,
    /// Some host of it says 5xx, or its name does not exist: it may bounce before its time.
    pub(crate) may_reject: bool,
}

/// A host.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) health: Health,
    /// The TLS that it offers while nothing is wrong.
    pub(crate) shown: Option<Shown>,
    pub(crate) pipelining: bool,
    pub(crate) only_tls12: bool,
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) seed: Seed,
    pub(crate) destinations: Vec<Destination>,
    pub(crate) sites: Vec<Site>,
}

/// The last site: where lies of the resolver lead to.
pub(crate) const TRAP: &str = "trap.invalid";
/// The domain of the sender, which takes all reports.
pub(crate) const HOME: &str = "sender.example";

impl World {
    pub(crate) fn new(seed: Seed, count: usize) -> Self {
        let mut world = Self {
            seed,
            destinations: Vec::new(),
            sites: Vec::new(),
        };
        for at in 0..count {
            world.add(at);
        }
        world.site("mx.sender.example", Health::Healthy, None);
        world.site(TRAP, Health::Healthy, Some(Shown::SelfSigned));
        world
    }

    /// The host that the sender's reports go to.
    pub(crate) fn home(&self) -> usize {
        self.sites.len() - 2
    }

    pub(crate) fn trap(&self) -> &Site {
        &self.sites[self.sites.len() - 1]
    }

    pub(crate) fn of(&self, recipient: &str) -> Option<&Destination> {
        let domain = recipient.rsplit('@').next()?;
        self.destinations
            .iter()
            .find(|destination| destination.domain == domain)
    }

    /// Every policy that mail through a host is held to.
    pub(crate) fn policies(&self, site: usize) -> impl Iterator<Item = Policy> {
        self.destinations
            .iter()
            .filter(move |one| one.sites.contains(&site))
            .map(|one| one.policy)
    }

    fn site(&mut self, name: &str, health: Health, shown: Option<Shown>) -> usize {
        let mut dice = self.seed.dice(&format!("site/{name}"));
        let number = u32::try_from(self.sites.len()).expect("few");
        self.sites.push(Site {
            name: name.to_owned(),
            // 127.20.0.1 and above: each host has the same port at an address of its own.
            address: Ipv4Addr::from_bits(0x7f14_0001 + number),
            health,
            shown,
            pipelining: chance(&mut dice, 70),
            only_tls12: chance(&mut dice, 25),
        });
        self.sites.len() - 1
    }

    fn add(&mut self, at: usize) {
        let domain = format!("d{at}.example");
        let dice = &mut self.seed.dice(&format!("destination/{at}"));
        // Every world has the most important kinds of both.
        let health = match at % 5 {
            0 | 1 => Health::Healthy,
            2 => Health::Flaky,
            3 => one_of(
                dice,
                &[Health::Recovers(6), Health::Worsens(6), Health::Flaky],
            ),
            _ => Health::Dead(dead(dice)),
        };
        let mut policy = one_of(dice, &POLICIES);
        if health == Health::Dead(Dead::Weak) && policy.admits(None) {
            policy = one_of(
                dice,
                &[
                    Policy::Encrypted,
                    Policy::Name,
                    Policy::Published,
                    Policy::Pin,
                ],
            );
        }
        let names = match health {
            Health::Dead(
                dead @ (Dead::NoSuchName
                | Dead::NullMx
                | Dead::ServFail
                | Dead::Unheard
                | Dead::Bogus),
            ) => Names::Dead(dead),
            Health::Flaky if chance(dice, 50) => Names::Flaky,
            _ => Names::Good,
        };
        let mut destination = Destination {
            domain,
            policy,
            on_failure: one_of(dice, &["defer", "defer", "defer", "hold", "bounce"]),
            by_address: names == Names::Good
                && !policy.signs()
                && policy != Policy::Opportunistic
                && chance(dice, 50),
            names,
            sites: Vec::new(),
            is_healthy: false,
            may_reject: false,
        };
        destination.sites = self.hosts(&destination, health, dice);
        let healths: Vec<_> = destination
            .sites
            .iter()
            .map(|site| self.sites[*site].health)
            .collect();
        let is_healthy =
            names == Names::Good && healths.iter().all(|health| *health == Health::Healthy);
        let may_reject = matches!(names, Names::Dead(Dead::NoSuchName | Dead::NullMx))
            || healths.iter().any(|health| match health {
                Health::Healthy => false,
                Health::Dead(dead) => !dead.is_patient(),
                Health::Flaky | Health::Recovers(_) | Health::Worsens(_) => true,
            });
        (destination.is_healthy, destination.may_reject) = (is_healthy, may_reject);
        self.destinations.push(destination);
    }

    /// The hosts of a destination: one of its own, two, or the host of another one.
    fn hosts(
        &mut self,
        of: &Destination,
        health: Health,
        dice: &mut crate::support::Dice,
    ) -> Vec<usize> {
        let shared = self.destinations.last().filter(|last| {
            let fits = |site: &usize| of.policy.fits(self.sites[*site].shown);
            of.by_address && last.by_address && last.sites.len() == 1 && last.sites.iter().all(fits)
        });
        if let Some(last) =
            shared.filter(|last| last.is_healthy == (health == Health::Healthy) && chance(dice, 60))
        {
            return last.sites.clone();
        }
        let all = [
            Some(Shown::Good),
            Some(Shown::WrongName),
            Some(Shown::Foreign),
            Some(Shown::SelfSigned),
            None,
        ];
        let weak = health == Health::Dead(Dead::Weak);
        let fitting: Vec<_> = all
            .into_iter()
            .filter(|shown| of.policy.fits(*shown) != weak)
            .collect();
        let two =
            !of.by_address && matches!(health, Health::Healthy | Health::Flaky) && chance(dice, 30);
        (1..=1 + u8::from(two))
            .map(|number| {
                let shown = one_of(dice, &fitting);
                self.site(&format!("mx{number}.{}", of.domain), health, shown)
            })
            .collect()
    }

    /// The connectors, with the port that all hosts have in common and the pin of each host's good
    /// key.
    pub(crate) fn connectors(&self, port: u16, pin: impl Fn(usize) -> String) -> String {
        let home = self.sites[self.home()].address;
        let mut text = format!(
            "[[connector]]\nname = \"internet\"\ndomains = [\"*\"]\n[connector.outbound]\nroute = \"mx\"\nport = {port}\n\
             tls = \"opportunistic\"\n[[connector]]\nname = \"home\"\ndomains = [\"{HOME}\", \"example.com\"]\n\
             [connector.outbound]\nroute = [\"{home}:{port}\"]\ntls = \"off\"\n"
        );
        for one in self
            .destinations
            .iter()
            .filter(|one| !one.policy.is_discovered())
        {
            let domain = &one.domain;
            let names: Vec<_> = one
                .sites
                .iter()
                .map(|site| &self.sites[*site].name)
                .collect();
            let _ = write!(
                text,
                "[[connector]]\nname = \"{domain}\"\ndomains = [\"{domain}\"]\n"
            );
            let _ = match one.policy {
                Policy::Name => writeln!(text, "names = {names:?}"),
                Policy::Pin => {
                    writeln!(
                        text,
                        "pins = {:?}",
                        one.sites.iter().map(|site| pin(*site)).collect::<Vec<_>>()
                    )
                }
                _ => Ok(()),
            };
            let route = if one.by_address {
                format!("[\"{}:{port}\"]", self.sites[one.sites[0]].address)
            } else {
                format!("\"mx\"\nport = {port}")
            };
            let _ = writeln!(
                text,
                "[connector.outbound]\nroute = {route}\n{}",
                one.policy.lines(one.on_failure)
            );
        }
        text
    }

    /// The records of each zone, with the digest of each host's good certificate as its TLSA
    /// records have it.
    pub(crate) fn zones(
        &self,
        port: u16,
        digest: impl Fn(usize) -> String,
    ) -> Vec<(String, Zone, String)> {
        let wanted = self
            .destinations
            .iter()
            .filter(|one| one.names != Names::Dead(Dead::NoSuchName));
        wanted.map(|one| self.zone(one, port, &digest)).collect()
    }

    fn zone(
        &self,
        one: &Destination,
        port: u16,
        digest: &impl Fn(usize) -> String,
    ) -> (String, Zone, String) {
        let domain = &one.domain;
        let mut records = String::new();
        if one.names == Names::Dead(Dead::NullMx) {
            let _ = writeln!(records, "{domain} MX 0 .");
        }
        for (at, site) in one.sites.iter().enumerate().filter(|_| !one.by_address) {
            let Site { name, address, .. } = &self.sites[*site];
            let _ = writeln!(records, "{name} A {address}");
            if one.names != Names::Dead(Dead::NullMx) {
                let _ = writeln!(records, "{domain} MX {at}0 {name}");
            }
            // A certificate usage that mail does not know (RFC 7672 §3.1.3) cannot be used.
            let usage = if one.policy == Policy::Unusable { 1 } else { 3 };
            if one.policy.signs() {
                let _ = writeln!(
                    records,
                    "_{port}._tcp.{name} TLSA {usage} 0 1 {}",
                    digest(*site)
                );
            }
        }
        let kind = match one.names {
            Names::Dead(Dead::Bogus) => Zone::Expired,
            _ if one.policy.signs() => Zone::Signed,
            _ => Zone::Unsigned,
        };
        (domain.clone(), kind, records)
    }
}

/// The signing of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    Signed,
    Unsigned,
    Expired,
}

const POLICIES: [Policy; 11] = [
    Policy::Off,
    Policy::Opportunistic,
    Policy::Encrypted,
    Policy::Chain,
    Policy::Name,
    Policy::Pin,
    Policy::Published,
    Policy::Dane,
    Policy::Unusable,
    Policy::Excepted,
    Policy::Remembered,
];

impl Policy {
    /// The lines of its connector's outbound table.
    fn lines(self, on_failure: &str) -> String {
        let verify = match self {
            Self::Off => return "tls = \"off\"".to_owned(),
            Self::Remembered => {
                return "tls = \"opportunistic\"\ndowngrade = \"refuse\"".to_owned();
            }
            Self::Excepted => {
                let until = "exception = { tls = \"opportunistic\", until = \"2999-01-31\", reason = \"a test\" }";
                return format!("tls = \"forced\"\n{until}");
            }
            Self::Chain => "chain",
            Self::Name => "name",
            Self::Pin => "pin",
            Self::Dane => "dane",
            Self::Opportunistic | Self::Encrypted | Self::Published | Self::Unusable => "none",
        };
        format!("tls = \"forced\"\nverify = \"{verify}\"\non_failure = \"{on_failure}\"")
    }
}

impl Dead {
    /// Returns true if mail waits for it until it expires, whatever else is tried.
    pub(crate) fn is_patient(self) -> bool {
        !matches!(self, Self::Rejects(_) | Self::NoSuchName | Self::NullMx)
    }
}

fn dead(dice: &mut crate::support::Dice) -> Dead {
    let points = [
        Point::Greeting,
        Point::Ehlo,
        Point::Mail,
        Point::Rcpt,
        Point::Data,
        Point::Dot,
    ];
    let point = one_of(dice, &points);
    let all = [
        Dead::Refuses,
        Dead::Hangs,
        Dead::Silent(point),
        Dead::Silent(Point::Content),
        Dead::Defers(point),
        Dead::Rejects(point),
        Dead::Weak,
        Dead::Weak,
        Dead::NoSuchName,
        Dead::NullMx,
        Dead::ServFail,
        Dead::Unheard,
        Dead::Bogus,
    ];
    one_of(dice, &all)
}
