//! The configuration file of the demo's relay.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::cases::{DOWNGRADED, OUTGOING, PARTNER, PUBLISHERS};
use super::peer::DemoPeer;
use super::publishing::PublishingHosts;

/// The part of the file that does not depend on the addresses of the peers.
const HEAD: &str = r#"# The relay of `gatepost demo`.
hostname = "relay.example"
postmaster = "postmaster@our.example"

[tls]
certificate = "relay.pem"
key = "relay.key"
trust = "ca.pem"

[spool]
path = "spool"

[evidence]
path = "evidence"

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

# Incoming mail: these partners must use TLS, or also show a certificate with their name.
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

/// Returns the content of the file. Each domain that is found by DNS has its own port, since all
/// hosts are on this machine.
pub(super) fn configuration(
    peers: &[DemoPeer],
    [mailboxes, a, b, c]: [SocketAddr; 4],
    publishers: &PublishingHosts,
) -> String {
    let mut text = HEAD.to_owned();
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "\n# The name server of the domains that publish policies, with its own signed root.\n\
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
        add_route_connector(&mut text, domain, address, names, policy);
    }
    for (case, peer) in OUTGOING.iter().zip(peers) {
        let names = if case.policy.by_name() {
            format!("names = [\"{PARTNER}\"]")
        } else {
            String::new()
        };
        add_route_connector(
            &mut text,
            case.domain,
            peer.address,
            &names,
            case.policy.toml(),
        );
    }
    for (case, peer) in PUBLISHERS.iter().zip(&publishers.peers) {
        add_mx_connector(&mut text, case.domain, peer.address, "");
    }
    for ((domain, downgrade, _), (_, interceptor)) in DOWNGRADED.iter().zip(&publishers.downgraded)
    {
        let policy = format!("downgrade = \"{downgrade}\"\nmessages_per_connection = 1\n");
        add_mx_connector(&mut text, domain, interceptor.address, &policy);
    }
    text
}

/// Adds a connector that sends by MX.
fn add_mx_connector(text: &mut String, domain: &str, host: SocketAddr, policy: &str) {
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "\n[[connector]]\nname = \"{domain}\"\ndomains = [\"{domain}\"]\n[connector.outbound]\nport = {}\ntls = \"opportunistic\"\n{policy}",
        host.port()
    );
}

/// Adds a connector that sends to a smart host.
fn add_route_connector(
    text: &mut String,
    domain: &str,
    route: SocketAddr,
    names: &str,
    policy: &str,
) {
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "\n[[connector]]\nname = \"{domain}\"\ndomains = [\"{domain}\"]\n{names}\n[connector.outbound]\nroute = [\"{route}\"]\n{policy}\n"
    );
}
