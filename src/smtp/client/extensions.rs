//! The extensions in a peer's answer to EHLO (RFC 5321 §4.1.1.1).

use crate::smtp::reply::Reply;
use crate::smtp::sasl::{Mechanism, OfferedMechanisms, TokenMechanism};

/// The extensions that Gatepost uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a property of the peer, independent of the others"
)]
// Rule: RFC 5321 §4.1.1.1.
pub struct Extensions {
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// REQUIRETLS (RFC 8689): the peer relays such messages under TLS, or not at all.
    pub require_tls: bool,
    /// SIZE (RFC 1870).
    pub size: SizeLimit,
    /// AUTH (RFC 4954).
    pub auth: AuthOffer,
    /// True if the peer speaks LMTP: it replies to the content for each recipient (RFC 2033 §4.2).
    pub lmtp: bool,
}

/// The size limit that a peer announces (RFC 1870 §4).
// Rule: RFC 5321 §4.5.3.1.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SizeLimit {
    /// SIZE is not offered.
    #[default]
    NotOffered,
    /// SIZE is offered without a fixed limit.
    NoLimit,
    /// Messages may have this number of octets.
    Limit(u64),
}

/// The mechanisms by which a peer lets us log in (RFC 4954 §3).
// Rule: RFC 4954 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuthOffer {
    /// True if the peer offers AUTH, with whatever mechanisms.
    pub is_offered: bool,
    /// The mechanisms with a password that we know.
    pub passwords: OfferedMechanisms,
    /// The better one of the mechanisms with an access token.
    pub token: Option<TokenMechanism>,
}

impl AuthOffer {
    /// Adds the mechanisms of one line. Some servers list them twice, the second time as `AUTH=`,
    /// for clients of a draft.
    fn with<'w>(self, words: impl Iterator<Item = &'w str>) -> Self {
        let (mut all, mut token): (Vec<_>, _) = (self.passwords.iter().collect(), self.token);
        for word in words {
            all.extend(Mechanism::parse(word));
            token = token.max(TokenMechanism::parse(word));
        }
        Self {
            is_offered: true,
            passwords: OfferedMechanisms::of(&all),
            token,
        }
    }

    /// Returns the names of the mechanisms that we have, the strongest first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let passwords = self.passwords;
        let token = self.token.map(TokenMechanism::name);
        Mechanism::ALL
            .into_iter()
            .filter(move |mechanism| passwords.contains(*mechanism))
            .map(Mechanism::name)
            .chain(token)
    }
}

impl Extensions {
    /// Reads the answer to EHLO. Its first line has the peer's name. Keywords are accepted in any
    /// case; unknown ones are ignored.
    #[must_use]
    pub fn of(reply: &Reply) -> Self {
        let mut all = Self::default();
        for line in reply.lines().iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else {
                continue;
            };
            match keyword.to_ascii_uppercase().as_str() {
                "STARTTLS" => all.starttls = true,
                "PIPELINING" => all.pipelining = true,
                "8BITMIME" => all.eight_bit_mime = true,
                "SMTPUTF8" => all.smtputf8 = true,
                "DSN" => all.dsn = true,
                "CHUNKING" => all.chunking = true,
                "REQUIRETLS" => all.require_tls = true,
                "ENHANCEDSTATUSCODES" => all.enhanced_status_codes = true,
                "AUTH" => all.auth = all.auth.with(words),
                keyword if keyword.starts_with("AUTH=") => {
                    all.auth = all
                        .auth
                        .with(keyword["AUTH=".len()..].split(' ').chain(words));
                }
                // Zero means "no fixed limit". So does an unreadable number.
                "SIZE" => {
                    all.size = match words.next().and_then(|limit| limit.parse().ok()) {
                        None | Some(0) => SizeLimit::NoLimit,
                        Some(limit) => SizeLimit::Limit(limit),
                    }
                }
                _ => {}
            }
        }
        all
    }

    /// Returns the extensions that count in the clear: REQUIRETLS is offered only under TLS (RFC
    /// 8689 §2), and we log in only under TLS.
    #[must_use]
    pub fn in_clear(self) -> Self {
        Self {
            require_tls: false,
            auth: AuthOffer::default(),
            ..self
        }
    }
}
