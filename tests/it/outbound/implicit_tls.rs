//! Smart hosts with TLS from the first octet.

use std::sync::Arc;

use gatepost::relay::outbound::AttemptResult;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::{BOTH, server_config};
use crate::support::deliveries::{World, connector, deliver, failure, message, outcome};

const FORCED: &str = "tls = \"forced\"\nverify = \"name\"";
const OPPORTUNISTIC: &str = "tls = \"opportunistic\"";

/// Delivers one message to a host that shows a certificate with this name; returns the result and
/// the commands.
async fn delivered_to(world: &World, name: &str, tls: &str) -> (AttemptResult, Vec<String>) {
    let pair = world.authority.issue(&[name]);
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&pair, BOTH)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let lines = format!("route = [\"smtps://mx.partner.example:{port}\"]\n{tls}");
    let outbound = world.outbound(&connector("partner", &["partner.example"], &lines));
    let serving = async {
        let (stream, _) = listener.accept().await.expect("a client");
        let stream = acceptor.accept(stream).await.expect("a handshake");
        let (mut stream, mut heard) = (BufReader::new(stream), Vec::new());
        stream.write_all(b"220 peer ESMTP\r\n").await.expect("sent");
        stream.flush().await.expect("sent");
        let (mut line, mut is_content) = (String::new(), false);
        while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
            let command = line.trim_end().to_owned();
            line.clear();
            if is_content && command != "." {
                continue;
            }
            is_content = command == "DATA";
            let answer = if is_content { "354 go" } else { "250 2.0.0 ok" };
            heard.push(command);
            let answer = format!("{answer}\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                break;
            }
        }
        heard
    };
    let delivering = async {
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        outbound.close();
        report
    };
    tokio::join!(delivering, serving)
}

#[tokio::test]
async fn the_session_begins_with_the_handshake() {
    let world = World::new().await;
    for tls in [FORCED, OPPORTUNISTIC] {
        let (report, heard) = delivered_to(&world, "mx.partner.example", tls).await;
        assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
        let verbs: Vec<_> = heard
            .iter()
            .map(|line| line.split(' ').next().expect("a verb"))
            .collect();
        assert_eq!(verbs, ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]);
    }
}

#[tokio::test]
async fn a_certificate_with_another_name_is_refused_before_mail() {
    let world = World::new().await;
    let (report, heard) = delivered_to(&world, "other.example", FORCED).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5");
    let is_said = heard.iter().any(|line| !line.starts_with("QUIT"));
    assert!(!is_said, "{heard:?}");
}

/// Nothing in the clear can follow at this port.
#[tokio::test]
async fn a_broken_handshake_has_no_fallback_to_the_clear() {
    let world = World::new().await;
    for tls in [FORCED, OPPORTUNISTIC] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let lines = format!("route = [\"smtps://mx.partner.example:{port}\"]\n{tls}");
        let outbound = world.outbound(&connector("partner", &["partner.example"], &lines));
        let heard = async {
            let mut heard = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut first = [0; 5];
                // A TLS record, and the connection is closed.
                let read = stream.read_exact(&mut first).await;
                heard.push(read.map(|_| first[0]).unwrap_or_default());
                assert!(heard.iter().all(|octet| *octet == 22), "{heard:?}");
            }
        };
        let report = tokio::select! {
            report = deliver(&outbound, message(&["b@partner.example"])) => report,
            () = heard => unreachable!("it never ends"),
        };
        assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{report:?}");
        let reason = failure(&report, 0).to_string();
        assert!(reason.contains("handshake"), "{reason}");
    }
}
