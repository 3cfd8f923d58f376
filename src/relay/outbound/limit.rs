//! The time limit of one delivery attempt, and the means to end it earlier.
//!
//! An attempt ends at its limit, with two exceptions. Recipients and content are sent to the end as
//! long as the peer accepts them fast enough; otherwise a large message would never arrive. And
//! once the final dot may have reached the peer, its reply is awaited for `[timeouts] final_reply`,
//! since the peer may have accepted the message and a second attempt would make a duplicate. An
//! attempt can be ended early only while no content has been sent, or while the peer has not answered
//! the commands in front of content that was sent with them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::write_duration;
use crate::storage::spool::{HeldLease, LeaseTerm, SpoolError};

/// The time that each recipient of a started transaction may use, on average.
const TIME_PER_RECIPIENT: Duration = Duration::from_secs(5);

/// The limit of one attempt. All clones share it.
#[derive(Debug, Clone)]
pub struct AttemptLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    time: Duration,
    deadline: Instant,
    stage: watch::Sender<AttemptStage>,
    end_request: CancellationToken,
    /// Cancelled when the message has another owner.
    lost: CancellationToken,
    /// The lease of the message's owner, and the term in which the attempt began: no transaction
    /// begins when it is over, or was over meanwhile.
    lease: Option<(HeldLease, LeaseTerm)>,
}

/// The stage of an attempt, and its deadline.
#[derive(Debug, Clone, Copy)]
enum AttemptStage {
    /// No content has been sent.
    NoContent(Instant),
    /// The content was sent with the commands, and they are not answered.
    Chunk(Instant),
    /// The content is being sent.
    Content(Instant),
    /// The final dot may have reached the peer.
    FinalReply,
}

/// The reason for which an attempt was ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptEndReason {
    /// The attempt reached this time limit.
    TimeOver(Duration),
    /// Attempts for other destinations needed its slot.
    GaveWay,
    /// Another relay has the message.
    NotOwner,
}

impl AttemptEndReason {
    /// The label of this reason in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::TimeOver(_) => "time_over",
            Self::GaveWay => "gave_way",
            Self::NotOwner => "not_owner",
        }
    }
}

impl fmt::Display for AttemptEndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeOver(time) => {
                write!(f, "the attempt was ended after {} ([limits] delivery_attempt_time)", write_duration(*time))
            }
            Self::GaveWay => f.write_str(
                "the destination was slow while all delivery attempts were in use ([limits] delivery_attempts), \
                 and the attempt was ended in favour of others",
            ),
            Self::NotOwner => f.write_str("another relay has the message now, and delivers it"),
        }
    }
}

impl AttemptLimit {
    /// Creates the limit of an attempt that begins now.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self::with_lease(time, None)
    }

    /// Creates the limit of an attempt that begins now, for the owner with this lease: when the lease
    /// is over, no further MAIL FROM is sent, also after it holds again.
    #[must_use]
    pub fn of_owner(time: Duration, lease: HeldLease) -> Self {
        let term = lease.term();
        Self::with_lease(time, Some((lease, term)))
    }

    fn with_lease(time: Duration, lease: Option<(HeldLease, LeaseTerm)>) -> Self {
        let deadline = Instant::now() + time;
        let stage = watch::Sender::new(AttemptStage::NoContent(deadline));
        Self(Arc::new(Inner {
            time,
            deadline,
            stage,
            end_request: CancellationToken::new(),
            lost: CancellationToken::new(),
            lease,
        }))
    }

    /// Checks that a transaction may begin.
    ///
    /// # Errors
    /// [`SpoolError::NotOwner`] if the lease of the message's owner is over, or was over since the
    /// attempt began, or if the message has another owner.
    pub(super) fn check_owner(&self) -> Result<(), SpoolError> {
        if self.0.lost.is_cancelled() {
            let text = AttemptEndReason::NotOwner.to_string();
            return Err(SpoolError::NotOwner(text));
        }
        let lease = self.0.lease.as_ref();
        lease.map_or(Ok(()), |(lease, term)| lease.check_since(*term))
    }

    /// Returns whether [`AttemptLimit::end`] ends the attempt at once.
    #[must_use]
    pub fn may_end(&self) -> bool {
        matches!(
            *self.0.stage.borrow(),
            AttemptStage::NoContent(_) | AttemptStage::Chunk(_)
        )
    }

    /// Asks the attempt to end: at once if no content is being sent, otherwise after its
    /// transaction.
    pub fn end(&self) {
        self.0.end_request.cancel();
    }

    /// Ends the attempt because the message has another owner: at once if no content has been sent.
    /// Otherwise the transaction runs to its end, since the peer may accept the message, and no other
    /// one begins.
    pub fn end_lost(&self) {
        self.0.lost.cancel();
    }

    /// Returns the remaining time divided by `of`.
    pub(super) fn share(&self, of: usize) -> Duration {
        let remaining = self.0.deadline.saturating_duration_since(Instant::now());
        remaining / u32::try_from(of.max(1)).unwrap_or(u32::MAX)
    }

    /// Records that a transaction with this many recipients begins.
    pub(super) fn begin_transaction(&self, recipients: usize) {
        let time = TIME_PER_RECIPIENT.saturating_mul(u32::try_from(recipients).unwrap_or(u32::MAX));
        self.set_stage(AttemptStage::NoContent(
            self.0.deadline.max(Instant::now() + time),
        ));
    }

    /// Records that the content is sent together with the commands of the transaction.
    pub(super) fn chunk_sent(&self) {
        self.0.stage.send_if_modified(|stage| {
            if let AttemptStage::NoContent(deadline) = *stage {
                *stage = AttemptStage::Chunk(deadline);
            }
            true
        });
    }

    /// Returns whether the complete content was sent and its reply is missing.
    pub(super) fn may_be_accepted(&self) -> bool {
        matches!(
            *self.0.stage.borrow(),
            AttemptStage::Chunk(_) | AttemptStage::FinalReply
        )
    }

    /// Records that sending `octets` of content begins, at `rate` octets a second or faster on
    /// average.
    pub(super) fn begin_content(&self, octets: u64, rate: u64) {
        let time = Duration::from_secs(octets / rate.max(1));
        self.set_stage(AttemptStage::Content(
            self.0.deadline.max(Instant::now() + time),
        ));
    }

    /// Records that the final dot is about to be sent.
    pub(super) fn await_final_reply(&self) {
        self.set_stage(AttemptStage::FinalReply);
    }

    /// Records that the transaction is over.
    pub(super) fn end_transaction(&self) {
        self.set_stage(AttemptStage::NoContent(self.0.deadline));
    }

    fn set_stage(&self, stage: AttemptStage) {
        self.0.stage.send_replace(stage);
    }

    /// Waits until the attempt must end, and returns the reason.
    pub(super) async fn wait_for_end(&self) -> AttemptEndReason {
        let mut stage = self.0.stage.subscribe();
        loop {
            let (deadline, may_end, is_unsent) = match *stage.borrow_and_update() {
                AttemptStage::NoContent(deadline) => (Some(deadline), true, true),
                AttemptStage::Chunk(deadline) => (Some(deadline), true, false),
                AttemptStage::Content(deadline) => (Some(deadline), false, false),
                AttemptStage::FinalReply => (None, false, false),
            };
            let time_over = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.lost.cancelled(), if is_unsent => return AttemptEndReason::NotOwner,
                () = self.0.end_request.cancelled(), if may_end => return AttemptEndReason::GaveWay,
                () = time_over => return AttemptEndReason::TimeOver(self.0.time),
                // The channel cannot be closed: `self` holds its sender.
                _ = stage.changed() => {}
            }
        }
    }
}
