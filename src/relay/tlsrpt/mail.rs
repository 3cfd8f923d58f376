//! A report as a mail message (RFC 8460 §5.3): a text for people, and the compressed report for
//! programs.
//!
//! Builds the message only; [`super::dkim`] signs it and [`super::deliver`] queues it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::report::{TlsReport, day_end, day_start};
use crate::smtp::address::{Domain, Mailbox};

/// The most kinds of failure that the text lists; the attached report has all of them.
const LISTED_MAX: usize = 20;
/// The number of characters on a line of base64 (RFC 2045 §6.8).
const BASE64_LINE: usize = 76;

/// A message: its header fields, without line ends, and its body.
// Rule: RFC 8689 §3.
#[derive(Debug, Clone)]
pub(super) struct TlsReportMail {
    pub(super) fields: Vec<String>,
    pub(super) body: String,
}

/// Builds the message that carries `compressed`.
pub(super) fn write(
    report: &TlsReport,
    compressed: &[u8],
    submitter: &Domain,
    to: &[Mailbox],
    now: Timestamp,
) -> TlsReportMail {
    let TlsReport {
        domain,
        contact,
        id,
        ..
    } = report;
    let to: Vec<String> = to.iter().map(|mailbox| format!("<{mailbox}>")).collect();
    let boundary = format!("=_tlsrpt_{}", report.unique_part());
    let fields = vec![
        format!("From: <{contact}>"),
        format!("To: {}", to.join(",\r\n ")),
        format!(
            "Date: {}",
            rfc2822::to_string(&now.to_zoned_datetime(jiff::tz::TimeZone::UTC)).unwrap_or_default()
        ),
        format!(
            "Subject: Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{id}>"
        ),
        format!("Message-ID: <{id}>"),
        format!("TLS-Report-Domain: {domain}"),
        format!("TLS-Report-Submitter: {submitter}"),
        // §3: a report is delivered in spite of TLS failures, for it may help to correct them (RFC
        // 8689 §3).
        "TLS-Required: No".to_owned(),
        "Auto-Submitted: auto-generated".to_owned(),
        "MIME-Version: 1.0".to_owned(),
        format!(
            "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"{boundary}\""
        ),
    ];
    let encoded = BASE64.encode(compressed);
    let mut body = format!(
        "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    // Base64, so that no name or peer text can break a line or need 8BITMIME.
    push_lines(&mut body, &BASE64.encode(summary_text(report, submitter)));
    let file = report.file_name(submitter);
    let _infallible = write!(
        body,
        "--{boundary}\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment;\r\n filename=\"{file}\"\r\n\r\n"
    );
    push_lines(&mut body, &encoded);
    let _infallible = write!(body, "--{boundary}--\r\n");
    TlsReportMail { fields, body }
}

fn push_lines(body: &mut String, encoded: &str) {
    let mut remaining = encoded;
    while !remaining.is_empty() {
        let (line, others) = remaining.split_at(BASE64_LINE.min(remaining.len()));
        body.push_str(line);
        body.push_str("\r\n");
        remaining = others;
    }
}

/// Writes the summary for people.
fn summary_text(report: &TlsReport, submitter: &Domain) -> String {
    let (good, bad) = report.totals();
    let mut text = format!(
        "This is a TLS report (RFC 8460) about mail for {domain},\r\nfrom {organization} ({submitter}).\r\n\r\n\
         It covers {begin} to {end}: {sessions}, {failed}.\r\n",
        domain = report.domain,
        organization = report.organization,
        begin = day_start(report.day),
        end = day_end(report.day),
        sessions = sessions(good + bad),
        failed = match bad {
            0 => "none of which failed".to_owned(),
            1 => "1 of which failed".to_owned(),
            bad => format!("{bad} of which failed"),
        },
    );
    let mut listed = 0;
    for one in &report.policies {
        let (policy, good) = (&one.policy, one.succeeded);
        let _infallible = write!(
            text,
            "\r\n{} of {}: {good} good, {} failed\r\n",
            policy.found.kind(),
            policy.domain,
            one.failed
        );
        for (failure, count) in &one.failures {
            listed += 1;
            if listed > LISTED_MAX {
                continue;
            }
            let host = failure.mx.as_deref().unwrap_or("any host");
            let _infallible = write!(text, "  {}  {} at {host}", sessions(*count), failure.result);
            if let Some(address) = failure.receiving_ip {
                let _infallible = write!(text, " [{address}]");
            }
            if let Some(reason) = &failure.reason {
                let _infallible = write!(text, " ({reason})");
            }
            text.push_str("\r\n");
        }
    }
    if listed > LISTED_MAX {
        let _infallible = write!(
            text,
            "\r\nand {} more kinds of failure.\r\n",
            listed - LISTED_MAX
        );
    }
    let _infallible = write!(
        text,
        "\r\nThe attached file has all of it for programs to read. Questions go to {contact}.\r\n\
         You get this because the TXT record at _smtp._tls.{domain} asks for it.\r\n",
        contact = report.contact,
        domain = report.domain,
    );
    text
}

fn sessions(count: u64) -> String {
    if count == 1 {
        "1 session".to_owned()
    } else {
        format!("{count} sessions")
    }
}
