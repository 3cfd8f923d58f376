//! Revoked certificates of servers, by CRLs from files.

use std::time::Duration;

use jiff::Timestamp;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::certificates::{Authority, BOTH, Pair, server_config};
use crate::support::crl::{WantedCrl, listing};
use crate::support::deliveries::{World, deliver, failure, message, outcome, result};
use crate::support::peer::{Manner, Peer, Starttls};

const HOP: &str = "mx.partner.example";

/// A host that is reached through a port of its own, and only when it is let through.
struct Gate {
    listener: TcpListener,
    peer: Peer,
}

impl Gate {
    async fn before(peer: Peer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        Self { listener, peer }
    }

    /// The connector's text with the port of the gate in place of the host's.
    fn before_host(&self, toml: &str) -> String {
        let port = self.listener.local_addr().expect("bound").port();
        toml.replace(
            &format!("{HOP}:{}", self.peer.address.port()),
            &format!("{HOP}:{port}"),
        )
    }

    /// Waits for a connection, calls `first`, and then lets the connection through.
    async fn pass(&self, first: impl FnOnce()) {
        let (mut from, _) = self.listener.accept().await.expect("loopback");
        first();
        let mut to = TcpStream::connect(self.peer.address)
            .await
            .expect("the host listens");
        // Either side may end the connection.
        let _ = copy_bidirectional(&mut from, &mut to).await;
    }
}

async fn showing(pair: &Pair) -> Peer {
    Peer::start(Manner::new(Starttls::Tls(server_config(pair, BOTH).into()))).await
}

/// A connector with a CRL file, unless it is empty, and these keys of a direction.
fn partner(world: &World, crl: &[u8], peer: &Peer, keys: &str) -> String {
    let file = world.folder().join("partner.crl");
    let line = if crl.is_empty() {
        String::new()
    } else {
        std::fs::write(&file, crl).expect("the folder is ours");
        format!("crl = [\"{}\"]\n", file.display())
    };
    format!(
        "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n{line}[connector.outbound]\n\
         route = [\"{HOP}:{}\"]\ntls = \"forced\"\nverify = \"name\"\n{keys}\n",
        peer.address.port()
    )
}

/// The keys of the connector; the outcome with a good CRL, an expired one, none, and one that lists
/// the certificate.
#[tokio::test]
async fn a_delivery_depends_on_the_crl_as_the_connector_demands() {
    let world = World::new().await;
    let pair = world.authority.issue(&[HOP]);
    let expired = WantedCrl {
        is_expired: true,
        ..WantedCrl::default()
    };
    let crls = [
        listing(&world.authority, &[]),
        expired.by(&world.authority),
        Vec::new(),
        listing(&world.authority, &[&pair.chain[0]]),
    ];
    for (keys, expected) in [
        (
            "revocation = \"if-known\"",
            ["delivered", "delivered", "delivered", "deferred 4.7.5"],
        ),
        (
            "revocation = \"required\"",
            [
                "delivered",
                "deferred 4.7.5",
                "deferred 4.7.5",
                "deferred 4.7.5",
            ],
        ),
        // A missing CRL passes, so that it never bounces a message at once.
        (
            "revocation = \"required\"\non_failure = \"bounce\"",
            [
                "delivered",
                "deferred 4.7.5",
                "deferred 4.7.5",
                "bounced 5.7.5",
            ],
        ),
        (
            "revocation = \"required\"\non_failure = \"hold\"",
            [
                "delivered",
                "deferred 4.7.5",
                "deferred 4.7.5",
                "held 4.7.5",
            ],
        ),
    ] {
        for (crl, expected) in crls.iter().zip(expected) {
            let peer = showing(&pair).await;
            let outbound = world.outbound(&partner(&world, crl, &peer, keys));
            let report = deliver(&outbound, message(&["b@partner.example"])).await;
            assert_eq!(outcome(&report, 0), expected, "{keys}: {report:?}");
            if expected == "delivered" {
                let via = result(&report, 0).via.clone().expect("a session");
                assert_eq!(
                    via.clearance.authentication().to_string(),
                    format!("verified as {HOP}")
                );
            } else {
                peer.heard_to_the_end().await;
                assert!(
                    !peer.heard().iter().any(|heard| heard.has("MAIL")),
                    "{keys}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_failure_names_the_revoked_certificate() {
    let world = World::new().await;
    let issuing = world.authority.intermediate("Issuing");
    let pair = issuing.issue(&[HOP]);
    let crl = listing(&world.authority, &[&issuing.certificate]);
    let peer = showing(&pair).await;
    let keys = "revocation = \"if-known\"";
    let outbound = world.outbound(&partner(&world, &crl, &peer, keys));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    let text = failure(&report, 0).to_string();
    assert!(
        text.ends_with(
            "TLS with a trusted certificate for mx.partner.example is demanded, but the certificate of its issuer \
             (CN=Issuing) was revoked on 2020-12-24T00:00:00Z; a new one is needed"
        ),
        "{text}"
    );
    let session = failure(&report, 0).refusal().expect("a refusal");
    assert!(
        format!("{session:?}").contains("Untrusted(Revocation(Revoked("),
        "the record does not call the peer trusted: {session:?}"
    );
}

/// A stranger's CRL says nothing, whatever it lists.
#[tokio::test]
async fn a_crl_counts_for_the_certificates_of_its_own_issuer() {
    let world = World::new().await;
    let pair = world.authority.issue(&[HOP]);
    let forged = listing(&Authority::root("The Test Authority"), &[&pair.chain[0]]);
    let peer = showing(&pair).await;
    let keys = "revocation = \"if-known\"";
    let outbound = world.outbound(&partner(&world, &forged, &peer, keys));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
}

/// The number of EHLO commands that a peer heard under TLS, and so of its sessions.
fn sessions(peer: &Peer) -> usize {
    let heard = peer.heard();
    heard.iter().filter(|heard| heard.has("STARTTLS")).count()
}

/// A kept connection is used again while the CRLs are the same, and judged anew once one has changed.
#[tokio::test]
async fn a_kept_connection_is_of_no_use_once_its_certificate_is_revoked() {
    let world = World::new().await;
    let pair = world.authority.issue(&[HOP]);
    for keys in ["revocation = \"if-known\"", "revocation = \"required\""] {
        let peer = showing(&pair).await;
        let current = listing(&world.authority, &[]);
        let toml = partner(&world, &current, &peer, keys);
        let outbound = world.outbound(&toml);
        let file = toml
            .lines()
            .find_map(|line| line.strip_prefix("crl = [\"")?.strip_suffix("\"]"))
            .expect("it has a file");
        let publish = |crl: &[u8]| {
            std::fs::write(format!("{file}.new"), crl).expect("the folder is ours");
            std::fs::rename(format!("{file}.new"), file).expect("the folder is ours");
            let (replaced, faults) = outbound.running().load().tls.refresh_crls();
            assert_eq!((replaced.len(), faults.len()), (1, 0));
        };
        let newer = WantedCrl {
            day: 2,
            ..WantedCrl::default()
        };
        let newer = newer.by(&world.authority);
        let revoking = WantedCrl {
            day: 3,
            revoked: &[&pair.chain[0]],
            ..WantedCrl::default()
        };
        let revoking = revoking.by(&world.authority);
        for (crl, expected) in [
            (None, "delivered"),
            (Some(&newer), "delivered"),
            (Some(&revoking), "deferred 4.7.5"),
        ] {
            if let Some(crl) = crl {
                publish(crl);
            }
            let before = sessions(&peer);
            let report = deliver(&outbound, message(&["b@partner.example"])).await;
            assert_eq!(outcome(&report, 0), expected, "{keys}: {report:?}");
            assert_eq!(sessions(&peer), before + 1, "{keys}: a session of its own");
        }
        assert_eq!(peer.messages().len(), 2, "{keys}");
    }
}

#[tokio::test]
async fn a_kept_connection_is_used_again_while_its_crl_is_current() {
    let world = World::new().await;
    let pair = world.authority.issue(&[HOP]);
    let peer = showing(&pair).await;
    let crl = listing(&world.authority, &[]);
    let outbound = world.outbound(&partner(&world, &crl, &peer, "revocation = \"required\""));
    for _ in 0..3 {
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    }
    // A CRL that changes elsewhere meanwhile costs a session, and no mail.
    assert!((1..=3).contains(&sessions(&peer)));
    assert_eq!(peer.messages().len(), 3);
}

/// An attempt that began before a reload, or before a new CRL, judges its sessions by the trust anchors
/// and CRLs in use.
#[tokio::test]
async fn an_attempt_from_before_a_reload_is_judged_by_what_is_in_use() {
    let world = World::new().await;
    let own = Authority::root("Partner CA");
    let pair = own.issue(&[HOP]);
    let file = world.folder().join("partner.pem");
    std::fs::write(&file, own.pem()).expect("the folder is ours");
    let keys = "revocation = \"if-known\"";
    let trusting = |toml: &str| {
        let trust = format!("trust = \"{}\"\n[connector.outbound]", file.display());
        toml.replace("[connector.outbound]", &trust)
    };
    for (change, expected) in [
        ("nothing", "delivered"),
        ("trust", "deferred 4.7.5"),
        ("crl", "deferred 4.7.5"),
        // The connector is removed, so that its own trust anchors are all there is.
        ("connector", "delivered"),
    ] {
        let gate = Gate::before(showing(&pair).await).await;
        let toml = gate.before_host(&partner(&world, &[], &gate.peer, keys));
        let outbound = world.outbound(&trusting(&toml));
        let reload = || {
            let crl = listing(&own, &[&pair.chain[0]]);
            let new = match change {
                "trust" => toml.clone(),
                "crl" => trusting(&partner(&world, &crl, &gate.peer, keys)),
                "connector" => String::new(),
                _ => trusting(&toml),
            };
            outbound.running().replace(world.snapshot(&new));
            outbound.close_replaced();
        };
        let (report, ()) = tokio::join!(
            deliver(&outbound, message(&["b@partner.example"])),
            gate.pass(reload)
        );
        assert_eq!(outcome(&report, 0), expected, "{change}: {report:?}");
        let heard = gate.peer.heard();
        let has_mail = heard.iter().any(|heard| heard.has("MAIL"));
        assert_eq!(has_mail, expected == "delivered", "{change}");
    }
}

/// On a busy machine the CRL may expire before the first delivery; then one of a longer time is tried.
#[tokio::test]
async fn a_kept_connection_is_of_no_use_once_its_crl_has_expired() {
    let world = World::new().await;
    let pair = world.authority.issue(&[HOP]);
    for seconds in [2, 4, 8, 16, 32, 64] {
        let peer = showing(&pair).await;
        let now = || Timestamp::now().as_second();
        let end = now() + seconds;
        let crl = WantedCrl {
            expires_at: u64::try_from(end).ok(),
            ..WantedCrl::default()
        };
        let crl = crl.by(&world.authority);
        let outbound = world.outbound(&partner(&world, &crl, &peer, "revocation = \"required\""));
        let first = deliver(&outbound, message(&["b@partner.example"])).await;
        if outcome(&first, 0) != "delivered" {
            continue;
        }
        while now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{report:?}");
        assert_eq!(peer.messages().len(), 1);
        return;
    }
    panic!("the first delivery took longer than a minute");
}
