//! The state of the name servers: whether they pass DNSSEC on at all, and the keys of the root zone.
//!
//! Both are found out by asking for the keys of the root. A resolver that passes no signatures on makes every
//! answer insecure, not every domain unreachable: mail goes on without what only DNSSEC could have protected,
//! and a warning says so again and again. With `dnssec = "require"`, or once validation has worked on this
//! machine, signatures that vanish are an attack, or look like one: then every answer fails until they are back.
//!
//! Keys that were validated are used until they expire, whatever is answered meanwhile; new ones are looked up
//! beside the lookups, which do not wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::anchor::Anchors;
use super::memory::Memory;
use super::rrset::{self, RrSet};
use super::transport::{Response, Transport};
use super::validator::{Cuts, Validator, Work, Zone};
use super::{InsecureReason, LookupError};
use crate::config::Dnssec;

/// How long it is believed that a resolver strips DNSSEC; so often the warning is repeated.
pub(super) const STRIPS_FOR: Duration = Duration::from_mins(5);
/// How soon the root's keys are asked for again where that failed, or where an answer was bogus.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon the root's keys are looked up anew.
const KEYS_FOR: Duration = Duration::from_hours(1);

/// The rule by which answers are judged.
#[derive(Clone)]
pub(super) enum Trust {
    /// Their signatures, from the root's keys.
    Validated(Arc<Zone>),
    /// The resolver's AD bit.
    Vouched,
    /// None: every answer is insecure, for this reason.
    Insecure(InsecureReason),
}

/// The name servers, and what is known of them. A clone shares all of it.
#[derive(Clone)]
pub(super) struct ResolverState(Arc<Inner>);

struct Inner {
    transport: Transport,
    dnssec: Dnssec,
    anchors: Anchors,
    cuts: Cuts,
    memory: Arc<Memory>,
    known: Mutex<Known>,
    /// Held by the one lookup of the root's keys that is under way.
    probe: tokio::sync::Mutex<()>,
    is_probing: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// The outcome of the last probe.
    outcome: Option<Result<Trust, LookupError>>,
    /// The time at which the next probe is due.
    due: Option<Instant>,
    /// Validated keys are not used any longer.
    expires: Option<Instant>,
    doubted: Option<Instant>,
    /// How often the memory of DNSSEC had been forgotten at the last probe: what was found before does not count.
    forgotten: u64,
}

/// The outcome of one look at the root's keys.
struct Probe {
    outcome: Result<Trust, LookupError>,
    again: Duration,
    holds: Option<Duration>,
}

impl ResolverState {
    pub(super) fn new(transport: Transport, dnssec: Dnssec, anchors: Anchors, memory: Arc<Memory>) -> Self {
        Self(Arc::new(Inner {
            transport,
            dnssec,
            anchors,
            cuts: Cuts::new(),
            memory,
            known: Mutex::default(),
            probe: tokio::sync::Mutex::default(),
            is_probing: AtomicBool::new(false),
        }))
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.0.memory
    }

    /// Makes the validator of one lookup. With `fresh`, zone cuts that are remembered for a while are looked up anew.
    pub(super) fn validator(&self, root: Arc<Zone>, fresh: bool) -> Validator<'_> {
        Validator::new(&self.0.transport, &self.0.cuts, root, fresh)
    }

    /// Returns the rule by which answers are judged. The first call looks at the root's keys; later ones wait only
    /// where nothing is known that can be used.
    ///
    /// # Errors
    /// `Bogus` where nothing can be validated, and something must be.
    pub(super) async fn trust(&self) -> Result<Trust, LookupError> {
        match self.0.dnssec {
            Dnssec::Off => return Ok(Trust::Insecure(InsecureReason::Off)),
            Dnssec::TrustResolver => return Ok(Trust::Vouched),
            Dnssec::Validate | Dnssec::Require => {}
        }
        let (usable, is_due) = self.0.usable();
        let Some(trust) = usable else { return self.0.probe_now().await };
        if is_due {
            self.probe_beside();
        }
        Ok(trust)
    }

    /// Looks at the root's keys anew: an answer did not validate. Not for each such answer, though: most are a zone's
    /// own fault.
    pub(super) fn doubt(&self) {
        let now = Instant::now();
        let mut known = self.0.known();
        if known.doubted.is_none_or(|last| now.saturating_duration_since(last) >= AGAIN) {
            known.doubted = Some(now);
            drop(known);
            self.probe_beside();
        }
    }

    fn probe_beside(&self) {
        if !self.0.is_probing.swap(true, Ordering::Relaxed) {
            let state = self.clone();
            tokio::spawn(async move {
                let _probe = state.0.probe.lock().await;
                let found = state.0.look_at_root().await;
                state.0.take(found);
                state.0.is_probing.store(false, Ordering::Relaxed);
            });
        }
    }
}

impl Inner {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known and can be used, and whether it is due to be found out anew.
    fn usable(&self) -> (Option<Trust>, bool) {
        let now = Instant::now();
        let known = self.known();
        let is_due = known.due.is_none_or(|due| due <= now);
        let has_expired = known.expires.is_some_and(|expires| expires <= now);
        match &known.outcome {
            _ if known.forgotten != self.memory.times_forgotten() => (None, true),
            Some(Ok(trust)) if !has_expired => (Some(trust.clone()), is_due),
            _ => (None, true),
        }
    }

    /// Looks at the root's keys while the caller waits; one look serves all who wait.
    async fn probe_now(&self) -> Result<Trust, LookupError> {
        let _probe = self.probe.lock().await;
        if let (Some(trust), _) = self.usable() {
            return Ok(trust);
        }
        let failed_lately = {
            let known = self.known();
            let holds = known.forgotten == self.memory.times_forgotten();
            known.due.filter(|due| holds && Instant::now() < *due).and_then(|_| known.outcome.clone())
        };
        if let Some(outcome @ Err(_)) = failed_lately {
            return outcome;
        }
        let found = self.look_at_root().await;
        let outcome = found.outcome.clone();
        self.take(found);
        outcome
    }

    /// Takes what a probe found, unless that is worse than keys which still hold.
    fn take(&self, found: Probe) {
        let now = Instant::now();
        let mut known = self.known();
        known.due = Some(now + found.again);
        let forgotten = std::mem::replace(&mut known.forgotten, self.memory.times_forgotten());
        let has_keys = forgotten == known.forgotten
            && matches!(known.outcome, Some(Ok(Trust::Validated(_))))
            && known.expires.is_some_and(|expires| now < expires);
        if !has_keys || matches!(found.outcome, Ok(Trust::Validated(_))) {
            known.expires = found.holds.map(|holds| now + holds);
            known.outcome = Some(found.outcome);
        }
    }

    async fn look_at_root(&self) -> Probe {
        match self.transport.ask(Name::root(), RecordType::DNSKEY, true).await {
            Ok(response) => match passes_dnssec(&response) {
                Passes::Yes => self.validated(&response),
                Passes::No(answer) => self.stripped(&answer),
                Passes::Unknown(answer) => unreachable_root(&answer),
            },
            Err(fault) => unreachable_root(&fault.to_string()),
        }
    }

    /// Validates the root's keys from the trust anchor.
    fn validated(&self, response: &Response) -> Probe {
        let root = Name::root();
        let set = RrSet::find(&response.answers, &root, RecordType::DNSKEY);
        let vouched_for = |tag, key: &_, work: &mut _| self.anchors.vouch_for(tag, key, work);
        let zone = set
            .and_then(|set| Zone::from_keys(&set, vouched_for, &mut Work::default(), rrset::now()).unwrap_or_default());
        if let Some((zone, holds)) = zone {
            self.memory.remember();
            return Probe {
                outcome: Ok(Trust::Validated(Arc::new(zone))),
                again: KEYS_FOR.min(holds),
                holds: Some(holds.max(AGAIN)),
            };
        }
        tracing::warn!(
            clock = %jiff::Timestamp::now(),
            "the keys of the root zone do not validate, so nothing does and mail waits: check [dns] trust_anchor and \
             this machine's clock; else the answers are forged"
        );
        failed("the keys of the root zone do not validate")
    }

    fn stripped(&self, answer: &str) -> Probe {
        if self.dnssec == Dnssec::Require || self.memory.has_validated() {
            tracing::warn!(
                answer,
                "the resolver returns no DNSSEC records although DNSSEC is required here or worked before; treating \
                 all answers as bogus. If it is yours and meant so: gatepost history forget --dnssec"
            );
            return failed("the resolver returns no DNSSEC records");
        }
        tracing::warn!(
            answer,
            "the resolver returns no DNSSEC records: DANE is not applied to any domain, and forged DNS answers are not \
             noticed; name a resolver that returns them in [dns] servers, or write dnssec = \"off\""
        );
        let outcome = Ok(Trust::Insecure(InsecureReason::ResolverStrips));
        Probe { outcome, again: STRIPS_FOR, holds: None }
    }
}

fn failed(fault: &str) -> Probe {
    Probe { outcome: Err(LookupError::Bogus(fault.to_owned())), again: AGAIN, holds: None }
}

fn unreachable_root(answer: &str) -> Probe {
    tracing::warn!(error = answer, "cannot look up the keys of the root zone; trying again");
    failed(&format!("the keys of the root zone cannot be looked up ({answer})"))
}

enum Passes {
    Yes,
    No(String),
    Unknown(String),
}

/// Finds in an answer about the root's keys whether DNSSEC is passed on.
fn passes_dnssec(response: &Response) -> Passes {
    match response.code {
        ResponseCode::NoError | ResponseCode::NXDomain => {
            let has_signatures = response.answers.iter().any(|record| record.record_type() == RecordType::RRSIG);
            match (has_signatures, response.answers.is_empty()) {
                (true, _) => Passes::Yes,
                (false, false) => Passes::No("the root's keys without their signatures".to_owned()),
                (false, true) => Passes::No("no keys of the root".to_owned()),
            }
        }
        code @ (ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr) => Passes::No(code.to_string()),
        code => Passes::Unknown(code.to_string()),
    }
}
