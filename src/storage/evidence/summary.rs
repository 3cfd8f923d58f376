//! Counts of deliveries by connector and domain, and of accepted messages by connector and
//! listener. Reads no files.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::record::{
    AcceptanceRecord, DeliveryRecord, DemandOutcome, ExceptionRecord, RecordedAssurance,
    RecordedOutcome,
};

/// The most pairs of connector and domain that are counted one by one. Further domains are counted
/// together.
const PAIRS_MAX: usize = 100_000;
/// The name under which further domains are counted.
const OTHERS: &str = "(other domains)";

/// The counts of one connector and domain. Each recipient of each attempt counts as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeliveryCounts {
    /// Deliveries.
    pub delivered: u64,
    /// Deliveries by assurance.
    pub levels: AssuranceCounts,
    /// Deliveries over a session that exceeded the demand.
    pub exceeded: u64,
    /// Deliveries in the clear although TLS was offered, because TLS failed.
    pub fallback: u64,
    /// Attempts that ended because a demand was not met.
    pub refused: u64,
    /// Attempts that are retried.
    pub deferred: u64,
    /// Recipients held for an operator.
    pub held: u64,
    /// Recipients that bounced.
    pub bounced: u64,
    /// Recipients removed by an operator.
    pub removed: u64,
}

/// Counts by assurance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AssuranceCounts {
    /// Sessions in the clear.
    pub clear: u64,
    /// Encrypted sessions whose peer is not authenticated.
    pub tls: u64,
    /// Encrypted sessions with a trusted chain that is verified for no name.
    pub trusted: u64,
    /// Sessions verified as a name.
    pub verified: u64,
    /// Sessions verified by a pinned key.
    pub pinned: u64,
    /// Sessions verified by DANE.
    pub dane: u64,
}

impl AssuranceCounts {
    /// Returns the count of one level.
    pub(super) fn of(&mut self, level: RecordedAssurance) -> &mut u64 {
        match level {
            RecordedAssurance::Clear => &mut self.clear,
            RecordedAssurance::Tls => &mut self.tls,
            RecordedAssurance::Trusted => &mut self.trusted,
            RecordedAssurance::Verified => &mut self.verified,
            RecordedAssurance::Pinned => &mut self.pinned,
            RecordedAssurance::Dane => &mut self.dane,
        }
    }

    /// Returns the counts in ascending order of assurance.
    #[must_use]
    pub fn all(&self) -> [u64; 6] {
        [
            self.clear,
            self.tls,
            self.trusted,
            self.verified,
            self.pinned,
            self.dane,
        ]
    }
}

/// Deliveries in the clear to one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClearDeliveries {
    /// The number of deliveries.
    pub delivered: u64,
    /// The time of the last one.
    pub last: Timestamp,
    /// The reason why the last one had no TLS.
    pub reason: String,
    /// The exception that was in force for the last one, if there was one.
    pub exception: Option<ExceptionRecord>,
    /// The time of the first delivery with TLS after the last one in the clear; `None` if there was
    /// none.
    pub tls_since: Option<Timestamp>,
    /// The connector of the last one.
    #[serde(skip)]
    connector: String,
}

/// Messages that were accepted under one connector on one listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AcceptedCounts {
    /// The number of messages.
    pub messages: u64,
    /// The messages by assurance.
    pub levels: AssuranceCounts,
}

/// The counts of all records.
#[derive(Debug, Default)]
pub struct Summary {
    came_in: BTreeMap<(String, String), AcceptedCounts>,
    rows: BTreeMap<(String, String), DeliveryCounts>,
    /// Keyed by domain alone, so that a renamed connector does not count a domain twice.
    in_clear: BTreeMap<String, ClearDeliveries>,
}

impl Summary {
    /// Counts an accepted message. The domain in a sender address is unverified, so it is not
    /// counted.
    pub fn count_in(&mut self, acceptance: &AcceptanceRecord) {
        let by = &acceptance.by;
        let counts = self
            .came_in
            .entry((by.connector.clone(), by.listener.clone()))
            .or_default();
        counts.messages += 1;
        *counts.levels.of(by.session.level) += 1;
    }

    /// Returns connector, listener and counts of accepted messages, sorted.
    pub fn came_in(&self) -> impl Iterator<Item = (&str, &str, &AcceptedCounts)> {
        self.came_in
            .iter()
            .map(|((connector, listener), counts)| (connector.as_str(), listener.as_str(), counts))
    }

    /// Counts one delivery record.
    pub fn count(&mut self, at: Timestamp, delivery: &DeliveryRecord) {
        let mut pair = (delivery.connector.clone(), delivery.domain.clone());
        if self.rows.len() >= PAIRS_MAX && !self.rows.contains_key(&pair) {
            OTHERS.clone_into(&mut pair.1);
        }
        let domain = pair.1.clone();
        let row = self.rows.entry(pair).or_default();
        row.refused += u64::from(delivery.standing == DemandOutcome::Refused);
        match delivery.outcome {
            RecordedOutcome::Delivered => {}
            RecordedOutcome::Deferred => row.deferred += 1,
            RecordedOutcome::Held => row.held += 1,
            RecordedOutcome::Bounced => row.bounced += 1,
            RecordedOutcome::Removed => row.removed += 1,
        }
        if delivery.outcome != RecordedOutcome::Delivered {
            return;
        }
        row.delivered += 1;
        row.exceeded += u64::from(delivery.standing == DemandOutcome::Exceeded);
        row.fallback += u64::from(delivery.standing == DemandOutcome::Fallback);
        let Some(session) = &delivery.session else {
            return;
        };
        *row.levels.of(session.level) += 1;
        if session.level == RecordedAssurance::Clear {
            let delivered = self
                .in_clear
                .get(&domain)
                .map_or(0, |clear| clear.delivered)
                + 1;
            let clear = ClearDeliveries {
                delivered,
                last: at,
                reason: session.no_tls.clone().unwrap_or_default(),
                exception: delivery.exception.clone(),
                tls_since: None,
                connector: delivery.connector.clone(),
            };
            self.in_clear.insert(domain, clear);
        } else if domain != OTHERS
            && let Some(clear) = self.in_clear.get_mut(&domain)
        {
            // The domain in the shared row is unknown, so it cannot be marked as served with TLS.
            clear.tls_since.get_or_insert(at);
        }
    }

    /// Returns connector, domain and counts of deliveries, sorted.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &str, &DeliveryCounts)> {
        self.rows
            .iter()
            .map(|((connector, domain), row)| (connector.as_str(), domain.as_str(), row))
    }

    /// Returns connector, domain and counts of the domains whose last delivery was in the clear.
    pub fn in_clear(&self) -> impl Iterator<Item = (&str, &str, &ClearDeliveries)> {
        self.clear()
            .filter(|(_, _, clear)| clear.tls_since.is_none())
    }

    /// Returns connector, domain and counts of the domains that were served in the clear before,
    /// and with TLS since.
    pub fn in_clear_before(&self) -> impl Iterator<Item = (&str, &str, &ClearDeliveries)> {
        self.clear()
            .filter(|(_, _, clear)| clear.tls_since.is_some())
    }

    fn clear(&self) -> impl Iterator<Item = (&str, &str, &ClearDeliveries)> {
        self.in_clear
            .iter()
            .map(|(domain, clear)| (clear.connector.as_str(), domain.as_str(), clear))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().expect("a time")
    }

    /// A delivery to `domain` over a session of this level.
    fn delivery(
        connector: &str,
        domain: &str,
        level: &str,
        exception: Option<&str>,
    ) -> DeliveryRecord {
        let no_tls = if level == "clear" {
            "\"the peer does not offer STARTTLS\""
        } else {
            "null"
        };
        let exception = exception.map_or("null".to_owned(), |until| {
            format!(r#"{{"until":"{until}","reason":"ticket 7"}}"#)
        });
        let text = format!(
            r#"{{"queue_id":"1","message_id":null,"from":"a@b.example","to":"c@{domain}","domain":"{domain}","attempt":1,
            "connector":"{connector}","configuration":"","policy":null,"exception":{exception},"host":null,"address":null,
            "session":{{"level":"{level}","no_tls":{no_tls},"tls":null}},"unmet":null,"downgraded_from":null,
            "standing":"met","outcome":"delivered","status":"2.0.0","reply":null,"reason":null}}"#
        );
        serde_json::from_str(&text).expect("a delivery")
    }

    /// Returns the domains that are served in the clear, and those that were before.
    fn served_in_clear(records: &[(&str, DeliveryRecord)]) -> (Vec<String>, Vec<String>) {
        let mut summary = Summary::default();
        for (time, delivery) in records {
            summary.count(at(time), delivery);
        }
        let word = |(connector, domain, clear): (&str, &str, &ClearDeliveries)| {
            let exception = clear
                .exception
                .as_ref()
                .map(|held| format!(" until {}", held.until));
            format!(
                "{domain} ({connector}): {}{}",
                clear.delivered,
                exception.unwrap_or_default()
            )
        };
        (
            summary.in_clear().map(word).collect(),
            summary.in_clear_before().map(word).collect(),
        )
    }

    #[test]
    fn a_domain_is_listed_while_its_last_delivery_was_in_the_clear() {
        let (clear, tls) = (
            delivery("p", "p.example", "clear", None),
            delivery("p", "p.example", "tls", None),
        );
        let of = |text: &str| vec![text.to_owned()];
        let none = Vec::new;
        for (records, still, before) in [
            (
                vec![("01T10:00", &clear), ("02T10:00", &clear)],
                of("p.example (p): 2"),
                none(),
            ),
            (
                vec![("01T10:00", &clear), ("02T10:00", &tls)],
                none(),
                of("p.example (p): 1"),
            ),
            (
                vec![
                    ("01T10:00", &clear),
                    ("02T10:00", &tls),
                    ("03T10:00", &clear),
                ],
                of("p.example (p): 2"),
                none(),
            ),
            (vec![("01T10:00", &tls)], none(), none()),
        ] {
            let records: Vec<_> = records
                .into_iter()
                .map(|(time, delivery)| (time, delivery.clone()))
                .collect();
            assert_eq!(served_in_clear(&records), (still, before), "{records:?}");
        }
    }

    #[test]
    fn a_renamed_connector_does_not_count_a_domain_twice() {
        let records = [
            ("01T10:00", delivery("old", "p.example", "clear", None)),
            ("02T10:00", delivery("new", "p.example", "verified", None)),
        ];
        assert_eq!(
            served_in_clear(&records),
            (Vec::new(), vec!["p.example (old): 1".to_owned()])
        );
    }

    #[test]
    fn the_exception_of_the_last_delivery_is_named() {
        let records = [(
            "01T10:00",
            delivery("p", "p.example", "clear", Some("2027-01-31")),
        )];
        assert_eq!(
            served_in_clear(&records).0,
            ["p.example (p): 1 until 2027-01-31"]
        );
    }
}
