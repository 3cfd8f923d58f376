//! Deliveries, counted by connector and domain, and messages that came in, by connector and listener. Nothing is read
//! here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::record::{Acceptance, Delivery, Level, Outcome, Standing};

/// Pairs of connector and domain that are counted one by one; the domains beyond are counted together.
const PAIRS_MAX: usize = 100_000;
/// What stands for them.
const OTHERS: &str = "(other domains)";

/// What was counted of one connector and domain. Each recipient of each attempt counts as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Delivered.
    pub delivered: u64,
    /// Of these, how many under each level: in clear, TLS, trusted, verified, pinned, DANE.
    pub levels: Levels,
    /// Of these, how many over a session that exceeded the demand.
    pub exceeded: u64,
    /// Of these, how many in clear because the TLS that was offered came to nothing.
    pub fallback: u64,
    /// Attempts that ended because a demand was not met.
    pub refused: u64,
    /// Attempts that are tried again.
    pub deferred: u64,
    /// Held for an operator.
    pub held: u64,
    /// Given up.
    pub bounced: u64,
    /// Removed by an operator.
    pub removed: u64,
}

/// How many under each level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the levels stand in Level")]
pub struct Levels {
    pub clear: u64,
    pub tls: u64,
    pub trusted: u64,
    pub verified: u64,
    pub pinned: u64,
    pub dane: u64,
}

impl Levels {
    fn of(&mut self, level: Level) -> &mut u64 {
        match level {
            Level::Clear => &mut self.clear,
            Level::Tls => &mut self.tls,
            Level::Trusted => &mut self.trusted,
            Level::Verified => &mut self.verified,
            Level::Pinned => &mut self.pinned,
            Level::Dane => &mut self.dane,
        }
    }

    /// In the order of [`Level::ALL`].
    #[must_use]
    pub fn all(&self) -> [u64; 6] {
        [self.clear, self.tls, self.trusted, self.verified, self.pinned, self.dane]
    }
}

/// A domain that is still served in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InClear {
    /// How many deliveries.
    pub delivered: u64,
    /// The last one.
    pub last: Timestamp,
    /// Why there was no TLS then.
    pub reason: String,
}

/// Messages that came in under one connector by one listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CameIn {
    /// How many.
    pub messages: u64,
    /// Of these, how many under each level.
    pub levels: Levels,
}

/// The counts.
#[derive(Debug, Default)]
pub struct Summary {
    came_in: BTreeMap<(String, String), CameIn>,
    rows: BTreeMap<(String, String), (Row, Option<InClear>)>,
}

impl Summary {
    /// Counts a message that came in. Senders' domains are anybody's claim, and are not counted one by one.
    pub fn count_in(&mut self, acceptance: &Acceptance) {
        let by = &acceptance.by;
        let counts = self.came_in.entry((by.connector.clone(), by.listener.clone())).or_default();
        counts.messages += 1;
        *counts.levels.of(by.session.level) += 1;
    }

    /// Connector, listener and the messages that came in, in this order.
    pub fn came_in(&self) -> impl Iterator<Item = (&str, &str, &CameIn)> {
        self.came_in.iter().map(|((connector, listener), counts)| (connector.as_str(), listener.as_str(), counts))
    }

    /// Counts one delivery.
    pub fn count(&mut self, at: Timestamp, delivery: &Delivery) {
        let mut pair = (delivery.connector.clone(), delivery.domain.clone());
        if self.rows.len() >= PAIRS_MAX && !self.rows.contains_key(&pair) {
            OTHERS.clone_into(&mut pair.1);
        }
        let (row, clear) = self.rows.entry(pair).or_default();
        row.refused += u64::from(delivery.standing == Standing::Refused);
        match delivery.outcome {
            Outcome::Delivered => {}
            Outcome::Deferred => row.deferred += 1,
            Outcome::Held => row.held += 1,
            Outcome::Bounced => row.bounced += 1,
            Outcome::Removed => row.removed += 1,
        }
        if delivery.outcome != Outcome::Delivered {
            return;
        }
        row.delivered += 1;
        row.exceeded += u64::from(delivery.standing == Standing::Exceeded);
        row.fallback += u64::from(delivery.standing == Standing::Fallback);
        let Some(session) = &delivery.session else { return };
        *row.levels.of(session.level) += 1;
        if session.level == Level::Clear {
            let delivered = clear.as_ref().map_or(0, |clear| clear.delivered) + 1;
            let reason = session.no_tls.clone().unwrap_or_default();
            *clear = Some(InClear { delivered, last: at, reason });
        }
    }

    /// Connector, domain and what was counted, in this order.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &str, &Row)> {
        self.rows.iter().map(|((connector, domain), (row, _))| (connector.as_str(), domain.as_str(), row))
    }

    /// Connector and domain of what is still served in clear.
    pub fn in_clear(&self) -> impl Iterator<Item = (&str, &str, &InClear)> {
        self.rows.iter().filter_map(|((connector, domain), (_, clear))| {
            clear.as_ref().map(|clear| (connector.as_str(), domain.as_str(), clear))
        })
    }
}
