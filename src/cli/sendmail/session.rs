//! `-bs`: an SMTP session on standard input and output, handed to the relay command by command.
//!
//! A whole session may stand on standard input at once (`sendmail -bs < file`), its lines ended by LF alone. The relay
//! drops network clients that do not wait for its answers, so the waiting is done here: each command is sent after the
//! answer to the one before, and content after its 354.

use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver};

use super::message::strip_line_end;
use crate::smtp::reply::ReplyParser;

/// Passes what comes on standard input to the relay, and its answers to standard output, until the relay closes.
///
/// # Errors
/// The connection breaks.
pub(super) fn run(stream: &TcpStream) -> io::Result<()> {
    let mut relay = stream.try_clone()?;
    let (answered, answers) = mpsc::channel();
    // It ends with the process: nothing wakes a read from standard input.
    std::thread::spawn(move || {
        let _ = feed(BufReader::new(io::stdin()), &mut relay, &answers);
        let _ = relay.shutdown(Shutdown::Write);
    });
    let (mut input, mut stdout) = (stream, io::stdout().lock());
    let (mut parser, mut unread, mut block) = (Some(ReplyParser::default()), Vec::new(), [0; 2048]);
    loop {
        let length = match input.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // A caller that does not listen any more has ended the session.
        if stdout.write_all(&block[..length]).and_then(|()| stdout.flush()).is_err() {
            return Ok(());
        }
        unread.extend_from_slice(&block[..length]);
        while let Some(replies) = &mut parser {
            match replies.parse(&unread) {
                Ok((used, reply)) => {
                    unread.drain(..used);
                    let Some(reply) = reply else { break };
                    // The reader of standard input may have come to its end.
                    let _ = answered.send(reply.code().get());
                }
                // TLS, or no relay: nobody waits for a reply then.
                Err(_) => parser = None,
            }
        }
        if parser.is_none() {
            unread.clear();
        }
    }
}

/// Sends commands and content as the answers come; ends with the input or with the answers.
fn feed(mut input: impl BufRead, relay: &mut impl Write, answers: &Receiver<u16>) -> io::Result<()> {
    let mut line = Vec::new();
    // The greeting.
    let mut answer = answers.recv();
    while answer.is_ok() {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        send_line(&mut line, relay)?;
        let text = String::from_utf8_lossy(&line).to_ascii_uppercase();
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next().and_then(|size| size.parse().ok())) {
            (Some("BDAT"), Some(size)) => {
                // A chunk goes with its command, whatever the answer is (RFC 3030 §2).
                io::copy(&mut input.by_ref().take(size), relay)?;
                answer = answers.recv();
            }
            (Some("DATA"), _) => {
                answer = answers.recv();
                if answer == Ok(354) {
                    if !send_content(&mut input, relay)? {
                        return Ok(());
                    }
                    answer = answers.recv();
                }
            }
            (Some("STARTTLS"), _) => {
                answer = answers.recv();
                if answer == Ok(220) {
                    io::copy(&mut input, relay)?;
                    return Ok(());
                }
            }
            _ => answer = answers.recv(),
        }
    }
    Ok(())
}

/// Sends content up to the line with its final dot; false where the input ends before.
fn send_content(input: &mut impl BufRead, relay: &mut impl Write) -> io::Result<bool> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(false);
        }
        if send_line(&mut line, relay)? && line == b"." {
            return Ok(true);
        }
    }
}

/// Sends a line with the line end that SMTP has. Half a line, at the end of the input, stays half a line; false then.
fn send_line(line: &mut Vec<u8>, relay: &mut impl Write) -> io::Result<bool> {
    let is_whole = line.ends_with(b"\n");
    strip_line_end(line);
    let end = if is_whole { &b"\r\n"[..] } else { b"" };
    relay.write_all(&[line, end].concat())?;
    Ok(is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what the relay receives of this input while it gives these answers.
    fn heard(input: &[u8], answers: &[u16]) -> String {
        let (sender, receiver) = mpsc::channel();
        for code in answers {
            sender.send(*code).expect("it listens");
        }
        drop(sender);
        let mut relay = Vec::new();
        feed(input, &mut relay, &receiver).expect("memory");
        String::from_utf8(relay).expect("text")
    }

    #[test]
    fn a_command_waits_for_the_answer_before_it() {
        let input = b"EHLO me\nNOOP\nQUIT\n";
        assert_eq!(heard(input, &[]), "");
        assert_eq!(heard(input, &[220]), "EHLO me\r\n");
        assert_eq!(heard(input, &[220, 250, 250]), "EHLO me\r\nNOOP\r\nQUIT\r\n");
    }

    #[test]
    fn content_waits_for_its_354() {
        let input = b"data\nSubject: a\rb\r\n..\n.\nQUIT\n";
        assert_eq!(heard(input, &[220]), "data\r\n");
        assert_eq!(heard(input, &[220, 354]), "data\r\nSubject: a b\r\n..\r\n.\r\n");
        assert_eq!(heard(input, &[220, 354, 250]), "data\r\nSubject: a b\r\n..\r\n.\r\nQUIT\r\n");
        // What was no content then is commands.
        assert_eq!(heard(input, &[220, 503]), "data\r\nSubject: a b\r\n");
    }

    #[test]
    fn a_chunk_goes_with_its_command_as_it_is() {
        let input = b"BDAT 6 LAST\na\nb\rc\nQUIT\n";
        assert_eq!(heard(input, &[220, 250]), "BDAT 6 LAST\r\na\nb\rc\nQUIT\r\n");
        assert_eq!(heard(input, &[220]), "BDAT 6 LAST\r\na\nb\rc\n");
    }

    #[test]
    fn behind_starttls_nothing_is_touched() {
        assert_eq!(heard(b"STARTTLS\n\x16\n\n\r", &[220, 220]), "STARTTLS\r\n\x16\n\n\r");
        assert_eq!(heard(b"STARTTLS\nQUIT\n", &[220, 502]), "STARTTLS\r\nQUIT\r\n");
    }

    #[test]
    fn half_a_line_is_not_made_a_whole_one() {
        assert_eq!(heard(b"QUI", &[220]), "QUI");
        assert_eq!(heard(b"DATA\na\n.", &[220, 354]), "DATA\r\na\r\n.");
    }
}
