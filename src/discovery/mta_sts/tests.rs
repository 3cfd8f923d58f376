//! Tests of fetching and caching with a scripted source in place of DNS and HTTPS. One table has
//! the cases of RFC 8461 §3.3 and §5.

mod disk;
mod shared;

use std::sync::atomic::{AtomicI64, AtomicUsize};

use tokio::sync::Semaphore;

use super::source::BoxedLookup;
use super::*;

const EXAMPLE: &str = "version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 86400";

fn domain(name: &str) -> Domain {
    Domain::parse(name).expect(name)
}

fn terms(body: &str) -> policy::PolicyTerms {
    policy::PolicyTerms::parse(body.as_bytes()).expect(body)
}

fn fetch_failed() -> MtaStsFailure {
    MtaStsFailure::ContentType(None)
}

/// The record and policy that every domain publishes.
struct ScriptedSource {
    record: Mutex<Result<MtaStsRecord, MtaStsFailure>>,
    terms: Mutex<Result<policy::PolicyTerms, MtaStsFailure>>,
    lookups: AtomicUsize,
    fetches: AtomicUsize,
    /// The permits for which fetches from `slow.example` wait.
    gate: Semaphore,
}

impl ScriptedSource {
    fn publish(&self, id: &str, body: &str) {
        self.set_record(Ok(MtaStsRecord::Id(PolicyId::parse(id).expect("an id"))));
        self.set_terms(Ok(terms(body)));
    }

    fn set_record(&self, record: Result<MtaStsRecord, MtaStsFailure>) {
        *self.record.lock().expect("sound") = record;
    }

    fn set_terms(&self, terms: Result<policy::PolicyTerms, MtaStsFailure>) {
        *self.terms.lock().expect("sound") = terms;
    }

    /// Returns the numbers of record lookups and of policy fetches.
    fn requests(&self) -> (usize, usize) {
        (
            self.lookups.load(Ordering::Relaxed),
            self.fetches.load(Ordering::Relaxed),
        )
    }
}

impl PolicySource for Arc<ScriptedSource> {
    fn record<'a>(&'a self, _: &'a Domain) -> BoxedLookup<'a, MtaStsRecord> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let record = self.record.lock().expect("sound").clone();
        Box::pin(async { record })
    }

    fn terms<'a>(&'a self, of: &'a Domain) -> BoxedLookup<'a, policy::PolicyTerms> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            if *of == domain("slow.example") {
                self.gate.acquire().await.expect("open").forget();
            }
            self.terms.lock().expect("sound").clone()
        })
    }
}

struct PolicyBench {
    folder: tempfile::TempDir,
    script: Arc<ScriptedSource>,
    now: Arc<AtomicI64>,
}

impl PolicyBench {
    fn new() -> Self {
        let script = ScriptedSource {
            record: Mutex::new(Ok(MtaStsRecord::None)),
            terms: Mutex::new(Err(fetch_failed())),
            lookups: AtomicUsize::new(0),
            fetches: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        };
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            folder,
            script: Arc::new(script),
            now: Arc::new(AtomicI64::new(1_800_000_000)),
        }
    }

    fn open(&self) -> MtaSts {
        self.open_with(LOOKUP_TIMEOUT)
    }

    fn open_with(&self, timeout: Duration) -> MtaSts {
        let now = Arc::clone(&self.now);
        let clock =
            Arc::new(move || Timestamp::from_second(now.load(Ordering::Relaxed)).expect("a time"));
        MtaSts::from_source(
            self.folder.path(),
            Box::new(Arc::clone(&self.script)),
            clock,
            timeout,
        )
        .expect("our own version")
    }

    fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    fn database(&self) -> std::path::PathBuf {
        self.folder.path().join("policies.db")
    }
}

/// Returns the lines of the policy, or the kind of its absence.
fn describe(published: &PublishedPolicy) -> String {
    match published {
        PublishedPolicy::Policy(policy) => policy.lines().join("\n"),
        PublishedPolicy::None(NoPolicy::NoRecord) => "no record".to_owned(),
        PublishedPolicy::None(NoPolicy::Unusable(_)) => "unusable".to_owned(),
        PublishedPolicy::None(NoPolicy::Failed(failure)) => failure.kind().to_string(),
    }
}

async fn policy(policies: &MtaSts) -> String {
    describe(&policies.policy(&domain("example.org")).await)
}

/// Waits until all running fetches have ended.
async fn wait_for_fetches(policies: &MtaSts) {
    while !policies.0.running().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_policy_is_fetched_once_and_then_cached() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    assert_eq!(policies.cached(&domain("example.org")), None);
    for _ in 0..3 {
        assert_eq!(policy(&policies).await, EXAMPLE);
    }
    assert!(policies.cached(&domain("example.org")).is_some());
    assert_eq!(bench.script.requests(), (1, 1));
}

#[tokio::test]
async fn without_a_record_no_policy_is_fetched() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    for (record, described) in [
        (MtaStsRecord::None, "no record"),
        (MtaStsRecord::Unusable(RecordFault::Several(2)), "unusable"),
    ] {
        bench.script.set_record(Ok(record));
        assert_eq!(policy(&policies).await, described);
    }
    assert_eq!(bench.script.requests(), (2, 0));
}

#[tokio::test]
async fn concurrent_deliveries_share_a_fetch_and_other_domains_do_not_wait() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    let slow = domain("slow.example");
    let abandoned = policies.policy(&slow);
    assert!(timeout(Duration::from_millis(20), abandoned).await.is_err());
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let (policies, slow) = (policies.clone(), slow.clone());
            tokio::spawn(async move { policies.policy(&slow).await })
        })
        .collect();
    assert_eq!(policy(&policies).await, EXAMPLE);
    assert_eq!(bench.script.requests(), (2, 2));
    bench.script.gate.add_permits(1);
    for waiting in waiting {
        assert_eq!(describe(&waiting.await.expect("it ends")), EXAMPLE);
    }
    assert_eq!(
        bench.script.requests(),
        (2, 2),
        "the abandoned fetch served all"
    );
    wait_for_fetches(&policies).await;
}

#[tokio::test]
async fn a_fetch_that_hangs_ends_at_its_time_limit() {
    let bench = PolicyBench::new();
    let policies = bench.open_with(Duration::from_millis(20));
    bench.script.publish("1", EXAMPLE);
    for _ in 0..2 {
        let PublishedPolicy::None(absent) = policies.policy(&domain("slow.example")).await else {
            panic!("no policy")
        };
        assert_eq!(
            absent,
            NoPolicy::Failed(Arc::new(MtaStsFailure::Overrun(Duration::from_millis(20))))
        );
        assert_eq!(bench.script.requests(), (1, 1));
    }
}

#[tokio::test]
async fn a_failed_fetch_is_not_repeated_for_five_minutes() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    bench.script.set_terms(Err(fetch_failed()));
    for _ in 0..3 {
        assert_eq!(policy(&policies).await, "sts-policy-invalid");
    }
    bench.pass(299);
    assert_eq!(policy(&policies).await, "sts-policy-invalid");
    assert_eq!(bench.script.requests(), (1, 1));
    bench.pass(1);
    bench.script.publish("1", EXAMPLE);
    assert_eq!(policy(&policies).await, EXAMPLE);
}

#[tokio::test]
async fn a_changed_id_is_fetched_in_the_background() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    policy(&policies).await;
    bench.pass(300);
    assert_eq!(policy(&policies).await, EXAMPLE);
    wait_for_fetches(&policies).await;
    assert_eq!(
        bench.script.requests(),
        (2, 1),
        "the same id, so nothing is fetched"
    );
    let new = EXAMPLE.replace("enforce", "testing");
    bench.script.publish("2", &new);
    bench.pass(300);
    assert_eq!(policy(&policies).await, EXAMPLE);
    wait_for_fetches(&policies).await;
    assert_eq!(policy(&policies).await, new);
    assert_eq!(bench.script.requests(), (3, 2));
}

#[tokio::test]
async fn a_policy_with_max_age_zero_counts_for_the_deliveries_that_waited() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    let short_lived = EXAMPLE.replace("86400", "0");
    bench.script.publish("1", &short_lived);
    for asked in 1..3 {
        assert_eq!(policy(&policies).await, short_lived);
        assert_eq!(bench.script.requests(), (asked, asked));
    }
}

/// RFC 8461 §3.3 and §5.1: the content of the cache and the result of a fetch decide which policy
/// applies.
#[tokio::test]
async fn cache_and_fetch_decide_which_policy_applies() {
    let (old, new) = (EXAMPLE, EXAMPLE.replace("enforce", "testing"));
    let id = |id| Ok(MtaStsRecord::Id(PolicyId::parse(id).expect("an id")));
    let dns = || Err(MtaStsFailure::Lookup("SERVFAIL".to_owned()));
    let several = || Ok(MtaStsRecord::Unusable(RecordFault::Several(2)));
    let good = || Ok(terms(&EXAMPLE.replace("enforce", "testing")));
    let bad = || Err(fetch_failed());
    let rows = [
        // An empty cache: the result of the fetch applies.
        ("empty", id("2"), good(), new.as_str()),
        ("empty", id("2"), bad(), "sts-policy-invalid"),
        ("empty", Ok(MtaStsRecord::None), good(), "no record"),
        ("empty", several(), good(), "unusable"),
        ("empty", dns(), good(), "sts-policy-fetch-error"),
        // An unexpired policy applies until a newer one was fetched.
        ("unexpired", id("2"), good(), new.as_str()),
        ("unexpired", id("2"), bad(), old),
        ("unexpired", id("1"), good(), old),
        ("unexpired", Ok(MtaStsRecord::None), good(), old),
        ("unexpired", several(), good(), old),
        ("unexpired", dns(), good(), old),
        // An expired policy is like an empty cache.
        ("expired", id("1"), good(), new.as_str()),
        ("expired", id("2"), bad(), "sts-policy-invalid"),
        ("expired", Ok(MtaStsRecord::None), good(), "no record"),
        ("expired", several(), good(), "unusable"),
        ("expired", dns(), good(), "sts-policy-fetch-error"),
    ];
    for (cache, record, fetched, wanted) in rows {
        let bench = PolicyBench::new();
        let policies = bench.open();
        if cache != "empty" {
            bench.script.publish("1", EXAMPLE);
            policy(&policies).await;
        }
        let row = format!("{cache}, {record:?}, {fetched:?}");
        bench.script.set_record(record);
        bench.script.set_terms(fetched);
        bench.pass(if cache == "expired" { 86_400 } else { 3_600 });
        let first = policy(&policies).await;
        assert_eq!(
            first,
            if cache == "unexpired" { old } else { wanted },
            "{row}"
        );
        wait_for_fetches(&policies).await;
        assert_eq!(policy(&policies).await, wanted, "{row}");
    }
}

/// RFC 8461 §5.1: before mail fails permanently, a newer policy is looked for.
#[tokio::test]
async fn a_recheck_looks_for_a_newer_policy() {
    let new = || terms(&EXAMPLE.replace("mx.example.org", "*.example.org"));
    let id = |id| Ok(MtaStsRecord::Id(PolicyId::parse(id).expect("an id")));
    let rows = [
        // With an unchanged id the policy is still fetched after five minutes, in case the domain
        // forgot to change the id.
        (60, id("1"), Ok(new()), "confirmed", 0),
        (300, id("1"), Ok(new()), "changed", 1),
        (300, id("1"), Ok(terms(EXAMPLE)), "confirmed", 1),
        (60, id("2"), Ok(new()), "changed", 1),
        (60, id("2"), Ok(terms(EXAMPLE)), "confirmed", 1),
        (60, id("2"), Err(fetch_failed()), "unknown", 1),
        (300, Ok(MtaStsRecord::None), Ok(new()), "confirmed", 0),
        (
            60,
            Err(MtaStsFailure::Lookup("SERVFAIL".to_owned())),
            Ok(new()),
            "unknown",
            0,
        ),
        (86_400, id("1"), Ok(terms(EXAMPLE)), "confirmed", 1),
        (86_400, Ok(MtaStsRecord::None), Ok(new()), "changed", 0),
    ];
    for (later, record, fetched, wanted, fetches) in rows {
        let bench = PolicyBench::new();
        let policies = bench.open();
        bench.script.publish("1", EXAMPLE);
        let PublishedPolicy::Policy(failed_under) = policies.policy(&domain("example.org")).await
        else {
            panic!("a policy")
        };
        let row = format!("{later} s, {record:?}, {fetched:?}");
        bench.script.set_record(record);
        bench.script.set_terms(fetched);
        bench.pass(later);
        let described = match policies.recheck(&failed_under).await {
            Recheck::Confirmed => "confirmed",
            Recheck::Changed(published) => {
                assert_eq!(policy(&policies).await, describe(&published), "{row}");
                "changed"
            }
            Recheck::Unknown(_) => "unknown",
        };
        assert_eq!(
            (described, bench.script.requests().1 - 1),
            (wanted, fetches),
            "{row}"
        );
    }
}

#[tokio::test]
async fn a_recheck_does_not_repeat_a_failed_fetch() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    let PublishedPolicy::Policy(known) = policies.policy(&domain("example.org")).await else {
        panic!("a policy")
    };
    bench.pass(600);
    bench.script.set_terms(Err(fetch_failed()));
    for _ in 0..3 {
        assert!(matches!(
            policies.recheck(&known).await,
            Recheck::Unknown(_)
        ));
    }
    assert_eq!(bench.script.requests(), (2, 2));
    assert_eq!(policy(&policies).await, EXAMPLE);
}

#[tokio::test]
async fn policies_in_use_are_refreshed_daily() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    policy(&policies).await;
    policies.run_round().await;
    assert_eq!(bench.script.requests(), (1, 1));
    for day in 1..5 {
        bench.pass(86_399);
        policies.run_round().await;
        assert_eq!(bench.script.requests(), (day + 1, day + 1));
        assert!(policies.cached(&domain("example.org")).is_some());
    }
    bench.script.set_terms(Err(fetch_failed()));
    bench.pass(86_399);
    policies.run_round().await;
    assert_eq!(policy(&policies).await, EXAMPLE);
    bench.pass(1);
    policies.run_round().await;
    assert_eq!(policies.cached(&domain("example.org")), None);
}

#[tokio::test]
async fn the_task_starts_with_a_round() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    policy(&policies).await;
    bench.pass(86_399);
    let task = tokio::spawn({
        let policies = policies.clone();
        async move { policies.keep_fresh().await }
    });
    while bench.script.requests() != (2, 2) {
        tokio::task::yield_now().await;
    }
    task.abort();
}
