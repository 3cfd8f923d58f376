//! Delivery status notifications: what the sender of a message that failed is told (RFC 3464, in the
//! frame of RFC 6522; UTF-8 as in RFC 6533).
//!
//! This module writes text from values. Whether anything has failed is decided in
//! [`crate::outcome`]; storing and sending the report is the scheduler's affair.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::address::{Domain, Mailbox, ReversePath};
use crate::envelope::{BodyType, Envelope, Notify, QueueId, Recipient, Ret, Trouble};

/// Octets of a message that is returned whole, at most; of a larger one its header fields are.
pub const WHOLE_MESSAGE_MAX: u64 = 50 * 1024;
/// Characters of a peer's answer that a report quotes, at most.
const QUOTE_MAX: usize = 900;
/// Where header lines are folded (RFC 5322 §2.1.1).
const LINE_LENGTH: usize = 76;

/// What a report tells of its recipients: all of one report share it (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Still being tried, until this time.
    Delayed(Timestamp),
    /// Handed to a host that sends no reports of success (RFC 3461 §5.2.2).
    Relayed,
}

/// A recipient, and what became of it.
#[derive(Debug, Clone)]
pub struct Told<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// What happened last; for [`Action::Relayed`] with a status of success.
    pub last: &'a Trouble,
}

/// Everything that a report is about.
#[derive(Debug, Clone)]
pub struct About<'a> {
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
    /// Its size in octets.
    pub size: u64,
    /// Whether its connector forced TLS: then its content must not travel back over a way that was
    /// not held to the same demand.
    pub confidential: bool,
}

/// How much of the message goes into its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// All of it.
    Whole,
    /// Its header fields.
    Headers,
}

/// A report: its text before and after what is returned of the message, and its envelope.
#[derive(Debug, Clone)]
pub struct Report {
    /// Everything before the returned part.
    pub head: String,
    /// What of the message comes next.
    pub returned: Returned,
    /// Everything after it.
    pub tail: String,
    /// To whom, under the null reverse-path (RFC 5321 §4.5.5).
    pub envelope: Envelope,
}

/// Whether the sender wants to be told this of a recipient (RFC 3461 §4.1). Who said nothing is told of
/// failures and delays.
#[must_use]
pub fn is_wanted(recipient: &Recipient, action: Action) -> bool {
    match (recipient.notify, action) {
        (None, Action::Failed | Action::Delayed(_)) => true,
        (None, Action::Relayed) | (Some(Notify::Never), _) => false,
        (Some(Notify::On { failure, .. }), Action::Failed) => failure,
        (Some(Notify::On { delay, .. }), Action::Delayed(_)) => delay,
        (Some(Notify::On { success, .. }), Action::Relayed) => success,
    }
}

/// To whom the report about a message goes: its sender. A failed message from the null reverse-path is
/// told to our own `postmaster`, unless that is who could not be reached: then there is nobody left.
#[must_use]
pub fn addressee(envelope: &Envelope, action: Action, told: &[Told<'_>], postmaster: &Mailbox) -> Option<Mailbox> {
    match (&envelope.reverse_path, action) {
        (ReversePath::Mailbox(sender), _) => Some(sender.clone()),
        (ReversePath::Null, Action::Delayed(_) | Action::Relayed) => None,
        (ReversePath::Null, Action::Failed) if told.iter().any(|told| told.recipient.mailbox == *postmaster) => None,
        (ReversePath::Null, Action::Failed) => Some(postmaster.clone()),
    }
}

/// Writes a report. `report` is the id of the new message.
#[must_use]
pub fn write(about: &About<'_>, action: Action, told: &[Told<'_>], to: &Mailbox, report: QueueId) -> Report {
    let global = !to.is_ascii() || told.iter().any(|told| !told.recipient.mailbox.is_ascii());
    let utf8_returned = about.envelope.needs.utf8_header;
    let returned = returned(about, action);
    let boundary = format!("=_gatepost_{report}");
    let mut head = String::new();
    header(&mut head, about, action, to, report, &boundary);
    explanation(&mut head, about, action, told, &boundary);
    status(&mut head, about, action, told, global, &boundary);
    let (kind, encoding) = match (returned, utf8_returned) {
        (Returned::Whole, false) => ("message/rfc822", about.envelope.needs.eight_bit),
        (Returned::Whole, true) => ("message/global", true),
        (Returned::Headers, false) => ("text/rfc822-headers", false),
        (Returned::Headers, true) => ("message/global-headers", true),
    };
    let _ = write!(head, "--{boundary}\r\nContent-Type: {kind}\r\n");
    if encoding {
        head.push_str("Content-Transfer-Encoding: 8bit\r\n");
    }
    head.push_str("\r\n");
    let mut envelope = Envelope::new(ReversePath::Null, vec![Recipient::new(to.clone())]);
    envelope.recipients[0].notify = Some(Notify::Never);
    envelope.needs.eight_bit = encoding || !head.is_ascii();
    envelope.needs.utf8_header = !to.is_ascii();
    envelope.smtputf8 = global || (utf8_returned && returned == Returned::Whole);
    if envelope.needs.eight_bit {
        envelope.body = BodyType::EightBitMime;
    }
    Report { head, returned, tail: format!("\r\n--{boundary}--\r\n"), envelope }
}

fn returned(about: &About<'_>, action: Action) -> Returned {
    match (action, about.envelope.ret) {
        // A message that is not lost need not come back.
        (Action::Delayed(_) | Action::Relayed, _) | (Action::Failed, Some(Ret::Hdrs)) => Returned::Headers,
        (Action::Failed, Some(Ret::Full) | None) if about.confidential || about.size > WHOLE_MESSAGE_MAX => {
            Returned::Headers
        }
        (Action::Failed, Some(Ret::Full) | None) => Returned::Whole,
    }
}

// Writing into a String cannot fail, so the results of `write!` are dropped below.

fn header(out: &mut String, about: &About<'_>, action: Action, to: &Mailbox, report: QueueId, boundary: &str) {
    let host = about.hostname;
    let subject = match action {
        Action::Failed => "Undelivered mail returned to sender",
        Action::Delayed(_) => "Delayed mail (still being retried)",
        Action::Relayed => "Mail was passed on",
    };
    let _ = write!(
        out,
        "Date: {}\r\n\
         From: Mail Delivery System <mailer-daemon@{host}>\r\n\
         To: <{to}>\r\n\
         Subject: {subject}\r\n\
         Message-ID: <{report}@{host}>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n\
         This is a MIME-encapsulated message.\r\n\r\n",
        date(about.now)
    );
}

fn explanation(out: &mut String, about: &About<'_>, action: Action, told: &[Told<'_>], boundary: &str) {
    let _ = write!(
        out,
        "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         This is the mail relay at {}.\r\n\r\n",
        about.hostname,
    );
    match action {
        Action::Failed => out.push_str(
            "Your message could not be delivered to the recipients below, and will not\r\n\
             be tried again.",
        ),
        Action::Delayed(until) => {
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
    for told in told {
        let _ = write!(out, "\r\n<{}>:\r\n", told.recipient.mailbox);
        fold(out, "    ", "    ", &quote(&told.last.text));
    }
    if told.iter().any(|told| told.last.status.status().0 == 7) {
        out.push_str(
            "\r\nA security policy of this relay or of the recipient's does not allow the\r\n\
             message to go the way that was found. Sending it again will not help; the\r\n\
             administrators of the two sides can. Please show them this report.\r\n",
        );
    }
    out.push_str("\r\n");
}

fn status(out: &mut String, about: &About<'_>, action: Action, told: &[Told<'_>], global: bool, boundary: &str) {
    let kind = if global { "message/global-delivery-status" } else { "message/delivery-status" };
    let _ = write!(out, "--{boundary}\r\nContent-Type: {kind}\r\n");
    if global {
        out.push_str("Content-Transfer-Encoding: 8bit\r\n");
    }
    out.push_str("\r\n");
    if let Some(envid) = &about.envelope.envid {
        fold(out, "Original-Envelope-Id: ", "\t", &from_xtext(envid));
    }
    let _ = write!(out, "Reporting-MTA: dns; {}\r\nArrival-Date: {}\r\n", about.hostname, date(about.accepted));
    for told in told {
        recipient_fields(out, action, told);
    }
    out.push_str("\r\n");
}

/// The fields about one recipient (RFC 3464 §2.3).
fn recipient_fields(out: &mut String, action: Action, told: &Told<'_>) {
    let Told { recipient, last } = told;
    out.push_str("\r\n");
    if let Some((kind, address)) = recipient.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';')) {
        fold(out, &format!("Original-Recipient: {kind}; "), "\t", &from_xtext(address));
    }
    let kind = if recipient.mailbox.is_ascii() { "rfc822" } else { "utf-8" };
    let action_word = match action {
        Action::Failed => "failed",
        Action::Delayed(_) => "delayed",
        Action::Relayed => "relayed",
    };
    let _ = write!(
        out,
        "Final-Recipient: {kind}; {}\r\nAction: {action_word}\r\nStatus: {}\r\n",
        recipient.mailbox, last.status
    );
    if let Some(host) = &last.host {
        let _ = write!(out, "Remote-MTA: dns; {host}\r\n");
    }
    match &last.reply {
        Some(reply) => fold(out, "Diagnostic-Code: smtp; ", "\t", &quote(&reply.to_string())),
        None => fold(out, "Diagnostic-Code: x-gatepost; ", "\t", &quote(&last.text)),
    }
    let _ = write!(out, "Last-Attempt-Date: {}\r\n", date(last.at));
    if let Action::Delayed(until) = action {
        let _ = write!(out, "Will-Retry-Until: {}\r\n", date(until));
    }
}

fn date(at: Timestamp) -> String {
    let utc = at.to_zoned_datetime(jiff::tz::TimeZone::UTC);
    rfc2822::to_string(&utc).unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned())
}

/// A peer's words, without control characters and not without end.
fn quote(text: &str) -> String {
    text.chars().take(QUOTE_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Writes words over as many lines as they need.
fn fold(out: &mut String, first: &str, next: &str, text: &str) {
    let mut room = LINE_LENGTH.saturating_sub(first.len());
    out.push_str(first);
    for (at, word) in text.split_whitespace().enumerate() {
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

/// Decodes xtext (RFC 3461 §4): "+41" is "A". What is not xtext is left as it stands, and control
/// characters do not come out.
fn from_xtext(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).filter(|_| byte == b'+').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(hex.unwrap_or(byte));
        at += if hex.is_some() { 3 } else { 1 };
    }
    quote(&String::from_utf8_lossy(&out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::{EnhancedStatusCode, Reply, Status};

    fn trouble() -> Trouble {
        Trouble {
            at: Timestamp::UNIX_EPOCH,
            status: EnhancedStatusCode::permanent(Status(1, 1)),
            text: "mx.example.net [192.0.2.1]:25: answered RCPT TO with: 550 5.1.1 no such user".into(),
            host: Some("mx.example.net".into()),
            reply: Some(Reply::new(550, Status(1, 1), "no such user")),
        }
    }

    fn envelope(from: &str) -> Envelope {
        let mut recipient = Recipient::new(Mailbox::parse("b@example.net").expect("valid"));
        recipient.orcpt = Some("rfc822;B+2Bx@example.net".into());
        Envelope::new(ReversePath::parse(from).expect("valid"), vec![recipient])
    }

    fn tell(envelope: &Envelope, action: Action, size: u64, confidential: bool) -> Report {
        let hostname = Domain::parse("relay.example.com").expect("valid");
        let id = QueueId::from_number(1).expect("small");
        let last = trouble();
        let told = [Told { recipient: &envelope.recipients[0], last: &last }];
        let (accepted, now) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let about = About { hostname: &hostname, id, accepted, now, envelope, size, confidential };
        let to = Mailbox::parse("a@example.org").expect("valid");
        write(&about, action, &told, &to, QueueId::from_number(2).expect("small"))
    }

    fn report(envelope: &Envelope, size: u64, confidential: bool) -> Report {
        tell(envelope, Action::Failed, size, confidential)
    }

    #[test]
    fn a_delay_says_until_when_and_returns_no_content() {
        let report = tell(&envelope("a@example.org"), Action::Delayed(Timestamp::UNIX_EPOCH), 100, false);
        for field in ["Action: delayed\r\n", "Will-Retry-Until: Thu, 1 Jan 1970", "A WARNING ONLY"] {
            assert!(report.head.contains(field), "{field:?} is missing from\n{}", report.head);
        }
        assert_eq!(report.returned, Returned::Headers);
    }

    #[test]
    fn a_report_has_the_fields_of_rfc_3464() {
        let report = report(&envelope("a@example.org"), 100, false);
        for field in [
            "To: <a@example.org>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "Content-Type: multipart/report; report-type=delivery-status;\r\n",
            "Reporting-MTA: dns; relay.example.com\r\n",
            "Original-Recipient: rfc822; B+x@example.net\r\n",
            "Final-Recipient: rfc822; b@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            "Remote-MTA: dns; mx.example.net\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
            "Content-Type: message/rfc822\r\n",
        ] {
            assert!(report.head.contains(field), "{field:?} is missing from\n{}", report.head);
        }
        assert!(report.head.lines().all(|line| line.len() <= 78), "{}", report.head);
        assert_eq!(report.envelope.reverse_path, ReversePath::Null);
    }

    #[test]
    fn how_much_is_returned() {
        let mut envelope = envelope("a@example.org");
        for (ret, size, confidential, returned) in [
            (None, 100, false, Returned::Whole),
            (None, WHOLE_MESSAGE_MAX + 1, false, Returned::Headers),
            (Some(Ret::Full), 100, true, Returned::Headers),
            (Some(Ret::Hdrs), 100, false, Returned::Headers),
        ] {
            envelope.ret = ret;
            assert_eq!(report(&envelope, size, confidential).returned, returned, "{ret:?} {size} {confidential}");
        }
    }

    #[test]
    fn who_is_told() {
        let postmaster = Mailbox::parse("postmaster@example.com").expect("valid");
        let trouble = trouble();
        let told = |envelope: &Envelope| {
            let told = [Told { recipient: &envelope.recipients[0], last: &trouble }];
            addressee(envelope, Action::Failed, &told, &postmaster).map(|mailbox| mailbox.to_string())
        };
        assert_eq!(told(&envelope("a@example.org")), Some("a@example.org".into()));
        assert_eq!(told(&envelope("")), Some("postmaster@example.com".into()));
        let mut lost = envelope("");
        lost.recipients[0].mailbox = postmaster.clone();
        assert_eq!(told(&lost), None);
    }

    #[test]
    fn notify_is_honoured() {
        let mut recipient = Recipient::new(Mailbox::parse("b@example.net").expect("valid"));
        let on = |success, failure, delay| Some(Notify::On { success, failure, delay });
        for (notify, wanted) in [
            (None, [true, true, false]),
            (Some(Notify::Never), [false, false, false]),
            (on(true, false, false), [false, false, true]),
            (on(false, true, false), [true, false, false]),
            (on(false, false, true), [false, true, false]),
        ] {
            recipient.notify = notify;
            let actions = [Action::Failed, Action::Delayed(Timestamp::UNIX_EPOCH), Action::Relayed];
            assert_eq!(actions.map(|action| is_wanted(&recipient, action)), wanted, "{notify:?}");
        }
    }

    #[test]
    fn xtext_is_decoded_and_cannot_break_a_line() {
        assert_eq!(from_xtext("a+2Bb+0D+0Ac+zz"), "a+b??c+zz");
    }
}
