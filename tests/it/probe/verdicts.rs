//! The verdicts of a probe, the commands that it sends to the peer, and its exit code.

use rcgen::date_time_ymd;

use super::world::{HOP, WHOLE, World, commands, connector, showing, smart, tls};
use crate::support::certificates::{Authority, BOTH, key_pin, self_signed, server_config};
use crate::support::peer::{Manner, Nobody, Peer, Starttls};
use crate::support::picky::{Does, Over, Picky};

const NAME: &str = "tls = \"forced\"\nverify = \"name\"";

#[tokio::test]
async fn a_good_hop_hears_ehlo_starttls_ehlo_and_quit() {
    let world = World::new().await;
    let peer = world.good(&[HOP]).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        NAME,
    ));
    let answer = world.probe(&["partner.example"]).await;
    answer
        .ends(0)
        .has("partner.example, by connector \"partner\"")
        .has(&format!("met: verified as {HOP}"));
    answer
        .has("mail may be sent under TLS")
        .has("TLSv1.3, TLS_")
        .lacks("NOT MET")
        .lacks("FAILS");
    answer.has(&format!(
        "Mail for partner.example would go to {HOP} [127.0.0.1]:{} under TLS.",
        peer.address.port()
    ));
    assert_eq!(commands(&peer).await, [WHOLE]);
}

#[tokio::test]
async fn an_address_is_probed_by_its_domain() {
    let world = World::new().await;
    let peer = world.good(&[HOP]).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        NAME,
    ));
    world
        .probe(&["somebody@Partner.Example"])
        .await
        .ends(0)
        .has("partner.example, by connector \"partner\"");
}

#[tokio::test]
async fn what_falls_short_hears_the_same_and_never_mail() {
    let world = World::new().await;
    let stranger = Authority::root("Stranger CA");
    for (what, pair, verify, words) in [
        (
            "name",
            world.authority.issue(&["other.example"]),
            "name",
            "the certificate is for other.example, not for mx.",
        ),
        (
            "self-signed",
            self_signed(&[HOP], |_| {}),
            "chain",
            "the certificate is not trusted: it is self-signed",
        ),
        (
            "stranger",
            stranger.issue(&[HOP]),
            "chain",
            "its issuer (CN=Stranger CA) is not trusted",
        ),
        (
            "expired",
            world.authority.issue_as(&[HOP], |params| {
                params.not_after = date_time_ymd(2021, 2, 3);
            }),
            "name",
            "it expired on 2021-02-03",
        ),
    ] {
        let peer = showing(&pair).await;
        let policy = format!("tls = \"forced\"\nverify = \"{verify}\"");
        world.write(&smart(
            "partner",
            &["partner.example"],
            peer.address.port(),
            &policy,
        ));
        let answer = world.probe(&["partner.example"]).await;
        answer
            .ends(1)
            .has("NOT MET: the certificate is ")
            .has(words)
            .has("FAILS: 4.7.5 ");
        answer
            .has("Mail for partner.example would be DEFERRED:\n  4.7.5 ")
            .has("5.4.7 not delivered within 5d");
        // The probe asks for its extensions all the same.
        answer.has("offers    SIZE");
        assert_eq!(commands(&peer).await, [WHOLE], "{what}");
    }
}

#[tokio::test]
async fn no_starttls_is_refused_or_shown_as_the_policy_has_it() {
    let world = World::new().await;
    for (starttls, words) in [
        (Starttls::NotOffered, "the peer does not offer STARTTLS"),
        (
            Starttls::Answered("454 4.7.0 not now"),
            "the peer refused STARTTLS: 454 4.7.0 not now",
        ),
    ] {
        let offered = !matches!(starttls, Starttls::NotOffered);
        let peer = Peer::start(Manner::new(starttls)).await;
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
            .has(words)
            .has("FAILS: 4.7.4 ");
        world.write(&smart(
            "partner",
            &["partner.example"],
            peer.address.port(),
            "tls = \"opportunistic\"",
        ));
        let answer = world.probe(&["partner.example"]).await;
        answer
            .ends(0)
            .has(&format!("no TLS    {words}"))
            .has("mail may be sent IN THE CLEAR")
            .has("IN THE CLEAR: ");
        for heard in commands(&peer).await {
            let said: &[&str] = if offered {
                &["EHLO relay.example.com", "STARTTLS", "QUIT"]
            } else {
                &["EHLO relay.example.com", "QUIT"]
            };
            assert_eq!(heard, said);
        }
    }
}

#[tokio::test]
async fn a_broken_handshake_is_tried_in_the_clear_only_as_a_delivery_would() {
    let world = World::new().await;
    for (policy, code, connections) in [("opportunistic", 0, 3), ("forced", 1, 2)] {
        let peer = Peer::start(Manner::new(Starttls::Closes)).await;
        let policy = format!("tls = \"{policy}\"");
        world.write(&smart(
            "partner",
            &["partner.example"],
            peer.address.port(),
            &policy,
        ));
        let answer = world.probe(&["partner.example"]).await;
        answer
            .ends(code)
            .has("no TLS    the TLS handshake failed: the peer closed the connection during the handshake");
        let heard = commands(&peer).await;
        assert_eq!(heard.len(), connections, "{policy}");
        for tried in &heard[..2] {
            assert_eq!(*tried, ["EHLO relay.example.com", "STARTTLS"]);
        }
        for last in &heard[2..] {
            assert_eq!(*last, ["EHLO relay.example.com", "QUIT"]);
        }
    }
}

#[tokio::test]
async fn a_second_try_is_shown_with_its_reason() {
    let world = World::new().await;
    let config = server_config(&world.authority.issue(&[HOP]), BOTH);
    let picky = Picky {
        over: Over::Large,
        does: Does::Resets,
    };
    for (policy, hello) in [
        (NAME, "classical key exchange, all curves"),
        (
            "tls = \"opportunistic\"",
            "classical key exchange, all curves, without SNI",
        ),
    ] {
        let peer = Peer::start(Manner::new(Starttls::Picky(picky, config.clone().into()))).await;
        world.write(&smart(
            "partner",
            &["partner.example"],
            peer.address.port(),
            policy,
        ));
        let answer = world.probe(&["partner.example"]).await;
        answer.ends(0).has(&format!(
            "  broken    the peer reset the connection during the handshake\n            second handshake with {hello}\n"
        ));
        answer
            .has("TLS_AES_256_GCM_SHA384, key exchange X25519\n")
            .has(" under TLS.\n");
        let told = world.probe(&["partner.example", "--json"]).await.json();
        let address = &told["hops"][0]["addresses"][0];
        assert_eq!(
            address["first_try"]["fault"],
            "the peer reset the connection during the handshake"
        );
        assert_eq!(address["first_try"]["second_client_hello"], hello);
        assert_eq!(address["tls"]["key_exchange"], "X25519");
        let quit = |heard: &Vec<String>| heard.last().is_some_and(|command| command == "QUIT");
        assert_eq!(
            commands(&peer).await.iter().map(quit).collect::<Vec<_>>(),
            [false, true, false, true]
        );
    }
}

#[tokio::test]
async fn an_opportunistic_hops_certificate_is_shown_completely() {
    let world = World::new().await;
    let pair = self_signed(&["other.example"], |_| {});
    let peer = showing(&pair).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        "tls = \"opportunistic\"",
    ));
    let answer = world.probe(&["partner.example"]).await;
    answer
        .ends(0)
        .has("policy    TLS opportunistic")
        .has("trusted   NO: it is self-signed")
        .has("for other.example");
    answer
        .has(&format!("pins = [\"{}\"]", key_pin(&pair.chain[0])))
        .has("under TLS, though the certificate is not trusted: it is self-signed");
    assert_eq!(commands(&peer).await, [WHOLE]);
}

#[tokio::test]
async fn a_pin_that_is_shown_can_be_pasted() {
    let world = World::new().await;
    let peer = showing(&self_signed(&[HOP], |_| {})).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        "tls = \"opportunistic\"",
    ));
    let answer = world.probe(&["partner.example"]).await;
    let pins = answer
        .out
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("pins = "))
        .expect("a line to paste");
    let policy = format!(
        "route = [\"{HOP}:{}\"]\ntls = \"forced\"\nverify = \"pin\"",
        peer.address.port()
    );
    world.write(&format!(
        "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n{pins}\n[connector.outbound]\n{policy}\n"
    ));
    world
        .probe(&["partner.example"])
        .await
        .ends(0)
        .has("met: pinned by sha256:");
}

#[tokio::test]
async fn every_hop_is_probed_and_one_good_one_is_enough() {
    let world = World::new().await;
    let pair = world.authority.issue(&["mx2.partner.example"]);
    let (nobody, second) = Nobody::before(|| Manner::new(tls(&pair))).await;
    let port = nobody.address.port();
    world.write(&connector(
        "partner",
        &["partner.example"],
        &format!("port = {port}\ntls = \"forced\"\nverify = \"chain\""),
    ));
    let answer = world.probe(&["partner.example"]).await;
    answer
        .ends(0)
        .has(&format!("mx1.partner.example:{port} (MX 10)"))
        .has("FAILS: 4.4.1 cannot connect");
    answer
        .has(&format!("mx2.partner.example:{port} (MX 20)"))
        .has(&format!(
            "would go to mx2.partner.example [127.0.0.2]:{port}"
        ));
    assert_eq!(commands(&second).await, [WHOLE]);
}

#[tokio::test]
async fn what_no_hop_can_do_is_shown_as_its_sender_would_read_it() {
    let world = World::new().await;
    world.write("");
    let answer = world.probe(&["null.example"]).await;
    answer
        .ends(1)
        .has("null.example would BOUNCE at once:\n  5.1.10 null.example accepts no mail");
    let answer = world.probe(&["nowhere.example"]).await;
    answer
        .ends(1)
        .has("5.1.2 the domain nowhere.example does not exist");
    for (on_failure, words) in [
        ("hold", "would be HELD until"),
        ("bounce", "would BOUNCE at once:\n  5.7.4"),
    ] {
        let peer = Peer::start(Manner::new(Starttls::NotOffered)).await;
        let policy = format!("{NAME}\non_failure = \"{on_failure}\"");
        world.write(&smart(
            "partner",
            &["partner.example"],
            peer.address.port(),
            &policy,
        ));
        world.probe(&["partner.example"]).await.ends(1).has(words);
    }
}

#[tokio::test]
async fn the_demands_of_another_connector_can_be_tried() {
    let world = World::new().await;
    let peer = world.good(&["other.example"]).await;
    let port = peer.address.port();
    let connectors = smart("lax", &["partner.example"], port, "tls = \"opportunistic\"")
        + &smart("strict", &["strict.example"], port, NAME);
    world.write(&connectors);
    world.probe(&["partner.example"]).await.ends(0);
    let answer = world
        .probe(&["partner.example", "--connector", "strict"])
        .await;
    answer
        .ends(1)
        .has("partner.example, by connector \"strict\"")
        .has("NOT MET");
    let answer = world
        .probe(&["partner.example", "--connector", "strikt"])
        .await;
    answer.ends(2);
    assert_eq!(
        answer.err,
        "gatepost probe: there is no connector \"strikt\"; did you mean \"strict\"? (there are: lax, strict, default)\n"
    );
}

#[tokio::test]
async fn arguments_and_configurations_that_cannot_be_used_end_with_2() {
    let world = World::new().await;
    world.write("");
    for arguments in [
        &[][..],
        &["not a domain"],
        &["a.example", "--all"],
        &["--all", "--connector", "x"],
    ] {
        world.probe(arguments).await.ends(2);
    }
    world.write("nonsense = 1");
    world.probe(&["a.example"]).await.ends(2);
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let world = World::new().await;
    let peer = world.good(&[HOP]).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        NAME,
    ));
    world.probe(&["partner.example"]).await.ends(0);
    let mut left: Vec<_> = std::fs::read_dir(world.folder.path())
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["ca.pem", "gatepost.toml"],
        "no spool, no memory, no policies"
    );
}
