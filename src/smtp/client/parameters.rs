//! MAIL and RCPT with their parameters, as far as the peer offers them: SIZE (RFC 1870), BODY (RFC
//! 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY and ORCPT (RFC 3461), REQUIRETLS (RFC 8689).
//!
//! A message that the peer cannot accept is recognised here, before MAIL is sent.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use crate::smtp::envelope::{BodyType, Envelope, Notify, Recipient, Ret};

use super::Extensions;
use super::extensions::SizeLimit;

/// The longest ORCPT in characters (RFC 3461 §4.2).
const ORCPT_MAX: usize = 500;

/// One message for some of its recipients.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// The envelope.
    pub envelope: &'a Envelope,
    /// The size of the content in octets.
    pub size: u64,
    /// The recipients, as indexes into those of the envelope.
    pub recipients: &'a [usize],
    /// The use of REQUIRETLS.
    pub promise: RequireTlsUse,
}

/// The use of the REQUIRETLS parameter (RFC 8689 §2), by which the peer promises to relay the
/// message under TLS or to return it. The caller must make sure that the session itself satisfies
/// RFC 8689 §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequireTlsUse {
    /// The parameter is not sent.
    Never,
    /// The parameter is sent if the peer offers it, and the message goes without it otherwise (RFC
    /// 8689 §5: a report must not be lost because of it).
    IfOffered,
    /// The parameter is sent, and a peer that does not offer it does not get the message (RFC 8689
    /// §4.2.1).
    Always,
}

/// The reasons why a peer cannot accept a message, known before it is asked.
// Rule: RFC 5321 §4.5.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The message is larger than the peer's limit (RFC 1870 §6.1).
    TooLarge {
        /// The size of the message in octets.
        size: u64,
        /// The peer's limit in octets.
        limit: u64,
    },
    /// The message has addresses or header fields in UTF-8, and the peer does not offer SMTPUTF8
    /// (RFC 6531 §3.2).
    NeedsSmtputf8,
    /// The message has octets above 127, and the peer does not offer 8BITMIME (RFC 6152 §3). It is
    /// not re-encoded, since that would break its signatures.
    NeedsEightBitMime,
    /// The message requires TLS on its whole way, and the peer does not offer REQUIRETLS (RFC 8689
    /// §4.2.1).
    NeedsRequireTls,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size, limit } => {
                write!(f, "the message has {size} octets, and the peer takes {limit} at most (SIZE)")
            }
            Self::NeedsSmtputf8 => f.write_str(
                "the message has an address or a header field in UTF-8, and the peer does not take that (no SMTPUTF8)",
            ),
            Self::NeedsEightBitMime => {
                f.write_str("the message has 8-bit content, and the peer takes 7-bit content only (no 8BITMIME)")
            }
            Self::NeedsRequireTls => f.write_str(
                "the message requires TLS on its whole way, and the peer does not promise that (no REQUIRETLS)",
            ),
        }
    }
}

impl Mail<'_> {
    /// Checks that a peer with these extensions can accept the message as such. For recipients that
    /// need SMTPUTF8 see [`Mail::recipient_fits`].
    ///
    /// # Errors
    /// The first [`Obstacle`].
    pub fn fits(&self, extensions: Extensions) -> Result<(), Obstacle> {
        if self.promise == RequireTlsUse::Always && !extensions.require_tls {
            return Err(Obstacle::NeedsRequireTls);
        }
        if let SizeLimit::Limit(limit) = extensions.size
            && self.size > limit
        {
            return Err(Obstacle::TooLarge {
                size: self.size,
                limit,
            });
        }
        let utf8 = self.envelope.needs.utf8_header || !self.envelope.reverse_path.is_ascii();
        if utf8 && !extensions.smtputf8 {
            return Err(Obstacle::NeedsSmtputf8);
        }
        if self.envelope.needs.eight_bit && !extensions.eight_bit_mime {
            return Err(Obstacle::NeedsEightBitMime);
        }
        Ok(())
    }

    /// Checks that a recipient can be sent to a peer with these extensions.
    ///
    /// # Errors
    /// [`Obstacle::NeedsSmtputf8`].
    pub fn recipient_fits(recipient: &Recipient, extensions: Extensions) -> Result<(), Obstacle> {
        if recipient.mailbox.is_ascii() || extensions.smtputf8 {
            Ok(())
        } else {
            Err(Obstacle::NeedsSmtputf8)
        }
    }

    /// Appends the MAIL command.
    // Rule: RFC 5321 §4.1.1, §4.5.5.
    pub(super) fn write_mail(&self, extensions: Extensions, out: &mut Vec<u8>) {
        let envelope = self.envelope;
        // Writing into a Vec cannot fail.
        let _ = write!(out, "MAIL FROM:<{}>", envelope.reverse_path);
        if extensions.size != SizeLimit::NotOffered {
            let _ = write!(out, " SIZE={}", self.size);
        }
        if extensions.eight_bit_mime
            && (envelope.needs.eight_bit || envelope.body == BodyType::EightBitMime)
        {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        if extensions.smtputf8 && self.uses_utf8() {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if extensions.dsn {
            match envelope.ret {
                Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
                Some(Ret::Hdrs) => out.extend_from_slice(b" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = &envelope.envid {
                let _ = write!(out, " ENVID={envid}");
            }
        }
        // `fits` has excluded a peer without REQUIRETLS if the parameter must be sent.
        match self.promise {
            RequireTlsUse::Never => {}
            RequireTlsUse::IfOffered | RequireTlsUse::Always if !extensions.require_tls => {}
            RequireTlsUse::IfOffered | RequireTlsUse::Always => {
                out.extend_from_slice(b" REQUIRETLS");
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the RCPT command for the recipient at index `at` of the list.
    // Rule: RFC 5321 §4.1.1, §4.1.1.3.
    pub(super) fn write_rcpt(&self, at: usize, extensions: Extensions, out: &mut Vec<u8>) {
        let recipient = &self.envelope.recipients[self.recipients[at]];
        let _ = write!(out, "RCPT TO:<{}>", recipient.mailbox);
        if extensions.dsn {
            match recipient.notify {
                Some(Notify::Never) => out.extend_from_slice(b" NOTIFY=NEVER"),
                Some(Notify::On {
                    success,
                    failure,
                    delay,
                }) => write_notify(success, failure, delay, out),
                None => {}
            }
            if let Some(orcpt) = recipient
                .orcpt
                .as_deref()
                .and_then(|orcpt| self.orcpt(orcpt, extensions))
            {
                let _ = write!(out, " ORCPT={orcpt}");
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Returns ORCPT in the form that may be sent. Without SMTPUTF8, characters outside ASCII are
    /// written as their numbers (`utf-8-addr-xtext`, RFC 6533 §3). `None` if that is longer than
    /// the parameter may be.
    fn orcpt<'a>(&self, orcpt: &'a str, extensions: Extensions) -> Option<Cow<'a, str>> {
        if orcpt.is_ascii() || (extensions.smtputf8 && self.uses_utf8()) {
            return Some(orcpt.into());
        }
        let mut ascii = String::with_capacity(orcpt.len() * 2);
        for c in orcpt.chars() {
            if c.is_ascii() {
                ascii.push(c);
            } else {
                // Writing into a String cannot fail.
                let _ = write!(ascii, "\\x{{{:X}}}", u32::from(c));
            }
        }
        (ascii.len() <= ORCPT_MAX).then_some(ascii.into())
    }

    fn uses_utf8(&self) -> bool {
        let envelope = self.envelope;
        let ascii = |at: &usize| envelope.recipients[*at].mailbox.is_ascii();
        envelope.smtputf8
            || envelope.needs.utf8_header
            || !envelope.reverse_path.is_ascii()
            || !self.recipients.iter().all(ascii)
    }
}

fn write_notify(success: bool, failure: bool, delay: bool, out: &mut Vec<u8>) {
    let mut lead: &[u8] = b" NOTIFY=";
    for (wanted, word) in [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")] {
        if wanted {
            out.extend_from_slice(lead);
            out.extend_from_slice(word.as_bytes());
            lead = b",";
        }
    }
}
