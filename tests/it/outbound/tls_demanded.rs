//! Hosts that insist on TLS, and could not be given it: their 5xx is not final (RFC 3207
//! §4).

use crate::support::certificates::{BOTH, server_config};
use crate::support::deliveries::{World, connector, deliver, failure, message, outcome};
use crate::support::peer::{Manner, Peer, Starttls};

const DEMAND: &str = "530 5.7.0 Must issue a STARTTLS command first";

fn smart_hosts(peers: &[&Peer], more: &str) -> String {
    let hosts: Vec<String> = peers
        .iter()
        .map(|peer| format!("mx.partner.example:{}", peer.address.port()))
        .collect();
    connector(
        "partner",
        &["partner.example"],
        &format!("route = {hosts:?}\n{more}"),
    )
}

#[tokio::test]
async fn a_demand_for_tls_that_could_not_be_met_waits_and_both_reasons_are_given() {
    let world = World::new().await;
    for (starttls, reason) in [
        (Starttls::Closes, "the TLS handshake failed"),
        (Starttls::Vanishes, "the TLS handshake failed"),
        (
            Starttls::Answered("454 4.7.0 TLS not available due to local problem"),
            "454 4.7.0 TLS not available",
        ),
        (
            Starttls::Speaks("250 hello"),
            "clear text after agreeing to STARTTLS",
        ),
    ] {
        for (command, demand) in [
            ("MAIL", DEMAND),
            ("RCPT", DEMAND),
            ("MAIL", "550 5.7.4 not so"),
            ("MAIL", "523 5.7.10 Encryption needed"),
            ("MAIL", "550 5.7.1 TLS required"),
            ("MAIL", "550 encryption is a must"),
        ] {
            let peer = Peer::start(Manner::new(starttls.clone()).answer(command, demand)).await;
            let outbound = world.outbound(&smart_hosts(&[&peer], ""));
            let report = deliver(&outbound, message(&["b@partner.example"])).await;
            assert!(
                outcome(&report, 0).starts_with("deferred 4."),
                "{demand}: {report:?}"
            );
            let text = failure(&report, 0).to_string();
            assert!(text.contains(demand) && text.contains(reason), "{text}");
        }
    }
}

/// STARTTLS may have been taken from the EHLO answer on the way.
#[tokio::test]
async fn a_demand_for_tls_that_was_not_offered_waits() {
    let world = World::new().await;
    let peer = Peer::start(Manner::new(Starttls::NotOffered).answer("MAIL", DEMAND)).await;
    let report = deliver(
        &world.outbound(&smart_hosts(&[&peer], "")),
        message(&["b@partner.example"]),
    )
    .await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.0", "{report:?}");
    let text = failure(&report, 0).to_string();
    assert!(
        text.contains(DEMAND) && text.contains("does not offer STARTTLS"),
        "{text}"
    );
}

#[tokio::test]
async fn another_host_may_have_what_the_first_lacks() {
    let world = World::new().await;
    let first = Peer::start(Manner::new(Starttls::Closes).answer("MAIL", DEMAND)).await;
    let pair = world.authority.issue(&["mx.partner.example"]);
    let second = Peer::start(Manner::new(Starttls::Tls(
        server_config(&pair, BOTH).into(),
    )))
    .await;
    let outbound = world.outbound(&smart_hosts(&[&first, &second], ""));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
}

/// An answer that has nothing to do with TLS, or that the administrator asked for, stays final.
#[tokio::test]
async fn any_other_permanent_answer_is_final() {
    let world = World::new().await;
    let pair = world.authority.issue(&["mx.partner.example"]);
    for (starttls, answer, more, ends) in [
        (
            Starttls::Closes,
            "550 5.1.1 no such user",
            "",
            "bounced 5.1.1",
        ),
        (
            Starttls::Closes,
            "550 5.7.1 your network is blocked",
            "",
            "bounced 5.7.1",
        ),
        (
            Starttls::NotOffered,
            "530 5.7.0 Authentication required",
            "",
            "bounced 5.7.0",
        ),
        (Starttls::Closes, DEMAND, "tls = \"off\"", "bounced 5.7.0"),
        (
            Starttls::Tls(server_config(&pair, BOTH).into()),
            "530 5.7.0 Authentication required",
            "",
            "bounced 5.7.0",
        ),
    ] {
        let peer = Peer::start(Manner::new(starttls).answer("MAIL", answer)).await;
        let report = deliver(
            &world.outbound(&smart_hosts(&[&peer], more)),
            message(&["b@partner.example"]),
        )
        .await;
        assert_eq!(outcome(&report, 0), ends, "{answer}: {report:?}");
    }
}
