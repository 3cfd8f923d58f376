//! Questions to mailbox servers: does a recipient exist? RCPT is sent by the connector of the
//! recipient's domain, with its route, its TLS demand and its judge, and no message.
//!
//! The connections are those of deliveries: idle ones are used, and a connection is kept for the
//! next message or question.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Connector;
use crate::net::route::{Hop, Hops};
use crate::policy::failure::{Failure, Scope};
use crate::policy::tls;
use crate::relay::recipient_tables::{
    AnswerResult, RecipientAnswer, RecipientTrouble, no_such_mailbox,
};
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Mailbox;
use crate::smtp::client::{DialogueStage, QueryEnd, RecipientQuery};
use crate::smtp::envelope::TlsRequirement;
use crate::smtp::reply::{EnhancedStatusCode, Reply, Severity, Status};

use super::cleared::Cleared;
use super::dial_record::DialRecord;
use super::hellos::DialBudget;
use super::plan::{HopPlan, MailContext};
use super::pool::PoolKey;
use super::service::Outbound;
use super::target::{DialPurpose, Target, reference_names};

/// The time limit for each reply to a question, and for a connection and a handshake for it.
const STEP_TIME: Duration = Duration::from_secs(10);

/// The replies to RCPT that are about the session, and not about the recipient.
const NOT_ABOUT_RECIPIENTS: [u16; 8] = [500, 502, 503, 504, 521, 530, 535, 538];

/// The end of a question on one connection.
enum AskedOn {
    /// The peer answered about the mailbox.
    Answer(AnswerResult),
    /// The peer answered nothing about it, and the next address may.
    NoAnswer(Failure),
    /// The peer had closed the connection while it was idle.
    Stale,
}

/// A question in progress.
struct Asking<'a> {
    outbound: &'a Outbound,
    snapshot: &'a Snapshot,
    connector: &'a Arc<Connector>,
    mailbox: &'a Mailbox,
}

impl Outbound {
    /// Asks the mailbox server whether a recipient exists. Nothing is sent. The caller limits the
    /// time.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub async fn ask(&self, snapshot: &Snapshot, mailbox: &Mailbox) -> AnswerResult {
        let connector = snapshot.connectors.for_host(mailbox.host());
        let asking = Asking {
            outbound: self,
            snapshot,
            connector,
            mailbox,
        };
        let route = &connector.outbound.route;
        match snapshot.router.hops(mailbox.host(), route).await {
            Ok(found) => asking.ask_hops(found).await,
            Err(failure) => Err(trouble(&failure)),
        }
    }
}

impl Asking<'_> {
    async fn ask_hops(&self, mut found: Hops) -> AnswerResult {
        let generation = self.snapshot.generation();
        self.outbound
            .pool()
            .prefer(generation, self.connector, &mut found.hops);
        let mut last = None;
        for hop in &found.hops {
            match self.ask_hop(hop, &found).await {
                Ok(answer) => return answer,
                Err(failure) if failure.peer.is_some() => last = Some(failure),
                Err(failure) => last = Some(failure.with_peer(hop)),
            }
        }
        let none =
            || Failure::transient(Scope::Destination, Status(4, 4), "there is no host to ask");
        Err(trouble(&last.unwrap_or_else(none)))
    }

    /// Asks one hop.
    ///
    /// # Errors
    /// The [`Failure`] for which it gave no answer.
    async fn ask_hop(&self, hop: &Hop, hops: &Hops) -> Result<AnswerResult, Failure> {
        let (router, discovery) = (&self.snapshot.router, self.outbound.discovery());
        let context = MailContext {
            recipient: self.mailbox.host(),
            connector: self.connector,
            requirement: TlsRequirement::Ordinary,
        };
        let plan = HopPlan::make(router, discovery, context, hop, &hops.basis).await?;
        let addresses = &plan.addresses.addresses;
        let mut own = addresses
            .iter()
            .filter(|address| hop.smart_host().is_none() && router.is_own_address(address));
        if let Some(address) = own.next() {
            return Err(hops.own_address_failure(hop, address, self.mailbox.host()));
        }
        let policy = plan.policy(context, hop);
        if let Some(refusal) = tls::unmeetable(&policy) {
            return Err(Failure::policy(refusal));
        }
        let key = PoolKey::new(self.snapshot.generation(), self.connector, hop);
        while let Some(mut connection) = self.outbound.pool().take(&key) {
            let is_fit = connection.is_quiet().await
                && connection.admits(&policy, &reference_names(&hop.host));
            if !is_fit {
                self.outbound.pool().quit(key.clone(), connection);
                continue;
            }
            match self.ask_on(connection, &key).await {
                AskedOn::Answer(answer) => return Ok(answer),
                AskedOn::NoAnswer(failure) => return Err(failure),
                AskedOn::Stale => {}
            }
        }
        let target = Target {
            snapshot: self.snapshot,
            monitor: self.outbound.monitor(),
            connector: self.connector,
            hop,
            policy: &policy,
            known: self.outbound.hellos(),
            purpose: DialPurpose::Mail(policy.needed_handshake()),
            handshake: self.snapshot.config.timeouts.handshake.min(STEP_TIME),
        };
        let mut last = None;
        for address in addresses {
            let (mut budget, mut record) = (DialBudget::new(), DialRecord::default());
            let dialled = target.dial(address, &mut budget, &mut record).await;
            let failure = match dialled {
                Ok(connection) => match self.ask_on(connection, &key).await {
                    AskedOn::Answer(answer) => return Ok(answer),
                    AskedOn::NoAnswer(failure) => failure,
                    AskedOn::Stale => continue,
                },
                Err(failure) => failure,
            };
            last = Some(failure);
        }
        let none = || Failure::transient(Scope::Hop, Status(4, 4), "the host has no address");
        Err(last.unwrap_or_else(none))
    }

    /// Asks on one connection, and keeps it for the next message or question if it can be used.
    async fn ask_on(&self, mut connection: Cleared, key: &PoolKey) -> AskedOn {
        let pool = self.outbound.pool();
        let peer = connection.via().peer.clone();
        if !RecipientQuery::may_ask(self.mailbox, connection.extensions()) {
            // Mail to such an address would bounce.
            pool.put(key.clone(), connection);
            return AskedOn::Answer(Ok(RecipientAnswer::Unknown(no_such_mailbox())));
        }
        let has_waited = connection.is_idle();
        let limit = self.snapshot.config.timeouts.reply.min(STEP_TIME);
        let (end, is_reusable) = match connection.ask(self.mailbox, limit).await {
            Ok(asked) => asked,
            Err(broken) if has_waited && broken.is_closed() => return AskedOn::Stale,
            Err(broken) => return AskedOn::NoAnswer(broken.failure().with_peer(peer)),
        };
        let most = self.connector.outbound.messages_per_connection;
        if is_reusable && connection.is_reusable(most) {
            pool.put(key.clone(), connection);
        } else {
            pool.quit(key.clone(), connection);
        }
        match end {
            QueryEnd::Answered(reply) => match answer(&reply) {
                Some(answer) => AskedOn::Answer(answer),
                None => {
                    AskedOn::NoAnswer(session_failure(DialogueStage::Rcpt, reply).with_peer(peer))
                }
            },
            QueryEnd::NotAsked { .. } if has_waited && !is_reusable => AskedOn::Stale,
            QueryEnd::NotAsked { stage, reply } => {
                AskedOn::NoAnswer(session_failure(stage, reply).with_peer(peer))
            }
            QueryEnd::Unfinished => AskedOn::NoAnswer(
                Failure::transient(
                    Scope::Hop,
                    Status(4, 2),
                    "the session ended without an answer",
                )
                .with_peer(peer),
            ),
        }
    }
}

fn session_failure(stage: DialogueStage, reply: Reply) -> Failure {
    Failure::reply(Scope::Hop, stage.name(), reply)
}

/// Returns the meaning of a reply to RCPT; `None` if it says nothing about the recipient.
fn answer(reply: &Reply) -> Option<AnswerResult> {
    match reply.severity() {
        Severity::Success => Some(Ok(RecipientAnswer::Exists)),
        Severity::Permanent if NOT_ABOUT_RECIPIENTS.contains(&reply.code().get()) => None,
        Severity::Permanent => Some(Ok(RecipientAnswer::Unknown(rejection_status(reply)))),
        Severity::Transient | Severity::Intermediate => Some(Err(RecipientTrouble {
            reason: format!("the mailbox server answered RCPT with: {reply}").into(),
            is_general: false,
        })),
    }
}

/// Returns the status for our own client: that of the mailbox server, or 5.1.1.
fn rejection_status(reply: &Reply) -> EnhancedStatusCode {
    reply.enhanced().unwrap_or_else(no_such_mailbox)
}

fn trouble(failure: &Failure) -> RecipientTrouble {
    let reason = match &failure.peer {
        Some(peer) => format!("{peer}: {failure}"),
        None => failure.to_string(),
    };
    RecipientTrouble {
        reason: reason.into(),
        is_general: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::ReplyParser;

    fn meaning(text: &str) -> String {
        let (_, reply) = ReplyParser::default()
            .parse(format!("{text}\r\n").as_bytes())
            .expect("a reply");
        match answer(&reply.expect("complete")) {
            Some(Ok(RecipientAnswer::Exists)) => "exists".to_owned(),
            Some(Ok(RecipientAnswer::Unknown(status))) => status.to_string(),
            Some(Err(trouble)) if trouble.is_general => "general trouble".to_owned(),
            Some(Err(_)) => "trouble".to_owned(),
            None => "no answer".to_owned(),
        }
    }

    #[test]
    fn replies_to_rcpt_are_answers_or_say_nothing_about_the_recipient() {
        for (reply, wanted) in [
            ("250 2.1.5 Ok", "exists"),
            ("251 forwarded", "exists"),
            ("252 cannot verify", "exists"),
            ("550 5.1.1 no such user", "5.1.1"),
            ("550 no such user", "5.1.1"),
            ("550 5.1.10 RESOLVER.ADR.RecipientNotFound", "5.1.10"),
            ("550 5.7.1 RESOLVER.RST.AuthRequired", "5.7.1"),
            ("552 5.2.2 full", "5.2.2"),
            ("553 5.1.3 syntax", "5.1.3"),
            ("501 syntax", "5.1.1"),
            ("450 4.2.1 greylisted", "trouble"),
            ("452 4.2.2 full", "trouble"),
            ("503 5.5.1 MAIL first", "no answer"),
            ("530 5.7.0 Must issue STARTTLS", "no answer"),
            ("535 5.7.8 authentication", "no answer"),
            ("502 5.5.1 not implemented", "no answer"),
        ] {
            assert_eq!(meaning(reply), wanted, "{reply}");
        }
    }
}
