//! Days that end, collectors that fail, and restarts in between.

use std::time::Duration;

use gatepost::relay::tlsrpt::{Bounds, Schedule, SessionResult};
use jiff::ToSpan as _;

use super::desk::{AT_ONCE, Office, RECORD, at, folder, no_starttls, seen};

const COLLECTOR: &str = "v=TLSRPTv1; rua=https://collector.example/v1";

#[tokio::test]
async fn nothing_is_sent_before_the_day_is_over_and_nothing_twice() {
    let folder = folder();
    let mut office = Office::in_folder(folder.path());
    office.wire.publishes(COLLECTOR);
    office
        .sees([
            seen("2026-03-01T00:00:00Z", SessionResult::Succeeded),
            seen("2026-03-01T23:59:59Z", no_starttls()),
        ])
        .await;
    let next = office.reports("2026-03-01T23:59:59Z").await;
    assert_eq!(next, at("2026-03-02T00:00:00Z"));
    assert!(
        office.wire.posts().is_empty() && office.wire.asked.lock().expect("one thread").is_empty()
    );
    office.reports("2026-03-02T00:00:00Z").await;
    let report = office.one_post();
    assert_eq!(
        report["date-range"]["start-datetime"],
        "2026-03-01T00:00:00Z"
    );
    assert_eq!(report["organization-name"], "Example Ltd");
    let policy = &report["policies"][0];
    assert_eq!(policy["policy"]["policy-type"], "no-policy-found");
    assert_eq!(policy["summary"]["total-successful-session-count"], 1);
    assert_eq!(
        policy["failure-details"][0]["result-type"],
        "starttls-not-supported"
    );
    assert_eq!(policy["failure-details"][0]["receiving-ip"], "192.0.2.25");
    office.reports("2026-03-02T12:00:00Z").await;
    office.one_post();
}

#[tokio::test]
async fn each_day_has_a_report_of_its_own() {
    let folder = folder();
    let mut office = Office::in_folder(folder.path());
    office.wire.publishes(COLLECTOR);
    office
        .sees([
            seen("2026-03-01T23:59:59Z", SessionResult::Succeeded),
            seen("2026-03-02T00:00:00Z", SessionResult::Succeeded),
        ])
        .await;
    office.reports("2026-03-02T00:00:01Z").await;
    assert_eq!(
        office.one_post()["policies"][0]["summary"]["total-successful-session-count"],
        1
    );
    office.reports("2026-03-03T00:00:01Z").await;
    let posts = office.wire.posts();
    assert_eq!(posts.len(), 2);
    assert_ne!(posts[0].1["report-id"], posts[1].1["report-id"]);
}

#[tokio::test]
async fn counts_survive_a_restart_and_count_once() {
    let folder = folder();
    for _ in 0..3 {
        let mut office = Office::in_folder(folder.path());
        office
            .sees([
                seen("2026-03-01T10:00:00Z", SessionResult::Succeeded),
                seen("2026-03-01T10:00:00Z", no_starttls()),
            ])
            .await;
        office.desk.count().await;
    }
    let office = Office::in_folder(folder.path());
    office.wire.publishes(COLLECTOR);
    office.reports("2026-03-02T01:00:00Z").await;
    let policy = office.one_post()["policies"][0].clone();
    assert_eq!(policy["summary"]["total-successful-session-count"], 3);
    assert_eq!(policy["summary"]["total-failure-session-count"], 3);
    assert_eq!(policy["failure-details"].as_array().map(Vec::len), Some(1));
    assert_eq!(policy["failure-details"][0]["failed-session-count"], 3);
}

#[tokio::test]
async fn who_has_a_report_is_sent_no_second_one_after_a_restart() {
    let folder = folder();
    let text = "v=TLSRPTv1;rua=mailto:tls@partner.example,https://collector.example/v1";
    let mut office = Office::in_folder(folder.path());
    office.wire.publishes(text);
    *office.wire.refuses.lock().expect("one thread") = true;
    office
        .sees([seen("2026-03-01T10:00:00Z", SessionResult::Succeeded)])
        .await;
    let next = office.reports("2026-03-02T01:00:00Z").await;
    assert_eq!(
        next,
        at("2026-03-02T01:15:00Z"),
        "the collector is tried again after a quarter of an hour"
    );
    let id = office
        .accepted
        .try_recv()
        .expect("the mail is queued")
        .envelope
        .envid
        .expect("an id");
    drop(office);
    let mut office = Office::in_folder(folder.path());
    office.wire.publishes(text);
    office.reports("2026-03-02T01:14:59Z").await;
    assert!(office.wire.posts().is_empty(), "not before its time");
    office.reports("2026-03-02T01:15:00Z").await;
    let report = office.one_post();
    let name = report["report-id"]
        .as_str()
        .expect("text")
        .split('@')
        .next()
        .expect("an id")
        .to_owned();
    assert!(id.ends_with(&name), "{id} and {name} are one report");
    assert!(office.accepted.try_recv().is_err(), "the mail went already");
}

#[tokio::test]
async fn a_collector_that_is_down_is_given_up_after_a_day() {
    let folder = folder();
    let mut office = Office::in_folder(folder.path());
    office.wire.publishes(COLLECTOR);
    *office.wire.refuses.lock().expect("one thread") = true;
    office
        .sees([seen("2026-03-01T10:00:00Z", SessionResult::Succeeded)])
        .await;
    let (mut now, mut tries) = (at("2026-03-02T00:00:00Z"), 0);
    while now < at("2026-03-03T00:00:01Z") {
        let asked = office.wire.asked.lock().expect("one thread").len();
        now = office.desk.report(&office.outbox, now).await;
        tries += office.wire.asked.lock().expect("one thread").len() - asked;
    }
    assert!((8..=12).contains(&tries), "{tries} tries in a day");
    *office.wire.refuses.lock().expect("one thread") = false;
    for hours in 0..48_i64 {
        office
            .desk
            .report(&office.outbox, now + hours.hours())
            .await;
    }
    assert!(office.wire.posts().is_empty(), "given up");
}

#[tokio::test]
async fn who_does_not_ask_gets_nothing_and_a_lookup_that_fails_is_repeated() {
    let folder = folder();
    let mut office = Office::in_folder(folder.path());
    office
        .wire
        .records
        .lock()
        .expect("one thread")
        .insert(RECORD, Err("SERVFAIL".to_owned()));
    office
        .sees([seen("2026-03-01T10:00:00Z", SessionResult::Succeeded)])
        .await;
    let next = office.reports("2026-03-02T00:00:00Z").await;
    assert_eq!(next, at("2026-03-02T00:15:00Z"));
    office.wire.records.lock().expect("one thread").clear();
    office.reports("2026-03-02T00:15:00Z").await;
    // It asks from now on, and has had its chance for that day.
    office.wire.publishes(COLLECTOR);
    office
        .sees([seen("2026-03-01T23:59:59Z", SessionResult::Succeeded)])
        .await;
    office.reports("2026-03-02T12:00:00Z").await;
    assert_eq!(office.wire.asked.lock().expect("one thread").len(), 2);
    assert!(office.wire.posts().is_empty() && office.accepted.try_recv().is_err());
}

#[tokio::test]
async fn reports_are_spread_over_hours() {
    let folder = folder();
    let schedule = Schedule {
        delay: Duration::from_mins(10),
        spread: Duration::from_hours(4),
        ..AT_ONCE
    };
    let mut office = Office::open(folder.path(), Bounds::default(), schedule, None);
    office.wire.publishes(COLLECTOR);
    office
        .sees([seen("2026-03-01T10:00:00Z", SessionResult::Succeeded)])
        .await;
    let next = office.reports("2026-03-02T00:00:00Z").await;
    assert!(
        next >= at("2026-03-02T00:10:00Z") && next < at("2026-03-02T04:10:00Z"),
        "{next}"
    );
    assert!(office.wire.posts().is_empty());
    assert_eq!(
        office.reports("2026-03-02T00:05:00Z").await,
        next,
        "it is drawn once"
    );
    office.desk.report(&office.outbox, next).await;
    office.one_post();
}
