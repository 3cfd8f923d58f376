//! Every cell of the policy table, against real sockets and real certificates.

use std::sync::Arc;

use gatepost::policy::tls::{Authentication, ChainFault, NoTls, TlsOutcome, Unmet};
use gatepost::relay::outbound::Via;
use rcgen::{DnType, date_time_ymd};

use crate::support::certificates::{Authority, BOTH, Pair, self_signed, server_config};
use crate::support::deliveries::{
    CONTENT, World, connector, deliver, failure, message, outcome, result,
};
use crate::support::peer::{Heard, Manner, Nobody, Peer, Starttls};
use crate::support::uncheckable::{self, KINDS};

/// The name of the one hop.
const HOP: &str = "mx.partner.example";

/// The columns.
const POLICIES: [(&str, &str); 5] = [
    ("off", "tls = \"off\""),
    ("opportunistic", "tls = \"opportunistic\""),
    ("none", "tls = \"forced\"\nverify = \"none\""),
    ("chain", "tls = \"forced\"\nverify = \"chain\""),
    ("name", "tls = \"forced\"\nverify = \"name\""),
];

/// The promise of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// In the clear, on so many connections, the last of which got the message.
    Clear(&'static str, usize),
    /// Under TLS, the peer known as this.
    Tls(&'static str),
    /// Nothing of the envelope was sent; the status, and a part of the reason.
    Refused(&'static str, &'static str),
    /// The same, after a second try with TLS on another connection.
    RefusedTwice(&'static str, &'static str),
}
use Cell::{Clear, Refused, RefusedTwice, Tls};

/// A cell as it came about.
async fn play(world: &World, manner: Manner, policy: &str) -> (String, Peer, Option<Arc<Via>>) {
    let peer = Peer::start(manner).await;
    let route = format!("route = [\"{HOP}:{}\"]\n{policy}", peer.address.port());
    let outbound = world.outbound(&connector("partner", &["partner.example"], &route));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    outbound.close();
    let mut told = outcome(&report, 0);
    if told != "delivered" {
        told = format!("{told}: {}", failure(&report, 0));
        assert_eq!(report.trail.len(), 1, "{told}");
    }
    (told, peer, result(&report, 0).via.clone())
}

fn reason(outcome: &TlsOutcome) -> &'static str {
    match outcome {
        TlsOutcome::Clear(NoTls::NotWanted) => "not wanted",
        TlsOutcome::Clear(NoTls::NotOffered) => "not offered",
        TlsOutcome::Clear(NoTls::Rejected(_)) => "rejected",
        TlsOutcome::Clear(NoTls::SpokeBeforeHandshake) => "spoke before the handshake",
        TlsOutcome::Clear(NoTls::Broken(_)) => "broken",
        TlsOutcome::Clear(NoTls::NotUsed) => "not used",
        TlsOutcome::Tls(_) => "TLS",
    }
}

fn known_as(authentication: &Authentication) -> &'static str {
    match authentication {
        Authentication::Anonymous => "anonymous",
        Authentication::Unproved(_) => "key not proved",
        Authentication::Trusted => "trusted",
        Authentication::Verified(_) => "verified",
        Authentication::Pinned(_) => "pinned",
        Authentication::Dane { .. } => "DANE",
        Authentication::Untrusted(Unmet::Chain(fault)) => match fault {
            ChainFault::SelfSigned => "self-signed",
            ChainFault::UnknownIssuer(_) => "unknown issuer",
            ChainFault::Expired(_) => "expired",
            ChainFault::NotYetValid(_) | ChainFault::NotChecked | ChainFault::Invalid(_) => {
                "invalid"
            }
        },
        Authentication::Untrusted(Unmet::Name { .. }) => "another name",
        Authentication::Untrusted(_) => "untrusted",
    }
}

async fn check(world: &World, row: &str, manner: &Manner, at: usize, promised: Cell) {
    let (column, policy) = POLICIES[at];
    let (told, peer, via) = play(world, manner.clone(), policy).await;
    let heard = peer.heard_to_the_end().await;
    let cell = format!("{row} / {column}: {told}\n{heard:#?}");
    let delivered = !matches!(promised, Refused(..) | RefusedTwice(..));
    assert_eq!(told == "delivered", delivered, "{cell}");
    match promised {
        Clear(why, connections) => {
            let via = via.expect("a session");
            assert_eq!(reason(via.clearance.outcome()), why, "{cell}");
            let known = known_as(via.clearance.authentication());
            assert_eq!(known, "anonymous", "{cell}");
            went_in_the_clear(&heard, why, connections, &cell);
        }
        Tls(known) => {
            let via = via.expect("a session");
            assert_eq!(reason(via.clearance.outcome()), "TLS", "{cell}");
            assert_eq!(known_as(via.clearance.authentication()), known, "{cell}");
            went_under_tls(&heard, &cell);
        }
        Refused(status, words) | RefusedTwice(status, words) => {
            assert!(
                told.starts_with(&format!("deferred {status}: {HOP} [127.0.0.1]:")),
                "{cell}"
            );
            assert!(told.contains(words) && via.is_none(), "{cell}");
            let connections = 1 + usize::from(matches!(promised, RefusedTwice(..)));
            went_nowhere(&heard, connections, &cell);
        }
    }
    let contents: Vec<Vec<u8>> = delivered.then(|| CONTENT.to_vec()).into_iter().collect();
    assert_eq!(
        peer.messages(),
        contents,
        "delivered exactly once, or not at all: {cell}"
    );
}

/// The last connection got the message, without TLS; those before it got nothing of it.
fn went_in_the_clear(heard: &[Heard], why: &str, connections: usize, cell: &str) {
    assert_eq!(heard.len(), connections, "{cell}");
    assert!(!heard.iter().any(|heard| heard.has("(TLS)")), "{cell}");
    if why == "not wanted" || connections > 1 {
        assert!(!heard[connections - 1].has("STARTTLS"), "{cell}");
    }
    for spoilt in &heard[..connections - 1] {
        assert!(
            !spoilt.has("MAIL"),
            "MAIL FROM was said on a spoilt connection: {cell}"
        );
    }
}

/// The one connection got the message, after the handshake.
fn went_under_tls(heard: &[Heard], cell: &str) {
    let [heard] = heard else {
        panic!("one connection: {cell}")
    };
    let place = |command: &str| {
        heard
            .commands
            .iter()
            .position(|line| line.starts_with(command))
    };
    assert!(
        place("(TLS)") < place("MAIL") && place("(TLS)").is_some(),
        "MAIL FROM before TLS: {cell}"
    );
}

/// No connection got anything of the envelope.
fn went_nowhere(heard: &[Heard], connections: usize, cell: &str) {
    assert_eq!(heard.len(), connections, "{cell}");
    for command in ["MAIL", "RCPT", "DATA", "HELO"] {
        assert!(
            !heard.iter().any(|heard| heard.has(command)),
            "{command} was said: {cell}"
        );
    }
}

async fn check_row(world: &World, row: &str, starttls: Starttls, promised: [Cell; 5]) {
    let manner = Manner::new(starttls);
    for (at, cell) in promised.into_iter().enumerate() {
        check(world, row, &manner, at, cell).await;
    }
}

#[tokio::test]
async fn no_starttls() {
    let world = World::new().await;
    let refused = Refused("4.7.4", "the peer does not offer STARTTLS");
    let row = [
        Clear("not wanted", 1),
        Clear("not offered", 1),
        refused,
        refused,
        refused,
    ];
    check_row(&world, "offers no STARTTLS", Starttls::NotOffered, row).await;
}

#[tokio::test]
async fn starttls_refused() {
    let world = World::new().await;
    let refused = |words| Refused("4.7.4", words);
    for (answer, words) in [
        ("454 4.7.0 not now", "454 4.7.0 not now"),
        ("502 5.5.1 no", "502 5.5.1 no"),
    ] {
        let row = [
            Clear("not wanted", 1),
            Clear("rejected", 1),
            refused(words),
            refused(words),
            refused(words),
        ];
        check_row(&world, answer, Starttls::Answered(answer), row).await;
    }
    // A 421 takes the connection with it: "the same connection" is not to be had.
    let words = "421 4.3.2 closing";
    let row = [
        Clear("not wanted", 1),
        Clear("broken", 2),
        refused(words),
        refused(words),
        refused(words),
    ];
    check_row(&world, words, Starttls::Answered(words), row).await;
}

#[tokio::test]
async fn handshake_broken() {
    let world = World::new().await;
    let broken = |why, words| {
        let refused = Refused("4.7.5", words);
        [
            Clear("not wanted", 1),
            Clear(why, 2),
            refused,
            refused,
            refused,
        ]
    };
    // TLS is tried once more; only then comes what the policy says.
    let twice = |words| {
        let refused = RefusedTwice("4.7.5", words);
        [
            Clear("not wanted", 1),
            Clear("broken", 3),
            refused,
            refused,
            refused,
        ]
    };
    let row = twice("the TLS handshake failed: the peer closed the connection");
    check_row(&world, "closes after its 220", Starttls::Closes, row).await;
    let row = broken(
        "broken",
        "the TLS handshake failed: the peer closed the connection instead of replying to STARTTLS",
    );
    check_row(&world, "closes instead of 220", Starttls::Vanishes, row).await;
    let row = broken(
        "spoke before the handshake",
        "clear text after agreeing to STARTTLS",
    );
    check_row(
        &world,
        "speaks after its 220",
        Starttls::Speaks("250 peer"),
        row,
    )
    .await;
    // It agrees, and its TLS has nothing in common with ours.
    let thief = Pair {
        key: self_signed(&[HOP], |_| {}).key,
        ..world.authority.issue(&[HOP])
    };
    let row = broken("broken", "the TLS handshake failed: ");
    check_row(
        &world,
        "has another key",
        Starttls::Tls(server_config(&thief, BOTH).into()),
        row,
    )
    .await;
    // With TLS 1.3 our side is done before the peer says that it wants a certificate.
    for versions in [
        &crate::support::certificates::TLS12,
        &crate::support::certificates::TLS13,
    ] {
        let row = twice(
            "certificate_required: it accepts mail only from clients with a certificate; set client_certificate",
        );
        check_row(
            &world,
            "demands our certificate",
            demands_a_certificate(&world, versions),
            row,
        )
        .await;
    }
}

/// A peer that takes nobody without a certificate.
fn demands_a_certificate(
    world: &World,
    versions: crate::support::certificates::Versions<'_>,
) -> Starttls {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(world.authority.certificate.clone())
        .expect("an authority");
    let provider = crate::support::certificates::provider();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .expect("a verifier");
    let pair = world.authority.issue(&[HOP]);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            pair.certified(),
        )));
    Starttls::Tls(Arc::new(config))
}

/// A peer with this certificate.
fn shows(pair: &Pair) -> Starttls {
    Starttls::Tls(Arc::new(server_config(pair, BOTH)))
}

#[tokio::test]
async fn certificate_not_trusted() {
    let world = World::new().await;
    let stranger = Authority::root("Nobody's Authority");
    let expired = world.authority.issue_as(&[HOP], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 2, 3);
    });
    for (known, pair, words) in [
        (
            "self-signed",
            self_signed(&[HOP], |_| {}),
            "it is self-signed",
        ),
        ("expired", expired, "it expired on 2021-02-03"),
        (
            "unknown issuer",
            stranger.issue(&[HOP]),
            "its issuer (CN=Nobody's Authority) is not trusted",
        ),
    ] {
        let refused = Refused("4.7.5", words);
        let row = [
            Clear("not wanted", 1),
            Tls(known),
            Tls(known),
            refused,
            refused,
        ];
        check_row(&world, known, shows(&pair), row).await;
    }
}

/// A key that cannot be checked is as good as no certificate: TLS where nobody asks who the peer
/// is, and nothing else. The reason names the key.
#[tokio::test]
async fn certificate_with_a_key_that_cannot_be_checked() {
    let world = World::new().await;
    for kind in KINDS {
        let words = format!(
            "the certificate proves nothing: its key cannot be checked ({})",
            kind.words
        )
        .leak();
        let refused = Refused("4.7.5", words);
        let row = [
            Clear("not wanted", 1),
            Tls("key not proved"),
            Tls("key not proved"),
            refused,
            refused,
        ];
        check_row(
            &world,
            kind.words,
            Starttls::Tls(uncheckable::server(kind, BOTH).into()),
            row,
        )
        .await;
    }
}

#[tokio::test]
async fn certificate_of_another_name() {
    let world = World::new().await;
    let pair = world.authority.issue(&["mx.elsewhere.example"]);
    let refused = Refused(
        "4.7.5",
        "the certificate is for mx.elsewhere.example, not for mx.partner.example",
    );
    // A demand for the chain alone ignores the name.
    let row = [
        Clear("not wanted", 1),
        Tls("another name"),
        Tls("another name"),
        Tls("another name"),
        refused,
    ];
    check_row(&world, "another name", shows(&pair), row).await;
    // A common name is no DNS name.
    let nameless = world.authority.issue_as(&[], |params| {
        params.distinguished_name.push(DnType::CommonName, HOP);
    });
    let refused = Refused("4.7.5", "the certificate has no DNS name at all");
    let row = [
        Clear("not wanted", 1),
        Tls("another name"),
        Tls("another name"),
        Tls("another name"),
        refused,
    ];
    check_row(&world, "no name", shows(&nameless), row).await;
}

#[tokio::test]
async fn certificate_trusted_and_name_right() {
    let world = World::new().await;
    for names in [&[HOP][..], &["other.example", "*.partner.example"]] {
        let pair = world.authority.issue(names);
        let row = [
            Clear("not wanted", 1),
            Tls("verified"),
            Tls("verified"),
            Tls("verified"),
            Tls("verified"),
        ];
        check_row(&world, "good", shows(&pair), row).await;
    }
}

#[tokio::test]
async fn too_old_a_version() {
    let world = World::new().await;
    let pair = world.authority.issue(&[HOP]);
    let manner = Manner::new(Starttls::Tls(
        server_config(&pair, &crate::support::certificates::TLS12).into(),
    ));
    let policy = "tls = \"forced\"\nverify = \"none\"\nmin_version = \"1.3\"";
    let (told, peer, _) = play(&world, manner, policy).await;
    assert!(
        told.starts_with("deferred 4.7.5") && told.contains("only TLSv1.2 was negotiated"),
        "{told}"
    );
    let heard = peer.heard_to_the_end().await;
    assert!(heard.iter().all(|heard| !heard.has("MAIL")), "{heard:?}");
    assert_eq!(
        heard[0].commands.last().map(String::as_str),
        Some("QUIT"),
        "{heard:?}"
    );
}

#[tokio::test]
async fn a_refused_hop_hears_quit_and_the_next_one_is_tried() {
    let world = World::new().await;
    let bad = Peer::start(Manner::new(Starttls::NotOffered)).await;
    let good = Peer::start(Manner::new(shows(&world.authority.issue(&[HOP])))).await;
    let policy = format!(
        "route = [\"{HOP}:{}\", \"{HOP}:{}\"]\ntls = \"forced\"\nverify = \"name\"",
        bad.address.port(),
        good.address.port()
    );
    let outbound = world.outbound(&connector("partner", &["partner.example"], &policy));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    outbound.close();
    assert_eq!(outcome(&report, 0), "delivered");
    assert_eq!(report.trail.len(), 1);
    assert_eq!(
        report.trail[0].to_string(),
        format!(
            "{HOP} [127.0.0.1]:{}: TLS with a trusted certificate for {HOP} is demanded, but the peer does not offer STARTTLS",
            bad.address.port()
        )
    );
    let heard = bad.heard_to_the_end().await;
    assert_eq!(heard[0].commands, ["EHLO relay.example.com", "QUIT"]);
    assert_eq!(good.heard_to_the_end().await[0].messages.len(), 1);
}

#[tokio::test]
async fn when_no_hop_is_left_on_failure_decides() {
    let world = World::new().await;
    let peer = Peer::start(Manner::new(Starttls::NotOffered)).await;
    let port = peer.address.port();
    // The second hop is not there at all: that does not hide the demand which the first did not
    // meet.
    let nobody = Nobody::at([127, 0, 0, 1]);
    let policy = format!(
        "route = [\"{HOP}:{port}\", \"{HOP}:{}\"]\ntls = \"forced\"\nverify = \"none\"",
        nobody.address.port()
    );
    for (on_failure, ends) in [("defer", "deferred 4.7.4"), ("bounce", "bounced 5.7.4")] {
        let policy = format!("{policy}\non_failure = \"{on_failure}\"");
        let outbound = world.outbound(&connector("partner", &["partner.example"], &policy));
        let report = deliver(
            &outbound,
            message(&["b@partner.example", "c@partner.example"]),
        )
        .await;
        assert_eq!([outcome(&report, 0), outcome(&report, 1)], [ends, ends]);
        assert_eq!(
            report.trail.len(),
            2,
            "each hop's reason is kept: {:?}",
            report.trail
        );
    }
    assert!(
        peer.heard_to_the_end()
            .await
            .iter()
            .all(|heard| !heard.has("MAIL"))
    );
}
