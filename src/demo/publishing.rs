//! The hosts of the domains that publish a policy (DANE, MTA-STS), and of those whose TLS is
//! stripped.
//!
//! The relay finds them as it finds real domains: by DNS with MX records under a signed root, with
//! policies over HTTPS. The configuration has only their ports.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, Query};
use tokio::task::JoinSet;

use super::authority::{Authority, DemoIdentity, Flaw};
use super::cases::{DOWNGRADED, DomainRecords, PUBLISHERS, PublishingDomain};
use super::error::DemoError;
use super::peer::{DemoPeer, Interceptor, PeerBehaviour};
use super::policy_host::PolicyHost;
use super::zones::{self, DnsTransport, Kind, Zones};

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
            let (behaviour, identity) = PeerBehaviour::of(
                authority,
                publisher.shows,
                &format!("mx.{}", publisher.domain),
            )?;
            let peer = DemoPeer::start(behaviour).await?;
            written.extend(zones_of(
                publisher,
                peer.address.port(),
                authority,
                identity.as_ref(),
            )?);
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

/// Returns the domain's zone. A TLSA record with an expired signature is in a zone of its own.
fn zones_of(
    publisher: &PublishingDomain,
    port: u16,
    authority: &Authority,
    identity: Option<&DemoIdentity>,
) -> Result<Vec<(String, Kind, String)>, DemoError> {
    let domain = publisher.domain;
    let mut records = host_records(domain);
    let tlsa_record = identity
        .map(|identity| tlsa(domain, port, identity))
        .unwrap_or_default();
    Ok(match publisher.publishes {
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
