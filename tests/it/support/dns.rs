//! A name server in the process: a few zones, unsigned, on a port of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, SOA, TXT};
use hickory_resolver::proto::rr::{LowerName, Name, RData, Record};
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

/// Serves until it is dropped.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    _server: Server<Catalog>,
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

/// `example MX 10 mx.example`, one record a line; names are complete without a dot at the end, but
/// "." is the root.
fn record(line: &str) -> Record {
    let words: Vec<&str> = line.split_whitespace().collect();
    let data = match words[1..] {
        ["A", address] => match address.parse().expect("an address") {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(_) => panic!("{line}"),
        },
        ["AAAA", address] => RData::AAAA(AAAA(address.parse().expect("an address"))),
        ["MX", preference, host] => {
            RData::MX(MX::new(preference.parse().expect("a number"), full(host)))
        }
        // One character-string: the rest of the line.
        ["TXT", ..] => RData::TXT(TXT::new(vec![words[2..].join(" ")])),
        ["CNAME", target] => RData::CNAME(CNAME(full(target))),
        _ => panic!("{line}"),
    };
    Record::from_rdata(full(words[0]), 60, data)
}

fn full(text: &str) -> Name {
    let mut full = name(text);
    full.set_fqdn(true);
    full
}

impl NameServer {
    /// Serves `zones`, each with its records. A question about any other zone is answered with
    /// REFUSED.
    pub(crate) async fn start(zones: &[(&str, &str)]) -> Self {
        let mut catalog = Catalog::new();
        for (origin, records) in zones {
            let origin = full(origin);
            let mut zone = InMemoryZoneHandler::<TokioRuntimeProvider>::empty(
                origin.clone(),
                ZoneType::Primary,
                AxfrPolicy::Deny,
                None,
            );
            let soa = SOA::new(full("ns.invalid"), full("root.invalid"), 1, 60, 60, 60, 60);
            zone.upsert_mut(Record::from_rdata(origin.clone(), 60, RData::SOA(soa)), 0);
            for line in records
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
            {
                assert!(zone.upsert_mut(record(line), 0), "{line}");
            }
            catalog.upsert(LowerName::new(&origin), vec![Arc::new(zone)]);
        }
        let (udp, tcp) = one_port().await;
        let address = udp.local_addr().expect("bound");
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 4096);
        Self {
            address,
            _server: server,
        }
    }
}

/// The same port for UDP and TCP: one that is free for one may be in use for the other.
async fn one_port() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("bound")).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}
