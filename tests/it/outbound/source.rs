//! The address that connections come from, and the name in EHLO.

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::support::deliveries::{World, connector, deliver, failure, message, outcome};

/// Delivers to a host that ends the session after EHLO; returns the address of the connection and
/// the command.
async fn seen_by_peer(lines: &str) -> (String, String) {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let route = listener.local_addr().expect("bound");
    let lines = format!("route = [\"{route}\"]\ntls = \"off\"\n{lines}");
    let outbound = world.outbound(&connector("partner", &["partner.example"], &lines));
    let peer = async {
        let (stream, from) = listener.accept().await.expect("a client");
        let (mut stream, mut line) = (BufReader::new(stream), String::new());
        stream.write_all(b"220 peer ESMTP\r\n").await.expect("sent");
        stream.read_line(&mut line).await.expect("a line");
        stream.write_all(b"421 4.3.2 bye\r\n").await.expect("sent");
        (from.ip().to_string(), line.trim_end().to_owned())
    };
    let (_, seen) = tokio::join!(deliver(&outbound, message(&["b@partner.example"])), peer);
    seen
}

#[tokio::test]
async fn a_connector_has_a_source_and_a_name_of_its_own() {
    for (lines, address, hello) in [
        ("", "127.0.0.1", "EHLO relay.example.com"),
        (
            "source = [\"2001:db8::10\", \"127.0.0.2\"]\nehlo = \"relay2.example.com\"",
            "127.0.0.2",
            "EHLO relay2.example.com",
        ),
        // There is no address of the family, so that the system chooses one.
        (
            "source = [\"2001:db8::10\"]",
            "127.0.0.1",
            "EHLO relay.example.com",
        ),
    ] {
        let (from, command) = seen_by_peer(lines).await;
        assert_eq!(
            (from.as_str(), command.as_str()),
            (address, hello),
            "{lines}"
        );
    }
}

/// Mail does not go from another address than the administrator's.
#[tokio::test]
async fn a_source_that_is_not_ours_defers() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let route = listener.local_addr().expect("bound");
    let lines = format!("route = [\"{route}\"]\nsource = [\"192.0.2.10\"]");
    let outbound = world.outbound(&connector("partner", &["partner.example"], &lines));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.4.1");
    let reason = failure(&report, 0).to_string();
    assert!(
        reason.contains("cannot send from 192.0.2.10 ([connector.outbound] source)"),
        "{reason}"
    );
}
