//! What is played about domains that say by themselves how they want their mail (DANE, MTA-STS), and about
//! those that took TLS before and have lost it.
//!
//! Each of them is found as in the world: by DNS, with MX records, under a root that signs what is to be
//! signed; policies come over HTTPS. The relay is told nothing of them but a port.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, Query};
use tokio::task::JoinSet;

use super::DemoError;
use super::authority::{Authority, Flaw, Identity};
use super::peer::{Heard, Interceptor, Manner, Peer, submit};
use super::policies::PolicyHost;
use super::scenarios::{Promise, SENDER, Shown};
use super::stage::{Stage, manner};
use super::table::Row;
use super::zones::{self, Kind, Over, Zones};

/// What a domain publishes about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// A TLSA record for the certificate of its host.
    Tlsa,
    /// A TLSA record for another certificate.
    TlsaOfAnother,
    /// A TLSA record with a signature that is over.
    TlsaBroken,
    /// An MTA-STS policy that lists its host.
    Sts(&'static str),
    /// An MTA-STS policy that lists another host.
    StsOfAnother(&'static str),
}

/// A domain that publishes something, each with a host of its own.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) title: &'static str,
    pub(super) domain: &'static str,
    says: Says,
    shows: Shown,
    promise: Promise,
}

const fn publisher(title: &'static str, domain: &'static str, says: Says, shows: Shown, promise: Promise) -> Publisher {
    Publisher { title, domain, says, shows, promise }
}

/// Every domain that publishes something. To all of them the relay itself is merely opportunistic.
pub(super) const PUBLISHERS: &[Publisher] = &[
    publisher("shows the certificate of its TLSA record", "d1.example", Says::Tlsa, Shown::SelfSigned, Promise::Dane),
    publisher("shows another certificate", "d2.example", Says::TlsaOfAnother, Shown::Good, Promise::Refused("4.7.5")),
    publisher(
        "its TLSA record has a broken signature",
        "d3.example",
        Says::TlsaBroken,
        Shown::Good,
        Promise::NotDialled("4.7.5"),
    ),
    publisher(
        "listed host, certificate of the right name",
        "m1.example",
        Says::Sts("enforce"),
        Shown::Good,
        Promise::TlsVerified("mx.m1.example"),
    ),
    publisher(
        "its host is not listed",
        "m2.example",
        Says::StsOfAnother("enforce"),
        Shown::Good,
        Promise::NotDialled("4.7.5"),
    ),
    publisher(
        "listed host, certificate of another name",
        "m3.example",
        Says::Sts("enforce"),
        Shown::OtherName,
        Promise::Refused("4.7.5"),
    ),
    publisher("listed host, no TLS", "m4.example", Says::Sts("enforce"), Shown::NoTls, Promise::Refused("4.7.4")),
    publisher(
        "listed host, certificate of another name",
        "m5.example",
        Says::Sts("testing"),
        Shown::OtherName,
        Promise::TlsUntrusted,
    ),
];

/// Domains that lose STARTTLS, and what the relay's connector says of that.
pub(super) const LOSERS: [(&str, &str, Promise); 2] =
    [("w1.example", "warn", Promise::Clear), ("w2.example", "refuse", Promise::Refused("4.7.4"))];

/// Everybody who is found by DNS.
pub(super) struct Publishers {
    /// One for each of [`PUBLISHERS`], in order.
    pub(super) peers: Vec<Peer>,
    /// One for each of [`LOSERS`], in order, with who is on the way to it.
    pub(super) losers: Vec<(Peer, Interceptor)>,
    pub(super) names: std::net::SocketAddr,
    pub(super) policies: PolicyHost,
    _names: JoinSet<()>,
}

impl Publishers {
    /// Starts hosts, name server and policy host, and leaves the root's key in the folder, as `root.key`.
    pub(super) async fn start(authority: &Authority, folder: &Path) -> Result<Self, DemoError> {
        let mut written = vec![("example".to_owned(), Kind::Signed, String::new())];
        let (mut peers, mut losers) = (Vec::new(), Vec::new());
        for publisher in PUBLISHERS {
            let (manner, identity) = manner(authority, publisher.shows, &format!("mx.{}", publisher.domain))?;
            let peer = Peer::start(manner).await?;
            written.extend(publisher.zones(peer.address.port(), authority, identity.as_ref())?);
            peers.push(peer);
        }
        for (domain, ..) in LOSERS {
            let identity = authority.issue(&format!("mx.{domain}"), Flaw::None)?;
            let peer = Peer::start(Manner::Tls(identity.server()?)).await?;
            let on_the_way = Interceptor::start(peer.address).await?;
            written.push((domain.to_owned(), Kind::Unsigned, host_records(domain)));
            losers.push((peer, on_the_way));
        }
        let zones = Zones::new(&written)?;
        std::fs::write(folder.join("root.key"), zones.anchor_dnskey())?;
        let (names, tasks) = zones::serve(Arc::new(Names(zones))).await?;
        let policies = policy_host(authority).await?;
        Ok(Self { peers, losers, names, policies, _names: tasks })
    }
}

async fn policy_host(authority: &Authority) -> Result<PolicyHost, DemoError> {
    let hosts = PUBLISHERS.iter().filter(|publisher| publisher.policy().is_some());
    let hosts = hosts.map(|publisher| format!("mta-sts.{}", publisher.domain)).collect();
    let host = PolicyHost::start(authority.issue_for(hosts, Flaw::None)?.server()?).await?;
    for publisher in PUBLISHERS {
        if let Some(policy) = publisher.policy() {
            host.publish(publisher.domain, &policy);
        }
    }
    Ok(host)
}

/// Where the host of a domain is: on this machine, as all of them are.
fn host_records(domain: &str) -> String {
    format!("{domain} MX 10 mx.{domain}\nmx.{domain} A 127.0.0.1\n")
}

impl Publisher {
    fn words(&self) -> String {
        match self.says {
            Says::Tlsa | Says::TlsaOfAnother | Says::TlsaBroken => "opportunistic, DANE".to_owned(),
            Says::Sts(mode) | Says::StsOfAnother(mode) => format!("opportunistic, MTA-STS {mode}"),
        }
    }

    /// The policy that its policy host shows.
    fn policy(&self) -> Option<String> {
        let (mode, host) = match self.says {
            Says::Tlsa | Says::TlsaOfAnother | Says::TlsaBroken => return None,
            Says::Sts(mode) => (mode, "mx"),
            Says::StsOfAnother(mode) => (mode, "other"),
        };
        Some(format!("version: STSv1\nmode: {mode}\nmx: {host}.{}\nmax_age: 86400\n", self.domain))
    }

    /// Its zone; and where its TLSA record is to be broken, that in one of its own.
    fn zones(
        &self,
        port: u16,
        authority: &Authority,
        identity: Option<&Identity>,
    ) -> Result<Vec<(String, Kind, String)>, DemoError> {
        let domain = self.domain;
        let mut records = host_records(domain);
        let shown = identity.map(|identity| tlsa(domain, port, identity)).unwrap_or_default();
        Ok(match self.says {
            Says::Tlsa => vec![(domain.to_owned(), Kind::Signed, records + &shown)],
            Says::TlsaOfAnother => {
                let other = authority.issue(&format!("mx.{domain}"), Flaw::None)?;
                vec![(domain.to_owned(), Kind::Signed, records + &tlsa(domain, port, &other))]
            }
            Says::TlsaBroken => {
                vec![(domain.to_owned(), Kind::Signed, records), (format!("_tcp.mx.{domain}"), Kind::Expired, shown)]
            }
            Says::Sts(_) | Says::StsOfAnother(_) => {
                let _ = write!(records, "_mta-sts.{domain} TXT v=STSv1; id=1;\nmta-sts.{domain} A 127.0.0.1\n");
                vec![(domain.to_owned(), Kind::Unsigned, records)]
            }
        })
    }
}

fn tlsa(domain: &str, port: u16, identity: &Identity) -> String {
    let mut record = format!("_{port}._tcp.mx.{domain} TLSA 3 1 1 ");
    for octet in &identity.key_sha256 {
        // Writing into a String cannot fail.
        let _ = write!(record, "{octet:02x}");
    }
    record + "\n"
}

/// The name server.
struct Names(Zones);

impl zones::Resolver for Names {
    fn fill(&self, reply: &mut Message, query: &Query, wants_dnssec: bool, _: Over) -> bool {
        self.0.answer(reply, query, wants_dnssec, false).is_ok()
    }
}

/// Plays every domain that publishes something.
pub(super) async fn play_publishers(stage: &Stage) -> Result<Vec<Row>, DemoError> {
    let mut rows = Vec::new();
    for (case, peer) in PUBLISHERS.iter().zip(&stage.publishers.peers) {
        let to = format!("bob@{}", case.domain);
        submit(stage.relay, None, SENDER, &[&to], case.title).await?;
        let record = stage.ledger.wait_for(&to).await?;
        let fetched = stage.publishers.policies.asked(case.domain);
        let kept = case.promise.is_kept(&record, &peer.heard()) && fetched == usize::from(case.policy().is_some());
        rows.push(Row::of_record("What domains publish", case.title, &case.words(), &record, kept));
    }
    Ok(rows)
}

/// Plays the loss of STARTTLS.
pub(super) async fn play_losers(stage: &Stage) -> Result<Vec<Row>, DemoError> {
    let mut rows = Vec::new();
    for ((domain, downgrade, promise), (peer, on_the_way)) in LOSERS.iter().zip(&stage.publishers.losers) {
        let mut before = Heard::default();
        for (to, title, promise) in [("first", "offers TLS", Promise::Tls), ("second", "has lost it", *promise)] {
            if to == "second" {
                on_the_way.strip();
            }
            let to = format!("{to}@{domain}");
            submit(stage.relay, None, SENDER, &[&to], title).await?;
            let record = stage.ledger.wait_for(&to).await?;
            let heard = peer.heard();
            let kept = promise.is_kept(&record, &heard.since(&before));
            before = heard;
            let policy = format!("opportunistic, downgrade {downgrade}");
            rows.push(Row::of_record("What domains did before", title, &policy, &record, kept));
        }
    }
    Ok(rows)
}
