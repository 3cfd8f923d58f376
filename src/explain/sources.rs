//! Where an explanation has its findings from: policies are the running daemon's, or are looked up anew where it has
//! none, and what domains did before is told by the daemon, whose files are not touched.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, OnceCell};

use super::words::{PolicyFrom, PolicyNote};
use crate::address::{Domain, Host};
use crate::config::Route;
use crate::connector::MemoryFinding;
use crate::discovery::mta_sts::{MtaStsPolicy, PublishedPolicy, WebSource};
use crate::discovery::{KnownPolicies, MtaStsLookup};

/// What is remembered of one recipient domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recollection {
    /// This, by the running daemon.
    Told(MemoryFinding),
    /// Nobody could be asked; why.
    NotAsked(String),
}

/// Policies that the running daemon has, and goes by: it does so whatever can be had of their hosts now.
#[derive(Debug, Clone, Default)]
pub struct DaemonPolicies(HashMap<Domain, Arc<MtaStsPolicy>>);

impl FromIterator<MtaStsPolicy> for DaemonPolicies {
    fn from_iter<T: IntoIterator<Item = MtaStsPolicy>>(policies: T) -> Self {
        Self(policies.into_iter().map(|policy| (policy.domain().clone(), Arc::new(policy))).collect())
    }
}

impl DaemonPolicies {
    /// What is to be said of a policy that was found, where one was.
    #[must_use]
    pub fn note(&self, asked: &MtaStsLookup) -> Option<PolicyNote> {
        let MtaStsLookup::Done(PublishedPolicy::Policy(policy)) = asked else { return None };
        let is_known = self.0.contains_key(policy.domain());
        Some(PolicyNote {
            domain: policy.domain().to_string(),
            id: policy.id().to_string(),
            mode: policy.mode().as_str(),
            from: if is_known { PolicyFrom::Daemon } else { PolicyFrom::Network },
            fetched: policy.fetched(),
        })
    }
}

/// The domains whose policies may count for mail to a recipient domain by a route, where they can be told
/// beforehand (see [`policy_domain`](crate::discovery::policy_domain)).
#[must_use]
pub fn policy_domains(recipient: &Host, route: &Route) -> Vec<Domain> {
    match route {
        Route::Mx { .. } => recipient.domain().cloned().into_iter().collect(),
        Route::SmartHosts(hosts) => hosts.iter().filter_map(|smart| smart.host.domain().cloned()).collect(),
    }
}

/// The sources for one explanation, or one probe.
#[derive(Debug)]
pub struct Sources {
    web: WebSource,
    memory: MemoryFinding,
    known: DaemonPolicies,
    /// Each domain is asked once, however many hops it has.
    policies: Mutex<HashMap<Domain, Arc<OnceCell<PublishedPolicy>>>>,
}

impl Sources {
    /// Policies that are not `known` are looked up through `web`; what is not remembered demands nothing.
    #[must_use]
    pub fn new(web: WebSource, memory: &Recollection, known: DaemonPolicies) -> Self {
        let memory = match memory {
            Recollection::Told(finding) => finding.clone(),
            Recollection::NotAsked(_) => MemoryFinding::Nothing,
        };
        Self { web, memory, known, policies: Mutex::default() }
    }
}

impl KnownPolicies for Sources {
    async fn policy(&self, domain: &Domain) -> PublishedPolicy {
        if let Some(policy) = self.known.0.get(domain) {
            return PublishedPolicy::Policy(Arc::clone(policy));
        }
        let cell = Arc::clone(self.policies.lock().await.entry(domain.clone()).or_default());
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
