//! A stub resolver. It sends queries to the configured name servers and states for each answer
//! whether DNSSEC secures it.
//!
//! Names are always absolute: neither a search list nor the hosts file is consulted. The security
//! of an answer is that of the weakest link of its CNAME chain, in answers from the cache too. The
//! resolver does not know the purpose of a lookup: mail routing is in [`crate::net::route`], TLS
//! policies are in [`crate::discovery`].
//!
//! Sources: RFC 4033 to 4035 (DNSSEC), RFC 2308 (negative answers), RFC 6840 §5.7 (the AD bit), RFC
//! 9520 (failures).

mod anchor;
mod answer;
mod cache;
mod cname;
mod dnssec_memory;
mod lookup;
mod name_servers;
mod resolver;
mod rrset;
mod validator;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::config::{self, Dnssec, Fault, TrustAnchor};
use crate::smtp::address::Domain;
use anchor::Anchors;
pub use anchor::{AnchorError, AnchorRecordFault};
pub use answer::{
    AnswerRecords, CnameChain, DnsAnswer, Exchange, InsecureReason, LookupError, Mx, Security,
    TlsaRecord,
};
use cache::Cache;
use dnssec_memory::DnssecMemory;
use name_servers::NameServers;
use resolver::ResolverState;

/// The time limit of one lookup with all its retries, servers, aliases and signature checks.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// The resolver. Clones share the cache and the connections.
#[derive(Clone)]
pub struct Dns(Arc<DnsShared>);

struct DnsShared {
    state: ResolverState,
    cache: Cache,
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// The reasons for which a resolver cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// /etc/resolv.conf cannot be used.
    #[error("/etc/resolv.conf cannot be used ({0})")]
    SystemConfiguration(NetError),
    /// With `dnssec = "trust-resolver"`, /etc/resolv.conf names a server on another machine.
    #[error(
        "dnssec = \"trust-resolver\", and /etc/resolv.conf names {0}, which is not on this machine"
    )]
    NotLoopback(IpAddr),
    /// The trust anchor cannot be used.
    #[error("trust_anchor: {} {fault}", .file.display())]
    TrustAnchor {
        /// The trust anchor file.
        file: PathBuf,
        /// The fault in the file.
        fault: AnchorError,
    },
    /// The resolver library cannot be set up.
    #[error("the DNS resolver cannot be set up: {0}")]
    Library(NetError),
}

impl DnsError {
    /// Returns true if the fault may go away without a change of the configuration, as when the
    /// network configuration has not written /etc/resolv.conf yet.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::SystemConfiguration(_) | Self::Library(_) => true,
            Self::NotLoopback(_) | Self::TrustAnchor { .. } => false,
        }
    }

    /// Converts the error into a configuration fault with its place and a remedy.
    #[must_use]
    pub fn fault(&self, config: &config::DnsConfig) -> Fault {
        let (location, remedy) = match (self, &config.trust_anchor) {
            (Self::SystemConfiguration(_), _) => (
                &config.dnssec.location,
                "Correct it, or name the servers in [dns] servers.",
            ),
            (Self::NotLoopback(_), _) => (
                &config.dnssec.location,
                "Name a validating resolver on a loopback address in [dns] servers, or write dnssec = \"validate\".",
            ),
            (Self::TrustAnchor { .. }, TrustAnchor::File(file)) => (
                &file.location,
                "Name a readable file with the DNSKEY or DS records of the root, as in a zone file.",
            ),
            (Self::TrustAnchor { .. } | Self::Library(_), _) => {
                (&config.dnssec.location, "Correct it and start again.")
            }
        };
        Fault {
            location: location.clone(),
            message: self.to_string(),
            remedy: remedy.to_owned(),
        }
    }
}

impl Dns {
    /// Creates a resolver for the servers of `[dns] servers` or, if there are none, of
    /// /etc/resolv.conf. It sends no query, and starts without the memory of earlier validations.
    ///
    /// # Errors
    /// [`DnsError`] if /etc/resolv.conf is needed and unusable, or if the trust anchor is unusable.
    pub fn new(config: &config::DnsConfig) -> Result<Self, DnsError> {
        Self::with_memory(config, Arc::default())
    }

    /// Creates a resolver for another configuration that shares the memory of earlier validations,
    /// so that a reload does not make it accept a resolver without DNSSEC.
    ///
    /// # Errors
    /// As [`Dns::new`].
    pub fn with_config(&self, config: &config::DnsConfig) -> Result<Self, DnsError> {
        Self::with_memory(config, Arc::clone(self.0.state.memory()))
    }

    /// Creates a resolver for fuzzing, with `script` in place of the name servers. It validates
    /// from the records in `anchor` and rejects every answer that it cannot validate.
    ///
    /// # Errors
    /// The fault of the anchor or of the library.
    #[cfg(fuzzing)]
    pub fn fuzzed(anchor: &str, script: name_servers::Script) -> Result<Self, String> {
        let name_servers = NameServers::scripted(script).map_err(|fault| fault.to_string())?;
        let state = ResolverState::new(
            name_servers,
            Dnssec::Require,
            Anchors::parse(anchor).map_err(|fault| fault.to_string())?,
            Arc::default(),
        );
        Ok(Self(Arc::new(DnsShared {
            state,
            cache: Cache::new(),
        })))
    }

    fn with_memory(
        config: &config::DnsConfig,
        memory: Arc<DnssecMemory>,
    ) -> Result<Self, DnsError> {
        let mut servers: Vec<SocketAddr> =
            config.servers.iter().map(|server| server.value).collect();
        if servers.is_empty() {
            servers = name_servers::system_servers().map_err(DnsError::SystemConfiguration)?;
        }
        let elsewhere = servers
            .iter()
            .map(SocketAddr::ip)
            .find(|address| !address.to_canonical().is_loopback());
        if let (Dnssec::TrustResolver, Some(address)) = (config.dnssec.value, elsewhere) {
            return Err(DnsError::NotLoopback(address));
        }
        let anchors = match &config.trust_anchor {
            TrustAnchor::BuiltIn => Anchors::built_in(),
            TrustAnchor::File(file) => {
                Anchors::read(&file.value).map_err(|fault| DnsError::TrustAnchor {
                    file: file.value.clone(),
                    fault,
                })?
            }
        };
        let name_servers = NameServers::new(&servers).map_err(DnsError::Library)?;
        let state = ResolverState::new(name_servers, config.dnssec.value, anchors, memory);
        Ok(Self(Arc::new(DnsShared {
            state,
            cache: Cache::new(),
        })))
    }

    /// Loads from the spool folder whether validation has worked before, and stores it there from
    /// now on. Blocks on file access.
    pub fn remember_in(&self, folder: &Path) {
        self.0.state.memory().keep_in(folder);
    }

    /// Forgets that validation has worked, so that a resolver without DNSSEC records is accepted
    /// again (unless `dnssec` is "require"). Returns true if validation had worked before. Blocks
    /// on file access.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget_dnssec(&self) -> io::Result<bool> {
        let had_validated = self.0.state.memory().has_validated();
        self.0.state.memory().forget()?;
        Ok(had_validated)
    }

    /// Checks whether the name servers return DNSSEC records, and logs a warning if they do not.
    /// Without this call the first lookup performs the check.
    pub async fn probe_dnssec(&self) {
        let _ = tokio::time::timeout(LOOKUP_TIMEOUT, self.0.state.trust()).await;
    }

    /// Looks up the MX records of a domain.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn mx(&self, domain: &Domain) -> Result<DnsAnswer<Mx>, LookupError> {
        self.lookup(domain.as_str(), RecordType::MX, |data| match data {
            RData::MX(mx) => Some(Mx {
                preference: mx.preference,
                exchange: parse_exchange(&mx.exchange),
            }),
            _ => None,
        })
        .await
    }

    /// Looks up the addresses of a host, with IPv6 and IPv4 alternating. If one family has no
    /// address or its lookup fails, the answer is that of the other family.
    ///
    /// # Errors
    /// [`LookupError`] if no address was found and at least one of the two lookups failed.
    pub async fn addresses(&self, host: &Domain) -> Result<DnsAnswer<IpAddr>, LookupError> {
        let (six, four) = tokio::join!(
            self.lookup(host.as_str(), RecordType::AAAA, RData::ip_addr),
            self.lookup(host.as_str(), RecordType::A, RData::ip_addr),
        );
        match (six, four) {
            (Ok(six), Ok(four)) => Ok(both_families(six, four)),
            (Ok(one), Err(fault)) | (Err(fault), Ok(one)) => {
                if one.records().is_empty() {
                    Err(fault)
                } else {
                    Ok(one)
                }
            }
            // A failed validation is the more informative of two errors.
            (Err(fault @ LookupError::Bogus(_)), Err(_)) | (Err(_), Err(fault)) => Err(fault),
        }
    }

    /// Looks up the TXT records of a name such as `_mta-sts.example.org`. The character-strings of
    /// each record are concatenated.
    ///
    /// # Errors
    /// [`LookupError`].
    // Rule: RFC 8461 §3.1.
    pub async fn txt(&self, name: &str) -> Result<DnsAnswer<String>, LookupError> {
        self.lookup(name, RecordType::TXT, |data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await
    }

    /// Looks up the TLSA records of `_PORT._tcp.HOST`, and follows CNAMEs.
    ///
    /// # Errors
    /// [`LookupError`].
    // Rule: RFC 7672 §2.2.3.
    pub async fn tlsa(
        &self,
        port: u16,
        host: &Domain,
    ) -> Result<DnsAnswer<TlsaRecord>, LookupError> {
        self.lookup(
            &format!("_{port}._tcp.{host}"),
            RecordType::TLSA,
            |data| match data {
                RData::TLSA(tlsa) => Some(TlsaRecord {
                    usage: tlsa.cert_usage.into(),
                    selector: tlsa.selector.into(),
                    matching: tlsa.matching.into(),
                    data: tlsa.cert_data.clone(),
                }),
                _ => None,
            },
        )
        .await
    }

    async fn lookup<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<DnsAnswer<T>, LookupError> {
        let mut full = Name::from_ascii(name)
            .map_err(|fault| LookupError::Server(format!("cannot look up \"{name}\": {fault}")))?;
        full.set_fqdn(true);
        let state = &self.0.state;
        let ask = async |name: &Name| {
            let resolved =
                tokio::time::timeout(LOOKUP_TIMEOUT, lookup::resolve(state, name, kind)).await;
            resolved.unwrap_or(Err(LookupError::Timeout))
        };
        self.0
            .cache
            .get(full, kind, ask, |resolved, expires| DnsAnswer {
                found: match &resolved.found {
                    AnswerRecords::Records(records) => {
                        AnswerRecords::Records(records.iter().filter_map(read).collect())
                    }
                    AnswerRecords::NoData => AnswerRecords::NoData,
                    AnswerRecords::NoDomain => AnswerRecords::NoDomain,
                },
                security: resolved.security,
                first_link: resolved.first_link,
                name: resolved.name.clone(),
                expires,
            })
            .await
    }
}

fn parse_exchange(name: &Name) -> Exchange {
    if name.is_root() {
        return Exchange::Null;
    }
    let name = name.to_ascii();
    let name = name.strip_suffix('.').unwrap_or(&name);
    Domain::parse(name).map_or_else(|_| Exchange::NotAHost(name.to_owned()), Exchange::Host)
}

fn both_families(six: DnsAnswer<IpAddr>, four: DnsAnswer<IpAddr>) -> DnsAnswer<IpAddr> {
    match (&six.found, &four.found) {
        (AnswerRecords::Records(some), AnswerRecords::Records(more)) => DnsAnswer {
            found: AnswerRecords::Records(interleave(some, more)),
            security: six.security.weakest(four.security),
            first_link: six.first_link.weakest(four.first_link),
            name: four.name,
            expires: six.expires.min(four.expires),
        },
        (AnswerRecords::Records(_), _) => DnsAnswer {
            expires: six.expires.min(four.expires),
            ..six
        },
        (_, AnswerRecords::Records(_)) | (AnswerRecords::NoData | AnswerRecords::NoDomain, _) => {
            DnsAnswer {
                security: if four.records().is_empty() {
                    six.security.weakest(four.security)
                } else {
                    four.security
                },
                expires: six.expires.min(four.expires),
                ..four
            }
        }
    }
}

fn interleave(six: &[IpAddr], four: &[IpAddr]) -> Vec<IpAddr> {
    (0..six.len().max(four.len()))
        .flat_map(|turn| six.get(turn).into_iter().chain(four.get(turn)))
        .copied()
        .collect()
}
