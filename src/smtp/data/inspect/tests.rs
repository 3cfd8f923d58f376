//! Tests of the facts and faults found in content.

use proptest::prelude::*;

use super::*;

fn inspected<'a>(
    limit: u64,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<ContentFacts, ContentFault> {
    let mut inspector = Inspector::new(limit, 2);
    for chunk in chunks {
        inspector.push(chunk)?;
    }
    inspector.finish()
}

fn inspected_text(content: &str) -> Result<ContentFacts, ContentFault> {
    inspected(1000, [content.as_bytes()])
}

#[test]
fn bare_cr_bare_lf_and_nul_are_rejected() {
    for (content, fault) in [
        ("a\rb\r\n", ContentFault::BareCr),
        ("a\r\r\n", ContentFault::BareCr),
        ("a\r", ContentFault::BareCr),
        ("a\nb\r\n", ContentFault::BareLf),
        ("\n", ContentFault::BareLf),
        ("a\r\n\n", ContentFault::BareLf),
        ("\0", ContentFault::Nul),
        ("Subject: a\0b\r\n", ContentFault::Nul),
        ("a: b\r\n\r\nc\r\n\0\r\n", ContentFault::Nul),
    ] {
        assert_eq!(inspected_text(content), Err(fault), "{content:?}");
    }
    for content in ["", "a", "a\r\n", "\r\n\r\n", "a: b\r\n\r\nc"] {
        assert_eq!(
            inspected_text(content),
            Ok(ContentFacts::default()),
            "{content:?}"
        );
    }
}

#[test]
fn a_first_line_with_a_leading_blank_is_rejected() {
    for content in [" a: b\r\n", "\ta", " ", " \r\n\r\n"] {
        assert_eq!(
            inspected_text(content),
            Err(ContentFault::BlankStart),
            "{content:?}"
        );
    }
    for content in ["a: b\r\n c\r\n", "\r\n a\r\n", "a\r\n b\r\n"] {
        assert_eq!(
            inspected_text(content),
            Ok(ContentFacts::default()),
            "{content:?}"
        );
    }
}

#[test]
fn the_limit_itself_is_allowed() {
    assert_eq!(inspected(4, [&b"ab\r\n"[..]]), Ok(ContentFacts::default()));
    assert_eq!(
        inspected(3, [&b"ab\r\n"[..]]),
        Err(ContentFault::TooLarge(3))
    );
    assert_eq!(
        inspected(4, [&b"ab\r\n"[..], b"c"]),
        Err(ContentFault::TooLarge(4))
    );
}

#[test]
fn received_fields_count_in_the_header_alone() {
    let field = "rECEIVED: by a\r\n";
    assert!(
        inspected_text(&format!("{field}{field}\r\n{field}")).is_ok(),
        "the body does not count"
    );
    assert!(
        inspected_text(&format!("{field}{field}no field\r\n{field}")).is_ok(),
        "neither does a body without header"
    );
    assert!(
        inspected_text(&format!(
            "{field}{field}X:\r\n {field}Received-SPF: a\r\nReceive: d\r\n"
        ))
        .is_ok()
    );
    assert_eq!(
        inspected_text(&format!(
            "{field}X: y\r\n{field} folded\r\nReceived : by b\r\n"
        )),
        Err(ContentFault::Loop(2))
    );
}

#[test]
fn needs_distinguish_header_and_body() {
    let needs = |eight_bit, utf8_header| {
        let needs = ContentNeeds {
            eight_bit,
            utf8_header,
        };
        Ok(ContentFacts {
            needs,
            ..ContentFacts::default()
        })
    };
    assert_eq!(
        inspected_text("Subject: a\r\n\r\nb\r\n"),
        needs(false, false)
    );
    assert_eq!(
        inspected_text("Subject: a\r\n\r\n\u{fc}\r\n"),
        needs(true, false)
    );
    assert_eq!(
        inspected_text("Subject: \u{fc}\r\n\r\nb\r\n"),
        needs(true, true)
    );
    assert_eq!(
        inspected_text("Subject: a\r\n \u{fc}\r\n\r\nb\r\n"),
        needs(true, true)
    );
    assert_eq!(inspected_text("\u{fc}: no field\r\n"), needs(true, false));
}

#[test]
fn the_first_message_id_is_kept_and_bounded() {
    let kept = |content: &str| {
        inspected(2000, [content.as_bytes()])
            .expect(content)
            .message_id
    };
    for (content, id) in [
        (
            "Message-ID: <a@b>\r\n\r\nMessage-ID: <body>\r\n",
            Some("<a@b>"),
        ),
        (
            "Received: by a\r\nmessage-id:\r\n\t<a@b>\r\nMessage-ID: <c@d>\r\n\r\n",
            Some("<a@b>"),
        ),
        ("Message-Id: <a\r\n b>\r\nSubject: c\r\n\r\n", Some("<ab>")),
        ("Message-ID: <\u{1b}[1m\u{fc}>\r\n\r\n", Some("<[1m\u{fc}>")),
        ("Message-ID:\r\nSubject: <a@b>\r\n\r\n", None),
        (
            "X-Message-ID: <a@b>\r\nReceived: by a\r\n Message-ID: <a@b>\r\n\r\n",
            None,
        ),
    ] {
        assert_eq!(kept(content).as_deref(), id, "{content:?}");
    }
    let long = kept(&format!("Message-ID: {}\r\n\r\n", "x".repeat(900))).expect("one");
    assert_eq!(long.len(), 255);
}

#[test]
fn tls_required_counts_only_in_the_form_of_the_rfc() {
    for header in [
        "TLS-Required: No\r\n",
        "tls-required:nO\r\n",
        "TLS-Required:\t \tNO\r\n",
        "TLS-Required:\r\n No\r\n",
        "Received: by a\r\nTLS-Required: No\r\nSubject: a\r\n",
        "TLS-Required: No\r\nX-TLS-Required: Yes\r\nTLS-Require: Yes\r\n",
    ] {
        for content in [
            header.to_owned(),
            format!("{header}\r\nbody\r\n"),
            format!("{header}no field\r\n"),
        ] {
            assert_eq!(
                inspected_text(&content).expect(&content).tls,
                TlsRequirement::Relaxed,
                "{content:?}"
            );
        }
    }
    for content in [
        "Subject: a\r\n\r\nTLS-Required: No\r\n",
        "no field\r\nTLS-Required: No\r\n",
        "TLS-Required: Yes\r\n",
        "TLS-Required:\r\n",
        "TLS-Required: N\r\n",
        "TLS-Required: None\r\n",
        "TLS-Required: N o\r\n",
        "TLS-Required: No \r\n",
        "TLS-Required: No\r\n \r\n",
        "TLS-Required: No\r\n way\r\n",
        "TLS-Required: No (please)\r\n",
        "TLS-Required: \"No\"\r\n",
        "TLS-Required: No; Yes\r\n",
        "TLS-Required : No\r\n",
        "X-TLS-Required: No\r\n",
        "TLS-Required-: No\r\n",
        "Received: by a\r\n TLS-Required: No\r\n",
        "TLS-Required: No\r\nTLS-Required: No\r\n",
        "TLS-Required: No\r\nSubject: a\r\nTLS-Required: Yes\r\n",
        "TLS-Required: Yes\r\nTLS-Required: No\r\n",
        "TLS-Required: No",
    ] {
        assert_eq!(
            inspected_text(content).expect(content).tls,
            TlsRequirement::Ordinary,
            "{content:?}"
        );
    }
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_chunk_sizes(
        pieces in proptest::collection::vec(
            prop_oneof![
                4 => Just("\r\n"), 1 => Just("\r"), 1 => Just("\n"), 1 => Just("\0"), 3 => Just("Received:"), 3 => Just("TLS-Required:"),
                3 => Just("Message-ID:"),
                2 => Just("No"), 2 => Just("x"),
                2 => Just(" "), 1 => Just("\u{fc}"), 1 => Just(":")
            ],
            0..30,
        ),
        limit in 10..80_u64,
        size in 1..5_usize,
    ) {
        let content = pieces.concat();
        let whole = inspected(limit, [content.as_bytes()]);
        prop_assert_eq!(inspected(limit, content.as_bytes().chunks(size)), whole);
    }
}

/// Returns the first fault of a body, found octet by octet.
fn first_fault_of(body: &[u8]) -> Option<ContentFault> {
    let mut before = b' ';
    for octet in body {
        match (before, *octet) {
            (b'\r', b'\n') => {}
            (b'\r', _) => return Some(ContentFault::BareCr),
            (_, b'\n') => return Some(ContentFault::BareLf),
            (_, 0) => return Some(ContentFault::Nul),
            (_, _) => {}
        }
        before = *octet;
    }
    (before == b'\r').then_some(ContentFault::BareCr)
}

proptest! {
    #[test]
    fn a_body_has_the_fault_that_comes_first(
        pieces in proptest::collection::vec(
            prop_oneof![
                20 => Just("\r\n"), 1 => Just("\r"), 1 => Just("\n"), 1 => Just("\0"), 10 => Just("x"), 10 => Just("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), 1 => Just("\u{fc}")
            ],
            0..40,
        ),
        size in 1..200_usize,
    ) {
        let body = pieces.concat();
        let content = format!("a: b\r\n\r\n{body}");
        let result = inspected(10_000, content.as_bytes().chunks(size));
        prop_assert_eq!(result.as_ref().err().copied(), first_fault_of(body.as_bytes()));
        if let Ok(facts) = result {
            prop_assert_eq!(facts.needs.eight_bit, !body.is_ascii());
        }
    }
}
