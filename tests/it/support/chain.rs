//! Chains of evidence for the tests, written without the relay.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use gatepost::storage::evidence::{
    DeliveryRecord, DemandOutcome, Evidence, EvidenceRecord, NotWritten, RecordedAssurance,
    RecordedOutcome, SessionRecord,
};
use jiff::Timestamp;

/// Appends records to the evidence, durably.
pub(crate) trait AppendRecords {
    /// Appends records that have the same time.
    async fn append(&self, at: Timestamp, records: Vec<EvidenceRecord>) -> Result<(), NotWritten>;

    /// Appends records, each with its time.
    async fn append_all(&self, records: Vec<(Timestamp, EvidenceRecord)>)
    -> Result<(), NotWritten>;
}

impl AppendRecords for Evidence {
    async fn append(&self, at: Timestamp, records: Vec<EvidenceRecord>) -> Result<(), NotWritten> {
        let texts = records.iter().map(|record| record.to_text(at));
        self.write_texts(texts.collect()).await
    }

    async fn append_all(
        &self,
        records: Vec<(Timestamp, EvidenceRecord)>,
    ) -> Result<(), NotWritten> {
        let texts = records.iter().map(|(at, record)| record.to_text(*at));
        self.write_texts(texts.collect()).await
    }
}

/// A delivery in the clear to this domain.
pub(crate) fn delivery(to: &str, connector: &str) -> DeliveryRecord {
    DeliveryRecord {
        queue_id: "0000000000005".to_owned(),
        message_id: Some("<a@b.example>".to_owned()),
        from: "sender@example.com".to_owned(),
        to: format!("a@{to}"),
        domain: to.to_owned(),
        attempt: 1,
        connector: connector.to_owned(),
        recipient_connector: None,
        configuration: "00".to_owned(),
        policy: None,
        exception: None,
        host: Some(format!("mx.{to}")),
        address: Some("192.0.2.1:25".to_owned()),
        protocol: Some("smtp".to_owned()),
        source: Some("198.51.100.25".to_owned()),
        session: Some(SessionRecord {
            level: RecordedAssurance::Clear,
            no_tls: Some("the peer does not offer STARTTLS".to_owned()),
            tls: None,
        }),
        login: None,
        unmet: None,
        downgraded_from: None,
        standing: DemandOutcome::Met,
        outcome: RecordedOutcome::Delivered,
        status: "2.0.0".to_owned(),
        reply: Some("250 2.0.0 Ok".to_owned()),
        reason: None,
    }
}

/// Writes a chain of these records, each into the file of the day that is given beside it.
pub(crate) fn write_chain(folder: &Path, records: &[(&str, &str, EvidenceRecord)]) {
    let (mut prev, mut days) = ("0".repeat(64), BTreeMap::<&str, Vec<String>>::new());
    for (at, (day, time, record)) in records.iter().enumerate() {
        let fields = serde_json::to_string(record).expect("JSON");
        let covered = format!(
            "{{\"seq\":{},\"prev\":\"{prev}\",\"time\":\"{time}\",",
            at + 1
        );
        let covered = covered
            + fields
                .trim_start_matches('{')
                .strip_suffix('}')
                .expect("an object");
        prev = hash(&covered);
        days.entry(day)
            .or_default()
            .push(format!("{covered},\"hash\":\"{prev}\"}}"));
    }
    for (day, lines) in days {
        put(&folder.join(format!("{day}.jsonl")), &lines);
    }
}

/// Writes so many records of the day so many days ago, of 60 KB each, that compression hardly makes
/// smaller.
pub(crate) fn write_large_day(folder: &Path, count: usize, days_ago: i64) {
    let mut state = 1_u64;
    let mut noise = || {
        let letters = (0..60_000).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'0' + u8::try_from(state >> 58).expect("six bits"))
        });
        letters.filter(|letter| *letter != '\\').collect::<String>()
    };
    let day = name(days_ago).trim_end_matches(".jsonl").to_owned();
    let time = format!("{day}T00:00:00Z");
    let record = |_| {
        let mut record = delivery("a.example", "all");
        record.reply = Some(noise());
        let record = EvidenceRecord::Delivery(Box::new(record));
        (day.as_str(), time.as_str(), record)
    };
    write_chain(folder, &(0..count).map(record).collect::<Vec<_>>());
}

/// The SHA-256 of a text, in hexadecimal digits.
pub(crate) fn hash(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect::<Vec<_>>()
        .concat()
}

pub(crate) fn put(file: &Path, lines: &[String]) {
    fs::write(
        file,
        lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<Vec<_>>()
            .concat(),
    )
    .expect("the folder is ours");
}

/// The day of which the file is, that many days ago.
pub(crate) fn name(days_ago: i64) -> String {
    let at = Timestamp::now()
        .checked_sub(Duration::from_hours(24 * days_ago.unsigned_abs()))
        .expect("in range");
    format!("{}.jsonl", at.strftime("%Y-%m-%d"))
}
