//! Counts and reports that several nodes share in a database.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Mutex;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use flate2::read::GzDecoder;
use jiff::ToSpan as _;
use serde_json::Value;

use super::*;
use crate::net::https::Url;
use crate::smtp::address::{Domain, Mailbox};
use crate::storage::postgresql::scratch_database::ScratchDatabase;
use crate::storage::spool::{Claimed, Entry, SqliteSpool};

/// The day of most tests, which is over by the clock of every database.
const NOON: &str = "2024-03-01T12:00:00Z";
const NEXT_DAY: &str = "2024-03-02T01:00:00Z";
const AT_ONCE: Schedule = Schedule {
    delay: Duration::ZERO,
    spread: Duration::ZERO,
    give_up_after: Duration::from_hours(24),
};

/// A network in which every domain asks for reports at one collector.
#[derive(Default)]
struct Collector {
    posted: Mutex<Vec<Value>>,
    /// True if posts are begun and never end.
    hangs: bool,
}

impl Network for Collector {
    fn txt<'a>(&'a self, _: &'a str) -> NetworkFuture<'a, Vec<String>> {
        let record = "v=TLSRPTv1; rua=https://collector.example/v1";
        Box::pin(std::future::ready(Ok(vec![record.to_owned()])))
    }

    fn post<'a>(&'a self, _: &'a Url, report: Bytes) -> NetworkFuture<'a, ()> {
        let mut text = String::new();
        let mut decoder = GzDecoder::new(&*report);
        decoder.read_to_string(&mut text).expect("gzip");
        let report = serde_json::from_str(&text).expect("JSON");
        self.posted.lock().expect("no panic").push(report);
        if self.hangs {
            return Box::pin(std::future::pending());
        }
        // Other nodes may try meanwhile.
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(())
        })
    }
}

/// A node with its service.
struct ReportingNode {
    reporter: Reporter,
    service: ReportService,
    sender: ReportSender,
    _accepted: mpsc::Receiver<Claimed<Entry>>,
    _folder: tempfile::TempDir,
}

impl ReportingNode {
    fn new(database: &ScratchDatabase, collector: &Arc<Collector>, bounds: Bounds) -> Self {
        let (reporter, service) = ReportService::open_shared(database.connect(), bounds, AT_ONCE);
        let folder = tempfile::tempdir().expect("a folder");
        let spool = SqliteSpool::open(folder.path()).expect("it opens");
        let (accepted, receiver) = mpsc::channel(1);
        let submitter = Submitter {
            organization: "Example Ltd".to_owned(),
            contact: Mailbox::parse("reports@us.example").expect("an address"),
            domain: domain("us.example"),
            signer: None,
        };
        let sender = ReportSender {
            submitter: Arc::new(ArcSwap::from_pointee(submitter)),
            spool: Arc::new(spool),
            accepted,
            network: Arc::clone(collector) as _,
        };
        Self {
            reporter,
            service,
            sender,
            _accepted: receiver,
            _folder: folder,
        }
    }

    async fn counts(&mut self, observations: impl IntoIterator<Item = Observation>) {
        for observation in observations {
            self.reporter.observe(observation);
        }
        self.service.count().await;
    }

    async fn reports(&self, now: &str) {
        self.service.report(&self.sender, at(now)).await;
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

fn session(when: Timestamp, of: &str, failed_at: Option<&str>) -> Observation {
    let failure = |mx: &str| {
        SessionResult::Failed(SessionFailure {
            mx: Some(mx.to_owned()),
            receiving_ip: Some("192.0.2.25".parse().expect("an address")),
            ..SessionFailure::new(ResultType::StartTlsNotSupported)
        })
    };
    Observation {
        at: when,
        domain: domain(of),
        policy: Arc::new(AppliedPolicy {
            domain: domain(of),
            found: ReportedPolicy::Sts {
                lines: vec!["version: STSv1".to_owned()],
                mx: vec!["*.partner.example".to_owned()],
            },
        }),
        session: failed_at.map_or(SessionResult::Succeeded, failure),
    }
}

/// Returns the sessions of each domain that were posted, as succeeded and failed.
fn totals(collector: &Collector) -> BTreeMap<String, (u64, u64)> {
    let posted = collector.posted.lock().expect("no panic");
    let of_one = posted.iter().map(|report| {
        let policy = &report["policies"][0];
        let number = |name: &str| policy["summary"][name].as_u64().expect("a number");
        let name = policy["policy"]["policy-domain"].as_str().expect("text");
        let succeeded = number("total-successful-session-count");
        (
            name.to_owned(),
            (succeeded, number("total-failure-session-count")),
        )
    });
    let all: Vec<_> = of_one.collect();
    let by_domain: BTreeMap<_, _> = all.iter().cloned().collect();
    assert_eq!(
        all.len(),
        by_domain.len(),
        "one report for a domain: {all:?}"
    );
    by_domain
}

/// The sessions of all nodes are in one report, which one node sends, and nothing follows it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_domain_gets_one_report_of_all_nodes() {
    let database = ScratchDatabase::create().await;
    let collector = Arc::new(Collector::default());
    let node = || ReportingNode::new(&database, &collector, Bounds::default());
    let (mut one, mut other) = (node(), node());
    for node in [&mut one, &mut other] {
        let noon = at(NOON);
        let partner = |mx| session(noon, "partner.example", mx);
        node.counts([partner(None), partner(Some("mx1")), partner(Some("mx1"))])
            .await;
        node.counts([partner(None), partner(Some("mx2"))]).await;
    }
    other.counts([session(at(NOON), "b.example", None)]).await;
    tokio::join!(one.reports(NOON), other.reports(NOON));
    assert!(totals(&collector).is_empty(), "the day is not over");
    tokio::join!(one.reports(NEXT_DAY), other.reports(NEXT_DAY));
    let expected = [("b.example", (1, 0)), ("partner.example", (4, 6))];
    let expected = expected.map(|(name, counts)| (name.to_owned(), counts));
    assert_eq!(totals(&collector), BTreeMap::from(expected.clone()));
    {
        let posted = collector.posted.lock().expect("no panic");
        let partner = posted.iter().map(|report| &report["policies"][0]);
        let partner = partner
            .clone()
            .find(|policy| policy["policy"]["policy-domain"] == "partner.example");
        let partner = partner.expect("a report");
        assert_eq!(partner["policy"]["policy-string"][0], "version: STSv1");
        assert_eq!(partner["policy"]["mx-host"][0], "*.partner.example");
        let details = partner["failure-details"].as_array().expect("a list");
        let details = details.iter().map(|detail| {
            let mx = detail["receiving-mx-hostname"].as_str().expect("text");
            assert_eq!(detail["receiving-ip"], "192.0.2.25");
            (mx, detail["failed-session-count"].as_u64())
        });
        assert_eq!(
            details.collect::<Vec<_>>(),
            [("mx1", Some(4)), ("mx2", Some(2))]
        );
    }
    // A session that is counted late begins no second report.
    one.counts([session(at(NOON), "partner.example", None)])
        .await;
    tokio::join!(one.reports(NEXT_DAY), other.reports(NEXT_DAY));
    assert_eq!(totals(&collector), BTreeMap::from(expected));
    database.remove().await;
}

/// The claim of a node that dies while it sends ends, and another sends the report with the same id.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_sender_that_dies_is_replaced() {
    let database = ScratchDatabase::create().await;
    let hanging = Arc::new(Collector {
        hangs: true,
        ..Collector::default()
    });
    let collector = Arc::new(Collector::default());
    let mut dying = ReportingNode::new(&database, &hanging, Bounds::default());
    let other = ReportingNode::new(&database, &collector, Bounds::default());
    dying
        .counts([session(at(NOON), "partner.example", None)])
        .await;
    let sends = tokio::time::timeout(Duration::from_secs(2), dying.reports(NEXT_DAY));
    assert!(sends.await.is_err(), "it hangs");
    assert_eq!(totals(&hanging).len(), 1);
    let next = other.service.report(&other.sender, at(NEXT_DAY)).await;
    assert!(totals(&collector).is_empty(), "it is claimed");
    assert!(next > at(NEXT_DAY), "it is tried again later: {next}");
    database
        .execute("UPDATE gatepost.tlsrpt_domain SET sender_until = clock_timestamp() - interval '1 second'")
        .await;
    other.reports(NEXT_DAY).await;
    assert_eq!(totals(&collector).len(), 1);
    let id =
        |collector: &Collector| collector.posted.lock().expect("no panic")[0]["report-id"].clone();
    assert_eq!(id(&hanging), id(&collector));
    // The claim of the first is over: it may change nothing.
    let job = store::ReportJob {
        row: 1,
        day: report::day_of(at(NOON)),
        domain: domain("partner.example"),
        id: String::new(),
        first: None,
        attempts: 0,
        done: Vec::new(),
    };
    let access = &dying.service.store;
    access.postpone(job, at(NOON)).await.expect("it answers");
    other.reports(NEXT_DAY).await;
    assert_eq!(totals(&collector).len(), 1, "it is not sent again");
    database.remove().await;
}

/// The limits of a day hold for all nodes together.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn limits_hold_for_the_cluster() {
    let database = ScratchDatabase::create().await;
    let collector = Arc::new(Collector::default());
    let bounds = Bounds {
        domains: 2,
        policies: 1,
        failures: 1,
    };
    let node = || ReportingNode::new(&database, &collector, bounds);
    let (mut one, mut other) = (node(), node());
    let noon = at(NOON);
    one.counts([session(noon, "a.example", Some("mx1"))]).await;
    other
        .counts(["b.example", "c.example"].map(|name| session(noon, name, None)))
        .await;
    one.counts([session(noon, "d.example", None)]).await;
    // Further failures are summed by their type, and a further policy is not counted.
    let more = ["mx1", "mx2", "mx3"].map(|mx| session(noon, "a.example", Some(mx)));
    other.counts(more).await;
    let mut further = session(noon, "a.example", None);
    further.policy = Arc::new(AppliedPolicy {
        domain: domain("a.example"),
        found: ReportedPolicy::Nothing,
    });
    one.counts([further]).await;
    one.reports(NEXT_DAY).await;
    let expected = [("a.example", (0, 4)), ("b.example", (1, 0))];
    let expected = expected.map(|(name, counts)| (name.to_owned(), counts));
    assert_eq!(totals(&collector), BTreeMap::from(expected));
    let posted = collector.posted.lock().expect("no panic").clone();
    let policies = posted.iter().filter_map(|one| one["policies"].as_array());
    assert_eq!(policies.flatten().count(), 2);
    let mut details: Vec<_> = posted
        .iter()
        .filter_map(|report| report["policies"][0]["failure-details"].as_array())
        .flatten()
        .map(|detail| {
            let mx = detail["receiving-mx-hostname"].as_str();
            (mx, detail["failed-session-count"].as_u64())
        })
        .collect();
    details.sort_unstable();
    assert_eq!(details, [(None, Some(2)), (Some("mx1"), Some(2))]);
    database.remove().await;
}

/// Counts wait while the database is gone, and are counted once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn counts_wait_for_the_database() {
    let database = ScratchDatabase::create().await;
    let collector = Arc::new(Collector::default());
    let mut node = ReportingNode::new(&database, &collector, Bounds::default());
    let partner = || [session(at(NOON), "partner.example", None)];
    node.counts(partner()).await;
    database.set_reachable(false).await;
    node.counts(partner()).await;
    node.counts(partner()).await;
    database.set_reachable(true).await;
    node.counts([]).await;
    node.counts([]).await;
    node.reports(NEXT_DAY).await;
    assert_eq!(totals(&collector)["partner.example"], (3, 0));
    database.remove().await;
}

/// A node whose clock is ahead neither sends nor drops the reports of days that are not over, and
/// counts nothing on days that are far ahead.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn a_clock_that_is_ahead_does_no_harm() {
    let database = ScratchDatabase::create().await;
    let collector = Arc::new(Collector::default());
    let mut node = ReportingNode::new(&database, &collector, Bounds::default());
    let now = Timestamp::now();
    let (tomorrow, later) = (now + 24.hours(), now + (24 * 30).hours());
    node.counts([
        session(tomorrow, "partner.example", None),
        session(later, "partner.example", None),
    ])
    .await;
    node.service.report(&node.sender, later + 48.hours()).await;
    assert!(totals(&collector).is_empty());
    let client = database.client().await;
    let sql = "SELECT count(*) FROM gatepost.tlsrpt_domain WHERE report IS NULL";
    let rows: i64 = client.query_one(sql, &[]).await.expect("a row").get(0);
    assert_eq!(rows, 1, "the day is kept, and not planned");
    database.remove().await;
}
