//! Policies as domains publish them, through DNS and HTTPS (RFC 8461).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use gatepost::discovery::mta_sts::{
    Listing, MtaSts, MtaStsFailureKind, MtaStsMode, NoPolicy, PublishedPolicy, Recheck, WebSource,
    evaluate,
};
use gatepost::smtp::address::Domain;
use jiff::Timestamp;
use rcgen::date_time_ymd;

use super::host::{Host, Part, World, answer, plain};
use crate::support::certificates::{Pair, self_signed};

const RECORDS: &str = "
    _mta-sts.good.example TXT v=STSv1; id=20261126T000000;
    mta-sts.good.example A 127.0.0.1
    _mta-sts.alias.example CNAME _mta-sts.good.example
    mta-sts.alias.example CNAME mta-sts.good.example
    _mta-sts.among.example TXT other=1
    _mta-sts.among.example TXT v=STSv1; id=1;
    mta-sts.among.example A 127.0.0.1
    mta-sts.silent.example A 127.0.0.1
    _mta-sts.twice.example TXT v=STSv1; id=1;
    _mta-sts.twice.example TXT v=STSv1; id=2;
    mta-sts.twice.example A 127.0.0.1
    _mta-sts.broken.example TXT v=STSv1; id=a-b;
    mta-sts.broken.example A 127.0.0.1
    _mta-sts.homeless.example TXT v=STSv1; id=1;
";
const POLICY: &[u8] =
    b"version: STSv1\r\nmode: enforce\r\nmx: mx1.good.example\r\nmx: *.mx.example\r\nmax_age: 86400\r\n";

fn domain(name: &str) -> Domain {
    Domain::parse(name).expect(name)
}

/// A host for the policies of all domains here.
async fn host(world: &World, part: Part) -> Host {
    let names = ["good", "alias", "among", "silent", "twice", "broken"]
        .map(|name| format!("mta-sts.{name}.example"));
    Host::start(
        &world.authority.issue(&names.each_ref().map(String::as_str)),
        part,
    )
    .await
}

fn web(world: &World, host: &Host) -> WebSource {
    let (dns, https) = world.tools();
    WebSource::new(dns, https).with_port_and_timeout(host.port, Duration::from_secs(20))
}

fn open(world: &World, host: &Host) -> MtaSts {
    MtaSts::open(world.folder.path(), web(world, host)).expect("our own version")
}

/// Returns the policy for `good.example` if its policy host plays this part.
async fn good(part: Part) -> PublishedPolicy {
    let world = World::new(RECORDS).await;
    let host = host(&world, part).await;
    open(&world, &host).policy(&domain("good.example")).await
}

/// Returns the failure's type in a TLS report, and its text for the administrator.
fn absent(published: PublishedPolicy) -> (&'static str, String) {
    match published {
        PublishedPolicy::Policy(policy) => panic!("{policy:?}"),
        PublishedPolicy::None(absent) => (
            absent.kind().map_or("nothing", MtaStsFailureKind::as_str),
            absent.to_string(),
        ),
    }
}

#[tokio::test]
async fn a_policy_is_found_where_the_standard_puts_it() {
    let world = World::new(RECORDS).await;
    let host = host(&world, plain(POLICY)).await;
    let PublishedPolicy::Policy(policy) = open(&world, &host).policy(&domain("good.example")).await
    else {
        panic!("none")
    };
    assert_eq!(
        (policy.mode(), policy.id().as_str()),
        (MtaStsMode::Enforce, "20261126T000000")
    );
    assert_eq!(
        policy.lines(),
        [
            "version: STSv1",
            "mode: enforce",
            "mx: mx1.good.example",
            "mx: *.mx.example",
            "max_age: 86400"
        ]
    );
    let heard = host.heard().remove(0);
    assert!(
        heard.contains("GET /.well-known/mta-sts.txt HTTP/1.1\r\nhost: mta-sts.good.example:"),
        "{heard}"
    );
}

#[tokio::test]
async fn aliases_are_followed_in_dns_and_the_certificate_is_for_the_first_name() {
    let world = World::new(RECORDS).await;
    let host = host(&world, plain(POLICY)).await;
    let published = open(&world, &host).policy(&domain("alias.example")).await;
    assert!(
        matches!(published, PublishedPolicy::Policy(_)),
        "{published:?}"
    );
    assert!(
        host.heard()[0].starts_with("mta-sts.alias.example "),
        "{:?}",
        host.heard()
    );
    let other = Host::start(
        &world.authority.issue(&["mta-sts.good.example"]),
        plain(POLICY),
    )
    .await;
    let asked = web(&world, &other)
        .look_up_uncached(&domain("alias.example"), Timestamp::now())
        .await;
    assert_eq!(
        asked
            .expect_err("the name is wrong")
            .kind()
            .map(MtaStsFailureKind::as_str),
        Some("sts-webpki-invalid")
    );
}

#[tokio::test]
async fn records_decide_whether_a_host_is_asked_at_all() {
    let world = World::new(RECORDS).await;
    let host = host(&world, plain(POLICY)).await;
    let policies = open(&world, &host);
    for (name, kind, words) in [
        (
            "silent.example",
            "nothing",
            "the domain publishes no MTA-STS policy",
        ),
        (
            "sub.good.example",
            "nothing",
            "the domain publishes no MTA-STS policy",
        ),
        (
            "twice.example",
            "sts-policy-invalid",
            "it has 2 records that begin with \"v=STSv1;\", and only one may be",
        ),
        (
            "broken.example",
            "sts-policy-invalid",
            "the id is not 1 to 32 letters and digits",
        ),
        (
            "elsewhere.test",
            "sts-policy-fetch-error",
            "the lookup of its TXT record failed",
        ),
    ] {
        let (found, said) = absent(policies.policy(&domain(name)).await);
        assert!(
            found == kind && said.contains(words),
            "{name}: {found} {said}"
        );
    }
    assert_eq!(host.heard(), [""; 0]);
    let (kind, said) = absent(policies.policy(&domain("homeless.example")).await);
    assert!(
        kind == "sts-policy-fetch-error" && said.ends_with("the host has no address"),
        "{kind} {said}"
    );
    assert!(matches!(
        policies.policy(&domain("among.example")).await,
        PublishedPolicy::Policy(_)
    ));
}

/// The policy, and a field behind it that makes it so long.
fn padded(length: usize) -> Vec<u8> {
    [POLICY, b"x: ", &vec![b'y'; length - POLICY.len() - 3]].concat()
}

/// Answers that are no policy, with the kind of failure and what is said of it.
fn no_policies() -> [(&'static str, Part, &'static str, &'static str); 9] {
    let wrong_type = |kind: &str| answer("200 OK", kind, POLICY);
    [
        (
            "redirected",
            answer("301 X", "Location: /x\r\n", b""),
            "sts-policy-fetch-error",
            "the host answered 301; redirections",
        ),
        (
            "not found",
            answer("404 X", "", b""),
            "sts-policy-fetch-error",
            "the host answered 404",
        ),
        (
            "64 KiB and one",
            plain(&padded(64 * 1024 + 1)),
            "sts-policy-invalid",
            "it is longer than 65536 octets",
        ),
        (
            "10 MiB",
            plain(&vec![b'x'; 10 << 20]),
            "sts-policy-invalid",
            "it is longer than 65536 octets",
        ),
        (
            "HTML",
            wrong_type("Content-Type: text/html\r\n"),
            "sts-policy-invalid",
            "it must be text/plain",
        ),
        (
            "no type",
            wrong_type(""),
            "sts-policy-invalid",
            "sends no Content-Type; it must be text/plain",
        ),
        (
            "garbage",
            Part::Say(b"220 hello\r\n".to_vec()),
            "sts-policy-fetch-error",
            "invalid HTTP response",
        ),
        (
            "no policy",
            plain(b"hello"),
            "sts-policy-invalid",
            "line 1 is not \"name: value\": \"hello\"",
        ),
        (
            "no mx",
            plain(b"version: STSv1\nmode: enforce\nmax_age: 1"),
            "sts-policy-invalid",
            "it has no \"mx\"",
        ),
    ]
}

#[tokio::test]
async fn what_a_policy_host_answers_is_a_policy_or_none() {
    assert!(
        matches!(
            good(plain(&padded(64 * 1024))).await,
            PublishedPolicy::Policy(_)
        ),
        "64 KiB exactly"
    );
    for (case, part, kind, words) in no_policies() {
        let (found, said) = absent(good(part).await);
        assert!(
            found == kind && said.contains(words),
            "{case}: {found} {said}"
        );
    }
}

#[tokio::test]
async fn only_a_host_with_a_certificate_in_order_is_believed() {
    let world = World::new(RECORDS).await;
    let names = &["mta-sts.good.example"];
    let expired =
        |params: &mut rcgen::CertificateParams| params.not_after = date_time_ymd(2021, 1, 1);
    let cases: [(&str, Pair); 3] = [
        ("expired", world.authority.issue_as(names, expired)),
        ("self-signed", self_signed(names, |_| {})),
        (
            "of the domain itself",
            world
                .authority
                .issue(&["good.example", "mail.good.example"]),
        ),
    ];
    for (case, pair) in cases {
        let host = Host::start(&pair, plain(POLICY)).await;
        let asked = web(&world, &host)
            .look_up_uncached(&domain("good.example"), Timestamp::now())
            .await;
        let absent = asked.expect_err(case);
        assert_eq!(
            absent.kind().map(MtaStsFailureKind::as_str),
            Some("sts-webpki-invalid"),
            "{case}: {absent}"
        );
        assert_eq!(host.heard(), [""; 0], "{case}");
    }
}

#[tokio::test]
async fn a_host_that_trickles_holds_up_its_own_domain_only() {
    let world = World::new(RECORDS).await;
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_vec();
    let trickle = Part::Forever {
        head,
        again: b"x: y\n".to_vec(),
        pause: Duration::from_millis(20),
    };
    let host = host(&world, trickle).await;
    let policies = MtaSts::open(
        world.folder.path(),
        web(&world, &host).with_port_and_timeout(host.port, Duration::from_millis(800)),
    )
    .expect("our own version");
    let slow = tokio::spawn({
        let policies = policies.clone();
        async move { policies.policy(&domain("good.example")).await }
    });
    while host.heard().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        policies.policy(&domain("silent.example")).await,
        PublishedPolicy::None(NoPolicy::NoRecord)
    );
    assert!(!slow.is_finished());
    let (kind, said) = absent(slow.await.expect("it ends"));
    assert!(
        kind == "sts-policy-fetch-error"
            && said.ends_with("the body of the response took longer than 800ms"),
        "{said}"
    );
    policies.policy(&domain("good.example")).await;
    assert_eq!(host.heard().len(), 1, "the failure is remembered");
}

/// RFC 8461 §5: mode × MX host. What mail does then is for the one who sends it.
#[tokio::test]
async fn modes_and_hosts() {
    for (mode, meant) in [
        ("enforce", MtaStsMode::Enforce),
        ("testing", MtaStsMode::Testing),
        ("none", MtaStsMode::None),
    ] {
        let body = String::from_utf8_lossy(POLICY).replace("enforce", mode);
        let PublishedPolicy::Policy(policy) = good(plain(body.as_bytes())).await else {
            panic!("{mode}")
        };
        assert_eq!(policy.mode(), meant);
        for (mx, listing) in [
            ("mx1.good.example", Listing::Listed),
            ("MX1.Good.Example", Listing::Listed),
            ("a.mx.example", Listing::Listed),
            ("a.b.mx.example", Listing::NotListed),
            ("mx.example", Listing::NotListed),
            ("mx2.good.example", Listing::NotListed),
        ] {
            assert_eq!(evaluate(&policy, &domain(mx)), listing, "{mode} {mx}");
        }
    }
}

#[tokio::test]
async fn a_policy_outlives_restarts_and_its_host() {
    let world = World::new(RECORDS).await;
    let now = Arc::new(AtomicI64::new(1_800_000_000));
    let clock = {
        let now = Arc::clone(&now);
        move || Timestamp::from_second(now.load(Ordering::Relaxed)).expect("a time")
    };
    let first = host(&world, plain(POLICY)).await;
    let open = |host: &Host| {
        MtaSts::open_at(
            world.folder.path(),
            web(&world, host),
            Arc::new(clock.clone()),
        )
        .expect("our own version")
    };
    let PublishedPolicy::Policy(policy) = open(&first).policy(&domain("good.example")).await else {
        panic!("none")
    };
    drop(first);
    let gone = host(&world, answer("404 X", "", b"")).await;
    let policies = open(&gone);
    now.fetch_add(86_399, Ordering::Relaxed);
    assert_eq!(
        policies.policy(&domain("good.example")).await,
        PublishedPolicy::Policy(Arc::clone(&policy))
    );
    assert!(matches!(
        policies.recheck(&policy).await,
        Recheck::Unknown(_)
    ));
    let task = tokio::spawn({
        let policies = policies.clone();
        async move { policies.keep_fresh().await }
    });
    now.fetch_add(1, Ordering::Relaxed);
    let (kind, _) = absent(policies.policy(&domain("good.example")).await);
    assert_eq!(kind, "sts-policy-fetch-error");
    task.abort();
}

#[tokio::test]
async fn other_tools_are_used_from_the_next_search_on() {
    let world = World::new(RECORDS).await;
    let (old, new) = (
        host(&world, answer("404 X", "", b"")).await,
        host(&world, plain(POLICY)).await,
    );
    let policies = open(&world, &old);
    policies.replace(web(&world, &new));
    assert!(matches!(
        policies.policy(&domain("good.example")).await,
        PublishedPolicy::Policy(_)
    ));
    assert_eq!(old.heard(), [""; 0]);
}
