//! Evidence in the forms that came after version 0.1.0: shared records, compressed days, and days that
//! were archived.
//!
//! `data/stores/forms` has a folder of evidence, the archive of its first day, and the CSV in which
//! the version that wrote them listed both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use gatepost::storage::evidence::{
    AcceptanceRecord, ChainStart, DeliveryRecord, Evidence, EvidenceRecord, EvidenceSource,
    MailRecord, Period, RecordHash, records, verify,
};
use jiff::Timestamp;

use super::{FIRST, LAST, LATER, at, copy, delivery, inbound, known_columns, stores};
use crate::support::chain::AppendRecords as _;
use crate::support::relay::program;
use crate::support::within;

/// Longer than anybody will run this test.
const KEEP: Duration = Duration::from_hours(24 * 365 * 100);
/// The folder to which the first day was archived, as its record says.
const ARCHIVED_TO: &str = "/mnt/archive/gatepost";
/// The number of the last archived record: the beginning of the chain, the message, and a record for
/// two recipients.
const ARCHIVED: u64 = 3;

/// A delivery to each of these recipients, alike but for the address.
fn delivered(when: &str, locals: &[&str]) -> Vec<(Timestamp, EvidenceRecord)> {
    let record = |local: &&str| {
        let record = DeliveryRecord {
            to: format!("{local}@partner.example"),
            ..delivery()
        };
        (at(when), EvidenceRecord::Delivery(Box::new(record)))
    };
    locals.iter().map(record).collect()
}

/// The records of mail of each day.
fn days() -> [Vec<(Timestamp, EvidenceRecord)>; 3] {
    let to = ["anna", "bea", "carl"].map(|local| format!("{local}@partner.example"));
    let accepted = AcceptanceRecord {
        queue_id: "0000000000005".to_owned(),
        message_id: Some("<1@sender.example>".to_owned()),
        from: "sender@sender.example".to_owned(),
        domain: "sender.example".to_owned(),
        to: to.to_vec(),
        more_to: 0,
        size: 4711,
        by: inbound(),
    };
    let accepted = EvidenceRecord::Accepted(Box::new(accepted));
    [
        [
            vec![(at(FIRST), accepted)],
            delivered(FIRST, &["anna", "bea"]),
        ]
        .concat(),
        delivered(LATER, &["carl", "dora", "emil"]),
        delivered(LAST, &["fay"]),
    ]
}

/// Writes the stores into `target/tmp/forms`, as [`super::make::make_stores`] does.
#[tokio::test]
#[ignore = "makes test data"]
async fn make_evidence_forms() {
    let forms = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("forms");
    if forms.exists() {
        fs::remove_dir_all(&forms).expect("an earlier run made it");
    }
    let (folder, archive) = (forms.join("evidence"), forms.join("archive"));
    fs::create_dir_all(&archive).expect("ours");
    let evidence = Evidence::open(&folder, KEEP).expect("ours");
    let [first, later, last] = days();
    evidence.append_all(first).await.expect("written");
    let archived = verify(&folder, &[]).expect("readable").last;
    let archived = archived.expect("a record");
    evidence.append_all(later).await.expect("written");
    let dropped = EvidenceRecord::Dropped {
        files: 1,
        last_seq: archived.seq,
        last_hash: archived.hash,
        archived_to: Some(ARCHIVED_TO.to_owned()),
    };
    let last = [vec![(at(LAST), dropped)], last].concat();
    evidence.append_all(last).await.expect("written");
    evidence.close().await;
    split(&folder);
    // Compresses the days that are over.
    let evidence = Evidence::open(&folder, KEEP).expect("ours");
    let compressed = |when: &str| folder.join(format!("{}.jsonl.gz", &when[..10]));
    let is_compressed = || compressed(FIRST).exists() && compressed(LATER).exists();
    assert!(within(Duration::from_secs(30), is_compressed));
    evidence.close().await;
    let day = compressed(FIRST);
    fs::rename(&day, archive.join(day.file_name().expect("a file"))).expect("ours");
    for file in ["lock", "reserve"] {
        fs::remove_file(folder.join(file)).expect(file);
    }
    let listed = list(&forms);
    fs::write(forms.join("evidence_list.csv"), listed.stdout).expect("ours");
}

/// Splits the one day of a folder into one for each time, as if each record had been written then.
fn split(folder: &Path) {
    let written = fs::read_dir(folder)
        .expect("ours")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .expect("a day");
    let text = fs::read_to_string(&written).expect("text");
    fs::remove_file(written).expect("ours");
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    for (when, part) in [
        (FIRST, &lines[..3]),
        (LATER, &lines[3..4]),
        (LAST, &lines[4..]),
    ] {
        fs::write(folder.join(format!("{}.jsonl", &when[..10])), part.concat()).expect("ours");
    }
}

fn list(forms: &Path) -> Output {
    Command::new(program())
        .args(["evidence", "list", "--csv", "--folder"])
        .arg(forms.join("evidence"))
        .arg("--archive")
        .arg(forms.join("archive"))
        .output()
        .expect("gatepost runs")
}

/// A copy of the stores, which a test may open and change.
fn forms() -> tempfile::TempDir {
    let folder = stores();
    let forms = folder.path().join("forms");
    let own = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    copy(&forms, own.path());
    own
}

/// Every recipient of a shared record is read for itself, from compressed days and from the archive,
/// and the chain is whole with the archive and without it.
#[tokio::test]
async fn shared_records_of_compressed_and_archived_days_are_read_and_their_chain_goes_on() {
    let own = forms();
    let folder = own.path().join("evidence");
    let archives = [own.path().join("archive")];
    let source = EvidenceSource {
        folder: &folder,
        archives: &archives,
        chain: None,
    };
    let mut read = Vec::new();
    let result = records(source, Period::ALL, |_, link, record| {
        let record = match record {
            MailRecord::Accepted(accepted) => EvidenceRecord::Accepted(accepted),
            MailRecord::Delivery(delivery) => EvidenceRecord::Delivery(delivery),
        };
        read.push((link.time, record));
    });
    assert_eq!(result.expect("readable").bad, 0);
    assert_eq!(read, days().concat());
    let head = verify(&folder, &[]).expect("readable").last;
    let head: RecordHash = head.expect("a record").hash;
    let evidence = Evidence::open(&folder, KEEP).expect("the evidence opens");
    evidence
        .append_all(delivered(LAST, &["gil", "hal"]))
        .await
        .expect("written");
    evidence.close().await;
    let whole = verify(source, &[head]).expect("readable");
    assert_eq!(
        (whole.findings, whole.records, whole.beginning),
        (vec![], 7, ChainStart::First)
    );
    let rest = verify(&folder, &[head]).expect("readable");
    assert_eq!(
        (rest.findings, rest.records, rest.beginning),
        (vec![], 4, ChainStart::Archived { archived: ARCHIVED })
    );
}

/// The list as CSV is the same as that of the version that wrote the records, byte for byte, up to
/// its new last column.
#[test]
fn the_csv_of_shared_and_archived_records_has_not_changed() {
    let own = forms();
    let listed = list(own.path());
    let before = fs::read(own.path().join("evidence_list.csv")).expect("the test data");
    assert_eq!(
        known_columns(&listed.stdout),
        String::from_utf8_lossy(&before)
    );
    assert_eq!(listed.status.code(), Some(0));
}
