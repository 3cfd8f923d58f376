//! A load balancer that is not listed: the log names the key.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::operated::Relay;

#[test]
fn a_proxy_header_from_an_address_that_is_not_listed_is_warned_of() {
    let relay = Relay::start("");
    // At once, as balancers do, and behind the greeting.
    for waits in [false, true] {
        let mut stream = TcpStream::connect(relay.smtp()).expect("it listens");
        if waits {
            std::thread::sleep(Duration::from_millis(300));
        }
        stream
            .write_all(b"PROXY TCP4 192.0.2.77 10.0.0.1 40000 25\r\n")
            .expect("it reads");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("it ends");
        assert!(
            said.contains("554 5.5.1 No PROXY header is taken from this address"),
            "{said}"
        );
    }
    let message = "connection closed: it begins with a PROXY header, and proxy_protocol does not list its address";
    let lines = relay.hears(message);
    assert_eq!(lines.len(), 1, "said once: {lines:?}");
    assert!(
        lines[0]
            .to_string()
            .contains("add the load balancer's address to proxy_protocol of this [[listener]]")
    );
    assert_eq!(
        (&lines[0]["level"], &lines[0]["listener"]),
        (&"WARN".into(), &"mx".into()),
        "{lines:?}"
    );
}
