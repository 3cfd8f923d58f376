//! A report must pass where the message did not: seven bits, short lines, and no content rather
//! than no report.

use crate::support::in_process::{SENDER, World, connector, peer};

/// A host that knows no extension at all, as an old Exim.
async fn old(answers: &[(&'static str, &'static str)]) -> crate::support::peer::Peer {
    peer(&[], answers).await
}

async fn started(home: crate::support::peer::Peer) -> World {
    let bad = peer(
        &["8BITMIME", "SMTPUTF8"],
        &[("RCPT", "550 5.1.1 kein Benutzer für Sie")],
    )
    .await;
    let world = World::start_with(home, "", &[connector("bad.example", bad.address, "")]).await;
    // It lives as long as the test.
    std::mem::forget(bad);
    world
}

/// All mail that home has taken.
fn mail(world: &World) -> Vec<String> {
    world
        .home
        .messages()
        .into_iter()
        .map(|message| String::from_utf8(message).expect("UTF-8"))
        .collect()
}

fn assert_passes_everywhere(world: &World) {
    for message in mail(world) {
        assert!(message.is_ascii(), "{message}");
        assert!(!message.contains("8bit"), "{message}");
        assert!(
            message.split("\r\n").all(|line| line.len() <= 998),
            "{message}"
        );
    }
}

#[tokio::test]
async fn lines_that_smtp_does_not_allow_do_not_come_back() {
    let long = "x".repeat(1500);
    for (content, kind, returned, gone) in [
        (
            format!("Subject: minutes\r\n\r\n{long}\r\n"),
            "text/rfc822-headers",
            "Subject: minutes\r\n",
            Some(&*long),
        ),
        (
            format!("Subject: minutes {long}\r\n\r\nbody\r\n"),
            "text/rfc822-headers",
            &long,
            None,
        ),
        (
            format!("Subject: minutes\r\n\r\n{}\r\n", "x".repeat(998)),
            "message/rfc822",
            "xxxx\r\n",
            None,
        ),
    ] {
        let world = started(old(&[]).await).await;
        world
            .sends("<alice@sender.example>", &["<bob@bad.example>"], &content)
            .await;
        let report = world.the_report().await;
        report.only("bob@bad.example", "failed", "5.1.1");
        assert_eq!(report.returned.0, kind);
        assert!(report.returned.1.contains(returned), "{}", report.whole);
        assert!(
            gone.is_none_or(|gone| !report.returned.1.contains(gone)),
            "{}",
            report.whole
        );
        assert_passes_everywhere(&world);
        world.ends().await;
    }
}

#[tokio::test]
async fn a_sender_whose_host_accepts_seven_bits_gets_a_report() {
    let plain = "Subject: minutes\r\n\r\nbody\r\n";
    for (from, to, content, kind, returned) in [
        (
            "<alice@sender.example> BODY=8BITMIME",
            "<bob@bad.example>",
            "Subject: minutes\r\n\r\nWörter\r\n",
            "text/rfc822-headers",
            "Subject: minutes\r\n",
        ),
        (
            "<alice@sender.example> BODY=8BITMIME",
            "<bob@bad.example>",
            "Subject: für bö\r\n\r\nbody\r\n",
            "text/rfc822-headers",
            "Subject: für bö\r\n",
        ),
        (
            "<alice@sender.example> SMTPUTF8 BODY=8BITMIME",
            "<bob@bad.example>",
            "Subject: für bö\r\n\r\nWörter\r\n",
            "message/global",
            "Wörter\r\n",
        ),
        (
            "<alice@sender.example> SMTPUTF8 BODY=8BITMIME RET=HDRS",
            "<bob@bad.example>",
            "Subject: für bö\r\n\r\nWörter\r\n",
            "message/global-headers",
            "Subject: für bö\r\n",
        ),
        (
            "<alice@sender.example> SMTPUTF8",
            "<bö@bad.example>",
            plain,
            "message/rfc822",
            "body\r\n",
        ),
    ] {
        let world = started(old(&[]).await).await;
        world.sends(from, &[to], content).await;
        let report = world.the_report().await;
        assert_eq!(report.kind, "message/delivery-status");
        let recipient = if to.is_ascii() {
            "bob@bad.example"
        } else {
            "b\\x{F6}@bad.example"
        };
        report.only(recipient, "failed", "5.1.1");
        assert!(
            report.text.contains("kein Benutzer für Sie"),
            "{}",
            report.text
        );
        assert_eq!(report.returned.0, kind, "{content:?}");
        assert!(report.returned.1.contains(returned), "{}", report.whole);
        assert_passes_everywhere(&world);
        world.ends().await;
    }
}

/// Whatever in what is returned has displeased the host: without that it passes.
#[tokio::test]
async fn a_report_that_is_refused_is_sent_once_more_as_plain_text() {
    for (at, first) in [
        (".", "554 5.7.1 it looks like spam"),
        ("MAIL", "552 5.3.4 too large"),
    ] {
        let manner = crate::support::peer::Manner::new(crate::support::peer::Starttls::NotOffered);
        let home = crate::support::peer::Peer::start(
            manner.answer_after(1, at, "250 ok").answer(at, first),
        )
        .await;
        let world = started(home).await;
        let id = world
            .sends(
                "<alice@sender.example>",
                &["<bob@bad.example>"],
                "Subject: s\r\n\r\nThe very words.\r\n",
            )
            .await;
        world.is_done().await;
        // If MAIL was refused, the commands that were pipelined after it end in an empty message
        // (RFC 2920 §3.1).
        let mail: Vec<_> = mail(&world)
            .into_iter()
            .filter(|message| !message.is_empty())
            .collect();
        let [message] = &mail[..] else {
            panic!("{mail:#?}")
        };
        let to: Vec<_> = world
            .home
            .heard()
            .into_iter()
            .flat_map(|heard| heard.commands)
            .collect();
        assert!(
            to.iter().all(|line| !line.starts_with("RCPT")
                || line.starts_with(&format!("RCPT TO:<{SENDER}>")))
        );
        assert_eq!(
            to.iter()
                .filter(|line| line.starts_with("MAIL FROM:<>"))
                .count(),
            2,
            "{to:?}"
        );
        for words in [
            "\r\nTo: <alice@sender.example>\r\n",
            "\r\nSubject: Undelivered mail returned to sender\r\n",
            "\r\nAuto-Submitted: auto-replied\r\n",
            "\r\nMIME-Version: 1.0\r\n",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "<bob@bad.example>:\r\n",
            "550 5.1.1 kein Benutzer f=C3=",
            &id,
        ] {
            assert!(
                message.contains(words),
                "{words:?} is missing from\n{message}"
            );
        }
        for words in [
            "multipart",
            "very words",
            "Subject: s\r\n",
            "Reporting-MTA",
            "=_gatepost",
        ] {
            assert!(!message.contains(words), "{words:?} is in\n{message}");
        }
        assert_passes_everywhere(&world);
        world.ends().await;
    }
}

/// Twice refused, the postmaster has it, and then it ends.
#[tokio::test]
async fn a_report_that_is_refused_as_plain_text_too_goes_to_the_postmaster() {
    for before in [2, 100] {
        let manner = crate::support::peer::Manner::new(crate::support::peer::Starttls::NotOffered);
        let manner = manner
            .answer_after(before, ".", "250 ok")
            .answer(".", "554 5.7.1 it looks like spam");
        let world = started(crate::support::peer::Peer::start(manner).await).await;
        world
            .sends(
                "<alice@sender.example>",
                &["<bob@bad.example>"],
                "Subject: s\r\n\r\nThe very words.\r\n",
            )
            .await;
        world.is_done().await;
        let heard: Vec<_> = world
            .home
            .heard()
            .into_iter()
            .flat_map(|heard| heard.commands)
            .collect();
        let to: Vec<_> = heard
            .iter()
            .filter(|line| line.starts_with("RCPT"))
            .map(String::as_str)
            .collect();
        let (alice, postmaster) = (
            "RCPT TO:<alice@sender.example>",
            "RCPT TO:<postmaster@example.com>",
        );
        if before == 2 {
            assert_eq!(to, [alice, alice, postmaster]);
            let digest = String::from_utf8(world.home.messages().remove(0)).expect("ASCII");
            assert!(
                digest.contains("<alice@sender.example>:\r\n") && digest.contains("(5.7.1)"),
                "{digest}"
            );
        } else {
            assert_eq!(to, [alice, alice, postmaster, postmaster]);
        }
        world.ends().await;
    }
}

/// Another form would not help: nobody is asked twice.
#[tokio::test]
async fn a_report_to_nobody_is_not_sent_again() {
    let manner = crate::support::peer::Manner::new(crate::support::peer::Starttls::NotOffered);
    let home = crate::support::peer::Peer::start(
        manner.answer("RCPT TO:<alice@", "550 5.1.1 she has left"),
    )
    .await;
    let world = started(home).await;
    world
        .sends(
            "<alice@sender.example>",
            &["<bob@bad.example>"],
            "Subject: s\r\n\r\nThe very words.\r\n",
        )
        .await;
    world.is_done().await;
    let heard: Vec<_> = world
        .home
        .heard()
        .into_iter()
        .flat_map(|heard| heard.commands)
        .collect();
    assert_eq!(
        heard
            .iter()
            .filter(|line| line.starts_with("RCPT TO:<alice@"))
            .count(),
        1,
        "{heard:?}"
    );
    world.ends().await;
}
