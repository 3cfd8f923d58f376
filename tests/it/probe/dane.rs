//! TLSA records of signed zones, found as a delivery finds them.

use aws_lc_rs::digest::{SHA256, digest};
use gatepost::policy::tls::{Tlsa, TlsaMatching, TlsaSelector, TlsaUsage};

use super::world::{Answer, WHOLE, World, commands, showing};
use crate::support::certificates::{Pair, self_signed};
use crate::support::zones::{Kind, Resolver, Zones};

/// The record 3 1 1 about the leaf of a chain.
fn record(pair: &Pair) -> Tlsa {
    let (_, read) = x509_parser::parse_x509_certificate(&pair.chain[0]).expect("a certificate");
    let data = digest(&SHA256, read.public_key().raw).as_ref().to_vec();
    Tlsa {
        usage: TlsaUsage::EndEntity,
        selector: TlsaSelector::PublicKey,
        matching: TlsaMatching::Sha256,
        data,
    }
}

/// Probes `good.test`, whose one host shows `shown`, and whose record names the key of `named`.
async fn probed(shown: &Pair, named: &Pair) -> (Answer, Vec<Vec<String>>) {
    let (world, peer) = (World::new().await, showing(shown).await);
    let port = peer.address.port();
    let records = format!(
        "good.test MX 10 mx.good.test\nmx.good.test A 127.0.0.1\n_{port}._tcp.mx.good.test TLSA {:#}",
        record(named)
    );
    let zones = Zones::new()
        .zone("good.test", Kind::Signed, &records)
        .start(Resolver::default())
        .await;
    let dns = format!(
        "servers = [\"{}\"]\ntrust_anchor = \"{}\"",
        zones.address,
        zones.anchor("dnskey").display()
    );
    let connector = format!(
        "[[connector]]\nname = \"internet\"\ndomains = [\"*\"]\n[connector.outbound]\nport = {port}\ndiscover = [\"dane\"]\n"
    );
    world.write_with(&dns, &connector);
    (world.probe(&["good.test"]).await, commands(&peer).await)
}

#[tokio::test]
async fn the_record_that_matched_is_shown() {
    let pair = self_signed(&["whatever.example"], |_| {});
    let (answer, heard) = probed(&pair, &pair).await;
    let record = record(&pair);
    answer
        .ends(0)
        .has(&format!("DANE      {record} at mx.good.test"));
    answer.has("demand    DANE: TLS with a certificate that the TLSA records of mx.good.test name");
    answer
        .has(&format!("met: authenticated by DANE ({record})"))
        .has("trusted   NO: it is self-signed");
    assert_eq!(heard, [WHOLE]);
}

/// Mandatory DANE means the domain: nobody is dialled whom unsigned MX records name, and a delivery
/// is not either.
#[tokio::test]
async fn under_mandatory_dane_unsigned_mx_records_are_refused() {
    let pair = self_signed(&["whatever.example"], |_| {});
    let (world, peer) = (World::new().await, showing(&pair).await);
    let port = peer.address.port();
    let good = format!(
        "mx.good.test A 127.0.0.1\n_{port}._tcp.mx.good.test TLSA {:#}",
        record(&pair)
    );
    let zones = Zones::new()
        .zone("test", Kind::Signed, "")
        .zone("good.test", Kind::Signed, &good)
        .zone(
            "plain.test",
            Kind::Unsigned,
            "plain.test MX 10 mx.good.test",
        )
        .start(Resolver::default())
        .await;
    let dns = format!(
        "servers = [\"{}\"]\ntrust_anchor = \"{}\"",
        zones.address,
        zones.anchor("dnskey").display()
    );
    let connector = format!(
        "[[connector]]\nname = \"internet\"\ndomains = [\"*\"]\n[connector.outbound]\nport = {port}\ndiscover = \
         [\"dane\"]\ntls = \"forced\"\nverify = \"dane\"\n"
    );
    world.write_with(&dns, &connector);
    let answer = world.probe(&["plain.test"]).await;
    answer.ends(1).has("REFUSED   4.7.5 ").has(
        "TLS authenticated by DANE is demanded, but the MX records of plain.test are not signed with DNSSEC, so that the \
         host may be anybody's; a delivery does not dial it",
    );
    assert!(
        commands(&peer)
            .await
            .iter()
            .flatten()
            .all(|line| !line.starts_with("MAIL"))
    );
}

#[tokio::test]
async fn a_key_that_no_record_names_is_refused() {
    let (shown, named) = (
        self_signed(&["mx.good.test"], |_| {}),
        self_signed(&["mx.good.test"], |_| {}),
    );
    let (answer, heard) = probed(&shown, &named).await;
    answer
        .ends(1)
        .has("NOT MET: the certificate is not the one that the TLSA record names")
        .has("FAILS: 4.7.5 ");
    assert_eq!(heard, [WHOLE]);
}

/// Keys that the domain names itself are demanded by these records, not by a pin that grows old.
#[tokio::test]
async fn a_new_connector_demands_dane_where_every_host_has_it() {
    let pair = self_signed(&["whatever.example"], |_| {});
    let (world, peer) = (World::new().await, showing(&pair).await);
    let port = peer.address.port();
    let records = format!(
        "good.test MX 10 mx.good.test\nmx.good.test A 127.0.0.1\n_{port}._tcp.mx.good.test TLSA {:#}",
        record(&pair)
    );
    let zones = Zones::new()
        .zone("good.test", Kind::Signed, &records)
        .start(Resolver::default())
        .await;
    let dns = format!(
        "servers = [\"{}\"]\ntrust_anchor = \"{}\"",
        zones.address,
        zones.anchor("dnskey").display()
    );
    let others = format!(
        "[[connector]]\nname = \"internet\"\ndomains = [\"*\"]\n[connector.outbound]\nport = {port}\n"
    );
    world.write_with(&dns, &others);
    let answer = world
        .run("500", &["connector", "add", "good.test", "--stdout"])
        .await;
    answer
        .ends(0)
        .has("\nverify = \"dane\" ")
        .lacks("pins =")
        .lacks("names =");
    let comments = answer.out.replace("\n# ", " ");
    assert!(
        comments.contains("DANE: 1 of 1 host has usable TLSA records. They suffice"),
        "{comments}"
    );
    assert!(
        comments.contains("The connector adds that mail waits if the records go away"),
        "{comments}"
    );
    assert_eq!(commands(&peer).await, [WHOLE, WHOLE]);
}
