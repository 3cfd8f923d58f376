//! The signal by which the other parts of the engine wake the mover.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::SpoolError;
use super::queue::ReplySender;

/// The time between two rounds of the mover while the log has something for it.
pub(super) const ROUND: Duration = Duration::from_millis(250);

/// An order to the mover.
#[derive(Debug)]
pub(super) enum MoverOrder {
    /// Delete a quarantined row, whatever its id is.
    Evict(i64, ReplySender<()>),
    /// Move all that the log has.
    Flush(ReplySender<()>),
    /// Do nothing; the answer shows that the mover works.
    Ping(ReplySender<()>),
}

impl MoverOrder {
    /// Sends the answer. A failed send means that nobody waits.
    pub(super) fn answer(self, result: Result<(), SpoolError>) {
        let (Self::Evict(_, reply) | Self::Flush(reply) | Self::Ping(reply)) = self;
        drop(reply.send(result));
    }
}

/// The reason for a round of the mover.
#[derive(Debug, Default)]
pub(super) struct MoverCall {
    pub(super) orders: Vec<MoverOrder>,
    /// The log is larger than it should be.
    pub(super) is_urgent: bool,
    /// New mail was rejected for want of disk space.
    pub(super) is_scarce: bool,
    pub(super) is_stopped: bool,
}

/// The signal to the mover.
#[derive(Debug, Default)]
pub(super) struct MoverSignal {
    call: Mutex<MoverCall>,
    changed: Condvar,
    /// True while the mover waits for the log to have something for it.
    is_idle: AtomicBool,
}

impl MoverSignal {
    fn lock(&self) -> MutexGuard<'_, MoverCall> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports that the log has something that may have to be moved. Costs next to nothing unless
    /// the mover is idle.
    pub(super) fn notice(&self) {
        if self.is_idle.load(Ordering::SeqCst) {
            drop(self.lock());
            self.changed.notify_one();
        }
    }

    /// Calls for a round soon, because the disk has no space for new mail: another program may have filled
    /// it since the mover looked.
    pub(super) fn notice_scarcity(&self) {
        let was_known = std::mem::replace(&mut self.lock().is_scarce, true);
        if !was_known {
            self.changed.notify_one();
        }
    }

    /// Calls for a round now, because the log needs room.
    pub(super) fn hurry(&self) {
        let was_urgent = std::mem::replace(&mut self.lock().is_urgent, true);
        if !was_urgent {
            self.changed.notify_one();
        }
    }

    /// Hands in an order, which is answered.
    pub(super) fn order(&self, order: MoverOrder) {
        let mut call = self.lock();
        if call.is_stopped {
            drop(call);
            order.answer(Err(SpoolError::Closed));
            return;
        }
        call.orders.push(order);
        drop(call);
        self.changed.notify_one();
    }

    /// Ends the mover after one more round.
    pub(super) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_one();
    }

    /// Ends the mover, and answers all orders with [`SpoolError::Closed`].
    pub(super) fn fail(&self) {
        self.stop();
        let orders = std::mem::take(&mut self.lock().orders);
        for order in orders {
            order.answer(Err(SpoolError::Closed));
        }
    }

    /// Waits for the next round. `has_work` returns whether there is anything for the mover; nothing may
    /// make it wait, since everybody who calls the mover waits for it.
    /// After a round that failed (`is_blocked`) the next one comes after a pause, however urgent it
    /// is: what failed would fail again.
    pub(super) fn wait(&self, is_blocked: bool, has_work: impl Fn() -> bool) -> MoverCall {
        let mut call = self.lock();
        let mut pause_end = None;
        let is_called = |call: &MoverCall| {
            call.is_stopped || !call.orders.is_empty() || (call.is_urgent && !is_blocked)
        };
        while !is_called(&call) {
            self.is_idle.store(true, Ordering::SeqCst);
            if !is_blocked && !call.is_scarce && !has_work() {
                let waited = self.changed.wait(call);
                call = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            self.is_idle.store(false, Ordering::SeqCst);
            let end = *pause_end.get_or_insert_with(|| Instant::now() + ROUND);
            let remaining = end.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(call, remaining);
            call = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.is_idle.store(false, Ordering::SeqCst);
        MoverCall {
            orders: std::mem::take(&mut call.orders),
            is_urgent: std::mem::take(&mut call.is_urgent),
            is_scarce: std::mem::take(&mut call.is_scarce),
            is_stopped: call.is_stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The mover found nothing to do, and then another program filled the disk.
    #[test]
    fn rejected_mail_calls_an_idle_mover() {
        let signal = Arc::new(MoverSignal::default());
        let mover = Arc::clone(&signal);
        let (called, calls) = std::sync::mpsc::channel();
        let mover = std::thread::spawn(move || called.send(mover.wait(false, || false)));
        while !signal.is_idle.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        signal.notice_scarcity();
        // Without it, the mover sleeps for good.
        let call = calls.recv_timeout(Duration::from_mins(1));
        signal.stop();
        assert!(call.expect("called").is_scarce);
        mover.join().expect("no panic").expect("received");
    }
}
