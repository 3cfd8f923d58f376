//! Each store of an earlier version, opened.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use gatepost::discovery::history::{BestLevel, ForgetEntry, History, HostHistory, TlsLevel};
use gatepost::discovery::mta_sts::{MtaSts, MtaStsMode, POLICY_FETCH_TIMEOUT, WebSource};
use gatepost::storage::evidence::{
    ChainStart, Evidence, EvidenceRecord, MailRecord, Period, verify,
};
use gatepost::storage::spool::{Spool as _, SqliteSpool};
use gatepost::telemetry::Monitor;
use gatepost::telemetry::labels::Direction;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::{
    BEFORE_JUMP, FIRST, ISSUER, LAST, LATER, MADE, MTA_STS, MTA_STS_ID, RECORDS, at, certificate,
    domain, host, known_columns, messages, records, sessions, spool, stores,
};
use crate::published::host::World;
use crate::support::chain::AppendRecords as _;
use crate::support::relay::program;
use crate::tlsrpt::service::ServiceFixture;

/// Every message is in the queue, with its state, its time and its content, and can be changed and
/// removed.
#[tokio::test]
async fn a_queue_keeps_every_message_with_its_state() {
    let folder = stores();
    let stored = Connection::open(spool(&folder).join("queue.db")).expect("a database");
    let accepted = stored
        .prepare("SELECT accepted FROM message ORDER BY id")
        .and_then(|mut statement| {
            let times = statement.query_map([], |row| row.get::<_, i64>(0))?;
            times.collect::<rusqlite::Result<Vec<_>>>()
        });
    let accepted = accepted.expect("the form of version 1");
    drop(stored);
    let opened = SqliteSpool::open(&spool(&folder)).expect("the spool opens");
    let listed = opened.claim(None, 10).await.expect("listed");
    assert_eq!(listed.len(), messages().len());
    for ((stored, (envelope, content)), accepted) in listed.iter().zip(messages()).zip(accepted) {
        let entry = opened.load(stored.id).await.expect("sound");
        assert_eq!((&stored.envelope, &entry.envelope), (&envelope, &envelope));
        assert_eq!(
            (stored.accepted.as_millisecond(), stored.size),
            (accepted, content.len() as u64)
        );
        let (mut reader, mut read) = (entry.body.reader().await.expect("readable"), Vec::new());
        while let Some(chunk) = reader.next().await.expect("sound") {
            read.extend_from_slice(&chunk);
        }
        assert!(read == content, "{} has another content", stored.id);
        let settled = opened.settle(stored.claim, &stored.envelope, Some(&envelope), Vec::new());
        settled.await.expect("settled");
        opened.remove(stored.claim).await.expect("removed");
    }
    assert_eq!(
        (
            opened.scan(None, 10).await.expect("listed").len(),
            opened.stats().quarantined
        ),
        (0, 0)
    );
    assert_eq!(
        fs::read_dir(spool(&folder).join("bodies"))
            .expect("a folder")
            .count(),
        0
    );
}

/// The month that the clock skipped does not count towards the age of a message that was accepted
/// before, and counts once. Version 0.1.0 stored the jump again at each start until something was
/// written.
#[test]
fn a_clock_jump_of_an_earlier_version_still_counts() {
    let folder = stores();
    let opened = SqliteSpool::open(&spool(&folder)).expect("the spool opens");
    let (day, after) = (
        SignedDuration::from_hours(24),
        at(&format!("{MADE}T23:59:59Z")) + SignedDuration::from_hours(48),
    );
    let accepted = at(BEFORE_JUMP) - day;
    let age = opened.clock_jumps().age(accepted, after);
    assert_eq!(
        age.as_secs() / (24 * 3600),
        3,
        "a day before, and two days after"
    );
    assert!(accepted.duration_until(after) > day * 30);
}

/// The downgrade memory knows each host with its levels, and who had a domain forgotten.
#[test]
fn a_downgrade_memory_keeps_every_host() {
    let folder = stores();
    let history = History::open(&spool(&folder), at(LAST)).expect("the memory opens");
    let page = history.page(None, None, 10, at(LAST));
    let best = |level, when: &str| BestLevel {
        level,
        first: at(when),
        last: at(when),
    };
    let known = |row: usize, best: BestLevel, issuer: Option<&str>| {
        let (domain, mx, level, _, seen) = sessions()[row];
        let (domain, host, seen) = (host(domain), host(mx), at(seen));
        HostHistory {
            domain,
            host,
            best,
            seen,
            level,
            issuer: issuer.map(Arc::from),
        }
    };
    let expected = [
        known(0, best(TlsLevel::Dane, FIRST), Some(ISSUER)),
        known(2, best(TlsLevel::Verified, FIRST), Some(ISSUER)),
        known(3, best(TlsLevel::Plain, LATER), None),
        known(4, best(TlsLevel::Trusted, LAST), Some(ISSUER)),
    ];
    assert_eq!(page.remembered, expected);
    let forgotten = ForgetEntry {
        domain: host("forgotten.example"),
        at: at(LAST),
        reason: "they moved".to_owned(),
        who: "anna".to_owned(),
        hosts: 1,
    };
    assert_eq!((page.forgotten, page.next), (vec![forgotten], None));
    assert!(
        fs::read_dir(spool(&folder))
            .expect("a folder")
            .all(|entry| entry.expect("an entry").file_name() != "aside")
    );
}

/// A cached MTA-STS policy stays in force until it expires.
#[tokio::test]
async fn a_policy_cache_keeps_every_policy() {
    let folder = stores();
    let (world, good) = (World::new(RECORDS).await, domain("good.example"));
    for (now, is_valid) in [
        (LAST, true),
        ("2027-11-20T08:00:00Z", true),
        ("2027-11-22T08:00:00Z", false),
    ] {
        let (dns, https) = world.tools();
        let web = WebSource::new(dns, https).with_port_and_timeout(9, POLICY_FETCH_TIMEOUT);
        let policies = MtaSts::open_at(&spool(&folder), web, Arc::new(move || at(now)))
            .expect("the cache opens");
        let Some(policy) = policies.cached(&good) else {
            assert!(!is_valid, "{now}");
            continue;
        };
        assert!(is_valid, "{now}");
        assert_eq!(
            (policy.id().as_str(), policy.mode(), policy.fetched()),
            (MTA_STS_ID, MtaStsMode::Enforce, at(FIRST))
        );
        assert_eq!(policy.lines(), MTA_STS.lines().collect::<Vec<_>>());
    }
    assert!(!spool(&folder).join("aside").exists());
}

/// The report of a day whose first attempt failed is sent, under the same id, and so is the report
/// of the next day.
#[tokio::test]
async fn tls_reports_are_sent_from_the_counts_of_an_earlier_version() {
    let folder = stores();
    let stored = Connection::open(spool(&folder).join("tlsrpt.db")).expect("a database");
    let planned =
        "SELECT report FROM domain WHERE day = '2026-11-20' AND attempts = 1 AND first IS NOT NULL";
    let id: String = stored
        .query_row(planned, [], |row| row.get(0))
        .expect("the form of version 1");
    drop(stored);
    let fixture = ServiceFixture::in_folder(folder.path());
    fixture
        .network
        .publishes("v=TLSRPTv1; rua=https://collector.example/v1");
    fixture.reports("2026-11-21T12:00:00Z").await;
    let first = fixture.one_post();
    assert_eq!(first["report-id"], id);
    fixture.reports("2026-11-22T01:00:00Z").await;
    let posts = fixture.network.posts();
    assert_eq!(posts.len(), 2, "{posts:#?}");
    for (day, (_, report)) in ["2026-11-20", "2026-11-21"].into_iter().zip(&posts) {
        assert_eq!(
            report["date-range"]["start-datetime"],
            format!("{day}T00:00:00Z")
        );
        let policies = report["policies"].as_array().expect("a list");
        let of = |kind: &str| {
            policies
                .iter()
                .find(|one| one["policy"]["policy-type"] == kind)
                .expect(kind)
        };
        let counts = |kind: &str| {
            let summary = &of(kind)["summary"];
            let count = |name: &str| summary[name].as_u64().expect(name);
            (
                count("total-successful-session-count"),
                count("total-failure-session-count"),
            )
        };
        assert_eq!(
            (policies.len(), counts("sts"), counts("tlsa")),
            (2, (2, 1), (1, 0))
        );
        let failure = &of("sts")["failure-details"][0];
        assert_eq!(failure["result-type"], "certificate-not-trusted");
        assert_eq!(
            (&failure["receiving-ip"], &failure["failure-reason-code"]),
            (&"2001:db8::25".into(), &"UnknownIssuer".into())
        );
    }
}

/// The chain verifies from its first record, each record is read, and the next one links to the
/// last.
#[tokio::test]
async fn evidence_verifies_and_its_chain_goes_on() {
    let folder = stores();
    let folder = folder.path().join("evidence");
    let all = || {
        let (mut read, mut heads) = (Vec::new(), Vec::new());
        let result =
            gatepost::storage::evidence::records(&folder, Period::ALL, |_, link, record| {
                heads.push(link.hash);
                read.push((
                    link.time,
                    match record {
                        MailRecord::Accepted(accepted) => EvidenceRecord::Accepted(accepted),
                        MailRecord::Delivery(delivery) => EvidenceRecord::Delivery(delivery),
                    },
                ));
            });
        assert_eq!(result.expect("readable").bad, 0);
        (read, heads)
    };
    let (read, heads) = all();
    assert_eq!(read, records());
    let verified = verify(&folder, &heads).expect("readable");
    assert_eq!(verified.findings, []);
    assert_eq!(
        (verified.files, verified.records, verified.beginning),
        (3, 5, ChainStart::First)
    );
    // Longer than any of us will run this test.
    let evidence =
        Evidence::open(&folder, Duration::from_hours(24 * 365 * 100)).expect("the evidence opens");
    evidence
        .append(Timestamp::now(), vec![records().remove(3).1])
        .await
        .expect("written");
    evidence.close().await;
    let verified = verify(&folder, &heads).expect("readable");
    assert_eq!(
        (verified.findings.len(), verified.files, verified.records),
        (0, 4, 6)
    );
    assert_eq!(all().0.len(), 5);
}

/// The TLS coverage and the certificates of partners are those of the run before.
#[test]
fn monitoring_state_is_restored() {
    let (folder, now) = (stores(), at(&format!("{MADE}T23:59:59Z")));
    let monitor = Monitor::default();
    monitor.restore(&spool(&folder), now);
    let days = monitor.coverage().days("partner", Direction::Outbound, now);
    let counts: Vec<_> = days
        .iter()
        .map(|day| (day.date.to_string(), day.clear, day.encrypted, day.verified))
        .collect();
    assert_eq!(counts, [(MADE.to_owned(), 3, 0, 0)]);
    let certificates = monitor.certificates();
    let partners: Vec<_> = certificates.partners().collect();
    let [(Direction::Outbound, "partner", "mx.partner.example", partner)] = partners[..] else {
        panic!("{partners:?}")
    };
    assert_eq!(
        (&partner.shown, partner.seen, partner.refused.as_deref()),
        (&certificate(), at(FIRST), None)
    );
}

/// The list as CSV is the same as that of version 0.1.0, byte for byte, up to its new last column.
#[test]
fn the_csv_of_the_evidence_has_not_changed() {
    let folder = stores();
    let list = std::process::Command::new(program())
        .args(["evidence", "list", "--csv", "--folder"])
        .arg(folder.path().join("evidence"))
        .output()
        .expect("gatepost runs");
    let before = fs::read(folder.path().join("evidence_list.csv")).expect("the test data");
    assert_eq!(
        known_columns(&list.stdout),
        String::from_utf8_lossy(&before)
    );
    assert_eq!(list.status.code(), Some(0));
}
