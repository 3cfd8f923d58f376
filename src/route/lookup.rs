//! The questions that routing asks of DNS, and their answers in words of our own.
//!
//! Everything that knows the resolver library is here. Answers are not validated: what DNSSEC has to
//! say matters to TLS demands, not to the way.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use super::RouteError;
use crate::address::Domain;

/// One lookup, with all its retries and servers, takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Questions that one connection to a name server carries at the same time; above it the resolver
/// fails lookups, so it is far above what deliveries need.
const QUESTIONS_AT_ONCE: usize = 4096;

/// What the MX records of a domain say.
pub(super) enum MxAnswer {
    /// Preference and host of each; at least one.
    Records(Vec<(u16, Domain)>),
    /// The domain exists and has none.
    None,
    /// A null MX (RFC 7505): no mail is wanted.
    Null,
    /// There is no such domain.
    NoDomain,
    /// There are records, and none of them names a host.
    Unusable,
    /// Nobody knows, in words.
    Failed(String),
}

/// The resolver.
pub(super) struct Dns(TokioResolver);

impl Dns {
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, RouteError> {
        let mut builder = if servers.is_empty() {
            match TokioResolver::builder_tokio() {
                Ok(builder) => builder,
                // resolv.conf(5): without the file, the name server on this machine is meant.
                Err(NetError::Io(fault)) if fault.kind() == std::io::ErrorKind::NotFound => {
                    let here = SocketAddr::from(([127, 0, 0, 1], 53));
                    Resolver::builder_with_config(of_servers(&[here]), TokioRuntimeProvider::default())
                }
                Err(fault) => return Err(RouteError::SystemConfiguration(fault.to_string())),
            }
        } else {
            Resolver::builder_with_config(of_servers(servers), TokioRuntimeProvider::default())
        };
        adjust(builder.options_mut());
        builder.build().map(Self).map_err(|fault| RouteError::Resolver(fault.to_string()))
    }

    pub(super) async fn mx(&self, domain: &Domain) -> MxAnswer {
        let lookup = match self.ask(domain, RecordType::MX).await {
            Ok(Some(lookup)) => lookup,
            Ok(None) => return MxAnswer::None,
            Err(Fault::NoDomain) => return MxAnswer::NoDomain,
            Err(Fault::Failed(fault)) => return MxAnswer::Failed(fault),
        };
        let mut records = Vec::new();
        let (mut null, mut malformed) = (false, false);
        for answer in lookup.answers() {
            let RData::MX(mx) = &answer.data else { continue };
            if mx.exchange.is_root() {
                null = true;
                continue;
            }
            let name = mx.exchange.to_ascii();
            match Domain::parse(name.strip_suffix('.').unwrap_or(&name)) {
                Ok(host) => records.push((mx.preference, host)),
                Err(fault) => {
                    malformed = true;
                    tracing::debug!(%domain, %fault, "MX record does not name a host");
                }
            }
        }
        match (records.is_empty(), null, malformed) {
            (false, ..) => MxAnswer::Records(records),
            (true, true, _) => MxAnswer::Null,
            (true, false, true) => MxAnswer::Unusable,
            (true, false, false) => MxAnswer::None,
        }
    }

    pub(super) async fn ipv6(&self, host: &Domain) -> Result<Vec<IpAddr>, String> {
        self.addresses(host, RecordType::AAAA).await
    }

    pub(super) async fn ipv4(&self, host: &Domain) -> Result<Vec<IpAddr>, String> {
        self.addresses(host, RecordType::A).await
    }

    async fn addresses(&self, host: &Domain, family: RecordType) -> Result<Vec<IpAddr>, String> {
        match self.ask(host, family).await {
            Ok(Some(lookup)) => {
                let of_family = lookup.answers().iter().filter(|answer| answer.record_type() == family);
                Ok(of_family.filter_map(|answer| answer.data.ip_addr()).collect())
            }
            Ok(None) | Err(Fault::NoDomain) => Ok(Vec::new()),
            Err(Fault::Failed(fault)) => Err(fault),
        }
    }

    /// `Ok(None)`: the name exists and has no such record.
    async fn ask(&self, name: &Domain, kind: RecordType) -> Result<Option<Lookup>, Fault> {
        let mut full = Name::from_ascii(name.as_str()).map_err(|fault| Fault::Failed(fault.to_string()))?;
        full.set_fqdn(true);
        match tokio::time::timeout(PATIENCE, self.0.lookup(full, kind)).await {
            Ok(Ok(lookup)) => Ok(Some(lookup)),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => match none.response_code {
                ResponseCode::NXDomain => Err(Fault::NoDomain),
                ResponseCode::NoError => Ok(None),
                code => Err(Fault::Failed(format!("the name server answered {code}"))),
            },
            Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => {
                Err(Fault::Failed(format!("the name server answered {code}")))
            }
            Ok(Err(NetError::Timeout)) | Err(_) => Err(Fault::Failed("no name server answered in time".to_owned())),
            Ok(Err(fault)) => Err(Fault::Failed(fault.to_string())),
        }
    }
}

enum Fault {
    NoDomain,
    Failed(String),
}

fn of_servers(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |address: &SocketAddr| {
        let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
        (udp.port, tcp.port) = (address.port(), address.port());
        NameServerConfig::new(address.ip(), true, vec![udp, tcp])
    };
    ResolverConfig::from_name_servers(servers.iter().map(server).collect())
}

fn adjust(options: &mut ResolverOpts) {
    options.use_hosts_file = ResolveHosts::Never;
    options.max_active_requests = QUESTIONS_AT_ONCE;
    // A firewall that eats large UDP answers must not cost us a domain.
    options.try_tcp_on_error = true;
}
