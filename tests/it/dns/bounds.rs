//! Time, retries, and how often is asked.

use std::time::{Duration, Instant};

use gatepost::net::dns::{AnswerRecords, LookupError};
use hickory_resolver::proto::rr::RecordType;

use super::security::world;
use super::{SECURE, domain, mode, validating};
use crate::support::zones::Fault;

#[tokio::test]
async fn what_holds_is_not_asked_for_again() {
    let server = world().await;
    let dns = validating(&server);
    for _ in 0..3 {
        assert!(dns.mx(&domain("good.test")).await.is_ok());
        assert_eq!(
            dns.tlsa(26, &domain("mx.good.test"))
                .await
                .expect("an answer")
                .found,
            AnswerRecords::NoDomain
        );
    }
    assert_eq!(server.asked("good.test", RecordType::MX), 1);
    assert_eq!(server.asked("_26._tcp.mx.good.test", RecordType::TLSA), 1);
    // A clone is the same resolver.
    let before = server.questions();
    assert!(dns.clone().mx(&domain("good.test")).await.is_ok());
    assert_eq!(server.questions(), before);
}

#[tokio::test]
async fn a_crowd_asks_once() {
    let server = world().await;
    let dns = validating(&server);
    let good = domain("good.test");
    let crowd = (0..500).map(|_| dns.mx(&good));
    let answers = futures_util::future::join_all(crowd).await;
    assert!(answers.iter().all(|answer| {
        answer
            .as_ref()
            .is_ok_and(|answer| answer.security == SECURE)
    }));
    assert_eq!(server.asked("good.test", RecordType::MX), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_names_at_once_all_get_their_answer() {
    let server = world().await;
    let dns = validating(&server);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let dns = dns.clone();
        let zone = if number % 2 == 0 {
            "wild.good.test"
        } else {
            "plain.test"
        };
        let name = domain(&format!("h{number}.{zone}"));
        tasks.spawn(async move { dns.addresses(&name).await });
    }
    let answers = tasks.join_all().await;
    let failed: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert!(
        failed.is_empty(),
        "{} failed, the first: {:?}",
        failed.len(),
        failed[0]
    );
}

#[tokio::test]
async fn what_udp_swallows_comes_by_tcp() {
    let server = world().await;
    server.fail("good.test", Some(RecordType::MX), Fault::OnlyTcp);
    let dns = validating(&server);
    assert_eq!(
        dns.mx(&domain("good.test"))
            .await
            .expect("an answer")
            .security,
        SECURE
    );
}

#[tokio::test]
async fn a_server_that_cannot_answer_is_asked_twice_and_no_more() {
    let server = world().await;
    server.fail("good.test", Some(RecordType::MX), Fault::ServFail);
    let dns = mode(&server, "off");
    for _ in 0..3 {
        let fault = dns.mx(&domain("good.test")).await.expect_err("it fails");
        assert_eq!(
            fault,
            LookupError::Server("the name server answered Server Failure".to_owned())
        );
    }
    assert_eq!(server.asked("good.test", RecordType::MX), 2);
}

#[tokio::test]
async fn silence_ends_in_time() {
    let server = world().await;
    server.fail("good.test", None, Fault::Silence);
    let dns = mode(&server, "off");
    let start = Instant::now();
    let (good, plain) = (domain("good.test"), domain("plain.test"));
    let (silent, other) = tokio::join!(dns.mx(&good), dns.mx(&plain));
    assert_eq!(silent.expect_err("nobody answers"), LookupError::Timeout);
    assert!(
        start.elapsed() < Duration::from_secs(31),
        "{:?}",
        start.elapsed()
    );
    assert!(other.is_ok(), "a name that hangs holds up no other");
}
