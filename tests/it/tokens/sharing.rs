//! One token for all that need it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::server::{Conduct, json, token};
use super::world::{BY_SECRET, World};

#[tokio::test]
async fn a_hundred_that_wait_share_one_fetch() {
    let world = World::new(vec![token("t1")]).await;
    let source = world.source(BY_SECRET);
    // Another connector with the same settings.
    let same = world.source(BY_SECRET);
    let waiting = (0..100).map(|number| {
        let source = if number % 2 == 0 { &source } else { &same };
        source.token()
    });
    for got in join_all(waiting).await {
        assert_eq!(got.expect("a token").secret(), "t1");
    }
    assert_eq!(world.server.requests().len(), 1);
}

#[tokio::test]
async fn a_hundred_that_wait_share_one_failure() {
    let world = World::new(vec![json(
        "400 Bad Request",
        "{\"error\":\"invalid_client\"}",
    )])
    .await;
    let source = world.source(BY_SECRET);
    let failures = join_all((0..100).map(|_| source.token())).await;
    assert!(
        failures
            .iter()
            .all(|failure| failure.is_err() && *failure == failures[0])
    );
    assert_eq!(world.server.requests().len(), 1);
}

/// The fetch goes on when the delivery that began it is given up.
#[tokio::test]
async fn a_fetch_outlives_its_caller() {
    let Conduct::Say(octets) = token("t1") else {
        panic!("a token is said")
    };
    let allowed = Arc::new(Notify::new());
    let world = World::new(vec![Conduct::After(Arc::clone(&allowed), octets)]).await;
    let source = world.source(BY_SECRET);
    {
        let given_up = source.token();
        tokio::pin!(given_up);
        while world.server.requests().is_empty() {
            assert!(futures_util::poll!(given_up.as_mut()).is_pending());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    allowed.notify_one();
    assert_eq!(source.token().await.expect("a token").secret(), "t1");
    assert_eq!(world.server.requests().len(), 1);
}

/// An hour's token serves for 55 minutes.
#[tokio::test]
async fn a_token_is_renewed_shortly_before_it_expires() {
    let world = World::new(vec![token("t1"), token("t2")]).await;
    let source = world.source(BY_SECRET);
    assert_eq!(source.token().await.expect("a token").secret(), "t1");
    world.clock.advance(3299);
    assert_eq!(source.token().await.expect("a token").secret(), "t1");
    assert_eq!(world.server.requests().len(), 1);
    world.clock.advance(1);
    assert_eq!(source.token().await.expect("a token").secret(), "t2");
    assert_eq!(world.server.requests().len(), 2);
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_serves_until_it_expires() {
    let down = json("503 Busy", "");
    let world = World::new(vec![token("t1"), down.clone(), down]).await;
    let source = world.source(BY_SECRET);
    source.token().await.expect("a token");
    world.clock.advance(3590);
    assert_eq!(source.token().await.expect("still good").secret(), "t1");
    world.clock.advance(10);
    source.token().await.expect_err("it has expired");
    assert_eq!(world.server.requests().len(), 3);
}

#[tokio::test]
async fn a_refused_token_is_fetched_anew_once() {
    let world = World::new(vec![token("t1"), token("t2")]).await;
    let source = world.source(BY_SECRET);
    let first = source.token().await.expect("a token");
    source.refuse(&first);
    let second = source.token().await.expect("a token");
    assert_eq!(second.secret(), "t2");
    // Other sessions had the first token, too.
    source.refuse(&first);
    assert_eq!(source.token().await, Ok(second));
    assert_eq!(world.server.requests().len(), 2);
}

/// A reload keeps the token, and tries again after a failure.
#[tokio::test]
async fn a_reload_keeps_a_token_and_forgets_a_failure() {
    let world = World::new(vec![json("500 Oops", ""), token("t1")]).await;
    let before = world.source(BY_SECRET);
    before.token().await.expect_err("no token");
    let after = world.source(BY_SECRET);
    assert_eq!(after.token().await.expect("a token").secret(), "t1");
    drop(before);
    let again = world.source(BY_SECRET);
    assert_eq!(again.token().await.expect("a token").secret(), "t1");
    assert_eq!(world.server.requests().len(), 2);
}

/// Another scope is another token.
#[tokio::test]
async fn other_settings_have_other_tokens() {
    let world = World::new(vec![token("t1"), token("t2")]).await;
    let one = world.source(BY_SECRET);
    let other = world.source(&format!("{BY_SECRET}\nscope = \"x\""));
    assert_eq!(one.token().await.expect("a token").secret(), "t1");
    assert_eq!(other.token().await.expect("a token").secret(), "t2");
}
