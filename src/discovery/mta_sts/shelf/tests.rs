//! The shelf's dates, one after the other, with the time told to it.

use super::*;
use crate::discovery::mta_sts::policy::Terms;
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

fn policy_with(name: &str, max_age: i64, fetched: i64, mx: usize) -> Arc<Policy> {
    let lines = "mx: mx.example\n".repeat(mx);
    let terms = Terms::parse(format!("version: STSv1\nmode: enforce\nmax_age: {max_age}\n{lines}").as_bytes());
    Arc::new(Policy {
        domain: domain(name),
        id: PolicyId::parse("1").expect("an id"),
        terms: terms.expect("a policy"),
        fetched: at(fetched),
    })
}

fn policy(name: &str, max_age: i64, fetched: i64) -> Arc<Policy> {
    policy_with(name, max_age, fetched, 1)
}

fn with(policy: &Arc<Policy>, now: i64) -> Shelf {
    let mut shelf = Shelf::default();
    assert_eq!(shelf.put(Arc::clone(policy), at(now)), []);
    shelf
}

fn failure() -> Arc<Failure> {
    Arc::new(Failure::Overrun(std::time::Duration::from_secs(1)))
}

/// What `look` finds, in one word.
fn look(shelf: &mut Shelf, name: &str, now: i64) -> &'static str {
    match shelf.look(&domain(name), at(now)) {
        Known::Policy { check: false, .. } => "policy",
        Known::Policy { check: true, .. } => "policy, check",
        Known::Failed(_) => "failed",
        Known::Nothing => "nothing",
    }
}

#[test]
fn a_policy_counts_until_its_very_end() {
    let mut shelf = with(&policy("a.example", 100, 0), 0);
    assert_eq!(look(&mut shelf, "a.example", 99), "policy");
    assert_eq!(look(&mut shelf, "a.example", 100), "nothing");
    assert_eq!(look(&mut shelf, "b.example", 0), "nothing");
    assert_eq!(look(&mut shelf, "x.a.example", 0), "nothing", "a parent's policy is not a child's");
}

#[test]
fn its_record_is_looked_at_now_and_then_and_by_one_caller() {
    let mut shelf = with(&policy("a.example", DAY, 0), 0);
    assert_eq!(look(&mut shelf, "a.example", 5 * MINUTE - 1), "policy");
    assert_eq!(look(&mut shelf, "a.example", 5 * MINUTE), "policy, check");
    assert_eq!(look(&mut shelf, "a.example", 5 * MINUTE), "policy");
    shelf.fail(&domain("a.example"), &failure(), at(5 * MINUTE));
    assert_eq!(look(&mut shelf, "a.example", 10 * MINUTE - 1), "policy");
    assert_eq!(look(&mut shelf, "a.example", 10 * MINUTE), "policy, check");
}

#[test]
fn a_failure_is_remembered_for_five_minutes_and_dns_s_for_half_a_one() {
    let mut shelf = Shelf::default();
    assert_eq!(shelf.fail(&domain("a.example"), &failure(), at(0)), Held::Nothing);
    assert_eq!(look(&mut shelf, "a.example", 5 * MINUTE - 1), "failed");
    assert_eq!(look(&mut shelf, "b.example", 0), "nothing");
    assert_eq!(look(&mut shelf, "a.example", 5 * MINUTE), "nothing");
    // Without a policy the pause does not grow: mail goes unprotected meanwhile.
    shelf.fail(&domain("a.example"), &failure(), at(5 * MINUTE));
    assert_eq!(look(&mut shelf, "a.example", 10 * MINUTE), "nothing");
    let lookup = Arc::new(Failure::Lookup("SERVFAIL".to_owned()));
    shelf.fail(&domain("c.example"), &lookup, at(0));
    assert_eq!((look(&mut shelf, "c.example", 29), look(&mut shelf, "c.example", 30)), ("failed", "nothing"));
}

#[test]
fn a_policy_outlives_failures_and_its_pause_grows_to_an_hour() {
    let (mut shelf, name) = (with(&policy("a.example", 10 * DAY, 0), 0), domain("a.example"));
    let (mut now, mut pauses) = (DAY, Vec::new());
    for _ in 0..7 {
        assert_eq!(shelf.due(at(now)), std::slice::from_ref(&name));
        assert_eq!(shelf.fail(&name, &failure(), at(now)), Held::Cached(Mode::Enforce));
        assert_eq!(look(&mut shelf, "a.example", now), "policy");
        let pause = (1..100).find(|minutes| !shelf.due(at(now + minutes * MINUTE)).is_empty()).expect("it ends");
        pauses.push(pause);
        now += pause * MINUTE;
        shelf.expire(at(now));
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60]);
    shelf.put(policy("a.example", 10 * DAY, now), at(now));
    shelf.fail(&name, &failure(), at(now + DAY));
    assert!(shelf.due(at(now + DAY + 5 * MINUTE)) == [name], "success begins the pauses anew");
}

#[test]
fn it_is_due_within_a_day_and_before_it_expires() {
    for (max_age, latest) in [(31_557_600, DAY), (7 * DAY, DAY), (DAY, DAY - 1), (HOUR, HOUR - 1)] {
        for number in 0..50 {
            let name = format!("d{number}.example");
            let shelf = with(&policy(&name, max_age, 0), 0);
            let span = max_age.min(DAY);
            assert_eq!(shelf.due(at(span / 2)), [], "{name} {max_age}");
            assert_eq!(shelf.due(at(latest)), [domain(&name)], "{name} {max_age}");
        }
    }
    let shelf = with(&policy("short.example", HOUR - 1, 0), 0);
    assert_eq!(shelf.due(at(HOUR - 2)), [], "whoever sends fetches it");
}

#[test]
fn refreshes_are_spread() {
    let mut shelf = Shelf::default();
    for number in 0..400 {
        shelf.put(policy(&format!("d{number}.example"), 7 * DAY, 0), at(0));
    }
    let half = shelf.due(at(DAY * 85 / 100)).len();
    assert!((50..350).contains(&half), "{half} of 400");
}

#[test]
fn the_one_that_expires_first_is_refreshed_first() {
    let mut shelf = with(&policy("late.example", 9 * DAY, 0), 0);
    shelf.put(policy("soon.example", 2 * DAY, 0), at(0));
    assert_eq!(shelf.due(at(DAY)), [domain("soon.example"), domain("late.example")]);
}

#[test]
fn one_that_nobody_uses_is_left_to_expire() {
    let mut shelf = with(&policy("a.example", 60 * DAY, 0), 0);
    assert_eq!(shelf.due(at(30 * DAY - 1)).len(), 1);
    assert_eq!(shelf.due(at(30 * DAY)), []);
    look(&mut shelf, "a.example", 30 * DAY);
    assert_eq!(shelf.due(at(30 * DAY)).len(), 1);
    for _ in 1..ROUNDS_OVER {
        assert_eq!(shelf.expire(at(60 * DAY)), []);
    }
    look(&mut shelf, "a.example", 60 * DAY);
    assert_eq!(shelf.due(at(60 * DAY)), [], "whoever sends fetches it");
    assert_eq!(shelf.expire(at(60 * DAY)), [domain("a.example")]);
    assert_eq!((look(&mut shelf, "a.example", 0), shelf.weight), ("nothing", 0));
}

#[test]
fn a_clock_that_was_ahead_for_a_while_has_taken_nothing_away() {
    let mut shelf = with(&policy("a.example", 10 * DAY, 0), 0);
    // Twice for most of a day: it is not added up.
    for _ in 0..2 {
        for _ in 1..ROUNDS_OVER {
            assert_eq!(shelf.expire(at(3650 * DAY)), []);
        }
        assert_eq!(look(&mut shelf, "a.example", 3650 * DAY), "nothing");
        assert_eq!(shelf.expire(at(DAY)), []);
    }
    assert_eq!(look(&mut shelf, "a.example", DAY), "policy, check", "it was last looked at in the future");
    // Nor does a failure of then keep anybody from trying.
    shelf.fail(&domain("b.example"), &failure(), at(3650 * DAY));
    assert_eq!(look(&mut shelf, "b.example", DAY), "nothing");
}

#[test]
fn a_record_without_news_puts_the_refresh_off() {
    let mut shelf = with(&policy("a.example", 60 * DAY, 0), 0);
    shelf.confirm(&domain("a.example"), at(DAY));
    assert_eq!(shelf.due(at(DAY + HOUR - 1)), []);
    assert_eq!(shelf.due(at(DAY + HOUR)).len(), 1);
}

#[test]
fn use_is_saved_once() {
    let mut shelf = with(&policy("a.example", DAY, 0), 0);
    assert_eq!(shelf.take_unsaved(), []);
    look(&mut shelf, "a.example", 7);
    assert_eq!(shelf.take_unsaved(), [(domain("a.example"), at(7))]);
    assert_eq!(shelf.take_unsaved(), []);
}

#[test]
fn the_least_used_goes_where_there_are_too_many() {
    let mut shelf = Shelf::default();
    for (name, used) in [("a.example", 2), ("b.example", 1), ("c.example", 3)] {
        shelf.put(policy(name, DAY, 0), at(used));
    }
    assert_eq!(shelf.make_room(2, WEIGHT_MAX), [domain("b.example")]);
    // One that has expired is worth less, however lately it was asked for.
    shelf.put(policy("d.example", 5, 0), at(4));
    shelf.expire(at(5));
    assert_eq!(shelf.make_room(2, WEIGHT_MAX), [domain("d.example")]);
}

#[test]
fn the_heaviest_goes_where_they_are_too_heavy() {
    let mut shelf = Shelf::default();
    shelf.put(policy("old.example", DAY, 0), at(0));
    shelf.put(policy_with("huge.example", DAY, 0, 1000), at(9));
    shelf.put(policy("new.example", DAY, 0), at(5));
    assert_eq!(shelf.make_room(POLICIES_MAX, 1000), [domain("huge.example")]);
    assert_eq!(shelf.weight, 2 * policy("a.example", 1, 0).weight());
}

#[test]
fn failures_are_bounded() {
    let mut shelf = Shelf::default();
    for number in 0..=TROUBLES_MAX {
        let now = i64::from(number == TROUBLES_MAX);
        shelf.fail(&domain(&format!("d{number}.example")), &failure(), at(now));
    }
    assert_eq!(shelf.troubles.len(), TROUBLES_MAX);
    assert_eq!(look(&mut shelf, &format!("d{TROUBLES_MAX}.example"), 1), "failed");
}
