//! The recipients that a peer can receive, and those that could not be named to it.

use crate::policy::failure::{Failure, RequireTlsUnmet, Scope};
use crate::relay::outbound::cleared::Cleared;
use crate::relay::outbound::recipients::Remaining;
use crate::smtp::client::{Mail, Obstacle, RequireTlsUse};
use crate::smtp::reply::Status;

use super::Delivery;

impl Delivery<'_> {
    /// Returns the recipients that this peer can receive. The others fail without a command to the
    /// peer.
    // Rule: RFC 5321 §4.5.4.1.
    pub(super) fn fitting_recipients(
        &mut self,
        connection: &Cleared,
        promise: RequireTlsUse,
        has_next: bool,
    ) -> Vec<usize> {
        let envelope = &self.attempt.entry.envelope;
        let extensions = connection.extensions();
        let everybody = if self.overflow.is_empty() {
            self.recipients.pending()
        } else {
            self.overflow.clone()
        };
        let mail = Mail {
            envelope,
            size: self.attempt.entry.size,
            recipients: &everybody,
            promise,
        };
        if let Err(obstacle) = mail.fits(extensions) {
            self.fail_obstructed(&everybody, obstacle, connection, has_next);
            return Vec::new();
        }
        let fits = |at: &usize| Mail::recipient_fits(&envelope.recipients[*at], extensions).is_ok();
        let (able, unable): (Vec<usize>, Vec<usize>) = everybody.into_iter().partition(fits);
        self.fail_obstructed(&unable, Obstacle::NeedsSmtputf8, connection, has_next);
        able
    }

    /// Records that this peer cannot receive the message for these recipients. The failure concerns
    /// the hop if another one can be tried, otherwise the message.
    fn fail_obstructed(
        &mut self,
        recipients: &[usize],
        obstacle: Obstacle,
        connection: &Cleared,
        has_next: bool,
    ) {
        let scope = if has_next { Scope::Hop } else { Scope::Message };
        let at = |status| Failure::permanent(scope, status, obstacle.to_string());
        let failure = match obstacle {
            Obstacle::TooLarge { .. } => at(Status(3, 4)),
            Obstacle::NeedsEightBitMime => at(Status(6, 3)),
            Obstacle::NeedsSmtputf8 => at(Status(6, 7)),
            Obstacle::NeedsRequireTls => Failure::require_tls(RequireTlsUnmet::NotOffered),
        };
        self.recipients.fail(
            recipients,
            failure.with_peer(&connection.via().peer),
            Some(connection.via()),
            Remaining::hop_if(has_next),
        );
    }

    /// Records that the peer ended the session before these recipients could be named.
    pub(super) fn fail_unnamed(
        &mut self,
        overflow: &[usize],
        connection: &Cleared,
        has_next: bool,
    ) {
        let text = "the peer ended the session before the remaining recipients could be named";
        let failure =
            Failure::transient(Scope::Hop, Status(5, 3), text).with_peer(&connection.via().peer);
        self.recipients.fail(
            overflow,
            failure,
            Some(connection.via()),
            Remaining::hop_if(has_next),
        );
    }
}
