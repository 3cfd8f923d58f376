//! Deliveries, counted by connector and domain, and messages that came in, by connector and listener. Nothing is read
//! here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::record::{Acceptance, Delivery, ExceptionHeld, Level, Outcome, Standing};

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

/// Deliveries in clear to one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InClear {
    /// The number of deliveries.
    pub delivered: u64,
    /// The time of the last one.
    pub last: Timestamp,
    /// The reason for the last one to be without TLS.
    pub reason: String,
    /// The connector's exception under which the last one went, where one held.
    pub exception: Option<ExceptionHeld>,
    /// The time of the first delivery under TLS behind it; nothing where the domain is still served in the clear.
    pub tls_since: Option<Timestamp>,
    /// The connector of the last one.
    #[serde(skip)]
    connector: String,
}

/// Messages that came in under one connector by one listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CameIn {
    /// The number of messages.
    pub messages: u64,
    /// Of these, how many under each level.
    pub levels: Levels,
}

/// The counts.
#[derive(Debug, Default)]
pub struct Summary {
    came_in: BTreeMap<(String, String), CameIn>,
    rows: BTreeMap<(String, String), Row>,
    /// By domain: a connector that was renamed since is another name for the same.
    in_clear: BTreeMap<String, InClear>,
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
        let domain = pair.1.clone();
        let row = self.rows.entry(pair).or_default();
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
            let delivered = self.in_clear.get(&domain).map_or(0, |clear| clear.delivered) + 1;
            let clear = InClear {
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
            // Of domains that are counted together nobody knows which one this is.
            clear.tls_since.get_or_insert(at);
        }
    }

    /// Connector, domain and what was counted, in this order.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &str, &Row)> {
        self.rows.iter().map(|((connector, domain), row)| (connector.as_str(), domain.as_str(), row))
    }

    /// Connector and domain of what is still served in the clear: its last delivery was.
    pub fn in_clear(&self) -> impl Iterator<Item = (&str, &str, &InClear)> {
        self.clear().filter(|(_, _, clear)| clear.tls_since.is_none())
    }

    /// Connector and domain of what was served in the clear, and under TLS since.
    pub fn in_clear_before(&self) -> impl Iterator<Item = (&str, &str, &InClear)> {
        self.clear().filter(|(_, _, clear)| clear.tls_since.is_some())
    }

    fn clear(&self) -> impl Iterator<Item = (&str, &str, &InClear)> {
        self.in_clear.iter().map(|(domain, clear)| (clear.connector.as_str(), domain.as_str(), clear))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().expect("a time")
    }

    /// A delivery to `domain` over a session of this level.
    fn delivery(connector: &str, domain: &str, level: &str, exception: Option<&str>) -> Delivery {
        let no_tls = if level == "clear" { "\"the peer does not offer STARTTLS\"" } else { "null" };
        let exception =
            exception.map_or("null".to_owned(), |until| format!(r#"{{"until":"{until}","reason":"ticket 7"}}"#));
        let text = format!(
            r#"{{"queue_id":"1","message_id":null,"from":"a@b.example","to":"c@{domain}","domain":"{domain}","attempt":1,
            "connector":"{connector}","configuration":"","policy":null,"exception":{exception},"host":null,"address":null,
            "session":{{"level":"{level}","no_tls":{no_tls},"tls":null}},"unmet":null,"downgraded_from":null,
            "standing":"met","outcome":"delivered","status":"2.0.0","reply":null,"reason":null}}"#
        );
        serde_json::from_str(&text).expect("a delivery")
    }

    /// Returns the lines about domains in the clear: now, and before.
    fn told(records: &[(&str, Delivery)]) -> (Vec<String>, Vec<String>) {
        let mut summary = Summary::default();
        for (time, delivery) in records {
            summary.count(at(time), delivery);
        }
        let word = |(connector, domain, clear): (&str, &str, &InClear)| {
            let exception = clear.exception.as_ref().map(|held| format!(" until {}", held.until));
            format!("{domain} ({connector}): {}{}", clear.delivered, exception.unwrap_or_default())
        };
        (summary.in_clear().map(word).collect(), summary.in_clear_before().map(word).collect())
    }

    #[test]
    fn a_domain_is_still_served_in_clear_while_its_last_delivery_was() {
        let (clear, tls) = (delivery("p", "p.example", "clear", None), delivery("p", "p.example", "tls", None));
        let of = |text: &str| vec![text.to_owned()];
        let none = Vec::new;
        for (records, still, before) in [
            (vec![("01T10:00", &clear), ("02T10:00", &clear)], of("p.example (p): 2"), none()),
            (vec![("01T10:00", &clear), ("02T10:00", &tls)], none(), of("p.example (p): 1")),
            (vec![("01T10:00", &clear), ("02T10:00", &tls), ("03T10:00", &clear)], of("p.example (p): 2"), none()),
            (vec![("01T10:00", &tls)], none(), none()),
        ] {
            let records: Vec<_> = records.into_iter().map(|(time, delivery)| (time, delivery.clone())).collect();
            assert_eq!(told(&records), (still, before), "{records:?}");
        }
    }

    #[test]
    fn a_renamed_connector_is_no_second_domain_in_clear() {
        let records = [
            ("01T10:00", delivery("old", "p.example", "clear", None)),
            ("02T10:00", delivery("new", "p.example", "verified", None)),
        ];
        assert_eq!(told(&records), (Vec::new(), vec!["p.example (old): 1".to_owned()]));
    }

    #[test]
    fn the_exception_that_allowed_it_is_named() {
        let records = [("01T10:00", delivery("p", "p.example", "clear", Some("2027-01-31")))];
        assert_eq!(told(&records).0, ["p.example (p): 1 until 2027-01-31"]);
    }
}
