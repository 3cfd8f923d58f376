//! From a recipient to TLSA records, with signed zones and a real resolver: the rows of RFC 7672
//! §2.2.

use std::sync::Arc;

use gatepost::config::Config;
use gatepost::discovery::{HopQuery, dane};
use gatepost::net::dns::Dns;
use gatepost::net::route::Router;
use gatepost::policy::failure::{Failure, Persistence, Scope};
use gatepost::policy::layers::DaneFinding;
use gatepost::policy::tls::{DaneScope, TlsaSet};
use gatepost::smtp::address::Host;
use gatepost::smtp::envelope::TlsRequirement;
use gatepost::smtp::reply::Status;
use hickory_resolver::proto::rr::RecordType;

use crate::support::config::ConfigBuilder;
use crate::support::zones::{Fault, Kind, Resolver, Server, Zones};

const GOOD: &str = "
    good.test MX 10 mx.good.test
    mx.good.test A 192.0.2.1
    _25._tcp.mx.good.test TLSA 3 1 1 {sha256}
    _587._tcp.mx.good.test TLSA 2 0 1 {sha256}
    no-records.good.test MX 10 none.good.test
    none.good.test A 192.0.2.2
    to-plain.good.test MX 10 mx.plain.test
    to-lost.good.test MX 10 mx.lost.test
    to-broken.good.test MX 10 broken.good.test
    broken.good.test A 192.0.2.3
    to-slow.good.test MX 10 slow.good.test
    slow.good.test A 192.0.2.3
    to-insecure-tlsa.good.test MX 10 tlsa-leaves.good.test
    tlsa-leaves.good.test A 192.0.2.4
    _25._tcp.tlsa-leaves.good.test CNAME _25._tcp.mx.plain.test
    to-shared-tlsa.good.test MX 10 shared.good.test
    shared.good.test A 192.0.2.5
    _25._tcp.shared.good.test CNAME _25._tcp.mx.good.test
    pkix.good.test MX 10 mx.pkix.good.test
    mx.pkix.good.test A 192.0.2.6
    _25._tcp.mx.pkix.good.test TLSA 1 1 1 {sha256}
    _25._tcp.mx.pkix.good.test TLSA 3 1 1 abcd
    bogus-tlsa.good.test MX 10 mx.bogus-tlsa.good.test
    mx.bogus-tlsa.good.test A 192.0.2.7
    alias.good.test CNAME good.test
    via-plain.good.test CNAME relay.plain.test
    to-alias.good.test MX 10 alias-mx.good.test
    alias-mx.good.test CNAME mx.good.test
    _25._tcp.alias-mx.good.test TLSA 3 1 1 {sha256}
    to-own.good.test MX 10 own.good.test
    own.good.test CNAME none.good.test
    _25._tcp.own.good.test TLSA 3 1 1 {sha256}
    to-leaving.good.test MX 10 leaving.good.test
    leaving.good.test CNAME mx.plain.test
    _25._tcp.leaving.good.test TLSA 3 1 1 {sha256}
    to-leaving-bare.good.test MX 10 leaving-bare.good.test
    leaving-bare.good.test CNAME mx.plain.test
    to-broken-alias.good.test MX 10 broken-alias.good.test
    broken-alias.good.test CNAME broken.good.test
    _25._tcp.broken-alias.good.test TLSA 3 1 1 {sha256}
    implicit.good.test A 192.0.2.8
    _25._tcp.implicit.good.test TLSA 3 1 1 {sha256}
    implicit-alias.good.test CNAME implicit.good.test
";
const PLAIN: &str = "
    plain.test MX 10 mx.good.test
    relay.plain.test MX 10 mx.good.test
    mx.plain.test A 192.0.2.20
    _25._tcp.mx.plain.test TLSA 3 1 1 {sha256}
    implicit.plain.test A 192.0.2.21
    entering.plain.test CNAME mx.good.test
    to-entering.plain.test MX 10 entering.plain.test
";
const LOST: &str = "
    lost.test MX 10 mx.good.test
    mx.lost.test A 192.0.2.30
";

async fn server(resolver: Resolver) -> Server {
    let records = |text: &str| text.replace("{sha256}", &"ab".repeat(32));
    let server = Zones::new()
        .zone("test", Kind::Signed, "")
        .zone("good.test", Kind::Signed, &records(GOOD))
        .zone("plain.test", Kind::Unsigned, &records(PLAIN))
        .zone("lost.test", Kind::SignaturesLost, &records(LOST))
        .zone(
            "_tcp.mx.bogus-tlsa.good.test",
            Kind::WrongKey,
            &records("_25._tcp.mx.bogus-tlsa.good.test TLSA 3 1 1 {sha256}"),
        )
        .start(resolver)
        .await;
    server.fail("_25._tcp.broken.good.test", None, Fault::ServFail);
    server.fail("_25._tcp.slow.good.test", None, Fault::Silence);
    server
}

struct World {
    config: Config,
    router: Router,
    dns: Dns,
}

impl World {
    fn new(server: &Server, dns: &str, outbound: &str) -> Self {
        let anchor = if dns.is_empty() {
            format!("trust_anchor = \"{}\"", server.anchor("dnskey").display())
        } else {
            dns.to_owned()
        };
        let dns = format!("servers = [\"{}\"]\n{anchor}", server.address);
        let config = ConfigBuilder::new()
            .table("dns", &dns)
            .all_mail(outbound)
            .parse();
        let dns = Dns::new(&config.dns).expect("a resolver");
        Self {
            router: Router::new(&config, dns.clone()),
            dns,
            config,
        }
    }

    /// Returns the result of DANE for the first hop of a recipient domain.
    async fn find(
        &self,
        recipient: &str,
        requirement: TlsRequirement,
    ) -> Result<DaneFinding, Failure> {
        let recipient = &Host::parse(recipient).expect("a host");
        let connector = &self.config.connectors[0];
        let hops = self
            .router
            .hops(recipient, &connector.outbound.route)
            .await?;
        let (hop, basis) = (&hops.hops[0], &hops.basis);
        let addresses = &self.router.addresses(hop).await?;
        let now = jiff::Timestamp::now();
        dane::look_up(&HopQuery {
            recipient,
            connector,
            hop,
            basis,
            addresses,
            requirement,
            dns: &self.dns,
            now,
        })
        .await
    }

    async fn finding(&self, recipient: &str) -> DaneFinding {
        self.find(recipient, TlsRequirement::Ordinary)
            .await
            .expect(recipient)
    }

    async fn usable(&self, recipient: &str) -> Arc<TlsaSet> {
        match self.finding(recipient).await {
            DaneFinding::Usable(set) => set,
            other => panic!("{recipient}: {other:?}"),
        }
    }

    async fn failure(&self, recipient: &str) -> Failure {
        self.find(recipient, TlsRequirement::Ordinary)
            .await
            .expect_err(recipient)
    }
}

fn names(set: &TlsaSet) -> String {
    set.names
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test]
async fn secure_records_count_for_the_domain_or_for_the_host_alone() {
    use DaneScope::{Domain, Host};
    let server = server(Resolver::default()).await;
    let world = World::new(&server, "", "");
    for (recipient, base, scope, wanted) in [
        (
            "good.test",
            "mx.good.test",
            Domain,
            "mx.good.test good.test",
        ),
        // The recipient domain is an alias, and all of it is signed: both names are the domain's.
        (
            "alias.good.test",
            "mx.good.test",
            Domain,
            "mx.good.test alias.good.test good.test",
        ),
        // The MX records are not signed: whoever forges them names any host he likes.
        ("plain.test", "mx.good.test", Host, "mx.good.test"),
        ("via-plain.good.test", "mx.good.test", Host, "mx.good.test"),
        // The MX host is an alias: where it leads comes first, then its own name.
        (
            "to-alias.good.test",
            "mx.good.test",
            Domain,
            "mx.good.test alias-mx.good.test to-alias.good.test",
        ),
        (
            "to-own.good.test",
            "own.good.test",
            Domain,
            "own.good.test to-own.good.test",
        ),
        // It leads out of what is signed: its own name alone.
        (
            "to-leaving.good.test",
            "leaving.good.test",
            Domain,
            "leaving.good.test to-leaving.good.test",
        ),
        // The TLSA records may be an alias themselves.
        (
            "to-shared-tlsa.good.test",
            "shared.good.test",
            Domain,
            "shared.good.test to-shared-tlsa.good.test",
        ),
        // No MX: the domain is its own host (RFC 7672 §2.2.2).
        (
            "implicit.good.test",
            "implicit.good.test",
            Domain,
            "implicit.good.test",
        ),
        (
            "implicit-alias.good.test",
            "implicit.good.test",
            Domain,
            "implicit.good.test implicit-alias.good.test",
        ),
    ] {
        let set = world.usable(recipient).await;
        assert_eq!((set.base.as_str(), set.scope), (base, scope), "{recipient}");
        assert_eq!(names(&set), wanted, "{recipient}");
        assert_eq!(set.records.len(), 1);
        assert_eq!(set.records[0].to_string(), "3 1 1 abababababababab…");
    }
}

#[tokio::test]
async fn without_secure_records_nothing_is_demanded_and_the_reason_is_known() {
    let server = server(Resolver::default()).await;
    let world = World::new(&server, "", "");
    for (recipient, reason) in [
        (
            "no-records.good.test",
            "DNSSEC proves that _25._tcp.none.good.test has no TLSA records",
        ),
        (
            "to-plain.good.test",
            "the addresses of mx.plain.test are not signed with DNSSEC",
        ),
        (
            "implicit.plain.test",
            "the addresses of implicit.plain.test are not signed with DNSSEC",
        ),
        (
            "to-entering.plain.test",
            "the addresses of entering.plain.test are not signed with DNSSEC",
        ),
        (
            "to-insecure-tlsa.good.test",
            "the DNS answer for _25._tcp.tlsa-leaves.good.test is not signed with DNSSEC",
        ),
        (
            "to-leaving-bare.good.test",
            "DNSSEC proves that _25._tcp.leaving-bare.good.test has no TLSA records",
        ),
    ] {
        assert_eq!(
            world.finding(recipient).await,
            DaneFinding::Absent(reason.to_owned()),
            "{recipient}"
        );
    }
    // Records of a host whose addresses are not secure are not even asked for (RFC 7672 §2.2.2).
    assert_eq!(
        server.asked("_25._tcp.implicit.plain.test", RecordType::TLSA),
        0
    );
    assert_eq!(
        server.asked("_25._tcp.entering.plain.test", RecordType::TLSA),
        0
    );
}

#[tokio::test]
async fn unusable_records_are_distinguished_from_none() {
    let server = server(Resolver::default()).await;
    let finding = World::new(&server, "", "").finding("pkix.good.test").await;
    let DaneFinding::Unusable(why) = finding else {
        panic!("{finding:?}")
    };
    assert!(
        why.starts_with("no TLSA record of _25._tcp.mx.pkix.good.test is usable: "),
        "{why}"
    );
    assert!(
        why.contains("certificate usage 1 (PKIX)")
            && why.contains("a digest of 2 octets has the wrong length"),
        "{why}"
    );
}

#[tokio::test]
async fn a_lookup_that_fails_costs_the_host() {
    let server = server(Resolver::default()).await;
    let world = World::new(&server, "", "");
    for (recipient, name, words) in [
        (
            "to-broken.good.test",
            "_25._tcp.broken.good.test",
            "the name server answered Server Failure",
        ),
        (
            "to-slow.good.test",
            "_25._tcp.slow.good.test",
            "no name server answered in time",
        ),
        (
            "bogus-tlsa.good.test",
            "_25._tcp.mx.bogus-tlsa.good.test",
            "DNSSEC validation failed",
        ),
        (
            "to-broken-alias.good.test",
            "_25._tcp.broken.good.test",
            "the name server answered Server Failure",
        ),
    ] {
        let failure = world.failure(recipient).await;
        assert_eq!(
            (failure.scope, failure.persistence),
            (Scope::Hop, Persistence::Transient),
            "{recipient}"
        );
        assert_eq!(failure.status, Status(7, 5), "{recipient}");
        let text = failure.to_string();
        assert!(
            text.contains(&format!("the TLSA lookup for {name} failed")) && text.contains(words),
            "{text}"
        );
    }
    // The name that leads elsewhere is no way around a lookup that failed.
    assert_eq!(
        server.asked("_25._tcp.broken-alias.good.test", RecordType::TLSA),
        0
    );
}

#[tokio::test]
async fn bogus_addresses_cost_the_host_and_bogus_mx_records_the_domain() {
    let server = server(Resolver::default()).await;
    let world = World::new(&server, "", "");
    let failure = world.failure("to-lost.good.test").await;
    assert_eq!((failure.scope, failure.status), (Scope::Hop, Status(7, 5)));
    assert!(
        failure
            .to_string()
            .starts_with("the address lookup for mx.lost.test failed: DNSSEC"),
        "{failure}"
    );
    let failure = world.failure("lost.test").await;
    assert_eq!(
        (failure.scope, failure.persistence),
        (Scope::Destination, Persistence::Transient)
    );
    assert_eq!(failure.status, Status(7, 5));
    assert!(
        failure
            .to_string()
            .starts_with("the MX lookup for lost.test failed: DNSSEC validation"),
        "{failure}"
    );
}

#[tokio::test]
async fn smart_hosts_have_records_of_their_own_port() {
    let server = server(Resolver::default()).await;
    let world = World::new(&server, "", "route = [\"mx.good.test:587\"]");
    let set = world.usable("whatever.example").await;
    assert_eq!(
        (set.base.as_str(), set.scope, names(&set)),
        ("mx.good.test", DaneScope::Domain, "mx.good.test".into())
    );
    assert_eq!(set.records[0].to_string(), "2 0 1 abababababababab…");
    assert_eq!(server.asked("_25._tcp.mx.good.test", RecordType::TLSA), 0);
    let world = World::new(&server, "", "route = [\"mx.plain.test:25\"]");
    assert!(matches!(
        world.finding("whatever.example").await,
        DaneFinding::Absent(_)
    ));
}

#[tokio::test]
async fn no_record_is_looked_up_where_none_can_count() {
    let server = server(Resolver::default()).await;
    for (outbound, recipient, why) in [
        (
            "discover = []",
            "good.test",
            "the connector's discover does not name it",
        ),
        (
            "tls = \"off\"",
            "good.test",
            "the connector has switched TLS off",
        ),
        ("", "[192.0.2.1]", "the host is named by its address"),
        (
            "route = [\"[192.0.2.1]:25\"]",
            "good.test",
            "the host is named by its address",
        ),
        (
            "route = [\"localhost:25\"]",
            "good.test",
            "the host is this machine, so DNS is not queried",
        ),
    ] {
        let world = World::new(&server, "", outbound);
        assert_eq!(
            world.finding(recipient).await,
            DaneFinding::NotLookedUp(why),
            "{outbound}"
        );
    }
    let world = World::new(&server, "", "");
    let relaxed = world
        .find("good.test", TlsRequirement::Relaxed)
        .await
        .expect("an answer");
    assert_eq!(
        relaxed,
        DaneFinding::NotLookedUp("the message overrides it (TLS-Required: No)")
    );
    assert_eq!(server.asked("_25._tcp.mx.good.test", RecordType::TLSA), 0);
}

#[tokio::test]
async fn the_connectors_demand_is_looked_up_whatever_the_message_asks() {
    let server = server(Resolver::default()).await;
    let world = World::new(&server, "", "tls = \"forced\"\nverify = \"dane\"");
    let found = world
        .find("good.test", TlsRequirement::Relaxed)
        .await
        .expect("an answer");
    assert!(matches!(found, DaneFinding::Usable(_)), "{found:?}");
}

#[tokio::test]
async fn without_validation_there_is_no_dane_and_mail_goes_on() {
    let strips = server(Resolver {
        strips: true,
        ..Resolver::default()
    })
    .await;
    let finding = World::new(&strips, "", "").finding("good.test").await;
    let why = "not validated, because the resolver returns no DNSSEC records";
    assert_eq!(
        finding,
        DaneFinding::Absent(format!("the addresses of mx.good.test are {why}"))
    );
    let finding = World::new(&strips, "dnssec = \"off\"", "")
        .finding("good.test")
        .await;
    let why = "not validated, because [dns] dnssec is \"off\"";
    assert_eq!(
        finding,
        DaneFinding::Absent(format!("the addresses of mx.good.test are {why}"))
    );
}

#[tokio::test]
async fn a_trusted_resolver_makes_records_secure() {
    let server = server(Resolver {
        validates: true,
        ..Resolver::default()
    })
    .await;
    let world = World::new(&server, "dnssec = \"trust-resolver\"", "");
    assert_eq!(world.usable("good.test").await.scope, DaneScope::Domain);
    assert_eq!(world.usable("plain.test").await.scope, DaneScope::Host);
    assert_eq!(
        world.usable("implicit.good.test").await.scope,
        DaneScope::Domain
    );
    assert!(matches!(
        world.finding("no-records.good.test").await,
        DaneFinding::Absent(_)
    ));
    assert!(matches!(
        world.finding("to-plain.good.test").await,
        DaneFinding::Absent(_)
    ));
    let failure = world.failure("bogus-tlsa.good.test").await;
    assert!(failure.to_string().contains("Server Failure"), "{failure}");
}
