//! `gatepost probe`: what a delivery would meet at each hop, without a message.
//!
//! It goes a delivery's way: [`Plan`] says what a hop must show, a `Target` dials it and asks the judge, and
//! the ledger says what would become of a recipient. But of a `Target` it has only `look`, which hands out
//! notes and no connection: nothing here could write MAIL. Nothing is noted in the downgrade memory.

use std::net::SocketAddr;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;

use crate::address::Host;
use crate::config::Connector;
use crate::discovery::{Discovery, HopLookup, KnownPolicies};
use crate::envelope::TlsRequirement;
use crate::failure::{Failure, RecipientOutcome};
use crate::handshake::{KnownHellos, SentCertificate};
use crate::monitor::Monitor;
use crate::route::{Hop, Hops};
use crate::smtp::client::Extensions;
use crate::tls::{self, Authentication, Clearance, Demand, PeerCertificate, TlsFacts, TlsOutcome, TlsPolicy, Unmet};
use crate::tls::{TlsaUsage, Verify};

use super::Snapshot;
use super::dial::{Errand, Target, reference};
pub use super::look::FirstTry;
use super::look::Look;
use super::plan::{Plan, Purpose};
use super::second_try::Dials;
use super::settle::{Further, Ledger};

/// Hops that are looked at side by side; the addresses of each come one after the other.
const AT_A_TIME: usize = 4;

/// What is probed.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The recipient domain.
    pub recipient: &'a Host,
    /// The connector whose demands are tried on it.
    pub connector: &'a Connector,
}

/// What came of it.
#[derive(Debug)]
pub struct Probe {
    /// The hops in the order of a delivery, or why there are none.
    pub hops: Result<Vec<ProbedHop>, Failure>,
    /// What would become of a message.
    pub prospect: Prospect,
}

/// What would become of a message with an ordinary envelope, today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prospect {
    /// This host would be spoken to of it.
    GoesOn {
        /// `mx.example.org [192.0.2.1]:25`.
        peer: String,
        /// Under which clearance.
        clearance: Clearance,
    },
    /// It would wait.
    Deferred(Failure),
    /// It would wait for an operator.
    Held(Failure),
    /// It would go back.
    Bounced(Failure),
}

/// One hop.
#[derive(Debug)]
pub struct ProbedHop {
    /// Which.
    pub hop: Hop,
    /// What was seen there, or why nobody could be dialled.
    pub seen: Result<Seen, Failure>,
}

/// What was seen of a hop.
#[derive(Debug)]
pub struct Seen {
    /// What it must show, by every layer.
    pub policy: TlsPolicy,
    /// What that follows from.
    pub found: HopLookup,
    /// Why no handshake would do, where that is so: a delivery would not dial it.
    pub unmeetable: Option<Failure>,
    /// Its addresses, in order.
    pub addresses: Vec<Sighting>,
}

/// One address of a hop.
#[derive(Debug)]
pub struct Sighting {
    /// Where.
    pub address: SocketAddr,
    /// `mx.example.org [192.0.2.1]:25`.
    pub peer: String,
    /// The handshake that was cut short before; the rest is about the second try.
    pub first_try: Option<FirstTry>,
    /// What the session reached; nothing where it failed before TLS was decided on, and `end` tells why.
    pub outcome: Option<TlsOutcome>,
    /// Each demand with its verdict, where there are demands and an outcome.
    pub verdicts: Vec<(Demand, Result<Authentication, Unmet>)>,
    /// The chain as it was sent, leaf first; of a long one the beginning.
    pub chain: Vec<SentCertificate>,
    /// What the peer offers; nothing where it was not heard.
    pub extensions: Option<Extensions>,
    /// The judge's leave for mail, or the failure that a delivery would meet.
    pub end: Result<Clearance, Failure>,
}

impl Sighting {
    /// The facts of the handshake, where one was completed and counts.
    #[must_use]
    pub fn facts(&self) -> Option<&TlsFacts> {
        match &self.outcome {
            Some(TlsOutcome::Tls(facts)) => Some(facts),
            Some(TlsOutcome::Clear(_)) | None => None,
        }
    }

    /// Whether a demand hangs on the dates of the chain, so that it breaks when a certificate expires. Pins
    /// and DANE-EE records know no dates (RFC 7671 §5.1).
    #[must_use]
    pub fn dates_count(&self) -> bool {
        self.verdicts.iter().any(|(demand, verdict)| match (&demand.verify, verdict) {
            (Verify::Chain | Verify::Name(_) | Verify::Published(_), _) => true,
            (Verify::Dane(_), Ok(Authentication::Dane { record, .. })) => record.usage == TlsaUsage::TrustAnchor,
            (Verify::Dane(set), _) => set.records.iter().all(|record| record.usage == TlsaUsage::TrustAnchor),
            (Verify::None | Verify::Pin(_) | Verify::Impossible(_), _) => false,
        })
    }

    /// The next time at which a certificate of the chain expires that a demand hangs on, and whose it is.
    #[must_use]
    pub fn breaks_at(&self, now: Timestamp) -> Option<(Timestamp, &str)> {
        if !self.dates_count() {
            return None;
        }
        let readable = self.chain.iter().filter_map(|sent| match sent {
            SentCertificate::Readable(certificate) => Some((certificate.not_after, certificate.subject.as_str())),
            SentCertificate::Malformed => None,
        });
        readable.filter(|(not_after, _)| *not_after > now).min_by_key(|(not_after, _)| *not_after)
    }

    fn new(look: Look, policy: &TlsPolicy, hop: &Hop) -> Self {
        let Look { address, peer, notes, end } = look;
        let verdicts = match (policy, &notes.outcome) {
            (TlsPolicy::Forced(demands), Some(outcome)) => tls::judge_each(demands, outcome, &reference(&hop.host))
                .into_iter()
                .map(|(demand, verdict)| (demand.clone(), verdict))
                .collect(),
            (TlsPolicy::Off | TlsPolicy::Opportunistic, _) | (TlsPolicy::Forced(_), None) => Vec::new(),
        };
        let chain = notes.seen.map(|seen| seen.certificates()).unwrap_or_default();
        let (first_try, outcome, extensions) = (notes.first_try, notes.outcome, notes.extensions);
        Self { address, peer, first_try, outcome, verdicts, chain, extensions, end }
    }
}

/// Whether a certificate was shown that stands under the connector's authorities, where one was shown.
#[must_use]
pub fn trusted(facts: &TlsFacts) -> Option<&Result<(), crate::tls::ChainFault>> {
    match &facts.certificate {
        PeerCertificate::Certificate(certificate) => Some(&certificate.chain),
        PeerCertificate::Nothing | PeerCertificate::Unproved(_) => None,
    }
}

/// Looks at every address of every hop, some at a time. It ends by itself: each step has the time limit that
/// it has in a delivery, and the number of hosts and addresses is bounded.
pub async fn probe<K: KnownPolicies>(snapshot: &Snapshot, discovery: &Discovery<K>, question: Question<'_>) -> Probe {
    let Question { recipient, connector } = question;
    let Hops { hops, basis } = match snapshot.router.hops(recipient, &connector.outbound.route).await {
        Ok(found) => found,
        Err(failure) => {
            let prospect = foretell(&[], Some(&failure), connector);
            return Probe { hops: Err(failure), prospect };
        }
    };
    let looking = hops.into_iter().map(|hop| {
        let basis = &basis;
        async move {
            let seen = look(snapshot, discovery, question, &hop, basis).await;
            ProbedHop { hop, seen }
        }
    });
    let hops: Vec<_> = stream::iter(looking).buffered(AT_A_TIME).collect().await;
    let prospect = foretell(&hops, None, connector);
    Probe { hops: Ok(hops), prospect }
}

async fn look<K: KnownPolicies>(
    snapshot: &Snapshot,
    discovery: &Discovery<K>,
    question: Question<'_>,
    hop: &Hop,
    basis: &crate::route::RouteBasis,
) -> Result<Seen, Failure> {
    let Question { recipient, connector } = question;
    let purpose = Purpose { recipient, connector, requirement: TlsRequirement::Ordinary };
    let plan = Plan::make(&snapshot.router, discovery, purpose, hop, basis)
        .await
        .map_err(|no_plan| Failure::from(no_plan).with_peer(hop.to_string()))?;
    let policy = plan.policy(purpose, hop);
    let unmeetable = tls::unmeetable(&policy).map(|refusal| Failure::policy(refusal).with_peer(hop.to_string()));
    let mut addresses = Vec::new();
    for address in &plan.addresses.addresses {
        // Each address is shown the usual ClientHello, whatever another one accepted.
        let (known, monitor) = (KnownHellos::default(), Monitor::default());
        let (errand, handshake) = (Errand::Look, snapshot.config.timeouts.handshake);
        let target =
            Target { snapshot, monitor: &monitor, connector, hop, policy: &policy, known: &known, errand, handshake };
        addresses.push(Sighting::new(target.look(*address).await, &policy, hop));
    }
    Ok(Seen { policy, found: plan.found, unmeetable, addresses })
}

/// What a delivery would make of it: the same ledger, fed in the same order.
fn foretell(hops: &[ProbedHop], lost: Option<&Failure>, connector: &Connector) -> Prospect {
    let mut ledger = Ledger::new(&[0], &[], connector.outbound.on_failure);
    if let Some(failure) = lost {
        ledger.fail_all(failure.clone(), Further::Nothing);
    }
    let (mut left, mut dials) = (hops.len(), Dials::new());
    for ProbedHop { seen, .. } in hops {
        left -= 1;
        if ledger.is_complete() {
            break;
        }
        ledger.hop();
        let seen = match seen {
            Ok(Seen { unmeetable: Some(failure), .. }) | Err(failure) => {
                ledger.fail_all(failure.clone(), Further::after(failure, left > 0));
                continue;
            }
            Ok(seen) => seen,
        };
        for (at, sighting) in seen.addresses.iter().enumerate() {
            if ledger.is_complete() {
                break;
            }
            dials.take();
            if sighting.first_try.is_some() {
                dials.take();
            }
            match &sighting.end {
                Ok(clearance) => {
                    return Prospect::GoesOn { peer: sighting.peer.clone(), clearance: clearance.clone() };
                }
                Err(failure) => {
                    let more = (left > 0 || at + 1 < seen.addresses.len()) && !dials.is_spent();
                    ledger.fail_all(failure.clone(), Further::after(failure, more));
                }
            }
        }
    }
    let unknown =
        || Failure::transient(crate::failure::Scope::Destination, crate::smtp::reply::Status(4, 0), "no host");
    match ledger.into_parts().0.pop().map(|result| result.outcome) {
        Some(RecipientOutcome::Deferred(failure)) => Prospect::Deferred(failure),
        Some(RecipientOutcome::Held(failure)) => Prospect::Held(failure),
        Some(RecipientOutcome::Bounced(failure)) => Prospect::Bounced(failure),
        // One recipient has one result, and nothing was handed over.
        Some(RecipientOutcome::Delivered(_)) | None => Prospect::Deferred(unknown()),
    }
}
