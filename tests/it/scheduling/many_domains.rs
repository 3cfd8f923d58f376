//! One message to many domains: its attempts do not wait for one another's results, and their
//! results are stored together. While the spool has hardly any room, they follow one another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatepost::relay::scheduler::{Operator, Scheduler, SchedulerProbe};
use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, QueueId, Recipient, RecipientState};
use gatepost::storage::evidence::Evidence;
use gatepost::storage::spool::{
    Claim, Claimed, Draft, Entry, HeldLease, Lease, Options, Receipt, Spool, SpoolError,
    SpoolFuture, SqliteSpool, StoredMessage,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::orders::{running, way_out};
use crate::support::counting_sink::Sink;
use crate::support::in_process::{SENDER, configured, until, willing};

const DOMAINS: usize = 1000;

/// A spool that stores a result for each permit.
#[derive(Debug)]
struct SlowSpool {
    spool: SqliteSpool,
    leave: Semaphore,
    is_stuck: AtomicBool,
}

impl Spool for SlowSpool {
    fn draft(&self) -> Draft {
        self.spool.draft()
    }
    fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::SeqCst)
    }
    fn commit(
        &self,
        draft: Draft,
        envelope: Envelope,
    ) -> SpoolFuture<'_, (Receipt, Claimed<Entry>)> {
        self.spool.commit(draft, envelope)
    }
    fn settle(
        &self,
        claim: Claim,
        before: &Envelope,
        after: Option<&Envelope>,
        reports: Vec<(Draft, Envelope)>,
    ) -> SpoolFuture<'_, Vec<(Receipt, Claimed<Entry>)>> {
        let settled = self.spool.settle(claim, before, after, reports);
        Box::pin(async move {
            self.leave.acquire().await.expect("open").forget();
            settled.await
        })
    }
    fn remove(&self, claim: Claim) -> SpoolFuture<'_, ()> {
        self.spool.remove(claim)
    }
    fn claim(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> SpoolFuture<'_, Vec<Claimed<StoredMessage>>> {
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
    fn scan(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<StoredMessage>> {
        self.spool.scan(after, limit)
    }
}

/// A queue without a relay around it, with one message to so many domains.
struct Queue {
    spool: Arc<SlowSpool>,
    operator: Operator,
    liveness: SchedulerProbe,
    stop: CancellationToken,
    running: JoinHandle<Result<(), SpoolError>>,
    _accepted: mpsc::Sender<Claimed<Entry>>,
    _folder: tempfile::TempDir,
}

impl Queue {
    async fn start(domains: usize, sink: &Sink, is_stuck: bool) -> Self {
        let home = willing().await;
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let all = format!(
            "[[connector]]\nname = \"many\"\ndomains = [\"*.many.example\"]\n[connector.outbound]\nroute = [\"{}\"]\ntls = \"off\"\n",
            sink.address
        );
        let config = Arc::new(configured(folder.path(), home.address, "", &[all]));
        // The mover works only when it is asked to.
        let options = Options {
            move_after: Some(Duration::from_hours(1)),
            ..Options::default()
        };
        let spool = SqliteSpool::open_with(&folder.path().join("spool"), &options);
        let spool = Arc::new(SlowSpool {
            spool: spool.expect("nobody else has it"),
            leave: Semaphore::new(0),
            is_stuck: AtomicBool::new(is_stuck),
        });
        let kept = Duration::from_hours(1);
        let evidence = Evidence::open(&folder.path().join("evidence"), kept).expect("a folder");
        let scheduler = Scheduler::new(
            Arc::clone(&spool) as _,
            evidence,
            Arc::new(way_out(&config, folder.path())),
            running(&config),
        );
        let (operator, liveness) = (scheduler.operator(), scheduler.liveness());
        let (stop, (accepted, work)) = (CancellationToken::new(), mpsc::channel(1));
        let running = tokio::spawn(scheduler.run(work, stop.clone()));

        let to = (0..domains).map(|number| format!("b@d{number}.many.example"));
        let to = to.map(|to| Recipient::new(Mailbox::parse(&to).expect("an address")));
        let sender = ReversePath::parse(SENDER).expect("an address");
        let mut draft = spool.draft();
        draft.write(&vec![b'x'; 33_000]).await.expect("room");
        let envelope = Envelope::new(sender, to.collect());
        let (_, entry) = spool.commit(draft, envelope).await.expect("stored");
        accepted.send(entry).await.expect("somebody takes it");
        Self {
            spool,
            operator,
            liveness,
            stop,
            running,
            _accepted: accepted,
            _folder: folder,
        }
    }

    /// Waits until no job runs.
    async fn is_over(&self) {
        let liveness = &self.liveness;
        while liveness
            .probe()
            .await
            .is_some_and(|work| work.under_way > 0)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Moves what waits to the database. Returns the octets that the spool has written.
    async fn written(&self) -> u64 {
        self.spool.spool.flush().await.expect("moved");
        self.spool.spool.stats().written
    }

    async fn end(self) {
        self.stop.cancel();
        let running = self.running.await;
        running.expect("no panic").expect("an orderly end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_a_thousand_domains_are_stored_in_few_transactions() {
    let sink = Sink::start(DOMAINS).await;
    let queue = Queue::start(DOMAINS, &sink, false).await;
    // No result is stored meanwhile, and yet every attempt ends and gives its place back.
    for quarter in 1..=4 {
        let is_there = || (sink.taken() >= DOMAINS * quarter / 4).then_some(());
        until("another quarter of the domains has it", is_there).await;
    }
    until("every place is free", || {
        let is_free = queue
            .operator
            .usage()
            .iter()
            .all(|share| share.running == 0);
        is_free.then_some(())
    })
    .await;
    queue.spool.leave.add_permits(DOMAINS);
    queue.is_over().await;
    let transactions = queue.spool.spool.stats().transactions;
    assert!(transactions <= 40, "{transactions} transactions");
    let left = queue.spool.scan(None, 1).await.expect("readable");
    assert!(left.is_empty());
    let written = queue.written().await;
    assert!(written < 500_000, "{written} octets written");
    queue.end().await;
}

/// An attempt whose result may find no room is not begun beside another one. Once there is room,
/// all are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_follow_one_another_while_the_spool_has_hardly_any_room() {
    let sink = Sink::start(20).await;
    let queue = Queue::start(20, &sink, true).await;
    for taken in 1..=3 {
        until("the next one is sent", || {
            (sink.taken() == taken).then_some(())
        })
        .await;
        let work = queue.liveness.probe().await.expect("it runs");
        assert_eq!((work.under_way, work.waiting), (1, 20 - taken));
        queue.spool.leave.add_permits(1);
    }
    queue.spool.is_stuck.store(false, Ordering::SeqCst);
    queue.spool.leave.add_permits(20);
    until("all are sent", || (sink.taken() == 20).then_some(())).await;
    queue.is_over().await;
    let left = queue.spool.scan(None, 1).await.expect("readable");
    assert!(left.is_empty());
    queue.end().await;
}

/// A thousand domains of which each asks to come again later: the states are written once to the
/// log and once to the database, however many writes share them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deferrals_of_a_thousand_domains_write_little() {
    let busy = "451 4.2.1 The mailbox is busy, come again later\r\n";
    let sink = Sink::replying(DOMAINS, busy).await;
    let queue = Queue::start(DOMAINS, &sink, false).await;
    queue.spool.leave.add_permits(DOMAINS);
    let deferred = async || {
        let stored = queue.spool.scan(None, 1).await.expect("readable");
        let tried = |recipient: &&Recipient| {
            matches!(recipient.state, RecipientState::Pending { attempts: 1, .. })
        };
        stored[0].envelope.recipients.iter().filter(tried).count()
    };
    while deferred().await < DOMAINS {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    queue.is_over().await;
    let transactions = queue.spool.spool.stats().transactions;
    let written = queue.written().await;
    assert_eq!(deferred().await, DOMAINS);
    assert!(
        written < 2_000_000,
        "{written} octets written in {transactions} transactions"
    );
    queue.end().await;
}
