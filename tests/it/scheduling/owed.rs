//! Reports to senders that cannot be stored at once, and what they may return.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gatepost::config::Config;
use gatepost::relay::scheduler::{Operator, Scheduler};
use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, Notify, QueueId, Recipient, RecipientState};
use gatepost::storage::evidence::Evidence;
use gatepost::storage::spool::{Claimed, Entry, Spool as _, SpoolError};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::orders::{Brittle, eventually, running, way_out};
use crate::support::dsn::Report;
use crate::support::in_process::{SENDER, configured, connector, peer, willing};
use crate::support::peer::Peer;

const QUEUE: &str = "[queue]\nretry = [\"100ms\"]\n";

/// A scheduler on a spool that takes no reports for now.
pub(crate) struct Queue {
    pub(crate) spool: Arc<Brittle>,
    accepted: mpsc::Sender<Claimed<Entry>>,
    operator: Operator,
    stop: CancellationToken,
    running: JoinHandle<Result<(), SpoolError>>,
}

impl Queue {
    /// `outbound`: the configuration that deliveries go by, which may be newer than the
    /// scheduler's.
    pub(crate) fn start(folder: &Path, config: &Arc<Config>, outbound: &Arc<Config>) -> Self {
        Self::on(Arc::new(Brittle::open(folder)), folder, config, outbound)
    }

    /// The same, on a spool that is open.
    pub(crate) fn on(
        spool: Arc<Brittle>,
        folder: &Path,
        config: &Arc<Config>,
        outbound: &Arc<Config>,
    ) -> Self {
        Self::recording(Evidence::off(), spool, folder, (config, outbound))
    }

    /// The same, with a record.
    pub(crate) fn recording(
        evidence: Evidence,
        spool: Arc<Brittle>,
        folder: &Path,
        (config, outbound): (&Arc<Config>, &Arc<Config>),
    ) -> Self {
        let scheduler = Scheduler::new(
            Arc::clone(&spool) as _,
            evidence,
            Arc::new(way_out(outbound, folder)),
            running(config),
        );
        let operator = scheduler.operator();
        let (stop, (accepted, work)) = (CancellationToken::new(), mpsc::channel(1));
        let running = tokio::spawn(scheduler.run(work, stop.clone()));
        Self {
            spool,
            accepted,
            operator,
            stop,
            running,
        }
    }

    /// Waits until the scheduler has all that was handed in, and has nothing to do for it.
    pub(crate) async fn is_settled(&self) {
        // It looks at new messages before it answers, and at what is due before it waits again.
        let answered = self.operator.status(Vec::new()).await;
        answered.expect("it runs");
    }

    /// Sets whether the spool has hardly any room for results.
    pub(crate) fn set_stuck(&self, is_stuck: bool) {
        self.spool.is_stuck.store(is_stuck, Ordering::SeqCst);
    }

    pub(crate) async fn takes(&self, to: &str, notify: Option<Notify>) -> QueueId {
        self.takes_at(to, notify, Timestamp::now()).await
    }

    /// The same, by a clock that shows this.
    pub(crate) async fn takes_at(
        &self,
        to: &str,
        notify: Option<Notify>,
        accepted: Timestamp,
    ) -> QueueId {
        let recipient = Recipient {
            notify,
            ..Recipient::new(Mailbox::parse(to).expect("an address"))
        };
        let sender = ReversePath::parse(SENDER).expect("an address");
        let envelope = Envelope::new(sender, vec![recipient]);
        self.takes_envelope(envelope, accepted).await
    }

    /// The same, with this envelope.
    pub(crate) async fn takes_envelope(&self, envelope: Envelope, accepted: Timestamp) -> QueueId {
        let mut draft = self.spool.draft();
        draft
            .write(b"Subject: test\r\n\r\nThe very words.\r\n")
            .await
            .expect("room");
        let (_, entry) = self.spool.commit(draft, envelope).await.expect("stored");
        let id = entry.id;
        self.accepted
            .send(entry.map(|entry| Entry { accepted, ..entry }))
            .await
            .expect("somebody takes it");
        id
    }

    /// The one recipient of a message, as the next start would find it.
    pub(crate) async fn recipient(&self, id: QueueId) -> Option<Recipient> {
        Some(
            self.spool
                .load(id)
                .await
                .ok()?
                .envelope
                .recipients
                .remove(0),
        )
    }

    /// Returns whether nothing is in the queue, and nobody has to be informed of anything.
    pub(crate) async fn is_done(&self) -> bool {
        let left = self.spool.scan(None, 1).await.expect("readable");
        left.is_empty() && !self.spool.has_set_aside()
    }

    /// Returns whether a message waits after a first attempt, and nobody has to be informed of
    /// anything.
    pub(crate) async fn tried_again(&self) -> bool {
        let waiting = self.spool.scan(None, 1).await.expect("readable");
        let is_tried = waiting.first().is_some_and(|stored| {
            let state = &stored.envelope.recipients[0].state;
            matches!(state, RecipientState::Pending { attempts, .. } if *attempts > 0)
        });
        is_tried && !self.spool.has_set_aside()
    }

    pub(crate) async fn ends(self) {
        self.stop.cancel();
        let end = tokio::time::timeout(Duration::from_secs(20), self.running).await;
        end.expect("in time")
            .expect("no panic")
            .expect("an orderly end");
    }
}

fn reports(home: &Peer) -> Vec<Report> {
    home.messages()
        .iter()
        .map(|message| Report::read(message))
        .collect()
}

#[tokio::test]
async fn a_report_of_success_that_cannot_be_stored_is_repeated_also_after_a_restart() {
    let (home, old) = (willing().await, peer(&[], &[]).await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let connectors = [connector("old.example", old.address, "")];
    let config = Arc::new(configured(folder.path(), home.address, QUEUE, &connectors));
    let queue = Queue::start(folder.path(), &config, &config);
    queue.spool.refuses_reports.store(true, Ordering::SeqCst);
    let id = queue
        .takes(
            "b@old.example",
            Some(Notify::On {
                success: true,
                failure: false,
                delay: false,
            }),
        )
        .await;
    let is_owed = async || {
        let recipient = queue
            .recipient(id)
            .await
            .expect("it stays until its sender is told");
        recipient.state == RecipientState::Delivered && recipient.owed.is_some()
    };
    eventually("the report is owed", is_owed).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(is_owed().await && home.messages().is_empty());
    queue.ends().await;

    let queue = Queue::start(folder.path(), &config, &config);
    eventually("nothing is left", async || {
        queue.recipient(id).await.is_none()
    })
    .await;
    eventually("the report has come", async || !home.messages().is_empty()).await;
    queue.ends().await;
    let reports = reports(&home);
    assert_eq!(reports.len(), 1, "{reports:#?}");
    reports[0].only("b@old.example", "relayed", "2.0.0");
    assert_eq!(old.messages().len(), 1, "it is delivered once");
}

#[tokio::test]
async fn a_report_that_a_message_is_held_is_repeated() {
    let (home, clear) = (willing().await, peer(&[], &[]).await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let hold = "tls = \"forced\"\nverify = \"none\"\non_failure = \"hold\"";
    let connectors = [connector("partner.example", clear.address, hold)];
    let config = Arc::new(configured(folder.path(), home.address, QUEUE, &connectors));
    let queue = Queue::start(folder.path(), &config, &config);
    queue.spool.refuses_reports.store(true, Ordering::SeqCst);
    let id = queue.takes("b@partner.example", None).await;
    let is_held =
        |recipient: &Recipient| matches!(recipient.state, RecipientState::Held { attempts: 1, .. });
    let is_owed = async || {
        queue
            .recipient(id)
            .await
            .is_some_and(|one| is_held(&one) && one.owed.is_some())
    };
    eventually("it is held, and the report is owed", is_owed).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(is_owed().await && home.messages().is_empty());
    queue.spool.refuses_reports.store(false, Ordering::SeqCst);
    eventually("the report has come", async || !home.messages().is_empty()).await;
    let recipient = async || queue.recipient(id).await.expect("it is held");
    eventually("nothing is owed", async || recipient().await.owed.is_none()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(is_held(&recipient().await));
    let reports = reports(&home);
    assert_eq!(reports.len(), 1, "{reports:#?}");
    reports[0].only("b@partner.example", "delayed", "4.7.4");
    assert_eq!(clear.heard().len(), 1, "it is not tried again for that");
    queue.ends().await;
}

/// Nobody is asked before the process dies, and nothing of what must wait is lost.
#[tokio::test]
async fn a_report_that_waits_for_the_rate_is_stored_after_a_kill() {
    let (home, bad) = (
        willing().await,
        peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await,
    );
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let before = format!("[limits]\ndsn_per_minute = 1\n{QUEUE}");
    let connectors = [connector("bad.example", bad.address, "")];
    let config = Arc::new(configured(
        folder.path(),
        home.address,
        &before,
        &connectors,
    ));
    let queue = Queue::start(folder.path(), &config, &config);
    queue.takes("b@bad.example", None).await;
    eventually("the first report has come", async || {
        home.messages().len() == 1
    })
    .await;
    let id = queue.takes("c@bad.example", None).await;
    let is_owed = async || {
        let recipient = queue
            .recipient(id)
            .await
            .expect("it stays until its sender is told");
        recipient.state == RecipientState::Failed && recipient.owed.is_some()
    };
    eventually("the second is owed", is_owed).await;
    queue.running.abort();
    let end = queue.running.await.expect_err("it was killed");
    assert!(end.is_cancelled() && home.messages().len() == 1);
    drop((queue.accepted, queue.spool));

    let queue = Queue::start(folder.path(), &config, &config);
    eventually("nothing is left", async || {
        queue.recipient(id).await.is_none()
    })
    .await;
    eventually("the second report has come", async || {
        home.messages().len() == 2
    })
    .await;
    queue.ends().await;
    reports(&home)[1].only("c@bad.example", "failed", "5.1.1");
    assert_eq!(
        bad.heard()
            .iter()
            .flat_map(|heard| &heard.commands)
            .filter(|line| line.starts_with("RCPT"))
            .count(),
        2
    );
}

/// The configuration was replaced after the attempt had begun, and its policy is what the attempt
/// failed under.
#[tokio::test]
async fn what_was_judged_under_a_forced_policy_comes_back_without_its_content() {
    let (home, clear) = (willing().await, peer(&[], &[]).await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let configured = |more: &str| {
        let connectors = [connector("partner.example", clear.address, more)];
        Arc::new(configured(folder.path(), home.address, QUEUE, &connectors))
    };
    let (old, new) = (
        configured(""),
        configured("tls = \"forced\"\nverify = \"none\"\non_failure = \"bounce\""),
    );
    let queue = Queue::start(folder.path(), &old, &new);
    queue.takes("b@partner.example", None).await;
    eventually("the report has come", async || !home.messages().is_empty()).await;
    let reports = reports(&home);
    reports[0].only("b@partner.example", "failed", "5.7.4");
    assert_eq!(reports[0].returned.0, "text/rfc822-headers");
    assert!(
        !reports[0].whole.contains("very words"),
        "{}",
        reports[0].whole
    );
    queue.ends().await;
}
