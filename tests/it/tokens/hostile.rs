//! Token servers that are down, slow, or lie.

use std::time::Duration;

use gatepost::net::https::{HttpsFault, HttpsStep};
use gatepost::net::oauth::{TokenError, TokenFault};

use super::server::{Conduct, answer, json, token};
use super::world::{BY_SECRET, SECRET, World};

async fn error_of(conduct: Conduct) -> (TokenError, World) {
    let world = World::new(vec![conduct]).await;
    let error = world.source(BY_SECRET).token().await;
    (error.expect_err("no token"), world)
}

fn https_fault(error: &TokenError) -> &HttpsFault {
    match &error.fault {
        TokenFault::Https(error) => &error.fault,
        fault => panic!("{fault}"),
    }
}

#[tokio::test]
async fn a_lying_server_gives_no_token() {
    let bearer = |fields: &str| json("200 OK", &format!("{{\"token_type\":\"Bearer\"{fields}}}"));
    for (conduct, words) in [
        (bearer(""), "the token server's answer has no access_token"),
        (
            bearer(",\"access_token\":\"a\\r\\nRCPT TO:<x@y>\""),
            "the access_token is empty, longer than",
        ),
        (
            bearer(",\"access_token\":\"a\",\"expires_in\":0"),
            "the access_token has already expired",
        ),
        (
            bearer(",\"access_token\":\"a\",\"expires_in\":-9"),
            "expires_in is not a number of seconds",
        ),
        (
            json("200 OK", "{\"access_token\":\"a\"}"),
            "the access_token is not of token_type Bearer",
        ),
        (
            answer("200 OK", "text/html", "<html>Sign in</html>"),
            "is not a JSON object but text/html (compare token_url with the token endpoint",
        ),
        (
            answer("502 Bad Gateway", "text/html", "<html>"),
            "the token server answered 502 without an explanation",
        ),
        (
            answer("500 Oops", "application/json", ""),
            "the token server answered 500 without an explanation",
        ),
    ] {
        let (error, world) = error_of(conduct).await;
        let begin = format!("no access token: {}: ", world.token_url());
        let text = error.to_string();
        assert!(text.starts_with(&begin) && text.contains(words), "{text}");
        assert!(!format!("{text} {error:?}").contains(SECRET), "{error:?}");
    }
}

#[tokio::test]
async fn a_redirection_is_not_followed() {
    let redirect =
        b"HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\nContent-Length: 0\r\n\r\n";
    let (error, world) = error_of(Conduct::Say(redirect.to_vec())).await;
    assert_eq!(https_fault(&error), &HttpsFault::Redirect(302));
    assert_eq!(world.server.requests().len(), 1);
    let text = error.to_string();
    assert!(
        text.ends_with("(compare token_url with the token endpoint that the provider names)"),
        "{text}"
    );
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let body = format!("{{\"x\":\"{}\"}}", "x".repeat(64 * 1024));
    let (error, _) = error_of(json("200 OK", &body)).await;
    assert_eq!(https_fault(&error), &HttpsFault::TooLarge(64 * 1024));
    let (error, _) = error_of(json("400 Bad Request", &body)).await;
    assert_eq!(https_fault(&error), &HttpsFault::TooLarge(64 * 1024));
}

#[tokio::test]
async fn a_slow_server_has_a_time_limit() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_token\":".to_vec();
    for conduct in [Conduct::Hang(Vec::new()), Conduct::Hang(half)] {
        let world = World::new(vec![conduct]).await;
        let source = world.source_within(BY_SECRET, Duration::from_secs(4));
        let error = source.token().await.expect_err("no token");
        assert!(
            matches!(
                https_fault(&error),
                HttpsFault::Timeout {
                    step: HttpsStep::Head | HttpsStep::Body,
                    ..
                }
            ),
            "{error}"
        );
    }
}

/// All that ask share the failure for ten seconds; then one of them asks the server again.
#[tokio::test]
async fn a_server_that_is_down_is_not_hammered() {
    let world = World::new(Vec::new()).await;
    let source = world.source(BY_SECRET);
    let error = source.token().await.expect_err("no answer");
    assert!(
        matches!(https_fault(&error), HttpsFault::Http(_)),
        "{error}"
    );
    world.server.then(token("t1"));
    for _ in 0..20 {
        assert_eq!(source.token().await, Err(error.clone()));
    }
    world.clock.advance(9);
    assert_eq!(source.token().await, Err(error));
    assert_eq!(world.server.requests().len(), 1);
    world.clock.advance(1);
    assert_eq!(source.token().await.expect("a token").secret(), "t1");
}

#[tokio::test]
async fn a_refusal_names_the_remedy() {
    for (status, body, words) in [
        (
            "401 Unauthorized",
            "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000222: The provided client secret keys are expired.\\r\\nTrace ID: 1\"}",
            "refuses with 401 invalid_client: AADSTS7000222: The provided client secret keys are expired. Trace ID: 1 \
             (the client secret has expired: create a new one in Entra ID",
        ),
        (
            "400 Bad Request",
            "{\"error\":\"invalid_request\",\"error_description\":\"AADSTS90002: Tenant 'x' not found.\"}",
            "(token_url names a tenant that does not exist: write the Directory (tenant) ID)",
        ),
        (
            "400 Bad Request",
            "{\"error\":\"invalid_grant\",\"error_description\":\"AADSTS65001: no consent\"}",
            "(grant admin consent in Entra ID under App registrations, API permissions, for SMTP.SendAsApp",
        ),
        (
            "400 Bad Request",
            "{\"error\":\"invalid_scope\"}",
            "refuses with 400 invalid_scope (compare scope with what the provider names",
        ),
        (
            "401 Unauthorized",
            "{\"error\":\"invalid_client\"}",
            "(compare client_id and the secret in client_secret_file",
        ),
    ] {
        let (error, _) = error_of(json(status, body)).await;
        let text = error.to_string();
        assert!(text.contains(words), "{text}");
    }
    let world = World::new(vec![json(
        "400 Bad Request",
        "{\"error\":\"invalid_grant\"}",
    )])
    .await;
    world.write("refresh", "r1");
    let lines = "grant = \"refresh_token\"\nclient_id = \"c\"\nrefresh_token_file = \"refresh\"";
    let error = world.source(lines).token().await.expect_err("no token");
    let text = error.to_string();
    assert!(
        text.contains("(the refresh token is expired or revoked"),
        "{text}"
    );
}

/// A server with a certificate of another authority hears nothing.
#[tokio::test]
async fn secrets_go_to_the_right_server_alone() {
    let world = World::new(vec![token("t1")]).await;
    let other = World::new(Vec::new()).await;
    let settings = world.settings(BY_SECRET);
    let (source, _) = gatepost::net::oauth::TokenSource::load(
        &settings,
        // It trusts another authority, and has another name server with the same names.
        other.https(),
        &world.spool(),
        &world.caches,
    )
    .expect("good files");
    let error = source.token().await.expect_err("no trust");
    assert!(
        matches!(https_fault(&error), HttpsFault::Chain(_)),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .ends_with("name its PEM file in trust of oauth2)"),
        "{error}"
    );
    assert_eq!(world.server.requests().len(), 0);
}
