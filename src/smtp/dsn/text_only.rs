//! The text of a report without other parts, for a server that has rejected the full report.

use jiff::Timestamp;

use super::{ReportMessage, boundary, header, report_envelope};
use crate::smtp::address::Domain;
use crate::smtp::envelope::{Envelope, QueueId, ReportForm};

/// The note at the end of the text.
const NOTE: &str = "\r\nYour mail server did not accept the full report, so this one returns nothing of\r\n\
                    your message.\r\n";

/// A report by this relay that a server rejected.
#[derive(Debug, Clone, Copy)]
pub struct RejectedReport<'a> {
    /// Its id in the queue.
    pub id: QueueId,
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// Its content.
    pub content: &'a [u8],
}

/// Returns the part for people of the report with this id, with the header fields of the part.
/// `None` if the content was not written by [`super::write`], or is cut off before the end of that
/// part.
pub(super) fn part_for_people(id: QueueId, content: &[u8]) -> Option<&str> {
    let delimiter = format!("\r\n--{}\r\n", boundary(id));
    let parts =
        content.get(memchr::memmem::find(content, delimiter.as_bytes())? + delimiter.len()..)?;
    std::str::from_utf8(&parts[..memchr::memmem::find(parts, delimiter.as_bytes())?]).ok()
}

/// Writes the part for people of a report as a message of its own, with the id `report`. `None` if
/// the content was not written by [`super::write`].
#[must_use]
pub fn write_text_only(
    refused: &RejectedReport<'_>,
    hostname: &Domain,
    now: Timestamp,
    report: QueueId,
) -> Option<ReportMessage> {
    let RejectedReport {
        id,
        envelope,
        content,
    } = *refused;
    let to = &envelope.recipients.first()?.mailbox;
    let (kind, text) = part_for_people(id, content)?.split_once("\r\n\r\n")?;
    let start = memchr::memmem::find(content, b"\r\nSubject: ")? + "\r\nSubject: ".len();
    let subject = content
        .get(start..)?
        .split(|octet| *octet == b'\r')
        .next()?;
    let subject = std::str::from_utf8(subject).ok()?;
    let content = format!(
        "{}{kind}\r\n\r\n{text}{NOTE}",
        header(hostname, now, to, subject, report)
    )
    .into_bytes();
    let eight_bit = !content.is_ascii();
    let envelope = report_envelope(to, envelope.tls, eight_bit, ReportForm::Plain);
    Some(ReportMessage { content, envelope })
}
