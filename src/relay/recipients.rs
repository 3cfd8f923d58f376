//! Recipients that exist: what is known is answered at once, and servers are asked in tasks of
//! their own.
//!
//! A question is asked once for all clients that wait for it. The numbers of questions and of
//! waiting clients are bounded, for each client too, and so is the time of a question, so that a
//! server that hangs holds up only the clients that ask it. A source without an answer is left alone
//! for some seconds, and `on_trouble` decides meanwhile. Trouble with one mailbox is no trouble with
//! others: clients choose the mailboxes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::OnTrouble;
use crate::policy::recipients::always_exists;
use crate::smtp::address::{Domain, Mailbox};
use crate::smtp::reply::EnhancedStatusCode;
use crate::telemetry::{Monitor, RecipientCheckResult};

use super::recipient_tables::{
    AnswerResult, KnownAnswer, PendingAnswer, Question, RecipientAnswer, RecipientTable,
    RecipientTrouble, TableChange, TroubleScope, WaitPermit, WaitRefused,
};
use super::running_config::Snapshot;

/// The time limits of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuestionTimes {
    /// The longest wait for its turn.
    pub turn: Duration,
    /// The time limit of the answer when it is its turn.
    pub answer: Duration,
}

impl Default for QuestionTimes {
    fn default() -> Self {
        Self {
            turn: Duration::from_secs(20),
            answer: Duration::from_secs(20),
        }
    }
}

/// The most clients that wait for the answers of one table, and the largest part of all sessions.
const WAITING_MAX: usize = 200;
const WAITING_PART: usize = 4;
/// The octets of the random address that is tried at a server, in hexadecimal: 16 digits.
const RANDOM_OCTETS: usize = 8;

/// The servers that can be asked about a mailbox.
pub trait MailboxServers: Send + Sync + 'static {
    /// Asks the server of a mailbox, by the configuration of `snapshot`. The caller limits the
    /// time.
    fn ask(
        &self,
        snapshot: Arc<Snapshot>,
        table: Arc<RecipientTable>,
        mailbox: Mailbox,
    ) -> BoxFuture<'static, AnswerResult>;
}

/// The decision about a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientDecision {
    /// The recipient exists.
    Exists,
    /// The recipient is accepted, since its server accepts any address.
    Accepted,
    /// There is no answer, and the recipient is accepted without one.
    Unchecked(Arc<str>),
    /// The mailbox does not exist.
    Unknown(EnhancedStatusCode),
    /// There is no answer, and the client must try again.
    Deferred(Arc<str>),
    /// No question was asked, because of a limit of ours, and the client must try again.
    NotAsked(Arc<str>),
}

/// The check of recipients. Clones share the servers.
#[derive(Clone)]
pub struct RecipientCheck {
    servers: Option<Arc<dyn MailboxServers>>,
    monitor: Monitor,
    times: QuestionTimes,
}

/// A recipient that is being checked.
pub struct RecipientLookup {
    check: RecipientCheck,
    snapshot: Arc<Snapshot>,
    table: Arc<RecipientTable>,
    mailbox: Mailbox,
}

/// The first step of a check.
pub enum CheckStep {
    /// The decision, without a question.
    Decided(RecipientDecision),
    /// A server must be asked.
    Ask(Box<RecipientLookup>),
}

impl RecipientCheck {
    /// Creates the check with the servers that can be asked. Without any, every question is
    /// trouble.
    #[must_use]
    pub fn new(servers: Option<Arc<dyn MailboxServers>>, monitor: Monitor) -> Self {
        Self {
            servers,
            monitor,
            times: QuestionTimes::default(),
        }
    }

    /// Sets other time limits.
    #[must_use]
    pub fn with_times(self, times: QuestionTimes) -> Self {
        Self { times, ..self }
    }

    /// Returns the table that decides about a mailbox; `None` if it is not checked.
    #[must_use]
    pub fn table(snapshot: &Snapshot, mailbox: &Mailbox) -> Option<Arc<RecipientTable>> {
        let table = snapshot.recipients().find(mailbox)?;
        (!always_exists(&snapshot.config.postmaster, mailbox)).then(|| Arc::clone(table))
    }

    /// Begins the check of a mailbox about which `table` decides.
    #[must_use]
    pub fn begin(
        &self,
        snapshot: &Arc<Snapshot>,
        table: Arc<RecipientTable>,
        mailbox: &Mailbox,
    ) -> CheckStep {
        let result = match table.known(mailbox) {
            KnownAnswer::Known(result) => result,
            KnownAnswer::Unchecked => {
                self.count(&table, RecipientCheckResult::Unchecked);
                return CheckStep::Decided(RecipientDecision::Accepted);
            }
            KnownAnswer::Unknown => {
                return CheckStep::Ask(Box::new(RecipientLookup {
                    check: self.clone(),
                    snapshot: Arc::clone(snapshot),
                    table,
                    mailbox: mailbox.clone(),
                }));
            }
        };
        CheckStep::Decided(self.decide(&table, &result))
    }

    /// Applies `on_trouble` to a result, and counts it. What a limit of ours prevents is deferred
    /// always, since many clients together could reach the limit to have everything accepted.
    fn decide(&self, table: &RecipientTable, result: &AnswerResult) -> RecipientDecision {
        let (counted, decision) = match result {
            Ok(RecipientAnswer::Exists) => {
                (RecipientCheckResult::Exists, RecipientDecision::Exists)
            }
            Ok(RecipientAnswer::Unknown(status)) => (
                RecipientCheckResult::Unknown,
                RecipientDecision::Unknown(*status),
            ),
            Err(trouble) => {
                let reason = Arc::clone(&trouble.reason);
                let decision = match (trouble.scope, table.rules().on_trouble) {
                    (TroubleScope::Limit, _) => RecipientDecision::NotAsked(reason),
                    (_, OnTrouble::Defer) => RecipientDecision::Deferred(reason),
                    (_, OnTrouble::Accept) => RecipientDecision::Unchecked(reason),
                };
                (RecipientCheckResult::Trouble, decision)
            }
        };
        self.count(table, counted);
        decision
    }

    fn count(&self, table: &RecipientTable, result: RecipientCheckResult) {
        let source = table.rules().source.key();
        self.monitor.recipient_checked(source, result);
    }
}

impl RecipientLookup {
    /// Waits for the answer of the server. `client` is the address of the client whose limit holds;
    /// `None` for a client of ours.
    pub async fn decision(self, client: Option<IpAddr>) -> RecipientDecision {
        let Self {
            check,
            snapshot,
            table,
            mailbox,
        } = self;
        let most =
            (snapshot.config.limits.clients.connections / WAITING_PART).clamp(1, WAITING_MAX);
        let result = match table.permit_wait(client, most) {
            Ok(permit) => check.ask(&snapshot, &table, mailbox, permit).await,
            Err(WaitRefused::All) => Err(overload(
                "too many clients wait for an answer about recipients",
            )),
            Err(WaitRefused::Client) => Err(overload(
                "the client or its network waits for too many answers about recipients",
            )),
        };
        check.decide(&table, &result)
    }
}

impl RecipientCheck {
    async fn ask(
        &self,
        snapshot: &Arc<Snapshot>,
        table: &Arc<RecipientTable>,
        mailbox: Mailbox,
        permit: WaitPermit,
    ) -> AnswerResult {
        let permit = Arc::new(permit);
        let mut pending = match table.question(&mailbox) {
            Question::TooMany => return Err(overload("too many questions about recipients wait")),
            Question::Pending(pending) => pending,
            Question::New(sender, pending) => {
                let question = RunningQuestion {
                    check: self.clone(),
                    snapshot: Arc::clone(snapshot),
                    table: Arc::clone(table),
                    mailbox,
                    is_answered: false,
                    _permit: Arc::clone(&permit),
                };
                // A task of its own, since others may wait for the answer when this client has
                // gone.
                tokio::spawn(question.run(sender));
                pending
            }
        };
        let answer = answer_of(&mut pending).await;
        drop(permit);
        answer
    }
}

/// Waits for the answer to a question that is being asked.
async fn answer_of(pending: &mut PendingAnswer) -> AnswerResult {
    let answered = pending.wait_for(Option::is_some).await;
    let answer = answered.ok().and_then(|answer| answer.clone());
    answer.unwrap_or_else(|| Err(no_answer("the question about the recipient was abandoned")))
}

/// A limit of ours, which says nothing about the source.
fn overload(reason: &str) -> RecipientTrouble {
    RecipientTrouble {
        reason: reason.into(),
        scope: TroubleScope::Limit,
    }
}

/// A question without an answer, which says nothing about other mailboxes.
fn no_answer(reason: &str) -> RecipientTrouble {
    RecipientTrouble {
        reason: reason.into(),
        scope: TroubleScope::Mailbox,
    }
}

/// A question in its task.
struct RunningQuestion {
    check: RecipientCheck,
    snapshot: Arc<Snapshot>,
    table: Arc<RecipientTable>,
    mailbox: Mailbox,
    is_answered: bool,
    /// The permit of the client that asked, which may have gone.
    _permit: Arc<WaitPermit>,
}

/// Ends the question if its task dies.
impl Drop for RunningQuestion {
    fn drop(&mut self) {
        if !self.is_answered {
            self.table.abandon(&self.mailbox);
        }
    }
}

impl RunningQuestion {
    async fn run(mut self, sender: watch::Sender<Option<AnswerResult>>) {
        let turns = Arc::clone(self.table.running());
        // The semaphore is never closed.
        let result = match timeout(self.check.times.turn, turns.acquire_owned()).await {
            Ok(_turn) => self.answer().await,
            Err(_) => Err(overload("too many questions about recipients wait")),
        };
        let change = self.table.store(&self.mailbox, &result);
        self.is_answered = true;
        self.log(change);
        // Nobody may wait any more.
        let _ = sender.send(Some(result));
    }

    /// Asks about the mailbox. After a yes it is found out whether the server accepts any address
    /// of the domain, unless that is known.
    async fn answer(&self) -> AnswerResult {
        let answer = self.ask(self.mailbox.clone()).await?;
        if answer == RecipientAnswer::Exists
            && let Some(domain) = self.mailbox.host().domain()
            && self.table.must_try_any(domain)
        {
            self.try_any(domain).await;
        }
        Ok(answer)
    }

    /// Asks about one mailbox. The servers report trouble of their own sooner than this time limit
    /// ends, so that its end says nothing about other mailboxes.
    async fn ask(&self, mailbox: Mailbox) -> AnswerResult {
        match &self.check.servers {
            Some(servers) => {
                let (snapshot, table) = (Arc::clone(&self.snapshot), Arc::clone(&self.table));
                let limit = self.check.times.answer;
                let asked = timeout(limit, servers.ask(snapshot, table, mailbox)).await;
                asked.unwrap_or_else(|_| {
                    let reason = format!("no answer within {} s", limit.as_secs());
                    Err(no_answer(&reason))
                })
            }
            None => Err(no_answer("this process cannot ask about recipients")),
        }
    }

    /// Asks about a random address, which cannot exist.
    async fn try_any(&self, domain: &Domain) {
        let Some(mailbox) = random_mailbox(domain) else {
            return;
        };
        let accepts = match self.ask(mailbox).await {
            Ok(RecipientAnswer::Exists) => Some(true),
            Ok(RecipientAnswer::Unknown(_)) => Some(false),
            Err(_) => None,
        };
        if self.table.set_accepts_any(domain, accepts) {
            warn!(
                %domain, from = self.table.rules().source.key(), place = %self.table.rules().location,
                remedy = "let the mailbox server reject unknown recipients at RCPT, correct the filter of the directory, or list the recipients in a file (from = \"file\")",
                "a random address was accepted: recipients of this domain are not checked"
            );
        }
    }

    fn log(&self, change: Option<TableChange>) {
        let rules = self.table.rules();
        let (domains, from, place) = (rules.label(), rules.source.key(), &rules.location);
        match change {
            Some(TableChange::Trouble(reason)) => {
                let monitor = &self.check.monitor;
                if monitor.should_log("recipients cannot be checked", &domains, &reason) {
                    warn!(
                        domains, from, %place, %reason, on_trouble = rules.on_trouble.as_str(),
                        "recipients cannot be checked; on_trouble decides until there is an answer"
                    );
                }
            }
            Some(TableChange::Recovered) => {
                info!(domains, from, "recipients are checked again");
            }
            None => {}
        }
    }
}

/// Returns an address that cannot exist; `None` if there is no randomness.
fn random_mailbox(domain: &Domain) -> Option<Mailbox> {
    let mut octets = [0_u8; RANDOM_OCTETS];
    aws_lc_rs::rand::fill(&mut octets).ok()?;
    let digits = u64::from_be_bytes(octets);
    Mailbox::parse(&format!("gatepost-{digits:016x}@{domain}")).ok()
}
