//! REQUIRETLS on the way out (RFC 8689 §4.2.1, §5): who hears of the message, and who does not.

use gatepost::smtp::address::ReversePath;
use gatepost::smtp::envelope::TlsRequirement;
use gatepost::storage::spool::Entry;

use crate::support::certificates::{Authority, BOTH, server_config};
use crate::support::deliveries::{World, connector, deliver, failure, message, outcome};
use crate::support::peer::{Manner, Nobody, Peer, Starttls};

const PROMISES: &[&str] = &["PIPELINING", "SIZE", "REQUIRETLS"];
const PROMISES_NOTHING: &[&str] = &["PIPELINING", "SIZE"];

/// A peer with a certificate of this authority for this name.
async fn peer(authority: &Authority, name: &str, keywords: &'static [&'static str]) -> Peer {
    let starttls = Starttls::Tls(server_config(&authority.issue(&[name]), BOTH).into());
    Peer::start(Manner {
        keywords,
        ..Manner::new(starttls)
    })
    .await
}

/// The way to smart hosts that are all known as `mx.partner.example`.
fn way(ports: &[u16], more: &str) -> String {
    let hosts: Vec<String> = ports
        .iter()
        .map(|port| format!("mx.partner.example:{port}"))
        .collect();
    connector(
        "partner",
        &["partner.example"],
        &format!("route = {hosts:?}\n{more}"),
    )
}

fn asking(tls: TlsRequirement) -> Entry {
    let mut entry = message(&["b@partner.example"]);
    entry.envelope.tls = tls;
    entry
}

fn requiring() -> Entry {
    asking(TlsRequirement::Require)
}

/// A report about a message that required TLS.
fn report() -> Entry {
    let mut entry = requiring();
    entry.envelope.reverse_path = ReversePath::Null;
    entry
}

/// The MAIL commands that a peer heard.
fn mails(peer: &Peer) -> Vec<String> {
    let heard = peer.heard().into_iter().flat_map(|heard| heard.commands);
    heard.filter(|line| line.starts_with("MAIL")).collect()
}

/// An administrator who has switched TLS off is not overruled, and neither is the sender.
#[tokio::test]
async fn where_tls_is_switched_off_nobody_is_dialled() {
    let world = World::new().await;
    let peer = peer(&world.authority, "mx.partner.example", PROMISES).await;
    let outbound = world.outbound(&way(&[peer.address.port()], "tls = \"off\""));
    let report = deliver(&outbound, requiring()).await;
    assert_eq!(outcome(&report, 0), "bounced 5.7.10");
    assert!(
        failure(&report, 0)
            .to_string()
            .ends_with("and the connector has it switched off"),
        "{report:?}"
    );
    assert!(peer.heard().is_empty());
}

/// RFC 8689 §4.2.1, step 2: a certificate is worth little where anybody could have named the host.
#[tokio::test]
async fn a_host_that_unsigned_mx_records_name_does_not_get_it() {
    let world = World::new().await;
    let pair = world.authority.issue(&["mx1.partner.example"]);
    let manner = Manner::new(Starttls::Tls(server_config(&pair, BOTH).into()));
    let peer = Peer::start(Manner {
        keywords: PROMISES,
        ..manner
    })
    .await;
    let domain = ["other.example"];
    let outbound = world.outbound(&connector(
        "other",
        &domain,
        &format!("port = {}", peer.address.port()),
    ));
    let mut entry = message(&["b@other.example"]);
    entry.envelope.tls = TlsRequirement::Require;
    let report = deliver(&outbound, entry).await;
    assert_eq!(outcome(&report, 0), "bounced 5.7.10", "{report:?}");
    assert!(
        failure(&report, 0)
            .to_string()
            .contains("nothing proves that the host is the domain's"),
        "{report:?}"
    );
    assert!(peer.heard().is_empty(), "there was no need to dial");
    assert_eq!(
        outcome(&deliver(&outbound, message(&["b@other.example"])).await, 0),
        "delivered"
    );
}

const ON_FAILURE: [&str; 3] = ["", "on_failure = \"hold\"", "on_failure = \"bounce\""];

#[tokio::test]
async fn what_requires_tls_goes_on_under_the_same_promise() {
    let world = World::new().await;
    for tls in ["opportunistic", "forced"] {
        let peer = peer(&world.authority, "mx.partner.example", PROMISES).await;
        let outbound = world.outbound(&way(&[peer.address.port()], &format!("tls = \"{tls}\"")));
        assert_eq!(
            outcome(&deliver(&outbound, requiring()).await, 0),
            "delivered",
            "{tls}"
        );
        assert_eq!(
            mails(&peer),
            ["MAIL FROM:<sender@example.com> SIZE=37 REQUIRETLS"],
            "{tls}"
        );
    }
}

/// The administrator's route and names prove the host as well as a name in the route does.
#[tokio::test]
async fn the_connectors_names_prove_a_smart_host_whatever_the_route_calls_it() {
    let world = World::new().await;
    for host in ["[127.0.0.1]", "mx1.partner.example"] {
        for (name, ends, mail) in [
            (
                "only.partner.example",
                "delivered",
                &["MAIL FROM:<sender@example.com> SIZE=37 REQUIRETLS"][..],
            ),
            ("other.example", "deferred 4.7.5", &[]),
        ] {
            let peer = peer(&world.authority, name, PROMISES).await;
            let port = peer.address.port();
            let route = format!("route = [\"{host}:{port}\"]\ntls = \"forced\"\nverify = \"name\"");
            let domains = "domains = [\"partner.example\"]";
            let names = format!("{domains}\nnames = [\"only.partner.example\"]");
            let way = connector("partner", &["partner.example"], &route).replace(domains, &names);
            let report = deliver(&world.outbound(&way), requiring()).await;
            assert_eq!(outcome(&report, 0), ends, "{host}: {report:?}");
            assert_eq!(mails(&peer), mail, "{host}");
        }
    }
}

/// Without names nothing proves the host, and the report says what is missing.
#[tokio::test]
async fn a_smart_host_named_by_its_address_alone_does_not_get_it() {
    let world = World::new().await;
    let peer = peer(&world.authority, "mx.partner.example", PROMISES).await;
    let route = format!("route = [\"[127.0.0.1]:{}\"]", peer.address.port());
    let report = deliver(
        &world.outbound(&connector("partner", &["partner.example"], &route)),
        requiring(),
    )
    .await;
    assert_eq!(outcome(&report, 0), "bounced 5.7.10", "{report:?}");
    let text = failure(&report, 0).to_string();
    assert!(
        text.contains("[127.0.0.1] has no name, and the connector has no `names`"),
        "{text}"
    );
    assert!(peer.heard().is_empty(), "there was no need to dial");
}

#[tokio::test]
async fn without_requiretls_nothing_of_the_envelope_is_sent_and_it_bounces() {
    let world = World::new().await;
    for on_failure in ON_FAILURE {
        let peer = peer(&world.authority, "mx.partner.example", PROMISES_NOTHING).await;
        let outbound = world.outbound(&way(&[peer.address.port()], on_failure));
        let report = deliver(&outbound, requiring()).await;
        assert_eq!(outcome(&report, 0), "bounced 5.7.30", "{on_failure}");
        let text = failure(&report, 0).to_string();
        let host = format!("mx.partner.example [127.0.0.1]:{}: ", peer.address.port());
        assert!(
            text.starts_with(&host) && text.contains("does not offer REQUIRETLS"),
            "{text}"
        );
        outbound.close();
        let heard = peer.heard_to_the_end().await;
        assert_eq!(heard[0].commands.last().map(String::as_str), Some("QUIT"));
        assert_eq!(mails(&peer), Vec::<String>::new());
    }
}

#[tokio::test]
async fn without_tls_nothing_of_the_envelope_is_sent_and_it_bounces() {
    let world = World::new().await;
    for starttls in [
        Starttls::NotOffered,
        Starttls::Answered("454 4.7.0 not now"),
        Starttls::Closes,
    ] {
        for on_failure in ON_FAILURE {
            let peer = Peer::start(Manner {
                keywords: PROMISES,
                ..Manner::new(starttls.clone())
            })
            .await;
            let outbound = world.outbound(&way(&[peer.address.port()], on_failure));
            let report = deliver(&outbound, requiring()).await;
            assert_eq!(outcome(&report, 0), "bounced 5.7.10", "{on_failure}");
            assert!(
                failure(&report, 0).to_string().contains("REQUIRETLS"),
                "{}",
                failure(&report, 0)
            );
            assert_eq!(mails(&peer), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_does_not_get_it() {
    let world = World::new().await;
    let stranger = Authority::root("Nobody We Know");
    for (authority, name) in [
        (&world.authority, "other.example"),
        (&stranger, "mx.partner.example"),
    ] {
        for demand in [
            "tls = \"opportunistic\"",
            "tls = \"forced\"\nverify = \"none\"",
        ] {
            let peer = peer(authority, name, PROMISES).await;
            let outbound = world.outbound(&way(&[peer.address.port()], demand));
            assert_eq!(
                outcome(&deliver(&outbound, requiring()).await, 0),
                "bounced 5.7.10",
                "{name}, {demand}"
            );
            assert_eq!(mails(&peer), Vec::<String>::new());
            // Other mail may go there, and promises nothing.
            assert_eq!(
                outcome(
                    &deliver(&outbound, message(&["b@partner.example"])).await,
                    0
                ),
                "delivered"
            );
            assert_eq!(mails(&peer), ["MAIL FROM:<sender@example.com> SIZE=37"]);
        }
    }
}

#[tokio::test]
async fn the_connectors_own_demand_is_still_for_on_failure() {
    let world = World::new().await;
    let peer = peer(&world.authority, "mx.partner.example", PROMISES).await;
    let port = peer.address.port();
    let demand = "tls = \"forced\"\nverify = \"name\"";
    let names = "domains = [\"partner.example\"]\nnames = [\"only.partner.example\"]";
    let way = way(&[port], demand).replace("domains = [\"partner.example\"]", names);
    let outbound = world.outbound(&way);
    assert_eq!(
        outcome(&deliver(&outbound, requiring()).await, 0),
        "deferred 4.7.5"
    );
    assert_eq!(mails(&peer), Vec::<String>::new());
}

#[tokio::test]
async fn a_hop_that_promises_is_found_behind_those_that_do_not() {
    let world = World::new().await;
    let clear = Peer::start(Manner {
        keywords: PROMISES,
        ..Manner::new(Starttls::NotOffered)
    })
    .await;
    let silent = peer(&world.authority, "mx.partner.example", PROMISES_NOTHING).await;
    let good = peer(&world.authority, "mx.partner.example", PROMISES).await;
    let ports = [&clear, &silent, &good].map(|peer| peer.address.port());
    let outbound = world.outbound(&way(&ports, ""));
    let report = deliver(&outbound, requiring()).await;
    assert_eq!(
        (outcome(&report, 0).as_str(), report.trail.len()),
        ("delivered", 2),
        "{report:?}"
    );
    assert_eq!(
        (
            mails(&clear).len(),
            mails(&silent).len(),
            mails(&good).len()
        ),
        (0, 0, 1)
    );
}

#[tokio::test]
async fn it_bounces_only_where_every_hop_has_refused() {
    let world = World::new().await;
    let down = Nobody::at([127, 0, 0, 1]);
    let silent = peer(&world.authority, "mx.partner.example", PROMISES_NOTHING).await;
    for ports in [
        [silent.address.port(), down.address.port()],
        [down.address.port(), silent.address.port()],
    ] {
        let outbound = world.outbound(&way(&ports, ""));
        let report = deliver(&outbound, requiring()).await;
        assert_eq!(
            outcome(&report, 0),
            "deferred 4.7.30",
            "the host that is down may promise"
        );
        assert_eq!(mails(&silent), Vec::<String>::new());
    }
}

#[tokio::test]
async fn an_answer_that_may_pass_is_no_reason_to_bounce() {
    let world = World::new().await;
    let pair = world.authority.issue(&["mx.partner.example"]);
    let manner = Manner::new(Starttls::Tls(server_config(&pair, BOTH).into()))
        .answer("RCPT", "450 4.2.1 later");
    let busy = Peer::start(Manner {
        keywords: PROMISES,
        ..manner
    })
    .await;
    let silent = peer(&world.authority, "mx.partner.example", PROMISES_NOTHING).await;
    let outbound = world.outbound(&way(&[busy.address.port(), silent.address.port()], ""));
    assert!(outcome(&deliver(&outbound, requiring()).await, 0).starts_with("deferred 4."));
}

#[tokio::test]
async fn who_asks_for_nothing_is_promised_nothing() {
    let world = World::new().await;
    let peer = peer(&world.authority, "mx.partner.example", PROMISES).await;
    let outbound = world.outbound(&way(&[peer.address.port()], ""));
    for tls in [TlsRequirement::Ordinary, TlsRequirement::Relaxed] {
        assert_eq!(
            outcome(&deliver(&outbound, asking(tls)).await, 0),
            "delivered"
        );
    }
    assert_eq!(mails(&peer), ["MAIL FROM:<sender@example.com> SIZE=37"; 2]);
}

/// `TLS-Required: No` sets aside what domains publish, never what the administrator says.
#[tokio::test]
async fn tls_required_no_does_not_bend_a_forced_policy() {
    let world = World::new().await;
    let clear = Peer::start(Manner::new(Starttls::NotOffered)).await;
    let outbound = world.outbound(&way(
        &[clear.address.port()],
        "tls = \"forced\"\nverify = \"none\"",
    ));
    assert_eq!(
        outcome(
            &deliver(&outbound, asking(TlsRequirement::Relaxed)).await,
            0
        ),
        "deferred 4.7.4"
    );
    assert_eq!(mails(&clear), Vec::<String>::new());
}

#[tokio::test]
async fn a_report_is_promised_tls_where_that_can_be_and_is_not_lost_where_it_cannot() {
    let world = World::new().await;
    let stranger = Authority::root("Nobody We Know");
    let good = peer(&world.authority, "mx.partner.example", PROMISES).await;
    let silent = peer(&world.authority, "mx.partner.example", PROMISES_NOTHING).await;
    // RFC 8689 §2: REQUIRETLS is not said to a server that is not who it should be.
    let unknown = peer(&stranger, "mx.partner.example", PROMISES).await;
    let clear = Peer::start(Manner {
        keywords: PROMISES,
        ..Manner::new(Starttls::NotOffered)
    })
    .await;
    for (peer, said) in [
        (&good, "MAIL FROM:<> SIZE=37 REQUIRETLS"),
        (&silent, "MAIL FROM:<> SIZE=37"),
        (&unknown, "MAIL FROM:<> SIZE=37"),
        (&clear, "MAIL FROM:<> SIZE=37"),
    ] {
        let outbound = world.outbound(&way(&[peer.address.port()], ""));
        assert_eq!(outcome(&deliver(&outbound, report()).await, 0), "delivered");
        assert_eq!(mails(peer), [said]);
    }
}

/// A session that is taken up again from an earlier one shows no certificate, and REQUIRETLS wants
/// one.
#[tokio::test]
async fn a_report_is_promised_tls_though_the_host_is_known_from_before() {
    let world = World::new().await;
    // One for each message; then, of two messages, with one that waits and was taken up again.
    for (most, before) in [(1, 1), (2, 3)] {
        let peer = peer(&world.authority, "mx.partner.example", PROMISES).await;
        let outbound = world.outbound(&way(
            &[peer.address.port()],
            &format!("messages_per_connection = {most}"),
        ));
        for _ in 0..before {
            assert_eq!(
                outcome(
                    &deliver(&outbound, asking(TlsRequirement::Ordinary)).await,
                    0
                ),
                "delivered"
            );
        }
        assert_eq!(outcome(&deliver(&outbound, report()).await, 0), "delivered");
        assert_eq!(
            mails(&peer).last().map(String::as_str),
            Some("MAIL FROM:<> SIZE=37 REQUIRETLS"),
            "{most}"
        );
    }
}

#[tokio::test]
async fn a_connection_is_used_again_where_its_own_handshake_is_good_enough() {
    let world = World::new().await;
    let stranger = Authority::root("Nobody We Know");
    for (authority, ends, connections) in [
        (&world.authority, "delivered", 1),
        (&stranger, "bounced 5.7.10", 2),
    ] {
        let peer = peer(authority, "mx.partner.example", PROMISES).await;
        let outbound = world.outbound(&way(&[peer.address.port()], ""));
        assert_eq!(
            outcome(
                &deliver(&outbound, asking(TlsRequirement::Ordinary)).await,
                0
            ),
            "delivered"
        );
        assert_eq!(outcome(&deliver(&outbound, requiring()).await, 0), ends);
        outbound.close();
        assert_eq!(peer.heard_to_the_end().await.len(), connections, "{ends}");
        let required: Vec<bool> = mails(&peer)
            .iter()
            .map(|line| line.ends_with(" REQUIRETLS"))
            .collect();
        assert_eq!(
            required,
            if connections == 1 {
                vec![false, true]
            } else {
                vec![false]
            }
        );
    }
}
