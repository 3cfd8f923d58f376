//! Mail to somebody: connectors, layers, hops, peers, and what follows when no hop is left.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use gatepost::discovery::history::{History, TlsLevel};
use gatepost::smtp::address::Host;
use jiff::Timestamp;
use serde_json::json;

use super::world::{World, connector, in_order, layer, row};
use crate::support::operated::{Relay, code, err, json, out};

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_partner_is_explained_from_connector_to_bounce_and_nobody_is_dialled() {
    let world = World::new().await;
    let host = TcpListener::bind("127.0.0.1:0").expect("loopback");
    host.set_nonblocking(true).expect("our own socket");
    let port = host.local_addr().expect("bound").port();
    let connectors = [
        connector("internet", &["*"], ""),
        connector("examples", &["*.example"], ""),
        connector(
            "partner",
            &["partner.example"],
            &format!("port = {port}\ntls = \"forced\"\nverify = \"name\"\non_failure = \"hold\""),
        ),
    ]
    .concat();
    let said = world.said(&connectors, &["bob@Partner.Example"], 0);
    in_order(
        &said,
        &[
            "Mail to bob@partner.example\n",
            "connector   partner: its pattern \"partner.example\" matches partner.example\n",
            "not examples: its pattern \"*.example\" is less specific than \"partner.example\"\n",
            "not internet: its pattern \"*\" is less specific than \"partner.example\"\n",
            "route       the MX records of partner.example (not validated, because [dns] dnssec is \"off\")\n",
            &format!("Hop 1: mx1.partner.example:{port}, preference 10\n"),
            &format!("addresses   127.0.0.1:{port}\n"),
            "demand      TLS with a trusted certificate for partner.example or *.partner.example\n",
            "connector         TLS with a trusted certificate for partner.example or *.partner.example\n",
            "exception         nothing: the connector has none\n",
            "DANE              nothing: ",
            "MTA-STS           nothing: the domain publishes no MTA-STS policy\n",
            "REQUIRETLS        nothing: an ordinary message does not ask for it",
            "downgrade memory  nothing: not available: no running Gatepost answers on ",
            "offered     post-quantum key exchange first\n",
            "if the handshake breaks, again on a fresh connection: classical key exchange, all curves\n",
            "offers no STARTTLS",
            "is refused, 4.7.4 (connector)\n",
            "breaks the handshake, and the second one",
            "is refused, 4.7.5 (connector)\n",
            "TLS, certificate self-signed",
            "is refused, 4.7.5 (connector)\n",
            "TLS, certificate as wanted",
            "goes over TLS, verified as partner.example\n",
            &format!("Hop 2: mx2.partner.example:{port}, preference 20\n"),
            "the same as at hop 1.\n",
            "When no hop is left\n",
            "policy not met        it is held until an operator decides (gatepost queue release, or bounce) (on_failure = \"hold\")\n",
            "hosts unreachable     it is deferred, retried first after 1m, and bounces after 5d\n",
        ],
    );
    assert_eq!(
        host.accept().expect_err("nobody dialled").kind(),
        std::io::ErrorKind::WouldBlock
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_has_the_rows_of_the_policy_table() {
    let world = World::new().await;
    let told = json(&world.explain("", &["alone.example", "--json"]));
    let hop = &told["hops"][0];
    for (peer, result) in [
        ("no-starttls", "clear"),
        ("starttls-rejected", "clear"),
        ("handshake-broken", "clear-again"),
        ("speaks-before-handshake", "clear-again"),
        ("self-signed", "tls"),
        ("right", "tls"),
    ] {
        assert_eq!(row(hop, peer)["result"], result, "{peer}");
    }
    let off = json(&world.explain(
        &connector("off", &["*"], "tls = \"off\""),
        &["alone.example", "--json"],
    ));
    assert_eq!(off["hops"][0]["peers"].as_array().map(Vec::len), Some(1));
    assert_eq!(row(&off["hops"][0], "not-asked")["result"], "clear");
    assert_eq!(
        layer(&off["hops"][0], "mta-sts")["why"],
        "the connector has TLS switched off, which no layer can raise"
    );
}

/// Domain and recipient, connector, route, demand and offers.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_names_what_is_used() {
    let world = World::new().await;
    let output = world.explain("", &["alone.example", "--json"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let told = json(&output);
    assert_eq!(
        (&told["direction"], &told["domain"], &told["can_go"]),
        (&json!("outbound"), &json!("alone.example"), &json!(true))
    );
    assert_eq!(
        told["connector"],
        json!({"name": "default", "pattern": "*", "built_in": true})
    );
    assert_eq!(
        (
            &told["others"],
            &told["requirement"],
            &told["memory"]["asked"]
        ),
        (&json!([]), &json!("ordinary"), &json!(false))
    );
    let hop = &told["hops"][0];
    assert_eq!(
        (&hop["host"], &hop["port"], &hop["origin"]),
        (&json!("alone.example"), &json!(25), &json!("implicit-mx"))
    );
    assert_eq!(
        (&hop["addresses"], &hop["problem"], &hop["policy"]),
        (
            &json!(["127.0.0.3:25"]),
            &json!(null),
            &json!("TLS opportunistic")
        )
    );
    assert_eq!(
        hop["client_hello"],
        json!({"first": "post-quantum key exchange first", "second": "classical key exchange, all curves, without SNI", "remembered": false})
    );
    assert!(
        layer(hop, "connector")["why"]
            .as_str()
            .expect("words")
            .starts_with("default: no connector"),
        "{hop:#}"
    );
    assert_eq!(
        told["recipient"],
        json!(null),
        "the user named no recipient"
    );
    let named = json(&world.explain("", &["bob@alone.example", "--json"]));
    assert_eq!(
        (&named["recipient"], &named["asked"]),
        (&json!("bob@alone.example"), &json!("bob@alone.example"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_cannot_go_is_explained_with_the_reason() {
    let world = World::new().await;
    for (domain, said) in [
        (
            "null.example",
            "Mail cannot go: null.example accepts no mail (it publishes a null MX record, RFC 7505) (5.1.10); it bounces at once.\n",
        ),
        (
            "missing.example",
            "Mail cannot go: the domain missing.example does not exist (5.1.2); it bounces at once.\n",
        ),
        (
            "elsewhere.test",
            "Mail cannot go: the MX lookup for elsewhere.test failed: ",
        ),
        (
            "elsewhere.test",
            "(4.4.3); it is deferred, retried first after 1m",
        ),
        (
            "nowhere.example",
            "  NOT USED    the host missing.example has no address (4.4.4)\n",
        ),
        (
            "nowhere.example",
            "Mail cannot go: no hop can be used: the host missing.example has no address (4.4.4); it is deferred",
        ),
    ] {
        let text = world.said("", &[domain], 1);
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
    // One host of two is enough.
    in_order(
        &world.said("", &["half.example"], 0),
        &["NOT USED", "Hop 2: mx1.partner.example:25"],
    );
    let told = json(&world.explain("", &["null.example", "--json"]));
    assert_eq!(
        (&told["can_go"], &told["hops"], &told["route"]),
        (&json!(false), &json!([]), &json!(null))
    );
    assert_eq!(
        (&told["problem"]["status"], &told["problem"]["then"]),
        (&json!("5.1.10"), &json!("bounce"))
    );
}

/// A destination as it is written, and what is said of it.
const SPELLINGS: [(&str, &[&str]); 7] = [
    (
        "[192.0.2.1]",
        &[
            "matches [192.0.2.1]\n",
            "the address itself\n",
            "Hop 1: [192.0.2.1]:25, as the address says\n",
            "MTA-STS           nothing: the host is named by its address\n",
        ],
    ),
    (
        "bob@[IPv6:2001:db8::1]",
        &["addresses   [2001:db8::1]:25\n"],
    ),
    (
        "postmaster",
        &[
            "Mail to postmaster\n",
            "goes to postmaster@partner.example, as the configuration says\n",
            "matches partner.example\n",
        ],
    ),
    (
        "root@relay.example.com",
        &[
            "Mail to root@relay.example.com\n",
            "mail of our own clients for it goes to postmaster@partner.example\n",
            "matches partner.example\n",
        ],
    ),
    (
        "localhost",
        &[
            "Mail to localhost\n",
            "goes to postmaster@partner.example\n",
            "matches partner.example\n",
        ],
    ),
    (
        "B\u{fc}cher.example.",
        &[
            "Mail to xn--bcher-kva.example\n",
            "Hop 1: mx1.partner.example:25",
        ],
    ),
    (
        "bob@smart.example",
        &[
            "the smart hosts of the connector's route, in their order\n",
            "Hop 1: smart.partner.example:587, smart host\n",
            "demand      TLS\n",
            "Hop 2: [127.0.0.9]:26, smart host\n",
        ],
    ),
];

/// A connector with smart hosts.
fn smart() -> String {
    connector(
        "smart",
        &["smart.example"],
        "route = [\"smart.partner.example:587\", \"[127.0.0.9]:26\"]\ntls = \"forced\"",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_destination_is_understood() {
    let world = World::new().await;
    let smart = smart();
    for (asked, pieces) in SPELLINGS {
        in_order(&world.said(&smart, &[asked], 0), pieces);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_arguments_and_files_end_with_2() {
    let world = World::new().await;
    let smart = smart();
    for (arguments, said) in [
        (&["192.0.2.1"][..], "write [192.0.2.1]"),
        (&["a b"], "is not a domain name"),
        (&["<>"], "no mail goes to <>"),
        (
            &["partner.example", "--requiretls", "--tls-not-required"],
            "cannot be used with",
        ),
    ] {
        let output = world.explain(&smart, arguments);
        assert_eq!(
            (code(&output), out(&output).as_str()),
            (2, ""),
            "{arguments:?}"
        );
        assert!(
            err(&output).contains(said),
            "{arguments:?}: {}",
            err(&output)
        );
    }
    let output = world.explain_file("hostname = 7", &["partner.example"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains(" error"), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_message_asks_counts() {
    let world = World::new().await;
    let refused = world.said("", &["partner.example", "--requiretls"], 1);
    in_order(
        &refused,
        &[
            "REQUIRETLS        TLS with a host proven to be the domain's",
            "NOT USED    the message requires TLS on its whole way (REQUIRETLS): ",
            "no MTA-STS policy lists it (5.7.10)\n",
            "Mail cannot go: no hop can be used: ",
            "it bounces at once.\n",
        ],
    );
    assert!(
        !refused.contains("If the peer does this"),
        "no handshake helps:\n{refused}"
    );
    let smart = connector("smart", &["*"], "route = [\"smart.partner.example:25\"]");
    in_order(
        &world.said(&smart, &["partner.example", "--requiretls"], 0),
        &[
            "offers no STARTTLS",
            "is refused, 5.7.10 (REQUIRETLS)\n",
            "TLS, certificate as wanted, no REQUIRETLS",
            "is refused, 5.7.30 (REQUIRETLS)\n",
            "REQUIRETLS not met    it bounces at once\n",
        ],
    );
    let off = connector("off", &["*"], "tls = \"off\"");
    let said = world.said(&off, &["partner.example", "--requiretls"], 1);
    assert!(
        said.contains("and the connector has it switched off (5.7.10); it bounces at once.\n"),
        "{said}"
    );
    let relaxed = world.said("", &["partner.example", "--tls-not-required"], 0);
    in_order(
        &relaxed,
        &["MTA-STS           nothing: the message overrides it (TLS-Required: No)\n"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_is_shown_with_its_date_and_reason_while_it_holds_and_after() {
    let world = World::new().await;
    let exception = |until: &str| {
        let tls = format!(
            "tls = \"forced\"\nexception = {{ tls = \"opportunistic\", until = \"{until}\", reason = \"ticket 4711\" }}"
        );
        connector("partner", &["partner.example"], &tls)
    };
    in_order(
        &world.said(&exception("2999-01-31"), &["partner.example"], 0),
        &[
            "EXCEPTION: TLS opportunistic until 2999-01-31 (ticket 4711)\n",
            "demand      TLS opportunistic\n",
            "connector         nothing: its exception replaces its own demand\n",
            "exception         nothing: until 2999-01-31 (ticket 4711)\n",
            "offers no STARTTLS",
            "goes in the clear\n",
        ],
    );
    in_order(
        &world.said(&exception("2001-01-31"), &["partner.example"], 0),
        &[
            "the exception ended on 2001-01-31 (ticket 4711)\n",
            "demand      TLS\n",
            "exception         nothing: ended on 2001-01-31 (ticket 4711)\n",
        ],
    );
}

/// A relay with this connector that remembers TLS of partner.example.
fn relay_with_a_memory(world: &World, connector: &str) -> Relay {
    let more = format!(
        "[dns]\nservers = [\"{}\"]\ndnssec = \"off\"\n{connector}",
        world.names.address
    );
    let mut relay = Relay::start(&more);
    relay.stop();
    let memory =
        History::open(&relay.folder.path().join("spool"), Timestamp::now()).expect("a memory");
    let [domain, host] =
        ["partner.example", "mx9.partner.example"].map(|name| Host::parse(name).expect("a host"));
    let _ = memory.record(&domain, &host, TlsLevel::Trusted, None, Timestamp::now());
    drop(memory);
    relay.start_again();
    relay
}

/// Runs `gatepost explain partner.example` with a configuration.
fn explain(config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .env("COLUMNS", "500")
        .args(["explain", "partner.example", "--config"])
        .arg(config)
        .output()
        .expect("gatepost runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_shows_what_the_domain_did_before() {
    let world = World::new().await;
    let refuse = connector("partner", &["partner.example"], "downgrade = \"refuse\"");
    let mut relay = relay_with_a_memory(&world, &refuse);
    let text = std::fs::read_to_string(relay.config()).expect("a file");
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let output = explain(&relay.config());
    in_order(
        &out(&output),
        &[
            "demand      TLS (downgrade memory)\n",
            &format!(
                "downgrade memory  TLS (the domain used TLS, last on {today}; so TLS is required now (downgrade = \"refuse\"))\n"
            ),
            "offers no STARTTLS",
            "is refused, 4.7.4 (downgrade memory)\n",
        ],
    );
    assert_eq!(code(&output), 0, "{}{text}", err(&output));
    // The same memory under other connectors: it is said what becomes of mail without TLS.
    for (outbound, words) in [
        (
            "downgrade = \"warn\"",
            "mail goes without TLS, which is logged (downgrade = \"warn\")",
        ),
        ("tls = \"forced\"", "another layer demands TLS"),
        (
            "tls = \"forced\"\ndowngrade = \"allow\"",
            "another layer demands TLS",
        ),
    ] {
        let other = relay.folder.path().join("other.toml");
        let connector = connector("partner", &["partner.example"], outbound);
        std::fs::write(&other, text.replace(&refuse, &connector)).expect("the folder is ours");
        in_order(
            &out(&explain(&other)),
            &["the domain used TLS, last on ", words],
        );
    }
    relay.stop();
    in_order(
        &out(&explain(&relay.config())),
        &[
            "demand      TLS opportunistic\n",
            "not available: no running Gatepost answers on ",
            "may demand TLS\n",
        ],
    );
}

/// An explanation fits the terminal, in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_fits_the_terminal() {
    let world = World::new().await;
    let more = "tls = \"forced\"\nverify = \"name\"\nexception = { tls = \"opportunistic\", until = \"2001-01-31\", \
                reason = \"their new gateway is not ready, as they wrote on the telephone to us, ticket 4711\" }";
    let config = world.config("", &connector("partner", &["partner.example"], more));
    for width in [50, 80, 120] {
        for arguments in [
            &["bob@partner.example"][..],
            &["null.example"],
            &["--sender", "bob@partner.example"],
        ] {
            let output = world.explain_within(&width.to_string(), &config, arguments);
            let text = out(&output);
            assert_eq!(
                crate::screens::too_wide(&text, width),
                [""; 0],
                "{arguments:?}"
            );
            assert!(text.lines().count() > 3, "{text}{}", err(&output));
        }
    }
}
