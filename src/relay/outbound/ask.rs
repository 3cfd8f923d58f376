//! Questions to mailbox servers: does a recipient exist? RCPT is sent by the connector of the
//! recipient's domain, with its route, its TLS demand and its judge, and no message.
//!
//! The connections are those of deliveries: idle ones are used, and a connection is kept for the
//! next message or question.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Connector;
use crate::net::route::{Hop, Hops};
use crate::policy::failure::{Failure, Scope};
use crate::policy::tls;
use crate::relay::recipient_tables::{
    AnswerResult, RecipientAnswer, RecipientTrouble, TroubleScope, no_such_mailbox,
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
/// The time limit of a question, at all hosts together.
const ALL_HOSTS_TIME: Duration = Duration::from_secs(18);

/// The replies to RCPT that are about the session, and not about the recipient.
const ABOUT_SESSIONS: [u16; 4] = [521, 530, 535, 538];
/// The replies to RCPT by which the peer does not understand it, as it may with an odd address.
const NOT_UNDERSTOOD: [u16; 4] = [500, 502, 503, 504];

/// The end of a question on one connection.
enum AskedOn {
    /// The peer answered about the mailbox.
    Answer(AnswerResult),
    /// The peer answered nothing about it, and the next address may.
    NoAnswer(Unanswered),
    /// The peer had closed the connection while it was idle.
    Stale,
}

/// A question without an answer.
struct Unanswered {
    failure: Failure,
    scope: TroubleScope,
}

impl Unanswered {
    /// Makes one of a failure before the reply to RCPT was due.
    fn before_rcpt(failure: Failure) -> Self {
        Self {
            failure,
            scope: TroubleScope::Source,
        }
    }

    /// Makes one of a failure while a reply was due. That to RCPT depends on the mailbox, and so says
    /// nothing about others.
    fn awaiting(stage: DialogueStage, failure: Failure) -> Self {
        let scope = match stage {
            DialogueStage::Rcpt | DialogueStage::Rset => TroubleScope::Mailbox,
            _ => TroubleScope::Source,
        };
        Self { failure, scope }
    }

    /// Returns the trouble at all hosts together. Where a host was asked about the mailbox, it may
    /// answer about others.
    fn after(self, earlier: Option<&Self>) -> Self {
        let is_mailbox = |one: &Self| one.scope == TroubleScope::Mailbox;
        let scope = if earlier.is_some_and(is_mailbox) {
            TroubleScope::Mailbox
        } else {
            self.scope
        };
        Self { scope, ..self }
    }

    fn trouble(&self) -> RecipientTrouble {
        let failure = &self.failure;
        let reason = match &failure.peer {
            Some(peer) => format!("{peer}: {failure}"),
            None => failure.to_string(),
        };
        RecipientTrouble {
            reason: reason.into(),
            scope: self.scope,
        }
    }
}

/// A question in progress.
struct Asking<'a> {
    outbound: &'a Outbound,
    snapshot: &'a Snapshot,
    connector: &'a Arc<Connector>,
    mailbox: &'a Mailbox,
    /// True from the moment at which a host is asked.
    was_asked: AtomicBool,
}

impl Outbound {
    /// Asks the mailbox server whether a recipient exists. Nothing is sent. This ends within 20 s.
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
            was_asked: AtomicBool::new(false),
        };
        let Ok(result) = timeout(ALL_HOSTS_TIME, asking.ask_anywhere()).await else {
            let scope = if asking.was_asked.load(Ordering::Relaxed) {
                TroubleScope::Mailbox
            } else {
                TroubleScope::Source
            };
            return Err(RecipientTrouble {
                reason: format!("no answer within {} s", ALL_HOSTS_TIME.as_secs()).into(),
                scope,
            });
        };
        result.unwrap_or_else(|unanswered| Err(unanswered.trouble()))
    }
}

impl Asking<'_> {
    async fn ask_anywhere(&self) -> Result<AnswerResult, Unanswered> {
        let (host, route) = (self.mailbox.host(), &self.connector.outbound.route);
        match self.snapshot.router.hops(host, route).await {
            Ok(found) => self.ask_hops(found).await,
            Err(failure) => Err(Unanswered::before_rcpt(failure)),
        }
    }

    async fn ask_hops(&self, mut found: Hops) -> Result<AnswerResult, Unanswered> {
        let generation = self.snapshot.generation();
        self.outbound
            .pool()
            .prefer(generation, self.connector, &mut found.hops);
        let mut last: Option<Unanswered> = None;
        for hop in &found.hops {
            let unanswered = match self.ask_hop(hop, &found).await {
                Ok(answer) => return Ok(answer),
                Err(unanswered) if unanswered.failure.peer.is_some() => unanswered,
                Err(unanswered) => Unanswered {
                    failure: unanswered.failure.with_peer(hop),
                    ..unanswered
                },
            };
            last = Some(unanswered.after(last.as_ref()));
        }
        let none =
            || Failure::transient(Scope::Destination, Status(4, 4), "there is no host to ask");
        Err(last.unwrap_or_else(|| Unanswered::before_rcpt(none())))
    }

    /// Asks one hop.
    ///
    /// # Errors
    /// The failure for which it gave no answer.
    async fn ask_hop(&self, hop: &Hop, hops: &Hops) -> Result<AnswerResult, Unanswered> {
        let before = Unanswered::before_rcpt;
        let (router, discovery) = (&self.snapshot.router, self.outbound.discovery());
        let context = MailContext {
            recipient: self.mailbox.host(),
            connector: self.connector,
            requirement: TlsRequirement::Ordinary,
        };
        let plan = HopPlan::make(router, discovery, context, hop, &hops.basis).await;
        let plan = plan.map_err(|unusable| before(unusable.into()))?;
        let addresses = &plan.addresses.addresses;
        let mut own = addresses
            .iter()
            .filter(|address| hop.smart_host().is_none() && router.is_own_address(address));
        if let Some(address) = own.next() {
            let failure = hops.own_address_failure(hop, address, self.mailbox.host());
            return Err(before(failure));
        }
        let policy = plan.policy(context, hop);
        if let Some(refusal) = tls::unmeetable(&policy) {
            return Err(before(Failure::policy(refusal)));
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
                AskedOn::NoAnswer(unanswered) => return Err(unanswered),
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
        let mut last: Option<Unanswered> = None;
        for address in addresses {
            let (mut budget, mut record) = (DialBudget::new(), DialRecord::default());
            let dialled = target.dial(address, &mut budget, &mut record).await;
            let unanswered = match dialled {
                Ok(connection) => match self.ask_on(connection, &key).await {
                    AskedOn::Answer(answer) => return Ok(answer),
                    AskedOn::NoAnswer(unanswered) => unanswered,
                    AskedOn::Stale => continue,
                },
                Err(failure) => before(failure),
            };
            last = Some(unanswered.after(last.as_ref()));
        }
        let none = || Failure::transient(Scope::Hop, Status(4, 4), "the host has no address");
        Err(last.unwrap_or_else(|| before(none())))
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
        self.was_asked.store(true, Ordering::Relaxed);
        let (end, is_reusable) = match connection.ask(self.mailbox, limit).await {
            Ok(asked) => asked,
            Err(broken) if has_waited && broken.is_closed() => return AskedOn::Stale,
            Err(broken) => {
                let failure = broken.failure().with_peer(peer);
                return AskedOn::NoAnswer(Unanswered::awaiting(broken.stage(), failure));
            }
        };
        let most = self.connector.outbound.messages_per_connection;
        if is_reusable && connection.is_reusable(most) {
            pool.put(key.clone(), connection);
        } else {
            pool.quit(key.clone(), connection);
        }
        let (stage, failure) = match end {
            QueryEnd::Answered(reply) => {
                if let Some(answer) = answer(&reply) {
                    return AskedOn::Answer(answer);
                }
                let about_session = ABOUT_SESSIONS.contains(&reply.code().get());
                let failure = session_failure(DialogueStage::Rcpt, reply).with_peer(peer);
                if about_session {
                    return AskedOn::NoAnswer(Unanswered::before_rcpt(failure));
                }
                (DialogueStage::Rcpt, failure)
            }
            QueryEnd::NotAsked { .. } if has_waited && !is_reusable => return AskedOn::Stale,
            QueryEnd::NotAsked { stage, reply } => {
                (stage, session_failure(stage, reply).with_peer(peer))
            }
            QueryEnd::Unfinished => {
                let text = "the session ended without an answer";
                let failure = Failure::transient(Scope::Hop, Status(4, 2), text);
                (DialogueStage::Rcpt, failure.with_peer(peer))
            }
        };
        AskedOn::NoAnswer(Unanswered::awaiting(stage, failure))
    }
}

fn session_failure(stage: DialogueStage, reply: Reply) -> Failure {
    Failure::reply(Scope::Hop, stage.name(), reply)
}

/// Returns the meaning of a reply to RCPT; `None` if it says nothing about the recipient.
fn answer(reply: &Reply) -> Option<AnswerResult> {
    let code = reply.code().get();
    match reply.severity() {
        Severity::Success => Some(Ok(RecipientAnswer::Exists)),
        Severity::Permanent if ABOUT_SESSIONS.contains(&code) || NOT_UNDERSTOOD.contains(&code) => {
            None
        }
        Severity::Permanent => Some(Ok(RecipientAnswer::Unknown(rejection_status(reply)))),
        Severity::Transient | Severity::Intermediate => Some(Err(RecipientTrouble {
            reason: format!("the mailbox server answered RCPT with: {reply}").into(),
            scope: TroubleScope::Mailbox,
        })),
    }
}

/// Returns the status for our own client: that of the mailbox server, or 5.1.1.
fn rejection_status(reply: &Reply) -> EnhancedStatusCode {
    reply.enhanced().unwrap_or_else(no_such_mailbox)
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
            Some(Err(trouble)) => {
                assert_eq!(trouble.scope, TroubleScope::Mailbox, "{text}");
                "trouble".to_owned()
            }
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
