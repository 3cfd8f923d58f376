//! The mechanisms that send an access token: OAUTHBEARER (RFC 7628) and XOAUTH2.

use std::fmt;

use zeroize::Zeroizing;

use super::encode;

/// A mechanism that sends an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TokenMechanism {
    /// XOAUTH2, which was never standardised (Gmail, Exchange Online).
    Xoauth2,
    /// OAUTHBEARER (RFC 7628).
    OauthBearer,
}

impl TokenMechanism {
    /// All mechanisms, the better one last.
    pub const ALL: [Self; 2] = [Self::Xoauth2, Self::OauthBearer];

    /// Returns the registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xoauth2 => "XOAUTH2",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }

    /// Returns the mechanism of a name, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// Returns the initial response, in base64.
    // Rule: RFC 7628 §3.1.
    pub(super) fn response(self, login: &ClientToken) -> Zeroizing<String> {
        let ClientToken {
            user,
            token,
            host,
            port,
        } = login;
        let token = &**token;
        let message = Zeroizing::new(match self {
            Self::Xoauth2 => format!("user={user}\x01auth=Bearer {token}\x01\x01"),
            Self::OauthBearer => {
                let user = user.replace('=', "=3D").replace(',', "=2C");
                format!("n,a={user},\x01host={host}\x01port={port}\x01auth=Bearer {token}\x01\x01")
            }
        });
        Zeroizing::new(encode(message.as_bytes()))
    }

    /// Returns the answer to a challenge that says why the token is refused, in base64; after it, the
    /// server ends the exchange with its reply.
    // Rule: RFC 7628 §3.2.3.
    pub(super) fn answer_to_refusal(self) -> String {
        match self {
            Self::Xoauth2 => String::new(),
            Self::OauthBearer => encode(b"\x01"),
        }
    }
}

/// A user name and access token with which we log in elsewhere, at this server. The token is erased
/// from memory when it is dropped, and never shown.
#[derive(Clone)]
pub struct ClientToken {
    /// The user.
    pub user: String,
    /// The token.
    pub token: Zeroizing<String>,
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Debug for ClientToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientToken")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Returns `status` of the JSON with which a server refuses a token, if it is short and plain.
pub(super) fn refusal_status(challenge: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(challenge).ok()?;
    let status = json.get("status")?;
    let text = match status {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    ((1..=40).contains(&text.len()) && text.chars().all(is_plain)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_short_status_or_none() {
        for (challenge, status) in [
            (
                r#"{"status":"invalid_token","scope":"x"}"#,
                Some("invalid_token"),
            ),
            (r#"{"status":"400","schemes":"Bearer"}"#, Some("400")),
            (r#"{"status":401}"#, Some("401")),
            (r#"{"status":"two words"}"#, None),
            (r#"{"status":["x"]}"#, None),
            ("{}", None),
            ("not JSON", None),
        ] {
            assert_eq!(refusal_status(challenge.as_bytes()).as_deref(), status);
        }
    }

    /// A comma or an equals sign in the name would begin another field (RFC 7628 §3.1).
    #[test]
    fn the_name_of_a_user_is_escaped() {
        let login = ClientToken {
            user: "a=b,c@example.com".to_owned(),
            token: Zeroizing::new("ya29".to_owned()),
            host: "smtp.example.net".to_owned(),
            port: 587,
        };
        let response = TokenMechanism::OauthBearer.response(&login);
        let message = super::super::decode(response.as_bytes()).expect("base64");
        let expected = "n,a=a=3Db=2Cc@example.com,\x01host=smtp.example.net\x01port=587\x01auth=Bearer ya29\x01\x01";
        assert_eq!(std::str::from_utf8(&message), Ok(expected));
    }

    #[test]
    fn a_token_is_never_shown() {
        let login = ClientToken {
            user: "user".to_owned(),
            token: Zeroizing::new("ya29.secret".to_owned()),
            host: "smtp.example.net".to_owned(),
            port: 587,
        };
        assert!(!format!("{login:?}").contains("ya29"));
    }
}
