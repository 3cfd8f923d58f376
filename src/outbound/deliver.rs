//! One attempt: hop after hop, address after address, until every recipient has a result.

use std::sync::Arc;

use crate::config::Connector;
use crate::connector::outbound_policy;
use crate::outcome::{Failure, Scope, Unpromised};
use crate::route::Hop;
use crate::smtp::client::{Mail, Obstacle, Promise};
use crate::smtp::reply::Status;

use super::cleared::Cleared;
use super::dial::{Target, reference};
use super::pool::Destination;
use super::requirement::Terms;
use super::settle::{Further, Ledger};
use super::{Attempt, Report, Snapshot};

/// Addresses dialled in one attempt, at most: whoever publishes more waits for the next attempt.
const DIALS_MAX: usize = 50;

/// One attempt on its way.
struct Delivery<'a> {
    snapshot: &'a Snapshot,
    attempt: &'a Attempt,
    connector: &'a Arc<Connector>,
    ledger: Ledger,
    dials: usize,
}

/// What came of a connection that was used before.
enum Reused {
    /// There is none, or none that is still alive: nothing was tried.
    Nothing,
    /// The message was tried on it.
    Tried,
}

pub(super) async fn deliver(snapshot: &Snapshot, attempt: &Attempt) -> Report {
    let settings = &snapshot.settings;
    let mut connector = &attempt.connector;
    let current = settings.connectors.for_host(&attempt.host);
    if !Arc::ptr_eq(current, connector) {
        // Policy and trust of one delivery come from one configuration: the one in force.
        tracing::debug!(queue_id = %attempt.entry.id, connector = %current.name, "the settings were replaced");
        connector = current;
    }
    let ledger = Ledger::new(&attempt.recipients, connector.outbound.on_failure);
    let mut delivery = Delivery { snapshot, attempt, connector, ledger, dials: 0 };
    match settings.router.hops(&attempt.host, &connector.outbound.route).await {
        Ok(found) => delivery.hops(found.hops).await,
        Err(failure) => delivery.ledger.fail_all(failure, Further::Nothing),
    }
    delivery.ledger.into_report()
}

impl Delivery<'_> {
    async fn hops(&mut self, mut hops: Vec<Hop>) {
        self.prefer_reuse(&mut hops);
        let mut hops = hops.iter().peekable();
        while let Some(hop) = hops.next() {
            let more = hops.peek().is_some();
            let terms = self.terms(hop);
            self.ledger.hop();
            if let Reused::Nothing = self.reuse(hop, &terms, more).await {
                self.dial(hop, &terms, more).await;
            }
            if self.ledger.is_complete() {
                return;
            }
        }
    }

    /// What holds for the message at a hop: the connector's floor, raised by what the message requires.
    fn terms(&self, hop: &Hop) -> Terms {
        let floor = outbound_policy(self.connector, &self.attempt.host, hop.smart_host());
        Terms::new(&self.attempt.entry.envelope, floor, &hop.host)
    }

    /// Among hops that are equally good, one that is connected already comes first.
    fn prefer_reuse(&self, hops: &mut [Hop]) {
        if hops.len() < 2 {
            return;
        }
        let equals = hops.iter().take_while(|hop| hop.is_as_good_as(&hops[0]));
        let mut destinations = equals.map(|hop| Destination::new(self.connector, hop));
        if let Some(at) = destinations.position(|destination| self.snapshot.pool.has(&destination)) {
            hops.swap(0, at);
        }
    }

    /// Tries the message on a connection that waits for work.
    async fn reuse(&mut self, hop: &Hop, terms: &Terms, more: bool) -> Reused {
        let destination = Destination::new(self.connector, hop);
        while let Some(mut connection) = self.snapshot.pool.take(&destination) {
            if !connection.is_quiet().await || !connection.admits(terms.policy(), &reference(&hop.host)) {
                self.snapshot.pool.quit(destination.clone(), connection);
                continue;
            }
            let promise = terms.promise(&mut connection, &hop.host);
            match self.on(connection, &destination, promise, more).await {
                Reused::Tried => return Reused::Tried,
                Reused::Nothing => {}
            }
        }
        Reused::Nothing
    }

    /// Tries the message at one address after the other.
    async fn dial(&mut self, hop: &Hop, terms: &Terms, more: bool) {
        let settings = &self.snapshot.settings;
        let addresses = match settings.router.addresses(hop).await {
            Ok(found) => found.addresses,
            Err(failure) => return self.ledger.fail_all(failure.with_peer(hop.to_string()), Further::hop_if(more)),
        };
        let destination = Destination::new(self.connector, hop);
        self.snapshot.pool.room(&destination).await;
        let queue_id = self.attempt.entry.id;
        let target = Target { settings, connector: self.connector, hop, policy: terms.policy(), queue_id };
        for (at, address) in addresses.iter().enumerate() {
            self.dials += 1;
            let more = (more || at + 1 < addresses.len()) && self.dials < DIALS_MAX;
            match target.dial(*address).await {
                Ok(mut connection) => {
                    let promise = terms.promise(&mut connection, &hop.host);
                    // A connection that was never used cannot have been given up.
                    self.on(connection, &destination, promise, more).await;
                }
                Err(failure) => {
                    let failure = terms.named(failure);
                    tracing::debug!(
                        queue_id = %self.attempt.entry.id, connector = %self.connector.name, host = %hop.host,
                        %address, reason = %failure, "the hop cannot be used"
                    );
                    self.ledger.fail_all(failure, Further::hop_if(more));
                }
            }
            if self.ledger.is_complete() {
                return;
            }
        }
    }

    /// Hands the message over on one connection, in as many transactions as the peer wants, and keeps
    /// the connection where it can be used again.
    async fn on(&mut self, mut connection: Cleared, destination: &Destination, promise: Promise, more: bool) -> Reused {
        let entry = &*self.attempt.entry;
        let timeouts = self.snapshot.settings.config.timeouts;
        let mut recipients = self.fitting(&connection, promise, more);
        while !recipients.is_empty() {
            let mail = Mail { envelope: &entry.envelope, size: entry.size, recipients: &recipients, promise };
            let handed = connection.hand_over(mail, &entry.body, &timeouts).await;
            if handed.was_stale {
                return Reused::Nothing;
            }
            let reusable = handed.results.reusable;
            tracing::debug!(
                queue_id = %entry.id, connector = %self.connector.name, peer = %connection.via().peer,
                ending = ?handed.results.ending, "transaction over"
            );
            recipients = self.ledger.settle(&recipients, handed, connection.via(), Further::hop_if(more));
            if !reusable {
                self.cut_short(&recipients, &connection, more);
                return Reused::Tried;
            }
        }
        if connection.is_reusable(self.connector.outbound.messages_per_connection) {
            self.snapshot.pool.put(destination.clone(), connection);
        } else {
            self.snapshot.pool.quit(destination.clone(), connection);
        }
        Reused::Tried
    }

    /// The recipients that this peer can take; the others, or all, fail here without a word to it.
    fn fitting(&mut self, connection: &Cleared, promise: Promise, more: bool) -> Vec<usize> {
        let envelope = &self.attempt.entry.envelope;
        let extensions = connection.extensions();
        let everybody = self.ledger.open();
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
            Obstacle::NeedsRequireTls => Failure::unpromised(Unpromised::NotOffered),
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
