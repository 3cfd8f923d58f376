//! The report to the postmaster about quarantined messages whose senders nobody knows, since their
//! envelopes cannot be read.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::encode::{fold, quote};
use super::{MultipartBody, ReportMessage, header};
use crate::smtp::address::{Domain, Mailbox};
use crate::smtp::envelope::QueueId;

/// The most messages that are named.
const NAMED_MAX: usize = 500;
/// The most characters of a description.
const TEXT_MAX: usize = 500;

/// A quarantined message in a report.
#[derive(Debug, Clone, Copy)]
pub struct QuarantinedMessage<'a> {
    /// Its queue id, or the name of the quarantined part of the spool.
    pub name: &'a str,
    /// A description of the damage.
    pub fault: &'a str,
    /// The quarantined files, as a path with a wildcard.
    pub files: &'a str,
}

/// Writes the report. `report` is the id of its message.
#[must_use]
pub fn write_quarantine_report(
    hostname: &Domain,
    now: Timestamp,
    to: &Mailbox,
    messages: &[QuarantinedMessage<'_>],
    report: QueueId,
) -> ReportMessage {
    let mut parts = MultipartBody::new(report, !to.is_ascii());
    let text = text_for_people(hostname, messages);
    parts.add("text/plain; charset=utf-8", text.as_bytes());
    let subject = match messages.len() {
        1 => "Damaged mail quarantined: 1 message".to_owned(),
        count => format!("Damaged mail quarantined: {count} messages"),
    };
    parts.into_message(header(hostname, now, to, &subject, report), to)
}

fn text_for_people(hostname: &Domain, messages: &[QuarantinedMessage<'_>]) -> String {
    let mut out = format!(
        "This is the mail relay at {hostname}.\r\n\r\n\
         The messages below were damaged on the disk of the relay: who sent them, and\r\n\
         to whom, cannot be read any more. They are out of the queue and will not be\r\n\
         delivered. Nobody but you, the postmaster of this relay, is informed.\r\n\r\n\
         The files named below have what is left of them. Inspect these files on the\r\n\
         relay, then send each message again by hand, or inform its sender. Check the\r\n\
         disk of the spool before more is lost.\r\n"
    );
    for message in messages.iter().take(NAMED_MAX) {
        let _ = write!(out, "\r\n{}\r\n", quote(message.name, TEXT_MAX));
        for (what, text) in [("cause: ", message.fault), ("files: ", message.files)] {
            let first = format!("    {what}");
            fold(&mut out, &first, "        ", &quote(text, TEXT_MAX));
        }
    }
    if messages.len() > NAMED_MAX {
        let more = messages.len() - NAMED_MAX;
        let _ = write!(out, "\r\nand {more} more; the log names all of them\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many there are, and whatever the file system says of them, the report can be sent.
    #[test]
    fn a_report_of_many_is_bounded() {
        let host = Domain::parse("relay.example").expect("valid");
        let to = Mailbox::parse("postmaster@example.com").expect("valid");
        let fault = "bad\r\n.\r\n".repeat(1000);
        let message = QuarantinedMessage {
            name: "row-1",
            fault: &fault,
            files: "/spool/aside/row-1.*",
        };
        let id = QueueId::from_number(1).expect("small");
        let written =
            write_quarantine_report(&host, Timestamp::UNIX_EPOCH, &to, &vec![message; 501], id);
        let text = String::from_utf8(written.content).expect("ASCII");
        assert!(text.len() < 1 << 20, "{} octets", text.len());
        assert!(text.contains("and 1 more; the log names all of them"));
        let is_good = |line: &str| line.len() <= 998 && line != ".";
        assert!(text.lines().all(is_good));
    }
}
