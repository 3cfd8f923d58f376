//! The scenarios of domains that publish a policy (DANE, MTA-STS), and of domains whose TLS is
//! stripped after a first delivery.
//!
//! The relay finds them as it finds real domains: by DNS with MX records under a signed root, with
//! policies over HTTPS. The configuration has only their ports.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, Query};
use tokio::task::JoinSet;

use super::DemoError;
use super::authority::{Authority, DemoIdentity, Flaw};
use super::peer::{DemoPeer, Interceptor, PeerBehaviour, PeerLog, submit};
use super::policy_host::PolicyHost;
use super::scenarios::{ExpectedEnd, PeerTls, SENDER};
use super::stage::{DemoStage, behaviour};
use super::table::DemoRow;
use super::zones::{self, DnsTransport, Kind, Zones};

/// The records and policies that a domain publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DomainRecords {
    /// A TLSA record for the certificate of its host.
    Tlsa,
    /// A TLSA record for another certificate.
    TlsaOfAnother,
    /// A TLSA record with an expired signature.
    TlsaBroken,
    /// An MTA-STS policy that lists its host.
    Sts(&'static str),
    /// An MTA-STS policy that lists another host.
    StsOfAnother(&'static str),
}

/// A domain that publishes a policy. Each has its own host.
#[derive(Debug)]
pub(super) struct PublishingDomain {
    pub(super) title: &'static str,
    pub(super) domain: &'static str,
    publishes: DomainRecords,
    shows: PeerTls,
    promise: ExpectedEnd,
}

const fn publisher(
    title: &'static str,
    domain: &'static str,
    publishes: DomainRecords,
    shows: PeerTls,
    promise: ExpectedEnd,
) -> PublishingDomain {
    PublishingDomain {
        title,
        domain,
        publishes,
        shows,
        promise,
    }
}

/// The domains that publish a policy. The connectors of all of them are opportunistic.
pub(super) const PUBLISHERS: &[PublishingDomain] = &[
    publisher(
        "shows the certificate of its TLSA record",
        "d1.example",
        DomainRecords::Tlsa,
        PeerTls::SelfSigned,
        ExpectedEnd::Dane,
    ),
    publisher(
        "shows another certificate",
        "d2.example",
        DomainRecords::TlsaOfAnother,
        PeerTls::Good,
        ExpectedEnd::Refused("4.7.5"),
    ),
    publisher(
        "its TLSA record has a broken signature",
        "d3.example",
        DomainRecords::TlsaBroken,
        PeerTls::Good,
        ExpectedEnd::NotDialled("4.7.5"),
    ),
    publisher(
        "listed host, certificate of the right name",
        "m1.example",
        DomainRecords::Sts("enforce"),
        PeerTls::Good,
        ExpectedEnd::TlsVerified("mx.m1.example"),
    ),
    publisher(
        "its host is not listed",
        "m2.example",
        DomainRecords::StsOfAnother("enforce"),
        PeerTls::Good,
        ExpectedEnd::NotDialled("4.7.5"),
    ),
    publisher(
        "listed host, certificate of another name",
        "m3.example",
        DomainRecords::Sts("enforce"),
        PeerTls::OtherName,
        ExpectedEnd::Refused("4.7.5"),
    ),
    publisher(
        "listed host, no TLS",
        "m4.example",
        DomainRecords::Sts("enforce"),
        PeerTls::NoTls,
        ExpectedEnd::Refused("4.7.4"),
    ),
    publisher(
        "listed host, certificate of another name",
        "m5.example",
        DomainRecords::Sts("testing"),
        PeerTls::OtherName,
        ExpectedEnd::TlsUntrusted,
    ),
];

/// The domains whose STARTTLS is stripped after a first delivery, with the connector's `downgrade`.
pub(super) const DOWNGRADED: [(&str, &str, ExpectedEnd); 2] = [
    ("w1.example", "warn", ExpectedEnd::Clear),
    ("w2.example", "refuse", ExpectedEnd::Refused("4.7.4")),
];

/// The hosts of all domains that are found by DNS, with name server and policy host.
pub(super) struct PublishingHosts {
    /// The host of each of [`PUBLISHERS`], in order.
    pub(super) peers: Vec<DemoPeer>,
    /// The host of each of [`DOWNGRADED`], in order, with the man in the middle before it.
    pub(super) downgraded: Vec<(DemoPeer, Interceptor)>,
    pub(super) names: std::net::SocketAddr,
    pub(super) policies: PolicyHost,
    _names: JoinSet<()>,
}

impl PublishingHosts {
    /// Starts hosts, name server and policy host, and writes the root's key to `root.key` in the
    /// folder.
    pub(super) async fn start(authority: &Authority, folder: &Path) -> Result<Self, DemoError> {
        let mut written = vec![("example".to_owned(), Kind::Signed, String::new())];
        let (mut peers, mut downgraded) = (Vec::new(), Vec::new());
        for publisher in PUBLISHERS {
            let (behaviour, identity) = behaviour(
                authority,
                publisher.shows,
                &format!("mx.{}", publisher.domain),
            )?;
            let peer = DemoPeer::start(behaviour).await?;
            written.extend(publisher.zones(peer.address.port(), authority, identity.as_ref())?);
            peers.push(peer);
        }
        for (domain, ..) in DOWNGRADED {
            let identity = authority.issue(&format!("mx.{domain}"), Flaw::None)?;
            let peer = DemoPeer::start(PeerBehaviour::Tls(identity.server()?)).await?;
            let interceptor = Interceptor::start(peer.address).await?;
            written.push((domain.to_owned(), Kind::Unsigned, host_records(domain)));
            downgraded.push((peer, interceptor));
        }
        let zones = Zones::new(&written)?;
        std::fs::write(folder.join("root.key"), zones.anchor_dnskey())?;
        let (names, tasks) = zones::serve(Arc::new(DemoResolver(zones))).await?;
        let policies = policy_host(authority).await?;
        Ok(Self {
            peers,
            downgraded,
            names,
            policies,
            _names: tasks,
        })
    }
}

async fn policy_host(authority: &Authority) -> Result<PolicyHost, DemoError> {
    let hosts = PUBLISHERS
        .iter()
        .filter(|publisher| publisher.policy().is_some());
    let hosts = hosts
        .map(|publisher| format!("mta-sts.{}", publisher.domain))
        .collect();
    let host = PolicyHost::start(authority.issue_for(hosts, Flaw::None)?.server()?).await?;
    for publisher in PUBLISHERS {
        if let Some(policy) = publisher.policy() {
            host.publish(publisher.domain, &policy);
        }
    }
    Ok(host)
}

/// Returns the MX and address records of a domain whose host is on this machine.
fn host_records(domain: &str) -> String {
    format!("{domain} MX 10 mx.{domain}\nmx.{domain} A 127.0.0.1\n")
}

impl PublishingDomain {
    fn policy_text(&self) -> String {
        match self.publishes {
            DomainRecords::Tlsa | DomainRecords::TlsaOfAnother | DomainRecords::TlsaBroken => {
                "opportunistic, DANE".to_owned()
            }
            DomainRecords::Sts(mode) | DomainRecords::StsOfAnother(mode) => {
                format!("opportunistic, MTA-STS {mode}")
            }
        }
    }

    /// Returns the domain's MTA-STS policy.
    fn policy(&self) -> Option<String> {
        let (mode, host) = match self.publishes {
            DomainRecords::Tlsa | DomainRecords::TlsaOfAnother | DomainRecords::TlsaBroken => {
                return None;
            }
            DomainRecords::Sts(mode) => (mode, "mx"),
            DomainRecords::StsOfAnother(mode) => (mode, "other"),
        };
        Some(format!(
            "version: STSv1\nmode: {mode}\nmx: {host}.{}\nmax_age: 86400\n",
            self.domain
        ))
    }

    /// Returns the domain's zone. A TLSA record with an expired signature is in a zone of its own.
    fn zones(
        &self,
        port: u16,
        authority: &Authority,
        identity: Option<&DemoIdentity>,
    ) -> Result<Vec<(String, Kind, String)>, DemoError> {
        let domain = self.domain;
        let mut records = host_records(domain);
        let tlsa_record = identity
            .map(|identity| tlsa(domain, port, identity))
            .unwrap_or_default();
        Ok(match self.publishes {
            DomainRecords::Tlsa => vec![(domain.to_owned(), Kind::Signed, records + &tlsa_record)],
            DomainRecords::TlsaOfAnother => {
                let other = authority.issue(&format!("mx.{domain}"), Flaw::None)?;
                vec![(
                    domain.to_owned(),
                    Kind::Signed,
                    records + &tlsa(domain, port, &other),
                )]
            }
            DomainRecords::TlsaBroken => {
                vec![
                    (domain.to_owned(), Kind::Signed, records),
                    (format!("_tcp.mx.{domain}"), Kind::Expired, tlsa_record),
                ]
            }
            DomainRecords::Sts(_) | DomainRecords::StsOfAnother(_) => {
                let _ = write!(
                    records,
                    "_mta-sts.{domain} TXT v=STSv1; id=1;\nmta-sts.{domain} A 127.0.0.1\n"
                );
                vec![(domain.to_owned(), Kind::Unsigned, records)]
            }
        })
    }
}

/// Returns the TLSA record "3 1 1" of a certificate.
fn tlsa(domain: &str, port: u16, identity: &DemoIdentity) -> String {
    let mut record = format!("_{port}._tcp.mx.{domain} TLSA 3 1 1 ");
    for octet in &identity.key_sha256 {
        // Writing into a String cannot fail.
        let _ = write!(record, "{octet:02x}");
    }
    record + "\n"
}

/// The name server of the demo's zones.
struct DemoResolver(Zones);

impl zones::Resolver for DemoResolver {
    fn fill(
        &self,
        reply: &mut Message,
        query: &Query,
        wants_dnssec: bool,
        _: DnsTransport,
    ) -> bool {
        self.0.answer(reply, query, wants_dnssec, false).is_ok()
    }
}

/// Plays a delivery to each domain that publishes a policy.
pub(super) async fn play_publishers(stage: &DemoStage) -> Result<Vec<DemoRow>, DemoError> {
    let mut rows = Vec::new();
    for (case, peer) in PUBLISHERS.iter().zip(&stage.publishers.peers) {
        let to = format!("bob@{}", case.domain);
        submit(stage.relay, None, SENDER, &[&to], case.title).await?;
        let record = stage.attempts.wait_for(&to).await?;
        let fetched = stage.publishers.policies.requests(case.domain);
        let kept = case.promise.is_kept(&record, &peer.log())
            && fetched == usize::from(case.policy().is_some());
        rows.push(DemoRow::of_record(
            "Published policies",
            case.title,
            &case.policy_text(),
            &record,
            kept,
        ));
    }
    Ok(rows)
}

/// Plays two deliveries to each domain, the second one with STARTTLS stripped.
pub(super) async fn play_downgraded(stage: &DemoStage) -> Result<Vec<DemoRow>, DemoError> {
    let mut rows = Vec::new();
    for ((domain, downgrade, promise), (peer, interceptor)) in
        DOWNGRADED.iter().zip(&stage.publishers.downgraded)
    {
        let mut before = PeerLog::default();
        for (to, title, promise) in [
            ("first", "offers TLS", ExpectedEnd::Tls),
            ("second", "STARTTLS is stripped", *promise),
        ] {
            if to == "second" {
                interceptor.strip();
            }
            let to = format!("{to}@{domain}");
            submit(stage.relay, None, SENDER, &[&to], title).await?;
            let record = stage.attempts.wait_for(&to).await?;
            let log = peer.log();
            let kept = promise.is_kept(&record, &log.since(&before));
            before = log;
            let policy = format!("opportunistic, downgrade {downgrade}");
            rows.push(DemoRow::of_record(
                "Downgrade memory",
                title,
                &policy,
                &record,
                kept,
            ));
        }
    }
    Ok(rows)
}
