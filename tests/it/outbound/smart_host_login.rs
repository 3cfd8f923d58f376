//! Logins at smart hosts: with each mechanism, at hosts that lie, and what is never said.

use gatepost::relay::outbound::Outbound;
use gatepost::relay::outbound::probe::{ProbeQuery, probe};
use gatepost::smtp::address::Host;
use gatepost::telemetry::{Format, MetricsReading, Monitor};

use crate::support::certificates::{BOTH, server_config};
use crate::support::deliveries::{
    World, connector, deliver, failure, message, outcome, reload, result,
};
use crate::support::peer::{Manner, Peer, Starttls};
use crate::support::smart_host::{LoginManner, PASSWORD, SmartHost, USER};

/// The name under which every host is dialled.
const HOP: &str = "mx.partner.example";
const FORCED: &str = "tls = \"forced\"\nverify = \"name\"";

/// A world with a folder for passwords.
struct Office {
    world: World,
    folder: tempfile::TempDir,
}

impl Office {
    async fn new() -> Self {
        let office = Self {
            world: World::new().await,
            folder: tempfile::tempdir().expect("a folder"),
        };
        office.write_password(PASSWORD);
        office
    }

    fn write_password(&self, password: &str) {
        let file = self.folder.path().join("password");
        std::fs::write(file, format!("{password}\n")).expect("ours");
    }

    async fn host(&self, auth: &'static str) -> SmartHost {
        self.scripted(auth, &[]).await
    }

    async fn scripted(
        &self,
        auth: &'static str,
        scripted: &'static [(&'static str, &'static str)],
    ) -> SmartHost {
        let tls = server_config(&self.world.authority.issue(&[HOP]), BOTH);
        SmartHost::start(tls, LoginManner { auth, scripted }).await
    }

    /// The `auth` of a user.
    fn auth(&self, user: &str) -> String {
        let file = self.folder.path().join("password");
        format!(
            "auth = {{ user = \"{user}\", password_file = \"{}\" }}",
            file.display()
        )
    }

    /// A connector to these ports that logs in.
    fn connector(&self, name: &str, user: &str, ports: &[u16], tls: &str) -> String {
        let hosts: Vec<_> = ports
            .iter()
            .map(|port| format!("smtps://{HOP}:{port}"))
            .collect();
        let lines = format!("route = {hosts:?}\n{tls}\n{}", self.auth(user));
        connector(name, &[&format!("{name}.example")], &lines)
    }

    fn outbound(&self, host: &SmartHost) -> Outbound {
        self.world
            .outbound(&self.connector("partner", USER, &[host.port], FORCED))
    }
}

/// The verbs of a connection.
fn verbs(lines: &[String]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line.split([' ', ':']).next().expect("a verb"))
        .collect()
}

fn says(lines: &[String], verb: &str) -> bool {
    verbs(lines).contains(&verb)
}

/// The strongest mechanism is chosen, there is one AUTH on a connection, and the session says how it
/// was logged in.
#[tokio::test]
async fn each_mechanism_logs_in_and_the_strongest_is_chosen() {
    let office = Office::new().await;
    for (auth, chosen) in [
        ("AUTH PLAIN", "PLAIN"),
        ("AUTH LOGIN", "LOGIN"),
        ("AUTH=LOGIN", "LOGIN"),
        ("AUTH LOGIN PLAIN NTLM", "PLAIN"),
        ("AUTH PLAIN SCRAM-SHA-256 LOGIN", "SCRAM-SHA-256"),
        (
            "AUTH PLAIN SCRAM-SHA-256-PLUS SCRAM-SHA-256",
            "SCRAM-SHA-256-PLUS",
        ),
    ] {
        let host = office.host(auth).await;
        let outbound = office.outbound(&host);
        for _ in 0..2 {
            let report = deliver(&outbound, message(&["b@partner.example"])).await;
            assert_eq!(outcome(&report, 0), "delivered", "{auth}: {report:?}");
            let via = result(&report, 0).via.clone().expect("a session");
            let login = via.login.clone().expect("a login");
            assert_eq!((&*login.user, login.mechanism), (USER, chosen));
        }
        outbound.close();
        let heard = host.heard().await;
        assert_eq!(heard.len(), 1, "{auth}: {heard:?}");
        assert!(
            heard[0][1].starts_with(&format!("AUTH {chosen}")),
            "{heard:?}"
        );
        let count = |verb| verbs(&heard[0]).iter().filter(|one| **one == verb).count();
        assert_eq!((count("AUTH"), count("MAIL"), count("EHLO")), (1, 2, 1));
    }
}

/// Without TLS 1.3 there is no channel binding, and the exchange says so.
#[tokio::test]
async fn without_a_channel_binding_the_bound_mechanism_is_not_chosen() {
    let office = Office::new().await;
    let pair = office.world.authority.issue(&[HOP]);
    let tls = server_config(&pair, &[&rustls::version::TLS12]);
    let manner = LoginManner {
        auth: "AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256",
        scripted: &[],
    };
    let host = SmartHost::start(tls, manner).await;
    let outbound = office.outbound(&host);
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    outbound.close();
    let heard = host.heard().await;
    // "n,,": we cannot bind the exchange.
    let first = &heard[0][1];
    assert!(first.starts_with("AUTH SCRAM-SHA-256 biws"), "{heard:?}");
}

/// A login that fails: the keyword AUTH, scripted replies, the status of the deferral, its reason, and the
/// labels of its metric.
type FailedLogin = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
    &'static str,
);

const FAILURES: [FailedLogin; 8] = [
    (
        "AUTH PLAIN",
        &[("AUTH", "535 5.7.8 bad credentials")],
        "4.7.8",
        "rejected our login (PLAIN) with: 535 5.7.8 bad credentials",
        "PLAIN\",outcome=\"rejected\"",
    ),
    (
        "AUTH PLAIN",
        &[("AUTH", "535 no")],
        "4.7.8",
        "rejected our login (PLAIN) with: 535 no",
        "PLAIN\",outcome=\"rejected\"",
    ),
    (
        "AUTH PLAIN",
        &[("AUTH", "454 4.7.0 try later")],
        "4.7.0",
        "rejected our login (PLAIN) with: 454 4.7.0 try later",
        "PLAIN\",outcome=\"rejected\"",
    ),
    (
        "AUTH SCRAM-SHA-256",
        &[
            ("AUTH", "334 cj1ub3Qtb3Vycw=="),
            ("*", "501 5.7.0 cancelled"),
        ],
        "4.7.0",
        "we ended the login (SCRAM-SHA-256): its first message is malformed",
        "SCRAM-SHA-256\",outcome=\"failed\"",
    ),
    (
        "AUTH SCRAM-SHA-256",
        &[("AUTH", "235 2.7.0 welcome")],
        "4.7.0",
        "it accepted the login before it could check our password",
        "SCRAM-SHA-256\",outcome=\"failed\"",
    ),
    (
        "AUTH PLAIN",
        &[("AUTH", "")],
        "4.4.2",
        "the peer closed the connection instead of replying to AUTH",
        "PLAIN\",outcome=\"failed\"",
    ),
    (
        "X-NOTHING",
        &[],
        "4.7.0",
        "a login is needed, but the host does not offer AUTH",
        "none\",outcome=\"impossible\"",
    ),
    (
        "AUTH GSSAPI NTLM",
        &[],
        "4.7.0",
        "the host offers neither SCRAM-SHA-256 nor PLAIN nor LOGIN",
        "none\",outcome=\"impossible\"",
    ),
];

/// A login that fails defers the message, whatever the reply, and the host never hears MAIL. The
/// administrator finds it in the metrics.
#[tokio::test]
async fn a_failed_login_defers_the_message_and_mail_is_never_said() {
    let office = Office::new().await;
    for (auth, scripted, status, reason, counted) in FAILURES {
        let (host, monitor) = (office.scripted(auth, scripted).await, Monitor::default());
        let outbound = office.outbound(&host).monitored(monitor.clone());
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(
            outcome(&report, 0),
            format!("deferred {status}"),
            "{auth} {scripted:?}"
        );
        let text = failure(&report, 0).to_string();
        assert!(text.contains(reason), "{text}");
        assert!(!text.contains(USER), "senders read it: {text}");
        let heard = host.heard().await;
        assert!(!says(&heard[0], "MAIL"), "{heard:?}");
        let ended = scripted.iter().any(|(_, reply)| reply.is_empty());
        assert!(ended || says(&heard[0], "QUIT"), "{heard:?}");
        let metrics = monitor.text(&MetricsReading::default(), Format::Classic);
        assert!(
            metrics.contains(&format!(
                "outbound_logins_total{{connector=\"partner\",mechanism=\"{counted}}} 1"
            )),
            "{metrics}"
        );
    }
}

/// The next smart host is tried, and the message is deferred if it rejects us too.
#[tokio::test]
async fn a_wrong_password_leads_to_the_next_smart_host() {
    let office = Office::new().await;
    let first = office
        .scripted("AUTH PLAIN", &[("AUTH", "535 5.7.8 no")])
        .await;
    let second = office.host("AUTH PLAIN").await;
    let ports = [first.port, second.port];
    let outbound = office
        .world
        .outbound(&office.connector("partner", USER, &ports, FORCED));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    office.write_password("wrong");
    let outbound = office
        .world
        .outbound(&office.connector("partner", USER, &ports, FORCED));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.8", "{report:?}");
}

/// AUTH that is offered in the clear counts for nothing, and is never used before TLS.
#[tokio::test]
async fn nothing_of_the_login_is_said_before_tls() {
    let office = Office::new().await;
    let pair = office.world.authority.issue(&[HOP]);
    let lines = |peer: &Peer| {
        let route = format!("route = [\"{HOP}:{}\"]", peer.address.port());
        let lines = format!("{route}\n{FORCED}\n{}", office.auth(USER));
        connector("partner", &["partner.example"], &lines)
    };
    let mut manner = Manner::new(Starttls::Tls(server_config(&pair, BOTH).into()))
        .answer("AUTH", "235 2.7.0 ok");
    manner.keywords = &["AUTH PLAIN"];
    let peer = Peer::start(manner.clone()).await;
    let outbound = office.world.outbound(&lines(&peer));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    outbound.close();
    let heard = peer.heard_to_the_end().await;
    let verbs = verbs(&heard[0].commands);
    assert_eq!(
        verbs[..6],
        ["EHLO", "STARTTLS", "(TLS)", "EHLO", "AUTH", "MAIL"]
    );
    // Another certificate, and no TLS at all.
    let stranger = office.world.authority.issue(&["other.example"]);
    for starttls in [
        Starttls::Tls(server_config(&stranger, BOTH).into()),
        Starttls::NotOffered,
        Starttls::Answered("454 4.7.0 not now"),
    ] {
        let peer = Peer::start(Manner {
            starttls,
            ..manner.clone()
        })
        .await;
        let report = deliver(
            &office.world.outbound(&lines(&peer)),
            message(&["b@partner.example"]),
        )
        .await;
        assert!(
            outcome(&report, 0).starts_with("deferred 4.7."),
            "{report:?}"
        );
        for heard in peer.heard_to_the_end().await {
            assert!(!heard.has("AUTH") && !heard.has("MAIL"), "{heard:?}");
        }
    }
}

/// Under an exception no host has to prove who it is, so that the password stays here, and mail too.
#[tokio::test]
async fn under_an_exception_no_secret_is_sent() {
    let office = Office::new().await;
    let host = office.host("AUTH PLAIN").await;
    for level in ["forced", "opportunistic"] {
        let exception = format!(
            "{FORCED}\nexception = {{ tls = \"{level}\", until = \"2099-12-31\", reason = \"a test\" }}"
        );
        let outbound =
            office
                .world
                .outbound(&office.connector("partner", USER, &[host.port], &exception));
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "deferred 4.7.0", "{level}: {report:?}");
        let text = failure(&report, 0).to_string();
        assert!(
            text.contains("impossible while the exception holds"),
            "{text}"
        );
        for heard in host.heard().await {
            assert!(!says(&heard, "AUTH") && !says(&heard, "MAIL"), "{heard:?}");
        }
    }
}

/// A pinned key proves a host too.
#[tokio::test]
async fn a_pinned_host_gets_the_password() {
    let office = Office::new().await;
    let pair = crate::support::certificates::self_signed(&[HOP], |_| {});
    let pin = crate::support::certificates::key_pin(&pair.chain[0]);
    let manner = LoginManner {
        auth: "AUTH PLAIN",
        scripted: &[],
    };
    let host = SmartHost::start(server_config(&pair, BOTH), manner).await;
    let lines = "tls = \"forced\"\nverify = \"pin\"";
    let connector = office
        .connector("partner", USER, &[host.port], lines)
        .replace(
            "[connector.outbound]",
            &format!("pins = [\"{pin}\"]\n[connector.outbound]"),
        );
    let report = deliver(
        &office.world.outbound(&connector),
        message(&["b@partner.example"]),
    )
    .await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
}

/// Two users of one host have connections of their own, and so has the same connector with another
/// user after a reload.
#[tokio::test]
async fn a_connection_is_used_for_its_own_user_alone() {
    let office = Office::new().await;
    // It lets everybody in.
    let host = office.scripted(
        "AUTH PLAIN",
        &[("AUTH", "235 2.7.0 ok"), ("MAIL", "250 ok")],
    );
    let host = host.await;
    let both = |first: &str, second: &str| {
        office.connector("one", first, &[host.port], FORCED)
            + &office.connector("two", second, &[host.port], FORCED)
    };
    let outbound = office.world.outbound(&both("first", "second"));
    for domain in ["one", "two", "one", "two"] {
        let report = deliver(&outbound, message(&[&format!("b@{domain}.example")])).await;
        assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
        let via = result(&report, 0).via.clone().expect("a session");
        let user = if domain == "one" { "first" } else { "second" };
        assert_eq!(&*via.login.as_ref().expect("a login").user, user);
    }
    reload(&outbound, office.world.snapshot(&both("third", "second")));
    let report = deliver(&outbound, message(&["b@one.example"])).await;
    let via = result(&report, 0).via.clone().expect("a session");
    assert_eq!(&*via.login.as_ref().expect("a login").user, "third");
    outbound.close();
    let heard = host.heard().await;
    assert_eq!(heard.len(), 3, "{heard:?}");
    let logins = heard.iter().map(|lines| lines[1].clone());
    assert_eq!(logins.collect::<std::collections::BTreeSet<_>>().len(), 3);
}

/// The password is that of the file as it is now.
#[tokio::test]
async fn a_new_password_is_used_without_a_reload() {
    let office = Office::new().await;
    office.write_password("old");
    let host = office.host("AUTH PLAIN").await;
    let outbound = office.outbound(&host);
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.8", "{report:?}");
    office.write_password(PASSWORD);
    let (replaced, faults) = outbound.running().load().logins().refresh();
    assert_eq!((replaced, faults), (vec!["partner".to_owned()], Vec::new()));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
}

/// A probe logs in, and says QUIT.
#[tokio::test]
async fn a_probe_tries_the_login_and_sends_no_mail() {
    let office = Office::new().await;
    for (password, outcome) in [(PASSWORD, "accepted"), ("wrong", "rejected")] {
        office.write_password(password);
        let host = office.host("AUTH SCRAM-SHA-256").await;
        let lines = office.connector("partner", USER, &[host.port], FORCED);
        let snapshot = office.world.snapshot(&lines);
        let recipient = Host::parse("partner.example").expect("a host");
        let query = ProbeQuery {
            recipient: &recipient,
            connector: snapshot.connectors.for_host(&recipient),
        };
        let discovery = office.world.discovery(&office.world.folder());
        let found = probe(&snapshot, &discovery, query).await;
        let hops = found.hops.expect("a hop");
        let findings = hops[0].findings.as_ref().expect("dialled");
        let login = findings.addresses[0].login.as_ref().expect("tried");
        assert_eq!(
            login.to_string(),
            format!("as {USER} by SCRAM-SHA-256: {outcome}")
        );
        assert_eq!(findings.addresses[0].end.is_ok(), outcome == "accepted");
        let heard = host.heard().await;
        let last = heard[0].last().map(String::as_str);
        assert!(
            last == Some("QUIT") && !says(&heard[0], "MAIL"),
            "{heard:?}"
        );
    }
}
