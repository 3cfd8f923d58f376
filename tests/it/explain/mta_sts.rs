//! The policy of a domain, fetched from a real host of its own by the command itself.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatepost::config::parse;
use gatepost::daemon::{self, SystemdSockets, TestOverrides};
use gatepost::explain::document::{ExplainedHop, OutboundExplanation, PolicyFrom};
use gatepost::explain::{Explainer, RememberedTls, Subject};
use gatepost::policy::layers::MemoryFinding;
use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, Recipient, TlsRequirement};
use gatepost::storage::spool::{Spool as _, SqliteSpool};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::world::{World, connector, in_order};
use crate::support::certificates::{Authority, BOTH, server_config};
use crate::support::operated::{code, json, out, raw};
use crate::support::proxy::{ESTABLISHED, Proxy, ProxyPart};

/// Serves a policy at every path, and counts how often.
async fn policy_host(
    authority: &Authority,
    policy: &'static str,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(
        &authority.issue(&["mta-sts.sts.example"]),
        BOTH,
    )));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = vec![0; 4096];
            if stream.read(&mut head).await.is_err() {
                continue;
            }
            count.fetch_add(1, Ordering::SeqCst);
            let length = policy.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{policy}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (address, asked)
}

async fn explain(
    policy: &'static str,
    connectors: &str,
    requirement: TlsRequirement,
) -> (OutboundExplanation, usize) {
    let world = World::new().await;
    let authority = Authority::root("The Test Authority");
    std::fs::write(world.folder.path().join("ca.pem"), authority.pem())
        .expect("the folder is ours");
    let (address, asked) = policy_host(&authority, policy).await;
    let text = world.config("trust = \"ca.pem\"", connectors);
    let file: &Path = &world.folder.path().join("gatepost.toml");
    let (config, _) = parse(&text, file).expect("a good configuration");
    let explainer = Explainer::new(config)
        .expect("it can be used")
        .policies_at(address.port(), Duration::from_secs(10));
    let subject = Subject::parse("bob@sts.example").expect("an address");
    let recipient = explainer.recipient(&subject).expect("it has a domain");
    let answer = explainer
        .outbound(
            &subject,
            &recipient,
            requirement,
            &RememberedTls::Known(MemoryFinding::Nothing),
        )
        .await;
    (answer, asked.load(Ordering::SeqCst))
}

fn layer<'a>(hop: &'a ExplainedHop, layer: &str) -> (&'a [String], &'a str) {
    let note = hop
        .layers
        .iter()
        .find(|note| note.layer == layer)
        .expect("every layer is told");
    (&note.demands, note.why.as_deref().unwrap_or_default())
}

#[tokio::test]
async fn an_enforced_policy_demands_the_hosts_own_name() {
    let policy = "version: STSv1\nmode: enforce\nmx: *.partner.example\nmax_age: 86400\n";
    let (answer, asked) = explain(policy, "", TlsRequirement::Ordinary).await;
    let demand = "TLS with a publicly trusted certificate for mx1.partner.example".to_owned();
    let (demands, why) = layer(&answer.hops[0], "mta-sts");
    assert_eq!(
        (demands, why),
        (
            &[demand][..],
            "the policy is in enforce mode, and lists the host"
        )
    );
    let row = answer.hops[0]
        .peers
        .iter()
        .find(|row| row.peer == "no-starttls")
        .expect("a row");
    assert_eq!(
        (row.result, row.status.as_deref(), row.by.as_deref()),
        ("refused", Some("4.7.4"), Some("MTA-STS"))
    );
    assert_eq!((answer.can_go, asked), (true, 1));
    let note = answer.hops[0].mta_sts_policy.as_ref().expect("a policy");
    assert_eq!(
        (note.from, note.to_string().as_str()),
        (
            PolicyFrom::Network,
            "the policy 20261126 of sts.example, fetched now"
        )
    );
    // It proves whose the host is, too.
    let (answer, _) = explain(policy, "", TlsRequirement::Require).await;
    assert!(answer.can_go, "{answer:#?}");
}

#[tokio::test]
async fn a_host_that_is_not_listed_is_not_used_and_testing_demands_nothing() {
    let (answer, _) = explain(
        "version: STSv1\nmode: enforce\nmx: mx9.partner.example\nmax_age: 86400\n",
        "",
        TlsRequirement::Ordinary,
    )
    .await;
    let problem = answer.problem.expect("no hop is left");
    assert!(
        problem
            .text
            .contains("mx1.partner.example is not among the hosts listed: mx9.partner.example"),
        "{problem:?}"
    );
    assert_eq!(
        (answer.can_go, problem.status.as_str(), problem.then),
        (false, "4.7.5", "defer")
    );
    let (answer, _) = explain(
        "version: STSv1\nmode: testing\nmx: mx9.partner.example\nmax_age: 86400\n",
        "",
        TlsRequirement::Ordinary,
    )
    .await;
    let (demands, why) = layer(&answer.hops[0], "mta-sts");
    assert!(
        demands.is_empty()
            && why.contains("testing mode")
            && why.contains("does not list the host"),
        "{why}"
    );
    assert!(answer.can_go);
}

#[tokio::test]
async fn a_policy_that_nobody_wants_is_not_fetched_and_one_that_cannot_be_had_is_shown() {
    let off = connector("quiet", &["sts.example"], "discover = []");
    let (answer, asked) = explain("x", &off, TlsRequirement::Ordinary).await;
    assert_eq!(
        (layer(&answer.hops[0], "mta-sts").1, asked),
        ("the connector's discover does not name it", 0)
    );
    let (answer, asked) = explain("nonsense", "", TlsRequirement::Ordinary).await;
    let why = layer(&answer.hops[0], "mta-sts").1;
    assert!(
        why.starts_with("the domain's MTA-STS policy cannot be fetched: ") && asked == 1,
        "{why}"
    );
}

/// A message that waits in the spool for whoever starts there.
pub(crate) async fn leave_mail(world: &World) {
    let spool = SqliteSpool::open(&world.folder.path().join("spool")).expect("nobody else has it");
    let recipient = Recipient::new(Mailbox::parse("bob@sts.example").expect("an address"));
    let sender = ReversePath::parse("alice@example.com").expect("an address");
    let mut draft = spool.draft();
    draft
        .write(b"Subject: test\r\n\r\nbody\r\n")
        .await
        .expect("room");
    spool
        .commit(draft, Envelope::new(sender, vec![recipient]))
        .await
        .expect("stored");
    spool.close().await.expect("all is written");
}

/// Asks the daemon for the policy that it has of a domain; returns status line and answer.
fn ask_for_policy(world: &World, domain: &str) -> (String, Value) {
    raw(
        &world.folder.path().join("admin.sock"),
        &format!("GET /v1/policy?domain={domain} HTTP/1.1\r\nHost: x\r\n\r\n"),
    )
}

/// Waits until the daemon, which delivers, has the policy of sts.example.
async fn policy_in_use(world: &World) -> Value {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (_, known) = ask_for_policy(world, "sts.example");
        if known != Value::Null {
            return known;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the daemon delivers, and needs the policy for that"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `explain` and `probe` show the policy that the daemon has.
fn the_cached_policy_is_shown(world: &World, text: &str, known: &Value) {
    let output = world.explain_file(text, &["bob@sts.example"]);
    assert_eq!(code(&output), 0);
    in_order(
        &out(&output),
        &[
            "MTA-STS           TLS with a publicly trusted certificate for mx1.partner.example (the policy is in enforce mode",
            "the policy 20261126 of sts.example in the daemon's cache, fetched at 20",
        ],
    );
    let told = json(&world.explain_file(text, &["sts.example", "--json"]));
    let note = &told["hops"][0]["mta_sts_policy"];
    assert_eq!(
        (&note["from"], &note["mode"], &note["fetched"]),
        (&"daemon".into(), &"enforce".into(), &known["fetched"])
    );
    let probed = probe(world, &["sts.example"]);
    in_order(
        &probed,
        &[
            "MTA-STS   enforce: the policy lists this host",
            "in the daemon's cache, fetched at 20",
        ],
    );
    let probed: Value =
        serde_json::from_str(&probe(world, &["sts.example", "--json"])).expect("a document");
    assert_eq!(probed["hops"][0]["mta_sts_policy"]["from"], "daemon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_the_daemon_goes_by_counts_though_its_host_is_silent() {
    let world = World::new().await;
    let authority = Authority::root("The Test Authority");
    std::fs::write(world.folder.path().join("ca.pem"), authority.pem())
        .expect("the folder is ours");
    let policy = "version: STSv1\nmode: enforce\nmx: *.partner.example\nmax_age: 86400\n";
    let (address, _) = policy_host(&authority, policy).await;
    // Only the daemon asks at its port. Where the commands ask, nobody is.
    let text = world
        .config("trust = \"ca.pem\"", &connector("all", &["*"], "port = 1"))
        .replace(":2525", ":0");
    let (config, _) =
        parse(&text, &world.folder.path().join("gatepost.toml")).expect("a good configuration");
    leave_mail(&world).await;
    let test_overrides = TestOverrides {
        policy_port: address.port(),
        ..TestOverrides::default()
    };
    let sockets = SystemdSockets::default();
    let daemon = daemon::start_with(test_overrides, sockets, config, Arc::new(())).await;
    let mut daemon = daemon.expect("it starts");

    let known = policy_in_use(&world).await;
    assert_eq!(
        (known["id"].as_str(), known["lines"][1].as_str()),
        (Some("20261126"), Some("mode: enforce"))
    );
    assert_eq!(ask_for_policy(&world, "other.example").1, Value::Null);
    let (line, said) = ask_for_policy(&world, "a%20b");
    assert!(
        line.contains(" 400 ") && said["error"].to_string().contains("is not a domain name"),
        "{line}: {said}"
    );

    the_cached_policy_is_shown(&world, &text, &known);

    daemon.stop();
    daemon.ended().await.expect("an orderly end");
    let told = json(&world.explain_file(&text, &["sts.example", "--json"]));
    assert_eq!(told["hops"][0]["mta_sts_policy"], Value::Null);
    let why = crate::explain::world::layer(&told["hops"][0], "mta-sts")["why"].to_string();
    assert!(
        why.contains("the domain's MTA-STS policy cannot be fetched"),
        "{why}"
    );
}

/// The daemon and the commands fetch policies through the proxy, at the usual port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_and_commands_fetch_policies_through_the_proxy() {
    let world = World::new().await;
    let authority = Authority::root("The Test Authority");
    std::fs::write(world.folder.path().join("ca.pem"), authority.pem())
        .expect("the folder is ours");
    let policy = "version: STSv1\nmode: enforce\nmx: *.partner.example\nmax_age: 86400\n";
    let (address, fetches) = policy_host(&authority, policy).await;
    let proxy = Proxy::start(ProxyPart::Leads(ESTABLISHED, address.port())).await;
    let more = format!(
        "{}[net]\nhttp_proxy = \"{}\"\n",
        connector("all", &["*"], "port = 1"),
        proxy.url()
    );
    let text = world.config("trust = \"ca.pem\"", &more);
    let text = text.replace(":2525", ":0");
    let shown = json(&world.explain_file(&text, &["sts.example", "--json"]));
    let note = &shown["hops"][0]["mta_sts_policy"];
    assert_eq!(
        (&note["mode"], &note["from"]),
        (&"enforce".into(), &"network".into()),
        "{shown}"
    );
    let probed: Value =
        serde_json::from_str(&probe(&world, &["sts.example", "--json"])).expect("a document");
    assert_eq!(
        probed["hops"][0]["mta_sts_policy"]["mode"], "enforce",
        "{probed}"
    );
    assert_eq!(fetches.load(Ordering::SeqCst), 2);

    let (config, _) =
        parse(&text, &world.folder.path().join("gatepost.toml")).expect("a good configuration");
    leave_mail(&world).await;
    let daemon = daemon::start_with(
        TestOverrides::default(),
        SystemdSockets::default(),
        config,
        Arc::new(()),
    );
    let mut daemon = daemon.await.expect("it starts");
    policy_in_use(&world).await;
    assert_eq!(fetches.load(Ordering::SeqCst), 3);
    let connect =
        "CONNECT mta-sts.sts.example:443 HTTP/1.1\r\nHost: mta-sts.sts.example:443\r\n\r\n";
    assert_eq!(proxy.heard(), [connect; 3]);
    daemon.stop();
    daemon.ended().await.expect("an orderly end");
}

/// Returns the output of `gatepost probe`, whatever its exit code.
fn probe(world: &World, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .env("COLUMNS", "500")
        .arg("probe")
        .args(arguments)
        .arg("--config")
        .arg(world.folder.path().join("gatepost.toml"));
    out(&command
        .stdin(std::process::Stdio::null())
        .output()
        .expect("gatepost runs"))
}
