//! How far the name servers can be built on: whether they pass DNSSEC on at all, and whether the root's
//! keys are the ones that the trust anchor means.
//!
//! This is found out once, by asking for the keys of the root zone. A resolver that passes no signatures on
//! makes every answer insecure, not every domain unreachable: mail goes on without what only DNSSEC
//! could have protected, and a warning says so again and again. Once validation has worked, signatures
//! that vanish are an attack, or look like one: from then on every answer is validated, come what may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::Mutex;

use super::InsecureReason;
use super::anchor::Anchors;
use super::transport::Transport;
use crate::config::Dnssec;

/// How long it is believed that a resolver strips DNSSEC; so often the warning is repeated.
pub(super) const STRIPS_FOR: Duration = Duration::from_mins(5);
/// How soon is looked again where nothing could be found out, or the keys did not validate.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon the keys are matched anew with the digests of the trust anchor.
const KEYS_FOR: Duration = Duration::from_hours(1);
/// Validations that the validator remembers.
const VALIDATIONS: usize = 8192;

pub(super) type Validator = DnssecDnsHandle<Transport>;

/// What an answer is judged by.
#[derive(Clone)]
pub(super) enum Footing {
    /// Its signatures.
    Validated(Arc<Validator>),
    /// The resolver's AD bit.
    Vouched,
    /// Nothing: it is insecure, for this reason.
    Insecure(InsecureReason),
}

/// The name servers, and what is known of them.
pub(super) struct Ground {
    pub(super) transport: Transport,
    dnssec: Dnssec,
    anchors: Anchors,
    known: Mutex<Known>,
    /// Validation has worked once: signatures that vanish from then on are an attack.
    has_validated: AtomicBool,
}

#[derive(Default)]
struct Known {
    footing: Option<(Footing, Option<Instant>)>,
    doubted: Option<Instant>,
}

impl Ground {
    pub(super) fn new(transport: Transport, dnssec: Dnssec, anchors: Anchors) -> Self {
        Self { transport, dnssec, anchors, known: Mutex::default(), has_validated: AtomicBool::new(false) }
    }

    /// Whether validation has worked once.
    pub(super) fn has_validated(&self) -> bool {
        self.has_validated.load(Ordering::Relaxed)
    }

    /// The same name servers were asked before, and validation has worked: that is not forgotten.
    pub(super) fn go_on_from(&self, earlier: &Self) {
        self.has_validated.store(earlier.has_validated(), Ordering::Relaxed);
    }

    /// What to judge by. Found out at the first call, and again when that has become old; meanwhile all wait.
    pub(super) async fn footing(&self) -> Footing {
        match self.dnssec {
            Dnssec::Off => return Footing::Insecure(InsecureReason::Off),
            Dnssec::TrustResolver => return Footing::Vouched,
            Dnssec::Validate => {}
        }
        let mut known = self.known.lock().await;
        match &known.footing {
            Some((footing, until)) if until.is_none_or(|until| Instant::now() < until) => footing.clone(),
            _ => self.find_out(&mut known).await,
        }
    }

    /// A validation has failed: before the next answer is judged, it is found out anew what the name servers do.
    /// Not for each failure, though: most are a zone's own.
    pub(super) async fn doubt(&self) {
        let mut known = self.known.lock().await;
        if known.doubted.is_none_or(|last| last.elapsed() >= AGAIN)
            && let Some((_, until)) = &mut known.footing
        {
            *until = Some(Instant::now());
            known.doubted = Some(Instant::now());
        }
    }

    async fn find_out(&self, known: &mut Known) -> Footing {
        let question = request(Name::root(), RecordType::DNSKEY, true);
        let shown = self.transport.send(question).first_answer().await;
        let (footing, again) = match passes_dnssec(&shown) {
            Passes::Yes => {
                let keys: Vec<&DNSKEY> = shown.iter().flat_map(|shown| &shown.answers).filter_map(key).collect();
                self.validated(self.anchors.with(keys.into_iter())).await
            }
            Passes::No(what) if self.has_validated() => {
                tracing::warn!(
                    answer = %what,
                    "the name servers have stopped to pass DNSSEC on; every answer fails until they do again"
                );
                (Footing::Validated(self.validator(self.anchors.keys.clone())), Some(AGAIN))
            }
            Passes::No(what) => {
                tracing::warn!(
                    answer = %what,
                    "the name servers do not pass DNSSEC on: DANE is not applied to any domain, and forged DNS \
                     answers are not noticed; name a resolver that passes DNSSEC on in [dns] servers, or write \
                     dnssec = \"off\""
                );
                (Footing::Insecure(InsecureReason::ResolverStrips), Some(STRIPS_FOR))
            }
            Passes::NobodyKnows(what) => {
                tracing::warn!(error = %what, "the keys of the root zone could not be looked up; trying again");
                (Footing::Validated(self.validator(self.anchors.keys.clone())), Some(AGAIN))
            }
        };
        known.footing = Some((footing.clone(), again.map(|after| Instant::now() + after)));
        footing
    }

    /// Whether the root's keys validate with these anchors, and how soon to look again.
    async fn validated(&self, anchors: TrustAnchors) -> (Footing, Option<Duration>) {
        let validator = self.validator(anchors);
        let question = Query::query(Name::root(), RecordType::DNSKEY);
        let keys = validator.lookup(question, options(true)).first_answer().await;
        let keys = keys.iter().flat_map(|keys| &keys.answers).filter(|record| key(record).is_some());
        let proofs: Vec<Proof> = keys.map(|key| key.proof).collect();
        let good = !proofs.is_empty() && proofs.iter().all(Proof::is_secure);
        let footing = Footing::Validated(validator);
        if good {
            self.has_validated.store(true, Ordering::Relaxed);
            return (footing, (!self.anchors.digests.is_empty()).then_some(KEYS_FOR));
        }
        self.transport.forget();
        tracing::warn!(
            clock = %jiff::Timestamp::now(),
            "the keys of the root zone do not validate, and so nothing does: the trust anchor is not this root's, \
             or this machine's clock is wrong, or someone forges answers; mail waits until it is corrected"
        );
        (footing, Some(AGAIN))
    }

    fn validator(&self, anchors: TrustAnchors) -> Arc<Validator> {
        let none = Duration::ZERO..=Duration::ZERO;
        let validator = DnssecDnsHandle::with_trust_anchor(self.transport.clone(), Arc::new(anchors))
            .validation_cache_size(VALIDATIONS)
            // A failure is found anew each time: what it was made of may have been replaced since.
            .negative_validation_ttl(none);
        Arc::new(validator)
    }
}

enum Passes {
    Yes,
    No(String),
    NobodyKnows(String),
}

/// Whether an answer about the root's keys shows that DNSSEC is passed on.
fn passes_dnssec(shown: &Result<DnsResponse, NetError>) -> Passes {
    match shown {
        Ok(response) if response.answers.iter().any(|record| record.record_type() == RecordType::RRSIG) => Passes::Yes,
        Ok(_) => Passes::No("the root's keys without their signatures".to_owned()),
        Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Passes::No("no keys of the root".to_owned()),
        Err(NetError::Dns(DnsError::ResponseCode(
            code @ (ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr),
        ))) => Passes::No(code.to_string()),
        Err(error) => Passes::NobodyKnows(error.to_string()),
    }
}

fn key(record: &Record) -> Option<&DNSKEY> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key),
        _ => None,
    }
}

/// A question as it goes out; with `dnssec`, signatures and the AD bit are asked for.
pub(super) fn request(name: Name, kind: RecordType, dnssec: bool) -> DnsRequest {
    let mut request = DnsRequest::from_query(Query::query(name, kind), options(dnssec));
    request.metadata.authentic_data = dnssec;
    request
}

pub(super) fn options(dnssec: bool) -> DnsRequestOptions {
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    options.recursion_desired = true;
    options.edns_set_dnssec_ok = dnssec;
    options
}
