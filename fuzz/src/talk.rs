//! Checks of our own replies and commands, as they are sent.

use gatepost::smtp::reply::{Reply, ReplyParser};

/// The maximum length of a reply line, in octets (RFC 5321 §4.5.3.1.5).
const REPLY_LINE_MAX: usize = 512;

/// Checks one of our replies: short lines of ASCII that every parser reads as one reply.
pub(crate) fn check_reply(reply: &Reply) {
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    for line in lines(&wire) {
        assert!(line.len() + 2 <= REPLY_LINE_MAX, "a reply line of {} octets: {reply}", line.len() + 2);
    }
    assert!(wire.is_ascii(), "a reply is not ASCII: {reply}");
    let (used, read) = ReplyParser::default().parse(&wire).expect("a reply of ours can be read");
    assert_eq!((used, read.as_ref()), (wire.len(), Some(reply)), "a reply of ours is read as another");
}

/// Checks that text is complete lines with CRLF ends and no other control character; returns the
/// lines.
pub(crate) fn lines(wire: &[u8]) -> Vec<&[u8]> {
    let Some(front) = wire.strip_suffix(b"\r\n") else {
        assert!(wire.is_empty(), "the last line has no end: {}", wire.escape_ascii());
        return Vec::new();
    };
    let lines: Vec<&[u8]> = split_lines(front);
    for line in &lines {
        assert!(!line.iter().any(u8::is_ascii_control), "a control character in {}", line.escape_ascii());
    }
    lines
}

fn split_lines(text: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut start) = (Vec::new(), 0);
    for at in 0..text.len().saturating_sub(1) {
        if &text[at..at + 2] == b"\r\n" && at >= start {
            lines.push(&text[start..at]);
            start = at + 2;
        }
    }
    lines.push(&text[start..]);
    lines
}
