//! Days that end, collectors that fail, and restarts in between.

use std::time::Duration;

use gatepost::net::dns::LookupError;
use gatepost::relay::tlsrpt::{Bounds, Schedule, SessionResult};
use jiff::ToSpan as _;

use super::service::{AT_ONCE, RECORD, ServiceFixture, at, folder, no_starttls, seen};

const COLLECTOR: &str = "v=TLSRPTv1; rua=https://collector.example/v1";

#[tokio::test]
async fn nothing_is_sent_before_the_day_is_over_and_nothing_twice() {
    let folder = folder();
    let mut fixture = ServiceFixture::in_folder(folder.path());
    fixture.network.publishes(COLLECTOR);
    fixture
        .sees([
            seen("2026-03-01T00:00:00Z", SessionResult::Succeeded),
            seen("2026-03-01T23:59:59Z", no_starttls()),
        ])
        .await;
    let next = fixture.reports("2026-03-01T23:59:59Z").await;
    assert_eq!(next, at("2026-03-02T00:00:00Z"));
    assert!(
        fixture.network.posts().is_empty()
            && fixture.network.asked.lock().expect("one thread").is_empty()
    );
    fixture.reports("2026-03-02T00:00:00Z").await;
    let report = fixture.one_post();
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
    fixture.reports("2026-03-02T12:00:00Z").await;
    fixture.one_post();
}

#[tokio::test]
async fn each_day_has_a_report_of_its_own() {
    let folder = folder();
    let mut fixture = ServiceFixture::in_folder(folder.path());
    fixture.network.publishes(COLLECTOR);
    fixture
        .sees([
            seen("2026-03-01T23:59:59Z", SessionResult::Succeeded),
            seen("2026-03-02T00:00:00Z", SessionResult::Succeeded),
        ])
        .await;
    fixture.reports("2026-03-02T00:00:01Z").await;
    assert_eq!(
        fixture.one_post()["policies"][0]["summary"]["total-successful-session-count"],
        1
    );
    fixture.reports("2026-03-03T00:00:01Z").await;
    let posts = fixture.network.posts();
    assert_eq!(posts.len(), 2);
    assert_ne!(posts[0].1["report-id"], posts[1].1["report-id"]);
}

#[tokio::test]
async fn counts_survive_a_restart_and_count_once() {
    let folder = folder();
    for _ in 0..3 {
        let mut fixture = ServiceFixture::in_folder(folder.path());
        fixture
            .sees([
                seen("2026-03-01T10:00:00Z", SessionResult::Succeeded),
                seen("2026-03-01T10:00:00Z", no_starttls()),
            ])
            .await;
        fixture.service.count().await;
    }
    let fixture = ServiceFixture::in_folder(folder.path());
    fixture.network.publishes(COLLECTOR);
    fixture.reports("2026-03-02T01:00:00Z").await;
    let policy = fixture.one_post()["policies"][0].clone();
    assert_eq!(policy["summary"]["total-successful-session-count"], 3);
    assert_eq!(policy["summary"]["total-failure-session-count"], 3);
    assert_eq!(policy["failure-details"].as_array().map(Vec::len), Some(1));
    assert_eq!(policy["failure-details"][0]["failed-session-count"], 3);
}

#[tokio::test]
async fn who_has_a_report_is_sent_no_second_one_after_a_restart() {
    let folder = folder();
    let text = "v=TLSRPTv1;rua=mailto:tls@partner.example,https://collector.example/v1";
    let mut fixture = ServiceFixture::in_folder(folder.path());
    fixture.network.publishes(text);
    *fixture.network.refuses.lock().expect("one thread") = true;
    fixture
        .sees([seen("2026-03-01T10:00:00Z", SessionResult::Succeeded)])
        .await;
    let next = fixture.reports("2026-03-02T01:00:00Z").await;
    assert_eq!(
        next,
        at("2026-03-02T01:15:00Z"),
        "the collector is tried again after a quarter of an hour"
    );
    let id = fixture
        .accepted
        .try_recv()
        .expect("the mail is queued")
        .message
        .envelope
        .envid
        .expect("an id");
    drop(fixture);
    let mut fixture = ServiceFixture::in_folder(folder.path());
    fixture.network.publishes(text);
    fixture.reports("2026-03-02T01:14:59Z").await;
    assert!(fixture.network.posts().is_empty(), "not before its time");
    fixture.reports("2026-03-02T01:15:00Z").await;
    let report = fixture.one_post();
    let name = report["report-id"]
        .as_str()
        .expect("text")
        .split('@')
        .next()
        .expect("an id")
        .to_owned();
    assert!(id.ends_with(&name), "{id} and {name} are one report");
    assert!(
        fixture.accepted.try_recv().is_err(),
        "the mail went already"
    );
}

#[tokio::test]
async fn a_collector_that_is_down_is_given_up_after_a_day() {
    let folder = folder();
    let mut fixture = ServiceFixture::in_folder(folder.path());
    fixture.network.publishes(COLLECTOR);
    *fixture.network.refuses.lock().expect("one thread") = true;
    fixture
        .sees([seen("2026-03-01T10:00:00Z", SessionResult::Succeeded)])
        .await;
    let (mut now, mut tries) = (at("2026-03-02T00:00:00Z"), 0);
    while now < at("2026-03-03T00:00:01Z") {
        let asked = fixture.network.asked.lock().expect("one thread").len();
        now = fixture.service.report(&fixture.outbox, now).await;
        tries += fixture.network.asked.lock().expect("one thread").len() - asked;
    }
    assert!((8..=12).contains(&tries), "{tries} tries in a day");
    *fixture.network.refuses.lock().expect("one thread") = false;
    for hours in 0..48_i64 {
        fixture
            .service
            .report(&fixture.outbox, now + hours.hours())
            .await;
    }
    assert!(fixture.network.posts().is_empty(), "given up");
}

#[tokio::test]
async fn who_does_not_ask_gets_nothing_and_a_lookup_that_fails_is_repeated() {
    let folder = folder();
    let mut fixture = ServiceFixture::in_folder(folder.path());
    fixture
        .network
        .records
        .lock()
        .expect("one thread")
        .insert(RECORD, Err(LookupError::Server("SERVFAIL".to_owned())));
    fixture
        .sees([seen("2026-03-01T10:00:00Z", SessionResult::Succeeded)])
        .await;
    let next = fixture.reports("2026-03-02T00:00:00Z").await;
    assert_eq!(next, at("2026-03-02T00:15:00Z"));
    fixture.network.records.lock().expect("one thread").clear();
    fixture.reports("2026-03-02T00:15:00Z").await;
    // It asks from now on, and has had its chance for that day.
    fixture.network.publishes(COLLECTOR);
    fixture
        .sees([seen("2026-03-01T23:59:59Z", SessionResult::Succeeded)])
        .await;
    fixture.reports("2026-03-02T12:00:00Z").await;
    assert_eq!(fixture.network.asked.lock().expect("one thread").len(), 2);
    assert!(fixture.network.posts().is_empty() && fixture.accepted.try_recv().is_err());
}

#[tokio::test]
async fn reports_are_spread_over_hours() {
    let folder = folder();
    let schedule = Schedule {
        delay: Duration::from_mins(10),
        spread: Duration::from_hours(4),
        ..AT_ONCE
    };
    let mut fixture = ServiceFixture::open(folder.path(), Bounds::default(), schedule, None);
    fixture.network.publishes(COLLECTOR);
    fixture
        .sees([seen("2026-03-01T10:00:00Z", SessionResult::Succeeded)])
        .await;
    let next = fixture.reports("2026-03-02T00:00:00Z").await;
    assert!(
        next >= at("2026-03-02T00:10:00Z") && next < at("2026-03-02T04:10:00Z"),
        "{next}"
    );
    assert!(fixture.network.posts().is_empty());
    assert_eq!(
        fixture.reports("2026-03-02T00:05:00Z").await,
        next,
        "it is drawn once"
    );
    fixture.service.report(&fixture.outbox, next).await;
    fixture.one_post();
}
