//! The service that asks and remembers, with servers of the test's own.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use gatepost::config::Config;
use gatepost::net::dns::Dns;
use gatepost::net::tls_io::TlsMaterial;
use gatepost::relay::recipient_tables::{
    AnswerResult, RecipientAnswer, RecipientTable, no_such_mailbox,
};
use gatepost::relay::recipients::{
    CheckStep, MailboxServers, QuestionTimes, RecipientCheck, RecipientDecision,
};
use gatepost::relay::running_config::Snapshot;
use gatepost::smtp::address::Mailbox;
use gatepost::telemetry::Monitor;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::tables;
use super::world::{ask, configured};

/// The behaviour of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// `user…` exists, and nobody else.
    Honest,
    /// The same, but only a rejection needs a permit.
    SlowToReject,
    /// The question panics.
    Panics,
}

struct Servers {
    behaviour: Mutex<Behaviour>,
    /// A permit for each answer.
    leave: Semaphore,
    running: AtomicUsize,
    most: AtomicUsize,
}

/// The servers, shared with the check.
struct SharedServers(Arc<Servers>);

impl MailboxServers for SharedServers {
    fn ask(
        &self,
        _: Arc<Snapshot>,
        _: Arc<RecipientTable>,
        mailbox: Mailbox,
    ) -> BoxFuture<'static, AnswerResult> {
        let servers = Arc::clone(&self.0);
        Box::pin(async move { servers.answer(&mailbox).await })
    }
}

impl Servers {
    async fn answer(&self, mailbox: &Mailbox) -> AnswerResult {
        let behaviour = || *self.behaviour.lock().expect("no panic");
        let exists = mailbox.local_part().starts_with("user");
        if behaviour() == Behaviour::SlowToReject && exists {
            return Ok(RecipientAnswer::Exists);
        }
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        self.leave.acquire().await.expect("open").forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        match behaviour() {
            Behaviour::Honest if exists => Ok(RecipientAnswer::Exists),
            Behaviour::Honest | Behaviour::SlowToReject => {
                Ok(RecipientAnswer::Unknown(no_such_mailbox()))
            }
            Behaviour::Panics => panic!("as the test wants"),
        }
    }
}

/// A check, and the servers that it asks.
struct World {
    check: RecipientCheck,
    servers: Arc<Servers>,
    snapshot: Arc<Snapshot>,
}

impl World {
    fn new(behaviour: Behaviour) -> Self {
        Self::with(behaviour, "", QuestionTimes::default())
    }

    /// A world whose table has these keys too, and whose questions have these time limits.
    fn with(behaviour: Behaviour, keys: &str, times: QuestionTimes) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config: Config = configured(&folder, "", &ask(keys), &[]);
        let (tls, _) = TlsMaterial::load(&config).expect("no files");
        let dns = Dns::new(&config.dns).expect("a resolver");
        let tables = tables(&config);
        let snapshot = Snapshot::new(Arc::new(config), tls, dns).with_recipients(tables);
        let servers = Arc::new(Servers {
            behaviour: Mutex::new(behaviour),
            leave: Semaphore::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let asked: Arc<dyn MailboxServers> = Arc::new(SharedServers(Arc::clone(&servers)));
        Self {
            check: RecipientCheck::new(Some(asked), Monitor::default()).with_times(times),
            servers,
            snapshot: Arc::new(snapshot),
        }
    }

    fn behaves(&self, behaviour: Behaviour) {
        *self.servers.behaviour.lock().expect("no panic") = behaviour;
    }

    async fn decision(&self, client: Option<&str>, to: &str) -> RecipientDecision {
        let client: Option<IpAddr> = client.map(|client| client.parse().expect("an address"));
        let mailbox = Mailbox::parse(to).expect("a mailbox");
        let table = RecipientCheck::table(&self.snapshot, &mailbox).expect("a table");
        match self.check.begin(&self.snapshot, table, &mailbox) {
            CheckStep::Decided(decision) => decision,
            CheckStep::Ask(lookup) => lookup.decision(client).await,
        }
    }

    /// The decision about a recipient of a client of ours, as a letter.
    async fn letter(&self, to: &str) -> char {
        letter(&self.decision(None, to).await)
    }

    /// The reason why the table is in trouble.
    fn trouble(&self) -> Option<Arc<str>> {
        self.snapshot.recipients().readings()[0].trouble.clone()
    }
}

/// The letter of a decision: exists, accepted as any other, accepted unchecked (c), unknown, deferred,
/// or not asked.
fn letter(decision: &RecipientDecision) -> char {
    match decision {
        RecipientDecision::Exists => 'e',
        RecipientDecision::Accepted => 'a',
        RecipientDecision::Unchecked(_) => 'c',
        RecipientDecision::Unknown(_) => 'u',
        RecipientDecision::Deferred(_) => 'd',
        RecipientDecision::NotAsked(_) => 'n',
    }
}

const ACCEPT: &str = "on_trouble = \"accept\"";

/// A server that is slow to reject, as Exchange is. A client with a hundred sessions, and a network
/// of them, have a small part of the questions, and nobody is accepted unasked. After as many answers
/// as the network may wait for, everybody else has one.
#[tokio::test]
async fn guesses_at_a_slow_server_hold_up_nobody_else_for_long() {
    let times = QuestionTimes::default();
    let world = Arc::new(World::with(Behaviour::SlowToReject, ACCEPT, times));
    let mut guesses = JoinSet::new();
    for host in 1..=4 {
        for at in 0..100 {
            let (world, client) = (Arc::clone(&world), format!("192.0.2.{host}"));
            let to = format!("guess{at}.{host}@example.com");
            guesses.spawn(async move { letter(&world.decision(Some(&client), &to).await) });
        }
    }
    for _ in 0..400 - 12 {
        let letter = guesses.join_next().await.expect("a client");
        assert_eq!(letter.expect("no panic"), 'n', "it is a limit of ours");
    }
    let other = Arc::clone(&world);
    let other = tokio::spawn(async move {
        let decision = other.decision(Some("198.51.100.1"), "user@example.com");
        letter(&decision.await)
    });
    // A random address is asked about after the yes.
    world.servers.leave.add_permits(12 + 1);
    assert_eq!(guesses.join_all().await, ['u'; 12]);
    assert_eq!(other.await.expect("no panic"), 'e');
    assert_eq!(world.trouble(), None);
}

/// Clients of ours have no such limit. What has no turn in time is deferred. That is no trouble of
/// the server, and it is asked about the next time.
#[tokio::test]
async fn a_wait_for_a_turn_is_no_trouble_of_the_server() {
    let times = QuestionTimes {
        turn: Duration::ZERO,
        ..QuestionTimes::default()
    };
    let world = Arc::new(World::with(Behaviour::SlowToReject, ACCEPT, times));
    let mut clients = JoinSet::new();
    for at in 0..50 {
        let world = Arc::clone(&world);
        clients.spawn(async move { world.letter(&format!("guess{at}@example.com")).await });
    }
    for _ in 0..50 - 8 {
        let letter = clients.join_next().await.expect("a client");
        assert_eq!(letter.expect("no panic"), 'n', "it had no turn");
    }
    world.servers.leave.add_permits(8);
    assert_eq!(clients.join_all().await, ['u'; 8]);
    assert_eq!(world.trouble(), None);
    world.servers.leave.add_permits(50);
    for at in 0..50 {
        let to = format!("guess{at}@example.com");
        assert_eq!(world.letter(&to).await, 'u', "{to} can be asked about");
    }
}

/// The server has no answer in time about some addresses, and one at once about others.
#[tokio::test]
async fn a_late_answer_is_trouble_of_its_mailbox_alone() {
    let times = QuestionTimes {
        answer: Duration::ZERO,
        ..QuestionTimes::default()
    };
    let world = World::with(Behaviour::SlowToReject, ACCEPT, times);
    for at in 0..30 {
        let to = format!("guess{at}@example.com");
        assert_eq!(world.letter(&to).await, 'c', "{to}: on_trouble decides");
    }
    assert!(world.trouble().is_some(), "it is reported");
    world.servers.leave.add_permits(1);
    assert_eq!(world.letter("nobody@example.com").await, 'u', "it is asked");
    // There is no answer about a random address, and the yes counts.
    assert_eq!(world.letter("user@example.com").await, 'e');
}

/// A thousand clients ask about a thousand mailboxes at once.
#[tokio::test]
async fn the_questions_are_bounded() {
    let world = Arc::new(World::new(Behaviour::Honest));
    let mut clients = JoinSet::new();
    for at in 0..1000 {
        let world = Arc::clone(&world);
        clients.spawn(async move { world.letter(&format!("user{at}@example.com")).await });
    }
    for _ in 0..800 {
        let letter = clients.join_next().await.expect("a client");
        assert_eq!(letter.expect("no panic"), 'n', "no answer has been given");
    }
    world.servers.leave.add_permits(1000);
    let letters = clients.join_all().await;
    assert_eq!(letters, ['e'; 200], "those that may wait have their answer");
    assert_eq!(world.servers.most.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn a_question_that_dies_is_trouble_and_can_be_asked_again() {
    let world = World::new(Behaviour::Panics);
    world.servers.leave.add_permits(100);
    assert_eq!(world.letter("user@example.com").await, 'd');
    world.behaves(Behaviour::Honest);
    assert_eq!(world.letter("user@example.com").await, 'e');
    assert_eq!(world.snapshot.recipients().readings()[0].pending, 0);
}
