//! What is said of one message: MAIL and RCPT with their parameters, as far as the peer knows them.
//!
//! SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY and ORCPT (RFC 3461),
//! REQUIRETLS (RFC 8689).
//! And what stands in the way: a message that the peer cannot take is known before MAIL is said.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use crate::envelope::{BodyType, Envelope, Notify, Recipient, Ret};

use super::Extensions;
use super::extensions::SizeLimit;

/// Characters in ORCPT, at most (RFC 3461 §4.2).
const ORCPT_MAX: usize = 500;

/// One message for some of its recipients.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// Octets of its content.
    pub size: u64,
    /// For which recipients of the envelope, by index.
    pub recipients: &'a [usize],
    /// Whether the peer must take it under REQUIRETLS.
    pub promise: RequireTlsUse,
}

/// What a peer is asked to promise with REQUIRETLS (RFC 8689 §2): that the message goes on under TLS, or
/// comes back. It is asked only where the session itself is as RFC 8689 §2 wants it, which is not for
/// the dialogue to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequireTlsUse {
    /// Nothing: the parameter is not said.
    Never,
    /// Asked for where the peer offers it. The message goes without it, too (RFC 8689 §5: a report is
    /// not lost for want of it).
    IfOffered,
    /// The message goes under it, or not to this peer (RFC 8689 §4.2.1).
    Always,
}

/// Why a peer cannot take a message, although it was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It is larger than the peer's limit (RFC 1870 §6.1).
    TooLarge {
        /// Octets it has.
        size: u64,
        /// Octets the peer takes.
        limit: u64,
    },
    /// It has addresses or header fields in UTF-8, and the peer has no SMTPUTF8 (RFC 6531 §3.2).
    NeedsSmtputf8,
    /// It has octets above 127, and the peer has no 8BITMIME (RFC 6152 §3). It is not re-encoded: that
    /// would break its signatures.
    NeedsEightBitMime,
    /// It requires TLS on its whole way, and the peer does not promise that (RFC 8689 §4.2.1).
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
    /// Whether the message as such can go to a peer with these extensions. Recipients that need
    /// SMTPUTF8 are for [`Mail::recipient_fits`].
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
            return Err(Obstacle::TooLarge { size: self.size, limit });
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

    /// Whether a recipient can be named to a peer with these extensions.
    ///
    /// # Errors
    /// [`Obstacle::NeedsSmtputf8`].
    pub fn recipient_fits(recipient: &Recipient, extensions: Extensions) -> Result<(), Obstacle> {
        if recipient.mailbox.is_ascii() || extensions.smtputf8 { Ok(()) } else { Err(Obstacle::NeedsSmtputf8) }
    }

    /// Appends the MAIL command.
    pub(super) fn write_mail(&self, extensions: Extensions, out: &mut Vec<u8>) {
        let envelope = self.envelope;
        // Writing into a Vec cannot fail.
        let _ = write!(out, "MAIL FROM:<{}>", envelope.reverse_path);
        if extensions.size != SizeLimit::NotOffered {
            let _ = write!(out, " SIZE={}", self.size);
        }
        if extensions.eight_bit_mime && (envelope.needs.eight_bit || envelope.body == BodyType::EightBitMime) {
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
        // A message that needs it does not fit a peer that does not offer it.
        match self.promise {
            RequireTlsUse::Never => {}
            RequireTlsUse::IfOffered | RequireTlsUse::Always if !extensions.require_tls => {}
            RequireTlsUse::IfOffered | RequireTlsUse::Always => out.extend_from_slice(b" REQUIRETLS"),
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the RCPT command for the recipient at this place of the list.
    pub(super) fn write_rcpt(&self, at: usize, extensions: Extensions, out: &mut Vec<u8>) {
        let recipient = &self.envelope.recipients[self.recipients[at]];
        let _ = write!(out, "RCPT TO:<{}>", recipient.mailbox);
        if extensions.dsn {
            match recipient.notify {
                Some(Notify::Never) => out.extend_from_slice(b" NOTIFY=NEVER"),
                Some(Notify::On { success, failure, delay }) => write_notify(success, failure, delay, out),
                None => {}
            }
            if let Some(orcpt) = recipient.orcpt.as_deref().and_then(|orcpt| self.orcpt(orcpt, extensions)) {
                let _ = write!(out, " ORCPT={orcpt}");
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// ORCPT in the form that may be said: where SMTPUTF8 is not, characters beyond ASCII are named by their numbers
    /// (`utf-8-addr-xtext`, RFC 6533 §3). `None` where that is longer than the parameter may be.
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
