//! Queries to the name servers, over UDP and TCP, and their responses.
//!
//! Nothing is validated or cached here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode,
};
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

use super::LookupError;

/// The time limit of one attempt over all servers.
// Rule: RFC 7672 §2.1.2.
const TRY_TIMEOUT: Duration = Duration::from_secs(4);
/// The maximum number of concurrent queries on one connection to a name server. The library fails
/// lookups above it, so it is far above what deliveries need.
const QUESTIONS_AT_ONCE: usize = 4096;

type ServerPool = NameServerPool<TokioRuntimeProvider>;

/// The name servers.
#[derive(Clone)]
pub(super) struct NameServers {
    /// UDP, with TCP for truncated responses.
    udp_and_tcp: ServerPool,
    /// TCP alone, for networks whose firewall drops large UDP responses.
    tcp_only: ServerPool,
    /// The fuzzer's responses, in place of the servers'.
    #[cfg(fuzzing)]
    script: Option<Script>,
}

/// A simulated name server for fuzzing: returns the octets of the response to a query.
#[cfg(fuzzing)]
pub(super) type Script = Arc<dyn Fn(&Name, RecordType) -> Vec<u8> + Send + Sync>;

/// A response with any response code, not validated.
pub(super) struct Response {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    /// The AD bit. The library drops it from responses without answers.
    pub(super) authentic: bool,
}

impl NameServers {
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let mut options = ResolverOpts::default();
        options.timeout = TRY_TIMEOUT;
        options.max_active_requests = QUESTIONS_AT_ONCE;
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        let pool = |udp: bool| {
            let servers = servers.iter().map(|server| server_config(*server, udp));
            ServerPool::from_config(
                servers,
                Arc::clone(&context),
                TokioRuntimeProvider::default(),
            )
        };
        Ok(Self {
            udp_and_tcp: pool(true),
            tcp_only: pool(false),
            #[cfg(fuzzing)]
            script: None,
        })
    }

    /// Creates name servers that answer from a fuzzing script.
    #[cfg(fuzzing)]
    pub(super) fn scripted(script: Script) -> Result<Self, NetError> {
        static NOBODY: std::sync::LazyLock<Result<NameServers, NetError>> =
            std::sync::LazyLock::new(|| NameServers::new(&[]));
        let nobody = NOBODY.as_ref().map_err(Clone::clone)?;
        Ok(Self {
            script: Some(script),
            ..nobody.clone()
        })
    }

    /// Sends one query. With `dnssec`, the response includes signatures and the AD bit.
    ///
    /// # Errors
    /// `Timeout` or `Server` if no response came.
    pub(super) async fn ask(
        &self,
        name: Name,
        kind: RecordType,
        dnssec: bool,
    ) -> Result<Response, LookupError> {
        match self.exchange(request(name, kind, dnssec)).await {
            Ok(response) => Ok(response.into()),
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Ok(Response {
                code,
                answers: Vec::new(),
                authorities: Vec::new(),
                authentic: false,
            }),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Ok(none.into()),
            Err(NetError::Timeout) => Err(LookupError::Timeout),
            Err(NetError::Io(fault)) => Err(LookupError::Server(format!(
                "no name server can be reached: {fault}"
            ))),
            Err(fault) => Err(LookupError::Server(fault.to_string())),
        }
    }

    /// Sends the query over UDP, then over TCP if no response came, then over UDP once more.
    async fn exchange(&self, request: DnsRequest) -> Result<DnsResponse, NetError> {
        #[cfg(fuzzing)]
        if let Some(script) = &self.script {
            return scripted(script, &request);
        }
        let mut outcome = self.udp_and_tcp.send(request.clone()).first_answer().await;
        for pool in [&self.tcp_only, &self.udp_and_tcp] {
            match outcome {
                // Servers often return SERVFAIL for a moment only, so the query is sent once more.
                Err(NetError::Dns(DnsError::ResponseCode(_))) => {
                    return self.udp_and_tcp.send(request).first_answer().await;
                }
                Ok(_) | Err(NetError::Dns(_)) => break,
                // No response came. This includes queries that the library dropped because its
                // queue was full.
                Err(_) => outcome = pool.send(request.clone()).first_answer().await,
            }
        }
        outcome
    }
}

/// Accepts a response only if it answers the query, as the library does.
#[cfg(fuzzing)]
fn scripted(script: &Script, request: &DnsRequest) -> Result<DnsResponse, NetError> {
    let query = request.queries.first().ok_or(NetError::Timeout)?;
    let response = DnsResponse::from_buffer(script(query.name(), query.query_type()))?;
    if response.queries != request.queries {
        return Err(NetError::Timeout);
    }
    Ok(DnsError::from_response(response)?)
}

impl Response {
    /// Returns the response if its code is NOERROR or NXDOMAIN.
    ///
    /// # Errors
    /// `Server` with any other code.
    pub(super) fn usable(self) -> Result<Self, LookupError> {
        match self.code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(self),
            code => Err(LookupError::Server(format!(
                "the name server answered {code}"
            ))),
        }
    }
}

fn request(name: Name, kind: RecordType, dnssec: bool) -> DnsRequest {
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    options.recursion_desired = true;
    options.edns_set_dnssec_ok = dnssec;
    let mut request = DnsRequest::from_query(Query::query(name, kind), options);
    request.metadata.authentic_data = dnssec;
    request
}

impl From<DnsResponse> for Response {
    fn from(response: DnsResponse) -> Self {
        let message = response.into_message();
        let authentic = message.metadata.authentic_data;
        Self {
            code: message.metadata.response_code,
            answers: message.answers,
            authorities: message.authorities,
            authentic,
        }
    }
}

impl From<NoRecords> for Response {
    fn from(none: NoRecords) -> Self {
        let NoRecords {
            soa,
            authorities,
            response_code,
            ..
        } = none;
        let mut authorities: Vec<Record> = authorities.map(|all| all.to_vec()).unwrap_or_default();
        if authorities.is_empty() {
            authorities.extend(soa.map(|soa| soa.into_record_of_rdata()));
        }
        Self {
            code: response_code,
            answers: Vec::new(),
            authorities,
            authentic: false,
        }
    }
}

fn server_config(server: SocketAddr, udp: bool) -> NameServerConfig {
    let (mut by_udp, mut by_tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (by_udp.port, by_tcp.port) = (server.port(), server.port());
    let ways = if udp {
        vec![by_udp, by_tcp]
    } else {
        vec![by_tcp]
    };
    NameServerConfig::new(server.ip(), true, ways)
}

/// Returns the servers of /etc/resolv.conf.
///
/// # Errors
/// The error of the library if the file cannot be used.
pub(super) fn system_servers() -> Result<Vec<SocketAddr>, NetError> {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, _)) => {
            let address = |server: &NameServerConfig| SocketAddr::new(server.ip, 53);
            Ok(config.name_servers().iter().map(address).collect())
        }
        // Without the file, resolv.conf(5) specifies the name server on this machine.
        Err(NetError::Io(fault)) if fault.kind() == std::io::ErrorKind::NotFound => {
            Ok(vec![SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 53)])
        }
        Err(fault) => Err(fault),
    }
}
