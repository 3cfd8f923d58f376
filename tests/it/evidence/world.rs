//! A folder with a chain in it, and hands to spoil it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use gatepost::storage::evidence::{
    DeliveryRecord, DemandOutcome, Evidence, EvidenceRecord, RecordedAssurance, RecordedOutcome,
    SessionRecord,
};
use jiff::Timestamp;
use tempfile::TempDir;

pub(crate) const KEEP: Duration = Duration::from_hours(24 * 400);

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
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
        configuration: "00".to_owned(),
        policy: None,
        exception: None,
        host: Some(format!("mx.{to}")),
        address: Some("192.0.2.1:25".to_owned()),
        session: Some(SessionRecord {
            level: RecordedAssurance::Clear,
            no_tls: Some("the peer does not offer STARTTLS".to_owned()),
            tls: None,
        }),
        unmet: None,
        downgraded_from: None,
        standing: DemandOutcome::Met,
        outcome: RecordedOutcome::Delivered,
        status: "2.0.0".to_owned(),
        reply: Some("250 2.0.0 Ok".to_owned()),
        reason: None,
    }
}

pub(crate) fn one_delivery(to: &str) -> Vec<EvidenceRecord> {
    vec![EvidenceRecord::Delivery(Box::new(delivery(to, "internet")))]
}

/// Writes so many records, one by one, behind what is there; the very first is that the chain
/// begins.
pub(crate) async fn write(folder: &Path, count: usize) {
    let evidence = Evidence::open(folder, KEEP).expect("the folder is ours");
    for at in 0..count {
        evidence
            .write(Timestamp::now(), one_delivery(&format!("d{at}.example")))
            .await
            .expect("it is written");
    }
    evidence.close().await;
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

/// The files with records, the oldest first, compressed or not.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.ends_with(".jsonl") || name.ends_with(".jsonl.gz"))
    });
    files.sort();
    files
}

/// Compresses a file with gzip, as the relay does when its day is over.
pub(crate) fn compress(file: &Path) -> PathBuf {
    let content = fs::read(file).expect("a day");
    let compressed = file.with_extension("jsonl.gz");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let octets = encoder
        .write_all(&content)
        .and_then(|()| encoder.finish())
        .expect("memory");
    fs::write(&compressed, octets)
        .and_then(|()| fs::remove_file(file))
        .expect("the folder is ours");
    compressed
}

pub(crate) fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file)
        .expect("text")
        .lines()
        .map(str::to_owned)
        .collect()
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
