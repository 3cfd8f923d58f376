//! Tests of `policies.db`: restarts, damage, wrong clocks.

use super::*;

#[tokio::test]
async fn policies_survive_a_restart() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    policy(&policies).await;
    // The memory is lost without a shutdown, as after kill -9.
    std::mem::forget(policies);
    bench
        .script
        .set_record(Err(MtaStsFailure::Lookup("SERVFAIL".to_owned())));
    bench.pass(86_399);
    let policies = bench.open();
    assert_eq!(policy(&policies).await, EXAMPLE);
    drop(policies);
    bench.pass(1);
    let policies = bench.open();
    assert_eq!(policy(&policies).await, "sts-policy-fetch-error");
    assert_eq!(bench.script.requests(), (3, 1));
}

#[tokio::test]
async fn use_and_changes_survive_a_restart() {
    let bench = PolicyBench::new();
    let long = EXAMPLE.replace("86400", "31557600");
    let policies = bench.open();
    bench.script.publish("1", &long);
    policy(&policies).await;
    bench.script.publish("2", &long.replace("enforce", "none"));
    bench.pass(20 * 86_400);
    policy(&policies).await;
    wait_for_fetches(&policies).await;
    policies.run_round().await;
    drop(policies);
    bench.pass(20 * 86_400);
    let policies = bench.open();
    assert_eq!(policy(&policies).await, long.replace("enforce", "none"));
    drop(policies);
    let policies = bench.open();
    policies.run_round().await;
    assert_eq!(
        bench.script.requests().1,
        3,
        "used 20 days ago, so it is refreshed"
    );
}

/// Returns the content of the quarantined files.
fn quarantined(bench: &PolicyBench) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(bench.folder.path().join("aside")) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| String::from_utf8_lossy(&std::fs::read(path).expect("ours")).into_owned())
        .collect()
}

#[tokio::test]
async fn a_damaged_file_is_quarantined_and_replaced() {
    let bench = PolicyBench::new();
    for damage in [
        "not a database, but long enough to have a header of one: ".repeat(20),
        "short".to_owned(),
    ] {
        std::fs::write(bench.database(), &damage).expect("ours");
        let policies = bench.open();
        bench.script.publish("1", EXAMPLE);
        policy(&policies).await;
        drop(policies);
        let kept = quarantined(&bench);
        assert!(kept.contains(&damage), "{kept:?}");
        assert!(bench.open().cached(&domain("example.org")).is_some());
    }
}

#[tokio::test]
async fn damage_while_it_is_in_use_loses_nothing() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    policy(&policies).await;
    let other = rusqlite::Connection::open(bench.database()).expect("ours");
    other
        .execute_batch("DROP TABLE policy")
        .expect("it is dropped");
    drop(other);
    policies.policy(&domain("b.example")).await;
    drop(policies);
    let policies = bench.open();
    for name in ["example.org", "b.example"] {
        assert!(policies.cached(&domain(name)).is_some(), "{name}");
    }
}

/// A disk that damages whatever is written to it would fill the quarantine.
#[tokio::test]
async fn a_file_that_is_damaged_in_use_again_is_not_quarantined_again() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    for name in ["a.example", "b.example"] {
        let other = rusqlite::Connection::open(bench.database()).expect("ours");
        other
            .execute_batch("DROP TABLE policy")
            .expect("it is dropped");
        drop(other);
        policies.policy(&domain(name)).await;
    }
    assert!(
        policies.cached(&domain("b.example")).is_some(),
        "the memory still has it"
    );
    drop(policies);
    assert_eq!(quarantined(&bench).len(), 1);
}

#[tokio::test]
async fn invalid_rows_are_skipped() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    policy(&policies).await;
    drop(policies);
    let other = rusqlite::Connection::open(bench.database()).expect("ours");
    other
        .execute_batch(
            "INSERT INTO policy SELECT 'a.example', id, 'mode: enforce', fetched, used FROM policy;
             INSERT INTO policy SELECT 'b.example', '-', terms, fetched, used FROM policy WHERE domain = 'example.org';
             INSERT INTO policy SELECT 'c example', id, terms, fetched, used FROM policy WHERE domain = 'example.org';",
        )
        .expect("rows");
    drop(other);
    let policies = bench.open();
    assert_eq!(policies.0.cache().all().len(), 1);
    assert_eq!(policy(&policies).await, EXAMPLE);
}

#[tokio::test]
async fn a_policy_from_the_future_is_kept_no_longer_than_it_may_be() {
    let bench = PolicyBench::new();
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    policy(&policies).await;
    drop(policies);
    bench.pass(-1_000_000);
    let policies = bench.open();
    assert_eq!(policy(&policies).await, EXAMPLE);
    bench.pass(86_400);
    assert_eq!(policies.cached(&domain("example.org")), None);
}

#[tokio::test]
async fn policies_stay_in_memory_while_the_disk_fails() {
    let bench = PolicyBench::new();
    std::fs::create_dir(bench.database()).expect("something is in the way");
    let policies = bench.open();
    bench.script.publish("1", EXAMPLE);
    assert_eq!(policy(&policies).await, EXAMPLE);
    assert_eq!(policy(&policies).await, EXAMPLE);
    assert_eq!(bench.script.requests(), (1, 1));
    std::fs::remove_dir(bench.database()).expect("ours");
    policies.policy(&domain("b.example")).await;
    drop(policies);
    assert!(bench.open().cached(&domain("b.example")).is_some());
}
