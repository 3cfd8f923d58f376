//! Routing, with a real name server.

use gatepost::config::Route;
use gatepost::net::dns::Dns;
use gatepost::net::route::{Hop, HopOrigin, Router};
use gatepost::policy::failure::{Failure, HopAddress, Persistence, Scope};
use gatepost::smtp::address::Host;
use gatepost::smtp::reply::Status;

use crate::support::config::ConfigBuilder;
use crate::support::dns::NameServer;

const EXAMPLE: &str = "
    plain.example MX 20 mx2.plain.example
    plain.example MX 10 mx1.plain.example
    mx1.plain.example A 192.0.2.1
    mx1.plain.example A 192.0.2.2
    mx1.plain.example AAAA 2001:db8::1
    mx2.plain.example A 192.0.2.3
    null.example MX 0 .
    nearly-null.example MX 0 .
    nearly-null.example MX 10 mx1.plain.example
    implicit.example A 192.0.2.9
    implicit.example AAAA 2001:db8::9
    nothing.example CNAME mute.example
    mute.example MX 10 nohost.example
    empty.example CNAME text.example
    sub.text.example A 192.0.2.7
    alias.example CNAME plain.example
    we-are-second.example MX 10 mx1.plain.example
    we-are-second.example MX 20 relay.example.com
    we-are-second.example MX 20 mx2.plain.example
    we-are-second.example MX 30 mx3.plain.example
    we-are-first.example MX 10 relay.example.com
    we-are-first.example MX 20 mx1.plain.example
    odd.example MX 10 hyphen-.example
    under.example MX 10 mail_1.example
    mail_1.example A 192.0.2.11
    half.example MX 10 mx.elsewhere.test
    half.example MX 20 mx1.plain.example
";

async fn router() -> (Router, NameServer) {
    let server = NameServer::start(&[("example", EXAMPLE)]).await;
    let config = ConfigBuilder::new()
        .table("dns", &format!("servers = [\"{}\"]", server.address))
        .parse();
    (
        Router::new(&config, Dns::new(&config.dns).expect("a resolver")),
        server,
    )
}

async fn mx(router: &Router, domain: &str) -> Result<Vec<Hop>, Failure> {
    let found = router
        .hops(
            &Host::parse(domain).expect("a domain"),
            &Route::Mx { port: 25 },
        )
        .await?;
    Ok(found.hops)
}

fn names(hops: &[Hop]) -> Vec<String> {
    hops.iter().map(ToString::to_string).collect()
}

fn addresses(list: &[&str]) -> Vec<HopAddress> {
    list.iter()
        .map(|text| HopAddress::Tcp(text.parse().expect("an address")))
        .collect()
}

#[tokio::test]
async fn mx_hosts_come_in_order_with_all_their_addresses() {
    let (router, _server) = router().await;
    for domain in ["plain.example", "alias.example"] {
        let hops = mx(&router, domain).await.expect("hops");
        assert_eq!(
            names(&hops),
            ["mx1.plain.example:25", "mx2.plain.example:25"],
            "{domain}"
        );
        assert_eq!(hops[0].origin, HopOrigin::Mx { preference: 10 });
        let found = router
            .addresses(&hops[0])
            .await
            .expect("addresses")
            .addresses;
        assert_eq!(
            found[0],
            addresses(&["[2001:db8::1]:25"])[0],
            "by turns, IPv6 first"
        );
        let mut found = found[1..].to_vec();
        found.sort_by_key(ToString::to_string);
        assert_eq!(found, addresses(&["192.0.2.1:25", "192.0.2.2:25"]));
    }
}

#[tokio::test]
async fn a_host_may_have_an_underscore_in_its_name() {
    let (router, _server) = router().await;
    let hops = mx(&router, "under.example").await.expect("hops");
    assert_eq!(names(&hops), ["mail_1.example:25"]);
    assert_eq!(
        router
            .addresses(&hops[0])
            .await
            .expect("addresses")
            .addresses,
        addresses(&["192.0.2.11:25"])
    );
}

#[tokio::test]
async fn without_mx_the_domain_itself_is_the_host() {
    let (router, _server) = router().await;
    let hops = mx(&router, "implicit.example").await.expect("hops");
    assert_eq!(
        (names(&hops), hops[0].origin),
        (
            vec!["implicit.example:25".to_owned()],
            HopOrigin::ImplicitMx
        )
    );
    let found = router
        .addresses(&hops[0])
        .await
        .expect("addresses")
        .addresses;
    assert_eq!(found, addresses(&["[2001:db8::9]:25", "192.0.2.9:25"]));
    assert_eq!(hops[0].smart_host(), None);
}

#[tokio::test]
async fn what_dns_says_of_a_domain_decides_its_failure() {
    use Persistence::{Permanent, Transient};
    let (router, _server) = router().await;
    for (domain, persistence, status, words) in [
        ("null.example", Permanent, Status(1, 10), "null MX"),
        ("absent.example", Permanent, Status(1, 2), "does not exist"),
        (
            "we-are-first.example",
            Permanent,
            Status(4, 6),
            "loops back to myself",
        ),
        ("odd.example", Transient, Status(4, 4), "names a valid host"),
        (
            "mail.elsewhere.test",
            Transient,
            Status(4, 3),
            "the MX lookup for mail.elsewhere.test failed",
        ),
    ] {
        let failure = mx(&router, domain).await.expect_err(domain);
        assert_eq!(
            (failure.scope, failure.persistence, failure.status),
            (Scope::Destination, persistence, status)
        );
        assert!(failure.to_string().contains(words), "{domain}: {failure}");
    }
}

#[tokio::test]
async fn a_null_mx_beside_others_is_passed_over() {
    let (router, _server) = router().await;
    assert_eq!(
        names(&mx(&router, "nearly-null.example").await.expect("hops")),
        ["mx1.plain.example:25"]
    );
}

#[tokio::test]
async fn we_and_everything_not_better_than_us_is_left_out() {
    let (router, _server) = router().await;
    assert_eq!(
        names(&mx(&router, "we-are-second.example").await.expect("hops")),
        ["mx1.plain.example:25"]
    );
}

#[tokio::test]
async fn a_host_without_addresses_harms_no_other() {
    let (router, _server) = router().await;
    let hops = mx(&router, "half.example").await.expect("hops");
    let failure = router
        .addresses(&hops[0])
        .await
        .expect_err("no server knows that zone");
    assert_eq!(
        (failure.scope, failure.persistence, failure.status),
        (Scope::Hop, Persistence::Transient, Status(4, 3))
    );
    assert!(router.addresses(&hops[1]).await.is_ok());

    let hops = mx(&router, "nothing.example").await.expect("hops");
    let failure = router
        .addresses(&hops[0])
        .await
        .expect_err("the host does not exist");
    assert_eq!((failure.scope, failure.status), (Scope::Hop, Status(4, 4)));
}

#[tokio::test]
async fn a_domain_with_neither_mx_nor_address_takes_no_mail() {
    let (router, _server) = router().await;
    let hops = mx(&router, "text.example")
        .await
        .expect("the name exists, for a name below it does");
    let failure = router.addresses(&hops[0]).await.expect_err("no address");
    assert_eq!(
        (failure.scope, failure.persistence, failure.status),
        (Scope::Destination, Persistence::Permanent, Status(4, 4))
    );
}

#[tokio::test]
async fn smart_hosts_and_literals_need_no_mx() {
    let (router, _server) = router().await;
    let connector = "[[connector]]\nname = \"a\"\ndomains = [\"absent.example\"]\n\
        [connector.outbound]\nroute = [\"mx1.plain.example:587\", \"[192.0.2.7]:25\", \"localhost:26\"]\n";
    let config = ConfigBuilder::new().with(connector).parse();
    let domain = Host::parse("absent.example").expect("a domain");
    let hops = router
        .hops(&domain, &config.connectors[0].outbound.route)
        .await
        .expect("hops")
        .hops;
    assert_eq!(
        names(&hops),
        ["mx1.plain.example:587", "[192.0.2.7]:25", "localhost:26"]
    );
    assert_eq!(hops[1].smart_host(), Some(&hops[1].host));
    assert_eq!(
        router
            .addresses(&hops[0])
            .await
            .expect("addresses")
            .addresses
            .len(),
        3
    );
    assert_eq!(
        router
            .addresses(&hops[1])
            .await
            .expect("addresses")
            .addresses,
        addresses(&["192.0.2.7:25"])
    );
    assert_eq!(
        router
            .addresses(&hops[2])
            .await
            .expect("addresses")
            .addresses,
        addresses(&["127.0.0.1:26", "[::1]:26"])
    );

    let literal = Host::parse("[IPv6:2001:db8::5]").expect("a literal");
    let hops = router
        .hops(&literal, &Route::Mx { port: 2525 })
        .await
        .expect("hops")
        .hops;
    assert_eq!(hops[0].smart_host(), None);
    assert_eq!(
        router
            .addresses(&hops[0])
            .await
            .expect("addresses")
            .addresses,
        addresses(&["[2001:db8::5]:2525"])
    );
}
