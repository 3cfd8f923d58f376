//! A message on its way in: where it ends, and whether it is kept.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{OpenTransaction, replies};
use crate::envelope::{Envelope, Notify, Recipient, TlsRequirement};
use crate::smtp::data::{ContentFacts, Decoded, Decoder, Inspector};
use crate::smtp::reply::Reply;

/// Content between its command and its end.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) framing: Framing,
    pub(super) target: ContentTarget,
    /// Octets that may still be dropped: whoever was refused gets a chance to hear of it, not our time without end.
    pub(super) patience: u64,
    /// The last octets that came, as they came.
    pub(super) tail: Vec<u8>,
}

/// Octets of a dot that stands alone in a line, with the line ends around it.
const LONE_DOT_MAX: usize = 4;

/// How its end is told.
#[derive(Debug)]
pub(super) enum Framing {
    /// By CRLF, dot, CRLF.
    Data(Decoder),
    /// By its size.
    Chunk { left: u64, size: u64, last: bool },
}

/// What becomes of it.
#[derive(Debug)]
pub(super) enum ContentTarget {
    /// Kept, as long as nothing is wrong with it; the reply says what is.
    Store { transaction: OpenTransaction, content: Result<Box<Inspector>, Reply> },
    /// Read and dropped, then answered for.
    Drop(Reply),
}

/// What the next octets are.
#[derive(Debug)]
pub(super) enum ContentFlow<'a> {
    More,
    Content(&'a [u8]),
    End,
    /// So much has been dropped that the end is not waited for. The reply is why it was.
    Enough(Reply),
}

impl Framing {
    pub(super) fn data() -> Self {
        Self::Data(Decoder::new())
    }

    pub(super) fn chunk(size: u64, last: bool) -> Self {
        Self::Chunk { left: size, size, last }
    }

    /// The size of this chunk where more of the message is to come.
    pub(super) fn chunk_size_if_more(&self) -> Option<u64> {
        match self {
            Self::Chunk { size, last: false, .. } => Some(*size),
            Self::Chunk { last: true, .. } | Self::Data(_) => None,
        }
    }

    fn unframed<'a>(&mut self, input: &'a [u8]) -> (usize, Decoded<'a>) {
        match self {
            Self::Data(decoder) => decoder.decode(input),
            Self::Chunk { left: 0, .. } => (0, Decoded::End),
            Self::Chunk { .. } if input.is_empty() => (0, Decoded::More),
            Self::Chunk { left, .. } => {
                let size = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= size as u64;
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

    /// The answer to content that was refused, which is due at its end.
    pub(super) fn refusal(&self) -> Option<&Reply> {
        match &self.target {
            ContentTarget::Store { content, .. } => content.as_ref().err(),
            ContentTarget::Drop(refusal) => Some(refusal),
        }
    }

    /// Whether refused content seems to have ended, but with a dot between bare LFs, which ends nothing.
    pub(super) fn seems_over(&self) -> bool {
        let is_data = matches!(self.framing, Framing::Data(_));
        // Were the first of these a CR LF, and the last, it would be the end.
        is_data && self.refusal().is_some() && (self.tail.ends_with(b"\n.\n") || self.tail.ends_with(b"\n.\r\n"))
    }

    pub(super) fn fail(&mut self, reply: Reply) {
        if let ContentTarget::Store { content, .. } = &mut self.target {
            *content = Err(reply);
        }
    }

    /// Takes octets from the front of `input`: good content comes out, whatever else is passed over.
    pub(super) fn take<'a>(&mut self, input: &'a [u8]) -> (usize, ContentFlow<'a>) {
        let (used, flow) = self.flow(input);
        self.tail.extend_from_slice(&input[used.saturating_sub(LONE_DOT_MAX)..used]);
        self.tail.drain(..self.tail.len().saturating_sub(LONE_DOT_MAX));
        (used, flow)
    }

    fn flow<'a>(&mut self, input: &'a [u8]) -> (usize, ContentFlow<'a>) {
        let mut used = 0;
        loop {
            let (more, decoded) = self.framing.unframed(&input[used..]);
            used += more;
            match (decoded, &mut self.target) {
                (Decoded::More, _) => return (used, ContentFlow::More),
                (Decoded::End, _) => return (used, ContentFlow::End),
                (Decoded::Content(octets), ContentTarget::Store { content: content @ Ok(_), .. }) => {
                    match content.as_mut().map(|inspector| inspector.push(octets)) {
                        Ok(Ok(())) => return (used, ContentFlow::Content(octets)),
                        Ok(Err(fault)) => *content = Err(fault.reply()),
                        Err(_) => {}
                    }
                }
                (
                    Decoded::Content(octets),
                    ContentTarget::Store { content: Err(refusal), .. } | ContentTarget::Drop(refusal),
                ) => match self.patience.checked_sub(octets.len() as u64) {
                    Some(left) => self.patience = left,
                    None => return (used, ContentFlow::Enough(refusal.clone())),
                },
            }
        }
    }
}

impl OpenTransaction {
    /// What stands in the way of a message, whoever brings it.
    pub(super) fn fault(&self) -> Option<Reply> {
        match (self.recipients.is_empty(), self.rcpt) {
            (false, _) => None,
            (true, true) => Some(replies::no_valid_recipients()),
            (true, false) => Some(replies::out_of_order("RCPT first")),
        }
    }

    pub(super) fn envelope(self, findings: ContentFacts) -> Envelope {
        let ContentFacts { mut needs, tls, message_id } = findings;
        // Octets above 127 in the header of mail that does not claim to be internationalised are an old
        // habit, not a need: every MTA passes them on as they are.
        needs.utf8_header &= self.from.smtputf8;
        let from = self.from;
        // RFC 8689 §4.1: beside REQUIRETLS the header field counts for nothing.
        let tls = if from.require_tls { TlsRequirement::Require } else { tls };
        Envelope {
            tls,
            body: from.body,
            smtputf8: from.smtputf8,
            needs,
            ret: from.ret,
            envid: from.envid,
            message_id,
            ..Envelope::new(from.reverse_path, each_once(self.recipients))
        }
    }
}

/// The recipients without repetitions: who is named twice gets one copy, and every report that was asked for. The first
/// ORCPT counts.
fn each_once(recipients: Vec<Recipient>) -> Vec<Recipient> {
    let mut once: Vec<Recipient> = Vec::with_capacity(recipients.len());
    let mut places = HashMap::with_capacity(recipients.len());
    for recipient in recipients {
        match places.entry(recipient.mailbox.clone()) {
            Entry::Vacant(place) => {
                place.insert(once.len());
                once.push(recipient);
            }
            Entry::Occupied(place) => {
                let first = &mut once[*place.get()];
                first.notify = Notify::either(first.notify, recipient.notify);
                first.orcpt = first.orcpt.take().or(recipient.orcpt);
            }
        }
    }
    once
}
