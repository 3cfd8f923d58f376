//! The content of one message or chunk while it arrives: its end, and the decision to store or drop
//! it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::replies;
use crate::smtp::command::MailFrom;
use crate::smtp::data::{ContentFacts, Decoded, Decoder, Inspector};
use crate::smtp::envelope::{Envelope, Notify, Recipient, TlsRequirement};
use crate::smtp::reply::Reply;

/// The content between the command that announces it and its end.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) framing: Framing,
    pub(super) target: ContentTarget,
    /// Octets that may still be dropped. The client of a rejected message shall see the reply, but
    /// must not occupy the session without end.
    pub(super) drop_allowance: u64,
    /// The last octets as they arrived, dots included.
    pub(super) tail: Vec<u8>,
}

/// The length of a dot alone in its line, with the line ends around it.
const LONE_DOT_MAX: usize = 4;

/// The way in which the end of the content is marked.
#[derive(Debug)]
pub(super) enum Framing {
    /// DATA: the end is CRLF, dot, CRLF.
    Data(Decoder),
    /// BDAT: the content has `size` octets, of which `remaining` are still to come.
    Chunk {
        remaining: u64,
        size: u64,
        last: bool,
    },
}

/// The use that is made of the content.
#[derive(Debug)]
pub(super) enum ContentTarget {
    /// The content is stored until a fault is found. From then on, `content` holds the reply.
    Store {
        transaction: OpenTransaction,
        content: Result<Box<Inspector>, Reply>,
    },
    /// The content is read and dropped. The reply is sent at its end.
    Drop(Reply),
}

/// The next piece of the content.
#[derive(Debug)]
pub(super) enum ContentFlow<'a> {
    /// Nothing more can be read from this input.
    NeedMore,
    /// Octets to store.
    Content(&'a [u8]),
    /// The end of the message or chunk.
    End,
    /// More octets were dropped than the allowance, and the session ends with this reply.
    TooMuchDropped(Reply),
}

impl Framing {
    pub(super) fn data() -> Self {
        Self::Data(Decoder::new())
    }

    pub(super) fn chunk(size: u64, last: bool) -> Self {
        Self::Chunk {
            remaining: size,
            size,
            last,
        }
    }

    /// Returns the size of this chunk if more chunks must follow.
    pub(super) fn chunk_size_if_more(&self) -> Option<u64> {
        match self {
            Self::Chunk {
                size, last: false, ..
            } => Some(*size),
            Self::Chunk { last: true, .. } | Self::Data(_) => None,
        }
    }

    /// Takes the next octets of content from the front of `input`.
    fn unframe<'a>(&mut self, input: &'a [u8]) -> (usize, Decoded<'a>) {
        match self {
            Self::Data(decoder) => decoder.decode(input),
            Self::Chunk { remaining: 0, .. } => (0, Decoded::End),
            Self::Chunk { .. } if input.is_empty() => (0, Decoded::More),
            Self::Chunk { remaining, .. } => {
                let size = usize::try_from(*remaining)
                    .map_or(input.len(), |remaining| remaining.min(input.len()));
                *remaining -= size as u64;
                (size, Decoded::Content(&input[..size]))
            }
        }
    }
}

impl Incoming {
    pub(super) fn is_storing(&self) -> bool {
        matches!(self.target, ContentTarget::Store { content: Ok(_), .. })
    }

    pub(super) fn transaction(&self) -> Option<&OpenTransaction> {
        match &self.target {
            ContentTarget::Store { transaction, .. } => Some(transaction),
            ContentTarget::Drop(_) => None,
        }
    }

    /// Returns the reply to rejected content, which is sent at the end of the content.
    pub(super) fn refusal(&self) -> Option<&Reply> {
        match &self.target {
            ContentTarget::Store { content, .. } => content.as_ref().err(),
            ContentTarget::Drop(refusal) => Some(refusal),
        }
    }

    /// Returns true if rejected content seems to have ended with a dot between bare LFs, which is
    /// not the end in SMTP.
    pub(super) fn seems_ended(&self) -> bool {
        let is_data = matches!(self.framing, Framing::Data(_));
        // With CR LF on both sides of the dot, the decoder would have found the end.
        is_data
            && self.refusal().is_some()
            && (self.tail.ends_with(b"\n.\n") || self.tail.ends_with(b"\n.\r\n"))
    }

    pub(super) fn reject(&mut self, reply: Reply) {
        if let ContentTarget::Store { content, .. } = &mut self.target {
            *content = Err(reply);
        }
    }

    /// Takes octets from the front of `input`. Returns those to store and drops those of rejected
    /// content.
    pub(super) fn advance<'a>(&mut self, input: &'a [u8]) -> (usize, ContentFlow<'a>) {
        let (used, flow) = self.flow(input);
        self.tail
            .extend_from_slice(&input[used.saturating_sub(LONE_DOT_MAX)..used]);
        self.tail
            .drain(..self.tail.len().saturating_sub(LONE_DOT_MAX));
        (used, flow)
    }

    fn flow<'a>(&mut self, input: &'a [u8]) -> (usize, ContentFlow<'a>) {
        let mut used = 0;
        loop {
            let (more, decoded) = self.framing.unframe(&input[used..]);
            used += more;
            match (decoded, &mut self.target) {
                (Decoded::More, _) => return (used, ContentFlow::NeedMore),
                (Decoded::End, _) => return (used, ContentFlow::End),
                (
                    Decoded::Content(octets),
                    ContentTarget::Store {
                        content: content @ Ok(_),
                        ..
                    },
                ) => match content.as_mut().map(|inspector| inspector.push(octets)) {
                    Ok(Ok(())) => return (used, ContentFlow::Content(octets)),
                    Ok(Err(fault)) => *content = Err(fault.reply()),
                    Err(_) => {}
                },
                (
                    Decoded::Content(octets),
                    ContentTarget::Store {
                        content: Err(refusal),
                        ..
                    }
                    | ContentTarget::Drop(refusal),
                ) => match self.drop_allowance.checked_sub(octets.len() as u64) {
                    Some(remaining) => self.drop_allowance = remaining,
                    None => return (used, ContentFlow::TooMuchDropped(refusal.clone())),
                },
            }
        }
    }
}

impl OpenTransaction {
    /// Returns the reply if no content may follow yet.
    pub(super) fn fault(&self) -> Option<Reply> {
        match (self.recipients.is_empty(), self.has_rcpt) {
            (false, _) => None,
            (true, true) => Some(replies::no_valid_recipients()),
            (true, false) => Some(replies::out_of_order("RCPT first")),
        }
    }

    /// Returns the envelope of the message.
    pub(super) fn envelope(self, facts: ContentFacts) -> Envelope {
        let ContentFacts {
            mut needs,
            tls,
            message_id,
        } = facts;
        // Octets above 127 in the header of mail without SMTPUTF8 are common and no reason to
        // require SMTPUTF8 from the next hop: all MTAs pass them on unchanged.
        needs.utf8_header &= self.from.smtputf8;
        let from = self.from;
        // RFC 8689 §4.1: REQUIRETLS overrides the header field TLS-Required.
        let tls = if from.require_tls {
            TlsRequirement::Require
        } else {
            tls
        };
        Envelope {
            tls,
            body: from.body,
            smtputf8: from.smtputf8,
            needs,
            ret: from.ret,
            envid: from.envid,
            message_id,
            ..Envelope::new(from.reverse_path, merge_duplicates(self.recipients))
        }
    }
}

/// Merges recipients that were named more than once: they get one copy, and every report that was
/// asked for. The first ORCPT counts.
fn merge_duplicates(recipients: Vec<Recipient>) -> Vec<Recipient> {
    let mut once: Vec<Recipient> = Vec::with_capacity(recipients.len());
    let mut indexes = HashMap::with_capacity(recipients.len());
    for recipient in recipients {
        match indexes.entry(recipient.mailbox.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(once.len());
                once.push(recipient);
            }
            Entry::Occupied(entry) => {
                let first = &mut once[*entry.get()];
                first.notify = Notify::either(first.notify, recipient.notify);
                first.orcpt = first.orcpt.take().or(recipient.orcpt);
            }
        }
    }
    once
}

/// The transaction that MAIL has opened.
#[derive(Debug)]
pub(super) struct OpenTransaction {
    pub(super) from: MailFrom,
    pub(super) recipients: Vec<Recipient>,
    /// True once a RCPT command has come, accepted or not.
    pub(super) has_rcpt: bool,
    /// RCPT commands over the limit or rejected with 4xx.
    pub(super) overshoot: u32,
    pub(super) progress: ContentProgress,
}

/// The progress of a transaction's content.
#[derive(Debug)]
pub(super) enum ContentProgress {
    /// No content has come.
    Envelope,
    /// BDAT chunks have come, but not the last one.
    Chunks(Box<Inspector>),
    /// A chunk was rejected. The client must send RSET (RFC 3030 §2).
    Failed,
}
