//! The sources of an explanation. MTA-STS policies are those of the running daemon, or looked up if
//! it has none. The downgrade memory is asked of the daemon too; its files are not read.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, OnceCell};

use super::document::{PolicyFrom, PolicyNote};
use crate::config::Route;
use crate::discovery::mta_sts::{MtaStsPolicy, PublishedPolicy, WebSource};
use crate::discovery::{KnownPolicies, MtaStsLookup};
use crate::policy::layers::MemoryFinding;
use crate::smtp::address::{Domain, Host};

/// The downgrade memory of one recipient domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RememberedTls {
    /// The running daemon's memory.
    Known(MemoryFinding),
    /// The daemon could not be asked, for this reason.
    Unavailable(String),
}

/// The MTA-STS policies in the cache of the running daemon. The daemon uses these, whatever the
/// policy hosts serve now.
#[derive(Debug, Clone, Default)]
pub struct DaemonPolicies(HashMap<Domain, Arc<MtaStsPolicy>>);

impl FromIterator<MtaStsPolicy> for DaemonPolicies {
    fn from_iter<T: IntoIterator<Item = MtaStsPolicy>>(policies: T) -> Self {
        Self(
            policies
                .into_iter()
                .map(|policy| (policy.domain().clone(), Arc::new(policy)))
                .collect(),
        )
    }
}

impl DaemonPolicies {
    /// Returns a note about the policy that applies to a hop; `None` if there is no policy.
    #[must_use]
    pub fn note(&self, asked: &MtaStsLookup) -> Option<PolicyNote> {
        let MtaStsLookup::Done(PublishedPolicy::Policy(policy)) = asked else {
            return None;
        };
        let is_known = self.0.contains_key(policy.domain());
        Some(PolicyNote {
            domain: policy.domain().to_string(),
            id: policy.id().to_string(),
            mode: policy.mode().as_str(),
            from: if is_known {
                PolicyFrom::Daemon
            } else {
                PolicyFrom::Network
            },
            fetched: policy.fetched(),
        })
    }
}

/// Returns the domains whose MTA-STS policies may apply to mail for a recipient domain on a route,
/// as far as they are known before the MX lookup (see
/// [`policy_domain`](crate::discovery::policy_domain)).
#[must_use]
pub fn policy_domains(recipient: &Host, route: &Route) -> Vec<Domain> {
    match route {
        Route::Mx { .. } => recipient.domain().cloned().into_iter().collect(),
        Route::SmartHosts(hosts) => hosts
            .iter()
            .filter_map(|smart| smart.host.domain().cloned())
            .collect(),
    }
}

/// The sources of one explanation or probe.
#[derive(Debug)]
pub struct Sources {
    web: WebSource,
    memory: MemoryFinding,
    known: DaemonPolicies,
    /// The lookups of this explanation. Each domain is looked up once, however many hops it has.
    policies: Mutex<HashMap<Domain, Arc<OnceCell<PublishedPolicy>>>>,
}

impl Sources {
    /// Policies that are not `known` are looked up through `web`. A memory that is unavailable
    /// demands nothing.
    #[must_use]
    pub fn new(web: WebSource, memory: &RememberedTls, known: DaemonPolicies) -> Self {
        let memory = match memory {
            RememberedTls::Known(finding) => finding.clone(),
            RememberedTls::Unavailable(_) => MemoryFinding::Nothing,
        };
        Self {
            web,
            memory,
            known,
            policies: Mutex::default(),
        }
    }
}

impl KnownPolicies for Sources {
    async fn policy(&self, domain: &Domain) -> PublishedPolicy {
        if let Some(policy) = self.known.0.get(domain) {
            return PublishedPolicy::Policy(Arc::clone(policy));
        }
        let cell = Arc::clone(
            self.policies
                .lock()
                .await
                .entry(domain.clone())
                .or_default(),
        );
        let look_up = async || match self.web.look_up_uncached(domain, Timestamp::now()).await {
            Ok(policy) => PublishedPolicy::Policy(Arc::new(policy)),
            Err(absent) => PublishedPolicy::None(absent),
        };
        cell.get_or_init(look_up).await.clone()
    }

    fn downgrade_memory(&self, _: &Host, _: &Host, _: Timestamp) -> MemoryFinding {
        self.memory.clone()
    }
}
