//! Pinned keys, and several partners who must not be taken for each other, on the way out.

use std::path::Path;
use std::sync::Arc;

use gatepost::policy::tls::Authentication;
use rcgen::date_time_ymd;

use crate::support::certificates::{
    Authority, BOTH, Pair, key_pin, provider, self_signed, server_config,
};
use crate::support::deliveries::{World, deliver, failure, message, outcome, result};
use crate::support::peer::{Manner, Peer, Starttls};
use crate::support::uncheckable::{self, RSA_1024};

/// The name under which every peer is dialled.
const HOP: &str = "mx.partner.example";

/// A connector whose peers must have one of these keys.
fn pinned(name: &str, pins: &[String], peer: &Peer) -> String {
    format!(
        "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\npins = {pins:?}\n[connector.outbound]\n\
         route = [\"{HOP}:{}\"]\ntls = \"forced\"\nverify = \"pin\"\n",
        peer.address.port()
    )
}

async fn showing(pair: &Pair) -> Peer {
    Peer::start(Manner::new(Starttls::Tls(server_config(pair, BOTH).into()))).await
}

fn heard_of_mail(peer: &Peer) -> bool {
    peer.heard().iter().any(|heard| heard.has("MAIL"))
}

#[tokio::test]
async fn a_pinned_key_is_enough_whatever_its_certificate_says() {
    let world = World::new().await;
    for (what, pair) in [
        ("self-signed", self_signed(&[HOP], |_| {})),
        ("another name", world.authority.issue(&["other.example"])),
        (
            "expired",
            world.authority.issue_as(&[HOP], |params| {
                params.not_after = date_time_ymd(2021, 2, 3);
            }),
        ),
        (
            "of a stranger",
            Authority::root("Stranger CA").issue(&[HOP]),
        ),
    ] {
        let peer = showing(&pair).await;
        let outbound = world.outbound(&pinned("partner", &[key_pin(&pair.chain[0])], &peer));
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "delivered", "{what}: {report:?}");
        let via = result(&report, 0).via.clone().expect("a session");
        assert!(
            matches!(via.clearance.authentication(), Authentication::Pinned(_)),
            "{what}"
        );
    }
}

#[tokio::test]
async fn another_key_hears_nothing_of_the_message_however_good_its_certificate() {
    let world = World::new().await;
    let good = world.authority.issue(&[HOP]);
    // The key of the authority above is not the peer's own.
    let above = [
        key_pin(&world.authority.certificate),
        key_pin(&self_signed(&[HOP], |_| {}).chain[0]),
    ];
    let peer = showing(&good).await;
    let outbound = world.outbound(&pinned("partner", &above, &peer));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5");
    let text = failure(&report, 0).to_string();
    assert!(
        text.contains("TLS with one of 2 pinned keys is demanded, but the key is another: sha256:"),
        "{text}"
    );
    assert!(
        text.ends_with(&key_pin(&good.chain[0])),
        "the key is told as it would be pinned: {text}"
    );
    peer.heard_to_the_end().await;
    assert!(!heard_of_mail(&peer));
}

/// Anybody can show a certificate: without its key it meets no pin.
#[tokio::test]
async fn a_pinned_key_that_cannot_be_checked_is_not_met() {
    let world = World::new().await;
    let pins = [key_pin(&uncheckable::certificate(RSA_1024))];
    let peer = Peer::start(Manner::new(Starttls::Tls(
        uncheckable::server(RSA_1024, BOTH).into(),
    )))
    .await;
    let report = deliver(
        &world.outbound(&pinned("partner", &pins, &peer)),
        message(&["b@partner.example"]),
    )
    .await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5");
    let text = failure(&report, 0).to_string();
    assert!(
        text.contains("its key cannot be checked (RSA key of 1024 bits)"),
        "{text}"
    );
    peer.heard_to_the_end().await;
    assert!(!heard_of_mail(&peer));
}

#[tokio::test]
async fn any_of_several_pins_will_do_so_that_keys_can_change() {
    let world = World::new().await;
    let (today, tomorrow) = (self_signed(&[HOP], |_| {}), self_signed(&[HOP], |_| {}));
    let pins = [key_pin(&today.chain[0]), key_pin(&tomorrow.chain[0])];
    for pair in [today, tomorrow] {
        let peer = showing(&pair).await;
        let outbound = world.outbound(&pinned("partner", &pins, &peer));
        assert_eq!(
            outcome(
                &deliver(&outbound, message(&["b@partner.example"])).await,
                0
            ),
            "delivered"
        );
    }
}

#[tokio::test]
async fn the_pin_of_one_partner_is_none_of_another() {
    let world = World::new().await;
    let (one, other) = (self_signed(&[HOP], |_| {}), self_signed(&[HOP], |_| {}));
    let (first, second) = (showing(&one).await, showing(&other).await);
    let pin = |pair: &Pair| vec![key_pin(&pair.chain[0])];
    let right = pinned("one", &pin(&one), &first) + &pinned("other", &pin(&other), &second);
    let outbound = world.outbound(&right);
    for domain in ["one", "other"] {
        let report = deliver(&outbound, message(&[&format!("b@{domain}.example")])).await;
        assert_eq!(outcome(&report, 0), "delivered", "{domain}");
    }
    let crossed = pinned("one", &pin(&other), &first) + &pinned("other", &pin(&one), &second);
    let outbound = world.outbound(&crossed);
    for domain in ["one", "other"] {
        let report = deliver(&outbound, message(&[&format!("b@{domain}.example")])).await;
        assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{domain}");
    }
}

/// A partner with an authority of its own, who wants a client certificate of that authority.
struct Partner {
    authority: Authority,
    peer: Peer,
}

impl Partner {
    async fn start(name: &str, folder: &Path) -> Self {
        let authority = Authority::root(&format!("CA of {name}"));
        std::fs::write(folder.join(format!("{name}-ca.pem")), authority.pem())
            .expect("the folder is ours");
        authority
            .issue(&["relay.example.com"])
            .write(folder, &format!("for-{name}"));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate.clone()).expect("a root");
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            provider(),
        );
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(BOTH)
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                authority.issue(&[HOP]).certified(),
            )));
        Self {
            authority,
            peer: Peer::start(Manner::new(Starttls::Tls(server.into()))).await,
        }
    }

    /// The connector for `name`, with the trust and the client certificate for whom it says.
    fn connector(&self, folder: &Path, name: &str, trust: &str, identity: &str) -> String {
        let (folder, port) = (folder.display(), self.peer.address.port());
        format!(
            "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\ntrust = \"{folder}/{trust}-ca.pem\"\n\
             [connector.outbound]\nroute = [\"{HOP}:{port}\"]\ntls = \"forced\"\nverify = \"name\"\n\
             client_certificate = \"{folder}/for-{identity}.pem\"\nclient_key = \"{folder}/for-{identity}.key\"\n"
        )
    }
}

#[tokio::test]
async fn each_partner_is_held_against_its_own_trust_and_shown_its_own_certificate() {
    let (world, folder) = (World::new().await, tempfile::tempdir().expect("a folder"));
    let folder = folder.path();
    let (a, b) = (
        Partner::start("a", folder).await,
        Partner::start("b", folder).await,
    );
    assert_ne!(a.authority.certificate, b.authority.certificate);
    for (trusts, identities, results) in [
        (["a", "b"], ["a", "b"], ["delivered", "delivered"]),
        (["b", "b"], ["a", "b"], ["deferred 4.7.5", "delivered"]),
        (["a", "a"], ["a", "b"], ["delivered", "deferred 4.7.5"]),
        // The certificate that is meant for the other: the peer does not take it.
        (["a", "b"], ["b", "b"], ["deferred 4.7.5", "delivered"]),
        (["a", "b"], ["a", "a"], ["delivered", "deferred 4.7.5"]),
    ] {
        let connectors = a.connector(folder, "a", trusts[0], identities[0])
            + &b.connector(folder, "b", trusts[1], identities[1]);
        let outbound = world.outbound(&connectors);
        for (domain, expected) in ["a", "b"].iter().zip(results) {
            let report = deliver(&outbound, message(&[&format!("x@{domain}.example")])).await;
            assert_eq!(
                outcome(&report, 0),
                expected,
                "{domain}, trust {trusts:?}, identities {identities:?}"
            );
        }
        outbound.close();
    }
}
