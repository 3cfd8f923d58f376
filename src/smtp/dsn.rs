//! Delivery status notifications, the reports to the sender of a message (RFC 3464, within the
//! multipart/report of RFC 6522; UTF-8: RFC 6533; REQUIRETLS: RFC 8689 §5).
//!
//! This module only writes the text. [`crate::policy::failure`] decides what has failed, and the
//! scheduler stores and sends the report.
//!
//! A report must pass where its message did not. It therefore has 7-bit content and short lines
//! (`encode`), unless its addressee can only be reached through servers with 8BITMIME. Original
//! content that cannot be returned in that form is left out. If a server rejects the report
//! nevertheless, its text is sent alone (`text_only`).

mod digest;
mod encode;
mod set_aside;
mod text_only;
mod user_notice;

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::smtp::address::{Domain, Mailbox, ReversePath};
use crate::smtp::envelope::{
    AttemptFailure, BodyType, ClientOrigin, Envelope, Notify, QueueId, Recipient, ReportForm, Ret,
    TlsRequirement,
};
pub use digest::{DigestEntry, Excerpt, write_digest};
use encode::{
    fold, from_xtext, passes_unencoded, quote, quoted_printable, seven_bit_orcpt, utf8_xtext,
};
pub use set_aside::{QuarantinedMessage, write_quarantine_report};
pub use text_only::{RejectedReport, write_text_only};
pub use user_notice::{UserNotice, write_user_notice};

/// The largest message, in octets, that is returned in full. Of a larger one only the header fields
/// are returned.
pub const FULL_RETURN_MAX: u64 = 50 * 1024;
/// The most characters of a peer's reply that Diagnostic-Code quotes.
const QUOTE_MAX: usize = 900;
/// The most characters of a reason in the part for people.
const REASON_MAX: usize = 2500;
/// The maximum number of octets of all reasons in one part of a report, as long as each reason has
/// [`REASON_MIN`] characters.
const REASONS_MAX: usize = 64 * 1024;
/// The least number of characters that each reason gets, even with many recipients.
const REASON_MIN: usize = 120;

/// The action that a report announces. All recipients of one report share it (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Delivery has failed for good.
    Failed,
    /// Delivery is retried until this time. `None`: the message is held until an operator releases
    /// it.
    Delayed(Option<Timestamp>),
    /// The message was relayed to a server that sends no reports of success (RFC 3461 §5.2.2).
    Relayed,
}

/// A recipient of a report and its result.
#[derive(Debug, Clone)]
pub struct ReportedRecipient<'a> {
    /// The recipient.
    pub recipient: &'a Recipient,
    /// The last attempt's result. For [`Action::Relayed`] it has a status of success.
    pub last: &'a AttemptFailure,
}

/// The message that a report is about, and the circumstances.
#[derive(Debug, Clone)]
pub struct ReportContext<'a> {
    /// The name of this host.
    pub hostname: &'a Domain,
    /// The id of the message.
    pub id: QueueId,
    /// The time at which it was accepted.
    pub accepted: Timestamp,
    /// The current time.
    pub now: Timestamp,
    /// The address of the relay's administrators.
    pub postmaster: &'a Mailbox,
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// The largest part of it that may be returned; see [`content_to_return`].
    pub returned: ReturnedContent,
    /// Its content, or a front of it that contains the header fields.
    pub original: &'a [u8],
}

/// The part of a message that its report returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReturnedContent {
    /// The complete message.
    Full,
    /// The header fields.
    Headers,
    /// Nothing, since the stored content is damaged.
    Nothing,
}

/// A report as a message of its own.
#[derive(Debug, Clone)]
pub struct ReportMessage {
    /// The content.
    pub content: Vec<u8>,
    /// The envelope. Its sender is the null reverse-path (RFC 5321 §4.5.5).
    pub envelope: Envelope,
}

/// Returns true if NOTIFY asks for this report (RFC 3461 §4.1). Without NOTIFY, failures and delays
/// are reported.
#[must_use]
pub fn is_requested(sender: &ReversePath, recipient: &Recipient, action: Action) -> bool {
    match (sender, recipient.notify, action) {
        // A message with the null sender is reported to our postmaster, and only its failure;
        // NOTIFY=NEVER does not apply.
        (ReversePath::Null, _, action) => action == Action::Failed,
        (ReversePath::Mailbox(_), None, Action::Failed | Action::Delayed(_)) => true,
        (ReversePath::Mailbox(_), None, Action::Relayed) | (_, Some(Notify::Never), _) => false,
        (_, Some(Notify::On { failure, .. }), Action::Failed) => failure,
        (_, Some(Notify::On { delay, .. }), Action::Delayed(_)) => delay,
        (_, Some(Notify::On { success, .. }), Action::Relayed) => success,
    }
}

/// Decides how much of a message of `size` octets is returned. If a connector forced TLS for the
/// message, its content must not travel back without the same demand. If the message itself
/// required TLS, RET=FULL is ignored (RFC 8689 §5). It is ignored too if a stranger sent the
/// message, since the supposed sender may never have seen it.
#[must_use]
pub fn content_to_return(action: Action, envelope: &Envelope, size: u64) -> ReturnedContent {
    let confidential = envelope.confidential || envelope.tls == TlsRequirement::Require;
    let is_withheld = confidential || envelope.origin == ClientOrigin::Stranger;
    match (action, envelope.ret) {
        // A message that is not lost need not be returned.
        (Action::Delayed(_) | Action::Relayed, _) | (Action::Failed, Some(Ret::Hdrs)) => {
            ReturnedContent::Headers
        }
        (Action::Failed, Some(Ret::Full) | None) if is_withheld || size > FULL_RETURN_MAX => {
            ReturnedContent::Headers
        }
        (Action::Failed, Some(Ret::Full) | None) => ReturnedContent::Full,
    }
}

/// Returns the header fields at the front of a message. They end at the first line that is not a
/// field, even if that is not an empty line: content without a header must not be mistaken for
/// header fields.
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

/// Writes a report. `report` is the id of its message.
// Rule: RFC 5321 §4.4.
#[must_use]
pub fn write(
    context: &ReportContext<'_>,
    action: Action,
    recipients: &[ReportedRecipient<'_>],
    to: &Mailbox,
    report: QueueId,
) -> ReportMessage {
    // Mail for an address outside ASCII needs SMTPUTF8, which implies 8BITMIME (RFC 6531 §3.1).
    let mut parts = MultipartBody::new(report, !to.is_ascii());
    parts.add(
        "text/plain; charset=utf-8",
        text_for_people(context, action, recipients).as_bytes(),
    );
    let (kind, status) = status_part(context, action, recipients, parts.eight_bit_path);
    parts.add(kind, status.as_bytes());
    if let Some((kind, returned)) = returned_part(context, parts.eight_bit_path) {
        parts.add(kind, returned);
    }

    let subject = match action {
        Action::Failed => "Undelivered mail returned to sender",
        Action::Delayed(Some(_)) => "Delayed mail (still being retried)",
        Action::Delayed(None) => "Delayed mail (held by the relay)",
        Action::Relayed => "Mail was passed on",
    };
    let mut message = header(context.hostname, context.now, to, subject, report).into_bytes();
    // RFC 8689 §5: the report is protected as the message was. TLS-Required: No concerned the
    // recipient's policy, and does not lower that of the sender's domain.
    let tls = match context.envelope.tls {
        TlsRequirement::Require => TlsRequirement::Require,
        TlsRequirement::Ordinary | TlsRequirement::Relaxed => TlsRequirement::Ordinary,
    };
    let envelope = report_envelope(to, tls, parts.eight_bit, ReportForm::Full);
    parts.finish(
        "multipart/report; report-type=delivery-status",
        &mut message,
    );
    ReportMessage {
        content: message,
        envelope,
    }
}

/// Returns the envelope of a report.
// Rule: RFC 5321 §4.4, §4.5.5; RFC 8689 §5.
fn report_envelope(
    to: &Mailbox,
    tls: TlsRequirement,
    eight_bit: bool,
    form: ReportForm,
) -> Envelope {
    let recipient = Recipient {
        notify: Some(Notify::Never),
        ..Recipient::new(to.clone())
    };
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

/// The body of a multipart message, to which parts are added one after the other.
struct MultipartBody {
    boundary: String,
    /// True if all servers on the way offer 8BITMIME.
    eight_bit_path: bool,
    eight_bit: bool,
    octets: Vec<u8>,
}

impl MultipartBody {
    /// Makes a report to the postmaster of these parts.
    fn into_message(self, header: String, to: &Mailbox) -> ReportMessage {
        let tls = TlsRequirement::Ordinary;
        let envelope = report_envelope(to, tls, self.eight_bit, ReportForm::Full);
        let mut content = header.into_bytes();
        self.finish("multipart/mixed", &mut content);
        ReportMessage { content, envelope }
    }

    fn new(report: QueueId, eight_bit_path: bool) -> Self {
        Self {
            boundary: boundary(report),
            eight_bit_path,
            eight_bit: false,
            octets: Vec::new(),
        }
    }

    /// Adds a part, encoded if it could not pass unencoded.
    fn add(&mut self, kind: &str, content: &[u8]) {
        let is_unencoded = passes_unencoded(content, self.eight_bit_path);
        let eight_bit = is_unencoded && !content.is_ascii();
        let encoding = match (is_unencoded, eight_bit) {
            (false, _) => "Content-Transfer-Encoding: quoted-printable\r\n",
            (true, true) => "Content-Transfer-Encoding: 8bit\r\n",
            (true, false) => "",
        };
        let head = format!(
            "\r\n--{}\r\nContent-Type: {kind}\r\n{encoding}\r\n",
            self.boundary
        );
        self.octets.extend_from_slice(head.as_bytes());
        if is_unencoded {
            self.octets.extend_from_slice(content);
        } else {
            self.octets.extend_from_slice(&quoted_printable(content));
        }
        self.eight_bit |= eight_bit;
    }

    /// Adds a 7-bit part that has its own header fields.
    fn add_with_header(&mut self, part: &str) {
        self.octets
            .extend_from_slice(format!("\r\n--{}\r\n{part}", self.boundary).as_bytes());
    }

    /// Appends the remaining header fields and the body.
    fn finish(self, kind: &str, out: &mut Vec<u8>) {
        let Self {
            boundary,
            eight_bit,
            octets,
            ..
        } = self;
        // 8-bit parts make the multipart 8-bit too (RFC 2045 §6.4).
        let encoding = if eight_bit {
            "Content-Transfer-Encoding: 8bit\r\n"
        } else {
            ""
        };
        let head = format!(
            "Content-Type: {kind};\r\n\tboundary=\"{boundary}\"\r\n{encoding}\r\n\
             This is a MIME-encapsulated message.\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&octets);
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    }
}

/// Returns the boundary between the parts of the report with this id.
fn boundary(report: QueueId) -> String {
    format!("=_gatepost_{report}")
}

/// Returns the header of a report, without the fields that describe its content.
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

/// Returns the content type and the returned part of the message; `None` if nothing is returned. If
/// the complete message could not pass unencoded, only its header fields are returned.
fn returned_part<'a>(
    context: &ReportContext<'a>,
    eight_bit_path: bool,
) -> Option<(&'static str, &'a [u8])> {
    Some(
        match (context.returned, context.envelope.needs.utf8_header) {
            (ReturnedContent::Nothing, _) => return None,
            // RFC 6532 §3.7, RFC 6533 §6: these types may be encoded.
            (ReturnedContent::Full, true) => ("message/global", context.original),
            (ReturnedContent::Headers, true) => {
                ("message/global-headers", header_fields(context.original))
            }
            // RFC 2046 §5.2.1: this type may not be encoded.
            (ReturnedContent::Full, false)
                if passes_unencoded(context.original, eight_bit_path) =>
            {
                ("message/rfc822", context.original)
            }
            (_, false) => ("text/rfc822-headers", header_fields(context.original)),
        },
    )
}

/// Returns the part for people.
fn text_for_people(
    context: &ReportContext<'_>,
    action: Action,
    recipients: &[ReportedRecipient<'_>],
) -> String {
    let mut out = format!("This is the mail system {}.\r\n\r\n", context.hostname);
    match action {
        Action::Failed => out.push_str(
            "Your message could not be delivered to the recipients below, and will not\r\n\
             be tried again.",
        ),
        Action::Delayed(None) => out.push_str(
            "Your message could not be delivered to the recipients below. It is kept here\r\n\
             until an administrator decides about it.",
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
            "Your message was relayed for the recipients below. The server that accepted it\r\n\
             does not report successful delivery, so this may be the last report about it.",
        ),
    }
    let _ = write!(
        out,
        "\r\nIt was accepted here on {}\r\nas {}.\r\n",
        date(context.accepted),
        context.id
    );
    if context.returned == ReturnedContent::Nothing {
        out.push_str(
            "It cannot be returned, since\r\nits content was damaged on the disk of the relay.\r\n",
        );
    }
    let most = reason_max(REASON_MAX, recipients.len());
    for group in recipients.chunk_by(|one, other| is_explained_alike(one.last, other.last)) {
        out.push_str("\r\n");
        for recipient in group {
            let _ = write!(out, "<{}>:\r\n", recipient.recipient.mailbox);
        }
        if let Some(first) = group.first() {
            reason_for_people(&mut out, first.last, most);
        }
    }
    let is_about_policy =
        |last: &AttemptFailure| last.status.status().0 == 7 && last.explanation.is_none();
    if recipients
        .iter()
        .any(|recipient| is_about_policy(recipient.last))
    {
        let _ = write!(
            out,
            "\r\nA security policy of {} or of the recipient's domain does not\r\n\
             allow the message to go the way that was found. Sending it again will not\r\n\
             help; the administrators of the two sides can. Please show them this report.\r\n",
            context.hostname
        );
    }
    if recipients
        .iter()
        .any(|recipient| recipient.last.explanation.is_some())
    {
        let _ = write!(
            out,
            "\r\nThe administrators of {}: <{}>\r\n",
            context.hostname, context.postmaster
        );
    }
    out
}

/// Returns true for two failures with the same explanation and the same details.
fn is_explained_alike(one: &AttemptFailure, other: &AttemptFailure) -> bool {
    let is_same = (&one.explanation, &one.text, one.status)
        == (&other.explanation, &other.text, other.status);
    one.explanation.is_some() && is_same
}

/// Appends the reason of a failure: its explanation, and the details for administrators; without an
/// explanation the details alone. Each has at most `most` characters.
fn reason_for_people(out: &mut String, last: &AttemptFailure, most: usize) {
    let AttemptFailure {
        explanation,
        text,
        status,
        ..
    } = last;
    let Some(explanation) = explanation else {
        return fold(out, "    ", "    ", &quote(text, most));
    };
    fold(out, "    ", "    ", &quote(explanation, most));
    out.push_str("\r\n");
    fold(
        out,
        "    Details for administrators: ",
        "    ",
        &format!("{status} {}", quote(text, most)),
    );
}

/// Returns the content type and the machine-readable part. Addresses outside ASCII have a 7-bit
/// form. On an 8-bit path, or if that form makes a line too long, a content type is used that
/// allows encoding (RFC 6533).
fn status_part(
    context: &ReportContext<'_>,
    action: Action,
    recipients: &[ReportedRecipient<'_>],
    eight_bit_path: bool,
) -> (&'static str, String) {
    let has_non_ascii = recipients
        .iter()
        .any(|ReportedRecipient { recipient, .. }| {
            !recipient.mailbox.is_ascii()
                || recipient
                    .orcpt
                    .as_ref()
                    .is_some_and(|orcpt| !orcpt.is_ascii())
        });
    if !(eight_bit_path && has_non_ascii) {
        let status = status(context, action, recipients, false);
        if passes_unencoded(status.as_bytes(), false) {
            return ("message/delivery-status", status);
        }
    }
    (
        "message/global-delivery-status",
        status(context, action, recipients, true),
    )
}

/// Returns the fields of the machine-readable part (RFC 3464 §2). With `global`, characters outside
/// ASCII are written as they are.
fn status(
    context: &ReportContext<'_>,
    action: Action,
    recipients: &[ReportedRecipient<'_>],
    global: bool,
) -> String {
    let mut out = String::new();
    if let Some(envid) = &context.envelope.envid {
        let _ = write!(out, "Original-Envelope-Id: {}\r\n", from_xtext(envid));
    }
    let _ = write!(
        out,
        "Reporting-MTA: dns; {}\r\nArrival-Date: {}\r\n",
        context.hostname,
        date(context.accepted)
    );
    let most = reason_max(QUOTE_MAX, recipients.len());
    for recipient in recipients {
        recipient_fields(&mut out, action, recipient, most, global);
    }
    out
}

/// Returns the number of characters that each reason may have with this number of recipients, at
/// most `most`.
fn reason_max(most: usize, recipients: usize) -> usize {
    (REASONS_MAX / recipients.max(1)).clamp(REASON_MIN, most)
}

/// Appends the fields of one recipient (RFC 3464 §2.3). The reason has at most `most` characters.
fn recipient_fields(
    out: &mut String,
    action: Action,
    reported: &ReportedRecipient<'_>,
    most: usize,
    global: bool,
) {
    let ReportedRecipient { recipient, last } = reported;
    out.push_str("\r\n");
    if let Some((kind, address)) = recipient
        .orcpt
        .as_deref()
        .and_then(|orcpt| orcpt.split_once(';'))
    {
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
    let _ = write!(
        out,
        "Final-Recipient: {kind}; {address}\r\nAction: {action_word}\r\nStatus: {}\r\n",
        last.status
    );
    if let Some(host) = &last.host {
        let _ = write!(out, "Remote-MTA: dns; {host}\r\n");
    }
    let (kind, diagnostic) = match &last.reply {
        Some(reply) => ("smtp", reply.to_string()),
        None => ("x-gatepost", last.text.clone()),
    };
    let diagnostic = quote(&diagnostic, most);
    let diagnostic = if global {
        diagnostic
    } else {
        diagnostic.replace(|c: char| !c.is_ascii(), "?")
    };
    fold(
        out,
        &format!("Diagnostic-Code: {kind}; "),
        "\t",
        &diagnostic,
    );
    let _ = write!(out, "Last-Attempt-Date: {}\r\n", date(last.at));
    if let Action::Delayed(Some(until)) = action {
        let _ = write!(out, "Will-Retry-Until: {}\r\n", date(until));
    }
}

/// Formats a time for a header field.
fn date(at: Timestamp) -> String {
    let utc = at.to_zoned_datetime(jiff::tz::TimeZone::UTC);
    rfc2822::to_string(&utc).unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned())
}

#[cfg(test)]
mod tests;
