//! Where an explanation has its findings from: policies are looked up anew, and what domains did before is
//! told by the daemon, whose files are not touched.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, OnceCell};

use crate::address::{Domain, Host};
use crate::connector::MemoryFinding;
use crate::discovery::Knowledge;
use crate::discovery::mta_sts::{Published, Web};

/// What is remembered of one recipient domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recollection {
    /// This, by the running daemon.
    Told(MemoryFinding),
    /// Nobody could be asked; why.
    NotAsked(String),
}

/// The sources for one explanation, or one probe.
#[derive(Debug)]
pub struct Sources {
    web: Web,
    memory: MemoryFinding,
    /// Each domain is asked once, however many hops it has.
    policies: Mutex<HashMap<Domain, Arc<OnceCell<Published>>>>,
}

impl Sources {
    /// Policies are looked up through `web`; what is not remembered demands nothing.
    #[must_use]
    pub fn new(web: Web, memory: &Recollection) -> Self {
        let memory = match memory {
            Recollection::Told(finding) => finding.clone(),
            Recollection::NotAsked(_) => MemoryFinding::Nothing,
        };
        Self { web, memory, policies: Mutex::default() }
    }
}

impl Knowledge for Sources {
    async fn policy(&self, domain: &Domain) -> Published {
        let cell = Arc::clone(self.policies.lock().await.entry(domain.clone()).or_default());
        let look_up = async || match self.web.look_up(domain, Timestamp::now()).await {
            Ok(policy) => Published::Policy(Arc::new(policy)),
            Err(absent) => Published::None(absent),
        };
        cell.get_or_init(look_up).await.clone()
    }

    fn remembered(&self, _: &Host, _: &Host, _: Timestamp) -> MemoryFinding {
        self.memory.clone()
    }
}
