//! Tests of the cache's times, with a simulated clock.

use super::*;
use crate::discovery::mta_sts::policy::PolicyTerms;
use crate::discovery::mta_sts::record::PolicyId;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).expect(name)
}

fn policy_with(name: &str, max_age: i64, fetched: i64, mx: usize) -> Arc<MtaStsPolicy> {
    let lines = "mx: mx.example\n".repeat(mx);
    let terms = PolicyTerms::parse(
        format!("version: STSv1\nmode: enforce\nmax_age: {max_age}\n{lines}").as_bytes(),
    );
    Arc::new(MtaStsPolicy {
        domain: domain(name),
        id: PolicyId::parse("1").expect("an id"),
        terms: terms.expect("a policy"),
        fetched: at(fetched),
    })
}

fn policy(name: &str, max_age: i64, fetched: i64) -> Arc<MtaStsPolicy> {
    policy_with(name, max_age, fetched, 1)
}

fn with(policy: &Arc<MtaStsPolicy>, now: i64) -> PolicyCache {
    let mut cache = PolicyCache::default();
    assert_eq!(cache.put(Arc::clone(policy), at(now)), []);
    cache
}

fn failure() -> Arc<MtaStsFailure> {
    Arc::new(MtaStsFailure::Overrun(std::time::Duration::from_secs(1)))
}

/// Returns the kind of the result of `look_up`.
fn look_up(cache: &mut PolicyCache, name: &str, now: i64) -> &'static str {
    match cache.look_up(&domain(name), at(now)) {
        CacheLookup::Policy { check: false, .. } => "policy",
        CacheLookup::Policy { check: true, .. } => "policy, check",
        CacheLookup::Failed(_) => "failed",
        CacheLookup::Miss => "nothing",
    }
}

#[test]
fn a_policy_counts_until_it_expires() {
    let mut cache = with(&policy("a.example", 100, 0), 0);
    assert_eq!(look_up(&mut cache, "a.example", 99), "policy");
    assert_eq!(look_up(&mut cache, "a.example", 100), "nothing");
    assert_eq!(look_up(&mut cache, "b.example", 0), "nothing");
    assert_eq!(
        look_up(&mut cache, "x.a.example", 0),
        "nothing",
        "a parent's policy is not a child's"
    );
}

#[test]
fn a_record_is_checked_every_five_minutes_by_one_caller() {
    let mut cache = with(&policy("a.example", DAY, 0), 0);
    assert_eq!(look_up(&mut cache, "a.example", 5 * MINUTE - 1), "policy");
    assert_eq!(
        look_up(&mut cache, "a.example", 5 * MINUTE),
        "policy, check"
    );
    assert_eq!(look_up(&mut cache, "a.example", 5 * MINUTE), "policy");
    cache.fail(&domain("a.example"), &failure(), at(5 * MINUTE));
    assert_eq!(look_up(&mut cache, "a.example", 10 * MINUTE - 1), "policy");
    assert_eq!(
        look_up(&mut cache, "a.example", 10 * MINUTE),
        "policy, check"
    );
}

#[test]
fn a_failed_fetch_counts_for_five_minutes_and_a_failed_lookup_for_30_seconds() {
    let mut cache = PolicyCache::default();
    assert_eq!(cache.fail(&domain("a.example"), &failure(), at(0)), None);
    assert_eq!(look_up(&mut cache, "a.example", 5 * MINUTE - 1), "failed");
    assert_eq!(look_up(&mut cache, "b.example", 0), "nothing");
    assert_eq!(look_up(&mut cache, "a.example", 5 * MINUTE), "nothing");
    // Without a policy in force the pause does not grow, since mail goes unprotected meanwhile.
    cache.fail(&domain("a.example"), &failure(), at(5 * MINUTE));
    assert_eq!(look_up(&mut cache, "a.example", 10 * MINUTE), "nothing");
    let lookup = Arc::new(MtaStsFailure::Lookup("SERVFAIL".to_owned()));
    cache.fail(&domain("c.example"), &lookup, at(0));
    assert_eq!(
        (
            look_up(&mut cache, "c.example", 29),
            look_up(&mut cache, "c.example", 30)
        ),
        ("failed", "nothing")
    );
}

#[test]
fn a_policy_outlives_failures_and_its_pause_grows_to_an_hour() {
    let (mut cache, name) = (
        with(&policy("a.example", 10 * DAY, 0), 0),
        domain("a.example"),
    );
    let (mut now, mut pauses) = (DAY, Vec::new());
    for _ in 0..7 {
        assert_eq!(cache.due(at(now)), std::slice::from_ref(&name));
        assert_eq!(
            cache.fail(&name, &failure(), at(now)),
            Some(MtaStsMode::Enforce)
        );
        assert_eq!(look_up(&mut cache, "a.example", now), "policy");
        let pause = (1..100)
            .find(|minutes| !cache.due(at(now + minutes * MINUTE)).is_empty())
            .expect("it ends");
        pauses.push(pause);
        now += pause * MINUTE;
        cache.expire(at(now));
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60]);
    cache.put(policy("a.example", 10 * DAY, now), at(now));
    cache.fail(&name, &failure(), at(now + DAY));
    assert!(
        cache.due(at(now + DAY + 5 * MINUTE)) == [name],
        "success begins the pauses anew"
    );
}

#[test]
fn a_policy_is_due_within_a_day_and_before_it_expires() {
    for (max_age, latest) in [
        (31_557_600, DAY),
        (7 * DAY, DAY),
        (DAY, DAY - 1),
        (HOUR, HOUR - 1),
    ] {
        for number in 0..50 {
            let name = format!("d{number}.example");
            let cache = with(&policy(&name, max_age, 0), 0);
            let span = max_age.min(DAY);
            assert_eq!(cache.due(at(span / 2)), [], "{name} {max_age}");
            assert_eq!(cache.due(at(latest)), [domain(&name)], "{name} {max_age}");
        }
    }
    let cache = with(&policy("short.example", HOUR - 1, 0), 0);
    assert_eq!(cache.due(at(HOUR - 2)), [], "whoever sends fetches it");
}

#[test]
fn refreshes_are_spread() {
    let mut cache = PolicyCache::default();
    for number in 0..400 {
        cache.put(policy(&format!("d{number}.example"), 7 * DAY, 0), at(0));
    }
    let half = cache.due(at(DAY * 85 / 100)).len();
    assert!((50..350).contains(&half), "{half} of 400");
}

#[test]
fn the_policy_that_expires_first_is_refreshed_first() {
    let mut cache = with(&policy("late.example", 9 * DAY, 0), 0);
    cache.put(policy("soon.example", 2 * DAY, 0), at(0));
    assert_eq!(
        cache.due(at(DAY)),
        [domain("soon.example"), domain("late.example")]
    );
}

#[test]
fn an_unused_policy_is_left_to_expire() {
    let mut cache = with(&policy("a.example", 60 * DAY, 0), 0);
    assert_eq!(cache.due(at(30 * DAY - 1)).len(), 1);
    assert_eq!(cache.due(at(30 * DAY)), []);
    look_up(&mut cache, "a.example", 30 * DAY);
    assert_eq!(cache.due(at(30 * DAY)).len(), 1);
    for _ in 1..EXPIRED_ROUNDS {
        assert_eq!(cache.expire(at(60 * DAY)), []);
    }
    look_up(&mut cache, "a.example", 60 * DAY);
    assert_eq!(cache.due(at(60 * DAY)), [], "whoever sends fetches it");
    assert_eq!(cache.expire(at(60 * DAY)), [domain("a.example")]);
    assert_eq!(
        (look_up(&mut cache, "a.example", 0), cache.weight),
        ("nothing", 0)
    );
}

#[test]
fn a_clock_that_was_ahead_removes_no_policy() {
    let mut cache = with(&policy("a.example", 10 * DAY, 0), 0);
    // Two periods of almost a day do not add up.
    for _ in 0..2 {
        for _ in 1..EXPIRED_ROUNDS {
            assert_eq!(cache.expire(at(3650 * DAY)), []);
        }
        assert_eq!(look_up(&mut cache, "a.example", 3650 * DAY), "nothing");
        assert_eq!(cache.expire(at(DAY)), []);
    }
    assert_eq!(
        look_up(&mut cache, "a.example", DAY),
        "policy, check",
        "its record was last checked in the future"
    );
    // A failure recorded while the clock was ahead does not prevent a fetch.
    cache.fail(&domain("b.example"), &failure(), at(3650 * DAY));
    assert_eq!(look_up(&mut cache, "b.example", DAY), "nothing");
}

#[test]
fn an_unchanged_record_postpones_the_refresh() {
    let mut cache = with(&policy("a.example", 60 * DAY, 0), 0);
    cache.confirm(&domain("a.example"), at(DAY));
    assert_eq!(cache.due(at(DAY + HOUR - 1)), []);
    assert_eq!(cache.due(at(DAY + HOUR)).len(), 1);
}

#[test]
fn use_is_saved_once() {
    let mut cache = with(&policy("a.example", DAY, 0), 0);
    assert_eq!(cache.take_unsaved(), []);
    look_up(&mut cache, "a.example", 7);
    assert_eq!(cache.take_unsaved(), [(domain("a.example"), at(7))]);
    assert_eq!(cache.take_unsaved(), []);
}

#[test]
fn too_many_policies_remove_the_least_recently_used() {
    let mut cache = PolicyCache::default();
    for (name, used) in [("a.example", 2), ("b.example", 1), ("c.example", 3)] {
        cache.put(policy(name, DAY, 0), at(used));
    }
    assert_eq!(cache.evict(2, WEIGHT_MAX), [domain("b.example")]);
    // An expired policy is removed before others, even if it was used last.
    cache.put(policy("d.example", 5, 0), at(4));
    cache.expire(at(5));
    assert_eq!(cache.evict(2, WEIGHT_MAX), [domain("d.example")]);
}

#[test]
fn too_much_memory_removes_the_largest_policy() {
    let mut cache = PolicyCache::default();
    cache.put(policy("old.example", DAY, 0), at(0));
    cache.put(policy_with("huge.example", DAY, 0, 1000), at(9));
    cache.put(policy("new.example", DAY, 0), at(5));
    assert_eq!(cache.evict(POLICIES_MAX, 1000), [domain("huge.example")]);
    assert_eq!(cache.weight, 2 * policy("a.example", 1, 0).weight());
}

#[test]
fn failures_are_bounded() {
    let mut cache = PolicyCache::default();
    for number in 0..=FAILURES_MAX {
        let now = i64::from(number == FAILURES_MAX);
        cache.fail(&domain(&format!("d{number}.example")), &failure(), at(now));
    }
    assert_eq!(cache.failures.len(), FAILURES_MAX);
    assert_eq!(
        look_up(&mut cache, &format!("d{FAILURES_MAX}.example"), 1),
        "failed"
    );
}
