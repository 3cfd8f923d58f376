//! TLS that is tried once more with another ClientHello, before clear text and before a refusal.

use std::sync::Arc;

use gatepost::policy::tls::{Authentication, Groups, Handshake, Hello, TlsFacts, TlsOutcome};
use gatepost::relay::outbound::{AttemptResult, Outbound, Via};
use rustls::NamedGroup;
use rustls::crypto::aws_lc_rs::kx_group;

use crate::support::certificates::{BOTH, Pair, TLS12, key_pin, provider, server_config};
use crate::support::deliveries::{
    CONTENT, World, connector, deliver, failure, message, outcome, reload, result,
};
use crate::support::peer::{Heard, Manner, Peer, Starttls};
use crate::support::picky::{Does, Over, Picky, SECP256K1};
use crate::support::uncheckable::{self, KINDS};

pub(crate) const HOP: &str = "mx.partner.example";
pub(crate) const TO: &str = "b@partner.example";

pub(crate) const HYBRID: &str = "(hello hybrid+classical sni)";
const CLASSICAL: &str = "(hello classical sni)";
const CURVES: &str = "(hello classical+curves sni)";
pub(crate) const NAMELESS: &str = "(hello classical+curves)";
const ONLY: &str = "(hello hybrid sni)";
const ONLY_NAMELESS: &str = "(hello hybrid)";

pub(crate) const OPPORTUNISTIC: &str = "tls = \"opportunistic\"";
pub(crate) const FORCED: &str = "tls = \"forced\"\nverify = \"none\"";
const BY_NAME: &str = "tls = \"forced\"\nverify = \"name\"";
const FORCED_STRONG: &str = "tls = \"forced\"\nverify = \"none\"\nmin_strength = \"post-quantum\"";
const BY_NAME_STRONG: &str = "tls = \"forced\"\nverify = \"name\"\nmin_strength = \"post-quantum\"";
const POLICIES: [&str; 5] = [
    OPPORTUNISTIC,
    FORCED,
    BY_NAME,
    FORCED_STRONG,
    BY_NAME_STRONG,
];

/// The result that a message must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Under TLS, on the last connection.
    Tls,
    /// In the clear, on one more connection.
    Clear,
    /// Nothing was said of it.
    Refused,
}
use Ends::{Clear, Refused, Tls};

async fn picky(world: &World, over: Over, does: Does) -> Peer {
    Peer::start(manner(&world.authority.issue(&[HOP]), over, does)).await
}

pub(crate) fn manner(pair: &Pair, over: Over, does: Does) -> Manner {
    Manner::new(Starttls::Picky(
        Picky { over, does },
        server_config(pair, BOTH).into(),
    ))
}

fn way(peer: &Peer, policy: &str) -> String {
    connector(
        "partner",
        &["partner.example"],
        &format!("route = [\"{HOP}:{}\"]\n{policy}", peer.address.port()),
    )
}

/// The ClientHellos of all connections, in order.
pub(crate) fn hellos(heard: &[Heard]) -> Vec<&str> {
    let commands = heard.iter().flat_map(|heard| &heard.commands);
    commands
        .map(String::as_str)
        .filter(|command| command.starts_with("(hello"))
        .collect()
}

fn facts(via: Option<&Arc<Via>>) -> &TlsFacts {
    match via.expect("a session").clearance.outcome() {
        TlsOutcome::Tls(facts) => facts,
        TlsOutcome::Clear(reason) => panic!("{reason}"),
    }
}

pub(crate) async fn send(outbound: &Outbound) -> AttemptResult {
    let report = deliver(outbound, message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    report
}

async fn check(
    world: &World,
    (over, does): (Over, Does),
    policy: &str,
    shown: &[&str],
    ends: Ends,
) {
    let peer = picky(world, over, does).await;
    let outbound = world.outbound(&way(&peer, policy));
    let report = deliver(&outbound, message(&[TO])).await;
    outbound.close();
    let heard = peer.heard_to_the_end().await;
    let case = format!("{over:?} {does:?}, {policy}: {report:#?}\n{heard:#?}");
    assert_eq!(hellos(&heard), shown, "{case}");
    assert_eq!(
        heard.len(),
        shown.len() + usize::from(ends == Clear),
        "{case}"
    );
    match ends {
        Tls | Clear => {
            assert_eq!(
                (outcome(&report, 0), peer.messages()),
                ("delivered".to_owned(), vec![CONTENT.to_vec()])
            );
            let (last, before) = heard.split_last().expect("a connection");
            assert!(
                before
                    .iter()
                    .all(|heard| !heard.has("MAIL") && !heard.has("(TLS)")),
                "{case}"
            );
            let place = |command: &str| {
                last.commands
                    .iter()
                    .position(|line| line.starts_with(command))
            };
            assert_eq!(
                place("(TLS)").is_some_and(|at| Some(at) < place("MAIL")),
                ends == Tls,
                "{case}"
            );
            assert_eq!(place("STARTTLS").is_some(), ends == Tls, "{case}");
        }
        Refused => {
            assert!(outcome(&report, 0).starts_with("deferred 4.7.5"), "{case}");
            assert!(
                failure(&report, 0)
                    .to_string()
                    .contains("the TLS handshake failed: "),
                "{case}"
            );
            assert_eq!(
                failure(&report, 0).to_string().contains("; again, with "),
                shown.len() == 2,
                "{case}"
            );
            assert!(
                heard
                    .iter()
                    .all(|heard| !heard.has("MAIL") && !heard.has("(TLS)")),
                "{case}"
            );
        }
    }
    if ends == Tls {
        let facts = facts(result(&report, 0).via.as_ref());
        assert_eq!(facts.reduced.is_some(), shown.len() == 2, "{case}");
        let hybrid = [HYBRID, ONLY, ONLY_NAMELESS].contains(shown.last().expect("one"));
        assert_eq!(
            facts.key_exchange,
            Some(if hybrid { "X25519MLKEM768" } else { "X25519" }),
            "{case}"
        );
    }
}

/// One row: what is shown to such a peer under each policy, and what comes of it.
async fn check_row(world: &World, peer: (Over, Does), row: [(&[&str], Ends); 5]) {
    let cells = POLICIES
        .iter()
        .zip(row)
        .map(|(policy, (shown, ends))| check(world, peer, policy, shown, ends));
    // Side by side: some wait for a time limit.
    futures_util::future::join_all(cells).await;
}

#[tokio::test]
async fn a_peer_that_takes_no_large_client_hello_is_shown_a_small_one() {
    let mut world = World::new().await;
    world.handshake = "1s";
    // Alerts: handshake_failure, internal_error, decode_error.
    for does in [
        Does::Resets,
        Does::Ends,
        Does::Swallows,
        Does::Alerts(40),
        Does::Alerts(80),
        Does::Alerts(50),
    ] {
        let row: [(&[&str], Ends); 5] = [
            (&[HYBRID, NAMELESS], Tls),
            (&[HYBRID, NAMELESS], Tls),
            (&[HYBRID, CURVES], Tls),
            (&[ONLY, ONLY_NAMELESS], Refused),
            // The second would be the same again.
            (&[ONLY], Refused),
        ];
        check_row(&world, (Over::Large, does), row).await;
    }
}

#[tokio::test]
async fn a_peer_that_refuses_our_name_for_it_is_asked_without_one_where_none_is_demanded() {
    let world = World::new().await;
    // unrecognized_name
    for does in [Does::Alerts(112), Does::Resets] {
        let row: [(&[&str], Ends); 5] = [
            (&[HYBRID, NAMELESS], Tls),
            (&[HYBRID, NAMELESS], Tls),
            (&[HYBRID, CURVES], Refused),
            (&[ONLY, ONLY_NAMELESS], Tls),
            (&[ONLY], Refused),
        ];
        check_row(&world, (Over::Sni, does), row).await;
    }
}

#[tokio::test]
async fn a_peer_that_takes_no_client_hello_is_shown_two() {
    let mut world = World::new().await;
    world.handshake = "1s";
    for does in [Does::Resets, Does::Ends, Does::Swallows, Does::Alerts(40)] {
        let row: [(&[&str], Ends); 5] = [
            (&[HYBRID, NAMELESS], Clear),
            (&[HYBRID, NAMELESS], Refused),
            (&[HYBRID, CURVES], Refused),
            (&[ONLY, ONLY_NAMELESS], Refused),
            (&[ONLY], Refused),
        ];
        check_row(&world, (Over::Every, does), row).await;
    }
}

/// Another ClientHello would have no other versions.
#[tokio::test]
async fn a_peer_that_has_no_version_in_common_is_shown_one() {
    let world = World::new().await;
    let row: [(&[&str], Ends); 5] = [
        (&[HYBRID], Clear),
        (&[HYBRID], Refused),
        (&[HYBRID], Refused),
        (&[ONLY], Refused),
        (&[ONLY], Refused),
    ];
    check_row(&world, (Over::Every, Does::Alerts(70)), row).await;
}

#[tokio::test]
async fn a_connector_that_offers_classical_groups_alone_lists_all_curves_at_the_second_try() {
    let world = World::new().await;
    for (over, policy, shown, ends) in [
        (Over::Large, OPPORTUNISTIC, &[CLASSICAL][..], Tls),
        (Over::Large, BY_NAME, &[CLASSICAL], Tls),
        (Over::Sni, OPPORTUNISTIC, &[CLASSICAL, NAMELESS], Tls),
        (
            Over::NoCurve(SECP256K1),
            OPPORTUNISTIC,
            &[CLASSICAL, NAMELESS],
            Tls,
        ),
        (Over::NoCurve(SECP256K1), BY_NAME, &[CLASSICAL, CURVES], Tls),
        (Over::Sni, BY_NAME, &[CLASSICAL, CURVES], Refused),
    ] {
        let policy = format!("{policy}\ngroups = \"classical\"");
        check(&world, (over, Does::Resets), &policy, shown, ends).await;
    }
}

/// P-521 keys can be checked, so they meet every demand.
#[tokio::test]
async fn a_server_with_a_key_on_a_curve_that_the_first_does_not_list_is_shown_the_second() {
    let world = World::new().await;
    let row: [(&[&str], Ends); 5] = [
        (&[HYBRID, NAMELESS], Tls),
        (&[HYBRID, NAMELESS], Tls),
        (&[HYBRID, CURVES], Tls),
        (&[ONLY, ONLY_NAMELESS], Refused),
        (&[ONLY], Refused),
    ];
    check_row(
        &world,
        (Over::NoCurve(NamedGroup::secp521r1), Does::Alerts(40)),
        row,
    )
    .await;
}

/// A server with a key that cannot be checked, and that it shows as OpenSSL does.
async fn keyed(curve: u16, file: &str) -> (Peer, uncheckable::Kind) {
    let kind = KINDS
        .into_iter()
        .find(|kind| kind.file == file)
        .expect("a kind");
    let picky = Picky {
        over: Over::NoCurve(NamedGroup::from(curve)),
        does: Does::Alerts(40),
    };
    let config = uncheckable::server(kind, &TLS12);
    (
        Peer::start(Manner::new(Starttls::Picky(picky, config.into()))).await,
        kind,
    )
}

const CURVE_KEYS: [(u16, &str); 3] = [(22, "secp256k1"), (26, "brainpool-p256"), (21, "p-224")];

#[tokio::test]
async fn a_server_with_a_key_on_an_uncheckable_curve_gets_no_mail_in_the_clear() {
    let world = World::new().await;
    for (curve, file) in CURVE_KEYS {
        for policy in [OPPORTUNISTIC, FORCED] {
            let (peer, kind) = keyed(curve, file).await;
            let outbound = world.outbound(&way(
                &peer,
                &format!("{policy}\nmessages_per_connection = 1"),
            ));
            for _ in 0..2 {
                let report = send(&outbound).await;
                let via = result(&report, 0).via.as_ref();
                assert_eq!(facts(via).handshake, Handshake::Full, "{file}, {policy}");
                match via.expect("a session").clearance.authentication() {
                    Authentication::Unproved(key) => assert_eq!(key.to_string(), kind.words),
                    other => panic!("nothing was proved: {other}"),
                }
            }
            outbound.close();
            let heard = peer.heard_to_the_end().await;
            assert_eq!(
                hellos(&heard),
                [HYBRID, NAMELESS, NAMELESS],
                "{file}, {policy}"
            );
            assert_eq!(heard.len(), 3, "{heard:?}");
            assert!(
                heard
                    .iter()
                    .all(|heard| heard.has("(TLS)") || !heard.has("MAIL")),
                "{heard:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_key_on_an_uncheckable_curve_meets_no_demand_and_the_refusal_names_it() {
    let world = World::new().await;
    for (curve, file) in CURVE_KEYS {
        let (peer, kind) = keyed(curve, file).await;
        let pins = format!(
            "pins = {:?}\n[connector.outbound]",
            [key_pin(&uncheckable::certificate(kind))]
        );
        for policy in [
            BY_NAME,
            "tls = \"forced\"\nverify = \"chain\"",
            "tls = \"forced\"\nverify = \"pin\"",
        ] {
            let connector = way(&peer, policy);
            let pinned = connector.replace("[connector.outbound]", &pins);
            let outbound = world.outbound(if policy.contains("pin") {
                &pinned
            } else {
                &connector
            });
            let report = deliver(&outbound, message(&[TO])).await;
            assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{file}, {policy}");
            let text = failure(&report, 0).to_string();
            assert!(
                text.contains(&format!("its key cannot be checked ({})", kind.words)),
                "{policy}: {text}"
            );
            outbound.close();
        }
        let heard = peer.heard_to_the_end().await;
        assert_eq!(
            hellos(&heard),
            [HYBRID, CURVES, HYBRID, CURVES, HYBRID, CURVES],
            "{file}"
        );
        assert!(heard.iter().all(|heard| !heard.has("MAIL")), "{heard:?}");
    }
}

#[tokio::test]
async fn nothing_less_than_post_quantum_satisfies_a_demand_for_it() {
    let world = World::new().await;
    let pair = world.authority.issue(&[HOP]);
    let classical = |versions| {
        let provider = Arc::new(rustls::crypto::CryptoProvider {
            kx_groups: vec![kx_group::X25519],
            ..rustls::crypto::CryptoProvider::clone(&provider())
        });
        rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                pair.certified(),
            )))
    };
    for config in [classical(BOTH), server_config(&pair, &TLS12)] {
        let peer = Peer::start(Manner::new(Starttls::Tls(config.into()))).await;
        for policy in [FORCED_STRONG, BY_NAME_STRONG] {
            let outbound = world.outbound(&way(&peer, policy));
            let report = deliver(&outbound, message(&[TO])).await;
            assert_eq!(outcome(&report, 0), "deferred 4.7.5");
            let words = failure(&report, 0).to_string();
            assert!(
                words.contains("post-quantum TLS ") || words.contains("post-quantum TLS is"),
                "{words}"
            );
            outbound.close();
        }
        assert!(
            peer.heard_to_the_end()
                .await
                .iter()
                .all(|heard| !heard.has("MAIL") && !heard.has("(TLS)"))
        );
        // Others may send to it.
        send(&world.outbound(&way(&peer, FORCED))).await;
    }
    let peer = Peer::start(Manner::new(Starttls::Tls(
        server_config(&pair, BOTH).into(),
    )))
    .await;
    let outbound = world.outbound(&way(&peer, FORCED_STRONG));
    for _ in 0..2 {
        // The second goes over the connection of the first.
        assert_eq!(
            facts(result(&send(&outbound).await, 0).via.as_ref()).key_exchange,
            Some("X25519MLKEM768")
        );
    }
    outbound.close();
    assert_eq!(peer.heard_to_the_end().await.len(), 1);
}

#[tokio::test]
async fn the_next_connection_begins_with_what_worked() {
    let world = World::new().await;
    let peer = picky(&world, Over::Large, Does::Resets).await;
    let each = "\nmessages_per_connection = 1";
    let outbound = world.outbound(&way(&peer, &format!("{OPPORTUNISTIC}{each}")));
    let reduced = |report: &AttemptResult| facts(result(report, 0).via.as_ref()).reduced;
    for _ in 0..3 {
        assert_eq!(
            reduced(&send(&outbound).await),
            Some(Hello {
                groups: Groups::ClassicalAllCurves,
                sni: false
            })
        );
    }
    // Other settings do not change the host; a certificate is asked for by name, and nothing goes
    // below min_strength.
    reload(
        &outbound,
        world.snapshot(&way(&peer, &format!("{BY_NAME}{each}"))),
    );
    assert_eq!(
        reduced(&send(&outbound).await),
        Some(Hello {
            groups: Groups::ClassicalAllCurves,
            sni: true
        })
    );
    reload(&outbound, world.snapshot(&way(&peer, FORCED_STRONG)));
    assert_eq!(
        outcome(&deliver(&outbound, message(&[TO])).await, 0),
        "deferred 4.7.5"
    );
    outbound.close();
    let heard = peer.heard_to_the_end().await;
    assert_eq!(
        hellos(&heard),
        [
            HYBRID,
            NAMELESS,
            NAMELESS,
            NAMELESS,
            CURVES,
            ONLY_NAMELESS,
            ONLY
        ]
    );
}

#[tokio::test]
async fn what_worked_is_forgotten_where_it_works_no_more() {
    let world = World::new().await;
    let before = picky(&world, Over::Large, Does::Resets).await;
    let port = before.address.port();
    let outbound = world.outbound(&way(&before, OPPORTUNISTIC));
    send(&outbound).await;
    reload(&outbound, world.snapshot(&way(&before, OPPORTUNISTIC)));
    before.heard_to_the_end().await;
    drop(before);
    // Another server stands there now, which wants to know for whom it is asked.
    let pair = world.authority.issue(&[HOP]);
    let now = Peer::start_again(port, || manner(&pair, Over::NoSni, Does::Alerts(112))).await;
    for _ in 0..2 {
        assert_eq!(
            facts(result(&send(&outbound).await, 0).via.as_ref()).reduced,
            None
        );
        reload(&outbound, world.snapshot(&way(&now, OPPORTUNISTIC)));
    }
    assert_eq!(
        hellos(&now.heard_to_the_end().await),
        [NAMELESS, HYBRID, HYBRID]
    );
}

#[tokio::test]
async fn a_host_that_does_not_answer_a_second_time_has_still_broken_the_first_handshake() {
    let world = World::new().await;
    let pair = world.authority.issue(&[HOP]);
    for (policy, ends) in [
        (OPPORTUNISTIC, "deferred 4.7.0"),
        (FORCED, "deferred 4.7.5"),
    ] {
        let manner = manner(&pair, Over::Every, Does::Resets).answer_after(
            1,
            "EHLO",
            "421 4.7.0 not so fast",
        );
        let peer = Peer::start(manner).await;
        let outbound = world.outbound(&way(&peer, policy));
        let report = deliver(&outbound, message(&[TO])).await;
        assert_eq!(
            outcome(&report, 0),
            ends,
            "{policy}: {}",
            failure(&report, 0)
        );
        assert!(
            failure(&report, 0).to_string().contains("not so fast"),
            "{}",
            failure(&report, 0)
        );
        assert_eq!(peer.heard_to_the_end().await.len(), 2);
    }
}

#[tokio::test]
async fn a_host_that_has_lost_starttls_at_the_second_try_gets_mail_in_the_clear_only_where_it_may()
{
    let world = World::new().await;
    let pair = world.authority.issue(&[HOP]);
    for (policy, ends, connections) in [
        (OPPORTUNISTIC, "delivered", 3),
        (FORCED, "deferred 4.7.5", 2),
    ] {
        let manner = manner(&pair, Over::Every, Does::Resets).answer_after(
            1,
            "STARTTLS",
            "454 4.7.0 not now",
        );
        let peer = Peer::start(manner).await;
        let outbound = world.outbound(&way(&peer, policy));
        let report = deliver(&outbound, message(&[TO])).await;
        assert_eq!(outcome(&report, 0), ends, "{policy}");
        outbound.close();
        let heard = peer.heard_to_the_end().await;
        assert_eq!(heard.len(), connections, "{heard:?}");
        assert_eq!(
            heard[1].commands.last().map(String::as_str),
            Some("QUIT"),
            "{heard:?}"
        );
        assert!(
            heard[..2].iter().all(|heard| !heard.has("MAIL")),
            "{heard:?}"
        );
    }
}
