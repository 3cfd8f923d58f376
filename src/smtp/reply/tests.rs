//! Tests of reading, shortening and writing replies.

use super::*;

fn wire(reply: &Reply) -> String {
    let mut out = Vec::new();
    reply.write_to(&mut out);
    String::from_utf8(out).expect("replies are UTF-8")
}

#[test]
fn both_codes_share_one_severity() {
    assert_eq!(
        wire(&Reply::new(451, Status(4, 3), "try later")),
        "451 4.4.3 try later\r\n"
    );
    assert_eq!(
        wire(&Reply::new(550, Status(7, 1), "no")),
        "550 5.7.1 no\r\n"
    );
    assert_eq!(
        wire(&Reply::multiline(250, vec!["a".into(), "b".into()])),
        "250-a\r\n250 b\r\n"
    );
}

#[test]
fn no_text_can_end_a_reply_early() {
    assert_eq!(
        wire(&Reply::bare(250, "a\r\n250 b".to_owned())),
        "250 a??250 b\r\n"
    );
}

#[test]
fn replies_are_read_in_pieces() {
    let mut parser = ReplyParser::default();
    assert_eq!(parser.parse(b"250-a.exam"), Ok((0, None)));
    assert_eq!(
        parser.parse(b"250-a.example\r\n250-SIZE\r\n250"),
        Ok((25, None))
    );
    let (used, reply) = parser.parse(b"250 OK\r\n250 next\r\n").expect("a reply");
    assert_eq!(
        (used, wire(&reply.expect("complete"))),
        (8, "250-a.example\r\n250-SIZE\r\n250 OK\r\n".into())
    );
}

/// RFC 5321 §4.2: some servers leave the text out, and some the space as well.
#[test]
fn a_code_alone_is_a_reply() {
    for line in ["250\r\n", "250 \r\n"] {
        let (used, reply) = ReplyParser::default()
            .parse(line.as_bytes())
            .expect("a reply");
        assert_eq!(
            (used, reply.map(|reply| reply.code().get())),
            (line.len(), Some(250)),
            "{line:?}"
        );
    }
}

#[test]
fn a_status_of_another_class_is_only_text() {
    let (_, reply) = ReplyParser::default()
        .parse(b"451 5.7.1 odd\r\n")
        .expect("a reply");
    assert_eq!(
        reply.map(|r| (r.enhanced(), r.to_string())),
        Some((None, "451 5.7.1 odd".into()))
    );
}

#[test]
fn malformed_replies_are_errors() {
    for line in [
        "hello\r\n",
        "25\r\n",
        "199 x\r\n",
        "250+x\r\n",
        "999 x\r\n",
        "\r\n",
    ] {
        assert!(
            matches!(
                ReplyParser::default().parse(line.as_bytes()),
                Err(ReplyError::NotAReply(_))
            ),
            "{line:?}"
        );
    }
    assert!(matches!(
        ReplyParser::default().parse(b"250-a\r\n550 b\r\n"),
        Err(ReplyError::CodeChanged { .. })
    ));
    assert_eq!(
        ReplyParser::default().parse(&[b'2'; 5000]),
        Err(ReplyError::TooLong)
    );
    assert_eq!(
        ReplyParser::default().parse("250-x\r\n".repeat(200).as_bytes()),
        Err(ReplyError::TooLong)
    );
}

fn text_of(reply: &Reply) -> usize {
    reply.lines().iter().map(|line| line.len()).sum()
}

#[test]
fn the_text_kept_of_a_reply_is_bounded() {
    let read = |text: &str| {
        let (used, reply) = ReplyParser::default()
            .parse(text.as_bytes())
            .expect("a reply");
        assert_eq!(used, text.len());
        reply.expect("complete")
    };
    let long = format!("250-{}\r\n", "X".repeat(4000)).repeat(60);
    let reply = read(&format!(
        "250-a.example\r\n{long}250-SIZE 1000\r\n250 STARTTLS\r\n"
    ));
    assert!(
        text_of(&reply) <= TEXT_MAX,
        "{} octets are kept",
        text_of(&reply)
    );
    let (first, last) = (&reply.lines()[0], &reply.lines()[reply.lines().len() - 2..]);
    assert_eq!(
        (&**first, last),
        ("a.example", &["SIZE 1000".into(), "STARTTLS".into()][..]),
        "where there is room"
    );
    assert!(
        reply.lines()[1..3].iter().all(|line| line.len() == 4000) && reply.lines().len() == 5,
        "whole lines"
    );
    // Each of these octets is invalid UTF-8, and is replaced by three octets.
    let (_, reply) = ReplyParser::default()
        .parse(&[&b"550 "[..], &[0xff; 4000], b"\r\n"].concat())
        .expect("a reply");
    assert!(text_of(&reply.expect("complete")) <= TEXT_MAX);
    let endless = ReplyParser::default().parse(
        format!("250-{}\r\n", "x".repeat(4000))
            .repeat(200)
            .as_bytes(),
    );
    assert_eq!(
        endless,
        Err(ReplyError::TooLong),
        "what is passed over counts as a line"
    );
}

#[test]
fn a_shortened_reply_keeps_its_beginning() {
    let short = Reply::multiline(550, vec!["a".into(), "b".into()]);
    assert_eq!(short.clone().shortened(), short);
    let long = Reply {
        status: Some(Status(1, 1)),
        ..Reply::multiline(550, vec!["ä".repeat(300).into(); 9])
    };
    let shortened = long.clone().shortened();
    assert_eq!(
        (
            shortened.code(),
            shortened.enhanced(),
            shortened.lines().len()
        ),
        (long.code(), long.enhanced(), 2)
    );
    assert_eq!(
        (text_of(&shortened), &shortened.lines()[0]),
        (SHORTENED_MAX, &long.lines()[0])
    );
    assert_eq!(Reply::bare(250, "").shortened(), Reply::bare(250, ""));
}

#[test]
fn enhanced_codes_are_strict() {
    assert_eq!(
        EnhancedStatusCode::parse("5.7.1").map(|c| c.to_string()),
        Some("5.7.1".into())
    );
    for text in ["3.1.1", "5.7", "5.7.1.1", "5..1", "5.7.1234", "5.+7.1", ""] {
        assert_eq!(EnhancedStatusCode::parse(text), None, "{text}");
    }
}
