//! Tests of the cache with moments in place of a clock.

use super::*;
use crate::net::https::Url;
use crate::net::oauth::TokenFault;
use crate::net::oauth::response::token;

const HOUR: Duration = Duration::from_hours(1);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a moment")
}

fn error() -> TokenError {
    TokenError {
        token_url: Url::parse("https://login.example/token").expect("a URL"),
        fault: TokenFault::Status(500),
        remedy: None,
    }
}

/// Returns the way as a word: the token, "wait", "fetch" or "failed".
fn way(cache: &mut TokenCache, seconds: i64) -> String {
    match cache.way(at(seconds)) {
        TokenWay::Known(Ok(token)) => token.secret().to_owned(),
        TokenWay::Known(Err(_)) => "failed".to_owned(),
        TokenWay::Wait(_) => "wait".to_owned(),
        TokenWay::Fetch(sender, _) => {
            // The task of the fetch lives on.
            std::mem::forget(sender);
            "fetch".to_owned()
        }
    }
}

fn with_token(lifetime: Duration) -> TokenCache {
    let mut cache = TokenCache::default();
    assert_eq!(way(&mut cache, 0), "fetch");
    let _one = cache.fetched(token("one"), lifetime, at(0));
    cache
}

/// An hour is renewed five minutes before its end, a minute twelve seconds.
#[test]
fn a_token_is_renewed_shortly_before_it_expires() {
    for (lifetime, renewed) in [(HOUR, 3300), (Duration::from_mins(1), 48)] {
        let mut cache = with_token(lifetime);
        assert_eq!(way(&mut cache, 0), "one");
        assert_eq!(way(&mut cache, renewed - 1), "one");
        assert_eq!(way(&mut cache, renewed), "fetch");
        assert_eq!(way(&mut cache, renewed), "wait");
        let _two = cache.fetched(token("two"), lifetime, at(renewed));
        assert_eq!(way(&mut cache, renewed), "two");
    }
}

#[test]
fn one_fetch_serves_all_that_wait() {
    let mut cache = TokenCache::default();
    assert_eq!(way(&mut cache, 0), "fetch");
    for _ in 0..3 {
        assert_eq!(way(&mut cache, 0), "wait");
    }
}

#[test]
fn a_fetch_whose_task_died_is_started_anew() {
    let mut cache = TokenCache::default();
    drop(cache.way(at(0)));
    assert_eq!(way(&mut cache, 0), "fetch");
}

/// The pauses are 10, 20, 40, 80, 120 and 120 seconds, and begin anew after a success.
#[test]
fn a_failure_holds_for_a_while_that_doubles() {
    let mut cache = TokenCache::default();
    let mut now = 0;
    for pause in [10, 20, 40, 80, 120, 120] {
        assert_eq!(way(&mut cache, now), "fetch");
        assert_eq!(cache.failed(error(), at(now)), Err(error()));
        assert_eq!(way(&mut cache, now), "failed");
        assert_eq!(way(&mut cache, now + pause - 1), "failed");
        now += pause;
    }
    assert_eq!(way(&mut cache, now), "fetch");
    let _one = cache.fetched(token("one"), HOUR, at(now));
    now += 3600;
    assert_eq!(way(&mut cache, now), "fetch");
    let _failed = cache.failed(error(), at(now));
    assert_eq!(way(&mut cache, now + 10), "fetch");
}

#[test]
fn a_reload_forgets_a_failure() {
    let mut cache = TokenCache::default();
    assert_eq!(way(&mut cache, 0), "fetch");
    let _failed = cache.failed(error(), at(0));
    cache.forget_failure();
    assert_eq!(way(&mut cache, 1), "fetch");
}

/// The old token serves until it expires, and no longer.
#[test]
fn a_token_outlives_a_failed_renewal() {
    let mut cache = with_token(HOUR);
    assert_eq!(way(&mut cache, 3590), "fetch");
    let despite = cache.failed(error(), at(3590));
    assert_eq!(despite, Ok(token("one")));
    assert_eq!(way(&mut cache, 3599), "one");
    assert_eq!(way(&mut cache, 3600), "fetch");
    assert_eq!(cache.failed(error(), at(3600)), Err(error()));
}

#[test]
fn a_refused_token_is_replaced_once() {
    let mut cache = with_token(HOUR);
    cache.refuse(&token("another"), at(5));
    assert_eq!(way(&mut cache, 5), "one");
    cache.refuse(&token("one"), at(5));
    assert_eq!(way(&mut cache, 5), "fetch");
    let _two = cache.fetched(token("two"), HOUR, at(5));
    // Another delivery had the first one, too.
    cache.refuse(&token("one"), at(6));
    assert_eq!(way(&mut cache, 6), "two");
}

/// A refused token does not serve while no other can be fetched.
#[test]
fn a_refused_token_never_comes_back() {
    let mut cache = with_token(HOUR);
    cache.refuse(&token("one"), at(5));
    assert_eq!(way(&mut cache, 5), "fetch");
    assert_eq!(cache.failed(error(), at(5)), Err(error()));
    assert_eq!(way(&mut cache, 6), "failed");
}

#[test]
fn refusals_do_not_hammer_the_token_server() {
    let mut cache = with_token(HOUR);
    cache.refuse(&token("one"), at(5));
    assert_eq!(way(&mut cache, 5), "fetch");
    let _two = cache.fetched(token("two"), HOUR, at(5));
    cache.refuse(&token("two"), at(6));
    assert_eq!(
        way(&mut cache, 34),
        "two",
        "30 seconds after the first refusal"
    );
    assert_eq!(way(&mut cache, 35), "fetch");
    // The server gives the same token again: it is not fetched a third time.
    let _two = cache.fetched(token("two"), HOUR, at(35));
    cache.refuse(&token("two"), at(300));
    assert_eq!(way(&mut cache, 300), "two");
}

#[test]
fn a_clock_that_is_set_back_keeps_no_token_and_no_failure() {
    let mut cache = with_token(HOUR);
    assert_eq!(way(&mut cache, -10_000_000), "fetch");
    let mut cache = TokenCache::default();
    assert_eq!(way(&mut cache, 0), "fetch");
    let _failed = cache.failed(error(), at(0));
    assert_eq!(way(&mut cache, -10_000_000), "fetch");
}

#[test]
fn equal_identities_share_a_cache_while_it_is_used() {
    let caches = TokenCaches::default();
    let (one, same, other) = (caches.of("a"), caches.of("a"), caches.of("b"));
    assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
    drop((one, same));
    let _new = caches.of("c");
    assert!(!caches.0.lock().expect("sound").contains_key("a"));
}
