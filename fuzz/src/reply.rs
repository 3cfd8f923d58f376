//! Replies of a peer: the same in pieces as in one piece, bounded, and the same reply when written
//! out again.

use gatepost::smtp::client::Extensions;
use gatepost::smtp::reply::{EnhancedStatusCode, Reply, ReplyError, ReplyParser};

use crate::cuts::Cuts;

/// The maximum length of a line in octets, and the maximum number of lines of a reply.
const LINE_MAX: usize = 4096;
const LINES_MAX: usize = 128;
/// The maximum length in octets of the text that is stored of a reply, and of the text that
/// outlives its session.
const TEXT_MAX: usize = 8192;
const BRIEF_MAX: usize = 1024;

pub(crate) fn run(input: &[u8]) {
    let (cuts, wire) = Cuts::take(input);
    let whole = parsed([wire]);
    assert_eq!(parsed(cuts.pieces(wire)), whole, "where the input is cut makes a difference");
    whole.0.iter().for_each(check);
}

fn parsed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Reply>, Option<ReplyError>) {
    let (mut parser, mut replies, mut buffer) = (ReplyParser::default(), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (used, reply) = match parser.parse(&buffer) {
                Ok(parsed) => parsed,
                Err(fault) => {
                    assert!(fault.to_string().len() <= 4096, "an error of {} octets", fault.to_string().len());
                    return (replies, Some(fault));
                }
            };
            buffer.drain(..used);
            let Some(reply) = reply else { break };
            assert!(used > 0, "a reply out of nothing");
            replies.push(reply);
        }
        assert!(buffer.len() <= LINE_MAX, "{} octets wait for the end of a line", buffer.len());
    }
    (replies, None)
}

fn check(reply: &Reply) {
    let lines = reply.lines();
    assert!((200..=599).contains(&reply.code().get()), "the code {}", reply.code());
    assert!((1..=LINES_MAX).contains(&lines.len()), "{} lines", lines.len());
    let octets: usize = lines.iter().map(|line| line.len()).sum();
    assert!(octets <= TEXT_MAX, "{octets} octets are kept");
    assert!(!lines.iter().any(|line| line.chars().any(char::is_control)), "a control character: {lines:?}");
    assert!(reply.enhanced().is_none_or(|status| status.severity() == reply.severity()), "two severities: {reply}");
    let _ = Extensions::of(reply);
    let brief = reply.clone().shortened();
    let kept: usize = brief.lines().iter().map(|line| line.len()).sum();
    assert!(kept <= BRIEF_MAX && !brief.lines().is_empty(), "{kept} octets are kept for long");
    assert_eq!((brief.code(), brief.enhanced()), (reply.code(), reply.enhanced()), "its codes are not kept");
    let is_status = |line: &str| line.split(' ').next().is_some_and(|word| EnhancedStatusCode::parse(word).is_some());
    // In a reply without a status, a line may begin with text that looks like one.
    let is_ambiguous = reply.enhanced().is_none() && lines.iter().skip(1).any(|line| is_status(line));
    if !is_ambiguous && lines.iter().all(|line| line.len() + 20 < LINE_MAX) {
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        assert_eq!(parsed([&wire[..]]), (vec![reply.clone()], None), "written as {}", wire.escape_ascii());
    }
}
