//! The state that an operator's order leaves if it is cut short: the spool fails, the evidence
//! cannot be written, or the job panics.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatepost::config::Config;
use gatepost::discovery::Discovery;
use gatepost::discovery::history::History;
use gatepost::discovery::mta_sts::{MtaSts, WebSource};
use gatepost::net::dns::Dns;
use gatepost::net::https::Https;
use gatepost::net::tls_io::TlsMaterial;
use gatepost::relay::outbound::Outbound;
use gatepost::relay::running_config::{RunningConfig, Snapshot};
use gatepost::relay::scheduler::{Operator, Order, OrderRefused, Scheduler};
use gatepost::relay::tlsrpt::Reporter;
use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{
    Envelope, FailureHistory as Past, QueueId, Recipient, RecipientState,
};
use gatepost::storage::evidence::Evidence;
use gatepost::storage::spool::{
    Claim, Claimed, Draft, Entry, HeldLease, Lease, Receipt, SetAside, Spool, SpoolError,
    SpoolFuture, SqliteSpool, StoredMessage,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::in_process::{SENDER, configured};

/// A spool that fails where the test wants it.
#[derive(Debug)]
pub(crate) struct Brittle {
    pub(crate) spool: SqliteSpool,
    /// No report goes in.
    pub(crate) refuses_reports: AtomicBool,
    /// The next state or removal panics …
    panics: AtomicBool,
    /// … or the next state does so once it is written.
    panics_afterwards: AtomicBool,
    /// No state is stored and nothing is removed any more.
    ended: AtomicBool,
    /// There is hardly any room for results.
    pub(crate) is_stuck: AtomicBool,
    /// There is none for anything but removals and the end of recipients.
    pub(crate) is_full: AtomicBool,
    /// The folder is moved away before the next result is stored …
    pub(crate) moves_at_result: AtomicBool,
    /// … or before something is claimed.
    pub(crate) moves_at_claim: AtomicBool,
    /// The folder is away, and its loss was noticed.
    is_away: AtomicBool,
    folder: PathBuf,
}

impl Brittle {
    pub(crate) fn open(folder: &Path) -> Self {
        Self {
            moves_at_result: AtomicBool::new(false),
            moves_at_claim: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
            folder: folder.join("spool"),
            spool: SqliteSpool::open(&folder.join("spool")).expect("nobody else has it"),
            refuses_reports: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            panics_afterwards: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
        }
    }

    /// Returns whether there is no room for this state.
    fn has_no_room(&self, before: &Envelope, after: Option<&Envelope>) -> bool {
        let is_end = |after: &Envelope| {
            let recipients = before.recipients.iter().zip(&after.recipients);
            let mut changed = recipients.filter(|(before, after)| before != after);
            before.recipients != after.recipients && changed.all(|(_, after)| after.has_ended())
        };
        self.is_full.load(Ordering::SeqCst) && !after.is_none_or(is_end)
    }

    /// Moves the folder away. Returns the refusal of what is asked next.
    async fn move_away(&self) -> SpoolError {
        let moved = fs::rename(&self.folder, self.folder.with_extension("away"));
        moved.expect("it is there");
        let refusal = self.spool.renew().await.expect_err("it is lost");
        self.is_away.store(true, Ordering::SeqCst);
        refusal
    }

    /// Puts the folder back once its loss was noticed.
    pub(crate) async fn put_back(&self) {
        let is_away = async || self.is_away.load(Ordering::SeqCst);
        eventually("the loss is noticed", is_away).await;
        let moved = fs::rename(self.folder.with_extension("away"), &self.folder);
        moved.expect("it was moved");
        self.spool.renew().await.expect("it is ours again");
    }
}

impl Spool for Brittle {
    fn draft(&self) -> Draft {
        self.spool.draft()
    }
    fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> SpoolFuture<'_, (Receipt, Claimed<Entry>)> {
        if envelope.reverse_path == ReversePath::Null && self.refuses_reports.load(Ordering::SeqCst)
        {
            return Box::pin(async { Err(SpoolError::Full("says the test".to_owned())) });
        }
        self.spool.commit(draft, envelope)
    }
    fn settle(
        &self,
        claim: Claim,
        before: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> SpoolFuture<'_, Vec<(Receipt, Claimed<Entry>)>> {
        let is_full = self.is_full.load(Ordering::SeqCst);
        let refuses_reports = is_full || self.refuses_reports.load(Ordering::SeqCst);
        if !reports.is_empty() && refuses_reports || self.has_no_room(before, after) {
            return Box::pin(async { Err(SpoolError::Full("says the test".to_owned())) });
        }
        assert!(
            !self.panics.swap(false, Ordering::SeqCst),
            "the work on an order dies, says the test"
        );
        if self.moves_at_result.swap(false, Ordering::SeqCst) {
            return Box::pin(async { Err(self.move_away().await) });
        }
        let settled = self.spool.settle(claim, before, after, reports);
        Box::pin(async move {
            if self.ended.load(Ordering::SeqCst) {
                return Err(SpoolError::Closed);
            }
            let written = settled.await;
            assert!(
                !self.panics_afterwards.swap(false, Ordering::SeqCst),
                "the work on an order dies, says the test"
            );
            written
        })
    }
    fn remove(&self, claim: Claim) -> SpoolFuture<'_, ()> {
        assert!(
            !self.panics.swap(false, Ordering::SeqCst),
            "the work on an order dies, says the test"
        );
        Box::pin(async move {
            if self.ended.load(Ordering::SeqCst) {
                Err(SpoolError::Closed)
            } else {
                self.spool.remove(claim).await
            }
        })
    }
    fn claim(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> SpoolFuture<'_, Vec<Claimed<StoredMessage>>> {
        if self.moves_at_claim.swap(false, Ordering::SeqCst) {
            return Box::pin(async { Err(self.move_away().await) });
        }
        self.spool.claim(after, limit)
    }
    fn claimed(&self, id: QueueId) -> SpoolFuture<'_, Claimed<StoredMessage>> {
        self.spool.claimed(id)
    }
    fn release(&self, claims: Vec<Claim>) -> SpoolFuture<'_, ()> {
        self.spool.release(claims)
    }
    fn renew(&self) -> SpoolFuture<'_, Lease> {
        self.spool.renew()
    }
    fn lease(&self) -> HeldLease {
        self.spool.lease()
    }
    fn load(&self, id: QueueId) -> SpoolFuture<'_, Entry> {
        self.spool.load(id)
    }
    fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::SeqCst)
    }
    fn has_set_aside(&self) -> bool {
        self.spool.has_set_aside()
    }
    fn set_aside(&self) -> SpoolFuture<'_, Vec<SetAside>> {
        self.spool.set_aside()
    }
    fn set_aside_reported(&self, report: QueueId, entries: Vec<SetAside>) -> SpoolFuture<'_, ()> {
        self.spool.set_aside_reported(report, entries)
    }
    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>> {
        self.spool.scan(after, limit)
    }
}

/// A queue without a relay around it, with one message held for two domains.
struct Queue {
    spool: Arc<Brittle>,
    operator: Operator,
    id: QueueId,
    stop: CancellationToken,
    running: JoinHandle<Result<(), SpoolError>>,
    accepted: mpsc::Sender<Claimed<Entry>>,
    _folder: tempfile::TempDir,
}

impl Queue {
    async fn start(evidence: impl FnOnce(&Path) -> Evidence) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        // Nobody listens there, and nothing is to be dialled.
        let config = Arc::new(configured(
            folder.path(),
            "127.0.0.1:1".parse().expect("an address"),
            "",
            &[],
        ));
        let spool = Arc::new(Brittle::open(folder.path()));
        let held = |address: &str| Recipient {
            state: RecipientState::Held {
                attempts: 1,
                history: Past::default(),
            },
            ..Recipient::new(Mailbox::parse(address).expect("an address"))
        };
        let sender = ReversePath::parse(SENDER).expect("an address");
        let envelope = Envelope::new(sender, vec![held("a@one.example"), held("b@two.example")]);
        let mut draft = spool.draft();
        draft
            .write(b"Subject: test\r\n\r\nbody\r\n")
            .await
            .expect("room");
        let (_, left) = spool.commit(draft, envelope).await.expect("stored");
        let id = left.id;
        // As an earlier run leaves it.
        spool.release(vec![left.claim]).await.expect("ours");
        let scheduler = Scheduler::new(
            Arc::clone(&spool) as _,
            evidence(folder.path()),
            Arc::new(way_out(&config, folder.path())),
            running(&config),
        );
        let (operator, stop) = (scheduler.operator(), CancellationToken::new());
        let (sender, accepted) = mpsc::channel(1);
        let running = tokio::spawn(scheduler.run(accepted, stop.clone()));
        Self {
            spool,
            operator,
            id,
            stop,
            running,
            accepted: sender,
            _folder: folder,
        }
    }

    async fn order(&self, order: Order) -> Result<(), OrderRefused> {
        self.order_for(order, self.id).await
    }

    async fn order_for(&self, order: Order, id: QueueId) -> Result<(), OrderRefused> {
        let mut answers = self.operator.order(order, vec![id]).await;
        assert_eq!(answers.len(), 1, "one message, one answer: {answers:?}");
        answers.remove(0).1
    }

    /// The states as the next start would find them.
    async fn states(&self) -> Vec<RecipientState> {
        self.states_of(self.id).await
    }

    async fn states_of(&self, id: QueueId) -> Vec<RecipientState> {
        let envelope = self
            .spool
            .load(id)
            .await
            .expect("it is in the spool")
            .envelope;
        envelope
            .recipients
            .into_iter()
            .map(|recipient| recipient.state)
            .collect()
    }

    async fn ends(self) {
        self.stop.cancel();
        let end = tokio::time::timeout(Duration::from_secs(20), self.running).await;
        end.expect("in time")
            .expect("no panic")
            .expect("an orderly end");
    }
}

pub(crate) fn way_out(config: &Arc<Config>, folder: &Path) -> Outbound {
    let running = running(config);
    let (tls, dns) = (
        Arc::clone(&running.load().tls),
        running.load().router.dns().clone(),
    );
    let web = WebSource::new(dns.clone(), Https::new(dns.clone(), tls.https().clone()));
    let memory = History::open(folder, jiff::Timestamp::now()).expect("a memory");
    let discovery = Discovery::new(MtaSts::open(folder, web).expect("our own version"), memory);
    Outbound::new(running, discovery, Reporter::off())
}

/// A configuration, as if a daemon had begun with it.
pub(crate) fn running(config: &Arc<Config>) -> RunningConfig {
    let (tls, _) = TlsMaterial::load(config).expect("it names no files");
    let dns = Dns::new(&config.dns).expect("a resolver");
    RunningConfig::new(Snapshot::new(Arc::clone(config), tls, dns))
}

#[tokio::test]
async fn a_bounce_that_is_not_written_leaves_every_domain_held() {
    let queue = Queue::start(|_| Evidence::off()).await;
    queue.spool.ended.store(true, Ordering::SeqCst);
    let refused = queue
        .order(Order::Bounce)
        .await
        .expect_err("it is not written down");
    assert!(matches!(refused, OrderRefused::Stopping), "{refused:?}");
    let states = queue.states().await;
    assert!(
        states
            .iter()
            .all(|state| matches!(state, RecipientState::Held { attempts: 1, .. })),
        "{states:?}"
    );
    queue.ends().await;
}

#[tokio::test]
async fn a_bounce_without_its_evidence_is_no_success() {
    let (mut kept, open) = (None, |folder: &Path| {
        Evidence::open(&folder.join("evidence"), Duration::from_hours(1)).expect("a folder")
    });
    let queue = Queue::start(|folder| kept.insert(open(folder)).clone()).await;
    kept.expect("it was opened").close().await;
    let refused = queue
        .order(Order::Bounce)
        .await
        .expect_err("nothing is on the record");
    assert!(matches!(refused, OrderRefused::Stopping), "{refused:?}");
    let states = queue.states().await;
    assert!(
        states
            .iter()
            .all(|state| matches!(state, RecipientState::Held { attempts: 1, .. })),
        "{states:?}"
    );
    queue.ends().await;
}

/// There is no room for the reports, nor for the state that they are owed.
#[tokio::test]
async fn a_bounce_without_room_leaves_the_message_in_the_queue() {
    let queue = Queue::start(|_| Evidence::off()).await;
    queue.spool.is_full.store(true, Ordering::SeqCst);
    for is_stuck in [false, true] {
        queue.spool.is_stuck.store(is_stuck, Ordering::SeqCst);
        let refused = queue.order(Order::Bounce).await.expect_err("no room");
        let is_expected = matches!(refused, OrderRefused::ReportNotStored);
        assert!(is_expected, "{is_stuck}: {refused:?}");
        let states = queue.states().await;
        let mut states = states.iter();
        assert!(states.all(|state| matches!(state, RecipientState::Held { attempts: 1, .. })));
    }
    queue.spool.is_full.store(false, Ordering::SeqCst);
    queue.spool.is_stuck.store(false, Ordering::SeqCst);
    queue.order(Order::Bounce).await.expect("it is in memory");
    queue.ends().await;
}

#[tokio::test]
async fn an_order_that_dies_leaves_its_message_free_for_the_next() {
    let queue = Queue::start(|_| Evidence::off()).await;
    queue.spool.panics.store(true, Ordering::SeqCst);
    let refused = queue.order(Order::Bounce).await.expect_err("it died");
    assert!(matches!(refused, OrderRefused::Panicked), "{refused:?}");
    queue
        .order(Order::Bounce)
        .await
        .expect("it is not busy, and nothing stands in the way any more");
    let id = queue.id;
    assert!(
        matches!(queue.spool.load(id).await, Err(SpoolError::Missing(_))),
        "nothing of it is left"
    );
    queue.ends().await;
}

#[tokio::test]
async fn a_release_that_dies_once_it_is_written_is_tried_all_the_same() {
    let queue = Queue::start(|_| Evidence::off()).await;
    queue.spool.panics_afterwards.store(true, Ordering::SeqCst);
    let refused = queue.order(Order::Release).await.expect_err("it died");
    assert!(matches!(refused, OrderRefused::Panicked), "{refused:?}");
    let tried =
        |state: &RecipientState| matches!(state, RecipientState::Pending { attempts: 2, .. });
    eventually("both domains are tried", async || {
        queue.states().await.iter().all(tried)
    })
    .await;
    queue.ends().await;
}

#[tokio::test]
async fn a_message_on_its_way_to_the_scheduler_takes_no_order() {
    let queue = Queue::start(|_| Evidence::off()).await;
    // Until this is answered, the scheduler is not yet through with what was there before.
    assert!(queue.order(Order::Retry).await.is_err(), "it is held");
    let recipient = Recipient::new(Mailbox::parse("c@three.example").expect("an address"));
    let envelope = Envelope::new(
        ReversePath::parse(SENDER).expect("an address"),
        vec![recipient],
    );
    let mut draft = queue.spool.draft();
    draft
        .write(b"Subject: test\r\n\r\nbody\r\n")
        .await
        .expect("room");
    let (_, entry) = queue.spool.commit(draft, envelope).await.expect("stored");
    let id = entry.id;
    for order in [Order::Hold, Order::Remove, Order::Bounce, Order::Release] {
        let refused = queue
            .order_for(order, id)
            .await
            .expect_err("it would be delivered nevertheless");
        assert!(
            matches!(refused, OrderRefused::Busy),
            "{order:?}: {refused:?}"
        );
    }
    let states = queue.states_of(id).await;
    assert!(
        matches!(states[..], [RecipientState::Pending { attempts: 0, .. }]),
        "{states:?}"
    );
    queue.accepted.send(entry).await.expect("somebody takes it");
    // The first attempt may be under way.
    eventually("it is held", async || {
        queue.order_for(Order::Hold, id).await.is_ok()
    })
    .await;
    let states = queue.states_of(id).await;
    assert!(
        matches!(states[..], [RecipientState::Held { .. }]),
        "{states:?}"
    );
    queue.ends().await;
}

/// Waits for what happens without anybody's doing.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap_or_else(|_| panic!("waited for this: {what}"));
}
