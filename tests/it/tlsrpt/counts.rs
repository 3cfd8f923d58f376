//! The counts of TLS reports: the stored values, and the limits on their number.

use gatepost::relay::tlsrpt::{
    AppliedPolicy, Bounds, Observation, ReportedPolicy, Reporter, ResultType, SessionFailure,
    SessionResult,
};
use serde_json::Value;

use super::service::{AT_ONCE, ServiceFixture, domain, folder, no_starttls, nothing_found, seen};

const DAY: &str = "2026-03-01T10:00:00Z";

fn publish(fixture: &ServiceFixture) {
    fixture
        .network
        .publishes("v=TLSRPTv1; rua=https://collector.example/v1");
}

async fn policies(fixture: &ServiceFixture) -> Vec<Value> {
    publish(fixture);
    fixture.reports("2026-03-02T01:00:00Z").await;
    fixture.one_post()["policies"]
        .as_array()
        .expect("a list")
        .clone()
}

#[tokio::test]
async fn failures_over_the_limit_are_summed_by_their_result() {
    let folder = folder();
    let bounds = Bounds {
        failures: 3,
        ..Bounds::default()
    };
    let mut fixture = ServiceFixture::open(folder.path(), bounds, AT_ONCE, None);
    let failure = |number: usize| {
        let mut failure = SessionFailure::new(ResultType::ValidationFailure);
        failure.mx = Some(format!("mx{number}.partner.example"));
        SessionResult::Failed(failure)
    };
    for number in 0..50 {
        fixture.sees([seen(DAY, failure(number % 25))]).await;
    }
    let policies = policies(&fixture).await;
    let details = policies[0]["failure-details"].as_array().expect("a list");
    assert_eq!(details.len(), 4, "{details:#?}");
    let rest: Vec<_> = details
        .iter()
        .filter(|one| one.get("receiving-mx-hostname").is_none())
        .collect();
    assert_eq!(
        (rest.len(), &rest[0]["failed-session-count"]),
        (1, &Value::from(44))
    );
    assert_eq!(policies[0]["summary"]["total-failure-session-count"], 50);
}

#[tokio::test]
async fn domains_and_policies_over_the_limit_are_not_counted() {
    let folder = folder();
    let bounds = Bounds {
        domains: 2,
        policies: 2,
        ..Bounds::default()
    };
    let mut fixture = ServiceFixture::open(folder.path(), bounds, AT_ONCE, None);
    let tlsa = |number: usize| AppliedPolicy {
        domain: domain("mx.partner.example"),
        found: ReportedPolicy::Tlsa(vec![format!("3 1 1 {number}")]),
    };
    for number in 0..5 {
        fixture
            .sees([Observation {
                policy: tlsa(number).into(),
                ..seen(DAY, SessionResult::Succeeded)
            }])
            .await;
    }
    for name in ["a.example", "b.example", "c.example"] {
        let policy = nothing_found(name);
        fixture
            .sees([Observation {
                domain: domain(name),
                policy,
                ..seen(DAY, SessionResult::Succeeded)
            }])
            .await;
    }
    let policies = policies(&fixture).await;
    assert_eq!(policies.len(), 2, "{policies:#?}");
    assert_eq!(policies[0]["policy"]["policy-type"], "tlsa");
    assert_eq!(policies[0]["policy"]["policy-domain"], "mx.partner.example");
    let asked = fixture.network.asked.lock().expect("one thread").clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        !asked.contains(&"_smtp._tls.b.example".to_owned()),
        "the day was full"
    );
}

#[tokio::test]
async fn observing_never_waits_and_what_is_too_much_is_dropped() {
    let folder = folder();
    let mut fixture = ServiceFixture::in_folder(folder.path());
    for _ in 0..20_000 {
        fixture
            .reporter
            .observe(seen(DAY, SessionResult::Succeeded));
    }
    fixture.service.count().await;
    let counted = policies(&fixture).await[0]["summary"]["total-successful-session-count"]
        .as_u64()
        .expect("a count");
    assert!((1..20_000).contains(&counted), "{counted}");
}

#[tokio::test]
async fn texts_of_peers_are_cut_to_one_line() {
    let folder = folder();
    let mut fixture = ServiceFixture::in_folder(folder.path());
    let mut failure = SessionFailure::new(ResultType::ValidationFailure);
    failure.helo = Some(format!("mx\r\nX: {}", "x".repeat(10_000)));
    failure.information = Some("y".repeat(100_000));
    failure.reason = Some("\u{7}".to_owned());
    fixture
        .sees([seen(DAY, SessionResult::Failed(failure))])
        .await;
    let detail = policies(&fixture).await[0]["failure-details"][0].clone();
    let helo = detail["receiving-mx-helo"].as_str().expect("text");
    assert!(helo.starts_with("mxX: x") && helo.len() == 255, "{helo}");
    assert_eq!(
        detail["additional-information"].as_str().map(str::len),
        Some(300)
    );
    assert_eq!(detail.get("failure-reason-code"), None);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside() {
    let folder = folder();
    let file = folder.path().join("spool/tlsrpt.db");
    drop(ServiceFixture::in_folder(folder.path()));
    for name in ["tlsrpt.db-wal", "tlsrpt.db-shm"] {
        let _missing = std::fs::remove_file(folder.path().join("spool").join(name));
    }
    std::fs::write(
        &file,
        "this is no database, whatever it was before; so much is sure. ".repeat(100),
    )
    .expect("written");
    let mut fixture = ServiceFixture::in_folder(folder.path());
    fixture.sees([seen(DAY, no_starttls())]).await;
    assert_eq!(policies(&fixture).await.len(), 1);
    let aside = std::fs::read_dir(folder.path().join("spool/aside")).expect("a folder");
    let names: Vec<_> = aside
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(
        matches!(&names[..], [name] if name.to_string_lossy().starts_with("tlsrpt-")),
        "{names:?}"
    );
}

#[test]
fn a_reporter_that_is_off_takes_everything_and_keeps_nothing() {
    let off = Reporter::off();
    assert!(!off.is_on());
    off.observe(seen(DAY, no_starttls()));
}
