//! One request, one answer, or one good reason.

use std::time::Duration;

use gatepost::net::https::{HttpsError, HttpsFault, HttpsResponse, HttpsStep};
use gatepost::net::tls_io::{HandshakeError, Role};
use gatepost::policy::tls::ChainFault;
use rcgen::date_time_ymd;

use super::host::{Host, Part, World, answer, plain, url};
use crate::support::certificates::{Authority, BOTH, Pair, self_signed, server_config};
use crate::support::picky::{Does, Over, Picky};

const LIMIT: usize = 64 * 1024;
const RECORDS: &str = "
    web.example A 127.0.0.1
    a.web.example A 127.0.0.1
    two.example A 127.0.0.1
    two.example AAAA ::1
    dead.example A 127.0.0.1
    dead.example AAAA ::1
    mute.example MX 10 web.example
";

async fn world() -> World {
    World::new(RECORDS).await
}

/// Asks `https://web.example/x` of a host with a good certificate.
async fn get(part: Part) -> Result<HttpsResponse, HttpsError> {
    get_within(part, Duration::from_secs(20)).await
}

async fn get_within(part: Part, limit: Duration) -> Result<HttpsResponse, HttpsError> {
    let world = world().await;
    let host = Host::start(&world.authority.issue(&["web.example"]), part).await;
    world
        .https()
        .with_timeout(limit)
        .get(&url(&host, "web.example/x"), LIMIT)
        .await
}

fn fault(result: Result<HttpsResponse, HttpsError>) -> HttpsFault {
    result.expect_err("no proper answer").fault
}

#[tokio::test]
async fn an_answer_is_read_and_the_request_says_little() {
    let world = world().await;
    let host = Host::start(&world.authority.issue(&["web.example"]), plain(b"hello")).await;
    let answer = world
        .https()
        .get(&url(&host, "web.example/a/b?c"), LIMIT)
        .await
        .expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    assert_eq!(answer.content_type.as_deref(), Some("text/plain"));
    let port = host.port;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        host.heard(),
        [format!(
            "web.example -\nGET /a/b?c HTTP/1.1\r\nhost: web.example:{port}\r\nuser-agent: Gatepost/{version}\r\n\r\n"
        )]
    );
}

#[tokio::test]
async fn http_1_1_is_asked_for_by_name() {
    let world = world().await;
    let mut config = server_config(&world.authority.issue(&["web.example"]), BOTH);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let host = Host::start_with(config.clone(), plain(b"")).await;
    world
        .https()
        .get(&url(&host, "web.example/"), LIMIT)
        .await
        .expect("an answer");
    assert!(
        host.heard()[0].starts_with("web.example http/1.1\nGET / HTTP/1.1\r\n"),
        "{:?}",
        host.heard()
    );
    config.alpn_protocols = vec![b"h2".to_vec()];
    let host = Host::start_with(config, plain(b"")).await;
    let error = world
        .https()
        .get(&url(&host, "web.example/"), LIMIT)
        .await
        .expect_err("no HTTP/1.1");
    assert_eq!(
        error.fault,
        HttpsFault::Handshake(HandshakeError::Failed(
            "the peer does not speak HTTP/1.1 (ALPN)".to_owned()
        ))
    );
}

#[tokio::test]
async fn a_host_that_cuts_the_handshake_short_is_asked_once_more_with_a_smaller_client_hello() {
    const HYBRID: &str = "(hello hybrid+classical sni)";
    const CLASSICAL: &str = "(hello classical+curves sni)";
    let world = world().await;
    let pair = world.authority.issue(&["web.example"]);
    for does in [Does::Resets, Does::Ends, Does::Swallows, Does::Alerts(40)] {
        let host = Host::picky(
            &pair,
            plain(b"hello"),
            Picky {
                over: Over::Large,
                does,
            },
        )
        .await;
        let https = world.https().with_timeout(Duration::from_secs(4));
        for _ in 0..2 {
            let answer = https
                .get(&url(&host, "web.example/x"), LIMIT)
                .await
                .expect("an answer");
            assert_eq!(&answer.body[..], b"hello");
        }
        // The second request begins with what worked.
        assert_eq!(host.hellos(), [HYBRID, CLASSICAL, CLASSICAL], "{does:?}");
    }
    for (over, does, shown, words) in [
        // Its certificate is asked for by name, so the name stays: unrecognized_name.
        (
            Over::Sni,
            Does::Alerts(112),
            &[HYBRID, CLASSICAL][..],
            "the peer sent the alert unrecognized_name; once more, with classical key exchange, all curves: the peer sent the alert",
        ),
        (
            Over::Every,
            Does::Resets,
            &[HYBRID, CLASSICAL],
            "the peer reset the connection during the handshake; once more",
        ),
        (
            Over::Every,
            Does::Alerts(70),
            &[HYBRID],
            "the peer sent the alert protocol_version",
        ),
    ] {
        let host = Host::picky(&pair, plain(b"hello"), Picky { over, does }).await;
        let error = world
            .https()
            .get(&url(&host, "web.example/x"), LIMIT)
            .await
            .expect_err("no TLS");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(
            (host.hellos(), host.heard()),
            (shown.iter().map(ToString::to_string).collect(), vec![]),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_post_hands_its_content_over() {
    let world = world().await;
    let pair = world.authority.issue(&["web.example"]);
    for (status, taken) in [
        ("200 OK", true),
        ("201 Created", true),
        ("204 No Content", true),
        ("500 Oh", false),
    ] {
        let host = Host::start(&pair, answer(status, "", b"")).await;
        let content = bytes::Bytes::from_static(b"a report");
        let posted = world
            .https()
            .post(
                &url(&host, "web.example/in"),
                "application/tlsrpt+gzip",
                content,
            )
            .await;
        assert_eq!(posted.is_ok(), taken, "{status}: {posted:?}");
        let heard = host.heard().remove(0);
        assert!(
            heard.contains("POST /in HTTP/1.1\r\n") && heard.ends_with("\r\n\r\na report"),
            "{heard}"
        );
        assert!(
            heard.contains("content-type: application/tlsrpt+gzip\r\n"),
            "{heard}"
        );
        assert_eq!(host.heard().len(), 1, "nothing is posted twice");
    }
}

/// Certificates that are not in order, and what is said of each.
fn unusable(authority: &Authority) -> [(&'static str, Pair, &'static str); 7] {
    let stranger = Authority::root("Stranger");
    let name = &["web.example"];
    let expired = |params: &mut rcgen::CertificateParams| {
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    };
    let future = |params: &mut rcgen::CertificateParams| {
        (params.not_before, params.not_after) =
            (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
    };
    [
        (
            "expired",
            authority.issue_as(name, expired),
            "is not trusted: it expired on 2021-01-01",
        ),
        (
            "not yet valid",
            authority.issue_as(name, future),
            "is not trusted: it is not valid before 2090-01-01",
        ),
        (
            "self-signed",
            self_signed(name, |_| {}),
            "is not trusted: it is self-signed",
        ),
        (
            "unknown issuer",
            stranger.issue(name),
            "is not trusted: its issuer (CN=Stranger) is not trusted",
        ),
        (
            "other name",
            authority.issue(&["mail.example", "*.web.example"]),
            "is for mail.example or *.web.example",
        ),
        ("no name", authority.issue(&[]), "carries no DNS name"),
        (
            "wildcard for two",
            authority.issue(&["*.example.example"]),
            "is for *.example.example, not for the host",
        ),
    ]
}

#[tokio::test]
async fn only_a_certificate_in_order_is_spoken_to() {
    let world = world().await;
    for (case, pair, words) in unusable(&world.authority) {
        let host = Host::start(&pair, plain(b"")).await;
        let error = world
            .https()
            .get(&url(&host, "web.example/x"), LIMIT)
            .await
            .expect_err(case);
        assert!(error.fault.is_certificate_fault(), "{case}: {error}");
        let begin = format!(
            "https://web.example:{0}/x at 127.0.0.1:{0}: the certificate ",
            host.port
        );
        let said = error.to_string();
        assert!(
            said.starts_with(&begin) && said[begin.len()..].starts_with(words),
            "{case}: {said}"
        );
        assert_eq!(host.heard(), [""; 0], "{case}: not a word was said");
    }
}

/// The name may be written in capitals, and a wildcard stands for it.
#[tokio::test]
async fn a_certificate_in_order_is_spoken_to() {
    let world = world().await;
    for (good, asked) in [
        ("WEB.example", "web.example/x"),
        ("*.web.example", "a.web.example/x"),
    ] {
        let host = Host::start(&world.authority.issue(&[good]), plain(b"")).await;
        world
            .https()
            .get(&url(&host, asked), LIMIT)
            .await
            .expect(good);
    }
}

#[tokio::test]
async fn a_certificate_for_clients_only_is_none() {
    let world = world().await;
    let pair = world.authority.issue_as(&["web.example"], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let host = Host::start(&pair, plain(b"")).await;
    let result = world.https().get(&url(&host, "web.example/x"), LIMIT).await;
    assert!(
        matches!(fault(result), HttpsFault::Chain(ChainFault::Invalid(_))),
        "{:?}",
        Role::Server
    );
}

#[tokio::test]
async fn an_issuer_that_may_not_issue_vouches_for_no_policy_host() {
    let world = world().await;
    let crippled = world.authority.intermediate_as("WebSource CA", |params| {
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    });
    let host = Host::start(&crippled.issue(&["web.example"]), plain(b"")).await;
    let result = world.https().get(&url(&host, "web.example/x"), LIMIT).await;
    let words = "an issuer of it (CN=WebSource CA) may not issue certificates: its key usage lacks keyCertSign";
    assert_eq!(
        fault(result),
        HttpsFault::Chain(ChainFault::Invalid(words.to_owned()))
    );
    assert_eq!(host.heard(), [""; 0], "not a word was said");
}

#[tokio::test]
async fn no_redirection_is_followed() {
    let world = world().await;
    let pair = world.authority.issue(&["web.example"]);
    let other = Host::start(&pair, plain(b"elsewhere")).await;
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let location = format!(
            "Location: https://web.example:{}/x\r\nContent-Length: 0\r\n",
            other.port
        );
        let host = Host::start(&pair, answer(status, &location, b"")).await;
        let number = status[..3].parse().expect("a number");
        let result = world.https().get(&url(&host, "web.example/x"), LIMIT).await;
        assert_eq!(fault(result), HttpsFault::Redirect(number));
        assert_eq!(host.heard().len(), 1);
    }
    assert_eq!(other.heard(), [""; 0]);
}

#[tokio::test]
async fn nothing_but_200_is_an_answer() {
    for status in [201, 203, 204, 206, 400, 404, 410, 500, 503, 999] {
        let result = get(answer(
            &format!("{status} X"),
            "Content-Length: 1\r\n",
            b"x",
        ))
        .await;
        assert_eq!(fault(result), HttpsFault::Status(status));
    }
}

#[tokio::test]
async fn the_body_is_bounded_however_it_comes() {
    let chunked = |length: usize| {
        let head = "Transfer-Encoding: chunked\r\n";
        answer(
            "200 OK",
            head,
            &[
                format!("{length:x}\r\n").as_bytes(),
                &vec![b'x'; length],
                b"\r\n0\r\n\r\n",
            ]
            .concat(),
        )
    };
    let to_the_end = |length: usize| answer("200 OK", "", &vec![b'x'; length]);
    let counted = |length: usize| plain(&vec![b'x'; length]);
    for parts in [
        [chunked(LIMIT), chunked(LIMIT + 1)],
        [to_the_end(LIMIT), to_the_end(LIMIT + 1)],
        [counted(LIMIT), counted(LIMIT + 1)],
    ] {
        let [fits, too_large] = parts;
        assert_eq!(get(fits).await.expect("it fits").body.len(), LIMIT);
        assert_eq!(fault(get(too_large).await), HttpsFault::TooLarge(LIMIT));
    }
    assert_eq!(
        fault(get(counted(10 << 20)).await),
        HttpsFault::TooLarge(LIMIT)
    );
    assert_eq!(
        fault(get(chunked(10 << 20)).await),
        HttpsFault::TooLarge(LIMIT)
    );
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let again = [b"400\r\n".as_slice(), &[b'x'; 0x400], b"\r\n"].concat();
    let endless = Part::Forever {
        head,
        again,
        pause: Duration::ZERO,
    };
    assert_eq!(fault(get(endless).await), HttpsFault::TooLarge(LIMIT));
}

#[tokio::test]
async fn each_step_ends_in_time() {
    let limit = Duration::from_millis(600);
    let timeout = |step, limit| HttpsFault::Timeout { step, limit };
    let trickle = |head: &str, again: &str| Part::Forever {
        head: head.as_bytes().to_vec(),
        again: again.as_bytes().to_vec(),
        pause: Duration::from_millis(20),
    };
    let cases = [
        (Part::Deaf, timeout(HttpsStep::Handshake, limit / 4)),
        (Part::Hang(Vec::new()), timeout(HttpsStep::Head, limit)),
        (
            Part::Hang(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
            timeout(HttpsStep::Head, limit),
        ),
        (
            trickle("HTTP/1.1 200 OK\r\nX: ", "y"),
            timeout(HttpsStep::Head, limit),
        ),
        (
            Part::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx".to_vec()),
            timeout(HttpsStep::Body, limit),
        ),
        (
            trickle("HTTP/1.1 200 OK\r\n\r\n", "x"),
            timeout(HttpsStep::Body, limit),
        ),
        (
            trickle(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "1\r\nx\r\n",
            ),
            timeout(HttpsStep::Body, limit),
        ),
        (
            trickle("", "HTTP/1.1 100 Continue\r\n\r\n"),
            timeout(HttpsStep::Head, limit),
        ),
    ];
    for (part, wanted) in cases {
        let case = format!("{part:?}");
        assert_eq!(fault(get_within(part, limit).await), wanted, "{case}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_an_error() {
    let many = "X: y\r\n".repeat(65);
    let long = format!("X: {}\r\n", "y".repeat(17 * 1024));
    for part in [
        Part::Say(Vec::new()),
        Part::Say(b"220 mail.example ESMTP\r\n".to_vec()),
        Part::Say(b"SSH-2.0-x\r\n".to_vec()),
        Part::Say(vec![0; 100]),
        Part::Say(b"HTTP/0.9 200 OK\r\n\r\n".to_vec()),
        Part::Say(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
        answer("200 OK", "Content-Length: 9\r\n", b"x"),
        answer("200 OK", "Content-Length: -1\r\n", b"x"),
        answer("200 OK", "Content-Length: 1\r\nContent-Length: 2\r\n", b"x"),
        answer("200 OK", "Transfer-Encoding: chunked\r\n", b"nonsense"),
        answer("200 OK", &many, b""),
        answer("200 OK", &long, b""),
        Part::Forever {
            head: b"HTTP/1.1 200 OK\r\nX: ".to_vec(),
            again: vec![b'y'; 1024],
            pause: Duration::ZERO,
        },
    ] {
        let case = format!("{part:?}").chars().take(200).collect::<String>();
        let found = fault(get(part).await);
        assert!(matches!(found, HttpsFault::Http(_)), "{case}: {found}");
    }
}

#[tokio::test]
async fn the_next_address_is_tried_and_the_last_is_named() {
    let world = world().await;
    let host = Host::start(&world.authority.issue(&["two.example"]), plain(b"")).await;
    // Nobody listens at ::1, whichever of the two is asked first.
    world
        .https()
        .get(&url(&host, "two.example/"), LIMIT)
        .await
        .expect("at the other address");
    let Host { port, .. } = host;
    let error = world
        .https()
        .get(&url(&host, "dead.example/"), LIMIT)
        .await
        .expect_err("another name");
    assert!(error.fault.is_certificate_fault() || matches!(error.fault, HttpsFault::Connect(_)));
    assert_eq!(error.tried, 2);
    assert!(
        error
            .to_string()
            .starts_with(&format!("https://dead.example:{port}/ at ")),
        "{error}"
    );
    assert!(
        error.to_string().contains(" (the last of 2 addresses): "),
        "{error}"
    );
}

#[tokio::test]
async fn a_host_that_nobody_is_and_one_that_dns_does_not_know() {
    let world = world().await;
    let https = world.https();
    let port = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback")
        .local_addr()
        .expect("bound")
        .port();
    for (name, wanted) in [
        (
            "web.example",
            HttpsFault::Connect("connection refused".to_owned()),
        ),
        ("none.example", HttpsFault::NoAddress),
        ("mute.example", HttpsFault::NoAddress),
    ] {
        let url = gatepost::net::https::Url::parse(&format!("https://{name}:{port}/")).expect(name);
        assert_eq!(fault(https.get(&url, LIMIT).await), wanted, "{name}");
    }
    let elsewhere = gatepost::net::https::Url::parse("https://web.elsewhere.test/").expect("a URL");
    assert!(matches!(
        fault(https.get(&elsewhere, LIMIT).await),
        HttpsFault::Lookup(_)
    ));
}
