//! The output about certificates and extensions, for people and for programs.

use serde_json::json;

use super::world::{HOP, World, showing, smart, tls};
use crate::support::certificates::key_pin;
use crate::support::peer::{Manner, Peer};

const NAME: &str = "tls = \"forced\"\nverify = \"name\"";

#[tokio::test]
async fn the_chain_is_shown_as_it_was_sent() {
    let world = World::new().await;
    let pair = world
        .authority
        .intermediate("Test Authority 2")
        .issue(&[HOP, "*.partner.example"]);
    let peer = showing(&pair).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        NAME,
    ));
    let answer = world.probe(&["partner.example"]).await;
    answer
        .ends(0)
        .has("cert 1    CN=a host")
        .has(&format!("for {HOP}, *.partner.example"));
    answer
        .has("issued by CN=Test Authority 2")
        .has("cert 2    CN=Test Authority 2")
        .has("issued by CN=The Test Authority");
    answer.has("trusted   yes").lacks("cert 3");
    for sent in &pair.chain {
        answer.has(&format!("pins = [\"{}\"]", key_pin(sent)));
    }
}

#[tokio::test]
async fn extensions_are_those_offered_under_tls() {
    let world = World::new().await;
    let starttls = tls(&world.authority.issue(&[HOP]));
    let keywords = &["SIZE 52428800", "8BITMIME", "SMTPUTF8", "DSN", "REQUIRETLS"];
    let peer = Peer::start(Manner {
        keywords,
        ..Manner::new(starttls)
    })
    .await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        NAME,
    ));
    let answer = world.probe(&["partner.example"]).await;
    answer
        .ends(0)
        .has("offers    SIZE 52428800, 8BITMIME, SMTPUTF8, DSN, REQUIRETLS\n");
    let bare = showing(&world.authority.issue(&[HOP])).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        bare.address.port(),
        NAME,
    ));
    let answer = world.probe(&["partner.example"]).await;
    answer.has("offers    SIZE without a limit, 8BITMIME, no SMTPUTF8, no DSN, no REQUIRETLS\n");
}

#[tokio::test]
async fn json_is_one_document_with_everything() {
    let world = World::new().await;
    let pair = world.authority.issue(&["other.example"]);
    let peer = showing(&pair).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        NAME,
    ));
    let answer = world.probe(&["partner.example", "--json"]).await;
    let probe = answer.ends(1).json();
    assert_eq!(
        (&probe["domain"], &probe["connector"]),
        (&json!("partner.example"), &json!("partner"))
    );
    assert_eq!(
        (&probe["outcome"], &probe["fails"], &probe["peer"]),
        (&json!("deferred"), &json!(true), &json!(null))
    );
    assert_eq!(probe["failure"]["status"], "4.7.5");
    assert_eq!(probe["memory"]["state"], "unknown");
    let address = &probe["hops"][0]["addresses"][0];
    assert_eq!(
        address["address"],
        format!("127.0.0.1:{}", peer.address.port())
    );
    assert_eq!(
        (&address["tls"]["version"], &address["trusted"]),
        (&json!("TLSv1.3"), &json!(true))
    );
    assert_eq!(address["demands"][0]["layer"], "connector");
    assert_eq!(
        (&address["demands"][0]["met"], &address["cleared"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(address["chain"][0]["pin"], key_pin(&pair.chain[0]));
    assert_eq!(address["chain"][0]["names"], json!(["other.example"]));
    assert_eq!(
        (
            &address["extensions"]["size"],
            &address["extensions"]["dsn"]
        ),
        (&json!(true), &json!(false))
    );
}

#[tokio::test]
async fn what_a_peer_says_cannot_write_on_the_terminal() {
    let world = World::new().await;
    let peer = Peer::start(Manner {
        greeting: "554 \u{1b}[2Jgo away",
        ..Manner::new(crate::support::peer::Starttls::NotOffered)
    })
    .await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        NAME,
    ));
    world
        .probe(&["partner.example"])
        .await
        .ends(1)
        .has("go away")
        .lacks("\u{1b}");
}
