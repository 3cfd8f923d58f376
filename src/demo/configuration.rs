//! The relay's configuration: the same language that an administrator writes.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::peer::Peer;
use super::published::{LOSERS, PUBLISHERS, Publishers};
use super::scenarios::OUTGOING;
use super::stage::PARTNER;

/// What does not depend on where the peers are.
const HEAD: &str = r#"# The relay of `gatepost demo`.
hostname = "relay.example"
postmaster = "postmaster@our.example"

[tls]
certificate = "relay.pem"
key = "relay.key"
trust = "ca.pem"

[spool]
path = "spool"

[admin]
socket = "admin.sock"
http = ""

[[listener]]
name = "mx"
address = ["127.0.0.1:0"]
tls = "opportunistic"

[relay]
networks = ["127.0.0.0/8"]
domains = ["our.example"]

[queue]
retry = ["1h"]

# Incoming: these partners must show TLS, or a certificate with their name.
[[connector]]
name = "forced-partner"
domains = ["forced.example"]
[connector.inbound]
tls = "forced"

[[connector]]
name = "named-partner"
domains = ["partner.example"]
names = ["mail.partner.example"]
[connector.inbound]
tls = "forced"
verify = "name"
"#;

/// Writes it. Domains that are found by DNS have a port of their own, for they all are on this machine.
pub(super) fn configuration(peers: &[Peer], [mailboxes, a, b, c]: [SocketAddr; 4], publishers: &Publishers) -> String {
    let mut text = HEAD.to_owned();
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "\n# The world in which domains publish: a name server with a signed root of its own.\n\
         [dns]\nservers = [\"{}\"]\ntrust_anchor = \"root.key\"\n",
        publishers.names
    );
    let name_c = "tls = \"forced\"\nverify = \"name\"\nmessages_per_connection = 1";
    for (domain, address, names, policy) in [
        ("our.example", mailboxes, "", "tls = \"opportunistic\""),
        ("domain-a.com", a, "", "tls = \"opportunistic\""),
        ("domain-b.com", b, "", "tls = \"opportunistic\""),
        ("domain-c.com", c, "names = [\"mail.domain-c.com\"]", name_c),
    ] {
        connector(&mut text, domain, address, names, policy);
    }
    for (case, peer) in OUTGOING.iter().zip(peers) {
        let names = if case.policy.by_name() { format!("names = [\"{PARTNER}\"]") } else { String::new() };
        connector(&mut text, case.domain, peer.address, &names, case.policy.toml());
    }
    for (case, peer) in PUBLISHERS.iter().zip(&publishers.peers) {
        by_mx(&mut text, case.domain, peer.address, "");
    }
    for ((domain, downgrade, _), (_, on_the_way)) in LOSERS.iter().zip(&publishers.losers) {
        let policy = format!("downgrade = \"{downgrade}\"\nmessages_per_connection = 1\n");
        by_mx(&mut text, domain, on_the_way.address, &policy);
    }
    text
}

/// A connector that goes by MX.
fn by_mx(text: &mut String, domain: &str, host: SocketAddr, policy: &str) {
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "\n[[connector]]\nname = \"{domain}\"\ndomains = [\"{domain}\"]\n[connector.outbound]\nport = {}\ntls = \"opportunistic\"\n{policy}",
        host.port()
    );
}

fn connector(text: &mut String, domain: &str, route: SocketAddr, names: &str, policy: &str) {
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "\n[[connector]]\nname = \"{domain}\"\ndomains = [\"{domain}\"]\n{names}\n[connector.outbound]\nroute = [\"{route}\"]\n{policy}\n"
    );
}
