//! One attempt: tries hop after hop, and address after address, until every recipient has an
//! outcome.

mod fitting;

use std::sync::Arc;

use crate::config::Connector;
use crate::discovery::{Discovery, HopLookup};
use crate::net::route::{Hop, Hops};
use crate::net::tls_io::KnownHellos;
use crate::policy::failure::{FailedHost, Failure, HopAddress, Scope};
use crate::policy::tls;
use crate::relay::running_config::Snapshot;
use crate::smtp::client::{Mail, RequireTlsUse};
use crate::smtp::reply::Status;
use crate::telemetry::Monitor;

use super::attempt::{Attempt, AttemptResult};
use super::chunk_memory::ChunkMemory;
use super::cleared::{ChunkResult, Cleared, SendResult};
use super::dial_record::DialRecord;
use super::hellos::DialBudget;
use super::limit::{AttemptEndReason, AttemptLimit};
use super::observe::{Observers, SessionOutcome, SessionSteps};
use super::plan::MailContext;
use super::pool::{Pool, PoolKey};
use super::recheck::PolicyRecheck;
use super::recipients::{MAY_BE_DELIVERED, PendingRecipients, Remaining};
use super::requirement::MessageTlsTerms;
use super::session_watch::{Dialling, ObservedSession, SessionWatch};
use super::target::{DialPurpose, Target};

/// One handshake may use an address's time divided by this. After two handshakes without an answer,
/// time is left for a connection in the clear.
const HANDSHAKE_SHARE: u32 = 3;
/// The number of addresses at which a recipient may be deferred in one attempt, so that a message
/// that one host greylists is not sent to ten others. Hosts that were not reached, or that the
/// message was not sent to, do not count.
const MAX_DEFERRALS: usize = 2;

/// The parts of the service that an attempt uses.
#[derive(Clone, Copy)]
pub(super) struct DeliveryServices<'a> {
    pub(super) discovery: &'a Discovery,
    pub(super) monitor: &'a Monitor,
    pub(super) hellos: &'a KnownHellos,
    pub(super) chunks: &'a ChunkMemory,
    pub(super) pool: &'a Pool,
    pub(super) observers: &'a Observers,
}

/// An attempt in progress.
struct Delivery<'a> {
    services: DeliveryServices<'a>,
    snapshot: &'a Snapshot,
    attempt: &'a Attempt,
    connector: &'a Arc<Connector>,
    limit: &'a AttemptLimit,
    watch: SessionWatch<'a>,
    recheck: PolicyRecheck<'a>,
    recipients: PendingRecipients,
    /// The host that is being tried.
    peer: Option<FailedHost>,
    /// The address that is being dialled.
    dialling: Option<Dialling>,
    budget: DialBudget,
    /// The number of addresses at which the peer deferred the message.
    deferrals: usize,
    /// The value of `deferrals` before the current address.
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
    /// No connection was available, or the peer had closed it while it was idle. That counts as no
    /// try.
    NotTried,
    /// The message was tried on it.
    Tried,
    /// The connection has carried as many messages as it may, or its host does not know BDAT, and
    /// recipients remain for a further transaction.
    Spent,
}

/// Returns the failure of mail whose sender's connector is not in the configuration any more.
#[must_use]
pub fn missing_connector(name: &str) -> Failure {
    let text = format!(
        "the connector {name} of the user who sent the message is not in the configuration; \
         add it again, or bounce the message"
    );
    Failure::transient(Scope::Destination, Status(3, 5), text)
}

/// Makes one attempt. Its policy, trust and limits come from `snapshot` alone.
pub(super) async fn deliver(
    services: DeliveryServices<'_>,
    snapshot: Arc<Snapshot>,
    attempt: &Attempt,
    limit: &AttemptLimit,
) -> AttemptResult {
    let connector = attempt.connector(&snapshot.connectors);
    let connector = &connector;
    let watch = SessionWatch {
        history: services.discovery.history(),
        observers: services.observers,
        attempt,
        connector,
    };
    let recheck = PolicyRecheck {
        router: &snapshot.router,
        discovery: services.discovery,
        connector,
        may_be_last: attempt.may_be_last,
    };
    let mut delivery = Delivery {
        services,
        snapshot: &snapshot,
        attempt,
        connector,
        limit,
        watch,
        recheck,
        recipients: PendingRecipients::new(
            &attempt.recipients,
            &attempt.apart,
            connector.outbound.on_failure,
        ),
        peer: None,
        dialling: None,
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
    let connector = Arc::clone(connector);
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
        let user_connector = self.attempt.entry.envelope.connector.as_deref();
        if let Some(name) = self.snapshot.connectors.missing(user_connector) {
            let failure = missing_connector(name);
            return self.recipients.fail_all(failure, Remaining::Useless);
        }
        let route = &self.connector.outbound.route;
        match self.snapshot.router.hops(&self.attempt.host, route).await {
            Ok(found) => self.try_hops(found).await,
            Err(failure) => self.recipients.fail_all(failure, Remaining::Useless),
        }
    }

    /// Defers the recipients without an outcome: the attempt was ended from outside.
    fn fail_ended(&mut self, ended: AttemptEndReason) {
        self.services.monitor.attempt_ended(ended.label());
        let mut text = ended.to_string();
        if self.limit.may_be_accepted() {
            text.push_str(MAY_BE_DELIVERED);
        }
        let failure = Failure::transient(Scope::Destination, Status(4, 2), text);
        let failure = Failure {
            peer: self.peer.take(),
            ..failure
        };
        self.watch
            .observe_dialled(self.dialling.take(), None, SessionOutcome::Failed(&failure));
        self.recipients.fail_all(failure, Remaining::Useless);
    }

    // Rule: RFC 5321 §5.1; RFC 7672 §2.2.1.
    async fn try_hops(&mut self, mut found: Hops) {
        self.services
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
        self.peer = Some(hop.into());
        let envelope = &self.attempt.entry.envelope;
        let context = MailContext {
            recipient: &self.attempt.host,
            connector: self.connector,
            requirement: envelope.tls,
        };
        let plan = match self.recheck.plan(context, hop, &hops.basis).await {
            Ok(plan) => plan,
            Err(unusable) => {
                self.watch
                    .observe_undialled(hop, None, None, SessionOutcome::Unusable(&unusable));
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
            let (found, policy) = (Some(&plan.found), Some(terms.policy()));
            self.watch
                .observe_undialled(hop, found, policy, SessionOutcome::Unmeetable(&refusal));
            return Err(self
                .recheck
                .judge_again(terms.name_failure(Failure::policy(refusal)), &plan.found)
                .await);
        }
        let hop_attempt = HopAttempt {
            hop,
            terms: &terms,
            found: &plan.found,
            hops_left,
        };
        if let ConnectionUse::NotTried = self.reuse(&hop_attempt).await {
            // Boxed: most messages find a connection, and should not carry what this needs.
            Box::pin(self.dial(&hop_attempt, &plan.addresses.addresses)).await;
        }
        Ok(())
    }

    /// Records that a hop was not connected to.
    fn record_unusable(&mut self, hop: &Hop, failure: Failure, has_next: bool) {
        tracing::debug!(
            queue_id = %self.attempt.entry.id, connector = %self.connector.name, host = %hop.host,
            reason = %failure, "the hop cannot be used"
        );
        let remaining = Remaining::after(&failure, has_next);
        self.recipients.fail_all(failure.with_peer(hop), remaining);
    }

    /// Returns the hop's address that is one of this relay's own, if there is one. A smart host is
    /// exempt: the administrator named it.
    fn own_address<'h>(&self, hop: &Hop, addresses: &'h [HopAddress]) -> Option<&'h HopAddress> {
        let router = &self.snapshot.router;
        addresses
            .iter()
            .find(|address| hop.smart_host().is_none() && router.is_own_address(address))
    }

    /// Tries the message on idle connections.
    async fn reuse(&mut self, hop_attempt: &HopAttempt<'_>) -> ConnectionUse {
        let HopAttempt {
            hop,
            terms,
            found,
            hops_left,
        } = *hop_attempt;
        let key = PoolKey::new(self.snapshot.generation(), self.connector, hop);
        self.deferrals_before = self.deferrals;
        while let Some(mut connection) = self.services.pool.take(&key) {
            if !connection.is_quiet().await || !terms.admit(&mut connection, &hop.host) {
                self.services.pool.quit(key.clone(), connection);
                continue;
            }
            // The connection may have been opened for another domain, which has another history.
            let session = ObservedSession {
                hop,
                peer: Some(&connection.via().peer),
                found: Some(found),
                policy: Some(terms.policy()),
                steps: &SessionSteps::default(),
            };
            let earlier_level = self.watch.observe(
                &session,
                SessionOutcome::Reused(&connection.via().clearance),
            );
            connection.set_earlier_level(earlier_level);
            let promise = terms.promise(&mut connection, &hop.host);
            match self.send_on(connection, &key, promise, hops_left > 0).await {
                ConnectionUse::Tried => return ConnectionUse::Tried,
                ConnectionUse::NotTried | ConnectionUse::Spent => {}
            }
        }
        ConnectionUse::NotTried
    }

    /// Tries the message at one address after another.
    async fn dial(&mut self, hop_attempt: &HopAttempt<'_>, addresses: &[HopAddress]) {
        let HopAttempt {
            hop,
            terms,
            found,
            hops_left,
        } = *hop_attempt;
        let key = PoolKey::new(self.snapshot.generation(), self.connector, hop);
        self.services.pool.wait_for_closing(&key).await;
        let purpose = DialPurpose::Mail(terms.needed_handshake());
        let known = self.services.hellos;
        let (policy, handshake) = (terms.policy(), self.snapshot.config.timeouts.handshake);
        let (snapshot, monitor) = (self.snapshot, self.services.monitor);
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
        for (at, address) in addresses.iter().enumerate() {
            self.budget.take();
            self.deferrals_before = self.deferrals;
            let further = addresses.len() - at - 1 + hops_left;
            // The loop ends: each connection that reached its limit, or refused a chunk, has carried
            // the message for at least one recipient.
            loop {
                let dialled = self.dial_in_time(&target, address, further).await;
                let has_next = further > 0 && !self.budget.is_exhausted();
                match dialled {
                    Ok(mut connection) => {
                        let cleared = SessionOutcome::Cleared(&connection.via().clearance);
                        let earlier_level =
                            self.watch
                                .observe_dialled(self.dialling.take(), Some(found), cleared);
                        connection.set_earlier_level(earlier_level);
                        let promise = terms.promise(&mut connection, &hop.host);
                        let ConnectionUse::Spent =
                            self.send_on(connection, &key, promise, has_next).await
                        else {
                            break;
                        };
                    }
                    Err(failure) => {
                        self.record_failed_dial(hop_attempt, address, failure, has_next)
                            .await;
                        break;
                    }
                }
            }
            if self.recipients.is_complete() {
                return;
            }
        }
    }

    /// Records that an address could not be used: for the recipients of `overflow` if there are
    /// some, otherwise for all without an outcome.
    async fn record_failed_dial(
        &mut self,
        hop_attempt: &HopAttempt<'_>,
        address: &HopAddress,
        failure: Failure,
        has_next: bool,
    ) {
        let HopAttempt {
            hop, terms, found, ..
        } = *hop_attempt;
        let failed = SessionOutcome::Failed(&failure);
        self.watch
            .observe_dialled(self.dialling.take(), Some(found), failed);
        let failure = self
            .recheck
            .judge_again(terms.name_failure(failure), found)
            .await;
        tracing::debug!(
            queue_id = %self.attempt.entry.id, connector = %self.connector.name, host = %hop.host,
            %address, reason = %failure, "the hop cannot be used"
        );
        let remaining = Remaining::after(&failure, has_next);
        match std::mem::take(&mut self.overflow) {
            overflow if overflow.is_empty() => self.recipients.fail_all(failure, remaining),
            overflow => self.recipients.fail(&overflow, failure, None, remaining),
        }
    }

    /// Dials one address within its share of the remaining time, so that an address that hangs does
    /// not keep the `further` addresses and hops from being tried.
    async fn dial_in_time(
        &mut self,
        target: &Target<'_>,
        address: &HopAddress,
        further: usize,
    ) -> Result<Cleared, Failure> {
        let (peer, time) = (target.peer(address), self.limit.share(further + 1));
        self.peer = Some((&peer).into());
        let policy = self.recipients.policy().map(Arc::clone);
        let dialling = self.dialling.insert(Dialling {
            hop: target.hop.clone(),
            peer: peer.clone(),
            policy,
            record: DialRecord::default(),
        });
        // Two handshakes without an answer leave time for a connection in the clear.
        let target = Target {
            handshake: target.handshake.min(time / HANDSHAKE_SHARE),
            ..*target
        };
        if further == 0 {
            return target
                .dial(address, &mut self.budget, &mut dialling.record)
                .await;
        }
        let dial = target.dial(address, &mut self.budget, &mut dialling.record);
        if let Ok(dialled) = tokio::time::timeout(time, dial).await {
            return dialled;
        }
        let text = format!(
            "no session within {} s, its part of [limits] delivery_attempt_time among all addresses",
            time.as_secs().max(1)
        );
        let peer = peer.with_source(dialling.record.source);
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
        let most = self.connector.outbound.messages_per_connection;
        let unanswered = Remaining::hop_if(has_next);
        self.peer = Some((&connection.via().peer).into());
        let mut recipients = self.fitting_recipients(&connection, promise, has_next);
        let mut apart = self.recipients.take_separate(&mut recipients);
        if recipients.is_empty() {
            recipients.extend(apart.pop());
        }
        while !recipients.is_empty() {
            let sent = self
                .transact(&mut connection, key, &recipients, promise)
                .await;
            if sent.was_stale {
                return ConnectionUse::NotTried;
            }
            self.overflow.clear();
            if sent.chunk == ChunkResult::Refused {
                // Nothing was accepted, and the content may have been taken for commands. It goes
                // with DATA on another connection.
                let _ = connection.quit().await;
                recipients.append(&mut apart);
                self.overflow = recipients;
                return ConnectionUse::Spent;
            }
            let reusable = sent.results.reusable;
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
            self.services.pool.put(key.clone(), connection);
        } else {
            self.services.pool.quit(key.clone(), connection);
        }
        self.overflow = recipients;
        if self.overflow.is_empty() {
            ConnectionUse::Tried
        } else {
            ConnectionUse::Spent
        }
    }

    /// Sends the message to these recipients in one transaction.
    async fn transact(
        &mut self,
        connection: &mut Cleared,
        key: &PoolKey,
        recipients: &[usize],
        promise: RequireTlsUse,
    ) -> SendResult {
        let entry = &*self.attempt.entry;
        let timeouts = self.snapshot.config.timeouts;
        let mail = Mail {
            envelope: &entry.envelope,
            size: entry.size,
            recipients,
            promise,
        };
        let may_chunk = self.services.chunks.may_send(key.server());
        let sent = connection
            .send(mail, &entry.body, &timeouts, self.limit, may_chunk)
            .await;
        if matches!(sent.chunk, ChunkResult::Failed | ChunkResult::Refused) {
            self.forget_chunks(key);
        }
        tracing::debug!(
            queue_id = %entry.id, connector = %self.connector.name, peer = %connection.via().peer,
            ending = ?sent.results.ending, "transaction over"
        );
        sent
    }

    /// Remembers that a host offers CHUNKING and does not process chunks.
    fn forget_chunks(&self, key: &PoolKey) {
        let server = key.server();
        if self.services.chunks.may_send(server) {
            tracing::info!(
                queue_id = %self.attempt.entry.id, connector = %self.connector.name, host = %server,
                "host offers CHUNKING and did not process a chunk; messages go to it with DATA for an hour"
            );
        }
        self.services.chunks.remember(server);
    }
}
