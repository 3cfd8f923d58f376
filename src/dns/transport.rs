//! Questions to the name servers and their raw answers: UDP, then TCP, with a bound on each try.
//!
//! It believes nothing and validates nothing. The records that make up chains of trust (DS, DNSKEY and
//! the NS records that mark zone cuts) are kept for a short while, since nearly every validation needs
//! the same few; the validator above checks them anew each time.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use futures_util::stream;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

/// One try with all servers.
const TRY: Duration = Duration::from_secs(4);
/// Questions that one connection to a name server carries at the same time; above it the resolver
/// fails lookups, so it is far above what deliveries need.
const QUESTIONS_AT_ONCE: usize = 4096;
/// Responses that are kept for validation, at most.
const KEPT: u64 = 4096;
/// How long one is kept, at most: a zone that changes its keys is noticed soon.
const KEPT_FOR: Duration = Duration::from_mins(5);

/// What is asked for, and whether signatures are.
type Key = (Name, RecordType, bool);
type Outcome = Result<DnsResponse, NetError>;
type Pool = NameServerPool<TokioRuntimeProvider>;

/// The way to the name servers.
#[derive(Clone)]
pub(super) struct Transport {
    /// UDP, and TCP for what is truncated.
    both: Pool,
    /// A firewall that eats large UDP answers must not cost us a domain.
    tcp: Pool,
    kept: moka::sync::Cache<Key, (Instant, Outcome)>,
}

impl Transport {
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let mut options = ResolverOpts::default();
        options.timeout = TRY;
        options.max_active_requests = QUESTIONS_AT_ONCE;
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        let pool = |udp: bool| {
            let servers = servers.iter().map(|server| of_server(*server, udp));
            Pool::from_config(servers, Arc::clone(&context), TokioRuntimeProvider::default())
        };
        Ok(Self { both: pool(true), tcp: pool(false), kept: moka::sync::Cache::new(KEPT) })
    }

    /// Forgets what was kept for validation: something in it may be the reason why one failed.
    pub(super) fn forget(&self) {
        self.kept.invalidate_all();
    }

    /// Asks once: by UDP, by TCP where nothing came back, then by UDP for the last time.
    async fn ask(&self, request: DnsRequest) -> Outcome {
        let mut outcome = self.both.send(request.clone()).first_answer().await;
        for pool in [&self.tcp, &self.both] {
            match outcome {
                Err(NetError::Timeout | NetError::Io(_) | NetError::NoConnections | NetError::Busy) => {
                    outcome = pool.send(request.clone()).first_answer().await;
                }
                // One more try: SERVFAIL is often over as soon as it is there.
                Err(NetError::Dns(DnsError::ResponseCode(_))) => {
                    return self.both.send(request).first_answer().await;
                }
                _ => break,
            }
        }
        outcome
    }

    async fn ask_or_remember(self, request: DnsRequest) -> Outcome {
        let wanted = request.queries.first().map(|query| (query.name.clone(), query.query_type));
        let dnssec = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let key = match wanted {
            Some((name, kind @ (RecordType::DS | RecordType::DNSKEY | RecordType::NS))) => (name, kind, dnssec),
            _ => return self.ask(request).await,
        };
        if let Some((until, response)) = self.kept.get(&key)
            && Instant::now() < until
        {
            return response;
        }
        let response = self.ask(request).await;
        if let Some(time) = may_be_kept(&response) {
            self.kept.insert(key, (Instant::now() + time, response.clone()));
        }
        response
    }
}

/// For how long a response may be kept; `None` where it is no answer.
fn may_be_kept(response: &Outcome) -> Option<Duration> {
    let ttl = match response {
        Ok(response) => response.answers.iter().chain(&response.authorities).map(|record| record.ttl).min(),
        Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { negative_ttl, .. }))) => *negative_ttl,
        Err(_) => None,
    };
    ttl.map(|ttl| Duration::from_secs(ttl.into()).min(KEPT_FOR))
}

impl DnsHandle for Transport {
    type Response = Pin<Box<dyn Stream<Item = Outcome> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        Box::pin(stream::once(self.clone().ask_or_remember(request)))
    }
}

fn of_server(server: SocketAddr, udp: bool) -> NameServerConfig {
    let (mut by_udp, mut by_tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (by_udp.port, by_tcp.port) = (server.port(), server.port());
    let ways = if udp { vec![by_udp, by_tcp] } else { vec![by_tcp] };
    NameServerConfig::new(server.ip(), true, ways)
}

/// The servers of /etc/resolv.conf; why it cannot be used, in words.
pub(super) fn system_servers() -> Result<Vec<SocketAddr>, String> {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, _)) => {
            let address = |server: &NameServerConfig| SocketAddr::new(server.ip, 53);
            Ok(config.name_servers().iter().map(address).collect())
        }
        // resolv.conf(5): without the file, the name server on this machine is meant.
        Err(NetError::Io(fault)) if fault.kind() == std::io::ErrorKind::NotFound => {
            Ok(vec![SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 53)])
        }
        Err(fault) => Err(fault.to_string()),
    }
}
