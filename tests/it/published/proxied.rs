//! HTTPS requests through the proxy of `[net] http_proxy`.

use std::time::Duration;

use gatepost::config::ProxyAddress;
use gatepost::net::https::{HttpsError, HttpsFault, HttpsStep, TunnelFault};
use gatepost::smtp::address::Host as ProxyHost;

use super::host::{Host, World, plain, url};
use crate::support::picky::{Does, Over, Picky};
use crate::support::proxy::{ESTABLISHED, Proxy, ProxyPart};

/// The name of the host, which no name server has: the proxy looks it up.
const NAME: &str = "policy.example";

/// Returns the request by which a tunnel to a host is asked for.
fn connect_to(host: &Host) -> String {
    let target = format!("{NAME}:{}", host.port);
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

/// The result of a request through a proxy that plays this part, with the proxy and the host.
async fn fail_through(part: ProxyPart, limit: Duration) -> (HttpsError, Proxy, Host) {
    let world = World::new("").await;
    let host = Host::start(&world.authority.issue(&[NAME]), plain(b"content")).await;
    let proxy = Proxy::start(part).await;
    let https = world.https().with_proxy(Some(proxy.address()));
    let error = https
        .with_timeout(limit)
        .get(&url(&host, "policy.example/x"), 100)
        .await
        .expect_err("no tunnel");
    (error, proxy, host)
}

#[tokio::test]
async fn a_host_is_reached_through_a_tunnel_and_must_prove_its_own_name() {
    let world = World::new("").await;
    for (name, is_trusted) in [(NAME, true), ("other.example", false)] {
        let host = Host::start(&world.authority.issue(&[name]), plain(b"content")).await;
        let proxy = Proxy::start(ProxyPart::Leads(ESTABLISHED, host.port)).await;
        let https = world.https().with_proxy(Some(proxy.address()));
        let result = https.get(&url(&host, "policy.example/x"), 100).await;
        assert_eq!(proxy.heard(), [connect_to(&host)]);
        match result {
            Ok(response) => assert!(is_trusted && response.body == "content", "{response:?}"),
            Err(error) => {
                assert!(!is_trusted, "{error}");
                let (port, proxy) = (host.port, proxy.port);
                assert_eq!(
                    error.to_string(),
                    format!(
                        "https://{NAME}:{port}/x through the HTTP proxy http://127.0.0.1:{proxy} at \
                         127.0.0.1:{proxy}: the certificate is for other.example, not for the host"
                    )
                );
                assert!(error.fault.is_certificate_fault());
                assert!(host.heard().is_empty(), "nothing is asked of it");
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_that_opens_no_tunnel_is_named_with_its_reason() {
    let ends = |text: &str| ProxyPart::Ends(text.as_bytes().to_vec());
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(16 * 1024));
    for (part, expected) in [
        (
            ends(
                "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n",
            ),
            TunnelFault::Login,
        ),
        (
            ends("HTTP/1.1 403 Forbidden\r\n\r\n<html>"),
            TunnelFault::Status(403),
        ),
        (
            ends("HTTP/1.0 502 Bad Gateway\r\n\r\n"),
            TunnelFault::Status(502),
        ),
        (
            ends("HTTP/1.1 100 Continue\r\n\r\n"),
            TunnelFault::Status(100),
        ),
        (ends(""), TunnelFault::Closed),
        (ends("HTTP/1.1 200 OK\r\nVia: x\r\n"), TunnelFault::Closed),
        (ends(&long), TunnelFault::TooLong),
        (
            ProxyPart::Endless("HTTP/1.1 200 OK\r\nX: ", "yyyyyyyy"),
            TunnelFault::TooLong,
        ),
        (
            ProxyPart::Endless("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
            TunnelFault::TooLong,
        ),
        (ProxyPart::Waits("SSH-2.0-server\r\n"), TunnelFault::NotHttp),
        (
            ProxyPart::Waits("220 mail.example ESMTP\r\n"),
            TunnelFault::NotHttp,
        ),
        (ends("HTTP/1.1 OK\r\n\r\n"), TunnelFault::NotHttp),
    ] {
        let case = format!("{part:?}").chars().take(80).collect::<String>();
        let (error, proxy, host) = fail_through(part, Duration::from_secs(30)).await;
        assert_eq!(error.fault, HttpsFault::Proxy(expected), "{case}");
        assert!(!error.fault.is_certificate_fault(), "{case}");
        let through = format!(" through the HTTP proxy http://127.0.0.1:{} ", proxy.port);
        assert!(error.to_string().contains(&through), "{error}");
        assert_eq!(proxy.heard(), [connect_to(&host)], "{case}");
        assert!(host.heard().is_empty(), "{case}");
    }
}

/// The proxy has half of the time of a request.
#[tokio::test]
async fn a_proxy_that_does_not_answer_is_left() {
    for answer in ["", "HTTP/1.1 200 OK\r\nVia: "] {
        let (error, ..) = fail_through(ProxyPart::Waits(answer), Duration::from_secs(4)).await;
        let limit = Duration::from_secs(2);
        let step = HttpsStep::Tunnel;
        assert_eq!(error.fault, HttpsFault::Timeout { step, limit });
        let text = error.to_string();
        assert!(
            text.ends_with(": the response of the proxy took longer than 2s"),
            "{text}"
        );
    }
}

/// A second handshake needs a tunnel of its own.
#[tokio::test]
async fn a_handshake_that_breaks_is_tried_again_through_the_proxy() {
    let world = World::new("").await;
    let picky = Picky {
        over: Over::Large,
        does: Does::Resets,
    };
    let pair = world.authority.issue(&[NAME]);
    let host = Host::picky(&pair, plain(b"content"), picky).await;
    let proxy = Proxy::start(ProxyPart::Leads(ESTABLISHED, host.port)).await;
    let https = world.https().with_proxy(Some(proxy.address()));
    let response = https.get(&url(&host, "policy.example/x"), 100).await;
    assert_eq!(response.expect("an answer").body, "content");
    assert_eq!(proxy.heard(), [connect_to(&host), connect_to(&host)]);
}

#[tokio::test]
async fn a_proxy_is_found_by_its_name_or_missed_with_a_reason() {
    let world = World::new("proxy.example A 127.0.0.1").await;
    let host = Host::start(&world.authority.issue(&[NAME]), plain(b"content")).await;
    let proxy = Proxy::start(ProxyPart::Leads(ESTABLISHED, host.port)).await;
    for (name, fault) in [
        ("proxy.example", None),
        (
            "none.example",
            Some("the address of the proxy is unknown: the name has no address"),
        ),
    ] {
        let address = ProxyAddress {
            host: ProxyHost::parse(name).expect("a name"),
            port: proxy.port,
        };
        let https = world.https().with_proxy(Some(address));
        let result = https.get(&url(&host, "policy.example/x"), 100).await;
        let text = result.err().map(|error| error.fault.to_string());
        assert_eq!(text.as_deref(), fault, "{name}");
    }
}
