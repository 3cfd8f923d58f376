//! One attempt: tries hop after hop, and address after address, until every recipient has an
//! outcome.

mod fitting;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Connector, OnFailure};
use crate::discovery::mta_sts::{MtaStsMode, PublishedPolicy, Recheck};
use crate::discovery::{HopLookup, MtaStsLookup};
use crate::net::route::{Hop, Hops, RouteBasis};
use crate::policy::failure::{Cause, Failure, RequireTlsUnmet, Scope};
use crate::policy::tls::{self, Layer};
use crate::smtp::client::{Mail, RequireTlsUse};
use crate::smtp::reply::Status;

use super::cleared::Cleared;
use super::dial::{DialPurpose, Target};
use super::downgrade::HopHistory;
use super::limit::{AttemptLimit, EndReason};
use super::metrics::Undialled;
use super::plan::{HopPlan, HopUnusable, MailContext};
use super::pool::PoolKey;
use super::recipients::{PendingRecipients, Remaining};
use super::requirement::MessageTlsTerms;
use super::second_try::DialBudget;
use super::tls_report::{self, SessionObserver};
use super::{Attempt, AttemptResult, Outbound, Snapshot};

/// The part of an address's time that one handshake may use. After two handshakes without an
/// answer, time is left for a connection in the clear.
const HANDSHAKE_SHARE: u32 = 3;
/// The number of addresses at which a recipient may be deferred in one attempt, so that a message
/// that one host greylists is not sent to ten others. Hosts that were not reached, or that the
/// message was not sent to, do not count.
const MAX_DEFERRALS: usize = 2;

/// An attempt in progress.
struct Delivery<'a> {
    outbound: &'a Outbound,
    snapshot: &'a Snapshot,
    attempt: &'a Attempt,
    connector: &'a Arc<Connector>,
    limit: &'a AttemptLimit,
    recipients: PendingRecipients,
    /// The peer that is being tried.
    peer: Option<String>,
    budget: DialBudget,
    /// The number of addresses at which the peer deferred the message, now and before the current
    /// address.
    deferrals: usize,
    deferrals_before: usize,
    /// The recipients that remain after a connection carried its last transaction; the next
    /// connection to the same hop is for them alone.
    overflow: Vec<usize>,
}

/// A hop with the TLS terms on which it may receive the message.
#[derive(Clone, Copy)]
struct HopAttempt<'a> {
    hop: &'a Hop,
    terms: &'a MessageTlsTerms,
    found: &'a HopLookup,
    /// The number of hops after this one.
    hops_left: usize,
}

/// The use that was made of a connection.
enum ConnectionUse {
    /// No connection was available, or the peer had closed it. Nothing was tried.
    NotTried,
    /// The message was tried on it.
    Tried,
    /// The connection has carried as many messages as it may, and recipients remain for a further
    /// transaction.
    Spent,
}

/// Makes one attempt. Its policy, trust and limits come from `snapshot` alone.
pub(super) async fn deliver(
    outbound: &Outbound,
    snapshot: Arc<Snapshot>,
    attempt: &Attempt,
    limit: &AttemptLimit,
) -> AttemptResult {
    let connector = snapshot.connectors.for_host(&attempt.host);
    let mut delivery = Delivery {
        outbound,
        snapshot: &snapshot,
        attempt,
        connector,
        limit,
        recipients: PendingRecipients::new(
            &attempt.recipients,
            &attempt.apart,
            connector.outbound.on_failure,
        ),
        peer: None,
        budget: DialBudget::new(),
        deferrals: 0,
        deferrals_before: 0,
        overflow: Vec::new(),
    };
    let ended = tokio::select! {
        // `biased`: a reply that has arrived is recorded before the attempt can be ended.
        biased;
        () = delivery.run() => None,
        ended = limit.wait_for_end() => Some(ended),
    };
    if let Some(ended) = ended {
        delivery.fail_ended(ended);
    }
    let connector = Arc::clone(delivery.connector);
    let (results, trail) = delivery.recipients.into_parts();
    AttemptResult {
        results,
        trail,
        connector,
        snapshot,
    }
}

impl Delivery<'_> {
    async fn run(&mut self) {
        let route = &self.connector.outbound.route;
        match self.snapshot.router.hops(&self.attempt.host, route).await {
            Ok(found) => self.try_hops(found).await,
            Err(failure) => self.recipients.fail_all(failure, Remaining::Useless),
        }
    }

    /// Defers the recipients without an outcome: the attempt was ended from outside.
    fn fail_ended(&mut self, ended: EndReason) {
        self.outbound.monitor.attempt_ended(ended.label());
        let failure = Failure::transient(Scope::Destination, Status(4, 2), ended.to_string());
        self.recipients.fail_all(
            Failure {
                peer: self.peer.take(),
                ..failure
            },
            Remaining::Useless,
        );
    }

    async fn try_hops(&mut self, mut found: Hops) {
        self.outbound
            .pool
            .prefer(self.snapshot.generation(), self.connector, &mut found.hops);
        let mut hops = found.hops.iter();
        while let Some(hop) = hops.next() {
            let hops_left = hops.len();
            self.recipients.begin_hop();
            if let Err(failure) = self.try_hop(hop, &found, hops_left).await {
                self.record_unusable(hop, failure, hops_left > 0);
            }
            if self.recipients.is_complete() {
                return;
            }
        }
    }

    /// Tries the message at one hop.
    ///
    /// # Errors
    /// The [`Failure`] for which no connection to the hop was tried.
    async fn try_hop(&mut self, hop: &Hop, hops: &Hops, hops_left: usize) -> Result<(), Failure> {
        self.peer = Some(hop.to_string());
        let envelope = &self.attempt.entry.envelope;
        let context = MailContext {
            recipient: &self.attempt.host,
            connector: self.connector,
            requirement: envelope.tls,
        };
        let plan = match self.plan(context, hop, &hops.basis).await {
            Ok(plan) => plan,
            Err(unusable) => {
                tls_report::observe_undialled(
                    &self.outbound.reporter,
                    self.attempt,
                    hop,
                    &unusable,
                );
                return Err(unusable.into());
            }
        };
        if let Some(address) = self.own_address(hop, &plan.addresses.addresses) {
            return Err(hops.own_address_failure(hop, address, &self.attempt.host));
        }
        let terms = MessageTlsTerms::new(envelope, |requirement| {
            plan.policy(
                MailContext {
                    requirement,
                    ..context
                },
                hop,
            )
        });
        self.recipients.set_policy(terms.policy());
        if let Some(failure) = terms.refusal() {
            return Err(failure);
        }
        if let Some(refusal) = tls::unmeetable(terms.policy()) {
            let undialled = Undialled {
                attempt: self.attempt,
                connector: self.connector,
                hop,
            };
            undialled.warn(&self.outbound.monitor, terms.policy(), &refusal);
            let observer = SessionObserver {
                reporter: &self.outbound.reporter,
                attempt: self.attempt,
                hop,
                found: &plan.found,
            };
            observer.observe_refused(None, &Failure::policy(refusal.clone()));
            return Err(self
                .recheck_refusal(terms.name_failure(Failure::policy(refusal)), &plan.found)
                .await);
        }
        let hop_attempt = HopAttempt {
            hop,
            terms: &terms,
            found: &plan.found,
            hops_left,
        };
        if let ConnectionUse::NotTried = self.reuse(&hop_attempt).await {
            self.dial(&hop_attempt, &plan.addresses.addresses).await;
        }
        Ok(())
    }

    /// Plans one hop. If this may be the last attempt, an enforced MTA-STS policy is fetched again
    /// first, so that no message bounces because of an outdated policy (RFC 8461 §5.1).
    async fn plan(
        &self,
        context: MailContext<'_>,
        hop: &Hop,
        basis: &RouteBasis,
    ) -> Result<HopPlan, HopUnusable> {
        let (router, discovery) = (&self.snapshot.router, &self.outbound.discovery);
        let plan = HopPlan::make(router, discovery, context, hop, basis).await?;
        let MtaStsLookup::Done(PublishedPolicy::Policy(policy)) = &plan.found.published else {
            return Ok(plan);
        };
        if !self.attempt.may_be_last || policy.mode() != MtaStsMode::Enforce {
            return Ok(plan);
        }
        match discovery.mta_sts().recheck(policy).await {
            Recheck::Changed(_) => HopPlan::make(router, discovery, context, hop, basis).await,
            Recheck::Confirmed | Recheck::Unknown(_) => Ok(plan),
        }
    }

    /// Records that a hop was not connected to.
    fn record_unusable(&mut self, hop: &Hop, failure: Failure, has_next: bool) {
        tracing::debug!(
            queue_id = %self.attempt.entry.id, connector = %self.connector.name, host = %hop.host,
            reason = %failure, "the hop cannot be used"
        );
        let remaining = Remaining::after(&failure, has_next);
        self.recipients
            .fail_all(failure.with_peer(hop.to_string()), remaining);
    }

    /// Returns the hop's address that is one of this relay's own, if there is one. A smart host is
    /// exempt: the administrator named it.
    fn own_address(&self, hop: &Hop, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        let router = &self.snapshot.router;
        addresses
            .iter()
            .copied()
            .find(|address| hop.smart_host().is_none() && router.is_own_address(*address))
    }

    /// Fetches the domain's MTA-STS policy again if a refusal under it would bounce or hold the
    /// message. A policy that has changed, or cannot be fetched, turns it into a temporary failure
    /// (RFC 8461 §5.1).
    async fn recheck_refusal(&self, failure: Failure, found: &HopLookup) -> Failure {
        let ends = match &failure.cause {
            Cause::Policy(refusal) => {
                let ends = match self.connector.outbound.on_failure {
                    OnFailure::Defer => false,
                    OnFailure::Bounce => true,
                    // A held message that expires bounces. In a last attempt `plan` has fetched the
                    // policy just now.
                    OnFailure::Hold => !self.attempt.may_be_last,
                };
                refusal.demand.layer == Layer::MtaSts && ends
            }
            Cause::RequireTls(RequireTlsUnmet::Session(refusal)) => {
                refusal.demand.layer == Layer::MtaSts
            }
            Cause::RequireTls(RequireTlsUnmet::Off | RequireTlsUnmet::NotOffered)
            | Cause::Reply { .. }
            | Cause::Ourselves(_)
            | Cause::Discovery(_)
            | Cause::Other(_) => false,
        };
        if !ends {
            return failure;
        }
        let MtaStsLookup::Done(PublishedPolicy::Policy(policy)) = &found.published else {
            return failure;
        };
        let now = match self.outbound.discovery.mta_sts().recheck(policy).await {
            Recheck::Confirmed => return failure,
            Recheck::Changed(_) => "the domain has changed its MTA-STS policy meanwhile".to_owned(),
            Recheck::Unknown(why) => format!("cannot fetch its MTA-STS policy again: {why}"),
        };
        let passing = Failure::discovery(failure.status, format!("{failure}; {now}"));
        Failure {
            peer: failure.peer,
            scope: failure.scope,
            ..passing
        }
    }

    /// The downgrade memory for the domain and one of its hops.
    fn memory<'h>(&self, hop: &'h Hop) -> HopHistory<'h>
    where
        Self: 'h,
    {
        let Outbound {
            discovery, monitor, ..
        } = self.outbound;
        HopHistory {
            history: discovery.history(),
            monitor,
            attempt: self.attempt,
            hop,
        }
    }

    /// Tries the message on idle connections.
    async fn reuse(&mut self, hop_attempt: &HopAttempt<'_>) -> ConnectionUse {
        let HopAttempt {
            hop,
            terms,
            hops_left,
            ..
        } = *hop_attempt;
        let key = PoolKey::new(self.snapshot.generation(), self.connector, hop);
        let memory = self.memory(hop);
        self.deferrals_before = self.deferrals;
        while let Some(mut connection) = self.outbound.pool.take(&key) {
            if !connection.is_quiet().await || !terms.admit(&mut connection, &hop.host) {
                self.outbound.pool.quit(key.clone(), connection);
                continue;
            }
            // The connection may have been opened for another domain, which has another history.
            let was = memory.record_cleared(self.connector, &connection.via().clearance);
            connection.set_earlier_level(was);
            let promise = terms.promise(&mut connection, &hop.host);
            match self.send_on(connection, &key, promise, hops_left > 0).await {
                ConnectionUse::Tried => return ConnectionUse::Tried,
                ConnectionUse::NotTried | ConnectionUse::Spent => {}
            }
        }
        ConnectionUse::NotTried
    }

    /// Tries the message at one address after another.
    async fn dial(&mut self, hop_attempt: &HopAttempt<'_>, addresses: &[SocketAddr]) {
        let HopAttempt {
            hop,
            terms,
            found,
            hops_left,
        } = *hop_attempt;
        let key = PoolKey::new(self.snapshot.generation(), self.connector, hop);
        self.outbound.pool.wait_for_closing(&key).await;
        let queue_id = self.attempt.entry.id;
        let purpose = DialPurpose::Mail(queue_id, terms.needed_handshake());
        let known = &self.outbound.hellos;
        let (policy, handshake) = (terms.policy(), self.snapshot.config.timeouts.handshake);
        let (snapshot, monitor) = (self.snapshot, &self.outbound.monitor);
        let target = Target {
            snapshot,
            monitor,
            connector: self.connector,
            hop,
            policy,
            known,
            purpose,
            handshake,
        };
        let memory = self.memory(hop);
        let observer = SessionObserver {
            reporter: &self.outbound.reporter,
            attempt: self.attempt,
            hop,
            found,
        };
        for (at, address) in addresses.iter().enumerate() {
            self.budget.take();
            self.deferrals_before = self.deferrals;
            let further = addresses.len() - at - 1 + hops_left;
            // The loop ends: each connection that reached its limit has carried the message for at
            // least one recipient.
            loop {
                let dialled = self.dial_in_time(&target, *address, further).await;
                let has_next = further > 0 && !self.budget.is_exhausted();
                match dialled {
                    Ok(mut connection) => {
                        let was =
                            memory.record_cleared(self.connector, &connection.via().clearance);
                        connection.set_earlier_level(was);
                        observer.observe_cleared(*address, &connection.via().clearance);
                        let promise = terms.promise(&mut connection, &hop.host);
                        let ConnectionUse::Spent =
                            self.send_on(connection, &key, promise, has_next).await
                        else {
                            break;
                        };
                    }
                    Err(failure) => {
                        memory.record_refused(&failure);
                        observer.observe_refused(Some(*address), &failure);
                        let failure = self
                            .recheck_refusal(terms.name_failure(failure), found)
                            .await;
                        tracing::debug!(
                            %queue_id, connector = %self.connector.name, host = %hop.host,
                            %address, reason = %failure, "the hop cannot be used"
                        );
                        let remaining = Remaining::after(&failure, has_next);
                        match std::mem::take(&mut self.overflow) {
                            overflow if overflow.is_empty() => {
                                self.recipients.fail_all(failure, remaining)
                            }
                            overflow => self.recipients.fail(&overflow, failure, None, remaining),
                        }
                        break;
                    }
                }
            }
            if self.recipients.is_complete() {
                return;
            }
        }
    }

    /// Dials one address within its share of the remaining time, so that an address that hangs does
    /// not keep the `further` addresses and hops from being tried.
    async fn dial_in_time(
        &mut self,
        target: &Target<'_>,
        address: SocketAddr,
        further: usize,
    ) -> Result<Cleared, Failure> {
        let (peer, time) = (target.peer(address).text, self.limit.share(further + 1));
        self.peer = Some(peer.clone());
        // Two handshakes without an answer leave time for a connection in the clear.
        let target = Target {
            handshake: target.handshake.min(time / HANDSHAKE_SHARE),
            ..*target
        };
        if further == 0 {
            return target.dial(address, &mut self.budget).await;
        }
        if let Ok(dialled) =
            tokio::time::timeout(time, target.dial(address, &mut self.budget)).await
        {
            return dialled;
        }
        let text = format!(
            "no session within {} s, its part of [limits] delivery_attempt_time among all addresses",
            time.as_secs().max(1)
        );
        Err(Failure::transient(Scope::Hop, Status(4, 2), text).with_peer(peer))
    }

    /// Sends the message on one connection, in as many transactions as the peer needs. The
    /// connection is kept for the next message only if all recipients have an outcome: otherwise
    /// the next hop's connection would exceed the destination's concurrency.
    async fn send_on(
        &mut self,
        mut connection: Cleared,
        key: &PoolKey,
        promise: RequireTlsUse,
        has_next: bool,
    ) -> ConnectionUse {
        let entry = &*self.attempt.entry;
        let timeouts = self.snapshot.config.timeouts;
        let most = self.connector.outbound.messages_per_connection;
        let unanswered = Remaining::hop_if(has_next);
        self.peer = Some(connection.via().peer.clone());
        let mut recipients = self.fitting_recipients(&connection, promise, has_next);
        let mut apart = self.recipients.take_separate(&mut recipients);
        if recipients.is_empty() {
            recipients.extend(apart.pop());
        }
        while !recipients.is_empty() {
            let mail = Mail {
                envelope: &entry.envelope,
                size: entry.size,
                recipients: &recipients,
                promise,
            };
            let sent = connection
                .send(mail, &entry.body, &timeouts, self.limit)
                .await;
            if sent.was_stale {
                return ConnectionUse::NotTried;
            }
            self.overflow.clear();
            let reusable = sent.results.reusable;
            tracing::debug!(
                queue_id = %entry.id, connector = %self.connector.name, peer = %connection.via().peer,
                ending = ?sent.results.ending, "transaction over"
            );
            self.deferrals = self
                .deferrals
                .max(self.deferrals_before + usize::from(sent.is_deferred()));
            let answered = Remaining::hop_if(has_next && self.deferrals < MAX_DEFERRALS);
            recipients = self.recipients.record_transaction(
                &recipients,
                sent,
                connection.via(),
                answered,
                unanswered,
            );
            if !reusable {
                recipients.append(&mut apart);
                self.fail_unnamed(&recipients, &connection, has_next);
                return ConnectionUse::Tried;
            }
            if recipients.is_empty() {
                recipients.extend(apart.pop());
            }
            if connection.has_reached_limit(most) {
                break;
            }
        }
        recipients.append(&mut apart);
        if !self.recipients.is_complete() {
            // The wait is short even if the peer does not answer QUIT.
            let _ = connection.quit().await;
        } else if connection.is_reusable(most) {
            self.outbound.pool.put(key.clone(), connection);
        } else {
            self.outbound.pool.quit(key.clone(), connection);
        }
        self.overflow = recipients;
        if self.overflow.is_empty() {
            ConnectionUse::Tried
        } else {
            ConnectionUse::Spent
        }
    }
}
