//! One attempt: hop after hop, address after address, until every recipient has a result.

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

/// A handshake may take this part of the time for one address: a first and a second one may go by in silence, and time
/// is left for a connection in the clear.
const HANDSHAKE_PART: u32 = 3;
/// Addresses of one attempt at which the peer put the message off, at most, for a recipient for whom it did: what one
/// host greylists is not sent to ten others. Who was not reached, or not let near the message, has not put it off.
const PUT_OFF_MAX: usize = 2;

/// One attempt on its way.
struct Delivery<'a> {
    outbound: &'a Outbound,
    snapshot: &'a Snapshot,
    attempt: &'a Attempt,
    connector: &'a Arc<Connector>,
    limit: &'a AttemptLimit,
    ledger: Ledger,
    /// The peer at hand.
    peer: Option<String>,
    dials: Dials,
    /// Addresses at which the peer put the message off, and how many of them there were before the one at hand.
    put_off: usize,
    put_off_before: usize,
    /// Those whom a connection to the hop at hand had no room for, where it is spent: the next one there is for
    /// them alone.
    rest: Vec<usize>,
}

/// One hop, and on which terms it may have the message.
#[derive(Clone, Copy)]
struct Stop<'a> {
    hop: &'a Hop,
    terms: &'a Terms,
    found: &'a HopLookup,
    /// How many further hops there are.
    left: usize,
}

/// What came of a connection.
enum Used {
    /// There is none, or none that is still alive: nothing was tried.
    Nothing,
    /// The message was tried on it.
    Tried,
    /// It has carried as many messages as it may, and recipients are left who belong into a further transaction.
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
        // In this order: what a peer has answered is entered before the attempt can be ended.
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

    /// Defers whoever has no result yet: the attempt came to no end by itself.
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
    /// Why nobody there was spoken to.
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

    /// Finds out what must be known of a hop. In an attempt that may be the last, a policy of the domain's that is
    /// out of date must not be what the message fails under (RFC 8461 §5.1).
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

    /// Enters that a hop was not spoken to.
    fn unused(&mut self, hop: &Hop, failure: Failure, more: bool) {
        tracing::debug!(
            queue_id = %self.attempt.entry.id, connector = %self.connector.name, host = %hop.host,
            reason = %failure, "the hop cannot be used"
        );
        let further = Further::after(&failure, more);
        self.ledger.fail_all(failure.with_peer(hop.to_string()), further);
    }

    /// The address at which the hop is this relay, where it is. A smart host was named by the administrator.
    fn own_address(&self, hop: &Hop, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        let router = &self.snapshot.router;
        addresses.iter().copied().find(|address| hop.smart_host().is_none() && router.is_own_address(*address))
    }

    /// A refusal that would bounce the message, or hold it, is held against what the domain publishes now: a policy
    /// of its own that is out of date must not do that (RFC 8461 §5.1).
    async fn final_word(&self, failure: Failure, found: &HopLookup) -> Failure {
        let ends = match &failure.cause {
            Cause::Policy(refusal) => {
                let ends = match self.connector.outbound.on_failure {
                    OnFailure::Defer => false,
                    OnFailure::Bounce => true,
                    // Who waits at the end of its time would bounce. The policy was looked for just now.
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
            Recheck::Unknown(why) => format!("whether its MTA-STS policy still says so cannot be found out: {why}"),
        };
        let passing = Failure::discovery(failure.status, format!("{failure}; {now}"));
        Failure { peer: failure.peer, scope: failure.scope, ..passing }
    }

    /// What is remembered of the domain and a hop of it.
    fn memory<'h>(&self, hop: &'h Hop) -> Memory<'h>
    where
        Self: 'h,
    {
        let Outbound { discovery, monitor, .. } = self.outbound;
        Memory { history: discovery.history(), monitor, attempt: self.attempt, hop }
    }

    /// Tries the message on a connection that waits for work.
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
            // It may have been opened for another domain, of which other things are remembered.
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

    /// Tries the message at one address after the other.
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
            // Each connection that is spent has carried the message for somebody.
            while let Used::Spent = match self.dial_in_time(&target, *address, further).await {
                Ok(mut connection) => {
                    let more = further > 0 && !self.dials.is_spent();
                    let was = memory.cleared(self.connector, &connection.via().clearance);
                    connection.is_less_than(was);
                    seen.cleared(*address, &connection.via().clearance);
                    let promise = terms.promise(&mut connection, &hop.host);
                    // A connection that was never used cannot have been given up.
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

    /// Leads one address to a cleared connection, in its part of the time that is left: with `further` addresses and
    /// hops after it, those that hang must not keep the others from being tried.
    async fn dial_in_time(
        &mut self,
        target: &Target<'_>,
        address: SocketAddr,
        further: usize,
    ) -> Result<Cleared, Failure> {
        let (peer, time) = (target.peer(address).text, self.limit.part(further + 1));
        self.peer = Some(peer.clone());
        // Two handshakes that the peer swallows leave time for what follows them.
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

    /// Hands the message over on one connection, in as many transactions as the peer wants. The connection is
    /// kept for the next message only where nothing is left to do for this one: whoever is dialled next would
    /// be one connection more than there may be.
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
            // A peer that does not answer to QUIT is not waited for long.
            let _ = connection.quit().await;
        } else if connection.is_reusable(most) {
            self.outbound.pool.put(destination.clone(), connection);
        } else {
            self.outbound.pool.quit(destination.clone(), connection);
        }
        self.rest = recipients;
        if self.rest.is_empty() { Used::Tried } else { Used::Spent }
    }

    /// The recipients that this peer can take; the others, or all, fail here without a word to it.
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

    /// A message that this peer cannot take: the next one may, and when there is none it is final.
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

    /// The peer took some recipients and ended the session before the rest could be named.
    fn cut_short(&mut self, rest: &[usize], connection: &Cleared, more: bool) {
        let text = "the peer ended the session before the remaining recipients could be named";
        let failure = Failure::transient(Scope::Hop, Status(5, 3), text).with_peer(connection.via().peer.as_str());
        self.ledger.fail(rest, failure, Some(connection.via()), Further::hop_if(more));
    }
}
