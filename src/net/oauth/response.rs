//! The responses of a token server (RFC 6749 §5.1, §5.2). A server may send anything: every value is
//! checked before it is used.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::{TokenFault, TokenRefusal};
use crate::net::https::HttpsResponse;

/// The longest token in octets: its login fits in the longest line of AUTH (RFC 4954 §4).
const TOKEN_MAX: usize = 8 * 1024;
/// The lifetime of a token without `expires_in`.
const LIFETIME_DEFAULT: Duration = Duration::from_mins(5);
/// The longest time for which a token is used, whatever the server says.
const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// The most characters of a server's error code and of its description that are shown.
const CODE_MAX: usize = 60;
const DESCRIPTION_MAX: usize = 400;
/// The shortest secret that is searched for in a server's words; a shorter one would hide letters.
const SECRET_MIN: usize = 6;
/// The text that stands for a secret in a server's words.
const HIDDEN: &str = "[hidden]";

/// An access token. Its `Debug` text does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Arc<Zeroizing<String>>);

impl AccessToken {
    /// Returns the token: printable ASCII without spaces.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken")
    }
}

/// A successful response.
pub(super) struct GrantedToken {
    pub(super) token: AccessToken,
    pub(super) lifetime: Duration,
    /// The refresh token that replaces the one that was sent.
    pub(super) refresh_token: Option<Zeroizing<String>>,
}

/// The JSON object of a response, of either kind.
#[derive(Deserialize)]
struct ResponseJson {
    access_token: Option<Value>,
    token_type: Option<Value>,
    expires_in: Option<Value>,
    refresh_token: Option<Value>,
    error: Option<Value>,
    error_description: Option<Value>,
}

/// Reads a response. `secrets` were in the request and are hidden in the server's words.
// Rule: RFC 6749 §5.1, §5.2.
pub(super) fn parse(
    response: &HttpsResponse,
    secrets: &[Zeroizing<String>],
) -> Result<GrantedToken, TokenFault> {
    let is_success = (200..300).contains(&response.status);
    // The errors of the parser quote the text, which may have a token in it.
    let Some(json) = object(&response.body) else {
        return Err(if is_success {
            TokenFault::NotJson {
                content_type: response.content_type.as_deref().map(plain_type),
            }
        } else {
            TokenFault::Status(response.status)
        });
    };
    if let Some(code) = &json.error
        && (!is_success || json.access_token.is_none())
    {
        return Err(TokenFault::Refused(Box::new(refusal(
            response.status,
            code,
            json.error_description.as_ref(),
            secrets,
        ))));
    }
    if !is_success {
        return Err(TokenFault::Status(response.status));
    }
    granted(json)
}

/// Reads a JSON object. An array, which the library would accept for one, is none.
fn object(body: &[u8]) -> Option<ResponseJson> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    serde_json::from_slice(body).ok().filter(|_| is_object)
}

fn granted(json: ResponseJson) -> Result<GrantedToken, TokenFault> {
    let Some(Value::String(token)) = json.access_token else {
        return Err(TokenFault::NoToken);
    };
    let token = Zeroizing::new(token);
    if !is_token(&token) {
        return Err(TokenFault::MalformedToken);
    }
    // Rule: RFC 6749 §7.1.
    if !matches!(&json.token_type, Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer"))
    {
        return Err(TokenFault::TokenType);
    }
    let refresh_token = match json.refresh_token {
        None | Some(Value::Null) => None,
        Some(Value::String(token)) if is_token(&token) => Some(Zeroizing::new(token)),
        Some(_) => return Err(TokenFault::MalformedRefreshToken),
    };
    Ok(GrantedToken {
        token: AccessToken(Arc::new(token)),
        lifetime: lifetime(json.expires_in.as_ref())?,
        refresh_token,
    })
}

/// Checks that a token has no character that could end a line or a field of SASL (RFC 6750 §2.1, RFC
/// 7628 §3.1).
fn is_token(token: &str) -> bool {
    (1..=TOKEN_MAX).contains(&token.len()) && token.bytes().all(|octet| octet.is_ascii_graphic())
}

/// Reads `expires_in`. Some servers write the number as text.
fn lifetime(expires_in: Option<&Value>) -> Result<Duration, TokenFault> {
    let seconds = match expires_in {
        None | Some(Value::Null) => return Ok(LIFETIME_DEFAULT),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(seconds) => Some(seconds),
            // A fraction, or too large for an integer.
            None => number
                .as_f64()
                .filter(|seconds| *seconds >= 1.0)
                .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(LIFETIME_MAX))
                .map(|lifetime| lifetime.as_secs()),
        },
        Some(Value::String(text)) if text.bytes().all(|octet| octet.is_ascii_digit()) => {
            text.parse().ok()
        }
        Some(_) => None,
    };
    match seconds {
        Some(0) => Err(TokenFault::Expired),
        Some(seconds) => Ok(Duration::from_secs(seconds).min(LIFETIME_MAX)),
        None => Err(TokenFault::Lifetime),
    }
}

fn refusal(
    status: u16,
    code: &Value,
    description: Option<&Value>,
    secrets: &[Zeroizing<String>],
) -> TokenRefusal {
    // Some servers put an object here.
    let code = match code {
        Value::String(code) => plain(code, CODE_MAX, secrets),
        _ => String::new(),
    };
    let description = match description {
        Some(Value::String(text)) => plain(text, DESCRIPTION_MAX, secrets),
        _ => String::new(),
    };
    TokenRefusal {
        status,
        code: if code.is_empty() {
            "no error code".to_owned()
        } else {
            code
        },
        description: Some(description).filter(|text| !text.is_empty()),
    }
}

/// Makes one line of printable characters of a server's words, without secrets.
fn plain(text: &str, most: usize, secrets: &[Zeroizing<String>]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= SECRET_MIN) {
        text = text.replace(secret.as_str(), HIDDEN);
    }
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let line = words.join(" ");
    let mut short: String = line.chars().take(most).collect();
    if line.chars().nth(most).is_some() {
        short.push('…');
    }
    short
}

fn plain_type(content_type: &str) -> String {
    plain(
        content_type.split(';').next().unwrap_or_default(),
        CODE_MAX,
        &[],
    )
}

/// Makes a token, for tests.
#[cfg(test)]
pub(super) fn token(secret: &str) -> AccessToken {
    AccessToken(Arc::new(Zeroizing::new(secret.to_owned())))
}

#[cfg(test)]
mod tests;
