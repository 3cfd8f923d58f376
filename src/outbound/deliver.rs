//! One attempt: tries hop after hop, and address after address, until every recipient has an outcome.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Connector, OnFailure};
use crate::discovery::mta_sts::{MtaStsMode, PublishedPolicy, Recheck};
use crate::discovery::{HopLookup, MtaStsLookup};
use crate::failure::{Cause, Failure, RequireTlsUnmet, Scope};
use crate::route::{Hop, Hops, RouteBasis};
use crate::smtp::client::{Mail, Obstacle, RequireTlsUse};
use crate::smtp::reply::Status;
use crate::tls::{self, Layer};

use super::cleared::Cleared;
use super::dial::{Errand, Target};
use super::limit::{AttemptLimit, Ended};
use super::memory::Memory;
use super::plan::{NoPlan, Plan, Purpose};
use super::pool::Destination;
use super::requirement::Terms;
use super::second_try::Dials;
use super::seen::{self, Seen};
use super::settle::{Further, Ledger};
use super::watched::Undialled;
use super::{Attempt, Outbound, Report, Snapshot};

/// The part of an address's time that one handshake may use. After two handshakes without an answer, time is left for a
/// connection in the clear.
const HANDSHAKE_PART: u32 = 3;
/// The number of addresses at which a recipient may be deferred in one attempt, so that a message that one host
/// greylists is not sent to ten others. Hosts that were not reached, or that the message was not sent to, do not count.
const PUT_OFF_MAX: usize = 2;

/// An attempt in progress.
struct Delivery<'a> {
    outbound: &'a Outbound,
    snapshot: &'a Snapshot,
    attempt: &'a Attempt,
    connector: &'a Arc<Connector>,
    limit: &'a AttemptLimit,
    ledger: Ledger,
    /// The peer that is being tried.
    peer: Option<String>,
    dials: Dials,
    /// The number of addresses at which the peer deferred the message, now and before the current address.
    put_off: usize,
    put_off_before: usize,
    /// The recipients that remain after a connection carried its last transaction; the next connection to the same hop
    /// is for them alone.
    rest: Vec<usize>,
}

/// A hop with the TLS terms on which it may receive the message.
#[derive(Clone, Copy)]
struct Stop<'a> {
    hop: &'a Hop,
    terms: &'a Terms,
    found: &'a HopLookup,
    /// The number of hops after this one.
    left: usize,
}

/// The use that was made of a connection.
enum Used {
    /// No connection was available, or the peer had closed it. Nothing was tried.
    Nothing,
    /// The message was tried on it.
    Tried,
    /// The connection has carried as many messages as it may, and recipients remain for a further transaction.
    Spent,
}

/// Makes one attempt. Its policy, trust and limits come from `snapshot` alone.
pub(super) async fn deliver(
    outbound: &Outbound,
    snapshot: Arc<Snapshot>,
    attempt: &Attempt,
    limit: &AttemptLimit,
) -> Report {
    let connector = snapshot.connectors.for_host(&attempt.host);
    let mut delivery = Delivery {
        outbound,
        snapshot: &snapshot,
        attempt,
        connector,
        limit,
        ledger: Ledger::new(&attempt.recipients, &attempt.apart, connector.outbound.on_failure),
        peer: None,
        dials: Dials::new(),
        put_off: 0,
        put_off_before: 0,
        rest: Vec::new(),
    };
    let ended = tokio::select! {
        // `biased`: a reply that has arrived is recorded before the attempt can be ended.
        biased;
        () = delivery.run() => None,
        ended = limit.over() => Some(ended),
    };
    if let Some(ended) = ended {
        delivery.ended(ended);
    }
    let connector = Arc::clone(delivery.connector);
    let (results, trail) = delivery.ledger.into_parts();
    Report { results, trail, connector, snapshot }
}

impl Delivery<'_> {
    async fn run(&mut self) {
        let route = &self.connector.outbound.route;
        match self.snapshot.router.hops(&self.attempt.host, route).await {
            Ok(found) => self.hops(found).await,
            Err(failure) => self.ledger.fail_all(failure, Further::Nothing),
        }
    }

    /// Defers the recipients without an outcome: the attempt was ended from outside.
    fn ended(&mut self, ended: Ended) {
        self.outbound.monitor.attempt_ended(ended.word());
        let failure = Failure::transient(Scope::Destination, Status(4, 2), ended.to_string());
        self.ledger.fail_all(Failure { peer: self.peer.take(), ..failure }, Further::Nothing);
    }

    async fn hops(&mut self, mut found: Hops) {
        self.outbound.pool.prefer(self.snapshot.generation(), self.connector, &mut found.hops);
        let mut hops = found.hops.iter();
        while let Some(hop) = hops.next() {
            let left = hops.len();
            self.ledger.hop();
            if let Err(failure) = self.hop(hop, &found, left).await {
                self.unused(hop, failure, left > 0);
            }
            if self.ledger.is_complete() {
                return;
            }
        }
    }

    /// Tries the message at one hop.
    ///
    /// # Errors
    /// The [`Failure`] for which no connection to the hop was tried.
    async fn hop(&mut self, hop: &Hop, hops: &Hops, left: usize) -> Result<(), Failure> {
        self.peer = Some(hop.to_string());
        let envelope = &self.attempt.entry.envelope;
        let purpose = Purpose { recipient: &self.attempt.host, connector: self.connector, requirement: envelope.tls };
        let plan = match self.plan(purpose, hop, &hops.basis).await {
            Ok(plan) => plan,
            Err(no_plan) => {
                seen::without_plan(&self.outbound.reporter, self.attempt, hop, &no_plan);
                return Err(no_plan.into());
            }
        };
        if let Some(address) = self.own_address(hop, &plan.addresses.addresses) {
            return Err(hops.own_address_failure(hop, address, &self.attempt.host));
        }
        let terms = Terms::new(envelope, |requirement| plan.policy(Purpose { requirement, ..purpose }, hop));
        self.ledger.demands(terms.policy());
        if let Some(failure) = terms.refused() {
            return Err(failure);
        }
        if let Some(refusal) = tls::unmeetable(terms.policy()) {
            let undialled = Undialled { attempt: self.attempt, connector: self.connector, hop };
            undialled.warn(&self.outbound.monitor, terms.policy(), &refusal);
            let seen = Seen { reporter: &self.outbound.reporter, attempt: self.attempt, hop, found: &plan.found };
            seen.failed(None, &Failure::policy(refusal.clone()));
            return Err(self.final_word(terms.named(Failure::policy(refusal)), &plan.found).await);
        }
        let stop = Stop { hop, terms: &terms, found: &plan.found, left };
        if let Used::Nothing = self.reuse(&stop).await {
            self.dial(&stop, &plan.addresses.addresses).await;
        }
        Ok(())
    }

    /// Plans one hop. If this may be the last attempt, an enforced MTA-STS policy is fetched again first, so that no
    /// message bounces because of an outdated policy (RFC 8461 §5.1).
    async fn plan(&self, purpose: Purpose<'_>, hop: &Hop, basis: &RouteBasis) -> Result<Plan, NoPlan> {
        let (router, discovery) = (&self.snapshot.router, &self.outbound.discovery);
        let plan = Plan::make(router, discovery, purpose, hop, basis).await?;
        let MtaStsLookup::Done(PublishedPolicy::Policy(policy)) = &plan.found.published else { return Ok(plan) };
        if !self.attempt.may_be_last || policy.mode() != MtaStsMode::Enforce {
            return Ok(plan);
        }
        match discovery.mta_sts().recheck(policy).await {
            Recheck::Changed(_) => Plan::make(router, discovery, purpose, hop, basis).await,
            Recheck::Confirmed | Recheck::Unknown(_) => Ok(plan),
        }
    }

    /// Records that a hop was not connected to.
    fn unused(&mut self, hop: &Hop, failure: Failure, more: bool) {
        tracing::debug!(
            queue_id = %self.attempt.entry.id, connector = %self.connector.name, host = %hop.host,
            reason = %failure, "the hop cannot be used"
        );
        let further = Further::after(&failure, more);
        self.ledger.fail_all(failure.with_peer(hop.to_string()), further);
    }

    /// Returns the hop's address that is one of this relay's own, if there is one. A smart host is exempt: the
    /// administrator named it.
    fn own_address(&self, hop: &Hop, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        let router = &self.snapshot.router;
        addresses.iter().copied().find(|address| hop.smart_host().is_none() && router.is_own_address(*address))
    }

    /// Fetches the domain's MTA-STS policy again if a refusal under it would bounce or hold the message. A policy that
    /// has changed, or cannot be fetched, turns it into a temporary failure (RFC 8461 §5.1).
    async fn final_word(&self, failure: Failure, found: &HopLookup) -> Failure {
        let ends = match &failure.cause {
            Cause::Policy(refusal) => {
                let ends = match self.connector.outbound.on_failure {
                    OnFailure::Defer => false,
                    OnFailure::Bounce => true,
                    // A held message that expires bounces. In a last attempt `plan` has fetched the policy just now.
                    OnFailure::Hold => !self.attempt.may_be_last,
                };
                refusal.demand.layer == Layer::MtaSts && ends
            }
            Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => refusal.demand.layer == Layer::MtaSts,
            Cause::RequireTls(RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)
            | Cause::Reply { .. }
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => false,
        };
        if !ends {
            return failure;
        }
        let MtaStsLookup::Done(PublishedPolicy::Policy(policy)) = &found.published else { return failure };
        let now = match self.outbound.discovery.mta_sts().recheck(policy).await {
            Recheck::Confirmed => return failure,
            Recheck::Changed(_) => "the domain has changed its MTA-STS policy meanwhile".to_owned(),
            Recheck::Unknown(why) => format!("cannot fetch its MTA-STS policy again: {why}"),
        };
        let passing = Failure::discovery(failure.status, format!("{failure}; {now}"));
        Failure { peer: failure.peer, scope: failure.scope, ..passing }
    }

    /// The downgrade memory for the domain and one of its hops.
    fn memory<'h>(&self, hop: &'h Hop) -> Memory<'h>
    where
        Self: 'h,
    {
        let Outbound { discovery, monitor, .. } = self.outbound;
        Memory { history: discovery.history(), monitor, attempt: self.attempt, hop }
    }

    /// Tries the message on idle connections.
    async fn reuse(&mut self, stop: &Stop<'_>) -> Used {
        let Stop { hop, terms, left, .. } = *stop;
        let destination = Destination::new(self.snapshot.generation(), self.connector, hop);
        let memory = self.memory(hop);
        self.put_off_before = self.put_off;
        while let Some(mut connection) = self.outbound.pool.take(&destination) {
            if !connection.is_quiet().await || !terms.admit(&mut connection, &hop.host) {
                self.outbound.pool.quit(destination.clone(), connection);
                continue;
            }
            // The connection may have been opened for another domain, which has another history.
            let was = memory.cleared(self.connector, &connection.via().clearance);
            connection.is_less_than(was);
            let promise = terms.promise(&mut connection, &hop.host);
            match self.on(connection, &destination, promise, left > 0).await {
                Used::Tried => return Used::Tried,
                Used::Nothing | Used::Spent => {}
            }
        }
        Used::Nothing
    }

    /// Tries the message at one address after another.
    async fn dial(&mut self, stop: &Stop<'_>, addresses: &[SocketAddr]) {
        let Stop { hop, terms, found, left } = *stop;
        let destination = Destination::new(self.snapshot.generation(), self.connector, hop);
        self.outbound.pool.room(&destination).await;
        let queue_id = self.attempt.entry.id;
        let errand = Errand::Mail(queue_id, terms.needed_handshake());
        let known = &self.outbound.hellos;
        let (policy, handshake) = (terms.policy(), self.snapshot.config.timeouts.handshake);
        let (snapshot, monitor) = (self.snapshot, &self.outbound.monitor);
        let target = Target { snapshot, monitor, connector: self.connector, hop, policy, known, errand, handshake };
        let memory = self.memory(hop);
        let seen = Seen { reporter: &self.outbound.reporter, attempt: self.attempt, hop, found };
        for (at, address) in addresses.iter().enumerate() {
            self.dials.take();
            self.put_off_before = self.put_off;
            let further = addresses.len() - at - 1 + left;
            // The loop ends: each connection that reached its limit has carried the message for at least one recipient.
            while let Used::Spent = match self.dial_in_time(&target, *address, further).await {
                Ok(mut connection) => {
                    let more = further > 0 && !self.dials.is_spent();
                    let was = memory.cleared(self.connector, &connection.via().clearance);
                    connection.is_less_than(was);
                    seen.cleared(*address, &connection.via().clearance);
                    let promise = terms.promise(&mut connection, &hop.host);
                    // A new connection is not idle, so the result here is never `Nothing`.
                    self.on(connection, &destination, promise, more).await
                }
                Err(failure) => {
                    let more = further > 0 && !self.dials.is_spent();
                    memory.failed(&failure);
                    seen.failed(Some(*address), &failure);
                    let failure = self.final_word(terms.named(failure), found).await;
                    tracing::debug!(
                        %queue_id, connector = %self.connector.name, host = %hop.host,
                        %address, reason = %failure, "the hop cannot be used"
                    );
                    let further = Further::after(&failure, more);
                    match std::mem::take(&mut self.rest) {
                        rest if rest.is_empty() => self.ledger.fail_all(failure, further),
                        rest => self.ledger.fail(&rest, failure, None, further),
                    }
                    Used::Nothing
                }
            } {}
            if self.ledger.is_complete() {
                return;
            }
        }
    }

    /// Dials one address within its share of the remaining time, so that an address that hangs does not keep the
    /// `further` addresses and hops from being tried.
    async fn dial_in_time(
        &mut self,
        target: &Target<'_>,
        address: SocketAddr,
        further: usize,
    ) -> Result<Cleared, Failure> {
        let (peer, time) = (target.peer(address).text, self.limit.part(further + 1));
        self.peer = Some(peer.clone());
        // Two handshakes without an answer leave time for a connection in the clear.
        let target = Target { handshake: target.handshake.min(time / HANDSHAKE_PART), ..*target };
        if further == 0 {
            return target.dial(address, &mut self.dials).await;
        }
        if let Ok(dialled) = tokio::time::timeout(time, target.dial(address, &mut self.dials)).await {
            return dialled;
        }
        let text = format!(
            "no session within {} s, its part of [limits] delivery_attempt_time among all addresses",
            time.as_secs().max(1)
        );
        Err(Failure::transient(Scope::Hop, Status(4, 2), text).with_peer(peer))
    }

    /// Sends the message on one connection, in as many transactions as the peer needs. The connection is kept for the
    /// next message only if all recipients have an outcome: otherwise the next hop's connection would exceed the
    /// destination's concurrency.
    async fn on(
        &mut self,
        mut connection: Cleared,
        destination: &Destination,
        promise: RequireTlsUse,
        more: bool,
    ) -> Used {
        let entry = &*self.attempt.entry;
        let timeouts = self.snapshot.config.timeouts;
        let most = self.connector.outbound.messages_per_connection;
        let further = Further::hop_if(more);
        self.peer = Some(connection.via().peer.clone());
        let mut recipients = self.fitting(&connection, promise, more);
        let mut apart = self.ledger.take_apart(&mut recipients);
        if recipients.is_empty() {
            recipients.extend(apart.pop());
        }
        while !recipients.is_empty() {
            let mail = Mail { envelope: &entry.envelope, size: entry.size, recipients: &recipients, promise };
            let handed = connection.hand_over(mail, &entry.body, &timeouts, self.limit).await;
            if handed.was_stale {
                return Used::Nothing;
            }
            self.rest.clear();
            let reusable = handed.results.reusable;
            tracing::debug!(
                queue_id = %entry.id, connector = %self.connector.name, peer = %connection.via().peer,
                ending = ?handed.results.ending, "transaction over"
            );
            self.put_off = self.put_off.max(self.put_off_before + usize::from(handed.is_put_off()));
            let answered = Further::hop_if(more && self.put_off < PUT_OFF_MAX);
            recipients = self.ledger.settle(&recipients, handed, connection.via(), answered, further);
            if !reusable {
                recipients.append(&mut apart);
                self.cut_short(&recipients, &connection, more);
                return Used::Tried;
            }
            if recipients.is_empty() {
                recipients.extend(apart.pop());
            }
            if connection.is_spent(most) {
                break;
            }
        }
        recipients.append(&mut apart);
        if !self.ledger.is_complete() {
            // The wait is short even if the peer does not answer QUIT.
            let _ = connection.quit().await;
        } else if connection.is_reusable(most) {
            self.outbound.pool.put(destination.clone(), connection);
        } else {
            self.outbound.pool.quit(destination.clone(), connection);
        }
        self.rest = recipients;
        if self.rest.is_empty() { Used::Tried } else { Used::Spent }
    }

    /// Returns the recipients that this peer can receive. The others fail without a command to the peer.
    fn fitting(&mut self, connection: &Cleared, promise: RequireTlsUse, more: bool) -> Vec<usize> {
        let envelope = &self.attempt.entry.envelope;
        let extensions = connection.extensions();
        let everybody = if self.rest.is_empty() { self.ledger.open() } else { self.rest.clone() };
        let mail = Mail { envelope, size: self.attempt.entry.size, recipients: &everybody, promise };
        if let Err(obstacle) = mail.fits(extensions) {
            self.obstructed(&everybody, obstacle, connection, more);
            return Vec::new();
        }
        let fits = |at: &usize| Mail::recipient_fits(&envelope.recipients[*at], extensions).is_ok();
        let (able, unable): (Vec<usize>, Vec<usize>) = everybody.into_iter().partition(fits);
        self.obstructed(&unable, Obstacle::NeedsSmtputf8, connection, more);
        able
    }

    /// Records that this peer cannot receive the message. The next hop may; if there is none, the failure is permanent.
    fn obstructed(&mut self, who: &[usize], obstacle: Obstacle, connection: &Cleared, more: bool) {
        let scope = if more { Scope::Hop } else { Scope::Message };
        let at = |status| Failure::permanent(scope, status, obstacle.to_string());
        let failure = match obstacle {
            Obstacle::TooLarge { .. } => at(Status(3, 4)),
            Obstacle::NeedsEightBitMime => at(Status(6, 3)),
            Obstacle::NeedsSmtputf8 => at(Status(6, 7)),
            Obstacle::NeedsRequireTls => Failure::require_tls(RequireTlsUnmet::NotOffered),
        };
        self.ledger.fail(
            who,
            failure.with_peer(connection.via().peer.as_str()),
            Some(connection.via()),
            Further::hop_if(more),
        );
    }

    /// Records that the peer ended the session after some recipients and before the others could be named.
    fn cut_short(&mut self, rest: &[usize], connection: &Cleared, more: bool) {
        let text = "the peer ended the session before the remaining recipients could be named";
        let failure = Failure::transient(Scope::Hop, Status(5, 3), text).with_peer(connection.via().peer.as_str());
        self.ledger.fail(rest, failure, Some(connection.via()), Further::hop_if(more));
    }
}
