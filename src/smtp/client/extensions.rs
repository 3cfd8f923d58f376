//! What a peer can do beyond plain SMTP, as its answer to EHLO says (RFC 5321 §4.1.1.1).

use crate::smtp::reply::Reply;

/// The extensions of a peer that matter to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a keyword of the EHLO answer, independent of the others")]
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
    /// REQUIRETLS (RFC 8689): it hands on under TLS what it takes under this promise, or not at all.
    pub require_tls: bool,
    /// SIZE (RFC 1870).
    pub size: SizeLimit,
}

/// What a peer says of the size of messages (RFC 1870 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SizeLimit {
    /// It does not know the extension.
    #[default]
    NotOffered,
    /// It wants to be told the size, and names no fixed limit.
    NoLimit,
    /// It takes this many octets at most.
    Limit(u64),
}

impl Extensions {
    /// Reads the answer to EHLO. The first line is the peer's name and greeting; keywords may come in
    /// any case and those that are not known here are passed over.
    #[must_use]
    pub fn of(reply: &Reply) -> Self {
        let mut all = Self::default();
        for line in reply.lines().iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "STARTTLS" => all.starttls = true,
                "PIPELINING" => all.pipelining = true,
                "8BITMIME" => all.eight_bit_mime = true,
                "SMTPUTF8" => all.smtputf8 = true,
                "DSN" => all.dsn = true,
                "CHUNKING" => all.chunking = true,
                "REQUIRETLS" => all.require_tls = true,
                "ENHANCEDSTATUSCODES" => all.enhanced_status_codes = true,
                // Zero means "no fixed limit"; so does what cannot be read.
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

    /// What of them counts in clear: REQUIRETLS is promised under TLS or not at all (RFC 8689 §2).
    #[must_use]
    pub fn in_clear(self) -> Self {
        Self { require_tls: false, ..self }
    }
}
