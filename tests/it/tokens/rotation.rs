//! Refresh tokens that the server replaces.

use std::path::PathBuf;

use super::server::{json, token, token_and_refresh};
use super::world::World;

const LINES: &str =
    "grant = \"refresh_token\"\nclient_id = \"c\"\nrefresh_token_file = \"refresh\"";

/// A relay that has fetched once, and got a new refresh token.
async fn rotated() -> World {
    let world = World::new(vec![token_and_refresh("t1", "r2")]).await;
    world.write("refresh", "r1\n");
    world.source(LINES).token().await.expect("a token");
    world
}

/// The refresh tokens that were sent.
fn sent(world: &World) -> Vec<String> {
    let requests = world.server.requests();
    requests
        .iter()
        .map(|request| request.value("refresh_token").to_owned())
        .collect()
}

fn stored(world: &World) -> PathBuf {
    let mut files = std::fs::read_dir(world.spool().join("oauth2")).expect("a folder");
    files.next().expect("a file").expect("readable").path()
}

/// The sources of a restart have nothing but the files.
#[tokio::test]
async fn a_restart_uses_the_new_refresh_token() {
    let world = rotated().await;
    let refresh = std::fs::read_to_string(world.path("refresh")).expect("it is there");
    assert_eq!(refresh, "r1\n", "the administrator's file stays as it is");
    world.server.then(token_and_refresh("t2", "r3"));
    world.server.then(token("t3"));
    world.source(LINES).token().await.expect("a token");
    world.source(LINES).token().await.expect("a token");
    assert_eq!(sent(&world), ["r1", "r2", "r3"]);
}

#[tokio::test]
async fn a_source_goes_on_with_the_new_refresh_token() {
    let world = World::new(vec![token_and_refresh("t1", "r2"), token("t2")]).await;
    world.write("refresh", "r1");
    let source = world.source(LINES);
    source.token().await.expect("a token");
    world.clock.advance(3600);
    source.token().await.expect("a token");
    assert_eq!(sent(&world), ["r1", "r2"]);
}

/// The new token is on disk before the access token is used, so that a crash loses neither.
#[tokio::test]
async fn a_new_refresh_token_is_stored_before_the_access_token_is_used() {
    let world = rotated().await;
    let content = std::fs::read_to_string(stored(&world)).expect("it is there");
    assert!(
        content.contains("\"r2\"") && !content.contains("r1"),
        "{content}"
    );
}

/// The process was killed after the server had replaced the token and before the new one was
/// stored: a restart has the old one, and reports what the server says of it.
#[tokio::test]
async fn a_crash_before_the_new_token_is_stored_leaves_the_old_one() {
    let world = rotated().await;
    let file = stored(&world);
    let before = std::fs::read(&file).expect("it is there");
    world.server.then(token_and_refresh("t2", "r3"));
    world.source(LINES).token().await.expect("a token");
    // As a kill would leave it: the old file, and an unfinished new one.
    std::fs::write(&file, before).expect("the file is ours");
    std::fs::write(file.with_file_name(".new.abc"), "{\"conf").expect("the folder is ours");
    let refused = "{\"error\":\"invalid_grant\",\"error_description\":\"reused\"}";
    world.server.then(json("400 Bad Request", refused));
    let error = world.source(LINES).token().await.expect_err("refused");
    assert!(
        error.to_string().contains("invalid_grant: reused"),
        "{error}"
    );
    assert_eq!(sent(&world), ["r1", "r2", "r2"]);
}

#[tokio::test]
async fn a_new_token_in_the_configured_file_wins_over_the_stored_one() {
    let world = rotated().await;
    world.write("refresh", "n1");
    world.server.then(token_and_refresh("t2", "n2"));
    world.server.then(token("t3"));
    world.source(LINES).token().await.expect("a token");
    world.source(LINES).token().await.expect("a token");
    assert_eq!(sent(&world), ["r1", "n1", "n2"]);
}

/// The access token is used, the refresh token stays in memory, and is stored when that works.
#[tokio::test]
async fn a_refresh_token_that_cannot_be_stored_is_kept_in_memory() {
    let world = World::new(vec![
        token_and_refresh("t1", "r2"),
        token("t2"),
        token("t3"),
    ])
    .await;
    world.write("refresh", "r1");
    // A file stands where the folder would be.
    std::fs::write(world.spool().join("oauth2"), "").expect("the folder is ours");
    let source = world.source(LINES);
    assert_eq!(source.token().await.expect("a token").secret(), "t1");
    std::fs::remove_file(world.spool().join("oauth2")).expect("the folder is ours");
    world.clock.advance(3600);
    source.token().await.expect("a token");
    drop(source);
    world.source(LINES).token().await.expect("a token");
    assert_eq!(sent(&world), ["r1", "r2", "r2"]);
}

/// An administrator who writes a new token is heard, also while one that could not be stored is kept
/// in memory.
#[tokio::test]
async fn a_new_token_in_the_configured_file_wins_over_the_one_in_memory() {
    let world = World::new(vec![token_and_refresh("t1", "r2"), token("t2")]).await;
    world.write("refresh", "r1");
    std::fs::write(world.spool().join("oauth2"), "").expect("the folder is ours");
    let source = world.source(LINES);
    source.token().await.expect("a token");
    world.write("refresh", "n1");
    world.clock.advance(3600);
    source.token().await.expect("a token");
    assert_eq!(sent(&world), ["r1", "n1"]);
}
