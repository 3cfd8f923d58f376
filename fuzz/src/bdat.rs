//! BDAT: chunks of any size give the message that they are parts of, or none if its content is
//! invalid.

use std::io::Write as _;

use gatepost::smtp::server::Channel;

use crate::cuts::Cuts;
use crate::data;
use crate::session::{self, Dialogue};

/// The maximum number of chunks of one message.
const CHUNKS_MAX: usize = 40;

pub(crate) fn run(input: &[u8]) {
    let (cuts, mut rest) = Cuts::take(input);
    let (mut wire, mut content, mut chunks) = (Vec::new(), Vec::new(), 0);
    let mut is_last = false;
    while let Some((head, more)) = rest.split_first()
        && !is_last
    {
        chunks += 1;
        is_last = head & 0x80 != 0 || chunks == CHUNKS_MAX;
        let (chunk, more) = more.split_at(usize::from(head & 0x7f).min(more.len()));
        command(&mut wire, chunk.len(), is_last);
        wire.extend_from_slice(chunk);
        content.extend_from_slice(chunk);
        rest = more;
    }
    if !is_last {
        chunks += 1;
        command(&mut wire, 0, true);
    }
    wire.extend_from_slice(b"NOOP\r\n");
    // This session is not closed for errors.
    let mut dialogue = Dialogue::new(session::profile(1000), Channel::Tls);
    dialogue.open();
    cuts.pieces(&wire).into_iter().for_each(|piece| dialogue.feed(piece));
    let is_good =
        content.len() as u64 <= session::MESSAGE_SIZE && data::is_sound(&content) && !data::is_loop(&content, 3);
    let said = &dialogue.said;
    assert_eq!(said.len(), chunks + 1, "one reply a chunk, and one to NOOP: {said:?}");
    assert!(said[chunks].starts_with("250 "), "the session is out of step: {said:?}");
    assert_eq!(said[chunks - 1].starts_with("250 "), is_good, "{}: {said:?}", content.escape_ascii());
    match &dialogue.messages[..] {
        [] => assert!(!is_good, "a good message is lost"),
        [(_, stored)] => {
            assert!(is_good, "{} was accepted", content.escape_ascii());
            assert_eq!(stored, &content, "another message is stored than was sent");
        }
        _ => panic!("one message became several"),
    }
}

fn command(wire: &mut Vec<u8>, size: usize, is_last: bool) {
    // Writing into a Vec cannot fail.
    let _ = write!(wire, "BDAT {size}{}\r\n", if is_last { " LAST" } else { "" });
}
