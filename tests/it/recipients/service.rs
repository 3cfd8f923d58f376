//! The service that asks and remembers, with servers of the test's own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use gatepost::config::Config;
use gatepost::net::dns::Dns;
use gatepost::net::tls_io::TlsMaterial;
use gatepost::relay::recipient_tables::{
    AnswerResult, RecipientAnswer, RecipientTable, no_such_mailbox,
};
use gatepost::relay::recipients::{CheckStep, MailboxServers, RecipientCheck, RecipientDecision};
use gatepost::relay::running_config::Snapshot;
use gatepost::smtp::address::Mailbox;
use gatepost::telemetry::Monitor;
use tokio::sync::Semaphore;

use super::tables;
use super::world::{ask, configured};

/// The behaviour of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// `user…` exists, and nobody else.
    Honest,
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
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        self.leave.acquire().await.expect("open").forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        let behaviour = *self.behaviour.lock().expect("no panic");
        match behaviour {
            Behaviour::Honest if mailbox.local_part().starts_with("user") => {
                Ok(RecipientAnswer::Exists)
            }
            Behaviour::Honest => Ok(RecipientAnswer::Unknown(no_such_mailbox())),
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
        let folder = tempfile::tempdir().expect("a folder");
        let config: Config = configured(&folder, "", &ask(""), &[]);
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
            check: RecipientCheck::new(Some(asked), Monitor::default()),
            servers,
            snapshot: Arc::new(snapshot),
        }
    }

    fn behaves(&self, behaviour: Behaviour) {
        *self.servers.behaviour.lock().expect("no panic") = behaviour;
    }

    async fn decision(&self, to: &str) -> RecipientDecision {
        let mailbox = Mailbox::parse(to).expect("a mailbox");
        let table = RecipientCheck::table(&self.snapshot, &mailbox).expect("a table");
        match self.check.begin(&self.snapshot, table, &mailbox) {
            CheckStep::Decided(decision) => decision,
            CheckStep::Ask(lookup) => lookup.decision().await,
        }
    }

    /// The decision as a letter: accepted, unknown or deferred.
    async fn letter(&self, to: &str) -> char {
        match self.decision(to).await {
            RecipientDecision::Accepted => 'a',
            RecipientDecision::Unknown(_) => 'u',
            RecipientDecision::Deferred(_) => 'd',
        }
    }
}

/// A thousand clients ask about a thousand mailboxes at once.
#[tokio::test]
async fn the_questions_are_bounded() {
    let world = Arc::new(World::new(Behaviour::Honest));
    let mut clients = tokio::task::JoinSet::new();
    for at in 0..1000 {
        let world = Arc::clone(&world);
        clients.spawn(async move { world.letter(&format!("user{at}@example.com")).await });
    }
    for _ in 0..800 {
        let letter = clients.join_next().await.expect("a client");
        assert_eq!(letter.expect("no panic"), 'd', "no answer has been given");
    }
    world.servers.leave.add_permits(1000);
    let letters = clients.join_all().await;
    assert_eq!(letters, ['a'; 200], "those that may wait have their answer");
    assert_eq!(world.servers.most.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn a_question_that_dies_is_trouble_and_can_be_asked_again() {
    let world = World::new(Behaviour::Panics);
    world.servers.leave.add_permits(100);
    assert_eq!(world.letter("user@example.com").await, 'd');
    world.behaves(Behaviour::Honest);
    assert_eq!(world.letter("user@example.com").await, 'a');
    assert_eq!(world.snapshot.recipients().readings()[0].pending, 0);
}
