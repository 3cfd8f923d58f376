//! Each field of the requests with secrets.

use super::server::{token, token_and_refresh};
use super::world::{BY_SECRET, SECRET, World};

#[tokio::test]
async fn a_client_with_a_secret_sends_these_fields_and_no_other() {
    let world = World::new(vec![token("t1")]).await;
    let lines = format!("{BY_SECRET}\nscope = \"https://outlook.office365.com/.default\"");
    let got = world.source(&lines).token().await.expect("a token");
    assert_eq!(got.secret(), "t1");
    let [request] = &world.server.requests()[..] else {
        panic!("one request")
    };
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", "client-1"),
        ("client_secret", SECRET),
        ("scope", "https://outlook.office365.com/.default"),
    ];
    let sent: Vec<_> = request
        .form
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(sent, fields);
    let port = world.server.port;
    let head = request.head.to_ascii_lowercase();
    let length = head
        .lines()
        .find(|line| line.starts_with("content-length: "))
        .expect("a length");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        head,
        format!(
            "post /tenant/token http/1.1\r\nhost: login.example:{port}\r\nuser-agent: gatepost/{version}\r\n\
             content-type: application/x-www-form-urlencoded\r\naccept: application/json\r\n{length}\r\n\r\n"
        )
    );
}

/// Without `scope` the server decides.
#[tokio::test]
async fn a_scope_that_is_not_set_is_not_sent() {
    let world = World::new(vec![token("t1")]).await;
    world.source(BY_SECRET).token().await.expect("a token");
    let names = ["grant_type", "client_id", "client_secret"];
    assert_eq!(world.server.requests()[0].names(), names);
}

#[tokio::test]
async fn a_refresh_token_is_sent_with_the_client() {
    let world = World::new(vec![token("t1"), token_and_refresh("t2", "r1")]).await;
    world.write("refresh", "  r1\n");
    let public = "grant = \"refresh_token\"\nclient_id = \"c\"\nrefresh_token_file = \"refresh\"";
    world.source(public).token().await.expect("a token");
    let with_secret =
        format!("{public}\nclient_secret_file = \"secret\"\nscope = \"https://mail.google.com/\"");
    world.source(&with_secret).token().await.expect("a token");
    let [first, second] = &world.server.requests()[..] else {
        panic!("two requests")
    };
    let names = ["grant_type", "refresh_token", "client_id"];
    assert_eq!(first.names(), names);
    assert_eq!(first.value("grant_type"), "refresh_token");
    assert_eq!(first.value("refresh_token"), "r1");
    let names = [
        "grant_type",
        "refresh_token",
        "client_id",
        "client_secret",
        "scope",
    ];
    assert_eq!(second.names(), names);
    assert_eq!(second.value("client_secret"), SECRET);
    assert_eq!(second.value("scope"), "https://mail.google.com/");
    // The server repeated the token that it has: there is nothing to store.
    assert!(!world.spool().join("oauth2").exists());
}

/// A new secret is used without a restart, and no error shows the old one.
#[tokio::test]
async fn secrets_are_read_for_each_fetch() {
    let world = World::new(vec![token("t1"), token("t2")]).await;
    let source = world.source(BY_SECRET);
    source.token().await.expect("a token");
    world.write("secret", "another\n");
    world.clock.advance(3600);
    source.token().await.expect("a token");
    let requests = world.server.requests();
    assert_eq!(requests[1].value("client_secret"), "another");
    std::fs::remove_file(world.path("secret")).expect("the file is ours");
    world.clock.advance(3600);
    let error = source.token().await.expect_err("no secret").to_string();
    assert!(error.contains("secret does not exist"), "{error}");
    assert_eq!(world.server.requests().len(), 2);
}
