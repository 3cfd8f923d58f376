//! The forms of a delivery record.
//!
//! Form 1 has one recipient: `"to":"a@b.example"`. Form 2 is for recipients of one attempt that differ
//! in nothing but their address: `"form":2` behind the kind, and `"to":["a@b.example","c@b.example"]`.
//! Whoever reads records gets one delivery for each recipient, whatever the form.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};

use super::record_text::RecordText;

/// The most recipients of one record.
const RECIPIENTS_MAX: usize = 100;
/// The text around the recipient in the fields of a record. A string cannot contain it: its quotes
/// have a backslash before them.
const KIND: &str = "\"kind\":\"delivery\",";
const FORM: &str = "\"form\":";
const TO: &str = ",\"to\":";

/// The record of recipients that differ in nothing but their address, so far.
struct SharedRecord {
    /// The fields before and after `to`.
    before: String,
    after: String,
    /// The recipients as JSON.
    to: Vec<String>,
}

impl SharedRecord {
    fn into_fields(self) -> String {
        let Self { before, after, to } = self;
        match &to[..] {
            [one] => format!("{before}{TO}{one}{after}"),
            several => {
                let before = before.replacen(KIND, &format!("{KIND}{FORM}2,"), 1);
                format!("{before}{TO}[{}]{after}", several.join(","))
            }
        }
    }
}

/// Returns the fields of records, with one record for recipients that differ in nothing but their
/// address. A shared record stands where that of its first recipient would.
pub(in super::super) fn to_fields(records: Vec<RecordText>) -> Vec<String> {
    if records.iter().filter(|record| record.is_delivery).count() < 2 {
        return records.into_iter().map(|record| record.fields).collect();
    }
    let mut shared: Vec<SharedRecord> = Vec::new();
    let mut open: HashMap<(String, String), usize> = HashMap::new();
    for RecordText {
        fields,
        is_delivery,
    } in records
    {
        let Some((before, to, after)) = split(&fields).filter(|_| is_delivery) else {
            let (before, after, to) = (fields, String::new(), Vec::new());
            shared.push(SharedRecord { before, after, to });
            continue;
        };
        let key = (before.to_owned(), after.to_owned());
        let at = *open.entry(key).or_insert(shared.len());
        let has_space = |record: &&mut SharedRecord| record.to.len() < RECIPIENTS_MAX;
        if let Some(record) = shared.get_mut(at).filter(has_space) {
            record.to.push(to.to_owned());
            continue;
        }
        open.insert((before.to_owned(), after.to_owned()), shared.len());
        shared.push(SharedRecord {
            before: before.to_owned(),
            after: after.to_owned(),
            to: vec![to.to_owned()],
        });
    }
    let fields = shared.into_iter().map(|record| {
        if record.to.is_empty() {
            record.before
        } else {
            record.into_fields()
        }
    });
    fields.collect()
}

/// Splits the fields of a delivery into those before the recipient, the recipient as JSON, and those
/// after it.
fn split(fields: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = fields.split_once(TO)?;
    let mut is_escaped = false;
    let end = rest.bytes().skip(1).position(|octet| {
        let ends = octet == b'"' && !is_escaped;
        is_escaped = octet == b'\\' && !is_escaped;
        ends
    })?;
    let (to, after) = rest.split_at_checked(end + 2)?;
    Some((before, to, after))
}

/// The fields that tell the forms apart.
#[derive(serde::Deserialize)]
struct RecordForm {
    form: u32,
    to: Vec<String>,
}

/// Returns all recipients of a delivery record of form 2; `None` for form 1.
///
/// # Errors
/// The record has a form that only a later version knows, or too many recipients.
pub(in super::super) fn recipients(line: &str) -> Result<Option<Vec<String>>, UnknownForm> {
    // Cheap filter: few records are shared.
    if memchr::memmem::find(line.as_bytes(), FORM.as_bytes()).is_none() {
        return Ok(None);
    }
    let RecordForm { form, to } = serde_json::from_str(line).map_err(|_| UnknownForm)?;
    if form == 2 && (1..=RECIPIENTS_MAX).contains(&to.len()) {
        Ok(Some(to))
    } else {
        Err(UnknownForm)
    }
}

/// The error of a record whose form is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct UnknownForm;

/// Reads the recipient of a record, and the first one of a shared record.
pub(super) fn first_recipient<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    struct FirstRecipient;

    impl<'de> Visitor<'de> for FirstRecipient {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a recipient or a list of recipients")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<String, A::Error> {
            let first = all.next_element::<String>()?;
            while all.next_element::<serde::de::IgnoredAny>()?.is_some() {}
            first.ok_or_else(|| serde::de::Error::invalid_length(0, &self))
        }
    }

    source.deserialize_any(FirstRecipient)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::storage::evidence::record::{
        DeliveryRecord, DemandOutcome, EvidenceRecord, RecordedOutcome,
    };

    /// Returns the lines of records.
    fn lines_of(records: &[(Timestamp, EvidenceRecord)]) -> Vec<String> {
        to_fields(texts(records))
    }

    fn texts(records: &[(Timestamp, EvidenceRecord)]) -> Vec<RecordText> {
        let text = |(at, record): &(Timestamp, EvidenceRecord)| record.to_text(*at);
        records.iter().map(text).collect()
    }

    fn delivery(to: &str, status: &str) -> (Timestamp, EvidenceRecord) {
        let record = DeliveryRecord {
            queue_id: "q1".to_owned(),
            message_id: Some("<,\"to\":\"x\"@y>".to_owned()),
            from: "a,\"to\":@b.example".to_owned(),
            to: to.to_owned(),
            domain: "d.example".to_owned(),
            attempt: 1,
            connector: "all".to_owned(),
            recipient_connector: None,
            configuration: "c0ffee".to_owned(),
            policy: None,
            exception: None,
            host: None,
            address: None,
            protocol: None,
            source: None,
            session: None,
            login: None,
            unmet: None,
            downgraded_from: None,
            standing: DemandOutcome::Unreached,
            outcome: RecordedOutcome::Deferred,
            status: status.to_owned(),
            reply: None,
            reason: Some("\"form\":2,\"to\":[\"z\"]".to_owned()),
        };
        (
            Timestamp::UNIX_EPOCH,
            EvidenceRecord::Delivery(Box::new(record)),
        )
    }

    /// Returns the recipient and the status of each delivery in these lines.
    fn read(lines: &[String]) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for line in lines {
            let line = format!("{{{line}}}");
            let Ok(EvidenceRecord::Delivery(delivery)) = serde_json::from_str(&line) else {
                panic!("{line}")
            };
            let first = vec![delivery.to.clone()];
            let to = recipients(&line).expect("a known form").unwrap_or(first);
            all.extend(to.into_iter().map(|to| (to, delivery.status.clone())));
        }
        all
    }

    fn pairs(records: &[(Timestamp, EvidenceRecord)]) -> Vec<(String, String)> {
        let pair = |record: &EvidenceRecord| match record {
            EvidenceRecord::Delivery(delivery) => (delivery.to.clone(), delivery.status.clone()),
            other => panic!("{other:?}"),
        };
        records.iter().map(|(_, record)| pair(record)).collect()
    }

    #[test]
    fn a_record_for_one_recipient_is_as_earlier_versions_wrote_it() {
        for records in [
            vec![delivery("a@d.example", "4.4.1")],
            vec![
                delivery("a@d.example", "4.4.1"),
                delivery("b@d.example", "5.1.1"),
            ],
        ] {
            let alone = texts(&records).into_iter().map(|text| text.fields);
            assert_eq!(lines_of(&records), alone.collect::<Vec<_>>());
        }
    }

    /// Once written, this text must be readable for ever.
    #[test]
    fn recipients_that_differ_in_their_address_alone_share_a_record() {
        let odd = "\"\\\\ö,\\\"@\"@d.example";
        let records = [
            delivery("a@d.example", "4.4.1"),
            delivery("no@d.example", "5.1.1"),
            delivery(odd, "4.4.1"),
        ];
        let lines = lines_of(&records);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let shared = "\"time\":\"1970-01-01T00:00:00Z\",\"kind\":\"delivery\",\"form\":2,\"queue_id\":\"q1\",";
        assert!(lines[0].starts_with(shared), "{}", lines[0]);
        assert!(
            lines[0].contains(",\"to\":[\"a@d.example\",\""),
            "{}",
            lines[0]
        );
        let mut read = read(&lines);
        let mut written = pairs(&records);
        read.sort();
        written.sort();
        assert_eq!(read, written);
    }

    #[test]
    fn a_record_has_at_most_a_hundred_recipients() {
        for (recipients, lines) in [(99, 1), (100, 1), (101, 2), (1000, 10), (1001, 11)] {
            let all: Vec<_> = (0..recipients)
                .map(|at| delivery(&format!("r{at}@d.example"), "4.4.1"))
                .collect();
            let written = lines_of(&all);
            assert_eq!(written.len(), lines, "{recipients}");
            assert_eq!(read(&written), pairs(&all));
        }
    }

    #[test]
    fn a_form_of_a_later_version_is_an_error() {
        for (line, known) in [
            ("{\"form\":2,\"to\":[\"a@b.example\"]}", true),
            ("{\"form\":2,\"to\":[]}", false),
            ("{\"form\":2,\"to\":\"a@b.example\"}", false),
            ("{\"form\":3,\"to\":[\"a@b.example\"]}", false),
            ("{\"form\":\"2\",\"to\":[\"a@b.example\"]}", false),
        ] {
            assert_eq!(recipients(line).is_ok(), known, "{line}");
        }
        let many = vec!["\"a@b.example\""; RECIPIENTS_MAX + 1].join(",");
        assert_eq!(
            recipients(&format!("{{\"form\":2,\"to\":[{many}]}}")),
            Err(UnknownForm)
        );
        assert_eq!(recipients("{\"to\":\"a@b.example\"}"), Ok(None));
    }
}
