//! Delivery status notifications: what the sender of a message that failed is told (RFC 3464, in the
//! frame of RFC 6522; UTF-8 as in RFC 6533; REQUIRETLS as in RFC 8689 §5).
//!
//! This module writes text from values. Whether anything has failed is decided in
//! [`crate::failure`]; storing and sending the report is the scheduler's affair.
//!
//! A report must pass where its message did not. So it has seven bits and short lines (`encode`) unless its
//! addressee can only be reached by hosts that take eight, and what cannot be returned in that form is left out.
//! A host that refuses it all the same gets its text alone (`text_only`).

mod digest;
mod encode;
mod text_only;

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::address::{Domain, Mailbox, ReversePath};
use crate::envelope::{
    BodyType, Envelope, Notify, Origin, QueueId, Recipient, ReportForm, Ret, TlsRequirement, Trouble,
};
pub use digest::{DigestEntry, Excerpt, write_digest};
use encode::{from_xtext, passes, quoted_printable, seven_bit_orcpt, utf8_xtext};
pub use text_only::{RejectedReport, write_text_only};

/// Octets of a message that is returned whole, at most; of a larger one its header fields are.
pub const WHOLE_MESSAGE_MAX: u64 = 50 * 1024;
/// Characters of a peer's answer that a field quotes, at most.
const QUOTE_MAX: usize = 900;
/// Characters of a reason that the text for people tells, at most.
const REASON_MAX: usize = 2500;
/// Octets that the reasons of all recipients take in one part of a report, as long as each has [`REASON_MIN`].
const REASONS_MAX: usize = 64 * 1024;
/// Characters of a reason that are told however many recipients there are.
const REASON_MIN: usize = 120;
/// Where lines are folded, if they can be (RFC 5322 §2.1.1).
const LINE_LENGTH: usize = 76;
/// Octets of a word that is not broken: a line may have 998 (RFC 5321 §4.5.3.1.6).
const WORD_MAX: usize = 900;

/// What a report tells of its recipients: all of one report share it (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Still being tried, until this time; without one, kept until an operator decides.
    Delayed(Option<Timestamp>),
    /// Handed to a host that sends no reports of success (RFC 3461 §5.2.2).
    Relayed,
}

/// A recipient, and what became of it.
#[derive(Debug, Clone)]
pub struct ReportedRecipient<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// What happened last; for [`Action::Relayed`] with a status of success.
    pub last: &'a Trouble,
}

/// Everything that a report is about.
#[derive(Debug, Clone)]
pub struct ReportContext<'a> {
    /// Our name.
    pub hostname: &'a Domain,
    /// The failed message.
    pub id: QueueId,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// The present.
    pub now: Timestamp,
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// How much of it is returned, at most; see [`content_to_return`].
    pub returned: ReturnedContent,
    /// The whole message, or a front of it that has its header fields.
    pub original: &'a [u8],
}

/// How much of the message goes into its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReturnedContent {
    /// All of it.
    Full,
    /// Its header fields.
    Headers,
    /// Nothing: it is damaged.
    Nothing,
}

/// A report and its envelope.
#[derive(Debug, Clone)]
pub struct ReportMessage {
    /// Its header and its parts.
    pub content: Vec<u8>,
    /// To whom, under the null reverse-path (RFC 5321 §4.5.5).
    pub envelope: Envelope,
}

/// Whether somebody wants to be told this of a recipient (RFC 3461 §4.1). Who said nothing is told of
/// failures and delays.
#[must_use]
pub fn is_requested(sender: &ReversePath, recipient: &Recipient, action: Action) -> bool {
    match (sender, recipient.notify, action) {
        // Our own postmaster is told that a report was lost, and nothing else; its NOTIFY=NEVER is for others.
        (ReversePath::Null, _, action) => action == Action::Failed,
        (ReversePath::Mailbox(_), None, Action::Failed | Action::Delayed(_)) => true,
        (ReversePath::Mailbox(_), None, Action::Relayed) | (_, Some(Notify::Never), _) => false,
        (_, Some(Notify::On { failure, .. }), Action::Failed) => failure,
        (_, Some(Notify::On { delay, .. }), Action::Delayed(_)) => delay,
        (_, Some(Notify::On { success, .. }), Action::Relayed) => success,
    }
}

/// Returns how much of a message of `size` octets is returned. Where a connector forced TLS, its content must not travel
/// back over a way that was not held to the same demand. Where the message itself required that, RET=FULL counts for
/// nothing (RFC 8689 §5); nor does it where a stranger brought the message: its sender may never have seen it.
#[must_use]
pub fn content_to_return(action: Action, envelope: &Envelope, size: u64) -> ReturnedContent {
    let confidential = envelope.confidential || envelope.tls == TlsRequirement::Require;
    let is_withheld = confidential || envelope.origin == Origin::Stranger;
    match (action, envelope.ret) {
        // A message that is not lost need not come back.
        (Action::Delayed(_) | Action::Relayed, _) | (Action::Failed, Some(Ret::Hdrs)) => ReturnedContent::Headers,
        (Action::Failed, Some(Ret::Full) | None) if is_withheld || size > WHOLE_MESSAGE_MAX => ReturnedContent::Headers,
        (Action::Failed, Some(Ret::Full) | None) => ReturnedContent::Full,
    }
}

/// The header fields at the front of a message. They end at the first line that is none, whether it is
/// empty or not: what a client sends without a header must not pass for one.
#[must_use]
pub fn header_fields(message: &[u8]) -> &[u8] {
    let is_name = |octet: &u8| (b'!'..=b'~').contains(octet) && *octet != b':';
    let mut end = 0;
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        let name = line.iter().take_while(|octet| is_name(octet)).count();
        let continues = end > 0 && matches!(line.first(), Some(b' ' | b'\t'));
        if !line.ends_with(b"\r\n") || !(continues || (name > 0 && line[name] == b':')) {
            break;
        }
        end += line.len();
    }
    &message[..end]
}

/// Writes a report. `report` is the id of the new message.
#[must_use]
pub fn write(
    about: &ReportContext<'_>,
    action: Action,
    told: &[ReportedRecipient<'_>],
    to: &Mailbox,
    report: QueueId,
) -> ReportMessage {
    // Mail for an address beyond ASCII goes under SMTPUTF8 alone, and that comes with 8BITMIME (RFC 6531 §3.1).
    let mut parts = MultipartBody::new(report, !to.is_ascii());
    parts.add("text/plain; charset=utf-8", explanation(about, action, told).as_bytes());
    let (kind, status) = status_part(about, action, told, parts.wide);
    parts.add(kind, status.as_bytes());
    returned_part(about, parts.wide).into_iter().for_each(|(kind, returned)| parts.add(kind, returned));

    let subject = match action {
        Action::Failed => "Undelivered mail returned to sender",
        Action::Delayed(Some(_)) => "Delayed mail (still being retried)",
        Action::Delayed(None) => "Delayed mail (held by the relay)",
        Action::Relayed => "Mail was passed on",
    };
    let mut content = header(about.hostname, about.now, to, subject, report).into_bytes();
    // RFC 8689 §5: what is told of such a message is protected as the message was. That a sender cared
    // little for the recipient's policy (TLS-Required: No) says nothing of the policy of its own domain.
    let tls = match about.envelope.tls {
        TlsRequirement::Require => TlsRequirement::Require,
        TlsRequirement::Ordinary | TlsRequirement::Relaxed => TlsRequirement::Ordinary,
    };
    let envelope = report_envelope(to, tls, parts.eight_bit, ReportForm::Full);
    parts.finish("multipart/report; report-type=delivery-status", &mut content);
    ReportMessage { content, envelope }
}

/// The envelope of a report.
fn report_envelope(to: &Mailbox, tls: TlsRequirement, eight_bit: bool, form: ReportForm) -> Envelope {
    let recipient = Recipient { notify: Some(Notify::Never), ..Recipient::new(to.clone()) };
    let mut envelope = Envelope::new(ReversePath::Null, vec![recipient]);
    envelope.tls = tls;
    envelope.report = Some(form);
    envelope.needs.eight_bit = eight_bit;
    envelope.needs.utf8_header = !to.is_ascii();
    envelope.smtputf8 = !to.is_ascii();
    if eight_bit {
        envelope.body = BodyType::EightBitMime;
    }
    envelope
}

// Writing into a String cannot fail, so the results of `write!` are dropped below.

/// The parts of a report, written one after the other.
struct MultipartBody {
    boundary: String,
    /// Whether the path is known to take eight bits.
    wide: bool,
    eight_bit: bool,
    octets: Vec<u8>,
}

impl MultipartBody {
    fn new(report: QueueId, wide: bool) -> Self {
        Self { boundary: boundary(report), wide, eight_bit: false, octets: Vec::new() }
    }

    /// Adds a part, encoded where it does not pass as it is.
    fn add(&mut self, kind: &str, content: &[u8]) {
        let as_it_is = passes(content, self.wide);
        let eight_bit = as_it_is && !content.is_ascii();
        let encoding = match (as_it_is, eight_bit) {
            (false, _) => "Content-Transfer-Encoding: quoted-printable\r\n",
            (true, true) => "Content-Transfer-Encoding: 8bit\r\n",
            (true, false) => "",
        };
        let head = format!("\r\n--{}\r\nContent-Type: {kind}\r\n{encoding}\r\n", self.boundary);
        self.octets.extend_from_slice(head.as_bytes());
        if as_it_is {
            self.octets.extend_from_slice(content);
        } else {
            self.octets.extend_from_slice(&quoted_printable(content));
        }
        self.eight_bit |= eight_bit;
    }

    /// Adds a part of seven bits that has its header.
    fn add_whole(&mut self, part: &str) {
        self.octets.extend_from_slice(format!("\r\n--{}\r\n{part}", self.boundary).as_bytes());
    }

    /// Appends the rest of the header, and the parts.
    fn finish(self, kind: &str, out: &mut Vec<u8>) {
        let Self { boundary, eight_bit, octets, .. } = self;
        // MultipartBody of eight bits make the whole one of eight bits (RFC 2045 §6.4).
        let encoding = if eight_bit { "Content-Transfer-Encoding: 8bit\r\n" } else { "" };
        let head = format!(
            "Content-Type: {kind};\r\n\tboundary=\"{boundary}\"\r\n{encoding}\r\n\
             This is a MIME-encapsulated message.\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&octets);
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    }
}

/// What stands between the parts of the report of this name.
fn boundary(report: QueueId) -> String {
    format!("=_gatepost_{report}")
}

/// The header of a report, without the fields about its content.
fn header(host: &Domain, now: Timestamp, to: &Mailbox, subject: &str, report: QueueId) -> String {
    format!(
        "Date: {}\r\n\
         From: Mail Delivery System <mailer-daemon@{host}>\r\n\
         To: <{to}>\r\n\
         Subject: {subject}\r\n\
         Message-ID: <{report}@{host}>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n",
        date(now)
    )
}

/// What is returned, and its content type: less than what may be, where that does not pass.
fn returned_part<'a>(about: &ReportContext<'a>, wide: bool) -> Option<(&'static str, &'a [u8])> {
    Some(match (about.returned, about.envelope.needs.utf8_header) {
        (ReturnedContent::Nothing, _) => return None,
        // RFC 6532 §3.7, RFC 6533 §6: these kinds may be encoded.
        (ReturnedContent::Full, true) => ("message/global", about.original),
        (ReturnedContent::Headers, true) => ("message/global-headers", header_fields(about.original)),
        // RFC 2046 §5.2.1: this one may not.
        (ReturnedContent::Full, false) if passes(about.original, wide) => ("message/rfc822", about.original),
        (_, false) => ("text/rfc822-headers", header_fields(about.original)),
    })
}

/// The part for people.
fn explanation(about: &ReportContext<'_>, action: Action, told: &[ReportedRecipient<'_>]) -> String {
    let mut out = format!("This is the mail relay at {}.\r\n\r\n", about.hostname);
    match action {
        Action::Failed => out.push_str(
            "Your message could not be delivered to the recipients below, and will not\r\n\
             be tried again.",
        ),
        Action::Delayed(None) => out.push_str(
            "Your message could not be delivered to the recipients below. It is kept here\r\n\
             until an administrator of the relay decides about it.",
        ),
        Action::Delayed(Some(until)) => {
            let _ = write!(
                out,
                "THIS IS A WARNING ONLY. YOU NEED NOT SEND YOUR MESSAGE AGAIN.\r\n\r\n\
                 Your message could not be delivered yet to the recipients below. It is tried\r\n\
                 again until {}.",
                date(until)
            );
        }
        Action::Relayed => out.push_str(
            "Your message was passed on for the recipients below. The host that took it\r\n\
             does not tell senders of success, so this may be the last that you hear.",
        ),
    }
    let _ = write!(out, "\r\nIt was accepted here on {}\r\nas {}.\r\n", date(about.accepted), about.id);
    if about.returned == ReturnedContent::Nothing {
        out.push_str("It cannot be returned, since\r\nits content was damaged on the disk of the relay.\r\n");
    }
    let most = reason_max(REASON_MAX, told.len());
    for told in told {
        let _ = write!(out, "\r\n<{}>:\r\n", told.recipient.mailbox);
        fold(&mut out, "    ", "    ", &quote(&told.last.text, most));
    }
    if told.iter().any(|told| told.last.status.status().0 == 7) {
        out.push_str(
            "\r\nA security policy of this relay or of the recipient's does not allow the\r\n\
             message to go the way that was found. Sending it again will not help; the\r\n\
             administrators of the two sides can. Please show them this report.\r\n",
        );
    }
    out
}

/// The part for programs, and its content type. Addresses beyond ASCII have a form of seven bits, and a kind of
/// their own that may be encoded, for paths of eight bits and for where that form makes too long a line (RFC 6533).
fn status_part(
    about: &ReportContext<'_>,
    action: Action,
    told: &[ReportedRecipient<'_>],
    wide: bool,
) -> (&'static str, String) {
    let beyond_ascii = told.iter().any(|ReportedRecipient { recipient, .. }| {
        !recipient.mailbox.is_ascii() || recipient.orcpt.as_ref().is_some_and(|orcpt| !orcpt.is_ascii())
    });
    if !(wide && beyond_ascii) {
        let status = status(about, action, told, false);
        if passes(status.as_bytes(), false) {
            return ("message/delivery-status", status);
        }
    }
    ("message/global-delivery-status", status(about, action, told, true))
}

/// The fields of that part (RFC 3464 §2); `global`: with characters beyond ASCII as they are.
fn status(about: &ReportContext<'_>, action: Action, told: &[ReportedRecipient<'_>], global: bool) -> String {
    let mut out = String::new();
    if let Some(envid) = &about.envelope.envid {
        let _ = write!(out, "Original-Envelope-Id: {}\r\n", from_xtext(envid));
    }
    let _ = write!(out, "Reporting-MTA: dns; {}\r\nArrival-Date: {}\r\n", about.hostname, date(about.accepted));
    let most = reason_max(QUOTE_MAX, told.len());
    for told in told {
        recipient_fields(&mut out, action, told, most, global);
    }
    out
}

/// The characters of a reason that are told of each of so many recipients; `most` of one.
fn reason_max(most: usize, recipients: usize) -> usize {
    (REASONS_MAX / recipients.max(1)).clamp(REASON_MIN, most)
}

/// The fields about one recipient (RFC 3464 §2.3); `most` characters of the reason.
fn recipient_fields(out: &mut String, action: Action, told: &ReportedRecipient<'_>, most: usize, global: bool) {
    let ReportedRecipient { recipient, last } = told;
    out.push_str("\r\n");
    if let Some((kind, address)) = recipient.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';')) {
        let address = match (kind.eq_ignore_ascii_case("utf-8"), global) {
            (true, true) => address.into(),
            (true, false) => seven_bit_orcpt(address),
            (false, _) => from_xtext(address).into(),
        };
        let _ = write!(out, "Original-Recipient: {kind}; {address}\r\n");
    }
    let address = recipient.mailbox.to_string();
    let (kind, address) = match (address.is_ascii(), global) {
        (true, _) => ("rfc822", address),
        (false, true) => ("utf-8", address),
        (false, false) => ("utf-8", utf8_xtext(&address)),
    };
    let action_word = match action {
        Action::Failed => "failed",
        Action::Delayed(_) => "delayed",
        Action::Relayed => "relayed",
    };
    let _ = write!(out, "Final-Recipient: {kind}; {address}\r\nAction: {action_word}\r\nStatus: {}\r\n", last.status);
    if let Some(host) = &last.host {
        let _ = write!(out, "Remote-MTA: dns; {host}\r\n");
    }
    let (kind, said) = match &last.reply {
        Some(reply) => ("smtp", reply.to_string()),
        None => ("x-gatepost", last.text.clone()),
    };
    let said = quote(&said, most);
    let said = if global { said } else { said.replace(|c: char| !c.is_ascii(), "?") };
    fold(out, &format!("Diagnostic-Code: {kind}; "), "\t", &said);
    let _ = write!(out, "Last-Attempt-Date: {}\r\n", date(last.at));
    if let Action::Delayed(Some(until)) = action {
        let _ = write!(out, "Will-Retry-Until: {}\r\n", date(until));
    }
}

fn date(at: Timestamp) -> String {
    let utc = at.to_zoned_datetime(jiff::tz::TimeZone::UTC);
    rfc2822::to_string(&utc).unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned())
}

/// Somebody's words, without control characters and not without end.
fn quote(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Writes words over as many lines as they need.
fn fold(out: &mut String, first: &str, next: &str, text: &str) {
    let mut room = LINE_LENGTH.saturating_sub(first.len());
    out.push_str(first);
    for (at, word) in text.split_whitespace().flat_map(pieces).enumerate() {
        if at > 0 && word.len() >= room {
            out.push_str("\r\n");
            out.push_str(next);
            room = LINE_LENGTH.saturating_sub(next.len());
        } else if at > 0 {
            out.push(' ');
            room = room.saturating_sub(1);
        }
        out.push_str(word);
        room = room.saturating_sub(word.len());
    }
    out.push_str("\r\n");
}

/// A word, in pieces where it is too long for any line.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let (piece, more) = rest.split_at(rest.floor_char_boundary(WORD_MAX));
        rest = more;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests;
