//! Tests of the text of reports and of their envelopes.

use super::*;
use crate::smtp::reply::{EnhancedStatusCode, Reply, Status};

fn trouble() -> AttemptFailure {
    AttemptFailure {
        at: Timestamp::UNIX_EPOCH,
        status: EnhancedStatusCode::permanent(Status(1, 1)),
        text: "mx.example.net [192.0.2.1]:25: answered RCPT TO with: 550 5.1.1 no such user".into(),
        explanation: None,
        host: Some("mx.example.net".into()),
        reply: Some(Reply::new(550, Status(1, 1), "no such user")),
    }
}

fn envelope(from: &str) -> Envelope {
    let mut recipient = Recipient::new(Mailbox::parse("b@example.net").expect("valid"));
    recipient.orcpt = Some("rfc822;B+2Bx@example.net".into());
    Envelope::new(ReversePath::parse(from).expect("valid"), vec![recipient])
}

fn report_on(envelope: &Envelope, action: Action, last: &AttemptFailure) -> ReportMessage {
    report_all(
        envelope,
        action,
        &[ReportedRecipient {
            recipient: &envelope.recipients[0],
            last,
        }],
    )
}

fn report_all(
    envelope: &Envelope,
    action: Action,
    recipients: &[ReportedRecipient<'_>],
) -> ReportMessage {
    let hostname = Domain::parse("relay.example.com").expect("valid");
    let id = QueueId::from_number(1).expect("small");
    let (accepted, now) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    let returned = content_to_return(action, envelope, 100);
    let postmaster = &Mailbox::parse("p@example.com").expect("valid");
    let original = ORIGINAL;
    let about = ReportContext {
        hostname: &hostname,
        id,
        accepted,
        now,
        postmaster,
        envelope,
        returned,
        original,
    };
    let to = match &envelope.reverse_path {
        ReversePath::Mailbox(sender) if !sender.is_ascii() => sender.clone(),
        _ => Mailbox::parse("a@example.org").expect("valid"),
    };
    write(
        &about,
        action,
        recipients,
        &to,
        QueueId::from_number(2).expect("small"),
    )
}

const ORIGINAL: &[u8] = b"Subject: test\r\n\r\nbody\r\n";

fn text(report: &ReportMessage) -> &str {
    std::str::from_utf8(&report.content).expect("UTF-8")
}

#[test]
fn a_delay_says_until_when_and_returns_no_content() {
    let report = report_on(
        &envelope("a@example.org"),
        Action::Delayed(Some(Timestamp::UNIX_EPOCH)),
        &trouble(),
    );
    for words in [
        "Action: delayed\r\n",
        "Will-Retry-Until: Thu, 1 Jan 1970",
        "A WARNING ONLY",
        "text/rfc822-headers\r\n",
    ] {
        assert!(
            text(&report).contains(words),
            "{words:?} is missing from\n{}",
            text(&report)
        );
    }
}

/// An explanation comes first, and the details after it; recipients for whom both are the same
/// share them.
#[test]
fn an_unmet_policy_is_explained_before_its_details() {
    let explanation = |text: &str| AttemptFailure {
        status: EnhancedStatusCode::permanent(Status(7, 4)),
        text: "mx.example.net: TLS is demanded".to_owned(),
        explanation: Some(text.to_owned()),
        ..trouble()
    };
    let (one, other) = (
        explanation("The mail system sends only encrypted."),
        explanation("The certificate has expired."),
    );
    let mut envelope = envelope("a@example.org");
    let more = ["c@example.net", "d@example.net"];
    envelope
        .recipients
        .extend(more.map(|text| Recipient::new(Mailbox::parse(text).expect("valid"))));
    let lasts = [&one, &one, &other];
    let recipients = envelope
        .recipients
        .iter()
        .zip(lasts)
        .map(|(recipient, last)| ReportedRecipient { recipient, last });
    let report = report_all(&envelope, Action::Failed, &recipients.collect::<Vec<_>>());
    let details = "Details for administrators: 5.7.4 mx.example.net: TLS is demanded\r\n";
    let expected = format!(
        "\r\n<b@example.net>:\r\n<c@example.net>:\r\n    The mail system sends only encrypted.\r\n\r\n    {details}\r\n\
         <d@example.net>:\r\n    The certificate has expired.\r\n\r\n    {details}\r\n\
         The administrators of relay.example.com: <p@example.com>\r\n"
    );
    assert!(text(&report).contains(&expected), "{}", text(&report));
    assert!(
        !text(&report).contains("A security policy"),
        "{}",
        text(&report)
    );
    let field = "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n";
    assert_eq!(
        text(&report).matches(field).count(),
        3,
        "the part for programs stays technical"
    );

    let refused = AttemptFailure {
        explanation: None,
        ..one.clone()
    };
    let report = report_on(&envelope, Action::Failed, &refused);
    assert!(
        text(&report)
            .contains("A security policy of relay.example.com or of the recipient's domain")
            && !text(&report).contains("The administrators of relay.example.com:")
    );
}

#[test]
fn a_held_message_is_not_announced_as_retried() {
    let report = report_on(
        &envelope("a@example.org"),
        Action::Delayed(None),
        &trouble(),
    );
    for words in [
        "Subject: Delayed mail (held",
        "until an administrator decides",
        "Action: delayed\r\n",
    ] {
        assert!(
            text(&report).contains(words),
            "{words:?} is missing from\n{}",
            text(&report)
        );
    }
    assert!(
        !text(&report).contains("Will-Retry-Until") && !text(&report).contains("tried"),
        "{}",
        text(&report)
    );
}

#[test]
fn a_report_has_the_fields_of_rfc_3464() {
    let report = report_on(&envelope("a@example.org"), Action::Failed, &trouble());
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
        assert!(
            text(&report).contains(field),
            "{field:?} is missing from\n{}",
            text(&report)
        );
    }
    assert!(
        text(&report).lines().all(|line| line.len() <= 78),
        "{}",
        text(&report)
    );
    assert_eq!(report.envelope.reverse_path, ReversePath::Null);
}

#[test]
fn no_line_is_too_long_and_every_part_passes_everywhere() {
    let mut last = trouble();
    last.text = format!("{} {}", "ü".repeat(2000), "x".repeat(2000));
    for reply in ["ü".repeat(3000), "x".repeat(4000), "ü and x".into()] {
        last.reply = Some(Reply::bare(550, reply));
        for recipient in [
            "b@example.net".to_owned(),
            "bü@example.net".to_owned(),
            format!("{}@example.net", "ü".repeat(32)),
        ] {
            let mut envelope = envelope("a@example.org");
            envelope.recipients[0].mailbox = Mailbox::parse(&recipient).expect("valid");
            envelope.recipients[0].orcpt = Some(format!("utf-8;{}@example.net", "ü".repeat(30)));
            let report = report_on(&envelope, Action::Failed, &last);
            let text = text(&report);
            assert!(
                text.is_ascii()
                    && text
                        .split("\r\n")
                        .all(|line| line.len() <= 998 && !line.contains(['\r', '\n']))
            );
            assert!(
                !report.envelope.needs.eight_bit
                    && !report.envelope.smtputf8
                    && !text.contains("8bit")
            );
            let people = between(text, "Content-Type: text/plain", "--=_");
            assert!(
                people.contains("Content-Transfer-Encoding: quoted-printable\r\n"),
                "{people}"
            );
            let status = between(text, "Content-Type: message/delivery-status", "--=_");
            assert!(
                !status.contains("quoted-printable"),
                "RFC 3464 §2.1: {status}"
            );
        }
    }
    let plain = report_on(&envelope("a@example.org"), Action::Failed, &trouble());
    assert!(
        !text(&plain).contains("Content-Transfer-Encoding"),
        "{}",
        text(&plain)
    );
}

/// Mail to such a sender needs SMTPUTF8, so every server on the way offers 8BITMIME.
#[test]
fn a_sender_outside_ascii_gets_an_8bit_report() {
    let mut last = trouble();
    last.reply = Some(Reply::bare(550, "ü and x"));
    let mut envelope = envelope("ä@example.org");
    let report = report_on(&envelope, Action::Failed, &last);
    let status = between(
        text(&report),
        "Content-Type: message/delivery-status",
        "--=_",
    );
    assert!(
        status.is_ascii() && !status.contains("8bit"),
        "RFC 3464 §2.1: {status}"
    );
    // An address outside ASCII changes the content type of the part, and the new type allows 8-bit
    // content.
    envelope.recipients[0].mailbox = Mailbox::parse("bü@example.net").expect("valid");
    let report = report_on(&envelope, Action::Failed, &last);
    let status = between(
        text(&report),
        "Content-Type: message/global-delivery-status",
        "--=_",
    );
    assert!(
        status.contains("8bit\r\n")
            && status.contains("Final-Recipient: utf-8; bü@example.net\r\n")
    );
    assert!(
        status.contains("Diagnostic-Code: smtp; 550 ü and x\r\n"),
        "{status}"
    );
    assert!(text(&report)[..text(&report).find("--=_").expect("a part")].contains("8bit"));
    assert!(report.envelope.needs.eight_bit && report.envelope.smtputf8);
}

/// The 7-bit form would make the line too long.
#[test]
fn a_part_with_a_line_too_long_in_7bit_is_encoded() {
    let mut envelope = envelope("a@example.org");
    let orcpt = format!("utf-8;{}@example.net", "ü".repeat(240));
    envelope.recipients[0].orcpt = Some(orcpt);
    let report = report_on(&envelope, Action::Failed, &trouble());
    let status = between(
        text(&report),
        "Content-Type: message/global-delivery-status",
        "--=_",
    );
    assert!(
        status.contains("Content-Transfer-Encoding: quoted-printable\r\n")
            && status.contains("=C3=BC"),
        "{status}"
    );
    assert!(text(&report).is_ascii() && text(&report).split("\r\n").all(|line| line.len() <= 998));
}

#[test]
fn the_plain_form_has_the_text_and_nothing_else() {
    let hostname = Domain::parse("relay.example.com").expect("valid");
    for last in [
        trouble(),
        AttemptFailure {
            text: "gar nicht übel".into(),
            ..trouble()
        },
    ] {
        let full = report_on(&envelope("a@example.org"), Action::Failed, &last);
        let [id, new] = [2, 3].map(|number| QueueId::from_number(number).expect("small"));
        let refused = RejectedReport {
            id,
            envelope: &full.envelope,
            content: &full.content,
        };
        let plain = write_text_only(&refused, &hostname, Timestamp::UNIX_EPOCH, new)
            .expect("a report of ours");
        let text = text(&plain);
        for words in [
            "To: <a@example.org>\r\n",
            "Subject: Undelivered mail returned to sender\r\n",
            "Message-ID: <0000000000003@relay.example.com>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "\r\n<b@example.net>:\r\n",
            "did not accept the full report",
        ] {
            assert!(text.contains(words), "{words:?} is missing from\n{text}");
        }
        assert!(
            text.is_ascii() && !text.contains("--=_") && !text.contains("Reporting-MTA"),
            "{text}"
        );
        assert_eq!(text.contains("quoted-printable"), !last.text.is_ascii());
        assert_eq!(
            (plain.envelope.report, &plain.envelope.recipients),
            (Some(ReportForm::Plain), &full.envelope.recipients)
        );
        // A text-only report has no parts to extract the text from.
        let again = RejectedReport {
            id: new,
            envelope: &plain.envelope,
            content: &plain.content,
        };
        assert!(super::write_text_only(&again, &hostname, Timestamp::UNIX_EPOCH, id).is_none());
    }
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let begin = text
        .find(from)
        .unwrap_or_else(|| panic!("{from:?} is missing from\n{text}"));
    &text[begin..begin + text[begin..].find(to).expect("an end")]
}

#[test]
fn content_is_returned_in_full_only_if_allowed() {
    use Action::{Failed, Relayed};
    use ReturnedContent::{Full, Headers};

    let (known, stranger) = (ClientOrigin::Known, ClientOrigin::Stranger);
    let full = Some(Ret::Full);
    for (action, ret, size, confidential, origin, wanted) in [
        (Failed, None, 100, false, known, Full),
        (Failed, full, FULL_RETURN_MAX, false, known, Full),
        (Failed, None, FULL_RETURN_MAX + 1, false, known, Headers),
        (Failed, full, 100, true, known, Headers),
        (Failed, Some(Ret::Hdrs), 100, false, known, Headers),
        (Relayed, full, 100, false, known, Headers),
        (Failed, None, 100, false, stranger, Headers),
        (Failed, full, 100, false, stranger, Headers),
    ] {
        let envelope = Envelope {
            ret,
            origin,
            confidential,
            ..envelope("a@example.org")
        };
        assert_eq!(
            content_to_return(action, &envelope, size),
            wanted,
            "{ret:?} {size} {confidential} {origin:?}"
        );
    }
}

/// One message may have a thousand recipients that all fail with long reasons.
#[test]
fn a_report_about_a_thousand_recipients_is_bounded() {
    let last = AttemptFailure {
        text: "xy ".repeat(700),
        reply: Some(Reply::bare(550, "xy ".repeat(250))),
        ..trouble()
    };
    let name =
        |number: usize| Mailbox::parse(&format!("b{number}@d{number}.example.net")).expect("valid");
    let recipients: Vec<Recipient> = (0..1000)
        .map(|number| Recipient::new(name(number)))
        .collect();
    let envelope = Envelope::new(
        ReversePath::parse("a@example.org").expect("valid"),
        recipients,
    );
    let recipients: Vec<_> = envelope
        .recipients
        .iter()
        .map(|recipient| ReportedRecipient {
            recipient,
            last: &last,
        })
        .collect();
    let report = report_all(&envelope, Action::Failed, &recipients);
    assert!(
        report.content.len() < 600_000,
        "{} octets",
        report.content.len()
    );
    for number in [0, 999] {
        let (name, text) = (name(number), text(&report));
        assert!(
            text.contains(&format!("<{name}>:"))
                && text.contains(&format!("Final-Recipient: rfc822; {name}\r\n"))
        );
    }
    // With few recipients, reasons are not cut.
    let report = report_all(&envelope, Action::Failed, &recipients[..20]);
    assert_eq!(text(&report).matches("xy").count(), 20 * (700 + 250));
}

#[test]
fn a_message_that_required_tls_returns_headers_alone_under_the_same_demand() {
    for (tls, part, report_tls) in [
        (
            TlsRequirement::Require,
            ReturnedContent::Headers,
            TlsRequirement::Require,
        ),
        (
            TlsRequirement::Relaxed,
            ReturnedContent::Full,
            TlsRequirement::Ordinary,
        ),
        (
            TlsRequirement::Ordinary,
            ReturnedContent::Full,
            TlsRequirement::Ordinary,
        ),
    ] {
        for ret in [None, Some(Ret::Full)] {
            let envelope = Envelope {
                ret,
                tls,
                ..envelope("a@example.org")
            };
            assert_eq!(
                content_to_return(Action::Failed, &envelope, 100),
                part,
                "{tls:?} {ret:?}"
            );
            for action in [Action::Failed, Action::Delayed(None), Action::Relayed] {
                let report = report_on(&envelope, action, &trouble());
                assert_eq!(report.envelope.tls, report_tls, "{tls:?} {action:?}");
                assert!(!text(&report).contains("TLS-Required"), "{}", text(&report));
            }
        }
    }
}

#[test]
fn header_fields_end_at_the_first_line_that_is_not_a_field() {
    for (message, fields) in [
        (
            "A: b\r\n c\r\nD:\r\n\r\ncontent\r\n",
            "A: b\r\n c\r\nD:\r\n",
        ),
        (
            "A: b\r\ncontent without a blank line\r\nE: f\r\n",
            "A: b\r\n",
        ),
        ("A: b\r\nno colon\r\n", "A: b\r\n"),
        ("A: b\r\n: c\r\n", "A: b\r\n"),
        (" no field begins so\r\n", ""),
        ("\r\ncontent\r\n", ""),
        ("A: cut sho", ""),
        ("", ""),
    ] {
        assert_eq!(
            header_fields(message.as_bytes()),
            fields.as_bytes(),
            "{message:?}"
        );
    }
}

#[test]
fn notify_is_honoured() {
    let mut recipient = Recipient::new(Mailbox::parse("b@example.net").expect("valid"));
    let sender = ReversePath::parse("a@example.org").expect("valid");
    let on = |success, failure, delay| {
        Some(Notify::On {
            success,
            failure,
            delay,
        })
    };
    for (notify, wanted) in [
        (None, [true, true, false]),
        (Some(Notify::Never), [false, false, false]),
        (on(true, false, false), [false, false, true]),
        (on(false, true, false), [true, false, false]),
        (on(false, false, true), [false, true, false]),
    ] {
        recipient.notify = notify;
        let actions = [
            Action::Failed,
            Action::Delayed(Some(Timestamp::UNIX_EPOCH)),
            Action::Relayed,
        ];
        assert_eq!(
            actions.map(|action| is_requested(&sender, &recipient, action)),
            wanted,
            "{notify:?}"
        );
        // The failure of a report concerns our postmaster, although reports carry NOTIFY=NEVER.
        let requested = actions.map(|action| is_requested(&ReversePath::Null, &recipient, action));
        assert_eq!(requested, [true, false, false], "{notify:?}");
    }
}
