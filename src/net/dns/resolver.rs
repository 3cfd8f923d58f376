//! The state of the configured resolver: whether it returns DNSSEC records, and the validated keys
//! of the root zone.
//!
//! A *probe* queries the DNSKEY records of the root to learn both. If the resolver returns no
//! signatures, every answer is insecure and mail continues without DANE; a warning repeats while
//! this lasts. With `dnssec = "require"`, or once validation has worked on this machine, missing
//! signatures are treated as an attack: every lookup fails until they are back.
//!
//! Validated keys stay in use until they expire, whatever later probes return. They are renewed in
//! the background; lookups do not wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::anchor::Anchors;
use super::dnssec_memory::DnssecMemory;
use super::name_servers::{NameServers, Response};
use super::rrset::{self, RrSet};
use super::validator::{SignedZone, Validator, WorkBudget, ZoneCuts};
use super::{InsecureReason, LookupError};
use crate::config::Dnssec;

/// The interval of probes, and of the warning, while the resolver returns no DNSSEC records.
pub(super) const STRIPPED_RECHECK: Duration = Duration::from_mins(5);
/// The time between a failed probe or a bogus answer and the next probe.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// The interval at which the root's keys are renewed.
const KEYS_REFRESH: Duration = Duration::from_hours(1);

/// The basis on which answers are trusted.
// Rule: RFC 7672 §2.1.3.
#[derive(Clone)]
pub(super) enum TrustBasis {
    /// Signatures, validated from the keys of the root zone.
    RootKeys(Arc<SignedZone>),
    /// The AD bit of a trusted resolver.
    AdBit,
    /// Nothing: every answer is insecure, for this reason.
    Insecure(InsecureReason),
}

/// The name servers and the result of the last probe. Clones share all of it.
// Rule: RFC 7672 §2.1.1.
#[derive(Clone)]
pub(super) struct ResolverState(Arc<ResolverShared>);

struct ResolverShared {
    name_servers: NameServers,
    dnssec: Dnssec,
    anchors: Anchors,
    cuts: ZoneCuts,
    memory: Arc<DnssecMemory>,
    known: Mutex<ProbeState>,
    /// Locked while a probe runs, so that only one runs at a time.
    probe: tokio::sync::Mutex<()>,
    is_probing: AtomicBool,
}

#[derive(Default)]
struct ProbeState {
    /// The outcome of the last probe.
    outcome: Option<Result<TrustBasis, LookupError>>,
    /// The time at which the next probe is due.
    due: Option<Instant>,
    /// The time at which the validated keys expire.
    expires: Option<Instant>,
    /// The time of the last probe that a bogus answer caused.
    probed_after_bogus: Option<Instant>,
    /// The value of `DnssecMemory::times_forgotten` at the last probe. Results from before a later
    /// `forget` do not count.
    forgotten: u64,
}

/// The outcome of one probe.
struct ProbeResult {
    outcome: Result<TrustBasis, LookupError>,
    /// The time until the next probe.
    again: Duration,
    /// The lifetime of validated keys.
    holds: Option<Duration>,
}

impl ResolverState {
    pub(super) fn new(
        name_servers: NameServers,
        dnssec: Dnssec,
        anchors: Anchors,
        memory: Arc<DnssecMemory>,
    ) -> Self {
        Self(Arc::new(ResolverShared {
            name_servers,
            dnssec,
            anchors,
            cuts: ZoneCuts::new(),
            memory,
            known: Mutex::default(),
            probe: tokio::sync::Mutex::default(),
            is_probing: AtomicBool::new(false),
        }))
    }

    pub(super) fn name_servers(&self) -> &NameServers {
        &self.0.name_servers
    }

    pub(super) fn memory(&self) -> &Arc<DnssecMemory> {
        &self.0.memory
    }

    /// Creates the validator of one lookup. With `fresh`, cached zone cuts older than half a minute
    /// are looked up again.
    pub(super) fn validator(&self, root: Arc<SignedZone>, fresh: bool) -> Validator<'_> {
        Validator::new(&self.0.name_servers, &self.0.cuts, root, fresh)
    }

    /// Returns the basis on which answers are trusted. The first call waits for a probe; later
    /// calls wait only if the last probe left nothing usable.
    ///
    /// # Errors
    /// `Bogus` if validation is required and the root's keys are not available.
    pub(super) async fn trust(&self) -> Result<TrustBasis, LookupError> {
        match self.0.dnssec {
            Dnssec::Off => return Ok(TrustBasis::Insecure(InsecureReason::Off)),
            Dnssec::TrustResolver => return Ok(TrustBasis::AdBit),
            Dnssec::Validate | Dnssec::Require => {}
        }
        let (usable, is_due) = self.0.usable();
        let Some(trust) = usable else {
            return self.0.probe_now().await;
        };
        if is_due {
            self.probe_in_background();
        }
        Ok(trust)
    }

    /// Starts a probe because an answer was bogus, but at most one in half a minute: most bogus
    /// answers are the fault of their own zone.
    pub(super) fn probe_after_bogus(&self) {
        let now = Instant::now();
        let mut known = self.0.known();
        if known
            .probed_after_bogus
            .is_none_or(|last| now.saturating_duration_since(last) >= RETRY_AFTER)
        {
            known.probed_after_bogus = Some(now);
            drop(known);
            self.probe_in_background();
        }
    }

    fn probe_in_background(&self) {
        if !self.0.is_probing.swap(true, Ordering::Relaxed) {
            let state = self.clone();
            tokio::spawn(async move {
                let _probe = state.0.probe.lock().await;
                let found = state.0.probe_root().await;
                state.0.apply(found);
                state.0.is_probing.store(false, Ordering::Relaxed);
            });
        }
    }
}

impl ResolverShared {
    fn known(&self) -> std::sync::MutexGuard<'_, ProbeState> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the usable result of the last probe, and whether the next probe is due.
    fn usable(&self) -> (Option<TrustBasis>, bool) {
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

    /// Runs a probe while the caller waits. Callers that wait at the same time share one probe.
    async fn probe_now(&self) -> Result<TrustBasis, LookupError> {
        let _probe = self.probe.lock().await;
        if let (Some(trust), _) = self.usable() {
            return Ok(trust);
        }
        let recent_failure = {
            let known = self.known();
            let holds = known.forgotten == self.memory.times_forgotten();
            known
                .due
                .filter(|due| holds && Instant::now() < *due)
                .and_then(|_| known.outcome.clone())
        };
        if let Some(outcome @ Err(_)) = recent_failure {
            return outcome;
        }
        let found = self.probe_root().await;
        let outcome = found.outcome.clone();
        self.apply(found);
        outcome
    }

    /// Stores the result of a probe, unless it is worse than validated keys that have not expired.
    fn apply(&self, found: ProbeResult) {
        let now = Instant::now();
        let mut known = self.known();
        known.due = Some(now + found.again);
        let forgotten = std::mem::replace(&mut known.forgotten, self.memory.times_forgotten());
        let has_keys = forgotten == known.forgotten
            && matches!(known.outcome, Some(Ok(TrustBasis::RootKeys(_))))
            && known.expires.is_some_and(|expires| now < expires);
        if !has_keys || matches!(found.outcome, Ok(TrustBasis::RootKeys(_))) {
            known.expires = found.holds.map(|holds| now + holds);
            known.outcome = Some(found.outcome);
        }
    }

    async fn probe_root(&self) -> ProbeResult {
        match self
            .name_servers
            .ask(Name::root(), RecordType::DNSKEY, true)
            .await
        {
            Ok(response) => match dnssec_support(&response) {
                DnssecSupport::Yes => self.validate_root_keys(&response),
                DnssecSupport::No(answer) => self.judge_stripped(&answer),
                DnssecSupport::Unknown(answer) => unreachable_root(&answer),
            },
            Err(fault) => unreachable_root(&fault.to_string()),
        }
    }

    /// Validates the root's keys from the trust anchor.
    fn validate_root_keys(&self, response: &Response) -> ProbeResult {
        let root = Name::root();
        let set = RrSet::find(&response.answers, &root, RecordType::DNSKEY);
        let vouched_for = |tag, key: &_, work: &mut _| self.anchors.vouch_for(tag, key, work);
        let zone = set.and_then(|set| {
            SignedZone::from_keys(&set, vouched_for, &mut WorkBudget::default(), rrset::now())
                .unwrap_or_default()
        });
        if let Some((zone, holds)) = zone {
            self.memory.remember();
            return ProbeResult {
                outcome: Ok(TrustBasis::RootKeys(Arc::new(zone))),
                again: KEYS_REFRESH.min(holds),
                holds: Some(holds.max(RETRY_AFTER)),
            };
        }
        tracing::warn!(
            clock = %jiff::Timestamp::now(),
            "the keys of the root zone do not validate; every lookup fails and mail waits: check [dns] trust_anchor and \
             this machine's clock. If both are right, the answers are forged"
        );
        failed("the keys of the root zone do not validate")
    }

    fn judge_stripped(&self, answer: &str) -> ProbeResult {
        if self.dnssec == Dnssec::Require || self.memory.has_validated() {
            tracing::warn!(
                answer,
                "the resolver returns no DNSSEC records although DNSSEC is required here or worked before; treating \
                 all answers as bogus. If this resolver is the intended one: gatepost history forget --dnssec"
            );
            return failed("the resolver returns no DNSSEC records");
        }
        tracing::warn!(
            answer,
            "the resolver returns no DNSSEC records: DANE is not applied to any domain, and forged DNS answers are not \
             noticed; name a resolver that returns them in [dns] servers, or write dnssec = \"off\""
        );
        let outcome = Ok(TrustBasis::Insecure(InsecureReason::ResolverStrips));
        ProbeResult {
            outcome,
            again: STRIPPED_RECHECK,
            holds: None,
        }
    }
}

fn failed(fault: &str) -> ProbeResult {
    ProbeResult {
        outcome: Err(LookupError::Bogus(fault.to_owned())),
        again: RETRY_AFTER,
        holds: None,
    }
}

fn unreachable_root(answer: &str) -> ProbeResult {
    tracing::warn!(
        error = answer,
        "cannot look up the keys of the root zone; trying again"
    );
    failed(&format!(
        "the keys of the root zone cannot be looked up ({answer})"
    ))
}

enum DnssecSupport {
    Yes,
    No(String),
    Unknown(String),
}

/// Determines from the response to a probe whether the resolver returns DNSSEC records.
fn dnssec_support(response: &Response) -> DnssecSupport {
    match response.code {
        ResponseCode::NoError | ResponseCode::NXDomain => {
            let has_signatures = response
                .answers
                .iter()
                .any(|record| record.record_type() == RecordType::RRSIG);
            match (has_signatures, response.answers.is_empty()) {
                (true, _) => DnssecSupport::Yes,
                (false, false) => {
                    DnssecSupport::No("the root's keys without their signatures".to_owned())
                }
                (false, true) => DnssecSupport::No("no keys of the root".to_owned()),
            }
        }
        code @ (ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr) => {
            DnssecSupport::No(code.to_string())
        }
        code => DnssecSupport::Unknown(code.to_string()),
    }
}
