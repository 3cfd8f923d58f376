//! Domains that are found by signed DNS and publish policies over HTTPS.

use std::sync::Arc;

use gatepost::demo::policy_host::PolicyHost;
use gatepost::relay::outbound::{AttemptResult, Outbound};

use super::certificates::{Authority, BOTH, Pair, server_config};
use super::deliveries::{World, connector, result};
use super::peer::{Manner, Peer, Starttls};
use super::zones::{Kind, Resolver, Server, Zones};

/// One zone: its origin, how it is signed, and its records.
pub(crate) type Written<'a> = (&'a str, Kind, String);

pub(crate) struct Internet {
    pub(crate) world: World,
    pub(crate) names: Server,
    pub(crate) policies: PolicyHost,
}

impl Internet {
    /// Serves these zones, below a signed `example`, and a policy host for `policies`.
    pub(crate) async fn new(
        authority: Authority,
        zones: &[Written<'_>],
        policies: &[&str],
    ) -> Self {
        let hosts: Vec<String> = policies
            .iter()
            .map(|domain| format!("mta-sts.{domain}"))
            .collect();
        let pair = authority.issue(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
        let policies = PolicyHost::start(Arc::new(server_config(&pair, BOTH)))
            .await
            .expect("loopback");
        let names = serve(zones).await;
        let mut world = World::of(authority, dns(&names));
        world.policy_port = policies.port;
        Self {
            world,
            names,
            policies,
        }
    }

    /// Serves other zones in the place of the first, to resolvers that are made from now on.
    pub(crate) async fn rename(&mut self, zones: &[Written<'_>]) {
        self.names = serve(zones).await;
        self.world.dns = dns(&self.names);
    }

    /// Deliveries to domains whose hosts listen on the peer's port.
    pub(crate) fn outbound(&self, peer: &Peer, more: &str) -> Outbound {
        self.world.outbound(&by_mx(peer, more))
    }
}

async fn serve(zones: &[Written<'_>]) -> Server {
    let mut all = Zones::new().zone("example", Kind::Signed, "");
    for (origin, kind, records) in zones {
        all = all.zone(origin, *kind, records);
    }
    all.start(Resolver::default()).await
}

fn dns(names: &Server) -> String {
    format!(
        "servers = [\"{}\"]\ntrust_anchor = \"{}\"",
        names.address,
        names.anchor("dnskey").display()
    )
}

/// A connector for everybody, by MX, with `more` lines.
pub(crate) fn by_mx(peer: &Peer, more: &str) -> String {
    connector(
        "all",
        &["*"],
        &format!("port = {}\n{more}", peer.address.port()),
    )
}

/// A peer that takes TLS with this certificate.
pub(crate) async fn shows(pair: &Pair) -> Peer {
    Peer::start(tls(pair)).await
}

pub(crate) fn tls(pair: &Pair) -> Manner {
    Manner::new(Starttls::Tls(server_config(pair, BOTH).into()))
}

/// A peer without TLS.
pub(crate) async fn in_clear() -> Peer {
    Peer::start(Manner::new(Starttls::NotOffered)).await
}

/// The records of a domain with one host, `mx.DOMAIN`.
pub(crate) fn one_host(domain: &str) -> String {
    format!("{domain} MX 10 mx.{domain}\nmx.{domain} A 127.0.0.1\n")
}

/// The records that lead to an MTA-STS policy.
pub(crate) fn sts(domain: &str, id: &str) -> String {
    format!("_mta-sts.{domain} TXT v=STSv1; id={id};\nmta-sts.{domain} A 127.0.0.1\n")
}

/// The policy of a domain that lists these hosts.
pub(crate) fn policy(mode: &str, hosts: &[&str]) -> String {
    let hosts = hosts
        .iter()
        .map(|host| format!("mx: {host}\r\n"))
        .collect::<Vec<_>>()
        .concat();
    format!("version: STSv1\r\nmode: {mode}\r\n{hosts}max_age: 86400\r\n")
}

/// A TLSA record for a peer's certificate.
pub(crate) fn tlsa(host: &str, peer: &Peer, pair: &Pair) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &pair.chain[0]);
    let hex = digest
        .as_ref()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect::<Vec<_>>()
        .concat();
    format!("_{}._tcp.{host} TLSA 3 0 1 {hex}\n", peer.address.port())
}

/// Returns the way in which the peer that got the message was authenticated.
pub(crate) fn known_as(report: &AttemptResult) -> String {
    result(report, 0)
        .via
        .as_ref()
        .expect("a session")
        .clearance
        .authentication()
        .to_string()
}

/// Asserts that a peer got nothing of a message that is not for it: its session ended in order,
/// without MAIL.
pub(crate) async fn assert_heard_nothing_of_mail(peer: &Peer) {
    for heard in peer.heard_to_the_end().await {
        assert!(!heard.has("MAIL") && !heard.has("RCPT"), "{heard:?}");
        assert_eq!(
            heard.commands.last().map(String::as_str),
            Some("QUIT"),
            "{heard:?}"
        );
    }
}
