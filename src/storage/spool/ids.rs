//! Queue ids: a timestamp with a counter below it.
//!
//! An id is the number of milliseconds since 2020-01-01 (41 bits, until 2089) followed by a counter
//! of 22 bits. It cannot be read as an exact time: while the clock stands still or goes back, only
//! the counter grows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::smtp::envelope::QueueId;

/// 2020-01-01T00:00:00Z, in milliseconds since 1970.
const EPOCH: u64 = 1_577_836_800_000;
const COUNTER_BITS: u32 = 22;

/// The source of queue ids. Each id is greater than all ids before it.
#[derive(Debug)]
pub(super) struct Ids {
    last: AtomicU64,
}

impl Ids {
    /// Continues above `highest`, the highest stored id, and above `written`, the time of the
    /// spool's last change. So the id of a removed message is not used again, even if the clock was
    /// set back between two starts.
    pub(super) fn after(highest: Option<QueueId>, written: Option<SystemTime>) -> Self {
        let stored = highest.map_or(0, QueueId::number);
        let written = written.map_or(0, |time| at(millis(time) + 1));
        Self {
            last: AtomicU64::new(stored.max(written)),
        }
    }

    pub(super) fn draw(&self) -> QueueId {
        self.draw_at(millis(SystemTime::now()))
    }

    fn draw_at(&self, millis: u64) -> QueueId {
        let next = |last: u64| at(millis).max(last + 1).min(QueueId::MAX);
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            match self.last.compare_exchange_weak(
                last,
                next(last),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => last = now,
            }
        }
        QueueId::from_number(next(last)).expect("it is capped at the largest id")
    }
}

fn millis(time: SystemTime) -> u64 {
    let since_1970 = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    u64::try_from(since_1970)
        .unwrap_or(u64::MAX)
        .saturating_sub(EPOCH)
}

fn at(millis: u64) -> u64 {
    millis.min(QueueId::MAX >> COUNTER_BITS) << COUNTER_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ids_rise_while_the_clock_stands_or_goes_back() {
        let ids = Ids::after(None, None);
        let drawn: Vec<_> = [1000, 1000, 1001, 900, 900, 1002]
            .map(|at| ids.draw_at(at))
            .into();
        assert!(drawn.is_sorted_by(|a, b| a < b), "{drawn:?}");
        assert_eq!(drawn[0].number(), 1000 << COUNTER_BITS);
        assert_eq!(drawn[5].number(), 1002 << COUNTER_BITS);
    }

    #[test]
    fn ids_go_on_above_what_is_stored_and_when_it_was_written() {
        let stored = QueueId::from_number(5000 << COUNTER_BITS).expect("small");
        assert!(Ids::after(Some(stored), None).draw_at(10) > stored);
        let written = SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH + 7000);
        assert!(
            Ids::after(Some(stored), Some(written)).draw_at(10).number() > 7000 << COUNTER_BITS
        );
    }

    #[test]
    fn ids_of_our_time_fit_a_signed_row_id() {
        let (now, later) = (
            Ids::after(None, None).draw(),
            Ids::after(None, None).draw_at(u64::MAX),
        );
        assert!(now < later && later.number() <= QueueId::MAX);
    }
}
