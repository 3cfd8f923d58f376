//! The limit of time of one delivery attempt, and the means to end it earlier.
//!
//! An attempt ends at its limit wherever it stands, with two exceptions. Recipients and content are sent to their end
//! as long as the peer takes them at a pace that is not too slow: a large message would never arrive otherwise. And
//! a peer that may have the final dot may have taken the message: its answer is waited for as long as `[timeouts]
//! final_reply` says, since a second attempt would make a duplicate. Others can ask an attempt to end while nothing
//! of the content was sent, and no later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::write_duration;

/// Time for each recipient of a transaction that has begun, on average.
const RECIPIENT: Duration = Duration::from_secs(5);

/// The limit of one attempt. Every clone is the same.
#[derive(Debug, Clone)]
pub struct AttemptLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    time: Duration,
    deadline: Instant,
    stage: watch::Sender<Stage>,
    is_asked_to_end: CancellationToken,
}

/// How far an attempt has come, and until when that may go on.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// No peer has anything of the content.
    Before(Instant),
    /// The content is on its way.
    Content(Instant),
    /// The peer may have the final dot.
    FinalReply,
}

/// Why an attempt was ended before it came to an end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It has taken this long.
    TimeOver(Duration),
    /// Others waited for its place.
    GaveWay,
}

impl Ended {
    /// The word for it in metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::TimeOver(_) => "time_over",
            Self::GaveWay => "gave_way",
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeOver(time) => {
                write!(f, "the attempt was ended after {} ([limits] delivery_attempt_time)", write_duration(*time))
            }
            Self::GaveWay => f.write_str(
                "the destination was slow while all delivery attempts were in use ([limits] delivery_attempts), \
                 and the attempt was ended in favour of others",
            ),
        }
    }
}

impl AttemptLimit {
    /// The limit of an attempt that begins now.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        let deadline = Instant::now() + time;
        let stage = watch::Sender::new(Stage::Before(deadline));
        Self(Arc::new(Inner { time, deadline, stage, is_asked_to_end: CancellationToken::new() }))
    }

    /// Whether [`AttemptLimit::end`] ends the attempt at once.
    #[must_use]
    pub fn may_end(&self) -> bool {
        matches!(*self.0.stage.borrow(), Stage::Before(_))
    }

    /// Asks the attempt to end: before it begins with the content of its message or, where it has, after that.
    pub fn end(&self) {
        self.0.is_asked_to_end.cancel();
    }

    /// How much time is left; divided into so many parts.
    pub(super) fn part(&self, of: usize) -> Duration {
        let left = self.0.deadline.saturating_duration_since(Instant::now());
        left / u32::try_from(of.max(1)).unwrap_or(u32::MAX)
    }

    /// A transaction with so many recipients begins.
    pub(super) fn transaction(&self, recipients: usize) {
        let time = RECIPIENT.saturating_mul(u32::try_from(recipients).unwrap_or(u32::MAX));
        self.enter(Stage::Before(self.0.deadline.max(Instant::now() + time)));
    }

    /// So many octets of content follow, and the peer must take that many in a second on average.
    pub(super) fn content(&self, octets: u64, rate: u64) {
        let time = Duration::from_secs(octets / rate.max(1));
        self.enter(Stage::Content(self.0.deadline.max(Instant::now() + time)));
    }

    /// The final dot is about to be sent.
    pub(super) fn final_reply(&self) {
        self.enter(Stage::FinalReply);
    }

    /// The transaction is over.
    pub(super) fn transaction_over(&self) {
        self.enter(Stage::Before(self.0.deadline));
    }

    fn enter(&self, stage: Stage) {
        self.0.stage.send_replace(stage);
    }

    /// Waits until the attempt must end.
    pub(super) async fn over(&self) -> Ended {
        let mut stage = self.0.stage.subscribe();
        loop {
            let (deadline, may_end) = match *stage.borrow_and_update() {
                Stage::Before(deadline) => (Some(deadline), true),
                Stage::Content(deadline) => (Some(deadline), false),
                Stage::FinalReply => (None, false),
            };
            let time_over = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.is_asked_to_end.cancelled(), if may_end => return Ended::GaveWay,
                () = time_over => return Ended::TimeOver(self.0.time),
                // The sender lives as long as this.
                _ = stage.changed() => {}
            }
        }
    }
}
