//! The promises of the interface [`Spool`], as tests that every engine passes.
//!
//! A [`SpoolFixture`] makes a store and opens the engine on it. An engine is added by a fixture and
//! a line in [`on_every_engine`], and in [`on_shared_engines`] if it can have several owners and time is
//! what a test says. The engine over PostgreSQL runs where there is a server; what its owners do to each
//! other takes real time, and has tests of its own.

use std::time::Duration;

use jiff::Timestamp;

use self::memory::{MemorySpool, MemoryStore};
use self::postgresql::open_node;
use super::{
    Body, Claim, Claimed, Draft, Entry, SharedSpool, Spool, SpoolError, SqliteSpool, StoredMessage,
};
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::envelope::{
    AttemptFailure, Envelope, FailureHistory, QueueId, Recipient, RecipientState,
};
use crate::smtp::reply::EnhancedStatusCode;
use crate::storage::postgresql::scratch_database::ScratchDatabase;

pub(crate) mod memory;
pub(super) mod postgresql;

/// A store that an engine is opened on, several times one after the other.
trait SpoolFixture {
    type Engine: Spool;

    /// Makes an empty store.
    async fn new() -> Self;

    /// Opens the engine. The one from before has been dropped.
    async fn open(&self) -> Self::Engine;
}

/// A store that several owners may use at once, each with a lease that has an end.
trait SharedFixture: SpoolFixture {
    /// The time for which a renewed lease holds.
    const LEASE: Duration;

    /// Lets time pass, for all owners.
    fn advance(&self, time: Duration);
}

struct EmbeddedFixture(tempfile::TempDir);

impl SpoolFixture for EmbeddedFixture {
    type Engine = SqliteSpool;

    async fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    async fn open(&self) -> SqliteSpool {
        SqliteSpool::open(self.0.path()).expect("a spool")
    }
}

struct MemoryFixture(MemoryStore);

impl SpoolFixture for MemoryFixture {
    type Engine = MemorySpool;

    async fn new() -> Self {
        Self(MemoryStore::default())
    }

    async fn open(&self) -> MemorySpool {
        MemorySpool::open(&self.0)
    }
}

impl SharedFixture for MemoryFixture {
    const LEASE: Duration = memory::LEASE;

    fn advance(&self, time: Duration) {
        self.0.advance(time);
    }
}

/// A database, and the folder of its only node.
struct DatabaseFixture {
    database: ScratchDatabase,
    folder: tempfile::TempDir,
}

impl SpoolFixture for DatabaseFixture {
    type Engine = SharedSpool;

    async fn new() -> Self {
        Self {
            database: ScratchDatabase::create().await,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    async fn open(&self) -> SharedSpool {
        let lease = Duration::from_secs(30);
        open_node(&self.database, self.folder.path(), "relay-1", lease).await
    }
}

macro_rules! on_engine {
    ($engine:ident, $fixture:ty, $($test:ident)*) => {
        mod $engine {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test::<$fixture>().await;
                }
            )*
        }
    };
}

/// Runs tests on a PostgreSQL server, if one is there for tests.
macro_rules! on_database {
    ($($test:ident)*) => {
        mod postgresql_only {
            $(
                #[tokio::test]
                #[ignore = "needs PostgreSQL"]
                async fn $test() {
                    super::$test::<crate::storage::spool::suite::DatabaseFixture>().await;
                }
            )*
        }
    };
}

macro_rules! on_every_engine {
    ($($test:ident)*) => {
        on_engine!(embedded, crate::storage::spool::suite::EmbeddedFixture, $($test)*);
        on_engine!(memory_only, crate::storage::spool::suite::MemoryFixture, $($test)*);
        on_database!($($test)*);
    };
}

macro_rules! on_shared_engines {
    ($($test:ident)*) => {
        on_engine!(shared_memory, crate::storage::spool::suite::MemoryFixture, $($test)*);
    };
}

// After the macros, which it uses.
mod owners;

on_every_engine! {
    a_message_has_what_was_committed
    the_list_is_in_the_order_of_ids_page_by_page
    a_state_is_stored_for_few_recipients_and_for_many
    each_change_of_many_is_kept
    what_concerns_all_recipients_changes_with_them
    a_message_that_was_removed_is_missing
    a_draft_that_is_dropped_leaves_nothing
    ids_rise_also_after_a_start
    a_report_is_a_message_like_others
    reports_are_stored_with_the_state
    a_finished_message_is_removed_with_its_reports_stored
    reports_about_a_missing_message_are_not_stored
}

fn recipients(count: usize) -> Vec<Recipient> {
    let mailbox = |number| Mailbox::parse(&format!("b@d{number}.example")).expect("valid");
    (0..count)
        .map(|number| Recipient::new(mailbox(number)))
        .collect()
}

pub(super) fn envelope(count: usize) -> Envelope {
    let sender = ReversePath::parse("a@example.org").expect("valid");
    Envelope::new(sender, recipients(count))
}

pub(super) fn content(size: usize) -> Vec<u8> {
    b"Subject: some text\r\n"
        .iter()
        .copied()
        .cycle()
        .take(size)
        .collect()
}

pub(super) async fn put(spool: &impl Spool, envelope: Envelope, content: &[u8]) -> Claimed<Entry> {
    let mut draft = spool.draft();
    for piece in content.chunks(10_000) {
        draft.write(piece).await.expect("room");
    }
    let id = draft.id();
    let (receipt, entry) = spool.commit(draft, envelope).await.expect("durable");
    assert_eq!((receipt.id(), entry.id), (id, id));
    entry
}

pub(super) async fn settle(
    spool: &impl Spool,
    claim: Claim,
    before: &Envelope,
    after: &Envelope,
) -> Result<(), SpoolError> {
    let settled = spool.settle(claim, before, Some(after), Vec::new());
    settled.await.map(drop)
}

/// Writes the drafts of reports, one small and one large.
async fn reports(spool: &impl Spool) -> Vec<(Draft, Envelope)> {
    let mut reports = Vec::new();
    for size in [100, 300_000] {
        let mut draft = spool.draft_report();
        draft.write(&content(size)).await.expect("room");
        reports.push((draft, envelope(1)));
    }
    reports
}

pub(super) async fn read(body: &Body) -> Vec<u8> {
    let (mut reader, mut read) = (body.reader().await.expect("readable"), Vec::new());
    while let Some(chunk) = reader.next().await.expect("sound") {
        read.extend_from_slice(&chunk);
    }
    read
}

async fn list(spool: &impl Spool, limit: usize) -> Vec<StoredMessage> {
    let mut all: Vec<StoredMessage> = Vec::new();
    loop {
        let after = all.last().map(|stored| stored.id);
        let page = spool.scan(after, limit).await.expect("listed");
        assert!(page.len() <= limit);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// Claims everything that is nobody's, in pages of at most `limit`.
pub(super) async fn claim_all(spool: &impl Spool, limit: usize) -> Vec<Claimed<StoredMessage>> {
    let mut all: Vec<Claimed<StoredMessage>> = Vec::new();
    loop {
        let after = all.last().map(|claimed| claimed.claim.id());
        let page = spool.claim(after, limit).await.expect("claimed");
        assert!(page.len() <= limit);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

pub(super) async fn ids(spool: &impl Spool) -> Vec<QueueId> {
    let all = list(spool, 100).await;
    all.iter().map(|stored| stored.id).collect()
}

fn deferred(text: &str) -> RecipientState {
    let mut history = FailureHistory::default();
    history.push(failure(text), 1);
    RecipientState::Pending {
        attempts: 3,
        next: Some(Timestamp::UNIX_EPOCH),
        history,
        warned: true,
        apart: true,
    }
}

fn failure(text: &str) -> AttemptFailure {
    AttemptFailure {
        at: Timestamp::UNIX_EPOCH,
        status: EnhancedStatusCode::parse("4.2.1").expect("valid"),
        text: text.to_owned(),
        explanation: None,
        host: None,
        reply: None,
    }
}

/// Asserts that a message has this envelope, in the list and when it is loaded.
async fn assert_envelope(spool: &impl Spool, id: QueueId, expected: &Envelope) {
    let loaded = spool.load(id).await.expect("there");
    assert!(loaded.envelope == *expected, "as it is loaded");
    let listed = list(spool, 100).await;
    let listed = listed.iter().find(|stored| stored.id == id);
    assert!(listed.expect("there").envelope == *expected, "in the list");
}

/// A message of any size comes back as it was committed, at once and after a start.
async fn a_message_has_what_was_committed<F: SpoolFixture>() {
    let fixture = F::new().await;
    let mut spool = fixture.open().await;
    let mut put_entries = Vec::new();
    for size in [0, 1, 128 * 1024, 128 * 1024 + 1, 700_000] {
        let entry = put(&spool, envelope(2), &content(size)).await;
        assert!(read(&entry.body).await == content(size), "{size}");
        put_entries.push(entry);
    }
    for _ in 0..2 {
        for before in &put_entries {
            let after = spool.load(before.id).await.expect("there");
            assert_eq!(
                (after.accepted, after.size, &after.envelope),
                (before.accepted, before.size, &before.envelope)
            );
            let size = usize::try_from(before.size).expect("small");
            assert!(read(&after.body).await == content(size), "{size}");
        }
        drop(spool);
        spool = fixture.open().await;
    }
}

async fn the_list_is_in_the_order_of_ids_page_by_page<F: SpoolFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    assert!(list(&spool, 1).await.is_empty());
    let mut expected = Vec::new();
    for _ in 0..7 {
        expected.push(put(&spool, envelope(1), b"x").await.id);
    }
    for limit in [1, 2, 7, 100] {
        let listed = list(&spool, limit).await;
        let listed: Vec<_> = listed.iter().map(|stored| stored.id).collect();
        assert_eq!(listed, expected, "{limit}");
    }
    let others = spool.scan(Some(expected[3]), 2).await.expect("listed");
    let others: Vec<_> = others.iter().map(|stored| stored.id).collect();
    assert_eq!(others, expected[4..6]);
}

async fn a_state_is_stored_for_few_recipients_and_for_many<F: SpoolFixture>() {
    for count in [1, 2, 16, 17, 1000] {
        let fixture = F::new().await;
        let spool = fixture.open().await;
        let other = put(&spool, envelope(count), b"x").await;
        let entry = put(&spool, envelope(count), b"y").await;
        let mut after = entry.envelope.clone();
        for (at, recipient) in after.recipients.iter_mut().enumerate() {
            match at % 4 {
                0 => recipient.state = deferred("later"),
                1 => recipient.state = RecipientState::Delivered,
                2 => {
                    recipient.state = RecipientState::Failed;
                    recipient.owed = Some(Box::new(failure("never")));
                }
                _ => {}
            }
        }
        let settled = settle(&spool, entry.claim, &entry.envelope, &after);
        settled.await.expect("settled");
        assert_envelope(&spool, entry.id, &after).await;
        drop(spool);
        let spool = fixture.open().await;
        assert_envelope(&spool, entry.id, &after).await;
        assert_envelope(&spool, other.id, &other.envelope).await;
        let loaded = spool.load(entry.id).await.expect("there");
        assert_eq!(read(&loaded.body).await, b"y");
    }
}

/// Each change says nothing about the recipients of the others, and the latest counts.
async fn each_change_of_many_is_kept<F: SpoolFixture>() {
    let fixture = F::new().await;
    let mut spool = fixture.open().await;
    let entry = put(&spool, envelope(50), b"x").await;
    let (mut state, mut claim) = (entry.envelope.clone(), entry.claim);
    for round in 0..3 {
        for at in (round..50).step_by(round + 1) {
            let before = state.clone();
            state.recipients[at].state = deferred(&format!("{round} {at}"));
            state.recipients[at].owed = (at % 3 == round).then(|| Box::new(failure("owed")));
            let settled = settle(&spool, claim, &before, &state);
            settled.await.expect("settled");
        }
        assert_envelope(&spool, entry.id, &state).await;
        drop(spool);
        spool = fixture.open().await;
        assert_envelope(&spool, entry.id, &state).await;
        claim = claim_all(&spool, 10).await[0].claim;
    }
}

async fn what_concerns_all_recipients_changes_with_them<F: SpoolFixture>() {
    for count in [1, 100] {
        let fixture = F::new().await;
        let spool = fixture.open().await;
        let entry = put(&spool, envelope(count), b"x").await;
        let mut after = entry.envelope.clone();
        after.confidential = true;
        after.recipients[0].state = RecipientState::Delivered;
        let settled = settle(&spool, entry.claim, &entry.envelope, &after);
        settled.await.expect("settled");
        drop(spool);
        assert_envelope(&fixture.open().await, entry.id, &after).await;
    }
}

async fn a_message_that_was_removed_is_missing<F: SpoolFixture>() {
    let fixture = F::new().await;
    let mut spool = fixture.open().await;
    let gone = [
        put(&spool, envelope(1), b"x").await,
        put(&spool, envelope(100), &content(300_000)).await,
    ];
    let other = put(&spool, envelope(1), b"y").await;
    for entry in &gone {
        spool.remove(entry.claim).await.expect("removed");
    }
    for is_first in [true, false] {
        for entry in &gone {
            let is_missing = |result: Result<(), SpoolError>| matches!(result, Err(SpoolError::Missing(missing)) if missing == entry.id);
            assert!(is_missing(spool.load(entry.id).await.map(drop)));
            assert!(is_missing(spool.claimed(entry.id).await.map(drop)));
            if is_first {
                let envelope = &entry.envelope;
                assert!(is_missing(
                    settle(&spool, entry.claim, envelope, envelope).await
                ));
                assert!(is_missing(spool.remove(entry.claim).await));
            }
        }
        assert_eq!(ids(&spool).await, [other.id]);
        drop(spool);
        spool = fixture.open().await;
    }
}

async fn a_draft_that_is_dropped_leaves_nothing<F: SpoolFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    let mut draft = spool.draft();
    draft.write(&content(300_000)).await.expect("room");
    let id = draft.id();
    drop(draft);
    assert!(ids(&spool).await.is_empty());
    assert!(matches!(
        spool.load(id).await,
        Err(SpoolError::Missing(missing)) if missing == id
    ));
}

async fn ids_rise_also_after_a_start<F: SpoolFixture>() {
    let fixture = F::new().await;
    let mut last = None;
    for _ in 0..3 {
        let spool = fixture.open().await;
        for _ in 0..3 {
            let entry = put(&spool, envelope(1), b"x").await;
            let (id, claim) = (entry.id, entry.claim);
            assert!(last < Some(id));
            last = Some(id);
            spool.remove(claim).await.expect("removed");
        }
    }
}

async fn a_report_is_a_message_like_others<F: SpoolFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    let mut draft = spool.draft_report();
    draft.write(b"report").await.expect("room");
    let (receipt, _) = spool.commit(draft, envelope(1)).await.expect("durable");
    let loaded = spool.load(receipt.id()).await.expect("there");
    assert_eq!(read(&loaded.body).await, b"report");
    assert!(loaded.accepted >= Timestamp::now() - Duration::from_hours(1));
}

async fn reports_are_stored_with_the_state<F: SpoolFixture>() {
    for count in [2, 100] {
        let fixture = F::new().await;
        let spool = fixture.open().await;
        let entry = put(&spool, envelope(count), b"x").await;
        let mut after = entry.envelope.clone();
        after.recipients[1].state = RecipientState::Failed;
        let drafts = reports(&spool).await;
        let settled = spool.settle(entry.claim, &entry.envelope, Some(&after), drafts);
        let stored = settled.await.expect("settled");
        assert_eq!(stored.len(), 2);
        drop(spool);
        let spool = fixture.open().await;
        assert_envelope(&spool, entry.id, &after).await;
        for ((receipt, report), size) in stored.iter().zip([100, 300_000]) {
            assert_eq!(receipt.id(), report.id);
            let loaded = spool.load(report.id).await.expect("there");
            assert_eq!(loaded.envelope, report.envelope);
            assert!(read(&loaded.body).await == content(size), "{size}");
        }
        assert_eq!(
            ids(&spool).await,
            [entry.id, stored[0].1.id, stored[1].1.id]
        );
    }
}

async fn a_finished_message_is_removed_with_its_reports_stored<F: SpoolFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    let entry = put(&spool, envelope(2), &content(300_000)).await;
    let drafts = reports(&spool).await;
    let settled = spool.settle(entry.claim, &entry.envelope, None, drafts);
    let stored = settled.await.expect("settled");
    let stored: Vec<_> = stored.iter().map(|(receipt, _)| receipt.id()).collect();
    assert_eq!(ids(&spool).await, stored);
    drop(spool);
    assert_eq!(ids(&fixture.open().await).await, stored);
}

async fn reports_about_a_missing_message_are_not_stored<F: SpoolFixture>() {
    let fixture = F::new().await;
    let spool = fixture.open().await;
    let entry = put(&spool, envelope(2), b"x").await;
    spool.remove(entry.claim).await.expect("removed");
    for after in [None, Some(&entry.envelope)] {
        let drafts = reports(&spool).await;
        let settled = spool.settle(entry.claim, &entry.envelope, after, drafts);
        assert!(matches!(settled.await, Err(SpoolError::Missing(_))));
    }
    assert!(ids(&spool).await.is_empty());
    drop(spool);
    assert!(ids(&fixture.open().await).await.is_empty());
}
