//! Where an explanation has its findings from: policies are looked up anew, and what domains did before is
//! told by the daemon, whose files are not touched.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, OnceCell};

use crate::address::{Domain, Host};
use crate::discovery::Knowledge;
use crate::discovery::history::Best;
use crate::discovery::mta_sts::{Published, Web};

/// What is remembered of one recipient domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recollection {
    /// The best that its hosts have shown, as the daemon remembers it; nothing where it remembers none.
    Told(Option<Best>),
    /// Nobody could be asked; why.
    NotAsked(String),
}

/// The sources for one explanation.
#[derive(Debug)]
pub(super) struct Sources {
    web: Web,
    memory: Option<Best>,
    /// Each domain is asked once, however many hops it has.
    policies: Mutex<HashMap<Domain, Arc<OnceCell<Published>>>>,
}

impl Sources {
    pub(super) fn new(web: Web, memory: &Recollection) -> Self {
        let memory = match memory {
            Recollection::Told(best) => *best,
            Recollection::NotAsked(_) => None,
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

    fn best(&self, _: &Host, _: &Host, _: Timestamp) -> Option<Best> {
        self.memory
    }
}
