//! Recipients that differ in nothing but their address share a record, and count one by one.

use std::path::Path;
use std::process::Command;

use gatepost::storage::evidence::{Evidence, EvidenceRecord, Period, deliveries};
use jiff::Timestamp;

use super::daemon::{err, out};
use super::world::{KEEP, delivery, folder, lines, name};
use crate::support::chain::AppendRecords as _;
use crate::support::relay::program;

fn read(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program());
    command.arg("evidence").args(arguments).arg("--folder");
    let output = command.arg(folder).output().expect("gatepost runs");
    assert!(output.status.success(), "{arguments:?}: {}", err(&output));
    out(&output)
}

#[tokio::test]
async fn recipients_of_a_shared_record_are_listed_and_counted_one_by_one() {
    let folder = folder();
    let evidence = Evidence::open(folder.path(), KEEP).expect("ours");
    let to = |local: &str, reply: &str| {
        let mut record = delivery("a.example", "all");
        record.to = format!("{local}@a.example");
        record.reply = Some(reply.to_owned());
        EvidenceRecord::Delivery(Box::new(record))
    };
    let records = vec![
        to("one", "250 2.0.0 Ok"),
        to("two", "250 2.0.0 Ok"),
        to("other", "250 2.1.5 Ok"),
        to("three", "250 2.0.0 Ok"),
    ];
    evidence
        .append(Timestamp::now(), records)
        .await
        .expect("written");
    evidence.close().await;
    let written = lines(&folder.path().join(name(0)));
    assert_eq!(written.len(), 3, "{written:?}");
    let shared = "\"to\":[\"one@a.example\",\"two@a.example\",\"three@a.example\"]";
    assert!(written[1].contains("\"form\":2"), "{}", written[1]);
    assert!(written[1].contains(shared), "{}", written[1]);
    assert!(!written[2].contains("\"form\""), "{}", written[2]);

    let recipients = ["one", "two", "three", "other"].map(|local| format!("{local}@a.example"));
    let mut read_back = Vec::new();
    let result = deliveries(folder.path(), Period::ALL, |_, _, delivery| {
        read_back.push(delivery.to);
    });
    assert_eq!(
        (result.expect("readable").bad, &read_back[..]),
        (0, &recipients[..])
    );
    let json = read(folder.path(), &["list", "--json"]);
    let json: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    let listed: Vec<_> = json
        .iter()
        .map(|entry| entry["recipient"].as_str())
        .collect();
    assert_eq!(listed, recipients.each_ref().map(|to| Some(to.as_str())));
    assert_eq!(read(folder.path(), &["list", "--csv"]).lines().count(), 5);
    for arguments in [&["list"][..], &["summary"], &["verify"]] {
        let text = read(folder.path(), arguments);
        assert!(text.contains("4 recipients, 4 in the clear"), "{text}");
        assert!(text.contains("4 attempts: 4 delivered"), "{text}");
    }
}
