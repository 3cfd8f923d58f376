//! Tests of responses: tokens, refusals, and what is neither.

use bytes::Bytes;

use super::*;

fn answer(status: u16, body: &str) -> HttpsResponse {
    HttpsResponse {
        status,
        content_type: Some("application/json;charset=UTF-8".to_owned()),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn fault_of(status: u16, body: &str) -> TokenFault {
    match parse(&answer(status, body), &[]) {
        Ok(_) => panic!("{body} is no token"),
        Err(fault) => fault,
    }
}

fn lifetime_of(expires_in: &str) -> Result<u64, TokenFault> {
    let body = format!("{{\"access_token\":\"t\",\"token_type\":\"Bearer\"{expires_in}}}");
    parse(&answer(200, &body), &[]).map(|granted| granted.lifetime.as_secs())
}

#[test]
fn a_token_is_read() {
    let granted = parse(
        &answer(
            200,
            r#"{"access_token":"ey.J~-_+/=","token_type":"bearer","expires_in":3599,"refresh_token":"r2","other":[1]}"#,
        ),
        &[],
    )
    .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(granted.token.secret(), "ey.J~-_+/=");
    assert_eq!(granted.lifetime.as_secs(), 3599);
    assert_eq!(granted.refresh_token.expect("one").as_str(), "r2");
    assert_eq!(format!("{:?}", granted.token), "AccessToken");
}

#[test]
fn lifetimes_are_bounded() {
    for (expires_in, lifetime) in [
        ("", Ok(300)),
        (",\"expires_in\":null", Ok(300)),
        (",\"expires_in\":1", Ok(1)),
        (",\"expires_in\":\"3599\"", Ok(3599)),
        (",\"expires_in\":3599.7", Ok(3599)),
        (",\"expires_in\":86401", Ok(86_400)),
        (",\"expires_in\":99999999999999999999999", Ok(86_400)),
        (",\"expires_in\":1e300", Ok(86_400)),
        (",\"expires_in\":0", Err(TokenFault::Expired)),
        (",\"expires_in\":\"0\"", Err(TokenFault::Expired)),
        (",\"expires_in\":-1", Err(TokenFault::Lifetime)),
        (",\"expires_in\":\"-1\"", Err(TokenFault::Lifetime)),
        (",\"expires_in\":\"soon\"", Err(TokenFault::Lifetime)),
        (",\"expires_in\":\"\"", Err(TokenFault::Lifetime)),
        (",\"expires_in\":true", Err(TokenFault::Lifetime)),
        (",\"expires_in\":[3600]", Err(TokenFault::Lifetime)),
    ] {
        assert_eq!(lifetime_of(expires_in), lifetime, "{expires_in}");
    }
}

/// Nothing that could end a line or a field of a login is a token.
#[test]
fn tokens_are_printable_ascii_without_spaces() {
    let long = "x".repeat(TOKEN_MAX + 1);
    for bad in [
        "",
        "a\\r\\nMAIL FROM:<x>",
        "a\\u0001b",
        "a b",
        "ü",
        "a\\u0000",
        "\\u007f",
        &long,
    ] {
        let body = format!("{{\"access_token\":\"{bad}\",\"token_type\":\"Bearer\"}}");
        assert_eq!(fault_of(200, &body), TokenFault::MalformedToken, "{bad}");
        let body = format!(
            "{{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"refresh_token\":\"{bad}\"}}"
        );
        assert_eq!(
            fault_of(200, &body),
            TokenFault::MalformedRefreshToken,
            "{bad}"
        );
    }
    let longest = format!(
        "{{\"access_token\":\"{}\",\"token_type\":\"Bearer\"}}",
        &long[1..]
    );
    assert!(parse(&answer(200, &longest), &[]).is_ok());
}

#[test]
fn what_is_no_token_is_refused() {
    for (status, body, fault) in [
        (200, "{}", TokenFault::NoToken),
        (
            200,
            r#"{"access_token":null,"token_type":"Bearer"}"#,
            TokenFault::NoToken,
        ),
        (
            200,
            r#"{"access_token":["t"],"token_type":"Bearer"}"#,
            TokenFault::NoToken,
        ),
        (200, r#"{"access_token":"t"}"#, TokenFault::TokenType),
        (
            200,
            r#"{"access_token":"t","token_type":"mac"}"#,
            TokenFault::TokenType,
        ),
        (
            500,
            r#"{"access_token":"t","token_type":"Bearer"}"#,
            TokenFault::Status(500),
        ),
        (500, "<html>", TokenFault::Status(500)),
        (400, "", TokenFault::Status(400)),
        (400, "{}", TokenFault::Status(400)),
    ] {
        assert_eq!(fault_of(status, body), fault, "{status} {body}");
    }
    for body in [
        "",
        "<html>secret</html>",
        "[]",
        r#"["t","Bearer",9,null,null,null]"#,
        "\"t\"",
        r#"{"access_token":"t","access_token":"u"}"#,
    ] {
        let html = HttpsResponse {
            content_type: Some("text/html; charset=x".to_owned()),
            ..answer(200, body)
        };
        let fault = parse(&html, &[]).err().expect("no token");
        let content_type = Some("text/html".to_owned());
        assert_eq!(fault, TokenFault::NotJson { content_type }, "{body}");
    }
}

#[test]
fn a_refusal_is_shown_in_the_servers_words_on_one_line() {
    for (status, body, shown) in [
        (
            400,
            r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
            "the token server refuses with 400 invalid_grant: Token has been expired or revoked.",
        ),
        (
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret.\r\nTrace ID: 1\u0007 2"}"#,
            "the token server refuses with 401 invalid_client: AADSTS7000215: Invalid client secret. Trace ID: 1 2",
        ),
        // Some servers answer 200 to everything.
        (
            200,
            r#"{"error":"bad_verification_code"}"#,
            "the token server refuses with 200 bad_verification_code",
        ),
        (
            400,
            r#"{"error":{"code":7}}"#,
            "the token server refuses with 400 no error code",
        ),
    ] {
        assert_eq!(fault_of(status, body).to_string(), shown);
    }
    let long = format!(
        "{{\"error\":\"x\",\"error_description\":\"{}\"}}",
        "é".repeat(5000)
    );
    assert!(fault_of(400, &long).to_string().chars().count() < 500);
}

/// A server that repeats the request in its words puts no secret into a log.
#[test]
fn secrets_are_hidden_in_the_servers_words() {
    let body =
        r#"{"error":"x secret-1","error_description":"client_secret=secret-1&y a%2Bsecret"}"#;
    let secrets = ["secret-1", "a%2Bsecret", "x"].map(|secret| Zeroizing::new(secret.to_owned()));
    let fault = parse(&answer(400, body), &secrets)
        .err()
        .expect("a refusal");
    assert_eq!(
        fault.to_string(),
        "the token server refuses with 400 x [hidden]: client_secret=[hidden]&y [hidden]"
    );
}
