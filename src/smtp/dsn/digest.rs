//! The digest for the postmaster: failed messages with the null sender since the last digest.
//! Nobody else is informed of them, since reports about reports could go on without end (RFC 5321
//! §4.5.5). Failed messages of strangers are added if too many of their reports wait.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::encode::{fold, quote};
use super::text_only::part_for_people;
use super::{MultipartBody, REASON_MAX, ReportMessage, date, header, header_fields, reason_max};
use crate::smtp::address::{Domain, Mailbox};
use crate::smtp::envelope::{AttemptFailure, QueueId, ReportForm};

/// The most octets of one failed message in a digest.
const EXCERPT_MAX: usize = 4 * 1024;
/// The most octets of all failed messages in a digest.
const EXCERPTS_MAX: usize = 256 * 1024;

/// The most recipients of one message that are named. The others are only counted, since a stranger
/// chooses their number.
const NAMED_MAX: usize = 20;

/// A failed message in a digest.
#[derive(Debug, Clone)]
pub struct DigestEntry {
    /// The id of the message.
    pub id: QueueId,
    /// The time at which it was accepted.
    pub accepted: Timestamp,
    /// The sender, if a stranger sent the message and the sender gets no report.
    pub sender: Option<Mailbox>,
    /// The recipients that it did not reach, with the reasons.
    pub recipients: Vec<(Mailbox, AttemptFailure)>,
    /// The part by which a reader recognises it.
    pub excerpt: Excerpt,
}

/// A part of a failed message, by which the postmaster recognises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Excerpt {
    /// The part for people of a report by this relay: 7-bit, with the header fields of the part.
    ReportText(String),
    /// The header fields of any other message.
    Header(Vec<u8>),
}

impl Excerpt {
    /// Returns the excerpt of a message. `front` is the beginning of its content; `report` is set
    /// if it is one of our reports.
    #[must_use]
    pub fn of(id: QueueId, report: Option<ReportForm>, front: &[u8]) -> Self {
        let people = report
            .and_then(|_| part_for_people(id, front))
            .filter(|part| part.is_ascii());
        match people {
            Some(part) => Self::ReportText(
                String::from_utf8_lossy(cut_to_lines(part.as_bytes())).into_owned(),
            ),
            None => Self::Header(cut_to_lines(header_fields(front)).to_vec()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::ReportText(part) => part.len(),
            Self::Header(fields) => fields.len(),
        }
    }
}

/// Returns the lines at the front of a text that fit into [`EXCERPT_MAX`] octets.
fn cut_to_lines(text: &[u8]) -> &[u8] {
    if text.len() <= EXCERPT_MAX {
        return text;
    }
    let end = memchr::memrchr(b'\n', &text[..EXCERPT_MAX]).map_or(0, |at| at + 1);
    &text[..end]
}

/// Writes the digest. `report` is the id of its message.
// Rule: RFC 5321 §4.5.5.
#[must_use]
pub fn write_digest(
    hostname: &Domain,
    now: Timestamp,
    to: &Mailbox,
    entries: &[DigestEntry],
    report: QueueId,
) -> ReportMessage {
    let mut parts = MultipartBody::new(report, !to.is_ascii());
    let shown = count_excerpts(entries);
    parts.add(
        "text/plain; charset=utf-8",
        text_for_people(hostname, entries, shown).as_bytes(),
    );
    for entry in &entries[..shown] {
        match &entry.excerpt {
            Excerpt::ReportText(part) => parts.add_with_header(part),
            Excerpt::Header(fields) => parts.add("text/rfc822-headers", fields),
        }
    }
    let lack = if has_senders(entries) {
        "a report to its sender"
    } else {
        "a sender"
    };
    let subject = match entries.len() {
        1 => format!("Undelivered mail without {lack}: 1 message"),
        count => format!("Undelivered mail without {lack}: {count} messages"),
    };
    parts.into_message(header(hostname, now, to, &subject, report), to)
}

/// Returns the number of messages, from the first on, whose excerpts fit.
fn count_excerpts(entries: &[DigestEntry]) -> usize {
    let mut octets = 0;
    entries
        .iter()
        .take_while(|entry| {
            octets += entry.excerpt.len();
            octets <= EXCERPTS_MAX
        })
        .count()
}

/// Returns true if some of the messages have a sender.
fn has_senders(entries: &[DigestEntry]) -> bool {
    entries.iter().any(|entry| entry.sender.is_some())
}

/// Returns the part for people.
fn text_for_people(hostname: &Domain, entries: &[DigestEntry], shown: usize) -> String {
    let which = if has_senders(entries) {
        "The messages below are done with here, and their senders get no report: they have\r\n\
         none, as reports have none, or a stranger brought the message and named the\r\n\
         sender while too many reports waited. They"
    } else {
        "The messages below have no sender, as reports have none, and could not be\r\n\
         delivered. They"
    };
    let mut out = format!(
        "This is the mail relay at {hostname}.\r\n\r\n\
         {which} will not be tried again, and nobody but you, the postmaster of\r\n\
         this relay, is informed. Attached are excerpts: the text of the relay's own\r\n\
         reports, and the header of other messages.\r\n"
    );
    if shown < entries.len() {
        let _ = write!(
            out,
            "The last {} have no excerpt, since the digest would be too large.\r\n",
            entries.len() - shown
        );
    }
    let most = reason_max(
        REASON_MAX,
        entries
            .iter()
            .map(|entry| entry.recipients.len().min(NAMED_MAX))
            .sum(),
    );
    for entry in entries {
        let _ = write!(
            out,
            "\r\n{}, accepted here on {}\r\n",
            entry.id,
            date(entry.accepted)
        );
        if let Some(sender) = &entry.sender {
            let _ = write!(out, "from <{sender}>\r\n");
        }
        for (mailbox, last) in entry.recipients.iter().take(NAMED_MAX) {
            let _ = write!(out, "<{mailbox}>:\r\n");
            fold(
                &mut out,
                "    ",
                "    ",
                &quote(&format!("{} ({})", last.text, last.status), most),
            );
        }
        if entry.recipients.len() > NAMED_MAX {
            let _ = write!(
                out,
                "and {} more recipients\r\n",
                entry.recipients.len() - NAMED_MAX
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::ReversePath;
    use crate::smtp::dsn::{Action, ReportContext, ReportedRecipient, ReturnedContent, write};
    use crate::smtp::envelope::{Envelope, Recipient};
    use crate::smtp::reply::{EnhancedStatusCode, Status};

    fn id(number: u64) -> QueueId {
        QueueId::from_number(number).expect("small")
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).expect("valid")
    }

    fn trouble(text: &str) -> AttemptFailure {
        AttemptFailure {
            at: Timestamp::UNIX_EPOCH,
            status: EnhancedStatusCode::permanent(Status(1, 1)),
            text: text.into(),
            explanation: None,
            host: None,
            reply: None,
        }
    }

    fn lost(number: u64, excerpt: Excerpt) -> DigestEntry {
        let recipients = vec![(mailbox("b@example.net"), trouble("no such user"))];
        DigestEntry {
            id: id(number),
            accepted: Timestamp::UNIX_EPOCH,
            sender: None,
            recipients,
            excerpt,
        }
    }

    fn hostname() -> Domain {
        Domain::parse("relay.example.com").expect("valid")
    }

    fn text(lost: &[DigestEntry]) -> String {
        let report = write_digest(
            &hostname(),
            Timestamp::UNIX_EPOCH,
            &mailbox("p@example.com"),
            lost,
            id(9),
        );
        assert_eq!(report.envelope.reverse_path, ReversePath::Null);
        assert!(report.content.is_ascii() && !report.envelope.needs.eight_bit);
        String::from_utf8(report.content).expect("ASCII")
    }

    #[test]
    fn of_many_recipients_the_first_are_named_and_the_others_counted() {
        let recipients = (1..=25)
            .map(|at| {
                (
                    mailbox(&format!("b{at}@example.net")),
                    trouble("no such user"),
                )
            })
            .collect();
        let text = text(&[DigestEntry {
            recipients,
            ..lost(1, Excerpt::Header(b"Subject: a\r\n".to_vec()))
        }]);
        assert!(
            text.contains("<b20@example.net>:") && text.contains("and 5 more recipients"),
            "{text}"
        );
        assert!(!text.contains("<b21@example.net>"), "{text}");
    }

    #[test]
    fn a_sender_that_a_stranger_named_is_shown() {
        let excerpt = || Excerpt::Header(b"Subject: a\r\n".to_vec());
        let of_stranger = DigestEntry {
            sender: Some(mailbox("a@example.org")),
            ..lost(2, excerpt())
        };
        let text = text(&[lost(1, excerpt()), of_stranger]);
        let accepted = "accepted here on Thu, 1 Jan 1970 00:00:00 +0000\r\n";
        for words in [
            "Subject: Undelivered mail without a report to its sender: 2 messages\r\n",
            "too many reports waited",
            &format!("0000000000001, {accepted}<b@example.net>:"),
            &format!("0000000000002, {accepted}from <a@example.org>\r\n<b@example.net>:"),
        ] {
            assert!(text.contains(words), "{words:?} is missing from\n{text}");
        }
    }

    #[test]
    fn each_message_is_named_with_its_recipients_reasons_and_excerpt() {
        let bounce = {
            let envelope = Envelope::new(
                ReversePath::parse("a@example.org").expect("valid"),
                vec![Recipient::new(mailbox("c@example.net"))],
            );
            let about = ReportContext {
                hostname: &hostname(),
                id: id(1),
                accepted: Timestamp::UNIX_EPOCH,
                now: Timestamp::UNIX_EPOCH,
                postmaster: &mailbox("p@example.com"),
                envelope: &envelope,
                returned: ReturnedContent::Headers,
                original: b"Subject: the very first\r\n\r\n",
            };
            let recipients = [ReportedRecipient {
                recipient: &envelope.recipients[0],
                last: &trouble("kein Empfänger"),
            }];
            write(
                &about,
                Action::Failed,
                &recipients,
                &mailbox("a@example.org"),
                id(2),
            )
            .content
        };
        let ours = Excerpt::of(id(2), Some(ReportForm::Full), &bounce);
        assert!(
            matches!(&ours, Excerpt::ReportText(part) if part.contains("<c@example.net>:")),
            "{ours:?}"
        );
        let theirs = Excerpt::of(
            id(3),
            None,
            b"Subject: f\xc3\xbcr euch\r\nX: y\r\n\r\nWords.\r\n",
        );
        let text = text(&[lost(2, ours), lost(3, theirs)]);
        for words in [
            "Subject: Undelivered mail without a sender: 2 messages\r\n",
            "To: <p@example.com>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "Content-Type: multipart/mixed;\r\n",
            "0000000000002, accepted here on Thu, 1 Jan 1970 00:00:00 +0000\r\n<b@example.net>:\r\n    no such user (5.1.1)\r\n",
            "0000000000003, accepted",
            "<c@example.net>:\r\n    kein Empf=C3=A4nger\r\n",
            "Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSubject: f=C3=BCr euch\r\n",
        ] {
            assert!(text.contains(words), "{words:?} is missing from\n{text}");
        }
        assert!(
            !text.contains("Words.") && !text.contains("the very first"),
            "{text}"
        );
    }

    #[test]
    fn a_digest_of_large_messages_stays_small_and_names_all() {
        let fields = format!("Subject: {}\r\n", "x".repeat(70)).repeat(100);
        let large = Excerpt::of(id(1), None, fields.as_bytes());
        assert!((1..=EXCERPT_MAX).contains(&large.len()));
        let many: Vec<DigestEntry> = (0..500).map(|number| lost(number, large.clone())).collect();
        let text = text(&many);
        assert!(text.len() < 600_000, "{} octets", text.len());
        assert!(text.contains("have no excerpt"), "{}", &text[..1000]);
        for lost in &many {
            assert!(text.contains(&format!("{}, accepted", lost.id)));
        }
    }
}
